//! Kills a client at every crash point of many talks, in virtual time: `crash --runs 1000`.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use clap::Parser;
use thinpost_netem::crash::{Broken, Victim, crash};

/// Kill a client at every moment around a change of its disk, and check that nothing is lost, shown twice or stuck
#[derive(Debug, Parser)]
struct Args {
    /// How many clients are killed at least: talks begin until then, and each is struck at all its points
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    runs: u64,
    /// The seed of the first talk
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    from: u64,
}

#[derive(Default)]
struct Total {
    struck: BTreeMap<&'static str, u64>,
    broken: u64,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let next = AtomicU64::new(0);
    let enough = AtomicBool::new(false);
    let total = Mutex::new(Total::default());
    let work = || {
        while !enough.load(Ordering::Relaxed) {
            // One talk has two victims.
            let index = next.fetch_add(1, Ordering::Relaxed);
            let (seed, victim) = (args.from + index / 2, [Victim::Ann, Victim::Bob][(index % 2) as usize]);
            for at in 1.. {
                let outcome = run(seed, victim, at);
                let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
                match outcome {
                    Ok(Some(point)) => *total.struck.entry(point).or_default() += 1,
                    Ok(None) => break,
                    Err(broken) => {
                        total.broken += 1;
                        println!("seed {seed}, {victim:?} killed at point {at}: {broken}");
                    }
                }
            }
            let total = total.lock().unwrap_or_else(PoisonError::into_inner);
            enough
                .fetch_or(total.struck.values().sum::<u64>() + total.broken >= args.runs, Ordering::Relaxed);
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let Total { struck, broken } = total.into_inner().unwrap_or_else(PoisonError::into_inner);
    let points: Vec<_> = struck.iter().map(|(point, count)| format!("{point} {count}")).collect();
    println!("{} kills ({}): {broken} broken", struck.values().sum::<u64>() + broken, points.join(", "));
    if broken == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run(seed: u64, victim: Victim, at: u64) -> Result<Option<&'static str>, Broken> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime without I/O needs nothing").block_on(crash(seed, victim, at))
}
