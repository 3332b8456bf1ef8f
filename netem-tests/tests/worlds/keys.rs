//! One-time keys at the relay: who leaves them, who gets them, and what happens when there are none.

use std::time::Duration;

use thinpost_client::MessageState;
use thinpost_netem::{Person, World};
use thinpost_wire::ids::Position;
use tokio::time::sleep;

use crate::people::{A_WHILE, go, inbox, introduce, profile};

/// How many keys a device leaves at the relay.
const KEYS: usize = 10;

fn somebody(world: &mut World, name: &'static str) -> Person {
    let mut person = world.person(name, &profile("gprs"));
    person.open();
    person
}

/// Bob, who has left his keys at the relay, and then stays or goes.
async fn bob(world: &mut World, stays: bool) -> Person {
    let bob = somebody(world, "bob");
    go(&bob, true).await;
    assert_eq!(keys_left(world, &bob), KEYS);
    go(&bob, stays).await;
    bob
}

fn keys_left(world: &World, of: &Person) -> usize {
    let record = world.store().device(&of.client().device()).unwrap().unwrap();
    world.store().keys_left(record.number).unwrap()
}

/// How long the bodies are that wait for somebody.
fn waiting_bytes(world: &World, of: &Person) -> Vec<usize> {
    let entries = world.store().read(&of.client().account(), Position(0), usize::MAX, usize::MAX).unwrap();
    entries.iter().map(|(_, entry)| entry.body.len()).collect()
}

async fn send(from: &Person, text: &str) {
    let message = from.client().send("bob", text.into()).await.unwrap();
    sleep(A_WHILE).await;
    assert_eq!(from.client().message_state(message).await.unwrap(), Some(MessageState::Custody));
}

#[tokio::test(start_paused = true)]
async fn a_first_message_is_sealed_with_a_key_that_was_claimed_before_and_waits_for_none() {
    let mut world = World::new(1);
    let bob = bob(&mut world, false).await;
    let [ann, carol] = ["ann", "carol"].map(|name| somebody(&mut world, name));
    for person in [&ann, &carol] {
        introduce(person, &bob).await;
    }
    go(&ann, true).await;
    assert_eq!(keys_left(&world, &bob), KEYS - 1);
    // One is enough.
    go(&ann, false).await;
    go(&ann, true).await;
    assert_eq!(keys_left(&world, &bob), KEYS - 1);
    send(&ann, "are you there?").await;
    // Carol writes before she has a link.
    carol.client().send("bob", "are you there?".into()).await.unwrap();
    go(&carol, true).await;
    assert_eq!(keys_left(&world, &bob), KEYS - 1, "there is a session already");
    let bytes = waiting_bytes(&world, &bob);
    assert_eq!(bytes, [bytes[1] + 32, bytes[1]], "only what was claimed has to be told");
    send(&ann, "hello?").await;
    bob.client().connect();
    let expected = [("ann", "are you there?"), ("carol", "are you there?"), ("ann", "hello?")];
    let expected = expected.map(|(who, text)| (who.to_owned(), text.to_owned()));
    assert_eq!(inbox(&bob, 3).await, expected);
}

#[tokio::test(start_paused = true)]
async fn keys_are_refilled_when_half_were_used_and_nobody_gets_what_another_got() {
    let mut world = World::new(2);
    let bob = bob(&mut world, true).await;
    let names = ["a", "b", "c", "d", "e", "f"];
    let people = names.map(|name| somebody(&mut world, name));
    for (person, count) in people.iter().zip(1..) {
        introduce(person, &bob).await;
        go(person, true).await;
        assert_eq!(keys_left(&world, &bob), KEYS - count);
    }
    // A key that two had got would open for one of them only.
    for (person, used) in people.iter().zip(1..) {
        send(person, "it is me").await;
        let expected = if used < 5 { KEYS - 6 } else { KEYS - 1 };
        assert_eq!(keys_left(&world, &bob), expected, "{used} were used");
    }
    assert_eq!(inbox(&bob, 6).await, names.map(|name| (name.to_owned(), "it is me".to_owned())));
}

#[tokio::test(start_paused = true)]
async fn who_gets_no_key_writes_with_that_of_the_ticket() {
    let mut world = World::new(3);
    let bob = bob(&mut world, false).await;
    // Strangers share five claims, and one more an hour.
    let people = ["a", "b", "c", "d", "e", "f", "g"].map(|name| somebody(&mut world, name));
    for person in &people {
        person.client().add_contact("bob", &bob.client().ticket()).await.unwrap();
        go(person, true).await;
    }
    assert_eq!(keys_left(&world, &bob), KEYS - 5);
    for person in &people {
        send(person, "are you there?").await;
    }
    let bytes = waiting_bytes(&world, &bob);
    let with_ticket = bytes[6];
    assert_eq!(bytes, [[with_ticket + 32; 5].as_slice(), &[with_ticket; 2]].concat());
    bob.client().connect();
    assert_eq!(inbox(&bob, 7).await.len(), 7);
    sleep(A_WHILE).await;
    assert_eq!(keys_left(&world, &bob), KEYS, "half were gone");
}

#[tokio::test(start_paused = true)]
async fn a_relay_without_keys_is_no_obstacle() {
    let mut world = World::new(6);
    let bob = bob(&mut world, false).await;
    let people =
        ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k"].map(|name| somebody(&mut world, name));
    for person in &people {
        introduce(person, &bob).await;
        go(person, true).await;
    }
    assert_eq!(keys_left(&world, &bob), 0);
    for person in &people {
        send(person, "are you there?").await;
    }
    let bytes = waiting_bytes(&world, &bob);
    assert_eq!(bytes, [[bytes[10] + 32; 10].as_slice(), &[bytes[10]]].concat());
    bob.client().connect();
    assert_eq!(inbox(&bob, 11).await.len(), 11);
}

#[tokio::test(start_paused = true)]
async fn a_revoked_contact_gets_no_keys() {
    let mut world = World::new(4);
    let bob = bob(&mut world, true).await;
    let ann = somebody(&mut world, "ann");
    introduce(&ann, &bob).await;
    bob.client().revoke_ticket("ann").await.unwrap();
    sleep(A_WHILE).await;
    go(&ann, true).await;
    assert_eq!(keys_left(&world, &bob), KEYS);
}

#[tokio::test(start_paused = true)]
async fn a_home_restored_from_an_old_copy_replaces_the_keys_that_it_knows_nothing_of() {
    let mut world = World::new(7);
    let mut bob = somebody(&mut world, "bob");
    let old = bob.storage().fork();
    go(&bob, true).await;
    assert_eq!(keys_left(&world, &bob), KEYS);
    bob.kill().await;
    bob.restore(old);
    sleep(Duration::from_millis(2)).await;
    bob.open();
    go(&bob, true).await;
    let ann = somebody(&mut world, "ann");
    introduce(&ann, &bob).await;
    go(&ann, true).await;
    assert_eq!(keys_left(&world, &bob), KEYS - 1);
    send(&ann, "are you there?").await;
    assert_eq!(inbox(&bob, 1).await, [("ann".to_owned(), "are you there?".to_owned())]);
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_lost_its_store_is_given_new_keys() {
    let mut world = World::new(5);
    let bob = bob(&mut world, true).await;
    world.stop_relay().await;
    world.lose_store();
    world.start_relay();
    sleep(A_WHILE * 5).await;
    assert_eq!(keys_left(&world, &bob), KEYS);
}
