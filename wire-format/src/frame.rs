//! What the two ends of a link say to each other: the registry of frames.
//!
//! A frame is a postcard enum: its tag is the variant's index, so variants are only ever appended.
//! Devices and relays speak different enums, so that neither can be sent the other's words.
//! Frames are handled strictly in the order of their numbers on a link; see `PROTOCOL.md`, "Frames".

mod network;
mod objects;

use serde::{Deserialize, Serialize};

pub use self::network::NetworkPrefix;
pub use self::objects::{HELD_RANGES_MAX, HeldRanges, ObjectRefusal};
use crate::batch::Transfer;
use crate::ids::{AccountKey, Handle, ObjectId, OneTimeKey, Origin, Position, StoreId};
use crate::limits::{BODY_BYTES_MAX, FRAME_BYTES_MAX, HANDLES_MAX, OBJECT_BYTES_MAX, ONE_TIME_KEYS_MAX};
use crate::parcel::ShortIncarnation;
use crate::table::TableState;
use crate::ticket::InviteToken;
use crate::token::{MailboxAddress, MailboxSecret, TokenId};

/// An Ed25519 signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature(pub [[u8; 32]; 2]);

impl Signature {
    /// The 64 bytes as RFC 8032 orders them.
    pub fn to_bytes(self) -> [u8; 64] {
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(&self.0[0]);
        bytes[32..].copy_from_slice(&self.0[1]);
        bytes
    }

    /// Takes the 64 bytes of a signature.
    pub fn from_bytes(bytes: &[u8; 64]) -> Self {
        let mut halves = [[0; 32]; 2];
        halves[0].copy_from_slice(&bytes[..32]);
        halves[1].copy_from_slice(&bytes[32..]);
        Self(halves)
    }
}

/// What a device says to a relay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ToRelay<'a> {
    /// The first frame of every link, and only the first.
    Hello(Hello),
    /// Asks to be admitted: the account, its signature over
    /// [`device_certificate_message`](crate::ids::device_certificate_message), and an invite if the relay
    /// wants one. Never acted on before the handshake is complete.
    Register {
        /// The account that this device belongs to.
        account: AccountKey,
        /// The account's signature over the device's key.
        certificate: Signature,
        /// What admits a new account where the relay asks for it.
        invite: Option<InviteToken>,
        /// What the mailbox's tokens are made under, from now on. Another one than before voids all tokens.
        secret: MailboxSecret,
    },
    /// Gives the next free handle of the device's table to a mailbox.
    Bind {
        /// One more than the table's length. A higher one does nothing: the device has not read yet that
        /// the relay cut the table back.
        handle: Handle,
        /// The mailbox, and the right to submit to it. Checked at each submit, not here.
        address: MailboxAddress,
    },
    /// From here on, each submit counts up from this number.
    Numbering(Origin),
    /// Asks for nothing but to be acknowledged: is this link alive?
    Ping,
    /// An envelope with options.
    SubmitWith {
        /// The mailbox, by its handle.
        to: Handle,
        /// How the relay is to treat it.
        options: SubmitOptions,
        /// Opaque to the relay.
        #[serde(borrow)]
        body: &'a [u8],
    },
    /// An envelope as most are: attributed to its sender, kept as long as the relay keeps envelopes.
    Submit {
        /// The mailbox, by its handle.
        to: Handle,
        /// Opaque to the relay.
        #[serde(borrow)]
        body: &'a [u8],
    },
    /// The device has dealt with a temporary refusal: until this frame the relay refuses whatever else
    /// comes for that mailbox, so that nothing overtakes what was refused.
    Resume {
        /// The mailbox, by its handle.
        to: Handle,
    },
    /// As [`ToRelay::Submit`], but the envelope does not name its sender: what is sealed does so inside.
    SubmitUnattributed {
        /// The mailbox, by its handle.
        to: Handle,
        /// Opaque to the relay.
        #[serde(borrow)]
        body: &'a [u8],
    },
    /// Whoever holds this token may no longer submit to the mailbox of the device's account. Never acted on
    /// before the handshake is complete.
    Revoke {
        /// Which token; one that was never made counts as well.
        id: TokenId,
    },
    /// Leaves one-time keys at the relay, for others to claim. Never acted on before the handshake is
    /// complete.
    PutKeys {
        /// Whether those that are kept are to go: the device lacks their secret halves.
        replaces: bool,
        /// At most [`ONE_TIME_KEYS_MAX`]. None that was put on an earlier link: it may have been claimed.
        keys: Vec<OneTimeKey>,
    },
    /// Asks for a one-time key of whoever owns a mailbox. Never acted on before the handshake is complete.
    Claim {
        /// The mailbox, by its handle, whose token must hold.
        to: Handle,
    },
    /// Begins to hand over an object, or goes on with one. Chunks may follow at once, unless some of it may be held from
    /// before: then the device waits for [`ToDevice::ObjectOpened`].
    PutObject {
        /// One more than the last on this link.
        transfer: Transfer,
        /// The BLAKE3 of the whole.
        id: ObjectId,
        /// Bytes, 1 to [`OBJECT_BYTES_MAX`].
        size: u64,
        /// Seconds for which it need be kept; the relay's own lifetime bounds it.
        lifetime_s: Option<u32>,
    },
    /// Asks for an object, or for what is missing of it.
    GetObject {
        /// One more than the last on this link.
        transfer: Transfer,
        /// Which.
        id: ObjectId,
        /// What the device holds of it.
        held: HeldRanges,
    },
    /// Ends a transfer: the device has all of it, or wants no more. Nothing is said to it.
    EndTransfer {
        /// Which.
        transfer: Transfer,
    },
    /// Asks for one [`ToDevice::Call`], when no packet has gone either way for so long. It takes the place of an earlier one that
    /// was not answered yet.
    CallAfter {
        /// Seconds; 0 for at once.
        quiet_s: u16,
    },
    /// From here on acknowledgements may be gathered, both ways: see [`Link::gather_acks`](crate::link::Link::gather_acks).
    GatherAcks {
        /// For so many seconds at most; 0 not to.
        at_most_s: u8,
    },
}

