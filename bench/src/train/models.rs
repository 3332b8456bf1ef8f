//! Which text models there are, what each is made of, and what its size buys.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use thinpost_wire::text::{self, Model, ModelName};

use super::ngram::{self, Ingredients};
use crate::corpus;
use crate::report::{Report, Row};

/// A text model to be.
pub(crate) struct Plan {
    /// Its file's name.
    pub(crate) name: &'static str,
    /// Files of training texts.
    pub(crate) sources: &'static [&'static str],
    /// No more lines than this of each.
    lines_max: usize,
    /// No more entries than this: so many as fit 256 kB.
    entries_max: usize,
    /// The list of frequent words.
    pub(crate) words: Option<&'static str>,
    /// Texts that nothing was trained on, to judge sizes by.
    pub(crate) held_out: &'static [&'static str],
}

const fn plan(
    name: &'static str,
    sources: &'static [&'static str],
    held_out: &'static [&'static str],
) -> Plan {
    Plan { name, sources, lines_max: usize::MAX, entries_max: 160_000, words: None, held_out }
}

impl Plan {
    /// The name of the model in coded texts: by its number.
    pub(crate) fn model_name(&self) -> ModelName {
        let number = (0..).zip(&PLANS).find(|(_, plan)| plan.name == self.name).map(|(number, _)| number);
        ModelName::Number(number.expect("a plan is one of the plans"))
    }

    const fn words(mut self, language: &'static str) -> Self {
        self.words = Some(language);
        self
    }

    const fn up_to(mut self, lines: usize, entries: usize) -> Self {
        (self.lines_max, self.entries_max) = (lines, entries);
        self
    }
}

/// In the order of their numbers.
pub(crate) const PLANS: [Plan; 11] = [
    plan("english", &["en-chitchat", "en-irc", "en-sms"], &["en-chat", "en-irc", "en-sms"]).words("en"),
    plan("russian", &["ru-tatoeba", "ru-social"], &["ru-everyday", "ru-social"]).words("ru"),
    plan("spanish", &["es-tatoeba"], &["es-everyday"]).words("es"),
    plan("portuguese", &["pt-tatoeba"], &["pt-everyday"]).words("pt"),
    plan("french", &["fr-tatoeba"], &["fr-everyday"]).words("fr"),
    plan("arabic", &["ar-tatoeba", "ar-darija-tweets"], &["ar-everyday", "ar-darija-tweets"]).words("ar"),
    plan("hindi", &["hi-tatoeba", "hi-hinglish"], &["hi-everyday", "hi-hinglish"]).words("hi"),
    plan("indonesian", &["id-tatoeba", "id-tweets"], &["id-everyday", "id-tweets"]).words("id"),
    plan("swahili", &["sw-tweets"], &["sw-tweets"]),
    plan("multilingual", &TEXTS, &["es-everyday", "fr-everyday", "ru-everyday", "hi-everyday"])
        .up_to(3_000, 145_000),
    plan("json", &["json-weather", "json-quakes"], &["json-weather", "json-quakes"]),
];

/// All sources of texts for people.
const TEXTS: [&str; 15] = [
    "en-chitchat",
    "en-irc",
    "en-sms",
    "ru-tatoeba",
    "ru-social",
    "es-tatoeba",
    "pt-tatoeba",
    "fr-tatoeba",
    "ar-tatoeba",
    "ar-darija-tweets",
    "hi-tatoeba",
    "hi-hinglish",
    "id-tatoeba",
    "id-tweets",
    "sw-tweets",
];

/// A model's file is not larger.
const FILE_BYTES_MAX: usize = 256_000;
/// So much of every other source goes into each model: marks, links, a word of another language.
const OTHERS_BYTES: usize = 20_000;

/// The model's file.
pub(crate) fn train(plan: &Plan, corpora: &Path) -> Result<Vec<u8>> {
    let file = file(plan, &ingredients(plan, corpora, &[])?)?;
    ensure!(file.len() <= FILE_BYTES_MAX, "{} has {} bytes; at most {FILE_BYTES_MAX}", plan.name, file.len());
    Ok(file)
}

/// The file of a model that is made of these.
pub(crate) fn file(plan: &Plan, from: &Ingredients) -> Result<Vec<u8>> {
    Ok(ngram::train(from, plan.entries_max)?.to_bytes()?)
}

