//! What every backend must do: each test takes a factory of empty stores, and each backend's tests run
//! all of them through [`conformance_tests`].

#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use thinpost_wire::ids::{AccountKey, Incarnation, ObjectId, OneTimeKey, Position, StoreId};
use thinpost_wire::token::{MailboxAddress, MailboxSecret, Token, TokenId};

use super::{
    Append, Counts, DeviceNo, Done, HandleTables, Invite, ObjectNo, Op, Quota, Refusal, Register, RelayTime,
    Store, StoreConfig, TableTail, Usage, Verdict,
};

mod keys;
mod objects;
mod restored;
mod time;
mod tokens;

pub(crate) use self::keys::*;
pub(crate) use self::objects::*;
pub(crate) use self::restored::*;
pub(crate) use self::time::*;
pub(crate) use self::tokens::*;
pub(crate) use super::samples::*;

/// Declares one `#[test]` per requirement for a factory `fn(StoreConfig) -> impl Store`.
macro_rules! conformance_tests {
    ($make:path) => {
        $crate::store::conformance::conformance_tests!(@each $make:
            registration_is_idempotent_and_a_device_has_one_account,
            an_invite_lets_in_as_many_accounts_as_it_says,
            an_account_has_so_many_devices_and_no_more,
            an_envelope_is_read_as_it_was_submitted,
            a_repeat_changes_nothing_and_another_body_under_its_number_is_a_conflict,
            a_refused_envelope_may_be_submitted_again,
            what_is_only_looked_up_is_a_repeat_or_refused,
            behind_a_refused_envelope_only_repeats_pass,
            numbers_below_what_is_remembered_are_stale,
            an_incarnation_unused_for_a_lifetime_is_forgotten,
            the_incarnation_longest_unused_makes_room,
            a_full_mailbox_refuses_and_other_mailboxes_do_not_notice,
            a_full_store_refuses_and_settling_makes_room,
            a_collapse_key_replaces_only_its_own_senders_envelope,
            the_slowest_live_device_holds_the_log,
            a_device_silent_for_a_lifetime_holds_nothing,
            an_account_whose_devices_are_all_silent_keeps_what_has_not_expired,
            a_cursor_moves_forward_only_and_not_past_the_newest_position,
            an_envelope_expires_on_the_relays_clock_and_its_lifetime_is_capped,
            a_sweep_does_a_bounded_piece_of_work,
            time_that_goes_back_is_ignored,
            a_handle_table_is_cut_and_appended_to,
            a_read_is_bounded_but_never_starved,
            a_tls_session_is_taken_once_and_the_oldest_go_first,
            what_names_an_unknown_device_is_refused,
            one_refusal_leaves_the_ops_around_it_alone,
            a_token_that_was_revoked_or_never_made_is_refused_and_others_are_not,
            what_was_accepted_before_its_token_was_revoked_is_still_a_repeat,
            another_secret_voids_every_token_and_the_same_again_none,
            so_many_tokens_are_revoked_and_no_more_and_another_secret_makes_room,
            strangers_share_a_small_part_of_a_mailbox_and_others_do_not_notice,
            the_request_box_is_counted_as_its_entries_go,
            a_one_time_key_is_claimed_once_and_a_kept_one_is_not_kept_twice,
            so_many_one_time_keys_are_kept_and_a_claim_makes_room,
            nobody_claims_without_a_token_that_holds,
            a_silent_device_gives_no_keys_and_any_live_one_does,
            an_object_is_put_in_pieces_and_read_back,
            what_is_held_of_an_object_stays_as_it_is,
            an_account_has_one_object_of_a_name_and_keeps_it_longer,
            a_chunk_that_is_not_the_objects_is_refused,
            an_account_keeps_so_many_objects_and_bytes_and_no_more,
            objects_and_bodies_share_the_store,
            an_object_expires_and_gives_its_room_back,
            a_sweep_of_objects_does_a_bounded_piece_of_work,
            an_object_is_held_in_so_many_pieces_and_no_more,
            of_one_name_the_object_that_is_kept_longest_is_found,
            a_restored_store_is_another_store_that_knows_of_the_one_before,
            a_restored_store_holds_what_the_backup_held,
            in_a_restored_store_a_device_is_unknown_until_it_registers,
            a_restored_mailbox_is_closed_until_a_device_of_its_account_is_back,
            a_device_that_is_back_is_given_nothing_that_it_had_read,
            what_could_be_used_twice_is_not_restored,
        );
    };
    (@each $make:path: $($name:ident,)+) => {
        $(#[test]
        fn $name() {
            $crate::store::conformance::$name($make);
        })+
    };
}
pub(super) use conformance_tests;

