//! The program as an operator meets it: its output, its one-line errors, its exit codes.

#![expect(clippy::unwrap_used, reason = "what the tests share stands outside of them")]

#[cfg(unix)]
mod pipes;

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant, SystemTime};

use redb::TableDefinition;
use tempfile::TempDir;
use thinpost_disk::Database;
use thinpost_gateway::folder::Folder;
use thinpost_gateway::store::{Op, RedbStore, Register, RelayTime, Store, StoreConfig, StoreError};
use thinpost_wire::frame::Denial;
use thinpost_wire::ids::{AccountKey, DeviceKey, Position};
use thinpost_wire::ticket::{InviteTicket, RelayTicket};
use thinpost_wire::token::MailboxSecret;

const ADVERTISED: &str = "203.0.113.5:4433";

fn gateway(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gateway"));
    command.args(args).env_remove("THINPOST_RELAY_DATA").env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

/// What a command that succeeds prints.
fn stdout_of(args: &[&str]) -> String {
    let output = gateway(args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The one line of a command that fails with `code`, without the program's name.
fn failure_of(args: &[&str], code: i32) -> String {
    let output = gateway(args).output().unwrap();
    failure(&output, code)
}

fn failure(output: &Output, code: i32) -> String {
    let stderr = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(output.stdout.is_empty(), "{output:?}");
    stderr.trim_end().strip_prefix("gateway: ").expect("the program's name comes first").to_owned()
}

/// A place for one relay's data and configuration.
struct Place {
    _folder: TempDir,
    data: PathBuf,
    config: PathBuf,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (data, config) = (folder.path().join("data"), folder.path().join("relay.toml"));
        Self { _folder: folder, data, config }
    }

    /// One in which a relay has run.
    fn of_relay() -> Self {
        let place = Self::new();
        let folder = Folder::open(&place.data).unwrap();
        RedbStore::open(&folder.store_path(), StoreConfig::default()).unwrap();
        folder.keys().unwrap();
        place
    }

    fn data(&self) -> &str {
        self.data.to_str().unwrap()
    }

    fn configure(&self, text: &str) -> &str {
        fs::write(&self.config, text).unwrap();
        self.config.to_str().unwrap()
    }

    fn run(&self, more: &[&str]) -> Running {
        let args = ["run", "--data", self.data(), "--listen", "127.0.0.1:0"];
        Running::start(&[&args, more].concat())
    }
}

/// A relay that has said that it listens. Killed when dropped, unless it was stopped.
struct Running {
    child: Child,
    _stdout: BufReader<ChildStdout>,
    listening: SocketAddr,
    ticket: RelayTicket,
}

impl Running {
    fn start(args: &[&str]) -> Self {
        let mut child = gateway(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = || {
            let mut line = String::new();
            stdout.read_line(&mut line).unwrap();
            line.trim_end().to_owned()
        };
        let listening = line();
        let Some(listening) = listening.strip_prefix("listening on ") else {
            let _ = child.kill();
            panic!("{listening:?}, {:?}", child.wait_with_output());
        };
        let listening = listening.parse().unwrap();
        let ticket = line().parse().unwrap();
        line();
        Self { child, _stdout: stdout, listening, ticket }
    }

    /// Ends it as a service manager would; returns its exit code and how long it took.
    #[cfg(unix)]
    fn stop(mut self, signal: &str) -> (Option<i32>, Duration) {
        let begun = Instant::now();
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", signal, &pid]).status().unwrap().success());
        let status = self.child.wait().unwrap();
        (status.code(), begun.elapsed())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn now_unix_s() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs()
}

#[test]
fn the_first_run_makes_the_key_and_later_ones_print_the_same_ticket() {
    let place = Place::new();
    let advertise = ["--advertise", ADVERTISED];
    let first = place.run(&advertise).ticket.clone();
    assert_eq!(first.addresses, [ADVERTISED.parse().unwrap()]);
    #[cfg(unix)]
    for (path, expected) in [(place.data.join("relay.key"), 0o600), (place.data.clone(), 0o700)] {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, expected, "{path:?}");
    }
    assert_eq!(place.run(&advertise).ticket, first);
}

#[test]
fn ticket_says_what_the_running_relay_said_alone_on_its_line() {
    let place = Place::new();
    let running = place.run(&[]);
    assert_eq!(running.ticket.addresses, [running.listening]);
    let printed = stdout_of(&["ticket", "--data", place.data()]);
    assert_eq!(printed, format!("{}\n", running.ticket));
}

#[test]
fn a_qr_code_is_printed_where_there_is_no_terminal_only_if_asked_for() {
    let place = Place::of_relay();
    let args = ["ticket", "--data", place.data(), "--advertise", ADVERTISED];
    assert_eq!(stdout_of(&args).lines().count(), 1);
    let printed = stdout_of(&[&args[..], &["--qr"]].concat());
    assert!(printed.contains('\u{2588}') && !printed.contains('\x1b'), "{printed}");
    printed.lines().last().unwrap().parse::<RelayTicket>().unwrap();
}

#[test]
fn an_invite_made_while_the_relay_does_not_run_is_the_relays_own() {
    let place = Place::of_relay();
    let args = ["invite", "--data", place.data(), "--advertise", ADVERTISED, "--uses", "3", "--valid", "1h"];
    let before = now_unix_s();
    let invite: InviteTicket = stdout_of(&args).trim_end().parse().unwrap();
    let after = now_unix_s();
    assert_eq!(invite.token.uses, 3);
    let expires = invite.token.expires_unix_s;
    assert!((before + 3_600..=after + 3_600).contains(&expires), "{expires}");

    let running = place.run(&["--advertise", ADVERTISED]);
    assert_eq!(invite.relay, running.ticket);
    let invites = Folder::open(&place.data).unwrap().keys().unwrap().invites();
    assert_eq!(invites.verify(&invite.token, expires), Ok(()));
    assert_eq!(invites.verify(&invite.token, expires + 1), Err(Denial::InviteExpired));

    // The relay that runs does not keep its operator from making more.
    let again: InviteTicket =
        stdout_of(&["invite", "--data", place.data(), "--valid", "never"]).trim_end().parse().unwrap();
    assert_eq!((again.relay, again.token.expires_unix_s), (invite.relay, 0));
    assert_ne!(again.token.id, invite.token.id);
}

#[test]
fn a_folder_that_holds_no_relay_is_named_and_neither_made_nor_filled() {
    let place = Place::new();
    for exists in [false, true] {
        for command in ["ticket", "invite"] {
            let error = failure_of(&[command, "--data", place.data(), "--advertise", ADVERTISED], 66);
            assert!(error.starts_with(&format!("there is no relay in {}; ", place.data())), "{error}");
        }
        assert_eq!(place.data.exists(), exists);
        if !exists {
            fs::create_dir(&place.data).unwrap();
        }
    }
    assert_eq!(fs::read_dir(&place.data).unwrap().count(), 0);
}

#[cfg(unix)]
#[test]
fn either_signal_stops_the_relay_in_good_order_within_five_seconds() {
    for signal in ["TERM", "INT"] {
        let place = Place::new();
        let (code, took) = place.run(&[]).stop(signal);
        assert_eq!(code, Some(0), "SIG{signal}");
        assert!(took < Duration::from_secs(5), "{took:?}");
        // The folder is free again, and the store is sound.
        place.run(&[]);
    }
}

#[test]
fn a_data_folder_in_use_is_refused_naming_the_process() {
    let place = Place::new();
    let running = place.run(&[]);
    let error = failure_of(&["run", "--data", place.data(), "--listen", "127.0.0.1:0"], 75);
    assert_eq!(
        error,
        format!("the data folder {} is in use by process {}", place.data(), running.child.id())
    );
}

#[test]
fn a_sound_store_and_a_damaged_one_are_told_apart_by_a_check() {
    let place = Place::new();
    let check = ["check", "--data", place.data()];
    failure_of(&check, 66);
    drop(place.run(&[]));
    assert_eq!(stdout_of(&check), "sound: 0 accounts, 0 devices, 0 envelopes of 0 bytes, 0 objects of 0\n");
    let store = place.data.join("store.redb");
    let mut content = fs::read(&store).unwrap();
    for at in 0..content.len() {
        if content[at..].starts_with(b"mailboxes") {
            content[at] ^= 1;
        }
    }
    fs::write(&store, &content).unwrap();
    let output = gateway(&check).output().unwrap();
    assert_eq!(output.status.code(), Some(65), "{output:?}");
    let named = String::from_utf8(output.stdout).unwrap();
    assert!(named.lines().count() > 0 && named.contains(": "), "{named:?}");
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.starts_with("gateway: the store is unsound: ") && stderr.lines().count() == 1, "{stderr}");
    assert!(fs::read(&store).unwrap() == content, "a check changes nothing");
}

#[test]
fn a_backup_of_a_relay_that_does_not_run_is_restored_and_no_other_folder_is() {
    let place = Place::new();
    let ticket = place.run(&["--advertise", ADVERTISED]).ticket.clone();
    let (backup, data) = (place.config.with_file_name("backup"), place.config.with_file_name("restored"));
    let [backup, data] = [&backup, &data].map(|path| path.to_str().unwrap());
    failure_of(&["restore", backup, "--data", data], 66);
    failure_of(&["check", "--backup", backup], 66);
    failure_of(&["backup", backup, "--data", data], 66);
    assert!(stdout_of(&["backup", backup, "--data", place.data()]).starts_with("backup made in "));
    failure_of(&["backup", backup, "--data", place.data()], 73);
    failure_of(&["restore", backup, "--data", place.data()], 73);
    assert!(stdout_of(&["restore", backup, "--data", data]).starts_with("restored in "));
    assert_eq!(stdout_of(&["ticket", "--data", data]), format!("{ticket}\n"));
    fs::write(Path::new(data).join("unfinished"), "").unwrap();
    let run = failure_of(&["run", "--data", data, "--listen", "127.0.0.1:0"], 65);
    assert_eq!(run, format!("a restore into {data} did not finish; run gateway restore again"));
    fs::write(Path::new(backup).join("key"), "12").unwrap();
    let damaged = failure_of(&["restore", backup, "--data", data], 65);
    assert_eq!(damaged, format!("{backup}/key is damaged: it is not what the manifest says"));
}

#[cfg(unix)]
#[test]
fn only_the_owner_can_ask_a_running_relay() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    let _running = place.run(&[]);
    let mode = |path: &str| fs::metadata(place.data.join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("control"), 0o700);
    let backup = place.config.with_file_name("backup");
    let made = stdout_of(&["backup", backup.to_str().unwrap(), "--data", place.data()]);
    assert!(made.starts_with(&format!("backup made in {}: 0 accounts", backup.display())), "{made}");
}

#[test]
fn a_port_in_use_is_refused() {
    let place = Place::new();
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let error = failure_of(&["run", "--data", place.data(), "--listen", &address], 69);
    assert_eq!(error, format!("cannot listen on UDP {address}: the port is in use"));
}

#[test]
fn an_address_of_another_machine_is_refused() {
    let place = Place::new();
    let error = failure_of(&["run", "--data", place.data(), "--listen", "192.0.2.1:4433"], 69);
    assert_eq!(error, "cannot listen on UDP 192.0.2.1:4433: this machine has no such address");
}

#[test]
fn a_data_folder_that_cannot_be_made_is_refused() {
    let place = Place::new();
    let file = place.configure("");
    let below = Path::new(file).join("data");
    let error = failure_of(&["run", "--data", below.to_str().unwrap()], 73);
    assert!(error.starts_with(&format!("cannot create the folder {}: ", below.display())), "{error}");
}

#[cfg(unix)]
#[test]
fn a_key_that_others_can_read_stops_every_command_that_needs_it() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::of_relay();
    let key = place.data.join("relay.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    for command in ["run", "ticket", "invite"] {
        let error = failure_of(&[command, "--data", place.data()], 77);
        assert!(error.ends_with(&format!("run: chmod 600 {}", key.display())), "{error}");
    }
}

