//! What goes into the store and what comes out of it.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use thinpost_wire::ids::{AccountKey, DeviceKey, ObjectId, OneTimeKey, Origin, Position};
use thinpost_wire::parcel::ShortIncarnation;
use thinpost_wire::token::{MailboxAddress, MailboxSecret, Token, TokenId};
use thiserror::Error;

use super::clock::RelayTime;
use super::objects::ObjectNo;

/// Names a registered device within one store; never given to another device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceNo(pub u32);

/// Entries of one of a device's two handle tables, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TableTail {
    /// The device's handles for the mailboxes it submits to.
    ToRelay(Vec<MailboxAddress>),
    /// The relay's handles for the senders it delivers from.
    FromRelay(Vec<AccountKey>),
}

impl TableTail {
    /// How many entries.
    pub fn len(&self) -> usize {
        match self {
            Self::ToRelay(addresses) => addresses.len(),
            Self::FromRelay(accounts) => accounts.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// One change asked of the store.
#[derive(Clone)]
pub enum Op {
    /// Makes a device known, and its account too when it is the account's first here.
    Register(Register),
    /// Puts an envelope at the tail of a mailbox.
    Append(Append),
    /// Moves a device's cursor up to `upto`; what every live device of the account has settled is let go.
    ///
    /// A cursor never moves backward, nor past the newest position the store has given out.
    Settle {
        /// Whose cursor.
        device: DeviceNo,
        /// Everything at or below is settled.
        upto: Position,
    },
    /// Notes that a device is alive: it holds its account's log for another lifetime.
    Seen {
        /// Which device.
        device: DeviceNo,
    },
    /// Cuts a handle table to `from` entries, then appends `tail`.
    PutTable {
        /// Whose table.
        device: DeviceNo,
        /// How many of the present entries stay.
        from: u16,
        /// Which of its two, and the entries that follow.
        tail: TableTail,
    },
    /// Nothing more is accepted under a token of the device's account.
    Revoke {
        /// Whose token.
        device: DeviceNo,
        /// Which of the account's.
        id: TokenId,
    },
    /// Keeps one-time keys for others to claim, as many as there is room for. One that is kept already
    /// changes nothing.
    PutKeys {
        /// Whose keys.
        device: DeviceNo,
        /// Whether those that are kept go before.
        replaces: bool,
        /// In this order, if not all fit.
        keys: Vec<OneTimeKey>,
    },
    /// Takes out a one-time key of any live device that reads a mailbox. It is never given again.
    Claim {
        /// Who asks.
        device: DeviceNo,
        /// Whose key, and the right to ask, as for an [`Append`].
        address: MailboxAddress,
    },
    /// Makes an object known to a device's account, or finds the one that the account has under this name,
    /// whichever of its devices opened it. It is kept at least this much longer.
    ///
    /// A new one counts with its whole size at once, so that what was begun can be brought to its end.
    OpenObject {
        /// Whose account.
        device: DeviceNo,
        /// The object's name.
        id: ObjectId,
        /// How long the whole is, bytes.
        size: u64,
        /// How much longer it is worth keeping, seconds from now; capped by
        /// [`super::StoreConfig::lifetime_s_max`].
        lifetime_s: u32,
    },
    /// Holds a piece of an object. What is held of it already stays as it is, and a complete object takes nothing.
    PutChunk {
        /// Which object.
        object: ObjectNo,
        /// Where in it the piece begins, bytes.
        offset: u64,
        /// The piece.
        bytes: Bytes,
    },
    /// Notes that an object is whole and is what its name says, which the caller has compared
    /// ([`super::Store::object_digest`]).
    CompleteObject {
        /// Which object.
        object: ObjectNo,
    },
    /// Lets an object go, complete or not.
    DropObject {
        /// Which object.
        object: ObjectNo,
    },
    /// Removes what has expired. One call's work is bounded by `rows_max` rows and the remains of the
    /// last device, incarnation or object it came to.
    Sweep {
        /// About how many rows to remove at most.
        rows_max: u32,
    },
}

/// See [`Op::Register`]. Whether the account vouches for the device, and whether registration is open
/// at all, the caller has checked.
#[derive(Clone, Debug)]
pub struct Register {
    /// Whose mailbox the device reads.
    pub account: AccountKey,
    /// The device's TLS key.
    pub device: DeviceKey,
    /// Charged when the account is new; `None` lets any account in.
    pub invite: Option<Invite>,
    /// What the account's tokens are made under from now on. Another one than before voids them all, and
    /// forgets which were revoked.
    pub secret: MailboxSecret,
    /// How far the device has read, by its own word, in what this store has in common with the one that it was restored
    /// from. Counts for a device that came back from the backup, and registers for the first time since.
    pub read: Position,
}

/// An invite, and how many accounts it lets in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Invite {
    /// Names the invite.
    pub id: [u8; 8],
    /// Most accounts that may register with it.
    pub uses_max: u32,
}

/// See [`Op::Append`].
#[derive(Clone)]
pub struct Append {
    /// The device that submits.
    pub device: DeviceNo,
    /// What the recipient is told of the sender; `None` when the envelope is not attributed.
    pub sender: Option<AccountKey>,
    /// Names the envelope among all of that device's. The incarnation is [blinded](thinpost_wire::ids::Incarnation::blinded).
    pub origin: Origin,
    /// The recipient.
    pub mailbox: AccountKey,
    /// The right to submit to it. Under an open one the envelope counts as a request, too.
    pub token: Token,
    /// The caller's; kept as it is.
    pub flags: u8,
    /// How much longer the envelope is worth delivering, seconds from now; capped by
    /// [`super::StoreConfig::lifetime_s_max`]. What `age_s` has used up is not taken off again.
    pub lifetime_s: u32,
    /// How old the envelope was when it was submitted, seconds; kept for the recipient.
    pub age_s: u32,
    /// The newest envelope of one sender, mailbox and key replaces the queued one. Envelopes that are
    /// not attributed are told apart by the submitting device instead: nobody may replace another's.
    pub collapse: Option<u64>,
    /// The envelope's opaque content, at most [`thinpost_wire::limits::BODY_BYTES_MAX`] bytes.
    pub body: Bytes,
    /// Tells a repeat from another envelope under the same origin.
    pub digest: [u8; 8],
    /// Only says whether it was accepted before: if not, it is refused as [`Refusal::NotNow`]. What is
    /// turned away for the caller's own reasons goes through here, because the device that hears of a
    /// refusal sends the envelope again under a new origin.
    pub repeat_only: bool,
}

/// An envelope in a mailbox.
#[derive(Clone, PartialEq, Eq)]
pub struct Entry {
    /// As submitted.
    pub sender: Option<AccountKey>,
    /// As submitted.
    pub flags: u8,
    /// It was submitted by a stranger, under an open token. Which token it was is not kept.
    pub is_request: bool,
    /// The device that submitted it, where that must be known: of what is not attributed and has a collapse key.
    pub submitter: Option<DeviceNo>,
    /// When it stops being worth delivering. A reader may still see it until the next sweep.
    pub deadline: RelayTime,
    /// When the store accepted it.
    pub stored_at: RelayTime,
    /// How old it already was then, seconds.
    pub age_s: u32,
    /// As submitted.
    pub collapse: Option<u64>,
    /// As submitted.
    pub body: Bytes,
}

// Bodies and chunks stay out of logs, so none of these types derives Debug.
impl fmt::Debug for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Register(register) => register.fmt(f),
            Self::Append(append) => append.fmt(f),
            Self::Settle { device, upto } => {
                f.debug_struct("Settle").field("device", device).field("upto", upto).finish()
            }
            Self::Seen { device } => f.debug_struct("Seen").field("device", device).finish(),
            Self::PutTable { device, from, tail } => f
                .debug_struct("PutTable")
                .field("device", device)
                .field("from", from)
                .field("tail", tail)
                .finish(),
            Self::Revoke { device, id } => {
                f.debug_struct("Revoke").field("device", device).field("id", id).finish()
            }
            Self::PutKeys { device, replaces, keys } => f
                .debug_struct("PutKeys")
                .field("device", device)
                .field("replaces", replaces)
                .field("keys", keys)
                .finish(),
            Self::Claim { device, address } => {
                f.debug_struct("Claim").field("device", device).field("address", address).finish()
            }
            Self::OpenObject { device, id, size, lifetime_s } => f
                .debug_struct("OpenObject")
                .field("device", device)
                .field("id", id)
                .field("size", size)
                .field("lifetime_s", lifetime_s)
                .finish(),
            Self::PutChunk { object, offset, bytes } => f
                .debug_struct("PutChunk")
                .field("object", object)
                .field("offset", offset)
                .field("bytes", &bytes.len())
                .finish(),
            Self::CompleteObject { object } => {
                f.debug_struct("CompleteObject").field("object", object).finish()
            }
            Self::DropObject { object } => f.debug_struct("DropObject").field("object", object).finish(),
            Self::Sweep { rows_max } => f.debug_struct("Sweep").field("rows_max", rows_max).finish(),
        }
    }
}

