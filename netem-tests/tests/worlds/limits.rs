//! What a relay refuses, forgets and finishes.

use std::time::Duration;

use thinpost_client::{Denial, Event, Failure, InboxNumber, LinkState, Message, Refusal};
use thinpost_gateway::Stopped;
use thinpost_gateway::config::{Config, Registration};
use thinpost_netem::World;
use tokio::time::{Instant, sleep, timeout};

use crate::people::{DAY, ann_and_bob, inbox, line, strays};

/// What somebody says, in an envelope of its own: what is sealed shares one.
fn alone(from: &str, n: usize) -> Message {
    Message::from(line(from, n)).relay_visible()
}

#[tokio::test(start_paused = true)]
async fn what_the_relay_may_see_is_not_left_behind_by_a_thousand_sealed_envelopes() {
    let mut world = world(10, |config| {
        config.mailbox.envelopes_max = 10_000;
        config.mailbox.bytes_max = 1 << 30;
        for pace in [&mut config.limits.account, &mut config.limits.mailbox] {
            (pace.messages_burst, pace.bytes_burst) = (10_000, 1_000_000_000);
        }
    });
    let (ann, bob) = ann_and_bob(&mut world, "clean").await;
    // Each fills an envelope of its own, and is written before the last.
    for n in 0..1_100_u32 {
        ann.client().send("bob", Message::data(noise(n, 900))).await.unwrap();
    }
    ann.client().send("bob", alone("ann", 0)).await.unwrap();
    ann.client().connect();
    bob.client().connect();
    let all = async {
        while bob.client().status().await.unwrap().received.0 < 1_101 {
            sleep(Duration::from_secs(10)).await;
        }
    };
    timeout(DAY, all).await.expect("all arrive");
    assert_eq!(ann.client().status().await.unwrap().custody, 1_101);
}

/// What cannot be compressed.
fn noise(seed: u32, length: usize) -> Vec<u8> {
    let mut noise = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut noise);
    noise
}

/// A relay that admits everyone, and is otherwise as `set` makes it.
fn world(seed: u64, set: impl FnOnce(&mut Config)) -> World {
    let mut config = Config::default();
    config.registration = Registration::Open;
    set(&mut config);
    World::builder().seed(seed).relay_config(config).build()
}

#[tokio::test(start_paused = true)]
async fn a_full_mailbox_makes_the_rest_wait_in_order_and_fails_nothing() {
    let mut world = world(4, |config| config.mailbox.envelopes_max = 5);
    let (ann, bob) = ann_and_bob(&mut world, "gprs").await;
    bob.client().connect();
    sleep(Duration::from_secs(30)).await;
    bob.client().disconnect();
    for n in 0..12 {
        ann.client().send("bob", alone("ann", n)).await.unwrap();
    }
    let mut events = ann.client().subscribe(InboxNumber(0));
    ann.client().connect();
    sleep(Duration::from_secs(60)).await;
    let delayed = async {
        loop {
            if let Some(Event::Delayed { message, reason, .. }) = events.next().await {
                return (message.0, reason);
            }
        }
    };
    let delayed = timeout(DAY, delayed).await.unwrap();
    assert_eq!(delayed, (6, Refusal::MailboxFull), "its sender is told");
    let status = ann.client().status().await.unwrap();
    assert_eq!((status.custody, status.waiting, status.failed), (5, 7, 0));
    bob.client().connect();
    assert_eq!(strays(inbox(&bob, 12).await, "ann"), []);
}

#[tokio::test(start_paused = true)]
async fn an_uninvited_device_is_turned_away_and_told_why() {
    let mut world = World::builder().seed(5).relay_config(Config::default()).build();
    let (ann, _) = ann_and_bob(&mut world, "gprs").await;
    ann.client().connect();
    let mut link = ann.client().link_status();
    let denied = timeout(DAY, link.wait_for(|link| link.state.is_final())).await.unwrap().unwrap().clone();
    assert_eq!(denied.state, LinkState::Denied(Denial::InviteNeeded));
}

