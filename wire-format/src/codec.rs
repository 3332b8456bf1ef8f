//! How a batch or a body is squeezed: a content in a coding that the first byte names.
//!
//! | first byte | what it begins                                                                    |
//! |------------|-----------------------------------------------------------------------------------|
//! | 0          | raw: the content as it is                                                         |
//! | 1          | one zstd block, no dictionary                                                     |
//! | 2          | four bytes of a [text model](crate::text)'s id, and a stream of choices under it  |
//! | 16..=47    | one zstd block with [`crate::dictionary`] number first - 16                       |
//! | 64..=245   | already of the stream: choices under the text model of number (first - 64) / 14   |
//! | others     | kept                                                                              |
//!
//! A stream under a model that has a number needs no tag: the number is its first choice, 14 parts of
//! 256, so that all that follows still moves the first byte within these parts. That is four bits instead of
//! eight. Whatever carries later ends at the first byte, which stays below the parts of the next number.
//!
//! A *zstd block* is the body of one compressed block (RFC 8878, section 3.1.1.3) and nothing else. Frame header
//! and block header would say what is known already (one block, the last, as long as what is left), and
//! these five bytes are a sixth of a coded text. Like raw content, a block has no length of its own: it
//! runs to the end of what [`decode`] is given. A block that was cut or added to is nearly always refused
//! (its bit streams must end on their last bit), but integrity is the duty of the layers around: QUIC and
//! the seal of an envelope authenticate every byte.
//!
//! Nothing here keeps state between calls: what is coded can be decoded alone, in any order.

use std::borrow::Cow;

use crate::dictionary;
use crate::text::{Decoder, Encoder, ModelName, NUMBERS};

pub use crate::dictionary::DictionarySet;

mod block;

pub(crate) use block::LEVEL as COMPRESSION_LEVEL;

const TAG_RAW: u8 = 0;
const TAG_ZSTD: u8 = 1;
const TAG_TEXT_BY_ID: u8 = 2;
const TAG_DICTIONARY_MIN: u8 = 16;
const TAG_DICTIONARY_MAX: u8 = TAG_DICTIONARY_MIN + DictionarySet::NUMBERS - 1;

/// What the first choice of a stream is a part of: each part is a first byte.
const FIRST_BYTES: u32 = 256;
/// Where the part of number 0 begins. What is below are tags.
const NUMBERS_START: u8 = 64;
/// How many first bytes a number has.
const NUMBER_SIZE: u8 = 14;
const NUMBERS_END: u8 = NUMBERS_START + NUMBERS * NUMBER_SIZE;
const _: () = assert!(TAG_DICTIONARY_MAX < NUMBERS_START);

/// Content shorter than this is sent raw without a try: a block's own headers take as much.
pub const CODED_CONTENT_BYTES_MIN: usize = 4;

/// Content longer than this is never coded with a dictionary: by then it has a vocabulary of its own, and
/// the search grows with the content.
pub const DICTIONARY_CONTENT_BYTES_MAX: usize = 32 * 1024;

/// Content longer than this is sent raw: one zstd block holds no more (RFC 8878, section 3.1.1.2.4).
pub const BLOCK_CONTENT_BYTES_MAX: usize = 128 * 1024;

/// From here on zstd without a dictionary is tried beside the dictionaries. Below, it cannot win against
/// a dictionary that fits the text, and a text that no dictionary fits is not worth more attempts.
const PLAIN_CONTENT_BYTES_MIN: usize = 256;

/// No more dictionaries than this are tried for one content.
const DICTIONARIES_TRIED_MAX: usize = 3;

/// How a content is coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Codec {
    /// As it is.
    Raw,
    /// One zstd block without a dictionary.
    Zstd,
    /// Texts under a model.
    Text(ModelName),
    /// One zstd block with the dictionary of this number, 0..=31.
    Dictionary(u8),
}

impl Codec {
    /// The byte before a content in this coding; `None` for texts, which have none or more, and for a dictionary whose
    /// number is too high.
    pub const fn tag(self) -> Option<u8> {
        match self {
            Self::Raw => Some(TAG_RAW),
            Self::Zstd => Some(TAG_ZSTD),
            Self::Dictionary(number) if number < DictionarySet::NUMBERS => Some(TAG_DICTIONARY_MIN + number),
            Self::Text(_) | Self::Dictionary(_) => None,
        }
    }

