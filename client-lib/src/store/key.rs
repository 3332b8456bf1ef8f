//! The key that an application hands over, and the small file that keeps the home's data key under it.
//!
//! All rows are encrypted under the data key, which never changes. A change of the application's key is
//! therefore a change of this file, and without this file nothing in the home can be read.

use std::fmt;

use argon2::{Algorithm, Argon2, Params, Version};
use chacha20poly1305::aead::AeadInOut;
use chacha20poly1305::{Key, KeyInit, Tag, XChaCha20Poly1305, XNonce};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use crate::error::{OpenError, StoreError};
use crate::random::Random;

/// What the file begins with. Another layout begins with something else.
const MAGIC: [u8; 4] = *b"tpk1";

/// Bytes at the end of the file that tell damage from a wrong key.
const CHECK_BYTES: usize = 8;

/// What wraps a data key is bound to this use of it, in case the application has others.
const WRAPPED: &[u8] = b"thinpost/1 data key";

/// The key of a home, as an application hands it over. It is wiped from memory when dropped, and never
/// printed.
#[derive(Clone)]
pub struct HomeKey(Secret);

#[derive(Clone)]
enum Secret {
    Key(Zeroizing<[u8; 32]>),
    Passphrase(Zeroizing<String>),
}

impl HomeKey {
    /// A key of full randomness, as the system's keystore keeps it for an application.
    pub fn new(key: [u8; 32]) -> Self {
        Self(Secret::Key(Zeroizing::new(key)))
    }

    /// What a person remembers. Each use of it takes 19 MiB of memory and some tens of milliseconds, which
    /// is what makes guessing dear; a passphrase that is easy to guess stays easy to guess.
    pub fn from_passphrase(passphrase: impl Into<String>) -> Self {
        Self(Secret::Passphrase(Zeroizing::new(passphrase.into())))
    }
}

impl fmt::Debug for HomeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Secret::Key(_) => "HomeKey(key)",
            Secret::Passphrase(_) => "HomeKey(passphrase)",
        })
    }
}

/// What a home's rows are encrypted under, whatever key the application hands over.
#[derive(PartialEq, Eq)]
pub(super) struct DataKey(Zeroizing<[u8; 32]>);

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataKey").finish_non_exhaustive()
    }
}

/// What the file holds.
#[derive(Serialize, Deserialize)]
enum Record {
    /// The application has handed over no key: this protects nothing.
    Bare([u8; 32]),
    Key(Wrapped),
    Passphrase {
        cost: Cost,
        salt: [u8; 16],
        wrapped: Wrapped,
    },
}

/// A data key, encrypted.
#[derive(Serialize, Deserialize)]
struct Wrapped {
    nonce: [u8; 24],
    key: [u8; 32],
    tag: [u8; 16],
}

/// What Argon2id takes to make a key of a passphrase.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Cost {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

impl Cost {
    /// What OWASP's password storage cheat sheet gives for two passes. More memory would be dearer to guess
    /// with, but our users' phones have little, and the home is opened whenever the application starts.
    const OURS: Self = Self { memory_kib: 19 << 10, passes: 2, lanes: 1 };

    /// What a file may ask for at most, so that a changed one cannot exhaust the device: 64 MiB, and about
    /// thirty times the work of ours.
    const MOST: Self = Self { memory_kib: 64 << 10, passes: 16, lanes: 4 };

    fn is_bearable(&self) -> bool {
        let Self { memory_kib, passes, lanes } = *self;
        memory_kib <= Self::MOST.memory_kib && passes <= Self::MOST.passes && lanes <= Self::MOST.lanes
    }

    fn derive(&self, passphrase: &str, salt: &[u8]) -> Result<Zeroizing<[u8; 32]>, OpenError> {
        let params = self.is_bearable().then(|| Params::new(self.memory_kib, self.passes, self.lanes, None));
        let Some(Ok(params)) = params else { return Err(damaged()) };
        let mut key = Zeroizing::new([0; 32]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(passphrase.as_bytes(), salt, &mut *key)
            .map_err(|_| damaged())?;
        Ok(key)
    }
}

/// Whether a file has no key any more: zeros are what is written over one that is to be removed.
pub(super) fn is_overwritten(file: &[u8]) -> bool {
    file.iter().all(|byte| *byte == 0)
}

impl DataKey {
    pub(super) fn new(random: &mut Random) -> Self {
        Self(Zeroizing::new(random.bytes()))
    }

