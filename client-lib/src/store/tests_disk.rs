//! A disk that fails, for once or for good, and a home on it: what was confirmed is there, and what was not is whole or absent.

use std::io;

use thinpost_disk::medium::{Medium, Replay};
use thinpost_wire::ids::{Position, StoreId};

use super::tests::{NOW, arrival, created, enqueue, fresh_on, numbers, open_on, open_storage};
use super::*;
use crate::error::OpenError;

/// A short life: three messages out, of which two are settled, and two in. Says how far it came.
fn live(store: &Store) -> (usize, Option<StoreError>) {
    let numbers = numbers(NOW);
    let steps: [&mut dyn FnMut() -> Result<(), StoreError>; 4] = [
        &mut || enqueue(store, &numbers, 3).map(drop),
        &mut || store.apply(&Changes { unnumbered: vec![MessageId(3)], ..Changes::default() }).map(drop),
        &mut || {
            let have = Some((StoreId([1; 8]), Position(2)));
            let changes = Changes {
                received: vec![arrival("x"), arrival("y")],
                relay: Some(RelayRecord { have, ..RelayRecord::default() }),
                ..Changes::default()
            };
            store.apply(&changes).map(drop)
        },
        &mut || {
            let custody = vec![(MessageId(1), 1), (MessageId(2), 2)];
            store.apply(&Changes { custody, ..Changes::default() }).map(drop)
        },
    ];
    for (done, step) in steps.into_iter().enumerate() {
        if let Err(error) = step() {
            return (done, Some(error));
        }
    }
    (4, None)
}

/// How far a life had come, as its home shows it. Panics if a step is half there.
fn progress(store: &Store) -> usize {
    let loaded = store.load().unwrap();
    let inbox = store.inbox(InboxNumber(0), 10).unwrap().len();
    let have = loaded.relay.have.map(|(_, position)| position);
    let numbered = loaded.outbox.iter().filter(|(_, queued)| queued.number.is_some()).count();
    match (loaded.outbox.len(), numbered, inbox, have) {
        (0, 0, 0, None) => 0,
        (3, 3, 0, None) => 1,
        (3, 2, 0, None) => 2,
        (3, 2, 2, Some(Position(2))) => 3,
        (1, 0, 2, Some(Position(2))) => 4,
        other => panic!("half a step: {other:?}"),
    }
}

/// What is found after a kill, and after a loss of power that leaves nothing of what was not synced, or some.
fn found_after(medium: &Medium, seed: usize) -> [Vec<u8>; 3] {
    let replay = Replay::of(&medium.recorded());
    let mut drawn = seed;
    let some = |bound| {
        drawn = drawn.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (drawn >> 33) % bound
    };
    [replay.killed(), replay.lose_power(|bound| bound - 1), replay.lose_power(some)]
}

/// That a home which came so far, and failed at this call, is found like that.
fn assert_whole(medium: &Medium, done: usize, call: usize) {
    for bytes in found_after(medium, call) {
        let found = progress(&open_on(&Medium::holding(bytes)));
        assert!(found == done || found == done + 1, "call {call}: {done} confirmed, {found} found");
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// One call fails.
    Once,
    /// One, and all after it.
    FromThere,
}

#[test]
fn whenever_the_disk_fails_or_the_power_goes_confirmed_steps_are_whole_and_others_absent() {
    let mut failures = 0;
    let kinds = [(io::ErrorKind::StorageFull, true), (io::ErrorKind::Other, false)];
    let ways = [Way::Once, Way::FromThere];
    for ((kind, is_full), way) in kinds.into_iter().flat_map(|kind| ways.map(|way| (kind, way))) {
        for call in 0.. {
            let medium = Medium::recording();
            let store = fresh_on(&medium);
            match way {
                Way::Once => medium.fail_once(medium.calls() + call, kind),
                Way::FromThere => medium.fail_from(medium.calls() + call, kind),
            }
            let (done, error) = live(&store);
            if way == Way::FromThere {
                // Neither does closing get to tidy up.
                medium.fail(kind);
            }
            if error.is_some() {
                medium.mend();
                let refused = enqueue(&store, &numbers(NOW), 1);
                assert!(refused.is_err(), "call {call}, {way:?}: what has failed is used on");
            }
            drop(store);
            let more = medium.take_syncs_after_failure();
            assert_eq!(more, 0, "call {call}, {way:?}: after a sync had failed more were asked for");
            let Some(error) = error else { break };
            failures += 1;
            assert_eq!(error == StoreError::Full, is_full, "call {call}, {way:?}: {error}");
            assert_whole(&medium, done, call);
        }
    }
    assert!(failures > 40, "the steps must reach the disk: {failures}");
}

#[test]
fn whichever_read_fails_it_is_said_and_the_home_is_as_it_was() {
    let mut failures = 0;
    for read in 0.. {
        let medium = Medium::recording();
        let store = fresh_on(&medium);
        medium.fail_reads_from(medium.reads().calls + read, io::ErrorKind::Other);
        let (done, mut error) = live(&store);
        if error.is_none() {
            error = store.load().err();
        }
        drop(store);
        assert_eq!(medium.take_syncs_after_failure(), 0);
        if error.is_none() {
            error = opened_again(&medium).err();
        }
        let Some(error) = error else { break };
        failures += 1;
        assert!(matches!(error, StoreError::Io { .. }), "read {read}: {error:?}");
        medium.mend();
        assert_whole(&medium, done, read as usize);
        let found = progress(&open_on(&medium));
        assert!(found == done || found == done + 1, "read {read}: {done} confirmed, {found} found");
    }
    assert!(failures > 20, "the steps must read from the disk: {failures}");
}

/// Opens a home as a client does: all of these have the same key.
fn opened_again(medium: &Medium) -> Result<(), StoreError> {
    match open_storage(&created().on(medium.clone()).into()) {
        Ok(_) => Ok(()),
        Err(OpenError::Store(error)) => Err(error),
        Err(other) => panic!("it is said that {other}"),
    }
}
