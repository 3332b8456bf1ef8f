//! A bit that flips on the medium of a home is noticed, or changes nothing: neither what is read nor what is written after it.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use redb::{Key, ReadableTable, TableDefinition, TableHandle};
use thinpost_disk::medium::Medium;
use thinpost_wire::ids::ObjectId;

use super::storage::MemoryStorage;
use super::tests::{BOB, NOW, arrival, created, numbers, open, random, row};
use super::tests_at_rest::{carol, fill};
use super::*;
use crate::error::OpenError;
use crate::objects::{ObjectAim, ObjectRow};
use crate::random::Random;

/// Bits that flip, each in a copy of its own.
const BITS: usize = 300;

/// Longer than a block.
const OBJECT: &[u8] = &[7; 70_000];

/// All rows as the medium holds them, by table and key. Their records are sealed: whoever opens these rows reads the same.
type AllRows = BTreeMap<(String, Vec<u8>), Vec<u8>>;

fn rows<K: Key + 'static>(read: &ReadTransaction, name: &str, all: &mut AllRows) -> Result<(), StoreError> {
    let table = read.open_table(TableDefinition::<K, &[u8]>::new(name))?;
    for entry in table.iter()? {
        let (key, row) = entry?;
        all.insert((name.to_owned(), K::as_bytes(&key.value()).as_ref().to_vec()), row.value().to_vec());
    }
    Ok(())
}

/// Whatever tables there are; of one that is new here, the type of its keys is to be said.
fn all_rows(store: &Store) -> Result<AllRows, StoreError> {
    store.intact(|| {
        let read = store.db.begin_read()?;
        let mut all = BTreeMap::new();
        for table in read.list_tables()? {
            match table.name() {
                "meta" => rows::<&str>(&read, "meta", &mut all)?,
                name @ ("contacts" | "pairs" | "access" | "requests") => {
                    rows::<[u8; 32]>(&read, name, &mut all)?;
                }
                name @ ("mailboxes" | "senders") => rows::<u16>(&read, name, &mut all)?,
                "grants" => rows::<u32>(&read, "grants", &mut all)?,
                name => rows::<u64>(&read, name, &mut all)?,
            }
        }
        Ok(all)
    })
}

/// A home with something in each of its tables.
fn full() -> MemoryStorage {
    let memory = created();
    let (store, _) = open(&memory);
    fill(&store);
    let seal = Some(carol().ticket.seal);
    let kept = store.enqueue(&mut [OutboxRow { seal, ..row(b"kept") }], &numbers(NOW)).unwrap();
    let object = ObjectRow {
        id: ObjectId::of(OBJECT),
        size: OBJECT.len() as u64,
        aim: ObjectAim::Put { lifetime_s: None },
    };
    store.put_object(&object, &Bytes::from_static(OBJECT)).unwrap();
    let changes = Changes {
        custody: vec![(kept, 7)],
        requests: vec![carol().ticket],
        notices: vec![Matter::AskedAgain(BOB)],
        ..Changes::default()
    };
    store.apply(&changes).unwrap();
    let tables: Vec<_> = store.db.begin_read().unwrap().list_tables().unwrap().collect();
    let filled = all_rows(&store).unwrap();
    for table in tables {
        assert!(filled.keys().any(|(name, _)| name == table.name()), "nothing is in {}", table.name());
    }
    drop(store);
    memory
}

/// Reads all that a client reads, and goes on: writes, and finds it when the home is opened again. What was there before must be
/// there as it was.
fn use_it(storage: &MemoryStorage, before: &AllRows) -> Result<(), StoreError> {
    let opened = |error| match error {
        OpenError::Store(error) => error,
        // What is no home, or one of another format or key, is not used either.
        other => StoreError::Damaged(other.to_string()),
    };
    let (store, loaded) = Store::open(&storage.into(), None, random()).map_err(opened)?;
    assert!(all_rows(&store)? == *before, "not noticed when it was read");
    let ids: Vec<_> = loaded.outbox.iter().map(|(id, _)| *id).collect();
    store.departures(&ids)?;
    store.inbox(InboxNumber(0), usize::MAX)?;
    store.notices()?;
    assert!(store.object(&ObjectId::of(OBJECT))?.as_deref() == Some(OBJECT), "an object has changed");
    store.enqueue(&mut [row(b"after it")], &numbers(NOW))?;
    let received = vec![arrival("after it")];
    let last = store.apply(&Changes { received, ..Changes::default() })?.received;
    drop(store);
    let (store, _) = Store::open(&storage.into(), None, random()).map_err(opened)?;
    let after = all_rows(&store)?;
    let stays = |(at, row): (&(String, Vec<u8>), &Vec<u8>)| at.0 == "meta" || after.get(at) == Some(row);
    assert!(before.iter().all(stays), "not noticed when it was written to");
    assert_eq!(after.len(), before.len() + 2, "one more in the outbox, and one in the inbox");
    assert_eq!(store.inbox(InboxNumber(last - 1), 10)?, [(InboxNumber(last), arrival("after it"))]);
    Ok(())
}

#[test]
fn a_flipped_bit_of_a_home_is_noticed_or_changes_nothing() {
    let home = full();
    let before = all_rows(&open(&home).0).unwrap();
    let content = home.medium().content();
    use_it(&home.fork(), &before).unwrap();
    // Most of the file is empty pages.
    let written: Vec<_> = (0..content.len()).filter(|at| content[*at] != 0).collect();
    let mut draws = Random::from_seed(1, "bit rot", 0);
    let mut below = |bound: usize| u64::from_le_bytes(draws.bytes()) as usize % bound;
    let mut noticed = 0;
    for n in 0..BITS {
        let at = if n % 4 == 0 { below(content.len()) } else { written[below(written.len())] };
        let bit = below(8);
        let mut rotten = content.clone();
        rotten[at] ^= 1 << bit;
        let rotten = home.on(Medium::holding(rotten));
        match catch_unwind(AssertUnwindSafe(|| use_it(&rotten, &before))) {
            Ok(used) => noticed += usize::from(used.is_err()),
            Err(_) => panic!("bit {bit} of byte {at} flipped: see above"),
        }
    }
    println!("{noticed} of {BITS} were noticed");
    assert!(noticed > BITS / 6, "{noticed} of {BITS} were noticed");
}
