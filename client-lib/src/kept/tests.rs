use thinpost_wire::batch::Ack;
use thinpost_wire::ids::{Incarnation, Origin};

use super::*;

const BOB: Identity = [2; 32];
const CAROL: Identity = [3; 32];
const NOW: ShortIncarnation = ShortIncarnation([7; 4]);
const BEFORE: ShortIncarnation = ShortIncarnation([6; 4]);

fn queued(to: Identity, number: u64) -> Queued {
    let name = Name::new(to, NOW, number);
    Queued { enqueued_ms: number, ..Queued::new(AccountKey(to), Some(name)) }
}

/// Bob's messages 1 to 4 and one of Carol's between the second and the third.
fn kept() -> Kept {
    let mut kept = Kept::default();
    for (id, (to, number)) in (1..).zip([(BOB, 1), (BOB, 2), (CAROL, 1), (BOB, 3), (BOB, 4)]) {
        let left = kept.leave(0);
        assert_eq!(kept.keep(MessageId(id), queued(to, number), left), News::default());
    }
    kept
}

fn name(number: u64) -> Name {
    Name::new(BOB, NOW, number)
}

fn receipt(watermark: u64, received: &[(u64, u64)], read: u64) -> Notes {
    let arrived = Ack { watermark, received: received.to_vec() };
    Notes { seen: vec![Seen { incarnation: NOW, arrived, read }], ..Notes::default() }
}

fn ids<T>(of: &[(MessageId, T)]) -> Vec<u64> {
    of.iter().map(|(id, _)| id.0).collect()
}

#[test]
fn a_receipt_lets_go_of_what_it_states_and_of_nobody_elses() {
    let mut kept = kept();
    let news = kept.heed(&BOB, None, &receipt(2, &[], 1));
    assert_eq!((ids(&news.delivered), ids(&news.read)), (vec![1, 2], vec![1]));
    assert_eq!(news.again, []);
    assert_eq!(kept.heed(&BOB, None, &receipt(2, &[], 1)), News::default(), "it says nothing new");
    assert_eq!(ids(&kept.heed(&BOB, None, &receipt(2, &[], 2)).read), [2]);
    assert_eq!(ids(&kept.heed(&CAROL, None, &receipt(9, &[], 0)).delivered), [3]);
}

#[test]
fn what_left_before_something_confirmed_is_sent_again_a_few_times() {
    let mut kept = kept();
    // Bob's second message is lost each time, and something later arrives.
    for (again, later) in (1..=AGAIN_MAX).zip(3..) {
        let news = kept.heed(&BOB, None, &receipt(1, &[(3, later)], 0));
        assert_eq!(ids(&news.again), [2]);
        let (id, lost) = news.again[0];
        assert_eq!(lost.again, again);
        let left = kept.leave(0);
        kept.keep(id, lost, left);
        let (id, left) = (MessageId(10 + later), kept.leave(0));
        kept.keep(id, queued(BOB, later + 1), left);
    }
    let news = kept.heed(&BOB, None, &receipt(1, &[(3, 100)], 0));
    assert_eq!(news.again, [], "a contact who never gets it gets it no more");
    let [(id, _, reason)] = news.abandoned[..] else { panic!("{news:?}") };
    assert_eq!((id, reason), (MessageId(2), Abandonment::TooOften));
    assert_eq!(kept.heed(&BOB, None, &receipt(1, &[(3, 101)], 0)).abandoned, [], "it is told once");
    let late = kept.heed(&BOB, None, &receipt(101, &[], 2));
    assert_eq!((ids(&late.delivered), ids(&late.read)), (vec![2], vec![1, 2]), "it has arrived after all");
}

#[test]
fn what_left_together_with_something_confirmed_is_not_taken_for_lost() {
    let mut kept = Kept::default();
    let left = kept.leave(0);
    kept.keep(MessageId(1), queued(BOB, 1), left);
    kept.keep(MessageId(2), queued(BOB, 2), left);
    assert_eq!(kept.heed(&BOB, None, &receipt(0, &[(2, 2)], 0)).again, []);
}

#[test]
fn all_is_sent_again_to_who_asks_or_when_the_relay_has_lost_it() {
    let mut kept = kept();
    kept.heed(&BOB, None, &receipt(2, &[], 0));
    let asked = kept.heed(&BOB, None, &Notes { again: true, ..Notes::default() });
    assert_eq!(ids(&asked.again), [4, 5]);
    assert_eq!(ids(&kept.relay_lost_all().again), [3]);
    assert_eq!(kept.relay_lost_all(), News::default(), "they are in the outbox now");
}

