//! Invites: leave to register that an operator hands out, and the relay recognises without having kept it.
//!
//! An invite says itself how many accounts it admits and until when, and carries a code over both that
//! only the relay's key makes. So minting needs neither the running relay nor its store; the relay only
//! counts how often each was used.

use std::time::Duration;

use ring::rand::{SecureRandom, SystemRandom};
use thinpost_wire::frame::Denial;
use thinpost_wire::ticket::{InviteTicket, InviteToken, RelayTicket};
use zeroize::Zeroizing;

/// What an invite admits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InviteParams {
    /// How many accounts; at least 1.
    pub uses: u32,
    /// For how long from now; `None` for ever.
    pub valid: Option<Duration>,
}

/// The system gave no random numbers. Nothing was made; try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the system gives no random numbers")]
pub struct NoRandomness;

/// Makes and recognises one relay's invites.
#[derive(Clone)]
pub struct Invites {
    key: Zeroizing<[u8; 32]>,
}

/// The key is a secret.
impl std::fmt::Debug for Invites {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Invites")
    }
}

impl Invites {
    /// Invites under a secret key that serves for nothing else.
    pub fn new(key: [u8; 32]) -> Self {
        Self { key: Zeroizing::new(key) }
    }

    /// Makes an invite to `relay`; `now_unix_s` is the present in Unix seconds.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub fn mint(
        &self,
        relay: RelayTicket,
        params: InviteParams,
        now_unix_s: u64,
    ) -> Result<InviteTicket, NoRandomness> {
        let mut id = [0; 8];
        SystemRandom::new().fill(&mut id).map_err(|_| NoRandomness)?;
        // Zero stands for never, so that an invite of no time at all ends at second 1.
        let expires_unix_s =
            params.valid.map_or(0, |valid| now_unix_s.saturating_add(valid.as_secs()).max(1));
        let mut token = InviteToken { id, uses: params.uses, expires_unix_s, mac: [0; 16] };
        let code = self.code(&token);
        token.mac.copy_from_slice(&code.as_bytes()[..16]);
        Ok(InviteTicket { relay, token })
    }

    /// Whether the invite is one of this relay's, and its time has not passed. How often it was used is
    /// the store's to say.
    ///
    /// # Errors
    /// [`Denial::InviteForged`] or [`Denial::InviteExpired`]; only who holds a true invite learns the latter.
    pub fn verify(&self, token: &InviteToken, now_unix_s: u64) -> Result<(), Denial> {
        // Hashes compare in constant time. The half of the code that does not travel is filled in.
        let code = self.code(token);
        let mut presented = *code.as_bytes();
        presented[..16].copy_from_slice(&token.mac);
        if code != presented {
            return Err(Denial::InviteForged);
        }
        if token.expires_unix_s != 0 && token.expires_unix_s < now_unix_s {
            return Err(Denial::InviteExpired);
        }
        Ok(())
    }

    fn code(&self, token: &InviteToken) -> blake3::Hash {
        blake3::keyed_hash(&self.key, &token.covered_bytes())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use thinpost_wire::ids::RelayKey;

    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn relay() -> RelayTicket {
        RelayTicket { key: RelayKey([7; 32]), addresses: vec!["192.0.2.1:4433".parse().unwrap()] }
    }

    fn mint(uses: u32, valid: Option<Duration>) -> InviteToken {
        Invites::new([1; 32]).mint(relay(), InviteParams { uses, valid }, NOW).unwrap().token
    }

    #[test]
    fn an_invite_is_recognised_by_its_relay_and_by_no_other() {
        let token = mint(3, None);
        assert_eq!(token.uses, 3);
        assert_eq!(Invites::new([1; 32]).verify(&token, u64::MAX), Ok(()));
        assert_eq!(Invites::new([2; 32]).verify(&token, NOW), Err(Denial::InviteForged));
    }

    #[test]
    fn an_invite_ends_when_its_time_has_passed_and_not_before() {
        let token = mint(1, Some(Duration::from_secs(60)));
        let invites = Invites::new([1; 32]);
        assert_eq!(invites.verify(&token, NOW + 60), Ok(()));
        assert_eq!(invites.verify(&token, NOW + 61), Err(Denial::InviteExpired));
    }

    #[test]
    fn no_two_invites_are_the_same() {
        assert_ne!(mint(1, None).id, mint(1, None).id);
    }

    #[test]
    fn an_invite_survives_its_text() {
        let params = InviteParams { uses: 5, valid: Some(Duration::from_secs(604_800)) };
        let ticket = Invites::new([1; 32]).mint(relay(), params, NOW).unwrap();
        let read = ticket.to_string().parse::<InviteTicket>().unwrap();
        assert_eq!(read, ticket);
        assert_eq!(Invites::new([1; 32]).verify(&read.token, NOW), Ok(()));
    }

    proptest! {
        /// All that is covered, and the code itself: no bit of an invite can be changed.
        #[test]
        fn an_invite_with_any_bit_changed_is_forged(bit in 0usize..8 * 36) {
            let token = mint(1, Some(Duration::from_secs(60)));
            let mut bytes = [0; 36];
            bytes[..20].copy_from_slice(&token.covered_bytes());
            bytes[20..].copy_from_slice(&token.mac);
            bytes[bit / 8] ^= 1 << (bit % 8);
            let changed = InviteToken {
                id: bytes[..8].try_into().unwrap(),
                uses: u32::from_be_bytes(bytes[8..12].try_into().unwrap()),
                expires_unix_s: u64::from_be_bytes(bytes[12..20].try_into().unwrap()),
                mac: bytes[20..].try_into().unwrap(),
            };
            prop_assert_eq!(Invites::new([1; 32]).verify(&changed, NOW), Err(Denial::InviteForged));
        }
    }
}
