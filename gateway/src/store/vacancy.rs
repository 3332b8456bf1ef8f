//! Who was refused by which mailbox, and waits until it may take something again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use thinpost_wire::ids::{AccountKey, Handle};
use tokio::sync::mpsc;

type Rows = BTreeMap<AccountKey, BTreeMap<u64, (Handle, mpsc::UnboundedSender<Handle>)>>;

#[derive(Debug, Default)]
struct Registry {
    rows: Rows,
    last_id: u64,
}

/// The mailboxes that are waited for, and by whom. A handle: clones share one registry.
///
/// Holds a row for each account that a live [`Applicant`] asks for, so that it is bounded by the handles
/// of connected devices.
#[derive(Clone, Debug, Default)]
pub struct Vacancies(Arc<Mutex<Registry>>);

impl Vacancies {
    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody who will ask.
    pub fn applicant(&self) -> Applicant {
        let mut registry = self.registry();
        registry.last_id += 1;
        let (sender, ready) = mpsc::unbounded_channel();
        Applicant { id: registry.last_id, asked: BTreeMap::new(), sender, ready, vacancies: self.clone() }
    }

    /// Tells all who asked for this mailbox, once. To be called when what made it so is on disk.
    pub fn announce(&self, account: &AccountKey) {
        let Some(row) = self.registry().rows.remove(account) else { return };
        for (handle, sender) in row.into_values() {
            // Whoever is gone no longer wants to know.
            let _ = sender.send(handle);
        }
    }

    /// How many mailboxes are asked for.
    pub fn mailboxes(&self) -> usize {
        self.registry().rows.len()
    }
}

/// One session that waits for mailboxes, which it knows by handles.
#[derive(Debug)]
pub struct Applicant {
    id: u64,
    asked: BTreeMap<Handle, AccountKey>,
    sender: mpsc::UnboundedSender<Handle>,
    ready: mpsc::UnboundedReceiver<Handle>,
    vacancies: Vacancies,
}

impl Applicant {
    /// Asks to be told once when the mailbox may take something again. Look at the mailbox after this
    /// call: what changed before it is not told.
    pub fn ask(&mut self, handle: Handle, account: AccountKey) {
        self.asked.insert(handle, account);
        let row = (handle, self.sender.clone());
        self.vacancies.registry().rows.entry(account).or_default().insert(self.id, row);
    }

    /// For how many it waits.
    pub fn asked(&self) -> usize {
        self.asked.len()
    }

    /// Completes when one of the mailboxes asked for was announced. Cancel safe.
    pub async fn ready(&mut self) -> Handle {
        match self.ready.recv().await {
            Some(handle) => {
                self.asked.remove(&handle);
                handle
            }
            // Cannot be: this applicant holds a sender.
            None => std::future::pending().await,
        }
    }
}

impl Drop for Applicant {
    fn drop(&mut self) {
        let rows = &mut self.vacancies.registry().rows;
        for account in self.asked.values() {
            if let Some(row) = rows.get_mut(account) {
                row.remove(&self.id);
                if row.is_empty() {
                    rows.remove(account);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    const ALICE: AccountKey = AccountKey([1; 32]);
    const BOB: AccountKey = AccountKey([2; 32]);

    fn ready(applicant: &mut Applicant) -> Option<Handle> {
        match pin!(applicant.ready()).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(handle) => Some(handle),
            Poll::Pending => None,
        }
    }

    #[test]
    fn all_who_asked_are_told_once_by_their_own_handle() {
        let vacancies = Vacancies::default();
        let (mut first, mut second) = (vacancies.applicant(), vacancies.applicant());
        first.ask(Handle(1), ALICE);
        second.ask(Handle(9), ALICE);
        second.ask(Handle(3), BOB);
        vacancies.announce(&ALICE);
        vacancies.announce(&ALICE);
        assert_eq!((ready(&mut first), ready(&mut first)), (Some(Handle(1)), None));
        assert_eq!((ready(&mut second), ready(&mut second)), (Some(Handle(9)), None));
    }

    #[test]
    fn an_applicant_that_is_gone_takes_no_room() {
        let vacancies = Vacancies::default();
        let (mut first, mut second) = (vacancies.applicant(), vacancies.applicant());
        first.ask(Handle(1), ALICE);
        first.ask(Handle(2), BOB);
        second.ask(Handle(1), BOB);
        drop(first);
        assert_eq!(vacancies.mailboxes(), 1);
        drop(second);
        assert_eq!(vacancies.mailboxes(), 0);
    }
}