#[test]
fn what_was_sealed_for_keys_of_before_goes_to_who_has_the_account_now_and_to_nobody_else() {
    let (account, anew) = (AccountKey(BOB), [9; 32]);
    let again = Notes { again: true, ..Notes::default() };
    assert_eq!(kept().heed(&anew, None, &again), News::default(), "whoever that is");
    assert_eq!(ids(&kept().heed(&anew, Some(account), &again).again), [1, 2, 4, 5]);
    // Or they confirm something that left later.
    let mut kept = kept();
    let left = kept.leave(0);
    let to_them = Queued { mailbox: account, ..queued(anew, 1) };
    kept.keep(MessageId(6), to_them, left);
    let news = kept.heed(&anew, Some(account), &receipt(1, &[], 0));
    assert_eq!((ids(&news.delivered), ids(&news.again)), (vec![6], vec![1, 2, 4, 5]));
}

#[test]
fn a_receipt_that_came_before_custody_was_known_counts() {
    let mut kept = Kept::default();
    kept.heed(&BOB, Some(AccountKey(BOB)), &receipt(1, &[], 1));
    let left = kept.leave(0);
    let news = kept.keep(MessageId(1), queued(BOB, 1), left);
    assert_eq!((ids(&news.delivered), ids(&news.read)), (vec![1], vec![1]));
    let left = kept.leave(0);
    assert_eq!(kept.keep(MessageId(2), queued(BOB, 2), left), News::default());
}

#[test]
fn what_was_confirmed_before_its_custody_was_known_is_done_and_what_left_before_it_is_lost() {
    let mut kept = kept();
    let left = kept.leave(0);
    kept.keep_arrived(MessageId(6), &queued(BOB, 5), left, false);
    let news = kept.heed(&BOB, None, &receipt(0, &[(5, 5)], 5));
    assert_eq!((ids(&news.delivered), ids(&news.read)), (vec![], vec![6]));
    assert_eq!(ids(&news.again), [1, 2, 4, 5]);
}

#[test]
fn one_message_of_those_without_a_receipt_is_sent_again_after_ever_longer_whiles() {
    let mut kept = kept();
    let mut now = 5;
    for again in 0..AGAIN_MAX {
        assert_eq!(kept.overdue(now + (OVERDUE_MS << again) - 3), News::default());
        now += OVERDUE_MS << again;
        let overdue = kept.overdue(now).again;
        assert_eq!(ids(&overdue), [1, 3], "one for Bob and one for Carol");
        for (id, queued) in overdue {
            kept.keep(id, queued, now);
        }
    }
    assert_eq!(kept.overdue(u64::MAX), News::default(), "enough is enough");
}

#[test]
fn a_clock_that_was_set_back_mixes_up_nothing() {
    let mut kept = Kept::default();
    let left = [5, 3, 3, 9].map(|now| kept.leave(now));
    assert_eq!(left, [5, 6, 7, 9]);
}

#[test]
fn what_is_too_old_or_too_much_is_given_up_and_told_with_the_reason() {
    let mut kept = kept();
    let given_up = |news: News, because: Abandonment| {
        assert!(news.abandoned.iter().all(|(_, _, reason)| *reason == because), "{news:?}");
        news.abandoned.iter().map(|(id, ..)| id.0).collect::<Vec<_>>()
    };
    assert_eq!(given_up(kept.let_go(2), Abandonment::Expired), [1, 3]);
    assert_eq!(kept.let_go(2), News::default());
    for id in 10..=10 + KEPT_MAX as u64 {
        let left = kept.leave(0);
        kept.keep(MessageId(id), queued(BOB, id), left);
    }
    assert_eq!(given_up(kept.let_go(0), Abandonment::TooMany), [2, 4, 5, 10]);
    assert_eq!(kept.copies.len(), KEPT_MAX);
    let late = kept.heed(&BOB, None, &receipt(0, &[(10, 10)], 0));
    assert_eq!(ids(&late.delivered), [10]);
}

#[test]
fn what_was_known_before_a_restart_is_known_after_it() {
    let mut kept = Kept::default();
    kept.load(MessageId(1), queued(BOB, 1), 10);
    kept.load(MessageId(2), queued(BOB, 2), 30);
    kept.load_arrived(MessageId(3), name(3), None, 20, false);
    kept.load_arrived(MessageId(4), name(4), None, 20, true);
    kept.load_abandoned(MessageId(5), name(5), None, 40);
    assert_eq!(kept.leave(0), 41, "later than any that left");
    let news = kept.heed(&BOB, None, &receipt(0, &[(3, 5)], 5));
    assert_eq!((ids(&news.delivered), ids(&news.read)), (vec![5], vec![3, 5]));
    assert_eq!(ids(&news.again), [1, 2]);
}

#[test]
fn what_left_last_counts_as_last_whatever_became_of_it() {
    let load = |load: fn(&mut Kept)| {
        let mut kept = Kept::default();
        load(&mut kept);
        kept.leave(0)
    };
    assert_eq!(load(|kept| kept.load(MessageId(1), queued(BOB, 1), 10)), 11);
    assert_eq!(load(|kept| kept.load_arrived(MessageId(1), name(1), None, 10, true)), 11);
    assert_eq!(load(|kept| kept.load_abandoned(MessageId(1), name(1), None, 10)), 11);
}

