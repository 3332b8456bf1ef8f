//! What was tried out so far, in a file that goes with the repository.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context, Result};
use comfy_table::{Table, presets};
use serde::{Deserialize, Serialize};
use thinpost_netem::report::{Counts, Figures, Report};

use crate::rows::{ROWS, Row};

/// Things that broke, of one row, that are written down.
const AGAIN_MAX: usize = 20;

#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Record {
    rows: BTreeMap<String, Vec<Part>>,
}

/// What one commit has shown of a row.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Part {
    /// Which commit; with a "+" if something was changed since.
    pub(crate) commit: String,
    /// The day, as the system's clock has it.
    pub(crate) day: String,
    /// The first seed, and the one after the last.
    seeds: (u64, u64),
    count: u64,
    broken: u64,
    seconds: u64,
    /// How to see again what broke.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    again: Vec<String>,
    /// What was counted beside, in all runs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    counts: Counts,
    /// What else the last run has measured.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    figures: Figures,
}

impl Record {
    /// What is in the file; nothing if there is none.
    pub(crate) fn load(file: &Path) -> Result<Self> {
        match fs::read_to_string(file) {
            Ok(text) => serde_json::from_str(&text).with_context(|| file.display().to_string()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(|| file.display().to_string()),
        }
    }

    /// Writes all down, in place of what the file held.
    pub(crate) fn save(&self, file: &Path) -> Result<()> {
        let new = file.with_extension("new");
        let text = serde_json::to_string_pretty(self)? + "\n";
        fs::write(&new, text).with_context(|| new.display().to_string())?;
        fs::rename(&new, file).with_context(|| file.display().to_string())
    }

    /// Adds a run.
    pub(crate) fn add(&mut self, row: &Row, commit: &str, day: &str, seconds: u64, report: &Report) {
        let parts = self.rows.entry(row.name.to_owned()).or_default();
        if parts.last().is_none_or(|part| part.commit != commit) {
            parts.push(Part {
                commit: commit.to_owned(),
                seeds: (report.from, report.from),
                ..Part::default()
            });
        }
        let part = parts.last_mut().expect("there is one now");
        day.clone_into(&mut part.day);
        part.seeds.1 = report.from + report.seeds;
        part.count += report.count;
        part.broken += report.broken;
        part.seconds += seconds;
        for (name, count) in &report.counts {
            *part.counts.entry(name.clone()).or_default() += count;
        }
        part.figures.clone_from(&report.figures);
        if report.broken > 0 && part.again.len() < AGAIN_MAX {
            part.again.push(report.again.clone());
        }
    }

    /// Takes back all that was recorded of a row: its fault was mended, and it begins anew.
    pub(crate) fn forget(&mut self, row: &Row) {
        self.rows.remove(row.name);
    }

    /// How much was done of a row, and how much of it did not hold.
    pub(crate) fn done(&self, row: &Row) -> (u64, u64) {
        self.parts(row).iter().fold((0, 0), |sum, part| (sum.0 + part.count, sum.1 + part.broken))
    }

    /// The seed at which a row goes on.
    pub(crate) fn next_seed(&self, row: &Row) -> u64 {
        self.parts(row).last().map_or(0, |part| part.seeds.1)
    }

    fn parts(&self, row: &Row) -> &[Part] {
        self.rows.get(row.name).map_or(&[], Vec::as_slice)
    }

    /// All rows, as a table in Markdown.
    pub(crate) fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::ASCII_MARKDOWN);
        table.set_header(["row", "fault", "what must hold", "done", "of", "broken", "seeds", "commit, day"]);
        for row in ROWS {
            let (count, broken) = self.done(row);
            let (mut seeds, mut commits) = (String::new(), String::new());
            for part in self.parts(row) {
                let gap = if commits.is_empty() { "" } else { "; " };
                let _ = write!(commits, "{gap}{}, {}", part.commit, part.day);
                if row.is_seeded {
                    let _ = write!(seeds, "{gap}{}..{}", part.seeds.0, part.seeds.1);
                }
            }
            let volume = format!("{} {}", grouped(row.volume), row.unit);
            table.add_row([
                row.name,
                row.fault,
                row.bar,
                &grouped(count),
                &volume,
                &broken.to_string(),
                &seeds,
                &commits,
            ]);
        }
        format!("{table}\n")
    }
}

/// A number that can be read.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn report(from: u64, count: u64, broken: u64) -> Report {
        let counts = [("faults".to_owned(), count)].into();
        Report { from, seeds: 2, count, broken, again: format!("from {from}"), counts, ..Report::default() }
    }

    #[test]
    fn runs_add_up_by_commit_and_go_on_at_the_next_seed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("record.json");
        let row = &ROWS[0];
        let mut record = Record::load(&file).unwrap();
        assert_eq!((record.done(row), record.next_seed(row)), ((0, 0), 0));
        record.add(row, "aaa", "2026-01-01", 5, &report(0, 700, 0));
        record.add(row, "aaa", "2026-01-02", 5, &report(2, 20, 0));
        record.add(row, "bbb", "2026-01-03", 5, &report(4, 1_000, 1));
        record.save(&file).unwrap();
        let mut record = Record::load(&file).unwrap();
        assert_eq!((record.done(row), record.next_seed(row)), ((1_720, 1), 6));
        let faults: Vec<_> = record.parts(row).iter().map(|part| part.counts["faults"]).collect();
        assert_eq!(faults, [720, 1_000]);
        let table = record.table();
        assert!(table.contains("1,720") && table.contains("0..4; 4..6"), "{table}");
        assert!(table.contains("aaa, 2026-01-02; bbb, 2026-01-03"), "{table}");
        record.forget(row);
        assert_eq!((record.done(row), record.next_seed(row)), ((0, 0), 0));
    }

    #[test]
    fn the_table_in_the_documents_is_of_the_record() {
        let record = Record::load(concat!(env!("CARGO_MANIFEST_DIR"), "/campaign.json").as_ref()).unwrap();
        let documents = include_str!("../../../../docs/reliability.md");
        assert!(documents.contains(&record.table()), "put there what `campaign table` prints");
    }

    #[test]
    fn a_file_of_another_kind_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("record.json");
        fs::write(&file, "{\"rows\": 3}").unwrap();
        let error = Record::load(&file).unwrap_err();
        assert!(format!("{error:#}").contains("record.json"), "{error:#}");
    }
}
