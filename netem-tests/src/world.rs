//! Whole worlds in virtual time: the real relay and real clients, on emulated links, from one seed.
//!
//! Nothing is a mock: client and relay are what a person runs, QUIC and TLS included. What differs is
//! the outermost shell: datagrams go through a [`Net`], homes and the relay's store are in memory, and
//! tokio's clock is paused, so that an hour passes in a second. A world must be built inside a runtime
//! whose clock is paused, and is repeatable in times and byte counts.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU16, Ordering};
use std::time::Duration;

use quinn::{AsyncUdpSocket, Runtime};
use thinpost_carrier::Identity;
use thinpost_client::{
    BlockingMode, Builder, Client, Home, MemoryStorage, Network, OpenError, Storage, WallClock,
};
use thinpost_disk::medium::Medium;
use thinpost_gateway::config::{Config, Registration};
use thinpost_gateway::invite::Invites;
use thinpost_gateway::store::{CommitMode, MemoryStore, RedbStore, Store};
use thinpost_gateway::{Relay, RelayParts};
use thinpost_wire::ids::{RelayKey, StoreId};
use thinpost_wire::ticket::{RelayTicket, Ticket};
use tokio::time::Instant;

use crate::disk::{FailingDisk, Failure};
use crate::panics::PanicWatch;
use crate::{Net, Profile};

/// Where a world's relay listens.
const RELAY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 4433);

/// When every world begins: 2026-01-01 in UTC.
const BEGINNING_UNIX_S: u64 = 1_767_225_600;

/// How soon people in a world notice that a relay has vanished.
pub(crate) const KEEPALIVE: Duration = Duration::from_secs(20);

/// A relay and the network that people reach it through.
pub struct World {
    seed: u64,
    net: Net,
    config: Config,
    identity: Identity,
    /// The clock of the relay's machine.
    clock: Arc<Clock>,
    store: Arc<dyn Store>,
    /// The file of the store, if it is one of redb.
    file: Option<Medium>,
    /// The store as the running relay has it open.
    disk: Arc<FailingDisk>,
    relay: Option<Relay>,
    relay_starts: u64,
    stores: u8,
    people: u16,
    /// Last, so that all else has ended.
    _panics: PanicWatch,
}

/// What a world is to be like.
#[derive(Clone, Debug)]
pub struct WorldBuilder {
    seed: u64,
    config: Config,
    on_redb: bool,
    identity: Identity,
    beginning_unix_s: u64,
}

impl WorldBuilder {
    /// What all is drawn from; 0 if it is not set.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// How the relay is configured; by default as any is, but that it admits everyone.
    #[must_use]
    pub fn relay_config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Whether the relay's store is redb's, as that of a relay is, on a file in memory. By default it is the model of one.
    #[must_use]
    pub fn on_redb(mut self, on_redb: bool) -> Self {
        self.on_redb = on_redb;
        self
    }

    /// Who the relay is; the same in all worlds by default.
    #[must_use]
    pub fn relay_identity(mut self, identity: Identity) -> Self {
        self.identity = identity;
        self
    }

    /// When the world begins, seconds since 1970; with the year 2026 by default.
    #[must_use]
    pub fn beginning(mut self, unix_s: u64) -> Self {
        self.beginning_unix_s = unix_s;
        self
    }

    /// A world with a running relay, and nobody in it.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn build(self) -> World {
        World::with(self)
    }
}

/// Somebody with a home, and perhaps an open client.
pub struct Person {
    name: &'static str,
    ip: IpAddr,
    seed: u64,
    storage: MemoryStorage,
    network: Arc<dyn Network>,
    clock: Arc<Clock>,
    client: Option<Client>,
}

