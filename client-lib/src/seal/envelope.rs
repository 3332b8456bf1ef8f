//! The outer layer of a first message: it hides the sender's identity key, which Olm's pre-key message
//! shows. HPKE in base mode (RFC 9180) with X25519, HKDF-SHA256 and ChaCha20-Poly1305.

use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable, single_shot_open, single_shot_seal};

const INFO: &[u8] = b"thinpost/1 first message";
const ENCAPSULATED_BYTES: usize = 32;

/// The private half of [`SealKeys::envelope`](thinpost_wire::ticket::SealKeys::envelope).
pub(super) struct EnvelopeKey(<X25519HkdfSha256 as Kem>::PrivateKey);

impl EnvelopeKey {
    /// The key that follows from a secret.
    pub(super) fn from_seed(seed: &[u8; 32]) -> Self {
        Self(X25519HkdfSha256::derive_keypair(seed).0)
    }

    pub(super) fn public(&self) -> [u8; 32] {
        X25519HkdfSha256::sk_to_pk(&self.0).to_bytes().into()
    }

    /// What was sealed for this key; `None` if it was not, or was changed on the way.
    pub(super) fn open(&self, sealed: &[u8]) -> Option<Vec<u8>> {
        let (encapsulated, content) = sealed.split_at_checked(ENCAPSULATED_BYTES)?;
        let encapsulated = <X25519HkdfSha256 as Kem>::EncappedKey::from_bytes(encapsulated).ok()?;
        let open = single_shot_open::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>;
        open(&OpModeR::Base, &self.0, &encapsulated, INFO, content, b"").ok()
    }
}

/// Seals for whoever holds the private half of `key`; `None` if it is no key. 48 bytes longer than the
/// content.
pub(super) fn seal(key: &[u8; 32], content: &[u8]) -> Option<Vec<u8>> {
    let key = <X25519HkdfSha256 as Kem>::PublicKey::from_bytes(key).ok()?;
    let seal = single_shot_seal::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>;
    let (encapsulated, content) = seal(&OpModeS::Base, &key, INFO, content, b"").ok()?;
    Some([&encapsulated.to_bytes()[..], &content].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_for_a_key_opens_with_it_unless_it_was_changed() {
        let [key, other] = [1, 2].map(|n| EnvelopeKey::from_seed(&[n; 32]));
        let sealed = seal(&key.public(), b"it is me").unwrap();
        assert_eq!(sealed.len(), 8 + 48);
        assert_eq!(key.open(&sealed).as_deref(), Some(&b"it is me"[..]));
        assert_eq!(other.open(&sealed), None);
        for place in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[place] ^= 1;
            assert_eq!(key.open(&changed), None, "byte {place}");
            assert_eq!(key.open(&sealed[..place]), None, "cut at {place}");
        }
    }
}
