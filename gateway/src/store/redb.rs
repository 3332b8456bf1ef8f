//! The embedded store: one redb file.

mod apply;
mod check;
mod copy;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod objects;
mod records;
#[cfg(any(test, feature = "faults"))]
mod rows;

use std::io;
use std::ops::Bound;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use rangemap::RangeSet;
use redb::{
    CommitError, DatabaseError, ReadTransaction, ReadableTableMetadata, StorageBackend, StorageError,
    TableError, TableHandle, TransactionError,
};
use ring::rand::{SecureRandom, SystemRandom};
use thinpost_disk::{DamagedPage, Database, Reserve, files};
use thinpost_wire::ids::{AccountKey, DeviceKey, ObjectId, Position, StoreId};
use thinpost_wire::token::{MailboxAddress, MailboxSecret};

use self::apply::Transaction;
pub use self::check::{Fault, Report};
pub(crate) use self::copy::BACKUP_BYTES;
use self::objects::{OBJECT_IDS, OBJECT_RANGES, OBJECTS, ObjectState};
use self::records::{
    ACCOUNTS, ADDRESSES, CLOSED, DEVICE_KEYS, DEVICES, Device, ENTRIES, FORMAT, MAILBOXES, META, META_BACKUP,
    META_FORMAT, META_LINEAGE, META_OBJECTS, META_SEALED, META_SINCE, META_STATE, META_STORE_ID,
    ONE_TIME_KEYS, QUEUES, REVOKED, SECRETS, SENDERS, SESSION_ORDER, SESSIONS, State,
};
#[cfg(any(test, feature = "faults"))]
pub(super) use self::rows::Rows;
use super::sessions::SessionBuffer;
use super::types::Order;
use super::{
    Counts, DeviceNo, DeviceRecord, Entry, HandleTables, Leap, Lineage, MailboxUsage, ObjectNo, ObjectRecord,
    Op, RelayTime, Store, StoreConfig, StoreError, Verdict,
};

/// A relay's store in one redb file.
#[derive(Debug)]
pub struct RedbStore {
    db: Database,
    config: StoreConfig,
    lineage: Lineage,
    sessions: SessionBuffer,
    reserve: Option<Reserve>,
    leap: Mutex<Option<Leap>>,
    /// What a read first found that was not written, where that is not a page.
    damage: OnceLock<String>,
    /// Set by the first failure of [`Store::apply`], and never cleared.
    failed: AtomicBool,
}

impl RedbStore {
    /// Opens the store at `path`, or makes one, readable by its owner only. A new one is complete when it gets that
    /// name; until then it is called `path` and `.new`, and begun again if that is all there is. Two that make one at the same
    /// time spoil it: whoever makes a store has its folder for itself.
    ///
    /// # Errors
    ///
    /// [`StoreError::InUse`] while another process, or another handle, has it open;
    /// [`StoreError::NotAStore`] and [`StoreError::UnknownFormat`] leave what the file holds.
    pub fn open(path: &Path, config: StoreConfig) -> Result<Self, StoreError> {
        if path.try_exists().map_err(io_error)? {
            if !path.is_file() {
                return Err(StoreError::NotAStore);
            }
            let recognised = |db: &Database| db.intact(|| read_lineage(&db.begin_read()?).map(drop));
            let db = Database::open_file(path, config.cache_bytes, recognised)?;
            // What its id is, it knows.
            return Self::with_database(db, config, StoreId([0; 8]));
        }
        if path.is_symlink() {
            let nowhere = io::Error::new(io::ErrorKind::NotFound, "it is a link that leads nowhere");
            return Err(io_error(nowhere));
        }
        let id = draw_id()?;
        let mut unfinished = path.as_os_str().to_owned();
        unfinished.push(".new");
        let unfinished = Path::new(&unfinished);
        files::remove(unfinished).map_err(io_error)?;
        let db = Database::create_file(unfinished, config.cache_bytes)?;
        let store = Self::with_database(db, config, id)?;
        files::rename(unfinished, path).map_err(io_error)?;
        Ok(store)
    }

    /// Opens or makes a store on any redb backend; `new_id` names it if it is made.
    ///
    /// For simulations, which bring their own medium and draw the id from their seed.
    ///
    /// # Errors
    ///
    /// As [`RedbStore::open`].
    pub fn with_backend(
        backend: impl StorageBackend,
        config: StoreConfig,
        new_id: StoreId,
    ) -> Result<Self, StoreError> {
        Self::with_database(Database::open(backend, config.cache_bytes)?, config, new_id)
    }

