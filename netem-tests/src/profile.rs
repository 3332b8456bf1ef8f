//! Named link profiles: what a thin link is like, as data with a source.
//!
//! A profile is a TOML file of up to three tables. `[both]` holds for both directions; `[up]` (from the phone) and
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
//!
//! Only one of the two burst keys may stand in a table, and a direction's burst replaces that of `[both]`. The
//! top-level key `source` says in words where the figures come from. Anything else is refused with its line.

use std::{
    num::{NonZeroU64, NonZeroUsize},
    ops::{Range, RangeInclusive},
    time::Duration,
};

use serde::Deserialize;
use thiserror::Error;
use toml::Spanned;

use crate::link::{Link, LinkParams, derive_seed};
use crate::loss::{Burst, Loss};

/// Profiles compiled in, from the tamest to the worst within each generation.
const BUILT_IN: [(&str, &str); 10] = [
    ("clean", include_str!("../profiles/clean.toml")),
    ("hspa-lossy", include_str!("../profiles/hspa-lossy.toml")),
    ("umts", include_str!("../profiles/umts.toml")),
    ("edge", include_str!("../profiles/edge.toml")),
    ("edge-lossy-atc", include_str!("../profiles/edge-lossy-atc.toml")),
    ("gprs", include_str!("../profiles/gprs.toml")),
    ("2g-rural", include_str!("../profiles/2g-rural.toml")),
    ("gprs-bad", include_str!("../profiles/gprs-bad.toml")),
    ("gprs-bad-t", include_str!("../profiles/gprs-bad-t.toml")),
    ("terrible", include_str!("../profiles/terrible.toml")),
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

    /// Names of the built-in profiles, from the tamest to the worst.
    pub fn names() -> impl ExactSizeIterator<Item = &'static str> {
        BUILT_IN.iter().map(|(name, _)| *name)
    }

    /// Reads a profile from the text of a file, see the [module](self).
    ///
    /// # Errors
    /// [`ProfileError`] naming the line and the key when the text is not a profile.
    pub fn from_toml(name: &str, text: &str) -> Result<Self, ProfileError> {
        let reader = Reader { profile: name, text };
        let document = toml::Deserializer::parse(text).map_err(|error| reader.syntax(&error))?;
        let file = File::deserialize(document).map_err(|error| reader.mistyped(&error))?;
        let source = file.source.ok_or_else(|| reader.missing("source"))?;
        if source.get_ref().trim().is_empty() {
            return Err(reader.bad(source.span(), "source", "says nothing"));
        }
        Ok(Self {
            name: name.to_owned(),
            source: source.into_inner().trim().to_owned(),
            up: reader.direction(&file.up, &file.both)?,
            down: reader.direction(&file.down, &file.both)?,
        })
    }

    /// The two directions of one such link, up and down, with draws unrelated to each other.
    pub fn links(&self, seed: u64) -> (Link, Link) {
        (Link::new(self.up, derive_seed(seed, 0)), Link::new(self.down, derive_seed(seed, 1)))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    source: Option<Spanned<String>>,
    #[serde(default)]
    both: Table,
    #[serde(default)]
    up: Table,
    #[serde(default)]
    down: Table,
}

/// One table as written. Numbers keep their place in the text, so that a bad one can be shown.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    rate_kbit_s: Option<Spanned<f64>>,
    delay_ms: Option<Spanned<f64>>,
    jitter_ms: Option<Spanned<f64>>,
    loss_percent: Option<Spanned<f64>>,
    loss_burst_packets: Option<Spanned<f64>>,
    loss_burst_ms: Option<Spanned<f64>>,
    queue_packets: Option<Spanned<i64>>,
}

/// How a table says that losses cluster, and where it says so.
struct Clustered {
    burst: Burst,
    key: &'static str,
    span: Range<usize>,
}

/// The text of a profile, to say where in it something is wrong.
struct Reader<'a> {
    profile: &'a str,
    text: &'a str,
}

