//! Copies of a store, row by row out of one read transaction: backups of it, and stores made of backups.
//!
//! The file itself cannot be copied while a relay writes to it. A read transaction sees one commit, whatever
//! comes after it, and pins its pages until it ends: meanwhile the file grows by what commits write anew.

use std::fs;
use std::io;
use std::path::Path;
use std::thread;

use redb::{
    Key, MultimapTableHandle, ReadTransaction, ReadableTable, ReadableTableMetadata, TableDefinition,
    TableError, TableHandle, Value,
};
#[cfg(any(test, feature = "faults"))]
use thinpost_disk::medium::Medium;
use thinpost_disk::{Database, Left};
use thinpost_wire::ids::{Position, StoreId};

use super::apply::Transaction;
use super::objects::{
    OBJECT_BLOCKS, OBJECT_DEADLINES, OBJECT_IDS, OBJECT_RANGES, OBJECT_USAGE, OBJECTS, ObjectState,
};
use super::records::{
    ACCEPTED, ACCOUNTS, ADDRESSES, CLOSED, COLLAPSE, DEADLINES, DEVICE_KEYS, DEVICE_TIMERS, DEVICES, Device,
    ENTRIES, FORMAT, INCARNATION_TIMERS, INCARNATIONS, INVITES, MAILBOXES, META, META_BACKUP, META_FORMAT,
    META_LINEAGE, META_OBJECTS, META_PEAK, META_SEALED, META_SINCE, META_STATE, META_STORE_ID, ONE_TIME_KEYS,
    QUEUES, READERS, RETURNING, REVOKED, SECRETS, SENDERS, SESSION_ORDER, SESSIONS, decode, encode,
};
use super::{RedbStore, draw_id, io_error, read_lineage, read_object_state, read_since, read_state};
use crate::store::{Counts, Lineage, RelayTime, StoreConfig, StoreError};

type Result<T> = std::result::Result<T, StoreError>;

/// Rows that are written in one commit, bytes. 4 MiB: beside it redb remembers each page that a commit writes.
const COMMIT_BYTES: usize = 4 << 20;

/// redb's cache for the copy and for a backup that is read, bytes each. Rows are read and written in order, once.
const CACHE_BYTES: usize = 2 << 20;

/// What a backup takes of a running relay's memory, bytes: the cache, and what a commit writes, as rows and as pages.
pub(crate) const BACKUP_BYTES: usize = CACHE_BYTES + 2 * COMMIT_BYTES;

/// Whether a copy goes on; asked for each row.
pub(crate) type GoesOn<'a> = &'a dyn Fn() -> bool;

impl RedbStore {
    /// Writes a backup of the store, as the last commit left it, into a new file, readable by its owner only, whose name is for the
    /// caller to sync. Commits go on meanwhile. TLS sessions stay out: one that was used since could be used again.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] if the file is there already, or `goes_on` has said no; [`StoreError::Full`] where the copy has no room;
    /// [`StoreError::Low`] once little is left of the store's disk, of which the copy may be part, and whose pages it keeps from
    /// being used again. What is in the file then is no backup.
    pub fn back_up(&self, path: &Path, goes_on: GoesOn<'_>) -> Result<Counts> {
        let has_room = || self.reserve.as_ref().is_none_or(|reserve| reserve.left() == Left::Plenty);
        let copy = Database::create_file(path, CACHE_BYTES)?;
        // What is damaged may be the copy, which does not concern the relay: so not as other reads.
        let copied = self.db.intact(|| back_up(&self.db.begin_read()?, &copy, &|| goes_on() && has_room()));
        if copied.is_err() && !has_room() { Err(StoreError::Low) } else { copied }
    }

    /// The same of a store that no process has open, whose file stays as it is.
    ///
    /// # Errors
    ///
    /// As [`RedbStore::back_up`]; [`StoreError::InUse`] while a process has it open.
    pub fn back_up_closed(store: &Path, path: &Path) -> Result<Counts> {
        let from = open_closed(store)?;
        let copy = Database::create_file(path, CACHE_BYTES)?;
        whole(&from, |read| back_up(read, &copy, &|| true))
    }

