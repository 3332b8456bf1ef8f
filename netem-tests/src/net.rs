//! A network in virtual time, on which unmodified quinn endpoints run.
//!
//! Every host stands behind a pair of [`Link`]s, up and down, that all sockets of its IP address share, and perhaps a
//! [neighbour](Net::attach_beside); unless [attached](Net::attach) to others they are [`LinkParams::DIRECT`](crate::LinkParams::DIRECT). A datagram crosses the sender's up link and the receiver's
//! down link. Run it under tokio's paused clock (`#[tokio::test(start_paused = true)]`): whenever every task waits, time
//! jumps to the next thing due, so that a minute of 2G takes milliseconds, and the same seed gives the same world.
//!
//! Links reckon in nanoseconds, tokio's timers in milliseconds: a datagram due at 10.3 ms is handed to its
//! socket at 11 ms, but crosses its second link as of 10.3 ms.
//!
//! For a world to repeat exactly, give each quinn endpoint an `EndpointConfig` with `rng_seed`, a fixed
//! `reset_key` and a seeded connection id generator, and let nothing in it wait for another thread.

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use quinn::{
    AsyncUdpSocket,
    udp::{EcnCodepoint, RecvMeta},
};
use tokio::{sync::Notify, time::Instant};

use crate::{
    link::{Link, PathCounters, Verdict},
    profile::Profile,
    socket::{NetRuntime, NetSocket},
};

mod nat;
mod state;
#[cfg(test)]
mod tests;

pub use nat::{Mapping, Nat};
use state::{Censor, Datagram, Due, State};

/// Datagrams that wait in a socket until its owner reads them; more are dropped, as by a kernel's receive buffer.
const INBOX_DATAGRAMS_MAX: usize = 4_096;

/// Largest UDP payload over IPv4.
const PAYLOAD_BYTES_MAX: usize = 65_507;

/// A virtual network. A clone is a handle to the same network, which lives as long as a handle or a socket does.
#[derive(Clone)]
pub struct Net {
    core: Arc<Core>,
}

/// One thing that happened to a packet, as shown to the hook of [`Net::set_trace`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// Time since the start of the world.
    pub at: Duration,
    /// Which half of its way the packet is on.
    pub leg: Leg,
    /// Source: the socket's own address on [`Leg::Up`], the one that others see on [`Leg::Down`].
    pub from: SocketAddr,
    /// Destination: as the sender wrote it on [`Leg::Up`], the receiving socket's own address on [`Leg::Down`].
    pub to: SocketAddr,
    /// Size with IP and UDP headers.
    pub ip_bytes: usize,
    /// What happened.
    pub fate: Fate,
    /// What UDP carries.
    pub payload: Bytes,
}

/// Half of a packet's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leg {
    /// From the sender into the network.
    Up,
    /// From the network to the receiver.
    Down,
}

/// What a [`Trace`] tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The packet was offered to the link of this leg. A packet said to be delivered is traced again only if it is not.
    Offered(Verdict),
    /// Somebody between the host and its links took it, see [`Net::set_censorship`].
    Censored,
    /// It was under way when an outage began, or when the host was attached to other links.
    CutOff,
    /// At the end of [`Leg::Up`] no host was known by its destination.
    NoRoute,
    /// At the end of [`Leg::Down`] no socket was open at its destination.
    NoSocket,
    /// At the end of [`Leg::Down`] the receiving socket held as many datagrams as it may.
    InboxFull,
}

/// What is taken out of a host's traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Censorship {
    /// Nothing.
    #[default]
    None,
    /// All UDP.
    NoUdp,
    /// Whatever a flow, which is a pair of addresses and ports, carries beyond so many IP bytes, both ways together. A new port begins anew.
    FlowsUpTo(u64),
}

impl Net {
    /// An empty network; time begins now. All its randomness comes from `seed`.
    ///
    /// # Panics
    /// Outside a tokio runtime with time enabled: deliveries are a task on it.
    pub fn new(seed: u64) -> Self {
        let due_changed = Arc::new(Notify::new());
        let started = Instant::now();
        let core = Arc::new(Core {
            started,
            due_changed: due_changed.clone(),
            trace: Mutex::new(None),
            state: Mutex::new(State::new(seed)),
        });
        tokio::spawn(deliver(Arc::downgrade(&core), due_changed, started));
        Self { core }
    }

    /// Time since the start of the world.
    pub fn now(&self) -> Duration {
        self.core.now()
    }

    /// The runtime to give quinn's endpoints on this network.
    pub fn runtime(&self) -> Arc<NetRuntime> {
        Arc::new(NetRuntime)
    }

