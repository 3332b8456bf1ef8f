//! What is left out, and what is coded with a model, can be read by whoever opens it.

use thinpost_wire::codec::Codec;
use thinpost_wire::parcel::Item;
use thinpost_wire::text::{ModelName, Models, NUMBERED, Parts};
use thinpost_wire::token::Token;

use super::tests::reopened;
use super::*;

const NOW: ShortIncarnation = ShortIncarnation([1; 4]);
const BEFORE: ShortIncarnation = ShortIncarnation([2; 4]);
const LETTER: &[u8] = b"\x00See you at the station at eight, then?";

fn seals(n: u8, models: Models) -> (Seals, SealKeys) {
    let keyring = Keyring::new([n; 32]);
    let public = keyring.public();
    (Seals::new(keyring, Codings::new(models).into(), &[]).unwrap(), public)
}

/// Ann and Bob, with the models that are compiled in.
fn ann_and_bob() -> [(Seals, SealKeys); 2] {
    [1, 2].map(|n| seals(n, Models::compiled_in()))
}

fn parcel(incarnation: ShortIncarnation) -> Parcel<'static> {
    let items = vec![Item { number: 1, letter: LETTER }];
    Parcel { incarnation, notes: Notes::default(), items }
}

/// Packs for somebody whose ticket names all models.
fn pack(from: &Seals, to: &SealKeys, parcel: &Parcel<'_>) -> Packed {
    from.pack(to, &Models::compiled_in().set(), parcel)
}

/// Seals a parcel, and says how much there was to seal.
fn seal(from: &mut Seals, to: &SealKeys, incarnation: ShortIncarnation) -> (Vec<u8>, usize) {
    let packed = pack(from, to, &parcel(incarnation));
    let bytes = packed.content.len();
    (from.seal(to, packed).unwrap(), bytes)
}

/// The incarnation of the parcel in a body.
fn open(by: &mut Seals, body: &[u8]) -> Result<ShortIncarnation, OpenSealError> {
    let (_, parcel) = by.open(body, |_| true)?;
    Ok(Parcel::decode(&parcel).unwrap().incarnation)
}

/// The same, where nothing else is expected.
fn arrives(by: &mut Seals, (body, _): (Vec<u8>, usize), incarnation: ShortIncarnation) {
    assert_eq!(open(by, &body), Ok(incarnation));
}

/// Another home on the same files, opened with other models.
fn reopened_with(seals: &Seals, models: Models) -> Seals {
    let mut again = reopened(seals);
    let codings = Codings::new(models);
    for with in again.everyone() {
        codings.put_taste(with, again.codings.taste(&with));
    }
    again.codings = codings.into();
    again
}

/// Those that are compiled in, and one more.
fn with_one_more() -> (Models, ModelName) {
    let mut parts = Parts::from_bytes(NUMBERED[0].file.unwrap()).unwrap();
    parts.discount += 1;
    let mut models = Models::compiled_in();
    let name = models.add(&parts.to_bytes().unwrap()).unwrap();
    (models, name)
}

#[test]
fn both_leave_out_an_incarnation_once_the_other_has_certainly_read_it() {
    let [(mut ann, ann_keys), (mut bob, bob_keys)] = ann_and_bob();
    let first = seal(&mut ann, &bob_keys, NOW);
    let named = first.1;
    assert_eq!(seal(&mut ann, &bob_keys, NOW).1, named, "it may never have arrived");
    arrives(&mut bob, first, NOW);
    let answer = seal(&mut bob, &ann_keys, BEFORE);
    assert_eq!(answer.1, named, "the session is Ann's: he has named nothing in it");
    arrives(&mut ann, answer, BEFORE);
    let second = seal(&mut ann, &bob_keys, NOW);
    assert_eq!(second.1, named - 4, "he sends in it, so he has read what was in it");
    assert_eq!(seal(&mut bob, &ann_keys, BEFORE).1, named);
    arrives(&mut bob, second, NOW);
    let answer = seal(&mut bob, &ann_keys, BEFORE);
    assert_eq!(answer.1, named - 4, "her ratchet has turned");
    arrives(&mut ann, answer, BEFORE);
}

#[test]
fn what_was_on_its_way_when_something_was_named_proves_nothing() {
    let [(mut ann, ann_keys), (mut bob, bob_keys)] = ann_and_bob();
    let [first, second] = [(); 2].map(|()| seal(&mut ann, &bob_keys, NOW));
    arrives(&mut bob, first, NOW);
    let (lost, named) = seal(&mut bob, &ann_keys, NOW);
    arrives(&mut bob, second, NOW);
    assert_eq!(seal(&mut bob, &ann_keys, NOW).1, named, "she had sent it before she could read anything");
    assert_eq!(open(&mut ann, &lost), Ok(NOW));
}

