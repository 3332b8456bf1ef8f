//! Attacks a relay, and measures what its ordinary clients notice: `flood all`. See `docs/decisions/0022-under-attack.md`.

mod bars;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use clap::{Args, Parser, Subcommand};
use serde_json::json;
use thinpost_netem::Profile;
use thinpost_netem::flood::service::{Group, Phase};
use thinpost_netem::flood::{Relay, Service, census, handshakes, mailbox, replay, slow};
use thinpost_netem::report::{Figures, Report};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep, sleep_until};

use self::bars::Bar;

/// Attack a real relay on this machine, and measure how long its ordinary clients wait
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    attack: Attack,
}

#[derive(Debug, Subcommand)]
enum Attack {
    /// Handshakes that nobody ends, and devices that say nothing
    Handshakes(Options),
    /// Clients at a byte a second, frames without an end, handshakes in crumbs
    Slow(Options),
    /// Too much for one mailbox, by one sender and by many
    Mailbox(Options),
    /// All of these at once
    All(Options),
    /// A first flight, played again and again
    Replay {
        /// How many of them the relay looks into, at least
        #[arg(long, value_name = "N", default_value_t = 1_000)]
        count: u64,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Args, Clone, Debug)]
struct Common {
    /// What all chance follows from
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    seed: u64,
    /// The relay's program; beside this one by default
    #[arg(long, value_name = "PATH")]
    gateway: Option<PathBuf>,
}

#[derive(Args, Clone, Debug)]
struct Options {
    #[command(flatten)]
    common: Common,
    /// Ordinary clients, two by two, behind the link of the profile
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(2..=2_000))]
    clients: u64,
    /// As many more on this machine, with no link between, two by two
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(0..=2_000))]
    near: u64,
    /// For so many clients one that comes and goes, now known and now new
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=2_000))]
    per_newcomer: u64,
    /// What is attacked with: forged addresses, slow clients, strangers. By default what the bars say
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(10..=50_000))]
    attackers: Option<u64>,
    /// How long it is quiet, and how long attacked, seconds. On a link with losses the 99th percentile is that of a few losses in a row, and
    /// takes many waits to be known
    #[arg(long, value_name = "S", default_value_t = 240, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: u64,
    /// The link that each ordinary client is behind; `none` for this machine alone
    #[arg(long, value_name = "PROFILE", default_value = "gprs")]
    profile: String,
    /// How often each client says something, or comes, milliseconds
    #[arg(long, value_name = "MS", default_value_t = 4_000, value_parser = clap::value_parser!(u64).range(10..=600_000))]
    pace_ms: u64,
    /// From how many strangers on the relay asks newcomers to prove their address, if not from as many as it comes with: 0
    /// asks everybody, and 65536 nobody
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(0..=65_536))]
    retry_from: Option<u64>,
}

/// What the bars ask for, and how fast it comes.
const FORGED: u64 = 20_000;
const FORGED_PER_S: u64 = 300;
const SILENT_PER_S: u64 = 10;
const SLOW: u64 = 5_000;
const SLOW_PER_S: u64 = 100;
const STRANGERS: u64 = 10_000;
const STRANGERS_PER_S: u64 = 125;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let outcome = runtime.context("no threads").and_then(|runtime| {
        runtime.block_on(async {
            tokio::select! {
                outcome = perform(cli.attack) => outcome,
                // The relay ends with what it was started for.
                ended = told_to_end() => ended.and(Err(anyhow!("told to end"))),
            }
        })
    });
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("flood: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Completes at SIGINT and SIGTERM.
async fn told_to_end() -> Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}

/// Whether all bars are met.
async fn perform(attack: Attack) -> Result<bool> {
    // A socket for each attacker.
    rlimit::increase_nofile_limit(u64::MAX)?;
    match attack {
        Attack::Handshakes(options) => flood("handshakes", options, true, false, false).await,
        Attack::Slow(options) => flood("slow", options, false, true, false).await,
        Attack::Mailbox(options) => flood("mailbox", options, false, false, true).await,
        Attack::All(options) => flood("all", options, true, true, true).await,
        Attack::Replay { count, common } => replay_row(count, &common).await,
    }
}

impl Common {
    fn program(&self) -> Result<PathBuf> {
        let beside = || Ok(std::env::current_exe()?.with_file_name("gateway"));
        self.gateway.clone().map_or_else(beside, Ok)
    }
}

/// Prints what was found as the last line, for whoever adds rows up. Whether nothing is broken.
fn row(name: &str, count: u64, broken: &[String], figures: Figures, again: &str) -> bool {
    for what in broken {
        println!("BROKEN: {what}");
    }
    let report = Report {
        row: format!("flood {name}"),
        count,
        broken: u64::from(!broken.is_empty()),
        again: again.to_owned(),
        figures,
        ..Report::default()
    };
    println!("{}", report.line());
    broken.is_empty()
}

