//! Packs a parcel.

use super::{Kind, MODELLED_BYTES_MAX, Odds, Reader, USUAL_PREFIX};
use crate::codec::{self, DictionarySet};
use crate::parcel::{Item, Parcel};
use crate::text::{Coded, Coder, Encoder, Favourite, Lengths, Model, ModelName, Models, TextWriter, suiting};

/// A parcel, packed for a reader. `favourite` is what served that reader best before.
pub fn pack(parcel: &Parcel<'_>, models: &Models, reader: Reader<'_>, favourite: &mut Favourite) -> Vec<u8> {
    pack_within(usize::MAX, parcel, models, reader, favourite).1
}

/// As [`pack`], with only as many of the parcel's letters, from the first on, as fit into so many bytes; the first in any case.
/// How many, and the bytes.
pub fn pack_within(
    bytes_max: usize,
    parcel: &Parcel<'_>,
    models: &Models,
    reader: Reader<'_>,
    favourite: &mut Favourite,
) -> (usize, Vec<u8>) {
    let Some(coded) = by_model(bytes_max, parcel, models, reader, favourite) else {
        return by_codec(bytes_max, parcel, parcel.items.len());
    };
    let plain = first(parcel, coded.items).encode();
    let mut other = Vec::new();
    codec::encode_best(&plain, DictionarySet::compiled_in(), &mut other);
    if coded.bytes.len() < other.len() {
        return (coded.items, coded.bytes);
    }
    // It may hold more of them than the model.
    let more = coded.items.saturating_mul(bytes_max) / other.len() + 1;
    by_codec(bytes_max, parcel, more.clamp(coded.items, parcel.items.len()))
}

/// The parcel with so many of its letters.
fn first<'a>(parcel: &Parcel<'a>, items: usize) -> Parcel<'a> {
    Parcel { items: parcel.items[..items].to_vec(), notes: parcel.notes.clone(), ..*parcel }
}

/// Packs with no model: at most so many letters.
fn by_codec(bytes_max: usize, parcel: &Parcel<'_>, mut items: usize) -> (usize, Vec<u8>) {
    loop {
        let mut coded = Vec::new();
        codec::encode_best(&first(parcel, items).encode(), DictionarySet::compiled_in(), &mut coded);
        if coded.len() <= bytes_max || items <= 1 {
            return (items, coded);
        }
        items = (items * bytes_max / coded.len()).clamp(1, items - 1);
    }
}

/// Packs with the best of the models that suit what is in the parcel.
fn by_model(
    bytes_max: usize,
    parcel: &Parcel<'_>,
    models: &Models,
    reader: Reader<'_>,
    favourite: &mut Favourite,
) -> Option<Coded> {
    if parcel.encode().len() > MODELLED_BYTES_MAX {
        return None;
    }
    let texts: Vec<&str> = parcel.items.iter().filter_map(|item| Kind::of(item.letter).text()).collect();
    let suiting = if texts.is_empty() {
        // Any model has the choices that are no text; the one in use is ready.
        favourite.name().filter(|&name| reader.models.contains(name)).into_iter().collect()
    } else {
        suiting(&texts.concat(), models, reader.models)
    };
    favourite.best(&suiting, |name| {
        let model = models.get(name)?;
        write(bytes_max, parcel, name, model, !reader.knows_incarnation)
    })
}

/// The stream of choices with as many letters as fit. None where even the first takes too many symbols.
pub(super) fn write(
    bytes_max: usize,
    parcel: &Parcel<'_>,
    name: ModelName,
    model: &Model,
    named: bool,
) -> Option<Coded> {
    let mut out = Vec::new();
    let mut coder = codec::begin(name, &mut out);
    let odds = &mut Odds::new();
    if coder.bit(&mut odds.is_named, named) {
        coder.even(32, u32::from_be_bytes(parcel.incarnation.0));
    }
    let notes = if parcel.notes.is_empty() { None } else { Some(parcel.notes.encode()) };
    if coder.bit(&mut odds.has_notes, notes.is_some()) {
        write_bytes(&mut coder, &mut odds.lengths, &notes.unwrap_or_default());
    }
    if !coder.bit(&mut odds.has_letters, !parcel.items.is_empty()) {
        coder.finish();
        return Some(Coded { items: 0, letters: 0, bytes: out });
    }
    let mut texts = TextWriter::new(model);
    let mut next = parcel.items[0].number;
    coder.number(&mut odds.numbers, next);
    let (mut fitting, mut letters) = (None, 0);
    for (items, item) in (1..).zip(&parcel.items) {
        if items > 1 {
            coder.bit(&mut odds.goes_on, true);
            if coder.bit(&mut odds.skips, item.number != next) {
                coder.number(&mut odds.numbers, item.number - next);
            }
        }
        next = item.number + 1;
        let Some(more) = write_letter(&mut coder, odds, &mut texts, item) else { break };
        letters += more;
        let coded = Coded { items, letters, bytes: ended(&coder, odds) };
        if coded.bytes.len() > bytes_max && items > 1 {
            break;
        }
        fitting = Some(coded);
    }
    // Without a bound it is all or nothing.
    fitting.filter(|coded| bytes_max < usize::MAX || coded.items == parcel.items.len())
}

/// Writes a letter, and says how many letters of text it has; none if the run may not have so many symbols.
fn write_letter(
    coder: &mut Encoder<'_>,
    odds: &mut Odds,
    texts: &mut TextWriter<'_>,
    item: &Item<'_>,
) -> Option<usize> {
    match Kind::of(item.letter) {
        Kind::Text { prefix, text } => {
            if coder.bit(&mut odds.is_unusual, prefix != USUAL_PREFIX) {
                coder.bit(&mut odds.is_bytes, false);
                write_bytes(coder, &mut odds.lengths, prefix);
            }
            texts.write(coder, text).ok()?;
            Some(text.chars().count())
        }
        Kind::Bytes => {
            coder.bit(&mut odds.is_unusual, true);
            coder.bit(&mut odds.is_bytes, true);
            write_bytes(coder, &mut odds.lengths, item.letter);
            Some(0)
        }
    }
}

/// What was written until now, if no more letters follow.
fn ended(coder: &Encoder<'_>, odds: &Odds) -> Vec<u8> {
    let mut out = Vec::new();
    let mut end = coder.fork(&mut out);
    end.bit(&mut odds.goes_on.clone(), false);
    end.finish();
    out
}

fn write_bytes(coder: &mut Encoder<'_>, lengths: &mut Lengths, bytes: &[u8]) {
    coder.number(lengths, bytes.len() as u64);
    for &byte in bytes {
        coder.even(8, u32::from(byte));
    }
}
