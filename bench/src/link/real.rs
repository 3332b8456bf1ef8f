//! The same people behind real sockets: the `gateway` program in a network namespace, clients with homes on disk.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use thinpost_client::ticket::{RelayTicket, Ticket};
use thinpost_client::{Client, Home};
use thinpost_netem::rungs::{RELAY, Rung, Site, Sockets};
use thinpost_netem::{PathCounters, Profile};

use super::place::RealPlace;

/// Where the relay listens.
const PORT: u16 = 4_433;

struct Namespaces {
    ann: Client,
    bob: Client,
    // In this order: the relay ends before its host does, and its folder goes last.
    _relay: Relay,
    site: Site,
    _folder: TempDir,
}

/// A program that does not outlive its place.
struct Relay {
    process: Child,
    /// A relay that has nowhere to print its ticket to ends.
    _stdout: BufReader<ChildStdout>,
}

impl Relay {
    /// Starts it, and waits until it listens.
    fn start(command: &mut Command) -> Result<Self> {
        let mut process = command.stdout(Stdio::piped()).spawn()?;
        let mut stdout = BufReader::new(process.stdout.take().context("the relay's output")?);
        let mut line = String::new();
        let read = stdout.read_line(&mut line);
        let relay = Self { process, _stdout: stdout };
        read?;
        ensure!(line.starts_with("listening on "), "the relay does not start: {line:?}");
        Ok(relay)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// As in virtual time: a relay, Ann behind the thin link, Bob on the relay's own host.
pub(crate) fn place(rung: Rung, link: &Profile, seed: u64) -> Result<Box<dyn RealPlace>> {
    let site = Site::new(rung, link, seed)?;
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("relay");
    let program = std::env::current_exe()?.with_file_name("gateway");
    ensure!(program.exists(), "{} is missing: build the programs first", program.display());
    let gateway = |mut command: Command, what: &str| {
        command.arg(what).arg("--data").arg(&data).stdin(Stdio::null());
        command
    };
    // It ends with this process, however that ends.
    let mut held = site.relay().command("setpriv");
    held.args(["--pdeathsig", "KILL"]).arg(&program);
    let mut run = gateway(held, "run");
    let at = |ip: Ipv4Addr| SocketAddr::from((ip, PORT));
    run.args(["--listen", &format!("0.0.0.0:{PORT}"), "--registration", "open", "--no-qr"]);
    run.args(["--advertise", &at(RELAY).to_string()]);
    let relay = Relay::start(&mut run)?;

    let mut ticket = gateway(Command::new(&program), "ticket");
    let ticket = ticket.args(["--advertise", &at(RELAY).to_string(), "--no-qr"]).output()?;
    let ticket: Ticket = String::from_utf8(ticket.stdout)?.trim().parse().context("the relay's ticket")?;
    let Ticket::Relay(ticket) = ticket else { anyhow::bail!("a relay's ticket is another one") };
    let open = |name: &str, host, relay: Ipv4Addr| -> Result<Client> {
        let home = folder.path().join(name);
        let ticket = RelayTicket { addresses: vec![at(relay)], ..ticket.clone() };
        Home::create(&home, &Ticket::Relay(ticket))?;
        Ok(Client::builder(&home).network(Arc::new(Sockets(host))).open()?)
    };
    let ann = open("ann", site.phone().clone(), RELAY)?;
    let bob = open("bob", site.relay().clone(), Ipv4Addr::LOCALHOST)?;
    Ok(Box::new(Namespaces { ann, bob, _relay: relay, site, _folder: folder }))
}

impl RealPlace for Namespaces {
    fn ann(&self) -> &Client {
        &self.ann
    }

    fn bob(&self) -> &Client {
        &self.bob
    }

    fn counters(&self) -> Result<PathCounters> {
        Ok(self.site.counters()?)
    }
}
