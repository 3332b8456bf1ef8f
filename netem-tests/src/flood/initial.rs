//! First packets of QUIC made by hand, for those who want no connection.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, anyhow};
use bytes::BytesMut;
use quinn_proto::crypto::rustls::QuicClientConfig;
use quinn_proto::crypto::{ClientConfig as _, Keys, Session};
use quinn_proto::transport_parameters::TransportParameters;
use quinn_proto::{ConnectionId, Endpoint, EndpointConfig, EndpointEvent, Side};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use thinpost_carrier::{Identity, tls};
use thinpost_wire::ids::RelayKey;

/// The shortest datagram with an Initial packet that is answered (RFC 9000, section 14.1), bytes.
pub const DATAGRAM_BYTES: usize = 1_200;

const VERSION: u32 = 1;
const TAG_BYTES: usize = 16;

/// The kind of a packet in its first byte (RFC 9000, section 17.2), and that of a Retry.
const KIND: u8 = 0b1011_0000;
const RETRY: u8 = 0b1011_0000;

/// Whether a datagram asks whoever has sent something to prove where they are.
pub fn is_retry(datagram: &[u8]) -> bool {
    datagram.first().is_some_and(|first| first & KIND == RETRY)
}

/// Makes whole first datagrams, each of a connection of its own that is forgotten at once.
pub struct Openings {
    endpoint: Endpoint,
    config: quinn_proto::ClientConfig,
}

impl Openings {
    /// Those of devices that want to reach the relay with this key.
    ///
    /// # Errors
    /// When TLS has no suite for QUIC.
    pub fn new(relay: RelayKey, seed: [u8; 32]) -> Result<Self> {
        let crypto = QuicClientConfig::try_from(tls::client(&Identity::from_seed(seed), relay))?;
        let mut config = EndpointConfig::default();
        config.rng_seed(Some(seed));
        let endpoint = Endpoint::new(Arc::new(config), None, false, None);
        Ok(Self { endpoint, config: quinn_proto::ClientConfig::new(Arc::new(crypto)) })
    }

    /// The next.
    ///
    /// # Errors
    /// When there is no way to such an address.
    pub fn next(&mut self, relay: std::net::SocketAddr) -> Result<Vec<u8>> {
        let now = Instant::now();
        let (handle, mut connection) = self.endpoint.connect(now, self.config.clone(), relay, "relay")?;
        let mut datagram = Vec::with_capacity(DATAGRAM_BYTES);
        let opening = connection.poll_transmit(now, 1, &mut datagram);
        anyhow::ensure!(opening.is_some(), "a connection begins with a datagram");
        self.endpoint.handle_event(handle, EndpointEvent::drained());
        Ok(datagram)
    }
}

/// The beginning of a handshake, byte by byte.
pub struct Crumbs {
    session: Box<dyn Session>,
    keys: Keys,
    header: Vec<u8>,
    /// What a device says first.
    hello: Vec<u8>,
    packets: u32,
}

impl Crumbs {
    /// Those of a device that wants to reach the relay with this key.
    ///
    /// # Errors
    /// When TLS has nothing to say.
    pub fn new(relay: RelayKey, rng: &mut ChaCha8Rng) -> Result<Self> {
        let mut seed = [0; 32];
        rng.fill_bytes(&mut seed);
        let crypto = Arc::new(QuicClientConfig::try_from(tls::client(&Identity::from_seed(seed), relay))?);
        // None: what they would say does not come to an end.
        let params = TransportParameters::read(Side::Server, &mut &[][..])
            .map_err(|error| anyhow!("no transport parameters: {error:?}"))?;
        let mut session = crypto.start_session(VERSION, "relay", &params)?;
        let mut hello = Vec::new();
        session.write_handshake(&mut hello);
        let id = &seed[..8];
        let keys = session.initial_keys(&ConnectionId::new(id), Side::Client);
        Ok(Self { session, keys, header: header(id, &[]), hello, packets: 0 })
    }

    /// Proves where it is to a relay that has asked for it. Whether it had: this is a Retry.
    pub fn prove(&mut self, datagram: &[u8]) -> bool {
        let retry = is_retry(datagram).then(|| retry_parts(datagram)).flatten();
        let Some((id, token)) = retry else { return false };
        self.keys = self.session.initial_keys(&ConnectionId::new(id), Side::Client);
        self.header = header(id, token);
        true
    }

    /// Whether a datagram is the relay's part of this handshake.
    pub fn is_answered_by(&self, datagram: &[u8]) -> bool {
        self.frames(datagram).is_some()
    }

    /// How long all of it is, bytes.
    pub fn hello_bytes(&self) -> usize {
        self.hello.len()
    }

    /// A datagram with the byte of this place, and nothing else but padding.
    pub fn datagram(&mut self, at: usize) -> Vec<u8> {
        let mut datagram = self.header.clone();
        let length_at = datagram.len();
        let number_at = length_at + 2;
        datagram.extend((0x4000 | (DATAGRAM_BYTES - number_at) as u16).to_be_bytes());
        datagram.extend(self.packets.to_be_bytes());
        let header_bytes = datagram.len();
        // A CRYPTO frame (RFC 9000, section 19.6) of one byte.
        datagram.push(0x06);
        datagram.extend((0x4000 | at as u16).to_be_bytes());
        datagram.extend([1, self.hello[at % self.hello.len()]]);
        datagram.resize(DATAGRAM_BYTES, 0);
        debug_assert!(datagram.len() > header_bytes + TAG_BYTES);
        self.keys.packet.local.encrypt(u64::from(self.packets), &mut datagram, header_bytes);
        self.keys.header.local.encrypt(number_at, &mut datagram);
        self.packets += 1;
        datagram
    }

