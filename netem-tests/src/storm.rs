//! Storms: worlds from one seed in which whatever may fail does, and what must hold is checked.
//!
//! Three people on links of their own write to each other while links die, the relay is killed, stopped and
//! restarted, clients are killed and reopened, and mailboxes and rates are often too small for what is sent.
//! Some begin as strangers to each other and get tickets of their own while they talk.
//! Then the weather clears, and every message must be in its recipient's inbox: none lost, none twice,
//! and for each sender and recipient in the order of sending. In some storms the relay loses its disk, too, and in some
//! a home is opened now with a text model and now without: then what comes again may come late, but must come.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use thinpost_client::{InboxNumber, Message, Models, ReceivedContent, Status};
use thinpost_gateway::config::{Config, Registration};
use tokio::time::{Instant, sleep};

use crate::link::derive_seed;
use crate::models::with_greek;
use crate::profile::THIN_LINKS;
use crate::world::KEEPALIVE;
use crate::{Leg, Net, Person, Profile, ProfileError, World};

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

/// Whatever might come twice has this long to do so.
const AFTERMATH: Duration = Duration::from_secs(2 * 3600);

/// What a storm did, when everything held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Calm {
    /// Messages sent, each of which arrived once and in order.
    pub messages: u64,
    /// Faults of links, relay and clients.
    pub faults: u64,
    /// Bytes offered to all links, both ways.
    pub air_bytes: u64,
    /// How long it took until everything had arrived.
    pub took: Duration,
}

/// What did not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Broken {
    /// A message was sent and is not in the inbox.
    #[error("{0} was lost")]
    Lost(String),
    /// It is there, but where another belongs.
    #[error("{found} came where {expected} belongs")]
    OutOfPlace {
        /// What was sent as the next.
        expected: String,
        /// What stands there.
        found: String,
    },
    /// More is there than was sent.
    #[error("{0} came after everything had come")]
    Extra(String),
    /// A client says that messages failed, still wait, or were never confirmed.
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
    Storm::new(weather, watch).await.run(weather.lasting).await
}

/// Links on which something else is wrong.
const ODD_LINKS: [&str; 4] = ["censored", "mangled", "sleepy", "train"];

/// Draws somebody's link.
fn draw_link(random: &mut ChaCha8Rng, odd: &mut ChaCha8Rng) -> Result<Profile, ProfileError> {
    let name = THIN_LINKS.choose(random).expect("there are links");
    let is_odd = odd.random_ratio(1, 4);
    Profile::named(if is_odd { ODD_LINKS.choose(odd).expect("there are such links") } else { name })
}

struct Storm {
    random: ChaCha8Rng,
    /// For what was added later: what the other draws for a seed stays as it was.
    odd: ChaCha8Rng,
    world: World,
    people: Vec<Person>,
    /// Whether each person's link is dead, and whether they want to be online.
    outages: Vec<bool>,
    online: Vec<bool>,
    relay_is_up: bool,
    /// Whether the relay's disk is lost now and then.
    loses_disks: bool,
    disks_lost: u64,
    /// Whether a home is opened now with a text model more and now without. What cannot be read comes again, later.
    changes_models: bool,
    /// What each has sent to each.
    sent: Vec<Vec<Vec<String>>>,
    faults: u64,
}

impl Storm {
    async fn new(weather: &Weather, watch: impl FnOnce(&Net)) -> Self {
        let &Weather { seed, people: count, .. } = weather;
        let names = &NAMES[..count];
        assert!(count >= 2, "somebody to talk to");
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut world = World::with_config(seed, config(&mut random));
        watch(world.net());
        let loses_disks = random.random_ratio(1, 4);
        let changes_models = random.random_ratio(1, 4);
        let mut odd = ChaCha8Rng::seed_from_u64(derive_seed(seed, 1));
        let mut people = Vec::new();
        for name in names {
            let drawn = draw_link(&mut random, &mut odd).expect("the profiles of this crate are sound");
            people.push(world.person(name, weather.link.as_ref().unwrap_or(&drawn)));
        }
        let mut storm = Self {
            random,
            odd,
            world,
            people,
            outages: vec![false; count],
            online: vec![false; count],
            relay_is_up: true,
            loses_disks,
            disks_lost: 0,
            changes_models,
            sent: vec![vec![Vec::new(); count]; count],
            faults: 0,
        };
        for who in 0..count {
            storm.open(who);
        }
        storm.introduce().await;
        storm
    }

