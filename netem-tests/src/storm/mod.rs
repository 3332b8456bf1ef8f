//! Storms: worlds from one seed in which whatever may fail does, and what must hold is checked.
//!
//! Three people on links of their own write to each other while links die, the relay is killed, stopped and
//! restarted, clients are killed and reopened, and mailboxes and rates are often too small for what is sent.
//! Some begin as strangers to each other and get tickets of their own while they talk.
//! Then the weather clears, and every message must be in its recipient's inbox: none lost, none twice,
//! and for each sender and recipient in the order of sending. One in eight may be read by the relay. In some storms the relay loses its disk,
//! too: with it what it may read, and nothing else. In some a home is opened now with a text model and now without: then what comes again
//! for that home may come late, but must come. One storm in eight has the store that a relay has, the others its model.
//! Objects must be whole, counts must only grow, what went on the air must be within a budget, and in the end nobody has
//! anything to say.

mod check;
mod faults;
mod link;
mod sent;
mod shown;

use std::fmt;
use std::time::Duration;

use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use thinpost_client::{Message, MessageId, Models, ObjectId, SendError};
use thinpost_gateway::config::{Config, Registration};
use tokio::time::{Instant, sleep};
use tracing::debug;

use crate::link::derive_seed;
use crate::models::with_greek;
use crate::world::KEEPALIVE;
use crate::{Censorship, Net, Person, Profile, World};

use self::link::draw_link;
use self::sent::{Circumstances, Sent};
use self::shown::Shown;

pub use self::check::Broken;

/// Who may live in a storm, in the order in which they come.
const NAMES: [&str; 26] = [
    "ann", "bob", "carol", "dan", "eve", "frank", "grace", "hugo", "iris", "jack", "kim", "leo", "mia",
    "noah", "olga", "paul", "quinn", "rosa", "sam", "tara", "uma", "vera", "will", "xenia", "yuri", "zoe",
];

/// How many do, unless it is said otherwise.
const PEOPLE: usize = 3;

/// When the weather has cleared, everything must arrive within this: a contact is asked after once an
/// hour at least, and each time a small mailbox takes a few.
const CLEARING: Duration = Duration::from_secs(2 * 24 * 3600);

/// When everything has arrived, receipts for it must come within this.
const RECEIPTS_WITHIN: Duration = Duration::from_secs(2 * 3600);

/// What a storm did, when everything held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Calm {
    /// Messages sent, each of which arrived once, but for what a relay could read and lost with its disk.
    pub messages: u64,
    /// How many of them were held to the order of sending.
    pub ordered: u64,
    /// Faults of links, relay and clients.
    pub faults: u64,
    /// Bytes offered to all links, both ways.
    pub air_bytes: u64,
    /// How long it took until everything had arrived.
    pub took: Duration,
}

/// What a storm is to be like. [`Weather::new`] draws all from the seed.
#[derive(Clone, Debug)]
pub struct Weather {
    /// What all is drawn from.
    pub seed: u64,
    /// Everyone's link, instead of one drawn for each.
    pub link: Option<Profile>,
    /// How many people there are, 2 to 26.
    pub people: usize,
    /// How long it lasts at least, instead of as long as is drawn.
    pub lasting: Option<Duration>,
}

impl Weather {
    /// Three people on links drawn from the seed.
    pub fn new(seed: u64) -> Self {
        Self { seed, link: None, people: PEOPLE, lasting: None }
    }

    /// The largest number of people.
    pub const PEOPLE_MAX: usize = NAMES.len();
}

/// Runs a storm. `watch` is given the network before anything happens. Must be called within a runtime whose clock is paused.
///
/// # Errors
/// What did not hold.
///
/// # Panics
/// When a home in memory fails, with fewer people than two or more than there are names, or outside a runtime.
pub async fn storm(weather: &Weather, watch: impl FnOnce(&Net)) -> Result<Calm, Broken> {
    Storm::new(weather, watch).await.run(weather).await
}

/// Whose text model comes and goes, in some storms.
const CHANGES_MODELS: usize = 1;

/// Of so many messages the relay may read one.
const VISIBLE_IN: u32 = 8;

/// In one of so many storms the relay's store is redb's.
const REDB_IN: u32 = 8;

