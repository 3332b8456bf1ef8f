#![allow(clippy::unwrap_used)]

use std::fs;

use bytes::Bytes;
use redb::{ReadableTable, WriteTransaction};
use tempfile::TempDir;
use thinpost_wire::ids::{ObjectId, OneTimeKey, Position, StoreId};
use thinpost_wire::token::{MailboxAddress, TokenId};

use super::*;
use crate::store::conformance::{
    ALICE, BOB, T0, accept, append, chunk, content, join, one, open as open_object, roomy, token_of,
};
use crate::store::redb::objects::*;
use crate::store::redb::records::*;
use crate::store::{Append, DeviceNo, Done, Invite, ObjectNo, Op, Register, RelayTime, Store, TableTail};

/// A file with rows in every table.
struct Sample {
    folder: TempDir,
}

impl Sample {
    fn new() -> Self {
        let sample = Self { folder: tempfile::tempdir().unwrap() };
        fill(&RedbStore::open(&sample.path(), roomy()).unwrap());
        sample
    }

    fn path(&self) -> std::path::PathBuf {
        self.folder.path().join("store.redb")
    }

    /// What a check says after rows were written past the store.
    fn after(edit: impl FnOnce(&WriteTransaction)) -> Vec<String> {
        let sample = Self::new();
        let store = RedbStore::open(&sample.path(), roomy()).unwrap();
        let write = store.db.begin_write().unwrap();
        edit(&write);
        write.commit().unwrap();
        drop(store);
        let report = RedbStore::check(&sample.path()).unwrap();
        report.faults.iter().map(ToString::to_string).collect()
    }
}

/// Alice has two devices and Bob one; there are envelopes of all kinds, objects whole and begun, and what devices leave.
fn fill(store: &RedbStore) {
    let (first, second) = (join(store, ALICE, 1), join(store, ALICE, 2));
    let invite = Some(Invite { id: [7; 8], uses_max: 1 });
    let secret = crate::store::conformance::secret_of(BOB);
    let device = crate::store::conformance::device_key(3);
    let register = Register { account: BOB, device, invite, secret, read: Position(0) };
    let Ok(Done::Registered { device: bob, .. }) = one(store, Op::Register(register), T0) else { panic!() };
    accept(store, append(first, BOB, 1, b"one"), T0);
    accept(store, Append { collapse: Some(5), ..append(first, BOB, 2, b"two") }, T0);
    let stranger = token_of(ALICE, TokenId::open(1));
    accept(store, Append { token: stranger, sender: None, ..append(bob, ALICE, 1, b"a stranger") }, T0);
    accept(store, append(second, ALICE, 1, &[0x5a; 300]), T0);
    let address = MailboxAddress { mailbox: BOB, token: token_of(BOB, TokenId::personal(1)) };
    let keys = vec![OneTimeKey([1; 32]), OneTimeKey([2; 32])];
    for op in [
        Op::PutTable { device: first, from: 0, tail: TableTail::ToRelay(vec![address]) },
        Op::PutTable { device: bob, from: 0, tail: TableTail::FromRelay(vec![ALICE, BOB]) },
        Op::PutKeys { device: bob, replaces: false, keys },
        Op::Revoke { device: bob, id: TokenId::personal(9) },
        open_object(first, ObjectId::of(&content(8_500)), 8_500),
        chunk(ObjectNo(1), &content(8_500), 0, 8_500),
        Op::CompleteObject { object: ObjectNo(1) },
        open_object(bob, ObjectId([4; 32]), 4_001),
        chunk(ObjectNo(2), &content(4_001), 10, 20),
        chunk(ObjectNo(2), &content(4_001), 4_000, 4_001),
    ] {
        one(store, op, T0).unwrap();
    }
    assert!(store.put_session(b"session", Bytes::from_static(b"secret")));
    store.apply(&[], RelayTime(T0.0 + 1)).unwrap();
}

