//! Takes one wait for the disk after another out of the code, and sees whether the test that is named fails, and says what is named.
//! That anything else fails tells nothing: what is flaky fails by itself.
//!
//! The list is `durability.toml`. It works in a copy of what is committed, under `target/durability`.
//!
//! Exit code 0 when each removal was noticed, 1 when one was not or the list lacks one.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use serde::Deserialize;
use thinpost_netem::report::Report;

/// Where durable state is written from; `netem-tests` and `bench` only look on.
const SOURCES: [&str; 5] = ["carrier/src", "client-lib/src", "disk/src", "gateway/src", "wire-format/src"];

/// What a wait for the disk, or a setting of the database about it, is called.
const WAITS: [&str; 6] =
    ["sync_data(", "sync_all(", "files::sync(", "sync_folder_of", "set_quick_repair(", "set_durability("];

/// Take one wait for the disk after another out of the code, and see whether a test fails
#[derive(Debug, Parser)]
#[command(name = "durability", version)]
struct Args {
    /// Of the list, begin at this one, counted from 0
    #[arg(long, value_name = "N", default_value_t = 0)]
    from: usize,
    /// Try so many
    #[arg(long, value_name = "N", default_value_t = usize::MAX)]
    count: usize,
    /// End with a line of JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    tests: BTreeMap<String, Test>,
    settings: Vec<Setting>,
    others: Vec<Other>,
}

/// What cargo is told.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Test {
    #[serde(default)]
    build: Vec<String>,
    run: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Setting {
    name: String,
    file: PathBuf,
    text: String,
    instead: String,
    /// What cargo is told, a name in [`List::tests`].
    test: String,
    /// The test that must fail, as cargo calls it.
    fails: String,
    /// What it must say, among other things.
    says: String,
}

