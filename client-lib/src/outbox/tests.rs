use std::collections::VecDeque;

use proptest::prelude::*;
use thinpost_wire::parcel::ShortIncarnation;

use super::*;

const BOB: AccountKey = AccountKey([2; 32]);
const CAROL: AccountKey = AccountKey([3; 32]);
const DAVE: AccountKey = AccountKey([4; 32]);

fn outbox(mailboxes: &[AccountKey]) -> Outbox {
    let mut outbox = Outbox::default();
    for (mailbox, id) in mailboxes.iter().zip(1..) {
        outbox.insert(MessageId(id), &queued(*mailbox));
    }
    outbox
}

/// Something sealed.
fn queued(mailbox: AccountKey) -> Queued {
    Queued::new(mailbox, Some(Name::new([8; 32], ShortIncarnation([8; 4]), 1)))
}

/// Something that a relay may read.
fn open(mailbox: AccountKey) -> Queued {
    Queued::new(mailbox, None)
}

fn take(outbox: &mut Outbox, now: Instant) -> Vec<u64> {
    outbox.take_next(now, 100, usize::MAX).into_iter().map(|id| id.0).collect()
}

#[test]
fn what_has_arrived_is_known_if_it_has_left_and_all_that_was_sealed_with_it_has_arrived() {
    let with = [9; 32];
    let name = |number| Name::new(with, ShortIncarnation([7; 4]), number);
    let mut outbox = Outbox::default();
    for number in 1..=4 {
        outbox.insert(MessageId(number), &Queued::new(BOB, Some(name(number))));
    }
    outbox.take_next(Instant::now(), 3, usize::MAX);
    outbox.ride(MessageId(2), MessageId(1));
    let ids = |arrived: Vec<(MessageId, Vec<(MessageId, Queued)>)>| {
        let ids = |(carrier, sealed): (MessageId, Vec<(MessageId, Queued)>)| {
            (carrier.0, sealed.iter().map(|(id, _)| id.0).collect::<Vec<_>>())
        };
        arrived.into_iter().map(ids).collect::<Vec<_>>()
    };
    assert_eq!(ids(outbox.arrived(|known| known.number == 2)), [], "as it was sent before, perhaps");
    assert_eq!(ids(outbox.arrived(|known| known.number <= 2)), [(1, vec![1, 2])]);
    assert_eq!(ids(outbox.arrived(|known| known.number == 4)), [], "nobody can have it yet");
    outbox.link_lost();
    assert_eq!(ids(outbox.arrived(|known| known.number > 2)), [(3, vec![3])], "in doubt");
}

#[test]
fn what_a_relay_that_knows_nobody_was_told_waits_in_its_place() {
    let sealed = |number| Queued::new(BOB, Some(Name::new([9; 32], ShortIncarnation([7; 4]), number)));
    let mut outbox = Outbox::default();
    for id in [4, 5] {
        outbox.insert(MessageId(id), &sealed(id));
    }
    outbox.insert(MessageId(6), &open(CAROL));
    assert_eq!(take(&mut outbox, Instant::now()), [4, 5, 6]);
    outbox.link_lost();
    assert_eq!(outbox.waive_doubts(), [4, 5].map(MessageId), "what is not sealed keeps its number");
    assert_eq!(outbox.waive_doubts(), []);
    // What was lost with the relay's store is sent again.
    outbox.insert(MessageId(1), &Queued { again: 1, ..sealed(1) });
    assert_eq!(take(&mut outbox, Instant::now()), [1, 4, 5, 6]);
}

#[test]
fn what_was_to_try_a_mailbox_that_refused_is_tried_again_at_a_relay_that_knew_nobody() {
    let now = Instant::now();
    let mut outbox = Outbox::default();
    let sealed = Queued::new(BOB, Some(Name::new([9; 32], ShortIncarnation([7; 4]), 1)));
    outbox.insert(MessageId(1), &sealed);
    take(&mut outbox, now);
    outbox.refused(MessageId(1), Refusal::NoSuchMailbox, now);
    let later = now + PAUSE_MIN;
    assert_eq!(take(&mut outbox, later), [1]);
    outbox.link_lost();
    assert_eq!(outbox.waive_doubts(), [MessageId(1)]);
    assert_eq!(take(&mut outbox, later), [1]);
}

