//! What a link knows of its path: how long a round trip takes, and how much may be on its way.

use std::time::Duration;

use super::Time;

/// Shortest resend timer. Below it, a slow disk at the other end looks like loss.
const RTO_MIN: Duration = Duration::from_millis(300);

/// How many mean deviations the resend timer waits beyond the mean; RFC 6298 takes 4. On links whose delay varies within
/// bounds hardly any answer takes longer, and every tenth of a second shows in the slowest messages.
const VARIATIONS: f64 = 2.5;

/// How many assumed round trips the timer waits while none was measured, as QUIC's does (RFC 9002, section 6.2.2).
const UNMEASURED: u32 = 3;

/// From so many silences on without a sample between them, each doubles the resend timer, up to so many times: the path may
/// take longer than the timer waits, so that all leaves twice and nothing gives a sample.
const SILENCES: u32 = 2;
const DOUBLED_MAX: u32 = 5;

/// Round-trip time as RFC 6298 smooths it.
#[derive(Debug)]
pub(super) struct Rtt {
    smoothed: Duration,
    variation: Duration,
    latest: Duration,
    least: Option<Duration>,
    /// Whether what it began with was measured, if not by this link.
    is_initial_measured: bool,
    /// How many silences there were since the latest sample.
    silences: u32,
}

impl Rtt {
    pub(super) fn new(initial: Duration, is_initial_measured: bool) -> Self {
        Self {
            smoothed: initial,
            variation: initial / 2,
            latest: initial,
            least: None,
            is_initial_measured,
            silences: 0,
        }
    }

    /// Takes in a sample of an item that was sent only once (Karn's rule).
    pub(super) fn sample(&mut self, rtt: Duration) {
        self.latest = rtt;
        self.silences = 0;
        match self.least {
            None => {
                self.smoothed = rtt;
                self.variation = rtt / 2;
                self.least = Some(rtt);
            }
            Some(least) => {
                self.variation = (self.variation * 3 + self.smoothed.abs_diff(rtt)) / 4;
                self.smoothed = (self.smoothed * 7 + rtt) / 8;
                self.least = Some(least.min(rtt));
            }
        }
    }

    pub(super) fn least(&self) -> Option<Duration> {
        self.least
    }

    pub(super) fn smoothed(&self) -> Duration {
        self.smoothed
    }

    /// How long the latest round trip waited in queues.
    fn queueing(&self) -> Duration {
        self.least.map_or(Duration::ZERO, |least| self.latest - least)
    }

    /// How long to wait for an answer.
    pub(super) fn resend_after(&self) -> Duration {
        let after = match self.least {
            // The first flight may take longer to leave than a round trip takes.
            None if !self.is_initial_measured => self.smoothed * UNMEASURED,
            _ => self.smoothed + self.variation.mul_f64(VARIATIONS),
        };
        after.max(RTO_MIN) * (1 << self.silences.saturating_sub(SILENCES).min(DOUBLED_MAX))
    }

    /// The resend timer has run out.
    pub(super) fn silence_began(&mut self) {
        self.silences = self.silences.saturating_add(1);
    }

    /// Whether a round trip was measured on this link.
    pub(super) fn is_measured(&self) -> bool {
        self.least.is_some()
    }

    /// How long after something sent later was acknowledged an item is held to be lost (RFC 8985: a
    /// fraction of the round trip, for paths that reorder).
    pub(super) fn loss_after(&self) -> Duration {
        self.latest.max(self.smoothed) * 9 / 8
    }
}

/// Which share of what leaves finds no answer, the latest counting most.
#[derive(Debug)]
pub(super) struct Loss(f64);

/// What is assumed of an unknown link, and how much each answer weighs.
const LOSS_INITIAL: f64 = 0.05;
const LOSS_WEIGHT: f64 = 1.0 / 32.0;

/// From here on losses are no exception.
const LOSS_HIGH: f64 = 0.08;

impl Default for Loss {
    fn default() -> Self {
        Self(LOSS_INITIAL)
    }
}

impl Loss {
    /// A datagram was answered, or was not.
    pub(super) fn count(&mut self, is_lost: bool) {
        self.0 += (f64::from(u8::from(is_lost)) - self.0) * LOSS_WEIGHT;
    }

    pub(super) fn is_high(&self) -> bool {
        self.0 > LOSS_HIGH
    }
}

/// How many bytes may be on their way.
///
/// The window grows while round trips stay short and shrinks when they grow: on these links the queue in
/// the modem, not loss, tells that the link is full. It doubles each round trip until queueing first shows.
#[derive(Debug)]
pub(super) struct Window {
    bytes: u64,
    doubling: bool,
    adjusted: Time,
}

/// One full datagram, about.
const STEP: u64 = 1_200;
const WINDOW_MIN: u64 = 2 * STEP;
const WINDOW_INITIAL: u64 = 4 * STEP;
const WINDOW_MAX: u64 = 64 * STEP;

/// Queueing below this is noise of hosts and disks, not of the link.
const QUEUEING_NOISE: Duration = Duration::from_millis(100);

impl Default for Window {
    fn default() -> Self {
        Self { bytes: WINDOW_INITIAL, doubling: true, adjusted: Time::default() }
    }
}

impl Window {
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes were acknowledged while `in_flight` (these included) were on their way.
    pub(super) fn acked(&mut self, now: Time, acked: u64, in_flight: u64, rtt: &Rtt) {
        let target = rtt.least.unwrap_or(rtt.smoothed).max(QUEUEING_NOISE);
        let queue_is_long = rtt.queueing() > target;
        self.doubling &= !queue_is_long;
        let was_used = in_flight * 2 >= self.bytes;
        if self.doubling {
            if was_used {
                self.bytes += acked;
            }
        } else if now.since(self.adjusted) >= rtt.smoothed {
            self.adjusted = now;
            if queue_is_long {
                self.bytes = self.bytes.saturating_sub(STEP);
            } else if was_used {
                self.bytes += STEP;
            }
        }
        self.bytes = self.bytes.clamp(WINDOW_MIN, WINDOW_MAX);
    }

    /// A resend timer ran out: the path may be another one now.
    pub(super) fn timed_out(&mut self) {
        self.bytes = (self.bytes / 2).max(WINDOW_MIN);
    }
}
