//! Tickets, as a person pastes them.

#![no_main]

use libfuzzer_sys::fuzz_target;
use thinpost_wire::ticket::Ticket;

fuzz_target!(|text: &str| {
    if let Ok(ticket) = text.parse::<Ticket>() {
        assert_eq!(ticket.to_string().parse(), Ok(ticket));
    }
});
