//! One datagram's content: acknowledgements, and numbered items or a chunk of an object. Each batch can be read alone.
//!
//! The layout stands in `PROTOCOL.md`, section "Batch". This module neither compresses ([`crate::codec`])
//! nor decides what goes out ([`crate::link`]); it turns values into bytes and refuses everything else.

use serde::{Deserialize, Serialize};

use crate::limits::{ACK_RANGES_MAX, OBJECT_BYTES_MAX, TRANSFERS_MAX, WINDOW_ITEMS};
use crate::varint::{self, VarintError};

const HAS_ACK: u8 = 0x01;
const HAS_ITEMS: u8 = 0x02;
const HAS_UNREADABLE: u8 = 0x04;
const IS_POLL: u8 = 0x08;
const HAS_CHUNK: u8 = 0x10;
const HAS_HELD: u8 = 0x20;
const KNOWN_BITS: u8 = HAS_ACK | HAS_ITEMS | HAS_UNREADABLE | IS_POLL | HAS_CHUNK | HAS_HELD;

/// What was received of the other direction's items.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ack {
    /// Every item up to and including this number is settled: durable, or acted on for good.
    pub watermark: u64,
    /// Items above the watermark that have arrived but are not settled: first and last number of each
    /// run, ascending, with at least one missing number between two runs.
    pub received: Vec<(u64, u64)>,
}

/// A numbered piece of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item<'a> {
    /// Its place in this direction of this link; the first is 1.
    pub number: u64,
    /// Whether the frame goes on in the next number.
    pub more: bool,
    /// The frame, or a part of it; never empty.
    pub bytes: &'a [u8],
}

/// Names the transfer of an object on one link. The device numbers them from 1, whichever way the bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Transfer(pub u32);

/// What a receiver holds of an object for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Whose bytes.
    pub transfer: Transfer,
    /// Its bytes, counted from 1, as an acknowledgement states items.
    pub bytes: Ack,
}

/// A piece of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk<'a> {
    /// Whose bytes.
    pub transfer: Transfer,
    /// Where the first of them stands, counted from 0. No object reaches beyond [`OBJECT_BYTES_MAX`].
    pub offset: u64,
    /// The bytes; never none.
    pub bytes: &'a [u8],
}

/// A batch as read from the wire. Borrowed from the decoded content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch<'a> {
    /// The first byte of a batch from the other side that could not be read for want of its coding or
    /// dictionary: that side sends it again under another.
    pub unreadable: Option<u8>,
    /// An acknowledgement is asked for at once, whether it says anything new or not.
    pub poll: bool,
    /// What has arrived of the other direction.
    pub ack: Option<Ack>,
    /// What is held of objects that come the other way; at most [`TRANSFERS_MAX`].
    pub held: Vec<Held>,
    /// Ascending by number.
    pub items: Vec<Item<'a>>,
    /// Only where there are no items.
    pub chunk: Option<Chunk<'a>>,
}

