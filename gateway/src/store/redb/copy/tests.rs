//! What is copied and what is not, and what a backup costs.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::time::Instant;

use thinpost_disk::files;

use super::*;
use crate::store::conformance::{ALICE, BOB, T0, accept, append, join, roomy};
use crate::store::{DeviceNo, Op, Quota, Store};

/// A store in a file, closed.
fn filled(path: &Path) {
    let store = RedbStore::open(path, roomy()).unwrap();
    let device = join(&store, ALICE, 1);
    accept(&store, append(device, ALICE, 1, b"one"), T0);
}

/// Changes a closed file beside its store.
fn edit(path: &Path, edit: impl FnOnce(&redb::WriteTransaction)) {
    let db = Database::open_file::<StoreError>(path, 0, |_| Ok(())).unwrap();
    let write = db.begin_write().unwrap();
    edit(&write);
    write.commit().unwrap();
}

/// What a file was before pages had checks.
fn without_checks(content: &[u8]) -> Vec<u8> {
    let pages = content.chunks(4_096).enumerate().filter(|(place, _)| place % 513 != 0);
    let mut file: Vec<u8> = pages.flat_map(|(_, page)| page).copied().collect();
    file[504..512].fill(0);
    file
}

fn has_rows(page: &[u8]) -> bool {
    page.windows(32).any(|bytes| bytes == ALICE.0)
}

#[test]
fn a_file_without_checks_that_makes_no_sense_is_an_error_when_it_is_copied() {
    let folder = tempfile::tempdir().unwrap();
    let [store, backup, damaged, copy] =
        ["store", "backup", "damaged", "copy"].map(|name| folder.path().join(name));
    filled(&store);
    RedbStore::back_up_closed(&store, &backup).unwrap();
    type Act = fn(&Path, &Path) -> Result<Counts>;
    let acts: [(&Path, Act); 2] = [(&store, RedbStore::back_up_closed), (&backup, RedbStore::restore)];
    for (path, act) in acts {
        let whole = without_checks(&fs::read(path).unwrap());
        fs::write(&damaged, &whole).unwrap();
        act(&damaged, &copy).unwrap();
        fs::remove_file(&copy).unwrap();
        // Pages of rows: the account's key stands in them.
        let of_rows = (1..whole.len() / 4_096)
            .map(|page| page * 4_096)
            .filter(|page| has_rows(&whole[*page..page + 4_096]));
        let mut errors = 0;
        for place in of_rows.flat_map(|page| [0, 2, 5].map(|within| page + within)) {
            let mut content = whole.clone();
            content[place] ^= 0x40;
            fs::write(&damaged, &content).unwrap();
            errors += u32::from(act(&damaged, &copy).is_err());
            files::remove(&copy).unwrap();
        }
        assert!(errors > 0);
    }
}

#[test]
fn nothing_is_copied_of_a_store_that_has_what_is_not_known() {
    const LATER: TableDefinition<'_, u64, u64> = TableDefinition::new("later");
    let folder = tempfile::tempdir().unwrap();
    let [store, backup, copy] = ["store", "backup", "copy"].map(|name| folder.path().join(name));
    let unknown = |copied: Result<Counts>, expected: &str| {
        let Err(StoreError::Unknown(what)) = copied else { panic!("{copied:?}") };
        assert_eq!(what, expected);
        fs::remove_file(&copy).unwrap();
    };
    filled(&store);
    RedbStore::back_up_closed(&store, &backup).unwrap();
    for path in [&store, &backup] {
        edit(path, |write| drop(write.open_table(META).unwrap().insert("later", [1].as_slice()).unwrap()));
    }
    unknown(RedbStore::back_up_closed(&store, &copy), "the value \"later\"");
    unknown(RedbStore::restore(&backup, &copy), "the value \"later\"");
    edit(&store, |write| drop(write.open_table(LATER).unwrap()));
    unknown(RedbStore::back_up_closed(&store, &copy), "the table \"later\"");
    let report = RedbStore::check(&store).unwrap();
    assert!(report.is_sound() && report.remarks.len() == 1, "{report:?}");
}

#[test]
fn all_tables_of_a_store_are_known() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    filled(&path);
    let db = open_closed(&path).unwrap();
    let read = db.begin_read().unwrap();
    let tables: Vec<_> = read.list_tables().unwrap().map(|table| table.name().to_owned()).collect();
    let known = known_tables();
    assert_eq!(tables.iter().map(String::as_str).collect::<BTreeSet<_>>(), known.iter().copied().collect());
}

