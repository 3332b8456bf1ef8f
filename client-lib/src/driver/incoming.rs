//! Turns a relay's frames into changes of the home.

use thinpost_wire::codec::DictionarySet;
use thinpost_wire::frame::{NetworkPrefix, Refusal, ToDevice, Welcome};
use thinpost_wire::ids::{AccountKey, Handle, Origin, Position};
use thinpost_wire::letter::{Content, Letter, LetterError, is_sealed};
use thinpost_wire::link::Link;
use thinpost_wire::parcel::Parcel;
use tokio::time::Instant;

use super::Driver;
use super::introductions::account_of;
use super::outgoing::Outgoing;
use crate::event::{Event, LinkState};
use crate::kept::Name;
use crate::message::{Failure, ReceivedContent};
use crate::seal::{Identity, OpenSealError, stranger_bytes_max};
use crate::store::records::InboxRow;

/// What the relay did that no relay may do.
pub(super) type Misbehaviour = &'static str;

/// How far the relay has spoken on one link.
#[derive(Debug)]
pub(super) struct Incoming {
    /// How many handles for mailboxes this device announced.
    announced: u16,
    /// The place of the last delivery; none before the relay's welcome.
    position: Option<Position>,
    /// Whether the relay has delivered all that waited.
    caught_up: bool,
    /// How many of this device's one-time keys were left there when it welcomed, or after they were refilled.
    pub(super) keys_left: usize,
    /// Whether there were more than this device has secret halves for: its home is an old copy.
    pub(super) keys_are_foreign: bool,
    /// Where the relay has seen the device, if it has called.
    pub(super) called: Option<NetworkPrefix>,
}

impl Incoming {
    pub(super) fn new(announced: u16) -> Self {
        Self {
            announced,
            position: None,
            caught_up: false,
            keys_left: 0,
            keys_are_foreign: false,
            called: None,
        }
    }

    pub(super) fn is_welcomed(&self) -> bool {
        self.position.is_some()
    }

    pub(super) fn is_caught_up(&self) -> bool {
        self.caught_up
    }
}

impl Driver {
    /// Acts on one frame; the next commit makes it durable.
    pub(super) fn incoming(
        &mut self,
        incoming: &mut Incoming,
        outgoing: &mut Outgoing,
        link: &mut Link,
        frame: &[u8],
    ) -> Result<(), Misbehaviour> {
        match ToDevice::decode(frame) {
            Ok(ToDevice::Welcome(welcome)) => self.welcome(incoming, outgoing, link, &welcome),
            Ok(_) if !incoming.is_welcomed() => Err("the relay did not answer the greeting first"),
            Ok(ToDevice::Refused { origin, reason }) => {
                self.refused(outgoing, origin, reason);
                Ok(())
            }
            Ok(ToDevice::Peer { handle, account }) => {
                let before = handle.0 - 1;
                if before > self.senders.len() {
                    return Err("the relay left out a sender's handle");
                }
                self.senders.truncate(before);
                self.senders.push(account);
                self.senders.settle(handle.0);
                Ok(())
            }
            Ok(ToDevice::Deliver { advance, from, body }) => {
                self.deliver(incoming, advance, Some(from), 0, body)
            }
            Ok(ToDevice::DeliverWith { advance, options, body }) => {
                self.deliver(incoming, advance, options.from, options.age_s, body)
            }
            Ok(ToDevice::CaughtUp) => {
                incoming.caught_up = true;
                Ok(())
            }
            Ok(ToDevice::Ready { to }) => {
                // A handle that was cut since is of no interest.
                if let Some(to) = self.mailboxes.entry(to) {
                    self.outbox.end_pause(&to.mailbox, Instant::now());
                }
                Ok(())
            }
            Ok(ToDevice::Claimed { to, key }) => {
                self.claimed(outgoing, to, key);
                Ok(())
            }
            Ok(ToDevice::ObjectOpened { transfer, size, held }) => {
                self.object_opened(link, transfer, size, &held)
            }
            Ok(ToDevice::ObjectStored { transfer }) => {
                self.object_stored(link, transfer);
                Ok(())
            }
            Ok(ToDevice::ObjectRefused { transfer, reason }) => {
                self.object_refused(link, transfer, reason);
                Ok(())
            }
            Ok(ToDevice::NotRevoked { id }) => {
                outgoing.not_revoked(id);
                self.tell(Event::RevocationsFull);
                Ok(())
            }
            Ok(ToDevice::Call { network }) => {
                incoming.called = Some(network);
                Ok(())
            }
            Ok(_) | Err(_) => Err("the relay sent what is no frame of this version"),
        }
    }

