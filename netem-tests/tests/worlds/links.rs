//! How links begin, end, and say what they know: in round trips, on links without loss.

use std::time::Duration;

use thinpost_client::{Budget, Client, Event, InboxNumber, LinkState, MessageId, MessageState, SyncEnd};
use thinpost_netem::{Person, Profile, World};
use tokio::time::{Instant, sleep, timeout};

use crate::people::{DAY, inbox, introduce, line};

/// One way. The rate is high, so that what is measured is round trips.
const DELAY: Duration = Duration::from_millis(300);
const ROUND_TRIP: Duration = Duration::from_millis(600);

const STEADY: &str = "source = \"for counting round trips\"\n[both]\nrate_kbit_s = 2000\ndelay_ms = 300\n\
                      jitter_ms = 0\nloss_percent = 0\nqueue_packets = 1000\n";

fn steady() -> Profile {
    Profile::from_toml("steady", STEADY).unwrap()
}

async fn ann_and_bob(world: &mut World) -> (Person, Person) {
    let mut people = ["ann", "bob"].map(|name| world.person(name, &steady()));
    for person in &mut people {
        person.open_with(|builder| builder);
    }
    let [ann, bob] = people;
    introduce(&ann, &bob).await;
    (ann, bob)
}

async fn online(client: &Client) {
    client.connect();
    let mut link = client.link_status();
    let state = link.wait_for(|link| link.state == LinkState::Online && link.at_rest_since.is_some());
    timeout(DAY, state).await.unwrap().unwrap();
}

async fn offline(client: &Client) {
    client.disconnect();
    let mut link = client.link_status();
    timeout(DAY, link.wait_for(|link| link.state == LinkState::Offline)).await.unwrap().unwrap();
}

/// How long until the sender of a message knows of custody.
async fn custody_of(client: &Client, message: MessageId, began: Instant) -> Duration {
    let mut events = client.subscribe(InboxNumber(0));
    let custody = async {
        if client.message_state(message).await.unwrap() == Some(thinpost_client::MessageState::Custody) {
            return;
        }
        while let Some(event) = events.next().await {
            if matches!(event, Event::Custody { message: of, .. } if of == message) {
                return;
            }
        }
    };
    timeout(DAY, custody).await.unwrap();
    began.elapsed()
}

/// Not much more than so many round trips.
#[track_caller]
fn takes(took: Duration, round_trips: u32) {
    let expected = ROUND_TRIP * round_trips;
    assert!(took >= expected && took < expected + DELAY / 2, "{took:?} is not {round_trips} round trips");
}

