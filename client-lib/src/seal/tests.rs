//! What a seal must withstand.

use thinpost_wire::ids::AccountKey;
use thinpost_wire::notes::Notes;
use thinpost_wire::parcel::{Item, Parcel};

use super::coding::Taste;
use super::*;
use crate::kept::{Kept, Name};
use crate::message::MessageId;
use crate::store::Queued;

const OF: ShortIncarnation = ShortIncarnation([1; 4]);

/// Ann and Bob, who have each other's tickets.
fn ann_and_bob() -> [(Seals, SealKeys); 2] {
    [1, 2].map(|n| {
        let keyring = Keyring::new([n; 32]);
        let public = keyring.public();
        (Seals::new(keyring, Arc::default(), &[]).unwrap(), public)
    })
}

/// A parcel with one letter.
fn parcel(number: u64, letter: &[u8]) -> Parcel<'_> {
    Parcel { incarnation: OF, notes: Notes::default(), items: vec![Item { number, letter }] }
}

/// Seals a parcel for somebody of whom no models are known.
fn seal_parcel(from: &mut Seals, to: &SealKeys, parcel: &Parcel<'_>) -> Vec<u8> {
    let packed = from.pack(to, &ModelSet::EMPTY, parcel);
    from.seal(to, packed).unwrap()
}

/// Seals a letter.
fn seal(from: &mut Seals, to: &SealKeys, letter: &[u8]) -> Vec<u8> {
    seal_parcel(from, to, &parcel(1, letter))
}

/// Opens a parcel: whose it is, and its first letter.
fn open(by: &mut Seals, body: &[u8]) -> Result<(Identity, Vec<u8>), OpenSealError> {
    let (from, parcel) = by.open(body, |_| true)?;
    let letter = Parcel::decode(&parcel).unwrap().items[0].letter.to_vec();
    Ok((from, letter))
}

/// The same, from what it has written.
pub(super) fn reopened(seals: &Seals) -> Seals {
    let record = |with: &Identity| seals.pairs[with].to_record(&seals.codings.taste(with));
    let pairs: Vec<_> = seals.pairs.keys().map(|with| (*with, record(with))).collect();
    let codings = Codings::new(seals.codings.models().clone());
    Seals::new(Keyring::from_record(&seals.keyring.to_record()).unwrap(), codings.into(), &pairs).unwrap()
}

#[test]
fn the_first_message_opens_without_an_answer_and_later_ones_are_shorter() {
    let [(mut ann, ann_keys), (mut bob, bob_keys)] = ann_and_bob();
    let first = seal(&mut ann, &bob_keys, b"there?");
    assert_eq!(open(&mut bob, &first), Ok((ann_keys.identity, b"there?".to_vec())));
    let answer = seal(&mut bob, &ann_keys, b"yes");
    assert_eq!(open(&mut ann, &answer), Ok((bob_keys.identity, b"yes".to_vec())));
    let later = seal(&mut ann, &bob_keys, b"there?");
    assert_eq!(open(&mut bob, &later), Ok((ann_keys.identity, b"there?".to_vec())));
    assert_eq!((first[0], first.len()), (SEALED_FIRST, 1 + 48 + 122));
    assert_eq!((later[0], later.len()), (SEALED, 1 + 57));
}

#[test]
fn a_session_may_be_made_with_another_key_than_that_of_the_ticket() {
    let [(mut ann, _), (mut bob, bob_keys)] = ann_and_bob();
    seal(&mut ann, &bob_keys, b"lost");
    let renewed = SealKeys { pre_key: [9; 32], ..bob_keys };
    let body = seal(&mut ann, &renewed, b"the session is of the old key");
    assert_eq!(body.len(), 1 + 48 + 122 + 32 + 16);
    assert_eq!(open(&mut bob, &body).unwrap().1, b"the session is of the old key");
}

