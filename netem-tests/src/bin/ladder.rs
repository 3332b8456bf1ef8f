//! Climbs down the ladder of links, and tells where each promise ends.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use comfy_table::{CellAlignment, Table, presets};
use thinpost_netem::ladder::{Day, day, kept_down_to, rungs};

/// The same day of messages on ever worse links: where does each promise end?
#[derive(Debug, Parser)]
#[command(name = "ladder", version)]
struct Args {
    /// What the day's messages and the links' losses are drawn from
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let rungs = match rungs() {
        Ok(rungs) => rungs,
        Err(error) => {
            eprintln!("ladder: {error}");
            return ExitCode::FAILURE;
        }
    };
    let days: Vec<Day> = rungs
        .iter()
        .map(|link| {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
            runtime.expect("a runtime without I/O needs nothing").block_on(day(link, args.seed))
        })
        .collect();
    println!("{}", table(&days));
    for (promise, last) in kept_down_to(&days) {
        println!("{promise}: {}", last.map_or("nowhere".to_owned(), |link| format!("down to {link}")));
    }
    ExitCode::SUCCESS
}

fn table(days: &[Day]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_header(["link", "in custody", "p50 s", "p95 s", "p99 s", "B a message", "arrived"]);
    for day in days {
        let seconds =
            |took: Option<Duration>| took.map_or("-".to_owned(), |took| format!("{:.2}", took.as_secs_f64()));
        let [p50, p95, p99] = [50, 95, 99].map(|percent| seconds(day.custody_of(percent)));
        let arrived = match &day.wrong {
            None => "all, in order".to_owned(),
            Some((place, found)) => format!("at {place}: {found:?}"),
        };
        let bytes = day.message_bytes().to_string();
        table.add_row([day.link.clone(), day.custody.len().to_string(), p50, p95, p99, bytes, arrived]);
    }
    for column in 1..6 {
        table.column_mut(column).expect("it has seven").set_cell_alignment(CellAlignment::Right);
    }
    table
}
