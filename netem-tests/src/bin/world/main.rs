//! Runs storms by seed, and says which broke what.
//!
//! Exit code 0 when everything held, 1 when something broke, 2 for a wrong command line, 74 when a file cannot be written.

mod files;
mod tally;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, IsTerminal};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use thinpost_netem::sometimes::{self, Sometimes};
use thinpost_netem::storm::{Calm, Weather, storm};
use thinpost_netem::{Net, Profile};
use tokio::time::Instant;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use self::files::Files;
use self::tally::Tally;

/// After so many storms what was counted is written down.
const BLOCK: u64 = 100;

/// Exit code where a file cannot be written, as in sysexits.h.
const EXIT_IO: u8 = 74;

/// Worlds in which everything fails that may fail: is anything lost, repeated or out of order?
#[derive(Debug, Parser)]
#[command(name = "world", version)]
struct Args {
    /// How many storms to run
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first one's seed
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Run the storm of this seed only, and tell what it did
    #[arg(long, conflicts_with_all = ["seeds", "from"])]
    seed: Option<u64>,
    /// Put everyone on this link, by name or as a .toml file; by default each is drawn from the seed
    #[arg(long, visible_alias = "link", value_name = "PROFILE")]
    profile: Option<String>,
    /// How many people there are
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=Weather::PEOPLE_MAX as i64))]
    clients: u8,
    /// How long each storm lasts at least, in its own time; by default so many steps as the seed says
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    minutes: Option<u64>,
    /// Write a line for each packet to this file
    #[arg(long, value_name = "FILE", requires = "seed")]
    trace: Option<PathBuf>,
    /// Write all packets that are sent to this file, in pcap's format
    #[arg(long, value_name = "FILE", requires = "seed")]
    pcap: Option<PathBuf>,
    /// Count on where the last run with this file ended, and keep the count in it
    #[arg(long, value_name = "FILE", conflicts_with = "seed")]
    resume: Option<PathBuf>,
    /// Tell what each storm did, and how often rare things happened
    #[arg(long, short)]
    verbose: bool,
}

impl Args {
    fn weather(&self, seed: u64, link: Option<&Profile>) -> Weather {
        Weather {
            seed,
            link: link.cloned(),
            people: usize::from(self.clients),
            lasting: self.minutes.map(|minutes| Duration::from_secs(minutes * 60)),
        }
    }

    /// How to run the storm of this seed again, or all of them.
    fn again(&self, seed: Option<u64>) -> String {
        let mut again = "world".to_owned();
        match seed {
            Some(seed) => again += &format!(" --seed {seed}"),
            None => again += &format!(" --from {}", self.from),
        }
        if let Some(profile) = &self.profile {
            again += &format!(" --profile {profile}");
        }
        if self.clients != 3 {
            again += &format!(" --clients {}", self.clients);
        }
        if let Some(minutes) = self.minutes {
            again += &format!(" --minutes {minutes}");
        }
        again
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let sometimes = Sometimes::default();
    let log = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("off"));
    let log = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_timer(WorldTime)
        .with_filter(log);
    tracing_subscriber::registry().with(log).with(sometimes.layer()).init();
    match run(&args, &sometimes) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(Stop::Usage(error)) => {
            eprintln!("world: {error:#}");
            ExitCode::from(2)
        }
        Err(Stop::Io(error)) => {
            eprintln!("world: {error:#}");
            ExitCode::from(EXIT_IO)
        }
    }
}

