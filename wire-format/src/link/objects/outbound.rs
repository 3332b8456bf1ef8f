//! The sending half: which bytes of which object leave next, and which again.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use bytes::Bytes;
use rangemap::RangeSet;

use super::{RANGE_BYTES, Want, bytes_of, from_ack, has_all};
use crate::batch::{Ack, Transfer, chunk_head_bytes};
use crate::link::outbound::Newly;
use crate::link::{LinkError, Time};

/// More bytes are asked for when fewer than these wait to leave: some seconds' worth where it matters, and less than one
/// read from a disk elsewhere.
const SUPPLY_LOW: u64 = 16 * 1024;

/// How many bytes are asked for at a time.
const SUPPLY_BYTES: u64 = 32 * 1024;

/// Most pieces, with gaps between them, in which another end is known to hold an object. What lies apart from them is not
/// noted, and leaves again when its turn comes: no loss leaves so many gaps in what one window holds.
const HELD_RANGES_MAX: usize = 1_024;

#[derive(Debug, Default)]
pub(in crate::link) struct ObjectsOutbound {
    objects: BTreeMap<Transfer, Outgoing>,
    flying_bytes: u64,
}

#[derive(Debug)]
struct Outgoing {
    size: u64,
    /// What the other end holds.
    held: RangeSet<u64>,
    /// What it does not hold, and was not handed over.
    missing: RangeSet<u64>,
    /// Bytes that were handed over and are not all held, by offset. No two overlap.
    pieces: BTreeMap<u64, Bytes>,
    /// Bytes of these that are to leave, for the first time or again.
    waiting: RangeSet<u64>,
    /// Bytes that have left once.
    sent: RangeSet<u64>,
    /// In the order in which they left, and whether each did for the first time.
    flying: VecDeque<(Flight, bool)>,
    /// Whether the shell has been told of all that is held.
    is_told: bool,
}

/// A chunk on its way.
#[derive(Debug)]
pub(in crate::link) struct Flight {
    pub(in crate::link) datagram: u64,
    pub(in crate::link) at: Time,
    /// Which bytes of its object.
    pub(in crate::link) bytes: Range<u64>,
    /// Its datagram's length.
    pub(in crate::link) wire_bytes: u64,
    /// What the link had sent with it, in all.
    pub(in crate::link) sent_bytes: u64,
}

impl ObjectsOutbound {
    /// Begins, or begins anew: nothing of before is on its way any more.
    pub(in crate::link) fn start(&mut self, transfer: Transfer, size: u64, held: RangeSet<u64>) {
        self.stop(transfer);
        let outgoing = Outgoing {
            size,
            missing: held.gaps(&(0..size)).collect(),
            held,
            pieces: BTreeMap::new(),
            waiting: RangeSet::new(),
            sent: RangeSet::new(),
            flying: VecDeque::new(),
            is_told: true,
        };
        self.objects.insert(transfer, outgoing);
    }

    /// Whether it was known.
    pub(in crate::link) fn stop(&mut self, transfer: Transfer) -> bool {
        let outgoing = self.objects.remove(&transfer);
        let flying = outgoing.iter().flat_map(|outgoing| &outgoing.flying);
        self.flying_bytes -= flying.map(|(flight, _)| flight.wire_bytes).sum::<u64>();
        outgoing.is_some()
    }

    /// The next bytes to be handed over, if few of an object are left to send. Objects leave one after the other, so those
    /// of a later one are not needed before.
    pub(in crate::link) fn want(&self) -> Option<Want> {
        let first = self
            .objects
            .iter()
            .find(|(_, outgoing)| outgoing.want().is_some() || !outgoing.waiting.is_empty());
        let (&transfer, outgoing) = first?;
        Some(Want { transfer, bytes: outgoing.want()? })
    }

    pub(in crate::link) fn supply(&mut self, transfer: Transfer, offset: u64, bytes: Bytes) {
        let Some(outgoing) = self.objects.get_mut(&transfer) else { return };
        let end = outgoing.size.min(offset.saturating_add(bytes.len() as u64));
        if offset >= end {
            return;
        }
        let common = |missing: &Range<u64>| missing.start.max(offset)..missing.end.min(end);
        let missing: Vec<_> = outgoing.missing.overlapping(&(offset..end)).map(common).collect();
        for range in missing {
            let piece = bytes.slice((range.start - offset) as usize..(range.end - offset) as usize);
            outgoing.pieces.insert(range.start, piece);
            outgoing.missing.remove(range.clone());
            outgoing.waiting.insert(range);
        }
    }

    /// Whether the statement speaks of what was sent, before anything changes. What was held before this link is known to
    /// the other end only.
    pub(in crate::link) fn check(&self, transfer: Transfer, bytes: &Ack) -> Result<(), LinkError> {
        let size = self.objects.get(&transfer).map_or(u64::MAX, |outgoing| outgoing.size);
        let highest = from_ack(bytes).map(|range| range.end).max().unwrap_or(0);
        if highest > size { Err(LinkError::HeldBeyondEnd(transfer)) } else { Ok(()) }
    }

