//! What a person should know of, whether or not anybody listened when it happened.

use std::time::Duration;

use thinpost_client::{
    Abandonment, Client, Event, Failure, InboxNumber, Matter, MessageState, Refusal, Status, Subscription,
};
use thinpost_netem::{Person, World};
use tokio::time::sleep;

use crate::people::{A_WHILE, ann_and_bob, go, inbox};

async fn status(client: &Client) -> Status {
    client.status().await.unwrap()
}

async fn matters(client: &Client) -> Vec<(Matter, Option<String>)> {
    status(client).await.notices.into_iter().map(|notice| (notice.matter, notice.contact)).collect()
}

async fn reopen(person: &mut Person) {
    person.kill().await;
    sleep(Duration::from_millis(2)).await;
    person.open().connect();
    sleep(A_WHILE).await;
}

/// What was told of messages that were given up.
async fn abandoned(events: &mut Subscription) -> Vec<Event> {
    let mut told = Vec::new();
    while let Ok(Some(event)) = tokio::time::timeout(Duration::ZERO, events.next()).await {
        told.extend(Some(event).filter(|event| matches!(event, Event::Abandoned { .. })));
    }
    told
}

async fn lose_store(world: &mut World) {
    world.kill_relay();
    world.lose_store();
    world.start_relay();
    sleep(A_WHILE * 2).await;
}

#[tokio::test(start_paused = true)]
async fn who_missed_that_a_home_is_a_copy_learns_it_until_they_say_that_they_know() {
    let mut world = World::new(1);
    let (mut ann, mut bob) = ann_and_bob(&mut world, "gprs").await;
    let old = ann.storage().fork();
    go(&ann, true).await;
    go(&bob, true).await;
    bob.client().send("ann", "hello".into()).await.unwrap();
    inbox(&ann, 1).await;
    ann.kill().await;
    ann.restore(old);
    // Nobody listens, neither here nor there.
    reopen(&mut ann).await;
    sleep(A_WHILE * 2).await;
    reopen(&mut bob).await;
    reopen(&mut ann).await;
    let account = ann.client().account();
    assert_eq!(matters(bob.client()).await, [(Matter::AskedAgain(account), Some("ann".to_owned()))]);
    assert_eq!(matters(ann.client()).await, [(Matter::Restored, None)]);
    let number = status(ann.client()).await.notices[0].number;
    ann.client().acknowledge(number).await.unwrap();
    reopen(&mut ann).await;
    assert_eq!(matters(ann.client()).await, []);
    bob.client().remove_contact("ann").await.unwrap();
    assert_eq!(matters(bob.client()).await, [], "it goes with the contact");
}

#[tokio::test(start_paused = true)]
async fn what_was_in_custody_and_is_refused_for_good_when_it_goes_out_again_is_told_once() {
    let mut world = World::new(2);
    let (mut ann, bob) = ann_and_bob(&mut world, "gprs").await;
    go(&bob, true).await;
    go(&bob, false).await;
    go(&ann, true).await;
    let message = ann.client().send("bob", "are you there?".into()).await.unwrap();
    sleep(A_WHILE).await;
    go(&ann, false).await;
    // The next relay hears first that Ann is not wanted, and then what she has to send again.
    bob.client().revoke_ticket("ann").await.unwrap();
    lose_store(&mut world).await;
    go(&bob, true).await;
    let mut events = ann.client().subscribe(InboxNumber(0));
    ann.client().connect();
    sleep(A_WHILE * 2).await;
    let reason = Abandonment::Failed(Failure::Refused(Refusal::NotWanted));
    let told = Event::Abandoned { message, app_id: None, contact: Some("bob".to_owned()), reason };
    assert_eq!(abandoned(&mut events).await, [told]);
    drop(events);
    reopen(&mut ann).await;
    lose_store(&mut world).await;
    let mut events = ann.client().subscribe(InboxNumber(0));
    sleep(A_WHILE * 2).await;
    assert_eq!(abandoned(&mut events).await, []);
    let state = ann.client().message_state(message).await.unwrap();
    assert_eq!(state, Some(MessageState::Abandoned(reason)));
    let now = status(ann.client()).await;
    assert_eq!((now.custody, now.failed, now.abandoned, now.unconfirmed, now.waiting), (1, 0, 1, 0, 0));
    let bobs = Matter::Abandoned(bob.client().account());
    assert_eq!(matters(ann.client()).await, [(bobs, Some("bob".to_owned()))]);
}

#[tokio::test(start_paused = true)]
async fn what_gets_lost_a_sixth_time_is_given_up_and_told() {
    let mut world = World::new(3);
    let (ann, bob) = ann_and_bob(&mut world, "gprs").await;
    go(&bob, true).await;
    go(&bob, false).await;
    go(&ann, true).await;
    let mut events = ann.client().subscribe(InboxNumber(0));
    let message = ann.client().send("bob", "are you there?".into()).await.unwrap();
    sleep(A_WHILE).await;
    for lost in 1..=6 {
        assert_eq!(status(ann.client()).await.unconfirmed, 1, "before it is lost for the {lost}. time");
        assert_eq!(abandoned(&mut events).await, []);
        go(&ann, false).await;
        lose_store(&mut world).await;
        // The new relay has to know that there is a mailbox.
        go(&bob, true).await;
        go(&bob, false).await;
        go(&ann, true).await;
    }
    let told = abandoned(&mut events).await;
    assert!(
        matches!(told[..], [Event::Abandoned { message: of, reason: Abandonment::TooOften, .. }] if of == message),
        "{told:?}"
    );
    assert_eq!((status(ann.client()).await.abandoned, status(ann.client()).await.unconfirmed), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn who_has_read_further_than_an_old_copy_of_the_home_goes_is_told_what_comes_next() {
    let mut world = World::new(9);
    let (ann, bob) = ann_and_bob(&mut world, "gprs").await;
    go(&bob, true).await;
    let mut events = bob.client().subscribe(InboxNumber(500));
    ann.client().send("bob", "the first in this copy".into()).await.unwrap();
    ann.client().connect();
    let told = async {
        loop {
            if let Some(Event::Received(message)) = events.next().await {
                return message.number;
            }
        }
    };
    assert_eq!(tokio::time::timeout(A_WHILE * 10, told).await.unwrap(), InboxNumber(1));
}
