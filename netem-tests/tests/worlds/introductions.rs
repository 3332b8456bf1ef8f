//! How people become known to each other.

use std::time::Duration;

use thinpost_client::ticket::{InviteTicket, InviteToken, Ticket};
use thinpost_client::{ContactError, Event, Home, InboxNumber, MemoryStorage};
use thinpost_netem::{Person, World};
use tokio::time::{sleep, timeout};

use crate::people::{A_WHILE, DAY, inbox, profile};

fn online(world: &mut World, name: &'static str) -> Person {
    let mut person = world.person(name, &profile("gprs"));
    person.open().connect();
    person
}

async fn until(person: &Person, is_it: impl Fn(&Event) -> bool) {
    let mut events = person.client().subscribe(InboxNumber(u64::MAX));
    let wait = async { while !is_it(&events.next().await.unwrap()) {} };
    timeout(DAY, wait).await.expect("it happens within a day");
}

#[tokio::test(start_paused = true)]
async fn one_link_brings_a_guest_a_relay_and_a_contact_and_the_host_a_contact() {
    let mut world = World::new(1);
    let bob = online(&mut world, "bob");
    let token = InviteToken { id: [1; 8], uses: 1, expires_unix_s: 0, mac: [2; 16] };
    let invite = InviteTicket { relay: world.relay_ticket(), token };
    let link = bob.client().guest_ticket("carol", invite, "bob").await.unwrap().to_string();

    let Ticket::Guest(guest) = link.parse().unwrap() else { panic!("{link}") };
    let mut carol = world.person("carol", &profile("gprs"));
    let storage = MemoryStorage::new();
    Home::create_seeded(&storage, &Ticket::Guest(guest.clone()), 5).unwrap();
    carol.restore(storage);
    carol.open().connect();
    carol.client().add_contact(&guest.name, &guest.host).await.unwrap();
    carol.client().introduce("bob").await.unwrap();
    until(&bob, |event| *event == Event::ContactAdded { contact: "carol".to_owned() }).await;
    carol.client().send("bob", "thank you".into()).await.unwrap();
    bob.client().send("carol", "welcome".into()).await.unwrap();
    assert_eq!(inbox(&bob, 1).await, [("carol".to_owned(), "thank you".to_owned())]);
    assert_eq!(inbox(&carol, 1).await, [("bob".to_owned(), "welcome".to_owned())]);
    assert!(bob.client().requests().is_empty());
    assert_eq!(bob.client().safety_number("carol"), carol.client().safety_number("bob"));
}

#[tokio::test(start_paused = true)]
async fn a_stranger_who_says_who_they_are_waits_to_be_accepted_and_is_known_from_then_on() {
    let mut world = World::new(2);
    let mut bob = online(&mut world, "bob");
    let eve = online(&mut world, "eve");
    eve.client().add_contact("bob", &bob.client().ticket()).await.unwrap();
    eve.client().introduce("bob").await.unwrap();
    eve.client().send("bob", "we met at the fair".into()).await.unwrap();
    let account = eve.client().account();
    until(&bob, |event| *event == Event::Introduced { account }).await;
    assert_eq!(inbox(&bob, 1).await, [(String::new(), "we met at the fair".to_owned())]);
    let read = bob.client().inbox(InboxNumber(0), 1).await.unwrap();
    assert_eq!(read[0].from, Some(account), "it is theirs, though they have no name here");

    bob.kill().await;
    sleep(Duration::from_millis(2)).await;
    bob.open().connect();
    let requests = bob.client().requests();
    assert_eq!(requests.iter().map(|ticket| ticket.account).collect::<Vec<_>>(), [account]);
    bob.client().accept(&account, "eve").await.unwrap();
    assert_eq!(inbox(&bob, 1).await, [("eve".to_owned(), "we met at the fair".to_owned())]);
    bob.client().send("eve", "so we did".into()).await.unwrap();
    sleep(A_WHILE).await;
    let read = eve.client().inbox(InboxNumber(0), 10).await.unwrap();
    assert_eq!(read.len(), 1);
    assert!(bob.client().requests().is_empty());
    assert_eq!(bob.client().accept(&account, "eve").await, Err(ContactError::NoRequest));
    let own = bob.client().ticket();
    assert_eq!(bob.client().add_contact("me", &own).await, Err(ContactError::OwnTicket));
}