    fn with_database(db: Database, config: StoreConfig, new_id: StoreId) -> Result<Self, StoreError> {
        let lineage = db.intact(|| match recognise(&db.begin_read()?)? {
            Some(lineage) => {
                add_tables(&db, &config)?;
                drop_open_sessions(&db)?;
                Ok(lineage)
            }
            None => initialise(&db, &config, new_id).map(|()| Lineage::new(new_id)),
        })?;
        Ok(Self {
            db,
            config,
            lineage,
            sessions: SessionBuffer::default(),
            reserve: None,
            leap: Mutex::default(),
            damage: OnceLock::new(),
            failed: AtomicBool::new(false),
        })
    }

    /// Whether nobody has registered in it yet, and no other was its beginning.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn is_new(&self) -> Result<bool, StoreError> {
        Ok(self.look(read_state)?.mailbox == 0 && self.lineage.earlier().is_empty())
    }

    /// Takes no more of the disk while little is left of it: then envelopes are taken where others have gone, objects and new
    /// devices are refused as when the store is full, no backup is made, and everything else goes on.
    #[must_use]
    pub fn with_reserve(self, reserve: Reserve) -> Self {
        Self { reserve: Some(reserve), ..self }
    }

    /// Reads in one transaction.
    fn look<T>(&self, look: impl FnOnce(&ReadTransaction) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let seen = self.db.intact(|| look(&self.db.begin_read()?));
        if let Err(StoreError::Corrupt(what)) = &seen {
            self.damage.get_or_init(|| what.clone());
        }
        seen
    }

    /// What a read has failed with. The one who asked does not stop the relay; the next commit does, and says why.
    fn failed_read(&self) -> Option<StoreError> {
        let of_disk = || self.db.failed_read().map(io_error);
        self.damage.get().cloned().map(StoreError::Corrupt).or_else(of_disk)
    }

    fn try_apply(&self, ops: &[Op], now: RelayTime) -> Result<Vec<Verdict>, StoreError> {
        let sessions = self.sessions.pending();
        let write = self.db.begin_write()?;
        let mut transaction = Transaction::begin(&write, &self.config, now)?;
        transaction.leap(self.leap());
        if let Some(reserve) = &self.reserve {
            transaction.heed(reserve.left());
        }
        let mut order = Order::default();
        let mut verdicts = Vec::with_capacity(ops.len());
        for op in ops {
            verdicts.push(transaction.apply(op, order.bars(op))?);
            order.note(op, verdicts.last());
        }
        transaction.put_sessions(&sessions)?;
        if transaction.finish(ops.is_empty())? {
            write.commit()?;
        } else {
            // Every op was refused or a repeat of what an earlier commit made durable.
            write.abort()?;
        }
        self.sessions.committed(&sessions);
        Ok(verdicts)
    }
}

fn draw_id() -> Result<StoreId, StoreError> {
    let mut id = [0; 8];
    SystemRandom::new()
        .fill(&mut id)
        .map_err(|_| StoreError::Io(io::Error::other("the system gives no random numbers")))?;
    Ok(StoreId(id))
}

/// Which store is in an open database; `None` if the database is new.
fn recognise(read: &ReadTransaction) -> Result<Option<Lineage>, StoreError> {
    if read.list_tables()?.next().is_none() {
        return Ok(None);
    }
    let lineage = read_lineage(read)?;
    if read.open_table(META)?.get(META_BACKUP)?.is_some() {
        return Err(StoreError::IsBackup);
    }
    Ok(Some(lineage))
}

/// Which store a database is, or is a backup of.
fn read_lineage(read: &ReadTransaction) -> Result<Lineage, StoreError> {
    if !read.list_tables()?.any(|table| table.name() == META.name()) {
        return Err(StoreError::NotAStore);
    }
    let meta = read.open_table(META)?;
    let format = meta.get(META_FORMAT)?.ok_or(StoreError::NotAStore)?;
    let found = u32::from_le_bytes(format.value().try_into().map_err(|_| StoreError::NotAStore)?);
    if found != FORMAT {
        return Err(StoreError::UnknownFormat { found, expected: FORMAT });
    }
    let id = meta.get(META_STORE_ID)?.and_then(|id| id.value().try_into().ok());
    let id = StoreId(id.ok_or_else(|| StoreError::Corrupt("no store id".into()))?);
    let earlier = match meta.get(META_LINEAGE)? {
        Some(earlier) => records::decode("lineage", earlier.value())?,
        None => Vec::new(),
    };
    Ok(Lineage::with_earlier(id, earlier))
}

