//! `bench link`: the real relay and real clients over emulated links in virtual time, scenario by scenario, beside the
//! figures that are to be reached.
//!
//! With `--on`, the same on real sockets.
//!
//! Bytes are IP bytes that were put on the air of the thin link in both directions: headers, acknowledgements, lost
//! packets and handshakes. Times are virtual, so that the same seeds give the same figures on every machine.

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use thinpost_netem::Profile;
#[cfg(target_os = "linux")]
use thinpost_netem::rungs::Rung;
use tokio::time::timeout;

use crate::report::{Report, Row};
use baseline::Baseline;
use fairness::Shares;
use pair::{REAL_PATIENCE, Stage};
use play::Figures;
use scenario::Scenario;

mod baseline;
mod fairness;
mod pair;
mod peer;
mod place;
mod play;
#[cfg(target_os = "linux")]
mod real;
mod scenario;
mod script;

/// What a message costs in seconds and bytes on thin links, in virtual time.
#[derive(Args, Debug)]
pub(crate) struct LinkArgs {
    /// Links, by name, or by the path of a file like those in `netem-tests/profiles`; `all` for every one that has a name
    #[arg(long = "profile", value_name = "NAME", default_values = ["gprs", "gprs-bad"])]
    profiles: Vec<String>,
    /// Scenarios, by name; all but `fairness` if none is given
    #[arg(long = "scenario", value_name = "NAME")]
    scenarios: Vec<Scenario>,
    /// Let another play what it can of them in Thinpost's place, to compare with
    #[arg(long, value_name = "NAME")]
    peer: Option<Peer>,
    /// Where it is played: on real sockets it takes as long as it says, all runs at a time, and needs root
    #[arg(long, value_name = "RUNG", default_value = "virtual", conflicts_with_all = ["peer", "baseline"])]
    on: On,
    /// How many runs of each, with seeds from 0 on
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    seeds: u64,
    /// The first seed
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    from: u64,
    /// Fail if a figure is more than 5 % above this file's, which `--json` has written
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// Also one line a run, with its seed, to standard error
    #[arg(long)]
    each: bool,
    /// Also one line a packet on the thin link, to standard error; best with one seed
    #[arg(long, conflicts_with = "on")]
    packets: bool,
}

/// Who plays in Thinpost's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Peer {
    /// Plain quinn endpoints with Cubic, a stream a message
    Quinn,
}

/// Where scenarios are played, from the exact to the real.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum On {
    /// In virtual time
    Virtual,
    /// Between network namespaces, with an emulator on TUN devices between them
    #[cfg(target_os = "linux")]
    Tun,
    /// The same, through the kernel's netem; `netem-tests/run-netem` helps where it has none
    #[cfg(target_os = "linux")]
    Netem,
}

impl On {
    #[cfg(target_os = "linux")]
    fn rung(self) -> Option<Rung> {
        match self {
            Self::Virtual => None,
            Self::Tun => Some(Rung::Tun),
            Self::Netem => Some(Rung::Netem),
        }
    }

    fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

impl LinkArgs {
    fn profiles(&self) -> Result<Vec<Profile>> {
        let names: Vec<&str> = match &self.profiles[..] {
            names if names.iter().any(|name| name == "all") => Profile::names().collect(),
            names => names.iter().map(String::as_str).collect(),
        };
        Ok(names.into_iter().map(Profile::find).collect::<Result<_, _>>()?)
    }

    /// What is to be played; an error if the peer cannot play what was named.
    fn scenarios(&self) -> Result<Vec<Scenario>> {
        let all = if self.scenarios.is_empty() { Scenario::ALL } else { &self.scenarios };
        if self.on != On::Virtual {
            let real: Vec<_> = all.iter().copied().filter(|each| each.needs_no_simulation()).collect();
            ensure!(
                self.scenarios.is_empty() || real.len() == all.len(),
                "outages, NATs, cuts and shares are played in virtual time only: leave them out, or leave out --on"
            );
            return Ok(real);
        }
        let Some(Peer::Quinn) = self.peer else { return Ok(all.to_vec()) };
        let (plays, refused): (Vec<_>, Vec<_>) = all.iter().copied().partition(|&each| peer::plays(each));
        let refused: Vec<String> = refused.into_iter().map(Scenario::name).collect();
        ensure!(
            self.scenarios.is_empty() || refused.is_empty(),
            "plain quinn has nothing to play {} with: leave it out, or leave out --peer",
            refused.join(", ")
        );
        Ok(plays)
    }

