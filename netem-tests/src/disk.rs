//! A relay's disk that fails when it is told to.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use rangemap::RangeSet;
use thinpost_gateway::store::{
    Counts, DeviceNo, DeviceRecord, Entry, HandleTables, Leap, Lineage, MailboxUsage, ObjectNo, ObjectRecord,
    Op, RelayTime, Store, StoreError, Verdict,
};
use thinpost_wire::ids::{AccountKey, DeviceKey, ObjectId, Position};
use thinpost_wire::token::MailboxAddress;
use tracing::debug;

/// What becomes of the commit that fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Nothing of it is on disk.
    Before,
    /// All of it is on disk, and the relay does not know.
    After,
}

/// One opening of a store, as a relay holds it: spent once a commit has failed.
pub struct FailingDisk {
    store: Arc<dyn Store>,
    state: Mutex<State>,
}

#[derive(Clone, Copy)]
enum State {
    Sound,
    /// The next commit fails.
    Armed(Failure),
    Spent,
}

impl FailingDisk {
    /// Opens a store that is sound so far.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store, state: Mutex::new(State::Sound) }
    }

    /// The next commit fails, and with it all that is asked of this opening later.
    pub fn fail(&self, failure: Failure) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*state, State::Sound) {
            *state = State::Armed(failure);
        }
    }

    /// The store, unless a commit has failed.
    fn store(&self) -> Result<&dyn Store, StoreError> {
        match *self.state.lock().unwrap_or_else(PoisonError::into_inner) {
            State::Spent => Err(StoreError::Failed),
            State::Sound | State::Armed(_) => Ok(&*self.store),
        }
    }
}

impl Store for FailingDisk {
    fn apply(&self, ops: &[Op], now: RelayTime) -> Result<Vec<Verdict>, StoreError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match *state {
            State::Sound => self.store.apply(ops, now),
            State::Armed(failure) => {
                *state = State::Spent;
                debug!(reason = ?failure, "a commit of the relay failed");
                if failure == Failure::After {
                    self.store.apply(ops, now)?;
                }
                Err(StoreError::Full)
            }
            State::Spent => Err(StoreError::Failed),
        }
    }

    fn device(&self, key: &DeviceKey) -> Result<Option<DeviceRecord>, StoreError> {
        self.store()?.device(key)
    }

    fn read(
        &self,
        mailbox: &AccountKey,
        after: Position,
        entries_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<(Position, Entry)>, StoreError> {
        self.store()?.read(mailbox, after, entries_max, bytes_max)
    }

    fn is_open(&self, mailbox: &AccountKey) -> Result<bool, StoreError> {
        self.store()?.is_open(mailbox)
    }

    fn mailbox_usage(&self, mailbox: &AccountKey) -> Result<Option<MailboxUsage>, StoreError> {
        self.store()?.mailbox_usage(mailbox)
    }

    fn admits(&self, address: &MailboxAddress) -> Result<bool, StoreError> {
        self.store()?.admits(address)
    }

    fn begin_run(&self, unix_s: u64) -> Result<(), StoreError> {
        self.store()?.begin_run(unix_s)
    }

    fn leap(&self) -> Option<Leap> {
        self.store.leap()
    }

    fn newest(&self) -> Result<Position, StoreError> {
        self.store()?.newest()
    }

    fn tables(&self, device: DeviceNo) -> Result<HandleTables, StoreError> {
        self.store()?.tables(device)
    }

    fn keys_left(&self, device: DeviceNo) -> Result<usize, StoreError> {
        self.store()?.keys_left(device)
    }

    fn put_session(&self, key: &[u8], value: Bytes) -> bool {
        self.store.put_session(key, value)
    }

    fn take_session(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.store()?.take_session(key)
    }

    fn object(&self, account: &AccountKey, id: &ObjectId) -> Result<Option<ObjectRecord>, StoreError> {
        self.store()?.object(account, id)
    }

    fn find_object(&self, id: &ObjectId) -> Result<Option<ObjectRecord>, StoreError> {
        self.store()?.find_object(id)
    }

    fn object_held(&self, object: ObjectNo) -> Result<RangeSet<u64>, StoreError> {
        self.store()?.object_held(object)
    }

    fn read_object(&self, object: ObjectNo, offset: u64, bytes_max: usize) -> Result<Bytes, StoreError> {
        self.store()?.read_object(object, offset, bytes_max)
    }

    fn object_digest(&self, object: ObjectNo) -> Result<Option<ObjectId>, StoreError> {
        self.store()?.object_digest(object)
    }

    fn counts(&self) -> Result<Counts, StoreError> {
        self.store()?.counts()
    }

    fn lineage(&self) -> &Lineage {
        self.store.lineage()
    }

    fn relay_clock(&self) -> Result<RelayTime, StoreError> {
        self.store()?.relay_clock()
    }
}
