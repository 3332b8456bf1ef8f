use data_encoding::HEXLOWER;
use proptest::prelude::*;

use super::*;
use crate::dictionary::DICTIONARIES;

const DECODED_MAX: usize = 8 * 1024;
const ALL: DictionarySet = DictionarySet::compiled_in();

/// One text for each dictionary, by number.
const TEXTS: [&str; 6] = [
    "See you at eight, bring the keys",
    "Увидимся в восемь, возьми ключи",
    "¿Nos vemos mañana por la tarde?",
    "سأراك غدا في المساء",
    "मैं कल शाम को आऊँगा",
    r#"{"origin":"JFK","year":2013,"month":6,"day":2,"hour":18,"temp":84.92}"#,
];

fn best(content: &[u8], peer_has: DictionarySet) -> (Codec, Vec<u8>) {
    let mut coded = Vec::new();
    let codec = encode_best(content, peer_has, &mut coded);
    (codec, coded)
}

fn coded_as(codec: Codec, content: &[u8]) -> Vec<u8> {
    let mut coded = Vec::new();
    assert!(encode_as(codec, content, &mut coded), "{codec:?} cannot hold the content");
    coded
}

/// Bytes on the wire that every later version must go on reading.
#[test]
fn golden_codings_decode_to_their_text() {
    let no_dictionary = "abcabcabdabcabcabeabcabcabd ".repeat(12);
    let golden = [
        ("006869", "hi"),
        ("0198616263616263616264616263616263616265200200313f9550da0c03", no_dictionary.as_str()),
        ("104853657420656b65797303fc5840049f2b6364ace19d6e", TEXTS[0]),
        ("1118d0a32c07fcf259fd4256c65127c7cd76c888308435c4693411", TEXTS[1]),
        ("1238c2bf4e6f73203f03fcb294058633a02928b66c11", TEXTS[2]),
        ("1318d8b3a104fc7b4a5b7d3e22524a4ccf213201", TEXTS[3]),
        ("1408e004fc5468ce0e1936caaa86025891", TEXTS[4]),
        ("15587b4a464b3638342e39327d04fcb03148fbdaf5f9311019", TEXTS[5]),
    ];
    for (hex, text) in golden {
        let coded = HEXLOWER.decode(hex.as_bytes()).unwrap();
        assert_eq!(decode(&coded, DECODED_MAX).unwrap(), text.as_bytes(), "{hex}");
    }
}

#[test]
fn each_script_is_coded_with_its_own_dictionary_and_shrinks() {
    for (number, text) in (0..).zip(TEXTS) {
        let (codec, coded) = best(text.as_bytes(), ALL);
        assert_eq!(codec, Codec::Dictionary(number), "{text}");
        assert!(coded.len() * 4 <= text.len() * 3, "{text}: {} bytes of {}", coded.len(), text.len());
    }
}

#[test]
fn a_batch_in_two_scripts_can_use_the_dictionary_of_either() {
    let mixed = format!("{} {}", TEXTS[0], TEXTS[1]);
    let tried = dictionary::candidates(mixed.as_bytes(), ALL);
    assert!(tried.contains(&0) && tried.contains(&1), "{tried:?}");
    let shortest = best(mixed.as_bytes(), ALL).1.len();
    for number in [0, 1] {
        assert!(shortest <= coded_as(Codec::Dictionary(number), mixed.as_bytes()).len());
    }
}

#[test]
fn a_peer_gets_only_codings_it_can_read() {
    let text = TEXTS[0].repeat(10);
    assert_eq!(best(text.as_bytes(), DictionarySet::EMPTY).0, Codec::Zstd);
    let only_latin = DictionarySet::from_bits(1 << 2);
    assert_eq!(best(text.as_bytes(), only_latin).0, Codec::Dictionary(2));
    // Dictionaries that only the peer has are no help.
    assert_eq!(best(TEXTS[0].as_bytes(), DictionarySet::from_bits(1 << 31)).0, Codec::Raw);
}

#[test]
fn what_cannot_shrink_is_raw_and_one_byte_longer() {
    let mut random = [0; 1000];
    blake3::Hasher::new().finalize_xof().fill(&mut random);
    for content in [&b""[..], b"k", b"ok!", &random] {
        let (codec, coded) = best(content, ALL);
        assert_eq!((codec, coded.len()), (Codec::Raw, content.len() + 1));
        assert!(matches!(decode(&coded, content.len()), Ok(Cow::Borrowed(decoded)) if decoded == content));
    }
}

