//! What was confirmed is there after a kill at any moment, and nothing is half there.

use std::{fs, io};

use thinpost_disk::medium::Medium;
use thinpost_wire::batch::Ack;
use thinpost_wire::frame::Refusal;
use thinpost_wire::ids::{Incarnation, Origin, StoreId};
use thinpost_wire::notes::{Notes, Seen};
use thinpost_wire::ticket::SealKeys;
use thinpost_wire::token::{MailboxSecret, Token};

use super::key::DataKey;
use super::records::{FORMAT, META_FORMAT, SealedRow};
use super::storage::{self, MemoryStorage, Storage};
use super::*;
use crate::error::{CreateError, OpenError};
use crate::message::{MessageState, ReceivedContent};
use crate::notices::NoticeRow;
use crate::random::Random;

pub(super) const BOB: AccountKey = AccountKey([2; 32]);
pub(super) const NOW: Incarnation = Incarnation([9; 8]);

/// Of what is not sealed in the same opening.
fn of_open(incarnation: Incarnation) -> Incarnation {
    Incarnation(incarnation.0.map(|byte| byte + 100))
}

pub(super) fn numbers(incarnation: Incarnation) -> Numbers {
    Numbers::new(incarnation, of_open(incarnation))
}

pub(super) fn enqueue(store: &Store, numbers: &Numbers, count: usize) -> Result<MessageId, StoreError> {
    store.enqueue(&mut vec![row(b"a"); count], numbers)
}

pub(super) fn home() -> HomeRecord {
    HomeRecord {
        account_seed: [1; 32],
        device_seed: [2; 32],
        relay: "none is read here".into(),
        invite: None,
        secret: MailboxSecret([3; 32]),
    }
}

pub(super) fn created() -> MemoryStorage {
    let memory = MemoryStorage::new();
    create(&memory.clone().into()).unwrap();
    memory
}

pub(super) fn create(storage: &Storage) -> Result<(), CreateError> {
    Store::create(storage, None, &home(), b"keys", random())
}

pub(super) fn random() -> Random {
    Random::from_seed(1, "test", 0)
}

pub(super) fn open_storage(storage: &Storage) -> Result<(Store, Loaded), OpenError> {
    Store::open(storage, None, random())
}

pub(super) fn open(memory: &MemoryStorage) -> (Store, Loaded) {
    open_storage(&memory.into()).unwrap()
}

pub(super) fn row(body: &[u8]) -> OutboxRow {
    OutboxRow {
        mailbox: BOB,
        token: Token([4; 16]),
        enqueued_ms: 7,
        app_id: None,
        written: Origin { incarnation: NOW, sequence: 0 },
        number: None,
        seal: None,
        rides_with: None,
        again: 0,
        letter: body.to_vec(),
    }
}

pub(super) fn arrival(text: &str) -> InboxRow {
    let content = ReceivedContent::Text(text.into());
    InboxRow {
        from: Some(BOB),
        sealed: true,
        name: None,
        app_id: None,
        age_s: 0,
        received_unix_ms: 8,
        content,
    }
}

#[test]
fn ids_and_inbox_numbers_count_from_one_over_restarts() {
    let memory = created();
    for (id, number) in [(1, 1), (3, 2)] {
        let (store, loaded) = open(&memory);
        assert_eq!(loaded.counters.received, number - 1);
        assert_eq!(enqueue(&store, &numbers(NOW), 2).unwrap(), MessageId(id));
        store.apply(&Changes { received: vec![arrival("x")], ..Changes::default() }).unwrap();
        let inbox = store.inbox(InboxNumber(number - 1), 10).unwrap();
        assert_eq!(inbox, [(InboxNumber(number), arrival("x"))]);
    }
}

#[test]
fn a_number_once_given_is_kept_over_restarts_until_the_relay_refuses() {
    let memory = created();
    let (store, _) = open(&memory);
    let first = numbers(NOW);
    store.enqueue(&mut [row(b"a"), row(b"b")], &first).unwrap();
    let ids = [MessageId(1), MessageId(2), MessageId(77)];
    let origin = |incarnation, sequence| Some(Origin { incarnation, sequence });
    let hand_over = |store: &Store, numbers: &Numbers| {
        let mut rows = store.departures(&ids).unwrap();
        store.hand_over(&mut rows, &[], numbers).unwrap();
        rows.into_iter().map(|departure| departure.row.number).collect::<Vec<_>>()
    };
    // What is sealed has a count of its own.
    first.leave(true);
    assert_eq!(hand_over(&store, &first), [origin(of_open(NOW), 1), origin(of_open(NOW), 2)]);
    drop(store);

    let (store, loaded) = open(&memory);
    assert!(loaded.outbox.iter().all(|(_, queued)| queued.number.is_some()));
    store.apply(&Changes { unnumbered: vec![MessageId(2)], ..Changes::default() }).unwrap();
    let later = Incarnation([10; 8]);
    let numbers = numbers(later);
    assert_eq!(hand_over(&store, &numbers), [origin(of_open(NOW), 1), origin(of_open(later), 1)]);
    store.enqueue(&mut [row(b"c")], &numbers).unwrap();
    assert_eq!(store.load().unwrap().outbox[2].1.number, origin(of_open(later), 2));
}

