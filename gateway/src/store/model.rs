//! Random histories of a store, and all that can be read from one: what [`super::MemoryStore`] says, every backend must say.

use bytes::Bytes;
use proptest::prelude::*;
use rangemap::RangeSet;
use thinpost_wire::ids::{AccountKey, Incarnation, ObjectId, OneTimeKey, Position};
use thinpost_wire::token::{MailboxAddress, MailboxSecret, Token, TokenId};

use super::samples::{append, device_key, secret_of, token_of};
use super::{
    Append, Counts, DeviceNo, DeviceRecord, Entry, HandleTables, Invite, Lineage, MailboxUsage, ObjectNo,
    ObjectRecord, Op, Register, Store, StoreError, TableTail,
};

/// One step of a history.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Ops in one group, this many seconds after the group before.
    Apply(Vec<Op>, u64),
    /// Sweeps until nothing is due, this many seconds after the group before.
    Sweep(u64),
    /// Closes the store and opens it again.
    Reopen,
    /// Puts a store that was made of a backup in its place.
    Restore,
}

fn account() -> impl Strategy<Value = AccountKey> {
    (0..4u8).prop_map(|n| AccountKey([n; 32]))
}

fn device() -> impl Strategy<Value = DeviceNo> {
    (1..7u32).prop_map(DeviceNo)
}

fn register() -> impl Strategy<Value = Op> {
    let invite = proptest::option::of((0..2u8, 0..3u32));
    let other = proptest::bool::weighted(0.1);
    (account(), 0..7u8, invite, other, 0..40u64).prop_map(|(account, device, invite, other, read)| {
        let invite = invite.map(|(id, uses_max)| Invite { id: [id; 8], uses_max });
        let secret = if other { MailboxSecret([0x55; 32]) } else { secret_of(account) };
        let read = Position(read);
        Op::Register(Register { account, device: device_key(device), invite, secret, read })
    })
}

fn ids_of_tokens() -> impl Iterator<Item = TokenId> {
    (0..3).flat_map(|number| [TokenId::open(number), TokenId::personal(number)])
}

fn token_id() -> impl Strategy<Value = TokenId> {
    prop_oneof![(0..3u32).prop_map(TokenId::open), (0..3u32).prop_map(TokenId::personal)]
}

fn address() -> impl Strategy<Value = MailboxAddress> {
    (account(), token_id()).prop_map(|(mailbox, id)| MailboxAddress { mailbox, token: token_of(mailbox, id) })
}

fn envelope() -> impl Strategy<Value = Op> {
    let origin = (0..4u8, 1..9u64);
    let collapse = proptest::option::weighted(0.3, 0..2u64);
    let sender = proptest::option::of(account());
    let body = (0..3u8, 0..400usize, proptest::bool::weighted(0.1));
    let forged = proptest::bool::weighted(0.05);
    (device(), address(), origin, sender, collapse, 0..130u32, body, forged).prop_map(
        |(device, address, (incarnation, sequence), sender, collapse, lifetime_s, body, forged)| {
            let (byte, len, repeat_only) = body;
            let MailboxAddress { mailbox, token } = address;
            let token = if forged { Token([byte; 16]) } else { token };
            let mut envelope = append(device, mailbox, sequence, &vec![byte; len]);
            envelope.origin.incarnation = Incarnation([incarnation; 8]);
            Op::Append(Append { token, sender, collapse, lifetime_s, repeat_only, ..envelope })
        },
    )
}

/// How long the objects of the three names are, bytes.
const OBJECT_SIZES: [u64; 3] = [100, 4_001, 8_500];

fn object() -> impl Strategy<Value = ObjectNo> {
    (1..10u64).prop_map(ObjectNo)
}

fn object_id() -> impl Strategy<Value = ObjectId> {
    (0..3u8).prop_map(|n| ObjectId([n; 32]))
}

/// Opens an object, mostly with the one size that its name has here.
fn open_object() -> impl Strategy<Value = Op> {
    let other = proptest::option::weighted(0.1, prop_oneof![Just(0), 1..10_000u64]);
    (device(), object_id(), other, 0..130u32).prop_map(|(device, id, other, lifetime_s)| {
        let size = other.unwrap_or(OBJECT_SIZES[usize::from(id.0[0])]);
        Op::OpenObject { device, id, size, lifetime_s }
    })
}

/// A chunk of any object, often at the edge of a block.
fn put_chunk() -> impl Strategy<Value = Op> {
    let offset = prop_oneof![0..9_000u64, 3_900..4_100u64, Just(0)];
    let len = prop_oneof![2 => 0..300usize, 1 => 3_000..8_501usize];
    (object(), offset, len, any::<u8>()).prop_map(|(object, offset, len, byte)| Op::PutChunk {
        object,
        offset,
        bytes: Bytes::from(vec![byte; len]),
    })
}

/// Puts all that an object lacks, whichever size it has, and completes it.
fn finish_object() -> impl Strategy<Value = Vec<Op>> {
    (object(), any::<u8>()).prop_map(|(object, byte)| {
        let whole = OBJECT_SIZES.iter().rev().map(|size| Bytes::from(vec![byte; *size as usize]));
        let puts = whole.map(|bytes| Op::PutChunk { object, offset: 0, bytes });
        puts.chain([Op::CompleteObject { object }]).collect()
    })
}

