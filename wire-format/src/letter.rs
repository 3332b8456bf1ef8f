//! What an application's message looks like inside an envelope's body.
//!
//! A letter of text costs one byte beside the text. Letters too long for one datagram are coded on their
//! own, since a batch cannot help them; all others stay plain, so that one coder run spans a whole batch.

use std::borrow::Cow;

use crate::codec::{self, CodecError, DictionarySet};
use crate::ids::AppId;
use crate::parcel::PARCEL_BYTES_MAX;

const HAS_APP_ID: u8 = 0x01;
const IS_DATA: u8 = 0x02;
const IS_CODED: u8 = 0x04;
const KNOWN_BITS: u8 = HAS_APP_ID | IS_DATA | IS_CODED;

/// Longest content that is left to the batch's codec, bytes.
const PLAIN_BYTES_MAX: usize = 1_000;

/// Longest content of a letter, bytes: with its head and the widest seal around it, it fits an envelope even
/// when nothing shrinks it.
pub const CONTENT_BYTES_MAX: usize = 65_000;
const _: () = assert!(CONTENT_BYTES_MAX + 18 + 17 <= PARCEL_BYTES_MAX);

/// First bytes of bodies that are no letters but seals around a parcel: one that needs a session, and one
/// that brings it. `PROTOCOL.md`, section "Seals".
pub const SEALED: u8 = 0x80;
/// See [`SEALED`].
pub const SEALED_FIRST: u8 = 0x81;

/// Whether an envelope's body is sealed: random to all but two, so that no codec helps.
pub fn is_sealed(body: &[u8]) -> bool {
    matches!(body.first(), Some(&(SEALED | SEALED_FIRST)))
}

/// What a letter holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content<'a> {
    /// Text for a person.
    Text(Cow<'a, str>),
    /// Bytes for an application.
    Data(Cow<'a, [u8]>),
}

/// An application's message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter<'a> {
    /// What the application calls it.
    pub app_id: Option<AppId>,
    /// What it says.
    pub content: Content<'a>,
}

/// Why a body is not a letter. The sender is at fault, or newer than this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LetterError {
    /// The body ends inside its head.
    #[error("the letter ends inside its head")]
    Truncated,
    /// A head bit that this version does not know.
    #[error("unknown bits {0:#04x} in the letter's head")]
    UnknownBits(u8),
    /// Text that is not UTF-8.
    #[error("the letter's text is not UTF-8")]
    NotUtf8,
    /// The content could not be decoded.
    #[error("the letter's content: {0}")]
    Codec(#[from] CodecError),
}

/// The content is longer than a letter may be; nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the message has {bytes} bytes; at most {CONTENT_BYTES_MAX} fit")]
pub struct TooLong {
    /// How long it is.
    pub bytes: usize,
}

impl<'a> Letter<'a> {
    /// The body that carries this letter. Long content is coded with dictionaries that the recipient
    /// has; pass [`DictionarySet::compiled_in`] where nothing is known, as those come with the protocol.
    ///
    /// # Errors
    /// When the content is longer than [`CONTENT_BYTES_MAX`].
    pub fn encode(&self, recipient_has: DictionarySet) -> Result<Vec<u8>, TooLong> {
        let (content, kind) = match &self.content {
            Content::Text(text) => (text.as_bytes(), 0),
            Content::Data(data) => (data.as_ref(), IS_DATA),
        };
        if content.len() > CONTENT_BYTES_MAX {
            return Err(TooLong { bytes: content.len() });
        }
        let coded = content.len() > PLAIN_BYTES_MAX;
        let head =
            kind | if self.app_id.is_some() { HAS_APP_ID } else { 0 } | if coded { IS_CODED } else { 0 };
        let mut body = Vec::with_capacity(content.len() + 18);
        body.push(head);
        body.extend(self.app_id.iter().flat_map(|id| id.0));
        if coded {
            codec::encode_best(content, recipient_has, &mut body);
        } else {
            body.extend_from_slice(content);
        }
        Ok(body)
    }

