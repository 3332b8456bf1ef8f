use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;

use bytes::Bytes;
use thinpost_wire::dictionary::DictionarySet;
use thinpost_wire::limits::HANDLES_MAX;
use thinpost_wire::link::{Event, LinkConfig, Time};

use super::*;

const OWNER: AccountKey = AccountKey([0; 32]);
const ALICE: AccountKey = AccountKey([1; 32]);
const BOB: AccountKey = AccountKey([2; 32]);
const NOW: RelayTime = RelayTime(1_000);

fn link() -> Link {
    Link::new(LinkConfig {
        initial_rtt: Duration::from_secs(1),
        is_rtt_measured: false,
        peer_has: DictionarySet::compiled_in(),
        poll_pause_max: Duration::from_secs(60),
    })
}

/// What a device reads, after all that was pushed has reached it: each frame as it prints.
fn read(relay: &mut Link) -> Vec<String> {
    let mut device = link();
    while let Some(datagram) = relay.poll_transmit(Time::default(), 1_200) {
        device.handle_datagram(Time::default(), &datagram).expect("the relay keeps to the protocol");
    }
    let frame = |bytes: Bytes| format!("{:?}", ToDevice::decode(&bytes).expect("a frame"));
    std::iter::from_fn(|| device.poll_event())
        .filter_map(|event| if let Event::Frame { bytes, .. } = event { Some(frame(bytes)) } else { None })
        .collect()
}

fn prints<'a>(frames: impl IntoIterator<Item = ToDevice<'a>>) -> Vec<String> {
    frames.into_iter().map(|frame| format!("{frame:?}")).collect()
}

fn entry(sender: Option<AccountKey>, age_s: u32, stay_s: u64) -> Entry {
    Entry {
        sender,
        flags: 0,
        is_request: false,
        submitter: None,
        deadline: NOW.after_s(1),
        stored_at: RelayTime(NOW.0 - stay_s),
        age_s,
        collapse: None,
        body: Bytes::from_static(b"hello"),
    }
}

/// A delivery that has started behind position 10, to a device that knows these senders.
fn started(senders: &[AccountKey], watches: &Watches) -> Delivery {
    let mut delivery = Delivery::default();
    let table = HandleTable::new(senders.to_vec());
    let known = table.state();
    delivery.know_senders(table, known);
    delivery.start(OWNER, Position(10), Position(10), watches);
    delivery
}

fn deliver(advance: u64, from: Handle) -> ToDevice<'static> {
    ToDevice::Deliver { advance, from, body: b"hello" }
}

fn deliver_with(advance: u64, from: Option<Handle>, age_s: u32) -> ToDevice<'static> {
    ToDevice::DeliverWith { advance, options: DeliverOptions { from, age_s }, body: b"hello" }
}

fn has_changed(delivery: &mut Delivery) -> bool {
    pin!(delivery.changed()).poll(&mut Context::from_waker(Waker::noop())).is_ready()
}

/// Where the store's table is cut, and what is appended, if it must learn anything.
fn learns(delivery: &mut Delivery) -> Option<(u16, Vec<AccountKey>)> {
    match delivery.take_new_senders(DeviceNo(3))? {
        Op::PutTable { device: DeviceNo(3), from, tail: TableTail::FromRelay(accounts) } => {
            Some((from, accounts))
        }
        _ => panic!("not about this device's senders"),
    }
}

#[test]
fn places_are_counted_from_the_last_one_pushed_and_the_expired_skipped() {
    let mut delivery = started(&[ALICE], &Watches::default());
    assert_eq!(delivery.place(), (OWNER, Position(10)));
    let over = Entry { deadline: NOW, ..entry(Some(ALICE), 0, 0) };
    let mut relay = link();
    let first = vec![(Position(13), entry(Some(ALICE), 0, 0)), (Position(15), over)];
    delivery.push(&mut relay, first, NOW);
    assert_eq!(delivery.place(), (OWNER, Position(15)), "the expired need not be read again");
    delivery.push(&mut relay, vec![(Position(20), entry(Some(ALICE), 0, 0))], NOW);
    assert_eq!(read(&mut relay), prints([deliver(3, Handle(1)), deliver(7, Handle(1))]));
}

#[test]
fn where_less_was_stated_than_was_read_the_first_place_is_counted_from_what_was_stated() {
    let mut delivery = Delivery::default();
    let table = HandleTable::new(vec![ALICE]);
    let known = table.state();
    delivery.know_senders(table, known);
    delivery.start(OWNER, Position(10), Position(0), &Watches::default());
    assert_eq!(delivery.place(), (OWNER, Position(10)), "what was read is not read again");
    let mut relay = link();
    let both = [13, 20].map(|position| (Position(position), entry(Some(ALICE), 0, 0)));
    delivery.push(&mut relay, both.into(), NOW);
    assert_eq!(read(&mut relay), prints([deliver(13, Handle(1)), deliver(7, Handle(1))]));
}

