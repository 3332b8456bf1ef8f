//! The records of a relay's store. The disk is not a stranger, but what is on it was written by one, and by other versions.

use thinpost_gateway::fuzzing;

/// The first byte says which record the rest is.
///
/// # Panics
/// When what was read is not read again from what it is written as.
pub fn run(bytes: &[u8]) {
    let Some((&kind, record)) = bytes.split_first() else { return };
    fuzzing::read(kind % fuzzing::RECORDS, record);
}
