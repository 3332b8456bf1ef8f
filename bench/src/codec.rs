//! `bench codec`: what a file of messages costs in each coding.

use std::collections::BTreeMap;
use std::io::Write;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use liblzma::write::XzEncoder;
use thinpost_wire::codec::Codec;
use thinpost_wire::letter::CONTENT_BYTES_MAX;

use self::others::Ppmd;
use self::way::{BETWEEN_TEXTS, Told, Way, name_of};
use crate::report::{Report, Row};
use crate::{corpus, heap};

mod others;
mod ours;
mod way;

/// Bytes per message of a file of one message a line, in each coding, alone and several together, and beside xz. Each
/// content is decoded again and compared. "chosen" says for how many contents a coding was our best. Memory is the heap that
/// is held or in use, at its highest, without what is compiled in: counted as it is allocated, and for zstd what the library
/// says of its contexts and dictionaries.
#[derive(Args, Debug)]
pub(crate) struct CodecArgs {
    /// The messages, UTF-8, one a line; may be given several times
    #[arg(long, value_name = "FILE", required = true)]
    corpus: Vec<PathBuf>,
    /// What a content is
    #[arg(long = "as", value_name = "WHAT", value_enum, default_value_t)]
    of: Of,
    /// Take the first messages of each file only
    #[arg(long, value_name = "COUNT")]
    messages: Option<NonZeroUsize>,
    /// Also PPMd that has coded this file, one message a line, before each content. Slow: the file is coded
    /// again each time
    #[arg(long, value_name = "FILE")]
    prime: Vec<PathBuf>,
}

/// What is coded as one content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Of {
    /// The text alone, as the wire codes it: a tag byte and the text raw or as a zstd block, or a stream under a text model.
    /// Several texts are one run of it, and for other codings have a newline between them; the reader is told how many
    /// they are. Our best is the shortest of ours for each content
    #[default]
    Texts,
    /// A parcel of letters, as seals go around it; it may be larger than a datagram holds. Our best is what the product
    /// chooses, parcel after parcel. Some 7 bytes are of the parcel
    Parcels,
}

impl Of {
    /// Contents of so many messages each.
    fn contents(self, messages: &[String], size: usize) -> Vec<Vec<u8>> {
        let between = char::from(BETWEEN_TEXTS).to_string();
        let chunks = messages.chunks(size).enumerate();
        let content = |(index, chunk): (usize, &[String])| match self {
            Self::Texts => chunk.join(&between).into_bytes(),
            Self::Parcels => corpus::parcel((index * size) as u64 + 1, chunk),
        };
        chunks.map(content).collect()
    }
}

/// Batches of how many messages.
const BATCH_MESSAGES: [usize; 2] = [10, 50];
const SIZE: &str = "B/message";
const TIME: &str = "us/message";
const COUNT: &str = "contents";
const MEMORY: &str = "kB";

