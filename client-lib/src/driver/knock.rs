//! Asks for a few bytes whether a relay can be reached at all.
//!
//! A packet of a connection that nobody knows is answered with a stateless reset (RFC 9000, section 10.3). So a packet of
//! random bytes from a fresh socket, 43 instead of the 1,200 of a handshake, tells whether the path is open while the
//! present connection is silent, or a handshake is not answered.

use std::future::{pending, poll_fn};
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

use quinn::AsyncUdpSocket;
use quinn::udp::{RecvMeta, Transmit};
use tokio::time::Instant;

use super::Driver;
use crate::network::{Meter, Metered, Network};
use crate::random::Random;

/// Bytes of a knock: the answer is one shorter, and must be at least 21 (RFC 9000, section 10.3).
const KNOCK_BYTES: usize = 43;

/// The first two bits of a packet that belongs to a connection (RFC 9000, section 17.3.1).
const SHORT_HEADER: u8 = 0b0100_0000;

/// Knocks begin when a handshake was not answered for so many round trips: the first repeats tell more of an isolated loss.
const PATIENCE_ROUND_TRIPS: u32 = 5;

/// The next knock leaves when this part of the silence has passed since the last, as polls do on a link.
const KNOCKS_IN_SILENCE: u32 = 16;

#[derive(Debug)]
pub(super) struct Knock {
    socket: Metered,
    remote: SocketAddr,
}

impl Knock {
    /// Knocks once.
    pub(super) fn at(
        remote: SocketAddr,
        network: &dyn Network,
        meter: Arc<Meter>,
        random: &mut Random,
    ) -> io::Result<Self> {
        let (socket, _) = network.bind(remote)?;
        let knock = Self { socket: Metered { socket, meter }, remote };
        knock.again(random)?;
        Ok(knock)
    }

    /// Knocks once more: an answer to either counts.
    fn again(&self, random: &mut Random) -> io::Result<()> {
        let mut contents: Vec<u8> = random.bytes::<KNOCK_BYTES>().into();
        contents[0] = SHORT_HEADER | contents[0] & 0b0011_1111;
        let transmit = Transmit {
            destination: self.remote,
            ecn: None,
            contents: &contents,
            segment_size: None,
            src_ip: None,
        };
        self.socket.try_send(&transmit)
    }

    /// Waits until something comes from there.
    pub(super) async fn answered(&self) -> io::Result<()> {
        poll_fn(|cx| {
            loop {
                let mut bytes = [0; 64];
                let mut meta = [RecvMeta::default()];
                let received =
                    ready!(self.socket.poll_recv(cx, &mut [IoSliceMut::new(&mut bytes)], &mut meta))?;
                if received > 0 && meta[0].addr == self.remote {
                    return Poll::Ready(Ok(()));
                }
            }
        })
        .await
    }
}

/// The knocks of one attempt to connect.
#[derive(Debug)]
pub(super) struct Knocks {
    rtt: Duration,
    /// How long nothing must have been heard. It doubles with each answer: there may be paths that let knocks pass, and no
    /// packet of a handshake.
    patience: Duration,
    knock: Option<Knock>,
    last: Option<Instant>,
}

impl Knocks {
    /// None yet, where a round trip is believed to take so long.
    pub(super) fn new(rtt: Duration) -> Self {
        Self { rtt, patience: rtt * PATIENCE_ROUND_TRIPS, knock: None, last: None }
    }

    /// When to look after them, while nothing was heard for so long of a handshake that was repeated.
    pub(super) fn due(&self, unheard: Option<Duration>) -> Instant {
        let now = Instant::now();
        let Some(unheard) = unheard else { return now + self.rtt };
        let first = now + self.patience.saturating_sub(unheard);
        let next = self.last.map(|last| last + (unheard / KNOCKS_IN_SILENCE).max(self.rtt));
        first.max(next.unwrap_or(first))
    }

    /// Knocks if it is time to. Where there is no socket, nobody can be heard either.
    pub(super) fn knock_if_due(&mut self, unheard: Option<Duration>, driver: &mut Driver) {
        if unheard.is_none() {
            (self.knock, self.last) = (None, None);
        } else if self.due(unheard) <= Instant::now() {
            self.last = Some(Instant::now());
            match &self.knock {
                Some(knock) => drop(knock.again(&mut driver.random)),
                None => self.knock = driver.knock().ok(),
            }
        }
    }

    /// Waits until one is answered.
    pub(super) async fn answered(&mut self) {
        match &self.knock {
            Some(knock) if knock.answered().await.is_ok() => {}
            _ => return pending().await,
        }
        (self.knock, self.last) = (None, None);
        self.patience *= 2;
    }
}
