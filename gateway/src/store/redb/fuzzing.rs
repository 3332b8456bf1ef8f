//! The records of a store's file, and a backup's list of files, each on its own.

use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;
use thinpost_wire::ids::{Position, StoreId};
use thinpost_wire::parcel::ShortIncarnation;

use super::objects::{BLOCK_BYTES, Object, ObjectState, block_check, blocks_of, read_block};
use super::records::{
    Device, ENTRY_VERSION, EntryHeader, State, check, decode, encode, entry_head, read_entry,
};

/// How many kinds of records there are, counted from 0.
pub const RECORDS: u8 = 8;

/// The kind that is an entry.
pub const ENTRY: u8 = 4;

/// Where an entry or block stands.
const PLACE: u64 = 41;

/// Reads bytes as a record of this kind, in its place; of an entry and a block the check is made here, as no search would
/// find one.
///
/// # Panics
/// When what was read is not read again from what it is written as.
pub fn read(kind: u8, bytes: &[u8]) {
    match kind {
        0 => rewrite::<State>(bytes),
        1 => rewrite::<Device>(bytes),
        2 => rewrite::<ObjectState>(bytes),
        3 => rewrite::<Object>(bytes),
        ENTRY => rewrite_entry(bytes),
        5 => read_as_block(bytes),
        6 => rewrite::<Vec<(StoreId, Position)>>(bytes),
        _ => crate::backup::rewrite_manifest(bytes),
    }
}

fn rewrite<T: Debug + PartialEq + Serialize + DeserializeOwned>(bytes: &[u8]) {
    let Ok(record) = decode::<T>("record", bytes) else { return };
    let again = encode(&record).expect("it was read");
    assert_eq!(decode::<T>("record", &again).expect("it was written"), record);
}

fn rewrite_entry(bytes: &[u8]) {
    let _ = read_entry(PLACE, bytes);
    let value = [&[ENTRY_VERSION][..], &check(PLACE, [bytes, &[]]), bytes].concat();
    let Ok((header, body)) = read_entry(PLACE, &value) else { return };
    assert_eq!(header.entry(body).body, body);
    let mut again = entry_head(PLACE, &header, body).expect("it was read");
    again.extend(body);
    assert_eq!(read_entry(PLACE, &again).expect("it was written"), (header, body));
    assert!(read_entry(PLACE + 1, &again).is_err(), "an entry in another's place");
}

/// The object's row comes first; its first block is what follows.
fn read_as_block(bytes: &[u8]) {
    let Some((row, block)) = bytes.split_at_checked(ROW_BYTES) else { return };
    let Ok(object) = decode::<Object>("object", row) else { return };
    let first = object.block(0);
    assert_eq!(blocks_of(&first).end, u32::from(object.size > 0));
    let len = first.end - first.start;
    assert!(len <= BLOCK_BYTES);
    let _ = read_block(PLACE, 0, len, block);
    let value = [&block_check(PLACE, 0, block), block].concat();
    assert_eq!(read_block(PLACE, 0, len, &value).is_ok(), block.len() as u64 == len);
    assert!(read_block(PLACE, 1, len, &value).is_err(), "a block in another's place");
}

/// A row of an object as the samples have it, of which no number takes more than one byte.
const ROW_BYTES: usize = 37;

/// A record of each kind, and some more.
///
/// # Panics
/// When one cannot be written.
pub fn samples() -> Vec<(u8, Vec<u8>)> {
    let state = State { clock_s: 300, position: 2, device: 3, mailbox: 4, session: 5, bytes: 6 };
    let device = Device {
        account: [1; 32],
        mailbox: 2,
        cursor: 3,
        last_seen: 4,
        silent: true,
        last: Some(ShortIncarnation([5; 4])),
    };
    let never = Device { silent: false, last: None, ..device.clone() };
    let object = Object { id: [1; 32], mailbox: 2, size: 3, deadline: 4, is_complete: true, ranges: 1 };
    let written = |kind, record: Result<Vec<u8>, _>| (kind, record.expect("a sample can be written"));
    let entry = |sender, submitter, collapse| {
        let header = EntryHeader {
            mailbox: 7,
            sender,
            flags: 1,
            is_request: true,
            submitter,
            deadline: 90_000,
            stored_at: 4_000,
            age_s: 12,
            collapse,
        };
        let mut bytes = encode(&header).expect("a sample can be written");
        bytes.extend(b"hello");
        (ENTRY, bytes)
    };
    let mut block = encode(&object).expect("a sample can be written");
    assert_eq!(block.len(), ROW_BYTES);
    block.extend([7; 3]);
    vec![
        written(0, encode(&state)),
        written(1, encode(&device)),
        written(1, encode(&never)),
        written(2, encode(&ObjectState { object: 2, bytes: 300 })),
        written(3, encode(&object)),
        entry(Some([3; 32]), Some(9), Some(u64::MAX)),
        entry(None, None, None),
        (5, block),
        written(6, encode(&vec![(StoreId([1; 8]), Position(2)), (StoreId([3; 8]), Position(400))])),
        (7, crate::backup::sample_manifest()),
    ]
}