#[tokio::test(start_paused = true)]
async fn a_sender_in_a_hurry_is_slowed_down_and_loses_nothing() {
    let mut world = world(6, |config| {
        config.limits.account.messages_burst = 5;
        config.limits.account.messages_per_minute = 60;
    });
    let (ann, bob) = ann_and_bob(&mut world, "edge").await;
    ann.client().connect();
    bob.client().connect();
    sleep(Duration::from_secs(30)).await;
    let began = Instant::now();
    for n in 0..30 {
        ann.client().send("bob", alone("ann", n)).await.unwrap();
    }
    assert_eq!(strays(inbox(&bob, 30).await, "ann"), []);
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(25), "one a second: {took:?}");
    assert!(took < Duration::from_secs(90), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_relay_whose_machine_has_a_wrong_clock_keeps_what_it_has_and_gives_it_out() {
    const YEAR_S: i64 = 365 * 24 * 3_600;
    for (seed, step_s) in [(20, YEAR_S), (21, -YEAR_S)] {
        let mut world = world(seed, |config| config.mailbox.lifetime_days = 2);
        let (ann, bob) = ann_and_bob(&mut world, "gprs").await;
        ann.client().connect();
        bob.client().connect();
        sleep(Duration::from_secs(30)).await;
        bob.client().disconnect();
        for n in 0..6 {
            ann.client().send("bob", alone("ann", n)).await.unwrap();
            sleep(Duration::from_secs(60)).await;
            world.kill_relay();
            // Away and right again, in turn.
            world.step_relay_clock(if n % 2 == 0 { step_s } else { -step_s });
            world.start_relay();
        }
        sleep(Duration::from_secs(3_600)).await;
        assert_eq!(world.store().counts().unwrap().entries, 6);
        bob.client().connect();
        assert_eq!(strays(inbox(&bob, 6).await, "ann"), []);
    }
}

#[tokio::test(start_paused = true)]
async fn an_envelope_that_nobody_fetches_is_gone_after_its_lifetime() {
    let mut world = world(7, |config| config.mailbox.lifetime_days = 2);
    let (ann, bob) = ann_and_bob(&mut world, "gprs").await;
    ann.client().connect();
    bob.client().connect();
    sleep(Duration::from_secs(30)).await;
    bob.client().disconnect();
    sleep(Duration::from_secs(30)).await;
    ann.client().send("bob", alone("ann", 0)).await.unwrap();
    sleep(DAY).await;
    assert_eq!(world.store().counts().unwrap().entries, 1);
    ann.client().send("bob", alone("ann", 1)).await.unwrap();
    sleep(DAY + DAY / 2).await;
    assert_eq!(world.store().counts().unwrap().entries, 1, "the first is gone, the second has half a day");
    bob.client().connect();
    assert_eq!(inbox(&bob, 1).await, [("ann".to_owned(), line("ann", 1))]);
}

#[tokio::test(start_paused = true)]
async fn an_envelope_that_is_longer_than_this_relay_takes_fails_and_what_comes_after_it_goes() {
    let mut world = world(9, |config| config.mailbox.envelope_bytes_max = 4_096);
    let (ann, bob) = ann_and_bob(&mut world, "gprs").await;
    let mut events = ann.client().subscribe(InboxNumber(0));
    let long = ann.client().send("bob", Message::data(noise(0, 6_000)).relay_visible()).await.unwrap();
    ann.client().send("bob", alone("ann", 1)).await.unwrap();
    ann.client().connect();
    bob.client().connect();
    assert_eq!(inbox(&bob, 1).await, [("ann".to_owned(), line("ann", 1))]);
    let failed = async {
        loop {
            if let Some(Event::Failed { message, reason, .. }) = events.next().await {
                return (message, reason);
            }
        }
    };
    assert_eq!(timeout(DAY, failed).await.unwrap(), (long, Failure::Refused(Refusal::TooLarge)));
}

#[tokio::test(start_paused = true)]
async fn a_message_that_waits_for_longer_than_its_lifetime_fails_and_its_sender_is_told() {
    let mut world = World::new(8);
    let (mut ann, _bob) = ann_and_bob(&mut world, "gprs").await;
    ann.kill().await;
    ann.open_with(|builder| builder.lifetime(DAY));
    let mut events = ann.client().subscribe(InboxNumber(0));
    let sent = ann.client().send("bob", "too late".into()).await.unwrap();
    sleep(DAY + Duration::from_secs(10)).await;
    ann.client().connect();
    let failed = async {
        loop {
            if let Some(Event::Failed { message, reason, .. }) = events.next().await {
                return (message, reason);
            }
        }
    };
    assert_eq!(timeout(DAY, failed).await.unwrap(), (sent, Failure::Expired));
    assert_eq!(ann.client().status().await.unwrap().waiting, 0);
}

#[tokio::test(start_paused = true)]
async fn a_relay_stops_within_five_seconds_whatever_its_devices_do() {
    let mut world = World::new(9);
    let (ann, bob) = ann_and_bob(&mut world, "gprs").await;
    for person in [&ann, &bob] {
        person.client().connect();
    }
    sleep(Duration::from_secs(30)).await;
    for n in 0..20 {
        ann.client().send("bob", line("ann", n).into()).await.unwrap();
    }
    sleep(Duration::from_secs(1)).await;
    world.net().set_outage(bob.ip(), true);
    let began = Instant::now();
    world.stop_relay().await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    world.net().set_outage(bob.ip(), false);
    world.start_relay();
    assert_eq!(strays(inbox(&bob, 20).await, "ann"), []);
}

#[tokio::test(start_paused = true)]
async fn a_relay_whose_socket_fails_says_that_it_has_stopped() {
    let world = World::new(10);
    let relay = world.relay().unwrap();
    assert!(timeout(DAY, relay.stopped()).await.is_err(), "nothing is wrong");
    world.net().unplug(world.relay_ticket().addresses[0]);
    let stopped = timeout(DAY, relay.stopped()).await.expect("nobody can reach it");
    assert!(matches!(stopped, Stopped::Socket), "{stopped:?}");
}