pub(crate) const T0: RelayTime = RelayTime(1_000);
pub(crate) const BOB: AccountKey = AccountKey([0xb; 32]);

pub(crate) fn register(account: AccountKey, device: u8) -> Op {
    let secret = secret_of(account);
    Op::Register(Register { account, device: device_key(device), invite: None, secret, read: Position(0) })
}

pub(crate) fn one(store: &impl Store, op: Op, now: RelayTime) -> Verdict {
    let [verdict] = store.apply(&[op], now).unwrap()[..] else { panic!("one op has one verdict") };
    verdict
}

pub(crate) fn accept(store: &impl Store, append: Append, now: RelayTime) -> Position {
    match one(store, Op::Append(append), now) {
        Ok(Done::Accepted { position }) => position,
        other => panic!("not accepted: {other:?}"),
    }
}

/// Registers a device and says its number.
pub(crate) fn join(store: &impl Store, account: AccountKey, device: u8) -> DeviceNo {
    match one(store, register(account, device), T0) {
        Ok(Done::Registered { device, new: true, .. }) => device,
        other => panic!("not registered: {other:?}"),
    }
}

pub(crate) fn bodies(store: &impl Store, mailbox: AccountKey) -> Vec<Bytes> {
    let entries = store.read(&mailbox, Position(0), usize::MAX, usize::MAX).unwrap();
    assert!(entries.is_sorted_by(|a, b| a.0 < b.0), "positions only grow");
    entries.into_iter().map(|(_, entry)| entry.body).collect()
}

fn usage(store: &impl Store, mailbox: AccountKey) -> Usage {
    store.mailbox_usage(&mailbox).unwrap().unwrap().all
}

/// Sweeps until nothing is due; how many entries went.
pub(super) fn sweep(store: &impl Store, now: RelayTime, rows_max: u32) -> u32 {
    let mut removed_in_all = 0;
    loop {
        match one(store, Op::Sweep { rows_max }, now) {
            Ok(Done::Swept { removed, more }) => {
                removed_in_all += removed;
                if !more {
                    return removed_in_all;
                }
            }
            other => panic!("not swept: {other:?}"),
        }
    }
}

fn settle(store: &impl Store, device: DeviceNo, upto: Position, now: RelayTime) -> u32 {
    match one(store, Op::Settle { device, upto }, now) {
        Ok(Done::Settled { released, .. }) => released,
        other => panic!("not settled: {other:?}"),
    }
}

pub(super) fn registration_is_idempotent_and_a_device_has_one_account<S: Store>(make: fn(StoreConfig) -> S) {
    let store = make(small());
    assert_eq!(store.device(&device_key(1)).unwrap(), None);
    let first = one(&store, register(ALICE, 1), T0);
    let Ok(Done::Registered { device, mailbox, new: true }) = first else { panic!("{first:?}") };
    assert_eq!(one(&store, register(ALICE, 1), T0), Ok(Done::Registered { device, mailbox, new: false }));
    assert_eq!(one(&store, register(BOB, 1), T0), Err(Refusal::DeviceOfAnother));
    let record = store.device(&device_key(1)).unwrap().unwrap();
    assert_eq!((record.number, record.account, record.mailbox), (device, ALICE, mailbox));
    assert_eq!((record.cursor, record.last_seen), (Position(0), T0));
    assert_eq!(store.counts().unwrap(), Counts { accounts: 1, devices: 1, ..Counts::default() });
    assert_eq!(store.mailbox_usage(&BOB).unwrap(), None);
}

pub(super) fn an_invite_lets_in_as_many_accounts_as_it_says<S: Store>(make: fn(StoreConfig) -> S) {
    let store = make(small());
    let with = |account: u8, device, uses_max| {
        let invite = Some(Invite { id: *b"invite-1", uses_max });
        let account = AccountKey([account; 32]);
        let secret = secret_of(account);
        let register = Register { account, device: device_key(device), invite, secret, read: Position(0) };
        one(&store, Op::Register(register), T0)
    };
    assert!(with(1, 1, 2).is_ok());
    assert!(with(1, 1, 2).is_ok(), "the same device again");
    assert!(with(1, 2, 2).is_ok(), "the account's second device");
    assert!(with(2, 3, 2).is_ok(), "the second account");
    assert_eq!(with(3, 4, 2), Err(Refusal::InviteSpent));
    assert_eq!(store.mailbox_usage(&AccountKey([3; 32])).unwrap(), None);
    assert!(with(2, 5, 2).is_ok(), "a device of an account needs no invite");
    assert!(with(3, 4, 3).is_ok(), "the operator allowed one more");
}

