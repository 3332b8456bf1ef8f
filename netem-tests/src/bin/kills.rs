//! Kills a relay and its people, each a process, at random moments of many talks: `kills --count 1000`; or the people alone, at the
//! crash points that they pass: `kills --at-points --count 1000`.

use std::collections::BTreeMap;
use std::fs;
use std::process::ExitCode;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use thinpost_netem::report::Report;
use thinpost_netem::town::{Process, Town};

/// Messages of a talk.
const LINES: usize = 60;

/// Longest time between two kills, milliseconds.
const PAUSE_MS_MAX: u64 = 250;

/// Kills of a talk in which clients kill themselves.
#[cfg(unix)]
const AT_POINTS: u64 = 40;

/// A talk in which nothing arrives for so long is stuck.
const STUCK_AFTER: Duration = Duration::from_secs(60);

/// Kill -9 a relay, a sender and a recipient, as real processes, while messages are on their way
#[derive(Debug, Parser)]
struct Args {
    /// How many kills at least: talks begin until then
    #[arg(long, value_name = "N", default_value_t = 100)]
    count: u64,
    /// The seed of the first talk; it says who is killed and when, but the system decides what they were doing
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    from: u64,
    /// Have clients kill themselves at the crash points that the seed says, and nobody at random moments
    #[cfg(unix)]
    #[arg(long)]
    at_points: bool,
    /// End with a line of JSON
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let (mut kills, mut broken, mut seeds) = (Kills::new(), 0, 0);
    while kills.values().sum::<u64>() < args.count {
        let seed = args.from + seeds;
        seeds += 1;
        if let Err(error) = talk(&args, seed, &mut kills) {
            broken += 1;
            println!("seed {seed}: {error:#}");
            if broken >= 10 {
                break;
            }
        }
    }
    let count = kills.values().sum();
    let figures = kills.iter().map(|(whom, count)| ((*whom).to_owned(), (*count).into())).collect();
    println!("{count} kills in {seeds} talks ({kills:?}): {broken} broken");
    if args.json {
        let at_points = if is_at_points(&args) { "--at-points " } else { "" };
        let again = format!("kills {at_points}--from {} --count {}", args.from, args.count);
        let row = "kills of processes".to_owned();
        println!(
            "{}",
            Report { row, from: args.from, seeds, count, broken, again, figures, ..Report::default() }.line()
        );
    }
    if broken == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// How often whom.
type Kills = BTreeMap<&'static str, u64>;

#[cfg(unix)]
fn is_at_points(args: &Args) -> bool {
    args.at_points
}

#[cfg(not(unix))]
fn is_at_points(_: &Args) -> bool {
    false
}

/// The talk of this seed.
fn talk(args: &Args, seed: u64, kills: &mut Kills) -> Result<()> {
    #[cfg(unix)]
    if is_at_points(args) {
        let struck = thinpost_netem::points::talk(seed, args.count.min(AT_POINTS))?;
        struck.kills.into_iter().for_each(|(whom, count)| *kills.entry(whom).or_default() += count);
        return Ok(());
    }
    Talk::new(seed)?.run(kills)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Relay,
    Sender,
    Recipient,
}

impl Victim {
    fn name(self) -> &'static str {
        match self {
            Self::Relay => "relay",
            Self::Sender => "sender",
            Self::Recipient => "recipient",
        }
    }
}

struct Talk {
    town: Town,
    random: ChaCha8Rng,
    lines: Vec<String>,
    read: Vec<String>,
    sender: Process,
    recipient: Recipient,
}

/// Bob's listener, and what it prints.
struct Recipient {
    process: Process,
    lines: Receiver<String>,
}

impl Recipient {
    fn start(town: &Town, after: usize) -> Result<Self> {
        let mut process = town.listen(after);
        let output = process.take_output().context("its standard output is ours")?;
        let (sink, lines) = mpsc::channel();
        thread::spawn(move || output.map_while(Result::ok).try_for_each(|line| sink.send(line)));
        Ok(Self { process, lines })
    }
}

