//! Behind NATs that forget: who is reachable, who can speak again, and what it costs.

use std::time::Duration;

use thinpost_client::{Event, InboxNumber};
use thinpost_netem::{Nat, Person, Profile, World};
use tokio::time::{Instant, sleep, timeout};

use crate::people::{A_WHILE, DAY, go, inbox, introduce, line, profile};

const HOUR: Duration = Duration::from_secs(3_600);

/// GPRS without its losses.
fn thin() -> Profile {
    let text = "source = \"gprs without loss\"\n[both]\nrate_kbit_s = 20\ndelay_ms = 300\njitter_ms = 80\n\
                loss_percent = 0\nqueue_packets = 30\n";
    Profile::from_toml("thin", text).unwrap()
}

/// Ann on a link without loss, behind a NAT, and Bob on a good one, who have met.
async fn ann_behind_a_nat_and_bob(world: &mut World, nat: Nat) -> (Person, Person) {
    let mut ann = world.person("ann", &thin());
    let mut bob = world.person("bob", &profile("clean"));
    world.net().set_nat(ann.ip(), Some(nat));
    for person in [&mut ann, &mut bob] {
        person.open_with(|builder| builder);
    }
    introduce(&ann, &bob).await;
    for person in [&ann, &bob] {
        go(person, true).await;
    }
    ann.client().send("bob", line("ann", 0).into()).await.unwrap();
    assert_eq!(inbox(&bob, 1).await.len(), 1);
    // Receipts leave within two minutes.
    sleep(5 * A_WHILE).await;
    (ann, bob)
}

fn minute_nat() -> Nat {
    Nat::forgetting_after("198.51.100.2".parse().unwrap(), Duration::from_secs(60))
}

fn air_bytes(world: &World, person: &Person) -> u64 {
    let path = world.net().counters(person.ip());
    path.up.offered.ip_bytes + path.down.offered.ip_bytes
}

/// How long until Ann has this message of Bob's.
async fn reaches(ann: &Person, bob: &Person, n: usize) -> Duration {
    let began = Instant::now();
    bob.client().send("ann", line("bob", n).into()).await.unwrap();
    inbox(ann, n as u64 + 1).await;
    began.elapsed()
}

/// Lets Ann be reachable for two hours, and has Bob write to her then, and at moments that have nothing to do with each other.
async fn stays_reachable(world: &World, ann: &Person, bob: &Person) {
    ann.client().stay_reachable(true);
    sleep(2 * HOUR).await;
    let bytes = air_bytes(world, ann);
    sleep(HOUR).await;
    let bytes = air_bytes(world, ann) - bytes;
    assert!((1..4_000).contains(&bytes), "{bytes} B in an hour");
    for n in 0..8 {
        let took = reaches(ann, bob, n).await;
        assert!(took < Duration::from_millis(1_500), "message {n} took {took:?}");
        sleep(Duration::from_secs(211 + 17 * n as u64)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn who_stays_reachable_has_messages_at_once_behind_a_nat_that_forgets() {
    let mut world = World::new(1);
    let (ann, bob) = ann_behind_a_nat_and_bob(&mut world, minute_nat()).await;
    stays_reachable(&world, &ann, &bob).await;
}

#[tokio::test(start_paused = true)]
async fn a_nat_that_gives_the_same_port_again_does_not_deceive_who_stays_reachable() {
    let mut world = World::new(2);
    let mut nat = minute_nat();
    (nat.mapping.keeps_ports, nat.mapping.inbound_refreshes) = (true, true);
    let (ann, bob) = ann_behind_a_nat_and_bob(&mut world, nat).await;
    stays_reachable(&world, &ann, &bob).await;
}

#[tokio::test(start_paused = true)]
async fn who_is_silent_costs_nothing_is_not_reached_and_goes_on_with_one_message() {
    let mut world = World::new(3);
    let (ann, bob) = ann_behind_a_nat_and_bob(&mut world, minute_nat()).await;
    let before = air_bytes(&world, &ann);
    sleep(HOUR).await;
    assert_eq!(air_bytes(&world, &ann), before);
    bob.client().send("ann", line("bob", 0).into()).await.unwrap();
    sleep(A_WHILE).await;
    assert_eq!(ann.client().status().await.unwrap().received, InboxNumber(0));
    assert_eq!(air_bytes(&world, &ann), before, "nothing gets through its NAT");

    let mut events = ann.client().subscribe(InboxNumber(u64::MAX));
    let began = Instant::now();
    let message = ann.client().send("bob", line("ann", 1).into()).await.unwrap();
    let custody = async {
        while !matches!(events.next().await, Some(Event::Custody { message: of, .. }) if of == message) {}
    };
    timeout(DAY, custody).await.unwrap();
    assert!(began.elapsed() < Duration::from_millis(1_600), "{:?}", began.elapsed());
    inbox(&ann, 1).await;
    assert!(began.elapsed() < Duration::from_secs(5), "what has waited comes as well: {:?}", began.elapsed());
    sleep(A_WHILE).await;
    let bytes = air_bytes(&world, &ann) - before;
    assert!(bytes < 4_000, "{bytes} B: no new handshake");
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_was_restarted_is_noticed_by_who_stays_reachable() {
    let mut world = World::new(4);
    let (ann, bob) = ann_behind_a_nat_and_bob(&mut world, minute_nat()).await;
    ann.client().stay_reachable(true);
    sleep(2 * HOUR).await;
    world.kill_relay();
    world.start_relay();
    bob.client().network_changed();
    sleep(2 * A_WHILE).await;
    let took = reaches(&ann, &bob, 0).await;
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_mapping_that_is_lost_at_once_is_made_anew_with_the_next_touch() {
    let mut world = World::new(5);
    let nat = Nat::forgetting_after(minute_nat().outside, Duration::from_secs(300));
    let (ann, bob) = ann_behind_a_nat_and_bob(&mut world, nat).await;
    ann.client().stay_reachable(true);
    sleep(2 * HOUR).await;
    // As when the NAT is restarted.
    world.net().set_nat(ann.ip(), Some(nat));
    sleep(Duration::from_secs(300)).await;
    let took = reaches(&ann, &bob, 0).await;
    assert!(took < Duration::from_millis(1_500), "{took:?}");
}
