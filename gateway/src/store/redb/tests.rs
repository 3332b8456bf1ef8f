#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use redb::backends::InMemoryBackend;
use redb::{ReadableTable, TableDefinition, WriteTransaction};
use thinpost_disk::Room;
use thinpost_disk::medium::Medium;
use thinpost_wire::token::TokenId;

use super::*;
use crate::store::conformance::{
    ALICE, BOB, Restorable, T0, accept, append, bodies, chunk, conformance_tests, content, device_key, join,
    one, open, opened, register, roomy, small, token_of,
};
use crate::store::{Append, Done, ObjectQuota, Refusal, TableTail};

fn empty(config: StoreConfig) -> RedbStore {
    RedbStore::with_backend(InMemoryBackend::new(), config, StoreId([1; 8])).unwrap()
}

/// Through a backup that is checked on its way, as is what is made of it.
pub(in crate::store) fn back(store: &RedbStore, id: StoreId) -> Medium {
    let medium = Medium::default();
    let mut copy = store.backed_up().unwrap();
    assert!(matches!(recognise(&copy.begin_read().unwrap()), Err(StoreError::IsBackup)));
    let restored = &mut Database::open(medium.clone(), 0).unwrap();
    let counts = copy::restore(&copy.begin_read().unwrap(), restored, id).unwrap();
    assert_eq!(counts, store.counts().unwrap());
    assert_eq!(unexpected(&mut copy, &AWAY), []);
    assert_eq!(unexpected(restored, &[MADE_UP]), []);
    medium
}

/// Tests make names of objects up.
const MADE_UP: &str = "it is not what its name says";

/// What a check finds, but for what tests do that no relay does.
fn unexpected(db: &mut Database, expected: &[&str]) -> Vec<check::Fault> {
    let found = check::found(db);
    found.faults.into_iter().chain(found.remarks).filter(|fault| !expected.contains(&&*fault.what)).collect()
}

/// The model lets devices speak that have not come back.
const AWAY: [&str; 3] = [MADE_UP, check::KEY_OF_NOBODY, check::OPENING_OF_NOBODY];

pub(in crate::store) fn faults(store: &mut RedbStore) -> Vec<check::Fault> {
    unexpected(&mut store.db, &AWAY)
}

impl Restorable for RedbStore {
    fn back(&self, id: StoreId) -> Self {
        Self::with_backend(back(self, id), self.config.clone(), StoreId([0xff; 8])).unwrap()
    }
}

conformance_tests!(empty);

#[test]
fn what_was_taken_before_envelopes_had_to_be_shorter_is_known_when_it_comes_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("relay.redb");
    let store = RedbStore::open(&path, small()).unwrap();
    let device = join(&store, ALICE, 1);
    accept(&store, append(device, ALICE, 1, b"longer"), T0);
    drop(store);
    let store = RedbStore::open(&path, StoreConfig { body_bytes_max: 5, ..small() }).unwrap();
    assert_eq!(one(&store, Op::Append(append(device, ALICE, 1, b"longer")), T0), Ok(Done::Repeat));
    assert_eq!(one(&store, Op::Append(append(device, ALICE, 2, b"longer")), T0), Err(Refusal::TooLong));
}

#[test]
fn a_reopened_store_is_the_same_store() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("relay.redb");
    let store = RedbStore::open(&path, small()).unwrap();
    let id = store.store_id();
    let device = join(&store, ALICE, 1);
    let first = accept(&store, append(device, ALICE, 1, b"one"), T0);
    let table = Op::PutTable { device, from: 0, tail: TableTail::FromRelay(vec![BOB]) };
    one(&store, table, T0).unwrap();
    one(&store, Op::Settle { device, upto: first }, T0).unwrap();
    one(&store, Op::Revoke { device, id: TokenId::personal(2) }, T0).unwrap();
    assert!(store.put_session(b"k", Bytes::from_static(b"session")));
    store.apply(&[], RelayTime(5_000)).unwrap();
    assert!(store.put_session(b"late", Bytes::from_static(b"not committed")));
    drop(store);

    let store = RedbStore::open(&path, small()).unwrap();
    assert_eq!(store.store_id(), id);
    assert_eq!(store.relay_clock().unwrap(), RelayTime(5_000));
    assert_eq!(store.device(&device_key(1)).unwrap().unwrap().cursor, first);
    assert_eq!(store.tables(device).unwrap().from_relay, [BOB]);
    assert_eq!(one(&store, Op::Append(append(device, ALICE, 1, b"one")), T0), Ok(Done::Repeat));
    let revoked = Append { token: token_of(ALICE, TokenId::personal(2)), ..append(device, ALICE, 9, b"x") };
    assert_eq!(one(&store, Op::Append(revoked), T0), Err(Refusal::NotWanted));
    assert_eq!(store.take_session(b"k").unwrap().unwrap(), "session");
    assert_eq!(store.take_session(b"late").unwrap(), None);
    let next = accept(&store, append(device, ALICE, 2, b"two"), T0);
    assert!(next > first, "the position of a settled entry is not given out again");
}

