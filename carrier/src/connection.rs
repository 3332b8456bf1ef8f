//! A QUIC connection between its endpoint's task, which receives for it, and the socket, which it sends on itself.
//!
//! It does nothing by itself: whoever owns it polls it. What has come is taken in first, then the owner may add to what
//! is to be said, and only then anything leaves.

mod owned;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use quinn::{AsyncUdpSocket, UdpPoller};
use quinn_proto::{ConnectionEvent, ConnectionHandle, Event, Transmit, VarInt};
use thinpost_wire::frame::Close;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, Sleep};
use tracing::debug;

pub(crate) use self::owned::Owned;
use crate::Down;
use crate::clock::{Clock, from_quic};
use crate::confirming::Confirming;
use crate::endpoint::Command;
use crate::packets::Packets;
use crate::quic::MTU;
use crate::quiet::{Quiet, Touch};
use crate::repeats::{INITIAL_BYTES_MIN, Opening, Part, Repeats};
use crate::socket::{for_socket, send};
use crate::spoken::{LONE_ACK_WAIT, Spoken};

/// A connection that has ended answers latecomers for so long at most. QUIC's own bound is three probe timeouts: some
/// 35 s, or far more where the round trip was never measured.
const DRAIN_MAX: Duration = Duration::from_secs(60);

/// A device that still sends early data has its own part of the handshake queued behind that. A relay does not repeat its
/// part, two datagrams of 1,200 bytes, before the device has been quiet for longer than one such datagram takes on
/// 8 kbit/s.
const QUIET_BEFORE_PROBE: Duration = Duration::from_millis(1_500);

/// But it does not wait longer than this in all, as early data may be repeated for want of an answer.
const PROBE_WAIT_MAX: Duration = Duration::from_secs(8);

/// A relay ends a handshake that is not complete after so long (PROTOCOL.md, "Limits").
const DECIDED_AFTER: Duration = Duration::from_secs(120);

/// What a relay has said so shortly before a device begins once more may be on its way to it.
const OPENINGS_CROSS: Duration = Duration::from_millis(500);

/// CRYPTO frames that a relay takes from one device until the handshake is complete, and then: a handshake has three, and more
/// where they are repeated; a device that is known has nothing more to say of it. What has gaps, or no end, is kept until
/// then, by QUIC or by TLS.
pub(crate) const CRYPTO_FRAMES_MAX: u64 = 32;
pub(crate) const LATER_CRYPTO_FRAMES_MAX: u64 = 2;

/// One byte, as IPsec uses it for the same (RFC 3948, section 4). It begins like a packet with a long header, and is too
/// short for one, so that it is nothing to QUIC.
pub(crate) const TOUCH: [u8; 1] = [0xff];

/// A datagram's share of what may wait for all owners together, if it is not one of the connection's own.
type Share = Option<OwnedSemaphorePermit>;

/// What an endpoint gives to a connection.
pub(crate) enum Heard {
    /// Something for QUIC, and which part of a handshake it holds, if it is a datagram with one.
    Quic { event: Box<ConnectionEvent>, part: Option<Part>, _share: Share },
    /// The answer to a touch.
    Touch,
}

pub(crate) struct Connection {
    quic: Box<quinn_proto::Connection>,
    handle: ConnectionHandle,
    events: mpsc::Receiver<Heard>,
    endpoint: mpsc::UnboundedSender<Command>,
    socket: Arc<dyn AsyncUdpSocket>,
    unsent: Option<Unsent>,
    clock: Clock,
    timer: Pin<Box<Sleep>>,
    /// When the handshake was complete.
    connected_at: Option<Instant>,
    opening: Opening,
    /// Bytes of copies of it.
    copied_bytes: u64,
    repeats: Repeats,
    /// What the handshake took, where QUIC cannot tell, as it reckons from when the opening left first.
    repeated_rtt: Option<Duration>,
    /// Whether the end of the handshake leaves again, until the owner knows.
    repeats_end: bool,
    confirming: Confirming,
    /// Whether the relay is known to have completed the handshake, at a device.
    is_confirmed: bool,
    /// When the end that it has answered left last, if any was repeated, until the owner knows.
    end_answered: Option<Instant>,
    /// Whether something was heard that did not answer what was repeated, until the owner knows.
    stirs: bool,
    retry: Retry,
    down: Option<Down>,
    early: Early,
    /// CRYPTO frames that a relay takes in all.
    crypto_frames_max: u64,
    spoken: Spoken,
    packets: Packets,
    quiet: Quiet,
    /// Whether the link is at rest, as was said last.
    rests: bool,
    /// After so long a quiet a relay lets QUIC end a connection at rest.
    idle_timeout: Option<Duration>,
}

