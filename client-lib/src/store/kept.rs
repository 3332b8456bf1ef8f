//! What is kept on disk until its receipt.

use redb::{ReadTransaction, WriteTransaction};

use super::Changes;
use super::outbox::Queued;
use super::records::{Counters, DONE, DoneRow, KEPT, KeptRow, OUTBOX, OutboxRow};
use super::table::Tables;
use crate::error::StoreError;
use crate::kept::Kept;
use crate::message::{MessageId, MessageState};
use crate::notices::Matter;

/// What is known about the messages that are kept, and the last that have arrived.
pub(super) fn load(read: &Tables<'_, ReadTransaction>) -> Result<Kept, StoreError> {
    let mut kept = Kept::default();
    for row in read.table(KEPT)?.range(..)? {
        let (id, KeptRow { row, left }) = row?;
        kept.load(MessageId(id), Queued::from(&row), left);
    }
    for row in read.table(DONE)?.range(..)? {
        let (id, DoneRow { name, app_id, state, left, .. }) = row?;
        let Some(name) = name else { continue };
        match state {
            MessageState::Abandoned(_) => kept.load_abandoned(MessageId(id), name, app_id, left),
            _ => kept.load_arrived(MessageId(id), name, app_id, left, state == MessageState::Read),
        }
    }
    Ok(kept)
}

/// What receipts, or their absence, have brought to light in one turn of the driver. Returns what a person should know
/// of that.
pub(super) fn take_from_kept(
    write: &Tables<'_, WriteTransaction>,
    changes: &Changes,
    counters: &mut Counters,
) -> Result<Vec<Matter>, StoreError> {
    let mut matters = Vec::new();
    let mut kept = write.table(KEPT)?;
    let mut done = write.table(DONE)?;
    // Before the receipts: one may come for what was given up a moment ago.
    for (id, _, reason) in &changes.abandoned {
        let Some(KeptRow { row, left }) = kept.remove(id.0)? else { continue };
        done.insert(id.0, &DoneRow::new(&row, MessageState::Abandoned(*reason), left))?;
        counters.abandoned += 1;
        matters.push(Matter::Abandoned(row.mailbox));
    }
    for (id, _) in &changes.delivered {
        if let Some(KeptRow { row, left }) = kept.remove(id.0)? {
            done.insert(id.0, &DoneRow::new(&row, MessageState::Delivered, left))?;
        } else if let Some(row) = done.get(id.0)?
            && matches!(row.state, MessageState::Abandoned(_))
        {
            done.insert(id.0, &DoneRow { state: MessageState::Delivered, ..row })?;
            counters.abandoned -= 1;
        }
    }
    for (id, _) in &changes.read {
        let Some(row) = done.get(id.0)? else { continue };
        done.insert(id.0, &DoneRow { state: MessageState::Read, ..row })?;
    }
    let mut outbox = write.table(OUTBOX)?;
    for (id, queued) in &changes.again {
        let Some(KeptRow { row, .. }) = kept.remove(id.0)? else { continue };
        outbox.insert(id.0, &OutboxRow { again: queued.again, ..row })?;
    }
    Ok(matters)
}
