//! The ways to code that are compared.

use std::fmt;

use anyhow::{Context, Result};
use thinpost_wire::codec::Codec;
use thinpost_wire::dictionary::DICTIONARIES;
use thinpost_wire::text::NUMBERED;

use super::others::{Brotli, Ppmd};
use super::ours::{Best, BestZstd, Zstd};

/// One coding. What it writes starts with a tag byte, which every content has: it says how to read the rest.
pub(super) trait Coder {
    /// `content` coded, or `None` where this coding cannot hold it.
    ///
    /// # Errors
    /// When the library fails where it should not.
    fn encode(&self, content: &[u8]) -> Result<Option<Vec<u8>>>;

    /// What [`Coder::encode`] was given; it had `content_bytes` bytes. Only our codecs need that, as a bound.
    ///
    /// # Errors
    /// When `coded` cannot be read.
    fn decode(&self, coded: &[u8], content_bytes: usize) -> Result<Vec<u8>>;

    /// Memory that is held for these contents and that nobody would see by counting what is allocated
    /// while they are coded: made before, or by a C library.
    ///
    /// # Errors
    /// When it cannot be told.
    fn held(&self, contents: &[&[u8]]) -> Result<Held>;
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

    /// The product's choice first, then everything else that needs no training text.
    pub(super) fn all() -> Vec<Self> {
        let mut ways = vec![Self::new("best (ours)", Best::of_all())];
        ways.extend(
            (0..).zip(&NUMBERED).map(|(number, numbered)| {
                Self::new(format!("text model, {}", numbered.name), Best::of(number))
            }),
        );
        ways.push(Self::new("zstd, best dictionary", BestZstd));
        ways.push(Self::new("zstd, no dictionary", Zstd(Codec::Zstd)));
        ways.extend(DICTIONARIES.iter().map(|dictionary| {
            Self::new(format!("zstd, {}", dictionary.name), Zstd(Codec::Dictionary(dictionary.number)))
        }));
        ways.push(Self::new("brotli 11, its own dictionary", Brotli));
        ways.push(Self::new("PPMd H, order 5", Ppmd::new()));
        ways
    }

    pub(super) fn encode(&self, content: &[u8]) -> Result<Vec<u8>> {
        let coded = self.coder.encode(content).with_context(|| self.name.clone())?;
        let raw = || [&[RAW], content].concat();
        Ok(coded.filter(|coded| coded.len() <= content.len() + 1).unwrap_or_else(raw))
    }

    pub(super) fn decode(&self, coded: &[u8], content_bytes: usize) -> Result<Vec<u8>> {
        match coded.split_first() {
            Some((&RAW, content)) => Ok(content.to_vec()),
            _ => self
                .coder
                .decode(coded, content_bytes)
                .with_context(|| format!("{} wrote what cannot be decoded", self.name)),
        }
    }

    pub(super) fn held(&self, contents: &[&[u8]]) -> Result<Held> {
        self.coder.held(contents).with_context(|| format!("memory of {}", self.name))
    }
}

const RAW: u8 = match Codec::Raw.tag() {
    Some(tag) => tag,
    None => panic!("raw has a tag"),
};
