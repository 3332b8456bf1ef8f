//! Pipes in the places of files.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use super::{Place, failure, failure_of, gateway, stdout_of};

/// In place of a file, what nobody ever writes to: whoever opens it waits.
fn make_fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

/// As [`failure_of`], of a command that must not wait: a minute is what a slow machine may take.
fn failure_in_time(args: &[&str], code: i32) -> String {
    let command = [&["60", env!("CARGO_BIN_EXE_gateway")], args].concat();
    failure(&Command::new("timeout").args(command).stdin(Stdio::null()).output().unwrap(), code)
}

#[test]
fn a_configuration_that_is_no_file_is_refused_and_not_waited_for() {
    let place = Place::of_relay();
    make_fifo(&place.config);
    let config = place.config.to_str().unwrap();
    for command in
        [&["check-config"][..], &["run", "--data", place.data()], &["ticket", "--data", place.data()]]
    {
        let error = failure_in_time(&[command, &["--config", config]].concat(), 78);
        assert_eq!(error, format!("cannot read {config}: it is no file"));
    }
    let folder = failure_of(&["check-config", "--config", place.data()], 78);
    assert!(folder.starts_with(&format!("cannot read {}: ", place.data())), "{folder}");
}

#[test]
fn a_configuration_comes_through_a_pipe_to_whoever_names_one() {
    for stream in ["/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"] {
        let mut asked = gateway(&["check-config", "--config", stream]);
        let mut asked = asked.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        asked.stdin.take().unwrap().write_all(b"[mailbox]\nenvelopes_max = 7\n").unwrap();
        let output = asked.wait_with_output().unwrap();
        assert!(output.status.success(), "{stream}: {output:?}");
        assert!(String::from_utf8(output.stdout).unwrap().contains("envelopes_max = 7\n"), "{stream}");
    }
    stdout_of(&["check-config", "--config", "/dev/null"]);
}

#[test]
fn a_key_a_store_or_a_part_of_a_backup_that_is_no_file_is_not_waited_for() {
    let place = Place::of_relay();
    let backup = place.config.with_file_name("backup");
    let path = backup.to_str().unwrap();
    stdout_of(&["backup", path, "--data", place.data()]);
    for part in ["key", "manifest"] {
        let part = backup.join(part);
        fs::remove_file(&part).unwrap();
        make_fifo(&part);
        let error = failure_in_time(&["check", "--backup", path], 74);
        assert_eq!(error, format!("cannot read {}: it is no file", part.display()));
    }
    let run = ["run", "--data", place.data(), "--listen", "127.0.0.1:0"];
    let store = place.data.join("store.redb");
    fs::remove_file(&store).unwrap();
    make_fifo(&store);
    assert_eq!(failure_in_time(&run, 65), "the file is not a relay's store");
    let key = place.data.join("relay.key");
    fs::remove_file(&key).unwrap();
    make_fifo(&key);
    for command in [&run[..], &["ticket", "--data", place.data()], &["check", "--data", place.data()]] {
        assert_eq!(failure_in_time(command, 74), format!("cannot read {}: it is no file", key.display()));
    }
}