#[test]
fn sessions_from_before_they_were_sealed_are_taken_out_once() {
    let medium = Medium::default();
    let open = || RedbStore::with_backend(medium.clone(), small(), StoreId([1; 8])).unwrap();
    let keep = |store: &RedbStore, key: &[u8]| {
        assert!(store.put_session(key, Bytes::from_static(b"session")));
        store.apply(&[], T0).unwrap();
    };
    let store = open();
    keep(&store, b"in clear");
    let write = store.db.begin_write().unwrap();
    assert!(write.open_table(META).unwrap().remove(META_SEALED).unwrap().is_some());
    write.commit().unwrap();
    drop(store);
    let mut store = open();
    assert_eq!(store.take_session(b"in clear").unwrap(), None);
    assert_eq!(faults(&mut store), []);
    keep(&store, b"sealed");
    drop(store);
    let mut store = open();
    assert_eq!(store.take_session(b"sealed").unwrap().unwrap(), "session");
    assert_eq!(faults(&mut store), []);
}

#[test]
fn sessions_beyond_a_bound_that_was_lowered_go_for_good_and_so_many_at_a_time() {
    let medium = Medium::default();
    let open = |sessions_max| {
        let config = StoreConfig { sessions_max, ..small() };
        RedbStore::with_backend(medium.clone(), config, StoreId([1; 8])).unwrap()
    };
    let kept =
        |store: &RedbStore| store.db.begin_read().unwrap().open_table(SESSIONS).unwrap().len().unwrap();
    let store = open(3_000);
    for n in 0..2_500u32 {
        assert!(store.put_session(&n.to_be_bytes(), Bytes::from_static(b"session")));
    }
    store.apply(&[], T0).unwrap();
    assert_eq!(kept(&store), 2_500);
    drop(store);
    let mut store = open(10);
    for left in [1_500, 500, 10, 10] {
        // Nothing else has changed.
        store.apply(&[], T0).unwrap();
        assert_eq!(kept(&store), left);
    }
    assert_eq!(store.take_session(&2_489u32.to_be_bytes()).unwrap(), None, "the oldest have gone");
    assert!(store.take_session(&2_490u32.to_be_bytes()).unwrap().is_some());
    assert_eq!(faults(&mut store), []);
}

#[test]
fn with_fewer_digests_kept_than_before_no_repeat_is_taken_twice() {
    let medium = Medium::default();
    let open = |digests_kept| {
        let config = StoreConfig { digests_kept, ..StoreConfig::default() };
        RedbStore::with_backend(medium.clone(), config, StoreId([1; 8])).unwrap()
    };
    let store = open(5);
    let alice = join(&store, ALICE, 1);
    for number in 1..=5 {
        accept(&store, append(alice, ALICE, number, b"once"), T0);
    }
    drop(store);
    let mut store = open(2);
    accept(&store, append(alice, ALICE, 6, b"once"), T0);
    for number in 1..=4 {
        assert_eq!(one(&store, Op::Append(append(alice, ALICE, number, b"once")), T0), Err(Refusal::Stale));
    }
    for number in 5..=6 {
        assert_eq!(one(&store, Op::Append(append(alice, ALICE, number, b"once")), T0), Ok(Done::Repeat));
    }
    accept(&store, append(alice, ALICE, 7, b"once"), T0);
    assert_eq!(one(&store, Op::Append(append(alice, ALICE, 5, b"once")), T0), Err(Refusal::Stale));
    assert_eq!(faults(&mut store), []);
}

