//! Devices and a relay, packet by packet.

mod ends;
mod handshakes;
mod repeats;
mod room;
mod touches;
mod wire;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use quinn::Runtime;
use rustls::server::ServerSessionMemoryCache;
use thinpost_wire::codec::DictionarySet;
use thinpost_wire::ids::RelayKey;
use thinpost_wire::link::{Event, LinkConfig};
use tokio::time::{Instant, sleep, timeout};

use self::wire::{Paused, Wire};
use crate::quic::{self, ServerLimits};
use crate::{Accepting, Channel, Connecting, Down, Endpoint, Identity, News};

const RELAY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 4433);
const DEVICE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2)), 40_000);

const LINK: LinkConfig = LinkConfig {
    initial_rtt: Duration::from_millis(700),
    is_rtt_measured: false,
    peer_has: DictionarySet::EMPTY,
    poll_pause_max: Duration::from_secs(45),
};

/// Longer than anything takes that is to happen.
const LONG: Duration = Duration::from_secs(60);

struct Relay {
    endpoint: Endpoint,
    accepting: Accepting,
}

/// A relay and what is needed for devices.
struct Scene {
    wire: Wire,
    relay: Relay,
    device: quic::Client,
}

fn runtime() -> Arc<dyn Runtime> {
    Arc::new(Paused)
}

impl Relay {
    /// One that knows no sessions.
    fn start(wire: &Wire) -> Self {
        Self::bounded(wire, ServerLimits::default())
    }

    fn bounded(wire: &Wire, limits: ServerLimits) -> Self {
        let sessions = ServerSessionMemoryCache::new(16);
        let server = quic::server(&Identity::from_seed([1; 32]), sessions, limits);
        let config = quic::relay_endpoint([3; 32], Some([4; 32]));
        let (endpoint, accepting) =
            Endpoint::listen(config, server, wire.bind(RELAY), &runtime()).expect("it can be used");
        Self { endpoint, accepting }
    }

    async fn accept(&mut self) -> Connecting {
        let incoming = timeout(LONG, self.accepting.next()).await.expect("somebody comes");
        incoming.expect("the endpoint lives").accept().await.expect("they can be understood")
    }
}

impl Scene {
    fn new() -> Self {
        Self::bounded(ServerLimits::default())
    }

    fn bounded(limits: ServerLimits) -> Self {
        let wire = Wire::default();
        let relay = Relay::bounded(&wire, limits);
        let key = RelayKey(Identity::from_seed([1; 32]).public());
        Self { wire, relay, device: quic::Client::new(&Identity::from_seed([2; 32]), key) }
    }

    fn connect(&self) -> Connecting {
        self.connect_from(DEVICE)
    }

    fn connect_from(&self, address: SocketAddr) -> Connecting {
        let socket = self.wire.bind(address);
        let seed = Some([5; 32]);
        Endpoint::connect(&self.device, Duration::from_secs(5), seed, RELAY, socket, &runtime())
            .expect("there is a way")
    }

    /// Both ends of a link whose handshake is complete, in full.
    async fn linked(&mut self) -> (Channel, Channel) {
        self.linked_from(DEVICE).await
    }

    async fn linked_from(&mut self, address: SocketAddr) -> (Channel, Channel) {
        let mut device = self.connect_from(address);
        let relay = async {
            let mut connecting = self.relay.accept().await;
            connecting.connected().await.expect("it is complete");
            connecting.open(LINK)
        };
        let device = async {
            device.connected().await.expect("it is complete");
            let mut device = device.open(LINK);
            device.flush().expect("it lives");
            device
        };
        let (mut relay, mut device) = tokio::join!(relay, device);
        say(&mut relay, &mut device, b"come in").await;
        (device, relay)
    }

    /// Leaves the device with a session that it can resume.
    async fn acquaint(&mut self) {
        let (device, relay) = self.linked().await;
        drop((device, relay));
        sleep(LONG * 2).await;
    }
}

/// Runs two ends until the second has a frame, which it settles.
async fn frame(other: &mut Channel, channel: &mut Channel) -> Vec<u8> {
    let frame = async {
        loop {
            tokio::select! {
                biased;
                news = channel.next() => {
                    if let News::Link(Event::Frame { number, bytes }) = news.expect("it lives") {
                        channel.settle(number);
                        return bytes.to_vec();
                    }
                }
                news = other.next() => drop(news.expect("it lives")),
            }
        }
    };
    timeout(LONG, frame).await.expect("a frame arrives")
}

async fn say(from: &mut Channel, to: &mut Channel, what: &[u8]) {
    from.link().push(what.to_vec());
    assert_eq!(frame(from, to).await, what);
}

/// Runs an end for so long, and tells why it has ended if it has.
async fn run(channel: &mut Channel, time: Duration) -> Option<Down> {
    let end = async {
        loop {
            if let Err(down) = channel.next().await {
                return down;
            }
        }
    };
    timeout(time, end).await.ok()
}

/// Runs two ends for so long.
async fn run_both(one: &mut Channel, other: &mut Channel, time: Duration) {
    let (one, other) = tokio::join!(run(one, time), run(other, time));
    assert_eq!((one, other), (None, None));
}

/// Bytes that no codec makes shorter.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}
