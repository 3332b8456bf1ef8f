//! What cannot work is said in one line, with an exit code for scripts.

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};

use thinpost_client::RelayKey;
use thinpost_client::ticket::RelayTicket;

use crate::town::{Process, Town, failure, output, skipped};

#[test]
fn a_key_without_an_invite_is_turned_away_and_leaves_no_home() {
    let town = Town::new();
    let ticket = town.text(&mut town.gateway("ticket"));
    let eve = output(town.thinpost("eve").args(["init", &ticket]));
    let expected = "thinpost: no home was made: the relay admits new accounts by invite only; \
                    its operator gives invites: `thinpost init INVITE`";
    assert_eq!(failure(&eve, 77), expected);
    assert!(!town.folder.path().join("eve").exists());
}

#[test]
fn a_ticket_with_another_relays_key_is_found_out() {
    let town = Town::new();
    let ticket = RelayTicket { key: RelayKey([7; 32]), addresses: vec![town.address.parse().unwrap()] };
    let eve = output(town.thinpost("eve").args(["init", &ticket.to_string()]));
    let expected = "thinpost: no home was made: the relay does not hold the key in its ticket";
    assert_eq!(failure(&eve, 76), expected);
    assert!(!town.folder.path().join("eve").exists());
}

#[test]
fn a_home_made_while_the_relay_was_away_takes_an_invite_later() {
    let mut town = Town::new();
    let relay = town.text(&mut town.gateway("ticket"));
    let bob = town.text(town.thinpost("bob").arg("ticket"));
    town.kill_relay();
    let made = town.text(town.thinpost("carol").args(["init", &relay, "--for", "100ms"]));
    assert!(made.starts_with("home made in "), "{made}");
    town.text(town.thinpost("carol").args(["contact", "add", "bob", &bob]));
    town.text(town.thinpost("carol").args(["send", "bob", "--offline", "let me in"]));
    town.start_relay();
    failure(&output(town.thinpost("carol").arg("sync")), 77);

    let other = RelayTicket { key: RelayKey([7; 32]), addresses: vec![town.address.parse().unwrap()] };
    let refused = failure(&output(town.thinpost("carol").args(["init", &other.to_string()])), 73);
    assert!(refused.ends_with("the ticket leads to another relay than the home's"), "{refused}");
    let invite = town.text(&mut town.gateway("invite"));
    town.text(town.thinpost("carol").args(["init", &invite]));
    town.text(town.thinpost("carol").arg("sync"));
    let status = town.text(town.thinpost("carol").args(["status", "--json"]));
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert_eq!((&status["custody"], &status["waiting"]), (&1.into(), &0.into()));
    let refused = failure(&output(town.thinpost("carol").args(["init", &invite])), 73);
    assert!(refused.ends_with("it has this ticket already"), "{refused}");
}

#[test]
fn a_home_that_its_relay_has_lost_is_let_in_again_with_an_invite() {
    let mut town = Town::empty();
    let config = town.folder.path().join("relay.toml");
    std::fs::write(&config, "registration = \"open\"\n").unwrap();
    town.start_relay_with(&["--config", config.to_str().unwrap()]);
    let ticket = town.text(&mut town.gateway("ticket"));
    town.text(town.thinpost("carol").args(["init", &ticket]));
    town.kill_relay();
    std::fs::remove_file(town.data().join("store.redb")).unwrap();
    town.start_relay();
    let refused = failure(&output(town.thinpost("carol").arg("sync")), 77);
    assert!(refused.contains("thinpost init INVITE"), "{refused}");
    let invite = town.text(&mut town.gateway("invite"));
    let renewed = town.text(town.thinpost("carol").args(["init", &invite]));
    assert!(renewed.contains("is as it was") && renewed.contains("registered at relay"), "{renewed}");
    town.text(town.thinpost("carol").arg("sync"));
}

#[test]
fn a_sync_that_leaves_messages_says_why() {
    let mut town = Town::new();
    town.kill_relay();
    let config = town.folder.path().join("relay.toml");
    std::fs::write(&config, "[mailbox]\nenvelopes_max = 2\n").unwrap();
    town.start_relay_with(&["--config", config.to_str().unwrap()]);
    for text in ["one", "two"] {
        town.text(town.thinpost("ann").args(["send", "bob", text]));
    }
    town.text(town.thinpost("ann").args(["send", "bob", "--offline", "three"]));
    let synced = output(town.thinpost("ann").args(["sync", "--for", "10s"]));
    assert_eq!(failure(&synced, 75), "thinpost: 1 message waiting; the recipient's mailbox is full");
    assert!(synced.stdout.starts_with(b"0 sent, 0 failed, 0 received, 1 waiting"), "{synced:?}");
}

