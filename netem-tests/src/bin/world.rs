//! Runs storms by seed, and says which broke what.
//!
//! Exit code 0 when everything held, 1 when something broke, 2 for a wrong command line.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use clap::Parser;
use thinpost_netem::Profile;
use thinpost_netem::storm::{Broken, Calm, storm};
use tracing_subscriber::EnvFilter;

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
    /// Put everyone on this link; by default each is drawn from the seed
    #[arg(long, value_name = "PROFILE")]
    link: Option<String>,
    /// Tell what each storm did
    #[arg(long, short)]
    verbose: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let log = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("off"));
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(log).init();
    let link = match args.link.as_deref().map(Profile::named).transpose() {
        Ok(link) => link,
        Err(error) => {
            eprintln!("world: {error}");
            return ExitCode::from(2);
        }
    };
    let next = AtomicU64::new(0);
    let total = Mutex::new((0, 0, 0));
    let work = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= args.seeds {
                return;
            }
            let seed = args.from + index;
            let outcome = run(seed, link.as_ref());
            let mut total = total.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            match outcome {
                Ok(calm) => {
                    total.0 += calm.messages;
                    total.1 += calm.faults;
                    if args.verbose {
                        println!("seed {seed}: {calm}");
                    }
                }
                Err(broken) => {
                    total.2 += 1;
                    let link = args.link.as_deref().map(|link| format!(" --link {link}")).unwrap_or_default();
                    println!("seed {seed}: {broken}; again: world --seeds 1 --from {seed}{link}");
                }
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let (messages, faults, broken) = *total.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    println!("{} storms, {messages} messages, {faults} faults: {broken} broken", args.seeds);
    if broken == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run(seed: u64, link: Option<&Profile>) -> Result<Calm, Broken> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime without I/O needs nothing").block_on(storm(seed, link))
}
