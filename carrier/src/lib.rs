//! QUIC as Thinpost's first carrier.
//!
//! A relay and a client need the same few things around a [`thinpost_wire::link::Link`]: an [`Identity`]
//! that proves who they are in TLS, QUIC set for thin links ([`quic`]), and a pump that moves datagrams
//! between connection and link and decides nothing ([`channel`]).

pub mod channel;
pub mod clock;
mod identity;
pub mod quic;
mod tls;

pub use channel::{Channel, Down};
pub use clock::SlowRuntime;
pub use identity::{Identity, verify};
