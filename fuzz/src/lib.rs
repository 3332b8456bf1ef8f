//! What is fuzzed: each module reads bytes that may be anything, and panics when something does not hold.
//!
//! The bodies stand in a library so that the same ones run under libFuzzer, which `targets` links them to, and in a plain
//! test, which feeds them every file of `corpora`. `README.md` says what each holds and how to run it.

pub mod batch;
pub mod codec;
pub mod config;
pub mod datagram;
pub mod frame;
pub mod link;
pub mod model;
pub mod parcel;
pub mod records;
pub mod rows;
pub mod seal;
mod seeds;
pub mod text;
pub mod ticket;

/// Something that is fuzzed.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// What it is called, as its program and its folders are.
    pub name: &'static str,
    /// Tries one input.
    pub run: fn(&[u8]),
    /// Inputs to start from, made by what writes such bytes.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Whether it shows what it compares, so that a search tries the other side's value. Where most of that is arithmetic,
    /// nothing is learnt from it, and it takes up to two thirds of the time.
    pub compares: bool,
}

/// All that is fuzzed.
pub const TARGETS: [Target; 13] = [
    Target { name: "batch", run: batch::run, seeds: seeds::batch, compares: true },
    Target { name: "codec", run: codec::run, seeds: seeds::codec, compares: true },
    Target { name: "config", run: config::run, seeds: seeds::config, compares: false },
    Target { name: "datagram", run: datagram::run, seeds: seeds::datagram, compares: false },
    Target { name: "frame", run: frame::run, seeds: seeds::frame, compares: true },
    Target { name: "link", run: link::run, seeds: seeds::link, compares: false },
    Target { name: "model", run: model::run, seeds: seeds::model, compares: true },
    Target { name: "parcel", run: parcel::run, seeds: seeds::parcel, compares: false },
    Target { name: "records", run: records::run, seeds: seeds::records, compares: true },
    Target { name: "rows", run: rows::run, seeds: seeds::rows, compares: true },
    Target { name: "seal", run: seal::run, seeds: seeds::seal, compares: false },
    Target { name: "text", run: text::run, seeds: seeds::text, compares: false },
    Target { name: "ticket", run: ticket::run, seeds: seeds::ticket, compares: true },
];
