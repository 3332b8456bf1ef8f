//! Objects: their bytes, what is said to be held of them, and what is counted.

use std::collections::{BTreeSet, HashMap};

use redb::{Key, ReadOnlyTable, TableDefinition, TableHandle, Value};
use thinpost_wire::limits::OBJECT_BYTES_MAX;

use super::Check;
use crate::store::StoreError;
use crate::store::bounds::LIFETIME_S_MAX;
use crate::store::redb::objects::{
    BLOCK_BYTES, OBJECT_BLOCKS, OBJECT_DEADLINES, OBJECT_IDS, OBJECT_RANGES, OBJECT_USAGE, OBJECTS, Object,
    digest, held, read_block,
};
use crate::store::redb::records::{MAILBOXES, decode};

/// An object's row, if it can be read.
fn object(objects: &ReadOnlyTable<u64, &'static [u8]>, number: u64) -> Result<Option<Object>, StoreError> {
    Ok(objects.get(number)?.and_then(|row| decode::<Object>("object", row.value()).ok()))
}

impl Check<'_> {
    /// Each object with its name, deadline, ranges and blocks.
    pub(super) fn objects(&mut self) -> Result<(), StoreError> {
        let (mailboxes, ids, deadlines) =
            (self.open(MAILBOXES)?, self.open(OBJECT_IDS)?, self.open(OBJECT_DEADLINES)?);
        let (ranges, blocks) = (self.open(OBJECT_RANGES)?, self.open(OBJECT_BLOCKS)?);
        let (read, newest) = (self.read, self.known.objects.object);
        let latest = self.known.state.clock_s.saturating_add(LIFETIME_S_MAX);
        let mut usage: HashMap<u32, (u32, u64)> = HashMap::new();
        self.each(OBJECTS, |report, number, row| {
            let Ok(object) = decode::<Object>("object", row) else {
                report.fault(OBJECTS.name(), number, "it cannot be read");
                return Ok(());
            };
            report.counts.objects += 1;
            report.counts.object_bytes = report.counts.object_bytes.saturating_add(object.size);
            if object.deadline > latest {
                report.remark(OBJECTS.name(), number, "it is kept longer than anything is");
            }
            let mut fault = |what: String| report.fault(OBJECTS.name(), number, what);
            let (objects, bytes) = usage.entry(object.mailbox).or_default();
            *objects += 1;
            *bytes = bytes.saturating_add(object.size);
            if number == 0 || number > newest {
                fault("its number was never given out".to_owned());
            }
            if object.size == 0 || object.size > OBJECT_BYTES_MAX {
                fault(format!("no object has {} bytes", object.size));
                return Ok(());
            }
            if mailboxes.get(object.mailbox)?.is_none() {
                fault("its mailbox is missing".to_owned());
            }
            if ids.get((&object.id, object.mailbox))?.is_none_or(|named| named.value() != number) {
                fault("its name leads elsewhere".to_owned());
            }
            if deadlines.get((object.deadline, number))?.is_none() {
                fault("it has no deadline".to_owned());
            }
            let rows = ranges.range((number, 0)..=(number, u64::MAX))?.count() as u32;
            let held = match held(&ranges, number) {
                Ok(held) => held,
                Err(StoreError::Corrupt(what)) => {
                    fault(what);
                    return Ok(());
                }
                Err(error) => return Err(error),
            };
            // Ranges that touch, or overlap, are one here.
            if rows != object.ranges || held.len() as u32 != rows {
                fault(format!("it is held in {} ranges, not in {} as is counted", held.len(), object.ranges));
            }
            if held.last().is_some_and(|last| last.end > object.size) {
                fault("more is held of it than it has".to_owned());
            }
            let mut expected = 0;
            for row in blocks.range((number, 0)..=(number, u32::MAX))? {
                let (key, value) = row?;
                let index = key.value().1;
                let start = u64::from(index) * BLOCK_BYTES;
                let end = object.size.min(start + BLOCK_BYTES);
                if start >= end || !held.overlaps(&(start..end)) {
                    fault(format!("nothing is held of its block {index}, which is there"));
                } else if read_block(number, index, end - start, value.value()).is_err() {
                    fault(format!("its block {index} fails its check"));
                }
                expected += 1;
            }
            let touched: BTreeSet<u64> = held
                .iter()
                .flat_map(|range| range.start / BLOCK_BYTES..range.end.min(object.size).div_ceil(BLOCK_BYTES))
                .collect();
            if touched.len() != expected {
                fault(format!("it has {expected} blocks, and {} are held", touched.len()));
            }
            if object.is_complete && !matches!(digest(read, number), Ok(Some(id)) if id.0 == object.id) {
                fault("it is not what its name says".to_owned());
            }
            Ok(())
        })?;
        if self.report.counts.object_bytes != self.known.objects.bytes {
            let (counted, found) = (self.known.objects.bytes, self.report.counts.object_bytes);
            let what = format!("{counted} bytes of objects are counted, and {found} are there");
            self.report.fault("meta", "objects", what);
        }
        self.known.objects_of = Some(usage);
        Ok(())
    }

    pub(super) fn object_ids(&mut self) -> Result<(), StoreError> {
        let objects = self.open(OBJECTS)?;
        self.each(OBJECT_IDS, |report, (id, mailbox), number| {
            if object(&objects, number)?.is_none_or(|object| object.id != *id || object.mailbox != mailbox) {
                let what = "its object has another name, or is missing";
                report.fault(OBJECT_IDS.name(), format_args!("{mailbox}/{number}"), what);
            }
            Ok(())
        })
    }

    pub(super) fn object_deadlines(&mut self) -> Result<(), StoreError> {
        let objects = self.open(OBJECTS)?;
        self.each(OBJECT_DEADLINES, |report, (deadline, number), ()| {
            if object(&objects, number)?.is_none_or(|object| object.deadline != deadline) {
                let what = "its object has another, or is missing";
                report.fault(OBJECT_DEADLINES.name(), format_args!("{deadline}/{number}"), what);
            }
            Ok(())
        })
    }

    pub(super) fn object_ranges(&mut self) -> Result<(), StoreError> {
        self.of_objects(OBJECT_RANGES, |(number, start)| (number, start))
    }

    pub(super) fn object_blocks(&mut self) -> Result<(), StoreError> {
        self.of_objects(OBJECT_BLOCKS, |(number, index)| (number, u64::from(index)))
    }

    /// Each row's object is there.
    fn of_objects<K: Key + 'static, V: Value + 'static>(
        &mut self,
        table: TableDefinition<'_, K, V>,
        place: impl for<'a> Fn(K::SelfType<'a>) -> (u64, u64),
    ) -> Result<(), StoreError> {
        let objects = self.open(OBJECTS)?;
        let name = table.name().to_owned();
        let mut known = None;
        self.each(table, |report, key, _| {
            let (number, within) = place(key);
            if known != Some(number) {
                known = objects.get(number)?.map(|_| number);
            }
            if known.is_none() {
                report.fault(&name, format_args!("{number}/{within}"), "its object is missing");
            }
            Ok(())
        })
    }

    pub(super) fn object_usage(&mut self) -> Result<(), StoreError> {
        let Some(usage) = self.known.objects_of.take() else { return Ok(()) };
        let mut counted = HashMap::new();
        self.each(OBJECT_USAGE, |_, mailbox, row| {
            counted.insert(mailbox, row);
            Ok(())
        })?;
        let mut mailboxes: Vec<_> = usage.keys().chain(counted.keys()).copied().collect();
        mailboxes.sort_unstable();
        mailboxes.dedup();
        for mailbox in mailboxes {
            let of = |all: &HashMap<u32, (u32, u64)>| all.get(&mailbox).copied().unwrap_or_default();
            let ((objects, bytes), (found, found_bytes)) = (of(&counted), of(&usage));
            if (objects, bytes) != (found, found_bytes) {
                let what = format!(
                    "{objects} objects of {bytes} bytes are counted, and {found} of {found_bytes} are there"
                );
                self.report.fault(OBJECT_USAGE.name(), mailbox, what);
            }
        }
        Ok(())
    }
}
