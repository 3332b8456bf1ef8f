//! Text models: who is sent what they can read, and in how many bytes.

use std::time::Duration;

use thinpost_client::ticket::ContactTicket;
use thinpost_client::{Event, InboxNumber, Message, ModelSet, Models, ReceivedContent};
use thinpost_netem::models::with_greek;
use thinpost_netem::{Person, World};
use thinpost_wire::ids::Position;
use tokio::time::sleep;

use crate::people::{A_WHILE, ann_and_bob, expected, go, inbox, introduce, line, profile};

const ENGLISH: &str = "can you pick me up at eight, same place as us";
/// Nobody has a model that knows Greek but who was given one.
const GREEK: &str = "θα ερθω στις οκτω, περιμενε με στον σταθμο";

/// No receipt is left to come after this.
const AFTER_RECEIPTS: Duration = Duration::from_secs(180);

/// Ends somebody's client and opens it with other models, connected.
async fn reopen(person: &mut Person, models: Models) {
    person.kill().await;
    sleep(Duration::from_millis(2)).await;
    person.open_with(|builder| builder.models(models)).connect();
    sleep(A_WHILE).await;
}

/// How many bytes the envelopes have that wait for somebody at the relay.
fn waiting(world: &World, person: &Person) -> Vec<usize> {
    let account = person.client().account();
    let entries = world.store().read(&account, Position(0), usize::MAX, usize::MAX).unwrap();
    entries.iter().map(|(_, entry)| entry.body.len()).collect()
}

/// The bytes of one message from Ann to Bob, who reads it only then.
async fn envelope_bytes(world: &World, ann: &Person, bob: &Person, message: Message) -> usize {
    go(bob, false).await;
    ann.client().send("bob", message).await.unwrap();
    sleep(A_WHILE).await;
    let [bytes] = waiting(world, bob)[..] else { panic!("one envelope waits") };
    go(bob, true).await;
    bytes
}

async fn texts(person: &Person) -> Vec<String> {
    let inbox = person.client().inbox(InboxNumber(0), 100).await.unwrap();
    let text = |content| match content {
        ReceivedContent::Text(text) => text,
        other => panic!("{} got {other:?}", person.name()),
    };
    inbox.into_iter().map(|message| text(message.content)).collect()
}

/// What a person has been told of and not acknowledged, and what was given up.
async fn alarms(person: &Person) -> (usize, u64) {
    let status = person.client().status().await.unwrap();
    (status.notices.len(), status.abandoned + status.failed + status.unconfirmed)
}

#[tokio::test(start_paused = true)]
async fn a_first_message_is_coded_by_what_the_ticket_says_and_by_zstd_where_it_says_nothing() {
    let mut first = [0; 2];
    for (bytes, says) in first.iter_mut().zip([true, false]) {
        let mut world = World::new(1);
        let (ann, bob) = ann_and_bob(&mut world, "gprs").await;
        let mut ticket = bob.client().ticket_for("ann").await.unwrap();
        assert_eq!(ticket.models, Models::compiled_in().set());
        if !says {
            ticket = ContactTicket { models: ModelSet::default(), ..ticket };
        }
        ann.client().add_contact("bob", &ticket).await.unwrap();
        go(&bob, true).await;
        go(&ann, true).await;
        *bytes = envelope_bytes(&world, &ann, &bob, ENGLISH.into()).await;
        assert_eq!(texts(&bob).await, [ENGLISH]);
    }
    // Two blocks of the cipher, and three, in what a first message takes beside them with a claimed key.
    assert_eq!(first, [1 + 48 + 106 + 32 + 2 * 16, 1 + 48 + 106 + 32 + 3 * 16]);
}

#[tokio::test(start_paused = true)]
async fn somebody_whose_ticket_says_nothing_tells_by_notes() {
    let mut world = World::new(2);
    let (ann, bob) = ann_and_bob(&mut world, "gprs").await;
    let ticket = bob.client().ticket_for("ann").await.unwrap();
    ann.client().add_contact("bob", &ContactTicket { models: ModelSet::default(), ..ticket }).await.unwrap();
    go(&bob, true).await;
    go(&ann, true).await;
    let before = envelope_bytes(&world, &ann, &bob, ENGLISH.into()).await;
    // His receipt is the first that she hears of him; she gives him a token for it.
    sleep(AFTER_RECEIPTS).await;
    let with_token = envelope_bytes(&world, &ann, &bob, ENGLISH.into()).await;
    let after = envelope_bytes(&world, &ann, &bob, ENGLISH.into()).await;
    assert_eq!([before, with_token, after], [1 + 48 + 106 + 32 + 3 * 16, 1 + 41 + 3 * 16, 1 + 41 + 16]);
    assert_eq!(texts(&bob).await, [ENGLISH; 3]);
}

