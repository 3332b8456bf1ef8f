//! Strikes a client at many moments of many talks, in virtual time: `crash --runs 1000`.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use clap::Parser;
use thinpost_netem::crash::{Blow, Broken, Victim, crash};
use thinpost_netem::report::Report;

/// Kill a client at every moment around a change of its disk, and check that nothing is lost, shown twice or stuck
#[derive(Debug, Parser)]
struct Args {
    /// How often clients are struck at least: talks begin until then, and each has a run for each of its points, or some with losses of power
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    runs: u64,
    /// The seed of the first talk
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    from: u64,
    /// Take the power away at calls to the disk, again and again in each talk, in place of killing: of what was not synced some is then
    /// lost, in any order
    #[arg(long)]
    power: bool,
    /// End with a line of JSON
    #[arg(long)]
    json: bool,
}

/// How often a talk is had with each victim when power is lost, each time at other moments.
const POWER_RUNS: u64 = 10;

#[derive(Default)]
struct Total {
    struck: BTreeMap<&'static str, u64>,
    /// How many talks were begun, with each victim.
    talks: u64,
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
            let blows = 1..=if args.power { POWER_RUNS } else { u64::MAX };
            for blow in blows.map(if args.power { Blow::PowerLosses } else { Blow::Kill }) {
                let outcome = run(seed, victim, blow);
                let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
                match outcome {
                    Ok(points) if points.is_empty() && !args.power => break,
                    Ok(points) => {
                        points.into_iter().for_each(|point| *total.struck.entry(point).or_default() += 1);
                    }
                    Err(broken) => {
                        total.broken += 1;
                        println!("seed {seed}, {victim:?}, {blow:?}: {broken}");
                    }
                }
            }
            let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
            total.talks += 1;
            enough
                .fetch_or(total.struck.values().sum::<u64>() + total.broken >= args.runs, Ordering::Relaxed);
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let Total { struck, talks, broken } = total.into_inner().unwrap_or_else(PoisonError::into_inner);
    let points: Vec<_> = struck.iter().map(|(point, count)| format!("{point} {count}")).collect();
    let count = struck.values().sum::<u64>() + broken;
    let what = if args.power { "losses of power" } else { "kills" };
    println!("{count} {what} ({}): {broken} broken", points.join(", "));
    if args.json {
        let row = if args.power { "power loss of a client" } else { "kill of a client" };
        let power = if args.power { " --power" } else { "" };
        let again = format!("crash --from {} --runs {}{power}", args.from, args.runs);
        let (row, seeds) = (row.to_owned(), talks.div_ceil(2));
        println!(
            "{}",
            Report { row, from: args.from, seeds, count, broken, again, ..Report::default() }.line()
        );
    }
    if broken == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run(seed: u64, victim: Victim, blow: Blow) -> Result<Vec<&'static str>, Broken> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime without I/O needs nothing");
    // As when what is left of a home cannot be opened: the others go on, and it is told which it was.
    let outcome = catch_unwind(AssertUnwindSafe(|| runtime.block_on(crash(seed, victim, blow))));
    outcome.unwrap_or_else(|_| Err(Broken::Undone { who: "somebody", what: "it panicked".to_owned() }))
}
