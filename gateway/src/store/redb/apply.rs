//! Ops inside one write transaction. Each checks all it needs before it writes, so that a refusal has
//! changed nothing.

mod keys;
mod objects;
mod register;
mod repeats;
mod rights;
mod sessions;
mod sweep;

use std::cmp::max;
use std::collections::BTreeMap;

use redb::{ReadableTable, ReadableTableMetadata, Table, WriteTransaction};
use thinpost_disk::Left;
use thinpost_wire::ids::{AccountKey, Position};
use thinpost_wire::parcel::ShortIncarnation;
use thinpost_wire::token::ADDRESS_BYTES;

use self::objects::ObjectTables;
use super::objects::ObjectState;
use super::records::{
    ACCEPTED, ACCOUNTS, ADDRESSES, CLOSED, COLLAPSE, DEADLINES, DEVICE_KEYS, DEVICE_TIMERS, DEVICES, Device,
    ENTRIES, EntryHeader, INCARNATION_TIMERS, INCARNATIONS, INVITES, MAILBOXES, META, META_OBJECTS,
    META_PEAK, META_SINCE, META_STATE, ONE_TIME_KEYS, QUEUES, READERS, RETURNING, REVOKED, SECRETS, SENDERS,
    SESSION_ORDER, SESSIONS, State, collapse_scope, decode, encode, entry_head, read_entry,
};
use crate::store::{
    Append, DeviceNo, Done, Leap, MailboxUsage, Op, Quota, Refusal, RelayTime, StoreConfig, StoreError,
    TableTail, Usage, Verdict,
};

type Result<T> = std::result::Result<T, StoreError>;

/// Reads a row of [`MAILBOXES`].
pub(super) fn usage_of(
    (entries, bytes, request_entries, request_bytes): (u32, u64, u32, u64),
) -> MailboxUsage {
    MailboxUsage {
        all: Usage { entries, bytes },
        requests: Usage { entries: request_entries, bytes: request_bytes },
    }
}

/// What an entry takes beside its body, in all tables, bytes: some ten rows of 20 to 100.
const ENTRY_WEIGHT: u64 = 512;

/// About what so many entries take of the file, bytes, with so many of bodies.
pub(super) fn weight_of(bodies_bytes: u64, entries: u64) -> u64 {
    bodies_bytes.saturating_add(entries.saturating_mul(ENTRY_WEIGHT))
}

/// How exactly [`Transaction::peak`] is noted, bytes: a row for each commit would be written otherwise.
const PEAK_STEP: u64 = 64 << 10;

/// A queued entry that makes room for another.
struct Replaced {
    position: u64,
    bytes: u64,
    is_request: bool,
}

fn missing(what: &str, number: impl std::fmt::Display) -> StoreError {
    StoreError::Corrupt(format!("{what} {number} is missing"))
}

/// All tables of a write transaction, open.
pub(super) struct Transaction<'t> {
    config: &'t StoreConfig,
    now: RelayTime,
    before: State,
    state: State,
    object_state_before: ObjectState,
    object_state: ObjectState,
    /// Whether any table was written to.
    changed: bool,
    /// What the disk has left for it.
    left: Left,
    leap: Option<Leap>,
    meta: Table<'t, &'static str, &'static [u8]>,
    accounts: Table<'t, &'static [u8; 32], u32>,
    mailboxes: Table<'t, u32, (u32, u64, u32, u64)>,
    secrets: Table<'t, u32, &'static [u8; 32]>,
    revoked: Table<'t, (u32, u32), ()>,
    /// How many of these a mailbox has, once they were counted.
    revocations: BTreeMap<u32, usize>,
    devices: Table<'t, u32, &'static [u8]>,
    device_keys: Table<'t, &'static [u8; 32], u32>,
    returning: Table<'t, &'static [u8; 32], u32>,
    closed: Table<'t, u32, ()>,
    readers: Table<'t, (u32, u32), ()>,
    invites: Table<'t, u64, u32>,
    entries: Table<'t, u64, &'static [u8]>,
    queues: Table<'t, (u32, u64), ()>,
    deadlines: Table<'t, (u64, u64), ()>,
    collapse: Table<'t, (u32, &'static [u8], u64), u64>,
    accepted: Table<'t, (u32, u64, u64), u64>,
    incarnations: Table<'t, (u32, u64), (u64, u32, u64, u64)>,
    device_timers: Table<'t, (u64, u32), ()>,
    incarnation_timers: Table<'t, (u64, u32, u64), ()>,
    one_time_keys: Table<'t, (u32, &'static [u8; 32]), ()>,
    addresses: Table<'t, (u32, u16), &'static [u8; ADDRESS_BYTES]>,
    senders: Table<'t, (u32, u16), &'static [u8; 32]>,
    objects: ObjectTables<'t>,
    sessions: Table<'t, &'static [u8], (u64, &'static [u8])>,
    session_order: Table<'t, u64, &'static [u8]>,
}