/// Why bytes are not a batch. The peer is at fault: nothing of the batch was used, and asking again will
/// not help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BatchError {
    /// No byte, or no part, in it.
    #[error("the batch is empty")]
    Empty,
    /// A header bit that this version does not know.
    #[error("unknown bits {0:#04x} in the batch header")]
    UnknownBits(u8),
    /// The bytes end inside the named field.
    #[error("the batch ends inside {0}")]
    Truncated(&'static str),
    /// A number that is out of its range, or not in its shortest form, in the named field.
    #[error("{0} is out of range")]
    OutOfRange(&'static str),
    /// Items and a chunk, either of which goes on to the end.
    #[error("the batch has both items and a chunk")]
    ItemsAndChunk,
    /// Bytes after the last field.
    #[error("{0} bytes follow the end of the batch")]
    Trailing(usize),
}

impl Batch<'_> {
    /// Appends the batch to `out`. The items must ascend, and the ranges be as [`Ack`] describes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let bit = |present, bit| if present { bit } else { 0 };
        out.push(
            bit(self.ack.is_some(), HAS_ACK)
                | bit(!self.items.is_empty(), HAS_ITEMS)
                | bit(self.unreadable.is_some(), HAS_UNREADABLE)
                | bit(self.poll, IS_POLL)
                | bit(!self.held.is_empty(), HAS_HELD)
                | bit(self.chunk.is_some(), HAS_CHUNK),
        );
        out.extend(self.unreadable);
        if let Some(ack) = &self.ack {
            encode_ack(ack, out);
        }
        if !self.held.is_empty() {
            out.push(self.held.len() as u8);
        }
        for held in &self.held {
            encode_held(held, out);
        }
        if let Some(chunk) = &self.chunk {
            varint::put(out, chunk.transfer.0.into());
            varint::put(out, chunk.offset);
            out.extend_from_slice(chunk.bytes);
        }
        let mut expected = None;
        for item in &self.items {
            let skipped = match expected {
                None => {
                    varint::put(out, item.number);
                    0
                }
                Some(expected) => item.number - expected,
            };
            let head = (item.bytes.len() as u64) << 2 | u64::from(skipped > 0) << 1 | u64::from(item.more);
            varint::put(out, head);
            if skipped > 0 {
                varint::put(out, skipped);
            }
            out.extend_from_slice(item.bytes);
            expected = Some(item.number + 1);
        }
    }
}

/// Most bytes that the item of this length adds to a batch beyond its own.
pub(crate) fn item_overhead_max(len: usize) -> usize {
    varint::len((len as u64) << 2 | 3) + varint::len(WINDOW_ITEMS)
}

/// Most bytes that a batch holds beside its items: header, codec tag, first number, and an
/// acknowledgement with `ranges` ranges whose numbers lie within one window of each other.
pub(crate) fn head_bytes_max(ranges: usize) -> usize {
    2 + 10 + 10 + 1 + ranges * 2 * varint::len(WINDOW_ITEMS)
}

/// How many bytes a chunk that begins there takes in a batch beside its own.
pub(crate) fn chunk_head_bytes(transfer: Transfer, offset: u64) -> usize {
    varint::len(transfer.0.into()) + varint::len(offset)
}

/// How many bytes the statements take in a batch.
pub(crate) fn held_bytes(held: &[Held]) -> usize {
    let mut bytes = Vec::new();
    for held in held {
        encode_held(held, &mut bytes);
    }
    bytes.len() + usize::from(!held.is_empty())
}

fn encode_held(held: &Held, out: &mut Vec<u8>) {
    varint::put(out, held.transfer.0.into());
    encode_ack(&held.bytes, out);
}

pub(crate) fn encode_ack(ack: &Ack, out: &mut Vec<u8>) {
    varint::put(out, ack.watermark);
    out.push(ack.received.len() as u8);
    let mut settled = ack.watermark;
    for &(first, last) in &ack.received {
        varint::put(out, first - settled - 1);
        varint::put(out, last - first);
        settled = last;
    }
}

/// Reads a whole batch.
///
/// # Errors
/// Says what is wrong with it; nothing is allocated beyond [`WINDOW_ITEMS`] items and
/// [`ACK_RANGES_MAX`] ranges.
pub fn decode(content: &[u8]) -> Result<Batch<'_>, BatchError> {
    let (&header, mut rest) = content.split_first().ok_or(BatchError::Empty)?;
    if header & !KNOWN_BITS != 0 {
        return Err(BatchError::UnknownBits(header & !KNOWN_BITS));
    }
    if header == 0 {
        return Err(BatchError::Empty);
    }
    let rest = &mut rest;
    let mut batch = Batch { poll: header & IS_POLL != 0, ..Batch::default() };
    if header & HAS_UNREADABLE != 0 {
        let (&tag, after) = rest.split_first().ok_or(BatchError::Truncated("the unreadable tag"))?;
        *rest = after;
        batch.unreadable = Some(tag);
    }
    if header & HAS_ACK != 0 {
        batch.ack = Some(decode_ack(rest)?);
    }
    if header & HAS_HELD != 0 {
        batch.held = decode_held(rest)?;
    }
    if header & HAS_CHUNK != 0 {
        if header & HAS_ITEMS != 0 {
            return Err(BatchError::ItemsAndChunk);
        }
        batch.chunk = Some(decode_chunk(rest)?);
    }
    if header & HAS_ITEMS != 0 {
        batch.items = decode_items(rest)?;
    }
    if rest.is_empty() { Ok(batch) } else { Err(BatchError::Trailing(rest.len())) }
}

