//! Named link profiles: what a thin link is like, as data with a source.
//!
//! A profile is a TOML file of up to four tables. `[both]` holds for both directions; `[up]` (from the phone) and
//! `[down]` (to the phone) override single keys of it:
//!
//! | key | unit, range | without it |
//! |---|---|---|
//! | `rate_kbit_s` | kbit/s of IP bytes, 0.001 to 10,000,000 | refused |
//! | `delay_ms` | ms one way, 0 to 600,000 | refused |
//! | `jitter_ms` | ms by which the delay varies either way, 0 to `delay_ms` | 0 |
//! | `loss_percent` | % of packets, 0 to 100 | 0 |
//! | `loss_burst_packets` | mean packets lost in a row, 1 to 10,000 | independent losses |
//! | `loss_burst_ms` | mean time during which all is lost, above 0 to 3,600,000 | independent losses |
//! | `queue_packets` | packets that wait before the newest is dropped, 1 to 100,000 | refused |
//! | `reorders` | whether packets overtake each other as the delay varies | false |
//! | `doubled_percent`, `damaged_percent` | % of packets that arrive twice, or with a bit changed, 0 to 100 | 0 |
//! | `mtu_bytes` | IP bytes of the largest packet that passes, 28 to 65,535 | all pass |
//! | `sleeps_after_ms`, `wakes_in_ms` | ms of silence after which the radio sleeps, ms that the next packet waits for it | never sleeps |
//! | `gap_every_s`, `gap_ms` | s between gaps in which nothing is sent, on average, and ms that they last | no gaps |
//! | `rate_steps` | rates from a time on: `[{ at_s = 60, rate_kbit_s = 10 }]`, in order of time | none |
//!
//! Only one of the two burst keys may stand in a table, and a direction's burst replaces that of `[both]`. The keys of one line that
//! has two belong together, and stand in the same table.
//!
//! `[path]` says what else is between the phone and the network:
//!
//! | key | unit, range | without it |
//! |---|---|---|
//! | `nat_forgets_after_s` | s without a packet after which a NAT forgets a mapping, 0.001 to 1,000,000 | no NAT |
//! | `nat_keeps_ports` | whether it gives the same port again | false |
//! | `nat_inbound_refreshes` | whether packets from outside count as well | false |
//! | `udp` | whether UDP passes | true |
//! | `flow_kbytes_max` | kB (1,000 bytes) of IP that a pair of addresses and ports may carry, both ways, 0.001 to 1,000,000,000; not beside `udp = false` | no limit |
//!
//! The
//! top-level key `source` says in words where the figures come from. Anything else is refused with its line.

use thiserror::Error;

use crate::link::{Link, LinkParams, derive_seed};
use crate::net::{Censorship, Mapping};

mod reader;

/// Profiles compiled in, by name: the files in `profiles/`.
const BUILT_IN: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/profiles.rs"));

/// Thin links, from the tamest to the worst within each generation.
pub(crate) const THIN_LINKS: [&str; 10] = [
    "clean",
    "hspa-lossy",
    "umts",
    "edge",
    "edge-lossy-atc",
    "gprs",
    "2g-rural",
    "gprs-bad",
    "gprs-bad-t",
    "terrible",
];

/// A link profile: both directions of a link, and where its figures come from.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// The name it is asked for by.
    pub name: String,
    /// Where the figures come from.
    pub source: String,
    /// From the phone to the network.
    pub up: LinkParams,
    /// From the network to the phone.
    pub down: LinkParams,
    /// How the NAT maps, if there is one.
    pub nat: Option<Mapping>,
    /// What does not pass.
    pub censorship: Censorship,
}

/// A profile that cannot be used. Nothing was changed; the text of the profile, or the name, must be.
#[derive(Clone, Debug, Error, PartialEq)]
#[non_exhaustive]
pub enum ProfileError {
    /// No built-in profile has this name.
    #[error("there is no link profile \"{name}\" (there are: {})", Profile::names().collect::<Vec<_>>().join(", "))]
    NoSuchProfile {
        /// The name asked for.
        name: String,
    },
    /// The file cannot be read.
    #[error("profile {file}: {problem}")]
    Unreadable {
        /// As it was given.
        file: String,
        /// What the system says.
        problem: String,
    },
    /// The text is not TOML.
    #[error("profile {profile}, line {line}: {problem}")]
    Syntax {
        /// The profile's name.
        profile: String,
        /// Line in the text, from 1.
        line: usize,
        /// What the parser says.
        problem: String,
    },
    /// A key is unknown, or its value is of the wrong type or out of range.
    #[error("profile {profile}, line {line}: {key}: {problem}")]
    BadKey {
        /// The profile's name.
        profile: String,
        /// Line in the text, from 1.
        line: usize,
        /// The key or table as it stands there.
        key: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A key that has no default is missing.
    #[error("profile {profile}: {key} is missing")]
    MissingKey {
        /// The profile's name.
        profile: String,
        /// The key.
        key: &'static str,
    },
}

impl Profile {
    /// The built-in profile of this name.
    ///
    /// # Errors
    /// [`ProfileError::NoSuchProfile`], which lists the names there are.
    pub fn named(name: &str) -> Result<Self, ProfileError> {
        let (name, text) = BUILT_IN
            .iter()
            .find(|(built_in, _)| *built_in == name)
            .ok_or_else(|| ProfileError::NoSuchProfile { name: name.to_owned() })?;
        Self::from_toml(name, text)
    }