#[test]
fn a_store_in_use_is_told_from_a_broken_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("relay.redb");
    let _open = RedbStore::open(&path, small()).unwrap();
    assert!(matches!(RedbStore::open(&path, small()), Err(StoreError::InUse)));
}

#[test]
fn two_stores_have_two_ids() {
    let folder = tempfile::tempdir().unwrap();
    let open = |name| RedbStore::open(&folder.path().join(name), small()).unwrap();
    assert_ne!(open("a").store_id(), open("b").store_id());
}

#[test]
fn a_file_of_another_kind_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("relay.redb");
    let content = b"not a database at all".repeat(100);
    std::fs::write(&path, &content).unwrap();
    assert!(matches!(RedbStore::open(&path, small()), Err(StoreError::NotAStore)));
    assert_eq!(std::fs::read(&path).unwrap(), content);
}

/// Changes a file beside its store.
fn edit(path: &Path, edit: impl FnOnce(&WriteTransaction)) {
    let db = if path.exists() {
        Database::open_file::<StoreError>(path, 0, |_| Ok(())).unwrap()
    } else {
        Database::create_file(path, 0).unwrap()
    };
    let write = db.begin_write().unwrap();
    edit(&write);
    write.commit().unwrap();
}

fn edited(how: impl FnOnce(&WriteTransaction)) -> Result<RedbStore, StoreError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("relay.redb");
    edit(&path, how);
    RedbStore::open(&path, small())
}

#[test]
fn a_database_of_another_program_is_refused() {
    const THEIRS: TableDefinition<'_, u64, u64> = TableDefinition::new("theirs");
    let opened = edited(|write| drop(write.open_table(THEIRS).unwrap()));
    assert!(matches!(opened, Err(StoreError::NotAStore)));
}

#[test]
fn a_store_of_a_later_format_is_refused_by_its_number() {
    let opened = edited(|write| {
        let mut meta = write.open_table(META).unwrap();
        meta.insert(META_FORMAT, 9u32.to_le_bytes().as_slice()).unwrap();
    });
    assert!(matches!(opened, Err(StoreError::UnknownFormat { found: 9, expected: FORMAT })));
}

#[test]
fn an_entry_damaged_on_disk_is_an_error_and_never_a_wrong_body() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("relay.redb");
    let store = RedbStore::open(&path, small()).unwrap();
    let device = join(&store, ALICE, 1);
    accept(&store, append(device, ALICE, 1, b"a body that is found in the file"), T0);
    assert_eq!(bodies(&store, ALICE).len(), 1);
    drop(store);
    edit(&path, |write| {
        let mut entries = write.open_table(ENTRIES).unwrap();
        let mut value = entries.get(1).unwrap().unwrap().value().to_vec();
        *value.last_mut().unwrap() ^= 1;
        entries.insert(1, value.as_slice()).unwrap();
    });
    let store = RedbStore::open(&path, small()).unwrap();
    assert!(matches!(store.read(&ALICE, Position(0), 10, 100), Err(StoreError::Corrupt(_))));
    let settle = [Op::Settle { device, upto: Position(u64::MAX) }];
    assert!(matches!(store.apply(&settle, T0), Err(StoreError::Corrupt(_))));
    assert!(matches!(store.apply(&[], T0), Err(StoreError::Failed)), "the handle is spent");
}

/// A store on a disk, and Bob's mailbox in it, with a body that fills pages of its own.
fn with_mail_for_bob() -> (Medium, RedbStore) {
    let medium = Medium::default();
    let config = StoreConfig { cache_bytes: 0, ..StoreConfig::default() };
    let store = RedbStore::with_backend(medium.clone(), config, StoreId([1; 8])).unwrap();
    let alice = join(&store, ALICE, 1);
    join(&store, BOB, 2);
    accept(&store, append(alice, BOB, 1, &[0xb0; 20_000]), T0);
    (medium, store)
}

#[test]
fn damage_that_a_read_met_is_what_the_next_commit_says() {
    let (medium, store) = with_mail_for_bob();
    medium.damage(|content| {
        let body = content.windows(64).position(|part| part == [0xb0; 64]).unwrap();
        content[body + 8_000] ^= 1;
    });
    assert!(matches!(store.read(&BOB, Position(0), 10, 1_000), Err(StoreError::Corrupt(_))));
    let sweep = || store.apply(&[Op::Sweep { rows_max: 10 }], T0);
    let told = sweep();
    assert!(matches!(&told, Err(StoreError::Corrupt(what)) if what.starts_with("page ")), "{told:?}");
    assert!(matches!(sweep(), Err(StoreError::Failed)), "the handle is spent");
}