fn initialise(db: &Database, config: &StoreConfig, id: StoreId) -> Result<(), StoreError> {
    let write = db.begin_write()?;
    {
        let mut meta = write.open_table(META)?;
        meta.insert(META_FORMAT, FORMAT.to_le_bytes().as_slice())?;
        meta.insert(META_STORE_ID, id.0.as_slice())?;
        meta.insert(META_STATE, records::encode(&State::default())?.as_slice())?;
        meta.insert(META_SEALED, [].as_slice())?;
    }
    // Every table exists from the first commit on, so that reads need not ask.
    drop(Transaction::begin(&write, config, RelayTime(0))?);
    Ok(write.commit()?)
}

/// Adds the tables of objects, and of what was restored, to a store from before there were any.
fn add_tables(db: &Database, config: &StoreConfig) -> Result<(), StoreError> {
    let tables: Vec<_> = db.begin_read()?.list_tables()?.map(|table| table.name().to_owned()).collect();
    if [OBJECTS.name(), CLOSED.name()].iter().all(|name| tables.iter().any(|table| table == name)) {
        return Ok(());
    }
    let write = db.begin_write()?;
    drop(Transaction::begin(&write, config, RelayTime(0))?);
    Ok(write.commit()?)
}

/// Takes TLS sessions from before they were sealed out of a store: nobody finds them any more.
fn drop_open_sessions(db: &Database) -> Result<(), StoreError> {
    if db.begin_read()?.open_table(META)?.get(META_SEALED)?.is_some() {
        return Ok(());
    }
    let write = db.begin_write()?;
    write.delete_table(SESSIONS)?;
    write.delete_table(SESSION_ORDER)?;
    write.open_table(SESSIONS)?;
    write.open_table(SESSION_ORDER)?;
    write.open_table(META)?.insert(META_SEALED, [].as_slice())?;
    Ok(write.commit()?)
}

fn read_object_state(read: &ReadTransaction) -> Result<ObjectState, StoreError> {
    match read.open_table(META)?.get(META_OBJECTS)? {
        Some(state) => records::decode("state of objects", state.value()),
        None => Ok(ObjectState::default()),
    }
}

fn read_since(read: &ReadTransaction) -> Result<Option<u64>, StoreError> {
    let Some(row) = read.open_table(META)?.get(META_SINCE)? else { return Ok(None) };
    let bytes = row.value().try_into().map_err(|_| StoreError::Corrupt("since".into()))?;
    Ok(Some(u64::from_le_bytes(bytes)))
}

fn write_since(db: &Database, since_unix_s: u64) -> Result<(), StoreError> {
    let write = db.begin_write()?;
    write.open_table(META)?.insert(META_SINCE, since_unix_s.to_le_bytes().as_slice())?;
    Ok(write.commit()?)
}

fn read_state(read: &ReadTransaction) -> Result<State, StoreError> {
    let meta = read.open_table(META)?;
    let state = meta.get(META_STATE)?.ok_or_else(|| StoreError::Corrupt("no state".into()))?;
    records::decode("state", state.value())
}

fn mailbox_number(read: &ReadTransaction, account: &AccountKey) -> Result<Option<u32>, StoreError> {
    Ok(read.open_table(ACCOUNTS)?.get(&account.0)?.map(|row| row.value()))
}

/// See [`Store::read`].
fn read_mailbox(
    read: &ReadTransaction,
    mailbox: &AccountKey,
    after: Position,
    entries_max: usize,
    bytes_max: usize,
) -> Result<Vec<(Position, Entry)>, StoreError> {
    let Some(number) = mailbox_number(read, mailbox)? else { return Ok(Vec::new()) };
    let queues = read.open_table(QUEUES)?;
    let entries = read.open_table(ENTRIES)?;
    let mut found = Vec::new();
    let mut bytes = 0;
    let range = (Bound::Excluded((number, after.0)), Bound::Included((number, u64::MAX)));
    for row in queues.range(range)?.take(entries_max) {
        let (_, position) = row?.0.value();
        let value = entries
            .get(position)?
            .ok_or_else(|| StoreError::Corrupt(format!("entry {position} is missing")))?;
        let (header, body) = records::read_entry(position, value.value())?;
        if header.mailbox != number {
            return Err(StoreError::Corrupt(format!("entry {position} is in another mailbox")));
        }
        bytes += body.len();
        if bytes > bytes_max && !found.is_empty() {
            break;
        }
        found.push((Position(position), header.entry(body)));
    }
    Ok(found)
}

