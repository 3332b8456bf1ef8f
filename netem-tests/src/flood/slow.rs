//! Clients at a byte a second: those that do not read what they are sent, those whose frames never come to an end, and
//! handshakes in crumbs.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use anyhow::{Result, ensure};
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, Runtime, TokioRuntime, UdpPoller};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use thinpost_gateway::store::Store;
use thinpost_wire::ids::AccountKey;
use thinpost_wire::ticket::RelayTicket;
use thinpost_wire::token::TokenId;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, Sleep, interval, sleep_until};

use super::device::{Device, Heard};
use super::initial::Crumbs;
use super::{is_most, socket};

/// Mail that waits for a client that does not read, and how long each is, bytes.
const MAIL: usize = 4;
const MAIL_BYTES: usize = 4_096;

/// A frame that never comes to its end, bytes, and how much of it leaves at once.
const ENDLESS_BYTES: usize = 60_000;
const BEGINNING_BYTES: i64 = 6_000;

/// Of a handshake in crumbs one leaves in this time.
const CRUMB_EVERY: Duration = Duration::from_secs(2);

/// Of so many clients one is a handshake in crumbs, one a frame without an end, and the others do not read.
const KINDS: u64 = 5;

/// How much there is to be of it.
#[derive(Clone, Copy, Debug)]
pub struct Flood {
    /// Clients of all three kinds.
    pub clients: u64,
    /// How many come a second.
    pub per_s: u64,
}

/// What has become of those of one kind.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fates {
    /// Those that have come.
    pub begun: u64,
    /// Those that were let in; of handshakes in crumbs, those that the relay has opened.
    pub let_in: u64,
    /// Those that the relay has ended. Who does not read is not told.
    pub ended: u64,
}

/// What has come of it, as the attackers know it.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Clients that do not read what they are sent.
    pub readers: Fates,
    /// Clients whose frame has no end.
    pub endless: Fates,
    /// Handshakes in crumbs.
    pub crumbs: Fates,
    /// Frames without an end that were taken all the same: nobody was slow.
    pub finished: u64,
    /// Whose mail nobody reads.
    pub unread: Vec<AccountKey>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Reader,
    Endless,
    Crumbs,
}

/// Runs until the end.
///
/// # Errors
/// When this machine has no more sockets.
pub async fn run(relay: &RelayTicket, flood: Flood, seed: u64, until: Instant) -> Result<Outcome> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 2);
    let mut tick = interval(Duration::from_secs(1) / flood.per_s.max(1) as u32);
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut all = JoinSet::new();
    for number in 0..flood.clients {
        tokio::select! {
            _ = tick.tick() => {}
            () = sleep_until(until) => break,
        }
        let socket = socket(&mut rng)?;
        let client_seed = seed ^ number << 16;
        let relay = relay.clone();
        match number % KINDS {
            4 => {
                let crumbs = Crumbs::new(relay.key, &mut rng)?;
                all.spawn(async move { (Kind::Crumbs, crumble(crumbs, relay, socket, until).await) });
            }
            of_five => {
                let kind = if of_five == 3 { Kind::Endless } else { Kind::Reader };
                all.spawn(async move { (kind, dawdle(kind, client_seed, relay, socket, until).await) });
            }
        }
    }
    let mut outcome = Outcome::default();
    while let Some(done) = all.join_next().await {
        let (kind, fate) = done?;
        let fates = match kind {
            Kind::Reader => &mut outcome.readers,
            Kind::Endless => &mut outcome.endless,
            Kind::Crumbs => &mut outcome.crumbs,
        };
        let fate = fate.unwrap_or(Fate::TurnedAway);
        fates.begun += 1;
        fates.let_in += u64::from(!matches!(fate, Fate::TurnedAway));
        fates.ended += u64::from(matches!(fate, Fate::Ended));
        outcome.finished += u64::from(matches!(fate, Fate::Finished));
        if let Fate::Unread(account) = fate {
            outcome.unread.push(account);
        }
    }
    Ok(outcome)
}

impl Outcome {
    /// Devices that are connected at the end, if all is as it should be.
    pub fn sessions(&self) -> u64 {
        self.readers.begun + self.endless.begun
    }

    /// Handshakes that are open at a time then: each comes to its end after 33 crumbs, 66 s.
    pub fn half_open(&self, flood: &Flood) -> u64 {
        self.crumbs.begun.min(flood.per_s * 60 / KINDS)
    }

