//! `bench bombs`: contents that say to be much more than they are, or to need much more than they may have. None may take longer, or
//! more memory beside what its reader allows, than the bars.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Result, ensure};
use clap::Args;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use thinpost_wire::codec::{self, BLOCK_CONTENT_BYTES_MAX, Codec, DICTIONARY_CONTENT_BYTES_MAX};
use thinpost_wire::dictionary::DICTIONARIES;
use thinpost_wire::limits::{BATCH_DECODED_BYTES_MAX, BODY_BYTES_MAX};
use thinpost_wire::parcel::MODELLED_BYTES_MAX;
use thinpost_wire::text::{self, Models};
use zstd::zstd_safe::DCtx;

use crate::heap;
use crate::report::{Report, Row};

/// Decode contents that were made to cost: what comes out, how long it takes, and how much memory beyond what the reader
/// allows
#[derive(Args, Debug)]
pub(crate) struct BombsArgs {
    /// How often each is decoded
    #[arg(long, value_name = "N", default_value_t = 30)]
    times: u32,
    /// Decode each once, and hold it to the bar of memory alone: what it takes of that is the same in each run and build
    #[arg(long, conflicts_with = "times")]
    memory: bool,
}

/// The longest that a reader may be kept, in the median of all times.
const TIME_BAR_US: f64 = 5_000.0;

/// The most memory beyond what a reader allows, bytes.
const MEMORY_BAR_BYTES: usize = 1 << 20;

/// How often a text is decoded to see whether it is the dearest: others use the processor, too.
const TIMES_TO_CHOOSE: u32 = 3;

/// What a reader allows, bytes.
const ALLOWED: [usize; 3] = [1_200, BATCH_DECODED_BYTES_MAX, BODY_BYTES_MAX];

static MODELS: Models = Models::compiled_in();

/// Decodes them all.
///
/// # Errors
/// When something is beyond a bar, and when the report cannot be written.
pub(crate) fn run(args: &BombsArgs, report: &mut Report) -> Result<()> {
    let (times, times_to_choose) = if args.memory { (1, 1) } else { (args.times, TIMES_TO_CHOOSE) };
    let mut bars = Bars { has_time: !args.memory, ..Bars::default() };
    let context_bytes = DCtx::create().sizeof();
    for (name, coded) in blocks() {
        for allowed in ALLOWED {
            let cost = Cost::of(times, || codec::decode(&coded, allowed).map_or(0, |content| content.len()));
            cost.tell(report, &name, coded.len(), allowed, context_bytes)?;
            bars.hold(&name, &cost, allowed, context_bytes);
        }
    }
    let mut worst = BTreeMap::new();
    for coded in texts() {
        let Ok(Codec::Text(name)) = Codec::of(&coded) else { continue };
        let Some(model) = MODELS.get(name) else { continue };
        let decode = || text::decode(name, model, &coded, MODELLED_BYTES_MAX).map_or(0, |text| text.len());
        let cost = Cost::of(times_to_choose, decode);
        let title = format!("text of {name:?}");
        // How much memory it takes need not go with how long.
        bars.hold_memory(&title, &cost, MODELLED_BYTES_MAX, 0);
        let seen = worst.entry(title).or_insert((cost.median_us, coded.clone(), name));
        if cost.median_us > seen.0 {
            *seen = (cost.median_us, coded, name);
        }
    }
    for (title, (_, coded, name)) in worst {
        let Some(model) = MODELS.get(name) else { continue };
        let decode = || text::decode(name, model, &coded, MODELLED_BYTES_MAX).map_or(0, |text| text.len());
        let cost = Cost::of(times, decode);
        cost.tell(report, &title, coded.len(), MODELLED_BYTES_MAX, 0)?;
        bars.hold(&title, &cost, MODELLED_BYTES_MAX, 0);
    }
    bars.tell(report)?;
    ensure!(bars.beyond.is_empty(), "{}", bars.beyond.join("; "));
    Ok(())
}

/// What everything is held to.
#[derive(Default)]
struct Bars {
    has_time: bool,
    longest_median_us: f64,
    most_bytes: usize,
    beyond: Vec<String>,
}

impl Bars {
    fn hold(&mut self, name: &str, cost: &Cost, allowed: usize, beside: usize) {
        self.hold_memory(name, cost, allowed, beside);
        self.longest_median_us = self.longest_median_us.max(cost.median_us);
        if self.has_time && cost.median_us > TIME_BAR_US {
            let ms = cost.median_us / 1e3;
            self.beyond.push(format!("{name} with {allowed} allowed keeps its reader {ms:.1} ms"));
        }
    }

