//! What a program that tries something out in volume says at its end, for `campaign` to add up.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What was measured, by name.
pub type Figures = BTreeMap<String, Value>;

/// What was counted, by name.
pub type Counts = BTreeMap<String, u64>;

/// One run of a row of faults, as the last line of what its program prints, in JSON.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// Which row.
    pub row: String,
    /// The first seed.
    #[serde(default)]
    pub from: u64,
    /// How many seeds it took, one after another.
    #[serde(default)]
    pub seeds: u64,
    /// How much was done, in the unit of the row.
    pub count: u64,
    /// How much of it did not hold.
    pub broken: u64,
    /// How to see that again.
    #[serde(default)]
    pub again: String,
    /// What was counted beside, and adds up over runs.
    #[serde(default, skip_serializing_if = "Counts::is_empty")]
    pub counts: Counts,
    /// What else was measured.
    #[serde(default)]
    pub figures: Figures,
}

impl Report {
    /// The line.
    pub fn line(&self) -> String {
        serde_json::to_string(self).expect("names and numbers are JSON")
    }

    /// The report that this output ends with.
    pub fn find(output: &str) -> Option<Self> {
        serde_json::from_str(output.lines().last()?).ok()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_report_is_found_at_the_end_of_what_is_printed() {
        let report = Report { row: "kills".into(), from: 3, seeds: 2, count: 900, ..Report::default() };
        let output = format!("seed 3 was fine\n{}\n", report.line());
        assert_eq!(Report::find(&output), Some(report));
        assert_eq!(Report::find("no report"), None);
        let short = r#"{"row":"fuzz","count":1,"broken":0}"#;
        assert_eq!(Report::find(short).unwrap().count, 1);
    }
}
