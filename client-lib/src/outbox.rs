//! Decides what may go out next. It holds no messages, only what is known about them.
//!
//! Messages for one contact go out in the order of their ids. A temporary refusal holds that contact back
//! and nobody else: after the pause one message goes out alone, and the rest follow when the relay takes
//! it. A message *in doubt* was on a link that broke: the relay may have it, so it goes out again under
//! its old number, before everything else; unless one before it was refused, for then the relay has not.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use thinpost_wire::frame::Refusal;
use thinpost_wire::ids::{AccountKey, AppId};
use tokio::time::Instant;

use crate::kept::Name;
use crate::message::MessageId;
use crate::store::Queued;

/// The pause after a first refusal, and the longest one. The relay says when it is worth asking again, so
/// they matter only where it cannot know.
const PAUSE_MIN: Duration = Duration::from_secs(30);
const PAUSE_MAX: Duration = Duration::from_secs(3600);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// The relay does not have it.
    Waiting,
    /// The relay may have it, and is to be asked again.
    Doubt,
    /// On the present link.
    OnLink,
}

#[derive(Clone, Copy, Debug)]
struct Row {
    queued: Queued,
    place: Place,
    /// It was in doubt when it went out.
    is_repeat: bool,
    /// It waits, or went out, under a number that others may have left behind.
    is_put_back: bool,
}

/// Why and until when a contact waits.
#[derive(Clone, Copy, Debug)]
struct Hold {
    until: Instant,
    /// Whether the relay has named the pause: there is no use in asking before.
    named: bool,
    refusals: u32,
    /// The one message that is out to see whether the relay takes it.
    probe: Option<MessageId>,
}

/// What is known about the messages of the outbox.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    rows: BTreeMap<MessageId, Row>,
    /// What is sealed together with one of the rows, and shares its fate.
    riders: BTreeMap<MessageId, Vec<(MessageId, Queued)>>,
    waiting: BTreeSet<MessageId>,
    doubt: BTreeSet<MessageId>,
    on_link: usize,
    holds: BTreeMap<AccountKey, Hold>,
}

impl Outbox {
    /// Takes in a message: one with a number may have left before.
    pub(crate) fn insert(&mut self, id: MessageId, queued: &Queued) {
        if let Some(carrier) = queued.rides_with {
            self.riders.entry(carrier).or_default().push((id, *queued));
            return;
        }
        let place = if queued.number.is_some() { Place::Doubt } else { Place::Waiting };
        self.rows.insert(id, Row { queued: *queued, place, is_repeat: false, is_put_back: false });
        self.set_of(place).map(|set| set.insert(id));
    }

    /// Those of them that are to lose their numbers as they wait: a relay can tell only so many of the last numbers from those
    /// it has settled, and others will have moved on when these go out. What is not sealed keeps its own, as nothing else tells it from
    /// a repeat; if others have moved on the relay says so.
    fn to_unnumber(&self, ids: &[MessageId]) -> Vec<MessageId> {
        ids.iter().copied().filter(|id| self.rows[id].queued.name.is_some()).collect()
    }

    fn set_of(&mut self, place: Place) -> Option<&mut BTreeSet<MessageId>> {
        match place {
            Place::Waiting => Some(&mut self.waiting),
            Place::Doubt => Some(&mut self.doubt),
            Place::OnLink => None,
        }
    }

    fn put(&mut self, id: MessageId, place: Place) {
        let Some(row) = self.rows.get_mut(&id) else { return };
        let before = std::mem::replace(&mut row.place, place);
        self.set_of(before).map(|set| set.remove(&id));
        self.set_of(place).map(|set| set.insert(id));
        self.on_link -= usize::from(before == Place::OnLink);
        self.on_link += usize::from(place == Place::OnLink);
    }

