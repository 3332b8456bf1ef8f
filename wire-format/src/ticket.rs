//! Tickets: what a person passes on, as text, link or QR code, to reach a relay or a contact.
//!
//! A ticket is `tp`, a letter for its kind, the version `1`, then base32 (RFC 4648, lower case, unpadded)
//! of the content and a checksum of four bytes: a ticket that was cut or mistyped is told from a wrong one.
//! `PROTOCOL.md`, section "Tickets", has the layout.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use data_encoding::{BASE32_NOPAD, DecodeKind};
use serde::{Deserialize, Serialize};

use crate::frame::Signature;
use crate::ids::{AccountKey, RelayKey};
use crate::limits::{TICKET_ADDRESSES_MAX, TICKET_CHARS_MAX, TICKET_RELAYS_MAX};
use crate::text::ModelSet;
use crate::token::Token;
use crate::varint;

/// The scheme under which a ticket is also a link: `thinpost:tpr1...`.
const LINK_SCHEME: &str = "thinpost:";
const CHECKSUM_LEN: usize = 4;

/// Of every kind's content.
const VERSION: char = '1';

/// How to reach a relay, and the key it must prove to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayTicket {
    /// The relay's identity.
    pub key: RelayKey,
    /// Where it listens; 1 to [`TICKET_ADDRESSES_MAX`].
    pub addresses: Vec<SocketAddr>,
}

/// A relay's leave to register: what its operator hands to a new user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InviteTicket {
    /// The relay it is for.
    pub relay: RelayTicket,
    /// What the relay checks.
    pub token: InviteToken,
}

/// The part of an invite that goes back to the relay. The relay keeps only how often it was used: the
/// code proves the rest.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct InviteToken {
    /// Drawn at random.
    pub id: [u8; 8],
    /// How many accounts it admits.
    pub uses: u32,
    /// Unix time in seconds after which it admits nobody; 0 for never.
    pub expires_unix_s: u64,
    /// The relay's code over the fields above.
    pub mac: [u8; 16],
}

/// The code is a secret until it is used.
impl fmt::Debug for InviteToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InviteToken({}, {} uses)", data_encoding::HEXLOWER.encode(&self.id), self.uses)
    }
}

impl InviteToken {
    /// The bytes that [`InviteToken::mac`] covers.
    pub fn covered_bytes(&self) -> [u8; 20] {
        let mut bytes = [0; 20];
        bytes[..8].copy_from_slice(&self.id);
        bytes[8..12].copy_from_slice(&self.uses.to_be_bytes());
        bytes[12..].copy_from_slice(&self.expires_unix_s.to_be_bytes());
        bytes
    }
}

/// How to reach a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContactTicket {
    /// Whose mailbox.
    pub account: AccountKey,
    /// What the first message to them is sealed for.
    pub seal: SealKeys,
    /// The account's signature over [`SealKeys::signed_bytes`]. Reading a ticket does not check it.
    pub signature: Signature,
    /// The right to submit to the mailbox. Not signed: without it nothing arrives, and no more.
    pub token: Token,
    /// Where the mailbox is; 1 to [`TICKET_RELAYS_MAX`].
    pub relays: Vec<RelayTicket>,
    /// The text models that they could read with when the ticket was made; none if it does not say. Not signed: with
    /// others, messages have to be sent again, and no more.
    pub models: ModelSet,
}

impl ContactTicket {
    /// The content of the ticket's text, without its checksum.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut content = Vec::new();
        put_contact(&mut content, self);
        put_models(&mut content, &self.models);
        content
    }

    /// Reads [`ContactTicket::to_bytes`].
    ///
    /// # Errors
    /// When the bytes are something else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, TicketError> {
        let mut content = Content(bytes);
        let mut ticket = content.contact()?;
        ticket.models = content.models()?;
        content.end()?;
        Ok(ticket)
    }
}

