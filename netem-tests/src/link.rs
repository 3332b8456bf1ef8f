//! One direction of a link, as a pure function of time, packets and a seed.
//!
//! A packet waits in a queue of bounded length, is serialised at the link's rate, travels for the link's delay,
//! and may be lost on the air. The model does no I/O and holds no payload: [`Link::offer`] takes the size of a packet and
//! says at once whether and when it comes out at the other end.

use std::{
    collections::VecDeque,
    num::{NonZeroU64, NonZeroUsize},
    ops::{AddAssign, Range},
    time::Duration,
};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::loss::{Loss, LossProcess};

#[cfg(test)]
mod tests;

/// What one direction of a link is like.
#[derive(Clone, Debug, PartialEq)]
pub struct LinkParams {
    /// Serialisation rate of IP bytes, in bit/s.
    pub rate_bit_s: NonZeroU64,
    /// Rates that replace it from a time on, in order of time.
    pub steps: Vec<RateStep>,
    /// Mean propagation delay, one way, added to queueing and serialisation.
    pub delay: Duration,
    /// Each packet's propagation delay is drawn evenly from `delay - jitter` to `delay + jitter` (not below zero), and then
    /// raised where needed so that no packet overtakes another: radio link layers deliver in order.
    pub jitter: Duration,
    /// Whether packets overtake each other all the same.
    pub reorders: bool,
    /// Packets lost on the air. They take their place in the queue and their time at the rate all the same.
    pub loss: Loss,
    /// Packets that may wait or be in serialisation at a time; one more is dropped (tail drop).
    pub queue_packets: NonZeroUsize,
    /// The largest packet that passes, IP bytes. Larger ones vanish without a word, as where a path's MTU is not told.
    pub mtu_bytes: Option<usize>,
    /// A radio that falls asleep.
    pub sleep: Option<Sleep>,
    /// Gaps in which nothing is sent, as while a phone changes cells. The queue waits.
    pub gaps: Option<Gaps>,
    /// Share of the packets that arrive twice, 0 to 1.
    pub doubled: f64,
    /// Share of the packets that arrive with a bit changed, 0 to 1.
    pub damaged: f64,
}

/// A change of a link's rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateStep {
    /// Since the start of the world.
    pub at: Duration,
    /// In bit/s.
    pub rate_bit_s: NonZeroU64,
}

/// A radio that falls asleep and takes its time to wake up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sleep {
    /// After so long without a packet in this direction.
    pub after: Duration,
    /// So long later the next packet begins to go out.
    pub wakes_in: Duration,
}

/// Gaps in a link's service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gaps {
    /// Mean time from the end of one to the begin of the next; drawn evenly from half of it to half as much again.
    pub every: Duration,
    /// How long each lasts.
    pub lasting: Duration,
}

impl LinkParams {
    /// A wire so good that it never matters: 100 Gbit/s, 50 µs, no loss.
    pub const DIRECT: Self = Self {
        rate_bit_s: NonZeroU64::new(100_000_000_000).expect("not zero"),
        steps: Vec::new(),
        delay: Duration::from_micros(50),
        jitter: Duration::ZERO,
        reorders: false,
        loss: Loss::NONE,
        queue_packets: NonZeroUsize::new(100_000).expect("not zero"),
        mtu_bytes: None,
        sleep: None,
        gaps: None,
        doubled: 0.0,
        damaged: 0.0,
    };

    /// The rate at this time, and until when it is that, if it changes.
    fn rate_at(&self, at: Duration) -> (NonZeroU64, Option<Duration>) {
        let later = self.steps.partition_point(|step| step.at <= at);
        let rate = later.checked_sub(1).map_or(self.rate_bit_s, |now| self.steps[now].rate_bit_s);
        (rate, self.steps.get(later).map(|step| step.at))
    }
}

/// Bits times nanoseconds in a second: a rate in bit/s takes this many of them in a nanosecond.
fn bit_nanos(ip_bytes: usize) -> u128 {
    ip_bytes as u128 * 8 * 1_000_000_000
}

fn nanos_for(bit_nanos: u128, rate_bit_s: NonZeroU64) -> u64 {
    u64::try_from(bit_nanos.div_ceil(u128::from(rate_bit_s.get()))).unwrap_or(u64::MAX)
}

