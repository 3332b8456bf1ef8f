//! Whoever does not read what a program says does not keep it from anything else.

#![cfg(unix)]
#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use thinpost_client::ticket::RelayTicket;
use thinpost_client::{Home, MemoryStorage, RelayKey};

/// A home whose relay nobody runs, with a contact.
fn home(folder: &Path) -> std::path::PathBuf {
    let home = folder.join("home");
    let relay = RelayTicket { key: RelayKey([5; 32]), addresses: vec!["192.0.2.1:4433".parse().unwrap()] };
    let ticket = relay.to_string().parse().unwrap();
    Home::create(&home, &ticket).unwrap();
    let bob = Home::create_seeded(MemoryStorage::new(), &ticket, 1).unwrap();
    assert!(thinpost(&home, &["contact", "add", "bob", &bob.to_string()]).status().unwrap().success());
    home
}

fn thinpost(home: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_thinpost"));
    command.arg("--home").arg(home).args(args);
    command.env_remove("THINPOST_LOG").env_remove("THINPOST_PASSPHRASE_FILE");
    command
}

/// More than the pipes hold, and what they lead to.
const REQUESTS: usize = 3_000;

/// `rpc` that was asked so much that its answers fill the pipe.
fn asked(home: &Path) -> Child {
    let mut rpc = thinpost(home, &["rpc"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut requests = rpc.stdin.take().unwrap();
    for n in 0..REQUESTS {
        writeln!(requests, r#"{{"jsonrpc":"2.0","id":{n},"method":"status","params":{{}}}}"#).unwrap();
    }
    // Otherwise it would end.
    rpc.stdin = Some(requests);
    rpc
}

#[test]
fn requests_are_read_though_nobody_reads_the_answers() {
    let folder = tempfile::tempdir().unwrap();
    let mut rpc = asked(&home(folder.path()));
    drop(rpc.stdin.take());
    let answers = BufReader::new(rpc.stdout.take().unwrap()).lines();
    let ids = answers.map(|line| {
        serde_json::from_str::<serde_json::Value>(&line.unwrap()).unwrap()["id"].as_u64().unwrap() as usize
    });
    assert!(ids.eq(0..REQUESTS));
    assert!(rpc.wait().unwrap().success());
}

#[test]
fn a_signal_ends_a_program_that_nobody_reads() {
    let folder = tempfile::tempdir().unwrap();
    let mut rpc = asked(&home(folder.path()));
    let kill = Command::new("kill").args(["-s", "TERM", &rpc.id().to_string()]).status().unwrap();
    assert!(kill.success());
    assert!(rpc.wait().unwrap().success());
}

#[test]
fn a_message_that_was_taken_is_taken_though_that_cannot_be_said() {
    let folder = tempfile::tempdir().unwrap();
    let home = home(folder.path());
    let full = File::options().write(true).open("/dev/full").unwrap();
    let send = thinpost(&home, &["send", "--offline", "bob", "hello"]).stdout(full).output().unwrap();
    let said = String::from_utf8(send.stderr).unwrap();
    assert_eq!(send.status.code(), Some(74));
    assert!(said.starts_with("thinpost: 1 message queued; standard output: "), "{said}");
    let status = thinpost(&home, &["status", "--json"]).output().unwrap();
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status["waiting"], 1);
}
