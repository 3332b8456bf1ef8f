//! Objects on their way to the relay, and from it. `PROTOCOL.md`, section "Objects", has the rules.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;

use bytes::Bytes;
use rangemap::RangeSet;
use thinpost_wire::batch::Transfer;
use thinpost_wire::frame::{HeldRanges, ObjectRefusal, ToDevice};
use thinpost_wire::ids::ObjectId;
use thinpost_wire::limits::TRANSFERS_MAX;

use super::end::{End, Misbehaviour};
use super::{Asked, Session, What};
use crate::store::{Done, ObjectNo, Op, Refusal, Verdict};

/// So much of an object is read at a time where there is no room for more, bytes: some chunks, so that a download goes on while others
/// have all that links may hold.
const LITTLE_BYTES: usize = 4 * 1024;

/// The transfers of one link.
#[derive(Debug, Default)]
pub(super) struct Objects {
    /// The last transfer that the device has opened.
    last: u32,
    puts: BTreeMap<Transfer, Put>,
    gets: BTreeMap<Transfer, ObjectNo>,
    /// Opened, and not answered by the store.
    opening: BTreeSet<Transfer>,
    /// What has come and is to be stored.
    chunks: VecDeque<(Transfer, u64, Bytes)>,
    /// Objects that are all here. The store hears of each, whatever becomes of its transfer: it would be read again otherwise.
    whole: VecDeque<Whole>,
}

/// An object that is all here, and has been read.
#[derive(Clone, Copy, Debug)]
struct Whole {
    transfer: Transfer,
    object: ObjectNo,
    /// Whether it is what its name says.
    is_sound: bool,
}

impl Whole {
    fn op(self) -> (Op, ObjectWork) {
        let Self { transfer, object, is_sound } = self;
        if is_sound {
            (Op::CompleteObject { object }, ObjectWork::Complete { transfer })
        } else {
            (Op::DropObject { object }, ObjectWork::Drop { transfer })
        }
    }
}

/// An object that comes.
#[derive(Debug)]
struct Put {
    id: ObjectId,
    object: ObjectNo,
    size: u64,
    held: RangeSet<u64>,
}

/// What the store was asked for an object.
#[derive(Debug)]
pub(super) enum ObjectWork {
    Open {
        transfer: Transfer,
        id: ObjectId,
        size: u64,
    },
    Chunk {
        transfer: Transfer,
        bytes: Range<u64>,
    },
    Complete {
        transfer: Transfer,
    },
    /// It is not what its name says.
    Drop {
        transfer: Transfer,
    },
}

impl Objects {
    /// A chunk has come.
    pub(super) fn take(&mut self, transfer: Transfer, offset: u64, bytes: Bytes) {
        self.chunks.push_back((transfer, offset, bytes));
    }

    /// A transfer has ended, and with it what has come of it: the link counts that no more.
    fn end(&mut self, transfer: Transfer) {
        self.puts.remove(&transfer);
        self.gets.remove(&transfer);
        self.opening.remove(&transfer);
        self.chunks.retain(|(of, ..)| *of != transfer);
    }

    /// Ops for what waits to be stored, with what to do about their verdicts.
    pub(super) fn next_op(&mut self) -> Option<(Op, ObjectWork)> {
        if let Some(whole) = self.whole.pop_front() {
            return Some(whole.op());
        }
        while let Some((transfer, offset, bytes)) = self.chunks.pop_front() {
            let Some(&Put { object, .. }) = self.puts.get(&transfer) else { continue };
            let range = offset..offset + bytes.len() as u64;
            return Some((
                Op::PutChunk { object, offset, bytes },
                ObjectWork::Chunk { transfer, bytes: range },
            ));
        }
        None
    }

    /// What the store is still to hear of objects that are all here.
    pub(super) fn last_ops(&mut self) -> impl Iterator<Item = Op> {
        self.whole.drain(..).map(|whole| whole.op().0)
    }

    fn open(&mut self, transfer: Transfer) -> Result<bool, Misbehaviour> {
        if transfer.0 != self.last + 1 {
            return Err(Misbehaviour::Transfer(transfer));
        }
        self.last = transfer.0;
        Ok(self.puts.len() + self.gets.len() + self.opening.len() < TRANSFERS_MAX)
    }
}

impl Session {
    /// The device wants to hand over an object.
    pub(super) fn put_object(
        &mut self,
        transfer: Transfer,
        id: ObjectId,
        size: u64,
        lifetime_s: Option<u32>,
    ) -> Result<(Option<Op>, What), End> {
        let device = self.number()?;
        if !self.objects.open(transfer)? {
            self.refuse_object(transfer, ObjectRefusal::TooMany);
            return Ok((None, What::Housekeeping));
        }
        self.objects.opening.insert(transfer);
        let op = Op::OpenObject { device, id, size, lifetime_s: lifetime_s.unwrap_or(u32::MAX) };
        Ok((Some(op), What::Object(ObjectWork::Open { transfer, id, size })))
    }

