//! All that a relay holds after a talk, its disk and its log at every level, says nothing of what was said; nor does the log of a client.

use std::fs::{self, File, OpenOptions};
use std::path::Path;
use std::process::Command;

use thinpost_client::ticket::{ContactTicket, Ticket};
use thinpost_gateway::folder::Folder;
use thinpost_wire::letter::{Content, Letter, Way};
use thinpost_wire::text::{Favourite, ModelName, ModelSet, Models, NUMBERS};
use thinpost_wire::token::MailboxSecret;

use crate::kills::texts;
use crate::town::{Process, Town};

/// As long as a key is at least, bytes: longer than QUIC's ids of connections.
const KEY_BYTES: usize = 24;

/// A name that stands nowhere by chance.
const NAME: &str = "my dear friend Robert";

#[test]
fn neither_the_disk_nor_the_log_of_a_relay_holds_a_text_or_a_contacts_name() {
    let mut town = Town::new();
    town.kill_relay();
    let log = town.folder.path().join("log");
    let mut relay = town.gateway("run");
    relay.args(["--listen", &town.address]).env("RUST_LOG", "trace").stderr(File::create(&log).unwrap());
    let mut relay = Process::start(&mut relay);
    relay.address();

    let invite = town.text(&mut town.gateway("invite"));
    town.text(town.thinpost("carol").args(["init", &invite]));
    let carol = town.text(town.thinpost("carol").arg("ticket"));
    let bob = town.text(town.thinpost("bob").args(["ticket", "--for", NAME]));
    town.text(town.thinpost("ann").args(["contact", "remove", "bob"]));
    town.text(town.thinpost("ann").args(["contact", "add", NAME, &bob]));
    let lines = town.folder.path().join("lines");
    fs::write(&lines, texts().join("\n")).unwrap();
    town.text(town.thinpost("ann").args(["send", NAME, "--lines"]).arg(&lines));
    // Half of it is fetched and half waits.
    town.text(town.thinpost("bob").args(["sync", "--for", "20s"]));
    town.text(town.thinpost("bob").args(["send", "ann", "I have read it all, thank you very much"]));
    town.text(town.thinpost("ann").args(["send", NAME, "--lines"]).arg(&lines));
    relay.kill();

    let store = fs::read(town.data().join("store.redb")).unwrap();
    let log = fs::read(&log).unwrap();
    assert!(store.len() > 20_000 && log.len() > 20_000, "{} and {} bytes", store.len(), log.len());
    // Nor which device submitted what: no number of an envelope, and no place in a mailbox, stands beside a device.
    let lines = String::from_utf8_lossy(&log);
    assert!(!lines.contains("Incarnation(") && !lines.contains("Position("), "the log leads to a sender");
    let mut secrets = texts();
    secrets.extend([NAME.to_owned(), "thank you very much".to_owned()]);
    // Short texts may stand anywhere by chance.
    for secret in secrets.iter().map(String::as_bytes).filter(|secret| secret.len() >= 8) {
        for (place, held) in [("disk", &store), ("log", &log)] {
            let found = held.windows(secret.len()).any(|window| window == secret);
            assert!(!found, "the {place} holds {:?}", String::from_utf8_lossy(secret));
        }
    }
    // Nor what lets anybody in, or opens anything.
    let keys = keys_of(&town, &store, &invite, [&bob, &carol]);
    for (whose, key) in &keys {
        let found = shapes(key).iter().any(|shape| log.windows(shape.len()).any(|window| window == shape));
        assert!(!found, "the log holds {whose}");
    }
    assert!(longest_key(&lines).is_none(), "the log holds a key, whosever it is, as of a TLS session");
    // What may be seen is found this way.
    assert!(lines.contains("127.0.0.1:"), "at trace, where packets came from");
    let visible = "the weather is fine in Lisbon";
    let quiet = town.folder.path().join("quiet");
    let mut relay = town.gateway("run");
    relay.args(["--listen", &town.address]).env_remove("RUST_LOG").stderr(File::create(&quiet).unwrap());
    let mut relay = Process::start(&mut relay);
    relay.address();
    town.text(town.thinpost("ann").args(["send", NAME, "--relay-visible", visible]));
    relay.kill();
    assert_eq!(fs::read_to_string(&quiet).unwrap(), "", "by default: nobody's address, nor anything else");
    let store = fs::read(town.data().join("store.redb")).unwrap();
    let models = Models::compiled_in();
    let under = |number| {
        let mut recipient_has = ModelSet::default();
        recipient_has.insert(ModelName::Number(number));
        let favourite = &mut Favourite::default();
        let way = Way::Open { models: &models, recipient_has: &recipient_has, favourite };
        Letter { app_id: None, content: Content::Text(visible.into()) }.encode(way).unwrap()
    };
    let is_there = |letter: &Vec<u8>| store.windows(letter.len()).any(|window| window == letter);
    let mut letters = (0..NUMBERS).map(under).filter(|letter| letter.len() < visible.len());
    assert!(letters.any(|letter| is_there(&letter)), "it is under a model that anybody may have");
}

