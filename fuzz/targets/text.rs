//! Texts and parcels under the text models that are compiled in.

#![no_main]

use libfuzzer_sys::fuzz_target;
use thinpost_wire::parcel::{MODELLED_BYTES_MAX, Parcel, ShortIncarnation, unpack};
use thinpost_wire::text::{self, ModelName, Models, NUMBERED};

static MODELS: Models = Models::compiled_in();

fuzz_target!(|bytes: &[u8]| {
    let Some((&choice, coded)) = bytes.split_first() else { return };
    let number = choice % NUMBERED.len() as u8;
    let model = MODELS.get(ModelName::Number(number)).expect("compiled in");
    if choice & 0x80 == 0 {
        let Ok(text) = text::decode(model, coded, MODELLED_BYTES_MAX) else { return };
        assert!(text.len() <= MODELLED_BYTES_MAX);
        // Another coding may say the same; ours is not longer, but for capitals that were marked in vain.
        let mut again = Vec::new();
        text::encode(model, &text, &mut again);
        assert_eq!(text::decode(model, &again, text.len()), Ok(text));
    } else {
        let packed = [&[2 + number], coded].concat();
        let Ok(plain) = unpack(&packed, &MODELS, Some(ShortIncarnation([7; 4])), usize::MAX) else { return };
        assert!(plain.len() <= MODELLED_BYTES_MAX);
        let _ = Parcel::decode(&plain);
    }
});
