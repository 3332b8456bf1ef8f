//! How connections end, and what becomes of those that nobody looks after.

use thinpost_wire::frame::Close;

use super::wire::Fate;
use super::*;

#[tokio::test(start_paused = true)]
async fn what_a_socket_does_not_take_leaves_when_it_does() {
    let mut scene = Scene::new();
    let mut connecting = scene.connect();
    scene.wire.set_fate(DEVICE, Fate::Blocked);
    assert!(timeout(Duration::from_secs(1), connecting.connected()).await.is_err());
    assert!(scene.wire.sent(DEVICE).is_empty());
    let wire = scene.wire.clone();
    let unblock = async {
        sleep(Duration::from_secs(1)).await;
        wire.set_fate(DEVICE, Fate::Arrives);
    };
    let relay = async {
        let mut connecting = scene.relay.accept().await;
        connecting.connected().await.unwrap();
        connecting.open(LINK)
    };
    let device = async {
        connecting.connected().await.unwrap();
        let mut device = connecting.open(LINK);
        device.link().push(noise(100));
        device.flush().unwrap();
        device
    };
    let ((), mut relay, mut device) = tokio::join!(unblock, relay, device);
    assert_eq!(frame(&mut device, &mut relay).await, noise(100));
    assert_eq!(scene.wire.sent(DEVICE), [1_200, 1_200], "each once");
}

#[tokio::test(start_paused = true)]
async fn datagrams_for_somebody_who_does_not_look_are_lost() {
    let mut scene = Scene::new();
    let (mut device, mut relay) = scene.linked().await;
    device.link().push(b"again and again".to_vec());
    device.flush().unwrap();
    let before = relay.connection.quic().stats().udp_rx.datagrams;
    scene.wire.repeat_last(DEVICE, 1_000);
    sleep(Duration::from_millis(1)).await;
    assert_eq!(frame(&mut device, &mut relay).await, b"again and again");
    let taken = relay.connection.quic().stats().udp_rx.datagrams - before;
    assert!((100..=128).contains(&taken), "{taken}");
    say(&mut relay, &mut device, b"still here").await;
}

#[tokio::test(start_paused = true)]
async fn a_device_that_takes_no_datagram_with_an_item_is_left() {
    let mut scene = Scene::new();
    scene.device.datagram_bytes_max = Some(18);
    let mut device = scene.connect();
    let relay = async {
        let mut relay = scene.relay.accept().await;
        relay.connected().await.unwrap();
        relay.open(LINK)
    };
    let device = async {
        device.connected().await.unwrap();
        let mut device = device.open(LINK);
        device.flush().unwrap();
        device
    };
    let (_device, mut relay) = tokio::join!(device, relay);
    relay.link().push(noise(100));
    assert!(matches!(run(&mut relay, LONG).await, Some(Down::Failed(_))));
}

