//! The one file that everything durable of a home lives in.
//!
//! A method that changes anything returns when the change is on disk, all of it or nothing of it. A
//! transaction commits in two phases, as its bytes come from strangers and redb's checksums are not
//! cryptographic, and saves the allocator's state, so that reopening after a kill is quick.

pub(crate) mod records;
pub(crate) mod storage;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use redb::backends::FileBackend;
use redb::{Builder, Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, WriteTransaction};
use serde::Serialize;
use serde::de::DeserializeOwned;
use thinpost_wire::ids::{AccountKey, AppId, Incarnation, Origin};
use thinpost_wire::limits::HANDLES_MAX;

use crate::contacts::Contact;
use crate::error::{CreateError, OpenError, StoreError};
use crate::kept::{Kept, Name};
use crate::message::{Failure, InboxNumber, MessageId, MessageState};
use crate::points::Points;
use crate::seal::Identity;
use records::{
    CONTACTS, Counters, DONE, DONE_KEPT, DoneRow, FORMAT, HomeRecord, INBOX, InboxRow, KEPT, KeptRow,
    MAILBOXES, META, META_COUNTERS, META_FORMAT, META_HOME, META_KEYRING, META_RELAY, OUTBOX, OutboxRow,
    PAIRS, RelayRecord, SEALED, SENDERS, SealedRow,
};
use storage::Storage;

/// Memory for pages, bytes: a phone's share.
const CACHE_BYTES: usize = 2 << 20;

/// A home's file, open.
#[derive(Debug)]
pub(crate) struct Store {
    db: Database,
    pub(crate) points: Points,
}

/// What a client starts from.
pub(crate) struct Loaded {
    pub(crate) home: HomeRecord,
    pub(crate) keyring: Vec<u8>,
    pub(crate) pairs: Vec<PairRow>,
    pub(crate) relay: RelayRecord,
    pub(crate) counters: Counters,
    pub(crate) contacts: Vec<Contact>,
    /// The outbox by id, without its bodies.
    pub(crate) outbox: Vec<(MessageId, Queued)>,
    pub(crate) kept: Kept,
    pub(crate) mailboxes: Vec<AccountKey>,
    pub(crate) senders: Vec<AccountKey>,
}

/// The numbers of one opening of the home. What a recipient knows a message by is drawn when it is written,
/// in a row for each recipient, so that a home restored from a copy sends what waited then under the same
/// names as its newer self did. What the relay knows an envelope by is drawn when it first leaves.
#[derive(Debug)]
pub(crate) struct Numbers {
    incarnation: Incarnation,
    written: Mutex<BTreeMap<Identity, u64>>,
    left: AtomicU64,
}

impl Numbers {
    pub(crate) fn new(incarnation: Incarnation) -> Self {
        Self { incarnation, written: Mutex::default(), left: AtomicU64::new(1) }
    }

    pub(crate) fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// Called, like the next, within write transactions only, which keeps numbers in the order of ids.
    fn write(&self, recipient: Identity) -> Origin {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let last = written.entry(recipient).or_default();
        *last += 1;
        Origin { incarnation: self.incarnation, sequence: *last }
    }

    fn leave(&self) -> Origin {
        Origin { incarnation: self.incarnation, sequence: self.left.fetch_add(1, Ordering::Relaxed) }
    }
}

/// What deciding about a row takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Queued {
    pub(crate) mailbox: AccountKey,
    pub(crate) enqueued_unix_ms: u64,
    pub(crate) app_id: Option<AppId>,
    /// Of its body.
    pub(crate) bytes: usize,
    pub(crate) number: Option<Origin>,
    pub(crate) rides_with: Option<MessageId>,
    pub(crate) name: Option<Name>,
    pub(crate) again: u8,
}

