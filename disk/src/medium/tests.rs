#![allow(clippy::unwrap_used)]

use super::*;

const KIND: io::ErrorKind = io::ErrorKind::Other;

/// Four bytes that are synced, and four others over them that are not.
fn half_synced() -> Medium {
    let medium = Medium::recording();
    medium.refill(b"once").unwrap();
    medium.write(0, b"twic").unwrap();
    medium
}

#[test]
fn a_sync_that_fails_once_loses_what_was_not_synced_and_the_next_says_nothing_of_it() {
    let medium = half_synced();
    medium.fail_once(medium.calls(), KIND);
    assert!(medium.sync_data().is_err());
    assert_eq!(medium.content(), b"once");
    medium.sync_data().unwrap();
    assert_eq!((medium.content().as_slice(), medium.take_syncs_after_failure()), (b"once".as_slice(), 1));
    assert_eq!(Replay::of(&medium.recorded()).killed(), b"once");
    medium.write(1, b"x").unwrap();
    medium.sync_data().unwrap();
    assert_eq!(Replay::of(&medium.recorded()).lose_power(|bound| bound - 1), b"oxce");
}

#[test]
fn a_write_that_fails_once_is_missing_and_no_other() {
    let medium = half_synced();
    medium.fail_once(medium.calls(), KIND);
    assert!(medium.write(0, b"no").is_err());
    medium.sync_data().unwrap();
    assert_eq!((medium.content().as_slice(), medium.take_syncs_after_failure()), (b"twic".as_slice(), 0));
}

#[test]
fn what_fails_from_a_call_on_fails_until_it_is_mended_and_counts_the_syncs() {
    let medium = half_synced();
    medium.fail(KIND);
    assert!(medium.write(0, b"no").is_err());
    assert!((0..3).all(|_| medium.sync_data().is_err()));
    assert_eq!((medium.content().as_slice(), medium.take_syncs_after_failure()), (b"twic".as_slice(), 2));
    medium.mend();
    medium.sync_data().unwrap();
    assert_eq!(medium.take_syncs_after_failure(), 0);
}

#[test]
fn reads_fail_from_the_one_that_was_named_on() {
    let medium = half_synced();
    let read = || medium.read(0, &mut [0; 4]).map_err(|error| error.kind());
    medium.fail_reads_from(1, KIND);
    assert_eq!([read(), read(), read()], [Ok(()), Err(KIND), Err(KIND)]);
    medium.write(0, b"well").unwrap();
    medium.mend();
    assert_eq!(read(), Ok(()));
}
