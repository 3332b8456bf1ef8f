//! quinn as it is: its own tasks and its defaults, such as Cubic, a first round trip of 333 ms, a search for larger packets, and a hundred
//! streams at a time.
//!
//! What differs:
//!
//! - TLS is what a Thinpost relay and device have, raw public keys and one ticket: certificates would only cost it bytes.
//! - The idle timeout is four hours, longer than any silence here: a connection outlives its outages, and QUIC goes on by itself.
//! - There are no keep-alives, as on the other side: nothing is between the two that forgets them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, Connection, Endpoint, EndpointConfig, RecvStream, ServerConfig, TransportConfig};
use rustls::server::ServerSessionMemoryCache;
use thinpost_carrier::{Identity, tls};
use thinpost_netem::Net;
use thinpost_wire::ids::RelayKey;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Where servers listen, away from a world's relay.
pub(crate) const SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2)), 4433);

/// Silence after which a connection is given up.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4 * 3_600);

/// How the receiver of a message says that it has it.
const CUSTODY: &[u8] = b"ok";

/// Above everything that is sent here.
const MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Sessions that a server remembers.
const SESSIONS: usize = 16;

/// A message that has come, on which of its connection's streams, and when.
#[derive(Debug)]
pub(crate) struct Arrived {
    pub(crate) stream: u64,
    pub(crate) bytes: Vec<u8>,
    pub(crate) at: Instant,
}

pub(crate) type Arrivals = mpsc::UnboundedReceiver<Arrived>;

/// A server that answers every message. Its task ends with the runtime.
#[derive(Debug)]
pub(crate) struct Server {
    /// What comes, over all connections.
    pub(crate) arrivals: Arrivals,
    /// Connections, as soon as their first packet has come.
    pub(crate) connections: mpsc::UnboundedReceiver<Connection>,
}

impl Server {
    /// Listens at [`SERVER`].
    pub(crate) fn start(net: &Net, seed: u64) -> Result<Self> {
        let tls = tls::server(&server_identity(), ServerSessionMemoryCache::new(SESSIONS));
        let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
        config.transport_config(transport()?);
        let endpoint = endpoint(net, SERVER, seed, Some(config))?;
        let (arrived, arrivals) = mpsc::unbounded_channel();
        let (connected, connections) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(incoming) = endpoint.accept().await {
                // A server need not wait for the end of a handshake before it reads early data.
                let Ok(Ok((connection, _))) = incoming.accept().map(quinn::Connecting::into_0rtt) else {
                    continue;
                };
                tokio::spawn(serve(connection.clone(), arrived.clone()));
                if connected.send(connection).is_err() {
                    return;
                }
            }
        });
        Ok(Self { arrivals, connections })
    }
}

/// Somebody who connects to the server, and remembers its TLS session.
#[derive(Debug)]
pub(crate) struct Device {
    endpoint: Endpoint,
    config: ClientConfig,
    arrived: mpsc::UnboundedSender<Arrived>,
    /// What comes from the server, over all connections.
    pub(crate) arrivals: Arrivals,
}

impl Device {
    pub(crate) fn new(net: &Net, ip: IpAddr, seed: u64) -> Result<Self> {
        let server = RelayKey(server_identity().public());
        let tls = tls::client(&Identity::from_seed([0x44; 32]), server);
        let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
        config.transport_config(transport()?);
        let endpoint = endpoint(net, SocketAddr::new(ip, 40_000), seed, None)?;
        let (arrived, arrivals) = mpsc::unbounded_channel();
        Ok(Self { endpoint, config, arrived, arrivals })
    }

    /// A connection of somebody whom the server does not know.
    pub(crate) async fn connect(&self) -> Result<Connection> {
        let connection = self.connecting()?.await?;
        tokio::spawn(serve(connection.clone(), self.arrived.clone()));
        Ok(connection)
    }

    /// A connection on which early data may leave. An error if no session is known.
    pub(crate) fn resume(&self) -> Result<Connection> {
        let Ok((connection, _)) = self.connecting()?.into_0rtt() else { bail!("no session to resume") };
        tokio::spawn(serve(connection.clone(), self.arrived.clone()));
        Ok(connection)
    }

    fn connecting(&self) -> Result<quinn::Connecting> {
        Ok(self.endpoint.connect_with(self.config.clone(), SERVER, "server")?)
    }
}

fn server_identity() -> Identity {
    Identity::from_seed([0x43; 32])
}

fn transport() -> Result<Arc<TransportConfig>> {
    let mut transport = TransportConfig::default();
    transport.max_idle_timeout(Some(IDLE_TIMEOUT.try_into()?));
    Ok(Arc::new(transport))
}

fn endpoint(net: &Net, at: SocketAddr, seed: u64, server: Option<ServerConfig>) -> Result<Endpoint> {
    let mut rng_seed = [0; 32];
    rng_seed[..8].copy_from_slice(&seed.to_be_bytes());
    rng_seed[8..10].copy_from_slice(&at.port().to_be_bytes());
    let mut config = EndpointConfig::default();
    config.rng_seed(Some(rng_seed));
    Ok(Endpoint::new_with_abstract_socket(config, server, net.host(at)?, net.runtime())?)
}

/// Takes what comes on a connection's streams, and answers each once it is there in full.
async fn serve(connection: Connection, arrived: mpsc::UnboundedSender<Arrived>) {
    while let Ok((mut reply, mut message)) = connection.accept_bi().await {
        let arrived = arrived.clone();
        tokio::spawn(async move {
            // A connection that breaks takes its streams along.
            let Ok(bytes) = message.read_to_end(MESSAGE_BYTES_MAX).await else { return };
            let stream = message.id().index();
            drop(arrived.send(Arrived { stream, bytes, at: Instant::now() }));
            drop(reply.write_all(CUSTODY).await);
            drop(reply.finish());
        });
    }
}

/// What was sent.
#[derive(Debug, Default)]
pub(crate) struct Sent(JoinSet<Result<Instant>>);

impl Sent {
    /// Hands a message to a stream of its own, as soon as the other end allows one. `priority`: streams of a lower one wait.
    pub(crate) async fn send(&mut self, connection: &Connection, bytes: &[u8], priority: i32) -> Result<()> {
        let (mut message, reply) = connection.open_bi().await?;
        message.set_priority(priority)?;
        message.write_all(bytes).await?;
        message.finish()?;
        self.0.spawn(answered(reply));
        Ok(())
    }

    /// Waits until all is answered, and says when each was, from the first on.
    pub(crate) async fn answered(mut self) -> Result<Vec<Instant>> {
        let mut times = Vec::new();
        while let Some(answered) = self.0.join_next().await {
            times.push(answered??);
        }
        times.sort();
        Ok(times)
    }
}

async fn answered(mut reply: RecvStream) -> Result<Instant> {
    let bytes = reply.read_to_end(CUSTODY.len()).await?;
    ensure!(bytes == CUSTODY, "a message was answered with {bytes:?}");
    Ok(Instant::now())
}
