//! What a parcel says besides letters: receipts, and what else two devices have to tell each other.
//!
//! `PROTOCOL.md`, section "Notes", has the layout.

use crate::batch::{Ack, BatchError, decode_ack, encode_ack};
use crate::parcel::{ParcelError, ShortIncarnation, bytes_of};
use crate::text::ModelSet;
use crate::token::Token;
use crate::varint;

const SEEN: u8 = 0x01;
const AGAIN: u8 = 0x02;
const TOKEN: u8 = 0x04;
const INTRODUCTION: u8 = 0x08;
const MODELS: u8 = 0x10;

/// Most incarnations that one receipt states.
pub const SEEN_MAX: usize = 16;

/// What has arrived of one incarnation of the other side: a receipt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Whose numbers they are.
    pub incarnation: ShortIncarnation,
    /// The numbers that have arrived.
    pub arrived: Ack,
    /// Every message up to this number that has arrived has been read; 0 if none was.
    pub read: u64,
}

impl Seen {
    /// Whether the message of this number has arrived.
    pub fn has_arrived(&self, number: u64) -> bool {
        let Ack { watermark, received } = &self.arrived;
        number <= *watermark || received.iter().any(|(first, last)| (*first..=*last).contains(&number))
    }
}

/// What a parcel says besides letters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// Receipts; at most [`SEEN_MAX`].
    pub seen: Vec<Seen>,
    /// All that is in no receipt is to be sent again.
    pub again: bool,
    /// What to submit under from now on, to the mailbox of who says this.
    pub token: Option<Token>,
    /// Who says this makes themselves known.
    pub introduction: Option<Introduction>,
    /// The text models that who says this can read with, all of them.
    pub models: Option<ModelSet>,
}

/// How somebody makes themselves known to whom they write to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Introduction {
    /// What they submit under: it tells who it was given to.
    pub under: Token,
    /// Their own ticket, made for who reads this, as [`ContactTicket::to_bytes`] writes it. It is a stranger's, and
    /// not looked into here.
    ///
    /// [`ContactTicket::to_bytes`]: crate::ticket::ContactTicket::to_bytes
    pub ticket: Vec<u8>,
}

impl Notes {
    /// Whether there is nothing to say.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let bit = |present, bit| if present { bit } else { 0 };
        let mut out = vec![
            bit(!self.seen.is_empty(), SEEN)
                | bit(self.again, AGAIN)
                | bit(self.token.is_some(), TOKEN)
                | bit(self.introduction.is_some(), INTRODUCTION)
                | bit(self.models.is_some(), MODELS),
        ];
        if !self.seen.is_empty() {
            out.push(self.seen.len() as u8);
        }
        for Seen { incarnation, arrived, read } in &self.seen {
            out.extend(incarnation.0);
            encode_ack(arrived, &mut out);
            varint::put(&mut out, *read);
        }
        out.extend(self.token.iter().flat_map(|token| token.0));
        if let Some(Introduction { under, ticket }) = &self.introduction {
            out.extend(under.0);
            varint::put(&mut out, ticket.len() as u64);
            out.extend(ticket);
        }
        self.models.iter().for_each(|models| models.encode(&mut out));
        out
    }

    /// Reads notes; what a later version adds is passed over.
    pub(crate) fn decode(mut bytes: &[u8]) -> Result<Self, ParcelError> {
        let rest = &mut bytes;
        let head = byte(rest)?;
        let mut seen = Vec::new();
        if head & SEEN != 0 {
            let count = usize::from(byte(rest)?);
            if !(1..=SEEN_MAX).contains(&count) {
                return Err(ParcelError::BadNumber);
            }
            for _ in 0..count {
                let incarnation = array(rest)?;
                let arrived = decode_ack(rest).map_err(|error| match error {
                    BatchError::Truncated(_) => ParcelError::Truncated,
                    _ => ParcelError::BadNumber,
                })?;
                let read = varint::take(rest)?;
                seen.push(Seen { incarnation: ShortIncarnation(incarnation), arrived, read });
            }
        }
        let token = if head & TOKEN != 0 { Some(Token(array(rest)?)) } else { None };
        let introduction = if head & INTRODUCTION != 0 {
            Some(Introduction { under: Token(array(rest)?), ticket: bytes_of(rest)?.to_vec() })
        } else {
            None
        };
        let models = if head & MODELS != 0 {
            Some(ModelSet::decode(rest).ok_or(ParcelError::BadNumber)?)
        } else {
            None
        };
        Ok(Self { seen, again: head & AGAIN != 0, token, introduction, models })
    }
}

