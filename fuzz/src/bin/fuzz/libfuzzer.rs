//! The targets as programs of libFuzzer: how they are built, run, and understood.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use thinpost_fuzz::Target;

/// What a compiler of a stable version takes to make a program count its edges. No sanitizer: our code has nothing unsafe,
/// and the C that it calls would have to be built with one, too.
const FLAGS: [&str; 7] = [
    "--cfg",
    "fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-simplifycfg-branch-fold-threshold=0",
];

/// Beside them, to make it show its comparisons.
const COMPARES: &str = "-Cllvm-args=-sanitizer-coverage-trace-compares";

/// In a development build our own packages are fast, too.
const QUICK_FLAGS: [&str; 2] = ["-Copt-level=2", "-Cdebuginfo=line-tables-only"];

/// Set where cargo runs this program in place of the compiler.
const COMPILES: &str = "THINPOST_FUZZ_COMPILES";

/// The command that compiles one of our packages, if cargo asks for that: the compiler's own, and what makes a program count.
pub(crate) fn compiler() -> Option<Command> {
    env::var_os(COMPILES)?;
    let mut given = env::args_os().skip(1);
    let mut compiler = Command::new(given.next()?);
    let given: Vec<_> = given.collect();
    // Otherwise it is asked for its version.
    let compiles = given.iter().any(|argument| argument == "--crate-name");
    compiler.args(given);
    if compiles {
        compiler.args(FLAGS).arg(COMPARES).args(QUICK_FLAGS);
    }
    Some(compiler)
}

/// More memory than any target may take, MiB.
const RSS_MIB_MAX: u64 = 256;

/// Longer than any input may take, seconds.
const TIMEOUT_S: u64 = 10;

/// Longest input, bytes.
const INPUT_BYTES_MAX: usize = 4_096;

/// Begins the names of inputs that broke something once: they stay, whatever they reach.
const FOUND: &str = "found-";

/// Lines of libFuzzer's that are shown when something broke without a panic.
const TAIL_LINES: usize = 40;

/// How long a run goes on: whatever is over first; and what its choices come from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bound {
    pub(crate) executions: u64,
    pub(crate) lasting: Duration,
    /// Not 0; `None` for another one each time.
    pub(crate) seed: Option<u32>,
}

/// What came of a run.
#[derive(Debug)]
pub(crate) struct Round {
    pub(crate) executions: u64,
    pub(crate) edges: u64,
    pub(crate) inputs: u64,
    pub(crate) rss_mib: u64,
    pub(crate) commit: String,
    /// The input that broke something, from the root of the repository.
    pub(crate) artifact: Option<PathBuf>,
    /// What libFuzzer said from the panic on, or last.
    pub(crate) tail: String,
}

/// Targets that are built.
pub(crate) struct Programs {
    root: PathBuf,
    /// Where those are that show their comparisons.
    comparing: PathBuf,
    /// Where the others are.
    counting: PathBuf,
    is_quick: bool,
}

