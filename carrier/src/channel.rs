//! The pump between a QUIC connection and a link: moves datagrams, wakes timers, decides nothing.
//!
//! What comes in is given to the owner before anything leaves, so that what the owner has to say to it shares the packets
//! of what QUIC has to say: during the handshake these are padded to 1,200 bytes whether there is anything in them or
//! not.

use std::net::SocketAddr;
use std::ops::Range;
use std::task::{Context, Poll};
use std::time::Duration;

use thinpost_wire::batch::Transfer;
use thinpost_wire::frame::Close;
use thinpost_wire::link::{Event, Link, LinkConfig, Time};
use tokio::time::{Instant, sleep_until};
use tracing::debug;

use crate::Down;
use crate::connection::Owned;
use crate::packets::KEPT_BYTES;
use crate::quic::{DATAGRAM_MIN, FIRST_DATAGRAM_MAX, FIRST_FRAME_MAX};
use crate::room::{Pool, Room};

/// How long packets may be held back for what the owner will have to say: longer than a commit to a disk mostly takes, and
/// no longer than a packet without content takes on a thin link.
const HOLD_MAX: Duration = Duration::from_millis(20);

/// Room that a full datagram leaves to QUIC's acknowledgement, beyond what QUIC reckons with and does not need: otherwise it travels
/// alone, in 59 bytes.
const ACK_BYTES: usize = 5;

/// What has happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// The handshake is complete. Said only if it was not when the link began; what was sent before and is refused is
    /// sent again.
    Connected,
    /// The link has something.
    Link(Event),
    /// What was left to acknowledge has been sent, and nothing else is open.
    AtRest,
    /// The relay has answered [`Channel::touch`]: it knows no device here, until something is said. Anybody who knows both
    /// addresses can make it seem so, once a touch.
    LostTrack,
}

/// A link over a connection.
#[derive(Debug)]
pub struct Channel {
    pub(crate) connection: Owned,
    link: Link,
    started: Instant,
    /// Whether the owner knows that the handshake is complete.
    connected: bool,
    /// What is known of the first datagram, until it has left.
    first: Option<First>,
    held_until: Option<Instant>,
    room: Room,
    /// What the owner holds beside the link, bytes.
    owner_bytes: usize,
}

/// What is known of a link's first datagram.
#[derive(Debug, Default)]
struct First {
    /// How long the first frame is, or more than that.
    frame_bytes: Option<usize>,
}

impl Channel {
    pub(crate) fn new(mut connection: Owned, config: LinkConfig) -> Self {
        let connected = connection.is_connected();
        // What a relay says after a handshake is not padded.
        let is_padded = connection.quic().side().is_client() || !connected;
        let first = is_padded.then(First::default);
        let link = Link::new(config);
        Self {
            connection,
            link,
            started: Instant::now(),
            connected,
            first,
            held_until: None,
            room: Room::default(),
            owner_bytes: 0,
        }
    }

    /// The link, to push to or to ask. What it has to say leaves when [`Channel::next`] has no news to give, or with
    /// [`Channel::flush`].
    pub fn link(&mut self) -> &mut Link {
        self.look_at_first();
        &mut self.link
    }

    /// From now on the channel holds no more than [`FLOOR_BYTES`](crate::FLOOR_BYTES) and what the pool lends.
    pub fn borrow_from(&mut self, pool: Pool) {
        self.room = Room::from(pool);
    }

    /// What the owner holds for the other end beside the link, bytes. It counts like what the link holds.
    pub fn set_owner_bytes(&mut self, bytes: usize) {
        self.owner_bytes = bytes;
    }

    /// Whether so many bytes more may be pushed or supplied; what the pool has is borrowed. If that is not enough, somebody's link is
    /// ended for it.
    pub fn has_room(&mut self, bytes: usize) -> bool {
        let will_hold = self.holds_bytes() + bytes;
        will_hold <= self.room.fit(will_hold)
    }

    /// The same, for what can be done without: nobody's link is ended for it.
    pub fn has_room_left(&mut self, bytes: usize) -> bool {
        let will_hold = self.holds_bytes() + bytes;
        will_hold <= self.room.fit_into_what_is_left(will_hold)
    }

    /// What the link, QUIC and the owner hold, bytes.
    fn holds_bytes(&mut self) -> usize {
        self.link.holds_bytes() + self.connection.holds_bytes() + self.owner_bytes
    }

    /// Borrows and gives back as is needed. An error if the loan is called in, or there is none for what cannot be put down.
    fn keep_house(&mut self, cx: &mut Context<'_>) -> Result<(), Down> {
        let is_beyond = !self.has_room(0);
        if self.room.poll_called_in(cx).is_ready() || is_beyond {
            debug!(is_beyond, "a link is ended: there is no room for what it holds");
            self.close(Close::Busy);
            return Err(Down::NoRoom);
        }
        Ok(())
    }

