//! The store's bounds, and why they are what they are.

use thinpost_wire::limits::{BODY_BYTES_MAX, DIGESTS_KEPT, HANDLES_MAX, OBJECT_BYTES_MAX, ONE_TIME_KEYS_MAX};

/// The most that [`StoreConfig::lifetime_s_max`] can be configured to, days.
pub(crate) const LIFETIME_DAYS_MAX: u64 = 3_650;

/// The same in seconds: nothing that a store holds is kept longer.
pub(crate) const LIFETIME_S_MAX: u64 = LIFETIME_DAYS_MAX * 24 * 3_600;

/// The most that a part of one mailbox may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Entries.
    pub entries_max: u32,
    /// Their bodies' length, bytes.
    pub bytes_max: u64,
}

/// The most objects that one account may keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectQuota {
    /// Objects, whether they are complete or not.
    pub objects_max: u32,
    /// Their sizes, bytes.
    pub bytes_max: u64,
    /// The longest of them, bytes; at most [`OBJECT_BYTES_MAX`].
    pub object_bytes_max: u64,
}

impl Default for ObjectQuota {
    /// 256 objects, 64 MiB: some hundred pictures of 200 kB, or four objects of the largest kind.
    fn default() -> Self {
        Self { objects_max: 256, bytes_max: 64 << 20, object_bytes_max: OBJECT_BYTES_MAX }
    }
}

/// The store's bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreConfig {
    /// Of each mailbox. 1,000 entries or 4 MiB: weeks of chat for one person, and 1 GiB serves 256 people
    /// who are all away.
    pub quota: Quota,
    /// Of what strangers have submitted to one mailbox, which counts against `quota`, too. 32 entries or 64 KiB:
    /// enough to be asked by everyone at a party, and no flood.
    pub requests: Quota,
    /// The longest body of an entry, bytes; at most [`BODY_BYTES_MAX`].
    pub body_bytes_max: usize,
    /// Most revoked tokens remembered for an account. 1,024 are 8 KiB; beyond it, the account has to choose
    /// another secret.
    pub revocations_max: u32,
    /// Most one-time keys kept for a device.
    pub keys_max: usize,
    /// Of each account's objects.
    pub objects: ObjectQuota,
    /// Most pieces, with gaps between them, in which an object may be held. 8,192: no loss makes more of
    /// 16 MiB in chunks of a kilobyte, and whoever puts single bytes takes little more than is charged.
    pub object_ranges_max: u32,
    /// The longest an envelope or object is kept, a silent device is waited for, and an unused incarnation is
    /// remembered, seconds. 30 days.
    pub lifetime_s_max: u32,
    /// Most bytes of bodies in all mailboxes and of all objects together. 8 GiB; an operator with a smaller disk lowers it.
    pub bytes_max: u64,
    /// Most devices of one account. 16: each can hold the account's log.
    pub devices_max: u32,
    /// How many incarnations of one device are remembered; the one longest unused goes first. 64: a
    /// client draws one whenever it opens its home, and repeats only what it has not seen settled.
    pub incarnations_max: u32,
    /// How many accepted numbers of one incarnation repeats are compared with.
    pub digests_kept: u32,
    /// Most entries of one handle table.
    pub handles_max: u16,
    /// Most TLS sessions kept; the oldest go first. 65,536 of ~150 bytes are 10 MB.
    pub sessions_max: u64,
    /// The backend's page cache, bytes. 16 MiB: mailboxes are read once, so a large cache buys little.
    pub cache_bytes: usize,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            quota: Quota { entries_max: 1_000, bytes_max: 4 << 20 },
            requests: Quota { entries_max: 32, bytes_max: 64 << 10 },
            body_bytes_max: BODY_BYTES_MAX,
            revocations_max: 1_024,
            keys_max: ONE_TIME_KEYS_MAX,
            objects: ObjectQuota::default(),
            object_ranges_max: 8_192,
            lifetime_s_max: 30 * 24 * 3_600,
            bytes_max: 8 << 30,
            devices_max: 16,
            incarnations_max: 64,
            digests_kept: DIGESTS_KEPT as u32,
            handles_max: HANDLES_MAX,
            sessions_max: 65_536,
            cache_bytes: 16 << 20,
        }
    }
}
