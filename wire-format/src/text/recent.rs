//! What was said before, in the same run of texts: a name or a turn of phrase that comes again.
//!
//! The last three symbols lead to the place where they stood before, and what followed there is the guess. How
//! often such a guess comes true depends on how long the two places have agreed and on what the model thinks
//! of it; the model's file says how often, and the run goes on learning. (After the match model of the PAQ
//! compressors, Mahoney 2005, and their secondary estimation.)

use super::alphabet::Symbol;
use super::model::{SHARE_ONE, Weights};

/// A guess needs so many symbols that agree.
pub const AGREED_MIN: usize = 3;
/// Longer agreement counts as this much.
pub const AGREED_MAX: usize = 16;
/// Classes of agreement.
pub const AGREEMENTS: usize = AGREED_MAX - AGREED_MIN + 1;
/// Classes of what the model thinks: more than three quarters, more than a half, a quarter, ... less.
pub const LIKELIHOODS: usize = 17;

/// How often a guess comes true, of 65,536: by agreement, then by likelihood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hits(pub [[u16; LIKELIHOODS]; AGREEMENTS]);

/// A guess is never taken to be surer than this or less sure than the rest of it.
const HIT_MAX: u32 = SHARE_ONE - SHARE_ONE / 64;
const HIT_MIN: u32 = SHARE_ONE / 1024;
/// How fast the run learns: by 1/32 of the distance.
const HIT_RATE: u32 = 5;

const TABLE_BITS: u32 = 12;
/// No place yet.
const NOWHERE: u32 = 0;

/// The run so far.
#[derive(Clone, Debug)]
pub(crate) struct Recent {
    symbols: Vec<Symbol>,
    /// Where three symbols stood last: the place behind them, by their hash.
    places: Box<[u32; 1 << TABLE_BITS]>,
    /// The place of the guess, and how many symbols before it agree.
    guess: Option<(usize, usize)>,
    hits: Hits,
}

/// A guess that was weighed in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Guess {
    symbol: Symbol,
    agreement: usize,
    likelihood: usize,
}

impl Recent {
    pub(crate) fn new(hits: &Hits) -> Self {
        Self {
            symbols: Vec::new(),
            places: Box::new([NOWHERE; 1 << TABLE_BITS]),
            guess: None,
            hits: hits.clone(),
        }
    }

    /// Gives the guessed symbol the weight that it deserves; the others keep theirs. The new sum is below 2^32.
    pub(crate) fn weigh(&self, weights: &mut Weights, sum: &mut u32) -> Option<Guess> {
        let guess = self.guess(weights, *sum)?;
        let hit = u32::from(self.hits.0[guess.agreement][guess.likelihood]).clamp(HIT_MIN, HIT_MAX);
        let weight = &mut weights[usize::from(guess.symbol)];
        let others = *sum - *weight;
        *weight = (u64::from(others) * u64::from(hit) / u64::from(SHARE_ONE - hit)).max(1) as u32;
        *sum = others + *weight;
        Some(guess)
    }

    fn guess(&self, weights: &Weights, sum: u32) -> Option<Guess> {
        let (place, agreed) = self.guess?;
        let symbol = self.symbols[place];
        let weight = weights[usize::from(symbol)];
        let likelihood = match sum / weight {
            1 if u64::from(weight) * 4 > u64::from(sum) * 3 => 0,
            ratio => (1 + ratio.ilog2() as usize).min(LIKELIHOODS - 1),
        };
        Some(Guess { symbol, agreement: agreed.min(AGREED_MAX) - AGREED_MIN, likelihood })
    }

    /// Learns what came, and whether it was what was guessed.
    pub(crate) fn step(&mut self, guess: Option<Guess>, symbol: Symbol) {
        if let Some(guess) = guess {
            let hit = &mut self.hits.0[guess.agreement][guess.likelihood];
            if guess.symbol == symbol {
                *hit += (u16::MAX - *hit) >> HIT_RATE;
            } else {
                *hit -= *hit >> HIT_RATE;
            }
        }
        self.symbols.push(symbol);
        let behind = self.symbols.len();
        self.guess = match self.guess {
            Some((place, agreed)) if self.symbols[place] == symbol => Some((place + 1, agreed + 1)),
            _ => None,
        };
        let Some(&[a, b, c]) = self.symbols.last_chunk::<AGREED_MIN>() else { return };
        let hash = u32::from_le_bytes([a, b, c, 0]).wrapping_mul(0x9E37_79B1) >> (u32::BITS - TABLE_BITS);
        let place = std::mem::replace(&mut self.places[hash as usize], behind as u32) as usize;
        if self.guess.is_none() && place != NOWHERE as usize {
            let agreed = self.agreed(place);
            self.guess = (agreed >= AGREED_MIN).then_some((place, agreed));
        }
    }

    /// How many symbols before `place` are those before the end, up to [`AGREED_MAX`].
    fn agreed(&self, place: usize) -> usize {
        let (before, now) = (self.symbols[..place].iter().rev(), self.symbols.iter().rev());
        before.zip(now).take(AGREED_MAX).take_while(|(before, now)| before == now).count()
    }

    /// What was guessed for the next symbol, for a trainer: its agreement and likelihood, and the symbol.
    pub(crate) fn classes(guess: Guess) -> (usize, usize, Symbol) {
        (guess.agreement, guess.likelihood, guess.symbol)
    }
}
