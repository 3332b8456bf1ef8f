//! Batches: what is read is written again as something that reads as the same, and never longer.

use thinpost_wire::batch;

/// Reads a batch.
///
/// # Panics
/// When it is not written as it was read.
pub fn run(bytes: &[u8]) {
    let Ok(batch) = batch::decode(bytes) else { return };
    let mut again = Vec::new();
    batch.encode(&mut again);
    assert!(again.len() <= bytes.len());
    assert_eq!(batch::decode(&again), Ok(batch));
}
