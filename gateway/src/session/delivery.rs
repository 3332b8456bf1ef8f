//! The way out of a mailbox: from the store, onto the link, until the device has settled it.

use std::collections::VecDeque;

use thinpost_wire::frame::{DeliverOptions, ToDevice};
use thinpost_wire::ids::{AccountKey, Handle, Position};
use thinpost_wire::letter::is_sealed;
use thinpost_wire::link::Link;
use thinpost_wire::table::{HandleTable, TableState};

use crate::store::{DeviceNo, Entry, Op, RelayTime, TableTail, Watcher, Watches};

/// An envelope younger than this is delivered without its age, seconds.
const AGE_S_SAID: u64 = 2;

#[derive(Debug, Default)]
pub(super) struct Delivery {
    reading: Option<Reading>,
    /// The relay's handles for senders, all of which the device knows or has been sent.
    senders: HandleTable<AccountKey>,
    /// How many of them the store has, and whether it has others behind those.
    senders_stored: u16,
    store_has_more: bool,
    /// What has been pushed: the number that settles it, and its place.
    pushed: VecDeque<(u64, Position)>,
}

#[derive(Debug)]
struct Reading {
    account: AccountKey,
    watcher: Watcher,
    /// Everything up to here has been read from the store.
    read_to: Position,
    /// The place of the last envelope pushed; the next is counted from it.
    pushed_to: Position,
    /// Whether there may be more behind it.
    has_mail: bool,
    /// Whether the device has been told that it has all there was.
    caught_up: bool,
}

impl Delivery {
    /// Starts from what the store holds the device to know, cut back to what it does know.
    pub(super) fn know_senders(&mut self, mut stored: HandleTable<AccountKey>, known: TableState) {
        let had = stored.len();
        self.senders_stored = stored.reconcile(known);
        self.store_has_more = had > self.senders_stored;
        self.senders = stored;
    }

    pub(super) fn senders_known(&self) -> u16 {
        self.senders.len()
    }

    /// Delivers from the cursor on; the first place is counted from what was `stated` of it. Watches before the first
    /// read, so that nothing falls between.
    pub(super) fn start(
        &mut self,
        account: AccountKey,
        cursor: Position,
        stated: Position,
        watches: &Watches,
    ) {
        let watcher = watches.watch(account);
        self.reading = Some(Reading {
            account,
            watcher,
            read_to: cursor,
            pushed_to: stated,
            has_mail: true,
            caught_up: false,
        });
    }

    pub(super) fn has_mail(&self) -> bool {
        self.reading.as_ref().is_some_and(|reading| reading.has_mail)
    }

    /// Whose mailbox to read, and after which place. Only while [`Delivery::has_mail`].
    pub(super) fn place(&self) -> (AccountKey, Position) {
        let reading = self.reading.as_ref().expect("there is mail, so it is being read");
        (reading.account, reading.read_to)
    }

    /// Completes when there may be new mail. Cancelling loses nothing.
    pub(super) async fn changed(&mut self) {
        match &mut self.reading {
            Some(reading) => {
                reading.watcher.changed().await;
                reading.has_mail = true;
            }
            None => std::future::pending().await,
        }
    }

    /// Takes what was read at [`Delivery::place`].
    pub(super) fn push(&mut self, link: &mut Link, entries: Vec<(Position, Entry)>, now: RelayTime) {
        let Some(reading) = &mut self.reading else { return };
        reading.has_mail = !entries.is_empty();
        if !reading.has_mail && !reading.caught_up {
            reading.caught_up = true;
            link.push(ToDevice::CaughtUp.encode());
        }
        for (position, entry) in entries {
            reading.read_to = position;
            if entry.deadline <= now {
                continue;
            }
            let advance = position.0 - reading.pushed_to.0;
            reading.pushed_to = position;
            let from = entry.sender.and_then(|sender| sender_handle(&mut self.senders, link, sender));
            let age_s = u64::from(entry.age_s) + now.0.saturating_sub(entry.stored_at.0);
            let body = &entry.body;
            let frame = match from {
                Some(from) if age_s < AGE_S_SAID => ToDevice::Deliver { advance, from, body },
                _ => {
                    let age_s = u32::try_from(age_s).unwrap_or(u32::MAX);
                    ToDevice::DeliverWith { advance, options: DeliverOptions { from, age_s }, body }
                }
            };
            let number =
                if is_sealed(body) { link.push_noise(frame.encode()) } else { link.push(frame.encode()) };
            self.pushed.push_back((number, position));
        }
    }

    /// Returns how far the device has read, if that is news.
    pub(super) fn settled(&mut self, upto: u64) -> Option<Position> {
        let mut settled = None;
        while let Some((_, position)) = self.pushed.pop_front_if(|(number, _)| *number <= upto) {
            settled = Some(position);
        }
        settled
    }

    /// What the store must learn of the senders' handles.
    pub(super) fn take_new_senders(&mut self, device: DeviceNo) -> Option<Op> {
        let (from, known) = (self.senders_stored, self.senders.len());
        if from == known && !self.store_has_more {
            return None;
        }
        self.senders_stored = known;
        self.store_has_more = false;
        let accounts = (from + 1..=known).filter_map(|handle| self.senders.entry(Handle(handle))).collect();
        Some(Op::PutTable { device, from, tail: TableTail::FromRelay(accounts) })
    }
}

/// The sender's handle, introduced to the device if it is new. `None` when the table is full.
fn sender_handle(
    senders: &mut HandleTable<AccountKey>,
    link: &mut Link,
    sender: AccountKey,
) -> Option<Handle> {
    if let Some(handle) = senders.handle(&sender) {
        return Some(handle);
    }
    let handle = senders.push(sender)?;
    link.push(ToDevice::Peer { handle, account: sender }.encode());
    Some(handle)
}

#[cfg(test)]
mod tests;
