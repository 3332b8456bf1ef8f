//! What programs have made is on disk before they say so, names and all: seen in the system calls that they make.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::town::{Process, Town, skipped};

/// The calls that change names, or wait for the disk.
const CALLS: &str =
    "openat,mkdir,mkdirat,rename,renameat,renameat2,link,linkat,fsync,fdatasync,write,pwrite64";

/// A command under `strace`, which writes to this file; none where there is no `strace`.
fn traced(program: &Path, log: &Path) -> Option<Command> {
    let works = Command::new("strace").args(["-o", "/dev/null", "true"]).status();
    if !works.is_ok_and(|status| status.success()) {
        skipped("strace does not work here");
        return None;
    }
    let mut command = Command::new("strace");
    command.args(["-f", "-y", "-s", "0", "-e"]).arg(format!("trace={CALLS}")).arg("-o").arg(log).arg(program);
    Some(command)
}

/// What is not on disk yet of what lies in a folder.
#[derive(Default)]
struct Disk {
    /// Files that were written to since they were synced.
    unsynced: BTreeSet<String>,
    /// Folders whose names have changed since they were synced, with a name that has.
    unnamed: BTreeMap<String, String>,
    renamed: usize,
    made: usize,
}

/// What stands between the first two of these quotes.
fn quoted(text: &str) -> Vec<&str> {
    text.split('"').skip(1).step_by(2).collect()
}

/// The path of a call's descriptor.
fn descriptor(text: &str) -> Option<&str> {
    text.split_once('<')?.1.split_once('>').map(|(path, _)| path)
}

fn folder_of(path: &str) -> String {
    Path::new(path).parent().unwrap().to_str().unwrap().to_owned()
}

impl Disk {
    /// Takes in a line of the trace; only what lies in `folder` counts.
    fn call(&mut self, line: &str, folder: &str) {
        // "PID CALL(ARGUMENTS", perhaps without its end.
        let Some((_, call)) = line.split_once(' ') else { return };
        let Some((name, rest)) = call.trim_start().split_once('(') else { return };
        if rest.contains(" = -1 ") {
            return;
        }
        match name {
            "write" | "pwrite64" => {
                let path = descriptor(rest).unwrap_or_default();
                if path.starts_with(folder) {
                    self.unsynced.insert(path.to_owned());
                }
            }
            "fsync" | "fdatasync" => {
                let path = descriptor(rest).unwrap();
                self.unsynced.remove(path);
                self.unnamed.remove(path);
            }
            "mkdir" | "mkdirat" => {
                let path = quoted(rest)[0];
                if path.starts_with(folder) {
                    self.made += 1;
                    self.unnamed.insert(folder_of(path), path.to_owned());
                }
            }
            "rename" | "renameat" | "renameat2" | "link" | "linkat" => {
                let [from, to] = quoted(rest)[..] else { panic!("{line}") };
                assert!(!self.unsynced.contains(from), "{from} gets the name {to} before it is on disk");
                self.renamed += 1;
                self.unnamed.insert(folder_of(to), to.to_owned());
            }
            _ => {}
        }
    }

    fn of(log: &Path, folder: &Path) -> Self {
        let folder = folder.to_str().unwrap();
        let mut disk = Self::default();
        fs::read_to_string(log).unwrap().lines().for_each(|line| disk.call(line, folder));
        disk
    }

    fn assert_all_is_on_disk(&self) {
        // A process's number, for people to read; worth nothing once the process is gone.
        let files: Vec<_> = self.unsynced.iter().filter(|path| !path.ends_with(".lock")).collect();
        assert!(files.is_empty(), "written and not synced: {files:?}");
        assert!(self.unnamed.is_empty(), "names that are not on disk: {:?}", self.unnamed);
    }
}

/// A relay that `strace` runs: to kill `strace` would let it go on.
struct Traced {
    process: Process,
    data: PathBuf,
}

impl Drop for Traced {
    fn drop(&mut self) {
        let relay = fs::read_to_string(self.data.join("relay.lock")).unwrap_or_default();
        let _ = Command::new("kill").args(["-s", "KILL", relay.trim()]).status();
        let _ = self.process.child.wait();
    }
}

#[test]
fn what_programs_have_made_is_on_disk_with_its_names() {
    let mut town = Town::empty();
    let root = town.folder.path().canonicalize().unwrap();
    let (log, data) = (root.join("trace-relay"), root.join("deep/relay"));
    let Some(mut command) = traced(&town.program("gateway"), &log) else { return };
    command.args(["run", "--listen", &town.address, "--data"]).arg(&data);
    let mut relay = Traced { process: Process::start(&mut command), data: data.clone() };
    town.address = relay.process.address();
    let invite =
        Command::new(town.program("gateway")).args(["invite", "--data"]).arg(&data).output().unwrap();
    let invite = String::from_utf8(invite.stdout).unwrap();
    let of_relay = Disk::of(&log, &root);
    of_relay.assert_all_is_on_disk();
    // Its key, its addresses and its store; two folders, and one for its socket.
    assert_eq!((of_relay.renamed, of_relay.made), (3, 3));

    let (log, home) = (root.join("trace-home"), root.join("homes/ann"));
    let mut command = traced(&town.program("thinpost"), &log).unwrap();
    let made = command.arg("--home").arg(&home).args(["init", invite.trim()]).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let of_home = Disk::of(&log, &root);
    of_home.assert_all_is_on_disk();
    assert_eq!((of_home.renamed, of_home.made), (2, 2));
}
