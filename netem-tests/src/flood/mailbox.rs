//! Too much for one mailbox: by one sender who may write to it, by thousands of strangers, with rights that were made up, and by
//! friends each of whom keeps to their pace until it is full.

use std::collections::{BTreeMap, BTreeSet};
use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use thinpost_gateway::config::{Config, Rate};
use thinpost_gateway::store::Store;
use thinpost_wire::frame::{Refusal, ToRelay};
use thinpost_wire::ids::{AccountKey, Handle};
use thinpost_wire::ticket::RelayTicket;
use thinpost_wire::token::{MailboxAddress, Token, TokenId};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::device::{Device, Heard, Line, Told};
use super::{is_most, socket};

/// The number of the device whose mailbox is flooded, and that of the one sender; then come its friends, and far from those strangers.
const VICTIM: u64 = 1 << 41;
const STRANGERS: u64 = 1 << 42;

/// What each sends, bytes.
const BODY: [u8; 100] = [0x5a; 100];

/// Submits that a sender has on their way at a time.
const AT_ONCE: u64 = 64;

/// Of so many strangers one has made up its right.
const FORGED: u64 = 10;

/// What refusals are called here.
const TOO_FAST: &str = "too fast";
const FULL: &str = "mailbox full";
const NOT_WANTED: &str = "not wanted";

/// How much there is to be of it.
#[derive(Clone, Copy, Debug)]
pub struct Flood {
    /// Submits of the one who may.
    pub by_one: u64,
    /// Friends, who may as well, and submits of each.
    pub friends: u64,
    /// Submits of each friend: as many as it may at once.
    pub by_friend: u64,
    /// Strangers, each with an account of its own.
    pub strangers: u64,
    /// How many of them come a second.
    pub per_s: u64,
}

impl Flood {
    /// Four times as much by one as it may, and friends enough to fill what is left, and one more.
    pub fn of(config: &Config, strangers: u64, per_s: u64) -> Self {
        let burst = u64::from(config.limits.mailbox.messages_burst);
        let friends = u64::from(config.mailbox.envelopes_max).div_ceil(burst);
        Self { by_one: burst * 4, friends, by_friend: burst, strangers, per_s }
    }
}

/// What submits have come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    /// Those in custody.
    pub accepted: u64,
    /// Those refused, by reason.
    pub refused: BTreeMap<&'static str, u64>,
    /// Those that nothing was said of when the attack ended.
    pub unanswered: u64,
}

impl Answers {
    fn add(&mut self, other: Self) {
        self.accepted += other.accepted;
        self.unanswered += other.unanswered;
        for (reason, count) in other.refused {
            *self.refused.entry(reason).or_default() += count;
        }
    }

    /// Those refused for this reason.
    pub fn refused_as(&self, reason: &str) -> u64 {
        self.refused.get(reason).copied().unwrap_or(0)
    }

    /// All of them.
    pub fn count(&self) -> u64 {
        self.accepted + self.unanswered + self.refused.values().sum::<u64>()
    }
}

/// What has come of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Whose mailbox it was.
    pub victim: AccountKey,
    /// Submits of the one sender.
    pub one: Answers,
    /// How long those took.
    pub one_took: Duration,
    /// Submits of friends.
    pub friends: Answers,
    /// Strangers that were let in.
    pub strangers: u64,
    /// Submits of strangers with a right.
    pub asked: Answers,
    /// How long strangers came.
    pub asked_for: Duration,
    /// Submits of those who made it up.
    pub forged: Answers,
    /// Strangers that were not let in.
    pub turned_away: u64,
}

fn reason(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::TooFast { .. } => TOO_FAST,
        Refusal::MailboxFull => FULL,
        Refusal::NotWanted => NOT_WANTED,
        _ => "other",
    }
}