#[test]
fn a_sound_store_has_no_fault_and_is_left_as_it_is() {
    let sample = Sample::new();
    let before = fs::read(sample.path()).unwrap();
    let report = RedbStore::check(&sample.path()).unwrap();
    assert_eq!(report.faults, []);
    let store = RedbStore::open(&sample.path(), roomy()).unwrap();
    assert_eq!(report.counts, store.counts().unwrap());
    drop(store);
    assert_eq!(RedbStore::check(&sample.path()).unwrap(), report);
    let report = RedbStore::check(&sample.path()).unwrap();
    assert!(!report.is_backup);
    let after = fs::read(sample.path()).unwrap();
    assert_eq!(before.len(), after.len());
    fs::write(sample.path(), &before).unwrap();
    RedbStore::check(&sample.path()).unwrap();
    assert!(fs::read(sample.path()).unwrap() == before, "a check writes nothing");
}

#[test]
fn a_store_whose_relay_was_killed_is_checked_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let (path, copy) = (folder.path().join("store.redb"), folder.path().join("copy.redb"));
    let store = RedbStore::open(&path, roomy()).unwrap();
    fill(&store);
    // Never closed: this is what a kill leaves.
    fs::copy(&path, &copy).unwrap();
    let before = fs::read(&copy).unwrap();
    assert_eq!(RedbStore::check(&copy).unwrap().faults, []);
    assert!(fs::read(&copy).unwrap() == before, "a check repairs nothing");
    assert!(matches!(RedbStore::check(&path), Err(StoreError::InUse)), "a relay has it open");
}

#[test]
fn an_empty_store_has_no_fault() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    drop(RedbStore::open(&path, roomy()).unwrap());
    assert_eq!(RedbStore::check(&path).unwrap(), Report::default());
}

/// One damage, and what is said of it.
macro_rules! faults {
    ($($name:ident: $table:ident $edit:expr => [$($expected:expr),+ $(,)?];)+) => {
        $(#[test]
        fn $name() {
            let found = Sample::after(|write| {
                let mut table = write.open_table($table).unwrap();
                #[allow(clippy::redundant_closure_call)]
                let () = ($edit)(&mut table);
            });
            assert_eq!(found, [$($expected),+]);
        })+
    };
}

type Edited<'t, K, V> = redb::Table<'t, K, V>;

/// Rewrites a record.
fn rewrite<T: serde::Serialize + serde::de::DeserializeOwned>(
    row: &[u8],
    edit: impl FnOnce(&mut T),
) -> Vec<u8> {
    let mut record = decode("record", row).unwrap();
    edit(&mut record);
    encode(&record).unwrap()
}

fn edit_device(table: &mut Edited<'_, u32, &'static [u8]>, edit: impl FnOnce(&mut Device)) {
    let row = rewrite(table.get(1).unwrap().unwrap().value(), edit);
    table.insert(1, row.as_slice()).unwrap();
}

fn edit_object(table: &mut Edited<'_, u64, &'static [u8]>, number: u64, edit: impl FnOnce(&mut Object)) {
    let row = rewrite(table.get(number).unwrap().unwrap().value(), edit);
    table.insert(number, row.as_slice()).unwrap();
}

fn edit_state(table: &mut Edited<'_, &'static str, &'static [u8]>, edit: impl FnOnce(&mut State)) {
    let row = rewrite(table.get(META_STATE).unwrap().unwrap().value(), edit);
    table.insert(META_STATE, row.as_slice()).unwrap();
}

fn edit_floor(table: &mut Edited<'_, (u32, u64), (u64, u32, u64, u64)>, floor: u64) {
    let (_, kept, used, timer) = table.get((1, INCARNATION)).unwrap().unwrap().value();
    table.insert((1, INCARNATION), (floor, kept, used, timer)).unwrap();
}

/// Says that it was restored from these stores, each with so much in common.
fn edit_lineage(table: &mut Edited<'_, &'static str, &'static [u8]>, earlier: &[(u8, u64)]) {
    let earlier: Vec<_> = earlier.iter().map(|(id, common)| (StoreId([*id; 8]), Position(*common))).collect();
    table.insert(META_LINEAGE, encode(&earlier).unwrap().as_slice()).unwrap();
}

const ALICE_HEX: &str = "0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a";
const THIRD_KEY: &str = "0303030303030303030303030303030303030303030303030303030303030303";

/// The incarnation of all these envelopes, as a row names it.
const INCARNATION: u64 = 0x0101_0101_0101_0101;

