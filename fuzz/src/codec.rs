//! Coded contents: whatever they say, no more comes out than the reader allows; and what is coded comes out as it was.

use thinpost_wire::codec::{self, Codec, CodecError, DictionarySet};
use thinpost_wire::limits::{BATCH_DECODED_BYTES_MAX, BODY_BYTES_MAX};

/// What readers allow, bytes.
const ALLOWED: [usize; 5] = [0, 100, BATCH_DECODED_BYTES_MAX, BODY_BYTES_MAX, codec::BLOCK_CONTENT_BYTES_MAX];

/// A content that is coded is not longer: the search for its shortest form takes long.
const CODED_BYTES_MAX: usize = 300;

/// The first byte says what the reader allows, and whether the rest is coded first.
///
/// # Panics
/// When more comes out than is allowed, a dictionary is unknown that is here, or what was coded comes out as something else.
pub fn run(bytes: &[u8]) {
    let Some((&choice, rest)) = bytes.split_first() else { return };
    let allowed = ALLOWED[usize::from(choice & 0x7f) % ALLOWED.len()];
    if choice & 0x80 == 0 {
        decode(rest, allowed);
    } else {
        encode(&rest[..rest.len().min(CODED_BYTES_MAX)]);
    }
}

fn decode(coded: &[u8], allowed: usize) {
    match codec::decode(coded, allowed) {
        Ok(content) => {
            assert!(content.len() <= allowed);
            // Under a wider bound the same comes out.
            assert_eq!(codec::decode(coded, allowed + 1).as_ref(), Ok(&content));
        }
        Err(CodecError::UnknownDictionary(number)) => {
            assert!(!DictionarySet::compiled_in().contains(number));
            assert_eq!(Codec::of(coded), Ok(Codec::Dictionary(number)));
        }
        Err(CodecError::TooLong { max }) => assert_eq!(max, allowed),
        Err(_) => {}
    }
}

fn encode(content: &[u8]) {
    let mut coded = Vec::new();
    let codec = codec::encode_best(content, DictionarySet::compiled_in(), &mut coded);
    assert!(coded.len() <= content.len() + 1);
    assert_eq!(Codec::of(&coded), Ok(codec));
    assert_eq!(codec::decode(&coded, content.len()).as_deref(), Ok(content));
    if let Some(less) = content.len().checked_sub(1) {
        assert!(codec::decode(&coded, less).is_err(), "a byte more than is allowed");
    }
}
