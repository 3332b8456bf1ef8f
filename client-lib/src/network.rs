//! Where sockets come from.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, Runtime, TokioRuntime, UdpPoller};

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

/// What every packet costs beside its payload, bytes: headers of IPv4 and UDP.
const PACKET_OVERHEAD_BYTES: u64 = 28;

/// Bytes on the air, of all sockets of a client.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    sent: AtomicU64,
    received: AtomicU64,
}

impl Meter {
    /// Bytes sent and received so far, headers of IP and UDP included.
    pub(crate) fn read(&self) -> (u64, u64) {
        (self.sent.load(Ordering::Relaxed), self.received.load(Ordering::Relaxed))
    }
}

/// A socket that is counted.
#[derive(Debug)]
pub(crate) struct Metered {
    pub(crate) socket: Arc<dyn AsyncUdpSocket>,
    pub(crate) meter: Arc<Meter>,
}

impl AsyncUdpSocket for Metered {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.socket.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.socket.try_send(transmit)?;
        let bytes = transmit.contents.len();
        let packets = transmit.segment_size.map_or(1, |segment| bytes.div_ceil(segment.max(1)));
        let bytes = bytes as u64 + packets as u64 * PACKET_OVERHEAD_BYTES;
        self.meter.sent.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let polled = self.socket.poll_recv(cx, bufs, meta);
        if let Poll::Ready(Ok(count)) = polled {
            for meta in &meta[..count] {
                let packets = meta.len.div_ceil(meta.stride.max(1)) as u64;
                let bytes = meta.len as u64 + packets * PACKET_OVERHEAD_BYTES;
                self.meter.received.fetch_add(bytes, Ordering::Relaxed);
            }
        }
        polled
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.socket.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.socket.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.socket.may_fragment()
    }
}