/// What a model is made of, but for the sources `without`.
pub(crate) fn ingredients(plan: &Plan, corpora: &Path, without: &[&str]) -> Result<Ingredients> {
    let read = |source: &str| corpus::read_lines(&corpora.join("train").join(format!("{source}.txt")));
    let mut from = Ingredients::default();
    for source in plan.sources.iter().filter(|source| !without.contains(source)) {
        from.texts.extend(read(source)?.into_iter().take(plan.lines_max));
    }
    for source in TEXTS.iter().filter(|source| !plan.sources.contains(source)) {
        let mut bytes = 0;
        from.others.extend(read(source)?.into_iter().take_while(|line| {
            bytes += line.len();
            bytes <= OTHERS_BYTES
        }));
    }
    if let Some(language) = plan.words {
        let path = corpora.join("words").join(format!("{language}.txt"));
        for (number, line) in (1..).zip(corpus::read_lines(&path)?) {
            let entry =
                line.split_once(' ').and_then(|(count, word)| Some((word.to_owned(), count.parse().ok()?)));
            from.words.push(
                entry.with_context(|| format!("{}, line {number}: no count and word", path.display()))?,
            );
        }
    }
    Ok(from)
}

/// Prints what models of other sizes are and save.
pub(crate) fn sizes(plan: &Plan, corpora: &Path, report: &mut Report) -> Result<()> {
    let from = ingredients(plan, corpora, &[])?;
    for entries in [10_000, 20_000, 40_000, 80_000, plan.entries_max, text::ENTRIES_MAX] {
        let file = ngram::train(&from, entries)?.to_bytes()?;
        let model = Model::from_bytes(&file)?;
        let mode = format!("{} kB, {} kB in memory", file.len() / 1_000, model.memory_bytes() / 1_000);
        for held_out in plan.held_out {
            let lines = corpus::read_lines(&corpora.join("held-out").join(format!("{held_out}.txt")))?;
            let bytes = bytes_a_text(plan.model_name(), &model, &lines)?;
            report.row(Row::new("train", *held_out, bytes, "B/message").scenario(plan.name).mode(&mode))?;
        }
    }
    Ok(())
}

/// Bytes that a text takes alone, on average.
pub(crate) fn bytes_a_text(name: ModelName, model: &Model, texts: &[String]) -> Result<f64> {
    let mut coded = Vec::new();
    for text in texts {
        text::encode(name, model, text, &mut coded)?;
    }
    Ok(coded.len() as f64 / texts.len() as f64)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use thinpost_wire::text::NUMBERED;

    use super::*;

    #[test]
    fn each_model_of_the_protocol_has_a_plan() {
        let planned = PLANS.iter().map(|plan| plan.name);
        assert!(planned.eq(NUMBERED.iter().map(|numbered| numbered.name)));
    }

    /// A line that the model knows by heart costs next to nothing: it goes on by itself once it has begun. What several
    /// people wrote is no secret of one, so only lines count that are mostly their own.
    #[test]
    fn no_model_knows_a_line_of_its_training_texts_by_heart() {
        const WORDS: usize = 4;
        const LETTERS_MIN: usize = 32;
        const BITS_A_LETTER_MIN: f64 = 0.6;
        /// What says which model it is: 14 parts of 256.
        const NAME_BITS: f64 = 4.2;
        /// A debug build takes a millisecond for each.
        const ONE_OF: usize = 4;
        let phrases = |text: &str| -> BTreeSet<String> {
            text.split_whitespace().collect::<Vec<_>>().windows(WORDS).map(|words| words.join(" ")).collect()
        };
        let mut known = Vec::new();
        for (plan, numbered) in PLANS.iter().zip(&NUMBERED).filter(|(plan, _)| plan.name != "json") {
            let model = Model::from_bytes(numbered.file.unwrap()).unwrap();
            let texts = ingredients(plan, &corpus::own_dir(), &[]).unwrap().texts;
            let mut lines_with: BTreeMap<String, u32> = BTreeMap::new();
            texts
                .iter()
                .flat_map(|text| phrases(text))
                .for_each(|it| *lines_with.entry(it).or_default() += 1);
            for text in texts.iter().step_by(ONE_OF) {
                let letters = text.chars().count();
                let phrases = phrases(text);
                let own = phrases.iter().filter(|&phrase| lines_with[phrase] == 1).count();
                let repeats_itself = phrases.len() * 2 < text.split_whitespace().count();
                if letters < LETTERS_MIN || own * 2 < phrases.len() || repeats_itself {
                    continue;
                }
                let mut coded = Vec::new();
                text::encode(plan.model_name(), &model, text, &mut coded).unwrap();
                let bits = (coded.len() as f64 * 8.0 - NAME_BITS) / letters as f64;
                if bits < BITS_A_LETTER_MIN {
                    known.push(format!("{}: {bits:.2} {text}", plan.name));
                }
            }
        }
        assert!(known.is_empty(), "{known:#?}");
    }
}
