//! A store in memory, put back to an older copy of itself.

use std::cmp::{max, min};
use std::sync::Mutex;

use thinpost_wire::ids::{Position, StoreId};

use super::{MemoryStore, State};
use crate::store::{DeviceNo, StoreConfig};

impl MemoryStore {
    /// What a restored backup of this store, as it is now, is as the store `id`.
    #[must_use]
    pub fn restored(&self, id: StoreId) -> Self {
        let mut state = self.state().clone();
        let lineage = self.lineage.restored(id, Position(state.position));
        for mailbox in state.mailboxes.values_mut() {
            mailbox.is_closed = true;
        }
        for device in state.devices.values_mut() {
            device.is_away = true;
            device.record.last = None;
            device.keys.clear();
        }
        state.sessions.clear();
        Self { config: self.config.clone(), lineage, state: Mutex::new(state) }
    }
}

impl State {
    /// A known device registers. Whether it had been away since the store was restored; then it has read so far.
    pub(super) fn come_back(&mut self, number: DeviceNo, read: Position, config: &StoreConfig) -> bool {
        let (now, newest) = (self.clock, Position(self.position));
        let Some(device) = self.devices.get_mut(&number).filter(|device| device.is_away) else {
            return false;
        };
        device.is_away = false;
        device.record.cursor = max(device.record.cursor, min(read, newest));
        device.record.last_seen = now;
        let account = device.record.account;
        self.trim(&account, config);
        true
    }
}