#[test]
fn a_damaged_key_or_store_is_refused_and_left_as_it_is() {
    let place = Place::of_relay();
    let run = ["run", "--data", place.data(), "--listen", "127.0.0.1:0"];

    let store = place.data.join("store.redb");
    let nonsense = b"this is no store".repeat(1_000);
    fs::write(&store, &nonsense).unwrap();
    failure_of(&run, 65);
    assert_eq!(fs::read(&store).unwrap(), nonsense);

    fs::write(place.data.join("relay.key"), "short\n").unwrap();
    let error = failure_of(&run, 65);
    assert!(error.ends_with("is damaged: it does not hold the key that was written"), "{error}");
}

#[test]
fn a_key_or_a_store_that_is_lost_is_not_made_anew_unasked() {
    let place = Place::of_relay();
    let run = ["run", "--data", place.data(), "--listen", "127.0.0.1:0"];
    let ticket = stdout_of(&["ticket", "--data", place.data(), "--advertise", ADVERTISED]);
    let [store, key, elsewhere] = ["store.redb", "relay.key", "elsewhere"].map(|name| place.data.join(name));
    let whole = fs::read(&store).unwrap();

    for cut in [0, 4_096, whole.len() / 2] {
        fs::write(&store, &whole[..cut]).unwrap();
        failure_of(&run, 65);
        assert!(fs::read(&store).unwrap() == whole[..cut], "{cut} bytes");
    }
    fs::write(&store, &whole).unwrap();

    fs::rename(&store, &elsewhere).unwrap();
    let lost = failure_of(&run, 66);
    assert!(lost.starts_with(&format!("the store in {} is gone", place.data())), "{lost}");
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("nowhere", &store).unwrap();
        failure_of(&run, 66);
        failure_of(&[&run[..], &["--new-store"]].concat(), 74);
        fs::remove_file(&store).unwrap();
    }
    assert!(!store.exists());
    drop(place.run(&["--new-store"]));
    assert!(store.exists());

    fs::rename(&key, &elsewhere).unwrap();
    drop(place.run(&[]));
    assert!(key.exists(), "nothing had happened to the store: a first run was killed, perhaps");
    fs::remove_file(&key).unwrap();
    let register = Register {
        account: AccountKey([1; 32]),
        device: DeviceKey([2; 32]),
        invite: None,
        secret: MailboxSecret([3; 32]),
        read: Position(0),
    };
    let opened = RedbStore::open(&store, StoreConfig::default()).unwrap();
    opened.apply(&[Op::Register(register)], RelayTime(0)).unwrap();
    drop(opened);
    let lost = failure_of(&run, 66);
    assert!(lost.starts_with(&format!("the key {} is gone", key.display())), "{lost}");
    assert!(!key.exists());
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("nowhere", &key).unwrap();
        assert_eq!(failure_of(&run, 66), lost);
        assert!(key.is_symlink() && !key.exists());
    }
    fs::rename(&elsewhere, &key).unwrap();
    assert_eq!(stdout_of(&["ticket", "--data", place.data(), "--advertise", ADVERTISED]), ticket);
}

