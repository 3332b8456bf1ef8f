//! What holds of one-time keys.

use thinpost_wire::ids::OneTimeKey;

use super::*;

fn put(store: &impl Store, device: DeviceNo, keys: &[u8]) {
    let keys = keys.iter().map(|n| OneTimeKey([*n; 32])).collect();
    assert_eq!(one(store, Op::PutKeys { device, replaces: false, keys }, T0), Ok(Done::KeysPut));
}

fn claim_by(
    store: &impl Store,
    device: DeviceNo,
    mailbox: AccountKey,
    id: TokenId,
    now: RelayTime,
) -> Verdict {
    let address = MailboxAddress { mailbox, token: token_of(mailbox, id) };
    one(store, Op::Claim { device, address }, now)
}

/// The first byte of the key that a claim gives.
fn claim(store: &impl Store, device: DeviceNo, mailbox: AccountKey, now: RelayTime) -> Option<u8> {
    match claim_by(store, device, mailbox, TokenId::personal(1), now) {
        Ok(Done::Claimed { key }) => key.map(|key| key.0[0]),
        other => panic!("not heard: {other:?}"),
    }
}

pub(crate) fn a_one_time_key_is_claimed_once_and_a_kept_one_is_not_kept_twice<S: Store>(
    make: fn(StoreConfig) -> S,
) {
    let store = make(small());
    let (alice, bob) = (join(&store, ALICE, 1), join(&store, BOB, 2));
    assert_eq!(claim(&store, bob, ALICE, T0), None);
    put(&store, alice, &[1, 2]);
    put(&store, alice, &[2, 1]);
    assert_eq!((store.keys_left(alice).unwrap(), store.keys_left(bob).unwrap()), (2, 0));
    let address = MailboxAddress { mailbox: ALICE, token: token_of(ALICE, TokenId::open(1)) };
    let claims = vec![Op::Claim { device: bob, address }; 3];
    let verdicts = store.apply(&claims, T0).unwrap();
    let keys = verdicts.iter().map(|verdict| match verdict {
        Ok(Done::Claimed { key }) => key.map(|key| key.0[0]),
        other => panic!("not heard: {other:?}"),
    });
    let mut keys: Vec<_> = keys.collect();
    keys.sort_unstable();
    assert_eq!(keys, [None, Some(1), Some(2)], "in one group, too");
    assert_eq!(store.keys_left(alice).unwrap(), 0);
}

pub(crate) fn so_many_one_time_keys_are_kept_and_a_claim_makes_room<S: Store>(make: fn(StoreConfig) -> S) {
    let store = make(small());
    let (alice, bob) = (join(&store, ALICE, 1), join(&store, BOB, 2));
    put(&store, alice, &[1, 2]);
    put(&store, alice, &[2, 3, 4]);
    put(&store, bob, &[9]);
    assert_eq!((store.keys_left(alice).unwrap(), store.keys_left(bob).unwrap()), (3, 1));
    let first = claim(&store, bob, ALICE, T0).unwrap();
    put(&store, alice, &[5, 6]);
    assert_eq!(store.keys_left(alice).unwrap(), 3);
    let mut rest: Vec<_> = (0..4).map(|_| claim(&store, bob, ALICE, T0)).collect();
    rest.push(Some(first));
    rest.sort_unstable();
    assert_eq!(rest, [None, Some(1), Some(2), Some(3), Some(5)]);
    put(&store, alice, &[6, 7, 8]);
    let keys = vec![OneTimeKey([9; 32])];
    one(&store, Op::PutKeys { device: alice, replaces: true, keys }, T0).unwrap();
    assert_eq!([0; 2].map(|_| claim(&store, bob, ALICE, T0)), [Some(9), None], "the others are gone");
}

pub(crate) fn nobody_claims_without_a_token_that_holds<S: Store>(make: fn(StoreConfig) -> S) {
    let store = make(small());
    let (alice, bob) = (join(&store, ALICE, 1), join(&store, BOB, 2));
    put(&store, alice, &[1]);
    let id = TokenId::personal(2);
    one(&store, Op::Revoke { device: alice, id }, T0).unwrap();
    assert_eq!(claim_by(&store, bob, ALICE, id, T0), Err(Refusal::NotWanted));
    let forged = MailboxAddress { mailbox: ALICE, token: token_of(BOB, TokenId::personal(1)) };
    let refused = one(&store, Op::Claim { device: bob, address: forged }, T0);
    assert_eq!(refused, Err(Refusal::NotWanted));
    let nobody = AccountKey([7; 32]);
    let refused = claim_by(&store, bob, nobody, TokenId::personal(1), T0);
    assert_eq!(refused, Err(Refusal::NoSuchMailbox));
    assert_eq!(store.keys_left(alice).unwrap(), 1);
    assert_eq!(claim(&store, bob, ALICE, T0), Some(1));
}

pub(crate) fn a_silent_device_gives_no_keys_and_any_live_one_does<S: Store>(make: fn(StoreConfig) -> S) {
    let store = make(small());
    let (phone, desk, bob) = (join(&store, ALICE, 1), join(&store, ALICE, 2), join(&store, BOB, 3));
    put(&store, phone, &[1, 2]);
    put(&store, desk, &[3]);
    let later = T0.after_s(100);
    assert_eq!(one(&store, Op::Seen { device: desk }, T0.after_s(50)), Ok(Done::Seen));
    assert_eq!(claim(&store, bob, ALICE, later), Some(3));
    assert_eq!(claim(&store, bob, ALICE, later), None, "the phone has fallen silent");
    assert_eq!(one(&store, Op::Seen { device: phone }, later), Ok(Done::Seen));
    assert!(claim(&store, bob, ALICE, later).is_some());
}
