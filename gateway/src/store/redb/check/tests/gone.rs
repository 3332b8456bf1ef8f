//! Each row and each value of the file's own facts is missed when it is gone or cut, or a relay runs on without it, and then it is named here.

use std::collections::BTreeSet;

use redb::ReadableTableMetadata;

use super::*;
use crate::store::conformance::register;

/// Rows that nothing else tells of. Of each a relay knows less than it was told, and all of them a backup of then lacks, too.
const UNMISSED: &[&str] = &[
    // A token holds again that was void.
    "revoked 0",
    // A device has one key less to give out.
    "one-time-keys 0",
    "one-time-keys 1",
    // The newest handle of a device, which says so where the relay counts fewer.
    "addresses 0",
    "senders 1",
    // An invite lets as many in again.
    "invites 0",
    // Absent in stores of before, and in those that were restored from none.
    "meta lineage",
    "meta peak",
    "meta sessions-sealed",
    "meta since",
];

/// Takes a table's row of this number out; whether there was one.
type Take = Box<dyn Fn(&WriteTransaction, usize) -> bool>;

fn taking<K: Key + 'static, V: Value + 'static>(table: TableDefinition<'static, K, V>) -> (String, Take) {
    let take = move |write: &WriteTransaction, number: usize| {
        let mut seen = 0..;
        let mut table = write.open_table(table).unwrap();
        let before = table.len().unwrap();
        table.retain(|_, _| seen.next() != Some(number)).unwrap();
        table.len().unwrap() < before
    };
    (table.name().to_owned(), Box::new(take))
}

fn tables() -> Vec<(String, Take)> {
    vec![
        taking(ACCOUNTS),
        taking(MAILBOXES),
        taking(SECRETS),
        taking(REVOKED),
        taking(DEVICES),
        taking(DEVICE_KEYS),
        taking(READERS),
        taking(INVITES),
        taking(ENTRIES),
        taking(QUEUES),
        taking(DEADLINES),
        taking(COLLAPSE),
        taking(ACCEPTED),
        taking(INCARNATIONS),
        taking(DEVICE_TIMERS),
        taking(INCARNATION_TIMERS),
        taking(ONE_TIME_KEYS),
        taking(ADDRESSES),
        taking(SENDERS),
        taking(SESSIONS),
        taking(SESSION_ORDER),
        taking(OBJECTS),
        taking(OBJECT_IDS),
        taking(OBJECT_DEADLINES),
        taking(OBJECT_USAGE),
        taking(OBJECT_RANGES),
        taking(OBJECT_BLOCKS),
    ]
}

/// A file that can be damaged, and had again.
struct Damaged {
    sample: Sample,
    whole: Vec<u8>,
}

impl Damaged {
    fn new() -> Self {
        let sample = Sample::new();
        sample.edit(|write| edit_lineage(&mut write.open_table(META).unwrap(), &[(2, 3)]));
        assert_eq!(sample.found(), [""; 0]);
        let whole = fs::read(sample.path()).unwrap();
        Self { sample, whole }
    }

    /// Whether a check finds nothing after this was done to it; a relay then runs on it.
    fn is_unmissed(&self, edit: impl FnOnce(&WriteTransaction)) -> bool {
        fs::write(self.sample.path(), &self.whole).unwrap();
        self.sample.edit(edit);
        let is_unmissed = RedbStore::check(&self.sample.path()).is_ok_and(|report| report.is_sound());
        if is_unmissed {
            self.run();
        }
        is_unmissed
    }

    fn run(&self) {
        let store = RedbStore::open(&self.sample.path(), roomy()).unwrap();
        store.begin_run(1_800_000_001).unwrap();
        let Ok(Done::Registered { device, .. }) = one(&store, register(ALICE, 1), T0) else { panic!() };
        accept(&store, append(device, ALICE, 9, b"later"), T0);
        let now = RelayTime(T0.0 + 1_000);
        let swept = one(&store, Op::Sweep { rows_max: 1_000 }, now);
        assert!(matches!(swept, Ok(Done::Swept { removed: 7, more: false })), "{swept:?}");
    }
}

#[test]
fn each_row_that_is_gone_is_missed_or_a_relay_runs_on_without_it() {
    let damaged = Damaged::new();
    let mut unmissed = Vec::new();
    for (name, take) in tables() {
        for number in 0.. {
            let mut is_there = false;
            if damaged.is_unmissed(|write| is_there = take(write, number)) && is_there {
                unmissed.push(format!("{name} {number}"));
            }
            if !is_there {
                assert!(number > 0, "nothing is in {name}");
                break;
            }
        }
    }
    for key in [
        META_FORMAT,
        META_STORE_ID,
        META_STATE,
        META_OBJECTS,
        META_LINEAGE,
        META_PEAK,
        META_SEALED,
        META_SINCE,
    ] {
        let mut is_there = false;
        let take = |write: &WriteTransaction| {
            is_there = write.open_table(META).unwrap().remove(key).unwrap().is_some();
        };
        if damaged.is_unmissed(take) {
            unmissed.push(format!("meta {key}"));
        }
        assert!(is_there, "{key}");
    }
    assert_eq!(
        unmissed.iter().map(String::as_str).collect::<BTreeSet<_>>(),
        UNMISSED.iter().copied().collect()
    );
}

#[test]
fn each_value_of_the_files_own_facts_that_was_cut_is_missed() {
    let damaged = Damaged::new();
    for key in [META_FORMAT, META_STORE_ID, META_STATE, META_OBJECTS, META_LINEAGE, META_PEAK, META_SINCE] {
        let cut = |write: &WriteTransaction| {
            let mut meta = write.open_table(META).unwrap();
            let row = meta.get(key).unwrap().unwrap().value().to_vec();
            meta.insert(key, &row[..row.len() - 1]).unwrap();
        };
        assert!(!damaged.is_unmissed(cut), "{key}");
    }
}
