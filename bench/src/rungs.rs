//! `bench rungs`: whether virtual time, the emulator on TUN devices and the kernel's netem tell the same.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde::Deserialize;

use crate::report::{Report, Row};

/// By how much bytes may differ, of the smallest.
const BYTES_SHARE_MAX: f64 = 0.10;

/// By how much median times may differ: of the smallest, or seconds, whichever is more.
const TIME_SHARE_MAX: f64 = 0.15;
const TIME_S_MAX: f64 = 0.1;

/// Compares what `bench link --json` has written on several rungs; fails where they differ too much
#[derive(Args, Debug)]
pub(crate) struct RungsArgs {
    /// Files of its lines: in virtual time, `--on tun`, `--on netem`
    #[arg(required = true, num_args = 2.., value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// What is read of a line.
#[derive(Clone, Debug, Deserialize)]
struct Line {
    profile: String,
    scenario: String,
    mode: String,
    metric: String,
    value: f64,
    seeds: Vec<u64>,
}

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Compared {
    Median,
    Bytes,
}

impl Compared {
    fn of(metric: &str) -> Option<Self> {
        match metric {
            "p50" => Some(Self::Median),
            "in all" => Some(Self::Bytes),
            _ => None,
        }
    }

    fn column(self) -> (&'static str, &'static str) {
        match self {
            Self::Median => ("p50", "s"),
            Self::Bytes => ("in all", "B"),
        }
    }

    /// Whether the smallest and the largest are near enough.
    fn agree(self, least: f64, most: f64) -> bool {
        let differ = most - least;
        match self {
            Self::Median => differ <= (least * TIME_SHARE_MAX).max(TIME_S_MAX),
            Self::Bytes => differ <= least * BYTES_SHARE_MAX,
        }
    }
}

/// A link and what was played on it.
type Played = (String, String);

/// The figures of each mode, in the order in which they were read.
type Figures = Vec<(String, Line)>;

/// Compares.
///
/// # Errors
/// When a file cannot be read, has no lines of `bench link`, or lacks a figure that another has; and when figures differ too much.
pub(crate) fn run(args: &RungsArgs, report: &mut Report) -> Result<()> {
    let mut figures: BTreeMap<(Played, Compared), Figures> = BTreeMap::new();
    for file in &args.files {
        let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        for (index, line) in text.lines().enumerate() {
            let line: Line = serde_json::from_str(line)
                .with_context(|| format!("{}, line {}", file.display(), index + 1))?;
            // Bars are no figures.
            let Some(compared) = Compared::of(&line.metric).filter(|_| !line.mode.starts_with("at ")) else {
                continue;
            };
            let played = (line.profile.clone(), line.scenario.clone());
            figures.entry((played, compared)).or_default().push((line.mode.clone(), line));
        }
    }
    ensure!(!figures.is_empty(), "there are no figures to compare");
    let mut apart = Vec::new();
    for (((profile, scenario), compared), figures) in &figures {
        let (metric, unit) = compared.column();
        let name = format!("{profile} {scenario} {metric}");
        ensure!(
            figures.len() == args.files.len(),
            "{name}: {} files of {} have it",
            figures.len(),
            args.files.len()
        );
        let row = |metric: &'static str, value, unit| {
            Row::new("rungs", metric, value, unit).profile(profile.clone()).scenario(scenario.clone())
        };
        for (mode, line) in figures {
            let mode = if mode == "measured" { "in virtual time" } else { mode };
            report.row(row(metric, line.value, unit).mode(mode).seeds(line.seeds.clone()))?;
        }
        let values = || figures.iter().map(|(_, line)| line.value);
        let (least, most) = (values().fold(f64::MAX, f64::min), values().fold(0.0, f64::max));
        report.row(row(metric, most - least, unit).mode("apart by"))?;
        if !compared.agree(least, most) {
            apart.push(format!("{name}: from {least:.2} to {most:.2} {unit}"));
        }
    }
    if !apart.is_empty() {
        bail!(
            "the rungs do not agree:\n{}\nA machine that is busy delays all but virtual time: play them again while it rests",
            apart.join("\n")
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(mode: &str, seconds: f64, bytes: f64) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let row = |metric, value, unit| {
            let row = Row::new("link", metric, value, unit).profile("gprs").scenario("S4 queued");
            serde_json::to_string(&row.mode(mode).seeds([0, 1])).unwrap()
        };
        let bar = Row::new("link", "p50", 0.1, "s").profile("gprs").scenario("S4 queued").mode("at most");
        let lines =
            [row("p50", seconds, "s"), serde_json::to_string(&bar).unwrap(), row("in all", bytes, "B")];
        fs::write(file.path(), lines.join("\n")).unwrap();
        file
    }

    fn compared(others: [(f64, f64); 2]) -> Result<()> {
        let [tun, netem] = others;
        let files = [("measured", (2.0, 1_000.0)), ("on tun", tun), ("on netem", netem)];
        let files = files.map(|(mode, (seconds, bytes))| file(mode, seconds, bytes));
        let args = RungsArgs { files: files.iter().map(|file| file.path().to_owned()).collect() };
        run(&args, &mut Report::new(true))
    }

    #[test]
    fn rungs_agree_within_their_bounds_only() {
        compared([(2.2, 1_050.0), (2.3, 1_100.0)]).unwrap();
        let error = compared([(2.2, 1_050.0), (2.31, 1_000.0)]).unwrap_err().to_string();
        assert!(error.contains("gprs S4 queued p50: from 2.00 to 2.31 s"), "{error}");
        let error = compared([(2.0, 960.0), (2.0, 1_060.0)]).unwrap_err().to_string();
        assert!(error.contains("in all: from 960.00 to 1060.00 B"), "{error}");
        assert!(Compared::Median.agree(0.1, 0.2), "a tenth of a second is always near enough");
    }

    #[test]
    fn a_figure_that_one_file_lacks_is_an_error() {
        let (one, empty) = (file("measured", 1.0, 1.0), tempfile::NamedTempFile::new().unwrap());
        let args = RungsArgs { files: vec![one.path().to_owned(), empty.path().to_owned()] };
        let error = run(&args, &mut Report::new(true)).unwrap_err().to_string();
        assert!(error.contains("1 files of 2 have it"), "{error}");
    }
}
