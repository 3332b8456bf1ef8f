//! Runs storms by seed, and says which broke what.
//!
//! Exit code 0 when everything held, 1 when something broke, 2 for a wrong command line, 74 when a file cannot be written.

mod files;
mod tally;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
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

/// How long storms are begun until what was counted is written down.
const SAVED_EVERY: Duration = Duration::from_secs(10);

/// Exit code where a file cannot be written, as in sysexits.h.
const EXIT_IO: u8 = 74;

/// Worlds in which everything fails that may fail: is anything lost, repeated or out of order?
#[derive(Debug, Parser)]
#[command(name = "world", version)]
struct Args {
    /// How many storms to run
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
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
    /// Write a line for each packet of the storm of --seed to this file
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Write all packets that are sent in the storm of --seed to this file, in pcap's format. What the same seed writes
    /// again has the same times and sizes, but not the same bytes, which are encrypted under new keys
    #[arg(long, value_name = "FILE")]
    pcap: Option<PathBuf>,
    /// Count on where the last run with this file ended, and keep the count in it
    #[arg(long, value_name = "FILE", conflicts_with = "seed")]
    resume: Option<PathBuf>,
    /// End with a line of JSON
    #[arg(long, conflicts_with = "resume")]
    json: bool,
    /// Tell what each storm did, and how often rare things happened
    #[arg(long, short)]
    verbose: bool,
}

impl Args {
    /// The command line, if it makes sense.
    fn read() -> Result<Self, clap::Error> {
        let args = Self::try_parse()?;
        let wrong = |kind, what: &str| Err(Self::command().error(kind, what));
        if args.seed.is_none() && (args.trace.is_some() || args.pcap.is_some()) {
            return wrong(
                ErrorKind::MissingRequiredArgument,
                "--trace and --pcap are of one storm: name its --seed",
            );
        }
        if args.trace.is_some() && args.trace == args.pcap {
            return wrong(ErrorKind::ArgumentConflict, "--trace and --pcap are to be two files");
        }
        if args.from.checked_add(args.seeds - 1).is_none() {
            return wrong(ErrorKind::ValueValidation, "--from and --seeds go beyond the last seed there is");
        }
        Ok(args)
    }

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
            let is_plain = |letter: char| letter.is_alphanumeric() || "-_./".contains(letter);
            match profile.chars().all(is_plain) {
                true => again += &format!(" --profile {profile}"),
                false => again += &format!(" --profile '{}'", profile.replace('\'', r"'\''")),
            }
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
    let args = Args::read().unwrap_or_else(|error| error.exit());
    let sometimes = Sometimes::default();
    let log = match std::env::var(EnvFilter::DEFAULT_ENV) {
        Ok(filter) => EnvFilter::try_new(filter),
        Err(_) => Ok(EnvFilter::new("off")),
    };
    let log = match log {
        Ok(log) => log,
        Err(error) => {
            eprintln!("world: {}: {error}", EnvFilter::DEFAULT_ENV);
            return ExitCode::from(2);
        }
    };
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
            // Whoever closed the pipe knows.
            if error.downcast_ref::<io::Error>().is_none_or(|error| error.kind() != io::ErrorKind::BrokenPipe)
            {
                eprintln!("world: {error:#}");
            }
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
        Some(file) => resume(file, &run, seeds)?,
        None => Tally::default(),
    };
    let progress = ProgressBar::new(seeds).with_style(style()).with_position(tally.storms);
    while tally.storms < seeds {
        let outcomes = storms(args, first, link.as_ref(), tally.storms..seeds, &files, &progress);
        for (index, outcome) in outcomes {
            let seed = first.wrapping_add(index);
            match outcome {
                Ok(calm) => {
                    if args.verbose || args.seed.is_some() {
                        progress.suspend(|| say(format_args!("seed {seed}: {calm}\n")))?;
                    }
                    tally.add(&calm);
                }
                Err(broken) => {
                    let broken = format!("seed {seed}: {broken}; again: {}", args.again(Some(seed)));
                    progress.suspend(|| say(format_args!("{broken}\n")))?;
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
        say(format_args!("{}", tally.said()))?;
    }
    say(format_args!("{tally}\n"))?;
    if args.json {
        let again = format!("{} --seeds {seeds}", args.again(None));
        say(format_args!("{}\n", tally.report(first, again).line()))?;
    }
    // Whoever chooses a link, or how many and how long, chooses what cannot happen. The first storms are known to take all that must
    // happen in so few; of others some hundreds may well miss one.
    let all_drawn = args.again(None) == format!("world --from {first}");
    let are_enough = seeds >= if first == 0 { sometimes::FIRST_STORMS } else { sometimes::STORMS };
    let missing = if all_drawn && are_enough { tally.missing() } else { Vec::new() };
    for (who, what) in &missing {
        say(format_args!("never happened: {who} says {what:?}\n"))?;
    }
    Ok(tally.broken.is_empty() && missing.is_empty())
}

/// What earlier runs have counted, and found broken. The file can be written, or this is an error.
fn resume(file: &Path, run: &tally::Run, seeds: u64) -> Result<Tally, Stop> {
    let mut tally = Tally::load(file, run).map_err(Stop::Usage)?;
    tally.save(file, run).map_err(Stop::Io)?;
    if tally.storms >= seeds {
        eprintln!("world: {} has {} storms already: nothing is left to run", file.display(), tally.storms);
    }
    for broken in &tally.broken {
        say(format_args!("{broken}\n"))?;
    }
    Ok(tally)
}

fn say(what: fmt::Arguments<'_>) -> Result<(), Stop> {
    let mut out = io::stdout().lock();
    out.write_fmt(what).and_then(|()| out.flush()).map_err(|error| Stop::Io(error.into()))
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{pos} of {len} storms, {elapsed_precise}, {eta} left")
        .expect("the template is sound")
}

/// Runs the storms that have these places behind the first seed, as many at a time as there are processors, and begins none
/// after [`SAVED_EVERY`]; what became of each, by place.
fn storms(
    args: &Args,
    first: u64,
    link: Option<&Profile>,
    places: Range<u64>,
    files: &Arc<Mutex<Files>>,
    progress: &ProgressBar,
) -> BTreeMap<u64, Result<Calm, String>> {
    let began = std::time::Instant::now();
    let next = Mutex::new(places);
    let outcomes = Mutex::new(BTreeMap::new());
    let work = || {
        loop {
            let mut next = next.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(index) = next.next() else { return };
            drop(next);
            let outcome = one_storm(&args.weather(first.wrapping_add(index), link), files);
            outcomes.lock().unwrap_or_else(PoisonError::into_inner).insert(index, outcome);
            progress.inc(1);
            if began.elapsed() >= SAVED_EVERY {
                return;
            }
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