    /// Makes a store of a backup, as a new file, readable by its owner only, whose name is for the caller to sync. It has an id of
    /// its own.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotAStore`] if the file at `backup` is none; otherwise as [`RedbStore::back_up`].
    pub fn restore(backup: &Path, path: &Path) -> Result<Counts> {
        Self::restore_as(draw_id()?, backup, path)
    }

    /// The same under an id that was [drawn](RedbStore::draw_id) for it before.
    pub(crate) fn restore_as(id: StoreId, backup: &Path, path: &Path) -> Result<Counts> {
        let from = open_closed(backup)?;
        let copy = Database::create_file(path, CACHE_BYTES)?;
        whole(&from, |read| restore(read, &copy, id))
    }

    /// A new id.
    pub(crate) fn draw_id() -> Result<StoreId> {
        draw_id()
    }

    /// Which store a file is, or is a backup of, that no process has open; `None` of what is none, as a copy that is not done. The
    /// file stays as it is.
    pub(crate) fn id_of(path: &Path) -> Result<Option<StoreId>> {
        let read = || {
            let db = open_closed(path)?;
            db.intact(|| read_lineage(&db.begin_read()?))
        };
        match read() {
            Err(StoreError::NotAStore) => Ok(None),
            read => read.map(|lineage| Some(lineage.id())),
        }
    }
}

/// The same on media in memory.
#[cfg(any(test, feature = "faults"))]
impl RedbStore {
    pub(in crate::store) fn backed_up(&self) -> Result<Database> {
        let copy = Database::open(Medium::default(), CACHE_BYTES)?;
        self.look(|read| back_up(read, &copy, &|| true))?;
        Ok(copy)
    }

    pub(in crate::store) fn of_backup(backup: &Database, config: StoreConfig, id: StoreId) -> Result<Self> {
        let medium = Medium::default();
        restore(&backup.begin_read()?, &Database::open(medium.clone(), CACHE_BYTES)?, id)?;
        // What it is called is written down in it.
        Self::with_backend(medium, config, StoreId([0; 8]))
    }
}

/// Opens a store or a backup that no process has open, and leaves its file as it is.
pub(super) fn open_closed(path: &Path) -> Result<Database> {
    if fs::metadata(path).map_err(io_error)?.len() == 0 {
        return Err(StoreError::NotAStore);
    }
    Ok(Database::open_unchanged(path, CACHE_BYTES)?)
}

/// Reads a file that was opened as it is. Over a damaged one redb panics, and once more, which ends the process, when it is closed.
fn whole<T>(from: &Database, work: impl FnOnce(&ReadTransaction) -> Result<T>) -> Result<T> {
    let done = from.intact(|| work(&from.begin_read()?));
    if matches!(done, Err(StoreError::Corrupt(_))) {
        from.give_up();
    }
    done
}

/// Copies a store into an empty database, and says that it is a backup.
pub(super) fn back_up(from: &ReadTransaction, to: &Database, goes_on: GoesOn<'_>) -> Result<Counts> {
    let _unfinished = Unfinished(to);
    let lineage = read_lineage(from)?;
    require_known(from)?;
    let copy = Copy { from, to, goes_on };
    copy.what_stays()?;
    copy.table(DEVICES)?;
    copy.table(DEVICE_KEYS)?;
    copy.table(RETURNING)?;
    copy.table(CLOSED)?;
    copy.table(ONE_TIME_KEYS)?;
    copy.finish(&lineage, true)
}

/// Makes the store `id` of a backup, in an empty database. What was handed out, used, or taken back after the backup is
/// known to devices only: each has to register again, which opens its mailbox, and one-time keys are gone, as others may
/// have claimed them. What a relay last heard of a device, the device may have forgotten to be its own.
pub(super) fn restore(from: &ReadTransaction, to: &Database, id: StoreId) -> Result<Counts> {
    let _unfinished = Unfinished(to);
    let lineage = read_lineage(from)?;
    if from.open_table(META)?.get(META_BACKUP)?.is_none() {
        return Err(StoreError::NotAStore);
    }
    require_known(from)?;
    let newest = Position(read_state(from)?.position);
    let copy = Copy { from, to, goes_on: &|| true };
    copy.what_stays()?;
    copy.devices()?;
    copy.table(RETURNING)?;
    copy.returning()?;
    copy.closed()?;
    copy.finish(&lineage.restored(id, newest), false)
}

