//! The relay's own time: seconds it has run, however often it was restarted.

use tokio::time::Instant;

/// Seconds that the relay has run since its store was made.
///
/// Deadlines are points on this clock, so a wall clock that jumps cannot expire anything, and time the
/// relay spends switched off does not count: an envelope is never older than its recipient could have
/// fetched it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelayTime(pub u64);

impl RelayTime {
    /// This long after; the end of time rather than an overflow.
    pub fn after_s(self, seconds: u64) -> Self {
        Self(self.0.saturating_add(seconds))
    }
}

/// Counts [`RelayTime`] from where the store left it.
#[derive(Clone, Copy, Debug)]
pub struct RelayClock {
    resumed_at: RelayTime,
    started: Instant,
}

impl RelayClock {
    /// Starts counting now, from what [`super::Store::relay_clock`] returned.
    pub fn resume(from: RelayTime) -> Self {
        Self { resumed_at: from, started: Instant::now() }
    }

    /// The present. Follows tokio's clock, so a paused runtime pauses it too.
    pub fn now(&self) -> RelayTime {
        self.at(Instant::now())
    }

    fn at(&self, instant: Instant) -> RelayTime {
        self.resumed_at.after_s(instant.saturating_duration_since(self.started).as_secs())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_clock_goes_on_from_where_it_was_resumed() {
        let clock = RelayClock::resume(RelayTime(1_000));
        assert_eq!(clock.at(clock.started), RelayTime(1_000));
        assert_eq!(clock.at(clock.started + Duration::from_millis(90_900)), RelayTime(1_090));
        assert_eq!(clock.at(clock.started - Duration::from_secs(1)), RelayTime(1_000));
    }

    #[test]
    fn time_ends_instead_of_overflowing() {
        assert_eq!(RelayTime(u64::MAX - 1).after_s(5), RelayTime(u64::MAX));
    }
}
