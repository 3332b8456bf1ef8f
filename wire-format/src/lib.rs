//! Thinpost's bytes and rules.
//!
//! Everything here is pure: no socket, clock, disk, thread or global randomness. Time comes in as
//! [`link::Time`], randomness as a seed, and what must happen comes out as values; `clippy.toml` bans
//! the rest. `PROTOCOL.md` holds every byte layout, and the golden tests of each module hold it to that.
//!
//! From the outside in:
//!
//! - [`ticket`]: what a person passes on to reach a relay or a contact; [`token`]: the right in it to submit;
//! - [`link`]: the machine that both ends of a link run: who sends what again, and when;
//! - [`batch`]: one datagram, decodable alone; [`codec`] and [`dictionary`] make it small;
//! - [`frame`]: what is said inside; [`letter`]: what an application's message looks like in an envelope;
//!   [`parcel`]: letters that are sealed together, and [`notes`] beside them;
//! - [`ids`], [`table`] and [`limits`]: the nouns, handles, and the numbers that bound them.

pub mod batch;
pub mod codec;
pub mod dictionary;
pub mod frame;
pub mod ids;
pub mod letter;
pub mod limits;
pub mod link;
pub mod notes;
pub mod parcel;
pub mod table;
pub mod text;
pub mod ticket;
pub mod token;
mod varint;

/// The protocol's name and major version, as QUIC negotiates it (ALPN).
pub const ALPN: &[u8] = b"thinpost/1";
