//! Packs a parcel.

use std::cmp::Reverse;

use super::{Kind, MODELLED_BYTES_MAX, Odds, Reader, USUAL_PREFIX};
use crate::codec::{self, DictionarySet};
use crate::parcel::{Item, Parcel};
use crate::text::{Coded, Coder, Encoder, Favourite, Lengths, Model, ModelName, Models, TextWriter, suiting};

/// A parcel, packed for a reader. `favourite` is what served that reader best before.
pub fn pack(parcel: &Parcel<'_>, models: &Models, reader: Reader<'_>, favourite: &mut Favourite) -> Vec<u8> {
    let (items, packed) = Packing { parcel, models, reader, bytes_max: None }.best(favourite);
    debug_assert_eq!(items, parcel.items.len(), "without a bound it is all of them");
    packed
}

/// As [`pack`], with only as many of the parcel's letters, from the first on, as fit into so many bytes; the first in any case.
/// How many, and the bytes. A dictionary codec may hold one or two more, which is not tried out.
pub fn pack_within(
    bytes_max: usize,
    parcel: &Parcel<'_>,
    models: &Models,
    reader: Reader<'_>,
    favourite: &mut Favourite,
) -> (usize, Vec<u8>) {
    Packing { parcel, models, reader, bytes_max: Some(bytes_max) }.best(favourite)
}

/// What is to be packed, for whom, and how much may come of it.
pub(super) struct Packing<'a> {
    pub(super) parcel: &'a Parcel<'a>,
    pub(super) models: &'a Models,
    pub(super) reader: Reader<'a>,
    /// None: all of the letters.
    pub(super) bytes_max: Option<usize>,
}

impl Packing<'_> {
    /// How many letters, and the bytes.
    fn best(&self, favourite: &mut Favourite) -> (usize, Vec<u8>) {
        let items = &self.parcel.items;
        let Some(modelled) = self.by_model(favourite) else { return self.by_codec() };
        let coded = self.encode_first(modelled.items);
        let left_out = items.get(modelled.items);
        let is_text = left_out.is_none_or(|item| Kind::of(item.letter).text().is_some());
        if modelled.bytes.len() < coded.len() && is_text {
            return (modelled.items, modelled.bytes);
        }
        // What is no text takes a model a byte for each of its own.
        let candidates = [(modelled.items, modelled.bytes), (modelled.items, coded), self.by_codec()];
        let best = candidates.into_iter().min_by_key(|(items, bytes)| (Reverse(*items), bytes.len()));
        best.expect("there are three")
    }

    /// So many letters by the best codec.
    fn encode_first(&self, items: usize) -> Vec<u8> {
        let Parcel { incarnation, notes, items: all } = self.parcel;
        let parcel = Parcel { incarnation: *incarnation, notes: notes.clone(), items: all[..items].to_vec() };
        let mut coded = Vec::new();
        codec::encode_best(&parcel.encode(), DictionarySet::compiled_in(), &mut coded);
        coded
    }

    /// With no model.
    fn by_codec(&self) -> (usize, Vec<u8>) {
        let mut items = self.parcel.items.len();
        loop {
            let coded = self.encode_first(items);
            match self.bytes_max.filter(|max| coded.len() > *max && items > 1) {
                Some(max) => items = (items * max / coded.len()).clamp(1, items - 1),
                None => return (items, coded),
            }
        }
    }

    /// With the best of the models that suit what is in the parcel.
    fn by_model(&self, favourite: &mut Favourite) -> Option<Coded> {
        let Self { parcel, models, reader, .. } = self;
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
        favourite.best(&suiting, |name| self.write(name, models.get(name)?))
    }

    /// The stream of choices with as many letters as fit and a run may hold. None where that is not even the first; or, without a
    /// bound, not all.
    pub(super) fn write(&self, name: ModelName, model: &Model) -> Option<Coded> {
        let Self { parcel, reader, bytes_max, .. } = self;
        let mut out = Vec::new();
        let mut coder = codec::begin(name, &mut out);
        let odds = &mut Odds::new();
        if coder.bit(&mut odds.is_named, !reader.knows_incarnation) {
            coder.even(32, u32::from_be_bytes(parcel.incarnation.0));
        }
        let notes = if parcel.notes.is_empty() { None } else { Some(parcel.notes.encode()) };
        if coder.bit(&mut odds.has_notes, notes.is_some()) {
            write_bytes(&mut coder, &mut odds.lengths, &notes.unwrap_or_default());
        }
        if !coder.bit(&mut odds.has_letters, !parcel.items.is_empty()) {
            coder.finish();
            return Some(Coded { items: 0, characters: 0, bytes: out });
        }
        let mut texts = TextWriter::new(model);
        let mut next = parcel.items[0].number;
        coder.number(&mut odds.numbers, next);
        let (mut fitting, mut characters) = (None, 0);
        for (items, item) in (1..).zip(&parcel.items) {
            if items > 1 {
                coder.bit(&mut odds.goes_on, true);
                if coder.bit(&mut odds.skips, item.number != next) {
                    coder.number(&mut odds.numbers, item.number - next);
                }
            }
            next = item.number + 1;
            let Some(more) = write_letter(&mut coder, odds, &mut texts, item) else { break };
            characters += more;
            let coded = Coded { items, characters, bytes: ended(&coder, odds) };
            if bytes_max.is_some_and(|max| coded.bytes.len() > max) && items > 1 {
                break;
            }
            fitting = Some(coded);
        }
        fitting.filter(|coded| bytes_max.is_some() || coded.items == parcel.items.len())
    }
}

/// Writes a letter, and says how many characters of text it has; none if the run may not have so many symbols.
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
