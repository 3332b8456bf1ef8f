//! The programs themselves, each its own process.

#![allow(clippy::unwrap_used, reason = "a process that cannot be started fails its test")]

#[cfg(unix)]
mod backups;
#[cfg(target_os = "linux")]
mod durable;
#[cfg(target_os = "linux")]
#[path = "../fixtures/mod.rs"]
mod fixtures;
#[cfg(target_os = "linux")]
mod flood;
#[cfg(target_os = "linux")]
mod full_disk;
mod guests;
mod kills;
#[cfg(target_os = "linux")]
mod namespaces;
#[cfg(unix)]
mod points;
mod refusals;
mod secrets;

use thinpost_netem::town;