    /// Takes messages that are to go out now, in order: at most `max`, and no more once they have
    /// `bytes_max` bytes. They count as on the link from here on.
    pub(crate) fn take_next(&mut self, now: Instant, max: usize, bytes_max: usize) -> Vec<MessageId> {
        let (mut taken, mut bytes) = (Vec::new(), 0);
        let on_link: BTreeSet<_> = self
            .rows
            .values()
            .filter(|row| {
                let is_on_link = row.place == Place::OnLink;
                !self.holds.is_empty() && is_on_link && self.holds.contains_key(&row.queued.mailbox)
            })
            .map(|row| row.queued.mailbox)
            .collect();
        for &id in self.doubt.iter().chain(&self.waiting) {
            if taken.len() >= max || bytes >= bytes_max {
                break;
            }
            let row = self.rows[&id];
            match self.holds.get_mut(&row.queued.mailbox) {
                Some(hold) if row.place == Place::Waiting => {
                    // What was on the link with the refused one is to be refused first: nothing overtakes.
                    if hold.probe.is_some() || hold.until > now || on_link.contains(&row.queued.mailbox) {
                        continue;
                    }
                    hold.probe = Some(id);
                }
                _ => {}
            }
            bytes += row.queued.bytes;
            taken.push(id);
        }
        for &id in &taken {
            let is_repeat = self.doubt.contains(&id) && !self.rows[&id].is_put_back;
            self.put(id, Place::OnLink);
            self.rows.entry(id).and_modify(|row| row.is_repeat = is_repeat);
        }
        taken
    }

    /// Whether the relay may have been given it before the present link, under a number that nothing has overtaken: if the relay then takes
    /// the number for settled, it has it.
    pub(crate) fn is_repeat(&self, id: MessageId) -> bool {
        self.rows.get(&id).is_some_and(|row| row.is_repeat)
    }

    /// Whether it goes out to see whether the relay takes what it refused before.
    pub(crate) fn is_probe(&self, id: MessageId) -> bool {
        self.rows
            .get(&id)
            .and_then(|row| self.holds.get(&row.queued.mailbox))
            .is_some_and(|hold| hold.probe == Some(id))
    }

    /// The relay says that this contact is worth asking for again. A pause that grew starts anew.
    pub(crate) fn end_pause(&mut self, mailbox: &AccountKey, now: Instant) {
        if let Some(hold) = self.holds.get_mut(mailbox).filter(|hold| !hold.named) {
            hold.until = hold.until.min(now);
            hold.refusals = 0;
        }
    }

    /// A new link begins: what the relay does not know any more to hold back is worth asking for.
    pub(crate) fn end_pauses(&mut self, now: Instant) {
        for hold in self.holds.values_mut().filter(|hold| !hold.named) {
            hold.until = hold.until.min(now);
        }
    }

    /// The link is gone: what was on it is in doubt.
    pub(crate) fn link_lost(&mut self) {
        let lost: Vec<_> =
            self.rows.iter().filter(|(_, row)| row.place == Place::OnLink).map(|(id, _)| *id).collect();
        for id in lost {
            self.put(id, Place::Doubt);
        }
    }

    /// What is in doubt behind a message of the same contact that was refused: the relay took none of it,
    /// since it holds a mailbox shut from a refusal on. It waits again, and is to lose its numbers.
    pub(crate) fn settle_doubts(&mut self) -> Vec<MessageId> {
        let mut refused = BTreeSet::new();
        let mut behind = Vec::new();
        for (id, row) in &self.rows {
            let mailbox = &row.queued.mailbox;
            match row.place {
                // What is sent again has a low id and may never have been refused.
                Place::Waiting if row.queued.again == 0 => {
                    refused.insert(*mailbox);
                }
                Place::Doubt if refused.contains(mailbox) => behind.push(*id),
                Place::Waiting | Place::Doubt | Place::OnLink => {}
            }
        }
        behind.iter().for_each(|id| self.wait_anew(*id));
        self.to_unnumber(&behind)
    }

