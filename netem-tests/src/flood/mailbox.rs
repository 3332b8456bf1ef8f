//! Too much for one mailbox: by one sender who may write to it, then by thousands of strangers, and with rights that were made
//! up.

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use thinpost_wire::frame::Refusal;
use thinpost_wire::ids::Handle;
use thinpost_wire::ticket::RelayTicket;
use thinpost_wire::token::{MailboxAddress, Token, TokenId};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::device::{Device, Heard, Line, Told};
use super::socket;

/// The number of the device whose mailbox is flooded, and that of its friend; strangers count from there.
const VICTIM: u64 = 1 << 41;

/// What each sends, bytes.
const BODY: [u8; 100] = [0x5a; 100];

/// Submits that the one sender has on their way at a time.
const AT_ONCE: usize = 64;

/// How much there is to be of it.
#[derive(Clone, Copy, Debug)]
pub struct Flood {
    /// Submits of the one who may.
    pub by_one: u64,
    /// Strangers, each with an account of its own.
    pub strangers: u64,
    /// How many of them come a second.
    pub per_s: u64,
}

/// What has come of it.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Of the one sender: accepted, and refused by reason.
    pub accepted: u64,
    /// Why submits of the one sender were refused, and how many.
    pub refused: BTreeMap<&'static str, u64>,
    /// Strangers that were let in.
    pub strangers: u64,
    /// Submits of strangers that were accepted.
    pub strangers_accepted: u64,
    /// Why those of others were refused, and how many.
    pub strangers_refused: BTreeMap<&'static str, u64>,
    /// Strangers that were not let in.
    pub turned_away: u64,
}

fn reason(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::TooFast { .. } => "too fast",
        Refusal::MailboxFull => "mailbox full",
        Refusal::NotWanted => "not wanted",
        _ => "other",
    }
}

/// Runs until the end, at most as much as is told.
///
/// # Errors
/// When the victim or the one sender is not let in.
pub async fn run(relay: &RelayTicket, flood: Flood, seed: u64, until: Instant) -> Result<Outcome> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 3);
    let address = relay.addresses[0];
    let victim = Device::new(seed, VICTIM, relay);
    // It has a mailbox, and goes.
    drop(victim.enter(address, socket(&mut rng)?).await?);
    let friend = Device::new(seed, VICTIM + 1, relay);
    let mut line = friend.enter(address, socket(&mut rng)?).await?;
    let to = line.bind(victim.address(TokenId::personal(1)));
    let mut outcome = Outcome::default();
    let mut left = flood.by_one;
    while left > 0 && Instant::now() < until {
        let count = left.min(AT_ONCE as u64);
        left -= count;
        let refused = submit(&mut line, to, count, until).await?;
        outcome.accepted += count - refused.values().sum::<u64>();
        for (reason, count) in refused {
            *outcome.refused.entry(reason).or_default() += count;
        }
        // It deals with refusals as it should, and goes on.
        line.say(&thinpost_wire::frame::ToRelay::Resume { to });
    }
    let victim = Arc::new(victim);
    let mut tick = interval(Duration::from_secs(1) / flood.per_s.max(1) as u32);
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut all = JoinSet::new();
    for number in 0..flood.strangers {
        tokio::select! {
            _ = tick.tick() => {}
            () = sleep_until(until) => break,
        }
        let (victim, relay, socket) = (victim.clone(), relay.clone(), socket(&mut rng)?);
        all.spawn(async move {
            tokio::select! {
                said = stranger(number, seed, &victim, &relay, socket, until) => said.ok(),
                () = sleep_until(until) => None,
            }
        });
    }
    while let Some(done) = all.join_next().await {
        match done? {
            Some(refused) => {
                outcome.strangers += 1;
                match refused {
                    Some(reason) => *outcome.strangers_refused.entry(reason).or_default() += 1,
                    None => outcome.strangers_accepted += 1,
                }
            }
            None => outcome.turned_away += 1,
        }
    }
    Ok(outcome)
}

/// One who comes, says one thing, and goes. Every tenth has made up its right, one made for a person. Why it was refused, if it was.
async fn stranger(
    number: u64,
    seed: u64,
    victim: &Device,
    relay: &RelayTicket,
    socket: UdpSocket,
    until: Instant,
) -> Result<Option<&'static str>> {
    let device = Device::new(seed, VICTIM + 2 + number, relay);
    let mut line = device.enter(relay.addresses[0], socket).await?;
    let open = victim.address(TokenId::open(1));
    let forged = MailboxAddress { token: Token([number as u8 | 0x80; 16]), ..open };
    let to = line.bind(if number % 10 == 9 { forged } else { open });
    let refused = submit(&mut line, to, 1, until).await?;
    Ok(refused.into_keys().next())
}

/// Submits so many, and waits until each is in custody or refused. Why some were refused.
async fn submit(
    line: &mut Line,
    to: Handle,
    count: u64,
    until: Instant,
) -> Result<BTreeMap<&'static str, u64>> {
    let mut last = 0;
    for _ in 0..count {
        (last, _) = line.submit(to, &BODY);
    }
    let mut refused = BTreeMap::new();
    loop {
        let heard = tokio::select! {
            heard = line.next() => heard?,
            () = sleep_until(until) => return Ok(refused),
        };
        match heard {
            Heard::Frame(Told::Refused(_, why)) => *refused.entry(reason(&why)).or_default() += 1,
            Heard::Settled(upto) if upto >= last => return Ok(refused),
            _ => {}
        }
    }
}

impl Outcome {
    /// Whether the mailbox took what is its share, of strangers in particular, and refused the rest with a word.
    ///
    /// # Errors
    /// When it did not. `strangers_max` is what the configuration lets strangers put there.
    pub fn check(&self, flood: &Flood, strangers_max: u64) -> Result<()> {
        let refused: u64 = self.refused.values().sum();
        ensure!(self.accepted + refused <= flood.by_one, "more answers than submits");
        ensure!(
            self.strangers_accepted <= strangers_max,
            "strangers put {} envelopes where {strangers_max} may be",
            self.strangers_accepted
        );
        let forged = self.strangers_refused.get("not wanted").copied().unwrap_or(0);
        ensure!(self.strangers < 10 || forged > 0, "rights that were made up were taken for good");
        let others = self.refused.contains_key("other") || self.strangers_refused.contains_key("other");
        ensure!(!others, "refusals that say nothing of a quota: {self:?}");
        Ok(())
    }
}
