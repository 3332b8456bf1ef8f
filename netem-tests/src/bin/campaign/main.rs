//! Tries out everything that must hold when things go wrong, in volume, and adds up over runs what was seen. What it runs it builds
//! first.
//!
//! Exit code 0 when all that was run held, 1 when something broke or could not be run, 2 for a wrong command line, 74 when the record
//! cannot be read or written.

mod record;
mod rows;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output, Stdio};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use clap::{Parser, Subcommand};
use thinpost_netem::report::Report;

use self::record::{Record, grouped};
use self::rows::{ROWS, Row};

/// Exit code where the record cannot be read or written, as in sysexits.h.
const EXIT_IO: u8 = 74;

/// Every fault that Thinpost must withstand, in volume: goes on where it stopped, and counts up in a file
#[derive(Debug, Parser)]
#[command(name = "campaign", version)]
struct Args {
    #[command(subcommand)]
    command: What,
    /// What was seen so far
    #[arg(long, global = true, value_name = "FILE", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/campaign.json"))]
    record: PathBuf,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Run all rows that are not done, in turns, until they are
    All(Limits),
    /// Run these rows, in turns, until they are done
    Run {
        /// Which
        #[arg(required = true, value_parser = find)]
        rows: Vec<&'static Row>,
        #[command(flatten)]
        limits: Limits,
    },
    /// Print what was seen, as a table in Markdown
    Table,
    /// Begin rows anew, as when what they have found was mended
    Forget {
        /// Which
        #[arg(required = true, value_parser = find)]
        rows: Vec<&'static Row>,
    },
}

#[derive(Clone, Copy, Debug, clap::Args)]
struct Limits {
    /// Stop after this long, at the end of a turn
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
    time: Option<Duration>,
    /// How long a row's turn takes, about
    #[arg(long, value_name = "TIME", default_value = "2m", value_parser = humantime::parse_duration)]
    turn: Duration,
}

impl std::fmt::Debug for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

fn find(name: &str) -> Result<&'static Row, String> {
    let names = || ROWS.iter().map(|row| row.name).collect::<Vec<_>>().join(", ");
    ROWS.iter().find(|row| row.name == name).ok_or_else(|| format!("there are {}", names()))
}

fn main() -> ExitCode {
    let args = Args::parse();
    match perform(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("campaign: {error:#}");
            ExitCode::from(EXIT_IO)
        }
    }
}

fn perform(args: &Args) -> Result<bool> {
    let mut record = Record::load(&args.record)?;
    match &args.command {
        What::All(limits) => run(&mut record, &args.record, &ROWS.iter().collect::<Vec<_>>(), *limits),
        What::Run { rows, limits } => run(&mut record, &args.record, rows, *limits),
        What::Table => {
            print!("{}", record.table());
            Ok(true)
        }
        What::Forget { rows } => {
            rows.iter().for_each(|row| record.forget(row));
            record.save(&args.record)?;
            Ok(true)
        }
    }
}

/// Gives each row its turn until all are done, or the time is over. Whether everything held.
fn run(record: &mut Record, file: &Path, rows: &[&'static Row], limits: Limits) -> Result<bool> {
    let began = Instant::now();
    let programs = std::env::current_exe().context("the program's own file")?;
    let programs = programs.parent().context("the program's own folder")?.to_owned();
    build(&programs)?;
    let commit = commit();
    let mut all_held = rows.iter().all(|row| record.done(row).1 == 0);
    let mut rows: Vec<_> = rows.iter().map(|row| (*row, None::<f64>)).collect();
    loop {
        rows.retain(|(row, _)| record.done(row).0 < row.volume);
        if rows.is_empty() {
            return Ok(all_held);
        }
        let mut failed = Vec::new();
        for (row, speed) in &mut rows {
            if limits.time.is_some_and(|time| began.elapsed() >= time) {
                return Ok(all_held);
            }
            let amount = speed.map_or(row.first, |speed| (speed * limits.turn.as_secs_f64()) as u64).max(1);
            let turn = Instant::now();
            match take_turn(row, &programs, record.next_seed(row), amount) {
                Ok(report) => {
                    let seconds = turn.elapsed().as_secs_f64();
                    *speed = Some(amount as f64 / seconds.max(0.001));
                    all_held &= report.broken == 0;
                    record.add(row, &commit, &today(), seconds as u64, &report);
                    record.save(file)?;
                    let (count, broken) = record.done(row);
                    let (count, volume) = (grouped(count), grouped(row.volume));
                    println!("{}: {count} of {volume} {}, {broken} broken", row.name, row.unit);
                }
                Err(error) => {
                    eprintln!("campaign: {}: {error:#}", row.name);
                    failed.push(row.name);
                }
            }
        }
        all_held &= failed.is_empty();
        rows.retain(|(row, _)| !failed.contains(&row.name));
    }
}

/// Builds what the rows run, as what is recorded is said to be of what is checked out.
fn build(programs: &Path) -> Result<()> {
    let mut command = Command::new("cargo");
    command.current_dir(env!("CARGO_MANIFEST_DIR")).args(["build", "--quiet", "--locked", "--bins"]);
    for package in ["thinpost-netem", "thinpost-gateway", "thinpost-client"] {
        command.args(["--package", package]);
    }
    match programs.file_name().and_then(|name| name.to_str()) {
        Some("debug") => {}
        Some(profile) => drop(command.args(["--profile", profile])),
        None => bail!("{}: no folder of a profile", programs.display()),
    }
    let status = command.stdin(Stdio::null()).status().context("cargo")?;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(())
}

/// Runs so much of a row.
fn take_turn(row: &Row, programs: &Path, from: u64, amount: u64) -> Result<Report> {
    let mut command = row.command(programs, from, amount);
    let program = row.program(programs);
    let Output { status, stdout, .. } = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| program.display().to_string())?;
    let stdout = String::from_utf8_lossy(&stdout);
    let Some(report) = Report::find(&stdout) else {
        bail!("{command:?} ended with {status} and no report:\n{}", stdout.trim_end());
    };
    if report.broken > 0 {
        print!("{stdout}");
    } else if !status.success() {
        // As when storms never came to what they must come to.
        bail!("{command:?} ended with {status}:\n{}", stdout.trim_end());
    }
    Ok(report)
}

/// What is checked out here, and was built; with a "+" if something was changed since.
fn commit() -> String {
    let git = |args: &[&str]| {
        let output =
            Command::new("git").arg("-C").arg(env!("CARGO_MANIFEST_DIR")).args(args).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short=9", "HEAD"]) else { return "unknown".to_owned() };
    let but_record = [":/", ":(exclude,top)netem-tests/campaign.json"];
    let status = ["status", "--porcelain", "--untracked-files=no", "--"];
    let is_changed = git(&[&status[..], &but_record].concat()).is_none_or(|text| !text.is_empty());
    commit + if is_changed { "+" } else { "" }
}

fn today() -> String {
    let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    now.split('T').next().unwrap_or_default().to_owned()
}