faults! {
    an_account_without_its_mailbox: MAILBOXES
        |table: &mut Edited<'_, u32, (u32, u64, u32, u64)>| drop(table.remove(1).unwrap()) => [
            format!("accounts {ALICE_HEX}: its mailbox 1 is missing"),
            "secrets 1: its mailbox is missing".to_owned(),
            "entries 3: its mailbox is missing".to_owned(),
            "entries 4: its mailbox is missing".to_owned(),
            "objects 1: its mailbox is missing".to_owned(),
        ];
    a_mailbox_of_two_accounts: ACCOUNTS
        |table: &mut Edited<'_, &'static [u8; 32], u32>| drop(table.insert(&[0x0f; 32], 2).unwrap()) => [
            format!("accounts {}: mailbox 2 is another account's, too", "0f".repeat(32))
        ];
    a_mailbox_of_nobody: MAILBOXES
        |table: &mut Edited<'_, u32, (u32, u64, u32, u64)>| drop(table.insert(9, (0, 0, 0, 0)).unwrap()) => [
            "mailboxes 9: it is no account's",
            "mailboxes 9: nobody reads it",
        ];
    an_account_without_a_secret: SECRETS
        |table: &mut Edited<'_, u32, &'static [u8; 32]>| drop(table.remove(1).unwrap()) => [
            format!("accounts {ALICE_HEX}: its tokens have no secret")
        ];
    a_revocation_of_no_mailbox: REVOKED
        |table: &mut Edited<'_, (u32, u32), ()>| drop(table.insert((9, 1), ()).unwrap()) => [
            "revoked 9: its mailbox is missing"
        ];
    a_closed_mailbox_that_is_none: CLOSED
        |table: &mut Edited<'_, u32, ()>| drop(table.insert(9, ()).unwrap()) => [
            "closed 9: its mailbox is missing"
        ];
    an_invite_that_let_nobody_in: INVITES
        |table: &mut Edited<'_, u64, u32>| drop(table.insert(3, 0).unwrap()) => [
            "invites 0000000000000003: it has let nobody in"
        ];
    a_device_that_cannot_be_read: DEVICES
        |table: &mut Edited<'_, u32, &'static [u8]>| drop(table.insert(3, [1; 9].as_slice()).unwrap()) => [
            "devices 3: it cannot be read",
            "readers 2/3: its device reads another, or is missing",
            "incarnations 3/0101010101010101: its device is missing",
            "one-time-keys 3: its device is missing",
            "one-time-keys 3: its device is missing",
            "senders 3/0: its device is missing",
            "senders 3/1: its device is missing",
        ];
    a_device_of_another_account: DEVICES
        |table: &mut Edited<'_, u32, &'static [u8]>| edit_device(table, |device| device.account = [9; 32]) => [
            "devices 1: its account has another mailbox, or is missing"
        ];
    a_cursor_behind_everything: DEVICES
        |table: &mut Edited<'_, u32, &'static [u8]>| edit_device(table, |device| device.cursor = 5) => [
            "devices 1: its cursor stands behind all positions"
        ];
    a_device_from_the_future: DEVICES
        |table: &mut Edited<'_, u32, &'static [u8]>| edit_device(table, |device| device.last_seen = u64::MAX) => [
            "devices 1: it was seen later than now"
        ];
    a_silent_device_with_a_timer: DEVICES
        |table: &mut Edited<'_, u32, &'static [u8]>| edit_device(table, |device| device.silent = true) => [
            "devices 1: it is silent, and has a timer"
        ];
    a_device_without_a_key: DEVICE_KEYS
        |table: &mut Edited<'_, &'static [u8; 32], u32>| drop(table.remove(&[3; 32]).unwrap()) => [
            "devices 3: it has no key",
            "mailboxes 2: it is open, and nobody has come back",
            "one-time-keys 3: its device has not registered",
            "one-time-keys 3: its device has not registered",
        ];
    a_key_that_leads_to_another_device: DEVICE_KEYS
        |table: &mut Edited<'_, &'static [u8; 32], u32>| drop(table.insert(&[3; 32], 1).unwrap()) => [
            format!("device-keys {THIRD_KEY}: device 1 has another key, too"),
            "devices 3: it has no key".to_owned(),
            "mailboxes 2: it is open, and nobody has come back".to_owned(),
            "one-time-keys 3: its device has not registered".to_owned(),
            "one-time-keys 3: its device has not registered".to_owned(),
        ];
    a_returning_device_that_is_none: RETURNING
        |table: &mut Edited<'_, &'static [u8; 32], u32>| drop(table.insert(&[9; 32], 9).unwrap()) => [
            format!("returning {}: device 9 is missing", "09".repeat(32))
        ];
    a_key_of_two_devices: RETURNING
        |table: &mut Edited<'_, &'static [u8; 32], u32>| drop(table.insert(&[3; 32], 2).unwrap()) => [
            format!("returning {THIRD_KEY}: device 2 has another key, too"),
            format!("returning {THIRD_KEY}: a device has registered with it"),
        ];
    a_closed_mailbox_that_somebody_reads: CLOSED
        |table: &mut Edited<'_, u32, ()>| drop(table.insert(2, ()).unwrap()) => [
            "closed 2: device 3 reads it, and has registered"
        ];
    a_device_that_reads_nothing: READERS
        |table: &mut Edited<'_, (u32, u32), ()>| drop(table.remove((1, 2)).unwrap()) => [
            "devices 2: it is none of its mailbox's readers"
        ];
    a_reader_of_anothers_mailbox: READERS
        |table: &mut Edited<'_, (u32, u32), ()>| drop(table.insert((2, 1), ()).unwrap()) => [
            "readers 2/1: its device reads another, or is missing"
        ];
    a_device_without_a_timer: DEVICE_TIMERS
        |table: &mut Edited<'_, (u64, u32), ()>| drop(table.pop_first().unwrap()) => [
            "devices 1: it has no timer"
        ];
    a_timer_of_no_device: DEVICE_TIMERS
        |table: &mut Edited<'_, (u64, u32), ()>| drop(table.insert((7, 9), ()).unwrap()) => [
            "device-timers 7/9: its device is missing"
        ];
    a_device_with_two_timers: DEVICE_TIMERS
        |table: &mut Edited<'_, (u64, u32), ()>| drop(table.insert((9_000, 1), ()).unwrap()) => [
            "device-timers 9000/1: its device has another, too"
        ];
    a_digest_that_is_missing: ACCEPTED
        |table: &mut Edited<'_, (u32, u64, u64), u64>| drop(table.remove((1, INCARNATION, 2)).unwrap()) => [
            "incarnations 1/0101010101010101: 2 digests are counted, and 1 are there"
        ];
    a_digest_of_no_incarnation: ACCEPTED
        |table: &mut Edited<'_, (u32, u64, u64), u64>| drop(table.insert((1, 2, 3), 4).unwrap()) => [
            "accepted 1/0000000000000002/3: its incarnation is missing"
        ];
    a_floor_above_its_numbers: INCARNATIONS
        |table: &mut Edited<'_, (u32, u64), (u64, u32, u64, u64)>| edit_floor(table, 2) => [
            "incarnations 1/0101010101010101: its floor is 2, and its numbers begin at 1"
        ];
    an_incarnation_without_a_timer: INCARNATION_TIMERS
        |table: &mut Edited<'_, (u64, u32, u64), ()>| drop(table.pop_first().unwrap()) => [
            "incarnations 1/0101010101010101: it has no timer"
        ];
    a_timer_of_no_incarnation: INCARNATION_TIMERS
        |table: &mut Edited<'_, (u64, u32, u64), ()>| drop(table.insert((7, 1, 8), ()).unwrap()) => [
            "incarnation-timers 7/1/0000000000000008: its incarnation has another, or is missing"
        ];
    a_one_time_key_of_no_device: ONE_TIME_KEYS
        |table: &mut Edited<'_, (u32, &'static [u8; 32]), ()>| drop(table.insert((9, &[1; 32]), ()).unwrap()) => [
            "one-time-keys 9: its device is missing"
        ];
    a_gap_between_handles: SENDERS
        |table: &mut Edited<'_, (u32, u16), &'static [u8; 32]>| drop(table.remove((3, 0)).unwrap()) => [
            "senders 3/1: handles before it are missing"
        ];
    a_handle_of_no_device: ADDRESSES
        |table: &mut Edited<'_, (u32, u16), &'static [u8; 48]>| drop(table.insert((9, 0), &[0; 48]).unwrap()) => [
            "addresses 9/0: its device is missing"
        ];
    a_session_out_of_order: SESSION_ORDER
        |table: &mut Edited<'_, u64, &'static [u8]>| drop(table.insert(1, b"other".as_slice()).unwrap()) => [
            "sessions 1: another has its place"
        ];
    a_place_without_a_session: SESSION_ORDER
        |table: &mut Edited<'_, u64, &'static [u8]>| drop(table.insert(2, b"other".as_slice()).unwrap()) => [
            "session-order: 2 have a place, and 1 are there"
        ];

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
            "devices 1: it was seen later than now",
            "devices 2: it was seen later than now",
            "devices 3: it was seen later than now",
            "incarnations 1/0101010101010101: it was used later than now",
            "incarnations 2/0101010101010101: it was used later than now",
            "incarnations 3/0101010101010101: it was used later than now",
            "entries 1: it was stored later than now",
            "entries 2: it was stored later than now",
            "entries 3: it was stored later than now",
            "entries 4: it was stored later than now",
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
fn a_mailbox_is_open_if_one_of_its_devices_has_come_back_and_then_only() {
    let gone = |write: &WriteTransaction, of_keys: &[u8]| {
        let mut keys = write.open_table(DEVICE_KEYS).unwrap();
        let mut returning = write.open_table(RETURNING).unwrap();
        for key in of_keys {
            let number = keys.remove(&[*key; 32]).unwrap().unwrap().value();
            returning.insert(&[*key; 32], number).unwrap();
        }
    };
    let open = Sample::after(|write| gone(write, &[3]));
    let expected = [
        "mailboxes 2: it is open, and nobody has come back",
        "one-time-keys 3: its device has not registered",
        "one-time-keys 3: its device has not registered",
    ];
    assert_eq!(open, expected);
    let closed = Sample::after(|write| {
        gone(write, &[3]);
        write.open_table(CLOSED).unwrap().insert(2, ()).unwrap();
        write.open_table(ONE_TIME_KEYS).unwrap().retain(|_, ()| false).unwrap();
    });
    assert_eq!(closed, [""; 0]);
    assert_eq!(Sample::after(|write| gone(write, &[1])), [""; 0], "Alice's other device is back");
    let nobodys = Sample::after(|write| drop(write.open_table(READERS).unwrap().remove((2, 3)).unwrap()));
    assert_eq!(nobodys, ["devices 3: it is none of its mailbox's readers", "mailboxes 2: nobody reads it"]);
}