#[test]
fn the_longest_contents_come_back() {
    for bytes in [
        DICTIONARY_CONTENT_BYTES_MAX,
        DICTIONARY_CONTENT_BYTES_MAX + 1,
        BLOCK_CONTENT_BYTES_MAX,
        BLOCK_CONTENT_BYTES_MAX + 1,
    ] {
        let content: Vec<u8> =
            (0..).flat_map(|n: u32| format!("message {n}, ").into_bytes()).take(bytes).collect();
        let (codec, coded) = best(&content, ALL);
        assert_eq!(codec == Codec::Raw, bytes > BLOCK_CONTENT_BYTES_MAX);
        assert_eq!(decode(&coded, bytes).unwrap(), content);
    }
}

#[test]
fn encode_as_leaves_the_output_alone_when_it_cannot() {
    let mut out = b"before".to_vec();
    assert!(!encode_as(Codec::Dictionary(6), TEXTS[0].as_bytes(), &mut out));
    assert!(!encode_as(Codec::Dictionary(32), TEXTS[0].as_bytes(), &mut out));
    assert!(!encode_as(Codec::Zstd, b"a", &mut out));
    assert!(!encode_as(Codec::Dictionary(0), &[b'a'; DICTIONARY_CONTENT_BYTES_MAX + 1], &mut out));
    assert_eq!(out, b"before");
}

#[test]
fn a_first_byte_is_read_back_or_refused_by_name() {
    for first in 0..=u8::MAX {
        let expected = match first {
            0 => Ok(Codec::Raw),
            1 => Ok(Codec::Zstd),
            2 => Ok(Codec::Text(ModelName::Id([7; 4]))),
            16..=47 => Ok(Codec::Dictionary(first - 16)),
            64..=245 => Ok(Codec::Text(ModelName::Number((first - 64) / 14))),
            _ => Err(CodecError::UnknownCodec(first)),
        };
        assert_eq!(Codec::of(&[first, 7, 7, 7, 7, 9]), expected);
        assert_eq!(dictionary_number(first), (16..=47).contains(&first).then(|| first - 16));
        match expected {
            Ok(Codec::Text(_)) | Err(_) => {}
            Ok(codec) => assert_eq!(codec.tag(), Some(first)),
        }
    }
    assert_eq!(Codec::Dictionary(32).tag(), None);
}

#[test]
fn each_refusal_has_its_own_error() {
    assert_eq!(decode(&[], 10), Err(CodecError::Empty));
    assert_eq!(decode(&[3], 10), Err(CodecError::UnknownCodec(3)));
    assert_eq!(decode(&[2, 1, 2, 3], 10), Err(CodecError::UnknownCodec(2)), "and its id is cut");
    assert_eq!(decode(&[2, 1, 2, 3, 4, 5], 10), Err(CodecError::UnknownCodec(2)));
    assert_eq!(decode(&[64, 1, 2], 10), Err(CodecError::UnknownCodec(64)), "no texts in a batch");
    assert_eq!(decode(&[0xff, 1, 2], 10), Err(CodecError::UnknownCodec(0xff)));
    let absent = DICTIONARIES.len() as u8;
    assert_eq!(decode(&[16 + absent, 1, 2], 10), Err(CodecError::UnknownDictionary(absent)));
    assert_eq!(decode(&[0, 1, 2], 1), Err(CodecError::TooLong { max: 1 }));
    assert_eq!(decode(&[1], 10), Err(CodecError::Corrupt));
    assert_eq!(decode(&[16], 10), Err(CodecError::Corrupt));
    let too_long_for_a_block = vec![1; BLOCK_CONTENT_BYTES_MAX + 2];
    assert_eq!(decode(&too_long_for_a_block, usize::MAX), Err(CodecError::Corrupt));
}

/// The first and the last of the choices that there may be, and so many that a carry could run as far as it ever does.
#[test]
fn a_stream_never_leaves_the_first_bytes_of_its_model() {
    const TOTAL: u32 = u32::MAX;
    for number in 0..NUMBERS {
        for start in [0, 1, TOTAL - 2, TOTAL - 1] {
            for choices in 0..30 {
                let mut coded = b"before".to_vec();
                let mut encoder = begin(ModelName::Number(number), &mut coded);
                (0..choices).for_each(|_| encoder.encode(start, 1, TOTAL));
                encoder.encode(TOTAL - 1, 1, TOTAL);
                encoder.finish();
                let coded = coded.strip_prefix(b"before").unwrap();
                let first = coded[0];
                assert!((64 + 14 * number..64 + 14 * (number + 1)).contains(&first), "{number}: {first}");
                let Ok(Opened::Choices(name, mut decoder)) = open(coded, 0) else { panic!("{coded:?}") };
                assert_eq!(name, ModelName::Number(number));
                for expected in (0..choices).map(|_| start).chain([TOTAL - 1]) {
                    let (position, unit) = decoder.position(TOTAL);
                    assert_eq!(position, expected);
                    decoder.take(position, 1, unit);
                }
                assert!(!decoder.is_exhausted() && !decoder.has_rest());
            }
        }
    }
}

