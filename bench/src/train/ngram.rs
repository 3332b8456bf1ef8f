//! Trains a text model: counts what follows what, and keeps what is worth its bytes.
//!
//! The same texts give the same bytes on every machine: sums run in a fixed order, and of floating point only what
//! IEEE 754 defines to the last bit is used.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use thinpost_wire::text::{
    AGREEMENTS, Alphabet, CONTEXT_SYMBOLS_MAX, ContextParts, END, Entry, Hits, LETTERS_MAX, LIKELIHOODS,
    Level, Model, Parts, Symbol, Tally,
};

/// Texts weigh this much, so that rarer things can weigh less.
const TEXT_WEIGHT: u64 = 10;
/// A fragment (six symbols at most) is kept only where it was seen this often.
const FRAGMENT_MIN: u64 = 2 * TEXT_WEIGHT;
/// A letter is in the alphabet when it was seen this often.
const LETTER_MIN: u64 = 8;
/// One text of so many is kept back to see how often guesses from the run's past come true.
const KEPT_BACK: usize = 8;
/// Texts in the runs that this is seen in.
const RUN_TEXTS: usize = 10;
/// What is believed before anything is seen weighs as much as so many guesses.
const BELIEF_GUESSES: f64 = 8.0;
/// The discount, 64ths of a count's square root.
const DISCOUNT: u8 = 64;

/// Longest fragment, symbols.
const GRAM_MAX: usize = CONTEXT_SYMBOLS_MAX + 1;

/// What a model is made of.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ingredients {
    /// Texts of the kind that the model is for.
    pub(crate) texts: Vec<String>,
    /// Some texts of other kinds: marks, links, a word of another language.
    pub(crate) others: Vec<String>,
    /// Words with their occurrences in a million.
    pub(crate) words: Vec<(String, u64)>,
}

/// Trains a model of at most `entries_max` entries.
pub(crate) fn train(from: &Ingredients, entries_max: usize) -> Result<Parts> {
    let is_kept_back = |index: usize| index % KEPT_BACK == KEPT_BACK - 1;
    let pick = |kept_back: bool| {
        let texts = from.texts.iter().enumerate();
        texts
            .filter(|&(index, _)| is_kept_back(index) == kept_back)
            .map(|(_, text)| text.clone())
            .collect::<Vec<_>>()
    };
    let believed = believed();
    let trial = Ingredients { texts: pick(false), ..from.clone() };
    let trial = Model::from_bytes(&counted(&trial, believed.clone(), entries_max)?.to_bytes()?)?;
    let mut tally = Tally::default();
    for run in pick(true).chunks(RUN_TEXTS) {
        tally.observe(&trial, run.iter().map(String::as_str));
    }
    counted(from, hits(&believed, &tally), entries_max)
}

/// What the model thinks of a guess is what it is worth, before anything is known.
fn believed() -> Hits {
    let mut hits = Hits([[0; LIKELIHOODS]; AGREEMENTS]);
    for row in &mut hits.0 {
        for (likelihood, hit) in row.iter_mut().enumerate() {
            *hit = (52_000u32 >> likelihood.min(12)) as u16;
        }
    }
    hits
}

fn hits(believed: &Hits, tally: &Tally) -> Hits {
    let mut hits = believed.clone();
    for (&(agreement, likelihood), &(guesses, true_ones)) in &tally.guesses {
        let hit = &mut hits.0[agreement][likelihood];
        let believed = f64::from(*hit) / 65536.0 * BELIEF_GUESSES;
        let share = (believed + true_ones as f64) / (BELIEF_GUESSES + guesses as f64);
        *hit = (share * 65535.0) as u16;
    }
    hits
}

fn counted(from: &Ingredients, hits: Hits, entries_max: usize) -> Result<Parts> {
    let letters = letters(from);
    let alphabet = Alphabet::new(letters.clone()).context("no alphabet")?;
    let mut grams = Grams::count(from, &alphabet);
    grams.estimate();
    grams.keep(entries_max);
    grams.estimate();
    let contexts = grams.contexts(&alphabet)?;
    Ok(Parts { letters, discount: DISCOUNT, hits, contexts })
}

