#![allow(clippy::unwrap_used)]

use thinpost_disk::medium::Medium;
use thinpost_wire::ids::StoreId;

use super::*;
use crate::store::redb::tests::{back, faults};
use crate::store::samples::roomy;
use crate::store::{Done, MemoryStore, RedbStore, RelayTime, Verdict};

/// How many entries went until nothing was due. Backends may take the rows in different orders.
fn sweep(store: &dyn Store, rows_max: u32, now: RelayTime) -> u32 {
    let mut sum = 0;
    // Every call that leaves more to do removes a row, so this bound is never met.
    for _ in 0..10_000 {
        match store.apply(&[Op::Sweep { rows_max }], now).unwrap()[..] {
            [Ok(Done::Swept { removed, more })] => {
                sum += removed;
                if !more {
                    return sum;
                }
            }
            ref other => panic!("not swept: {other:?}"),
        }
    }
    panic!("a sweep that never ends");
}

fn open(medium: &Medium) -> RedbStore {
    RedbStore::with_backend(medium.clone(), roomy(), StoreId([1; 8])).unwrap()
}

fn begin_run(stores: [&dyn Store; 2], unix_s: u64) -> Result<(), TestCaseError> {
    for store in stores {
        store.begin_run(unix_s).unwrap();
    }
    prop_assert_eq!(stores[1].leap(), stores[0].leap());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn redb_says_what_memory_says(steps in proptest::collection::vec(step(), 1..40)) {
        let mut memory = MemoryStore::new(roomy(), StoreId([1; 8]));
        let mut medium = Medium::default();
        let mut redb = open(&medium);
        let mut unix_s = 1_800_000_000;
        begin_run([&memory, &redb], unix_s)?;
        let mut now = RelayTime(0);
        let mut restores = 1;
        for step in steps {
            match step {
                Step::Apply(ops, elapsed_s) => {
                    now = now.after_s(elapsed_s);
                    let expected: Vec<Verdict> = memory.apply(&ops, now).unwrap();
                    prop_assert_eq!(redb.apply(&ops, now).unwrap(), expected);
                }
                Step::Sweep(elapsed_s) => {
                    let rows_max = 1 + elapsed_s as u32 % 5;
                    now = now.after_s(elapsed_s);
                    let expected = sweep(&memory, rows_max, now);
                    prop_assert_eq!(sweep(&redb, rows_max, now), expected);
                }
                Step::Reopen => {
                    drop(redb);
                    redb = open(&medium);
                    unix_s += 3;
                    begin_run([&memory, &redb], unix_s)?;
                }
                Step::Restore => {
                    restores += 1;
                    let id = StoreId([restores; 8]);
                    memory = memory.restored(id);
                    medium = back(&redb, id);
                    redb = open(&medium);
                    begin_run([&memory, &redb], unix_s)?;
                }
            }
            prop_assert_eq!(Look::at(&redb).unwrap(), Look::at(&memory).unwrap());
        }
        prop_assert_eq!(faults(&mut redb), vec![]);
    }
}
