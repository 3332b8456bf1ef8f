//! Moves frames while a connection lasts.

use std::time::Duration;

use thinpost_carrier::{Channel, News};
use thinpost_wire::frame::ToRelay;
use thinpost_wire::link::{Event as LinkEvent, Time};
use tokio::time::{Instant, sleep_until};

use super::attempt::farewell;
use super::incoming::Incoming;
use super::knock::{Knock, Knocks};
use super::outgoing::{BACKLOG_BYTES, Outgoing, Said};
use super::reaching::{Act, Reaching, Seen};
use super::retry::End;
use super::{Driver, Wish};

/// When the relay was silent for so long, or so many round trips, a knock tells whether it can be reached by another
/// connection; and again whenever the silence is half as long again.
const KNOCK_AFTER_MIN: Duration = Duration::from_secs(5);
const KNOCK_AFTER_ROUND_TRIPS: u32 = 10;

/// A connection that was silent for so long is given up even if no knock is answered: not everything on the way lets
/// knocks pass.
const SILENT_FOR_MAX: Duration = Duration::from_secs(3_600);

/// Where the relay owes a welcome, an answer or bytes of an object and the link has been at rest for so long, the device asks whether it is
/// there still: what the relay says may have been lost with the way to here, and silence alone would never tell.
const ANSWERS_WITHIN: Duration = Duration::from_secs(20);

/// For how long acknowledgements are gathered, if they are, seconds: QUIC's own do not wait longer.
const GATHER_S: u8 = 10;

/// How many round trips a connection has to prove that it lives.
const PROOF_ROUND_TRIPS: u32 = 2;

/// Room in the link's window below which no more is handed over: the largest message fits.
const FREE_ITEMS_MIN: u64 = 72;

pub(super) struct Session<'a> {
    driver: &'a mut Driver,
    channel: Channel,
    incoming: Incoming,
    outgoing: &'a mut Outgoing,
    wish: Wish,
    /// Whether no message leaves before the relay has said which store it has.
    waits_for_welcome: bool,
    /// Whether acknowledgements are gathered.
    gathers: bool,
    at_rest_since: Option<Instant>,
    /// When to leave even if something is not settled: the application wants no link any more.
    leave_at: Option<Instant>,
    /// Those while the handshake is not complete.
    knocks: Knocks,
    /// The last knock of later, if it is not answered yet.
    knock: Option<Knock>,
    /// How long a silence makes the next.
    knock_after: Duration,
    /// Something must be heard that comes after the one moment, and before the other.
    proof: Option<(Time, Instant)>,
    reaching: Reaching,
}

impl<'a> Session<'a> {
    pub(super) fn new(
        driver: &'a mut Driver,
        channel: Channel,
        incoming: Incoming,
        outgoing: &'a mut Outgoing,
        wish: Wish,
        knocks: Knocks,
    ) -> Self {
        Self {
            waits_for_welcome: driver.may_be_forgotten(),
            driver,
            channel,
            incoming,
            outgoing,
            wish,
            gathers: false,
            at_rest_since: None,
            leave_at: None,
            knocks,
            knock: None,
            knock_after: Duration::ZERO,
            proof: None,
            reaching: Reaching::default(),
        }
    }

    /// The shortest round trip, if any was measured, and whether the relay ever answered.
    pub(super) fn finish(mut self) -> (Option<Duration>, bool) {
        (self.channel.link().least_rtt(), self.incoming.is_welcomed())
    }

    /// Until the link ends. The handshake must be complete before `give_up_at`.
    pub(super) async fn run(&mut self, give_up_at: Instant) -> Result<(), End> {
        let end = match self.turns(give_up_at).await {
            Ok(()) => End::Unwanted,
            Err(end) => end,
        };
        if let Some(close) = farewell(&end) {
            // The last acknowledgement, or the relay would deliver again.
            let _ = self.channel.flush();
            self.channel.close(close);
        }
        Err(end)
    }