    fn welcome(
        &mut self,
        incoming: &mut Incoming,
        outgoing: &mut Outgoing,
        link: &mut Link,
        welcome: &Welcome,
    ) -> Result<(), Misbehaviour> {
        if incoming.is_welcomed() {
            return Err("the relay answered the greeting twice");
        }
        if welcome.mailboxes_known > incoming.announced || welcome.senders_known > self.senders.len() {
            return Err("the relay knows handles that were never given");
        }
        if welcome.mailboxes_known < incoming.announced {
            self.mailboxes.truncate(welcome.mailboxes_known);
            outgoing.forget_binds();
        }
        self.senders.truncate(welcome.senders_known);
        self.relay.dictionaries = welcome.dictionaries;
        link.set_peer_dictionaries(DictionarySet::from_bits(welcome.dictionaries));
        let is_known = welcome.last.is_none_or(|last| self.relay.knows(last));
        let had = self.relay.have.replace((welcome.store, welcome.cursor));
        let has_read_less = match had {
            Some((store, have)) if store == welcome.store => {
                // Or the relay has not heard yet of what was read last.
                self.relay.have = Some((store, have.max(welcome.cursor)));
                have < welcome.cursor
            }
            other_store => {
                if let Some((store, _)) = other_store {
                    tracing::debug!("the relay's store is another one");
                    self.relay.has_left(store);
                    self.relay_lost_all();
                }
                // Whoever has read there is this device, and not this home.
                welcome.cursor > Position(0) && !self.relay.earlier_stores.contains(&welcome.store)
            }
        };
        if has_read_less || !is_known {
            self.notice_copy();
        }
        self.relay.address = self.address as u8;
        incoming.position = Some(welcome.cursor);
        let keys_left = usize::from(welcome.keys_left);
        incoming.keys_are_foreign = keys_left > self.seals.one_time_keys_unused();
        incoming.keys_left = incoming.keys_left.max(keys_left);
        self.retry.succeeded();
        self.set_state(LinkState::Online);
        Ok(())
    }

    fn refused(&mut self, outgoing: &mut Outgoing, origin: Origin, reason: Refusal) {
        // A repeat of what was said on an earlier link, perhaps.
        let Some(id) = outgoing.resolve(origin) else { return };
        tracing::debug!(id = id.0, %reason, "refused");
        if reason.is_temporary() {
            if reason != Refusal::UnknownHandle
                && !id.is_notes()
                && let Some((to, app_id)) = self.outbox.addressee(id)
            {
                self.tell(Event::Delayed { message: id, app_id, to, reason });
            }
            self.changes.unnumbered.extend(self.outbox.refused(id, reason, Instant::now()));
        } else if reason == Refusal::NumberSettled && self.outbox.is_repeat(id) {
            self.take_custody(id);
        } else if reason == Refusal::NumberSettled {
            // It was never given this before: a number was used twice. Another one tells.
            self.changes.unnumbered.extend(self.outbox.refused(id, reason, Instant::now()));
        } else {
            self.changes.failed.push((id, Failure::Refused(reason)));
        }
    }

    fn deliver(
        &mut self,
        incoming: &mut Incoming,
        advance: u64,
        from: Option<Handle>,
        age_s: u32,
        body: &[u8],
    ) -> Result<(), Misbehaviour> {
        let before = incoming.position.unwrap_or_default().0;
        let position = Position(before.checked_add(advance).ok_or("a position beyond all numbers")?);
        incoming.position = Some(position);
        let from = match from {
            Some(handle) => Some(self.senders.entry(handle).ok_or("the relay used a handle it never gave")?),
            None => None,
        };
        let Some((_, have)) = &mut self.relay.have else { return Err("a delivery before the greeting") };
        if position <= *have {
            // It was delivered before, and the link broke before the relay knew.
            return Ok(());
        }
        *have = position;
        if is_sealed(body) {
            self.open(body, age_s);
        } else {
            self.take_letter(body, from, None, age_s);
        }
        Ok(())
    }

