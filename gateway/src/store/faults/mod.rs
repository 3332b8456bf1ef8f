//! Media that fail, and power that goes: what was claimed must be there afterwards, nothing may be
//! claimed that is not, and what was not claimed is either wholly there or wholly not.
//!
//! A [`Story`] is a random history, drawn from a seed. A [`MemoryStore`] says what the store must hold after each of its groups;
//! a [`RedbStore`] is told the same on a [`Medium`], and is looked at after whatever has befallen it.

mod cursors;
#[cfg(test)]
mod tests;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use thinpost_disk::medium::{Call, Medium, Replay};
use thinpost_wire::ids::{AccountKey, Position, StoreId};

pub use self::cursors::cursors;
use super::model::{self, Look, Step};
use super::samples::{device_key, roomy, secret_of};
use super::{MemoryStore, Op, RedbStore, Register, RelayTime, Store, StoreConfig, StoreError, Verdict};

/// What became of the faults of one story.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Faults that befell the store; of those of [`Story::cut`] the losses of power.
    pub tried: u64,
    /// Kills beside them, at the same calls.
    pub kills: u64,
    /// Flipped bits that the store noticed, and said so.
    pub noticed: u64,
    /// What did not hold.
    pub broken: Vec<String>,
}

impl Outcome {
    fn note(&mut self, what: &str, found: Result<(), String>) {
        self.tried += 1;
        self.note_broken(what, found);
    }

    fn note_kill(&mut self, what: &str, found: Result<(), String>) {
        self.kills += 1;
        self.note_broken(what, found);
    }

    fn note_broken(&mut self, what: &str, found: Result<(), String>) {
        self.broken.extend(found.err().map(|why| format!("{what}: {why}")));
    }
}

/// A generator (SplitMix64): a fault can be had again from its number.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

/// What is told to a store, and what it must then answer and hold.
#[derive(Debug)]
pub struct Story {
    seed: u64,
    chapters: Vec<Chapter>,
    /// What can be read before the first chapter, and after each.
    looks: Vec<Look>,
}

/// What a story makes of a medium.
struct Record {
    /// Every call to it.
    calls: Vec<Call>,
    /// How many there were when the store was open, and after each chapter.
    marks: Vec<usize>,
}

#[derive(Debug)]
enum Chapter {
    /// These ops at this time are answered so.
    Apply { ops: Vec<Op>, now: RelayTime, verdicts: Vec<Verdict> },
    /// The store is closed and opened again.
    Reopen,
}

/// Rows that a sweep of a story may remove: all.
const SWEEP_ROWS: u32 = 100_000;

impl Story {
    /// The one of this seed.
    ///
    /// # Panics
    /// When a store in memory fails.
    pub fn new(seed: u64) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        let mut runner = TestRunner::new_with_rng(Config::default(), rng);
        let steps = proptest::collection::vec(model::step(), 6..16).new_tree(&mut runner);
        let steps = steps.expect("nothing is filtered").current();

