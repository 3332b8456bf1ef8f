//! What leaves when, from the first packet to the last of a handshake.

use super::wire::Fate;
use super::*;

#[tokio::test(start_paused = true)]
async fn what_a_device_says_first_rides_with_the_end_of_its_handshake() {
    let mut scene = Scene::new();
    let mut connecting = scene.connect();
    let relay = async {
        let mut connecting = scene.relay.accept().await;
        assert_eq!(connecting.peer_device(), None);
        connecting.connected().await.unwrap();
        assert_eq!(connecting.peer_device().unwrap().0, Identity::from_seed([2; 32]).public());
        connecting.open(LINK)
    };
    let device = async {
        assert!(!connecting.speaks_early());
        connecting.connected().await.unwrap();
        let mut device = connecting.open(LINK);
        assert!(device.is_connected());
        device.link().push(noise(500));
        device.flush().unwrap();
        device
    };
    let (mut relay, mut device) = tokio::join!(relay, device);
    assert_eq!(frame(&mut device, &mut relay).await, noise(500));
    assert_eq!(scene.wire.sent(DEVICE), [1_200, 1_200]);
    // What the relay says to that leaves with what QUIC says to it: confirmation, session ticket, custody.
    relay.link().push(noise(100));
    relay.flush().unwrap();
    assert_eq!(frame(&mut relay, &mut device).await, noise(100));
    assert_eq!(scene.wire.sent(RELAY).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_resumed_device_and_its_answer_need_one_datagram_each() {
    let mut scene = Scene::new();
    scene.acquaint().await;
    let before = (scene.wire.sent(DEVICE).len(), scene.wire.sent(RELAY).len());
    let mut connecting = scene.connect();
    assert!(connecting.speaks_early());
    let mut device = connecting.open(LINK);
    device.link().push(noise(500));
    device.flush().unwrap();
    assert!(!device.is_connected());

    let mut connecting = scene.relay.accept().await;
    assert_eq!(connecting.peer_device().unwrap().0, Identity::from_seed([2; 32]).public());
    let mut relay = connecting.open(LINK);
    let Ok(News::Link(Event::Frame { number, bytes })) = relay.next().await else { panic!("not a frame") };
    assert_eq!(bytes, noise(500));
    assert_eq!(scene.wire.sent(RELAY).len(), before.1, "nothing leaves before the owner has had its say");
    relay.settle(number);
    relay.link().push(noise(500));
    relay.flush().unwrap();

    assert_eq!(device.next().await, Ok(News::Connected));
    assert_eq!(device.next().await, Ok(News::Link(Event::Settled { upto: number })));
    let Ok(News::Link(Event::Frame { bytes, .. })) = device.next().await else { panic!("not a frame") };
    assert_eq!(bytes, noise(500));
    assert_eq!(scene.wire.sent(DEVICE)[before.0..], [1_200]);
    assert_eq!(scene.wire.sent(RELAY)[before.1..], [1_200]);
}

#[tokio::test(start_paused = true)]
async fn the_first_datagram_of_a_long_message_fits_beside_the_handshake() {
    let mut scene = Scene::new();
    scene.acquaint().await;
    let before = (scene.wire.sent(DEVICE).len(), scene.wire.sent(RELAY).len());
    let mut device = scene.connect().open(LINK);
    device.link().push(noise(100));
    device.link().push(noise(400));
    device.link().push(noise(1_900));
    device.flush().unwrap();
    let sent = &scene.wire.sent(DEVICE)[before.0..];
    assert_eq!((sent.len(), sent[0]), (3, 1_200), "{sent:?}");

    let mut relay = scene.relay.accept().await.open(LINK);
    relay.link().push(noise(100));
    relay.link().push(noise(400));
    relay.link().push(noise(1_900));
    relay.flush().unwrap();
    let sent = &scene.wire.sent(RELAY)[before.1..];
    assert_eq!((sent.len(), sent[0]), (3, 1_200), "{sent:?}");
}

#[tokio::test(start_paused = true)]
async fn what_was_said_early_is_said_again_when_it_is_refused() {
    let mut scene = Scene::new();
    scene.acquaint().await;
    // It has forgotten all sessions.
    scene.relay = Relay::start(&scene.wire);
    let mut connecting = scene.connect();
    assert!(connecting.speaks_early());
    let before = scene.wire.sent(DEVICE).len();
    let mut device = connecting.open(LINK);
    device.link().push(noise(400));
    let relay = async {
        let mut connecting = scene.relay.accept().await;
        assert_eq!(connecting.peer_device(), None);
        connecting.connected().await.unwrap();
        connecting.open(LINK)
    };
    let device = async {
        assert_eq!(device.next().await, Ok(News::Connected));
        device.flush().unwrap();
        device
    };
    let (mut relay, mut device) = tokio::join!(relay, device);
    assert_eq!(frame(&mut device, &mut relay).await, noise(400));
    assert_eq!(device.link().resent_items(), 1);
    assert_eq!(scene.wire.sent(DEVICE)[before..], [1_200, 1_200]);
    relay.link().push(b"one".to_vec());
    assert_eq!(frame(&mut relay, &mut device).await, b"one");
}

#[tokio::test(start_paused = true)]
async fn what_was_said_early_rides_with_the_proof_of_where_one_is() {
    let mut scene = Scene::new();
    scene.acquaint().await;
    let before = scene.wire.sent(DEVICE).len();
    let began = Instant::now();
    let mut device = scene.connect().open(LINK);
    device.link().push(noise(400));
    let relay = async {
        scene.relay.accepting.next().await.unwrap().retry();
        let mut connecting = scene.relay.accept().await;
        assert!(connecting.peer_device().is_some(), "it speaks early once more");
        connecting.open(LINK)
    };
    let connected = async { while device.next().await != Ok(News::Connected) {} };
    let relay = async {
        let mut relay = relay.await;
        let Ok(News::Link(Event::Frame { number, bytes })) = relay.next().await else {
            panic!("not a frame")
        };
        assert_eq!(bytes, noise(400));
        relay.settle(number);
        relay.flush().unwrap();
        relay
    };
    let both = async { tokio::join!(relay, connected) };
    let (_relay, ()) = timeout(LONG, both).await.expect("both come to an end");
    assert_eq!(scene.wire.sent(DEVICE)[before..], [1_200, 1_200]);
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_relay_does_not_repeat_its_handshake_while_early_data_comes() {
    let mut scene = Scene::new();
    scene.acquaint().await;
    let before = scene.wire.sent(RELAY).len();
    let mut device = scene.connect().open(LINK);
    device.link().push(noise(300));
    device.flush().unwrap();
    let mut relay = scene.relay.accept().await.open(LINK);
    // The relay's answers are under way as long as that.
    scene.wire.set_fate(RELAY, Fate::Kept);
    let large =
        |scene: &Scene| scene.wire.sent(RELAY)[before..].iter().filter(|bytes| **bytes == 1_200).count();
    for _ in 0..6 {
        run_both(&mut device, &mut relay, Duration::from_secs(1)).await;
        device.link().push(noise(30));
    }
    assert_eq!(large(&scene), 1);
    // The device falls silent, or is lost.
    assert_eq!(run(&mut relay, Duration::from_secs(4)).await, None);
    assert!(large(&scene) > 1);
    scene.wire.set_fate(RELAY, Fate::Arrives);
    say(&mut relay, &mut device, b"there you are").await;
}

#[tokio::test(start_paused = true)]
async fn what_is_held_leaves_soon_or_with_what_it_waits_for() {
    let mut scene = Scene::new();
    let (mut device, mut relay) = scene.linked().await;
    let before = scene.wire.sent(RELAY).len();
    relay.hold(true);
    relay.link().push(b"late".to_vec());
    assert_eq!(run(&mut relay, Duration::from_millis(19)).await, None);
    relay.hold(true);
    assert_eq!(scene.wire.sent(RELAY).len(), before);
    assert_eq!(run(&mut relay, Duration::from_millis(2)).await, None);
    assert_eq!(scene.wire.sent(RELAY).len(), before + 1, "no longer than 20 ms");
    assert_eq!(frame(&mut relay, &mut device).await, b"late");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_acknowledged_alone_at_rest() {
    let mut scene = Scene::new();
    let (mut device, mut relay) = scene.linked().await;
    run_both(&mut device, &mut relay, LONG).await;
    let before = scene.wire.sent(DEVICE).len();
    // By its own rule QUIC would acknowledge every second of these at once; here the link does, each, and QUIC with it.
    for _ in 0..5 {
        say(&mut relay, &mut device, b"hear").await;
        run_both(&mut device, &mut relay, Duration::from_millis(1)).await;
    }
    run_both(&mut device, &mut relay, Duration::from_secs(11 * 3600)).await;
    let said = [DEVICE, RELAY].map(|end| scene.wire.sent(end).len());
    assert_eq!(said[0] - before, 5);
    // What was left out rides with what is said next, and QUIC asks for nothing.
    say(&mut device, &mut relay, b"and now").await;
    run_both(&mut device, &mut relay, LONG).await;
    say(&mut relay, &mut device, b"and then").await;
    run_both(&mut device, &mut relay, LONG).await;
    assert_eq!([DEVICE, RELAY].map(|end| scene.wire.sent(end).len()), said.map(|before| before + 2));
}

#[tokio::test(start_paused = true)]
async fn a_relay_forgets_who_rests_for_too_long() {
    let mut scene = Scene::new();
    let (mut device, mut relay) = scene.linked().await;
    run_both(&mut device, &mut relay, LONG).await;
    scene.wire.set_fate(DEVICE, Fate::Lost);
    assert_eq!(run(&mut relay, Duration::from_secs(11 * 3600)).await, None);
    assert_eq!(run(&mut relay, Duration::from_secs(2 * 3600)).await, Some(Down::TimedOut));
}
