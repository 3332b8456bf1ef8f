//! What programs have made is on disk before they say so, names and all: seen in the system calls that they make.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::fixtures::{FORMATS, unpacked};
use crate::town::{Process, Town, skipped};

/// The calls that change names, or wait for the disk.
const CALLS: &str = "openat,mkdir,mkdirat,rename,renameat,renameat2,link,linkat,unlink,unlinkat,fsync,fdatasync,write,\
                     pwrite64";

/// Files that are worth nothing once the process is gone, or the disk has lost them: its number, where it is asked for backups, and
/// room that it keeps.
const FLEETING: [&str; 3] = ["relay.lock", "socket", "ballast"];

/// The mark of a folder that is being filled: there before anything else, and gone after it.
const MARK: &str = "/unfinished";

/// A home while it is being made, and its key.
const NEW_HOME: &str = "/client.redb.new";
const KEY: &str = "/client.key";

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
    /// Folders in which names have changed since they were synced, with those that have.
    unnamed: BTreeMap<String, BTreeSet<String>>,
    /// Files that are there.
    files: BTreeSet<String>,
    renamed: usize,
    made: usize,
}

/// The calls of a trace, in the order in which they ended. Of one that was interrupted by another thread's the trace has two lines.
fn whole_calls(trace: &str) -> Vec<String> {
    let mut begun = BTreeMap::new();
    let mut calls = Vec::new();
    for line in trace.lines() {
        // "PID CALL(ARGUMENTS) = RESULT"
        let Some((pid, call)) = line.split_once(' ') else { continue };
        let call = call.trim_start();
        if let Some(beginning) = call.strip_suffix(" <unfinished ...>") {
            begun.insert(pid, beginning);
        } else if let Some((_, end)) = call.split_once(" resumed>") {
            calls.push(begun.remove(pid).unwrap_or_default().to_owned() + end);
        } else {
            calls.push(call.to_owned());
        }
    }
    calls
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

fn is_fleeting(path: &str) -> bool {
    FLEETING.iter().any(|name| Path::new(path).ends_with(name))
}

impl Disk {
    /// A name was given, or taken away.
    fn name(&mut self, path: &str) {
        let folder = folder_of(path);
        let before = self.unnamed.get(&folder);
        let waits = |name| before.is_some_and(|before| before.iter().any(|before| before.ends_with(name)));
        let mark = format!("{folder}{MARK}");
        assert!(!waits(MARK) && !self.unsynced.contains(&mark), "{path} comes before its mark is on disk");
        // A key alone would be that of a home that is lost.
        let is_key = path.ends_with(KEY);
        assert!(!is_key || !waits(NEW_HOME), "{path} comes before the name of its home is on disk");
        let unsynced = self.unsynced.iter().any(|file| folder_of(file) == folder);
        let is_done = before.is_none() && !unsynced;
        assert!(is_done || !path.ends_with(MARK), "the mark goes before what it marks is on disk: {folder}");
        if !is_fleeting(path) {
            self.unnamed.entry(folder).or_default().insert(path.to_owned());
        }
    }

    /// Takes in a call; only what lies in `folder` counts.
    fn call(&mut self, call: &str, folder: &str) {
        let Some((name, rest)) = call.split_once('(') else { return };
        if rest.contains(" = -1 ") {
            return;
        }
        match name {
            "openat" => {
                let path = quoted(rest)[0];
                if rest.contains("O_CREAT") && path.starts_with(folder) && self.files.insert(path.to_owned())
                {
                    self.name(path);
                }
            }
            "unlink" | "unlinkat" => {
                let path = quoted(rest)[0];
                if self.files.remove(path) {
                    self.unsynced.remove(path);
                    self.name(path);
                }
            }
            "write" | "pwrite64" => {
                let path = descriptor(rest).unwrap_or_default();
                if path.starts_with(folder) && !is_fleeting(path) {
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
                    self.name(path);
                }
            }
            "rename" | "renameat" | "renameat2" | "link" | "linkat" => {
                let [from, to] = quoted(rest)[..] else { panic!("{call}") };
                assert!(!self.unsynced.contains(from), "{from} gets the name {to} before it is on disk");
                self.renamed += 1;
                if name.starts_with("rename") {
                    self.files.remove(from);
                }
                self.files.insert(to.to_owned());
                self.name(to);
            }
            _ => {}
        }
    }

    /// What was done in a folder that held these files. All of it is on disk.
    fn of(log: &Path, folder: &Path, before: BTreeSet<String>) -> Self {
        let folder = folder.to_str().unwrap();
        let mut disk = Self { files: before, ..Self::default() };
        whole_calls(&fs::read_to_string(log).unwrap()).iter().for_each(|call| disk.call(call, folder));
        assert!(disk.unsynced.is_empty(), "written and not synced: {:?}", disk.unsynced);
        assert!(disk.unnamed.is_empty(), "names that are not on disk: {:?}", disk.unnamed);
        disk
    }
}

/// The files in a folder, and in those within.
fn files_in(folder: &Path) -> BTreeSet<String> {
    let mut files = BTreeSet::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(files_in(&path))
        } else {
            _ = files.insert(path.display().to_string())
        }
    }
    files
}