#[test]
fn what_was_sealed_together_expires_with_the_youngest() {
    let mut outbox = outbox(&[BOB]);
    outbox.insert(MessageId(2), &Queued { enqueued_ms: 9_000, ..queued(BOB) });
    outbox.ride(MessageId(2), MessageId(1));
    assert_eq!(outbox.expired(9_000), []);
    assert_eq!(outbox.expired(9_001), [MessageId(1)]);
}

#[test]
fn a_refused_contact_waits_in_order_and_holds_back_nobody_else() {
    let now = Instant::now();
    let mut outbox = outbox(&[BOB, CAROL, BOB, CAROL]);
    assert_eq!(outbox.take_next(now, 1, usize::MAX), [MessageId(1)]);
    outbox.refused(MessageId(1), Refusal::MailboxFull, now);
    assert_eq!(take(&mut outbox, now), [2, 4]);
    assert_eq!(outbox.next_retry(), Some(now + PAUSE_MIN));
    let later = now + PAUSE_MIN;
    assert_eq!(take(&mut outbox, later), [1], "one alone tries the mailbox");
    assert_eq!(take(&mut outbox, later), [] as [u64; 0]);
    outbox.remove(MessageId(1));
    assert_eq!(take(&mut outbox, later), [3]);
}

#[test]
fn pauses_double_up_to_an_hour_and_a_relay_that_names_one_is_obeyed() {
    let mut now = Instant::now();
    let mut outbox = outbox(&[BOB]);
    let mut pauses = Vec::new();
    for _ in 0..9 {
        assert_eq!(take(&mut outbox, now), [1]);
        outbox.refused(MessageId(1), Refusal::NoSuchMailbox, now);
        let until = outbox.next_retry().unwrap();
        pauses.push((until - now).as_secs());
        now = until;
    }
    assert_eq!(pauses, [30, 60, 120, 240, 480, 960, 1920, 3600, 3600]);
    take(&mut outbox, now);
    outbox.refused(MessageId(1), Refusal::TooFast { retry_after_s: 7 }, now);
    assert_eq!(outbox.next_retry(), Some(now + Duration::from_secs(7)));
}

#[test]
fn refusals_of_what_flew_together_count_once() {
    let now = Instant::now();
    let mut outbox = outbox(&[BOB, BOB, BOB]);
    assert_eq!(take(&mut outbox, now), [1, 2, 3]);
    for id in 1..=3 {
        outbox.refused(MessageId(id), Refusal::RelayFull, now);
    }
    assert_eq!(outbox.next_retry(), Some(now + PAUSE_MIN));
    assert_eq!(take(&mut outbox, now + PAUSE_MIN), [1]);
}

#[test]
fn what_is_in_doubt_goes_first_but_not_before_what_was_refused() {
    let now = Instant::now();
    let mut outbox = outbox(&[BOB, BOB, BOB, CAROL]);
    take(&mut outbox, now);
    outbox.refused(MessageId(2), Refusal::MailboxFull, now);
    outbox.link_lost();
    outbox.insert(MessageId(5), &queued(CAROL));
    assert_eq!(outbox.settle_doubts(), [MessageId(3)]);
    assert_eq!(take(&mut outbox, now), [1, 4, 5]);
    outbox.remove(MessageId(1));
    assert_eq!(take(&mut outbox, now + PAUSE_MIN), [2]);
    outbox.remove(MessageId(2));
    assert_eq!(take(&mut outbox, now + PAUSE_MIN), [3]);
}

#[test]
fn what_waits_behind_a_refused_message_loses_its_number_too() {
    let now = Instant::now();
    let mut outbox = outbox(&[BOB, CAROL, BOB]);
    outbox.take_next(now, 2, usize::MAX);
    assert_eq!(outbox.refused(MessageId(1), Refusal::NoSuchMailbox, now), [MessageId(1), MessageId(3)]);
    assert_eq!(outbox.take_next(now + PAUSE_MIN, 1, usize::MAX), [MessageId(1)]);
    assert_eq!(outbox.refused(MessageId(1), Refusal::NoSuchMailbox, now), [MessageId(1)]);
}