#[tokio::test(start_paused = true)]
async fn a_first_message_ever_waits_for_the_handshake_and_one_on_a_resumed_link_for_nothing() {
    let mut world = World::new(1);
    let (ann, bob) = ann_and_bob(&mut world).await;
    online(bob.client()).await;
    let message = ann.client().send("bob", line("ann", 0).into()).await.unwrap();
    let began = Instant::now();
    ann.client().connect();
    takes(custody_of(ann.client(), message, began).await, 2);
    offline(ann.client()).await;
    let message = ann.client().send("bob", line("ann", 1).into()).await.unwrap();
    let began = Instant::now();
    ann.client().connect();
    takes(custody_of(ann.client(), message, began).await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_restarted_relay_still_takes_a_message_in_the_first_flight() {
    let mut world = World::new(2);
    let (ann, bob) = ann_and_bob(&mut world).await;
    online(bob.client()).await;
    online(ann.client()).await;
    offline(ann.client()).await;
    world.stop_relay().await;
    world.start_relay();
    let message = ann.client().send("bob", line("ann", 0).into()).await.unwrap();
    let began = Instant::now();
    ann.client().connect();
    takes(custody_of(ann.client(), message, began).await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_was_killed_tells_its_devices_with_the_first_packet_they_send() {
    let mut world = World::new(3);
    let (ann, bob) = ann_and_bob(&mut world).await;
    online(bob.client()).await;
    online(ann.client()).await;
    sleep(Duration::from_secs(3_600)).await;
    world.kill_relay();
    world.start_relay();
    let began = Instant::now();
    let message = ann.client().send("bob", line("ann", 0).into()).await.unwrap();
    let took = custody_of(ann.client(), message, began).await;
    // One for the reset, a pause of at most half a second, and one or two for the new link: what TLS
    // sessions the relay had given out since its last commit are gone.
    assert!(took > ROUND_TRIP * 2 && took < ROUND_TRIP * 3 + Duration::from_millis(650), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_message_to_a_new_contact_rides_in_the_first_flight_too() {
    let mut world = World::new(4);
    let (ann, bob) = ann_and_bob(&mut world).await;
    let mut carol = world.person("carol", &steady());
    online(bob.client()).await;
    online(carol.open_with(|builder| builder)).await;
    online(ann.client()).await;
    let message = ann.client().send("bob", line("ann", 0).into()).await.unwrap();
    custody_of(ann.client(), message, Instant::now()).await;
    offline(ann.client()).await;
    ann.client().add_contact("carol", &carol.client().ticket()).await.unwrap();
    let message = ann.client().send("carol", "hello, it is me".into()).await.unwrap();
    let began = Instant::now();
    ann.client().connect();
    takes(custody_of(ann.client(), message, began).await, 1);
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_somebody_who_is_not_there_yet_leaves_when_they_come() {
    let mut world = World::new(5);
    let (ann, bob) = ann_and_bob(&mut world).await;
    online(ann.client()).await;
    for n in 0..3 {
        ann.client().send("bob", line("ann", n).into()).await.unwrap();
    }
    sleep(DAY).await;
    assert_eq!(ann.client().status().await.unwrap().waiting, 3);
    let began = Instant::now();
    bob.client().connect();
    inbox(&bob, 3).await;
    // One and a half until Bob has registered, and as long until the relay has told Ann, she has sent again,
    // and Bob has it: the three share a seal.
    takes(began.elapsed(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_sync_right_after_a_send_waits_for_its_custody() {
    let mut world = World::new(7);
    let (ann, bob) = ann_and_bob(&mut world).await;
    online(bob.client()).await;
    online(ann.client()).await;
    for n in 0..3 {
        ann.client().send("bob", line("ann", n).into()).await.unwrap();
        let report = ann.client().sync(Budget { time: DAY, bytes: u64::MAX }).await.unwrap();
        assert_eq!((report.end, report.custody, report.waiting), (SyncEnd::Complete, 1, 0));
    }
    assert_eq!(ann.client().link_status().borrow().state, LinkState::Online, "as it was wanted before");
}

#[tokio::test(start_paused = true)]
async fn whoever_wants_a_link_during_a_sync_has_it_afterwards_and_syncs_end_whatever_happens() {
    let mut world = World::new(8);
    let (ann, bob) = ann_and_bob(&mut world).await;
    online(bob.client()).await;
    let budget = Budget { time: Duration::from_secs(10), bytes: u64::MAX };
    // Another wish at any moment of a visit: while it connects, while it stays, while it leaves.
    for delay_ms in (0..2_500).step_by(50) {
        let other = async {
            sleep(Duration::from_millis(delay_ms)).await;
            ann.client().connect();
        };
        let (report, ()) =
            timeout(DAY, async { tokio::join!(ann.client().sync(budget), other) }).await.unwrap();
        assert_eq!(report.unwrap().end, SyncEnd::Complete, "{delay_ms} ms");
        sleep(Duration::from_secs(5)).await;
        assert_eq!(ann.client().link_status().borrow().state, LinkState::Online, "{delay_ms} ms");
        offline(ann.client()).await;
        let other = async {
            sleep(Duration::from_millis(delay_ms)).await;
            ann.client().sync(budget).await
        };
        let both = timeout(DAY, async { tokio::join!(ann.client().sync(budget), other) }).await.unwrap();
        assert_eq!((both.0.unwrap().end, both.1.unwrap().end), (SyncEnd::Complete, SyncEnd::Complete));
        offline(ann.client()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_sync_knows_when_it_has_everything() {
    let mut world = World::new(6);
    let (ann, bob) = ann_and_bob(&mut world).await;
    let budget = Budget { time: DAY, bytes: u64::MAX };
    for person in [&ann, &bob] {
        let report = person.client().sync(budget).await.unwrap();
        assert_eq!((report.end, report.received), (SyncEnd::Complete, 0));
    }
    for n in 0..50 {
        ann.client().send("bob", line("ann", n).into()).await.unwrap();
    }
    let report = ann.client().sync(budget).await.unwrap();
    assert_eq!((report.end, report.custody, report.waiting), (SyncEnd::Complete, 50, 0));
    let began = Instant::now();
    let report = bob.client().sync(budget).await.unwrap();
    assert_eq!((report.end, report.received), (SyncEnd::Complete, 50));
    assert!(began.elapsed() < ROUND_TRIP * 3, "{:?}", began.elapsed());
    // The last link ended before the relay could give out another TLS session: a handshake again.
    let began = Instant::now();
    bob.client().sync(budget).await.unwrap();
    takes(began.elapsed(), 2);
}

#[tokio::test(start_paused = true)]
async fn in_saver_mode_custody_is_known_some_seconds_later_and_at_once_when_somebody_leaves() {
    let mut world = World::new(41);
    let (ann, bob) = ann_and_bob(&mut world).await;
    ann.client().connect();
    bob.client().connect();
    sleep(Duration::from_secs(30)).await;
    ann.client().save_bytes(true);
    sleep(Duration::from_secs(30)).await;
    let state = async |id| ann.client().message_state(id).await.unwrap().unwrap();
    let first = ann.client().send("bob", "first".into()).await.unwrap();
    inbox(&bob, 1).await;
    sleep(Duration::from_secs(2)).await;
    assert_eq!(state(first).await, MessageState::Waiting, "the relay has it, and gathers");
    sleep(Duration::from_secs(10)).await;
    assert_eq!(state(first).await, MessageState::Custody);
    let second = ann.client().send("bob", "second".into()).await.unwrap();
    inbox(&bob, 2).await;
    ann.client().disconnect();
    sleep(Duration::from_secs(3)).await;
    assert_eq!(state(second).await, MessageState::Custody, "whoever leaves is told");
    assert_eq!(ann.client().link_status().borrow().state, LinkState::Offline);
}

#[tokio::test(start_paused = true)]
async fn of_two_connections_of_one_device_that_stays_which_began_last() {
    let mut world = World::new(11);
    let far = Profile::from_toml("far", &STEADY.replace("300", "3000")).unwrap();
    let mut on_2g = world.person("ann", &far);
    let mut on_wifi = world.person("the same", &steady());
    on_wifi.restore(on_2g.storage().fork());
    on_2g.open_with(|builder| builder).connect();
    // The relay has heard of the first by then, and hears the end of its handshake long after the second is complete.
    sleep(Duration::from_secs(5)).await;
    on_wifi.open_with(|builder| builder).connect();
    let state = |person: &Person| person.client().link_status().borrow().state.clone();
    sleep(Duration::from_secs(3)).await;
    assert_eq!(state(&on_wifi), LinkState::Online);
    sleep(Duration::from_secs(60)).await;
    assert_eq!((state(&on_wifi), state(&on_2g)), (LinkState::Online, LinkState::Superseded));
}
