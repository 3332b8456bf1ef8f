//! How objects lie in the file, and how they are read.
//!
//! An object's bytes stand in blocks of the same length, whatever pieces they came in, and beside them
//! which are held: ranges, joined as they meet. A row per chunk would have to be merged, or 16 MiB put byte
//! by byte would fill the disk with keys; and to know what is held, all of it would have to be read. With
//! blocks a chunk writes one or two of them anew, pages that its commit would write anyway.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use rangemap::RangeSet;
use redb::{ReadTransaction, ReadableTable, TableDefinition};
use serde::{Deserialize, Serialize};
use thinpost_wire::ids::ObjectId;

use super::records::{CHECK_BYTES, check, decode};
use crate::store::{ObjectNo, ObjectRecord, RelayTime, StoreError};

/// Object number -> [`Object`].
pub(super) const OBJECTS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("objects");
/// (Name, mailbox) -> object number.
pub(super) const OBJECT_IDS: TableDefinition<'_, (&[u8; 32], u32), u64> = TableDefinition::new("object-ids");
/// (Deadline, object): the order in which objects expire.
pub(super) const OBJECT_DEADLINES: TableDefinition<'_, (u64, u64), ()> =
    TableDefinition::new("object-deadlines");
/// Mailbox -> its objects and their sizes.
pub(super) const OBJECT_USAGE: TableDefinition<'_, u32, (u32, u64)> = TableDefinition::new("object-usage");
/// (Object, first byte) -> the byte after the last: what is held. No two of an object touch.
pub(super) const OBJECT_RANGES: TableDefinition<'_, (u64, u64), u64> = TableDefinition::new("object-ranges");
/// (Object, block) -> the block's check and bytes, from the first byte held on as long as it will ever be.
/// What is not held of it is zero.
pub(super) const OBJECT_BLOCKS: TableDefinition<'_, (u64, u32), &[u8]> =
    TableDefinition::new("object-blocks");

/// Bytes of an object in one block; the last may have fewer. With key and check it fills one page of redb.
pub(super) const BLOCK_BYTES: u64 = 4_000;

/// What only grows, and what is counted as it changes. Beside the store's own state, so that a store from
/// before there were objects is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ObjectState {
    /// The newest object number given out.
    pub(super) object: u64,
    /// Sizes of all objects, bytes.
    pub(super) bytes: u64,
}

/// An object's row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Object {
    pub(super) id: [u8; 32],
    pub(super) mailbox: u32,
    pub(super) size: u64,
    pub(super) deadline: u64,
    pub(super) is_complete: bool,
    /// Its rows in [`OBJECT_RANGES`].
    pub(super) ranges: u32,
}

impl Object {
    pub(super) fn record(
        &self,
        number: u64,
        ranges: &impl ReadableTable<(u64, u64), u64>,
    ) -> Result<ObjectRecord, StoreError> {
        Ok(ObjectRecord {
            number: ObjectNo(number),
            size: self.size,
            is_complete: self.is_complete,
            deadline: RelayTime(self.deadline),
            held: held(ranges, number)?,
        })
    }

    /// Which bytes a block has.
    pub(super) fn block(&self, index: u32) -> Range<u64> {
        let start = u64::from(index) * BLOCK_BYTES;
        start..self.size.min(start + BLOCK_BYTES)
    }
}

/// The blocks that a piece of an object lies in.
pub(super) fn blocks_of(piece: &Range<u64>) -> Range<u32> {
    (piece.start / BLOCK_BYTES) as u32..piece.end.div_ceil(BLOCK_BYTES) as u32
}

/// The check of a block, and of the place where it stands.
pub(super) fn block_check(object: u64, index: u32, bytes: &[u8]) -> [u8; CHECK_BYTES] {
    check(object, [&index.to_be_bytes(), bytes])
}

/// The bytes in a block's row.
pub(super) fn read_block(object: u64, index: u32, len: u64, value: &[u8]) -> Result<&[u8], StoreError> {
    match value.split_at_checked(CHECK_BYTES) {
        Some((check, bytes)) if bytes.len() as u64 == len && *check == block_check(object, index, bytes) => {
            Ok(bytes)
        }
        _ => Err(StoreError::Corrupt(format!("block {index} of object {object} fails its check"))),
    }
}

fn missing_block(object: u64, index: u32) -> StoreError {
    StoreError::Corrupt(format!("block {index} of object {object} is missing"))
}

/// The range in a row of [`OBJECT_RANGES`].
pub(super) fn range_of(object: u64, start: u64, end: u64) -> Result<Range<u64>, StoreError> {
    if start < end {
        Ok(start..end)
    } else {
        Err(StoreError::Corrupt(format!("object {object} holds {start} to {end}")))
    }
}

/// Which bytes of an object are held.
pub(super) fn held(
    ranges: &impl ReadableTable<(u64, u64), u64>,
    object: u64,
) -> Result<RangeSet<u64>, StoreError> {
    let mut held = RangeSet::new();
    for row in ranges.range((object, 0)..=(object, u64::MAX))? {
        let (key, end) = row?;
        held.insert(range_of(object, key.value().1, end.value())?);
    }
    Ok(held)
}

/// The range that begins before `offset`, or at it.
pub(super) fn range_before(
    ranges: &impl ReadableTable<(u64, u64), u64>,
    object: u64,
    offset: u64,
) -> Result<Option<Range<u64>>, StoreError> {
    let last = ranges.range((object, 0)..=(object, offset))?.next_back().transpose()?;
    last.map(|(key, end)| range_of(object, key.value().1, end.value())).transpose()
}

