//! Decides what is sent again although the relay has taken it: what its recipient has not confirmed. It holds
//! no messages, only what is known about them.
//!
//! `docs/decisions/0008-receipts.md` says when and why.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thinpost_wire::ids::{AccountKey, AppId};
use thinpost_wire::notes::{Notes, SEEN_MAX, Seen};
use thinpost_wire::parcel::ShortIncarnation;

use crate::message::{Abandonment, MessageId};
use crate::seal::Identity;
use crate::store::Queued;

/// How often a message is sent again at most: a contact who lies gains little.
const AGAIN_MAX: u8 = 5;

/// When nothing has left for a contact for so long and a receipt is missing, a message is sent again; next time after
/// twice as long. Its receipt says what has become of the others.
const OVERDUE_MS: u64 = Duration::from_hours(6).as_millis() as u64;

/// Messages kept at most. Older ones are given up.
const KEPT_MAX: usize = 10_000;

/// Messages remembered that have arrived and not been read, and as many that were given up.
const UNREAD_MAX: usize = 1_000;

/// Receipts remembered of each contact, for messages that arrived before their custody was known.
const RECEIPTS_MAX: usize = 32;

/// What a recipient knows a message by, and its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Name {
    /// The other device.
    pub(crate) with: Identity,
    incarnation: [u8; 4],
    pub(crate) number: u64,
}

impl Name {
    pub(crate) fn incarnation(&self) -> ShortIncarnation {
        ShortIncarnation(self.incarnation)
    }

    pub(crate) fn new(with: Identity, incarnation: ShortIncarnation, number: u64) -> Self {
        Self { with, incarnation: incarnation.0, number }
    }

    fn is_of(&self, seen: &Seen) -> bool {
        self.incarnation == seen.incarnation.0
    }

    pub(crate) fn has_arrived(&self, seen: &Seen) -> bool {
        self.is_of(seen) && seen.has_arrived(self.number)
    }

    pub(crate) fn is_read(&self, seen: &Seen) -> bool {
        self.is_of(seen) && self.number <= seen.read
    }
}

/// A message in custody without a receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Copy {
    name: Name,
    queued: Queued,
    /// See [`Kept::leave`].
    left: u64,
}

/// A message that is not kept any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Gone {
    name: Name,
    app_id: Option<AppId>,
    /// See [`Kept::leave`]; 0 if that is of no interest any more.
    left: u64,
}

/// What is known about messages whose recipient has not confirmed them, or not read.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    copies: BTreeMap<MessageId, Copy>,
    /// What has arrived.
    unread: BTreeMap<MessageId, Gone>,
    /// What is sent no more. It may have arrived all the same, and be confirmed late.
    abandoned: BTreeMap<MessageId, Gone>,
    contacts: BTreeMap<Identity, Contact>,
    /// What was on its way when its recipient asked for all again: they may not be able to open it.
    suspects: BTreeSet<MessageId>,
    /// When the last one left; see [`Kept::leave`].
    left: u64,
}

#[derive(Debug, Default)]
struct Contact {
    /// The last of the messages that have a receipt to leave.
    latest: u64,
    receipts: Vec<Seen>,
}

/// What is missing from one contact.
#[derive(Clone, Copy, Debug, Default)]
struct Overdue {
    /// When something left for them last.
    last_left: u64,
    /// What is to be sent again, how often it was, and when it left.
    probe: Option<(MessageId, u8, u64)>,
}

/// What a receipt has brought to light.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct News {
    /// Messages that have arrived, with what the application calls them.
    pub(crate) delivered: Vec<(MessageId, Option<AppId>)>,
    /// Messages that have been read.
    pub(crate) read: Vec<(MessageId, Option<AppId>)>,
    /// Messages to be sent again.
    pub(crate) again: Vec<(MessageId, Queued)>,
    /// Messages that would be sent again and have been too often.
    pub(crate) abandoned: Vec<(MessageId, Queued, Abandonment)>,
}

impl Kept {
    /// Takes in, at the start, a message that is kept.
    pub(crate) fn load(&mut self, id: MessageId, queued: Queued, left: u64) {
        let Some(name) = queued.name else { return };
        self.copies.insert(id, Copy { name, queued, left });
        self.left = self.left.max(left);
    }