/// Runs the measurement.
///
/// # Errors
/// When a file is missing, empty or not UTF-8, or when a coding does not give the message back.
pub(crate) fn run(args: &CodecArgs, report: &mut Report) -> Result<()> {
    let mut ways = Way::all(args.of);
    for path in &args.prime {
        ways.push(Way::new(format!("PPMd H, primed, {}", stem(path)), Ppmd::primed(path)?));
    }
    for path in &args.corpus {
        let mut messages = corpus::read_lines(path)?;
        messages.truncate(args.messages.map_or(usize::MAX, NonZeroUsize::get));
        if let Some((line, message)) = (1..).zip(&messages).find(|(_, line)| line.len() > CONTENT_BYTES_MAX) {
            let bytes = message.len();
            bail!(
                "{}, line {line}: {bytes} bytes; a message has at most {CONTENT_BYTES_MAX}",
                path.display()
            );
        }
        measure(&stem(path), args.of, &messages, &ways, report)?;
    }
    Ok(())
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

fn measure(scenario: &str, of: Of, messages: &[String], ways: &[Way], report: &mut Report) -> Result<()> {
    let count = messages.len() as f64;
    let mut row = |mode: &str, metric: &str, value: f64, unit: &'static str| {
        report.row(Row::new("codec", metric, value, unit).scenario(scenario).mode(mode))
    };
    let alone = of.contents(messages, 1);
    let batches = BATCH_MESSAGES.map(|size| (format!("in {size}"), of.contents(messages, size)));
    let all: Vec<&[u8]> =
        alone.iter().chain(batches.iter().flat_map(|(_, contents)| contents)).map(Vec::as_slice).collect();

    row("the texts", "alone", bytes(messages) / count, SIZE)?;
    row("raw", "alone", raw_bytes(&alone) / count, SIZE)?;
    for (metric, contents) in &batches {
        row("raw", metric, raw_bytes(contents) / count, SIZE)?;
    }
    for (place, way) in ways.iter().enumerate() {
        // What is made at first use is ready, and contexts are warm, before the clock starts.
        run_both_ways(way, &alone[..alone.len().min(10)])?;
        let ran = run_both_ways(way, &alone)?;
        row(&way.name, "alone", ran.bytes / count, SIZE)?;
        let is_best = place == 0;
        let chosen = |ran: &Ran| if is_best { ran.codecs.clone() } else { BTreeMap::new() };
        for (codec, times) in chosen(&ran) {
            row(&name_of(codec), "chosen alone", f64::from(times), COUNT)?;
        }
        let (mut encode_heap, mut decode_heap) = (ran.encode.heap_bytes_max, ran.decode.heap_bytes_max);
        for (metric, contents) in &batches {
            let ran = run_both_ways(way, contents)?;
            row(&way.name, metric, ran.bytes / count, SIZE)?;
            for (codec, times) in chosen(&ran) {
                row(&name_of(codec), &format!("chosen {metric}"), f64::from(times), COUNT)?;
            }
            encode_heap = encode_heap.max(ran.encode.heap_bytes_max);
            decode_heap = decode_heap.max(ran.decode.heap_bytes_max);
        }
        row(&way.name, "encode alone", ran.encode.us / count, TIME)?;
        row(&way.name, "decode alone", ran.decode.us / count, TIME)?;
        let held = way.held(&all)?;
        row(&way.name, "encode memory", (held.encode_bytes + encode_heap) as f64 / 1e3, MEMORY)?;
        row(&way.name, "decode memory", (held.decode_bytes + decode_heap) as f64 / 1e3, MEMORY)?;
    }
    row("xz -9, the whole file", "alone", xz_bytes(messages)? / count, SIZE)
}

/// All contents coded and decoded.
struct Ran {
    bytes: f64,
    /// How many in which of our codings.
    codecs: BTreeMap<Codec, u32>,
    encode: Cost,
    decode: Cost,
}

/// Of one direction: the time for all contents together, and the heap that the worst of them took.
#[derive(Default)]
struct Cost {
    us: f64,
    heap_bytes_max: usize,
}

impl Cost {
    fn of<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let (done, heap_bytes) = heap::peak_bytes_of(work);
        self.us += start.elapsed().as_secs_f64() * 1e6;
        self.heap_bytes_max = self.heap_bytes_max.max(heap_bytes);
        done
    }
}

/// Codes all contents, decodes them and compares.
fn run_both_ways(way: &Way, contents: &[Vec<u8>]) -> Result<Ran> {
    let mut ran =
        Ran { bytes: 0.0, codecs: BTreeMap::new(), encode: Cost::default(), decode: Cost::default() };
    for content in contents {
        let coded = ran.encode.of(|| way.encode(content))?;
        let told = Told::of(content);
        let decoded = ran.decode.of(|| way.decode(&coded, told))?;
        ensure!(decoded == *content, "{} does not give the messages back", way.name);
        ran.bytes += coded.len() as f64;
        if let Ok(codec) = Codec::of(&coded) {
            *ran.codecs.entry(codec).or_default() += 1;
        }
    }
    Ok(ran)
}

fn bytes<T: AsRef<[u8]>>(items: &[T]) -> f64 {
    items.iter().map(|item| item.as_ref().len()).sum::<usize>() as f64
}