impl Queued {
    /// A message of 10 bytes that was written at 1 s and has never left.
    #[cfg(test)]
    pub(crate) fn for_test(mailbox: AccountKey, name: Option<Name>) -> Self {
        Self {
            mailbox,
            enqueued_unix_ms: 1_000,
            app_id: None,
            bytes: 10,
            number: None,
            rides_with: None,
            name,
            again: 0,
        }
    }

    /// Whether it is a message that was never in custody: whose fate the application has not been told.
    pub(crate) fn is_first_time(&self, id: MessageId) -> bool {
        self.again == 0 && !id.is_notes()
    }
}

impl From<&OutboxRow> for Queued {
    fn from(row: &OutboxRow) -> Self {
        Self {
            mailbox: row.mailbox,
            enqueued_unix_ms: row.enqueued_unix_ms,
            app_id: row.app_id,
            bytes: row.letter.len(),
            number: row.number,
            rides_with: row.rides_with,
            name: row.name(),
            again: row.again,
        }
    }
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

/// A message that is to go out: its row, and what it was sealed into, if it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Departure {
    pub(crate) id: MessageId,
    pub(crate) row: OutboxRow,
    pub(crate) sealed: Option<SealedRow>,
}

/// A change of a handle table: cut back to `keep`, then append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TableChange {
    pub(crate) keep: u16,
    pub(crate) append: Vec<AccountKey>,
}

/// What one turn of the driver makes durable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    pub(crate) received: Vec<InboxRow>,
    /// With the number of each among all that left; see [`KeptRow`].
    pub(crate) custody: Vec<(MessageId, u64)>,
    pub(crate) failed: Vec<(MessageId, Failure)>,
    /// What recipients have confirmed, with what the application calls it.
    pub(crate) delivered: Vec<(MessageId, Option<AppId>)>,
    pub(crate) read: Vec<(MessageId, Option<AppId>)>,
    /// Kept messages that go back into the outbox.
    pub(crate) again: Vec<(MessageId, Queued)>,
    /// Kept messages that are kept no longer.
    pub(crate) let_go: Vec<MessageId>,
    /// Refused for now: the relay has not taken custody under their numbers.
    pub(crate) unnumbered: Vec<MessageId>,
    pub(crate) mailboxes: Option<TableChange>,
    pub(crate) senders: Option<TableChange>,
    pub(crate) relay: Option<RelayRecord>,
    /// Goes with what was opened: neither may be written without the other.
    pub(crate) pairs: Vec<PairRow>,
}

impl Changes {
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Store {
    /// Makes the file of a new home. It appears under its name only when it is complete.
    pub(crate) fn create(storage: &Storage, home: &HomeRecord, keyring: &[u8]) -> Result<(), CreateError> {
        let folder = match storage {
            Storage::Memory(memory) if !memory.is_empty() => {
                return Err(CreateError::Exists("memory".into()));
            }
            Storage::Memory(memory) => {
                let db = Builder::new().create_with_backend(memory.clone()).map_err(OpenError::from);
                return Ok(initialise(&db.map_err(into_store_error)?, home, keyring)?);
            }
            Storage::Folder(folder) => folder,
        };
        let path = folder.join(storage::FILE);
        if path.exists() {
            return Err(CreateError::Exists(folder.clone()));
        }
        let make = || -> Result<(), StoreError> {
            storage::create_folder(folder)?;
            let unfinished = folder.join("client.redb.new");
            if unfinished.exists() {
                fs::remove_file(&unfinished)?;
            }
            let file = storage::open_private(&unfinished, true)?;
            let db = file_backend(file)
                .and_then(|backend| Builder::new().create_with_backend(backend).map_err(OpenError::from));
            initialise(&db.map_err(into_store_error)?, home, keyring)?;
            // A hard link, unlike a renaming, never replaces a home that another process made meanwhile.
            fs::hard_link(&unfinished, &path).or_else(|error| match error.kind() {
                io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied => {
                    fs::rename(&unfinished, &path)
                }
                _ => Err(error),
            })?;
            let _ = fs::remove_file(&unfinished);
            storage::sync_folder(folder)?;
            Ok(())
        };
        make().map_err(|error| match error {
            StoreError::Io { kind: io::ErrorKind::AlreadyExists, .. } if path.exists() => {
                CreateError::Exists(folder.clone())
            }
            error => error.into(),
        })
    }

    /// Opens a home's file, for this client alone.
    pub(crate) fn open(storage: &Storage) -> Result<(Self, Loaded), OpenError> {
        let mut builder = Builder::new();
        builder.set_cache_size(CACHE_BYTES);
        let db = match storage {
            Storage::Memory(memory) if memory.is_empty() => return Err(OpenError::NoHome("memory".into())),
            Storage::Memory(memory) => builder.create_with_backend(memory.clone())?,
            Storage::Folder(folder) => {
                let path = folder.join(storage::FILE);
                let file = storage::open_private(&path, false).map_err(|error| match error.kind() {
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
                        OpenError::NoHome(folder.clone())
                    }
                    _ => StoreError::from(error).into(),
                })?;
                builder.create_with_backend(file_backend(file)?)?
            }
        };
        check_format(&db)?;
        let store = Self { db, points: Points::default() };
        let loaded = store.load()?;
        Ok((store, loaded))
    }

