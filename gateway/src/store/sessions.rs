//! TLS sessions on their way to disk: taken and put inside a handshake, which cannot wait for a sync.

use std::collections::BTreeMap;
use std::sync::Mutex;

use bytes::Bytes;

use super::{SESSION_KEY_BYTES_MAX, SESSION_VALUE_BYTES_MAX};

/// Most changes that wait for a commit; beyond it the oldest are dropped. ~70 B each without the
/// values: a flood of handshakes between two commits costs at most these, and each costs its sender more.
const PENDING_MAX: usize = 4_096;

/// Most bytes of them: a key stands in both trees, and a commit takes a third copy along.
pub(crate) const PENDING_BYTES_MAX: usize =
    PENDING_MAX * (SESSION_VALUE_BYTES_MAX + 3 * (SESSION_KEY_BYTES_MAX + 64));

/// What a session was last changed to.
#[derive(Clone, Debug)]
pub(super) enum Change {
    /// Present, with this value.
    Put(Bytes),
    /// Gone.
    Taken,
}

/// Changes not yet committed, each numbered in the order it was made.
#[derive(Debug, Default)]
pub(super) struct SessionBuffer {
    pending: Mutex<Pending>,
}

#[derive(Debug, Default)]
struct Pending {
    next: u64,
    by_key: BTreeMap<Vec<u8>, u64>,
    in_order: BTreeMap<u64, (Vec<u8>, Change)>,
}

impl Pending {
    fn change(&mut self, key: &[u8], change: Change) {
        let number = self.next;
        self.next += 1;
        if let Some(before) = self.by_key.insert(key.to_vec(), number) {
            self.in_order.remove(&before);
        }
        self.in_order.insert(number, (key.to_vec(), change));
        if self.in_order.len() > PENDING_MAX
            && let Some((_, (oldest, _))) = self.in_order.pop_first()
        {
            self.by_key.remove(&oldest);
        }
    }

    fn get(&self, key: &[u8]) -> Option<&Change> {
        self.by_key.get(key).and_then(|number| self.in_order.get(number)).map(|(_, change)| change)
    }
}

/// Whether a session is small enough to keep.
pub(super) fn fits(key: &[u8], value: &[u8]) -> bool {
    key.len() <= SESSION_KEY_BYTES_MAX && value.len() <= SESSION_VALUE_BYTES_MAX
}

impl SessionBuffer {
    fn lock(&self) -> std::sync::MutexGuard<'_, Pending> {
        // Each change is complete before the guard goes, so a panic elsewhere leaves nothing half done.
        self.pending.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// See [`super::Store::put_session`].
    pub(super) fn put(&self, key: &[u8], value: Bytes) -> bool {
        let fits = fits(key, &value);
        if fits {
            self.lock().change(key, Change::Put(value));
        }
        fits
    }

    /// Takes a session from the buffer, or else from what `committed` finds.
    ///
    /// The lock is held over `committed`, so that no two callers take the same session.
    pub(super) fn take<E>(
        &self,
        key: &[u8],
        committed: impl FnOnce() -> Result<Option<Bytes>, E>,
    ) -> Result<Option<Bytes>, E> {
        let mut pending = self.lock();
        let found = match pending.get(key) {
            Some(Change::Put(value)) => Some(value.clone()),
            Some(Change::Taken) => None,
            None => committed()?,
        };
        if found.is_some() {
            pending.change(key, Change::Taken);
        }
        Ok(found)
    }

    /// What a commit should carry, oldest first. It stays readable here until [`Self::committed`].
    pub(super) fn pending(&self) -> Vec<(u64, Vec<u8>, Change)> {
        let pending = self.lock();
        pending
            .in_order
            .iter()
            .map(|(number, (key, change))| (*number, key.clone(), change.clone()))
            .collect()
    }

    /// Forgets those changes that a commit carried and that were not overtaken since.
    pub(super) fn committed(&self, carried: &[(u64, Vec<u8>, Change)]) {
        let mut pending = self.lock();
        for (number, key, _) in carried {
            if pending.in_order.remove(number).is_some() {
                pending.by_key.remove(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::convert::Infallible;

    use super::*;

    fn nowhere() -> Result<Option<Bytes>, Infallible> {
        Ok(None)
    }

    #[test]
    fn a_session_put_again_while_a_commit_carries_the_first_stays_pending() {
        let buffer = SessionBuffer::default();
        assert!(buffer.put(b"k", Bytes::from_static(b"one")));
        let carried = buffer.pending();
        assert!(buffer.put(b"k", Bytes::from_static(b"two")));
        buffer.committed(&carried);
        assert_eq!(buffer.pending().len(), 1);
        assert_eq!(buffer.take(b"k", nowhere).unwrap().unwrap(), "two");
    }

    #[test]
    fn a_committed_session_is_taken_once() {
        let buffer = SessionBuffer::default();
        let disk = || Ok::<_, Infallible>(Some(Bytes::from_static(b"kept")));
        assert_eq!(buffer.take(b"k", disk).unwrap().unwrap(), "kept");
        assert_eq!(buffer.take(b"k", disk).unwrap(), None);
    }

    #[test]
    fn a_flood_between_two_commits_drops_the_oldest() {
        let buffer = SessionBuffer::default();
        for i in 0..=PENDING_MAX as u64 {
            assert!(buffer.put(&i.to_be_bytes(), Bytes::new()));
        }
        assert_eq!(buffer.pending().len(), PENDING_MAX);
        assert_eq!(buffer.take(&0u64.to_be_bytes(), nowhere).unwrap(), None);
        assert!(buffer.take(&1u64.to_be_bytes(), nowhere).unwrap().is_some());
    }

    #[test]
    fn an_oversized_session_is_not_kept() {
        let buffer = SessionBuffer::default();
        assert!(!buffer.put(&[0; SESSION_KEY_BYTES_MAX + 1], Bytes::new()));
        assert!(!buffer.put(b"k", Bytes::from(vec![0; SESSION_VALUE_BYTES_MAX + 1])));
        assert!(buffer.pending().is_empty());
    }
}