#[test]
fn the_fate_of_a_message_is_remembered_and_counted_once() {
    let memory = created();
    let (store, _) = open(&memory);
    enqueue(&store, &numbers(NOW), 3).unwrap();
    let failure = Failure::Refused(Refusal::TooLarge);
    let changes = Changes {
        custody: vec![(MessageId(1), 1), (MessageId(1), 2)],
        failed: vec![(MessageId(2), failure), (MessageId(1), failure)],
        ..Changes::default()
    };
    let counters = store.apply(&changes).unwrap();
    assert_eq!((counters.custody, counters.failed), (1, 1));
    let state = |id| store.message_state(MessageId(id)).unwrap();
    assert_eq!(state(1), Some(MessageState::Custody));
    assert_eq!(state(2), Some(MessageState::Failed(failure)));
    assert_eq!(state(3), Some(MessageState::Waiting));
    assert_eq!(state(4), None);
}

#[test]
fn what_is_sealed_is_written_with_its_ratchet_and_riders_share_the_fate_of_the_first() {
    let memory = created();
    let (store, _) = open(&memory);
    let numbers = numbers(NOW);
    let seal = Some(SealKeys { identity: [1; 32], pre_key: [2; 32], envelope: [3; 32] });
    let mut secret = [b"a", b"b", b"c", b"d"].map(|letter| OutboxRow { seal, ..row(letter) });
    store.enqueue(&mut secret, &numbers).unwrap();
    assert!(store.load().unwrap().outbox.iter().all(|(_, queued)| queued.number.is_none()));
    let [first, second, third, fourth] = [1, 2, 3, 4].map(MessageId);
    let mut rows = store.departures(&[first]).unwrap();
    let sealed = SealedRow { body: b"sealed".to_vec(), riders: vec![second, third] };
    rows[0].sealed = Some(sealed.clone());
    let pairs = [([9; 32], b"ratchet".to_vec())];
    store.hand_over(&mut rows, &pairs, &numbers).unwrap();
    drop(store);

    let (store, loaded) = open(&memory);
    assert_eq!((loaded.keyring, loaded.pairs), (b"keys".to_vec(), pairs.to_vec()));
    let rides: Vec<_> = loaded.outbox.iter().map(|(_, queued)| queued.rides_with).collect();
    assert_eq!(rides, [None, Some(first), Some(first), None]);
    store.apply(&Changes { unnumbered: vec![first], ..Changes::default() }).unwrap();
    let again = store.departures(&[first]).unwrap().remove(0);
    assert_eq!((again.row.number, again.sealed), (None, Some(sealed)), "refused, it leaves as it was");
    let counters = store.apply(&Changes { custody: vec![(first, 1)], ..Changes::default() }).unwrap();
    assert_eq!(counters.custody, 3);
    assert_eq!(store.message_state(third).unwrap(), Some(MessageState::Custody));
    assert_eq!(store.message_state(fourth).unwrap(), Some(MessageState::Waiting));
    assert_eq!(store.load().unwrap().outbox.len(), 1);
}

