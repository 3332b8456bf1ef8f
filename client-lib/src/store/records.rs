//! The tables of a home's file, and what their rows hold.
//!
//! Numbers are keys, records are postcard, encrypted. A change of any of them is another [`FORMAT`], and so is one of what
//! is sealed: it leaves as it was sealed, and nobody else could read it.

use serde::{Deserialize, Serialize};
use thinpost_wire::ids::{AccountKey, AppId, Incarnation, Origin, Position, StoreId};
use thinpost_wire::parcel::ShortIncarnation;
use thinpost_wire::ticket::{ContactTicket, InviteToken, SealKeys};
use thinpost_wire::token::{MailboxAddress, MailboxSecret, Token};

use super::PairRow;
use super::table::{Rows, Single};
use super::vault::Hidden;
use crate::grants::Grant;
use crate::home_clock::ClockRecord;
use crate::kept::Name;
use crate::message::{MessageId, MessageState, ReceivedContent};
use crate::notices::NoticeRow;
use crate::objects::ObjectRow;
use crate::reach::Networks;

/// This version of the layout.
pub(crate) const FORMAT: u32 = 6;

/// Contacts, by their hidden names.
pub(super) const CONTACTS: Rows<Hidden, ContactRow> = Rows::new("contacts");
/// What is to be sent, by message id.
pub(super) const OUTBOX: Rows<u64, OutboxRow> = Rows::new("outbox");
/// What the relay has taken and the recipient has not confirmed, by message id.
pub(super) const KEPT: Rows<u64, KeptRow> = Rows::new("kept");
/// The last messages that are neither to be sent nor kept any more, by message id.
pub(super) const DONE: Rows<u64, DoneRow> = Rows::new("done");
/// What is sealed, by the id of the first message in it.
pub(super) const SEALED: Rows<u64, SealedRow> = Rows::new("sealed");
/// What is shared with other devices, by their hidden identity keys.
pub(super) const PAIRS: Rows<Hidden, PairRow> = Rows::new("pairs");
/// What arrived, by inbox number.
pub(super) const INBOX: Rows<u64, InboxRow> = Rows::new("inbox");
/// The device's handles for mailboxes, as far as the relay has settled them.
pub(super) const MAILBOXES: Rows<u16, MailboxAddress> = Rows::new("mailboxes");
/// The relay's handles for senders.
pub(super) const SENDERS: Rows<u16, AccountKey> = Rows::new("senders");

/// Tokens of this home's mailbox, by id.
pub(super) const GRANTS: Rows<u32, Grant> = Rows::new("grants");
/// How it stands with an account, beyond what its ticket says, by its hidden key.
pub(super) const ACCESS: Rows<Hidden, (AccountKey, AccessRow)> = Rows::new("access");

/// Tickets of strangers who have made themselves known, by their hidden accounts.
pub(super) const REQUESTS: Rows<Hidden, String> = Rows::new("requests");

/// What a person should know of and has not acknowledged, by number.
pub(super) const NOTICES: Rows<u64, NoticeRow> = Rows::new("notices");

/// Objects that are to be handed over, to be fetched, or here, by number.
pub(super) const OBJECTS: Rows<u64, ObjectRow> = Rows::new("objects");
/// Their bytes, by number and offset.
pub(super) const OBJECT_BYTES: Rows<u64, Vec<u8>> = Rows::new("object bytes");

/// Four bytes, little endian, in every format there will be. Alone of all it is not encrypted.
pub(super) const META_FORMAT: &str = "format";
pub(super) const HOME: Single<HomeRecord> = Single::new("home");
/// Absent from homes that were made before there was one, and from those that nothing has changed yet.
pub(super) const CLOCK: Single<ClockRecord> = Single::new("clock");
/// As [`Keyring`](crate::seal::Keyring) writes it.
pub(super) const KEYRING: Single<Vec<u8>> = Single::new("keyring");
pub(super) const RELAY: Single<RelayRecord> = Single::new("relay");
pub(super) const COUNTERS: Single<Counters> = Single::new("counters");

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
    /// Blinded incarnations that have tried for a link: up to [`EARLIER_MAX`] from before the one that the relay spoke of last, that
    /// one, and all since.
    pub(crate) incarnations: Vec<ShortIncarnation>,
    /// The relay's stores before the present one: an operator may put one back.
    pub(crate) earlier_stores: Vec<StoreId>,
    /// How long the NATs on the way to it remember.
    pub(crate) networks: Networks,
}

