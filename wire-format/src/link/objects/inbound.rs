//! The receiving half: passes chunks on to be written down, and states what is.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use bytes::Bytes;
use rangemap::RangeSet;

use super::{RANGE_BYTES, bytes_of, bytes_of_both, has_all, to_ack};
use crate::batch::{Chunk, Held, Transfer};
use crate::limits::{ACK_RANGES_MAX, HOLD_BYTES_MAX, TRANSFERS_MAX};
use crate::link::{BESIDE_BYTES, LinkError, NEXT_BYTES};

/// Chunks of a transfer that is not known yet are kept up to so many bytes: the frame that opens it may be late, or have
/// to come again.
const EARLY_BYTES_MAX: usize = 32 * 1024;

/// Most of these chunks, and most that the shell has and does not hold yet: each costs more than its bytes. Senders cut
/// none below 400 bytes but an object's last.
const EARLY_MAX: usize = 64;
const ARRIVED_MAX: usize = 1_024;

#[derive(Debug, Default)]
pub(in crate::link) struct ObjectsInbound {
    objects: BTreeMap<Transfer, Incoming>,
    /// The newest transfer that was ever known, or ended before it was: chunks of others up to it come too late.
    newest: Option<Transfer>,
    early: Vec<(Transfer, u64, Bytes)>,
    /// Chunks for the shell.
    chunks: VecDeque<(Transfer, u64, Bytes)>,
    /// How many bytes the shell has, or is to be given, and does not hold yet, and how many chunks.
    arrived_bytes: u64,
    arrived: usize,
    /// How many bytes came that had come before.
    repeated_bytes: u64,
}

#[derive(Debug)]
struct Incoming {
    size: u64,
    held: RangeSet<u64>,
    /// What the shell has, or is to be given, and does not hold yet, and how many chunks that were.
    arrived: RangeSet<u64>,
    chunks: usize,
    /// Whether a statement is due.
    is_news: bool,
}

impl ObjectsInbound {
    pub(in crate::link) fn start(
        &mut self,
        transfer: Transfer,
        size: u64,
        held: RangeSet<u64>,
    ) -> Result<(), LinkError> {
        self.newest = self.newest.max(Some(transfer));
        let incoming = Incoming { size, held, arrived: RangeSet::new(), chunks: 0, is_news: true };
        self.objects.insert(transfer, incoming);
        let early = self.early.extract_if(.., |(of, ..)| *of == transfer).collect::<Vec<_>>();
        for (_, offset, bytes) in early {
            // The room that it had taken is its own.
            self.handle(&Chunk { transfer, offset, bytes: &bytes }, usize::MAX)?;
        }
        Ok(())
    }

    pub(in crate::link) fn stop(&mut self, transfer: Transfer) {
        if let Some(incoming) = self.objects.remove(&transfer) {
            self.arrived_bytes -= bytes_of(&incoming.arrived);
            self.arrived -= incoming.chunks;
        }
        self.chunks.retain(|(of, ..)| *of != transfer);
        self.early.retain(|(of, ..)| *of != transfer);
        self.newest = self.newest.max(Some(transfer));
    }

    pub(in crate::link) fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether the chunk keeps the rules, before anything changes.
    pub(in crate::link) fn check(&self, chunk: &Chunk<'_>) -> Result<(), LinkError> {
        let size = self.objects.get(&chunk.transfer).map_or(u64::MAX, |incoming| incoming.size);
        let end = chunk.offset + chunk.bytes.len() as u64;
        if end > size { Err(LinkError::ChunkBeyondEnd(chunk.transfer)) } else { Ok(()) }
    }

    /// How much room it takes to take in the chunk, if that is new, bytes.
    pub(in crate::link) fn needs_bytes(&self, chunk: &Chunk<'_>) -> usize {
        let range = chunk.offset..chunk.offset + chunk.bytes.len() as u64;
        let is_new = match self.objects.get(&chunk.transfer) {
            Some(incoming) => !has_all(&incoming.held, &range) && !has_all(&incoming.arrived, &range),
            None => Some(chunk.transfer) > self.newest,
        };
        if is_new { chunk.bytes.len() + BESIDE_BYTES + NEXT_BYTES } else { 0 }
    }