#[test]
fn a_message_is_kept_until_its_receipt_and_can_go_out_again() {
    let memory = created();
    let (store, _) = open(&memory);
    let seal = Some(SealKeys { identity: [1; 32], pre_key: [2; 32], envelope: [3; 32] });
    let mut secret = [b"a", b"b", b"c"].map(|letter| OutboxRow { seal, ..row(letter) });
    store.enqueue(&mut secret, &numbers(NOW)).unwrap();
    let [first, second, third] = [1, 2, 3].map(MessageId);
    let custody = vec![(first, 1), (second, 2), (third, 3)];
    store.apply(&Changes { custody, ..Changes::default() }).unwrap();
    let counts = |store: &Store| {
        let counts = store.counts().unwrap();
        (counts.waiting, counts.unconfirmed, counts.counters.custody)
    };
    assert_eq!(counts(&store), (0, 3, 3));
    let again = vec![(second, Queued { again: 1, ..Queued::from(&secret[1]) })];
    let delivered = vec![(first, None), (third, None)];
    store.apply(&Changes { delivered, read: vec![(third, None)], again, ..Changes::default() }).unwrap();
    let states = |store: &Store| [first, second, third].map(|id| store.message_state(id).unwrap().unwrap());
    assert_eq!(states(&store), [MessageState::Delivered, MessageState::Custody, MessageState::Read]);
    assert_eq!(counts(&store), (1, 0, 3));
    drop(store);

    let (store, loaded) = open(&memory);
    let (id, queued) = loaded.outbox[0];
    assert_eq!((id, queued.again, queued.name), (second, 1, secret[1].name()));
    // It neither counts as taken once more, nor fails after it was taken.
    store.apply(&Changes { custody: vec![(second, 4)], ..Changes::default() }).unwrap();
    assert_eq!(counts(&store), (0, 1, 3));
    let given_up = vec![(second, Queued::from(&secret[1]), Abandonment::TooOften)];
    store.apply(&Changes { abandoned: given_up, now_unix_ms: 5, ..Changes::default() }).unwrap();
    assert_eq!(states(&store)[1], MessageState::Abandoned(Abandonment::TooOften));
    assert_eq!(counts(&store), (0, 0, 3));
    let abandoned = |store: &Store| store.counts().unwrap().counters.abandoned;
    assert_eq!(abandoned(&store), 1);
    let to_be_known = NoticeRow { matter: Matter::Abandoned(BOB), count: 1, last_unix_ms: 5 };
    assert_eq!(store.notices().unwrap(), [(1, to_be_known)]);
    drop(store);

    // A receipt that comes after all is heeded, after another opening, too.
    let (store, mut loaded) = open(&memory);
    let name = secret[1].name().unwrap();
    let arrived = Ack { watermark: name.number, received: vec![] };
    let seen = vec![Seen { incarnation: name.incarnation(), arrived, read: 0 }];
    let news = loaded.kept.heed(&name.with, None, &Notes { seen, ..Notes::default() });
    assert_eq!(news.delivered, [(second, None)]);
    store.apply(&Changes { delivered: news.delivered, ..Changes::default() }).unwrap();
    assert_eq!((states(&store)[1], abandoned(&store)), (MessageState::Delivered, 0));
}

#[test]
fn what_has_its_number_leaves_without_a_write() {
    let medium = Medium::default();
    let store = fresh_on(&medium);
    let numbers = numbers(NOW);
    store.enqueue(&mut [row(b"a")], &numbers).unwrap();
    store.enqueue_notes(&[row(b"")]).unwrap();
    let rows = |id| store.departures(&[id]).unwrap();
    medium.fail(io::ErrorKind::StorageFull);
    store.hand_over(&mut rows(MessageId(1)), &[], &numbers).unwrap();
    assert!(store.hand_over(&mut rows(MessageId::FIRST_NOTES), &[], &numbers).is_err());
}

#[test]
fn notes_wait_behind_all_messages_and_are_none() {
    let memory = created();
    let (store, _) = open(&memory);
    let notes = OutboxRow { seal: None, letter: Vec::new(), ..row(b"") };
    let ids = [store.enqueue_notes(std::slice::from_ref(&notes)), store.enqueue_notes(&[notes])];
    let ids = ids.map(Result::unwrap);
    assert!(ids[0] < ids[1] && ids[0].is_notes());
    assert_eq!(enqueue(&store, &numbers(NOW), 1).unwrap(), MessageId(1));
    assert_eq!(store.counts().unwrap().waiting, 1);
    store.apply(&Changes { custody: vec![(ids[0], 1)], ..Changes::default() }).unwrap();
    assert_eq!(store.message_state(ids[0]).unwrap(), None);
    let waiting: Vec<_> = store.load().unwrap().outbox.iter().map(|(id, _)| *id).collect();
    assert_eq!(waiting, [MessageId(1), ids[1]]);
    assert_eq!(store.counts().unwrap().counters.custody, 0);
}

#[test]
fn only_the_last_thousand_fates_are_kept() {
    let memory = created();
    let (store, _) = open(&memory);
    enqueue(&store, &numbers(NOW), 1_005).unwrap();
    let custody = (1..=1_005).map(|n| (MessageId(n), n)).collect();
    store.apply(&Changes { custody, ..Changes::default() }).unwrap();
    assert_eq!(store.message_state(MessageId(5)).unwrap(), None);
    assert_eq!(store.message_state(MessageId(6)).unwrap(), Some(MessageState::Custody));
    assert_eq!(store.counts().unwrap().waiting, 0);
}

#[test]
fn handle_tables_are_cut_back_and_extended_in_place() {
    let memory = created();
    let (store, _) = open(&memory);
    let key = |n| AccountKey([n; 32]);
    let change = |keep, append: &[u8]| {
        let append = append.iter().copied().map(key).collect();
        let senders = Some(TableChange { keep, append });
        store.apply(&Changes { senders, ..Changes::default() }).unwrap();
    };
    change(0, &[1, 2, 3]);
    change(1, &[9]);
    assert_eq!(store.load().unwrap().senders, [key(1), key(9)]);
    assert_eq!(store.load().unwrap().mailboxes, []);
    let address = |token| MailboxAddress { mailbox: key(1), token: Token([token; 16]) };
    let mailboxes = Some(TableChange { keep: 0, append: vec![address(1), address(2)] });
    store.apply(&Changes { mailboxes, ..Changes::default() }).unwrap();
    assert_eq!(store.load().unwrap().mailboxes, [address(1), address(2)]);
}

