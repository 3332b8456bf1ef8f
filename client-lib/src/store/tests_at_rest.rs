//! What the medium holds tells nobody anything, opens with the key alone, and is gone when it is wiped.

use std::fs;
use std::path::Path;
use std::time::Instant;

use redb::{Builder, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition};
use thinpost_carrier::Identity;
use thinpost_wire::ids::RelayKey;
use thinpost_wire::text::ModelSet;
use thinpost_wire::ticket::{ContactTicket, RelayTicket, SealKeys};
use thinpost_wire::token::Token;

use super::key::HomeKey;
use super::records::SealedRow;
use super::storage::{KEY_FILE, KEY_FILE_NEW, MemoryStorage, Storage};
use super::tests::{BOB, NOW, arrival, home, numbers, open, random, row};
use super::*;
use crate::error::{CreateError, OpenError, SetKeyError, WipeError};

const SECRET: &str = "meet me at the old mill";
const IDENTITY: [u8; 32] = *b"an identity key that is no text!";
const OTHERS_TOKEN: [u8; 16] = *b"token of theirs!";
const KEYRING_BYTES: &[u8] = b"a keyring that nobody may see";

fn key(n: u8) -> HomeKey {
    HomeKey::new([n; 32])
}

fn create(storage: &Storage, key: Option<&HomeKey>) {
    Store::create(storage, key, &home(), KEYRING_BYTES, random()).unwrap();
}

fn reopen(storage: &Storage, key: Option<&HomeKey>) -> Result<(), OpenError> {
    Store::open(storage, key, random()).map(drop)
}

pub(super) fn carol() -> Contact {
    let owner = Identity::from_seed([4; 32]);
    let seal = SealKeys { identity: [5; 32], pre_key: [6; 32], envelope: [8; 32] };
    let relays = vec![RelayTicket { key: RelayKey([9; 32]), addresses: vec![([192, 0, 2, 1], 7).into()] }];
    let signature = owner.sign(&seal.signed_bytes());
    let token = Token([3; 16]);
    let ticket = ContactTicket {
        account: AccountKey(owner.public()),
        seal,
        signature,
        token,
        relays,
        models: ModelSet::EMPTY,
    };
    Contact { name: "carol of the mill".into(), ticket }
}

/// Something in most tables.
pub(super) fn fill(store: &Store) {
    let numbers = numbers(NOW);
    let letters = [SECRET, SECRET, SECRET].map(|text| row(text.as_bytes()));
    store.enqueue(&mut letters.clone(), &numbers).unwrap();
    let seal = Some(carol().ticket.seal);
    let id = store.enqueue(&mut letters.map(|letter| OutboxRow { seal, ..letter }), &numbers).unwrap();
    let mut departures = store.departures(&[id]).unwrap();
    departures[0].sealed = Some(SealedRow { body: SECRET.into(), riders: vec![MessageId(id.0 + 1)] });
    store.hand_over(&mut departures, &[(IDENTITY, SECRET.into())], &numbers).unwrap();
    let senders = [BOB, carol().ticket.account];
    let mailboxes = senders.map(|mailbox| MailboxAddress { mailbox, token: Token(OTHERS_TOKEN) });
    let changes = Changes {
        received: vec![arrival(SECRET), arrival(SECRET)],
        custody: vec![(MessageId(1), 1), (MessageId(2), 2), (MessageId(6), 3)],
        mailboxes: Some(TableChange { keep: 0, append: mailboxes.to_vec() }),
        senders: Some(TableChange { keep: 0, append: senders.to_vec() }),
        ..Changes::default()
    };
    store.apply(&changes).unwrap();
    let access = AccessRow { token: Some(Token(OTHERS_TOKEN)), ..AccessRow::default() };
    store.put_contact(&carol(), &access, None).unwrap();
    let grant = Grant::Personal { name: SECRET.into(), holder: Some(BOB) };
    store.put_grant(TokenId::personal(1), &grant).unwrap();
}