/// Whether a relay has asked a device to prove where it is, once: QUIC heeds no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Retry {
    None,
    /// It has, and the owner does not know.
    News,
    Known,
}

/// What a socket did not take.
struct Unsent {
    transmit: Transmit,
    bytes: Vec<u8>,
    writable: Pin<Box<dyn UdpPoller>>,
}

/// What a relay knows of a device whose handshake is not complete.
struct Early {
    began: Instant,
    /// When early data came last, if it did.
    heard: Option<Instant>,
    /// CRYPTO frames so far, once the first flight is in: more of them are a device's own probes.
    crypto_frames: u64,
}

impl Connection {
    /// QUIC itself, to ask and to hand datagrams to.
    pub(crate) fn quic(&mut self) -> &mut quinn_proto::Connection {
        &mut self.quic
    }

    /// Whether the handshake is complete.
    pub(crate) fn is_connected(&self) -> bool {
        self.connected_at.is_some()
    }

    /// Whether the end of the handshake is about to leave again, if not asked before.
    pub(crate) fn take_end_again(&mut self) -> bool {
        std::mem::take(&mut self.repeats_end)
    }

    /// Whether the handshake begins anew, as the relay has asked for a proof, if not asked before: early data was not looked at.
    pub(crate) fn take_retry(&mut self) -> bool {
        let is_news = self.retry == Retry::News;
        if is_news {
            self.retry = Retry::Known;
        }
        is_news
    }

    /// When the end of a handshake left last that needed repeats, once the relay has answered it, if not asked before.
    pub(crate) fn take_end_answered(&mut self) -> Option<Instant> {
        self.end_answered.take()
    }

    /// Whether the handshake needed repeats.
    pub(crate) fn was_repeated(&self) -> bool {
        self.repeats.any()
    }

    /// Why it has ended, if it has.
    pub(crate) fn down(&self) -> Option<&Down> {
        self.down.as_ref()
    }

    pub(crate) fn rtt(&self) -> Duration {
        self.repeated_rtt.unwrap_or_else(|| from_quic(self.quic.rtt()))
    }

    /// When the last packet went, either way.
    pub(crate) fn quiet_since(&self) -> Instant {
        self.quiet.since
    }

    /// When the last packet left.
    pub(crate) fn sent_at(&self) -> Instant {
        self.quiet.sent_at
    }

    /// The longest quiet that has ended with a packet from the other end since this was asked last.
    pub(crate) fn take_quiet(&mut self) -> Duration {
        std::mem::take(&mut self.quiet.ended)
    }

    /// Sends what is nothing to QUIC. An end that knows nobody at this address answers.
    pub(crate) fn touch(&mut self) {
        let destination = self.quic.remote_address();
        let transmit =
            Transmit { destination, ecn: None, size: TOUCH.len(), segment_size: None, src_ip: None };
        // One that a full socket does not take is lost: what fills it keeps mappings open as well.
        let _ = self.socket.try_send(&for_socket(&transmit, &TOUCH));
        self.quiet.sent(Touch::Left);
    }

    /// Whether the other end has answered the last touch, if not asked before: it knows nobody here.
    pub(crate) fn take_lost_track(&mut self) -> bool {
        let is_lost = self.quiet.touch == Touch::Answered;
        if is_lost {
            self.quiet.touch = Touch::None;
        }
        is_lost
    }

    /// Datagrams that wait in QUIC to be sent, bytes.
    pub(crate) fn outgoing_bytes(&mut self) -> usize {
        self.spoken.outgoing_bytes(&mut self.quic)
    }

    /// What QUIC holds for what is sent, bytes: datagrams until they leave, and what it remembers of packets.
    pub(crate) fn holds_bytes(&mut self) -> usize {
        self.outgoing_bytes() + self.packets.holds_bytes()
    }

    /// The next datagram of the other end.
    pub(crate) fn receive(&mut self) -> Option<Bytes> {
        let datagram = self.quic.datagrams().recv()?;
        if !self.is_connected() {
            self.early.heard = Some(Instant::now());
        }
        Some(datagram)
    }