    /// Takes in, at the start, a message that has arrived.
    pub(crate) fn load_arrived(
        &mut self,
        id: MessageId,
        name: Name,
        app_id: Option<AppId>,
        left: u64,
        read: bool,
    ) {
        self.arrived(name.with, left);
        if !read {
            self.unread.insert(id, Gone { name, app_id, left });
        }
    }

    /// Takes in, at the start, a message that was given up.
    pub(crate) fn load_abandoned(&mut self, id: MessageId, name: Name, app_id: Option<AppId>, left: u64) {
        self.left = self.left.max(left);
        self.abandoned.insert(id, Gone { name, app_id, left });
    }

    /// A message that was to be sent again never will be.
    pub(crate) fn abandon(&mut self, id: MessageId, queued: &Queued) {
        self.give_up(id, queued, 0);
    }

    fn give_up(&mut self, id: MessageId, queued: &Queued, left: u64) {
        self.suspects.remove(&id);
        let Some(name) = queued.name else { return };
        self.abandoned.insert(id, Gone { name, app_id: queued.app_id, left });
        while self.abandoned.len() > UNREAD_MAX {
            self.abandoned.pop_first();
        }
    }

    fn arrived(&mut self, recipient: Identity, left: u64) {
        self.left = self.left.max(left);
        let contact = self.contacts.entry(recipient).or_default();
        contact.latest = contact.latest.max(left);
    }

    /// When an envelope left that the relay has just taken: milliseconds since 1970, and later than any that left
    /// before, whatever the clock says.
    pub(crate) fn leave(&mut self, now_ms: u64) -> u64 {
        self.left = now_ms.max(self.left + 1);
        self.left
    }

    /// The relay has taken custody. Returns what is known of it already.
    pub(crate) fn keep(&mut self, id: MessageId, queued: Queued, left: u64) -> News {
        let mut news = News::default();
        let Some(name) = queued.name else { return news };
        let queued = Queued { number: None, rides_with: None, ..queued };
        self.copies.insert(id, Copy { name, queued, left });
        let receipts = self.contacts.get(&name.with).map(|contact| contact.receipts.clone());
        for seen in receipts.iter().flatten().filter(|seen| name.has_arrived(seen)) {
            self.confirm(&name.with, seen, &mut news);
        }
        if self.suspects.remove(&id) {
            self.send_again(|other, _| other == id, &mut news);
        }
        news
    }

    /// The relay has taken custody of what its recipient has confirmed already.
    pub(crate) fn keep_arrived(&mut self, id: MessageId, queued: &Queued, left: u64, read: bool) {
        self.suspects.remove(&id);
        if let Some(name) = queued.name {
            self.load_arrived(id, name, queued.app_id, left, read);
        }
    }

    /// Acts on what a device says; `account` is the contact whose keys these are, if it is one's. What was sealed for
    /// the keys that the contact had before is theirs, too, and cannot be opened by these.
    pub(crate) fn heed(&mut self, from: &Identity, account: Option<AccountKey>, notes: &Notes) -> News {
        let mut news = News::default();
        // A receipt may overtake the custody of what it states. Who was never written to has nothing to confirm.
        let may_be_early = account.is_some() || self.copies.values().any(|copy| copy.name.with == *from);
        for seen in &notes.seen {
            self.confirm(from, seen, &mut news);
        }
        if may_be_early && !notes.seen.is_empty() {
            let receipts = &mut self.contacts.entry(*from).or_default().receipts;
            receipts.retain(|other| notes.seen.iter().all(|seen| seen.incarnation != other.incarnation));
            let mut stated = notes.seen.clone();
            stated.dedup();
            receipts.extend(stated);
            receipts.drain(..receipts.len().saturating_sub(RECEIPTS_MAX));
        }
        let latest = self.contacts.get(from).map_or(0, |contact| contact.latest);
        let upto = match notes {
            Notes { again: true, .. } => u64::MAX,
            // The rest follows, perhaps.
            Notes { seen, .. } if seen.len() == SEEN_MAX => 0,
            _ => latest,
        };
        let is_theirs = |copy: &Copy| copy.name.with == *from || Some(copy.queued.mailbox) == account;
        let is_lost = |_, copy: &Copy| is_theirs(copy) && copy.left < upto;
        self.send_again(is_lost, &mut news);
        news
    }

    /// These were on their way when their recipient asked for all again: they are sent again once they are in
    /// custody.
    pub(crate) fn suspect(&mut self, ids: Vec<MessageId>) {
        self.suspects.extend(ids);
    }

