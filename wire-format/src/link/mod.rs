//! The machine of one link: who sends what again, and when. Both ends run the same one.
//!
//! A link is one connection between a device and a relay over a carrier that delivers datagrams, or loses
//! them. In each direction frames are cut into numbered items; the other end gets them in order, each
//! once, and *settles* them when what they ask for is durable. Until its watermark has passed an item,
//! the sender keeps it. So an acknowledgement here means custody, not arrival.
//!
//! No I/O happens inside, and there are four kinds of method:
//!
//! - *input*: [`Link::push`], [`Link::settle`], [`Link::handle_datagram`], [`Link::handle_timeout`];
//! - *output*, to be drained after every input: [`Link::poll_event`], [`Link::poll_transmit`];
//! - *time*: [`Link::poll_timeout`] says when to call [`Link::handle_timeout`] next;
//! - *questions*, which change nothing: [`Link::backlog_bytes`], [`Link::silent_for`] and the like.
//!
//! `PROTOCOL.md`, section "Link", has the rules in prose.

mod estimate;
mod inbound;
mod objects;
mod outbound;
mod pace;
mod silence;

use std::ops::{Add, Range};
use std::time::Duration;

use bytes::Bytes;
use rangemap::RangeSet;

use crate::batch::{self, Batch, BatchError, Transfer};
use crate::codec::{self, CodecError, DictionarySet};
use crate::limits::{BATCH_DECODED_BYTES_MAX, TRANSFERS_MAX, WINDOW_ITEMS};
use inbound::Inbound;
use objects::ObjectsInbound;
pub use objects::Want;
use outbound::{ITEM_BYTES_MAX, Outbound};

/// What an item or a chunk takes beside its bytes until it is settled or held, bytes: its places in queues, and what a
/// shell makes of it to have it written down and answered. Whoever sends the smallest fills no more memory than others.
const BESIDE_BYTES: usize = 512;

/// Room that is left to the next item in order by whatever else comes, bytes: nothing that waits for it may take its place.
const NEXT_BYTES: usize = ITEM_BYTES_MAX + BESIDE_BYTES;

/// A moment, as microseconds since any fixed one. The shell reads the clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(u64);

impl Time {
    /// The moment so long after the fixed one.
    pub fn after_start(elapsed: Duration) -> Self {
        Self(elapsed.as_micros() as u64)
    }

    /// How long after the fixed moment.
    pub fn since_start(self) -> Duration {
        Duration::from_micros(self.0)
    }

    /// How long after `earlier`; zero if it is not.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Time {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration.as_micros() as u64))
    }
}

/// What a link starts with.
#[derive(Clone, Copy, Debug)]
pub struct LinkConfig {
    /// The round-trip time assumed until one was measured. The carrier's handshake has usually measured
    /// one; otherwise what is remembered of this network.
    pub initial_rtt: Duration,
    /// Whether that was measured on this path just now.
    pub is_rtt_measured: bool,
    /// The dictionaries that the other end is known to have.
    pub peer_has: DictionarySet,
    /// The longest pause between two polls of a path that has fallen silent.
    pub poll_pause_max: Duration,
}

/// What the link has for its shell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A frame has arrived; all before it have, too. Call [`Link::settle`] with its number when what it
    /// asks for is durable.
    Frame {
        /// The number of its last item.
        number: u64,
        /// The frame.
        bytes: Bytes,
    },
    /// The other end has settled every item up to and including this number.
    Settled {
        /// See [`Link::push`].
        upto: u64,
    },
    /// A chunk of an object has arrived. Call [`Link::hold`] when it is durable.
    Chunk {
        /// Of which.
        transfer: Transfer,
        /// Where its first byte stands in the object, counted from 0.
        offset: u64,
        /// The bytes, all within the object's size.
        bytes: Bytes,
    },
    /// The other end has said how much it holds of an object that is sent.
    Progress {
        /// Of which.
        transfer: Transfer,
        /// How many of its bytes.
        held_bytes: u64,
    },
}