/// All that a relay has or is told and that must stay with it: its key and what is made of it, an invite, what tickets let in by, and
/// what their tokens are made under.
fn keys_of(town: &Town, store: &[u8], invite: &str, tickets: [&str; 2]) -> Vec<(&'static str, Vec<u8>)> {
    let folder = Folder::open(&town.data()).unwrap();
    let seed = fs::read_to_string(folder.key_path()).unwrap();
    let seed: Vec<_> = (0..32).map(|n| u8::from_str_radix(&seed[2 * n..][..2], 16).unwrap()).collect();
    let Ticket::Invite(invite) = invite.parse().unwrap() else { panic!("{invite}") };
    let reset_key = folder.keys().unwrap().reset_key().to_vec();
    let mut keys =
        vec![("its key", seed), ("its key for resets", reset_key), ("an invite", invite.token.mac.to_vec())];
    for ticket in tickets {
        let token = contact(ticket).token;
        keys.push(("a token", token.0[4..].to_vec()));
        // Nothing but the relay's disk and the home holds it; what it is shows in what it makes.
        let secrets = store.windows(32).map(|window| MailboxSecret(window.try_into().unwrap()));
        let secret = secrets.into_iter().find(|secret| token.is_of(secret)).expect("the relay looks it up");
        keys.push(("a mailbox's secret", secret.0.to_vec()));
    }
    keys
}

fn contact(ticket: &str) -> ContactTicket {
    match ticket.parse().unwrap() {
        Ticket::Contact(contact) => contact,
        other => panic!("{other:?}"),
    }
}

/// What stands in a log and is as long as a key: so many hex digits in a row, or numbers of a byte in a list.
fn longest_key(log: &str) -> Option<&str> {
    let is_hex = |c: char| c.is_ascii_hexdigit();
    let hex = log.split(|c| !is_hex(c)).find(|run| run.len() >= 2 * KEY_BYTES);
    let is_list = |c: char| c.is_ascii_digit() || ", \n".contains(c);
    let count = |list: &str| list.split(',').filter(|n| n.trim().parse::<u8>().is_ok()).count();
    hex.or_else(|| log.split(|c| !is_list(c)).find(|list| count(list) >= KEY_BYTES))
}

#[test]
fn a_key_is_known_by_its_length() {
    let key: Vec<u8> = (100..132).collect();
    let [_, upper, lower, list] = shapes(&key).map(|shape| String::from_utf8_lossy(&shape).into_owned());
    for shape in [upper, lower, list, format!("{key:#?}")] {
        assert!(longest_key(&format!("a log that says key={shape} in passing")).is_some(), "{shape}");
    }
    assert_eq!(longest_key("from 127.0.0.1:4433, device 0123456789abcdef, [1, 2, 3]"), None);
}

