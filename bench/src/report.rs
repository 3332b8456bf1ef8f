//! The one way in which every command of `bench` tells what it measured: a table for people, or with
//! `--json` one object a line for programs.

use std::io::{self, Write};

use anyhow::{Context, Result};
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

/// One figure and what it is the figure of. Empty strings are for what does not apply.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Row {
    suite: &'static str,
    profile: String,
    scenario: String,
    mode: String,
    metric: String,
    value: f64,
    unit: &'static str,
    seeds: Vec<u64>,
}

impl Row {
    /// A figure of `suite` (the command): what was measured, how much, in which unit.
    pub(crate) fn new(
        suite: &'static str,
        metric: impl Into<String>,
        value: f64,
        unit: &'static str,
    ) -> Self {
        Self {
            suite,
            profile: String::new(),
            scenario: String::new(),
            mode: String::new(),
            metric: metric.into(),
            value,
            unit,
            seeds: Vec::new(),
        }
    }

    /// The link it was measured on.
    #[must_use]
    #[allow(dead_code, reason = "for the commands that use links")]
    pub(crate) fn profile(mut self, profile: impl Into<String>) -> Self {
        self.profile = profile.into();
        self
    }

    /// What was going on, or on which input.
    #[must_use]
    pub(crate) fn scenario(mut self, scenario: impl Into<String>) -> Self {
        self.scenario = scenario.into();
        self
    }

    /// Which of the ways compared.
    #[must_use]
    pub(crate) fn mode(mut self, mode: impl Into<String>) -> Self {
        self.mode = mode.into();
        self
    }

    /// The seeds of the runs that the figure sums up.
    #[must_use]
    #[allow(dead_code, reason = "for the commands that use seeds")]
    pub(crate) fn seeds(mut self, seeds: impl Into<Vec<u64>>) -> Self {
        self.seeds = seeds.into();
        self
    }
}

/// Takes figures as they come. JSON lines leave at once; the table is printed by [`Report::finish`].
#[derive(Debug)]
pub(crate) struct Report {
    json: bool,
    rows: Vec<Row>,
}

impl Report {
    /// A report to standard output.
    pub(crate) fn new(json: bool) -> Self {
        Self { json, rows: Vec::new() }
    }

    /// Adds a figure.
    ///
    /// # Errors
    /// When standard output cannot be written.
    pub(crate) fn row(&mut self, row: Row) -> Result<()> {
        if self.json {
            let mut line = serde_json::to_vec(&row).context("cannot write a figure as JSON")?;
            line.push(b'\n');
            print(&line)
        } else {
            self.rows.push(row);
            Ok(())
        }
    }

    /// Prints the table, if there is one to print.
    ///
    /// # Errors
    /// When standard output cannot be written.
    pub(crate) fn finish(self) -> Result<()> {
        if self.rows.is_empty() { Ok(()) } else { print(format!("{}\n", table(&self.rows)).as_bytes()) }
    }
}

/// A reader that has seen enough (`bench ... | head`) is no error.
fn print(bytes: &[u8]) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("cannot write to standard output"),
    }
}

/// One line for each profile, scenario and mode, one column for each metric, all in the order in which
/// they first came. A column that would be empty everywhere is left out.
fn table(rows: &[Row]) -> Table {
    type Label = (&'static str, fn(&Row) -> &str);
    const LABELS: [Label; 3] =
        [("profile", |row| &row.profile), ("scenario", |row| &row.scenario), ("mode", |row| &row.mode)];
    let labels: Vec<Label> =
        LABELS.into_iter().filter(|(_, label)| rows.iter().any(|row| !label(row).is_empty())).collect();
    let name = |row: &Row| labels.iter().map(|(_, label)| label(row).to_owned()).collect::<Vec<_>>();
    let metric = |row: &Row| format!("{}\n{}", row.metric, row.unit);
    let mut names: Vec<Vec<String>> = Vec::new();
    let mut metrics: Vec<String> = Vec::new();
    for row in rows {
        if !names.contains(&name(row)) {
            names.push(name(row));
        }
        if !metrics.contains(&metric(row)) {
            metrics.push(metric(row));
        }
    }
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_header(labels.iter().map(|(title, _)| (*title).to_owned()).chain(metrics.iter().cloned()));
    for line in &names {
        let figures = metrics.iter().map(|column| {
            let found = rows.iter().find(|row| name(row) == *line && metric(row) == *column);
            found.map_or_else(String::new, |row| figure(row.value))
        });
        table.add_row(line.iter().cloned().chain(figures));
    }
    for column in table.column_iter_mut().skip(labels.len()) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// As many digits as a person can use.
fn figure(value: f64) -> String {
    if value.fract() == 0.0 || value.abs() >= 1000.0 {
        format!("{value:.0}")
    } else if value.abs() >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(mode: &str, metric: &str, value: f64) -> Row {
        Row::new("codec", metric, value, "B").scenario("en-chat").mode(mode)
    }

    #[test]
    fn a_json_line_has_the_eight_fields() {
        let line = serde_json::to_string(&row("ours", "alone", 25.5).profile("gprs").seeds([1, 2])).unwrap();
        assert_eq!(
            line,
            r#"{"suite":"codec","profile":"gprs","scenario":"en-chat","mode":"ours","metric":"alone","value":25.5,"unit":"B","seeds":[1,2]}"#
        );
    }

    #[test]
    fn the_table_has_a_line_a_mode_and_a_column_a_metric() {
        let rows = [row("raw", "alone", 51.0), row("ours", "alone", 25.25), row("ours", "in 10", 9.0)];
        let text = table(&rows).to_string();
        assert!(!text.contains("profile"));
        let line = |mode: &str| text.lines().find(|line| line.contains(mode)).unwrap().to_owned();
        assert!(line("raw").contains("51") && !line("raw").contains('9'));
        assert!(line("ours").contains("25.2") && line("ours").contains('9'));
    }
}