    fn load(&self) -> Result<Loaded, StoreError> {
        let read = self.db.begin_read()?;
        let meta = read.open_table(META)?;
        let mut contacts = Vec::new();
        for row in read.open_table(CONTACTS)?.iter()? {
            let (name, ticket) = row?;
            let name = name.value().to_owned();
            let ticket = ticket
                .value()
                .parse()
                .map_err(|error| StoreError::Damaged(format!("contact {name:?}: {error}")))?;
            contacts.push(Contact { name, ticket });
        }
        let mut outbox = Vec::new();
        for row in read.open_table(OUTBOX)?.iter()? {
            let (id, row) = row?;
            outbox.push((MessageId(id.value()), Queued::from(&decode::<OutboxRow>(row.value())?)));
        }
        let mut kept = Kept::default();
        for row in read.open_table(KEPT)?.iter()? {
            let (id, row) = row?;
            let KeptRow { row, left } = decode(row.value())?;
            kept.load(MessageId(id.value()), Queued::from(&row), left);
        }
        for row in read.open_table(DONE)?.iter()? {
            let (id, row) = row?;
            let DoneRow { name, app_id, state, left, .. } = decode(row.value())?;
            if let Some(name) = name {
                kept.load_arrived(MessageId(id.value()), name, app_id, left, state == MessageState::Read);
            }
        }
        let table = |definition| -> Result<Vec<AccountKey>, StoreError> {
            let table = read.open_table::<u16, &[u8; 32]>(definition)?;
            table.range(1..=HANDLES_MAX)?.map(|row| Ok(AccountKey(*row?.1.value()))).collect()
        };
        let mut pairs = Vec::new();
        for row in read.open_table(PAIRS)?.iter()? {
            let (with, pair) = row?;
            pairs.push((*with.value(), pair.value().to_owned()));
        }
        let keyring = meta.get(META_KEYRING)?.ok_or_else(|| missing(META_KEYRING))?.value().to_owned();
        Ok(Loaded {
            home: get(&meta, META_HOME)?,
            keyring,
            pairs,
            relay: get(&meta, META_RELAY)?,
            counters: get(&meta, META_COUNTERS)?,
            contacts,
            outbox,
            kept,
            mailboxes: table(MAILBOXES)?,
            senders: table(SENDERS)?,
        })
    }

