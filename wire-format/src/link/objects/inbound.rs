//! The receiving half: passes chunks on to be written down, and states what is.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use bytes::Bytes;
use rangemap::RangeSet;

use super::{bytes_of, bytes_of_both, has_all, to_ack};
use crate::batch::{Chunk, Held, Transfer};
use crate::limits::{ACK_RANGES_MAX, HOLD_BYTES_MAX, TRANSFERS_MAX};
use crate::link::LinkError;

/// Chunks of a transfer that is not known yet are kept up to so many bytes: the frame that opens it may be late, or have
/// to come again.
const EARLY_BYTES_MAX: usize = 32 * 1024;

#[derive(Debug, Default)]
pub(in crate::link) struct ObjectsInbound {
    objects: BTreeMap<Transfer, Incoming>,
    /// The newest transfer that was ever known: chunks of others up to it come too late.
    newest: Option<Transfer>,
    early: Vec<(Transfer, u64, Bytes)>,
    /// Chunks for the shell.
    chunks: VecDeque<(Transfer, u64, Bytes)>,
    /// How many bytes the shell has, or is to be given, and does not hold yet.
    arrived_bytes: u64,
    /// How many bytes came that had come before.
    repeated_bytes: u64,
}

#[derive(Debug)]
struct Incoming {
    size: u64,
    held: RangeSet<u64>,
    /// What the shell has, or is to be given, and does not hold yet.
    arrived: RangeSet<u64>,
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
        let incoming = Incoming { size, held, arrived: RangeSet::new(), is_news: true };
        self.objects.insert(transfer, incoming);
        let early = self.early.extract_if(.., |(of, ..)| *of == transfer).collect::<Vec<_>>();
        for (_, offset, bytes) in early {
            self.handle(&Chunk { transfer, offset, bytes: &bytes })?;
        }
        Ok(())
    }

    pub(in crate::link) fn stop(&mut self, transfer: Transfer) {
        if let Some(incoming) = self.objects.remove(&transfer) {
            self.arrived_bytes -= bytes_of(&incoming.arrived);
        }
        self.chunks.retain(|(of, ..)| *of != transfer);
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

    /// Takes in a chunk. Returns whether a statement is due at once, as it was held already.
    pub(in crate::link) fn handle(&mut self, chunk: &Chunk<'_>) -> Result<bool, LinkError> {
        self.check(chunk)?;
        let Chunk { transfer, offset, bytes } = *chunk;
        let Some(incoming) = self.objects.get_mut(&transfer) else {
            let early_bytes: usize = self.early.iter().map(|(_, _, bytes)| bytes.len()).sum();
            if Some(transfer) > self.newest && early_bytes + bytes.len() <= EARLY_BYTES_MAX {
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
        if !is_known && self.arrived_bytes + bytes.len() as u64 <= HOLD_BYTES_MAX as u64 {
            let before = bytes_of(&incoming.arrived);
            incoming.arrived.insert(range);
            self.arrived_bytes += bytes_of(&incoming.arrived) - before;
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
        let Some(incoming) = self.objects.get_mut(&transfer) else { return };
        let before = bytes_of(&incoming.arrived);
        incoming.arrived.remove(range.clone());
        self.arrived_bytes -= before - bytes_of(&incoming.arrived);
        incoming.held.insert(range);
        incoming.is_news = true;
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