/// What becomes of a packet offered to a [`Link`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It comes out at the other end at this time, unless an outage begins before (see [`Link::set_outage`]).
    Deliver {
        /// Time since the start of the world.
        at: Duration,
    },
    /// The same, with a bit changed.
    Damage {
        /// Time since the start of the world.
        at: Duration,
    },
    /// It comes out twice.
    Double {
        /// Time since the start of the world.
        at: Duration,
        /// When it comes out again.
        again: Duration,
    },
    /// It never arrives.
    Lost {
        /// Why.
        cause: LossCause,
    },
}

impl Verdict {
    /// When it comes out, in order of time.
    pub fn arrivals(&self) -> impl Iterator<Item = Duration> {
        let (first, second) = match *self {
            Self::Deliver { at } | Self::Damage { at } => (Some(at), None),
            Self::Double { at, again } => (Some(at), Some(again)),
            Self::Lost { .. } => (None, None),
        };
        first.into_iter().chain(second)
    }

    /// Whether what comes out differs from what went in.
    pub fn is_damaged(&self) -> bool {
        matches!(self, Self::Damage { .. })
    }
}

/// Why a packet was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LossCause {
    /// Lost on the air by the link's loss process.
    Loss,
    /// The queue was full.
    Queue,
    /// Offered or under way during an outage.
    Outage,
    /// Larger than what passes.
    Size,
}

/// A number of packets and the IP bytes in them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Packets.
    pub packets: u64,
    /// IP bytes: UDP payload plus 28 bytes of headers for each packet.
    pub ip_bytes: u64,
}

impl Tally {
    fn count(&mut self, ip_bytes: usize) {
        self.packets += 1;
        self.ip_bytes += ip_bytes as u64;
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.packets += other.packets;
        self.ip_bytes += other.ip_bytes;
    }
}

/// What went through one direction of a link so far.
///
/// `offered` + `doubled` = `delivered` + the four losses + what is still under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCounters {
    /// All that was handed to the link: what the sender's data plan pays for.
    pub offered: Tally,
    /// What was to come out once more.
    pub doubled: Tally,
    /// What has come out at the other end.
    pub delivered: Tally,
    /// Lost on the air.
    pub lost_loss: Tally,
    /// Dropped at a full queue.
    pub lost_queue: Tally,
    /// Offered or under way during an outage.
    pub lost_outage: Tally,
    /// Larger than what passes.
    pub lost_size: Tally,
    /// To come out before one that was sent earlier.
    pub overtook: Tally,
    /// To come out damaged.
    pub damaged: Tally,
    /// Waited until a sleeping radio had woken.
    pub woke: Tally,
    /// Waited, at least in part, until a gap was over.
    pub gapped: Tally,
    /// Sent, at least in part, after a step of the rate.
    pub stepped: Tally,
}

impl LinkCounters {
    /// All that was lost, whatever the cause.
    pub fn lost(&self) -> Tally {
        let mut lost = self.lost_loss;
        lost += self.lost_queue;
        lost += self.lost_outage;
        lost += self.lost_size;
        lost
    }

    /// What has neither arrived nor been lost yet.
    pub fn under_way(&self) -> Tally {
        let lost = self.lost();
        Tally {
            packets: self.offered.packets + self.doubled.packets - self.delivered.packets - lost.packets,
            ip_bytes: self.offered.ip_bytes + self.doubled.ip_bytes - self.delivered.ip_bytes - lost.ip_bytes,
        }
    }
}

impl AddAssign for LinkCounters {
    fn add_assign(&mut self, other: Self) {
        self.offered += other.offered;
        self.doubled += other.doubled;
        self.delivered += other.delivered;
        self.lost_loss += other.lost_loss;
        self.lost_queue += other.lost_queue;
        self.lost_outage += other.lost_outage;
        self.lost_size += other.lost_size;
        self.overtook += other.overtook;
        self.damaged += other.damaged;
        self.woke += other.woke;
        self.gapped += other.gapped;
        self.stepped += other.stepped;
    }
}

/// The counters of both directions, as the host behind the link sees them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathCounters {
    /// From the host to the network.
    pub up: LinkCounters,
    /// From the network to the host.
    pub down: LinkCounters,
}

impl AddAssign for PathCounters {
    fn add_assign(&mut self, other: Self) {
        self.up += other.up;
        self.down += other.down;
    }
}