#[test]
fn a_floor_is_where_the_numbers_begin_that_are_kept() {
    let found = |floor, numbers: std::ops::Range<u64>| {
        Sample::after(|write| {
            let mut accepted = write.open_table(ACCEPTED).unwrap();
            accepted.retain_in((1, INCARNATION, 0)..=(1, INCARNATION, u64::MAX), |_, _| false).unwrap();
            for number in numbers.clone() {
                accepted.insert((1, INCARNATION, number), 0).unwrap();
            }
            let mut incarnations = write.open_table(INCARNATIONS).unwrap();
            let (_, _, used, timer) = incarnations.get((1, INCARNATION)).unwrap().unwrap().value();
            let kept = numbers.clone().count() as u32;
            incarnations.insert((1, INCARNATION), (floor, kept, used, timer)).unwrap();
        })
    };
    for (floor, numbers) in [(0, 2..4), (2, 2..4), (0, 7..1_030), (5, 5..1_029)] {
        assert_eq!(found(floor, numbers.clone()), [""; 0], "floor {floor} of {numbers:?}");
    }
    let row = "incarnations 1/0101010101010101:";
    for (floor, numbers) in [(1, 2..4), (0, 5..1_029)] {
        let expected = format!("{row} its floor is {floor}, and its numbers begin at {}", numbers.start);
        assert_eq!(found(floor, numbers), [expected]);
    }
    assert_eq!(found(0, 0..0), [format!("{row} it is known by nothing")]);
}