/// How many incarnations a home knows for its own: those of three days in which it is opened each minute and the relay does not
/// answer.
const INCARNATIONS_MAX: usize = 4_096;

/// How many of them are from before the last that the relay has heard: a relay that was put back may speak of one.
const EARLIER_MAX: usize = 63;

/// How many stores a home knows again.
const STORES_MAX: usize = 16;

impl RelayRecord {
    /// The relay has another store than this one now.
    pub(crate) fn has_left(&mut self, store: StoreId) {
        self.earlier_stores.retain(|earlier| *earlier != store);
        self.earlier_stores.push(store);
        if self.earlier_stores.len() > STORES_MAX {
            self.earlier_stores.remove(0);
        }
    }

    /// An incarnation tries for a link, and may submit.
    pub(crate) fn add_incarnation(&mut self, blinded: ShortIncarnation) {
        if !self.incarnations.contains(&blinded) {
            self.incarnations.push(blinded);
            if self.incarnations.len() > INCARNATIONS_MAX {
                // Those before are what the relay speaks of, if none that came later was heard.
                self.incarnations.remove(EARLIER_MAX + 1);
            }
        }
    }

    /// The relay says that the last envelope from this device was of this incarnation. Whether it is one of this
    /// home's; from now on it is.
    pub(crate) fn knows(&mut self, blinded: ShortIncarnation) -> bool {
        let known = self.incarnations.iter().position(|known| *known == blinded);
        let place = known.unwrap_or_else(|| {
            // Of a newer self, which was there before this opening.
            let place = self.incarnations.len().saturating_sub(1);
            self.incarnations.insert(place, blinded);
            place
        });
        self.incarnations.drain(..place.saturating_sub(EARLIER_MAX));
        known.is_some()
    }
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
    pub(crate) abandoned: u64,
    /// Parcels of notes that went out alone.
    pub(crate) notes: u64,
    /// The last number of a notice.
    pub(crate) notices: u64,
    /// The last number of an object.
    pub(crate) objects: u64,
}

/// Someone to write to.
#[derive(Serialize, Deserialize)]
pub(crate) struct ContactRow {
    pub(crate) name: String,
    pub(crate) ticket: String,
}

/// A message to be sent; or with an empty letter nothing but notes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OutboxRow {
    pub(crate) mailbox: AccountKey,
    /// The contact's when it was written; it leaves under the present one as long as there is a contact.
    pub(crate) token: Token,
    /// By the [home's clock](crate::home_clock).
    pub(crate) enqueued_ms: u64,
    pub(crate) app_id: Option<AppId>,
    /// What the recipient knows it by, if it is to be sealed: counts up for each of them. A copy of the home
    /// that sends it, too, names it the same.
    pub(crate) written: Origin,
    /// The number under which the relay may have taken custody. None: it certainly has not.
    pub(crate) number: Option<Origin>,
    /// What it is to be sealed for. None: the relay may read it.
    pub(crate) seal: Option<SealKeys>,
    /// It is sealed together with this earlier message, and shares its fate.
    pub(crate) rides_with: Option<MessageId>,
    /// How often it has been in custody already.
    pub(crate) again: u8,
    pub(crate) letter: Vec<u8>,
}

impl OutboxRow {
    /// Nothing but notes.
    pub(crate) fn notes(to: &ContactTicket, incarnation: Incarnation, enqueued_ms: u64) -> Self {
        Self {
            mailbox: to.account,
            token: to.token,
            enqueued_ms,
            app_id: None,
            written: Origin { incarnation, sequence: 0 },
            number: None,
            seal: Some(to.seal),
            rides_with: None,
            again: 0,
            letter: Vec::new(),
        }
    }