    /// The other end states what it holds.
    pub(in crate::link) fn handle_held(&mut self, transfer: Transfer, bytes: &Ack, newly: &mut Newly) {
        let Some(outgoing) = self.objects.get_mut(&transfer) else { return };
        for range in from_ack(bytes) {
            let beside = range.start.saturating_sub(1)..range.end + 1;
            let is_apart = outgoing.held.len() >= HELD_RANGES_MAX && !outgoing.held.overlaps(&beside);
            if is_apart || has_all(&outgoing.held, &range) {
                continue;
            }
            newly.any = true;
            outgoing.is_told = false;
            outgoing.waiting.remove(range.clone());
            outgoing.missing.remove(range.clone());
            outgoing.held.insert(range);
        }
        let held = &outgoing.held;
        outgoing.pieces.retain(|&start, piece| !has_all(held, &(start..start + piece.len() as u64)));
        outgoing.flying.retain(|(flight, is_first)| {
            let has_arrived = has_all(held, &flight.bytes);
            if has_arrived {
                self.flying_bytes -= flight.wire_bytes;
                newly.chunk(flight, *is_first);
            }
            !has_arrived
        });
    }

    /// How many bytes of an object the other end holds, if that is news.
    pub(in crate::link) fn poll_progress(&mut self) -> Option<(Transfer, u64)> {
        let (&transfer, outgoing) = self.objects.iter_mut().find(|(_, outgoing)| !outgoing.is_told)?;
        outgoing.is_told = true;
        Some((transfer, bytes_of(&outgoing.held)))
    }

    /// Whether there was any.
    pub(in crate::link) fn lose(&mut self, is_lost: impl Fn(u64, Time) -> bool) -> bool {
        let mut any = false;
        for outgoing in self.objects.values_mut() {
            let Outgoing { flying, waiting, held, .. } = outgoing;
            flying.retain(|(flight, _)| {
                let is_lost = is_lost(flight.datagram, flight.at);
                if is_lost {
                    any = true;
                    self.flying_bytes -= flight.wire_bytes;
                    waiting.insert(flight.bytes.clone());
                }
                !is_lost
            });
            if any {
                for range in held.overlapping(0..u64::MAX) {
                    waiting.remove(range.clone());
                }
            }
        }
        any
    }

    /// The datagram and the time of each chunk on its way.
    pub(in crate::link) fn flying(&self) -> impl Iterator<Item = (u64, Time)> {
        let flights = self.objects.values().flat_map(|outgoing| &outgoing.flying);
        flights.map(|(flight, _)| (flight.datagram, flight.at))
    }

    pub(in crate::link) fn flying_bytes(&self) -> u64 {
        self.flying_bytes
    }

    /// What it holds of objects, bytes.
    pub(in crate::link) fn holds_bytes(&self) -> usize {
        self.objects.values().map(Outgoing::holds_bytes).sum()
    }

    /// Whether there is a chunk to be sent.
    pub(in crate::link) fn waits(&self) -> bool {
        self.objects.values().any(|outgoing| !outgoing.waiting.is_empty())
    }

    /// The next chunk that takes at most so many bytes with its head. Short ones leave only at an object's end, or where
    /// what follows is held.
    pub(in crate::link) fn next_chunk(&self, bytes_max: usize) -> Option<(Transfer, Range<u64>)> {
        self.objects
            .iter()
            .find_map(|(&transfer, outgoing)| Some((transfer, outgoing.next_chunk(transfer, bytes_max)?)))
    }

    /// The bytes of a chunk that [`Self::next_chunk`] has named.
    pub(in crate::link) fn read(&self, transfer: Transfer, range: &Range<u64>) -> Vec<u8> {
        let mut bytes = Vec::with_capacity((range.end - range.start) as usize);
        let Some(outgoing) = self.objects.get(&transfer) else { return bytes };
        let first =
            outgoing.pieces.range(..=range.start).next_back().map_or(range.start, |(&start, _)| start);
        for (&start, piece) in outgoing.pieces.range(first..range.end) {
            let from = range.start.saturating_sub(start) as usize;
            let to = piece.len().min((range.end - start) as usize);
            bytes.extend_from_slice(&piece[from.min(to)..to]);
        }
        bytes
    }

    /// The chunk has left.
    pub(in crate::link) fn left(&mut self, transfer: Transfer, flight: Flight) {
        let Some(outgoing) = self.objects.get_mut(&transfer) else { return };
        let is_first = !outgoing.sent.overlaps(&flight.bytes);
        outgoing.waiting.remove(flight.bytes.clone());
        outgoing.sent.insert(flight.bytes.clone());
        self.flying_bytes += flight.wire_bytes;
        outgoing.flying.push_back((flight, is_first));
    }

