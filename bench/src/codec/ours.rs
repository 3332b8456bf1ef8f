//! The codecs of wire-format.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};

use anyhow::{Context, Result, anyhow, bail, ensure};
use thinpost_wire::codec::{self, Codec, DictionarySet};
use thinpost_wire::dictionary::DICTIONARIES;
use thinpost_wire::parcel::{Parcel, Reader, pack, unpack};
use thinpost_wire::text::{self, Favourite, Model, ModelName, ModelSet, Models, NUMBERED};
use zstd::zstd_safe::{CCtx, CDict, CParameter, DCtx, DDict, DictAttachPref, ParamSwitch, get_error_name};

use super::way::{BETWEEN_TEXTS, Coder, Held, Told};

/// Whatever the product would choose for a reader who has some text models; parcel after parcel, as for one contact.
#[derive(Debug)]
pub(super) struct Best {
    reader_has: ModelSet,
    favourite: RefCell<Favourite>,
}

impl Best {
    /// For a reader who has all models.
    pub(super) fn of_all() -> Self {
        Self { reader_has: Models::compiled_in().set(), favourite: RefCell::default() }
    }

    /// For a reader who has this model only.
    pub(super) fn of(model: ModelName) -> Self {
        let mut reader_has = ModelSet::EMPTY;
        reader_has.insert(model);
        Self { reader_has, favourite: RefCell::new(Favourite::new(model)) }
    }

    /// What is no parcel is left raw.
    fn pack(&self, content: &[u8]) -> Option<Vec<u8>> {
        let parcel = Parcel::decode(content).ok().filter(|parcel| parcel.encode() == content)?;
        let reader = Reader { models: &self.reader_has, knows_incarnation: false };
        Some(pack(&parcel, &Models::compiled_in(), reader, &mut self.favourite.borrow_mut()))
    }
}

impl Coder for Best {
    fn encode(&self, content: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.pack(content))
    }

    fn decode(&self, coded: &[u8], told: Told) -> Result<Vec<u8>> {
        Ok(unpack(coded, &Models::compiled_in(), None, told.bytes)?)
    }

    fn held(&self, contents: &[&[u8]]) -> Result<Held> {
        held_by_choice(contents, |content| self.pack(content))
    }
}

/// Of dictionaries and models only those that won are counted; the product also prepares those that it tried in vain.
fn held_by_choice(contents: &[&[u8]], code: impl Fn(&[u8]) -> Option<Vec<u8>>) -> Result<Held> {
    let (mut by_zstd, mut by_model) = (Vec::new(), BTreeSet::new());
    for &content in contents {
        let Some(coded) = code(content) else { continue };
        match Codec::of(&coded)? {
            Codec::Raw => {}
            Codec::Text(name) => drop(by_model.insert(name)),
            codec => by_zstd.push((codec, content)),
        }
    }
    let mut held = if by_zstd.is_empty() { Held::default() } else { zstd_held(by_zstd.into_iter())? };
    let models = models_held(by_model);
    held.encode_bytes += models.encode_bytes;
    held.decode_bytes += models.decode_bytes;
    Ok(held)
}

fn models_held(names: impl IntoIterator<Item = ModelName>) -> Held {
    let models = Models::compiled_in();
    let bytes = names.into_iter().filter_map(|name| models.get(name)).map(Model::memory_bytes).sum();
    Held { encode_bytes: bytes, decode_bytes: bytes }
}

/// Texts as a run under one model.
#[derive(Debug)]
pub(super) struct Run(pub(super) ModelName);

impl Coder for Run {
    fn encode(&self, content: &[u8]) -> Result<Option<Vec<u8>>> {
        let models = Models::compiled_in();
        let (Some(model), Ok(texts)) = (models.get(self.0), std::str::from_utf8(content)) else {
            return Ok(None);
        };
        let mut coded = Vec::new();
        let ran = text::encode_run(self.0, model, texts.split(char::from(BETWEEN_TEXTS)), &mut coded);
        Ok(ran.is_ok().then_some(coded))
    }

    fn decode(&self, coded: &[u8], told: Told) -> Result<Vec<u8>> {
        let models = Models::compiled_in();
        let model = models.get(self.0).context("no such model")?;
        let texts = text::decode_run(self.0, model, coded, told.texts, told.bytes)?;
        Ok(texts.join(&*char::from(BETWEEN_TEXTS).to_string()).into_bytes())
    }

    fn held(&self, _: &[&[u8]]) -> Result<Held> {
        Ok(models_held([self.0]))
    }
}

/// The shortest that our codecs have for texts, whatever they are. The product tries all that suit a text only now and then.
#[derive(Debug)]
pub(super) struct Shortest;

impl Coder for Shortest {
    fn encode(&self, content: &[u8]) -> Result<Option<Vec<u8>>> {
        let mut shortest = BestZstd.encode(content)?;
        for number in 0..NUMBERED.len() as u8 {
            let coded = Run(ModelName::Number(number)).encode(content)?;
            let is_shorter =
                |coded: &Vec<u8>| shortest.as_ref().is_none_or(|shortest| coded.len() < shortest.len());
            shortest = coded.filter(is_shorter).or(shortest);
        }
        Ok(shortest)
    }

