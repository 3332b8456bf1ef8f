//! One connected device: a shell around one link, which turns frames into store work and back.
//!
//! Frames are acted on strictly in order. Those that need the store are gathered into one request while
//! the one before is on its way to disk; only when the verdicts are in are they settled, and only then
//! does the device read custody in the acknowledgement.

mod claims;
mod delivery;
mod end;
mod greeting;
mod objects;
mod refusals;

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::sync::{Arc, atomic};
use std::time::Duration;

use bytes::Bytes;
use thinpost_carrier::{Channel, Incoming, News};
use thinpost_wire::codec::DictionarySet;
use thinpost_wire::frame::{
    Close, Denial, FrameError, Hello, NetworkPrefix, Refusal, SubmitOptions, ToDevice, ToRelay,
};
use thinpost_wire::ids::{AccountKey, DeviceKey, Handle, Origin, Position, envelope_digest};
use thinpost_wire::limits::BODY_BYTES_MAX;
use thinpost_wire::link::{Event, LinkConfig};
use thinpost_wire::table::HandleTable;
use thinpost_wire::token::{MailboxAddress, TokenId};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, trace, warn};

use self::delivery::Delivery;
use self::end::{End, Misbehaviour};
use self::greeting::{handshake, ousted};
use self::objects::{ObjectWork, Objects};
use self::refusals::{Refusals, refused};
use crate::relay::Shared;
use crate::store::{self, Append, DeviceNo, DeviceRecord, Done, Op, Pending, Store, TableTail, Verdict};
use crate::strangers::Stranger;

/// A handshake takes at most this long, and so does a device to be known, which may have to register: 60 round trips of 2 s.
const GREETING_MAX: Duration = Duration::from_secs(120);

/// When a session is told to end, what is on its way to disk may still be acknowledged for this long.
const REST: Duration = Duration::from_millis(1_500);

/// A device that owes an answer and is silent is polled at least this often: it may have left without a word.
const POLL_PAUSE_MAX: Duration = Duration::from_secs(3_600);

/// Most ops in one request to the store; the rest waits for the next.
pub(crate) const OPS_MAX: usize = 256;

/// Deliveries wait in the store while the link has this much to send, and while fewer items are free:
/// the rest is for what a relay must say at once.
const BACKLOG_BYTES: usize = 8 * 1024;
const ITEMS_KEPT_FREE: u64 = 128;

/// How much is read from a mailbox at a time.
const READ_ENTRIES: usize = 64;
const READ_BYTES: usize = 16 * 1024;

/// What that takes at most: all of it but the last, which may be one of the longest, and what belongs to each beside it.
pub(crate) const READ_ROOM: usize = READ_BYTES + BODY_BYTES_MAX + READ_ENTRIES * 256;

/// A session that has no room for what a device has asked for looks for some again after so long.
const ROOM_PAUSE: Duration = Duration::from_secs(1);

/// The envelope's sender stays unnamed; see [`SubmitOptions::unattributed`].
const FLAG_UNATTRIBUTED: u8 = 0x01;

/// Serves one connection to its end.
pub(crate) async fn run(incoming: Incoming, mut stranger: Stranger, shared: Arc<Shared>) {
    let (id, remote) = (shared.sessions.begin(), incoming.remote_address().ip());
    let Some((connecting, device)) = handshake(incoming, &mut stranger).await else { return };
    let mut channel = connecting.open(LinkConfig {
        initial_rtt: Duration::from_millis(700),
        is_rtt_measured: false,
        peer_has: DictionarySet::default(),
        poll_pause_max: POLL_PAUSE_MAX,
    });
    channel.borrow_from(shared.pool.clone());
    let mut session = Session {
        channel,
        shared: shared.clone(),
        stranger: Some(stranger),
        known_until: Instant::now() + GREETING_MAX,
        remote,
        device,
        id,
        place: None,
        hello: None,
        record: None,
        mailboxes: HandleTable::default(),
        numbering: None,
        waiting: VecDeque::new(),
        pending: None,
        processed: 0,
        refusals: Refusals::new(shared.wakes.room.applicant()),
        delivery: Delivery::default(),
        cursor: None,
        objects: Objects::default(),
        is_short_of_room: false,
        call_after: None,
        called_at: None,
    };
    let end = session.serve().await;
    let repeated = session.channel.link().repeated_chunk_bytes();
    shared.repeated_chunk_bytes.fetch_add(repeated, atomic::Ordering::Relaxed);
    debug!(%device, %end, "session over");
    session.finish(end).await;
}

