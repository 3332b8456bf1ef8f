//! A relay under a little of each attack: what the full volume of `flood` measures is only counted here.

use std::path::PathBuf;
use std::time::Duration;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use thinpost_gateway::store::RedbStore;
use thinpost_netem::flood::initial::Crumbs;
use thinpost_netem::flood::service::{Group, Phase, Served};
use thinpost_netem::flood::{
    AMPLIFICATION_MAX, Census, Relay, Service, census, handshakes, mailbox, replay, slow,
};
use thinpost_netem::town::programs;
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

/// Ordinary ones, each of which says something meanwhile, and others who come and go.
const GROUP: Group<'_> =
    Group { number: 0, clients: 6, newcomers: 2, pace: Duration::from_millis(300), profile: None };

/// How long a relay here is attacked.
const ATTACK: Duration = Duration::from_secs(6);

/// Limits that a few attackers reach.
const SMALL: &str = "\
[mailbox]
envelopes_max = 100
request_envelopes_max = 8
[limits]
connections_max = 120
strangers_max = 64
retry_from = 12
incoming_max = 64
incoming_bytes_max = 262144
links_bytes_max = 4194304
keys_max = 1000
[limits.mailbox]
messages_per_minute = 10
messages_burst = 40
[store]
cache_bytes = 1048576
";

fn program() -> PathBuf {
    programs().join("gateway")
}

struct Scene {
    relay: Relay,
    service: Service,
    until: Instant,
    /// What the relay had taken before.
    quiet_bytes: u64,
    census: JoinHandle<anyhow::Result<Census>>,
}

/// A relay with a few clients that talk to each other, on this machine alone.
async fn scene() -> Scene {
    let relay = Relay::start(&program(), SMALL).unwrap();
    let service = Service::start(&relay, GROUP, 7).await.unwrap();
    service.enter(Phase::Attacked);
    let until = Instant::now() + ATTACK;
    let census = tokio::spawn(census::take(relay.data_folder().unwrap(), until));
    Scene { quiet_bytes: relay.peak_bytes().unwrap(), relay, service, until, census }
}

impl Scene {
    /// All that the clients said is in custody and has arrived, once, all newcomers are in, and the relay kept within its bound.
    /// What it counted, and its store.
    async fn end(mut self) -> (Census, RedbStore) {
        let census = self.census.await.unwrap().unwrap();
        let served: Served = self.service.finish().await;
        assert!(served.sent >= GROUP.clients && served.is_whole(), "{served:?}");
        assert!(served.came >= GROUP.newcomers, "{served:?}");
        let (peak, bound) = (self.relay.peak_bytes().unwrap(), self.relay.bound_bytes().unwrap());
        assert!(peak <= bound, "{peak} of {bound}");
        let (grown, bound) =
            (peak - self.quiet_bytes, census.growth_bytes_max(&self.relay.config().unwrap()));
        assert!(grown <= bound, "{grown} of {bound}: {census:?}");
        assert!(self.relay.is_running().unwrap());
        self.relay.stop().unwrap();
        assert_eq!(self.relay.panics(), Vec::<String>::new());
        (census, self.relay.store().unwrap())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_that_nobody_ends_are_asked_where_they_are_and_cost_others_nothing() {
    let scene = scene().await;
    let limits = scene.relay.config().unwrap().limits;
    let flood = handshakes::Flood { forged: 600, forged_per_s: 300, silent: 20, silent_per_s: 10 };
    let outcome = handshakes::run(scene.relay.ticket(), flood, 7, scene.until).await.unwrap();
    let lost = scene.relay.datagrams_lost().unwrap();
    let (census, _) = scene.end().await;
    assert_eq!((outcome.begun, outcome.silent + outcome.turned_away), (600, 20));
    outcome.check(&limits, lost, ATTACK.as_secs()).unwrap();
    let (silent, half_open) = (outcome.sessions(&flood, &limits), outcome.half_open(&flood, &limits));
    census.check(0, silent, half_open, &limits).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_do_not_read_or_come_to_an_end_cost_others_nothing() {
    let scene = scene().await;
    let limits = scene.relay.config().unwrap().limits;
    let flood = slow::Flood { clients: 50, per_s: 25 };
    let outcome = slow::run(scene.relay.ticket(), flood, 7, scene.until).await.unwrap();
    let (census, store) = scene.end().await;
    assert_eq!((outcome.sessions(), outcome.half_open(&flood)), (40, 10), "{outcome:?}");
    census.check(40, 0, 10, &limits).unwrap();
    outcome.check(&store).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mailbox_that_is_flooded_refuses_with_a_word_and_others_take_all() {
    let scene = scene().await;
    let config = scene.relay.config().unwrap();
    let flood = mailbox::Flood::of(&config, 60, 60);
    let outcome = mailbox::run(scene.relay.ticket(), flood, 7, scene.until).await.unwrap();
    let (_, store) = scene.end().await;
    outcome.check(&flood, &config, &store).unwrap();
    assert_eq!((outcome.strangers, outcome.forged.refused["not wanted"]), (60, 6), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_flight_counts_once_whoever_plays_it_again() {
    let outcome = replay::run(&program(), 12, 7).await.unwrap();
    assert_eq!(outcome.broken, Vec::<String>::new());
    assert_eq!((outcome.played, outcome.answered), (3 + 3 * 6 + 6, 3 + 3 * 3 + 3), "{outcome:?}");
    assert!(outcome.amplification > 0.0 && outcome.amplification <= AMPLIFICATION_MAX, "{outcome:?}");
}

#[tokio::test]
async fn a_handshake_in_crumbs_is_ended_by_the_relay() {
    let relay = Relay::start(&program(), "").unwrap();
    let mut crumbs = Crumbs::new(relay.ticket().key, &mut ChaCha8Rng::seed_from_u64(7)).unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut buffer = [0; 2_048];
    let mut sent = 0;
    let is_ended = async {
        for at in (1..).step_by(2).take(40) {
            sent += socket.send_to(&crumbs.datagram(at), relay.address()).await.unwrap();
            // One by one: each is acknowledged.
            while let Ok(len) = timeout(Duration::from_millis(20), socket.recv(&mut buffer)).await {
                if crumbs.is_ended_by(&buffer[..len.unwrap()]) {
                    return true;
                }
            }
        }
        false
    };
    assert!(is_ended.await, "after {sent} bytes");
    assert!(sent > 20 * 1_200, "not before it is too much");
}
