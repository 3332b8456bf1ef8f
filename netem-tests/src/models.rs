//! A text model that no build holds: for homes that are opened with it, and without.

use thinpost_client::Models;
use thinpost_wire::text::{ContextParts, END, Entry, Level, NUMBERED, Parts};

/// What it can write; the first symbol of an alphabet is the one after four marks.
const LETTERS: &str = " ,.0123456789abcdefghijklmnopqrstuvwxyzαβγδεζηθικλμνξοπρςστυφχψω";
const MARKS: u8 = 4;

/// A model's file: of Greek, and of what names and numbers are written with. It knows how often each letter comes, which no
/// other one knows of Greek, and nothing else.
///
/// # Panics
/// When no model is compiled in, whose habits it takes over.
pub fn file() -> Vec<u8> {
    let others = NUMBERED[0].file.expect("the English model is compiled in");
    let Parts { discount, hits, .. } = Parts::from_bytes(others).expect("it was trained");
    let letters: Vec<char> = LETTERS.chars().collect();
    let symbols = MARKS + letters.len() as u8;
    let entry = |symbol| {
        let is_mark = (1..MARKS).contains(&symbol);
        let level = Level::nearest(if is_mark { 1.0 } else { 100.0 });
        Entry { symbol, level, is_context: false }
    };
    let root = ContextParts { entries: (END..symbols).map(entry).collect(), rest: Level::default() };
    let parts = Parts { letters, discount, hits, contexts: vec![root] };
    parts.to_bytes().expect("it is a small model")
}

/// The models that are compiled in, and this one.
///
/// # Panics
/// As [`file()`].
pub fn with_greek() -> Models {
    let mut models = Models::compiled_in();
    models.add(&file()).expect("it is a model's file");
    models
}