struct Session {
    channel: Channel,
    shared: Arc<Shared>,
    /// Its place among those that are not known, until [`Session::is_known`].
    stranger: Option<Stranger>,
    /// By when it has to be.
    known_until: Instant,
    remote: std::net::IpAddr,
    device: DeviceKey,
    /// Which of the relay's sessions this is.
    id: u64,
    /// The session's place among the relay's, once the device has proven to be alive.
    place: Option<oneshot::Receiver<Close>>,
    hello: Option<Hello>,
    record: Option<DeviceRecord>,
    /// What the device's handles stand for.
    mailboxes: HandleTable<MailboxAddress>,
    numbering: Option<Origin>,
    /// Frames that have not been acted on.
    waiting: VecDeque<(u64, Bytes)>,
    /// What is on its way to disk.
    pending: Option<(Pending, Vec<Asked>)>,
    /// Every frame up to here has been acted on for good.
    processed: u64,
    refusals: Refusals,
    delivery: Delivery,
    /// How far the device has settled, when the store has not been told.
    cursor: Option<Position>,
    objects: Objects,
    /// Whether something that was asked for waits for room.
    is_short_of_room: bool,
    /// After how long a quiet the device wants to be called.
    call_after: Option<Duration>,
    /// Where it was seen when it was called last.
    called_at: Option<NetworkPrefix>,
}

/// What an op of a pending request was asked for, so that its verdict can be answered.
#[derive(Debug)]
struct Asked {
    /// The number of the frame, or of the last after it that asks for nothing: settled with the request.
    upto: u64,
    what: What,
}

#[derive(Debug)]
enum What {
    Submit {
        /// The frame's own number.
        number: u64,
        origin: Origin,
        to: Handle,
        /// Why it is refused unless it is a repeat.
        unless_repeat: Option<Refusal>,
    },
    Register,
    Revoke {
        /// The frame's own number.
        number: u64,
        id: TokenId,
    },
    Claim {
        to: Handle,
    },
    Object(ObjectWork),
    /// Nobody waits for the verdict, but it must not be a refusal.
    Table,
    Housekeeping,
}

impl Session {
    /// Serves until something ends it.
    async fn serve(&mut self) -> End {
        loop {
            if let Err(end) = self.step().await {
                return end;
            }
        }
    }

    async fn step(&mut self) -> Result<(), End> {
        // A device that always has something to say leaves the worker to others all the same.
        tokio::task::consume_budget().await;
        if self.place.is_none() {
            self.enter()?;
        }
        self.channel.set_owner_bytes(self.own_bytes());
        self.process().await?;
        self.deliver().await?;
        self.feed().await?;
        self.call_if_due();
        // Custody of what came with a handshake can leave with the relay's part of it.
        self.channel.hold(self.pending.is_some());
        let is_known = self.is_known();
        if is_known {
            self.stranger = None;
        }
        let is_short_of_room = std::mem::take(&mut self.is_short_of_room);
        let call_at = self.call_at();
        tokio::select! {
            biased;
            Some(close) = async { self.place.as_mut()?.await.ok() }, if self.place.is_some() => {
                Err(End::Told(close))
            }
            Some(verdicts) = async { Some((&mut self.pending.as_mut()?.0).await) }, if self.pending.is_some() => {
                self.answer(verdicts?).await
            }
            news = self.channel.next() => {
                match news? {
                    // What has waited for it is looked at in the next step.
                    News::Connected | News::AtRest | News::LostTrack => {}
                    News::Link(event) => {
                        self.handle(event);
                        // A datagram of a few bytes has some hundred: one step for all of them.
                        while let Some(event) = self.channel.link().poll_event() {
                            self.handle(event);
                        }
                    }
                }
                Ok(())
            }
            () = self.delivery.changed() => Ok(()),
            to = self.refusals.ready() => {
                self.channel.link().push(ToDevice::Ready { to }.encode());
                Ok(())
            }
            () = sleep_until(call_at.unwrap_or_else(Instant::now)), if call_at.is_some() => Ok(()),
            () = sleep_until(self.known_until), if !is_known => Err(End::Told(Close::Done)),
            () = ousted(&mut self.stranger), if self.stranger.is_some() => Err(End::Told(Close::Busy)),
            // Whoever has to make room is told to when somebody asks in vain.
            () = tokio::time::sleep(ROOM_PAUSE), if is_short_of_room => Ok(()),
        }
    }

