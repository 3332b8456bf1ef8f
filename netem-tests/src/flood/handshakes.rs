//! Handshakes that come to nothing: beginnings from addresses that never answer, and devices that are let in by QUIC and then
//! say nothing.

use std::collections::VecDeque;
use std::net::UdpSocket;
use std::time::Duration;

use anyhow::{Result, ensure};
use quinn::{Runtime, TokioRuntime};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use thinpost_gateway::config::LimitsConfig;
use thinpost_wire::ticket::RelayTicket;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::device::{Device, Line};
use super::initial::{Openings, is_retry};
use super::{AMPLIFICATION_MAX, socket};

/// Beginnings leave in lots, so often a second.
const LOTS_PER_S: u64 = 50;

/// Forged addresses that listen at a time; of those before, what came until then counts. A process has some 20,000 sockets.
const OPEN_MAX: usize = 6_000;

/// How much there is to be of it.
#[derive(Clone, Copy, Debug)]
pub struct Flood {
    /// Addresses that begin a handshake and never answer.
    pub forged: u64,
    /// How many of them a second.
    pub forged_per_s: u64,
    /// Devices that complete one and say nothing.
    pub silent: u64,
    /// How many of them a second.
    pub silent_per_s: u64,
}

/// What has come of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome {
    /// Datagrams from addresses that never answered.
    pub begun: u64,
    /// Those that were answered with the relay's part of a handshake.
    pub answered: u64,
    /// Those that were asked to prove where they are.
    pub retried: u64,
    /// The most that went to one of them for each byte from there.
    pub amplification: f64,
    /// Devices that completed a handshake and said nothing.
    pub silent: u64,
    /// Those for which there was no place.
    pub turned_away: u64,
}

/// Runs until the end, at most as much as is told.
///
/// # Errors
/// When this machine has no more sockets.
pub async fn run(relay: &RelayTicket, flood: Flood, seed: u64, until: Instant) -> Result<Outcome> {
    let silent = tokio::spawn(keep_silent(relay.clone(), flood, seed, until));
    let mut outcome = forge(relay, flood, seed, until).await?;
    (outcome.silent, outcome.turned_away) = silent.await??;
    Ok(outcome)
}

/// An address that has begun a handshake.
struct Forged {
    socket: UdpSocket,
    sent_bytes: u64,
}

async fn forge(relay: &RelayTicket, flood: Flood, seed: u64, until: Instant) -> Result<Outcome> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut openings = Openings::new(relay.key, *blake3::hash(&seed.to_be_bytes()).as_bytes())?;
    let address = relay.addresses[0];
    let mut outcome = Outcome::default();
    let mut open = VecDeque::new();
    let mut tick = interval(Duration::from_secs(1) / LOTS_PER_S as u32);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut lots = 0;
    while outcome.begun < flood.forged && Instant::now() < until {
        tick.tick().await;
        lots += 1;
        let due = (flood.forged_per_s * lots / LOTS_PER_S).min(flood.forged);
        while outcome.begun < due {
            if open.len() == OPEN_MAX {
                open.pop_front().into_iter().for_each(|oldest| outcome.count(oldest));
            }
            let socket = socket(&mut rng)?;
            let opening = openings.next(address)?;
            let sent_bytes = socket.send_to(&opening, address)? as u64;
            open.push_back(Forged { socket, sent_bytes });
            outcome.begun += 1;
        }
    }
    // What the relay says again it says until it gives up.
    sleep_until(until).await;
    open.into_iter().for_each(|forged| outcome.count(forged));
    Ok(outcome)
}