/// With the tag that says that they are raw.
fn raw_bytes(contents: &[Vec<u8>]) -> f64 {
    bytes(contents) + contents.len() as f64
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
    use thinpost_wire::dictionary::DICTIONARIES;
    use thinpost_wire::text::NUMBERED;

    use super::*;

    /// Bytes a message on texts that nothing was trained on: as texts alone, ten together, as parcels alone, ten together. A
    /// change that costs more than a rounding must say why and move the budget.
    const BUDGETS: [(&str, [f64; 4]); 6] = [
        ("en-chat", [14.5, 13.8, 20.0, 14.5]),
        ("en-irc", [16.9, 16.2, 22.5, 16.9]),
        ("ru-everyday", [9.2, 8.5, 14.8, 9.2]),
        ("ru-social", [22.1, 21.5, 27.7, 22.2]),
        ("json-weather", [23.6, 19.0, 29.1, 19.6]),
        ("json-quakes", [49.9, 48.7, 55.4, 49.4]),
    ];

    #[test]
    fn held_out_texts_stay_within_their_budgets() {
        let mut beyond = Vec::new();
        for (name, budgets) in BUDGETS {
            let messages =
                corpus::read_lines(&corpus::own_dir().join(format!("held-out/{name}.txt"))).unwrap();
            let bytes = |of: Of, size| {
                let ran = run_both_ways(&Way::all(of)[0], &of.contents(&messages, size)).unwrap();
                ran.bytes / messages.len() as f64
            };
            let found = [(Of::Texts, 1), (Of::Texts, 10), (Of::Parcels, 1), (Of::Parcels, 10)]
                .map(|(of, size)| bytes(of, size));
            if found.iter().zip(&budgets).any(|(found, max)| found > max) {
                beyond.push(format!("{name}: {found:.2?}"));
            }
        }
        assert!(beyond.is_empty(), "{beyond:#?}");
    }

    #[test]
    fn choosing_is_no_worse_than_one_coding_for_all() {
        let messages = corpus::read_lines(&corpus::own_dir().join("held-out/es-everyday.txt")).unwrap();
        for of in [Of::Texts, Of::Parcels] {
            let contents = of.contents(&messages, 1);
            let ways = Way::all(of);
            let size = |way: &Way| run_both_ways(way, &contents).unwrap().bytes;
            let is_ours = |way: &&Way| way.name.starts_with("zstd, ") || way.name.starts_with("text model, ");
            let sizes: Vec<(&str, f64)> =
                ways.iter().filter(is_ours).map(|way| (&*way.name, size(way))).collect();
            assert_eq!(sizes.len(), 2 + DICTIONARIES.len() + NUMBERED.len());
            let best = size(&ways[0]);
            // For parcels the model is chosen by the messages so far, not by each.
            let slack = if of == Of::Texts { 1.0 } else { 1.01 };
            assert!(sizes.iter().all(|&(_, size)| best <= size * slack), "{best} {sizes:?}");
            assert!(best < bytes(&contents) * 0.5, "{best}");
        }
    }

    #[test]
    fn every_way_gives_back_whatever_it_is_given() {
        let mut random = vec![0; 3_000];
        blake3::Hasher::new().finalize_xof().fill(&mut random);
        let long = "Увидимся в восемь? See you at eight. ".repeat(500).into_bytes();
        let texts = "one\n\nthree\n".as_bytes().to_vec();
        let contents = [vec![], vec![0], vec![0xFF; 300], b"ok".to_vec(), random, long, texts];
        for way in Way::all(Of::Texts).into_iter().chain(Way::all(Of::Parcels)) {
            let ran = run_both_ways(&way, &contents).unwrap();
            // No content is longer than raw.
            assert!(ran.bytes <= bytes(&contents) + contents.len() as f64, "{}", way.name);
        }
    }

    #[test]
    fn zstd_holds_what_it_is_known_to_hold() {
        // The figures of docs/decisions/0003, give or take.
        let messages = corpus::read_lines(&corpus::own_dir().join("held-out/en-chat.txt")).unwrap();
        let parcels = Of::Parcels.contents(&messages, 1);
        let contents: Vec<_> = parcels.iter().map(Vec::as_slice).collect();
        let ways = Way::all(Of::Parcels);
        let held = |name: &str| ways.iter().find(|way| way.name == name).unwrap().held(&contents).unwrap();
        let plain = held("zstd, no dictionary");
        assert!((150_000..300_000).contains(&plain.encode_bytes), "{plain:?}");
        assert!((80_000..110_000).contains(&plain.decode_bytes), "{plain:?}");
        let english = held("zstd, english");
        let dictionary = english.encode_bytes - plain.encode_bytes;
        assert!((900_000..1_200_000).contains(&dictionary), "{english:?}");
        assert!(held("zstd, best dictionary").encode_bytes >= english.encode_bytes);
        assert_eq!(held("PPMd H, order 5").encode_bytes, 0);
    }
}
