//! What is inside a seal: letters for one recipient, and the numbers by which repeats are known.
//!
//! `PROTOCOL.md`, section "Parcels", has the layout.

use serde::{Deserialize, Serialize};

use crate::ids::Incarnation;
use crate::limits::BODY_BYTES_MAX;
use crate::notes::Notes;
use crate::varint::{self, VarintError};

mod packed;

pub use packed::{MODELLED_BYTES_MAX, Reader, UnpackError, pack, pack_within, unpack};

/// The first bytes of the sender's [`Incarnation`]: enough to tell apart those of one sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ShortIncarnation(pub [u8; 4]);

impl From<Incarnation> for ShortIncarnation {
    fn from(incarnation: Incarnation) -> Self {
        let [a, b, c, d, ..] = incarnation.0;
        Self([a, b, c, d])
    }
}

/// One letter in a parcel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item<'a> {
    /// Its number among all that the sender's incarnation wrote to this recipient; numbers ascend within a
    /// parcel.
    pub number: u64,
    /// The letter; not empty.
    pub letter: &'a [u8],
}

/// Stands where a first number would, before notes.
const NOTES: u64 = 0;

/// Most letters in one parcel. A sender puts in what fits a datagram; what is far more was made to cost.
pub const PARCEL_LETTERS_MAX: usize = 1_024;

/// Letters that are sealed together, and notes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parcel<'a> {
    /// Whose numbers they are.
    pub incarnation: ShortIncarnation,
    /// What there is to say besides.
    pub notes: Notes,
    /// At most [`PARCEL_LETTERS_MAX`]. None, where there are notes; or where there were such as only a later version knows.
    pub items: Vec<Item<'a>>,
}

/// Why bytes are no parcel. They were sealed by the sender, who is at fault or newer than this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParcelError {
    /// The parcel ends inside a field, or holds nothing.
    #[error("the parcel ends too early")]
    Truncated,
    /// A number is zero, does not fit into 64 bits, or is not in its shortest form.
    #[error("a number in the parcel is out of range")]
    BadNumber,
    /// An empty letter.
    #[error("a letter in the parcel is empty")]
    EmptyLetter,
    /// More letters than [`PARCEL_LETTERS_MAX`].
    #[error("the parcel holds more than {PARCEL_LETTERS_MAX} letters")]
    TooManyLetters,
}

impl<'a> Parcel<'a> {
    /// The parcel's bytes. The numbers must ascend, from 1 on.
    pub fn encode(&self) -> Vec<u8> {
        let mut form = Form::new(self.incarnation);
        if !self.notes.is_empty() {
            form.notes(&self.notes.encode());
        }
        self.items.iter().for_each(|item| form.item(item.number, item.letter));
        form.finish()
    }

    /// Reads a parcel; its letters are borrowed.
    ///
    /// # Errors
    /// When the bytes are none of this version.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, ParcelError> {
        let (incarnation, mut rest) = bytes.split_first_chunk().ok_or(ParcelError::Truncated)?;
        let incarnation = ShortIncarnation(*incarnation);
        let mut notes = Notes::default();
        let mut items = Vec::new();
        let mut next = varint::take(&mut rest)?;
        if next == NOTES {
            notes = Notes::decode(bytes_of(&mut rest)?)?;
            if rest.is_empty() {
                return Ok(Self { incarnation, notes, items });
            }
            next = varint::take(&mut rest)?;
        }
        while !rest.is_empty() || items.is_empty() {
            let head = varint::take(&mut rest)?;
            if head & 1 != 0 {
                let skip = varint::take(&mut rest)?;
                next = next.checked_add(skip).filter(|_| skip > 0).ok_or(ParcelError::BadNumber)?;
            }
            let length = usize::try_from(head >> 1).map_err(|_| ParcelError::Truncated)?;
            let (letter, after) = rest.split_at_checked(length).ok_or(ParcelError::Truncated)?;
            if letter.is_empty() {
                return Err(ParcelError::EmptyLetter);
            }
            if next == 0 || next == u64::MAX {
                return Err(ParcelError::BadNumber);
            }
            if items.len() == PARCEL_LETTERS_MAX {
                return Err(ParcelError::TooManyLetters);
            }
            items.push(Item { number: next, letter });
            next += 1;
            rest = after;
        }
        Ok(Self { incarnation, notes, items })
    }
}

/// A parcel's bytes as they are put together: notes first, then letters in the order of their numbers.
struct Form {
    bytes: Vec<u8>,
    next: Option<u64>,
}

impl Form {
    fn new(incarnation: ShortIncarnation) -> Self {
        Self { bytes: incarnation.0.to_vec(), next: None }
    }

    fn len(&self) -> usize {
        self.bytes.len()
    }

    fn notes(&mut self, notes: &[u8]) {
        varint::put(&mut self.bytes, NOTES);
        varint::put(&mut self.bytes, notes.len() as u64);
        self.bytes.extend(notes);
    }

    fn item(&mut self, number: u64, letter: &[u8]) {
        let next = *self.next.get_or_insert_with(|| {
            varint::put(&mut self.bytes, number);
            number
        });
        let skip = number - next;
        varint::put(&mut self.bytes, (letter.len() as u64) << 1 | u64::from(skip > 0));
        if skip > 0 {
            varint::put(&mut self.bytes, skip);
        }
        self.bytes.extend_from_slice(letter);
        self.next = Some(number.saturating_add(1));
    }

    /// The bytes; of a parcel of nothing, with notes that say nothing.
    fn finish(mut self) -> Vec<u8> {
        if self.bytes.len() == size_of::<ShortIncarnation>() {
            self.notes(&Notes::default().encode());
        }
        self.bytes
    }
}