/// All that a newcomer needs: a way into a relay, and somebody there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestTicket {
    /// To register with.
    pub invite: InviteTicket,
    /// Who invites, reached by a ticket that they made for this guest.
    pub host: ContactTicket,
    /// What they call themselves: 1 to [`HOST_NAME_BYTES_MAX`] bytes.
    pub name: String,
}

/// Longest name in a [`GuestTicket`], bytes.
pub const HOST_NAME_BYTES_MAX: usize = 64;

/// Three Curve25519 keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealKeys {
    /// Who they are to the ratchet.
    pub identity: [u8; 32],
    /// A pre-key that is not used up: it opens a session without asking for one.
    pub pre_key: [u8; 32],
    /// Hides the sender of what comes before a session is known to both.
    pub envelope: [u8; 32],
}

impl SealKeys {
    /// What the account signs.
    pub fn signed_bytes(&self) -> Vec<u8> {
        [b"thinpost/1 seal", &self.identity[..], &self.pre_key, &self.envelope].concat()
    }
}

/// Any ticket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ticket {
    /// To reach a relay.
    Relay(RelayTicket),
    /// To register at a relay.
    Invite(InviteTicket),
    /// To reach a person.
    Contact(ContactTicket),
    /// To register at a relay and reach a person there.
    Guest(GuestTicket),
}

/// Why a text is not a ticket. Nothing happened; ask for the ticket again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TicketError {
    /// It does not begin as a ticket does.
    #[error("this is no Thinpost ticket: one begins with tpr1, tpi1, tpc1 or tpg1")]
    NotATicket,
    /// A ticket of another version.
    #[error("this ticket has version {0}; this program knows version {VERSION}")]
    UnknownVersion(char),
    /// Another kind than was asked for.
    #[error("this is {found}, but {wanted} is needed here")]
    WrongKind {
        /// What it is.
        found: &'static str,
        /// What it should be.
        wanted: &'static str,
    },
    /// More than any ticket has.
    #[error("the ticket has {0} characters; none has more than {TICKET_CHARS_MAX}")]
    TooLong(usize),
    /// A character that no ticket has.
    #[error("character {0} of the ticket does not belong there")]
    BadCharacter(usize),
    /// Cut short, or mistyped.
    #[error("the ticket is incomplete or mistyped (its checksum does not match)")]
    Checksum,
    /// The checksum holds, but the content does not: a newer or faulty program made it.
    #[error("the ticket's content is damaged: {0}")]
    Malformed(&'static str),
}

impl Ticket {
    fn kind(&self) -> (char, &'static str) {
        match self {
            Self::Relay(_) => ('r', "a relay's ticket"),
            Self::Invite(_) => ('i', "an invite"),
            Self::Contact(_) => ('c', "a contact's ticket"),
            Self::Guest(_) => ('g', "a guest's ticket"),
        }
    }

    /// The ticket in upper case, which a QR code holds in fewer modules (its alphanumeric mode).
    pub fn to_qr_text(&self) -> String {
        self.to_string().to_ascii_uppercase()
    }

    fn wrong_kind(&self, wanted: &'static str) -> TicketError {
        TicketError::WrongKind { found: self.kind().1, wanted }
    }
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind().0;
        let mut content = Vec::new();
        match self {
            Self::Relay(relay) => put_relay(&mut content, relay),
            Self::Invite(invite) => put_invite(&mut content, invite),
            Self::Contact(contact) => content = contact.to_bytes(),
            Self::Guest(GuestTicket { invite, host, name }) => {
                put_invite(&mut content, invite);
                put_contact(&mut content, host);
                content.push(name.len() as u8);
                content.extend(name.bytes());
                put_models(&mut content, &host.models);
            }
        }
        content.extend(checksum(kind, &content));
        write!(f, "tp{kind}{VERSION}{}", BASE32_NOPAD.encode(&content).to_ascii_lowercase())
    }
}

impl FromStr for Ticket {
    type Err = TicketError;

