//! Handshakes that come to nothing: beginnings from addresses that never answer, and devices that are let in by QUIC and then
//! say nothing.

use std::collections::VecDeque;
use std::net::UdpSocket;
use std::time::Duration;

use anyhow::{Result, ensure};
use quinn::{Runtime, TokioRuntime};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use thinpost_wire::ticket::RelayTicket;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::device::Device;
use super::initial::Openings;
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
    let (mut all, mut lines) = (JoinSet::new(), Vec::new());
    let mut tick = interval(Duration::from_secs(1) / flood.silent_per_s.max(1) as u32);
    let mut begun = 0;
    loop {
        tokio::select! {
            () = sleep_until(until) => break,
            Some(line) = all.join_next(), if !all.is_empty() => lines.extend(line?),
            _ = tick.tick(), if begun < flood.silent => {
                // Far from the numbers of those who register.
                let device = Device::new(seed, u64::MAX - begun, &relay);
                begun += 1;
                let socket = TokioRuntime.wrap_udp_socket(socket(&mut rng)?)?;
                let address = relay.addresses[0];
                all.spawn(async move { device.begin(address, socket).await.ok() });
            }
        }
    }
    Ok((lines.len() as u64, begun - lines.len() as u64))
}

impl Outcome {
    /// What came back to an address.
    fn count(&mut self, Forged { socket, sent_bytes }: Forged) {
        let mut buffer = [0; 2_048];
        let (mut heard_bytes, mut first) = (0, None);
        while let Ok(len) = socket.recv(&mut buffer) {
            heard_bytes += len as u64;
            first.get_or_insert(buffer[0]);
        }
        // The kind of a packet of QUIC's first version (RFC 9000, section 17.2).
        match first.map(|byte| byte & 0b1011_0000) {
            Some(0b1011_0000) => self.retried += 1,
            Some(_) => self.answered += 1,
            None => {}
        }
        self.amplification = self.amplification.max(heard_bytes as f64 / sent_bytes as f64);
    }

    /// Whether no address that is not proven was sent too much.
    ///
    /// # Errors
    /// When one was.
    pub fn check(&self) -> Result<()> {
        ensure!(
            self.amplification <= AMPLIFICATION_MAX,
            "an address was sent {:.2} times what came from it",
            self.amplification
        );
        Ok(())
    }
}