#[test]
fn what_a_relay_may_read_loses_its_number_only_when_the_relay_has_looked_for_that() {
    let now = Instant::now();
    let mut outbox = Outbox::default();
    for id in 1..=3 {
        outbox.insert(MessageId(id), &open(BOB));
    }
    take(&mut outbox, now);
    assert_eq!(outbox.refused(MessageId(1), Refusal::UnknownHandle, now), []);
    assert_eq!(outbox.refused(MessageId(1), Refusal::MailboxFull, now), [MessageId(1)]);
    outbox.link_lost();
    assert_eq!(outbox.settle_doubts(), []);
    assert_eq!(take(&mut outbox, now + PAUSE_MIN), [1], "they wait behind the first all the same");
    outbox.link_lost();
    assert_eq!(outbox.waive_doubts(), []);
    for number_is_old in [true, false] {
        take(&mut outbox, now + PAUSE_MAX);
        outbox.link_lost();
        assert_eq!(take(&mut outbox, now + PAUSE_MAX), [1]);
        // Where others may have left the number behind, a relay that takes it for settled need not have it.
        assert_eq!(outbox.is_repeat(MessageId(1)), !number_is_old);
        outbox.refused(MessageId(1), Refusal::NumberSettled, now);
    }
}

#[test]
fn an_unknown_handle_is_tried_again_at_once_but_not_forever() {
    let now = Instant::now();
    let mut outbox = outbox(&[BOB]);
    take(&mut outbox, now);
    outbox.refused(MessageId(1), Refusal::UnknownHandle, now);
    assert_eq!(take(&mut outbox, now), [1]);
    outbox.refused(MessageId(1), Refusal::UnknownHandle, now);
    assert_eq!(take(&mut outbox, now), [] as [u64; 0]);
}

#[test]
fn what_is_on_the_link_does_not_expire() {
    let now = Instant::now();
    let mut outbox = outbox(&[BOB, CAROL]);
    outbox.take_next(now, 1, usize::MAX);
    assert_eq!(outbox.expired(1_000), []);
    assert_eq!(outbox.expired(1_001), [MessageId(2)]);
    outbox.link_lost();
    assert_eq!(outbox.expired(1_001), [MessageId(1), MessageId(2)]);
}

#[test]
fn no_more_is_taken_once_there_is_enough() {
    let now = Instant::now();
    let mut outbox = outbox(&[BOB; 6]);
    assert_eq!(outbox.take_next(now, 0, usize::MAX), []);
    assert_eq!(outbox.take_next(now, 10, 0), []);
    assert_eq!(outbox.take_next(now, 10, 10), [MessageId(1)], "each has ten bytes");
    assert_eq!(outbox.take_next(now, 10, 11), [MessageId(2), MessageId(3)]);
    assert_eq!(outbox.take_next(now, 2, usize::MAX), [MessageId(4), MessageId(5)]);
}

#[test]
fn nothing_overtakes_what_left_with_the_refused_one() {
    let now = Instant::now();
    let mut outbox = outbox(&[BOB, BOB, CAROL, CAROL]);
    assert_eq!(outbox.take_next(now, 3, usize::MAX).len(), 3);
    outbox.refused(MessageId(1), Refusal::MailboxFull, now);
    let later = now + PAUSE_MIN;
    assert_eq!(take(&mut outbox, later), [4], "Bob's second is on the link, as is one of Carol's");
    assert_eq!(outbox.refused(MessageId(2), Refusal::MailboxFull, now), [MessageId(2)]);
    assert_eq!(take(&mut outbox, later), [1]);
}

#[test]
fn a_probe_is_known_while_it_is_out() {
    let now = Instant::now();
    let mut outbox = outbox(&[BOB, BOB, CAROL]);
    take(&mut outbox, now);
    assert!(!outbox.is_probe(MessageId(1)), "nobody has refused it yet");
    outbox.refused(MessageId(1), Refusal::UnknownHandle, now);
    outbox.refused(MessageId(2), Refusal::UnknownHandle, now);
    assert!(!outbox.is_probe(MessageId(1)), "it waits");
    assert_eq!(take(&mut outbox, now), [1]);
    let probes = [1, 2, 3, 9].map(|id| outbox.is_probe(MessageId(id)));
    assert_eq!(probes, [true, false, false, false]);
}

