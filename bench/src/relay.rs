//! `bench relay`: what connected devices cost a relay.
//!
//! The relay is a process of its own, so that what it takes is not mixed with what its devices take. The
//! devices are the client's half of a link without a home: each with its own key and UDP socket,
//! registered, and with its mailbox read.

mod devices;
mod process;

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};

use crate::report::{Report, Row};

pub(crate) use process::ServeArgs;
pub(crate) use process::serve;

/// Memory and processor time of a relay with many devices.
#[derive(Args, Debug)]
pub(crate) struct RelayArgs {
    /// What the devices do
    #[arg(long, value_enum, default_value_t = Scenario::Idle)]
    scenario: Scenario,
    /// How many devices
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    connections: u32,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Scenario {
    /// They connect, register, and stay silent.
    Idle,
}

/// What lies in queues and allocators after the last handshake has this long to settle.
const REST: Duration = Duration::from_secs(5);

/// Runs the measurement.
///
/// # Errors
/// When the relay or a device fails, or where memory cannot be read (outside Linux).
pub(crate) fn run(args: &RelayArgs, report: &mut Report) -> Result<()> {
    let Scenario::Idle = args.scenario;
    let count = args.connections;
    // A socket each.
    rlimit::increase_nofile_limit(u64::from(count) + 1_000)?;
    let relay = process::Child::start(count)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let (before, idle, took) = runtime.block_on(async {
        let before = relay.usage()?;
        let began = Instant::now();
        let devices = devices::connect(&relay.ticket, count).await?;
        let took = began.elapsed();
        tokio::time::sleep(REST).await;
        let idle = relay.usage()?;
        let alive = devices.iter().filter(|device| device.is_connected()).count();
        ensure!(alive == count as usize, "only {alive} of {count} devices are still connected");
        anyhow::Ok((before, idle, took))
    })?;
    let per_connection = (idle.memory_bytes as f64 - before.memory_bytes as f64) / f64::from(count);
    let cpu = (idle.cpu - before.cpu).as_secs_f64();
    let mut row = |metric: &str, value: f64, unit: &'static str| {
        report.row(Row::new("relay", metric, value, unit).scenario("idle").mode(format!("{count} devices")))
    };
    row("memory per connection", per_connection / 1e3, "kB")?;
    row("memory, empty", before.memory_bytes as f64 / 1e6, "MB")?;
    row("memory, connected", idle.memory_bytes as f64 / 1e6, "MB")?;
    row("processor time per device", cpu * 1e3 / f64::from(count), "ms")?;
    row("all connected after", took.as_secs_f64(), "s")
}
