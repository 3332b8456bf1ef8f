//! When a handshake's datagrams leave again.
//!
//! QUIC waits twice as long before each repeat (RFC 9002, section 6.2.1): where 15 % are lost in bursts, one handshake in
//! twenty takes more than half a minute. Here the pauses grow by a third only, and [`Repeats::due`] says when one is over.
//!
//! What QUIC then repeats is half of what is missing: two datagrams of 1,200 bytes, mostly of padding, of one of its packet
//! number spaces, so that a device may have the second half of a relay's part and not the first. So until the other end has
//! answered, its [`Opening`] leaves again as it was, one copy at a time, with the early data that was in it. To the other end it is
//! a datagram that the network has doubled (RFC 9000, section 12.3).

use std::time::Duration;

use tokio::time::Instant;

/// A repeat before a round trip was measured waits for so many assumed ones, as QUIC's first does.
const ROUND_TRIPS: u32 = 3;

/// A timer of QUIC that is further off is no repeat.
const PAUSE_MAX: Duration = Duration::from_secs(120);

/// Most datagrams in an opening.
pub(crate) const OPENING_MAX: usize = 3;

/// The shortest datagram with an Initial packet that is to be answered (RFC 9000, section 14.1).
pub(crate) const INITIAL_BYTES_MIN: usize = 1_200;

/// Whether a datagram begins with an Initial packet that is to be answered.
fn begins_handshake(datagram: &[u8]) -> bool {
    kind(datagram) == Some(INITIAL) && datagram.len() >= INITIAL_BYTES_MIN
}

/// Which part of a handshake a datagram holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// It begins one, and is to be answered.
    Begin,
    /// Its first packet is one of the second half.
    End,
    /// It asks a device to prove where it is, and to begin anew.
    Retry,
}

impl Part {
    /// None of a datagram that has nothing to do with handshakes, or cannot tell.
    pub(crate) fn of(datagram: &[u8]) -> Option<Self> {
        match kind(datagram) {
            Some(INITIAL) => begins_handshake(datagram).then_some(Self::Begin),
            Some(HANDSHAKE) => Some(Self::End),
            Some(RETRY) => Some(Self::Retry),
            _ => None,
        }
    }
}

/// The kind of the first packet, of QUIC version 1 (RFC 9000, section 17.2). The second bit says nothing (RFC 9287).
fn kind(datagram: &[u8]) -> Option<u8> {
    datagram.first().map(|byte| byte & 0b1011_0000)
}

const INITIAL: u8 = 0b1000_0000;
const HANDSHAKE: u8 = 0b1010_0000;
const RETRY: u8 = 0b1011_0000;

/// What an end has said first: datagrams, as they left.
#[derive(Debug, Default)]
pub(crate) struct Opening {
    datagrams: Vec<Vec<u8>>,
    is_complete: bool,
    /// When it has left last.
    left_at: Option<Instant>,
}

impl Opening {
    /// Keeps a datagram if it belongs to the opening. Whether it does. One that begins anew, as after a Retry, takes its place.
    pub(crate) fn keep(&mut self, datagram: &[u8]) -> bool {
        let begins = begins_handshake(datagram);
        if begins && self.is_complete {
            *self = Self::default();
        }
        let goes_on = kind(datagram) == Some(HANDSHAKE) && !self.is_complete && !self.datagrams.is_empty();
        let belongs = (begins || goes_on) && self.datagrams.len() < OPENING_MAX;
        if belongs {
            self.datagrams.push(datagram.to_vec());
            self.left_at = Some(Instant::now());
        }
        belongs
    }

    /// All that belongs to it has left.
    pub(crate) fn complete(&mut self) {
        self.is_complete = !self.datagrams.is_empty();
    }

    /// It leaves once more.
    pub(crate) fn leaves(&mut self) {
        self.left_at = Some(Instant::now());
    }

    /// Whether it has left within this time.
    pub(crate) fn has_left_within(&self, time: Duration) -> bool {
        self.left_at.is_some_and(|at| at.elapsed() < time)
    }

    pub(crate) fn datagrams(&self) -> &[Vec<u8>] {
        &self.datagrams
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.datagrams.iter().map(|datagram| datagram.len() as u64).sum()
    }
}

/// The repeats of one handshake, as seen by one end.
#[derive(Debug)]
pub(crate) struct Repeats {
    /// The pause before the first repeat.
    first_pause: Duration,
    pause: Duration,
    count: u32,
    /// Repeats since anything was heard.
    unanswered: u32,
    /// When this end has last said its part.
    said: Instant,
    /// Since when nothing was heard.
    unheard_since: Instant,
}

