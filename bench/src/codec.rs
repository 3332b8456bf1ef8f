//! `bench codec`: what a file of messages costs in each coding.

use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use liblzma::write::XzEncoder;
use thinpost_wire::codec::{self, Codec};
use thinpost_wire::dictionary::{DICTIONARIES, DictionarySet};
use thinpost_wire::letter::CONTENT_BYTES_MAX;

use crate::corpus;
use crate::report::{Report, Row};

/// Bytes per message of a file of one message a line: raw, coded alone, in batches (which may be larger than a
/// datagram holds), and beside xz.
#[derive(Args, Debug)]
pub(crate) struct CodecArgs {
    /// The messages, UTF-8, one a line; may be given several times
    #[arg(long, value_name = "FILE", required = true)]
    corpus: Vec<PathBuf>,
}

/// Batches of how many messages.
const BATCH_MESSAGES: [usize; 2] = [10, 50];
const SIZE: &str = "B/message";
const TIME: &str = "us/message";

/// Runs the measurement.
///
/// # Errors
/// When a file is missing, empty or not UTF-8, or when a coding does not give the message back.
pub(crate) fn run(args: &CodecArgs, report: &mut Report) -> Result<()> {
    for path in &args.corpus {
        let messages = corpus::read_lines(path)?;
        if let Some((line, message)) = (1..).zip(&messages).find(|(_, line)| line.len() > CONTENT_BYTES_MAX) {
            let bytes = message.len();
            bail!(
                "{}, line {line}: {bytes} bytes; a message has at most {CONTENT_BYTES_MAX}",
                path.display()
            );
        }
        let scenario = path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        measure(&scenario, &messages, report)?;
    }
    Ok(())
}

/// A way to code: whatever is shortest, or always the same codec (raw where that one cannot).
struct Mode {
    name: String,
    only: Option<Codec>,
}

impl Mode {
    fn all() -> Vec<Self> {
        let mut modes = vec![
            Self { name: "best (ours)".to_owned(), only: None },
            Self { name: "zstd, no dictionary".to_owned(), only: Some(Codec::Zstd) },
        ];
        modes.extend(DICTIONARIES.iter().map(|dictionary| Self {
            name: format!("zstd, {}", dictionary.name),
            only: Some(Codec::Dictionary(dictionary.number)),
        }));
        modes
    }

    fn encode(&self, content: &[u8]) -> Vec<u8> {
        let mut coded = Vec::new();
        let Some(only) = self.only else {
            codec::encode_best(content, DictionarySet::compiled_in(), &mut coded);
            return coded;
        };
        if !codec::encode_as(only, content, &mut coded) || coded.len() > content.len() + 1 {
            coded.clear();
            codec::encode_as(Codec::Raw, content, &mut coded);
        }
        coded
    }
}

fn measure(scenario: &str, messages: &[String], report: &mut Report) -> Result<()> {
    let count = messages.len() as f64;
    let mut row = |mode: &str, metric: &str, value: f64, unit: &'static str| {
        report.row(Row::new("codec", metric, value, unit).scenario(scenario).mode(mode))
    };
    let alone: Vec<Vec<u8>> = messages.iter().map(|message| corpus::body(message)).collect();
    let batches = BATCH_MESSAGES.map(|size| (format!("in {size}"), in_batches(messages, size)));

    row("raw", "alone", bytes(messages) / count, SIZE)?;
    for (metric, contents) in &batches {
        row("raw", metric, bytes(contents) / count, SIZE)?;
    }
    for mode in Mode::all() {
        // Dictionaries are made ready and contexts warm before the clock starts.
        run_both_ways(&mode, &alone[..alone.len().min(10)])?;
        let ran = run_both_ways(&mode, &alone)?;
        row(&mode.name, "alone", ran.bytes / count, SIZE)?;
        for (metric, contents) in &batches {
            row(&mode.name, metric, run_both_ways(&mode, contents)?.bytes / count, SIZE)?;
        }
        row(&mode.name, "encode alone", ran.encode_us / count, TIME)?;
        row(&mode.name, "decode alone", ran.decode_us / count, TIME)?;
    }
    row("xz -9, the whole file", "alone", xz_bytes(messages)? / count, SIZE)
}

