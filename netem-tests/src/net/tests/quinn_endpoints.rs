//! Two real quinn endpoints on a virtual network.

use quinn::{
    ClientConfig, ConnectionId, ConnectionIdGenerator, Endpoint, EndpointConfig, ServerConfig,
    TransportConfig,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use rustls::{
    DigitallySignedStruct, DistinguishedName, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring as provider, verify_tls13_signature_with_raw_key},
    pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime},
    server::AlwaysResolvesServerRawPublicKeys,
    sign::CertifiedKey,
};

use super::*;

/// All that one run of a world showed.
#[derive(Debug, PartialEq)]
struct Outcome {
    connected_at: Duration,
    /// When each echo came back, and its number.
    echoes: Vec<(Duration, u8)>,
    counters: PathCounters,
    traces: Vec<Trace>,
}

/// A phone behind `profile` sends a datagram of 40 bytes a second; the relay echoes what arrives.
fn echo_world(profile: &str, seed: u64) -> Outcome {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let net = Net::new(seed);
        let traces = record(&net);
        net.attach_profile(phone().ip(), &Profile::named(profile).unwrap());
        let server = endpoint(&net, relay(), 1, Some(server_config()));
        let client = endpoint(&net, phone(), 2, None);

        let echoing = tokio::spawn(async move {
            let connection = server.accept().await.expect("endpoint closed").await.expect("no handshake");
            while let Ok(datagram) = connection.read_datagram().await {
                connection.send_datagram(datagram).expect("echo");
            }
        });

        let connecting = client.connect_with(client_config(), relay(), "relay").unwrap();
        let connection = connecting.await.unwrap();
        let connected_at = net.now();
        let sender = connection.clone();
        let sending = tokio::spawn(async move {
            for number in 0..20u8 {
                sender.send_datagram(vec![number; 40].into()).expect("send");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
        let mut echoes = Vec::new();
        while let Ok(Ok(datagram)) =
            tokio::time::timeout(Duration::from_secs(20), connection.read_datagram()).await
        {
            echoes.push((net.now(), datagram[0]));
        }
        sending.await.unwrap();
        connection.close(0u32.into(), b"");
        echoing.await.unwrap();
        client.wait_idle().await;
        let traces = traces.lock().unwrap().clone();
        Outcome { connected_at, echoes, counters: net.counters(phone().ip()), traces }
    })
}

#[test]
fn quinn_exchanges_datagrams_over_gprs_at_the_speed_of_gprs() {
    let outcome = echo_world("gprs", 1);
    assert!(outcome.connected_at >= Duration::from_millis(2 * (300 - 80)), "{:?}", outcome.connected_at);
    assert!(outcome.connected_at <= Duration::from_secs(30), "{:?}", outcome.connected_at);
    assert!(outcome.echoes.len() >= 10, "only {} of 20 came back", outcome.echoes.len());
    for &(at, number) in &outcome.echoes {
        let sent_at = outcome.connected_at + Duration::from_secs(1) * u32::from(number);
        assert!(
            at - sent_at >= Duration::from_millis(2 * (300 - 80)),
            "echo {number} after {:?}",
            at - sent_at
        );
    }
    // At least one datagram of 1,200 bytes for the handshake, and 20 packets of 40 bytes and headers.
    assert!(outcome.counters.up.offered.ip_bytes >= (1_200 + 28) + 20 * (40 + 28));
    assert_eq!(outcome.counters.up.under_way().packets, 0);
}

#[test]
fn the_same_seed_gives_the_same_times_and_bytes() {
    for profile in ["gprs", "gprs-bad-t"] {
        assert_eq!(echo_world(profile, 7), echo_world(profile, 7), "{profile}");
    }
    assert_ne!(echo_world("gprs", 7).traces, echo_world("gprs", 8).traces);
}

#[test]
fn a_rebound_phone_keeps_its_connection() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let net = Net::new(3);
        net.attach_profile(phone().ip(), &Profile::named("umts").unwrap());
        let server = endpoint(&net, relay(), 1, Some(server_config()));
        let client = endpoint(&net, phone(), 2, None);
        let accepting = tokio::spawn(async move { server.accept().await.expect("endpoint closed").await });
        let connection = client.connect_with(client_config(), relay(), "relay").unwrap().await.unwrap();
        let accepted = accepting.await.unwrap().unwrap();
        assert_eq!(accepted.remote_address(), phone());

        let public = addr("198.51.100.9:61000");
        net.rebind(phone(), public).unwrap();
        for _ in 0..10 {
            connection.send_datagram(b"still here".as_slice().into()).unwrap();
        }
        assert_eq!(accepted.read_datagram().await.unwrap(), b"still here".as_slice());
        assert_eq!(accepted.remote_address(), public);
    });
}

fn endpoint(net: &Net, at: SocketAddr, seed: u8, server: Option<ServerConfig>) -> Endpoint {
    let reset_key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &[seed; 32]);
    let mut config = EndpointConfig::new(Arc::new(reset_key));
    config.rng_seed(Some([seed; 32]));
    config.cid_generator(move || Box::new(CountedCids { prefix: seed, next: 0 }));
    let socket = net.host(at).unwrap();
    Endpoint::new_with_abstract_socket(config, server, socket, net.runtime()).unwrap()
}

/// Connection ids in order: quinn's own generators draw from the system.
struct CountedCids {
    prefix: u8,
    next: u32,
}

impl ConnectionIdGenerator for CountedCids {
    fn generate_cid(&mut self) -> ConnectionId {
        self.next += 1;
        let mut cid = [self.prefix; 5];
        cid[1..].copy_from_slice(&self.next.to_be_bytes());
        ConnectionId::new(&cid)
    }

    fn cid_len(&self) -> usize {
        5
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

fn transport() -> Arc<TransportConfig> {
    let mut transport = TransportConfig::default();
    transport.initial_rtt(Duration::from_millis(800)).mtu_discovery_config(None);
    // So that a side whose peer's farewell was lost ends too.
    transport.max_idle_timeout(Some(Duration::from_secs(60).try_into().unwrap()));
    Arc::new(transport)
}

/// A PKCS #8 document of an Ed25519 key (RFC 8410) is this and the 32 bytes of its seed.
const PKCS8_ED25519: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

fn server_config() -> ServerConfig {
    let pkcs8 = [PKCS8_ED25519.as_slice(), &[5; 32]].concat();
    let key = provider::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(pkcs8)).unwrap();
    let spki = CertificateDer::from(key.public_key().unwrap().to_vec());
    let resolver = AlwaysResolvesServerRawPublicKeys::new(Arc::new(CertifiedKey::new(vec![spki], key)));
    let tls = rustls::ServerConfig::builder_with_provider(Arc::new(provider::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(resolver));
    let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()));
    config.transport_config(transport());
    config
}

fn client_config() -> ClientConfig {
    let provider = Arc::new(provider::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyRawKey(provider)))
        .with_no_client_auth();
    let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    config.transport_config(transport());
    config.initial_dst_cid_provider(Arc::new(|| ConnectionId::new(&[9; 8])));
    config
}

/// Takes any raw public key whose owner signs with it: who the relay is does not matter to a test of the network.
#[derive(Debug)]
struct AnyRawKey(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyRawKey {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("QUIC has no TLS 1.2".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let spki = SubjectPublicKeyInfoDer::from(cert.as_ref());
        verify_tls13_signature_with_raw_key(
            message,
            &spki,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }

    fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
        None
    }
}