struct Storm {
    random: ChaCha8Rng,
    /// For what was added later, so that less changes for a seed when more is.
    odd: ChaCha8Rng,
    /// For which messages the relay may read.
    visible: ChaCha8Rng,
    /// For what was added after that.
    more: ChaCha8Rng,
    world: World,
    lives: Vec<Life>,
    relay_is_up: bool,
    /// Whether the relay's disk is lost now and then.
    loses_disks: bool,
    disks_lost: u64,
    /// Whether a home is opened now with a text model more and now without. What cannot be read comes again, later.
    changes_models: bool,
    /// What each has sent to each.
    sent: Vec<Vec<Vec<Sent>>>,
    objects: Vec<Put>,
    faults: u64,
}

/// Somebody in a storm.
struct Life {
    person: Person,
    /// Whether the link is dead.
    has_outage: bool,
    /// Whether no UDP gets through, and what does not where it does.
    blocks_udp: bool,
    censorship: Censorship,
    /// Whether they want to be online.
    is_online: bool,
    /// Whether nothing can be written to their home.
    disk_is_full: bool,
    /// The last message that their home has taken.
    last: MessageId,
    /// What their client has said of itself.
    counts: LifeCounts,
    /// What their application was shown.
    shown: Shown,
}

/// What only grows.
#[derive(Clone, Copy, Default)]
struct LifeCounts {
    received: u64,
    custody: u64,
}

/// An object that somebody has handed over.
struct Put {
    who: usize,
    id: ObjectId,
    bytes: Vec<u8>,
}

impl Storm {
    async fn new(weather: &Weather, watch: impl FnOnce(&Net)) -> Self {
        let &Weather { seed, people: count, .. } = weather;
        let names = &NAMES[..count];
        assert!(count >= 2, "somebody to talk to");
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut more = ChaCha8Rng::seed_from_u64(derive_seed(seed, 3));
        let on_redb = more.random_ratio(1, REDB_IN);
        let world = World::builder().seed(seed).relay_config(config(&mut random)).on_redb(on_redb);
        let mut world = world.build();
        watch(world.net());
        let loses_disks = random.random_ratio(1, 4);
        let changes_models = random.random_ratio(1, 4);
        let mut odd = ChaCha8Rng::seed_from_u64(derive_seed(seed, 1));
        let visible = ChaCha8Rng::seed_from_u64(derive_seed(seed, 2));
        let mut lives = Vec::new();
        for name in names {
            let drawn = draw_link(&mut random, &mut odd, &mut more);
            let link = weather.link.as_ref().unwrap_or(&drawn);
            lives.push(Life {
                person: world.person(name, link),
                has_outage: false,
                blocks_udp: false,
                censorship: link.censorship,
                is_online: false,
                disk_is_full: false,
                last: MessageId(0),
                counts: LifeCounts::default(),
                shown: Shown::default(),
            });
        }
        let mut storm = Self {
            random,
            odd,
            visible,
            more,
            world,
            lives,
            relay_is_up: true,
            loses_disks,
            disks_lost: 0,
            changes_models,
            sent: vec![vec![Vec::new(); count]; count],
            objects: Vec::new(),
            faults: 0,
        };
        for who in 0..count {
            storm.open(who);
        }
        storm.introduce().await;
        storm
    }

    async fn introduce(&mut self) {
        for (who, Life { person, .. }) in self.lives.iter().enumerate() {
            for (_, Life { person: contact, .. }) in
                self.lives.iter().enumerate().filter(|(other, _)| *other != who)
            {
                let ticket = if self.random.random_ratio(1, 3) {
                    contact.client().ticket()
                } else {
                    let ticket = contact.client().ticket_for(person.name()).await;
                    ticket.expect("a home in memory gives tickets")
                };
                let added = person.client().add_contact(contact.name(), &ticket).await;
                added.expect("a home in memory takes a contact");
            }
        }
    }

    async fn run(mut self, weather: &Weather) -> Result<Calm, Broken> {
        let mut steps: i32 = self.random.random_range(20..120);
        while weather.lasting.map_or(steps > 0, |lasting| self.world.age() < lasting) {
            self.step(weather.link.is_none()).await?;
            steps -= 1;
        }
        self.clear().await;
        let began = Instant::now();
        while !self.all_arrived().await && began.elapsed() < CLEARING {
            sleep(Duration::from_secs(60)).await;
        }
        if let Some(put) = self.object_under_way().await {
            let what = "it is still on its way to the relay".to_owned();
            return Err(Broken::Object { who: NAMES[put.who], id: put.id, what });
        }
        let took = self.world.age();
        let air_bytes = self.air_bytes();
        let began = Instant::now();
        while !self.all_confirmed().await && began.elapsed() < RECEIPTS_WITHIN {
            sleep(Duration::from_secs(60)).await;
        }
        // Before anybody is opened anew, which would mend what hangs; and after that, as something may come twice.
        self.check().await?;
        let resting_bytes = self.rest().await;
        self.check().await?;
        self.check_rest(resting_bytes)?;
        self.check_objects().await?;
        self.check_budget(took, air_bytes)?;
        self.tell_of_links();
        let (messages, ordered) = (self.messages(), self.ordered());
        Ok(Calm { messages, ordered, faults: self.faults, air_bytes, took })
    }