#[test]
fn a_backup_is_no_data_folder() {
    let place = Place::of_relay();
    let backup = place.config.with_file_name("backup");
    let path = backup.to_str().unwrap();
    stdout_of(&["backup", path, "--data", place.data()]);
    let files = || {
        let mut files: Vec<_> =
            fs::read_dir(&backup).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        files.sort();
        files
    };
    let before = files();
    for command in
        [&["run", "--data", path, "--listen", "127.0.0.1:0"][..], &["restore", path, "--data", path]]
    {
        let refused = failure_of(command, 73);
        assert!(refused.starts_with(&format!("{path} is a backup; ")), "{refused}");
        assert_eq!(files(), before);
    }
    assert!(stdout_of(&["check", "--backup", path]).starts_with("sound: "));
    // Its store in a folder of a relay makes no relay of it either.
    fs::copy(backup.join("store"), place.data.join("store.redb")).unwrap();
    for command in [&["check", "--data", place.data()][..], &["run", "--data", place.data()]] {
        let refused = failure_of(command, 65);
        assert_eq!(refused, "the file is a backup, and `gateway restore` makes a store of it");
    }
}

/// Does this where nothing can be written to a folder, and nobody else sees that; `None` where that is forbidden.
#[cfg(target_os = "linux")]
fn on_a_read_only_disk(folder: &Path, args: &[&str]) -> Option<Output> {
    let mount = "mount --bind \"$0\" \"$0\" && mount -o remount,bind,ro \"$0\"";
    let within = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script]).arg(folder);
        command
    };
    if !within(mount).output().is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: this machine gives no namespace with a disk of its own");
        return None;
    }
    let mut command = within(&format!("{mount} && exec \"$@\""));
    Some(command.arg(env!("CARGO_BIN_EXE_gateway")).args(args).output().unwrap())
}

