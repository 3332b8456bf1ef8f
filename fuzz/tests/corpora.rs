//! Every input in the repository, through the target that it is of; and that there is a program and a folder for each target.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::panic::catch_unwind;
use std::path::Path;

use thinpost_fuzz::TARGETS;

/// What all inputs together may take, bytes: they are in every clone.
const BYTES_MAX: u64 = 1024 * 1024;

fn folder(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn names_in(name: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(folder(name)).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect()
}

#[test]
fn every_target_has_a_program_and_a_corpus_and_nothing_else_has() {
    let targets: BTreeSet<_> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    assert_eq!(names_in("targets"), targets);
    assert_eq!(names_in("corpora"), targets);
    for target in &targets {
        let program = fs::read_to_string(folder("targets").join(target).with_extension("rs")).unwrap();
        assert!(program.contains(&format!("thinpost_fuzz::{target}::run(bytes)")), "{target}");
    }
}

#[test]
fn nothing_that_was_found_breaks_its_target() {
    let mut bytes = 0;
    for target in &TARGETS {
        let inputs: Vec<_> = fs::read_dir(folder("corpora").join(target.name)).unwrap().collect();
        assert!(inputs.len() > 5, "{} has no corpus", target.name);
        for input in inputs {
            let path = input.unwrap().path();
            let input = fs::read(&path).unwrap();
            bytes += input.len() as u64;
            assert!(
                catch_unwind(|| (target.run)(&input)).is_ok(),
                "fuzz/run {} --replay {}",
                target.name,
                path.display()
            );
        }
    }
    assert!(bytes < BYTES_MAX, "{bytes} bytes of inputs");
}

#[test]
fn seeds_break_nothing_and_fit_what_is_searched() {
    for target in &TARGETS {
        let seeds = (target.seeds)();
        assert!(!seeds.is_empty());
        for seed in seeds {
            assert!(seed.len() <= 4_096, "{}: a seed of {} bytes", target.name, seed.len());
            (target.run)(&seed);
        }
    }
}