#[test]
fn a_pause_ends_when_the_relay_says_so_but_not_one_that_it_named() {
    let now = Instant::now();
    let mut outbox = outbox(&[BOB, CAROL, DAVE]);
    take(&mut outbox, now);
    outbox.refused(MessageId(1), Refusal::MailboxFull, now);
    outbox.refused(MessageId(2), Refusal::MailboxFull, now);
    outbox.refused(MessageId(3), Refusal::TooFast { retry_after_s: 9 }, now);
    let soon = now + Duration::from_secs(1);
    outbox.end_pause(&DAVE, soon);
    assert_eq!(take(&mut outbox, soon), [] as [u64; 0]);
    outbox.end_pause(&BOB, soon);
    assert_eq!(take(&mut outbox, soon), [1]);
    // Each refusal doubles the pause, until the relay says that it is worth asking.
    outbox.refused(MessageId(1), Refusal::MailboxFull, soon);
    assert_eq!(outbox.next_retry(), Some(now + Duration::from_secs(9)), "Dave's is the next to end");
    outbox.end_pauses(soon);
    assert_eq!(take(&mut outbox, soon), [1, 2], "a new link");
    outbox.refused(MessageId(1), Refusal::MailboxFull, soon);
    outbox.refused(MessageId(2), Refusal::MailboxFull, soon);
    outbox.remove(MessageId(3));
    let of = |outbox: &mut Outbox, mailbox| outbox.holds[&mailbox].until - soon;
    assert_eq!((of(&mut outbox, BOB), of(&mut outbox, CAROL)), (2 * PAUSE_MIN, 2 * PAUSE_MIN));
}

#[test]
fn an_end_of_pauses_puts_none_off() {
    let now = Instant::now();
    let mut outbox = outbox(&[BOB]);
    take(&mut outbox, now);
    outbox.refused(MessageId(1), Refusal::MailboxFull, now);
    let over = now + PAUSE_MIN;
    outbox.end_pauses(over + PAUSE_MIN);
    assert_eq!(outbox.next_retry(), Some(over));
    outbox.end_pause(&BOB, over + PAUSE_MIN);
    assert_eq!(outbox.next_retry(), Some(over));
}

#[test]
fn a_pause_that_the_relay_names_is_neither_none_nor_endless() {
    let pause = |retry_after_s| {
        let now = Instant::now();
        let mut outbox = outbox(&[BOB]);
        take(&mut outbox, now);
        outbox.refused(MessageId(1), Refusal::TooFast { retry_after_s }, now);
        outbox.next_retry().unwrap() - now
    };
    assert_eq!([0, 1, 2, u32::MAX].map(|s| pause(s).as_secs()), [1, 1, 2, 3_600]);
}

#[test]
fn a_probe_whose_custody_is_in_doubt_yields_to_the_one_before_it() {
    let now = Instant::now();
    let mut outbox = outbox(&[BOB, BOB, CAROL]);
    take(&mut outbox, now);
    outbox.refused(MessageId(2), Refusal::MailboxFull, now);
    outbox.remove(MessageId(1));
    outbox.refused(MessageId(3), Refusal::MailboxFull, now);
    let later = now + PAUSE_MIN;
    assert_eq!(take(&mut outbox, later), [2, 3]);
    // One that the contact never got is sent again: its id is lower, and it was never refused.
    let again = Queued { again: 1, ..queued(BOB) };
    outbox.insert(MessageId(1), &again);
    outbox.link_lost();
    assert_eq!(outbox.settle_doubts(), [], "what is sent again says nothing of what is behind it");
    assert!(outbox.is_probe(MessageId(2)) && outbox.is_probe(MessageId(3)));
    outbox.insert(MessageId(0), &queued(BOB));
    assert_eq!(outbox.settle_doubts(), [MessageId(2)]);
    assert!(!outbox.is_probe(MessageId(2)) && outbox.is_probe(MessageId(3)));
}

