//! The rows of a home's file, and its key file.

use std::sync::LazyLock;

use thinpost_client::fuzzing::{HOME_RECORDS, HomeRows};

static ROWS: LazyLock<HomeRows> = LazyLock::new(HomeRows::new);

/// The first byte says which record the rest is.
///
/// # Panics
/// When what was read is not read again from what it is written as.
pub fn run(bytes: &[u8]) {
    let Some((&kind, record)) = bytes.split_first() else { return };
    ROWS.read(kind % HOME_RECORDS, record);
}