/// A copy on its way. redb panics over a source that makes no sense, and once more, which ends the process, if the copy is then closed in
/// the middle of a transaction.
struct Unfinished<'c>(&'c Database);

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.give_up();
        }
    }
}

/// The tables of a store.
fn known_tables() -> [&'static str; 30] {
    [
        META.name(),
        ACCOUNTS.name(),
        MAILBOXES.name(),
        SECRETS.name(),
        REVOKED.name(),
        DEVICES.name(),
        DEVICE_KEYS.name(),
        RETURNING.name(),
        CLOSED.name(),
        READERS.name(),
        INVITES.name(),
        ENTRIES.name(),
        QUEUES.name(),
        DEADLINES.name(),
        COLLAPSE.name(),
        ACCEPTED.name(),
        INCARNATIONS.name(),
        DEVICE_TIMERS.name(),
        INCARNATION_TIMERS.name(),
        ONE_TIME_KEYS.name(),
        ADDRESSES.name(),
        SENDERS.name(),
        SESSIONS.name(),
        SESSION_ORDER.name(),
        OBJECTS.name(),
        OBJECT_IDS.name(),
        OBJECT_DEADLINES.name(),
        OBJECT_USAGE.name(),
        OBJECT_RANGES.name(),
        OBJECT_BLOCKS.name(),
    ]
}

/// What [`META`] says.
const KNOWN_FACTS: [&str; 9] = [
    META_FORMAT,
    META_STORE_ID,
    META_STATE,
    META_OBJECTS,
    META_PEAK,
    META_SINCE,
    META_LINEAGE,
    META_SEALED,
    META_BACKUP,
];

/// The first table or fact of a store that this program has not heard of.
pub(super) fn unknown_name(read: &ReadTransaction) -> Result<Option<String>> {
    let tables = known_tables();
    let mut names = read.list_tables()?.map(|table| table.name().to_owned());
    let mut others = read.list_multimap_tables()?.map(|table| table.name().to_owned());
    let unknown = names.find(|name| !tables.contains(&name.as_str())).or_else(|| others.next());
    if let Some(name) = unknown {
        return Ok(Some(format!("the table {name:?}")));
    }
    for row in read.open_table(META)?.iter()? {
        let (name, _) = row?;
        if !KNOWN_FACTS.contains(&name.value()) {
            return Ok(Some(format!("the value {:?}", name.value())));
        }
    }
    Ok(None)
}

/// A copy would lack what is not known, and nobody would notice.
fn require_known(read: &ReadTransaction) -> Result<()> {
    unknown_name(read)?.map_or(Ok(()), |name| Err(StoreError::Unknown(name)))
}

/// What is copied, and where. Each table has commits of its own.
struct Copy<'c> {
    from: &'c ReadTransaction,
    to: &'c Database,
    goes_on: GoesOn<'c>,
}

