//! Receipts and other notes: when they leave, and what those of others lead to.

use std::iter;
use std::time::Duration;

use thinpost_wire::notes::Notes;
use tokio::time::Instant;

use super::Driver;
use crate::client::Shared;
use crate::error::StoreError;
use crate::kept::{Name, News};
use crate::message::MessageId;
use crate::notices::Matter;
use crate::seal::Identity;
use crate::store::Queued;
use crate::store::records::OutboxRow;

/// How long notes wait for something that takes them along. What leaves at once, every time, tells a relay
/// in a few messages who answers whom; what waits long keeps its sender's disk full.
const DELAY_MIN: Duration = Duration::from_secs(15);
const DELAY_MAX: Duration = Duration::from_secs(90);

/// Parcels of notes that leave for a contact together at most: receipts for 128 openings of the contact's home. What is more
/// waits for the next time.
const PARCELS_MAX: usize = 8;

/// How long after the first answer to a repeat the second may follow, and how often the pause doubles: up to 64 minutes.
const REPEATS_PAUSE_MIN: Duration = Duration::from_secs(30);
const REPEATS_DOUBLED_MAX: u32 = 7;

/// How often a contact is asked again at most.
const ASK_INTERVAL: Duration = Duration::from_secs(600);

/// How repeats from a contact were answered.
#[derive(Debug, Default)]
pub(super) struct Answered {
    count: u32,
    at: Option<Instant>,
}

impl Answered {
    /// Whether another is to be: the first at once, and each later one after twice as long.
    fn is_due(&mut self, now: Instant) -> bool {
        let pause = REPEATS_PAUSE_MIN * 2u32.pow(self.count.saturating_sub(1).min(REPEATS_DOUBLED_MAX));
        let is_due = self.at.is_none_or(|at| at + pause <= now);
        if is_due {
            (self.count, self.at) = (self.count + 1, Some(now));
        }
        is_due
    }
}

impl Driver {
    /// There is something to say to this device besides letters.
    pub(super) fn schedule_notes(&mut self, with: &Identity) {
        let delay = DELAY_MIN + self.random.up_to(DELAY_MAX - DELAY_MIN);
        self.seals.schedule_notes(with, self.shared.clock.now_ms() + delay.as_millis() as u64);
    }

    /// When the next notes leave alone; none if there are none, or if they are only waiting for room.
    pub(super) fn next_notes(&self, now: Instant) -> Option<Instant> {
        let wait_ms =
            self.seals.next_notes()?.checked_sub(self.shared.clock.now_ms()).filter(|ms| *ms > 0)?;
        Some(now + Duration::from_millis(wait_ms).min(DELAY_MAX))
    }

    /// Puts notes that have waited for long enough into the outbox. What they say is decided when they leave.
    pub(super) async fn enqueue_notes(&mut self) -> Result<(), StoreError> {
        let now_ms = self.shared.clock.now_ms();
        let due = self.seals.take_due(now_ms, DELAY_MAX.as_millis() as u64);
        let mut rows = Vec::with_capacity(due.len());
        for with in &due {
            let Some(ticket) = self.shared.contacts().ticket_of(with).cloned() else { continue };
            if self.outbox.has_notes(&ticket.account) {
                // They are sealed, perhaps, and do not say what has come since.
                self.schedule_notes(with);
                continue;
            }
            let parcels = match self.shared.contacts().access(&ticket.account).withholds_receipts {
                true => 1,
                false => self.seals.notes_parcels(with),
            };
            let row = OutboxRow::notes(&ticket, self.shared.numbers.incarnation(), now_ms);
            rows.extend(iter::repeat_n(row, parcels.min(PARCELS_MAX)));
            if parcels > PARCELS_MAX {
                self.schedule_notes(with);
            }
        }
        if rows.is_empty() {
            return Ok(());
        }
        let enqueue = move |shared: &Shared| {
            let first = shared.store.enqueue_notes(&rows)?;
            Ok((first.0..).map(MessageId).zip(rows).collect::<Vec<_>>())
        };
        for (id, row) in self.shared.on_disk(enqueue).await? {
            self.outbox.insert(id, &Queued::from(&row));
        }
        Ok(())
    }

