//! What cannot work is said in one line, with an exit code for scripts.

use std::process::Command;

use thinpost_client::RelayKey;
use thinpost_client::ticket::RelayTicket;

use crate::town::{Town, failure, output};

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
    let status = town.status("carol");
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
    town.start_relay_with(&["--new-store"]);
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