    async fn turns(&mut self, give_up_at: Instant) -> Result<(), End> {
        loop {
            self.hand_over().await?;
            self.channel.flush().map_err(End::Lost)?;
            self.observe();
            if self.leave_at.is_some_and(|at| self.at_rest_since.is_some() || at <= Instant::now()) {
                return Ok(());
            }
            let handshaking = !self.channel.is_connected();
            let wake_at = self.wake_at(handshaking.then_some(give_up_at));
            tokio::select! {
                biased;
                changed = self.driver.wish.changed() => self.wish_changed(changed.is_ok(), handshaking)?,
                news = self.channel.next() => match news.map_err(End::Lost)? {
                    News::Connected | News::AtRest => {}
                    News::LostTrack => self.reaching.lost_track(),
                    News::Link(event) => self.turn(event).await?,
                },
                Some(told) = self.driver.told.recv() => self.driver.take_in(told),
                () = self.knocks.answered(), if handshaking => {
                    // Unless the relay itself was heard meanwhile.
                    if self.channel.unheard_for().is_some() {
                        self.channel.path_is_open();
                    }
                }
                Some(()) = async { self.knock.as_ref()?.answered().await.ok() }, if self.knock.is_some() => {
                    self.knock = None;
                    self.ask_for_proof();
                }
                () = sleep_until(wake_at) => {
                    if handshaking && give_up_at <= Instant::now() {
                        return Err(End::NoAnswer);
                    }
                    self.look_after()?;
                }
            }
        }
    }

    /// Acts on all that has come, makes it durable with one commit, and only then settles it.
    async fn turn(&mut self, first: LinkEvent) -> Result<(), End> {
        let mut last = None;
        let mut chunks = Vec::new();
        let mut next = Some(first);
        while let Some(event) = next {
            match event {
                LinkEvent::Settled { upto } => self.driver.settled(self.outgoing, upto),
                LinkEvent::Frame { number, bytes } => {
                    let link = self.channel.link();
                    self.driver
                        .incoming(&mut self.incoming, self.outgoing, link, &bytes)
                        .map_err(End::Misbehaved)?;
                    last = Some(number);
                }
                LinkEvent::Chunk { transfer, offset, bytes } => {
                    chunks.extend(self.driver.chunk(transfer, offset, bytes));
                }
                LinkEvent::Progress { transfer, held_bytes } => {
                    self.driver.object_progress(transfer, held_bytes);
                }
            }
            next = self.channel.link().poll_event();
        }
        let quiet = self.channel.take_quiet();
        let called = self.incoming.called.take();
        let seen = self.seen();
        self.reaching.heard(seen, quiet, called, &mut self.driver.relay.networks);
        self.driver.commit().await.map_err(End::Store)?;
        if let Some(last) = last {
            self.channel.settle(last);
            self.driver.shared.store.points.pass("settle");
        }
        for (transfer, bytes) in chunks {
            self.channel.hold_object(transfer, bytes);
            self.driver.fetch_progress(transfer);
            let link = self.channel.link();
            if let Some(frame) = self.driver.look_at_fetched(link, transfer).await.map_err(End::Store)? {
                self.outgoing.push(link, frame);
            }
        }
        Ok(())
    }

    /// Tells the relay whether acknowledgements are to be gathered, when that has changed.
    fn agree_on_acks(&mut self) {
        let gathers = self.driver.wish.borrow().gathers();
        if gathers != self.gathers && self.incoming.is_welcomed() {
            self.gathers = gathers;
            let at_most_s = if gathers { GATHER_S } else { 0 };
            self.outgoing
                .push(self.channel.link(), (Said::Other, ToRelay::GatherAcks { at_most_s }.encode()));
            self.channel.gather_acks(Duration::from_secs(at_most_s.into()));
        }
    }

