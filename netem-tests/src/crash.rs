//! Crashes at every armed point: a talk between two people in which one of them is killed at a chosen moment
//! around a change of their disk, or loses power at any call to it, in virtual time.
//!
//! The home goes on from what its medium held at that moment, as after `kill -9`, or from what the loss of power left of it: what was
//! not synced is there or not, sector by sector. Then every message must arrive
//! once and in order, receipts for all of them must come back, those that were marked read must be known to be, and
//! the two must be able to go on writing.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use thinpost_client::{
    Client, InboxNumber, MemoryStorage, MessageId, MessageState, ReceivedContent, SendError,
};
use thinpost_disk::medium::{Medium, Replay};
use tokio::time::{Instant, sleep};

use crate::{Person, Profile, World};

/// The links of talks, one after another.
const LINKS: [&str; 5] = ["edge", "gprs", "hspa-lossy", "umts", "2g-rural"];

/// Everything must be over by then.
const TALK_MAX: Duration = Duration::from_secs(24 * 3600);

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
    talk.say(0, 2).await;
    talk.say(1, 1).await;
    // Receipts leave alone meanwhile.
    talk.rest(Duration::from_secs(240)).await;
    talk.read(0).await;
    talk.read(1).await;
    talk.say(1, 2).await;
    talk.say(0, 3).await;
    talk.rest(Duration::from_secs(20)).await;
    talk.say(0, 1).await;
    talk.read(1).await;
    talk.finish().await
}

/// What the crash points of one person count towards.
struct Trap {
    blow: Blow,
    seed: u64,
    /// The home is open.
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

struct Talk {
    _world: World,
    people: [Person; 2],
    victim: usize,
    trap: Arc<Trap>,
    crashed_at: Option<&'static str>,
    /// What was sent to each.
    sent: [Vec<String>; 2],
    /// How much of it they have marked read.
    read: [u64; 2],
}

impl Talk {
    async fn new(seed: u64, victim: Victim, blow: Blow) -> Self {
        let mut world = World::new(seed);
        let link = LINKS[seed as usize % LINKS.len()];
        let link = Profile::named(link).expect("a profile of this crate is sound");
        let mut people = [world.person("ann", &link), world.person("bob", &link)];
        for person in &mut people {
            person.open();
        }
        for (who, other) in [(0, 1), (1, 0)] {
            let [who, other] = [&people[who], &people[other]];
            let ticket = other.client().ticket_for(who.name()).await.expect("a home in memory gives tickets");
            let added = who.client().add_contact(other.name(), &ticket).await;
            added.expect("a home in memory takes a contact");
        }
        let victim = if victim == Victim::Ann { 0 } else { 1 };
        // Opened anew, with the trap in place, on a medium that begins with one synced write.
        people[victim].kill().await;
        sleep(Duration::from_millis(2)).await;
        let medium = Medium::recording();
        let storage = people[victim].storage().fork();
        medium.refill(&storage.medium().content()).expect("it was not told to fail");
        let trap = Arc::new(Trap {
            blow,
            seed,
            armed: AtomicBool::new(false),
            passed: AtomicU64::new(0),
            storage: storage.on(medium.clone()),
            sprung: Mutex::new(None),
        });
        let calls = trap.clone();
        people[victim].restore(storage.on(medium.watched(Arc::new(move |_| calls.call()))));
        let points = trap.clone();
        people[victim].open_with(|builder| builder.crash_points(Arc::new(move |name| points.pass(name))));
        trap.armed.store(true, Ordering::Relaxed);
        for person in &people {
            person.client().connect();
        }
        Self { _world: world, people, victim, trap, crashed_at: None, sent: Default::default(), read: [0; 2] }
    }

    fn client(&self, who: usize) -> Client {
        self.people[who].client().clone()
    }

    /// Sends messages one after another, and whatever a crash has prevented again.
    async fn say(&mut self, who: usize, count: usize) {
        for _ in 0..count {
            let to = 1 - who;
            let text = format!("{} {}", self.people[who].name(), self.sent[to].len());
            while !self.try_send(who, &text).await {
                self.revive().await;
                // An application asks whether the one before the crash is on disk.
                let id = MessageId(self.sent[to].len() as u64 + 1);
                let state = self.client(who).message_state(id).await;
                if state.expect("a home in memory can be read").is_some() {
                    break;
                }
            }
            self.sent[to].push(text);
            self.rest(Duration::from_millis(200)).await;
        }
    }