    /// Takes the session's place once its handshake is complete. A device that has begun another one since is not served here.
    fn enter(&mut self) -> Result<(), End> {
        let sessions = &self.shared.sessions;
        if self.channel.is_connected() {
            self.place = Some(sessions.enter(self.device, self.id).map_err(End::Told)?);
        } else if sessions.is_superseded(self.device, self.id) {
            return Err(End::Told(Close::Superseded));
        }
        Ok(())
    }

    /// Whether the relay knows the device, and that it is there: what was said early anybody may say again who has recorded it.
    fn is_known(&self) -> bool {
        self.record.is_some() && self.channel.is_connected()
    }

    /// What the session holds for the device beside the link, bytes; most of it is none.
    fn own_bytes(&self) -> usize {
        self.refusals.own_bytes()
            + usize::from(self.mailboxes.len()) * size_of::<MailboxAddress>()
            + usize::from(self.delivery.senders_known()) * size_of::<AccountKey>()
    }

    /// When the device is to be called, if nothing goes either way before.
    fn call_at(&self) -> Option<Instant> {
        self.call_after.map(|quiet| self.channel.quiet_since() + quiet)
    }

    /// Calls a device that wants it now, or that is told of its network and has come to another.
    fn call_if_due(&mut self) {
        let network = NetworkPrefix::of(self.channel.remote_address().ip());
        let is_asked = self.call_at().is_some_and(|at| at <= Instant::now());
        let has_moved = self.called_at.is_some_and(|before| before != network);
        if is_asked {
            self.call_after = None;
        }
        if is_asked || has_moved {
            self.called_at = Some(network);
            self.channel.link().push(ToDevice::Call { network }.encode());
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Frame { number, bytes } => self.waiting.push_back((number, bytes)),
            Event::Chunk { transfer, offset, bytes } => self.objects.take(transfer, offset, bytes),
            Event::Progress { .. } => {}
            Event::Settled { upto } => {
                if let Some(position) = self.delivery.settled(upto) {
                    self.cursor = Some(position);
                }
                self.refusals.settled(upto);
                self.settle();
            }
        }
    }

    /// Settles what has been acted on, up to the first submit whose refusal is still on its way.
    fn settle(&mut self) {
        self.channel.settle(self.refusals.may_settle(self.processed));
    }

