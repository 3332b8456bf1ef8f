//! Who lives in these worlds, and what they say.

use std::time::Duration;

use thinpost_client::{Event, InboxNumber, ReceivedContent};
use thinpost_netem::{Person, Profile, World};
use tokio::time::{sleep, timeout};

pub(crate) const DAY: Duration = Duration::from_secs(24 * 3600);

/// Long enough for anything that is going to happen on GPRS.
pub(crate) const A_WHILE: Duration = Duration::from_secs(60);

/// Connects or disconnects somebody, and lets it take its time.
pub(crate) async fn go(person: &Person, online: bool) {
    if online {
        person.client().connect()
    } else {
        person.client().disconnect()
    }
    sleep(A_WHILE).await;
}

pub(crate) fn profile(name: &str) -> Profile {
    Profile::named(name).unwrap()
}

/// Two people who have exchanged tickets.
pub(crate) async fn ann_and_bob(world: &mut World, link: &str) -> (Person, Person) {
    let mut ann = world.person("ann", &profile(link));
    let mut bob = world.person("bob", &profile(link));
    ann.open();
    bob.open();
    introduce(&ann, &bob).await;
    (ann, bob)
}

/// Two people hand tickets to each other, each made for the other.
pub(crate) async fn introduce(one: &Person, other: &Person) {
    for (from, to) in [(one, other), (other, one)] {
        let ticket = from.client().ticket_for(to.name()).await.unwrap();
        to.client().add_contact(from.name(), &ticket).await.unwrap();
    }
}

/// All that a person's inbox holds, once it holds so much.
pub(crate) async fn inbox(person: &Person, count: u64) -> Vec<(String, String)> {
    let mut events = person.client().subscribe(InboxNumber(0));
    let mut read = Vec::new();
    let all = async {
        while (read.len() as u64) < count {
            if let Some(Event::Received(message)) = events.next().await {
                assert_eq!(message.number.0, read.len() as u64 + 1, "inbox numbers have no gaps");
                let ReceivedContent::Text(text) = message.content else { panic!("not text") };
                read.push((message.contact.unwrap_or_default(), text));
            }
        }
    };
    timeout(DAY, all).await.unwrap_or_else(|_| panic!("{} did not get everything", person.name()));
    read
}

pub(crate) fn line(from: &str, n: usize) -> String {
    format!("{from} says {n}: did you get the last one? я уже еду")
}

pub(crate) fn expected(from: &str, count: usize) -> Vec<(String, String)> {
    (0..count).map(|n| (from.to_owned(), line(from, n))).collect()
}

/// What is not in its place among the lines that one person said: the place, and what stands there.
pub(crate) fn strays(read: Vec<(String, String)>, from: &str) -> Vec<(usize, String)> {
    let expected = expected(from, read.len());
    read.into_iter()
        .zip(expected)
        .enumerate()
        .filter(|(_, (read, expected))| read != expected)
        .map(|(place, ((_, text), _))| (place, text))
        .collect()
}
