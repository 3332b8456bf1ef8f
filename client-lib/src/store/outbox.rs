//! The outbox on disk: what is to be sent, what it was sealed into, and what became of it.

use std::sync::atomic::{AtomicU64, Ordering};

use redb::WriteTransaction;
use thinpost_wire::ids::{AccountKey, AppId, Incarnation, Origin};

use super::records::{COUNTERS, Counters, DONE, DONE_KEPT, DoneRow, OUTBOX, OutboxRow, SEALED, SealedRow};
use super::table::Tables;
use super::{Changes, PairRow, Store};
use crate::error::StoreError;
use crate::message::{MessageId, MessageState};

/// The numbers of one opening of the home, in two rows. What a recipient knows a message by is drawn when it
/// is written, so that a home restored from a copy sends what waited then under the same names as its newer
/// self did. What the relay knows an envelope by is drawn when it first leaves, one after another.
#[derive(Debug)]
pub(crate) struct Numbers {
    incarnation: Incarnation,
    written: AtomicU64,
    left: AtomicU64,
}

impl Numbers {
    pub(crate) fn new(incarnation: Incarnation) -> Self {
        Self { incarnation, written: AtomicU64::new(1), left: AtomicU64::new(1) }
    }

    pub(crate) fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// The next one of a row. Called within write transactions only, which keeps numbers in the order of ids.
    fn take(&self, row: &AtomicU64) -> Origin {
        Origin { incarnation: self.incarnation, sequence: row.fetch_add(1, Ordering::Relaxed) }
    }

    fn write(&self) -> Origin {
        self.take(&self.written)
    }

    fn leave(&self) -> Origin {
        self.take(&self.left)
    }
}

/// What deciding about a row takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Queued {
    pub(crate) mailbox: AccountKey,
    pub(crate) enqueued_unix_ms: u64,
    pub(crate) app_id: Option<AppId>,
    /// Of its body.
    pub(crate) bytes: usize,
    pub(crate) number: Option<Origin>,
    pub(crate) rides_with: Option<MessageId>,
}

impl From<&OutboxRow> for Queued {
    fn from(row: &OutboxRow) -> Self {
        Self {
            mailbox: row.mailbox,
            enqueued_unix_ms: row.enqueued_unix_ms,
            app_id: row.app_id,
            bytes: row.letter.len(),
            number: row.number,
            rides_with: row.rides_with,
        }
    }
}

/// A message that is to go out: its row, and what it was sealed into, if it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Departure {
    pub(crate) id: MessageId,
    pub(crate) row: OutboxRow,
    pub(crate) sealed: Option<SealedRow>,
}

impl Store {
    /// Numbers messages and puts them at the end of the outbox, in this order. Returns the id of the first;
    /// the others follow.
    pub(crate) fn enqueue(&self, rows: &mut [OutboxRow], numbers: &Numbers) -> Result<MessageId, StoreError> {
        let write = self.begin_write()?;
        let first;
        {
            let mut meta = write.meta()?;
            let mut counters = meta.get(COUNTERS)?;
            first = counters.messages + 1;
            let mut outbox = write.table(OUTBOX)?;
            for row in rows {
                counters.messages += 1;
                row.written = numbers.write();
                // What is sealed is told from repeats inside the seal.
                row.number = row.seal.is_none().then(|| numbers.leave());
                outbox.insert(counters.messages, row)?;
            }
            meta.put(COUNTERS, &counters)?;
        }
        write.commit()?;
        Ok(MessageId(first))
    }

    /// The rows of these messages, and what they were sealed into. Those that are not in the outbox any more
    /// are left out.
    pub(crate) fn departures(&self, ids: &[MessageId]) -> Result<Vec<Departure>, StoreError> {
        let read = self.begin_read()?;
        let (outbox, sealed) = (read.table(OUTBOX)?, read.table(SEALED)?);
        let mut rows = Vec::with_capacity(ids.len());
        for id in ids {
            let Some(row) = outbox.get(id.0)? else { continue };
            rows.push(Departure { id: *id, row, sealed: sealed.get(id.0)? });
        }
        Ok(rows)
    }

    /// Numbers what has no number and writes what was sealed, with the ratchets that sealed it. Messages
    /// that ride with another are no longer among the rows.
    pub(crate) fn hand_over(
        &self,
        rows: &mut [Departure],
        pairs: &[PairRow],
        numbers: &Numbers,
    ) -> Result<(), StoreError> {
        if pairs.is_empty() && rows.iter().all(|departure| departure.row.number.is_some()) {
            return Ok(());
        }
        let write = self.begin_write()?;
        {
            let mut outbox = write.table(OUTBOX)?;
            let mut sealed = write.table(SEALED)?;
            for Departure { id, row, sealed: seal } in
                rows.iter_mut().filter(|departure| departure.row.number.is_none())
            {
                row.number = Some(numbers.leave());
                outbox.insert(id.0, row)?;
                let Some(seal) = seal else { continue };
                sealed.insert(id.0, seal)?;
                for rider in &seal.riders {
                    let Some(row) = outbox.get(rider.0)? else { continue };
                    outbox.insert(rider.0, &OutboxRow { rides_with: Some(*id), ..row })?;
                }
            }
            super::put_pairs(&write, pairs)?;
        }
        write.commit()
    }

    /// What became of a message; none if it was never sent, or is done for long.
    pub(crate) fn message_state(&self, id: MessageId) -> Result<Option<MessageState>, StoreError> {
        let read = self.begin_read()?;
        if read.table(OUTBOX)?.contains(id.0)? {
            return Ok(Some(MessageState::Waiting));
        }
        let row = read.table(DONE)?.get(id.0)?;
        Ok(row.map(|row| row.failure.map_or(MessageState::Custody, MessageState::Failed)))
    }
}

/// What the outbox has lost and got back in one turn of the driver.
pub(super) fn take_from_outbox(
    write: &Tables<'_, WriteTransaction>,
    changes: &Changes,
    counters: &mut Counters,
) -> Result<(), StoreError> {
    let mut outbox = write.table(OUTBOX)?;
    let mut done = write.table(DONE)?;
    let mut sealed = write.table(SEALED)?;
    let custody = changes.custody.iter().map(|id| (*id, None));
    let failed = changes.failed.iter().map(|(id, failure)| (*id, Some(*failure)));
    for (id, failure) in custody.chain(failed) {
        let riders = sealed.remove(id.0)?.map_or_else(Vec::new, |row| row.riders);
        for id in riders.into_iter().chain([id]) {
            let Some(OutboxRow { mailbox, app_id, .. }) = outbox.remove(id.0)? else { continue };
            done.insert(id.0, &DoneRow { mailbox, app_id, failure })?;
            *(if failure.is_none() { &mut counters.custody } else { &mut counters.failed }) += 1;
        }
    }
    while done.len()? > DONE_KEPT {
        done.drop_first()?;
    }
    for id in &changes.unnumbered {
        let Some(row) = outbox.get(id.0)? else { continue };
        outbox.insert(id.0, &OutboxRow { number: None, ..row })?;
    }
    Ok(())
}