#[tokio::test(start_paused = true)]
async fn strangers_who_say_nothing_of_themselves_are_told_apart_by_their_keys() {
    let mut world = World::new(7);
    let bob = online(&mut world, "bob");
    let strangers = ["eve", "mallory"].map(|name| online(&mut world, name));
    for n in 0..4 {
        let stranger = &strangers[n % 2];
        if n < 2 {
            stranger.client().add_contact("bob", &bob.client().ticket()).await.unwrap();
        }
        stranger.client().send("bob", "hello".into()).await.unwrap();
        sleep(A_WHILE).await;
    }
    let read = bob.client().inbox(InboxNumber(0), 10).await.unwrap();
    assert!(read.iter().all(|message| message.from.is_none()), "{read:?}");
    let keys: Vec<_> = read.iter().map(|message| message.sealed_by.unwrap()).collect();
    assert_eq!((keys.len(), keys[0], keys[1]), (4, keys[2], keys[3]));
    assert_ne!(keys[0], keys[1]);
}

#[tokio::test(start_paused = true)]
async fn a_guests_name_that_is_taken_makes_them_a_stranger() {
    let mut world = World::new(3);
    let bob = online(&mut world, "bob");
    let [carol, mallory] = ["carol", "mallory"].map(|name| online(&mut world, name));
    let ticket = bob.client().ticket_for("carol").await.unwrap();
    bob.client().add_contact("carol", &carol.client().ticket()).await.unwrap();
    mallory.client().add_contact("bob", &ticket).await.unwrap();
    mallory.client().introduce("bob").await.unwrap();
    let account = mallory.client().account();
    until(&bob, |event| *event == Event::Introduced { account }).await;
    let contacts: Vec<_> =
        bob.client().contacts().into_iter().map(|contact| contact.ticket.account).collect();
    assert_eq!(contacts, [carol.client().account()]);
    bob.client().dismiss(&account).await.unwrap();
    assert!(bob.client().requests().is_empty());
}

#[tokio::test(start_paused = true)]
async fn two_guests_of_one_name_are_not_taken_for_each_other() {
    let mut world = World::new(4);
    let bob = online(&mut world, "bob");
    let guests = ["carl", "another"].map(|name| online(&mut world, name));
    let ticket = bob.client().ticket_for("carl").await.unwrap();
    sleep(A_WHILE).await;
    bob.client().disconnect();
    sleep(A_WHILE).await;
    for guest in &guests {
        guest.client().add_contact("bob", &ticket).await.unwrap();
        guest.client().introduce("bob").await.unwrap();
        sleep(A_WHILE).await;
    }
    bob.client().connect();
    sleep(A_WHILE).await;
    let contacts: Vec<_> =
        bob.client().contacts().into_iter().map(|contact| contact.ticket.account).collect();
    let requests: Vec<_> = bob.client().requests().into_iter().map(|ticket| ticket.account).collect();
    assert_eq!(contacts, [guests[0].client().account()]);
    assert_eq!(requests, [guests[1].client().account()]);
}

#[tokio::test(start_paused = true)]
async fn an_introduction_outlives_a_client_that_is_closed_at_once() {
    let mut world = World::new(5);
    let bob = online(&mut world, "bob");
    let mut eve = world.person("eve", &profile("gprs"));
    let client = eve.open().clone();
    client.add_contact("bob", &bob.client().ticket()).await.unwrap();
    client.introduce("bob").await.unwrap();
    client.close().await;
    let account = eve.client().account();
    eve.kill().await;
    eve.open().connect();
    until(&bob, |event| *event == Event::Introduced { account }).await;
}
