//! Which stores a store was restored from, and what their positions say in it.
//!
//! A store that comes back from a backup is another store, with an id of its own: devices then tell it again what
//! only the lost one knew. Its entries up to the backup's newest position are those of the store before, under the
//! same positions, and what is appended follows them. So how far a device had read there says what it need not be
//! given here.

use std::cmp::{max, min};
use std::collections::HashSet;

use data_encoding::HEXLOWER;
use thinpost_wire::ids::{Position, StoreId};

/// Most earlier stores that are remembered; the oldest are forgotten first. As many as a device knows again.
const EARLIER_MAX: usize = 16;

/// A store's id, and those of the stores that it was restored from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lineage {
    id: StoreId,
    /// Oldest first, each with the newest position that it has in common with this one.
    earlier: Vec<(StoreId, Position)>,
}

impl Lineage {
    /// Of a store that was restored from none.
    pub fn new(id: StoreId) -> Self {
        Self { id, earlier: Vec::new() }
    }

    /// As it was written down.
    pub(super) fn with_earlier(id: StoreId, earlier: Vec<(StoreId, Position)>) -> Self {
        Self { id, earlier }
    }

    /// Of the store `id` that is restored from a backup of this one, whose newest position is `newest`.
    #[must_use]
    pub fn restored(&self, id: StoreId, newest: Position) -> Self {
        let mut earlier = self.earlier.clone();
        earlier.push((self.id, newest));
        earlier.drain(..earlier.len().saturating_sub(EARLIER_MAX));
        Self { id, earlier }
    }

    /// What cannot be so in a store whose newest position is `newest`.
    pub(super) fn contradiction(&self, newest: Position) -> Option<String> {
        let stores = self.earlier.len();
        if stores > EARLIER_MAX {
            return Some(format!("{stores} stores before it are named, and {EARLIER_MAX} at most are kept"));
        }
        let ids = self.earlier.iter().map(|(id, _)| *id).chain([self.id]);
        let mut known = HashSet::new();
        if let Some(again) = ids.into_iter().find(|id| !known.insert(id.0)) {
            return Some(format!("store {} is named twice", HEXLOWER.encode(&again.0)));
        }
        if !self.earlier.iter().map(|(_, common)| common.0).is_sorted() {
            return Some("it has less in common with a store before it than with one before that".to_owned());
        }
        let last = self.earlier.last().map(|(_, common)| common.0).filter(|last| *last > newest.0);
        last.map(|last| format!("it goes back to position {last}, which was never given out"))
    }

    /// The store's own id.
    pub fn id(&self) -> StoreId {
        self.id
    }

    /// The stores before, oldest first, each with the newest position that it has in common with this one.
    pub fn earlier(&self) -> &[(StoreId, Position)] {
        &self.earlier
    }

    /// What a device has read in this store if it has read so far in `store`: nothing, of one that has nothing to do
    /// with it.
    pub fn here(&self, store: StoreId, read: Position) -> Position {
        if store == self.id {
            return read;
        }
        let known = self.earlier.iter().find(|(earlier, _)| *earlier == store);
        known.map_or(Position(0), |(_, common)| min(read, *common))
    }

    /// Behind which position a device is given what there is: behind what it has settled here, or what it says that it has read,
    /// but behind nothing that is yet to be given out. `newest` is the last that was.
    pub fn resume(&self, settled: Position, read: Option<(StoreId, Position)>, newest: Position) -> Position {
        let read = read.map_or(Position(0), |(store, read)| self.here(store, read));
        min(max(settled, read), newest)
    }

    /// What a device is told of its cursor. Where it has settled nothing that was accepted since the store was
    /// restored, it has read nothing in this store: a cursor of before would be news to it, and a sign that it is an
    /// old copy of itself.
    pub fn stated(&self, cursor: Position) -> Position {
        let restored_at = self.earlier.last().map_or(Position(0), |(_, common)| *common);
        if cursor > restored_at { cursor } else { Position(0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: StoreId = StoreId([1; 8]);
    const SECOND: StoreId = StoreId([2; 8]);
    const THIRD: StoreId = StoreId([3; 8]);

    #[test]
    fn a_position_of_an_earlier_store_counts_as_far_as_the_two_are_one() {
        let lineage = Lineage::new(FIRST).restored(SECOND, Position(10)).restored(THIRD, Position(25));
        let here = |store, read| lineage.here(store, Position(read)).0;
        assert_eq!((here(FIRST, 7), here(FIRST, 10), here(FIRST, 30)), (7, 10, 10));
        assert_eq!((here(SECOND, 12), here(SECOND, 30)), (12, 25));
        assert_eq!(here(THIRD, 30), 30);
        assert_eq!(here(StoreId([9; 8]), 30), 0);
    }

    #[test]
    fn a_cursor_is_stated_once_it_stands_behind_what_was_restored() {
        assert_eq!(Lineage::new(FIRST).stated(Position(1)), Position(1));
        let lineage = Lineage::new(FIRST).restored(SECOND, Position(10));
        assert_eq!(lineage.stated(Position(10)), Position(0));
        assert_eq!(lineage.stated(Position(11)), Position(11));
    }

    #[test]
    fn the_oldest_stores_are_forgotten_first() {
        let mut lineage = Lineage::new(StoreId([0; 8]));
        for n in 1..=EARLIER_MAX as u8 + 2 {
            lineage = lineage.restored(StoreId([n; 8]), Position(u64::from(n)));
        }
        assert_eq!(lineage.earlier().len(), EARLIER_MAX);
        assert_eq!(lineage.earlier()[0], (StoreId([2; 8]), Position(3)));
    }
}
