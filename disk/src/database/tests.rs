#![allow(clippy::unwrap_used)]

use redb::TableDefinition;

use super::*;
use crate::checked::PAGE_BYTES;
use crate::medium::{Call, Medium, SECTOR_BYTES};

const ROWS: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("rows");

fn put(db: &Database, rows: std::ops::Range<u64>) {
    let write = db.begin_write().unwrap();
    for row in rows {
        write.open_table(ROWS).unwrap().insert(row, [row as u8; 3_000].as_slice()).unwrap();
    }
    write.commit().unwrap();
}

fn count(db: &Database) -> u64 {
    let read = db.begin_read().unwrap();
    redb::ReadableTableMetadata::len(&read.open_table(ROWS).unwrap()).unwrap()
}

/// Not checksums that peers could forge, but the order of writing is what a commit rests on.
#[test]
fn a_commit_has_everything_on_disk_before_the_byte_that_makes_it_current() {
    let medium = Medium::recording();
    let db = Database::open(medium.clone(), 0).unwrap();
    for row in 0..5 {
        let before = medium.calls();
        put(&db, row..row + 1);
        let calls = &medium.recorded()[before..];
        let syncs: Vec<_> = (0..calls.len()).filter(|n| matches!(calls[*n], Call::Sync)).collect();
        let [.., first, second] = syncs[..] else { panic!("{} syncs", syncs.len()) };
        let between = &calls[first + 1..second];
        assert!(
            matches!(between, [Call::Write { at: PAGE_BYTES, bytes }] if bytes.len() <= SECTOR_BYTES),
            "{between:?}"
        );
    }
}

#[test]
fn a_database_that_was_killed_opens_without_a_walk_through_its_file() {
    let medium = Medium::default();
    let db = Database::open(medium.clone(), 0).unwrap();
    put(&db, 0..1_000);
    let killed = Medium::holding(medium.content());
    let reopened = Database::open(killed.clone(), 0).unwrap();
    let (read, size) = (killed.reads().bytes, killed.content().len() as u64);
    assert!(size > 3_000_000, "{size}");
    assert!(read < size / 50, "{read} of {size} bytes read");
    assert_eq!(count(&reopened), 1_000);
}

#[test]
fn damaged_pages_are_an_error_and_nothing_is_written_any_more() {
    let medium = Medium::default();
    put(&Database::open(medium.clone(), 0).unwrap(), 0..100);
    let content = medium.content();
    let mut noticed = 0;
    for at in (4_096..content.len()).step_by(512) {
        let mut damaged = content.clone();
        damaged[at..at + 16].fill(0xff);
        let damaged = Medium::holding(damaged);
        let Ok(db) = Database::open(damaged.clone(), 0) else {
            noticed += 1;
            continue;
        };
        let looked: Result<u64, StorageError> = db.intact(|| {
            let read = db.begin_read().map_err(|error| StorageError::Corrupted(error.to_string()))?;
            let table = read.open_table(ROWS).map_err(|error| StorageError::Corrupted(error.to_string()))?;
            let mut sum = 0;
            for row in table.range::<u64>(..)? {
                sum += row?.1.value().len() as u64;
            }
            Ok(sum)
        });
        if looked.is_err() {
            noticed += 1;
            db.give_up();
            let calls = damaged.calls();
            drop(db);
            assert_eq!(damaged.calls(), calls, "byte {at}");
        }
    }
    assert!(noticed > 5, "{noticed}");
}

#[test]
fn what_is_given_up_is_not_written_to_at_its_end() {
    let calls_at_the_end = |gives_up: bool| {
        let medium = Medium::default();
        let db = Database::open(medium.clone(), 0).unwrap();
        put(&db, 0..3);
        if gives_up {
            db.give_up();
        }
        let before = medium.calls();
        drop(db);
        medium.calls() - before
    };
    assert_eq!(calls_at_the_end(true), 0);
    assert!(calls_at_the_end(false) > 0, "or giving up makes no difference");
}

#[test]
fn integrity_is_looked_at_by_redb() {
    let medium = Medium::default();
    let mut db = Database::open(medium.clone(), 0).unwrap();
    put(&db, 0..300);
    assert!(db.check_integrity().unwrap());
    drop(db);
    // Without our checks, redb's alone remain.
    let bare = Medium::default();
    let mut db = Database::open_bare(bare.clone(), 0).unwrap();
    put(&db, 0..300);
    bare.damage(|file| {
        let at = file.windows(100).position(|bytes| bytes == [7; 100]).unwrap();
        file[at + 50] ^= 1;
    });
    assert!(!matches!(db.check_integrity(), Ok(true)));
}
