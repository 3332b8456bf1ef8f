//! A model: which letter follows which letters, as frozen counts.
//!
//! `PROTOCOL.md`, section "Text models", has the file's layout and the arithmetic. In short: contexts of up to
//! five symbols, each with the symbols seen behind it; from counts to shares of 65,536 by a discount of
//! the counts' square roots, what is discounted goes to the context that is one symbol shorter. (After Kneser
//! and Ney, 1995, whose discount is a constant; one that grows with the count forgives a text that is not of
//! the training's kind.)

use super::alphabet::{Alphabet, Symbol};
use super::asset::{Parts, PartsError};
use super::recent::Hits;

/// Longest context, symbols.
pub const CONTEXT_SYMBOLS_MAX: usize = 5;
/// Most entries (a symbol behind a context) that a model holds.
pub const ENTRIES_MAX: usize = 250_000;
/// Most contexts that a model holds.
pub const CONTEXTS_MAX: usize = 120_000;

/// A context's number; the empty one is 0.
pub(crate) type Context = u32;
const ROOT: Context = 0;

/// Shares are parts of this.
pub(crate) const SHARE_ONE: u32 = 1 << 16;

/// What a model knows, made ready for use: about 6 bytes a context and 3.5 an entry, shared and never changed.
pub struct Model {
    pub(super) alphabet: Alphabet,
    pub(super) hits: Hits,
    id: ModelId,
    /// Where each context's entries begin, and behind the last one their end.
    starts: Box<[u32]>,
    /// What a context leaves to the one that is a symbol shorter.
    rests: Box<[u16]>,
    symbols: Box<[Symbol]>,
    shares: Box<[u16]>,
    /// Which entries are contexts too. These have numbers in the entries' order, from 1 on.
    deeper: Ranks,
}

/// The first bytes of the BLAKE3 of a model's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModelId(pub [u8; 8]);

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model")
            .field("id", &self.id)
            .field("contexts", &self.rests.len())
            .field("entries", &self.symbols.len())
            .finish_non_exhaustive()
    }
}

impl Model {
    /// Reads a model's file: some 20 ms for one of 250 kB in a debug build, 2 ms in a release.
    ///
    /// # Errors
    /// When the bytes are no model of this version.
    pub fn from_bytes(file: &[u8]) -> Result<Self, PartsError> {
        let [a, b, c, d, e, f, g, h, ..] = *blake3::hash(file).as_bytes();
        Self::from_parts(&Parts::from_bytes(file)?, ModelId([a, b, c, d, e, f, g, h]))
    }

    pub(crate) fn from_parts(parts: &Parts, id: ModelId) -> Result<Self, PartsError> {
        let alphabet = Alphabet::new(parts.letters.clone()).ok_or(PartsError::Letters)?;
        parts.check(alphabet.symbols())?;
        let entries: usize = parts.contexts.iter().map(|context| context.entries.len()).sum();
        let mut starts = Vec::with_capacity(parts.contexts.len() + 1);
        let mut rests = Vec::with_capacity(parts.contexts.len());
        let (mut symbols, mut shares) = (Vec::with_capacity(entries), Vec::with_capacity(entries));
        let mut deeper = Ranks::with_capacity(entries);
        for context in &parts.contexts {
            starts.push(symbols.len() as u32);
            let total: u64 = context.entries.iter().map(|entry| entry.level.count()).sum();
            let total = total + context.rest.count();
            let mut rest = SHARE_ONE;
            for entry in &context.entries {
                let share = share(entry.level.count(), total, parts.discount);
                rest -= share;
                symbols.push(entry.symbol);
                shares.push(share as u16);
                deeper.push(entry.is_context);
            }
            rests.push(rest.min(SHARE_ONE - 1) as u16);
        }
        starts.push(symbols.len() as u32);
        Ok(Self {
            alphabet,
            hits: parts.hits.clone(),
            id,
            starts: starts.into(),
            rests: rests.into(),
            symbols: symbols.into(),
            shares: shares.into(),
            deeper,
        })
    }

    /// What the model is known by.
    pub const fn id(&self) -> ModelId {
        self.id
    }

    /// Bytes of memory that it takes.
    pub fn memory_bytes(&self) -> usize {
        size_of_val(&*self.starts)
            + size_of_val(&*self.rests)
            + size_of_val(&*self.symbols)
            + size_of_val(&*self.shares)
            + self.deeper.memory_bytes()
            + size_of_val(self.alphabet.letters())
            + size_of::<Self>()
    }

    fn entries(&self, context: Context) -> std::ops::Range<usize> {
        let context = context as usize;
        self.starts[context] as usize..self.starts[context + 1] as usize
    }

    fn deeper(&self, context: Context, symbol: Symbol) -> Option<Context> {
        let entries = self.entries(context);
        let place = match context {
            // It has an entry for every symbol.
            ROOT => usize::from(symbol),
            _ => self.symbols[entries.clone()].binary_search(&symbol).ok()?,
        };
        self.deeper.rank(entries.start + place)
    }
}