    /// Opens what is sealed. A repeat, or what comes too late to be told from one, says that a receipt is missing, perhaps: it was lost
    /// with a relay's store. What no key opens is of no use to anyone, and dropped: whoever sent it keeps it until a receipt. So they do
    /// with what is coded with a text model that is not here.
    fn open(&mut self, body: &[u8], age_s: u32) {
        let Self { seals, shared, changes, .. } = self;
        let opened = seals.open(body, |from| account_of(shared, changes, from).is_some());
        let (identity, parcel) = match opened {
            Ok(opened) => opened,
            Err(OpenSealError::Repeat(from)) => {
                tracing::debug!("an envelope came again");
                return self.confirm_anew(&from);
            }
            Err(OpenSealError::NoSession(from)) if self.shared.contacts().account_of(&from).is_some() => {
                tracing::warn!("a contact has sealed for a key that is gone");
                return self.ask_again(&from);
            }
            Err(OpenSealError::Lacking(from, _)) if self.shared.contacts().account_of(&from).is_some() => {
                tracing::warn!("a contact has coded with a text model that is not here");
                return self.ask_again(&from);
            }
            Err(OpenSealError::TooMuch(from) | OpenSealError::Lacking(from, _)) => {
                // Their home keeps it, and sends it again, each time sealed anew: when they are a contact it is read.
                tracing::warn!(
                    "what a stranger has sealed grows too much, or its text model is not here; it is dropped"
                );
                return self.heard_of(&from);
            }
            Err(OpenSealError::Content(from, content)) => {
                tracing::warn!("a sealed envelope is not coded as it should be; it is kept as it came");
                let account = self.account_of(&from);
                self.heard_of(&from);
                return self.keep_unreadable(account, age_s, content);
            }
            Err(error @ (OpenSealError::NoSession(_) | OpenSealError::Foreign)) => {
                tracing::warn!(%error, bytes = body.len(), "a sealed envelope is dropped");
                return self.tell(Event::Unopened);
            }
        };
        // It was read before.
        let Ok(parcel) = Parcel::decode(&parcel) else { return };
        if let Some(introduction) = &parcel.notes.introduction {
            self.introduced(&identity, introduction);
        }
        let from = self.account_of(&identity);
        self.heard_of(&identity);
        if let Some(account) = &from {
            self.welcome_contact(&identity, account);
        }
        let Parcel { incarnation, notes, items } = parcel;
        if !items.is_empty() {
            self.schedule_notes(&identity);
        }
        let now_s = self.shared.clock.now_ms() / 1_000;
        for item in items {
            if self.seals.is_new(&identity, incarnation, item.number, now_s) {
                let name = Name::new(identity, incarnation, item.number);
                self.take_letter(item.letter, from, Some(name), age_s);
            }
        }
        self.heed(&identity, &notes);
    }

    /// Notes whether somebody is a contact.
    fn heard_of(&mut self, with: &Identity) {
        let Self { seals, shared, changes, .. } = self;
        seals.heard_of(with, |with| account_of(shared, changes, with).is_some());
    }

    /// Takes a letter that was sealed, and then has a name, or that the relay could read.
    fn take_letter(&mut self, letter: &[u8], from: Option<AccountKey>, name: Option<Name>, age_s: u32) {
        let sealed = name.is_some();
        let read = match sealed {
            true => Letter::decode_sealed(letter),
            false => self.read_open(letter, from),
        };
        let (app_id, content) = match read {
            Ok(Letter { app_id, content: Content::Text(text) }) => {
                (app_id, ReceivedContent::Text(text.into_owned()))
            }
            Ok(Letter { app_id, content: Content::Data(data) }) => {
                (app_id, ReceivedContent::Data(data.into_owned()))
            }
            Err(error) => {
                tracing::warn!(%error, "a letter cannot be read; it is kept as it came");
                (None, ReceivedContent::Unreadable(letter.to_vec()))
            }
        };
        let row = self.arrival(from, age_s, content);
        self.changes.received.push(InboxRow { sealed, name, app_id, ..row });
    }

    /// Reads what the relay could read, too.
    fn read_open<'l>(&self, letter: &'l [u8], from: Option<AccountKey>) -> Result<Letter<'l>, LetterError> {
        let is_contact = |account: AccountKey| {
            let new = self.changes.contacts.iter().any(|contact| contact.ticket.account == account);
            new || self.shared.contacts().name_of(&account).is_some()
        };
        let bytes_max =
            if from.is_some_and(is_contact) { usize::MAX } else { stranger_bytes_max(letter.len()) };
        Letter::decode_within(letter, self.shared.codings.models(), bytes_max)
    }

    /// Keeps something sealed that cannot be read.
    fn keep_unreadable(&mut self, from: Option<AccountKey>, age_s: u32, bytes: Vec<u8>) {
        let row = self.arrival(from, age_s, ReceivedContent::Unreadable(bytes));
        self.changes.received.push(InboxRow { sealed: true, ..row });
    }

    fn arrival(&self, from: Option<AccountKey>, age_s: u32, content: ReceivedContent) -> InboxRow {
        let received_unix_ms = self.shared.wall.unix_ms();
        InboxRow { from, sealed: false, name: None, app_id: None, age_s, received_unix_ms, content }
    }
}
