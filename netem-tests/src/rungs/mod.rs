//! The same links under real sockets: network namespaces on this machine, with an emulator of ours or the kernel's netem
//! between them.
//!
//! A [`Site`] is a phone and a relay, each in a network namespace of its own, and the only way between them is the thin
//! link. On [`Rung::Tun`] it is a pair of TUN devices whose packets, of whatever protocol, cross the same
//! [`Link`](crate::Link)s as in virtual time; on [`Rung::Netem`] a router with the kernel's `netem` on both of
//! its sides, set up from the same profile. Bytes are counted where packets are sent: IP bytes, headers and lost ones
//! included. Linux only, and needs root; `docs/decisions/0019-three-rungs.md` says why it is built like this.

mod kernel;
mod namespace;
mod tun;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use quinn::{AsyncUdpSocket, Runtime, TokioRuntime};
use thinpost_client::Network;

use crate::{Censorship, PathCounters, Profile};

pub use self::namespace::Namespace;

/// Where the relay is, as the phone sees it.
pub const RELAY: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

/// Where the phone is.
pub const PHONE: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 1);

/// What is between a phone and a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rung {
    /// This crate's own emulator, on TUN devices.
    Tun,
    /// The kernel's netem.
    Netem,
}

/// A phone, a relay's host, and a thin link between the two. All is gone when it is dropped.
#[derive(Debug)]
pub struct Site {
    phone: Arc<Namespace>,
    relay: Arc<Namespace>,
    path: Path,
}

#[derive(Debug)]
enum Path {
    Tun(tun::TunPath),
    Netem(kernel::KernelPath),
}

impl Site {
    /// Lays a link of this profile. What of it is drawn is drawn from the seed, but for netem, which draws for itself. Must be called within a
    /// runtime with I/O and time, whose clock runs.
    ///
    /// # Errors
    /// When namespaces or devices cannot be made, as without root, when a program of iproute2 or util-linux is missing, or when netem
    /// cannot do what the profile asks for.
    pub fn new(rung: Rung, profile: &Profile, seed: u64) -> io::Result<Self> {
        if profile.nat.is_some() || profile.censorship != Censorship::None {
            let text = format!(
                "profile {}: what its [path] says is in virtual time only: use a profile without, or leave out --on",
                profile.name
            );
            return Err(io::Error::new(io::ErrorKind::Unsupported, text));
        }
        let (phone, relay) = (Arc::new(Namespace::new()?), Arc::new(Namespace::new()?));
        let path = match rung {
            Rung::Tun => Path::Tun(tun::TunPath::lay(&phone, &relay, profile, seed)?),
            Rung::Netem => Path::Netem(kernel::KernelPath::lay(&phone, &relay, profile)?),
        };
        Ok(Self { phone, relay, path })
    }

    /// The host behind the thin link.
    pub fn phone(&self) -> &Arc<Namespace> {
        &self.phone
    }

    /// The host that a relay is to run on.
    pub fn relay(&self) -> &Arc<Namespace> {
        &self.relay
    }

    /// IP packets and bytes offered to the link so far in each direction: [`PathCounters::up`]`.offered` and
    /// [`PathCounters::down`]`.offered`. The other counters are the emulator's only.
    ///
    /// # Errors
    /// When the kernel does not say, or the emulator has ended because a device failed.
    pub fn counters(&self) -> io::Result<PathCounters> {
        match &self.path {
            Path::Tun(path) => path.counters(),
            Path::Netem(path) => path.counters(),
        }
    }
}

/// The sockets of a host in a namespace.
#[derive(Clone, Debug)]
pub struct Sockets(pub Arc<Namespace>);

impl Network for Sockets {
    fn bind(&self, remote: SocketAddr) -> io::Result<(Arc<dyn AsyncUdpSocket>, Arc<dyn Runtime>)> {
        let any: SocketAddr = match remote {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = self.0.within(|| std::net::UdpSocket::bind(any))?;
        let runtime = Arc::new(TokioRuntime);
        Ok((runtime.wrap_udp_socket(socket)?, runtime))
    }
}