#[test]
fn a_store_that_was_restored_again_before_anything_came_has_no_fault() {
    let found = Sample::after(|write| edit_lineage(&mut write.open_table(META).unwrap(), &[(2, 4), (3, 4)]));
    assert_eq!(found, [""; 0]);
}

#[test]
fn a_table_that_is_missing_or_of_another_kind_is_a_fault() {
    const OTHER: TableDefinition<'_, u64, u64> = TableDefinition::new("queues");
    let found = Sample::after(|write| {
        write.delete_table(QUEUES).unwrap();
        write.open_table(OTHER).unwrap();
        write.delete_table(ONE_TIME_KEYS).unwrap();
    });
    let found: Vec<_> = found.iter().map(|fault| fault.split(':').next().unwrap()).collect();
    assert_eq!(found, ["one-time-keys", "file"]);
}

#[test]
fn so_many_faults_are_named_and_the_rest_is_counted() {
    let mut report = Report::default();
    for n in 0..FAULTS_MAX + 5 {
        report.fault("entries", n, "it fails its check");
    }
    assert_eq!((report.faults.len(), report.unnamed), (FAULTS_MAX, 5));
    assert_eq!(report.faults[1].to_string(), "entries 1: it fails its check");
    assert!(!report.is_sound());
}

#[test]
fn a_file_of_another_kind_is_no_store_to_check() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    for content in [b"".as_slice(), b"not a database at all".repeat(300).as_slice()] {
        fs::write(&path, content).unwrap();
        assert!(matches!(RedbStore::check(&path), Err(StoreError::NotAStore)));
        assert_eq!(fs::read(&path).unwrap(), content);
    }
}

