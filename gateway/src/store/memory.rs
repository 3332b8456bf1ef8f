//! A store in memory: what a store is, said in the plainest way, for tests and as the model that other
//! backends are compared with. Nothing survives its end.

mod objects;
mod restored;

use std::cmp::max;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use rangemap::RangeSet;
use thinpost_wire::ids::{AccountKey, DeviceKey, Incarnation, ObjectId, OneTimeKey, Position, StoreId};
use thinpost_wire::token::{MailboxAddress, MailboxSecret, Token, TokenId};

use self::objects::Object;
use super::sessions;
use super::types::Order;
use super::{
    Append, Counts, DeviceNo, DeviceRecord, Done, Entry, HandleTables, Leap, Lineage, MailboxUsage, ObjectNo,
    ObjectRecord, Op, Refusal, Register, RelayTime, Store, StoreConfig, StoreError, TableTail, Usage,
    Verdict,
};

/// A [`Store`] that forgets everything when it is dropped.
#[derive(Debug)]
pub struct MemoryStore {
    config: StoreConfig,
    lineage: Lineage,
    state: Mutex<State>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new(config: StoreConfig, store_id: StoreId) -> Self {
        Self { config, lineage: Lineage::new(store_id), state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Clone, Debug, Default)]
struct State {
    clock: RelayTime,
    leap: Option<Leap>,
    position: u64,
    mailboxes: BTreeMap<AccountKey, Mailbox>,
    devices: BTreeMap<DeviceNo, Device>,
    device_keys: BTreeMap<DeviceKey, DeviceNo>,
    invites: BTreeMap<[u8; 8], u32>,
    object: u64,
    objects: BTreeMap<ObjectNo, Object>,
    session: u64,
    sessions: BTreeMap<Vec<u8>, (u64, Bytes)>,
}

#[derive(Clone, Debug)]
struct Mailbox {
    number: u32,
    /// It came back from a backup, and no device of its account since.
    is_closed: bool,
    secret: MailboxSecret,
    revoked: BTreeSet<TokenId>,
    queue: BTreeMap<Position, Entry>,
}

#[derive(Clone, Debug)]
struct Device {
    record: DeviceRecord,
    /// It came back from a backup, and has not registered since.
    is_away: bool,
    tables: HandleTables,
    keys: BTreeSet<OneTimeKey>,
    incarnations: BTreeMap<Incarnation, Accepted>,
}

#[derive(Clone, Debug, Default)]
struct Accepted {
    floor: u64,
    last_used: RelayTime,
    digests: BTreeMap<u64, [u8; 8]>,
}

impl Mailbox {
    fn usage(&self) -> MailboxUsage {
        let of = |entries: &mut dyn Iterator<Item = &Entry>| {
            entries.fold(Usage::default(), |sum, entry| Usage {
                entries: sum.entries + 1,
                bytes: sum.bytes + entry.body.len() as u64,
            })
        };
        MailboxUsage {
            all: of(&mut self.queue.values()),
            requests: of(&mut self.queue.values().filter(|entry| entry.is_request)),
        }
    }

    fn put_secret(&mut self, secret: MailboxSecret) {
        self.is_closed = false;
        if self.secret != secret {
            self.secret = secret;
            self.revoked.clear();
        }
    }

    fn wants(&self, token: Token) -> bool {
        token == Token::mint(&self.secret, token.id()) && !self.revoked.contains(&token.id())
    }

    /// What a new envelope replaces.
    fn replaced(&self, append: &Append) -> Option<Position> {
        append.collapse?;
        let same = |entry: &Entry| {
            entry.collapse == append.collapse
                && entry.sender == append.sender
                && (append.sender.is_some() || entry.submitter == append.submitter())
        };
        self.queue.iter().find(|(_, entry)| same(entry)).map(|(position, _)| *position)
    }
}

impl State {
    fn apply(&mut self, op: &Op, barred: Option<Refusal>, config: &StoreConfig) -> Verdict {
        match op {
            Op::Register(register) => self.register(register, config),
            Op::Append(append) => self.append(append, barred, config),
            Op::Settle { device, upto } => self.settle(*device, *upto, config),
            Op::Seen { device } => {
                let now = self.clock;
                self.device(*device)?.record.last_seen = now;
                Ok(Done::Seen)
            }
            Op::PutTable { device, from, tail } => self.device(*device)?.put_table(*from, tail, config),
            Op::Revoke { device, id } => self.revoke(*device, *id, config),
            Op::PutKeys { device, replaces, keys } => self.put_keys(*device, *replaces, keys, config),
            Op::Claim { device, address } => self.claim(*device, address, config),
            Op::OpenObject { device, id, size, lifetime_s } => {
                self.open_object(*device, *id, *size, *lifetime_s, config)
            }
            Op::PutChunk { object, offset, bytes } => self.put_chunk(*object, *offset, bytes, config),
            Op::CompleteObject { object } => self.complete_object(*object),
            Op::DropObject { object } => self.drop_object(*object),
            Op::Sweep { rows_max } => Ok(self.sweep(*rows_max as usize, config)),
        }
    }

