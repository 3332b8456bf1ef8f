//! One link is all that a newcomer needs.

use crate::town::{Town, failure, output};

#[test]
fn a_guest_has_a_home_a_relay_and_a_contact_from_one_link_and_the_host_knows_who_came() {
    let town = Town::new();
    let invite = town.text(&mut town.gateway("invite"));
    let mut guest = town.thinpost("bob");
    let link = town.text(guest.args(["ticket", "guest", "carol", "--as", "bob", "--invite", &invite]));
    assert!(link.starts_with("tpg1"), "{link}");
    let made = town.text(town.thinpost("carol").args(["init", &link]));
    assert!(made.contains("bob is your first contact"), "{made}");
    // Whoever is not sure that it went well may do it again.
    let again = town.text(town.thinpost("carol").args(["init", &link]));
    assert!(again.contains("bob is your first contact"), "{again}");
    assert!(again.contains("bob is your first contact, and knows who you are"), "{again}");
    town.text(town.thinpost("carol").args(["send", "bob", "thank you for the invitation"]));
    town.text(town.thinpost("bob").args(["sync", "--for", "20s"]));
    let contacts = town.text(town.thinpost("bob").args(["contact", "list"]));
    assert!(contacts.contains("carol\t"), "{contacts}");
    town.text(town.thinpost("bob").args(["send", "carol", "welcome"]));
    let [ours, theirs] = [("bob", "carol"), ("carol", "bob")]
        .map(|(who, other)| town.text(town.thinpost(who).args(["contact", "verify", other])));
    assert_eq!(ours, theirs);
    let mut listener = town.listen(0);
    let line: serde_json::Value = serde_json::from_str(&listener.line()).unwrap();
    assert_eq!((&line["from"], &line["text"]), (&"carol".into(), &"thank you for the invitation".into()));
}

#[test]
fn a_guest_whose_ticket_was_revoked_meanwhile_is_told_that_the_host_does_not_know_them() {
    let town = Town::new();
    let invite = town.text(&mut town.gateway("invite"));
    let mut guest = town.thinpost("bob");
    let link = town.text(guest.args(["ticket", "guest", "carol", "--as", "bob", "--invite", &invite]));
    town.text(town.thinpost("bob").args(["ticket", "revoke", "carol"]));
    town.text(town.thinpost("bob").arg("sync"));
    let made = output(town.thinpost("carol").args(["init", &link]));
    assert!(made.stdout.starts_with(b"home made in "), "{made:?}");
    let refused = failure(&made, 65);
    assert!(refused.contains("bob is your first contact, but cannot be told who you are"), "{refused}");
}