/// What each test that failed has said; none if all passed.
type Failures = BTreeMap<String, String>;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Other {
    file: PathBuf,
    text: String,
    #[serde(rename = "why")]
    _why: String,
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the root of the repository")?;
    let list = fs::read_to_string(root.join("netem-tests/durability.toml")).context("durability.toml")?;
    let list: List = toml::from_str(&list).context("durability.toml")?;
    list.lacks_none(root)?;
    let copy = Copy::make(root)?;
    for (name, test) in &list.tests {
        let failures = copy.failures(test)?;
        ensure!(failures.is_empty(), "the test \"{name}\" fails with nothing taken out: {failures:?}");
    }
    let mut report = Report { row: "durability".to_owned(), from: args.from as u64, ..Report::default() };
    for setting in list.settings.iter().skip(args.from).take(args.count) {
        let test = list.tests.get(&setting.test).with_context(|| format!("no test {:?}", setting.test))?;
        let failures = copy.without(setting, || copy.failures(test))?;
        let is_noticed = setting.is_missed_in(&failures);
        match is_noticed {
            true => eprintln!("{}: missed by its test", setting.name),
            false => eprintln!("{}: NOT MISSED, but {failures:?}", setting.name),
        }
        report.seeds += 1;
        report.count += 1;
        report.broken += u64::from(!is_noticed);
    }
    report.again = format!("durability --from {} --count {}", report.from, report.seeds);
    if args.json {
        println!("{}", report.line());
    }
    Ok(if report.broken == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Setting {
    fn is_missed_in(&self, failures: &Failures) -> bool {
        failures.get(&self.fails).is_some_and(|said| said.contains(&self.says))
    }
}

impl List {
    /// Each text stands where it should, and no wait is left out.
    fn lacks_none(&self, root: &Path) -> Result<()> {
        for setting in &self.settings {
            let source = fs::read_to_string(root.join(&setting.file)).context(setting.name.clone())?;
            let count = source.matches(&setting.text).count();
            ensure!(
                count == 1,
                "{}: its text stands {count} times in {}",
                setting.name,
                setting.file.display()
            );
        }
        let mut files = Vec::new();
        for folder in SOURCES {
            sources(&root.join(folder), &mut files)?;
        }
        for path in files {
            let file = path.strip_prefix(root)?;
            let mut source = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            // Tests come last in a file.
            source.truncate(source.find("#[cfg(test)]\nmod tests").unwrap_or(source.len()));
            for setting in self.settings.iter().filter(|setting| setting.file == file) {
                source = source.replace(&setting.text, "");
            }
            let is_other =
                |line: &str| self.others.iter().any(|other| other.file == file && line.contains(&other.text));
            let waits = |line: &&str| WAITS.iter().any(|wait| line.contains(wait)) && !is_other(line);
            if let Some(line) = source.lines().find(waits) {
                bail!("durability.toml does not know this line of {}:\n{line}", file.display());
            }
        }
        Ok(())
    }
}

/// The files of a folder and of those within, but those that are tests.
fn sources(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with("tests") {
            continue;
        }
        match path.is_dir() {
            true => sources(&path, files)?,
            false => files.push(path),
        }
    }
    Ok(())
}

/// What is committed, checked out beside what is being worked on.
struct Copy {
    folder: PathBuf,
}

impl Copy {
    fn make(root: &Path) -> Result<Self> {
        let folder = root.join("target/durability/copy");
        if !folder.exists() {
            succeed(Command::new("git").arg("-C").arg(root).args(["worktree", "prune"]))?;
            let add = ["worktree", "add", "--quiet", "--force", "--detach"];
            succeed(Command::new("git").arg("-C").arg(root).args(add).arg(&folder).arg("HEAD"))?;
        }
        let git = |args: &[&str]| succeed(Command::new("git").arg("-C").arg(&folder).args(args));
        let head =
            Command::new("git").arg("-C").arg(root).args(["rev-parse", "HEAD"]).output().context("git")?;
        let head = String::from_utf8(head.stdout).context("git")?;
        git(&["checkout", "--quiet", "--force", "--detach", head.trim()])?;
        Ok(Self { folder })
    }

    /// What fails on what is there. It is an error if that does not compile.
    fn failures(&self, test: &Test) -> Result<Failures> {
        if !test.build.is_empty() {
            succeed(self.cargo(&test.build).stderr(Stdio::inherit()))?;
        }
        let done =
            self.cargo(&test.run).env("THINPOST_TESTS_MUST_NOT_SKIP", "1").output().context("cargo")?;
        let said = String::from_utf8_lossy(&done.stdout);
        // What does not compile tells nothing.
        ensure!(said.contains("test result: "), "{}", String::from_utf8_lossy(&done.stderr));
        ensure!(!said.contains("running 0 tests"), "cargo {:?} runs no test", test.run);
        let failures = failures_in(&said);
        ensure!(done.status.success() == failures.is_empty(), "cargo {:?} says\n{said}", test.run);
        Ok(failures)
    }

    /// Does something while a setting is taken out.
    fn without<T>(&self, setting: &Setting, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let path = self.folder.join(&setting.file);
        let source = fs::read_to_string(&path).context(setting.name.clone())?;
        fs::write(&path, source.replacen(&setting.text, &setting.instead, 1))
            .context(setting.name.clone())?;
        let done = work();
        fs::write(&path, source).context(setting.name.clone())?;
        done.with_context(|| setting.name.clone())
    }

    fn cargo(&self, args: &[String]) -> Command {
        let mut cargo = Command::new("cargo");
        let target = self.folder.with_file_name("target");
        cargo.arg("--quiet").args(args).current_dir(&self.folder).env("CARGO_TARGET_DIR", target);
        cargo.stdin(Stdio::null());
        cargo
    }
}

/// What the tests that failed have said, out of what cargo has printed.
fn failures_in(said: &str) -> Failures {
    let mut failures = Failures::new();
    let mut of = None;
    for line in said.lines() {
        let begins = line.strip_prefix("---- ").and_then(|line| line.strip_suffix(" stdout ----"));
        if begins.is_some() || line == "failures:" {
            of = begins;
        } else if let Some(name) = of {
            let words: &mut String = failures.entry(name.to_owned()).or_default();
            words.push_str(line);
            words.push('\n');
        }
    }
    failures
}

fn succeed(command: &mut Command) -> Result<()> {
    let status = command.stdout(Stdio::null()).status().with_context(|| format!("{command:?}"))?;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_list_has_every_wait_for_the_disk() {
        let list: List = toml::from_str(include_str!("../../durability.toml")).unwrap();
        list.lacks_none(Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()).unwrap();
        for Setting { name, test, fails, says, .. } in &list.settings {
            assert!(list.tests.contains_key(test), "{name}");
            // Else any failure would do.
            assert!(fails.contains("::") && says.len() > 10, "{name}");
        }
    }

    #[test]
    fn only_the_test_that_is_named_counts_and_only_if_it_says_what_is_named() {
        let said = "
running 3 tests
..
failures:

---- durable::names stdout ----

thread 'durable::names' (7) panicked at netem-tests/tests/processes/durable.rs:208:9:
names that are not on disk: {}

---- flaky stdout ----
a connection was lost

failures:
    durable::names
    flaky

test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s
";
        let failures = failures_in(said);
        assert_eq!(failures.keys().collect::<Vec<_>>(), ["durable::names", "flaky"]);
        let is_missed = |fails: &str, says: &str| {
            let [name, text, instead, test] = [const { String::new() }; 4];
            let (fails, says) = (fails.to_owned(), says.to_owned());
            let setting = Setting { name, file: PathBuf::new(), text, instead, test, fails, says };
            setting.is_missed_in(&failures)
        };
        assert!(is_missed("durable::names", "names that are not on disk"));
        assert!(!is_missed("durable::names", "written and not synced"));
        assert!(!is_missed("durable::others", "names that are not on disk"));
        assert!(!is_missed("flaky", "names that are not on disk"));
    }
}
