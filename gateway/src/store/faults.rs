//! Media that fail, and power that goes: what was claimed must be there afterwards, nothing may be
//! claimed that is not, and what was not claimed is either wholly there or wholly not.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex};

use redb::StorageBackend;
use thinpost_wire::ids::{ObjectId, Position, StoreId};

use super::conformance::{ALICE, BOB, T0, append, chunk, content, open as open_object, register};
use super::{DeviceNo, Done, ObjectNo, Op, RedbStore, Refusal, Store, StoreConfig, StoreError, Verdict};

/// Bytes that a medium writes or loses as one.
const SECTOR_BYTES: usize = 512;

/// A small generator (SplitMix64), so that a failing cut can be replayed from its number.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[derive(Debug, Default)]
pub(super) struct Disk {
    /// What survives the loss of power.
    synced: Vec<u8>,
    /// What programs read: with everything written since.
    cached: Vec<u8>,
    /// Sectors written since the last sync, as (offset, content).
    unsynced: Vec<(usize, Vec<u8>)>,
    calls: u64,
    /// The call that fails, and every one after it.
    fails_at: Option<(u64, io::ErrorKind)>,
    /// Whether a sync only says that it was done.
    lies: bool,
}

/// Writes a sector, unless the file was cut shorter since.
fn put(content: &mut [u8], at: usize, sector: &[u8]) {
    if let Some(place) = content.get_mut(at..at + sector.len()) {
        place.copy_from_slice(sector);
    }
}

/// A disk in memory that counts writes, syncs and changes of length.
#[derive(Clone, Debug, Default)]
pub(super) struct Medium(Arc<Mutex<Disk>>);

impl Medium {
    fn change(&self, act: impl FnOnce(&mut Disk)) -> io::Result<()> {
        let mut disk = self.0.lock().unwrap();
        disk.calls += 1;
        match disk.fails_at {
            Some((call, kind)) if disk.calls >= call => Err(kind.into()),
            _ => {
                act(&mut disk);
                Ok(())
            }
        }
    }

    fn calls(&self) -> u64 {
        self.0.lock().unwrap().calls
    }

    fn fail_from(&self, call: Option<(u64, io::ErrorKind)>) {
        self.0.lock().unwrap().fails_at = call;
    }

    /// What is found after the power failed now: of the sectors not synced, some, in any order.
    fn after_power_loss(&self, rng: &mut Rng) -> Self {
        let disk = self.0.lock().unwrap();
        let mut found = disk.synced.clone();
        let mut unsynced: Vec<_> = disk.unsynced.iter().collect();
        for i in (1..unsynced.len()).rev() {
            unsynced.swap(i, (rng.next() % (i as u64 + 1)) as usize);
        }
        for (offset, sector) in unsynced.into_iter().filter(|_| rng.next().is_multiple_of(2)) {
            put(&mut found, *offset, sector);
        }
        let disk = Disk { synced: found.clone(), cached: found, ..Disk::default() };
        Self(Arc::new(Mutex::new(disk)))
    }
}

