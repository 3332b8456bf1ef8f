//! What is inside a seal: parcels with their notes, letters, and parcels as they are packed.

use thinpost_wire::codec::Codec;
use thinpost_wire::letter::{CONTENT_BYTES_MAX, Letter, Way};
use thinpost_wire::limits::BODY_BYTES_MAX;
use thinpost_wire::notes::SEEN_MAX;
use thinpost_wire::parcel::{Parcel, ShortIncarnation, unpack};
use thinpost_wire::text::{Favourite, Models};
use thinpost_wire::ticket::ContactTicket;

static MODELS: Models = Models::compiled_in();

/// A letter that is coded is not longer: the search for its shortest form takes long.
const CODED_BYTES_MAX: usize = 200;

/// The first byte says what the rest is.
///
/// # Panics
/// When what was read is not read again from what it is written as.
pub fn run(bytes: &[u8]) {
    let Some((&kind, rest)) = bytes.split_first() else { return };
    match kind {
        0 => parcel(rest),
        1 => letter(rest),
        2 => coded_letter(rest),
        _ => packed(rest),
    }
}

fn parcel(bytes: &[u8]) {
    let Ok(parcel) = Parcel::decode(bytes) else { return };
    assert!(parcel.notes.seen.len() <= SEEN_MAX);
    for item in &parcel.items {
        letter(item.letter);
    }
    if let Some(introduction) = &parcel.notes.introduction {
        let _ = ContactTicket::from_bytes(&introduction.ticket);
    }
    assert_eq!(Parcel::decode(&parcel.encode()), Ok(parcel));
}

fn letter(body: &[u8]) {
    let Ok(letter) = Letter::decode(body, &MODELS) else { return };
    match letter.encode(Way::Sealed) {
        Ok(plain) => assert_eq!(Letter::decode(&plain, &MODELS), Ok(letter)),
        Err(_) => assert!(body.len() > CONTENT_BYTES_MAX, "only what came as it is may be so long"),
    }
}

/// A letter that is coded again for the relay to see.
fn coded_letter(body: &[u8]) {
    let Ok(letter) = Letter::decode(body, &MODELS) else { return };
    let Ok(plain) = letter.encode(Way::Sealed) else { return };
    if plain.len() <= CODED_BYTES_MAX {
        let mut favourite = Favourite::default();
        let way = Way::Open { models: &MODELS, recipient_has: &MODELS.set(), favourite: &mut favourite };
        let coded = letter.encode(way).expect("it is short enough");
        assert!(coded.len() <= plain.len());
        assert_eq!(Letter::decode(&coded, &MODELS), Ok(letter));
    }
}

/// Parcels under text models are `text`'s.
fn packed(bytes: &[u8]) {
    if matches!(Codec::of(bytes), Ok(Codec::Text(_))) {
        return;
    }
    let Ok(plain) = unpack(bytes, &MODELS, Some(ShortIncarnation([7; 4])), BODY_BYTES_MAX) else { return };
    assert!(plain.len() <= BODY_BYTES_MAX);
    parcel(&plain);
}
