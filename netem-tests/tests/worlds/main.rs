//! Real relay, real clients, emulated links, virtual time: what must hold, whatever the link does.

#![allow(clippy::unwrap_used, reason = "a world that cannot be built fails its test")]

mod backups;
mod crashes;
mod days;
mod durable;
mod earlier;
#[path = "../fixtures/mod.rs"]
mod fixtures;
#[cfg(target_os = "linux")]
mod hostile;
mod introductions;
mod keys;
mod ladder;
mod limits;
mod links;
mod models;
mod notices;
mod objects;
mod odd_links;
mod people;
mod reaching;
mod receipts;
mod rekeying;
mod revoking;
mod secrets;
mod tokens;
