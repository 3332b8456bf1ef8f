//! The ways to code that are compared.

use std::fmt;

use anyhow::{Context, Result};
use thinpost_wire::codec::Codec;
use thinpost_wire::dictionary::DICTIONARIES;
use thinpost_wire::text::{ModelName, NUMBERED};

use super::Of;
use super::others::{Brotli, Ppmd};
use super::ours::{Best, BestZstd, Run, Shortest, Zstd};

/// One coding. What it writes starts with a tag byte, which every content has: it says how to read the rest.
pub(super) trait Coder {
    /// `content` coded, or `None` where this coding cannot hold it.
    ///
    /// # Errors
    /// When the library fails where it should not.
    fn encode(&self, content: &[u8]) -> Result<Option<Vec<u8>>>;

    /// What [`Coder::encode`] was given.
    ///
    /// # Errors
    /// When `coded` cannot be read.
    fn decode(&self, coded: &[u8], told: Told) -> Result<Vec<u8>>;

    /// Memory that is held for these contents and that nobody would see by counting what is allocated
    /// while they are coded: made before, or by a C library.
    ///
    /// # Errors
    /// When it cannot be told.
    fn held(&self, contents: &[&[u8]]) -> Result<Held>;
}

/// What a reader is told beside the coded content. Only our codecs need it: the bytes as a bound, and how many texts there
/// are, which a run under a model does not say.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    pub(super) bytes: usize,
    pub(super) texts: usize,
}

impl Told {
    pub(super) fn of(content: &[u8]) -> Self {
        Self { bytes: content.len(), texts: content.split(|&byte| byte == BETWEEN_TEXTS).count() }
    }
}

/// Bytes of memory for each direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) encode_bytes: usize,
    pub(super) decode_bytes: usize,
}

/// A coding with its name in the report. Where it cannot hold a content or would make it longer, the content stays
/// raw, as in the product.
pub(super) struct Way {
    pub(super) name: String,
    coder: Box<dyn Coder>,
}

impl fmt::Debug for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Way").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Way {
    pub(super) fn new(name: impl Into<String>, coder: impl Coder + 'static) -> Self {
        Self { name: name.into(), coder: Box::new(coder) }
    }

    /// The best of ours first, then everything else that needs no training text.
    pub(super) fn all(of: Of) -> Vec<Self> {
        let mut ways = match of {
            Of::Texts => vec![Self::new(BEST, Shortest)],
            Of::Parcels => vec![Self::new(BEST, Best::of_all())],
        };
        ways.extend((0..NUMBERED.len() as u8).map(|number| {
            let name = ModelName::Number(number);
            match of {
                Of::Texts => Self::new(name_of(Codec::Text(name)), Run(name)),
                Of::Parcels => Self::new(name_of(Codec::Text(name)), Best::of(name)),
            }
        }));
        ways.push(Self::new("zstd, best dictionary", BestZstd));
        let zstd = |codec| Self::new(name_of(codec), Zstd(codec));
        ways.push(zstd(Codec::Zstd));
        ways.extend(DICTIONARIES.iter().map(|dictionary| zstd(Codec::Dictionary(dictionary.number))));
        ways.push(Self::new("brotli 11, its own dictionary", Brotli));
        ways.push(Self::new("PPMd H, order 5", Ppmd::new()));
        ways
    }

    pub(super) fn encode(&self, content: &[u8]) -> Result<Vec<u8>> {
        let coded = self.coder.encode(content).with_context(|| self.name.clone())?;
        let raw = || [&[RAW], content].concat();
        Ok(coded.filter(|coded| coded.len() <= content.len() + 1).unwrap_or_else(raw))
    }

    pub(super) fn decode(&self, coded: &[u8], told: Told) -> Result<Vec<u8>> {
        match coded.split_first() {
            Some((&RAW, content)) => Ok(content.to_vec()),
            _ => self
                .coder
                .decode(coded, told)
                .with_context(|| format!("{} wrote what cannot be decoded", self.name)),
        }
    }

    pub(super) fn held(&self, contents: &[&[u8]]) -> Result<Held> {
        self.coder.held(contents).with_context(|| format!("memory of {}", self.name))
    }
}

/// Stands between the texts of one content.
pub(super) const BETWEEN_TEXTS: u8 = b'\n';

const BEST: &str = "best (ours)";

/// What a coding of ours is called in the report.
pub(super) fn name_of(codec: Codec) -> String {
    match codec {
        Codec::Raw => "raw".to_owned(),
        Codec::Zstd => "zstd, no dictionary".to_owned(),
        Codec::Dictionary(number) => {
            let dictionary = DICTIONARIES.iter().find(|dictionary| dictionary.number == number);
            format!("zstd, {}", dictionary.map_or("another", |dictionary| dictionary.name))
        }
        Codec::Text(name) => {
            let numbered = match name {
                ModelName::Number(number) => NUMBERED.get(usize::from(number)),
                ModelName::Id(_) => None,
            };
            format!("text model, {}", numbered.map_or("another", |numbered| numbered.name))
        }
    }
}

pub(super) const RAW: u8 = match Codec::Raw.tag() {
    Some(tag) => tag,
    None => panic!("raw has a tag"),
};