    /// Numbers messages and puts them at the end of the outbox, in this order. Returns the id of the first;
    /// the others follow.
    pub(crate) fn enqueue(&self, rows: &mut [OutboxRow], numbers: &Numbers) -> Result<MessageId, StoreError> {
        let write = self.begin_write()?;
        let first;
        {
            let mut meta = write.open_table(META)?;
            let mut counters: Counters = get(&meta, META_COUNTERS)?;
            first = counters.messages + 1;
            let mut outbox = write.open_table(OUTBOX)?;
            for row in rows {
                counters.messages += 1;
                // What is sealed is told from repeats inside the seal.
                match &row.seal {
                    Some(keys) => row.written = numbers.write(keys.identity),
                    None => row.number = Some(numbers.leave()),
                }
                outbox.insert(counters.messages, encode(row).as_slice())?;
            }
            meta.insert(META_COUNTERS, encode(&counters).as_slice())?;
        }
        self.commit("enqueue", write)?;
        Ok(MessageId(first))
    }

    /// Puts notes at the very end of the outbox. Returns the id of the first; the others follow.
    pub(crate) fn enqueue_notes(&self, rows: &[OutboxRow]) -> Result<MessageId, StoreError> {
        let write = self.begin_write()?;
        let first;
        {
            let mut meta = write.open_table(META)?;
            let mut counters: Counters = get(&meta, META_COUNTERS)?;
            first = MessageId::FIRST_NOTES.0 + counters.notes;
            let mut outbox = write.open_table(OUTBOX)?;
            for (id, row) in (first..).zip(rows) {
                outbox.insert(id, encode(row).as_slice())?;
            }
            counters.notes += rows.len() as u64;
            meta.insert(META_COUNTERS, encode(&counters).as_slice())?;
        }
        self.commit("enqueue_notes", write)?;
        Ok(MessageId(first))
    }

    /// The rows of these messages, and what they were sealed into. Those that are not in the outbox any more
    /// are left out.
    pub(crate) fn departures(&self, ids: &[MessageId]) -> Result<Vec<Departure>, StoreError> {
        let read = self.db.begin_read()?;
        let (outbox, sealed) = (read.open_table(OUTBOX)?, read.open_table(SEALED)?);
        let mut rows = Vec::with_capacity(ids.len());
        for id in ids {
            let Some(row) = outbox.get(id.0)? else { continue };
            let sealed = sealed.get(id.0)?.map(|row| decode(row.value())).transpose()?;
            rows.push(Departure { id: *id, row: decode(row.value())?, sealed });
        }
        Ok(rows)
    }

    /// Numbers what has no number and writes what was sealed, with the ratchets that sealed it. Messages
    /// that ride with another are no longer among the rows.
    pub(crate) fn hand_over(
        &self,
        rows: &mut [Departure],
        pairs: &[PairRow],
        numbers: &Numbers,
    ) -> Result<(), StoreError> {
        if pairs.is_empty() && rows.iter().all(|departure| departure.row.number.is_some()) {
            return Ok(());
        }
        let write = self.begin_write()?;
        {
            let mut outbox = write.open_table(OUTBOX)?;
            let mut sealed = write.open_table(SEALED)?;
            for Departure { id, row, sealed: seal } in
                rows.iter_mut().filter(|departure| departure.row.number.is_none())
            {
                row.number = Some(numbers.leave());
                outbox.insert(id.0, encode(row).as_slice())?;
                let Some(seal) = seal else { continue };
                sealed.insert(id.0, encode(seal).as_slice())?;
                for rider in &seal.riders {
                    let Some(row) = outbox.get(rider.0)?.map(|row| decode::<OutboxRow>(row.value())) else {
                        continue;
                    };
                    let row = OutboxRow { rides_with: Some(*id), ..row? };
                    outbox.insert(rider.0, encode(&row).as_slice())?;
                }
            }
            put_pairs(&write, pairs)?;
        }
        self.commit("hand_over", write)
    }

