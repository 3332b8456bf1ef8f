//! Real processes kill themselves, as by `kill -9`, at crash points around sealing, sending and receiving.

use std::process::Command;

use thinpost_client::{Client, InboxNumber, ReceivedContent};

use crate::town::Town;

/// Kills in a run of the tests; the full volume is `THINPOST_TEST_KILLS=1000 cargo test --test processes points`.
const KILLS: u32 = 40;

/// The crash points that a command passes are fewer.
const POINTS: u32 = 14;

struct Talk {
    town: Town,
    kills: u32,
    /// What was sent to each.
    sent: [Vec<String>; 2],
}

const NAMES: [&str; 2] = ["ann", "bob"];

impl Talk {
    /// Runs a command that is killed at a crash point, if it passes so many.
    fn run_to(&mut self, at: u32, command: &mut Command) {
        let output = command.env("THINPOST_CRASH_AT", at.to_string()).output().unwrap();
        let killed = std::os::unix::process::ExitStatusExt::signal(&output.status) == Some(9);
        assert!(killed || output.status.success(), "{command:?}: {:?}", output.status);
        self.kills += u32::from(killed);
    }

    fn sync(&self, who: usize) -> Command {
        let mut command = self.town.thinpost(NAMES[who]);
        command.args(["sync", "--for", "60s"]);
        command
    }

    fn status(&self, who: usize) -> serde_json::Value {
        self.town.status(NAMES[who])
    }

    /// Sends a message, and again if the first time it did not get as far as the disk.
    fn send(&mut self, from: usize, at: u32) {
        let to = 1 - from;
        let text = format!("{} {}", NAMES[from], self.sent[to].len());
        self.sent[to].push(text.clone());
        let mut send = self.town.thinpost(NAMES[from]);
        self.run_to(at, send.args(["send", NAMES[to], &text, "--for", "60s"]));
        let status = self.status(from);
        let written: u64 = ["waiting", "custody", "failed"].iter().map(|n| status[n].as_u64().unwrap()).sum();
        if written < self.sent[to].len() as u64 {
            self.town.text(self.town.thinpost(NAMES[from]).args(["send", NAMES[to], &text, "--for", "60s"]));
        }
    }

    fn inbox(&self, who: usize) -> Vec<String> {
        let folder = self.town.folder.path().join(NAMES[who]);
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let inbox = runtime.block_on(async {
            let client = Client::builder(&folder).open().unwrap();
            let inbox = client.inbox(InboxNumber(0), usize::MAX).await.unwrap();
            client.close().await;
            inbox
        });
        let text = |content| match content {
            ReceivedContent::Text(text) => text,
            other => panic!("{other:?}"),
        };
        inbox.into_iter().map(|message| text(message.content)).collect()
    }
}

#[test]
fn processes_killed_at_crash_points_lose_and_repeat_nothing() {
    let kills = std::env::var("THINPOST_TEST_KILLS").map_or(KILLS, |kills| kills.parse().unwrap());
    let mut talk = Talk { town: Town::new(), kills: 0, sent: Default::default() };
    for round in 0.. {
        assert!(
            round < 20 * kills,
            "no crash points: the programs are to be built with all of the workspace"
        );
        let (from, to) = if round % 3 == 2 { (1, 0) } else { (0, 1) };
        let at = |step: u32| 1 + (round * 5 + step * 3) % POINTS;
        talk.send(from, at(0));
        let mut sync = talk.sync(from);
        talk.run_to(at(1), &mut sync);
        let mut sync = talk.sync(to);
        talk.run_to(at(2), &mut sync);
        if talk.kills >= kills {
            break;
        }
    }
    for _ in 0..2 {
        for who in 0..2 {
            talk.town.text(&mut talk.sync(who));
        }
    }
    for (who, name) in NAMES.iter().enumerate() {
        assert_eq!(talk.inbox(who), talk.sent[who], "{name}");
        let status = talk.status(who);
        assert_eq!((&status["waiting"], &status["failed"]), (&0.into(), &0.into()), "{name}");
    }
    println!("{} kills, {} messages: 0 lost, 0 shown twice", talk.kills, talk.sent.concat().len());
}
