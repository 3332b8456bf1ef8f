//! QUIC, set for links of 8 to 400 kbit/s. `docs/decisions/0002-quic-settings.md` says why each value.

use std::sync::Arc;
use std::time::Duration;

use quinn_proto::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn_proto::{
    ClientConfig, EndpointConfig, IdleTimeout, RandomConnectionIdGenerator, ServerConfig, TransportConfig,
    VarInt,
};
use rustls::server::StoresServerSessions;
use thinpost_wire::ids::RelayKey;

use crate::clock::for_quic;
use crate::packets::Packets;
use crate::{Identity, tls};

/// QUIC's smallest permitted path MTU. Looking for a larger one costs 5.6 kB a connection each way.
pub(crate) const MTU: u16 = 1_200;

/// The smallest bound on a datagram that a path of [`MTU`] and any connection id can have is some more. Whoever takes less bounds it
/// at will, and an item does not fit.
pub(crate) const DATAGRAM_MIN: usize = 1_100;

/// The largest first datagram of a link: it fits beside what QUIC says in its first packets, which are padded to
/// [`MTU`] in any case.
pub(crate) const FIRST_DATAGRAM_MAX: usize = 760;

/// The longest frame that certainly fits into that, whatever stands beside it.
pub(crate) const FIRST_FRAME_MAX: usize = FIRST_DATAGRAM_MAX - 100;

/// Bytes of datagrams that may wait for the link's shell; beyond it the oldest is dropped.
const RECEIVE_BUFFER_BYTES: usize = 64 * 1024;

/// Bytes of datagrams that may wait in QUIC: above what a link ever has on its way.
const SEND_BUFFER_BYTES: usize = 128 * 1024;

/// What a relay believes a round trip to take until one is measured. A handshake takes 2.6 s on 12 kbit/s, most of it the air
/// time of its datagrams of 1,200 bytes, and whoever repeats two of them after less makes it last a second longer.
const RTT_ASSUMED: Duration = Duration::from_secs(1);

/// Length of a relay's connection ids, bytes. They travel in every packet from a device; four tell
/// far more connections apart than a relay can hold.
const RELAY_CID_LEN: usize = 4;

/// A relay sends one stateless reset in this time: after a restart, a thousand devices hear of it within a second. Each is
/// smaller than the packet that it answers, so that forged ones make nothing larger of themselves.
const RESET_INTERVAL: Duration = Duration::from_millis(1);

/// The name under which a device files the relay's TLS session. Nobody sees it: SNI is off.
pub(crate) const SERVER_NAME: &str = "relay.thinpost";

/// A proof of where a device is may come so long after a Retry. QUIC's 15 s are over when a burst has taken five repeats of it: then the
/// relay refuses the device, which begins anew.
const RETRY_TOKEN_LIFETIME: Duration = Duration::from_secs(60);

/// What a relay bounds its endpoint by.
#[derive(Clone, Copy, Debug)]
pub struct ServerLimits {
    /// Silence after which a connection is forgotten.
    pub idle_timeout: Duration,
    /// Handshakes that may wait to be looked at.
    pub incoming_max: usize,
    /// Bytes that may wait for one of them, and for all.
    pub incoming_bytes_max: (u64, u64),
    /// Connections that are seen to their end at a time: each answers latecomers for up to a minute. Beyond it, whoever comes late
    /// hears that the connection is forgotten.
    pub finishing_max: usize,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            idle_timeout: Duration::from_secs(12 * 3600),
            incoming_max: 4_096,
            incoming_bytes_max: (16 * 1024, 16 * 1024 * 1024),
            finishing_max: 625,
        }
    }
}

/// For one connection, whose packets are counted.
fn transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(0))
        .receive_window(VarInt::from_u32(0))
        .send_window(0)
        .crypto_buffer_size(8 * 1024)
        .initial_mtu(MTU)
        .min_mtu(MTU)
        .mtu_discovery_config(None)
        .allow_spin(false)
        .datagram_receive_buffer_size(Some(RECEIVE_BUFFER_BYTES))
        .datagram_send_buffer_size(SEND_BUFFER_BYTES)
        .congestion_controller_factory(Arc::new(Packets::default()))
        .enable_segmentation_offload(false);
    transport
}

