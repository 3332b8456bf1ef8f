//! Disks that fill up: a relay's, and a home's.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};

use crate::town::{Process, Town, failure, output, skipped};

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

/// A configuration file.
fn config(town: &Town, text: &str) -> PathBuf {
    let path = town.folder.path().join("config.toml");
    std::fs::write(&path, text).unwrap();
    path
}

/// Ann and Bob, who open accounts with a ticket, and know each other.
fn ann_and_bob(town: &Town, ticket: &str) {
    for name in ["ann", "bob"] {
        town.text(town.thinpost(name).args(["init", ticket]));
    }
    for (who, other) in [("ann", "bob"), ("bob", "ann")] {
        let ticket = town.text(town.thinpost(other).args(["ticket", "--for", who]));
        town.text(town.thinpost(who).args(["contact", "add", other, &ticket]));
    }
}

#[test]
fn a_relay_without_a_reserve_says_that_its_disk_is_full_and_promises_nothing_more() {
    let mut town = Town::empty();
    let Some(mut relay) = on_a_small_disk(&town.data(), 2_048) else { return };
    let config = config(&town, "[store]\nreserve_bytes = 0\n");
    relay.arg(town.program("gateway")).args(["run", "--registration", "open", "--listen", "127.0.0.1:0"]);
    relay.arg("--config").arg(config);
    let mut relay = Process::start(relay.arg("--data").arg(town.data()).stderr(Stdio::piped()));
    town.address = relay.address();
    ann_and_bob(&town, &relay.line());
    let lines = town.folder.path().join("lines");
    std::fs::write(&lines, noise(60, 50_000)).unwrap();
    let mut sender = town.thinpost("ann");
    let mut sender = Process::start(sender.args(["send", "bob", "--for", "60s", "--lines"]).arg(&lines));

    let status = relay.child.wait().unwrap();
    let mut said = String::new();
    relay.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(
        (status.code(), said.as_str()),
        (Some(74), "gateway: the disk is full, or what may be taken of it\n")
    );
    sender.kill();
    let status = town.status("ann");
    let (custody, waiting) = (status["custody"].as_u64().unwrap(), status["waiting"].as_u64().unwrap());
    assert_eq!(custody + waiting, 60);
    assert!(custody * 50_000 < 2_048 * 1_024, "no more than the disk holds: {custody}");
}

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

#[test]
fn a_relay_whose_output_has_nowhere_to_go_serves_all_the_same() {
    let mut town = Town::new();
    town.kill_relay();
    let mut run = Command::new("sh");
    run.args(["-c", "exec \"$0\" \"$@\" >/dev/full 2>&1"]).env("RUST_LOG", "trace");
    run.arg(town.program("gateway")).args(["run", "--listen", &town.address, "--data"]).arg(town.data());
    let _relay = Process::start(&mut run);
    town.text(town.thinpost("ann").args(["send", "bob", "are you there?"]));
    town.text(town.thinpost("bob").args(["sync", "--for", "60s"]));
    assert_eq!(town.status("bob")["received"], 1);
}

/// A relay on a disk that nobody else sees, a fourth of it in reserve. It may be killed and started again there.
struct Narrow {
    town: Town,
    shell: Process,
    starts: ChildStdin,
    /// The relay's folder, as it is seen from outside.
    data: PathBuf,
    /// What it is called with.
    ticket: String,
}

impl Narrow {
    fn new(kilobytes: u32) -> Option<Self> {
        let mut town = Town::empty();
        let mut shell = on_a_small_disk(&town.data(), kilobytes)?;
        let pace = "{ messages_per_minute = 100000, messages_burst = 100000, bytes_per_minute = 100000000, \
                    bytes_burst = 100000000 }";
        let config = config(
            &town,
            &format!(
                "registration = \"open\"\n[mailbox]\nbytes_max = 67108864\n\
                 [limits]\naccount = {pace}\nmailbox = {pace}\n[store]\nreserve_bytes = {}\n",
                kilobytes / 4 * 1_024
            ),
        );
        // A port of its own, and the same each time.
        let port = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        town.address = port.to_string();
        shell.args(["sh", "-c", "while read start; do \"$@\"; done", "sh"]);
        shell.arg(town.program("gateway")).args(["run", "--listen", &town.address]);
        shell.arg("--config").arg(config).arg("--data").arg(town.data());
        let mut shell = Process::start(shell.stdin(Stdio::piped()).stderr(Stdio::null()));
        let starts = shell.child.stdin.take().unwrap();
        let data = PathBuf::from(format!("/proc/{}/root{}", shell.child.id(), town.data().display()));
        let mut narrow = Self { town, shell, starts, data, ticket: String::new() };
        narrow.ticket = narrow.start();
        ann_and_bob(&narrow.town, &narrow.ticket);
        Some(narrow)
    }