    fn device(&mut self, number: DeviceNo) -> Result<&mut Device, Refusal> {
        self.devices.get_mut(&number).ok_or(Refusal::UnknownDevice)
    }

    /// Bytes of all bodies, and of all objects.
    fn all_bytes(&self) -> u64 {
        let bodies = self.mailboxes.values().map(|mailbox| mailbox.usage().all.bytes);
        bodies.sum::<u64>() + self.object_bytes()
    }

    fn register(&mut self, register: &Register, config: &StoreConfig) -> Verdict {
        let known = self.device_keys.get(&register.device).and_then(|number| self.devices.get(number));
        if let Some(Device { record, .. }) = known {
            if record.account != register.account {
                return Err(Refusal::DeviceOfAnother);
            }
            let (device, mailbox) = (record.number, record.mailbox);
            if let Some(mailbox) = self.mailboxes.get_mut(&register.account) {
                mailbox.put_secret(register.secret);
            }
            let new = self.come_back(device, register.read, config);
            return Ok(Done::Registered { device, mailbox, new });
        }
        let mailbox = match self.mailboxes.get_mut(&register.account) {
            Some(mailbox) => {
                let devices =
                    self.devices.values().filter(|device| device.record.account == register.account);
                if devices.count() >= config.devices_max as usize {
                    return Err(Refusal::TooManyDevices);
                }
                mailbox.put_secret(register.secret);
                mailbox.number
            }
            None => {
                if let Some(invite) = register.invite {
                    let used = self.invites.entry(invite.id).or_default();
                    if *used >= invite.uses_max {
                        return Err(Refusal::InviteSpent);
                    }
                    *used += 1;
                }
                let number = self.mailboxes.len() as u32 + 1;
                let mailbox = Mailbox {
                    number,
                    is_closed: false,
                    secret: register.secret,
                    revoked: BTreeSet::new(),
                    queue: BTreeMap::new(),
                };
                self.mailboxes.insert(register.account, mailbox);
                number
            }
        };
        let number = DeviceNo(self.devices.len() as u32 + 1);
        let record = DeviceRecord {
            number,
            account: register.account,
            mailbox,
            cursor: Position(0),
            last_seen: self.clock,
            last: None,
        };
        let device = Device {
            record,
            is_away: false,
            tables: HandleTables::default(),
            keys: BTreeSet::new(),
            incarnations: BTreeMap::new(),
        };
        self.devices.insert(number, device);
        self.device_keys.insert(register.device, number);
        Ok(Done::Registered { device: number, mailbox, new: true })
    }

