//! A contact's keys change: the account is the same, and what was sealed for the keys of before cannot be opened.

use std::collections::BTreeSet;
use std::time::Duration;

use thinpost_client::{Event, InboxNumber};
use thinpost_netem::{Person, World};
use tokio::time::{sleep, timeout};

use crate::people::{A_WHILE, DAY, ann_and_bob, go, inbox, line};

/// Ann has lost her home and made another for the same account, and is offline. Three of Bob's messages wait for her at
/// the relay, and two at Bob's, who is offline as well.
async fn with_other_keys(seed: u64) -> (World, Person, Person) {
    let mut world = World::new(seed);
    let (mut ann, bob) = ann_and_bob(&mut world, "gprs").await;
    go(&ann, true).await;
    go(&bob, true).await;
    ann.client().send("bob", "hello".into()).await.unwrap();
    inbox(&bob, 1).await;
    sleep(A_WHILE * 2).await;
    go(&ann, false).await;
    for n in 0..3 {
        bob.client().send("ann", line("bob", n).into()).await.unwrap();
    }
    go(&bob, true).await;
    go(&bob, false).await;
    for n in 3..5 {
        bob.client().send("ann", line("bob", n).into()).await.unwrap();
    }
    ann.kill().await;
    ann.lose_home(world.relay_ticket());
    sleep(Duration::from_millis(2)).await;
    ann.open();
    ann.client().add_contact("bob", &bob.client().ticket_for("ann").await.unwrap()).await.unwrap();
    (world, ann, bob)
}

async fn accept(bob: &Person, ann: &Person) {
    let ticket = ann.client().ticket_for("bob").await.unwrap();
    bob.client().add_contact("ann", &ticket).await.unwrap();
}

/// What has come within ten minutes: long before anything is sent again because nobody answers.
async fn texts(of: &Person, count: u64) -> BTreeSet<String> {
    sleep(A_WHILE * 10).await;
    assert_eq!(of.client().status().await.unwrap().received.0, count);
    inbox(of, count).await.into_iter().map(|(_, text)| text).collect()
}

fn lines(numbers: std::ops::Range<usize>) -> BTreeSet<String> {
    numbers.map(|n| line("bob", n)).collect()
}

async fn unconfirmed(person: &Person) -> u64 {
    person.client().status().await.unwrap().unconfirmed
}

#[tokio::test(start_paused = true)]
async fn other_keys_of_a_contact_who_says_who_they_are_wait_to_be_accepted() {
    let (_world, ann, bob) = with_other_keys(9).await;
    let mut events = bob.client().subscribe(InboxNumber(u64::MAX));
    let before = bob.client().contacts().remove(0).ticket;
    ann.client().introduce("bob").await.unwrap();
    go(&ann, true).await;
    go(&bob, true).await;
    let mut told = async |expected: Event| {
        let wait = async { while events.next().await.unwrap() != expected {} };
        timeout(DAY, wait).await.unwrap_or_else(|_| panic!("{expected:?}"));
    };
    let account = ann.client().account();
    told(Event::Introduced { account }).await;
    assert_eq!(
        bob.client().contacts()[0].ticket,
        before,
        "nothing is sealed for keys that nobody has accepted"
    );
    bob.client().accept(&account, "ann").await.unwrap();
    told(Event::KeysChanged { contact: "ann".to_owned() }).await;
    assert_ne!(bob.client().contacts()[0].ticket, before);
}

#[tokio::test(start_paused = true)]
async fn who_asks_with_keys_that_were_accepted_gets_what_was_for_the_keys_of_before() {
    let (_world, ann, bob) = with_other_keys(1).await;
    accept(&bob, &ann).await;
    ann.client().connect();
    bob.client().connect();
    assert_eq!(texts(&ann, 5).await, lines(0..5));
    sleep(Duration::from_secs(3600)).await;
    assert_eq!(ann.client().status().await.unwrap().received.0, 5, "each once");
    assert_eq!(unconfirmed(&bob).await, 0);
    bob.client().send("ann", line("bob", 5).into()).await.unwrap();
    assert_eq!(texts(&ann, 6).await, lines(0..6));
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_the_keys_of_before_arrives_beside_what_was_written_for_the_present_ones() {
    let (_world, ann, bob) = with_other_keys(3).await;
    accept(&bob, &ann).await;
    for n in 5..8 {
        bob.client().send("ann", line("bob", n).into()).await.unwrap();
    }
    ann.client().connect();
    bob.client().connect();
    assert_eq!(texts(&ann, 8).await, lines(0..8));
    sleep(Duration::from_secs(3600)).await;
    let status = bob.client().status().await.unwrap();
    assert_eq!((status.unconfirmed, status.failed, status.abandoned), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn who_asks_with_keys_that_were_not_accepted_gets_nothing_until_they_are() {
    let (_world, ann, bob) = with_other_keys(2).await;
    ann.client().connect();
    bob.client().connect();
    sleep(Duration::from_secs(3600)).await;
    assert_eq!(ann.client().status().await.unwrap().received.0, 0);
    assert_eq!(unconfirmed(&bob).await, 5);
    accept(&bob, &ann).await;
    // The receipt for this one shows that those before it could not be opened.
    bob.client().send("ann", line("bob", 5).into()).await.unwrap();
    assert_eq!(texts(&ann, 6).await, lines(0..6));
    sleep(Duration::from_secs(3600)).await;
    assert_eq!(unconfirmed(&bob).await, 0);
}
