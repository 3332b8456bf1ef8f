//! `thinpost`: messages over the thinnest link, from a terminal or a script.

mod args;
mod commands;
mod contacts;
mod failure;
mod input;
mod listen;
mod place;
mod position;
mod rpc;
mod send;
mod show;
mod tickets;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;
use thinpost_client::Models;
use tracing_subscriber::EnvFilter;

use args::{Args, Command, Key};
use failure::{Failure, exit};
use place::Place;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            return match error.print() {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => report(error.into()),
            };
        }
        Err(error) => return report(Failure::new(exit::USAGE, usage_line(&error))),
    };
    let filter = EnvFilter::try_from_env("THINPOST_LOG").unwrap_or_else(|_| EnvFilter::new("off"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A log that is on a full disk, or that nobody reads any more, is no reason to panic.
    log.log_internal_errors(false).init();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return report(Failure::of_file("the system gives no timers or sockets", &error)),
    };
    let result = runtime.block_on(run(args));
    // A read of standard input that nobody waits for any more must not hold up the end.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => report(failure),
    }
}

async fn run(args: Args) -> Result<(), Failure> {
    let folder = args::home(args.home)?;
    let home = match args.command {
        // What is to be destroyed nobody need be able to read.
        Command::Wipe { .. } => Place { folder, key: None, models: Models::compiled_in() },
        _ => {
            let passphrase_file = args::passphrase_file(args.passphrase_file);
            let key = passphrase_file.as_deref().map(place::key_of_file).transpose()?;
            Place { folder, key, models: place::models_of_files(&args.models)? }
        }
    };
    match args.command {
        Command::Init(init) => commands::init(&home, init).await,
        Command::Ticket(ticket) => tickets::ticket(&home, ticket).await,
        Command::Contact(contact) => contacts::contact(&home, contact).await,
        Command::Send(send) => send::send(&home, send).await,
        Command::Listen(listen) => listen::listen(&home, listen).await,
        Command::Sync { time, budget } => commands::sync(&home, time, budget).await,
        Command::Status { json, acknowledge } => commands::status(&home, json, acknowledge).await,
        Command::Key(Key::Set(new)) => commands::set_key(&home, new),
        Command::Wipe { .. } => commands::wipe(&home),
        Command::Rpc => rpc::serve(home).await,
    }
}

fn report(failure: Failure) -> ExitCode {
    if !failure.is_quiet() {
        // Where standard error is closed there is nobody to tell.
        let _ = writeln!(std::io::stderr(), "thinpost: {failure}");
    }
    ExitCode::from(failure.code)
}

/// What clap says, in one line.
fn usage_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let lines = text.lines().map(str::trim).take_while(|line| !line.starts_with("Usage:"));
    let line = lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
    let line = line.strip_prefix("error: ").unwrap_or(&line);
    let line = line.split(" tip: ").next().unwrap_or(line);
    format!("{} (see `thinpost --help`)", line.trim_end_matches(" For more information, try '--help'."))
}