/// The opening of a link: what both sides believe to share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Dictionaries that the device can read, as a bitmap.
    pub dictionaries: u32,
    /// Whether [`ToRelay::Register`] follows: without it, a relay turns away a device that it does not
    /// know.
    pub registers: bool,
    /// Whether the relay is to deliver what waits in the mailbox.
    pub deliver: bool,
    /// The device's handles for mailboxes.
    pub mailboxes: TableState,
    /// The relay's handles for senders, as the device has stored them.
    pub senders: TableState,
    /// How far the device has read, if ever: the store, and the place in it.
    pub have: Option<(StoreId, Position)>,
}

/// How a relay is to treat an envelope.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubmitOptions {
    /// Whether the sender's name stays out of the envelope at the relay.
    pub unattributed: bool,
    /// Seconds after which it need not be delivered; the relay's own lifetime bounds it.
    pub lifetime_s: Option<u32>,
    /// An envelope replaces the queued one of the same sender and key.
    pub collapse_key: Option<u64>,
    /// Seconds that it had waited at the sender when it was submitted.
    pub age_s: u32,
}

/// What a relay says to a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ToDevice<'a> {
    /// The answer to hello.
    Welcome(Welcome),
    /// A submit was not accepted, and is not at the relay.
    Refused {
        /// Which.
        origin: Origin,
        /// Why, and so whether to try again.
        reason: Refusal,
    },
    /// Gives the next handle of the relay's table to a sender.
    Peer {
        /// One more than the table's length.
        handle: Handle,
        /// The sender's account.
        account: AccountKey,
    },
    /// An envelope with what is not ordinary about it.
    DeliverWith {
        /// How much further in the mailbox it stands than the one before it on this link.
        advance: u64,
        /// Its particulars.
        options: DeliverOptions,
        /// As it was submitted.
        #[serde(borrow)]
        body: &'a [u8],
    },
    /// An envelope from a known sender, delivered within two seconds of being written.
    Deliver {
        /// How much further in the mailbox it stands than the one before it on this link; the first
        /// counts from the position in [`Welcome`].
        advance: u64,
        /// Whose it is.
        from: Handle,
        /// As it was submitted.
        #[serde(borrow)]
        body: &'a [u8],
    },
    /// Everything that waited in the mailbox has been delivered by the frames before this one. Once on a
    /// link.
    CaughtUp,
    /// What the relay holds this handle for may be over: it is worth asking again.
    Ready {
        /// The mailbox, by its handle.
        to: Handle,
    },
    /// A token was not revoked: the account has revoked as many as the relay remembers. It has to register
    /// with another secret.
    NotRevoked {
        /// Which token.
        id: TokenId,
    },
    /// The answer to a claim.
    Claimed {
        /// The mailbox, by its handle.
        to: Handle,
        /// A key that nobody else is given. None is no error: none is left, or it was asked for too often.
        key: Option<OneTimeKey>,
    },
    /// The answer to [`ToRelay::PutObject`] and [`ToRelay::GetObject`] where there is nothing against it.
    ObjectOpened {
        /// Which transfer.
        transfer: Transfer,
        /// The object's length, bytes.
        size: u64,
        /// What the relay holds of an object that is put; of one that is asked for, nothing is said.
        held: HeldRanges,
    },
    /// All of an object is at the relay, and is what its name says. The transfer is over.
    ObjectStored {
        /// Which transfer.
        transfer: Transfer,
    },
    /// An object is not taken, or not given. The transfer is over.
    ObjectRefused {
        /// Which transfer.
        transfer: Transfer,
        /// Why.
        reason: ObjectRefusal,
    },
    /// The answer to [`ToRelay::CallAfter`]; also said unasked to a device that was called on this link and has come to another
    /// network since.
    Call {
        /// Where the device is seen.
        network: NetworkPrefix,
    },
}

