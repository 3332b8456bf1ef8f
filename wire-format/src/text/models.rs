//! The models that have numbers, and which of them (and which others) are at hand.

use std::sync::{Arc, OnceLock};

use super::asset::PartsError;
use super::look::{Look, Script};
use super::model::{Model, ModelId};
use crate::varint;

/// How a coded text says which model it is coded with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ModelName {
    /// A model of the protocol, by its number in [`NUMBERED`].
    Number(u8),
    /// Any other, by the first bytes of its [`ModelId`].
    Id([u8; 4]),
}

/// A model that the protocol gives a number to. Its bytes never change under that number.
#[derive(Debug)]
#[non_exhaustive]
pub struct Numbered {
    /// Its file's name without the ending, in `assets/models`; and `models-NAME` is the feature that compiles it in.
    pub name: &'static str,
    /// BLAKE3 of the file, in hex.
    pub blake3: &'static str,
    /// The file, if it is compiled in.
    pub file: Option<&'static [u8]>,
    suits: &'static [Script],
}

macro_rules! numbered {
    ($name:literal, $feature:literal, $suits:expr, $blake3:literal) => {
        Numbered {
            name: $name,
            blake3: $blake3,
            #[cfg(feature = $feature)]
            file: Some(include_bytes!(concat!("../../assets/models/", $name, ".model"))),
            #[cfg(not(feature = $feature))]
            file: None,
            suits: $suits,
        }
    };
}

use Script::{Arabic, Cyrillic, Devanagari, Json, Latin, Other};

/// All models of the protocol, by number.
pub static NUMBERED: [Numbered; 11] = [
    numbered!(
        "english",
        "models-en",
        &[Latin],
        "3e79cd38b06ff2a084509e88f29fb7ee22fc11e3970fbc4bf72ec4b2caaeae1d"
    ),
    numbered!(
        "russian",
        "models-ru",
        &[Cyrillic],
        "d41aee99947e5d8561e77bd99de343ea206903c8df9aec84841181430964ace3"
    ),
    numbered!(
        "spanish",
        "models-es",
        &[Latin],
        "94b09f479e4824fa8b7f0201dbcb9e7a10f8242cd32725d8ed0ca365110c7531"
    ),
    numbered!(
        "portuguese",
        "models-pt",
        &[Latin],
        "4413d7125c8381dc91c723548de8312ef8599af09ce735daae5bb8a5b0b51f40"
    ),
    numbered!(
        "french",
        "models-fr",
        &[Latin],
        "b0b1ef7ed7048c9490eef734899e08298dcf7157bbae3f8cdec4846a36fd6676"
    ),
    numbered!(
        "arabic",
        "models-ar",
        &[Arabic],
        "7b5755ad28402689be92209ca39485e00a96c15fdeb2c8456022348e000a56d6"
    ),
    numbered!(
        "hindi",
        "models-hi",
        &[Devanagari, Latin],
        "1c3d643fc94ef530dddb79b7f29ce3dbf88e8d84e262c6810a561f1b39c5bc0e"
    ),
    numbered!(
        "indonesian",
        "models-id",
        &[Latin],
        "c689aecb2f9fb4b2c433c3a7f320f7b57ab71fbf5f1ced546157ec88dde96d06"
    ),
    numbered!(
        "swahili",
        "models-sw",
        &[Latin],
        "2f4e94328b8547ff3547dd07aee1672741b58f60e2a76bcedaaf93d28d417613"
    ),
    numbered!(
        "multilingual",
        "models-multi",
        &[Latin, Cyrillic, Arabic, Devanagari, Json, Other],
        "536a5511f52c325205f418566add116f35f1b43200f8cdd5cc1714ad14833dff"
    ),
    numbered!(
        "json",
        "models-json",
        &[Json],
        "30a49a22d702138d8625c729ca2e2e8dc0b5f5f7317ddc921e2bc4f3ba61d407"
    ),
];

/// Room for so many numbers.
pub const NUMBERS: u8 = 13;
const _: () = assert!(NUMBERED.len() <= NUMBERS as usize);

/// Models that are compiled in are made ready when they are first used.
static COMPILED_IN: [OnceLock<Model>; NUMBERED.len()] = [const { OnceLock::new() }; NUMBERED.len()];

/// The models at hand: those that are compiled in, and those that were added.
#[derive(Clone, Debug, Default)]
pub struct Models {
    added: Vec<(ModelName, Arc<Model>)>,
}

impl Models {
    /// Those that are compiled in.
    pub const fn compiled_in() -> Self {
        Self { added: Vec::new() }
    }

