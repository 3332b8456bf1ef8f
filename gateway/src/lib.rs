//! A Thinpost relay.
//!
//! Devices reach it over QUIC ([`relay`]); each connection is a session around one link of
//! `thinpost-wire`; what they submit is in custody once the [`store`] has it on disk, and is delivered to
//! whoever watches the mailbox. [`admission`] decides who may register, [`limits`] how much anyone may do.
//!
//! Everything but the outermost shell (sockets, signals, files) can be driven by a simulation: see
//! [`RelayParts`].

pub mod admission;
pub mod backup;
pub mod config;
#[cfg(unix)]
pub mod control;
pub mod folder;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod invite;
pub mod limits;
pub mod relay;
mod session;
mod sessions;
pub mod standing;
pub mod store;
mod strangers;
mod tls_sessions;

pub use relay::{Relay, RelayParts, StartError, Stopped};
pub use standing::Standing;
