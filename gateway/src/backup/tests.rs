#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use bytes::Bytes;
use redb::{ReadableTable, TableDefinition};
use tempfile::TempDir;
use thinpost_disk::Database;
use thinpost_wire::ids::Position;

use super::*;
use crate::folder::RelayKeys;
use crate::store::conformance::{ALICE, BOB, T0, accept, append, bodies, join, one, register, roomy};
use crate::store::{Done, Store};

/// A relay's folder whose store holds something, and room beside it.
struct Place {
    parent: TempDir,
    folder: Folder,
}

impl Place {
    fn new() -> Self {
        let parent = tempfile::tempdir().unwrap();
        let folder = Folder::open(&parent.path().join("relay")).unwrap();
        folder.keys().unwrap();
        folder.publish_addresses(&["192.0.2.1:4433".parse().unwrap()]).unwrap();
        Self { parent, folder }
    }

    fn open(&self) -> RedbStore {
        RedbStore::open(&self.folder.store_path(), roomy()).unwrap()
    }

    /// Alice and Bob, and an envelope for Bob.
    fn filled() -> Self {
        let place = Self::new();
        let store = place.open();
        let alice = join(&store, ALICE, 1);
        join(&store, BOB, 2);
        accept(&store, append(alice, BOB, 1, b"before the backup"), T0);
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.parent.path().join(name)
    }
}

fn public(keys: &RelayKeys) -> [u8; 32] {
    keys.identity().public()
}

