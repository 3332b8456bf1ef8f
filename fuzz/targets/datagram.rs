//! Codings, batches and the link: datagrams from a peer that may be anything. The first byte of each says how
//! long it is.

#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use thinpost_wire::codec::DictionarySet;
use thinpost_wire::link::{Link, LinkConfig, Time};

fuzz_target!(|bytes: &[u8]| {
    let config = LinkConfig { initial_rtt: Duration::from_secs(1), is_rtt_measured: false, peer_has: DictionarySet::compiled_in(), poll_pause_max: Duration::from_secs(45) };
    let mut link = Link::new(config);
    let mut now = Time::default();
    for n in 0..4u8 {
        link.push(vec![n; 40]);
    }
    while link.poll_transmit(now, 1_160).is_some() {}
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
        while let Some(datagram) = link.poll_transmit(now, 1_160) {
            assert!(datagram.len() <= 1_160);
        }
    }
});
