//! Ed25519 keys: who a relay, a device or an account is.

use std::fmt;
use std::sync::Arc;

use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use thinpost_wire::frame::Signature;
use thinpost_wire::ids::RelayKey;
use zeroize::Zeroizing;

/// RFC 8410, section 7: the PKCS #8 head of an Ed25519 seed.
const PKCS8_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// A private key. Its seed is wiped from memory when dropped, and never printed.
#[derive(Clone)]
pub struct Identity {
    seed: Zeroizing<[u8; 32]>,
    public: [u8; 32],
}

impl Identity {
    /// The identity of a seed: 32 secret bytes of full randomness.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).expect("every 32 bytes are an Ed25519 seed");
        let mut public = [0; 32];
        public.copy_from_slice(pair.public_key().as_ref());
        Self { seed: Zeroizing::new(seed), public }
    }

    /// The seed, to be stored where only the owner can read it.
    pub fn seed(&self) -> &[u8; 32] {
        &self.seed
    }

    /// The public key.
    pub fn public(&self) -> [u8; 32] {
        self.public
    }

    /// Signs a message.
    pub fn sign(&self, message: &[u8]) -> Signature {
        let pair = Ed25519KeyPair::from_seed_unchecked(&*self.seed).expect("the seed was taken before");
        let bytes = pair.sign(message).as_ref().try_into().expect("Ed25519 signatures have 64 bytes");
        Signature::from_bytes(&bytes)
    }

    /// The key as TLS presents it: raw, without a certificate.
    pub(crate) fn certified_key(&self) -> Arc<CertifiedKey> {
        let mut pkcs8 = Zeroizing::new([0; 48]);
        pkcs8[..16].copy_from_slice(&PKCS8_PREFIX);
        pkcs8[16..].copy_from_slice(&*self.seed);
        let key = rustls::crypto::ring::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(&pkcs8[..]))
            .expect("the PKCS #8 head fits an Ed25519 seed");
        let spki = RelayKey(self.public).to_spki().to_vec();
        Arc::new(CertifiedKey::new(vec![CertificateDer::from(spki)], key))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", RelayKey(self.public))
    }
}

/// Whether `signature` is the key's over the message.
pub fn verify(key: &[u8; 32], message: &[u8], signature: &Signature) -> bool {
    UnparsedPublicKey::new(&ED25519, key).verify(message, &signature.to_bytes()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_holds_for_its_message_and_key_only() {
        let [a, b] = [1, 2].map(|n| Identity::from_seed([n; 32]));
        let signature = a.sign(b"device");
        assert!(verify(&a.public(), b"device", &signature));
        assert!(!verify(&a.public(), b"devise", &signature));
        assert!(!verify(&b.public(), b"device", &signature));
    }

    #[test]
    fn the_secret_is_not_printed() {
        let printed = format!("{:?}", Identity::from_seed([0x5a; 32]));
        assert!(!printed.contains("90") && !printed.to_lowercase().contains("5a5a"), "{printed}");
    }
}
