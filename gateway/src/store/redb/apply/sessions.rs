//! TLS sessions: they take effect in memory at once, and ride with the next commit.

use redb::ReadableTableMetadata;

use super::{Result, Transaction};
use crate::store::sessions::Change;

/// Sessions that go with one commit where fewer are kept than before, beside as many as it puts.
const DROPPED_MAX: usize = 1_000;

impl Transaction<'_> {
    /// Writes the changes of TLS sessions, oldest first, and drops the oldest beyond the bound.
    pub(in crate::store::redb) fn put_sessions(&mut self, changes: &[(u64, Vec<u8>, Change)]) -> Result<()> {
        for (_, key, change) in changes {
            self.changed = true;
            let before = self.sessions.remove(key.as_slice())?.map(|row| row.value().0);
            if let Some(place) = before {
                self.session_order.remove(place)?;
            }
            if let Change::Put(value) = change {
                self.state.session += 1;
                self.sessions.insert(key.as_slice(), (self.state.session, value.as_ref()))?;
                self.session_order.insert(self.state.session, key.as_slice())?;
            }
        }
        for _ in 0..changes.len() + DROPPED_MAX {
            if self.sessions.len()? <= self.config.sessions_max {
                break;
            }
            let Some((_, key)) = self.session_order.pop_first()? else { break };
            self.sessions.remove(key.value())?;
            self.changed = true;
        }
        Ok(())
    }
}