    fn seeds(&self) -> Vec<u64> {
        (self.from..self.from.saturating_add(self.seeds)).collect()
    }
}

/// Runs what was asked for, on all processors.
///
/// # Errors
/// For an unknown profile, or a scenario that the peer does not play; when a message is lost, comes twice or out of order; and when
/// a figure exceeds the baseline.
pub(crate) fn run(args: &LinkArgs, report: &mut Report) -> Result<()> {
    let (profiles, scenarios) = (args.profiles()?, args.scenarios()?);
    let baseline = args.baseline.as_deref().map(Baseline::read).transpose()?;
    let mut measured = Vec::new();
    for profile in &profiles {
        for &scenario in &scenarios {
            let rows = match scenario {
                Scenario::Fairness => fairness_rows(profile, args)?,
                _ => scenario_rows(profile, scenario, args)?,
            };
            for (row, bound) in rows {
                report.row(row.clone())?;
                bound.into_iter().try_for_each(|row| report.row(row))?;
                measured.push(row);
            }
        }
    }
    baseline.map_or(Ok(()), |baseline| baseline.compare(&measured))
}

/// On real sockets each run begins so much later than the one before: what they do at once should not be measured.
#[cfg(target_os = "linux")]
const APART: Duration = Duration::from_secs(12);

/// Most runs at a time on real sockets.
#[cfg(target_os = "linux")]
const AT_A_TIME_MAX: u64 = 16;

/// Plays every seed, on all processors, and gives what each gave, in order.
fn runs<T: Send>(
    profile: &Profile,
    scenario: Scenario,
    args: &LinkArgs,
    play: impl Fn(u64) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let (from, seeds) = (args.from, args.seeds);
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<Option<Result<T>>>> = Mutex::new((0..seeds).map(|_| None).collect());
    let at_a_time = match args.on {
        On::Virtual => thread::available_parallelism().map_or(1, usize::from),
        // They mostly wait.
        #[cfg(target_os = "linux")]
        On::Tun | On::Netem => seeds.min(AT_A_TIME_MAX) as usize,
    };
    thread::scope(|scope| {
        for _ in 0..at_a_time {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index as u64 >= seeds {
                        return;
                    }
                    let run = play(from + index as u64);
                    done.lock().expect("no run panics with the lock held")[index] = Some(run);
                }
            });
        }
    });
    let done = done.into_inner().expect("as above");
    let name = |index| {
        let named =
            args.profiles.iter().find(|named| Profile::find(named).is_ok_and(|named| named == *profile));
        let (profile, scenario) = (named.unwrap_or(&profile.name), scenario.name());
        let peer = args.peer.map_or("", |Peer::Quinn| " --peer quinn");
        let on = if args.on == On::Virtual { String::new() } else { format!(" --on {}", args.on.name()) };
        format!(
            "again: bench link --profile {profile} --scenario {scenario}{peer}{on} --seeds 1 --from {index}"
        )
    };
    done.into_iter()
        .zip(from..)
        .map(|(run, seed)| run.context("a run came to no end")?.with_context(|| name(seed)))
        .collect()
}

fn in_virtual_time<T>(play: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
    runtime.block_on(play)
}

#[cfg(target_os = "linux")]
fn on_real_sockets<T>(begin_after: Duration, play: impl Future<Output = Result<T>>) -> Result<T> {
    thread::sleep(begin_after);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async { timeout(REAL_PATIENCE, play).await.context("the scenario takes too long")? })
}