#[test]
fn commits_of_a_copy_that_is_not_done_do_not_save_the_map_of_free_pages() {
    let written = |begin: fn(&Database) -> redb::WriteTransaction| {
        let medium = Medium::default();
        let db = Database::open(medium.clone(), 0).unwrap();
        for n in 0..20 {
            let write = begin(&db);
            write.open_table(ENTRIES).unwrap().insert(n, [7; 100].as_slice()).unwrap();
            write.commit().unwrap();
        }
        medium.writes().bytes
    };
    let (bulk, saved) =
        (written(|db| db.begin_bulk_write().unwrap()), written(|db| db.begin_write().unwrap()));
    assert!(bulk < saved / 4 * 3, "{bulk} bytes, and {saved} with the map");
}

/// Mebibytes, for people.
fn mib(path: &Path) -> f64 {
    fs::metadata(path).unwrap().len() as f64 / f64::from(1 << 20)
}

/// Commits `groups` of 64 envelopes of 1,000 bytes, of which the mailbox lets go as many as it gets once it is `full`.
fn commits(store: &RedbStore, device: DeviceNo, from: u64, groups: u64, full: u64) {
    for group in from..from + groups {
        let sequences = group * 64 + 1..=group * 64 + 64;
        let mut ops: Vec<_> = sequences
            .map(|sequence| Op::Append(append(device, BOB, sequence, &[sequence as u8; 1_000])))
            .collect();
        let upto = Position((group * 64 + 64).saturating_sub(full));
        ops.push(Op::Settle { device, upto });
        assert!(store.apply(&ops, T0).unwrap().iter().all(|verdict| verdict.is_ok()));
    }
}

/// Printed with `cargo test --release -p thinpost-gateway --lib what_a_backup_costs -- --ignored --nocapture`.
#[test]
#[ignore = "measures, and takes a while"]
fn what_a_backup_costs() {
    const FULL: u64 = 128 * 1_024;
    let folder = tempfile::tempdir().unwrap();
    let (path, copy) = (folder.path().join("store"), folder.path().join("copy"));
    let quota = Quota { entries_max: u32::MAX, bytes_max: u64::MAX };
    let store = RedbStore::open(&path, StoreConfig { quota, ..StoreConfig::default() }).unwrap();
    let device = join(&store, BOB, 1);
    commits(&store, device, 0, FULL / 64, FULL);
    // As many again, so that the file is as large as it gets.
    let steady = FULL / 64;
    commits(&store, device, steady, steady / 8, FULL);
    let before = mib(&path);
    let began = Instant::now();
    commits(&store, device, steady * 9 / 8, 64, FULL);
    let alone = began.elapsed().as_secs_f64() * 1_000.0 / 64.0;
    println!("{before:.0} MiB, a commit of 64 envelopes takes {alone:.1} ms");

    let pinned = store.db.begin_read().unwrap();
    let allocated = || {
        let write = store.db.begin_write().unwrap();
        let pages = write.stats().unwrap().allocated_pages();
        write.abort().unwrap();
        pages as f64 * 4.0 / 1_024.0
    };
    let unpinned = allocated();
    for round in 0..4 {
        commits(&store, device, steady * 9 / 8 + 64 * (round + 1), 64, FULL);
        println!("after {} commits beside a copy: {:.1} MiB more", (round + 1) * 64, allocated() - unpinned);
    }
    drop(pinned);

    let began = Instant::now();
    let counts = store.back_up(&copy, &|| true).unwrap();
    let took = began.elapsed().as_secs_f64();
    println!("copied {} entries in {took:.1} s, {:.0} MiB", counts.entries, mib(&copy));
    let began = Instant::now();
    let is_going_on = std::sync::atomic::AtomicBool::new(true);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let again = folder.path().join("again");
            store.back_up(&again, &|| true).unwrap();
            is_going_on.store(false, std::sync::atomic::Ordering::Relaxed);
        });
        let (mut done, mut slowest) = (0, 0.0);
        while is_going_on.load(std::sync::atomic::Ordering::Relaxed) {
            let began = Instant::now();
            commits(&store, device, steady * 9 / 8 + 64 * 5 + done, 1, FULL);
            slowest = began.elapsed().as_secs_f64().max(slowest);
            done += 1;
        }
        let each = began.elapsed().as_secs_f64() * 1_000.0 / done as f64;
        println!("beside a copy {done} commits of {each:.1} ms, the slowest {:.0}", slowest * 1_000.0);
    });
    drop(store);
    let began = Instant::now();
    assert!(RedbStore::check(&path).unwrap().is_sound());
    println!("checked in {:.1} s", began.elapsed().as_secs_f64());
    let began = Instant::now();
    RedbStore::restore(&copy, &folder.path().join("restored")).unwrap();
    println!("restored in {:.1} s", began.elapsed().as_secs_f64());
}