impl World {
    /// A world with a running relay that admits everyone, and nobody in it.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn new(seed: u64) -> Self {
        Self::builder().seed(seed).build()
    }

    /// The same, with choices.
    pub fn builder() -> WorldBuilder {
        let mut config = Config::default();
        config.registration = Registration::Open;
        let (identity, beginning_unix_s) = (Identity::from_seed([0x52; 32]), BEGINNING_UNIX_S);
        WorldBuilder { seed: 0, config, on_redb: false, identity, beginning_unix_s }
    }

    fn with(builder: WorldBuilder) -> Self {
        let WorldBuilder { seed, config, on_redb, identity, beginning_unix_s } = builder;
        let panics = PanicWatch::begin();
        let file = on_redb.then(Medium::default);
        let store = open_store(file.as_ref(), &config, seed, 0);
        let mut world = Self {
            seed,
            net: Net::new(seed),
            config,
            identity,
            clock: Arc::new(Clock::right(Instant::now(), beginning_unix_s)),
            disk: Arc::new(FailingDisk::new(store.clone())),
            store,
            file,
            relay: None,
            relay_starts: 0,
            stores: 0,
            people: 0,
            _panics: panics,
        };
        world.start_relay();
        world
    }

    /// The network between everyone.
    pub fn net(&self) -> &Net {
        &self.net
    }

    /// How long this world has lasted.
    pub fn age(&self) -> Duration {
        self.clock.began.elapsed()
    }

    /// Starts the relay from what its store holds.
    ///
    /// # Panics
    /// If it runs already.
    pub fn start_relay(&mut self) {
        self.relay_starts += 1;
        self.disk = Arc::new(FailingDisk::new(self.store.clone()));
        let clock = self.clock.clone();
        let parts = RelayParts {
            identity: self.identity.clone(),
            reset_key: [0x53; 32],
            invites: Invites::new([0x54; 32]),
            config: self.config.clone(),
            store: self.disk.clone(),
            socket: self.net.host(RELAY).expect("the relay's address is free"),
            runtime: self.net.runtime(),
            commit_mode: CommitMode::Inline,
            rng_seed: Some(rng_seed(self.seed, self.relay_starts)),
            unix_time_s: Arc::new(move || clock.unix_ms() / 1_000),
        };
        self.relay = Some(Relay::start(parts).expect("a socket and a store in memory do not fail"));
    }

    /// Ends the relay between two instructions; only its store remains.
    pub fn kill_relay(&mut self) {
        self.net.unplug(RELAY);
        self.relay = None;
        self.reopen_store();
    }

    /// Stops the relay in good order.
    pub async fn stop_relay(&mut self) {
        if let Some(relay) = self.relay.take() {
            relay.shutdown().await;
        }
        self.net.unplug(RELAY);
        self.reopen_store();
    }

    /// Opens the file of the store anew, as the next process does. What the last one still writes to its own is nothing to this.
    fn reopen_store(&mut self) {
        if let Some(file) = &mut self.file {
            *file = file.fork();
            self.store = open_store(Some(file), &self.config, self.seed, self.stores);
        }
    }

    /// Sets the clock of the relay's machine forth by so many seconds, or back.
    pub fn step_relay_clock(&self, seconds: i64) {
        self.clock.step(seconds);
    }

    /// The relay's disk is lost, with all that it had custody of, and an empty one put in its place.
    ///
    /// # Panics
    /// While the relay runs.
    pub fn lose_store(&mut self) {
        assert!(self.relay.is_none(), "kill the relay first");
        self.stores += 1;
        self.file = self.file.is_some().then(Medium::default);
        self.store = open_store(self.file.as_ref(), &self.config, self.seed, self.stores);
    }

    /// Puts another disk in the place of the relay's: one that was lost, perhaps.
    ///
    /// # Panics
    /// While the relay runs.
    pub fn put_store(&mut self, store: Arc<dyn Store>) {
        assert!(self.relay.is_none(), "kill the relay first");
        self.file = None;
        self.store = store;
    }

    /// The next commit of the running relay fails. It stops by itself then: kill it, and start it again.
    pub fn fail_disk(&self, failure: Failure) {
        self.disk.fail(failure);
    }

    /// The relay, while it runs.
    pub fn relay(&self) -> Option<&Relay> {
        self.relay.as_ref()
    }

    /// The relay's store.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// How to reach the relay.
    pub fn relay_ticket(&self) -> RelayTicket {
        RelayTicket { key: RelayKey(self.identity.public()), addresses: vec![RELAY] }
    }

    /// Somebody new behind a link of this profile, with a fresh home and no client.
    pub fn person(&mut self, name: &'static str, profile: &Profile) -> Person {
        self.settle(name, |net, ip| net.attach_profile(ip, profile))
    }

    /// The same behind the link of somebody else, whose queues both fill.
    pub fn person_beside(&mut self, name: &'static str, neighbour: &Person) -> Person {
        self.settle(name, |net, ip| net.attach_beside(ip, neighbour.ip))
    }

    fn settle(&mut self, name: &'static str, attach: impl FnOnce(&Net, IpAddr)) -> Person {
        self.people += 1;
        let [high, low] = self.people.to_be_bytes();
        let ip = IpAddr::V4(Ipv4Addr::new(10, 0, high, low));
        attach(&self.net, ip);
        let seed = self.seed.wrapping_mul(1_000).wrapping_add(self.people.into());
        let storage = MemoryStorage::new();
        Home::create_seeded(&storage, &Ticket::Relay(self.relay_ticket()), seed)
            .expect("an empty home can be made");
        Person {
            name,
            ip,
            seed,
            storage,
            network: Arc::new(Sockets { net: self.net.clone(), ip, next_port: AtomicU16::new(40_000) }),
            clock: Arc::new(Clock::right(self.clock.began, self.clock.beginning_unix_s)),
            client: None,
        }
    }
}