    /// Gives the link what it has room for.
    async fn hand_over(&mut self) -> Result<(), End> {
        self.driver.look_at_outbox();
        if self.driver.has_failed() {
            // What has expired leaves no more.
            self.driver.commit().await.map_err(End::Store)?;
        }
        self.agree_on_acks();
        let may_send = self.leave_at.is_none();
        if may_send && self.incoming.is_welcomed() {
            let max = self.channel.link().free_items().saturating_sub(FREE_ITEMS_MIN) as usize;
            for frame in self.driver.revocations(self.outgoing, max) {
                self.outgoing.push(self.channel.link(), frame);
            }
        }
        let may_write = may_send && (self.incoming.is_welcomed() || !self.waits_for_welcome);
        while may_write && self.channel.link().free_items() > FREE_ITEMS_MIN {
            let room = BACKLOG_BYTES.saturating_sub(self.channel.link().backlog_bytes());
            if room == 0 {
                break;
            }
            let frames = self.driver.next_frames(self.outgoing, room).await.map_err(End::Store)?;
            if frames.is_empty() {
                break;
            }
            for frame in frames {
                self.outgoing.push(self.channel.link(), frame);
            }
            self.driver.shared.store.points.pass("say");
        }
        if self.driver.needs_new_handles {
            return Err(End::Renew);
        }
        if may_send && self.incoming.is_welcomed() {
            let link = self.channel.link();
            for frame in self.driver.next_transfers(link) {
                self.outgoing.push(link, frame);
            }
            self.driver.feed(link).await.map_err(End::Store)?;
        }
        let has_leisure = self.incoming.is_caught_up() && self.driver.outbox.pending() == 0;
        // A relay acts on nothing that comes after keys before the handshake is complete.
        let may_put_early =
            self.channel.is_connected() && self.driver.may_put_early(self.channel.link().backlog_bytes());
        if may_send && (has_leisure || may_put_early) {
            let keys = self.driver.refill(&mut self.incoming).await.map_err(End::Store)?;
            keys.into_iter().for_each(|frame| self.outgoing.push(self.channel.link(), frame));
        }
        if may_send && has_leisure {
            for frame in self.driver.claims(self.outgoing) {
                self.outgoing.push(self.channel.link(), frame);
            }
        }
        // What expired, found no handle, or waits behind what was refused; and what the application waits for.
        if self.driver.has_to_commit() {
            self.driver.commit().await.map_err(End::Store)?;
        }
        Ok(())
    }

    /// Publishes the link's figures.
    fn observe(&mut self) {
        let at_rest = self.channel.link().is_at_rest();
        self.at_rest_since = at_rest.then(|| self.at_rest_since.unwrap_or_else(Instant::now));
        let rtt = self.channel.link().rtt();
        let (pending, (sent, received)) = (self.driver.outbox.pending(), self.driver.meter.read());
        let (welcomed, caught_up) = (self.incoming.is_welcomed(), self.incoming.is_caught_up());
        let (at_rest_since, urges_seen) = (self.at_rest_since.filter(|_| welcomed), self.driver.urges_seen);
        self.driver.status.send_modify(|status| {
            status.rtt = if welcomed { Some(rtt) } else { status.rtt };
            status.pending = pending;
            status.urges_seen = urges_seen;
            status.at_rest_since = at_rest_since;
            status.caught_up = caught_up;
            (status.sent_bytes, status.received_bytes) = (sent, received);
        });
    }

    /// When to look after the link, if nothing happens before.
    fn wake_at(&mut self, give_up_at: Option<Instant>) -> Instant {
        let now = Instant::now();
        let check_at = if self.channel.link().is_at_rest() {
            self.ping_after().map(|after| self.at_rest_since.unwrap_or(now) + after)
        } else {
            Some(now + self.channel.link().rtt().max(Duration::from_secs(1)))
        };
        // What is due while the window is full leaves with the next turn.
        let retry_at = self.driver.outbox.next_retry().filter(|at| *at > now);
        let objects_at = self.driver.objects.next_retry().filter(|at| *at > now);
        let notes_at = self.driver.next_notes(now);
        let prove_by = self.proof.map(|(_, by)| by);
        let knock_at = give_up_at.map(|_| self.knocks.due(self.channel.unheard_for()));
        let reach_at = self.stays_reachable().then(|| {
            let seen = self.seen();
            self.reaching.due_at(seen, &self.driver.relay.networks)
        });
        let others = [
            check_at,
            retry_at,
            objects_at,
            notes_at,
            give_up_at,
            prove_by,
            knock_at,
            reach_at,
            self.leave_at,
        ];
        others.into_iter().flatten().fold(self.driver.expiry_due, Instant::min)
    }

