//! Sealed bodies from a stranger, and sealed contents from a contact who may seal anything. The first byte
//! says which.

#![no_main]

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;
use thinpost_client::fuzzing::Pair;

thread_local!(static PAIR: RefCell<Pair> = RefCell::new(Pair::new()));

fuzz_target!(|bytes: &[u8]| {
    let Some((&kind, rest)) = bytes.split_first() else { return };
    PAIR.with_borrow_mut(|pair| match kind {
        0 => pair.open_changed(rest),
        1 => pair.open_content(rest),
        _ => pair.open(bytes),
    });
});
