//! What an application's message looks like inside an envelope's body.
//!
//! A letter of text costs one byte beside the text. Inside a seal it stays plain, since the seal's content is coded as a
//! whole. For the relay to see, a text is coded with a text model where that saves bytes, and what is too long for one
//! datagram by zstd; all else stays plain, so that one coder run spans a whole batch.

use std::borrow::Cow;

use crate::codec::{self, CodecError, DictionarySet, Opened};
use crate::ids::AppId;
use crate::parcel::{MODELLED_BYTES_MAX, PARCEL_BYTES_MAX};
use crate::text::{self, Favourite, ModelName, ModelSet, Models, TextError};

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

/// What a letter holds behind its head, if it is not coded on its own; `None` too where its head is none.
pub(crate) fn plain_content(letter: &[u8]) -> Option<&[u8]> {
    let (&head, rest) = letter.split_first()?;
    if head & (!KNOWN_BITS | IS_CODED) != 0 {
        return None;
    }
    if head & HAS_APP_ID != 0 { rest.get(size_of::<AppId>()..) } else { Some(rest) }
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
    /// The content is coded, inside a seal, which is coded as a whole: small letters could grow without a bound there.
    #[error("the letter is coded inside what is coded")]
    CodedTwice,
    /// The content could not be decoded.
    #[error("the letter's content: {0}")]
    Codec(#[from] CodecError),
    /// The content is coded with a text model that is not at hand.
    #[error("the letter is coded with a text model that is not here")]
    UnknownModel(ModelName),
    /// The text of the content is damaged.
    #[error("the letter's content: {0}")]
    Text(#[from] TextError),
}

/// What a letter travels in, which says how it is coded.
#[derive(Debug)]
pub enum Way<'a> {
    /// In a seal, which codes all that is in it.
    Sealed,
    /// For the relay to see, to somebody who has these models.
    Open {
        /// The models at hand.
        models: &'a Models,
        /// Those that the recipient has.
        recipient_has: &'a ModelSet,
        /// What served this recipient best.
        favourite: &'a mut Favourite,
    },
}

impl Way<'_> {
    /// The content, coded, where that is wanted and saves bytes.
    fn coded(self, content: &[u8]) -> Option<Vec<u8>> {
        let Self::Open { models, recipient_has, favourite } = self else { return None };
        let mut best = None;
        if content.len() > PLAIN_BYTES_MAX {
            let mut coded = Vec::new();
            codec::encode_best(content, DictionarySet::compiled_in(), &mut coded);
            best = Some(coded);
        }
        if content.len() <= MODELLED_BYTES_MAX
            && let Ok(text) = std::str::from_utf8(content)
        {
            let modelled = text::encode_best(text, models, recipient_has, favourite);
            let bytes_max = best.as_ref().map_or(content.len(), Vec::len);
            best = modelled.filter(|modelled| modelled.len() < bytes_max).or(best);
        }
        best
    }
}

fn decode_content(coded: &[u8], models: &Models, bytes_max: usize) -> Result<Vec<u8>, LetterError> {
    match codec::open(coded, bytes_max)? {
        Opened::Bytes(content) => Ok(content.into_owned()),
        Opened::Choices(name, decoder) => {
            let model = models.get(name).ok_or(LetterError::UnknownModel(name))?;
            Ok(text::read_alone(model, decoder, MODELLED_BYTES_MAX.min(bytes_max))?.into_bytes())
        }
    }
}

/// The content is longer than a letter may be; nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the message has {bytes} bytes; at most {CONTENT_BYTES_MAX} fit")]
pub struct TooLong {
    /// How long it is.
    pub bytes: usize,
}

impl<'a> Letter<'a> {
    /// The body that carries this letter, for what it travels in.
    ///
    /// # Errors
    /// When the content is longer than [`CONTENT_BYTES_MAX`].
    pub fn encode(&self, way: Way<'_>) -> Result<Vec<u8>, TooLong> {
        let (content, kind) = match &self.content {
            Content::Text(text) => (text.as_bytes(), 0),
            Content::Data(data) => (data.as_ref(), IS_DATA),
        };
        if content.len() > CONTENT_BYTES_MAX {
            return Err(TooLong { bytes: content.len() });
        }
        let coded = way.coded(content);
        let head = kind
            | if self.app_id.is_some() { HAS_APP_ID } else { 0 }
            | if coded.is_some() { IS_CODED } else { 0 };
        let mut body = Vec::with_capacity(content.len() + 18);
        body.push(head);
        body.extend(self.app_id.iter().flat_map(|id| id.0));
        body.extend_from_slice(coded.as_deref().unwrap_or(content));
        Ok(body)
    }

    /// Reads a letter that the relay could read, with the text models at hand; allocates at most [`CONTENT_BYTES_MAX`] bytes.
    ///
    /// # Errors
    /// When the body is none of this version, or coded with a model that is not at hand.
    pub fn decode(body: &'a [u8], models: &Models) -> Result<Self, LetterError> {
        Self::decode_within(body, models, CONTENT_BYTES_MAX)
    }