#[tokio::test(start_paused = true)]
async fn who_drops_a_channel_says_goodbye_and_is_forgotten() {
    let mut scene = Scene::new();
    let (device, mut relay) = scene.linked().await;
    assert_eq!(scene.relay.endpoint.open_connections(), 1);
    drop(device);
    assert_eq!(run(&mut relay, LONG).await, Some(Down::Closed(Close::Done)));
    drop(relay);
    timeout(LONG, scene.relay.endpoint.wait_idle()).await.expect("drained in time");
    assert_eq!(scene.relay.endpoint.open_connections(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_goodbye_that_is_lost_is_said_again_to_who_goes_on() {
    let mut scene = Scene::new();
    let (mut device, mut relay) = scene.linked().await;
    scene.wire.set_fate(RELAY, Fate::Lost);
    relay.close(Close::Superseded);
    assert_eq!(run(&mut relay, LONG).await, Some(Down::ClosedHere));
    drop(relay);
    scene.wire.set_fate(RELAY, Fate::Arrives);
    device.link().push(b"anybody there?".to_vec());
    assert_eq!(run(&mut device, LONG).await, Some(Down::Closed(Close::Superseded)));
}

/// Two links to a relay that sees one connection at a time to its end, which has ended both, and neither device has heard of it.
async fn both_ended_unheard(stops: bool) -> (Scene, Channel, Channel) {
    let mut scene = Scene::bounded(ServerLimits { finishing_max: 1, ..ServerLimits::default() });
    let (first_device, first) = scene.linked().await;
    let beside = SocketAddr::new(DEVICE.ip(), 40_001);
    let (second_device, second) = scene.linked_from(beside).await;
    assert_eq!(scene.relay.endpoint.open_connections(), 2);
    if stops {
        scene.relay.endpoint.refuse_new();
    }
    scene.wire.set_fate(RELAY, Fate::Lost);
    drop((first, second));
    sleep(Duration::from_millis(1)).await;
    scene.wire.set_fate(RELAY, Fate::Arrives);
    (scene, first_device, second_device)
}

/// How a device hears that its connection has ended, when it has something to say.
async fn hears(device: &mut Channel) -> Option<Down> {
    device.link().push(b"anybody there?".to_vec());
    run(device, LONG).await
}

#[tokio::test(start_paused = true)]
async fn no_more_connections_are_seen_to_their_end_than_may_be() {
    let (scene, mut first, mut second) = both_ended_unheard(false).await;
    assert_eq!(scene.relay.endpoint.open_connections(), 1, "the other is forgotten at once");
    assert_eq!(hears(&mut first).await, Some(Down::Closed(Close::Done)));
    assert_eq!(hears(&mut second).await, Some(Down::Forgotten));
    drop((first, second));
    timeout(LONG, scene.relay.endpoint.wait_idle()).await.expect("drained in time");
    // Whose place is free again.
    let mut scene = scene;
    let (mut device, relay) = scene.linked().await;
    drop(relay);
    sleep(Duration::from_millis(1)).await;
    assert_eq!(scene.relay.endpoint.open_connections(), 1);
    assert_eq!(hears(&mut device).await, Some(Down::Closed(Close::Done)));
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_stops_sees_all_connections_to_their_end() {
    let (scene, mut first, mut second) = both_ended_unheard(true).await;
    assert_eq!(scene.relay.endpoint.open_connections(), 2);
    for device in [&mut first, &mut second] {
        assert_eq!(hears(device).await, Some(Down::Closed(Close::Done)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_has_restarted_says_that_it_has_forgotten() {
    let mut scene = Scene::new();
    let (mut device, relay) = scene.linked().await;
    scene.wire.set_fate(RELAY, Fate::Lost);
    drop(relay);
    scene.relay = Relay::start(&scene.wire);
    sleep(Duration::from_millis(1)).await;
    device.link().push(b"anybody there?".to_vec());
    assert_eq!(run(&mut device, LONG).await, Some(Down::Forgotten));
}

#[tokio::test(start_paused = true)]
async fn another_relay_in_its_place_is_found_out() {
    let mut scene = Scene::new();
    let expected = RelayKey(Identity::from_seed([9; 32]).public());
    scene.device = quic::Client::new(&Identity::from_seed([2; 32]), expected);
    let mut connecting = scene.connect();
    let relay = async {
        let mut connecting = scene.relay.accept().await;
        timeout(LONG, connecting.connected()).await.expect("it hears of it")
    };
    let device = async {
        let down = connecting.connected().await;
        drop(connecting);
        down
    };
    let (relay, device) = tokio::join!(relay, device);
    assert_eq!(device, Err(Down::WrongKey));
    assert!(matches!(relay, Err(Down::WrongKey | Down::Failed(_))), "{relay:?}");
}

#[tokio::test(start_paused = true)]
async fn who_is_refused_or_asked_to_prove_where_they_are_hears_of_it() {
    let mut scene = Scene::new();
    let mut connecting = scene.connect();
    let relay = async {
        let incoming = scene.relay.accepting.next().await.unwrap();
        assert!(!incoming.remote_address_validated() && incoming.may_retry());
        incoming.retry();
        let incoming = scene.relay.accepting.next().await.unwrap();
        assert!(incoming.remote_address_validated() && !incoming.may_retry());
        assert_eq!(incoming.remote_address(), DEVICE);
        incoming.refuse();
    };
    let both = async { tokio::join!(connecting.connected(), relay) };
    let (connected, ()) = timeout(LONG, both).await.expect("both come to an end");
    assert!(matches!(connected, Err(Down::Failed(_))), "{connected:?}");
    drop(connecting);
    timeout(LONG, scene.relay.endpoint.wait_idle()).await.expect("nothing is left");
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_takes_no_more_serves_those_it_has() {
    let mut scene = Scene::new();
    let (mut device, mut relay) = scene.linked().await;
    scene.relay.endpoint.refuse_new();
    say(&mut device, &mut relay, b"one more thing").await;
    assert!(scene.relay.accepting.next().await.is_none());
}
