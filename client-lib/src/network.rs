//! Where sockets come from.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;

use quinn::{AsyncUdpSocket, Runtime, TokioRuntime};

/// What a client sends and receives datagrams through.
pub trait Network: fmt::Debug + Send + Sync {
    /// A fresh socket that can reach `remote`, and the runtime that drives QUIC on it. Every attempt to
    /// connect asks for one: after a change of network the old one may be deaf.
    ///
    /// # Errors
    /// When the system gives none; the client tries again later.
    fn bind(&self, remote: SocketAddr) -> io::Result<(Arc<dyn AsyncUdpSocket>, Arc<dyn Runtime>)>;
}

/// The system's UDP, under tokio.
#[derive(Clone, Copy, Debug, Default)]
pub struct Udp;

impl Network for Udp {
    fn bind(&self, remote: SocketAddr) -> io::Result<(Arc<dyn AsyncUdpSocket>, Arc<dyn Runtime>)> {
        let any: SocketAddr = match remote {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let runtime = Arc::new(TokioRuntime);
        let socket = runtime.wrap_udp_socket(UdpSocket::bind(any)?)?;
        Ok((socket, runtime))
    }
}
