//! Objects: opened, put piece by piece, completed, and let go.

use std::ops::Range;

use redb::{ReadableTable, Table, WriteTransaction};
use thinpost_disk::Left;
use thinpost_wire::ids::ObjectId;
use thinpost_wire::limits::OBJECT_BYTES_MAX;

use super::{Result, Transaction, missing};
use crate::store::redb::objects::{
    OBJECT_BLOCKS, OBJECT_DEADLINES, OBJECT_IDS, OBJECT_RANGES, OBJECT_USAGE, OBJECTS, Object, block_check,
    blocks_of, range_before, range_of, read_block,
};
use crate::store::redb::records::{CHECK_BYTES, decode, encode};
use crate::store::{DeviceNo, Done, ObjectNo, Refusal, StoreError, Verdict};

/// The tables of objects, open.
pub(super) struct ObjectTables<'t> {
    records: Table<'t, u64, &'static [u8]>,
    ids: Table<'t, (&'static [u8; 32], u32), u64>,
    deadlines: Table<'t, (u64, u64), ()>,
    usage: Table<'t, u32, (u32, u64)>,
    ranges: Table<'t, (u64, u64), u64>,
    blocks: Table<'t, (u64, u32), &'static [u8]>,
}

impl<'t> ObjectTables<'t> {
    pub(super) fn open(write: &'t WriteTransaction) -> Result<Self> {
        Ok(Self {
            records: write.open_table(OBJECTS)?,
            ids: write.open_table(OBJECT_IDS)?,
            deadlines: write.open_table(OBJECT_DEADLINES)?,
            usage: write.open_table(OBJECT_USAGE)?,
            ranges: write.open_table(OBJECT_RANGES)?,
            blocks: write.open_table(OBJECT_BLOCKS)?,
        })
    }

    fn record(&self, number: u64) -> Result<Option<Object>> {
        self.records.get(number)?.map(|row| decode("object", row.value())).transpose()
    }

    fn put_record(&mut self, number: u64, object: &Object) -> Result<()> {
        self.records.insert(number, encode(object)?.as_slice())?;
        Ok(())
    }

    fn usage(&self, mailbox: u32) -> Result<(u32, u64)> {
        Ok(self.usage.get(mailbox)?.map_or((0, 0), |row| row.value()))
    }

    /// What is held around a piece: the ranges that overlap it or touch it, in order.
    fn touching(&self, number: u64, piece: &Range<u64>) -> Result<Vec<Range<u64>>> {
        let before = range_before(&self.ranges, number, piece.start)?;
        let mut found: Vec<_> = before.filter(|range| range.end >= piece.start).into_iter().collect();
        // The one that begins where the piece does was found already.
        for row in self.ranges.range((number, piece.start + 1)..=(number, piece.end))? {
            let (key, end) = row?;
            found.push(range_of(number, key.value().1, end.value())?);
        }
        Ok(found)
    }

    /// Writes a piece into the blocks that it lies in.
    fn write(&mut self, number: u64, object: &Object, piece: Range<u64>, bytes: &[u8]) -> Result<()> {
        for index in blocks_of(&piece) {
            let place = object.block(index);
            let len = place.end - place.start;
            // What is held of the block is checked first, or damage would get a check that holds.
            let mut value = match self.blocks.get((number, index))? {
                Some(row) => {
                    read_block(number, index, len, row.value())?;
                    row.value().to_vec()
                }
                None => vec![0; CHECK_BYTES + len as usize],
            };
            let (check, block) = value.split_at_mut(CHECK_BYTES);
            let common = piece.start.max(place.start)..piece.end.min(place.end);
            let of_block = (common.start - place.start) as usize..(common.end - place.start) as usize;
            let of_piece = (common.start - piece.start) as usize..(common.end - piece.start) as usize;
            block[of_block].copy_from_slice(&bytes[of_piece]);
            check.copy_from_slice(&block_check(number, index, block));
            self.blocks.insert((number, index), value.as_slice())?;
        }
        Ok(())
    }

