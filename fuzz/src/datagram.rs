//! Codings, batches and the link: datagrams from a peer that may be anything. The first byte of each says how
//! long it is.

use std::time::Duration;

use thinpost_wire::codec::DictionarySet;
use thinpost_wire::link::{Link, LinkConfig, Time};

/// What the carrier takes in one datagram, bytes.
const ROOM: usize = 1_160;

/// Lets a link that has something to say hear all of it.
///
/// # Panics
/// When the link answers with more than the carrier takes.
pub fn run(bytes: &[u8]) {
    let config = LinkConfig {
        initial_rtt: Duration::from_secs(1),
        is_rtt_measured: false,
        peer_has: DictionarySet::compiled_in(),
        poll_pause_max: Duration::from_secs(45),
    };
    let mut link = Link::new(config);
    let mut now = Time::default();
    for n in 0..4u8 {
        link.push(vec![n; 40]);
    }
    while link.poll_transmit(now, ROOM).is_some() {}
    let mut rest = bytes;
    while let Some((&length, after)) = rest.split_first() {
        let (datagram, after) = after.split_at(after.len().min(length.into()));
        rest = after;
        now = now + Duration::from_millis(700);
        if link.handle_datagram(now, datagram).is_err() {
            return;
        }
        link.handle_timeout(now);
        while link.poll_event().is_some() {}
        while let Some(datagram) = link.poll_transmit(now, ROOM) {
            assert!(datagram.len() <= ROOM);
        }
    }
}
