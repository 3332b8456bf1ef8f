use data_encoding::HEXLOWER;
use proptest::prelude::*;

use super::*;

fn model(name: &str) -> &'static Model {
    static MODELS: Models = Models::compiled_in();
    let number = NUMBERED.iter().position(|numbered| numbered.name == name).unwrap();
    MODELS.get(ModelName::Number(number as u8)).unwrap()
}

fn coded(model: &Model, text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    encode(model, text, &mut out);
    out
}

/// The vectors of `PROTOCOL.md`, section "Text models".
#[test]
fn golden_vectors_hold() {
    for line in include_str!("golden.txt").lines().filter(|line| !line.starts_with('#')) {
        let mut fields = line.splitn(3, '\t');
        let (name, hex, text) = (fields.next().unwrap(), fields.next().unwrap(), fields.next().unwrap());
        let model = model(name);
        assert_eq!(HEXLOWER.encode(&coded(model, text)), hex, "{name}: {text}");
        assert_eq!(decode(model, &HEXLOWER.decode(hex.as_bytes()).unwrap(), 1_000).as_deref(), Ok(text));
    }
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
        let bytes = coded(model("multilingual"), text).len();
        assert!(bytes <= text.len(), "{text}: {bytes} of {}", text.len());
    }
    let georgian = texts[0];
    assert!(coded(model("multilingual"), georgian).len() * 2 < georgian.len());
}

#[test]
fn texts_are_bounded_and_say_so() {
    let model = model("english");
    let long = "hello ".repeat(1_000);
    let bytes = coded(model, &long);
    assert!(bytes.len() < 100, "what comes again costs next to nothing: {}", bytes.len());
    assert_eq!(decode(model, &bytes, 5_999), Err(TextError::TooLong { max: 5_999 }));
    assert_eq!(decode(model, &bytes, 6_000).as_deref(), Ok(&long[..]));
    assert_eq!(decode(model, &coded(model, ""), 0).as_deref(), Ok(""));
}

#[test]
fn a_run_that_goes_on_behind_its_text_is_refused() {
    let model = model("english");
    let mut bytes = coded(model, "See you at eight?");
    bytes.extend([1; 8]);
    assert_eq!(decode(model, &bytes, 100), Err(TextError::Corrupt));
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
            let model = model(numbered.name);
            let found = decode(model, &coded(model, &text), text.len());
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
            if let Ok(text) = decode(model(name), &bytes, 200) {
                prop_assert!(text.len() <= 200);
            }
        }
    }
}
