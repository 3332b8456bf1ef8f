//! Network address translators: what lies between a host's link and everybody else, and forgets.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Ports that a NAT gives out: neither the well-known ones nor those that services register (RFC 6335, section 6).
const PORTS: std::ops::RangeInclusive<u16> = 49_152..=65_535;

/// A NAT in front of one host: each of its sockets is seen at a port of the NAT, whomever it speaks to, and whoever knows
/// that port reaches it (RFC 4787, REQ-1 and REQ-8: endpoint-independent mapping and filtering).
///
/// A mapping that nothing refreshes for [`Mapping::forget_after`] is forgotten. Packets to it then have no route, and the next
/// packet out gets another port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nat {
    /// Its address on the outside. Several hosts may share one, as behind the NAT of a mobile operator.
    pub outside: IpAddr,
    /// How it maps.
    pub mapping: Mapping,
}

/// How a NAT maps sockets to ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// How long it keeps a mapping that nothing refreshes. RFC 4787, REQ-5, asks for two minutes at least, but many have less.
    pub forget_after: Duration,
    /// Whether packets from outside refresh a mapping, too. RFC 4787, REQ-6, demands that packets from inside do, and leaves
    /// these open. In doubt they do not: whoever can live with that can live with both.
    pub inbound_refreshes: bool,
    /// Whether a socket gets its old port back when its mapping was forgotten: nobody outside can tell then that it was.
    pub keeps_ports: bool,
}

impl Nat {
    /// A NAT that only packets from inside keep awake, and that gives another port to whom it has forgotten.
    pub fn forgetting_after(outside: IpAddr, forget_after: Duration) -> Self {
        Self { outside, mapping: Mapping::forgetting_after(forget_after) }
    }
}

impl Mapping {
    /// See [`Nat::forgetting_after`].
    pub fn forgetting_after(forget_after: Duration) -> Self {
        Self { forget_after, inbound_refreshes: false, keeps_ports: false }
    }
}

/// A NAT and what it remembers.
pub(super) struct Translator {
    nat: Nat,
    ports: ChaCha8Rng,
    /// When the mapping of a socket of this address was refreshed last.
    refreshed: BTreeMap<SocketAddr, Duration>,
}

impl Translator {
    pub(super) fn new(nat: Nat, seed: u64) -> Self {
        Self { nat, ports: ChaCha8Rng::seed_from_u64(seed), refreshed: BTreeMap::new() }
    }

    /// Whether it remembers the mapping of a socket.
    pub(super) fn remembers(&self, now: Duration, local: SocketAddr) -> bool {
        self.refreshed.get(&local).is_some_and(|at| now.saturating_sub(*at) < self.nat.mapping.forget_after)
    }

    /// A packet from inside goes through the mapping of a socket.
    pub(super) fn went_out(&mut self, now: Duration, local: SocketAddr) {
        self.refreshed.insert(local, now);
    }

    /// A packet from outside does.
    pub(super) fn came_in(&mut self, now: Duration, local: SocketAddr) {
        if self.nat.mapping.inbound_refreshes {
            self.refreshed.insert(local, now);
        }
    }

    /// Whether a socket whose mapping is forgotten gets a new address, where it had this one before.
    pub(super) fn wants_another(&self, before: Option<SocketAddr>) -> bool {
        before.is_none() || !self.nat.mapping.keeps_ports
    }

    /// An address for a new mapping, if it is free.
    pub(super) fn draw(&mut self) -> SocketAddr {
        SocketAddr::new(self.nat.outside, self.ports.random_range(PORTS))
    }
}
