//! Encryption of rows: no value, name or key of a person is in the home's file as it is.
//!
//! A row is bound to its table and its key, so that none can be put in the place of another. That somebody
//! who can write to the disk puts back an older row, or takes one away, does not show.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use chacha20poly1305::aead::AeadInOut;
use chacha20poly1305::{Key, KeyInit, Tag, XChaCha20Poly1305, XNonce};
use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use super::key::DataKey;
use crate::error::StoreError;
use crate::random::Random;

const NONCE_BYTES: usize = 24;
const TAG_BYTES: usize = 16;

/// A key of a row in the place of one that is a secret.
pub(super) type Hidden = [u8; 32];

/// Seals and opens the rows of one home.
pub(super) struct Vault {
    rows: XChaCha20Poly1305,
    names: Zeroizing<[u8; 32]>,
    /// At 24 bytes, random nonces do not repeat.
    nonces: Mutex<Random>,
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault").finish_non_exhaustive()
    }
}

impl Vault {
    pub(super) fn new(data_key: &DataKey, nonces: Random) -> Self {
        let derive = |of| Zeroizing::new(blake3::derive_key(of, data_key.bytes()));
        Self {
            rows: XChaCha20Poly1305::new(&Key::from(*derive("thinpost/1 home rows"))),
            names: derive("thinpost/1 home names"),
            nonces: Mutex::new(nonces),
        }
    }

    /// A record as the row of this table under this key: nonce, ciphertext, tag.
    pub(super) fn seal(&self, table: &str, key: &[u8], record: &impl Serialize) -> Vec<u8> {
        let nonce: [u8; NONCE_BYTES] = self.nonces.lock().unwrap_or_else(PoisonError::into_inner).bytes();
        let mut row = postcard::to_extend(record, nonce.to_vec())
            .expect("records hold nothing that postcard cannot write");
        let tag = self
            .rows
            .encrypt_inout_detached(
                &XNonce::from(nonce),
                &place(table, key),
                row[NONCE_BYTES..].as_mut().into(),
            )
            .expect("no record has gigabytes");
        row.extend_from_slice(&tag);
        row
    }

    /// The record of a row, if it was sealed for this table and key.
    pub(super) fn open<R: DeserializeOwned>(
        &self,
        table: &'static str,
        key: &[u8],
        row: &[u8],
    ) -> Result<R, StoreError> {
        let damaged = || StoreError::DamagedRow(table);
        let (nonce, rest) = row.split_first_chunk::<NONCE_BYTES>().ok_or_else(damaged)?;
        let (sealed, tag) = rest.split_last_chunk::<TAG_BYTES>().ok_or_else(damaged)?;
        let mut record = Zeroizing::new(sealed.to_vec());
        self.rows
            .decrypt_inout_detached(
                &XNonce::from(*nonce),
                &place(table, key),
                record.as_mut_slice().into(),
                &Tag::from(*tag),
            )
            .map_err(|_| damaged())?;
        postcard::from_bytes(&record).map_err(|_| damaged())
    }

    /// Stands for a name among the keys of a table: the same each time, and nothing to who has no key.
    pub(super) fn hide(&self, table: &str, name: &[u8]) -> Hidden {
        *blake3::keyed_hash(&self.names, &place(table, name)).as_bytes()
    }
}

/// Where a row stands. No table has a zero byte in its name.
fn place(table: &str, key: &[u8]) -> Vec<u8> {
    [table.as_bytes(), &[0], key].concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn vault(key: u8) -> Vault {
        let data_key = DataKey::new(&mut Random::from_seed(key.into(), "test", 0));
        Vault::new(&data_key, Random::from_seed(0, "nonces", key.into()))
    }

    #[test]
    fn a_record_opens_where_it_was_sealed_and_nowhere_else() {
        let (ours, other) = (vault(1), vault(2));
        let row = ours.seal("outbox", b"key", &"hello");
        assert_eq!(row.len(), NONCE_BYTES + TAG_BYTES + 1 + "hello".len());
        assert_eq!(ours.open("outbox", b"key", &row), Ok("hello".to_owned()));
        assert_eq!(ours.open::<String>("inbox", b"key", &row), Err(StoreError::DamagedRow("inbox")));
        assert_eq!(ours.open::<String>("outbox", b"kez", &row), Err(StoreError::DamagedRow("outbox")));
        assert_eq!(other.open::<String>("outbox", b"key", &row), Err(StoreError::DamagedRow("outbox")));
    }

    #[test]
    fn a_record_is_never_sealed_to_the_same_bytes_twice_and_a_name_is_always_hidden_alike() {
        let vault = vault(1);
        assert_ne!(vault.seal("t", b"", &1), vault.seal("t", b"", &1));
        assert_eq!(vault.hide("t", b"bob"), vault.hide("t", b"bob"));
        assert_ne!(vault.hide("t", b"bob"), vault.hide("u", b"bob"));
        assert_ne!(vault.hide("t", b"bob"), self::vault(2).hide("t", b"bob"));
    }

    proptest! {
        #[test]
        fn a_row_that_is_changed_or_cut_anywhere_does_not_open(
            record in prop::collection::vec(any::<u8>(), 0..80), bit in any::<prop::sample::Index>()
        ) {
            let vault = vault(1);
            let mut row = vault.seal("t", b"k", &record);
            prop_assert_eq!(&vault.open::<Vec<u8>>("t", b"k", &row)?, &record);
            let cut = &row[..bit.index(row.len())];
            prop_assert_eq!(vault.open::<Vec<u8>>("t", b"k", cut), Err(StoreError::DamagedRow("t")));
            let bit = bit.index(row.len() * 8);
            row[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(vault.open::<Vec<u8>>("t", b"k", &row), Err(StoreError::DamagedRow("t")));
        }
    }
}