fn array<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], ParcelError> {
    let (array, after) = rest.split_first_chunk().ok_or(ParcelError::Truncated)?;
    *rest = after;
    Ok(*array)
}

fn byte(rest: &mut &[u8]) -> Result<u8, ParcelError> {
    let (&byte, after) = rest.split_first().ok_or(ParcelError::Truncated)?;
    *rest = after;
    Ok(byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::parcel::Parcel;
    use crate::text::{ModelName, NUMBERS};

    fn models(names: impl IntoIterator<Item = ModelName>) -> ModelSet {
        let mut set = ModelSet::default();
        names.into_iter().for_each(|name| set.insert(name));
        set
    }

    fn any_models() -> impl Strategy<Value = ModelSet> {
        let names =
            prop_oneof![(0..NUMBERS).prop_map(ModelName::Number), any::<[u8; 4]>().prop_map(ModelName::Id),];
        prop::collection::vec(names, 0..20).prop_map(models)
    }

    fn receipt() -> impl Strategy<Value = Seen> {
        let ranges = prop::collection::vec((1..1_000u64, 0..1_000u64), 0..32);
        (any::<[u8; 4]>(), any::<u32>(), ranges, any::<u64>()).prop_map(|(of, watermark, steps, read)| {
            let mut last = u64::from(watermark);
            let received = steps.into_iter().map(|(gap, extent)| {
                let first = last + 1 + gap;
                last = first + extent;
                (first, last)
            });
            let arrived = Ack { watermark: watermark.into(), received: received.collect() };
            Seen { incarnation: ShortIncarnation(of), arrived, read }
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            seen in prop::collection::vec(receipt(), 0..SEEN_MAX),
            again: bool,
            token in prop::option::of(any::<[u8; 16]>().prop_map(Token)),
            introduction in prop::option::of((any::<[u8; 16]>(), prop::collection::vec(any::<u8>(), 0..300))),
            models in prop::option::of(any_models()),
        ) {
            let introduction = introduction.map(|(under, ticket)| Introduction { under: Token(under), ticket });
            let notes = Notes { seen, again, token, introduction, models };
            let mut coded = notes.encode();
            prop_assert_eq!(Notes::decode(&coded), Ok(notes.clone()));
            // What a later version says behind all that is known here, under a bit of its own.
            coded[0] |= 0x80;
            coded.extend([1, 2, 3]);
            prop_assert_eq!(Notes::decode(&coded), Ok(notes));
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            if let Ok(notes) = Notes::decode(&bytes) {
                prop_assert!(notes.seen.len() <= SEEN_MAX);
            }
        }
    }

    /// The vectors of `PROTOCOL.md`, section "Batches and letters", that name models.
    #[test]
    fn models_are_said_as_the_protocol_says() {
        let set = models([ModelName::Number(0), ModelName::Number(9), ModelName::Id([0xee; 4])]);
        for (set, hex) in [(set, "aaaaaaaa000810810401eeeeeeee"), (ModelSet::EMPTY, "aaaaaaaa0003100000")] {
            let notes = Notes { models: Some(set), ..Notes::default() };
            let parcel = Parcel { incarnation: ShortIncarnation([0xaa; 4]), notes, items: Vec::new() };
            assert_eq!(data_encoding::HEXLOWER.encode(&parcel.encode()), hex);
        }
        let too_many = [&[MODELS, 0, 17][..], &[0; 17 * 4]].concat();
        assert_eq!(Notes::decode(&too_many), Err(ParcelError::BadNumber));
    }

    #[test]
    fn a_receipt_says_which_numbers_have_arrived() {
        let arrived = Ack { watermark: 3, received: vec![(5, 6), (9, 9)] };
        let seen = Seen { incarnation: ShortIncarnation([0; 4]), arrived, read: 0 };
        let have: Vec<_> = (1..=10).filter(|number| seen.has_arrived(*number)).collect();
        assert_eq!(have, [1, 2, 3, 5, 6, 9]);
    }
}
