//! The tables of a relay's redb file, and the records that are more than a few numbers.

use bytes::Bytes;
use redb::TableDefinition;
use serde::{Deserialize, Serialize};
use thinpost_wire::ids::{AccountKey, Position};
use thinpost_wire::parcel::ShortIncarnation;
use thinpost_wire::token::ADDRESS_BYTES;

use crate::store::{Append, DeviceNo, DeviceRecord, Entry, RelayTime, StoreError};

/// Raised whenever a table or record changes its meaning. A program opens this format only.
pub(super) const FORMAT: u32 = 3;

/// The file's own facts, under the names below.
pub(super) const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
/// [`FORMAT`], little-endian.
pub(super) const META_FORMAT: &str = "format";
/// The [`thinpost_wire::ids::StoreId`].
pub(super) const META_STORE_ID: &str = "store-id";
/// A [`State`].
pub(super) const META_STATE: &str = "state";
/// An [`ObjectState`](super::objects::ObjectState); absent before the first object.
pub(super) const META_OBJECTS: &str = "objects";
/// About the most that all envelopes have taken of the file, bytes, little-endian; absent in one from before that was noted.
pub(super) const META_PEAK: &str = "peak";
/// What [`Leap::since_unix_s`](crate::store::Leap::since_unix_s) is, little-endian; absent in one from before there were leaps, until
/// something is written to it.
pub(super) const META_SINCE: &str = "since";
/// The stores before this one, oldest first, and the newest position that each has in common with it; absent in one
/// that was restored from none.
pub(super) const META_LINEAGE: &str = "lineage";
/// There, and empty, where all of [`SESSIONS`] are sealed; absent in a store from before they were.
pub(super) const META_SEALED: &str = "sessions-sealed";
/// There in a backup, and empty: the file is no store.
pub(super) const META_BACKUP: &str = "backup";

/// Account key -> mailbox number.
pub(super) const ACCOUNTS: TableDefinition<'_, &[u8; 32], u32> = TableDefinition::new("accounts");
/// Mailbox number -> its entries and their bytes; then how many of them are requests, and the bytes of those.
pub(super) const MAILBOXES: TableDefinition<'_, u32, (u32, u64, u32, u64)> =
    TableDefinition::new("mailboxes");
/// Mailbox number -> what its tokens are made under.
pub(super) const SECRETS: TableDefinition<'_, u32, &[u8; 32]> = TableDefinition::new("secrets");
/// (Mailbox, token id): which tokens of the present secret are void.
pub(super) const REVOKED: TableDefinition<'_, (u32, u32), ()> = TableDefinition::new("revoked");
/// Device number -> [`Device`].
pub(super) const DEVICES: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("devices");
/// Device key -> device number.
pub(super) const DEVICE_KEYS: TableDefinition<'_, &[u8; 32], u32> = TableDefinition::new("device-keys");
/// Device key -> number of a device that came back from a backup, and has not registered since. It is in no other table of keys.
pub(super) const RETURNING: TableDefinition<'_, &[u8; 32], u32> = TableDefinition::new("returning");
/// Mailboxes that came back from a backup, and none of whose devices has registered since.
pub(super) const CLOSED: TableDefinition<'_, u32, ()> = TableDefinition::new("closed");
/// (Mailbox, device): who reads a mailbox.
pub(super) const READERS: TableDefinition<'_, (u32, u32), ()> = TableDefinition::new("readers");
/// Invite -> accounts it has let in.
pub(super) const INVITES: TableDefinition<'_, u64, u32> = TableDefinition::new("invites");
/// Position -> entry: what [`entry_head`] makes, then the body.
pub(super) const ENTRIES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("entries");
/// (Mailbox, position): each mailbox's order.
pub(super) const QUEUES: TableDefinition<'_, (u32, u64), ()> = TableDefinition::new("queues");
/// (Deadline, position): the order in which entries expire.
pub(super) const DEADLINES: TableDefinition<'_, (u64, u64), ()> = TableDefinition::new("deadlines");
/// (Mailbox, [`collapse_scope`], collapse key) -> the position queued under it.
pub(super) const COLLAPSE: TableDefinition<'_, (u32, &[u8], u64), u64> = TableDefinition::new("collapse");
/// (Device, incarnation, sequence number) -> the digest accepted under it.
pub(super) const ACCEPTED: TableDefinition<'_, (u32, u64, u64), u64> = TableDefinition::new("accepted");
/// (Device, incarnation) -> (floor, numbers kept, last used, its timer).
pub(super) const INCARNATIONS: TableDefinition<'_, (u32, u64), (u64, u32, u64, u64)> =
    TableDefinition::new("incarnations");