fn in_batches(messages: &[String], size: usize) -> Vec<Vec<u8>> {
    let chunks = messages.chunks(size).enumerate();
    chunks
        .map(|(index, chunk)| corpus::batch((index * size) as u64 + 1, chunk.iter().map(String::as_str)))
        .collect()
}

struct Ran {
    bytes: f64,
    encode_us: f64,
    decode_us: f64,
}

/// Codes all contents, then decodes them and compares.
fn run_both_ways(mode: &Mode, contents: &[Vec<u8>]) -> Result<Ran> {
    let start = Instant::now();
    let coded: Vec<Vec<u8>> = contents.iter().map(|content| mode.encode(content)).collect();
    let encode_us = start.elapsed().as_secs_f64() * 1e6;
    let start = Instant::now();
    let decoded: Vec<_> = coded
        .iter()
        .zip(contents)
        .map(|(coded, content)| codec::decode(coded, content.len()))
        .collect::<Result<_, _>>()
        .with_context(|| format!("{} wrote what cannot be decoded", mode.name))?;
    let decode_us = start.elapsed().as_secs_f64() * 1e6;
    ensure!(
        decoded.iter().zip(contents).all(|(decoded, content)| **decoded == **content),
        "{} does not give the messages back",
        mode.name
    );
    Ok(Ran { bytes: bytes(&coded), encode_us, decode_us })
}

fn bytes<T: AsRef<[u8]>>(items: &[T]) -> f64 {
    items.iter().map(|item| item.as_ref().len()).sum::<usize>() as f64
}

fn xz_bytes(messages: &[String]) -> Result<f64> {
    const PRESET: u32 = 9;
    let mut encoder = XzEncoder::new(Vec::new(), PRESET);
    for message in messages {
        encoder.write_all(message.as_bytes()).context("xz")?;
        encoder.write_all(b"\n").context("xz")?;
    }
    Ok(encoder.finish().context("xz")?.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes a message on texts that no dictionary was trained on: alone, in batches of 10. A change that costs
    /// more than a rounding must say why and move the budget.
    const BUDGETS: [(&str, f64, f64); 6] = [
        ("en-chat", 31.0, 24.5),
        ("en-irc", 34.0, 27.2),
        ("ru-everyday", 23.8, 17.8),
        ("ru-social", 45.8, 41.5),
        ("json-weather", 47.5, 32.5),
        ("json-quakes", 85.5, 75.5),
    ];

    #[test]
    fn held_out_texts_stay_within_their_budgets() {
        let best = &Mode::all()[0];
        for (name, alone_max, in_10_max) in BUDGETS {
            let messages =
                corpus::read_lines(&corpus::own_dir().join(format!("held-out/{name}.txt"))).unwrap();
            let count = messages.len() as f64;
            let bodies: Vec<_> = messages.iter().map(|message| corpus::body(message)).collect();
            let alone = run_both_ways(best, &bodies).unwrap().bytes / count;
            let in_10 = run_both_ways(best, &in_batches(&messages, 10)).unwrap().bytes / count;
            assert!(alone <= alone_max && in_10 <= in_10_max, "{name}: {alone:.2} alone, {in_10:.2} in 10");
        }
    }

    #[test]
    fn choosing_a_dictionary_a_message_is_no_worse_than_one_for_all() {
        let messages = corpus::read_lines(&corpus::own_dir().join("held-out/es-everyday.txt")).unwrap();
        let bodies: Vec<_> = messages.iter().map(|message| corpus::body(message)).collect();
        let sizes: Vec<f64> =
            Mode::all().iter().map(|mode| run_both_ways(mode, &bodies).unwrap().bytes).collect();
        let single = sizes[1..].iter().copied().fold(f64::INFINITY, f64::min);
        assert!(sizes[0] <= single, "{sizes:?}");
        assert!(sizes[0] < bytes(&bodies) * 0.8, "{sizes:?}");
    }
}
