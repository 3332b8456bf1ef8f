//! One thin link on real UDP sockets, between clients and a relay on this machine.
//!
//! A client sends to [`UdpProxy::addr`] instead of to the relay. What it sends crosses the link's up direction, what the
//! relay answers its down direction, in real time and by the same model as in [`net`](crate::net). Each source address gets
//! an upstream socket of its own, so that the relay tells clients apart; they all share the one link, as sockets of
//! one phone do. Give each phone its own proxy. Of a profile's `[path]` nothing counts here, and no bits change.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    net::UdpSocket,
    sync::{mpsc, watch},
    task::{AbortHandle, JoinHandle},
    time::Instant,
};

use crate::{
    IP_UDP_HEADER_BYTES,
    link::PathCounters,
    profile::Profile,
    wire::{Arrived, Direction, Wire},
};

/// Client addresses served at a time; another one takes the place of the one that was silent longest.
const FLOWS_MAX: usize = 64;

/// Datagrams from the relay that wait for the proxy; more stay in their sockets' receive buffers.
const FROM_RELAY_MAX: usize = 256;

/// Datagrams of clients that are taken down at most.
const RECORDED_MAX: usize = 4_096;

/// Holds any UDP datagram.
const BUFFER_BYTES: usize = 65_536;

/// A link emulator between clients and one relay. Stops when dropped.
///
/// Its timers are tokio's, so a datagram leaves up to about a millisecond after it is due. Needs a clock that runs:
/// real sockets know nothing of a paused one.
#[derive(Debug)]
pub struct UdpProxy {
    addr: SocketAddr,
    started: Instant,
    wire: Arc<Mutex<Wire<Datagram>>>,
    recorded: Arc<Mutex<Option<Vec<Datagram>>>>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl UdpProxy {
    /// Starts a proxy on a free loopback port, in front of the relay at `relay`. The relay need not run yet, and may
    /// restart at the same address.
    ///
    /// # Errors
    /// When no socket can be bound.
    pub async fn spawn(relay: SocketAddr, profile: &Profile, seed: u64) -> io::Result<Self> {
        let loopback: IpAddr =
            if relay.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
        let listener = UdpSocket::bind((loopback, 0)).await?;
        let addr = listener.local_addr()?;
        let wire = Arc::new(Mutex::new(Wire::new(profile, seed)));
        let started = Instant::now();
        let recorded = Arc::new(Mutex::new(None));
        let (stop, stopped) = watch::channel(false);
        let forwarder = Forwarder {
            relay,
            listener,
            wire: wire.clone(),
            recorded: recorded.clone(),
            started,
            flows: BTreeMap::new(),
            datagrams_seen: 0,
        };
        let task = tokio::spawn(forwarder.run(stopped));
        Ok(Self { addr, started, wire, recorded, stop, task })
    }

    /// Where clients send to.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Begins or ends a total outage of both directions, see [`Link::set_outage`](crate::Link::set_outage).
    pub fn set_outage(&self, outage: bool) {
        lock(&self.wire).set_outage(self.started.elapsed(), outage);
    }

    /// Begins or ends to take down what clients send, whether it crosses the link or not. What was taken down before is
    /// forgotten.
    pub fn record(&self, records: bool) {
        *lock(&self.recorded) = records.then(Vec::new);
    }

    /// What was taken down so far of this client, from the first 4,096 datagrams of all.
    pub fn recorded(&self, of: SocketAddr) -> Vec<Vec<u8>> {
        let recorded = lock(&self.recorded);
        let all = recorded.iter().flatten();
        all.filter(|(client, _)| *client == of).map(|(_, payload)| payload.clone()).collect()
    }

    /// What went through the link until now.
    pub fn counters(&self) -> PathCounters {
        lock(&self.wire).counters(self.started.elapsed())
    }

    /// Stops forwarding, frees all sockets, and returns the final counters. What is under way is lost, uncounted.
    pub async fn shutdown(mut self) -> PathCounters {
        self.stop.send_replace(true);
        // It ends with an error only if it panicked, which must not be hidden.
        if let Err(error) = (&mut self.task).await
            && error.is_panic()
        {
            std::panic::resume_unwind(error.into_panic());
        }
        self.counters()
    }
}

impl Drop for UdpProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A datagram's payload, and the client that it comes from or goes to.
type Datagram = (SocketAddr, Vec<u8>);

/// The upstream side of one client address.
struct Flow {
    upstream: Arc<UdpSocket>,
    reader: AbortHandle,
    /// Number of the last datagram from this client, to find the flow that was silent longest.
    last_datagram: u64,
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

struct Forwarder {
    relay: SocketAddr,
    listener: UdpSocket,
    wire: Arc<Mutex<Wire<Datagram>>>,
    recorded: Arc<Mutex<Option<Vec<Datagram>>>>,
    started: Instant,
    flows: BTreeMap<SocketAddr, Flow>,
    datagrams_seen: u64,
}

impl Forwarder {
    async fn run(mut self, mut stopped: watch::Receiver<bool>) {
        let (to_self, mut from_relay) = mpsc::channel::<Datagram>(FROM_RELAY_MAX);
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let next = self.hand_over().await;
            let due = async {
                match next.and_then(|at| self.started.checked_add(at)) {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                _ = stopped.changed() => return,
                () = due => {}
                Some(datagram) = from_relay.recv() => self.offer(Direction::Down, datagram),
                received = self.listener.recv_from(&mut buffer) => match received {
                    Ok((len, client)) => match self.admit(client, &to_self).await {
                        Ok(()) => {
                            let payload = buffer[..len].to_vec();
                            if let Some(recorded) = &mut *lock(&self.recorded)
                                && recorded.len() < RECORDED_MAX
                            {
                                recorded.push((client, payload.clone()));
                            }
                            self.offer(Direction::Up, (client, payload));
                        }
                        Err(error) => tracing::warn!(%client, %error, "no upstream socket for a client"),
                    },
                    Err(error) => wait_after_error("client", &error).await,
                },
            }
        }
    }

