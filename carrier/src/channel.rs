//! The pump between a QUIC connection and a link: moves datagrams, wakes timers, decides nothing.

use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use quinn::{Connection, ConnectionError, SendDatagramError};
use thinpost_wire::frame::Close;
use thinpost_wire::link::{Event, Link, LinkConfig, LinkError, Time};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::clock::from_quic;

/// Why a channel has ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Down {
    /// The other end said why.
    #[error("closed by the other end: {0:?}")]
    Closed(Close),
    /// The other end does not know the connection any more, as after a restart.
    #[error("the other end has forgotten the connection")]
    Forgotten,
    /// Nothing came for too long.
    #[error("nothing came for too long")]
    TimedOut,
    /// This end closed it.
    #[error("closed here")]
    ClosedHere,
    /// The other end proved to hold another key than expected.
    #[error("the other end holds another key than expected")]
    WrongKey,
    /// The other end broke the protocol; the connection was closed for it.
    #[error("the other end broke the protocol: {0}")]
    Violation(LinkError),
    /// QUIC or TLS failed.
    #[error("the connection failed: {0}")]
    Failed(String),
}

impl From<ConnectionError> for Down {
    fn from(error: ConnectionError) -> Self {
        /// How TLS answers a key that a verifier refuses: the alerts `bad_certificate` (42),
        /// `certificate_unknown` (46) and `access_denied` (49), plus 0x100 (RFC 9001, section 4.8).
        const REFUSED_KEY: [u64; 3] = [0x100 + 42, 0x100 + 46, 0x100 + 49];
        match error {
            ConnectionError::ApplicationClosed(close) => {
                match Close::from_wire(close.error_code.into_inner(), &close.reason) {
                    Some(close) => Self::Closed(close),
                    None => Self::Failed(close.to_string()),
                }
            }
            ConnectionError::Reset => Self::Forgotten,
            ConnectionError::TimedOut => Self::TimedOut,
            ConnectionError::LocallyClosed => Self::ClosedHere,
            ConnectionError::TransportError(error) if REFUSED_KEY.contains(&u64::from(error.code)) => {
                Self::WrongKey
            }
            other => Self::Failed(other.to_string()),
        }
    }
}

/// A link over a connection.
#[derive(Debug)]
pub struct Channel {
    connection: Connection,
    link: Link,
    started: Instant,
    timer: Pin<Box<Sleep>>,
}

impl Channel {
    /// A new link over a new connection.
    pub fn new(connection: Connection, config: LinkConfig) -> Self {
        let started = Instant::now();
        let timer = Box::pin(sleep_until(started));
        Self { connection, link: Link::new(config), started, timer }
    }

    /// The link, to push to or to ask. What it has to say leaves with the next [`Channel::next`] or
    /// [`Channel::flush`].
    pub fn link(&mut self) -> &mut Link {
        &mut self.link
    }

    /// The connection beneath.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The round-trip time that QUIC has measured or, before, assumed.
    pub fn quic_rtt(connection: &Connection) -> Duration {
        from_quic(connection.rtt())
    }

    /// The link's clock.
    pub fn now(&self) -> Time {
        Time::after_start(self.started.elapsed())
    }

    /// Says that every frame up to and including this number is acted on for good.
    pub fn settle(&mut self, upto: u64) {
        self.link.settle(self.now(), upto);
    }

    /// Moves datagrams both ways until the link has an event. Cancelling loses nothing.
    ///
    /// # Errors
    /// When the channel has ended, for good.
    pub async fn next(&mut self) -> Result<Event, Down> {
        loop {
            if let Some(event) = self.link.poll_event() {
                return Ok(event);
            }
            self.flush()?;
            let timeout = self.link.poll_timeout();
            if let Some(at) = timeout {
                self.timer.as_mut().reset(self.started + at.since_start());
            }
            tokio::select! {
                biased;
                datagram = self.connection.read_datagram() => self.handle(&datagram?)?,
                () = &mut self.timer, if timeout.is_some() => {
                    let now = self.now();
                    self.link.handle_timeout(now);
                }
            }
        }
    }

    fn handle(&mut self, datagram: &Bytes) -> Result<(), Down> {
        let now = self.now();
        self.link.handle_datagram(now, datagram).map_err(|error| {
            self.close(Close::Violation);
            Down::Violation(error)
        })
    }

    /// Hands QUIC what the link has to send.
    ///
    /// # Errors
    /// When the channel has ended, for good.
    pub fn flush(&mut self) -> Result<(), Down> {
        let Some(bytes_max) = self.connection.max_datagram_size() else {
            return match self.connection.close_reason() {
                Some(reason) => Err(reason.into()),
                None => Err(Down::Failed("the other end takes no datagrams".to_owned())),
            };
        };
        let now = self.now();
        while self.connection.datagram_send_buffer_space() >= bytes_max
            && let Some(datagram) = self.link.poll_transmit(now, bytes_max)
        {
            match self.connection.send_datagram(datagram.into()) {
                Ok(()) => {}
                Err(SendDatagramError::ConnectionLost(error)) => return Err(error.into()),
                Err(error) => return Err(Down::Failed(error.to_string())),
            }
        }
        Ok(())
    }

    /// Lets what is on its way be settled and acknowledged, for at most this long. Frames that still
    /// arrive are not looked at.
    pub async fn come_to_rest(&mut self, at_most: Duration) {
        let deadline = Instant::now() + at_most;
        while !self.link.is_at_rest() {
            tokio::select! {
                biased;
                event = self.next() => if event.is_err() { return },
                () = sleep_until(deadline) => return,
            }
        }
    }

    /// Tells the other end why, and ends.
    pub fn close(&self, close: Close) {
        self.connection.close(close.code().into(), &close.reason());
    }
}
