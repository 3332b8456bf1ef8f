//! Whatever is killed in the middle: nothing is lost or shown twice.

use std::fs;
use std::path::Path;

use crate::town::{Process, Town};

const LINES: usize = 200;

/// The texts of real people, from the corpora of the repository.
pub(crate) fn texts() -> Vec<String> {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("../bench/corpora/demo");
    let [english, russian] = ["en-chat.txt", "ru-social.txt"].map(|file| {
        fs::read_to_string(corpora.join(file)).unwrap().lines().map(str::to_owned).collect::<Vec<_>>()
    });
    english.into_iter().zip(russian).flat_map(|(english, russian)| [english, russian]).take(LINES).collect()
}

/// Sends everything while something is killed after so many lines, and reads it all.
fn read_all(
    town: &mut Town,
    mut at: impl FnMut(&mut Town, &mut Process, &mut Process, usize),
) -> Vec<String> {
    let lines = town.folder.path().join("lines.txt");
    fs::write(&lines, texts().join("\n")).unwrap();
    let mut listener = town.listen(0);
    let mut sender = town.send(&lines);
    let mut read = Vec::new();
    while read.len() < LINES {
        let line: serde_json::Value = serde_json::from_str(&listener.line()).unwrap();
        assert_eq!(line["n"], read.len() + 1, "inbox numbers have no gaps");
        assert_eq!(line["from"], "ann");
        read.push(line["text"].as_str().unwrap().to_owned());
        at(town, &mut listener, &mut sender, read.len());
    }
    read
}

#[test]
fn a_relay_that_is_killed_and_restarted_loses_and_repeats_nothing() {
    let mut town = Town::new();
    let read = read_all(&mut town, |town, _, _, count| {
        if [1, 60, 130].contains(&count) {
            town.kill_relay();
            town.start_relay();
        }
    });
    assert_eq!(read, texts());
}

#[test]
fn a_recipient_that_is_killed_and_restarted_misses_and_repeats_nothing() {
    let mut town = Town::new();
    let read = read_all(&mut town, |town, listener, _, count| {
        if [1, 33, 100, 199].contains(&count) {
            listener.kill();
            *listener = town.listen(count);
        }
    });
    assert_eq!(read, texts());
}

#[test]
fn a_sender_that_is_killed_goes_on_where_it_was() {
    let mut town = Town::new();
    let read = read_all(&mut town, |town, _, sender, count| {
        if count == 1 {
            sender.kill();
            *sender = Process::start(town.thinpost("ann").args(["sync", "--for", "60s"]));
        }
    });
    assert_eq!(read, texts());
}