    /// How a coded content is coded, by its first bytes. Neither dictionary nor model is looked up: it may be one that
    /// this build lacks.
    ///
    /// # Errors
    /// [`CodecError::Empty`] and [`CodecError::UnknownCodec`].
    pub fn of(coded: &[u8]) -> Result<Self, CodecError> {
        let (&first, rest) = coded.split_first().ok_or(CodecError::Empty)?;
        match first {
            TAG_RAW => Ok(Self::Raw),
            TAG_ZSTD => Ok(Self::Zstd),
            TAG_TEXT_BY_ID => {
                let id = rest.first_chunk().ok_or(CodecError::UnknownCodec(first))?;
                Ok(Self::Text(ModelName::Id(*id)))
            }
            TAG_DICTIONARY_MIN..=TAG_DICTIONARY_MAX => Ok(Self::Dictionary(first - TAG_DICTIONARY_MIN)),
            NUMBERS_START..NUMBERS_END => {
                Ok(Self::Text(ModelName::Number((first - NUMBERS_START) / NUMBER_SIZE)))
            }
            _ => Err(CodecError::UnknownCodec(first)),
        }
    }
}

/// The number of the dictionary that a first byte names, if it names one; known here or not.
pub fn dictionary_number(first: u8) -> Option<u8> {
    match Codec::of(&[first]) {
        Ok(Codec::Dictionary(number)) => Some(number),
        _ => None,
    }
}

/// The part of [`FIRST_BYTES`] that is a number's: where it begins, and its size.
const fn number_part(number: u8) -> (u32, u32) {
    assert!(number < NUMBERS, "no model has this number");
    (NUMBERS_START as u32 + number as u32 * NUMBER_SIZE as u32, NUMBER_SIZE as u32)
}

/// Begins a stream under a model that goes by this name, for [`open`]; its choices follow.
pub(crate) fn begin(name: ModelName, out: &mut Vec<u8>) -> Encoder<'_> {
    match name {
        ModelName::Number(number) => {
            let mut encoder = Encoder::new(out);
            let (start, size) = number_part(number);
            encoder.encode(start, size, FIRST_BYTES);
            encoder
        }
        ModelName::Id(id) => {
            out.push(TAG_TEXT_BY_ID);
            out.extend(id);
            Encoder::new(out)
        }
    }
}

/// What stands in a coded content.
#[derive(Debug)]
pub(crate) enum Opened<'a> {
    /// The content.
    Bytes(Cow<'a, [u8]>),
    /// Choices under a model, at hand or not; the first that is of the content is next.
    Choices(ModelName, Decoder<'a>),
}

/// Opens a coded content: bytes are decoded, at most `decoded_max` of them, and choices are ready to be read.
/// Allocates no more than that, beside contexts whose size does not depend on the input.
///
/// # Errors
/// Every [`CodecError`]; see there.
pub(crate) fn open(coded: &[u8], decoded_max: usize) -> Result<Opened<'_>, CodecError> {
    let codec = Codec::of(coded)?;
    let behind_tag = &coded[1..];
    let dictionary = match codec {
        Codec::Raw if behind_tag.len() > decoded_max => return Err(CodecError::TooLong { max: decoded_max }),
        Codec::Raw => return Ok(Opened::Bytes(Cow::Borrowed(behind_tag))),
        Codec::Zstd => None,
        Codec::Dictionary(number) => {
            Some(dictionary::decoder(number).ok_or(CodecError::UnknownDictionary(number))?)
        }
        Codec::Text(name) => {
            let decoder = match name {
                ModelName::Number(number) => {
                    let mut decoder = Decoder::new(coded);
                    let (start, size) = number_part(number);
                    decoder.take(start, size, decoder.unit(FIRST_BYTES));
                    decoder
                }
                ModelName::Id(id) => Decoder::new(&behind_tag[id.len()..]),
            };
            return Ok(Opened::Choices(name, decoder));
        }
    };
    Ok(Opened::Bytes(Cow::Owned(block::decompress(dictionary, behind_tag, decoded_max)?)))
}

