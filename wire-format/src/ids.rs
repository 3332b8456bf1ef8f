//! The nouns that are numbers: keys, incarnations, sequence numbers, handles, positions.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Declares a newtype over 32 bytes of Ed25519 public key.
macro_rules! key {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub [u8; 32]);

        impl $name {
            /// The key in a SubjectPublicKeyInfo, as TLS carries a raw public key (RFC 7250, RFC 8410).
            pub fn to_spki(self) -> [u8; SPKI_LEN] {
                let mut spki = [0; SPKI_LEN];
                spki[..SPKI_PREFIX.len()].copy_from_slice(&SPKI_PREFIX);
                spki[SPKI_PREFIX.len()..].copy_from_slice(&self.0);
                spki
            }

            /// Reads the key out of a SubjectPublicKeyInfo; `None` unless it is exactly Ed25519's.
            pub fn from_spki(spki: &[u8]) -> Option<Self> {
                spki.strip_prefix(&SPKI_PREFIX)?.try_into().ok().map(Self)
            }
        }

        /// The first eight bytes, enough for a person to tell two keys apart.
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", data_encoding::HEXLOWER.encode(&self.0[..8]))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }
    };
}

/// Length of an Ed25519 SubjectPublicKeyInfo, bytes.
pub const SPKI_LEN: usize = 44;

/// RFC 8410, section 4: SEQUENCE { SEQUENCE { OID 1.3.101.112 }, BIT STRING of 32 bytes }.
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

key! {
    /// Who a person is to others: the key that owns a mailbox at each of its relays.
    AccountKey
}
key! {
    /// One installation of an account; its TLS login at a relay.
    DeviceKey
}
key! {
    /// A relay's TLS identity, pinned in its ticket.
    RelayKey
}

/// A run of sequence numbers of one device, drawn at random whenever a client opens its home.
///
/// A home that was restored from an old copy therefore never reuses a number that its newer self has
/// spent: the two count under different incarnations.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Incarnation(pub [u8; 8]);

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Incarnation({self})")
    }
}

/// Names one submitted envelope among all that a device ever submits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Origin {
    /// The run of numbers it counts in.
    pub incarnation: Incarnation,
    /// Counts from 1 within the incarnation.
    pub sequence: u64,
}

/// Stands for a mailbox or a sender on one device's link; see [`crate::table`]. Counts from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Handle(pub u16);

/// A place in a mailbox. Opaque: larger is later within one mailbox, and nothing else may be read into it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position(pub u64);

/// Names one relay store, drawn at random when it is made: positions of another store mean nothing here.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StoreId(pub [u8; 8]);

impl fmt::Debug for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreId({})", data_encoding::HEXLOWER.encode(&self.0))
    }
}

/// A Curve25519 key that opens one session: a device leaves some at its relay, which gives out each once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OneTimeKey(pub [u8; 32]);

/// Names an object: the BLAKE3 of its bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectId(pub [u8; 32]);

impl ObjectId {
    /// The name of the object that has these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(blake3::hash(bytes).into())
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ObjectId({})", data_encoding::HEXLOWER.encode(&self.0[..8]))
    }
}

/// What an application calls its message; travels to the recipient and comes back in every event.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AppId(pub [u8; 16]);

impl fmt::Display for AppId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for AppId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AppId({self})")
    }
}

/// What an account signs so that a relay accepts `device` as one of its own.
pub fn device_certificate_message(device: &DeviceKey) -> Vec<u8> {
    [b"thinpost/1 device".as_slice(), &device.0].concat()
}

/// The digest by which a relay tells a repeat of an envelope from another envelope under the same
/// [`Origin`]: the first 8 bytes of BLAKE3 over what was submitted, under a key that follows from the
/// incarnation. A relay keeps incarnations [blinded](Incarnation::blinded), so that nobody can find the digest of a stored
/// envelope among those of a device.
pub fn envelope_digest(incarnation: Incarnation, mailbox: &AccountKey, body: &[u8]) -> [u8; 8] {
    let mut hasher = blake3::Hasher::new_derive_key("thinpost/1 envelope digest");
    hasher.update(&incarnation.0).update(&mailbox.0).update(body);
    first_8(&hasher)
}

impl Incarnation {
    /// What a relay knows an incarnation by on its disk: it does not lead back.
    #[must_use]
    pub fn blinded(self) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("thinpost/1 incarnation at rest");
        hasher.update(&self.0);
        Self(first_8(&hasher))
    }
}

fn first_8(hasher: &blake3::Hasher) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_its_subject_public_key_info_and_nothing_else_passes() {
        let key = DeviceKey(std::array::from_fn(|i| i as u8));
        let spki = key.to_spki();
        assert_eq!(DeviceKey::from_spki(&spki), Some(key));
        assert_eq!(DeviceKey::from_spki(&spki[..43]), None);
        let mut other_algorithm = spki;
        other_algorithm[8] = 0x71;
        assert_eq!(DeviceKey::from_spki(&other_algorithm), None);
    }

    #[test]
    fn digests_depend_on_incarnation_mailbox_and_body() {
        let of = |incarnation, mailbox, body: &[u8]| {
            envelope_digest(Incarnation([incarnation; 8]), &AccountKey([mailbox; 32]), body)
        };
        let a = of(1, 1, b"hi");
        assert_eq!(a, of(1, 1, b"hi"));
        for other in [of(2, 1, b"hi"), of(1, 2, b"hi"), of(1, 1, b"ho")] {
            assert_ne!(a, other);
        }
        assert_ne!(Incarnation([1; 8]).blinded(), Incarnation([1; 8]));
        assert_ne!(Incarnation([1; 8]).blinded(), Incarnation([2; 8]).blinded());
    }
}