pub(super) fn an_account_has_so_many_devices_and_no_more<S: Store>(make: fn(StoreConfig) -> S) {
    let store = make(small());
    for device in 1..=3 {
        join(&store, ALICE, device);
    }
    assert_eq!(one(&store, register(ALICE, 4), T0), Err(Refusal::TooManyDevices));
    assert!(one(&store, register(ALICE, 3), T0).is_ok());
    assert!(one(&store, register(BOB, 4), T0).is_ok());
}

pub(super) fn an_envelope_is_read_as_it_was_submitted<S: Store>(make: fn(StoreConfig) -> S) {
    let store = make(small());
    let device = join(&store, ALICE, 1);
    join(&store, BOB, 2);
    let mut submitted = append(device, BOB, u64::MAX, b"body");
    submitted.flags = 0xa5;
    submitted.age_s = 77;
    submitted.lifetime_s = 60;
    submitted.collapse = Some(0);
    let position = accept(&store, submitted.clone(), RelayTime(1_234));
    let mut unattributed = append(device, BOB, 1, b"");
    unattributed.sender = None;
    let later = accept(&store, unattributed, RelayTime(1_235));
    let read = store.read(&BOB, Position(0), 10, 1_000).unwrap();
    assert_eq!(read.iter().map(|(position, _)| *position).collect::<Vec<_>>(), [position, later]);
    let entry = &read[0].1;
    assert_eq!((entry.sender, entry.flags, entry.submitter), (Some(ALICE), 0xa5, None));
    assert_eq!((entry.age_s, entry.collapse), (77, Some(0)));
    assert_eq!((entry.stored_at, entry.deadline), (RelayTime(1_234), RelayTime(1_294)));
    assert_eq!(entry.body, submitted.body);
    let hidden = &read[1].1;
    assert_eq!((hidden.sender, hidden.submitter, hidden.body.len()), (None, None, 0), "nobody's");
    assert_eq!(usage(&store, BOB), Usage { entries: 2, bytes: 4 });
    assert_eq!(store.read(&BOB, position, 10, 1_000).unwrap().len(), 1);
    assert!(store.read(&BOB, Position(u64::MAX), 10, 1_000).unwrap().is_empty());
    assert!(bodies(&store, ALICE).is_empty());
}

pub(super) fn a_repeat_changes_nothing_and_another_body_under_its_number_is_a_conflict<S: Store>(
    make: fn(StoreConfig) -> S,
) {
    let store = make(small());
    let (device, other) = (join(&store, ALICE, 1), join(&store, ALICE, 2));
    let position = accept(&store, append(device, ALICE, 1, b"one"), T0);
    assert_eq!(one(&store, Op::Append(append(device, ALICE, 1, b"one")), T0), Ok(Done::Repeat));
    assert_eq!(one(&store, Op::Append(append(device, ALICE, 1, b"two")), T0), Err(Refusal::Conflict));
    assert_eq!(bodies(&store, ALICE), ["one"]);
    accept(&store, append(other, ALICE, 1, b"of another device"), T0);
    settle(&store, device, position, T0);
    settle(&store, other, position, T0);
    let repeat = one(&store, Op::Append(append(device, ALICE, 1, b"one")), T0);
    assert_eq!(repeat, Ok(Done::Repeat), "settled, and still known");
    assert_eq!(bodies(&store, ALICE), ["of another device"]);
}

pub(super) fn what_is_only_looked_up_is_a_repeat_or_refused<S: Store>(make: fn(StoreConfig) -> S) {
    let store = make(small());
    let device = join(&store, ALICE, 1);
    let look_up =
        |sequence, body| Op::Append(Append { repeat_only: true, ..append(device, ALICE, sequence, body) });
    assert_eq!(one(&store, look_up(1, b"1"), T0), Err(Refusal::NotNow));
    accept(&store, append(device, ALICE, 1, b"1"), T0);
    assert_eq!(one(&store, look_up(1, b"1"), T0), Ok(Done::Repeat));
    assert_eq!(one(&store, look_up(1, b"2"), T0), Err(Refusal::Conflict));
    assert_eq!(one(&store, look_up(2, b"2"), T0), Err(Refusal::NotNow));
    assert_eq!(bodies(&store, ALICE), ["1"]);
}

