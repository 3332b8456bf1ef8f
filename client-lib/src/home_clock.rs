//! A home's own clock, for whatever waits: it goes with the time that passes, not with what the phone is set to.
//!
//! While the home is open it runs by the monotonic clock. Over what that does not count, a time when the home was closed or the phone
//! asleep, it believes the wall clock for a day at most each time, and never backward. So nothing expires early because a phone was set a year
//! ahead (once: who sets it ahead and back thirty times has thirty days pass), and what a phone was set back by does not hold anything up. What was not believed is remembered: a recipient is told how old
//! a message is by all of it that may be true.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::clock::WallClock;

const DAY_MS: u64 = 24 * 3_600 * 1_000;

/// The most that the wall clock is believed at a time.
const BELIEVED_MS_MAX: u64 = DAY_MS;

/// What two clocks may differ by, as they are set right little by little.
const DRIFT_MS_MAX: u64 = 10_000;

/// The longest that a home may have been closed, as far as recipients are told. Beyond it a clock was wrong.
const SKIP_TOLD_MS_MAX: u64 = 60 * DAY_MS;

/// How many times are remembered that were not believed.
const SKIPS_MAX: usize = 16;

/// How old what is on disk may be: after a kill, as much is counted by the wall clock.
const SAVED_EVERY_MS: u64 = 60_000;

/// The clock, as it is on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ClockRecord {
    /// The home's time: milliseconds, from what the wall clock said when the home was made.
    home_ms: u64,
    /// What the wall clock said then.
    wall_ms: u64,
    skips: Vec<Skip>,
}

/// Time that the wall clock says has passed, and that was not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Skip {
    /// By the home's clock.
    at_ms: u64,
    ms: u64,
}

#[derive(Debug)]
struct State {
    record: ClockRecord,
    /// When the record held.
    at: Instant,
    saved_ms: u64,
}

pub(crate) struct HomeClock {
    wall: Arc<dyn WallClock>,
    state: Mutex<State>,
}

impl std::fmt::Debug for HomeClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HomeClock").field("state", &self.state).finish_non_exhaustive()
    }
}

impl HomeClock {
    /// Goes on from what was on disk; without, from what the wall clock says.
    pub(crate) fn open(record: Option<ClockRecord>, wall: Arc<dyn WallClock>) -> Self {
        let wall_ms = wall.unix_ms();
        let record =
            record.unwrap_or_else(|| ClockRecord { home_ms: wall_ms, wall_ms, ..ClockRecord::default() });
        let mut state = State { at: Instant::now(), saved_ms: 0, record };
        state.believe(wall_ms, 0);
        Self { wall, state: Mutex::new(state) }
    }

    /// Nothing inside can panic halfway through a change.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The present, milliseconds.
    pub(crate) fn now_ms(&self) -> u64 {
        self.state().read(self.wall.unix_ms())
    }

    /// How old something is, milliseconds, for somebody to be told.
    pub(crate) fn age_ms(&self, since_ms: u64) -> u64 {
        let mut state = self.state();
        let counted = state.read(self.wall.unix_ms()).saturating_sub(since_ms);
        let skips = state.record.skips.iter().filter(|skip| skip.at_ms > since_ms);
        let told = skips.map(|skip| skip.ms).filter(|ms| *ms <= SKIP_TOLD_MS_MAX);
        counted.saturating_add(told.sum())
    }

    /// What is to be on disk with the next commit, if what is there is old.
    pub(crate) fn unsaved(&self) -> Option<ClockRecord> {
        let mut state = self.state();
        let now_ms = state.read(self.wall.unix_ms());
        if now_ms < state.saved_ms + SAVED_EVERY_MS {
            return None;
        }
        state.saved_ms = now_ms;
        let elapsed_ms = now_ms - state.record.home_ms;
        let wall_ms = state.record.wall_ms.saturating_add(elapsed_ms);
        Some(ClockRecord { home_ms: now_ms, wall_ms, ..state.record.clone() })
    }
}

impl State {
    fn read(&mut self, wall_ms: u64) -> u64 {
        let elapsed_ms = self.at.elapsed().as_millis() as u64;
        let expected_ms = self.record.wall_ms.saturating_add(elapsed_ms);
        if wall_ms.abs_diff(expected_ms) > DRIFT_MS_MAX {
            self.believe(wall_ms, elapsed_ms);
            return self.record.home_ms;
        }
        self.record.home_ms.saturating_add(elapsed_ms)
    }

