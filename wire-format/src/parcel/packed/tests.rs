use data_encoding::HEXLOWER;
use proptest::prelude::*;

use super::*;
use crate::batch::Ack;
use crate::codec::Codec;
use crate::limits::BODY_BYTES_MAX;
use crate::notes::{Notes, Seen};
use crate::parcel::{Item, Parcel};
use crate::text::{Favourite, TextWriter};
use crate::token::Token;

const OURS: ShortIncarnation = ShortIncarnation([0xaa; 4]);

fn all() -> (Models, ModelSet) {
    let models = Models::compiled_in();
    let set = models.set();
    (models, set)
}

fn texts<'a>(letters: &'a [Vec<u8>], first: u64) -> Parcel<'a> {
    let items = (first..).zip(letters).map(|(number, letter)| Item { number, letter }).collect();
    Parcel { incarnation: OURS, notes: Notes::default(), items }
}

fn letter(text: &str) -> Vec<u8> {
    [&[0], text.as_bytes()].concat()
}

/// Packs, unpacks, compares, and says how many bytes it took.
fn both_ways(parcel: &Parcel<'_>, knows_incarnation: bool) -> Vec<u8> {
    let (models, set) = all();
    let reader = Reader { models: &set, knows_incarnation };
    let packed = pack(parcel, &models, reader, &mut Favourite::default());
    let named = knows_incarnation.then_some(parcel.incarnation);
    let plain = unpack(&packed, &models, named, BODY_BYTES_MAX).unwrap();
    assert_eq!(Parcel::decode(&plain).as_ref(), Ok(parcel));
    assert!(packed.len() <= parcel.encode().len() + 1);
    packed
}

#[test]
fn as_many_letters_as_fit_are_packed_and_one_in_any_case() {
    let (models, set) = all();
    let reader = Reader { models: &set, knows_incarnation: true };
    let who = ["my brother", "she", "the doctor", "nobody", "your friend"];
    let what =
        ["comes back", "wants to know", "will call you", "has to wait", "was here", "can pay", "forgot"];
    let when = ["tomorrow", "after lunch", "at eight"];
    let text = |n: usize| format!("{} {} {}", who[n % 5], what[n * 3 % 7], when[n % 3]);
    let letters: Vec<_> = (0..40).map(|n| letter(&text(n))).collect();
    let parcel = texts(&letters, 5);
    let whole = pack(&parcel, &models, reader, &mut Favourite::default()).len();
    let mut counts = Vec::new();
    for bytes_max in 1..=whole {
        let mut favourite = Favourite::default();
        let (count, packed) = pack_within(bytes_max, &parcel, &models, reader, &mut favourite);
        assert!(packed.len() <= bytes_max || count == 1, "{count} in {bytes_max}");
        let unpacked = unpack(&packed, &models, Some(OURS), BODY_BYTES_MAX).unwrap();
        assert_eq!(Parcel::decode(&unpacked).unwrap(), texts(&letters[..count], 5));
        if count < letters.len() {
            let more = pack(&texts(&letters[..=count], 5), &models, reader, &mut Favourite::default());
            assert!(more.len() > bytes_max, "one more fits into {bytes_max}");
        }
        counts.push(count);
    }
    assert!(counts.is_sorted() && counts.last() == Some(&letters.len()), "{counts:?}");
}

