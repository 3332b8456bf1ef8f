//! The state of a virtual network, and what happens in it: time and datagrams come in as values.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    net::{IpAddr, SocketAddr},
    task::Waker,
    time::Duration,
};

use bytes::Bytes;
use quinn::udp::EcnCodepoint;
use tracing::debug;

use super::{Censorship, Fate, INBOX_DATAGRAMS_MAX, Leg, Nat, SocketId, Trace, nat::Translator};
use crate::{
    IP_UDP_HEADER_BYTES,
    agenda::Agenda,
    link::{Link, LinkParams, PathCounters, derive_seed},
};

pub(super) struct State {
    seed: u64,
    /// The latest time seen.
    clock: Duration,
    paths: BTreeMap<IpAddr, Path>,
    /// Hosts that are behind the links of another, and of which.
    beside: BTreeMap<IpAddr, IpAddr>,
    /// Open sockets by their own address.
    pub(super) sockets: BTreeMap<SocketAddr, Socket>,
    sockets_opened: u64,
    /// Own address to the one that others see, where they differ, and back.
    public_of: BTreeMap<SocketAddr, SocketAddr>,
    local_of: BTreeMap<SocketAddr, SocketAddr>,
    /// NATs, by the host that is behind them.
    nats: BTreeMap<IpAddr, Translator>,
    pub(super) agenda: Agenda<Due>,
    /// What the trace hook has not seen yet; `None` without a hook.
    pub(super) traces: Option<Vec<Trace>>,
}

pub(super) struct Socket {
    opening: u64,
    pub(super) inbox: VecDeque<Datagram>,
    pub(super) waker: Option<Waker>,
}

#[derive(Clone)]
pub(super) struct Datagram {
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) ecn: Option<EcnCodepoint>,
    pub(super) payload: Bytes,
}

impl Datagram {
    fn ip_bytes(&self) -> usize {
        self.payload.len() + IP_UDP_HEADER_BYTES
    }

    /// Changes a bit, which one depends on the time. Over IPv4 a UDP checksum would tell, but need not be there.
    fn damage(&mut self, at: Duration) {
        let mut bytes = self.payload.to_vec();
        let which = (at.as_nanos() as usize).checked_rem(bytes.len() * 8);
        if let Some(bit) = which {
            bytes[bit / 8] ^= 1 << (bit % 8);
            self.payload = bytes.into();
        }
    }
}

pub(super) enum Due {
    /// A datagram comes out of the link of this leg, if the link is still what it was.
    Arrival {
        leg: Leg,
        datagram: Datagram,
        stamp: Stamp,
    },
    Outage {
        ip: IpAddr,
        outage: bool,
    },
}

/// Which links, and after how many cuts, a packet was offered to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    attached: u64,
    cuts: u64,
}

