//! What many storms come to, over several runs if need be.

use std::fmt::{self, Write};
use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use thinpost_netem::Profile;
use thinpost_netem::report::Report;
use thinpost_netem::sometimes::{self, Counts};
use thinpost_netem::storm::Calm;

/// The sums so far.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tally {
    pub(crate) storms: u64,
    messages: u64,
    /// How many of them were held to the order of sending.
    ordered: u64,
    faults: u64,
    /// What broke, and how to see it again.
    pub(crate) broken: Vec<String>,
    said: Vec<Said>,
}

/// How often something was said.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    who: String,
    what: String,
    count: u64,
}

/// The file of a run that can go on.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    run: Run,
    tally: Tally,
}

/// What is counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Run {
    /// The command line, but for how many.
    command: String,
    /// The link that everyone is on, if it is the same, in full.
    link: Option<String>,
    /// The BLAKE3 of the program: what another build has found says nothing of this one.
    program: String,
}

impl Run {
    /// That of this program.
    pub(crate) fn new(command: String, link: Option<&Profile>) -> Result<Self> {
        let file = std::env::current_exe().context("the program's own file")?;
        let bytes = fs::read(&file).with_context(|| file.display().to_string())?;
        let program = blake3::hash(&bytes).to_hex().to_string();
        Ok(Self { command, link: link.map(|link| format!("{link:?}")), program })
    }
}

impl Tally {
    /// Goes on with what is in a file; from nothing if there is none.
    pub(crate) fn load(file: &Path, run: &Run) -> Result<Self> {
        match fs::metadata(file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Ok(found) => ensure!(found.is_file(), "{} is no file", file.display()),
            Err(error) => return Err(error).with_context(|| file.display().to_string()),
        }
        let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
        let saved: Saved = serde_json::from_str(&text).with_context(|| file.display().to_string())?;
        let name = file.display();
        let counts = &saved.run.command;
        ensure!(counts == &run.command, "{name} counts `{counts}`: name another file");
        ensure!(saved.run.link == run.link, "{name} is of another link of that name: name another file");
        ensure!(saved.run.program == run.program, "{name} is of another build: name another file");
        Ok(saved.tally)
    }

    /// Writes all down, in place of what the file held.
    pub(crate) fn save(&mut self, file: &Path, run: &Run) -> Result<()> {
        let tally = std::mem::take(self);
        let saved = Saved { run: run.clone(), tally };
        let text = serde_json::to_string_pretty(&saved)?;
        *self = saved.tally;
        let mut new = file.as_os_str().to_owned();
        new.push(".new");
        fs::write(&new, text).with_context(|| Path::new(&new).display().to_string())?;
        fs::rename(&new, file).with_context(|| file.display().to_string())
    }

    pub(crate) fn add(&mut self, calm: &Calm) {
        self.storms += 1;
        self.messages += calm.messages;
        self.ordered += calm.ordered;
        self.faults += calm.faults;
    }

    pub(crate) fn add_broken(&mut self, broken: String) {
        self.storms += 1;
        self.broken.push(broken);
    }

    pub(crate) fn add_said(&mut self, counts: Counts) {
        for ((who, what), count) in counts {
            match self.said.iter_mut().find(|said| said.who == who && said.what == what) {
                Some(said) => said.count += count,
                None => self.said.push(Said { who, what, count }),
            }
        }
        self.said.sort_by(|a, b| (&a.who, &a.what).cmp(&(&b.who, &b.what)));
    }

    /// What must happen in so many storms, and has not.
    pub(crate) fn missing(&self) -> Vec<(&'static str, &'static str)> {
        let said = self.said.iter().cloned().map(|said| ((said.who, said.what), said.count));
        sometimes::missing(&said.collect(), self.storms).copied().collect()
    }

    /// What `campaign` adds up.
    pub(crate) fn report(&self, from: u64, again: String) -> Report {
        let (seeds, count, broken) = (self.storms, self.messages, self.broken.len() as u64);
        let counts = [("faults", self.faults), ("ordered", self.ordered)];
        let counts = counts.map(|(name, count)| (name.to_owned(), count)).into();
        Report { row: "storms".to_owned(), from, seeds, count, broken, again, counts, ..Report::default() }
    }

    /// What was said how often.
    pub(crate) fn said(&self) -> String {
        self.said.iter().fold(String::new(), |mut text, said| {
            let _ = writeln!(text, "{:>9}  {}: {}", said.count, said.who, said.what);
            text
        })
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { storms, messages, ordered, faults, broken, .. } = self;
        let storm = if *storms == 1 { "storm" } else { "storms" };
        write!(
            f,
            "{storms} {storm}, {messages} messages, {ordered} held to order, {faults} faults: {} broken",
            broken.len()
        )
    }
}
