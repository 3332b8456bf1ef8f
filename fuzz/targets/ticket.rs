//! Tickets, as a person pastes them, and as a stranger sends them inside a seal.

#![no_main]

use libfuzzer_sys::fuzz_target;
use thinpost_wire::ticket::{ContactTicket, Ticket};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(ticket) = ContactTicket::from_bytes(bytes) {
        assert_eq!(ticket.to_bytes(), bytes);
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(ticket) = text.parse::<Ticket>() {
        assert_eq!(ticket.to_string().parse(), Ok(ticket));
    }
});
