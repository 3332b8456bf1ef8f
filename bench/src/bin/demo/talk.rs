//! The talk itself: who says what and when, what happens in the middle, and what came of it.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use comfy_table::{Table, presets};
use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use thinpost_client::{AppId, Event, InboxNumber, Message, ReceivedContent};
use thinpost_netem::PathCounters;
use tokio::time::{Instant, sleep_until, timeout};

use crate::reference;
use crate::stage::Stage;

/// Mean time between two messages of one person.
const GAP: Duration = Duration::from_millis(1_600);

/// Ann's link is cut for so long after a third of the talk; the relay restarts after two thirds.
const OUTAGE: Duration = Duration::from_secs(20);

/// What has not arrived so long after the last word counts as lost.
const PATIENCE: Duration = Duration::from_secs(600);

/// Whatever might come twice has this long to do so.
const AFTERMATH: Duration = Duration::from_secs(5);

/// Who says what, when.
pub(crate) struct Plan {
    /// Ann's lines in English, Bob's in Russian.
    lines: [Vec<String>; 2],
    /// When, from the beginning, and which person's which line.
    words: Vec<(Duration, usize, usize)>,
}

impl Plan {
    pub(crate) fn new(messages: usize, seed: u64) -> anyhow::Result<Self> {
        let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpora/demo");
        let counts = [messages.div_ceil(2), messages / 2];
        let mut lines = [Vec::new(), Vec::new()];
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut words = Vec::new();
        for (person, file) in ["en-chat.txt", "ru-social.txt"].into_iter().enumerate() {
            let path = corpora.join(file);
            let text = fs::read_to_string(&path)
                .with_context(|| format!("cannot read {}: run the demo from a clone", path.display()))?;
            lines[person] = text.lines().take(counts[person]).map(str::to_owned).collect();
            ensure!(lines[person].len() == counts[person], "{file} has fewer than {} lines", counts[person]);
            let mut at = Duration::from_secs(5);
            for line in 0..counts[person] {
                // Exponential gaps: people write in bursts.
                at += GAP.mul_f64(-(1.0 - random.random::<f64>()).ln());
                words.push((at, person, line));
            }
        }
        words.sort();
        Ok(Self { lines, words })
    }

    fn len(&self) -> usize {
        self.words.len()
    }
}

/// Names a message by who wrote which line.
fn app_id(person: usize, line: usize) -> AppId {
    let mut id = [0; 16];
    id[0] = person as u8;
    id[8..].copy_from_slice(&(line as u64).to_be_bytes());
    AppId(id)
}

/// What came of the talk.
pub(crate) struct Report {
    profile: String,
    took: Duration,
    sent: usize,
    delivered: usize,
    duplicated: usize,
    altered: usize,
    out_of_order: usize,
    air_bytes: u64,
    reference_bytes: f64,
    latency_ms: Histogram<u64>,
}

impl Report {
    pub(crate) fn is_whole(&self) -> bool {
        self.delivered == self.sent && self.duplicated + self.altered + self.out_of_order == 0
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table.load_style(presets::UTF8_BORDERS_ONLY);
        let per_message = self.air_bytes as f64 / self.sent as f64;
        let latency = |quantile| format!("{:.2} s", self.latency_ms.value_at_quantile(quantile) as f64 / 1e3);
        table.set_header(vec![format!("{} both ways", self.profile), "result".to_owned()]);
        for (what, value) in [
            ("sent", self.sent.to_string()),
            ("delivered", self.delivered.to_string()),
            ("lost", (self.sent - self.delivered).to_string()),
            ("duplicated", self.duplicated.to_string()),
            ("altered", self.altered.to_string()),
            ("out of order", self.out_of_order.to_string()),
            ("bytes on the air per message", format!("{per_message:.0} B")),
            ("reference: all text in one packet each way", format!("{:.0} B", self.reference_bytes)),
            ("latency p50", latency(0.50)),
            ("latency p95", latency(0.95)),
            ("latency p99", latency(0.99)),
            ("latency, longest", latency(1.0)),
            ("took", format!("{:.0} s", self.took.as_secs_f64())),
        ] {
            table.add_row(vec![what.to_owned(), value]);
        }
        writeln!(f, "{table}")
    }
}

/// One person's message, as the other got it.
struct Arrival {
    by: usize,
    line: usize,
    text: String,
    at: Instant,
}

