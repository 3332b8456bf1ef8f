//! Cursors that go back and forth, and tokens that have gone stale: nothing is skipped, and what comes again is known.
//!
//! In each sequence somebody writes to an account of two devices. These fetch from where they say that they are, which may be long
//! behind them, or ahead of all there is; they settle back and forth; tokens are revoked, secrets change, envelopes come again;
//! and on the way every second store is put back: to a backup, from which another store is made, or to a copy of its file.
//! Whatever waits and a device has not seen must be behind its cursor whenever it fetches, and in the end each has seen all that
//! was accepted, in order; and no envelope is accepted twice.

use std::collections::BTreeSet;
use std::iter::repeat_n;

use bytes::Bytes;
use thinpost_disk::Database;
use thinpost_disk::medium::Medium;
use thinpost_wire::ids::{AccountKey, DeviceKey, Incarnation, Origin, Position, StoreId};
use thinpost_wire::token::{MailboxSecret, Token, TokenId};

use super::{Outcome, Rng};
use crate::store::samples::{append, roomy};
use crate::store::{
    Append, DeviceNo, Done, Op, Quota, RedbStore, Refusal, Register, RelayTime, Store, StoreConfig,
    StoreError, Verdict,
};

/// Sequences that share a store, and its commits.
const TOGETHER: u32 = 64;

/// Steps of each.
const STEPS: usize = 24;

/// Numbers that repeats are known by: few, so that some are forgotten.
const DIGESTS_KEPT: u32 = 8;

/// The time of all of it: what expires is tried out elsewhere.
const NOW: RelayTime = RelayTime(1_000);

/// When a relay starts on a store, Unix seconds, and how much later it is when the store is put back.
const BEGINNING_UNIX_S: u64 = 1_800_000_000;
const DAY_S: u64 = 86_400;

/// Who of a sequence writes; the devices before read.
const WRITER: usize = 2;

/// Steps through all sequences of a seed, in one store.
pub fn cursors(seed: u64) -> Outcome {
    let mut outcome = Outcome::default();
    match Town::new(seed).and_then(Town::live) {
        Ok(sequences) => {
            for (n, sequence) in sequences.into_iter().enumerate() {
                outcome.note(&format!("sequence {n} of seed {seed}"), sequence.found);
            }
        }
        Err(error) => outcome.note(&format!("the store of seed {seed}"), Err(error.to_string())),
    }
    outcome
}

/// Room for all that a sequence may do.
fn config() -> StoreConfig {
    StoreConfig {
        quota: Quota { entries_max: 1_000, bytes_max: 1 << 20 },
        bytes_max: 1 << 30,
        revocations_max: 100,
        digests_kept: DIGESTS_KEPT,
        ..roomy()
    }
}

/// All who share a store.
struct Town {
    medium: Medium,
    store: RedbStore,
    sequences: Vec<Sequence>,
    put_back: Option<PutBack>,
}

/// How a store is put back.
struct PutBack {
    is_of_copy: bool,
    /// The step before which something is kept, and the one before which that takes the store's place.
    from: usize,
    at: usize,
}

/// What is kept of a store.
enum Kept {
    Backup(Database),
    Copy(Medium),
}

impl Town {
    fn new(seed: u64) -> Result<Self, StoreError> {
        let mut random = Rng(seed);
        let from = random.below(STEPS - 1);
        let at = from + 1 + random.below(STEPS - 1 - from);
        let medium = Medium::default();
        Ok(Self {
            store: open(&medium, BEGINNING_UNIX_S)?,
            medium,
            sequences: (0..TOGETHER).map(|n| Sequence::new(n, Rng(random.next()))).collect(),
            put_back: seed.is_multiple_of(2).then_some(PutBack {
                is_of_copy: seed.is_multiple_of(4),
                from,
                at,
            }),
        })
    }

