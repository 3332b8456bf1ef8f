//! Files of text models, and texts under whatever model they give.

use std::cell::RefCell;

use thinpost_wire::text::{self, Model, ModelName, Parts};
use zstd::bulk::Compressor;

/// How the model is called; the bytes behind it are whatever they are.
const NAME: ModelName = ModelName::Id([0; 4]);

/// Asks that the model be written again. To pack it for that takes long.
pub(crate) const WRITTEN_AGAIN: u16 = 0x8000;

// A new one would take longer than what it packs.
thread_local!(static PACKER: RefCell<Compressor<'static>> = RefCell::new(Compressor::new(1).expect("no memory is short")));

/// The first two bytes say how long the model's file is, little-endian and before it is packed, and whether it is written again; a
/// text under it follows.
///
/// # Panics
/// When a model is not written as it was read, or a text not read as it was written.
pub fn run(bytes: &[u8]) {
    let Some((length, rest)) = bytes.split_first_chunk() else { return };
    let length = u16::from_le_bytes(*length);
    let (body, coded) = rest.split_at(rest.len().min((length & !WRITTEN_AGAIN).into()));
    let _ = Parts::from_bytes(body);
    let packed = PACKER.with_borrow_mut(|packer| packer.compress(body)).expect("no memory is short");
    let file = [&b"TPm\x01"[..], &packed].concat();
    let Ok(model) = Model::from_bytes(&file) else { return };
    if length & WRITTEN_AGAIN != 0 {
        let parts = Parts::from_bytes(&file).expect("a model was made of them");
        let again = parts.to_bytes().expect("a model was made of them");
        assert_eq!(Parts::from_bytes(&again), Ok(parts));
    }
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