#[test]
fn what_is_sealed_together_shares_its_fate() {
    let now = Instant::now();
    let mut outbox = outbox(&[BOB, BOB, BOB, CAROL]);
    assert_eq!(outbox.take_next(now, 1, usize::MAX), [MessageId(1)]);
    outbox.ride(MessageId(2), MessageId(1));
    // One that was loaded so, after a restart.
    let loaded = Queued { rides_with: Some(MessageId(1)), ..queued(BOB) };
    outbox.insert(MessageId(5), &loaded);
    outbox.ride(MessageId(9), MessageId(1));
    assert_eq!(outbox.pending(), 3, "a carrier and two that wait");
    let on_their_way = outbox.on_their_way(&BOB);
    assert_eq!(on_their_way, [2, 5, 1].map(MessageId), "the third waits");
    assert_eq!(outbox.on_their_way(&CAROL), []);
    let removed: Vec<_> = outbox.remove(MessageId(1)).into_iter().map(|(id, _)| id.0).collect();
    assert_eq!(removed, [1, 2, 5]);
    assert_eq!(outbox.remove(MessageId(1)).len(), 0);
    assert_eq!(outbox.remove(MessageId(2)).len(), 0, "it went with its carrier");
    outbox.link_lost();
    assert_eq!(take(&mut outbox, now), [3, 4]);
}

#[test]
fn a_message_keeps_its_place_when_it_is_readdressed() {
    let with = [9; 32];
    let name = Name::new(with, ShortIncarnation([7; 4]), 1);
    let mut outbox = outbox(&[BOB, CAROL]);
    outbox.readdress(MessageId(1), Some(name));
    outbox.readdress(MessageId(9), Some(name));
    let removed = outbox.remove(MessageId(1));
    assert_eq!(removed[0].1.name, Some(name));
    assert_eq!(take(&mut outbox, Instant::now()), [2]);
}

#[test]
fn whose_a_message_is_is_known_while_it_is_there() {
    let app_id = Some(AppId([4; 16]));
    let mut outbox = Outbox::default();
    outbox.insert(MessageId(1), &Queued { app_id, ..queued(BOB) });
    assert_eq!(outbox.addressee(MessageId(1)), Some((BOB, app_id)));
    outbox.remove(MessageId(1));
    assert_eq!(outbox.addressee(MessageId(1)), None);
}

#[test]
fn only_a_message_that_was_never_in_custody_leaves_for_the_first_time() {
    let again = Queued { again: 1, ..queued(BOB) };
    assert!(queued(BOB).is_first_time(MessageId(1)));
    assert!(!again.is_first_time(MessageId(1)));
    assert!(!queued(BOB).is_first_time(MessageId::FIRST_NOTES));
    assert!(!again.is_first_time(MessageId::FIRST_NOTES));
}

#[test]
fn notes_for_a_contact_are_told_from_messages() {
    let mut outbox = outbox(&[BOB, CAROL]);
    outbox.insert(MessageId::FIRST_NOTES, &queued(CAROL));
    assert!(!outbox.has_notes(&BOB));
    assert!(outbox.has_notes(&CAROL));
}

#[test]
fn pending_is_what_could_go_out_is_out_or_is_in_doubt() {
    let now = Instant::now();
    let mut outbox = outbox(&[BOB, CAROL, BOB]);
    assert_eq!(outbox.pending(), 3);
    take(&mut outbox, now);
    assert_eq!(outbox.pending(), 3);
    outbox.link_lost();
    assert_eq!(outbox.pending(), 3);
    take(&mut outbox, now);
    outbox.refused(MessageId(1), Refusal::MailboxFull, now);
    assert_eq!(outbox.pending(), 2, "one is held back");
    outbox.remove(MessageId(2));
    assert_eq!(outbox.pending(), 1);
}

/// What befalls a client. The relay decides about what it is given at once, and its answers may be lost.
#[derive(Clone, Debug)]
enum Step {
    Insert {
        to: u8,
        is_sealed: bool,
    },
    Take {
        max: usize,
        refuses: bool,
    },
    Answer(usize),
    LoseLink,
    /// The relay says that it does not know the device, and the next link begins. Of its store so much was brought back.
    Forget {
        kept: usize,
    },
    Wait,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..3u8, any::<bool>()).prop_map(|(to, is_sealed)| Step::Insert { to, is_sealed }),
        3 => (1..5usize, any::<bool>()).prop_map(|(max, refuses)| Step::Take { max, refuses }),
        3 => (1..5usize).prop_map(Step::Answer),
        1 => Just(Step::LoseLink),
        1 => (0..4usize).prop_map(|kept| Step::Forget { kept }),
        1 => Just(Step::Wait),
    ]
}