    /// Takes the frames that were pushed first, if it is one or more, for the first.
    fn look_at_first(&mut self) {
        let bytes = self.link.backlog_bytes();
        if let Some(First { frame_bytes: unknown @ None }) = &mut self.first
            && bytes > 0
        {
            *unknown = Some(bytes);
        }
    }

    /// The largest datagram that the link may make first. One that fits beside what QUIC says in its first packets, which
    /// are padded in any case, unless the first frame needs more: a link does not cut what it has cut before.
    fn first_bytes_max(&mut self, bytes_max: usize) -> usize {
        self.look_at_first();
        match self.first.take().map(|first| first.frame_bytes) {
            Some(None | Some(..=FIRST_FRAME_MAX)) => bytes_max.min(FIRST_DATAGRAM_MAX),
            _ => bytes_max,
        }
    }

    /// Whether the handshake is complete, and the owner has been told.
    pub fn is_connected(&self) -> bool {
        self.connected
    }

    /// When the last packet went, either way.
    pub fn quiet_since(&self) -> Instant {
        self.connection.quiet_since()
    }

    /// When the last packet left. What comes in does not keep every NAT's mapping open (RFC 4787, REQ-6).
    pub fn sent_at(&self) -> Instant {
        self.connection.sent_at()
    }

    /// The longest quiet that has ended with a packet from the other end since this was asked last; zero if none has come. So
    /// long at least whatever is on the way has remembered the connection.
    pub fn take_quiet(&mut self) -> Duration {
        self.connection.take_quiet()
    }

    /// Keeps the way open: sends one byte, 29 with its headers, for NATs to see. A relay answers only if it knows no device at
    /// this address, which is told as [`News::LostTrack`].
    pub fn touch(&mut self) {
        self.connection.touch();
    }

    /// How long this end has repeated its part of the handshake, if it does so without hearing anything.
    pub fn unheard_for(&self) -> Option<Duration> {
        self.connection.unheard_for()
    }

    /// Something else has told that the path is open while the handshake is not complete: it is said again at once, and
    /// whatever was sent and is not acknowledged leaves with it.
    pub fn path_is_open(&mut self) {
        let now = self.now();
        self.connection.path_is_open();
        self.link.path_is_open(now);
    }

    /// Where the other end is seen.
    pub fn remote_address(&mut self) -> SocketAddr {
        self.connection.quic().remote_address()
    }

    /// The link's clock.
    pub fn now(&self) -> Time {
        Time::after_start(self.started.elapsed())
    }

    /// Says that every frame up to and including this number is acted on for good.
    pub fn settle(&mut self, upto: u64) {
        self.link.settle(self.now(), upto);
    }

    /// Both ends gather acknowledgements from now on; see [`Link::gather_acks`].
    pub fn gather_acks(&mut self, at_most: Duration) {
        self.link.gather_acks(self.now(), at_most);
    }

    /// Says that these bytes of an object are durable.
    pub fn hold_object(&mut self, transfer: Transfer, bytes: Range<u64>) {
        self.link.hold(self.now(), transfer, bytes);
    }

    /// While held, [`Channel::next`] sends nothing for 20 ms at most: the owner will soon have something that belongs
    /// into the same packets, such as custody.
    pub fn hold(&mut self, is_held: bool) {
        self.held_until = is_held.then(|| self.held_until.unwrap_or_else(|| Instant::now() + HOLD_MAX));
    }