    /// Acts on what another device says besides letters.
    pub(super) fn heed(&mut self, from: &Identity, notes: &Notes) {
        let account = self.shared.contacts().account_of(from);
        let lacks_model = notes.models.clone().is_some_and(|models| self.seals.models_told(from, models));
        if let Some(account) = account.filter(|_| notes.again) {
            // What they could not read may have held more than letters.
            self.seals.tell_anew(from);
            self.schedule_notes(from);
            if !lacks_model {
                self.changes.notices.push(Matter::AskedAgain(account));
            }
            self.kept.suspect(self.outbox.on_their_way(&account));
        }
        if let Some(token) = notes.token {
            self.take_token(from, token);
        }
        let has_arrived =
            |name: &Name| name.with == *from && notes.seen.iter().any(|seen| name.has_arrived(seen));
        // A receipt can be quicker than the relay's answer. It is said once: what it says is written with it.
        let mut may_be_untold = false;
        for (carrier, sealed) in self.outbox.arrived(has_arrived) {
            self.take_custody(carrier);
            // It may have arrived as it was sent before, and what rode with it now is refused.
            may_be_untold |= sealed.iter().any(|(id, queued)| !queued.is_first_time(*id));
            self.changes.delivered.extend(sealed.iter().map(|(id, queued)| (*id, queued.app_id)));
            let is_read = |name: &Name| notes.seen.iter().any(|seen| name.is_read(seen));
            let read = sealed.iter().filter(|(_, queued)| queued.name.as_ref().is_some_and(is_read));
            self.changes.read.extend(read.map(|(id, queued)| (*id, queued.app_id)));
        }
        if may_be_untold {
            self.seals.tell_anew(from);
            self.schedule_notes(from);
        }
        let news = self.kept.heed(from, account, notes);
        self.take_news(news);
    }

    /// The next commit makes it durable.
    pub(super) fn take_news(&mut self, news: News) {
        let News { delivered, read, again, abandoned } = news;
        if !again.is_empty() {
            tracing::info!(count = again.len(), "messages are sent again");
        }
        self.changes.delivered.extend(delivered);
        self.changes.read.extend(read);
        self.changes.again.extend(again);
        self.changes.abandoned.extend(abandoned);
    }

    /// What has no receipt for too long.
    pub(super) fn send_overdue(&mut self) {
        let news = self.kept.overdue(self.shared.clock.now_ms());
        self.take_news(news);
    }

    /// The relay's store is another one than before. What was in it is lost: messages, and what contacts were told.
    pub(super) fn relay_lost_all(&mut self) {
        let news = self.kept.relay_lost_all();
        self.take_news(news);
        // With the next that leaves: nobody is to learn from it who the contacts are.
        let contacts = self.shared.contacts().identities();
        for (_, with) in contacts {
            self.seals.tell_anew(&with);
        }
    }

    /// An envelope of a contact has come again: there may be no receipt for what is in it. A relay can play envelopes again as it
    /// likes, so each answer makes the next one rarer.
    pub(super) fn confirm_anew(&mut self, to: &Identity) {
        if self.shared.contacts().account_of(to).is_some()
            && self.confirmed_anew.entry(*to).or_default().is_due(Instant::now())
        {
            self.seals.confirm_anew(to);
            self.schedule_notes(to);
        }
    }

    /// A newer self of this home has received more than this one has: this is an old copy, and contacts may
    /// have sealed for sessions that it does not have.
    pub(super) fn notice_copy(&mut self) {
        tracing::warn!("this home was restored from an old copy");
        self.changes.notices.push(Matter::Restored);
        // Also those with whom nothing is shared here: the newer self may have written to them.
        let contacts = self.shared.contacts().identities();
        for (_, with) in contacts {
            self.ask_again(&with);
        }
    }

    /// Asks a contact for all that it has sent and we have not confirmed; nobody again too soon, as it may be a
    /// stranger who pretends to be them.
    pub(super) fn ask_again(&mut self, with: &Identity) {
        let now = Instant::now();
        let is_too_soon = self.asked_again.get(with).is_some_and(|asked| now < *asked + ASK_INTERVAL);
        if self.shared.contacts().account_of(with).is_some() && !is_too_soon {
            self.asked_again.insert(*with, now);
            self.seals.ask_again(with);
            self.schedule_notes(with);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_often_envelopes_come_again_they_are_answered_ever_more_rarely() {
        let (mut answered, began) = (Answered::default(), Instant::now());
        let seconds = (0..6 * 3_600).filter(|&s| answered.is_due(began + Duration::from_secs(s)));
        let at: Vec<_> = seconds.collect();
        assert_eq!(at, [0, 30, 90, 210, 450, 930, 1_890, 3_810, 7_650, 11_490, 15_330, 19_170]);
    }
}
