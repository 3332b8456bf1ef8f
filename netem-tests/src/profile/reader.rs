//! Reads a profile's text, and says where in it something is wrong.

use std::num::{NonZeroU64, NonZeroUsize};
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use super::{Profile, ProfileError};
use crate::link::{Gaps, LinkParams, RateStep, Sleep};
use crate::loss::{Burst, Loss};
use crate::net::{Censorship, Mapping};

pub(super) fn read(name: &str, text: &str) -> Result<Profile, ProfileError> {
    let reader = Reader { profile: name, text };
    let document = toml::Deserializer::parse(text).map_err(|error| reader.syntax(&error))?;
    let file = File::deserialize(document).map_err(|error| reader.mistyped(&error))?;
    let source = file.source.ok_or_else(|| reader.missing("source"))?;
    if source.get_ref().trim().is_empty() {
        return Err(reader.bad(source.span(), "source", "says nothing"));
    }
    Ok(Profile {
        name: name.to_owned(),
        source: source.into_inner().trim().to_owned(),
        up: reader.direction(&file.up, &file.both)?,
        down: reader.direction(&file.down, &file.both)?,
        nat: reader.nat(&file.path)?,
        censorship: reader.censorship(&file.path)?,
    })
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
    #[serde(default)]
    path: PathTable,
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
    reorders: Option<bool>,
    doubled_percent: Option<Spanned<f64>>,
    damaged_percent: Option<Spanned<f64>>,
    mtu_bytes: Option<Spanned<i64>>,
    sleeps_after_ms: Option<Spanned<f64>>,
    wakes_in_ms: Option<Spanned<f64>>,
    gap_every_s: Option<Spanned<f64>>,
    gap_ms: Option<Spanned<f64>>,
    rate_steps: Option<Vec<Step>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    at_s: Spanned<f64>,
    rate_kbit_s: Spanned<f64>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct PathTable {
    nat_forgets_after_s: Option<Spanned<f64>>,
    nat_keeps_ports: Option<Spanned<bool>>,
    nat_inbound_refreshes: Option<Spanned<bool>>,
    udp: Option<bool>,
    flow_kbytes_max: Option<Spanned<f64>>,
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
    /// Refuses what no direction can have, also where the other tables say something else.
    fn check(&self, table: &Table) -> Result<(), ProfileError> {
        let Table { rate_kbit_s, delay_ms, jitter_ms, loss_percent, loss_burst_packets, .. } = table;
        let Table { loss_burst_ms, doubled_percent, damaged_percent, sleeps_after_ms, .. } = table;
        let Table { wakes_in_ms, gap_every_s, gap_ms, queue_packets, mtu_bytes, .. } = table;
        let numbers = [
            ("rate_kbit_s", rate_kbit_s),
            ("delay_ms", delay_ms),
            ("jitter_ms", jitter_ms),
            ("loss_percent", loss_percent),
            ("loss_burst_packets", loss_burst_packets),
            ("loss_burst_ms", loss_burst_ms),
            ("doubled_percent", doubled_percent),
            ("damaged_percent", damaged_percent),
            ("sleeps_after_ms", sleeps_after_ms),
            ("wakes_in_ms", wakes_in_ms),
            ("gap_every_s", gap_every_s),
            ("gap_ms", gap_ms),
        ];
        for (key, number) in numbers {
            number.as_ref().map_or(Ok(()), |number| self.within(number, key).map(drop))?;
        }
        for (key, number) in [("queue_packets", queue_packets), ("mtu_bytes", mtu_bytes)] {
            number.as_ref().map_or(Ok(()), |number| self.whole(number, key).map(drop))?;
        }
        self.steps(table.rate_steps.as_ref()).map(drop)
    }

    fn direction(&self, own: &Table, both: &Table) -> Result<LinkParams, ProfileError> {
        self.check(both)?;
        self.check(own)?;
        let rate = either(own, both, |table| &table.rate_kbit_s);
        let rate = rate.ok_or_else(|| self.missing("rate_kbit_s"))?;
        let rate_bit_s = self.rate(rate)?;

        let delay = either(own, both, |table| &table.delay_ms);
        let delay = delay.ok_or_else(|| self.missing("delay_ms"))?;
        let delay_ms = self.within(delay, "delay_ms")?;

        let jitter_ms = match either(own, both, |table| &table.jitter_ms) {
            Some(jitter) => {
                let jitter_ms = self.within(jitter, "jitter_ms")?;
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

        let queue = either(own, both, |table| &table.queue_packets);
        let queue = queue.ok_or_else(|| self.missing("queue_packets"))?;
        let queue_packets = self.whole(queue, "queue_packets")?;
        let queue_packets = NonZeroUsize::new(queue_packets).expect("it is from 1 on");

        Ok(LinkParams {
            rate_bit_s,
            delay: duration_of_ms(delay_ms),
            jitter: duration_of_ms(jitter_ms),
            loss: self.loss(own, both)?,
            queue_packets,
            steps: self.steps(either(own, both, |table| &table.rate_steps))?,
            reorders: either(own, both, |table| &table.reorders).is_some_and(|reorders| *reorders),
            mtu_bytes: either(own, both, |table| &table.mtu_bytes)
                .map(|bytes| self.whole(bytes, "mtu_bytes"))
                .transpose()?,
            sleep: self.sleep(own, both)?,
            gaps: self.gaps(own, both)?,
            doubled: self.share(own, both, |table| &table.doubled_percent, "doubled_percent")?,
            damaged: self.share(own, both, |table| &table.damaged_percent, "damaged_percent")?,
        })
    }

    fn rate(&self, rate: &Spanned<f64>) -> Result<NonZeroU64, ProfileError> {
        let rate_kbit_s = self.within(rate, "rate_kbit_s")?;
        let rate_bit_s = NonZeroU64::new((rate_kbit_s * 1_000.0).round() as u64);
        rate_bit_s.ok_or_else(|| self.bad(rate.span(), "rate_kbit_s", "must be above zero"))
    }

    fn steps(&self, steps: Option<&Vec<Step>>) -> Result<Vec<RateStep>, ProfileError> {
        let mut read: Vec<RateStep> = Vec::new();
        for step in steps.into_iter().flatten() {
            let at = Duration::from_secs_f64(self.within(&step.at_s, "at_s")?);
            if read.last().is_some_and(|before| before.at >= at) {
                return Err(self.bad(step.at_s.span(), "at_s", "must be later than that of the step before"));
            }
            read.push(RateStep { at, rate_bit_s: self.rate(&step.rate_kbit_s)? });
        }
        Ok(read)
    }

    fn sleep(&self, own: &Table, both: &Table) -> Result<Option<Sleep>, ProfileError> {
        let keys = ["sleeps_after_ms", "wakes_in_ms"];
        let pair = self.pair(own, both, |table| [&table.sleeps_after_ms, &table.wakes_in_ms], keys)?;
        Ok(pair.map(|[after, wakes_in]| Sleep {
            after: duration_of_ms(after),
            wakes_in: duration_of_ms(wakes_in),
        }))
    }

    fn gaps(&self, own: &Table, both: &Table) -> Result<Option<Gaps>, ProfileError> {
        let keys = ["gap_every_s", "gap_ms"];
        let pair = self.pair(own, both, |table| [&table.gap_every_s, &table.gap_ms], keys)?;
        Ok(pair.map(|[every, lasting]| Gaps {
            every: duration_of_ms(every * 1e3),
            lasting: duration_of_ms(lasting),
        }))
    }

    fn nat(&self, path: &PathTable) -> Result<Option<Mapping>, ProfileError> {
        let Some(forgets_after) = &path.nat_forgets_after_s else {
            let without = [
                ("nat_keeps_ports", &path.nat_keeps_ports),
                ("nat_inbound_refreshes", &path.nat_inbound_refreshes),
            ];
            let stray = without.into_iter().find_map(|(key, value)| Some((key, value.as_ref()?)));
            return match stray {
                Some((key, value)) => Err(self.bad(value.span(), key, "stands without nat_forgets_after_s")),
                None => Ok(None),
            };
        };
        let seconds = self.within(forgets_after, "nat_forgets_after_s")?;
        let is_set = |flag: &Option<Spanned<bool>>| flag.as_ref().is_some_and(|flag| *flag.get_ref());
        Ok(Some(Mapping {
            forget_after: Duration::from_secs_f64(seconds),
            inbound_refreshes: is_set(&path.nat_inbound_refreshes),
            keeps_ports: is_set(&path.nat_keeps_ports),
        }))
    }

    fn censorship(&self, path: &PathTable) -> Result<Censorship, ProfileError> {
        let limit = path.flow_kbytes_max.as_ref();
        let limit =
            limit.map(|limit| Ok((limit.span(), self.within(limit, "flow_kbytes_max")?))).transpose()?;
        match (path.udp, limit) {
            (Some(false), None) => Ok(Censorship::NoUdp),
            (Some(false), Some((span, _))) => {
                Err(self.bad(span, "flow_kbytes_max", "stands beside udp = false: choose one"))
            }
            (_, None) => Ok(Censorship::None),
            (_, Some((_, kbytes))) => Ok(Censorship::FlowsUpTo((kbytes * 1e3).round() as u64)),
        }
    }

    fn share<'a>(
        &self,
        own: &'a Table,
        both: &'a Table,
        field: impl Fn(&'a Table) -> &'a Option<Spanned<f64>>,
        key: &'static str,
    ) -> Result<f64, ProfileError> {
        let percent = either(own, both, field).map(|percent| self.within(percent, key)).transpose()?;
        Ok(percent.unwrap_or(0.0) / 100.0)
    }

    /// Two keys that stand together: a direction's, or those of both.
    fn pair<'a>(
        &self,
        own: &'a Table,
        both: &'a Table,
        fields: impl Fn(&'a Table) -> [&'a Option<Spanned<f64>>; 2],
        [one, other]: [&'static str; 2],
    ) -> Result<Option<[f64; 2]>, ProfileError> {
        let mut pair = None;
        for table in [both, own] {
            pair = match fields(table) {
                [None, None] => pair,
                [Some(first), Some(second)] => Some([self.within(first, one)?, self.within(second, other)?]),
                [Some(lone), None] => {
                    return Err(self.bad(lone.span(), one, format!("stands without {other}")));
                }
                [None, Some(lone)] => {
                    return Err(self.bad(lone.span(), other, format!("stands without {one}")));
                }
            };
        }
        Ok(pair)
    }

    fn loss(&self, own: &Table, both: &Table) -> Result<Loss, ProfileError> {
        let of_both = self.burst(both)?;
        let clustered = self.burst(own)?.or(of_both);
        let Some(loss) = either(own, both, |table| &table.loss_percent) else {
            return match clustered {
                Some(Clustered { key, span, .. }) => Err(self.bad(span, key, "stands without loss_percent")),
                None => Ok(Loss::NONE),
            };
        };
        let percent = self.within(loss, "loss_percent")?;
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
                let burst = Burst::Packets(self.within(packets, key)?);
                Ok(Some(Clustered { burst, key, span: packets.span() }))
            }
            (None, Some(ms)) => {
                let key = "loss_burst_ms";
                let burst = Burst::Time(duration_of_ms(self.within(ms, key)?));
                Ok(Some(Clustered { burst, key, span: ms.span() }))
            }
            (Some(_), Some(ms)) => {
                Err(self.bad(ms.span(), "loss_burst_ms", "stands beside loss_burst_packets: choose one"))
            }
        }
    }

    fn within(&self, number: &Spanned<f64>, key: &'static str) -> Result<f64, ProfileError> {
        let value = *number.get_ref();
        let range = range_of(key);
        if range.contains(&value) {
            return Ok(value);
        }
        // Hundreds of digits help nobody.
        let found = if value.abs() < 1e12 { value.to_string() } else { format!("{value:e}") };
        let problem = format!("must be from {} to {}, not {found}", range.start(), range.end());
        Err(self.bad(number.span(), key, problem))
    }

    fn whole(&self, number: &Spanned<i64>, key: &'static str) -> Result<usize, ProfileError> {
        let range = match key {
            "mtu_bytes" => 28..=65_535,
            _ => 1..=100_000,
        };
        let value = *number.get_ref();
        match usize::try_from(value) {
            Ok(value) if range.contains(&value) => Ok(value),
            _ => {
                let problem = format!("must be from {} to {}, not {value}", range.start(), range.end());
                Err(self.bad(number.span(), key, problem))
            }
        }
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

    /// An unknown key or a value of the wrong type: TOML's error knows the place, which is that of the key, or else the line
    /// there begins with the key.
    fn mistyped(&self, error: &toml::de::Error) -> ProfileError {
        let start = error.span().map_or(0, |span| span.start);
        let (_, content) = self.line_at(start);
        let here = self.text.get(start..).and_then(|text| text.split_once('='));
        let here = here.map(|(key, _)| key.trim()).filter(|key| key.split(['\n', ',', '}']).count() == 1);
        let key = here.unwrap_or_else(|| content.split('=').next().unwrap_or_default());
        self.bad(start..start, key.trim(), error.message().replace('\n', ", "))
    }

    /// The number (from 1) and the text of the line that holds the byte at `offset`.
    fn line_at(&self, offset: usize) -> (usize, &str) {
        let before = self.text.get(..offset).unwrap_or(self.text);
        let line = before.matches('\n').count();
        (line + 1, self.text.lines().nth(line).unwrap_or_default())
    }
}

/// What a number may be.
fn range_of(key: &str) -> RangeInclusive<f64> {
    match key {
        "rate_kbit_s" => 0.001..=10_000_000.0,
        "delay_ms" | "jitter_ms" | "wakes_in_ms" => 0.0..=600_000.0,
        "sleeps_after_ms" => 0.0..=3_600_000.0,
        "loss_burst_packets" => 1.0..=10_000.0,
        "loss_burst_ms" | "gap_ms" => 0.001..=3_600_000.0,
        "gap_every_s" | "nat_forgets_after_s" => 0.001..=1_000_000.0,
        "at_s" => 0.0..=1_000_000.0,
        "flow_kbytes_max" => 0.001..=1e9,
        percent => {
            debug_assert!(percent.ends_with("_percent"), "{percent}");
            0.0..=100.0
        }
    }
}

/// What a direction says of its own, or what holds for both.
fn either<'a, T>(
    own: &'a Table,
    both: &'a Table,
    field: impl Fn(&'a Table) -> &'a Option<T>,
) -> Option<&'a T> {
    field(own).as_ref().or(field(both).as_ref())
}

fn duration_of_ms(ms: f64) -> Duration {
    Duration::from_nanos((ms * 1e6).round() as u64)
}