    /// Adds a model from its file. Returns how it is named from now on.
    ///
    /// # Errors
    /// When the bytes are no model's file.
    pub fn add(&mut self, file: &[u8]) -> Result<ModelName, PartsError> {
        let hash = blake3::hash(file).to_hex();
        let number = (0..).zip(&NUMBERED).find(|(_, numbered)| numbered.blake3 == hash.as_str());
        let model = Model::from_bytes(file)?;
        let name = match number {
            Some((number, _)) => ModelName::Number(number),
            None => ModelName::Id(model.id().short()),
        };
        if self.get(name).is_none() {
            self.added.push((name, Arc::new(model)));
        }
        Ok(name)
    }

    /// The model of that name, if it is at hand.
    pub fn get(&self, name: ModelName) -> Option<&Model> {
        if let Some((_, model)) = self.added.iter().find(|(added, _)| *added == name) {
            return Some(model);
        }
        let ModelName::Number(number) = name else { return None };
        let index = usize::from(number);
        let file = NUMBERED.get(index)?.file?;
        // A test reads every one that is compiled in.
        Some(
            COMPILED_IN[index]
                .get_or_init(|| Model::from_bytes(file).expect("compiled in as it was trained")),
        )
    }

    /// What is said of them to others.
    pub fn set(&self) -> ModelSet {
        let compiled_in = (0..).zip(&NUMBERED).filter(|(_, numbered)| numbered.file.is_some());
        let mut set = ModelSet::default();
        compiled_in.for_each(|(number, _)| set.insert(ModelName::Number(number)));
        self.added.iter().for_each(|(name, _)| set.insert(*name));
        set
    }

    /// Those of `allowed` at hand that may suit a text, the likeliest kinds first. Models without a number
    /// are made for what is written, and come first.
    pub(super) fn suiting(&self, look: &Look, allowed: &ModelSet) -> Vec<ModelName> {
        let own = self.added.iter().map(|(name, _)| *name).filter(|name| matches!(name, ModelName::Id(_)));
        let numbered = look.scripts().into_iter().chain([Other]).flat_map(|script| {
            let suit = (0..).zip(&NUMBERED).filter(move |(_, numbered)| numbered.suits.contains(&script));
            suit.map(|(number, _)| ModelName::Number(number))
        });
        let mut names: Vec<ModelName> = Vec::new();
        for name in own.chain(numbered) {
            if allowed.contains(name) && self.has(name) && !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    fn has(&self, name: ModelName) -> bool {
        let compiled_in = |number: u8| NUMBERED.get(usize::from(number)).is_some_and(|it| it.file.is_some());
        matches!(name, ModelName::Number(number) if compiled_in(number))
            || self.added.iter().any(|(added, _)| *added == name)
    }
}

impl ModelId {
    const fn short(self) -> [u8; 4] {
        let [a, b, c, d, ..] = self.0;
        [a, b, c, d]
    }
}

/// Which models somebody has, as they say it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ModelSet {
    numbers: u16,
    ids: Vec<[u8; 4]>,
}

/// Of models without a number, so many are said at most.
pub const IDS_MAX: usize = 16;

impl ModelSet {
    /// Nothing.
    pub const EMPTY: Self = Self { numbers: 0, ids: Vec::new() };

    /// Whether it is among them.
    pub fn contains(&self, name: ModelName) -> bool {
        match name {
            ModelName::Number(number) => number < NUMBERS && self.numbers >> number & 1 == 1,
            ModelName::Id(id) => self.ids.contains(&id),
        }
    }

    /// Adds one; without effect beyond [`IDS_MAX`] or [`NUMBERS`].
    pub fn insert(&mut self, name: ModelName) {
        match name {
            ModelName::Number(number) if number < NUMBERS => self.numbers |= 1 << number,
            ModelName::Id(id) if self.ids.len() < IDS_MAX && !self.ids.contains(&id) => self.ids.push(id),
            ModelName::Number(_) | ModelName::Id(_) => {}
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.numbers == 0 && self.ids.is_empty()
    }

    /// Appends the set: its numbers as bits, how many ids, the ids.
    pub fn encode(&self, out: &mut Vec<u8>) {
        varint::put(out, u64::from(self.numbers));
        varint::put(out, self.ids.len() as u64);
        out.extend(self.ids.iter().flatten());
    }

    /// Takes a set off the front; numbers that are not known here are kept. `None` where there is none, or more
    /// than [`IDS_MAX`] ids.
    pub fn decode(input: &mut &[u8]) -> Option<Self> {
        let numbers = u16::try_from(varint::take(input).ok()?).ok()?;
        let count = usize::try_from(varint::take(input).ok()?).ok().filter(|&count| count <= IDS_MAX)?;
        let (ids, rest) = input.split_at_checked(count * 4)?;
        *input = rest;
        let ids = ids.as_chunks().0.to_vec();
        Some(Self { numbers, ids })
    }
}
