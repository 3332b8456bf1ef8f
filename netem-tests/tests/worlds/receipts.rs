//! Receipts: what a sender learns, and what is sent again because of it.

use std::time::Duration;

use thinpost_client::{
    Client, Event, InboxNumber, MemoryStorage, MessageState, ReceivedContent, Subscription,
};
use thinpost_netem::{Leg, Person, World};
use tokio::time::{sleep, timeout};

use crate::people::{DAY, ann_and_bob, expected, inbox, line, strays};

async fn online(seed: u64) -> (World, Person, Person) {
    let mut world = World::new(seed);
    let (ann, bob) = ann_and_bob(&mut world, "gprs").await;
    ann.client().connect();
    bob.client().connect();
    sleep(Duration::from_secs(30)).await;
    (world, ann, bob)
}

async fn until(events: &mut Subscription, is_it: impl Fn(&Event) -> bool) {
    let wait = async { while !is_it(&events.next().await.unwrap()) {} };
    timeout(DAY, wait).await.expect("it happens within a day");
}

async fn unconfirmed(client: &Client) -> u64 {
    client.status().await.unwrap().unconfirmed
}

#[tokio::test(start_paused = true)]
async fn a_sender_learns_what_arrived_and_what_was_read_after_a_random_while() {
    let (_world, ann, bob) = online(1).await;
    let mut events = ann.client().subscribe(InboxNumber(u64::MAX));
    let message = ann.client().send("bob", "are you there?".into()).await.unwrap();
    let state = async || ann.client().message_state(message).await.unwrap().unwrap();
    sleep(Duration::from_secs(14)).await;
    assert_eq!((state().await, unconfirmed(ann.client()).await), (MessageState::Custody, 1));
    until(&mut events, |event| matches!(event, Event::Delivered { message: of, .. } if *of == message)).await;
    assert_eq!((state().await, unconfirmed(ann.client()).await), (MessageState::Delivered, 0));
    sleep(Duration::from_secs(3600)).await;
    assert_eq!(state().await, MessageState::Delivered);
    bob.client().mark_read("ann", InboxNumber(1)).await.unwrap();
    until(&mut events, |event| matches!(event, Event::Read { message: of, .. } if *of == message)).await;
    assert_eq!(state().await, MessageState::Read);
    assert!(bob.client().mark_read("eve", InboxNumber(1)).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_receipt_rides_with_an_answer_and_does_not_leave_alone() {
    let (_world, ann, bob) = online(2).await;
    let message = ann.client().send("bob", "and now?".into()).await.unwrap();
    sleep(Duration::from_secs(6)).await;
    bob.client().send("ann", "now".into()).await.unwrap();
    sleep(Duration::from_secs(6)).await;
    let state = ann.client().message_state(message).await.unwrap();
    assert_eq!(state, Some(MessageState::Delivered), "before it could have left alone");
    let mut received = ann.client().subscribe(InboxNumber(1));
    let idle =
        timeout(Duration::from_secs(600), until(&mut received, |event| !matches!(event, Event::Link(_))));
    assert!(idle.await.is_err(), "Ann is told nothing more");
}

#[tokio::test(start_paused = true)]
async fn what_a_relay_lost_with_its_disk_is_sent_again_and_shown_once() {
    let (mut world, ann, bob) = online(3).await;
    for n in 0..5 {
        ann.client().send("bob", line("ann", n).into()).await.unwrap();
    }
    assert_eq!(inbox(&bob, 5).await.len(), 5);
    bob.client().disconnect();
    // Bob's receipt is not on its way yet: Ann cannot know that he has these.
    sleep(Duration::from_secs(10)).await;
    for n in 5..30 {
        ann.client().send("bob", line("ann", n).into()).await.unwrap();
    }
    sleep(Duration::from_secs(60)).await;
    let status = ann.client().status().await.unwrap();
    assert_eq!((status.custody, status.waiting, status.unconfirmed), (30, 0, 30));

    world.kill_relay();
    world.lose_store();
    world.start_relay();
    bob.client().connect();
    assert_eq!(inbox(&bob, 30).await, expected("ann", 30));
    sleep(Duration::from_secs(3600)).await;
    let (ann, bob) = (ann.client().status().await.unwrap(), bob.client().status().await.unwrap());
    assert_eq!((ann.custody, ann.waiting, ann.unconfirmed, ann.failed), (30, 0, 0, 0));
    assert_eq!(bob.received.0, 30);
}

#[tokio::test(start_paused = true)]
async fn a_receipt_that_a_relay_lost_with_its_disk_is_said_again_when_the_message_comes_again() {
    let (mut world, ann, bob) = online(12).await;
    // Ann does not learn of custody, and the receipt waits for her at the relay.
    world.net().set_outage_of(ann.ip(), Leg::Down, true);
    ann.client().send("bob", line("ann", 0).into()).await.unwrap();
    assert_eq!(inbox(&bob, 1).await.len(), 1);
    sleep(Duration::from_secs(120)).await;
    let status = ann.client().status().await.unwrap();
    assert_eq!((status.custody, status.waiting), (0, 1));

    world.kill_relay();
    world.lose_store();
    world.start_relay();
    world.net().set_outage_of(ann.ip(), Leg::Down, false);
    sleep(Duration::from_secs(3600)).await;
    let status = ann.client().status().await.unwrap();
    assert_eq!((status.custody, status.waiting, status.unconfirmed), (1, 0, 0));
    assert_eq!(bob.client().status().await.unwrap().received.0, 1);
}

#[tokio::test(start_paused = true)]
async fn that_something_was_read_is_said_again_when_the_relay_has_lost_it() {
    let (mut world, ann, bob) = online(13).await;
    let message = ann.client().send("bob", line("ann", 0).into()).await.unwrap();
    let state = async || ann.client().message_state(message).await.unwrap();
    sleep(Duration::from_secs(180)).await;
    assert_eq!(state().await, Some(MessageState::Delivered));
    ann.client().disconnect();
    sleep(Duration::from_secs(60)).await;
    bob.client().mark_read("ann", InboxNumber(1)).await.unwrap();
    sleep(Duration::from_secs(120)).await;

    world.kill_relay();
    world.lose_store();
    world.start_relay();
    ann.client().connect();
    sleep(Duration::from_secs(3600)).await;
    assert_eq!(state().await, Some(MessageState::Delivered), "it was lost");
    bob.client().send("ann", line("bob", 0).into()).await.unwrap();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(state().await, Some(MessageState::Read));
}

#[tokio::test(start_paused = true)]
async fn what_was_sealed_for_a_newer_self_is_sent_again_to_a_restored_home() {
    let (_world, mut ann, bob) = online(4).await;
    ann.client().send("bob", "they know each other".into()).await.unwrap();
    bob.client().send("ann", line("bob", 0).into()).await.unwrap();
    inbox(&ann, 1).await;
    sleep(Duration::from_secs(600)).await;
    let old = ann.storage().fork();

    // The newer self begins a session that the copy does not have, and Bob answers in it.
    ann.kill().await;
    sleep(Duration::from_millis(2)).await;
    ann.open().connect();
    ann.client().send("bob", "a new day".into()).await.unwrap();
    bob.client().send("ann", line("bob", 1).into()).await.unwrap();
    inbox(&ann, 2).await;
    inbox(&bob, 2).await;
    sleep(Duration::from_secs(600)).await;
    ann.client().disconnect();
    sleep(Duration::from_secs(60)).await;
    for n in 2..10 {
        bob.client().send("ann", line("bob", n).into()).await.unwrap();
    }
    sleep(Duration::from_secs(60)).await;

    ann.kill().await;
    ann.restore(old);
    let mut bobs = bob.client().subscribe(InboxNumber(u64::MAX));
    let mut events = ann.open().subscribe(InboxNumber(u64::MAX));
    ann.client().connect();
    until(&mut events, |event| *event == Event::Restored).await;
    until(&mut bobs, |event| *event == Event::AskedAgain { contact: "ann".to_owned() }).await;
    let mut read = inbox(&ann, 9).await;
    // The second was received and confirmed by the newer self: nobody has it any more.
    let lost = read.iter().all(|(_, text)| *text != line("bob", 1));
    assert!(lost);
    read.insert(1, ("bob".to_owned(), line("bob", 1)));
    assert_eq!(strays(read, "bob"), []);
    sleep(Duration::from_secs(3600)).await;
    assert_eq!(ann.client().status().await.unwrap().received.0, 9, "none comes twice");
    assert_eq!(unconfirmed(bob.client()).await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_receipt_that_fell_due_while_the_home_was_shut_leaves_with_the_next_link() {
    let (_world, ann, mut bob) = online(5).await;
    let message = ann.client().send("bob", "are you there?".into()).await.unwrap();
    inbox(&bob, 1).await;
    bob.kill().await;
    sleep(Duration::from_secs(600)).await;
    let state = async || ann.client().message_state(message).await.unwrap().unwrap();
    assert_eq!(state().await, MessageState::Custody);
    bob.open().connect();
    sleep(Duration::from_secs(20)).await;
    assert_eq!(state().await, MessageState::Delivered);
}

#[tokio::test(start_paused = true)]
async fn a_contact_who_is_denied_receipts_learns_nothing_and_is_written_to_all_the_same() {
    let (_world, ann, bob) = online(6).await;
    bob.client().set_receipts("ann", false).await.unwrap();
    assert!(bob.client().set_receipts("eve", false).await.is_err());
    let message = ann.client().send("bob", "are you there?".into()).await.unwrap();
    sleep(Duration::from_secs(600)).await;
    bob.client().mark_read("ann", InboxNumber(1)).await.unwrap();
    bob.client().send("ann", "yes".into()).await.unwrap();
    sleep(Duration::from_secs(600)).await;
    assert_eq!(inbox(&ann, 1).await.len(), 1);
    let state = async || ann.client().message_state(message).await.unwrap().unwrap();
    assert_eq!(state().await, MessageState::Custody);
    bob.client().set_receipts("ann", true).await.unwrap();
    ann.client().send("bob", "and now?".into()).await.unwrap();
    sleep(Duration::from_secs(600)).await;
    assert_eq!(state().await, MessageState::Read, "the next receipt says all");
}

#[tokio::test(start_paused = true)]
async fn a_copy_whose_newer_self_has_only_sent_is_noticed_too_and_once() {
    let (_world, mut ann, bob) = online(7).await;
    ann.client().send("bob", line("ann", 0).into()).await.unwrap();
    inbox(&bob, 1).await;
    sleep(Duration::from_secs(600)).await;
    ann.kill().await;
    let old = ann.storage().fork();
    sleep(Duration::from_millis(2)).await;
    ann.open().connect();
    ann.client().send("bob", line("ann", 1).into()).await.unwrap();
    sleep(Duration::from_secs(5)).await;
    ann.kill().await;
    ann.restore(old);
    let is_noticed = async |ann: &mut Person| {
        sleep(Duration::from_millis(2)).await;
        let mut events = ann.open().subscribe(InboxNumber(u64::MAX));
        ann.client().connect();
        let noticed = until(&mut events, |event| *event == Event::Restored);
        timeout(Duration::from_secs(300), noticed).await.is_ok()
    };
    assert!(is_noticed(&mut ann).await);
    ann.kill().await;
    assert!(!is_noticed(&mut ann).await, "it was told");
    ann.client().send("bob", line("ann", 2).into()).await.unwrap();
    assert_eq!(inbox(&bob, 3).await, expected("ann", 3));
}

/// Bob's home is copied, used on, and restored; from then on both write, and neither is shut.
async fn restored_and_understood(world: &mut World, ann: &Person, bob: &mut Person, old: MemoryStorage) {
    bob.kill().await;
    bob.restore(old);
    sleep(Duration::from_millis(2)).await;
    let mut events = bob.open().subscribe(InboxNumber(u64::MAX));
    bob.client().connect();
    until(&mut events, |event| *event == Event::Restored).await;
    bob.client().send("ann", "after".into()).await.unwrap();
    ann.client().send("bob", "to the copy".into()).await.unwrap();
    sleep(Duration::from_secs(3600)).await;
    for (person, text) in [(ann, "after"), (&*bob, "to the copy")] {
        let inbox = person.client().inbox(InboxNumber(0), 100).await.unwrap();
        let texts = inbox.into_iter().map(|message| message.content);
        let found = texts.filter(|content| *content == ReceivedContent::Text(text.into())).count();
        assert_eq!(found, 1, "{} after {:?}", person.name(), world.age());
        assert_eq!(unconfirmed(person.client()).await, 0, "{}", person.name());
    }
}

#[tokio::test(start_paused = true)]
async fn a_copy_from_before_a_claimed_key_was_used_is_understood() {
    let (mut world, ann, mut bob) = online(8).await;
    ann.client().send("bob", "hello".into()).await.unwrap();
    inbox(&bob, 1).await;
    sleep(Duration::from_secs(5)).await;
    let old = bob.storage().fork();
    bob.client().send("ann", "with the key".into()).await.unwrap();
    inbox(&ann, 1).await;
    sleep(Duration::from_secs(300)).await;
    restored_and_understood(&mut world, &ann, &mut bob, old).await;
}

#[tokio::test(start_paused = true)]
async fn a_copy_is_noticed_though_the_relay_has_lost_its_store_meanwhile() {
    let (mut world, ann, mut bob) = online(9).await;
    ann.client().send("bob", "hello".into()).await.unwrap();
    inbox(&bob, 1).await;
    sleep(Duration::from_secs(300)).await;
    bob.kill().await;
    let old = bob.storage().fork();
    sleep(Duration::from_millis(2)).await;
    bob.open().connect();
    world.kill_relay();
    world.lose_store();
    world.start_relay();
    bob.client().send("ann", "on the new store".into()).await.unwrap();
    ann.client().send("bob", "seen by the newer self".into()).await.unwrap();
    inbox(&ann, 1).await;
    inbox(&bob, 2).await;
    sleep(Duration::from_secs(300)).await;
    restored_and_understood(&mut world, &ann, &mut bob, old).await;
}

#[tokio::test(start_paused = true)]
async fn a_copy_of_an_open_home_that_went_on_is_noticed_though_the_relay_has_lost_its_store() {
    let (mut world, ann, mut bob) = online(11).await;
    ann.client().send("bob", "hello".into()).await.unwrap();
    inbox(&bob, 1).await;
    sleep(Duration::from_secs(300)).await;
    // Its newer self is of the same opening, so that the relay's word of it is no news to the copy.
    let old = bob.storage().fork();
    world.kill_relay();
    world.lose_store();
    world.start_relay();
    sleep(Duration::from_secs(60)).await;
    bob.client().send("ann", "on the new store".into()).await.unwrap();
    ann.client().send("bob", "seen by the newer self".into()).await.unwrap();
    inbox(&ann, 1).await;
    inbox(&bob, 2).await;
    sleep(Duration::from_secs(300)).await;
    restored_and_understood(&mut world, &ann, &mut bob, old).await;
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_gets_a_lost_store_back_makes_no_home_a_copy() {
    let (mut world, ann, bob) = online(12).await;
    let first = world.store().clone();
    for n in 0..2 {
        ann.client().send("bob", line("ann", n).into()).await.unwrap();
        sleep(Duration::from_secs(300)).await;
        world.kill_relay();
        if n == 0 {
            world.lose_store()
        } else {
            world.put_store(first.clone())
        }
        world.start_relay();
        sleep(Duration::from_secs(300)).await;
    }
    let notices = bob.client().status().await.unwrap().notices;
    assert_eq!((notices, bob.client().link_status().borrow().state.name()), (vec![], "online"));
    assert_eq!(inbox(&bob, 2).await, expected("ann", 2));
}

#[tokio::test(start_paused = true)]
async fn a_copy_of_a_home_that_had_never_been_online_is_noticed() {
    let mut world = World::new(10);
    let (ann, mut bob) = ann_and_bob(&mut world, "gprs").await;
    let old = bob.storage().fork();
    ann.client().connect();
    bob.client().connect();
    ann.client().send("bob", "hello".into()).await.unwrap();
    bob.client().send("ann", "hello yourself".into()).await.unwrap();
    inbox(&ann, 1).await;
    inbox(&bob, 1).await;
    sleep(Duration::from_secs(300)).await;
    restored_and_understood(&mut world, &ann, &mut bob, old).await;
}

/// As a command line does it: the home is opened for each message.
#[tokio::test(start_paused = true)]
async fn what_many_openings_have_sent_is_confirmed_at_once_and_not_sent_again() {
    const COUNT: usize = 100;
    let (_world, mut ann, bob) = online(20).await;
    bob.client().disconnect();
    for n in 0..COUNT {
        ann.kill().await;
        sleep(Duration::from_millis(2)).await;
        ann.open().connect();
        ann.client().send("bob", line("ann", n).into()).await.unwrap();
        sleep(Duration::from_secs(8)).await;
    }
    assert_eq!(ann.client().status().await.unwrap().unconfirmed, COUNT as u64);
    let sent = || ann.client().link_status().borrow().sent_bytes;
    let before = sent();
    bob.client().connect();
    assert_eq!(inbox(&bob, COUNT as u64).await, expected("ann", COUNT));
    sleep(Duration::from_secs(150)).await;
    assert_eq!(unconfirmed(ann.client()).await, 0);
    let bytes = sent() - before;
    assert!(bytes < 2_000, "{bytes} bytes to hear that all has arrived");
}

#[tokio::test(start_paused = true)]
async fn however_often_a_home_was_opened_in_vain_it_is_no_copy() {
    let (mut world, mut ann, bob) = online(21).await;
    ann.client().send("bob", "are you there?".into()).await.unwrap();
    inbox(&bob, 1).await;
    sleep(Duration::from_secs(120)).await;
    world.kill_relay();
    for _ in 0..200 {
        ann.kill().await;
        sleep(Duration::from_millis(2)).await;
        ann.open().connect();
        sleep(Duration::from_secs(20)).await;
    }
    world.start_relay();
    sleep(Duration::from_secs(600)).await;
    ann.client().send("bob", "and now?".into()).await.unwrap();
    inbox(&bob, 2).await;
    assert_eq!(ann.client().status().await.unwrap().notices, []);
}
