//! All that a relay holds after a talk, its disk and its log at every level, says nothing of what was said; nor does the log of a client.

use std::fs::{self, File, OpenOptions};
use std::path::Path;
use std::process::Command;

use thinpost_client::ticket::Ticket;
use thinpost_wire::letter::{Content, Letter, Way};
use thinpost_wire::text::{Favourite, ModelName, ModelSet, Models, NUMBERS};

use crate::kills::texts;
use crate::town::{Process, Town};

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
    // What may be seen is found this way.
    let visible = "the weather is fine in Lisbon";
    let mut relay = Process::start(town.gateway("run").args(["--listen", &town.address]));
    relay.address();
    town.text(town.thinpost("ann").args(["send", NAME, "--relay-visible", visible]));
    relay.kill();
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
