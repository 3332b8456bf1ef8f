//! How much peers may ask of a relay: numbers of connections, and rates.

use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::keys::{self, between};

/// How much peers may ask of the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct LimitsConfig {
    /// Connections at a time.
    #[serde(deserialize_with = "between::<_, _, 1, 1_000_000>")]
    pub connections_max: usize,
    /// Seconds of silence after which a connection is forgotten.
    #[serde(deserialize_with = "between::<_, _, 10, 604_800>")]
    pub idle_timeout_s: u32,
    /// Handshakes that may wait to be looked at.
    #[serde(deserialize_with = "between::<_, _, 1, 65_536>")]
    pub incoming_max: usize,
    /// Bytes that may wait behind the first packet of one of these.
    #[serde(deserialize_with = "between::<_, _, 4_096, 1_048_576>")]
    pub incoming_bytes_each_max: u64,
    /// Bytes that may wait behind the first packets of all of these.
    #[serde(deserialize_with = "between::<_, _, 4_096, 17_179_869_184>")]
    pub incoming_bytes_max: u64,
    /// With so many connections of devices that are not known yet, whoever comes has to prove their address first (QUIC's
    /// Retry): a round trip for them, and nothing to remember of forged addresses. 0 asks everybody.
    #[serde(deserialize_with = "between::<_, _, 0, 65_536>")]
    pub retry_from: usize,
    /// Connections at a time of devices that are not known yet; a fourth of them from one address.
    #[serde(deserialize_with = "between::<_, _, 16, 65_536>")]
    pub strangers_max: usize,
    /// What links may hold in memory, all together, beyond the 12 KiB that each may, bytes. Who holds most has to leave when
    /// there is no more.
    #[serde(deserialize_with = "between::<_, _, 1_048_576, 17_179_869_184>")]
    pub links_bytes_max: usize,
    /// Keys that each table of rates remembers.
    #[serde(deserialize_with = "between::<_, _, 1_000, 10_000_000>")]
    pub keys_max: usize,
    /// By IPv4 address, or IPv6 /64.
    pub address: AddressLimits,
    /// By sending account.
    #[serde(deserialize_with = "keys::account_pace")]
    pub account: PaceLimits,
    /// By sending account and mailbox.
    #[serde(deserialize_with = "keys::mailbox_pace")]
    pub mailbox: PaceLimits,
    /// Into one mailbox, by all strangers together.
    #[serde(deserialize_with = "keys::strangers_pace")]
    pub strangers: PaceLimits,
    /// Of one-time keys.
    pub claims: ClaimLimits,
}

/// How many one-time keys may be claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClaimLimits {
    /// By one device: claims that come back to its bucket.
    #[serde(deserialize_with = "between::<_, _, 1, 1_000_000>")]
    pub device_per_hour: u32,
    /// Claims that its bucket holds.
    #[serde(deserialize_with = "between::<_, _, 1, 1_000_000>")]
    pub device_burst: u32,
    /// From one mailbox, by holders of tickets of their own.
    #[serde(deserialize_with = "between::<_, _, 1, 1_000_000>")]
    pub mailbox_per_hour: u32,
    /// Claims that its bucket holds.
    #[serde(deserialize_with = "between::<_, _, 1, 1_000_000>")]
    pub mailbox_burst: u32,
    /// From one mailbox, by all strangers together.
    #[serde(deserialize_with = "between::<_, _, 1, 1_000_000>")]
    pub strangers_per_hour: u32,
    /// Claims that their bucket holds.
    #[serde(deserialize_with = "between::<_, _, 1, 1_000_000>")]
    pub strangers_burst: u32,
}

/// The rates of one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AddressLimits {
    /// Connections that come back to its bucket, of those that have proven to come from there. All others together have a bucket
    /// like it.
    #[serde(deserialize_with = "between::<_, _, 1, 1_000_000>")]
    pub connections_per_minute: u32,
    /// Connections that its bucket holds.
    #[serde(deserialize_with = "between::<_, _, 1, 1_000_000>")]
    pub connections_burst: u32,
    /// Messages that come back.
    #[serde(deserialize_with = "between::<_, _, 1, 1_000_000>")]
    pub messages_per_minute: u32,
    /// Messages that its bucket holds.
    #[serde(deserialize_with = "between::<_, _, 1, 1_000_000>")]
    pub messages_burst: u32,
    /// Bytes that come back.
    #[serde(deserialize_with = "between::<_, _, 1_024, 1_000_000_000>")]
    pub bytes_per_minute: u32,
    /// Bytes that its bucket holds; at least a message of the largest kind.
    #[serde(deserialize_with = "between::<_, _, 65_536, 1_000_000_000>")]
    pub bytes_burst: u32,
}