fn names(path: &Path) -> BTreeSet<String> {
    fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn what_a_backup_held_is_in_the_relay_that_is_made_of_it() {
    let place = Place::filled();
    let backup = place.path("backup");
    let counts = back_up_closed(&place.folder, &backup).unwrap();
    assert_eq!((counts.accounts, counts.devices, counts.entries), (2, 2, 1));
    assert_eq!(names(&backup), ["addresses", "key", "manifest", "store"].map(str::to_owned).into());
    let report = check(&backup).unwrap();
    assert!(report.is_sound() && report.is_backup, "{report:?}");
    assert_eq!(report.counts, counts);

    let data = place.path("restored");
    assert_eq!(restore(&backup, &data).unwrap(), counts);
    assert!(RedbStore::check(&data.join("store.redb")).unwrap().is_sound());
    let folder = Folder::of_relay(&data).unwrap();
    assert_eq!(public(&folder.keys().unwrap()), public(&place.folder.keys().unwrap()));
    assert_eq!(folder.published_addresses(), place.folder.published_addresses());
    let store = RedbStore::open(&folder.store_path(), roomy()).unwrap();
    assert_eq!(bodies(&store, BOB), ["before the backup"]);
    assert_ne!(store.store_id(), place.open().store_id());
}

#[cfg(unix)]
#[test]
fn backup_and_restored_relay_are_their_owners_only() {
    use std::os::unix::fs::PermissionsExt;
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let place = Place::filled();
    let (backup, data) = (place.path("backup"), place.path("restored"));
    back_up_closed(&place.folder, &backup).unwrap();
    restore(&backup, &data).unwrap();
    for folder in [&backup, &data] {
        assert_eq!(mode(folder), 0o700);
        for name in names(folder).iter().filter(|name| *name != "relay.lock") {
            assert_eq!(mode(&folder.join(name)), 0o600, "{name}");
        }
    }
}

#[test]
fn a_store_is_backed_up_as_its_last_commit_left_it_and_goes_on_meanwhile() {
    let place = Place::filled();
    let store = place.open();
    let backup = place.path("backup");
    let alice = store.device(&crate::store::conformance::device_key(1)).unwrap().unwrap().number;
    let rows = std::sync::atomic::AtomicU64::new(0);
    let goes_on = || {
        // In the middle of the copy Bob's mailbox is emptied and filled again.
        if rows.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 5 {
            let bob = store.device(&crate::store::conformance::device_key(2)).unwrap().unwrap().number;
            let settle = one(&store, crate::store::Op::Settle { device: bob, upto: Position(1) }, T0);
            assert!(matches!(settle, Ok(Done::Settled { released: 1, .. })), "{settle:?}");
            accept(&store, append(alice, BOB, 2, b"after the backup began"), T0);
        }
        true
    };
    let counts = back_up(&place.folder, &store, &backup, &goes_on).unwrap();
    assert!(is_there(&backup).unwrap() && !is_there(&place.path("elsewhere")).unwrap());
    assert!(rows.into_inner() > 5);
    assert_eq!(
        (counts.entries, check(&backup).unwrap()),
        (1, Report { counts, is_backup: true, ..Report::default() })
    );
    assert_eq!(bodies(&store, BOB), ["after the backup began"]);
    restore(&backup, &place.path("restored")).unwrap();
    let restored = RedbStore::open(&place.path("restored").join("store.redb"), roomy()).unwrap();
    assert_eq!(bodies(&restored, BOB), ["before the backup"]);
}

#[test]
fn a_backup_that_was_given_up_is_none_and_can_be_begun_again() {
    let place = Place::filled();
    let store = place.open();
    let backup = place.path("backup");
    let given_up = back_up(&place.folder, &store, &backup, &|| false);
    let Err(BackupError::Store(StoreError::Io(error))) = given_up else { panic!("{given_up:?}") };
    assert_eq!(error.kind(), io::ErrorKind::Interrupted);
    assert!(names(&backup).contains("unfinished"));
    assert!(!backup.join(STORE_FILE).exists(), "it takes no room of the disk that it has filled, perhaps");
    assert!(!is_there(&backup).unwrap());
    assert!(matches!(check(&backup), Err(BackupError::NotABackup { .. })));
    assert!(matches!(restore(&backup, &place.path("restored")), Err(BackupError::NotABackup { .. })));
    assert!(!place.path("restored").exists());
    back_up(&place.folder, &store, &backup, &|| true).unwrap();
    assert!(check(&backup).unwrap().is_sound());
}

#[test]
fn whose_disk_is_full_is_said() {
    let place = Place::filled();
    let backup = place.path("backup");
    let full = make(&place.folder, &backup, |_| Err(StoreError::Full)).unwrap_err().to_string();
    assert!(full.contains(&backup.display().to_string()), "{full}");
    // More in reserve than any disk has.
    let reserve = thinpost_disk::Reserve::new(thinpost_disk::Ballast::new(&place.path("ballast")), 1 << 62);
    let store = place.open().with_reserve(reserve);
    let low = back_up(&place.folder, &store, &backup, &|| true).unwrap_err().to_string();
    assert!(low.contains("the relay's own disk") && low.contains("stop the relay"), "{low}");
}

#[test]
fn a_backup_goes_into_an_empty_folder_only() {
    let place = Place::filled();
    let backup = place.path("backup");
    fs::create_dir(&backup).unwrap();
    back_up_closed(&place.folder, &backup).unwrap();
    let before = fs::read(backup.join("store")).unwrap();
    for path in [&backup, &place.folder.path().to_owned()] {
        let again = back_up_closed(&place.folder, path);
        assert!(matches!(again, Err(BackupError::Folder(FolderError::NotEmpty { .. }))), "{again:?}");
    }
    assert!(fs::read(backup.join("store")).unwrap() == before);
}

#[test]
fn a_relay_without_a_store_has_nothing_to_back_up() {
    let place = Place::new();
    let backup = back_up_closed(&place.folder, &place.path("backup"));
    assert!(matches!(backup, Err(BackupError::Folder(FolderError::NoStore { .. }))), "{backup:?}");
    assert!(!place.path("backup").exists());
}

#[test]
fn a_file_of_a_backup_that_was_changed_is_named_and_nothing_is_restored() {
    let place = Place::filled();
    let backup = place.path("backup");
    back_up_closed(&place.folder, &backup).unwrap();
    for name in ["key", "addresses", "store", "manifest"] {
        let path = backup.join(name);
        let content = fs::read(&path).unwrap();
        let mut changed = content.clone();
        let middle = changed.len() / 2;
        changed[middle] ^= 1;
        fs::write(&path, &changed).unwrap();
        let restored = restore(&backup, &place.path("restored"));
        let Err(BackupError::Damaged { path: named }) = restored else { panic!("{name}: {restored:?}") };
        assert_eq!(named, path);
        assert!(!place.path("restored").exists());
        fs::write(&path, &content).unwrap();
    }
    check(&backup).unwrap();
    fs::remove_file(backup.join("addresses")).unwrap();
    assert!(matches!(check(&backup), Err(BackupError::Damaged { .. })));
}

/// The store's table of envelopes.
const ENTRIES: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("entries");

#[test]
fn a_backup_of_an_unsound_store_is_not_restored() {
    let place = Place::filled();
    {
        let store = Database::open_file::<StoreError>(&place.folder.store_path(), 0, |_| Ok(())).unwrap();
        let write = store.begin_write().unwrap();
        let mut entries = write.open_table(ENTRIES).unwrap();
        let (position, mut value) = {
            let (position, value) = entries.first().unwrap().unwrap();
            (position.value(), value.value().to_vec())
        };
        *value.last_mut().unwrap() ^= 1;
        entries.insert(position, value.as_slice()).unwrap();
        drop(entries);
        write.commit().unwrap();
    }
    assert!(!RedbStore::check(&place.folder.store_path()).unwrap().is_sound());
    let backup = place.path("backup");
    back_up_closed(&place.folder, &backup).unwrap();
    let restored = restore(&backup, &place.path("restored"));
    assert!(matches!(restored, Err(BackupError::Unsound { .. })), "{restored:?}");
    assert!(!place.path("restored").exists());
}

#[test]
fn a_folder_that_holds_a_store_or_another_relays_key_is_left_as_it_is() {
    let place = Place::filled();
    let backup = place.path("backup");
    back_up_closed(&place.folder, &backup).unwrap();
    let store = fs::read(place.folder.store_path()).unwrap();
    let error = restore(&backup, place.folder.path());
    assert!(matches!(error, Err(BackupError::Folder(FolderError::HoldsStore { .. }))), "{error:?}");
    assert!(fs::read(place.folder.store_path()).unwrap() == store);

    let other = Folder::open(&place.path("other")).unwrap();
    let key = public(&other.keys().unwrap());
    let error = restore(&backup, other.path());
    assert!(matches!(error, Err(BackupError::Folder(FolderError::HoldsKey { .. }))), "{error:?}");
    assert_eq!(public(&other.keys().unwrap()), key);

    // The relay's own folder, which has lost its store.
    fs::remove_file(place.folder.store_path()).unwrap();
    restore(&backup, place.folder.path()).unwrap();
    assert_eq!(bodies(&place.open(), BOB), ["before the backup"]);
}

#[test]
fn where_a_restore_did_not_finish_no_relay_runs_and_another_restore_begins_anew() {
    let place = Place::filled();
    let backup = place.path("backup");
    back_up_closed(&place.folder, &backup).unwrap();
    let folder = Folder::open(&place.path("restored")).unwrap();
    // As a crash leaves it: the mark, and half of what was to come.
    for (name, content) in [("unfinished", ""), ("relay.key", "12"), ("store.redb", "half a store")] {
        fs::write(folder.path().join(name), content).unwrap();
    }
    assert!(matches!(folder.lock(), Err(FolderError::Unfinished { .. })));
    assert!(matches!(Folder::of_relay(folder.path()), Err(FolderError::Unfinished { .. })));
    restore(&backup, folder.path()).unwrap();
    let _lock = folder.lock().unwrap();
    let store = RedbStore::open(&folder.store_path(), roomy()).unwrap();
    assert_eq!(bodies(&store, BOB), ["before the backup"]);
    let running = restore(&backup, folder.path());
    assert!(matches!(running, Err(BackupError::Folder(FolderError::InUse { .. }))), "{running:?}");
}

/// A folder in which a restore of this backup has made this store, and was stopped before it could take the mark away.
fn stopped(place: &Place, backup: &Path, name: &str) -> Folder {
    let folder = Folder::open(&place.path(name)).unwrap();
    restore(backup, folder.path()).unwrap();
    let store = RedbStore::open(&folder.store_path(), roomy()).unwrap();
    let id: String = store.store_id().0.iter().map(|byte| format!("{byte:02x}")).collect();
    fs::write(folder.path().join("unfinished"), id + "\n").unwrap();
    folder
}

#[test]
fn a_restore_that_was_stopped_at_the_last_is_begun_again() {
    let place = Place::filled();
    let backup = place.path("backup");
    back_up_closed(&place.folder, &backup).unwrap();
    let folder = stopped(&place, &backup, "restored");
    let before = RedbStore::id_of(&folder.store_path()).unwrap().unwrap();
    restore(&backup, folder.path()).unwrap();
    assert_ne!(RedbStore::id_of(&folder.store_path()).unwrap(), Some(before));
    assert!(!folder.path().join("unfinished").exists());
}

#[test]
fn a_store_that_was_put_where_a_restore_did_not_finish_is_left_as_it_is() {
    let place = Place::filled();
    let backup = place.path("backup");
    back_up_closed(&place.folder, &backup).unwrap();
    accept(&place.open(), append(crate::store::DeviceNo(1), BOB, 2, b"after the backup"), T0);
    let folder = stopped(&place, &backup, "restored");
    fs::copy(place.folder.store_path(), folder.store_path()).unwrap();
    let found = fs::read(folder.store_path()).unwrap();
    for mark in [None, Some(""), Some("no id"), Some("0102030405060708")] {
        if let Some(mark) = mark {
            fs::write(folder.path().join("unfinished"), mark).unwrap();
        }
        let again = restore(&backup, folder.path());
        assert!(matches!(again, Err(BackupError::Folder(FolderError::HoldsStore { .. }))), "{again:?}");
        assert!(fs::read(folder.store_path()).unwrap() == found);
        assert!(folder.path().join("unfinished").exists());
    }
    // Damaged, it may still be all that there is of it.
    let mut damaged = found.clone();
    damaged[5_000..].iter_mut().for_each(|byte| *byte ^= 1);
    fs::write(folder.store_path(), &damaged).unwrap();
    let again = restore(&backup, folder.path());
    assert!(matches!(again, Err(BackupError::Folder(FolderError::HoldsStore { .. }))), "{again:?}");
    assert!(fs::read(folder.store_path()).unwrap() == damaged);
}

#[test]
fn a_key_that_was_put_where_a_restore_did_not_finish_is_left_as_it_is() {
    let place = Place::filled();
    let backup = place.path("backup");
    back_up_closed(&place.folder, &backup).unwrap();
    let other = Folder::open(&place.path("other")).unwrap();
    let key = public(&other.keys().unwrap());
    fs::write(other.path().join("unfinished"), "").unwrap();
    let error = restore(&backup, other.path());
    assert!(matches!(error, Err(BackupError::Folder(FolderError::HoldsKey { .. }))), "{error:?}");
    assert_eq!(public(&other.keys().unwrap()), key);
}

#[test]
fn no_relay_runs_on_a_backup_itself() {
    let place = Place::filled();
    let backup = place.path("backup");
    back_up_closed(&place.folder, &backup).unwrap();
    assert!(matches!(Folder::of_relay(&backup), Err(FolderError::IsBackup { .. })));
    let opened = RedbStore::open(&backup.join("store"), roomy());
    assert!(matches!(opened, Err(StoreError::IsBackup)), "{opened:?}");
    // And a store is no backup.
    let restored = RedbStore::restore(&place.folder.store_path(), &place.path("copy"));
    assert!(matches!(restored, Err(StoreError::NotAStore)), "{restored:?}");
}

#[test]
fn sessions_of_tls_stay_out_of_a_backup() {
    let place = Place::filled();
    let store = place.open();
    assert!(store.put_session(b"k", Bytes::from_static(b"a secret of both ends")));
    store.apply(&[], T0).unwrap();
    let backup = place.path("backup");
    back_up(&place.folder, &store, &backup, &|| true).unwrap();
    let file = fs::read(backup.join("store")).unwrap();
    assert!(!file.windows(21).any(|piece| piece == b"a secret of both ends"));
    assert!(one(&store, register(ALICE, 1), T0).is_ok());
}

#[cfg(unix)]
#[test]
fn whoever_hangs_up_wants_no_backup_and_others_get_theirs_or_how_it_stands() {
    use std::io::Write;
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;

    use crate::Standing;
    use crate::control::{Control, ask, status};

    let place = Place::filled();
    assert!(ask(&place.folder, &place.path("nobody")).unwrap().is_none(), "no relay runs");
    let control = Control::listen(&place.folder).unwrap();
    let line = format!("backup {}\n", place.path("unwanted").display());
    UnixStream::connect(place.folder.socket_path()).unwrap().write_all(line.as_bytes()).unwrap();
    let standing = Standing { connected: 3, ..Standing::default() };
    control.serve(Arc::new(place.open()), move || Some(standing), |_| 99);
    // Answered after the one before.
    let counts = ask(&place.folder, &place.path("wanted")).unwrap().unwrap().unwrap();
    assert_eq!(check(&place.path("wanted")).unwrap().counts, counts);
    assert!(names(&place.path("unwanted")).contains("unfinished"));
    let refused = ask(&place.folder, &place.path("wanted")).unwrap().unwrap().unwrap_err();
    let expected = format!("{} is not empty", place.path("wanted").display());
    assert_eq!((refused.code, refused.message), (99, expected));
    let stream = UnixStream::connect(place.folder.socket_path()).unwrap();
    (&stream).write_all(b"backup relative\n").unwrap();
    let mut answer = String::new();
    io::Read::read_to_string(&mut &stream, &mut answer).unwrap();
    assert_eq!(answer, "failed 64 the relay does not understand\n");
    assert_eq!(status(&place.folder).unwrap(), Some(standing));
}
