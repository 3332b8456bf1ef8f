//! A relay under attack: a real `gateway run`, ordinary clients behind thin links, and those who mean it harm.
//!
//! [`Relay`] is the process, [`Service`] the ordinary clients and how long they wait, [`newcomers`] those who come in meanwhile, and
//! [`Census`] what the relay says of all of them: what an attacker believes to have done it may not have done. The attacks are [`handshakes`], [`slow`],
//! [`mailbox`] and [`replay`]; each is bounded in number and time, comes from addresses all over 127.0.0.0/8, so that no limit
//! by address has to be raised for it, and says what it did and what it got.
//!
//! Linux only: elsewhere a machine answers at 127.0.0.1 alone, and a process does not say what memory it takes.

pub mod census;
pub mod device;
pub mod handshakes;
pub mod initial;
pub mod mailbox;
pub mod newcomers;
pub mod relay;
pub mod replay;
pub mod service;
pub mod slow;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use anyhow::{Context, Result};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

pub use self::census::Census;
pub use self::device::{Device, Line};
pub use self::relay::Relay;
pub use self::service::Service;

/// What a relay sends to an address at most for each byte that came from there, before it is proven (RFC 9000, section 8.1).
pub const AMPLIFICATION_MAX: f64 = 3.0;

/// Whether these are nine in ten of what there should be.
fn is_most(there: u64, of: u64) -> bool {
    there * 10 >= of * 9
}

/// An address of this machine that nobody else uses by chance.
fn loopback(rng: &mut ChaCha8Rng) -> SocketAddr {
    let [a, b, c] = [rng.random_range(1..=254), rng.random(), rng.random_range(1..=254)];
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, a, b, c)), 0)
}

/// A socket at such an address.
///
/// # Errors
/// When there are no more.
fn socket(rng: &mut ChaCha8Rng) -> Result<UdpSocket> {
    let socket = UdpSocket::bind(loopback(rng)).context("no socket at an address of 127.0.0.0/8")?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}
