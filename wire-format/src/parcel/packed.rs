//! A parcel as it is sealed: in the shortest coding that the other side can read.
//!
//! Either the parcel's bytes by a [`crate::codec`], or a stream of choices in which its texts are one run
//! under a text model. `PROTOCOL.md`, section "Packed parcels", has the layout.

use super::{Form, ShortIncarnation};
use crate::codec::{self, CodecError, Opened};
use crate::letter;
use crate::text::{
    AdaptiveBit, Coder, Decoder, Lengths, Model, ModelName, ModelSet, Models, TextError, TextReader,
};

mod pack;

pub use pack::{pack, pack_within};

/// Longer parcels, and longer letters, are not coded with a model, and none is read that says it is: what they allocate is
/// bounded by it, and by then zstd catches up. The time is bounded by [`RUN_SYMBOLS_MAX`](crate::text::RUN_SYMBOLS_MAX).
pub const MODELLED_BYTES_MAX: usize = 16 * 1024;

/// What the one who opens a parcel knows and has.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    /// The models that they have.
    pub models: &'a ModelSet,
    /// Whether they know whose numbers the parcel's are, by the session that it is sealed in.
    pub knows_incarnation: bool,
}

/// Why what was sealed gives no parcel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnpackError {
    /// Coded with a model that is not at hand.
    #[error("coded with a text model that is not here")]
    UnknownModel(ModelName),
    /// It does not say whose numbers it has, and the session does not either.
    #[error("a parcel that names no incarnation, in a session that has named none")]
    Unnamed,
    /// Not coded as this version codes.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// A text of it is damaged.
    #[error(transparent)]
    Text(#[from] TextError),
}

impl UnpackError {
    /// Whether it has more bytes than were allowed.
    pub fn is_too_long(&self) -> bool {
        matches!(self, Self::Codec(CodecError::TooLong { .. }) | Self::Text(TextError::TooLong { .. }))
    }
}

/// The parcel's bytes, for [`Parcel::decode`](super::Parcel::decode); `named` is the incarnation that the session has named, if any.
///
/// # Errors
/// When it is not packed as this version packs, with the models at hand, or has more than `bytes_max` bytes.
pub fn unpack(
    packed: &[u8],
    models: &Models,
    named: Option<ShortIncarnation>,
    bytes_max: usize,
) -> Result<Vec<u8>, UnpackError> {
    match codec::open(packed, bytes_max)? {
        Opened::Bytes(plain) => Ok(plain.into_owned()),
        Opened::Choices(name, decoder) => {
            let model = models.get(name).ok_or(UnpackError::UnknownModel(name))?;
            let bytes_max = bytes_max.min(MODELLED_BYTES_MAX);
            read(decoder, model, named, bytes_max).map_err(|error| match error {
                // Whatever was left of the bound when it was reached.
                UnpackError::Text(TextError::TooLong { .. }) => TextError::TooLong { max: bytes_max }.into(),
                error => error,
            })
        }
    }
}

/// How a letter goes into the stream.
enum Kind<'a> {
    /// As some bytes and a text.
    Text { prefix: &'a [u8], text: &'a str },
    /// As bytes.
    Bytes,
}

/// What stands before the text in most letters.
const USUAL_PREFIX: &[u8] = &[0];

impl<'a> Kind<'a> {
    fn of(letter: &'a [u8]) -> Self {
        let Some(content) = letter::plain_content(letter) else { return Self::Bytes };
        match std::str::from_utf8(content) {
            Ok(text) => Self::Text { prefix: &letter[..letter.len() - content.len()], text },
            Err(_) => Self::Bytes,
        }
    }

    fn text(&self) -> Option<&'a str> {
        match self {
            Self::Text { text, .. } => Some(text),
            Self::Bytes => None,
        }
    }
}

/// The probabilities of all that is no text. Each parcel begins with these and learns.
struct Odds {
    is_named: AdaptiveBit,
    has_notes: AdaptiveBit,
    has_letters: AdaptiveBit,
    goes_on: AdaptiveBit,
    skips: AdaptiveBit,
    is_unusual: AdaptiveBit,
    is_bytes: AdaptiveBit,
    numbers: Lengths,
    lengths: Lengths,
}

impl Odds {
    fn new() -> Self {
        Self {
            is_named: AdaptiveBit::EVEN,
            has_notes: AdaptiveBit::new(48 << 10),
            has_letters: AdaptiveBit::new(4 << 10),
            goes_on: AdaptiveBit::new(40 << 10),
            skips: AdaptiveBit::new(63 << 10),
            is_unusual: AdaptiveBit::new(60 << 10),
            is_bytes: AdaptiveBit::EVEN,
            numbers: Lengths::new(56 << 10, 8),
            lengths: Lengths::new(56 << 10, 5),
        }
    }
}

fn read(
    mut decoder: Decoder<'_>,
    model: &Model,
    named: Option<ShortIncarnation>,
    bytes_max: usize,
) -> Result<Vec<u8>, UnpackError> {
    let coder = &mut decoder;
    let odds = &mut Odds::new();
    let incarnation = if coder.bit(&mut odds.is_named, false) {
        ShortIncarnation(coder.even(32, 0).to_be_bytes())
    } else {
        named.ok_or(UnpackError::Unnamed)?
    };
    let mut form = Form::new(incarnation);
    let left = |form: &Form| bytes_max.saturating_sub(form.len());
    if coder.bit(&mut odds.has_notes, false) {
        form.notes(&read_bytes(coder, &mut odds.lengths, left(&form))?);
    }
    if coder.bit(&mut odds.has_letters, false) {
        let mut texts = TextReader::new(model);
        let mut number = coder.number(&mut odds.numbers, 0);
        if number == 0 {
            return Err(TextError::Corrupt.into());
        }
        loop {
            let mut letter = USUAL_PREFIX.to_vec();
            let is_unusual = coder.bit(&mut odds.is_unusual, false);
            let is_bytes = is_unusual && coder.bit(&mut odds.is_bytes, false);
            if is_unusual {
                letter = read_bytes(coder, &mut odds.lengths, left(&form))?;
            }
            if !is_bytes {
                let mut text = String::new();
                texts.read(coder, &mut text, left(&form))?;
                letter.extend(text.as_bytes());
            }
            form.item(number, &letter);
            if form.len() > bytes_max {
                return Err(TextError::TooLong { max: bytes_max }.into());
            }
            if !coder.bit(&mut odds.goes_on, false) {
                break;
            }
            let skips = coder.bit(&mut odds.skips, false);
            let skip = if skips { coder.number(&mut odds.numbers, 0) } else { 0 };
            if skips && skip == 0 {
                return Err(TextError::Corrupt.into());
            }
            number =
                number.checked_add(skip).and_then(|next| next.checked_add(1)).ok_or(TextError::Corrupt)?;
        }
    }
    if coder.is_exhausted() || coder.has_rest() {
        return Err(TextError::Corrupt.into());
    }
    Ok(form.finish())
}

fn read_bytes(
    coder: &mut Decoder<'_>,
    lengths: &mut Lengths,
    bytes_max: usize,
) -> Result<Vec<u8>, TextError> {
    let length = coder.number(lengths, 0);
    if length > bytes_max as u64 {
        return Err(TextError::TooLong { max: bytes_max });
    }
    let mut bytes = Vec::new();
    for _ in 0..length {
        if coder.is_exhausted() {
            return Err(TextError::Corrupt);
        }
        bytes.push(coder.even(8, 0) as u8);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
