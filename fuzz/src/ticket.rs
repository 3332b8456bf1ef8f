//! Tickets, as a person pastes them, and as a stranger sends them inside a seal.

use data_encoding::BASE32_NOPAD;
use thinpost_wire::ticket::{ContactTicket, Ticket, TicketError};

/// The first byte says that the rest is the content of a ticket of this kind, whose text is made here, as no search would find
/// its checksum; or else all is text, and what a stranger sends.
///
/// # Panics
/// When what was read is not written as what reads as the same.
pub fn run(bytes: &[u8]) {
    match bytes.split_first() {
        Some((&kind @ (b'r' | b'i' | b'c' | b'g'), content)) => {
            let read = as_text(&text_of(kind, content));
            assert!(!matches!(read, Err(TicketError::Checksum | TicketError::NotATicket)), "{read:?}");
        }
        _ => {
            if let Ok(ticket) = ContactTicket::from_bytes(bytes) {
                assert_eq!(ticket.to_bytes(), bytes);
            }
            if let Ok(text) = std::str::from_utf8(bytes) {
                let _ = as_text(text);
            }
        }
    }
}

fn as_text(text: &str) -> Result<(), TicketError> {
    let ticket: Ticket = text.parse()?;
    assert_eq!(ticket.to_string().parse().as_ref(), Ok(&ticket));
    assert_eq!(ticket.to_qr_text().parse(), Ok(ticket));
    Ok(())
}

/// The text of a ticket with this content.
pub(crate) fn text_of(kind: u8, content: &[u8]) -> String {
    let check = blake3::hash(&[&[kind], content].concat());
    let coded = BASE32_NOPAD.encode(&[content, &check.as_bytes()[..4]].concat());
    format!("tp{}1{}", char::from(kind), coded.to_ascii_lowercase())
}
