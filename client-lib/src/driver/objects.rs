//! Hands objects over, and fetches them: beside messages, and only when none waits.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use rangemap::RangeSet;
use thinpost_wire::batch::Transfer;
use thinpost_wire::frame::{HeldRanges, ObjectRefusal, ToRelay};
use thinpost_wire::ids::ObjectId;
use thinpost_wire::link::{Link, Want};
use tokio::time::Instant;

use super::Driver;
use super::incoming::Misbehaviour;
use super::outgoing::{Frame, Said};
use crate::error::StoreError;
use crate::event::Event;
use crate::objects::{ObjectAim, ObjectFailure, ObjectNumber, ObjectRow};
use crate::store::{LoadedObject, ObjectChange};

/// Transfers at a time: one fills the link, and a second begins while the first waits for its last answer.
const AT_ONCE: usize = 2;

/// What was refused for now is tried again after so long.
const PAUSE: Duration = Duration::from_secs(600);

/// How often an object that comes damaged is fetched.
const FETCHES_MAX: u32 = 3;

/// Objects that are to be handed over or fetched.
#[derive(Debug, Default)]
pub(super) struct Objects {
    pending: BTreeMap<ObjectNumber, Pending>,
    /// Which of them are on the present link.
    transfers: BTreeMap<Transfer, ObjectNumber>,
    /// The last transfer of the present link.
    last: u32,
}

#[derive(Debug)]
struct Pending {
    row: ObjectRow,
    /// What is here of what is fetched.
    held: RangeSet<u64>,
    /// Whether the relay may hold some of what is handed over.
    has_begun: bool,
    is_on_link: bool,
    /// Whether the present link sends none of it before the relay has said what it holds.
    waits_for_opened: bool,
    not_before: Option<Instant>,
    fetches: u32,
}

impl Pending {
    fn is_whole(&self) -> bool {
        let ObjectRow { size, aim, .. } = self.row;
        aim == ObjectAim::Fetch && size > 0 && self.held.get(&0).is_some_and(|first| first.end == size)
    }
}

impl Objects {
    /// Takes in, at the start, what was begun at another time.
    pub(super) fn load(&mut self, objects: Vec<LoadedObject>) {
        for (number, row, held) in objects {
            self.insert(number, row, held, true);
        }
    }

    /// An object that this home has to do with from now on.
    pub(super) fn add(&mut self, number: ObjectNumber, row: ObjectRow) {
        self.insert(number, row, RangeSet::new(), false);
    }

    fn insert(&mut self, number: ObjectNumber, row: ObjectRow, held: RangeSet<u64>, has_begun: bool) {
        let pending = Pending {
            row,
            held,
            has_begun,
            is_on_link: false,
            waits_for_opened: false,
            not_before: None,
            fetches: 1,
        };
        self.pending.insert(number, pending);
    }

    /// An object is of no interest any more.
    pub(super) fn remove(&mut self, number: ObjectNumber) {
        self.pending.remove(&number);
    }

    /// The link is gone, and its transfers with it.
    pub(super) fn link_lost(&mut self) {
        self.transfers.clear();
        self.last = 0;
        for pending in self.pending.values_mut() {
            pending.is_on_link = false;
        }
    }

    /// Whether any is on its way, so that the relay has something to say of it.
    pub(super) fn are_on_link(&self) -> bool {
        !self.transfers.is_empty()
    }

    /// When something that was refused may be tried again.
    pub(super) fn next_retry(&self) -> Option<Instant> {
        self.pending
            .values()
            .filter(|pending| !pending.is_on_link)
            .filter_map(|pending| pending.not_before)
            .min()
    }

    /// Objects that are to be fetched, and are here to the last byte.
    fn whole(&self) -> Vec<(ObjectNumber, ObjectId)> {
        let whole = self.pending.iter().filter(|(_, pending)| pending.is_whole());
        whole.map(|(number, pending)| (*number, pending.row.id)).collect()
    }

    fn of(&mut self, transfer: Transfer) -> Option<(ObjectNumber, &mut Pending)> {
        let number = *self.transfers.get(&transfer)?;
        Some((number, self.pending.get_mut(&number)?))
    }
}

