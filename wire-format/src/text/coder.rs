//! A run of texts under one model, written or read.

use super::TextError;
use super::alphabet::{CAPITAL, CAPITALS, Cases, END, OTHER, Step, Symbol};
use super::model::{Model, Place, Weights};
use super::range::{AdaptiveBit, Coder, Decoder, Encoder};
use super::recent::{Guess, Recent};

/// Most symbols in a run, marks and ends among them. Time grows with them, whatever they stand for: 4 ms for so many, at
/// worst.
pub const RUN_SYMBOLS_MAX: usize = 8_192;

/// What comes next, as far as model and run can tell.
#[derive(Debug)]
pub(super) struct Forecast<'a> {
    model: &'a Model,
    place: Place,
    recent: Recent,
    weights: Weights,
    sum: u32,
    guess: Option<Guess>,
    /// Of the run so far.
    symbols: usize,
}

impl<'a> Forecast<'a> {
    pub(super) fn new(model: &'a Model) -> Self {
        let mut forecast = Self {
            model,
            place: Place::new(),
            recent: Recent::new(&model.hits),
            weights: [0; 256],
            sum: 0,
            guess: None,
            symbols: 0,
        };
        // Before a text is what ends one.
        forecast.place.step(model, END);
        forecast.weigh();
        forecast
    }

    fn weigh(&mut self) {
        self.sum = self.place.weigh(self.model, &mut self.weights);
        self.guess = self.recent.weigh(&mut self.weights, &mut self.sum);
    }

    pub(super) fn step(&mut self, symbol: Symbol) {
        self.symbols += 1;
        self.recent.step(self.guess, symbol);
        if symbol == END {
            self.place = Place::new();
        }
        self.place.step(self.model, symbol);
        self.weigh();
    }

    /// What the run's past guesses for the next symbol.
    pub(super) fn guess(&self) -> Option<Guess> {
        self.guess
    }

    /// The part of the sum that is the symbol's: its start and its size.
    fn part(&self, symbol: Symbol) -> (u32, u32) {
        let symbol = usize::from(symbol);
        (self.weights[..symbol].iter().sum(), self.weights[symbol])
    }

    /// The symbol whose part a position lies in, and that part.
    fn symbol_at(&self, position: u32) -> (Symbol, u32, u32) {
        const ROW: usize = 16;
        let (mut start, mut symbol) = (0, 0);
        // Past whole rows first: their sums are quick.
        for row in self.weights.as_chunks::<ROW>().0 {
            let end = start + row.iter().sum::<u32>();
            if end > position {
                break;
            }
            (start, symbol) = (end, symbol + ROW);
        }
        while start + self.weights[symbol] <= position {
            start += self.weights[symbol];
            symbol += 1;
        }
        (symbol as Symbol, start, self.weights[symbol])
    }
}

/// Letters outside the alphabet, by their code points: the upper part seldom changes within a text, and the
/// lower six bits are learned.
#[derive(Debug)]
struct Others {
    block: u32,
    same_block: AdaptiveBit,
    /// A binary tree, each node the probability of its bit.
    lower: [AdaptiveBit; 1 << LOWER_BITS],
}

const LOWER_BITS: u32 = 6;
const BLOCK_BITS: u32 = 15;
const _: () = assert!(char::MAX as u32 >> LOWER_BITS < 1 << BLOCK_BITS);

impl Others {
    const fn new() -> Self {
        Self { block: 0, same_block: AdaptiveBit::EVEN, lower: [AdaptiveBit::EVEN; 1 << LOWER_BITS] }
    }

    fn code(&mut self, coder: &mut impl Coder, code: u32) -> u32 {
        let block = code >> LOWER_BITS;
        // Nought is "same", so that a decoder, which is given nothing, need not know.
        if coder.bit(&mut self.same_block, block != self.block) {
            self.block = coder.even(BLOCK_BITS, block);
        }
        let mut node = 1;
        for shift in (0..LOWER_BITS).rev() {
            let bit = coder.bit(&mut self.lower[node], code >> shift & 1 == 1);
            node = node << 1 | usize::from(bit);
        }
        self.block << LOWER_BITS | (node as u32 & ((1 << LOWER_BITS) - 1))
    }
}

/// Writes texts of one run.
#[derive(Debug)]
pub(crate) struct TextWriter<'a> {
    forecast: Forecast<'a>,
    others: Others,
}

