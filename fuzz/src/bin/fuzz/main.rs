//! Runs fuzz targets, counts what was executed over all runs of the same program, and says what came of it in a line of JSON.

mod libfuzzer;
mod tally;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Parser;
use serde::Serialize;
use thinpost_fuzz::{TARGETS, Target};

use self::libfuzzer::{Bound, Programs};
use self::tally::Tally;

/// The tally is written after so long at the latest: what is killed loses no more.
const SAVED_EVERY: Duration = Duration::from_secs(300);

/// How long a target runs if nothing is said.
const SECONDS: u64 = 60;

/// Fuzz what reads a stranger's bytes.
#[derive(Debug, Parser)]
#[command(name = "fuzz/run")]
struct Args {
    /// A target, or `all` for one after the other.
    target: String,
    /// So many executions, for each target.
    #[arg(long, value_name = "N", conflicts_with = "seconds")]
    execs: Option<u64>,
    /// For so many seconds each; a minute if nothing is said.
    #[arg(long, value_name = "S")]
    seconds: Option<u64>,
    /// What choices come from: with the same inputs to start from, a run makes the same ones. Otherwise each run makes others.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    seed: Option<u32>,
    /// Build in a fraction of the time, on what tests have built: only our own packages count their edges, and authentication
    /// codes are checked. Executions are counted for themselves.
    #[arg(long)]
    quick: bool,
    /// Instead, run this input alone, as one that libFuzzer has put aside.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["execs", "seconds", "seed"])]
    replay: Option<PathBuf>,
    /// Instead, write the fewest inputs that reach all that was reached to `fuzz/corpora`.
    #[arg(long, conflicts_with_all = ["execs", "seconds", "seed", "replay"])]
    minimise: bool,
}

/// What is printed of a target.
#[derive(Serialize)]
struct Row {
    row: String,
    /// How many executions there were before.
    from: u64,
    /// How many there were now.
    count: u64,
    broken: u64,
    /// How to see it again.
    again: String,
}

fn main() -> Result<ExitCode> {
    if let Some(mut compiler) = libfuzzer::compiler() {
        let status = compiler.status().context("the compiler")?;
        return Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let args = Args::parse();
    let targets: Vec<Target> =
        TARGETS.into_iter().filter(|target| args.target == "all" || args.target == target.name).collect();
    if targets.is_empty() {
        let names = TARGETS.map(|target| target.name).join(", ");
        bail!("{} is no target; there are {names}, and all", args.target);
    }
    let programs = Programs::build(&targets, args.quick)?;
    let mut is_sound = true;
    for target in targets {
        if let Some(file) = &args.replay {
            is_sound &= programs.replay(target, file)?;
        } else if args.minimise {
            programs.minimise(target)?;
        } else {
            is_sound &= run(&programs, target, &args)?;
        }
    }
    Ok(if is_sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Whether nothing broke.
fn run(programs: &Programs, target: Target, args: &Args) -> Result<bool> {
    let name = target.name;
    programs.write_seeds(target)?;
    let (file, program) = (programs.tally(target), programs.hash(target)?);
    let mut tally = Tally::load(&file, &program)?;
    let from = tally.executions;
    let mut again = match (args.execs, args.seconds.unwrap_or(SECONDS)) {
        (Some(execs), _) => format!("fuzz/run {name} --execs {execs}"),
        (None, seconds) => format!("fuzz/run {name} --seconds {seconds}"),
    };
    if let Some(seed) = args.seed {
        again.push_str(&format!(" --seed {seed}"));
    }
    if args.quick {
        again.push_str(" --quick");
    }
    let began = Instant::now();
    let seconds = Duration::from_secs(args.seconds.unwrap_or(SECONDS));
    let (mut broken, mut seed) = (0, args.seed);
    loop {
        let executions = tally.executions - from;
        let bound = match args.execs {
            Some(execs) => Bound { executions: execs.saturating_sub(executions), lasting: SAVED_EVERY, seed },
            None => Bound {
                executions: u64::MAX,
                lasting: seconds.saturating_sub(began.elapsed()).min(SAVED_EVERY),
                seed,
            },
        };
        if bound.executions == 0 || bound.lasting < Duration::from_secs(1) {
            break;
        }
        let round = programs.run(target, bound)?;
        seed = seed.map(|seed| seed.wrapping_add(1).max(1));
        tally.add(&round);
        tally.save(&file)?;
        if let Some(artifact) = &round.artifact {
            broken = 1;
            again = format!("fuzz/run {name} --replay {}", artifact.display());
            eprintln!(
                "{}\n{name}: broken; the input is {}, see it again by\n  {again}",
                round.tail,
                artifact.display()
            );
            break;
        }
    }
    let count = tally.executions - from;
    eprintln!(
        "{name}: {count} executions in {:.0?}, {} in all; {} edges, {} inputs, {} MiB at most",
        began.elapsed(),
        tally.executions,
        tally.edges,
        tally.inputs,
        tally.rss_mib_max,
    );
    let row = Row { row: format!("fuzz {name}"), from, count, broken, again };
    println!("{}", serde_json::to_string(&row).context("a row")?);
    Ok(broken == 0)
}
