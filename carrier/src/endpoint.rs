//! One task a socket: receives datagrams, gives each to the connection that it is for, answers what is for none, and sees
//! connections through to their end when nobody owns them any more.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use quinn::udp::{self, RecvMeta};
use quinn::{AsyncUdpSocket, Runtime};
use quinn_proto::{ConnectionHandle, DatagramEvent, EcnCodepoint, EndpointConfig};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tracing::{debug, warn};

use crate::Down;
use crate::clock::Clock;
use crate::connecting::Connecting;
use crate::connection::{Connection, Heard, Owned, TOUCH};
use crate::incoming::{Accepting, Incoming, TurnedAway};
use crate::quic::{self, SERVER_NAME};
use crate::repeats::Part;
use crate::socket::for_socket;

/// Datagrams that may wait for the owner of a connection. Beyond it they are lost, as in a socket that is full; what
/// the endpoint itself says, seldom and little, has places of its own.
const DATAGRAMS_WAITING_MAX: usize = 128;
const OWN_EVENTS_MAX: usize = 8;

/// So many may wait for each owner whatever waits for others; beyond that, all share [`SHARED_BYTES_MAX`]: sessions that wait for
/// the disk must not keep a hundred datagrams each.
pub(crate) const DATAGRAMS_OF_EACH: usize = 2;

/// Most bytes of datagrams that wait for the owners of connections, beyond the first few of each.
pub const SHARED_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The longest datagram that is taken in, bytes: what a peer is told in QUIC's `max_udp_payload_size`. IP would carry 64 KiB in
/// fragments, to be kept whole wherever one waits.
pub(crate) const DATAGRAM_BYTES_MAX: usize = 1_472;

/// Buffers given to the socket at a time.
const BUFFERS: usize = 8;

/// The largest datagram there is, or the largest row of them that a system joins.
const BUFFER_BYTES_MAX: usize = 65_535;

/// After so many turns other tasks get theirs.
const TURNS: usize = 32;

/// What the task is asked for by those who hold its connections, and by its handle.
pub(crate) enum Command {
    /// Begin a handshake.
    Accept(Box<quinn_proto::Incoming>, oneshot::Sender<Result<Owned, Down>>),
    /// Have none.
    TurnAway(Box<quinn_proto::Incoming>, TurnedAway),
    /// Take no more.
    RefuseNew,
    /// What a connection has to say.
    Event(ConnectionHandle, quinn_proto::EndpointEvent),
    /// Where the other end of a connection is now.
    At(ConnectionHandle, SocketAddr),
    /// See a connection through to its end.
    Finish(Box<Connection>),
}

/// A relay's endpoint. Its task ends with the last handle and connection. A device has one for each connection, and no
/// handle to it.
#[derive(Clone, Debug)]
pub struct Endpoint {
    commands: mpsc::UnboundedSender<Command>,
    socket: Arc<dyn AsyncUdpSocket>,
    open: watch::Receiver<usize>,
}