/// Letters of the texts, and of others such as are no language's own.
fn letters(from: &Ingredients) -> Vec<char> {
    let mut seen: BTreeMap<char, u64> = BTreeMap::new();
    let mut see = |text: &str, all: bool| {
        for letter in text.chars().map(Alphabet::small) {
            if all || !letter.is_alphabetic() || letter.is_ascii() {
                *seen.entry(letter).or_default() += 1;
            }
        }
    };
    from.texts.iter().for_each(|text| see(text, true));
    from.others.iter().for_each(|text| see(text, false));
    let mut often: Vec<(char, u64)> = seen.into_iter().filter(|&(_, times)| times >= LETTER_MIN).collect();
    often.sort_by_key(|&(letter, times)| (std::cmp::Reverse(times), letter));
    often.truncate(LETTERS_MAX);
    let mut letters: Vec<char> = often.into_iter().map(|(letter, _)| letter).collect();
    letters.sort_unstable();
    letters
}

/// Fragments of one length.
#[derive(Default)]
struct Grams {
    by_length: Vec<Length>,
}

/// All fragments of one length: the last symbol is what follows, those before are its context.
#[derive(Default)]
struct Length {
    /// The symbols, eight bits each, ascending.
    keys: Vec<u64>,
    /// How often each was seen.
    seen: Vec<f64>,
    /// How often each is needed at this length: what longer contexts do not foretell.
    needed: Vec<f64>,
    kept: Vec<bool>,
    /// Its probability, with the help of shorter contexts.
    likely: Vec<f64>,
    /// The share that it has of its own in its context.
    share: Vec<f64>,
    /// The fragment without its first symbol, one length below.
    shorter: Vec<u32>,
    /// Its context as a fragment, one length below; itself where there is none.
    context: Vec<u32>,
}

impl Length {
    /// Fragments with the same context stand together: their ranges.
    fn groups(&self) -> impl Iterator<Item = std::ops::Range<usize>> {
        let mut start = 0;
        std::iter::from_fn(move || {
            let context = self.keys.get(start)? >> 8;
            let length = self.keys[start..].iter().take_while(|&&key| key >> 8 == context).count();
            start += length;
            Some(start - length..start)
        })
    }

    fn index_of(&self, key: u64) -> u32 {
        self.keys.binary_search(&key).unwrap_or(0) as u32
    }
}

impl Grams {
    fn count(from: &Ingredients, alphabet: &Alphabet) -> Self {
        let mut runs: Vec<(Vec<Symbol>, u64)> = Vec::new();
        for text in from.texts.iter().chain(&from.others) {
            let mut symbols = vec![END];
            symbols.extend(alphabet.symbols_of(text));
            runs.push((symbols, TEXT_WEIGHT));
        }
        for (word, per_million) in &from.words {
            let mut symbols = alphabet.symbols_of(&format!(" {word} "));
            symbols.pop();
            runs.push((symbols, *per_million));
        }
        let mut by_length: Vec<Length> = Vec::new();
        for length in 1..=GRAM_MAX {
            let mut all: Vec<(u64, u64)> = Vec::new();
            for (symbols, weight) in &runs {
                // What stands first in a run is context only.
                let ends = length.max(2)..=symbols.len();
                all.extend(ends.map(|end| (key(&symbols[end - length..end]), *weight)));
            }
            all.sort_unstable();
            let mut found = Length::default();
            for (key, weight) in all {
                if found.keys.last() != Some(&key) {
                    found.keys.push(key);
                    found.seen.push(0.0);
                }
                *found.seen.last_mut().expect("pushed") += weight as f64 / TEXT_WEIGHT as f64;
            }
            let grams = found.keys.len();
            (found.needed, found.likely, found.share) =
                (found.seen.clone(), vec![0.0; grams], vec![0.0; grams]);
            if let Some(below) = by_length.last() {
                let shorter_mask = (1u64 << (8 * (length - 1))) - 1;
                found.shorter = found.keys.iter().map(|key| below.index_of(key & shorter_mask)).collect();
                found.context = found.keys.iter().map(|key| below.index_of(key >> 8)).collect();
            }
            found.kept = found
                .seen
                .iter()
                .map(|&seen| length == 1 || seen * TEXT_WEIGHT as f64 >= FRAGMENT_MIN as f64)
                .collect();
            by_length.push(found);
        }
        let mut grams = Self { by_length };
        grams.drop_the_unreachable();
        grams
    }

