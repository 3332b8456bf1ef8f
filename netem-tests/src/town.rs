//! A relay and two people, each a process, on this machine: for tests of the programs as they are. What a test cannot go on without
//! panics, and so does the end of a town in which a program did.

#![allow(clippy::unwrap_used, reason = "a process that cannot be started fails its test")]

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Lines};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

use tempfile::TempDir;

/// How a program of ours says that it panics.
const PANIC: &str = "panicked at";

/// Of what each process said on standard error, so many lines are told when a test fails.
const LAST_WORDS: usize = 10;

/// A process that does not outlive the test.
pub struct Process {
    /// The process itself.
    pub child: Child,
    lines: Option<Printed>,
}

/// What a process prints, line by line.
pub type Printed = Lines<BufReader<ChildStdout>>;

impl Process {
    /// Starts it, with its standard output to be read line by line.
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines: Some(lines) }
    }

    /// Waits for the next line of its standard output.
    pub fn line(&mut self) -> String {
        self.lines.as_mut().and_then(Iterator::next).expect("the process goes on").unwrap()
    }

    /// What it prints from here on, for another thread to read; only once.
    pub fn take_output(&mut self) -> Option<Printed> {
        self.lines.take()
    }

    /// Where a relay says that it listens.
    pub fn address(&mut self) -> String {
        self.line().strip_prefix("listening on ").unwrap().to_owned()
    }

    /// Whether it runs: it has neither ended by itself nor been killed.
    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// SIGKILL, on Unix: no handler runs, nothing is flushed.
    pub fn kill(&mut self) {
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

/// Where the programs were built that belong to this one.
pub fn programs() -> PathBuf {
    let exe = std::env::current_exe().unwrap();
    // A test is one folder below the programs.
    let bin = exe.ancestors().skip(1).take(2).find(|bin| bin.join("gateway").exists());
    bin.expect("build the programs first: cargo build --workspace").to_owned()
}

/// A relay and its people.
pub struct Town {
    /// Where the relay's data and the homes are.
    pub folder: TempDir,
    bin: PathBuf,
    /// Where the relay listens.
    pub address: String,
    relay: Option<Process>,
    /// What processes say on standard error: a file for each.
    said: TempDir,
    processes: AtomicU32,
    /// Whoever has asked says themselves whether any has panicked.
    was_asked: AtomicBool,
}

impl Town {
    /// Nobody, and no relay.
    pub fn empty() -> Self {
        let [folder, said] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let (processes, was_asked) = (AtomicU32::new(0), AtomicBool::new(false));
        let address = "127.0.0.1:0".to_owned();
        Self { folder, bin: programs(), address, relay: None, said, processes, was_asked }
    }

    /// A relay that runs, and Ann and Bob, who know each other.
    #[expect(clippy::new_without_default, reason = "it starts processes")]
    pub fn new() -> Self {
        let mut town = Self::empty();
        town.start_relay();
        for name in ["ann", "bob"] {
            let invite = town.text(&mut town.gateway("invite"));
            town.text(town.thinpost(name).args(["init", &invite]));
        }
        for (who, other) in [("ann", "bob"), ("bob", "ann")] {
            let ticket = town.text(town.thinpost(other).args(["ticket", "--for", who]));
            town.text(town.thinpost(who).args(["contact", "add", other, &ticket]));
        }
        town
    }

    /// The relay's data folder.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("relay")
    }

    /// Starts the relay where it was before.
    pub fn start_relay(&mut self) {
        self.start_relay_with(&[]);
    }

    /// The same with more arguments.
    pub fn start_relay_with(&mut self, args: &[&str]) {
        let mut command = self.gateway("run");
        command.args(["--listen", &self.address]).args(args);
        let mut relay = Process::start(&mut command);
        self.address = relay.address();
        self.relay = Some(relay);
    }

    /// Kills the relay.
    pub fn kill_relay(&mut self) {
        self.take_relay().kill();
    }

    /// The relay that runs.
    pub fn take_relay(&mut self) -> Process {
        self.relay.take().unwrap()
    }

    /// Where a program was built.
    pub fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }

    /// A command of the relay's operator.
    pub fn gateway(&self, command: &str) -> Command {
        let mut gateway = Command::new(self.bin.join("gateway"));
        gateway.arg(command).arg("--data").arg(self.data()).stderr(self.keep(command));
        gateway
    }

    /// A command of a person's.
    pub fn thinpost(&self, name: &str) -> Command {
        let mut command = Command::new(self.bin.join("thinpost"));
        command.arg("--home").arg(self.folder.path().join(name)).stderr(self.keep(name));
        command
    }

    /// A file for what another process says on standard error.
    fn keep(&self, name: &str) -> File {
        let number = self.processes.fetch_add(1, Ordering::Relaxed);
        File::create(self.said.path().join(format!("{number:04} {name}"))).unwrap()
    }

    /// What processes have said on standard error, in the order in which they began, but for those with another place for it.
    fn said(&self) -> Vec<(String, String)> {
        // A test that fails already is not to fail here.
        let files = fs::read_dir(self.said.path()).into_iter().flatten().flatten();
        let read = |file: fs::DirEntry| {
            let said = fs::read(file.path()).unwrap_or_default();
            (file.file_name().to_string_lossy().into_owned(), String::from_utf8_lossy(&said).into_owned())
        };
        let mut said: Vec<_> = files.map(read).collect();
        said.sort();
        said
    }

    /// What a process has said that panicked, if any has. Whoever does not ask before the end panics then.
    pub fn panicked(&self) -> Option<String> {
        self.was_asked.store(true, Ordering::Relaxed);
        let found = self.said().into_iter().find(|(_, said)| said.contains(PANIC));
        found.map(|(name, said)| format!("{name}: {said}"))
    }

    /// How what each process has said on standard error ends: for whoever looks into a failure.
    pub fn last_words(&self) -> String {
        let mut words = String::new();
        for (name, said) in self.said() {
            let lines: Vec<_> = said.lines().collect();
            for line in &lines[lines.len().saturating_sub(LAST_WORDS)..] {
                let _ = writeln!(words, "{name}: {line}");
            }
        }
        words
    }

    /// What a command that succeeds prints.
    pub fn text(&self, command: &mut Command) -> String {
        let Output { status, stdout, stderr } = command.stderr(Stdio::piped()).output().unwrap();
        let said = String::from_utf8_lossy(&stderr);
        assert!(status.success() && !said.contains(PANIC), "{command:?}: {said}");
        String::from_utf8(stdout).unwrap().trim().to_owned()
    }

    /// Bob's listener, which prints what stands in his inbox after this number.
    pub fn listen(&self, after: usize) -> Process {
        let mut command = self.thinpost("bob");
        command.args(["listen", "--json", "--keepalive", "1s", "--after", &after.to_string()]);
        Process::start(&mut command)
    }

    /// What a listener prints of Bob's inbox, which holds so much.
    pub fn read(&self, count: usize) -> Vec<String> {
        let mut listener = self.listen(0);
        let lines = (0..count).map(|_| serde_json::from_str::<serde_json::Value>(&listener.line()).unwrap());
        lines.map(|line| line["text"].as_str().unwrap().to_owned()).collect()
    }

    /// What a person's home says of itself.
    pub fn status(&self, name: &str) -> serde_json::Value {
        serde_json::from_str(&self.text(self.thinpost(name).args(["status", "--json"]))).unwrap()
    }

    /// Ann sends the lines of a file.
    pub fn send(&self, lines: &Path) -> Process {
        Process::start(self.thinpost("ann").args(["send", "bob", "--for", "60s", "--lines"]).arg(lines))
    }
}

impl Drop for Town {
    fn drop(&mut self) {
        drop(self.relay.take());
        if thread::panicking() {
            eprint!("{}", self.last_words());
        } else if !self.was_asked.load(Ordering::Relaxed) {
            assert_eq!(self.panicked(), None, "a program has panicked");
        }
    }
}

/// What this machine does not allow cannot be tested; where that must not be, as in CI, this fails.
#[track_caller]
pub fn skipped(why: &str) {
    assert!(std::env::var_os("THINPOST_TESTS_MUST_NOT_SKIP").is_none(), "{why}");
    eprintln!("skipped: {why}");
}

/// The one line of a program that failed with this code.
#[track_caller]
pub fn failure(output: &Output, code: i32) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    stderr.trim_end().to_owned()
}

/// What a command prints, and how it ends.
pub fn output(command: &mut Command) -> Output {
    let output = command.stdin(Stdio::null()).stderr(Stdio::piped()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!said.contains(PANIC), "{command:?}: {said}");
    output
}
