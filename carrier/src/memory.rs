//! What a connection can make a relay hold, beside what its link does ([`crate::Pool`]), where what QUIC remembers of packets that
//! nobody has acknowledged counts, too.

use crate::connection::{CRYPTO_FRAMES_MAX, LATER_CRYPTO_FRAMES_MAX};
use crate::endpoint::{DATAGRAM_BYTES_MAX, DATAGRAMS_OF_EACH};
use crate::packets::{PACKET_BYTES, PACKETS_OF_EACH};
use crate::quic::MTU;
use crate::repeats::OPENING_MAX;

pub use crate::endpoint::SHARED_BYTES_MAX;

/// What a datagram or a packet takes beside its bytes where it waits, bytes: quinn's event, and its place in a queue.
const BESIDE_BYTES: usize = 512;

/// A datagram that waits, bytes.
const WAITING_BYTES: usize = DATAGRAM_BYTES_MAX + BESIDE_BYTES;

/// Most bytes for each connection: what QUIC's and TLS's state take, by measurement (`bench relay --scenario idle`: 28.5 kB with
/// session and link, at rest); what QUIC keeps of packets that nobody has acknowledged; datagrams that wait for their owner; one on its way out; and CRYPTO frames that make no sense.
pub const CONNECTION_BYTES: usize = 29 * 1024
    + PACKETS_OF_EACH * PACKET_BYTES
    + DATAGRAMS_OF_EACH * WAITING_BYTES
    + MTU as usize
    + LATER_CRYPTO_FRAMES_MAX as usize * WAITING_BYTES;

/// Most bytes more until its handshake is complete: the relay's part of it, to be repeated, and what has come of the device's.
pub const HANDSHAKE_BYTES: usize = OPENING_MAX * MTU as usize + CRYPTO_FRAMES_MAX as usize * WAITING_BYTES;

/// Most bytes for each handshake that waits to be looked at, beside what [`crate::quic::ServerLimits`] bounds: its first datagram
/// with the keys for it.
pub const INCOMING_BYTES: usize = WAITING_BYTES + 2 * BESIDE_BYTES;
