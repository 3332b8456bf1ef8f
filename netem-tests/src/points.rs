//! Talks between two people whose programs kill themselves, as by `kill -9`, at crash points around sealing, sending and receiving.
//!
//! The programs must be built with all of the workspace, so that they have crash points.

#![allow(clippy::unwrap_used, reason = "a process that cannot be started fails its test")]

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use thinpost_client::{AppId, Client, InboxNumber, ReceivedContent};

use crate::town::Town;

/// The crash points that a command passes are fewer.
const POINTS: u32 = 14;

/// Commands of a talk for each kill, at most: at least every third passes the point that was drawn.
const COMMANDS_A_KILL: u64 = 60;

const NAMES: [&str; 2] = ["ann", "bob"];

/// The id that an application gave a message, and what it says.
pub type Sent = (Option<AppId>, String);

/// What did not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Broken {
    /// What somebody's inbox holds is not what was sent to them.
    #[error("{who} has {found:?} instead of {expected:?}")]
    Inbox {
        /// Whose inbox.
        who: &'static str,
        /// The ids and texts that were sent to them.
        expected: Vec<Sent>,
        /// The ids and texts in it.
        found: Vec<Sent>,
    },
    /// A home has another number of messages than were acknowledged, with the one that was being sent or without it.
    #[error("{who} was told that {acknowledged} messages are on disk; they say that {written} are")]
    Acknowledged {
        /// Whose home.
        who: &'static str,
        /// Messages that were acknowledged.
        acknowledged: u64,
        /// Messages that it knows of.
        written: u64,
    },
    /// Messages wait or failed.
    #[error("{who} says that {waiting} wait and {failed} failed")]
    Unfinished {
        /// Whose home.
        who: &'static str,
        /// Messages in the outbox.
        waiting: u64,
        /// Messages that failed.
        failed: u64,
    },
    /// A command ended otherwise than well or by the kill.
    #[error("{command} ended with {status}")]
    Command {
        /// Which.
        command: String,
        /// How it ended.
        status: String,
    },
    /// A program panicked.
    #[error("a program has panicked: {said}")]
    Panicked {
        /// What it said.
        said: String,
    },
    /// Programs without crash points were never killed.
    #[error("no crash points: build the programs with all of the workspace (cargo build --workspace)")]
    NoPoints,
}

/// What a talk has come to, when everything held.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Struck {
    /// Kills, by the command that was killed.
    pub kills: BTreeMap<&'static str, u64>,
    /// Messages that were sent; each arrived once and in order.
    pub messages: u64,
}

impl Struck {
    /// All kills together.
    pub fn count(&self) -> u64 {
        self.kills.values().sum()
    }
}

/// A relay and two people who write to each other, until so many of their commands were killed. The seed says at which points.
///
/// # Errors
/// What did not hold.
///
/// # Panics
/// When a process cannot be started.
pub fn talk(seed: u64, kills: u64) -> Result<Struck, Broken> {
    let random = ChaCha8Rng::seed_from_u64(seed);
    let mut talk =
        Talk { town: Town::new(), random, commands: 0, struck: Struck::default(), sent: Default::default() };
    let held = talk.run_to(kills).and_then(|()| talk.finish());
    let panicked = talk.town.panicked().map_or(Ok(()), |said| Err(Broken::Panicked { said }));
    held.and(panicked).inspect_err(|_| eprint!("{}", talk.town.last_words()))?;
    Ok(Struck { messages: talk.sent.concat().len() as u64, ..talk.struck })
}

struct Talk {
    town: Town,
    random: ChaCha8Rng,
    /// How many could have been killed.
    commands: u64,
    struck: Struck,
    /// What was sent to each, and acknowledged: whatever happens now, it arrives.
    sent: [Vec<Sent>; 2],
}

