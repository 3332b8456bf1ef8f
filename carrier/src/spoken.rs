//! Whether QUIC can have more to say than an acknowledgement, which can wait for something to ride with.

use std::net::SocketAddr;
use std::time::Duration;

use quinn_proto::ConnectionStats;
use tokio::time::Instant;

use crate::clock::SLOWER;

/// An acknowledgement for which nothing else gives a reason to send waits for so long, QUIC's own 25 ms by its slow clock,
/// or for so many datagrams: a sixth of what QUIC's window lets the other end have on its way.
pub(crate) const LONE_ACK_WAIT: Duration = Duration::from_millis(25 * SLOWER as u64);
const LONE_ACK_DATAGRAMS: u64 = 16;

/// How things stood when something was sent last: what has changed since tells whether QUIC can have more to say than
/// an acknowledgement.
pub(crate) struct Spoken {
    /// Whether QUIC's state has changed, as when a timer has rung.
    pub(crate) is_stale: bool,
    /// Frames so far that ask for an answer at once.
    prompts: u64,
    /// The other end's address: on a new path there is something to find out.
    pub(crate) remote: SocketAddr,
    /// Answers to what is to be found out, before it was asked, until there is one more. Until then QUIC says no more to that address than
    /// what comes from there allows, and does not count the packet with which it followed.
    unproven: Option<u64>,
    pub(crate) datagrams: u64,
    /// Until when an acknowledgement may wait, if there is one.
    pub(crate) ack_due: Option<Instant>,
    /// Room for datagrams when none waits.
    room: usize,
}

impl Spoken {
    /// Nothing was said yet.
    pub(crate) fn new(remote: SocketAddr, room: usize) -> Self {
        Self { is_stale: true, prompts: 0, remote, unproven: None, datagrams: 0, ack_due: None, room }
    }

    /// Whether all was said but for an acknowledgement that may wait.
    pub(crate) fn is_all_but_an_ack(
        &self,
        quic: &mut quinn_proto::Connection,
        stats: &ConnectionStats,
    ) -> bool {
        !self.is_stale
            && !quic.has_pending_retransmits()
            && quic.datagrams().send_buffer_space() == self.room
            && prompts(stats) == self.prompts
            && quic.remote_address() == self.remote
            && stats.udp_rx.datagrams < self.datagrams + self.datagrams_max()
    }

    /// After so many datagrams there is something to say in any case, or may be.
    fn datagrams_max(&self) -> u64 {
        if self.unproven.is_some() { 1 } else { LONE_ACK_DATAGRAMS }
    }

    /// Datagrams that wait in QUIC to be sent, bytes.
    pub(crate) fn outgoing_bytes(&self, quic: &mut quinn_proto::Connection) -> usize {
        self.room - quic.datagrams().send_buffer_space()
    }

    /// Something is sent, and with it all that there is to say.
    pub(crate) fn says_all(&mut self, stats: &ConnectionStats, remote: SocketAddr) {
        let (prompts, datagrams) = (prompts(stats), stats.udp_rx.datagrams);
        let answers = stats.frame_rx.path_response;
        let unproven = if remote == self.remote { self.unproven } else { Some(answers) };
        let unproven = unproven.filter(|before| *before == answers);
        *self = Self { is_stale: false, prompts, remote, unproven, datagrams, ack_due: None, ..*self };
    }
}

/// Frames that ask for an answer at once: probes, and what belongs to the handshake.
fn prompts(stats: &ConnectionStats) -> u64 {
    let frames = &stats.frame_rx;
    frames.crypto + frames.ping + frames.path_challenge + frames.immediate_ack
}