    /// How many messages were sent.
    fn messages(&self) -> u64 {
        self.sent.iter().flatten().map(|messages| messages.len() as u64).sum()
    }

    /// How many of them were to people for whom nothing comes again later.
    fn ordered(&self) -> u64 {
        let to = |to: usize| self.sent.iter().map(move |by| by[to].len() as u64);
        (0..self.lives.len()).filter(|who| self.circumstances(*who).keeps_models).flat_map(to).sum()
    }

    /// What has befallen what was sent to somebody.
    fn circumstances(&self, to: usize) -> Circumstances {
        let keeps_models = !self.changes_models || to != CHANGES_MODELS;
        Circumstances { keeps_models, disks_lost: self.disks_lost }
    }

    /// Bytes offered to all links so far, both ways.
    fn air_bytes(&self) -> u64 {
        let counters = self.lives.iter().map(|life| self.world.net().counters(life.person.ip()));
        counters.map(|path| path.up.offered.ip_bytes + path.down.offered.ip_bytes).sum()
    }

    async fn step(&mut self, may_move: bool) -> Result<(), Broken> {
        let pause_ms = [0, 50, 1_000, 5_000, 40_000].choose(&mut self.random).copied().unwrap_or_default();
        sleep(Duration::from_millis(self.random.random_range(0..=pause_ms))).await;
        let who = self.random.random_range(0..self.lives.len());
        match self.random.random_range(0..100) {
            0..56 => self.say(who).await,
            56..60 => self.befriend(who).await,
            60..68 => self.set_outage(who, !self.lives[who].has_outage),
            68..76 => self.turn_relay().await,
            76..86 => self.kill(who).await,
            86..96 => self.set_online(who, !self.lives[who].is_online),
            _ => self.lives[who].person.client().network_changed(),
        }
        match self.odd.random_range(0..200) {
            0..4 => self.fail_relay_disk(),
            4..8 => self.fill_disk(who),
            8..14 => self.step_clock(who),
            14..18 if may_move => self.move_house(who),
            18..24 => self.put_object(who).await,
            24..28 => self.block_udp(who, !self.lives[who].blocks_udp),
            _ => {}
        }
        if self.more.random_ratio(1, 50) {
            self.step_relay_clock();
        }
        self.check_counts(who).await
    }

    async fn say(&mut self, who: usize) {
        let to = (who + self.random.random_range(1..self.lives.len())) % self.lives.len();
        for _ in 0..self.random.random_range(1..6) {
            let count = self.sent[who][to].len();
            let length =
                if self.random.random_ratio(1, 20) { 3_000 } else { self.random.random_range(0..90) };
            // What nobody can guess is shorter by the one model that knows its letters.
            let words = if self.random.random() {
                "да ".repeat(length / 3)
            } else {
                let letter =
                    |_| ['ν', 'α', 'ι', 'ο', 'χ', ' '].choose(&mut self.random).expect("there are letters");
                (0..length / 2).map(letter).collect()
            };
            let text = format!("{} to {} {count} {words}", NAMES[who], NAMES[to]);
            let is_visible = self.visible.random_ratio(1, VISIBLE_IN);
            let message = Message { relay_visible: is_visible, ..Message::from(text.as_str()) };
            if self.send(who, to, message).await {
                self.sent[who][to].push(Sent { text, is_visible, disks_lost: self.disks_lost });
            }
        }
    }

    /// Whether somebody's home has taken a message.
    async fn send(&mut self, who: usize, to: usize, message: Message) -> bool {
        let client = self.lives[who].person.client();
        let next = MessageId(self.lives[who].last.0 + 1);
        match client.send(NAMES[to], message).await {
            Ok(message) => assert_eq!(message, next, "homes number without gaps"),
            Err(SendError::Store(_)) if self.lives[who].disk_is_full => {
                debug!("a home took no message: its disk is full");
                // An application makes room, and asks.
                self.kill(who).await;
                let state = self.lives[who].person.client().message_state(next).await;
                if state.expect("a home in memory can be read").is_none() {
                    return false;
                }
            }
            Err(error) => panic!("a home in memory takes a message: {error}"),
        }
        self.lives[who].last = next;
        true
    }