    /// Puts back what was in doubt.
    fn wait_anew(&mut self, id: MessageId) {
        self.put(id, Place::Waiting);
        // What is sealed gets another number.
        self.rows.entry(id).and_modify(|row| row.is_put_back = row.queued.name.is_none());
        let mailbox = self.rows[&id].queued.mailbox;
        if let Some(hold) = self.holds.get_mut(&mailbox).filter(|hold| hold.probe == Some(id)) {
            // The first that waits goes out instead.
            hold.probe = None;
        }
    }

    /// The relay does not know this device: it has taken nothing on that link, and what it took before is lost with its store, unless that
    /// comes back. All that was in doubt waits again, in its place: if some of it went before what waits, what is refused then would
    /// say nothing of what is behind it. Returns what is to lose its numbers.
    pub(crate) fn waive_doubts(&mut self) -> Vec<MessageId> {
        let waived: Vec<_> = self.doubt.iter().copied().collect();
        waived.iter().for_each(|id| self.wait_anew(*id));
        self.to_unnumber(&waived)
    }

    fn take_out(&mut self, id: MessageId) -> Option<Row> {
        let row = self.rows.remove(&id)?;
        self.set_of(row.place).map(|set| set.remove(&id));
        self.on_link -= usize::from(row.place == Place::OnLink);
        Some(row)
    }

    /// A message is to be sealed for other keys, whose owner knows it by another name.
    pub(crate) fn readdress(&mut self, id: MessageId, name: Option<Name>) {
        if let Some(row) = self.rows.get_mut(&id) {
            row.queued.name = name;
        }
    }

    /// A message was sealed together with an earlier one for the same contact.
    pub(crate) fn ride(&mut self, rider: MessageId, carrier: MessageId) {
        let Some(row) = self.take_out(rider) else { return };
        self.riders.entry(carrier).or_default().push((rider, row.queued));
    }

    /// The relay has it, or it failed for good: it and its riders.
    pub(crate) fn remove(&mut self, id: MessageId) -> Vec<(MessageId, Queued)> {
        let Some(row) = self.take_out(id) else { return Vec::new() };
        if self.holds.get(&row.queued.mailbox).is_some_and(|hold| hold.probe == Some(id)) {
            self.holds.remove(&row.queued.mailbox);
        }
        let mut all = vec![(id, row.queued)];
        all.extend(self.riders.remove(&id).into_iter().flatten());
        all
    }

    /// The relay refused it for now, which it does after it has looked for the number, unless it does not know where to. Returns the
    /// messages that must lose their numbers: this one, and those that now wait behind it.
    pub(crate) fn refused(&mut self, id: MessageId, reason: Refusal, now: Instant) -> Vec<MessageId> {
        let Some(Queued { mailbox, .. }) = self.rows.get(&id).map(|row| row.queued) else {
            return Vec::new();
        };
        self.put(id, Place::Waiting);
        let is_first = !self.holds.contains_key(&mailbox);
        self.hold(id, mailbox, reason, now);
        let is_behind =
            |other: &MessageId| *other != id && is_first && self.rows[other].queued.mailbox == mailbox;
        let behind: Vec<_> = self.waiting.iter().copied().filter(is_behind).collect();
        let named = (reason != Refusal::UnknownHandle).then_some(id);
        if named.is_some() {
            self.rows.entry(id).and_modify(|row| row.is_put_back = false);
        }
        named.into_iter().chain(self.to_unnumber(&behind)).collect()
    }

    fn hold(&mut self, id: MessageId, mailbox: AccountKey, reason: Refusal, now: Instant) {
        let refusals = match self.holds.get(&mailbox) {
            // Others that were on the link with the first one say nothing new.
            Some(hold) if hold.probe != Some(id) => return,
            Some(hold) => hold.refusals + 1,
            None => 1,
        };
        let pause = match reason {
            Refusal::TooFast { retry_after_s } => {
                Duration::from_secs(retry_after_s.into()).clamp(Duration::from_secs(1), PAUSE_MAX)
            }
            // It is bound again before it goes out.
            Refusal::UnknownHandle if refusals == 1 => Duration::ZERO,
            _ => (PAUSE_MIN * 2u32.pow((refusals - 1).min(7))).min(PAUSE_MAX),
        };
        let named = matches!(reason, Refusal::TooFast { .. });
        self.holds.insert(mailbox, Hold { until: now + pause, named, refusals, probe: None });
    }