/// The rates of one sender, or one kind of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PaceLimits {
    /// Messages that come back to its bucket.
    pub messages_per_minute: u32,
    /// Messages that its bucket holds.
    pub messages_burst: u32,
    /// Bytes that come back.
    pub bytes_per_minute: u32,
    /// Bytes that its bucket holds; at least a message of the largest kind.
    pub bytes_burst: u32,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            connections_max: 10_000,
            idle_timeout_s: 12 * 3_600,
            incoming_max: 4_096,
            incoming_bytes_each_max: 16 << 10,
            incoming_bytes_max: 16 << 20,
            retry_from: 192,
            strangers_max: 1_024,
            links_bytes_max: 64 << 20,
            keys_max: 50_000,
            address: AddressLimits::default(),
            account: PaceLimits {
                messages_per_minute: 120,
                messages_burst: 1_000,
                bytes_per_minute: 2 << 20,
                bytes_burst: 8 << 20,
            },
            mailbox: PaceLimits {
                messages_per_minute: 60,
                messages_burst: 500,
                bytes_per_minute: 1 << 20,
                bytes_burst: 2 << 20,
            },
            strangers: PaceLimits {
                messages_per_minute: 1,
                messages_burst: 32,
                bytes_per_minute: 2 << 10,
                bytes_burst: 64 << 10,
            },
            claims: ClaimLimits::default(),
        }
    }
}

impl Default for ClaimLimits {
    fn default() -> Self {
        Self {
            device_per_hour: 60,
            device_burst: 50,
            mailbox_per_hour: 60,
            mailbox_burst: 50,
            strangers_per_hour: 1,
            strangers_burst: 5,
        }
    }
}

impl Default for AddressLimits {
    fn default() -> Self {
        Self {
            connections_per_minute: 6_000,
            connections_burst: 10_000,
            messages_per_minute: 12_000,
            messages_burst: 100_000,
            bytes_per_minute: 200 << 20,
            bytes_burst: 800 << 20,
        }
    }
}

/// How fast a bucket fills, and how much it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Units that come back in a period.
    pub units: NonZeroU32,
    /// How long that is.
    pub period: Duration,
    /// Units that it holds.
    pub burst: NonZeroU32,
}

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);

/// A rate; zeros, which no file can set, count as one.
fn rate(units: u32, period: Duration, burst: u32) -> Rate {
    let nonzero = |number| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
    Rate { units: nonzero(units), period, burst: nonzero(burst) }
}

impl ClaimLimits {
    /// The rate of one device.
    pub fn device(&self) -> Rate {
        rate(self.device_per_hour, HOUR, self.device_burst)
    }

    /// The rate from one mailbox, for those who have a ticket of their own.
    pub fn mailbox(&self) -> Rate {
        rate(self.mailbox_per_hour, HOUR, self.mailbox_burst)
    }

    /// The rate from one mailbox, for all strangers together.
    pub fn strangers(&self) -> Rate {
        rate(self.strangers_per_hour, HOUR, self.strangers_burst)
    }
}

impl AddressLimits {
    /// The rate of connections.
    pub fn connections(&self) -> Rate {
        rate(self.connections_per_minute, MINUTE, self.connections_burst)
    }

    /// The rate of messages.
    pub fn messages(&self) -> Rate {
        rate(self.messages_per_minute, MINUTE, self.messages_burst)
    }

    /// The rate of bytes.
    pub fn bytes(&self) -> Rate {
        rate(self.bytes_per_minute, MINUTE, self.bytes_burst)
    }
}

impl PaceLimits {
    /// The rate of messages.
    pub fn messages(&self) -> Rate {
        rate(self.messages_per_minute, MINUTE, self.messages_burst)
    }

    /// The rate of bytes.
    pub fn bytes(&self) -> Rate {
        rate(self.bytes_per_minute, MINUTE, self.bytes_burst)
    }
}
