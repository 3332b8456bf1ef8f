//! A slower clock for QUIC.
//!
//! QUIC acknowledges a lone packet after 25 ms, in a packet of its own: here 59 bytes, a third of a short message. A
//! clock that runs [`SLOWER`] times slower at both ends makes these 25 ms ten seconds, so that an acknowledgement leaves
//! with the next datagram that leaves anyway, if a link is not at rest, and makes QUIC wait as much longer before it probes for one. What QUIC
//! counts in round trips stays as it is, since it measures them by the same clock. Links repeat what is lost by a clock
//! of their own.
//!
//! The clock is slow from a connection's first packet on. If it became slow only when the handshake is confirmed, QUIC's
//! estimate of the round trip would change its unit in the middle, and stand 400 times too high until enough samples had
//! corrected it. `docs/decisions/0012-quic-driven-directly.md` has the figures.

use std::time::{self, Duration};

use tokio::time::Instant;

/// How many times slower QUIC's clock runs. Both ends of a connection must agree: the one waits by it, the other probes.
pub const SLOWER: u32 = 400;

/// How long a duration is for QUIC.
pub(crate) fn for_quic(duration: Duration) -> Duration {
    duration / SLOWER
}

/// How long a duration is that QUIC has measured.
pub(crate) fn from_quic(duration: Duration) -> Duration {
    duration.saturating_mul(SLOWER)
}

/// The clock of an endpoint and of all its connections, slow from the moment that this was made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    began: Instant,
}

impl Clock {
    /// A clock that begins now.
    pub(crate) fn start() -> Self {
        Self { began: Instant::now() }
    }

    /// What it shows.
    pub(crate) fn now(self) -> time::Instant {
        self.began.into_std() + for_quic(self.began.elapsed())
    }

    /// When it shows `at`. What no clock will ever show is never.
    pub(crate) fn when(self, at: time::Instant) -> Instant {
        let elapsed = at.saturating_duration_since(self.began.into_std());
        let elapsed = elapsed.checked_mul(SLOWER).unwrap_or(NEVER).min(NEVER);
        self.began.checked_add(elapsed).unwrap_or(self.began)
    }
}

/// A century.
const NEVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_shows_a_time_when_it_says_it_will() {
        let began = Instant::now();
        let clock = Clock::start();
        for wait in [Duration::from_millis(25), Duration::from_micros(1), Duration::from_nanos(1)] {
            let at = clock.now() + wait;
            tokio::time::sleep_until(clock.when(at)).await;
            assert!(clock.now() >= at);
            assert!(clock.now() - at <= for_quic(Duration::from_millis(1)), "a timer rounds to milliseconds");
        }
        assert!(began.elapsed() > Duration::from_secs(10));
        assert!(began.elapsed() < Duration::from_millis(10_003));
    }

    #[tokio::test(start_paused = true)]
    async fn a_time_beyond_all_clocks_is_never() {
        let clock = Clock::start();
        assert_eq!(clock.when(clock.now() + NEVER) - Instant::now(), NEVER);
    }
}
