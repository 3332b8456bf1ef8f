use data_encoding::HEXLOWER;
use proptest::prelude::*;

use super::*;

fn named(name: &str) -> (ModelName, &'static Model) {
    static MODELS: Models = Models::compiled_in();
    let number = NUMBERED.iter().position(|numbered| numbered.name == name).unwrap();
    let name = ModelName::Number(number as u8);
    (name, MODELS.get(name).unwrap())
}

fn coded(model: &str, text: &str) -> Vec<u8> {
    let (name, model) = named(model);
    let mut out = Vec::new();
    encode(name, model, text, &mut out).unwrap();
    out
}

fn decoded(model: &str, coded: &[u8], bytes_max: usize) -> Result<String, TextError> {
    let (name, model) = named(model);
    decode(name, model, coded, bytes_max)
}

/// The vectors of `PROTOCOL.md`, section "Text models".
#[test]
fn golden_vectors_hold() {
    for line in include_str!("golden.txt").lines().filter(|line| !line.starts_with('#')) {
        let mut fields = line.splitn(3, '\t');
        let (name, hex, text) = (fields.next().unwrap(), fields.next().unwrap(), fields.next().unwrap());
        assert_eq!(HEXLOWER.encode(&coded(name, text)), hex, "{name}: {text}");
        assert_eq!(decoded(name, &HEXLOWER.decode(hex.as_bytes()).unwrap(), 1_000).as_deref(), Ok(text));
    }
}

#[test]
fn a_model_without_a_number_goes_by_its_id() {
    let (_, model) = named("english");
    let name = ModelName::Id([0xaa; 4]);
    let mut coded = Vec::new();
    encode(name, model, "See you at the station at eight, then?", &mut coded).unwrap();
    assert_eq!(HEXLOWER.encode(&coded), "02aaaaaaaa67cf776668851e5ee8fe");
    assert_eq!(decode(name, model, &coded, 100).as_deref(), Ok("See you at the station at eight, then?"));
}

#[test]
fn every_model_is_the_one_its_number_was_given_for_and_within_its_bounds() {
    for (number, numbered) in (0..).zip(&NUMBERED) {
        let file = numbered.file.unwrap();
        assert_eq!(blake3::hash(file).to_hex().as_str(), numbered.blake3, "{}", numbered.name);
        assert!(file.len() <= 256_000, "{}: {} bytes", numbered.name, file.len());
        let memory = Models::compiled_in().get(ModelName::Number(number)).unwrap().memory_bytes();
        assert!(memory <= 1_500_000, "{}: {memory} bytes of memory", numbered.name);
        let parts = Parts::from_bytes(file).unwrap();
        assert_eq!(parts.to_bytes().unwrap(), file);
    }
}

#[test]
fn letters_of_any_script_cost_no_more_than_their_utf_8() {
    let texts = ["ქართული ენა ძალიან ლამაზია", "በአማርኛ እንዴት ነህ", "今天天气怎么样？", "ภาษาไทย", "👍🏽🎉"];
    for text in texts {
        let bytes = coded("multilingual", text).len();
        assert!(bytes <= text.len(), "{text}: {bytes} of {}", text.len());
    }
    let georgian = texts[0];
    assert!(coded("multilingual", georgian).len() * 2 < georgian.len());
}

#[test]
fn texts_are_bounded_and_say_so() {
    let long = "hello ".repeat(1_000);
    let bytes = coded("english", &long);
    assert!(bytes.len() < 100, "what comes again costs next to nothing: {}", bytes.len());
    assert_eq!(decoded("english", &bytes, 5_999), Err(TextError::TooLong { max: 5_999 }));
    assert_eq!(decoded("english", &bytes, 6_000).as_deref(), Ok(&long[..]));
    assert_eq!(decoded("english", &coded("english", ""), 0).as_deref(), Ok(""));
}

