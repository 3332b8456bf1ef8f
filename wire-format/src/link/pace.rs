//! When the next chunk of an object may leave.
//!
//! A text must not wait behind an object, and the modem's queue is where it would wait. So chunks leave one by one, at the
//! rate at which the path takes them. That rate is measured: between two acknowledgements the path has taken all that
//! was sent between the two chunks that they speak of, whether it arrived or not. It is too low where the path could take
//! more, so the pace is above it while round trips say that nothing queues, and below it while they say that more does than
//! is aimed at. Loss says nothing: it is what the air does.

mod contest;

use std::collections::VecDeque;
use std::time::Duration;

use self::contest::Contest;
use super::Time;

/// What a datagram weighs on the air beside its content: IPv4 and UDP headers, QUIC's short header with a connection id of
/// four bytes, tag and frame type.
const PACKET_OVERHEAD: u64 = 53;
const PACKET: f64 = 1_228.0;

/// So many full packets a round trip at first.
const FIRST_PACKETS: f64 = 4.0;

/// The slowest pace, bytes a second: a packet in ten seconds still finds out that the path has become faster.
const RATE_MIN: f64 = PACKET / 10.0;

/// How much of a queue is aimed at, in units: so that the path is never idle, or, while texts come and go, so that they do not wait. A
/// unit is a packet at the measured rate, and what delays are taken to vary by without any queue. The first part is longer for
/// whoever has the smaller share of a path, so that two of them come together.
const QUEUE: f64 = 0.4;
const TALKING_QUEUE: f64 = 0.2;

/// The second part of a unit: so many times the mean change of round trips, within these bounds.
const VARIES_CHANGES: f64 = 3.0;
const VARIES_MIN: Duration = Duration::from_millis(250);
const VARIES_MAX: Duration = Duration::from_millis(500);

/// How much the latest change counts in their mean.
const CHANGES_SMOOTHING: f64 = 1.0 / 16.0;

/// How much faster than the measured rate the pace is at most, until a queue shows for the first time and from then on;
/// how much slower at most.
const FASTER_FIRST: f64 = 1.0;
const FASTER: f64 = 0.15;
const SLOWER: f64 = 0.15;

/// From so many times more than what is aimed at on, the pace is not slower still.
const SHORTFALL_MAX: f64 = 4.0;

/// How much the latest round trip counts.
const SMOOTHING: f64 = 0.7;

/// More than what the path holds may be on its way by so many packets: a bound where the path has become slower at a
/// stroke. Where losses are no exception, it must not bind while a burst of them swallows acknowledgements.
const BEYOND: f64 = 6.0;
const BEYOND_LOSSY: f64 = 9.0;

/// How many packets may be on their way until anything is known.
const BEYOND_FIRST: f64 = 4.0;

/// The rate is measured over so many bytes: sixteen full packets.
const MEASURED_BYTES: u64 = 16 * PACKET as u64;

/// While texts come and go, a chunk takes so long to leave at most, if it need not be smaller than this for it: for what it takes, a text
/// waits that is written just after it has left.
const TALKING_CHUNK: Duration = Duration::from_millis(250);
const TALKING_CHUNK_MIN: f64 = 400.0;

/// For how long the shortest round trip is believed, at least.
const LEAST_FOR: Duration = Duration::from_secs(30);

/// A queue of so many units, or so long, is another's if it has not become shorter for so long, and for a round trip: by this share of
/// what a pace below the measured rate would have taken out of it. No link of this kind keeps such a queue, unless its share
/// of the path is a tenth.
const FOREIGN_UNITS: f64 = 3.0;
const FOREIGN: Duration = Duration::from_secs(6);
const FOREIGN_AFTER: Duration = Duration::from_secs(4);
const FOREIGN_SHARE: f64 = 0.7;

/// Beside another's queue, as much may be on its way at first as would have kept this share of the rate of before, or as many packets, as any new
/// flow may have (RFC 6928), whichever is more.
const CONTEST_SHARE: f64 = 0.7;
const CONTEST_PACKETS: f64 = 10.0;

/// What else is known of the path when a chunk is held.
#[derive(Clone, Copy, Debug)]
pub(super) struct Path {
    /// The shortest round trip of all.
    pub(super) least_rtt: Duration,
    /// How many bytes of chunks are on their way.
    pub(super) flying_bytes: u64,
}