    /// Reads a letter; allocates at most [`CONTENT_BYTES_MAX`] bytes.
    ///
    /// # Errors
    /// When the body is none of this version.
    pub fn decode(body: &'a [u8]) -> Result<Self, LetterError> {
        let (&head, mut rest) = body.split_first().ok_or(LetterError::Truncated)?;
        if head & !KNOWN_BITS != 0 {
            return Err(LetterError::UnknownBits(head & !KNOWN_BITS));
        }
        let app_id = if head & HAS_APP_ID != 0 {
            let (id, after) = rest.split_first_chunk::<16>().ok_or(LetterError::Truncated)?;
            rest = after;
            Some(AppId(*id))
        } else {
            None
        };
        let content: Cow<'a, [u8]> = if head & IS_CODED != 0 {
            Cow::Owned(codec::decode(rest, CONTENT_BYTES_MAX)?.into_owned())
        } else {
            Cow::Borrowed(rest)
        };
        let content = if head & IS_DATA != 0 {
            Content::Data(content)
        } else {
            Content::Text(match content {
                Cow::Borrowed(bytes) => {
                    Cow::Borrowed(std::str::from_utf8(bytes).map_err(|_| LetterError::NotUtf8)?)
                }
                Cow::Owned(bytes) => Cow::Owned(String::from_utf8(bytes).map_err(|_| LetterError::NotUtf8)?),
            })
        };
        Ok(Self { app_id, content })
    }
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;
    use proptest::prelude::*;

    use super::*;
    use crate::limits::BODY_BYTES_MAX;

    fn text(text: &str) -> Letter<'_> {
        Letter { app_id: None, content: Content::Text(text.into()) }
    }

    /// The vectors of `PROTOCOL.md`, section "Letters".
    #[test]
    fn golden_vectors_hold() {
        let named =
            Letter { app_id: Some(AppId([0xab; 16])), content: Content::Data(b"\x00\x01"[..].into()) };
        for (hex, letter) in
            [("006869", text("hi")), ("03abababababababababababababababab0001", named), ("00", text(""))]
        {
            let body = letter.encode(DictionarySet::compiled_in()).unwrap();
            assert_eq!(HEXLOWER.encode(&body), hex);
            assert_eq!(Letter::decode(&body), Ok(letter));
        }
    }

    #[test]
    fn long_text_is_coded_and_comes_back() {
        let long = "a long story, told twice. ".repeat(200);
        let body = text(&long).encode(DictionarySet::compiled_in()).unwrap();
        assert!(body.len() < long.len() / 10);
        assert_eq!(Letter::decode(&body), Ok(text(&long)));
    }

    #[test]
    fn each_kind_of_damage_has_its_own_error() {
        assert_eq!(Letter::decode(&[]), Err(LetterError::Truncated));
        assert_eq!(Letter::decode(&[1, 2, 3]), Err(LetterError::Truncated));
        assert_eq!(Letter::decode(&[8]), Err(LetterError::UnknownBits(8)));
        assert_eq!(Letter::decode(&[0, 0xff]), Err(LetterError::NotUtf8));
        assert!(matches!(Letter::decode(&[4]), Err(LetterError::Codec(_))));
        let long = vec![0; CONTENT_BYTES_MAX + 1];
        let letter = Letter { app_id: None, content: Content::Data(long.into()) };
        assert_eq!(
            letter.encode(DictionarySet::compiled_in()),
            Err(TooLong { bytes: CONTENT_BYTES_MAX + 1 })
        );
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(id: Option<[u8; 16]>, data in prop::collection::vec(any::<u8>(), 0..3000)) {
            let letter = Letter { app_id: id.map(AppId), content: Content::Data(data.into()) };
            let body = letter.encode(DictionarySet::compiled_in()).unwrap();
            prop_assert!(body.len() <= BODY_BYTES_MAX);
            prop_assert_eq!(Letter::decode(&body), Ok(letter));
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Letter::decode(&body);
        }
    }
}
