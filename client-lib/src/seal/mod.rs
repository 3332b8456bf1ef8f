//! End-to-end encryption between two devices, by Olm. `docs/decisions/0007-end-to-end.md` says why so, and
//! `PROTOCOL.md`, section "Seals", what it looks like in an envelope.
//!
//! What is here changes in memory only: whoever seals or opens writes [`Seals::take_changed`] in the
//! transaction that makes the result durable, or lets the whole go.

mod bare;
mod envelope;

mod keyring;
mod pair;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde::de::DeserializeOwned;
use thinpost_wire::codec::{self, DictionarySet};
use thinpost_wire::ids::OneTimeKey;
use thinpost_wire::letter::{SEALED, SEALED_FIRST};
use thinpost_wire::limits::BODY_BYTES_MAX;
use thinpost_wire::parcel::ShortIncarnation;
use thinpost_wire::ticket::SealKeys;
use vodozemac::olm::OlmMessage;

pub(crate) use self::keyring::Keyring;
use self::pair::{NotOpened, Pair};
use crate::error::StoreError;

/// What is sealed together at most, unless it is one letter: 59 blocks less the byte of padding that there
/// always is. With 63 bytes of seal and those of a frame, an item of the link holds it.
const CONTENT_BYTES: usize = 59 * 16 - 1;

/// What a seal takes more until the first answer, rounded up to blocks, with a one-time key.
const FIRST_OVERHEAD_BYTES: usize = 10 * 16;

/// Another device's identity key.
pub(crate) type Identity = [u8; 32];

/// The keys of this device, and what it shares with others.
pub(crate) struct Seals {
    keyring: Keyring,
    pairs: BTreeMap<Identity, Pair>,
    changed: BTreeSet<Identity>,
    /// Whether the keyring is another than what is written.
    keyring_changed: bool,
}

/// Why nothing can be sealed for somebody, ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the contact's keys cannot be used")]
pub(crate) struct BadKeys;

/// Why a sealed body gives no parcel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OpenSealError {
    /// It was opened before, or came so late that its key is gone.
    #[error("it was opened before, or is too late")]
    Repeat,
    /// It is for another device or session, was changed on the way, or is none of this version.
    #[error("no key opens it")]
    Foreign,
    /// It opened, and is not coded as it should be.
    #[error("its content cannot be decoded")]
    Content,
}

impl Seals {
    pub(crate) fn new(keyring: Keyring, pairs: &[(Identity, Vec<u8>)]) -> Result<Self, StoreError> {
        let pairs = pairs.iter().map(|(with, bytes)| Ok((*with, Pair::from_record(bytes)?)));
        let pairs = pairs.collect::<Result<_, StoreError>>()?;
        Ok(Self { keyring, pairs, changed: BTreeSet::new(), keyring_changed: false })
    }

    /// The parcel as it is sealed.
    pub(crate) fn encode(parcel: &[u8]) -> Vec<u8> {
        let mut content = Vec::new();
        codec::encode_best(parcel, DictionarySet::compiled_in(), &mut content);
        content
    }

    /// How much content fits a seal that fits a datagram: filled up to a block of the cipher.
    pub(crate) fn content_bytes_max(&self, them: &SealKeys) -> usize {
        let answered = self.pairs.get(&them.identity).is_some_and(Pair::is_answered);
        if answered { CONTENT_BYTES } else { CONTENT_BYTES - FIRST_OVERHEAD_BYTES }
    }

    /// The body of an envelope with this content, [encoded](Seals::encode), that only they can open.
    pub(crate) fn seal(&mut self, them: &SealKeys, content: &[u8]) -> Result<Vec<u8>, BadKeys> {
        let pair = self.pairs.entry(them.identity).or_default();
        if pair.session().is_none() {
            let claimed = pair.take_claimed().map_or(them.pre_key, |key| key.0);
            let session = self.keyring.session_with(&them.identity, &claimed);
            // A relay may have given what is no key.
            let session = session.or_else(|| self.keyring.session_with(&them.identity, &them.pre_key));
            pair.add(session.ok_or(BadKeys)?, true);
        }
        let session = pair.session().ok_or(BadKeys)?;
        self.changed.insert(them.identity);
        match session.encrypt(content).map_err(|_| BadKeys)? {
            OlmMessage::Normal(message) => Ok([&[SEALED][..], &bare::bare(&message)].concat()),
            OlmMessage::PreKey(message) => {
                let first = bare::encode(&message, &them.pre_key);
                let sealed = envelope::seal(&them.envelope, &first).ok_or(BadKeys)?;
                Ok([&[SEALED_FIRST][..], &sealed].concat())
            }
        }
    }