/// Why a link must end. The peer is at fault: it broke the protocol, and would again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// A datagram whose batch cannot be decoded.
    #[error("a batch cannot be decoded: {0}")]
    Codec(CodecError),
    /// A datagram whose content is no batch.
    #[error("a batch cannot be read: {0}")]
    Batch(#[from] BatchError),
    /// An acknowledgement of what was never sent.
    #[error("the peer acknowledged item {0}, which was never sent")]
    AckOfUnsent(u64),
    /// An item further ahead than the window allows.
    #[error("the peer sent item {0}, beyond the window")]
    BeyondWindow(u64),
    /// A frame in more parts than the largest frame needs.
    #[error("the peer sent a frame longer than any may be")]
    FrameTooLong,
    /// The same number with other bytes.
    #[error("the peer reused the number of item {0}")]
    ItemChanged(u64),
    /// A chunk that reaches beyond its object's end.
    #[error("the peer sent a chunk beyond the end of object {}", .0.0)]
    ChunkBeyondEnd(Transfer),
    /// A statement of bytes beyond an object's end.
    #[error("the peer holds bytes beyond the end of object {}", .0.0)]
    HeldBeyondEnd(Transfer),
    /// More transfers at a time than are allowed.
    #[error("the peer opened too many transfers")]
    TooManyTransfers,
}

/// One end of a link.
#[derive(Debug)]
pub struct Link {
    outbound: Outbound,
    inbound: Inbound,
    objects: ObjectsInbound,
    peer_has: DictionarySet,
    /// Of those that it was said to have, the ones that it has reported as unreadable.
    peer_lacks: DictionarySet,
    /// The tag of a batch that could not be read, until the peer has been told.
    unreadable: Option<u8>,
    settled_event: Option<u64>,
    last_heard: Option<Time>,
}

impl Link {
    /// A link that has just been opened.
    pub fn new(config: LinkConfig) -> Self {
        Self {
            outbound: Outbound::new(&config),
            inbound: Inbound::default(),
            objects: ObjectsInbound::default(),
            peer_has: config.peer_has,
            peer_lacks: DictionarySet::EMPTY,
            unreadable: None,
            settled_event: None,
            last_heard: None,
        }
    }

    /// Sends a frame, after all before it. Returns the number under which it will be settled.
    ///
    /// The link keeps whatever it is given: look at [`Link::backlog_bytes`] first.
    pub fn push(&mut self, frame: impl Into<Bytes>) -> u64 {
        self.outbound.push(frame.into(), false)
    }

    /// As [`Link::push`], for a frame that no codec makes shorter, such as one with a sealed body: batches
    /// with it are sent as they are, so that no size follows from luck.
    pub fn push_noise(&mut self, frame: impl Into<Bytes>) -> u64 {
        self.outbound.push(frame.into(), true)
    }

    /// Says that every frame up to and including this number has been acted on for good.
    pub fn settle(&mut self, now: Time, upto: u64) {
        self.inbound.settle(now, upto);
    }

    /// Begins to send an object of so many bytes, but for what the other end holds. [`Link::want`] says which bytes are to be
    /// handed over, and when.
    pub fn send_object(&mut self, transfer: Transfer, size: u64, held: RangeSet<u64>) {
        self.outbound.objects().start(transfer, size, held);
    }

    /// Which bytes of an object are to be handed over next, if few are left to send. To be asked after every input, until
    /// there is none. The same is wanted until it is handed over.
    pub fn want(&mut self) -> Option<Want> {
        self.outbound.objects().want()
    }

    /// Hands over bytes of an object. What is known or beyond its end is ignored.
    pub fn supply(&mut self, transfer: Transfer, offset: u64, bytes: Bytes) {
        self.outbound.objects().supply(transfer, offset, bytes);
    }

    /// Begins to receive an object of so many bytes, some of which are held already.
    ///
    /// # Errors
    /// When the peer broke the protocol: there are too many, or what has come of it already is beyond its end.
    pub fn receive_object(
        &mut self,
        transfer: Transfer,
        size: u64,
        held: RangeSet<u64>,
    ) -> Result<(), LinkError> {
        if self.objects.len() >= TRANSFERS_MAX {
            return Err(LinkError::TooManyTransfers);
        }
        self.objects.start(transfer, size, held)
    }

    /// Says that these bytes of an object are durable.
    pub fn hold(&mut self, now: Time, transfer: Transfer, bytes: Range<u64>) {
        self.objects.hold(transfer, bytes);
        self.inbound.asked(now);
    }

    /// Says that these bytes of an object, which came in a chunk, are not kept: they are taken when they come again.
    pub fn release(&mut self, transfer: Transfer, bytes: Range<u64>) {
        self.objects.release(transfer, bytes);
    }

    /// Ends a transfer in either direction, whether it is complete or not.
    pub fn stop_object(&mut self, transfer: Transfer) {
        self.outbound.stop_object(transfer);
        self.objects.stop(transfer);
    }

    /// From now on both ends gather acknowledgements for so long at most: what nothing calls for waits until it can ride with
    /// something. Zero, as at first, is at once. What waits now leaves when the new time is over.
    pub fn gather_acks(&mut self, now: Time, at_most: Duration) {
        self.inbound.gather(now, at_most);
        self.outbound.expect_gathered(at_most);
    }

