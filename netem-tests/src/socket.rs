//! What quinn sees of a [`Net`](crate::Net): a socket and a runtime.

use std::{
    fmt, io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use quinn::{
    AsyncTimer, AsyncUdpSocket, Runtime, UdpPoller,
    udp::{RecvMeta, Transmit},
};

use crate::net::{Core, SocketId};

/// A socket of a [`Net`](crate::Net). Dropping it frees its address.
pub(crate) struct NetSocket {
    core: Arc<Core>,
    id: SocketId,
}

impl NetSocket {
    pub(crate) fn new(core: Arc<Core>, id: SocketId) -> Self {
        Self { core, id }
    }
}

impl AsyncUdpSocket for NetSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let segment = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
        for datagram in transmit.contents.chunks(segment) {
            self.core.send(self.id, transmit.destination, transmit.ecn, datagram)?;
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [io::IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.core.poll_recv(self.id, cx, bufs, meta)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.id.local)
    }

    /// Never, so that quinn's MTU discovery runs here whenever it would on a real socket.
    fn may_fragment(&self) -> bool {
        false
    }
}

impl Drop for NetSocket {
    fn drop(&mut self) {
        self.core.close(self.id);
    }
}

impl fmt::Debug for NetSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NetSocket").field("local", &self.id.local).finish_non_exhaustive()
    }
}

/// A virtual socket takes every datagram at once: queues form, and overflow, on the links.
#[derive(Debug)]
struct AlwaysWritable;

impl UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The tokio runtime as quinn should use it in virtual time: tokio's clock, timers and tasks, and no real sockets.
#[derive(Clone, Copy, Debug, Default)]
pub struct NetRuntime;

impl Runtime for NetRuntime {
    fn new_timer(&self, at: std::time::Instant) -> Pin<Box<dyn AsyncTimer>> {
        Box::pin(tokio::time::sleep_until(at.into()))
    }

    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        tokio::spawn(future);
    }

    /// Always refused: a packet on a real socket would live outside virtual time.
    fn wrap_udp_socket(&self, _socket: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "a virtual network has no real sockets: use Net::host",
        ))
    }

    fn now(&self) -> std::time::Instant {
        tokio::time::Instant::now().into_std()
    }
}