fn op() -> impl Strategy<Value = Op> {
    let tail = prop_oneof![
        proptest::collection::vec(address(), 0..5).prop_map(TableTail::ToRelay),
        proptest::collection::vec(account(), 0..5).prop_map(TableTail::FromRelay),
    ];
    prop_oneof![
        2 => register(),
        8 => envelope(),
        3 => (device(), 0..40u64).prop_map(|(device, upto)| Op::Settle { device, upto: Position(upto) }),
        1 => device().prop_map(|device| Op::Seen { device }),
        1 => (device(), 0..5u16, tail)
            .prop_map(|(device, from, tail)| Op::PutTable { device, from, tail }),
        1 => (device(), token_id()).prop_map(|(device, id)| Op::Revoke { device, id }),
        1 => (device(), proptest::bool::weighted(0.2), proptest::collection::vec(0..6u8, 0..4)).prop_map(|(device, replaces, keys)| {
            Op::PutKeys { device, replaces, keys: keys.into_iter().map(|n| OneTimeKey([n; 32])).collect() }
        }),
        2 => (device(), address()).prop_map(|(device, address)| Op::Claim { device, address }),
        3 => open_object(),
        6 => put_chunk(),
        2 => object().prop_map(|object| Op::CompleteObject { object }),
        1 => object().prop_map(|object| Op::DropObject { object }),
    ]
}

/// Any step.
pub(super) fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => (proptest::collection::vec(op(), 1..12), 0..40u64).prop_map(|(ops, s)| Step::Apply(ops, s)),
        3 => finish_object().prop_map(|ops| Step::Apply(ops, 1)),
        2 => (0..80u64).prop_map(Step::Sweep),
        1 => Just(Step::Reopen),
        1 => Just(Step::Restore),
    ]
}

/// Everything that can be read from a store that was told such steps.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Look {
    mailboxes: Vec<Option<MailboxUsage>>,
    are_open: Vec<bool>,
    admitted: Vec<bool>,
    entries: Vec<Vec<(Position, Entry)>>,
    devices: Vec<Option<DeviceRecord>>,
    tables: Vec<HandleTables>,
    keys_left: Vec<usize>,
    kept: Vec<Option<ObjectRecord>>,
    found: Vec<Option<ObjectRecord>>,
    objects: Vec<Content>,
    counts: Counts,
    newest: Position,
    lineage: Lineage,
}

/// What is held of an object.
#[derive(Clone, Debug, PartialEq)]
struct Content {
    held: RangeSet<u64>,
    pieces: Vec<Bytes>,
    /// From within, over the edge of a block, and bounded.
    within: Bytes,
    digest: Option<ObjectId>,
}

impl Look {
    pub(super) fn at(store: &dyn Store) -> Result<Self, StoreError> {
        let accounts = || (0..4).map(|n| AccountKey([n; 32]));
        let devices = || (1..7).map(DeviceNo);
        let ids = || (0..3).map(|n| ObjectId([n; 32]));
        let read = |account: AccountKey| store.read(&account, Position(0), 100, usize::MAX);
        let kept = accounts().flat_map(|account| ids().map(move |id| store.object(&account, &id)));
        Ok(Self {
            mailboxes: accounts().map(|account| store.mailbox_usage(&account)).collect::<Result<_, _>>()?,
            admitted: accounts()
                .flat_map(|account| ids_of_tokens().map(move |id| (account, id)))
                .map(|(mailbox, id)| store.admits(&MailboxAddress { mailbox, token: token_of(mailbox, id) }))
                .collect::<Result<_, _>>()?,
            are_open: accounts().map(|account| store.is_open(&account)).collect::<Result<_, _>>()?,
            entries: accounts().map(read).collect::<Result<_, _>>()?,
            devices: (0..7).map(|n| store.device(&device_key(n))).collect::<Result<_, _>>()?,
            tables: devices().map(|device| store.tables(device)).collect::<Result<_, _>>()?,
            keys_left: devices().map(|device| store.keys_left(device)).collect::<Result<_, _>>()?,
            kept: kept.collect::<Result<_, _>>()?,
            found: ids().map(|id| store.find_object(&id)).collect::<Result<_, _>>()?,
            objects: (0..20).map(|n| Content::at(store, ObjectNo(n))).collect::<Result<_, _>>()?,
            counts: store.counts()?,
            newest: store.newest()?,
            lineage: store.lineage().clone(),
        })
    }
}

impl Content {
    fn at(store: &dyn Store, object: ObjectNo) -> Result<Self, StoreError> {
        let held = store.object_held(object)?;
        let pieces = held.iter().map(|range| store.read_object(object, range.start, usize::MAX));
        Ok(Self {
            pieces: pieces.collect::<Result<_, _>>()?,
            within: store.read_object(object, 3_950, 100)?,
            digest: store.object_digest(object)?,
            held,
        })
    }
}

#[cfg(test)]
mod tests;
