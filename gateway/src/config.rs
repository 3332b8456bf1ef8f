//! A relay's configuration: what the TOML file may say, and what holds where it says nothing.
//!
//! # Why the defaults are what they are
//!
//! - **`registration = "invite"`**: an open relay fills up with strangers' mailboxes before its operator
//!   has noticed, and an allow-list needs every key beforehand. An invite is one text to pass on.
//! - **Mailboxes of 1,000 envelopes or 4 MiB, for 30 days**: weeks of chat for one person who is away. A
//!   gibibyte of disk then serves 256 people who are all away with full mailboxes.
//! - **Objects of up to 16 MiB, 256 or 64 MiB to an account**: some hundred pictures, each fetched within the 30 days by
//!   whoever was told its name. They are what fills a relay's disk: 128 accounts at their quota fill the default.
//! - **32 envelopes or 64 KiB of them from strangers**: whoever holds a ticket made for anybody can ask to be
//!   noticed, and cannot crowd out those who hold one of their own.
//! - **Addresses may do a hundred times what an account may**: mobile operators put thousands of
//!   phones behind one IPv4 address, and after a relay's restart all of them come back at once.
//! - **An account may send 1,000 messages at once, then 120 a minute**: a phone that was offline for a
//!   week empties its outbox in one go; nobody types more than two messages a second.
//! - **Into one mailbox half of its quota at once**: so that no single sender fills it at a stroke.
//! - **One envelope and 2 KiB a minute from strangers, after those 32**: a listening phone empties its mailbox at once, and
//!   what comes over its thin link, and onto its disk, is then up to this: 3 MB a day at most.
//! - **60 one-time keys an hour to a device, and from a mailbox; 1 to all strangers**: each costs its owner 32 bytes
//!   on a thin link to replace. Who gets none writes with the pre-key of the ticket.
//! - **10,000 connections**: at 30 kB each they take 300 MB, and at the most that devices can make of it (`check-config` says
//!   it) they fit a relay with 1 GB of memory.
//! - **1,024 connections of strangers**: a thousand phones that come back after a restart are known within a minute, and who keeps
//!   places for their two minutes leaves nine tenths of the connections to others.
//! - **Proof of one's address with 192 strangers there**: it costs a round trip of seconds on a thin link, so that nobody is asked
//!   when a village comes back, and soon everybody when addresses are forged.
//! - **16 KiB behind a first packet, 16 MiB behind all**: a 0-RTT flight of the longest kind, and a thousand of them.
//! - **64 MiB for what links hold**: a thousand messages of the longest kind on their way at once.
//! - **12 hours of silence**: a sleeping phone's connection costs it nothing and the relay 30 kB, while a
//!   new handshake costs the phone kilobytes.
//! - **A cache of 16 MiB**: each envelope is written once and read once, so a larger one buys little.
//! - **1,024 operations in one commit**: the disk's sync is shared by all of them; beyond that it is a
//!   small part of the time already.

mod keys;
mod limits;
pub mod memory;

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thinpost_carrier::quic::ServerLimits;
use thinpost_disk::files;
use thinpost_wire::ids::AccountKey;
use thinpost_wire::limits::{BODY_BYTES_MAX, OBJECT_BYTES_MAX, TICKET_ADDRESSES_MAX};

use self::keys::between;
pub use self::limits::{AddressLimits, ClaimLimits, LimitsConfig, PaceLimits, Rate};
use crate::store::{GroupLimits, LIFETIME_DAYS_MAX, ObjectQuota, Quota, StoreConfig};
use crate::strangers::SHARE as STRANGERS_SHARE;

/// The UDP port of a relay unless it is told another.
pub const PORT: u16 = 4433;

/// How much of the disk is kept for when it is full, bytes, unless it is told otherwise: docs/decisions/0024.
const RESERVE_BYTES: u64 = 64 << 20;

/// What one envelope takes of the disk when its whole mailbox is settled at once, bytes, before that makes room: 4,990
/// where most was measured (docs/decisions/0024). A relay on a small disk may do with less, at as many envelopes as by default.
const SETTLED_BYTES: u64 = 5_120;

/// What `limits.retry_from` is where nobody is to be asked.
const RETRY_NEVER: usize = 65_536;

