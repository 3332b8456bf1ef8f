//! The relay that is measured: this program again, as a child.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use quinn::{Runtime, TokioRuntime};
use tempfile::TempDir;
use thinpost_carrier::Identity;
use thinpost_gateway::config::{Config, Registration};
use thinpost_gateway::invite::Invites;
use thinpost_gateway::store::{CommitMode, RedbStore};
use thinpost_gateway::{Relay, RelayParts};
use thinpost_wire::ids::RelayKey;
use thinpost_wire::ticket::RelayTicket;

/// Runs the relay that `bench relay` measures, until its standard input ends.
#[derive(Args, Debug)]
pub(crate) struct ServeArgs {
    /// Where its store is
    #[arg(long)]
    data: PathBuf,
    /// Most connections
    #[arg(long)]
    connections: u32,
}

/// The relay lives for one measurement, on loopback: its keys need not be secret.
fn identity() -> Identity {
    Identity::from_seed([0xb0; 32])
}

/// What `gateway run` does, for anybody on this machine: says where it listens, and stays.
///
/// # Errors
/// When it cannot start.
pub(crate) fn serve(args: &ServeArgs) -> Result<()> {
    let mut config = Config::default();
    config.registration = Registration::Open;
    config.limits.connections_max = args.connections as usize + 100;
    // All devices come from one address, at once.
    config.limits.address.connections_burst = args.connections + 100;
    let store = RedbStore::open(&args.data.join("store.redb"), config.store_config())?;
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).context("no socket")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let quic = Arc::new(TokioRuntime);
        let relay = Relay::start(RelayParts {
            identity: identity(),
            reset_key: [0xb1; 32],
            invites: Invites::new([0xb2; 32]),
            config,
            store: Arc::new(store),
            socket: quic.wrap_udp_socket(socket)?,
            runtime: quic,
            commit_mode: CommitMode::Blocking,
            rng_seed: None,
            unix_time_s: Arc::new(|| 0),
        })?;
        println!("{}", relay.local_addr()?);
        tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
        relay.shutdown().await;
        anyhow::Ok(())
    })
}

/// A running child, ended when dropped.
pub(crate) struct Child {
    process: std::process::Child,
    /// Removed at the end.
    _data: TempDir,
    pub(crate) ticket: RelayTicket,
}

/// What a process has taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    /// Resident memory, bytes.
    pub(crate) memory_bytes: u64,
    /// Processor time, of all threads.
    pub(crate) cpu: Duration,
}

impl Child {
    /// Starts a relay for so many connections.
    ///
    /// # Errors
    /// When it does not start.
    pub(crate) fn start(connections: u32) -> Result<Self> {
        let data = tempfile::tempdir().context("no temporary folder")?;
        let program = std::env::current_exe().context("this program is not to be found")?;
        let mut process = Command::new(program)
            .args(["serve", "--connections", &connections.to_string(), "--data"])
            .arg(data.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("the relay cannot be started")?;
        let mut line = String::new();
        let stdout = process.stdout.take().context("the relay has no output")?;
        BufReader::new(stdout).read_line(&mut line)?;
        let address: SocketAddr = line.trim().parse().context("the relay did not say where it listens")?;
        let ticket = RelayTicket { key: RelayKey(identity().public()), addresses: vec![address] };
        Ok(Self { process, _data: data, ticket })
    }

    /// What it has taken so far.
    ///
    /// # Errors
    /// Where there is no `/proc`.
    pub(crate) fn usage(&self) -> Result<Usage> {
        let folder = PathBuf::from(format!("/proc/{}", self.process.id()));
        let read = |file: &str| {
            fs::read_to_string(folder.join(file)).context("a process can be measured on Linux only")
        };
        let status = read("status")?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kibibytes: u64 =
            resident.and_then(|value| value.split_whitespace().next()).context("no VmRSS")?.parse()?;
        // Nanoseconds on a processor, for each thread: /proc/PID/stat counts in hundredths of a second.
        let mut cpu_ns = 0;
        for task in fs::read_dir(folder.join("task"))? {
            let schedstat = fs::read_to_string(task?.path().join("schedstat"))?;
            cpu_ns += schedstat.split_whitespace().next().context("no schedstat")?.parse::<u64>()?;
        }
        ensure!(kibibytes > 0, "the relay has ended");
        Ok(Usage { memory_bytes: kibibytes * 1024, cpu: Duration::from_nanos(cpu_ns) })
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