    fn from_str(text: &str) -> Result<Self, TicketError> {
        // Mail folds long lines.
        let text: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        if text.len() > TICKET_CHARS_MAX {
            return Err(TicketError::TooLong(text.chars().count()));
        }
        let text = text.to_ascii_lowercase();
        let text = text.strip_prefix(LINK_SCHEME).unwrap_or(&text);
        let mut chars = text.strip_prefix("tp").ok_or(TicketError::NotATicket)?.chars();
        let (kind, version) = chars.next().zip(chars.next()).ok_or(TicketError::NotATicket)?;
        if !matches!(kind, 'r' | 'i' | 'c' | 'g') || !version.is_ascii_digit() {
            return Err(TicketError::NotATicket);
        }
        if version != VERSION {
            return Err(TicketError::UnknownVersion(version));
        }
        let coded = chars.as_str().to_ascii_uppercase();
        let mut bytes = BASE32_NOPAD.decode(coded.as_bytes()).map_err(|error| match error.kind {
            DecodeKind::Symbol => TicketError::BadCharacter(error.position + 5),
            _ => TicketError::Checksum,
        })?;
        let found = bytes.split_off(bytes.len().saturating_sub(CHECKSUM_LEN));
        if found != checksum(kind, &bytes) {
            return Err(TicketError::Checksum);
        }
        let mut content = Content(&bytes);
        let ticket = match kind {
            'r' => Self::Relay(content.relay()?),
            'i' => Self::Invite(content.invite()?),
            'c' => return Ok(Self::Contact(ContactTicket::from_bytes(&bytes)?)),
            _ => {
                let (invite, host, name) = (content.invite()?, content.contact()?, content.name()?);
                let host = ContactTicket { models: content.models()?, ..host };
                Self::Guest(GuestTicket { invite, host, name })
            }
        };
        content.end()?;
        Ok(ticket)
    }
}

/// Lets `T` be parsed and printed where only one kind of ticket will do.
macro_rules! single_kind {
    ($name:ident, $variant:ident, $wanted:literal) => {
        impl FromStr for $name {
            type Err = TicketError;

            fn from_str(text: &str) -> Result<Self, TicketError> {
                match text.parse()? {
                    Ticket::$variant(ticket) => Ok(ticket),
                    other => Err(other.wrong_kind($wanted)),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                Ticket::$variant(self.clone()).fmt(f)
            }
        }
    };
}

single_kind!(RelayTicket, Relay, "a relay's ticket");
single_kind!(InviteTicket, Invite, "an invite");
single_kind!(ContactTicket, Contact, "a contact's ticket");
single_kind!(GuestTicket, Guest, "a guest's ticket");

fn checksum(kind: char, content: &[u8]) -> [u8; CHECKSUM_LEN] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[kind as u8]).update(content);
    let mut checksum = [0; CHECKSUM_LEN];
    checksum.copy_from_slice(&hasher.finalize().as_bytes()[..CHECKSUM_LEN]);
    checksum
}

fn put_invite(out: &mut Vec<u8>, InviteTicket { relay, token }: &InviteTicket) {
    put_relay(out, relay);
    out.extend(token.id);
    varint::put(out, token.uses.into());
    varint::put(out, token.expires_unix_s);
    out.extend(token.mac);
}

fn put_contact(out: &mut Vec<u8>, ticket: &ContactTicket) {
    // What models there are stands at the end of a ticket, which need not have it.
    let ContactTicket { account, seal, signature, token, relays, models: _ } = ticket;
    for key in [account.0, seal.identity, seal.pre_key, seal.envelope] {
        out.extend(key);
    }
    out.extend(signature.to_bytes());
    out.extend(token.0);
    out.push(relays.len() as u8);
    relays.iter().for_each(|relay| put_relay(out, relay));
}

fn put_models(out: &mut Vec<u8>, models: &ModelSet) {
    if !models.is_empty() {
        models.encode(out);
    }
}