    fn look_after(&mut self) -> Result<(), End> {
        if self.channel.is_connected() {
            self.doubt()?;
        } else {
            self.knocks.knock_if_due(self.channel.unheard_for(), self.driver);
        }
        if let (Some(after), Some(since)) = (self.ping_after(), self.at_rest_since)
            && since.elapsed() >= after
        {
            self.outgoing.push(self.channel.link(), (Said::Other, ToRelay::Ping.encode()));
        }
        if self.stays_reachable() {
            let seen = self.seen();
            match self.reaching.act(seen, &self.driver.relay.networks) {
                None => {}
                Some(Act::Touch) => self.channel.touch(),
                Some(Act::AskForCall(quiet_s)) => {
                    let frame = ToRelay::CallAfter { quiet_s }.encode();
                    self.outgoing.push(self.channel.link(), (Said::Other, frame));
                }
            }
        }
        Ok(())
    }

    /// After how long a rest the relay is asked whether it is there still; none if it is not.
    fn ping_after(&self) -> Option<Duration> {
        let awaits_welcome = self.channel.is_connected() && !self.incoming.is_welcomed();
        let awaits_answer =
            awaits_welcome || self.driver.objects.are_on_link() || self.outgoing.awaits_keys();
        let answers = awaits_answer.then_some(ANSWERS_WITHIN);
        self.driver.options.keepalive.into_iter().chain(answers).min()
    }

    /// Whether it is time to keep the way open: what is under way does so itself.
    fn stays_reachable(&self) -> bool {
        let is_at_rest = self.incoming.is_welcomed() && self.at_rest_since.is_some();
        self.driver.wish.borrow().reachable && is_at_rest && self.leave_at.is_none()
    }

    fn seen(&mut self) -> Seen {
        let (sent_at, quiet_since) = (self.channel.sent_at(), self.channel.quiet_since());
        Seen { now: Instant::now(), sent_at, quiet_since, rtt: self.channel.link().rtt() }
    }

    /// Whether this connection, or the relay, is still there.
    fn doubt(&mut self) -> Result<(), End> {
        if let Some((asked, by)) = self.proof {
            if self.channel.link().last_heard() > Some(asked) {
                self.proof = None;
            } else if by <= Instant::now() {
                return Err(End::Renew);
            }
        }
        let now = self.channel.now();
        let knock_after_min = KNOCK_AFTER_MIN.max(self.channel.link().rtt() * KNOCK_AFTER_ROUND_TRIPS);
        match self.channel.link().silent_for(now) {
            None => {
                self.knock = None;
                self.knock_after = knock_after_min;
            }
            Some(silence) if silence > SILENT_FOR_MAX => return Err(End::Silent),
            Some(silence) if silence >= self.knock_after && self.proof.is_none() => {
                self.knock_after = silence.mul_f64(1.5);
                // Without a socket there is no other connection either.
                self.knock = self.driver.knock().ok();
            }
            Some(_) => {}
        }
        Ok(())
    }

    /// From now on silence ends the connection.
    fn ask_for_proof(&mut self) {
        let now = self.channel.now();
        let time = self.channel.link().rtt() * PROOF_ROUND_TRIPS;
        self.channel.link().poke(now);
        self.proof = Some((now, Instant::now() + time));
    }

    fn wish_changed(&mut self, client_is_there: bool, handshaking: bool) -> Result<(), End> {
        let wish = *self.driver.wish.borrow();
        if client_is_there && wish.wants_link() {
            self.leave_at = None;
            let is_new = handshaking || !self.incoming.is_welcomed();
            let is_hinted = wish.hints != self.wish.hints;
            if wish.renewals != self.wish.renewals || is_hinted && is_new {
                return Err(End::Renew);
            }
            if !wish.reachable {
                self.reaching = Reaching::default();
            }
            if is_hinted {
                // Often it is the network that was there before, and to go on costs a tenth of a new connection.
                self.wish.hints = wish.hints;
                self.ask_for_proof();
            }
            return Ok(());
        }
        if handshaking || !self.incoming.is_welcomed() {
            return Err(End::Unwanted);
        }
        let patience = (self.channel.link().rtt() * 2 + Duration::from_secs(1)).min(Duration::from_secs(5));
        let leave_at = Instant::now() + patience;
        self.leave_at = Some(self.leave_at.map_or(leave_at, |at| at.min(leave_at)));
        // A sender that is gone would answer at once, again and again.
        if client_is_there { Ok(()) } else { Err(End::Unwanted) }
    }
}