/// What may be read nowhere.
fn secrets() -> Vec<Vec<u8>> {
    let carol = carol();
    let ticket = carol.ticket.to_string();
    vec![
        SECRET.into(),
        carol.name.into(),
        ticket.clone().into(),
        // However a ticket is cut into rows and pages, a part of it is in one piece.
        ticket.as_bytes()[ticket.len() / 2..][..16].to_vec(),
        carol.ticket.account.0.to_vec(),
        carol.ticket.seal.identity.to_vec(),
        BOB.0.to_vec(),
        IDENTITY.to_vec(),
        OTHERS_TOKEN.to_vec(),
        KEYRING_BYTES.to_vec(),
        home().account_seed.to_vec(),
        home().device_seed.to_vec(),
        home().relay.into(),
    ]
}

fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle)
}

#[test]
fn neither_texts_nor_names_nor_keys_are_on_the_medium() {
    let folder = tempfile::tempdir().unwrap();
    for (storage, key) in
        [(folder.path().join("home").into(), None), (MemoryStorage::new().into(), Some(key(1)))]
    {
        create(&storage, key.as_ref());
        let (store, _) = Store::open(&storage, key.as_ref(), random()).unwrap();
        fill(&store);
        drop(store);
        let (_, loaded) = Store::open(&storage, key.as_ref(), random()).unwrap();
        assert_eq!(loaded.contacts, [carol()]);
        assert_eq!(loaded.pairs, [(IDENTITY, SECRET.into())]);
        assert_eq!(loaded.senders, [BOB, carol().ticket.account]);
        let bytes = match &storage {
            Storage::Memory(memory) => memory.medium().content(),
            Storage::Folder(folder) => fs::read(folder.join(storage::FILE)).unwrap(),
        };
        assert!(contains(&bytes, b"outbox"), "it is looked for in the right place");
        for secret in secrets() {
            assert!(!contains(&bytes, &secret), "{:?}", String::from_utf8_lossy(&secret));
        }
    }
}

#[test]
fn a_home_opens_with_its_key_only_and_a_wrong_one_changes_nothing() {
    let memory = MemoryStorage::new();
    let storage = (&memory).into();
    create(&storage, Some(&key(1)));
    let before = memory.key_file().clone();
    assert_eq!(reopen(&storage, None), Err(OpenError::KeyNeeded));
    let words = HomeKey::from_passphrase("sesame");
    for wrong in [&key(2), &words] {
        assert_eq!(reopen(&storage, Some(wrong)), Err(OpenError::WrongKey));
        let refused = Store::set_key(&storage, Some(wrong), None, random());
        assert_eq!(refused, Err(SetKeyError::Open(OpenError::WrongKey)));
    }
    assert_eq!(*memory.key_file(), before);
    assert_eq!(reopen(&storage, Some(&key(1))), Ok(()));
}

#[test]
fn a_key_is_set_changed_and_taken_away_and_what_is_in_the_home_stays() {
    let folder = tempfile::tempdir().unwrap();
    for storage in [folder.path().into(), Storage::from(MemoryStorage::new())] {
        create(&storage, None);
        fill(&Store::open(&storage, None, random()).unwrap().0);
        let keys = [None, Some(key(1)), Some(HomeKey::from_passphrase("sesame")), Some(key(2)), None];
        for step in keys.windows(2) {
            let [old, new] = step else { unreachable!("windows of two") };
            Store::set_key(&storage, old.as_ref(), new.as_ref(), random()).unwrap();
            let refused = reopen(&storage, old.as_ref());
            let is_expected = match (old, new) {
                (None, _) => refused == Err(OpenError::KeyNeeded),
                (Some(_), None) => refused == Err(OpenError::HasNoKey),
                _ => refused == Err(OpenError::WrongKey),
            };
            assert!(is_expected, "{old:?} to {new:?}: {refused:?}");
            let (_, loaded) = Store::open(&storage, new.as_ref(), random()).unwrap();
            assert_eq!((loaded.contacts, loaded.outbox.len()), (vec![carol()], 3));
        }
    }
}

