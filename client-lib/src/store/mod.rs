//! The one file that everything durable of a home lives in, and the small one with its key.
//!
//! A method that changes anything returns when the change is on disk, all of it or nothing of it: [`thinpost_disk`] says how.
//!
//! What is in the file is encrypted: `table` seals each row by `vault`, under the data key that `key` keeps.

#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod grants;
mod kept;
pub(crate) mod key;
mod notices;
mod objects;
mod opening;
mod outbox;
pub(crate) mod records;
pub(crate) mod storage;
mod table;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_at_rest;
#[cfg(test)]
mod tests_bit_rot;
#[cfg(test)]
mod tests_disk;
#[cfg(test)]
mod tests_outbox;
mod vault;

use std::sync::Arc;

use redb::{ReadTransaction, WriteTransaction};
use serde::Serialize;
use serde::de::DeserializeOwned;
use thinpost_disk::Database;
use thinpost_wire::ids::{AccountKey, AppId, StoreId};
use thinpost_wire::limits::HANDLES_MAX;
use thinpost_wire::ticket::ContactTicket;
use thinpost_wire::token::{MailboxAddress, Token, TokenId};

use crate::contacts::Contact;
use crate::error::StoreError;
use crate::grants::Grant;
use crate::home_clock::{ClockRecord, HomeClock};
use crate::kept::{Kept, Name};
use crate::message::{Abandonment, Failure, InboxNumber, MessageId};
use crate::notices::Matter;
use crate::objects::ObjectNumber;
use crate::points::Points;
use crate::seal::Identity;
pub(crate) use objects::{LoadedObject, ObjectChange};
pub(crate) use outbox::{Departure, Numbers, Queued};
use records::{
    AccessRow, CLOCK, CONTACTS, COUNTERS, ContactRow, Counters, HOME, HomeRecord, INBOX, InboxRow, KEPT,
    KEYRING, MAILBOXES, OUTBOX, OutboxRow, PAIRS, RELAY, RelayRecord, SENDERS,
};
use table::{Rows, Tables};
use vault::Vault;

/// A home's file, open.
#[derive(Debug)]
pub(crate) struct Store {
    db: Database,
    vault: Vault,
    pub(crate) points: Points,
    /// Is written down with what is changed.
    pub(crate) clock: Option<Arc<HomeClock>>,
}

/// What a client starts from.
pub(crate) struct Loaded {
    pub(crate) home: HomeRecord,
    pub(crate) keyring: Vec<u8>,
    pub(crate) pairs: Vec<PairRow>,
    pub(crate) relay: RelayRecord,
    pub(crate) counters: Counters,
    pub(crate) clock: Option<ClockRecord>,
    pub(crate) contacts: Vec<Contact>,
    pub(crate) access: Vec<(AccountKey, AccessRow)>,
    pub(crate) grants: Vec<(TokenId, Grant)>,
    pub(crate) requests: Vec<ContactTicket>,
    /// The outbox by id, without its bodies.
    pub(crate) outbox: Vec<(MessageId, Queued)>,
    pub(crate) kept: Kept,
    pub(crate) objects: Vec<LoadedObject>,
    pub(crate) mailboxes: Vec<MailboxAddress>,
    pub(crate) senders: Vec<AccountKey>,
}

/// How much there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) counters: Counters,
    /// Messages in the outbox.
    pub(crate) waiting: u64,
    /// Messages in custody whose recipient has not confirmed them.
    pub(crate) unconfirmed: u64,
}

/// What is shared with another device, as [`Seals`](crate::seal::Seals) writes it.
pub(crate) type PairRow = (Identity, Vec<u8>);

/// A change of a handle table: cut back to `keep`, then append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TableChange<E> {
    pub(crate) keep: u16,
    pub(crate) append: Vec<E>,
}