impl Talk {
    fn run_to(&mut self, kills: u64) -> Result<(), Broken> {
        for round in 0.. {
            if self.struck.count() >= kills {
                break;
            }
            if self.commands > COMMANDS_A_KILL * kills {
                return Err(Broken::NoPoints);
            }
            let (from, to) = if round % 3 == 2 { (1, 0) } else { (0, 1) };
            self.send(from)?;
            self.sync(from)?;
            self.sync(to)?;
        }
        Ok(())
    }

    /// Runs a command that is killed at a crash point, if it passes so many. Returns whether it was.
    fn run(&mut self, name: &'static str, command: &mut Command) -> Result<bool, Broken> {
        let at: u32 = self.random.random_range(1..=POINTS);
        let output = command.env("THINPOST_CRASH_AT", at.to_string()).output().unwrap();
        self.commands += 1;
        let is_killed = output.status.signal() == Some(9);
        if is_killed {
            *self.struck.kills.entry(name).or_default() += 1;
        } else if !output.status.success() {
            let (command, status) = (format!("{command:?}"), output.status.to_string());
            return Err(Broken::Command { command, status });
        }
        Ok(is_killed)
    }

    fn sync_of(&self, who: usize) -> Command {
        let mut command = self.town.thinpost(NAMES[who]);
        command.args(["sync", "--for", "60s"]);
        command
    }

    fn sync(&mut self, who: usize) -> Result<(), Broken> {
        let mut sync = self.sync_of(who);
        self.run("sync", &mut sync).map(drop)
    }

    fn count(&self, who: usize, what: &str) -> u64 {
        self.town.status(NAMES[who])[what].as_u64().unwrap()
    }

    /// Sends a message; again if it was killed before that was on disk, and for no other reason.
    fn send(&mut self, from: usize) -> Result<(), Broken> {
        let to = 1 - from;
        let acknowledged = self.sent[to].len() as u64;
        let id = AppId((u128::from(acknowledged) << 1 | from as u128).to_be_bytes());
        let text = format!("{} {acknowledged}", NAMES[from]);
        let [shown, recipient] = [id.to_string(), NAMES[to].to_owned()];
        let send = ["send", &recipient, &text, "--id", &shown, "--for", "60s"];
        let mut command = self.town.thinpost(NAMES[from]);
        let is_killed = self.run("send", command.args(send))?;
        let status: Value = self.town.status(NAMES[from]);
        let written: u64 = ["waiting", "custody", "failed"].iter().map(|n| status[n].as_u64().unwrap()).sum();
        match written.checked_sub(acknowledged) {
            Some(1) => {}
            Some(0) if is_killed => drop(self.town.text(self.town.thinpost(NAMES[from]).args(send))),
            _ => {
                let acknowledged = acknowledged + u64::from(!is_killed);
                return Err(Broken::Acknowledged { who: NAMES[from], acknowledged, written });
            }
        }
        self.sent[to].push((Some(id), text));
        Ok(())
    }

    fn inbox(&self, who: usize) -> Vec<Sent> {
        let folder = self.town.folder.path().join(NAMES[who]);
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let inbox = runtime.block_on(async {
            let client = Client::builder(&folder).open().unwrap();
            let inbox = client.inbox(InboxNumber(0), usize::MAX).await.unwrap();
            client.close().await;
            inbox
        });
        let text = |content| match content {
            ReceivedContent::Text(text) => text,
            other => format!("{other:?}"),
        };
        inbox.into_iter().map(|message| (message.app_id, text(message.content))).collect()
    }

    /// Nobody is killed any more: everything arrives, and nothing a second time.
    fn finish(&self) -> Result<(), Broken> {
        for who in [0, 1, 0, 1] {
            self.town.text(&mut self.sync_of(who));
        }
        for (who, name) in NAMES.into_iter().enumerate() {
            let found = self.inbox(who);
            if found != self.sent[who] {
                return Err(Broken::Inbox { who: name, expected: self.sent[who].clone(), found });
            }
            let [waiting, failed] = ["waiting", "failed"].map(|what| self.count(who, what));
            if waiting + failed > 0 {
                return Err(Broken::Unfinished { who: name, waiting, failed });
            }
        }
        Ok(())
    }
}