    /// Whether the slow were slow. `store` is that of the relay, which has ended.
    ///
    /// # Errors
    /// When somebody had read their mail, or their frame was taken.
    pub fn check(&self, store: &impl Store) -> Result<()> {
        let mut with_mail = 0;
        for account in &self.unread {
            with_mail += u64::from(store.mailbox_usage(account)?.is_some_and(|usage| usage.all.entries > 0));
        }
        let unread = self.unread.len() as u64;
        ensure!(
            is_most(with_mail, unread) && is_most(unread, self.readers.begun),
            "of {} that do not read {unread} were there, and mail waits for {with_mail}",
            self.readers.begun
        );
        ensure!(self.finished == 0, "{} frames without an end were taken", self.finished);
        Ok(())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    TurnedAway,
    /// The relay had ended it.
    Ended,
    /// Its frame was taken.
    Finished,
    /// It stayed, with mail in this mailbox.
    Unread(AccountKey),
    Stayed,
}

/// Comes in like anybody, and is slow from then on.
async fn dawdle(
    kind: Kind,
    seed: u64,
    relay: RelayTicket,
    socket: UdpSocket,
    until: Instant,
) -> Result<Fate> {
    let device = Device::new(seed, 1 << 40, &relay);
    let slow = Arc::new(SlowSocket::new(TokioRuntime.wrap_udp_socket(socket)?));
    let entering = device.enter_on(relay.addresses[0], slow.clone());
    let mut line = tokio::select! {
        line = entering => match line {
            Ok(line) => line,
            Err(_) => return Ok(Fate::TurnedAway),
        },
        () = sleep_until(until) => return Ok(Fate::TurnedAway),
    };
    let to = line.bind(device.address(TokenId::personal(1)));
    let mut body = vec![0; if kind == Kind::Reader { MAIL_BYTES } else { ENDLESS_BYTES }];
    ChaCha8Rng::seed_from_u64(seed).fill_bytes(&mut body);
    if kind == Kind::Reader {
        slow.read_slowly();
        for _ in 0..MAIL {
            line.submit(to, &body);
        }
    } else {
        slow.write_slowly(BEGINNING_BYTES);
    }
    let endless = (kind == Kind::Endless).then(|| line.submit(to, &body).0);
    loop {
        tokio::select! {
            () = sleep_until(until) => {
                let is_reader = endless.is_none();
                return Ok(if is_reader { Fate::Unread(device.account()) } else { Fate::Stayed });
            }
            heard = line.next() => match heard {
                Ok(Heard::Settled(upto)) if endless.is_some_and(|number| number <= upto) => return Ok(Fate::Finished),
                Ok(_) => {}
                Err(_) => return Ok(Fate::Ended),
            },
        }
    }
}

/// Says the beginning of a handshake byte by byte, every second one, so that none of it makes sense.
async fn crumble(mut crumbs: Crumbs, relay: RelayTicket, socket: UdpSocket, until: Instant) -> Result<Fate> {
    let socket = tokio::net::UdpSocket::from_std(socket)?;
    let mut tick = interval(CRUMB_EVERY);
    let mut buffer = [0; 2_048];
    let (mut at, mut is_open) = (1, false);
    loop {
        tokio::select! {
            () = sleep_until(until) => return Ok(if is_open { Fate::Stayed } else { Fate::TurnedAway }),
            _ = tick.tick() => {
                // Anything past the first byte leaves a gap. A handshake that is looked at takes two kilobytes of them at most.
                let datagram = crumbs.datagram(at % 2_048);
                at += 2;
                socket.send_to(&datagram, relay.addresses[0]).await?;
            }
            received = socket.recv(&mut buffer) => {
                let datagram = &buffer[..received?];
                if crumbs.is_ended_by(datagram) {
                    return Ok(Fate::Ended);
                }
                is_open |= crumbs.is_answered_by(datagram);
                if crumbs.prove(datagram) {
                    // At once: the proof holds for a few seconds only.
                    tick.reset_immediately();
                }
            }
        }
    }
}

/// Which bytes may still pass in one direction; without a word all may.
#[derive(Debug)]
struct Budget {
    /// When it was counted, and what there was then.
    counted: Option<(Instant, i64)>,
}

/// Bytes a second that a slow direction passes.
const BYTES_PER_S: i64 = 1;

impl Budget {
    fn throttle(&mut self, bytes: i64) {
        self.counted = Some((Instant::now(), bytes));
    }

    fn bytes(&self) -> i64 {
        let Some((at, bytes)) = self.counted else { return i64::MAX };
        bytes + at.elapsed().as_secs() as i64 * BYTES_PER_S
    }

    fn take(&mut self, bytes: usize) {
        if let Some((_, left)) = &mut self.counted {
            *left -= bytes as i64;
        }
    }
}

/// A socket behind which a link passes a byte a second, once it is told to.
struct SlowSocket {
    inner: Arc<dyn AsyncUdpSocket>,
    reads: Mutex<(Budget, Pin<Box<Sleep>>)>,
    writes: Mutex<Budget>,
    /// Bytes that the link has swallowed.
    swallowed_bytes: AtomicU64,
}

impl SlowSocket {
    fn new(inner: Arc<dyn AsyncUdpSocket>) -> Self {
        let none = || Budget { counted: None };
        Self {
            inner,
            reads: Mutex::new((none(), Box::pin(sleep_until(Instant::now())))),
            writes: Mutex::new(none()),
            swallowed_bytes: AtomicU64::new(0),
        }
    }

    fn read_slowly(&self) {
        self.reads.lock().unwrap_or_else(PoisonError::into_inner).0.throttle(0);
    }

    fn write_slowly(&self, first_bytes: i64) {
        self.writes.lock().unwrap_or_else(PoisonError::into_inner).throttle(first_bytes);
    }
}

impl fmt::Debug for SlowSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SlowSocket").field("swallowed_bytes", &self.swallowed_bytes).finish_non_exhaustive()
    }
}

impl AsyncUdpSocket for SlowSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.inner.clone().create_io_poller()
    }

    /// What there is no room for is lost, as where a queue overflows.
    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let mut budget = self.writes.lock().unwrap_or_else(PoisonError::into_inner);
        let len = transmit.contents.len();
        if budget.bytes() < len as i64 {
            self.swallowed_bytes.fetch_add(len as u64, Ordering::Relaxed);
            return Ok(());
        }
        budget.take(len);
        self.inner.try_send(transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut reads = self.reads.lock().unwrap_or_else(PoisonError::into_inner);
        let (budget, wake) = &mut *reads;
        while budget.bytes() < 0 {
            let at = Instant::now() + Duration::from_secs((-budget.bytes() / BYTES_PER_S) as u64 + 1);
            wake.as_mut().reset(at);
            ready!(wake.as_mut().poll(cx));
        }
        let count = ready!(self.inner.poll_recv(cx, bufs, meta))?;
        budget.take(meta[..count].iter().map(|meta| meta.len).sum());
        Poll::Ready(Ok(count))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }
}