    fn offer(&self, direction: Direction, datagram: Datagram) {
        let ip_bytes = datagram.1.len() + IP_UDP_HEADER_BYTES;
        lock(&self.wire).offer(self.started.elapsed(), direction, ip_bytes, datagram);
    }

    /// Sends what has arrived, and says when the next datagram will.
    async fn hand_over(&self) -> Option<Duration> {
        let (arrived, next) = lock(&self.wire).take_arrived(self.started.elapsed());
        for Arrived { direction, content: (client, payload), .. } in arrived {
            let sent = match direction {
                Direction::Down => self.listener.send_to(&payload, client).await,
                Direction::Up => match self.flows.get(&client) {
                    Some(flow) => flow.upstream.send_to(&payload, self.relay).await,
                    None => continue, // its flow gave way to another's
                },
            };
            if let Err(error) = sent {
                tracing::debug!(%client, ?direction, %error, "datagram lost beyond the emulated link");
            }
        }
        next
    }

    /// Makes sure that `client` has a flow.
    async fn admit(&mut self, client: SocketAddr, to_self: &mpsc::Sender<Datagram>) -> io::Result<()> {
        self.datagrams_seen += 1;
        if let Some(flow) = self.flows.get_mut(&client) {
            flow.last_datagram = self.datagrams_seen;
            return Ok(());
        }
        if self.flows.len() >= FLOWS_MAX {
            let silent =
                self.flows.iter().min_by_key(|(_, flow)| flow.last_datagram).map(|(client, _)| *client);
            silent.and_then(|client| self.flows.remove(&client));
        }
        let any: IpAddr = match self.relay.ip() {
            IpAddr::V4(ip) if ip.is_loopback() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(ip) if ip.is_loopback() => Ipv6Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        // Not connected: a connected socket reports a relay that is down as an error, and a radio link does not.
        let upstream = Arc::new(UdpSocket::bind((any, 0)).await?);
        let reader = tokio::spawn(read_upstream(upstream.clone(), self.relay, client, to_self.clone()));
        let flow = Flow { upstream, reader: reader.abort_handle(), last_datagram: self.datagrams_seen };
        self.flows.insert(client, flow);
        Ok(())
    }
}

/// Takes what the relay sends to one client's upstream socket, until the flow or the proxy is gone.
async fn read_upstream(
    upstream: Arc<UdpSocket>,
    relay: SocketAddr,
    client: SocketAddr,
    to_proxy: mpsc::Sender<Datagram>,
) {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match upstream.recv_from(&mut buffer).await {
            Ok((len, from)) if from == relay => {
                let payload = buffer[..len].to_vec();
                if to_proxy.send((client, payload)).await.is_err() {
                    return;
                }
            }
            Ok((_, stranger)) => {
                tracing::debug!(%stranger, "datagram from an address that is not the relay's")
            }
            Err(error) => wait_after_error("relay", &error).await,
        }
    }
}

/// Some systems report an earlier datagram's fate as an error of the next receive. Should an error last, waiting keeps
/// the loop from spinning.
async fn wait_after_error(side: &str, error: &io::Error) {
    tracing::debug!(side, %error, "receiving failed");
    tokio::time::sleep(Duration::from_millis(10)).await;
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
