//! What may be wrong with what waits, and with what the file says of itself.

use super::*;
use crate::store::bounds::LIFETIME_S_MAX;

faults! {
    an_entry_that_is_gone: ENTRIES
        |table: &mut Edited<'_, u64, &'static [u8]>| drop(table.remove(1).unwrap()) => [
            "meta state: 316 bytes of bodies are counted, and 313 are there",
            "queues 2/1: its entry is missing",
            "deadlines 1100/1: its entry is missing",
            "mailboxes 2: 2 entries of 6 bytes are counted, and 1 of 3 are there",
        ];
    an_entry_that_was_changed: ENTRIES
        |table: &mut Edited<'_, u64, &'static [u8]>| {
            let mut row = table.get(1).unwrap().unwrap().value().to_vec();
            *row.last_mut().unwrap() ^= 1;
            table.insert(1, row.as_slice()).unwrap();
        } => [
            "entries 1: it fails its check",
            "meta state: 316 bytes of bodies are counted, and 313 are there",
            "mailboxes 2: 2 entries of 6 bytes are counted, and 1 of 3 are there",
        ];
    an_entry_at_a_position_that_was_never_given_out: META
        |table: &mut Edited<'_, &'static str, &'static [u8]>| edit_state(table, |state| state.position = 3) => [
            "entries 4: its position was never given out"
        ];
    a_clock_that_went_back: META
        |table: &mut Edited<'_, &'static str, &'static [u8]>| edit_state(table, |state| state.clock_s = T0.0 - 1) => [
            "remark: devices 1: it was seen later than now",
            "remark: devices 2: it was seen later than now",
            "remark: devices 3: it was seen later than now",
            "remark: incarnations 1/0101010101010101: it was used later than now",
            "remark: incarnations 2/0101010101010101: it was used later than now",
            "remark: incarnations 3/0101010101010101: it was used later than now",
            "remark: entries 1: it was stored later than now",
            "remark: entries 2: it was stored later than now",
            "remark: entries 3: it was stored later than now",
            "remark: entries 4: it was stored later than now",
        ];
    numbers_that_were_never_given_out: META
        |table: &mut Edited<'_, &'static str, &'static [u8]>| edit_state(table, |state| {
            state.mailbox = 1;
            state.device = 2;
            state.session = 0;
        }) => [
            format!("accounts {}: mailbox 2 was never given out", "0b".repeat(32)),
            "devices 3: its number was never given out".to_owned(),
            "sessions 1: its place was never given out".to_owned(),
        ];
    a_store_restored_from_what_is_yet_to_come: META
        |table: &mut Edited<'_, &'static str, &'static [u8]>| edit_lineage(table, &[(2, 5)]) => [
            "meta lineage: it goes back to position 5, which was never given out"
        ];
    a_store_that_forgot_on_its_way: META
        |table: &mut Edited<'_, &'static str, &'static [u8]>| edit_lineage(table, &[(2, 3), (3, 2)]) => [
            "meta lineage: it has less in common with a store before it than with one before that"
        ];
    a_store_restored_from_the_same_twice: META
        |table: &mut Edited<'_, &'static str, &'static [u8]>| edit_lineage(table, &[(2, 1), (3, 2), (2, 3)]) => [
            "meta lineage: store 0202020202020202 is named twice"
        ];
    a_store_restored_too_often: META
        |table: &mut Edited<'_, &'static str, &'static [u8]>| {
            edit_lineage(table, &(1..=17).map(|id| (id, 1)).collect::<Vec<_>>());
        } => ["meta lineage: 17 stores before it are named, and 16 at most are kept"];
    a_store_restored_from_none_that_says_so: META
        |table: &mut Edited<'_, &'static str, &'static [u8]>| edit_lineage(table, &[]) => [
            "meta lineage: it names no store"
        ];
    a_beginning_that_cannot_be_read: META
        |table: &mut Edited<'_, &'static str, &'static [u8]>| drop(table.insert(META_SINCE, [0; 7].as_slice()).unwrap()) => [
            "meta since: it cannot be read"
        ];
    a_peak_that_cannot_be_read: META
        |table: &mut Edited<'_, &'static str, &'static [u8]>| drop(table.insert(META_PEAK, [0; 7].as_slice()).unwrap()) => [
            "meta peak: it cannot be read"
        ];
    a_peak_below_what_is_there: META
        |table: &mut Edited<'_, &'static str, &'static [u8]>| drop(table.insert(META_PEAK, [0; 8].as_slice()).unwrap()) => [
            "meta peak: envelopes took 0 bytes at most, and take 2364"
        ];
    a_state_that_cannot_be_read: META
        |table: &mut Edited<'_, &'static str, &'static [u8]>| drop(table.insert(META_STATE, [0x80].as_slice()).unwrap()) => [
            "meta: state: Hit the end of buffer, expected more data"
        ];
    an_entry_in_no_queue: QUEUES
        |table: &mut Edited<'_, (u32, u64), ()>| drop(table.remove((2, 1)).unwrap()) => [
            "entries 1: it is in no queue"
        ];
    an_entry_in_anothers_queue: QUEUES
        |table: &mut Edited<'_, (u32, u64), ()>| drop(table.insert((1, 1), ()).unwrap()) => [
            "queues 1/1: its entry is another mailbox's"
        ];
    an_entry_without_a_deadline: DEADLINES
        |table: &mut Edited<'_, (u64, u64), ()>| drop(table.remove((1_100, 1)).unwrap()) => [
            "entries 1: it has no deadline"
        ];
    an_entry_with_two_deadlines: DEADLINES
        |table: &mut Edited<'_, (u64, u64), ()>| drop(table.insert((7, 1), ()).unwrap()) => [
            "deadlines 7/1: its entry has another"
        ];
    a_collapse_key_that_leads_elsewhere: COLLAPSE
        |table: &mut Edited<'_, (u32, &'static [u8], u64), u64>| drop(table.insert((2, [0xa; 32].as_slice(), 5), 1).unwrap()) => [
            "entries 2: its collapse key leads elsewhere",
            "collapse 2/5: its entry has another",
        ];
    a_collapse_key_of_no_entry: COLLAPSE
        |table: &mut Edited<'_, (u32, &'static [u8], u64), u64>| drop(table.insert((2, [1; 4].as_slice(), 6), 99).unwrap()) => [
            "collapse 2/6: its entry is missing"
        ];
    strangers_that_are_miscounted: MAILBOXES
        |table: &mut Edited<'_, u32, (u32, u64, u32, u64)>| drop(table.insert(1, (2, 310, 2, 20)).unwrap()) => [
            "mailboxes 1: 2 entries of strangers of 20 bytes are counted, and 1 of 10 are there"
        ];

    an_object_that_cannot_be_read: OBJECTS
        |table: &mut Edited<'_, u64, &'static [u8]>| drop(table.insert(2, [9; 3].as_slice()).unwrap()) => [
            "objects 2: it cannot be read",
            "meta objects: 12501 bytes of objects are counted, and 8500 are there",
            "object-ids 2/2: its object has another name, or is missing",
            "object-deadlines 1100/2: its object has another, or is missing",
            "object-usage 2: 1 objects of 4001 bytes are counted, and 0 of 0 are there",
        ];
    an_object_that_is_not_its_name: OBJECTS
        |table: &mut Edited<'_, u64, &'static [u8]>| edit_object(table, 1, |object| object.id = [1; 32]) => [
            "objects 1: its name leads elsewhere",
            "objects 1: it is not what its name says",
            "object-ids 1/1: its object has another name, or is missing",
        ];
    an_object_that_is_called_complete: OBJECTS
        |table: &mut Edited<'_, u64, &'static [u8]>| edit_object(table, 2, |object| object.is_complete = true) => [
            "objects 2: it is not what its name says"
        ];
    an_object_without_a_range: OBJECT_RANGES
        |table: &mut Edited<'_, (u64, u64), u64>| drop(table.remove((2, 10)).unwrap()) => [
            "objects 2: it is held in 1 ranges, not in 2 as is counted",
            "objects 2: nothing is held of its block 0, which is there",
            "objects 2: it has 2 blocks, and 1 are held",
        ];
    a_range_that_ends_before_it_begins: OBJECT_RANGES
        |table: &mut Edited<'_, (u64, u64), u64>| drop(table.insert((2, 10), 5).unwrap()) => [
            "objects 2: object 2 holds 10 to 5"
        ];
    a_range_beyond_the_end: OBJECT_RANGES
        |table: &mut Edited<'_, (u64, u64), u64>| drop(table.insert((2, 4_000), 4_002).unwrap()) => [
            "objects 2: more is held of it than it has"
        ];
    a_range_of_no_object: OBJECT_RANGES
        |table: &mut Edited<'_, (u64, u64), u64>| drop(table.insert((9, 0), 1).unwrap()) => [
            "object-ranges 9/0: its object is missing"
        ];
    a_block_that_was_changed: OBJECT_BLOCKS
        |table: &mut Edited<'_, (u64, u32), &'static [u8]>| {
            let mut row = table.get((1, 1)).unwrap().unwrap().value().to_vec();
            row[100] ^= 0x20;
            table.insert((1, 1), row.as_slice()).unwrap();
        } => [
            "objects 1: its block 1 fails its check",
            "objects 1: it is not what its name says",
        ];
    a_block_that_is_missing: OBJECT_BLOCKS
        |table: &mut Edited<'_, (u64, u32), &'static [u8]>| drop(table.remove((2, 1)).unwrap()) => [
            "objects 2: it has 1 blocks, and 2 are held"
        ];
    a_block_of_no_object: OBJECT_BLOCKS
        |table: &mut Edited<'_, (u64, u32), &'static [u8]>| drop(table.insert((9, 0), [0; 9].as_slice()).unwrap()) => [
            "object-blocks 9/0: its object is missing"
        ];
    an_object_without_a_name: OBJECT_IDS
        |table: &mut Edited<'_, (&'static [u8; 32], u32), u64>| drop(table.remove((&[4; 32], 2)).unwrap()) => [
            "objects 2: its name leads elsewhere"
        ];
    an_object_without_a_deadline: OBJECT_DEADLINES
        |table: &mut Edited<'_, (u64, u64), ()>| drop(table.remove((1_100, 2)).unwrap()) => [
            "objects 2: it has no deadline"
        ];
    objects_that_are_miscounted: OBJECT_USAGE
        |table: &mut Edited<'_, u32, (u32, u64)>| drop(table.insert(2, (2, 1)).unwrap()) => [
            "object-usage 2: 2 objects of 1 bytes are counted, and 1 of 4001 are there"
        ];
    objects_that_were_never_given_out: META
        |table: &mut Edited<'_, &'static str, &'static [u8]>| {
            let row = rewrite(table.get(META_OBJECTS).unwrap().unwrap().value(), |state: &mut ObjectState| state.object = 1);
            table.insert(META_OBJECTS, row.as_slice()).unwrap();
        } => ["objects 2: its number was never given out"];
}