    /// Takes in a chunk, if there is `room` for it. Returns whether a statement is due at once, as it was held already.
    pub(in crate::link) fn handle(&mut self, chunk: &Chunk<'_>, room: usize) -> Result<bool, LinkError> {
        self.check(chunk)?;
        let Chunk { transfer, offset, bytes } = *chunk;
        // The frame that opens the transfer may be the next item, and what is early would stay without it.
        let has_room = bytes.len() + BESIDE_BYTES + NEXT_BYTES <= room;
        let Some(incoming) = self.objects.get_mut(&transfer) else {
            let early_bytes: usize = self.early.iter().map(|(_, _, bytes)| bytes.len()).sum();
            let may_wait = self.early.len() < EARLY_MAX && early_bytes + bytes.len() <= EARLY_BYTES_MAX;
            if Some(transfer) > self.newest && may_wait && has_room {
                self.early.push((transfer, offset, Bytes::copy_from_slice(bytes)));
            }
            return Ok(false);
        };
        let range = offset..offset + bytes.len() as u64;
        self.repeated_bytes +=
            bytes_of_both(&incoming.held, &range) + bytes_of_both(&incoming.arrived, &range);
        if has_all(&incoming.held, &range) {
            incoming.is_news = true;
            return Ok(true);
        }
        let is_known = has_all(&incoming.arrived, &range);
        let may_take =
            self.arrived < ARRIVED_MAX && self.arrived_bytes + bytes.len() as u64 <= HOLD_BYTES_MAX as u64;
        if !is_known && may_take && has_room {
            let before = bytes_of(&incoming.arrived);
            incoming.arrived.insert(range);
            self.arrived_bytes += bytes_of(&incoming.arrived) - before;
            incoming.chunks += 1;
            self.arrived += 1;
            self.chunks.push_back((transfer, offset, Bytes::copy_from_slice(bytes)));
        }
        Ok(false)
    }

    pub(in crate::link) fn repeated_bytes(&self) -> u64 {
        self.repeated_bytes
    }

    pub(in crate::link) fn poll_chunk(&mut self) -> Option<(Transfer, u64, Bytes)> {
        self.chunks.pop_front()
    }

    /// The shell holds these bytes for good.
    pub(in crate::link) fn hold(&mut self, transfer: Transfer, range: Range<u64>) {
        let Some(incoming) = self.part_with(transfer, range.clone()) else { return };
        incoming.held.insert(range);
        incoming.is_news = true;
    }

    /// The shell does not keep these bytes: they are taken when they come again.
    pub(in crate::link) fn release(&mut self, transfer: Transfer, range: Range<u64>) {
        self.part_with(transfer, range);
    }

    /// The shell has these bytes no more, or holds them.
    fn part_with(&mut self, transfer: Transfer, range: Range<u64>) -> Option<&mut Incoming> {
        let incoming = self.objects.get_mut(&transfer)?;
        let before = bytes_of(&incoming.arrived);
        incoming.arrived.remove(range);
        self.arrived_bytes -= before - bytes_of(&incoming.arrived);
        if incoming.chunks > 0 {
            incoming.chunks -= 1;
            self.arrived -= 1;
        }
        Some(incoming)
    }

    /// What it holds of the peer's chunks, with what belongs to them until they are held for good, bytes.
    pub(in crate::link) fn holds_bytes(&self) -> usize {
        let early: usize = self.early.iter().map(|(_, _, bytes)| bytes.len()).sum();
        let ranges: usize =
            self.objects.values().map(|incoming| incoming.held.len() + incoming.arrived.len()).sum();
        let chunks = self.arrived + self.early.len();
        self.arrived_bytes as usize + early + chunks * BESIDE_BYTES + ranges * RANGE_BYTES
    }

    /// Everything is to be stated.
    pub(in crate::link) fn asked(&mut self) {
        for incoming in self.objects.values_mut() {
            incoming.is_news = true;
        }
    }

    /// What to state with whatever leaves next. All objects together have as many ranges as one may, as a datagram must hold them
    /// beside an acknowledgement of items; those of the first come first, as objects leave one after the other.
    pub(in crate::link) fn statements(&self) -> Vec<Held> {
        let news = self.objects.iter().filter(|(_, incoming)| incoming.is_news);
        let mut ranges_left = ACK_RANGES_MAX;
        let stated = news.map(|(&transfer, incoming)| {
            let bytes = to_ack(&incoming.held, ranges_left);
            ranges_left -= bytes.received.len();
            Held { transfer, bytes }
        });
        stated.take(TRANSFERS_MAX).collect()
    }

