//! Where two people and a relay live: in virtual time, or behind real sockets.

use std::net::IpAddr;

use anyhow::{Context, Result};
use thinpost_client::Client;
use thinpost_netem::{Net, PathCounters, Person, Profile, World};

/// The thin link's host, seen from outside.
pub(crate) enum Place {
    /// A world of which a seed decides all.
    Virtual(Box<VirtualPlace>),
    /// Programs and sockets of this machine.
    Real(Box<dyn RealPlace>),
}

/// What is asked of a place that is no simulation.
pub(crate) trait RealPlace {
    fn ann(&self) -> &Client;
    fn bob(&self) -> &Client;
    /// Of Ann's link.
    fn counters(&self) -> Result<PathCounters>;
}

pub(crate) struct VirtualPlace {
    pub(crate) world: World,
    pub(crate) ann: Person,
    pub(crate) bob: Person,
}

impl Place {
    /// A relay, Ann behind the thin link, Bob on a good one; both have a home there, and no keep-alives, which would be
    /// counted, too.
    pub(crate) fn in_virtual_time(
        seed: u64,
        link: &Profile,
        watch: impl FnOnce(&Net, IpAddr),
    ) -> Result<Self> {
        let mut world = World::new(seed);
        let mut ann = world.person("ann", link);
        watch(world.net(), ann.ip());
        let mut bob = world.person("bob", &Profile::named("clean")?);
        ann.open_with(|builder| builder);
        bob.open_with(|builder| builder);
        Ok(Self::Virtual(Box::new(VirtualPlace { world, ann, bob })))
    }

    pub(crate) fn ann(&self) -> &Client {
        match self {
            Self::Virtual(place) => place.ann.client(),
            Self::Real(place) => place.ann(),
        }
    }

    pub(crate) fn bob(&self) -> &Client {
        match self {
            Self::Virtual(place) => place.bob.client(),
            Self::Real(place) => place.bob(),
        }
    }

    /// IP bytes on Ann's link so far, both ways.
    pub(crate) fn air_bytes(&self) -> Result<u64> {
        let path = match self {
            Self::Virtual(place) => place.world.net().counters(place.ann.ip()),
            Self::Real(place) => place.counters()?,
        };
        Ok(offered_bytes(path))
    }

    /// What only a simulation can do.
    pub(crate) fn simulated(&self) -> Result<&VirtualPlace> {
        match self {
            Self::Virtual(place) => Ok(place),
            Self::Real(_) => None.context("this scenario is played in virtual time only: leave out --on"),
        }
    }

    /// The same, to change it.
    pub(crate) fn simulated_mut(&mut self) -> Result<&mut VirtualPlace> {
        self.simulated()?;
        match self {
            Self::Virtual(place) => Ok(place),
            Self::Real(_) => unreachable!("it was asked for a moment ago"),
        }
    }
}

/// IP bytes offered to a link, both ways.
pub(crate) fn offered_bytes(path: PathCounters) -> u64 {
    path.up.offered.ip_bytes + path.down.offered.ip_bytes
}