/// See [`Store::tables`].
fn read_tables(read: &ReadTransaction, device: DeviceNo) -> Result<HandleTables, StoreError> {
    let whole = (device.0, 0)..=(device.0, u16::MAX);
    let addresses = read.open_table(ADDRESSES)?;
    let to_relay = addresses.range(whole.clone())?.map(|row| Ok(MailboxAddress::from_bytes(row?.1.value())));
    let senders = read.open_table(SENDERS)?;
    let from_relay = senders.range(whole)?.map(|row| Ok(AccountKey(*row?.1.value())));
    Ok(HandleTables {
        to_relay: to_relay.collect::<Result<_, StorageError>>()?,
        from_relay: from_relay.collect::<Result<_, StorageError>>()?,
    })
}

impl Store for RedbStore {
    fn apply(&self, ops: &[Op], now: RelayTime) -> Result<Vec<Verdict>, StoreError> {
        if self.failed.load(Ordering::Acquire) {
            return Err(StoreError::Failed);
        }
        let result = match self.failed_read() {
            Some(error) => Err(error),
            None => self.db.intact(|| self.try_apply(ops, now)),
        };
        result.map_err(|error| {
            self.failed.store(true, Ordering::Release);
            match error {
                // Of a read that failed meanwhile.
                StoreError::Failed => self.failed_read().unwrap_or(StoreError::Failed),
                StoreError::Full => {
                    self.reserve.iter().for_each(Reserve::was_full);
                    StoreError::Full
                }
                error => error,
            }
        })
    }

    fn device(&self, key: &DeviceKey) -> Result<Option<DeviceRecord>, StoreError> {
        self.look(|read| {
            let Some(number) = read.open_table(DEVICE_KEYS)?.get(&key.0)?.map(|row| row.value()) else {
                return Ok(None);
            };
            let devices = read.open_table(DEVICES)?;
            let row = devices.get(number)?.ok_or_else(|| StoreError::Corrupt(format!("device {number}")))?;
            Ok(Some(records::decode::<Device>("device", row.value())?.record(number)))
        })
    }