pub(crate) fn decode_ack(rest: &mut &[u8]) -> Result<Ack, BatchError> {
    const RANGE: BatchError = BatchError::OutOfRange("an acknowledged range");
    let watermark = number(rest, "the watermark")?;
    let (&count, after) = rest.split_first().ok_or(BatchError::Truncated("the range count"))?;
    *rest = after;
    if usize::from(count) > ACK_RANGES_MAX {
        return Err(BatchError::OutOfRange("the range count"));
    }
    let mut received = Vec::with_capacity(usize::from(count));
    let mut settled = watermark;
    for index in 0..count {
        let gap = number(rest, "an acknowledged range")?;
        let extent = number(rest, "an acknowledged range")?;
        if index > 0 && gap == 0 {
            return Err(RANGE);
        }
        let first = settled.checked_add(gap).and_then(|n| n.checked_add(1)).ok_or(RANGE)?;
        let last = first.checked_add(extent).ok_or(RANGE)?;
        received.push((first, last));
        settled = last;
    }
    Ok(Ack { watermark, received })
}

fn decode_held(rest: &mut &[u8]) -> Result<Vec<Held>, BatchError> {
    let (&count, after) = rest.split_first().ok_or(BatchError::Truncated("the count of transfers"))?;
    *rest = after;
    if !(1..=TRANSFERS_MAX).contains(&usize::from(count)) {
        return Err(BatchError::OutOfRange("the count of transfers"));
    }
    let held = |_| {
        let held = Held { transfer: transfer(rest)?, bytes: decode_ack(rest)? };
        let highest = held.bytes.received.last().map_or(held.bytes.watermark, |&(_, last)| last);
        let is_possible = highest <= OBJECT_BYTES_MAX;
        is_possible.then_some(held).ok_or(BatchError::OutOfRange("what is held of an object"))
    };
    (0..count).map(held).collect()
}

fn decode_chunk<'a>(rest: &mut &'a [u8]) -> Result<Chunk<'a>, BatchError> {
    let transfer = transfer(rest)?;
    let offset = number(rest, "a chunk's offset")?;
    let bytes = std::mem::take(rest);
    if bytes.is_empty() {
        return Err(BatchError::Truncated("a chunk"));
    }
    if offset.saturating_add(bytes.len() as u64) > OBJECT_BYTES_MAX {
        return Err(BatchError::OutOfRange("a chunk's offset"));
    }
    Ok(Chunk { transfer, offset, bytes })
}

fn transfer(rest: &mut &[u8]) -> Result<Transfer, BatchError> {
    let number = number(rest, "a transfer")?;
    u32::try_from(number).map(Transfer).map_err(|_| BatchError::OutOfRange("a transfer"))
}

