//! Two links with a channel between them that loses, doubles, delays and reorders, driven by a sequence of operations.
//!
//! Whatever is done, each frame that was pushed is delivered once and in order, nothing is acknowledged that its shell has
//! not settled, an object's bytes are its own, no datagram is larger than the carrier takes, and no timer rings for what cannot be
//! done. In the end of one input in
//! eight the channel is clean, and all of it arrives. After a datagram was changed on its way nothing of this holds, but that nothing
//! panics: the carrier lets none through, unless the other end means it.

mod pair;
mod shell;

use arbitrary::{Arbitrary, Unstructured};
use thinpost_wire::codec::DictionarySet;

use self::pair::Pair;

/// So many operations are done of one input; what follows is ignored.
const OPERATIONS_MAX: usize = 200;

/// One of the two ends.
#[derive(Clone, Copy, Debug, Arbitrary)]
pub(crate) enum End {
    /// The one that numbers transfers, as a device does; it makes no difference here.
    Device,
    Relay,
}

/// What is done.
#[derive(Debug, Arbitrary)]
pub(crate) enum Operation {
    /// Pushes a frame: of something that shrinks if the texture is less than 32, or else of noise.
    Push { from: End, bytes: u16, texture: u8 },
    /// Pushes many short frames.
    PushMany { from: End, frames: u8 },
    /// Pushes a frame of the largest kind.
    PushLargest { from: End },
    /// Takes what is to leave, so many datagrams at most.
    Transmit { from: End, datagrams: u8, room: u16 },
    /// Delivers a datagram under way.
    Deliver { to: End, which: u8 },
    /// Delivers all that are under way, the newest first if so asked.
    DeliverAll { to: End, is_backwards: bool },
    /// Delivers one that stays under way.
    Double { to: End, which: u8 },
    /// Loses one.
    Lose { to: End, which: u8 },
    /// Delivers one in a coding that nobody knows.
    DeliverUnreadable { to: End, which: u8, coding: u8 },
    /// Delivers one of which a byte was changed.
    DeliverChanged { to: End, which: u8, place: u16, change: u8 },
    /// Lets time pass.
    Wait { ms: u16 },
    /// Lets time pass until an end is to be woken, and wakes it.
    Ring { end: End },
    /// Wakes an end, whether it is time or not.
    Wake { end: End },
    /// Settles the next so many frames that were given to the shell, or says an old settlement again.
    Settle { at: End, frames: u8 },
    /// Begins to send an object, of which the other end holds some from before, which the sender may know; or, when there are
    /// many, begins the newest of this end anew.
    Offer { from: End, size: u32, held: Option<(u16, u16)>, knows: bool },
    /// The other end learns of the next object that is sent to it.
    Accept { at: End },
    /// Hands over so many pieces of what is wanted of objects, or a part of each.
    Supply { from: End, pieces: u8, in_part: bool },
    /// Makes so many chunks durable.
    Hold { at: End, chunks: u8 },
    /// Ends a transfer at one end.
    Stop { at: End, which: u8 },
    /// Lets an end gather acknowledgements.
    Gather { at: End, seconds: u8 },
    /// What the carrier may say to a link.
    Hint { to: End, hint: Hint },
}

/// What the carrier may know of the path. It may be wrong: then something is sent in vain.
#[derive(Debug, Arbitrary)]
pub(crate) enum Hint {
    ResendAll,
    LoseUntil { ms_ago: u16 },
    Poke,
    Ask,
    Ride { bytes: u16 },
    PathIsOpen,
}

/// The ends have dictionaries if the first byte is not less: the search for the shortest form of a batch takes long.
const WITH_DICTIONARIES: u8 = 0xf0;

/// Everything arrives in the end if the sum of all bytes divides by this, which any change makes anew: that takes longer than
/// all before.
const ALL_ARRIVES_EVERY: u8 = 8;

/// Does what the bytes say.
///
/// # Panics
/// When something does not hold.
pub fn run(bytes: &[u8]) {
    let Some((&first, operations)) = bytes.split_first() else { return };
    let dictionaries =
        if first >= WITH_DICTIONARIES { DictionarySet::compiled_in() } else { DictionarySet::EMPTY };
    let mut input = Unstructured::new(operations);
    let mut pair = Pair::new(dictionaries);
    for _ in 0..OPERATIONS_MAX {
        if input.is_empty() {
            break;
        }
        let Ok(operation) = Operation::arbitrary(&mut input) else { break };
        pair.do_it(&operation);
        if pair.is_over() {
            return;
        }
    }
    if bytes.iter().fold(0, |sum: u8, &byte| sum.wrapping_add(byte)).is_multiple_of(ALL_ARRIVES_EVERY) {
        pair.finish();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(operations: &[Operation]) -> Pair {
        let mut pair = Pair::new(DictionarySet::EMPTY);
        operations.iter().for_each(|operation| pair.do_it(operation));
        pair
    }

    const fn offer(knows: bool) -> Operation {
        Operation::Offer { from: End::Device, size: 40_000, held: None, knows }
    }

    const ALL: Operation = Operation::Transmit { from: End::Device, datagrams: u8::MAX, room: 0 };

    #[test]
    fn an_object_that_is_begun_anew_while_its_chunks_are_on_their_way_arrives() {
        let (device, relay) = (End::Device, End::Relay);
        let mut operations =
            vec![offer(false), Operation::Supply { from: device, pieces: 2, in_part: false }];
        for _ in 0..6 {
            operations.extend([Operation::Ring { end: device }, ALL]);
        }
        operations.extend([
            Operation::DeliverAll { to: relay, is_backwards: false },
            Operation::Accept { at: relay },
            Operation::Hold { at: relay, chunks: u8::MAX },
            // They are too many together.
            offer(true),
            Operation::Transmit { from: relay, datagrams: u8::MAX, room: 0 },
            Operation::DeliverAll { to: device, is_backwards: false },
        ]);
        after(&operations).finish();
    }

    #[test]
    fn an_object_whose_next_bytes_are_late_wakes_nobody() {
        let (device, relay) = (End::Device, End::Relay);
        let mut operations = vec![
            offer(false),
            Operation::Accept { at: relay },
            Operation::Supply { from: device, pieces: 1, in_part: true },
        ];
        for _ in 0..30 {
            operations.extend([
                Operation::Ring { end: device },
                ALL,
                Operation::DeliverAll { to: relay, is_backwards: false },
                Operation::Hold { at: relay, chunks: u8::MAX },
                Operation::Transmit { from: relay, datagrams: u8::MAX, room: 0 },
                Operation::DeliverAll { to: device, is_backwards: false },
            ]);
        }
        after(&operations).finish();
    }
}