impl Driver {
    /// Opens the next transfers, and ends those that nobody wants any more.
    pub(super) fn next_transfers(&mut self, link: &mut Link) -> Vec<Frame> {
        let now = Instant::now();
        let mut frames = Vec::new();
        let Objects { pending, transfers, last } = &mut self.objects;
        transfers.retain(|transfer, number| {
            let is_wanted = pending.contains_key(number);
            if !is_wanted {
                link.stop_object(*transfer);
                frames.push((Said::Other, ToRelay::EndTransfer { transfer: *transfer }.encode()));
            }
            is_wanted
        });
        for (&number, pending) in pending.iter_mut() {
            let is_due = !pending.is_on_link && pending.not_before.is_none_or(|at| at <= now);
            if !is_due || transfers.len() >= AT_ONCE {
                continue;
            }
            *last += 1;
            let transfer = Transfer(*last);
            transfers.insert(transfer, number);
            pending.is_on_link = true;
            let ObjectRow { id, size, aim } = pending.row;
            let frame = match aim {
                ObjectAim::Put { lifetime_s } => {
                    pending.waits_for_opened = pending.has_begun;
                    if !pending.has_begun {
                        link.send_object(transfer, size, RangeSet::new());
                    }
                    ToRelay::PutObject { transfer, id, size, lifetime_s }
                }
                ObjectAim::Fetch | ObjectAim::Keep => {
                    ToRelay::GetObject { transfer, id, held: HeldRanges::new(&pending.held) }
                }
            };
            frames.push((Said::Other, frame.encode()));
        }
        frames
    }

    /// Hands the link what it wants of objects.
    pub(super) async fn feed(&mut self, link: &mut Link) -> Result<(), StoreError> {
        while let Some(Want { transfer, bytes: range }) = link.want() {
            let Some(&number) = self.objects.transfers.get(&transfer) else {
                link.stop_object(transfer);
                continue;
            };
            let start = range.start;
            let read = self.shared.on_disk(move |shared| shared.store.object_bytes(number, range)).await?;
            if read.is_empty() {
                // It was forgotten a moment ago.
                self.objects.remove(number);
                link.stop_object(transfer);
            } else {
                link.supply(transfer, start, read.into());
                if let Some((_, pending)) = self.objects.of(transfer) {
                    // From now on chunks may be on their way, whether anything is heard of them or not.
                    pending.has_begun = true;
                }
            }
        }
        Ok(())
    }

    /// The relay has opened a transfer.
    pub(super) fn object_opened(
        &mut self,
        link: &mut Link,
        transfer: Transfer,
        size: u64,
        held: &HeldRanges,
    ) -> Result<(), Misbehaviour> {
        let Some((number, pending)) = self.objects.of(transfer) else { return Ok(()) };
        match pending.row.aim {
            ObjectAim::Put { .. } => {
                if size != pending.row.size {
                    return Err("the relay changed an object's size");
                }
                pending.has_begun = true;
                if std::mem::take(&mut pending.waits_for_opened) {
                    link.send_object(transfer, size, held.to_set());
                }
            }
            ObjectAim::Fetch | ObjectAim::Keep => {
                if pending.row.size != 0 && pending.row.size != size {
                    return Err("the relay changed an object's size");
                }
                pending.row.size = size;
                let held = pending.held.clone();
                self.changes.objects.push((number, ObjectChange::Size(size)));
                link.receive_object(transfer, size, held)
                    .map_err(|_| "the relay sent too much of an object")?;
            }
        }
        Ok(())
    }

    /// The relay has all of an object.
    pub(super) fn object_stored(&mut self, link: &mut Link, transfer: Transfer) {
        link.stop_object(transfer);
        if let Some((number, Pending { row: ObjectRow { id, aim: ObjectAim::Put { .. }, .. }, .. })) =
            self.objects.of(transfer)
        {
            let id = *id;
            self.objects.transfers.remove(&transfer);
            self.end_object(number, ObjectChange::Gone);
            self.tell_after.push(Event::ObjectStored { id });
        }
    }

