//! Where a device is seen.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// About an operator: the beginning of an address, to know a network again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NetworkPrefix(pub u32);

impl NetworkPrefix {
    /// The first 16 bits of an IPv4 address, or the first 32 of another IPv6 address. Those of a unicast IPv6 address are the larger
    /// numbers.
    pub fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => Self(ip.to_bits() >> 16),
            IpAddr::V6(ip) => Self((ip.to_bits() >> 96) as u32),
        }
    }
}