    fn append(&mut self, append: &Append, barred: Option<Refusal>, config: &StoreConfig) -> Verdict {
        let all_bytes = self.all_bytes();
        let device = self.devices.get_mut(&append.device).ok_or(Refusal::UnknownDevice)?;
        if let Some(accepted) = device.incarnations.get(&append.origin.incarnation) {
            match accepted.digests.get(&append.origin.sequence) {
                Some(digest) if *digest == append.digest => return Ok(Done::Repeat),
                Some(_) => return Err(Refusal::Conflict),
                None if append.origin.sequence < accepted.floor => return Err(Refusal::Stale),
                None => {}
            }
        }
        if append.body.len() > config.body_bytes_max {
            return Err(Refusal::TooLong);
        }
        if let Some(refusal) = barred {
            return Err(refusal);
        }
        let mailbox = self.mailboxes.get_mut(&append.mailbox).filter(|mailbox| !mailbox.is_closed);
        let mailbox = mailbox.ok_or(Refusal::NoSuchMailbox)?;
        if !mailbox.wants(append.token) {
            return Err(Refusal::NotWanted);
        }
        // Tried out: what does not fit is put back.
        let replaced = mailbox.replaced(append).and_then(|position| mailbox.queue.remove_entry(&position));
        let freed_bytes = replaced.as_ref().map_or(0, |(_, entry)| entry.body.len() as u64);
        let MailboxUsage { all, requests } = mailbox.usage();
        let added = append.body.len() as u64;
        let is_request = append.token.id().is_open();
        let is_full = all.entries >= config.quota.entries_max
            || all.bytes + added > config.quota.bytes_max
            || is_request && requests.entries >= config.requests.entries_max
            || is_request && requests.bytes + added > config.requests.bytes_max;
        let store_is_full = all_bytes - freed_bytes + added > config.bytes_max;
        if is_full || store_is_full {
            mailbox.queue.extend(replaced);
            return Err(if is_full { Refusal::MailboxFull } else { Refusal::StoreFull });
        }
        device.remember(append, self.clock, config);
        self.position = Leap::next(self.leap, self.position);
        let position = Position(self.position);
        let lifetime_s = append.lifetime_s.min(config.lifetime_s_max);
        let entry = Entry {
            sender: append.sender,
            flags: append.flags,
            is_request,
            submitter: append.submitter(),
            deadline: self.clock.after_s(lifetime_s.into()),
            stored_at: self.clock,
            age_s: append.age_s,
            collapse: append.collapse,
            body: append.body.clone(),
        };
        mailbox.queue.insert(position, entry);
        Ok(Done::Accepted { position })
    }

    fn revoke(&mut self, number: DeviceNo, id: TokenId, config: &StoreConfig) -> Verdict {
        let account = self.device(number)?.record.account;
        let Some(mailbox) = self.mailboxes.get_mut(&account) else { return Err(Refusal::NoSuchMailbox) };
        let is_full = mailbox.revoked.len() >= config.revocations_max as usize;
        if is_full && !mailbox.revoked.contains(&id) {
            return Err(Refusal::RevocationsFull);
        }
        mailbox.revoked.insert(id);
        Ok(Done::Revoked)
    }

    fn put_keys(
        &mut self,
        number: DeviceNo,
        replaces: bool,
        keys: &[OneTimeKey],
        config: &StoreConfig,
    ) -> Verdict {
        let kept = &mut self.device(number)?.keys;
        if replaces {
            kept.clear();
        }
        for key in keys {
            if kept.len() < config.keys_max {
                kept.insert(*key);
            }
        }
        Ok(Done::KeysPut)
    }

    fn claim(&mut self, number: DeviceNo, address: &MailboxAddress, config: &StoreConfig) -> Verdict {
        self.device(number)?;
        let mailbox = self.mailboxes.get(&address.mailbox).filter(|mailbox| !mailbox.is_closed);
        let mailbox = mailbox.ok_or(Refusal::NoSuchMailbox)?;
        if !mailbox.wants(address.token) {
            return Err(Refusal::NotWanted);
        }
        let (now, lifetime_s) = (self.clock, u64::from(config.lifetime_s_max));
        let mut live = self.devices.values_mut().filter(|device| {
            device.record.account == address.mailbox && device.record.last_seen.after_s(lifetime_s) > now
        });
        Ok(Done::Claimed { key: live.find_map(|device| device.keys.pop_first()) })
    }

    fn settle(&mut self, number: DeviceNo, upto: Position, config: &StoreConfig) -> Verdict {
        let (now, newest) = (self.clock, Position(self.position));
        let record = &mut self.device(number)?.record;
        record.cursor = max(record.cursor, upto.min(newest));
        record.last_seen = now;
        let (cursor, account) = (record.cursor, record.account);
        Ok(Done::Settled { account, cursor, released: self.trim(&account, config) })
    }

    /// Lets go of what every live device of an account has settled.
    fn trim(&mut self, account: &AccountKey, config: &StoreConfig) -> u32 {
        let now = self.clock;
        let devices = self.devices.values().map(|device| &device.record);
        let live = devices.filter(|device| {
            device.account == *account && device.last_seen.after_s(config.lifetime_s_max.into()) > now
        });
        let Some(settled) = live.map(|device| device.cursor).min() else { return 0 };
        let Some(mailbox) = self.mailboxes.get_mut(account) else { return 0 };
        let before = mailbox.queue.len();
        mailbox.queue.retain(|position, _| *position > settled);
        (before - mailbox.queue.len()) as u32
    }

