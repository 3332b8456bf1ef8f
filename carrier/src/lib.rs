//! QUIC as Thinpost's first carrier.
//!
//! A relay and a client need the same few things around a [`thinpost_wire::link::Link`]: an [`Identity`]
//! that proves who they are in TLS, QUIC set for thin links ([`quic`]), a task that receives for a socket
//! ([`Endpoint`]), and a pump that moves datagrams between connection and link and decides nothing
//! ([`Channel`]).
//!
//! quinn's protocol machine is driven here, without quinn's own tasks: only so can a link's datagrams share packets with
//! the handshake. `docs/decisions/0012-quic-driven-directly.md` has the figures. Sockets and runtimes are quinn's.

mod channel;
mod clock;
mod confirming;
mod connecting;
mod connection;
mod down;
mod endpoint;
mod identity;
mod incoming;
pub mod memory;
mod packets;
pub mod quic;
mod quiet;
mod repeats;
mod room;
mod socket;
mod spoken;
#[cfg(test)]
mod tests;
pub mod tls;

pub use channel::{Channel, News};
pub use clock::SLOWER;
pub use connecting::Connecting;
pub use down::Down;
pub use endpoint::Endpoint;
pub use identity::{Identity, verify};
pub use incoming::{Accepting, Incoming};
pub use room::{FLOOR_BYTES, Pool};