/// The pace of chunks.
#[derive(Debug)]
pub(super) struct Pace {
    next_at: Time,
    /// All that has left so far.
    sent_bytes: u64,
    /// When acknowledgements came, and how much had left when the chunk had that they spoke of.
    taken: VecDeque<(Time, u64)>,
    /// Bytes a second.
    rate: Option<f64>,
    /// Whether texts come and go.
    is_talking: bool,
    /// Whether a queue has shown.
    has_queued: bool,
    /// Round trips of chunks, seconds: smoothed, and the least of this span of time and of the one before it.
    smoothed: f64,
    /// By how much each differs from the smoothed ones before it, on average.
    changes: f64,
    least: [f64; 2],
    span_began: Time,
    /// The shortest round trip of the connection, when the first chunk was held or as a contest has shown it, seconds.
    path: Option<f64>,
    /// Since when the queue is too long and does not become shorter, and how long round trips were then.
    too_long: Option<(Time, f64)>,
    /// The rate when the queue was last no longer than twice what is aimed at.
    rate_before: f64,
    /// No queue is too long before.
    suspects_from: Time,
    /// While the queue is another's.
    contest: Option<Contest>,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            next_at: Time::default(),
            sent_bytes: 0,
            taken: VecDeque::new(),
            rate: None,
            is_talking: false,
            has_queued: false,
            smoothed: 0.0,
            changes: 0.0,
            least: [f64::INFINITY; 2],
            span_began: Time::default(),
            path: None,
            too_long: None,
            rate_before: 0.0,
            suspects_from: Time::default(),
            contest: None,
        }
    }
}

impl Pace {
    /// The next moment at which a chunk may leave.
    pub(super) fn next_at(&self) -> Time {
        self.next_at
    }

    /// Whether a chunk may leave while so many bytes of chunks are on their way, when it is time. `is_lossy`: losses are no
    /// exception.
    pub(super) fn has_room(&self, flying_bytes: u64, is_lossy: bool) -> bool {
        if let Some(contest) = &self.contest {
            return (flying_bytes as f64) < contest.window();
        }
        let room = match self.rate.zip(self.least()) {
            None => BEYOND_FIRST * PACKET,
            Some((rate, least)) => rate * least + if is_lossy { BEYOND_LOSSY } else { BEYOND } * PACKET,
        };
        (flying_bytes as f64) < room
    }

    /// Whether a chunk may leave now.
    pub(super) fn may_send(&self, now: Time, flying_bytes: u64, is_lossy: bool) -> bool {
        self.next_at <= now && self.has_room(flying_bytes, is_lossy)
    }

    /// Says whether texts come and go. Returns the largest datagram that a chunk may fill.
    pub(super) fn set_talking(&mut self, is_talking: bool) -> usize {
        self.is_talking = is_talking;
        let rate = self.rate.filter(|_| is_talking).unwrap_or(f64::INFINITY);
        (rate * TALKING_CHUNK.as_secs_f64()).clamp(TALKING_CHUNK_MIN, PACKET) as usize
    }

    fn least(&self) -> Option<f64> {
        let least = self.least[0].min(self.least[1]);
        least.is_finite().then_some(least)
    }

    /// A datagram leaves, with a chunk or without: it takes its time on the path. `rtt` is assumed where nothing else is
    /// known. Returns how much has left.
    pub(super) fn sent(&mut self, now: Time, datagram_bytes: usize, rtt: Duration) -> u64 {
        let bytes = datagram_bytes as u64 + PACKET_OVERHEAD;
        self.sent_bytes += bytes;
        let first_rate = FIRST_PACKETS * PACKET / rtt.as_secs_f64().max(0.001);
        let rate = self.rate.unwrap_or(first_rate).max(RATE_MIN);
        let shortfall = self.shortfall();
        let most = match shortfall {
            ..0.0 => SLOWER,
            _ if self.has_queued => FASTER,
            _ => FASTER_FIRST,
        };
        let pace = match &self.contest {
            Some(contest) => contest.pace(self.smoothed),
            None => rate * (1.0 + most * shortfall),
        };
        let pace = pace.max(RATE_MIN);
        // Items may leave faster than is known to be possible; a chunk does not wait for more of them than fill a round trip.
        self.next_at = self.next_at.clamp(now, now + rtt) + Duration::from_secs_f64(bytes as f64 / pace);
        self.sent_bytes
    }

    /// By how much the queue is too short, as a share of what is aimed at: 1 if there is none, -1 if it is twice that.
    fn shortfall(&self) -> f64 {
        let Some((queued, unit)) = self.queue() else { return 0.0 };
        let share = if self.is_talking { TALKING_QUEUE } else { QUEUE };
        (1.0 - queued / (share * unit)).clamp(-SHORTFALL_MAX, 1.0)
    }