#[test]
fn a_claimed_key_opens_the_first_session_and_is_forgotten_by_both() {
    let [(mut ann, ann_keys), (mut bob, bob_keys)] = ann_and_bob();
    let key = bob.one_time_keys(2)[0];
    assert!(bob.take_keyring().is_some() && bob.take_keyring().is_none());
    assert!(ann.wants_key(&bob_keys.identity));
    ann.put_claimed(bob_keys.identity, key);
    assert!(!ann.wants_key(&bob_keys.identity));
    // A home that is opened again may be a copy, whose newer self has used the key.
    let mut copy = reopened(&ann);
    let first = seal(&mut copy, &bob_keys, b"there?");
    assert_eq!(first.len(), 1 + 48 + 122, "with the ticket's");
    assert!(!reopened(&ann).wants_key(&bob_keys.identity), "one is claimed once");
    bob = reopened(&bob);
    let first = seal(&mut ann, &bob_keys, b"there?");
    assert_eq!(first.len(), 1 + 48 + 122 + 32, "the key is told");
    let second = seal(&mut ann, &bob_keys, b"hello?");
    for (body, text) in [(&first, &b"there?"[..]), (&second, b"hello?")] {
        assert_eq!(open(&mut bob, body), Ok((ann_keys.identity, text.to_vec())));
    }
    assert_eq!(bob.one_time_keys_unused(), 1);
    assert!(bob.take_keyring().is_some(), "it must be written with what was opened");
    assert!(!ann.wants_key(&bob_keys.identity), "there is a session now");
    // The next session is one with the pre-key of the ticket: the key is not used twice.
    ann = reopened(&ann);
    let third = seal(&mut ann, &bob_keys, b"there?");
    assert_eq!(third.len(), first.len() - 32);
    assert!(open(&mut bob, &third).is_ok() && bob.take_keyring().is_none());
}

#[test]
fn a_one_time_key_used_twice_opens_once_and_another_session_opens_again() {
    let [(mut ann, ann_keys), (mut bob, bob_keys)] = ann_and_bob();
    let [(mut eve, eve_keys), _] = ann_and_bob();
    let key = bob.one_time_keys(1)[0];
    for sender in [&mut ann, &mut eve] {
        sender.put_claimed(bob_keys.identity, key);
    }
    let [from_ann, from_eve] = [&mut ann, &mut eve].map(|sender| seal(sender, &bob_keys, b"me first"));
    assert!(open(&mut bob, &from_ann).is_ok());
    assert_eq!(
        open(&mut bob, &from_eve),
        Err(OpenSealError::NoSession(eve_keys.identity)),
        "the key is gone"
    );
    assert_eq!(open(&mut bob, &from_ann), Err(OpenSealError::Repeat(ann_keys.identity)));
    // Whom it befell is understood again when one of the two begins another session.
    eve = reopened(&eve);
    let again = seal(&mut eve, &bob_keys, b"me again");
    assert_eq!(open(&mut bob, &again), Ok((eve_keys.identity, b"me again".to_vec())));
}

#[test]
fn a_home_stolen_later_does_not_open_what_was_sealed_for_a_one_time_key() {
    let [(mut ann, ann_keys), (mut bob, bob_keys)] = ann_and_bob();
    let key = bob.one_time_keys(1)[0];
    ann.put_claimed(bob_keys.identity, key);
    let first = seal(&mut ann, &bob_keys, b"the first");
    open(&mut bob, &first).unwrap();
    // All that is in the home but the session, which moves on.
    let stolen = Keyring::from_record(&bob.keyring.to_record()).unwrap();
    let mut thief = Seals::new(stolen, Arc::default(), &[]).unwrap();
    assert_eq!(open(&mut thief, &first), Err(OpenSealError::NoSession(ann_keys.identity)));
    // With the ticket's pre-key it would.
    let [(mut carol, _), _] = ann_and_bob();
    let first = seal(&mut carol, &bob_keys, b"the first");
    open(&mut bob, &first).unwrap();
    assert!(open(&mut thief, &first).is_ok());
}

#[test]
fn what_a_relay_gives_for_a_key_does_harm_to_nothing_but_what_is_sealed_for_it() {
    let [(mut ann, _), (mut bob, bob_keys)] = ann_and_bob();
    ann.put_claimed(bob_keys.identity, OneTimeKey([0; 32]));
    let body = seal(&mut ann, &bob_keys, b"sealed with the ticket's key");
    assert!(open(&mut bob, &body).is_ok());
    let [(mut eve, eve_keys), _] = ann_and_bob();
    eve.put_claimed(bob_keys.identity, OneTimeKey([9; 32]));
    let body = seal(&mut eve, &bob_keys, b"for a key that the relay made");
    let unreadable = Err(OpenSealError::NoSession(eve_keys.identity));
    assert_eq!(open(&mut bob, &body), unreadable, "and to the relay, too");
}