/// Everything that a relay and its devices can read of the sample.
fn readable(store: &RedbStore) -> Result<impl PartialEq + use<>, StoreError> {
    let mailboxes = [ALICE, BOB].map(|account| {
        let entries = store.read(&account, Position(0), 100, usize::MAX)?;
        Ok::<_, StoreError>((entries, store.mailbox_usage(&account)?, store.is_open(&account)?))
    });
    let [alice, bob] = mailboxes;
    let mut devices = Vec::new();
    for n in 1..4 {
        let number = DeviceNo(u32::from(n));
        let device = store.device(&crate::store::conformance::device_key(n))?;
        devices.push((device, store.tables(number)?, store.keys_left(number)?));
    }
    let objects = (store.read_object(ObjectNo(1), 0, 10_000)?, store.object_held(ObjectNo(2))?);
    Ok((alice?, bob?, devices, objects, store.counts()?, store.relay_clock()?))
}

/// How many places of the file are tried; `THINPOST_FAULT_BITS` sets more.
fn places() -> u64 {
    std::env::var("THINPOST_FAULT_BITS").map_or(300, |places| places.parse().unwrap())
}

#[test]
fn a_bit_flipped_anywhere_is_a_fault_or_changes_nothing_that_can_be_read() {
    let sample = Sample::new();
    let content = fs::read(sample.path()).unwrap();
    let sound = readable(&RedbStore::open(&sample.path(), roomy()).unwrap()).unwrap();
    let path = sample.folder.path().join("flipped.redb");
    // Most of the file is free pages; half of the places are where something is.
    let used: Vec<usize> = (0..content.len()).filter(|at| content[*at] != 0).collect();
    let (mut found, mut harmless) = (0, 0);
    let mut state = 7u64;
    for place in 0..places() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let random = (state >> 20) as usize;
        let at = if place % 2 == 0 { used[random % used.len()] } else { random % content.len() };
        let bit = 1 << (state >> 61);
        let mut flipped = content.clone();
        flipped[at] ^= bit;
        fs::write(&path, &flipped).unwrap();
        match RedbStore::check(&path) {
            Ok(report) if report.is_sound() => {
                let store = RedbStore::open(&path, roomy()).unwrap();
                assert!(readable(&store).unwrap() == sound, "byte {at}, bit {bit}: not noticed");
                harmless += 1;
            }
            _ => found += 1,
        }
    }
    println!("{found} found, {harmless} harmless");
    assert!(found > 0 && harmless > 0, "{found} found, {harmless} harmless");
}
