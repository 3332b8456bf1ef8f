//! The relay as a process of its own.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;
use thinpost_gateway::config::Config;
use thinpost_gateway::folder::Folder;
use thinpost_gateway::store::{RedbStore, StoreConfig};
use thinpost_wire::ticket::{RelayTicket, Ticket};

/// What every relay here is told: anybody may come in, and is held to the limits as they come.
const CONFIG: &str = "registration = \"open\"\n";

/// A running `gateway`, killed when dropped, with a folder that goes with it.
#[derive(Debug)]
pub struct Relay {
    program: PathBuf,
    folder: TempDir,
    process: Option<Child>,
    address: SocketAddr,
    ticket: RelayTicket,
    /// The most that any of its processes that have ended has taken.
    peak_bytes: u64,
}

impl Relay {
    /// Starts the program at this path in a temporary folder, on a free port of 127.0.0.1. `config` is added to the
    /// configuration.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(program: &Path, config: &str) -> Result<Self> {
        ensure!(program.exists(), "build it first: {} is not there", program.display());
        let folder = tempfile::tempdir().context("no temporary folder")?;
        fs::write(folder.path().join("relay.toml"), format!("{CONFIG}{config}"))?;
        let address = "127.0.0.1:0".parse()?;
        let ticket = RelayTicket { key: thinpost_wire::ids::RelayKey([0; 32]), addresses: Vec::new() };
        let mut relay =
            Self { program: program.to_owned(), folder, process: None, address, ticket, peak_bytes: 0 };
        relay.run()?;
        Ok(relay)
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.arg(name).arg("--config").arg(self.folder.path().join("relay.toml"));
        command
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn words(&self) -> PathBuf {
        self.folder.path().join("stderr")
    }

    /// Its data folder, to ask it there how it stands.
    ///
    /// # Errors
    /// When there is none.
    pub fn data_folder(&self) -> Result<Folder> {
        Ok(Folder::of_relay(&self.data())?)
    }

    /// Runs it again where it was.
    ///
    /// # Errors
    /// When it does not start.
    pub fn run(&mut self) -> Result<()> {
        let mut command = self.command("run");
        command.arg("--data").arg(self.data());
        command.arg("--listen").arg(self.address.to_string()).stdout(Stdio::piped());
        let stderr = File::options().create(true).append(true).open(self.words())?;
        let mut process = command.stderr(stderr).spawn()?;
        let stdout = process.stdout.take().context("it has an output")?;
        self.process = Some(process);
        let mut lines = BufReader::new(stdout).lines();
        let words = self.words();
        let mut line = || {
            let line = lines.next().with_context(|| format!("the relay has ended: {}", said(&words)))?;
            line.context("the relay says nothing")
        };
        let address = line()?;
        self.address = address.strip_prefix("listening on ").context("no address")?.parse()?;
        let Ticket::Relay(ticket) = line()?.parse()? else { bail!("no relay's ticket") };
        self.ticket = ticket;
        line()?;
        Ok(())
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How to reach it.
    pub fn ticket(&self) -> &RelayTicket {
        &self.ticket
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.process.as_mut().is_some_and(|process| process.try_wait().is_ok_and(|end| end.is_none())))
    }

    /// Lines on its standard error in which a thread of it has panicked, in any of its runs, also where it went on.
    pub fn panics(&self) -> Vec<String> {
        said(&self.words()).lines().filter(|line| line.contains("panicked at")).map(str::to_owned).collect()
    }

    /// The most memory that it has taken, resident, bytes (`VmHWM`).
    ///
    /// # Errors
    /// Where there is no `/proc`.
    pub fn peak_bytes(&self) -> Result<u64> {
        let Some(process) = &self.process else { return Ok(self.peak_bytes) };
        let status = fs::read_to_string(format!("/proc/{}/status", process.id()))?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
        let kibibytes: u64 = peak.split_whitespace().next().context("no number")?.parse()?;
        Ok(self.peak_bytes.max(kibibytes * 1024))
    }

    /// Datagrams that the system has lost at its socket, because it did not read them in time.
    ///
    /// # Errors
    /// Where there is no `/proc`.
    pub fn datagrams_lost(&self) -> Result<u64> {
        let table = fs::read_to_string("/proc/net/udp")?;
        let port = format!(":{:04X}", self.address.port());
        let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let mut own = rows.filter(|row| row.get(1).is_some_and(|local| local.ends_with(&port)));
        Ok(own.next().and_then(|row| row.last()?.parse().ok()).unwrap_or(0))
    }

    /// The processor time that it has taken, and how long its threads have waited for a processor, all together: much, where
    /// others keep the machine.
    ///
    /// # Errors
    /// Where there is no `/proc`.
    pub fn processor_time(&self) -> Result<[Duration; 2]> {
        let Some(process) = &self.process else { return Ok([Duration::ZERO; 2]) };
        // Nanoseconds, for each thread: /proc/PID/stat counts in hundredths of a second.
        let mut all = [0; 2];
        for task in fs::read_dir(format!("/proc/{}/task", process.id()))? {
            let schedstat = fs::read_to_string(task?.path().join("schedstat"))?;
            for (sum, number) in all.iter_mut().zip(schedstat.split_whitespace()) {
                *sum += number.parse::<u64>()?;
            }
        }
        Ok(all.map(Duration::from_nanos))
    }

    /// What holds for it, as `gateway check-config` prints it for this configuration.
    ///
    /// # Errors
    /// When that is none.
    pub fn config(&self) -> Result<Config> {
        Ok(Config::parse(&self.checked_config()?, Path::new("what check-config prints"))?)
    }

    fn checked_config(&self) -> Result<String> {
        let output = self.command("check-config").output()?;
        ensure!(output.status.success(), "check-config has failed");
        Ok(String::from_utf8(output.stdout)?)
    }

    /// The most that it may take, as `gateway check-config` prints it for this configuration, bytes.
    ///
    /// # Errors
    /// When it prints none.
    pub fn bound_bytes(&self) -> Result<u64> {
        let text = self.checked_config()?;
        let line =
            text.lines().find(|line| line.ends_with("the whole relay")).context("no bound is printed")?;
        Ok(line.split_whitespace().nth(1).context("no number")?.parse()?)
    }

    /// Ends it at once, as a crash does.
    ///
    /// # Errors
    /// When the system does not let it.
    pub fn kill(&mut self) -> Result<()> {
        self.peak_bytes = self.peak_bytes()?;
        if let Some(mut process) = self.process.take() {
            process.kill()?;
            process.wait()?;
        }
        Ok(())
    }

    /// Ends it in good order.
    ///
    /// # Errors
    /// When it has failed.
    pub fn stop(&mut self) -> Result<()> {
        self.peak_bytes = self.peak_bytes()?;
        if let Some(mut process) = self.process.take() {
            let told = Command::new("kill").args(["-s", "TERM", &process.id().to_string()]).status()?;
            ensure!(told.success(), "the relay cannot be told to stop");
            let status = process.wait()?;
            ensure!(status.success(), "the relay has failed: {status}");
        }
        Ok(())
    }

    /// The store of a relay that has ended.
    ///
    /// # Errors
    /// When it cannot be opened, as while the relay runs.
    pub fn store(&self) -> Result<RedbStore> {
        ensure!(self.process.is_none(), "the relay has its store");
        Ok(RedbStore::open(&self.data().join("store.redb"), StoreConfig::default())?)
    }
}

/// What was written to this file.
fn said(words: &Path) -> String {
    fs::read(words).map_or_else(|error| error.to_string(), |said| String::from_utf8_lossy(&said).into_owned())
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}
