#![allow(clippy::unwrap_used)]

use std::fs;

use bytes::Bytes;
use redb::{ReadableTable, WriteTransaction};
use tempfile::TempDir;
use thinpost_disk::medium::Medium;
use thinpost_wire::ids::{ObjectId, OneTimeKey, Position, StoreId};
use thinpost_wire::token::{MailboxAddress, TokenId};

use super::*;
use crate::store::conformance::{
    ALICE, BOB, T0, accept, append, chunk, content, join, one, open as open_object, roomy, token_of,
};
use crate::store::redb::objects::*;
use crate::store::redb::records::*;
use crate::store::{
    Append, DeviceNo, Done, Invite, ObjectNo, Op, Quota, Register, RelayTime, Store, TableTail,
};

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
        sample.edit(edit);
        sample.found()
    }

    fn edit(&self, edit: impl FnOnce(&WriteTransaction)) {
        let db = Database::open_file::<StoreError>(&self.path(), 0, |_| Ok(())).unwrap();
        let write = db.begin_write().unwrap();
        edit(&write);
        write.commit().unwrap();
    }

    fn found(&self) -> Vec<String> {
        let report = RedbStore::check(&self.path()).unwrap();
        let remarks = report.remarks.iter().map(|remark| format!("remark: {remark}"));
        report.faults.iter().map(ToString::to_string).chain(remarks).collect()
    }
}

/// Alice has two devices and Bob one; there are envelopes of all kinds, objects whole and begun, and what devices leave.
fn fill(store: &RedbStore) {
    store.begin_run(1_800_000_000).unwrap();
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

fn edit_device(table: &mut Edited<'_, u32, &'static [u8]>, number: u32, edit: impl FnOnce(&mut Device)) {
    let row = rewrite(table.get(number).unwrap().unwrap().value(), edit);
    table.insert(number, row.as_slice()).unwrap();
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

mod gone;
mod held;
mod people;

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
fn one_damaged_page_hides_nothing_that_is_elsewhere() {
    let sample = Sample::new();
    sample.edit(|write| {
        let mut entries = write.open_table(ENTRIES).unwrap();
        let mut row = entries.get(1).unwrap().unwrap().value().to_vec();
        *row.last_mut().unwrap() ^= 1;
        entries.insert(1, row.as_slice()).unwrap();
    });
    let accounts = [&ALICE.0[..], &BOB.0, &1u32.to_le_bytes(), &2u32.to_le_bytes()].concat();
    let mut content = fs::read(sample.path()).unwrap();
    let places: Vec<_> = (0..content.len()).filter(|at| content[*at..].starts_with(&accounts)).collect();
    assert!(!places.is_empty());
    for at in places {
        content[at] ^= 1;
    }
    fs::write(sample.path(), &content).unwrap();
    let found = sample.found();
    assert!(found[0].starts_with("accounts: page "), "{found:?}");
    assert!(found.iter().any(|fault| fault == "entries 1: it fails its check"), "{found:?}");
    assert!(found.iter().any(|fault| fault.starts_with("file: page ")), "{found:?}");
    assert!(found.iter().all(|fault| !fault.contains("reopened")), "{found:?}");
}

#[test]
fn what_cannot_be_read_of_a_medium_is_a_fault() {
    let medium = Medium::default();
    let config = StoreConfig { cache_bytes: 0, ..roomy() };
    let mut store = RedbStore::with_backend(medium.clone(), config, StoreId([1; 8])).unwrap();
    fill(&store);
    assert_eq!(found(&mut store.db), Report { counts: store.counts().unwrap(), ..Report::default() });
    medium.clear();
    let report = found(&mut store.db);
    assert!(report.faults[0].what.starts_with("it cannot be read: "), "{report:?}");
    assert!(report.faults.len() < 5, "{report:?}");
}

#[test]
fn what_waits_is_read_once_to_look_at_its_rows() {
    const BODY_BYTES: usize = 60_000;
    let medium = Medium::default();
    let quota = Quota { entries_max: 100, bytes_max: 10_000_000 };
    let config = StoreConfig { cache_bytes: 0, quota, bytes_max: 10_000_000, ..roomy() };
    let mut store = RedbStore::with_backend(medium.clone(), config, StoreId([1; 8])).unwrap();
    let device = join(&store, BOB, 1);
    for n in 1..=20 {
        let collapse = Some(n);
        accept(&store, Append { collapse, ..append(device, BOB, n, &[n as u8; BODY_BYTES]) }, T0);
    }
    let read_for = |act: &dyn Fn(&mut RedbStore), store: &mut RedbStore| {
        let before = medium.reads().bytes;
        act(store);
        medium.reads().bytes - before
    };
    let pages = read_for(&|store| assert!(store.db.check_integrity().unwrap()), &mut store);
    let all = read_for(&|store| assert!(found(&mut store.db).is_sound()), &mut store);
    let rows = all - pages;
    let bodies = 20 * BODY_BYTES as u64;
    assert!(rows < bodies * 3 / 2, "{rows} bytes read for {bodies}");
}

#[test]
fn so_many_faults_are_named_and_the_rest_is_counted() {
    let mut report = Report::default();
    for n in 0..FAULTS_MAX + 5 {
        report.fault("entries", n, "it fails its check");
    }
    assert_eq!((report.faults.len(), report.unnamed), (FAULTS_MAX, 5));
    assert_eq!(report.faults[1].to_string(), "entries 1: it fails its check");
    assert_eq!(report.remarks_unnamed, 0);
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