    /// So much has passed for certain since the record held, and perhaps more.
    fn believe(&mut self, wall_ms: u64, elapsed_ms: u64) {
        let ClockRecord { home_ms, wall_ms: before_ms, skips } = &mut self.record;
        let more_ms = wall_ms.saturating_sub(before_ms.saturating_add(elapsed_ms));
        let believed_ms = more_ms.min(BELIEVED_MS_MAX);
        *home_ms = home_ms.saturating_add(elapsed_ms + believed_ms);
        *before_ms = wall_ms;
        self.at = Instant::now();
        if more_ms > believed_ms {
            skips.push(Skip { at_ms: *home_ms, ms: more_ms - believed_ms });
            if skips.len() > SKIPS_MAX {
                skips.remove(0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use super::*;

    const START: u64 = 1_000_000 * DAY_MS / 50;

    #[derive(Default)]
    struct Wall(AtomicU64);

    impl WallClock for Wall {
        fn unix_ms(&self) -> u64 {
            self.0.load(Ordering::Relaxed)
        }
    }

    impl Wall {
        fn at(ms: u64) -> Arc<Self> {
            Arc::new(Self(AtomicU64::new(ms)))
        }

        fn set(&self, ms: u64) {
            self.0.store(ms, Ordering::Relaxed);
        }
    }

    async fn pass(wall: &Wall, ms: u64) {
        tokio::time::advance(Duration::from_millis(ms)).await;
        wall.set(wall.unix_ms() + ms);
    }

    fn reopened(clock: &HomeClock, wall: &Arc<Wall>) -> HomeClock {
        clock.state().saved_ms = 0;
        HomeClock::open(clock.unsaved(), wall.clone())
    }

    #[tokio::test(start_paused = true)]
    async fn it_begins_as_the_wall_clock_and_goes_with_it() {
        let wall = Wall::at(START);
        let clock = HomeClock::open(None, wall.clone());
        assert_eq!(clock.now_ms(), START);
        pass(&wall, 3 * DAY_MS).await;
        assert_eq!(clock.now_ms(), START + 3 * DAY_MS);
        // What is set right little by little changes nothing.
        wall.set(wall.unix_ms() + 900);
        assert_eq!(clock.now_ms(), START + 3 * DAY_MS);
        assert_eq!(clock.age_ms(START), 3 * DAY_MS);
        let clock = reopened(&clock, &wall);
        pass(&wall, 100).await;
        assert_eq!(clock.now_ms(), START + 3 * DAY_MS + 900 + 100);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wall_clock_that_is_a_year_off_counts_for_a_day_ahead_and_nothing_back() {
        let wall = Wall::at(START);
        let clock = HomeClock::open(None, wall.clone());
        wall.set(START + 365 * DAY_MS);
        assert_eq!(clock.now_ms(), START + DAY_MS);
        assert_eq!(clock.age_ms(START), DAY_MS, "nobody is told of a year");
        pass(&wall, 5_000).await;
        wall.set(START);
        assert_eq!(clock.now_ms(), START + DAY_MS + 5_000);
        pass(&wall, 60_000).await;
        assert_eq!(clock.now_ms(), START + DAY_MS + 65_000);
        // Closed, and set while it was.
        wall.set(START - 365 * DAY_MS);
        let clock = reopened(&clock, &wall);
        assert_eq!(clock.now_ms(), START + DAY_MS + 65_000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_home_that_was_closed_for_weeks_counts_a_day_and_tells_of_all() {
        let wall = Wall::at(START);
        let clock = HomeClock::open(None, wall.clone());
        pass(&wall, 1_000).await;
        let written = clock.now_ms();
        let record = reopened(&clock, &wall).unsaved();
        wall.set(START + 1_000 + 20 * DAY_MS);
        let clock = HomeClock::open(record, wall.clone());
        assert_eq!(clock.now_ms(), written + DAY_MS);
        assert_eq!(clock.age_ms(written), 20 * DAY_MS);
        assert_eq!(clock.age_ms(clock.now_ms()), 0);
        // And over another opening.
        let clock = reopened(&clock, &wall);
        assert_eq!(clock.age_ms(written), 20 * DAY_MS);
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_saved_now_and_then_and_remembers_so_many_skips() {
        let wall = Wall::at(START);
        let clock = HomeClock::open(None, wall.clone());
        assert!(clock.unsaved().is_some());
        pass(&wall, SAVED_EVERY_MS - 1).await;
        assert!(clock.unsaved().is_none());
        pass(&wall, 1).await;
        assert!(clock.unsaved().is_some());
        for _ in 0..40 {
            wall.set(wall.unix_ms() + 3 * DAY_MS);
            clock.now_ms();
        }
        assert_eq!(clock.state().record.skips.len(), SKIPS_MAX);
        wall.set(u64::MAX);
        clock.now_ms();
        assert!(clock.age_ms(0) > 0, "no sum overflows");
    }
}
