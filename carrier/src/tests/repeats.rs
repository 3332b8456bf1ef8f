//! What leaves again while nothing answers a handshake.

use super::wire::Fate;
use super::*;

/// What was sent from there since so many datagrams.
fn since(scene: &Scene, before: usize, by: SocketAddr) -> Vec<Vec<u8>> {
    scene.wire.sent_bytes(by).split_off(before).into_iter().map(|(_, bytes)| bytes).collect()
}

/// A device that knows the relay, and has just said something into the void.
async fn unheard() -> (Scene, Channel, usize) {
    let mut scene = Scene::new();
    scene.acquaint().await;
    let before = scene.wire.sent(DEVICE).len();
    let connecting = scene.connect();
    scene.wire.set_fate(DEVICE, Fate::Lost);
    let mut device = connecting.open(LINK);
    device.link().push(noise(400));
    device.flush().unwrap();
    (scene, device, before)
}

/// A device that is to say the end of its handshake, and a relay that waits for it.
async fn before_the_end() -> (Scene, Channel, Connecting) {
    let mut scene = Scene::new();
    let mut device = scene.connect();
    let mut relay = tokio::select! {
        relay = scene.relay.accept() => relay,
        _ = device.connected() => panic!("nobody has answered"),
    };
    tokio::select! {
        connected = device.connected() => connected.unwrap(),
        _ = relay.connected() => panic!("the device has not said the end"),
    }
    let device = device.open(LINK);
    (scene, device, relay)
}

