//! What keeps a way open, and who answers it.

use super::*;

/// Whether a device is told that the relay has lost sight of it, within a minute.
async fn loses_track(device: &mut Channel) -> bool {
    let told = async { while !matches!(device.next().await.expect("it lives"), News::LostTrack) {} };
    timeout(LONG, told).await.is_ok()
}

#[tokio::test(start_paused = true)]
async fn a_touch_is_one_byte_that_a_relay_does_not_answer_where_it_knows_the_device() {
    let mut scene = Scene::new();
    let (mut device, mut relay) = scene.linked().await;
    run_both(&mut device, &mut relay, LONG).await;
    let (up, down) = (scene.wire.sent(DEVICE).len(), scene.wire.sent(RELAY).len());
    device.touch();
    assert_eq!(device.sent_at(), tokio::time::Instant::now());
    assert!(!loses_track(&mut device).await);
    assert_eq!(scene.wire.sent(DEVICE)[up..], [1]);
    assert_eq!(scene.wire.sent(RELAY).len(), down);
    say(&mut relay, &mut device, b"still here").await;
}

#[tokio::test(start_paused = true)]
async fn a_relay_answers_the_touch_of_a_stranger_and_only_a_touch_is_answered() {
    let mut scene = Scene::new();
    let (mut device, mut relay) = scene.linked().await;
    run_both(&mut device, &mut relay, LONG).await;
    // It is another process now, and knows nobody.
    scene.relay = Relay::start(&scene.wire);
    let before = scene.wire.sent(RELAY).len();
    device.touch();
    assert!(loses_track(&mut device).await);
    assert_eq!(scene.wire.sent(RELAY)[before..], [1]);
    scene.wire.repeat_last(RELAY, 3);
    assert!(!loses_track(&mut device).await, "once a touch");
}

#[tokio::test(start_paused = true)]
async fn a_device_whose_connection_is_over_is_a_stranger() {
    let mut scene = Scene::new();
    let (mut device, mut relay) = scene.linked().await;
    run_both(&mut device, &mut relay, LONG).await;
    scene.wire.set_fate(RELAY, wire::Fate::Lost);
    drop(relay);
    sleep(LONG * 3).await;
    scene.wire.set_fate(RELAY, wire::Fate::Arrives);
    device.touch();
    assert!(loses_track(&mut device).await);
}

#[tokio::test(start_paused = true)]
async fn quiet_counts_from_the_last_packet_either_way() {
    let mut scene = Scene::new();
    let (mut device, mut relay) = scene.linked().await;
    run_both(&mut device, &mut relay, LONG).await;
    device.take_quiet();
    let (sent_at, since) = (device.sent_at(), device.quiet_since());
    assert!(sent_at <= since);
    sleep(LONG * 2).await;
    let quiet = since.elapsed();
    say(&mut relay, &mut device, b"at last").await;
    assert_eq!(device.take_quiet(), quiet);
    assert_eq!(device.take_quiet(), Duration::ZERO);
    assert!(device.quiet_since().elapsed() < Duration::from_secs(1));
}