    fn hold_memory(&mut self, name: &str, cost: &Cost, allowed: usize, beside: usize) {
        let bytes = cost.bytes_beyond(allowed, beside);
        self.most_bytes = self.most_bytes.max(bytes);
        if bytes > MEMORY_BAR_BYTES {
            self.beyond.push(format!("{name} with {allowed} allowed takes {bytes} B more"));
        }
    }

    fn tell(&self, report: &mut Report) -> Result<()> {
        let mut row = |metric, mode, value, unit| {
            report.row(Row::new("bombs", metric, value, unit).scenario("all").mode(mode))
        };
        if self.has_time {
            row("median", "longest", self.longest_median_us / 1e3, "ms")?;
            row("median", "bar", TIME_BAR_US / 1e3, "ms")?;
        }
        row("memory beyond", "most", self.most_bytes as f64 / 1e3, "kB")?;
        row("memory beyond", "bar", MEMORY_BAR_BYTES as f64 / 1e3, "kB")
    }
}

/// What it took to decode something.
struct Cost {
    came_out: usize,
    median_us: f64,
    longest_us: f64,
    heap_bytes: usize,
}

impl Cost {
    fn of(times: u32, decode: impl Fn() -> usize) -> Self {
        let mut us = Vec::new();
        let (mut came_out, mut heap_bytes) = (0, 0);
        for _ in 0..times.max(1) {
            let (done, heap) = heap::peak_bytes_of(|| {
                let began = Instant::now();
                let len = decode();
                (len, began.elapsed().as_secs_f64() * 1e6)
            });
            came_out = done.0;
            us.push(done.1);
            heap_bytes = heap_bytes.max(heap);
        }
        us.sort_by(f64::total_cmp);
        Self { came_out, median_us: us[us.len() / 2], longest_us: us[us.len() - 1], heap_bytes }
    }

    fn bytes_beyond(&self, allowed: usize, beside: usize) -> usize {
        (self.heap_bytes + beside).saturating_sub(allowed)
    }

    fn tell(
        &self,
        report: &mut Report,
        name: &str,
        coded: usize,
        allowed: usize,
        beside: usize,
    ) -> Result<()> {
        let mut row = |metric: &str, value: f64, unit| {
            let row = Row::new("bombs", metric, value, unit);
            report.row(row.scenario(name).mode(format!("{allowed} allowed")))
        };
        let beyond = self.bytes_beyond(allowed, beside);
        row("coded", coded as f64, "B")?;
        row("comes out", self.came_out as f64, "B")?;
        row("median", self.median_us / 1e3, "ms")?;
        row("longest", self.longest_us / 1e3, "ms")?;
        row("memory beyond", beyond as f64 / 1e3, "kB")
    }
}

/// Blocks of zstd that grow as far as any, with each dictionary and without; one with a dictionary that nobody has, and a whole frame
/// that asks for the largest window.
fn blocks() -> Vec<(String, Vec<u8>)> {
    let long = vec![b'a'; BLOCK_CONTENT_BYTES_MAX];
    let mut blocks = Vec::new();
    let dictionaries = DICTIONARIES.iter().map(|dictionary| Codec::Dictionary(dictionary.number));
    for codec in [Codec::Zstd].into_iter().chain(dictionaries) {
        let length =
            if codec == Codec::Zstd { BLOCK_CONTENT_BYTES_MAX } else { DICTIONARY_CONTENT_BYTES_MAX };
        let mut coded = Vec::new();
        if codec::encode_as(codec, &long[..length], &mut coded) {
            blocks.push((format!("{codec:?}"), coded));
        }
    }
    let unknown = (0..32).rev().find_map(|number| {
        let known = DICTIONARIES.iter().any(|dictionary| dictionary.number == number);
        Codec::Dictionary(number).tag().filter(|_| !known)
    });
    blocks.extend(unknown.map(|tag| ("unknown dictionary".to_owned(), [&[tag][..], &[0xff; 100]].concat())));
    let frame = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xff, 0x58, 0x15, 0x00, 0x00];
    blocks.extend(Codec::Zstd.tag().map(|tag| ("largest window".to_owned(), [&[tag][..], &frame].concat())));
    blocks
}

/// Texts under all models: what chance wrote, and what says the same without an end.
fn texts() -> Vec<Vec<u8>> {
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let chance: Vec<u8> = (0..BODY_BYTES_MAX).map(|_| random.random()).collect();
    let fillings = [chance, vec![0; BODY_BYTES_MAX], vec![0xff; BODY_BYTES_MAX]];
    let first = 0..=u8::MAX;
    first.flat_map(|first| fillings.iter().map(move |rest| [&[first][..], rest].concat())).collect()
}