    /// Cuts off what an object has from a block on; how many rows that were.
    fn cut(&mut self, number: u64, object: &mut Object, block: u32) -> Result<u32> {
        let (mut ranges, mut blocks) = (0, 0);
        let from = object.block(block).start;
        if let Some(straddling) = range_before(&self.ranges, number, from)?
            && straddling.start < from
            && straddling.end > from
        {
            self.ranges.insert((number, straddling.start), from)?;
        }
        self.ranges.retain_in((number, from)..=(number, u64::MAX), |_, _| {
            ranges += 1;
            false
        })?;
        self.blocks.retain_in((number, block)..=(number, u32::MAX), |_, _| {
            blocks += 1;
            false
        })?;
        let left = object.ranges.checked_sub(ranges);
        object.ranges = left.ok_or_else(|| miscounted("object", number))?;
        object.is_complete = false;
        Ok(ranges + blocks)
    }
}

fn miscounted(what: &str, number: impl std::fmt::Display) -> StoreError {
    StoreError::Corrupt(format!("{what} {number} holds more than is counted"))
}

impl Transaction<'_> {
    pub(super) fn open_object(
        &mut self,
        device: DeviceNo,
        id: &ObjectId,
        size: u64,
        lifetime_s: u32,
    ) -> Result<Verdict> {
        let Some(device) = self.device(device.0)? else { return Ok(Err(Refusal::UnknownDevice)) };
        let mailbox = device.mailbox;
        let deadline = self.now.after_s(lifetime_s.min(self.config.lifetime_s_max).into()).0;
        let known = self.objects.ids.get((&id.0, mailbox))?.map(|row| row.value());
        if let Some(number) = known {
            let object = self.objects.record(number)?.ok_or_else(|| missing("object", number))?;
            return self.reopen_object(number, object, size, deadline);
        }
        let quota = self.config.objects;
        if size == 0 || size > quota.object_bytes_max.min(OBJECT_BYTES_MAX) {
            return Ok(Err(Refusal::ObjectTooLong));
        }
        let (objects, bytes) = self.objects.usage(mailbox)?;
        if objects >= quota.objects_max || bytes + size > quota.bytes_max {
            return Ok(Err(Refusal::ObjectQuota));
        }
        if !self.has_room(size, 0) || self.left < Left::Plenty {
            return Ok(Err(Refusal::StoreFull));
        }
        self.changed = true;
        self.object_state.object += 1;
        self.object_state.bytes += size;
        let number = self.object_state.object;
        let object = Object { id: id.0, mailbox, size, deadline, is_complete: false, ranges: 0 };
        self.objects.put_record(number, &object)?;
        self.objects.ids.insert((&id.0, mailbox), number)?;
        self.objects.deadlines.insert((deadline, number), ())?;
        self.objects.usage.insert(mailbox, (objects + 1, bytes + size))?;
        Ok(Ok(Done::ObjectOpened { object: ObjectNo(number), is_complete: false }))
    }

    /// An object that the account has already is kept longer, and never less long.
    fn reopen_object(
        &mut self,
        number: u64,
        mut object: Object,
        size: u64,
        deadline: u64,
    ) -> Result<Verdict> {
        if object.size != size {
            return Ok(Err(Refusal::ObjectConflict));
        }
        if deadline > object.deadline {
            self.changed = true;
            self.objects.deadlines.remove((object.deadline, number))?;
            self.objects.deadlines.insert((deadline, number), ())?;
            object.deadline = deadline;
            self.objects.put_record(number, &object)?;
        }
        Ok(Ok(Done::ObjectOpened { object: ObjectNo(number), is_complete: object.is_complete }))
    }

    pub(super) fn put_chunk(&mut self, number: ObjectNo, offset: u64, bytes: &[u8]) -> Result<Verdict> {
        let number = number.0;
        let Some(mut object) = self.objects.record(number)? else {
            return Ok(Err(Refusal::UnknownObject));
        };
        let end = offset.checked_add(bytes.len() as u64).filter(|end| *end <= object.size);
        let Some(end) = end else { return Ok(Err(Refusal::ObjectConflict)) };
        if object.is_complete || bytes.is_empty() {
            return Ok(Ok(Done::ChunkPut));
        }
        let piece = offset..end;
        let touching = self.objects.touching(number, &piece)?;
        if touching.is_empty() && object.ranges >= self.config.object_ranges_max {
            return Ok(Err(Refusal::ObjectScattered));
        }
        let mut reached = offset;
        let mut gaps = Vec::new();
        for range in &touching {
            if reached < range.start {
                gaps.push(reached..range.start);
            }
            reached = reached.max(range.end);
        }
        if reached < end {
            gaps.push(reached..end);
        }
        if gaps.is_empty() {
            return Ok(Ok(Done::ChunkPut));
        }
        // Its bytes were counted when it was opened, and not written.
        if self.left < Left::Plenty {
            return Ok(Err(Refusal::StoreFull));
        }
        self.changed = true;
        for gap in gaps {
            let new = &bytes[(gap.start - offset) as usize..(gap.end - offset) as usize];
            self.objects.write(number, &object, gap, new)?;
        }
        for range in &touching {
            self.objects.ranges.remove((number, range.start))?;
        }
        let start = touching.first().map_or(offset, |first| first.start.min(offset));
        self.objects.ranges.insert((number, start), reached.max(end))?;
        let others = object.ranges.checked_sub(touching.len() as u32);
        let ranges = others.ok_or_else(|| miscounted("object", number))? + 1;
        if ranges != object.ranges {
            object.ranges = ranges;
            self.objects.put_record(number, &object)?;
        }
        Ok(Ok(Done::ChunkPut))
    }

    pub(super) fn complete_object(&mut self, number: ObjectNo) -> Result<Verdict> {
        let number = number.0;
        let Some(mut object) = self.objects.record(number)? else {
            return Ok(Err(Refusal::UnknownObject));
        };
        if range_before(&self.objects.ranges, number, 0)? != Some(0..object.size) {
            return Ok(Err(Refusal::ObjectIncomplete));
        }
        if !object.is_complete {
            self.changed = true;
            object.is_complete = true;
            self.objects.put_record(number, &object)?;
        }
        Ok(Ok(Done::ObjectCompleted))
    }

    pub(super) fn drop_object(&mut self, number: ObjectNo) -> Result<Verdict> {
        if let Some(object) = self.objects.record(number.0)? {
            self.remove_object(number.0, object)?;
        }
        Ok(Ok(Done::ObjectDropped))
    }

    /// Removes an object with all it has, and gives back what it counted; how many rows that were.
    fn remove_object(&mut self, number: u64, mut object: Object) -> Result<u32> {
        self.changed = true;
        let rows = self.objects.cut(number, &mut object, 0)?;
        self.objects.records.remove(number)?;
        self.objects.ids.remove((&object.id, object.mailbox))?;
        self.objects.deadlines.remove((object.deadline, number))?;
        let (objects, bytes) = self.objects.usage(object.mailbox)?;
        let (Some(objects), Some(bytes), Some(all_bytes)) = (
            objects.checked_sub(1),
            bytes.checked_sub(object.size),
            self.object_state.bytes.checked_sub(object.size),
        ) else {
            return Err(miscounted("mailbox", object.mailbox));
        };
        self.objects.usage.insert(object.mailbox, (objects, bytes))?;
        self.object_state.bytes = all_bytes;
        Ok(rows + 1)
    }

    /// The first object that has expired.
    pub(super) fn due_object(&self) -> Result<Option<u64>> {
        let first = self.objects.deadlines.first()?.map(|(key, _)| key.value());
        Ok(first.filter(|(due, _)| *due <= self.now.0).map(|(_, number)| number))
    }

    /// Removes an expired object, or of a long one only its last `blocks_max` blocks: then what is left is
    /// the beginning of an object like any other, which its account may open again and go on with. Whether
    /// it is gone, and how many rows are.
    pub(super) fn object_due(&mut self, number: u64, blocks_max: u32) -> Result<(bool, u32)> {
        let mut object = self.objects.record(number)?.ok_or_else(|| missing("object", number))?;
        let rows = self.objects.blocks.range((number, 0)..=(number, u32::MAX))?;
        let last = rows.rev().nth(blocks_max.saturating_sub(1) as usize).transpose()?;
        let Some(block) = last.map(|(key, _)| key.value().1) else {
            return Ok((true, self.remove_object(number, object)?));
        };
        self.changed = true;
        let rows = self.objects.cut(number, &mut object, block)?;
        self.objects.put_record(number, &object)?;
        Ok((false, rows))
    }
}
