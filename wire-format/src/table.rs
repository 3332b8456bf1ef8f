//! Handle tables: small numbers for keys of 32 bytes, kept over links.
//!
//! One end, the table's owner, appends; the other follows. Neither must ever use a handle that the other
//! holds to be another key, or a message would reach the wrong person. So each link opens with the length
//! and digest of what the device has: a relay restored from a backup, or a device from an old copy of its
//! home, differs in one of them, and the table is cut back to what both share.

use serde::{Deserialize, Serialize};

use crate::ids::{AccountKey, Handle};
use crate::limits::HANDLES_MAX;

/// Length and digest of a table, as [`Hello`](crate::frame::Hello) carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableState {
    /// How many handles.
    pub len: u16,
    /// The first 8 bytes of BLAKE3 over the keys in the order of their handles.
    pub digest: [u8; 8],
}

/// The keys that handles 1, 2, 3, ... stand for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HandleTable {
    keys: Vec<AccountKey>,
}

impl HandleTable {
    /// A table of these keys, in order. Keys beyond the limit are left out.
    pub fn new(mut keys: Vec<AccountKey>) -> Self {
        keys.truncate(usize::from(HANDLES_MAX));
        Self { keys }
    }

    /// How many handles are given.
    pub fn len(&self) -> u16 {
        self.keys.len() as u16
    }

    /// Whether no handle is given.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The key behind a handle.
    pub fn key(&self, handle: Handle) -> Option<AccountKey> {
        self.keys.get(usize::from(handle.0).checked_sub(1)?).copied()
    }

    /// The handle of a key, if it has one.
    pub fn handle(&self, key: &AccountKey) -> Option<Handle> {
        self.keys.iter().position(|k| k == key).map(|index| Handle(index as u16 + 1))
    }

    /// Gives the next handle to a key; `None` when the table is full.
    pub fn push(&mut self, key: AccountKey) -> Option<Handle> {
        if self.len() == HANDLES_MAX {
            return None;
        }
        self.keys.push(key);
        Some(Handle(self.len()))
    }

    /// Forgets all handles above `len`.
    pub fn truncate(&mut self, len: u16) {
        self.keys.truncate(usize::from(len));
    }

    /// The whole table's length and digest.
    pub fn state(&self) -> TableState {
        TableState { len: self.len(), digest: digest(&self.keys) }
    }

    /// Cuts the table back to what it shares with the other end's: the other's length if the digest over
    /// that many keys is the same, else nothing. Returns the new length.
    pub fn reconcile(&mut self, other: TableState) -> u16 {
        let shared = self
            .keys
            .get(..usize::from(other.len))
            .filter(|keys| digest(keys) == other.digest)
            .map_or(0, |keys| keys.len());
        self.keys.truncate(shared);
        self.len()
    }
}

fn digest(keys: &[AccountKey]) -> [u8; 8] {
    let mut hasher = blake3::Hasher::new();
    for key in keys {
        hasher.update(&key.0);
    }
    let mut digest = [0; 8];
    digest.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    digest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> AccountKey {
        AccountKey([n; 32])
    }

    fn table(keys: &[u8]) -> HandleTable {
        HandleTable::new(keys.iter().copied().map(key).collect())
    }

    #[test]
    fn handles_count_from_one_and_lead_back() {
        let mut table = HandleTable::default();
        assert_eq!(table.push(key(7)), Some(Handle(1)));
        assert_eq!(table.push(key(9)), Some(Handle(2)));
        assert_eq!(table.key(Handle(2)), Some(key(9)));
        assert_eq!(table.handle(&key(9)), Some(Handle(2)));
        assert_eq!(table.key(Handle(0)), None);
        assert_eq!(table.key(Handle(3)), None);
    }

    #[test]
    fn a_longer_table_is_cut_back_to_what_an_old_copy_knows() {
        let mut relay = table(&[1, 2, 3, 4]);
        assert_eq!(relay.reconcile(table(&[1, 2]).state()), 2);
        assert_eq!(relay, table(&[1, 2]));
    }

    #[test]
    fn tables_that_went_apart_share_nothing() {
        let mut relay = table(&[1, 2, 3]);
        assert_eq!(relay.reconcile(table(&[1, 2, 9]).state()), 0);
        let mut restored = table(&[1]);
        assert_eq!(restored.reconcile(table(&[1, 2]).state()), 0);
        assert!(restored.is_empty());
    }

    #[test]
    fn a_full_table_gives_no_handle() {
        let mut table = HandleTable::new(vec![key(1); usize::from(HANDLES_MAX)]);
        assert_eq!(table.push(key(2)), None);
    }
}
