//! Letters as symbols of one byte, and marks for what the letters do not say: an end, a capital.

use super::case;

/// Stands for a letter of the text, or for one of the marks below.
pub type Symbol = u8;

/// The end of a text; also what comes before its first letter.
pub const END: Symbol = 0;
/// A letter that has no symbol follows, as its code point.
pub const OTHER: Symbol = 1;
/// The next letter is a capital.
pub(crate) const CAPITAL: Symbol = 2;
/// From here on letters are capitals, or no longer.
pub(crate) const CAPITALS: Symbol = 3;
/// The first symbol of a letter.
pub(crate) const LETTERS_FROM: Symbol = 4;

/// Most letters that an alphabet holds.
pub const LETTERS_MAX: usize = 256 - LETTERS_FROM as usize;

/// So many capitals in a row are worth a [`CAPITALS`] mark before and one after.
const CAPITALS_MIN: usize = 3;

/// The letters of a model, in ascending order: symbol n is letter n - 4.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alphabet(Box<[char]>);

/// One step of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A mark, or a letter of the alphabet.
    Symbol(Symbol),
    /// A letter outside; [`OTHER`] stands for it.
    Other(char),
}

impl Step {
    pub(crate) const fn symbol(self) -> Symbol {
        match self {
            Self::Symbol(symbol) => symbol,
            Self::Other(_) => OTHER,
        }
    }
}

impl Alphabet {
    /// `None` where the letters do not ascend or are too many.
    pub fn new(letters: Vec<char>) -> Option<Self> {
        let fits = letters.len() <= LETTERS_MAX && letters.is_sorted_by(|a, b| a < b);
        fits.then(|| Self(letters.into()))
    }

    /// Marks and letters together.
    pub fn symbols(&self) -> usize {
        self.0.len() + usize::from(LETTERS_FROM)
    }

    pub(crate) fn letters(&self) -> &[char] {
        &self.0
    }

    fn step(&self, letter: char) -> Step {
        match self.0.binary_search(&letter) {
            Ok(index) => Step::Symbol(index as Symbol + LETTERS_FROM),
            Err(_) => Step::Other(letter),
        }
    }

    /// The letter of a symbol; `None` for marks and beyond the alphabet.
    pub(crate) fn letter(&self, symbol: Symbol) -> Option<char> {
        self.0.get(usize::from(symbol.checked_sub(LETTERS_FROM)?)).copied()
    }

    /// A text's symbols, its end included.
    pub fn symbols_of(&self, text: &str) -> Vec<Symbol> {
        self.steps(text).into_iter().map(Step::symbol).chain([END]).collect()
    }

    /// The letters as an alphabet has them: small, where there are two.
    pub fn small(letter: char) -> char {
        case::small_of(letter).unwrap_or(letter)
    }

    /// A text's steps, without its end.
    pub(crate) fn steps(&self, text: &str) -> Vec<Step> {
        let mut steps = Vec::with_capacity(text.len() + 4);
        let mut capitals = false;
        for (index, letter) in text.char_indices() {
            let small = case::small_of(letter);
            let small_letter = small.unwrap_or(letter);
            let has_capital = case::capital_of(small_letter).is_some();
            if has_capital && capitals != small.is_some() {
                let row =
                    || text[index..].chars().take(CAPITALS_MIN).filter(|&c| case::small_of(c).is_some());
                if capitals || row().count() == CAPITALS_MIN {
                    capitals = !capitals;
                    steps.push(Step::Symbol(CAPITALS));
                } else {
                    steps.push(Step::Symbol(CAPITAL));
                }
            }
            steps.push(self.step(small_letter));
        }
        steps
    }
}

/// Puts letters together again.
#[derive(Debug, Default)]
pub(crate) struct Cases {
    capital: bool,
    capitals: bool,
    marked: bool,
}

impl Cases {
    /// Takes a mark. False where none may stand: right behind another, so that there are never more than two
    /// steps to a letter.
    pub(crate) fn mark(&mut self, mark: Symbol) -> bool {
        let first = !std::mem::replace(&mut self.marked, true);
        match mark {
            CAPITAL => self.capital = true,
            _ => self.capitals = !self.capitals,
        }
        first
    }

    /// The letter as it was written, given it as the alphabet has it.
    pub(crate) fn letter(&mut self, letter: char) -> char {
        self.marked = false;
        let is_capital = std::mem::take(&mut self.capital) || self.capitals;
        if is_capital { case::capital_of(letter).unwrap_or(letter) } else { letter }
    }

    /// Whether a text may end here.
    pub(crate) fn may_end(&self) -> bool {
        !self.marked
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn alphabet() -> Alphabet {
        let mut letters: Vec<char> = " .?абвде".chars().chain('a'..='z').collect();
        letters.sort_unstable();
        Alphabet::new(letters).unwrap()
    }

    fn spelled(text: &str) -> String {
        let alphabet = alphabet();
        let name = |step| match step {
            Step::Symbol(CAPITAL) => '^',
            Step::Symbol(CAPITALS) => '%',
            Step::Symbol(symbol) => alphabet.letter(symbol).unwrap(),
            Step::Other(letter) => letter,
        };
        alphabet.steps(text).into_iter().map(name).collect()
    }

    #[test]
    fn a_capital_is_a_mark_and_a_row_of_them_is_two() {
        assert_eq!(spelled("How are You"), "^how are ^you");
        assert_eq!(spelled("I AM. AB"), "^i ^a^m. ^a^b");
        assert_eq!(spelled("OMG 3 YES yes"), "%omg 3 yes %yes");
        assert_eq!(spelled("Где"), "^где");
        assert_eq!(spelled("STRAßE"), "%straße");
        assert_eq!(spelled("ПРИВЕТ Привет"), "%привет п%ривет");
    }

    #[test]
    fn letters_ascend_and_fit_a_byte() {
        assert!(Alphabet::new(vec!['b', 'a']).is_none() && Alphabet::new(vec!['a', 'a']).is_none());
        let many = |count: u32| ('\u{100}'..).take(count as usize).collect();
        assert_eq!(Alphabet::new(many(252)).map(|alphabet| alphabet.symbols()), Some(256));
        assert!(Alphabet::new(many(253)).is_none());
    }

    proptest! {
        #[test]
        fn steps_lead_back_to_the_text(text in "[a-cA-CäÄЯя ß1İı\u{1F600}]{0,40}|.{0,40}") {
            let alphabet = alphabet();
            let mut cases = Cases::default();
            let mut found = String::new();
            for step in alphabet.steps(&text) {
                match step {
                    Step::Other(letter) => found.push(cases.letter(letter)),
                    Step::Symbol(mark @ (CAPITAL | CAPITALS)) => prop_assert!(cases.mark(mark)),
                    Step::Symbol(symbol) => found.push(cases.letter(alphabet.letter(symbol).unwrap())),
                }
            }
            prop_assert!(cases.may_end());
            prop_assert_eq!(found, text);
        }
    }
}
