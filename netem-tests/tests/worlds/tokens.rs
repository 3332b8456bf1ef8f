//! Who may write to whom, and who may no more.

use std::time::Duration;

use thinpost_client::{Event, Failure, InboxNumber, Message, MessageId, MessageState, Refusal};
use thinpost_gateway::config::{Config, Registration};
use thinpost_gateway::store::MailboxUsage;
use thinpost_netem::{Person, World};
use tokio::time::sleep;

use crate::people::{A_WHILE, ann_and_bob, go, inbox, introduce, line, profile, strays};

const NOT_WANTED: Option<MessageState> = Some(MessageState::Failed(Failure::Refused(Refusal::NotWanted)));
const CUSTODY: Option<MessageState> = Some(MessageState::Custody);

/// An envelope of its own: what is sealed shares one.
fn alone(from: &str, n: usize) -> Message {
    Message::from(line(from, n)).relay_visible()
}

/// Ann, Bob and Carol, online. Ann and Carol have tickets that Bob made for them.
async fn town(seed: u64) -> (World, Person, Person, Person) {
    let mut world = World::new(seed);
    let (ann, bob) = ann_and_bob(&mut world, "gprs").await;
    let mut carol = world.person("carol", &profile("gprs"));
    carol.open();
    introduce(&carol, &bob).await;
    for person in [&ann, &bob, &carol] {
        person.client().connect();
    }
    sleep(A_WHILE).await;
    (world, ann, bob, carol)
}

/// Sends, and says what has become of it after a while.
async fn fate(from: &Person, to: &str, n: usize) -> (MessageId, Option<MessageState>) {
    let message = from.client().send(to, alone(from.name(), n)).await.unwrap();
    sleep(A_WHILE).await;
    (message, from.client().message_state(message).await.unwrap())
}

