//! Objects: whole, checked, and where they stopped after every break.

use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use thinpost_client::{
    Event, InboxNumber, ObjectFailure, ObjectId, ObjectRefusal, ObjectState, Subscription,
};
use thinpost_gateway::config::{Config, Registration};
use thinpost_netem::{Leg, Person, Profile, World};
use tokio::time::{Instant, sleep, timeout};

use crate::people::{ann_and_bob, inbox};

const DAY: Duration = Duration::from_secs(24 * 3_600);

fn noise(bytes: usize) -> Vec<u8> {
    let mut noise = vec![0; bytes];
    ChaCha8Rng::seed_from_u64(bytes as u64).fill(&mut noise[..]);
    noise
}

/// The next event about an object but for its progress.
async fn news_of(events: &mut Subscription, object: ObjectId) -> Event {
    let next = async {
        loop {
            match events.next().await.expect("the client lives") {
                Event::ObjectProgress { .. } => {}
                event @ (Event::ObjectStored { id }
                | Event::ObjectArrived { id }
                | Event::ObjectFailed { id, .. })
                    if id == object =>
                {
                    return event;
                }
                _ => {}
            }
        }
    };
    timeout(DAY, next).await.expect("something becomes of it")
}

fn events(person: &Person) -> Subscription {
    person.client().subscribe(InboxNumber(u64::MAX))
}

/// IP bytes that left a person, or came.
fn air_bytes(world: &World, person: &Person) -> (u64, u64) {
    let path = world.net().counters(person.ip());
    (path.up.offered.ip_bytes, path.down.offered.ip_bytes)
}

