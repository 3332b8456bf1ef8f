//! When a handshake's datagrams leave again.
//!
//! QUIC waits twice as long before each repeat (RFC 9002, section 6.2.1): where 15 % are lost in bursts, one handshake in
//! twenty takes more than half a minute. Here the pauses grow by a third only. It is QUIC that repeats, all the same:
//! [`Repeats::due`] says when it is to be told that its timer has run out.

use std::time::Duration;

use tokio::time::Instant;

/// A repeat before a round trip was measured waits for so many assumed ones, as QUIC's first does.
const ROUND_TRIPS: u32 = 3;

/// A timer of QUIC that is further off is no repeat.
const PAUSE_MAX: Duration = Duration::from_secs(120);

/// The repeats of one handshake, as seen by one end.
#[derive(Debug)]
pub(crate) struct Repeats {
    /// The pause before the first repeat.
    first_pause: Duration,
    pause: Duration,
    count: u32,
    /// When this end has last said its part.
    said: Instant,
}

impl Repeats {
    /// From the first packet on, with the round trip that is assumed.
    pub(crate) fn new(rtt: Duration) -> Self {
        let first_pause = rtt * ROUND_TRIPS;
        Self { first_pause, pause: first_pause, count: 0, said: Instant::now() }
    }

    /// This end has said its part, for the first time or again.
    pub(crate) fn said(&mut self) {
        self.said = Instant::now();
    }

    /// A timer of QUIC has run out.
    pub(crate) fn repeated(&mut self) {
        self.said = Instant::now();
        self.pause = if self.count == 0 { self.first_pause } else { self.pause * 4 / 3 };
        self.count += 1;
    }

    /// When the timer that QUIC has set for `quic` is to run out. The first is QUIC's own.
    pub(crate) fn due(&self, quic: Instant) -> Instant {
        if self.count == 0 || quic > Instant::now() + PAUSE_MAX {
            quic
        } else {
            quic.min(self.said + self.pause)
        }
    }

    /// Whether the other end has had time to hear of it, and to answer.
    pub(crate) fn is_overdue(&self) -> bool {
        self.said.elapsed() >= self.first_pause / 2
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{advance, sleep_until};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_by_a_third_from_the_first_that_quic_has_set() {
        let began = Instant::now();
        let mut repeats = Repeats::new(Duration::from_secs(1));
        let mut moments = Vec::new();
        let mut quic = Duration::from_secs(3);
        for _ in 0..5 {
            sleep_until(repeats.due(Instant::now() + quic)).await;
            repeats.repeated();
            moments.push(began.elapsed().as_secs());
            quic *= 2;
        }
        assert_eq!(moments, [3, 6, 10, 15, 22]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_quic_plans_for_much_later_is_left_alone() {
        let mut repeats = Repeats::new(Duration::from_secs(1));
        repeats.repeated();
        let much_later = Instant::now() + Duration::from_secs(3_600);
        assert_eq!(repeats.due(much_later), much_later);
        assert!(!repeats.is_overdue());
        advance(Duration::from_millis(1_500)).await;
        assert!(repeats.is_overdue());
    }
}