    /// Takes in what has come.
    pub(crate) fn poll_input(&mut self, cx: &mut Context<'_>) {
        let (mut heard, mut begun, mut ended, mut retried) = (false, false, false, false);
        let was_connected = self.is_connected();
        while let Poll::Ready(event) = self.events.poll_recv(cx) {
            let Some(event) = event else {
                self.down.get_or_insert_with(|| Down::Failed("the socket failed".to_owned()));
                break;
            };
            let Heard::Quic { event, part, .. } = event else {
                if self.quiet.touch == Touch::Left {
                    self.quiet.touch = Touch::Answered;
                }
                continue;
            };
            let datagrams = self.quic.stats().udp_rx.datagrams;
            let remote = self.quic.remote_address();
            self.quic.handle_event(*event);
            if self.quic.remote_address() != remote {
                debug!("the other end has another address");
            }
            if self.quic.stats().udp_rx.datagrams > datagrams {
                self.quiet.heard();
            }
            heard = true;
            begun |= part == Some(Part::Begin);
            ended |= part == Some(Part::End);
            retried |= part == Some(Part::Retry);
        }
        if heard {
            self.confirming.heard(self.quic.stats().frame_rx.acks);
            self.stirs = self.unheard_for().is_some() && self.repeats.is_overdue();
            self.repeats.heard();
            if self.quic.side().is_client() && self.is_connected() && !self.is_confirmed && self.is_told() {
                self.is_confirmed = true;
                self.end_answered = self.repeats.said_again();
            }
            // A relay that speaks, but not of the end of the handshake, may not have heard of it.
            self.repeat_end_if_overdue();
        }
        self.look();
        let crypto_frames = self.quic.stats().frame_rx.crypto;
        if self.quic.side().is_server() && crypto_frames > self.crypto_frames_max && self.down.is_none() {
            debug!(crypto_frames, "a handshake has no end");
            self.close(Close::Violation);
        }
        // And neither has a device of what we have said, if it begins once more.
        let crosses = self.opening.has_left_within(OPENINGS_CROSS);
        if begun && self.quic.side().is_server() && self.repeats_opening() && !crosses {
            self.repeats.start_anew();
            self.repeat();
        }
        if ended && was_connected && self.rests && self.down.is_none() && self.quic.side().is_server() {
            self.confirm_again();
        }
        if retried && self.retry == Retry::None && self.quic.side().is_client() && !self.is_connected() {
            self.retry = Retry::News;
        }
        self.stirs &= !self.is_connected();
    }

    /// Whether a device has heard that the relay has completed the handshake: HANDSHAKE_DONE says so, and so does what a relay sends
    /// only once it has, a probe of the connection or of a path. That of QUIC may have been lost while the link came to rest.
    fn is_told(&self) -> bool {
        let heard = self.quic.stats().frame_rx;
        heard.handshake_done > 0 || heard.ping > 0 || heard.path_challenge > 0
    }

    /// A device says the end of the handshake again, so it has not heard that it was understood, and hears of it by a probe. Anybody can
    /// say so, as the keys of a handshake are gone: no more than one probe a second, and for a while those of QUIC's own, until one is
    /// answered.
    fn confirm_again(&mut self) {
        if self.confirming.probes(self.quic.stats().frame_rx.acks) {
            debug!("the end of a handshake is confirmed again");
            self.spoken.is_stale = true;
            self.quic.ping();
        }
    }

    /// Whether something was heard at last, if not asked before, and the handshake is not answered all the same: the path is
    /// open again, and has been closed.
    pub(crate) fn take_stirring(&mut self) -> bool {
        std::mem::take(&mut self.stirs)
    }

    /// Lets the end of the handshake leave again, ahead of whatever else leaves, if the other end has had time to answer and has
    /// not: it can read nothing else before.
    pub(crate) fn repeat_end_if_overdue(&mut self) {
        if self.is_connected() && self.is_handshake_open() && self.repeats.is_overdue() {
            self.repeat();
        }
    }

    /// Lets what this end has said of the handshake leave again.
    fn repeat(&mut self) {
        debug!("the handshake is said again");
        self.repeats.repeated();
        if self.repeats_opening() {
            return self.copy_opening();
        }
        self.repeats_end = self.is_connected();
        if self.rests && self.is_connected() {
            // Nothing else would show the relay where it is to be confirmed: QUIC follows a device for what is of the connection,
            // not of its handshake (RFC 9000, section 9.3), and a NAT may have forgotten where that was.
            self.quic.ping();
        }
        // Ours may be earlier than QUIC's timer; it reckons from when packets left, so that this does no harm.
        self.spoken.is_stale = true;
        let now = self.clock.now();
        let now = self.quic.poll_timeout().map_or(now, |at| at.max(now));
        self.quic.handle_timeout(now);
    }

