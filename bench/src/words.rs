//! `bench corpora --words-from`: lists of frequent words, made from the data of the Python package wordfreq.

use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::Path;

use anyhow::{Context, Result, bail};
use flate2::read::GzDecoder;
use serde::Deserialize;

use crate::report::{Report, Row};

/// Languages with a list, as wordfreq calls them.
const LANGUAGES: [&str; 8] = ["en", "ru", "es", "pt", "fr", "ar", "hi", "id"];

/// Words that are rarer than this, times per million words, are left out.
const PER_MILLION_MIN: u32 = 3;

/// The largest of the files unpacks to 1 MB; one that goes beyond this is none of them.
const UNPACKED_BYTES_MAX: u64 = 16 << 20;

/// Writes `words/LANG.txt` in `out` for each language: lines `COUNT WORD`, the most frequent first, words of
/// equal frequency in the order of their bytes. COUNT is how often the word occurs in a million words.
///
/// # Errors
/// When a file is missing, is not what wordfreq writes, or cannot be written.
pub(crate) fn run(wordfreq: &Path, out: &Path, report: &mut Report) -> Result<()> {
    let out = out.join("words");
    fs::create_dir_all(&out).with_context(|| format!("cannot create {}", out.display()))?;
    for language in LANGUAGES {
        let path = wordfreq.join(format!("small_{language}.msgpack.gz"));
        let bands = File::open(&path)
            .map_err(Into::into)
            .and_then(|file| read_bands(BufReader::new(file)))
            .with_context(|| format!("cannot read {}", path.display()))?;
        let words = frequent(bands);
        let mut text = String::new();
        for (count, word) in &words {
            text.push_str(&format!("{count} {word}\n"));
        }
        let path = out.join(format!("{language}.txt"));
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        report.row(Row::new("corpora", "lines", words.len() as f64, "").scenario(language).mode("words"))?;
    }
    Ok(())
}

/// One element of a file of wordfreq.
#[derive(Deserialize)]
#[serde(untagged)]
enum Element {
    Header { format: String, version: u64 },
    Words(Vec<String>),
}

/// Reads a gzipped file in the format "cB" of wordfreq (`read_cBpack` there): a MessagePack list of a header, then
/// lists of words. The words of list N, counted from 0 behind the header, are one in 10^(N / 100).
fn read_bands(packed: impl Read) -> Result<Vec<Vec<String>>> {
    let unpacked = GzDecoder::new(packed).take(UNPACKED_BYTES_MAX);
    let mut elements = rmp_serde::from_read::<_, Vec<Element>>(unpacked)?.into_iter();
    match elements.next() {
        Some(Element::Header { format, version: 1 }) if format == "cB" => {}
        _ => bail!("no header of the format cB, version 1"),
    }
    let words = |element| match element {
        Element::Words(words) => Ok(words),
        Element::Header { .. } => bail!("a header among the words"),
    };
    elements.map(words).collect()
}

/// The frequent words with their counts per million. Words with digits are left out: wordfreq replaces each digit
/// by a zero, so their counts are those of other words.
fn frequent(bands: Vec<Vec<String>>) -> Vec<(u32, String)> {
    let mut found = Vec::new();
    for (words, centibels) in bands.into_iter().zip(0_i32..) {
        let count = (1e6 * 10_f64.powf(f64::from(-centibels) / 100.0)).round() as u32;
        if count < PER_MILLION_MIN {
            break;
        }
        let words = words.into_iter().filter(|word| !word.contains(char::is_numeric));
        found.extend(words.map(|word| (count, word)));
    }
    found
        .sort_unstable_by(|(count, word), (other_count, other)| other_count.cmp(count).then(word.cmp(other)));
    found
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use serde_json::{Value, json};

    use super::*;
    use crate::corpus;

    fn packed(elements: &Value) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&rmp_serde::to_vec(elements).unwrap()).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn the_list_that_a_word_is_in_says_how_frequent_it_is() {
        let mut elements = vec![json!({ "format": "cB", "version": 1 })];
        elements.resize(600, json!([]));
        // Element 101 is list 100: one word in ten.
        elements[101] = json!(["the"]);
        elements[401] = json!(["чай", "00", "tea", "b0ss"]);
        elements[561] = json!(["rare"]);
        elements[562] = json!(["rarer"]);
        let bands = read_bands(packed(&json!(elements)).as_slice()).unwrap();
        let words = frequent(bands);
        let words: Vec<_> = words.iter().map(|(count, word)| (*count, word.as_str())).collect();
        assert_eq!(words, [(100_000, "the"), (100, "tea"), (100, "чай"), (3, "rare")]);
    }

    #[test]
    fn a_file_of_another_format_is_refused() {
        let refused = |elements: Value| read_bands(packed(&elements).as_slice()).is_err();
        assert!(!refused(json!([{ "format": "cB", "version": 1 }, ["word"]])));
        assert!(refused(json!([{ "format": "cB", "version": 2 }, ["word"]])));
        assert!(refused(json!([{ "format": "dB", "version": 1 }, ["word"]])));
        assert!(refused(json!([["word"]])));
        assert!(refused(json!([{ "format": "cB", "version": 1 }, { "format": "cB", "version": 1 }])));
        assert!(refused(json!([])));
        let whole = packed(&json!([{ "format": "cB", "version": 1 }, ["word"]]));
        assert!(read_bands(&whole[..whole.len() / 2]).is_err());
    }

    #[test]
    fn the_lists_here_are_in_order_and_without_digits_or_rare_words() {
        for language in LANGUAGES {
            let lines = corpus::read_lines(&corpus::own_dir().join(format!("words/{language}.txt"))).unwrap();
            let words: Vec<(u32, &str)> = lines
                .iter()
                .map(|line| line.split_once(' ').unwrap())
                .map(|(count, word)| (count.parse().unwrap(), word))
                .collect();
            assert!(words.len() > 10_000, "{language}: {}", words.len());
            assert!(words.is_sorted_by(|(count, word), (next, next_word)| {
                next < count || next == count && word < next_word
            }));
            assert!(words.iter().all(|(count, word)| {
                *count >= PER_MILLION_MIN && !word.is_empty() && !word.contains(char::is_numeric)
            }));
            assert_eq!(words.iter().map(|(_, word)| word).collect::<BTreeSet<_>>().len(), words.len());
        }
    }
}