impl<'a> TextWriter<'a> {
    pub(crate) fn new(model: &'a Model) -> Self {
        Self { forecast: Forecast::new(model), others: Others::new() }
    }

    /// Writes a text and its end.
    ///
    /// # Errors
    /// [`TextError::TooManySymbols`]; nothing of the text was written.
    pub(crate) fn write(&mut self, encoder: &mut Encoder<'_>, text: &str) -> Result<(), TextError> {
        let steps = self.forecast.model.alphabet.steps(text);
        if self.forecast.symbols + steps.len() + 1 > RUN_SYMBOLS_MAX {
            return Err(TextError::TooManySymbols);
        }
        for step in steps {
            self.write_symbol(encoder, step.symbol());
            if let Step::Other(letter) = step {
                self.others.code(encoder, u32::from(letter));
            }
        }
        self.write_symbol(encoder, END);
        Ok(())
    }

    /// Forgets how much was written, for texts that no reader takes.
    #[cfg(test)]
    pub(super) fn allow_more(&mut self) {
        self.forecast.symbols = 0;
    }

    fn write_symbol(&mut self, encoder: &mut Encoder<'_>, symbol: Symbol) {
        let (start, size) = self.forecast.part(symbol);
        encoder.encode(start, size, self.forecast.sum);
        self.forecast.step(symbol);
    }
}

/// Reads texts of one run.
#[derive(Debug)]
pub(crate) struct TextReader<'a> {
    forecast: Forecast<'a>,
    others: Others,
}

impl<'a> TextReader<'a> {
    pub(crate) fn new(model: &'a Model) -> Self {
        Self { forecast: Forecast::new(model), others: Others::new() }
    }

    /// Reads a text up to its end and appends it to `out`, which may not get longer than `bytes_max`.
    ///
    /// # Errors
    /// When the bytes are cut or no texts, or the text is too long or the run.
    pub(crate) fn read(
        &mut self,
        decoder: &mut Decoder<'_>,
        out: &mut String,
        bytes_max: usize,
    ) -> Result<(), TextError> {
        let mut cases = Cases::default();
        loop {
            let symbol = self.read_symbol(decoder)?;
            let letter = match symbol {
                END if cases.may_end() => return Ok(()),
                CAPITAL | CAPITALS if cases.mark(symbol) => continue,
                END | CAPITAL | CAPITALS => return Err(TextError::Corrupt),
                OTHER => char::from_u32(self.others.code(decoder, 0)).ok_or(TextError::Corrupt)?,
                symbol => self.forecast.model.alphabet.letter(symbol).ok_or(TextError::Corrupt)?,
            };
            let letter = cases.letter(letter);
            if out.len() + letter.len_utf8() > bytes_max {
                return Err(TextError::TooLong { max: bytes_max });
            }
            out.push(letter);
        }
    }

    fn read_symbol(&mut self, decoder: &mut Decoder<'_>) -> Result<Symbol, TextError> {
        if decoder.is_exhausted() {
            return Err(TextError::Corrupt);
        }
        if self.forecast.symbols == RUN_SYMBOLS_MAX {
            return Err(TextError::TooManySymbols);
        }
        let (position, unit) = decoder.position(self.forecast.sum);
        let (symbol, start, size) = self.forecast.symbol_at(position);
        decoder.take(start, size, unit);
        self.forecast.step(symbol);
        Ok(symbol)
    }
}

/// How often the run's past guessed what came, by class: of all guesses, those that came true.
///
/// For a trainer, which sets [`super::Hits`] by it.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// By agreement, then likelihood: guesses, and guesses that came true.
    pub guesses: std::collections::BTreeMap<(usize, usize), (u64, u64)>,
}

impl Tally {
    /// Goes through a run of texts as an encoder does.
    pub fn observe<'a>(&mut self, model: &Model, texts: impl IntoIterator<Item = &'a str>) {
        let mut forecast = Forecast::new(model);
        for text in texts {
            for symbol in model.alphabet.symbols_of(text) {
                if let Some(guess) = forecast.guess() {
                    let (agreement, likelihood, guessed) = Recent::classes(guess);
                    let (guesses, hits) = self.guesses.entry((agreement, likelihood)).or_default();
                    *guesses += 1;
                    *hits += u64::from(guessed == symbol);
                }
                forecast.step(symbol);
            }
        }
    }
}
