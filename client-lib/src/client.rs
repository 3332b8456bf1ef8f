//! The face of the library: what an application asks for.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use thinpost_carrier::Identity;
use thinpost_wire::ids::{AccountKey, DeviceKey, Origin};
use thinpost_wire::letter::{self, Letter, Way};
use thinpost_wire::ticket::ContactTicket;
use thinpost_wire::token::Token;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::builder::{BlockingMode, Builder};
use crate::clock::WallClock;
use crate::contacts::{Contact, Contacts, share_keys};
use crate::driver::{Ask, Told, Wish};
use crate::error::{ContactError, SendError, StoreError};
use crate::event::{Event, LinkState, LinkStatus, Subscription};
use crate::grants::Grants;
use crate::home::{Home, RelayAccess};
use crate::home_clock::HomeClock;
use crate::message::{Content, InboxNumber, Message, MessageId, MessageState, Received};
use crate::notices::{Matter, Notice};
use crate::requests::Requests;
use crate::safety::SafetyNumber;
use crate::seal::Codings;
use crate::store::records::{AccessRow, InboxRow, OutboxRow};
use crate::store::storage::Storage;
use crate::store::{Counts, Numbers, Queued, Store};

/// How many messages are looked through to know which were read.
const READ_MAX: usize = 512;

/// What client, driver and subscriptions share.
pub(crate) struct Shared {
    pub(crate) home: Home,
    pub(crate) store: Store,
    pub(crate) codings: Arc<Codings>,
    pub(crate) numbers: Numbers,
    pub(crate) contacts: Mutex<Contacts>,
    pub(crate) grants: Mutex<Grants>,
    pub(crate) requests: Mutex<Requests>,
    /// Held while a token is granted or revoked.
    pub(crate) granting: Mutex<()>,
    pub(crate) events: broadcast::Sender<Event>,
    pub(crate) inbox_head: watch::Receiver<InboxNumber>,
    pub(crate) status: watch::Receiver<LinkStatus>,
    /// What people are told of.
    pub(crate) wall: Arc<dyn WallClock>,
    /// What waits goes by it.
    pub(crate) clock: Arc<HomeClock>,
    pub(crate) blocking: BlockingMode,
    /// Tells the driver. A message that it does not hear of goes out when the home is opened next.
    pub(crate) driver: mpsc::UnboundedSender<Told>,
}

impl Shared {
    /// Does what touches the disk where it may block. Runs to its end even if the caller stops waiting.
    pub(crate) async fn on_disk<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        match self.blocking {
            BlockingMode::Inline => work(self),
            BlockingMode::Pool => {
                let shared = self.clone();
                match tokio::task::spawn_blocking(move || work(&shared)).await {
                    Ok(result) => result,
                    Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                    // The runtime is shutting down.
                    Err(_) => Err(StoreError::Failed),
                }
            }
        }
    }

    /// Has the driver do what it alone can, and waits until that is on disk.
    pub(crate) async fn ask(&self, ask: Ask) -> Result<(), StoreError> {
        let (answer, answered) = oneshot::channel();
        let _ = self.driver.send(Told::Asked(ask, answer));
        // A driver that has ended answers nobody.
        answered.await.unwrap_or(Err(StoreError::Failed))
    }

    /// Changes under this lock are single calls that do not panic.
    pub(crate) fn contacts(&self) -> MutexGuard<'_, Contacts> {
        self.contacts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn inbox(&self, after: InboxNumber, max: usize) -> Result<Vec<Received>, StoreError> {
        let rows = self.store.inbox(after, max)?;
        let contacts = self.contacts();
        let requests = self.requests();
        let received = |(number, row): (InboxNumber, InboxRow)| {
            let sealed_by = row.name.map(|name| name.with);
            // Who was a stranger when they wrote may be a contact by now, or have told who they are.
            let has_told = |key| requests.values().find(|ticket| ticket.seal.identity == key);
            let known =
                |key| contacts.account_of(&key).or_else(|| has_told(key).map(|ticket| ticket.account));
            let from = row.from.or_else(|| sealed_by.and_then(known));
            Received {
                number,
                from,
                sealed: row.sealed,
                sealed_by,
                contact: from.and_then(|account| contacts.name_of(&account).map(str::to_owned)),
                app_id: row.app_id,
                content: row.content,
                age_s: row.age_s,
                received_unix_ms: row.received_unix_ms,
            }
        };
        Ok(rows.into_iter().map(received).collect())
    }
}

