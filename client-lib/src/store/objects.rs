//! Objects on disk: what is to become of each, and their bytes in rows of their own.

use std::ops::Range;

use bytes::Bytes;
use rangemap::RangeSet;
use redb::{ReadTransaction, WriteTransaction};
use thinpost_wire::ids::ObjectId;
use thinpost_wire::limits::OBJECT_BYTES_MAX;

use super::Store;
use super::records::{COUNTERS, Counters, OBJECT_BYTES, OBJECTS};
use super::table::Tables;
use crate::error::StoreError;
use crate::objects::{ObjectAim, ObjectNumber, ObjectRow};

/// How many bytes of an object that is handed over stand in one row.
const BLOCK_BYTES: usize = 16 * 1024;

/// Rows of an object's bytes are ordered by number and offset.
const OFFSET_BITS: u32 = OBJECT_BYTES_MAX.ilog2();

/// What one turn of the driver changes about an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ObjectChange {
    /// The relay has said how long it is.
    Size(u64),
    /// Bytes of it have come, none of which were here.
    Chunk(u64, Bytes),
    /// All of it is here.
    Arrived,
    /// What is here is not the object: it is to be fetched anew.
    Reset,
    /// It is no concern of this home any more.
    Gone,
}

/// What is known about an object that is not done with.
pub(crate) type LoadedObject = (ObjectNumber, ObjectRow, RangeSet<u64>);

fn key(number: ObjectNumber, offset: u64) -> u64 {
    number.0 << OFFSET_BITS | offset
}

fn keys(number: ObjectNumber) -> Range<u64> {
    key(number, 0)..key(ObjectNumber(number.0 + 1), 0)
}

/// Those that are to be handed over or fetched, and what is here of the latter.
pub(super) fn load(read: &Tables<'_, ReadTransaction>) -> Result<Vec<LoadedObject>, StoreError> {
    let mut objects = Vec::new();
    for row in read.table(OBJECTS)?.range(..)? {
        let (number, row) = row?;
        let number = ObjectNumber(number);
        let mut held = RangeSet::new();
        match row.aim {
            ObjectAim::Keep => continue,
            ObjectAim::Put { .. } => {}
            ObjectAim::Fetch => {
                for bytes in read.table(OBJECT_BYTES)?.range(keys(number))? {
                    let (at, bytes) = bytes?;
                    let offset = at - key(number, 0);
                    held.insert(offset..offset + bytes.len() as u64);
                }
            }
        }
        objects.push((number, row, held));
    }
    Ok(objects)
}

/// Makes what has become of objects durable.
pub(super) fn change(
    write: &Tables<'_, WriteTransaction>,
    changes: &[(ObjectNumber, ObjectChange)],
) -> Result<(), StoreError> {
    let mut objects = write.table(OBJECTS)?;
    let mut bytes = write.table(OBJECT_BYTES)?;
    for (number, change) in changes {
        // It may have been forgotten meanwhile.
        let Some(row) = objects.get(number.0)? else { continue };
        match change {
            ObjectChange::Size(size) => objects.insert(number.0, &ObjectRow { size: *size, ..row })?,
            ObjectChange::Chunk(offset, chunk) => bytes.insert(key(*number, *offset), &chunk.to_vec())?,
            ObjectChange::Arrived => objects.insert(number.0, &ObjectRow { aim: ObjectAim::Keep, ..row })?,
            ObjectChange::Reset => {
                bytes.drop_range(keys(*number))?;
                objects.insert(number.0, &ObjectRow { size: 0, ..row })?;
            }
            ObjectChange::Gone => {
                bytes.drop_range(keys(*number))?;
                objects.remove(number.0)?;
            }
        }
    }
    Ok(())
}

fn find(
    rows: impl Iterator<Item = Result<(u64, ObjectRow), StoreError>>,
    id: &ObjectId,
) -> Result<Option<(ObjectNumber, ObjectRow)>, StoreError> {
    for row in rows {
        let (number, row) = row?;
        if row.id == *id {
            return Ok(Some((ObjectNumber(number), row)));
        }
    }
    Ok(None)
}

