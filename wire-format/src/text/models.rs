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
        "a3691f15fbb2d5a88da3a1fa4ece2c76a0287d0dff23a0d89a99e1d7bcfb161b"
    ),
    numbered!(
        "russian",
        "models-ru",
        &[Cyrillic],
        "16054ff02bf1fc09c444083de7f0c91c28fea60146624cd34d6584f2629dd8d6"
    ),
    numbered!(
        "spanish",
        "models-es",
        &[Latin],
        "3f7abf87bb94a32dfae13456d63683997bcee3f60c449ce2ae0a12bd009cee78"
    ),
    numbered!(
        "portuguese",
        "models-pt",
        &[Latin],
        "4bfe9fc1c9cfc1180c7cf3b1c0579cc7b17aa044cdd2e33d934b3425d351e733"
    ),
    numbered!(
        "french",
        "models-fr",
        &[Latin],
        "d9ccaac375ea34272ca1ca550219e5605db297539d4c88fd7912261eaf1baea9"
    ),
    numbered!(
        "arabic",
        "models-ar",
        &[Arabic],
        "f1e1bfa2cbdc457439b7e3b83e6fdc5a941de57398d9ddeed73fc565fdf9cce9"
    ),
    numbered!(
        "hindi",
        "models-hi",
        &[Devanagari, Latin],
        "66b9d2f34f067141ff656c63289ca8ab348041ba84c23cb0300b6e11469e9c40"
    ),
    numbered!(
        "indonesian",
        "models-id",
        &[Latin],
        "bf2699c76bf8f15a5abc8135f663bc51de6f25bf48cf315c0168b3b7cd2a2969"
    ),
    numbered!(
        "swahili",
        "models-sw",
        &[Latin],
        "49edb659c244c837fd6899e0d5366072543cf75ed4412a0b4e24a74ce057af0c"
    ),
    numbered!(
        "multilingual",
        "models-multi",
        &[Latin, Cyrillic, Arabic, Devanagari, Json, Other],
        "9e0aeebbf7f33b198596a73a57eb9c999b150895a733ab7ad1cc6f66dadfa405"
    ),
    numbered!(
        "json",
        "models-json",
        &[Json],
        "1fd98fd887d3fa8858d700a7931c1d19b3707ed0f7ae6fd7d4d6f8e6db5a6542"
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
