//! What a run of a relay passes over before it gives out positions.
//!
//! A data folder that is put back by a copy, or a machine by a snapshot, is an earlier state of the same store, under the same id.
//! Devices have read what it gave out afterwards: were it to give out these positions again, they would take what is new for
//! something that they have. So each run begins behind all that can have been given out up to then, which the wall clock tells.

use std::cmp::{max, min};

use thinpost_wire::ids::Position;

/// More than a relay gives out in a second, over all of a run: 88 million a day.
const POSITIONS_PER_S: u64 = 1_024;

/// Where a run's positions begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leap {
    /// When the first position could have been given out, Unix seconds.
    since_unix_s: u64,
    /// The newest position before the run.
    from: Position,
    /// What the run gives out comes behind this; the same as `from`, or later.
    to: Position,
}

impl Leap {
    /// Of a run that begins at `unix_s`, in a store whose newest position is `newest`. `since_unix_s` is what an earlier run's
    /// [`Leap::since_unix_s`] was, if there was one.
    ///
    /// A clock that has gone back makes it earlier, so that no leap is shorter than one before.
    pub fn at(unix_s: u64, newest: Position, since_unix_s: Option<u64>) -> Self {
        let latest = unix_s.saturating_sub(newest.0 / POSITIONS_PER_S);
        let since_unix_s = min(since_unix_s.unwrap_or(u64::MAX), latest);
        let to = (unix_s - since_unix_s).saturating_mul(POSITIONS_PER_S);
        Self { since_unix_s, from: newest, to: max(newest, Position(to)) }
    }

    /// For the next run.
    pub fn since_unix_s(&self) -> u64 {
        self.since_unix_s
    }

    /// The next position, where `newest` is the last one that is there.
    pub(super) fn next(leap: Option<Self>, newest: u64) -> u64 {
        max(newest, leap.map_or(0, |leap| leap.to.0)) + 1
    }

    /// Whether a position is one that was passed over: whoever has read it has read it in a state of the store that is gone.
    pub fn passes(&self, position: Position) -> bool {
        self.from < position && position <= self.to
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400;

    fn next(leap: Leap, newest: u64) -> u64 {
        Leap::next(Some(leap), newest)
    }

    #[test]
    fn what_is_put_back_leaps_over_what_was_given_out_since() {
        let first = Leap::at(1_000, Position(0), None);
        let newest = next(first, next(first, 0));
        assert_eq!(newest, 2, "a new store begins at 1");
        let since = Some(first.since_unix_s());
        // Put back here: to this state come three runs that nobody will know of.
        let mut lost = newest;
        for run in 1..=3 {
            lost = next(Leap::at(1_000 + run * DAY, Position(lost), since), lost) + 50_000_000;
        }
        let back = Leap::at(1_000 + 4 * DAY, Position(newest), since);
        assert!(next(back, newest) > lost);
        assert!(back.passes(Position(lost)) && !back.passes(Position(newest)));
        assert!(!back.passes(Position(next(back, newest))));
    }

    #[test]
    fn a_store_that_has_given_out_many_goes_on_behind_them() {
        // From before there were leaps, or faster than they are reckoned.
        let newest = Position(1 << 40);
        let leap = Leap::at(2_000_000_000, newest, None);
        assert_eq!(next(leap, newest.0), newest.0 + 1);
        let later = Leap::at(2_000_000_000 + DAY, newest, Some(leap.since_unix_s()));
        assert!(later.to.0 >= newest.0 + (DAY - 1) * POSITIONS_PER_S);
    }

    #[test]
    fn clocks_that_are_wrong_make_no_leap_shorter() {
        let right = Leap::at(1_800_000_000, Position(0), None);
        // The machine does not know the time yet.
        let wrong = Leap::at(5, Position(7), Some(right.since_unix_s()));
        assert_eq!(next(wrong, 7), 8);
        let again = Leap::at(1_800_000_000 + DAY, Position(8), Some(wrong.since_unix_s()));
        assert!(again.to.0 >= DAY * POSITIONS_PER_S);
        // Or it was ahead by decades when the store was made.
        let ahead = Leap::at(4_000_000_000, Position(0), None);
        let after = Leap::at(1_800_000_000, Position(9), Some(ahead.since_unix_s()));
        let next = Leap::at(1_800_000_000 + DAY, Position(9), Some(after.since_unix_s()));
        assert!(next.to.0 >= DAY * POSITIONS_PER_S);
        // Nothing overflows.
        assert_eq!(Leap::at(u64::MAX, Position(3), Some(0)).to, Position(u64::MAX));
    }
}