#[test]
fn a_block_that_grows_beyond_the_bound_is_refused() {
    let bomb = coded_as(Codec::Zstd, &[b'a'; BLOCK_CONTENT_BYTES_MAX]);
    assert!(bomb.len() < 32, "{} bytes", bomb.len());
    for decoded_max in [0, 1, 1200, DECODED_MAX, BLOCK_CONTENT_BYTES_MAX - 1] {
        assert_eq!(decode(&bomb, decoded_max), Err(CodecError::TooLong { max: decoded_max }));
    }
    assert_eq!(decode(&bomb, BLOCK_CONTENT_BYTES_MAX).unwrap().len(), BLOCK_CONTENT_BYTES_MAX);
}

#[test]
fn a_whole_zstd_frame_is_no_block() {
    for header in [&[0x28, 0xb5, 0x2f, 0xfd][..], &[]] {
        let frame = [header, &[0x00, 0x58, 0x15, 0x00, 0x00, b'h', b'i']].concat();
        assert_eq!(decode(&[&[1], &frame[..]].concat(), DECODED_MAX), Err(CodecError::Corrupt));
    }
}

/// No length and no checksum: a damaged block can slip through, but seldom, and never as what it was.
#[test]
fn a_cut_or_extended_block_is_nearly_always_refused() {
    let (mut accepted, mut tried) = (0, 0);
    for (number, text) in (0..).zip(TEXTS) {
        let coded = coded_as(Codec::Dictionary(number), text.as_bytes());
        let cut = (1..coded.len()).map(|end| coded[..end].to_vec());
        let extended = (0..=u8::MAX).map(|byte| [&coded[..], &[byte]].concat());
        for damaged in cut.chain(extended) {
            tried += 1;
            if let Ok(content) = decode(&damaged, DECODED_MAX) {
                assert_ne!(content, text.as_bytes());
                accepted += 1;
            }
        }
    }
    assert!(accepted * 50 <= tried, "{accepted} of {tried} accepted");
}

fn any_codec() -> impl Strategy<Value = Codec> {
    prop_oneof![
        Just(Codec::Raw),
        Just(Codec::Zstd),
        (0..DICTIONARIES.len() as u8).prop_map(Codec::Dictionary)
    ]
}

/// Texts out of words in several scripts, JSON, and noise.
fn any_content() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![proptest::sample::select(&TEXTS[..]).prop_map(str::to_owned), "\\PC{0,12}"];
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..2000),
        proptest::collection::vec(word, 0..30).prop_map(|words| words.join(" ").into_bytes()),
    ]
}

proptest! {
    #[test]
    fn any_content_comes_back_and_grows_by_the_tag_at_most(content in any_content(), bits in any::<u32>()) {
        let peer_has = DictionarySet::from_bits(bits);
        let (codec, coded) = best(&content, peer_has);
        prop_assert!(coded.len() <= content.len() + 1);
        prop_assert_eq!(codec.tag(), coded.first().copied());
        if let Codec::Dictionary(number) = codec {
            prop_assert!(peer_has.contains(number));
        }
        prop_assert_eq!(&*decode(&coded, content.len()).unwrap(), &content[..]);
    }

    #[test]
    fn every_coding_gives_the_content_back(content in any_content(), codec in any_codec()) {
        let mut coded = Vec::new();
        if encode_as(codec, &content, &mut coded) {
            prop_assert_eq!(&*decode(&coded, content.len()).unwrap(), &content[..]);
        }
    }

    #[test]
    fn a_bound_below_the_content_is_kept(content in any_content(), codec in any_codec()) {
        let mut coded = Vec::new();
        if !content.is_empty() && encode_as(codec, &content, &mut coded) {
            let max = content.len() - 1;
            prop_assert_eq!(decode(&coded, max), Err(CodecError::TooLong { max }));
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic_nor_exceed_the_bound(
        tag in prop_oneof![any::<u8>(), 0u8..=1, 16u8..=22],
        rest in proptest::collection::vec(any::<u8>(), 0..300),
        decoded_max in 0usize..4096,
    ) {
        if let Ok(content) = decode(&[&[tag], &rest[..]].concat(), decoded_max) {
            prop_assert!(content.len() <= decoded_max);
        }
    }

    #[test]
    fn a_changed_byte_never_panics_nor_exceeds_the_bound(
        content in any_content(), at in any::<proptest::sample::Index>(), flip in 1u8..=255,
    ) {
        let (_, mut coded) = best(&content, ALL);
        let index = at.index(coded.len());
        coded[index] ^= flip;
        if let Ok(decoded) = decode(&coded, DECODED_MAX) {
            prop_assert!(decoded.len() <= DECODED_MAX);
        }
    }
}