    /// Whether it is the opening that is to leave again.
    fn repeats_opening(&self) -> bool {
        !self.is_connected() && self.down.is_none() && !self.opening.datagrams().is_empty()
    }

    fn copy_opening(&mut self) {
        let bytes = self.opening.bytes();
        if !self.may_say(bytes) {
            return;
        }
        self.copied_bytes += bytes;
        self.opening.leaves();
        for datagram in self.opening.datagrams() {
            let transmit = Transmit {
                destination: self.quic.remote_address(),
                ecn: None,
                size: datagram.len(),
                segment_size: None,
                src_ip: None,
            };
            // One that a full socket does not take is lost, as on the way.
            let _ = self.socket.try_send(&for_socket(&transmit, datagram));
        }
        self.quiet.sent(Touch::None);
    }

    /// Whether so many bytes more may leave: who is answered is perhaps not who has asked (RFC 9000, section 8.1), and QUIC knows
    /// nothing of copies. It does not count the datagram that the connection began with.
    fn may_say(&self, bytes: u64) -> bool {
        let stats = self.quic.stats();
        let heard_bytes = stats.udp_rx.bytes + INITIAL_BYTES_MIN as u64;
        self.is_connected()
            || self.quic.side().is_client()
            || stats.udp_tx.bytes + self.copied_bytes + bytes <= 3 * heard_bytes
    }

    /// How long this end has repeated its part of the handshake without hearing anything.
    pub(crate) fn unheard_for(&self) -> Option<Duration> {
        self.repeats.unheard_for().filter(|_| !self.is_connected() && self.down.is_none())
    }

    /// The path is known to be open: the opening leaves at once, unless it has just left.
    pub(crate) fn path_is_open(&mut self) {
        self.repeats.start_anew();
        if self.repeats_opening() && self.repeats.is_overdue() {
            self.repeats.said();
            self.copy_opening();
        }
    }

    /// Lets time-driven things happen, QUIC's and, at `other`, somebody else's. Ready when there may be something to do.
    pub(crate) fn poll_timers(&mut self, cx: &mut Context<'_>, other: Option<Instant>) -> Poll<()> {
        let due = self.timeout();
        if due.is_some_and(|at| at <= Instant::now()) {
            if self.is_handshake_open() {
                self.repeat();
            } else {
                self.spoken.is_stale = true;
                self.quic.handle_timeout(self.clock.now());
            }
            self.look();
            return Poll::Ready(());
        }
        let ack_due = self.spoken.ack_due;
        if ack_due.is_some_and(|at| at <= Instant::now()) {
            self.spoken.is_stale = true;
            return Poll::Ready(());
        }
        let Some(next) = [due, ack_due, other].into_iter().flatten().min() else { return Poll::Pending };
        if self.timer.deadline() != next {
            self.timer.as_mut().reset(next);
        }
        self.timer.as_mut().poll(cx)
    }

    /// Whether it is not certain that the other end has completed the handshake.
    fn is_handshake_open(&self) -> bool {
        !self.is_connected() || self.quic.side().is_client() && !self.is_confirmed && self.down.is_none()
    }

    /// Whether the relay has completed the handshake by now, or has ended it: a device that has nothing else to say need not be told which.
    fn is_decided(&self) -> bool {
        self.connected_at.is_some_and(|at| at.elapsed() >= DECIDED_AFTER)
    }

    /// When QUIC's next timer is to run out.
    fn timeout(&mut self) -> Option<Instant> {
        let at = self.clock.when(self.quic.poll_timeout()?);
        let at = match self.is_handshake_open() {
            true if self.repeats_opening() => self.repeats.over(),
            true => self.repeats.due(at),
            false => at,
        };
        let is_open = self.is_handshake_open() && !self.is_decided();
        if self.rests && !is_open && !self.confirming.goes_on() && self.down.is_none() {
            return self.idle_timeout.map(|idle| at.max(self.quiet.since + idle));
        }
        let Some(heard) = self.early.heard.filter(|_| !self.is_connected() && self.quic.side().is_server())
        else {
            return Some(at);
        };
        if self.quic.stats().frame_rx.crypto > self.early.crypto_frames {
            return Some(at);
        }
        Some(at.max((heard + QUIET_BEFORE_PROBE).min(self.early.began + PROBE_WAIT_MAX)))
    }

