//! What may be wrong with accounts and devices, and what is said of it.

use super::*;
use crate::store::bounds::LIFETIME_S_MAX;

faults! {
    an_account_without_its_mailbox: MAILBOXES
        |table: &mut Edited<'_, u32, (u32, u64, u32, u64)>| drop(table.remove(1).unwrap()) => [
            format!("accounts {ALICE_HEX}: its mailbox 1 is missing"),
            "secrets 1: its mailbox is missing".to_owned(),
            "entries 3: its mailbox is missing".to_owned(),
            "entries 4: its mailbox is missing".to_owned(),
            "objects 1: its mailbox is missing".to_owned(),
        ];
    a_mailbox_of_two_accounts: ACCOUNTS
        |table: &mut Edited<'_, &'static [u8; 32], u32>| drop(table.insert(&[0x0f; 32], 2).unwrap()) => [
            format!("accounts {}: mailbox 2 is another account's, too", "0f".repeat(32))
        ];
    a_mailbox_of_nobody: MAILBOXES
        |table: &mut Edited<'_, u32, (u32, u64, u32, u64)>| drop(table.insert(9, (0, 0, 0, 0)).unwrap()) => [
            "mailboxes 9: it is no account's",
            "mailboxes 9: nobody reads it",
        ];
    an_account_without_a_secret: SECRETS
        |table: &mut Edited<'_, u32, &'static [u8; 32]>| drop(table.remove(1).unwrap()) => [
            format!("accounts {ALICE_HEX}: its tokens have no secret")
        ];
    a_revocation_of_no_mailbox: REVOKED
        |table: &mut Edited<'_, (u32, u32), ()>| drop(table.insert((9, 1), ()).unwrap()) => [
            "revoked 9: its mailbox is missing"
        ];
    a_closed_mailbox_that_is_none: CLOSED
        |table: &mut Edited<'_, u32, ()>| drop(table.insert(9, ()).unwrap()) => [
            "closed 9: its mailbox is missing"
        ];
    an_invite_that_let_nobody_in: INVITES
        |table: &mut Edited<'_, u64, u32>| drop(table.insert(3, 0).unwrap()) => [
            "invites 0000000000000003: it has let nobody in"
        ];
    an_invite_that_let_in_more_than_are_there: INVITES
        |table: &mut Edited<'_, u64, u32>| drop(table.insert(3, 2).unwrap()) => [
            "invites: 3 accounts were let in, and 2 are there"
        ];
    a_device_that_cannot_be_read: DEVICES
        |table: &mut Edited<'_, u32, &'static [u8]>| drop(table.insert(3, [1; 9].as_slice()).unwrap()) => [
            "devices 3: it cannot be read",
            "readers 2/3: its device reads another, or is missing",
            "incarnations 3/0101010101010101: its device is missing",
            "one-time-keys 3: its device is missing",
            "one-time-keys 3: its device is missing",
            "senders 3/0: its device is missing",
            "senders 3/1: its device is missing",
        ];
    a_device_of_another_account: DEVICES
        |table: &mut Edited<'_, u32, &'static [u8]>| edit_device(table, 1, |device| device.account = [9; 32]) => [
            "devices 1: its account has another mailbox, or is missing"
        ];
    a_cursor_behind_everything: DEVICES
        |table: &mut Edited<'_, u32, &'static [u8]>| edit_device(table, 1, |device| device.cursor = 5) => [
            "devices 1: its cursor stands behind all positions"
        ];
    a_device_from_the_future: DEVICES
        |table: &mut Edited<'_, u32, &'static [u8]>| edit_device(table, 1, |device| device.last_seen = u64::MAX) => [
            "remark: devices 1: it was seen later than now"
        ];
    a_silent_device_with_a_timer: DEVICES
        |table: &mut Edited<'_, u32, &'static [u8]>| edit_device(table, 1, |device| device.silent = true) => [
            "devices 1: it is silent, and has a timer"
        ];
    a_device_without_a_key: DEVICE_KEYS
        |table: &mut Edited<'_, &'static [u8; 32], u32>| drop(table.remove(&[3; 32]).unwrap()) => [
            "devices 3: it has no key",
            "mailboxes 2: it is open, and nobody has come back",
            "one-time-keys 3: its device has not registered",
            "one-time-keys 3: its device has not registered",
        ];
    a_key_that_leads_to_another_device: DEVICE_KEYS
        |table: &mut Edited<'_, &'static [u8; 32], u32>| drop(table.insert(&[3; 32], 1).unwrap()) => [
            format!("device-keys {THIRD_KEY}: device 1 has another key, too"),
            "devices 3: it has no key".to_owned(),
            "mailboxes 2: it is open, and nobody has come back".to_owned(),
            "one-time-keys 3: its device has not registered".to_owned(),
            "one-time-keys 3: its device has not registered".to_owned(),
        ];
    a_returning_device_that_is_none: RETURNING
        |table: &mut Edited<'_, &'static [u8; 32], u32>| drop(table.insert(&[9; 32], 9).unwrap()) => [
            format!("returning {}: device 9 is missing", "09".repeat(32))
        ];
    a_key_of_two_devices: RETURNING
        |table: &mut Edited<'_, &'static [u8; 32], u32>| drop(table.insert(&[3; 32], 2).unwrap()) => [
            format!("returning {THIRD_KEY}: device 2 has another key, too"),
            format!("returning {THIRD_KEY}: a device has registered with it"),
        ];
    a_closed_mailbox_that_somebody_reads: CLOSED
        |table: &mut Edited<'_, u32, ()>| drop(table.insert(2, ()).unwrap()) => [
            "closed 2: device 3 reads it, and has registered"
        ];
    a_device_that_reads_nothing: READERS
        |table: &mut Edited<'_, (u32, u32), ()>| drop(table.remove((1, 2)).unwrap()) => [
            "devices 2: it is none of its mailbox's readers"
        ];
    a_reader_of_anothers_mailbox: READERS
        |table: &mut Edited<'_, (u32, u32), ()>| drop(table.insert((2, 1), ()).unwrap()) => [
            "readers 2/1: its device reads another, or is missing"
        ];
    a_device_without_a_timer: DEVICE_TIMERS
        |table: &mut Edited<'_, (u64, u32), ()>| drop(table.pop_first().unwrap()) => [
            "devices 1: it has no timer"
        ];
    a_timer_of_no_device: DEVICE_TIMERS
        |table: &mut Edited<'_, (u64, u32), ()>| drop(table.insert((7, 9), ()).unwrap()) => [
            "device-timers 7/9: its device is missing"
        ];
    a_device_with_two_timers: DEVICE_TIMERS
        |table: &mut Edited<'_, (u64, u32), ()>| drop(table.insert((9_000, 1), ()).unwrap()) => [
            "device-timers 9000/1: its device has another, too"
        ];
    a_digest_that_is_missing: ACCEPTED
        |table: &mut Edited<'_, (u32, u64, u64), u64>| drop(table.remove((1, INCARNATION, 2)).unwrap()) => [
            "incarnations 1/0101010101010101: 2 digests are counted, and 1 are there"
        ];
    a_digest_of_no_incarnation: ACCEPTED
        |table: &mut Edited<'_, (u32, u64, u64), u64>| drop(table.insert((1, 2, 3), 4).unwrap()) => [
            "accepted 1/0000000000000002/3: its incarnation is missing"
        ];
    a_floor_above_its_numbers: INCARNATIONS
        |table: &mut Edited<'_, (u32, u64), (u64, u32, u64, u64)>| edit_floor(table, 2) => [
            "remark: incarnations 1/0101010101010101: its floor is 2, and its numbers begin at 1"
        ];
    an_incarnation_without_a_timer: INCARNATION_TIMERS
        |table: &mut Edited<'_, (u64, u32, u64), ()>| drop(table.pop_first().unwrap()) => [
            "incarnations 1/0101010101010101: it has no timer"
        ];
    a_timer_of_no_incarnation: INCARNATION_TIMERS
        |table: &mut Edited<'_, (u64, u32, u64), ()>| drop(table.insert((7, 1, 8), ()).unwrap()) => [
            "incarnation-timers 7/1/0000000000000008: its incarnation has another, or is missing"
        ];
    a_one_time_key_of_no_device: ONE_TIME_KEYS
        |table: &mut Edited<'_, (u32, &'static [u8; 32]), ()>| drop(table.insert((9, &[1; 32]), ()).unwrap()) => [
            "one-time-keys 9: its device is missing"
        ];
    a_gap_between_handles: SENDERS
        |table: &mut Edited<'_, (u32, u16), &'static [u8; 32]>| drop(table.remove((3, 0)).unwrap()) => [
            "senders 3/1: handles before it are missing"
        ];
    a_handle_of_no_device: ADDRESSES
        |table: &mut Edited<'_, (u32, u16), &'static [u8; 48]>| drop(table.insert((9, 0), &[0; 48]).unwrap()) => [
            "addresses 9/0: its device is missing"
        ];
    a_session_out_of_order: SESSION_ORDER
        |table: &mut Edited<'_, u64, &'static [u8]>| drop(table.insert(1, b"other".as_slice()).unwrap()) => [
            "sessions 1: another has its place"
        ];
    a_session_longer_than_any: SESSIONS
        |table: &mut Edited<'_, &'static [u8], (u64, &'static [u8])>| {
            table.insert(b"session".as_slice(), (1, [0; 4_097].as_slice())).unwrap();
        } => ["sessions 1: it is longer than any is"];
    a_session_in_no_place: SESSIONS
        |table: &mut Edited<'_, &'static [u8], (u64, &'static [u8])>| {
            table.insert(b"session".as_slice(), (0, b"secret".as_slice())).unwrap();
        } => ["sessions 0: its place was never given out", "sessions 0: another has its place"];
    a_place_without_a_session: SESSION_ORDER
        |table: &mut Edited<'_, u64, &'static [u8]>| drop(table.insert(2, b"other".as_slice()).unwrap()) => [
            "session-order: 2 have a place, and 1 are there"
        ];
}