    /// A context must be an entry itself to be reached.
    fn drop_the_unreachable(&mut self) {
        for length in 1..self.by_length.len() {
            let (below, here) = self.by_length.split_at_mut(length);
            for (kept, &context) in here[0].kept.iter_mut().zip(&here[0].context) {
                *kept &= below[length - 1].kept[context as usize];
            }
        }
    }

    /// Shares and probabilities, given what is kept.
    fn estimate(&mut self) {
        for length in (0..self.by_length.len()).rev() {
            if length + 1 < self.by_length.len() {
                let (here, above) = self.by_length.split_at_mut(length + 1);
                let (here, above) = (&mut here[length], &above[0]);
                here.needed.copy_from_slice(&here.seen);
                for gram in (0..above.keys.len()).filter(|&gram| above.kept[gram]) {
                    let left_over = discount(above.needed[gram]).min(above.seen[gram]);
                    here.needed[above.shorter[gram] as usize] -= above.seen[gram] - left_over;
                }
                here.needed.iter_mut().for_each(|needed| *needed = needed.max(1e-6));
            }
        }
        for length in 0..self.by_length.len() {
            let (below, here) = self.by_length.split_at_mut(length);
            let here = &mut here[0];
            for group in here.groups().collect::<Vec<_>>() {
                let total: f64 = here.needed[group.clone()].iter().sum();
                let mut rest = 1.0;
                for gram in group.clone() {
                    let needed = here.needed[gram];
                    here.share[gram] = (needed - discount(needed)).max(0.0) / total;
                    rest -= if here.kept[gram] { here.share[gram] } else { 0.0 };
                }
                for gram in group {
                    let shorter =
                        below.last().map_or(1.0 / 256.0, |below| below.likely[here.shorter[gram] as usize]);
                    let own = if here.kept[gram] { here.share[gram] } else { 0.0 };
                    here.likely[gram] = own + rest * shorter;
                }
            }
        }
    }

    /// Keeps the entries that save most, at most `entries_max`.
    fn keep(&mut self, entries_max: usize) {
        let gains = self.gains();
        if self.count_kept() <= entries_max {
            return;
        }
        // Bits that an entry must save, found by halving: the least that leaves few enough.
        let (mut low, mut high) = (0.0, 1024.0);
        for _ in 0..40 {
            let middle = (low + high) / 2.0;
            if count(&self.worth_keeping(&gains, middle)) > entries_max {
                low = middle
            } else {
                high = middle
            }
        }
        let kept = self.worth_keeping(&gains, high);
        for (length, kept) in self.by_length.iter_mut().zip(kept) {
            length.kept = kept;
        }
    }

    fn count_kept(&self) -> usize {
        self.by_length.iter().map(|length| length.kept.iter().filter(|&&kept| kept).count()).sum()
    }

    /// Bits that each entry saves over its training texts.
    fn gains(&self) -> Vec<Vec<f64>> {
        let gain = |length: usize, gram: usize| {
            let here = &self.by_length[length];
            let below = self.by_length[length - 1].likely[here.shorter[gram] as usize];
            let needed = here.needed[gram];
            (needed - discount(needed) / 2.0).max(0.0) * log2(here.likely[gram] / below)
        };
        let lengths = 0..self.by_length.len();
        lengths
            .map(|length| match length {
                0 => vec![f64::INFINITY; self.by_length[0].keys.len()],
                _ => (0..self.by_length[length].keys.len()).map(|gram| gain(length, gram)).collect(),
            })
            .collect()
    }