impl From<VarintError> for ParcelError {
    fn from(error: VarintError) -> Self {
        match error {
            VarintError::Truncated => Self::Truncated,
            VarintError::Overlong => Self::BadNumber,
        }
    }
}

/// Takes bytes off the front, behind their length.
pub(crate) fn bytes_of<'a>(input: &mut &'a [u8]) -> Result<&'a [u8], ParcelError> {
    let length = usize::try_from(varint::take(input)?).map_err(|_| ParcelError::Truncated)?;
    let (bytes, after) = input.split_at_checked(length).ok_or(ParcelError::Truncated)?;
    *input = after;
    Ok(bytes)
}

/// Longest parcel, bytes: what a body holds beside the widest seal around it.
pub const PARCEL_BYTES_MAX: usize = BODY_BYTES_MAX - 320;

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;
    use proptest::prelude::*;

    use super::*;
    use crate::batch::Ack;
    use crate::notes::{Introduction, Seen};
    use crate::token::Token;

    fn parcel<'a>(items: &[(u64, &'a [u8])]) -> Parcel<'a> {
        let items = items.iter().map(|&(number, letter)| Item { number, letter }).collect();
        Parcel { incarnation: ShortIncarnation([0xaa; 4]), notes: Notes::default(), items }
    }

    fn notes() -> Notes {
        let seen = Seen {
            incarnation: ShortIncarnation([0xbb; 4]),
            arrived: Ack { watermark: 7, received: vec![(9, 10)] },
            read: 5,
        };
        Notes { seen: vec![seen], ..Notes::default() }
    }

    /// The vectors of `PROTOCOL.md`, section "Parcels".
    #[test]
    fn golden_vectors_hold() {
        let cases: [(&str, Parcel<'_>); 6] = [
            ("aaaaaaaa0106006869", parcel(&[(1, b"\x00hi")])),
            ("aaaaaaaaac0206006869070500796f", parcel(&[(300, b"\x00hi"), (306, b"\x00yo")])),
            ("aaaaaaaa000b0101bbbbbbbb0701010105", Parcel { notes: notes(), ..parcel(&[]) }),
            (
                "aaaaaaaa000b0101bbbbbbbb07010101050106006869",
                Parcel { notes: notes(), ..parcel(&[(1, b"\x00hi")]) },
            ),
            ("aaaaaaaa000102", Parcel { notes: Notes { again: true, ..Notes::default() }, ..parcel(&[]) }),
            (
                "aaaaaaaa00240ccccccccccccccccccccccccccccccccceeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee02dddd",
                Parcel {
                    notes: Notes {
                        token: Some(Token([0xcc; 16])),
                        introduction: Some(Introduction { under: Token([0xee; 16]), ticket: vec![0xdd; 2] }),
                        ..Notes::default()
                    },
                    ..parcel(&[])
                },
            ),
        ];
        for (hex, parcel) in cases {
            assert_eq!(HEXLOWER.encode(&parcel.encode()), hex);
            assert_eq!(Parcel::decode(&HEXLOWER.decode(hex.as_bytes()).unwrap()), Ok(parcel));
        }
    }

    #[test]
    fn a_parcel_that_says_nothing_that_is_known_here_is_none_the_less_one() {
        let later = [0xaa, 0xaa, 0xaa, 0xaa, 0, 3, 0x80, 1, 2];
        assert_eq!(Parcel::decode(&later), Ok(parcel(&[])));
        assert_eq!(Parcel::decode(&parcel(&[]).encode()), Ok(parcel(&[])));
    }

    #[test]
    fn each_kind_of_damage_has_its_own_error() {
        let whole = parcel(&[(300, b"\x00hi"), (306, b"\x00yo")]).encode();
        for end in 0..whole.len() {
            let first_ends = end == 10;
            assert_eq!(Parcel::decode(&whole[..end]).is_ok(), first_ends, "cut at {end}");
        }
        assert_eq!(Parcel::decode(&[0; 5]), Err(ParcelError::Truncated));
        assert_eq!(Parcel::decode(&[0, 0, 0, 0, 1, 0]), Err(ParcelError::EmptyLetter));
        assert_eq!(Parcel::decode(&[0, 0, 0, 0, 0, 1]), Err(ParcelError::Truncated), "notes cut off");
        assert_eq!(Parcel::decode(&[0, 0, 0, 0, 0, 2, 1, 0]), Err(ParcelError::BadNumber), "no receipts");
        assert_eq!(Parcel::decode(&[0, 0, 0, 0, 0, 1, 0, 0, 2, 0]), Err(ParcelError::BadNumber));
        assert_eq!(Parcel::decode(&[0, 0, 0, 0, 1, 3, 0, 0]), Err(ParcelError::BadNumber));
        let full: Vec<_> = (1..=PARCEL_LETTERS_MAX as u64).map(|number| (number, &b"\x00"[..])).collect();
        let mut full = parcel(&full).encode();
        assert!(Parcel::decode(&full).is_ok());
        full.extend([2, 0]);
        assert_eq!(Parcel::decode(&full), Err(ParcelError::TooManyLetters));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            steps in prop::collection::vec((1..1_000u64, prop::collection::vec(any::<u8>(), 1..50)), 1..20),
        ) {
            let mut number = 0;
            let items: Vec<_> = steps.iter().map(|(step, letter)| {
                number += step;
                (number, &letter[..])
            }).collect();
            let parcel = parcel(&items);
            let coded = parcel.encode();
            prop_assert_eq!(Parcel::decode(&coded), Ok(parcel));
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            if let Ok(parcel) = Parcel::decode(&bytes) {
                prop_assert!(parcel.items.iter().map(|item| item.letter.len()).sum::<usize>() <= bytes.len());
            }
        }
    }
}
