//! What happens when time has passed: entries and objects expire, silent devices let go, unused incarnations are forgotten.

use redb::ReadableTable;

use super::repeats::Known;
use super::{Result, Transaction, missing};
use crate::store::{Done, RelayTime};

impl Transaction<'_> {
    pub(super) fn sweep(&mut self, rows_max: u32) -> Result<Done> {
        let (mut rows, mut removed) = (0, 0);
        while rows < rows_max {
            if let Some((_, position)) = self.due_entry()? {
                self.remove_entry(position)?;
                removed += 1;
                rows += 1;
            } else if let Some(number) = self.due_object()? {
                let (is_gone, gone) = self.object_due(number, rows_max - rows)?;
                removed += u32::from(is_gone);
                rows = rows.saturating_add(gone);
            } else if let Some((due, number)) = self.due_device()? {
                let released = self.device_due(due, number)?;
                removed += released;
                rows += 1 + released;
            } else if let Some((due, device, incarnation)) = self.due_incarnation()? {
                rows += 1 + self.incarnation_due(due, (device, incarnation))?;
            } else {
                return Ok(Done::Swept { removed, more: false });
            }
        }
        let more = self.due_entry()?.is_some()
            || self.due_object()?.is_some()
            || self.due_device()?.is_some()
            || self.due_incarnation()?.is_some();
        Ok(Done::Swept { removed, more })
    }

    fn due_entry(&self) -> Result<Option<(u64, u64)>> {
        let first = self.deadlines.first()?.map(|(key, _)| key.value());
        Ok(first.filter(|(due, _)| *due <= self.now.0))
    }

    fn due_device(&self) -> Result<Option<(u64, u32)>> {
        let first = self.device_timers.first()?.map(|(key, _)| key.value());
        Ok(first.filter(|(due, _)| *due <= self.now.0))
    }

    fn due_incarnation(&self) -> Result<Option<(u64, u32, u64)>> {
        let first = self.incarnation_timers.first()?.map(|(key, _)| key.value());
        Ok(first.filter(|(due, _, _)| *due <= self.now.0))
    }

    /// A device's timer has come due: it is set again, or the device stops holding its log.
    fn device_due(&mut self, due: u64, number: u32) -> Result<u32> {
        self.changed = true;
        self.device_timers.remove((due, number))?;
        let mut device = self.device(number)?.ok_or_else(|| missing("device", number))?;
        let silent_at = RelayTime(device.last_seen).after_s(self.lifetime_s());
        if silent_at > self.now {
            self.device_timers.insert((silent_at.0, number), ())?;
            return Ok(0);
        }
        device.silent = true;
        self.put_device(number, &device)?;
        self.trim(device.mailbox)
    }

    /// An incarnation's timer has come due: it is set again, or the incarnation is forgotten.
    fn incarnation_due(&mut self, due: u64, key: (u32, u64)) -> Result<u32> {
        self.changed = true;
        self.incarnation_timers.remove((due, key.0, key.1))?;
        let known = self.incarnation(key)?.ok_or_else(|| missing("incarnation of device", key.0))?;
        let unused_at = RelayTime(known.last_used).after_s(self.lifetime_s());
        if unused_at > self.now {
            self.incarnation_timers.insert((unused_at.0, key.0, key.1), ())?;
            self.put_incarnation(key, Known { timer: unused_at.0, ..known })?;
            return Ok(0);
        }
        self.forget_incarnation(key)
    }
}