#[tokio::test(start_paused = true)]
async fn the_opening_leaves_again_as_it_was_with_what_was_said_in_it_and_nothing_beside_it() {
    let (mut scene, mut device, before) = unheard().await;
    assert_eq!(run(&mut device, Duration::from_secs(50)).await, None);
    let sent = since(&scene, before, DEVICE);
    assert!(
        (2..=5).contains(&sent.iter().filter(|datagram| datagram.len() == 1_200).count()),
        "{}",
        sent.len()
    );
    assert_eq!(sent.last(), sent.first());
    assert!(device.unheard_for().is_some_and(|time| time > Duration::from_secs(30)));

    scene.wire.set_fate(DEVICE, Fate::Arrives);
    scene.wire.repeat_last(DEVICE, 1);
    let mut relay = scene.relay.accept().await.open(LINK);
    assert_eq!(frame(&mut device, &mut relay).await, noise(400));
    run_both(&mut device, &mut relay, Duration::from_secs(1)).await;
    assert!(device.is_connected() && device.unheard_for().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_relay_answers_an_opening_that_comes_again_with_its_own() {
    let mut scene = Scene::new();
    scene.acquaint().await;
    let before = scene.wire.sent(RELAY).len();
    let mut device = scene.connect().open(LINK);
    device.link().push(noise(400));
    device.flush().unwrap();
    scene.wire.set_fate(RELAY, Fate::Lost);
    let mut relay = scene.relay.accept().await.open(LINK);
    let first = timeout(LONG, relay.next()).await.unwrap();
    assert!(matches!(first, Ok(News::Link(Event::Frame { .. }))), "{first:?}");
    assert_eq!(run(&mut relay, Duration::from_secs(1)).await, None);
    let opening = since(&scene, before, RELAY)[0].clone();
    scene.wire.set_fate(RELAY, Fate::Arrives);
    scene.wire.repeat_last(DEVICE, 1);
    assert_eq!(run(&mut relay, Duration::from_millis(1)).await, None);
    assert_eq!(since(&scene, before, RELAY).iter().filter(|datagram| **datagram == opening).count(), 2);
    run_both(&mut device, &mut relay, Duration::from_secs(1)).await;
    assert!(device.is_connected());
}

#[tokio::test(start_paused = true)]
async fn a_relay_sends_no_more_than_three_times_what_it_has_heard() {
    let mut scene = Scene::new();
    scene.acquaint().await;
    let before = [DEVICE, RELAY].map(|by| scene.wire.sent(by).len());
    let mut device = scene.connect().open(LINK);
    device.link().push(noise(400));
    device.flush().unwrap();
    scene.wire.set_fate(RELAY, Fate::Lost);
    let mut relay = scene.relay.accept().await.open(LINK);
    run(&mut relay, LONG).await;
    let bytes = |scene: &Scene, n: usize, by| since(scene, before[n], by).concat().len();
    let (heard, said) = (bytes(&scene, 0, DEVICE), bytes(&scene, 1, RELAY));
    assert!(said > heard && said <= 3 * heard, "{said} after {heard}");
}

#[tokio::test(start_paused = true)]
async fn once_the_path_is_known_to_be_open_everything_leaves_again() {
    let (mut scene, mut device, before) = unheard().await;
    for _ in 0..3 {
        device.link().push(noise(900));
    }
    assert_eq!(run(&mut device, Duration::from_secs(40)).await, None);
    scene.wire.set_fate(DEVICE, Fate::Arrives);
    let unheard = since(&scene, before, DEVICE).len();
    device.path_is_open();
    device.flush().unwrap();
    let sent = since(&scene, before + unheard, DEVICE);
    assert!(sent.len() >= 4 && sent[0].len() == 1_200, "{}", sent.len());
    let mut relay = scene.relay.accept().await.open(LINK);
    for expected in [400, 900, 900, 900] {
        assert_eq!(frame(&mut device, &mut relay).await, noise(expected));
    }
}

#[tokio::test(start_paused = true)]
async fn what_rode_with_the_end_of_a_handshake_leaves_at_once_when_the_end_alone_has_arrived() {
    let (scene, mut device, mut relay) = before_the_end().await;
    scene.wire.set_fate(DEVICE, Fate::Lost);
    device.link().push(noise(400));
    device.flush().unwrap();
    assert_eq!(run(&mut device, Duration::from_millis(3_500)).await, None);
    let [.., with, alone] = &scene.wire.sent(DEVICE)[..] else { panic!("it leaves again, twice") };
    assert!(*with > 600 && *alone < 300, "{with}, {alone}");
    scene.wire.set_fate(DEVICE, Fate::Arrives);
    scene.wire.repeat_last(DEVICE, 1);
    relay.connected().await.unwrap();
    let mut relay = relay.open(LINK);
    let arrived = timeout(Duration::from_millis(100), frame(&mut device, &mut relay)).await;
    assert_eq!(arrived.unwrap(), noise(400));
}

/// A handshake that is complete, and of which the device does not know that the relay has understood its end.
async fn unconfirmed() -> (Scene, Channel, Channel) {
    let (scene, mut device, mut relay) = before_the_end().await;
    device.flush().unwrap();
    scene.wire.set_fate(RELAY, Fate::Lost);
    relay.connected().await.unwrap();
    let mut relay = relay.open(LINK);
    run_both(&mut device, &mut relay, Duration::from_millis(100)).await;
    (scene, device, relay)
}

/// Neither end sends anything for hours.
async fn stay_quiet(scene: &Scene, device: &mut Channel, relay: &mut Channel) {
    let before = [DEVICE, RELAY].map(|end| scene.wire.sent(end).len());
    run_both(device, relay, Duration::from_secs(6 * 3600)).await;
    assert_eq!([DEVICE, RELAY].map(|end| scene.wire.sent(end).len()), before);
}

#[tokio::test(start_paused = true)]
async fn a_relay_at_rest_confirms_a_handshake_again_whose_end_is_said_again() {
    let (scene, mut device, mut relay) = unconfirmed().await;
    scene.wire.set_fate(RELAY, Fate::Arrives);
    run_both(&mut device, &mut relay, LONG).await;
    stay_quiet(&scene, &mut device, &mut relay).await;
}

#[tokio::test(start_paused = true)]
async fn a_handshake_is_confirmed_again_to_where_its_device_is_seen_now() {
    let (scene, mut device, mut relay) = unconfirmed().await;
    scene.wire.set_fate(RELAY, Fate::Arrives);
    scene.wire.see_as(DEVICE, SocketAddr::from(([192, 0, 2, 9], 9)));
    run_both(&mut device, &mut relay, LONG).await;
    stay_quiet(&scene, &mut device, &mut relay).await;
}

#[tokio::test(start_paused = true)]
async fn a_relay_at_rest_goes_on_to_confirm_a_handshake_when_that_is_lost() {
    let (scene, mut device, mut relay) = unconfirmed().await;
    // Until the device has said the end again, and for a second after that.
    let before = scene.wire.sent(DEVICE).len();
    while scene.wire.sent(DEVICE).len() == before {
        run_both(&mut device, &mut relay, Duration::from_millis(100)).await;
    }
    run_both(&mut device, &mut relay, Duration::from_secs(1)).await;
    scene.wire.set_fate(RELAY, Fate::Arrives);
    scene.wire.set_fate(DEVICE, Fate::Lost);
    run_both(&mut device, &mut relay, LONG).await;
    // What QUIC says again has told the device, which has only answered since then.
    let answers = scene.wire.sent(DEVICE).split_off(before);
    assert!(answers.len() < 12 && answers.ends_with(&[29, 29]), "{answers:?}");
    stay_quiet(&scene, &mut device, &mut relay).await;
}

#[tokio::test(start_paused = true)]
async fn what_nobody_can_read_ends_no_connection_at_rest_and_costs_it_little() {
    let mut scene = Scene::new();
    let (mut device, mut relay) = scene.linked().await;
    say(&mut device, &mut relay, b"I am here").await;
    run_both(&mut device, &mut relay, LONG).await;
    let before = scene.wire.sent(RELAY).len();
    // A packet that claims to be of a handshake's end, for the connection id in the device's last packet.
    let (_, last) = scene.wire.sent_bytes(DEVICE).pop().unwrap();
    let forged = [&[0xe0, 0, 0, 0, 1, 4], &last[1..5], &[0, 0x40, 0x40], &[0x5a; 0x40]].concat();
    let stranger = SocketAddr::from(([192, 0, 2, 99], 5));
    for _ in 0..100 {
        scene.wire.deliver(stranger, RELAY, forged.clone());
        run_both(&mut device, &mut relay, Duration::from_millis(100)).await;
    }
    let said = &scene.wire.sent(RELAY)[before..];
    assert!((1..=11).contains(&said.len()), "it is understood, and answered once a second: {said:?}");
    assert!(said.iter().sum::<usize>() < 11 * 60, "{said:?}");
    run_both(&mut device, &mut relay, Duration::from_secs(11 * 3600)).await;
    say(&mut relay, &mut device, b"and now").await;
}
