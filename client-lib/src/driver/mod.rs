//! The shell around one link: datagrams and time in, commits and events out.
//!
//! [`Driver::run`] is the life of the link: when it is wanted, when to try again. `attempt` makes a
//! connection, `session` moves frames while it lasts, `outgoing` turns outbox rows into frames,
//! `incoming` turns frames into changes of the home, `notes` deals in receipts.

mod attempt;
mod handles;
mod incoming;
mod introductions;
mod keys;
mod knock;
mod notes;
mod objects;
mod outgoing;
mod reaching;
mod retry;
mod sealing;
mod session;
mod tokens;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use thinpost_carrier::quic;
use thinpost_wire::ids::{AccountKey, AppId};
use thinpost_wire::notes::Introduction;
use thinpost_wire::token::{MailboxAddress, Token};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

use crate::client::Shared;
use crate::error::StoreError;
use crate::event::{Event, LinkState, LinkStatus};
use crate::kept::{Kept, Name};
use crate::message::{Abandonment, Failure, InboxNumber, MessageId};
use crate::network::{Meter, Network};
use crate::objects::{ObjectNumber, ObjectRow};
use crate::outbox::Outbox;
use crate::random::Random;
use crate::seal::{Codings, Identity, Keyring, Seals};
use crate::store::records::RelayRecord;
use crate::store::{Changes, Loaded, Queued};
use handles::Handles;
use notes::Answered;
use objects::Objects;
use retry::{End, Next, Retry};

/// Assumed until a round trip was measured: 2G's.
const RTT_UNKNOWN: Duration = Duration::from_secs(1);

/// Assumed at least where round trips were quick: three of them are more than a full packet takes through a quiet modem of
/// 20 kbit/s, if the next network is such a one.
const RTT_QUICK: Duration = Duration::from_millis(500);

/// How often the outbox is searched for what has expired, at least.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(3600);

/// What the application wants; the counters say that it has asked again.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wish {
    /// Until it says otherwise.
    pub(crate) online: bool,
    /// Whether the link is to be kept such that the relay can speak at any time.
    pub(crate) reachable: bool,
    /// Whether bytes matter more than when custody is known.
    pub(crate) saves_bytes: bool,
    /// How many [`Client::sync`](crate::Client::sync) are under way.
    pub(crate) visits: u32,
    /// Ends a pause.
    pub(crate) urges: u64,
    /// Ends a pause or a link.
    pub(crate) renewals: u64,
    /// Ends a pause, or a link that does not prove itself: the network may be another one.
    pub(crate) hints: u64,
    pub(crate) closed: bool,
}

impl Wish {
    pub(crate) fn wants_link(&self) -> bool {
        (self.online || self.visits > 0) && !self.closed
    }

    /// Whether acknowledgements may be gathered: nobody waits for them, and the link is to last.
    pub(crate) fn gathers(&self) -> bool {
        self.saves_bytes && self.online && self.visits == 0 && !self.closed
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    pub(crate) keepalive: Option<Duration>,
    pub(crate) lifetime: Duration,
}

impl Default for Options {
    /// As long as relays keep envelopes, and no keepalive: it keeps a phone's radio awake.
    fn default() -> Self {
        Self { keepalive: None, lifetime: Duration::from_secs(30 * 24 * 3600) }
    }
}

/// What the application has done that the driver must know of.
#[derive(Debug)]
pub(crate) enum Told {
    /// A message is in the outbox.
    Queued(MessageId, Queued),
    /// An object is to be handed over or fetched.
    Object(ObjectNumber, ObjectRow),
    /// An object was forgotten.
    ObjectGone(ObjectNumber),
    /// The driver alone can do this, as it holds what it changes. It answers once that is on disk.
    Asked(Ask, Answer),
}

/// What the application asks of the driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// Messages up to these have been read.
    Read(Vec<Name>),
    /// This account is to be made known to somebody.
    Introduce(Identity, Introduction),
}

type Answer = oneshot::Sender<Result<(), StoreError>>;

/// What the driver starts from.
pub(crate) struct Start {
    relay: RelayRecord,
    outbox: Outbox,
    kept: Kept,
    seals: Seals,
    objects: Objects,
    mailboxes: Handles<MailboxAddress>,
    senders: Handles<AccountKey>,
}

impl Start {
    pub(crate) fn new(loaded: Loaded, keyring: Keyring, codings: Arc<Codings>) -> Result<Self, StoreError> {
        let mut outbox = Outbox::default();
        for (id, queued) in &loaded.outbox {
            outbox.insert(*id, queued);
        }
        let mut seals = Seals::new(keyring, codings, &loaded.pairs)?;
        for with in seals.everyone() {
            seals.heard_of(&with, |with| {
                loaded.contacts.iter().any(|contact| contact.ticket.seal.identity == *with)
            });
        }
        let mut objects = Objects::default();
        objects.load(loaded.objects);
        Ok(Self {
            seals,
            objects,
            relay: loaded.relay,
            outbox,
            kept: loaded.kept,
            mailboxes: Handles::new(loaded.mailboxes),
            senders: Handles::new(loaded.senders),
        })
    }
}

