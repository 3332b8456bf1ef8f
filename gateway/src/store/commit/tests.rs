#![allow(clippy::unwrap_used)]

use std::sync::Mutex;
use std::sync::mpsc as blocking;

use bytes::Bytes;
use rangemap::RangeSet;
use thinpost_wire::ids::{AccountKey, DeviceKey, Handle, ObjectId, Position, StoreId};
use thinpost_wire::token::MailboxAddress;

use super::*;
use crate::store::conformance::{ALICE, BOB, T0, append, bodies, join, register, small};
use crate::store::{
    Counts, DeviceNo, DeviceRecord, Entry, HandleTables, Leap, Lineage, MailboxUsage, MemoryStore, ObjectNo,
    ObjectRecord, StoreConfig,
};

/// A memory store that notes the size of each group, and fails or waits when told to.
struct Probe {
    inner: MemoryStore,
    groups: Mutex<Vec<usize>>,
    fail_at_group: Option<usize>,
    gate: Option<Mutex<blocking::Receiver<()>>>,
}

impl Probe {
    fn new() -> Self {
        let config = StoreConfig { quota: StoreConfig::default().quota, digests_kept: 1_024, ..small() };
        let inner = MemoryStore::new(config, StoreId([1; 8]));
        Self { inner, groups: Mutex::default(), fail_at_group: None, gate: None }
    }

    fn groups(&self) -> Vec<usize> {
        self.groups.lock().unwrap().clone()
    }
}