/// Why a coded content was refused. All are the sender's doing (or the carrier's); nothing was kept of
/// the input, and decoding the same bytes again fails the same way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// There is not even a first byte.
    #[error("a coded content has at least one byte")]
    Empty,
    /// A first byte that names no coding here, or none that may stand in this place, or a model's id that is cut: the
    /// peer did not ask what we know.
    #[error("codec {0} is not known here")]
    UnknownCodec(u8),
    /// A dictionary that this build does not have: the peer did not ask what we have.
    #[error("dictionary {0} is not known here")]
    UnknownDictionary(u8),
    /// The content would be longer than the reader allows.
    #[error("the content is longer than {max} bytes")]
    TooLong {
        /// The reader's bound, bytes.
        max: usize,
    },
    /// The bytes behind the tag are no zstd block: cut, changed, or made with another dictionary.
    #[error("the coded content is damaged")]
    Corrupt,
}

/// Appends `content` to `out`, tag first, in the shortest coding that the peer can read, and says which
/// that was. Never appends more than `content.len() + 1` bytes.
///
/// The candidates are chosen by a look at the first bytes (script, JSON): at most three dictionaries, and
/// zstd without one for longer content. So a text costs tens of microseconds, however many dictionaries
/// there are.
pub fn encode_best(content: &[u8], peer_has: DictionarySet, out: &mut Vec<u8>) -> Codec {
    let mut best = Codec::Raw;
    let mut best_block = Vec::new();
    if (CODED_CONTENT_BYTES_MIN..=BLOCK_CONTENT_BYTES_MAX).contains(&content.len()) {
        let mut block = Vec::new();
        let mut attempt = |codec| {
            let bytes_max = if best == Codec::Raw { content.len() } else { best_block.len() };
            block.clear();
            if compress(codec, content, &mut block) && block.len() < bytes_max {
                std::mem::swap(&mut best_block, &mut block);
                best = codec;
            }
        };
        let candidates = dictionary::candidates(content, peer_has.intersection(DictionarySet::compiled_in()));
        for number in candidates.into_iter().take(DICTIONARIES_TRIED_MAX) {
            attempt(Codec::Dictionary(number));
        }
        if content.len() >= PLAIN_CONTENT_BYTES_MIN {
            attempt(Codec::Zstd);
        }
    }
    match best.tag() {
        Some(tag) if best != Codec::Raw => {
            out.push(tag);
            out.extend_from_slice(&best_block);
            best
        }
        _ => {
            out.push(TAG_RAW);
            out.extend_from_slice(content);
            Codec::Raw
        }
    }
}

/// Appends `content` to `out` in the coding named, tag first, even where raw would be shorter. Returns
/// false, with `out` as it was, where that coding cannot hold the content: too long, a dictionary that is
/// not compiled in, or bytes in which zstd finds nothing to save.
pub fn encode_as(codec: Codec, content: &[u8], out: &mut Vec<u8>) -> bool {
    let Some(tag) = codec.tag() else { return false };
    let start = out.len();
    out.push(tag);
    let coded = match codec {
        Codec::Raw => {
            out.extend_from_slice(content);
            true
        }
        _ => compress(codec, content, out),
    };
    if !coded {
        out.truncate(start);
    }
    coded
}

/// Appends the block of `content` to `out`; false if there is none, and `out` is then as it was.
fn compress(codec: Codec, content: &[u8], out: &mut Vec<u8>) -> bool {
    let (dictionary, bytes_max) = match codec {
        Codec::Raw | Codec::Text(_) => return false,
        Codec::Zstd => (None, BLOCK_CONTENT_BYTES_MAX),
        Codec::Dictionary(number) => match dictionary::encoder(number) {
            Some(dictionary) => (Some(dictionary), DICTIONARY_CONTENT_BYTES_MAX),
            None => return false,
        },
    };
    content.len() <= bytes_max && block::compress(dictionary, content, out)
}

/// Decodes what [`encode_best`] wrote: the tag byte and all that follows it. Allocates at most
/// `decoded_max` bytes, beside contexts whose size does not depend on the input.
///
/// # Errors
/// Every [`CodecError`]; see there. Texts under a model are unknown here.
pub fn decode(coded: &[u8], decoded_max: usize) -> Result<Cow<'_, [u8]>, CodecError> {
    match open(coded, decoded_max)? {
        Opened::Bytes(content) => Ok(content),
        Opened::Choices(..) => Err(CodecError::UnknownCodec(coded[0])),
    }
}

#[cfg(test)]
mod tests;