    /// Whether the client came back from it alive.
    async fn try_send(&mut self, who: usize, text: &str) -> bool {
        let (client, to, text) = (self.client(who), self.people[1 - who].name(), text.to_owned());
        let sending = tokio::spawn(async move { client.send(to, text.into()).await });
        match sending.await {
            Ok(Ok(_)) => true,
            Ok(Err(SendError::UnknownContact(_))) | Err(_) => false,
            Ok(Err(_)) if self.is_dying() => false,
            Ok(Err(error)) => panic!("a home in memory takes a message: {error}"),
        }
    }

    /// Marks all that somebody has as read, again if a crash comes in between.
    async fn read(&mut self, who: usize) {
        let from = self.people[1 - who].name();
        loop {
            let client = self.client(who);
            let marked = match client.status().await {
                Ok(status) => client.mark_read(from, status.received).await.map(|()| status.received),
                Err(error) => Err(error.into()),
            };
            match marked {
                Ok(upto) => return self.read[who] = upto.0,
                // The driver died with the client.
                Err(_) if self.is_dying() => self.revive().await,
                Err(error) => panic!("a home in memory can be read: {error}"),
            }
        }
    }

    /// Waits, and opens the victim's home again if it dies meanwhile.
    async fn rest(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            sleep(Duration::from_millis(100)).await;
            self.revive().await;
        }
    }

    /// Whether the victim was struck, and is to be opened again.
    fn is_dying(&self) -> bool {
        self.trap.has_sprung() && self.crashed_at.is_none()
    }

    async fn revive(&mut self) {
        let Some((name, medium)) = self.trap.sprung.lock().expect("no holder panics").clone() else { return };
        if self.crashed_at.replace(name).is_some() {
            return;
        }
        let person = &mut self.people[self.victim];
        person.kill().await;
        person.restore(medium);
        sleep(Duration::from_millis(2)).await;
        person.open().connect();
    }

    async fn finish(mut self) -> Result<Option<&'static str>, Broken> {
        let began = Instant::now();
        while !self.is_over().await && began.elapsed() < TALK_MAX {
            self.rest(Duration::from_secs(10)).await;
        }
        // Is any session stuck? And whatever might come twice has this long to do so.
        self.say(0, 1).await;
        self.say(1, 1).await;
        self.rest(Duration::from_secs(600)).await;
        for who in 0..2 {
            self.check(who).await?;
        }
        Ok(self.crashed_at)
    }

    async fn is_over(&self) -> bool {
        for who in 0..2 {
            let status = self.client(who).status().await.expect("a home in memory can be read");
            let has_all = status.received.0 >= self.sent[who].len() as u64;
            if !has_all || status.waiting + status.unconfirmed > 0 {
                return false;
            }
        }
        true
    }

    async fn check(&self, who: usize) -> Result<(), Broken> {
        let name = self.people[who].name();
        let client = self.client(who);
        let inbox = client.inbox(InboxNumber(0), usize::MAX).await.expect("a home in memory can be read");
        let text = |content| match content {
            ReceivedContent::Text(text) => text,
            other => format!("{other:?}"),
        };
        let found: Vec<_> = inbox.into_iter().map(|message| text(message.content)).collect();
        if found != self.sent[who] {
            return Err(Broken::Inbox { who: name, expected: self.sent[who].clone(), found });
        }
        let status = client.status().await.expect("a home in memory can be read");
        for message in 1..=self.read[1 - who] {
            let state = client.message_state(MessageId(message)).await.expect("a home in memory can be read");
            if state != Some(MessageState::Read) {
                return Err(Broken::Unread { who: name, message, state });
            }
        }
        let (failed, waiting) = (status.failed + status.abandoned, status.waiting);
        let unconfirmed = status.unconfirmed;
        if failed + waiting + unconfirmed > 0 {
            return Err(Broken::Unfinished { who: name, failed, waiting, unconfirmed });
        }
        Ok(())
    }
}