    /// Names of the built-in profiles, in alphabetical order.
    pub fn names() -> impl ExactSizeIterator<Item = &'static str> {
        BUILT_IN.iter().map(|(name, _)| *name)
    }

    /// The built-in profile of this name, or the one in this file if it ends in `.toml`, named after it.
    ///
    /// # Errors
    /// As [`Profile::named`] and [`Profile::from_toml`]; [`ProfileError::Unreadable`] when there is no such file.
    pub fn find(name_or_file: &str) -> Result<Self, ProfileError> {
        let Some(name) = name_or_file.strip_suffix(".toml") else { return Self::named(name_or_file) };
        let name = name.rsplit(['/', '\\']).next().unwrap_or(name);
        let unreadable =
            |problem: String| ProfileError::Unreadable { file: name_or_file.to_owned(), problem };
        let bytes = std::fs::read(name_or_file).map_err(|error| unreadable(error.to_string()))?;
        let text = str::from_utf8(&bytes).map_err(|error| {
            let line = bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count() + 1;
            unreadable(format!("line {line} is not UTF-8"))
        })?;
        Self::from_toml(name, text)
    }

    /// Reads a profile from the text of a file, see the [module](self).
    ///
    /// # Errors
    /// [`ProfileError`] naming the line and the key when the text is not a profile.
    pub fn from_toml(name: &str, text: &str) -> Result<Self, ProfileError> {
        reader::read(name, text)
    }