#[test]
fn a_mailbox_is_open_if_one_of_its_devices_has_come_back_and_then_only() {
    let gone = |write: &WriteTransaction, of_keys: &[u8]| {
        let mut keys = write.open_table(DEVICE_KEYS).unwrap();
        let mut returning = write.open_table(RETURNING).unwrap();
        let mut devices = write.open_table(DEVICES).unwrap();
        for key in of_keys {
            let number = keys.remove(&[*key; 32]).unwrap().unwrap().value();
            returning.insert(&[*key; 32], number).unwrap();
            edit_device(&mut devices, number, |device| device.last = None);
        }
    };
    let open = Sample::after(|write| gone(write, &[3]));
    let expected = [
        "mailboxes 2: it is open, and nobody has come back",
        "one-time-keys 3: its device has not registered",
        "one-time-keys 3: its device has not registered",
    ];
    assert_eq!(open, expected);
    let closed = Sample::after(|write| {
        gone(write, &[3]);
        write.open_table(CLOSED).unwrap().insert(2, ()).unwrap();
        write.open_table(ONE_TIME_KEYS).unwrap().retain(|_, ()| false).unwrap();
    });
    assert_eq!(closed, [""; 0]);
    assert_eq!(Sample::after(|write| gone(write, &[1])), [""; 0], "Alice's other device is back");
    let nobodys = Sample::after(|write| drop(write.open_table(READERS).unwrap().remove((2, 3)).unwrap()));
    assert_eq!(nobodys, ["devices 3: it is none of its mailbox's readers", "mailboxes 2: nobody reads it"]);
}

