//! All that a relay holds after a talk, its disk and its log at every level, says nothing of what was said.

use std::fs::{self, File};

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