        let memory = memory();
        let mut looks = vec![look(&memory)];
        let mut chapters = Vec::new();
        let mut now = RelayTime(0);
        let mut apply = |ops: Vec<Op>, elapsed_s, looks: &mut Vec<Look>| {
            now = now.after_s(elapsed_s);
            let verdicts = memory.apply(&ops, now).expect("memory does not fail");
            looks.push(look(&memory));
            Chapter::Apply { ops, now, verdicts }
        };
        // Most of what follows would be refused otherwise.
        chapters.push(apply((0..4).map(register).collect(), 1, &mut looks));
        for step in steps {
            chapters.push(match step {
                Step::Apply(ops, elapsed_s) => apply(ops, elapsed_s, &mut looks),
                Step::Sweep(elapsed_s) => {
                    apply(vec![Op::Sweep { rows_max: SWEEP_ROWS }], elapsed_s, &mut looks)
                }
                // Restoring is no fault; it is tried out with random histories elsewhere.
                Step::Reopen | Step::Restore => {
                    looks.push(looks[looks.len() - 1].clone());
                    Chapter::Reopen
                }
            });
        }
        Self { seed, chapters, looks }
    }

    /// Loses the power after each call to the medium, and kills the relay there as well.
    pub fn cut(&self) -> Outcome {
        self.with_record(|record| self.cut_recorded(record))
    }

    /// Has each `step`-th call to the medium fail, as on a disk that is full or broken, and each one after it.
    pub fn fail(&self, step: usize) -> Outcome {
        self.with_record(|Record { marks, .. }| {
            let mut outcome = Outcome::default();
            for call in (marks[0]..marks[marks.len() - 1]).step_by(step) {
                let kind =
                    if call % (2 * step) < step { io::ErrorKind::StorageFull } else { io::ErrorKind::Other };
                outcome.note(&self.name(&format!("{kind:?} at call {call}")), self.fail_at(call, kind));
            }
            outcome
        })
    }

    /// Flips a bit of the closed store's file in so many places, one at a time. What can be read is then what was written, or
    /// the store says that it is damaged.
    pub fn rot(&self, places: u64) -> Outcome {
        self.with_record(|record| self.rot_recorded(&Replay::of(&record.calls).killed(), places))
    }

    fn rot_recorded(&self, content: &[u8], places: u64) -> Outcome {
        let mut outcome = Outcome::default();
        // Most of the file is empty pages.
        let written: Vec<_> = (0..content.len()).filter(|at| content[*at] != 0).collect();
        let mut rng = Rng(self.seed);
        for place in 0..places {
            let at =
                if place % 4 == 0 { rng.below(content.len()) } else { written[rng.below(written.len())] };
            let bit = rng.below(8);
            let mut rotten = content.to_owned();
            rotten[at] ^= 1 << bit;
            let seen = catch_unwind(AssertUnwindSafe(|| {
                open(&Medium::holding(rotten)).and_then(|store| Look::at(&store))
            }));
            let found = match seen {
                Ok(Ok(seen)) if self.looks.last() == Some(&seen) => Ok(()),
                Ok(Ok(_)) => Err("not noticed".into()),
                Ok(Err(_)) => {
                    outcome.noticed += 1;
                    Ok(())
                }
                Err(_) => Err("a panic".into()),
            };
            outcome.note(&self.name(&format!("bit {bit} of byte {at} flipped")), found);
        }
        outcome
    }

    /// What befalls what a sound medium has recorded.
    fn with_record(&self, befall: impl FnOnce(&Record) -> Outcome) -> Outcome {
        match self.record() {
            Ok(record) => befall(&record),
            Err(why) => {
                let mut outcome = Outcome::default();
                outcome.note(&self.name("on a sound medium"), Err(why));
                outcome
            }
        }
    }

    /// Tells it all to a store on a medium that does not fail.
    fn record(&self) -> Result<Record, String> {
        let medium = Medium::recording();
        let opened = || open(&medium).map_err(|error| error.to_string());
        let mut store = opened()?;
        let mut marks = vec![medium.calls()];
        for chapter in &self.chapters {
            match chapter {
                Chapter::Apply { ops, now, verdicts } => {
                    let found = store.apply(ops, *now).map_err(|error| error.to_string())?;
                    if &found != verdicts {
                        return Err(format!(
                            "{ops:?} is answered by {found:?}, and by memory with {verdicts:?}"
                        ));
                    }
                }
                Chapter::Reopen => {
                    drop(store);
                    store = opened()?;
                }
            }
            marks.push(medium.calls());
        }
        drop(store);
        Ok(Record { calls: medium.recorded(), marks })
    }

    fn cut_recorded(&self, Record { calls, marks }: &Record) -> Outcome {
        let mut outcome = Outcome::default();
        let mut replay = Replay::default();
        for (n, call) in calls.iter().enumerate() {
            replay.call(call);
            let made = n + 1;
            // A store that is not complete yet has no name.
            let Some(claimed) = marks.iter().rposition(|mark| *mark <= made) else { continue };
            let mut rng = Rng(self.seed << 32 | made as u64);
            let found = replay.lose_power(|bound| rng.below(bound));
            outcome.note(
                &self.name(&format!("power lost at call {made}")),
                self.check(found, claimed, made.is_multiple_of(4)),
            );
            outcome.note_kill(
                &self.name(&format!("killed at call {made}")),
                self.check(replay.killed(), claimed, made % 4 == 1),
            );
        }
        outcome
    }

    fn fail_at(&self, call: usize, kind: io::ErrorKind) -> Result<(), String> {
        let medium = Medium::default();
        let mut store = open(&medium).map_err(|error| error.to_string())?;
        medium.fail_from(call, kind);
        let mut claimed = 0;
        let mut error = None;
        for chapter in &self.chapters {
            match chapter {
                Chapter::Apply { ops, now, .. } => error = store.apply(ops, *now).err(),
                Chapter::Reopen => {
                    drop(store);
                    match open(&medium) {
                        Ok(opened) => store = opened,
                        Err(_) => return self.check(medium.content(), claimed, call.is_multiple_of(4)),
                    }
                }
            }
            if error.is_some() {
                break;
            }
            claimed += 1;
        }
        let Some(error) = error else {
            // Closing it fails in silence, and all was on disk before.
            return self.check(medium.content(), claimed, call.is_multiple_of(4));
        };
        let is_full = kind == io::ErrorKind::StorageFull;
        if matches!(error, StoreError::Full) != is_full {
            return Err(format!("it is said that {error}"));
        }
        // The medium is well again, and the handle stays spent.
        medium.mend();
        if !matches!(store.apply(&[], RelayTime(0)), Err(StoreError::Failed)) {
            return Err("the handle is used on".into());
        }
        drop(store);
        self.check(medium.content(), claimed, call.is_multiple_of(4))
    }

    /// That a store holds all that was claimed, and of the chapter after it all or nothing; and, if `goes_on`, that the rest can
    /// be told to it.
    fn check(&self, found: Vec<u8>, claimed: usize, goes_on: bool) -> Result<(), String> {
        catch_unwind(AssertUnwindSafe(|| self.check_quietly(found, claimed, goes_on)))
            .unwrap_or_else(|_| Err("a panic".into()))
    }

    fn check_quietly(&self, found: Vec<u8>, claimed: usize, goes_on: bool) -> Result<(), String> {
        let store = open(&Medium::holding(found)).map_err(|error| format!("it does not open: {error}"))?;
        let seen = Look::at(&store).map_err(|error| error.to_string())?;
        let after = [claimed, claimed + 1].into_iter().find(|after| self.looks.get(*after) == Some(&seen));
        let after = after.ok_or_else(|| format!("after {claimed} chapters it holds {seen:?}"))?;
        if goes_on { self.go_on(&store, after) } else { Ok(()) }
    }

    /// The chapters after this one end as if nothing had happened.
    fn go_on(&self, store: &RedbStore, after: usize) -> Result<(), String> {
        for chapter in &self.chapters[after..] {
            let Chapter::Apply { ops, now, verdicts } = chapter else { continue };
            let found = store.apply(ops, *now).map_err(|error| error.to_string())?;
            if &found != verdicts {
                return Err(format!("afterwards {ops:?} is answered by {found:?}"));
            }
        }
        let seen = Look::at(store).map_err(|error| error.to_string())?;
        if self.looks.last() == Some(&seen) { Ok(()) } else { Err(format!("in the end it holds {seen:?}")) }
    }

    fn name(&self, what: &str) -> String {
        format!("story {}, {what}", self.seed)
    }
}

fn register(n: u8) -> Op {
    let account = AccountKey([n; 32]);
    Op::Register(Register {
        account,
        device: device_key(n),
        invite: None,
        secret: secret_of(account),
        read: Position(0),
    })
}

fn memory() -> MemoryStore {
    MemoryStore::new(roomy(), StoreId([1; 8]))
}

fn look(memory: &MemoryStore) -> Look {
    Look::at(memory).expect("memory does not fail")
}

fn open(medium: &Medium) -> Result<RedbStore, StoreError> {
    // A cache of nothing, so that what is read is what the medium holds.
    RedbStore::with_backend(medium.clone(), StoreConfig { cache_bytes: 0, ..roomy() }, StoreId([1; 8]))
}
