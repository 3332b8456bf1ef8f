//! A relay and two people, each a process, on this machine.

use std::io::{BufRead, BufReader, Lines};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use tempfile::TempDir;

/// A process that does not outlive the test.
pub(crate) struct Process {
    pub(crate) child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Process {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    pub(crate) fn line(&mut self) -> String {
        self.lines.next().expect("the process goes on").unwrap()
    }

    /// Where a relay says that it listens.
    pub(crate) fn address(&mut self) -> String {
        self.line().strip_prefix("listening on ").unwrap().to_owned()
    }

    /// SIGKILL, on Unix: no handler runs, nothing is flushed.
    pub(crate) fn kill(&mut self) {
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

pub(crate) struct Town {
    pub(crate) folder: TempDir,
    bin: PathBuf,
    pub(crate) address: String,
    relay: Option<Process>,
}

impl Town {
    /// Nobody, and no relay.
    pub(crate) fn empty() -> Self {
        let exe = std::env::current_exe().unwrap();
        let bin = exe.parent().and_then(Path::parent).unwrap().to_owned();
        assert!(bin.join("gateway").exists(), "build the programs first: cargo build --workspace");
        let folder = tempfile::tempdir().unwrap();
        Self { folder, bin, address: "127.0.0.1:0".to_owned(), relay: None }
    }

    /// A relay that runs, and Ann and Bob, who know each other.
    pub(crate) fn new() -> Self {
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

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("relay")
    }

    pub(crate) fn start_relay(&mut self) {
        self.start_relay_with(&[]);
    }

    pub(crate) fn start_relay_with(&mut self, args: &[&str]) {
        let mut command = self.gateway("run");
        command.args(["--listen", &self.address]).args(args);
        let mut relay = Process::start(&mut command);
        self.address = relay.address();
        self.relay = Some(relay);
    }

    pub(crate) fn kill_relay(&mut self) {
        self.take_relay().kill();
    }

    pub(crate) fn take_relay(&mut self) -> Process {
        self.relay.take().unwrap()
    }

    /// Where a program was built.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }

    /// A command of the relay's operator.
    pub(crate) fn gateway(&self, command: &str) -> Command {
        let mut gateway = Command::new(self.bin.join("gateway"));
        gateway.arg(command).arg("--data").arg(self.data()).stderr(Stdio::null());
        gateway
    }

    pub(crate) fn thinpost(&self, name: &str) -> Command {
        let mut command = Command::new(self.bin.join("thinpost"));
        command.arg("--home").arg(self.folder.path().join(name)).stderr(Stdio::null());
        command
    }

    /// What a command that succeeds prints.
    pub(crate) fn text(&self, command: &mut Command) -> String {
        let Output { status, stdout, stderr } = command.stderr(Stdio::piped()).output().unwrap();
        assert!(status.success(), "{command:?}: {}", String::from_utf8_lossy(&stderr));
        String::from_utf8(stdout).unwrap().trim().to_owned()
    }

    /// Bob's listener, which prints what stands in his inbox after this number.
    pub(crate) fn listen(&self, after: usize) -> Process {
        let mut command = self.thinpost("bob");
        command.args(["listen", "--json", "--keepalive", "1s", "--after", &after.to_string()]);
        Process::start(&mut command)
    }

    pub(crate) fn send(&self, lines: &Path) -> Process {
        Process::start(self.thinpost("ann").args(["send", "bob", "--for", "60s", "--lines"]).arg(lines))
    }
}

/// What this machine does not allow cannot be tested; where that must not be, as in CI, this fails.
#[track_caller]
pub(crate) fn skipped(why: &str) {
    assert!(std::env::var_os("THINPOST_TESTS_MUST_NOT_SKIP").is_none(), "{why}");
    eprintln!("skipped: {why}");
}

/// The one line of a program that failed with this code.
#[track_caller]
pub(crate) fn failure(output: &Output, code: i32) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    stderr.trim_end().to_owned()
}

pub(crate) fn output(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).stderr(Stdio::piped()).output().unwrap()
}
