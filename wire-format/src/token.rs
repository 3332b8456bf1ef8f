//! Tokens: the right to submit to a mailbox, which its owner can take back.
//!
//! A token is an id and a code over it under the mailbox's secret, which the owner tells its relay. The relay
//! therefore keeps no list of tokens, only the ids that were revoked. `PROTOCOL.md`, section "Tokens", has
//! the layout; `docs/decisions/0010-tokens-and-one-time-keys.md` says why so.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::AccountKey;

/// Bytes of a token.
pub const TOKEN_BYTES: usize = 16;

const ID_BYTES: usize = 4;

/// What the code covers before the id.
const CONTEXT: &[u8] = b"thinpost/1 mailbox token";

/// What an owner and the relay of its mailbox share: whoever has it makes tokens.
#[derive(Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MailboxSecret(pub [u8; 32]);

impl fmt::Debug for MailboxSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MailboxSecret")
    }
}

/// Names a token among those of one mailbox, for all time: a revoked one is never given again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TokenId(pub u32);

/// Set in ids of tokens that were made for one person.
const PERSONAL: u32 = 1 << 31;

impl TokenId {
    /// One for a ticket that anybody may hold: its bearer is a stranger. The number's highest bit is
    /// ignored.
    pub fn open(number: u32) -> Self {
        Self(number & !PERSONAL)
    }

    /// One for a ticket that is made for one person. The number's highest bit is ignored.
    pub fn personal(number: u32) -> Self {
        Self(number | PERSONAL)
    }

    /// Whether its bearer is a stranger.
    pub fn is_open(self) -> bool {
        self.0 & PERSONAL == 0
    }
}

/// The right to submit to one mailbox.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Token(pub [u8; TOKEN_BYTES]);

/// The code is a secret of those who hold the ticket.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({:08x})", self.id().0)
    }
}

impl Token {
    /// The token of this id under a secret.
    pub fn mint(secret: &MailboxSecret, id: TokenId) -> Self {
        let id = id.0.to_be_bytes();
        let mut hasher = blake3::Hasher::new_keyed(&secret.0);
        hasher.update(CONTEXT).update(&id);
        let mut token = [0; TOKEN_BYTES];
        token[..ID_BYTES].copy_from_slice(&id);
        token[ID_BYTES..].copy_from_slice(&hasher.finalize().as_bytes()[..TOKEN_BYTES - ID_BYTES]);
        Self(token)
    }

    /// Which it says it is; see [`Token::is_of`].
    pub fn id(self) -> TokenId {
        let [a, b, c, d, ..] = self.0;
        TokenId(u32::from_be_bytes([a, b, c, d]))
    }

    /// Whether it was made under this secret. Takes as long wherever it differs from one that was.
    pub fn is_of(self, secret: &MailboxSecret) -> bool {
        let expected = Self::mint(secret, self.id());
        let difference = self.0.iter().zip(expected.0).fold(0, |all, (a, b)| all | (a ^ b));
        difference == 0
    }
}

/// A mailbox, and the right to submit to it: what a device's handles stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MailboxAddress {
    /// Whose mailbox.
    pub mailbox: AccountKey,
    /// Made by its owner.
    pub token: Token,
}

/// Bytes of a [`MailboxAddress`].
pub const ADDRESS_BYTES: usize = 32 + TOKEN_BYTES;

impl MailboxAddress {
    /// Key, then token.
    pub fn to_bytes(self) -> [u8; ADDRESS_BYTES] {
        let mut bytes = [0; ADDRESS_BYTES];
        bytes[..32].copy_from_slice(&self.mailbox.0);
        bytes[32..].copy_from_slice(&self.token.0);
        bytes
    }

    /// Reads [`MailboxAddress::to_bytes`].
    pub fn from_bytes(bytes: &[u8; ADDRESS_BYTES]) -> Self {
        let (mut mailbox, mut token) = ([0; 32], [0; TOKEN_BYTES]);
        mailbox.copy_from_slice(&bytes[..32]);
        token.copy_from_slice(&bytes[32..]);
        Self { mailbox: AccountKey(mailbox), token: Token(token) }
    }
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;

    use super::*;

    const SECRET: MailboxSecret = MailboxSecret([7; 32]);

    /// The vectors of `PROTOCOL.md`, section "Tokens".
    #[test]
    fn golden_vectors_of_tokens_hold() {
        for (id, hex) in [
            (TokenId::open(1), "000000011a040c7a797fb357eb8d6023"),
            (TokenId::personal(1), "80000001415c66070b9167f96b4fe013"),
        ] {
            let token = Token::mint(&SECRET, id);
            assert_eq!(HEXLOWER.encode(&token.0), hex);
            assert_eq!((token.id(), token.is_of(&SECRET)), (id, true));
        }
    }

    #[test]
    fn no_changed_bit_and_no_other_secret_passes() {
        let token = Token::mint(&SECRET, TokenId::open(300));
        assert!(!token.is_of(&MailboxSecret([8; 32])));
        for bit in 0..TOKEN_BYTES * 8 {
            let mut changed = token;
            changed.0[bit / 8] ^= 1 << (bit % 8);
            assert!(!changed.is_of(&SECRET), "bit {bit}");
        }
    }

    #[test]
    fn the_highest_bit_tells_friends_from_strangers() {
        assert!(TokenId::open(u32::MAX).is_open());
        assert!(!TokenId::personal(0).is_open());
        assert_ne!(TokenId::open(5), TokenId::personal(5));
    }

    #[test]
    fn an_address_is_read_back() {
        let address =
            MailboxAddress { mailbox: AccountKey([9; 32]), token: Token::mint(&SECRET, TokenId::open(1)) };
        assert_eq!(MailboxAddress::from_bytes(&address.to_bytes()), address);
    }

    #[test]
    fn neither_secret_nor_code_reach_a_log() {
        let token = Token::mint(&SECRET, TokenId::personal(2));
        assert_eq!(format!("{SECRET:?} {token:?}"), "MailboxSecret Token(80000002)");
    }
}