    fn sweep(&mut self, rows_max: usize, config: &StoreConfig) -> Done {
        let now = self.clock;
        let mut due = Vec::new();
        for (account, mailbox) in &self.mailboxes {
            for (position, entry) in mailbox.queue.iter().filter(|(_, entry)| entry.deadline <= now) {
                due.push((entry.deadline, *position, *account));
            }
        }
        due.sort_unstable();
        let expired = due.len().min(rows_max);
        for (_, position, account) in &due[..expired] {
            if let Some(mailbox) = self.mailboxes.get_mut(account) {
                mailbox.queue.remove(position);
            }
        }
        let (objects, has_more_objects) = self.expire_objects(rows_max - expired);
        let expired_in_all = (expired + objects) as u32;
        if expired < due.len() || has_more_objects {
            return Done::Swept { removed: expired_in_all, more: true };
        }
        let accounts: Vec<_> = self.mailboxes.keys().copied().collect();
        let released: u32 = accounts.iter().map(|account| self.trim(account, config)).sum();
        let lifetime_s = u64::from(config.lifetime_s_max);
        for device in self.devices.values_mut() {
            device.incarnations.retain(|_, accepted| accepted.last_used.after_s(lifetime_s) > now);
        }
        Done::Swept { removed: expired_in_all + released, more: false }
    }
}

impl Device {
    fn remember(&mut self, append: &Append, now: RelayTime, config: &StoreConfig) {
        let incarnation = append.origin.incarnation;
        self.record.last = Some(incarnation.into());
        if !self.incarnations.contains_key(&incarnation)
            && self.incarnations.len() >= config.incarnations_max as usize
        {
            let by_use = self.incarnations.iter().map(|(key, accepted)| (accepted.last_used, *key));
            if let Some((_, oldest)) = by_use.min() {
                self.incarnations.remove(&oldest);
            }
        }
        let kept = config.digests_kept.max(1) as usize;
        let accepted = self.incarnations.entry(incarnation).or_default();
        accepted.last_used = now;
        accepted.digests.insert(append.origin.sequence, append.digest);
        if accepted.digests.len() > kept {
            accepted.digests.pop_first();
        }
        if accepted.digests.len() == kept
            && let Some((smallest, _)) = accepted.digests.first_key_value()
        {
            accepted.floor = *smallest;
        }
    }

    fn put_table(&mut self, from: u16, tail: &TableTail, config: &StoreConfig) -> Verdict {
        let HandleTables { to_relay, from_relay } = &mut self.tables;
        let entries = match tail {
            TableTail::ToRelay(_) => to_relay.len(),
            TableTail::FromRelay(_) => from_relay.len(),
        };
        if usize::from(from) > entries {
            return Err(Refusal::TableGap { entries: entries as u16 });
        }
        if usize::from(from) + tail.len() > usize::from(config.handles_max) {
            return Err(Refusal::TableFull);
        }
        match tail {
            TableTail::ToRelay(addresses) => {
                to_relay.truncate(from.into());
                to_relay.extend_from_slice(addresses);
            }
            TableTail::FromRelay(accounts) => {
                from_relay.truncate(from.into());
                from_relay.extend_from_slice(accounts);
            }
        }
        Ok(Done::TablePut)
    }
}

impl Store for MemoryStore {
    fn apply(&self, ops: &[Op], now: RelayTime) -> Result<Vec<Verdict>, StoreError> {
        let mut state = self.state();
        state.clock = max(state.clock, now);
        let mut order = Order::default();
        let carry_out = |op| {
            let verdict = state.apply(op, order.bars(op), &self.config);
            order.note(op, Some(&verdict));
            verdict
        };
        Ok(ops.iter().map(carry_out).collect())
    }

    fn device(&self, key: &DeviceKey) -> Result<Option<DeviceRecord>, StoreError> {
        let state = self.state();
        let number = state.device_keys.get(key);
        let device = number.and_then(|number| state.devices.get(number)).filter(|device| !device.is_away);
        Ok(device.map(|device| device.record))
    }

    fn is_open(&self, mailbox: &AccountKey) -> Result<bool, StoreError> {
        Ok(self.state().mailboxes.get(mailbox).is_some_and(|mailbox| !mailbox.is_closed))
    }

