//! redb's database, with what it takes to rely on it.
//!
//! A transaction commits in two phases: page contents and the new roots are synced before the byte that
//! makes them current is written and synced. With one phase redb tells a torn commit by checksums that
//! are not cryptographic, and peers choose the bytes that are hashed. It also saves the allocator's state
//! ("quick repair"), so that reopening after a kill does not walk the whole file.
//!
//! Each page has a check, so that what a disk has changed is an error. Should redb panic over pages that do not fit together, as it
//! does when it is used and also when it is let go of, since it then writes once more, that is an error as well.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::backends::FileBackend;
use redb::{
    Builder, DatabaseError, ReadTransaction, ReadableDatabase, StorageBackend, StorageError,
    TransactionError, WriteTransaction,
};

use crate::checked::{Checked, FailedRead};
use crate::overlay::Overlay;
use crate::{files, unchecked};

/// A database that is open.
#[derive(Debug)]
pub struct Database {
    /// Only dropping takes it.
    db: Option<redb::Database>,
    is_damaged: AtomicBool,
    failed_read: FailedRead,
}

impl Database {
    /// Opens the database that is on a backend, or makes one on an empty one, with so many bytes of memory for its pages.
    ///
    /// # Errors
    /// redb's, and [`StorageError::Corrupted`] where it panics.
    pub fn open(backend: impl StorageBackend, cache_bytes: usize) -> Result<Self, DatabaseError> {
        let checked = Checked::new(backend).map_err(StorageError::Io)?;
        let failed_read = checked.failed_read();
        let mut db = Self::open_bare(checked, cache_bytes)?;
        db.failed_read = failed_read;
        Ok(db)
    }

    /// Makes a database in a new file that only its owner can read, for this process alone.
    ///
    /// # Errors
    /// As [`Database::open`]; [`AlreadyExists`](std::io::ErrorKind::AlreadyExists) if there is such a file, and the system's.
    pub fn create_file(path: &Path, cache_bytes: usize) -> Result<Self, DatabaseError> {
        let file = files::create_private(path).map_err(StorageError::Io)?;
        Self::open(FileBackend::new(file)?, cache_bytes)
    }

    /// Opens the database in a file, for this process alone, if `recognise` knows what is in it: until then the file is only read.
    /// To one from before pages had checks they are added, which takes a copy of it, and room for one.
    ///
    /// # Errors
    /// As [`Database::open`], what `recognise` says, and the system's.
    pub fn open_file<E: From<DatabaseError>>(
        path: &Path,
        cache_bytes: usize,
        recognise: impl FnOnce(&Self) -> Result<(), E>,
    ) -> Result<Self, E> {
        let io = |error| E::from(StorageError::Io(error).into());
        recognise(&Self::open_unchanged(path, cache_bytes)?)?;
        let mut file = files::open_private(path, false).map_err(io)?;
        if unchecked::is_unchecked(&file).map_err(io)? {
            unchecked::add_checks(&file, path)?;
            file = files::open_private(path, false).map_err(io)?;
        }
        Ok(Self::open(FileBackend::new(file).map_err(E::from)?, cache_bytes)?)
    }

    /// Opens the database in a file, with checks or from before there were any, and leaves the file as it is: whatever is written
    /// stays in memory. Other processes may do the same, and none may write to it.
    ///
    /// # Errors
    /// As [`Database::open`], and the system's.
    pub fn open_unchanged(path: &Path, cache_bytes: usize) -> Result<Self, DatabaseError> {
        let file = files::open_file(path).map_err(StorageError::Io)?;
        let is_unchecked = unchecked::is_unchecked(&file).map_err(StorageError::Io)?;
        let overlay = Overlay::new(file)?;
        if is_unchecked { Self::open_bare(overlay, cache_bytes) } else { Self::open(overlay, cache_bytes) }
    }

    fn open_bare(backend: impl StorageBackend, cache_bytes: usize) -> Result<Self, DatabaseError> {
        let open = || Builder::new().set_cache_size(cache_bytes).create_with_backend(backend);
        let db = Some(intact(open)?);
        Ok(Self { db, is_damaged: AtomicBool::new(false), failed_read: FailedRead::default() })
    }

    /// What the first read that failed has failed with. redb tells that to whoever asked for it, and from then on everybody
    /// [`StorageError::PreviousIo`]. Not known of a file from before pages had checks.
    pub fn failed_read(&self) -> Option<io::Error> {
        self.failed_read.error()
    }

    /// Compares all pages with redb's own checksums, and its map of free pages with what is in use, which it puts right. Whether all
    /// was well.
    ///
    /// # Errors
    /// redb's, and [`StorageError::Corrupted`] where it panics or what it found cannot be put right.
    pub fn check_integrity(&mut self) -> Result<bool, DatabaseError> {
        let db = self.db.as_mut().expect("only dropping takes it");
        intact(|| db.check_integrity())
    }

    /// Begins a transaction that reads what was committed last.
    ///
    /// # Errors
    /// redb's.
    pub fn begin_read(&self) -> Result<ReadTransaction, TransactionError> {
        self.db().begin_read()
    }

    /// Begins a transaction whose commit is on disk when it returns.
    ///
    /// # Errors
    /// redb's.
    pub fn begin_write(&self) -> Result<WriteTransaction, TransactionError> {
        let mut write = self.db().begin_write()?;
        save_allocator(&mut write);
        Ok(write)
    }

    /// The same in a file that another commit finishes, whose beginning is of no use to anybody: the map of free pages, which grows with
    /// the file, is not saved each time.
    ///
    /// # Errors
    /// redb's.
    pub fn begin_bulk_write(&self) -> Result<WriteTransaction, TransactionError> {
        let mut write = self.db().begin_write()?;
        write.set_two_phase_commit(true);
        Ok(write)
    }

    /// Works on the database, and turns a panic of redb's into an error.
    ///
    /// # Errors
    /// Those of the work, and [`StorageError::Corrupted`].
    pub fn intact<T, E: From<StorageError>>(&self, work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        intact(|| Ok(work())).unwrap_or_else(|error: StorageError| {
            self.give_up();
            Err(error.into())
        })
    }

    /// What was read cannot have been written: nothing more is written, not even when this is dropped. The file stays locked until
    /// the process ends, and is of no use in it either.
    pub fn give_up(&self) {
        self.is_damaged.store(true, Ordering::Relaxed);
    }

    fn db(&self) -> &redb::Database {
        self.db.as_ref().expect("only dropping takes it")
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let Some(db) = self.db.take() else { return };
        if self.is_damaged.load(Ordering::Relaxed) {
            return std::mem::forget(db);
        }
        if catch_unwind(AssertUnwindSafe(|| drop(db))).is_err() {
            tracing::error!("the file is damaged: its pages do not fit together");
        }
    }
}

/// Saves the allocator's state with the commit, which is then of two phases, too: redb does not do the one without the other.
fn save_allocator(write: &mut WriteTransaction) {
    write.set_quick_repair(true);
}

/// What was in the middle of a change is not used again: a transaction ends here, and its failure whoever made it.
fn intact<T, E: From<StorageError>>(work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(StorageError::Corrupted("its pages do not fit together".to_owned()).into()))
}

#[cfg(test)]
mod tests;
