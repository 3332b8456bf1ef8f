//! Packets that QUIC remembers until they are acknowledged, or known to be lost. It bounds their bytes; what it remembers of each
//! is as much for the smallest.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use quinn_proto::congestion::{Controller, ControllerFactory};

use crate::quic::MTU;

/// What QUIC keeps of a packet, with its share of a tree, bytes.
pub(crate) const PACKET_BYTES: usize = 192;

/// So many are a connection's own affair; those beyond count like what its link holds.
pub(crate) const PACKETS_OF_EACH: usize = 16;

/// A link that takes in as much as it may leaves so much for those that its answers are, bytes.
pub(crate) const KEPT_BYTES: usize = PACKETS_OF_EACH * PACKET_BYTES;

/// Acknowledgements are not acknowledged: a relay that says nothing else asks for an answer when it has heard of none of so many.
const ASKS_FROM: u64 = PACKETS_OF_EACH as u64 / 2;

/// With more packets than this unheard of, one goes at a time: far above what a link has on its way.
const UNHEARD_MAX: u64 = 256;

/// Above the link's largest window: it decides how much may be on its way, and QUIC's own is only a stop far above that. A packet may
/// leave while bytes in flight and one MTU stay below it.
const WINDOW_BYTES: u64 = 96 * MTU as u64 + 1;

/// So much that a packet leaves while none other is in flight. What it asks for is what the count waits for, and QUIC asks for it again
/// and again: nothing is stuck.
const ONE_PACKET_BYTES: u64 = MTU as u64 + 1;

/// The packets of one connection, on whichever path. A handle: clones count together. What counts is the distance from the newest that
/// was acknowledged to the last that was sent, as all before the former are known to be lost.
#[derive(Clone, Debug, Default)]
pub(crate) struct Packets(Arc<Numbers>);

/// One task at a time changes them, the connection's owner.
#[derive(Debug, Default)]
struct Numbers {
    /// The number after the last that was sent.
    next: AtomicU64,
    /// The number after the newest that is acknowledged.
    heard: AtomicU64,
    /// What `heard` is when the last packet that asks for it was heard of.
    asked: AtomicU64,
}

impl Packets {
    /// Those of a connection that was made with these.
    pub(crate) fn of(quic: &quinn_proto::Connection) -> Self {
        let controller = quic.congestion_state().clone_box().into_any().downcast::<Self>();
        *controller.expect("each connection is made with these")
    }

    /// How many were sent since the newest that is acknowledged.
    fn unheard(&self) -> u64 {
        let [next, heard] = [&self.0.next, &self.0.heard].map(|number| number.load(Ordering::Relaxed));
        next.saturating_sub(heard)
    }

    /// What QUIC keeps of those beyond [`PACKETS_OF_EACH`], bytes.
    pub(crate) fn holds_bytes(&self) -> usize {
        (self.unheard() as usize).saturating_sub(PACKETS_OF_EACH) * PACKET_BYTES
    }

    /// Whether the next is to ask for an answer. Once it has said so it waits for that one.
    pub(crate) fn asks(&self) -> bool {
        let numbers = &*self.0;
        let has_answer = numbers.asked.load(Ordering::Relaxed) <= numbers.heard.load(Ordering::Relaxed);
        let asks = has_answer && self.unheard() >= ASKS_FROM;
        if asks {
            numbers.asked.store(numbers.next.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        }
        asks
    }

    fn sent(&self, number: u64) {
        // Numbers begin anew at each step of the handshake, which has few.
        if number < self.0.next.load(Ordering::Relaxed) {
            self.0.heard.store(number, Ordering::Relaxed);
        }
        self.0.next.store(number + 1, Ordering::Relaxed);
    }

    fn heard(&self, newest: u64) {
        self.0.heard.fetch_max(newest + 1, Ordering::Relaxed);
    }
}

impl ControllerFactory for Packets {
    fn build(self: Arc<Self>, _: Instant, _: u16) -> Box<dyn Controller> {
        self.clone_box()
    }
}

impl Controller for Packets {
    fn on_sent(&mut self, _: Instant, _: u64, last_packet_number: u64) {
        self.sent(last_packet_number);
    }

    fn on_end_acks(&mut self, _: Instant, _: u64, _: bool, largest_packet_num_acked: Option<u64>) {
        if let Some(newest) = largest_packet_num_acked {
            self.heard(newest);
        }
    }

    fn on_congestion_event(&mut self, _: Instant, _: Instant, _: bool, _: u64) {}

    fn on_mtu_update(&mut self, _: u16) {}

    fn window(&self) -> u64 {
        if self.unheard() <= UNHEARD_MAX { WINDOW_BYTES } else { ONE_PACKET_BYTES }
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        WINDOW_BYTES
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_count_from_the_newest_that_is_acknowledged_on_whichever_path() {
        let packets = Packets::default();
        let mut paths = [(); 2].map(|()| Arc::new(packets.clone()).build(Instant::now(), MTU));
        for number in 0..=UNHEARD_MAX {
            assert_eq!((packets.unheard(), paths[0].window()), (number, WINDOW_BYTES));
            paths[number as usize % 2].on_sent(Instant::now(), 40, number);
        }
        assert_eq!([paths[0].window(), paths[1].window()], [ONE_PACKET_BYTES; 2]);
        assert_eq!(packets.holds_bytes(), (UNHEARD_MAX as usize + 1 - PACKETS_OF_EACH) * PACKET_BYTES);
        paths[1].on_end_acks(Instant::now(), 0, false, Some(UNHEARD_MAX - 5));
        paths[0].on_end_acks(Instant::now(), 0, false, Some(3));
        assert_eq!((packets.unheard(), paths[0].window()), (5, WINDOW_BYTES));
        assert_eq!(packets.holds_bytes(), 0);
    }

    #[test]
    fn one_packet_asks_when_of_many_none_was_heard_of() {
        let packets = Packets::default();
        let mut asked = Vec::new();
        for number in 0..300 {
            if packets.asks() {
                asked.push(number);
            }
            packets.sent(number);
            if number == 100 {
                packets.heard(ASKS_FROM - 1);
            }
            if number == 150 {
                packets.heard(ASKS_FROM);
            }
        }
        assert_eq!(asked, [ASKS_FROM, 151]);
    }

    #[test]
    fn numbers_that_begin_anew_are_counted_anew() {
        let packets = Packets::default();
        [7, 8, 9].into_iter().for_each(|number| packets.sent(number));
        packets.heard(9);
        for number in 0..20 {
            packets.sent(number);
        }
        assert_eq!(packets.unheard(), 20);
        packets.sent(2);
        packets.sent(20);
        assert_eq!(packets.unheard(), 19);
    }
}
