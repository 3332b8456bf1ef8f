//! `bench unseen`: texts of a source that nothing was trained on. One source of a language is left out at a time,
//! model and dictionary are trained on the others, and both are judged on it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use thinpost_wire::text::{self, Model, ModelName};
use zstd::zstd_safe::{CParameter, FrameFormat};

use crate::corpus;
use crate::report::{Report, Row};
use crate::train::models::{self, Plan};

/// Leave one source of a language out at a time: model and zstd dictionary are trained on the others and measured
/// on it. Where a language has one source only, its held-out lines are measured.
#[derive(Args, Debug)]
pub(crate) struct UnseenArgs {
    /// Folder with `train`, `held-out` and `words` [default: this crate's corpora]
    #[arg(long, value_name = "DIR")]
    corpora: Option<PathBuf>,
    /// Only this model
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
}

/// So many lines of a source are measured; they stand in an order that a hash gave.
const MEASURED_LINES: usize = 2_000;
/// Size of the dictionaries that models are compared with.
const DICTIONARY_BYTES: usize = 110_000;
const BATCHES: [usize; 3] = [1, 10, 50];
const SIZE: &str = "B/message";

/// Trains and measures.
///
/// # Errors
/// When a text cannot be read, or training fails.
pub(crate) fn run(args: &UnseenArgs, report: &mut Report) -> Result<()> {
    let corpora = args.corpora.clone().unwrap_or_else(corpus::own_dir);
    for plan in models::PLANS.iter().filter(|plan| args.only.as_ref().is_none_or(|only| only == plan.name)) {
        if plan.name == "multilingual" {
            continue;
        }
        // JSON that was not seen has another shape, and no model helps it: its held-out lines are of a known one.
        if plan.sources.len() == 1 || plan.name == "json" {
            for held_out in plan.held_out {
                let lines = corpus::read_lines(&corpora.join("held-out").join(format!("{held_out}.txt")))?;
                measure(plan, &[], held_out, &lines, &corpora, report)?;
            }
            continue;
        }
        for source in plan.sources {
            let mut lines = corpus::read_lines(&corpora.join("train").join(format!("{source}.txt")))?;
            lines.truncate(MEASURED_LINES);
            measure(plan, &[source], &format!("{source}, left out"), &lines, &corpora, report)?;
        }
    }
    Ok(())
}

fn measure(
    plan: &Plan,
    without: &[&str],
    scenario: &str,
    lines: &[String],
    corpora: &Path,
    report: &mut Report,
) -> Result<()> {
    let from = models::ingredients(plan, corpora, without)?;
    let model = Model::from_bytes(&models::file(plan, &from)?)?;
    let dictionary = Dictionary::train(&from.texts)?;
    let raw = lines.iter().map(String::len).sum::<usize>() as f64 / lines.len() as f64;
    let mut row = |mode: &str, metric: String, value: f64, unit: &'static str| {
        report.row(Row::new("unseen", metric, value, unit).scenario(scenario).mode(mode))
    };
    row("raw", "alone".to_owned(), raw, SIZE)?;
    for size in BATCHES {
        let metric = if size == 1 { "alone".to_owned() } else { format!("in {size}") };
        let bytes = |code: &dyn Fn(&[String]) -> usize| {
            lines.chunks(size).map(code).sum::<usize>() as f64 / lines.len() as f64
        };
        let modelled = bytes(&|texts| modelled_bytes(plan.model_name(), &model, texts));
        let packed = bytes(&|texts| TAG_BYTES + dictionary.bytes(texts));
        row("text model", metric.clone(), modelled, SIZE)?;
        row("zstd, 110 kB dictionary", metric.clone(), packed, SIZE)?;
        row("model / zstd", metric, modelled / packed, "")?;
    }
    Ok(())
}

/// The bytes of some texts in a run; in several where one may not hold them all.
fn modelled_bytes(name: ModelName, model: &Model, texts: &[String]) -> usize {
    let mut coded = Vec::new();
    match text::encode_run(name, model, texts.iter().map(String::as_str), &mut coded) {
        Ok(()) => coded.len(),
        // A text that is too long for a model by itself.
        Err(_) if texts.len() == 1 => TAG_BYTES + texts[0].len(),
        Err(_) => {
            let halves = texts.split_at(texts.len() / 2);
            modelled_bytes(name, model, halves.0) + modelled_bytes(name, model, halves.1)
        }
    }
}

/// A zstd dictionary of any texts, and what a text takes as a bare block with it.
struct Dictionary(Vec<u8>);

/// Before a block stands which dictionary it is coded with. A stream under a model begins with the choice of the model.
const TAG_BYTES: usize = 1;
/// Headers of frame and block that a bare block does without.
const HEADERS_BYTES: usize = 5;

impl Dictionary {
    /// Trained as those that are compiled in: on texts alone and together, shuffled.
    fn train(texts: &[String]) -> Result<Self> {
        const TOGETHER: usize = 12;
        let mut samples: Vec<Vec<u8>> = texts.iter().map(|text| text.clone().into_bytes()).collect();
        samples.extend(texts.chunks(TOGETHER).map(joined));
        corpus::shuffle(&mut samples, corpus::SEED, Clone::clone);
        Ok(Self(zstd::dict::from_samples(&samples, DICTIONARY_BYTES).context("training a dictionary")?))
    }

    /// The bytes of some texts; of a text that does not shrink, its own.
    fn bytes(&self, texts: &[String]) -> usize {
        const LEVEL: i32 = 19;
        let content = if let [text] = texts { text.clone().into_bytes() } else { joined(texts) };
        let compress = || {
            let mut context = zstd::bulk::Compressor::with_dictionary(LEVEL, &self.0)?;
            context.set_parameter(CParameter::Format(FrameFormat::Magicless))?;
            context.include_contentsize(false)?;
            context.include_checksum(false)?;
            context.include_dictid(false)?;
            context.compress(&content)
        };
        compress().map_or(content.len(), |packed| content.len().min(packed.len() - HEADERS_BYTES))
    }
}

/// Texts one after another, each behind its length.
fn joined(texts: &[String]) -> Vec<u8> {
    let mut out = Vec::new();
    for text in texts {
        out.push(text.len().min(255) as u8);
        out.extend(text.as_bytes());
    }
    out
}
