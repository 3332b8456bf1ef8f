//! Sockets in memory, on tokio's paused clock: what is sent is there at once, unless it is lost or kept.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncTimer, AsyncUdpSocket, Runtime, UdpPoller};

/// What becomes of what somebody sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Fate {
    #[default]
    Arrives,
    Lost,
    /// Arrives when the fate changes to that.
    Kept,
    /// Their socket takes nothing.
    Blocked,
}

/// A datagram, and who sent it.
type Sent = (SocketAddr, Vec<u8>);

#[derive(Debug, Default)]
struct Host {
    fate: Fate,
    /// What a NAT before it makes of its address.
    seen_as: Option<SocketAddr>,
    /// All that was sent, with where to.
    sent: Vec<Sent>,
    kept: Vec<Sent>,
    received: VecDeque<Sent>,
    readable: Option<Waker>,
    writable: Vec<Waker>,
}

/// A network of two.
#[derive(Clone, Debug, Default)]
pub(super) struct Wire(Arc<Mutex<BTreeMap<SocketAddr, Host>>>);

impl Wire {
    fn hosts(&self) -> MutexGuard<'_, BTreeMap<SocketAddr, Host>> {
        self.0.lock().expect("no test panics with the lock held")
    }

    /// A fresh socket of this address.
    pub(super) fn bind(&self, address: SocketAddr) -> Arc<dyn AsyncUdpSocket> {
        let host = Host { sent: self.sent_bytes(address), ..Host::default() };
        self.hosts().insert(address, host);
        Arc::new(Socket { wire: self.clone(), address })
    }

    /// All that was sent from there, with where to.
    pub(super) fn sent_bytes(&self, by: SocketAddr) -> Vec<Sent> {
        self.hosts().get(&by).map(|host| host.sent.clone()).unwrap_or_default()
    }

    /// The lengths of all that was sent from there.
    pub(super) fn sent(&self, by: SocketAddr) -> Vec<usize> {
        self.sent_bytes(by).iter().map(|(_, bytes)| bytes.len()).collect()
    }

    /// What becomes of what is sent from there from now on.
    pub(super) fn set_fate(&self, by: SocketAddr, fate: Fate) {
        let kept = {
            let mut hosts = self.hosts();
            let host = hosts.get_mut(&by).expect("it is bound");
            host.fate = fate;
            host.writable.drain(..).for_each(Waker::wake);
            std::mem::take(&mut host.kept)
        };
        for (to, bytes) in kept {
            self.deliver(by, to, bytes);
        }
    }

    /// A NAT before this host makes another address of its own, and what still goes to the one before is lost.
    pub(super) fn see_as(&self, host: SocketAddr, address: SocketAddr) {
        self.hosts().get_mut(&host).expect("it is bound").seen_as = Some(address);
    }

    /// Delivers the last datagram from there so many times more.
    pub(super) fn repeat_last(&self, by: SocketAddr, times: usize) {
        let (to, bytes) = self.sent_bytes(by).pop().expect("something was sent");
        for _ in 0..times {
            self.deliver(by, to, bytes.clone());
        }
    }

    /// Something comes from there that nobody has sent.
    pub(super) fn deliver(&self, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>) {
        let mut hosts = self.hosts();
        let from = hosts.get(&from).and_then(|host| host.seen_as).unwrap_or(from);
        let is_there = |(address, host): &(&SocketAddr, &mut Host)| host.seen_as.unwrap_or(**address) == to;
        if let Some((_, host)) = hosts.iter_mut().find(is_there) {
            host.received.push_back((from, bytes));
            if let Some(waker) = host.readable.take() {
                waker.wake();
            }
        }
    }
}

#[derive(Debug)]
struct Socket {
    wire: Wire,
    address: SocketAddr,
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Writable(self))
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let sent = (transmit.destination, transmit.contents.to_vec());
        let fate = {
            let mut hosts = self.wire.hosts();
            let host = hosts.get_mut(&self.address).expect("it is bound");
            match host.fate {
                Fate::Blocked => return Err(io::ErrorKind::WouldBlock.into()),
                Fate::Kept => host.kept.push(sent.clone()),
                Fate::Arrives | Fate::Lost => {}
            }
            host.sent.push(sent.clone());
            host.fate
        };
        if fate == Fate::Arrives {
            self.wire.deliver(self.address, sent.0, sent.1);
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut hosts = self.wire.hosts();
        let host = hosts.get_mut(&self.address).expect("it is bound");
        let Some((from, bytes)) = host.received.pop_front() else {
            host.readable = Some(cx.waker().clone());
            return Poll::Pending;
        };
        bufs[0][..bytes.len()].copy_from_slice(&bytes);
        meta[0] = RecvMeta { addr: from, len: bytes.len(), stride: bytes.len(), ecn: None, dst_ip: None };
        Poll::Ready(Ok(1))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

#[derive(Debug)]
struct Writable(Arc<Socket>);

impl UdpPoller for Writable {
    fn poll_writable(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut hosts = self.0.wire.hosts();
        let host = hosts.get_mut(&self.0.address).expect("it is bound");
        if host.fate != Fate::Blocked {
            return Poll::Ready(Ok(()));
        }
        host.writable.push(cx.waker().clone());
        Poll::Pending
    }
}

/// Tokio, without real sockets.
#[derive(Debug)]
pub(super) struct Paused;

impl Runtime for Paused {
    fn new_timer(&self, at: std::time::Instant) -> Pin<Box<dyn AsyncTimer>> {
        Box::pin(tokio::time::sleep_until(at.into()))
    }

    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        tokio::spawn(future);
    }

    fn wrap_udp_socket(&self, _: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