    /// The relay does not take an object, or does not give it.
    pub(super) fn object_refused(&mut self, link: &mut Link, transfer: Transfer, reason: ObjectRefusal) {
        link.stop_object(transfer);
        let Some(number) = self.objects.transfers.remove(&transfer) else { return };
        let Some(pending) = self.objects.pending.get_mut(&number) else { return };
        let id = pending.row.id;
        tracing::debug!(%id, %reason, "an object was refused");
        let is_put = matches!(pending.row.aim, ObjectAim::Put { .. });
        let may_pass = match reason {
            ObjectRefusal::QuotaReached | ObjectRefusal::RelayFull | ObjectRefusal::TooMany => true,
            // What the relay held was not ours, or its time was over: it begins anew.
            ObjectRefusal::Damaged | ObjectRefusal::Unknown => is_put && pending.fetches < FETCHES_MAX,
            _ => false,
        };
        if may_pass {
            let is_anew = matches!(reason, ObjectRefusal::Damaged | ObjectRefusal::Unknown);
            pending.fetches += u32::from(is_anew);
            pending.not_before = (!is_anew).then(|| Instant::now() + PAUSE);
            pending.is_on_link = false;
        } else {
            self.end_object(number, ObjectChange::Gone);
            self.tell_after.push(Event::ObjectFailed { id, reason: ObjectFailure::Refused(reason) });
        }
    }

    fn end_object(&mut self, number: ObjectNumber, change: ObjectChange) {
        self.objects.pending.remove(&number);
        self.changes.objects.push((number, change));
    }

    /// Bytes of an object have come; the next commit makes them durable. Returns which are to be held then.
    pub(super) fn chunk(
        &mut self,
        transfer: Transfer,
        offset: u64,
        bytes: Bytes,
    ) -> Option<(Transfer, Range<u64>)> {
        let (number, pending) = self.objects.of(transfer)?;
        let range = offset..offset + bytes.len() as u64;
        for missing in pending.held.gaps(&range).collect::<Vec<_>>() {
            let part = bytes.slice((missing.start - offset) as usize..(missing.end - offset) as usize);
            self.changes.objects.push((number, ObjectChange::Chunk(missing.start, part)));
        }
        pending.held.insert(range.clone());
        Some((transfer, range))
    }

    /// If what is durable of a fetched object is all of it: is it the one that was asked for? Returns what to say.
    pub(super) async fn look_at_fetched(
        &mut self,
        link: &mut Link,
        transfer: Transfer,
    ) -> Result<Option<Frame>, StoreError> {
        let Some((number, pending)) = self.objects.of(transfer) else { return Ok(None) };
        let id = pending.row.id;
        if !pending.is_whole() {
            return Ok(None);
        }
        let found = self.shared.on_disk(move |shared| shared.store.object_digest(number)).await?;
        link.stop_object(transfer);
        self.objects.transfers.remove(&transfer);
        self.fetched(number, id, found == id);
        Ok(Some((Said::Other, ToRelay::EndTransfer { transfer }.encode())))
    }

    /// Looks at what is whole when the home is opened: no byte of it is still to come, after which it would be looked at. A client that
    /// was killed between the last of them and this leaves that.
    pub(super) async fn look_at_whole(&mut self) -> Result<(), StoreError> {
        let whole = self.objects.whole();
        if whole.is_empty() {
            return Ok(());
        }
        for (number, id) in whole {
            let found = self.shared.on_disk(move |shared| shared.store.object_digest(number)).await?;
            self.fetched(number, id, found == id);
        }
        self.commit().await
    }

    fn fetched(&mut self, number: ObjectNumber, id: ObjectId, is_sound: bool) {
        if is_sound {
            self.end_object(number, ObjectChange::Arrived);
            return self.tell_after.push(Event::ObjectArrived { id });
        }
        tracing::warn!(%id, "what has come is not the object that was asked for");
        let Some(pending) = self.objects.pending.get_mut(&number) else { return };
        if pending.fetches >= FETCHES_MAX {
            self.end_object(number, ObjectChange::Gone);
            return self.tell_after.push(Event::ObjectFailed { id, reason: ObjectFailure::Damaged });
        }
        pending.fetches += 1;
        pending.held.clear();
        pending.row.size = 0;
        pending.is_on_link = false;
        self.changes.objects.push((number, ObjectChange::Reset));
    }

    /// The other end has said how much it holds.
    pub(super) fn object_progress(&mut self, transfer: Transfer, held_bytes: u64) {
        if let Some((_, pending)) = self.objects.of(transfer) {
            let ObjectRow { id, size, .. } = pending.row;
            self.tell(Event::ObjectProgress { id, held_bytes, size });
        }
    }

    /// How much of a fetched object is here, once it is durable.
    pub(super) fn fetch_progress(&mut self, transfer: Transfer) {
        if let Some((_, pending)) = self.objects.of(transfer) {
            let held_bytes = pending.held.iter().map(|range| range.end - range.start).sum();
            let ObjectRow { id, size, .. } = pending.row;
            self.tell(Event::ObjectProgress { id, held_bytes, size });
        }
    }
}