impl Repeats {
    /// From the first packet on, with the round trip that is assumed.
    pub(crate) fn new(rtt: Duration) -> Self {
        let first_pause = rtt * ROUND_TRIPS;
        let now = Instant::now();
        Self { first_pause, pause: first_pause, count: 0, unanswered: 0, said: now, unheard_since: now }
    }

    /// This end has said its part, for the first time or again.
    pub(crate) fn said(&mut self) {
        self.said = Instant::now();
    }

    /// The other end was heard.
    pub(crate) fn heard(&mut self) {
        self.unanswered = 0;
        self.unheard_since = Instant::now();
    }

    /// How long nothing was heard, if something was repeated meanwhile.
    pub(crate) fn unheard_for(&self) -> Option<Duration> {
        (self.unanswered > 0).then(|| self.unheard_since.elapsed())
    }

    /// The path is known to be open: the next pauses are as the first.
    pub(crate) fn start_anew(&mut self) {
        (self.count, self.unanswered) = (self.count.min(1), 0);
        self.pause = self.first_pause;
    }

    /// A pause is over.
    pub(crate) fn repeated(&mut self) {
        self.said = Instant::now();
        self.pause = if self.count == 0 { self.first_pause } else { self.pause * 4 / 3 };
        self.count += 1;
        self.unanswered += 1;
    }

    /// When the pause is over.
    pub(crate) fn over(&self) -> Instant {
        self.said + self.pause
    }

    /// When the timer that QUIC has set for `quic` is to run out.
    pub(crate) fn due(&self, quic: Instant) -> Instant {
        if quic > Instant::now() + PAUSE_MAX { quic } else { quic.min(self.over()) }
    }

    /// What a round trip takes that has just ended, if repeats leave that open: since the last of them, and no less than was assumed.
    pub(crate) fn round_trip(&self) -> Option<Duration> {
        (self.count > 0).then(|| self.said.elapsed().max(self.first_pause / ROUND_TRIPS))
    }

    /// When this end has said its part last, if anything was repeated.
    pub(crate) fn said_again(&self) -> Option<Instant> {
        self.any().then_some(self.said)
    }

    /// Whether anything was repeated.
    pub(crate) fn any(&self) -> bool {
        self.count > 0
    }

    /// Whether the other end has had time to hear of it, and to answer.
    pub(crate) fn is_overdue(&self) -> bool {
        self.said.elapsed() >= self.first_pause / 2
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{advance, sleep_until};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_by_a_third_from_the_first_that_quic_has_set() {
        let began = Instant::now();
        let mut repeats = Repeats::new(Duration::from_secs(1));
        let mut moments = Vec::new();
        let mut quic = Duration::from_secs(3);
        for _ in 0..5 {
            sleep_until(repeats.due(Instant::now() + quic)).await;
            repeats.repeated();
            moments.push(began.elapsed().as_secs());
            quic *= 2;
        }
        assert_eq!(moments, [3, 6, 10, 15, 22]);
    }

    #[test]
    fn an_opening_is_what_left_first_and_begins_like_one() {
        let datagram = |first: u8, len| vec![first; len];
        let mut opening = Opening::default();
        assert!(!opening.keep(&datagram(0xe0, 300)), "nothing has begun");
        assert!(!opening.keep(&datagram(0xc0, 60)), "an acknowledgement");
        assert!(opening.keep(&datagram(0xc1, 1_200)));
        assert!(opening.keep(&datagram(0xe1, 300)));
        assert!(!opening.keep(&datagram(0xd0, 1_200)), "early data");
        assert!(!opening.keep(&datagram(0x40, 900)));
        opening.complete();
        assert!(!opening.keep(&datagram(0xe1, 300)));
        assert_eq!((opening.datagrams().len(), opening.bytes()), (2, 1_500));
        assert!(opening.keep(&datagram(0x82, 1_200)), "after a Retry");
        assert_eq!(opening.bytes(), 1_200);
    }

    #[tokio::test(start_paused = true)]
    async fn what_quic_plans_for_much_later_is_left_alone() {
        let mut repeats = Repeats::new(Duration::from_secs(1));
        repeats.repeated();
        let much_later = Instant::now() + Duration::from_secs(3_600);
        assert_eq!(repeats.due(much_later), much_later);
        assert!(!repeats.is_overdue());
        advance(Duration::from_millis(1_500)).await;
        assert!(repeats.is_overdue());
    }
}
