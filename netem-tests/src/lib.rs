//! Thin links to test on: named link profiles, a seeded model of one link direction, and two networks built on it.
//!
//! - [`profile`]: what a link is like (`gprs`, `edge`, ...), read from `profiles/*.toml`.
//! - [`link`]: one direction of a link as a pure function of time, packets and a seed; [`loss`] is its loss process.
//! - [`net`]: a whole network in virtual time, on which unmodified quinn endpoints run under tokio's paused clock.
//! - [`world`]: the real relay and real clients on that network, with faults, by seed. What panics in it is not forgotten.
//! - [`capture`]: what happens on it, written down.
//! - [`ladder`]: the same day of messages on ever worse links.
//! - [`storm`]: worlds in which everything fails that may fail, with the checker of what must hold; [`sometimes`] counts what
//!   they reach, [`disk`] fails when it is told to.
//! - [`crash`]: a talk in which somebody is killed, or loses power, at a chosen moment.
//! - [`town`]: the programs themselves, as processes on this machine; `points`: killed at their crash points, on Unix only; `flood`:
//!   a relay under attack, on Linux only.
//! - [`report`]: what programs that try things out in volume say at their end.
//! - [`proxy`]: the same links on real UDP sockets, between a client and a relay on this machine.
//! - `rungs`: the same links between network namespaces, for programs as they are; and the kernel's own netem. On Linux only.
//!
//! Time is a [`Duration`](std::time::Duration) since the start of the world, and all randomness comes from a `u64` seed:
//! the same seed and the same packets at the same times get the same verdicts. Sizes are IP bytes, which here means
//! UDP payload plus [`IP_UDP_HEADER_BYTES`].

mod agenda;
pub mod capture;
pub mod crash;
pub mod disk;
#[cfg(target_os = "linux")]
pub mod flood;
pub mod ladder;
pub mod link;
pub mod loss;
pub mod models;
pub mod net;
mod panics;
#[cfg(unix)]
pub mod points;
pub mod profile;
pub mod proxy;
pub mod report;
#[cfg(target_os = "linux")]
pub mod rungs;
mod socket;
pub mod sometimes;
pub mod storm;
pub mod town;
mod wire;
pub mod world;

pub use link::{
    Gaps, Link, LinkCounters, LinkParams, LossCause, PathCounters, RateStep, Sleep, Tally, Verdict,
};
pub use loss::{Burst, Loss, LossError};
pub use net::{Censorship, Fate, Leg, Mapping, Nat, Net, Trace};
pub use profile::{Profile, ProfileError};
pub use proxy::UdpProxy;
pub use socket::NetRuntime;
pub use world::{Person, World, WorldBuilder};

/// Bytes that IPv4 (20, no options) and UDP (8) add to each datagram.
///
/// Counted for IPv6 addresses too: the links we imitate are mostly IPv4, and one constant keeps figures comparable.
pub const IP_UDP_HEADER_BYTES: usize = 28;