#[tokio::test(start_paused = true)]
async fn an_object_goes_on_where_it_stopped_whoever_was_killed() {
    let mut world = World::new(1);
    let (mut ann, mut bob) = ann_and_bob(&mut world, "gprs").await;
    ann.client().connect();
    sleep(Duration::from_secs(20)).await;
    let (bytes, (before, _)) = (noise(60_000), air_bytes(&world, &ann));
    let id = ann.client().put_object(bytes.clone(), None).await.unwrap();
    for pause in [4, 7, 5] {
        sleep(Duration::from_secs(pause)).await;
        world.kill_relay();
        world.start_relay();
        sleep(Duration::from_secs(pause)).await;
        ann.kill().await;
        sleep(Duration::from_millis(2)).await;
        ann.open().connect();
    }
    assert_eq!(ann.client().object_state(id).await.unwrap(), Some(ObjectState::Putting));
    assert_eq!(news_of(&mut events(&ann), id).await, Event::ObjectStored { id });
    assert_eq!(ann.client().object_state(id).await.unwrap(), None, "it is done with");
    let (sent, _) = air_bytes(&world, &ann);
    // The bytes with their headers, what was on its way at each of six breaks, and six handshakes.
    let bound = 60_000 * 1_228 / 1_155 + 6 * (4_000 + 4_000);
    assert!(sent - before < bound, "{} of {bound}", sent - before);

    bob.client().connect();
    sleep(Duration::from_secs(20)).await;
    let (_, before) = air_bytes(&world, &bob);
    bob.client().fetch_object(id).await.unwrap();
    for pause in [5, 9] {
        sleep(Duration::from_secs(pause)).await;
        world.kill_relay();
        world.start_relay();
        sleep(Duration::from_secs(pause)).await;
        bob.kill().await;
        sleep(Duration::from_millis(2)).await;
        bob.open().connect();
    }
    assert_eq!(bob.client().object(id).await.unwrap(), None, "not before all of it is here");
    assert_eq!(news_of(&mut events(&bob), id).await, Event::ObjectArrived { id });
    assert_eq!(bob.client().object(id).await.unwrap(), Some(bytes));
    let (_, received) = air_bytes(&world, &bob);
    assert!(received - before < bound, "{} of {bound}", received - before);
    bob.client().forget_object(id).await.unwrap();
    assert_eq!(bob.client().object(id).await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn a_text_passes_an_object_that_is_on_its_way() {
    let mut world = World::new(3);
    let (ann, bob) = ann_and_bob(&mut world, "gprs").await;
    ann.client().connect();
    bob.client().connect();
    sleep(Duration::from_secs(30)).await;
    let id = ann.client().put_object(noise(200_000), None).await.unwrap();
    sleep(Duration::from_secs(20)).await;
    let began = Instant::now();
    ann.client().send("bob", "are you there?".into()).await.unwrap();
    inbox(&bob, 1).await;
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    assert_eq!(ann.client().object_state(id).await.unwrap(), Some(ObjectState::Putting));
    assert_eq!(news_of(&mut events(&ann), id).await, Event::ObjectStored { id });
}

#[tokio::test(start_paused = true)]
async fn what_a_relay_does_not_take_or_have_is_said() {
    let mut config = Config::default();
    config.registration = Registration::Open;
    config.objects.object_bytes_max = 10_000;
    config.objects.bytes_max = 15_000;
    let mut world = World::builder().seed(4).relay_config(config).build();
    let (ann, bob) = ann_and_bob(&mut world, "edge").await;
    ann.client().connect();
    bob.client().connect();
    let mut news = events(&ann);
    let failed = |id, reason| Event::ObjectFailed { id, reason: ObjectFailure::Refused(reason) };
    let id = ann.client().put_object(noise(10_001), None).await.unwrap();
    assert_eq!(news_of(&mut news, id).await, failed(id, ObjectRefusal::TooLong));
    let id = ObjectId::of(b"nobody has it");
    ann.client().fetch_object(id).await.unwrap();
    assert_eq!(news_of(&mut news, id).await, failed(id, ObjectRefusal::Unknown));
    assert_eq!(ann.client().object_state(id).await.unwrap(), None);

    // The second does not fit beside the first, and waits until its time is over.
    let hour = Some(Duration::from_secs(3_600));
    let first = ann.client().put_object(noise(9_000), hour).await.unwrap();
    assert_eq!(news_of(&mut news, first).await, Event::ObjectStored { id: first });
    let began = Instant::now();
    let second = ann.client().put_object(noise(8_000), hour).await.unwrap();
    assert_eq!(news_of(&mut news, second).await, Event::ObjectStored { id: second });
    assert!(began.elapsed() > Duration::from_secs(3_000), "{:?}", began.elapsed());
    bob.client().fetch_object(first).await.unwrap();
    assert_eq!(news_of(&mut events(&bob), first).await, failed(first, ObjectRefusal::Unknown));
}

#[tokio::test(start_paused = true)]
async fn an_object_that_is_forgotten_is_sent_no_further() {
    let mut world = World::new(5);
    let (ann, _bob) = ann_and_bob(&mut world, "gprs").await;
    ann.client().connect();
    sleep(Duration::from_secs(20)).await;
    let id = ann.client().put_object(noise(200_000), None).await.unwrap();
    sleep(Duration::from_secs(20)).await;
    ann.client().forget_object(id).await.unwrap();
    sleep(Duration::from_secs(10)).await;
    let (before, _) = air_bytes(&world, &ann);
    sleep(Duration::from_secs(60)).await;
    let (after, _) = air_bytes(&world, &ann);
    assert!(after - before < 500, "{}", after - before);
    assert_eq!(ann.client().object_state(id).await.unwrap(), None);
}

/// Ann begins to hand over an object while she hears nothing for a while. How many bytes of it came more than once.
async fn repeated_bytes(unheard: Duration, relay_dies: bool) -> u64 {
    let mut world = World::new(6);
    let even = "source = \"nothing but thin\"\n[both]\nrate_kbit_s = 20\ndelay_ms = 300\nqueue_packets = 30";
    let mut ann = world.person("ann", &Profile::from_toml("even", even).unwrap());
    ann.open().connect();
    sleep(Duration::from_secs(20)).await;
    world.net().set_outage_of(ann.ip(), Leg::Down, true);
    let id = ann.client().put_object(noise(60_000), None).await.unwrap();
    sleep(unheard).await;
    if relay_dies {
        world.kill_relay();
        world.start_relay();
    }
    world.net().set_outage_of(ann.ip(), Leg::Down, false);
    assert_eq!(news_of(&mut events(&ann), id).await, Event::ObjectStored { id });
    // A relay counts when a session ends.
    ann.client().disconnect();
    sleep(Duration::from_secs(60)).await;
    world.relay().unwrap().repeated_chunk_bytes()
}

#[tokio::test(start_paused = true)]
async fn nothing_comes_twice_when_what_opens_an_upload_is_lost() {
    for ms in (400..1_600).step_by(100) {
        assert_eq!(repeated_bytes(Duration::from_millis(ms), false).await, 0, "unheard for {ms} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_comes_twice_when_a_link_ends_before_it_is_known_that_an_upload_has_begun() {
    assert_eq!(repeated_bytes(Duration::from_secs(3), true).await, 0);
}
