//! Texts and parcels under the text models that are compiled in.

use thinpost_wire::codec::Codec;
use thinpost_wire::parcel::{MODELLED_BYTES_MAX, Parcel, ShortIncarnation, unpack};
use thinpost_wire::text::{self, Models};

static MODELS: Models = Models::compiled_in();

/// The first byte says whether the rest is a text or a parcel.
///
/// # Panics
/// When more comes out than is allowed, or a text is not read as it was written.
pub fn run(bytes: &[u8]) {
    let Some((&choice, coded)) = bytes.split_first() else { return };
    let Ok(Codec::Text(name)) = Codec::of(coded) else { return };
    let Some(model) = MODELS.get(name) else { return };
    if choice & 0x80 == 0 {
        let Ok(text) = text::decode(name, model, coded, MODELLED_BYTES_MAX) else { return };
        assert!(text.len() <= MODELLED_BYTES_MAX);
        // Another coding may say the same; ours is not longer, but for capitals that were marked in vain.
        let mut again = Vec::new();
        // With other marks it may have more symbols than a run may.
        if text::encode(name, model, &text, &mut again).is_ok() {
            assert_eq!(text::decode(name, model, &again, text.len()), Ok(text));
        }
    } else {
        let Ok(plain) = unpack(coded, &MODELS, Some(ShortIncarnation([7; 4])), usize::MAX) else { return };
        assert!(plain.len() <= MODELLED_BYTES_MAX);
        let _ = Parcel::decode(&plain);
    }
}