#[test]
fn a_change_of_the_key_that_a_crash_interrupts_leaves_the_old_key_or_the_new() {
    let folder = tempfile::tempdir().unwrap();
    let storage: Storage = folder.path().into();
    let (path, unfinished) = (folder.path().join(KEY_FILE), folder.path().join(KEY_FILE_NEW));
    create(&storage, Some(&key(1)));
    let old = fs::read(&path).unwrap();
    Store::set_key(&storage, Some(&key(1)), None, random()).unwrap();
    assert!(!unfinished.exists());
    let new = fs::read(&path).unwrap();
    // The new file is begun, is complete, has taken the place of the old.
    for len in 0..=new.len() {
        fs::write(&path, &old).unwrap();
        fs::write(&unfinished, &new[..len]).unwrap();
        assert_eq!(reopen(&storage, Some(&key(1))), Ok(()));
        assert!(!unfinished.exists(), "what may hold the data key in clear does not stay");
    }
    fs::write(&path, &new).unwrap();
    assert_eq!(reopen(&storage, None), Ok(()));
    // What is left of an earlier change is in the way of no later one.
    fs::write(&unfinished, "leftovers").unwrap();
    Store::set_key(&storage, None, Some(&key(2)), random()).unwrap();
    assert_eq!(reopen(&storage, Some(&key(2))), Ok(()));
}

#[test]
fn an_open_home_is_neither_wiped_nor_put_under_another_key() {
    let folder = tempfile::tempdir().unwrap();
    let storage: Storage = folder.path().into();
    create(&storage, None);
    let (store, _) = Store::open(&storage, None, random()).unwrap();
    let refused = Store::set_key(&storage, None, Some(&key(1)), random());
    assert_eq!(refused, Err(SetKeyError::Open(OpenError::InUse)));
    assert_eq!(Store::wipe(&storage), Err(WipeError::InUse));
    drop(store);
    assert_eq!(reopen(&storage, None), Ok(()));
}

#[test]
fn a_wiped_home_is_gone_and_half_wiped_it_says_so_and_can_be_wiped_again() {
    let folder = tempfile::tempdir().unwrap();
    let storage: Storage = folder.path().into();
    let files = || {
        let names = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
        names.collect::<Vec<_>>()
    };
    assert!(matches!(Store::wipe(&storage), Err(WipeError::NoHome(_))));
    let path = folder.path().join(KEY_FILE);
    let steps: [&dyn Fn(); 3] =
        [&|| {}, &|| fs::write(&path, vec![0; fs::read(&path).unwrap().len()]).unwrap(), &|| {
            fs::remove_file(&path).unwrap()
        }];
    for (done, step) in steps.iter().enumerate() {
        create(&storage, Some(&key(1)));
        step();
        let opened = reopen(&storage, Some(&key(1)));
        assert_eq!(opened, if done == 0 { Ok(()) } else { Err(OpenError::KeyGone) });
        let refused = Store::set_key(&storage, None, None, random());
        assert!(matches!(refused, Err(SetKeyError::Open(_))), "{refused:?}");
        Store::wipe(&storage).unwrap();
        assert!(files().is_empty(), "{:?}", files());
        assert!(matches!(reopen(&storage, Some(&key(1))), Err(OpenError::NoHome(_))));
    }
    let memory = Storage::from(MemoryStorage::new());
    create(&memory, None);
    Store::wipe(&memory).unwrap();
    assert!(matches!(reopen(&memory, None), Err(OpenError::NoHome(_))));
    assert!(matches!(Store::wipe(&memory), Err(WipeError::NoHome(_))));
}

#[test]
fn a_home_that_cannot_be_opened_is_wiped_as_well() {
    let folder = tempfile::tempdir().unwrap();
    let storage: Storage = folder.path().into();
    create(&storage, None);
    fs::write(folder.path().join(storage::FILE), "scrambled").unwrap();
    Store::wipe(&storage).unwrap();
    assert!(!folder.path().join(KEY_FILE).exists());
}

