//! Files of text models, and texts under whatever model they give.

use thinpost_wire::text::{self, Model, ModelName, Parts};

/// How the model is called; the bytes behind it are whatever they are.
const NAME: ModelName = ModelName::Id([0; 4]);

/// The first two bytes say how long the model's file is, little-endian and before it is packed; a text under it follows.
///
/// # Panics
/// When a model is not written as it was read, or a text not read as it was written.
pub fn run(bytes: &[u8]) {
    let Some((length, rest)) = bytes.split_first_chunk() else { return };
    let (body, coded) = rest.split_at(rest.len().min(u16::from_le_bytes(*length).into()));
    let _ = Parts::from_bytes(body);
    let packed = zstd::bulk::compress(body, 1).expect("no memory is short");
    let file = [&b"TPm\x01"[..], &packed].concat();
    let Ok(model) = Model::from_bytes(&file) else { return };
    let parts = Parts::from_bytes(&file).expect("a model was made of them");
    let again = parts.to_bytes().expect("a model was made of them");
    assert_eq!(Parts::from_bytes(&again).as_ref(), Ok(&parts));
    let coded = [&[2, 0, 0, 0, 0][..], coded].concat();
    if let Ok(text) = text::decode(NAME, &model, &coded, 1_000) {
        assert!(text.len() <= 1_000);
        let mut again = Vec::new();
        // With other marks it may have more symbols than a run may.
        if text::encode(NAME, &model, &text, &mut again).is_ok() {
            assert_eq!(text::decode(NAME, &model, &again, 1_000), Ok(text));
        }
    }
}