#[tokio::test(start_paused = true)]
async fn a_model_that_is_new_to_a_home_is_told_and_used_from_then_on() {
    let mut world = World::new(3);
    let (mut ann, mut bob) = ann_and_bob(&mut world, "gprs").await;
    for person in [&mut ann, &mut bob] {
        reopen(person, Models::compiled_in()).await;
    }
    let mut sizes = Vec::new();
    for models in [Models::compiled_in(), with_greek()] {
        for person in [&mut ann, &mut bob] {
            reopen(person, models.clone()).await;
        }
        // His receipt tells her, and hers lets him know that she has read it.
        for _ in 0..2 {
            ann.client().send("bob", ENGLISH.into()).await.unwrap();
            bob.client().send("ann", ENGLISH.into()).await.unwrap();
            sleep(AFTER_RECEIPTS).await;
        }
        sizes.push(envelope_bytes(&world, &ann, &bob, GREEK.into()).await);
        let visible = Message::from(GREEK).relay_visible();
        sizes.push(envelope_bytes(&world, &ann, &bob, visible).await);
        sleep(AFTER_RECEIPTS).await;
    }
    let [sealed, visible, sealed_with_it, visible_with_it] = sizes[..] else { unreachable!() };
    assert!(sealed_with_it <= 90 && sealed_with_it + 32 <= sealed, "{sizes:?}");
    assert!(visible_with_it <= 39 && visible_with_it + 29 <= visible, "{sizes:?}");
    assert_eq!(texts(&bob).await.iter().filter(|text| *text == GREEK).count(), 4);
    for person in [&ann, &bob] {
        assert_eq!(alarms(person).await, (0, 0), "{}", person.name());
    }
}

/// Ann and Bob, who code Greek by a model of their own; Bob is offline.
async fn greeks(seed: u64) -> (World, Person, Person) {
    let mut world = World::new(seed);
    let mut ann = world.person("ann", &profile("gprs"));
    let mut bob = world.person("bob", &profile("gprs"));
    for person in [&mut ann, &mut bob] {
        person.open_with(|builder| builder.models(with_greek()));
    }
    introduce(&ann, &bob).await;
    for person in [&ann, &bob] {
        go(person, true).await;
    }
    ann.client().send("bob", GREEK.into()).await.unwrap();
    sleep(AFTER_RECEIPTS).await;
    assert_eq!(texts(&bob).await, [GREEK]);
    go(&bob, false).await;
    (world, ann, bob)
}

#[tokio::test(start_paused = true)]
async fn what_was_coded_with_a_model_that_is_gone_comes_again_without_alarm() {
    let (_world, ann, mut bob) = greeks(4).await;
    let mut events = [&ann, &bob].map(|person| person.client().subscribe(InboxNumber(u64::MAX)));
    let said: Vec<_> = (0..30).map(|n| format!("{GREEK} {n}")).collect();
    for text in &said {
        ann.client().send("bob", text.as_str().into()).await.unwrap();
        sleep(Duration::from_secs(2)).await;
    }
    sleep(A_WHILE).await;
    reopen(&mut bob, Models::compiled_in()).await;
    sleep(AFTER_RECEIPTS).await;
    assert_eq!(texts(&bob).await[1..], said, "in order, each once");
    sleep(AFTER_RECEIPTS).await;
    for person in [&ann, &bob] {
        assert_eq!(alarms(person).await, (0, 0), "{}", person.name());
    }
    events[1] = bob.client().subscribe(InboxNumber(u64::MAX));
    ann.client().send("bob", GREEK.into()).await.unwrap();
    sleep(AFTER_RECEIPTS).await;
    assert_eq!(texts(&bob).await[31..], [GREEK], "at once, and once");
    for mut events in events {
        while let Ok(Some(event)) = tokio::time::timeout(A_WHILE, events.next()).await {
            let is_alarm =
                matches!(event, Event::AskedAgain { .. } | Event::Abandoned { .. } | Event::Unopened);
            assert!(!is_alarm, "{event:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_model_that_comes_and_goes_loses_nothing_and_nobody_asks_for_ever() {
    // A seed with which the day's two handshakes lose no packet: a repeat is no part of the bound.
    let (world, ann, mut bob) = greeks(6).await;
    for n in 0..6 {
        ann.client().send("bob", line("ann", n).into()).await.unwrap();
        ann.client().send("bob", GREEK.into()).await.unwrap();
        sleep(A_WHILE).await;
        reopen(&mut bob, if n % 2 == 0 { Models::compiled_in() } else { with_greek() }).await;
        bob.client().send("ann", line("bob", n).into()).await.unwrap();
        sleep(Duration::from_secs(900)).await;
        go(&bob, false).await;
    }
    go(&bob, true).await;
    assert_eq!(inbox(&ann, 6).await, expected("bob", 6));
    let mut read = texts(&bob).await;
    read.retain(|text| text != GREEK);
    assert_eq!(read, (0..6).map(|n| line("ann", n)).collect::<Vec<_>>());
    assert_eq!(texts(&bob).await.len(), 1 + 12);
    sleep(Duration::from_secs(3600)).await;
    let up = |person: &Person| world.net().counters(person.ip()).up.offered.ip_bytes;
    let before = [up(&ann), up(&bob)];
    sleep(Duration::from_secs(24 * 3600)).await;
    for (person, before) in [&ann, &bob].into_iter().zip(before) {
        let bytes = up(person) - before;
        assert!(bytes < 6_000, "a day of silence takes two handshakes, not {bytes}");
    }
    assert_eq!((alarms(&ann).await.1, alarms(&bob).await.1), (0, 0));
}