    pub(super) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The file that gives this key to who has the application's.
    pub(super) fn to_file(
        &self,
        key: Option<&HomeKey>,
        random: &mut Random,
    ) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let mut record = match key.map(|key| &key.0) {
            None => Record::Bare(*self.0),
            Some(Secret::Key(key)) => Record::Key(self.wrap(key, random)),
            Some(Secret::Passphrase(passphrase)) => {
                let (cost, salt) = (Cost::OURS, random.bytes());
                let wrapped = self.wrap(&*cost.derive(passphrase, &salt)?, random);
                Record::Passphrase { cost, salt, wrapped }
            }
        };
        let mut file = Zeroizing::new([0; 256]);
        let body = postcard::to_slice(&record, &mut file[MAGIC.len()..]);
        let end = MAGIC.len() + body.expect("a record has less than 256 bytes").len();
        if let Record::Bare(key) = &mut record {
            key.zeroize();
        }
        file[..MAGIC.len()].copy_from_slice(&MAGIC);
        let check = check(&file[..end]);
        file[end..end + CHECK_BYTES].copy_from_slice(&check);
        Ok(Zeroizing::new(file[..end + CHECK_BYTES].to_vec()))
    }

    /// The key that a file gives to who has the application's.
    pub(super) fn from_file(file: Option<&[u8]>, key: Option<&HomeKey>) -> Result<Self, OpenError> {
        let file = file.filter(|file| !is_overwritten(file)).ok_or(OpenError::KeyGone)?;
        let (content, found) = file.split_last_chunk::<CHECK_BYTES>().ok_or_else(damaged)?;
        if check(content) != *found {
            return Err(damaged());
        }
        let record = content.strip_prefix(&MAGIC).ok_or_else(damaged)?;
        let record = postcard::from_bytes(record).map_err(|_| damaged())?;
        match (record, key.map(|key| &key.0)) {
            (Record::Bare(key), None) => Ok(Self(Zeroizing::new(key))),
            (Record::Bare(_), Some(_)) => Err(OpenError::HasNoKey),
            (Record::Key(_) | Record::Passphrase { .. }, None) => Err(OpenError::KeyNeeded),
            (Record::Key(wrapped), Some(Secret::Key(key))) => wrapped.open(key),
            (Record::Passphrase { cost, salt, wrapped }, Some(Secret::Passphrase(passphrase))) => {
                wrapped.open(&*cost.derive(passphrase, &salt)?)
            }
            (Record::Key(_), Some(Secret::Passphrase(_)))
            | (Record::Passphrase { .. }, Some(Secret::Key(_))) => Err(OpenError::WrongKey),
        }
    }

    /// Reads a file that ends with the check that is made here, as no search would find one; with a key, or without.
    #[cfg(feature = "fuzzing")]
    pub(super) fn from_checked(content: &[u8], key: Option<&HomeKey>) -> Result<Self, OpenError> {
        Self::from_file(Some(&[content, &check(content)].concat()), key)
    }

    fn wrap(&self, under: &[u8; 32], random: &mut Random) -> Wrapped {
        let (mut key, nonce) = (*self.0, random.bytes());
        let tag = XChaCha20Poly1305::new(&Key::from(*under))
            .encrypt_inout_detached(&XNonce::from(nonce), WRAPPED, key.as_mut_slice().into())
            .expect("32 bytes are not too many");
        Wrapped { nonce, key, tag: tag.into() }
    }
}

impl Wrapped {
    fn open(self, under: &[u8; 32]) -> Result<DataKey, OpenError> {
        let mut key = Zeroizing::new(self.key);
        XChaCha20Poly1305::new(&Key::from(*under))
            .decrypt_inout_detached(
                &XNonce::from(self.nonce),
                WRAPPED,
                key.as_mut_slice().into(),
                &Tag::from(self.tag),
            )
            .map_err(|_| OpenError::WrongKey)?;
        Ok(DataKey(key))
    }
}

fn check(content: &[u8]) -> [u8; CHECK_BYTES] {
    let mut check = [0; CHECK_BYTES];
    blake3::Hasher::new_derive_key("thinpost/1 key file").update(content).finalize_xof().fill(&mut check);
    check
}

