//! Whether a store's file is sound: its pages, its rows, and all that one table says of another.
//!
//! Rows are read as they stand in their tables, and what they refer to is looked up. What has to be added up, or is
//! known from one side only, is kept in memory: some 100 bytes for each mailbox and device.

mod kept;
mod mail;
mod meta;
mod objects;
mod people;

use std::collections::HashMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use redb::{Key, ReadOnlyTable, ReadTransaction, TableDefinition, TableHandle, Value};
use thinpost_disk::Database;

use self::mail::Rows;
use self::people::Devices;
use super::copy::open_closed;
use super::objects::ObjectState;
use super::records::{META, META_BACKUP, State};
use super::{RedbStore, add_tables, read_lineage, read_object_state, read_state};
use crate::store::{Counts, MailboxUsage, StoreConfig, StoreError};

/// Most faults that a report names, and most remarks; the others it counts.
const FAULTS_MAX: usize = 100;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The table, or "file" for what is no table's.
    pub table: String,
    /// The row's key; empty for what is no row's.
    pub key: String,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gap = if self.key.is_empty() { "" } else { " " };
        write!(f, "{}{gap}{}: {}", self.table, self.key, self.what)
    }
}

/// What a check has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What is wrong, a hundred things at most: a relay on it would stop, or lose, repeat or refuse what it should not.
    pub faults: Vec<Fault>,
    /// How many more there are.
    pub unnamed: u64,
    /// What no relay writes, and one can run on, a hundred things at most: something is kept too long, or not as long as it should be.
    pub remarks: Vec<Fault>,
    /// How many more there are.
    pub remarks_unnamed: u64,
    /// What was looked at, as it was found and not as it is counted.
    pub counts: Counts,
    /// Whether the file is a backup.
    pub is_backup: bool,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.faults.is_empty()
    }

    fn fault(&mut self, table: &str, key: impl fmt::Display, what: impl fmt::Display) {
        note(&mut self.faults, &mut self.unnamed, table, &key, &what);
    }

    fn remark(&mut self, table: &str, key: impl fmt::Display, what: impl fmt::Display) {
        note(&mut self.remarks, &mut self.remarks_unnamed, table, &key, &what);
    }

    /// How many faults there are.
    fn faults(&self) -> u64 {
        self.faults.len() as u64 + self.unnamed
    }

    /// Notes why nothing more of this could be read.
    fn unread(&mut self, table: &str, error: StoreError) {
        let what = match error {
            StoreError::Corrupt(what) => what,
            StoreError::Io(error) => format!("it cannot be read: {error}"),
            error => error.to_string(),
        };
        // The same page may keep several sections from reading on.
        if !self.faults.iter().any(|fault| fault.table == table && fault.what == what) {
            self.fault(table, "", what);
        }
    }
}

fn note(
    named: &mut Vec<Fault>,
    unnamed: &mut u64,
    table: &str,
    key: &dyn fmt::Display,
    what: &dyn fmt::Display,
) {
    if named.len() < FAULTS_MAX {
        named.push(Fault { table: table.to_owned(), key: key.to_string(), what: what.to_string() });
    } else {
        *unnamed += 1;
    }
}

impl RedbStore {
    /// Checks a store, or a backup, that no process has open. Its file stays as it is.
    ///
    /// # Errors
    ///
    /// When the file cannot be looked into at all: it is in use, none of ours, or of another format, or cannot be opened. What
    /// cannot be read of it is a fault.
    pub fn check(path: &Path) -> Result<Report, StoreError> {
        let mut report = Report::default();
        let mut db = match intact(|| open_closed(path)) {
            // A file that redb finds damaged when it opens it has no tables that could be looked at.
            Err(error @ StoreError::Corrupt(_)) => {
                report.unread("file", error);
                return Ok(report);
            }
            opened => opened?,
        };
        match intact(|| read_lineage(&db.begin_read()?)) {
            Err(error @ (StoreError::Corrupt(_) | StoreError::Io(_))) => {
                report.unread(META.name(), error);
                return Ok(report);
            }
            read => drop(read?),
        }
        database(&mut Handle { db: &mut db, path: Some(path) }, &mut report);
        Ok(report)
    }
}

/// What is read through. redb reads nothing more through a database that has met damage, or a medium that fails.
struct Handle<'h> {
    db: &'h mut Database,
    /// Where there is another to be had; nowhere for one in memory.
    path: Option<&'h Path>,
}

impl Handle<'_> {
    /// Opens the file anew.
    fn renew(&mut self) -> Result<(), StoreError> {
        let Some(path) = self.path else { return Ok(()) };
        *self.db = open_closed(path)?;
        add_tables(self.db, &StoreConfig::default())
    }
}