/// The ends of channels that the driver holds.
pub(crate) type Ends = (
    watch::Receiver<Wish>,
    mpsc::UnboundedReceiver<Told>,
    watch::Sender<InboxNumber>,
    watch::Sender<LinkStatus>,
);

pub(crate) struct Driver {
    shared: Arc<Shared>,
    network: Arc<dyn Network>,
    options: Options,
    quic: quic::Client,
    random: Random,
    /// Whether endpoints, too, must follow from the seed.
    seeded: bool,
    wish: watch::Receiver<Wish>,
    /// All that was enqueued before this urge is in the outbox.
    urges_seen: u64,
    told: mpsc::UnboundedReceiver<Told>,
    heads: watch::Sender<InboxNumber>,
    status: watch::Sender<LinkStatus>,
    meter: Arc<Meter>,
    retry: Retry,
    outbox: Outbox,
    kept: Kept,
    seals: Seals,
    objects: Objects,
    /// What is told once the next commit has made it so.
    tell_after: Vec<Event>,
    /// Whom this home has asked for all that it has not confirmed.
    asked_again: BTreeMap<Identity, Instant>,
    confirmed_anew: BTreeMap<Identity, Answered>,
    /// Contacts who are to be given a token of their own with the next notes: none where it is not made yet.
    tokens: BTreeMap<Identity, Option<Token>>,
    mailboxes: Handles<MailboxAddress>,
    senders: Handles<AccountKey>,
    relay: RelayRecord,
    /// As it is in the store.
    relay_stored: RelayRecord,
    /// What the next commit holds beside tables and [`Driver::relay`].
    changes: Changes,
    /// Who waits for the next commit.
    asked: Vec<Answer>,
    /// The home's file has failed: what could not be written is gone from memory as well, perhaps, so that nothing
    /// that seems to hold can be promised any more.
    failed: bool,
    expiry_due: Instant,
    /// Which of the relay's addresses is tried next.
    address: usize,
    /// The contact of which a one-time key was claimed last.
    claimed_upto: Option<AccountKey>,
    /// No handle is left for one more recipient, or one more token: the next link begins with none.
    needs_new_handles: bool,
}

impl Driver {
    pub(crate) fn new(
        shared: Arc<Shared>,
        start: Start,
        network: Arc<dyn Network>,
        options: Options,
        (random, seeded): (Random, bool),
        (wish, told, heads, status): Ends,
    ) -> Self {
        let address = start.relay.address.into();
        let quic = quic::Client::new(&shared.home.device, shared.home.access.relay.key);
        Self {
            shared,
            network,
            options,
            quic,
            random,
            seeded,
            wish,
            urges_seen: 0,
            told,
            heads,
            status,
            meter: Arc::default(),
            retry: Retry::default(),
            outbox: start.outbox,
            kept: start.kept,
            seals: start.seals,
            objects: start.objects,
            tell_after: Vec::new(),
            asked_again: BTreeMap::new(),
            confirmed_anew: BTreeMap::new(),
            tokens: BTreeMap::new(),
            mailboxes: start.mailboxes,
            senders: start.senders,
            relay_stored: start.relay.clone(),
            relay: start.relay,
            changes: Changes::default(),
            asked: Vec::new(),
            failed: false,
            expiry_due: Instant::now(),
            address,
            claimed_upto: None,
            needs_new_handles: false,
        }
    }