#[cfg(unix)]
#[test]
fn a_relay_with_devices_on_line_stops_when_told_to() {
    let mut town = Town::new();
    let _listener = town.listen(0);
    town.text(town.thinpost("ann").args(["send", "bob", "are you there?"]));
    let mut relay = town.take_relay();
    let pid = relay.child.id().to_string();
    assert!(Command::new("kill").args(["-s", "TERM", &pid]).status().unwrap().success());
    assert_eq!(relay.child.wait().unwrap().code(), Some(0));
}

/// Runs what follows with a small disk at `folder`, that nobody else sees; `None` where that is forbidden.
fn on_a_small_disk(folder: &Path, kilobytes: u32) -> Option<Command> {
    std::fs::create_dir_all(folder).unwrap();
    let mount = format!("mount -t tmpfs -o size={kilobytes}k tmpfs \"$0\"");
    let within = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script]).arg(folder);
        command
    };
    let may = within(&mount).output().is_ok_and(|output| output.status.success());
    if !may {
        skipped("this machine gives no namespace with a disk of its own");
        return None;
    }
    Some(within(&format!("{mount} && exec \"$@\"")))
}

/// Lines that do not compress.
fn noise(lines: usize, length: usize) -> String {
    let mut state = 1u64;
    let mut letter = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'!' + (state >> 33) as u8 % 94)
    };
    (0..lines).map(|_| (0..length).map(|_| letter()).collect::<String>() + "\n").collect()
}

#[cfg(target_os = "linux")]
#[test]
fn a_relay_whose_disk_is_full_says_so_and_promises_nothing_more() {
    let mut town = Town::empty();
    let Some(mut relay) = on_a_small_disk(&town.data(), 2_048) else { return };
    relay.arg(town.program("gateway")).args(["run", "--registration", "open", "--listen", "127.0.0.1:0"]);
    let mut relay = Process::start(relay.arg("--data").arg(town.data()).stderr(Stdio::piped()));
    town.address = relay.address();
    let ticket = relay.line();
    for name in ["ann", "bob"] {
        town.text(town.thinpost(name).args(["init", &ticket]));
    }
    let bob = town.text(town.thinpost("bob").args(["ticket", "--for", "ann"]));
    town.text(town.thinpost("ann").args(["contact", "add", "bob", &bob]));
    let lines = town.folder.path().join("lines");
    std::fs::write(&lines, noise(60, 50_000)).unwrap();
    let mut sender = town.thinpost("ann");
    let mut sender = Process::start(sender.args(["send", "bob", "--for", "60s", "--lines"]).arg(&lines));

    let status = relay.child.wait().unwrap();
    let mut said = String::new();
    relay.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!((status.code(), said.as_str()), (Some(74), "gateway: the disk is full\n"));
    sender.kill();
    let status = town.text(town.thinpost("ann").args(["status", "--json"]));
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    let (custody, waiting) = (status["custody"].as_u64().unwrap(), status["waiting"].as_u64().unwrap());
    assert_eq!(custody + waiting, 60);
    assert!(custody * 50_000 < 2_048 * 1_024, "no more than the disk holds: {custody}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_home_whose_disk_is_full_says_so_and_queues_nothing_of_what_did_not_fit() {
    let town = Town::new();
    let home = town.folder.path().join("carol");
    let Some(mut shell) = on_a_small_disk(&home, 400) else { return };
    let lines = town.folder.path().join("lines");
    std::fs::write(&lines, noise(60, 50_000)).unwrap();
    let ticket = town.text(town.thinpost("bob").arg("ticket"));
    let invite = town.text(&mut town.gateway("invite"));
    // All in one shell, because the disk is gone with it.
    let script = "t=\"$0 --home $1\"; $t init \"$2\" >/dev/null && $t contact add bob \"$3\" >/dev/null \
                  && { $t send bob --offline --lines \"$4\"; code=$?; $t status --json; exit $code; }";
    shell.args(["sh", "-c", script]).arg(town.program("thinpost")).arg(&home).args([&invite, &ticket]);
    let carol = output(shell.arg(&lines));
    assert_eq!(failure(&carol, 74), "thinpost: the disk is full");
    let status: serde_json::Value = serde_json::from_slice(&carol.stdout).unwrap();
    assert_eq!(status["waiting"], 0, "all or none");
}