impl State {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            seed,
            clock: Duration::ZERO,
            paths: BTreeMap::new(),
            beside: BTreeMap::new(),
            sockets: BTreeMap::new(),
            sockets_opened: 0,
            public_of: BTreeMap::new(),
            local_of: BTreeMap::new(),
            nats: BTreeMap::new(),
            agenda: Agenda::new(),
            traces: None,
        }
    }

    /// Does all that is due by `now`, in order, and says what time it is: outside its runtime, tokio's clock is
    /// not the virtual one and may be behind.
    pub(super) fn advance(&mut self, now: Duration) -> Duration {
        self.clock = self.clock.max(now);
        let now = self.clock;
        while let Some((at, due)) = self.agenda.pop_due(now) {
            match due {
                Due::Outage { ip, outage } => self.path(ip).set_outage(at, outage),
                Due::Arrival { leg, datagram, stamp } => {
                    let host = match leg {
                        Leg::Up => datagram.from.ip(),
                        Leg::Down => datagram.to.ip(),
                    };
                    if self.path(host).stamp(leg) != stamp {
                        self.trace(at, leg, &datagram, Fate::CutOff);
                    } else if leg == Leg::Up {
                        self.route(at, datagram);
                    } else {
                        self.receive(at, datagram);
                    }
                }
            }
        }
        now
    }

    /// Hands a datagram to the link of `leg`.
    pub(super) fn offer(&mut self, now: Duration, leg: Leg, datagram: Datagram) {
        let (host, flow) = match leg {
            Leg::Up => (datagram.from.ip(), (datagram.from, datagram.to)),
            Leg::Down => (datagram.to.ip(), (datagram.to, datagram.from)),
        };
        let path = self.path(host);
        if !path.censor.lets_pass(flow, datagram.ip_bytes()) {
            return self.trace(now, leg, &datagram, Fate::Censored);
        }
        let verdict = path.link(leg).offer(now, datagram.ip_bytes());
        let stamp = path.stamp(leg);
        self.trace(now, leg, &datagram, Fate::Offered(verdict));
        for at in verdict.arrivals() {
            let mut datagram = datagram.clone();
            if verdict.is_damaged() {
                datagram.damage(at);
            }
            self.agenda.push(at, Due::Arrival { leg, datagram, stamp });
        }
    }

    /// Takes a datagram from its sender's link through the NATs to its receiver's link.
    fn route(&mut self, now: Duration, mut datagram: Datagram) {
        let public = self.seen_as(now, datagram.from);
        match self.reached_at(now, datagram.to) {
            Some(to) if self.known_path(to.ip()).is_some() => {
                datagram.to = to;
                datagram.from = public;
                self.offer(now, Leg::Down, datagram);
            }
            _ => self.trace(now, Leg::Up, &datagram, Fate::NoRoute),
        }
    }

    /// The address by which others see a packet of this socket, which refreshes its mapping.
    fn seen_as(&mut self, now: Duration, local: SocketAddr) -> SocketAddr {
        let before = self.public_of.get(&local).copied();
        let Some(nat) = self.nats.get_mut(&local.ip()) else { return before.unwrap_or(local) };
        let is_known = nat.remembers(now, local);
        nat.went_out(now, local);
        if before.is_some() && !is_known {
            debug!("a NAT had forgotten a socket");
        }
        match before {
            Some(public) if is_known || !nat.wants_another(before) => public,
            _ => {
                let public = loop {
                    let public = nat.draw();
                    if !self.local_of.contains_key(&public) && !self.sockets.contains_key(&public) {
                        break public;
                    }
                };
                self.map(local, public);
                public
            }
        }
    }

    /// The socket that a packet to this address comes to, if a mapping or no NAT at all leads to one.
    fn reached_at(&mut self, now: Duration, to: SocketAddr) -> Option<SocketAddr> {
        match self.local_of.get(&to) {
            Some(&local) => match self.nats.get_mut(&local.ip()) {
                Some(nat) if !nat.remembers(now, local) => None,
                Some(nat) => {
                    nat.came_in(now, local);
                    Some(local)
                }
                None => Some(local),
            },
            // Hidden by its NAT.
            None if self.public_of.contains_key(&to) || self.nats.contains_key(&to.ip()) => None,
            None => Some(to),
        }
    }

    pub(super) fn set_nat(&mut self, ip: IpAddr, nat: Option<Nat>) {
        let seed = derive_seed(self.seed_for(ip), 2);
        self.public_of.retain(|local, _| local.ip() != ip);
        self.local_of.retain(|_, local| local.ip() != ip);
        match nat {
            Some(nat) => drop(self.nats.insert(ip, Translator::new(nat, seed))),
            None => drop(self.nats.remove(&ip)),
        }
    }

    /// Puts a datagram into its receiver's inbox.
    fn receive(&mut self, now: Duration, datagram: Datagram) {
        match self.sockets.get_mut(&datagram.to) {
            None => self.trace(now, Leg::Down, &datagram, Fate::NoSocket),
            Some(socket) if socket.inbox.len() >= INBOX_DATAGRAMS_MAX => {
                self.trace(now, Leg::Down, &datagram, Fate::InboxFull);
            }
            Some(socket) => {
                socket.inbox.push_back(datagram);
                if let Some(waker) = socket.waker.take() {
                    waker.wake();
                }
            }
        }
    }

    pub(super) fn open(&mut self, local: SocketAddr) -> io::Result<SocketId> {
        if self.sockets.contains_key(&local) || self.local_of.contains_key(&local) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        self.path(local.ip());
        let opening = self.sockets_opened;
        self.sockets_opened += 1;
        self.sockets.insert(local, Socket { opening, inbox: VecDeque::new(), waker: None });
        Ok(SocketId { local, opening })
    }

    pub(super) fn socket(&mut self, id: SocketId) -> io::Result<&mut Socket> {
        self.sockets
            .get_mut(&id.local)
            .filter(|socket| socket.opening == id.opening)
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotConnected, "this virtual host was unplugged"))
    }

    pub(super) fn rebind(&mut self, local: SocketAddr, public: SocketAddr) -> io::Result<()> {
        let taken = self.local_of.get(&public).is_some_and(|&owner| owner != local)
            || (public != local && self.sockets.contains_key(&public));
        if taken {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        self.map(local, public);
        let now = self.clock;
        if let Some(nat) = self.nats.get_mut(&local.ip()) {
            nat.went_out(now, local);
        }
        Ok(())
    }

    /// Lets others see a socket at this address, and at no other.
    fn map(&mut self, local: SocketAddr, public: SocketAddr) {
        if let Some(before) = self.public_of.remove(&local) {
            self.local_of.remove(&before);
        }
        if public != local {
            self.public_of.insert(local, public);
            self.local_of.insert(public, local);
        }
    }

    pub(super) fn attach_beside(&mut self, ip: IpAddr, neighbour: IpAddr) {
        assert!(self.known_path(ip).is_none(), "{ip} has links already");
        let behind = self.behind(neighbour);
        self.path(behind);
        self.beside.insert(ip, behind);
    }

    /// Whose links this host is behind.
    fn behind(&self, ip: IpAddr) -> IpAddr {
        self.beside.get(&ip).copied().unwrap_or(ip)
    }

    /// The links of a host that was seen before.
    pub(super) fn known_path(&mut self, ip: IpAddr) -> Option<&mut Path> {
        let behind = self.behind(ip);
        self.paths.get_mut(&behind)
    }

    pub(super) fn path(&mut self, ip: IpAddr) -> &mut Path {
        let behind = self.behind(ip);
        let seed = self.seed_for(behind);
        self.paths.entry(behind).or_insert_with(|| Path::direct(seed))
    }

    pub(super) fn seed_for(&self, ip: IpAddr) -> u64 {
        let bits = match ip {
            IpAddr::V4(ip) => u128::from(ip.to_bits()),
            IpAddr::V6(ip) => ip.to_bits(),
        };
        derive_seed(derive_seed(self.seed, (bits >> 64) as u64), bits as u64)
    }

    fn trace(&mut self, at: Duration, leg: Leg, datagram: &Datagram, fate: Fate) {
        if let Some(traces) = &mut self.traces {
            let Datagram { from, to, ref payload, .. } = *datagram;
            let (ip_bytes, payload) = (datagram.ip_bytes(), payload.clone());
            traces.push(Trace { at, leg, from, to, ip_bytes, fate, payload });
        }
    }
}

