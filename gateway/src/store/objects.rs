//! Objects, as a store tells of them.

use rangemap::RangeSet;

use super::RelayTime;

/// Names an object within one store; never given to another, so that what is meant for an object that is
/// gone reaches none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectNo(pub u64);

/// What the store knows of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectRecord {
    /// Its number.
    pub number: ObjectNo,
    /// How long the whole is, bytes.
    pub size: u64,
    /// Whether all of it is held, and somebody has compared it with its name.
    pub is_complete: bool,
    /// When it stops being worth keeping. A reader may still see it until the next sweep.
    pub deadline: RelayTime,
    /// Which of its bytes are held.
    pub held: RangeSet<u64>,
}