/// What one turn of the driver makes durable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    pub(crate) received: Vec<InboxRow>,
    /// With when each left; see [`Kept::leave`].
    pub(crate) custody: Vec<(MessageId, u64)>,
    pub(crate) failed: Vec<(MessageId, Failure)>,
    /// What recipients have confirmed, with what the application calls it.
    pub(crate) delivered: Vec<(MessageId, Option<AppId>)>,
    pub(crate) read: Vec<(MessageId, Option<AppId>)>,
    /// Kept messages that go back into the outbox.
    pub(crate) again: Vec<(MessageId, Queued)>,
    /// Kept messages that are kept no longer.
    pub(crate) abandoned: Vec<(MessageId, Queued, Abandonment)>,
    /// What a person should know of, besides.
    pub(crate) notices: Vec<Matter>,
    /// When all this came about: milliseconds since 1970.
    pub(crate) now_unix_ms: u64,
    /// Refused for now: the relay has not taken custody under their numbers.
    pub(crate) unnumbered: Vec<MessageId>,
    pub(crate) mailboxes: Option<TableChange<MailboxAddress>>,
    pub(crate) senders: Option<TableChange<AccountKey>>,
    /// Guests who have made themselves known.
    pub(crate) contacts: Vec<Contact>,
    /// Strangers who have.
    pub(crate) requests: Vec<ContactTicket>,
    /// Under which tokens of this home's they did.
    pub(crate) claims: Vec<(TokenId, AccountKey)>,
    /// What contacts have given this home to submit under.
    pub(crate) tokens: Vec<(AccountKey, Token)>,
    /// What the relay with this store now knows to be revoked.
    pub(crate) told: Vec<(TokenId, StoreId)>,
    /// What has become of objects, in order.
    pub(crate) objects: Vec<(ObjectNumber, ObjectChange)>,
    pub(crate) relay: Option<RelayRecord>,
    /// Goes with what was opened: neither may be written without the other.
    pub(crate) pairs: Vec<PairRow>,
    /// Goes with what was opened, too: a one-time key that was used is not in it.
    pub(crate) keyring: Option<Vec<u8>>,
    /// With whom nothing is shared any more.
    pub(crate) forgotten: Vec<Identity>,
}

