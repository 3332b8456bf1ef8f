//! Who talks, and how each of them goes on after a crash.

use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use thinpost_client::{Client, InboxNumber, MessageId, MessageState, ReceivedContent};
use tokio::time::{Instant, sleep};

use super::{Blow, Broken, Trap, Victim};
use crate::link::derive_seed;
use crate::panics;
use crate::world::KEEPALIVE;
use crate::{Person, Profile, World};

/// The links of talks, one after another.
const LINKS: [&str; 5] = ["edge", "gprs", "hspa-lossy", "umts", "2g-rural"];

/// Everything must be over by then.
pub(super) const TALK_MAX: Duration = Duration::from_secs(24 * 3600);

pub(super) struct Talk {
    pub(super) world: World,
    pub(super) people: [Person; 2],
    /// Whom the victim alone writes to, and who has a link no longer than for that.
    pub(super) carol: Person,
    /// A stranger, who has one to make herself known.
    pub(super) eve: Person,
    pub(super) victim: usize,
    blow: Blow,
    /// For the next trap.
    random: ChaCha8Rng,
    pub(super) trap: Arc<Trap>,
    /// Where the victim was struck.
    struck: Vec<&'static str>,
    /// Whether the victim is to be connected again after a crash.
    pub(super) is_online: bool,
    /// What was sent to each.
    pub(super) sent: [Vec<String>; 2],
    /// How much of it they have marked read.
    read: [u64; 2],
    /// How much of it they have let go of.
    pub(super) released: [usize; 2],
    /// Messages that they have sent to somebody else before.
    pub(super) elsewhere: [u64; 2],
}

impl Talk {
    /// The victim has a home that nobody knows of yet, on a medium in which the trap is set.
    pub(super) async fn new(seed: u64, victim: Victim, blow: Blow) -> Self {
        let mut world = World::new(seed);
        let link = LINKS[seed as usize % LINKS.len()];
        let link = Profile::named(link).expect("a profile of this crate is sound");
        let [ann, bob, mut carol, mut eve] =
            ["ann", "bob", "carol", "eve"].map(|name| world.person(name, &link));
        let mut people = [ann, bob];
        let victim = if victim == Victim::Ann { 0 } else { 1 };
        for person in [&mut people[1 - victim], &mut carol, &mut eve] {
            person.open();
        }
        people[1 - victim].client().connect();
        let (Blow::Kill(draw) | Blow::PowerLosses(draw)) = blow;
        let mut random = ChaCha8Rng::seed_from_u64(derive_seed(seed, draw));
        let (trap, storage) = Trap::set(blow, &mut random, people[victim].storage());
        people[victim].restore(storage);
        Self {
            world,
            people,
            carol,
            eve,
            victim,
            blow,
            random,
            trap,
            struck: Vec::new(),
            is_online: false,
            sent: Default::default(),
            read: [0; 2],
            released: [0; 2],
            elsewhere: [0; 2],
        }
    }

    pub(super) fn client(&self, who: usize) -> Client {
        self.people[who].client().clone()
    }

    pub(super) fn undone(&self, who: usize, what: impl Display) -> Broken {
        Broken::Undone { who: self.people[who].name(), what: what.to_string() }
    }

