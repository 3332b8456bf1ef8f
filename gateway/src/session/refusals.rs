//! What a session has refused, and what follows from that until the device has dealt with it.
//! `PROTOCOL.md`, section "Refusals", has the rules.

use std::collections::{BTreeMap, VecDeque};

use thinpost_wire::frame::Refusal;
use thinpost_wire::ids::{AccountKey, Handle};

use crate::store::{self, Applicant};

#[derive(Debug)]
pub(super) struct Refusals {
    /// Those that the device has not settled: their number, and that of what they refuse. It is not settled
    /// before, or a device that restarts between the two would take it for done.
    unsettled: VecDeque<(u64, u64)>,
    /// Handles to which a submit was refused for now: whatever else comes for them is refused, too, until
    /// the device resumes, or it would overtake.
    held: BTreeMap<Handle, Refusal>,
    /// Waits for the mailboxes of those handles that a mailbox is the reason for.
    applicant: Applicant,
}

impl Refusals {
    pub(super) fn new(applicant: Applicant) -> Self {
        Self { unsettled: VecDeque::new(), held: BTreeMap::new(), applicant }
    }

    /// A submit to this handle was refused by the frame of this `number`.
    pub(super) fn said(&mut self, number: u64, submit: u64, to: Handle, reason: Refusal) {
        if reason.is_temporary() {
            self.held.insert(to, reason);
        }
        self.withhold(number, submit);
    }

    /// The frame of this `number` refuses the device's frame `refused`.
    pub(super) fn withhold(&mut self, number: u64, refused: u64) {
        self.unsettled.push_back((number, refused));
    }

    /// The device has settled the frames up to this number.
    pub(super) fn settled(&mut self, upto: u64) {
        while self.unsettled.pop_front_if(|(number, _)| *number <= upto).is_some() {}
    }

    /// How far submits may be settled when all up to `processed` have been acted on. What is refused at once
    /// can stand before an earlier submit that the store refuses, and after one that it has not answered.
    pub(super) fn may_settle(&self, processed: u64) -> u64 {
        let first = self.unsettled.iter().map(|(_, submit)| *submit).min();
        first.map_or(processed, |submit| processed.min(submit - 1))
    }

    /// Why the handle is held, if it is.
    pub(super) fn held(&self, to: Handle) -> Option<Refusal> {
        self.held.get(&to).copied()
    }

    pub(super) fn release(&mut self, to: Handle) {
        self.held.remove(&to);
    }

    /// If this refusal is the first for the handle and comes from the mailbox itself: has the device told
    /// when it is over. Returns whether it was.
    pub(super) fn ask(&mut self, to: Handle, account: AccountKey, reason: Refusal) -> bool {
        let asks = self.held(to).is_none() && matches!(reason, Refusal::NoSuchMailbox | Refusal::MailboxFull);
        if asks {
            self.applicant.ask(to, account);
        }
        asks
    }

    /// What it holds, bytes: a row of each tree, and one in the relay's own registry for each mailbox that is waited for.
    pub(super) fn own_bytes(&self) -> usize {
        const ROW_BYTES: usize = 128;
        let asked = self.applicant.asked();
        (self.unsettled.len() * 16) + self.held.len() * ROW_BYTES / 2 + asked * 3 * ROW_BYTES
    }

    /// Completes when a mailbox that was asked for may take something again. Cancel safe.
    pub(super) async fn ready(&mut self) -> Handle {
        self.applicant.ready().await
    }
}

/// What the device is told of a refusal; `None` when it is no longer registered.
pub(super) fn refused(refusal: store::Refusal) -> Option<Refusal> {
    Some(match refusal {
        store::Refusal::Conflict => Refusal::NumberReused,
        store::Refusal::Stale => Refusal::NumberSettled,
        store::Refusal::MailboxFull => Refusal::MailboxFull,
        store::Refusal::StoreFull => Refusal::RelayFull,
        store::Refusal::NoSuchMailbox => Refusal::NoSuchMailbox,
        store::Refusal::TooLong => Refusal::TooLarge,
        store::Refusal::NotWanted => Refusal::NotWanted,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Vacancies;

    const TOO_FAST: Refusal = Refusal::TooFast { retry_after_s: 1 };

    fn refusals() -> Refusals {
        Refusals::new(Vacancies::default().applicant())
    }

    #[test]
    fn a_refused_submit_is_settled_after_its_refusal_and_holds_up_what_follows() {
        let mut refusals = refusals();
        refusals.said(7, 3, Handle(1), TOO_FAST);
        assert_eq!((refusals.may_settle(2), refusals.may_settle(5)), (2, 2));
        refusals.settled(6);
        assert_eq!(refusals.may_settle(5), 2);
        refusals.settled(7);
        assert_eq!(refusals.may_settle(5), 5);
    }

    #[test]
    fn refusals_may_be_said_in_another_order_than_that_of_the_submits() {
        let mut refusals = refusals();
        refusals.said(7, 5, Handle(1), TOO_FAST);
        refusals.said(8, 3, Handle(2), Refusal::MailboxFull);
        assert_eq!(refusals.may_settle(6), 2);
        refusals.settled(7);
        assert_eq!(refusals.may_settle(6), 2);
    }

    #[test]
    fn only_the_first_refusal_by_a_mailbox_asks_for_it() {
        let mut refusals = refusals();
        assert!(!refusals.ask(Handle(1), AccountKey([1; 32]), TOO_FAST));
        assert!(refusals.ask(Handle(1), AccountKey([1; 32]), Refusal::MailboxFull));
        refusals.said(1, 1, Handle(1), Refusal::MailboxFull);
        assert!(!refusals.ask(Handle(1), AccountKey([1; 32]), Refusal::MailboxFull));
        refusals.release(Handle(1));
        assert!(refusals.ask(Handle(1), AccountKey([1; 32]), Refusal::NoSuchMailbox));
    }
}