    /// Takes the chunk that left first for lost, if any is on its way.
    pub(in crate::link) fn repeat_oldest(&mut self) {
        let oldest = self.flying().map(|(datagram, _)| datagram).min();
        self.lose(|datagram, _| Some(datagram) == oldest);
    }

    /// Whether all that was handed over is held, and nothing else is to be.
    pub(in crate::link) fn is_at_rest(&self) -> bool {
        self.objects.values().all(|outgoing| has_all(&outgoing.held, &(0..outgoing.size)) && outgoing.is_told)
    }
}

impl Outgoing {
    fn holds_bytes(&self) -> usize {
        let pieces: usize = self.pieces.values().map(Bytes::len).sum();
        let ranges = self.held.len() + self.missing.len() + self.waiting.len() + self.sent.len();
        pieces + ranges * RANGE_BYTES + self.flying.len() * size_of::<(Flight, bool)>()
    }

    fn want(&self) -> Option<Range<u64>> {
        if bytes_of(&self.waiting) >= SUPPLY_LOW {
            return None;
        }
        let first = self.missing.first()?;
        Some(first.start..first.end.min(first.start + SUPPLY_BYTES))
    }

    fn next_chunk(&self, transfer: Transfer, bytes_max: usize) -> Option<Range<u64>> {
        let range = self.waiting.first()?;
        let head = chunk_head_bytes(transfer, range.start);
        let room = bytes_max.checked_sub(head).filter(|room| *room > 0)? as u64;
        let end = range.end.min(range.start + room);
        // The rest of it is to be handed over.
        let goes_on = end == range.end && self.missing.contains(&end);
        let is_short = end - range.start < room;
        (!(is_short && goes_on)).then_some(range.start..end)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OBJECT: Transfer = Transfer(1);

    #[test]
    fn what_is_said_to_be_held_in_too_many_pieces_is_noted_where_it_adds_to_them() {
        let mut outbound = ObjectsOutbound::default();
        outbound.start(OBJECT, 1 << 20, RangeSet::new());
        let mut held = |bytes: Range<u64>| {
            let ack = Ack { watermark: 0, received: vec![(bytes.start + 1, bytes.end)] };
            outbound.handle_held(OBJECT, &ack, &mut Newly::default());
            let held = &outbound.objects[&OBJECT].held;
            (held.len(), bytes_of(held))
        };
        for piece in 1..=HELD_RANGES_MAX as u64 {
            held(piece * 10..piece * 10 + 1);
        }
        let full = (HELD_RANGES_MAX, HELD_RANGES_MAX as u64);
        assert_eq!(held(500_000..500_001), full, "one more, apart from all");
        assert_eq!(held(11..20), (full.0 - 1, full.1 + 9), "between two");
        assert_eq!(held(500_000..500_001), (full.0, full.1 + 10));
    }

    #[test]
    fn an_object_that_begins_anew_leaves_nothing_of_before_on_its_way() {
        let mut outbound = ObjectsOutbound::default();
        for held in [RangeSet::new(), std::iter::once(0..1_000).collect()] {
            outbound.start(OBJECT, 20_000, held);
            outbound.supply(OBJECT, 0, vec![7; 20_000].into());
            for datagram in 1..=5 {
                let (transfer, bytes) = outbound.next_chunk(1_160).unwrap();
                let flight =
                    Flight { datagram, at: Time::default(), bytes, wire_bytes: 1_160, sent_bytes: 0 };
                outbound.left(transfer, flight);
            }
            assert_eq!(outbound.flying_bytes(), 5 * 1_160);
        }
        outbound.stop(OBJECT);
        assert_eq!(outbound.flying_bytes(), 0);
    }

    proptest! {
        #[test]
        fn what_is_missing_is_what_is_neither_held_nor_was_handed_over(
            size in 0_u64..400,
            before in 0_u64..200,
            steps in prop::collection::vec((any::<bool>(), 0_u64..420, 1_u64..90), 0..60),
        ) {
            let mut outbound = ObjectsOutbound::default();
            let held = (before.min(size) > 0).then_some(0..before.min(size));
            outbound.start(OBJECT, size, held.into_iter().collect());
            for (is_supply, from, len) in steps {
                let to = (from + len).min(size);
                if is_supply {
                    outbound.supply(OBJECT, from, vec![7; len as usize].into());
                } else if from < to {
                    let ack = Ack { watermark: 0, received: vec![(from + 1, to)] };
                    outbound.handle_held(OBJECT, &ack, &mut Newly::default());
                }
                let Outgoing { missing, pieces, held, waiting, .. } = &outbound.objects[&OBJECT];
                let mut has = held.clone();
                has.extend(pieces.iter().map(|(&at, piece)| at..at + piece.len() as u64));
                prop_assert_eq!(missing, &has.gaps(&(0..size)).collect::<RangeSet<u64>>());
                prop_assert!(waiting.iter().all(|range| !held.overlaps(range)));
            }
        }
    }
}
