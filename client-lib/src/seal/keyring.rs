//! The keys that others seal for.

use serde::{Deserialize, Serialize};
use thinpost_wire::ids::OneTimeKey;
use thinpost_wire::ticket::SealKeys;
use vodozemac::Curve25519PublicKey;
use vodozemac::olm::{Account, AccountPickle, PreKeyMessage, Session, SessionConfig};

use super::envelope::EnvelopeKey;
use super::{bare, record, unrecord};
use crate::error::StoreError;

/// One device's secret keys for end-to-end encryption.
pub(crate) struct Keyring {
    olm: Account,
    envelope: EnvelopeKey,
    envelope_seed: [u8; 32],
    pre_key: Curve25519PublicKey,
}

#[derive(Serialize, Deserialize)]
struct Record {
    olm: AccountPickle,
    envelope_seed: [u8; 32],
    pre_key: [u8; 32],
}

impl Keyring {
    /// Fresh keys. Olm draws its own from the system.
    pub(crate) fn new(envelope_seed: [u8; 32]) -> Self {
        let mut olm = Account::new();
        olm.generate_fallback_key();
        let pre_key = *olm.fallback_key().values().next().expect("it was made a line ago");
        olm.mark_keys_as_published();
        Self { olm, envelope: EnvelopeKey::from_seed(&envelope_seed), envelope_seed, pre_key }
    }

    /// What the home keeps.
    pub(crate) fn to_record(&self) -> Vec<u8> {
        let Self { envelope_seed, pre_key, .. } = self;
        record(&Record { olm: self.olm.pickle(), envelope_seed: *envelope_seed, pre_key: pre_key.to_bytes() })
    }

    pub(crate) fn from_record(bytes: &[u8]) -> Result<Self, StoreError> {
        let Record { olm, envelope_seed, pre_key } = unrecord("keyring", bytes)?;
        Ok(Self {
            olm: Account::from_pickle(olm),
            envelope: EnvelopeKey::from_seed(&envelope_seed),
            envelope_seed,
            pre_key: Curve25519PublicKey::from_bytes(pre_key),
        })
    }

    /// What goes into a ticket.
    pub(crate) fn public(&self) -> SealKeys {
        SealKeys {
            identity: self.olm.curve25519_key().to_bytes(),
            pre_key: self.pre_key.to_bytes(),
            envelope: self.envelope.public(),
        }
    }

    /// So many new keys of which each opens one session, to be told to the relay once. Their secret halves must be
    /// durable before that.
    pub(super) fn one_time_keys(&mut self, count: usize) -> Vec<OneTimeKey> {
        let created = self.olm.generate_one_time_keys(count).created;
        self.olm.mark_keys_as_published();
        created.iter().map(|key| OneTimeKey(key.to_bytes())).collect()
    }

    /// How many one-time keys have not been used.
    pub(super) fn one_time_keys_unused(&self) -> usize {
        self.olm.stored_one_time_key_count()
    }

    /// A session that its owner opens with the first message in it. `None`: the keys are no keys.
    pub(super) fn session_with(&self, identity: &[u8; 32], pre_key: &[u8; 32]) -> Option<Session> {
        let [identity, pre_key] = [*identity, *pre_key].map(Curve25519PublicKey::from_bytes);
        self.olm.create_outbound_session(SessionConfig::version_1(), identity, pre_key).ok()
    }

    /// The pre-key message inside an envelope for this device.
    pub(super) fn first_message(&self, sealed: &[u8]) -> Option<PreKeyMessage> {
        bare::decode(&self.envelope.open(sealed)?, self.pre_key.as_bytes())
    }

    /// The session that somebody has opened, and the content of their first message. If it was made with a
    /// one-time key, the key is gone.
    pub(super) fn accept(&mut self, message: &PreKeyMessage) -> Option<(Session, Vec<u8>)> {
        let made = self
            .olm
            .create_inbound_session(SessionConfig::version_1(), message.identity_key(), message)
            .inspect_err(|error| tracing::debug!(%error, "no session"))
            .ok()?;
        Some((made.session, made.plaintext))
    }
}