/// Largest configuration file that is read, bytes: an allow-list of 15,000 accounts.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Where a shell hands over a stream in place of a file, and where there is an empty one.
const STREAMS: [&str; 4] = ["/dev/stdin", "/dev/fd", "/proc/self/fd", "/dev/null"];

/// Everything an operator can set. The module says why the defaults are what they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Config {
    /// The UDP address to listen on.
    pub listen: SocketAddr,
    /// The addresses that go into tickets, best first; if empty, one is guessed.
    pub advertise: Vec<SocketAddr>,
    /// The data folder; the command line and the environment come first.
    #[serde(deserialize_with = "keys::folder", skip_serializing_if = "Option::is_none")]
    pub data: Option<PathBuf>,
    /// Who may open an account.
    pub registration: Registration,
    /// Who may, if `registration` is `allow-list`.
    #[serde(with = "keys::accounts")]
    pub allow_list: BTreeSet<AccountKey>,
    /// What one mailbox may hold.
    pub mailbox: MailboxConfig,
    /// What one account may keep in objects.
    pub objects: ObjectsConfig,
    /// How much peers may ask.
    pub limits: LimitsConfig,
    /// How the store works.
    pub store: StoreSettings,
}

/// Who may open an account at the relay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Registration {
    /// Whoever holds an invite.
    #[default]
    Invite,
    /// Anybody.
    Open,
    /// Whoever is on the list.
    AllowList,
}

/// What one mailbox may hold, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct MailboxConfig {
    /// Envelopes.
    #[serde(deserialize_with = "between::<_, _, 1, 1_000_000>")]
    pub envelopes_max: u32,
    /// Their bodies, bytes; at least one of the largest.
    #[serde(deserialize_with = "between::<_, _, 65_536, 1_099_511_627_776>")]
    pub bytes_max: u64,
    /// Envelopes of those that strangers may have put there: holders of a ticket that was made for anybody.
    #[serde(deserialize_with = "between::<_, _, 1, 1_000_000>")]
    pub request_envelopes_max: u32,
    /// The bodies of those, bytes; at least one of the largest.
    #[serde(deserialize_with = "between::<_, _, 65_536, 1_099_511_627_776>")]
    pub request_bytes_max: u64,
    /// The longest body, bytes; at most what the protocol allows.
    #[serde(deserialize_with = "between::<_, _, 4_096, { BODY_BYTES_MAX as u64 }>")]
    pub envelope_bytes_max: usize,
    /// Days that an envelope or object is kept, and that a silent device is waited for.
    #[serde(deserialize_with = "between::<_, _, 1, LIFETIME_DAYS_MAX>")]
    pub lifetime_days: u32,
}

/// What one account may keep in objects, for as long as envelopes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct ObjectsConfig {
    /// Objects, complete or begun; 0 keeps none.
    #[serde(deserialize_with = "between::<_, _, 0, 1_000_000>")]
    pub objects_max: u32,
    /// Their sizes, bytes; at least one of the largest.
    #[serde(deserialize_with = "between::<_, _, 1, 1_099_511_627_776>")]
    pub bytes_max: u64,
    /// The longest of them, bytes.
    #[serde(deserialize_with = "between::<_, _, 1, OBJECT_BYTES_MAX>")]
    pub object_bytes_max: u64,
}

/// How the store works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct StoreSettings {
    /// Bodies in all mailboxes and all objects, bytes: below what the disk holds.
    #[serde(deserialize_with = "between::<_, _, 1_048_576, 1_125_899_906_842_624>")]
    pub bytes_max: u64,
    /// Bytes of the disk that a ballast holds, for reading and deleting when the disk is full otherwise. Once less than as many
    /// are free, no more of the disk is taken until 2.5 times as many are. 0 keeps none, and then a full disk stops the relay.
    /// 5,120 for each envelope of a mailbox, where those are more than 1,000.
    #[serde(deserialize_with = "between::<_, _, 0, 1_099_511_627_776>")]
    pub reserve_bytes: u64,
    /// The page cache, bytes.
    #[serde(deserialize_with = "between::<_, _, 1_048_576, 17_179_869_184>")]
    pub cache_bytes: usize,
    /// Operations that share one commit.
    #[serde(deserialize_with = "between::<_, _, 1, 65_536>")]
    pub commit_batch_max: usize,
    /// Devices of one account.
    #[serde(deserialize_with = "between::<_, _, 1, 1_024>")]
    pub devices_max: u32,
    /// TLS sessions that are kept for resumption.
    #[serde(deserialize_with = "between::<_, _, 0, 10_000_000>")]
    pub tls_sessions_max: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT)),
            advertise: Vec::new(),
            data: None,
            registration: Registration::default(),
            allow_list: BTreeSet::new(),
            mailbox: MailboxConfig::default(),
            objects: ObjectsConfig::default(),
            limits: LimitsConfig::default(),
            store: StoreSettings::default(),
        }
    }
}

