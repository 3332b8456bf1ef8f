//! Where custody is real: accounts, mailboxes, cursors, and what repeats are recognised by, on disk.
//!
//! - [`Store`] is what a backend must do, blocking; [`conformance`](self) tests hold every backend to it;
//! - [`RedbStore`] is the default, one file; [`MemoryStore`] says in the plainest way what a store is,
//!   and serves tests;
//! - [`commit`] gathers what many sessions ask for into one transaction, and wakes who waits for mail
//!   ([`Watches`]) or for a mailbox to take some ([`Vacancies`]).
//!
//! No truth lives in the process: everything a session must remember over a restart goes through here.

mod bounds;
pub mod clock;
pub mod commit;
mod leap;
mod lineage;
pub mod memory;
mod objects;
pub mod redb;
mod sessions;
mod types;
pub mod vacancy;
pub mod watch;

#[cfg(test)]
pub(crate) mod conformance;
#[cfg(any(test, feature = "faults"))]
pub mod faults;
#[cfg(any(test, feature = "faults"))]
mod model;
#[cfg(any(test, feature = "faults"))]
mod samples;

use std::io;

use bytes::Bytes;
use rangemap::RangeSet;
use thinpost_wire::ids::{AccountKey, DeviceKey, ObjectId, Position, StoreId};
use thinpost_wire::token::MailboxAddress;
use thiserror::Error;

pub(crate) use self::bounds::LIFETIME_DAYS_MAX;
pub use self::bounds::{ObjectQuota, Quota, StoreConfig};
pub use self::clock::{RelayClock, RelayTime};
pub use self::commit::{CommitError, CommitMode, Committer, GroupCommit, GroupLimits, Pending, Wakes};
pub use self::leap::Leap;
pub use self::lineage::Lineage;
pub use self::memory::MemoryStore;
pub use self::objects::{ObjectNo, ObjectRecord};
pub(crate) use self::redb::BACKUP_BYTES;
pub use self::redb::{Fault, RedbStore, Report};
pub(crate) use self::sessions::PENDING_BYTES_MAX as TLS_SESSIONS_BYTES_MAX;
pub use self::types::{
    Append, Counts, DeviceNo, DeviceRecord, Done, Entry, HandleTables, Invite, MailboxUsage, Op, Refusal,
    Register, TableTail, Usage, Verdict,
};
pub use self::vacancy::{Applicant, Vacancies};
pub use self::watch::{Watcher, Watches};

/// Longest TLS session key kept, bytes; rustls uses 32.
pub const SESSION_KEY_BYTES_MAX: usize = 64;

/// Longest TLS session value kept, bytes; rustls needs ~150 with raw public keys.
pub const SESSION_VALUE_BYTES_MAX: usize = 4_096;

