//! What is kept on disk until its receipt.

use redb::{ReadTransaction, WriteTransaction};

use super::Changes;
use super::outbox::Queued;
use super::records::{DONE, DoneRow, KEPT, KeptRow, OUTBOX, OutboxRow};
use super::table::Tables;
use crate::error::StoreError;
use crate::kept::Kept;
use crate::message::{MessageId, MessageState};

/// What is known about the messages that are kept, and the last that have arrived.
pub(super) fn load(read: &Tables<'_, ReadTransaction>) -> Result<Kept, StoreError> {
    let mut kept = Kept::default();
    for row in read.table(KEPT)?.range(..)? {
        let (id, KeptRow { row, left }) = row?;
        kept.load(MessageId(id), Queued::from(&row), left);
    }
    for row in read.table(DONE)?.range(..)? {
        let (id, DoneRow { name, app_id, state, left, .. }) = row?;
        if let Some(name) = name {
            kept.load_arrived(MessageId(id), name, app_id, left, state == MessageState::Read);
        }
    }
    Ok(kept)
}

/// What receipts have brought to light in one turn of the driver.
pub(super) fn take_from_kept(
    write: &Tables<'_, WriteTransaction>,
    changes: &Changes,
) -> Result<(), StoreError> {
    let mut kept = write.table(KEPT)?;
    let mut done = write.table(DONE)?;
    let delivered = changes.delivered.iter().map(|(id, _)| (*id, MessageState::Delivered));
    let let_go = changes.let_go.iter().map(|id| (*id, MessageState::Custody));
    for (id, state) in delivered.chain(let_go) {
        let Some(KeptRow { row, left }) = kept.remove(id.0)? else { continue };
        done.insert(id.0, &DoneRow::new(&row, state, left))?;
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
    Ok(())
}