#[test]
fn an_age_is_stated_from_two_seconds_on_and_holds_the_stay_at_the_relay() {
    let mut delivery = started(&[ALICE], &Watches::default());
    let mut relay = link();
    let ages = [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2), (30, 400), (u32::MAX, 1)];
    let entries = ages.iter().zip(11..).map(|(&(age_s, stay_s), position)| {
        let position = Position(position);
        (position, entry(Some(ALICE), age_s, stay_s))
    });
    delivery.push(&mut relay, entries.collect(), NOW);
    let from = Handle(1);
    let young = [deliver(1, from), deliver(1, from), deliver(1, from)];
    let old = [2, 2, 430, u32::MAX].map(|age_s| deliver_with(1, Some(from), age_s));
    assert_eq!(read(&mut relay), prints(young.into_iter().chain(old)));
}

#[test]
fn a_sender_is_introduced_once_and_who_is_not_named_has_no_handle() {
    let mut delivery = started(&[ALICE], &Watches::default());
    let mut relay = link();
    let entries = [Some(BOB), None, Some(BOB), Some(ALICE)].map(|sender| entry(sender, 0, 0));
    delivery.push(&mut relay, (11..).map(Position).zip(entries).collect(), NOW);
    let bob = ToDevice::Peer { handle: Handle(2), account: BOB };
    let bodies =
        [deliver(1, Handle(2)), deliver_with(1, None, 0), deliver(1, Handle(2)), deliver(1, Handle(1))];
    assert_eq!(read(&mut relay), prints([bob].into_iter().chain(bodies)));
    assert_eq!(delivery.senders_known(), 2);
}

#[test]
fn beyond_a_full_table_senders_are_not_named() {
    let account = |n: u32| {
        let mut key = [7; 32];
        key[..4].copy_from_slice(&n.to_le_bytes());
        AccountKey(key)
    };
    let known: Vec<_> = (0..u32::from(HANDLES_MAX)).map(account).collect();
    let mut delivery = started(&known, &Watches::default());
    let mut relay = link();
    delivery.push(&mut relay, vec![(Position(11), entry(Some(ALICE), 0, 0))], NOW);
    assert_eq!(read(&mut relay), prints([deliver_with(1, None, 0)]));
    assert_eq!(learns(&mut delivery), None);
}

#[test]
fn a_device_is_told_once_that_it_has_all_there_was() {
    let watches = Watches::default();
    let mut delivery = started(&[ALICE], &watches);
    let mut relay = link();
    assert!(delivery.has_mail(), "there may be, before the first look");
    delivery.push(&mut relay, vec![(Position(11), entry(Some(ALICE), 0, 0))], NOW);
    assert!(delivery.has_mail(), "there may be more");
    delivery.push(&mut relay, Vec::new(), NOW);
    assert!(!delivery.has_mail());
    assert!(!has_changed(&mut delivery));

    watches.wake(&OWNER, Position(12));
    assert!(has_changed(&mut delivery));
    assert!(delivery.has_mail());
    delivery.push(&mut relay, vec![(Position(12), entry(Some(ALICE), 0, 0))], NOW);
    delivery.push(&mut relay, Vec::new(), NOW);
    let frames = [deliver(1, Handle(1)), ToDevice::CaughtUp, deliver(1, Handle(1))];
    assert_eq!(read(&mut relay), prints(frames));
}

#[test]
fn a_device_that_does_not_read_has_no_mail() {
    let mut delivery = Delivery::default();
    assert!(!delivery.has_mail());
    assert!(!has_changed(&mut delivery));
    let mut relay = link();
    delivery.push(&mut relay, vec![(Position(11), entry(Some(ALICE), 0, 0))], NOW);
    assert_eq!(read(&mut relay), prints([]));
}

#[test]
fn the_cursor_follows_what_the_device_has_settled() {
    let mut delivery = started(&[ALICE], &Watches::default());
    let mut relay = link();
    let positions = [12, 14, 15, 19].map(Position);
    // BOB is introduced before his: one number more on the link.
    let senders = [ALICE, BOB, ALICE, ALICE];
    let entries = positions.into_iter().zip(senders.map(|sender| entry(Some(sender), 0, 0)));
    delivery.push(&mut relay, entries.collect(), NOW);
    assert_eq!(delivery.settled(0), None);
    assert_eq!(delivery.settled(1), Some(Position(12)));
    assert_eq!(delivery.settled(2), None, "an introduction is no mail");
    assert_eq!(delivery.settled(4), Some(Position(15)));
    assert_eq!(delivery.settled(4), None, "no news");
    assert_eq!(delivery.settled(5), Some(Position(19)));
}

#[test]
fn the_store_learns_new_senders_once_and_drops_those_the_device_does_not_know() {
    let mut delivery = started(&[ALICE], &Watches::default());
    assert_eq!(learns(&mut delivery), None);
    delivery.push(&mut link(), vec![(Position(11), entry(Some(BOB), 0, 0))], NOW);
    assert_eq!(learns(&mut delivery), Some((1, vec![BOB])));
    assert_eq!(learns(&mut delivery), None);

    // The device comes from an old copy of its home, or the store's table from another device's time.
    let stored = HandleTable::new(vec![ALICE, BOB]);
    delivery.know_senders(stored.clone(), HandleTable::new(vec![ALICE]).state());
    assert_eq!(delivery.senders_known(), 1);
    assert_eq!(learns(&mut delivery), Some((1, vec![])));
    assert_eq!(learns(&mut delivery), None);
    delivery.know_senders(stored, HandleTable::new(vec![BOB]).state());
    assert_eq!(delivery.senders_known(), 0);
    assert_eq!(learns(&mut delivery), Some((0, vec![])));
}