    /// The two directions of one such link, up and down, with draws unrelated to each other.
    pub fn links(&self, seed: u64) -> (Link, Link) {
        (Link::new(self.up.clone(), derive_seed(seed, 0)), Link::new(self.down.clone(), derive_seed(seed, 1)))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::loss::{Burst, Loss};

    const GOOD: &str = "source = 'a test'\n\n[both]\nrate_kbit_s = 20\ndelay_ms = 300\nqueue_packets = 30\n";

    fn refusal(text: &str) -> String {
        Profile::from_toml("mine", text).expect_err("a bad profile was taken").to_string()
    }

    #[test]
    fn every_built_in_profile_reads_and_names_its_source() {
        for name in Profile::names() {
            let profile = Profile::named(name).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(profile.name, name);
            assert!(profile.source.len() > 20, "{name} hardly says where it comes from");
        }
    }

    #[test]
    fn gprs_is_what_its_file_says() {
        let gprs = Profile::named("gprs").unwrap();
        assert_eq!(gprs.up.rate_bit_s.get(), 20_000);
        assert_eq!(gprs.up.delay, Duration::from_millis(300));
        assert_eq!(gprs.up.jitter, Duration::from_millis(80));
        assert_eq!(gprs.up.loss, Loss::new(0.02, Burst::Packets(3.0)).unwrap());
        assert_eq!(gprs.up.queue_packets.get(), 30);
        assert_eq!(gprs.up, gprs.down);
    }

    #[test]
    fn a_direction_overrides_single_keys_of_both() {
        let text = format!(
            "{GOOD}loss_percent = 1\nloss_burst_packets = 2\n[down]\nrate_kbit_s = 1.5\nloss_burst_ms = 600\n"
        );
        let profile = Profile::from_toml("mine", &text).unwrap();
        assert_eq!(profile.up.rate_bit_s.get(), 20_000);
        assert_eq!(profile.down.rate_bit_s.get(), 1_500);
        assert_eq!(profile.down.delay, profile.up.delay);
        assert_eq!(profile.up.loss.burst(), Burst::Packets(2.0));
        assert_eq!(profile.down.loss.burst(), Burst::Time(Duration::from_millis(600)));
    }

    #[test]
    fn an_unknown_name_lists_the_names_there_are() {
        let error = Profile::named("5g").unwrap_err().to_string();
        assert!(error.contains("\"5g\"") && error.contains("gprs-bad-t"), "{error}");
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line_and_key() {
        let cases = [
            ("rate_kbits = 20", "line 7: rate_kbits: unknown field"),
            ("jitter_ms = 'much'", "line 7: jitter_ms: invalid type"),
            ("jitter_ms = -1", "line 7: jitter_ms: must be from 0"),
            ("jitter_ms = 301", "line 7: jitter_ms: must not exceed delay_ms (300)"),
            ("loss_percent = 100.5", "line 7: loss_percent: must be from 0 to 100, not 100.5"),
            ("loss_percent = nan", "line 7: loss_percent: must be from 0 to 100"),
            ("loss_burst_ms = 600", "line 7: loss_burst_ms: stands without loss_percent"),
            ("loss_percent = 1\nloss_burst_packets = 0.5", "line 8: loss_burst_packets: must be from 1"),
            ("loss_percent = 90\nloss_burst_packets = 3", "line 8: loss_burst_packets: this loss needs"),
            (
                "loss_percent = 1\nloss_burst_packets = 3\nloss_burst_ms = 9",
                "line 9: loss_burst_ms: stands beside",
            ),
            ("[up]\nrate_kbit_s = 0", "line 8: rate_kbit_s: must be from 0.001"),
            ("[up]\nrate_kbit_s = -20", "line 8: rate_kbit_s: must be from 0.001"),
            ("[down]\nqueue_packets = 0", "line 8: queue_packets: must be from 1 to 100000, not 0"),
            ("[down]\nqueue_packets = 1.5", "line 8: queue_packets: invalid type"),
            ("doubled_percent = 101", "line 7: doubled_percent: must be from 0 to 100, not 101"),
            ("mtu_bytes = 20", "line 7: mtu_bytes: must be from 28"),
            ("gap_ms = 900", "line 7: gap_ms: stands without gap_every_s"),
            ("sleeps_after_ms = 900", "line 7: sleeps_after_ms: stands without wakes_in_ms"),
            ("rate_steps = [{ at_s = 1, rate_kbit_s = -1 }]", "line 7: rate_kbit_s: must be from 0.001"),
            (
                "rate_steps = [\n{ at_s = 2, rate_kbit_s = 1 },\n{ at_s = 2, rate_kbit_s = 3 }]",
                "line 9: at_s: must be later",
            ),
            ("rate_steps = [{ at_ms = 1 }]", "line 7: at_ms: unknown field"),
            ("rate_steps = [\n{ at_s = 1, rate_kbit_s = 2, colour = 3 }]", "line 8: colour: unknown field"),
            ("rate_steps = [{ at_s = 1 }]", "line 7: "),
            ("mtu_bytes = 1280.5", "line 7: mtu_bytes: invalid type"),
            ("delay_ms = 1e300", "line 7: "),
            ("jitter_ms = 1e300", "line 7: jitter_ms: must be from 0 to 600000, not 1e300"),
            (
                "gap_ms = -1\ngap_every_s = 1\n[up]\ngap_ms = 1\ngap_every_s = 2",
                "line 7: gap_ms: must be from",
            ),
            (
                "loss_percent = -1\n[up]\nloss_percent = 1\n[down]\nloss_percent = 1",
                "line 7: loss_percent: must",
            ),
            ("[path]\nudp = false\nflow_kbytes_max = -5", "line 9: flow_kbytes_max: must be from 0.001"),
            ("[path]\nudp = false\nflow_kbytes_max = 5", "line 9: flow_kbytes_max: stands beside udp"),
            ("[path]\nnat_keeps_ports = true", "line 8: nat_keeps_ports: stands without nat_forgets_after_s"),
            ("[path]\nnat_forgets_after_s = 0", "line 8: nat_forgets_after_s: must be from 0.001"),
            ("[path]\nflow_kbytes_max = 0", "line 8: flow_kbytes_max: must be from 0.001"),
            ("[path]\nudp = 'no'", "line 8: udp: invalid type"),
            ("[sideways]\ndelay_ms = 1", "line 7: [sideways]: unknown field"),
            ("loss_percent = ", "line 7: "),
        ];
        for (added, expected) in cases {
            let refused = refusal(&format!("{GOOD}{added}\n"));
            assert!(refused.starts_with(&format!("profile mine, {expected}")), "{added}: {refused}");
        }
    }

    #[test]
    fn what_is_wrong_in_both_is_refused_although_each_direction_says_something_else() {
        let overridden = |key: &str, bad: &str, good: &str| {
            let text = format!(
                "{}[up]\n{key} = {good}\n[down]\n{key} = {good}\n",
                GOOD.lines()
                    .map(|line| if line.starts_with(key) {
                        format!("{key} = {bad}\n")
                    } else {
                        format!("{line}\n")
                    })
                    .collect::<String>()
            );
            refusal(&text)
        };
        for (key, bad, good) in
            [("rate_kbit_s", "-20", "10"), ("delay_ms", "-1", "10"), ("queue_packets", "0", "9")]
        {
            let refused = overridden(key, bad, good);
            assert!(refused.contains(&format!("{key}: must be from")), "{refused}");
        }
    }

    #[test]
    fn what_has_no_default_must_be_there() {
        for key in ["source", "rate_kbit_s", "delay_ms", "queue_packets"] {
            let without: Vec<&str> = GOOD.lines().filter(|line| !line.starts_with(key)).collect();
            assert_eq!(refusal(&without.join("\n")), format!("profile mine: {key} is missing"));
        }
        assert!(refusal(&GOOD.replace("a test", " ")).contains("line 1: source"));
    }
}