    async fn introduce(&mut self) {
        for (who, person) in self.people.iter().enumerate() {
            for (_, contact) in self.people.iter().enumerate().filter(|(other, _)| *other != who) {
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

    async fn run(mut self, lasting: Option<Duration>) -> Result<Calm, Broken> {
        let mut steps: i32 = self.random.random_range(20..120);
        while lasting.map_or(steps > 0, |lasting| self.world.age() < lasting) {
            self.step().await;
            steps -= 1;
        }
        self.clear().await;
        let began = Instant::now();
        while !self.all_arrived().await && began.elapsed() < CLEARING {
            sleep(Duration::from_secs(60)).await;
        }
        let took = self.world.age();
        sleep(AFTERMATH).await;
        self.check().await?;
        let counters = self.people.iter().map(|person| self.world.net().counters(person.ip()));
        Ok(Calm {
            messages: self.sent.iter().flatten().map(|texts| texts.len() as u64).sum(),
            faults: self.faults,
            air_bytes: counters.map(|path| path.up.offered.ip_bytes + path.down.offered.ip_bytes).sum(),
            took,
        })
    }

    async fn step(&mut self) {
        let pause_ms = [0, 50, 1_000, 5_000, 40_000].choose(&mut self.random).copied().unwrap_or_default();
        sleep(Duration::from_millis(self.random.random_range(0..=pause_ms))).await;
        let who = self.random.random_range(0..self.people.len());
        match self.random.random_range(0..100) {
            0..56 => self.say(who).await,
            56..60 => self.befriend(who).await,
            60..68 => self.set_outage(who, !self.outages[who]),
            68..76 => self.turn_relay().await,
            76..86 => self.kill(who).await,
            86..96 => self.set_online(who, !self.online[who]),
            _ => self.people[who].client().network_changed(),
        }
    }

    async fn say(&mut self, who: usize) {
        let to = (who + self.random.random_range(1..self.people.len())) % self.people.len();
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
            let sent = self.people[who].client().send(NAMES[to], Message::from(text.as_str())).await;
            sent.expect("a home in memory takes a message");
            self.sent[who][to].push(text);
        }
    }

    /// Somebody gets a new token from somebody, while messages may be on their way under another.
    async fn befriend(&mut self, who: usize) {
        let other = (who + self.random.random_range(1..self.people.len())) % self.people.len();
        let name = format!("{} {}", NAMES[who], self.random.random_range(0..3));
        let ticket = self.people[other].client().ticket_for(&name).await;
        let token = ticket.expect("a home in memory gives tickets").token;
        let put = self.people[who].client().put_token(NAMES[other], token).await;
        put.expect("a home in memory takes a token");
    }

    fn set_outage(&mut self, who: usize, outage: bool) {
        self.faults += u64::from(outage);
        self.outages[who] = outage;
        let (net, ip) = (self.world.net(), self.people[who].ip());
        if outage && self.odd.random_ratio(1, 3) {
            let leg = if self.odd.random() { Leg::Up } else { Leg::Down };
            net.set_outage_of(ip, leg, true);
        } else {
            net.set_outage(ip, outage);
        }
    }

    async fn turn_relay(&mut self) {
        if !self.relay_is_up {
            if self.loses_disks && self.random.random_ratio(1, 2) {
                self.world.lose_store();
                self.disks_lost += 1;
                self.faults += 1;
            }
            self.world.start_relay();
        } else if self.random.random() {
            self.world.kill_relay();
        } else {
            self.world.stop_relay().await;
        }
        self.faults += u64::from(self.relay_is_up);
        self.relay_is_up = !self.relay_is_up;
    }

    async fn kill(&mut self, who: usize) {
        self.faults += 1;
        self.people[who].kill().await;
        // A seeded client opened twice in one millisecond would draw the same numbers twice.
        sleep(Duration::from_millis(2)).await;
        self.open(who);
    }

    fn open(&mut self, who: usize) {
        // One's model comes and goes; the others have it all along, and use it.
        let has_model = self.changes_models && (who != 1 || self.random.random());
        let models = if has_model { with_greek() } else { Models::compiled_in() };
        let client = self.people[who].open_with(|builder| builder.keepalive(KEEPALIVE).models(models));
        if self.online[who] {
            client.connect();
        }
    }

    fn set_online(&mut self, who: usize, online: bool) {
        self.online[who] = online;
        let client = self.people[who].client();
        if online { client.connect() } else { client.disconnect() }
    }

    async fn clear(&mut self) {
        if !self.relay_is_up {
            self.turn_relay().await;
        }
        for who in 0..self.people.len() {
            self.set_outage(who, false);
            self.set_online(who, true);
        }
    }

    async fn all_arrived(&self) -> bool {
        for (who, person) in self.people.iter().enumerate() {
            let status = person.client().status().await.expect("a home in memory can be read");
            let to_come: usize = self.sent.iter().map(|by| by[who].len()).sum();
            if status.received.0 < to_come as u64 || status.waiting > 0 {
                return false;
            }
        }
        true
    }

    async fn check(&self) -> Result<(), Broken> {
        let in_order = self.disks_lost == 0 && !self.changes_models;
        for (who, person) in self.people.iter().enumerate() {
            let status = person.client().status().await.expect("a home in memory can be read");
            let Status { failed, abandoned, waiting, unconfirmed, .. } = status;
            if failed + abandoned + waiting + unconfirmed > 0 {
                let failed = failed + abandoned;
                return Err(Broken::Unfinished { who: person.name(), failed, waiting, unconfirmed });
            }
            let inbox = person.client().inbox(InboxNumber(0), usize::MAX).await;
            let mut read: Vec<Vec<String>> = vec![Vec::new(); self.people.len()];
            for message in inbox.expect("a home in memory can be read") {
                let from = NAMES.iter().position(|name| message.contact.as_deref() == Some(*name));
                let text = match message.content {
                    ReceivedContent::Text(text) => text,
                    other => format!("{other:?}"),
                };
                match from {
                    Some(from) => read[from].push(text),
                    None => return Err(Broken::Extra(text)),
                }
            }
            for (from, read) in read.into_iter().enumerate() {
                compare(&self.sent[from][who], read, in_order)?;
            }
        }
        Ok(())
    }
}

fn compare(sent: &[String], mut read: Vec<String>, in_order: bool) -> Result<(), Broken> {
    if !in_order {
        // What was never sent, or was read already, goes to the end.
        let mut places: BTreeMap<_, _> = sent.iter().zip(0..).collect();
        read.sort_by_cached_key(|text| places.remove(text).unwrap_or(usize::MAX));
    }
    for (place, expected) in sent.iter().enumerate() {
        match read.get(place) {
            Some(found) if found == expected => {}
            Some(found) if read.contains(expected) => {
                let [expected, found] = [expected, found].map(|text| short(text));
                return Err(Broken::OutOfPlace { expected, found });
            }
            _ => return Err(Broken::Lost(short(expected))),
        }
    }
    read.get(sent.len()).map_or(Ok(()), |extra| Err(Broken::Extra(short(extra))))
}

fn short(text: &str) -> String {
    format!("{:?}", text.chars().take(24).collect::<String>())
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
        let Self { messages, faults, air_bytes, took } = self;
        write!(
            f,
            "{messages} messages, {faults} faults, {air_bytes} B on the air, {:.0} s",
            took.as_secs_f64()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checker_tells_what_is_wrong() {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let sent = texts(&["a", "b", "c"]);
        for in_order in [true, false] {
            let compare = |read: &[&str]| compare(&sent, texts(read), in_order);
            assert_eq!(compare(&["a", "b", "c"]), Ok(()));
            assert_eq!(compare(&["a", "c"]), Err(Broken::Lost("\"b\"".to_owned())));
            assert_eq!(compare(&["a", "b", "c", "c"]), Err(Broken::Extra("\"c\"".to_owned())));
            assert!(compare(&["a", "a", "b", "c"]).is_err(), "a repeat in the middle");
            let swapped = compare(&["b", "a", "c"]);
            let expected = Broken::OutOfPlace { expected: "\"a\"".into(), found: "\"b\"".into() };
            assert_eq!(swapped, if in_order { Err(expected) } else { Ok(()) });
        }
    }
}
