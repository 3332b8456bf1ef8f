//! The one file that everything durable of a home lives in.
//!
//! A method that changes anything returns when the change is on disk, all of it or nothing of it. A
//! transaction commits in two phases, as its bytes come from strangers and redb's checksums are not
//! cryptographic, and saves the allocator's state, so that reopening after a kill is quick.

mod grants;
pub(crate) mod records;
pub(crate) mod storage;
#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use redb::backends::FileBackend;
use redb::{
    Builder, Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition,
    WriteTransaction,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use thinpost_wire::ids::{AccountKey, AppId, Incarnation, Origin, StoreId};
use thinpost_wire::limits::HANDLES_MAX;
use thinpost_wire::table::Entry;
use thinpost_wire::token::{MailboxAddress, TokenId};

use crate::contacts::Contact;
use crate::error::{CreateError, OpenError, StoreError};
use crate::grants::Grant;
use crate::message::{Failure, InboxNumber, MessageId, MessageState};
use crate::seal::Identity;
use records::{
    ACCESS, AccessRow, CONTACTS, Counters, DONE, DONE_KEPT, DoneRow, FORMAT, GRANTS, HomeRecord, INBOX,
    InboxRow, MAILBOXES, META, META_COUNTERS, META_FORMAT, META_HOME, META_KEYRING, META_RELAY, OUTBOX,
    OutboxRow, PAIRS, RelayRecord, SEALED, SENDERS, SealedRow,
};
use storage::Storage;

/// Memory for pages, bytes: a phone's share.
const CACHE_BYTES: usize = 2 << 20;

/// A home's file, open.
#[derive(Debug)]
pub(crate) struct Store {
    db: Database,
}

/// What a client starts from.
pub(crate) struct Loaded {
    pub(crate) home: HomeRecord,
    pub(crate) keyring: Vec<u8>,
    pub(crate) pairs: Vec<PairRow>,
    pub(crate) relay: RelayRecord,
    pub(crate) counters: Counters,
    pub(crate) contacts: Vec<Contact>,
    pub(crate) access: Vec<(AccountKey, AccessRow)>,
    pub(crate) grants: Vec<(TokenId, Grant)>,
    /// The outbox by id, without its bodies.
    pub(crate) outbox: Vec<(MessageId, Queued)>,
    pub(crate) mailboxes: Vec<MailboxAddress>,
    pub(crate) senders: Vec<AccountKey>,
}

/// The numbers of one opening of the home, in two rows. What a recipient knows a message by is drawn when it
/// is written, so that a home restored from a copy sends what waited then under the same names as its newer
/// self did. What the relay knows an envelope by is drawn when it first leaves, one after another.
#[derive(Debug)]
pub(crate) struct Numbers {
    incarnation: Incarnation,
    written: AtomicU64,
    left: AtomicU64,
}

impl Numbers {
    pub(crate) fn new(incarnation: Incarnation) -> Self {
        Self { incarnation, written: AtomicU64::new(1), left: AtomicU64::new(1) }
    }

    pub(crate) fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// The next one of a row. Called within write transactions only, which keeps numbers in the order of ids.
    fn take(&self, row: &AtomicU64) -> Origin {
        Origin { incarnation: self.incarnation, sequence: row.fetch_add(1, Ordering::Relaxed) }
    }

    fn write(&self) -> Origin {
        self.take(&self.written)
    }

    fn leave(&self) -> Origin {
        self.take(&self.left)
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
        }
    }
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
pub(crate) struct TableChange<E> {
    pub(crate) keep: u16,
    pub(crate) append: Vec<E>,
}

/// What one turn of the driver makes durable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    pub(crate) received: Vec<InboxRow>,
    pub(crate) custody: Vec<MessageId>,
    pub(crate) failed: Vec<(MessageId, Failure)>,
    /// Refused for now: the relay has not taken custody under their numbers.
    pub(crate) unnumbered: Vec<MessageId>,
    pub(crate) mailboxes: Option<TableChange<MailboxAddress>>,
    pub(crate) senders: Option<TableChange<AccountKey>>,
    /// What the relay with this store now knows to be revoked.
    pub(crate) told: Vec<(TokenId, StoreId)>,
    pub(crate) relay: Option<RelayRecord>,
    /// Goes with what was opened: neither may be written without the other.
    pub(crate) pairs: Vec<PairRow>,
    /// Goes with what was opened, too: a one-time key that was used is not in it.
    pub(crate) keyring: Option<Vec<u8>>,
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
        let store = Self { db };
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
        let mailboxes = read.open_table(MAILBOXES)?;
        let mailboxes =
            mailboxes.range(1..=HANDLES_MAX)?.map(|row| Ok(MailboxAddress::from_bytes(row?.1.value())));
        let senders = read.open_table(SENDERS)?;
        let senders = senders.range(1..=HANDLES_MAX)?.map(|row| Ok(AccountKey(*row?.1.value())));
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
            access: grants::load_access(&read)?,
            grants: grants::load_grants(&read)?,
            outbox,
            mailboxes: mailboxes.collect::<Result<_, StoreError>>()?,
            senders: senders.collect::<Result<_, StoreError>>()?,
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
                row.written = numbers.write();
                // What is sealed is told from repeats inside the seal.
                row.number = row.seal.is_none().then(|| numbers.leave());
                outbox.insert(counters.messages, encode(row).as_slice())?;
            }
            meta.insert(META_COUNTERS, encode(&counters).as_slice())?;
        }
        write.commit()?;
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
        Ok(write.commit()?)
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
            change_table(&write, MAILBOXES, changes.mailboxes.as_ref())?;
            change_table(&write, SENDERS, changes.senders.as_ref())?;
            grants::put_told(&write, &changes.told)?;
            put_pairs(&write, &changes.pairs)?;
            if let Some(keyring) = &changes.keyring {
                meta.insert(META_KEYRING, keyring.as_slice())?;
            }
            if let Some(relay) = &changes.relay {
                meta.insert(META_RELAY, encode(relay).as_slice())?;
            }
            meta.insert(META_COUNTERS, encode(&counters).as_slice())?;
        }
        write.commit()?;
        Ok(counters)
    }

    pub(crate) fn put_home(&self, home: &HomeRecord) -> Result<(), StoreError> {
        let write = self.begin_write()?;
        write.open_table(META)?.insert(META_HOME, encode(home).as_slice())?;
        Ok(write.commit()?)
    }

    /// Writes a contact, and how to reach it beyond its ticket.
    pub(crate) fn put_contact(&self, contact: &Contact, access: &AccessRow) -> Result<(), StoreError> {
        let write = self.begin_write()?;
        write.open_table(CONTACTS)?.insert(contact.name.as_str(), contact.ticket.to_string().as_str())?;
        grants::put_access(&write, &contact.ticket.account, access)?;
        Ok(write.commit()?)
    }

    pub(crate) fn remove_contact(&self, contact: &Contact) -> Result<(), StoreError> {
        let write = self.begin_write()?;
        write.open_table(CONTACTS)?.remove(contact.name.as_str())?;
        grants::put_access(&write, &contact.ticket.account, &AccessRow::default())?;
        Ok(write.commit()?)
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

    /// Forgets the messages up to this place; later ones keep their numbers.
    pub(crate) fn release_inbox(&self, upto: InboxNumber) -> Result<(), StoreError> {
        let write = self.begin_write()?;
        write.open_table(INBOX)?.retain_in(..=upto.0, |_, _| false)?;
        Ok(write.commit()?)
    }

    /// What became of a message; none if it was never sent, or is done for long.
    pub(crate) fn message_state(&self, id: MessageId) -> Result<Option<MessageState>, StoreError> {
        let read = self.db.begin_read()?;
        if read.open_table(OUTBOX)?.get(id.0)?.is_some() {
            return Ok(Some(MessageState::Waiting));
        }
        let Some(row) = read.open_table(DONE)?.get(id.0)? else { return Ok(None) };
        let row: DoneRow = decode(row.value())?;
        Ok(Some(row.failure.map_or(MessageState::Custody, MessageState::Failed)))
    }

    pub(crate) fn counters(&self) -> Result<(Counters, u64), StoreError> {
        let read = self.db.begin_read()?;
        Ok((get(&read.open_table(META)?, META_COUNTERS)?, read.open_table(OUTBOX)?.len()?))
    }

    fn begin_write(&self) -> Result<WriteTransaction, StoreError> {
        begin_write(&self.db)
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
    let mut done = write.open_table(DONE)?;
    let mut sealed = write.open_table(SEALED)?;
    let custody = changes.custody.iter().map(|id| (*id, None));
    let failed = changes.failed.iter().map(|(id, failure)| (*id, Some(*failure)));
    for (id, failure) in custody.chain(failed) {
        let riders = match sealed.remove(id.0)? {
            Some(row) => decode::<SealedRow>(row.value())?.riders,
            None => Vec::new(),
        };
        for id in riders.into_iter().chain([id]) {
            let Some(row) = outbox.remove(id.0)? else { continue };
            let OutboxRow { mailbox, app_id, .. } = decode(row.value())?;
            done.insert(id.0, encode(&DoneRow { mailbox, app_id, failure }).as_slice())?;
            *(if failure.is_none() { &mut counters.custody } else { &mut counters.failed }) += 1;
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

fn change_table<E: Entry<Bytes = [u8; N]>, const N: usize>(
    write: &WriteTransaction,
    definition: TableDefinition<'static, u16, &[u8; N]>,
    change: Option<&TableChange<E>>,
) -> Result<(), StoreError> {
    let Some(change) = change else { return Ok(()) };
    let mut table = write.open_table(definition)?;
    table.retain_in(change.keep.saturating_add(1).., |_, _| false)?;
    for (handle, entry) in (change.keep + 1..).zip(&change.append) {
        table.insert(handle, &entry.to_bytes())?;
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
        write.open_table(DONE)?;
        write.open_table(SEALED)?;
        write.open_table(PAIRS)?;
        write.open_table(INBOX)?;
        write.open_table(MAILBOXES)?;
        write.open_table(SENDERS)?;
        write.open_table(GRANTS)?;
        write.open_table(ACCESS)?;
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
