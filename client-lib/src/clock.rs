//! What time people say it is.

use std::time::{SystemTime, UNIX_EPOCH};

/// The wall clock. It may jump and be wrong: it dates what is shown to people, and says how long a home was closed, as far as that
/// can be believed. Nothing that waits goes by it alone.
pub trait WallClock: Send + Sync {
    /// Milliseconds since 1970 in UTC.
    fn unix_ms(&self) -> u64;
}

/// The system's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl WallClock for SystemClock {
    fn unix_ms(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
    }
}
