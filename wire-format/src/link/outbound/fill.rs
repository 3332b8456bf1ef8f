//! What goes into the next datagram with items.

use super::{Outbound, State};
use crate::batch::{self, Batch, Item};
use crate::codec::{self, Codec, DictionarySet};
use crate::limits::{BATCH_CONTENT_BYTES, WINDOW_ITEMS};

/// What has left so often is coded no more: to search for the shortest form takes a thousand times longer than to ask for one more
/// repeat.
const CODED_UNTIL_SENT: u32 = 8;

/// A datagram with items.
pub(super) struct Filled {
    pub(super) numbers: Vec<u64>,
    pub(super) datagram: Vec<u8>,
    pub(super) content_len: usize,
    /// Whether what is acknowledged is in it.
    pub(super) says_all: bool,
}

impl Outbound {
    /// Gathers what waits, oldest first, into one batch that fits when coded. How well it shrinks shows
    /// only afterwards: start from how the last batches did, and leave items off until it fits.
    pub(super) fn fill(
        &self,
        bytes_max: usize,
        mut batch: Batch<'_>,
        peer_has: DictionarySet,
    ) -> Option<Filled> {
        let mut says_all = true;
        let ranges = batch.ack.as_ref().map_or(0, |ack| ack.received.len());
        let room =
            bytes_max.saturating_sub(1 + batch::head_bytes_max(ranges) + batch::held_bytes(&batch.held));
        let content_max = ((room as f64 / self.ratio) as usize).clamp(room, BATCH_CONTENT_BYTES);
        let (mut content_len, mut has_noise) = (0, false);
        let mut chosen: Vec<Item<'_>> = Vec::new();
        for (entry, number) in self.entries.iter().zip(self.settled + 1..) {
            if entry.state != State::Waiting {
                continue;
            }
            let len = entry.bytes.len() + batch::item_overhead_max(entry.bytes.len());
            let is_noise = entry.is_noise || entry.sent >= CODED_UNTIL_SENT;
            // Beside noise nothing shrinks.
            let content_max = if has_noise || is_noise { room } else { content_max };
            if content_len + len > content_max && !chosen.is_empty() || number > self.settled + WINDOW_ITEMS {
                break;
            }
            content_len += len;
            has_noise |= is_noise;
            chosen.push(Item { number, more: entry.more, bytes: &entry.bytes });
        }
        if chosen.is_empty() {
            return None;
        }
        let (mut content, mut datagram) = (Vec::new(), Vec::new());
        loop {
            let numbers: Vec<u64> = chosen.iter().map(|item| item.number).collect();
            let mut trial = Batch { items: std::mem::take(&mut chosen), ..batch.clone() };
            content.clear();
            datagram.clear();
            trial.encode(&mut content);
            if has_noise {
                codec::encode_as(Codec::Raw, &content, &mut datagram);
            } else {
                codec::encode_best(&content, peer_has, &mut datagram);
            }
            if datagram.len() <= bytes_max {
                return Some(Filled { numbers, datagram, content_len: content.len(), says_all });
            }
            if trial.items.len() == 1 {
                // A single item fits, unless what is acknowledged beside it is much, or the carrier takes less than it
                // did when the item was cut.
                if !says_all {
                    return None;
                }
                says_all = false;
                batch = Batch { ack: None, held: Vec::new(), ..batch };
            } else {
                let keep = trial.items.len() * bytes_max / datagram.len();
                trial.items.truncate(keep.clamp(1, trial.items.len() - 1));
            }
            chosen = trial.items;
        }
    }
}