pub(super) fn behind_a_refused_envelope_only_repeats_pass<S: Store>(make: fn(StoreConfig) -> S) {
    let store = make(small());
    let device = join(&store, ALICE, 1);
    accept(&store, append(device, ALICE, 1, b"1"), T0);
    let ops = [
        Op::Append(Append { repeat_only: true, ..append(device, ALICE, 2, b"2") }),
        Op::Append(append(device, ALICE, 3, b"3")),
        Op::Append(append(device, ALICE, 1, b"1")),
        Op::Append(append(device, BOB, 4, b"4")),
    ];
    let verdicts = store.apply(&ops, T0).unwrap();
    let not_now = Err(Refusal::NotNow);
    assert_eq!(verdicts, [not_now, not_now, Ok(Done::Repeat), Err(Refusal::NoSuchMailbox)]);
    accept(&store, append(device, ALICE, 3, b"3"), T0);
}

pub(super) fn a_refused_envelope_may_be_submitted_again<S: Store>(make: fn(StoreConfig) -> S) {
    let store = make(StoreConfig { body_bytes_max: 5, ..small() });
    let device = join(&store, ALICE, 1);
    let early = append(device, BOB, 1, b"hello");
    assert_eq!(one(&store, Op::Append(early.clone()), T0), Err(Refusal::NoSuchMailbox));
    let long = Op::Append(append(device, ALICE, 2, b"longer"));
    assert_eq!(one(&store, long, T0), Err(Refusal::TooLong));
    join(&store, BOB, 2);
    accept(&store, early, T0);
}

pub(super) fn numbers_below_what_is_remembered_are_stale<S: Store>(make: fn(StoreConfig) -> S) {
    let store = make(StoreConfig { quota: Quota { entries_max: 50, bytes_max: 1_000 }, ..small() });
    let device = join(&store, ALICE, 1);
    let submit = |sequence| one(&store, Op::Append(append(device, ALICE, sequence, b"x")), T0);
    for sequence in [10, 12, 11] {
        assert!(submit(sequence).is_ok());
    }
    assert!(matches!(submit(2), Ok(Done::Accepted { .. })), "late, and the memory is not full");
    assert_eq!(submit(1), Err(Refusal::Stale), "the memory of four is full from 2 on");
    assert_eq!(submit(2), Ok(Done::Repeat));
    assert!(matches!(submit(5), Ok(Done::Accepted { .. })), "a gap above the floor is open");
    assert_eq!(submit(2), Err(Refusal::Stale), "5 pushed it out");
    assert_eq!(submit(5), Ok(Done::Repeat));
    assert!(matches!(submit(u64::MAX), Ok(Done::Accepted { .. })));
    assert_eq!(submit(9), Err(Refusal::Stale));
    assert_eq!(submit(10), Ok(Done::Repeat));
}

pub(super) fn an_incarnation_unused_for_a_lifetime_is_forgotten<S: Store>(make: fn(StoreConfig) -> S) {
    let store = make(small());
    let device = join(&store, ALICE, 1);
    let envelope = |sequence| append(device, ALICE, sequence, b"x");
    accept(&store, envelope(1), T0);
    accept(&store, envelope(2), T0.after_s(60));
    sweep(&store, T0.after_s(159), 10);
    assert_eq!(one(&store, Op::Append(envelope(1)), T0.after_s(159)), Ok(Done::Repeat), "used 99 s ago");
    sweep(&store, T0.after_s(160), 10);
    accept(&store, envelope(1), T0.after_s(160));
}

pub(super) fn the_incarnation_longest_unused_makes_room<S: Store>(make: fn(StoreConfig) -> S) {
    let store = make(small());
    let device = join(&store, ALICE, 1);
    let envelope = |incarnation, sequence| {
        let mut envelope = append(device, ALICE, sequence, b"x");
        envelope.origin.incarnation = Incarnation([incarnation; 8]);
        envelope
    };
    accept(&store, envelope(7, 1), T0);
    accept(&store, envelope(8, 1), T0.after_s(1));
    accept(&store, envelope(7, 2), T0.after_s(2));
    accept(&store, envelope(9, 1), T0.after_s(3));
    assert_eq!(one(&store, Op::Append(envelope(7, 1)), T0.after_s(3)), Ok(Done::Repeat));
    assert!(matches!(one(&store, Op::Append(envelope(8, 1)), T0.after_s(4)), Ok(Done::Accepted { .. })));
}