#[test]
fn whatever_comes_first_is_read_under_its_own_incarnation() {
    let orders = [[0, 1, 2, 3], [3, 2, 1, 0], [1, 0, 3, 2], [2, 0, 1, 3]];
    for order in orders {
        let [(mut ann, ann_keys), (mut bob, bob_keys)] = ann_and_bob();
        let late = seal(&mut ann, &bob_keys, NOW).0;
        let first = seal(&mut ann, &bob_keys, NOW);
        arrives(&mut bob, first, NOW);
        let answer = seal(&mut bob, &ann_keys, NOW);
        arrives(&mut ann, answer, NOW);
        // What an earlier opening had written is between what names none.
        let bodies =
            [NOW, BEFORE, NOW].map(|incarnation| (seal(&mut ann, &bob_keys, incarnation).0, incarnation));
        let mut bodies = bodies.to_vec();
        bodies.push((late, NOW));
        for place in order {
            let (body, incarnation) = &bodies[place];
            assert_eq!(open(&mut bob, body), Ok(*incarnation), "{place} of {order:?}");
        }
        bob = reopened(&bob);
        let (body, bytes) = seal(&mut ann, &bob_keys, NOW);
        assert!(bytes < seal(&mut ann, &bob_keys, BEFORE).1);
        assert_eq!(open(&mut bob, &body), Ok(NOW), "it is on the disk with the session");
    }
}

#[test]
fn a_session_in_which_two_were_named_before_the_answer_leaves_out_neither() {
    let [(mut ann, ann_keys), (mut bob, bob_keys)] = ann_and_bob();
    let bodies = [BEFORE, NOW].map(|incarnation| seal(&mut ann, &bob_keys, incarnation).0);
    // They come in either order, or one of them never.
    open(&mut bob, &bodies[1]).unwrap();
    for _ in 0..3 {
        let answer = seal(&mut bob, &ann_keys, NOW);
        arrives(&mut ann, answer, NOW);
        for incarnation in [NOW, BEFORE] {
            let sealed = seal(&mut ann, &bob_keys, incarnation);
            arrives(&mut bob, sealed, incarnation);
        }
    }
}

#[test]
fn a_copy_of_the_reader_opens_nothing_that_it_would_take_for_anothers() {
    // Of a session that Ann began, and of one that Bob began.
    for bob_begins in [false, true] {
        let [(mut ann, ann_keys), (mut bob, bob_keys)] = ann_and_bob();
        if bob_begins {
            let first = seal(&mut bob, &ann_keys, NOW);
            arrives(&mut ann, first, NOW);
        }
        // He has the session, and has read nothing of hers in it, or has not answered it.
        let mut copies = vec![reopened(&bob)];
        let sealed = seal(&mut ann, &bob_keys, NOW);
        arrives(&mut bob, sealed, NOW);
        copies.push(reopened(&bob));
        let answer = seal(&mut bob, &ann_keys, NOW);
        arrives(&mut ann, answer, NOW);
        let bodies = [BEFORE, NOW].map(|incarnation| seal(&mut ann, &bob_keys, incarnation).0);
        for mut copy in copies {
            for body in &bodies {
                assert_eq!(open(&mut copy, body), Err(OpenSealError::Foreign));
            }
        }
        for (body, incarnation) in bodies.iter().zip([BEFORE, NOW]) {
            assert_eq!(open(&mut bob, body), Ok(incarnation));
        }
    }
}

#[test]
fn whoever_could_not_read_something_sends_in_its_session_no_more() {
    let (models, name) = with_one_more();
    let [(mut ann, ann_keys), (mut bob, bob_keys)] = [1, 2].map(|n| seals(n, models.clone()));
    let mut has = ModelSet::default();
    has.insert(name);
    let seal_with_it = |ann: &mut Seals| {
        let packed = ann.pack(&bob_keys, &has, &parcel(NOW));
        ann.seal(&bob_keys, packed).unwrap()
    };
    let body = seal_with_it(&mut ann);
    assert_eq!(open(&mut reopened_with(&bob, models), &body), Ok(NOW));
    bob = reopened_with(&bob, Models::compiled_in());
    assert!(matches!(open(&mut bob, &body), Err(OpenSealError::Lacking(of, _)) if of == ann_keys.identity));
    let repeat = Err(OpenSealError::Repeat(ann_keys.identity));
    assert_eq!(open(&mut bob, &body), repeat, "the same bytes show nothing more");
    let (answer, bytes) = seal(&mut bob, &ann_keys, NOW);
    assert_eq!(answer[0], SEALED_FIRST, "he begins another");
    arrives(&mut ann, (answer, bytes), NOW);
    ann.models_told(&bob_keys.identity, Models::compiled_in().set());
    let sealed = seal(&mut ann, &bob_keys, NOW);
    assert_eq!(sealed.1, bytes, "and she leaves out nothing in that one");
    arrives(&mut bob, sealed, NOW);
}