    /// Opens a body: whose it is, and the parcel.
    pub(crate) fn open(&mut self, body: &[u8]) -> Result<(Identity, Vec<u8>), OpenSealError> {
        let (from, content) = match body.split_first() {
            Some((&SEALED, message)) => self.open_normal(message)?,
            Some((&SEALED_FIRST, sealed)) => self.open_first(sealed)?,
            _ => return Err(OpenSealError::Foreign),
        };
        self.changed.insert(from);
        let parcel = codec::decode(&content, BODY_BYTES_MAX).map_err(|_| OpenSealError::Content)?;
        Ok((from, parcel.into_owned()))
    }

    fn open_normal(&mut self, message: &[u8]) -> Result<(Identity, Vec<u8>), OpenSealError> {
        let message = bare::unbare(message).ok_or(OpenSealError::Foreign)?;
        let (likely, others): (Vec<_>, Vec<_>) =
            self.pairs.iter_mut().partition(|(_, pair)| pair.expects(&message));
        for (with, pair) in likely.into_iter().chain(others) {
            match pair.open(&message) {
                Ok(content) => return Ok((*with, content)),
                Err(NotOpened::Repeat) => return Err(OpenSealError::Repeat),
                Err(NotOpened::Foreign) => {}
            }
        }
        Err(OpenSealError::Foreign)
    }

    fn open_first(&mut self, sealed: &[u8]) -> Result<(Identity, Vec<u8>), OpenSealError> {
        let message = self.keyring.first_message(sealed).ok_or(OpenSealError::Foreign)?;
        let from = message.identity_key().to_bytes();
        let unused = self.keyring.one_time_keys_unused();
        let mut fresh = None;
        let pair = match self.pairs.get_mut(&from) {
            Some(pair) => pair,
            None => fresh.insert(Pair::default()),
        };
        let content = pair.open_first(&mut self.keyring, &message).map_err(|error| match error {
            NotOpened::Repeat => OpenSealError::Repeat,
            NotOpened::Foreign => OpenSealError::Foreign,
        })?;
        if let Some(pair) = fresh {
            self.pairs.insert(from, pair);
        }
        self.keyring_changed |= self.keyring.one_time_keys_unused() != unused;
        Ok((from, content))
    }

    /// Notes a message that was opened; false if it has been seen.
    pub(crate) fn is_new(&mut self, from: &Identity, of: ShortIncarnation, number: u64) -> bool {
        self.changed.insert(*from);
        self.pairs.get_mut(from).is_none_or(|pair| pair.is_new(of, number))
    }

    /// Whether a one-time key of theirs would serve the first message to them.
    pub(crate) fn wants_key(&self, them: &Identity) -> bool {
        self.pairs.get(them).is_none_or(Pair::wants_key)
    }

    /// Keeps a one-time key of theirs until a session begins.
    pub(crate) fn put_claimed(&mut self, them: Identity, key: OneTimeKey) {
        self.changed.insert(them);
        self.pairs.entry(them).or_default().put_claimed(key);
    }

    /// New one-time keys for the relay. [`Seals::take_keyring`] must be written before it is told.
    pub(crate) fn one_time_keys(&mut self, count: usize) -> Vec<OneTimeKey> {
        self.keyring_changed = true;
        self.keyring.one_time_keys(count)
    }

    /// How many of this device's one-time keys have not been used.
    pub(crate) fn one_time_keys_unused(&self) -> usize {
        self.keyring.one_time_keys_unused()
    }

    /// The keyring, if it must be written: with what was opened, or a used key would be there still.
    pub(crate) fn take_keyring(&mut self) -> Option<Vec<u8>> {
        std::mem::take(&mut self.keyring_changed).then(|| self.keyring.to_record())
    }

    /// What must be written with the result of sealing and opening.
    pub(crate) fn take_changed(&mut self) -> Vec<(Identity, Vec<u8>)> {
        let changed = std::mem::take(&mut self.changed);
        let record = |with: Identity| Some((with, self.pairs.get(&with)?.to_record()));
        changed.into_iter().filter_map(record).collect()
    }
}

/// Olm's state has no form that postcard could read back; MessagePack has.
fn record(record: &impl Serialize) -> Vec<u8> {
    rmp_serde::to_vec(record).expect("keys hold nothing that MessagePack cannot write")
}

fn unrecord<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, StoreError> {
    rmp_serde::from_slice(bytes).map_err(|error| StoreError::Damaged(format!("{what}: {error}")))
}

#[cfg(test)]
mod tests;
