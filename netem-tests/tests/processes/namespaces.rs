//! The programs on hosts of their own, with a thin link between them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use thinpost_netem::Profile;
use thinpost_netem::rungs::{Namespace, PHONE, RELAY, Rung, Site};

use crate::town::{Process, Town, skipped};

/// Much longer than anything here takes.
const LONG: Duration = Duration::from_secs(180);

const PORT: u16 = 4_433;

/// A link of this profile; `None` where that is forbidden.
fn site(link: &str) -> Option<Site> {
    let site = Site::new(Rung::Tun, &Profile::named(link).unwrap(), 1);
    site.inspect_err(|error| skipped(&error.to_string())).ok()
}

/// What the kernel says that a host's device has sent: packets and bytes.
fn sent(host: &Namespace) -> (u64, u64) {
    let mut command = host.command("ip");
    let said = command.args(["-json", "-statistics", "link", "show", "dev", "thin"]).output().unwrap();
    let said: serde_json::Value = serde_json::from_slice(&said.stdout).unwrap();
    let tx = &said[0]["stats64"]["tx"];
    (tx["packets"].as_u64().unwrap(), tx["bytes"].as_u64().unwrap())
}

/// The same command on another host, and not for ever.
fn on(host: &Namespace, command: &Command) -> Command {
    let mut there = host.command("timeout");
    // Whoever kills `timeout` would leave its program running.
    there.arg(LONG.as_secs().to_string()).args(["setpriv", "--pdeathsig", "KILL"]);
    there.arg(command.get_program()).args(command.get_args());
    there.stderr(Stdio::null());
    there
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_cross_a_link_between_two_hosts_and_every_byte_is_counted() {
    let Some(site) = site("gprs") else { return };
    tokio::task::spawn_blocking(move || talk(&site)).await.unwrap();
}

fn talk(site: &Site) {
    let town = Town::empty();
    let (phone, host) = (site.phone(), site.relay());
    let mut run = town.gateway("run");
    run.args(["--registration", "open", "--listen", &format!("0.0.0.0:{PORT}")]);
    let mut relay = Process::start(&mut on(host, &run));
    relay.address();
    let at = format!("{RELAY}:{PORT}");
    let ticket = town.text(town.gateway("ticket").args(["--advertise", &at]));
    for (name, home) in [("ann", phone), ("bob", host)] {
        town.text(&mut on(home, town.thinpost(name).args(["init", &ticket])));
    }
    let bob = town.text(town.thinpost("bob").args(["ticket", "--for", "ann"]));
    town.text(town.thinpost("ann").args(["contact", "add", "bob", &bob]));

    let texts: Vec<String> = (0..40).map(|n| format!("text {n} of forty")).collect();
    let lines = town.folder.path().join("lines");
    std::fs::write(&lines, texts.join("\n")).unwrap();
    town.text(&mut on(
        phone,
        town.thinpost("ann").args(["send", "bob", "--for", "120s", "--lines"]).arg(&lines),
    ));
    let mut listener = town.thinpost("bob");
    let mut listener = Process::start(&mut on(host, listener.args(["listen", "--json", "--after", "0"])));
    for text in &texts {
        let received: serde_json::Value = serde_json::from_str(&listener.line()).unwrap();
        assert_eq!(received["text"], text.as_str());
    }

    drop((listener, relay));
    // What is still on its way is answered by a host where nobody listens any more.
    std::thread::sleep(Duration::from_secs(2));
    let path = site.counters().unwrap();
    for (host, link) in [(phone, path.up), (host, path.down)] {
        assert_eq!((link.offered.packets, link.offered.ip_bytes), sent(host));
    }
    let bytes = path.up.offered.ip_bytes + path.down.offered.ip_bytes;
    assert!((4_000..20_000).contains(&bytes), "two connections and forty texts take {bytes} B");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_speaks_ip_crosses_the_link() {
    let Some(site) = site("edge") else { return };
    let exchange = move || {
        let listener = site.relay().within(|| TcpListener::bind((RELAY, 80))).unwrap();
        let mut caller = site.phone().within(|| TcpStream::connect((RELAY, 80))).unwrap();
        let (mut answering, from) = listener.accept().unwrap();
        answering.set_read_timeout(Some(LONG)).unwrap();
        assert_eq!(from.ip(), SocketAddr::from((PHONE, 0)).ip());
        caller.write_all(b"are you there?").unwrap();
        let mut heard = [0; 14];
        answering.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"are you there?");
        // A handshake, the text and what acknowledges it.
        let path = site.counters().unwrap();
        assert!(path.up.offered.packets >= 3 && path.down.offered.packets >= 1, "{path:?}");
    };
    tokio::task::spawn_blocking(exchange).await.unwrap();
}
