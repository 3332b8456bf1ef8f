//! Olm's messages without what their recipient knows: the version, and in a pre-key message which of the
//! recipient's keys it is for, 41 bytes.

use vodozemac::olm::{Message, PreKeyMessage, SessionKeys};

/// Olm's version with which every message of [`SessionConfig::version_1`] begins.
///
/// [`SessionConfig::version_1`]: vodozemac::olm::SessionConfig::version_1
const VERSION: u8 = 3;

/// A message without its version.
pub(super) fn bare(message: &Message) -> Vec<u8> {
    message.to_bytes().split_off(1)
}

/// Reads [`bare`]; `None` if it is something else, or not as Olm would write it: what is authenticated is
/// what was read, and there is more than one way to write it.
pub(super) fn unbare(bytes: &[u8]) -> Option<Message> {
    let whole = [&[VERSION], bytes].concat();
    Message::from_bytes(&whole).ok().filter(|message| message.to_bytes() == whole)
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
    // As Olm writes it: a version, then fields with tag and length.
    let mut whole = vec![VERSION];
    for (tag, field) in [(0x0a, one_time_key), (0x12, base_key), (0x1a, identity_key)] {
        whole.extend([tag, 32]);
        whole.extend(field);
    }
    whole.push(0x22);
    let mut length = 1 + rest.len();
    while length >= 0x80 {
        whole.push(length as u8 | 0x80);
        length >>= 7;
    }
    whole.push(length as u8);
    whole.push(VERSION);
    whole.extend(rest);
    PreKeyMessage::from_bytes(&whole).ok()
}