#[test]
fn a_home_with_the_key_file_of_another_does_not_open() {
    let [ours, other] = [MemoryStorage::new(), MemoryStorage::new()];
    create(&(&ours).into(), None);
    let random = crate::random::Random::from_seed(2, "test", 0);
    Store::create(&(&other).into(), None, &home(), KEYRING_BYTES, random).unwrap();
    Storage::from(&ours).replace_key_file(other.key_file().as_ref().unwrap()).unwrap();
    let opened = reopen(&(&ours).into(), None);
    assert_eq!(opened, Err(OpenError::Store(StoreError::DamagedRow("meta"))));
}

#[test]
fn what_is_left_of_a_home_that_was_never_finished_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let storage: Storage = folder.path().into();
    fs::write(folder.path().join(KEY_FILE), "left behind").unwrap();
    fs::write(folder.path().join(storage::FILE_NEW), "left behind").unwrap();
    create(&storage, Some(&key(1)));
    assert_eq!(reopen(&storage, Some(&key(1))), Ok(()));
}

#[test]
fn no_home_is_made_over_the_key_of_one_whose_file_is_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let storage: Storage = folder.path().into();
    create(&storage, None);
    let [path, elsewhere] = [storage::FILE, "elsewhere"].map(|name| folder.path().join(name));
    fs::rename(&path, &elsewhere).unwrap();
    let make = || Store::create(&storage, None, &home(), KEYRING_BYTES, random());
    assert_eq!(make(), Err(CreateError::KeyKept(folder.path().to_owned())));
    assert_eq!(reopen(&storage, None), Err(OpenError::FileGone(folder.path().to_owned())));
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("nowhere", &path).unwrap();
        assert_eq!(make(), Err(CreateError::Exists(folder.path().to_owned())));
        assert_eq!(reopen(&storage, None), Err(OpenError::FileGone(folder.path().to_owned())));
        fs::remove_file(&path).unwrap();
    }
    fs::rename(&elsewhere, &path).unwrap();
    assert_eq!(reopen(&storage, None), Ok(()));
    fs::remove_file(&path).unwrap();
    Store::wipe(&storage).unwrap();
    assert!(!folder.path().join(KEY_FILE).exists(), "what is left is wiped");
    assert!(matches!(Store::wipe(&storage), Err(WipeError::NoHome(_))));
}

#[test]
fn a_home_that_was_cut_short_is_not_changed_by_an_attempt_to_open_it() {
    let folder = tempfile::tempdir().unwrap();
    let storage: Storage = folder.path().into();
    create(&storage, None);
    let path = folder.path().join(storage::FILE);
    let whole = fs::read(&path).unwrap();
    for cut in [0, 1, 4_096, 8_192, whole.len() / 2] {
        fs::write(&path, &whole[..cut]).unwrap();
        let opened = reopen(&storage, None);
        assert!(matches!(opened, Err(OpenError::Store(_))), "{cut} bytes: {opened:?}");
        assert!(fs::read(&path).unwrap() == whole[..cut], "{cut} bytes");
    }
    fs::write(&path, &whole).unwrap();
    assert_eq!(reopen(&storage, None), Ok(()));
}

#[cfg(unix)]
#[test]
fn a_key_that_others_could_read_is_closed_to_them() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let storage: Storage = folder.path().into();
    let path = folder.path().join(KEY_FILE);
    create(&storage, None);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    assert_eq!(reopen(&storage, None), Ok(()));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
}

/// Reads everything that a client reads.
fn read_all(store: &Store) -> Result<(), StoreError> {
    let loaded = store.load()?;
    let ids: Vec<_> = loaded.outbox.iter().map(|(id, _)| *id).collect();
    store.departures(&ids)?;
    store.message_state(MessageId(1))?;
    store.message_state(MessageId(2))?;
    store.inbox(InboxNumber(0), 10).map(drop)
}

