//! Who is turned away loses all that they were given, under whatever name.

use std::time::Duration;

use thinpost_client::{Failure, GrantError, MessageState, Refusal, Token};
use thinpost_netem::{Person, World};
use tokio::time::sleep;

use crate::people::{A_WHILE, inbox, line, profile};

const NOT_WANTED: Option<MessageState> = Some(MessageState::Failed(Failure::Refused(Refusal::NotWanted)));

/// Ann and Bob, online. Bob has made a ticket for `annie`, which Ann has, and calls her `ann`. Also the ticket's token.
async fn filed_under_another_name(seed: u64) -> (World, Person, Person, Token) {
    let mut world = World::new(seed);
    let [mut ann, mut bob] = ["ann", "bob"].map(|name| world.person(name, &profile("gprs")));
    for person in [&mut ann, &mut bob] {
        person.open().connect();
    }
    let ticket = bob.client().ticket_for("annie").await.unwrap();
    ann.client().add_contact("bob", &ticket).await.unwrap();
    bob.client().add_contact("ann", &ann.client().ticket()).await.unwrap();
    sleep(A_WHILE).await;
    (world, ann, bob, ticket.token)
}

/// Ann has written, and been given a token inside the encryption.
async fn write_once(ann: &Person, bob: &Person) {
    ann.client().send("bob", line("ann", 0).into()).await.unwrap();
    inbox(bob, 1).await;
    sleep(A_WHILE * 3).await;
    assert_eq!(bob.client().ticket_names(), ["ann", "annie"]);
}

async fn fate(ann: &Person) -> Option<MessageState> {
    let message = ann.client().send("bob", "and now?".into()).await.unwrap();
    sleep(A_WHILE).await;
    ann.client().message_state(message).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_contact_under_a_new_name_loses_what_they_were_given_under_the_old_one() {
    let (_world, ann, bob, _) = filed_under_another_name(1).await;
    write_once(&ann, &bob).await;
    let ticket = bob.client().contacts()[0].ticket.clone();
    bob.client().remove_contact("ann").await.unwrap();
    bob.client().add_contact("anna", &ticket).await.unwrap();
    let revoked = bob.client().revoke_ticket("anna").await.unwrap();
    assert_eq!((revoked.tokens, revoked.shut_out), (1, vec!["anna".to_owned()]));
    assert_eq!(revoked.unclaimed, ["annie"], "which nobody is known to have");
    sleep(A_WHILE).await;
    assert_eq!(fate(&ann).await, NOT_WANTED);
}

#[tokio::test(start_paused = true)]
async fn who_has_said_who_they_are_under_a_ticket_loses_it_by_either_name() {
    for name in ["ann", "annie"] {
        let (_world, ann, mut bob, of_the_ticket) = filed_under_another_name(2).await;
        // The introduction leaves under the ticket's token: she has no other yet.
        ann.client().introduce("bob").await.unwrap();
        write_once(&ann, &bob).await;
        bob.kill().await;
        sleep(Duration::from_millis(2)).await;
        bob.open().connect();
        let revoked = bob.client().revoke_ticket(name).await.unwrap();
        assert_eq!((revoked.tokens, revoked.shut_out), (2, vec!["ann".to_owned()]), "by {name}");
        assert!(revoked.unclaimed.is_empty());
        sleep(A_WHILE).await;
        assert_eq!(fate(&ann).await, NOT_WANTED);
        ann.client().put_token("bob", of_the_ticket).await.unwrap();
        assert_eq!(fate(&ann).await, NOT_WANTED, "nor with the ticket, by {name}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_revoked_before_they_ever_wrote_is_given_nothing_when_they_do() {
    let (_world, ann, bob, _) = filed_under_another_name(3).await;
    let revoked = bob.client().revoke_ticket("ann").await.unwrap();
    assert_eq!((revoked.tokens, revoked.shut_out), (0, vec!["ann".to_owned()]));
    ann.client().send("bob", line("ann", 0).into()).await.unwrap();
    inbox(&bob, 1).await;
    sleep(A_WHILE * 3).await;
    assert_eq!(bob.client().ticket_names(), ["annie"]);
    let unknown = bob.client().revoke_ticket("eve").await;
    assert_eq!(unknown, Err(GrantError::Unknown("eve".to_owned())));
}