/// How much there is, and how the link stands.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// Messages in the outbox, with those that had been in custody and are sent again.
    pub waiting: u64,
    /// Messages that the relay has taken custody of, ever.
    pub custody: u64,
    /// Messages in custody whose recipient's device has not confirmed them. They are kept, to be sent again
    /// if need be.
    pub unconfirmed: u64,
    /// Messages that failed, ever.
    pub failed: u64,
    /// Messages that the relay had in custody, that no receipt has come for, and that are sent no more.
    pub abandoned: u64,
    /// Messages that have arrived, ever: the last inbox number.
    pub received: InboxNumber,
    /// What a person should know of and has not [acknowledged](Client::acknowledge). What is about a contact goes when
    /// the contact is removed.
    pub notices: Vec<Notice>,
    /// The link, in figures.
    pub link: LinkStatus,
}

#[derive(Debug)]
struct Handle {
    wish: watch::Sender<Wish>,
    driver: Mutex<Option<JoinHandle<()>>>,
}

/// A wish for a link, besides that of [`Client::connect`].
pub(crate) struct Visit<'a> {
    wish: &'a watch::Sender<Wish>,
    /// What was enqueued before this urge is what the visit is for.
    pub(crate) urges: u64,
}

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        self.wish.send_modify(|wish| wish.visits -= 1);
    }
}

/// A person's messages, through one open home. Clones are the same client; when the last is dropped, the
/// link is closed in the background. Use [`Client::close`] where the home is to be opened again.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
    handle: Arc<Handle>,
}

impl Client {
    /// Starts to open a home that [`Home::create`] has made.
    pub fn builder(storage: impl Into<Storage>) -> Builder {
        Builder::new(storage.into())
    }

    pub(crate) fn new(shared: Arc<Shared>, wish: watch::Sender<Wish>, driver: JoinHandle<()>) -> Self {
        Self { shared, handle: Arc::new(Handle { wish, driver: Mutex::new(Some(driver)) }) }
    }

    /// Puts a message in the outbox. When this returns, it is on disk, and goes out whenever the link
    /// allows, now or after any number of restarts.
    ///
    /// # Errors
    /// See [`SendError`]. Cancelling may leave the message in the outbox or not.
    pub async fn send(&self, contact: &str, message: Message) -> Result<MessageId, SendError> {
        let ids = self.send_all(contact, vec![message]).await?;
        Ok(ids[0])
    }