#[test]
fn a_store_that_was_restored_again_before_anything_came_has_no_fault() {
    let found = Sample::after(|write| edit_lineage(&mut write.open_table(META).unwrap(), &[(2, 4), (3, 4)]));
    assert_eq!(found, [""; 0]);
}

/// Rewrites an entry's header, and its deadline with it.
fn edit_entry(write: &WriteTransaction, position: u64, edit: impl FnOnce(&mut EntryHeader)) {
    let mut entries = write.open_table(ENTRIES).unwrap();
    let mut deadlines = write.open_table(DEADLINES).unwrap();
    let row = entries.get(position).unwrap().unwrap().value().to_vec();
    let (mut header, body) = read_entry(position, &row).unwrap();
    deadlines.remove((header.deadline, position)).unwrap();
    edit(&mut header);
    deadlines.insert((header.deadline, position), ()).unwrap();
    let row = [&entry_head(position, &header, body).unwrap(), body].concat();
    entries.insert(position, row.as_slice()).unwrap();
}

#[test]
fn what_no_relay_makes_of_an_entry_is_remarked() {
    let found = Sample::after(|write| {
        edit_entry(write, 1, |header| header.deadline = header.stored_at - 1);
        edit_entry(write, 2, |header| header.deadline = header.stored_at + LIFETIME_S_MAX + 1);
        edit_entry(write, 3, |header| header.submitter = Some(4));
        edit_entry(write, 4, |header| header.deadline = header.stored_at + LIFETIME_S_MAX);
    });
    let expected = [
        "remark: entries 1: it expired before it was stored",
        "remark: entries 2: it is kept longer than anything is",
        "remark: entries 3: it names its submitter where none is wanted, or none where one is",
        "remark: entries 3: its submitter's number was never given out",
    ];
    assert_eq!(found, expected);
}

#[test]
fn an_envelope_that_all_have_settled_is_remarked() {
    let settled = |cursor| {
        Sample::after(|write| {
            edit_device(&mut write.open_table(DEVICES).unwrap(), 3, |device| device.cursor = cursor);
        })
    };
    assert_eq!(settled(0), [""; 0]);
    assert_eq!(settled(1), ["remark: queues 2/1: all have settled it"]);
    let one_of_two = Sample::after(|write| {
        edit_device(&mut write.open_table(DEVICES).unwrap(), 1, |device| device.cursor = 4);
    });
    assert_eq!(one_of_two, [""; 0]);
}

#[test]
fn an_object_that_is_kept_too_long_is_remarked() {
    let found = Sample::after(|write| {
        let late = T0.0 + LIFETIME_S_MAX + 2;
        edit_object(&mut write.open_table(OBJECTS).unwrap(), 2, |object| object.deadline = late);
        let mut deadlines = write.open_table(OBJECT_DEADLINES).unwrap();
        deadlines.remove((1_100, 2)).unwrap();
        deadlines.insert((late, 2), ()).unwrap();
    });
    assert_eq!(found, ["remark: objects 2: it is kept longer than anything is"]);
}
