//! A store that was made of a backup: what the backup held is there, and devices have to say what came after it.

use super::*;

/// A store that can be put back to what it is now, as another store.
pub(crate) trait Restorable: Store + Sized {
    /// What a backup of this store is, restored as the store `id`.
    fn back(&self, id: StoreId) -> Self;
}

const ANEW: StoreId = StoreId([2; 8]);

/// Registers a device that has read so far, by its own word.
fn return_of(account: AccountKey, device: u8, read: Position) -> Op {
    let secret = secret_of(account);
    Op::Register(Register { account, device: device_key(device), invite: None, secret, read })
}

pub(crate) fn a_restored_store_is_another_store_that_knows_of_the_one_before<S: Restorable>(
    make: fn(StoreConfig) -> S,
) {
    let store = make(small());
    let device = join(&store, ALICE, 1);
    let newest = accept(&store, append(device, ALICE, 1, b"one"), T0);
    let restored = store.back(ANEW);
    assert_eq!(restored.store_id(), ANEW);
    assert_eq!(restored.lineage().earlier(), [(store.store_id(), newest)]);
    let again = restored.back(StoreId([3; 8]));
    assert_eq!(again.lineage().earlier(), [(store.store_id(), newest), (ANEW, newest)]);
}

pub(crate) fn a_restored_store_holds_what_the_backup_held<S: Restorable>(make: fn(StoreConfig) -> S) {
    let store = make(roomy());
    let (alice, bob) = (join(&store, ALICE, 1), join(&store, BOB, 2));
    accept(&store, append(alice, BOB, 1, b"one"), T0);
    let last = accept(&store, append(alice, BOB, 2, b"two"), T0);
    let id = ObjectId::of(&content(5_000));
    for op in [open(alice, id, 5_000), chunk(ObjectNo(1), &content(5_000), 0, 5_000)] {
        one(&store, op, T0).unwrap();
    }
    let counts = store.counts().unwrap();
    let restored = store.back(ANEW);
    accept(&store, append(alice, BOB, 3, b"after the backup"), T0);

    assert_eq!(restored.counts().unwrap(), counts);
    assert_eq!(bodies(&restored, BOB), ["one", "two"]);
    assert_eq!(restored.relay_clock().unwrap(), T0);
    assert_eq!(restored.object_digest(ObjectNo(1)).unwrap(), Some(id));
    one(&restored, register(BOB, 2), T0).unwrap();
    one(&restored, register(ALICE, 1), T0).unwrap();
    let again = one(&restored, Op::Append(append(alice, BOB, 2, b"two")), T0);
    assert_eq!(again, Ok(Done::Repeat), "repeats of what it held are known");
    let after = accept(&restored, append(alice, BOB, 3, b"after the backup"), T0);
    assert!(after > last, "and what it lacks is new");
    assert_eq!(settle(&restored, bob, after, T0), 3);
}

pub(crate) fn in_a_restored_store_a_device_is_unknown_until_it_registers<S: Restorable>(
    make: fn(StoreConfig) -> S,
) {
    let store = make(small());
    let device = join(&store, ALICE, 1);
    accept(&store, append(device, ALICE, 1, b"one"), T0);
    let table = TableTail::FromRelay(vec![BOB]);
    one(&store, Op::PutTable { device, from: 0, tail: table }, T0).unwrap();
    let restored = store.back(ANEW);
    assert_eq!(restored.device(&device_key(1)).unwrap(), None);
    assert_eq!(one(&restored, register(BOB, 1), T0), Err(Refusal::DeviceOfAnother));
    let late = RelayTime(T0.0 + 30);
    let Ok(Done::Registered { device: same, new: true, .. }) = one(&restored, register(ALICE, 1), late)
    else {
        panic!("not registered");
    };
    assert_eq!(same, device);
    let record = restored.device(&device_key(1)).unwrap().unwrap();
    assert_eq!((record.last_seen, record.last), (late, None), "what it said last is forgotten");
    assert_eq!(restored.tables(device).unwrap().from_relay, [BOB]);
    let again = one(&restored, register(ALICE, 1), late);
    assert!(matches!(again, Ok(Done::Registered { new: false, .. })), "{again:?}");
}

