//! Objects in memory: each a slice of its whole size, and which of its bytes are held.

use std::cmp::max;
use std::ops::Range;

use bytes::Bytes;
use rangemap::RangeSet;
use thinpost_wire::ids::{AccountKey, ObjectId};
use thinpost_wire::limits::OBJECT_BYTES_MAX;

use super::State;
use crate::store::{DeviceNo, Done, ObjectNo, ObjectRecord, Refusal, RelayTime, StoreConfig, Verdict};

#[derive(Clone, Debug)]
pub(super) struct Object {
    account: AccountKey,
    id: ObjectId,
    deadline: RelayTime,
    is_complete: bool,
    bytes: Vec<u8>,
    held: RangeSet<u64>,
}

impl Object {
    pub(super) fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn is_whole(&self) -> bool {
        !self.held.gaps(&(0..self.size())).any(|_| true)
    }

    fn record(&self, number: ObjectNo) -> ObjectRecord {
        ObjectRecord {
            number,
            size: self.size(),
            is_complete: self.is_complete,
            deadline: self.deadline,
            held: self.held.clone(),
        }
    }

    fn put(&mut self, offset: u64, bytes: &[u8], ranges_max: u32) -> Verdict {
        let end = offset.checked_add(bytes.len() as u64).filter(|end| *end <= self.size());
        let piece = offset..end.ok_or(Refusal::ObjectConflict)?;
        if self.is_complete || piece.is_empty() {
            return Ok(Done::ChunkPut);
        }
        let mut held = self.held.clone();
        held.insert(piece.clone());
        if held.len() > ranges_max as usize && held.len() > self.held.len() {
            return Err(Refusal::ObjectScattered);
        }
        for Range { start, end } in self.held.gaps(&piece) {
            let new = &bytes[(start - offset) as usize..(end - offset) as usize];
            self.bytes[start as usize..end as usize].copy_from_slice(new);
        }
        self.held = held;
        Ok(Done::ChunkPut)
    }
}

impl State {
    /// Sizes of all objects, bytes.
    pub(super) fn object_bytes(&self) -> u64 {
        self.objects.values().map(Object::size).sum()
    }

    pub(super) fn open_object(
        &mut self,
        device: DeviceNo,
        id: ObjectId,
        size: u64,
        lifetime_s: u32,
        config: &StoreConfig,
    ) -> Verdict {
        let account = self.device(device)?.record.account;
        let deadline = self.clock.after_s(lifetime_s.min(config.lifetime_s_max).into());
        let mut of_account = self.objects.iter_mut().filter(|(_, object)| object.account == account);
        if let Some((number, known)) = of_account.find(|(_, object)| object.id == id) {
            if known.size() != size {
                return Err(Refusal::ObjectConflict);
            }
            known.deadline = max(known.deadline, deadline);
            return Ok(Done::ObjectOpened { object: *number, is_complete: known.is_complete });
        }
        if size == 0 || size > config.objects.object_bytes_max.min(OBJECT_BYTES_MAX) {
            return Err(Refusal::ObjectTooLong);
        }
        let sizes: Vec<u64> =
            self.objects.values().filter(|object| object.account == account).map(Object::size).collect();
        if sizes.len() >= config.objects.objects_max as usize
            || sizes.iter().sum::<u64>() + size > config.objects.bytes_max
        {
            return Err(Refusal::ObjectQuota);
        }
        if self.all_bytes() + size > config.bytes_max {
            return Err(Refusal::StoreFull);
        }
        self.object += 1;
        let number = ObjectNo(self.object);
        let (bytes, held) = (vec![0; size as usize], RangeSet::new());
        self.objects.insert(number, Object { account, id, deadline, is_complete: false, bytes, held });
        Ok(Done::ObjectOpened { object: number, is_complete: false })
    }

    pub(super) fn put_chunk(
        &mut self,
        number: ObjectNo,
        offset: u64,
        bytes: &[u8],
        config: &StoreConfig,
    ) -> Verdict {
        let object = self.objects.get_mut(&number).ok_or(Refusal::UnknownObject)?;
        object.put(offset, bytes, config.object_ranges_max)
    }

    pub(super) fn complete_object(&mut self, number: ObjectNo) -> Verdict {
        let object = self.objects.get_mut(&number).ok_or(Refusal::UnknownObject)?;
        if !object.is_whole() {
            return Err(Refusal::ObjectIncomplete);
        }
        object.is_complete = true;
        Ok(Done::ObjectCompleted)
    }

    pub(super) fn drop_object(&mut self, number: ObjectNo) -> Verdict {
        self.objects.remove(&number);
        Ok(Done::ObjectDropped)
    }

    /// Removes up to so many objects that have expired; how many, and whether more have.
    pub(super) fn expire_objects(&mut self, objects_max: usize) -> (usize, bool) {
        let expired =
            |(number, object): (&ObjectNo, &Object)| (object.deadline <= self.clock).then_some(*number);
        let due: Vec<_> = self.objects.iter().filter_map(expired).collect();
        let removed = due.len().min(objects_max);
        for number in &due[..removed] {
            self.objects.remove(number);
        }
        (removed, removed < due.len())
    }

    pub(super) fn object(&self, account: &AccountKey, id: &ObjectId) -> Option<ObjectRecord> {
        let mut named = self.objects.iter().filter(|(_, object)| object.id == *id);
        named.find(|(_, object)| object.account == *account).map(|(number, object)| object.record(*number))
    }

    pub(super) fn find_object(&self, id: &ObjectId) -> Option<ObjectRecord> {
        let named = self.objects.iter().filter(|(_, object)| object.id == *id && object.is_complete);
        let longest = named.max_by_key(|(number, object)| (object.deadline, **number));
        longest.map(|(number, object)| object.record(*number))
    }

    pub(super) fn object_held(&self, number: ObjectNo) -> RangeSet<u64> {
        self.objects.get(&number).map(|object| object.held.clone()).unwrap_or_default()
    }

    pub(super) fn read_object(&self, number: ObjectNo, offset: u64, bytes_max: usize) -> Bytes {
        let Some(object) = self.objects.get(&number) else { return Bytes::new() };
        let Some(range) = object.held.get(&offset) else { return Bytes::new() };
        let held = &object.bytes[offset as usize..range.end as usize];
        Bytes::copy_from_slice(&held[..held.len().min(bytes_max)])
    }

    pub(super) fn object_digest(&self, number: ObjectNo) -> Option<ObjectId> {
        let object = self.objects.get(&number).filter(|object| object.is_whole())?;
        Some(ObjectId::of(&object.bytes))
    }
}