#[test]
fn a_sender_cannot_be_told_from_what_is_sealed() {
    let [(mut ann, ann_keys), (_, bob_keys)] = ann_and_bob();
    for _ in 0..3 {
        let body = seal(&mut ann, &bob_keys, b"it is me");
        for key in [ann_keys.identity, ann_keys.pre_key, ann_keys.envelope] {
            assert!(!body.windows(32).any(|window| window == key));
        }
    }
}

#[test]
fn what_was_changed_or_cut_or_is_for_another_does_not_open_and_changes_nothing() {
    let [(mut ann, ann_keys), (mut bob, bob_keys)] = ann_and_bob();
    let [(mut eve, _), _] = ann_and_bob();
    let first = seal(&mut ann, &bob_keys, b"one");
    let mut bodies = vec![first.clone()];
    open(&mut bob, &first).unwrap();
    let answer = seal(&mut bob, &ann_keys, b"two");
    open(&mut ann, &answer).unwrap();
    bodies.push(seal(&mut ann, &bob_keys, b"three"));
    for body in bodies {
        assert_eq!(open(&mut eve, &body), Err(OpenSealError::Foreign));
        for bit in 0..body.len() * 8 {
            let mut changed = body.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(open(&mut bob, &changed).is_err(), "bit {bit}");
            assert!(open(&mut bob, &body[..bit / 8]).is_err(), "cut at {}", bit / 8);
        }
    }
    let last = seal(&mut ann, &bob_keys, b"four");
    assert_eq!(open(&mut bob, &last).unwrap().1, b"four");
}

#[test]
fn an_envelope_that_comes_again_is_known_as_a_repeat() {
    let [(mut ann, ann_keys), (mut bob, bob_keys)] = ann_and_bob();
    let first = seal(&mut ann, &bob_keys, b"one");
    open(&mut bob, &first).unwrap();
    assert_eq!(open(&mut bob, &first), Err(OpenSealError::Repeat(ann_keys.identity)));
    let answer = seal(&mut bob, &ann_keys, b"two");
    open(&mut ann, &answer).unwrap();
    let normal = seal(&mut ann, &bob_keys, b"three");
    open(&mut bob, &normal).unwrap();
    assert_eq!(open(&mut bob, &normal), Err(OpenSealError::Repeat(ann_keys.identity)));
    assert_eq!(open(&mut bob, &first), Err(OpenSealError::Repeat(ann_keys.identity)));
}

#[test]
fn both_may_write_first_at_the_same_time() {
    let [(mut ann, ann_keys), (mut bob, bob_keys)] = ann_and_bob();
    let from_ann = seal(&mut ann, &bob_keys, b"a1");
    let from_bob = seal(&mut bob, &ann_keys, b"b1");
    assert_eq!(open(&mut bob, &from_ann).unwrap().1, b"a1");
    assert_eq!(open(&mut ann, &from_bob).unwrap().1, b"b1");
    for round in 0..5u8 {
        let body = seal(&mut ann, &bob_keys, &[round]);
        assert_eq!(open(&mut bob, &body).unwrap().1, [round]);
        let body = seal(&mut bob, &ann_keys, &[round]);
        assert_eq!(open(&mut ann, &body).unwrap().1, [round]);
    }
}

#[test]
fn up_to_forty_may_be_overtaken_and_no_more() {
    let [(mut ann, ann_keys), (mut bob, bob_keys)] = ann_and_bob();
    let first = seal(&mut ann, &bob_keys, b"first");
    open(&mut bob, &first).unwrap();
    let answer = seal(&mut bob, &ann_keys, b"answer");
    open(&mut ann, &answer).unwrap();
    let bodies: Vec<_> = (0..=500u16).map(|n| seal(&mut ann, &bob_keys, &n.to_be_bytes())).collect();
    assert_eq!(open(&mut bob, &bodies[500]).unwrap().1, 500u16.to_be_bytes());
    for (body, n) in bodies[460..500].iter().zip(460u16..) {
        assert_eq!(open(&mut bob, body).unwrap().1, n.to_be_bytes());
    }
    assert_eq!(
        open(&mut bob, &bodies[0]),
        Err(OpenSealError::Repeat(ann_keys.identity)),
        "its key is gone: it has to be sent again"
    );
    let next = seal(&mut ann, &bob_keys, b"next");
    assert_eq!(open(&mut bob, &next).unwrap().1, b"next", "the session goes on");
}