impl Append {
    /// Whom a collapse key belongs to when recipients are told of no sender.
    pub(super) fn submitter(&self) -> Option<DeviceNo> {
        (self.sender.is_none() && self.collapse.is_some()).then_some(self.device)
    }
}

impl fmt::Debug for Append {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Append")
            .field("device", &self.device)
            .field("origin", &self.origin)
            .field("mailbox", &self.mailbox)
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("is_request", &self.is_request)
            .field("deadline", &self.deadline)
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// What became of one [`Op`]. A refusal changed nothing, and says nothing about the ops around it.
pub type Verdict = Result<Done, Refusal>;

/// What an accepted [`Op`] did. It is on disk before anyone reads this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// The device is known, whether it was before or not.
    Registered {
        /// Its number.
        device: DeviceNo,
        /// Its account's number.
        mailbox: u32,
        /// Whether this call made it known, or known again after the store was restored.
        new: bool,
    },
    /// The envelope is in custody.
    Accepted {
        /// Its place.
        position: Position,
    },
    /// The same envelope was accepted before; custody is still, or was, the store's. Answer it the same.
    Repeat,
    /// The cursor is where it should be.
    Settled {
        /// Whose mailbox it is.
        account: AccountKey,
        /// Where the cursor is now.
        cursor: Position,
        /// How many entries no reader held any more.
        released: u32,
    },
    /// Noted.
    Seen,
    /// The table ends with the entries given.
    TablePut,
    /// The token is revoked, whether it was before or not.
    Revoked,
    /// The keys are kept, as far as there was room.
    KeysPut,
    /// The claim was heard.
    Claimed {
        /// The key; `None` when no live device has any left.
        key: Option<OneTimeKey>,
    },
    /// The object is known.
    ObjectOpened {
        /// Its number.
        object: ObjectNo,
        /// Whether there is nothing left to put.
        is_complete: bool,
    },
    /// All of the chunk is held, whoever put it.
    ChunkPut,
    /// The object is complete, whether it was before or not.
    ObjectCompleted,
    /// The object is gone, or there was none.
    ObjectDropped,
    /// Some or all of what was due is gone.
    Swept {
        /// How many entries expired, or were held by none but silent devices; and how many objects expired.
        removed: u32,
        /// Whether more is due now.
        more: bool,
    },
}