impl<'t> Transaction<'t> {
    /// Opens the tables. `now` counts if it is later than the store's.
    pub(super) fn begin(
        write: &'t WriteTransaction,
        config: &'t StoreConfig,
        now: RelayTime,
    ) -> Result<Self> {
        let meta = write.open_table(META)?;
        let before: State = match meta.get(META_STATE)? {
            Some(state) => decode("state", state.value())?,
            None => return Err(StoreError::Corrupt("no state".into())),
        };
        let object_state = match meta.get(META_OBJECTS)? {
            Some(state) => decode("state of objects", state.value())?,
            None => ObjectState::default(),
        };
        let now = max(now, RelayTime(before.clock_s));
        Ok(Self {
            config,
            now,
            state: State { clock_s: now.0, ..before.clone() },
            before,
            object_state_before: object_state,
            object_state,
            changed: false,
            left: Left::Plenty,
            leap: None,
            meta,
            accounts: write.open_table(ACCOUNTS)?,
            mailboxes: write.open_table(MAILBOXES)?,
            secrets: write.open_table(SECRETS)?,
            revoked: write.open_table(REVOKED)?,
            revocations: BTreeMap::new(),
            devices: write.open_table(DEVICES)?,
            device_keys: write.open_table(DEVICE_KEYS)?,
            returning: write.open_table(RETURNING)?,
            closed: write.open_table(CLOSED)?,
            readers: write.open_table(READERS)?,
            invites: write.open_table(INVITES)?,
            entries: write.open_table(ENTRIES)?,
            queues: write.open_table(QUEUES)?,
            deadlines: write.open_table(DEADLINES)?,
            collapse: write.open_table(COLLAPSE)?,
            accepted: write.open_table(ACCEPTED)?,
            incarnations: write.open_table(INCARNATIONS)?,
            device_timers: write.open_table(DEVICE_TIMERS)?,
            incarnation_timers: write.open_table(INCARNATION_TIMERS)?,
            one_time_keys: write.open_table(ONE_TIME_KEYS)?,
            addresses: write.open_table(ADDRESSES)?,
            senders: write.open_table(SENDERS)?,
            objects: ObjectTables::open(write)?,
            sessions: write.open_table(SESSIONS)?,
            session_order: write.open_table(SESSION_ORDER)?,
        })
    }

    /// From here on takes no more of the disk than this allows. That counts for what could come without an end: envelopes, bytes of
    /// objects, devices. The keys, handles and revocations of a device that is known have bounds of their own, 2 MB each device.
    pub(super) fn heed(&mut self, left: Left) {
        self.left = left;
    }

    /// What is appended comes behind this.
    pub(super) fn leap(&mut self, leap: Option<Leap>) {
        self.leap = leap;
    }

    /// Whether the store takes so many bytes more, once `freed` are gone.
    fn has_room(&self, added: u64, freed: u64) -> bool {
        let stored = self.state.bytes.saturating_sub(freed) + self.object_state.bytes;
        stored + added <= self.config.bytes_max
    }