#[test]
fn what_was_granted_and_revoked_is_known_until_another_secret_voids_it() {
    let memory = created();
    let (store, _) = open(&memory);
    let [ann, bob] = [TokenId::personal(1), TokenId::personal(2)];
    let anns = Grant::Personal { name: "ann".into(), holder: None };
    store.put_grant(ann, &anns).unwrap();
    store.put_grant(bob, &Grant::Revoked { told: None }).unwrap();
    let relay = StoreId([7; 8]);
    let told = vec![(ann, relay), (bob, relay), (TokenId::open(1), relay)];
    store.apply(&Changes { told, ..Changes::default() }).unwrap();
    drop(store);

    let (store, loaded) = open(&memory);
    let revoked = Grant::Revoked { told: Some(relay) };
    assert_eq!(loaded.grants, [(ann, anns), (bob, revoked)]);
    store.put_secret(&HomeRecord { secret: MailboxSecret([9; 32]), ..home() }).unwrap();
    let loaded = store.load().unwrap();
    assert_eq!((loaded.grants, loaded.home.secret), (vec![], MailboxSecret([9; 32])));
}

#[test]
fn a_contact_takes_with_it_what_it_is_reached_by() {
    let memory = created();
    let (store, _) = open(&memory);
    let access = AccessRow { token: Some(Token([5; 16])), ..AccessRow::default() };
    store.change_access(&BOB, |row| *row = access.clone()).unwrap();
    assert_eq!(store.load().unwrap().access, [(BOB, access)]);
    store.change_access(&BOB, |row| *row = AccessRow::default()).unwrap();
    assert_eq!(store.load().unwrap().access, []);
}

#[test]
fn released_messages_leave_no_number_to_be_given_again() {
    let memory = created();
    let (store, _) = open(&memory);
    let received = vec![arrival("a"), arrival("b"), arrival("c")];
    store.apply(&Changes { received, ..Changes::default() }).unwrap();
    store.release_inbox(InboxNumber(3)).unwrap();
    store.apply(&Changes { received: vec![arrival("d")], ..Changes::default() }).unwrap();
    assert_eq!(store.inbox(InboxNumber(0), 10).unwrap(), [(InboxNumber(4), arrival("d"))]);
}

#[test]
fn a_home_is_made_once_and_another_format_is_not_touched() {
    let memory = created();
    assert!(matches!(create(&(&memory).into()), Err(CreateError::Exists(_))));
    let (store, _) = open(&memory);
    let other = (FORMAT + 1).to_le_bytes();
    store.change("put_home", |write| write.meta()?.put_clear(META_FORMAT, &other)).unwrap();
    drop(store);
    let error = open_storage(&memory.into()).err();
    assert_eq!(error, Some(OpenError::UnknownFormat { found: FORMAT + 1, known: FORMAT }));
}

#[test]
fn a_folder_is_made_private_and_opened_by_one_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let storage: Storage = folder.path().join("deep/home").into();
    assert!(matches!(open_storage(&storage), Err(OpenError::NoHome(_))));
    create(&storage).unwrap();
    assert!(matches!(create(&storage), Err(CreateError::Exists(_))));
    let (store, _) = open_storage(&storage).unwrap();
    assert!(matches!(open_storage(&storage), Err(OpenError::InUse)));
    drop(store);
    open_storage(&storage).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = |path: &str| fs::metadata(folder.path().join(path)).unwrap().permissions().mode() & 0o777;
        let modes = ["deep/home", "deep/home/client.redb", "deep/home/client.key"].map(mode);
        assert_eq!(modes, [0o700, 0o600, 0o600]);
    }
}

#[test]
fn a_file_that_is_no_home_is_said_to_be_damaged_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(storage::FILE);
    fs::write(&path, "shopping list").unwrap();
    let error = open_storage(&folder.path().into()).err();
    assert!(matches!(error, Some(OpenError::Store(StoreError::Damaged(_)))), "{error:?}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "shopping list");
}

pub(super) fn open_on(medium: &Medium) -> Store {
    Store {
        db: Database::open(medium.clone(), 0).unwrap(),
        vault: Vault::new(&DataKey::new(&mut random()), random()),
        points: Points::default(),
        clock: None,
    }
}

/// A store that nothing has happened to.
pub(super) fn fresh_on(medium: &Medium) -> Store {
    let store = open_on(medium);
    opening::initialise(&store.db, &store.vault, &home(), b"keys").unwrap();
    store
}