    /// Whether a datagram of the relay's ends the connection.
    pub fn is_ended_by(&self, datagram: &[u8]) -> bool {
        self.frames(datagram).is_some_and(|frames| ends(&frames))
    }

    /// What stands in the Initial packet that the relay's datagram begins with; none if that is something else.
    fn frames(&self, datagram: &[u8]) -> Option<Vec<u8>> {
        // First byte and version; an id of none for us; the relay's; no token; the length.
        let relay_id_bytes = usize::from(*datagram.get(6)?);
        let length_at = 6 + 1 + relay_id_bytes + 1;
        if datagram[0] & KIND != 0b1000_0000 || datagram.get(length_at - 1) != Some(&0) {
            return None;
        }
        let mut rest = datagram.get(length_at..)?;
        let length = varint(&mut rest)? as usize;
        let number_at = datagram.len() - rest.len();
        let mut packet = datagram.get(..number_at + length)?.to_vec();
        self.keys.header.remote.decrypt(number_at, &mut packet);
        let number_bytes = usize::from(packet[0] & 0b11) + 1;
        let number = packet[number_at..][..number_bytes].iter().fold(0, |n, byte| n << 8 | u64::from(*byte));
        let (header, payload) = packet.split_at(number_at + number_bytes);
        let mut payload = BytesMut::from(payload);
        self.keys.packet.remote.decrypt(number, header, &mut payload).ok()?;
        Some(payload.to_vec())
    }
}

/// A long header of an Initial with a packet number of four bytes, for whoever has this id, with none of its own.
fn header(id: &[u8], token: &[u8]) -> Vec<u8> {
    let mut header = vec![0b1100_0011];
    header.extend(VERSION.to_be_bytes());
    header.push(id.len() as u8);
    header.extend(id);
    header.push(0);
    header.extend((0x4000 | token.len() as u16).to_be_bytes());
    header.extend(token);
    header
}

/// The relay's id in a Retry, and its token (RFC 9000, section 17.2.5). It goes to an id of none.
fn retry_parts(datagram: &[u8]) -> Option<(&[u8], &[u8])> {
    let id_bytes = usize::from(*datagram.get(6)?);
    let (id, rest) = datagram.get(7..)?.split_at_checked(id_bytes)?;
    Some((id, rest.get(..rest.len().checked_sub(TAG_BYTES)?)?))
}

/// Whether there is a CONNECTION_CLOSE among these frames of an Initial packet, before anything but PADDING, PING and ACK
/// (RFC 9000, section 19).
fn ends(mut frames: &[u8]) -> bool {
    while let Some(kind) = varint(&mut frames) {
        match kind {
            0x00 | 0x01 => {}
            0x02 => {
                let mut numbers = std::iter::from_fn(|| varint(&mut frames));
                let ranges = numbers.nth(2).unwrap_or(0);
                // The first range, and two numbers for each other.
                let _ = numbers.nth(2 * ranges as usize);
            }
            kind => return kind == 0x1c,
        }
    }
    false
}

/// A number of variable length (RFC 9000, section 16).
fn varint(from: &mut &[u8]) -> Option<u64> {
    let len = 1 << (from.first()? >> 6);
    let (number, rest) = from.split_at_checked(len)?;
    *from = rest;
    let first = u64::from(number[0] & 0b0011_1111);
    Some(number[1..].iter().fold(first, |n, byte| n << 8 | u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_the_rfc_shows() {
        let cases: [(&[u8], u64); 3] =
            [(&[0x25], 37), (&[0x7b, 0xbd], 15_293), (&[0x9d, 0x7f, 0x3e, 0x7d], 494_878_333)];
        for (mut bytes, number) in cases {
            assert_eq!((varint(&mut bytes), bytes.len()), (Some(number), 0));
        }
        assert_eq!(varint(&mut &[0x40_u8][..]), None);
    }

    #[test]
    fn a_retry_is_taken_apart() {
        let retry = [&[0xf0, 0, 0, 0, 1, 0, 3, 7, 8, 9, 1, 2][..], &[0; TAG_BYTES]].concat();
        assert!(is_retry(&retry));
        assert_eq!(retry_parts(&retry), Some((&[7, 8, 9][..], &[1, 2][..])));
        assert_eq!(retry_parts(&retry[..20]), None);
    }

    #[test]
    fn an_end_is_found_behind_an_acknowledgement() {
        // ACK of 5 and of 2 to 3 (gap 0, range 1), PADDING, CONNECTION_CLOSE.
        assert!(ends(&[0x02, 5, 0, 1, 0, 0, 1, 0x00, 0x1c, 0x0a, 0, 0]));
        assert!(!ends(&[0x02, 5, 0, 0, 5, 0x01, 0x00]));
        assert!(!ends(&[0x06, 0, 1, 0x1c]));
    }
}