/// Connections that are seen to their end at a time, though nobody needs them any more: a share of all, and at least so many.
/// More would let whoever opens connections and leaves take the places of others.
const FINISHING_SHARE: usize = 16;
const FINISHING_MIN: usize = 16;

impl Default for MailboxConfig {
    fn default() -> Self {
        Self {
            envelopes_max: 1_000,
            bytes_max: 4 << 20,
            request_envelopes_max: 32,
            request_bytes_max: 64 << 10,
            envelope_bytes_max: BODY_BYTES_MAX,
            lifetime_days: 30,
        }
    }
}

impl Default for ObjectsConfig {
    fn default() -> Self {
        let ObjectQuota { objects_max, bytes_max, object_bytes_max } = ObjectQuota::default();
        Self { objects_max, bytes_max, object_bytes_max }
    }
}

impl Default for StoreSettings {
    fn default() -> Self {
        let store = StoreConfig::default();
        Self {
            bytes_max: store.bytes_max,
            reserve_bytes: RESERVE_BYTES,
            cache_bytes: store.cache_bytes,
            commit_batch_max: GroupLimits::default().ops_max,
            devices_max: store.devices_max,
            tls_sessions_max: store.sessions_max,
        }
    }
}

/// Why there is no configuration. Nothing was changed; the operator mends the file or the command line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The file says something it may not.
    #[error("{}, line {line}, column {column}: {problem}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// Counted from 1, in characters.
        column: usize,
        /// The key and what is allowed.
        problem: String,
    },
    /// Settings that do not go together.
    #[error(transparent)]
    Conflict(#[from] Conflict),
}

/// Settings of which each is allowed, but not with the others.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {problem}")]
pub struct Conflict {
    /// The key to be changed.
    pub key: &'static str,
    /// What is wrong, and what would be right.
    pub problem: String,
}