impl Reader<'_> {
    fn direction(&self, own: &Table, both: &Table) -> Result<LinkParams, ProfileError> {
        let rate = own.rate_kbit_s.as_ref().or(both.rate_kbit_s.as_ref());
        let rate = rate.ok_or_else(|| self.missing("rate_kbit_s"))?;
        let rate_kbit_s = self.within(rate, "rate_kbit_s", 0.001..=10_000_000.0)?;
        let rate_bit_s = NonZeroU64::new((rate_kbit_s * 1_000.0).round() as u64);
        let rate_bit_s =
            rate_bit_s.ok_or_else(|| self.bad(rate.span(), "rate_kbit_s", "must be above zero"))?;

        let delay = own.delay_ms.as_ref().or(both.delay_ms.as_ref());
        let delay = delay.ok_or_else(|| self.missing("delay_ms"))?;
        let delay_ms = self.within(delay, "delay_ms", 0.0..=600_000.0)?;

        let jitter_ms = match own.jitter_ms.as_ref().or(both.jitter_ms.as_ref()) {
            Some(jitter) => {
                let jitter_ms = self.within(jitter, "jitter_ms", 0.0..=600_000.0)?;
                if jitter_ms > delay_ms {
                    let problem = format!(
                        "must not exceed delay_ms ({delay_ms}): packets would arrive before they left"
                    );
                    return Err(self.bad(jitter.span(), "jitter_ms", problem));
                }
                jitter_ms
            }
            None => 0.0,
        };

        let queue = own.queue_packets.as_ref().or(both.queue_packets.as_ref());
        let queue = queue.ok_or_else(|| self.missing("queue_packets"))?;
        let queue_packets = match usize::try_from(*queue.get_ref()).ok().and_then(NonZeroUsize::new) {
            Some(packets) if packets.get() <= 100_000 => packets,
            _ => {
                let problem = format!("must be from 1 to 100000, not {}", queue.get_ref());
                return Err(self.bad(queue.span(), "queue_packets", problem));
            }
        };

        Ok(LinkParams {
            rate_bit_s,
            delay: duration_of_ms(delay_ms),
            jitter: duration_of_ms(jitter_ms),
            loss: self.loss(own, both)?,
            queue_packets,
        })
    }

    fn loss(&self, own: &Table, both: &Table) -> Result<Loss, ProfileError> {
        let clustered = match self.burst(own)? {
            None => self.burst(both)?,
            found => found,
        };
        let Some(loss) = own.loss_percent.as_ref().or(both.loss_percent.as_ref()) else {
            return match clustered {
                Some(Clustered { key, span, .. }) => Err(self.bad(span, key, "stands without loss_percent")),
                None => Ok(Loss::NONE),
            };
        };
        let percent = self.within(loss, "loss_percent", 0.0..=100.0)?;
        let burst = clustered.as_ref().map_or(Burst::None, |clustered| clustered.burst);
        Loss::new(percent / 100.0, burst).map_err(|error| {
            let (key, span) =
                clustered.map_or(("loss_percent", loss.span()), |clustered| (clustered.key, clustered.span));
            self.bad(span, key, error.to_string())
        })
    }

    fn burst(&self, table: &Table) -> Result<Option<Clustered>, ProfileError> {
        match (&table.loss_burst_packets, &table.loss_burst_ms) {
            (None, None) => Ok(None),
            (Some(packets), None) => {
                let key = "loss_burst_packets";
                let burst = Burst::Packets(self.within(packets, key, 1.0..=10_000.0)?);
                Ok(Some(Clustered { burst, key, span: packets.span() }))
            }
            (None, Some(ms)) => {
                let key = "loss_burst_ms";
                let burst = Burst::Time(duration_of_ms(self.within(ms, key, 0.001..=3_600_000.0)?));
                Ok(Some(Clustered { burst, key, span: ms.span() }))
            }
            (Some(_), Some(ms)) => {
                Err(self.bad(ms.span(), "loss_burst_ms", "stands beside loss_burst_packets: choose one"))
            }
        }
    }

    fn within(
        &self,
        number: &Spanned<f64>,
        key: &'static str,
        range: RangeInclusive<f64>,
    ) -> Result<f64, ProfileError> {
        let value = *number.get_ref();
        if range.contains(&value) {
            return Ok(value);
        }
        let problem = format!("must be from {} to {}, not {value}", range.start(), range.end());
        Err(self.bad(number.span(), key, problem))
    }

    fn bad(&self, span: Range<usize>, key: &str, problem: impl Into<String>) -> ProfileError {
        let (line, _) = self.line_at(span.start);
        ProfileError::BadKey {
            profile: self.profile.to_owned(),
            line,
            key: key.to_owned(),
            problem: problem.into(),
        }
    }

    fn missing(&self, key: &'static str) -> ProfileError {
        ProfileError::MissingKey { profile: self.profile.to_owned(), key }
    }

    fn syntax(&self, error: &toml::de::Error) -> ProfileError {
        let (line, _) = self.line_at(error.span().map_or(0, |span| span.start));
        let problem = error.message().replace('\n', ", ");
        ProfileError::Syntax { profile: self.profile.to_owned(), line, problem }
    }

    /// An unknown key or a value of the wrong type: TOML's error knows the place, the line there begins with the key.
    fn mistyped(&self, error: &toml::de::Error) -> ProfileError {
        let start = error.span().map_or(0, |span| span.start);
        let (_, content) = self.line_at(start);
        let key = content.split('=').next().unwrap_or_default().trim();
        self.bad(start..start, key, error.message().replace('\n', ", "))
    }

    /// The number (from 1) and the text of the line that holds the byte at `offset`.
    fn line_at(&self, offset: usize) -> (usize, &str) {
        let before = self.text.get(..offset).unwrap_or(self.text);
        let line = before.matches('\n').count();
        (line + 1, self.text.lines().nth(line).unwrap_or_default())
    }
}

fn duration_of_ms(ms: f64) -> Duration {
    Duration::from_nanos((ms * 1e6).round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

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
            ("[sideways]\ndelay_ms = 1", "line 7: [sideways]: unknown field"),
            ("loss_percent = ", "line 7: "),
        ];
        for (added, expected) in cases {
            let refused = refusal(&format!("{GOOD}{added}\n"));
            assert!(refused.starts_with(&format!("profile mine, {expected}")), "{added}: {refused}");
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