    /// Whether the file has pages for an envelope of so many bytes, in place of some that are freed, or may have them of the disk.
    /// redb uses pages that were given up before it makes the file longer, so that what was held once finds room again; a fourth
    /// is left for how it scatters them.
    fn has_pages(&self, added: u64, (freed_entries, freed_bytes): (u32, u64)) -> Result<bool> {
        let freed = freed_bytes + u64::from(freed_entries) * ENTRY_WEIGHT;
        Ok(match self.left {
            Left::Plenty => true,
            Left::Little => {
                self.weight()?.saturating_sub(freed) + added + ENTRY_WEIGHT <= self.peak()? / 4 * 3
            }
            Left::Dregs => false,
        })
    }

    /// About what all envelopes take of the file, bytes. Of objects it is not known how much is there.
    fn weight(&self) -> Result<u64> {
        Ok(weight_of(self.state.bytes, self.entries.len()?))
    }

    /// The largest [`Transaction::weight`] that was committed, or up to [`PEAK_STEP`] more.
    fn peak(&self) -> Result<u64> {
        let Some(row) = self.meta.get(META_PEAK)? else { return Ok(0) };
        let bytes = row.value().try_into().map_err(|_| StoreError::Corrupt("peak".into()))?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// Carries out one op; an append that is `barred` only if it was accepted before.
    pub(super) fn apply(&mut self, op: &Op, barred: Option<Refusal>) -> Result<Verdict> {
        match op {
            Op::Register(register) => self.register(register),
            Op::Append(append) => self.append(append, barred),
            Op::Settle { device, upto } => self.settle(*device, *upto),
            Op::Seen { device } => self.seen(*device),
            Op::PutTable { device, from, tail } => self.put_table(*device, *from, tail),
            Op::Revoke { device, id } => self.revoke(*device, *id),
            Op::PutKeys { device, replaces, keys } => self.put_keys(*device, *replaces, keys),
            Op::Claim { device, address } => self.claim(*device, address),
            Op::OpenObject { device, id, size, lifetime_s } => {
                self.open_object(*device, id, *size, *lifetime_s)
            }
            Op::PutChunk { object, offset, bytes } => self.put_chunk(*object, *offset, bytes),
            Op::CompleteObject { object } => self.complete_object(*object),
            Op::DropObject { object } => self.drop_object(*object),
            Op::Sweep { rows_max } => self.sweep(*rows_max).map(Ok),
        }
    }

    /// Writes the state. Whether there is anything to commit; the clock alone only if `keep_clock`.
    pub(super) fn finish(mut self, keep_clock: bool) -> Result<bool> {
        let clock_moved = keep_clock && self.state.clock_s != self.before.clock_s;
        if !self.changed && !clock_moved {
            return Ok(false);
        }
        self.meta.insert(META_STATE, encode(&self.state)?.as_slice())?;
        if let Some(since) = self.leap.map(|leap| leap.since_unix_s().to_le_bytes())
            && self.meta.get(META_SINCE)?.is_none_or(|row| row.value() != since)
        {
            self.meta.insert(META_SINCE, since.as_slice())?;
        }
        let weight = self.weight()?;
        if weight > self.peak()? {
            self.meta.insert(META_PEAK, weight.next_multiple_of(PEAK_STEP).to_le_bytes().as_slice())?;
        }
        if self.object_state != self.object_state_before {
            self.meta.insert(META_OBJECTS, encode(&self.object_state)?.as_slice())?;
        }
        Ok(true)
    }

    fn lifetime_s(&self) -> u64 {
        u64::from(self.config.lifetime_s_max)
    }

    fn digests_kept(&self) -> u32 {
        // Without the newest digest not even an immediate repeat would be recognised.
        self.config.digests_kept.max(1)
    }

    fn device(&self, number: u32) -> Result<Option<Device>> {
        self.devices.get(number)?.map(|row| decode("device", row.value())).transpose()
    }

    /// Whether a device has shown itself within the lifetime.
    fn is_live(&self, device: &Device) -> bool {
        RelayTime(device.last_seen).after_s(self.lifetime_s()) > self.now
    }

    fn put_device(&mut self, number: u32, device: &Device) -> Result<()> {
        self.changed = true;
        self.devices.insert(number, encode(device)?.as_slice())?;
        Ok(())
    }

    fn mailbox_number(&self, account: &AccountKey) -> Result<Option<u32>> {
        Ok(self.accounts.get(&account.0)?.map(|row| row.value()))
    }

    /// The number of a mailbox that takes envelopes.
    fn open_mailbox(&self, account: &AccountKey) -> Result<Option<u32>> {
        let Some(mailbox) = self.mailbox_number(account)? else { return Ok(None) };
        Ok(self.closed.get(mailbox)?.is_none().then_some(mailbox))
    }

    fn usage(&self, mailbox: u32) -> Result<MailboxUsage> {
        let row = self.mailboxes.get(mailbox)?.map(|row| row.value());
        row.map(usage_of).ok_or_else(|| missing("mailbox", mailbox))
    }

    fn put_usage(&mut self, mailbox: u32, MailboxUsage { all, requests }: MailboxUsage) -> Result<()> {
        let row = (all.entries, all.bytes, requests.entries, requests.bytes);
        self.mailboxes.insert(mailbox, row)?;
        Ok(())
    }

    fn readers(&self, mailbox: u32) -> Result<Vec<u32>> {
        let rows = self.readers.range((mailbox, 0)..=(mailbox, u32::MAX))?;
        rows.map(|row| Ok(row?.0.value().1)).collect()
    }

    fn append(&mut self, append: &Append, barred: Option<Refusal>) -> Result<Verdict> {
        let Some(device) = self.device(append.device.0)? else { return Ok(Err(Refusal::UnknownDevice)) };
        let incarnation = (append.device.0, u64::from_be_bytes(append.origin.incarnation.0));
        let sequence = append.origin.sequence;
        let digest = u64::from_be_bytes(append.digest);
        let known = self.incarnation(incarnation)?;
        if let Some(known) = known {
            if let Some(accepted) = self.accepted.get((incarnation.0, incarnation.1, sequence))? {
                let same = accepted.value() == digest;
                return Ok(if same { Ok(Done::Repeat) } else { Err(Refusal::Conflict) });
            }
            if sequence < known.floor {
                return Ok(Err(Refusal::Stale));
            }
        }
        // What it has taken it has taken, though the bound was another then.
        if append.body.len() > self.config.body_bytes_max {
            return Ok(Err(Refusal::TooLong));
        }
        if let Some(refusal) = barred {
            return Ok(Err(refusal));
        }
        let Some(mailbox) = self.open_mailbox(&append.mailbox)? else {
            return Ok(Err(Refusal::NoSuchMailbox));
        };
        if !self.is_wanted(mailbox, append.token)? {
            return Ok(Err(Refusal::NotWanted));
        }
        let replaced = self.replaced(append, mailbox)?;
        let freed = |only_requests: bool| match &replaced {
            Some(replaced) if replaced.is_request || !only_requests => (1, replaced.bytes),
            _ => (0, 0),
        };
        let added = append.body.len() as u64;
        let may_hold = |usage: Usage, (freed_entries, freed_bytes): (u32, u64), quota: Quota| {
            usage.entries.saturating_sub(freed_entries) < quota.entries_max
                && usage.bytes.saturating_sub(freed_bytes) + added <= quota.bytes_max
        };
        let usage = self.usage(mailbox)?;
        let is_request = append.token.id().is_open();
        if !may_hold(usage.all, freed(false), self.config.quota)
            || is_request && !may_hold(usage.requests, freed(true), self.config.requests)
        {
            return Ok(Err(Refusal::MailboxFull));
        }
        if !self.has_room(added, freed(false).1) || !self.has_pages(added, freed(false))? {
            return Ok(Err(Refusal::StoreFull));
        }
        if let Some(Replaced { position, .. }) = replaced {
            self.remove_entry(position)?;
        }
        self.remember(incarnation, known, sequence, digest)?;
        let last = Some(ShortIncarnation::from(append.origin.incarnation));
        if device.last != last {
            self.put_device(append.device.0, &Device { last, ..device })?;
        }
        let position = self.store_entry(append, mailbox)?;
        Ok(Ok(Done::Accepted { position }))
    }

    /// The queued entry that an envelope replaces.
    fn replaced(&self, append: &Append, mailbox: u32) -> Result<Option<Replaced>> {
        let Some(key) = append.collapse else { return Ok(None) };
        let scope =
            collapse_scope(append.sender.map(|sender| sender.0), append.submitter().map(|device| device.0));
        let Some(position) = self.collapse.get((mailbox, scope.as_slice(), key))?.map(|row| row.value())
        else {
            return Ok(None);
        };
        let value = self.entries.get(position)?.ok_or_else(|| missing("entry", position))?;
        let (header, body) = read_entry(position, value.value())?;
        Ok(Some(Replaced { position, bytes: body.len() as u64, is_request: header.is_request }))
    }

    fn store_entry(&mut self, append: &Append, mailbox: u32) -> Result<Position> {
        self.changed = true;
        self.state.position = Leap::next(self.leap, self.state.position);
        let position = self.state.position;
        let lifetime_s = append.lifetime_s.min(self.config.lifetime_s_max);
        let deadline = self.now.after_s(u64::from(lifetime_s));
        let header = EntryHeader::new(append, mailbox, self.now, deadline);
        let head = entry_head(position, &header, &append.body)?;
        let mut value = self.entries.insert_reserve(position, head.len() + append.body.len())?;
        let (head_bytes, body_bytes) = value.as_mut().split_at_mut(head.len());
        head_bytes.copy_from_slice(&head);
        body_bytes.copy_from_slice(&append.body);
        drop(value);
        self.queues.insert((mailbox, position), ())?;
        self.deadlines.insert((deadline.0, position), ())?;
        if let Some(key) = append.collapse {
            let scope = collapse_scope(header.sender, header.submitter);
            self.collapse.insert((mailbox, scope.as_slice(), key), position)?;
        }
        let mut usage = self.usage(mailbox)?;
        let added = append.body.len() as u64;
        usage.all.entries += 1;
        usage.all.bytes += added;
        if header.is_request {
            usage.requests.entries += 1;
            usage.requests.bytes += added;
        }
        self.put_usage(mailbox, usage)?;
        self.state.bytes += added;
        Ok(Position(position))
    }

    fn remove_entry(&mut self, position: u64) -> Result<()> {
        self.changed = true;
        let value = self.entries.remove(position)?.ok_or_else(|| missing("entry", position))?;
        let (header, body) = read_entry(position, value.value())?;
        let removed = body.len() as u64;
        drop(value);
        self.queues.remove((header.mailbox, position))?;
        self.deadlines.remove((header.deadline, position))?;
        if let Some(key) = header.collapse {
            let scope = collapse_scope(header.sender, header.submitter);
            self.collapse.remove((header.mailbox, scope.as_slice(), key))?;
        }
        let less = |usage: Usage| {
            let (entries, bytes) = (usage.entries.checked_sub(1)?, usage.bytes.checked_sub(removed)?);
            Some(Usage { entries, bytes })
        };
        let usage = self.usage(header.mailbox)?;
        let requests = if header.is_request { less(usage.requests) } else { Some(usage.requests) };
        let (Some(all), Some(requests), Some(all_bytes)) =
            (less(usage.all), requests, self.state.bytes.checked_sub(removed))
        else {
            return Err(StoreError::Corrupt(format!(
                "mailbox {} holds more than is counted",
                header.mailbox
            )));
        };
        self.put_usage(header.mailbox, MailboxUsage { all, requests })?;
        self.state.bytes = all_bytes;
        Ok(())
    }

    fn settle(&mut self, number: DeviceNo, upto: Position) -> Result<Verdict> {
        let Some(mut device) = self.device(number.0)? else { return Ok(Err(Refusal::UnknownDevice)) };
        // A cursor beyond what was given out would pass over envelopes that are yet to come.
        device.cursor = max(device.cursor, upto.0.min(self.state.position));
        self.touch(number.0, &mut device)?;
        let released = self.trim(device.mailbox)?;
        let account = AccountKey(device.account);
        Ok(Ok(Done::Settled { account, cursor: Position(device.cursor), released }))
    }

    fn seen(&mut self, number: DeviceNo) -> Result<Verdict> {
        let Some(mut device) = self.device(number.0)? else { return Ok(Err(Refusal::UnknownDevice)) };
        self.touch(number.0, &mut device)?;
        Ok(Ok(Done::Seen))
    }

    /// Writes a device that has just shown itself.
    fn touch(&mut self, number: u32, device: &mut Device) -> Result<()> {
        device.last_seen = self.now.0;
        if device.silent {
            device.silent = false;
            self.device_timers.insert((self.now.after_s(self.lifetime_s()).0, number), ())?;
        }
        self.put_device(number, device)
    }

    /// Lets go of what every live device of a mailbox has settled; how many entries that were.
    ///
    /// Without a live device nothing is let go: what is left waits for its deadline, in case one returns.
    fn trim(&mut self, mailbox: u32) -> Result<u32> {
        let mut settled: Option<u64> = None;
        for number in self.readers(mailbox)? {
            let device = self.device(number)?.ok_or_else(|| missing("device", number))?;
            if self.is_live(&device) {
                settled = Some(settled.map_or(device.cursor, |least| least.min(device.cursor)));
            }
        }
        let Some(settled) = settled else { return Ok(0) };
        let rows = self.queues.range((mailbox, 0)..=(mailbox, settled))?;
        let positions = rows.map(|row| Ok(row?.0.value().1)).collect::<Result<Vec<_>>>()?;
        for position in &positions {
            self.remove_entry(*position)?;
        }
        Ok(positions.len() as u32)
    }

    fn put_table(&mut self, number: DeviceNo, from: u16, tail: &TableTail) -> Result<Verdict> {
        if self.devices.get(number.0)?.is_none() {
            return Ok(Err(Refusal::UnknownDevice));
        }
        let config = self.config;
        let verdict = match tail {
            TableTail::ToRelay(addresses) => {
                let rows = addresses.iter().map(|address| address.to_bytes());
                put_rows(&mut self.addresses, number.0, from, rows, config)?
            }
            TableTail::FromRelay(accounts) => {
                let rows = accounts.iter().map(|account| account.0);
                put_rows(&mut self.senders, number.0, from, rows, config)?
            }
        };
        self.changed |= verdict.is_ok();
        Ok(verdict)
    }
}

/// Cuts a device's rows to `from`, then appends `rows`.
fn put_rows<const N: usize>(
    table: &mut Table<'_, (u32, u16), &'static [u8; N]>,
    device: u32,
    from: u16,
    rows: impl ExactSizeIterator<Item = [u8; N]>,
    config: &StoreConfig,
) -> Result<Verdict> {
    let last = table.range((device, 0)..=(device, u16::MAX))?.next_back().transpose()?;
    let entries = last.map_or(0, |(key, _)| key.value().1 + 1);
    if from > entries {
        return Ok(Err(Refusal::TableGap { entries }));
    }
    if usize::from(from) + rows.len() > usize::from(config.handles_max) {
        return Ok(Err(Refusal::TableFull));
    }
    table.retain_in((device, from)..=(device, u16::MAX), |_, _| false)?;
    for (index, row) in (from..).zip(rows) {
        table.insert((device, index), &row)?;
    }
    Ok(Ok(Done::TablePut))
}
