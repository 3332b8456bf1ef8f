//! Whether a store's file is sound: its pages, its rows, and all that one table says of another.
//!
//! Rows are read as they stand in their tables, and what they refer to is looked up. What has to be added up, or is
//! known from one side only, is kept in memory: some 100 bytes for each mailbox and device.

mod mail;
mod meta;
mod objects;
mod people;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use redb::{Key, ReadOnlyTable, ReadTransaction, TableDefinition, TableHandle, Value};
use thinpost_disk::Database;

use super::copy::open_closed;
use super::objects::ObjectState;
use super::records::{META, META_BACKUP, State};
use super::{RedbStore, add_tables, read_lineage, read_object_state, read_state};
use crate::store::{Counts, StoreConfig, StoreError};

/// Most faults that a report names; the others it counts.
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
    /// What is wrong, a hundred things at most.
    pub faults: Vec<Fault>,
    /// How many more there are.
    pub unnamed: u64,
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
        if self.faults.len() < FAULTS_MAX {
            let (table, key, what) = (table.to_owned(), key.to_string(), what.to_string());
            self.faults.push(Fault { table, key, what });
        } else {
            self.unnamed += 1;
        }
    }
}

impl RedbStore {
    /// Checks a store, or a backup, that no process has open. Its file stays as it is.
    ///
    /// # Errors
    ///
    /// When the file cannot be looked into at all: it is in use, none of ours, or of another format, or the medium fails.
    pub fn check(path: &Path) -> Result<Report, StoreError> {
        let mut report = Report::default();
        // A file that redb finds damaged when it opens it has no tables that could be looked at.
        let Some(mut db) = guarded(&mut report, "file", || open_closed(path))? else { return Ok(report) };
        guarded(&mut report, "meta", || read_lineage(&db.begin_read()?))?;
        if !report.is_sound() {
            return Ok(report);
        }
        database(&mut db, &mut report)?;
        Ok(report)
    }
}

/// Checks an open database.
fn database(db: &mut Database, report: &mut Report) -> Result<(), StoreError> {
    guarded(report, "file", || add_tables(db, &StoreConfig::default()))?;
    if let Some(read) = guarded(report, "file", || Ok(db.begin_read()?))? {
        guarded(report, "meta", || Ok(read.open_table(META)?.get(META_BACKUP)?.is_some()))?
            .into_iter()
            .for_each(|is_backup| report.is_backup = is_backup);
        rows(&read, report)?;
    }
    let sound = guarded(report, "file", || db.check_integrity().map_err(StoreError::from))?;
    if sound == Some(false) {
        report.fault("file", "", "its map of free pages is wrong");
    }
    Ok(())
}

#[cfg(test)]
pub(super) use self::people::KEY_OF_NOBODY;

/// What is wrong with an open database.
#[cfg(test)]
pub(super) fn faults(db: &mut Database) -> Vec<Fault> {
    let mut report = Report::default();
    database(db, &mut report).expect("a medium in memory does not fail");
    report.faults
}

/// Checks the rows of all tables.
fn rows(read: &ReadTransaction, report: &mut Report) -> Result<(), StoreError> {
    let Some(state) = guarded(report, "meta", || read_state(read))? else { return Ok(()) };
    let Some(objects) = guarded(report, "meta", || read_object_state(read))? else { return Ok(()) };
    let mut check = Check { read, report, state, objects };
    for section in [Check::meta, Check::people, Check::mail, Check::objects] {
        // A table that is missing keeps a section from being looked at.
        let mut missing = Report::default();
        guarded(&mut missing, "file", || section(&mut check))?;
        check.report.faults.append(&mut missing.faults);
    }
    Ok(())
}

/// Does what may meet damage. Damage is a fault, and `None`; what the medium does is an error.
///
/// redb checks the sums of its pages only when it is asked to, and may panic over one that makes no sense.
fn guarded<T>(
    report: &mut Report,
    table: &str,
    act: impl FnOnce() -> Result<T, StoreError>,
) -> Result<Option<T>, StoreError> {
    match catch_unwind(AssertUnwindSafe(act)) {
        Ok(Ok(done)) => Ok(Some(done)),
        Ok(Err(error)) => found(report, table, error).map(|()| None),
        Err(_) => {
            report.fault(table, "", "it makes no sense to redb");
            Ok(None)
        }
    }
}

/// Notes an error that is damage.
fn found(report: &mut Report, table: &str, error: StoreError) -> Result<(), StoreError> {
    match error {
        StoreError::Corrupt(what) => report.fault(table, "", what),
        // The handle is spent after the first damage that redb met.
        StoreError::Failed => report.fault(table, "", "it cannot be read any further"),
        error => return Err(error),
    }
    Ok(())
}

/// A check on its way.
struct Check<'c> {
    read: &'c ReadTransaction,
    report: &'c mut Report,
    state: State,
    objects: ObjectState,
}

impl Check<'_> {
    /// Looks at each row of a table, unless it cannot be read; then that is a fault.
    fn each<K: Key + 'static, V: Value + 'static>(
        &mut self,
        table: TableDefinition<'_, K, V>,
        mut look: impl FnMut(&mut Report, K::SelfType<'_>, V::SelfType<'_>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut walked = Report::default();
        let report = &mut *self.report;
        let walk = || -> Result<(), StoreError> {
            for row in self.read.open_table(table)?.range::<K::SelfType<'_>>(..)? {
                let (key, value) = row?;
                look(report, key.value(), value.value())?;
            }
            Ok(())
        };
        guarded(&mut walked, table.name(), walk)?;
        self.report.faults.append(&mut walked.faults);
        Ok(())
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