    /// Makes one turn of the driver durable; returns the counters after it.
    pub(crate) fn apply(&self, changes: &Changes) -> Result<Counters, StoreError> {
        let write = self.begin_write()?;
        let mut counters: Counters;
        {
            let mut meta = write.open_table(META)?;
            counters = get(&meta, META_COUNTERS)?;
            put_in_inbox(&write, &changes.received, &mut counters)?;
            take_from_outbox(&write, changes, &mut counters)?;
            take_from_kept(&write, changes)?;
            for (definition, change) in [(MAILBOXES, &changes.mailboxes), (SENDERS, &changes.senders)] {
                let Some(change) = change else { continue };
                let mut table = write.open_table(definition)?;
                table.retain_in(change.keep.saturating_add(1).., |_, _| false)?;
                for (handle, key) in (change.keep + 1..).zip(&change.append) {
                    table.insert(handle, &key.0)?;
                }
            }
            put_pairs(&write, &changes.pairs)?;
            if let Some(relay) = &changes.relay {
                meta.insert(META_RELAY, encode(relay).as_slice())?;
            }
            meta.insert(META_COUNTERS, encode(&counters).as_slice())?;
        }
        self.commit("apply", write)?;
        Ok(counters)
    }

    pub(crate) fn put_home(&self, home: &HomeRecord) -> Result<(), StoreError> {
        let write = self.begin_write()?;
        write.open_table(META)?.insert(META_HOME, encode(home).as_slice())?;
        self.commit("put_home", write)
    }

    pub(crate) fn put_contact(&self, contact: &Contact) -> Result<(), StoreError> {
        let write = self.begin_write()?;
        write.open_table(CONTACTS)?.insert(contact.name.as_str(), contact.ticket.to_string().as_str())?;
        self.commit("put_contact", write)
    }

    pub(crate) fn remove_contact(&self, name: &str) -> Result<(), StoreError> {
        let write = self.begin_write()?;
        write.open_table(CONTACTS)?.remove(name)?;
        self.commit("remove_contact", write)
    }

    /// The first messages after a place in the inbox, at most so many.
    pub(crate) fn inbox(
        &self,
        after: InboxNumber,
        max: usize,
    ) -> Result<Vec<(InboxNumber, InboxRow)>, StoreError> {
        let read = self.db.begin_read()?;
        let inbox = read.open_table(INBOX)?;
        let rows = inbox.range(after.0.saturating_add(1)..)?.take(max);
        rows.map(|row| {
            let (number, row) = row?;
            Ok((InboxNumber(number.value()), decode(row.value())?))
        })
        .collect()
    }