/// The share of an entry that was counted `count` times of `total`: less its discount, `discount` 64ths of the
/// count's square root.
fn share(count: u64, total: u64, discount: u8) -> u32 {
    let root = (count << 32).isqrt();
    ((count << 16).saturating_sub(root * u64::from(discount) / 64) / total) as u32
}

/// The contexts that end at one place of a text, by their length.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place([Option<Context>; CONTEXT_SYMBOLS_MAX + 1]);

/// What is still unspoken of at the longest context.
const WEIGHT_ONE: u32 = 1 << 24;
/// No context, however sure, leaves less than this to the shorter ones: a surprise costs some 14 bits, not 60.
const WEIGHT_MIN: u32 = 1 << 10;

impl Place {
    /// Before anything.
    pub(crate) const fn new() -> Self {
        let mut contexts = [None; CONTEXT_SYMBOLS_MAX + 1];
        contexts[0] = Some(ROOT);
        Self(contexts)
    }

    /// Steps behind `symbol`.
    pub(crate) fn step(&mut self, model: &Model, symbol: Symbol) {
        for length in (1..=CONTEXT_SYMBOLS_MAX).rev() {
            self.0[length] = self.0[length - 1].and_then(|context| model.deeper(context, symbol));
        }
    }

    /// How likely each symbol is next, as parts of the sum, each at least 1; that sum is returned, below 2^25.
    pub(crate) fn weigh(&self, model: &Model, weights: &mut Weights) -> u32 {
        let mut lefts = [0; CONTEXT_SYMBOLS_MAX + 1];
        let mut left = WEIGHT_ONE;
        for (given, context) in lefts.iter_mut().zip(&self.0).rev() {
            let Some(context) = context else { continue };
            *given = left;
            left = scaled(left, model.rests[*context as usize]).max(WEIGHT_MIN);
        }
        // The empty context has an entry for every symbol, in their order, so it goes first: nothing need be cleared.
        let symbols = model.alphabet.symbols();
        let least = 1 + left / symbols as u32;
        let mut sum = 0;
        for (weight, &share) in weights[..symbols].iter_mut().zip(&model.shares[..symbols]) {
            *weight = least + scaled_in_halves(lefts[0], share);
            sum += *weight;
        }
        for (&left, context) in lefts.iter().zip(&self.0).skip(1) {
            let Some(context) = context else { continue };
            let entries = model.entries(*context);
            for (&symbol, &share) in model.symbols[entries.clone()].iter().zip(&model.shares[entries]) {
                let part = scaled(left, share);
                weights[usize::from(symbol)] += part;
                sum += part;
            }
        }
        sum
    }
}

/// One weight for each symbol; those beyond the alphabet are not used.
pub(crate) type Weights = [u32; 256];

/// A share of a weight.
fn scaled(weight: u32, share: u16) -> u32 {
    ((u64::from(weight) * u64::from(share)) >> 16) as u32
}

/// The same of a weight up to [`WEIGHT_ONE`], in halves that fit 32 bits: in a row of shares several go at once.
fn scaled_in_halves(weight: u32, share: u16) -> u32 {
    let share = u32::from(share);
    (weight >> 16) * share + (((weight & 0xFFFF) * share) >> 16)
}

/// Bits in a row that know how many ones stand before each.
struct Ranks {
    words: Vec<u64>,
    before: Vec<u32>,
    len: usize,
}

impl Ranks {
    fn with_capacity(bits: usize) -> Self {
        let words = bits.div_ceil(64);
        Self { words: Vec::with_capacity(words), before: Vec::with_capacity(words), len: 0 }
    }

    fn push(&mut self, bit: bool) {
        if self.len.is_multiple_of(64) {
            let before =
                self.before.last().map_or(0, |before| before + self.words[self.words.len() - 1].count_ones());
            self.before.push(before);
            self.words.push(0);
        }
        self.words[self.len / 64] |= u64::from(bit) << (self.len % 64);
        self.len += 1;
    }

    /// The number of a set bit, from 1 on.
    fn rank(&self, index: usize) -> Option<u32> {
        let word = self.words[index / 64];
        let bit = index % 64;
        let up_to = word & (u64::MAX >> (63 - bit));
        (word >> bit & 1 == 1).then(|| self.before[index / 64] + up_to.count_ones())
    }

    fn memory_bytes(&self) -> usize {
        size_of_val(&*self.words) + size_of_val(&*self.before)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_share_is_the_same_in_halves(weight in 0..=WEIGHT_ONE, share: u16) {
            prop_assert_eq!(scaled_in_halves(weight, share), scaled(weight, share));
        }
    }

    #[test]
    fn the_largest_weight_and_share_fit_in_halves() {
        assert_eq!(scaled_in_halves(WEIGHT_ONE, u16::MAX), scaled(WEIGHT_ONE, u16::MAX));
    }
}