/// A relay's side.
#[derive(Debug)]
pub struct Server {
    config: ServerConfig,
    pub(crate) idle_timeout: Duration,
    pub(crate) finishing_max: usize,
}

impl Server {
    /// The configuration of one connection.
    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        let mut transport = transport();
        transport.initial_rtt(for_quic(RTT_ASSUMED));
        transport.max_idle_timeout(Some(
            for_quic(self.idle_timeout).try_into().unwrap_or(IdleTimeout::from(VarInt::MAX)),
        ));
        let mut config = self.config.clone();
        config.transport_config(Arc::new(transport));
        Arc::new(config)
    }
}

/// How a relay with this key speaks to devices.
pub fn server(identity: &Identity, sessions: Arc<dyn StoresServerSessions>, limits: ServerLimits) -> Server {
    let crypto = QuicServerConfig::try_from(tls::server(identity, sessions))
        .expect("the cipher suites include QUIC's initial one");
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    config.validation_token.sent(0);
    config
        .max_incoming(limits.incoming_max)
        .retry_token_lifetime(RETRY_TOKEN_LIFETIME)
        .incoming_buffer_size(limits.incoming_bytes_max.0)
        .incoming_buffer_size_total(limits.incoming_bytes_max.1);
    let ServerLimits { idle_timeout, finishing_max, .. } = limits;
    Server { config, idle_timeout, finishing_max }
}

/// A device's side, for one relay. Keep it for as long as the process lives: 0-RTT needs the session
/// that the last connection left in it.
#[derive(Clone)]
pub struct Client {
    crypto: Arc<QuicClientConfig>,
    /// The largest datagram frame that it takes, bytes.
    #[cfg(test)]
    pub(crate) datagram_bytes_max: Option<usize>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

impl Client {
    /// How a device speaks to the relay with this key, and to no other.
    pub fn new(identity: &Identity, relay: RelayKey) -> Self {
        let crypto = QuicClientConfig::try_from(tls::client(identity, relay))
            .expect("the cipher suites include QUIC's initial one");
        Self {
            crypto: Arc::new(crypto),
            #[cfg(test)]
            datagram_bytes_max: None,
        }
    }

    /// The configuration of the next connection, given what a round trip is believed to take. Until one
    /// is measured, probes leave after three times that.
    pub(crate) fn config(&self, initial_rtt: Duration) -> ClientConfig {
        let mut transport = transport();
        transport.initial_rtt(for_quic(initial_rtt));
        transport.max_idle_timeout(None);
        #[cfg(test)]
        if self.datagram_bytes_max.is_some() {
            transport.datagram_receive_buffer_size(self.datagram_bytes_max);
        }
        let mut config = ClientConfig::new(self.crypto.clone());
        config.transport_config(Arc::new(transport));
        config
    }
}

/// A relay's endpoint: with the same reset key after a restart, it can tell its devices that it has
/// forgotten their connections.
pub fn relay_endpoint(reset_key: [u8; 32], rng_seed: Option<[u8; 32]>) -> EndpointConfig {
    let mut config = EndpointConfig::new(Arc::new(ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &reset_key)));
    config.cid_generator(|| Box::new(RandomConnectionIdGenerator::new(RELAY_CID_LEN)));
    config.min_reset_interval(for_quic(RESET_INTERVAL));
    config.rng_seed(rng_seed);
    config
}

/// A device's endpoint. Its connection ids are empty, so it must carry one connection only.
pub(crate) fn device_endpoint(rng_seed: Option<[u8; 32]>) -> EndpointConfig {
    let mut config = EndpointConfig::default();
    config.cid_generator(|| Box::new(RandomConnectionIdGenerator::new(0)));
    config.rng_seed(rng_seed);
    config
}
