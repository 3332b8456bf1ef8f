//! Crashes at every armed point: a talk between two people in which one of them is killed at a chosen moment
//! around a change of their disk, or loses power again and again at any call to it, in virtual time.
//!
//! The home goes on from what its medium held at that moment, as after `kill -9`, or from what the loss of power left of it: what was
//! not synced is there or not, sector by sector. Then every message must arrive
//! once and in order, receipts for all of them must come back, those that were marked read must be known to be, and
//! the two must be able to go on writing. Whatever else they had done must be as they left it: they do all that changes a home
//! (`chores`), and are armed before they know anybody.

mod chores;
mod talk;

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use thinpost_client::{MemoryStorage, MessageState};
use thinpost_disk::medium::{Medium, Replay};

use talk::Talk;

use crate::panics;

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victim {
    /// The one who writes first.
    Ann,
    /// The other one.
    Bob,
}

/// When it happens, counted from 1 in each talk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blow {
    /// A kill, at the crash point that they pass as so manieth.
    Kill(u64),
    /// Losses of power at calls to their medium, drawn from the talk's seed and this: also while they recover from the one before.
    PowerLosses(u64),
}

/// What did not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Broken {
    /// What somebody's inbox holds is not what was sent to them.
    #[error("{who} has {found:?} instead of {expected:?}")]
    Inbox {
        /// Whose inbox.
        who: &'static str,
        /// The texts that were sent to them.
        expected: Vec<String>,
        /// The texts in it.
        found: Vec<String>,
    },
    /// A message was marked read, and its sender does not know.
    #[error("{who} says that message {message}, which was read, is {state:?}")]
    Unread {
        /// Whose client.
        who: &'static str,
        /// Which of theirs.
        message: u64,
        /// What they know of it.
        state: Option<MessageState>,
    },
    /// What was done besides is not as it was left.
    #[error("{who}: {what}")]
    Undone {
        /// Whose home.
        who: &'static str,
        /// What does not hold.
        what: String,
    },
    /// Messages failed, wait, or have no receipt.
    #[error("{who} says that {failed} failed, {waiting} wait and {unconfirmed} are not confirmed")]
    Unfinished {
        /// Whose client.
        who: &'static str,
        /// Messages that failed or were abandoned.
        failed: u64,
        /// Messages in the outbox.
        waiting: u64,
        /// Messages in custody without a receipt.
        unconfirmed: u64,
    },
}

/// Strikes the victim in a talk. Returns the names of the crash points; none if the talk has fewer. Must be called within a runtime
/// whose clock is paused.
///
/// # Errors
/// What did not hold.
///
/// # Panics
/// When a home in memory fails, or outside a runtime.
pub async fn crash(seed: u64, victim: Victim, blow: Blow) -> Result<Vec<&'static str>, Broken> {
    let mut talk = Talk::new(seed, victim, blow).await;
    talk.prepare().await?;
    talk.say(0, 2).await?;
    talk.say(1, 1).await?;
    // Receipts leave alone meanwhile.
    talk.rest(Duration::from_secs(240)).await;
    talk.read(0).await?;
    talk.read(1).await?;
    talk.exchange_objects().await?;
    talk.say(1, 2).await?;
    talk.say(0, 3).await?;
    talk.rest(Duration::from_secs(20)).await;
    talk.say(0, 1).await?;
    talk.read(1).await?;
    talk.tidy().await?;
    talk.finish().await
}

/// Between two losses of power there are no more calls than one of these: some strike while a home is opened, others hours later.
const CALLS_BETWEEN_MAX: [u64; 4] = [2, 20, 200, 1_000];

/// What the crash points of one person count towards, or the calls to their medium.
struct Trap {
    blow: Blow,
    /// Which of them strikes.
    at: u64,
    /// For what is left of the disk.
    seed: u64,
    /// Whether the victim may be struck.
    armed: AtomicBool,
    passed: AtomicU64,
    storage: MemoryStorage,
    /// What was passed at the crash, what was found afterwards, and how much had panicked before.
    sprung: Mutex<Option<(&'static str, MemoryStorage, u64)>>,
}

/// The client was struck here.
struct Struck;

impl Trap {
    /// Sets one, not armed, for whoever has this home; and the same home on a medium on which it is set.
    fn set(blow: Blow, random: &mut ChaCha8Rng, home: &MemoryStorage) -> (Arc<Self>, MemoryStorage) {
        let at = match blow {
            Blow::Kill(at) => at,
            Blow::PowerLosses(_) => {
                let max = *CALLS_BETWEEN_MAX.choose(random).expect("there are some");
                random.random_range(1..=max)
            }
        };
        // It begins with one synced write.
        let medium = Medium::recording();
        medium.refill(&home.medium().content()).expect("it was not told to fail");
        let storage = home.fork().on(medium.clone());
        let trap = Arc::new(Self {
            blow,
            at,
            seed: random.random(),
            armed: AtomicBool::new(false),
            passed: AtomicU64::new(0),
            storage: storage.clone(),
            sprung: Mutex::new(None),
        });
        let calls = trap.clone();
        (trap, storage.on(medium.watched(Arc::new(move |_| calls.call()))))
    }

    fn arm(&self) {
        self.armed.store(true, Ordering::Relaxed);
    }

    fn pass(&self, name: &'static str) {
        if let Blow::Kill(_) = self.blow {
            self.strike(name, || self.storage.fork());
        }
    }

    fn call(&self) {
        if let Blow::PowerLosses(_) = self.blow {
            self.strike("power loss", || {
                let mut random = ChaCha8Rng::seed_from_u64(self.seed);
                let replay = Replay::of(&self.storage.medium().recorded());
                let found = replay.lose_power(|bound| random.random_range(0..bound));
                self.storage.fork().on(Medium::holding(found))
            });
        }
    }

    fn strike(&self, name: &'static str, find: impl FnOnce() -> MemoryStorage) {
        if !self.armed.load(Ordering::Relaxed) {
            return;
        }
        if self.passed.fetch_add(1, Ordering::Relaxed) + 1 == self.at {
            *self.sprung.lock().expect("no holder panics") = Some((name, find(), panics::seen()));
            self.storage.medium().abandon();
        }
        if self.has_sprung() {
            // Nothing that the dying client does from here on is of any account.
            resume_unwind(Box::new(Struck));
        }
    }

    fn has_sprung(&self) -> bool {
        self.sprung.lock().expect("no holder panics").is_some()
    }
}
