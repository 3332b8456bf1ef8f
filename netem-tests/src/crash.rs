//! Crashes at every armed point: a talk between two people in which one of them is killed at a chosen moment
//! around a change of their disk, or loses power at any call to it, in virtual time.
//!
//! The home goes on from what its medium held at that moment, as after `kill -9`, or from what the loss of power left of it: what was
//! not synced is there or not, sector by sector. Then every message must arrive
//! once and in order, receipts for all of them must come back, those that were marked read must be known to be, and
//! the two must be able to go on writing. Whatever else they had done must be as they left it: they do all that changes a home
//! (`chores`), and are armed before they know anybody.

mod chores;
mod talk;

use std::panic::resume_unwind;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use thinpost_client::{MemoryStorage, MessageState};
use thinpost_disk::medium::{Medium, Replay};

use talk::Talk;

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
    /// The loss of power, at the so manieth call to their medium.
    PowerLoss(u64),
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

/// Strikes the victim once in a talk. Returns the name of the crash point; none if the talk has fewer. Must be called within a
/// runtime whose clock is paused.
///
/// # Errors
/// What did not hold.
///
/// # Panics
/// When a home in memory fails, or outside a runtime.
pub async fn crash(seed: u64, victim: Victim, blow: Blow) -> Result<Option<&'static str>, Broken> {
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

/// What the crash points of one person count towards.
struct Trap {
    blow: Blow,
    seed: u64,
    /// Whether the victim may be struck.
    armed: AtomicBool,
    passed: AtomicU64,
    storage: MemoryStorage,
    /// What was passed at the crash, and what was found afterwards.
    sprung: Mutex<Option<(&'static str, MemoryStorage)>>,
}

/// The client was struck here.
struct Struck;

impl Trap {
    fn pass(&self, name: &'static str) {
        if let Blow::Kill(at) = self.blow {
            self.strike(name, at, || self.storage.fork());
        }
    }

    fn call(&self) {
        if let Blow::PowerLoss(at) = self.blow {
            self.strike("power loss", at, || {
                let mut random = ChaCha8Rng::seed_from_u64(self.seed << 32 | at);
                let replay = Replay::of(&self.storage.medium().recorded());
                let found = replay.lose_power(|bound| random.random_range(0..bound));
                self.storage.fork().on(Medium::holding(found))
            });
        }
    }

    fn strike(&self, name: &'static str, at: u64, find: impl FnOnce() -> MemoryStorage) {
        if !self.armed.load(Ordering::Relaxed) {
            return;
        }
        if self.passed.fetch_add(1, Ordering::Relaxed) + 1 == at {
            *self.sprung.lock().expect("no holder panics") = Some((name, find()));
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
