//! How a client is opened.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use thinpost_wire::ids::Incarnation;
use thinpost_wire::text::Models;
use tokio::sync::{broadcast, mpsc, watch};
use tracing::Instrument;

use crate::client::{Client, Shared};
use crate::clock::{SystemClock, WallClock};
use crate::contacts::Contacts;
use crate::driver::{Driver, Options, Start, Wish};
use crate::error::OpenError;
use crate::event::{EVENTS_KEPT, LinkState, LinkStatus};
use crate::grants::Grants;
use crate::home::Home;
use crate::home_clock::HomeClock;
use crate::message::InboxNumber;
use crate::network::{Network, Udp};
use crate::points::Points;
use crate::random::Random;
use crate::seal::{Codings, Keyring};
use crate::store::key::HomeKey;
use crate::store::storage::Storage;
use crate::store::{Numbers, Store};

/// Where the home's file is read and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockingMode {
    /// On tokio's threads for blocking work: for real disks.
    Pool,
    /// On the calling task: for simulations on virtual time, where the medium is memory and the order of
    /// everything must follow from the seed.
    Inline,
}

/// Options of a client; see [`Client::builder`].
#[must_use]
pub struct Builder {
    storage: Storage,
    key: Option<HomeKey>,
    models: Models,
    network: Arc<dyn Network>,
    clock: Arc<dyn WallClock>,
    blocking: BlockingMode,
    seed: Option<u64>,
    points: Points,
    options: Options,
}

impl Builder {
    pub(crate) fn new(storage: Storage) -> Self {
        Self {
            storage,
            key: None,
            models: Models::compiled_in(),
            network: Arc::new(Udp),
            clock: Arc::new(SystemClock),
            blocking: BlockingMode::Pool,
            seed: None,
            points: Points::default(),
            options: Options::default(),
        }
    }

    /// The key that the home is encrypted under; none by default.
    pub fn key(mut self, key: HomeKey) -> Self {
        self.key = Some(key);
        self
    }

    /// The text models to code and read with; those that are compiled in by default. Contacts are told of them, and from
    /// then on may send what cannot be read without: open the home with the same ones each time. What is coded with one
    /// that is missing comes again, later and in more bytes; what the relay could read is kept as it came.
    pub fn models(mut self, models: Models) -> Self {
        self.models = models;
        self
    }

    /// Where sockets come from; the system's UDP by default.
    pub fn network(mut self, network: Arc<dyn Network>) -> Self {
        self.network = network;
        self
    }

    /// The wall clock; the system's by default.
    pub fn wall_clock(mut self, clock: Arc<dyn WallClock>) -> Self {
        self.clock = clock;
        self
    }

    /// Where the file is read and written; [`BlockingMode::Pool`] by default.
    pub fn blocking(mut self, blocking: BlockingMode) -> Self {
        self.blocking = blocking;
        self
    }

    /// Draws everything random but TLS's own keys from this seed and the wall clock at opening: for
    /// simulations. By default randomness is the system's.
    ///
    /// Two openings of one home must differ in seed or clock, or the relay takes new messages for repeats.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Does this at every crash point, with its name: for simulations. What the home's medium holds by then is
    /// what a kill would leave, and the client stops there if this panics.
    #[cfg(feature = "crash-points")]
    pub fn crash_points(mut self, at_each: Arc<dyn Fn(&'static str) + Send + Sync>) -> Self {
        self.points = Points::new(at_each);
        self
    }

    /// Asks the relay for a sign of life whenever nothing was said for so long, so that a link that died
    /// in silence is noticed. By default never: it keeps the phone's radio awake.
    pub fn keepalive(mut self, after: Duration) -> Self {
        self.options.keepalive = Some(after);
        self
    }

    /// How long a message may wait in the outbox before it fails; 30 days by default.
    pub fn lifetime(mut self, lifetime: Duration) -> Self {
        self.options.lifetime = lifetime;
        self
    }

    /// Opens the home. Must be called within a tokio runtime, which then drives the client; nothing is
    /// sent before [`Client::connect`]. Reads the disk, and makes a key of a passphrase, on the calling task.
    ///
    /// # Errors
    /// See [`OpenError`]; the home is not changed.
    pub fn open(self) -> Result<Client, OpenError> {
        let stream = |of| match self.seed {
            Some(seed) => Ok(Random::from_seed(seed, of, self.clock.unix_ms())),
            None => Random::from_system().map_err(|_| OpenError::NoRandomness),
        };
        let (mut random, nonces, for_grants) = (stream("client")?, stream("nonces")?, stream("grants")?);
        let (mut store, loaded) = Store::open(&self.storage, self.key.as_ref(), nonces)?;
        let clock = Arc::new(HomeClock::open(loaded.clock.clone(), self.clock.clone()));
        store.clock = Some(clock.clone());
        store.points = self.points;
        let incarnation = Incarnation(random.bytes());
        let of_open = Incarnation(stream("open")?.bytes());
        tracing::debug!(%incarnation, waiting = loaded.outbox.len(), "home opened");
        let keyring = Keyring::from_record(&loaded.keyring)?;
        let home = Home::from_record(&loaded.home, keyring.public())?;
        let (heads, inbox_head) = watch::channel(InboxNumber(loaded.counters.received));
        let (status, status_seen) = watch::channel(LinkStatus {
            state: LinkState::Offline,
            rtt: (loaded.relay.rtt_us > 0).then(|| Duration::from_micros(loaded.relay.rtt_us)),
            sent_bytes: 0,
            received_bytes: 0,
            pending: loaded.outbox.len(),
            at_rest_since: None,
            caught_up: false,
            urges_seen: 0,
        });
        let (driver, told) = mpsc::unbounded_channel();
        let (wish, wished) = watch::channel(Wish::default());
        let codings = Arc::new(Codings::new(self.models));
        let shared = Arc::new(Shared {
            home,
            store,
            codings: codings.clone(),
            numbers: Numbers::new(incarnation, of_open),
            requests: Mutex::new(
                loaded.requests.iter().map(|ticket| (ticket.account, ticket.clone())).collect(),
            ),
            contacts: Mutex::new(Contacts::new(
                loaded.contacts.iter().cloned(),
                loaded.access.iter().cloned(),
            )),
            grants: Mutex::new(Grants::new(loaded.home.secret, loaded.grants.clone(), for_grants)),
            granting: Mutex::default(),
            events: broadcast::channel(EVENTS_KEPT).0,
            inbox_head,
            status: status_seen,
            wall: self.clock,
            clock,
            blocking: self.blocking,
            driver,
        });
        let driver = Driver::new(
            shared.clone(),
            Start::new(loaded, keyring, codings)?,
            self.network,
            self.options,
            (random, self.seed.is_some()),
            (wished, told, heads, status),
        );
        let span = tracing::info_span!("client", account = %shared.home.account_key());
        Ok(Client::new(shared, wish, tokio::spawn(driver.run().instrument(span))))
    }
}
