//! The sending half: keeps items until they are settled, and decides what leaves, and when.

mod fill;

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use self::fill::Filled;
use super::estimate::{Loss, Rtt, Window};
use super::objects::{Flight, ObjectsOutbound};
use super::pace::{Pace, Path};
use super::silence::{Ask, Pauses, Silence};
use super::{LinkConfig, LinkError, Time};
use crate::batch::{Ack, Batch, Chunk, Held, Transfer};
use crate::codec::{self, Codec, DictionarySet};
use crate::limits::WINDOW_ITEMS;

/// Longest item, bytes: with everything around it, it fits the smallest datagram of a QUIC path.
pub(super) const ITEM_BYTES_MAX: usize = 1_000;

/// Where losses are no exception, items of so many bytes leave again between chunks, until they have left so often: a text
/// does not wait for its loss to be noticed, which takes two round trips beside an object.
const COPIED_BYTES: usize = 256;
const COPIED_UNTIL_SENT: u32 = 4;

/// What left so many datagrams before one that has arrived is lost (RFC 9002, section 6.1.1).
const REORDERED: u64 = 3;

/// So long after an item there may be more.
const TALKING: Duration = Duration::from_secs(30);

#[derive(Debug)]
struct Entry {
    bytes: Bytes,
    more: bool,
    /// No codec makes it shorter.
    is_noise: bool,
    state: State,
    /// How often it has been sent.
    sent: u32,
}