    /// The relay has lost what it had: all that is kept is to be sent again.
    pub(crate) fn relay_lost_all(&mut self) -> News {
        let mut news = News::default();
        self.send_again(|_, _| true, &mut news);
        news
    }

    /// Where nothing has left for a contact for long and a receipt is missing, one message to be sent again: the
    /// oldest, and each time the same. One that was sent too often stays kept: that nobody answers is no news of it.
    pub(crate) fn overdue(&mut self, now_ms: u64) -> News {
        let mut contacts = BTreeMap::<Identity, Overdue>::new();
        for (id, copy) in &self.copies {
            let (again, left) = (copy.queued.again, copy.left);
            let overdue = contacts.entry(copy.name.with).or_default();
            overdue.last_left = overdue.last_left.max(left);
            if overdue.probe.is_none_or(|(_, tried, since)| (again, since) > (tried, left)) {
                overdue.probe = Some((*id, again, left));
            }
        }
        let is_due = |Overdue { last_left, probe }: Overdue| {
            let (id, again, _) = probe.filter(|(_, again, _)| *again < AGAIN_MAX)?;
            (now_ms.saturating_sub(last_left) >= OVERDUE_MS << again).then_some(id)
        };
        let due: BTreeSet<_> = contacts.into_values().filter_map(is_due).collect();
        let mut news = News::default();
        self.send_again(|id, _| due.contains(&id), &mut news);
        news
    }

    /// Gives up messages that were written before this, or are too many.
    pub(crate) fn let_go(&mut self, written_before_ms: u64) -> News {
        let is_old = |_: &MessageId, copy: &mut Copy| copy.queued.enqueued_ms < written_before_ms;
        let expired: Vec<_> = self.copies.extract_if(.., is_old).collect();
        let expired = expired.into_iter().map(|gone| (gone, Abandonment::Expired));
        let excess = self.copies.len().saturating_sub(KEPT_MAX);
        let too_many: Vec<_> = std::iter::from_fn(|| self.copies.pop_first()).take(excess).collect();
        let too_many = too_many.into_iter().map(|gone| (gone, Abandonment::TooMany));
        let mut news = News::default();
        for ((id, copy), reason) in expired.chain(too_many) {
            self.give_up(id, &copy.queued, copy.left);
            news.abandoned.push((id, copy.queued, reason));
        }
        news
    }

    fn confirm(&mut self, from: &Identity, seen: &Seen, news: &mut News) {
        let copies = self.copies.iter();
        let confirmed = copies.filter(|(_, copy)| copy.name.with == *from && copy.name.has_arrived(seen));
        for (id, copy) in confirmed.map(|(id, copy)| (*id, *copy)).collect::<Vec<_>>() {
            self.copies.remove(&id);
            self.arrived(*from, copy.left);
            let app_id = copy.queued.app_id;
            news.delivered.push((id, app_id));
            self.unread.insert(id, Gone { name: copy.name, app_id, left: copy.left });
        }
        let is_confirmed =
            |_: &MessageId, gone: &mut Gone| gone.name.with == *from && gone.name.has_arrived(seen);
        for (id, gone) in self.abandoned.extract_if(.., is_confirmed).collect::<Vec<_>>() {
            self.arrived(*from, gone.left);
            news.delivered.push((id, gone.app_id));
            self.unread.insert(id, gone);
        }
        let is_read = |known: &Gone| known.name.with == *from && known.name.is_read(seen);
        let read = self.unread.extract_if(.., |_, known| is_read(known));
        news.read.extend(read.map(|(id, known)| (id, known.app_id)));
        while self.unread.len() > UNREAD_MAX {
            self.unread.pop_first();
        }
    }

    fn send_again(&mut self, is_lost: impl Fn(MessageId, &Copy) -> bool, news: &mut News) {
        let lost: Vec<_> = self.copies.extract_if(.., |id, copy| is_lost(*id, copy)).collect();
        for (id, Copy { queued, left, .. }) in lost {
            if queued.again < AGAIN_MAX {
                news.again.push((id, Queued { again: queued.again + 1, ..queued }));
            } else {
                self.give_up(id, &queued, left);
                news.abandoned.push((id, queued, Abandonment::TooOften));
            }
        }
    }
}

#[cfg(test)]
mod tests;