/// A relay, as far as an outbox knows it.
#[derive(Default)]
struct Relay {
    taken: Vec<MessageId>,
    /// Mailboxes that are held shut since one refusal on this link.
    shut: BTreeSet<AccountKey>,
    /// What it has said and the client has not heard: whether each was taken.
    answers: VecDeque<(MessageId, bool)>,
}

impl Relay {
    fn hear(&mut self, id: MessageId, mailbox: AccountKey, is_probe: bool, refuses: bool) {
        if is_probe {
            self.shut.remove(&mailbox);
        }
        let is_taken = self.taken.contains(&id) || !refuses && !self.shut.contains(&mailbox);
        if !is_taken {
            self.shut.insert(mailbox);
        } else if !self.taken.contains(&id) {
            self.taken.push(id);
        }
        self.answers.push_back((id, is_taken));
    }

    fn lose_link(&mut self) {
        self.shut.clear();
        self.answers.clear();
    }
}

proptest! {
    /// Whatever a relay does, messages for one contact reach it in the order of their ids, nothing that it has taken and could read loses its
    /// number, and in the end all are delivered.
    #[test]
    fn order_per_contact_is_kept_and_nothing_is_forgotten(steps in prop::collection::vec(step(), 0..80)) {
        let mut now = Instant::now();
        let (mut outbox, mut relay) = (Outbox::default(), Relay::default());
        let (mut next, mut unnumbered) = (1, Vec::<MessageId>::new());
        for step in steps {
            match step {
                Step::Insert { to, is_sealed } => {
                    let name = is_sealed.then(|| Name::new([9; 32], ShortIncarnation([7; 4]), next));
                    outbox.insert(MessageId(next), &Queued::new(AccountKey([to; 32]), name));
                    next += 1;
                }
                Step::Take { max, refuses } => {
                    for id in outbox.take_next(now, max, usize::MAX) {
                        let mailbox = outbox.rows[&id].queued.mailbox;
                        let is_new = !relay.taken.contains(&id);
                        relay.hear(id, mailbox, outbox.is_probe(id), refuses);
                        let waits = |(other, row): &(&MessageId, &Row)| {
                            **other < id && row.queued.mailbox == mailbox && !relay.taken.contains(*other)
                        };
                        let overtaken = outbox.rows.iter().find(waits).map(|(other, _)| *other);
                        if is_new && relay.taken.contains(&id) {
                            prop_assert_eq!(overtaken, None, "{} overtakes", id);
                        }
                    }
                }
                Step::Answer(count) => {
                    for (id, is_taken) in relay.answers.drain(..count.min(relay.answers.len())).collect::<Vec<_>>() {
                        if is_taken {
                            outbox.remove(id);
                        } else {
                            unnumbered.extend(outbox.refused(id, Refusal::MailboxFull, now));
                        }
                    }
                }
                Step::LoseLink => {
                    relay.lose_link();
                    outbox.link_lost();
                    outbox.end_pauses(now);
                    unnumbered.extend(outbox.settle_doubts());
                }
                Step::Forget { kept } => {
                    relay.lose_link();
                    relay.taken.truncate(kept);
                    outbox.link_lost();
                    unnumbered.extend(outbox.waive_doubts());
                    outbox.end_pauses(now);
                    unnumbered.extend(outbox.settle_doubts());
                }
                Step::Wait => now += PAUSE_MIN,
            }
            for id in unnumbered.drain(..) {
                let is_sealed = outbox.rows[&id].queued.name.is_some();
                prop_assert!(is_sealed || !relay.taken.contains(&id), "{} is new to the relay", id);
            }
            let places = outbox.rows.values().filter(|row| row.place == Place::OnLink);
            prop_assert_eq!(outbox.on_link, places.count());
        }
        outbox.link_lost();
        for _ in 0..2 * next {
            now += PAUSE_MAX;
            for id in outbox.take_next(now, 3, usize::MAX) {
                outbox.remove(id);
            }
        }
        prop_assert_eq!(outbox.len(), 0);
        prop_assert_eq!(outbox.pending(), 0);
    }
}
