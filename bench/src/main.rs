//! Thinpost measured. Every command prints a table, or with `--json` one object a line.
//!
//! Exit code 0 when the measurement ran, 1 when it could not or a figure is beyond a bar that it has, 2 for a wrong command line.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::report::Report;

mod bombs;
mod codec;
mod corpus;
mod heap;
mod link;
mod relay;
mod report;
mod rungs;
mod store;
mod texts;
mod train;
mod unseen;
mod words;

/// Measures Thinpost.
#[derive(Parser, Debug)]
#[command(name = "bench", version)]
struct Cli {
    /// One JSON object a line instead of a table
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Bombs(bombs::BombsArgs),
    Codec(codec::CodecArgs),
    Corpora(corpus::CorporaArgs),
    Link(link::LinkArgs),
    Relay(relay::RelayArgs),
    Rungs(rungs::RungsArgs),
    #[command(hide = true)]
    Serve(relay::ServeArgs),
    Store(store::StoreArgs),
    Texts(texts::TextsArgs),
    Train(train::TrainArgs),
    Unseen(unseen::UnseenArgs),
}

impl Command {
    fn run(&self, report: &mut Report) -> Result<()> {
        match self {
            Self::Bombs(args) => bombs::run(args, report),
            Self::Codec(args) => codec::run(args, report),
            Self::Corpora(args) => corpus::run(args, report),
            Self::Link(args) => link::run(args, report),
            Self::Relay(args) => relay::run(args, report),
            Self::Rungs(args) => rungs::run(args, report),
            Self::Serve(args) => relay::serve(args),
            Self::Store(args) => store::run(args, report),
            Self::Texts(args) => texts::run(args, report),
            Self::Unseen(args) => unseen::run(args, report),
            Self::Train(args) => train::run(args, report),
        }
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut report = Report::new(cli.json);
    // What was measured before an error is still worth reading.
    let ran = cli.command.run(&mut report);
    match ran.and(report.finish()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