fn object(read: &ReadTransaction, number: u64) -> Result<Option<Object>, StoreError> {
    read.open_table(OBJECTS)?.get(number)?.map(|row| decode("object", row.value())).transpose()
}

/// The record of an object that an index names.
pub(super) fn record(read: &ReadTransaction, number: u64) -> Result<ObjectRecord, StoreError> {
    let found = object(read, number)?;
    let found = found.ok_or_else(|| StoreError::Corrupt(format!("object {number} is missing")))?;
    found.record(number, &read.open_table(OBJECT_RANGES)?)
}

/// See [`crate::store::Store::find_object`].
pub(super) fn find(read: &ReadTransaction, id: &ObjectId) -> Result<Option<ObjectRecord>, StoreError> {
    let mut longest = None;
    for row in read.open_table(OBJECT_IDS)?.range((&id.0, 0)..=(&id.0, u32::MAX))? {
        let number = row?.1.value();
        let found = object(read, number)?;
        let found = found.ok_or_else(|| StoreError::Corrupt(format!("object {number} is missing")))?;
        if found.is_complete {
            longest = longest.max(Some((found.deadline, number)));
        }
    }
    longest.map(|(_, number)| record(read, number)).transpose()
}

/// See [`crate::store::Store::read_object`].
pub(super) fn read_from(
    read: &ReadTransaction,
    number: u64,
    offset: u64,
    bytes_max: usize,
) -> Result<Bytes, StoreError> {
    let Some(object) = object(read, number)? else { return Ok(Bytes::new()) };
    let range = range_before(&read.open_table(OBJECT_RANGES)?, number, offset)?;
    let held_to = range.map_or(0, |range| range.end);
    if held_to > object.size {
        return Err(StoreError::Corrupt(format!("object {number} holds more than it has")));
    }
    let end = held_to.min(offset.saturating_add(bytes_max as u64));
    if end <= offset {
        return Ok(Bytes::new());
    }
    let piece = offset..end;
    let blocks = read.open_table(OBJECT_BLOCKS)?;
    let mut bytes = BytesMut::with_capacity((end - offset) as usize);
    for index in blocks_of(&piece) {
        let place = object.block(index);
        let row = blocks.get((number, index))?.ok_or_else(|| missing_block(number, index))?;
        let block = read_block(number, index, place.end - place.start, row.value())?;
        let from = piece.start.max(place.start) - place.start;
        let to = piece.end.min(place.end) - place.start;
        bytes.extend_from_slice(&block[from as usize..to as usize]);
    }
    Ok(bytes.freeze())
}

/// See [`crate::store::Store::object_digest`].
pub(super) fn digest(read: &ReadTransaction, number: u64) -> Result<Option<ObjectId>, StoreError> {
    let Some(object) = object(read, number)? else { return Ok(None) };
    let whole = range_before(&read.open_table(OBJECT_RANGES)?, number, 0)?;
    if whole != Some(0..object.size) {
        return Ok(None);
    }
    let blocks = read.open_table(OBJECT_BLOCKS)?;
    let mut hasher = blake3::Hasher::new();
    for index in blocks_of(&(0..object.size)) {
        let place = object.block(index);
        let row = blocks.get((number, index))?.ok_or_else(|| missing_block(number, index))?;
        hasher.update(read_block(number, index, place.end - place.start, row.value())?);
    }
    Ok(Some(ObjectId(hasher.finalize().into())))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::store::redb::records::encode;

    #[test]
    fn the_layout_of_an_object_stands() {
        let state = ObjectState { object: 2, bytes: 300 };
        assert_eq!(encode(&state).unwrap(), [2, 0xac, 0x02]);
        let object = Object { id: [1; 32], mailbox: 2, size: 300, deadline: 4, is_complete: true, ranges: 1 };
        assert_eq!(encode(&object).unwrap(), [[1; 32].as_slice(), &[2, 0xac, 0x02, 4, 1, 1]].concat());
        assert_eq!(BLOCK_BYTES, 4_000, "another length would put every block elsewhere");
    }

    #[test]
    fn a_piece_lies_in_the_blocks_that_it_touches() {
        assert_eq!(blocks_of(&(0..1)), 0..1);
        assert_eq!(blocks_of(&(0..4_000)), 0..1);
        assert_eq!(blocks_of(&(3_999..4_001)), 0..2);
        assert_eq!(blocks_of(&(8_000..8_001)), 2..3);
    }

    #[test]
    fn no_flipped_bit_nor_cut_nor_moved_block_reads_as_a_block() {
        let value = [block_check(7, 3, b"hello").as_slice(), b"hello"].concat();
        assert_eq!(read_block(7, 3, 5, &value).unwrap(), b"hello");
        for bit in 0..value.len() * 8 {
            let mut flipped = value.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(read_block(7, 3, 5, &flipped), Err(StoreError::Corrupt(_))), "bit {bit}");
        }
        for len in 0..value.len() {
            assert!(matches!(read_block(7, 3, 5, &value[..len]), Err(StoreError::Corrupt(_))), "{len}");
        }
        assert!(read_block(8, 3, 5, &value).is_err());
        assert!(read_block(7, 2, 5, &value).is_err());
    }
}
