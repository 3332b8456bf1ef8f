//! What holds of tokens and of the request box.

use super::*;
use crate::store::MailboxUsage;

/// Another secret of ALICE's.
const RENEWED: MailboxSecret = MailboxSecret([0x77; 32]);

fn under(id: TokenId, envelope: Append) -> Append {
    Append { token: token_of(envelope.mailbox, id), ..envelope }
}

fn revoke(store: &impl Store, device: DeviceNo, id: TokenId) -> Verdict {
    one(store, Op::Revoke { device, id }, T0)
}

fn renew(store: &impl Store, secret: MailboxSecret) -> Verdict {
    one(
        store,
        Op::Register(Register {
            account: ALICE,
            device: device_key(1),
            invite: None,
            secret,
            read: Position(0),
        }),
        T0,
    )
}

fn requests(store: &impl Store, mailbox: AccountKey) -> Usage {
    store.mailbox_usage(&mailbox).unwrap().unwrap().requests
}

pub(crate) fn a_token_that_was_revoked_or_never_made_is_refused_and_others_are_not<S: Store>(
    make: fn(StoreConfig) -> S,
) {
    let store = make(small());
    let (alice, bob) = (join(&store, ALICE, 1), join(&store, BOB, 2));
    let [first, second] = [1, 2].map(TokenId::personal);
    accept(&store, under(first, append(bob, ALICE, 1, b"1")), T0);
    assert_eq!(revoke(&store, alice, first), Ok(Done::Revoked));
    assert_eq!(revoke(&store, alice, first), Ok(Done::Revoked), "again");
    let refused = |envelope| one(&store, Op::Append(envelope), T0);
    assert_eq!(refused(under(first, append(bob, ALICE, 2, b"2"))), Err(Refusal::NotWanted));
    accept(&store, under(second, append(bob, ALICE, 3, b"3")), T0);
    accept(&store, under(TokenId::open(1), append(bob, ALICE, 4, b"4")), T0);
    accept(&store, under(first, append(alice, BOB, 1, b"another account's token of that id")), T0);
    let mut forged = under(second, append(bob, ALICE, 5, b"5"));
    forged.token.0[15] ^= 1;
    assert_eq!(refused(forged), Err(Refusal::NotWanted));
    let of_another = Append { token: token_of(BOB, second), ..append(bob, ALICE, 6, b"6") };
    assert_eq!(refused(of_another), Err(Refusal::NotWanted));
    assert_eq!(bodies(&store, ALICE), ["1", "3", "4"]);
    accept(&store, under(second, append(bob, ALICE, 2, b"2")), T0);
}

pub(crate) fn what_was_accepted_before_its_token_was_revoked_is_still_a_repeat<S: Store>(
    make: fn(StoreConfig) -> S,
) {
    let store = make(small());
    let (alice, bob) = (join(&store, ALICE, 1), join(&store, BOB, 2));
    let id = TokenId::personal(1);
    accept(&store, under(id, append(bob, ALICE, 1, b"1")), T0);
    assert_eq!(revoke(&store, alice, id), Ok(Done::Revoked));
    let again = |token| Op::Append(Append { token, ..append(bob, ALICE, 1, b"1") });
    assert_eq!(one(&store, again(token_of(ALICE, id)), T0), Ok(Done::Repeat));
    assert_eq!(one(&store, again(token_of(ALICE, TokenId::personal(2))), T0), Ok(Done::Repeat));
    assert_eq!(one(&store, again(Token([0; 16])), T0), Ok(Done::Repeat));
    assert_eq!(bodies(&store, ALICE), ["1"]);
}

pub(crate) fn another_secret_voids_every_token_and_the_same_again_none<S: Store>(make: fn(StoreConfig) -> S) {
    let store = make(small());
    let (alice, bob) = (join(&store, ALICE, 1), join(&store, BOB, 2));
    let [first, second] = [1, 2].map(TokenId::personal);
    revoke(&store, alice, first).unwrap();
    assert!(renew(&store, secret_of(ALICE)).is_ok());
    let refused = one(&store, Op::Append(under(first, append(bob, ALICE, 1, b"1"))), T0);
    assert_eq!(refused, Err(Refusal::NotWanted), "still revoked");
    accept(&store, under(second, append(bob, ALICE, 1, b"1")), T0);
    assert!(renew(&store, RENEWED).is_ok());
    let refused = one(&store, Op::Append(under(second, append(bob, ALICE, 2, b"2"))), T0);
    assert_eq!(refused, Err(Refusal::NotWanted));
    let renewed = Append { token: Token::mint(&RENEWED, first), ..append(bob, ALICE, 2, b"2") };
    accept(&store, renewed, T0);
    assert_eq!(bodies(&store, ALICE), ["1", "2"]);
    // So does one that comes with another device of the account.
    join(&store, ALICE, 3);
    accept(&store, under(second, append(bob, ALICE, 3, b"3")), T0);
}

