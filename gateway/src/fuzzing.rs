//! What the fuzzer drives, which no operator should: the records of a store.

pub use crate::store::redb::fuzzing::{ENTRY, RECORDS, read, samples};