pub(crate) fn a_restored_mailbox_is_closed_until_a_device_of_its_account_is_back<S: Restorable>(
    make: fn(StoreConfig) -> S,
) {
    let store = make(small());
    let (alice, bob) = (join(&store, ALICE, 1), join(&store, BOB, 2));
    join(&store, BOB, 3);
    one(&store, Op::Revoke { device: bob, id: TokenId::personal(7) }, T0).unwrap();
    assert!(store.is_open(&BOB).unwrap());
    let restored = store.back(ANEW);
    one(&restored, register(ALICE, 1), T0).unwrap();
    assert!(!restored.is_open(&BOB).unwrap() && restored.is_open(&ALICE).unwrap());
    assert!(restored.mailbox_usage(&BOB).unwrap().is_some(), "it is there all the same");
    let address = MailboxAddress { mailbox: BOB, token: token_of(BOB, TokenId::personal(1)) };
    for op in [Op::Append(append(alice, BOB, 1, b"x")), Op::Claim { device: alice, address }] {
        assert_eq!(one(&restored, op, T0), Err(Refusal::NoSuchMailbox));
    }
    one(&restored, register(BOB, 3), T0).unwrap();
    assert!(restored.is_open(&BOB).unwrap());
    accept(&restored, append(alice, BOB, 1, b"x"), T0);
    let revoked = Append { token: token_of(BOB, TokenId::personal(7)), ..append(alice, BOB, 2, b"y") };
    assert_eq!(one(&restored, Op::Append(revoked), T0), Err(Refusal::NotWanted), "revoked before the backup");
    // A device that the backup does not know opens it as well.
    let restored = store.back(ANEW);
    one(&restored, register(BOB, 9), T0).unwrap();
    assert!(restored.is_open(&BOB).unwrap());
}

pub(crate) fn a_device_that_is_back_is_given_nothing_that_it_had_read<S: Restorable>(
    make: fn(StoreConfig) -> S,
) {
    let store = make(small());
    let device = join(&store, ALICE, 1);
    join(&store, ALICE, 2);
    let positions: Vec<_> = (1..=3u64).map(|n| accept(&store, append(device, ALICE, n, b"x"), T0)).collect();
    settle(&store, device, positions[0], T0);
    let restored = store.back(ANEW);
    one(&restored, return_of(ALICE, 1, positions[1]), T0).unwrap();
    let cursor = |n: u8| restored.device(&device_key(n)).unwrap().unwrap().cursor;
    assert_eq!(cursor(1), positions[1]);
    assert_eq!(bodies(&restored, ALICE).len(), 3, "the other device holds them");
    one(&restored, return_of(ALICE, 2, Position(u64::MAX)), T0).unwrap();
    assert_eq!(cursor(2), positions[2], "nobody has read further than there is");
    assert_eq!(bodies(&restored, ALICE).len(), 1, "what both have read is let go");
    one(&restored, return_of(ALICE, 1, positions[2]), T0).unwrap();
    assert_eq!(cursor(1), positions[1], "who is back says it by its cursor");
}

pub(crate) fn what_could_be_used_twice_is_not_restored<S: Restorable>(make: fn(StoreConfig) -> S) {
    let store = make(small());
    let (alice, bob) = (join(&store, ALICE, 1), join(&store, BOB, 2));
    let keys = vec![OneTimeKey([1; 32])];
    one(&store, Op::PutKeys { device: bob, replaces: false, keys }, T0).unwrap();
    assert!(store.put_session(b"k", Bytes::from_static(b"session")));
    store.apply(&[], T0).unwrap();
    let restored = store.back(ANEW);
    assert_eq!(restored.take_session(b"k").unwrap(), None);
    one(&restored, register(ALICE, 1), T0).unwrap();
    one(&restored, register(BOB, 2), T0).unwrap();
    assert_eq!(restored.keys_left(bob).unwrap(), 0);
    let address = MailboxAddress { mailbox: BOB, token: token_of(BOB, TokenId::personal(1)) };
    assert_eq!(one(&restored, Op::Claim { device: alice, address }, T0), Ok(Done::Claimed { key: None }));
}
