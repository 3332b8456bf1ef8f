//! The tables of a home's file, and what their rows hold.
//!
//! Numbers are keys, records are postcard, encrypted. A change of any of them is another [`FORMAT`].

use serde::{Deserialize, Serialize};
use thinpost_wire::ids::{AccountKey, AppId, Origin, Position, StoreId};
use thinpost_wire::ticket::{InviteToken, SealKeys};

use super::PairRow;
use super::table::{Rows, Single};
use super::vault::Hidden;
use crate::message::{Failure, MessageId, ReceivedContent};

/// This version of the layout.
pub(crate) const FORMAT: u32 = 3;

/// Contacts, by their hidden names.
pub(super) const CONTACTS: Rows<Hidden, ContactRow> = Rows::new("contacts");
/// What is to be sent, by message id.
pub(super) const OUTBOX: Rows<u64, OutboxRow> = Rows::new("outbox");
/// The last messages that left the outbox, by message id.
pub(super) const DONE: Rows<u64, DoneRow> = Rows::new("done");
/// What is sealed, by the id of the first message in it.
pub(super) const SEALED: Rows<u64, SealedRow> = Rows::new("sealed");
/// What is shared with other devices, by their hidden identity keys.
pub(super) const PAIRS: Rows<Hidden, PairRow> = Rows::new("pairs");
/// What arrived, by inbox number.
pub(super) const INBOX: Rows<u64, InboxRow> = Rows::new("inbox");
/// The device's handles for mailboxes, as far as the relay has settled them.
pub(super) const MAILBOXES: Rows<u16, AccountKey> = Rows::new("mailboxes");
/// The relay's handles for senders.
pub(super) const SENDERS: Rows<u16, AccountKey> = Rows::new("senders");

/// Four bytes, little endian, in every format there will be. Alone of all it is not encrypted.
pub(super) const META_FORMAT: &str = "format";
pub(super) const HOME: Single<HomeRecord> = Single::new("home");
/// As [`Keyring`](crate::seal::Keyring) writes it.
pub(super) const KEYRING: Single<Vec<u8>> = Single::new("keyring");
pub(super) const RELAY: Single<RelayRecord> = Single::new("relay");
pub(super) const COUNTERS: Single<Counters> = Single::new("counters");

/// How many rows of [`DONE`] are kept.
pub(super) const DONE_KEPT: u64 = 1_000;

/// Who this is. Of it only the way to the relay ever changes, until the relay has confirmed it.
#[derive(Serialize, Deserialize)]
pub(crate) struct HomeRecord {
    pub(crate) account_seed: [u8; 32],
    pub(crate) device_seed: [u8; 32],
    /// A ticket.
    pub(crate) relay: String,
    pub(crate) invite: Option<InviteToken>,
}

/// What the relay and this device share, and what was learned of the way to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RelayRecord {
    /// The relay has confirmed the registration.
    pub(crate) registered: bool,
    /// Everything up to here in this store's mailbox is in the inbox.
    pub(crate) have: Option<(StoreId, Position)>,
    /// Dictionaries that the relay can read, as a bitmap.
    pub(crate) dictionaries: u32,
    /// The last link's smoothed round-trip time; 0 if none was measured.
    pub(crate) rtt_us: u64,
    /// Which of the relay's addresses answered last.
    pub(crate) address: u8,
}

/// Numbers given so far, and what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counters {
    /// The last message id given.
    pub(crate) messages: u64,
    /// The last inbox number given.
    pub(crate) received: u64,
    pub(crate) custody: u64,
    pub(crate) failed: u64,
}

/// Someone to write to.
#[derive(Serialize, Deserialize)]
pub(crate) struct ContactRow {
    pub(crate) name: String,
    pub(crate) ticket: String,
}

/// A message to be sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OutboxRow {
    pub(crate) mailbox: AccountKey,
    pub(crate) enqueued_unix_ms: u64,
    pub(crate) app_id: Option<AppId>,
    /// What the recipient knows it by: a copy of the home that sends it, too, names it the same.
    pub(crate) written: Origin,
    /// The number under which the relay may have taken custody. None: it certainly has not.
    pub(crate) number: Option<Origin>,
    /// What it is to be sealed for. None: the relay may read it.
    pub(crate) seal: Option<SealKeys>,
    /// It is sealed together with this earlier message, and shares its fate.
    pub(crate) rides_with: Option<MessageId>,
    pub(crate) letter: Vec<u8>,
}

/// What goes to the relay for a message and those that ride with it. It never changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SealedRow {
    pub(crate) body: Vec<u8>,
    pub(crate) riders: Vec<MessageId>,
}

/// A message that has left the outbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DoneRow {
    pub(crate) mailbox: AccountKey,
    pub(crate) app_id: Option<AppId>,
    pub(crate) failure: Option<Failure>,
}

/// A message that arrived.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct InboxRow {
    pub(crate) from: Option<AccountKey>,
    /// Nobody on the way could read it.
    pub(crate) sealed: bool,
    pub(crate) app_id: Option<AppId>,
    pub(crate) age_s: u32,
    pub(crate) received_unix_ms: u64,
    pub(crate) content: ReceivedContent,
}
