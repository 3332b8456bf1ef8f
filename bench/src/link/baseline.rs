//! The figures of before, which no change may make worse unseen.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::report::Row;

/// By how much a figure may grow.
const GROWTH_MAX: f64 = 1.05;

/// A file of the same command's `--json` lines.
pub(crate) struct Baseline<'a> {
    file: &'a Path,
    rows: Vec<Value>,
}

impl<'a> Baseline<'a> {
    /// Reads it.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(crate) fn read(file: &'a Path) -> Result<Self> {
        let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let parse = |(index, line): (usize, &str)| {
            serde_json::from_str(line).with_context(|| format!("{}, line {}", file.display(), index + 1))
        };
        Ok(Self { file, rows: text.lines().enumerate().map(parse).collect::<Result<_>>()? })
    }

    /// Compares what was measured with it.
    ///
    /// # Errors
    /// When it lacks a figure or has one of other seeds, or when a figure has grown by more than a twentieth.
    pub(crate) fn compare(&self, measured: &[Row]) -> Result<()> {
        let Self { file, rows } = self;
        let mut grown = Vec::new();
        for row in measured {
            let now = serde_json::to_value(row)?;
            let is_same = |other: &&Value| {
                ["profile", "scenario", "mode", "metric", "unit"].iter().all(|key| other[key] == now[key])
            };
            let is_share = now["unit"] == "%";
            let name = format!("{} {} {}", now["profile"], now["scenario"], now["metric"]);
            let was =
                rows.iter().find(is_same).with_context(|| format!("{} has no {name}", file.display()))?;
            ensure!(was["seeds"] == now["seeds"], "{name}: {} has figures of other seeds", file.display());
            let [was, now] =
                [was, &now].map(|row| row["value"].as_f64().with_context(|| format!("{name} has no value")));
            let (was, now) = (was?, now?);
            let (worse, better) = if is_share { (was, now) } else { (now, was) };
            if worse > better * GROWTH_MAX {
                grown.push(format!("{name}: {now:.2}, was {was:.2}"));
            }
        }
        if !grown.is_empty() {
            bail!("figures have grown by more than 5 %:\n{}", grown.join("\n"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(value: f64) -> Row {
        Row::new("link", "p50", value, "s").profile("gprs").scenario("S1 cold").mode("measured").seeds([0, 1])
    }

    fn compared(before: &str, now: f64) -> Result<()> {
        let file = tempfile::NamedTempFile::new()?;
        fs::write(file.path(), before)?;
        Baseline::read(file.path())?.compare(&[row(now)])
    }

    #[test]
    fn what_grows_by_more_than_a_twentieth_is_named() {
        let before = serde_json::to_string(&row(2.0)).unwrap();
        compared(&before, 2.1).unwrap();
        let error = compared(&before, 2.11).unwrap_err().to_string();
        assert!(error.contains("S1 cold") && error.contains("2.11, was 2.00"), "{error}");
    }

    #[test]
    fn a_figure_that_is_missing_or_of_other_seeds_is_an_error() {
        assert!(compared("", 2.0).unwrap_err().to_string().contains("has no"));
        let others = serde_json::to_string(&row(2.0).seeds([0])).unwrap();
        assert!(compared(&others, 2.0).unwrap_err().to_string().contains("other seeds"));
        assert!(compared("nonsense", 2.0).unwrap_err().to_string().contains("line 1"));
    }
}