    /// These have left.
    pub(in crate::link) fn stated(&mut self, statements: &[Held]) {
        for Held { transfer, .. } in statements {
            if let Some(incoming) = self.objects.get_mut(transfer) {
                incoming.is_news = false;
            }
        }
    }

    /// Whether the shell holds all that it was given, and has said so.
    pub(in crate::link) fn is_at_rest(&self) -> bool {
        self.objects.values().all(|incoming| incoming.arrived.is_empty() && !incoming.is_news)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OBJECT: Transfer = Transfer(1);

    fn chunk(inbound: &mut ObjectsInbound, offset: u64, room: usize) {
        inbound.handle(&Chunk { transfer: OBJECT, offset, bytes: b"x" }, room).unwrap();
    }

    #[test]
    fn single_bytes_count_with_what_they_cost_and_are_taken_up_to_a_number() {
        let mut inbound = ObjectsInbound::default();
        inbound.start(OBJECT, 1 << 20, RangeSet::new()).unwrap();
        for offset in 0..2 * ARRIVED_MAX as u64 {
            chunk(&mut inbound, offset, usize::MAX);
        }
        assert_eq!(inbound.chunks.len(), ARRIVED_MAX);
        assert_eq!(inbound.holds_bytes(), ARRIVED_MAX * (1 + BESIDE_BYTES) + RANGE_BYTES);
        inbound.hold(OBJECT, 0..1);
        chunk(&mut inbound, ARRIVED_MAX as u64, usize::MAX);
        assert_eq!(inbound.chunks.len(), ARRIVED_MAX + 1, "one is held");
        inbound.stop(OBJECT);
        assert_eq!(inbound.holds_bytes(), 0);
    }

    #[test]
    fn a_chunk_that_the_shell_does_not_keep_counts_no_more_and_is_taken_again() {
        let mut inbound = ObjectsInbound::default();
        inbound.start(OBJECT, 1 << 20, RangeSet::new()).unwrap();
        let empty = inbound.holds_bytes();
        for round in 0..2 {
            chunk(&mut inbound, 7, usize::MAX);
            assert_eq!(inbound.poll_chunk().map(|(_, offset, _)| offset), Some(7), "round {round}");
            assert!(inbound.holds_bytes() > empty);
            inbound.release(OBJECT, 7..8);
            assert_eq!(inbound.holds_bytes(), empty);
        }
    }

    #[test]
    fn a_chunk_without_room_is_not_taken_and_comes_again() {
        let mut inbound = ObjectsInbound::default();
        inbound.start(OBJECT, 100, RangeSet::new()).unwrap();
        chunk(&mut inbound, 7, BESIDE_BYTES + NEXT_BYTES);
        assert!(inbound.poll_chunk().is_none());
        chunk(&mut inbound, 7, BESIDE_BYTES + NEXT_BYTES + 1);
        assert!(inbound.poll_chunk().is_some());
    }

    #[test]
    fn chunks_of_a_transfer_that_ends_before_it_begins_are_not_kept() {
        let mut inbound = ObjectsInbound::default();
        chunk(&mut inbound, 0, usize::MAX);
        inbound.stop(OBJECT);
        assert_eq!(inbound.holds_bytes(), 0);
        chunk(&mut inbound, 1, usize::MAX);
        assert_eq!(inbound.holds_bytes(), 0, "it comes too late");
        let next = Chunk { transfer: Transfer(2), offset: 0, bytes: &[7; EARLY_BYTES_MAX] };
        inbound.handle(&next, usize::MAX).unwrap();
        assert_eq!(inbound.early.len(), 1, "the next has all the room");
    }

    #[test]
    fn single_bytes_of_what_is_not_known_yet_are_kept_up_to_a_number() {
        let mut inbound = ObjectsInbound::default();
        for offset in 0..2 * EARLY_MAX as u64 {
            chunk(&mut inbound, offset, usize::MAX);
        }
        assert_eq!(inbound.early.len(), EARLY_MAX);
        inbound.start(OBJECT, 1 << 20, RangeSet::new()).unwrap();
        assert_eq!((inbound.early.len(), inbound.chunks.len()), (0, EARLY_MAX));
    }
}
