//! What a relay's links hold, and what becomes of them when there is no room.

use thinpost_wire::frame::Close;

use super::*;
use crate::room::{FLOOR_BYTES, Pool, Room};

/// Both ends of a link, of which the relay's has this pool.
async fn linked_with(pool: &Pool) -> (Channel, Channel) {
    let (device, mut relay) = Scene::new().linked().await;
    relay.borrow_from(pool.clone());
    (device, relay)
}

#[tokio::test(start_paused = true)]
async fn a_link_that_holds_most_when_no_room_is_left_ends_and_gives_back_what_it_had() {
    let pool = Pool::new(64 * 1024);
    let (mut device, mut relay) = linked_with(&pool).await;
    for _ in 0..200 {
        device.link().push(noise(1_000));
    }
    // The relay takes, and settles nothing.
    let (relay_end, device_end) = tokio::join!(run(&mut relay, LONG), run(&mut device, LONG));
    assert_eq!((relay_end, device_end), (Some(Down::NoRoom), Some(Down::Closed(Close::Busy))));
    assert!(relay.link().holds_bytes() <= FLOOR_BYTES + 64 * 1024);
    assert!(pool.lent_bytes() > 0);
    drop(relay);
    assert_eq!((pool.lent_bytes(), pool.called_in()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn what_there_is_no_room_for_is_not_taken_in_and_comes_again() {
    let pool = Pool::new(256 * 1024);
    let (mut device, mut relay) = linked_with(&pool).await;
    let mut hog = Room::from(pool.clone());
    hog.fit(FLOOR_BYTES + 256 * 1024);
    for number in 0..40 {
        device.link().push(noise(1_000 + number));
    }
    run_both(&mut device, &mut relay, Duration::from_secs(5)).await;
    assert!(relay.link().holds_bytes() <= FLOOR_BYTES);
    drop(hog);
    run_both(&mut device, &mut relay, LONG).await;
    assert!(relay.link().holds_bytes() > 40 * 1_000, "all of it, unsettled");
    relay.settle(1_000);
    run_both(&mut device, &mut relay, Duration::from_secs(5)).await;
    assert!(device.link().is_at_rest());
    assert_eq!((relay.link().holds_bytes(), pool.lent_bytes()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn short_messages_need_no_loan() {
    let pool = Pool::new(0);
    let (mut device, mut relay) = linked_with(&pool).await;
    for _ in 0..20 {
        say(&mut device, &mut relay, &noise(100)).await;
        say(&mut relay, &mut device, &noise(100)).await;
    }
    assert!(!relay.has_room(FLOOR_BYTES + 1));
}

#[tokio::test(start_paused = true)]
async fn packets_that_nobody_acknowledges_are_no_more_than_may_be_and_count() {
    let pool = Pool::new(256 * 1024);
    let mut scene = Scene::new();
    let (mut device, mut relay) = scene.linked().await;
    relay.borrow_from(pool.clone());
    let before = scene.wire.sent(RELAY).len();
    for _ in 0..1_000 {
        relay.connection.quic().ping();
        relay.connection.transmit();
        sleep(Duration::from_secs(1)).await;
    }
    let sent = scene.wire.sent(RELAY).len() - before;
    assert!((200..=260).contains(&sent), "{sent}");
    assert!(relay.has_room(0) && pool.lent_bytes() > 32 * 1024, "{}", pool.lent_bytes());
    // The device looks at last.
    for _ in 0..20 {
        say(&mut relay, &mut device, &noise(100)).await;
        say(&mut device, &mut relay, &noise(100)).await;
    }
    assert!(relay.has_room(0));
    assert_eq!(pool.lent_bytes(), 0);
}