#[test]
fn a_floor_is_where_the_numbers_begin_that_are_kept() {
    let found = |floor, numbers: std::ops::Range<u64>| {
        Sample::after(|write| {
            let mut accepted = write.open_table(ACCEPTED).unwrap();
            accepted.retain_in((1, INCARNATION, 0)..=(1, INCARNATION, u64::MAX), |_, _| false).unwrap();
            for number in numbers.clone() {
                accepted.insert((1, INCARNATION, number), 0).unwrap();
            }
            let mut incarnations = write.open_table(INCARNATIONS).unwrap();
            let (_, _, used, timer) = incarnations.get((1, INCARNATION)).unwrap().unwrap().value();
            let kept = numbers.clone().count() as u32;
            incarnations.insert((1, INCARNATION), (floor, kept, used, timer)).unwrap();
        })
    };
    for (floor, numbers) in [(0, 2..4), (2, 2..4), (0, 7..1_030), (5, 5..1_029)] {
        assert_eq!(found(floor, numbers.clone()), [""; 0], "floor {floor} of {numbers:?}");
    }
    let row = "incarnations 1/0101010101010101:";
    for (floor, numbers) in [(1, 2..4), (0, 5..1_029)] {
        let expected =
            format!("remark: {row} its floor is {floor}, and its numbers begin at {}", numbers.start);
        assert_eq!(found(floor, numbers), [expected]);
    }
    assert_eq!(found(0, 0..0), [format!("{row} it is known by nothing")]);
}