/// The answer to [`Hello`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// Dictionaries that the relay can read, as a bitmap.
    pub dictionaries: u32,
    /// Names the store that positions belong to.
    pub store: StoreId,
    /// How many of the device's handles the relay knows: all that were announced, or none.
    pub mailboxes_known: u16,
    /// How many of its own handles the relay holds the device to know: all, or none.
    pub senders_known: u16,
    /// Where delivery starts: everything at or below is settled.
    pub cursor: Position,
    /// How many of the device's one-time keys are left.
    pub keys_left: u8,
    /// The first bytes of the [blinded](crate::ids::Incarnation::blinded) incarnation of the last envelope that the
    /// relay accepted from this device: one that the device does not know is that of a newer self.
    pub last: Option<ShortIncarnation>,
}

/// The particulars of a delivered envelope.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliverOptions {
    /// Whose it is, unless it was submitted unattributed.
    pub from: Option<Handle>,
    /// Seconds since it was written: its age when submitted and its stay at the relay.
    pub age_s: u32,
}

/// Why a device is not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum Denial {
    /// It is unknown here, and has not asked to be registered.
    #[error("this device is not registered at the relay")]
    NotRegistered,
    /// New accounts need an invite.
    #[error("the relay admits new accounts by invite only")]
    InviteNeeded,
    /// The invite was not made by this relay.
    #[error("the invite was not made by this relay")]
    InviteForged,
    /// The invite's uses are spent.
    #[error("the invite has been used up")]
    InviteSpent,
    /// The invite's time has passed.
    #[error("the invite has expired")]
    InviteExpired,
    /// The account is not on the relay's list.
    #[error("the account is not on the relay's allow-list")]
    NotListed,
    /// The account's signature does not match, or the device belongs to another account.
    #[error("the device's certificate is not valid")]
    BadCertificate,
    /// The relay takes no new accounts now.
    #[error("the relay takes no new accounts now")]
    Full,
}

/// Why one end closes the connection: the application error code of QUIC's CONNECTION_CLOSE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Close {
    /// Nothing more to say.
    Done,
    /// The relay stops, and may be back at once: reconnect after a short random while.
    Restarting,
    /// The same device has opened another link.
    Superseded,
    /// The other end broke the protocol. Reconnecting to the same version will not help soon.
    Violation,
    /// The device is not admitted; the reason phrase is [`Denial::to_reason`].
    Denied(Denial),
    /// The relay has too many connections, or this device asks too much: come back later.
    Busy,
}