/// Looks at some tables, or at all of a file. Each ends at the first damage that keeps it from reading on.
type Section = fn(&mut Check<'_>) -> Result<(), StoreError>;

/// All of them; what one finds out others need.
const SECTIONS: &[Section] = &[
    |check| check.meta(),
    |check| check.accounts(),
    |check| check.secrets(),
    |check| check.revoked(),
    |check| check.closed(),
    |check| check.invites(),
    |check| check.device_keys(),
    |check| check.device_timers(),
    |check| check.devices(),
    |check| check.readers(),
    |check| check.incarnations(),
    |check| check.incarnation_timers(),
    |check| check.accepted(),
    |check| check.one_time_keys(),
    |check| check.addresses(),
    |check| check.senders(),
    |check| check.sessions(),
    |check| check.entries(),
    |check| check.queues(),
    |check| check.deadlines(),
    |check| check.collapse(),
    |check| check.mailboxes(),
    |check| check.objects(),
    |check| check.object_ids(),
    |check| check.object_deadlines(),
    |check| check.object_ranges(),
    |check| check.object_blocks(),
    |check| check.object_usage(),
];

/// Checks an open database.
fn database(handle: &mut Handle<'_>, report: &mut Report) {
    let begun = intact(|| {
        add_tables(handle.db, &StoreConfig::default())?;
        let read = handle.db.begin_read()?;
        report.is_backup = read.open_table(META)?.get(META_BACKUP)?.is_some();
        Ok((read_state(&read)?, read_object_state(&read)?))
    });
    match begun {
        Ok((state, objects)) => rows(handle, report, state, objects),
        Err(error) => {
            report.unread(META.name(), error);
            if let Err(error) = intact(|| handle.renew()) {
                return report.unread("file", error);
            }
        }
    }
    match intact(|| handle.db.check_integrity().map_err(StoreError::from)) {
        Ok(true) => {}
        Ok(false) => report.fault("file", "", "its map of free pages is wrong"),
        Err(error) => report.unread("file", error),
    }
}

#[cfg(test)]
pub(super) use self::{kept::KEY_OF_NOBODY, people::OPENING_OF_NOBODY};

/// What is found in an open database.
#[cfg(test)]
pub(super) fn found(db: &mut Database) -> Report {
    let mut report = Report::default();
    database(&mut Handle { db, path: None }, &mut report);
    report
}

/// Checks the rows of all tables.
fn rows(handle: &mut Handle<'_>, report: &mut Report, state: State, objects: ObjectState) {
    let mut known = Known { state, objects, ..Known::default() };
    for section in SECTIONS {
        let before = report.faults();
        let looked = intact(|| {
            let read = &handle.db.begin_read()?;
            section(&mut Check { read, report, known: &mut known })
        });
        let Err(error) = looked else { continue };
        if report.faults() == before || !matches!(error, StoreError::Failed) {
            report.unread("file", error);
        }
        if let Err(error) = intact(|| handle.renew()) {
            return report.unread("file", error);
        }
    }
}

/// Does what may meet damage. redb may panic over a page that makes no sense.
fn intact<T>(act: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    let panicked = |_| Err(StoreError::Corrupt("it makes no sense to redb".to_owned()));
    catch_unwind(AssertUnwindSafe(act)).unwrap_or_else(panicked)
}

/// What sections have found out. What could not be read to its end is nothing to compare others with.
#[derive(Default)]
struct Known {
    state: State,
    objects: ObjectState,
    devices: Option<Devices>,
    /// What the entries make of each mailbox, and how many rows of other tables they have.
    entries: Option<(HashMap<u32, MailboxUsage>, Rows)>,
    /// What the objects make of each mailbox: how many, and their bytes.
    objects_of: Option<HashMap<u32, (u32, u64)>>,
}

/// A check on its way.
struct Check<'c> {
    read: &'c ReadTransaction,
    report: &'c mut Report,
    known: &'c mut Known,
}

impl Check<'_> {
    /// Looks at each row of a table.
    ///
    /// # Errors
    /// [`StoreError::Failed`] when it cannot be read to its end, of which the report then says why.
    fn each<K: Key + 'static, V: Value + 'static>(
        &mut self,
        table: TableDefinition<'_, K, V>,
        mut look: impl FnMut(&mut Report, K::SelfType<'_>, V::SelfType<'_>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let report = &mut *self.report;
        let walked = intact(|| {
            for row in self.read.open_table(table)?.range::<K::SelfType<'_>>(..)? {
                let (key, value) = row?;
                look(report, key.value(), value.value())?;
            }
            Ok(())
        });
        walked.map_err(|error| {
            self.report.unread(table.name(), error);
            StoreError::Failed
        })
    }

    fn open<K: Key + 'static, V: Value + 'static>(
        &self,
        table: TableDefinition<'_, K, V>,
    ) -> Result<ReadOnlyTable<K, V>, StoreError> {
        Ok(self.read.open_table(table)?)
    }
}

#[cfg(test)]
mod tests;