impl Endpoint {
    /// Listens on a socket.
    ///
    /// # Errors
    /// When the socket cannot be used.
    pub fn listen(
        config: EndpointConfig,
        server: quic::Server,
        socket: Arc<dyn AsyncUdpSocket>,
        runtime: &Arc<dyn Runtime>,
    ) -> io::Result<(Self, Accepting)> {
        socket.local_addr()?;
        let (commands, ordered) = mpsc::unbounded_channel();
        let (incoming, accepting) = mpsc::unbounded_channel();
        let mut task = Task::new(config, Some(server), socket.clone(), runtime.clone(), ordered);
        task.router.commands = Some(commands.downgrade());
        task.router.incoming = Some(incoming);
        let open = task.router.open.subscribe();
        task.spawn();
        Ok((Self { commands, socket, open }, Accepting(accepting)))
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the socket does not know.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Connections that take room, those that are ending included.
    pub fn open_connections(&self) -> usize {
        *self.open.borrow()
    }

    /// Takes no new connections from now on.
    pub fn refuse_new(&self) {
        let _ = self.commands.send(Command::RefuseNew);
    }

    /// Waits until all connections are over and forgotten.
    pub async fn wait_idle(&self) {
        let _ = self.open.clone().wait_for(|open| *open == 0).await;
    }

    /// Begins a connection of a device to a relay, on a socket of its own. Nothing leaves before it is polled.
    ///
    /// # Errors
    /// When there is no way to such an address.
    pub fn connect(
        client: &quic::Client,
        initial_rtt: Duration,
        rng_seed: Option<[u8; 32]>,
        remote: SocketAddr,
        socket: Arc<dyn AsyncUdpSocket>,
        runtime: &Arc<dyn Runtime>,
    ) -> io::Result<Connecting> {
        let (commands, ordered) = mpsc::unbounded_channel();
        let config = quic::device_endpoint(rng_seed);
        let mut task = Task::new(config, None, socket, runtime.clone(), ordered);
        let router = &mut task.router;
        let (handle, connection) = router
            .quic
            .connect(router.clock.now(), client.config(initial_rtt), remote, SERVER_NAME)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let connection = router.own(handle, connection, commands);
        task.spawn();
        Ok(Connecting::new(connection))
    }
}

/// Where a connection is: whoever owns it here, and its other end.
struct Place {
    owner: mpsc::Sender<Heard>,
    remote: SocketAddr,
}

struct Task {
    router: Router,
    runtime: Arc<dyn Runtime>,
    ordered: mpsc::UnboundedReceiver<Command>,
    buffer: Box<[u8]>,
}

/// What knows of all connections.
struct Router {
    quic: quinn_proto::Endpoint,
    socket: Arc<dyn AsyncUdpSocket>,
    clock: Clock,
    /// By handle, which proto numbers densely.
    connections: BTreeMap<usize, Place>,
    /// How many connections have their other end at an address.
    remotes: HashMap<SocketAddr, u32>,
    /// How a relay speaks to devices.
    server: Option<quic::Server>,
    /// What a relay needs for new connections. No strong handle, or the task would keep itself alive.
    commands: Option<mpsc::WeakUnboundedSender<Command>>,
    incoming: Option<mpsc::UnboundedSender<Incoming>>,
    open: watch::Sender<usize>,
    /// Bytes that may wait for owners beyond [`DATAGRAMS_OF_EACH`].
    shared: Arc<Semaphore>,
    /// Connections that may be seen to their end at a time: [`quic::ServerLimits::finishing_max`].
    finishing: Arc<Semaphore>,
}

impl Task {
    fn new(
        config: EndpointConfig,
        server: Option<quic::Server>,
        socket: Arc<dyn AsyncUdpSocket>,
        runtime: Arc<dyn Runtime>,
        ordered: mpsc::UnboundedReceiver<Command>,
    ) -> Self {
        let buffer_bytes = config.get_max_udp_payload_size() as usize * socket.max_receive_segments();
        let may_discover_mtu = !socket.may_fragment();
        let config = Arc::new(config);
        // A device has one.
        let finishing_max = server.as_ref().map_or(1, |server| server.finishing_max);
        let common = server.as_ref().map(quic::Server::config);
        Self {
            router: Router {
                quic: quinn_proto::Endpoint::new(config, common, may_discover_mtu, None),
                socket,
                clock: Clock::start(),
                connections: BTreeMap::new(),
                remotes: HashMap::new(),
                server,
                commands: None,
                incoming: None,
                open: watch::Sender::new(0),
                shared: Arc::new(Semaphore::new(SHARED_BYTES_MAX)),
                finishing: Arc::new(Semaphore::new(finishing_max.min(Semaphore::MAX_PERMITS))),
            },
            runtime,
            ordered,
            buffer: vec![0; buffer_bytes.min(BUFFER_BYTES_MAX) * BUFFERS].into(),
        }
    }

    fn spawn(mut self) {
        let runtime = self.runtime.clone();
        runtime.spawn(Box::pin(async move {
            if let Err(error) = std::future::poll_fn(|cx| self.poll(cx)).await {
                warn!(%error, "the socket failed");
            }
        }));
    }

