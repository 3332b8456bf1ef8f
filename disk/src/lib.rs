//! What a relay and a home rest on: files whose names outlast the loss of power ([`files`]), and redb transactions that are on
//! disk when they are committed ([`Database`]); room that is left when the disk is full ([`Reserve`]); and a disk in memory for
//! simulations ([`medium`]).
//!
//! Each setting and each sync that this takes stands in a function of its own. If one of them did nothing, a test would fail:
//! docs/reliability.md says which.

mod checked;
mod database;
pub mod files;
pub mod medium;
mod overlay;
mod reserve;
mod unchecked;

pub use checked::DamagedPage;
pub use database::Database;
pub use reserve::{Ballast, Left, Reserve, Room};
