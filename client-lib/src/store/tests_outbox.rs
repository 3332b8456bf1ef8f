//! What becomes of the rows of the outbox.

use thinpost_wire::frame::Refusal;
use thinpost_wire::ticket::SealKeys;

use super::records::SealedRow;
use super::tests::{BOB, NOW, created, numbers, open, row};
use super::*;
use crate::message::MessageState;

#[test]
fn only_what_has_a_name_and_is_in_custody_is_kept() {
    let memory = created();
    let (store, _) = open(&memory);
    let seal = Some(SealKeys { identity: [1; 32], pre_key: [2; 32], envelope: [3; 32] });
    let mut rows = [row(b"visible"), OutboxRow { seal, ..row(b"sealed") }, OutboxRow { seal, ..row(b"x") }];
    store.enqueue(&mut rows, &numbers(NOW)).unwrap();
    let [visible, sealed, refused] = [1, 2, 3].map(MessageId);
    let failure = Failure::Refused(Refusal::TooLarge);
    let custody = vec![(visible, 5), (sealed, 6)];
    store.apply(&Changes { custody, failed: vec![(refused, failure)], ..Changes::default() }).unwrap();
    let counts = store.counts().unwrap();
    assert_eq!((counts.waiting, counts.unconfirmed), (0, 1));
    let mut loaded = store.load().unwrap();
    let again = loaded.kept.relay_lost_all().again;
    assert_eq!(again.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [sealed]);
}

#[test]
fn what_is_sent_again_travels_under_a_new_number_and_by_itself() {
    let memory = created();
    let (store, _) = open(&memory);
    let numbers = numbers(NOW);
    let seal = Some(SealKeys { identity: [1; 32], pre_key: [2; 32], envelope: [3; 32] });
    store.enqueue(&mut [b"a", b"b"].map(|letter| OutboxRow { seal, ..row(letter) }), &numbers).unwrap();
    let [carrier, rider] = [1, 2].map(MessageId);
    let mut rows = store.departures(&[carrier]).unwrap();
    rows[0].sealed = Some(SealedRow { body: b"sealed".to_vec(), riders: vec![rider] });
    store.hand_over(&mut rows, &[], &numbers).unwrap();
    store.apply(&Changes { custody: vec![(carrier, 1)], ..Changes::default() }).unwrap();
    let again = store.load().unwrap().kept.relay_lost_all().again;
    store.apply(&Changes { again, ..Changes::default() }).unwrap();
    let outbox = store.load().unwrap().outbox;
    let travels = outbox.iter().map(|(id, queued)| (*id, queued.number, queued.rides_with, queued.again));
    assert_eq!(travels.collect::<Vec<_>>(), [(carrier, None, None, 1), (rider, None, None, 1)]);
}

#[test]
fn what_was_in_custody_once_does_not_fail_but_is_abandoned() {
    let memory = created();
    let (store, _) = open(&memory);
    let failure = Failure::Refused(Refusal::TooLarge);
    let again = OutboxRow { again: 1, ..row(b"again") };
    store.enqueue(&mut [again, row(b"new")], &numbers(NOW)).unwrap();
    assert_eq!(store.message_state(MessageId(1)).unwrap(), Some(MessageState::Custody));
    let failed = vec![(MessageId(1), failure), (MessageId(2), failure)];
    let counters = store.apply(&Changes { failed, ..Changes::default() }).unwrap();
    assert_eq!((counters.failed, counters.abandoned, counters.custody), (1, 1, 0));
    let state = |id| store.message_state(MessageId(id)).unwrap().unwrap();
    assert_eq!(state(1), MessageState::Abandoned(Abandonment::Failed(failure)));
    assert_eq!(state(2), MessageState::Failed(failure));
    let notices: Vec<_> = store.notices().unwrap().into_iter().map(|(_, notice)| notice.matter).collect();
    assert_eq!(notices, [Matter::Abandoned(BOB)]);
}

#[test]
fn a_message_gets_another_name_with_other_keys_and_notes_have_none() {
    let memory = created();
    let (store, _) = open(&memory);
    let keys = |n| SealKeys { identity: [n; 32], pre_key: [2; 32], envelope: [3; 32] };
    let numbers = numbers(NOW);
    store.enqueue(&mut [OutboxRow { seal: Some(keys(1)), ..row(b"a") }], &numbers).unwrap();
    let notes = store.enqueue_notes(&[OutboxRow { seal: Some(keys(1)), ..row(b"") }]).unwrap();
    let ids = [MessageId(1), notes];
    let readdress = |to: SealKeys| {
        let mut rows = store.departures(&ids).unwrap();
        store.readdress(&mut rows.iter_mut().map(|row| (row, to)).collect::<Vec<_>>(), &numbers).unwrap();
        assert_eq!(store.departures(&ids).unwrap(), rows, "it is on disk");
        assert!(rows.iter().all(|departure| departure.row.seal == Some(to)));
        rows.iter().map(|departure| departure.row.written.sequence).collect::<Vec<_>>()
    };
    assert_eq!(readdress(SealKeys { pre_key: [9; 32], ..keys(1) }), [1, 0], "it is the same recipient");
    store.enqueue(&mut [OutboxRow { seal: Some(keys(7)), ..row(b"b") }], &numbers).unwrap();
    assert_eq!(readdress(keys(7)), [2, 0], "numbers count for each");
}
