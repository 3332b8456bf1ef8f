//! `bench texts`: the text codec under load that no corpus has: random texts of every script, codings that were
//! changed or made up; what the worst of them cost.

use std::time::Instant;

use anyhow::{Result, ensure};
use clap::Args;
use rand::seq::IndexedRandom;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use thinpost_wire::parcel::MODELLED_BYTES_MAX;
use thinpost_wire::text::{self, Model, ModelName, Models, NUMBERED, TextError};

use crate::corpus;
use crate::report::{Report, Row};

/// Round-trip random texts, and decode codings that were changed or made up, under every text model.
#[derive(Args, Debug)]
pub(crate) struct TextsArgs {
    /// How many random texts
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    texts: u64,
    /// How many codings that were changed or made up
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    codings: u64,
    /// The seed of the random choices
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Where letters are drawn from: first and last code point.
const SCRIPTS: [(u32, u32); 14] = [
    (0x20, 0x7E),
    (0xA0, 0x24F),
    (0x370, 0x3FF),
    (0x400, 0x52F),
    (0x531, 0x587),
    (0x5D0, 0x5EA),
    (0x600, 0x6FF),
    (0x900, 0xDFF),
    (0xE01, 0xE5B),
    (0x10A0, 0x137F),
    (0x3040, 0x30FF),
    (0x4E00, 0x9FFF),
    (0xAC00, 0xD7A3),
    (0x1F300, 0x1FAFF),
];
/// Longest random text, letters.
const LETTERS_MAX: usize = 120;

/// Runs both; the texts and codings depend on the seed alone.
///
/// # Errors
/// When a text does not come back, or a decoder exceeds its bound.
pub(crate) fn run(args: &TextsArgs, report: &mut Report) -> Result<()> {
    let models = Models::compiled_in();
    let numbers = (0..NUMBERED.len() as u8).map(ModelName::Number);
    let models: Vec<Named<'_>> = numbers.filter_map(|name| Some((name, models.get(name)?))).collect();
    ensure!(!models.is_empty(), "no model is compiled in");
    let rng = &mut ChaCha8Rng::seed_from_u64(args.seed);
    let written = lines()?;

    let (mut encoding, mut decoding) = (Slowest::default(), Slowest::default());
    for run in 0..args.texts {
        let model = models[run as usize % models.len()];
        let text = random_text(rng, &written);
        let coded = encoding.time(text.clone(), |text| coded(model, text), model);
        let found = decoding.time(coded, |coded| read(model, coded, text.len()), model);
        ensure!(found.as_deref() == Ok(&text), "run {run}: {text:?} does not come back");
    }
    let mut stranger = Slowest::default();
    let mut texts = 0u64;
    for run in 0..args.codings {
        let model = models[run as usize % models.len()];
        let bytes = random_coding(rng, model, &written);
        let found = stranger.time(bytes.clone(), |bytes| read(model, bytes, MODELLED_BYTES_MAX), model);
        if let Ok(text) = found {
            texts += 1;
            ensure!(text.len() <= MODELLED_BYTES_MAX, "run {run}: {bytes:?} gave {} bytes", text.len());
        }
    }
    let row = |scenario: &str, metric: &str, value: f64, unit: &'static str| {
        Row::new("texts", metric, value, unit).scenario(scenario)
    };
    report.row(row("random texts", "round trips", args.texts as f64, ""))?;
    let worst = [
        (
            "random texts, encoded",
            encoding.sum_us / args.texts as f64,
            encoding.worst_us(|model, text| drop(coded(model, text))),
        ),
        (
            "random texts, decoded",
            decoding.sum_us / args.texts as f64,
            decoding.worst_us(|model, bytes| read_at_most(model, bytes)),
        ),
        (
            "made-up codings",
            stranger.sum_us / args.codings as f64,
            stranger.worst_us(|model, bytes| read_at_most(model, bytes)),
        ),
    ];
    let (mut encoded, mut decoded) = (Slowest::default(), Slowest::default());
    for &model in &models {
        for mut text in longest(&written, rng) {
            shorten(model, &mut text);
            let bytes = encoded.time(text.clone(), |text| coded(model, text), model);
            decoded.time(bytes, |bytes| read_at_most(model, bytes), model);
        }
    }
    let longest = "as long as may be";
    let encoded_us = encoded.worst_us(|model, text| drop(coded(model, text)));
    report.row(row(longest, "encoded, worst", encoded_us, "us"))?;
    report.row(row(
        longest,
        "decoded, worst",
        decoded.worst_us(|model, bytes| read_at_most(model, bytes)),
        "us",
    ))?;
    for (scenario, mean_us, worst_us) in worst {
        report.row(row(scenario, "mean", mean_us, "us"))?;
        report.row(row(scenario, "worst", worst_us, "us"))?;
    }
    report.row(row("made-up codings", "decoded", args.codings as f64, ""))?;
    report.row(row("made-up codings", "gave a text", texts as f64, ""))
}

/// A model and how it is named.
type Named<'a> = (ModelName, &'a Model);

fn read((name, model): Named<'_>, coded: &[u8], bytes_max: usize) -> Result<String, TextError> {
    text::decode(name, model, coded, bytes_max)
}

fn read_at_most(model: Named<'_>, coded: &[u8]) {
    let _ = read(model, coded, MODELLED_BYTES_MAX);
}

/// So many of the slowest inputs are timed again, so often, and the best time counts: the first time tells as
/// much of what else the machine did.
const SLOWEST: usize = 32;
const AGAIN: usize = 7;

