//! Thinpost measured. Every command prints a table, or with `--json` one object a line.
//!
//! Exit code 0 when the measurement ran, 1 when it could not, 2 for a wrong command line.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::report::Report;

mod codec;
mod corpus;
mod heap;
mod relay;
mod report;
mod train;
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
    Codec(codec::CodecArgs),
    Corpora(corpus::CorporaArgs),
    Relay(relay::RelayArgs),
    #[command(hide = true)]
    Serve(relay::ServeArgs),
    Train(train::TrainArgs),
}

impl Command {
    fn run(&self, report: &mut Report) -> Result<()> {
        match self {
            Self::Codec(args) => codec::run(args, report),
            Self::Corpora(args) => corpus::run(args, report),
            Self::Relay(args) => relay::run(args, report),
            Self::Serve(args) => relay::serve(args),
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