fn put_relay(out: &mut Vec<u8>, relay: &RelayTicket) {
    out.extend(relay.key.0);
    out.push(relay.addresses.len() as u8);
    for address in &relay.addresses {
        match address.ip() {
            IpAddr::V4(ip) => {
                out.push(4);
                out.extend(ip.octets());
            }
            IpAddr::V6(ip) => {
                out.push(6);
                out.extend(ip.octets());
            }
        }
        out.extend(address.port().to_be_bytes());
    }
}

/// A cursor over a ticket's content whose checksum has been verified.
struct Content<'a>(&'a [u8]);

impl Content<'_> {
    fn end(&self) -> Result<(), TicketError> {
        if self.0.is_empty() { Ok(()) } else { Err(TicketError::Malformed("bytes follow its end")) }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], TicketError> {
        let (array, rest) = self.0.split_first_chunk().ok_or(TicketError::Malformed("it ends too early"))?;
        self.0 = rest;
        Ok(*array)
    }

    fn count(&mut self, max: usize, what: &'static str) -> Result<u8, TicketError> {
        let [count] = self.array()?;
        if count == 0 || usize::from(count) > max { Err(TicketError::Malformed(what)) } else { Ok(count) }
    }

    fn number(&mut self) -> Result<u64, TicketError> {
        varint::take(&mut self.0)
            .map_err(|_| TicketError::Malformed("a number is out of range, or written in a longer form"))
    }

    fn relay(&mut self) -> Result<RelayTicket, TicketError> {
        let key = RelayKey(self.array()?);
        let count = self.count(TICKET_ADDRESSES_MAX, "the count of addresses is out of range")?;
        let address = |content: &mut Self| {
            let ip = match content.array()? {
                [4] => IpAddr::V4(Ipv4Addr::from(content.array::<4>()?)),
                [6] => IpAddr::V6(Ipv6Addr::from(content.array::<16>()?)),
                _ => return Err(TicketError::Malformed("an address of an unknown kind")),
            };
            Ok(SocketAddr::new(ip, u16::from_be_bytes(content.array()?)))
        };
        let addresses = (0..count).map(|_| address(self)).collect::<Result<_, _>>()?;
        Ok(RelayTicket { key, addresses })
    }

    fn invite(&mut self) -> Result<InviteTicket, TicketError> {
        Ok(InviteTicket { relay: self.relay()?, token: self.token()? })
    }

    fn name(&mut self) -> Result<String, TicketError> {
        let count = self.count(HOST_NAME_BYTES_MAX, "the length of a name is out of range")?;
        let name =
            self.0.split_off(..usize::from(count)).ok_or(TicketError::Malformed("it ends too early"))?;
        let name = std::str::from_utf8(name).map_err(|_| TicketError::Malformed("a name is no text"))?;
        Ok(name.to_owned())
    }

    fn token(&mut self) -> Result<InviteToken, TicketError> {
        let id = self.array()?;
        let uses =
            self.number()?.try_into().map_err(|_| TicketError::Malformed("the uses are out of range"))?;
        Ok(InviteToken { id, uses, expires_unix_s: self.number()?, mac: self.array()? })
    }

    fn contact(&mut self) -> Result<ContactTicket, TicketError> {
        let account = AccountKey(self.array()?);
        let seal = SealKeys { identity: self.array()?, pre_key: self.array()?, envelope: self.array()? };
        let signature = Signature::from_bytes(&self.array()?);
        let token = Token(self.array()?);
        let count = self.count(TICKET_RELAYS_MAX, "the count of relays is out of range")?;
        let relays = (0..count).map(|_| self.relay()).collect::<Result<_, _>>()?;
        Ok(ContactTicket { account, seal, signature, token, relays, models: ModelSet::EMPTY })
    }

    fn models(&mut self) -> Result<ModelSet, TicketError> {
        if self.0.is_empty() {
            return Ok(ModelSet::EMPTY);
        }
        let models = ModelSet::decode(&mut self.0).filter(|models| !models.is_empty());
        models.ok_or(TicketError::Malformed("the list of text models is damaged"))
    }
}

#[cfg(test)]
mod tests;
