//! `bench codec`: what a file of messages costs in each coding.

use std::io::Write;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use liblzma::write::XzEncoder;
use thinpost_wire::letter::CONTENT_BYTES_MAX;

use self::others::Ppmd;
use self::way::Way;
use crate::report::{Report, Row};
use crate::{corpus, heap};

mod others;
mod ours;
mod way;

/// Bytes per message of a file of one message a line, as parcels that seals go around: raw, in each coding alone and
/// several in one parcel (which may be larger than a datagram holds), and beside xz. Memory is the heap that is held or in use, at its highest, without what is
/// compiled in: counted as it is allocated, and for zstd what the library says of its contexts and dictionaries.
#[derive(Args, Debug)]
pub(crate) struct CodecArgs {
    /// The messages, UTF-8, one a line; may be given several times
    #[arg(long, value_name = "FILE", required = true)]
    corpus: Vec<PathBuf>,
    /// Take the first messages of each file only
    #[arg(long, value_name = "COUNT")]
    messages: Option<NonZeroUsize>,
    /// Also PPMd that has coded this file, one message a line, before each content. Slow: the file is coded
    /// again each time
    #[arg(long, value_name = "FILE")]
    prime: Vec<PathBuf>,
}

/// Batches of how many messages.
const BATCH_MESSAGES: [usize; 2] = [10, 50];
const SIZE: &str = "B/message";
const TIME: &str = "us/message";
const MEMORY: &str = "kB";

/// Runs the measurement.
///
/// # Errors
/// When a file is missing, empty or not UTF-8, or when a coding does not give the message back.
pub(crate) fn run(args: &CodecArgs, report: &mut Report) -> Result<()> {
    let mut ways = Way::all();
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
        measure(&stem(path), &messages, &ways, report)?;
    }
    Ok(())
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

fn measure(scenario: &str, messages: &[String], ways: &[Way], report: &mut Report) -> Result<()> {
    let count = messages.len() as f64;
    let mut row = |mode: &str, metric: &str, value: f64, unit: &'static str| {
        report.row(Row::new("codec", metric, value, unit).scenario(scenario).mode(mode))
    };
    let alone = in_parcels(messages, 1);
    let batches = BATCH_MESSAGES.map(|size| (format!("in {size}"), in_parcels(messages, size)));
    let all: Vec<&[u8]> =
        alone.iter().chain(batches.iter().flat_map(|(_, contents)| contents)).map(Vec::as_slice).collect();

    row("the texts", "alone", bytes(messages) / count, SIZE)?;
    row("raw", "alone", bytes(&alone) / count, SIZE)?;
    for (metric, contents) in &batches {
        row("raw", metric, bytes(contents) / count, SIZE)?;
    }
    for way in ways {
        // What is made at first use is ready, and contexts are warm, before the clock starts.
        run_both_ways(way, &alone[..alone.len().min(10)])?;
        let ran = run_both_ways(way, &alone)?;
        row(&way.name, "alone", ran.bytes / count, SIZE)?;
        let (mut encode_heap, mut decode_heap) = (ran.encode.heap_bytes_max, ran.decode.heap_bytes_max);
        for (metric, contents) in &batches {
            let ran = run_both_ways(way, contents)?;
            row(&way.name, metric, ran.bytes / count, SIZE)?;
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

/// What seals hold: so many messages in each.
fn in_parcels(messages: &[String], size: usize) -> Vec<Vec<u8>> {
    let chunks = messages.chunks(size).enumerate();
    chunks.map(|(index, chunk)| corpus::parcel((index * size) as u64 + 1, chunk)).collect()
}

/// All contents coded and decoded.
struct Ran {
    bytes: f64,
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
    let mut ran = Ran { bytes: 0.0, encode: Cost::default(), decode: Cost::default() };
    for content in contents {
        let coded = ran.encode.of(|| way.encode(content))?;
        let decoded = ran.decode.of(|| way.decode(&coded, content.len()))?;
        ensure!(decoded == *content, "{} does not give the messages back", way.name);
        ran.bytes += coded.len() as f64;
    }
    Ok(ran)
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
    use thinpost_wire::dictionary::DICTIONARIES;
    use thinpost_wire::text::NUMBERED;

    use super::*;

    /// Bytes a message on texts that nothing was trained on, seven of them what a parcel says besides: alone, ten together. A change that costs
    /// more than a rounding must say why and move the budget.
    const BUDGETS: [(&str, f64, f64); 6] = [
        ("en-chat", 20.6, 14.6),
        ("en-irc", 23.1, 17.0),
        ("ru-everyday", 15.3, 9.3),
        ("ru-social", 28.4, 22.3),
        ("json-weather", 29.8, 19.8),
        ("json-quakes", 56.2, 50.1),
    ];

    #[test]
    fn held_out_texts_stay_within_their_budgets() {
        let best = &Way::all()[0];
        for (name, alone_max, in_10_max) in BUDGETS {
            let messages =
                corpus::read_lines(&corpus::own_dir().join(format!("held-out/{name}.txt"))).unwrap();
            let count = messages.len() as f64;
            let alone = run_both_ways(best, &in_parcels(&messages, 1)).unwrap().bytes / count;
            let in_10 = run_both_ways(best, &in_parcels(&messages, 10)).unwrap().bytes / count;
            assert!(alone <= alone_max && in_10 <= in_10_max, "{name}: {alone:.2} alone, {in_10:.2} in 10");
        }
    }

    #[test]
    fn choosing_is_no_worse_than_one_coding_for_all() {
        let messages = corpus::read_lines(&corpus::own_dir().join("held-out/es-everyday.txt")).unwrap();
        let parcels = in_parcels(&messages, 1);
        let ways = Way::all();
        let size = |way: &Way| run_both_ways(way, &parcels).unwrap().bytes;
        let ours =
            ways.iter().filter(|way| way.name.starts_with("zstd, ") || way.name.starts_with("text model, "));
        let sizes: Vec<(&str, f64)> = ours.map(|way| (&*way.name, size(way))).collect();
        assert_eq!(sizes.len(), 2 + DICTIONARIES.len() + NUMBERED.len());
        let best = size(&ways[0]);
        // The model is chosen by the messages so far, not by each.
        assert!(sizes.iter().all(|&(_, size)| best <= size * 1.01), "{best} {sizes:?}");
        assert!(best < bytes(&parcels) * 0.5, "{best}");
    }

    #[test]
    fn every_way_gives_back_whatever_it_is_given() {
        let mut random = vec![0; 3_000];
        blake3::Hasher::new().finalize_xof().fill(&mut random);
        let long = "Увидимся в восемь? See you at eight. ".repeat(500).into_bytes();
        let contents = [vec![], vec![0], vec![0xFF; 300], b"ok".to_vec(), random, long];
        for way in Way::all() {
            let ran = run_both_ways(&way, &contents).unwrap();
            // No content is longer than raw.
            assert!(ran.bytes <= bytes(&contents) + contents.len() as f64, "{}", way.name);
        }
    }

    #[test]
    fn zstd_holds_what_it_is_known_to_hold() {
        // The figures of docs/decisions/0003, give or take.
        let messages = corpus::read_lines(&corpus::own_dir().join("held-out/en-chat.txt")).unwrap();
        let parcels = in_parcels(&messages, 1);
        let contents: Vec<_> = parcels.iter().map(Vec::as_slice).collect();
        let ways = Way::all();
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
