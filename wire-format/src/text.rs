//! Texts in a third of the bytes: a model that knows which letters follow which, and a range coder.
//!
//! A model is made once from training texts and frozen; both ends have it. Everything is integers, so that the
//! same text gives the same bytes on every machine. `PROTOCOL.md`, section "Text models", says how it works
//! in words that do for an implementation; `docs/decisions/0011` why it is so.
//!
//! Work and memory are bounded: less than half a microsecond a symbol, [`RUN_SYMBOLS_MAX`] symbols, no more letters than
//! bytes were allowed, and a decoder stops seven bytes behind the end.

use crate::codec::{self, Opened};

mod alphabet;
mod asset;
mod case;
mod coder;
mod favourite;
mod look;
mod model;
mod models;
mod range;
mod recent;

pub use alphabet::{Alphabet, END, LETTERS_MAX, OTHER, Symbol};
pub use asset::{ContextParts, Entry, Level, Parts, PartsError};
pub use coder::{RUN_SYMBOLS_MAX, Tally};
pub(crate) use favourite::Coded;
pub use favourite::Favourite;
pub use model::{CONTEXT_SYMBOLS_MAX, CONTEXTS_MAX, ENTRIES_MAX, Model, ModelId};
pub use models::{IDS_MAX, ModelName, ModelSet, Models, NUMBERED, NUMBERS, Numbered};
pub use recent::{AGREED_MAX, AGREED_MIN, AGREEMENTS, Hits, LIKELIHOODS};

pub(crate) use coder::{TextReader, TextWriter};
pub(crate) use look::{Look, Script};
pub(crate) use range::{AdaptiveBit, Coder, Decoder, Encoder, Lengths};

/// Why bytes are no run of texts under a model, or texts too much for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// Cut, changed, or written with another model.
    #[error("the coded text is damaged")]
    Corrupt,
    /// Longer than the reader allows.
    #[error("the text is longer than {max} bytes")]
    TooLong {
        /// The reader's bound, bytes.
        max: usize,
    },
    /// More symbols than a run may have.
    #[error("a run of texts has at most {RUN_SYMBOLS_MAX} symbols")]
    TooManySymbols,
}

/// The models at hand, of those that are `allowed`, that may suit a text; the likeliest kinds first.
pub(crate) fn suiting(text: &str, models: &Models, allowed: &ModelSet) -> Vec<ModelName> {
    models.suiting(&Look::at(text.as_bytes()), allowed)
}

/// A text coded alone with the best of the models that suit it and the reader has; `None` where there is no such model.
pub(crate) fn encode_best(
    text: &str,
    models: &Models,
    reader_has: &ModelSet,
    favourite: &mut Favourite,
) -> Option<Vec<u8>> {
    let suiting = suiting(text, models, reader_has);
    let best = favourite.best(&suiting, |name| {
        let mut bytes = Vec::new();
        encode(name, models.get(name)?, text, &mut bytes).ok()?;
        Some(Coded { items: 1, characters: text.chars().count(), bytes })
    });
    best.map(|coded| coded.bytes)
}

/// Appends a text, coded alone under a model that goes by this name.
///
/// # Errors
/// [`TextError::TooManySymbols`]; `out` is then as it was.
///
/// # Panics
/// When the name is a number of [`NUMBERS`] or above.
pub fn encode(name: ModelName, model: &Model, text: &str, out: &mut Vec<u8>) -> Result<(), TextError> {
    encode_run(name, model, [text], out)
}

/// Appends texts, coded in one run, each with its end.
///
/// # Errors
/// [`TextError::TooManySymbols`]; `out` is then as it was.
///
/// # Panics
/// When the name is a number of [`NUMBERS`] or above.
pub fn encode_run<'a>(
    name: ModelName,
    model: &Model,
    texts: impl IntoIterator<Item = &'a str>,
    out: &mut Vec<u8>,
) -> Result<(), TextError> {
    let start = out.len();
    let mut encoder = codec::begin(name, out);
    let mut writer = TextWriter::new(model);
    match texts.into_iter().try_for_each(|text| writer.write(&mut encoder, text)) {
        Ok(()) => {
            encoder.finish();
            Ok(())
        }
        Err(error) => {
            out.truncate(start);
            Err(error)
        }
    }
}

/// Reads what [`encode`] wrote under the same name.
///
/// # Errors
/// When the bytes are damaged or say another name, or the text has more than `bytes_max` bytes.
pub fn decode(name: ModelName, model: &Model, coded: &[u8], bytes_max: usize) -> Result<String, TextError> {
    match codec::open(coded, 0) {
        Ok(Opened::Choices(found, decoder)) if found == name => read_alone(model, decoder, bytes_max),
        _ => Err(TextError::Corrupt),
    }
}

/// Reads what [`encode_run`] wrote of so many texts under the same name.
///
/// # Errors
/// When the bytes are damaged or say another name, or the texts have more than `bytes_max` bytes together. Another count
/// than was written is noticed only where it is more than some bytes off.
pub fn decode_run(
    name: ModelName,
    model: &Model,
    coded: &[u8],
    count: usize,
    bytes_max: usize,
) -> Result<Vec<String>, TextError> {
    let Ok(Opened::Choices(found, mut decoder)) = codec::open(coded, 0) else {
        return Err(TextError::Corrupt);
    };
    if found != name {
        return Err(TextError::Corrupt);
    }
    let mut reader = TextReader::new(model);
    let mut left = bytes_max;
    let mut texts = Vec::new();
    for _ in 0..count {
        let mut text = String::new();
        reader.read(&mut decoder, &mut text, left)?;
        left -= text.len();
        texts.push(text);
    }
    ended(&decoder)?;
    Ok(texts)
}

/// Reads a text alone off a stream that was opened.
pub(crate) fn read_alone(
    model: &Model,
    mut decoder: Decoder<'_>,
    bytes_max: usize,
) -> Result<String, TextError> {
    let mut text = String::new();
    TextReader::new(model).read(&mut decoder, &mut text, bytes_max)?;
    ended(&decoder)?;
    Ok(text)
}

fn ended(decoder: &Decoder<'_>) -> Result<(), TextError> {
    if decoder.is_exhausted() || decoder.has_rest() { Err(TextError::Corrupt) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