    fn live(mut self) -> Result<Vec<Sequence>, StoreError> {
        // A device that comes later begins with what comes later.
        for device in 0..=WRITER {
            self.commit(|sequence, store| Ok(sequence.arrive(device, store)))?;
        }
        let mut kept = None;
        for step in 0..STEPS {
            match self.put_back {
                Some(PutBack { is_of_copy, from, .. }) if from == step => {
                    kept = Some(match is_of_copy {
                        true => Kept::Copy(self.medium.fork()),
                        false => Kept::Backup(self.store.backed_up()?),
                    });
                    self.sequences.iter_mut().for_each(Sequence::kept);
                }
                Some(PutBack { at, .. }) if at == step => match kept.take().expect("it was kept before") {
                    Kept::Backup(backup) => {
                        self.store = RedbStore::of_backup(&backup, config(), StoreId([2; 8]))?;
                        self.store.begin_run(BEGINNING_UNIX_S + DAY_S)?;
                        self.sequences.iter_mut().for_each(Sequence::restored);
                    }
                    Kept::Copy(medium) => {
                        self.store = open(&medium, BEGINNING_UNIX_S + DAY_S)?;
                        self.sequences.iter_mut().for_each(Sequence::put_back);
                    }
                },
                _ => {}
            }
            self.commit(Sequence::act)?;
        }
        for device in 0..WRITER {
            self.commit(|sequence, store| Ok(sequence.arrive(device, store)))?;
        }
        for sequence in &mut self.sequences {
            sequence.end(&self.store)?;
        }
        Ok(self.sequences)
    }

    /// Has every sequence do something. What they ask for is committed together.
    fn commit(
        &mut self,
        mut act: impl FnMut(&mut Sequence, &RedbStore) -> Result<Option<Op>, StoreError>,
    ) -> Result<(), StoreError> {
        let mut ops = Vec::new();
        let mut askers = Vec::new();
        for (n, sequence) in self.sequences.iter_mut().enumerate() {
            let op = act(sequence, &self.store)?;
            askers.extend(repeat_n(n, op.iter().len()));
            ops.extend(op);
        }
        let verdicts = self.store.apply(&ops, NOW)?;
        for ((n, op), verdict) in askers.into_iter().zip(&ops).zip(verdicts) {
            self.sequences[n].learn(op, verdict);
        }
        Ok(())
    }
}

fn open(medium: &Medium, unix_s: u64) -> Result<RedbStore, StoreError> {
    let store = RedbStore::with_backend(medium.clone(), config(), StoreId([1; 8]))?;
    store.begin_run(unix_s)?;
    Ok(store)
}

/// A device, and what it remembers.
struct Device {
    key: DeviceKey,
    /// By what the store knows it; `None` if it does not, or no more.
    number: Option<DeviceNo>,
    /// How far it has read, and in which store.
    have: Option<(StoreId, Position)>,
    /// Up to where its link has given it what there is, while it has one.
    link: Option<Position>,
    /// The numbers of what it has read, each once.
    seen: Vec<u64>,
}

/// What a store knows of a mailbox.
#[derive(Clone, Default)]
struct Known {
    /// The numbers of the envelopes that were accepted, in order.
    accepted: Vec<u64>,
    secret: u8,
    revoked: BTreeSet<u32>,
}

struct Sequence {
    random: Rng,
    reader: AccountKey,
    writer: AccountKey,
    devices: [Device; 3],
    known: Known,
    at_kept: Known,
    /// Envelopes that were written.
    written: u64,
    /// How much each device had seen when the store was put back.
    seen_before: [usize; 3],
    found: Result<(), String>,
}

impl Sequence {
    fn new(n: u32, random: Rng) -> Self {
        let name = |who: u8| {
            let mut name = [who; 32];
            name[..4].copy_from_slice(&n.to_be_bytes());
            name
        };
        let device = |who| Device {
            key: DeviceKey(name(who)),
            number: None,
            have: None,
            link: None,
            seen: Vec::new(),
        };
        Self {
            random,
            reader: AccountKey(name(0xa)),
            writer: AccountKey(name(0xb)),
            devices: [device(0), device(1), device(2)],
            known: Known::default(),
            at_kept: Known::default(),
            written: 0,
            seen_before: [0; 3],
            found: Ok(()),
        }
    }

    fn kept(&mut self) {
        self.at_kept = self.known.clone();
    }

    /// The store knows what it knew then, and whom it knew.
    fn put_back(&mut self) {
        self.known = self.at_kept.clone();
        for device in &mut self.devices {
            device.link = None;
        }
        self.seen_before = self.devices.each_ref().map(|device| device.seen.len());
    }

    /// The store knows what the backup knew, and nobody until they have registered.
    fn restored(&mut self) {
        let secret = self.known.secret;
        self.known = self.at_kept.clone();
        if self.known.secret != secret {
            // Registering tells it the later one, under which nothing is revoked.
            self.known.revoked.clear();
            self.known.secret = secret;
        }
        for device in &mut self.devices {
            (device.number, device.link) = (None, None);
        }
        self.seen_before = self.devices.each_ref().map(|device| device.seen.len());
    }