impl Config {
    /// Reads a TOML file.
    ///
    /// # Errors
    /// When it cannot be read, or anything in it is unknown or out of range: with file, line and key.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let unreadable = |error| ConfigError::Unreadable { path: path.to_owned(), error };
        let mut text = String::new();
        // Whoever names a stream means it; anything else that is no file would be waited for.
        let is_stream = STREAMS.iter().any(|stream| path.starts_with(stream));
        let opened = if is_stream { std::fs::File::open(path) } else { files::open_file(path) };
        let file = opened.map_err(unreadable)?;
        let read = io::Read::read_to_string(&mut io::Read::take(file, FILE_BYTES_MAX + 1), &mut text);
        if read.map_err(unreadable)? as u64 > FILE_BYTES_MAX {
            return Err(unreadable(io::Error::other(format!("it has more than {FILE_BYTES_MAX} bytes"))));
        }
        Self::parse(&text, path)
    }

    /// Reads TOML text; `path` is what errors call it.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text).map_err(|error| keys::locate(text, path, &error))?;
        config.check().map_err(|conflict| keys::locate_conflict(text, path, conflict))?;
        Ok(config)
    }

    /// Whether the settings go together. Call it again after changing any.
    ///
    /// # Errors
    /// When they do not.
    pub fn check(&self) -> Result<(), Conflict> {
        let conflict = |key, problem: String| Err(Conflict { key, problem });
        if self.advertise.len() > TICKET_ADDRESSES_MAX {
            return conflict("advertise", format!("a ticket holds at most {TICKET_ADDRESSES_MAX} addresses"));
        }
        let reachable = |address: &&SocketAddr| !address.ip().is_unspecified() && address.port() != 0;
        if let Some(address) = self.advertise.iter().find(|address| !reachable(address)) {
            return conflict("advertise", format!("nobody can reach {address}; name an address and a port"));
        }
        if self.registration == Registration::AllowList && self.allow_list.is_empty() {
            return conflict(
                "registration",
                "\"allow-list\" needs at least one account in allow_list".into(),
            );
        }
        if self.registration != Registration::AllowList && !self.allow_list.is_empty() {
            return conflict("allow_list", "it counts only with registration = \"allow-list\"".into());
        }
        let LimitsConfig { incoming_bytes_each_max: each, incoming_bytes_max: all, .. } = self.limits;
        if all < each {
            return conflict(
                "limits",
                format!("incoming_bytes_max is less than incoming_bytes_each_max = {each}"),
            );
        }
        let LimitsConfig { retry_from, strangers_max, .. } = self.limits;
        let retry_max = strangers_max.div_ceil(STRANGERS_SHARE) * 3 / 4;
        if retry_from > retry_max && retry_from != RETRY_NEVER {
            let problem = format!(
                "with strangers_max = {strangers_max} retry_from is {retry_max} at most, or {RETRY_NEVER} to ask nobody: \
                 forged addresses would take all places before anybody is asked"
            );
            return conflict("limits", problem);
        }
        let ObjectsConfig { bytes_max, object_bytes_max, .. } = self.objects;
        if bytes_max < object_bytes_max {
            return conflict(
                "objects",
                format!("an object of object_bytes_max = {object_bytes_max} needs a bytes_max as large"),
            );
        }
        let (envelopes_max, reserve_bytes) = (self.mailbox.envelopes_max, self.store.reserve_bytes);
        let needed = u64::from(envelopes_max) * SETTLED_BYTES;
        if envelopes_max > MailboxConfig::default().envelopes_max
            && 0 < reserve_bytes
            && reserve_bytes < needed
        {
            let problem = format!(
                "with mailbox.envelopes_max = {envelopes_max} reserve_bytes is {needed} at least, or 0 to keep none: on a full disk \
                 whoever has read all of a mailbox could not say so"
            );
            return conflict("store", problem);
        }
        Ok(())
    }

    /// What the store is opened with.
    pub fn store_config(&self) -> StoreConfig {
        StoreConfig {
            quota: Quota { entries_max: self.mailbox.envelopes_max, bytes_max: self.mailbox.bytes_max },
            requests: Quota {
                entries_max: self.mailbox.request_envelopes_max,
                bytes_max: self.mailbox.request_bytes_max,
            },
            body_bytes_max: self.mailbox.envelope_bytes_max,
            objects: ObjectQuota {
                objects_max: self.objects.objects_max,
                bytes_max: self.objects.bytes_max,
                object_bytes_max: self.objects.object_bytes_max,
            },
            lifetime_s_max: self.mailbox.lifetime_days * 24 * 3_600,
            bytes_max: self.store.bytes_max,
            cache_bytes: self.store.cache_bytes,
            devices_max: self.store.devices_max,
            sessions_max: self.store.tls_sessions_max,
            ..StoreConfig::default()
        }
    }

    /// What one commit may hold.
    pub fn group_limits(&self) -> GroupLimits {
        GroupLimits { ops_max: self.store.commit_batch_max, ..GroupLimits::default() }
    }

    /// What the QUIC endpoint is bounded by.
    pub fn server_limits(&self) -> ServerLimits {
        ServerLimits {
            idle_timeout: Duration::from_secs(self.limits.idle_timeout_s.into()),
            incoming_max: self.limits.incoming_max,
            incoming_bytes_max: (self.limits.incoming_bytes_each_max, self.limits.incoming_bytes_max),
            finishing_max: (self.limits.connections_max / FINISHING_SHARE).max(FINISHING_MIN),
        }
    }

    /// The whole configuration as TOML, defaults included, and below it what it bounds.
    pub fn to_toml(&self) -> String {
        let settings = toml::to_string(self).expect("a configuration holds nothing that TOML cannot say");
        let memory = memory::shown(&memory::terms(self));
        format!(
            "{settings}\n\
             # At most, bytes of memory:\n\
             {memory}\
             # At most, bytes of disk:\n\
             # {disk:>14}  bodies in all mailboxes, and objects\n\
             # {reserve:>14}  a ballast, for when the disk is full\n",
            disk = self.store.bytes_max,
            reserve = self.store.reserve_bytes,
        )
    }
}

#[cfg(test)]
mod tests;
