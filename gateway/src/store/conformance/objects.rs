//! What holds of objects.

use super::super::{ObjectNo, ObjectRecord};
use super::*;

/// Small bounds with room for objects of three blocks.
/// The bytes of an object of this length: no two near each other repeat.
pub(crate) fn content(len: usize) -> Vec<u8> {
    (0..len as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

pub(crate) fn open(device: DeviceNo, id: ObjectId, size: u64) -> Op {
    Op::OpenObject { device, id, size, lifetime_s: 100 }
}

pub(crate) fn chunk(object: ObjectNo, bytes: &[u8], from: usize, to: usize) -> Op {
    Op::PutChunk { object, offset: from as u64, bytes: Bytes::copy_from_slice(&bytes[from..to]) }
}

pub(crate) fn opened(store: &impl Store, op: Op, now: RelayTime) -> ObjectNo {
    match one(store, op, now) {
        Ok(Done::ObjectOpened { object, .. }) => object,
        other => panic!("not opened: {other:?}"),
    }
}

/// Opens an object, puts all of it and completes it.
fn keep(store: &impl Store, device: DeviceNo, bytes: &[u8], now: RelayTime) -> ObjectNo {
    let object = opened(store, open(device, ObjectId::of(bytes), bytes.len() as u64), now);
    let ops = [chunk(object, bytes, 0, bytes.len()), Op::CompleteObject { object }];
    assert_eq!(store.apply(&ops, now).unwrap(), [Ok(Done::ChunkPut), Ok(Done::ObjectCompleted)]);
    object
}

fn held(store: &impl Store, object: ObjectNo) -> Vec<(u64, u64)> {
    store.object_held(object).unwrap().into_iter().map(|range| (range.start, range.end)).collect()
}

fn kept(store: &impl Store, account: AccountKey, id: ObjectId) -> ObjectRecord {
    store.object(&account, &id).unwrap().expect("an object of the account")
}

fn object_counts(store: &impl Store) -> (u64, u64) {
    let counts = store.counts().unwrap();
    (counts.objects, counts.object_bytes)
}

pub(crate) fn an_object_is_put_in_pieces_and_read_back<S: Store>(make: fn(StoreConfig) -> S) {
    let store = make(roomy());
    let (alice, bytes) = (join(&store, ALICE, 1), content(9_000));
    let id = ObjectId::of(&bytes);
    assert_eq!(store.object(&ALICE, &id).unwrap(), None);
    let object = opened(&store, open(alice, id, 9_000), T0);
    let pieces = [(8_000, 9_000), (3_000, 8_000), (0, 1_170), (1_170, 2_340)];
    let ops = pieces.map(|(from, to)| chunk(object, &bytes, from, to));
    assert_eq!(store.apply(&ops, T0).unwrap(), [Ok(Done::ChunkPut); 4]);
    assert_eq!(held(&store, object), [(0, 2_340), (3_000, 9_000)]);
    let read = |offset, bytes_max| store.read_object(object, offset, bytes_max).unwrap();
    assert_eq!(read(0, usize::MAX), bytes[..2_340]);
    assert_eq!(read(3_999, 4_002), bytes[3_999..8_001]);
    assert_eq!(read(8_999, 10), bytes[8_999..]);
    for (offset, bytes_max) in [(2_340, 10), (2_999, 10), (9_000, 10), (u64::MAX, 10), (0, 0)] {
        assert!(read(offset, bytes_max).is_empty(), "nothing is held at {offset}");
    }
    assert_eq!(store.object_digest(object).unwrap(), None);
    assert_eq!(one(&store, Op::CompleteObject { object }, T0), Err(Refusal::ObjectIncomplete));
    assert!(!kept(&store, ALICE, id).is_complete);
    assert_eq!(store.find_object(&id).unwrap(), None, "not before it is complete");

    assert_eq!(one(&store, chunk(object, &bytes, 2_000, 4_000), T0), Ok(Done::ChunkPut));
    assert_eq!(store.object_digest(object).unwrap(), Some(id));
    for _ in 0..2 {
        assert_eq!(one(&store, Op::CompleteObject { object }, T0), Ok(Done::ObjectCompleted));
    }
    let record = kept(&store, ALICE, id);
    assert_eq!((record.number, record.size, record.is_complete), (object, 9_000, true));
    assert_eq!((record.deadline, &record.held), (T0.after_s(100), &store.object_held(object).unwrap()));
    assert_eq!(held(&store, object), [(0, 9_000)]);
    assert_eq!(store.find_object(&id).unwrap(), Some(record));
    assert_eq!(read(0, usize::MAX), bytes);
    let again = one(&store, open(alice, id, 9_000), T0);
    assert_eq!(again, Ok(Done::ObjectOpened { object, is_complete: true }));
    assert_eq!(store.object(&BOB, &id).unwrap(), None);
}

pub(crate) fn what_is_held_of_an_object_stays_as_it_is<S: Store>(make: fn(StoreConfig) -> S) {
    let store = make(roomy());
    let alice = join(&store, ALICE, 1);
    let object = opened(&store, open(alice, ObjectId([7; 32]), 9_000), T0);
    let put = |from, to, byte| one(&store, chunk(object, &[byte; 9_000], from, to), T0);
    assert_eq!(put(3_990, 4_010, 1), Ok(Done::ChunkPut));
    assert_eq!(put(5_000, 5_100, 1), Ok(Done::ChunkPut));
    assert_eq!(put(4_000, 4_005, 2), Ok(Done::ChunkPut), "all of it is held");
    assert_eq!(put(3_000, 6_000, 2), Ok(Done::ChunkPut), "around both");
    assert_eq!(held(&store, object), [(3_000, 6_000)]);
    let mut expected = vec![2; 3_000];
    expected[990..1_010].fill(1);
    expected[2_000..2_100].fill(1);
    assert_eq!(store.read_object(object, 3_000, 9_000).unwrap(), expected);
    assert_eq!(put(0, 9_000, 3), Ok(Done::ChunkPut));
    assert_eq!(one(&store, Op::CompleteObject { object }, T0), Ok(Done::ObjectCompleted));
    assert_eq!(put(0, 9_000, 4), Ok(Done::ChunkPut), "complete");
    let expected = [[3; 3_000].as_slice(), &expected, &[3; 3_000]].concat();
    assert_eq!(store.read_object(object, 0, 9_000).unwrap(), expected);
}

pub(crate) fn an_account_has_one_object_of_a_name_and_keeps_it_longer<S: Store>(make: fn(StoreConfig) -> S) {
    let store = make(roomy());
    let (phone, desk, bob) = (join(&store, ALICE, 1), join(&store, ALICE, 2), join(&store, BOB, 3));
    let id = ObjectId([7; 32]);
    let lasting = |device, lifetime_s| Op::OpenObject { device, id, size: 500, lifetime_s };
    let deadline = |account| kept(&store, account, id).deadline;
    let object = opened(&store, lasting(phone, 50), T0);
    assert_eq!(deadline(ALICE), T0.after_s(50));
    assert_eq!(opened(&store, lasting(desk, 60), T0), object);
    assert_eq!(deadline(ALICE), T0.after_s(60));
    assert_eq!(opened(&store, lasting(desk, 10), T0), object);
    assert_eq!(deadline(ALICE), T0.after_s(60), "never less long");
    assert_eq!(opened(&store, lasting(desk, u32::MAX), T0), object);
    assert_eq!(deadline(ALICE), T0.after_s(100), "capped");
    assert_eq!(one(&store, open(desk, id, 501), T0), Err(Refusal::ObjectConflict));
    assert_eq!(kept(&store, ALICE, id).size, 500);
    assert_ne!(opened(&store, lasting(bob, 50), T0), object);
    assert_eq!(object_counts(&store), (2, 1_000));
}

pub(crate) fn a_chunk_that_is_not_the_objects_is_refused<S: Store>(make: fn(StoreConfig) -> S) {
    let store = make(roomy());
    let alice = join(&store, ALICE, 1);
    let object = opened(&store, open(alice, ObjectId([7; 32]), 500), T0);
    let put = |object, offset, len| {
        one(&store, Op::PutChunk { object, offset, bytes: Bytes::from(vec![1; len]) }, T0)
    };
    for (offset, len) in [(0, 501), (499, 2), (500, 1), (u64::MAX, 1), (u64::MAX, 0)] {
        assert_eq!(put(object, offset, len), Err(Refusal::ObjectConflict), "{len} bytes at {offset}");
    }
    let unknown = ObjectNo(object.0 + 1);
    assert_eq!(put(unknown, 0, 1), Err(Refusal::UnknownObject));
    assert_eq!(one(&store, Op::CompleteObject { object: unknown }, T0), Err(Refusal::UnknownObject));
    assert_eq!(one(&store, Op::DropObject { object: unknown }, T0), Ok(Done::ObjectDropped));
    assert_eq!(put(object, 500, 0), Ok(Done::ChunkPut));
    assert!(held(&store, object).is_empty() && held(&store, unknown).is_empty());
    assert!(store.read_object(unknown, 0, 10).unwrap().is_empty());
    assert_eq!(store.object_digest(unknown).unwrap(), None);
    assert_eq!(put(object, 499, 1), Ok(Done::ChunkPut));
}

pub(crate) fn an_account_keeps_so_many_objects_and_bytes_and_no_more<S: Store>(make: fn(StoreConfig) -> S) {
    let store = make(roomy());
    let (alice, bob) = (join(&store, ALICE, 1), join(&store, BOB, 2));
    let try_open = |device, name, size| one(&store, open(device, ObjectId([name; 32]), size), T0);
    assert_eq!(try_open(alice, 1, 0), Err(Refusal::ObjectTooLong));
    assert_eq!(try_open(alice, 1, 9_001), Err(Refusal::ObjectTooLong));
    let first = opened(&store, open(alice, ObjectId([1; 32]), 9_000), T0);
    assert_eq!(object_counts(&store), (1, 9_000), "before any of it is there");
    assert_eq!(try_open(alice, 2, 1_001), Err(Refusal::ObjectQuota));
    assert!(try_open(alice, 2, 999).is_ok());
    assert!(try_open(alice, 3, 1).is_ok());
    assert_eq!(try_open(alice, 4, 1), Err(Refusal::ObjectQuota), "the fourth object");
    assert!(try_open(alice, 3, 1).is_ok(), "known");
    assert!(try_open(bob, 4, 1).is_ok(), "another account");
    assert_eq!(one(&store, Op::DropObject { object: first }, T0), Ok(Done::ObjectDropped));
    assert_eq!(object_counts(&store), (3, 1_001));
    let second = opened(&store, open(alice, ObjectId([1; 32]), 9_000), T0);
    assert_ne!(second, first, "a number is never given again");
    let late = Op::PutChunk { object: first, offset: 0, bytes: Bytes::from_static(b"x") };
    assert_eq!(one(&store, late, T0), Err(Refusal::UnknownObject));
    assert!(held(&store, second).is_empty());
}

pub(crate) fn objects_and_bodies_share_the_store<S: Store>(make: fn(StoreConfig) -> S) {
    let store = make(StoreConfig { bytes_max: 9_500, ..small() });
    let (alice, bob) = (join(&store, ALICE, 1), join(&store, BOB, 2));
    let object = opened(&store, open(alice, ObjectId([1; 32]), 9_000), T0);
    accept(&store, append(alice, BOB, 1, &[0; 400]), T0);
    let envelope = append(alice, BOB, 2, &[0; 101]);
    assert_eq!(one(&store, Op::Append(envelope.clone()), T0), Err(Refusal::StoreFull));
    assert_eq!(one(&store, open(bob, ObjectId([1; 32]), 101), T0), Err(Refusal::StoreFull));
    opened(&store, open(bob, ObjectId([1; 32]), 100), T0);
    assert_eq!(one(&store, Op::DropObject { object }, T0), Ok(Done::ObjectDropped));
    accept(&store, envelope, T0);
    let counts = store.counts().unwrap();
    assert_eq!((counts.bytes, counts.objects, counts.object_bytes), (501, 1, 100));
}

pub(crate) fn an_object_expires_and_gives_its_room_back<S: Store>(make: fn(StoreConfig) -> S) {
    let store = make(roomy());
    let alice = join(&store, ALICE, 1);
    let whole = keep(&store, alice, &content(600), T0);
    let begun = opened(&store, open(alice, ObjectId([1; 32]), 9_000), T0.after_s(20));
    one(&store, chunk(begun, &content(9_000), 3_000, 5_000), T0.after_s(20)).unwrap();
    let id = ObjectId::of(&content(600));
    assert_eq!(sweep(&store, T0.after_s(99), 10), 0);
    assert_eq!(store.find_object(&id).unwrap().unwrap().number, whole);
    assert_eq!(sweep(&store, T0.after_s(100), 10), 1);
    assert_eq!((store.object(&ALICE, &id).unwrap(), store.find_object(&id).unwrap()), (None, None));
    assert!(store.read_object(whole, 0, 10).unwrap().is_empty());
    assert_eq!(object_counts(&store), (1, 9_000));
    assert_eq!(opened(&store, open(alice, ObjectId([1; 32]), 9_000), T0.after_s(110)), begun);
    assert_eq!(sweep(&store, T0.after_s(209), 10), 0, "it was opened again since");
    assert_eq!(sweep(&store, T0.after_s(210), 1), 1);
    assert_eq!(object_counts(&store), (0, 0));
    assert!(held(&store, begun).is_empty());
    let now = T0.after_s(210);
    for name in 1..=3 {
        opened(&store, open(alice, ObjectId([name; 32]), 3_300), now);
    }
}

pub(crate) fn a_sweep_of_objects_does_a_bounded_piece_of_work<S: Store>(make: fn(StoreConfig) -> S) {
    let store = make(roomy());
    let alice = join(&store, ALICE, 1);
    for len in [10, 20, 30] {
        keep(&store, alice, &content(len), T0);
    }
    let now = T0.after_s(100);
    assert!(matches!(one(&store, Op::Sweep { rows_max: 1 }, now), Ok(Done::Swept { more: true, .. })));
    let left = object_counts(&store).0;
    assert!(left > 0);
    assert_eq!(u64::from(sweep(&store, now, 1)), left);
    assert_eq!(object_counts(&store), (0, 0));
}

pub(crate) fn an_object_is_held_in_so_many_pieces_and_no_more<S: Store>(make: fn(StoreConfig) -> S) {
    let store = make(roomy());
    let alice = join(&store, ALICE, 1);
    let (bytes, id) = (content(9_000), ObjectId([1; 32]));
    let object = opened(&store, open(alice, id, 9_000), T0);
    let put = |from, to| one(&store, chunk(object, &bytes, from, to), T0);
    for from in [0, 2_000, 4_000, 6_000] {
        assert_eq!(put(from, from + 1_000), Ok(Done::ChunkPut));
    }
    assert_eq!(put(8_000, 9_000), Err(Refusal::ObjectScattered));
    assert_eq!(put(500, 900), Ok(Done::ChunkPut), "held already");
    assert_eq!(put(7_000, 7_500), Ok(Done::ChunkPut), "it touches the last");
    assert_eq!(put(8_000, 9_000), Err(Refusal::ObjectScattered));
    assert_eq!(put(1_000, 2_000), Ok(Done::ChunkPut), "it closes a gap");
    assert_eq!(put(8_000, 9_000), Ok(Done::ChunkPut));
    assert_eq!(put(7_600, 7_700), Err(Refusal::ObjectScattered), "four again");
    assert_eq!(held(&store, object), [(0, 3_000), (4_000, 5_000), (6_000, 7_500), (8_000, 9_000)]);
}

pub(crate) fn of_one_name_the_object_that_is_kept_longest_is_found<S: Store>(make: fn(StoreConfig) -> S) {
    let store = make(roomy());
    let (alice, bob) = (join(&store, ALICE, 1), join(&store, BOB, 2));
    let carol = join(&store, AccountKey([0xc; 32]), 3);
    let (bytes, id) = (content(700), ObjectId::of(&content(700)));
    let found = || store.find_object(&id).unwrap().map(|object| object.number);
    let of_alice = keep(&store, alice, &bytes, T0.after_s(5));
    let of_bob = keep(&store, bob, &bytes, T0.after_s(9));
    opened(&store, open(carol, id, 700), T0.after_s(20));
    assert_eq!(found(), Some(of_bob), "the latest is not complete");
    opened(&store, open(alice, id, 700), T0.after_s(10));
    assert_eq!(found(), Some(of_alice));
    one(&store, Op::DropObject { object: of_alice }, T0.after_s(10)).unwrap();
    assert_eq!(found(), Some(of_bob));
    assert_eq!(store.read_object(of_bob, 0, 700).unwrap(), bytes, "another's is another's");
}
