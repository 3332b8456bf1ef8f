//! What was executed over all runs of one target, in a file of its own.

use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::libfuzzer::Round;

/// The sums so far.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tally {
    pub(crate) executions: u64,
    /// The BLAKE3 of the program: what another has executed says nothing of this one.
    program: String,
    /// What was checked out when it last ran.
    commit: String,
    /// Edges of the program that were reached.
    pub(crate) edges: u64,
    /// How many inputs reach them.
    pub(crate) inputs: u64,
    /// The most memory that a run took, MiB.
    pub(crate) rss_mib_max: u64,
    /// What became of the last run: "sound", or the input that broke it.
    last: String,
}

impl Tally {
    /// Goes on with what is in a file, if it is of this program; from nothing otherwise.
    pub(crate) fn load(file: &Path, program: &str) -> Result<Self> {
        let new = Self {
            executions: 0,
            program: program.to_owned(),
            commit: String::new(),
            edges: 0,
            inputs: 0,
            rss_mib_max: 0,
            last: String::new(),
        };
        let text = match fs::read_to_string(file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(new),
            text => text.with_context(|| file.display().to_string())?,
        };
        let found: Self = serde_json::from_str(&text).with_context(|| file.display().to_string())?;
        Ok(if found.program == program { found } else { new })
    }

    pub(crate) fn add(&mut self, round: &Round) {
        self.executions += round.executions;
        (self.edges, self.inputs) = (round.edges, round.inputs);
        self.rss_mib_max = self.rss_mib_max.max(round.rss_mib);
        self.commit.clone_from(&round.commit);
        self.last = round.artifact.as_ref().map_or("sound".into(), |artifact| artifact.display().to_string());
    }

    /// Writes all down, in place of what the file held.
    pub(crate) fn save(&self, file: &Path) -> Result<()> {
        let new = file.with_extension("new");
        let text = serde_json::to_string_pretty(self)?;
        fs::write(&new, text).with_context(|| new.display().to_string())?;
        fs::rename(&new, file).with_context(|| file.display().to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executions_are_added_up_as_long_as_the_program_is_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("frame.json");
        let round = Round {
            executions: 1_000,
            edges: 20,
            inputs: 3,
            rss_mib: 30,
            commit: "abc".to_owned(),
            artifact: None,
            tail: String::new(),
        };
        for runs in 1..=3 {
            let mut tally = Tally::load(&file, "one").unwrap();
            tally.add(&round);
            tally.save(&file).unwrap();
            assert_eq!(tally.executions, runs * 1_000);
        }
        assert_eq!(Tally::load(&file, "another").unwrap().executions, 0);
        fs::write(&file, "{").unwrap();
        assert!(Tally::load(&file, "one").is_err(), "what is damaged is not begun anew in silence");
    }
}