#[cfg(target_os = "linux")]
#[test]
fn a_relay_on_a_disk_that_is_only_read_is_checked_and_backed_up_unless_it_runs_elsewhere() {
    let place = Place::of_relay();
    let backup = place.config.with_file_name("backup");
    let backup = backup.to_str().unwrap();
    let check = ["check", "--data", place.data()];
    let code = |args: &[&str]| Some(on_a_read_only_disk(&place.data, args)?.status.code().unwrap());
    let Some(checked) = code(&check) else { return };
    assert_eq!((checked, place.data.join("relay.lock").exists()), (0, false));
    assert_eq!(code(&["backup", backup, "--data", place.data()]), Some(0));
    let running = place.run(&[]);
    assert_eq!(code(&check), Some(75));
    drop(running);
    assert_eq!(code(&check), Some(0));
}

/// A table of a store that says when a device is waited for no longer.
const DEVICE_TIMERS: TableDefinition<'_, (u64, u32), ()> = TableDefinition::new("device-timers");

#[test]
fn a_backup_is_checked_when_it_is_made() {
    let place = Place::of_relay();
    let backup = |name: &str| place.config.with_file_name(name).to_str().unwrap().to_owned();
    let made = stdout_of(&["backup", &backup("sound"), "--data", place.data()]);
    let lines: Vec<_> = made.lines().collect();
    assert!(lines[0].starts_with("backup made in ") && lines[1..] == ["it is sound"], "{made}");
    {
        let store = Database::open_file::<StoreError>(&place.data.join("store.redb"), 0, |_| Ok(())).unwrap();
        let write = store.begin_write().unwrap();
        write.open_table(DEVICE_TIMERS).unwrap().insert((7, 9), ()).unwrap();
        write.commit().unwrap();
    }
    let output = gateway(&["backup", &backup("unsound"), "--data", place.data()]).output().unwrap();
    assert_eq!(output.status.code(), Some(65), "{output:?}");
    let [stdout, stderr] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    assert!(stdout.ends_with("\ndevice-timers 7/9: its device is missing\n"), "{stdout}");
    let kept = format!("gateway: the backup in {} is kept, and is not sound: 1 faults\n", backup("unsound"));
    assert_eq!(stderr, kept);
    failure_of(&["restore", &backup("unsound"), "--data", &backup("restored")], 65);
    let unchecked = stdout_of(&["backup", &backup("unchecked"), "--no-check", "--data", place.data()]);
    assert_eq!(unchecked.lines().count(), 1);
}