#[test]
fn what_no_model_suits_is_packed_as_far_as_it_fits_too() {
    let (models, set) = all();
    let reader = Reader { models: &set, knows_incarnation: true };
    let object = |n| format!(r#"{{"sensor":"north-{n}","temperature":{n}.5,"humidity":{n}}}"#);
    let letters: Vec<_> = (0..60).map(|n| [&[2], object(n).as_bytes()].concat()).collect();
    let parcel = texts(&letters, 1);
    // A model that was used before has the choices for it, and takes a byte for a byte.
    for favourite in [Favourite::default(), Favourite::new(ModelName::Number(0))] {
        let (count, packed) = pack_within(600, &parcel, &models, reader, &mut favourite.clone());
        assert!(packed.len() <= 600 && count > 600 / letters[0].len() * 2, "{count}, {}", packed.len());
        let unpacked = unpack(&packed, &models, Some(OURS), BODY_BYTES_MAX).unwrap();
        assert_eq!(Parcel::decode(&unpacked).unwrap(), texts(&letters[..count], 1));
    }
}

#[test]
fn a_text_takes_data_along_that_only_a_codec_makes_short() {
    let (models, set) = all();
    let reader = Reader { models: &set, knows_incarnation: true };
    let data = [&[2], r#"{"door":"open","light":"off"},"#.repeat(30).as_bytes()].concat();
    let letters = [letter("Here is the log of today"), data];
    let (count, packed) = pack_within(300, &texts(&letters, 1), &models, reader, &mut Favourite::default());
    assert!(count == 2 && packed.len() <= 300, "{count}, {}", packed.len());
}

/// The vectors of `PROTOCOL.md`, section "Packed parcels".
#[test]
fn golden_vectors_hold() {
    let number = |name| {
        let number = crate::text::NUMBERED.iter().position(|numbered| numbered.name == name).unwrap();
        ModelName::Number(number as u8)
    };
    let parcel = |notes, letters: &[(u64, &'static [u8])]| {
        let items = letters.iter().map(|&(number, letter)| Item { number, letter }).collect();
        Parcel { incarnation: OURS, notes, items }
    };
    let seen = Seen {
        incarnation: ShortIncarnation([0xbb; 4]),
        arrived: Ack { watermark: 7, received: vec![(9, 10)] },
        read: 5,
    };
    let seen = || Notes { seen: vec![seen.clone()], ..Notes::default() };
    let cases: [(&str, &str, bool, Parcel<'_>); 4] = [
        (
            "447a43428b083fc046",
            "english",
            true,
            parcel(Notes::default(), &[(300, b"\x00See you at eight, then?")]),
        ),
        (
            "59aaaaaaa714b19aba49acd7267729",
            "russian",
            false,
            parcel(Notes::default(), &[(1, "\0Где ты?".as_bytes()), (7, "\0Уже дома".as_bytes())]),
        ),
        ("4605b296c0488a5a1f1fa601215f", "english", true, parcel(seen(), &[])),
        (
            "d205b296c0488a5a1f1fa60125788713fcb6dca1d8a26616aa6891c8",
            "json",
            true,
            parcel(seen(), &[(70_000, b"\x02{\"temp\":39.02}"), (70_001, b"\x02\xff\xfe")]),
        ),
    ];
    let models = Models::compiled_in();
    for (hex, model, knows_incarnation, parcel) in cases {
        let mut set = ModelSet::EMPTY;
        set.insert(number(model));
        let reader = Reader { models: &set, knows_incarnation };
        let packed = pack(&parcel, &models, reader, &mut Favourite::new(number(model)));
        assert_eq!(HEXLOWER.encode(&packed), hex);
        let named = knows_incarnation.then_some(OURS);
        assert_eq!(unpack(&packed, &models, named, BODY_BYTES_MAX), Ok(parcel.encode()));
    }
}

#[test]
fn a_text_takes_a_third_of_its_bytes() {
    let letters = [letter("See you at the station at eight, then?")];
    let packed = both_ways(&texts(&letters, 300), true);
    assert_eq!(Codec::of(&packed).unwrap(), Codec::Text(ModelName::Number(0)));
    assert!(packed.len() <= 16, "{}", packed.len());
    assert_eq!(both_ways(&texts(&letters, 300), false).len(), packed.len() + 4);
}

#[test]
fn texts_of_one_parcel_share_a_run() {
    let letters: Vec<_> = (0..20).map(|day| letter(&format!("Meeting of the board on day {day}"))).collect();
    let together = both_ways(&texts(&letters, 1), true).len();
    let alone: usize = letters.chunks(1).map(|letter| both_ways(&texts(letter, 1), true).len()).sum();
    assert!(together * 3 < alone, "{together} {alone}");
}

#[test]
fn what_is_too_much_for_a_run_goes_without_a_model() {
    let models = Models::compiled_in();
    let name = ModelName::Number(0);
    let written = |letters: &[Vec<u8>], bytes_max: Option<usize>| {
        let reader = Reader { models: &ModelSet::EMPTY, knows_incarnation: true };
        let packing = pack::Packing { parcel: &texts(letters, 1), models: &models, reader, bytes_max };
        packing.write(name, models.get(name).unwrap()).map(|coded| coded.items)
    };
    let letters = vec![letter(&"day after day ".repeat(7)); 110];
    assert_eq!(written(&letters[..80], None), Some(80));
    assert_eq!(written(&letters, None), None);
    assert_eq!(written(&letters, Some(16_000)), Some(82), "as many as a run holds");
    assert!(texts(&letters, 1).encode().len() < MODELLED_BYTES_MAX, "it is the symbols that are too many");
    assert!(!matches!(Codec::of(&both_ways(&texts(&letters, 1), true)), Ok(Codec::Text(_))));
}

#[test]
fn a_reader_without_models_gets_none() {
    let letters = [letter("See you at eight, then?")];
    let parcel = texts(&letters, 1);
    let models = Models::compiled_in();
    for set in [ModelSet::EMPTY, ModelSet::decode(&mut &[2, 0][..]).unwrap()] {
        let reader = Reader { models: &set, knows_incarnation: true };
        let packed = pack(&parcel, &models, reader, &mut Favourite::default());
        assert!(!matches!(Codec::of(&packed).unwrap(), Codec::Text(_)), "Russian alone suits no English");
        assert_eq!(unpack(&packed, &models, None, BODY_BYTES_MAX).unwrap(), parcel.encode());
    }
}

#[test]
fn what_is_missing_is_said() {
    let letters = [letter("See you at eight, then?")];
    let packed = both_ways(&texts(&letters, 1), true);
    let models = Models::compiled_in();
    assert_eq!(unpack(&packed, &models, None, BODY_BYTES_MAX), Err(UnpackError::Unnamed));
    let mut unknown = packed.clone();
    unknown[0] += 12 * 14;
    assert_eq!(
        unpack(&unknown, &models, Some(OURS), BODY_BYTES_MAX),
        Err(UnpackError::UnknownModel(ModelName::Number(12)))
    );
    let by_id = [&[2, 1, 2, 3, 4], &packed[1..]].concat();
    assert_eq!(
        unpack(&by_id, &models, Some(OURS), BODY_BYTES_MAX),
        Err(UnpackError::UnknownModel(ModelName::Id([1, 2, 3, 4])))
    );
    assert_eq!(unpack(&[], &models, None, 9), Err(UnpackError::Codec(CodecError::Empty)));
    assert_eq!(
        unpack(&packed, &models, Some(OURS), 20),
        Err(UnpackError::Text(TextError::TooLong { max: 20 }))
    );
}

#[test]
fn a_letter_without_a_number_is_refused() {
    let models = Models::compiled_in();
    let read = |number: u64| {
        let name = ModelName::Number(0);
        let mut packed = Vec::new();
        let mut coder = codec::begin(name, &mut packed);
        let odds = &mut Odds::new();
        coder.bit(&mut odds.is_named, false);
        coder.bit(&mut odds.has_notes, false);
        coder.bit(&mut odds.has_letters, true);
        coder.number(&mut odds.numbers, number);
        coder.bit(&mut odds.is_unusual, false);
        TextWriter::new(models.get(name).unwrap()).write(&mut coder, "ok").unwrap();
        coder.bit(&mut odds.goes_on, false);
        coder.finish();
        unpack(&packed, &models, Some(OURS), BODY_BYTES_MAX)
    };
    assert_eq!(read(1), Ok(texts(&[letter("ok")], 1).encode()));
    assert_eq!(read(0), Err(UnpackError::Text(TextError::Corrupt)));
}

#[test]
fn a_model_of_ones_own_goes_by_its_id() {
    let file = crate::text::NUMBERED[0].file.unwrap();
    // The same model, packed otherwise: another file, so another id.
    let mut other = crate::text::Parts::from_bytes(file).unwrap();
    other.discount += 1;
    let mut models = Models::compiled_in();
    let name = models.add(&other.to_bytes().unwrap()).unwrap();
    assert!(matches!(name, ModelName::Id(_)));
    assert_eq!(models.add(file).unwrap(), ModelName::Number(0));
    let mut set = ModelSet::EMPTY;
    set.insert(name);
    let letters = [letter("See you at eight, then?")];
    let reader = Reader { models: &set, knows_incarnation: true };
    let packed = pack(&texts(&letters, 1), &models, reader, &mut Favourite::default());
    assert_eq!(Codec::of(&packed).unwrap(), Codec::Text(name));
    let plain = unpack(&packed, &models, Some(OURS), BODY_BYTES_MAX).unwrap();
    assert_eq!(plain, texts(&letters, 1).encode());
}

fn any_letter() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        "[a-zA-Z ,.!?]{0,60}".prop_map(|text| letter(&text)),
        ".{0,30}".prop_map(|text| letter(&text)),
        ".{0,30}".prop_map(|text| [&[1][..], &[7; 16], text.as_bytes()].concat()),
        r#"\{"key":[0-9]{1,5}\}"#.prop_map(|text| [&[2][..], text.as_bytes()].concat()),
        prop::collection::vec(any::<u8>(), 1..40),
    ]
}

proptest! {
    #[test]
    fn what_is_packed_is_unpacked(
        letters in prop::collection::vec((any_letter(), 1..4u64), 0..8),
        first in 1..u64::from(u32::MAX),
        again: bool,
        token in prop::option::of(any::<[u8; 16]>()),
        knows_incarnation: bool,
    ) {
        let mut number = first;
        let items = letters.iter().map(|(letter, step)| {
            let item = Item { number, letter };
            number += step;
            item
        });
        let notes = Notes { again, token: token.map(Token), ..Notes::default() };
        both_ways(&Parcel { incarnation: OURS, notes, items: items.collect() }, knows_incarnation);
    }

    #[test]
    fn no_bytes_make_the_unpacker_panic_or_exceed_its_bound(
        first in 64..64 + 14 * 11u8,
        bytes in prop::collection::vec(any::<u8>(), 0..80),
    ) {
        let packed = [&[first], &bytes[..]].concat();
        if let Ok(plain) = unpack(&packed, &Models::compiled_in(), Some(OURS), 300) {
            prop_assert!(plain.len() <= 300);
        }
    }

    #[test]
    fn a_cut_or_changed_parcel_is_never_the_same(cut in 1..12usize, flip in 0..64usize) {
        let letters = [letter("See you at the station at eight, then?"), letter("ok")];
        let parcel = texts(&letters, 300);
        let packed = both_ways(&parcel, true);
        let models = Models::compiled_in();
        let read = |bytes: &[u8]| unpack(bytes, &models, Some(OURS), BODY_BYTES_MAX);
        prop_assert_ne!(read(&packed[..packed.len().saturating_sub(cut)]), Ok(parcel.encode()));
        let mut changed = packed.clone();
        let at = flip % (8 * packed.len());
        changed[at / 8] ^= 1 << (at % 8);
        prop_assert_ne!(read(&changed), Ok(parcel.encode()));
    }
}