#[test]
fn a_disk_that_fails_a_read_is_what_the_next_commit_says() {
    let (medium, store) = with_mail_for_bob();
    medium.clear();
    assert!(matches!(store.read(&BOB, Position(0), 10, 1_000), Err(StoreError::Io(_))));
    let sweep = || store.apply(&[Op::Sweep { rows_max: 10 }], T0);
    let told = sweep();
    assert!(matches!(told, Err(StoreError::Io(_))), "{told:?}");
    assert!(matches!(sweep(), Err(StoreError::Failed)), "the handle is spent");
}

#[test]
fn an_entry_that_a_read_found_damaged_stops_what_commits_elsewhere() {
    let (_, store) = with_mail_for_bob();
    let write = store.db.begin_write().unwrap();
    write.open_table(ENTRIES).unwrap().insert(1, [0; 9].as_slice()).unwrap();
    write.commit().unwrap();
    assert!(matches!(store.read(&BOB, Position(0), 10, 1_000), Err(StoreError::Corrupt(_))));
    let told = store.apply(&[Op::Sweep { rows_max: 10 }], T0);
    assert!(matches!(told, Err(StoreError::Corrupt(_))), "{told:?}");
}

#[cfg(unix)]
#[test]
fn only_the_owner_can_read_a_new_store() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("relay.redb");
    drop(RedbStore::open(&path, small()).unwrap());
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

mod objects;

/// A disk that has as many bytes left as it is told.
#[derive(Clone, Debug)]
struct Narrow(Arc<AtomicU64>);

impl Room for Narrow {
    fn free(&self) -> io::Result<u64> {
        Ok(self.0.load(Ordering::Relaxed))
    }

    fn held(&self) -> io::Result<u64> {
        Ok(0)
    }

