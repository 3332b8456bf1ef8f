//! Handle tables: small numbers for what takes 32 or 48 bytes, kept over links.
//!
//! One end, the table's owner, appends; the other follows. Neither must ever use a handle that the other
//! holds to be another key, or a message would reach the wrong person. So each link opens with the length
//! and digest of what the device has: a relay restored from a backup, or a device from an old copy of its
//! home, differs in one of them, and the table is cut back to what both share.

use serde::{Deserialize, Serialize};

use crate::ids::{AccountKey, Handle};
use crate::limits::HANDLES_MAX;
use crate::token::{ADDRESS_BYTES, MailboxAddress};

/// Length and digest of a table, as [`Hello`](crate::frame::Hello) carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableState {
    /// How many handles.
    pub len: u16,
    /// The first 8 bytes of BLAKE3 over the entries in the order of their handles.
    pub digest: [u8; 8],
}

/// What a handle can stand for.
pub trait Entry: Copy + Eq {
    /// As it is hashed and stored.
    type Bytes: AsRef<[u8]>;

    /// Different for different entries, and of one length.
    fn to_bytes(self) -> Self::Bytes;
}

impl Entry for AccountKey {
    type Bytes = [u8; 32];

    fn to_bytes(self) -> [u8; 32] {
        self.0
    }
}

impl Entry for MailboxAddress {
    type Bytes = [u8; ADDRESS_BYTES];

    fn to_bytes(self) -> [u8; ADDRESS_BYTES] {
        Self::to_bytes(self)
    }
}

/// What handles 1, 2, 3, ... stand for: mailboxes with a right to submit to them, or senders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandleTable<E> {
    entries: Vec<E>,
}

impl<E> Default for HandleTable<E> {
    fn default() -> Self {
        Self { entries: Vec::new() }
    }
}

impl<E: Entry> HandleTable<E> {
    /// A table of these entries, in order. Those beyond the limit are left out.
    pub fn new(mut entries: Vec<E>) -> Self {
        entries.truncate(usize::from(HANDLES_MAX));
        Self { entries }
    }

    /// How many handles are given.
    pub fn len(&self) -> u16 {
        self.entries.len() as u16
    }

    /// Whether no handle is given.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What a handle stands for.
    pub fn entry(&self, handle: Handle) -> Option<E> {
        self.entries.get(usize::from(handle.0).checked_sub(1)?).copied()
    }

    /// The handle of an entry, if it has one.
    pub fn handle(&self, entry: &E) -> Option<Handle> {
        self.entries.iter().position(|e| e == entry).map(|index| Handle(index as u16 + 1))
    }

    /// Gives the next handle to an entry; `None` when the table is full.
    pub fn push(&mut self, entry: E) -> Option<Handle> {
        if self.len() == HANDLES_MAX {
            return None;
        }
        self.entries.push(entry);
        Some(Handle(self.len()))
    }

    /// Forgets all handles above `len`.
    pub fn truncate(&mut self, len: u16) {
        self.entries.truncate(usize::from(len));
    }

    /// The whole table's length and digest.
    pub fn state(&self) -> TableState {
        TableState { len: self.len(), digest: digest(&self.entries) }
    }

    /// Cuts the table back to what it shares with the other end's: the other's length if the digest over
    /// that many entries is the same, else nothing. Returns the new length.
    pub fn reconcile(&mut self, other: TableState) -> u16 {
        let shared = self
            .entries
            .get(..usize::from(other.len))
            .filter(|entries| digest(entries) == other.digest)
            .map_or(0, |entries| entries.len());
        self.entries.truncate(shared);
        self.len()
    }
}

fn digest<E: Entry>(entries: &[E]) -> [u8; 8] {
    let mut hasher = blake3::Hasher::new();
    for entry in entries {
        hasher.update(entry.to_bytes().as_ref());
    }
    let mut digest = [0; 8];
    digest.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    digest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::Token;

    fn key(n: u8) -> AccountKey {
        AccountKey([n; 32])
    }

    fn table(keys: &[u8]) -> HandleTable<AccountKey> {
        HandleTable::new(keys.iter().copied().map(key).collect())
    }

    #[test]
    fn handles_count_from_one_and_lead_back() {
        let mut table = HandleTable::default();
        assert_eq!(table.push(key(7)), Some(Handle(1)));
        assert_eq!(table.push(key(9)), Some(Handle(2)));
        assert_eq!(table.entry(Handle(2)), Some(key(9)));
        assert_eq!(table.handle(&key(9)), Some(Handle(2)));
        assert_eq!(table.entry(Handle(0)), None);
        assert_eq!(table.entry(Handle(3)), None);
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
    fn a_mailbox_under_another_token_is_another_entry() {
        let address = |token| MailboxAddress { mailbox: key(1), token: Token([token; 16]) };
        let mut table = HandleTable::new(vec![address(1)]);
        assert_eq!(table.handle(&address(2)), None);
        assert_eq!(table.reconcile(HandleTable::new(vec![address(2)]).state()), 0);
    }

    #[test]
    fn a_full_table_gives_no_handle() {
        let mut table = HandleTable::new(vec![key(1); usize::from(HANDLES_MAX)]);
        assert_eq!(table.push(key(2)), None);
    }
}