/// Whose links a packet takes, and with whom it speaks.
type Flow = (SocketAddr, SocketAddr);

/// Who looks into a host's traffic. It stands between the host and its links: what it takes costs nothing on the air.
#[derive(Default)]
pub(super) struct Censor {
    censorship: Censorship,
    /// How much has passed of each flow, both ways, IP bytes.
    passed: BTreeMap<Flow, u64>,
}

impl Censor {
    pub(super) fn new(censorship: Censorship) -> Self {
        Self { censorship, passed: BTreeMap::new() }
    }

    fn lets_pass(&mut self, flow: Flow, ip_bytes: usize) -> bool {
        match self.censorship {
            Censorship::None => true,
            Censorship::NoUdp => {
                debug!("UDP was blocked");
                false
            }
            Censorship::FlowsUpTo(bytes_max) => {
                let passed = self.passed.entry(flow).or_default();
                *passed += ip_bytes as u64;
                let passes = *passed <= bytes_max;
                if !passes {
                    debug!("a flow was cut");
                }
                passes
            }
        }
    }
}

/// The links of one host.
pub(super) struct Path {
    pub(super) censor: Censor,
    up: Link,
    down: Link,
    /// How often links were attached, to know packets under way on earlier ones.
    attached: u64,
    /// What went through earlier links.
    before: PathCounters,
}

impl Path {
    fn direct(seed: u64) -> Self {
        let up = Link::new(LinkParams::DIRECT, derive_seed(seed, 0));
        let down = Link::new(LinkParams::DIRECT, derive_seed(seed, 1));
        Self { censor: Censor::default(), up, down, attached: 0, before: PathCounters::default() }
    }

    pub(super) fn replace(&mut self, now: Duration, up: Link, down: Link) {
        self.set_outage(now, true);
        self.before = self.counters(now);
        self.attached += 1;
        self.up = up;
        self.down = down;
    }

    fn link(&mut self, leg: Leg) -> &mut Link {
        match leg {
            Leg::Up => &mut self.up,
            Leg::Down => &mut self.down,
        }
    }

    fn stamp(&mut self, leg: Leg) -> Stamp {
        Stamp { attached: self.attached, cuts: self.link(leg).cuts() }
    }

    pub(super) fn set_outage(&mut self, now: Duration, outage: bool) {
        self.set_outage_of(now, Leg::Up, outage);
        self.set_outage_of(now, Leg::Down, outage);
    }

    pub(super) fn set_outage_of(&mut self, now: Duration, leg: Leg, outage: bool) {
        self.link(leg).set_outage(now, outage);
    }

    pub(super) fn counters(&mut self, now: Duration) -> PathCounters {
        let mut counters = self.before;
        counters += PathCounters { up: self.up.counters(now), down: self.down.counters(now) };
        counters
    }
}
