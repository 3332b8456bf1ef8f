#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use super::*;

/// Stories in a run of the tests; the full volume is the command of docs/reliability.md.
const STORIES: u64 = 1;

fn hold(outcomes: impl Iterator<Item = Outcome>) -> u64 {
    let mut tried = 0;
    for outcome in outcomes {
        tried += outcome.tried;
        assert!(outcome.broken.is_empty(), "{}", outcome.broken.join("\n"));
    }
    tried
}

#[test]
fn whenever_the_power_fails_what_was_claimed_is_found() {
    let tried = hold((0..STORIES).map(|seed| Story::new(seed).cut()));
    assert!(tried > 50 * STORIES, "the stories must reach the medium: {tried}");
}

#[test]
fn whichever_call_to_the_medium_fails_nothing_false_is_claimed_and_nothing_claimed_is_lost() {
    let tried = hold((0..STORIES).map(|seed| Story::new(seed).fail(7)));
    assert!(tried > 30 * STORIES, "the stories must reach the medium: {tried}");
}

#[test]
fn whichever_read_fails_it_is_said_and_nothing_claimed_is_lost() {
    hold((0..STORIES).map(|seed| Story::new(seed).fail_reads(40)));
}

#[test]
fn a_medium_whose_syncs_do_nothing_is_caught_by_these_checks() {
    let story = Story::new(0);
    let Record { calls, marks } = story.record().unwrap();
    let nothing = || Call::Write { at: 0, bytes: Box::default() };
    // The store is made on a medium that syncs.
    let lie = |(n, call)| if n >= marks[0] && matches!(call, Call::Sync) { nothing() } else { call };
    let calls: Vec<_> = calls.into_iter().enumerate().map(lie).collect();
    assert!(
        !story.cut_recorded(&Record { calls, marks }).broken.is_empty(),
        "a store that never syncs would pass"
    );
}

#[test]
fn the_file_in_which_bits_flip_has_something_of_everything() {
    let mut filled = BTreeSet::new();
    for seed in 0..8 {
        let calls = Story::new(seed).record().unwrap().calls;
        let (_, rows) = rot::contents(Replay::of(&calls).killed()).unwrap();
        filled.extend(rows.filled().map(str::to_owned));
    }
    for table in ["accepted", "incarnations", "invites", "deadlines", "revoked", "sessions", "one-time-keys"]
    {
        assert!(filled.contains(table), "{table} is empty in all stories; {filled:?} are not");
    }
}

#[test]
fn a_flipped_bit_is_noticed_or_changes_nothing() {
    let outcome = Story::new(0).rot(300);
    assert!(outcome.broken.is_empty(), "{}", outcome.broken.join("\n"));
    assert!(outcome.noticed > 50, "{}", outcome.noticed);
}

#[test]
fn no_cursor_skips_and_what_comes_again_is_known() {
    let tried = hold((0..6).map(cursors));
    assert_eq!(tried, 6 * 64);
}
