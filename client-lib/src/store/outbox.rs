//! The outbox on disk: what is to be sent, what it was sealed into, and what became of it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use redb::WriteTransaction;
use thinpost_wire::ids::{AccountKey, AppId, Incarnation, Origin};
use thinpost_wire::ticket::SealKeys;

use super::records::{
    COUNTERS, Counters, DONE, DONE_KEPT, DoneRow, KEPT, KeptRow, OUTBOX, OutboxRow, SEALED, SealedRow,
};
use super::table::Tables;
use super::{Changes, PairRow, Store};
use crate::error::StoreError;
use crate::kept::Name;
use crate::message::{Abandonment, MessageId, MessageState};
use crate::notices::Matter;
use crate::seal::Identity;

/// The numbers of one opening of the home. What a recipient knows a message by is drawn when it is written,
/// in a row for each recipient, so that a home restored from a copy sends what waited then under the same
/// names as its newer self did. What the relay knows an envelope by is drawn when it first leaves; but what is not sealed is
/// known by nothing else, so that it is drawn when that is written, too. There a count of its own is for: a relay takes what falls a
/// thousand numbers behind for settled, and of what is sealed thousands may leave before the first that is not.
#[derive(Debug)]
pub(crate) struct Numbers {
    incarnation: Incarnation,
    written: Mutex<BTreeMap<Identity, u64>>,
    left: AtomicU64,
    of_open: Incarnation,
    open: AtomicU64,
}

impl Numbers {
    /// Two incarnations that were never used: of what is sealed, and of what is not.
    pub(crate) fn new(incarnation: Incarnation, of_open: Incarnation) -> Self {
        let [left, open] = [1, 1].map(AtomicU64::new);
        Self { incarnation, written: Mutex::default(), left, of_open, open }
    }

    /// That of what is sealed.
    pub(crate) fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// Called, like the next, within write transactions only, which keeps numbers in the order of ids.
    fn write(&self, recipient: Identity) -> Origin {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let last = written.entry(recipient).or_default();
        *last += 1;
        Origin { incarnation: self.incarnation, sequence: *last }
    }

    pub(super) fn leave(&self, is_sealed: bool) -> Origin {
        let (incarnation, next) = match is_sealed {
            true => (self.incarnation, &self.left),
            false => (self.of_open, &self.open),
        };
        Origin { incarnation, sequence: next.fetch_add(1, Ordering::Relaxed) }
    }
}

/// What deciding about a row takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Queued {
    pub(crate) mailbox: AccountKey,
    pub(crate) enqueued_ms: u64,
    pub(crate) app_id: Option<AppId>,
    /// Of its body.
    pub(crate) bytes: usize,
    pub(crate) number: Option<Origin>,
    pub(crate) rides_with: Option<MessageId>,
    pub(crate) name: Option<Name>,
    pub(crate) again: u8,
}

impl Queued {
    /// A message of 10 bytes that was written at 1 s and has never left.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn new(mailbox: AccountKey, name: Option<Name>) -> Self {
        Self {
            mailbox,
            enqueued_ms: 1_000,
            app_id: None,
            bytes: 10,
            number: None,
            rides_with: None,
            name,
            again: 0,
        }
    }

    /// Whether it is a message that was never in custody: whose fate the application has not been told.
    pub(crate) fn is_first_time(&self, id: MessageId) -> bool {
        self.again == 0 && !id.is_notes()
    }
}

