//! redb's database, which takes its file for its own.
//!
//! It panics over pages that do not fit together, as after a disk's errors: when it is used, and also when it is let go of, as
//! it then writes once more.

use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};

use redb::Database;

use crate::error::StoreError;

/// Turns a panic of redb's into an error.
pub(super) fn intact<T, E: From<StoreError>>(work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    // What was in the middle of a change is not used again: a transaction ends here, and its failure the client.
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(StoreError::Damaged("its pages do not fit together".to_owned()).into()))
}

/// A database that is open.
#[derive(Debug)]
pub(super) struct Open {
    db: Option<Database>,
    is_damaged: AtomicBool,
}

impl From<Database> for Open {
    fn from(db: Database) -> Self {
        Self { db: Some(db), is_damaged: AtomicBool::new(false) }
    }
}

impl Open {
    /// Works on it as [`intact`] does.
    pub(super) fn intact<T>(&self, work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
        let worked = intact(work);
        if matches!(worked, Err(StoreError::Damaged(_))) {
            self.is_damaged.store(true, Ordering::Relaxed);
        }
        worked
    }
}

impl Deref for Open {
    type Target = Database;

    fn deref(&self) -> &Database {
        self.db.as_ref().expect("only dropping takes it")
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let Some(db) = self.db.take() else { return };
        if self.is_damaged.load(Ordering::Relaxed) {
            // Its file stays locked until the process ends, and is of no use in it either.
            return std::mem::forget(db);
        }
        if catch_unwind(AssertUnwindSafe(|| drop(db))).is_err() {
            tracing::error!("the home's file is damaged: its pages do not fit together");
        }
    }
}
