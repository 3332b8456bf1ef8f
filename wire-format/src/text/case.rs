//! Capital and small letters, as a table of its own: Unicode's grows from version to version, a format may not.

/// Capitals `first..=last` at every `step`, each with its small letter `distance` above it.
struct Pairs {
    first: u32,
    last: u32,
    step: u32,
    distance: u32,
}

const fn pairs(first: u32, last: u32, step: u32, distance: u32) -> Pairs {
    Pairs { first, last, step, distance }
}

/// In ascending order of the capitals. Letters whose partners are irregular (İ and ı, Ÿ) are not here: they
/// stand for themselves.
const PAIRS: [Pairs; 18] = [
    pairs(0x41, 0x5A, 1, 32),    // A-Z
    pairs(0xC0, 0xD6, 1, 32),    // Latin-1
    pairs(0xD8, 0xDE, 1, 32),    // Latin-1
    pairs(0x100, 0x12E, 2, 1),   // Latin Extended-A, but for the dotted and dotless I
    pairs(0x132, 0x136, 2, 1),   //
    pairs(0x139, 0x147, 2, 1),   //
    pairs(0x14A, 0x176, 2, 1),   //
    pairs(0x179, 0x17D, 2, 1),   //
    pairs(0x391, 0x3A1, 1, 32),  // Greek
    pairs(0x3A3, 0x3AB, 1, 32),  // Greek
    pairs(0x400, 0x40F, 1, 80),  // Cyrillic
    pairs(0x410, 0x42F, 1, 32),  // Cyrillic
    pairs(0x460, 0x480, 2, 1),   // Cyrillic, historic
    pairs(0x48A, 0x4BE, 2, 1),   // Cyrillic of other languages
    pairs(0x4C1, 0x4CD, 2, 1),   //
    pairs(0x4D0, 0x52E, 2, 1),   //
    pairs(0x531, 0x556, 1, 48),  // Armenian
    pairs(0x1EA0, 0x1EFE, 2, 1), // Vietnamese
];

/// The small letter of a capital, if the table has it.
pub(crate) fn small_of(letter: char) -> Option<char> {
    shifted(letter, 0, |code, pairs| code + pairs.distance)
}

/// The capital of a small letter, if the table has it.
pub(crate) fn capital_of(letter: char) -> Option<char> {
    shifted(letter, 1, |code, pairs| code - pairs.distance)
}

/// `side` is 0 where `letter` is to be a capital, 1 where it is to be small.
fn shifted(letter: char, side: u32, to: impl Fn(u32, &Pairs) -> u32) -> Option<char> {
    let code = u32::from(letter);
    let pairs = PAIRS.iter().find(|pairs| {
        let first = pairs.first + side * pairs.distance;
        let last = pairs.last + side * pairs.distance;
        (first..=last).contains(&code) && (code - first).is_multiple_of(pairs.step)
    })?;
    char::from_u32(to(code, pairs))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pair_is_one_of_unicode_and_leads_back() {
        let mut capitals = 0;
        for letter in (0..0x3000).filter_map(char::from_u32) {
            if let Some(small) = small_of(letter) {
                capitals += 1;
                assert_eq!(capital_of(small), Some(letter));
                assert!(letter.to_lowercase().eq([small]), "{letter} {small}");
                assert_eq!(small_of(small), None, "{small} is no capital");
            }
            if let Some(capital) = capital_of(letter) {
                assert_eq!(small_of(capital), Some(letter));
            }
        }
        assert!(capitals > 300, "{capitals}");
        assert_eq!([small_of('İ'), small_of('ı'), small_of('1'), small_of('ß'), small_of('×')], [None; 5]);
    }
}