#[test]
fn what_nobody_could_ask_for_again_is_coded_so_that_anybody_can_read_it() {
    let [(ann, _), (_, bob_keys)] = ann_and_bob();
    let is_modelled = |notes| {
        let packed = pack(&ann, &bob_keys, &Parcel { notes, ..parcel(NOW) });
        matches!(Codec::of(&packed.content), Ok(Codec::Text(_)))
    };
    let introduction = Introduction { under: Token([1; 16]), ticket: vec![0; 9] };
    assert!(is_modelled(Notes { token: Some(Token([1; 16])), ..Notes::default() }));
    assert!(!is_modelled(Notes { introduction: Some(introduction), ..Notes::default() }));
    assert!(!is_modelled(Notes { again: true, ..Notes::default() }));
}

/// `docs/security.md` says so.
#[test]
fn a_size_tells_how_predictable_a_text_is_in_steps_of_a_block() {
    let [(mut ann, ann_keys), (mut bob, bob_keys)] = ann_and_bob();
    let first = seal(&mut ann, &bob_keys, NOW);
    arrives(&mut bob, first, NOW);
    let answer = seal(&mut bob, &ann_keys, NOW);
    arrives(&mut ann, answer, NOW);
    let blocks = |letter: &[u8]| {
        let items = vec![Item { number: 2, letter }];
        pack(&ann, &bob_keys, &Parcel { items, ..parcel(NOW) }).blocks()
    };
    assert_eq!(blocks(b"\x00can you pick me up at eight, same place as us"), 1);
    assert_eq!(blocks(b"\x00xq7Kp2vR9wZt4mBn8cLd"), 2);
}

/// Seals a parcel that tells of models, if they are to be told.
fn tell(from: &mut Seals, to: &SealKeys) -> (Vec<u8>, Option<ModelSet>) {
    let models = from.models_to_tell(&to.identity);
    let notes = Notes { models: models.clone(), ..Notes::default() };
    let packed = pack(from, to, &Parcel { notes, ..parcel(NOW) });
    (from.seal(to, packed).unwrap(), models)
}

#[test]
fn models_are_told_until_the_other_has_certainly_read_it_and_again_when_they_change() {
    let [(mut ann, ann_keys), (mut bob, bob_keys)] = ann_and_bob();
    let ours = Some(Models::compiled_in().set());
    let exchange = |ann: &mut Seals, bob: &mut Seals| {
        let (body, told) = tell(ann, &bob_keys);
        open(bob, &body).unwrap();
        let (answer, _) = seal(bob, &ann_keys, NOW);
        open(ann, &answer).unwrap();
        told
    };
    let (lost, told) = tell(&mut ann, &bob_keys);
    assert_eq!(told, ours);
    assert_eq!(exchange(&mut ann, &mut bob), ours, "nobody has answered");
    assert_eq!(exchange(&mut ann, &mut bob), None);
    assert!(open(&mut bob, &lost).is_ok());
    ann = reopened(&ann);
    assert_eq!(exchange(&mut ann, &mut bob), None, "it is on the disk");
    ann.token_given(&bob_keys.identity);
    assert!(!ann.wants_token(&bob_keys.identity));
    ann.tell_anew(&bob_keys.identity);
    assert!(ann.wants_token(&bob_keys.identity), "and the token, too");
    assert_eq!(exchange(&mut ann, &mut bob), ours, "he says that he may have lost it");
    let (models, _) = with_one_more();
    ann = reopened_with(&ann, models.clone());
    assert_eq!(exchange(&mut ann, &mut bob), Some(models.set()));
    assert_eq!(exchange(&mut ann, &mut bob), None);
}

#[test]
fn what_somebody_says_goes_before_their_ticket_and_outlasts_the_home_that_heard_it() {
    let [(mut ann, _), (mut bob, bob_keys)] = ann_and_bob();
    let modelled = seal(&mut ann, &bob_keys, NOW);
    open(&mut bob, &modelled.0).unwrap();
    assert!(!ann.models_told(&bob_keys.identity, Models::compiled_in().set()));
    assert!(ann.models_told(&bob_keys.identity, ModelSet::EMPTY), "what served best is not among them");
    ann = reopened(&ann);
    assert!(seal(&mut ann, &bob_keys, NOW).1 > modelled.1 + 5, "by zstd, whatever the ticket says");
    assert!(!ann.models_told(&bob_keys.identity, Models::compiled_in().set()));
    assert_eq!(seal(&mut ann, &bob_keys, NOW).1, modelled.1);
}