fn one_run(stage: &Stage<'_>, scenario: Scenario, peer: Option<Peer>) -> Result<Figures> {
    match (peer, stage.on) {
        (None, On::Virtual) => in_virtual_time(play::play(stage, scenario)),
        #[cfg(target_os = "linux")]
        (None, On::Tun | On::Netem) => {
            on_real_sockets(APART * (stage.seed % AT_A_TIME_MAX) as u32, play::play(stage, scenario))
        }
        (Some(Peer::Quinn), _) => in_virtual_time(peer::play(stage, scenario)),
    }
}

/// What was measured, and what it is to be.
type RowAndBound = (Row, Option<Row>);

fn scenario_rows(profile: &Profile, scenario: Scenario, args: &LinkArgs) -> Result<Vec<RowAndBound>> {
    let runs = runs(profile, scenario, args, |seed| {
        let stage = Stage { link: profile, seed, packets: args.packets, on: args.on };
        one_run(&stage, scenario, args.peer)
    })?;
    if args.each {
        for (seed, figures) in (args.from..).zip(&runs) {
            eprintln!("{} {} seed {seed}: {figures}", profile.name, scenario.name());
        }
    }
    let (mode, bars) = match (args.peer, args.on) {
        (None, On::Virtual) => ("measured".to_owned(), scenario.bars(&profile.name)),
        (None, on) => (format!("on {}", on.name()), Vec::new()),
        (Some(Peer::Quinn), _) => ("quinn".to_owned(), Vec::new()),
    };
    let row = |figure: Figure, mode: &str, value| {
        let (metric, unit) = figure.column();
        let row = Row::new("link", metric, value, unit);
        row.profile(profile.name.clone()).scenario(scenario.title()).mode(mode).seeds(args.seeds())
    };
    let rows = Figure::ALL.into_iter().filter_map(|figure| {
        let bar = bars.iter().find(|bar| bar.figure == figure);
        let bound = if figure.more_is_better() { "at least" } else { "at most" };
        let bound = bar.map(|bar| row(figure, bound, bar.bound));
        Some((row(figure, &mode, figure.of(&runs)?), bound))
    });
    Ok(rows.collect())
}

/// Medians of the shares.
fn fairness_rows(profile: &Profile, args: &LinkArgs) -> Result<Vec<RowAndBound>> {
    let scenario = Scenario::Fairness;
    let runs: Vec<Shares> =
        runs(profile, scenario, args, |seed| in_virtual_time(fairness::play(profile, seed)))?;
    if args.each {
        for (seed, shares) in (args.from..).zip(&runs) {
            eprintln!("{} {} seed {seed}: {shares}", profile.name, scenario.name());
        }
    }
    let rows = Shares::MODES.into_iter().filter_map(|(mode, share)| {
        let median = quantile(&runs.iter().map(share).collect::<Vec<_>>(), 0.5)?;
        let row = Row::new("link", "share", median, "%").profile(profile.name.clone());
        Some((row.scenario(scenario.title()).mode(mode).seeds(args.seeds()), None))
    });
    Ok(rows.collect())
}

/// What is told of a scenario's runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Figure {
    /// A quantile of the seconds: over all runs where each gives one, else the median of each run's.
    P50,
    P95,
    P99,
    /// Median over the runs.
    Bytes,
    BytesEach,
    /// Of what the link carries in that time and does not lose, how much was of use.
    Share,
    /// Bytes in the hour before the message.
    Hour,
    /// Bytes that came twice, for each cut.
    Twice,
}

impl Figure {
    const ALL: [Self; 8] =
        [Self::P50, Self::P95, Self::P99, Self::Bytes, Self::BytesEach, Self::Share, Self::Hour, Self::Twice];

    /// Whether a bar for it is the least that it may be.
    pub(crate) fn more_is_better(self) -> bool {
        self == Self::Share
    }

    fn column(self) -> (&'static str, &'static str) {
        match self {
            Self::P50 => ("p50", "s"),
            Self::P95 => ("p95", "s"),
            Self::P99 => ("p99", "s"),
            Self::Bytes => ("in all", "B"),
            Self::BytesEach => ("a message", "B"),
            Self::Share => ("of the rate", "%"),
            Self::Hour => ("the hour", "B"),
            Self::Twice => ("twice a cut", "B"),
        }
    }