/// How many completed a handshake, and how many did not.
async fn keep_silent(relay: RelayTicket, flood: Flood, seed: u64, until: Instant) -> Result<(u64, u64)> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 1);
    let mut all = JoinSet::new();
    let mut tick = interval(Duration::from_secs(1) / flood.silent_per_s.max(1) as u32);
    let mut begun = 0;
    loop {
        tokio::select! {
            () = sleep_until(until) => break,
            _ = tick.tick(), if begun < flood.silent => {
                // Far from the numbers of those who register.
                let device = Device::new(seed, u64::MAX - begun, &relay);
                begun += 1;
                let socket = TokioRuntime.wrap_udp_socket(socket(&mut rng)?)?;
                let address = relay.addresses[0];
                all.spawn(async move {
                    tokio::select! {
                        line = device.begin(address, socket) => match line {
                            Ok(line) => listen(line, until).await,
                            Err(_) => false,
                        },
                        () = sleep_until(until) => false,
                    }
                });
            }
        }
    }
    let mut silent = 0;
    while let Some(is_silent) = all.join_next().await {
        silent += u64::from(is_silent?);
    }
    Ok((silent, begun - silent))
}

/// Takes part in what QUIC has to say, or the handshake would stay half open, and says nothing. It was let in.
async fn listen(mut line: Line, until: Instant) -> bool {
    let mut is_there = true;
    loop {
        tokio::select! {
            () = sleep_until(until) => return true,
            heard = line.next(), if is_there => is_there = heard.is_ok(),
        }
    }
}

impl Outcome {
    /// What came back to an address.
    fn count(&mut self, Forged { socket, sent_bytes }: Forged) {
        let mut buffer = [0; 2_048];
        let (mut heard_bytes, mut first) = (0, None);
        while let Ok(len) = socket.recv(&mut buffer) {
            heard_bytes += len as u64;
            first.get_or_insert(is_retry(&buffer[..len]));
        }
        match first {
            Some(true) => self.retried += 1,
            Some(false) => self.answered += 1,
            None => {}
        }
        self.amplification = self.amplification.max(heard_bytes as f64 / sent_bytes as f64);
    }

    /// Devices that are connected at the end, if all is as it should be; each keeps a place for two minutes.
    pub fn sessions(&self, flood: &Flood, limits: &LimitsConfig) -> u64 {
        let begun = (self.silent + self.turned_away).min(flood.silent_per_s * 120);
        // Where none is asked to prove its address those who come first have all places.
        let of_others = limits.retry_from.max(1).min(limits.strangers_max - 1);
        begun.min((limits.strangers_max - of_others) as u64)
    }

    /// Handshakes that are open at a time then.
    pub fn half_open(&self, flood: &Flood, limits: &LimitsConfig) -> u64 {
        self.sessions(flood, limits) + self.begun.min(limits.retry_from as u64)
    }

    /// Whether each address was answered, or asked where it is, as these limits have it, and none of them was sent too much.
    /// `lost` datagrams have not reached the relay, and the flood has lasted for so many seconds.
    ///
    /// # Errors
    /// When that is not so: a relay that says nothing has not been attacked.
    pub fn check(&self, limits: &LimitsConfig, lost: u64, seconds: u64) -> Result<()> {
        ensure!(
            self.amplification > 0.0 && self.amplification <= AMPLIFICATION_MAX,
            "an address was sent {:.2} times what came from it",
            self.amplification
        );
        // The places for those who have proven nothing, as many again whenever their two minutes are over.
        let places = limits.retry_from.min(limits.strangers_max) as u64;
        let most = places * seconds.div_ceil(60);
        ensure!(self.answered <= most, "{} addresses were answered before they were proven", self.answered);
        ensure!(
            self.answered * 2 >= self.begun.min(places).saturating_sub(lost),
            "{} addresses were answered, and {places} may be",
            self.answered
        );
        // Where there is no place and none is asked where it is, it is not answered at all.
        let heard = self.answered + self.retried + lost;
        ensure!(
            limits.retry_from > limits.strangers_max || heard * 100 >= self.begun * 99,
            "of {} addresses {} were answered and {} asked where they are; {lost} datagrams were lost",
            self.begun,
            self.answered,
            self.retried
        );
        Ok(())
    }
}