#[test]
fn a_name_costs_half_a_byte_or_its_id() {
    let (name, model) = named("english");
    let texts: Vec<String> =
        (0..200).map(|day| format!("See you at eight on day {day}, at the station")).collect();
    let bytes = |name| {
        let mut out = Vec::new();
        texts.iter().for_each(|text| encode(name, model, text, &mut out).unwrap());
        out.len()
    };
    let (by_number, by_id) = (bytes(name), bytes(ModelName::Id([7; 4])));
    let spared = by_id - by_number;
    // Five bytes, less 4.2 bits.
    assert!((texts.len() * 42 / 10..texts.len() * 47 / 10).contains(&spared), "{spared}");
}

#[test]
fn a_text_under_another_name_is_refused() {
    let (name, model) = named("english");
    let mut bytes = coded("english", "See you at eight?");
    assert_eq!(decode(ModelName::Number(1), model, &bytes, 100), Err(TextError::Corrupt));
    bytes[0] += 14;
    assert_eq!(decode(name, model, &bytes, 100), Err(TextError::Corrupt));
    assert_eq!(decode(name, model, &[], 100), Err(TextError::Corrupt));
}

#[test]
fn a_run_has_so_many_symbols_and_no_more() {
    let (name, model) = named("english");
    // Two symbols a letter, and an end.
    let text = "A b c ".repeat(RUN_SYMBOLS_MAX / 7);
    let room = RUN_SYMBOLS_MAX % 7;
    let mut out = b"before".to_vec();
    let fits = format!("{text}{}", &"abcdef"[..room - 1]);
    encode(name, model, &fits, &mut out).unwrap();
    let coded = out.split_off(6);
    assert_eq!(decode(name, model, &coded, usize::MAX).as_deref(), Ok(&fits[..]));

    let one_more = format!("{text}{}", &"abcdef"[..room]);
    assert_eq!(encode(name, model, &one_more, &mut out), Err(TextError::TooManySymbols));
    assert_eq!(encode_run(name, model, [&fits[..], ""], &mut out), Err(TextError::TooManySymbols));
    assert_eq!(out, b"before");
    let mut encoder = codec::begin(name, &mut out);
    let mut writer = TextWriter::new(model);
    // As if the bound were higher.
    writer.write(&mut encoder, &fits[..9]).unwrap();
    writer.allow_more();
    writer.write(&mut encoder, &fits).unwrap();
    encoder.finish();
    let mut decoder = match codec::open(&out[6..], 0) {
        Ok(Opened::Choices(_, decoder)) => decoder,
        other => panic!("{other:?}"),
    };
    let mut reader = TextReader::new(model);
    let mut read = || reader.read(&mut decoder, &mut String::new(), usize::MAX);
    assert_eq!((read(), read()), (Ok(()), Err(TextError::TooManySymbols)));
}

#[test]
fn a_run_gives_its_texts_back_if_it_is_known_how_many() {
    let (name, model) = named("english");
    let texts = ["See you at eight?", "", "ok", "Bring the other umbrella, and call my sister before noon"];
    let bytes: usize = texts.iter().map(|text| text.len()).sum();
    let mut coded = Vec::new();
    encode_run(name, model, texts, &mut coded).unwrap();
    let read = |count, bytes_max| decode_run(name, model, &coded, count, bytes_max);
    assert_eq!(read(4, bytes).unwrap(), texts);
    let left = texts[3].len() - 1;
    assert_eq!(read(4, bytes - 1), Err(TextError::TooLong { max: left }), "what was left for the last");
    assert_eq!(read(3, bytes), Err(TextError::Corrupt));
    assert!(read(40, bytes).is_err());
    assert_eq!(decode_run(ModelName::Number(1), model, &coded, 4, bytes), Err(TextError::Corrupt));
}

#[test]
fn a_run_that_goes_on_behind_its_text_is_refused() {
    let mut bytes = coded("english", "See you at eight?");
    bytes.extend([1; 8]);
    assert_eq!(decoded("english", &bytes, 100), Err(TextError::Corrupt));
}

