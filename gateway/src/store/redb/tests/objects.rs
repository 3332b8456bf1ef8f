//! Objects in the file: over restarts, swept in parts, damaged, and of the largest kind.

use redb::ReadableTable;
use thinpost_wire::limits::OBJECT_BYTES_MAX;

use super::*;
use crate::store::conformance::{chunk, content, open, opened, roomy, sweep};
use crate::store::redb::objects::{BLOCK_BYTES, OBJECT_BLOCKS};

fn ranges(store: &RedbStore, object: ObjectNo) -> Vec<(u64, u64)> {
    store.object_held(object).unwrap().into_iter().map(|range| (range.start, range.end)).collect()
}

/// Rows of all tables of objects but the accounts' usage.
fn rows(store: &RedbStore) -> Vec<u64> {
    use crate::store::redb::objects::{OBJECT_DEADLINES, OBJECT_IDS};
    let read = store.db.begin_read().unwrap();
    vec![
        read.open_table(OBJECTS).unwrap().len().unwrap(),
        read.open_table(OBJECT_IDS).unwrap().len().unwrap(),
        read.open_table(OBJECT_DEADLINES).unwrap().len().unwrap(),
        read.open_table(OBJECT_RANGES).unwrap().len().unwrap(),
        read.open_table(OBJECT_BLOCKS).unwrap().len().unwrap(),
    ]
}

#[test]
fn a_reopened_store_has_its_chunks_and_its_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("relay.redb");
    let bytes = content(9_000);
    let id = ObjectId::of(&bytes);
    let store = RedbStore::open(&path, roomy()).unwrap();
    let device = join(&store, ALICE, 1);
    let object = opened(&store, open(device, id, 9_000), T0);
    let gone = opened(&store, open(device, ObjectId([1; 32]), 10), T0);
    let ops = [chunk(object, &bytes, 3_500, 8_500), Op::DropObject { object: gone }];
    assert_eq!(store.apply(&ops, T0).unwrap(), [Ok(Done::ChunkPut), Ok(Done::ObjectDropped)]);
    drop(store);

    let store = RedbStore::open(&path, roomy()).unwrap();
    assert_eq!(opened(&store, open(device, id, 9_000), T0), object);
    assert_eq!(ranges(&store, object), [(3_500, 8_500)]);
    assert_eq!(store.read_object(object, 3_500, 9_000).unwrap(), bytes[3_500..8_500]);
    assert!(opened(&store, open(device, ObjectId([1; 32]), 10), T0) > gone, "a number is never given again");
    let counts = store.counts().unwrap();
    assert_eq!((counts.objects, counts.object_bytes), (2, 9_010));
}

#[test]
fn a_store_from_before_there_were_objects_is_read_and_takes_some() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("relay.redb");
    let store = RedbStore::open(&path, roomy()).unwrap();
    let device = join(&store, ALICE, 1);
    accept(&store, append(device, ALICE, 1, b"from before"), T0);
    drop(store);
    edit(&path, |write| {
        let tables = write.list_tables().unwrap();
        let names: Vec<_> = tables.filter(|name| name.name().starts_with("object")).collect();
        assert_eq!(names.len(), 6);
        for name in names {
            write.delete_table(name).unwrap();
        }
        assert!(write.open_table(META).unwrap().get(META_OBJECTS).unwrap().is_none());
    });

    let copied = RedbStore::back_up_closed(&path, &folder.path().join("copy")).unwrap();
    assert_eq!((copied.entries, copied.objects), (1, 0));
    let restored = RedbStore::restore(&folder.path().join("copy"), &folder.path().join("restored"));
    assert_eq!(restored.unwrap(), copied);

    let store = RedbStore::open(&path, roomy()).unwrap();
    assert_eq!(bodies(&store, ALICE), ["from before"]);
    assert_eq!(store.object(&ALICE, &ObjectId([1; 32])).unwrap(), None);
    assert_eq!(store.find_object(&ObjectId([1; 32])).unwrap(), None);
    assert_eq!(store.counts().unwrap().objects, 0);
    opened(&store, open(device, ObjectId([1; 32]), 10), T0);
    assert_eq!(store.counts().unwrap().objects, 1);
}

#[test]
fn a_long_object_is_swept_in_parts_and_what_is_left_is_a_shorter_part_of_it() {
    let store = empty(StoreConfig { objects: ObjectQuota::default(), bytes_max: 1 << 20, ..small() });
    let device = join(&store, ALICE, 1);
    let (bytes, blocks) = (content(40_000), 10);
    let id = ObjectId::of(&bytes);
    let object = opened(&store, open(device, id, 40_000), T0);
    let ops = [chunk(object, &bytes, 0, 40_000), Op::CompleteObject { object }];
    store.apply(&ops, T0).unwrap();
    assert_eq!(rows(&store), [1, 1, 1, 1, blocks]);
    let now = T0.after_s(100);
    let swept = one(&store, Op::Sweep { rows_max: 4 }, now);
    assert_eq!(swept, Ok(Done::Swept { removed: 0, more: true }));
    assert_eq!(rows(&store), [1, 1, 1, 1, blocks - 4]);
    let record = store.object(&ALICE, &id).unwrap().unwrap();
    assert_eq!((record.number, record.is_complete), (object, false));
    assert_eq!(ranges(&store, object), [(0, 24_000)]);
    assert_eq!(store.read_object(object, 0, usize::MAX).unwrap(), bytes[..24_000]);
    assert_eq!(store.object_digest(object).unwrap(), None);
    assert_eq!(store.find_object(&id).unwrap(), None);
    // Its account comes back for it between two sweeps, and puts only what is missing.
    assert_eq!(opened(&store, open(device, id, 40_000), now), object);
    assert_eq!(sweep(&store, now, 4), 0);
    let ops = [chunk(object, &bytes, 24_000, 40_000), Op::CompleteObject { object }];
    assert_eq!(store.apply(&ops, now).unwrap(), [Ok(Done::ChunkPut), Ok(Done::ObjectCompleted)]);
    assert_eq!(store.object_digest(object).unwrap(), Some(id));

    assert_eq!(sweep(&store, T0.after_s(200), 5), 1);
    assert_eq!(rows(&store), [0; 5]);
    assert_eq!(store.counts().unwrap().object_bytes, 0);
}