impl Entry {
    fn flying_bytes(&self) -> u64 {
        match self.state {
            State::Flying { wire_bytes, .. } => wire_bytes,
            State::Waiting | State::Arrived => 0,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// To be sent, for the first time or again.
    Waiting,
    /// Sent in the datagram of this number at this time; its share of the datagram was `wire_bytes`.
    Flying { datagram: u64, at: Time, wire_bytes: u64 },
    /// The other end has it, but has not settled it.
    Arrived,
}

#[derive(Debug)]
pub(super) struct Outbound {
    /// The number before the first entry: everything up to here is settled.
    settled: u64,
    entries: VecDeque<Entry>,
    /// How many entries, from the end, have never been sent.
    unsent: usize,
    backlog_bytes: usize,
    /// All entries' bytes.
    items_bytes: usize,
    flying_bytes: u64,
    /// The newest datagram of which something was acknowledged.
    newest_acked: u64,
    datagrams: u64,
    rtt: Rtt,
    loss: Loss,
    window: Window,
    objects: ObjectsOutbound,
    pace: Pace,
    silence: Silence,
    /// The newest datagram with a chunk.
    newest_chunk: u64,
    /// The room that the latest datagram had for a chunk and its head, whether there was one to put in or not.
    chunk_room: usize,
    /// When an item last left for the first time while chunks were on their way.
    said_at: Option<Time>,
    /// Polls that are to leave.
    polls: u32,
    /// One datagram may leave even though the window is full.
    probe: bool,
    /// How long the other end may gather what it acknowledges.
    gathered: Duration,
    /// Coded bytes per byte of content, as the last batches had it.
    ratio: f64,
    resent_items: u64,
}

impl Outbound {
    pub(super) fn new(config: &LinkConfig) -> Self {
        Self {
            settled: 0,
            entries: VecDeque::new(),
            unsent: 0,
            backlog_bytes: 0,
            items_bytes: 0,
            flying_bytes: 0,
            newest_acked: 0,
            datagrams: 0,
            rtt: Rtt::new(config.initial_rtt, config.is_rtt_measured),
            loss: Loss::default(),
            window: Window::default(),
            objects: ObjectsOutbound::default(),
            pace: Pace::default(),
            silence: Silence::new(config.poll_pause_max),
            newest_chunk: 0,
            chunk_room: ITEM_BYTES_MAX,
            said_at: None,
            polls: 0,
            probe: false,
            gathered: Duration::ZERO,
            ratio: 0.5,
            resent_items: 0,
        }
    }

    pub(super) fn objects(&mut self) -> &mut ObjectsOutbound {
        &mut self.objects
    }

    pub(super) fn push(&mut self, frame: Bytes, is_noise: bool) -> u64 {
        let mut rest = frame;
        loop {
            let part = rest.split_to(rest.len().min(ITEM_BYTES_MAX));
            self.backlog_bytes += part.len();
            self.items_bytes += part.len();
            self.unsent += 1;
            let more = !rest.is_empty();
            self.entries.push_back(Entry { bytes: part, more, is_noise, state: State::Waiting, sent: 0 });
            if !more {
                return self.settled + self.entries.len() as u64;
            }
        }
    }

    /// Whether acknowledgements speak of what was sent, before anything changes.
    pub(super) fn check(&self, ack: Option<&Ack>, held: &[Held]) -> Result<(), LinkError> {
        for held in held {
            self.objects.check(held.transfer, &held.bytes)?;
        }
        let Some(ack) = ack else { return Ok(()) };
        let highest = ack.received.last().map_or(ack.watermark, |&(_, last)| last);
        let sent = self.settled + (self.entries.len() - self.unsent) as u64;
        if highest > sent { Err(LinkError::AckOfUnsent(highest)) } else { Ok(()) }
    }

    /// Takes in an acknowledgement of items, if there is one, and of chunks. Returns whether the watermark moved.
    pub(super) fn handle_acks(&mut self, now: Time, ack: Option<&Ack>, held: &[Held]) -> bool {
        let flying_before = self.flying_bytes;
        let mut newly = Newly::default();
        for held in held {
            self.objects.handle_held(held.transfer, &held.bytes, &mut newly);
        }
        let none = Ack::default();
        let ack = ack.unwrap_or(&none);
        let moved = ack.watermark > self.settled;
        while self.settled < ack.watermark
            && let Some(entry) = self.entries.pop_front()
        {
            self.settled += 1;
            self.items_bytes -= entry.bytes.len();
            newly.count(&entry);
        }
        for &(first, last) in &ack.received {
            for number in first.max(self.settled + 1)..=last {
                if let Some(entry) = self.entries.get_mut((number - self.settled - 1) as usize) {
                    newly.count(entry);
                    entry.state = State::Arrived;
                }
            }
        }
        self.flying_bytes -= newly.bytes;
        debug_assert_eq!(self.flying_bytes, self.entries.iter().map(Entry::flying_bytes).sum::<u64>());
        let silent_for = self.silent_for(now);
        let was_silent = silent_for.is_some();
        let news = newly.any || moved;
        self.probe &= !news;
        // After a silence that anybody hears is news, if there is something to send.
        let waits = self.waits();
        let more = waits || self.awaits();
        self.silence.heard(now, news || was_silent && waits, more);
        if let Some(silence) = silent_for {
            self.start_anew(silence);
        }
        self.newest_acked = self.newest_acked.max(newly.datagram);
        if let Some(sent_bytes) = newly.chunk_sent_bytes {
            let rtt = newly.chunk_sent_once_at.map(|at| now.since(at));
            let path = Path {
                least_rtt: self.rtt.least().unwrap_or(self.rtt.smoothed()),
                flying_bytes: self.objects.flying_bytes(),
            };
            self.pace.held(now, rtt, sent_bytes, path);
        }
        // What is gathered says nothing of the path.
        let sent_once_at = newly.sent_once_at.filter(|_| self.gathered.is_zero());
        if let Some(sent_at) = sent_once_at.max(newly.chunk_sent_once_at) {
            self.rtt.sample(now.since(sent_at));
        }
        if newly.chunk_sent_bytes.is_some() {
            self.loss.count(false);
        }
        if newly.bytes > 0 {
            self.loss.count(false);
            self.window.acked(now, newly.bytes, flying_before, &self.rtt);
        }
        self.lose_overtaken(now);
        moved
    }

    /// Whether anything waits that may leave when there is room for it on its way.
    fn waits(&self) -> bool {
        let mut may_leave = self.entries.iter().take(WINDOW_ITEMS as usize);
        may_leave.any(|entry| entry.state == State::Waiting) || self.objects.waits()
    }

    /// Whether the other end has something to answer.
    fn awaits(&self) -> bool {
        self.entries.len() > self.unsent || self.objects.flying().next().is_some()
    }

    /// An object is not sent any further.
    pub(super) fn stop_object(&mut self, transfer: Transfer) {
        // In a silence a poll may have left, and is to be answered in any case.
        if self.objects.stop(transfer) && !self.waits() && !self.awaits() && !self.silence.is_on() {
            self.silence.ended();
        }
    }

    /// Whether what leaves next has left before.
    pub(super) fn sends_again(&self) -> bool {
        self.entries.iter().find(|entry| entry.state == State::Waiting).is_some_and(|entry| entry.sent > 0)
    }

    /// The other end gathers what it acknowledges for so long.
    pub(super) fn expect_gathered(&mut self, at_most: Duration) {
        self.gathered = at_most;
    }

    /// Everything on its way must be sent again: the other end could not read it.
    pub(super) fn lose_all(&mut self) {
        self.lose(|_, _| true);
    }

    /// What left at this time or before must be sent again.
    pub(super) fn lose_until(&mut self, until: Time) {
        self.lose(|_, at| at <= until);
    }

    /// Loses what left so long before something that has arrived that it cannot be on its way.
    fn lose_overtaken(&mut self, now: Time) {
        let newest_acked = self.newest_acked;
        let loss_after = self.rtt.loss_after();
        let flying_bytes = self.objects.flying_bytes();
        let is_lost = |datagram: u64, at: Time| {
            datagram + REORDERED <= newest_acked || datagram < newest_acked && at + loss_after <= now
        };
        if self.lose(is_lost) {
            self.loss.count(true);
            self.pace.lost(now, flying_bytes);
        }
    }

    /// Whether there was any.
    fn lose(&mut self, is_lost: impl Fn(u64, Time) -> bool) -> bool {
        let mut any = false;
        for entry in &mut self.entries {
            if let State::Flying { datagram, at, wire_bytes } = entry.state
                && is_lost(datagram, at)
            {
                entry.state = State::Waiting;
                self.flying_bytes -= wire_bytes;
                any = true;
            }
        }
        self.objects.lose(is_lost) || any
    }

    fn flying(&self) -> impl Iterator<Item = (u64, Time)> {
        let items = self.entries.iter().filter_map(|entry| match entry.state {
            State::Flying { datagram, at, .. } => Some((datagram, at)),
            State::Waiting | State::Arrived => None,
        });
        items.chain(self.objects.flying())
    }

    /// When something on its way is overtaken for good, the resend timer runs out, or the next chunk may leave.
    pub(super) fn timeout(&self) -> Option<Time> {
        let overtaken = self
            .flying()
            .filter(|&(datagram, _)| datagram < self.newest_acked)
            .map(|(_, at)| at + self.rtt.loss_after())
            .min();
        let may_send =
            self.pace.has_room(self.objects.flying_bytes(), self.loss.is_high()) && !self.silence.is_on();
        // Where none can be made, only an input changes that, and what may leave is asked after each.
        let has_chunk = may_send && self.objects.next_chunk(self.chunk_room).is_some();
        let paced = has_chunk.then(|| self.pace.next_at());
        overtaken.into_iter().chain(self.resend_at()).chain(paced).min()
    }

    fn resend_at(&self) -> Option<Time> {
        let oldest = self.flying().map(|(_, at)| at).min();
        {
            let next = self.rtt.resend_after();
            let pauses = Pauses { first: next + self.gathered, next, round_trip: self.rtt.smoothed() };
            self.silence.due(oldest, pauses, self.is_quick())
        }
    }

    /// Whether timers after the first are quick: where losses are no exception, and it is known how long answers take.
    fn is_quick(&self) -> bool {
        self.rtt.is_measured() && self.loss.is_high()
    }

    pub(super) fn handle_timeout(&mut self, now: Time) {
        self.lose_overtaken(now);
        if self.resend_at().is_none_or(|at| at > now) {
            return;
        }
        let is_first = !self.silence.is_awaiting_again();
        let ask = self.silence.timed_out(now, self.is_quick());
        if is_first {
            self.rtt.silence_began();
            self.loss.count(true);
        }
        if self.silence.is_on() {
            self.lose_all();
            self.probe = false;
        }
        let asks_by_content = match ask {
            Ask::Again(bytes_max) => self.repeat_oldest(bytes_max),
            Ask::Short(bytes_max) => self.lose_oldest(bytes_max),
            Ask::Poll => false,
        };
        if asks_by_content {
            self.window.timed_out();
            self.probe = true;
        } else {
            // What has arrived but is not settled for long is asked after, too: the other end may have been restarted.
            self.polls = 1;
        }
    }

    /// Takes the oldest items on their way for lost, up to so many bytes, or the oldest chunk if no item and no other chunk
    /// can ask for an answer. Whether anything waits to be sent now: these, or what waited for the window.
    fn repeat_oldest(&mut self, bytes_max: usize) -> bool {
        self.lose_oldest(bytes_max);
        if !self.waits() {
            self.objects.repeat_oldest();
        }
        self.waits()
    }

    /// Takes the oldest items on their way for lost, up to so many bytes. Whether there was any.
    fn lose_oldest(&mut self, bytes_max: usize) -> bool {
        let (mut bytes, mut any) = (0, false);
        for entry in &mut self.entries {
            let State::Flying { wire_bytes, .. } = entry.state else { continue };
            bytes += entry.bytes.len();
            if bytes > bytes_max {
                break;
            }
            entry.state = State::Waiting;
            self.flying_bytes -= wire_bytes;
            any = true;
        }
        any
    }

    /// Takes the oldest items on their way for lost if a chunk has left since, a few times.
    fn repeat_between_chunks(&mut self) {
        let mut bytes = 0;
        for entry in &mut self.entries {
            let State::Flying { datagram, wire_bytes, .. } = entry.state else { continue };
            bytes += entry.bytes.len();
            if bytes > COPIED_BYTES {
                break;
            }
            if entry.sent < COPIED_UNTIL_SENT && datagram < self.newest_chunk {
                entry.state = State::Waiting;
                self.flying_bytes -= wire_bytes;
            }
        }
    }

    /// The other end was heard, but does not answer for what was sent: perhaps nothing of it has arrived. In a silence
    /// that is reason enough to send the first of it, or to ask.
    pub(super) fn heard_unasked(&mut self, now: Time) {
        if self.silence.may_ask_unasked(now) {
            self.probe = self.waits();
            self.polls = u32::from(!self.probe);
        }
    }

    /// A datagram with so much room leaves in any case: the oldest items ride in it.
    pub(super) fn ride(&mut self, bytes_max: usize) {
        self.probe = self.repeat_oldest(bytes_max);
    }

    pub(super) fn path_is_open(&mut self, now: Time) {
        self.lose_all();
        let waits = self.waits();
        let silence = self.silent_for(now);
        self.silence.heard(now, true, waits);
        self.start_anew(silence.unwrap_or_default());
    }

    /// What is known of the path is from before a silence.
    fn start_anew(&mut self, silence: Duration) {
        self.window = Window::default();
        self.pace.after_silence(silence);
    }

    /// Asks the other end for a sign of life.
    pub(super) fn poke(&mut self, now: Time) {
        self.silence.restart(now);
        self.polls = 1;
        self.lose_all();
    }

    /// Asks the other end what has arrived.
    pub(super) fn ask(&mut self) {
        self.polls = 1;
    }

    /// Whether the next datagram is to be a poll.
    pub(super) fn take_poll(&mut self) -> bool {
        let polls = self.polls > 0;
        self.polls -= u32::from(polls);
        polls
    }

    /// The next datagram with items or a chunk in it, or none if there is nothing that may go: `base` completed, and
    /// whether all that `base` says is in it.
    pub(super) fn poll_transmit(
        &mut self,
        now: Time,
        bytes_max: usize,
        base: Batch<'_>,
        peer_has: DictionarySet,
    ) -> Option<(Vec<u8>, bool)> {
        if self.silence.is_on() && !self.probe {
            return None;
        }
        let is_lossy = self.loss.is_high();
        let may_send_chunk = self.pace.may_send(now, self.objects.flying_bytes(), is_lossy);
        if may_send_chunk && is_lossy && self.objects.waits() {
            self.repeat_between_chunks();
        }
        let is_full = self.flying_bytes > 0 && self.flying_bytes >= self.window.bytes() && !self.probe;
        let items = if is_full { None } else { self.fill(bytes_max, base.clone(), peer_has) };
        let Some(Filled { numbers, datagram, content_len, says_all }) = items else {
            let may_send_chunk = may_send_chunk || self.probe;
            let chunk = may_send_chunk.then(|| self.transmit_chunk(now, bytes_max, base)).flatten();
            return chunk.map(|datagram| (datagram, true));
        };
        self.left(now, &datagram);
        self.ratio = (self.ratio * 3.0 + datagram.len() as f64 / content_len as f64) / 4.0;
        let has_chunks = self.objects.flying().next().is_some();
        for number in numbers {
            let entry = &mut self.entries[(number - self.settled - 1) as usize];
            let share = (datagram.len() * entry.bytes.len()).div_ceil(content_len) as u64;
            entry.state = State::Flying { datagram: self.datagrams, at: now, wire_bytes: share };
            self.flying_bytes += share;
            if entry.sent == 0 {
                if has_chunks {
                    self.said_at = Some(now);
                }
                self.unsent -= 1;
                self.backlog_bytes -= entry.bytes.len();
            } else {
                self.resent_items += 1;
            }
            entry.sent += 1;
        }
        Some((datagram, says_all))
    }

    /// A datagram is about to leave that is to be answered. Returns how many bytes have left with it.
    fn left(&mut self, now: Time, datagram: &[u8]) -> u64 {
        self.datagrams += 1;
        self.probe = false;
        self.silence.sent(now);
        self.pace.sent(now, datagram.len(), self.rtt.smoothed())
    }

    fn transmit_chunk(&mut self, now: Time, bytes_max: usize, base: Batch<'_>) -> Option<Vec<u8>> {
        let is_talking = self.said_at.is_some_and(|at| now.since(at) < TALKING);
        let bytes_max = bytes_max.min(self.pace.set_talking(is_talking));
        let mut datagram = Vec::with_capacity(bytes_max);
        let mut content = Vec::with_capacity(bytes_max);
        base.encode(&mut content);
        self.chunk_room = bytes_max.saturating_sub(1 + content.len());
        let (transfer, range) = self.objects.next_chunk(self.chunk_room)?;
        let bytes = self.objects.read(transfer, &range);
        content.clear();
        let chunk = Some(Chunk { transfer, offset: range.start, bytes: &bytes });
        Batch { chunk, ..base }.encode(&mut content);
        codec::encode_as(Codec::Raw, &content, &mut datagram);
        if self.objects.flying_bytes() == 0 {
            self.pace.rested(now);
        }
        let sent_bytes = self.left(now, &datagram);
        self.newest_chunk = self.datagrams;
        let flight = Flight {
            datagram: self.datagrams,
            at: now,
            bytes: range,
            wire_bytes: datagram.len() as u64,
            sent_bytes,
        };
        self.objects.left(transfer, flight);
        Some(datagram)
    }

    pub(super) fn settled(&self) -> u64 {
        self.settled
    }

    pub(super) fn items(&self) -> u64 {
        self.entries.len() as u64
    }

    pub(super) fn backlog_bytes(&self) -> usize {
        self.backlog_bytes
    }

    /// What it holds until the other end has settled it, bytes.
    pub(super) fn holds_bytes(&self) -> usize {
        self.items_bytes + self.entries.len() * size_of::<Entry>() + self.objects.holds_bytes()
    }

    pub(super) fn rtt(&self) -> Duration {
        self.rtt.smoothed()
    }

    pub(super) fn least_rtt(&self) -> Option<Duration> {
        self.rtt.least()
    }

    pub(super) fn resent_items(&self) -> u64 {
        self.resent_items
    }

    pub(super) fn is_at_rest(&self) -> bool {
        self.entries.is_empty() && self.silence.since().is_none() && self.objects.is_at_rest()
    }

    pub(super) fn silent_for(&self, now: Time) -> Option<Duration> {
        let since = self.silence.since().filter(|_| self.silence.is_on())?;
        Some(now.since(since))
    }
}

/// What acknowledgements newly say of what was on its way.
#[derive(Default)]
pub(super) struct Newly {
    pub(super) any: bool,
    /// Of items.
    bytes: u64,
    datagram: u64,
    /// When the latest left of those that left once.
    sent_once_at: Option<Time>,
    chunk_sent_once_at: Option<Time>,
    /// How much had left with the latest chunk.
    chunk_sent_bytes: Option<u64>,
}

impl Newly {
    /// A chunk has arrived.
    pub(super) fn chunk(&mut self, flight: &Flight, is_first: bool) {
        self.any = true;
        self.datagram = self.datagram.max(flight.datagram);
        self.chunk_sent_once_at = self.chunk_sent_once_at.max(is_first.then_some(flight.at));
        self.chunk_sent_bytes = self.chunk_sent_bytes.max(Some(flight.sent_bytes));
    }

    fn count(&mut self, entry: &Entry) {
        self.any |= entry.state != State::Arrived;
        if let State::Flying { datagram, at, wire_bytes } = entry.state {
            self.bytes += wire_bytes;
            self.datagram = self.datagram.max(datagram);
            if entry.sent == 1 {
                self.sent_once_at = Some(self.sent_once_at.map_or(at, |other| other.max(at)));
            }
        }
    }
}