/// A command of a person's that adds all it can say to this log.
fn tracing(town: &Town, name: &str, log: &Path) -> Command {
    let mut command = town.thinpost(name);
    let log = OpenOptions::new().create(true).append(true).open(log).unwrap();
    command.env("THINPOST_LOG", "trace").stderr(log);
    command
}

/// What such a command prints.
fn said(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {:?}", output.status);
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// How bytes may stand in a log: as they are, in hex, and as a list.
fn shapes(secret: &[u8]) -> [Vec<u8>; 4] {
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let list = format!("{secret:?}");
    let list = list.trim_matches(['[', ']']).to_owned();
    [secret.to_owned(), hex.to_uppercase().into_bytes(), hex.into_bytes(), list.into_bytes()]
}

#[test]
fn the_log_of_a_client_holds_no_text_no_name_and_no_key() {
    const PASSPHRASE: &str = "nobody guesses these four words";
    let town = Town::new();
    let folder = town.folder.path();
    let log = folder.join("log");
    let ann = |args: &[&str]| said(tracing(&town, "ann", &log).args(args));
    let carol = |args: &[&str]| {
        let passphrase = folder.join("passphrase");
        fs::write(&passphrase, PASSPHRASE).unwrap();
        said(tracing(&town, "carol", &log).arg("--passphrase-file").arg(passphrase).args(args))
    };

    let invite = town.text(&mut town.gateway("invite"));
    carol(&["init", &invite]);
    let for_carol = ann(&["ticket", "--for", NAME]);
    let for_ann = carol(&["ticket", "--for", "ann"]);
    ann(&["contact", "add", NAME, &for_ann]);
    carol(&["contact", "add", "ann", &for_carol]);
    let texts = texts();
    let lines = folder.join("lines");
    fs::write(&lines, texts.join("\n")).unwrap();
    ann(&["send", NAME, "--lines", lines.to_str().unwrap()]);
    carol(&["sync", "--for", "20s"]);
    carol(&["send", "ann", "I have read it all, thank you very much"]);
    carol(&["send", "ann", "--relay-visible", "the weather is fine in Lisbon"]);
    ann(&["sync", "--for", "20s"]);
    let mut listener = Process::start(tracing(&town, "ann", &log).args(["listen", "--json", "--mark-read"]));
    assert!(listener.line().contains("thank you very much"));
    assert!(listener.line().contains("Lisbon"));
    listener.kill();
    ann(&["ticket", "revoke", NAME]);

    let log = fs::read(&log).unwrap();
    assert!(log.len() > 100_000, "{} bytes", log.len());
    let mut secrets: Vec<_> = texts.into_iter().map(String::into_bytes).collect();
    let said = [NAME, PASSPHRASE, "thank you very much", "the weather is fine in Lisbon"];
    secrets.extend(said.map(|text| text.as_bytes().to_owned()));
    // A home without a passphrase holds its key as it is, between four bytes and one, and eight.
    let key = fs::read(folder.join("ann").join("client.key")).unwrap();
    assert_eq!(key.len(), 5 + 32 + 8);
    secrets.extend(shapes(&key[5..37]));
    for ticket in [&invite, &for_carol, &for_ann] {
        secrets.push(ticket.clone().into_bytes());
        secrets.extend(match ticket.parse().unwrap() {
            Ticket::Invite(invite) => shapes(&invite.token.mac),
            Ticket::Contact(contact) => shapes(&contact.token.0[4..]),
            other => panic!("{other:?}"),
        });
    }
    // Short texts may stand anywhere by chance.
    for secret in secrets.iter().filter(|secret| secret.len() >= 8) {
        let found = log.windows(secret.len()).any(|window| window == secret);
        assert!(!found, "the log holds {:?}", String::from_utf8_lossy(secret));
    }
    // What may be seen is found this way.
    let account = |ticket: &String| match ticket.parse().unwrap() {
        Ticket::Contact(contact) => contact.account.0,
        other => panic!("{other:?}"),
    };
    let start = &shapes(&account(&for_carol)[..8])[2];
    assert!(log.windows(start.len()).any(|window| window == start), "the account of whoever speaks");
}