impl Changes {
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Store {
    fn load(&self) -> Result<Loaded, StoreError> {
        self.read(load)
    }

    /// Makes one turn of the driver durable; returns the counters after it.
    pub(crate) fn apply(&self, changes: &Changes) -> Result<Counters, StoreError> {
        self.change("apply", |write| {
            let mut meta = write.meta()?;
            let mut counters = meta.get(COUNTERS)?;
            put_in_inbox(write, &changes.received, &mut counters)?;
            let mut matters = outbox::take_from_outbox(write, changes, &mut counters)?;
            matters.extend(kept::take_from_kept(write, changes, &mut counters)?);
            for matter in matters.into_iter().chain(changes.notices.iter().copied()) {
                notices::notice(write, matter, changes.now_unix_ms, &mut counters)?;
            }
            change_handles(write, MAILBOXES, changes.mailboxes.as_ref())?;
            change_handles(write, SENDERS, changes.senders.as_ref())?;
            grants::put_told(write, &changes.told)?;
            for contact in &changes.contacts {
                put_contact(write, contact)?;
            }
            grants::put_requests(write, &changes.requests)?;
            grants::put_claims(write, &changes.claims)?;
            for (account, token) in &changes.tokens {
                grants::change_access(write, account, |access| access.token = Some(*token))?;
            }
            objects::change(write, &changes.objects)?;
            put_pairs(write, &changes.pairs)?;
            if let Some(keyring) = &changes.keyring {
                meta.put(KEYRING, keyring)?;
            }
            for with in &changes.forgotten {
                write.table(PAIRS)?.remove_hidden(with)?;
            }
            if let Some(relay) = &changes.relay {
                meta.put(RELAY, relay)?;
            }
            meta.put(COUNTERS, &counters)?;
            Ok(counters)
        })
    }

    pub(crate) fn put_home(&self, home: &HomeRecord) -> Result<(), StoreError> {
        self.change("put_home", |write| write.meta()?.put(HOME, home))
    }

    /// Writes a contact, how to reach it beyond its ticket, and what a person should know of that, and when it was.
    pub(crate) fn put_contact(
        &self,
        contact: &Contact,
        access: &AccessRow,
        noticed: Option<(Matter, u64)>,
    ) -> Result<(), StoreError> {
        self.change("put_contact", |write| {
            put_contact(write, contact)?;
            grants::put_access(write, &contact.ticket.account, access)?;
            if let Some((matter, unix_ms)) = noticed {
                let mut meta = write.meta()?;
                let mut counters = meta.get(COUNTERS)?;
                notices::notice(write, matter, unix_ms, &mut counters)?;
                meta.put(COUNTERS, &counters)?;
            }
            Ok(())
        })
    }

    pub(crate) fn remove_contact(&self, contact: &Contact) -> Result<(), StoreError> {
        self.change("remove_contact", |write| {
            write.table(CONTACTS)?.remove_hidden(contact.name.as_bytes())?;
            grants::put_access(write, &contact.ticket.account, &AccessRow::default())?;
            notices::forget(write, &contact.ticket.account)?;
            Ok(())
        })
    }

    /// The first messages after a place in the inbox, at most so many.
    pub(crate) fn inbox(
        &self,
        after: InboxNumber,
        max: usize,
    ) -> Result<Vec<(InboxNumber, InboxRow)>, StoreError> {
        self.read(|read| {
            let inbox = read.table(INBOX)?;
            let rows = inbox.range(after.0.saturating_add(1)..)?.take(max);
            rows.map(|row| row.map(|(number, row)| (InboxNumber(number), row))).collect()
        })
    }

    /// Forgets the messages up to this place; later ones keep their numbers.
    pub(crate) fn release_inbox(&self, upto: InboxNumber) -> Result<(), StoreError> {
        self.change("release_inbox", |write| write.table(INBOX)?.drop_range(..=upto.0))
    }

    /// The last message of each of a sender's incarnations, among the sender's last `max` up to this place.
    pub(crate) fn last_names(
        &self,
        from: &AccountKey,
        upto: InboxNumber,
        max: usize,
    ) -> Result<Vec<Name>, StoreError> {
        self.read(|read| {
            let inbox = read.table(INBOX)?;
            let mut names: Vec<Name> = Vec::new();
            let mut found = 0;
            for row in inbox.range(..=upto.0)?.rev() {
                let (_, row) = row?;
                let Some(name) = row.name.filter(|_| row.from == Some(*from)) else { continue };
                match names.iter_mut().find(|other| other.incarnation() == name.incarnation()) {
                    Some(other) => other.number = other.number.max(name.number),
                    None => names.push(name),
                }
                found += 1;
                if found == max {
                    break;
                }
            }
            Ok(names)
        })
    }

    /// How much there is, ever and now.
    pub(crate) fn counts(&self) -> Result<Counts, StoreError> {
        self.read(|read| {
            let outbox = read.table(OUTBOX)?;
            let notes = outbox.range(MessageId::FIRST_NOTES.0..)?.count() as u64;
            Ok(Counts {
                counters: read.meta()?.get(COUNTERS)?,
                waiting: outbox.len()? - notes,
                unconfirmed: read.table(KEPT)?.len()?,
            })
        })
    }

    /// Reads in one transaction.
    fn read<T>(
        &self,
        look: impl FnOnce(&Tables<'_, ReadTransaction>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.intact(|| look(&Tables::read(&self.db, &self.vault)?))
    }

    /// Changes something in one transaction, which is on disk when this returns. Nothing is changed if the change
    /// fails.
    fn change<T>(
        &self,
        what: &'static str,
        change: impl FnOnce(&Tables<'_, WriteTransaction>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let (changed, write) = self.intact(|| {
            let write = Tables::write(&self.db, &self.vault)?;
            let changed = change(&write)?;
            if let Some(clock) = self.clock.as_ref().and_then(|clock| clock.unsaved()) {
                write.meta()?.put(CLOCK, &clock)?;
            }
            Ok((changed, write))
        })?;
        self.points.pass(what);
        self.intact(|| write.commit())?;
        self.points.pass(what);
        Ok(changed)
    }

    /// Works on the file, and no more once it is damaged.
    fn intact<T>(&self, work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.db.intact(work).inspect_err(|error| {
            if matches!(error, StoreError::Damaged(_)) {
                self.db.give_up();
            }
        })
    }
}

fn load(read: &Tables<'_, ReadTransaction>) -> Result<Loaded, StoreError> {
    let meta = read.meta()?;
    let contact = |row: Result<ContactRow, StoreError>| {
        let ContactRow { name, ticket } = row?;
        let ticket =
            ticket.parse().map_err(|error| StoreError::Damaged(format!("contact {name:?}: {error}")))?;
        Ok(Contact { name, ticket })
    };
    let queued = |row: Result<(u64, OutboxRow), StoreError>| {
        let (id, row) = row?;
        Ok((MessageId(id), Queued::from(&row)))
    };
    Ok(Loaded {
        home: meta.get(HOME)?,
        keyring: meta.get(KEYRING)?,
        pairs: read.table(PAIRS)?.records()?.collect::<Result<_, _>>()?,
        relay: meta.get(RELAY)?,
        counters: meta.get(COUNTERS)?,
        clock: meta.find(CLOCK)?,
        contacts: read.table(CONTACTS)?.records()?.map(contact).collect::<Result<_, StoreError>>()?,
        outbox: read.table(OUTBOX)?.range(..)?.map(queued).collect::<Result<_, StoreError>>()?,
        kept: kept::load(read)?,
        objects: objects::load(read)?,
        access: grants::load_access(read)?,
        grants: grants::load_grants(read)?,
        requests: grants::load_requests(read)?,
        mailboxes: load_handles(read, MAILBOXES)?,
        senders: load_handles(read, SENDERS)?,
    })
}

fn put_in_inbox(
    write: &Tables<'_, WriteTransaction>,
    rows: &[InboxRow],
    counters: &mut Counters,
) -> Result<(), StoreError> {
    let mut inbox = write.table(INBOX)?;
    for row in rows {
        counters.received += 1;
        inbox.insert(counters.received, row)?;
    }
    Ok(())
}

fn put_contact(write: &Tables<'_, WriteTransaction>, contact: &Contact) -> Result<(), StoreError> {
    let row = ContactRow { name: contact.name.clone(), ticket: contact.ticket.to_string() };
    write.table(CONTACTS)?.insert_hidden(row.name.as_bytes(), &row)
}

fn load_handles<E: DeserializeOwned>(
    read: &Tables<'_, ReadTransaction>,
    rows: Rows<u16, E>,
) -> Result<Vec<E>, StoreError> {
    read.table(rows)?.range(1..=HANDLES_MAX)?.map(|row| Ok(row?.1)).collect()
}

fn change_handles<E: Serialize + DeserializeOwned>(
    write: &Tables<'_, WriteTransaction>,
    rows: Rows<u16, E>,
    change: Option<&TableChange<E>>,
) -> Result<(), StoreError> {
    let Some(change) = change else { return Ok(()) };
    let mut table = write.table(rows)?;
    table.drop_range(change.keep.saturating_add(1)..)?;
    for (handle, entry) in (change.keep + 1..).zip(&change.append) {
        table.insert(handle, entry)?;
    }
    Ok(())
}

fn put_pairs(write: &Tables<'_, WriteTransaction>, pairs: &[PairRow]) -> Result<(), StoreError> {
    let mut table = write.table(PAIRS)?;
    for pair in pairs {
        table.insert_hidden(&pair.0, pair)?;
    }
    Ok(())
}