    /// Passes on what QUIC has to say to its endpoint, and learns what it has to say of itself.
    fn look(&mut self) {
        while let Some(event) = self.quic.poll_endpoint_events() {
            let _ = self.endpoint.send(Command::Event(self.handle, event));
        }
        while let Some(event) = self.quic.poll() {
            match event {
                Event::Connected => {
                    self.connected_at = Some(Instant::now());
                    self.spoken.is_stale = true;
                    self.crypto_frames_max = self.quic.stats().frame_rx.crypto + LATER_CRYPTO_FRAMES_MAX;
                    self.repeated_rtt = self.repeats.round_trip();
                    self.repeats.said();
                }
                Event::ConnectionLost { reason } => {
                    self.spoken.is_stale = true;
                    self.down.get_or_insert_with(|| reason.into());
                }
                _ => {}
            }
        }
    }

    /// Whether the link is at rest: then nothing waits for QUIC's acknowledgements, and its timers would only ask for them. They
    /// go on when the link does.
    pub(crate) fn set_rests(&mut self, rests: bool) {
        self.rests = rests;
    }

    /// Sends what there is to send unless that is at most an acknowledgement that can wait for something to ride with. Call
    /// [`Connection::poll_unsent`] afterwards.
    pub(crate) fn transmit_if_due(&mut self) {
        let stats = self.quic.stats();
        let can_wait = self.is_connected() && self.spoken.is_all_but_an_ack(&mut self.quic, &stats);
        if !can_wait {
            self.transmit();
        } else if self.rests {
            self.spoken.ack_due = None;
        } else if stats.udp_rx.datagrams > self.spoken.datagrams {
            self.spoken.ack_due.get_or_insert_with(|| Instant::now() + LONE_ACK_WAIT);
        }
    }

    /// Sends what there is to send, as far as the socket takes it. Call [`Connection::poll_unsent`] afterwards.
    pub(crate) fn transmit(&mut self) {
        if self.quic.side().is_server()
            && self.is_connected()
            && self.outgoing_bytes() == 0
            && self.packets.asks()
        {
            self.quic.ping();
        }
        let stats = self.quic.stats();
        let remote = self.quic.remote_address();
        if remote != self.spoken.remote {
            let _ = self.endpoint.send(Command::At(self.handle, remote));
        }
        self.spoken.says_all(&stats, remote);
        while self.unsent.is_none() && self.may_say(MTU.into()) {
            let mut bytes = Vec::with_capacity(MTU.into());
            let Some(transmit) = self.quic.poll_transmit(self.clock.now(), 1, &mut bytes) else { break };
            self.quiet.sent(Touch::None);
            if !self.is_connected() && self.opening.keep(&bytes) {
                self.repeats.said();
            }
            if !send(&*self.socket, &transmit, &bytes) {
                let writable = self.socket.clone().create_io_poller();
                self.unsent = Some(Unsent { transmit, bytes, writable });
            }
        }
        self.opening.complete();
        self.look();
    }

    /// Sends what the socket did not take before, and what has waited behind it.
    pub(crate) fn poll_unsent(&mut self, cx: &mut Context<'_>) {
        while let Some(Unsent { transmit, bytes, writable }) = &mut self.unsent {
            match writable.as_mut().poll_writable(cx) {
                Poll::Ready(Ok(())) if !send(&*self.socket, transmit, bytes) => {}
                Poll::Ready(_) => {
                    self.unsent = None;
                    self.transmit();
                }
                Poll::Pending => return,
            }
        }
    }

    /// Says why, after what QUIC has to say anyway: a handshake that is not known to the other end hides the reason.
    pub(crate) fn close(&mut self, close: Close) {
        if self.down.is_some() {
            return;
        }
        self.transmit();
        let code = VarInt::from_u32(close.code());
        self.quic.close(self.clock.now(), code, close.reason().into());
        self.down = Some(Down::ClosedHere);
        self.transmit();
    }

    /// Answers whoever comes late until QUIC has forgotten the connection.
    pub(crate) async fn finish(mut self) {
        let until = Instant::now() + DRAIN_MAX;
        std::future::poll_fn(|cx| {
            loop {
                self.poll_input(cx);
                self.transmit();
                self.poll_unsent(cx);
                if self.quic.is_drained() || until <= Instant::now() {
                    return Poll::Ready(());
                }
                if self.poll_timers(cx, Some(until)).is_pending() {
                    return Poll::Pending;
                }
            }
        })
        .await;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.look();
        if !self.quic.is_drained() {
            let drained = quinn_proto::EndpointEvent::drained();
            let _ = self.endpoint.send(Command::Event(self.handle, drained));
        }
    }
}
