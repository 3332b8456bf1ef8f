//! The tables of a home's file, and what their rows hold.
//!
//! Numbers are keys, records are postcard. A change of any of them is another [`FORMAT`].

use redb::TableDefinition;
use serde::{Deserialize, Serialize};
use thinpost_wire::ids::{AccountKey, AppId, Origin, Position, StoreId};
use thinpost_wire::ticket::{InviteToken, SealKeys};
use thinpost_wire::token::{ADDRESS_BYTES, MailboxSecret, Token};

use crate::message::{Failure, MessageId, ReceivedContent};

/// This version of the layout.
pub(crate) const FORMAT: u32 = 3;

pub(super) const META: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("meta");
/// Contact tickets by name.
pub(super) const CONTACTS: TableDefinition<'static, &str, &str> = TableDefinition::new("contacts");
/// What is to be sent, by message id.
pub(super) const OUTBOX: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("outbox");
/// The last messages that left the outbox, by message id.
pub(super) const DONE: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("done");
/// What is sealed, by the id of the first message in it.
pub(super) const SEALED: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("sealed");
/// What is shared with other devices, by their identity keys.
pub(super) const PAIRS: TableDefinition<'static, &[u8; 32], &[u8]> = TableDefinition::new("pairs");
/// What arrived, by inbox number.
pub(super) const INBOX: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("inbox");
/// The device's handles for mailboxes, as far as the relay has settled them.
pub(super) const MAILBOXES: TableDefinition<'static, u16, &[u8; ADDRESS_BYTES]> =
    TableDefinition::new("mailboxes");
/// The relay's handles for senders.
pub(super) const SENDERS: TableDefinition<'static, u16, &[u8; 32]> = TableDefinition::new("senders");

/// Tokens of this home's mailbox, by id: a [`Grant`](crate::grants::Grant) each.
pub(super) const GRANTS: TableDefinition<'static, u32, &[u8]> = TableDefinition::new("grants");
/// How to reach an account beyond what its ticket says: an [`AccessRow`].
pub(super) const ACCESS: TableDefinition<'static, &[u8; 32], &[u8]> = TableDefinition::new("access");

/// Four bytes, little endian, in every format there will be.
pub(super) const META_FORMAT: &str = "format";
pub(super) const META_HOME: &str = "home";
pub(super) const META_KEYRING: &str = "keyring";
pub(super) const META_RELAY: &str = "relay";
pub(super) const META_COUNTERS: &str = "counters";

/// How many rows of [`DONE`] are kept.
pub(super) const DONE_KEPT: u64 = 1_000;

/// Who this is. Of it the way to the relay changes until the relay has confirmed it, and the secret whenever
/// its owner says so.
#[derive(Serialize, Deserialize)]
pub(crate) struct HomeRecord {
    pub(crate) account_seed: [u8; 32],
    pub(crate) device_seed: [u8; 32],
    /// A ticket.
    pub(crate) relay: String,
    pub(crate) invite: Option<InviteToken>,
    /// What the mailbox's tokens are made under.
    pub(crate) secret: MailboxSecret,
}

/// What the relay and this device share, and what was learned of the way to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RelayRecord {
    /// The relay has confirmed the registration.
    pub(crate) registered: bool,
    /// The mailbox's secret that the relay was told with it.
    pub(crate) secret: MailboxSecret,
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

/// A message to be sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OutboxRow {
    pub(crate) mailbox: AccountKey,
    /// The contact's when it was written; it leaves under the present one as long as there is a contact.
    pub(crate) token: Token,
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

/// How to reach an account beyond what its ticket says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AccessRow {
    /// Takes the place of the ticket's.
    pub(crate) token: Option<Token>,
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