    /// Ready when nobody needs the endpoint any more, or the socket has failed.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        for _ in 0..TURNS {
            while let Poll::Ready(command) = self.ordered.poll_recv(cx) {
                match command {
                    Some(Command::Finish(connection)) => self.finish(*connection),
                    Some(command) => self.router.obey(command),
                    None => return Poll::Ready(Ok(())),
                }
            }
            ready!(self.router.poll_receive(cx, &mut self.buffer))?;
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Sees a connection to its end. Beyond so many it is forgotten instead, while others may come who need its room: it has said why it
    /// ends, and who has not heard that and comes late is told that nobody is here (a stateless reset).
    ///
    /// One that the other end has closed, or forgotten, has nothing to answer.
    fn finish(&self, connection: Connection) {
        if matches!(connection.down(), Some(Down::Closed(_) | Down::Forgotten | Down::TimedOut)) {
            return;
        }
        let place = self.router.finishing.clone().try_acquire_owned();
        if place.is_err() && self.router.incoming.is_some() {
            return debug!("a connection is forgotten: as many as may be are ending");
        }
        self.runtime.spawn(Box::pin(async move {
            connection.finish().await;
            drop(place);
        }));
    }
}

impl Router {
    fn obey(&mut self, command: Command) {
        match command {
            Command::Accept(incoming, answer) => {
                // Who asked and is gone drops the connection.
                let _ = answer.send(self.accept(*incoming));
            }
            Command::TurnAway(incoming, how) => self.turn_away(*incoming, how),
            Command::RefuseNew => {
                self.quic.set_server_config(None);
                self.incoming = None;
            }
            Command::Event(handle, event) => {
                if event.is_drained()
                    && let Some(place) = self.connections.remove(&handle.0)
                {
                    self.leave(place.remote);
                }
                if let Some(event) = self.quic.handle_event(handle, event)
                    && let Some(place) = self.connections.get(&handle.0)
                {
                    // What it asked for too often it does not get.
                    let _ = place.owner.try_send(Heard::Quic {
                        event: Box::new(event),
                        part: None,
                        _share: None,
                    });
                }
                self.count();
            }
            Command::At(handle, remote) => {
                if let Some(place) = self.connections.get_mut(&handle.0) {
                    let before = std::mem::replace(&mut place.remote, remote);
                    *self.remotes.entry(remote).or_default() += 1;
                    self.leave(before);
                }
            }
            Command::Finish(_) => unreachable!("the task finishes connections itself"),
        }
    }

    /// One connection less has its other end there.
    fn leave(&mut self, remote: SocketAddr) {
        if let Some(count) = self.remotes.get_mut(&remote) {
            *count -= 1;
            if *count == 0 {
                self.remotes.remove(&remote);
            }
        }
    }

    fn accept(&mut self, incoming: quinn_proto::Incoming) -> Result<Owned, Down> {
        let mut bytes = Vec::new();
        let config = self.server.as_ref().map(quic::Server::config);
        match self.quic.accept(incoming, self.clock.now(), &mut bytes, config) {
            Ok((handle, connection)) => {
                let commands = self.commands.as_ref().and_then(mpsc::WeakUnboundedSender::upgrade);
                let commands = commands.expect("who asks holds one");
                Ok(self.own(handle, connection, commands))
            }
            Err(error) => {
                if let Some(response) = error.response {
                    self.respond(&response, &bytes);
                }
                self.count();
                Err(error.cause.into())
            }
        }
    }

    /// Makes what an owner holds of a connection. What it needs of the endpoint from the start it has at once, so that
    /// it leaves with its first packets.
    fn own(
        &mut self,
        handle: ConnectionHandle,
        mut connection: quinn_proto::Connection,
        commands: mpsc::UnboundedSender<Command>,
    ) -> Owned {
        while let Some(event) = connection.poll_endpoint_events() {
            if let Some(event) = self.quic.handle_event(handle, event) {
                connection.handle_event(event);
            }
        }
        let (events, received) = mpsc::channel(DATAGRAMS_WAITING_MAX + OWN_EVENTS_MAX);
        let remote = connection.remote_address();
        self.connections.insert(handle.0, Place { owner: events, remote });
        *self.remotes.entry(remote).or_default() += 1;
        self.count();
        let idle_timeout = self.server.as_ref().map(|server| server.idle_timeout);
        Owned::new(handle, connection, received, commands, self.socket.clone(), self.clock, idle_timeout)
    }