impl Store for Probe {
    fn apply(&self, ops: &[Op], now: RelayTime) -> Result<Vec<Verdict>, StoreError> {
        if let Some(gate) = &self.gate {
            gate.lock().unwrap().recv().unwrap();
        }
        let mut groups = self.groups.lock().unwrap();
        groups.push(ops.len());
        if Some(groups.len()) == self.fail_at_group {
            return Err(StoreError::Full);
        }
        self.inner.apply(ops, now)
    }
    fn device(&self, key: &DeviceKey) -> Result<Option<DeviceRecord>, StoreError> {
        self.inner.device(key)
    }
    fn read(
        &self,
        mailbox: &AccountKey,
        after: Position,
        entries_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<(Position, Entry)>, StoreError> {
        self.inner.read(mailbox, after, entries_max, bytes_max)
    }
    fn is_open(&self, mailbox: &AccountKey) -> Result<bool, StoreError> {
        self.inner.is_open(mailbox)
    }
    fn mailbox_usage(&self, mailbox: &AccountKey) -> Result<Option<MailboxUsage>, StoreError> {
        self.inner.mailbox_usage(mailbox)
    }
    fn admits(&self, address: &MailboxAddress) -> Result<bool, StoreError> {
        self.inner.admits(address)
    }
    fn begin_run(&self, unix_s: u64) -> Result<(), StoreError> {
        self.inner.begin_run(unix_s)
    }
    fn leap(&self) -> Option<Leap> {
        self.inner.leap()
    }
    fn newest(&self) -> Result<Position, StoreError> {
        self.inner.newest()
    }
    fn tables(&self, device: DeviceNo) -> Result<HandleTables, StoreError> {
        self.inner.tables(device)
    }
    fn keys_left(&self, device: DeviceNo) -> Result<usize, StoreError> {
        self.inner.keys_left(device)
    }
    fn put_session(&self, key: &[u8], value: Bytes) -> bool {
        self.inner.put_session(key, value)
    }
    fn take_session(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.inner.take_session(key)
    }
    fn object(&self, account: &AccountKey, id: &ObjectId) -> Result<Option<ObjectRecord>, StoreError> {
        self.inner.object(account, id)
    }
    fn find_object(&self, id: &ObjectId) -> Result<Option<ObjectRecord>, StoreError> {
        self.inner.find_object(id)
    }
    fn object_held(&self, object: ObjectNo) -> Result<RangeSet<u64>, StoreError> {
        self.inner.object_held(object)
    }
    fn read_object(&self, object: ObjectNo, offset: u64, bytes_max: usize) -> Result<Bytes, StoreError> {
        self.inner.read_object(object, offset, bytes_max)
    }
    fn object_digest(&self, object: ObjectNo) -> Result<Option<ObjectId>, StoreError> {
        self.inner.object_digest(object)
    }
    fn counts(&self) -> Result<Counts, StoreError> {
        self.inner.counts()
    }
    fn lineage(&self) -> &Lineage {
        self.inner.lineage()
    }
    fn relay_clock(&self) -> Result<RelayTime, StoreError> {
        self.inner.relay_clock()
    }
}

fn inline(store: &Arc<Probe>, limits: GroupLimits) -> (Committer, GroupCommit<fn() -> RelayTime>) {
    GroupCommit::new(store.clone(), || T0, CommitMode::Inline, limits, Wakes::default())
}

fn envelope(device: DeviceNo, sequence: u64) -> Vec<Op> {
    vec![Op::Append(append(device, ALICE, sequence, b"x"))]
}

#[tokio::test]
async fn all_that_waits_shares_one_commit_and_each_gets_its_own_verdicts() {
    let store = Arc::new(Probe::new());
    let device = join(&store.inner, ALICE, 1);
    let (committer, group) = inline(&store, GroupLimits::default());
    let two = [envelope(device, 1), vec![register(ALICE, 1)]].concat();
    let first = committer.submit(two).await.unwrap();
    let second = committer.submit(envelope(device, 1)).await.unwrap();
    let third = committer.submit(envelope(device, 2)).await.unwrap();
    committer.close();
    group.run().await.unwrap();
    let first = first.await.unwrap();
    assert!(matches!(first[..], [Ok(Done::Accepted { .. }), Ok(Done::Registered { new: false, .. })]));
    assert_eq!(second.await.unwrap(), [Ok(Done::Repeat)], "in the order of the calls");
    assert!(matches!(third.await.unwrap()[..], [Ok(Done::Accepted { .. })]));
    assert_eq!(store.groups(), [4, 0], "one group, and the last words of a drained committer");
}

#[tokio::test]
async fn a_group_is_closed_at_its_limits() {
    let store = Arc::new(Probe::new());
    let device = join(&store.inner, ALICE, 1);
    let (committer, group) =
        inline(&store, GroupLimits { ops_max: 2, bytes_max: 100, ..GroupLimits::default() });
    let mut waiting = Vec::new();
    for sequence in 1..=3 {
        waiting.push(committer.submit(envelope(device, sequence)).await.unwrap());
    }
    for sequence in 4..=5 {
        let large = Op::Append(append(device, ALICE, sequence, &[0; 100]));
        waiting.push(committer.submit(vec![large]).await.unwrap());
    }
    drop(committer);
    group.run().await.unwrap();
    for pending in waiting {
        assert!(pending.await.unwrap()[0].is_ok());
    }
    assert_eq!(store.groups(), [2, 2, 1, 0]);
}

#[tokio::test]
async fn a_group_is_closed_by_the_bytes_of_all_its_bodies() {
    let store = Arc::new(Probe::new());
    let device = join(&store.inner, ALICE, 1);
    let (committer, group) = inline(&store, GroupLimits { bytes_max: 100, ..GroupLimits::default() });
    let mut waiting = Vec::new();
    for (sequence, bytes) in (1..).zip([40, 40, 20, 100, 99, 1, 1]) {
        let op = Op::Append(append(device, ALICE, sequence, &vec![0; bytes]));
        waiting.push(committer.submit(vec![op]).await.unwrap());
    }
    committer.close();
    group.run().await.unwrap();
    assert_eq!(store.groups(), [3, 1, 2, 1, 0]);
}

#[tokio::test]
async fn a_storage_error_reaches_all_who_wait_and_all_who_come_later() {
    let store = Arc::new(Probe { fail_at_group: Some(1), ..Probe::new() });
    let device = join(&store.inner, ALICE, 1);
    let (committer, group) = inline(&store, GroupLimits { ops_max: 1, ..GroupLimits::default() });
    let in_the_group = committer.submit(envelope(device, 1)).await.unwrap();
    let behind_it = committer.submit(envelope(device, 2)).await.unwrap();
    let stopped = group.run().await.unwrap_err();
    assert!(matches!(*stopped, StoreError::Full));
    for pending in [in_the_group, behind_it] {
        assert!(
            matches!(pending.await, Err(CommitError::Store(error)) if matches!(*error, StoreError::Full))
        );
    }
    let later = committer.commit(envelope(device, 3)).await;
    assert!(matches!(later, Err(CommitError::Store(error)) if matches!(*error, StoreError::Full)));
    assert_eq!(store.groups(), [1], "a failed commit is not tried again");
    assert!(bodies(&store.inner, ALICE).is_empty());
}

#[tokio::test]
async fn a_closed_committer_drains_and_then_refuses() {
    let store = Arc::new(Probe::new());
    let device = join(&store.inner, ALICE, 1);
    let (committer, group) = inline(&store, GroupLimits::default());
    let before = committer.submit(envelope(device, 1)).await.unwrap();
    committer.close();
    group.run().await.unwrap();
    assert!(before.await.unwrap()[0].is_ok());
    assert!(matches!(committer.commit(envelope(device, 2)).await, Err(CommitError::Closed)));
}

#[tokio::test]
async fn watchers_wake_for_accepted_envelopes_and_not_for_repeats() {
    let store = Arc::new(Probe::new());
    let device = join(&store.inner, ALICE, 1);
    let wakes = Wakes::default();
    let mut watcher = wakes.mail.watch(ALICE);
    let (committer, group) =
        GroupCommit::new(store, || T0, CommitMode::Inline, GroupLimits::default(), wakes);
    let run = tokio::spawn(group.run());
    assert!(committer.commit(envelope(device, 1)).await.unwrap()[0].is_ok());
    watcher.changed().await;
    assert_eq!(committer.commit(envelope(device, 1)).await.unwrap(), [Ok(Done::Repeat)]);
    committer.close();
    run.await.unwrap().unwrap();
    let woken =
        tokio::select! { biased; () = watcher.changed() => true, () = std::future::ready(()) => false };
    assert!(!woken);
}

#[tokio::test]
async fn who_waits_for_a_mailbox_is_told_when_it_is_new_or_has_room_again() {
    let store = Arc::new(Probe::new());
    let alice = join(&store.inner, ALICE, 1);
    let wakes = Wakes::default();
    let mut applicant = wakes.room.applicant();
    let (committer, group) =
        GroupCommit::new(store.clone(), || T0, CommitMode::Inline, GroupLimits::default(), wakes.clone());
    let run = tokio::spawn(group.run());
    let mut told_of = async |op: Op| {
        applicant.ask(Handle(1), BOB);
        let done = committer.commit(vec![op]).await.unwrap()[0].unwrap();
        (done, wakes.room.mailboxes() == 0)
    };
    let (Done::Registered { device: bob, new: true, .. }, true) = told_of(register(BOB, 2)).await else {
        panic!("there is a mailbox now");
    };
    assert!(matches!(told_of(register(BOB, 2)).await, (Done::Registered { new: false, .. }, false)));
    let (Done::Accepted { position }, false) = told_of(Op::Append(append(alice, BOB, 1, b"x"))).await else {
        panic!("there is not more room than before");
    };
    let settle = || Op::Settle { device: bob, upto: position };
    assert!(matches!(told_of(settle()).await, (Done::Settled { released: 1, .. }, true)));
    assert!(matches!(told_of(settle()).await, (Done::Settled { released: 0, .. }, false)));
    committer.close();
    run.await.unwrap().unwrap();
}

#[tokio::test]
async fn more_bytes_than_may_wait_are_let_in_as_others_are_answered() {
    let store = Arc::new(Probe::new());
    let device = join(&store.inner, ALICE, 1);
    let limits = GroupLimits { waiting_bytes_max: 100, ..GroupLimits::default() };
    let (committer, group) = inline(&store, limits);
    let large = |sequence| vec![Op::Append(append(device, ALICE, sequence, &[0; 150]))];
    let first = committer.submit(large(1)).await.unwrap();
    let second = tokio::spawn({
        let committer = committer.clone();
        let second = large(2);
        async move { committer.commit(second).await }
    });
    tokio::task::yield_now().await;
    assert_eq!(committer.room.available_permits(), 0);
    let run = tokio::spawn(group.run());
    assert!(first.await.unwrap()[0].is_ok());
    assert!(second.await.unwrap().unwrap()[0].is_ok());
    committer.close();
    run.await.unwrap().unwrap();
    assert_eq!(store.groups(), [1, 1, 0]);
}

#[tokio::test]
async fn while_the_disk_works_the_next_group_gathers() {
    let (open, gate) = blocking::channel();
    let store = Arc::new(Probe { gate: Some(Mutex::new(gate)), ..Probe::new() });
    let device = join(&store.inner, ALICE, 1);
    let (committer, group) = GroupCommit::new(
        store.clone(),
        || T0,
        CommitMode::Blocking,
        GroupLimits::default(),
        Wakes::default(),
    );
    let run = tokio::spawn(group.run());
    let first = committer.submit(envelope(device, 1)).await.unwrap();
    // The committer's task takes the first request and is then held in the store.
    while committer.requests.capacity() < committer.requests.max_capacity() {
        tokio::task::yield_now().await;
    }
    let mut waiting = Vec::new();
    for sequence in 2..=9 {
        waiting.push(committer.submit(envelope(device, sequence)).await.unwrap());
    }
    committer.close();
    for _ in 0..3 {
        open.send(()).unwrap();
    }
    assert!(first.await.unwrap()[0].is_ok());
    for pending in waiting {
        assert!(pending.await.unwrap()[0].is_ok());
    }
    run.await.unwrap().unwrap();
    assert_eq!(store.groups(), [1, 8, 0]);
}

#[test]
fn a_chunk_counts_with_its_bytes_and_shows_none_of_them() {
    let chunk = Op::PutChunk { object: ObjectNo(7), offset: 5, bytes: Bytes::from_static(b"secret") };
    assert_eq!(op_bytes(&chunk), 6);
    assert_eq!(format!("{chunk:?}"), "PutChunk { object: ObjectNo(7), offset: 5, bytes: 6 }");
}
