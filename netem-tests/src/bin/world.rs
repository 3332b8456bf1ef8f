//! Runs storms by seed, and says which broke what.
//!
//! Exit code 0 when everything held, 1 when something broke, 2 for a wrong command line, 74 when a file cannot be written.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use clap::Parser;
use thinpost_netem::capture::{Capture, line};
use thinpost_netem::storm::{Broken, Calm, Weather, storm};
use thinpost_netem::{Net, Profile};
use tracing_subscriber::EnvFilter;

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
    /// Tell what each storm did
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

    /// How to run the storm of this seed again.
    fn again(&self, seed: u64) -> String {
        let mut again = format!("world --seed {seed}");
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
    let log = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("off"));
    tracing_subscriber::fmt().with_writer(io::stderr).with_env_filter(log).init();
    let link = match args.profile.as_deref().map(Profile::find).transpose() {
        Ok(link) => link,
        Err(error) => {
            eprintln!("world: {error}");
            return ExitCode::from(2);
        }
    };
    let files = match Files::create(args.trace.as_deref(), args.pcap.as_deref()) {
        Ok(files) => Arc::new(Mutex::new(files)),
        Err(error) => {
            eprintln!("world: {error}");
            return ExitCode::from(EXIT_IO);
        }
    };
    let (first, seeds) = args.seed.map_or((args.from, args.seeds), |seed| (seed, 1));
    let next = AtomicU64::new(0);
    let total = Mutex::new((0, 0, 0));
    let work = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= seeds {
                return;
            }
            let seed = first.wrapping_add(index);
            let outcome = run(&args.weather(seed, link.as_ref()), &files);
            let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
            match outcome {
                Ok(calm) => {
                    total.0 += calm.messages;
                    total.1 += calm.faults;
                    if args.verbose || args.seed.is_some() {
                        println!("seed {seed}: {calm}");
                    }
                }
                Err(broken) => {
                    total.2 += 1;
                    println!("seed {seed}: {broken}; again: {}", args.again(seed));
                }
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let (messages, faults, broken) = *total.lock().unwrap_or_else(PoisonError::into_inner);
    println!("{seeds} storms, {messages} messages, {faults} faults: {broken} broken");
    let mut files = files.lock().unwrap_or_else(PoisonError::into_inner);
    if let Err(error) = files.finish() {
        eprintln!("world: a file could not be written: {error}");
        return ExitCode::from(EXIT_IO);
    }
    if broken == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run(weather: &Weather, files: &Arc<Mutex<Files>>) -> Result<Calm, Broken> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let watch = |net: &Net| {
        let files = files.clone();
        if files.lock().is_ok_and(|files| files.are_wanted()) {
            net.set_trace(move |trace| {
                files.lock().unwrap_or_else(PoisonError::into_inner).record(trace);
            });
        }
    };
    runtime.expect("a runtime without I/O needs nothing").block_on(storm(weather, watch))
}

/// The files that packets are written to. The first failure is kept until the end.
struct Files {
    trace: Option<BufWriter<File>>,
    pcap: Option<Capture<BufWriter<File>>>,
    failure: Option<io::Error>,
}

impl Files {
    fn create(trace: Option<&Path>, pcap: Option<&Path>) -> io::Result<Self> {
        let create = |path: &Path| match File::create(path) {
            Ok(file) => Ok(BufWriter::new(file)),
            Err(error) => Err(io::Error::other(format!("{}: {error}", path.display()))),
        };
        let trace = trace.map(create).transpose()?;
        let pcap = pcap.map(|path| Capture::new(create(path)?)).transpose()?;
        Ok(Self { trace, pcap, failure: None })
    }

    fn are_wanted(&self) -> bool {
        self.trace.is_some() || self.pcap.is_some()
    }

    fn record(&mut self, trace: &thinpost_netem::Trace) {
        let lines = self.trace.as_mut().map_or(Ok(()), |file| writeln!(file, "{}", line(trace)));
        let packets = self.pcap.as_mut().map_or(Ok(()), |pcap| pcap.record(trace));
        if let Err(error) = lines.and(packets) {
            self.failure.get_or_insert(error);
        }
    }

    fn finish(&mut self) -> io::Result<()> {
        let flushed = self.trace.as_mut().map_or(Ok(()), BufWriter::flush);
        let pcap = self.pcap.take().map_or(Ok(()), Capture::finish);
        self.failure.take().map_or(Ok(()), Err).and(flushed).and(pcap)
    }
}