    fn read(
        &self,
        mailbox: &AccountKey,
        after: Position,
        entries_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<(Position, Entry)>, StoreError> {
        let state = self.state();
        let Some(mailbox) = state.mailboxes.get(mailbox) else { return Ok(Vec::new()) };
        let mut bytes = 0;
        let later = mailbox.queue.range((Bound::Excluded(after), Bound::Unbounded));
        let fits = later.take(entries_max).enumerate().take_while(|(i, (_, entry))| {
            bytes += entry.body.len();
            *i == 0 || bytes <= bytes_max
        });
        Ok(fits.map(|(_, (position, entry))| (*position, entry.clone())).collect())
    }

    fn mailbox_usage(&self, mailbox: &AccountKey) -> Result<Option<MailboxUsage>, StoreError> {
        Ok(self.state().mailboxes.get(mailbox).map(Mailbox::usage))
    }

    fn admits(&self, address: &MailboxAddress) -> Result<bool, StoreError> {
        let state = self.state();
        let mailbox = state.mailboxes.get(&address.mailbox).filter(|mailbox| !mailbox.is_closed);
        Ok(mailbox.is_some_and(|mailbox| mailbox.wants(address.token)))
    }

    fn begin_run(&self, unix_s: u64) -> Result<(), StoreError> {
        let mut state = self.state();
        let since = state.leap.map(|leap| leap.since_unix_s());
        state.leap = Some(Leap::at(unix_s, Position(state.position), since));
        Ok(())
    }

    fn leap(&self) -> Option<Leap> {
        self.state().leap
    }

    fn newest(&self) -> Result<Position, StoreError> {
        Ok(Position(self.state().position))
    }

    fn tables(&self, device: DeviceNo) -> Result<HandleTables, StoreError> {
        Ok(self.state().devices.get(&device).map(|device| device.tables.clone()).unwrap_or_default())
    }

    fn keys_left(&self, device: DeviceNo) -> Result<usize, StoreError> {
        Ok(self.state().devices.get(&device).map_or(0, |device| device.keys.len()))
    }

    fn put_session(&self, key: &[u8], value: Bytes) -> bool {
        if !sessions::fits(key, &value) {
            return false;
        }
        let mut state = self.state();
        state.session += 1;
        let place = state.session;
        state.sessions.insert(key.to_vec(), (place, value));
        if state.sessions.len() as u64 > self.config.sessions_max {
            let oldest = state.sessions.iter().min_by_key(|(_, (place, _))| *place);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                state.sessions.remove(&oldest);
            }
        }
        true
    }

    fn take_session(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.state().sessions.remove(key).map(|(_, value)| value))
    }

    fn object(&self, account: &AccountKey, id: &ObjectId) -> Result<Option<ObjectRecord>, StoreError> {
        Ok(self.state().object(account, id))
    }

    fn find_object(&self, id: &ObjectId) -> Result<Option<ObjectRecord>, StoreError> {
        Ok(self.state().find_object(id))
    }

    fn object_held(&self, object: ObjectNo) -> Result<RangeSet<u64>, StoreError> {
        Ok(self.state().object_held(object))
    }

    fn read_object(&self, object: ObjectNo, offset: u64, bytes_max: usize) -> Result<Bytes, StoreError> {
        Ok(self.state().read_object(object, offset, bytes_max))
    }

    fn object_digest(&self, object: ObjectNo) -> Result<Option<ObjectId>, StoreError> {
        Ok(self.state().object_digest(object))
    }

    fn counts(&self) -> Result<Counts, StoreError> {
        let state = self.state();
        let usages = state.mailboxes.values().map(|mailbox| mailbox.usage().all);
        let (entries, bytes) =
            usages.fold((0, 0), |sum, usage| (sum.0 + u64::from(usage.entries), sum.1 + usage.bytes));
        Ok(Counts {
            accounts: state.mailboxes.len() as u64,
            devices: state.devices.len() as u64,
            entries,
            bytes,
            objects: state.objects.len() as u64,
            object_bytes: state.object_bytes(),
        })
    }

    fn lineage(&self) -> &Lineage {
        &self.lineage
    }

    fn relay_clock(&self) -> Result<RelayTime, StoreError> {
        Ok(self.state().clock)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn empty(config: StoreConfig) -> MemoryStore {
        MemoryStore::new(config, StoreId([1; 8]))
    }

    impl crate::store::conformance::Restorable for MemoryStore {
        fn back(&self, id: StoreId) -> Self {
            self.restored(id)
        }
    }

    crate::store::conformance::conformance_tests!(empty);
}
