//! Media that fail, and power that goes: what was claimed must be there afterwards, nothing may be
//! claimed that is not, and what was not claimed is either wholly there or wholly not.
//!
//! A [`Story`] is a random history, drawn from a seed. A [`MemoryStore`] says what the store must hold after each of its groups;
//! a [`RedbStore`] is told the same on a [`Medium`], and is looked at after whatever has befallen it.

mod calls;
mod cursors;
mod rot;
#[cfg(test)]
mod tests;

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use thinpost_disk::medium::{Call, Medium, Replay};
use thinpost_wire::ids::{AccountKey, Position, StoreId};

pub use self::cursors::cursors;
use super::model::{self, Look, Step};
use super::samples::{device_key, roomy, secret_of};
use super::{
    Invite, MemoryStore, Op, RedbStore, Register, RelayTime, Store, StoreConfig, StoreError, Verdict,
};

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

    /// What became of these, too.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.tried += other.tried;
        self.kills += other.kills;
        self.noticed += other.noticed;
        self.broken.extend(other.broken);
        self
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
                    put_session(&store);
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
        // One comes by an invite that others may use as well.
        invite: (n == 3).then_some(Invite { id: [n; 8], uses_max: 2 }),
        secret: secret_of(account),
        read: Position(0),
    })
}

/// Leaves a session with a store, which writes it down beside what it is told.
fn put_session(store: &RedbStore) {
    store.put_session(b"ticket", Bytes::from_static(b"session"));
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