#[test]
fn a_bad_configuration_is_refused_with_its_line() {
    let place = Place::new();
    let cases = [
        ("\n[mailbox]\nlifetime = 3\n", "line 3, column 1: unknown field `lifetime`, expected one of"),
        ("\n\nregistration = \"closed\"\n", "line 3, column 16: registration: unknown variant `closed`"),
        ("[limits]\nkeys_max = 1\n", "line 2, column 12: limits.keys_max: invalid value: integer `1`"),
        ("listen = \n", "line 1, column "),
    ];
    for (text, expected) in cases {
        let file = place.configure(text);
        for command in ["run", "ticket", "invite", "check-config"] {
            let error = failure_of(&[command, "--config", file], 78);
            assert!(error.starts_with(&format!("{file}, {expected}")), "{error}");
        }
    }
    failure_of(&["check-config", "--config", "/nowhere/relay.toml"], 78);
}

#[test]
fn an_unknown_mode_or_flag_is_refused_with_what_is_allowed() {
    let error = failure_of(&["run", "--registration", "closed"], 64);
    assert!(error.contains("[possible values: invite, open, allow-list]"), "{error}");
    let error = failure_of(&["run", "--port", "4433"], 64);
    assert!(error.starts_with("unexpected argument '--port' found"), "{error}");
    failure_of(&[], 64);
}

#[test]
fn a_ticket_without_a_port_to_reach_is_refused() {
    let place = Place::of_relay();
    let file = place.configure("listen = \"127.0.0.1:0\"\n");
    let error = failure_of(&["ticket", "--data", place.data(), "--config", file], 78);
    assert!(error.contains("run it first, or use --advertise"), "{error}");
}

#[test]
fn check_config_prints_a_configuration_that_says_the_same() {
    let place = Place::new();
    let file = place.configure("registration = \"open\"\n[mailbox]\nenvelopes_max = 7\n");
    let printed = stdout_of(&["check-config", "--config", file]);
    assert!(printed.contains("envelopes_max = 7\n") && printed.contains("lifetime_days = 30\n"), "{printed}");
    assert!(printed.contains("# At most, bytes of memory:\n"), "{printed}");
    let file = place.configure(&printed);
    assert_eq!(stdout_of(&["check-config", "--config", file]), printed);
}

#[test]
fn the_environment_names_the_data_folder_unless_the_command_line_does() {
    let [place, other] = [Place::of_relay(), Place::of_relay()];
    let ticket = |args: &[&str]| {
        let args = [&["ticket", "--advertise", ADVERTISED], args].concat();
        gateway(&args).env("THINPOST_RELAY_DATA", &place.data).output().unwrap().stdout
    };
    let of_environment = ticket(&[]);
    assert!(!of_environment.is_empty());
    assert_eq!(ticket(&["--data", place.data()]), of_environment);
    assert_ne!(ticket(&["--data", other.data()]), of_environment);
}