    /// The last message of each of a sender's incarnations, among the sender's last `max` up to this place.
    pub(crate) fn last_names(
        &self,
        from: &AccountKey,
        upto: InboxNumber,
        max: usize,
    ) -> Result<Vec<Name>, StoreError> {
        let read = self.db.begin_read()?;
        let inbox = read.open_table(INBOX)?;
        let mut names: Vec<Name> = Vec::new();
        let mut found = 0;
        for row in inbox.range(..=upto.0)?.rev() {
            let row: InboxRow = decode(row?.1.value())?;
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
    }

    /// Forgets the messages up to this place; later ones keep their numbers.
    pub(crate) fn release_inbox(&self, upto: InboxNumber) -> Result<(), StoreError> {
        let write = self.begin_write()?;
        write.open_table(INBOX)?.retain_in(..=upto.0, |_, _| false)?;
        self.commit("release_inbox", write)
    }

    /// What became of a message; none if it was never sent, or is done for long.
    pub(crate) fn message_state(&self, id: MessageId) -> Result<Option<MessageState>, StoreError> {
        let read = self.db.begin_read()?;
        if let Some(row) = read.open_table(OUTBOX)?.get(id.0)? {
            let row: OutboxRow = decode(row.value())?;
            return Ok(Some(if row.again == 0 { MessageState::Waiting } else { MessageState::Custody }));
        }
        if read.open_table(KEPT)?.get(id.0)?.is_some() {
            return Ok(Some(MessageState::Custody));
        }
        let Some(row) = read.open_table(DONE)?.get(id.0)? else { return Ok(None) };
        Ok(Some(decode::<DoneRow>(row.value())?.state))
    }

    /// How much there is, ever and now.
    pub(crate) fn counts(&self) -> Result<Counts, StoreError> {
        let read = self.db.begin_read()?;
        let outbox = read.open_table(OUTBOX)?;
        let notes = outbox.range(MessageId::FIRST_NOTES.0..)?.count() as u64;
        Ok(Counts {
            counters: get(&read.open_table(META)?, META_COUNTERS)?,
            waiting: outbox.len()? - notes,
            unconfirmed: read.open_table(KEPT)?.len()?,
        })
    }

    fn begin_write(&self) -> Result<WriteTransaction, StoreError> {
        begin_write(&self.db)
    }

    fn commit(&self, what: &'static str, write: WriteTransaction) -> Result<(), StoreError> {
        self.points.pass(what);
        write.commit()?;
        self.points.pass(what);
        Ok(())
    }
}

fn put_in_inbox(
    write: &WriteTransaction,
    rows: &[InboxRow],
    counters: &mut Counters,
) -> Result<(), StoreError> {
    let mut inbox = write.open_table(INBOX)?;
    for row in rows {
        counters.received += 1;
        inbox.insert(counters.received, encode(row).as_slice())?;
    }
    Ok(())
}

fn take_from_outbox(
    write: &WriteTransaction,
    changes: &Changes,
    counters: &mut Counters,
) -> Result<(), StoreError> {
    let mut outbox = write.open_table(OUTBOX)?;
    let mut kept = write.open_table(KEPT)?;
    let mut done = write.open_table(DONE)?;
    let mut sealed = write.open_table(SEALED)?;
    let custody = changes.custody.iter().map(|(id, left)| (*id, *left, MessageState::Custody));
    let failed = changes.failed.iter().map(|(id, failure)| (*id, 0, MessageState::Failed(*failure)));
    for (id, left, state) in custody.chain(failed) {
        let riders = match sealed.remove(id.0)? {
            Some(row) => decode::<SealedRow>(row.value())?.riders,
            None => Vec::new(),
        };
        for id in riders.into_iter().chain([id]) {
            let Some(row) = outbox.remove(id.0)? else { continue };
            if id.is_notes() {
                continue;
            }
            let row: OutboxRow = decode(row.value())?;
            // What was in custody before does not fail.
            let state = if row.again > 0 { MessageState::Custody } else { state };
            if row.again == 0 {
                *(if state == MessageState::Custody {
                    &mut counters.custody
                } else {
                    &mut counters.failed
                }) += 1;
            }
            if left > 0 && row.name().is_some() {
                let row = OutboxRow { number: None, rides_with: None, ..row };
                kept.insert(id.0, encode(&KeptRow { row, left }).as_slice())?;
            } else {
                done.insert(id.0, encode(&DoneRow::new(&row, state, left)).as_slice())?;
            }
        }
    }
    while done.len()? > DONE_KEPT {
        done.pop_first()?;
    }
    for id in &changes.unnumbered {
        let Some(mut row) = outbox.get(id.0)?.map(|row| decode::<OutboxRow>(row.value())).transpose()? else {
            continue;
        };
        row.number = None;
        outbox.insert(id.0, encode(&row).as_slice())?;
    }
    Ok(())
}

fn take_from_kept(write: &WriteTransaction, changes: &Changes) -> Result<(), StoreError> {
    let mut kept = write.open_table(KEPT)?;
    let mut done = write.open_table(DONE)?;
    let delivered = changes.delivered.iter().map(|(id, _)| (*id, MessageState::Delivered));
    let let_go = changes.let_go.iter().map(|id| (*id, MessageState::Custody));
    for (id, state) in delivered.chain(let_go) {
        let Some(row) = kept.remove(id.0)? else { continue };
        let KeptRow { row, left } = decode(row.value())?;
        done.insert(id.0, encode(&DoneRow::new(&row, state, left)).as_slice())?;
    }
    for (id, _) in &changes.read {
        let Some(row) = done.get(id.0)?.map(|row| decode::<DoneRow>(row.value())).transpose()? else {
            continue;
        };
        done.insert(id.0, encode(&DoneRow { state: MessageState::Read, ..row }).as_slice())?;
    }
    let mut outbox = write.open_table(OUTBOX)?;
    for (id, queued) in &changes.again {
        let Some(row) = kept.remove(id.0)? else { continue };
        let KeptRow { row, .. } = decode(row.value())?;
        outbox.insert(id.0, encode(&OutboxRow { again: queued.again, ..row }).as_slice())?;
    }
    Ok(())
}

fn file_backend(file: File) -> Result<FileBackend, OpenError> {
    Ok(FileBackend::new(file)?)
}

fn into_store_error(error: OpenError) -> StoreError {
    match error {
        OpenError::Store(error) => error,
        other => StoreError::Damaged(other.to_string()),
    }
}

fn begin_write(db: &Database) -> Result<WriteTransaction, StoreError> {
    let mut write = db.begin_write()?;
    write.set_two_phase_commit(true);
    write.set_quick_repair(true);
    Ok(write)
}

fn initialise(db: &Database, home: &HomeRecord, keyring: &[u8]) -> Result<(), StoreError> {
    let write = begin_write(db)?;
    {
        let mut meta = write.open_table(META)?;
        meta.insert(META_FORMAT, FORMAT.to_le_bytes().as_slice())?;
        meta.insert(META_HOME, encode(home).as_slice())?;
        meta.insert(META_KEYRING, keyring)?;
        meta.insert(META_RELAY, encode(&RelayRecord::default()).as_slice())?;
        meta.insert(META_COUNTERS, encode(&Counters::default()).as_slice())?;
        // Every table exists from the first commit on, so that reads need not ask.
        write.open_table(CONTACTS)?;
        write.open_table(OUTBOX)?;
        write.open_table(KEPT)?;
        write.open_table(DONE)?;
        write.open_table(SEALED)?;
        write.open_table(PAIRS)?;
        write.open_table(INBOX)?;
        write.open_table(MAILBOXES)?;
        write.open_table(SENDERS)?;
    }
    Ok(write.commit()?)
}

fn check_format(db: &Database) -> Result<(), OpenError> {
    let not_a_home = || StoreError::Damaged("it is no home of Thinpost".into());
    let read = db.begin_read().map_err(StoreError::from)?;
    let meta = read.open_table(META).map_err(|_| not_a_home())?;
    let format = meta.get(META_FORMAT).map_err(StoreError::from)?.ok_or_else(not_a_home)?;
    match u32::from_le_bytes(format.value().try_into().map_err(|_| not_a_home())?) {
        FORMAT => Ok(()),
        found => Err(OpenError::UnknownFormat { found, known: FORMAT }),
    }
}

fn get<T: DeserializeOwned>(
    meta: &impl ReadableTable<&'static str, &'static [u8]>,
    key: &str,
) -> Result<T, StoreError> {
    let row = meta.get(key)?.ok_or_else(|| missing(key))?;
    decode(row.value())
}

fn missing(key: &str) -> StoreError {
    StoreError::Damaged(format!("{key:?} is missing"))
}

fn put_pairs(write: &WriteTransaction, pairs: &[PairRow]) -> Result<(), StoreError> {
    let mut table = write.open_table(PAIRS)?;
    for (with, pair) in pairs {
        table.insert(with, pair.as_slice())?;
    }
    Ok(())
}

fn encode(record: &impl Serialize) -> Vec<u8> {
    postcard::to_stdvec(record).expect("records hold nothing that postcard cannot write")
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, StoreError> {
    Ok(postcard::from_bytes(bytes)?)
}
