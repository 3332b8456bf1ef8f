//! What a call of the application has promised is on disk when it returns.

use std::time::Duration;

use thinpost_client::{Budget, ContactError, Event, InboxNumber, MessageState, StoreError};
use thinpost_netem::{Person, World};
use tokio::time::{sleep, timeout};

use crate::people::{A_WHILE, DAY, ann_and_bob, go, inbox};

/// Ann has written to Bob, who has the message and is offline.
async fn written(seed: u64) -> (World, Person, Person) {
    let mut world = World::new(seed);
    let (ann, bob) = ann_and_bob(&mut world, "gprs").await;
    go(&ann, true).await;
    ann.client().send("bob", "are you there?".into()).await.unwrap();
    bob.client().connect();
    inbox(&bob, 1).await;
    sleep(A_WHILE * 2).await;
    go(&bob, false).await;
    (world, ann, bob)
}

async fn revive(person: &mut Person) {
    person.kill().await;
    sleep(Duration::from_millis(2)).await;
    person.open().connect();
}

#[tokio::test(start_paused = true)]
async fn what_was_marked_read_outlives_a_kill_at_once() {
    let (_world, ann, mut bob) = written(1).await;
    bob.client().mark_read("ann", InboxNumber(1)).await.unwrap();
    revive(&mut bob).await;
    sleep(A_WHILE * 2).await;
    let message = thinpost_client::MessageId(1);
    assert_eq!(ann.client().message_state(message).await.unwrap(), Some(MessageState::Read));
}

#[tokio::test(start_paused = true)]
async fn an_introduction_outlives_a_kill_at_once() {
    let (_world, ann, mut bob) = written(2).await;
    ann.client().remove_contact("bob").await.unwrap();
    bob.client().introduce("ann").await.unwrap();
    let account = bob.client().account();
    let mut events = ann.client().subscribe(InboxNumber(u64::MAX));
    revive(&mut bob).await;
    // He came under a ticket that was made for him, and is known by its name.
    let known =
        async { while events.next().await != Some(Event::ContactAdded { contact: "bob".to_owned() }) {} };
    timeout(DAY, known).await.unwrap();
    assert_eq!(ann.client().contacts()[0].ticket.account, account);
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_does_not_answer_keeps_no_call_waiting() {
    let (mut world, _ann, bob) = written(3).await;
    world.kill_relay();
    bob.client().connect();
    // In the middle of a handshake, and in a pause after it.
    for n in 0..40 {
        sleep(Duration::from_millis(500)).await;
        let read = timeout(Duration::from_millis(1), bob.client().mark_read("ann", InboxNumber(1)));
        assert_eq!(read.await, Ok(Ok(())), "after {n} halves of a second");
        let introduced = timeout(Duration::from_millis(1), bob.client().introduce("ann"));
        assert_eq!(introduced.await, Ok(Ok(())), "after {n} halves of a second");
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_written_is_an_error_of_the_call_and_of_every_later_one() {
    for online in [false, true] {
        let (_world, _ann, bob) = written(4).await;
        // Or the disk would be asked for a token of hers, too.
        bob.client().ticket_for("ann").await.unwrap();
        go(&bob, online).await;
        bob.storage().medium().fail(std::io::ErrorKind::StorageFull);
        let read = bob.client().mark_read("ann", InboxNumber(1)).await;
        assert_eq!(read, Err(ContactError::Store(StoreError::Full)), "online: {online}");
        // In memory it is read, and on disk it never will be.
        let again = bob.client().mark_read("ann", InboxNumber(1)).await;
        assert_eq!(again, Err(ContactError::Store(StoreError::Failed)), "online: {online}");
        assert!(bob.client().introduce("ann").await.is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn a_sync_on_a_full_disk_says_that_it_is_full() {
    let (_world, ann, bob) = written(5).await;
    ann.client().send("bob", "or not?".into()).await.unwrap();
    sleep(Duration::from_secs(60)).await;
    bob.storage().medium().fail(std::io::ErrorKind::StorageFull);
    let budget = Budget { time: Duration::from_secs(120), bytes: 100_000 };
    assert_eq!(bob.client().sync(budget).await, Err(StoreError::Full));
}