    /// What its recipient knows it by; none if it is no message, or told from repeats by the relay.
    pub(crate) fn name(&self) -> Option<Name> {
        let keys = self.seal.filter(|_| !self.letter.is_empty())?;
        Some(Name::new(keys.identity, self.written.incarnation.into(), self.written.sequence))
    }
}

/// A message in custody that its recipient has not confirmed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeptRow {
    pub(crate) row: OutboxRow,
    /// See [`Kept::leave`](crate::kept::Kept::leave).
    pub(crate) left: u64,
}

/// What goes to the relay for a message and those that ride with it. It never changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SealedRow {
    pub(crate) body: Vec<u8>,
    pub(crate) riders: Vec<MessageId>,
}

/// How it stands with an account, beyond what its ticket says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AccessRow {
    /// Takes the place of the ticket's.
    pub(crate) token: Option<Token>,
    /// They are not told what has arrived and what was read.
    pub(crate) withholds_receipts: bool,
    /// Their own token was taken back: they are given no other.
    pub(crate) shut_out: bool,
}

/// A message that is done with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DoneRow {
    pub(crate) mailbox: AccountKey,
    pub(crate) app_id: Option<AppId>,
    pub(crate) state: MessageState,
    /// As in [`OutboxRow`] and [`KeptRow`].
    pub(crate) name: Option<Name>,
    pub(crate) left: u64,
}

impl DoneRow {
    pub(super) fn new(row: &OutboxRow, state: MessageState, left: u64) -> Self {
        // Only what has arrived can be read, and says anything about what left before it; and only what may have
        // arrived can be confirmed yet.
        let has_left =
            matches!(state, MessageState::Delivered | MessageState::Read | MessageState::Abandoned(_));
        let name = row.name().filter(|_| has_left);
        Self { mailbox: row.mailbox, app_id: row.app_id, state, name, left }
    }
}

/// A message that arrived.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct InboxRow {
    pub(crate) from: Option<AccountKey>,
    /// Nobody on the way could read it.
    pub(crate) sealed: bool,
    /// What its sender knows it by, if it was sealed and could be read.
    pub(crate) name: Option<Name>,
    pub(crate) app_id: Option<AppId>,
    pub(crate) age_s: u32,
    pub(crate) received_unix_ms: u64,
    pub(crate) content: ReceivedContent,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_home_knows_all_openings_since_the_last_that_was_heard_and_some_before() {
        let opening = |n: u32| ShortIncarnation(n.to_le_bytes());
        let mut relay = RelayRecord::default();
        (0..2_000).for_each(|n| relay.add_incarnation(opening(n)));
        assert!(relay.knows(opening(0)), "none was heard since");
        assert!(relay.knows(opening(1_000)));
        assert!(relay.knows(opening(1_000 - EARLIER_MAX as u32)), "a relay that was put back");
        assert!(!relay.knows(opening(999 - EARLIER_MAX as u32)));
        assert!(relay.knows(opening(1_999)), "this one");
        // What a newer self has sent under is known from then on, as one from before this opening.
        assert!(!relay.knows(opening(5_000)));
        assert!(relay.knows(opening(5_000)) && relay.knows(opening(1_999)));
    }

    #[test]
    fn what_the_relay_has_heard_outlasts_all_that_it_has_not() {
        let opening = |n: u32| ShortIncarnation(n.to_le_bytes());
        let mut relay = RelayRecord::default();
        for n in 0..100 {
            relay.add_incarnation(opening(n));
            assert!(relay.knows(opening(n)));
        }
        (100..10_000).for_each(|n| relay.add_incarnation(opening(n)));
        assert_eq!(relay.incarnations.len(), INCARNATIONS_MAX);
        assert!(relay.knows(opening(99)));
        assert!(relay.knows(opening(9_999)));
    }
}