/// One direction of a link.
///
/// Calls must come in order of time; a `now` before the latest one is taken as the latest one. Loss, jitter, gaps and what else befalls packets
/// are drawn from separate generators, so that changing the one leaves the others' draws as they were.
#[derive(Debug)]
pub struct Link {
    params: LinkParams,
    loss: LossProcess,
    jitter_rng: ChaCha8Rng,
    mishaps_rng: ChaCha8Rng,
    gaps_rng: ChaCha8Rng,
    /// The gap that is on or comes next.
    gap: Option<Range<Duration>>,
    /// Latest time that a caller has shown.
    clock: Duration,
    /// When the transmitter has sent all it accepted.
    free_at: Duration,
    /// When each packet in queue or transmission will have left, oldest first. Includes those lost on the air.
    queue: VecDeque<Duration>,
    /// Arrival and IP bytes of what will arrive, in order of arrival.
    under_way: VecDeque<(Duration, usize)>,
    last_arrival: Duration,
    outage: bool,
    cuts: u64,
    counters: LinkCounters,
}

impl Link {
    /// An idle link at time zero.
    pub fn new(params: LinkParams, seed: u64) -> Self {
        Self {
            loss: LossProcess::new(params.loss, derive_seed(seed, 1)),
            params,
            jitter_rng: ChaCha8Rng::seed_from_u64(derive_seed(seed, 2)),
            mishaps_rng: ChaCha8Rng::seed_from_u64(derive_seed(seed, 3)),
            gaps_rng: ChaCha8Rng::seed_from_u64(derive_seed(seed, 4)),
            gap: None,
            clock: Duration::ZERO,
            free_at: Duration::ZERO,
            queue: VecDeque::new(),
            under_way: VecDeque::new(),
            last_arrival: Duration::ZERO,
            outage: false,
            cuts: 0,
            counters: LinkCounters::default(),
        }
    }

    /// What the link was made with.
    pub fn params(&self) -> &LinkParams {
        &self.params
    }

    /// Hands a packet of `ip_bytes` to the link at `now`.
    pub fn offer(&mut self, now: Duration, ip_bytes: usize) -> Verdict {
        let now = self.settle(now);
        self.counters.offered.count(ip_bytes);
        if self.outage {
            self.counters.lost_outage.count(ip_bytes);
            return Verdict::Lost { cause: LossCause::Outage };
        }
        if self.params.mtu_bytes.is_some_and(|mtu| ip_bytes > mtu) {
            self.counters.lost_size.count(ip_bytes);
            return Verdict::Lost { cause: LossCause::Size };
        }
        if self.queue.len() >= self.params.queue_packets.get() {
            self.counters.lost_queue.count(ip_bytes);
            return Verdict::Lost { cause: LossCause::Queue };
        }

        let leaves = self.transmit(now, ip_bytes);
        self.free_at = leaves;
        self.queue.push_back(leaves);
        if self.loss.strikes(leaves) {
            self.counters.lost_loss.count(ip_bytes);
            return Verdict::Lost { cause: LossCause::Loss };
        }

        let at = self.arrival(leaves, ip_bytes);
        if self.befalls(self.params.damaged) {
            self.counters.damaged.count(ip_bytes);
            return Verdict::Damage { at };
        }
        if self.befalls(self.params.doubled) {
            self.counters.doubled.count(ip_bytes);
            let again = self.arrival(leaves, ip_bytes).max(at);
            return Verdict::Double { at, again };
        }
        Verdict::Deliver { at }
    }

    /// When a packet that is handed over now has gone out.
    fn transmit(&mut self, now: Duration, ip_bytes: usize) -> Duration {
        let mut at = self.free_at.max(now);
        if let Some(sleep) = self.params.sleep
            && now.saturating_sub(self.free_at) >= sleep.after
        {
            at = at.saturating_add(sleep.wakes_in);
            self.counters.woke.count(ip_bytes);
        }
        let mut left = bit_nanos(ip_bytes);
        let (mut waits, mut steps) = (false, false);
        let gone_at = loop {
            let gap = self.gap_at(at);
            if let Some(gap) = &gap
                && gap.contains(&at)
            {
                at = gap.end;
                waits = true;
                continue;
            }
            let (rate, changes_at) = self.params.rate_at(at);
            steps |= rate != self.params.rate_bit_s;
            let gone_at = at.saturating_add(Duration::from_nanos(nanos_for(left, rate)));
            let until = [changes_at, gap.map(|gap| gap.start)].into_iter().flatten().min();
            let Some(until) = until.filter(|&until| until < gone_at) else { break gone_at };
            left -= (until - at).as_nanos() * u128::from(rate.get());
            at = until;
        };
        if waits {
            self.counters.gapped.count(ip_bytes);
        }
        if steps {
            self.counters.stepped.count(ip_bytes);
        }
        gone_at
    }