pub(super) fn a_full_mailbox_refuses_and_other_mailboxes_do_not_notice<S: Store>(make: fn(StoreConfig) -> S) {
    let store = make(small());
    let device = join(&store, ALICE, 1);
    join(&store, BOB, 2);
    for sequence in 1..=5 {
        accept(&store, append(device, ALICE, sequence, b"x"), T0);
    }
    assert_eq!(one(&store, Op::Append(append(device, ALICE, 6, b"")), T0), Err(Refusal::MailboxFull));
    accept(&store, append(device, BOB, 7, &[0; 1_000]), T0);
    assert_eq!(one(&store, Op::Append(append(device, BOB, 8, b"x")), T0), Err(Refusal::MailboxFull));
    assert_eq!(settle(&store, device, Position(1), T0), 1);
    accept(&store, append(device, ALICE, 6, b"now"), T0);
    assert_eq!(usage(&store, ALICE), Usage { entries: 5, bytes: 7 });
}

pub(super) fn a_full_store_refuses_and_settling_makes_room<S: Store>(make: fn(StoreConfig) -> S) {
    let store = make(StoreConfig { bytes_max: 1_500, ..small() });
    let device = join(&store, ALICE, 1);
    join(&store, BOB, 2);
    let position = accept(&store, append(device, ALICE, 1, &[0; 1_000]), T0);
    let envelope = append(device, BOB, 2, &[0; 501]);
    assert_eq!(one(&store, Op::Append(envelope.clone()), T0), Err(Refusal::StoreFull));
    assert_eq!(settle(&store, device, position, T0), 1);
    accept(&store, envelope, T0);
    let expected = Counts { accounts: 2, devices: 2, entries: 1, bytes: 501, ..Counts::default() };
    assert_eq!(store.counts().unwrap(), expected);
}

pub(super) fn a_collapse_key_replaces_only_its_own_senders_envelope<S: Store>(make: fn(StoreConfig) -> S) {
    let store = make(small());
    let (device, other) = (join(&store, ALICE, 1), join(&store, BOB, 2));
    let keyed = |device, sender, sequence, body: &[u8]| {
        let mut envelope = append(device, ALICE, sequence, body);
        envelope.sender = sender;
        envelope.collapse = Some(9);
        envelope
    };
    accept(&store, keyed(device, Some(ALICE), 1, b"a1"), T0);
    accept(&store, append(device, ALICE, 2, b"plain"), T0);
    accept(&store, keyed(other, Some(BOB), 1, b"b1"), T0);
    accept(&store, keyed(device, None, 3, b"n1"), T0);
    accept(&store, keyed(other, None, 2, b"m1"), T0);
    assert_eq!(bodies(&store, ALICE), ["a1", "plain", "b1", "n1", "m1"]);
    // The mailbox is full, and a replacement needs no room.
    accept(&store, keyed(device, Some(ALICE), 4, b"a2"), T0);
    assert_eq!(bodies(&store, ALICE), ["plain", "b1", "n1", "m1", "a2"]);
    accept(&store, keyed(device, None, 5, b"n2"), T0);
    assert_eq!(bodies(&store, ALICE), ["plain", "b1", "m1", "a2", "n2"]);
    let too_long = keyed(device, Some(ALICE), 6, &[0; 1_000]);
    assert_eq!(one(&store, Op::Append(too_long), T0), Err(Refusal::MailboxFull));
    assert_eq!(bodies(&store, ALICE).len(), 5, "a refused replacement leaves the old one");
}

pub(super) fn a_handle_table_is_cut_and_appended_to<S: Store>(make: fn(StoreConfig) -> S) {
    let store = make(small());
    let (device, other) = (join(&store, ALICE, 1), join(&store, ALICE, 2));
    let key = |n: u8| AccountKey([n; 32]);
    let address = |n: u8| MailboxAddress { mailbox: key(n), token: Token([n + 1; 16]) };
    let put = |from, tail| one(&store, Op::PutTable { device, from, tail }, T0);
    let mailboxes = |all: &[u8]| TableTail::ToRelay(all.iter().map(|n| address(*n)).collect());
    let senders = |all: &[u8]| TableTail::FromRelay(all.iter().map(|n| key(*n)).collect());
    assert_eq!(put(0, mailboxes(&[1, 2, 3])), Ok(Done::TablePut));
    assert_eq!(put(0, senders(&[9])), Ok(Done::TablePut));
    assert_eq!(put(1, mailboxes(&[4])), Ok(Done::TablePut));
    assert_eq!(put(3, mailboxes(&[5])), Err(Refusal::TableGap { entries: 2 }));
    assert_eq!(put(2, senders(&[5])), Err(Refusal::TableGap { entries: 1 }));
    assert_eq!(put(2, mailboxes(&[5, 6, 7])), Err(Refusal::TableFull));
    let expected = HandleTables { to_relay: vec![address(1), address(4)], from_relay: vec![key(9)] };
    assert_eq!(store.tables(device).unwrap(), expected);
    assert_eq!(store.tables(other).unwrap(), HandleTables::default());
    assert_eq!(put(0, mailboxes(&[])), Ok(Done::TablePut));
    assert!(store.tables(device).unwrap().to_relay.is_empty());
}

