//! What frames say of objects.

use rangemap::RangeSet;
use serde::{Deserialize, Serialize};

use super::FrameError;

/// Parts of an object: the first byte of each, counted from 0, and how many there are. Ascending, none empty, none
/// touching the next; at most [`HELD_RANGES_MAX`], the lowest ones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldRanges(pub Vec<(u64, u64)>);

/// See [`HeldRanges`].
pub const HELD_RANGES_MAX: usize = 256;

impl HeldRanges {
    /// States these.
    pub fn new(held: &RangeSet<u64>) -> Self {
        let ranges = held.iter().map(|range| (range.start, range.end - range.start));
        Self(ranges.take(HELD_RANGES_MAX).collect())
    }

    /// Which they are.
    pub fn to_set(&self) -> RangeSet<u64> {
        self.0.iter().map(|&(start, len)| start..start + len).collect()
    }

    pub(super) fn check(&self, size: u64) -> Result<(), FrameError> {
        let mut least = 0;
        let are_sound = self.0.len() <= HELD_RANGES_MAX
            && self.0.iter().all(|&(start, len)| {
                let end = start.saturating_add(len);
                let is_sound = start >= least && len > 0 && end <= size;
                least = end.saturating_add(1);
                is_sound
            });
        if are_sound { Ok(()) } else { Err(FrameError::BadRanges) }
    }
}

/// Why an object is not taken or not given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum ObjectRefusal {
    /// The relay has no such object, or not any more.
    #[error("the relay has no such object")]
    Unknown,
    /// It is longer than the relay takes.
    #[error("the object is longer than the relay takes")]
    TooLong,
    /// The account's objects take as much room as they may. Room comes with time.
    #[error("the account's objects take all the room they may")]
    QuotaReached,
    /// The relay is full. Worth repeating later.
    #[error("the relay is full")]
    RelayFull,
    /// What has come is not what the name says, and is dropped; or the size is another one than before.
    #[error("what has come is not the object of that name")]
    Damaged,
    /// Too many transfers at a time. Worth repeating when one has ended.
    #[error("too many objects are on their way")]
    TooMany,
}