    /// Acts on waiting frames until one must wait for the store, and asks the store for what they need.
    async fn process(&mut self) -> Result<(), End> {
        if self.pending.is_some() {
            return Ok(());
        }
        let (mut ops, mut asked) = (Vec::new(), Vec::new());
        // A device that does not settle what it was told is not told more.
        while ops.len() < OPS_MAX
            && self.channel.link().free_items() > 0
            && let Some((number, bytes)) = self.waiting.front().cloned()
        {
            let frame = ToRelay::decode(&bytes)?;
            if self.hello.is_none() && !matches!(frame, ToRelay::Hello(_)) {
                return Err(Misbehaviour::Hello.into());
            }
            // What a replayed first flight must not do waits until the handshake is complete.
            let may_be_replay = !self.channel.is_connected();
            let must_wait = match frame {
                ToRelay::Register { .. } => may_be_replay || !ops.is_empty(),
                ToRelay::Revoke { .. } | ToRelay::PutKeys { .. } | ToRelay::Claim { .. } => may_be_replay,
                _ => false,
            };
            if must_wait {
                break;
            }
            self.waiting.pop_front();
            let ends_group = matches!(frame, ToRelay::Register { .. });
            let (op, what) = match frame {
                ToRelay::Hello(hello) => (self.greet(hello).await?, What::Table),
                ToRelay::Register { account, certificate, invite, secret } => {
                    let op = self.register(account, certificate, invite.as_ref(), secret).await?;
                    (Some(op), What::Register)
                }
                ToRelay::Bind { handle, address } => (self.bind(handle, address)?, What::Table),
                ToRelay::Revoke { id } => {
                    (Some(Op::Revoke { device: self.number()?, id }), What::Revoke { number, id })
                }
                ToRelay::PutKeys { replaces, keys } => {
                    (Some(Op::PutKeys { device: self.number()?, replaces, keys }), What::Housekeeping)
                }
                ToRelay::Claim { to } => self.claim(to).await?,
                ToRelay::PutObject { transfer, id, size, lifetime_s } => {
                    self.put_object(transfer, id, size, lifetime_s)?
                }
                ToRelay::GetObject { transfer, id, held } => {
                    self.get_object(transfer, id, held).await?;
                    (None, What::Housekeeping)
                }
                ToRelay::EndTransfer { transfer } => {
                    self.end_transfer(transfer);
                    (None, What::Housekeeping)
                }
                ToRelay::Numbering(origin) => {
                    self.numbering = Some(origin);
                    (None, What::Housekeeping)
                }
                ToRelay::Ping => (None, What::Housekeeping),
                ToRelay::GatherAcks { at_most_s } => {
                    self.channel.gather_acks(Duration::from_secs(at_most_s.into()));
                    (None, What::Housekeeping)
                }
                ToRelay::CallAfter { quiet_s } => {
                    self.call_after = Some(Duration::from_secs(quiet_s.into()));
                    (None, What::Housekeeping)
                }
                ToRelay::Resume { to } => {
                    self.refusals.release(to);
                    (None, What::Housekeeping)
                }
                ToRelay::Submit { to, body } => {
                    self.submit(number, to, SubmitOptions::default(), bytes.slice_ref(body)).await?
                }
                ToRelay::SubmitUnattributed { to, body } => {
                    let options = SubmitOptions { unattributed: true, ..SubmitOptions::default() };
                    self.submit(number, to, options, bytes.slice_ref(body)).await?
                }
                ToRelay::SubmitWith { to, options, body } => {
                    self.submit(number, to, options, bytes.slice_ref(body)).await?
                }
                _ => return Err(FrameError::Malformed.into()),
            };
            match op {
                Some(op) => {
                    ops.push(op);
                    asked.push(Asked { upto: number, what });
                }
                None if ops.is_empty() => {
                    self.processed = number;
                }
                // Settled with the ops before it.
                None => asked.last_mut().expect("there is an op for each").upto = number,
            }
            if ends_group {
                break;
            }
        }
        self.settle();
        self.store_objects(&mut ops, &mut asked, OPS_MAX);
        if let Some(record) = &self.record {
            let device = record.number;
            if let Some(upto) = self.cursor.take() {
                ops.push(Op::Settle { device, upto });
            }
            ops.extend(self.delivery.take_new_senders(device));
        }
        if !ops.is_empty() {
            self.pending = Some((self.shared.committer.submit(ops).await?, asked));
        }
        Ok(())
    }