    /// The device asks for an object, or for what it lacks of it.
    pub(super) async fn get_object(
        &mut self,
        transfer: Transfer,
        id: ObjectId,
        held: HeldRanges,
    ) -> Result<(), End> {
        self.number()?;
        if !self.objects.open(transfer)? {
            self.refuse_object(transfer, ObjectRefusal::TooMany);
            return Ok(());
        }
        let Some(record) = self.shared.read(move |store| store.find_object(&id)).await? else {
            self.refuse_object(transfer, ObjectRefusal::Unknown);
            return Ok(());
        };
        let held = held.to_set();
        if held.last().is_some_and(|range| range.end > record.size) {
            self.refuse_object(transfer, ObjectRefusal::Damaged);
            return Ok(());
        }
        let opened = ToDevice::ObjectOpened { transfer, size: record.size, held: HeldRanges::default() };
        self.channel.link().push(opened.encode());
        self.channel.link().send_object(transfer, record.size, held);
        self.objects.gets.insert(transfer, record.number);
        Ok(())
    }

    /// The device has what it wanted, or wants it no more.
    pub(super) fn end_transfer(&mut self, transfer: Transfer) {
        self.channel.link().stop_object(transfer);
        self.objects.end(transfer);
    }

    fn refuse_object(&mut self, transfer: Transfer, reason: ObjectRefusal) {
        self.end_transfer(transfer);
        self.channel.link().push(ToDevice::ObjectRefused { transfer, reason }.encode());
    }

    /// Asks the store for what has come of objects, behind what `asked` names.
    pub(super) fn store_objects(&mut self, ops: &mut Vec<Op>, asked: &mut Vec<Asked>, ops_max: usize) {
        let upto = asked.last().map_or(self.processed, |last| last.upto);
        while ops.len() < ops_max
            && let Some((op, work)) = self.objects.next_op()
        {
            ops.push(op);
            asked.push(Asked { upto, what: What::Object(work) });
        }
    }

    /// The store has spoken.
    pub(super) async fn object_answered(&mut self, work: ObjectWork, verdict: Verdict) -> Result<(), End> {
        match work {
            ObjectWork::Open { transfer, id, size } => {
                if !self.objects.opening.remove(&transfer) {
                    // The device has ended it meanwhile.
                    return Ok(());
                }
                match verdict {
                    Ok(Done::ObjectOpened { is_complete: true, .. }) => self.stored(transfer),
                    Ok(Done::ObjectOpened { object, .. }) => {
                        self.begin_put(transfer, id, object, size).await?
                    }
                    Ok(_) => {}
                    Err(refusal) => self.refuse_object(transfer, refused(refusal)),
                }
            }
            ObjectWork::Chunk { transfer, bytes } => match verdict {
                Ok(_) => self.hold(transfer, bytes).await?,
                // It comes again, perhaps when what is before it has come.
                Err(Refusal::ObjectScattered) => self.channel.link().release(transfer, bytes),
                Err(refusal) => self.refuse_object(transfer, refused(refusal)),
            },
            // The device has ended it meanwhile.
            ObjectWork::Complete { transfer } | ObjectWork::Drop { transfer }
                if !self.objects.puts.contains_key(&transfer) => {}
            ObjectWork::Complete { transfer } => match verdict {
                Ok(_) => self.stored(transfer),
                Err(refusal) => self.refuse_object(transfer, refused(refusal)),
            },
            ObjectWork::Drop { transfer } => self.refuse_object(transfer, ObjectRefusal::Damaged),
        }
        Ok(())
    }

    async fn begin_put(
        &mut self,
        transfer: Transfer,
        id: ObjectId,
        object: ObjectNo,
        size: u64,
    ) -> Result<(), End> {
        let held = self.shared.read(move |store| store.object_held(object)).await?;
        let stated = HeldRanges::new(&held);
        self.channel.link().push(ToDevice::ObjectOpened { transfer, size, held: stated }.encode());
        self.channel.link().receive_object(transfer, size, held.clone()).map_err(Misbehaviour::from)?;
        self.objects.puts.insert(transfer, Put { id, object, size, held });
        self.look_at_whole(transfer).await
    }

    async fn hold(&mut self, transfer: Transfer, bytes: Range<u64>) -> Result<(), End> {
        let Some(put) = self.objects.puts.get_mut(&transfer) else { return Ok(()) };
        put.held.insert(bytes.clone());
        self.channel.hold_object(transfer, bytes);
        self.look_at_whole(transfer).await
    }