pub(crate) fn so_many_tokens_are_revoked_and_no_more_and_another_secret_makes_room<S: Store>(
    make: fn(StoreConfig) -> S,
) {
    let store = make(small());
    let (alice, bob) = (join(&store, ALICE, 1), join(&store, BOB, 2));
    for n in 1..=3 {
        assert_eq!(revoke(&store, alice, TokenId::open(n)), Ok(Done::Revoked));
    }
    assert_eq!(revoke(&store, alice, TokenId::open(4)), Err(Refusal::RevocationsFull));
    assert_eq!(revoke(&store, alice, TokenId::open(3)), Ok(Done::Revoked), "it is among them");
    assert_eq!(revoke(&store, bob, TokenId::open(4)), Ok(Done::Revoked), "each account has its own");
    accept(&store, under(TokenId::open(4), append(bob, ALICE, 1, b"1")), T0);
    assert!(renew(&store, RENEWED).is_ok());
    assert_eq!(revoke(&store, alice, TokenId::open(4)), Ok(Done::Revoked));
}

pub(crate) fn strangers_share_a_small_part_of_a_mailbox_and_others_do_not_notice<S: Store>(
    make: fn(StoreConfig) -> S,
) {
    let store = make(small());
    let (alice, bob) = (join(&store, ALICE, 1), join(&store, BOB, 2));
    let request = |sequence, body: &[u8]| under(TokenId::open(7), append(bob, ALICE, sequence, body));
    let first = accept(&store, request(1, &[0; 300]), T0);
    let by_bytes = one(&store, Op::Append(request(2, b"x")), T0);
    assert_eq!(by_bytes, Err(Refusal::MailboxFull));
    settle(&store, alice, first, T0);
    accept(&store, request(2, b"2"), T0);
    accept(&store, under(TokenId::open(8), append(alice, ALICE, 1, b"of another stranger")), T0);
    assert_eq!(one(&store, Op::Append(request(3, b"")), T0), Err(Refusal::MailboxFull));
    for sequence in 4..=6 {
        accept(&store, append(bob, ALICE, sequence, b"of a friend"), T0);
    }
    let full = one(&store, Op::Append(append(bob, ALICE, 7, b"")), T0);
    assert_eq!(full, Err(Refusal::MailboxFull), "requests count as entries, too");
    let read = store.read(&ALICE, Position(0), 10, 1_000).unwrap();
    let are_requests: Vec<_> = read.iter().map(|(_, entry)| entry.is_request).collect();
    assert_eq!(are_requests, [true, true, false, false, false]);
}

pub(crate) fn the_request_box_is_counted_as_its_entries_go<S: Store>(make: fn(StoreConfig) -> S) {
    let store = make(small());
    let (alice, bob) = (join(&store, ALICE, 1), join(&store, BOB, 2));
    let keyed = |id, sequence, body: &[u8]| {
        let mut envelope = under(id, append(bob, ALICE, sequence, body));
        envelope.collapse = Some(1);
        envelope
    };
    let (open, personal) = (TokenId::open(1), TokenId::personal(1));
    accept(&store, keyed(open, 1, &[0; 200]), T0);
    accept(&store, under(open, append(bob, ALICE, 2, b"two")), T0);
    assert_eq!(requests(&store, ALICE), Usage { entries: 2, bytes: 203 });
    accept(&store, keyed(open, 3, &[0; 250]), T0);
    assert_eq!(requests(&store, ALICE), Usage { entries: 2, bytes: 253 }, "a request replaced a request");
    accept(&store, keyed(personal, 4, &[0; 40]), T0);
    assert_eq!(requests(&store, ALICE), Usage { entries: 1, bytes: 3 }, "now that it is a friend's");
    assert_eq!(usage(&store, ALICE), Usage { entries: 2, bytes: 43 });
    let large = Op::Append(keyed(open, 5, &[0; 298]));
    assert_eq!(one(&store, large, T0), Err(Refusal::MailboxFull), "what it replaces was no request");
    accept(&store, keyed(open, 5, &[0; 297]), T0);
    assert_eq!(requests(&store, ALICE), Usage { entries: 2, bytes: 300 });
    sweep(&store, T0.after_s(100), 10);
    assert_eq!(store.mailbox_usage(&ALICE).unwrap(), Some(MailboxUsage::default()));
    let position = accept(&store, under(open, append(bob, ALICE, 6, b"six")), T0.after_s(100));
    settle(&store, alice, position, T0.after_s(100));
    assert_eq!(store.mailbox_usage(&ALICE).unwrap(), Some(MailboxUsage::default()));
}