    /// Opens a socket at `addr`. Its last handle's drop closes it and frees the address.
    ///
    /// # Errors
    /// [`io::ErrorKind::AddrInUse`] while another socket, or a NAT mapping of another host, has this address.
    pub fn host(&self, addr: SocketAddr) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        let id = self.core.update(|state, _| state.open(addr))?;
        Ok(Arc::new(NetSocket::new(self.core.clone(), id)))
    }

    /// Powers the host at `addr` off: its socket is closed although its owner still holds it, who gets errors from
    /// now on. For processes that are killed. Packets under way to it are lost, those from it are not.
    /// Says whether there was a socket.
    pub fn unplug(&self, addr: SocketAddr) -> bool {
        let Some(socket) = self.core.update(|state, _| state.sockets.remove(&addr)) else {
            return false;
        };
        if let Some(waker) = socket.waker {
            waker.wake();
        }
        true
    }

    /// Puts the host with this IP address behind a pair of links. Links it had are cut: what was under way on them is
    /// lost as in an outage, as in a handover; its counters go on.
    pub fn attach(&self, ip: IpAddr, up: Link, down: Link) {
        self.core.update(|state, now| {
            state.path(ip).replace(now, up, down);
        });
    }

    /// Puts the host with this IP address behind such a link, with what else the profile says of the way: NAT, censors. Its draws depend on the network's seed and on the
    /// address, not on what else was attached when.
    pub fn attach_profile(&self, ip: IpAddr, profile: &Profile) {
        let seed = self.core.update(|state, _| state.seed_for(ip));
        let (up, down) = profile.links(seed);
        self.attach(ip, up, down);
        self.set_censorship(ip, profile.censorship);
        let outside = outside_of(ip);
        self.set_nat(ip, profile.nat.map(|mapping| Nat { outside, mapping }));
    }

    /// Puts a host behind the links of another, `neighbour`: both fill the same queues. Links, outages and counters are those of
    /// both from now on, whichever of the two they are asked of; NATs are not.
    ///
    /// # Panics
    /// If the host has been seen before: what is under way on its own links would be nowhere.
    pub fn attach_beside(&self, ip: IpAddr, neighbour: IpAddr) {
        self.core.update(|state, _| state.attach_beside(ip, neighbour));
    }

    /// Changes the address by which others see the socket at `local`, as when a NAT forgets it. Packets from it, even those on
    /// their way up, come from `public` from now on; packets to the address seen before go nowhere. The mapping stays when the
    /// socket is closed; `public` equal to `local` removes it.
    ///
    /// # Errors
    /// [`io::ErrorKind::AddrInUse`] when `public` is the address of another socket or mapping.
    pub fn rebind(&self, local: SocketAddr, public: SocketAddr) -> io::Result<()> {
        self.core.update(|state, _| state.rebind(local, public))
    }

    /// Puts the host with this IP address behind a NAT, or takes it out. What an earlier one remembered is forgotten; packets
    /// meet the NAT between the host's up link and the receiver's down link, and before the host's down link.
    pub fn set_nat(&self, ip: IpAddr, nat: Option<Nat>) {
        self.core.update(|state, _| state.set_nat(ip, nat));
    }

    /// Lets somebody look into the traffic of the host with this IP address, and of those [beside](Net::attach_beside) it. What has
    /// passed before is forgotten.
    pub fn set_censorship(&self, ip: IpAddr, censorship: Censorship) {
        self.core.update(|state, _| state.path(ip).censor = Censor::new(censorship));
    }

    /// Begins or ends a total outage of one of the links of the host with this IP address: the other one may go on.
    pub fn set_outage_of(&self, ip: IpAddr, leg: Leg, outage: bool) {
        self.core.update(|state, now| state.path(ip).set_outage_of(now, leg, outage));
    }

    /// Begins or ends a total outage of both links of the host with this IP address, see [`Link::set_outage`].
    pub fn set_outage(&self, ip: IpAddr, outage: bool) {
        self.core.update(|state, now| state.path(ip).set_outage(now, outage));
    }

    /// Lets an outage begin `after` from now and last for `lasting`. Outages do not nest: the first end ends them.
    pub fn schedule_outage(&self, ip: IpAddr, after: Duration, lasting: Duration) {
        self.core.update(|state, now| {
            let begin = now.saturating_add(after);
            state.agenda.push(begin, Due::Outage { ip, outage: true });
            state.agenda.push(begin.saturating_add(lasting), Due::Outage { ip, outage: false });
        });
    }

    /// What went through the links of the host with this IP address until now. Nothing, if it was never seen.
    pub fn counters(&self, ip: IpAddr) -> PathCounters {
        self.core.update(|state, now| state.known_path(ip).map(|path| path.counters(now)).unwrap_or_default())
    }

    /// Calls `hook` for all that happens to packets from now on, in order. The hook must not use
    /// the network, which waits for it.
    pub fn set_trace(&self, hook: impl FnMut(&Trace) + Send + 'static) {
        *lock(&self.core.trace) = Some(Box::new(hook));
        self.core.update(|state, _| state.traces = Some(Vec::new()));
    }
}