/// Runs until the end, at most as much as is told.
///
/// # Errors
/// When the victim or one who may write to it is not let in.
pub async fn run(relay: &RelayTicket, flood: Flood, seed: u64, until: Instant) -> Result<Outcome> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 3);
    let address = relay.addresses[0];
    let victim = Device::new(seed, VICTIM, relay);
    // It has a mailbox, and goes.
    drop(victim.enter(address, socket(&mut rng)?).await?);
    let mut outcome = Outcome {
        victim: victim.account(),
        one: Answers::default(),
        one_took: Duration::ZERO,
        friends: Answers::default(),
        strangers: 0,
        asked: Answers::default(),
        asked_for: Duration::ZERO,
        forged: Answers::default(),
        turned_away: 0,
    };
    let began = Instant::now();
    outcome.one = friend(0, flood.by_one, seed, &victim, relay, socket(&mut rng)?, until).await?;
    outcome.one_took = began.elapsed();

    let victim = Arc::new(victim);
    let began = Instant::now();
    let mut tick = interval(Duration::from_secs(1) / flood.per_s.max(1) as u32);
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (mut all, mut friends) = (JoinSet::new(), JoinSet::new());
    for number in 0..flood.strangers {
        tokio::select! {
            _ = tick.tick() => {}
            () = sleep_until(until) => break,
        }
        let (victim, relay, socket) = (victim.clone(), relay.clone(), socket(&mut rng)?);
        // Strangers have had their share by then: a mailbox that is full has none for them.
        if number == flood.strangers / 3 {
            let (victim, relay) = (victim.clone(), relay.clone());
            let sockets = (0..flood.friends).map(|_| super::socket(&mut rng)).collect::<Result<Vec<_>>>()?;
            friends.spawn(async move {
                let mut answers = Answers::default();
                for (number, socket) in (1..).zip(sockets) {
                    answers.add(friend(number, flood.by_friend, seed, &victim, &relay, socket, until).await?);
                }
                anyhow::Ok(answers)
            });
        }
        all.spawn(async move {
            let said = tokio::select! {
                said = stranger(number, seed, &victim, &relay, socket, until) => said.ok(),
                () = sleep_until(until) => None,
            };
            (number, said)
        });
    }
    while let Some(done) = all.join_next().await {
        let (number, said) = done?;
        outcome.strangers += u64::from(said.is_some());
        outcome.turned_away += u64::from(said.is_none());
        let answers = if is_forged(number) { &mut outcome.forged } else { &mut outcome.asked };
        answers.add(said.unwrap_or_default());
    }
    outcome.asked_for = began.elapsed();
    while let Some(answers) = friends.join_next().await {
        outcome.friends.add(answers??);
    }
    Ok(outcome)
}

/// One with a right of their own, who submits so many, and deals with refusals as one should.
async fn friend(
    number: u64,
    count: u64,
    seed: u64,
    victim: &Device,
    relay: &RelayTicket,
    socket: UdpSocket,
    until: Instant,
) -> Result<Answers> {
    let device = Device::new(seed, VICTIM + 1 + number, relay);
    let mut line = device.enter(relay.addresses[0], socket).await?;
    let to = line.bind(victim.address(TokenId::personal(number as u32 + 1)));
    let (mut answers, mut left) = (Answers::default(), count);
    while left > 0 && Instant::now() < until {
        let lot = left.min(AT_ONCE);
        left -= lot;
        answers.add(submit(&mut line, to, lot, until).await?);
        line.say(&ToRelay::Resume { to });
    }
    Ok(answers)
}

fn is_forged(number: u64) -> bool {
    number % FORGED == FORGED - 1
}

/// One who comes, says one thing, and goes. A right that is made up is one made for a person.
async fn stranger(
    number: u64,
    seed: u64,
    victim: &Device,
    relay: &RelayTicket,
    socket: UdpSocket,
    until: Instant,
) -> Result<Answers> {
    let device = Device::new(seed, STRANGERS + number, relay);
    let mut line = device.enter(relay.addresses[0], socket).await?;
    let open = victim.address(TokenId::open(1));
    let forged = MailboxAddress { token: Token([number as u8 | 0x80; 16]), ..open };
    let to = line.bind(if is_forged(number) { forged } else { open });
    submit(&mut line, to, 1, until).await
}