/// Why an [`Op`] changed nothing. Unless said otherwise it stays refused however often it is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The device key belongs to another account here.
    #[error("the device is registered to another account")]
    DeviceOfAnother,
    /// The account has as many devices as one may have.
    #[error("the account has too many devices")]
    TooManyDevices,
    /// The invite has let in as many accounts as it may.
    #[error("the invite is used up")]
    InviteSpent,
    /// No device has this number.
    #[error("no such device")]
    UnknownDevice,
    /// Another envelope was accepted under this origin: the device's home was restored from an old copy,
    /// or it is broken. To be sent under a new origin.
    #[error("another envelope was accepted under this number")]
    Conflict,
    /// The origin is older than what repeats are recognised for. It may or may not have been accepted.
    #[error("the number is older than the relay remembers")]
    Stale,
    /// The mailbox is at its quota, or at that for requests. Worth repeating later.
    #[error("the mailbox is full")]
    MailboxFull,
    /// The token was revoked, or is none of the mailbox's.
    #[error("the token does not hold")]
    NotWanted,
    /// The account has revoked as many tokens as are remembered. Another secret voids all.
    #[error("too many tokens are revoked")]
    RevocationsFull,
    /// The store holds as much as it may, or the disk is low. Worth repeating later.
    #[error("the relay is full")]
    StoreFull,
    /// The account has no mailbox here.
    #[error("no such mailbox")]
    NoSuchMailbox,
    /// It was not accepted before, and the caller wants no more than to know that. See
    /// [`Append::repeat_only`].
    #[error("not accepted before, and not to be now")]
    NotNow,
    /// The body exceeds [`super::StoreConfig::body_bytes_max`].
    #[error("the envelope is too long")]
    TooLong,
    /// The handle table has fewer entries than were to be kept.
    #[error("the handle table has only {entries} entries")]
    TableGap {
        /// How many it has.
        entries: u16,
    },
    /// The object has no byte, or more than an object of this relay may have.
    #[error("the object is too long, or empty")]
    ObjectTooLong,
    /// The account keeps as many objects, or as many bytes of them, as it may. Worth repeating later.
    #[error("the account keeps too many objects")]
    ObjectQuota,
    /// The object is known with another size, or the chunk reaches beyond the size: somebody's bytes are
    /// not the object's.
    #[error("the object has another size")]
    ObjectConflict,
    /// The object would be held in more pieces than [`super::StoreConfig::object_ranges_max`]. Chunks that
    /// touch what is held are still taken; worth repeating once gaps are closed.
    #[error("the object is held in too many pieces")]
    ObjectScattered,
    /// Not all of the object is held yet.
    #[error("the object is not all here")]
    ObjectIncomplete,
    /// No object has this number: it was let go or has expired. To be opened again.
    #[error("no such object")]
    UnknownObject,
    /// The handle table would exceed [`super::StoreConfig::handles_max`].
    #[error("the handle table is full")]
    TableFull,
}