#[test]
fn a_device_that_has_not_come_back_is_known_by_no_opening() {
    let found = Sample::after(|write| {
        write.open_table(DEVICE_KEYS).unwrap().remove(&[1; 32]).unwrap();
        write.open_table(RETURNING).unwrap().insert(&[1; 32], 1).unwrap();
    });
    assert_eq!(found, ["devices 1: it has not registered, and is known by an opening"]);
}

#[test]
fn a_device_that_is_gone_with_all_it_had_is_missed() {
    let found = Sample::after(|write| {
        write.open_table(DEVICES).unwrap().remove(2).unwrap();
        write.open_table(DEVICE_KEYS).unwrap().remove(&[2; 32]).unwrap();
        write.open_table(DEVICE_TIMERS).unwrap().retain(|(_, device), ()| device != 2).unwrap();
        write.open_table(READERS).unwrap().remove((1, 2)).unwrap();
        write.open_table(ACCEPTED).unwrap().retain(|(device, _, _), _| device != 2).unwrap();
        write.open_table(INCARNATIONS).unwrap().retain(|(device, _), _| device != 2).unwrap();
        write.open_table(INCARNATION_TIMERS).unwrap().retain(|(_, device, _), ()| device != 2).unwrap();
    });
    assert_eq!(found, ["meta state: 3 devices were given out, and 2 are there"]);
}

#[test]
fn timers_that_nothing_has_waited_for_are_remarked() {
    let late = T0.0 + LIFETIME_S_MAX + 1;
    let found = Sample::after(|write| {
        let mut timers = write.open_table(DEVICE_TIMERS).unwrap();
        timers.retain(|(_, device), ()| device != 1).unwrap();
        timers.insert((late, 1), ()).unwrap();
        let mut incarnations = write.open_table(INCARNATIONS).unwrap();
        let (floor, kept, used, timer) = incarnations.get((1, INCARNATION)).unwrap().unwrap().value();
        incarnations.insert((1, INCARNATION), (floor, kept, used, late)).unwrap();
        let mut timers = write.open_table(INCARNATION_TIMERS).unwrap();
        timers.remove((timer, 1, INCARNATION)).unwrap();
        timers.insert((late, 1, INCARNATION), ()).unwrap();
    });
    let expected = [
        "remark: devices 1: it is waited for longer than anything is",
        "remark: incarnations 1/0101010101010101: it is remembered longer than anything is",
    ];
    assert_eq!(found, expected);
}

#[test]
fn more_keys_than_a_device_may_leave_are_remarked() {
    let found = Sample::after(|write| {
        let mut keys = write.open_table(ONE_TIME_KEYS).unwrap();
        for n in 0..51 {
            keys.insert((1, &[n; 32]), ()).unwrap();
        }
    });
    assert_eq!(found, ["remark: one-time-keys 1: it has left more than are kept"]);
}