fn damaged() -> OpenError {
    StoreError::Damaged("its key file cannot be read".into()).into()
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;

    use super::*;

    fn random() -> Random {
        Random::from_seed(1, "test", 0)
    }

    fn data_key() -> DataKey {
        DataKey(Zeroizing::new([7; 32]))
    }

    fn file(key: Option<&HomeKey>) -> Zeroizing<Vec<u8>> {
        data_key().to_file(key, &mut random()).unwrap()
    }

    fn keys() -> [Option<HomeKey>; 5] {
        let (key, words) = (HomeKey::new, |words: &str| HomeKey::from_passphrase(words));
        [None, Some(key([1; 32])), Some(key([2; 32])), Some(words("open sesame")), Some(words("Open sesame"))]
    }

    #[test]
    fn only_the_key_that_a_file_was_made_with_opens_it_and_others_are_told_why() {
        for (made, with) in keys().iter().enumerate() {
            let file = file(with.as_ref());
            for (tried, key) in keys().iter().enumerate() {
                let expected = match (made, tried) {
                    _ if made == tried => Ok(data_key()),
                    (0, _) => Err(OpenError::HasNoKey),
                    (_, 0) => Err(OpenError::KeyNeeded),
                    _ => Err(OpenError::WrongKey),
                };
                assert_eq!(DataKey::from_file(Some(&file), key.as_ref()), expected, "{with:?}, {key:?}");
            }
        }
    }

    #[test]
    fn a_file_is_damaged_whichever_of_its_bits_is_flipped_and_wherever_it_is_cut() {
        for key in [None, Some(HomeKey::new([1; 32])), Some(HomeKey::from_passphrase("sesame"))] {
            let file = file(key.as_ref());
            for bit in 0..file.len() * 8 {
                let mut changed = file.clone();
                changed[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(DataKey::from_file(Some(&changed), key.as_ref()), Err(damaged()), "bit {bit}");
            }
            for len in 1..file.len() {
                assert_eq!(DataKey::from_file(Some(&file[..len]), key.as_ref()), Err(damaged()), "{len}");
            }
        }
    }

    #[test]
    fn a_file_that_is_missing_empty_or_wiped_gives_no_key() {
        for file in [None, Some(&[][..]), Some(&[0; 45])] {
            assert_eq!(DataKey::from_file(file, None), Err(OpenError::KeyGone));
        }
    }

    #[test]
    fn a_file_that_asks_for_too_much_memory_or_time_is_not_obeyed() {
        let Cost { memory_kib, passes, lanes } = Cost::MOST;
        for cost in [
            Cost { memory_kib: memory_kib + 1, ..Cost::OURS },
            Cost { passes: passes + 1, ..Cost::OURS },
            Cost { lanes: lanes + 1, ..Cost::OURS },
            Cost { memory_kib: 0, ..Cost::OURS },
            Cost { passes: 0, ..Cost::OURS },
            Cost { lanes: 0, ..Cost::OURS },
            Cost { memory_kib: u32::MAX, passes: u32::MAX, lanes: u32::MAX },
        ] {
            assert_eq!(cost.derive("sesame", &[0; 16]), Err(damaged()), "{cost:?}");
        }
        assert!(Cost { memory_kib: 64, passes: 1, lanes: 1 }.derive("sesame", &[0; 16]).is_ok());
    }

    #[test]
    fn files_are_written_and_read_as_they_always_were() {
        let [bare, key, _, passphrase, _] = keys();
        for (key, golden) in [
            (
                bare,
                "74706b3100070707070707070707070707070707070707070707070707070707070707070762c89d9b231c8d\
                 7c",
            ),
            (
                key,
                "74706b310198a5ddd16072fb4cd859ec43f52de2389564085d951aef015b7c57342612ee76031191f3d2c581\
                 92eb7b72377b7739e2acc155ef169d08d51cb46f880454e2db5cff5dd436ed95962a0e0d9d55d2d2de",
            ),
            (
                passphrase,
                "74706b3102809801020198a5ddd16072fb4cd859ec43f52de2389564085d951aef01676406f3ff61bab9acb7\
                 98e6a1b31afd7521480af2d3578bd47dfa0cfd561bb14a31a1f0571b3fe1505dc2f8fc1033c39d043d0b6ef5\
                 534b6776bb3602ebb23cd47975081c975faa",
            ),
        ] {
            assert_eq!(HEXLOWER.encode(&file(key.as_ref())), golden);
            let golden = HEXLOWER.decode(golden.as_bytes()).unwrap();
            assert_eq!(DataKey::from_file(Some(&golden), key.as_ref()), Ok(data_key()));
        }
    }

    #[test]
    fn keys_are_not_printed() {
        let shown = format!("{:?}", keys());
        assert!(!shown.contains("sesame") && !shown.contains('1'), "{shown}");
    }
}
