//! Real chat lines cross an emulated thin link, both ways, with an outage and a relay restart in the
//! middle. Exit code 1 if anything was lost or shown twice.

mod reference;
mod stage;
mod talk;

use std::process::ExitCode;

use clap::Parser;
use thinpost_netem::Profile;

use stage::Stage;
use talk::{Plan, Report};

/// See real chat lines cross a thin link.
#[derive(Debug, Parser)]
struct Args {
    /// The link that both people are behind.
    #[arg(long, default_value = "gprs")]
    profile: String,
    /// How many messages, half of them each way.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(2..=1_000))]
    messages: u32,
    /// Chooses gaps, losses and delays.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The same in virtual time: seconds instead of minutes, and the same figures each time.
    #[arg(long)]
    fast: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(report) => {
            print!("{report}");
            if report.is_whole() { ExitCode::SUCCESS } else { ExitCode::from(1) }
        }
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(args: &Args) -> anyhow::Result<Report> {
    let profile = Profile::find(&args.profile)?;
    let plan = Plan::new(args.messages as usize, args.seed)?;
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().start_paused(args.fast);
    runtime.build()?.block_on(async {
        let stage = if args.fast {
            Stage::virtual_time(&profile, args.seed).await?
        } else {
            Stage::real_sockets(&profile, args.seed).await?
        };
        talk::run(stage, plan, &args.profile, !args.fast).await
    })
}
