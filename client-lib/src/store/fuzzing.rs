//! The rows of a home's file, each on its own.

use serde::ser::SerializeTuple;
use serde::{Serialize, Serializer};
use thinpost_wire::ids::{AccountKey, AppId, Incarnation, ObjectId, Origin, Position, StoreId};
use thinpost_wire::parcel::ShortIncarnation;
use thinpost_wire::ticket::{InviteToken, SealKeys};
use thinpost_wire::token::{MailboxSecret, Token};

use super::key::{DataKey, HomeKey};
use super::records::{
    ACCESS, AccessRow, CLOCK, CONTACTS, COUNTERS, ContactRow, Counters, DONE, DoneRow, GRANTS, HOME,
    HomeRecord, INBOX, InboxRow, KEPT, KEYRING, KeptRow, MAILBOXES, NOTICES, OBJECT_BYTES, OBJECTS, OUTBOX,
    OutboxRow, PAIRS, RELAY, REQUESTS, RelayRecord, SEALED, SENDERS, SealedRow,
};
use super::vault::Vault;
use crate::grants::Grant;
use crate::message::{Failure, MessageId, MessageState, ReceivedContent};
use crate::notices::{Matter, NoticeRow};
use crate::objects::{ObjectAim, ObjectRow};
use crate::random::Random;
use crate::seal::{Keyring, rewrite_pair};

/// Bytes that are written without their length.
pub(super) struct AsItIs<'a>(pub(super) &'a [u8]);

impl Serialize for AsItIs<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut tuple = serializer.serialize_tuple(self.0.len())?;
        self.0.iter().try_for_each(|byte| tuple.serialize_element(byte))?;
        tuple.end()
    }
}

/// What opens a home's rows.
pub struct HomeRows {
    vault: Vault,
}

impl Default for HomeRows {
    fn default() -> Self {
        Self::new()
    }
}

/// How many kinds of records there are, counted from 0: the tables' rows, what there is one of, what lies in such rows in
/// a form of its own, and the key file.
pub const HOME_RECORDS: u8 = 23;

/// Those that are in a form of their own.
const PAIR: u8 = 19;
const KEYS: u8 = 20;
const KEY_FILE: u8 = 21;
/// And one that came later.
const CLOCK_ROW: u8 = 22;

impl HomeRows {
    /// Those of some home.
    pub fn new() -> Self {
        let data_key = DataKey::new(&mut Random::from_seed(1, "fuzzing", 0));
        Self { vault: Vault::new(&data_key, Random::from_seed(2, "fuzzing", 0)) }
    }

    /// Reads bytes as a record of this kind, sealed as one is, and as a row that was never sealed.
    ///
    /// # Panics
    /// When what was read is not read again from what it is written as.
    pub fn read(&self, kind: u8, bytes: &[u8]) {
        let _ = self.vault.open::<OutboxRow>("outbox", b"a key", bytes);
        let Some(once) = self.rewrite(kind, bytes) else { return };
        let twice = self.rewrite(kind, &once).expect("what was written is read");
        assert_eq!(once, twice, "a record of kind {kind}");
    }

    fn rewrite(&self, kind: u8, bytes: &[u8]) -> Option<Vec<u8>> {
        let vault = &self.vault;
        match kind {
            0 => CONTACTS.rewrite(vault, bytes),
            1 => OUTBOX.rewrite(vault, bytes),
            2 => KEPT.rewrite(vault, bytes),
            3 => DONE.rewrite(vault, bytes),
            4 => SEALED.rewrite(vault, bytes),
            5 => PAIRS.rewrite(vault, bytes),
            6 => INBOX.rewrite(vault, bytes),
            7 => MAILBOXES.rewrite(vault, bytes),
            8 => SENDERS.rewrite(vault, bytes),
            9 => GRANTS.rewrite(vault, bytes),
            10 => ACCESS.rewrite(vault, bytes),
            11 => REQUESTS.rewrite(vault, bytes),
            12 => NOTICES.rewrite(vault, bytes),
            13 => OBJECTS.rewrite(vault, bytes),
            14 => OBJECT_BYTES.rewrite(vault, bytes),
            15 => HOME.rewrite(vault, bytes),
            16 => KEYRING.rewrite(vault, bytes),
            17 => RELAY.rewrite(vault, bytes),
            18 => COUNTERS.rewrite(vault, bytes),
            PAIR => rewrite_pair(bytes),
            KEYS => Keyring::from_record(bytes).ok().map(|keys| keys.to_record()),
            KEY_FILE => {
                read_key_file(bytes);
                None
            }
            _ => CLOCK.rewrite(vault, bytes),
        }
    }
}

/// A passphrase would take 19 MiB and some tens of milliseconds, whatever the file says beside.
fn read_key_file(content: &[u8]) {
    for key in [None, Some(HomeKey::new([1; 32]))] {
        let _ = DataKey::from_file(Some(content), key.as_ref());
        if let Ok(read) = DataKey::from_checked(content, key.as_ref()) {
            let file = read.to_file(key.as_ref(), &mut Random::from_seed(3, "fuzzing", 0));
            let again = DataKey::from_file(Some(&file.expect("there is no passphrase")), key.as_ref());
            assert_eq!(again, Ok(read));
        }
    }
}