    fn turn_away(&mut self, incoming: quinn_proto::Incoming, how: TurnedAway) {
        let mut bytes = Vec::new();
        let response = match how {
            TurnedAway::Refused => Some(self.quic.refuse(incoming, &mut bytes)),
            TurnedAway::Retried => match self.quic.retry(incoming, &mut bytes) {
                Ok(response) => Some(response),
                Err(error) => {
                    self.quic.ignore(error.into_incoming());
                    None
                }
            },
            TurnedAway::Ignored => {
                self.quic.ignore(incoming);
                None
            }
        };
        if let Some(response) = response {
            self.respond(&response, &bytes);
        }
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<()>> {
        let mut metas = [RecvMeta::default(); BUFFERS];
        let count = {
            let mut parts = buffer.chunks_mut(buffer.len() / BUFFERS).map(IoSliceMut::new);
            let mut slices: [_; BUFFERS] =
                std::array::from_fn(|_| parts.next().expect("it was cut into that many"));
            match ready!(self.socket.poll_recv(cx, &mut slices, &mut metas)) {
                Ok(count) => count,
                // Means nothing in QUIC, and anybody can cause it.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => 0,
                Err(error) => return Poll::Ready(Err(error)),
            }
        };
        let parts = buffer.chunks(buffer.len() / BUFFERS);
        for (meta, part) in metas[..count].iter().zip(parts) {
            for datagram in part[..meta.len].chunks(meta.stride.max(1)) {
                self.route(meta, datagram.into());
            }
        }
        Poll::Ready(Ok(()))
    }

    fn route(&mut self, meta: &RecvMeta, datagram: BytesMut) {
        let ecn = meta.ecn.map(|ecn| match ecn {
            udp::EcnCodepoint::Ect0 => EcnCodepoint::Ect0,
            udp::EcnCodepoint::Ect1 => EcnCodepoint::Ect1,
            udp::EcnCodepoint::Ce => EcnCodepoint::Ce,
        });
        if datagram[..] == TOUCH {
            return self.touched(meta.addr);
        }
        let len = datagram.len();
        if len > DATAGRAM_BYTES_MAX {
            return debug!(len, "a datagram is lost: it is longer than any may be");
        }
        let mut bytes = Vec::new();
        let now = self.clock.now();
        let part = Part::of(&datagram);
        match self.quic.handle(now, meta.addr, meta.dst_ip, ecn, datagram, &mut bytes) {
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                let Some(place) = self.connections.get(&handle.0) else { return };
                let share = match place.owner.max_capacity() - place.owner.capacity() {
                    ..DATAGRAMS_OF_EACH => Ok(None),
                    _ => self.shared.clone().try_acquire_many_owned(len as u32).map(Some),
                };
                match share {
                    Ok(_share) if place.owner.capacity() > OWN_EVENTS_MAX => {
                        let _ = place.owner.try_send(Heard::Quic { event: Box::new(event), part, _share });
                    }
                    _ => debug!(?handle, "a datagram is lost: its connection is not looked after"),
                }
            }
            Some(DatagramEvent::NewConnection(incoming)) => self.offer(incoming),
            Some(DatagramEvent::Response(response)) => self.respond(&response, &bytes),
            None => {}
        }
    }

    /// A relay answers touches in kind where it knows nobody at that address, so that a device there learns that it has been
    /// lost sight of. What comes back is as small as what came.
    fn touched(&self, remote: SocketAddr) {
        if self.server.is_some() {
            if !self.remotes.contains_key(&remote) {
                let (destination, size) = (remote, TOUCH.len());
                let transmit =
                    quinn_proto::Transmit { destination, size, ecn: None, segment_size: None, src_ip: None };
                self.respond(&transmit, &TOUCH);
            }
            return;
        }
        for place in self.connections.values().filter(|place| place.remote == remote) {
            if place.owner.capacity() > OWN_EVENTS_MAX {
                let _ = place.owner.try_send(Heard::Touch);
            }
        }
    }

    fn offer(&mut self, incoming: quinn_proto::Incoming) {
        let commands = self.commands.as_ref().and_then(mpsc::WeakUnboundedSender::upgrade);
        match (&self.incoming, commands) {
            (Some(accepting), Some(commands)) => {
                // If nobody accepts any more, dropping it refuses it.
                let _ = accepting.send(Incoming::new(incoming, commands));
            }
            _ => self.turn_away(incoming, TurnedAway::Refused),
        }
    }

    /// Sends what needs no connection, or loses it: whoever asked will ask again.
    fn respond(&self, response: &quinn_proto::Transmit, bytes: &[u8]) {
        let _ = self.socket.try_send(&for_socket(response, bytes));
    }

    fn count(&self) {
        let open = self.quic.open_connections();
        self.open.send_if_modified(|known| std::mem::replace(known, open) != open);
    }
}