    /// The same, and content that is coded has at most so many bytes, or [`CONTENT_BYTES_MAX`].
    ///
    /// # Errors
    /// As [`Self::decode`], or when it has more.
    pub fn decode_within(body: &'a [u8], models: &Models, bytes_max: usize) -> Result<Self, LetterError> {
        Self::decode_by(body, |coded| decode_content(coded, models, bytes_max.min(CONTENT_BYTES_MAX)))
    }

    /// Reads a letter that was sealed; allocates nothing.
    ///
    /// # Errors
    /// When it is none of this version, or its content is coded on its own.
    pub fn decode_sealed(letter: &'a [u8]) -> Result<Self, LetterError> {
        Self::decode_by(letter, |_| Err(LetterError::CodedTwice))
    }

    fn decode_by(
        body: &'a [u8],
        decode_content: impl FnOnce(&'a [u8]) -> Result<Vec<u8>, LetterError>,
    ) -> Result<Self, LetterError> {
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
        let content: Cow<'a, [u8]> =
            if head & IS_CODED != 0 { Cow::Owned(decode_content(rest)?) } else { Cow::Borrowed(rest) };
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
            let body = letter.encode(Way::Sealed).unwrap();
            assert_eq!(HEXLOWER.encode(&body), hex);
            assert_eq!(Letter::decode(&body, &Models::compiled_in()), Ok(letter));
        }
    }

    /// The body for the relay to see, to somebody who has all models, or none.
    fn open(letter: &Letter<'_>, recipient_has: &ModelSet) -> Vec<u8> {
        let (models, mut favourite) = (Models::compiled_in(), Favourite::default());
        letter.encode(Way::Open { models: &models, recipient_has, favourite: &mut favourite }).unwrap()
    }

    #[test]
    fn in_a_seal_nothing_is_coded_and_outside_what_saves_bytes() {
        let models = Models::compiled_in();
        let long = "a long story, told twice. ".repeat(200);
        for (text, all_max, none_max) in
            [(text("See you at the station at eight"), 14, 32), (text(&long), 80, 80), (text("8"), 2, 2)]
        {
            let sealed = text.encode(Way::Sealed).unwrap();
            let (all, none) = (open(&text, &models.set()), open(&text, &ModelSet::EMPTY));
            assert!(all.len() <= all_max && none.len() <= none_max, "{} {}", all.len(), none.len());
            assert_eq!(Letter::decode_sealed(&sealed).as_ref(), Ok(&text));
            for body in [sealed, all, none] {
                assert_eq!(Letter::decode(&body, &models).as_ref(), Ok(&text));
            }
        }
    }

    /// A parcel of thousands of them would be a few dozen bytes, and half a gigabyte in the end.
    #[test]
    fn what_is_coded_inside_a_seal_is_not_read() {
        let coded = open(&text(&"a".repeat(60_000)), &ModelSet::EMPTY);
        assert!(coded.len() < 40);
        assert_eq!(Letter::decode_sealed(&coded), Err(LetterError::CodedTwice));
        let within = |bytes_max| Letter::decode_within(&coded, &Models::compiled_in(), bytes_max);
        assert!(within(60_000).is_ok() && matches!(within(59_999), Err(LetterError::Codec(_))));
    }

    #[test]
    fn a_letter_under_a_model_that_is_not_here_says_so() {
        let mut body = open(&text("See you at the station at eight"), &Models::compiled_in().set());
        assert_eq!((body[0], (body[1] - 64) / 14), (IS_CODED, 0));
        body[1] += 12 * 14;
        let error = LetterError::UnknownModel(ModelName::Number(12));
        assert_eq!(Letter::decode(&body, &Models::compiled_in()), Err(error));
    }

    #[test]
    fn each_kind_of_damage_has_its_own_error() {
        assert_eq!(Letter::decode(&[], &Models::compiled_in()), Err(LetterError::Truncated));
        assert_eq!(Letter::decode(&[1, 2, 3], &Models::compiled_in()), Err(LetterError::Truncated));
        assert_eq!(Letter::decode(&[8], &Models::compiled_in()), Err(LetterError::UnknownBits(8)));
        assert_eq!(Letter::decode(&[0, 0xff], &Models::compiled_in()), Err(LetterError::NotUtf8));
        assert!(matches!(Letter::decode(&[4], &Models::compiled_in()), Err(LetterError::Codec(_))));
        let long = vec![0; CONTENT_BYTES_MAX + 1];
        let letter = Letter { app_id: None, content: Content::Data(long.into()) };
        assert_eq!(letter.encode(Way::Sealed), Err(TooLong { bytes: CONTENT_BYTES_MAX + 1 }));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(id: Option<[u8; 16]>, data in prop::collection::vec(any::<u8>(), 0..3000)) {
            let letter = Letter { app_id: id.map(AppId), content: Content::Data(data.into()) };
            for body in [letter.encode(Way::Sealed).unwrap(), open(&letter, &Models::compiled_in().set())] {
                prop_assert!(body.len() <= BODY_BYTES_MAX);
                let found = Letter::decode(&body, &Models::compiled_in());
                prop_assert_eq!(found.as_ref(), Ok(&letter));
            }
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Letter::decode(&body, &Models::compiled_in());
        }
    }
}