    /// Does anything; what it asks the store for, if not only to read.
    fn act(&mut self, store: &RedbStore) -> Result<Option<Op>, StoreError> {
        let reader = self.random.below(WRITER);
        let act = self.random.below(12);
        let who = if act < 6 { WRITER } else { reader };
        let Some(number) = self.devices[who].number else { return Ok(self.arrive(who, store)) };
        Ok(match act {
            0..4 => {
                self.written += 1;
                Some(self.envelope(number, self.written, self.token()))
            }
            4 => Some(self.envelope(number, self.written + 1, self.stale_token())),
            5 if self.written > 0 => {
                let again = self.random.below(self.written as usize) as u64 + 1;
                Some(self.envelope(number, again, self.token()))
            }
            6..9 => {
                self.fetch(reader, store)?;
                None
            }
            9 | 10 => {
                let upto = self.settled(reader, store)?;
                Some(Op::Settle { device: number, upto })
            }
            11 if self.random.below(2) == 0 => {
                Some(Op::Revoke { device: number, id: TokenId::personal(self.next_id()) })
            }
            11 => {
                self.known.secret += 1;
                self.known.revoked.clear();
                Some(self.register(reader, store))
            }
            _ => None,
        })
    }

    /// Registers a device that the store does not know.
    fn arrive(&mut self, who: usize, store: &RedbStore) -> Option<Op> {
        self.devices[who].number.is_none().then(|| self.register(who, store))
    }

    fn register(&self, who: usize, store: &RedbStore) -> Op {
        let Device { key, have, .. } = &self.devices[who];
        let account = if who == WRITER { self.writer } else { self.reader };
        let read = have.map_or(Position(0), |(id, read)| store.lineage().here(id, read));
        Op::Register(Register {
            account,
            device: *key,
            invite: None,
            secret: secret(self.known.secret),
            read,
        })
    }

    /// The first token that was not taken back.
    fn next_id(&self) -> u32 {
        self.known.revoked.len() as u32
    }

    fn token(&self) -> Token {
        Token::mint(&secret(self.known.secret), TokenId::personal(self.next_id()))
    }

    /// One that was revoked; if none was, one of another secret.
    fn stale_token(&self) -> Token {
        let revoked = self.known.revoked.first();
        let under = if revoked.is_some() { self.known.secret } else { self.known.secret.wrapping_sub(1) };
        Token::mint(&secret(under), TokenId::personal(revoked.copied().unwrap_or(0)))
    }

    fn envelope(&self, device: DeviceNo, number: u64, token: Token) -> Op {
        let envelope = append(device, self.reader, number, &number.to_be_bytes());
        let origin = Origin { incarnation: Incarnation([1; 8]), sequence: number };
        Op::Append(Append { origin, token, ..envelope })
    }

    /// What waits in the mailbox.
    fn waiting(
        &self,
        store: &RedbStore,
        after: Position,
        entries_max: usize,
    ) -> Result<Vec<(Position, u64)>, StoreError> {
        let entries = store.read(&self.reader, after, entries_max, usize::MAX)?;
        let number =
            |body: Bytes| u64::from_be_bytes(body.as_ref().try_into().expect("every body is a number"));
        Ok(entries.into_iter().map(|(position, entry)| (position, number(entry.body))).collect())
    }

    /// Reads some of what waits, on the link that there is or on a new one.
    fn fetch(&mut self, who: usize, store: &RedbStore) -> Result<(), StoreError> {
        let waiting = self.waiting(store, Position(0), usize::MAX)?;
        let entries_max = 1 + self.random.below(4);
        let has_all = self.has_all(who, &waiting);
        let from = match self.devices[who].link {
            Some(link) if self.random.below(3) > 0 => link,
            _ => {
                let said = self.said(who, store.store_id(), has_all);
                let Some(record) = store.device(&self.devices[who].key)? else {
                    self.fail(format!("device {who} is not known"));
                    return Ok(());
                };
                store.lineage().resume(record.cursor, said, store.newest()?)
            }
        };
        let seen = &self.devices[who].seen;
        let skipped = waiting.iter().find(|(position, number)| *position <= from && !seen.contains(number));
        if let Some((position, number)) = skipped {
            self.fail(format!(
                "device {who} goes on behind {from:?}, and {number} at {position:?} is skipped"
            ));
        }
        let page = self.waiting(store, from, entries_max)?;
        let device = &mut self.devices[who];
        device.link = Some(page.last().map_or(from, |(position, _)| *position));
        for (position, number) in page {
            if !device.seen.contains(&number) {
                device.seen.push(number);
            }
            let before = device.have.filter(|(id, _)| *id == store.store_id()).map(|(_, have)| have);
            device.have = Some((store.store_id(), before.map_or(position, |have| have.max(position))));
        }
        Ok(())
    }