    /// Sends again whatever is on its way: the carrier knows that it is lost, as when 0-RTT is refused.
    pub fn resend_all(&mut self) {
        self.outbound.lose_all();
    }

    /// Asks the other end for a sign of life: the path may be back, or another one. Anything that is
    /// heard shows in [`Link::last_heard`].
    pub fn poke(&mut self, now: Time) {
        self.outbound.poke(now);
    }

    /// Sends again what left at this time or before and is still on its way: the carrier knows that it is lost.
    pub fn lose_until(&mut self, at: Time) {
        self.outbound.lose_until(at);
    }

    /// Asks the other end to say again what has arrived: it may have said so, and could not be read. A batch that does leaves
    /// next.
    pub fn ask(&mut self) {
        self.outbound.ask();
    }

    /// A datagram with so much room leaves in any case: the oldest of what is not acknowledged may ride in it, also in a
    /// silence. To be called just before [`Link::poll_transmit`].
    pub fn ride(&mut self, bytes_max: usize) {
        self.outbound.ride(bytes_max);
    }

    /// The path is known to be open, by other means than this link: whatever is on its way is lost, and leaves again.
    pub fn path_is_open(&mut self, now: Time) {
        self.outbound.path_is_open(now);
    }

    /// Learns which dictionaries the other end has, but for those that it could not read with.
    pub fn set_peer_dictionaries(&mut self, peer_has: DictionarySet) {
        self.peer_has = without(peer_has, self.peer_lacks);
    }

    /// Takes in a datagram.
    ///
    /// # Errors
    /// When the peer broke the protocol: close the connection.
    pub fn handle_datagram(&mut self, now: Time, datagram: &[u8]) -> Result<(), LinkError> {
        self.handle_datagram_within(now, datagram, |_| usize::MAX)
    }

    /// Takes in a datagram, but of items and chunks only what there is room for. `room_bytes` is told what the link would hold
    /// with all of it that is new, as [`Link::holds_bytes`] counts, and says what it may. Whatever comes out of order leaves room
    /// for what does not. What is not taken is not acknowledged, and comes
    /// again.
    ///
    /// # Errors
    /// When the peer broke the protocol: close the connection.
    pub fn handle_datagram_within(
        &mut self,
        now: Time,
        datagram: &[u8],
        room_bytes: impl FnOnce(usize) -> usize,
    ) -> Result<(), LinkError> {
        let content = match codec::decode(datagram, BATCH_DECODED_BYTES_MAX) {
            Ok(content) => content,
            Err(CodecError::UnknownCodec(_) | CodecError::UnknownDictionary(_)) => {
                self.unreadable = datagram.first().copied();
                return Ok(());
            }
            Err(error) => return Err(LinkError::Codec(error)),
        };
        let batch = batch::decode(&content)?;
        self.outbound.check(batch.ack.as_ref(), &batch.held)?;
        self.inbound.check(&batch.items)?;
        if let Some(chunk) = &batch.chunk {
            self.objects.check(chunk)?;
        }

        self.last_heard = Some(now);
        if batch.poll {
            self.inbound.asked(now);
            self.objects.asked();
        }

        // Nothing else was ever coded so that the peer could lack it. Each counts once: what it brings about costs more than the byte.
        if let Some(number) = batch.unreadable.and_then(codec::dictionary_number)
            && self.peer_has.contains(number)
        {
            self.peer_lacks = DictionarySet::from_bits(self.peer_lacks.bits() | 1 << number);
            self.peer_has = without(self.peer_has, self.peer_lacks);
            self.outbound.lose_all();
        }
        if batch.ack.is_none() && batch.held.is_empty() {
            self.outbound.heard_unasked(now);
        } else if self.outbound.handle_acks(now, batch.ack.as_ref(), &batch.held) {
            self.settled_event = Some(self.outbound.settled());
        }
        let holds = self.holds_bytes();
        let chunk_needs = batch.chunk.as_ref().map_or(0, |chunk| self.objects.needs_bytes(chunk));
        let needs = chunk_needs + self.inbound.needs_bytes(&batch.items);
        let room = room_bytes(holds + needs).saturating_sub(holds);
        if let Some(chunk) = &batch.chunk
            && self.objects.handle(chunk, room)?
        {
            self.inbound.asked(now);
        }
        self.inbound.handle_items(now, &batch.items, room)
    }

    /// Lets time-driven things happen.
    pub fn handle_timeout(&mut self, now: Time) {
        self.outbound.handle_timeout(now);
    }

