//! The dictionaries: what each is made of.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::corpus;

/// A dictionary to be: its file's name, the training texts it is made of, its size.
pub(super) struct Plan {
    pub(super) name: &'static str,
    /// Files of training texts, and how many of their first lines. The lines after those are for what is
    /// trained on more text: another line would give another dictionary, and its bytes are fixed.
    sources: &'static [(&'static str, usize)],
    bytes: usize,
}

/// In the order of their numbers. Sizes: docs/decisions/0003.
pub(super) const PLANS: [Plan; 6] = [
    Plan { name: "english", sources: &[("en-chitchat", 11_000), ("en-irc", 6_000)], bytes: 64_000 },
    Plan { name: "cyrillic", sources: &[("ru-tatoeba", 11_000)], bytes: 64_000 },
    Plan {
        name: "latin",
        sources: &[
            ("es-tatoeba", 5_000),
            ("fr-tatoeba", 5_000),
            ("pt-tatoeba", 5_000),
            ("id-tatoeba", 3_139),
        ],
        bytes: 64_000,
    },
    Plan { name: "arabic", sources: &[("ar-tatoeba", 7_600)], bytes: 32_000 },
    Plan { name: "devanagari", sources: &[("hi-tatoeba", 3_811)], bytes: 32_000 },
    Plan { name: "json", sources: &[("json-weather", 1_000), ("json-quakes", 700)], bytes: 32_000 },
];

/// How many of the first lines of a file of training texts are in a dictionary.
pub(crate) fn dictionary_lines(file: &str) -> usize {
    let mut sources = PLANS.iter().flat_map(|plan| plan.sources);
    sources.find(|(source, _)| *source == file).map_or(0, |&(_, lines)| lines)
}

/// Texts in a training sample that is a batch.
const BATCH_TEXTS: usize = 12;

/// First numbers of batches in training samples are spread over what two bytes can say.
const BATCH_NUMBER_STEP: u64 = 37;
const BATCH_NUMBERS: u64 = 1 << 14;

/// One dictionary: each text once alone and once in a batch, shuffled, because the trainer looks for
/// phrases in the first three quarters of its list only.
pub(super) fn train(plan: &Plan, corpora: &Path) -> Result<Vec<u8>> {
    let mut lines = Vec::new();
    for &(source, count) in plan.sources {
        let path = corpora.join(format!("{source}.txt"));
        let texts = corpus::read_lines(&path)?;
        let found = texts.len();
        ensure!(found >= count, "{} has {found} lines, and {} takes {count}", path.display(), plan.name);
        lines.extend(texts.into_iter().take(count));
    }
    let mut samples: Vec<Vec<u8>> = lines.iter().map(|line| corpus::body(line)).collect();
    for (index, texts) in lines.chunks(BATCH_TEXTS).enumerate() {
        let first_number = 1 + index as u64 * BATCH_NUMBER_STEP % BATCH_NUMBERS;
        samples.push(corpus::batch(first_number, texts.iter().map(String::as_str)));
    }
    corpus::shuffle(&mut samples, corpus::SEED, Clone::clone);
    zstd::dict::from_samples(&samples, plan.bytes)
        .with_context(|| format!("training {} on {} samples", plan.name, samples.len()))
}

#[cfg(test)]
mod tests {
    use thinpost_wire::dictionary::DICTIONARIES;

    use super::*;

    #[test]
    fn training_again_gives_the_dictionaries_that_are_compiled_in() {
        let corpora = corpus::own_dir().join("train");
        assert_eq!(PLANS.len(), DICTIONARIES.len());
        for (plan, dictionary) in PLANS.iter().zip(&DICTIONARIES) {
            assert_eq!(plan.name, dictionary.name);
            assert!(train(plan, &corpora).unwrap() == dictionary.bytes, "{} differs", plan.name);
        }
    }
}