    fn hold(&self, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn release(&self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_store_on_a_full_disk_takes_no_more_of_it_and_goes_on() {
    for left in [99, 50] {
        on_a_disk_with(left);
    }
}

/// Of a disk with this much left, and 100 in reserve.
fn on_a_disk_with(little: u64) {
    let left = Arc::new(AtomicU64::new(1_000));
    let store = empty(roomy()).with_reserve(Reserve::new(Narrow(left.clone()), 100));
    let alice = join(&store, ALICE, 1);
    let first = accept(&store, append(alice, ALICE, 1, b"one"), T0);
    let bytes = content(2_000);
    let object = opened(&store, open(alice, ObjectId::of(&bytes), 2_000), T0);
    one(&store, chunk(object, &bytes, 0, 1_000), T0).unwrap();
    let status =
        |number, body| Op::Append(Append { collapse: Some(1), ..append(alice, ALICE, number, body) });
    one(&store, status(2, b"busy"), T0).unwrap();
    // Two envelopes fill it, as far as it may be filled.
    note_peak(&store, 1_400);

    left.store(little, Ordering::Relaxed);
    let before = store.counts().unwrap();
    let second = || Op::Append(append(alice, ALICE, 3, b"two"));
    let grow = [second(), register(BOB, 2), register(ALICE, 3), open(alice, ObjectId([1; 32]), 1)];
    for op in grow.into_iter().chain([chunk(object, &bytes, 1_000, 2_000)]) {
        assert_eq!(one(&store, op.clone(), T0), Err(Refusal::StoreFull), "{op:?}");
    }
    assert_eq!(store.counts().unwrap(), before);
    assert_eq!(one(&store, Op::Append(append(alice, ALICE, 1, b"one")), T0), Ok(Done::Repeat));
    assert!(matches!(one(&store, register(ALICE, 1), T0), Ok(Done::Registered { new: false, .. })));
    assert_eq!(one(&store, chunk(object, &bytes, 0, 1_000), T0), Ok(Done::ChunkPut));
    assert_eq!(bodies(&store, ALICE), [&b"one"[..], b"busy"]);
    let replaced = one(&store, status(4, b"free"), T0);
    assert_eq!(replaced.is_ok(), little > 50, "it takes no more than it gives: {replaced:?}");
    one(&store, Op::Revoke { device: alice, id: TokenId::personal(2) }, T0).unwrap();
    one(&store, Op::Settle { device: alice, upto: first }, T0).unwrap();
    assert_eq!(bodies(&store, ALICE).len(), 1);
    one(&store, Op::DropObject { object }, T0).unwrap();

    // What has gone has left room, but the last of a disk is not for that.
    let found = one(&store, second(), T0);
    if little > 50 {
        assert!(matches!(found, Ok(Done::Accepted { .. })), "{found:?}");
    } else {
        assert_eq!(found, Err(Refusal::StoreFull));
        left.store(250, Ordering::Relaxed);
        assert!(matches!(one(&store, second(), T0), Ok(Done::Accepted { .. })));
    }
}

/// A disk with much left, of which a quota may allow no more.
#[derive(Clone, Debug, Default)]
struct Allotted {
    is_used_up: Arc<AtomicBool>,
    ballast: Arc<AtomicU64>,
}

impl Room for Allotted {
    fn free(&self) -> io::Result<u64> {
        Ok(1 << 40)
    }

    fn held(&self) -> io::Result<u64> {
        Ok(self.ballast.load(Ordering::Relaxed))
    }

    fn hold(&self, bytes: u64, beside: u64) -> io::Result<()> {
        // What the ballast has given up can be had.
        if self.is_used_up.load(Ordering::Relaxed) && beside > 0 {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        self.ballast.store(bytes, Ordering::Relaxed);
        Ok(())
    }

    fn release(&self) -> io::Result<()> {
        self.ballast.store(0, Ordering::Relaxed);
        Ok(())
    }
}

#[test]
fn a_store_that_a_quota_has_stopped_once_goes_on_within_what_it_has() {
    let (medium, room) = (Medium::default(), Allotted::default());
    let open = || {
        let config = StoreConfig::default();
        let store = RedbStore::with_backend(medium.clone(), config, StoreId([1; 8])).unwrap();
        store.with_reserve(Reserve::new(room.clone(), 100))
    };
    let store = open();
    let alice = join(&store, ALICE, 1);
    let body = [7; 20_000];
    let positions = [1, 2, 3].map(|number| accept(&store, append(alice, ALICE, number, &body), T0));
    let held = || room.held().unwrap();
    assert_eq!(held(), 100);
    room.is_used_up.store(true, Ordering::Relaxed);
    medium.fail_from(medium.calls(), io::ErrorKind::QuotaExceeded);
    let fourth = || Op::Append(append(alice, ALICE, 4, &body));
    let full = store.apply(&[fourth()], T0);
    assert!(matches!(full, Err(StoreError::Full)), "{full:?}");
    assert_eq!(held(), 0, "what it held is for the next run");
    drop(store);

    medium.mend();
    let store = open();
    assert_eq!(one(&store, fourth(), T0), Err(Refusal::StoreFull));
    assert_eq!(bodies(&store, ALICE).len(), 3);
    let settle = Op::Settle { device: alice, upto: positions[1] };
    assert!(matches!(one(&store, settle, T0), Ok(Done::Settled { released: 2, .. })));
    assert!(matches!(one(&store, fourth(), T0), Ok(Done::Accepted { .. })), "the file has room again");
    assert_eq!(held(), 0);
}

/// As if the file had held so much.
fn note_peak(store: &RedbStore, weight: u64) {
    let write = store.db.begin_write().unwrap();
    write.open_table(META).unwrap().insert(records::META_PEAK, weight.to_le_bytes().as_slice()).unwrap();
    write.commit().unwrap();
}

#[test]
fn no_backup_is_made_while_little_is_left_of_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let left = Arc::new(AtomicU64::new(1_000));
    let store = empty(roomy()).with_reserve(Reserve::new(Narrow(left.clone()), 100));
    join(&store, ALICE, 1);
    // It becomes so while the copy is made.
    let goes_on = || {
        left.store(99, Ordering::Relaxed);
        true
    };
    let made = store.back_up(&folder.path().join("copy"), &goes_on);
    assert!(matches!(made, Err(StoreError::Low)), "{made:?}");
    left.store(1_000, Ordering::Relaxed);
    assert_eq!(store.back_up(&folder.path().join("again"), &|| true).unwrap().accounts, 1);
}
