//! The dictionaries that are compiled in, and which of them suit a content.
//!
//! A dictionary's number is part of the wire format: its bytes never change under the same number, and a
//! better one gets a new number. `assets/README.md` names the sources, their licences and the command that
//! makes the files again.

use std::sync::OnceLock;

use zstd::zstd_safe::{CDict, DDict};

use crate::codec::COMPRESSION_LEVEL;
use crate::text::{Look, Script};

/// Dictionary numbers that a peer has, one bit each (bit n is dictionary n).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct DictionarySet(u32);

impl DictionarySet {
    /// How many numbers there can be: 0 to 31.
    pub const NUMBERS: u8 = 32;
    /// No dictionary at all.
    pub const EMPTY: Self = Self(0);

    /// The dictionaries of this build.
    pub const fn compiled_in() -> Self {
        let mut bits = 0;
        let mut index = 0;
        while index < DICTIONARIES.len() {
            bits |= 1 << DICTIONARIES[index].number;
            index += 1;
        }
        Self(bits)
    }

    /// Whether dictionary `number` is in the set; false for numbers above 31.
    pub const fn contains(self, number: u8) -> bool {
        number < Self::NUMBERS && self.0 >> number & 1 == 1
    }

    /// What both sets have.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The set as it is sent.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// A set as it was received; numbers that this build does not know are kept.
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }
}

/// A dictionary of this build.
#[derive(Debug)]
#[non_exhaustive]
pub struct Dictionary {
    /// Its number on the wire, 0..=31.
    pub number: u8,
    /// Its file's name without the ending, in `assets/dict`.
    pub name: &'static str,
    /// The dictionary in zstd's format.
    pub bytes: &'static [u8],
    /// BLAKE3 of `bytes`, in hex. Pinned: another hash needs another number.
    pub blake3: &'static str,
    suits: Script,
}

macro_rules! dictionary {
    ($number:literal, $name:literal, $suits:ident, $blake3:literal) => {
        Dictionary {
            number: $number,
            name: $name,
            bytes: include_bytes!(concat!("../assets/dict/", $name, ".dict")),
            blake3: $blake3,
            suits: Script::$suits,
        }
    };
}

/// All dictionaries of this build, by number.
pub static DICTIONARIES: [Dictionary; 6] = [
    dictionary!(0, "english", Latin, "fa311c688f242a4f6a8609588b8315007917408cf18fc60a17d548ef1ba36328"),
    dictionary!(1, "cyrillic", Cyrillic, "f580fd7e4b9ce05a4512e581a5df535fc8f938f17192f5b4534e8dbc30ca5bac"),
    dictionary!(2, "latin", Latin, "0b24aca414f872427cb33b43edb83ceb8be68872cc5a5c33a198881cc7fcd912"),
    dictionary!(3, "arabic", Arabic, "271829e91ba65b320c4069e2235d4af267fa25111af74af2759d9bc6880be8e5"),
    dictionary!(
        4,
        "devanagari",
        Devanagari,
        "af8ddd6195539ce45c26e5217ac7e0e9836af98131f12d976669022439276560"
    ),
    dictionary!(5, "json", Json, "9d9cd533107d9231de1f6d98c077815cb4e09ec574bb36c21516550631fab425"),
];

/// The dictionary of that number, if this build has it.
pub fn by_number(number: u8) -> Option<&'static Dictionary> {
    DICTIONARIES.iter().find(|dictionary| dictionary.number == number)
}

/// Each dictionary made ready for compressing. That takes up to 4 ms and tables of 17 times the dictionary's
/// size (1.1 MB for 64 kB), so it happens at first use, once for all threads.
static ENCODERS: [OnceLock<CDict<'static>>; DICTIONARIES.len()] =
    [const { OnceLock::new() }; DICTIONARIES.len()];
/// The same for decompressing: 27 kB each.
static DECODERS: [OnceLock<DDict<'static>>; DICTIONARIES.len()] =
    [const { OnceLock::new() }; DICTIONARIES.len()];

pub(crate) fn encoder(number: u8) -> Option<&'static CDict<'static>> {
    let index = index_of(number)?;
    let prepare = || CDict::create_by_reference(DICTIONARIES[index].bytes, COMPRESSION_LEVEL);
    Some(ENCODERS[index].get_or_init(prepare))
}

pub(crate) fn decoder(number: u8) -> Option<&'static DDict<'static>> {
    let index = index_of(number)?;
    Some(DECODERS[index].get_or_init(|| DDict::create_by_reference(DICTIONARIES[index].bytes)))
}

fn index_of(number: u8) -> Option<usize> {
    DICTIONARIES.iter().position(|dictionary| dictionary.number == number)
}

/// The dictionaries among `allowed` that are worth a try for `content`, the likeliest first.
pub(crate) fn candidates(content: &[u8], allowed: DictionarySet) -> Vec<u8> {
    let suiting = Look::at(content).scripts().into_iter().flat_map(|script| {
        let suit = DICTIONARIES.iter().filter(move |dictionary| dictionary.suits == script);
        suit.map(|dictionary| dictionary.number)
    });
    suiting.filter(|&number| allowed.contains(number)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_dictionary_has_the_bytes_its_number_was_given_for() {
        for dictionary in &DICTIONARIES {
            assert_eq!(
                blake3::hash(dictionary.bytes).to_hex().as_str(),
                dictionary.blake3,
                "{} changed: it needs a new number",
                dictionary.name
            );
        }
    }

    #[test]
    fn numbers_are_distinct_and_within_the_set() {
        let set = DictionarySet::compiled_in();
        assert_eq!(set.bits().count_ones() as usize, DICTIONARIES.len());
        assert!(DICTIONARIES.iter().all(|dictionary| set.contains(dictionary.number)));
        assert!(!set.contains(31) && !set.contains(32) && !set.contains(255));
    }

    #[test]
    fn all_dictionaries_together_stay_below_400_kb() {
        assert!(DICTIONARIES.iter().map(|dictionary| dictionary.bytes.len()).sum::<usize>() <= 400_000);
    }

    #[test]
    fn a_look_finds_the_script_and_leaves_random_bytes_alone() {
        let all = DictionarySet::compiled_in();
        let first =
            |text: &str| candidates(text.as_bytes(), all).first().map(|&n| DICTIONARIES[n as usize].name);
        assert_eq!(first("See you at eight?"), Some("english"));
        assert_eq!(first("Увидимся в восемь?"), Some("cyrillic"));
        assert_eq!(first("أراك في الثامنة؟"), Some("arabic"));
        assert_eq!(first("आठ बजे मिलते हैं?"), Some("devanagari"));
        assert_eq!(first(r#"{"temp":3.5,"wind_dir":260}"#), Some("json"));
        assert_eq!(first("20:15 + 3 = ?"), None);
        let mut random = [0; 1024];
        blake3::Hasher::new().finalize_xof().fill(&mut random);
        assert!(candidates(&random, all).is_empty());
    }

    #[test]
    fn a_peer_without_dictionaries_gets_none() {
        assert!(candidates("See you at eight?".as_bytes(), DictionarySet::EMPTY).is_empty());
    }
}