impl Copy<'_> {
    /// The tables that are the same in a store, a backup of it, and a store that is made of that.
    fn what_stays(&self) -> Result<()> {
        self.table(ACCOUNTS)?;
        self.table(MAILBOXES)?;
        self.table(SECRETS)?;
        self.table(REVOKED)?;
        self.table(READERS)?;
        self.table(INVITES)?;
        self.table(ENTRIES)?;
        self.table(QUEUES)?;
        self.table(DEADLINES)?;
        self.table(COLLAPSE)?;
        self.table(ACCEPTED)?;
        self.table(INCARNATIONS)?;
        self.table(DEVICE_TIMERS)?;
        self.table(INCARNATION_TIMERS)?;
        self.table(ADDRESSES)?;
        self.table(SENDERS)?;
        self.table(OBJECTS)?;
        self.table(OBJECT_IDS)?;
        self.table(OBJECT_DEADLINES)?;
        self.table(OBJECT_USAGE)?;
        self.table(OBJECT_RANGES)?;
        self.table(OBJECT_BLOCKS)
    }

    /// Copies a table as it is, if there is one: a store from before it was thought of has none.
    fn table<K: Key + 'static, V: Value + 'static>(&self, table: TableDefinition<'_, K, V>) -> Result<()> {
        let from = match self.from.open_table(table) {
            Err(TableError::TableDoesNotExist(_)) => return Ok(()),
            opened => opened?,
        };
        let mut rows = from.range::<K::SelfType<'_>>(..)?;
        let mut is_done = false;
        while !is_done {
            let write = self.to.begin_bulk_write()?;
            let mut to = write.open_table(table)?;
            let mut bytes = 0;
            while bytes < COMMIT_BYTES && !is_done {
                let Some(row) = rows.next() else {
                    is_done = true;
                    break;
                };
                let (key, value) = row?;
                bytes +=
                    K::as_bytes(&key.value()).as_ref().len() + V::as_bytes(&value.value()).as_ref().len();
                to.insert(key.value(), value.value())?;
                if !(self.goes_on)() {
                    return Err(StoreError::Io(io::ErrorKind::Interrupted.into()));
                }
            }
            drop(to);
            write.commit()?;
        }
        Ok(())
    }

    /// Devices, without what the relay last heard of them.
    fn devices(&self) -> Result<()> {
        let write = self.to.begin_bulk_write()?;
        let mut to = write.open_table(DEVICES)?;
        for row in self.from.open_table(DEVICES)?.iter()? {
            let (number, row) = row?;
            let device: Device = decode("device", row.value())?;
            to.insert(number.value(), encode(&Device { last: None, ..device })?.as_slice())?;
        }
        drop(to);
        Ok(write.commit()?)
    }

    /// Every device has to come back.
    fn returning(&self) -> Result<()> {
        let write = self.to.begin_bulk_write()?;
        let mut to = write.open_table(RETURNING)?;
        for row in self.from.open_table(DEVICE_KEYS)?.iter()? {
            let (key, number) = row?;
            to.insert(key.value(), number.value())?;
        }
        drop(to);
        Ok(write.commit()?)
    }

    /// No mailbox is open.
    fn closed(&self) -> Result<()> {
        let write = self.to.begin_bulk_write()?;
        let mut to = write.open_table(CLOSED)?;
        for row in self.from.open_table(MAILBOXES)?.iter()? {
            to.insert(row?.0.value(), ())?;
        }
        drop(to);
        Ok(write.commit()?)
    }

    /// Writes what makes it a store or a backup, last of all: without, the file is neither.
    fn finish(&self, lineage: &Lineage, is_backup: bool) -> Result<Counts> {
        let (state, objects) = (read_state(self.from)?, read_object_state(self.from)?);
        let write = self.to.begin_write()?;
        {
            let mut meta = write.open_table(META)?;
            meta.insert(META_FORMAT, FORMAT.to_le_bytes().as_slice())?;
            meta.insert(META_STORE_ID, lineage.id().0.as_slice())?;
            meta.insert(META_STATE, encode(&state)?.as_slice())?;
            // It has no TLS sessions.
            meta.insert(META_SEALED, [].as_slice())?;
            if objects != ObjectState::default() {
                meta.insert(META_OBJECTS, encode(&objects)?.as_slice())?;
            }
            if let Some(since) = read_since(self.from)? {
                meta.insert(META_SINCE, since.to_le_bytes().as_slice())?;
            }
            if !lineage.earlier().is_empty() {
                meta.insert(META_LINEAGE, encode(&lineage.earlier())?.as_slice())?;
            }
            if is_backup {
                meta.insert(META_BACKUP, [].as_slice())?;
            }
        }
        // The tables that stay empty are made, too.
        drop(Transaction::begin(&write, &StoreConfig::default(), RelayTime(0))?);
        write.commit()?;
        // What is copied may be from before there were all tables.
        let copied = self.to.begin_read()?;
        Ok(Counts {
            accounts: copied.open_table(ACCOUNTS)?.len()?,
            devices: copied.open_table(DEVICES)?.len()?,
            entries: copied.open_table(ENTRIES)?.len()?,
            bytes: state.bytes,
            objects: copied.open_table(OBJECTS)?.len()?,
            object_bytes: objects.bytes,
        })
    }
}

#[cfg(test)]
mod tests;