/// Submits so many, and waits until each is in custody or refused.
async fn submit(line: &mut Line, to: Handle, count: u64, until: Instant) -> Result<Answers> {
    // The frame of each, by the sequence that a refusal names.
    let frames: BTreeMap<u64, u64> = (0..count)
        .map(|_| {
            let (frame, sequence) = line.submit(to, &BODY);
            (sequence, frame)
        })
        .collect();
    let last = frames.values().copied().max().unwrap_or(0);
    let (mut settled, mut refused_frames) = (0, BTreeSet::new());
    let mut answers = Answers::default();
    while settled < last {
        let heard = tokio::select! {
            heard = line.next() => heard?,
            () = sleep_until(until) => break,
        };
        match heard {
            Heard::Frame(Told::Refused(sequence, why)) => {
                *answers.refused.entry(reason(&why)).or_default() += 1;
                let frame = frames.get(&sequence).context("what was not submitted was refused")?;
                ensure!(refused_frames.insert(*frame), "what was refused was refused again");
            }
            Heard::Settled(upto) => settled = upto,
            _ => {}
        }
    }
    let others = frames.values().filter(|frame| !refused_frames.contains(frame));
    answers.accepted = others.filter(|frame| **frame <= settled).count() as u64;
    answers.unanswered = count - answers.accepted - refused_frames.len() as u64;
    Ok(answers)
}

/// What a rate lets pass in this time at most.
fn at_most(rate: Rate, time: Duration) -> u64 {
    let came_back = time.as_secs_f64() / rate.period.as_secs_f64() * f64::from(rate.units.get());
    u64::from(rate.burst.get()) + came_back.ceil() as u64
}

impl Outcome {
    /// All that is in custody.
    pub fn accepted(&self) -> u64 {
        self.one.accepted + self.friends.accepted + self.asked.accepted + self.forged.accepted
    }

    /// Whether each got what is theirs, and a word for what is not. `store` is that of the relay, which has ended.
    ///
    /// # Errors
    /// When that is not so.
    pub fn check(&self, flood: &Flood, config: &Config, store: &impl Store) -> Result<()> {
        let all = [&self.one, &self.friends, &self.asked, &self.forged];
        ensure!(
            all.iter().all(|answers| !answers.refused.contains_key("other")),
            "refused otherwise: {self:?}"
        );

        let burst = u64::from(config.limits.mailbox.messages_burst);
        let pace = at_most(config.limits.mailbox.messages(), self.one_took);
        ensure!(
            self.one.count() == flood.by_one && self.one.unanswered == 0 && self.one.refused_as(TOO_FAST) > 0,
            "the one sender was not told of {} submits: {:?}",
            flood.by_one,
            self.one
        );
        ensure!(
            (burst.min(flood.by_one)..=pace).contains(&self.one.accepted),
            "of the one sender {} were taken, where {burst} to {pace} are to be",
            self.one.accepted
        );
        ensure!(self.friends.refused_as(FULL) > 0, "the mailbox was never full: {:?}", self.friends);

        let begun = self.strangers + self.turned_away;
        ensure!(
            is_most(self.strangers, begun) && begun >= FORGED,
            "of {begun} strangers {} came",
            self.strangers
        );
        let of_strangers = u64::from(config.mailbox.request_envelopes_max);
        let pace = at_most(config.limits.strangers.messages(), self.asked_for).min(of_strangers);
        ensure!(
            self.asked.accepted <= pace && is_most(self.asked.accepted, pace.min(self.asked.count() / 3)),
            "strangers put {} envelopes where {pace} may be",
            self.asked.accepted
        );
        ensure!(
            self.forged.refused_as(NOT_WANTED) > 0 && self.forged.accepted == 0,
            "rights that were made up were taken for good: {:?}",
            self.forged
        );

        let usage = store.mailbox_usage(&self.victim)?.context("the mailbox is gone")?;
        let (there, strangers) = (u64::from(usage.all.entries), u64::from(usage.requests.entries));
        let unanswered: u64 = all.iter().map(|answers| answers.unanswered).sum();
        ensure!(
            (self.accepted()..=self.accepted() + unanswered).contains(&there),
            "{} are in custody, and {there} in the mailbox",
            self.accepted()
        );
        ensure!(
            there == u64::from(config.mailbox.envelopes_max) && strangers <= of_strangers,
            "{there} envelopes are in the mailbox, {strangers} of strangers"
        );
        Ok(())
    }
}