    fn bind(&mut self, handle: Handle, address: MailboxAddress) -> Result<Option<Op>, End> {
        let device = self.number()?;
        let before = self.mailboxes.len();
        match handle.0.cmp(&(before + 1)) {
            Ordering::Less => return Err(Misbehaviour::Handle(handle).into()),
            // It counts from handles that were cut, and has not been told yet.
            Ordering::Greater => return Ok(None),
            Ordering::Equal => {}
        }
        self.mailboxes.push(address).ok_or(Misbehaviour::TableFull)?;
        self.refusals.release(handle);
        Ok(Some(Op::PutTable { device, from: before, tail: TableTail::ToRelay(vec![address]) }))
    }

    async fn submit(
        &mut self,
        number: u64,
        to: Handle,
        options: SubmitOptions,
        body: Bytes,
    ) -> Result<(Option<Op>, What), End> {
        let device = self.number()?;
        let origin = self.numbering.ok_or(Misbehaviour::Numbering)?;
        self.numbering = Some(Origin { sequence: origin.sequence.saturating_add(1), ..origin });
        let account = self.account()?;
        let Some(MailboxAddress { mailbox, token }) = self.mailboxes.entry(to) else {
            self.refuse(number, origin, to, Refusal::UnknownHandle);
            return Ok((None, What::Housekeeping));
        };
        let unless_repeat = match self.refusals.held(to) {
            Some(refusal) => Some(refusal),
            None => {
                // Under a token that somebody made up the store refuses it: it uses nothing of what strangers may.
                let is_stranger =
                    token.id().is_open() && self.admits(MailboxAddress { mailbox, token }).await?;
                let limits = &self.shared.limits;
                let checked = limits.check_submit(self.remote, account, mailbox, is_stranger, body.len());
                checked.err().map(|retry| Refusal::TooFast { retry_after_s: retry.seconds })
            }
        };
        let append = Append {
            device,
            sender: (!options.unattributed).then_some(account),
            // What is at rest must not tell who wrote what is sealed.
            origin: Origin { incarnation: origin.incarnation.blinded(), ..origin },
            mailbox,
            token,
            flags: if options.unattributed { FLAG_UNATTRIBUTED } else { 0 },
            lifetime_s: options.lifetime_s.unwrap_or(u32::MAX),
            age_s: options.age_s,
            collapse: options.collapse_key,
            digest: envelope_digest(origin.incarnation, &mailbox, &body),
            body,
            repeat_only: unless_repeat.is_some(),
        };
        Ok((Some(Op::Append(append)), What::Submit { number, origin, to, unless_repeat }))
    }

    /// Whether a mailbox takes envelopes under a token.
    async fn admits(&self, address: MailboxAddress) -> Result<bool, End> {
        Ok(self.shared.read(move |store| store.admits(&address)).await?)
    }

    fn number(&self) -> Result<DeviceNo, End> {
        self.record.map(|record| record.number).ok_or(End::Denied(Denial::NotRegistered))
    }

    fn account(&self) -> Result<AccountKey, End> {
        self.record.map(|record| record.account).ok_or(End::Denied(Denial::NotRegistered))
    }

    /// Has the device told when it is over, if the mailbox is the reason.
    async fn ask_for_mailbox(&mut self, to: Handle, reason: Refusal) -> Result<(), End> {
        let Some(MailboxAddress { mailbox: account, .. }) = self.mailboxes.entry(to) else { return Ok(()) };
        // It may have come to be since the store said no, and is announced only once. A mailbox that was
        // full lets go of something again and again.
        let is_open = self.refusals.ask(to, account, reason)
            && reason == Refusal::NoSuchMailbox
            && self.shared.read(move |store| store.is_open(&account)).await?;
        if is_open {
            self.shared.wakes.room.announce(&account);
        }
        Ok(())
    }

    fn refuse(&mut self, submit: u64, origin: Origin, to: Handle, reason: Refusal) {
        debug!(%reason, "refused");
        let number = self.channel.link().push(ToDevice::Refused { origin, reason }.encode());
        self.refusals.said(number, submit, to, reason);
    }

