//! Who waits for mail in which mailbox.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use thinpost_wire::ids::{AccountKey, Position};
use tokio::sync::watch;

/// The mailboxes that are watched, and by how many. A handle: clones share one registry.
///
/// Holds a row for each mailbox with a live [`Watcher`] and no other, so it is bounded by the number of
/// sessions.
#[derive(Clone, Debug, Default)]
pub struct Watches {
    by_account: Arc<Mutex<BTreeMap<AccountKey, watch::Sender<Position>>>>,
}

impl Watches {
    fn rows(&self) -> MutexGuard<'_, BTreeMap<AccountKey, watch::Sender<Position>>> {
        self.by_account.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches a mailbox from now on. Read the mailbox after this call, not before: what is appended
    /// between the two is then seen by one or the other.
    pub fn watch(&self, account: AccountKey) -> Watcher {
        let mut rows = self.rows();
        let sender = rows.entry(account).or_insert_with(|| watch::channel(Position(0)).0);
        Watcher { account, receiver: Some(sender.subscribe()), watches: self.clone() }
    }

    /// Wakes a mailbox's watchers. To be called once `newest` is on disk.
    pub fn wake(&self, account: &AccountKey, newest: Position) {
        if let Some(sender) = self.rows().get(account) {
            sender.send_replace(newest);
        }
    }

    /// How many mailboxes are watched.
    pub fn mailboxes(&self) -> usize {
        self.rows().len()
    }
}

/// One session's eye on one mailbox; see [`Watches::watch`].
#[derive(Debug)]
pub struct Watcher {
    account: AccountKey,
    /// `Some` until dropped.
    receiver: Option<watch::Receiver<Position>>,
    watches: Watches,
}

impl Watcher {
    /// Completes once something was appended since the watcher was made or this last completed.
    ///
    /// Cancel safe: a call that is dropped before it completes loses nothing.
    pub async fn changed(&mut self) {
        let changed = match &mut self.receiver {
            Some(receiver) => receiver.changed().await.is_ok(),
            None => false,
        };
        if !changed {
            // Cannot be: the sender stands in the registry as long as this watcher does.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let mut rows = self.watches.rows();
        // Under the registry's lock, so that no new watcher comes between the count and the removal.
        self.receiver = None;
        if rows.get(&self.account).is_some_and(|sender| sender.receiver_count() == 0) {
            rows.remove(&self.account);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    const ALICE: AccountKey = AccountKey([1; 32]);
    const BOB: AccountKey = AccountKey([2; 32]);

    /// Whether a future is ready when first asked.
    fn is_ready(future: impl Future) -> bool {
        pin!(future).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn every_device_of_a_mailbox_wakes_once_for_each_append() {
        let watches = Watches::default();
        let (mut phone, mut desk) = (watches.watch(ALICE), watches.watch(ALICE));
        let mut other = watches.watch(BOB);
        watches.wake(&ALICE, Position(1));
        assert!(is_ready(phone.changed()) && is_ready(desk.changed()));
        assert!(!is_ready(phone.changed()) && !is_ready(other.changed()));
        watches.wake(&ALICE, Position(2));
        assert!(is_ready(phone.changed()));
    }

    #[test]
    fn what_comes_between_watching_and_waiting_is_not_missed() {
        let watches = Watches::default();
        let mut watcher = watches.watch(ALICE);
        watches.wake(&ALICE, Position(1));
        assert!(is_ready(watcher.changed()));
    }

    #[test]
    fn a_mailbox_that_nobody_watches_takes_no_room() {
        let watches = Watches::default();
        watches.wake(&ALICE, Position(1));
        assert_eq!(watches.mailboxes(), 0);
        let (first, second) = (watches.watch(ALICE), watches.watch(ALICE));
        assert_eq!(watches.mailboxes(), 1);
        drop(first);
        assert_eq!(watches.mailboxes(), 1);
        drop(second);
        assert_eq!(watches.mailboxes(), 0);
    }
}