impl Programs {
    /// Builds these; if it is to be quick, on what tests have built, so that only our own packages count their edges.
    pub(crate) fn build(targets: &[Target], is_quick: bool) -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the root of the repository")?;
        let target_folder = root.join(env::var_os("CARGO_TARGET_DIR").unwrap_or("target".into()));
        if is_quick {
            let mut build = build_of(targets, root);
            // The features of all packages together are those of the tests.
            build.arg("--workspace").env("RUSTC_WORKSPACE_WRAPPER", env::current_exe()?).env(COMPILES, "1");
            succeed(build)?;
            let folder = target_folder.join("debug");
            return Ok(Self { root: root.to_owned(), comparing: folder.clone(), counting: folder, is_quick });
        }
        let host = host()?;
        let build_in = |folder: &str, compares: bool| -> Result<PathBuf> {
            let folder = target_folder.join(folder);
            let targets: Vec<Target> =
                targets.iter().copied().filter(|target| target.compares == compares).collect();
            if !targets.is_empty() {
                let flags = [&FLAGS[..], if compares { &[COMPARES] } else { &[] }].concat().join(" ");
                let mut build = build_of(&targets, root);
                // Build scripts and macros run here, and are not to be counted.
                build.args(["--package", "thinpost-fuzz", "--profile", "fuzz", "--target", &host]);
                build.arg("--target-dir").arg(&folder).env("RUSTFLAGS", flags);
                succeed(build)?;
            }
            Ok(folder.join(&host).join("fuzz"))
        };
        let (comparing, counting) = (build_in("fuzz", true)?, build_in("fuzz-counting", false)?);
        Ok(Self { root: root.to_owned(), comparing, counting, is_quick })
    }

    fn program(&self, target: Target) -> PathBuf {
        if target.compares { &self.comparing } else { &self.counting }.join(target.name)
    }

    pub(crate) fn hash(&self, target: Target) -> Result<String> {
        let program = self.program(target);
        // Not all of it at once: what a process starts counts its memory as its own for a moment.
        let read =
            File::open(&program).and_then(|file| Ok(blake3::Hasher::new().update_reader(file)?.finalize()));
        Ok(read.with_context(|| program.display().to_string())?.to_hex().to_string())
    }

    /// Where the target's executions are counted.
    pub(crate) fn tally(&self, target: Target) -> PathBuf {
        let quick = if self.is_quick { ".quick" } else { "" };
        self.root.join("fuzz/corpus").join(format!("{}{quick}.json", target.name))
    }

    /// The inputs that runs have found, and go on with.
    fn corpus(&self, target: Target) -> PathBuf {
        self.root.join("fuzz/corpus").join(target.name)
    }

    /// The inputs that are in the repository.
    fn corpora(&self, target: Target) -> PathBuf {
        self.root.join("fuzz/corpora").join(target.name)
    }

    /// Writes what a search starts from.
    pub(crate) fn write_seeds(&self, target: Target) -> Result<()> {
        let corpus = self.corpus(target);
        fs::create_dir_all(&corpus).with_context(|| corpus.display().to_string())?;
        for seed in (target.seeds)() {
            let name = blake3::hash(&seed).to_hex();
            let file = corpus.join(&name[..40]);
            fs::write(&file, seed).with_context(|| file.display().to_string())?;
        }
        Ok(())
    }

    /// The program, with what holds for each run.
    fn command(&self, target: Target) -> Result<Command> {
        let artifacts = Path::new("fuzz/artifacts").join(target.name);
        fs::create_dir_all(self.root.join(&artifacts)).context("fuzz/artifacts")?;
        let mut command = Command::new(self.program(target));
        command.current_dir(&self.root).arg(format!("-artifact_prefix={}/", artifacts.display()));
        command.arg(format!("-rss_limit_mb={RSS_MIB_MAX}")).arg(format!("-timeout={TIMEOUT_S}"));
        Ok(command)
    }

    /// Searches on.
    pub(crate) fn run(&self, target: Target, bound: Bound) -> Result<Round> {
        let log = self.root.join("fuzz/artifacts").join(format!("{}.log", target.name));
        let mut command = self.command(target)?;
        command.args(["-print_final_stats=1".to_owned(), format!("-max_len={INPUT_BYTES_MAX}")]);
        command.arg(format!("-max_total_time={}", bound.lasting.as_secs().max(1)));
        if bound.executions < u64::MAX {
            command.arg(format!("-runs={}", bound.executions));
        }
        if let Some(seed) = bound.seed {
            command.arg(format!("-seed={seed}"));
        }
        command.arg(self.corpus(target)).arg(self.corpora(target));
        fs::create_dir_all(self.corpora(target)).context("fuzz/corpora")?;
        let out = File::create(&log).with_context(|| log.display().to_string())?;
        let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(out).status();
        let status = status.with_context(|| self.program(target).display().to_string())?;
        let said = fs::read(&log).with_context(|| log.display().to_string())?;
        let mut round = understand(&String::from_utf8_lossy(&said), self.commit());
        if status.success() {
            round.artifact = None;
        } else if round.artifact.is_none() {
            bail!("{} ended with {status}:\n{}", target.name, round.tail);
        }
        Ok(round)
    }

    /// Runs one input; whether nothing broke.
    pub(crate) fn replay(&self, target: Target, input: &Path) -> Result<bool> {
        let input = fs::canonicalize(input).with_context(|| input.display().to_string())?;
        let status = self.command(target)?.env("RUST_BACKTRACE", "1").arg(input).status();
        Ok(status.with_context(|| target.name)?.success())
    }

    /// Puts the fewest inputs that reach all in place of what is in the repository.
    pub(crate) fn minimise(&self, target: Target) -> Result<()> {
        self.write_seeds(target)?;
        let (kept, new) = (self.corpora(target), self.corpora(target).with_extension("new"));
        for folder in [&kept, &new] {
            fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        }
        let mut command = self.command(target)?;
        // Which edges are reached, not how often: that would be many times as many inputs.
        command.args(["-set_cover_merge=1", "-use_counters=0"]).arg(format!("-max_len={INPUT_BYTES_MAX}"));
        let status = command.arg(&new).arg(self.corpus(target)).arg(&kept).stderr(Stdio::null()).status();
        ensure!(status.with_context(|| target.name)?.success(), "{} cannot be minimised", target.name);
        for entry in fs::read_dir(&kept).with_context(|| kept.display().to_string())? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(FOUND) {
                fs::rename(entry.path(), new.join(entry.file_name())).context("fuzz/corpora")?;
            }
        }
        fs::remove_dir_all(&kept).with_context(|| kept.display().to_string())?;
        fs::rename(&new, &kept).with_context(|| kept.display().to_string())?;
        let count = fs::read_dir(&kept).with_context(|| kept.display().to_string())?.count();
        eprintln!("{}: {count} inputs", target.name);
        Ok(())
    }

    /// What is checked out, if it is a repository.
    fn commit(&self) -> String {
        let said = Command::new("git").args(["rev-parse", "HEAD"]).current_dir(&self.root).output();
        said.map(|said| String::from_utf8_lossy(&said.stdout).trim().to_owned()).unwrap_or_default()
    }
}