impl Close {
    /// The application error code.
    pub fn code(self) -> u32 {
        match self {
            Self::Done => 0,
            Self::Restarting => 1,
            Self::Superseded => 2,
            Self::Violation => 3,
            Self::Denied(_) => 4,
            Self::Busy => 5,
        }
    }

    /// The reason phrase: empty, but for the denial.
    pub fn reason(self) -> Vec<u8> {
        match self {
            Self::Denied(denial) => denial.to_reason(),
            _ => Vec::new(),
        }
    }

    /// Reads code and reason; `None` for a code that this version does not know.
    pub fn from_wire(code: u64, reason: &[u8]) -> Option<Self> {
        Some(match code {
            0 => Self::Done,
            1 => Self::Restarting,
            2 => Self::Superseded,
            3 => Self::Violation,
            4 => Self::Denied(Denial::from_reason(reason).unwrap_or(Denial::NotRegistered)),
            5 => Self::Busy,
            _ => return None,
        })
    }
}

impl Denial {
    /// One byte, as the reason phrase of [`Close::Denied`].
    pub fn to_reason(self) -> Vec<u8> {
        encode(&self)
    }

    /// Reads [`Denial::to_reason`]; `None` for one that this version does not know.
    pub fn from_reason(reason: &[u8]) -> Option<Self> {
        decode(reason).ok()
    }
}

/// Why a submit is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The handle is bound to nothing: bind it, then submit under a new number.
    #[error("the relay does not know the handle")]
    UnknownHandle,
    /// Nobody has registered that account here, or not yet.
    #[error("the recipient has no mailbox at the relay")]
    NoSuchMailbox,
    /// The mailbox's quota is used up; it may have room later.
    #[error("the recipient's mailbox is full")]
    MailboxFull,
    /// Too much in too short a time: try again after so many seconds.
    #[error("too many messages for now; again in {retry_after_s} s")]
    TooFast {
        /// Seconds until it may be accepted.
        retry_after_s: u32,
    },
    /// The relay is short of disk or memory for now.
    #[error("the relay has no room for now")]
    RelayFull,
    /// The body is larger than the relay takes.
    #[error("the message is larger than the relay takes")]
    TooLarge,
    /// Another envelope was accepted under the same number.
    #[error("the number was used for another message")]
    NumberReused,
    /// The number is older than the relay remembers: whether a message of this number was accepted, it
    /// cannot tell. A device must not let an undecided number fall this far behind.
    #[error("the number is older than the relay remembers")]
    NumberSettled,
    /// The token under which it was submitted was revoked, or never made by the recipient.
    #[error("the recipient has withdrawn the ticket, and takes nothing that is sent with it")]
    NotWanted,
}

impl Refusal {
    /// Whether the same body may be accepted later under a new number.
    pub fn is_temporary(self) -> bool {
        match self {
            Self::UnknownHandle
            | Self::NoSuchMailbox
            | Self::MailboxFull
            | Self::TooFast { .. }
            | Self::RelayFull => true,
            Self::TooLarge | Self::NumberReused | Self::NumberSettled | Self::NotWanted => false,
        }
    }
}

/// Why bytes are not a frame. The peer is at fault; nothing of the frame was acted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The tag is in no registry of this version, or the bytes do not fit the tag.
    #[error("the bytes are no frame of this version")]
    Malformed,
    /// The frame ends, and bytes follow.
    #[error("{0} bytes follow the frame")]
    Trailing(usize),
    /// A frame or body above the limit.
    #[error("the frame is longer than {FRAME_BYTES_MAX} bytes, or its body than {BODY_BYTES_MAX}")]
    TooLong,
    /// A handle of zero, or above the limit.
    #[error("the handle {0} is out of range")]
    BadHandle(u16),
    /// More one-time keys than a relay keeps.
    #[error("{0} one-time keys are more than {ONE_TIME_KEYS_MAX}")]
    TooManyKeys(usize),
    /// An object of no length, or longer than any may be.
    #[error("an object of {0} bytes")]
    BadSize(u64),
    /// Ranges of an object that overlap, touch, are empty, too many, or beyond its end.
    #[error("what is held of an object makes no sense")]
    BadRanges,
}