/// A record of each kind, and some more; `pairs` are two of that kind.
///
/// # Panics
/// When one cannot be written.
pub fn home_samples(pairs: [Vec<u8>; 2]) -> Vec<(u8, Vec<u8>)> {
    fn written(kind: u8, record: &impl Serialize) -> (u8, Vec<u8>) {
        (kind, postcard::to_stdvec(record).expect("a sample can be written"))
    }
    let account = AccountKey([1; 32]);
    let origin = Origin { incarnation: Incarnation([2; 8]), sequence: 300 };
    let seal = SealKeys { identity: [3; 32], pre_key: [4; 32], envelope: [5; 32] };
    let token = Token([6; 16]);
    let bare = OutboxRow {
        mailbox: account,
        token,
        enqueued_ms: 1_800_000_000_000,
        app_id: None,
        written: origin,
        number: None,
        seal: None,
        rides_with: None,
        again: 0,
        letter: b"\x00hello".to_vec(),
    };
    let full = OutboxRow {
        app_id: Some(AppId([7; 16])),
        number: Some(origin),
        seal: Some(seal),
        rides_with: Some(MessageId(4)),
        again: 2,
        ..bare.clone()
    };
    let secret = MailboxSecret([8; 32]);
    let invite = InviteToken { id: [1; 8], uses: 2, expires_unix_s: 3, mac: [4; 16] };
    let home = HomeRecord {
        account_seed: [1; 32],
        device_seed: [2; 32],
        relay: "tpr1".to_owned(),
        invite: Some(invite),
        secret,
    };
    let relay = RelayRecord {
        registered: true,
        secret,
        have: Some((StoreId([9; 8]), Position(70_000))),
        incarnations: vec![ShortIncarnation([1; 4]), ShortIncarnation([2; 4])],
        earlier_stores: vec![StoreId([8; 8])],
        ..RelayRecord::default()
    };
    let content = ReceivedContent::Text("hello".to_owned());
    let inbox = InboxRow {
        from: Some(account),
        sealed: true,
        name: full.name(),
        app_id: full.app_id,
        age_s: 4,
        received_unix_ms: 5,
        content,
    };
    let data = InboxRow { from: None, content: ReceivedContent::Data(vec![1, 2]), ..inbox.clone() };
    let held = Grant::Personal { name: "bob".to_owned(), holder: Some(account) };
    let access = AccessRow { token: Some(token), withholds_receipts: true, shut_out: false };
    let aim = ObjectAim::Put { lifetime_s: Some(3_600) };
    let contact = ContactRow { name: "bob".to_owned(), ticket: "tpc1".to_owned() };
    let failed = MessageState::Failed(Failure::Expired);
    let mut random = Random::from_seed(4, "fuzzing", 0);
    let mut samples = vec![
        written(0, &contact),
        written(1, &bare),
        written(1, &full),
        written(2, &KeptRow { row: full.clone(), left: 7 }),
        written(3, &DoneRow::new(&full, MessageState::Delivered, 7)),
        written(3, &DoneRow::new(&bare, failed, 7)),
        written(4, &SealedRow { body: vec![0x80; 50], riders: vec![MessageId(5)] }),
        written(5, &([1u8; 32], vec![2u8; 9])),
        written(6, &inbox),
        written(6, &data),
        written(7, &thinpost_wire::token::MailboxAddress { mailbox: account, token }),
        written(8, &account),
        written(9, &held),
        written(9, &Grant::Revoked { told: Some(StoreId([9; 8])) }),
        written(10, &(account, access)),
        written(11, &"tpc1"),
        written(12, &NoticeRow { matter: Matter::AskedAgain(account), count: 2, last_unix_ms: 3 }),
        written(13, &ObjectRow { id: ObjectId([1; 32]), size: 4_000, aim }),
        written(14, &vec![7u8; 20]),
        written(15, &home),
        written(16, &vec![7u8; 20]),
        written(17, &relay),
        written(18, &Counters { messages: 300, received: 2, ..Counters::default() }),
        (KEYS, Keyring::new([1; 32]).to_record()),
        // Home's and wall clock's time, and a skip.
        written(CLOCK_ROW, &(1_800_000_000_000_u64, 1_800_000_000_001_u64, [(5_u64, 60_000_u64)].as_slice())),
    ];
    samples.extend(pairs.map(|pair| (PAIR, pair)));
    for key in [None, Some(HomeKey::new([1; 32])), Some(HomeKey::from_passphrase("sesame"))] {
        let file =
            DataKey::new(&mut random).to_file(key.as_ref(), &mut random).expect("a sample can be made");
        samples.push((KEY_FILE, file[..file.len() - 8].to_vec()));
    }
    samples
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_and_whatever_there_is_one_of_is_read() {
        let records = include_str!("records.rs");
        let kinds = [": Rows<", ": Single<"].map(|kind| records.matches(kind).count());
        // A pair, a keyring and the key file are in a form of their own.
        assert_eq!(kinds.iter().sum::<usize>() + 3, usize::from(HOME_RECORDS));
    }
}