/// Builds these, once it is said how.
fn build_of(targets: &[Target], root: &Path) -> Command {
    let mut build = Command::new("cargo");
    build.args(["build", "--locked", "--features", "thinpost-fuzz/libfuzzer"]).current_dir(root);
    build.args(targets.iter().flat_map(|target| ["--bin", target.name]));
    build
}

fn succeed(mut build: Command) -> Result<()> {
    ensure!(build.status().context("cargo")?.success(), "the targets cannot be built");
    Ok(())
}

/// The triple of this machine.
fn host() -> Result<String> {
    let said = Command::new("rustc").arg("-vV").output().context("rustc")?;
    let said = String::from_utf8(said.stdout).context("rustc")?;
    let host = said.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc names no host")?;
    Ok(host.to_owned())
}

/// What libFuzzer says of a run.
fn understand(said: &str, commit: String) -> Round {
    let stat = |name: &str| {
        let of = said.lines().rev().find_map(|line| line.strip_prefix("stat::")?.strip_prefix(name));
        of.and_then(|value| value.strip_prefix(':')?.trim().parse().ok())
    };
    // #1024	REDUCE cov: 512 ft: 1030 corp: 80/2100b lim: 21 exec/s: 0 rss: 60Mb L: 10/40 MS: 1 EraseBytes-
    let progress: Vec<&str> =
        said.lines().rfind(|line| line.contains(" cov: ")).unwrap_or("").split(' ').collect();
    let field = |name| progress.iter().position(|word| *word == name).and_then(|at| progress.get(at + 1));
    let begins = |word: &&str| word.split('/').next()?.parse().ok();
    let written = said.lines().rev().find_map(|line| line.split_once("Test unit written to "));
    let lines: Vec<&str> = said.lines().collect();
    let panicked = lines.iter().position(|line| line.contains("panicked at"));
    let shown = panicked.unwrap_or(lines.len().saturating_sub(TAIL_LINES));
    Round {
        executions: stat("number_of_executed_units").unwrap_or(0),
        edges: field("cov:").and_then(begins).unwrap_or(0),
        inputs: field("corp:").and_then(begins).unwrap_or(0),
        rss_mib: stat("peak_rss_mb").unwrap_or(0),
        commit,
        artifact: written.map(|(_, file)| PathBuf::from(file)),
        tail: lines[shown..].join("\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_says_how_much_was_executed_and_reached() {
        let round = understand(
            "#2\tINITED cov: 3 ft: 4 corp: 1/1b exec/s: 0 rss: 26Mb\n\
             #99\tNEW    cov: 254 ft: 600 corp: 165/2100b lim: 21 exec/s: 0 rss: 60Mb L: 10/40 MS: 1 EraseBytes-\n\
             Done 1107252 runs in 5 second(s)\n\
             stat::number_of_executed_units: 1107252\n\
             stat::peak_rss_mb:              73\n",
            "abc".to_owned(),
        );
        assert_eq!((round.executions, round.edges, round.inputs, round.rss_mib), (1_107_252, 254, 165, 73));
        assert_eq!(round.artifact, None);
    }

    #[test]
    fn a_run_that_broke_something_says_by_what_and_shows_the_panic() {
        let round = understand(
            "INFO: Seed: 1\n\
             thread '<unnamed>' (1) panicked at fuzz/src/link/pair.rs:260:9:\n\
             not at rest\n\
             artifact_prefix='fuzz/artifacts/link/'; Test unit written to fuzz/artifacts/link/crash-7a\n\
             stat::number_of_executed_units: 2803\n",
            String::new(),
        );
        assert_eq!(round.artifact, Some("fuzz/artifacts/link/crash-7a".into()));
        assert_eq!(round.executions, 2_803);
        assert!(round.tail.starts_with("thread '<unnamed>' (1) panicked"), "{}", round.tail);
    }
}