impl StorageBackend for Medium {
    fn len(&self) -> Result<u64, io::Error> {
        Ok(self.0.lock().unwrap().cached.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        let disk = self.0.lock().unwrap();
        let from = offset as usize;
        let content = disk.cached.get(from..from + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(content);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        // A journaling file system orders changes of length; the contents are what it does not promise.
        self.change(|disk| {
            disk.cached.resize(len as usize, 0);
            disk.synced.resize(len as usize, 0);
        })
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        self.change(|disk| {
            if !disk.lies {
                for (at, sector) in std::mem::take(&mut disk.unsynced) {
                    put(&mut disk.synced, at, &sector);
                }
            }
        })
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.change(|disk| {
            let from = offset as usize;
            disk.cached[from..from + data.len()].copy_from_slice(data);
            let mut at = from;
            for sector in data.chunks(SECTOR_BYTES) {
                disk.unsynced.push((at, sector.to_vec()));
                at += sector.len();
            }
        })
    }
}

fn open(medium: &Medium) -> Result<RedbStore, StoreError> {
    // A cache of nothing, so that what is checked is what the medium holds.
    RedbStore::with_backend(
        medium.clone(),
        StoreConfig { cache_bytes: 0, ..StoreConfig::default() },
        StoreId([1; 8]),
    )
}

fn body(sequence: u64) -> Vec<u8> {
    let mut rng = Rng(sequence);
    (0..sequence * 37 % 1_500).map(|_| rng.next() as u8).collect()
}

/// Groups of envelopes in the history; each call of each is made to fail once.
const GROUPS: u64 = 4;

/// How many ways of losing what was not synced are tried at each call; `THINPOST_FAULT_SEEDS` sets more.
fn seeds() -> u64 {
    std::env::var("THINPOST_FAULT_SEEDS").map_or(1, |seeds| seeds.parse().unwrap())
}

/// An object of the history, put in two overlapping pieces a group, and complete with the last group.
const OBJECT: ObjectNo = ObjectNo(1);
const OBJECT_BYTES: usize = 9_000;

/// Another, begun with the first group of envelopes and let go with the second.
const DROPPED: ObjectNo = ObjectNo(2);

/// How much of the object a group ends with, bytes.
fn object_end(groups_of_envelopes: u64) -> usize {
    OBJECT_BYTES * groups_of_envelopes as usize / GROUPS as usize
}

fn object_ops(group: u64) -> Vec<Op> {
    let bytes = content(OBJECT_BYTES);
    let (from, to) = (object_end(group), object_end(group + 1));
    let mut ops = vec![chunk(OBJECT, &bytes, from, to - 500), chunk(OBJECT, &bytes, to - 900, to)];
    match group {
        0 => {
            ops.push(open_object(DeviceNo(2), ObjectId([2; 32]), 5_000));
            ops.push(chunk(DROPPED, &bytes, 0, 5_000));
        }
        1 => ops.push(Op::DropObject { object: DROPPED }),
        _ if group + 1 == GROUPS => ops.push(Op::CompleteObject { object: OBJECT }),
        _ => {}
    }
    ops
}

/// The groups of a short history: two accounts, envelopes for both, settlements between them, and objects.
fn history() -> Vec<Vec<Op>> {
    let id = ObjectId::of(&content(OBJECT_BYTES));
    let first = open_object(DeviceNo(1), id, OBJECT_BYTES as u64);
    let mut groups = vec![vec![register(ALICE, 1), register(BOB, 2), first]];
    for group in 0..GROUPS {
        let mut ops: Vec<_> = (1..=4u64)
            .map(|i| {
                let sequence = group * 4 + i;
                Op::Append(append(DeviceNo(1), BOB, sequence, &body(sequence)))
            })
            .collect();
        ops.push(Op::Settle { device: DeviceNo(2), upto: Position(group * 4) });
        ops.extend(object_ops(group));
        groups.push(ops);
    }
    groups
}

/// What a run of the history was told.
#[derive(Default)]
struct Claims {
    /// How many groups were answered.
    groups: usize,
    accepted: BTreeSet<u64>,
    settled: Position,
}

impl Claims {
    fn note(&mut self, verdicts: &[Verdict]) {
        self.groups += 1;
        for verdict in verdicts {
            match verdict {
                Ok(Done::Accepted { position }) => drop(self.accepted.insert(position.0)),
                Ok(Done::Settled { cursor, .. }) => self.settled = *cursor,
                Ok(_) => {}
                Err(refusal) => panic!("refused: {refusal}"),
            }
        }
    }
}

/// Tells the history to the store, as far as it goes.
fn run(store: &RedbStore) -> (Claims, Option<StoreError>) {
    let mut claims = Claims::default();
    for ops in history() {
        match store.apply(&ops, T0) {
            Ok(verdicts) => claims.note(&verdicts),
            Err(error) => return (claims, Some(error)),
        }
    }
    (claims, None)
}

/// That a store holds all that was claimed, and of the group after it all or nothing.
fn check(store: &RedbStore, claims: &Claims, what: &str) {
    let entries = store.read(&BOB, Position(0), 1_000, usize::MAX).unwrap();
    let found: BTreeSet<u64> = entries.iter().map(|(position, _)| position.0).collect();
    let after = claims.groups;
    // Positions in this history equal sequence numbers, and each group of four settles the four before.
    let state = |groups: usize| -> BTreeSet<u64> {
        let appended = groups.saturating_sub(1) as u64 * 4;
        (appended.saturating_sub(4) + 1..=appended).collect()
    };
    assert!(found == state(after) || found == state(after + 1), "{what}: {found:?} after {after} groups");
    for lost in claims.accepted.iter().filter(|position| **position > claims.settled.0) {
        let settled_since = found == state(after + 1) && !state(after + 1).contains(lost);
        assert!(found.contains(lost) || settled_since, "{what}: {lost} is lost");
    }
    for (position, entry) in entries {
        assert_eq!(entry.body, body(position.0), "{what}: a wrong body");
    }
    check_objects(store, after, what);
}

/// That objects are where they were after so many groups, or after the next.
fn check_objects(store: &RedbStore, groups: usize, what: &str) {
    let held = store.read_object(OBJECT, 0, usize::MAX).unwrap();
    let dropped = store.read_object(DROPPED, 0, usize::MAX).unwrap();
    let counts = store.counts().unwrap();
    let found = (counts.objects, counts.object_bytes, held.len(), dropped.len());
    let state = |groups: usize| match groups {
        0 => (0, 0, 0, 0),
        1 => (1, OBJECT_BYTES as u64, 0, 0),
        2 => (2, OBJECT_BYTES as u64 + 5_000, object_end(1), 5_000),
        groups => (1, OBJECT_BYTES as u64, object_end((groups as u64 - 1).min(GROUPS)), 0),
    };
    assert!(found == state(groups) || found == state(groups + 1), "{what}: {found:?} after {groups} groups");
    assert_eq!(held, content(OBJECT_BYTES)[..held.len()], "{what}: wrong bytes");
    let complete = store.find_object(&ObjectId::of(&content(OBJECT_BYTES))).unwrap();
    assert_eq!(complete.is_some(), held.len() == OBJECT_BYTES, "{what}");
}

/// The rest of the history can be told to a reopened store, and ends as if nothing had happened.
fn finish(store: &RedbStore, what: &str) {
    for ops in history() {
        for (op, verdict) in ops.iter().zip(store.apply(&ops, T0).unwrap()) {
            // Opened a second time, what was dropped has another number.
            let was_dropped =
                matches!(op, Op::PutChunk { object: DROPPED, .. }) && verdict == Err(Refusal::UnknownObject);
            assert!(verdict.is_ok() || was_dropped, "{what}: {verdict:?}");
        }
    }
    let id = ObjectId::of(&content(OBJECT_BYTES));
    assert_eq!(store.object_digest(OBJECT).unwrap(), Some(id), "{what}: the object");
    assert!(store.find_object(&id).unwrap().is_some(), "{what}: the object is not complete");
    let found = store.read(&BOB, Position(0), 1_000, usize::MAX).unwrap();
    let last = GROUPS * 4;
    assert!(found.iter().map(|(position, _)| position.0).eq(last - 3..=last), "{what}: {found:?}");
}

/// How many calls to the medium a whole run makes, without and with those that open the store.
fn calls() -> (u64, u64) {
    let medium = Medium::default();
    let store = open(&medium).unwrap();
    let opened = medium.calls();
    assert!(run(&store).1.is_none());
    (opened, medium.calls())
}

#[test]
fn whichever_call_to_the_medium_fails_nothing_false_is_claimed_and_nothing_claimed_is_lost() {
    let (opened, all) = calls();
    assert!(all > opened + 20, "the history must reach the medium");
    for call in opened + 1..=all {
        let full = call % 2 == 0;
        let kind = if full { io::ErrorKind::StorageFull } else { io::ErrorKind::Other };
        let what = format!("{kind:?} at call {call}");
        let medium = Medium::default();
        let store = open(&medium).unwrap();
        medium.fail_from(Some((call, kind)));
        let (claims, error) = run(&store);
        let error = error.unwrap_or_else(|| panic!("{what}: not noticed"));
        assert_eq!(matches!(error, StoreError::Full), full, "{what}: {error}");
        // The medium is well again, and the handle stays spent.
        medium.fail_from(None);
        assert!(matches!(store.apply(&[], T0), Err(StoreError::Failed)), "{what}");
        drop(store);
        let store = open(&medium).unwrap_or_else(|error| panic!("{what}: {error}"));
        check(&store, &claims, &what);
        finish(&store, &what);
    }
}

#[test]
fn whenever_the_power_fails_what_was_claimed_is_found() {
    let (opened, all) = calls();
    for call in opened + 1..=all {
        for seed in 0..seeds() {
            let what = format!("power lost at call {call}, seed {seed}");
            let medium = Medium::default();
            let store = open(&medium).unwrap();
            medium.fail_from(Some((call, io::ErrorKind::Other)));
            let (claims, _) = run(&store);
            let found = medium.after_power_loss(&mut Rng(call << 32 | seed));
            let store = open(&found).unwrap_or_else(|error| panic!("{what}: {error}"));
            check(&store, &claims, &what);
            finish(&store, &what);
        }
    }
}

#[test]
fn a_medium_whose_syncs_do_nothing_is_caught_by_these_checks() {
    let caught = (0..8).any(|seed| {
        let medium = Medium::default();
        let store = open(&medium).unwrap();
        medium.0.lock().unwrap().lies = true;
        let (claims, _) = run(&store);
        let found = medium.after_power_loss(&mut Rng(seed));
        let checked = std::panic::catch_unwind(|| check(&open(&found).unwrap(), &claims, "a lying medium"));
        checked.is_err()
    });
    assert!(caught, "a store that never syncs would pass");
}