impl Talk {
    fn new(seed: u64) -> Result<Self> {
        let town = Town::new();
        let random = ChaCha8Rng::seed_from_u64(seed);
        let lines: Vec<_> = (0..LINES).map(|n| format!("message {n} of talk {seed}")).collect();
        let recipient = Recipient::start(&town, 0)?;
        let sender = send(&town, &lines)?;
        Ok(Self { town, random, lines, read: Vec::new(), sender, recipient })
    }

    /// Kills until everything has arrived.
    fn run(mut self, kills: &mut Kills) -> Result<()> {
        let mut moved = Instant::now();
        while self.read.len() < self.lines.len() {
            ensure!(moved.elapsed() < STUCK_AFTER, "stuck after {} messages", self.read.len());
            let pause = Duration::from_millis(self.random.random_range(0..PAUSE_MS_MAX));
            let until = Instant::now() + pause;
            while let Some(left) = until.checked_duration_since(Instant::now()) {
                match self.recipient.lines.recv_timeout(left) {
                    Ok(line) => {
                        moved = Instant::now();
                        self.take(&line)?;
                    }
                    Err(RecvTimeoutError::Timeout) => break,
                    Err(RecvTimeoutError::Disconnected) => bail!("the recipient has ended by itself"),
                }
            }
            if self.read.len() < self.lines.len() {
                let victims = [Victim::Relay, Victim::Sender, Victim::Recipient];
                let victim = *victims.choose(&mut self.random).expect("there are three");
                *kills.entry(victim.name()).or_default() += 1;
                self.strike(victim)?;
            }
        }
        self.finish()
    }

    fn take(&mut self, line: &str) -> Result<()> {
        let line: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
        let text = line["text"].as_str().unwrap_or_default();
        let expected = self.lines.get(self.read.len()).map_or("", String::as_str);
        ensure!(text == expected, "{text:?} has come in place of {expected:?}");
        self.read.push(text.to_owned());
        Ok(())
    }

    fn strike(&mut self, victim: Victim) -> Result<()> {
        match victim {
            Victim::Relay => {
                self.town.kill_relay();
                self.town.start_relay();
            }
            Victim::Sender => {
                self.sender.kill();
                let written = self.written()?;
                self.sender = if written < self.lines.len() {
                    send(&self.town, &self.lines[written..])?
                } else {
                    Process::start(self.town.thinpost("ann").args(["sync", "--for", "60s"]))
                };
            }
            Victim::Recipient => {
                self.recipient.process.kill();
                // What it had printed was shown.
                let printed: Vec<_> = self.recipient.lines.iter().collect();
                printed.iter().try_for_each(|line| self.take(line))?;
                self.recipient = Recipient::start(&self.town, self.read.len())?;
            }
        }
        Ok(())
    }

    /// How many messages Ann's home knows of.
    fn written(&self) -> Result<usize> {
        let status = self.town.text(self.town.thinpost("ann").args(["status", "--json"]));
        let status: Value = serde_json::from_str(&status)?;
        let count = |name: &str| status[name].as_u64().unwrap_or_default() as usize;
        Ok(count("waiting") + count("custody") + count("failed"))
    }

    /// Nothing comes a second time, and nothing is left.
    fn finish(mut self) -> Result<()> {
        self.sender.kill();
        self.recipient.process.kill();
        let late: Vec<_> = self.recipient.lines.iter().collect();
        ensure!(late.is_empty(), "{late:?} has come after everything");
        for name in ["ann", "bob", "ann"] {
            self.town.text(self.town.thinpost(name).args(["sync", "--for", "60s"]));
        }
        let status = self.town.text(self.town.thinpost("bob").args(["status", "--json"]));
        let status: Value = serde_json::from_str(&status)?;
        ensure!(status["received"] == LINES, "{} messages were received", status["received"]);
        Ok(())
    }
}

fn send(town: &Town, lines: &[String]) -> Result<Process> {
    let file = town.folder.path().join("lines");
    fs::write(&file, lines.join("\n")).with_context(|| file.display().to_string())?;
    Ok(town.send(&file))
}