impl fmt::Debug for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Net").field("now", &self.now()).finish_non_exhaustive()
    }
}

/// The outside of the NAT that a host with a profile of its own has: within the addresses of carriers' NATs (RFC 6598) as the host
/// is among the others.
fn outside_of(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => Ipv4Addr::from_bits(ip.to_bits() & 0x003f_ffff | 0x6440_0000).into(),
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() ^ 1 << 127).into(),
    }
}

/// Wakes up whenever something is due, until the network is gone.
async fn deliver(core: Weak<Core>, due_changed: Arc<Notify>, started: Instant) {
    loop {
        // Held only for this statement: this task must not keep the network alive.
        let Some(next) = core.upgrade().map(|core| core.update(|state, _| state.agenda.next_at())) else {
            return;
        };
        let due = async {
            match next.and_then(|at| started.checked_add(at)) {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = due_changed.notified() => {}
            () = due => {}
        }
    }
}

type TraceHook = Box<dyn FnMut(&Trace) + Send>;

/// The network behind its handles and sockets.
pub(crate) struct Core {
    started: Instant,
    due_changed: Arc<Notify>,
    trace: Mutex<Option<TraceHook>>,
    state: Mutex<State>,
}

/// One opening of a socket. The number tells it from an earlier socket at the same address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SocketId {
    pub(crate) local: SocketAddr,
    opening: u64,
}

impl Core {
    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// The one way to the state: brings it up to now, changes it, and shows what happened to packets meanwhile.
    fn update<T>(&self, change: impl FnOnce(&mut State, Duration) -> T) -> T {
        let (result, traces) = {
            let mut state = lock(&self.state);
            let now = state.advance(self.now());
            let next_before = state.agenda.next_at();
            let result = change(&mut state, now);
            if state.agenda.next_at() != next_before {
                self.due_changed.notify_one();
            }
            (result, state.traces.as_mut().map(std::mem::take).unwrap_or_default())
        };
        if !traces.is_empty()
            && let Some(hook) = lock(&self.trace).as_mut()
        {
            traces.iter().for_each(hook);
        }
        result
    }

    pub(crate) fn send(
        &self,
        id: SocketId,
        to: SocketAddr,
        ecn: Option<EcnCodepoint>,
        payload: &[u8],
    ) -> io::Result<()> {
        if payload.len() > PAYLOAD_BYTES_MAX {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.update(|state, now| {
            state.socket(id)?;
            let datagram = Datagram { from: id.local, to, ecn, payload: Bytes::copy_from_slice(payload) };
            state.offer(now, Leg::Up, datagram);
            Ok(())
        })
    }

    pub(crate) fn poll_recv(
        &self,
        id: SocketId,
        cx: &mut Context<'_>,
        bufs: &mut [io::IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.update(|state, _| {
            let socket = match state.socket(id) {
                Ok(socket) => socket,
                Err(error) => return Poll::Ready(Err(error)),
            };
            let room = bufs.len().min(meta.len()).min(socket.inbox.len());
            if room == 0 {
                socket.waker = Some(cx.waker().clone());
                return Poll::Pending;
            }
            for ((buf, meta), datagram) in bufs.iter_mut().zip(meta).zip(socket.inbox.drain(..room)) {
                let len = datagram.payload.len().min(buf.len()); // a longer one is cut short, as by recvmsg
                buf[..len].copy_from_slice(&datagram.payload[..len]);
                *meta = RecvMeta {
                    addr: datagram.from,
                    len,
                    stride: len,
                    ecn: datagram.ecn,
                    dst_ip: Some(id.local.ip()),
                };
            }
            Poll::Ready(Ok(room))
        })
    }

    pub(crate) fn close(&self, id: SocketId) {
        let closed = self.update(|state, _| match state.socket(id) {
            Ok(_) => state.sockets.remove(&id.local),
            Err(_) => None, // unplugged; the address may be another's by now
        });
        drop(closed); // with its waker, which is foreign code, and so not under the lock
    }
}

impl Drop for Core {
    /// Lets the delivery task see that the network is gone.
    fn drop(&mut self) {
        self.due_changed.notify_one();
    }
}

/// A panic elsewhere while the lock was held is a failed test already; the state is still readable for its report.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
