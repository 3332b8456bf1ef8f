//! Kills a relay and its people, each a process, at random moments of many talks: `kills --count 1000`; or the people alone, at the
//! crash points that they pass: `kills --at-points --count 1000`.

use std::collections::BTreeMap;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{ChildStdin, ExitCode, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::Parser;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use thinpost_netem::report::Report;
use thinpost_netem::town::{Process, Town};

/// Kills of a talk: as many as it takes for what one has left behind to meet the next.
const KILLS: u64 = 20;

/// Messages between two kills, at most.
const BURST_MAX: usize = 8;

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
        let done: u64 = kills.values().sum();
        let talked = catch_unwind(AssertUnwindSafe(|| talk(&args, seed, args.count - done, &mut kills)));
        let talked =
            talked.unwrap_or_else(|_| Err(anyhow!("a program did not do what it was asked for, see above")));
        if let Err(error) = talked {
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

/// The talk of this seed, with so many kills at most.
fn talk(args: &Args, seed: u64, left: u64, kills: &mut Kills) -> Result<()> {
    #[cfg(unix)]
    if is_at_points(args) {
        let struck = thinpost_netem::points::talk(seed, left.min(AT_POINTS))?;
        struck.kills.into_iter().for_each(|(whom, count)| *kills.entry(whom).or_default() += count);
        return Ok(());
    }
    let mut talk = Talk::new(seed)?;
    let held = talk.run(left.min(KILLS), kills).and_then(|()| talk.finish());
    let panicked = talk.town.panicked().map_or(Ok(()), |said| bail!("a program has panicked: {said}"));
    held.and(panicked).inspect_err(|_| eprint!("{}", talk.town.last_words()))
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

/// A talk, as the one who watches it knows it. Messages are counted from 0, and each has an id of its own.
struct Talk {
    town: Town,
    seed: u64,
    random: ChaCha8Rng,
    /// Messages that Ann's program was asked to send.
    asked: usize,
    /// Of these, the first so many were acknowledged: whatever happens now, they arrive.
    acknowledged: usize,
    /// The first so many are in the relay's custody: whatever happens to Ann now, they arrive.
    custody: usize,
    /// Messages that Bob's program has printed.
    read: usize,
    sender: Program,
    recipient: Program,
}

/// A program that speaks JSON, and what it prints.
struct Program {
    process: Process,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Program {
    fn new(mut process: Process) -> Result<Self> {
        let output = process.take_output().context("its standard output is ours")?;
        let (sink, lines) = mpsc::channel();
        thread::spawn(move || output.map_while(Result::ok).try_for_each(|line| sink.send(line)));
        let input = process.child.stdin.take();
        Ok(Self { process, input, lines })
    }

    /// Bob's listener, which tells what stands in his inbox after this number.
    fn recipient(town: &Town, after: usize) -> Result<Self> {
        Self::new(town.listen(after))
    }

    /// Ann's: a program that another one steers.
    fn sender(town: &Town) -> Result<Self> {
        let mut program = Self::new(Process::start(town.thinpost("ann").arg("rpc").stdin(Stdio::piped())))?;
        program.ask(json!({ "method": "connect", "params": {} }))?;
        Ok(program)
    }

    fn ask(&mut self, mut request: Value) -> Result<()> {
        request["jsonrpc"] = "2.0".into();
        let input = self.input.as_mut().context("its standard input is ours")?;
        Ok(writeln!(input, "{request}")?)
    }
}

impl Talk {
    fn new(seed: u64) -> Result<Self> {
        let town = Town::new();
        let random = ChaCha8Rng::seed_from_u64(seed);
        let (sender, recipient) = (Program::sender(&town)?, Program::recipient(&town, 0)?);
        Ok(Self { town, seed, random, asked: 0, acknowledged: 0, custody: 0, read: 0, sender, recipient })
    }

    fn id(&self, n: usize) -> String {
        format!("{:016x}{n:016x}", self.seed)
    }

    fn text(&self, n: usize) -> String {
        format!("message {n} of talk {}", self.seed)
    }

    /// Kills so often, while messages are on their way.
    fn run(&mut self, count: u64, kills: &mut Kills) -> Result<()> {
        for _ in 0..count {
            // What is struck is on its way to being settled, or all at once.
            if self.random.random_bool(0.5) {
                self.wait("all that was asked for", |talk| talk.read == talk.asked)?;
            }
            self.say()?;
            let pause = Duration::from_millis(self.random.random_range(0..PAUSE_MS_MAX));
            self.hear_until(Instant::now() + pause)?;
            let victims = [Victim::Relay, Victim::Sender, Victim::Recipient];
            let victim = *victims.choose(&mut self.random).expect("there are three");
            self.strike(victim)?;
            *kills.entry(victim.name()).or_default() += 1;
        }
        Ok(())
    }

    /// Asks Ann's program to send some more.
    fn say(&mut self) -> Result<()> {
        for _ in 0..self.random.random_range(1..=BURST_MAX) {
            let n = self.asked;
            let params = json!({ "to": "bob", "text": self.text(n), "id": self.id(n) });
            self.sender.ask(json!({ "id": n, "method": "send", "params": params }))?;
            self.asked += 1;
        }
        Ok(())
    }

    /// Takes what both say until then.
    fn hear_until(&mut self, until: Instant) -> Result<()> {
        loop {
            while let Ok(line) = self.sender.lines.try_recv() {
                self.answered(&line)?;
            }
            let left = until.saturating_duration_since(Instant::now());
            match self.recipient.lines.recv_timeout(left) {
                Ok(line) => self.take(&line)?,
                Err(RecvTimeoutError::Timeout) => return Ok(()),
                Err(RecvTimeoutError::Disconnected) => bail!("the recipient has ended by itself"),
            }
        }
    }

    fn wait(&mut self, what: &str, is_over: impl Fn(&Self) -> bool) -> Result<()> {
        let reached = |talk: &Self| (talk.acknowledged, talk.custody, talk.read);
        let (mut last, mut moved) = (reached(self), Instant::now());
        while !is_over(self) {
            self.hear_until(Instant::now() + Duration::from_millis(10))?;
            if reached(self) != last {
                (last, moved) = (reached(self), Instant::now());
            }
            let is_stuck = moved.elapsed() > STUCK_AFTER;
            ensure!(
                !is_stuck,
                "{what} did not come: {} asked for; acknowledged, in custody, read: {last:?}",
                self.asked
            );
        }
        Ok(())
    }

    /// Ann's program has answered, or tells what has become of a message.
    fn answered(&mut self, line: &str) -> Result<()> {
        let said: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
        if let Some(n) = said["id"].as_u64() {
            // Its number in the outbox is told once, and of a message that was lost another one would have it.
            let (expected, number) = (self.acknowledged as u64, &said["result"]["message"]);
            ensure!(n == expected && *number == n + 1, "{said} in place of the answer to request {expected}");
            self.acknowledged += 1;
        }
        match said["method"].as_str() {
            Some("custody") => {
                let number = said["params"]["message"].as_u64().context("a message has a number")? as usize;
                ensure!(said["params"]["id"] == self.id(number - 1).as_str(), "{said} has another id");
                ensure!(number <= self.asked, "{said} of a message that nobody sent");
                self.custody = self.custody.max(number);
            }
            Some("failed" | "abandoned") => bail!("{said}"),
            _ => {}
        }
        Ok(())
    }

    /// Bob's program has printed a message.
    fn take(&mut self, line: &str) -> Result<()> {
        let said: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
        let n = self.read;
        let is_next = said["id"] == self.id(n).as_str() && said["text"] == self.text(n).as_str();
        ensure!(n < self.asked && is_next, "{said} has come in place of message {n} of {}", self.asked);
        self.read += 1;
        Ok(())
    }

    fn strike(&mut self, victim: Victim) -> Result<()> {
        match victim {
            Victim::Relay => {
                let mut relay = self.town.take_relay();
                ensure!(relay.is_alive(), "the relay has ended by itself");
                relay.kill();
                self.town.start_relay();
            }
            Victim::Sender => {
                self.kill_sender()?;
                self.sender = Program::sender(&self.town)?;
            }
            Victim::Recipient => {
                ensure!(self.recipient.process.is_alive(), "the recipient has ended by itself");
                self.recipient.process.kill();
                // What it had printed was shown.
                self.drain_recipient()?;
                self.recipient = Program::recipient(&self.town, self.read)?;
            }
        }
        Ok(())
    }

    fn sync(&self, name: &str) {
        self.town.text(self.town.thinpost(name).args(["sync", "--for", "60s"]));
    }

    fn drain_recipient(&mut self) -> Result<()> {
        let printed: Vec<_> = self.recipient.lines.iter().collect();
        printed.iter().try_for_each(|line| self.take(line))
    }

    /// What was not acknowledged is in the outbox, from the first on, or is not; what was, is.
    fn kill_sender(&mut self) -> Result<()> {
        ensure!(self.sender.process.is_alive(), "the sender has ended by itself");
        self.sender.process.kill();
        let printed: Vec<_> = self.sender.lines.iter().collect();
        printed.iter().try_for_each(|line| self.answered(line))?;
        let status = self.town.status("ann");
        let count = |name: &str| status[name].as_u64().unwrap_or_default() as usize;
        let written = count("waiting") + count("custody");
        let owed = self.acknowledged..=self.asked;
        ensure!(owed.contains(&written), "{written} messages were written, of those owed {owed:?}");
        ensure!(count("custody") >= self.custody, "{} were in custody, now {status}", self.custody);
        (self.asked, self.acknowledged, self.custody) = (written, written, count("custody"));
        Ok(())
    }

    /// What the relay answers for arrives without its sender. Then all does, nothing comes a second time, and nothing is left.
    fn finish(&mut self) -> Result<()> {
        self.say()?;
        let pause = Duration::from_millis(self.random.random_range(0..PAUSE_MS_MAX));
        self.hear_until(Instant::now() + pause)?;
        self.kill_sender()?;
        self.strike(Victim::Relay)?;
        let owed = self.custody;
        self.wait("what was in custody", |talk| talk.read >= owed)?;
        self.sync("ann");
        self.recipient.process.kill();
        self.drain_recipient()?;
        self.sync("bob");
        self.sync("ann");
        self.recipient = Program::recipient(&self.town, self.read)?;
        self.wait("what was acknowledged", |talk| talk.read >= talk.acknowledged)?;
        self.recipient.process.kill();
        self.drain_recipient()?;
        let [ann, bob] = ["ann", "bob"].map(|name| self.town.status(name));
        let left = ["waiting", "failed", "abandoned"].map(|name| &ann[name]);
        ensure!(left == [0, 0, 0], "{ann}");
        ensure!(bob["received"] == self.read && self.read == self.asked, "{bob}, and {} read", self.read);
        Ok(())
    }
}