impl Store {
    /// Keeps an object that is to be handed over, under a new number. Returns the one that it had, too.
    pub(crate) fn put_object(
        &self,
        row: &ObjectRow,
        bytes: &Bytes,
    ) -> Result<(ObjectNumber, Option<ObjectNumber>), StoreError> {
        self.change("put_object", |write| {
            let known = find(write.table(OBJECTS)?.range(..)?, &row.id)?.map(|(known, _)| known);
            let number = next_number(write)?;
            change(write, &known.map(|known| (known, ObjectChange::Gone)).into_iter().collect::<Vec<_>>())?;
            let mut objects = write.table(OBJECTS)?;
            let mut rows = write.table(OBJECT_BYTES)?;
            for (at, block) in (0..).step_by(BLOCK_BYTES).zip(bytes.chunks(BLOCK_BYTES)) {
                rows.insert(key(number, at), &block.to_vec())?;
            }
            objects.insert(number.0, row)?;
            Ok((number, known))
        })
    }

    /// Notes that an object is to be fetched; none if its bytes are here, or on their way.
    pub(crate) fn fetch_object(&self, row: &ObjectRow) -> Result<Option<ObjectNumber>, StoreError> {
        self.change("fetch_object", |write| {
            let mut objects = write.table(OBJECTS)?;
            if find(objects.range(..)?, &row.id)?.is_some() {
                return Ok(None);
            }
            let number = next_number(write)?;
            objects.insert(number.0, row)?;
            Ok(Some(number))
        })
    }

    pub(crate) fn find_object(&self, id: &ObjectId) -> Result<Option<(ObjectNumber, ObjectRow)>, StoreError> {
        self.read(|read| find(read.table(OBJECTS)?.range(..)?, id))
    }

    /// An object's bytes, if all of them are here.
    pub(crate) fn object(&self, id: &ObjectId) -> Result<Option<Vec<u8>>, StoreError> {
        match self.find_object(id)? {
            None => Ok(None),
            Some((_, ObjectRow { aim: ObjectAim::Fetch, .. })) => Ok(None),
            Some((number, row)) => self.object_bytes(number, 0..row.size).map(Some),
        }
    }

    /// These bytes of an object, which are all here.
    pub(crate) fn object_bytes(
        &self,
        number: ObjectNumber,
        range: Range<u64>,
    ) -> Result<Vec<u8>, StoreError> {
        self.read(|read| {
            let rows = read.table(OBJECT_BYTES)?;
            let first = rows.range(key(number, 0)..=key(number, range.start))?.next_back().transpose()?;
            let first = first.map_or(range.start, |(at, _)| at - key(number, 0));
            let mut bytes = Vec::with_capacity((range.end - range.start) as usize);
            for row in rows.range(key(number, first)..key(number, 0) + range.end)? {
                let (at, block) = row?;
                let offset = at - key(number, 0);
                let from = range.start.saturating_sub(offset) as usize;
                let to = block.len().min((range.end - offset) as usize);
                bytes.extend_from_slice(block.get(from..to).unwrap_or_default());
            }
            Ok(bytes)
        })
    }

    /// The name that the bytes of an object have.
    pub(crate) fn object_digest(&self, number: ObjectNumber) -> Result<ObjectId, StoreError> {
        self.read(|read| {
            let mut hasher = blake3::Hasher::new();
            for row in read.table(OBJECT_BYTES)?.range(keys(number))? {
                hasher.update(&row?.1);
            }
            Ok(ObjectId(hasher.finalize().into()))
        })
    }

    /// Forgets an object; none if there is no such.
    pub(crate) fn forget_object(&self, id: &ObjectId) -> Result<Option<ObjectNumber>, StoreError> {
        let Some((number, _)) = self.find_object(id)? else { return Ok(None) };
        self.change("forget_object", |write| {
            change(write, &[(number, ObjectChange::Gone)])?;
            Ok(Some(number))
        })
    }
}

fn next_number(write: &Tables<'_, WriteTransaction>) -> Result<ObjectNumber, StoreError> {
    let mut meta = write.meta()?;
    let counters: Counters = meta.get(COUNTERS)?;
    let objects = counters.objects + 1;
    meta.put(COUNTERS, &Counters { objects, ..counters })?;
    Ok(ObjectNumber(objects))
}