impl From<&OutboxRow> for Queued {
    fn from(row: &OutboxRow) -> Self {
        Self {
            mailbox: row.mailbox,
            enqueued_ms: row.enqueued_ms,
            app_id: row.app_id,
            bytes: row.letter.len(),
            number: row.number,
            rides_with: row.rides_with,
            name: row.name(),
            again: row.again,
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
        self.change("enqueue", |write| {
            let mut meta = write.meta()?;
            let mut counters: Counters = meta.get(COUNTERS)?;
            let first = counters.messages + 1;
            let mut outbox = write.table(OUTBOX)?;
            for row in rows {
                counters.messages += 1;
                // What is sealed is told from repeats inside the seal.
                match &row.seal {
                    Some(keys) => row.written = numbers.write(keys.identity),
                    None => row.number = Some(numbers.leave(false)),
                }
                outbox.insert(counters.messages, row)?;
            }
            meta.put(COUNTERS, &counters)?;
            Ok(MessageId(first))
        })
    }

    /// Puts notes at the very end of the outbox. Returns the id of the first; the others follow.
    pub(crate) fn enqueue_notes(&self, rows: &[OutboxRow]) -> Result<MessageId, StoreError> {
        self.change("enqueue_notes", |write| {
            let mut meta = write.meta()?;
            let mut counters = meta.get(COUNTERS)?;
            let first = MessageId::FIRST_NOTES.0 + counters.notes;
            let mut outbox = write.table(OUTBOX)?;
            for (id, row) in (first..).zip(rows) {
                outbox.insert(id, row)?;
            }
            counters.notes += rows.len() as u64;
            meta.put(COUNTERS, &counters)?;
            Ok(MessageId(first))
        })
    }

    /// The rows of these messages, and what they were sealed into. Those that are not in the outbox any more
    /// are left out.
    pub(crate) fn departures(&self, ids: &[MessageId]) -> Result<Vec<Departure>, StoreError> {
        self.read(|read| {
            let (outbox, sealed) = (read.table(OUTBOX)?, read.table(SEALED)?);
            let mut rows = Vec::with_capacity(ids.len());
            for id in ids {
                let Some(row) = outbox.get(id.0)? else { continue };
                rows.push(Departure { id: *id, row, sealed: sealed.get(id.0)? });
            }
            Ok(rows)
        })
    }

    /// Addresses messages to other keys than those that they were written for.
    pub(crate) fn readdress(
        &self,
        rows: &mut [(&mut Departure, SealKeys)],
        numbers: &Numbers,
    ) -> Result<(), StoreError> {
        self.change("readdress", |write| {
            for (Departure { id, row, .. }, keys) in rows {
                // Under the same keys it stays the message that it was.
                if row.seal.is_none_or(|before| before.identity != keys.identity) && !id.is_notes() {
                    row.written = numbers.write(keys.identity);
                }
                row.seal = Some(*keys);
                write.table(OUTBOX)?.insert(id.0, row)?;
            }
            Ok(())
        })
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
        self.change("hand_over", |write| {
            {
                let mut outbox = write.table(OUTBOX)?;
                let mut sealed = write.table(SEALED)?;
                for Departure { id, row, sealed: seal } in
                    rows.iter_mut().filter(|departure| departure.row.number.is_none())
                {
                    row.number = Some(numbers.leave(row.seal.is_some()));
                    outbox.insert(id.0, row)?;
                    let Some(seal) = seal else { continue };
                    sealed.insert(id.0, seal)?;
                    for rider in &seal.riders {
                        let Some(row) = outbox.get(rider.0)? else { continue };
                        outbox.insert(rider.0, &OutboxRow { rides_with: Some(*id), ..row })?;
                    }
                }
                super::put_pairs(write, pairs)?;
            }
            Ok(())
        })
    }

    /// What became of a message; none if it was never sent, or is done for long.
    pub(crate) fn message_state(&self, id: MessageId) -> Result<Option<MessageState>, StoreError> {
        self.read(|read| {
            if let Some(row) = read.table(OUTBOX)?.get(id.0)? {
                return Ok(Some(if row.again == 0 { MessageState::Waiting } else { MessageState::Custody }));
            }
            if read.table(KEPT)?.contains(id.0)? {
                return Ok(Some(MessageState::Custody));
            }
            Ok(read.table(DONE)?.get(id.0)?.map(|row| row.state))
        })
    }
}

/// What the outbox has lost and got back in one turn of the driver. Returns what a person should know of that.
pub(super) fn take_from_outbox(
    write: &Tables<'_, WriteTransaction>,
    changes: &Changes,
    counters: &mut Counters,
) -> Result<Vec<Matter>, StoreError> {
    let mut matters = Vec::new();
    let mut outbox = write.table(OUTBOX)?;
    let mut kept = write.table(KEPT)?;
    let mut done = write.table(DONE)?;
    let mut sealed = write.table(SEALED)?;
    let custody = changes.custody.iter().map(|(id, left)| (*id, *left, MessageState::Custody));
    let failed = changes.failed.iter().map(|(id, failure)| (*id, 0, MessageState::Failed(*failure)));
    for (id, left, state) in custody.chain(failed) {
        let riders = sealed.remove(id.0)?.map_or_else(Vec::new, |row| row.riders);
        for id in riders.into_iter().chain([id]) {
            let Some(row) = outbox.remove(id.0)?.filter(|_| !id.is_notes()) else { continue };
            // What was in custody before neither counts twice nor is sure not to arrive.
            let state = match state {
                MessageState::Failed(failure) if row.again > 0 => {
                    MessageState::Abandoned(Abandonment::Failed(failure))
                }
                state => state,
            };
            match state {
                MessageState::Failed(_) => counters.failed += 1,
                MessageState::Abandoned(_) => {
                    counters.abandoned += 1;
                    matters.push(Matter::Abandoned(row.mailbox));
                }
                _ => counters.custody += u64::from(row.again == 0),
            }
            if left > 0 && row.name().is_some() {
                let row = OutboxRow { number: None, rides_with: None, ..row };
                kept.insert(id.0, &KeptRow { row, left })?;
            } else {
                done.insert(id.0, &DoneRow::new(&row, state, left))?;
            }
        }
    }
    while done.len()? > DONE_KEPT {
        done.drop_first()?;
    }
    for id in &changes.unnumbered {
        let Some(row) = outbox.get(id.0)? else { continue };
        outbox.insert(id.0, &OutboxRow { number: None, ..row })?;
    }
    Ok(matters)
}