/// Everybody talks, the link and the relay fail in between, and everything is counted.
pub(crate) async fn run(
    mut stage: Stage,
    plan: Plan,
    profile: &str,
    progress: bool,
) -> anyhow::Result<Report> {
    let began = Instant::now();
    let bar = if progress { ProgressBar::new(plan.len() as u64) } else { ProgressBar::hidden() };
    bar.set_style(ProgressStyle::with_template("{bar:40} {pos}/{len} delivered  {elapsed}  {msg}")?);
    let (arrived, mut arrivals) = tokio::sync::mpsc::unbounded_channel();
    for (reader, client) in stage.clients().into_iter().enumerate() {
        tokio::spawn(read(client.subscribe(InboxNumber(0)), 1 - reader, arrived.clone(), bar.clone()));
    }
    drop(arrived);

    let mut sent = BTreeMap::new();
    let (outage_at, restart_at) = (plan.words[plan.len() / 3].0, plan.words[plan.len() * 2 / 3].0);
    let mut happenings = [(outage_at, 0), (outage_at + OUTAGE, 1), (restart_at, 2)];
    happenings.sort();
    let mut words = plan.words.iter().peekable();
    let mut happenings = happenings.into_iter().peekable();
    loop {
        let word_at = words.peek().map(|(at, ..)| *at);
        let happening_at = happenings.peek().map(|(at, _)| *at);
        let Some(at) = [word_at, happening_at].into_iter().flatten().min() else { break };
        sleep_until(began + at).await;
        if happening_at == Some(at) {
            match happenings.next() {
                Some((_, 0)) => {
                    bar.set_message("Ann's link is dead for 20 s");
                    stage.set_outage(true);
                }
                Some((_, 1)) => {
                    bar.set_message("the link is back");
                    stage.set_outage(false);
                }
                _ => {
                    bar.set_message("the relay restarts");
                    stage.restart_relay().await?;
                }
            }
        } else if let Some(&(_, person, line)) = words.next() {
            let to = ["bob", "ann"][person];
            let message = Message::from(plan.lines[person][line].as_str()).with_app_id(app_id(person, line));
            sent.insert((person, line), Instant::now());
            stage.clients()[person].send(to, message).await?;
        }
    }

    let mut got = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    while got.len() < plan.len()
        && let Ok(Some(arrival)) = timeout(deadline - Instant::now(), arrivals.recv()).await
    {
        got.push(arrival);
    }
    let took = began.elapsed();
    let until = Instant::now() + AFTERMATH;
    while let Ok(Some(arrival)) = timeout(until - Instant::now(), arrivals.recv()).await {
        got.push(arrival);
    }
    bar.finish_and_clear();
    let counters = stage.counters();
    stage.end().await;
    Ok(count(&plan, &sent, got, &counters, took, profile))
}

async fn read(
    mut events: thinpost_client::Subscription,
    by: usize,
    arrived: tokio::sync::mpsc::UnboundedSender<Arrival>,
    bar: ProgressBar,
) {
    while let Some(event) = events.next().await {
        let Event::Received(message) = event else { continue };
        let line = message
            .app_id
            .map_or(u64::MAX, |id| id.0[8..].iter().fold(0, |line, byte| line << 8 | u64::from(*byte)));
        let text = match message.content {
            ReceivedContent::Text(text) => text,
            _ => String::new(),
        };
        bar.inc(1);
        if arrived.send(Arrival { by, line: line as usize, text, at: Instant::now() }).is_err() {
            return;
        }
    }
}

fn count(
    plan: &Plan,
    sent: &BTreeMap<(usize, usize), Instant>,
    got: Vec<Arrival>,
    counters: &[PathCounters; 2],
    took: Duration,
    profile: &str,
) -> Report {
    let mut report = Report {
        profile: profile.to_owned(),
        took,
        sent: sent.len(),
        delivered: 0,
        duplicated: 0,
        altered: 0,
        out_of_order: 0,
        air_bytes: counters.iter().map(|path| path.up.offered.ip_bytes + path.down.offered.ip_bytes).sum(),
        reference_bytes: reference::bytes_per_message(plan.lines.each_ref().map(Vec::as_slice)),
        latency_ms: Histogram::new_with_max(3_600_000, 3).expect("an hour to three digits is allowed"),
    };
    let mut seen = BTreeMap::new();
    let mut newest = [None, None];
    for Arrival { by, line, text, at } in got {
        let Some(sent_at) = sent.get(&(by, line)) else {
            report.altered += 1;
            continue;
        };
        if seen.insert((by, line), ()).is_some() {
            report.duplicated += 1;
            continue;
        }
        report.delivered += 1;
        report.altered += usize::from(plan.lines[by][line] != text);
        report.out_of_order += usize::from(newest[by].is_some_and(|newest| newest > line));
        newest[by] = Some(line);
        report.latency_ms.saturating_record(at.duration_since(*sent_at).as_millis() as u64);
    }
    report
}