/// A disk that fails may change any byte, and redb panics over some of them.
#[test]
fn pages_that_do_not_fit_together_are_an_error_at_the_latest_when_they_are_used() {
    let whole = MemoryStorage::new();
    create(&(&whole).into(), None);
    let (store, _) = Store::open(&(&whole).into(), None, random()).unwrap();
    for n in 0..40 {
        let received = (0..5).map(|_| arrival(&"x".repeat(100 * n))).collect();
        store.apply(&Changes { received, ..Changes::default() }).unwrap();
    }
    drop(store);
    let size = whole.medium().size();
    let mut damaged = 0;
    for (first, stride) in (0..40).map(|n| (n * size / 40, [37, 4_096, 4_099, 511][n % 4])) {
        let storage = whole.fork();
        storage.medium().damage(|file| {
            file[first..].iter_mut().step_by(stride).take(1_000).for_each(|byte| *byte ^= 0x55)
        });
        let used = Store::open(&(&storage).into(), None, random()).map_err(|error| match error {
            OpenError::Store(error) => error,
            other => panic!("{other}"),
        });
        let used = used.and_then(|(store, _)| {
            store.inbox(InboxNumber(0), usize::MAX)?;
            store.apply(&Changes { received: vec![arrival("y")], ..Changes::default() }).map(drop)
        });
        damaged += usize::from(used.is_err());
    }
    assert!(damaged >= 10, "{damaged}");
}

/// Two rows of a table, as the medium holds them.
fn two_rows<K: redb::Key + 'static>(
    store: &Store,
    table: TableDefinition<'static, K, &'static [u8]>,
    keep: impl for<'a> Fn(K::SelfType<'a>) -> bool,
) -> Vec<(Vec<u8>, Vec<u8>)> {
    let read = store.db.begin_read().unwrap();
    let table = read.open_table(table).unwrap();
    let rows = table.iter().unwrap().map(Result::unwrap).filter(|(key, _)| keep(key.value()));
    rows.map(|(key, row)| (K::as_bytes(&key.value()).as_ref().to_vec(), row.value().to_vec()))
        .take(2)
        .collect()
}

fn overwrite<K: redb::Key + 'static>(
    store: &Store,
    table: TableDefinition<'static, K, &'static [u8]>,
    key: &[u8],
    row: &[u8],
) {
    let write = store.db.begin_write().unwrap();
    write.open_table(table).unwrap().insert(K::from_bytes(key), row).unwrap();
    write.commit().unwrap();
}

/// Puts rows of a table in each other's place, and changes one bit of a row after the other.
fn tamper<K: redb::Key + 'static>(
    store: &Store,
    name: &'static str,
    foreign: Option<&[u8]>,
    keep: impl for<'a> Fn(K::SelfType<'a>) -> bool,
) -> Vec<u8> {
    let table = TableDefinition::<K, &[u8]>::new(name);
    let rows = two_rows(store, table, keep);
    let damaged = Err(StoreError::DamagedRow(name));
    let (key, row) = &rows[0];
    let others = rows.get(1).map(|(_, row)| row.as_slice()).into_iter().chain(foreign).chain([&[][..]]);
    for other in others {
        overwrite(store, table, key, other);
        assert_eq!(read_all(store), damaged, "a row of {name} in another's place");
    }
    // A few bits of each byte's kind: nonce, record, tag. All of them are for the vault's own tests.
    for byte in [0, 23, 24, row.len() / 2, row.len() - 17, row.len() - 16, row.len() - 1] {
        let mut changed = row.clone();
        changed[byte] ^= 0x10;
        overwrite(store, table, key, &changed);
        assert_eq!(read_all(store), damaged, "byte {byte} of a row of {name}");
    }
    overwrite(store, table, key, row);
    assert_eq!(read_all(store), Ok(()));
    row.clone()
}

#[test]
fn a_row_that_was_changed_or_put_in_the_place_of_another_is_an_error_that_names_the_table() {
    let memory = MemoryStorage::new();
    create(&(&memory).into(), None);
    let (store, _) = open(&memory);
    fill(&store);
    let any_number = |_: u64| true;
    let outbox = tamper::<u64>(&store, "outbox", None, any_number);
    let foreign = Some(outbox.as_slice());
    tamper::<u64>(&store, "inbox", foreign, any_number);
    tamper::<u64>(&store, "done", foreign, any_number);
    tamper::<u64>(&store, "sealed", foreign, any_number);
    tamper::<u16>(&store, "mailboxes", foreign, |_| true);
    tamper::<u16>(&store, "senders", foreign, |_| true);
    tamper::<[u8; 32]>(&store, "contacts", foreign, |_| true);
    tamper::<[u8; 32]>(&store, "pairs", foreign, |_| true);
    for single in ["home", "keyring", "relay", "counters"] {
        tamper::<&str>(&store, "meta", foreign, |key| key == single);
    }
}