/// A relay that `strace` runs: to kill `strace` would let it go on.
struct Traced {
    process: Process,
    data: PathBuf,
}

impl Drop for Traced {
    fn drop(&mut self) {
        let relay = fs::read_to_string(self.data.join("relay.lock")).unwrap_or_default();
        let killed = Command::new("kill").args(["-s", "KILL", relay.trim()]).status();
        if !killed.is_ok_and(|status| status.success()) {
            let _ = self.process.child.kill();
        }
        let _ = self.process.child.wait();
    }
}

/// Runs a program to its end. What it has done in the folder is on disk then.
fn run(town: &Town, program: &str, args: &[&str], root: &Path) -> Option<Disk> {
    let log = root.join("trace");
    let before = files_in(root);
    let done = traced(&town.program(program), &log)?.args(args).output().unwrap();
    assert!(done.status.success(), "{args:?}: {}", String::from_utf8_lossy(&done.stderr));
    Some(Disk::of(&log, root, before))
}

#[test]
fn what_programs_have_made_is_on_disk_with_its_names() {
    let mut town = Town::empty();
    let root = town.folder.path().canonicalize().unwrap();
    let at = |name: &str| root.join(name).to_str().unwrap().to_owned();
    let data = root.join("deep/relay");
    let Some(mut command) = traced(&town.program("gateway"), &root.join("trace-relay")) else { return };
    command.args(["run", "--listen", &town.address, "--data"]).arg(&data);
    let mut relay = Traced { process: Process::start(&mut command), data: data.clone() };
    town.address = relay.process.address();
    let invite =
        Command::new(town.program("gateway")).args(["invite", "--data"]).arg(&data).output().unwrap();
    let invite = String::from_utf8(invite.stdout).unwrap();
    let of_relay = Disk::of(&root.join("trace-relay"), &root, BTreeSet::new());
    // Its key, its addresses and its store; two folders, and one for its socket.
    assert_eq!((of_relay.renamed, of_relay.made), (3, 3));

    fs::write(root.join("passphrase"), "correct horse").unwrap();
    let home = at("homes/ann");
    let run_in = |root: &Path, program: &str, args: &[&str]| run(&town, program, args, root).unwrap();
    let run = |program: &str, args: &[&str]| run_in(&root, program, args);
    let made = run("thinpost", &["--home", &home, "init", invite.trim()]);
    assert_eq!((made.renamed, made.made), (2, 2));
    assert_eq!(
        run("thinpost", &["--home", &home, "key", "set", "--new-passphrase-file", &at("passphrase")]).renamed,
        1
    );

    drop(relay);
    let (data, backup, restored) = (data.to_str().unwrap(), at("backups/one"), at("restored/relay"));
    assert_eq!(run("gateway", &["backup", "--data", data, &backup]).made, 2);
    assert_eq!(run("gateway", &["restore", "--data", &restored, &backup]).made, 2);
    run("thinpost", &["--home", &home, "--passphrase-file", &at("passphrase"), "wipe", "--yes"]);

    let earlier = unpacked(FORMATS[0]);
    let home = earlier.path().join("ann");
    let opened = run_in(&home, "thinpost", &["--home", home.to_str().unwrap(), "status"]);
    assert_eq!(opened.renamed, 1, "its pages have checks now");
}
