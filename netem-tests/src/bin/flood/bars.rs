//! What ordinary clients may notice of an attack, and what they did.

use hdrhistogram::Histogram;
use serde_json::json;
use thinpost_netem::flood::service::{Served, Waits};
use thinpost_netem::report::Figures;

/// So many times as long as in quiet may a client wait under attack, at the 99th percentile.
pub(crate) const RATIO_MAX: f64 = 2.0;

/// Where there is no link between, waits are milliseconds, and twice as long is nothing that anybody notices: there a wait is too long
/// when it is also above this share of what the same takes on the thin link, in quiet.
const NOTICED_SHARE: f64 = 0.1;

/// A kind of wait, and where it is found.
type Kind = (&'static str, fn(&Waits) -> &Histogram<u64>);

const KINDS: [Kind; 4] = [
    ("custody", |waits| &waits.custody),
    ("delivery", |waits| &waits.delivery),
    ("again", |waits| &waits.again),
    ("anew", |waits| &waits.anew),
];

/// Those who come in anew or again: the last two kinds.
fn is_of_newcomers(what: &str) -> bool {
    matches!(what, "again" | "anew")
}

/// What a row asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bar {
    /// Whether newcomers are to wait no longer than others: not where strangers may take all places unasked.
    pub(crate) holds_newcomers: bool,
}

fn ms(histogram: &Histogram<u64>, quantile: f64) -> f64 {
    histogram.value_at_quantile(quantile) as f64 / 1e3
}

/// Whether a wait under attack is more than it may be. `noticed` is what nobody notices in any case.
fn is_too_long(quiet: f64, attacked: f64, noticed: f64) -> bool {
    attacked >= (quiet * RATIO_MAX).max(noticed)
}

/// Prints what clients noticed, and adds it to the figures; what is too much is broken. `far` are those behind a thin link,
/// if there are others.
pub(crate) fn show(
    group: &str,
    served: &Served,
    far: Option<&Served>,
    bar: Bar,
    figures: &mut Figures,
    broken: &mut Vec<String>,
) {
    for (what, of) in KINDS {
        let (quiet, attacked) = (of(&served.quiet), of(&served.attacked));
        if quiet.is_empty() && attacked.is_empty() {
            continue;
        }
        let noticed = far.map_or(0.0, |far| ms(of(&far.quiet), 0.99) * NOTICED_SHARE);
        let (before, under) = (ms(quiet, 0.99), ms(attacked, 0.99));
        let ratio = under / before.max(0.001);
        let of_all = |waits: &Histogram<u64>| {
            let [p50, p95, p99, max] = [0.5, 0.95, 0.99, 1.0].map(|quantile| ms(waits, quantile));
            format!("{p50:.1} / {p95:.1} / {p99:.1} / {max:.1} of {}", waits.len())
        };
        println!(
            "{group:<5}{what:<9} p50 / p95 / p99 / max, ms: {} in quiet, {} under attack: {ratio:.2} times",
            of_all(quiet),
            of_all(attacked),
        );
        figures.insert(format!("{group}_{what}_p99_quiet_ms"), before.into());
        figures.insert(format!("{group}_{what}_p99_attacked_ms"), under.into());
        figures.insert(format!("{group}_{what}_ratio"), ratio.into());
        let counts = !is_of_newcomers(what) || bar.holds_newcomers;
        if counts && quiet.is_empty() {
            broken.push(format!("{group}: nobody waited for {what} in quiet"));
        } else if counts && attacked.is_empty() {
            broken.push(format!("{group}: nobody waited for {what} under attack"));
        } else if counts && is_too_long(before, under, noticed) {
            broken.push(format!(
                "{group}: the 99th percentile of {what} is {ratio:.2} times what it is in quiet, {under:.1} ms"
            ));
        }
    }
    println!(
        "{group:<5}messages {:>16}, {} in custody, {} arrived, {} again, refused: {:?}",
        served.sent, served.in_custody, served.delivered, served.doubled, served.refused
    );
    println!(
        "{group:<5}newcomers {:>15}, {} kept out, turned away once: {:?}",
        served.came, served.kept_out, served.turned_away
    );
    figures.insert(format!("{group}_messages"), served.sent.into());
    figures.insert(format!("{group}_newcomers"), served.came.into());
    figures.insert(format!("{group}_turned_away"), json!(served.turned_away));
    if served.sent == 0 {
        broken.push(format!("{group}: nobody said anything"));
    }
    if !served.is_whole() {
        broken.push(format!(
            "{group}: of {} messages {} are in custody and {} arrived, {} again; refused: {:?}; lines lost: {:?}; \
             {} newcomers kept out",
            served.sent,
            served.in_custody,
            served.delivered,
            served.doubled,
            served.refused,
            served.lines_lost,
            served.kept_out
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twice_as_long_is_too_long_unless_nobody_notices() {
        assert!(is_too_long(2_000.0, 4_000.0, 0.0));
        assert!(!is_too_long(2_000.0, 3_900.0, 0.0));
        assert!(!is_too_long(10.0, 150.0, 200.0));
        assert!(is_too_long(10.0, 210.0, 200.0));
        assert!(!is_too_long(150.0, 210.0, 200.0));
    }
}
