//! Files of text models, and texts under whatever model they give.

#![no_main]

use libfuzzer_sys::fuzz_target;
use thinpost_wire::text::{self, Model, ModelName, Parts};

/// How the model is called; the bytes behind it are whatever they are.
const NAME: ModelName = ModelName::Id([0; 4]);

fuzz_target!(|input: (&[u8], &[u8])| {
    let (body, coded) = input;
    let packed = zstd::bulk::compress(body, 1).expect("no memory is short");
    let file = [&b"TPm\x01"[..], &packed].concat();
    let _ = Parts::from_bytes(body);
    let Ok(model) = Model::from_bytes(&file) else { return };
    let coded = [&[2, 0, 0, 0, 0][..], coded].concat();
    if let Ok(text) = text::decode(NAME, &model, &coded, 1_000) {
        let mut again = Vec::new();
        // With other marks it may have more symbols than a run may.
        if text::encode(NAME, &model, &text, &mut again).is_ok() {
            assert_eq!(text::decode(NAME, &model, &again, 1_000), Ok(text));
        }
    }
});
