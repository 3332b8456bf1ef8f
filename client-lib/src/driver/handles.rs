//! A handle table beside its durable copy.

use thinpost_wire::ids::Handle;
use thinpost_wire::limits::HANDLES_MAX;
use thinpost_wire::table::{Entry, HandleTable, TableState};

use crate::store::TableChange;

/// A table of which a first part is *settled*, that is, known to both ends for good, and a first part is
/// stored. Only what is settled is stored, and only that is announced on the next link.
#[derive(Debug)]
pub(super) struct Handles<E> {
    table: HandleTable<E>,
    settled: u16,
    /// How many handles the store holds.
    stored: u16,
    /// How many of those are the table's still.
    stored_right: u16,
}

impl<E: Entry> Handles<E> {
    pub(super) fn new(entries: Vec<E>) -> Self {
        let table = HandleTable::new(entries);
        let len = table.len();
        Self { table, settled: len, stored: len, stored_right: len }
    }

    pub(super) fn state(&self) -> TableState {
        self.table.state()
    }

    pub(super) fn len(&self) -> u16 {
        self.table.len()
    }

    pub(super) fn entry(&self, handle: Handle) -> Option<E> {
        self.table.entry(handle)
    }

    pub(super) fn handle(&self, entry: &E) -> Option<Handle> {
        self.table.handle(entry)
    }

    /// Gives the next handle; `None` when the table is full.
    pub(super) fn push(&mut self, entry: E) -> Option<Handle> {
        self.table.push(entry)
    }

    /// Both ends know the handles up to this one.
    pub(super) fn settle(&mut self, upto: u16) {
        self.settled = self.settled.max(upto.min(self.table.len()));
    }

    pub(super) fn truncate(&mut self, len: u16) {
        self.table.truncate(len);
        self.settled = self.settled.min(len);
        self.stored_right = self.stored_right.min(len);
    }

    /// Forgets what is not settled: the link on which it was said is gone.
    pub(super) fn forget_unsettled(&mut self) {
        self.truncate(self.settled);
    }

    /// What the store is to be told.
    pub(super) fn change(&self) -> Option<TableChange<E>> {
        if (self.stored_right, self.settled) == (self.stored, self.stored) {
            return None;
        }
        let append = (self.stored_right + 1..=self.settled.min(HANDLES_MAX))
            .filter_map(|handle| self.table.entry(Handle(handle)))
            .collect();
        Some(TableChange { keep: self.stored_right, append })
    }

    /// The store was told.
    pub(super) fn stored(&mut self) {
        self.stored = self.settled;
        self.stored_right = self.settled;
    }
}

#[cfg(test)]
mod tests {
    use thinpost_wire::ids::AccountKey;

    use super::*;

    fn key(n: u8) -> AccountKey {
        AccountKey([n; 32])
    }

    #[test]
    fn only_settled_handles_reach_the_store() {
        let mut handles = Handles::new(vec![key(1)]);
        assert_eq!(handles.change(), None);
        handles.push(key(2)).unwrap();
        handles.push(key(3)).unwrap();
        assert_eq!(handles.change(), None);
        handles.settle(2);
        assert_eq!(handles.change(), Some(TableChange { keep: 1, append: vec![key(2)] }));
        handles.stored();
        handles.forget_unsettled();
        assert_eq!((handles.len(), handles.change()), (2, None));
    }

    #[test]
    fn a_full_table_gives_no_handle_before_it_is_begun_anew() {
        let entry = |n: u16| {
            let mut key = [0; 32];
            key[..2].copy_from_slice(&n.to_be_bytes());
            AccountKey(key)
        };
        let mut handles = Handles::new((0..HANDLES_MAX).map(entry).collect());
        assert_eq!(handles.push(entry(HANDLES_MAX)), None);
        handles.truncate(0);
        assert_eq!(handles.state().len, 0, "what the next link begins with");
        assert_eq!(handles.push(entry(HANDLES_MAX)), Some(Handle(1)));
        handles.settle(1);
        assert_eq!(handles.change(), Some(TableChange { keep: 0, append: vec![entry(HANDLES_MAX)] }));
    }

    #[test]
    fn a_table_that_was_cut_back_is_cut_back_in_the_store_too() {
        let mut handles = Handles::new(vec![key(1), key(2)]);
        handles.truncate(1);
        handles.push(key(9)).unwrap();
        handles.settle(2);
        assert_eq!(handles.change(), Some(TableChange { keep: 1, append: vec![key(9)] }));
        handles.stored();
        assert_eq!(handles.change(), None);
        handles.truncate(0);
        assert_eq!(handles.change(), Some(TableChange { keep: 0, append: vec![] }));
    }
}
