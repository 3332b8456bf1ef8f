//! Ordinary clients, two by two: each says something to the other at a steady pace, and waits for custody. Beside them others
//! come and go.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use thinpost_wire::token::TokenId;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use super::device::{Device, Heard, Line, Told};
use super::newcomers::Newcomer;
use super::relay::Relay;
use crate::{Profile, UdpProxy};

/// A message's length, bytes: a short sealed text.
const BODY_BYTES: usize = 120;

/// How long what is on its way at the end may take to arrive.
const REST: Duration = Duration::from_secs(120);

/// Longest wait that is told apart from others, microseconds.
const WAIT_US_MAX: u64 = 600_000_000;

/// What the clients are going through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// They settle in, which is not measured.
    Beginning,
    /// Nobody attacks.
    Quiet,
    /// Somebody does.
    Attacked,
}

/// How long messages took, and how long it took to come in: from the first packet until the mailbox is read.
#[derive(Clone, Debug)]
pub struct Waits {
    /// From submit to custody.
    pub custody: Histogram<u64>,
    /// From submit to the other client.
    pub delivery: Histogram<u64>,
    /// For devices that are known.
    pub again: Histogram<u64>,
    /// For those that come for the first time, and register.
    pub anew: Histogram<u64>,
}

impl Waits {
    fn new() -> Self {
        let histogram = Histogram::new_with_bounds(1, WAIT_US_MAX, 3).expect("the bounds are sound");
        let [custody, delivery, again, anew] = [(); 4].map(|()| histogram.clone());
        Self { custody, delivery, again, anew }
    }
}

/// What has become of what they said.
#[derive(Clone, Debug)]
pub struct Served {
    /// While nobody attacked.
    pub quiet: Waits,
    /// While somebody did.
    pub attacked: Waits,
    /// Messages in all.
    pub sent: u64,
    /// Those in custody.
    pub in_custody: u64,
    /// Those that arrived.
    pub delivered: u64,
    /// Those that arrived again.
    pub doubled: u64,
    /// Those that were refused, and why.
    pub refused: BTreeMap<String, u64>,
    /// Why clients have lost their line, each of them.
    pub lines_lost: Vec<String>,
    /// Newcomers in all.
    pub came: u64,
    /// Those that did not come in, long after the attack.
    pub kept_out: u64,
    /// Why they had to come once more, and how often.
    pub turned_away: BTreeMap<String, u64>,
}

impl Served {
    fn new() -> Self {
        let [quiet, attacked] = [(); 2].map(|()| Waits::new());
        Self {
            quiet,
            attacked,
            sent: 0,
            in_custody: 0,
            delivered: 0,
            doubled: 0,
            refused: BTreeMap::new(),
            lines_lost: Vec::new(),
            came: 0,
            kept_out: 0,
            turned_away: BTreeMap::new(),
        }
    }

    /// Whether each message is in custody and has arrived once, and everybody has come in.
    pub fn is_whole(&self) -> bool {
        let is_there = self.delivered == self.sent && self.in_custody == self.sent;
        is_there
            && self.kept_out == 0
            && self.doubled == 0
            && self.refused.is_empty()
            && self.lines_lost.is_empty()
    }

    pub(super) fn waits(&mut self, phase: u8) -> Option<&mut Waits> {
        match phase {
            1 => Some(&mut self.quiet),
            2 => Some(&mut self.attacked),
            _ => None,
        }
    }
}

/// Who they are.
#[derive(Clone, Copy, Debug)]
pub struct Group<'p> {
    /// A number of their own: groups beside each other have different ones.
    pub number: u64,
    /// Clients, an even number.
    pub clients: u64,
    /// Those who come and go.
    pub newcomers: u64,
    /// Each says something once in this time, or comes.
    pub pace: Duration,
    /// The link that each of them is behind, if any.
    pub profile: Option<&'p Profile>,
}

/// The clients, running.
pub struct Service {
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    clients: JoinSet<()>,
    newcomers: JoinSet<()>,
    /// The links they are behind.
    _proxies: Vec<UdpProxy>,
}

pub(super) struct Shared {
    phase: AtomicU8,
    began: Instant,
    served: Mutex<Served>,
}

impl Shared {
    pub(super) fn phase(&self) -> u8 {
        self.phase.load(Ordering::Relaxed)
    }

