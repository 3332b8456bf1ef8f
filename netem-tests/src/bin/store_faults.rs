//! What befalls a relay's store, in volume: `store-faults cuts --count 100000`.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use clap::{Parser, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use thinpost_gateway::store::faults::{Outcome, Story, cursors};
use thinpost_netem::report::Report;

/// Random histories of a relay's store, with a fault at each of many places, and a check of what is found afterwards
#[derive(Debug, Parser)]
#[command(name = "store-faults", version)]
struct Args {
    /// What happens
    fault: Fault,
    /// How many faults at least, losses of power with `cuts`: histories begin until then, and each meets all of its own
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    count: u64,
    /// The seed of the first history
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    from: u64,
    /// End with a line of JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Fault {
    /// The power goes after a call to the disk, and what was not synced is partly lost; or the relay is killed there
    Cuts,
    /// A call to the disk fails, alone or with all after it: the disk is full, or broken, or cannot be read
    Calls,
    /// A bit of the file flips
    Bits,
    /// Devices say that they are elsewhere than they are, and senders use stale tokens: no fault of the disk
    Cursors,
}

/// Bits that flip in one history.
const BITS: u64 = 500;

/// Reads from which on nothing can be read, in one history.
const READS: u64 = 100;

impl Fault {
    fn name(self) -> &'static str {
        match self {
            Self::Cuts => "cuts",
            Self::Calls => "calls",
            Self::Bits => "bits",
            Self::Cursors => "cursors",
        }
    }

    fn befall(self, seed: u64) -> Outcome {
        match self {
            Self::Cuts => Story::new(seed).cut(),
            Self::Calls => {
                let story = Story::new(seed);
                story.fail(1).and(story.fail_reads(READS))
            }
            Self::Bits => Story::new(seed).rot(BITS),
            Self::Cursors => cursors(seed),
        }
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let progress = ProgressBar::new(args.count).with_style(style());
    let (next, tried) = (AtomicU64::new(args.from), AtomicU64::new(0));
    let total = Mutex::new(Outcome::default());
    let work = || {
        while tried.load(Ordering::Relaxed) < args.count {
            let outcome = args.fault.befall(next.fetch_add(1, Ordering::Relaxed));
            tried.fetch_add(outcome.tried, Ordering::Relaxed);
            progress.inc(outcome.tried);
            let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
            total.tried += outcome.tried;
            total.kills += outcome.kills;
            total.noticed += outcome.noticed;
            progress.suspend(|| outcome.broken.iter().for_each(|broken| println!("{broken}")));
            total.broken.extend(outcome.broken);
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    progress.finish_and_clear();
    let Outcome { tried, kills, noticed, broken } =
        total.into_inner().unwrap_or_else(PoisonError::into_inner);
    let seeds = next.into_inner() - args.from;
    let (name, broken) = (args.fault.name(), broken.len() as u64);
    let beside = match args.fault {
        Fault::Cuts => Some(("kills", kills)),
        Fault::Bits => Some(("noticed", noticed)),
        Fault::Calls | Fault::Cursors => None,
    };
    let and_those = beside.map(|(what, count)| format!(", {count} {what}")).unwrap_or_default();
    println!("{tried} {name} in {seeds} histories{and_those}: {broken} broken");
    if args.json {
        let again = format!("store-faults {name} --from {} --count {}", args.from, args.count);
        let figures = beside.into_iter().map(|(what, count)| (what.to_owned(), count.into())).collect();
        let row = format!("store {name}");
        println!(
            "{}",
            Report { row, from: args.from, seeds, count: tried, broken, again, figures, ..Report::default() }
                .line()
        );
    }
    if broken == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{pos} of {len}, {elapsed_precise}, {eta} left")
        .expect("the template is sound")
}