pub(super) fn a_read_is_bounded_but_never_starved<S: Store>(make: fn(StoreConfig) -> S) {
    let store = make(small());
    let device = join(&store, ALICE, 1);
    for (sequence, len) in [(1, 100), (2, 50), (3, 51)] {
        accept(&store, append(device, ALICE, sequence, &vec![0; len]), T0);
    }
    let lens = |entries_max, bytes_max| {
        let read = store.read(&ALICE, Position(0), entries_max, bytes_max).unwrap();
        read.iter().map(|(_, entry)| entry.body.len()).collect::<Vec<_>>()
    };
    assert_eq!(lens(10, 10), [100]);
    assert_eq!(lens(10, 150), [100, 50]);
    assert_eq!(lens(1, 1_000), [100]);
    assert_eq!(lens(10, 201), [100, 50, 51]);
}

pub(super) fn a_tls_session_is_taken_once_and_the_oldest_go_first<S: Store>(make: fn(StoreConfig) -> S) {
    let store = make(small());
    let put = |key: &[u8], value: &'static str| {
        assert!(store.put_session(key, Bytes::from_static(value.as_bytes())));
        store.apply(&[], T0).unwrap();
    };
    put(b"a", "1");
    put(b"b", "2");
    put(b"a", "3");
    put(b"c", "4");
    assert_eq!(store.take_session(b"b").unwrap(), None, "the oldest of three");
    assert_eq!(store.take_session(b"a").unwrap().unwrap(), "3");
    assert_eq!(store.take_session(b"a").unwrap(), None, "before the commit");
    store.apply(&[], T0).unwrap();
    assert_eq!(store.take_session(b"a").unwrap(), None, "after the commit");
    assert_eq!(store.take_session(b"c").unwrap().unwrap(), "4");
    assert!(!store.put_session(b"d", Bytes::from(vec![0; super::SESSION_VALUE_BYTES_MAX + 1])));
}

pub(super) fn what_names_an_unknown_device_is_refused<S: Store>(make: fn(StoreConfig) -> S) {
    let store = make(small());
    join(&store, ALICE, 1);
    let device = DeviceNo(77);
    let ops = [
        Op::Append(append(device, ALICE, 1, b"x")),
        Op::Settle { device, upto: Position(1) },
        Op::Seen { device },
        Op::PutTable { device, from: 0, tail: TableTail::FromRelay(vec![ALICE]) },
        Op::Revoke { device, id: TokenId::open(1) },
        Op::PutKeys { device, replaces: true, keys: vec![] },
        Op::Claim { device, address: MailboxAddress { mailbox: ALICE, token: Token([0; 16]) } },
        open(device, ObjectId([7; 32]), 500),
    ];
    for verdict in store.apply(&ops, T0).unwrap() {
        assert_eq!(verdict, Err(Refusal::UnknownDevice));
    }
    assert_eq!(store.tables(device).unwrap(), HandleTables::default());
}

pub(super) fn one_refusal_leaves_the_ops_around_it_alone<S: Store>(make: fn(StoreConfig) -> S) {
    let store = make(small());
    let device = join(&store, ALICE, 1);
    let ops = [
        Op::Append(append(device, ALICE, 1, b"first")),
        Op::Append(append(device, BOB, 2, b"nowhere")),
        Op::Append(append(device, ALICE, 1, b"first")),
        Op::Append(append(device, ALICE, 3, b"second")),
    ];
    let verdicts = store.apply(&ops, T0).unwrap();
    assert!(matches!(verdicts[0], Ok(Done::Accepted { .. })));
    assert_eq!(verdicts[1], Err(Refusal::NoSuchMailbox));
    assert_eq!(verdicts[2], Ok(Done::Repeat), "within one group");
    assert!(matches!(verdicts[3], Ok(Done::Accepted { .. })));
    assert_eq!(bodies(&store, ALICE), ["first", "second"]);
}