    fn has_all(&self, who: usize, waiting: &[(Position, u64)]) -> bool {
        waiting.iter().all(|(_, number)| self.devices[who].seen.contains(number))
    }

    /// How far a device says that it has read: the truth, less than that, or of a store that nobody knows; or more than there is,
    /// if it has all there is.
    fn said(&mut self, who: usize, here: StoreId, has_all: bool) -> Option<(StoreId, Position)> {
        let have = self.devices[who].have;
        match self.random.below(6) {
            0 => None,
            1 => Some((StoreId([9; 8]), Position(u64::MAX))),
            2 if has_all => Some((here, Position(u64::MAX))),
            3 => have.map(|(id, Position(have))| (id, Position(self.random.below(have as usize + 1) as u64))),
            _ => have,
        }
    }

    /// What it settles: the same, in this store.
    fn settled(&mut self, who: usize, store: &RedbStore) -> Result<Position, StoreError> {
        let waiting = self.waiting(store, Position(0), usize::MAX)?;
        let has_all = self.has_all(who, &waiting);
        let said = self.said(who, store.store_id(), has_all);
        Ok(said.filter(|(id, _)| *id == store.store_id()).map_or(Position(0), |(_, upto)| upto))
    }

    fn learn(&mut self, op: &Op, verdict: Verdict) {
        match (op, verdict) {
            (Op::Append(append), verdict) => self.learn_of_envelope(append, verdict),
            (Op::Register(register), Ok(Done::Registered { device: number, .. })) => {
                let device = self.devices.iter_mut().find(|device| device.key == register.device);
                device.expect("it is one of these").number = Some(number);
            }
            // The id was the next one.
            (Op::Revoke { .. }, Ok(_)) => {
                self.known.revoked.insert(self.next_id());
            }
            (Op::Settle { .. }, Ok(_)) => {}
            (op, verdict) => self.fail(format!("{op:?} is answered by {verdict:?}")),
        }
    }

    fn learn_of_envelope(&mut self, append: &Append, verdict: Verdict) {
        let number = append.origin.sequence;
        let is_stale = append.token != self.token();
        let is_open = self.devices[..WRITER].iter().any(|device| device.number.is_some());
        let was_accepted = self.known.accepted.contains(&number);
        // Those above are remembered, however many came in between.
        let is_remembered =
            self.known.accepted.iter().filter(|other| **other > number).count() < DIGESTS_KEPT as usize;
        match verdict {
            Ok(Done::Accepted { .. }) if is_open && !is_stale && !was_accepted => {
                self.known.accepted.push(number)
            }
            Ok(Done::Repeat) if was_accepted => {}
            Err(Refusal::Stale) if !is_remembered => {}
            Err(Refusal::NotWanted) if is_stale => {}
            Err(Refusal::NoSuchMailbox) if !is_open => {}
            verdict => self.fail(format!("envelope {number} is answered by {verdict:?}")),
        }
    }

    /// Everybody fetches all there is. Each has then seen what was accepted, in this order.
    fn end(&mut self, store: &RedbStore) -> Result<(), StoreError> {
        for who in 0..WRITER {
            while !self.has_all(who, &self.waiting(store, Position(0), usize::MAX)?) && self.found.is_ok() {
                self.fetch(who, store)?;
            }
            let Device { seen, .. } = &self.devices[who];
            let accepted = &self.known.accepted;
            let missed: Vec<_> = accepted.iter().filter(|number| !seen.contains(number)).collect();
            let places = seen[self.seen_before[who]..].iter();
            let places: Vec<_> =
                places.map(|number| accepted.iter().position(|other| other == number)).collect();
            if !missed.is_empty() {
                let missed = format!("device {who} never sees {missed:?}");
                self.fail(missed);
            } else if !places.is_sorted_by(|one, next| one.is_some() && one < next) {
                let seen = format!("device {who} sees {seen:?} of {accepted:?}");
                self.fail(seen);
            }
        }
        Ok(())
    }

    /// The first thing that did not hold is what is told.
    fn fail(&mut self, why: String) {
        self.found = std::mem::replace(&mut self.found, Ok(())).and(Err(why));
    }
}

fn secret(n: u8) -> MailboxSecret {
    MailboxSecret([n; 32])
}
