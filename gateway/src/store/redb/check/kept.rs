//! What is kept for each device: what repeats are known by, one-time keys, handles; and TLS sessions.

use redb::{ReadableTableMetadata, TableDefinition, TableHandle, Value};
use thinpost_wire::limits::{DIGESTS_KEPT, HANDLES_MAX, ONE_TIME_KEYS_MAX};

use super::Check;
use crate::store::bounds::LIFETIME_S_MAX;
use crate::store::redb::records::{
    ACCEPTED, ADDRESSES, INCARNATION_TIMERS, INCARNATIONS, ONE_TIME_KEYS, SENDERS, SESSION_ORDER, SESSIONS,
};
use crate::store::{SESSION_KEY_BYTES_MAX, SESSION_VALUE_BYTES_MAX, StoreError};

/// Said of a key that could be given out twice.
pub(in crate::store::redb) const KEY_OF_NOBODY: &str = "its device has not registered";

type Result<T> = std::result::Result<T, StoreError>;

impl Check<'_> {
    /// What repeats are known by: each incarnation has its timer, and as many digests as it says.
    pub(super) fn incarnations(&mut self) -> Result<()> {
        let (accepted, timers) = (self.open(ACCEPTED)?, self.open(INCARNATION_TIMERS)?);
        let now = self.known.state.clock_s;
        let devices = self.known.devices.take();
        self.each(INCARNATIONS, |report, (device, incarnation), (floor, kept, last_used, timer)| {
            let key = format!("{device}/{incarnation:016x}");
            let mut rows = accepted.range((device, incarnation, 0)..=(device, incarnation, u64::MAX))?;
            let first = rows.next().transpose()?.map(|(key, _)| key.value().2);
            let found = u32::from(first.is_some()) + rows.count() as u32;
            let mut remark = |what: String| report.remark(INCARNATIONS.name(), &key, what);
            // It is set once as many are kept as may be, and then follows the smallest; the bound may have grown since.
            let is_full = u64::from(kept) >= DIGESTS_KEPT;
            if let Some(first) = first.filter(|first| floor != *first && (floor != 0 || is_full)) {
                remark(format!("its floor is {floor}, and its numbers begin at {first}"));
            }
            if last_used > now {
                remark("it was used later than now".to_owned());
            } else if timer > last_used.saturating_add(LIFETIME_S_MAX) {
                remark("it is remembered longer than anything is".to_owned());
            }
            let mut fault = |what: String| report.fault(INCARNATIONS.name(), &key, what);
            if found != kept {
                fault(format!("{kept} digests are counted, and {found} are there"));
            } else if kept == 0 {
                fault("it is known by nothing".to_owned());
            }
            if devices.as_ref().is_some_and(|devices| !devices.has(device)) {
                fault("its device is missing".to_owned());
            }
            if timers.get((timer, device, incarnation))?.is_none() {
                fault("it has no timer".to_owned());
            }
            Ok(())
        })?;
        self.known.devices = devices;
        Ok(())
    }

    pub(super) fn incarnation_timers(&mut self) -> Result<()> {
        let incarnations = self.open(INCARNATIONS)?;
        self.each(INCARNATION_TIMERS, |report, (due, device, incarnation), ()| {
            let timer = incarnations.get((device, incarnation))?.map(|row| row.value().3);
            if timer != Some(due) {
                let key = format_args!("{due}/{device}/{incarnation:016x}").to_string();
                report.fault(INCARNATION_TIMERS.name(), key, "its incarnation has another, or is missing");
            }
            Ok(())
        })
    }

    pub(super) fn accepted(&mut self) -> Result<()> {
        let incarnations = self.open(INCARNATIONS)?;
        let mut known = None;
        self.each(ACCEPTED, |report, (device, incarnation, sequence), _| {
            let key = (device, incarnation);
            if known != Some(key) {
                known = incarnations.get(key)?.map(|_| key);
            }
            if known.is_none() {
                let key = format_args!("{device}/{incarnation:016x}/{sequence}").to_string();
                report.fault(ACCEPTED.name(), key, "its incarnation is missing");
            }
            Ok(())
        })
    }

    /// One-time keys are those of a device that has registered: what it left before the store was restored may be given out.
    pub(super) fn one_time_keys(&mut self) -> Result<()> {
        let Some(devices) = self.known.devices.take() else { return Ok(()) };
        let mut kept = (0, 0);
        self.each(ONE_TIME_KEYS, |report, (device, _), ()| {
            if !devices.has(device) {
                report.fault(ONE_TIME_KEYS.name(), device, "its device is missing");
            } else if !devices.is_present(device) {
                report.fault(ONE_TIME_KEYS.name(), device, KEY_OF_NOBODY);
            }
            kept = if kept.0 == device { (device, kept.1 + 1) } else { (device, 1) };
            if kept.1 == ONE_TIME_KEYS_MAX + 1 {
                report.remark(ONE_TIME_KEYS.name(), device, "it has left more than are kept");
            }
            Ok(())
        })?;
        self.known.devices = Some(devices);
        Ok(())
    }

    pub(super) fn addresses(&mut self) -> Result<()> {
        self.handles(ADDRESSES)
    }

    pub(super) fn senders(&mut self) -> Result<()> {
        self.handles(SENDERS)
    }

    /// Handles belong to devices, and have no gaps.
    fn handles<V: Value + 'static>(&mut self, table: TableDefinition<'_, (u32, u16), V>) -> Result<()> {
        let Some(devices) = self.known.devices.take() else { return Ok(()) };
        let name = table.name().to_owned();
        let mut next = (0, 0);
        self.each(table, |report, (device, index), _| {
            let key = format_args!("{device}/{index}").to_string();
            if !devices.has(device) {
                report.fault(&name, &key, "its device is missing");
            }
            let expected = if next.0 == device { next.1 } else { 0 };
            if index != expected {
                report.fault(&name, &key, "handles before it are missing");
            }
            if index == HANDLES_MAX {
                report.remark(&name, &key, "no table has as many");
            }
            next = (device, index.saturating_add(1));
            Ok(())
        })?;
        self.known.devices = Some(devices);
        Ok(())
    }

    /// Each TLS session has its place in the order, and each place its session. A backup has none.
    pub(super) fn sessions(&mut self) -> Result<()> {
        let (sessions, order) = (self.open(SESSIONS)?, self.open(SESSION_ORDER)?);
        let newest = self.known.state.session;
        self.each(SESSIONS, |report, key, (place, value)| {
            let mut fault = |what: &str| report.fault(SESSIONS.name(), place, what);
            if place == 0 || place > newest {
                fault("its place was never given out");
            }
            if order.get(place)?.is_none_or(|ordered| ordered.value() != key) {
                fault("another has its place");
            }
            if key.len() > SESSION_KEY_BYTES_MAX || value.len() > SESSION_VALUE_BYTES_MAX {
                fault("it is longer than any is");
            }
            Ok(())
        })?;
        let (places, found) = (order.len()?, sessions.len()?);
        if places != found {
            self.report.fault(
                SESSION_ORDER.name(),
                "",
                format!("{places} have a place, and {found} are there"),
            );
        }
        if self.report.is_backup && found > 0 {
            self.report.fault(SESSIONS.name(), "", "a backup has none");
        }
        Ok(())
    }
}