    fn of(self, runs: &[Figures]) -> Option<f64> {
        let seconds = |share: f64| {
            let quantiles: Vec<f64> = runs.iter().filter_map(|run| quantile(&run.seconds, share)).collect();
            let is_one_each = runs.iter().all(|run| run.seconds.len() <= 1);
            quantile(&quantiles, if is_one_each { share } else { 0.5 })
        };
        let median = |of: fn(&Figures) -> f64| quantile(&runs.iter().map(of).collect::<Vec<_>>(), 0.5);
        // If each has one.
        let median_of_all = |of: fn(&Figures) -> Option<f64>| {
            let values: Option<Vec<f64>> = runs.iter().map(of).collect();
            quantile(&values?, 0.5)
        };
        match self {
            Self::P50 => seconds(0.5),
            Self::P95 => seconds(0.95),
            Self::P99 => seconds(0.99),
            Self::Bytes => median(|run| run.bytes as f64),
            Self::BytesEach => {
                let many = runs.iter().all(|run| run.messages > 1);
                many.then(|| median(|run| run.bytes as f64 / run.messages as f64)).flatten()
            }
            Self::Share => median_of_all(|run| run.share_percent),
            Self::Hour => median_of_all(|run| run.hour_bytes.map(|bytes| bytes as f64)),
            Self::Twice => median_of_all(|run| run.twice_bytes.map(|bytes| bytes as f64)),
        }
    }
}

/// The smallest value that at least this share of all are at or below.
fn quantile(values: &[f64], share: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() as f64 * share).ceil().max(1.0) as usize;
    sorted.get(rank - 1).copied()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[test]
    fn a_quantile_is_a_value_that_was_measured() {
        let values = [4.0, 1.0, 3.0, 2.0];
        assert_eq!(quantile(&values, 0.5), Some(2.0));
        assert_eq!(quantile(&values, 0.95), Some(4.0));
        assert_eq!(quantile(&values, 0.0), Some(1.0));
        assert_eq!(quantile(&[], 0.5), None);
    }

    #[test]
    fn quantiles_are_over_runs_where_a_run_gives_one_time() {
        let run = |seconds: &[f64]| Figures::new(seconds.to_vec(), 10, seconds.len());
        let single = [run(&[1.0]), run(&[2.0]), run(&[9.0])];
        assert_eq!(Figure::P95.of(&single), Some(9.0));
        let many = [run(&[1.0, 2.0]), run(&[2.0, 3.0]), run(&[2.0, 9.0])];
        assert_eq!(Figure::P95.of(&many), Some(3.0), "the median of the runs' largest");
        assert_eq!(Figure::BytesEach.of(&many), Some(5.0));
        assert_eq!(Figure::BytesEach.of(&single), None);
    }

    #[test]
    fn a_scenario_gives_the_same_figures_again() {
        let gprs = Profile::named("gprs").unwrap();
        for peer in [None, Some(Peer::Quinn)] {
            let stage = |seed| Stage { link: &gprs, seed, packets: false, on: On::Virtual };
            let run = |seed| one_run(&stage(seed), Scenario::Resumed, peer).unwrap();
            let once = run(7);
            assert_eq!(once, run(7), "{peer:?}");
            assert_ne!(once, run(8), "{peer:?}");
        }
    }

    #[test]
    fn a_peer_plays_what_it_can_and_refuses_by_name_what_it_cannot() {
        #[derive(Debug, Parser)]
        struct Line {
            #[command(flatten)]
            args: LinkArgs,
        }
        let scenarios = |line: &str| {
            Line::try_parse_from(["link"].into_iter().chain(line.split(' '))).unwrap().args.scenarios()
        };
        let all = scenarios("--peer quinn").unwrap();
        assert!(!all.is_empty() && all.iter().all(|&scenario| peer::plays(scenario)));
        let named = scenarios("--peer quinn --scenario cold --scenario steady-saver --scenario fairness");
        let error = named.unwrap_err().to_string();
        assert!(error.contains("steady-saver, fairness") && !error.contains("cold"), "{error}");
    }
}
