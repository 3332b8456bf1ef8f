//! Killed at every moment around a change of the disk, a client loses nothing and shows nothing twice.

use std::collections::BTreeMap;
use std::thread;

use thinpost_client::CRASH_POINTS;
use thinpost_netem::crash::{Blow, Victim, crash};

/// What a talk of this seed does at each point, and how often each was struck.
fn strike_everywhere(seed: u64, victim: Victim) -> BTreeMap<&'static str, u32> {
    let mut struck = BTreeMap::new();
    for at in 1.. {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true).build().unwrap();
        match runtime.block_on(crash(seed, victim, Blow::Kill(at))) {
            Ok(points) if points.is_empty() => break,
            Ok(points) => points.into_iter().for_each(|point| *struck.entry(point).or_default() += 1),
            Err(broken) => panic!("{victim:?} killed at point {at} of seed {seed}: {broken}"),
        }
    }
    struck
}

#[test]
fn a_client_killed_at_any_crash_point_loses_and_repeats_nothing_and_no_session_is_stuck() {
    let strike = |victim| {
        let struck = strike_everywhere(1, victim);
        println!("{victim:?}: {struck:?}");
        let spared: Vec<_> = CRASH_POINTS.into_iter().filter(|point| !struck.contains_key(point)).collect();
        assert!(spared.is_empty(), "{victim:?} was never killed at {spared:?}: {struck:?}");
    };
    thread::scope(|scope| [Victim::Ann, Victim::Bob].map(|victim| drop(scope.spawn(move || strike(victim)))));
}
