//! The ladder: the same day of messages on ever worse links, and where each promise ends.
//!
//! Ann is behind the link of the rung, Bob on a clean one. She writes to him now and then, her phone stays connected, and both the
//! times and the bytes are those of virtual time, so that a seed gives the same ladder again.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use thinpost_client::{Event, InboxNumber, Message, MessageId, ReceivedContent};
use tokio::time::{Instant, sleep, timeout};

use crate::profile::THIN_LINKS;
use crate::{Profile, ProfileError, World};

/// Messages of a day, one in so long on average.
pub const MESSAGES: usize = 240;
const MEAN_GAP: Duration = Duration::from_secs(360);

/// So long after the last one, what has not arrived is missing.
const PATIENCE: Duration = Duration::from_secs(24 * 3600);

/// Rungs below all links of a phone, down to those on which nobody could talk: rate in kbit/s, delay and jitter in ms, loss in % and its bursts in packets.
const BEYOND: [(&str, f64, u32, u32, u32, u32); 4] = [
    ("8 kbit/s, 40 %", 8.0, 600, 200, 40, 4),
    ("4 kbit/s, 50 %", 4.0, 800, 300, 50, 5),
    ("2 kbit/s, 60 %", 2.0, 1_200, 500, 60, 8),
    ("1 kbit/s, 80 %", 1.0, 2_000, 1_000, 80, 12),
];
/// The links of the ladder, from the best on.
///
/// # Errors
/// When a profile of this crate cannot be read.
pub fn rungs() -> Result<Vec<Profile>, ProfileError> {
    let named = THIN_LINKS.into_iter().map(Profile::named);
    let beyond = BEYOND.into_iter().map(|(name, rate, delay, jitter, loss, burst)| {
        let text = format!(
            "source = \"worse than any link of a phone\"\n[both]\nrate_kbit_s = {rate}\ndelay_ms = {delay}\n\
             jitter_ms = {jitter}\nloss_percent = {loss}\nloss_burst_packets = {burst}\nqueue_packets = 30\n"
        );
        Profile::from_toml(name, &text)
    });
    named.chain(beyond).collect()
}

/// How the day went on one link.
#[derive(Clone, Debug, PartialEq)]
pub struct Day {
    /// The link.
    pub link: String,
    /// What Bob read, if it is not what was sent: the place and the text there.
    pub wrong: Option<(usize, Option<String>)>,
    /// From writing to custody, sorted; those of which Ann never learned are missing.
    pub custody: Vec<Duration>,
    /// All that ann's link was given, both ways.
    pub ip_bytes: u64,
}

impl Day {
    /// So many percent of the messages were in custody after this time, if as many ever were.
    pub fn custody_of(&self, percent: usize) -> Option<Duration> {
        self.custody.get((MESSAGES * percent).div_ceil(100) - 1).copied()
    }

    /// IP bytes a message, all of the day's counted.
    pub fn message_bytes(&self) -> u64 {
        self.ip_bytes / MESSAGES as u64
    }
}

/// What is promised, and whether a day kept it.
type Promise = (&'static str, fn(&Day) -> bool);

/// All promises.
pub const PROMISES: [Promise; 5] = [
    ("everything arrives, once and in order", |day| day.wrong.is_none()),
    ("half is in custody within 1 s", |day| within(day, 50, 1)),
    ("19 of 20 are within 3 s", |day| within(day, 95, 3)),
    ("99 of 100 are within 10 s", |day| within(day, 99, 10)),
    ("a message takes 700 B, receipt and idle hours included", |day| day.message_bytes() <= 700),
];

fn within(day: &Day, percent: usize, seconds: u64) -> bool {
    day.custody_of(percent).is_some_and(|took| took <= Duration::from_secs(seconds))
}

/// The last rung down to which each promise was kept on every one, if any.
pub fn kept_down_to(days: &[Day]) -> Vec<(&'static str, Option<&str>)> {
    let last_kept = |is_kept: fn(&Day) -> bool| {
        days.iter().take_while(|day| is_kept(day)).last().map(|day| day.link.as_str())
    };
    PROMISES.into_iter().map(|(promise, is_kept)| (promise, last_kept(is_kept))).collect()
}

/// Lets the day pass on one link. Must be called within a runtime whose clock is paused.
///
/// # Panics
/// When a home in memory fails, or outside a runtime.
pub async fn day(link: &Profile, seed: u64) -> Day {
    let mut world = World::new(seed);
    let mut ann = world.person("ann", link);
    let mut bob = world.person("bob", &Profile::named("clean").expect("it is compiled in"));
    ann.open_with(|builder| builder);
    bob.open_with(|builder| builder);
    for (from, to) in [(&ann, &bob), (&bob, &ann)] {
        let ticket = from.client().ticket_for(to.name()).await.expect("a home in memory gives tickets");
        to.client().add_contact(from.name(), &ticket).await.expect("and takes contacts");
    }
    ann.client().connect();
    bob.client().connect();

    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let write = async {
        let mut written = BTreeMap::new();
        for n in 0..MESSAGES {
            let gap = -random.random_range(f64::MIN_POSITIVE..1.0).ln();
            sleep(MEAN_GAP.mul_f64(gap)).await;
            let message = ann.client().send("bob", Message::from(text(n))).await;
            written.insert(message.expect("a home in memory takes a message"), Instant::now());
        }
        written
    };
    let mut in_custody: BTreeMap<MessageId, Instant> = BTreeMap::new();
    let listen = async {
        let mut events = ann.client().subscribe(InboxNumber(0));
        while let Some(event) = events.next().await {
            if let Event::Custody { message, .. } = event {
                in_custody.entry(message).or_insert_with(Instant::now);
            }
        }
    };
    let mut listen = Box::pin(listen);
    let written = tokio::select! {
        written = write => written,
        () = &mut listen => unreachable!("the client is open"),
    };
    let all = async {
        while bob.client().status().await.expect("a home in memory can be read").received.0 < MESSAGES as u64
            || ann.client().status().await.expect("a home in memory can be read").waiting > 0
        {
            sleep(Duration::from_secs(10)).await;
        }
    };
    tokio::select! {
        _ = timeout(PATIENCE, all) => {}
        () = &mut listen => unreachable!("the client is open"),
    }
    drop(listen);

    let read = bob.client().inbox(InboxNumber(0), usize::MAX).await.expect("a home in memory can be read");
    let mut read = read.into_iter().map(|message| match message.content {
        ReceivedContent::Text(text) => text,
        other => format!("{other:?}"),
    });
    let wrong = (0..=MESSAGES).find_map(|n| {
        let found = read.next();
        let expected = (n < MESSAGES).then(|| text(n));
        (found != expected).then_some((n, found))
    });
    let custody = in_custody.iter().filter_map(|(message, at)| Some(*at - *written.get(message)?));
    let mut custody: Vec<Duration> = custody.collect();
    custody.sort();
    let path = world.net().counters(ann.ip());
    Day {
        link: link.name.clone(),
        wrong,
        custody,
        ip_bytes: path.up.offered.ip_bytes + path.down.offered.ip_bytes,
    }
}

fn text(n: usize) -> String {
    let texts = ["ok, see you at the market then", "я уже еду, буду через час", "¿llegó el dinero?", "no"];
    format!("{n}: {}", texts[n % texts.len()])
}