    /// If all of an object is here, is it what its name says?
    async fn look_at_whole(&mut self, transfer: Transfer) -> Result<(), End> {
        let Some(put) = self.objects.puts.get(&transfer) else { return Ok(()) };
        if put.held.get(&0).is_none_or(|first| first.end != put.size) {
            return Ok(());
        }
        let (id, object) = (put.id, put.object);
        let is_sound = match self.objects.whole.iter().find(|whole| whole.object == object) {
            Some(whole) => whole.is_sound,
            None => self.shared.object_digest(object).await? == Some(id),
        };
        self.objects.whole.push_back(Whole { transfer, object, is_sound });
        Ok(())
    }

    fn stored(&mut self, transfer: Transfer) {
        self.end_transfer(transfer);
        self.channel.link().push(ToDevice::ObjectStored { transfer }.encode());
    }

    /// Hands the link what it wants of the objects that are asked for.
    pub(super) async fn feed(&mut self) -> Result<(), End> {
        while let Some(want) = self.channel.link().want() {
            let transfer = want.transfer;
            let Some(&object) = self.objects.gets.get(&transfer) else {
                self.channel.link().stop_object(transfer);
                continue;
            };
            let (offset, len) = (want.bytes.start, (want.bytes.end - want.bytes.start) as usize);
            let little = len.min(LITTLE_BYTES);
            let is_idle = self.channel.link().holds_bytes() < LITTLE_BYTES;
            let len = match [len, little].into_iter().find(|len| self.channel.has_room_left(*len)) {
                Some(len) => len,
                // Others have to make room only if nothing goes on without.
                None if is_idle && self.channel.has_room(little) => little,
                None => {
                    self.is_short_of_room = true;
                    break;
                }
            };
            let bytes = self.shared.read(move |store| store.read_object(object, offset, len)).await?;
            if bytes.is_empty() {
                // Its time is over.
                self.refuse_object(transfer, ObjectRefusal::Unknown);
            } else {
                self.channel.link().supply(transfer, offset, bytes);
            }
        }
        Ok(())
    }
}

/// What the device is told of a refusal.
fn refused(refusal: Refusal) -> ObjectRefusal {
    match refusal {
        Refusal::ObjectTooLong => ObjectRefusal::TooLong,
        Refusal::ObjectQuota => ObjectRefusal::QuotaReached,
        Refusal::ObjectConflict | Refusal::ObjectIncomplete => ObjectRefusal::Damaged,
        Refusal::UnknownObject => ObjectRefusal::Unknown,
        _ => ObjectRefusal::RelayFull,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(objects: &mut Objects, transfer: Transfer, is_sound: bool) {
        let object = ObjectNo(transfer.0.into());
        let id = ObjectId::of(b"an object");
        objects.puts.insert(transfer, Put { id, object, size: 9, held: RangeSet::new() });
        objects.whole.push_back(Whole { transfer, object, is_sound });
    }

    #[test]
    fn what_was_read_is_told_to_the_store_though_its_transfer_has_ended() {
        let mut objects = Objects::default();
        for (number, is_sound) in [(1, true), (2, false), (3, true)] {
            put(&mut objects, Transfer(number), is_sound);
        }
        objects.puts.clear();
        let (first, _) = objects.next_op().unwrap();
        assert!(matches!(first, Op::CompleteObject { object: ObjectNo(1) }));
        let (second, _) = objects.next_op().unwrap();
        assert!(matches!(second, Op::DropObject { object: ObjectNo(2) }));
        // The session ends.
        let last: Vec<_> = objects.last_ops().collect();
        assert!(matches!(last[..], [Op::CompleteObject { object: ObjectNo(3) }]));
        assert!(objects.next_op().is_none());
    }

    #[test]
    fn chunks_of_a_transfer_that_has_ended_are_not_stored() {
        let mut objects = Objects::default();
        put(&mut objects, Transfer(1), true);
        objects.whole.clear();
        for transfer in [1, 2] {
            objects.take(Transfer(transfer), 0, Bytes::from_static(b"chunk"));
        }
        let (op, _) = objects.next_op().unwrap();
        assert!(matches!(op, Op::PutChunk { object: ObjectNo(1), offset: 0, .. }));
        assert!(objects.next_op().is_none());
    }

    #[test]
    fn what_has_come_of_a_transfer_goes_with_it() {
        let mut objects = Objects::default();
        for transfer in [1, 2, 1].map(Transfer) {
            objects.take(transfer, 0, Bytes::from_static(b"a chunk"));
        }
        objects.end(Transfer(1));
        assert_eq!(objects.chunks.iter().map(|(of, ..)| *of).collect::<Vec<_>>(), [Transfer(2)]);
    }
}