    pub(super) fn served(&self) -> MutexGuard<'_, Served> {
        self.served.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Service {
    /// Lets clients in, each behind a link of its own if there is a profile.
    ///
    /// # Errors
    /// When one of them is not let in.
    pub async fn start(relay: &Relay, group: Group<'_>, seed: u64) -> Result<Self> {
        let Group { clients: count, pace, profile, .. } = group;
        ensure!(count.is_multiple_of(2), "clients talk two by two");
        let seed = seed ^ group.number << 48;
        let shared = Arc::new(Shared {
            phase: AtomicU8::new(0),
            began: Instant::now(),
            served: Mutex::new(Served::new()),
        });
        let device = |number| Device::new(seed, number, relay.ticket());
        let mut entering = JoinSet::new();
        let mut proxies = Vec::new();
        let mut newcomers = Vec::new();
        for number in 0..count + group.newcomers {
            let via = match profile {
                Some(profile) => {
                    let proxy = UdpProxy::spawn(relay.address(), profile, seed ^ number).await?;
                    proxies.push(proxy);
                    proxies.last().map_or(relay.address(), UdpProxy::addr)
                }
                None => relay.address(),
            };
            if number >= count {
                newcomers.push(Newcomer {
                    number,
                    seed,
                    relay: relay.ticket().clone(),
                    via,
                    rng: ChaCha8Rng::seed_from_u64(seed ^ number << 32),
                    shared: shared.clone(),
                });
                continue;
            }
            let (device, other) = (device(number), device(number ^ 1).address(TokenId::personal(1)));
            entering.spawn(async move {
                let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
                let mut line = device.enter(via, socket).await.with_context(|| format!("client {number}"))?;
                let to = line.bind(other);
                anyhow::Ok((number, line, to))
            });
        }
        let (stop, stopped) = watch::channel(false);
        let (mut clients, mut coming) = (JoinSet::new(), JoinSet::new());
        // Nobody speaks before the other one has a mailbox.
        let mut all = Vec::new();
        while let Some(entered) = entering.join_next().await {
            all.push(entered??);
        }
        for (number, line, to) in all {
            let rng = ChaCha8Rng::seed_from_u64(seed ^ number << 32);
            let client = Client { number, to, line, rng, shared: shared.clone(), unsettled: BTreeMap::new() };
            clients.spawn(client.run(pace, stopped.clone()));
        }
        for newcomer in newcomers {
            coming.spawn(newcomer.run(pace, stopped.clone()));
        }
        Ok(Self { shared, stop, clients, newcomers: coming, _proxies: proxies })
    }

    /// What is said from now on counts for this.
    pub fn enter(&self, phase: Phase) {
        self.shared.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// Has them say nothing more, and waits until all of it has arrived, two minutes at most, and until whoever has come is in, or
    /// kept out.
    pub async fn finish(mut self) -> Served {
        self.stop.send_replace(true);
        let all_there = async {
            let mut look = interval_at(Instant::now(), Duration::from_millis(20));
            loop {
                look.tick().await;
                let served = self.shared.served();
                if served.delivered >= served.sent && served.in_custody >= served.sent {
                    return;
                }
            }
        };
        let _ = timeout(REST, all_there).await;
        while self.newcomers.join_next().await.is_some() {}
        self.clients.shutdown().await;
        self.shared.served().clone()
    }
}

struct Client {
    number: u64,
    to: thinpost_wire::ids::Handle,
    line: Line,
    rng: ChaCha8Rng,
    shared: Arc<Shared>,
    /// Messages that are not in custody, by frame: in which phase they were sent, and when.
    unsettled: BTreeMap<u64, (u8, Instant)>,
}

impl Client {
    async fn run(mut self, pace: Duration, mut stopped: watch::Receiver<bool>) {
        let first = Instant::now() + pace.mul_f64(self.rng.random());
        let mut tick = interval_at(first, pace);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut sequence, mut seen) = (0_u64, BTreeSet::new());
        let mut speaks = true;
        loop {
            tokio::select! {
                biased;
                _ = stopped.changed(), if speaks => speaks = false,
                _ = tick.tick(), if speaks => {
                    sequence += 1;
                    self.speak(sequence);
                }
                heard = self.line.next() => match heard {
                    Ok(heard) => self.hear(heard, &mut seen),
                    Err(error) => {
                        let lost = format!("client {}: {error}", self.number);
                        return self.shared.served().lines_lost.push(lost);
                    }
                },
            }
        }
    }

    fn speak(&mut self, sequence: u64) {
        let phase = self.shared.phase();
        let mut body = [0; BODY_BYTES];
        self.rng.fill_bytes(&mut body);
        body[0] = phase;
        body[1..9].copy_from_slice(&sequence.to_be_bytes());
        body[9..17].copy_from_slice(&(self.shared.began.elapsed().as_micros() as u64).to_be_bytes());
        let (number, _) = self.line.submit(self.to, &body);
        self.unsettled.insert(number, (phase, Instant::now()));
        self.shared.served().sent += 1;
    }

    fn hear(&mut self, heard: Heard, seen: &mut BTreeSet<u64>) {
        let mut served = self.shared.served();
        match heard {
            Heard::Settled(upto) => {
                let later = self.unsettled.split_off(&(upto + 1));
                for (phase, at) in std::mem::replace(&mut self.unsettled, later).into_values() {
                    served.in_custody += 1;
                    if let Some(waits) = served.waits(phase) {
                        waits.custody.saturating_record(at.elapsed().as_micros() as u64);
                    }
                }
            }
            Heard::Frame(Told::Delivered(body)) if body.len() == BODY_BYTES => {
                let number = |at: usize| body[at..at + 8].iter().fold(0, |n, byte| n << 8 | u64::from(*byte));
                let (sequence, at) = (number(1), Duration::from_micros(number(9)));
                if !seen.insert(sequence) {
                    served.doubled += 1;
                    return;
                }
                served.delivered += 1;
                if let Some(waits) = served.waits(body[0]) {
                    let took = self.shared.began.elapsed().saturating_sub(at);
                    waits.delivery.saturating_record(took.as_micros() as u64);
                }
            }
            Heard::Frame(Told::Refused(_, why)) => *served.refused.entry(why.to_string()).or_default() += 1,
            Heard::Frame(_) => {}
        }
    }
}
