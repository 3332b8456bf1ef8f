//! Frames of both directions, and why a connection is closed: what is read is written again as it was.

use thinpost_wire::frame::{Close, Denial, ToDevice, ToRelay};

/// Reads a frame as either end does, and a reason.
///
/// # Panics
/// When what was read is not read again from what it is written as.
pub fn run(bytes: &[u8]) {
    if let Ok(frame) = ToRelay::decode(bytes) {
        assert_eq!(ToRelay::decode(&frame.encode()), Ok(frame));
    }
    if let Ok(frame) = ToDevice::decode(bytes) {
        assert_eq!(ToDevice::decode(&frame.encode()), Ok(frame));
    }
    if let Some(denial) = Denial::from_reason(bytes) {
        assert_eq!(Denial::from_reason(&denial.to_reason()), Some(denial));
    }
    let Some((&code, reason)) = bytes.split_first() else { return };
    if let Some(close) = Close::from_wire(code.into(), reason) {
        assert_eq!(Close::from_wire(close.code().into(), &close.reason()), Some(close));
    }
}