async fn replay_row(count: u64, common: &Common) -> Result<bool> {
    let outcome = replay::run(&common.program()?, count, common.seed).await?;
    println!("flights played           {:>9}", outcome.played);
    println!("  looked into            {:>9}", outcome.answered);
    println!(
        "  at most                {:>9.2} bytes to one address for each from there",
        outcome.amplification
    );
    println!("restarts in between      {:>9}", outcome.restarts);
    for (when, counts) in ["before", "played once", "at the end"].iter().zip(&outcome.counts) {
        println!("the store, {when:<13} {counts:?}");
    }
    let figures = [
        ("played", outcome.played.into()),
        ("amplification", outcome.amplification.into()),
        ("restarts", outcome.restarts.into()),
        ("delivered", outcome.delivered.into()),
    ];
    let figures = figures.map(|(name, figure)| (name.to_owned(), figure)).into();
    let again = format!("flood replay --count {count} --seed {}", common.seed);
    Ok(row("replay", outcome.answered, &outcome.broken, figures, &again))
}

async fn flood(
    name: &str,
    options: Options,
    with_handshakes: bool,
    with_slow: bool,
    with_mailbox: bool,
) -> Result<bool> {
    let Options { common: Common { seed, .. }, clients, attackers, seconds, .. } = options;
    let profile = (options.profile != "none").then(|| Profile::find(&options.profile)).transpose()?;
    let retry_from = options.retry_from.map(|strangers| format!("limits.retry_from = {strangers}\n"));
    let mut relay = Relay::start(&options.common.program()?, retry_from.as_deref().unwrap_or_default())?;
    let config = relay.config()?;
    let pace = Duration::from_millis(options.pace_ms);
    let far = Group {
        number: 0,
        clients,
        newcomers: clients.div_ceil(options.per_newcomer),
        pace,
        profile: profile.as_ref(),
    };
    let near = Group {
        number: 1,
        clients: options.near,
        newcomers: options.near.div_ceil(options.per_newcomer),
        pace,
        profile: None,
    };
    let (far, near) =
        tokio::try_join!(Service::start(&relay, far, seed), Service::start(&relay, near, seed))?;
    let enter = |phase| [&far, &near].map(|service| service.enter(phase));
    let length = Duration::from_secs(seconds);
    sleep(pace * 2).await;
    enter(Phase::Quiet);
    sleep(length).await;
    let (quiet_bytes, quiet_time) = (relay.peak_bytes()?, relay.processor_time()?);
    enter(Phase::Attacked);
    let until = Instant::now() + length;
    let forged = attackers.unwrap_or(FORGED);
    let handshake_flood =
        handshakes::Flood { forged, forged_per_s: FORGED_PER_S, silent: forged, silent_per_s: SILENT_PER_S };
    let slow_flood = slow::Flood { clients: attackers.unwrap_or(SLOW), per_s: SLOW_PER_S };
    let mailbox_flood = mailbox::Flood::of(&config, attackers.unwrap_or(STRANGERS), STRANGERS_PER_S);
    let handshakes = maybe(with_handshakes, handshakes::run(relay.ticket(), handshake_flood, seed, until));
    let slow = maybe(with_slow, slow::run(relay.ticket(), slow_flood, seed, until));
    let mailbox = maybe(with_mailbox, mailbox::run(relay.ticket(), mailbox_flood, seed, until));
    let census = census::take(relay.data_folder()?, until);
    let (handshakes, slow, mailbox, census) = tokio::try_join!(handshakes, slow, mailbox, census)?;
    sleep_until(until).await;
    // Threads that were there in quiet only count for nothing.
    let [ran_s, waited_s] = [0, 1].map(|of| {
        relay.processor_time().map_or(0.0, |time| time[of].saturating_sub(quiet_time[of]).as_secs_f64())
    });
    enter(Phase::Beginning);
    let (far, near) = tokio::join!(far.finish(), near.finish());
    let lost = relay.datagrams_lost()?;
    let (peak_bytes, bound_bytes) = (relay.peak_bytes()?, relay.bound_bytes()?);
    let growth_bytes = census.growth_bytes_max(&config);

    let mut broken = Vec::new();
    let mut figures = Figures::new();
    if !relay.is_running()? {
        broken.push("the relay has ended".into());
    }
    relay.stop()?;
    let store = relay.store()?;
    broken.extend(relay.panics());

    let mut count = 0;
    let limits = &config.limits;
    // Whoever comes first has all places where nobody is asked to prove their address: whoever is known stays, and newcomers wait.
    let bar = Bar { holds_newcomers: !with_handshakes || limits.retry_from <= limits.strangers_max };
    bars::show("far", &far, None, bar, &mut figures, &mut broken);
    let is_thin = profile.is_some().then_some(&far);
    if options.near > 0 {
        bars::show("near", &near, is_thin, bar, &mut figures, &mut broken);
    }
    let (mut known, mut silent, mut half_open) = (0, 0, 0);
    if let Some(outcome) = handshakes {
        count += outcome.begun + outcome.silent + outcome.turned_away;
        silent += outcome.sessions(&handshake_flood, limits);
        half_open += outcome.half_open(&handshake_flood, limits);
        println!("forged addresses           {:>9}", outcome.begun);
        println!("  answered                 {:>9}", outcome.answered);
        println!("  asked where they are     {:>9}", outcome.retried);
        println!(
            "  at most                  {:>9.2} bytes to one for each from there",
            outcome.amplification
        );
        println!("devices that say nothing   {:>9}", outcome.silent);
        println!("  without a place          {:>9}", outcome.turned_away);
        broken.extend(outcome.check(limits, lost, seconds).err().map(|error| error.to_string()));
        figures.insert("answered".into(), outcome.answered.into());
        figures.insert("retried".into(), outcome.retried.into());
        figures.insert("amplification".into(), outcome.amplification.into());
        figures.insert("silent".into(), outcome.silent.into());
        figures.insert("without_place".into(), outcome.turned_away.into());
    }
    if let Some(outcome) = slow {
        let slow::Outcome { readers, endless, crumbs, .. } = &outcome;
        count += readers.begun + endless.begun + crumbs.begun;
        known += outcome.sessions();
        half_open += outcome.half_open(&slow_flood);
        println!("clients that do not read   {:>9}, {} let in", readers.begun, readers.let_in);
        println!("frames without an end      {:>9}, {} let in", endless.begun, endless.let_in);
        println!(
            "handshakes in crumbs       {:>9}, {} opened, {} ended by the relay",
            crumbs.begun, crumbs.let_in, crumbs.ended
        );
        broken.extend(outcome.check(&store).err().map(|error| error.to_string()));
        figures.insert("slow_let_in".into(), (readers.let_in + endless.let_in).into());
        figures.insert("crumbs_opened".into(), crumbs.let_in.into());
    }
    if let Some(outcome) = mailbox {
        let mailbox::Outcome { one, friends, asked, forged, .. } = &outcome;
        count += one.count() + friends.count() + asked.count() + forged.count();
        let shown =
            [("one sender", one), ("friends", friends), ("strangers", asked), ("made-up rights", forged)];
        for (who, answers) in shown {
            println!(
                "by {who:<20} {:>12} accepted, {} unanswered; refused {:?}",
                answers.accepted, answers.unanswered, answers.refused
            );
            let name = who.replace([' ', '-'], "_");
            figures.insert(format!("{name}_accepted"), answers.accepted.into());
            figures.insert(format!("{name}_refused"), json!(answers.refused));
        }
        println!(
            "strangers not let in       {:>9} of {}",
            outcome.turned_away,
            outcome.turned_away + outcome.strangers
        );
        figures.insert("strangers".into(), outcome.strangers.into());
        broken.extend(outcome.check(&mailbox_flood, &config, &store).err().map(|error| error.to_string()));
    }
    println!(
        "the relay counts           {:>9} devices in quiet, {} at the end; {} strangers at most",
        census.first.connected, census.last.connected, census.most.strangers
    );
    figures.insert("counted_connected".into(), census.last.connected.into());
    figures.insert("counted_strangers".into(), census.most.strangers.into());
    figures.insert("lent_bytes".into(), census.most.lent_bytes.into());
    broken.extend(census.check(known, silent, half_open, limits).err().map(|error| error.to_string()));
    println!(
        "memory, MB                 {:>9.1} in quiet, {:.1} under attack, at most {:.1} with as many; at most {:.1}",
        quiet_bytes as f64 / 1e6,
        peak_bytes as f64 / 1e6,
        (quiet_bytes + growth_bytes) as f64 / 1e6,
        bound_bytes as f64 / 1e6
    );
    println!(
        "processor time of the relay {ran_s:>8.1} s under attack, waited {waited_s:.1} s for it; \
         {lost} datagrams lost at its socket"
    );
    figures.insert("processor_s".into(), ran_s.into());
    figures.insert("processor_waited_s".into(), waited_s.into());
    figures.insert("datagrams_lost".into(), lost.into());
    figures.insert("quiet_bytes".into(), quiet_bytes.into());
    figures.insert("peak_bytes".into(), peak_bytes.into());
    figures.insert("growth_bytes_max".into(), growth_bytes.into());
    figures.insert("bound_bytes".into(), bound_bytes.into());
    if peak_bytes > bound_bytes {
        broken.push(format!("the relay took {peak_bytes} bytes, and {bound_bytes} are the most it says"));
    }
    let grown_bytes = peak_bytes.saturating_sub(quiet_bytes);
    if grown_bytes > growth_bytes {
        broken.push(format!(
            "the relay has grown by {grown_bytes} bytes, and {growth_bytes} are the most for as many"
        ));
    }
    let attackers = attackers.map(|count| format!(" --attackers {count}")).unwrap_or_default();
    let retry_from = options.retry_from.map(|count| format!(" --retry-from {count}")).unwrap_or_default();
    let again = format!(
        "flood {name} --clients {clients} --near {} --per-newcomer {}{attackers} --seconds {seconds} --profile {} --pace-ms {} \
         --seed {seed}{retry_from}",
        options.near, options.per_newcomer, options.profile, options.pace_ms
    );
    Ok(row(name, count, &broken, figures, &again))
}

async fn maybe<T>(runs: bool, attack: impl Future<Output = Result<T>>) -> Result<Option<T>> {
    if runs { attack.await.map(Some) } else { Ok(None) }
}