#[test]
fn a_file_that_contradicts_itself_is_refused_at_its_place() {
    let parts = Parts::from_bytes(NUMBERED[0].file.unwrap()).unwrap();
    let refused = |change: &dyn Fn(&mut Parts)| {
        let mut parts = parts.clone();
        change(&mut parts);
        parts.to_bytes().unwrap_err()
    };
    assert_eq!(refused(&|parts| parts.letters.clear()), PartsError::Letters);
    assert_eq!(refused(&|parts| parts.discount = 0), PartsError::Context(0));
    assert_eq!(refused(&|parts| parts.contexts.clear()), PartsError::Context(0));
    assert_eq!(refused(&|parts| parts.contexts[0].entries[3].symbol = 2), PartsError::Context(0));
    assert_eq!(refused(&|parts| parts.contexts[7].entries.clear()), PartsError::Context(7));
    assert_eq!(
        refused(&|parts| parts.contexts[7].entries[0].level = Level::default()),
        PartsError::Context(7)
    );
    let lost = refused(&|parts| {
        parts.contexts.pop();
    });
    assert!(matches!(lost, PartsError::Context(_)), "{lost}");
    let too_many = refused(&|parts| {
        let more = parts.contexts[0].clone();
        parts.contexts.resize(CONTEXTS_MAX + 1, more);
    });
    assert_eq!(too_many, PartsError::TooLarge);

    let file = parts.to_bytes().unwrap();
    assert_eq!(Parts::from_bytes(b"PNG"), Err(PartsError::Magic));
    assert_eq!(Parts::from_bytes(&file[..file.len() - 1]), Err(PartsError::Damaged));
    assert_eq!(Parts::from_bytes(&file[..100]), Err(PartsError::Damaged));
}

#[test]
fn a_favourite_is_found_by_what_people_write() {
    let (models, mut favourite) = (Models::compiled_in(), Favourite::default());
    let set = models.set();
    let mut best = |text| {
        encode_best(text, &models, &set, &mut favourite).unwrap();
        favourite.name().map(|name| match name {
            ModelName::Number(number) => NUMBERED[usize::from(number)].name,
            ModelName::Id(_) => "another",
        })
    };
    assert_eq!(best("Kommst du morgen? No, see you at eight then, my friend"), Some("english"));
    assert_eq!(best("Увидимся завтра в восемь?"), Some("russian"));
    assert_eq!(best("¿Nos vemos mañana a las ocho en la estación, como siempre?"), Some("spanish"));
}

proptest! {
    #[test]
    fn texts_of_every_script_come_back_under_every_model(
        text in "\\PC{0,60}|[a-zA-Z0-9 ,.!?']{0,80}|[А-яЁё ,.]{0,40}|[\\u{600}-\\u{6ff} ]{0,40}|[\\u{900}-\\u{97f} ]{0,40}",
    ) {
        for numbered in &NUMBERED {
            let found = decoded(numbered.name, &coded(numbered.name, &text), text.len());
            prop_assert_eq!(found.as_deref(), Ok(&text[..]));
        }
    }

    #[test]
    fn sets_come_back(numbers: u16, ids in prop::collection::vec(any::<[u8; 4]>(), 0..IDS_MAX)) {
        let mut set = ModelSet::EMPTY;
        (0..13).filter(|number| numbers >> number & 1 == 1).for_each(|number| set.insert(ModelName::Number(number)));
        ids.iter().for_each(|&id| set.insert(ModelName::Id(id)));
        let mut bytes = Vec::new();
        set.encode(&mut bytes);
        let mut rest = &bytes[..];
        prop_assert_eq!(ModelSet::decode(&mut rest), Some(set));
        prop_assert!(rest.is_empty());
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        for name in ["english", "multilingual", "json"] {
            let first = coded(name, "")[0];
            let bytes = [&[first], &bytes[..]].concat();
            if let Ok(text) = decoded(name, &bytes, 200) {
                prop_assert!(text.len() <= 200);
            }
        }
    }
}