fn usage(world: &World, of: &Person) -> MailboxUsage {
    world.store().mailbox_usage(&of.client().account()).unwrap().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_revoked_contact_is_refused_at_the_relay_and_nobody_else_is() {
    let (_world, ann, bob, carol) = town(1).await;
    assert_eq!(fate(&ann, "bob", 0).await.1, CUSTODY);
    bob.client().revoke_ticket("ann").await.unwrap();
    sleep(A_WHILE).await;
    let mut events = ann.client().subscribe(InboxNumber(0));
    let (message, state) = fate(&ann, "bob", 1).await;
    assert_eq!(state, NOT_WANTED);
    let failed = loop {
        if let Some(Event::Failed { message, reason, .. }) = events.next().await {
            break (message, reason);
        }
    };
    assert_eq!(failed, (message, Failure::Refused(Refusal::NotWanted)), "its sender is told");
    assert_eq!(fate(&carol, "bob", 0).await.1, CUSTODY);
    assert_eq!(bob.client().ticket_names(), ["carol"]);
    // Another ticket, another chance.
    let again = bob.client().ticket_for("ann").await.unwrap();
    ann.client().add_contact("bob", &again).await.unwrap();
    assert_eq!(fate(&ann, "bob", 2).await.1, CUSTODY);
    let read = inbox(&bob, 3).await;
    let expected = [("ann", 0), ("carol", 0), ("ann", 2)].map(|(who, n)| (who.to_owned(), line(who, n)));
    assert_eq!(read, expected);
}

#[tokio::test(start_paused = true)]
async fn strangers_fill_the_request_box_and_a_friend_still_gets_through() {
    let (mut world, ann, bob, _carol) = town(2).await;
    let mut eve = world.person("eve", &profile("gprs"));
    eve.open();
    eve.client().add_contact("bob", &bob.client().ticket()).await.unwrap();
    bob.client().add_contact("eve", &eve.client().ticket()).await.unwrap();
    go(&bob, false).await;
    for n in 0..40 {
        eve.client().send("bob", alone("eve", n)).await.unwrap();
    }
    go(&eve, true).await;
    let status = eve.client().status().await.unwrap();
    assert_eq!((status.custody, status.waiting, status.failed), (32, 8, 0));
    let usage_now = usage(&world, &bob);
    assert_eq!((usage_now.requests.entries, usage_now.all.entries), (32, 32));
    assert_eq!(fate(&ann, "bob", 0).await.1, CUSTODY);
    // The relay tells her when there is room.
    bob.client().connect();
    let read = inbox(&bob, 41).await;
    let (of_eve, of_ann): (Vec<_>, Vec<_>) = read.into_iter().partition(|(from, _)| from == "eve");
    assert_eq!((strays(of_eve, "eve"), strays(of_ann, "ann")), (vec![], vec![]));
    sleep(A_WHILE).await;
    assert_eq!(usage(&world, &bob), MailboxUsage::default());
}

#[tokio::test(start_paused = true)]
async fn strangers_who_go_on_reach_who_listens_at_a_pace_that_all_of_them_share() {
    let (mut world, ann, bob, _carol) = town(13).await;
    let mut strangers = Vec::new();
    for name in ["eve", "mallory"] {
        let mut stranger = world.person(name, &profile("umts"));
        stranger.open();
        stranger.client().add_contact("bob", &bob.client().ticket()).await.unwrap();
        stranger.client().connect();
        strangers.push(stranger);
    }
    sleep(A_WHILE).await;
    let before = bob.client().status().await.unwrap().received.0;
    for n in 0..250 {
        for stranger in &strangers {
            stranger.client().send("bob", alone(stranger.name(), n)).await.unwrap();
        }
    }
    sleep(Duration::from_secs(600)).await;
    let of_strangers = bob.client().status().await.unwrap().received.0 - before;
    assert!((33..=42).contains(&of_strangers), "{of_strangers}");
    assert_eq!(fate(&ann, "bob", 0).await.1, CUSTODY);
    assert!(inbox(&bob, of_strangers + 1).await.iter().any(|(from, _)| from == "ann"));
}

#[tokio::test(start_paused = true)]
async fn a_stranger_who_is_given_a_token_goes_on_in_order() {
    let (mut world, _ann, bob, _carol) = town(3).await;
    let mut eve = world.person("eve", &profile("gprs"));
    eve.open();
    eve.client().add_contact("bob", &bob.client().ticket()).await.unwrap();
    bob.client().add_contact("eve", &eve.client().ticket()).await.unwrap();
    go(&bob, false).await;
    for n in 0..40 {
        eve.client().send("bob", alone("eve", n)).await.unwrap();
    }
    go(&eve, true).await;
    assert_eq!(eve.client().status().await.unwrap().waiting, 8);
    let token = bob.client().ticket_for("eve").await.unwrap().token;
    eve.client().put_token("bob", token).await.unwrap();
    // Nobody tells her that it is worth trying now: she does when the pause is over.
    sleep(Duration::from_secs(3_600)).await;
    assert_eq!(eve.client().status().await.unwrap().waiting, 0);
    assert_eq!(usage(&world, &bob).all.entries, 40);
    bob.client().connect();
    assert_eq!(strays(inbox(&bob, 40).await, "eve"), []);
}

#[tokio::test(start_paused = true)]
async fn nothing_overtakes_what_is_on_its_way_under_another_token() {
    let (mut world, _ann, bob, _carol) = town(12).await;
    let mut eve = world.person("eve", &profile("gprs"));
    eve.open();
    eve.client().add_contact("bob", &bob.client().ticket()).await.unwrap();
    bob.client().add_contact("eve", &eve.client().ticket()).await.unwrap();
    go(&bob, false).await;
    go(&eve, true).await;
    // The last of these are refused, and Eve does not know it yet when she is given her own.
    for n in 0..40 {
        eve.client().send("bob", alone("eve", n)).await.unwrap();
    }
    sleep(Duration::from_millis(300)).await;
    assert_eq!(eve.client().status().await.unwrap().waiting, 40, "nothing is known yet");
    let token = bob.client().ticket_for("eve").await.unwrap().token;
    eve.client().put_token("bob", token).await.unwrap();
    for n in 40..45 {
        eve.client().send("bob", alone("eve", n)).await.unwrap();
    }
    sleep(Duration::from_secs(3_600)).await;
    assert_eq!(usage(&world, &bob).all.entries, 45);
    bob.client().connect();
    assert_eq!(strays(inbox(&bob, 45).await, "eve"), []);
}

#[tokio::test(start_paused = true)]
async fn a_forged_token_is_refused() {
    let (_world, ann, bob, _carol) = town(4).await;
    let mut ticket = bob.client().ticket_for("ann").await.unwrap();
    ticket.token.0[15] ^= 1;
    ann.client().add_contact("bob", &ticket).await.unwrap();
    assert_eq!(fate(&ann, "bob", 0).await.1, NOT_WANTED);
    // The id of a token says nothing without its code.
    ticket.token = ann.client().ticket_for("bob").await.unwrap().token;
    ann.client().add_contact("bob", &ticket).await.unwrap();
    assert_eq!(fate(&ann, "bob", 1).await.1, NOT_WANTED);
}

#[tokio::test(start_paused = true)]
async fn who_makes_tokens_up_uses_nothing_of_those_who_were_given_one() {
    let (mut world, _ann, bob, _carol) = town(14).await;
    let mut stranger = |name: &'static str| {
        let mut stranger = world.person(name, &profile("umts"));
        stranger.open();
        stranger.client().connect();
        stranger
    };
    let (eve, mallory) = (stranger("eve"), stranger("mallory"));
    let ticket = bob.client().ticket();
    let mut forged = ticket.clone();
    forged.token.0[15] ^= 1;
    eve.client().add_contact("bob", &ticket).await.unwrap();
    mallory.client().add_contact("bob", &forged).await.unwrap();
    sleep(A_WHILE).await;
    for n in 0..100 {
        mallory.client().send("bob", alone("mallory", n)).await.unwrap();
        sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(mallory.client().status().await.unwrap().failed, 100);
    for n in 0..20 {
        eve.client().send("bob", alone("eve", n)).await.unwrap();
    }
    sleep(A_WHILE).await;
    assert_eq!(eve.client().status().await.unwrap().waiting, 0);
}

#[tokio::test(start_paused = true)]
async fn tokens_and_revocations_survive_the_relay() {
    let (mut world, ann, bob, carol) = town(5).await;
    bob.client().revoke_ticket("ann").await.unwrap();
    sleep(A_WHILE).await;
    world.kill_relay();
    world.start_relay();
    sleep(A_WHILE).await;
    assert_eq!(fate(&ann, "bob", 0).await.1, NOT_WANTED);
    assert_eq!(fate(&carol, "bob", 0).await.1, CUSTODY);
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_lost_its_store_is_told_again_what_was_revoked() {
    let (mut world, ann, bob, carol) = town(6).await;
    bob.client().revoke_ticket("ann").await.unwrap();
    sleep(A_WHILE).await;
    world.stop_relay().await;
    world.lose_store();
    world.start_relay();
    sleep(A_WHILE * 5).await;
    assert_eq!(fate(&ann, "bob", 0).await.1, NOT_WANTED);
    assert_eq!(fate(&carol, "bob", 0).await.1, CUSTODY);
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_for_a_mailbox_that_is_registered_anew_is_refused_all_the_same() {
    let (mut world, ann, bob, _carol) = town(9).await;
    bob.client().revoke_ticket("ann").await.unwrap();
    sleep(A_WHILE).await;
    go(&bob, false).await;
    world.stop_relay().await;
    world.lose_store();
    world.start_relay();
    sleep(A_WHILE).await;
    let (message, state) = fate(&ann, "bob", 0).await;
    assert_eq!(state, Some(MessageState::Waiting), "there is no mailbox");
    go(&bob, true).await;
    sleep(A_WHILE * 5).await;
    assert_eq!(ann.client().message_state(message).await.unwrap(), NOT_WANTED);
    assert_eq!(inbox(&bob, 0).await, []);
}

#[tokio::test(start_paused = true)]
async fn a_revocation_made_offline_leaves_with_the_next_link() {
    let (_world, ann, mut bob, _carol) = town(7).await;
    go(&bob, false).await;
    bob.client().revoke_ticket("ann").await.unwrap();
    assert_eq!(fate(&ann, "bob", 0).await.1, CUSTODY, "the relay does not know yet");
    bob.kill().await;
    sleep(Duration::from_millis(2)).await;
    bob.open();
    go(&bob, true).await;
    assert_eq!(fate(&ann, "bob", 1).await.1, NOT_WANTED);
    assert_eq!(inbox(&bob, 1).await, [("ann".to_owned(), line("ann", 0))]);
}

#[tokio::test(start_paused = true)]
async fn what_was_accepted_is_not_refused_when_it_comes_again_after_the_revocation() {
    let (world, ann, bob, _carol) = town(8).await;
    go(&bob, false).await;
    // Ann's link dies when the relay has her message and she has not heard of it.
    let message = ann.client().send("bob", alone("ann", 0)).await.unwrap();
    while usage(&world, &bob).all.entries == 0 {
        sleep(Duration::from_millis(10)).await;
    }
    world.net().set_outage(ann.ip(), true);
    bob.client().revoke_ticket("ann").await.unwrap();
    go(&bob, true).await;
    assert_eq!(inbox(&bob, 1).await, [("ann".to_owned(), line("ann", 0))]);
    sleep(A_WHILE * 5).await;
    assert_ne!(ann.client().message_state(message).await.unwrap(), CUSTODY, "she must not know");
    world.net().set_outage(ann.ip(), false);
    sleep(A_WHILE * 5).await;
    assert_eq!(ann.client().message_state(message).await.unwrap(), CUSTODY);
    assert_eq!(fate(&ann, "bob", 1).await.1, NOT_WANTED);
}

#[tokio::test(start_paused = true)]
async fn a_renewed_ticket_takes_the_place_of_the_one_before() {
    let (_world, ann, bob, carol) = town(9).await;
    let old = bob.client().ticket();
    ann.client().add_contact("bob", &old).await.unwrap();
    assert_eq!(fate(&ann, "bob", 0).await.1, CUSTODY);
    let renewed = bob.client().renew_ticket().await.unwrap();
    assert_eq!(bob.client().ticket(), renewed);
    sleep(A_WHILE).await;
    assert_eq!(fate(&ann, "bob", 1).await.1, NOT_WANTED);
    ann.client().add_contact("bob", &renewed).await.unwrap();
    assert_eq!(fate(&ann, "bob", 2).await.1, CUSTODY);
    assert_eq!(fate(&carol, "bob", 0).await.1, CUSTODY, "tickets for one person are others");
}

#[tokio::test(start_paused = true)]
async fn another_secret_voids_every_ticket() {
    let (_world, ann, bob, carol) = town(10).await;
    bob.client().revoke_ticket("carol").await.unwrap();
    let anybodys = bob.client().void_tickets().await.unwrap();
    sleep(A_WHILE).await;
    for person in [&ann, &carol] {
        assert_eq!(fate(person, "bob", 0).await.1, NOT_WANTED);
    }
    ann.client().add_contact("bob", &anybodys).await.unwrap();
    carol.client().add_contact("bob", &bob.client().ticket_for("carol").await.unwrap()).await.unwrap();
    for person in [&ann, &carol] {
        assert_eq!(fate(person, "bob", 1).await.1, CUSTODY);
    }
}

#[tokio::test(start_paused = true)]
async fn the_same_name_gets_the_same_ticket_over_restarts() {
    let (_world, _ann, mut bob, _carol) = town(11).await;
    let before = bob.client().ticket_for("ann").await.unwrap();
    bob.kill().await;
    sleep(Duration::from_millis(2)).await;
    bob.open();
    assert_eq!(bob.client().ticket_for("ann").await.unwrap(), before);
    bob.client().revoke_ticket("ann").await.unwrap();
    assert_ne!(bob.client().ticket_for("ann").await.unwrap().token, before.token);
}

/// Ann and Bob, online, who have each other's ticket for anybody, at a relay that keeps three envelopes of strangers.
async fn strangers(seed: u64) -> (World, Person, Person) {
    let mut config = Config::default();
    config.registration = Registration::Open;
    config.mailbox.request_envelopes_max = 3;
    let mut world = World::builder().seed(seed).relay_config(config).build();
    let [mut ann, mut bob] = ["ann", "bob"].map(|name| world.person(name, &profile("gprs")));
    for person in [&mut ann, &mut bob] {
        person.open().connect();
    }
    ann.client().add_contact("bob", &bob.client().ticket()).await.unwrap();
    bob.client().add_contact("ann", &ann.client().ticket()).await.unwrap();
    sleep(A_WHILE).await;
    (world, ann, bob)
}

#[tokio::test(start_paused = true)]
async fn a_contact_who_writes_as_a_stranger_is_given_a_token_with_the_first_receipt() {
    let (world, ann, bob) = strangers(20).await;
    ann.client().send("bob", line("ann", 0).into()).await.unwrap();
    sleep(3 * A_WHILE).await;
    go(&bob, false).await;
    for n in 1..8 {
        assert_eq!(fate(&ann, "bob", n).await.1, CUSTODY, "{n}");
    }
    let usage = usage(&world, &bob);
    assert_eq!((usage.all.entries, usage.requests.entries), (7, 0), "none of them is a stranger's");
    go(&bob, true).await;
    assert_eq!(strays(inbox(&bob, 8).await, "ann"), []);
}

#[tokio::test(start_paused = true)]
async fn who_was_shut_out_is_given_no_other_token_when_they_write_as_a_stranger() {
    let (_world, ann, bob) = strangers(21).await;
    ann.client().send("bob", line("ann", 0).into()).await.unwrap();
    sleep(3 * A_WHILE).await;
    assert_eq!(bob.client().ticket_names(), ["ann"]);
    bob.client().revoke_ticket("ann").await.unwrap();
    sleep(A_WHILE).await;
    assert_eq!(fate(&ann, "bob", 1).await.1, NOT_WANTED);
    // Bob's ticket for anybody stands on a wall.
    ann.client().put_token("bob", bob.client().ticket().token).await.unwrap();
    ann.client().send("bob", line("ann", 2).into()).await.unwrap();
    sleep(3 * A_WHILE).await;
    assert_eq!(inbox(&bob, 2).await.len(), 2, "a stranger may knock");
    assert!(bob.client().ticket_names().is_empty(), "and is a stranger still");
    bob.client().ticket_for("ann").await.unwrap();
    assert_eq!(bob.client().ticket_names(), ["ann"]);
}