fn decode_items<'a>(rest: &mut &'a [u8]) -> Result<Vec<Item<'a>>, BatchError> {
    const NUMBER: BatchError = BatchError::OutOfRange("an item number");
    let mut next = number(rest, "the first number")?;
    if next == 0 {
        return Err(NUMBER);
    }
    let mut items = Vec::new();
    while !rest.is_empty() {
        if items.len() as u64 == WINDOW_ITEMS {
            return Err(BatchError::OutOfRange("the count of items"));
        }
        let head = number(rest, "an item header")?;
        if head & 0b10 != 0 {
            let skipped = number(rest, "a skip")?;
            if skipped == 0 || items.is_empty() {
                return Err(BatchError::OutOfRange("a skip"));
            }
            next = next.checked_add(skipped).ok_or(NUMBER)?;
        }
        let len = usize::try_from(head >> 2).map_err(|_| BatchError::Truncated("an item"))?;
        if len == 0 {
            return Err(BatchError::OutOfRange("an item length"));
        }
        let (bytes, after) = rest.split_at_checked(len).ok_or(BatchError::Truncated("an item"))?;
        *rest = after;
        items.push(Item { number: next, more: head & 0b01 != 0, bytes });
        next = next.checked_add(1).ok_or(NUMBER)?;
    }
    if items.is_empty() { Err(BatchError::Truncated("the items")) } else { Ok(items) }
}