/// What took longest, and the time of all.
struct Slowest<'a, T> {
    sum_us: f64,
    inputs: Vec<(f64, Named<'a>, T)>,
}

impl<T> Default for Slowest<'_, T> {
    fn default() -> Self {
        Self { sum_us: 0.0, inputs: Vec::new() }
    }
}

impl<'a, T> Slowest<'a, T> {
    fn time<O>(&mut self, input: T, work: impl FnOnce(&T) -> O, model: Named<'a>) -> O {
        let start = Instant::now();
        let done = work(&input);
        let us = start.elapsed().as_secs_f64() * 1e6;
        self.sum_us += us;
        let place = self.inputs.partition_point(|&(slower, ..)| slower > us);
        if place < SLOWEST {
            self.inputs.insert(place, (us, model, input));
            self.inputs.truncate(SLOWEST);
        }
        done
    }

    fn worst_us(&self, work: impl Fn(Named<'_>, &T)) -> f64 {
        let best_of = |&(_, model, ref input): &(f64, Named<'_>, T)| {
            let time = |_| {
                let start = Instant::now();
                work(model, input);
                start.elapsed().as_secs_f64() * 1e6
            };
            (0..AGAIN).map(time).fold(f64::INFINITY, f64::min)
        };
        self.inputs.iter().map(best_of).fold(0.0, f64::max)
    }
}

fn coded((name, model): Named<'_>, text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    text::encode(name, model, text, &mut out).expect("short enough");
    out
}

/// All held-out lines.
fn lines() -> Result<Vec<String>> {
    let mut files: Vec<_> =
        std::fs::read_dir(corpus::own_dir().join("held-out"))?.collect::<std::io::Result<_>>()?;
    files.sort_by_key(std::fs::DirEntry::file_name);
    let mut lines = Vec::new();
    for file in files {
        lines.extend(corpus::read_lines(&file.path())?);
    }
    Ok(lines)
}

/// Texts of as many bytes as a model takes: one of each kind of line, and some with as many symbols to a byte as there
/// can be, for capitals and letters that no alphabet has.
fn longest(written: &[String], rng: &mut impl Rng) -> Vec<String> {
    let mut texts: Vec<String> = written.chunks(400).map(<[String]>::concat).collect();
    let mut letters = |letters: &[u8]| {
        (0..MODELLED_BYTES_MAX).map(|_| char::from(*letters.choose(rng).expect("some"))).collect()
    };
    texts.extend([&b"ETAOINSHRDLUaeiou"[..], b"etaoin shrdlu", &[1, 2, 3, 30, 31]].map(&mut letters));
    for text in &mut texts {
        text.truncate(text.floor_char_boundary(MODELLED_BYTES_MAX));
    }
    texts
}

/// Cuts a text until a run under the model may hold it.
fn shorten((name, model): Named<'_>, text: &mut String) {
    while text::encode(name, model, text, &mut Vec::new()).is_err() {
        text.truncate(text.floor_char_boundary(text.len() - text.len() / 64));
    }
}

/// Letters of one script, or of several, or a line that somebody wrote with some of them put in.
fn random_text(rng: &mut impl Rng, written: &[String]) -> String {
    let letter = |rng: &mut dyn Rng, (first, last): (u32, u32)| {
        char::from_u32(rng.random_range(first..=last)).unwrap_or(' ')
    };
    let script = *SCRIPTS.choose(rng).expect("there are some");
    let letters = rng.random_range(0..=LETTERS_MAX);
    match rng.random_range(0..4) {
        0 => (0..letters).map(|_| letter(rng, script)).collect(),
        1 => (0..letters)
            .map(|_| {
                let script = *SCRIPTS.choose(rng).expect("there are some");
                letter(rng, script)
            })
            .collect(),
        2 => (0..letters)
            .map(|_| char::from_u32(rng.random_range(0..=0x10_FFFF)).unwrap_or('\u{FFFD}'))
            .collect(),
        _ => {
            let mut text: Vec<char> =
                written.choose(rng).map(|line| line.chars().collect()).unwrap_or_default();
            for _ in 0..rng.random_range(0..4) {
                let place = rng.random_range(0..=text.len());
                text.insert(place, letter(rng, script));
            }
            text.into_iter().collect()
        }
    }
}

/// A coding that was cut, changed or added to; or bytes that never were one, but for the first, which says the model.
fn random_coding(rng: &mut impl Rng, model: Named<'_>, written: &[String]) -> Vec<u8> {
    if rng.random_ratio(1, 3) {
        let mut bytes = vec![0; rng.random_range(0..64)];
        rng.fill_bytes(&mut bytes);
        bytes.splice(..bytes.len().min(1), coded(model, "").into_iter().take(1));
        return bytes;
    }
    let mut bytes = written.choose(rng).map(|line| coded(model, line)).unwrap_or_default();
    for _ in 0..rng.random_range(1..4) {
        let place = rng.random_range(0..=bytes.len());
        match rng.random_range(0..3) {
            0 => bytes.truncate(place),
            1 => bytes.insert(place, rng.random()),
            _ => {
                if let Some(byte) = bytes.get_mut(place) {
                    *byte ^= 1 << rng.random_range(0..8);
                }
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_runs_of_each_hold() {
        let mut report = Report::new(true);
        run(&TextsArgs { texts: 500, codings: 500, seed: 7 }, &mut report).unwrap();
    }
}