    /// Has somebody's client do something, again if a crash comes in between. What a crash has not prevented may fail the second time.
    pub(super) async fn act<T, E, F>(
        &mut self,
        who: usize,
        act: impl Fn(Client) -> F,
    ) -> Result<Option<T>, Broken>
    where
        T: Send + 'static,
        E: Display + Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        let mut is_again = false;
        loop {
            match tokio::spawn(act(self.client(who))).await {
                Ok(Ok(done)) => return Ok(Some(done)),
                // It died over it, or its driver did.
                _ if who == self.victim && self.is_dying() => self.revive().await,
                Ok(Err(_)) if is_again => return Ok(None),
                Ok(Err(error)) => return Err(self.undone(who, error)),
                Err(panic) => return Err(self.undone(who, panic)),
            }
            is_again = true;
        }
    }

    /// Sends messages one after another, and whatever a crash has prevented again.
    pub(super) async fn say(&mut self, who: usize, count: usize) -> Result<(), Broken> {
        for _ in 0..count {
            let to = 1 - who;
            let text = format!("{} {}", self.people[who].name(), self.sent[to].len());
            let id = MessageId(self.elsewhere[who] + self.sent[to].len() as u64 + 1);
            self.send(who, self.people[to].name(), text.clone(), id).await?;
            self.sent[to].push(text);
            self.rest(Duration::from_millis(200)).await;
        }
        Ok(())
    }

    /// Sends a message, which is to have this id, again if a crash has prevented it.
    pub(super) async fn send(
        &mut self,
        who: usize,
        to: &'static str,
        text: String,
        id: MessageId,
    ) -> Result<(), Broken> {
        loop {
            let (client, message) = (self.client(who), text.clone().into());
            match tokio::spawn(async move { client.send(to, message).await }).await {
                Ok(Ok(sent)) if sent == id => return Ok(()),
                Ok(Ok(sent)) => return Err(self.undone(who, format!("{text:?} is message {sent}, not {id}"))),
                _ if who == self.victim && self.is_dying() => self.revive().await,
                Ok(Err(error)) => return Err(self.undone(who, error)),
                Err(panic) => return Err(self.undone(who, panic)),
            }
            // An application asks whether the one before the crash is on disk.
            let state = self.client(who).message_state(id).await;
            if state.expect("a home in memory can be read").is_some() {
                return Ok(());
            }
        }
    }

    /// Marks all that somebody has as read.
    pub(super) async fn read(&mut self, who: usize) -> Result<(), Broken> {
        let from = self.people[1 - who].name();
        let mark = move |client: Client| async move {
            let upto = client.status().await?.received;
            client.mark_read(from, upto).await.map(|()| upto)
        };
        if let Some(upto) = self.act(who, mark).await? {
            self.read[who] = upto.0;
        }
        Ok(())
    }

    /// Waits, and opens the victim's home again if it dies meanwhile.
    pub(super) async fn rest(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            sleep(Duration::from_millis(100)).await;
            self.revive().await;
        }
    }

    /// Whether the victim was struck, and is to be opened again.
    pub(super) fn is_dying(&self) -> bool {
        self.trap.has_sprung()
    }

    /// Opens the victim's home again if they were struck, and again if they are meanwhile.
    pub(super) async fn revive(&mut self) {
        while self.is_dying() {
            self.bury().await;
            self.reopen();
        }
    }

    /// Ends what is left of the victim's client; their home holds what was found after the blow.
    pub(super) async fn bury(&mut self) {
        let sprung = self.trap.sprung.lock().expect("no holder panics").clone();
        let (name, found, panicked) = sprung.expect("the victim was struck");
        self.struck.push(name);
        let person = &mut self.people[self.victim];
        person.kill().await;
        panics::forget_since(panicked);
        let (trap, storage) = Trap::set(self.blow, &mut self.random, &found);
        self.trap = trap;
        person.restore(storage);
        sleep(Duration::from_millis(2)).await;
    }

    /// Opens the victim's home after a blow. The next may strike meanwhile; a kill has no next.
    pub(super) fn reopen(&mut self) {
        if let Blow::PowerLosses(_) = self.blow {
            self.trap.arm();
        }
        let person = &mut self.people[self.victim];
        let open = || person.try_open(|builder| builder.keepalive(KEEPALIVE));
        match catch_unwind(AssertUnwindSafe(open)) {
            _ if self.is_dying() => return,
            Ok(opened) => opened.expect("what is left of a home can be opened"),
            Err(panic) => resume_unwind(panic),
        }
        if self.is_online {
            self.people[self.victim].client().connect();
        }
    }

    pub(super) async fn finish(mut self) -> Result<Vec<&'static str>, Broken> {
        let began = Instant::now();
        while !self.is_over().await && began.elapsed() < TALK_MAX {
            self.rest(Duration::from_secs(10)).await;
        }
        // Is any session stuck? And whatever might come twice has this long to do so.
        self.say(0, 1).await?;
        self.say(1, 1).await?;
        self.rest(Duration::from_secs(600)).await;
        // What is only remembered does not count. Nobody is struck from here on: the trap is in the medium of before.
        for person in &mut self.people {
            person.kill().await;
            sleep(Duration::from_millis(2)).await;
            person.open();
        }
        for who in 0..2 {
            self.check(who).await?;
        }
        self.check_chores().await?;
        Ok(self.struck)
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
        let (found, expected) = (texts(&client).await, &self.sent[who][self.released[who]..]);
        if found != expected {
            return Err(Broken::Inbox { who: name, expected: expected.to_vec(), found });
        }
        let status = client.status().await.expect("a home in memory can be read");
        for message in 1..=self.read[1 - who] {
            let message = self.elsewhere[who] + message;
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

/// What an inbox holds.
pub(super) async fn texts(client: &Client) -> Vec<String> {
    let inbox = client.inbox(InboxNumber(0), usize::MAX).await.expect("a home in memory can be read");
    let text = |content| match content {
        ReceivedContent::Text(text) => text,
        other => format!("{other:?}"),
    };
    inbox.into_iter().map(|message| text(message.content)).collect()
}
