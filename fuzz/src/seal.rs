//! Sealed bodies from a stranger, and sealed contents from a contact who may seal anything.

use std::cell::RefCell;

use thinpost_client::fuzzing::Pair;

thread_local!(static PAIR: RefCell<Pair> = RefCell::new(Pair::new()));

/// The first byte says what the rest is: changes of something sealed, a content that is sealed, or else part of a body.
///
/// # Panics
/// When what can be opened is not read without panic.
pub fn run(bytes: &[u8]) {
    let Some((&kind, rest)) = bytes.split_first() else { return };
    PAIR.with_borrow_mut(|pair| match kind {
        0 => pair.open_changed(rest),
        1 => pair.open_content(rest),
        _ => pair.open(bytes),
    });
}