impl Person {
    /// What others call them.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Where they are.
    pub fn ip(&self) -> IpAddr {
        self.ip
    }

    /// Their home.
    pub fn storage(&self) -> &MemoryStorage {
        &self.storage
    }

    /// Puts another home in the place of theirs, as when a backup is restored.
    pub fn restore(&mut self, storage: MemoryStorage) {
        assert!(self.client.is_none(), "kill the client first");
        self.storage = storage;
    }

    /// Puts an empty home of the same account in the place of theirs, with other keys for messages.
    pub fn lose_home(&mut self, relay: RelayTicket) {
        let storage = MemoryStorage::new();
        // Olm draws keys of its own, whatever the seed.
        Home::create_seeded(&storage, &Ticket::Relay(relay), self.seed).expect("an empty home can be made");
        self.restore(storage);
    }

    /// Sets the clock of their phone forth by so many seconds, or back.
    pub fn step_clock(&self, seconds: i64) {
        self.clock.step(seconds);
    }

    /// Opens their client, with options of your own.
    pub fn open_with(&mut self, options: impl FnOnce(Builder) -> Builder) -> &Client {
        self.open_home(self.storage.clone(), options)
    }

    /// Opens a client with a home that is elsewhere; what is kept for them here stays as it is.
    pub fn open_home(
        &mut self,
        home: impl Into<Storage>,
        options: impl FnOnce(Builder) -> Builder,
    ) -> &Client {
        let client = options(self.builder(home)).open().expect("the home can be opened");
        self.client.insert(client)
    }

    /// The same where the home may be beyond opening.
    pub(crate) fn try_open(&mut self, options: impl FnOnce(Builder) -> Builder) -> Result<(), OpenError> {
        self.client = Some(options(self.builder(self.storage.clone())).open()?);
        Ok(())
    }

    fn builder(&self, home: impl Into<Storage>) -> Builder {
        Client::builder(home)
            .network(self.network.clone())
            .wall_clock(self.clock.clone())
            .blocking(BlockingMode::Inline)
            .seed(self.seed)
    }

    /// Opens their client, with keep-alives so that a relay that vanished is noticed.
    pub fn open(&mut self) -> &Client {
        self.open_with(|builder| builder.keepalive(KEEPALIVE))
    }

    /// Their open client.
    ///
    /// # Panics
    /// If there is none.
    pub fn client(&self) -> &Client {
        self.client.as_ref().expect("the client is open")
    }

    /// Ends their client between two instructions; what their home holds then is all that remains.
    pub async fn kill(&mut self) {
        if let Some(client) = self.client.take() {
            self.storage = self.storage.fork();
            client.abort().await;
        }
    }
}

/// Sockets of one address, each on a port of its own.
#[derive(Debug)]
struct Sockets {
    net: Net,
    ip: IpAddr,
    next_port: AtomicU16,
}

impl Network for Sockets {
    fn bind(&self, _: SocketAddr) -> io::Result<(Arc<dyn AsyncUdpSocket>, Arc<dyn Runtime>)> {
        let port = self.next_port.fetch_add(1, Ordering::Relaxed);
        Ok((self.net.host(SocketAddr::new(self.ip, port))?, self.net.runtime()))
    }
}

/// A wall clock that goes with the world's time, though it may be set wrong.
struct Clock {
    began: Instant,
    beginning_unix_s: u64,
    ahead_ms: AtomicI64,
}

impl Clock {
    fn right(began: Instant, beginning_unix_s: u64) -> Self {
        Self { began, beginning_unix_s, ahead_ms: AtomicI64::new(0) }
    }

    fn step(&self, seconds: i64) {
        self.ahead_ms.fetch_add(seconds * 1_000, Ordering::Relaxed);
    }
}

impl WallClock for Clock {
    fn unix_ms(&self) -> u64 {
        let right_ms = self.beginning_unix_s * 1_000 + self.began.elapsed().as_millis() as u64;
        right_ms.saturating_add_signed(self.ahead_ms.load(Ordering::Relaxed))
    }
}

/// The store in this file, or a model of one; made anew if there is nothing.
fn open_store(file: Option<&Medium>, config: &Config, seed: u64, nth: u8) -> Arc<dyn Store> {
    let mut id = seed.to_be_bytes();
    id[0] ^= nth;
    let (config, id) = (config.store_config(), StoreId(id));
    match file {
        Some(file) => {
            Arc::new(RedbStore::with_backend(file.clone(), config, id).expect("a file in memory is sound"))
        }
        None => Arc::new(MemoryStore::new(config, id)),
    }
}

fn rng_seed(seed: u64, start: u64) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_be_bytes());
    bytes[8..16].copy_from_slice(&start.to_be_bytes());
    bytes
}
