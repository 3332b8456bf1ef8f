//! What tests and the faults of the store are told with: small bounds, a few accounts and their devices.

use bytes::Bytes;
use thinpost_wire::ids::{AccountKey, DeviceKey, Incarnation, Origin};
use thinpost_wire::limits::BODY_BYTES_MAX;
use thinpost_wire::token::{MailboxSecret, Token, TokenId};

use super::{Append, DeviceNo, ObjectQuota, Quota, StoreConfig};

/// Who submits.
pub(crate) const ALICE: AccountKey = AccountKey([0xa; 32]);

/// Small bounds, so that tests reach them.
pub(crate) fn small() -> StoreConfig {
    StoreConfig {
        quota: Quota { entries_max: 5, bytes_max: 1_000 },
        requests: Quota { entries_max: 2, bytes_max: 300 },
        body_bytes_max: BODY_BYTES_MAX,
        revocations_max: 3,
        keys_max: 3,
        objects: ObjectQuota { objects_max: 3, bytes_max: 10_000, object_bytes_max: 9_000 },
        object_ranges_max: 4,
        lifetime_s_max: 100,
        bytes_max: 3_000,
        devices_max: 3,
        incarnations_max: 2,
        digests_kept: 4,
        handles_max: 4,
        sessions_max: 2,
        cache_bytes: 1 << 20,
    }
}

/// A device's login.
pub(crate) fn device_key(n: u8) -> DeviceKey {
    DeviceKey([n; 32])
}

/// What these accounts' tokens are made under.
pub(crate) fn secret_of(account: AccountKey) -> MailboxSecret {
    MailboxSecret(account.0)
}

/// A token of an account's.
pub(crate) fn token_of(account: AccountKey, id: TokenId) -> Token {
    Token::mint(&secret_of(account), id)
}

/// An envelope that every store takes whose mailbox has room.
pub(crate) fn append(device: DeviceNo, mailbox: AccountKey, sequence: u64, body: &[u8]) -> Append {
    Append {
        device,
        sender: Some(ALICE),
        origin: Origin { incarnation: Incarnation([1; 8]), sequence },
        mailbox,
        token: token_of(mailbox, TokenId::personal(1)),
        flags: 0,
        lifetime_s: 100,
        age_s: 0,
        collapse: None,
        body: Bytes::copy_from_slice(body),
        digest: thinpost_wire::ids::envelope_digest(Incarnation([7; 8]), &mailbox, body),
        repeat_only: false,
    }
}

/// The same with room for objects.
pub(crate) fn roomy() -> StoreConfig {
    StoreConfig { bytes_max: 15_000, ..small() }
}