    /// How long round trips queue, and how long a unit is, seconds.
    fn queue(&self) -> Option<(f64, f64)> {
        let (rate, least) = self.rate.zip(self.least())?;
        let varies =
            (VARIES_CHANGES * self.changes).clamp(VARIES_MIN.as_secs_f64(), VARIES_MAX.as_secs_f64());
        Some((self.smoothed - least, PACKET / rate + varies))
    }

    /// A chunk is held. `rtt`: so long after it left, if it left once; `sent_bytes`: what had left with it.
    pub(super) fn held(&mut self, now: Time, rtt: Option<Duration>, sent_bytes: u64, path: Path) {
        if let Some(rtt) = rtt {
            self.sample(now, rtt.as_secs_f64());
            self.contend(now, path);
        }
        if self.taken.back().is_some_and(|&(at, bytes)| at >= now || bytes >= sent_bytes) {
            return;
        }
        self.taken.push_back((now, sent_bytes));
        while self.taken.get(1).is_some_and(|&(_, second)| sent_bytes - second >= MEASURED_BYTES) {
            self.taken.pop_front();
        }
        let (Some(first), Some(last)) = (self.taken.front(), self.taken.back()) else { return };
        if self.taken.len() > 2 {
            let seconds = last.0.since(first.0).as_secs_f64();
            self.rate = Some(((last.1 - first.1) as f64 / seconds).max(RATE_MIN));
        }
        self.has_queued |= self.shortfall() < 0.0;
    }

    fn sample(&mut self, now: Time, rtt: f64) {
        if self.least().is_none() {
            (self.smoothed, self.span_began) = (rtt, now);
        }
        // While the queue is another's, or may be, round trips say nothing of the path.
        if now.since(self.span_began) >= LEAST_FOR && self.too_long.is_none() && self.contest.is_none() {
            self.span_began = now;
            self.least = [rtt, self.least[0]];
        }
        self.least[0] = self.least[0].min(rtt);
        self.changes += ((rtt - self.smoothed).abs() - self.changes) * CHANGES_SMOOTHING;
        self.smoothed += (rtt - self.smoothed) * SMOOTHING;
    }

    /// Finds out whether the queue is another's.
    fn contend(&mut self, now: Time, path: Path) {
        let Some(((queued, unit), rate)) = self.queue().zip(self.rate) else { return };
        let smoothed = self.smoothed;
        let least = *self.path.get_or_insert(path.least_rtt.as_secs_f64());
        // The shortest of the last minute may have queued, too.
        let queued = queued.max(smoothed - least - PACKET / rate);
        if let Some(contest) = &mut self.contest {
            if let Some(rtt) = contest.held(now, smoothed, queued, path.flying_bytes) {
                self.contest = None;
                (self.least, self.span_began) = ([rtt.max(smoothed - queued), f64::INFINITY], now);
                self.path = Some(self.least[0]);
                // What left before shows for another round trip.
                self.too_long = None;
                self.suspects_from = now + Duration::from_secs_f64(2.0 * smoothed - rtt);
            }
            return;
        }
        let shortfall = self.shortfall();
        if shortfall > -1.0 {
            self.rate_before = rate;
        }
        if now < self.suspects_from || queued < FOREIGN.as_secs_f64().min(FOREIGN_UNITS * unit) {
            self.too_long = None;
            return;
        }
        let (since, before) = *self.too_long.get_or_insert((now, smoothed));
        let seconds = now.since(since).as_secs_f64();
        if seconds < FOREIGN_AFTER.as_secs_f64().max(smoothed) {
            return;
        }
        let gets_shorter = before - smoothed > FOREIGN_SHARE * SLOWER * (-shortfall).max(1.0) * seconds;
        self.too_long = gets_shorter.then_some((now, smoothed));
        if !gets_shorter {
            let window = (self.rate_before * smoothed * CONTEST_SHARE).max(CONTEST_PACKETS * PACKET);
            self.contest = Some(Contest::new(now, smoothed, window));
        }
    }

    /// A chunk leaves, and none was on its way.
    pub(super) fn rested(&mut self, now: Time) {
        if let Some(contest) = &mut self.contest {
            contest.rested(now);
        }
    }

    /// Something was lost while so many bytes of chunks were on their way.
    pub(super) fn lost(&mut self, now: Time, flying_bytes: u64) {
        if let Some(contest) = &mut self.contest {
            contest.lost(now, self.smoothed, flying_bytes);
        }
    }

    /// Nothing was heard for so long: after some time the path may be another one. After less, what was learned counts still; to
    /// learn it anew while what was sent before still queues would take the queue for the path.
    pub(super) fn after_silence(&mut self, silence: Duration) {
        if silence >= LEAST_FOR {
            *self = Self { sent_bytes: self.sent_bytes, ..Self::default() };
        } else {
            self.taken.clear();
        }
    }
}