    /// Moves datagrams both ways until there is news. Cancelling loses nothing.
    ///
    /// # Errors
    /// When the channel has ended, for good.
    pub async fn next(&mut self) -> Result<News, Down> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<News, Down>> {
        let mut rang = false;
        loop {
            self.connection.poll_input(cx);
            while let Some(datagram) = self.connection.receive() {
                let now = self.now();
                let beside = self.connection.holds_bytes() + self.owner_bytes + KEPT_BYTES;
                let room = &mut self.room;
                let room = |holds: usize| room.fit(holds + beside).saturating_sub(beside);
                if let Err(error) = self.link.handle_datagram_within(now, &datagram, room) {
                    self.close(Close::Violation);
                    return Poll::Ready(Err(Down::Violation(error)));
                }
            }
            if self.connection.down().is_none()
                && let Err(down) = self.keep_house(cx)
            {
                return Poll::Ready(Err(down));
            }
            if !self.connected && self.connection.is_connected() {
                self.connected = true;
                self.look_at_early();
                return Poll::Ready(Ok(News::Connected));
            }
            if let Some(left_at) = self.connection.take_end_answered() {
                // What has arrived until then was acknowledged beside.
                self.link.lose_until(Time::after_start(left_at.saturating_duration_since(self.started)));
            }
            if self.connection.take_retry() {
                let now = self.now();
                self.link.path_is_open(now);
                self.first = Some(First { frame_bytes: None });
            }
            if self.connection.take_stirring() {
                self.path_is_open();
            }
            if self.connection.take_lost_track() {
                return Poll::Ready(Ok(News::LostTrack));
            }
            if let Some(event) = self.link.poll_event() {
                return Poll::Ready(Ok(News::Link(event)));
            }

            let now = Instant::now();
            let held_until = self.held_until.filter(|until| now < *until && self.connection.down().is_none());
            let wake_at = if held_until.is_some() {
                held_until
            } else {
                let was_at_rest = self.link.is_at_rest();
                self.flush()?;
                if !was_at_rest && self.link.is_at_rest() {
                    return Poll::Ready(Ok(News::AtRest));
                }
                self.connection.poll_unsent(cx);
                // The link waits while nothing answers the handshake: its repeats would tell nobody anything.
                let due = self.link.poll_timeout().filter(|_| self.connection.unheard_for().is_none());
                due.map(|at| self.started + at.since_start())
            };
            if wake_at.is_some_and(|at| at <= now) && !rang {
                rang = true;
                let now = self.now();
                self.link.handle_timeout(now);
                continue;
            }
            // What QUIC has no room for would ring at once, again and again.
            let wake_at = wake_at.map(|at| at.max(now + Duration::from_millis(u64::from(rang))));
            if self.connection.poll_timers(cx, wake_at).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// The handshake is complete: what has become of what was said before?
    fn look_at_early(&mut self) {
        let now = self.now();
        let quic = self.connection.quic();
        let is_client = quic.side().is_client();
        if is_client && !quic.accepted_0rtt() {
            if quic.has_0rtt() {
                debug!("early data was refused");
            }
            self.link.resend_all();
        } else if !self.connection.was_repeated() {
            // What is acknowledged comes with the answer to the handshake.
        } else if !is_client {
            // A device without keys could read nothing.
            self.link.path_is_open(now);
        } else if self.link.backlog_bytes() == 0 {
            // It may have arrived, and what the relay said to it could not be read. To ask costs nothing, beside the end of
            // the handshake.
            self.link.ask();
        }
    }

    /// Sends what the link has to send, and what QUIC has.
    ///
    /// # Errors
    /// When the channel has ended, for good.
    pub fn flush(&mut self) -> Result<(), Down> {
        if let Some(down) = self.connection.down() {
            return Err(down.clone());
        }
        let now = self.now();
        let bytes_max = self.connection.quic().datagrams().max_size();
        let Some(bytes_max) = bytes_max.filter(|bytes_max| *bytes_max >= DATAGRAM_MIN) else {
            return Err(Down::Failed("the other end takes no datagrams, or none with an item".to_owned()));
        };
        let bytes_max = bytes_max.saturating_sub(ACK_BYTES);
        if self.connection.take_end_again() {
            // What rode with it has met the same fate.
            self.link.ride(FIRST_DATAGRAM_MAX);
        }
        let is_unheard = self.connection.unheard_for().is_some();
        let mut room = if is_unheard { 0 } else { self.first_bytes_max(bytes_max) };
        let mut has_more = false;
        let resent = self.link.resent_items();
        while !is_unheard
            && self.connection.quic().datagrams().send_buffer_space() >= bytes_max
            // One may go in any case, or what is held could not be put down.
            && (self.connection.outgoing_bytes() == 0 || self.has_room(bytes_max))
            && let Some(datagram) = self.link.poll_transmit(now, room)
        {
            (room, has_more) = (bytes_max, true);
            let sent = self.connection.quic().datagrams().send(datagram.into(), false);
            sent.map_err(|error| Down::Failed(error.to_string()))?;
        }
        let resent = self.link.resent_items() - resent;
        if resent > 0 {
            debug!(resent, "items are sent again");
        }
        self.held_until = None;
        self.connection.set_rests(self.link.is_at_rest());
        if has_more {
            self.connection.repeat_end_if_overdue();
            self.connection.transmit();
        } else {
            self.connection.transmit_if_due();
        }
        Ok(())
    }

    /// Lets what is on its way be settled and acknowledged, for at most this long. Frames that still
    /// arrive are not looked at.
    pub async fn come_to_rest(&mut self, at_most: Duration) {
        self.hold(false);
        let deadline = Instant::now() + at_most;
        while !self.link.is_at_rest() {
            tokio::select! {
                biased;
                news = self.next() => if news.is_err() { return },
                () = sleep_until(deadline) => return,
            }
        }
    }

    /// Tells the other end why, and ends. What the link has not sent it does not send any more.
    pub fn close(&mut self, close: Close) {
        self.connection.close(close);
    }
}