impl<'a> ToRelay<'a> {
    /// The frame's bytes.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads exactly one frame; bodies are borrowed, and nothing but keys and ranges is allocated, a few times as many
    /// bytes as the frame has.
    ///
    /// # Errors
    /// When the bytes are anything but one frame.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, FrameError> {
        let frame = decode(bytes)?;
        match &frame {
            Self::Bind { handle: to, .. } | Self::Resume { to } | Self::Claim { to } => check_handle(*to)?,
            Self::PutKeys { keys, .. } if keys.len() > ONE_TIME_KEYS_MAX => {
                return Err(FrameError::TooManyKeys(keys.len()));
            }
            Self::Submit { to, body }
            | Self::SubmitUnattributed { to, body }
            | Self::SubmitWith { to, body, .. } => {
                check_handle(*to)?;
                check_body(body)?;
            }
            Self::PutObject { size, .. } => check_size(*size)?,
            Self::GetObject { held, .. } => held.check(OBJECT_BYTES_MAX)?,
            Self::Hello(_)
            | Self::EndTransfer { .. }
            | Self::Register { .. }
            | Self::Numbering(_)
            | Self::Ping
            | Self::Revoke { .. }
            | Self::PutKeys { .. }
            | Self::CallAfter { .. }
            | Self::GatherAcks { .. } => {}
        }
        Ok(frame)
    }
}

impl<'a> ToDevice<'a> {
    /// The frame's bytes.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads exactly one frame; bodies are borrowed, and nothing but ranges is allocated, a few times as many bytes as the
    /// frame has.
    ///
    /// # Errors
    /// When the bytes are anything but one frame.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, FrameError> {
        let frame = decode(bytes)?;
        match &frame {
            Self::Peer { handle: to, .. } | Self::Ready { to } | Self::Claimed { to, .. } => {
                check_handle(*to)?
            }
            Self::Deliver { from, body, .. } => {
                check_handle(*from)?;
                check_body(body)?;
            }
            Self::DeliverWith { options, body, .. } => {
                options.from.map_or(Ok(()), check_handle)?;
                check_body(body)?;
            }
            Self::ObjectOpened { size, held, .. } => {
                check_size(*size)?;
                held.check(*size)?;
            }
            Self::Welcome(_)
            | Self::Refused { .. }
            | Self::CaughtUp
            | Self::NotRevoked { .. }
            | Self::ObjectStored { .. }
            | Self::ObjectRefused { .. }
            | Self::Call { .. } => {}
        }
        Ok(frame)
    }
}

fn check_size(size: u64) -> Result<(), FrameError> {
    if (1..=OBJECT_BYTES_MAX).contains(&size) { Ok(()) } else { Err(FrameError::BadSize(size)) }
}

fn encode(frame: &impl Serialize) -> Vec<u8> {
    postcard::to_stdvec(frame).expect("frames hold nothing that postcard cannot write")
}

fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, FrameError> {
    if bytes.len() > FRAME_BYTES_MAX {
        return Err(FrameError::TooLong);
    }
    let (frame, rest) = postcard::take_from_bytes(bytes).map_err(|_| FrameError::Malformed)?;
    if rest.is_empty() { Ok(frame) } else { Err(FrameError::Trailing(rest.len())) }
}

fn check_handle(handle: Handle) -> Result<(), FrameError> {
    if (1..=HANDLES_MAX).contains(&handle.0) { Ok(()) } else { Err(FrameError::BadHandle(handle.0)) }
}

fn check_body(body: &[u8]) -> Result<(), FrameError> {
    if body.len() <= BODY_BYTES_MAX { Ok(()) } else { Err(FrameError::TooLong) }
}

#[cfg(test)]
mod tests;
