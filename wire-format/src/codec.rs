//! How a batch or a body is squeezed: one tag byte, then the content in the coding that the tag names.
//!
//! The upper two bits of the tag are the version of this layout (0), the lower six say which coding:
//!
//! | id       | coding                                                             |
//! |----------|--------------------------------------------------------------------|
//! | 0        | raw: the content as it is                                          |
//! | 1        | one zstd block, no dictionary                                      |
//! | 2..=14   | texts under the [text model](crate::text) of number id - 2         |
//! | 15       | texts under the text model whose id's first four bytes follow      |
//! | 16..=47  | one zstd block with [`crate::dictionary`] number id - 16 |
//! | 48..=63  | kept                                                               |
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
use crate::text::{self, ModelName};

pub use crate::dictionary::DictionarySet;

mod block;

pub(crate) use block::LEVEL as COMPRESSION_LEVEL;

/// Version of the tag's layout, its upper two bits.
const VERSION: u8 = 0;
const ID_BITS: u32 = 6;
const ID_MASK: u8 = (1 << ID_BITS) - 1;
const ID_RAW: u8 = 0;
const ID_ZSTD: u8 = 1;
const ID_TEXT_MIN: u8 = 2;
const ID_TEXT_BY_ID: u8 = ID_TEXT_MIN + text::NUMBERS;
const ID_DICTIONARY_MIN: u8 = 16;
const ID_DICTIONARY_MAX: u8 = ID_DICTIONARY_MIN + DictionarySet::NUMBERS - 1;

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
    /// The tag byte of this coding, or `None` for a dictionary or a model whose number is too high.
    pub const fn tag(self) -> Option<u8> {
        let id = match self {
            Self::Raw => ID_RAW,
            Self::Zstd => ID_ZSTD,
            Self::Text(ModelName::Number(number)) if number < text::NUMBERS => ID_TEXT_MIN + number,
            Self::Text(ModelName::Id(_)) => ID_TEXT_BY_ID,
            Self::Dictionary(number) if number < DictionarySet::NUMBERS => ID_DICTIONARY_MIN + number,
            Self::Text(ModelName::Number(_)) | Self::Dictionary(_) => return None,
        };
        Some(VERSION << ID_BITS | id)
    }

    /// The tag, and a model's id behind it if it goes by one.
    pub(crate) fn head(self) -> Vec<u8> {
        let mut head: Vec<u8> = self.tag().into_iter().collect();
        if let Self::Text(ModelName::Id(id)) = self {
            head.extend(id);
        }
        head
    }

    /// Reads what [`Self::head`] wrote, and gives what is behind it. Neither dictionary nor model is looked up: it may
    /// be one that this build lacks.
    ///
    /// # Errors
    /// [`CodecError::Empty`], [`CodecError::UnknownVersion`], [`CodecError::UnknownCodec`], and
    /// [`CodecError::Corrupt`] where a model's id is cut.
    pub(crate) fn take(coded: &[u8]) -> Result<(Self, &[u8]), CodecError> {
        let (&tag, rest) = coded.split_first().ok_or(CodecError::Empty)?;
        if tag == VERSION << ID_BITS | ID_TEXT_BY_ID {
            let (id, rest) = rest.split_first_chunk().ok_or(CodecError::Corrupt)?;
            return Ok((Self::Text(ModelName::Id(*id)), rest));
        }
        Ok((Self::from_tag(tag)?, rest))
    }

    /// Reads a tag byte that stands alone.
    ///
    /// # Errors
    /// [`CodecError::UnknownVersion`] and [`CodecError::UnknownCodec`].
    pub const fn from_tag(tag: u8) -> Result<Self, CodecError> {
        if tag >> ID_BITS != VERSION {
            return Err(CodecError::UnknownVersion(tag >> ID_BITS));
        }
        match tag & ID_MASK {
            ID_RAW => Ok(Self::Raw),
            ID_ZSTD => Ok(Self::Zstd),
            id if ID_TEXT_MIN <= id && id < ID_TEXT_BY_ID => {
                Ok(Self::Text(ModelName::Number(id - ID_TEXT_MIN)))
            }
            id @ ID_DICTIONARY_MIN..=ID_DICTIONARY_MAX => Ok(Self::Dictionary(id - ID_DICTIONARY_MIN)),
            id => Err(CodecError::UnknownCodec(id)),
        }
    }
}

/// The number of the dictionary that a tag byte names, if it names one; known here or not.
pub const fn dictionary_number(tag: u8) -> Option<u8> {
    match Codec::from_tag(tag) {
        Ok(Codec::Dictionary(number)) => Some(number),
        _ => None,
    }
}

/// Why a coded content was refused. All are the sender's doing (or the carrier's); nothing was kept of
/// the input, and decoding the same bytes again fails the same way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// There is not even a tag byte.
    #[error("a coded content needs at least its tag byte")]
    Empty,
    /// A version of the tag's layout that this build does not know: the peer is newer.
    #[error("codec layout version {0} is not known here (known: {VERSION})")]
    UnknownVersion(u8),
    /// A codec id that this build does not know: the peer did not ask what we know.
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
            out.push(VERSION << ID_BITS | ID_RAW);
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
/// Every [`CodecError`]; see there.
pub fn decode(coded: &[u8], decoded_max: usize) -> Result<Cow<'_, [u8]>, CodecError> {
    let (&tag, rest) = coded.split_first().ok_or(CodecError::Empty)?;
    let dictionary = match Codec::from_tag(tag)? {
        Codec::Raw if rest.len() > decoded_max => return Err(CodecError::TooLong { max: decoded_max }),
        Codec::Raw => return Ok(Cow::Borrowed(rest)),
        Codec::Zstd => None,
        Codec::Text(_) => return Err(CodecError::UnknownCodec(tag & ID_MASK)),
        Codec::Dictionary(number) => {
            Some(dictionary::decoder(number).ok_or(CodecError::UnknownDictionary(number))?)
        }
    };
    block::decompress(dictionary, rest, decoded_max).map(Cow::Owned)
}

#[cfg(test)]
mod tests;