    fn decode(&self, coded: &[u8], told: Told) -> Result<Vec<u8>> {
        match Codec::of(coded)? {
            Codec::Text(name) => Run(name).decode(coded, told),
            _ => BestZstd.decode(coded, told),
        }
    }

    fn held(&self, contents: &[&[u8]]) -> Result<Held> {
        let shortest: Vec<_> = contents.iter().map(|content| self.encode(content)).collect::<Result<_>>()?;
        let coded: HashMap<_, _> = contents.iter().copied().zip(shortest).collect();
        held_by_choice(contents, |content| coded[content].clone())
    }
}

/// zstd with the dictionary that suits best, or none.
#[derive(Debug)]
pub(super) struct BestZstd;

impl Coder for BestZstd {
    fn encode(&self, content: &[u8]) -> Result<Option<Vec<u8>>> {
        let mut coded = Vec::new();
        codec::encode_best(content, DictionarySet::compiled_in(), &mut coded);
        Ok(Some(coded))
    }

    fn decode(&self, coded: &[u8], told: Told) -> Result<Vec<u8>> {
        Ok(codec::decode(coded, told.bytes)?.into_owned())
    }

    /// Of the dictionaries only those that won are counted; the product also prepares those that it tried in vain.
    fn held(&self, contents: &[&[u8]]) -> Result<Held> {
        let choose = |content| codec::encode_best(content, DictionarySet::compiled_in(), &mut Vec::new());
        let coded = contents.iter().map(|&content| (choose(content), content));
        zstd_held(coded.filter(|(codec, _)| *codec != Codec::Raw))
    }
}

/// Always the same of our codecs with zstd.
#[derive(Debug)]
pub(super) struct Zstd(pub(super) Codec);

impl Coder for Zstd {
    fn encode(&self, content: &[u8]) -> Result<Option<Vec<u8>>> {
        let mut coded = Vec::new();
        Ok(codec::encode_as(self.0, content, &mut coded).then_some(coded))
    }

    fn decode(&self, coded: &[u8], told: Told) -> Result<Vec<u8>> {
        Ok(codec::decode(coded, told.bytes)?.into_owned())
    }

    fn held(&self, contents: &[&[u8]]) -> Result<Held> {
        zstd_held(contents.iter().map(|&content| (self.0, content)))
    }
}

/// What zstd itself says of its memory: one context each way, and every dictionary that is used. wire-format keeps its
/// contexts to itself, so this makes one like them (wire-format/src/codec/block.rs), and checks that it codes
/// the same.
fn zstd_held<'a>(coded: impl Iterator<Item = (Codec, &'a [u8])>) -> Result<Held> {
    const LEVEL: i32 = 19;
    const TAG_BYTES: usize = 1;
    /// Frame header and block header, which our codec leaves out.
    const HEADERS_BYTES: usize = 9;
    let prepared: Vec<(CDict<'_>, DDict<'_>)> = DICTIONARIES
        .iter()
        .map(|dictionary| {
            let bytes = dictionary.bytes;
            (CDict::create_by_reference(bytes, LEVEL), DDict::create_by_reference(bytes))
        })
        .collect();
    let mut used = BTreeSet::new();
    let mut held = Held { encode_bytes: 0, decode_bytes: DCtx::create().sizeof() };
    let mut context = CCtx::try_create().ok_or_else(|| anyhow!("no memory for zstd"))?;
    for parameter in [
        CParameter::ContentSizeFlag(false),
        CParameter::ChecksumFlag(false),
        CParameter::DictIdFlag(false),
        CParameter::ForceAttachDict(DictAttachPref::ForceAttach),
        CParameter::UseBlockSplitter(ParamSwitch::Disable),
        CParameter::CompressionLevel(LEVEL),
        CParameter::HashLog(14),
        CParameter::ChainLog(15),
    ] {
        context.set_parameter(parameter).map_err(zstd_error)?;
    }
    for (codec, content) in coded {
        let mut ours = Vec::new();
        if !codec::encode_as(codec, content, &mut ours) {
            continue;
        }
        let index = match codec {
            Codec::Zstd => None,
            Codec::Dictionary(number) => DICTIONARIES.iter().position(|other| other.number == number),
            other => bail!("{other:?} is not coded by zstd"),
        };
        match index {
            Some(index) => context.ref_cdict(&prepared[index].0),
            None => context.disable_dictionary(),
        }
        .map_err(zstd_error)?;
        used.extend(index);
        let mut frame = Vec::with_capacity(content.len() + HEADERS_BYTES);
        context.compress2(&mut frame, content).map_err(zstd_error)?;
        ensure!(
            frame.len() - HEADERS_BYTES == ours.len() - TAG_BYTES,
            "wire-format uses zstd in another way than bench thinks"
        );
        held.encode_bytes = held.encode_bytes.max(context.sizeof());
    }
    for index in used {
        let (encoder, decoder) = &prepared[index];
        held.encode_bytes += encoder.sizeof();
        held.decode_bytes += decoder.sizeof();
    }
    Ok(held)
}

fn zstd_error(code: usize) -> anyhow::Error {
    anyhow!("zstd: {}", get_error_name(code))
}