/// (Due, device): when to see whether a device has fallen silent.
///
/// Timers are lazy: use does not move them. One that comes due too early is set again, so that a busy
/// device costs one row a lifetime instead of one a settlement.
pub(super) const DEVICE_TIMERS: TableDefinition<'_, (u64, u32), ()> = TableDefinition::new("device-timers");
/// (Due, device, incarnation): when to see whether an incarnation can be forgotten. Lazy too.
pub(super) const INCARNATION_TIMERS: TableDefinition<'_, (u64, u32, u64), ()> =
    TableDefinition::new("incarnation-timers");
/// (Device, key): what others may claim.
pub(super) const ONE_TIME_KEYS: TableDefinition<'_, (u32, &[u8; 32]), ()> =
    TableDefinition::new("one-time-keys");
/// (Device, index) -> a [`MailboxAddress`](thinpost_wire::token::MailboxAddress).
pub(super) const ADDRESSES: TableDefinition<'_, (u32, u16), &[u8; ADDRESS_BYTES]> =
    TableDefinition::new("addresses");
/// (Device, index) -> account key of a sender.
pub(super) const SENDERS: TableDefinition<'_, (u32, u16), &[u8; 32]> = TableDefinition::new("senders");
/// What a session is filed under -> (its place in the order, the session, sealed).
pub(super) const SESSIONS: TableDefinition<'_, &[u8], (u64, &[u8])> = TableDefinition::new("sessions");
/// Place -> what a session is filed under: which is oldest.
pub(super) const SESSION_ORDER: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("session-order");

/// What only grows, and what is counted as it changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    /// The latest time seen.
    pub(super) clock_s: u64,
    /// The newest position given out; 0 before the first. Never given out again, restarts or not.
    pub(super) position: u64,
    /// The newest device number given out.
    pub(super) device: u32,
    /// The newest mailbox number given out.
    pub(super) mailbox: u32,
    /// The newest place in the order of sessions given out.
    pub(super) session: u64,
    /// Bytes of all bodies.
    pub(super) bytes: u64,
}

/// A device's row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Device {
    pub(super) account: [u8; 32],
    pub(super) mailbox: u32,
    pub(super) cursor: u64,
    pub(super) last_seen: u64,
    /// Whether the sweep found it silent; it then has no timer.
    pub(super) silent: bool,
    pub(super) last: Option<ShortIncarnation>,
}

impl Device {
    pub(super) fn record(&self, number: u32) -> DeviceRecord {
        DeviceRecord {
            number: DeviceNo(number),
            account: AccountKey(self.account),
            mailbox: self.mailbox,
            cursor: Position(self.cursor),
            last_seen: RelayTime(self.last_seen),
            last: self.last,
        }
    }
}

/// What stands before an entry's body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct EntryHeader {
    pub(super) mailbox: u32,
    pub(super) sender: Option<[u8; 32]>,
    pub(super) flags: u8,
    pub(super) is_request: bool,
    pub(super) submitter: Option<u32>,
    pub(super) deadline: u64,
    pub(super) stored_at: u64,
    pub(super) age_s: u32,
    pub(super) collapse: Option<u64>,
}

impl EntryHeader {
    pub(super) fn new(append: &Append, mailbox: u32, now: RelayTime, deadline: RelayTime) -> Self {
        Self {
            mailbox,
            sender: append.sender.map(|key| key.0),
            flags: append.flags,
            is_request: append.token.id().is_open(),
            submitter: append.submitter().map(|device| device.0),
            deadline: deadline.0,
            stored_at: now.0,
            age_s: append.age_s,
            collapse: append.collapse,
        }
    }

    /// The entry that this header and a body make. The body is copied once, out of the page.
    pub(super) fn entry(&self, body: &[u8]) -> Entry {
        Entry {
            sender: self.sender.map(AccountKey),
            flags: self.flags,
            is_request: self.is_request,
            submitter: self.submitter.map(DeviceNo),
            deadline: RelayTime(self.deadline),
            stored_at: RelayTime(self.stored_at),
            age_s: self.age_s,
            collapse: self.collapse,
            body: Bytes::copy_from_slice(body),
        }
    }
}

/// Whose envelopes one collapse key may replace: those of the sender that recipients are told of, or
/// else of the device that submitted. 32 and 4 bytes long, so the two cannot meet.
pub(super) fn collapse_scope(sender: Option<[u8; 32]>, submitter: Option<u32>) -> Vec<u8> {
    match sender {
        Some(sender) => sender.to_vec(),
        None => submitter.unwrap_or_default().to_be_bytes().to_vec(),
    }
}

/// The layout of one entry's value: this byte, [`CHECK_BYTES`] of check, the postcard header, the body.
pub(super) const ENTRY_VERSION: u8 = 3;

/// redb verifies its page checksums when it repairs, not when it reads, so an entry carries its own:
/// BLAKE3 over position, header and body, cut to this many bytes. A flipped bit is then an error and
/// never a wrong body.
pub(super) const CHECK_BYTES: usize = 8;

const ENTRY_PREFIX_BYTES: usize = 1 + CHECK_BYTES;