/// Prints what encryption takes, beside the same records in a file that has none. `--release` for figures:
/// `cargo test --release -p thinpost-client --lib -- --ignored --nocapture what_encryption_takes`
#[test]
#[ignore = "it measures"]
fn what_encryption_takes() {
    const MESSAGES: usize = 1_000;
    const PLAIN: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("outbox");
    let text = [b'x'; 45];
    let folder = tempfile::tempdir().unwrap();
    let timed = |what: &mut dyn FnMut()| {
        let began = Instant::now();
        what();
        began.elapsed().as_secs_f64() * 1_000.0
    };
    let size = |path: &Path| fs::metadata(path).unwrap().len() / 1_000;

    let storage: Storage = folder.path().join("home").into();
    create(&storage, None);
    let (store, _) = Store::open(&storage, None, random()).unwrap();
    let mut rows = vec![row(&text); MESSAGES];
    let (mut written, mut read) = (0.0, 0.0);
    for _ in 0..10 {
        written += timed(&mut || assert!(store.enqueue(&mut rows, &numbers(NOW)).is_ok())) / 10.0;
    }
    for _ in 0..10 {
        read += timed(&mut || drop(store.load().unwrap())) / 100.0;
    }
    let used = |definition| store.db.begin_read().unwrap().open_table::<u64, &[u8]>(definition).unwrap();
    let sealed_bytes = used(PLAIN).stats().unwrap().stored_bytes() / (10 * MESSAGES as u64);
    drop(store);
    let sealed_file = size(&folder.path().join("home").join(storage::FILE));
    println!("sealed: {written:.1} ms to write {MESSAGES}, {read:.1} ms to read {MESSAGES}");
    println!("sealed: {sealed_bytes} bytes a row, file of {sealed_file} kB with {}", 10 * MESSAGES);

    let path = folder.path().join("plain.redb");
    let db = Builder::new().create(&path).unwrap();
    let (mut written, mut read) = (0.0, 0.0);
    for batch in 0..10 {
        written += timed(&mut || {
            let mut write = db.begin_write().unwrap();
            write.set_two_phase_commit(true);
            write.set_quick_repair(true);
            {
                let mut table = write.open_table(PLAIN).unwrap();
                for (id, row) in (batch * MESSAGES as u64..).zip(&rows) {
                    table.insert(id, postcard::to_stdvec(row).unwrap().as_slice()).unwrap();
                }
            }
            write.commit().unwrap();
        }) / 10.0;
    }
    for _ in 0..10 {
        read += timed(&mut || {
            let table = db.begin_read().unwrap().open_table(PLAIN).unwrap();
            for row in table.iter().unwrap() {
                postcard::from_bytes::<OutboxRow>(row.unwrap().1.value()).unwrap();
            }
        }) / 100.0;
    }
    let table = db.begin_read().unwrap().open_table(PLAIN).unwrap();
    let plain_bytes = table.stats().unwrap().stored_bytes() / (10 * MESSAGES as u64);
    drop((table, db));
    println!("plain:  {written:.1} ms to write {MESSAGES}, {read:.1} ms to read {MESSAGES}");
    println!("plain:  {plain_bytes} bytes a row, file of {} kB with {}", size(&path), 10 * MESSAGES);

    let words = HomeKey::from_passphrase("open sesame");
    Store::set_key(&storage, None, Some(&words), random()).unwrap();
    let with_passphrase = timed(&mut || reopen(&storage, Some(&words)).unwrap());
    Store::set_key(&storage, Some(&words), Some(&key(1)), random()).unwrap();
    let with_key = timed(&mut || reopen(&storage, Some(&key(1))).unwrap());
    println!("to open it: {with_key:.1} ms with a key, {with_passphrase:.1} ms with a passphrase");
}
