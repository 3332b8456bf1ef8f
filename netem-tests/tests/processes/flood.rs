//! A relay under a little of each attack: what the full volume of `flood` measures is only counted here.

use std::path::PathBuf;
use std::time::Duration;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use thinpost_netem::flood::initial::Crumbs;
use thinpost_netem::flood::service::{Phase, Served};
use thinpost_netem::flood::{AMPLIFICATION_MAX, Relay, Service, handshakes, mailbox, replay, slow};
use thinpost_netem::town::programs;
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout};

/// Ordinary ones, each of which says something meanwhile.
const CLIENTS: u64 = 6;

/// How long a relay here is attacked.
const ATTACK: Duration = Duration::from_secs(6);

fn program() -> PathBuf {
    programs().join("gateway")
}

/// A relay with a few clients that talk to each other, on this machine alone.
async fn scene() -> (Relay, Service, Instant) {
    let relay = Relay::start(&program(), "").unwrap();
    let service = Service::start(&relay, CLIENTS, Duration::from_millis(300), None, 7).await.unwrap();
    service.enter(Phase::Attacked);
    (relay, service, Instant::now() + ATTACK)
}

/// All that the clients said is in custody and has arrived, once, and the relay kept within its bound.
async fn check(mut relay: Relay, service: Service) {
    let served: Served = service.finish().await;
    assert!(served.sent >= CLIENTS && served.is_whole(), "{served:?}");
    let (peak, bound) = (relay.peak_bytes().unwrap(), relay.bound_bytes().unwrap());
    assert!(peak <= bound, "{peak} of {bound}");
    assert!(relay.is_running().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_that_nobody_ends_are_asked_where_they_are_and_cost_others_nothing() {
    let (relay, service, until) = scene().await;
    let flood = handshakes::Flood { forged: 600, forged_per_s: 300, silent: 20, silent_per_s: 10 };
    let outcome = handshakes::run(relay.ticket(), flood, 7, until).await.unwrap();
    assert_eq!(outcome.begun, 600);
    assert!((1..=200).contains(&outcome.answered), "{outcome:?}");
    assert!(outcome.retried >= 350, "{outcome:?}");
    assert!(outcome.amplification > 0.0 && outcome.amplification <= AMPLIFICATION_MAX, "{outcome:?}");
    check(relay, service).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_do_not_read_or_come_to_an_end_cost_others_nothing() {
    let (relay, service, until) = scene().await;
    let flood = slow::Flood { clients: 50, per_s: 25 };
    let outcome = slow::run(relay.ticket(), flood, 7, until).await.unwrap();
    assert_eq!(
        (outcome.readers, outcome.endless, outcome.turned_away),
        ((30, 30), (10, 10), 0),
        "{outcome:?}"
    );
    check(relay, service).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mailbox_that_is_flooded_refuses_with_a_word_and_others_take_all() {
    let (relay, service, until) = scene().await;
    let flood = mailbox::Flood { by_one: 640, strangers: 60, per_s: 60 };
    let outcome = mailbox::run(relay.ticket(), flood, 7, until).await.unwrap();
    outcome.check(&flood, 32).unwrap();
    assert!(outcome.refused.values().sum::<u64>() > 0, "{outcome:?}");
    assert_eq!(outcome.strangers, 60, "{outcome:?}");
    assert!(outcome.strangers_accepted > 0 && outcome.strangers_refused["not wanted"] == 6, "{outcome:?}");
    check(relay, service).await;
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