    /// The gap that is on at this time or comes after it. Times must not go back.
    fn gap_at(&mut self, at: Duration) -> Option<Range<Duration>> {
        let gaps = self.params.gaps?;
        let rng = &mut self.gaps_rng;
        let mut next = |end: Duration| {
            let start = end + rng.random_range(gaps.every / 2..=gaps.every * 3 / 2);
            start..start + gaps.lasting
        };
        let mut gap = self.gap.take().unwrap_or_else(|| next(Duration::ZERO));
        while gap.end <= at {
            gap = next(gap.end);
        }
        self.gap = Some(gap.clone());
        Some(gap)
    }

    /// When what has gone out arrives; it is under way until then.
    fn arrival(&mut self, leaves: Duration, ip_bytes: usize) -> Duration {
        let mut at = leaves.saturating_add(self.propagation());
        if self.params.reorders && at < self.last_arrival {
            self.counters.overtook.count(ip_bytes);
        } else {
            at = at.max(self.last_arrival);
            self.last_arrival = at;
        }
        let place = self.under_way.partition_point(|&(other, _)| other <= at);
        self.under_way.insert(place, (at, ip_bytes));
        at
    }

    /// Whether something that befalls this share of packets does.
    fn befalls(&mut self, share: f64) -> bool {
        share > 0.0 && self.mishaps_rng.random::<f64>() < share
    }

    /// Begins (`true`) or ends (`false`) a total outage. What is in the queue, in transmission or on the air when it begins,
    /// and what is offered until it ends, is lost; a transmitter starts afresh when it ends. Saying what is already so
    /// changes nothing.
    ///
    /// A verdict given before is withdrawn by this: whoever holds a packet under way compares [`Link::cuts`].
    pub fn set_outage(&mut self, now: Duration, outage: bool) {
        let now = self.settle(now);
        if outage && !self.outage {
            self.cuts += 1;
            for (_, ip_bytes) in self.under_way.drain(..) {
                self.counters.lost_outage.count(ip_bytes);
            }
            self.queue.clear();
        }
        if outage != self.outage {
            self.outage = outage;
            self.free_at = now;
            self.last_arrival = now;
        }
    }

    /// Whether an outage is on.
    pub fn is_in_outage(&self) -> bool {
        self.outage
    }

    /// How many outages have begun. A packet with verdict [`Verdict::Deliver`] arrives if at its time this is what it
    /// was when the packet was offered.
    pub fn cuts(&self) -> u64 {
        self.cuts
    }

    /// What went through until `now`.
    pub fn counters(&mut self, now: Duration) -> LinkCounters {
        self.settle(now);
        self.counters
    }

    /// Books what has left the queue and what has arrived by `now`.
    fn settle(&mut self, now: Duration) -> Duration {
        self.clock = self.clock.max(now);
        let now = self.clock;
        while self.queue.front().is_some_and(|&leaves| leaves <= now) {
            self.queue.pop_front();
        }
        while let Some(&(at, ip_bytes)) = self.under_way.front()
            && at <= now
        {
            self.under_way.pop_front();
            self.counters.delivered.count(ip_bytes);
        }
        now
    }

    fn propagation(&mut self) -> Duration {
        let LinkParams { delay, jitter, .. } = self.params;
        if jitter.is_zero() {
            return delay;
        }
        self.jitter_rng.random_range(delay.saturating_sub(jitter)..=delay.saturating_add(jitter))
    }
}

/// A seed for one part of a world out of the seed of the whole (the finaliser of SplitMix64), so that the parts'
/// draws are unrelated and do not depend on the order in which the parts are made.
pub fn derive_seed(seed: u64, part: u64) -> u64 {
    let mut mixed = seed.wrapping_add(part.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}