    /// When [`Link::handle_timeout`] and [`Link::poll_transmit`] are to be called next, if nothing else
    /// happens before.
    pub fn poll_timeout(&self) -> Option<Time> {
        [self.outbound.timeout(), self.inbound.ack_due()].into_iter().flatten().min()
    }

    /// What has happened, until there is nothing more.
    pub fn poll_event(&mut self) -> Option<Event> {
        if let Some(upto) = self.settled_event.take() {
            return Some(Event::Settled { upto });
        }
        if let Some((number, bytes)) = self.inbound.poll_frame() {
            return Some(Event::Frame { number, bytes });
        }
        if let Some((transfer, offset, bytes)) = self.objects.poll_chunk() {
            return Some(Event::Chunk { transfer, offset, bytes });
        }
        let (transfer, held_bytes) = self.outbound.objects().poll_progress()?;
        Some(Event::Progress { transfer, held_bytes })
    }

    /// The next datagram to send, until there is none. `bytes_max` is what the carrier takes in one.
    pub fn poll_transmit(&mut self, now: Time, bytes_max: usize) -> Option<Vec<u8>> {
        let ack_is_due = self.inbound.ack_due().is_some_and(|due| due <= now);
        let poll = self.outbound.take_poll();
        // What is sent again was lost, perhaps with an acknowledgement that rode with it.
        let ack = self.inbound.ack(poll || self.outbound.sends_again());
        let held = if ack.is_some() { self.objects.statements() } else { Vec::new() };
        let base = Batch { unreadable: self.unreadable, poll, ack, held, ..Batch::default() };
        if !poll
            && let Some((datagram, says_all)) =
                self.outbound.poll_transmit(now, bytes_max, base.clone(), self.peer_has)
        {
            if says_all {
                self.sent_ack(&base);
            }
            return Some(datagram);
        }
        if !ack_is_due && self.unreadable.is_none() && !poll {
            return None;
        }
        let mut content = Vec::new();
        base.encode(&mut content);
        let mut datagram = Vec::with_capacity(content.len() + 1);
        codec::encode_best(&content, self.peer_has, &mut datagram);
        self.sent_ack(&base);
        Some(datagram)
    }

    fn sent_ack(&mut self, base: &Batch<'_>) {
        self.objects.stated(&base.held);
        self.unreadable = None;
        self.inbound.ack_sent();
    }

    /// What the link holds, bytes: of what was pushed and the peer has not settled, and of what the peer has sent and the
    /// shell has not settled or held, with what belongs to each. The shell's part is counted in.
    pub fn holds_bytes(&self) -> usize {
        self.outbound.holds_bytes() + self.inbound.holds_bytes() + self.objects.holds_bytes()
    }

    /// Bytes pushed that have not been sent once.
    pub fn backlog_bytes(&self) -> usize {
        self.outbound.backlog_bytes()
    }

    /// How many more items may be pushed before the window is full.
    pub fn free_items(&self) -> u64 {
        WINDOW_ITEMS.saturating_sub(self.outbound.items())
    }

    /// Whether everything that was pushed is settled, and everything that arrived is acknowledged.
    pub fn is_at_rest(&self) -> bool {
        self.outbound.is_at_rest()
            && self.inbound.is_at_rest()
            && self.objects.is_at_rest()
            && self.settled_event.is_none()
    }

    /// When the last datagram came that the peer's link had written.
    pub fn last_heard(&self) -> Option<Time> {
        self.last_heard
    }

    /// How long the path has been taken for dead: since what was sent first and is not answered.
    pub fn silent_for(&self, now: Time) -> Option<Duration> {
        self.outbound.silent_for(now)
    }

    /// The smoothed round-trip time, or the assumed one.
    pub fn rtt(&self) -> Duration {
        self.outbound.rtt()
    }

    /// The shortest round trip that was measured, if any: what the path takes when nothing queues.
    pub fn least_rtt(&self) -> Option<Duration> {
        self.outbound.least_rtt()
    }

    /// Bytes of chunks so far that came though they had come before on this link, or were held when it began.
    pub fn repeated_chunk_bytes(&self) -> u64 {
        self.objects.repeated_bytes()
    }

    /// Items sent more than once so far.
    pub fn resent_items(&self) -> u64 {
        self.outbound.resent_items()
    }
}

/// What is in the first set and not in the second.
fn without(set: DictionarySet, other: DictionarySet) -> DictionarySet {
    DictionarySet::from_bits(set.bits() & !other.bits())
}

#[cfg(test)]
mod tests;