    /// Starts the relay, and says its ticket.
    fn start(&mut self) -> String {
        writeln!(self.starts, "start").unwrap();
        self.shell.address();
        let ticket = self.shell.line();
        self.shell.line();
        ticket
    }

    /// Whether there was one to kill.
    fn kill(&self) -> bool {
        let pid = std::fs::read_to_string(self.data.join("relay.lock")).unwrap_or_default();
        Command::new("kill").args(["-s", "KILL", pid.trim()]).status().is_ok_and(|status| status.success())
    }

    /// Somebody else takes all that is left of the disk.
    fn fill(&self) {
        let mut file = std::fs::File::create(self.data.join("log")).unwrap();
        let full = std::iter::repeat_with(|| file.write_all(&[1; 4_096])).find_map(Result::err).unwrap();
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    }

    fn unfill(&self) {
        std::fs::remove_file(self.data.join("log")).unwrap();
    }

    /// Ann writes lines, and hands over what she can in this time.
    fn queue(&self, lines: &str) {
        let path = self.town.folder.path().join("lines");
        std::fs::write(&path, lines).unwrap();
        self.town.text(self.town.thinpost("ann").args(["send", "bob", "--offline", "--lines"]).arg(path));
    }

    /// Ann hands over what she can; how many messages still wait, and what she is told.
    fn hand_over(&self) -> (u64, String) {
        let synced = output(self.town.thinpost("ann").args(["sync", "--for", "60s"]));
        let waiting = self.town.status("ann")["waiting"].as_u64().unwrap();
        (waiting, String::from_utf8(synced.stderr).unwrap())
    }

    /// Bob fetches what there is for him; how many messages he has had by then.
    fn fetch(&self) -> u64 {
        self.town.text(self.town.thinpost("bob").args(["sync", "--for", "60s"]));
        self.town.status("bob")["received"].as_u64().unwrap()
    }
}

impl Drop for Narrow {
    fn drop(&mut self) {
        // Only the shell ends with the process that is held.
        self.kill();
    }
}

#[test]
fn a_relay_on_a_full_disk_serves_what_it_has() {
    let Some(mut narrow) = Narrow::new(16 << 10) else { return };
    let written = noise(10, 50_000);
    narrow.queue(&written);
    assert_eq!(narrow.hand_over().0, 0);

    assert!(narrow.kill());
    narrow.fill();
    assert_eq!(narrow.start(), narrow.ticket);
    narrow.queue("one more\n");
    let (waiting, told) = narrow.hand_over();
    assert_eq!((waiting, told.as_str()), (1, "thinpost: 1 message waiting; the relay has no room for now\n"));
    let eve = output(narrow.town.thinpost("eve").args(["init", &narrow.ticket]));
    assert_eq!(failure(&eve, 77), "thinpost: no home was made: the relay takes no new accounts now");
    assert_eq!(narrow.fetch(), 10);

    narrow.unfill();
    assert_eq!(narrow.hand_over().0, 0);
    assert_eq!(narrow.fetch(), 11);
    assert_eq!(narrow.town.read(11), written.lines().chain(["one more"]).collect::<Vec<_>>());
}

#[test]
fn mail_that_fills_a_disk_waits_with_its_sender_and_arrives_as_it_is_fetched() {
    let Some(narrow) = Narrow::new(8 << 10) else { return };
    let written = noise(150, 50_000);
    narrow.queue(&written);
    let (first, told) = narrow.hand_over();
    assert!(told.ends_with("; the relay has no room for now\n"), "{told}");
    assert!((1..150).contains(&first), "{first}");
    let mut waiting = first;
    while waiting > 0 {
        narrow.fetch();
        let now = narrow.hand_over().0;
        assert!(now < waiting, "fetching makes room: {now} of {waiting} wait");
        waiting = now;
    }
    assert_eq!(narrow.fetch(), 150);
    assert_eq!(narrow.town.read(150), written.lines().collect::<Vec<_>>());
}
