//! What repeats are recognised by: the digests of the last numbers of each incarnation.

use redb::ReadableTable;

use super::{Result, Transaction, missing};

/// One incarnation's row.
#[derive(Clone, Copy)]
pub(super) struct Known {
    /// Numbers below are not told apart any more.
    pub(super) floor: u64,
    /// How many digests are kept.
    pub(super) kept: u32,
    pub(super) last_used: u64,
    /// When its timer is due.
    pub(super) timer: u64,
}

impl Transaction<'_> {
    pub(super) fn incarnation(&self, key: (u32, u64)) -> Result<Option<Known>> {
        let row = self.incarnations.get(key)?;
        Ok(row.map(|row| {
            let (floor, kept, last_used, timer) = row.value();
            Known { floor, kept, last_used, timer }
        }))
    }

    /// Notes that `sequence`, not below the floor and not known, was accepted.
    pub(super) fn remember(
        &mut self,
        key: (u32, u64),
        known: Option<Known>,
        sequence: u64,
        digest: u64,
    ) -> Result<()> {
        let mut known = match known {
            Some(known) => known,
            None => {
                self.make_room_for_incarnation(key.0)?;
                let timer = self.now.after_s(self.lifetime_s()).0;
                self.incarnation_timers.insert((timer, key.0, key.1), ())?;
                Known { floor: 0, kept: 0, last_used: 0, timer }
            }
        };
        self.accepted.insert((key.0, key.1, sequence), digest)?;
        known.kept += 1;
        known.last_used = self.now.0;
        // More than one where fewer are kept than before.
        while known.kept > self.digests_kept() {
            let smallest = self.smallest_accepted(key)?;
            self.accepted.remove((key.0, key.1, smallest))?;
            known.kept -= 1;
        }
        if known.kept == self.digests_kept() {
            // Full: a number below all that are kept would push itself out, and its repeat in again.
            known.floor = self.smallest_accepted(key)?;
        }
        self.put_incarnation(key, known)
    }

    fn smallest_accepted(&self, key: (u32, u64)) -> Result<u64> {
        let first = self.accepted.range((key.0, key.1, 0)..=(key.0, key.1, u64::MAX))?.next();
        let (row, _) = first.ok_or_else(|| missing("digests of device", key.0))??;
        Ok(row.value().2)
    }

    pub(super) fn put_incarnation(&mut self, key: (u32, u64), known: Known) -> Result<()> {
        self.changed = true;
        self.incarnations.insert(key, (known.floor, known.kept, known.last_used, known.timer))?;
        Ok(())
    }

    /// Forgets the incarnation that a device used longest ago, if it has as many as one may have.
    fn make_room_for_incarnation(&mut self, device: u32) -> Result<()> {
        let mut all = Vec::new();
        for row in self.incarnations.range((device, 0)..=(device, u64::MAX))? {
            let (key, value) = row?;
            all.push((value.value().2, key.value().1));
        }
        if all.len() >= self.config.incarnations_max as usize
            && let Some((_, oldest)) = all.into_iter().min()
        {
            self.forget_incarnation((device, oldest))?;
        }
        Ok(())
    }

    /// Removes an incarnation with its digests and timer; how many rows that were.
    pub(super) fn forget_incarnation(&mut self, key: (u32, u64)) -> Result<u32> {
        self.changed = true;
        let Some(known) = self.incarnation(key)? else { return Ok(0) };
        self.incarnations.remove(key)?;
        self.incarnation_timers.remove((known.timer, key.0, key.1))?;
        self.accepted.retain_in((key.0, key.1, 0)..=(key.0, key.1, u64::MAX), |_, _| false)?;
        Ok(known.kept)
    }
}