thread_local! {
    /// When the world of this thread began, by its own clock.
    static BEGAN: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// What the clock in a world says, for logs.
struct WorldTime;

impl FormatTime for WorldTime {
    fn format_time(&self, w: &mut Writer<'_>) -> fmt::Result {
        let age = BEGAN.get().map_or(0.0, |began| began.elapsed().as_secs_f64());
        write!(w, "{age:.3}")
    }
}

/// Why not all storms were run.
enum Stop {
    Usage(anyhow::Error),
    Io(anyhow::Error),
}

/// Whether everything held.
fn run(args: &Args, sometimes: &Sometimes) -> Result<bool, Stop> {
    let link = args.profile.as_deref().map(Profile::find).transpose();
    let link = link.map_err(|error| Stop::Usage(error.into()))?;
    let files = Files::create(args.trace.as_deref(), args.pcap.as_deref());
    let files = Arc::new(Mutex::new(files.map_err(|error| Stop::Io(error.into()))?));
    let (first, seeds) = args.seed.map_or((args.from, args.seeds), |seed| (seed, 1));
    let run = tally::Run::new(args.again(None), link.as_ref()).map_err(Stop::Io)?;
    let mut tally = match &args.resume {
        Some(file) => Tally::load(file, &run).map_err(Stop::Usage)?,
        None => Tally::default(),
    };
    let progress = ProgressBar::new(seeds).with_style(style()).with_position(tally.storms);
    while tally.storms < seeds {
        let block = tally.storms..seeds.min(tally.storms + BLOCK);
        let outcomes = storms(args, first, link.as_ref(), block, &files, &progress);
        for (index, outcome) in outcomes {
            let seed = first.wrapping_add(index);
            match outcome {
                Ok(calm) => {
                    if args.verbose || args.seed.is_some() {
                        progress.suspend(|| println!("seed {seed}: {calm}"));
                    }
                    tally.add(&calm);
                }
                Err(broken) => {
                    let broken = format!("seed {seed}: {broken}; again: {}", args.again(Some(seed)));
                    progress.suspend(|| println!("{broken}"));
                    tally.add_broken(broken);
                }
            }
        }
        tally.add_said(sometimes.take());
        if let Some(file) = &args.resume {
            tally.save(file, &run).map_err(Stop::Io)?;
        }
    }
    progress.finish_and_clear();
    let mut files = files.lock().unwrap_or_else(PoisonError::into_inner);
    files.finish().map_err(|error| Stop::Io(error.into()))?;
    if args.verbose || args.seed.is_some() {
        print!("{}", tally.said());
    }
    println!("{tally}");
    // Whoever chooses a link, or how many and how long, chooses what cannot happen.
    let all_drawn = args.again(None) == format!("world --from {}", args.from) && seeds >= sometimes::STORMS;
    let missing = if all_drawn { tally.missing() } else { Vec::new() };
    for (who, what) in &missing {
        println!("never happened: {who} says {what:?}");
    }
    Ok(tally.broken.is_empty() && missing.is_empty())
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{pos} of {len} storms, {elapsed_precise}, {eta} left")
        .expect("the template is sound")
}

/// Runs the storms that have these places behind the first seed, as many at a time as there are processors; what became of
/// each, by place.
fn storms(
    args: &Args,
    first: u64,
    link: Option<&Profile>,
    block: Range<u64>,
    files: &Arc<Mutex<Files>>,
    progress: &ProgressBar,
) -> BTreeMap<u64, Result<Calm, String>> {
    let next = Mutex::new(block);
    let outcomes = Mutex::new(BTreeMap::new());
    let work = || {
        loop {
            let Some(index) = next.lock().unwrap_or_else(PoisonError::into_inner).next() else { return };
            let outcome = one_storm(&args.weather(first.wrapping_add(index), link), files);
            outcomes.lock().unwrap_or_else(PoisonError::into_inner).insert(index, outcome);
            progress.inc(1);
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    outcomes.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn one_storm(weather: &Weather, files: &Arc<Mutex<Files>>) -> Result<Calm, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let watch = |net: &Net| {
        let files = files.clone();
        if files.lock().is_ok_and(|files| files.are_wanted()) {
            net.set_trace(move |trace| {
                files.lock().unwrap_or_else(PoisonError::into_inner).record(trace);
            });
        }
    };
    let runtime = runtime.expect("a runtime without I/O needs nothing");
    let run = || {
        runtime.block_on(async {
            BEGAN.set(Some(Instant::now()));
            storm(weather, watch).await.map_err(|broken| broken.to_string())
        })
    };
    // What was said stands on standard error; which seed it was is to be known as well.
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| Err("a panic".to_owned()))
}