    /// Lives until the client is closed or dropped.
    pub(crate) async fn run(mut self) {
        let mut stopped_at: Option<Wish> = None;
        self.failed |= self.look_at_whole().await.is_err();
        loop {
            let wish = *self.wish.borrow_and_update();
            if wish.closed {
                break;
            }
            let wanted = wish.wants_link() && stopped_at.is_none_or(|before| before.urges != wish.urges);
            if !wanted {
                if !wish.wants_link() {
                    self.set_state(LinkState::Offline);
                }
                if !self.idle(None).await {
                    break;
                }
                continue;
            }
            stopped_at = None;
            let end = self.one_link().await;
            tracing::debug!(?end, "link ended");
            self.failed |= matches!(end, End::Store(_));
            let registered = self.relay.registered;
            if self.registration_was_lost(&end) {
                self.relay.registered = false;
                self.changes.unnumbered.extend(self.outbox.waive_doubts());
            }
            let end = match self.commit().await {
                // What failed first says more.
                Err(error) if !matches!(end, End::Store(_)) => End::Store(error),
                _ => end,
            };
            if let End::Store(error) = &end {
                tracing::error!(%error, "the home's file failed");
            }
            match self.retry.after(&end, registered, &mut self.random) {
                Next::Stop(state) => {
                    self.set_state(state);
                    stopped_at = Some(wish);
                }
                Next::Wait(state, pause) => {
                    self.set_state(state);
                    if !pause.is_zero() && !self.idle(Some(Instant::now() + pause)).await {
                        break;
                    }
                }
            }
            if matches!(end, End::Store(_)) {
                // The file is of no more use, and the application has been told.
                while self.idle(None).await {}
                break;
            }
        }
        // What the application has asked for and no link has made durable.
        while let Ok(told) = self.told.try_recv() {
            self.take_in(told);
        }
        if let Err(error) = self.commit().await {
            tracing::error!(%error, "the home's file failed");
        }
        self.set_state(LinkState::Offline);
    }

    /// Waits for the application's wish to change, or until then; false when the client is gone.
    async fn idle(&mut self, until: Option<Instant>) -> bool {
        let far = Instant::now() + EXPIRY_INTERVAL;
        loop {
            tokio::select! {
                biased;
                changed = self.wish.changed() => return changed.is_ok() && !self.wish.borrow().closed,
                Some(told) = self.told.recv() => {
                    if let Err(error) = self.take_in_now(told).await {
                        // The next link's first commit fails as well, and says so.
                        tracing::error!(%error, "the home's file failed");
                    }
                }
                () = sleep_until(until.unwrap_or(far)) => return true,
            }
        }
    }

    fn registration_was_lost(&self, end: &End) -> bool {
        use thinpost_carrier::Down;
        use thinpost_wire::frame::{Close, Denial};
        matches!(end, End::Lost(Down::Closed(Close::Denied(Denial::NotRegistered))))
    }

    fn take_in(&mut self, told: Told) {
        match told {
            Told::Queued(id, queued) => self.outbox.insert(id, &queued),
            Told::Object(number, row) => self.objects.add(number, row),
            Told::ObjectGone(number) => self.objects.remove(number),
            Told::Asked(ask, answer) => {
                self.asked.push(answer);
                match ask {
                    Ask::Read(names) => {
                        for name in names {
                            if self.seals.read(&name.with, name.incarnation(), name.number) {
                                self.schedule_notes(&name.with);
                            }
                        }
                    }
                    Ask::Introduce(to, introduction) => {
                        self.seals.introduce(&to, introduction);
                        self.seals.hasten_notes(&to, self.shared.clock.now_ms());
                    }
                }
            }
        }
    }

    /// The same where nothing else is about to make it durable.
    async fn take_in_now(&mut self, told: Told) -> Result<(), StoreError> {
        self.take_in(told);
        self.publish_pending();
        self.commit().await
    }

    /// Whether somebody waits for a commit, or there is something to write.
    fn has_to_commit(&self) -> bool {
        !self.changes.is_empty() || !self.asked.is_empty()
    }

    /// Whether messages failed that the next commit will take out of the outbox.
    fn has_failed(&self) -> bool {
        !self.changes.failed.is_empty()
    }

    /// Takes in what was put in the outbox meanwhile, and fails what waits there for too long.
    fn look_at_outbox(&mut self) {
        let urges = self.wish.borrow().urges;
        while let Ok(told) = self.told.try_recv() {
            self.take_in(told);
        }
        self.urges_seen = urges;
        if Instant::now() >= self.expiry_due {
            self.expiry_due = Instant::now() + EXPIRY_INTERVAL;
            let lifetime_ms = self.options.lifetime.as_millis() as u64;
            let oldest = self.shared.clock.now_ms().saturating_sub(lifetime_ms);
            let expired = self.outbox.expired(oldest);
            self.changes.failed.extend(expired.into_iter().map(|id| (id, Failure::Expired)));
            let news = self.kept.let_go(oldest);
            self.take_news(news);
            self.send_overdue();
        }
    }

    /// Makes all that has changed durable, then tells of it, and answers whoever waits for that.
    async fn commit(&mut self) -> Result<(), StoreError> {
        let written = if self.failed { Err(StoreError::Failed) } else { self.write().await };
        self.failed |= written.is_err();
        for answer in self.asked.drain(..) {
            // They need not wait any more.
            let _ = answer.send(written.clone());
        }
        written
    }