#[test]
fn what_500_others_have_overtaken_is_sent_again_for_a_receipt_and_shown_once() {
    let [(mut ann, ann_keys), (mut bob, bob_keys)] = ann_and_bob();
    let first = seal(&mut ann, &bob_keys, b"first");
    open(&mut bob, &first).unwrap();
    let answer = seal(&mut bob, &ann_keys, b"answer");
    open(&mut ann, &answer).unwrap();
    let mut kept = Kept::default();
    let mut sent = Vec::new();
    for number in 1..=500 {
        sent.push(seal_parcel(&mut ann, &bob_keys, &parcel(number, b"a letter")));
        let name = Name::new(bob_keys.identity, OF, number);
        let queued = Queued::new(AccountKey([2; 32]), Some(name));
        let left = kept.leave(0);
        kept.keep(MessageId(number), queued, left);
    }
    sent.reverse();
    let (mut shown, mut rounds) = (Vec::new(), 0);
    while !sent.is_empty() {
        rounds += 1;
        for body in sent.drain(..) {
            let Ok((from, parcel)) = bob.open(&body, |_| true) else { continue };
            let number = Parcel::decode(&parcel).unwrap().items[0].number;
            if bob.is_new(&from, OF, number, 0) {
                shown.push(number);
            }
        }
        let receipt = bob.take_notes(&ann_keys.identity, true);
        for (id, queued) in kept.heed(&bob_keys.identity, None, &receipt).again {
            sent.push(seal_parcel(&mut ann, &bob_keys, &parcel(id.0, b"a letter")));
            let left = kept.leave(0);
            kept.keep(id, queued, left);
        }
    }
    assert_eq!(shown.len(), 500);
    shown.sort_unstable();
    assert!(shown.iter().copied().eq(1..=500), "each once");
    assert_eq!(rounds, 2);
}

#[test]
fn what_was_written_is_what_goes_on() {
    let [(mut ann, ann_keys), (mut bob, bob_keys)] = ann_and_bob();
    for round in 0..6u8 {
        let body = seal(&mut ann, &bob_keys, &[round]);
        assert_eq!(open(&mut bob, &body).unwrap(), (ann_keys.identity, vec![round]));
        assert!(bob.is_new(&ann_keys.identity, OF, round.into(), 0) == (round > 0));
        let body = seal(&mut bob, &ann_keys, &[round]);
        assert_eq!(open(&mut ann, &body).unwrap().1, [round]);
        (ann, bob) = (reopened(&ann), reopened(&bob));
        assert!(!bob.is_new(&ann_keys.identity, OF, round.into(), 0));
    }
}

#[test]
fn an_old_copy_uses_no_key_twice_and_is_understood() {
    let [(mut ann, ann_keys), (mut bob, bob_keys)] = ann_and_bob();
    for round in 0..3u8 {
        let body = seal(&mut ann, &bob_keys, &[round]);
        open(&mut bob, &body).unwrap();
        let body = seal(&mut bob, &ann_keys, &[round]);
        open(&mut ann, &body).unwrap();
    }
    let mut copy = reopened(&ann);
    for round in 0..3u8 {
        let newer = seal(&mut ann, &bob_keys, &[10 + round]);
        assert_eq!(open(&mut bob, &newer).unwrap().1, [10 + round]);
    }
    let body = seal(&mut copy, &bob_keys, b"restored");
    assert_eq!(body[0], SEALED_FIRST, "a session of its own");
    assert_eq!(open(&mut bob, &body).unwrap(), (ann_keys.identity, b"restored".to_vec()));
    let answer = seal(&mut bob, &ann_keys, b"welcome back");
    assert_eq!(open(&mut copy, &answer).unwrap().1, b"welcome back");
    assert_eq!(seal(&mut copy, &bob_keys, b"thanks")[0], SEALED);
}

#[test]
fn sessions_of_many_openings_are_known_until_the_other_has_moved_on() {
    let [(mut ann, ann_keys), (mut bob, bob_keys)] = ann_and_bob();
    let mut answers = Vec::new();
    for round in 0..20u8 {
        ann = reopened(&ann);
        let body = seal(&mut ann, &bob_keys, &[round]);
        open(&mut bob, &body).unwrap();
        answers.push(seal(&mut bob, &ann_keys, &[round]));
    }
    for (answer, round) in answers.iter().zip(0..) {
        assert_eq!(open(&mut ann, answer).unwrap().1, [round], "in the order in which they were sealed");
    }
    assert!(
        ann.pairs[&bob_keys.identity].to_record(&Taste::default()).len() < 8_000,
        "nine sessions, not twenty"
    );
}