    fn read(
        &self,
        mailbox: &AccountKey,
        after: Position,
        entries_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<(Position, Entry)>, StoreError> {
        self.look(|read| read_mailbox(read, mailbox, after, entries_max, bytes_max))
    }

    fn is_open(&self, mailbox: &AccountKey) -> Result<bool, StoreError> {
        self.look(|read| {
            let Some(number) = mailbox_number(read, mailbox)? else { return Ok(false) };
            Ok(read.open_table(CLOSED)?.get(number)?.is_none())
        })
    }

    fn admits(&self, address: &MailboxAddress) -> Result<bool, StoreError> {
        self.look(|read| {
            let Some(number) = mailbox_number(read, &address.mailbox)? else { return Ok(false) };
            let secret = read.open_table(SECRETS)?.get(number)?.map(|row| MailboxSecret(*row.value()));
            let is_its = secret.is_some_and(|secret| address.token.is_of(&secret));
            Ok(is_its
                && read.open_table(CLOSED)?.get(number)?.is_none()
                && read.open_table(REVOKED)?.get((number, address.token.id().0))?.is_none())
        })
    }

    fn mailbox_usage(&self, mailbox: &AccountKey) -> Result<Option<MailboxUsage>, StoreError> {
        self.look(|read| {
            let Some(number) = mailbox_number(read, mailbox)? else { return Ok(None) };
            let usage = read.open_table(MAILBOXES)?.get(number)?.map(|row| row.value());
            Ok(usage.map(apply::usage_of))
        })
    }

    fn begin_run(&self, unix_s: u64) -> Result<(), StoreError> {
        let (state, since) = self.look(|read| Ok((read_state(read)?, read_since(read)?)))?;
        let leap = Leap::at(unix_s, Position(state.position), since);
        if since.is_none() && state.mailbox == 0 {
            // Put back to here, a store would know nothing of what was given out since; later than here, its first commit says it.
            self.db.intact(|| write_since(&self.db, leap.since_unix_s()))?;
        }
        *self.leap.lock().unwrap_or_else(PoisonError::into_inner) = Some(leap);
        Ok(())
    }

    fn leap(&self) -> Option<Leap> {
        *self.leap.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn newest(&self) -> Result<Position, StoreError> {
        self.look(|read| Ok(Position(read_state(read)?.position)))
    }

    fn tables(&self, device: DeviceNo) -> Result<HandleTables, StoreError> {
        self.look(|read| read_tables(read, device))
    }

    fn keys_left(&self, device: DeviceNo) -> Result<usize, StoreError> {
        self.look(|read| {
            let keys = read.open_table(ONE_TIME_KEYS)?;
            Ok(keys.range((device.0, &[0; 32])..=(device.0, &[0xff; 32]))?.count())
        })
    }

    fn put_session(&self, key: &[u8], value: Bytes) -> bool {
        self.sessions.put(key, value)
    }

    fn take_session(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.sessions.take(key, || {
            self.look(|read| {
                let row = read.open_table(SESSIONS)?.get(key)?;
                Ok(row.map(|row| Bytes::copy_from_slice(row.value().1)))
            })
        })
    }

    fn object(&self, account: &AccountKey, id: &ObjectId) -> Result<Option<ObjectRecord>, StoreError> {
        self.look(|read| {
            let Some(mailbox) = mailbox_number(read, account)? else { return Ok(None) };
            let number = read.open_table(OBJECT_IDS)?.get((&id.0, mailbox))?.map(|row| row.value());
            number.map(|number| objects::record(read, number)).transpose()
        })
    }

    fn find_object(&self, id: &ObjectId) -> Result<Option<ObjectRecord>, StoreError> {
        self.look(|read| objects::find(read, id))
    }

    fn object_held(&self, object: ObjectNo) -> Result<RangeSet<u64>, StoreError> {
        self.look(|read| objects::held(&read.open_table(OBJECT_RANGES)?, object.0))
    }

    fn read_object(&self, object: ObjectNo, offset: u64, bytes_max: usize) -> Result<Bytes, StoreError> {
        self.look(|read| objects::read_from(read, object.0, offset, bytes_max))
    }

    fn object_digest(&self, object: ObjectNo) -> Result<Option<ObjectId>, StoreError> {
        self.look(|read| objects::digest(read, object.0))
    }

    fn counts(&self) -> Result<Counts, StoreError> {
        self.look(|read| {
            Ok(Counts {
                accounts: read.open_table(ACCOUNTS)?.len()?,
                devices: read.open_table(DEVICES)?.len()?,
                entries: read.open_table(ENTRIES)?.len()?,
                bytes: read_state(read)?.bytes,
                objects: read.open_table(OBJECTS)?.len()?,
                object_bytes: read_object_state(read)?.bytes,
            })
        })
    }

    fn lineage(&self) -> &Lineage {
        &self.lineage
    }

    fn relay_clock(&self) -> Result<RelayTime, StoreError> {
        self.look(|read| Ok(RelayTime(read_state(read)?.clock_s)))
    }
}

fn io_error(error: io::Error) -> StoreError {
    if let Some(damaged) = DamagedPage::of(&error) {
        return StoreError::Corrupt(damaged.to_string());
    }
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            StoreError::Full
        }
        _ => StoreError::Io(error),
    }
}

impl From<StorageError> for StoreError {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Io(error) => io_error(error),
            StorageError::Corrupted(what) => Self::Corrupt(what),
            StorageError::PreviousIo | StorageError::DatabaseClosed | StorageError::LockPoisoned(_) => {
                Self::Failed
            }
            other => Self::Io(io::Error::other(other)),
        }
    }
}

impl From<DatabaseError> for StoreError {
    fn from(error: DatabaseError) -> Self {
        match error {
            DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => Self::InUse,
            DatabaseError::UpgradeRequired(found) => {
                // redb's own format, older than the one this program was built with.
                Self::Io(io::Error::new(io::ErrorKind::Unsupported, format!("redb file format {found}")))
            }
            // How redb says that the file does not begin like one of its own.
            DatabaseError::Storage(StorageError::Io(error)) if error.kind() == io::ErrorKind::InvalidData => {
                Self::NotAStore
            }
            DatabaseError::Storage(error) => error.into(),
            other => Self::Io(io::Error::other(other)),
        }
    }
}

impl From<TransactionError> for StoreError {
    fn from(error: TransactionError) -> Self {
        match error {
            TransactionError::Storage(error) => error.into(),
            other => Self::Io(io::Error::other(other)),
        }
    }
}

impl From<TableError> for StoreError {
    fn from(error: TableError) -> Self {
        match error {
            TableError::Storage(error) => error.into(),
            // A table that is missing or of another type, in a file whose format says otherwise.
            other => Self::Corrupt(other.to_string()),
        }
    }
}

impl From<CommitError> for StoreError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Storage(error) => error.into(),
            other => Self::Io(io::Error::other(other)),
        }
    }
}

#[cfg(test)]
pub(in crate::store) mod tests;
