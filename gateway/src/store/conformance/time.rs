//! What cursors, lifetimes and the relay's clock let go of.

use super::*;

pub(crate) fn the_slowest_live_device_holds_the_log<S: Store>(make: fn(StoreConfig) -> S) {
    let store = make(small());
    let (phone, desk) = (join(&store, ALICE, 1), join(&store, ALICE, 2));
    let first = accept(&store, append(phone, ALICE, 1, b"1"), T0);
    let second = accept(&store, append(phone, ALICE, 2, b"2"), T0);
    assert_eq!(settle(&store, phone, second, T0), 0);
    assert_eq!(settle(&store, desk, first, T0), 1);
    assert_eq!(bodies(&store, ALICE), ["2"]);
    assert_eq!(settle(&store, desk, second, T0), 1);
    assert_eq!(usage(&store, ALICE), Usage::default());
}

pub(crate) fn a_device_silent_for_a_lifetime_holds_nothing<S: Store>(make: fn(StoreConfig) -> S) {
    let store = make(small());
    let (phone, desk) = (join(&store, ALICE, 1), join(&store, ALICE, 2));
    assert_eq!(one(&store, Op::Seen { device: desk }, T0.after_s(50)), Ok(Done::Seen));
    let position = accept(&store, append(phone, ALICE, 1, b"1"), T0.after_s(120));
    assert_eq!(settle(&store, phone, position, T0.after_s(120)), 0);
    assert_eq!(sweep(&store, T0.after_s(149), 10), 0);
    assert_eq!(sweep(&store, T0.after_s(150), 10), 1);
    assert!(bodies(&store, ALICE).is_empty());
    // Back again, it holds what comes from now on.
    assert_eq!(one(&store, Op::Seen { device: desk }, T0.after_s(160)), Ok(Done::Seen));
    let position = accept(&store, append(phone, ALICE, 2, b"2"), T0.after_s(170));
    assert_eq!(settle(&store, phone, position, T0.after_s(170)), 0);
    assert_eq!(sweep(&store, T0.after_s(259), 10), 0);
    assert_eq!(sweep(&store, T0.after_s(260), 10), 1, "silent a second time");
}

pub(crate) fn an_account_whose_devices_are_all_silent_keeps_what_has_not_expired<S: Store>(
    make: fn(StoreConfig) -> S,
) {
    let store = make(small());
    let (reader, writer) = (join(&store, ALICE, 1), join(&store, BOB, 2));
    let first = accept(&store, append(writer, ALICE, 1, b"old"), T0);
    settle(&store, reader, first, T0);
    accept(&store, append(writer, ALICE, 2, b"new"), T0.after_s(90));
    sweep(&store, T0.after_s(150), 10);
    assert_eq!(bodies(&store, ALICE), ["new"]);
    assert_eq!(sweep(&store, T0.after_s(190), 10), 1);
}

pub(crate) fn a_cursor_moves_forward_only_and_not_past_the_newest_position<S: Store>(
    make: fn(StoreConfig) -> S,
) {
    let store = make(small());
    let device = join(&store, ALICE, 1);
    let newest = accept(&store, append(device, ALICE, 1, b"1"), T0);
    let far = one(&store, Op::Settle { device, upto: Position(u64::MAX) }, T0);
    assert_eq!(far, Ok(Done::Settled { account: ALICE, cursor: newest, released: 1 }));
    let back = one(&store, Op::Settle { device, upto: Position(0) }, T0.after_s(7));
    assert_eq!(back, Ok(Done::Settled { account: ALICE, cursor: newest, released: 0 }));
    let record = store.device(&device_key(1)).unwrap().unwrap();
    assert_eq!((record.cursor, record.last_seen), (newest, T0.after_s(7)));
    let next = accept(&store, append(device, ALICE, 2, b"2"), T0);
    assert!(next > newest);
    assert_eq!(bodies(&store, ALICE), ["2"], "what comes later is not settled in advance");
}

pub(crate) fn an_envelope_expires_on_the_relays_clock_and_its_lifetime_is_capped<S: Store>(
    make: fn(StoreConfig) -> S,
) {
    let store = make(small());
    let device = join(&store, ALICE, 1);
    let lasting = |sequence, lifetime_s| Append { lifetime_s, ..append(device, ALICE, sequence, b"x") };
    accept(&store, lasting(1, u32::MAX), T0);
    accept(&store, lasting(2, 10), T0);
    assert_eq!(sweep(&store, T0.after_s(9), 10), 0);
    assert_eq!(sweep(&store, T0.after_s(10), 10), 1);
    assert_eq!(sweep(&store, T0.after_s(99), 10), 0);
    assert_eq!(sweep(&store, T0.after_s(100), 10), 1);
    assert_eq!(store.counts().unwrap().bytes, 0);
}

pub(crate) fn a_sweep_does_a_bounded_piece_of_work<S: Store>(make: fn(StoreConfig) -> S) {
    let store = make(small());
    let device = join(&store, ALICE, 1);
    for sequence in 1..=5 {
        accept(&store, append(device, ALICE, sequence, b"x"), T0);
    }
    let now = T0.after_s(100);
    let first = one(&store, Op::Sweep { rows_max: 2 }, now);
    assert_eq!(first, Ok(Done::Swept { removed: 2, more: true }));
    assert_eq!(bodies(&store, ALICE).len(), 3);
    assert_eq!(sweep(&store, now, 2), 3);
}

pub(crate) fn time_that_goes_back_is_ignored<S: Store>(make: fn(StoreConfig) -> S) {
    let store = make(small());
    let device = join(&store, ALICE, 1);
    accept(&store, append(device, ALICE, 1, b"x"), T0.after_s(500));
    accept(&store, append(device, ALICE, 2, b"y"), T0);
    assert_eq!(store.relay_clock().unwrap(), T0.after_s(500));
    let read = store.read(&ALICE, Position(0), 10, 100).unwrap();
    assert_eq!(read[1].1.stored_at, T0.after_s(500));
    store.apply(&[], T0.after_s(501)).unwrap();
    assert_eq!(store.relay_clock().unwrap(), T0.after_s(501), "an empty group keeps the clock");
}