/// What the store knows of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceRecord {
    /// Its number.
    pub number: DeviceNo,
    /// Whose device it is.
    pub account: AccountKey,
    /// Its account's number.
    pub mailbox: u32,
    /// Everything at or below is settled; [`Position`] 0 before the first settlement.
    pub cursor: Position,
    /// When it last settled, or was last seen.
    pub last_seen: RelayTime,
    /// The incarnation of the last envelope that was accepted from it, [blinded](thinpost_wire::ids::Incarnation::blinded).
    pub last: Option<ShortIncarnation>,
}

/// A device's handle tables; entry 0 first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HandleTables {
    /// See [`TableTail::ToRelay`].
    pub to_relay: Vec<MailboxAddress>,
    /// See [`TableTail::FromRelay`].
    pub from_relay: Vec<AccountKey>,
}

/// How full a mailbox is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MailboxUsage {
    /// Everything in it.
    pub all: Usage,
    /// What of that strangers have submitted.
    pub requests: Usage,
}

/// How much there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Entries.
    pub entries: u32,
    /// Their bodies' length, bytes.
    pub bytes: u64,
}

/// The store's size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Accounts registered.
    pub accounts: u64,
    /// Devices registered.
    pub devices: u64,
    /// Entries in all mailboxes.
    pub entries: u64,
    /// Their bodies' length, bytes.
    pub bytes: u64,
    /// Objects of all accounts, complete or not.
    pub objects: u64,
    /// Their sizes, bytes.
    pub object_bytes: u64,
}

/// Keeps a sender's envelopes in order within one call: behind an append that was refused for now, no
/// other of the same device to the same mailbox is accepted. Repeats are still known.
#[derive(Default)]
pub(super) struct Order {
    refused: BTreeMap<(DeviceNo, AccountKey), Refusal>,
}

impl Order {
    /// Why an append is not to be accepted, unless it was before.
    pub(super) fn bars(&self, op: &Op) -> Option<Refusal> {
        let Op::Append(append) = op else { return None };
        let before = self.refused.get(&(append.device, append.mailbox)).copied();
        before.or(append.repeat_only.then_some(Refusal::NotNow))
    }

    pub(super) fn note(&mut self, op: &Op, verdict: Option<&Verdict>) {
        let Some(Err(refusal)) = verdict else { return };
        let for_now = matches!(
            refusal,
            Refusal::MailboxFull | Refusal::StoreFull | Refusal::NoSuchMailbox | Refusal::NotNow
        );
        if let (Op::Append(append), true) = (op, for_now) {
            self.refused.insert((append.device, append.mailbox), *refusal);
        }
    }
}
