//! Objects beside the items of a link: chunks at offsets, in no order, and statements of what is held.

mod inbound;
mod outbound;

use std::ops::Range;

use rangemap::RangeSet;

pub(super) use self::inbound::ObjectsInbound;
pub(super) use self::outbound::{Flight, ObjectsOutbound};
use crate::batch::{Ack, Transfer};

/// What one range of a set takes with its share of the tree, bytes.
const RANGE_BYTES: usize = 48;

/// Bytes of an object that its sender is to hand to the link, with [`Link::supply`](super::Link::supply).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Want {
    /// Of which.
    pub transfer: Transfer,
    /// Which of its bytes, counted from 0.
    pub bytes: Range<u64>,
}

/// How a batch states bytes: counted from 1, the lowest ranges if there are more than so many above the watermark.
fn to_ack(held: &RangeSet<u64>, ranges_max: usize) -> Ack {
    let mut ack = Ack::default();
    for range in held.iter() {
        if range.start == 0 {
            ack.watermark = range.end;
        } else if ack.received.len() < ranges_max {
            ack.received.push((range.start + 1, range.end));
        } else {
            // There may be thousands, and a poll costs nothing.
            break;
        }
    }
    ack
}

fn from_ack(ack: &Ack) -> impl Iterator<Item = Range<u64>> {
    let first = (ack.watermark > 0).then_some(0..ack.watermark);
    first.into_iter().chain(ack.received.iter().map(|&(first, last)| first - 1..last))
}

/// How many bytes these are.
fn bytes_of(set: &RangeSet<u64>) -> u64 {
    set.iter().map(|range| range.end - range.start).sum()
}

/// How many bytes are in the set and in the range.
fn bytes_of_both(set: &RangeSet<u64>, range: &Range<u64>) -> u64 {
    set.overlapping(range).map(|part| part.end.min(range.end) - part.start.max(range.start)).sum()
}

/// Whether the set has all of the range, which is not empty.
fn has_all(set: &RangeSet<u64>, range: &Range<u64>) -> bool {
    set.get(&range.start).is_some_and(|has| has.end >= range.end)
}
