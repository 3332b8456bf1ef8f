//! Makes one connection, and sees it through to its end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use thinpost_carrier::{Connecting, Down, Endpoint};
use thinpost_wire::codec::DictionarySet;
use thinpost_wire::frame::Close;
use thinpost_wire::link::LinkConfig;
use tokio::time::{Instant, sleep_until};

use super::incoming::Incoming;
use super::knock::{Knock, Knocks};
use super::outgoing::Outgoing;
use super::retry::End;
use super::session::Session;
use super::{Driver, Wish};
use crate::event::LinkState;
use crate::network::Metered;

/// While the relay is silent it is asked for a sign of life at least this often.
const POLL_PAUSE_MAX: Duration = Duration::from_secs(45);

impl Driver {
    /// One link from the first packet to the last.
    pub(super) async fn one_link(&mut self) -> End {
        self.set_state(LinkState::Connecting);
        let wish = *self.wish.borrow_and_update();
        let mut outgoing = Outgoing::default();
        self.look_at_outbox();
        self.outbox.end_pauses(Instant::now());
        let unnumbered = self.outbox.settle_doubts();
        self.changes.unnumbered.extend(unnumbered);
        self.relay.add_incarnation(self.shared.numbers.incarnation().blinded().into());
        if let Err(error) = self.commit().await {
            return End::Store(error);
        }
        let end = match self.link(wish, &mut outgoing).await {
            Ok(()) => End::Unwanted,
            Err(end) => end,
        };
        self.outbox.link_lost();
        self.objects.link_lost();
        self.mailboxes.forget_unsettled();
        if std::mem::take(&mut self.needs_new_handles) {
            tracing::info!("all handles for recipients are given; the next link begins with none");
            self.mailboxes.truncate(0);
        }
        end
    }

    async fn link(&mut self, wish: Wish, outgoing: &mut Outgoing) -> Result<(), End> {
        let incoming = Incoming::new(self.mailboxes.len());
        let opening = self.opening(outgoing).await.map_err(End::Store)?;
        let is_only_address = self.shared.home.access.relay.addresses.len() == 1;
        let give_up_at = Instant::now() + self.retry.attempt_timeout(self.rtt_expected(), is_only_address);
        let mut connecting = self.start().inspect_err(|_| self.try_next_address())?;
        let early = connecting.speaks_early();
        if !early {
            let connected = self.handshake(&mut connecting, wish, give_up_at).await;
            connected.inspect_err(|_| self.try_next_address())?;
        }
        let initial_rtt = if early { self.rtt_expected() } else { connecting.rtt() };
        // Nothing has left yet, or at least not the end of the handshake: what is in the link when it is next polled
        // rides in the first datagram, or in the last of the handshake.
        let mut channel = connecting.open(LinkConfig {
            initial_rtt,
            is_rtt_measured: !early,
            peer_has: DictionarySet::from_bits(self.relay.dictionaries),
            poll_pause_max: POLL_PAUSE_MAX,
        });
        for frame in opening {
            outgoing.push(channel.link(), frame);
        }
        let knocks = Knocks::new(self.rtt_expected());
        let mut session = Session::new(self, channel, incoming, outgoing, wish, knocks);
        let end = session.run(give_up_at).await;
        let (rtt, welcomed) = session.finish();
        if welcomed {
            rtt.into_iter().for_each(|rtt| self.remember_rtt(rtt));
        } else {
            self.try_next_address();
        }
        end
    }

    fn start(&mut self) -> Result<Connecting, End> {
        let remote = self.remote();
        let no_socket = |error: std::io::Error| End::NoSocket(format!("no way to {remote}: {error}"));
        let (socket, runtime) = self.network.bind(remote).map_err(no_socket)?;
        let socket = Arc::new(Metered { socket, meter: self.meter.clone() });
        let seed = self.seeded.then(|| self.random.bytes());
        Endpoint::connect(&self.quic, self.rtt_expected(), seed, remote, socket, &runtime).map_err(no_socket)
    }

    /// Asks whether the relay can be reached.
    pub(super) fn knock(&mut self) -> std::io::Result<Knock> {
        let remote = self.remote();
        Knock::at(remote, &*self.network, self.meter.clone(), &mut self.random)
    }

    fn remote(&self) -> SocketAddr {
        let addresses = &self.shared.home.access.relay.addresses;
        addresses[self.address % addresses.len()]
    }

    async fn handshake(
        &mut self,
        connecting: &mut Connecting,
        wish: Wish,
        give_up_at: Instant,
    ) -> Result<(), End> {
        let mut knocks = Knocks::new(self.rtt_expected());
        loop {
            let knock_at = knocks.due(connecting.unheard_for());
            tokio::select! {
                biased;
                changed = self.wish.changed() => {
                    let now = *self.wish.borrow();
                    if changed.is_err() || !now.wants_link() {
                        return Err(End::Unwanted);
                    }
                    if now.renewals != wish.renewals || now.hints != wish.hints {
                        return Err(End::Renew);
                    }
                }
                connected = connecting.connected() => return connected.map_err(End::Lost),
                // Whoever asks need not wait for a relay that does not answer.
                Some(told) = self.told.recv() => self.take_in_now(told).await.map_err(End::Store)?,
                () = knocks.answered() => connecting.path_is_open(),
                () = sleep_until(knock_at.min(give_up_at)) => {
                    if give_up_at <= Instant::now() {
                        return Err(End::NoAnswer);
                    }
                    knocks.knock_if_due(connecting.unheard_for(), self);
                }
            }
        }
    }

    fn try_next_address(&mut self) {
        self.address = (self.address + 1) % self.shared.home.access.relay.addresses.len();
    }

    /// Small changes are not worth a write to the disk.
    fn remember_rtt(&mut self, rtt: Duration) {
        let before = Duration::from_micros(self.relay.rtt_us);
        if rtt.abs_diff(before) > before / 4 {
            self.relay.rtt_us = rtt.as_micros() as u64;
        }
    }
}

/// Whether the channel's end is worth a farewell, and which.
pub(super) fn farewell(end: &End) -> Option<Close> {
    match end {
        End::Unwanted | End::Renew | End::NoAnswer | End::Silent | End::NoSocket(_) | End::Store(_) => {
            Some(Close::Done)
        }
        End::Misbehaved(_) => Some(Close::Violation),
        End::Lost(Down::Violation(_)) | End::Lost(_) => None,
    }
}