    /// The store has spoken: settles or refuses what was asked.
    async fn answer(&mut self, verdicts: Vec<Verdict>) -> Result<(), End> {
        let Some((_, asked)) = self.pending.take() else { return Ok(()) };
        for (Asked { upto, what }, verdict) in asked.into_iter().zip(verdicts) {
            // Neither origin nor position: a log must not lead from an envelope to who submitted it.
            trace!(device = %self.device, upto, accepted = verdict.is_ok(), "answered");
            match (what, verdict) {
                (What::Submit { .. }, Ok(Done::Repeat)) => debug!("an envelope was submitted again"),
                (What::Submit { number, origin, to, unless_repeat }, Err(refusal)) => {
                    let reason = match refusal {
                        // If one before it in the same group was refused, then for the same reason.
                        store::Refusal::NotNow => {
                            let reason = self.refusals.held(to).or(unless_repeat);
                            reason.unwrap_or(Refusal::TooFast { retry_after_s: 1 })
                        }
                        refusal => refused(refusal).ok_or(Denial::NotRegistered)?,
                    };
                    self.ask_for_mailbox(to, reason).await?;
                    self.refuse(number, origin, to, reason);
                }
                (What::Register, Ok(Done::Registered { .. })) => self.registered().await?,
                (What::Register, Err(refusal)) => {
                    return Err(match refusal {
                        store::Refusal::InviteSpent => Denial::InviteSpent,
                        store::Refusal::DeviceOfAnother => Denial::BadCertificate,
                        _ => Denial::Full,
                    }
                    .into());
                }
                (What::Claim { to }, verdict) => self.claimed(to, verdict),
                (What::Object(work), verdict) => self.object_answered(work, verdict).await?,
                (What::Revoke { number, id }, Err(refusal)) => {
                    debug!(%refusal, "a token was not revoked");
                    let said = self.channel.link().push(ToDevice::NotRevoked { id }.encode());
                    self.refusals.withhold(said, number);
                }
                (What::Table, Err(refusal)) => {
                    warn!(%refusal, "a handle table was refused");
                    return Err(Misbehaviour::TableFull.into());
                }
                _ => {}
            }
            self.processed = upto;
        }
        self.settle();
        Ok(())
    }

    /// Pushes what waits in the mailbox, as far as the link has room.
    async fn deliver(&mut self) -> Result<(), End> {
        while self.delivery.has_mail()
            && self.channel.link().backlog_bytes() < BACKLOG_BYTES
            && self.channel.link().free_items() > ITEMS_KEPT_FREE
        {
            let (account, after) = self.delivery.place();
            // One goes in any case: most are short. If it is not, the link ends for want of room.
            let entries_max = if self.channel.has_room_left(READ_ROOM) { READ_ENTRIES } else { 1 };
            let read = move |store: &dyn Store| store.read(&account, after, entries_max, READ_BYTES);
            let entries = self.shared.read(read).await?;
            self.delivery.push(self.channel.link(), entries, self.shared.clock.now());
        }
        Ok(())
    }

    /// Lets what is on its way to disk be acknowledged, says goodbye, and leaves.
    async fn finish(mut self, end: End) {
        if let End::Told(Close::Restarting) = end {
            if let Some((pending, _)) = &mut self.pending
                && let Ok(Ok(verdicts)) = timeout(REST, pending).await
            {
                let _ = self.answer(verdicts).await;
            }
            self.channel.come_to_rest(REST).await;
        }
        if let Some(close) = end.close() {
            self.channel.close(close);
        }
        self.shared.sessions.leave(self.device, self.id);
        let Some(record) = self.record else { return };
        let device = record.number;
        let settle = self.cursor.map(|upto| Op::Settle { device, upto });
        let ops: Vec<_> = settle.into_iter().chain(self.objects.last_ops()).collect();
        let _ = self.shared.committer.submit(ops).await;
    }
}