#[test]
fn a_sweep_cuts_a_scattered_object_within_a_piece_and_counts_what_is_left() {
    let store = empty(StoreConfig { object_ranges_max: 6, ..roomy() });
    let device = join(&store, ALICE, 1);
    let object = opened(&store, open(device, ObjectId([1; 32]), 9_000), T0);
    let bytes = content(9_000);
    for (from, to) in [(0, 10), (3_000, 4_500), (5_000, 5_010), (6_000, 6_010), (8_500, 9_000)] {
        one(&store, chunk(object, &bytes, from, to), T0).unwrap();
    }
    let now = T0.after_s(100);
    // Two blocks go: the last, and the one that the second piece ends in.
    let swept = one(&store, Op::Sweep { rows_max: 2 }, now);
    assert_eq!(swept, Ok(Done::Swept { removed: 0, more: true }));
    assert_eq!(ranges(&store, object), [(0, 10), (3_000, 4_000)]);
    assert_eq!(store.read_object(object, 3_000, 9_000).unwrap(), bytes[3_000..4_000]);
    opened(&store, open(device, ObjectId([1; 32]), 9_000), now);
    for from in [4_100, 4_200, 4_300, 4_400] {
        assert_eq!(one(&store, chunk(object, &bytes, from, from + 10), now), Ok(Done::ChunkPut));
    }
    assert_eq!(one(&store, chunk(object, &bytes, 4_500, 4_510), now), Err(Refusal::ObjectScattered));
    assert_eq!(one(&store, Op::DropObject { object }, now), Ok(Done::ObjectDropped));
    assert_eq!(rows(&store), [0; 5]);
}

#[test]
fn a_block_damaged_on_disk_is_an_error_and_never_wrong_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("relay.redb");
    let store = RedbStore::open(&path, roomy()).unwrap();
    let device = join(&store, ALICE, 1);
    let object = opened(&store, open(device, ObjectId([1; 32]), 4_200), T0);
    let bytes = [b"a block that is found in the file".as_slice(), &[7; 3_967]].concat();
    one(&store, chunk(object, &bytes, 0, 3_000), T0).unwrap();
    drop(store);
    edit(&path, |write| {
        let mut blocks = write.open_table(OBJECT_BLOCKS).unwrap();
        let (key, mut value) = {
            let (key, value) = blocks.first().unwrap().unwrap();
            (key.value(), value.value().to_vec())
        };
        *value.last_mut().unwrap() ^= 1;
        blocks.insert(key, value.as_slice()).unwrap();
    });
    let store = RedbStore::open(&path, roomy()).unwrap();
    assert!(matches!(store.read_object(object, 1_000, 10), Err(StoreError::Corrupt(_))));
    let more = [chunk(object, &bytes, 3_000, 4_000)];
    assert!(matches!(store.apply(&more, T0), Err(StoreError::Corrupt(_))), "no new check over damage");
    drop(store);
    // Whoever lets the object go and puts it anew is rid of the damage.
    let store = RedbStore::open(&path, roomy()).unwrap();
    assert_eq!(one(&store, Op::DropObject { object }, T0), Ok(Done::ObjectDropped));
    let object = opened(&store, open(device, ObjectId([1; 32]), 4_200), T0);
    one(&store, chunk(object, &bytes, 0, 4_000), T0).unwrap();
    assert_eq!(store.read_object(object, 0, 4_000).unwrap(), bytes);
}

#[test]
fn an_object_of_the_largest_kind_comes_in_chunks_and_fills_its_pages() {
    let store = empty(StoreConfig::default());
    let device = join(&store, ALICE, 1);
    let bytes = content(OBJECT_BYTES_MAX as usize);
    let id = ObjectId::of(&bytes);
    let object = opened(&store, open(device, id, OBJECT_BYTES_MAX), T0);
    let chunks = |parity| {
        let starts = (0..bytes.len()).step_by(1_170).enumerate();
        let of_parity = starts.filter(move |(i, _)| i % 2 == parity);
        of_parity.map(|(_, from)| chunk(object, &bytes, from, (from + 1_170).min(bytes.len())))
    };
    // First every other chunk, as if half of them were lost.
    for parity in [0, 1] {
        for group in chunks(parity).collect::<Vec<_>>().chunks(1_024) {
            let verdicts = store.apply(group, T0).unwrap();
            assert!(verdicts.iter().all(|verdict| *verdict == Ok(Done::ChunkPut)));
        }
        assert_eq!(ranges(&store, object).len(), [7_170, 1][parity]);
    }
    assert_eq!(store.object_digest(object).unwrap(), Some(id));
    let read = store.db.begin_read().unwrap();
    let stats = read.open_table(OBJECT_BLOCKS).unwrap().stats().unwrap();
    assert_eq!(stats.leaf_pages(), OBJECT_BYTES_MAX.div_ceil(BLOCK_BYTES));
    let unused = stats.fragmented_bytes();
    assert!(unused < OBJECT_BYTES_MAX / 20, "{unused} bytes of pages are not used");
    drop(read);
    assert_eq!(one(&store, Op::DropObject { object }, T0), Ok(Done::ObjectDropped));
    assert_eq!(rows(&store), [0; 5]);
}