#[test]
fn strangers_take_a_bounded_place_and_push_out_no_contact() {
    let [(mut ann, ann_keys), (mut bob, bob_keys)] = ann_and_bob();
    let first = seal(&mut ann, &bob_keys, b"from a contact");
    open(&mut bob, &first).unwrap();
    // She is a stranger when she is heard of, and is made a contact then.
    bob.heard_of(&ann_keys.identity, |_| false);
    let mut first_messages = Vec::new();
    for n in 0..2 * STRANGERS_MAX as u64 {
        let [(mut stranger, _), _] = ann_and_bob();
        first_messages.push(seal(&mut stranger, &bob_keys, &[n as u8]));
        let (from, _) = open(&mut bob, &first_messages[n as usize]).unwrap();
        bob.heard_of(&from, |with| *with == ann_keys.identity);
        assert!(bob.is_new(&from, OF, 1, n));
        bob.take_changed();
    }
    let has_sessions = |bob: &Seals| bob.pairs.values().filter(|pair| !pair.wants_key()).count();
    assert_eq!((bob.pairs.len(), has_sessions(&bob)), (2 * STRANGERS_MAX + 1, STRANGERS_MAX + 1));
    let mut bob = reopened(&bob);
    for with in bob.everyone() {
        bob.heard_of(&with, |with| *with == ann_keys.identity);
    }
    assert_eq!(has_sessions(&bob), STRANGERS_MAX + 1, "they were heard of in the same order");
    // Nobody confirms anything to them, so that each sends it again.
    for (n, message) in first_messages.iter().enumerate() {
        match open(&mut bob, message) {
            Ok((from, _)) => assert!(!bob.is_new(&from, OF, 1, 1_000), "{n} is told once"),
            Err(error) => assert!(matches!(error, OpenSealError::Repeat(_)), "{n}: {error}"),
        }
    }
    let next = seal(&mut ann, &bob_keys, b"again");
    assert_eq!(open(&mut bob, &next).unwrap().0, ann_keys.identity);
    let answer = seal(&mut bob, &ann_keys, b"the session is still known");
    assert!(open(&mut ann, &answer).is_ok());
}

#[test]
fn what_a_stranger_has_made_small_stays_so_and_a_contact_may_say_it() {
    let [(mut ann, ann_keys), (mut bob, bob_keys)] = ann_and_bob();
    for length in [18_000, 60_000] {
        let body = seal(&mut ann, &bob_keys, &vec![b'a'; length]);
        assert!(body.len() < 300);
        assert_eq!(bob.open(&body, |_| false), Err(OpenSealError::TooMuch(ann_keys.identity)));
    }
    let short = seal(&mut ann, &bob_keys, &[b'a'; 16_000]);
    assert_eq!(bob.open(&short, |_| false).unwrap().1.len(), 16_000 + 8);
    let long = seal(&mut ann, &bob_keys, &[b'a'; 60_000]);
    assert_eq!(bob.open(&long, |_| true).unwrap().1.len(), 60_000 + 8);
}

#[test]
fn notes_leave_in_the_order_in_which_they_are_due_whoever_they_are_for() {
    let [(mut ann, _), _] = ann_and_bob();
    let identity = |n: u8| [n; 32];
    for (n, due) in [(1, 50), (2, 30), (3, 90), (4, 40)] {
        ann.ask_again(&identity(n));
        ann.schedule_notes(&identity(n), due);
    }
    assert_eq!(ann.next_notes(), Some(30));
    assert_eq!(ann.take_due(60, 1_000), [2, 4, 1].map(identity));
    assert_eq!(ann.take_due(60, 1_000), [] as [Identity; 0], "they are on their way");
    assert_eq!(ann.take_due(10, 20), [identity(3)], "so far ahead that the clock must have been set back");
}

#[test]
fn keys_that_are_no_keys_are_refused() {
    let [(mut ann, _), (_, bob_keys)] = ann_and_bob();
    let no_keys = SealKeys { identity: [0; 32], pre_key: [0; 32], ..bob_keys };
    assert_eq!(ann.seal(&no_keys, Packed::of_bytes(b"x")), Err(BadKeys));
}
