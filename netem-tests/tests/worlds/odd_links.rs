//! Links on which something else is wrong than that they are thin.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use thinpost_client::{LinkState, Message};
use thinpost_netem::{Fate, Leg, LossCause, Profile, Trace, Verdict, World};
use tokio::time::{sleep, timeout};

use crate::people::{DAY, ann_and_bob, expected, inbox, line};

/// Two people on such links say sixty things to each other in half an hour; what happened to the packets.
async fn half_an_hour(link: &str) -> Vec<Trace> {
    let mut world = World::new(7);
    let traces = Arc::new(Mutex::new(Vec::new()));
    let seen = traces.clone();
    world.net().set_trace(move |trace| seen.lock().unwrap().push(trace.clone()));
    let (ann, bob) = ann_and_bob(&mut world, link).await;
    ann.client().connect();
    bob.client().connect();
    for n in 0..60 {
        sleep(Duration::from_secs(30)).await;
        ann.client().send("bob", Message::from(line("ann", n))).await.unwrap();
        bob.client().send("ann", Message::from(line("bob", n))).await.unwrap();
    }
    assert_eq!(inbox(&bob, 60).await, expected("ann", 60));
    assert_eq!(inbox(&ann, 60).await, expected("bob", 60));
    let traces = traces.lock().unwrap();
    traces.clone()
}

/// From how many of their ports people have sent.
fn flows(traces: &[Trace]) -> usize {
    let ports = traces.iter().filter(|trace| trace.leg == Leg::Up && trace.from.port() != 4433);
    ports.map(|trace| trace.from).collect::<BTreeSet<_>>().len()
}

fn count(traces: &[Trace], is: impl Fn(&Fate) -> bool) -> usize {
    traces.iter().filter(|trace| is(&trace.fate)).count()
}

#[tokio::test(start_paused = true)]
async fn packets_that_come_twice_changed_or_out_of_order_harm_nothing() {
    let traces = half_an_hour("mangled").await;
    assert!(count(&traces, |fate| matches!(fate, Fate::Offered(Verdict::Double { .. }))) > 5);
    assert!(count(&traces, |fate| matches!(fate, Fate::Offered(Verdict::Damage { .. }))) > 5);
    let too_large = Fate::Offered(Verdict::Lost { cause: LossCause::Size });
    assert_eq!(count(&traces, |fate| *fate == too_large), 0, "nothing is sent that a path may not carry");
}

#[tokio::test(start_paused = true)]
async fn a_flow_that_a_censor_cuts_is_replaced() {
    let traces = half_an_hour("censored").await;
    assert!(count(&traces, |fate| *fate == Fate::Censored) > 0);
    assert!(flows(&traces) > 3, "{}", flows(&traces));
}

#[tokio::test(start_paused = true)]
async fn who_is_not_welcomed_on_one_way_tries_another() {
    let mut world = World::new(9);
    let traces = Arc::new(Mutex::new(Vec::new()));
    let seen = traces.clone();
    world.net().set_trace(move |trace| seen.lock().unwrap().push(trace.clone()));
    let whole = Profile::named("umts").unwrap();
    let mut ann = world.person("ann", &whole);
    ann.open_with(|builder| builder).connect();
    // The relay hears all, but of what it says only acknowledgements get through once the handshake is complete.
    let up = || world.net().counters(ann.ip()).up.offered.packets;
    while up() < 2 {
        sleep(Duration::from_millis(1)).await;
    }
    let mut narrow = whole.clone();
    narrow.down.mtu_bytes = Some(60);
    world.net().attach_profile(ann.ip(), &narrow);
    sleep(Duration::from_secs(600)).await;
    assert!(flows(&traces.lock().unwrap()) > 1, "it waits for ever");
    world.net().attach_profile(ann.ip(), &whole);
    let mut status = ann.client().link_status();
    let online = status.wait_for(|status| status.state == LinkState::Online);
    timeout(Duration::from_secs(600), online).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_object_passes_a_censor_who_cuts_flows_that_are_shorter_than_it() {
    let mut world = World::new(8);
    let (mut ann, mut bob) = ann_and_bob(&mut world, "censored").await;
    // Nothing else is said that could tell that a way is cut.
    for person in [&mut ann, &mut bob] {
        person.kill().await;
        sleep(Duration::from_millis(2)).await;
        person.open_with(|builder| builder).connect();
    }
    sleep(Duration::from_secs(60)).await;
    let bytes: Vec<u8> = (0..40_000_u32).map(|n| ((n * n) >> 5) as u8).collect();
    let id = ann.client().put_object(bytes.clone(), None).await.unwrap();
    let stored = async {
        while ann.client().object_state(id).await.unwrap().is_some() {
            sleep(Duration::from_secs(1)).await;
        }
    };
    timeout(Duration::from_secs(600), stored).await.unwrap();
    bob.client().fetch_object(id).await.unwrap();
    let arrived = async {
        while bob.client().object(id).await.unwrap().is_none() {
            sleep(Duration::from_secs(1)).await;
        }
    };
    timeout(Duration::from_secs(600), arrived).await.unwrap();
    assert_eq!(bob.client().object(id).await.unwrap(), Some(bytes));
}

#[tokio::test(start_paused = true)]
async fn a_radio_that_sleeps_and_a_train_that_moves_lose_nothing() {
    half_an_hour("sleepy").await;
    half_an_hour("train").await;
}

#[tokio::test(start_paused = true)]
async fn whoever_is_heard_by_nobody_or_hears_nobody_goes_on_when_the_way_is_whole_again() {
    for leg in [Leg::Up, Leg::Down] {
        let mut world = World::new(3);
        let (ann, bob) = ann_and_bob(&mut world, "umts").await;
        bob.client().connect();
        ann.client().connect();
        let mut status = ann.client().link_status();
        let online = status.wait_for(|status| status.state == LinkState::Online);
        timeout(DAY, online).await.unwrap().unwrap();
        world.net().set_outage_of(ann.ip(), leg, true);
        ann.client().send("bob", Message::from("through one way")).await.unwrap();
        sleep(Duration::from_secs(600)).await;
        let arrived = bob.client().status().await.unwrap().received.0;
        assert_eq!(arrived, if leg == Leg::Up { 0 } else { 1 }, "{leg:?}");
        world.net().set_outage_of(ann.ip(), leg, false);
        assert_eq!(inbox(&bob, 1).await, [("ann".to_owned(), "through one way".to_owned())]);
    }
}
