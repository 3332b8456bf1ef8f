//! Olm's messages without what their recipient knows: version, tags and lengths of fields, and in a pre-key
//! message which of the recipient's keys it is for.

use vodozemac::olm::{Message, PreKeyMessage, SessionKeys};

/// Olm's version with which every message of [`SessionConfig::version_1`] begins.
///
/// [`SessionConfig::version_1`]: vodozemac::olm::SessionConfig::version_1
const VERSION: u8 = 3;

/// Tags of a message's fields, and of a pre-key message's, as Olm writes them.
const RATCHET_KEY: u8 = 0x0a;
const CHAIN_INDEX: u8 = 0x10;
const CIPHERTEXT: u8 = 0x22;
const ONE_TIME_KEY: u8 = 0x0a;
const BASE_KEY: u8 = 0x12;
const IDENTITY_KEY: u8 = 0x1a;
const MESSAGE: u8 = 0x22;

/// The authentication code at the end of a message, bytes.
const MAC_BYTES: usize = 8;

/// A message without its version, tags and lengths: its ratchet key, its place in the chain, and the rest.
pub(super) fn bare(message: &Message) -> Vec<u8> {
    let whole = message.to_bytes();
    let mut out = Vec::with_capacity(whole.len());
    out.extend(message.ratchet_key().as_bytes());
    put_varint(&mut out, message.chain_index());
    out.extend(message.ciphertext());
    out.extend(&whole[whole.len() - MAC_BYTES..]);
    out
}

/// Reads [`bare`]; `None` if it is something else, or not as it would be written: what is authenticated is what
/// was read, and there is more than one way to write a number.
pub(super) fn unbare(bytes: &[u8]) -> Option<Message> {
    let (ratchet_key, rest) = bytes.split_first_chunk::<32>()?;
    let index_ends = rest.iter().position(|byte| byte & 0x80 == 0)? + 1;
    let (index, rest) = rest.split_at(index_ends);
    let (ciphertext, mac) = rest.split_at_checked(rest.len().checked_sub(MAC_BYTES)?)?;
    let mut whole = vec![VERSION];
    put_field(&mut whole, RATCHET_KEY, ratchet_key);
    whole.push(CHAIN_INDEX);
    whole.extend(index);
    put_field(&mut whole, CIPHERTEXT, ciphertext);
    whole.extend(mac);
    Message::from_bytes(&whole).ok().filter(|message| message.to_bytes() == whole)
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_field(out: &mut Vec<u8>, tag: u8, field: &[u8]) {
    out.push(tag);
    put_varint(out, field.len() as u64);
    out.extend(field);
}

/// The session is made with the pre-key of the ticket.
const TICKET_KEY: u8 = 0;
/// The key that it is made with follows.
const OTHER_KEY: u8 = 1;

/// The message, for somebody whose ticket has this pre-key.
pub(super) fn encode(message: &PreKeyMessage, pre_key: &[u8; 32]) -> Vec<u8> {
    let SessionKeys { identity_key, base_key, one_time_key } = message.session_keys();
    let mut out = Vec::with_capacity(256);
    if one_time_key.as_bytes() == pre_key {
        out.push(TICKET_KEY);
    } else {
        out.push(OTHER_KEY);
        out.extend(one_time_key.as_bytes());
    }
    out.extend(base_key.as_bytes());
    out.extend(identity_key.as_bytes());
    out.extend(bare(message.message()));
    out
}

/// Reads [`encode`]; `None` if it is something else.
pub(super) fn decode(bytes: &[u8], pre_key: &[u8; 32]) -> Option<PreKeyMessage> {
    let (kind, mut rest) = bytes.split_first()?;
    let mut key = || {
        let (key, after) = rest.split_first_chunk::<32>()?;
        rest = after;
        Some(key)
    };
    let one_time_key = match *kind {
        TICKET_KEY => pre_key,
        OTHER_KEY => key()?,
        _ => return None,
    };
    let (base_key, identity_key) = (key()?, key()?);
    let mut whole = vec![VERSION];
    for (tag, field) in [(ONE_TIME_KEY, one_time_key), (BASE_KEY, base_key), (IDENTITY_KEY, identity_key)] {
        put_field(&mut whole, tag, field);
    }
    put_field(&mut whole, MESSAGE, &unbare(rest)?.to_bytes());
    PreKeyMessage::from_bytes(&whole).ok()
}