    /// Puts messages in the outbox in this order, all of them or none, at the price of one.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn send_all(&self, contact: &str, messages: Vec<Message>) -> Result<Vec<MessageId>, SendError> {
        let to = {
            let contacts = self.shared.contacts();
            let ticket = contacts.get(contact).cloned();
            let token = ticket.as_ref().and_then(|ticket| contacts.token_of(&ticket.account));
            ticket.zip(token)
        };
        let (ticket, token) = to.ok_or_else(|| SendError::UnknownContact(contact.to_owned()))?;
        let ContactTicket { account: mailbox, seal: keys, models, .. } = ticket;
        let codings = &self.shared.codings;
        let enqueued_ms = self.shared.clock.now_ms();
        let row = |message: Message| -> Result<OutboxRow, SendError> {
            let content = match message.content {
                Content::Text(text) if text.is_empty() => return Err(SendError::Empty),
                Content::Text(text) => letter::Content::Text(text.into()),
                Content::Data(data) => letter::Content::Data(data.into()),
            };
            let letter = Letter { app_id: message.app_id, content };
            let letter = if message.relay_visible {
                codings.encode_open(&keys.identity, &models, &letter)?
            } else {
                letter.encode(Way::Sealed)?
            };
            Ok(OutboxRow {
                mailbox,
                token,
                enqueued_ms,
                app_id: message.app_id,
                // Drawn when it is written.
                written: Origin { incarnation: self.shared.numbers.incarnation(), sequence: 0 },
                number: None,
                seal: (!message.relay_visible).then_some(keys),
                rides_with: None,
                again: 0,
                letter,
            })
        };
        let mut rows = messages.into_iter().map(row).collect::<Result<Vec<_>, _>>()?;
        let enqueue = move |shared: &Shared| {
            let first = shared.store.enqueue(&mut rows, &shared.numbers)?;
            let ids: Vec<_> = (first.0..).map(MessageId).take(rows.len()).collect();
            for (id, row) in ids.iter().zip(&rows) {
                let _ = shared.driver.send(Told::Queued(*id, Queued { number: None, ..row.into() }));
            }
            Ok(ids)
        };
        Ok(self.shared.on_disk(enqueue).await?)
    }

    /// Wants a link from now on, and tries at once if the client was waiting to try again.
    pub fn connect(&self) {
        self.handle.wish.send_modify(|wish| {
            wish.online = true;
            wish.urges += 1;
        });
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Has the driver look for what the relay is to be told, if there is a link.
    pub(crate) fn tell_relay(&self) {
        self.handle.wish.send_modify(|_| {});
    }

    /// What is told from now on, without the inbox.
    pub(crate) fn events(&self) -> broadcast::Receiver<Event> {
        self.shared.events.subscribe()
    }

    /// Wants a link for as long as the visit is kept.
    pub(crate) fn visit(&self) -> Visit<'_> {
        let mut urges = 0;
        self.handle.wish.send_modify(|wish| {
            wish.visits += 1;
            wish.urges += 1;
            urges = wish.urges;
        });
        Visit { wish: &self.handle.wish, urges }
    }

    /// Waits until there is no link, unless somebody wants one.
    pub(crate) async fn link_released(&self) {
        let mut wish = self.handle.wish.subscribe();
        let mut link = self.link_status();
        let is_over = |link: &LinkStatus| link.state == LinkState::Offline || link.state.is_final();
        // The client's driver has ended if either fails, and so has the link.
        tokio::select! {
            _ = wish.wait_for(Wish::wants_link) => {}
            _ = link.wait_for(is_over) => {}
        }
    }

    /// Wants no link. What is on its way gets a moment to be settled; see [`Client::status`] for the end.
    pub fn disconnect(&self) {
        self.handle.wish.send_modify(|wish| wish.online = false);
    }

    /// The device has another network, or a network again: tries at once whether the link still holds, and connects anew
    /// if it does not, if a link is wanted.
    pub fn network_changed(&self) {
        self.handle.wish.send_modify(|wish| wish.hints += 1);
    }

    /// Whether messages are to come at once while the link is at rest, from now on; not by default. A NAT forgets a device that says
    /// nothing, often within a minute, and what is sent to it then waits until it speaks. Staying reachable takes some 30
    /// bytes every 20 s to 15 min, as rarely as the network's NAT allows, which is learned in the first half hour there; and it keeps
    /// waking the device's radio.
    pub fn stay_reachable(&self, reachable: bool) {
        self.handle.wish.send_modify(|wish| wish.reachable = reachable);
    }

    /// Whether bytes matter more from now on than to know at once that the relay has custody; not by default. What both ends answer
    /// for is then gathered for up to ten seconds: some 60 bytes less a message for who writes every few seconds. What was
    /// lost on the way is sent again later, too.
    pub fn save_bytes(&self, saves_bytes: bool) {
        self.handle.wish.send_modify(|wish| wish.saves_bytes = saves_bytes);
    }

    /// Connects anew, if a link is wanted: there is something to say that is said at the beginning only.
    pub(crate) fn renew_link(&self) {
        self.handle.wish.send_modify(|wish| wish.renewals += 1);
    }

    /// Everything that happens from now on, and every message of the inbox after this place; see [`Subscription::seek`].
    pub fn subscribe(&self, after: InboxNumber) -> Subscription {
        Subscription::new(self.shared.clone(), after)
    }

    /// The link's figures, and a way to wait until they change.
    pub fn link_status(&self) -> watch::Receiver<LinkStatus> {
        self.shared.status.clone()
    }

    /// The first messages after a place in the inbox, at most so many.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn inbox(&self, after: InboxNumber, max: usize) -> Result<Vec<Received>, StoreError> {
        self.shared.on_disk(move |shared| shared.inbox(after, max)).await
    }

    /// Forgets messages up to a place in the inbox, to save disk; later ones keep their numbers.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub async fn release_inbox(&self, upto: InboxNumber) -> Result<(), StoreError> {
        self.shared.on_disk(move |shared| shared.store.release_inbox(upto)).await
    }

    /// Tells a contact, with the next receipt, that what came from them up to this place in the inbox has been
    /// read. Messages further back than their last 512 are passed over. When this returns, it is on disk.
    ///
    /// # Errors
    /// When no contact has this name, or the file cannot be read or written.
    pub async fn mark_read(&self, contact: &str, upto: InboxNumber) -> Result<(), ContactError> {
        let from = self.shared.contacts().get(contact).map(|ticket| ticket.account);
        let from = from.ok_or_else(|| ContactError::Unknown(contact.to_owned()))?;
        let names = self.shared.on_disk(move |shared| shared.store.last_names(&from, upto, READ_MAX)).await?;
        Ok(self.shared.ask(Ask::Read(names)).await?)
    }

    /// How far a message is. Known for all in the outbox and in custody, and the last 1,000 besides.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn message_state(&self, message: MessageId) -> Result<Option<MessageState>, StoreError> {
        self.shared.on_disk(move |shared| shared.store.message_state(message)).await
    }

    /// Adds a contact, or brings a known one up to date. If that changes the keys that a known one's messages
    /// are sealed for, [`Event::KeysChanged`] says so.
    ///
    /// # Errors
    /// See [`ContactError`]; nothing is changed.
    pub async fn add_contact(&self, name: &str, ticket: &ContactTicket) -> Result<(), ContactError> {
        if ticket.account == self.account() {
            return Err(ContactError::OwnTicket);
        }
        if share_keys(&ticket.seal, &self.ticket().seal) {
            return Err(ContactError::OwnKeys);
        }
        let contact = Contact { name: name.to_owned(), ticket: ticket.clone() };
        let (had_other_keys, access) = {
            let contacts = self.shared.contacts();
            if !contacts.check(&contact, self.shared.home.access.relay.key)? {
                return Ok(());
            }
            let known = contacts.get(name);
            let had_other_keys = known.is_some_and(|known| known.seal.identity != ticket.seal.identity);
            (had_other_keys, contacts.access_with(&contact))
        };
        let notice = had_other_keys.then_some(Matter::KeysChanged(ticket.account));
        let now_unix_ms = self.shared.wall.unix_ms();
        self.shared
            .on_disk(move |shared| {
                shared.store.put_contact(&contact, &access, notice.map(|matter| (matter, now_unix_ms)))?;
                shared.contacts().insert(contact, access);
                if let Some(event) = notice.and_then(|matter| shared.event_of(matter)) {
                    // Nobody need listen.
                    let _ = shared.events.send(event);
                }
                Ok(())
            })
            .await?;
        Ok(())
    }

    /// Removes a contact. What waits for it in the outbox still goes out.
    ///
    /// # Errors
    /// See [`ContactError`]; nothing is changed.
    pub async fn remove_contact(&self, name: &str) -> Result<(), ContactError> {
        let ticket = self.shared.contacts().get(name).cloned();
        let ticket = ticket.ok_or_else(|| ContactError::Unknown(name.to_owned()))?;
        let contact = Contact { name: name.to_owned(), ticket };
        self.shared
            .on_disk(move |shared| {
                shared.store.remove_contact(&contact)?;
                shared.contacts().remove(&contact);
                Ok(())
            })
            .await?;
        Ok(())
    }

    /// Takes a token that a contact has given otherwise than by a ticket: their messages leave under it from
    /// now on, those that wait already, too, until a ticket with another token is added.
    ///
    /// # Errors
    /// See [`ContactError`]; nothing is changed.
    pub async fn put_token(&self, contact: &str, token: Token) -> Result<(), ContactError> {
        self.change_access(contact, move |access| access.token = Some(token)).await
    }

    /// Whether a contact is told what has arrived of theirs and what was read. They are by default. Of what they
    /// send then, they cannot know whether it was lost; they are told that it was given up, after its lifetime.
    ///
    /// # Errors
    /// See [`ContactError`]; nothing is changed.
    pub async fn set_receipts(&self, contact: &str, receipts: bool) -> Result<(), ContactError> {
        self.change_access(contact, move |access| access.withholds_receipts = !receipts).await
    }

    pub(crate) async fn change_access(
        &self,
        contact: &str,
        change: impl Fn(&mut AccessRow) + Send + 'static,
    ) -> Result<(), ContactError> {
        let account = self.shared.contacts().get(contact).map(|ticket| ticket.account);
        let account = account.ok_or_else(|| ContactError::Unknown(contact.to_owned()))?;
        self.shared
            .on_disk(move |shared| {
                shared.store.change_access(&account, &change)?;
                shared.contacts().change_access(account, change);
                Ok(())
            })
            .await?;
        Ok(())
    }

    /// The number to compare with a contact, to know that nobody stands between the two. None: no contact
    /// has this name.
    pub fn safety_number(&self, contact: &str) -> Option<SafetyNumber> {
        let contacts = self.shared.contacts();
        let theirs = contacts.get(contact)?;
        let home = &self.shared.home;
        let ours = (home.account_key(), home.seal().identity);
        Some(SafetyNumber::of(ours, (theirs.account, theirs.seal.identity)))
    }

    /// All contacts, by name.
    pub fn contacts(&self) -> Vec<Contact> {
        self.shared.contacts().list()
    }

    /// The relay of this home.
    pub fn relay(&self) -> &RelayAccess {
        &self.shared.home.access
    }

    /// This account's key.
    pub fn account(&self) -> AccountKey {
        self.shared.home.account_key()
    }

    /// This device's key.
    pub fn device(&self) -> DeviceKey {
        DeviceKey(Identity::public(&self.shared.home.device))
    }

    /// How much there is, and how the link stands.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn status(&self) -> Result<Status, StoreError> {
        let read = |shared: &Shared| Ok((shared.store.counts()?, shared.notices()?));
        let (counts, notices) = self.shared.on_disk(read).await?;
        let Counts { counters, waiting, unconfirmed } = counts;
        Ok(Status {
            waiting,
            custody: counters.custody,
            unconfirmed,
            failed: counters.failed,
            abandoned: counters.abandoned,
            notices,
            received: InboxNumber(counters.received),
            link: self.shared.status.borrow().clone(),
        })
    }

    /// Closes the link as [`Client::disconnect`] does and waits for it. Subscriptions end. The home is free
    /// to be opened again when every clone of the client and every subscription is dropped, too.
    pub async fn close(self) {
        self.handle.wish.send_modify(|wish| wish.closed = true);
        let driver = self.take_driver();
        if let Some(driver) = driver {
            // Only a panic of the driver is reported here, and it has been printed.
            let _ = driver.await;
        }
    }

    /// Stops in the middle of whatever it is doing, as if the process were killed: for simulations. What
    /// the home holds is what was confirmed.
    pub async fn abort(self) {
        if let Some(driver) = self.take_driver() {
            driver.abort();
            let _ = driver.await;
        }
    }

    fn take_driver(&self) -> Option<JoinHandle<()>> {
        self.handle.driver.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
