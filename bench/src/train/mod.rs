//! `bench train`: makes what wire-format compiles in, dictionaries and text models, from their training texts;
//! byte for byte the same each time.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::corpus;
use crate::report::{Report, Row};

mod dictionaries;
pub(crate) mod models;
mod ngram;

pub(crate) use dictionaries::dictionary_lines;

/// Train the dictionaries and text models that wire-format compiles in.
#[derive(Args, Debug)]
pub(crate) struct TrainArgs {
    /// Folder with the training texts: `train/NAME.txt`, one message a line, and `words/LANG.txt` [default: this
    /// crate's corpora]
    #[arg(long, value_name = "DIR")]
    corpora: Option<PathBuf>,
    /// Where `dict/NAME.dict` and `models/NAME.model` are written [default: wire-format's assets]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Only these dictionaries and models
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Write nothing; fail unless training gives the files that are there
    #[arg(long, conflicts_with = "sizes")]
    check: bool,
    /// Write nothing; print what models of other sizes would save
    #[arg(long)]
    sizes: bool,
}

/// Trains all, then writes or compares it.
///
/// # Errors
/// When a text or a file cannot be read or written, and with `--check` when a file differs.
pub(crate) fn run(args: &TrainArgs, report: &mut Report) -> Result<()> {
    let corpora = args.corpora.clone().unwrap_or_else(corpus::own_dir);
    let out = args.out.clone().unwrap_or_else(own_assets);
    for name in &args.only {
        ensure!(names().any(|known| known == name), "{name} is neither a dictionary nor a model");
    }
    let wanted = |name: &str| args.only.is_empty() || args.only.iter().any(|only| only == name);
    if args.sizes {
        let mut plans = models::PLANS.iter().filter(|plan| wanted(plan.name));
        return plans.try_for_each(|plan| models::sizes(plan, &corpora, report));
    }
    let mut differing = Vec::new();
    let mut write = |path: PathBuf, name: &'static str, bytes: Vec<u8>| -> Result<()> {
        if args.check {
            let found = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            if found != bytes {
                differing.push(name);
            }
        } else {
            let folder = path.parent().unwrap_or(&out);
            fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
            fs::write(&path, &bytes).with_context(|| format!("cannot write {}", path.display()))?;
        }
        let hash = blake3::hash(&bytes).to_hex();
        report.row(Row::new("train", "size", bytes.len() as f64, "B").scenario(name).mode(hash.as_str()))
    };
    for plan in dictionaries::PLANS.iter().filter(|plan| wanted(plan.name)) {
        let path = out.join("dict").join(format!("{}.dict", plan.name));
        write(path, plan.name, dictionaries::train(plan, &corpora.join("train"))?)?;
    }
    for plan in models::PLANS.iter().filter(|plan| wanted(plan.name)) {
        let path = out.join("models").join(format!("{}.model", plan.name));
        write(path, plan.name, models::train(plan, &corpora)?)?;
    }
    if !differing.is_empty() {
        bail!("training gives other bytes for: {}", differing.join(", "));
    }
    Ok(())
}

fn names() -> impl Iterator<Item = &'static str> {
    let dictionaries = dictionaries::PLANS.iter().map(|plan| plan.name);
    dictionaries.chain(models::PLANS.iter().map(|plan| plan.name))
}

/// Found at build time, so the commands work from any folder of a clone.
fn own_assets() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../wire-format/assets")
}
