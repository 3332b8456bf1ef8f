//! The programs themselves, each its own process, killed in the middle: nothing is lost or shown twice.

#![allow(clippy::unwrap_used, reason = "a process that cannot be started fails its test")]

use std::fs;
use std::io::{BufRead, BufReader, Lines};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use tempfile::TempDir;

const LINES: usize = 200;

/// A process that does not outlive the test.
struct Process {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Process {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    fn line(&mut self) -> String {
        self.lines.next().expect("the process goes on").unwrap()
    }

    /// SIGKILL, on Unix: no handler runs, nothing is flushed.
    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Town {
    folder: TempDir,
    bin: PathBuf,
    address: String,
    relay: Option<Process>,
}

impl Town {
    /// A relay that runs, and Ann and Bob, who know each other.
    fn new() -> Self {
        let exe = std::env::current_exe().unwrap();
        let bin = exe.parent().and_then(Path::parent).unwrap().to_owned();
        assert!(bin.join("gateway").exists(), "build the programs first: cargo build --workspace");
        let folder = tempfile::tempdir().unwrap();
        let mut town = Self { folder, bin, address: "127.0.0.1:0".to_owned(), relay: None };
        town.start_relay();
        for name in ["ann", "bob"] {
            let invite =
                town.text(Command::new(town.bin.join("gateway")).args(["invite", "--data"]).arg(town.data()));
            town.text(town.thinpost(name).args(["init", &invite]));
        }
        for (who, other) in [("ann", "bob"), ("bob", "ann")] {
            let ticket = town.text(town.thinpost(other).arg("ticket"));
            town.text(town.thinpost(who).args(["contact", "add", other, &ticket]));
        }
        town
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("relay")
    }

    fn start_relay(&mut self) {
        let mut command = Command::new(self.bin.join("gateway"));
        command.args(["run", "--listen", &self.address, "--data"]).arg(self.data());
        let mut relay = Process::start(&mut command);
        let first = relay.line();
        self.address = first.strip_prefix("listening on ").unwrap().to_owned();
        self.relay = Some(relay);
    }

    fn kill_relay(&mut self) {
        self.relay.take().unwrap().kill();
    }

    fn thinpost(&self, name: &str) -> Command {
        let mut command = Command::new(self.bin.join("thinpost"));
        command.arg("--home").arg(self.folder.path().join(name));
        command
    }

    fn text(&self, command: &mut Command) -> String {
        let Output { status, stdout, stderr } = command.output().unwrap();
        assert!(status.success(), "{command:?}: {}", String::from_utf8_lossy(&stderr));
        String::from_utf8(stdout).unwrap().trim().to_owned()
    }

    /// Bob's listener, which prints what stands in his inbox after this number.
    fn listen(&self, after: usize) -> Process {
        let mut command = self.thinpost("bob");
        command.args(["listen", "--json", "--keepalive", "1s", "--after", &after.to_string()]);
        Process::start(&mut command)
    }

    fn send(&self, lines: &Path) -> Process {
        Process::start(self.thinpost("ann").args(["send", "bob", "--for", "60s", "--lines"]).arg(lines))
    }
}

/// The texts of real people, from the corpora of the repository.
fn texts() -> Vec<String> {
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