/// A relay's memory. Every call may block on the disk.
///
/// The contract, in one sentence: when [`Store::apply`] returns `Ok`, every change its verdicts claim
/// survives the loss of power; when it returns `Err`, nothing may be claimed, and the handle is spent.
pub trait Store: Send + Sync + 'static {
    /// Carries out all of `ops` in order, in one durable transaction, and says what became of each.
    ///
    /// `now` never goes back: a store that has seen a later time uses that one, and keeps the latest.
    /// With no `ops` it makes the clock and the TLS sessions durable.
    ///
    /// # Errors
    ///
    /// Whether anything was written is then unknown, and every later call fails with
    /// [`StoreError::Failed`]: after a failed sync the kernel may have dropped the pages it could not
    /// write, so that a second sync succeeds over a hole. Reopen the store, and let the devices repeat.
    fn apply(&self, ops: &[Op], now: RelayTime) -> Result<Vec<Verdict>, StoreError>;

    /// Looks a device up by its login; one that came back from a backup, only once it has registered again.
    fn device(&self, key: &DeviceKey) -> Result<Option<DeviceRecord>, StoreError>;

    /// A mailbox's entries after a position, oldest first: at most `entries_max`, and no further one
    /// once their bodies exceed `bytes_max`, but always one if there is one. Empty for an unknown mailbox.
    fn read(
        &self,
        mailbox: &AccountKey,
        after: Position,
        entries_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<(Position, Entry)>, StoreError>;

    /// Whether there is a mailbox that takes envelopes. One that came back from a backup takes none before a device
    /// of its account has registered again: which tokens were revoked since, only the device knows.
    fn is_open(&self, mailbox: &AccountKey) -> Result<bool, StoreError>;

    /// Whether there is a mailbox that takes envelopes under this token.
    fn admits(&self, address: &MailboxAddress) -> Result<bool, StoreError>;

    /// How full a mailbox is; `None` if there is no such mailbox.
    fn mailbox_usage(&self, mailbox: &AccountKey) -> Result<Option<MailboxUsage>, StoreError>;

    /// A relay starts on the store, at this time of the wall clock: what is appended from here on comes behind a [`Leap`].
    /// Without, it comes behind what there is.
    fn begin_run(&self, unix_s: u64) -> Result<(), StoreError>;

    /// How far the last [`Store::begin_run`] has leapt, if there was one.
    fn leap(&self) -> Option<Leap>;

    /// The newest position that was given out, in any mailbox.
    fn newest(&self) -> Result<Position, StoreError>;

    /// A device's handle tables; empty for an unknown device.
    fn tables(&self, device: DeviceNo) -> Result<HandleTables, StoreError>;

    /// How many one-time keys of a device are left; 0 for an unknown device.
    fn keys_left(&self, device: DeviceNo) -> Result<usize, StoreError>;

    /// Keeps a TLS session. It can be taken at once, and is durable with the next [`Store::apply`].
    ///
    /// False, and nothing kept, if it exceeds [`SESSION_KEY_BYTES_MAX`] or [`SESSION_VALUE_BYTES_MAX`].
    fn put_session(&self, key: &[u8], value: Bytes) -> bool;

    /// Takes a TLS session out, so that each is used once; its absence is durable with the next
    /// [`Store::apply`]. A crash before that can bring one back: what rides in 0-RTT is idempotent.
    fn take_session(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// What an account keeps, or has begun to put, under a name.
    fn object(&self, account: &AccountKey, id: &ObjectId) -> Result<Option<ObjectRecord>, StoreError>;

    /// The complete object of a name, whoever keeps it: the one that is kept longest.
    fn find_object(&self, id: &ObjectId) -> Result<Option<ObjectRecord>, StoreError>;

    /// Which bytes of an object are held; none of an unknown one.
    fn object_held(&self, object: ObjectNo) -> Result<RangeSet<u64>, StoreError>;

    /// What is held of an object from `offset` on, up to the first gap and at most `bytes_max` bytes. Empty
    /// where nothing is held, and for an unknown object.
    fn read_object(&self, object: ObjectNo, offset: u64, bytes_max: usize) -> Result<Bytes, StoreError>;

    /// The name that an object's bytes have; `None` unless all are held. Reads the whole object, piece by
    /// piece.
    fn object_digest(&self, object: ObjectNo) -> Result<Option<ObjectId>, StoreError>;

    /// The store's size.
    fn counts(&self) -> Result<Counts, StoreError>;

    /// Which store this is, and which it was restored from.
    fn lineage(&self) -> &Lineage;

    /// Names this store; what positions of another mean here, its [`Lineage`] says.
    fn store_id(&self) -> StoreId {
        self.lineage().id()
    }

    /// The latest time seen by an [`Store::apply`] that was made durable.
    fn relay_clock(&self) -> Result<RelayTime, StoreError>;
}

/// Why a store cannot be used. None of these is a peer's doing.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process has the store open. Nothing changed; stop the other one, or use another folder.
    #[error("the data folder is in use by another process")]
    InUse,
    /// The file is none of ours. Nothing changed.
    #[error("the file is not a relay's store")]
    NotAStore,
    /// The file was written by a version of this program whose format this one does not know. Nothing changed.
    #[error("the store has format {found}; this program reads format {expected}")]
    UnknownFormat {
        /// What the file says.
        found: u32,
        /// What this program reads.
        expected: u32,
    },
    /// There is something in the file, as said here, that this program does not know: a later one has written it. Nothing changed.
    #[error("the store has {0}, which this program does not know")]
    Unknown(String),
    /// The file is a backup's: under the same id it would repeat what devices know to be done with. Restore it. Not a row
    /// of it changed.
    #[error("the file is a backup, and `gateway restore` makes a store of it")]
    IsBackup,
    /// The medium is full, or a quota on it. Make room, then reopen: what was claimed before is there.
    #[error("the disk is full, or what may be taken of it")]
    Full,
    /// The store's disk has little left, and a copy would keep pages from being used again. No copy was made; the store goes on.
    #[error("little is left of the store's disk")]
    Low,
    /// What was read is not what was written. Restore from a backup.
    #[error("the store is damaged: {0}")]
    Corrupt(String),
    /// The medium failed. Reopen once it is well.
    #[error("the disk failed: {0}")]
    Io(io::Error),
    /// An earlier call failed, and this handle is spent. Reopen.
    #[error("the store failed earlier and must be reopened")]
    Failed,
}
