//! The numbers that bound what one end may ask of the other. `PROTOCOL.md` lists them.

/// Largest envelope body, bytes.
pub const BODY_BYTES_MAX: usize = 64 * 1024;

/// Largest frame, bytes: a body and the widest header around it.
pub const FRAME_BYTES_MAX: usize = BODY_BYTES_MAX + 256;

/// Largest content of one batch after decoding, bytes. It bounds what a hostile datagram can make a
/// decoder allocate; senders stay below [`BATCH_CONTENT_BYTES`].
pub const BATCH_DECODED_BYTES_MAX: usize = 8 * 1024;

/// Most content that a sender gathers into one batch before coding, bytes.
pub const BATCH_CONTENT_BYTES: usize = 4 * 1024;

/// Most numbered items that may be on their way unsettled in one direction.
pub const WINDOW_ITEMS: u64 = 512;

/// Most bytes of items that a receiver holds while a gap before them is open.
pub const HOLD_BYTES_MAX: usize = 256 * 1024;

/// Most ranges in one acknowledgement.
pub const ACK_RANGES_MAX: usize = 32;

/// Most addresses in a relay ticket.
pub const TICKET_ADDRESSES_MAX: usize = 8;

/// Most relays in a contact ticket.
pub const TICKET_RELAYS_MAX: usize = 4;

/// Longest text of any ticket, characters. Decoding refuses more before it looks inside.
pub const TICKET_CHARS_MAX: usize = 2_560;

/// Most handles in one table.
pub const HANDLES_MAX: u16 = 16_383;

/// Most one-time keys of a device that a relay keeps.
pub const ONE_TIME_KEYS_MAX: usize = 50;

/// How many accepted sequence numbers of one incarnation a relay can compare repeats with.
pub const DIGESTS_KEPT: u64 = 1_024;

/// Longest object, bytes.
pub const OBJECT_BYTES_MAX: u64 = 16 << 20;

/// Most transfers of objects that are open on a link at a time.
pub const TRANSFERS_MAX: usize = 8;
