//! Where the talk takes place: the real relay and two real clients, on real UDP sockets or in virtual time.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use quinn::{Runtime, TokioRuntime};
use tempfile::TempDir;
use thinpost_carrier::Identity;
use thinpost_client::{Client, Home};
use thinpost_gateway::config::Config;
use thinpost_gateway::invite::{InviteParams, Invites};
use thinpost_gateway::store::{CommitMode, RedbStore};
use thinpost_gateway::{Relay, RelayParts};
use thinpost_netem::{PathCounters, Person, Profile, UdpProxy, World};
use thinpost_wire::ids::RelayKey;
use thinpost_wire::ticket::{RelayTicket, Ticket};

/// A relay that vanished is noticed after about this long.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// Two people and a relay.
pub(crate) enum Stage {
    Virtual(Box<Virtual>),
    Real(Box<Real>),
}

/// Everything in memory.
pub(crate) struct Virtual {
    world: World,
    people: [Person; 2],
}

/// Everything on loopback: each person reaches the relay through a link of their own.
pub(crate) struct Real {
    /// Removed at the end.
    folder: TempDir,
    address: SocketAddr,
    relay: Option<OwnRuntime>,
    links: [UdpProxy; 2],
    clients: [Client; 2],
}

impl Stage {
    pub(crate) async fn virtual_time(profile: &Profile, seed: u64) -> anyhow::Result<Self> {
        let mut world = World::new(seed);
        let mut people = [world.person("ann", profile), world.person("bob", profile)];
        for person in &mut people {
            person.open_with(|builder| builder.keepalive(KEEPALIVE));
        }
        let stage = Self::Virtual(Box::new(Virtual { world, people }));
        stage.introduce().await?;
        Ok(stage)
    }

    pub(crate) async fn real_sockets(profile: &Profile, seed: u64) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("no temporary folder")?;
        let relay = start_relay(&folder, (Ipv4Addr::LOCALHOST, 0).into())?;
        let address = relay.relay.local_addr()?;
        let (mut links, mut clients) = (Vec::new(), Vec::new());
        for (name, seed) in [("ann", seed), ("bob", seed.wrapping_add(1))] {
            let link = UdpProxy::spawn(address, profile, seed).await?;
            let ticket = RelayTicket { key: RelayKey(identity().public()), addresses: vec![link.addr()] };
            let params = InviteParams { uses: 1, valid: None };
            let invite = invites().mint(ticket, params, 0).context("no randomness")?;
            let home = folder.path().join(name);
            Home::create(&home, &Ticket::Invite(invite))?;
            clients.push(Client::builder(&home).keepalive(KEEPALIVE).open()?);
            links.push(link);
        }
        let (Ok(links), Ok(clients)) = (links.try_into(), clients.try_into()) else {
            anyhow::bail!("two people were to be on stage");
        };
        let stage = Self::Real(Box::new(Real { folder, address, relay: Some(relay), links, clients }));
        stage.introduce().await?;
        Ok(stage)
    }

    /// The two exchange tickets, and go online.
    async fn introduce(&self) -> anyhow::Result<()> {
        let [ann, bob] = self.clients();
        ann.add_contact("bob", &bob.ticket_for("ann").await?).await?;
        bob.add_contact("ann", &ann.ticket_for("bob").await?).await?;
        ann.connect();
        bob.connect();
        Ok(())
    }

    /// Ann and Bob.
    pub(crate) fn clients(&self) -> [&Client; 2] {
        match self {
            Self::Virtual(stage) => stage.people.each_ref().map(Person::client),
            Self::Real(real) => real.clients.each_ref(),
        }
    }

    /// Cuts Ann's link, or mends it.
    pub(crate) fn set_outage(&self, outage: bool) {
        match self {
            Self::Virtual(stage) => stage.world.net().set_outage(stage.people[0].ip(), outage),
            Self::Real(real) => real.links[0].set_outage(outage),
        }
    }

    /// Stops the relay in good order and starts it again from what it has on disk.
    pub(crate) async fn restart_relay(&mut self) -> anyhow::Result<()> {
        match self {
            Self::Virtual(stage) => {
                stage.world.stop_relay().await;
                stage.world.start_relay();
            }
            Self::Real(real) => {
                if let Some(relay) = real.relay.take() {
                    relay.stop().await?;
                }
                real.relay = Some(start_relay(&real.folder, real.address)?);
            }
        }
        Ok(())
    }

    /// What went over each link so far.
    pub(crate) fn counters(&self) -> [PathCounters; 2] {
        match self {
            Self::Virtual(stage) => {
                stage.people.each_ref().map(|person| stage.world.net().counters(person.ip()))
            }
            Self::Real(real) => real.links.each_ref().map(UdpProxy::counters),
        }
    }

    /// Closes everything.
    pub(crate) async fn end(self) {
        match self {
            Self::Virtual(mut stage) => stage.world.stop_relay().await,
            Self::Real(real) => {
                let Real { folder: _folder, relay, links, clients, .. } = *real;
                for client in clients {
                    client.close().await;
                }
                if let Some(relay) = relay
                    && let Err(error) = relay.stop().await
                {
                    eprintln!("demo: {error:#}");
                }
                for link in links {
                    link.shutdown().await;
                }
            }
        }
    }
}

/// A relay on a runtime of its own, so that when it has stopped its socket and files are free, as after
/// the end of a process.
struct OwnRuntime {
    relay: Relay,
    runtime: tokio::runtime::Runtime,
}

impl OwnRuntime {
    async fn stop(self) -> anyhow::Result<()> {
        let Self { relay, runtime } = self;
        let stop = move || {
            runtime.block_on(relay.shutdown());
            runtime.shutdown_timeout(Duration::from_secs(5));
        };
        Ok(tokio::task::spawn_blocking(stop).await?)
    }
}

/// The relay of the demo lives for one run, on loopback: its keys need not be secret.
fn identity() -> Identity {
    Identity::from_seed([0xd0; 32])
}

fn invites() -> Invites {
    Invites::new([0xd1; 32])
}

fn start_relay(folder: &TempDir, address: SocketAddr) -> anyhow::Result<OwnRuntime> {
    let own = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let entered = own.enter();
    let config = Config::default();
    let store = RedbStore::open(&folder.path().join("relay.redb"), config.store_config())?;
    let runtime = Arc::new(TokioRuntime);
    let socket = std::net::UdpSocket::bind(address).with_context(|| format!("cannot listen on {address}"))?;
    let relay = Relay::start(RelayParts {
        identity: identity(),
        reset_key: [0xd2; 32],
        invites: invites(),
        config,
        store: Arc::new(store),
        socket: runtime.wrap_udp_socket(socket)?,
        runtime,
        commit_mode: CommitMode::Blocking,
        rng_seed: None,
        unix_time_s: Arc::new(|| {
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
        }),
    })?;
    drop(entered);
    Ok(OwnRuntime { relay, runtime: own })
}