#[test]
fn a_receipt_for_another_opening_of_the_home_says_nothing_of_this_one() {
    let mut kept = kept();
    let mut other = receipt(9, &[], 9);
    other.seen[0].incarnation = BEFORE;
    assert_eq!(kept.heed(&BOB, None, &other), News::default());
}

#[test]
fn nothing_is_remembered_of_strangers_who_confirm_what_nobody_sent_them() {
    let mut kept = kept();
    let before = kept.contacts.len();
    for stranger in 10..200 {
        assert_eq!(kept.heed(&[stranger; 32], None, &receipt(9, &[], 9)), News::default());
    }
    assert_eq!(kept.contacts.len(), before);
}

#[test]
fn receipts_of_several_openings_wait_for_the_messages_they_name() {
    let opening = |n: usize| ShortIncarnation([n as u8; 4]);
    let mut kept = Kept::default();
    for n in 0..=RECEIPTS_MAX {
        let mut receipt = receipt(1, &[], 0);
        receipt.seen[0].incarnation = opening(n);
        kept.heed(&BOB, Some(AccountKey(BOB)), &receipt);
    }
    // The newest statement replaces the one before, and takes no room of another's.
    let mut newer = receipt(2, &[], 0);
    newer.seen[0].incarnation = opening(2);
    kept.heed(&BOB, Some(AccountKey(BOB)), &newer);
    let mut arrived = |n: usize, number| {
        let name = Name::new(BOB, opening(n), number);
        let id = MessageId(10 * n as u64 + number);
        !kept.keep(id, Queued::new(AccountKey(BOB), Some(name)), 0).delivered.is_empty()
    };
    assert!(!arrived(0, 1), "one too many: the oldest is forgotten");
    assert!((1..=RECEIPTS_MAX).all(|n| arrived(n, 1)));
    assert!(arrived(2, 2));
}

#[test]
fn what_was_on_its_way_when_its_recipient_lost_all_is_sent_again_once_in_custody() {
    let mut kept = kept();
    kept.suspect(vec![MessageId(6), MessageId(8)]);
    let left = kept.leave(0);
    assert_eq!(ids(&kept.keep(MessageId(6), queued(BOB, 5), left).again), [6], "and no other");
    assert_eq!(kept.keep(MessageId(7), queued(BOB, 6), left), News::default());
    // It was confirmed, so that they could open it; or it was given up.
    kept.keep_arrived(MessageId(8), &queued(BOB, 7), left, false);
    assert_eq!(kept.keep(MessageId(8), queued(BOB, 7), left), News::default());
    kept.suspect(vec![MessageId(9)]);
    kept.abandon(MessageId(9), &queued(BOB, 8));
    assert_eq!(kept.keep(MessageId(9), queued(BOB, 8), left), News::default());
}

#[test]
fn what_is_sent_again_has_no_number_yet_and_rides_with_nothing() {
    let mut kept = Kept::default();
    let first = Queued {
        number: Some(Origin { incarnation: Incarnation([7; 8]), sequence: 3 }),
        rides_with: Some(MessageId(7)),
        ..queued(BOB, 1)
    };
    kept.keep(MessageId(1), first, 0);
    let again = Queued { again: 1, ..queued(BOB, 1) };
    assert_eq!(kept.relay_lost_all().again, [(MessageId(1), again)]);
}

#[test]
fn what_was_given_up_may_be_confirmed_late_if_it_is_among_the_last_thousand() {
    let given_up = |n: u64| {
        let mut kept = Kept::default();
        for number in 1..=n {
            kept.abandon(MessageId(number), &queued(BOB, number));
        }
        ids(&kept.heed(&BOB, None, &receipt(n, &[], 0)).delivered)
    };
    assert_eq!(given_up(1_000), (1..=1_000).collect::<Vec<_>>());
    assert_eq!(given_up(1_001), (2..=1_001).collect::<Vec<_>>());
}

#[test]
fn the_last_thousand_that_arrived_may_be_read_late() {
    let read = |n: u64| {
        let mut kept = Kept::default();
        for number in 1..=n {
            kept.keep(MessageId(number), queued(BOB, number), number);
        }
        kept.heed(&BOB, None, &receipt(n, &[], 0));
        ids(&kept.heed(&BOB, None, &receipt(n, &[], n)).read)
    };
    assert_eq!(read(1_000), (1..=1_000).collect::<Vec<_>>());
    assert_eq!(read(1_001), (2..=1_001).collect::<Vec<_>>());
}

#[test]
fn the_overdue_message_is_the_one_tried_most_and_of_those_the_one_that_left_first() {
    let mut kept = Kept::default();
    let mut keep = |id, again, left| kept.keep(MessageId(id), Queued { again, ..queued(BOB, id) }, left);
    keep(1, 0, 9);
    keep(2, 1, 8);
    keep(3, 1, 7);
    keep(4, 1, 7);
    keep(5, 0, 1);
    assert_eq!(ids(&kept.overdue(9 + 2 * OVERDUE_MS).again), [3]);
}