    async fn write(&mut self) -> Result<(), StoreError> {
        self.make_tokens().await?;
        self.changes.mailboxes = self.mailboxes.change();
        self.changes.senders = self.senders.change();
        self.changes.forgotten = self.seals.take_forgotten();
        self.changes.pairs = self.seals.take_changed();
        self.changes.keyring = self.seals.take_keyring();
        self.changes.relay = (self.relay != self.relay_stored).then(|| self.relay.clone());
        if self.changes.is_empty() {
            return Ok(());
        }
        self.changes.now_unix_ms = self.shared.wall.unix_ms();
        let changes = std::mem::take(&mut self.changes);
        let (changes, counters) = self
            .shared
            .on_disk(move |shared| {
                let counters = shared.store.apply(&changes)?;
                Ok((changes, counters))
            })
            .await?;
        self.mailboxes.stored();
        self.senders.stored();
        if let Some(relay) = changes.relay {
            self.relay_stored = relay;
        }
        self.tell_introductions(changes.contacts, changes.requests);
        for (id, account) in changes.claims {
            self.shared.grants().claimed(id, account);
        }
        for (account, token) in changes.tokens {
            self.shared.contacts().change_access(account, |access| access.token = Some(token));
        }
        for (id, store) in changes.told {
            self.shared.grants().told(id, store);
        }
        let ids = |of: &[(MessageId, Option<AppId>)]| of.iter().map(|(id, _)| *id).collect::<BTreeSet<_>>();
        let (delivered, read) = (ids(&changes.delivered), ids(&changes.read));
        for (carrier, left) in changes.custody {
            for (message, queued) in self.outbox.remove(carrier) {
                tracing::trace!(id = message.0, "custody");
                if queued.is_first_time(message) {
                    self.tell(Event::Custody { message, app_id: queued.app_id });
                }
                if delivered.contains(&message) {
                    self.kept.keep_arrived(message, &queued, left, read.contains(&message));
                } else {
                    let news = self.kept.keep(message, queued, left);
                    self.take_news(news);
                }
            }
        }
        for (carrier, reason) in changes.failed {
            for (message, queued) in self.outbox.remove(carrier) {
                if queued.is_first_time(message) {
                    self.tell(Event::Failed { message, app_id: queued.app_id, reason });
                } else if message.is_notes() {
                    let contact = self.shared.contacts().name_of(&queued.mailbox).map(str::to_owned);
                    self.tell(Event::NotesFailed { contact, reason });
                } else {
                    self.kept.abandon(message, &queued);
                    self.tell_abandoned(message, &queued, Abandonment::Failed(reason));
                }
            }
        }
        for (message, queued, reason) in changes.abandoned {
            self.tell_abandoned(message, &queued, reason);
        }
        for matter in changes.notices {
            self.shared.event_of(matter).into_iter().for_each(|event| self.tell(event));
        }
        for (message, app_id) in changes.delivered {
            self.tell(Event::Delivered { message, app_id });
        }
        for (message, app_id) in changes.read {
            self.tell(Event::Read { message, app_id });
        }
        for (id, queued) in changes.again {
            self.outbox.insert(id, &queued);
        }
        for event in std::mem::take(&mut self.tell_after) {
            self.tell(event);
        }
        if !changes.received.is_empty() {
            self.heads.send_replace(InboxNumber(counters.received));
        }
        Ok(())
    }

    fn tell(&self, event: Event) {
        // Nobody need listen.
        let _ = self.shared.events.send(event);
    }

    fn tell_abandoned(&self, message: MessageId, queued: &Queued, reason: Abandonment) {
        let contact = self.shared.contacts().name_of(&queued.mailbox).map(str::to_owned);
        self.tell(Event::Abandoned { message, app_id: queued.app_id, contact, reason });
    }

    fn set_state(&self, state: LinkState) {
        let changed = self.status.send_if_modified(|status| {
            let changed = status.state != state;
            status.state = state.clone();
            status.at_rest_since = None;
            status.caught_up = false;
            status.pending = self.outbox.pending();
            status.urges_seen = self.urges_seen;
            (status.sent_bytes, status.received_bytes) = self.meter.read();
            changed
        });
        if changed {
            tracing::info!(state = state.name(), detail = state.detail(), "link");
            self.tell(Event::Link(state));
        }
    }

    fn publish_pending(&self) {
        self.status.send_modify(|status| status.pending = self.outbox.pending());
    }

    /// What a round trip may take on the next network: as long as on the last, and not less than on 2G unless that was much quicker.
    /// Too high a guess costs time when a handshake's packet is lost; too low a guess costs kilobytes of
    /// needless repeats on the links that can afford it least.
    fn rtt_expected(&self) -> Duration {
        let last = Duration::from_micros(self.relay.rtt_us);
        if last.is_zero() { RTT_UNKNOWN } else { (last * 2).clamp(RTT_QUICK, RTT_UNKNOWN).max(last) }
    }
}