fn number(rest: &mut &[u8], field: &'static str) -> Result<u64, BatchError> {
    varint::take(rest).map_err(|error| match error {
        VarintError::Truncated => BatchError::Truncated(field),
        VarintError::Overlong => BatchError::OutOfRange(field),
    })
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;
    use proptest::prelude::*;

    use super::*;

    fn bytes(batch: &Batch<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        batch.encode(&mut out);
        out
    }

    /// The vectors of `PROTOCOL.md`, section "Golden vectors".
    #[test]
    fn golden_vectors_hold() {
        let ack = |watermark, received| Some(Ack { watermark, received });
        let item = |number, more, bytes| Item { number, more, bytes };
        let cases = [
            ("010700", Batch { ack: ack(7, vec![]), ..Batch::default() }),
            ("01070200020100", Batch { ack: ack(7, vec![(8, 10), (12, 12)]), ..Batch::default() }),
            (
                "02050868690d61626306027a",
                Batch {
                    items: vec![
                        item(5, false, b"hi".as_slice()),
                        item(6, true, b"abc"),
                        item(9, false, b"z"),
                    ],
                    ..Batch::default()
                },
            ),
            (
                "0712ac0200010421",
                Batch {
                    unreadable: Some(0x12),
                    ack: ack(300, vec![]),
                    items: vec![item(1, false, b"!")],
                    ..Batch::default()
                },
            ),
            ("08", Batch { poll: true, ..Batch::default() }),
            ("090700", Batch { poll: true, ack: ack(7, vec![]), ..Batch::default() }),
            (
                "1003920968696869",
                Batch {
                    chunk: Some(Chunk { transfer: Transfer(3), offset: 1_170, bytes: b"hihi" }),
                    ..Batch::default()
                },
            ),
            (
                "2107000201050004920901920904",
                Batch {
                    ack: ack(7, vec![]),
                    held: vec![
                        Held { transfer: Transfer(1), bytes: Ack { watermark: 5, received: vec![] } },
                        Held {
                            transfer: Transfer(4),
                            bytes: Ack { watermark: 1_170, received: vec![(2_341, 2_345)] },
                        },
                    ],
                    ..Batch::default()
                },
            ),
        ];
        for (hex, batch) in cases {
            assert_eq!(HEXLOWER.encode(&bytes(&batch)), hex);
            assert_eq!(decode(&HEXLOWER.decode(hex.as_bytes()).unwrap()), Ok(batch));
        }
    }

    #[test]
    fn each_kind_of_damage_has_its_own_error() {
        let cases: [(&[u8], BatchError); 18] = [
            (&[], BatchError::Empty),
            (&[0x00], BatchError::Empty),
            (&[0x41, 0x01, 0x00], BatchError::UnknownBits(0x40)),
            (&[0x12, 0x01, 0x00, 0x61], BatchError::ItemsAndChunk),
            (&[0x10, 0x01, 0x00], BatchError::Truncated("a chunk")),
            (&[0x10, 0x80], BatchError::Truncated("a transfer")),
            (&[0x20, 0x00], BatchError::OutOfRange("the count of transfers")),
            (&[0x20, 0x09], BatchError::OutOfRange("the count of transfers")),
            (&[0x20, 0x01, 0x01, 0x05], BatchError::Truncated("the range count")),
            (&[0x04], BatchError::Truncated("the unreadable tag")),
            (&[0x01, 0x80], BatchError::Truncated("the watermark")),
            (&[0x01, 0x05], BatchError::Truncated("the range count")),
            (&[0x01, 0x05, 33], BatchError::OutOfRange("the range count")),
            (&[0x01, 0x05, 0x00, 0xaa], BatchError::Trailing(1)),
            (&[0x02, 0x05], BatchError::Truncated("the items")),
            (&[0x02, 0x05, 0x00], BatchError::OutOfRange("an item length")),
            (&[0x02, 0x05, 0x0c, 0x61], BatchError::Truncated("an item")),
            (&[0x02, 0x05, 0x06, 0x01, 0x61], BatchError::OutOfRange("a skip")),
        ];
        for (input, error) in cases {
            assert_eq!(decode(input), Err(error), "{input:02x?}");
        }
        let mut far = vec![0x02];
        varint::put(&mut far, u64::MAX);
        far.extend([0x04, 0x61]);
        assert_eq!(decode(&far), Err(BatchError::OutOfRange("an item number")));
    }

    #[test]
    fn nothing_is_said_of_bytes_that_no_object_has() {
        let mut far = vec![0x10, 0x01];
        varint::put(&mut far, OBJECT_BYTES_MAX - 1);
        far.push(0x61);
        assert!(decode(&far).is_ok());
        far.push(0x61);
        assert_eq!(decode(&far), Err(BatchError::OutOfRange("a chunk's offset")));
        let mut held = vec![0x20, 0x01, 0x01];
        encode_ack(&Ack { watermark: OBJECT_BYTES_MAX + 1, received: vec![] }, &mut held);
        assert_eq!(decode(&held), Err(BatchError::OutOfRange("what is held of an object")));
    }

    prop_compose! {
        fn any_ack(watermark_max: u64)(watermark in 0u64..watermark_max, runs in prop::collection::vec((0u64..50, 0u64..50), 0..ACK_RANGES_MAX)) -> Ack {
            let mut received = Vec::new();
            let mut settled = watermark;
            for (index, (gap, extent)) in runs.into_iter().enumerate() {
                let first = settled + 1 + gap + u64::from(index > 0);
                received.push((first, first + extent));
                settled = first + extent;
            }
            Ack { watermark, received }
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_what_is_decoded(
            unreadable: Option<u8>,
            poll: bool,
            ack in prop::option::of(any_ack(1 << 40)),
            held in prop::collection::vec((any::<u32>(), any_ack(1 << 20)), 0..TRANSFERS_MAX),
            chunk in prop::option::of((any::<u32>(), 0u64..1 << 23, prop::collection::vec(any::<u8>(), 1..100))),
            first in 1u64..1 << 40,
            items in prop::collection::vec((0u64..3, any::<bool>(), prop::collection::vec(any::<u8>(), 1..100)), 0..40),
        ) {
            let mut number = first - 1;
            let items: Vec<_> = items.iter().map(|(skip, more, bytes)| {
                number += 1 + if number + 1 == first { 0 } else { *skip };
                Item { number, more: *more, bytes }
            }).collect();
            let held = held.into_iter().map(|(number, bytes)| Held { transfer: Transfer(number), bytes }).collect();
            let chunk = chunk.as_ref().filter(|_| items.is_empty());
            let chunk = chunk.map(|(number, offset, bytes)| {
                Chunk { transfer: Transfer(*number), offset: *offset, bytes }
            });
            let batch = Batch { unreadable, poll, ack, held, items, chunk };
            prop_assume!(batch != Batch::default());
            let coded = bytes(&batch);
            prop_assert_eq!(decode(&coded), Ok(batch));
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(input in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(batch) = decode(&input) {
                let again = bytes(&batch);
                prop_assert_eq!(decode(&again), Ok(batch));
            }
        }
    }
}