    /// The messages that were enqueued before this, with all that is sealed together with them, and are not on the link.
    pub(crate) fn expired(&mut self, enqueued_before_ms: u64) -> Vec<MessageId> {
        // Wall clocks jump, so later ids may have been enqueued "earlier": look at all.
        let of_row = |(id, row): (&MessageId, &Row)| {
            let riders = self.riders.get(id).into_iter().flatten().map(|(_, rider)| rider);
            let mut sealed = riders.chain([&row.queued]);
            let is_old = sealed.all(|queued| queued.enqueued_ms < enqueued_before_ms);
            (is_old && row.place != Place::OnLink).then_some(*id)
        };
        self.rows.iter().filter_map(of_row).collect()
    }

    /// Whose a message is to be, and what the application calls it.
    pub(crate) fn addressee(&self, id: MessageId) -> Option<(AccountKey, Option<AppId>)> {
        self.rows.get(&id).map(|row| (row.queued.mailbox, row.queued.app_id))
    }

    /// What the relay has, or may have, of the messages for a contact and has not taken custody of.
    pub(crate) fn on_their_way(&self, mailbox: &AccountKey) -> Vec<MessageId> {
        let to_them = |row: &Row| row.queued.mailbox == *mailbox && row.place != Place::Waiting;
        let carriers = self.rows.iter().filter(|(_, row)| to_them(row)).map(|(id, _)| *id);
        let with_riders = |id: MessageId| {
            let riders = self.riders.get(&id).into_iter().flatten().map(|(rider, _)| *rider);
            riders.chain([id]).collect::<Vec<_>>()
        };
        carriers.flat_map(with_riders).collect()
    }

    /// What the relay has not taken custody of, and has arrived all the same: carriers, each with all that is sealed in it. All of
    /// that must have: a message that is sent again may have arrived in an earlier parcel, without those that it travels with now.
    pub(crate) fn arrived(
        &self,
        has_arrived: impl Fn(&Name) -> bool,
    ) -> Vec<(MessageId, Vec<(MessageId, Queued)>)> {
        let on_their_way = self.rows.iter().filter(|(_, row)| row.place != Place::Waiting);
        let with_riders = on_their_way.map(|(id, row)| {
            let riders = self.riders.get(id).into_iter().flatten().copied();
            (*id, [(*id, row.queued)].into_iter().chain(riders).collect::<Vec<_>>())
        });
        let is_there = |(_, queued): &(MessageId, Queued)| queued.name.as_ref().is_some_and(&has_arrived);
        with_riders.filter(|(_, sealed)| sealed.iter().all(is_there)).collect()
    }

    /// Whether notes for this contact are on their way.
    pub(crate) fn has_notes(&self, mailbox: &AccountKey) -> bool {
        self.rows.range(MessageId::FIRST_NOTES..).any(|(_, row)| row.queued.mailbox == *mailbox)
    }

    /// When the next contact's pause ends, if a message waits for that.
    pub(crate) fn next_retry(&self) -> Option<Instant> {
        self.holds.values().filter(|hold| hold.probe.is_none()).map(|hold| hold.until).min()
    }

    /// How many messages are on the link or could go there now.
    pub(crate) fn pending(&self) -> usize {
        let free =
            self.waiting.iter().filter(|id| !self.holds.contains_key(&self.rows[*id].queued.mailbox)).count();
        free + self.doubt.len() + self.on_link
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.rows.len()
    }
}

#[cfg(test)]
mod tests;