    /// Entries that save `bits_min`, themselves or with what hangs on them.
    fn worth_keeping(&self, gains: &[Vec<f64>], bits_min: f64) -> Vec<Vec<bool>> {
        let mut kept: Vec<Vec<bool>> = self.by_length.iter().map(|length| length.kept.clone()).collect();
        let mut hanging: Vec<f64> = vec![0.0; self.by_length.last().map_or(0, |length| length.keys.len())];
        for length in (1..self.by_length.len()).rev() {
            let here = &self.by_length[length];
            let mut hanging_below = vec![0.0; self.by_length[length - 1].keys.len()];
            for gram in 0..here.keys.len() {
                let surplus = gains[length][gram] + hanging[gram] - bits_min;
                kept[length][gram] &= surplus > 0.0;
                if kept[length][gram] {
                    hanging_below[here.context[gram] as usize] += surplus;
                }
            }
            hanging = hanging_below;
        }
        for length in 1..self.by_length.len() {
            let (below, here) = kept.split_at_mut(length);
            for (kept, &context) in here[0].iter_mut().zip(&self.by_length[length].context) {
                *kept &= below[length - 1][context as usize];
            }
        }
        kept
    }

    /// The contexts as a model's file has them.
    fn contexts(&self, alphabet: &Alphabet) -> Result<Vec<ContextParts>> {
        let least = Level::nearest(1.0);
        let mut contexts = Vec::new();
        for (length, here) in self.by_length.iter().enumerate() {
            let mut is_context = vec![false; here.keys.len()];
            if let Some(above) = self.by_length.get(length + 1) {
                for gram in (0..above.keys.len()).filter(|&gram| above.kept[gram]) {
                    is_context[above.context[gram] as usize] = true;
                }
            }
            for group in here.groups() {
                let kept = group.clone().filter(|&gram| here.kept[gram]);
                let entry = |gram: usize| Entry {
                    symbol: here.keys[gram] as Symbol,
                    level: Level::nearest(here.needed[gram]).max(least),
                    is_context: is_context[gram],
                };
                let entries: Vec<Entry> = kept.map(entry).collect();
                let rest: f64 = group.filter(|&gram| !here.kept[gram]).map(|gram| here.needed[gram]).sum();
                if !entries.is_empty() {
                    contexts.push(ContextParts { entries, rest: Level::nearest(rest) });
                }
            }
        }
        let Some(root) = contexts.first_mut() else { bail!("no text to train on") };
        for symbol in 0..alphabet.symbols() {
            let symbol = symbol as Symbol;
            if let Err(index) = root.entries.binary_search_by_key(&symbol, |entry| entry.symbol) {
                root.entries.insert(index, Entry { symbol, level: least, is_context: false });
            }
        }
        Ok(contexts)
    }
}

fn count(kept: &[Vec<bool>]) -> usize {
    kept.iter().flatten().filter(|&&kept| kept).count()
}

fn key(symbols: &[Symbol]) -> u64 {
    symbols.iter().fold(0, |key, &symbol| key << 8 | u64::from(symbol))
}

/// What a count gives up to those that were not seen; what is seen once gives up all.
fn discount(count: f64) -> f64 {
    let root = count.max(0.0).sqrt() * f64::from(DISCOUNT) / 64.0;
    if count < 1.0 { count } else { root }
}

/// The logarithm, by operations that give the same bits everywhere: a series of the area hyperbolic tangent.
fn log2(x: f64) -> f64 {
    let bits = x.to_bits();
    let exponent = (bits >> 52) as i64 - 1023;
    let mantissa = f64::from_bits(bits & ((1 << 52) - 1) | 1023 << 52);
    let z = (mantissa - 1.0) / (mantissa + 1.0);
    let (mut term, mut sum) = (z, 0.0);
    for odd in (1..40).step_by(2) {
        sum += term / f64::from(odd);
        term *= z * z;
    }
    exponent as f64 + 2.0 * sum * std::f64::consts::LOG2_E
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_logarithm_is_one() {
        for x in [1e-9, 0.3, 0.5, 0.99, 1.0, 1.5, 1.999, 2.0, 7.0, 1e9] {
            assert!((log2(x) - x.log2()).abs() < 1e-12, "{x}");
        }
    }
}