    /// Somebody gets a new token from somebody, while messages may be on their way under another.
    async fn befriend(&mut self, who: usize) {
        let other = (who + self.random.random_range(1..self.lives.len())) % self.lives.len();
        let name = format!("{} {}", NAMES[who], self.random.random_range(0..3));
        if self.lives[who].disk_is_full || self.lives[other].disk_is_full {
            return;
        }
        let ticket = self.lives[other].person.client().ticket_for(&name).await;
        let token = ticket.expect("a home in memory gives tickets").token;
        let put = self.lives[who].person.client().put_token(NAMES[other], token).await;
        put.expect("a home in memory takes a token");
    }

    fn open(&mut self, who: usize) {
        // One's model comes and goes; the others have it all along, and use it.
        let has_model = self.changes_models && (who != CHANGES_MODELS || self.random.random());
        let models = if has_model { with_greek() } else { Models::compiled_in() };
        let life = &mut self.lives[who];
        let client = life.person.open_with(|builder| builder.keepalive(KEEPALIVE).models(models));
        life.shown.follow(client);
        if life.is_online {
            client.connect();
        }
    }

    fn set_online(&mut self, who: usize, online: bool) {
        let life = &mut self.lives[who];
        life.is_online = online;
        let client = life.person.client();
        if online { client.connect() } else { client.disconnect() }
    }

    async fn clear(&mut self) {
        if !self.relay_is_up {
            self.turn_relay().await;
        }
        // Its disk may have failed, or fail with the next commit.
        self.world.kill_relay();
        self.world.start_relay();
        for who in 0..self.lives.len() {
            if self.lives[who].disk_is_full {
                self.kill(who).await;
            }
            self.set_outage(who, false);
            self.block_udp(who, false);
            self.set_online(who, true);
        }
    }

    /// Whether everyone knows that all has arrived, and the relay has nothing left to hand over.
    async fn all_confirmed(&self) -> bool {
        for Life { person, .. } in &self.lives {
            let status = person.client().status().await.expect("a home in memory can be read");
            if status.unconfirmed > 0 {
                return false;
            }
        }
        self.world.store().counts().is_ok_and(|counts| counts.entries == 0)
    }

    async fn all_arrived(&self) -> bool {
        for (who, Life { person, .. }) in self.lives.iter().enumerate() {
            let status = person.client().status().await.expect("a home in memory can be read");
            let circumstances = self.circumstances(who);
            let to_come = self.sent.iter().flat_map(|by| &by[who]);
            let to_come = to_come.filter(|sent| circumstances.must_come(sent)).count();
            if status.received.0 < to_come as u64 || status.waiting > 0 {
                return false;
            }
            // Some of it may be what need not have come.
            if (self.disks_lost > 0 || !circumstances.keeps_models) && !self.has_all(who).await {
                return false;
            }
        }
        self.object_under_way().await.is_none()
    }

    /// An object that its relay does not have.
    async fn object_under_way(&self) -> Option<&Put> {
        for put in &self.objects {
            let state = self.lives[put.who].person.client().object_state(put.id).await;
            if state.expect("a home in memory can be read").is_some() {
                return Some(put);
            }
        }
        None
    }
}

/// A relay that admits everyone, and is often too small.
fn config(random: &mut ChaCha8Rng) -> Config {
    let mut config = Config::default();
    config.registration = Registration::Open;
    config.mailbox.envelopes_max = *[2, 10, 1_000].choose(random).expect("not empty");
    config.mailbox.request_envelopes_max = *[1, 3, 32].choose(random).expect("not empty");
    if random.random() {
        config.limits.mailbox.messages_burst = random.random_range(1..20);
        config.limits.mailbox.messages_per_minute = random.random_range(1..60);
    }
    if random.random_ratio(1, 4) {
        config.limits.account.messages_burst = random.random_range(1..20);
        config.limits.account.messages_per_minute = random.random_range(1..60);
    }
    config
}

impl fmt::Display for Calm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { messages, ordered, faults, air_bytes, took } = self;
        write!(
            f,
            "{messages} messages, {ordered} of them in order, {faults} faults, {air_bytes} B on the air, {:.0} s",
            took.as_secs_f64()
        )
    }
}