/// The check of two parts that follow each other, and of the place where they stand.
pub(super) fn check(position: u64, parts: [&[u8]; 2]) -> [u8; CHECK_BYTES] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&position.to_be_bytes());
    for part in parts {
        hasher.update(part);
    }
    let mut check = [0; CHECK_BYTES];
    check.copy_from_slice(&hasher.finalize().as_bytes()[..CHECK_BYTES]);
    check
}

/// An entry's value but for its body, which is written straight into the page.
pub(super) fn entry_head(position: u64, header: &EntryHeader, body: &[u8]) -> Result<Vec<u8>, StoreError> {
    let head = postcard::to_extend(header, vec![0; ENTRY_PREFIX_BYTES]).map_err(corrupt("entry header"))?;
    let check = check(position, [&head[ENTRY_PREFIX_BYTES..], body]);
    let mut head = head;
    head[0] = ENTRY_VERSION;
    head[1..ENTRY_PREFIX_BYTES].copy_from_slice(&check);
    Ok(head)
}

/// Splits an entry's value into header and body.
pub(super) fn read_entry(position: u64, value: &[u8]) -> Result<(EntryHeader, &[u8]), StoreError> {
    let damaged = || StoreError::Corrupt(format!("entry {position} fails its check"));
    let (prefix, rest) = value.split_at_checked(ENTRY_PREFIX_BYTES).ok_or_else(damaged)?;
    if prefix[0] != ENTRY_VERSION || prefix[1..] != check(position, [rest, &[]]) {
        return Err(damaged());
    }
    postcard::take_from_bytes(rest).map_err(corrupt("entry header"))
}

/// Encodes a record of this file.
pub(super) fn encode<T: Serialize>(record: &T) -> Result<Vec<u8>, StoreError> {
    postcard::to_stdvec(record).map_err(corrupt("record"))
}

/// Decodes a record of this file, which must fill `value`.
pub(super) fn decode<'a, T: Deserialize<'a>>(what: &'static str, value: &'a [u8]) -> Result<T, StoreError> {
    match postcard::take_from_bytes(value).map_err(corrupt(what))? {
        (record, []) => Ok(record),
        _ => Err(StoreError::Corrupt(format!("{what}: trailing bytes"))),
    }
}

fn corrupt(what: &'static str) -> impl Fn(postcard::Error) -> StoreError {
    move |error| StoreError::Corrupt(format!("{what}: {error}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn header() -> EntryHeader {
        EntryHeader {
            mailbox: 7,
            sender: Some([3; 32]),
            flags: 1,
            is_request: true,
            submitter: Some(9),
            deadline: 90_000,
            stored_at: 4_000,
            age_s: 12,
            collapse: Some(u64::MAX),
        }
    }

    fn value(position: u64, body: &[u8]) -> Vec<u8> {
        let mut value = entry_head(position, &header(), body).unwrap();
        value.extend_from_slice(body);
        value
    }

    #[test]
    fn an_entry_reads_back_as_it_was_written() {
        let value = value(41, b"hello");
        assert_eq!(read_entry(41, &value).unwrap(), (header(), b"hello".as_slice()));
    }

    #[test]
    fn no_flipped_bit_nor_cut_nor_moved_entry_reads_as_an_entry() {
        let value = value(41, b"hello");
        for bit in 0..value.len() * 8 {
            let mut flipped = value.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(read_entry(41, &flipped), Err(StoreError::Corrupt(_))), "bit {bit}");
        }
        for len in 0..value.len() {
            assert!(matches!(read_entry(41, &value[..len]), Err(StoreError::Corrupt(_))), "length {len}");
        }
        assert!(matches!(read_entry(42, &value), Err(StoreError::Corrupt(_))));
    }

    #[test]
    fn the_layout_of_format_3_stands() {
        let state = State { clock_s: 300, position: 2, device: 3, mailbox: 4, session: 5, bytes: 6 };
        assert_eq!(encode(&state).unwrap(), [0xac, 0x02, 2, 3, 4, 5, 6]);
        let last = Some(ShortIncarnation([5; 4]));
        let device = Device { account: [1; 32], mailbox: 2, cursor: 3, last_seen: 4, silent: true, last };
        assert_eq!(encode(&device).unwrap(), [[1; 32].as_slice(), &[2, 3, 4, 1, 1, 5, 5, 5, 5]].concat());
        let head = entry_head(41, &header(), b"hello").unwrap();
        let mut expected = vec![7, 1];
        expected.extend([3; 32]);
        expected.extend([1, 1, 1, 9, 0x90, 0xbf, 0x05, 0xa0, 0x1f, 12, 1]);
        expected.extend([0xff; 9]);
        expected.push(0x01);
        assert_eq!(head[ENTRY_PREFIX_BYTES..], expected);
        assert_eq!(head[0], 3);
    }
}
