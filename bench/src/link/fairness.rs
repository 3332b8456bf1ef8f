//! Who gets how much of a thin link where two upload at a time.
//!
//! Both are behind the same link, with one queue. Each begins within [`BEGIN_WITHIN`] by a draw of the seed, and goes on for longer than it is
//! watched. What counts is IP bytes that come out of the link, repeats and headers included.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use thinpost_client::Client;
use thinpost_netem::{Fate, Leg, Net, Profile, Trace, Verdict};
use tokio::time::{Instant, sleep, sleep_until};

use super::On;
use super::pair::{Pair, Stage};
use super::peer::{OBJECTS, host};
use super::place::VirtualPlace;
use super::script::noise;

/// Within so long both begin.
const BEGIN_WITHIN: Duration = Duration::from_secs(10);

/// What is played before anything counts, from the begin of both on, and for how long it counts then.
const WARM_UP: Duration = Duration::from_secs(60);
const WATCHED: Duration = Duration::from_secs(5 * 60);

/// The largest object that a relay takes.
const OBJECT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Hosts with plain quinn.
const CUBIC: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 1, 1));
const OTHER_CUBIC: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 1, 2));

/// What a run gave, as shares of what came out of the link, in percent.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Shares {
    /// The smaller one's of two engines.
    pub(crate) engines_smaller: f64,
    /// An engine's beside a plain quinn stream with Cubic, which has the rest.
    pub(crate) engine_beside_cubic: f64,
    /// The smaller one's of two such streams.
    pub(crate) cubics_smaller: f64,
}

/// A mode, and its share.
type Mode = (&'static str, fn(&Shares) -> f64);

impl Shares {
    /// As they are called in tables.
    pub(crate) const MODES: [Mode; 4] = [
        ("two engines: the smaller", |shares| shares.engines_smaller),
        ("beside cubic: engine", |shares| shares.engine_beside_cubic),
        ("beside cubic: cubic", |shares| 100.0 - shares.engine_beside_cubic),
        ("two cubics: the smaller", |shares| shares.cubics_smaller),
    ];
}

impl fmt::Display for Shares {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shares = Self::MODES.map(|(mode, share)| format!("{mode} {:.1} %", share(self)));
        write!(f, "{}", shares.join(", "))
    }
}

/// Plays all three, in a runtime whose clock is paused.
///
/// # Errors
/// Where the link is so fast that no object lasts, and when an upload fails.
pub(crate) async fn play(link: &Profile, seed: u64) -> Result<Shares> {
    let stage = Stage { link, seed, packets: false, on: On::Virtual };
    let smaller = |percent: f64| percent.min(100.0 - percent);
    Ok(Shares {
        engines_smaller: smaller(two_engines(&stage).await?),
        engine_beside_cubic: beside_cubic(&stage).await?,
        cubics_smaller: smaller(two_cubics(&stage).await?),
    })
}

async fn two_engines(stage: &Stage<'_>) -> Result<f64> {
    let mut pair = Pair::acquainted(stage).await?;
    let VirtualPlace { world, ann, .. } = pair.simulated_mut()?;
    let mut neighbour = world.person_beside("carl", ann);
    neighbour.open_with(|builder| builder).connect();
    let hosts = [ann.ip(), neighbour.ip()];
    let object = endless(stage)?;
    let [one, other] = begins(stage.seed);
    let uploads = async {
        tokio::try_join!(
            engine(ann.client(), object.clone(), one),
            engine(neighbour.client(), object.clone(), other)
        )
    };
    watched(world.net(), hosts, uploads).await
}

async fn beside_cubic(stage: &Stage<'_>) -> Result<f64> {
    let pair = Pair::acquainted(stage).await?;
    let VirtualPlace { world, ann, .. } = pair.simulated()?;
    let net = world.net();
    net.attach_beside(CUBIC, ann.ip());
    let _server = host::Server::start(net, stage.seed)?;
    let object = endless(stage)?;
    let [one, other] = begins(stage.seed);
    let uploads = async {
        tokio::try_join!(
            engine(ann.client(), object.clone(), one),
            cubic(net, CUBIC, stage.seed, &object, other)
        )
    };
    watched(net, [ann.ip(), CUBIC], uploads).await
}

async fn two_cubics(stage: &Stage<'_>) -> Result<f64> {
    let net = Net::new(stage.seed);
    net.attach_profile(CUBIC, stage.link);
    net.attach_beside(OTHER_CUBIC, CUBIC);
    let _server = host::Server::start(&net, stage.seed)?;
    let object = endless(stage)?;
    let [one, other] = begins(stage.seed);
    let uploads = async {
        tokio::try_join!(
            cubic(&net, CUBIC, stage.seed, &object, one),
            cubic(&net, OTHER_CUBIC, stage.seed, &object, other)
        )
    };
    watched(&net, [CUBIC, OTHER_CUBIC], uploads).await
}

/// When the two begin.
fn begins(seed: u64) -> [Instant; 2] {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    [(); 2].map(|()| Instant::now() + BEGIN_WITHIN.mul_f64(random.random()))
}

/// More than the link takes while it is watched.
fn endless(stage: &Stage<'_>) -> Result<Vec<u8>> {
    let lasts = BEGIN_WITHIN + WARM_UP + WATCHED;
    let len = (stage.link.up.rate_bit_s.get() as f64 / 8.0 * lasts.as_secs_f64()) as usize;
    ensure!(len <= OBJECT_BYTES_MAX, "{} is too fast: no object lasts for {lasts:?}", stage.link.name);
    Ok(noise(stage.seed, len))
}

async fn engine(client: &Client, object: Vec<u8>, begin: Instant) -> Result<()> {
    sleep_until(begin).await;
    client.put_object(object, None).await?;
    std::future::pending().await
}

async fn cubic(net: &Net, ip: IpAddr, seed: u64, object: &[u8], begin: Instant) -> Result<()> {
    sleep_until(begin).await;
    let device = host::Device::new(net, ip, seed)?;
    let connection = device.connect().await?;
    let mut sent = host::Sent::default();
    sent.send(&connection, object, OBJECTS).await?;
    sent.answered().await.map(drop)
}

/// The first host's share of what comes out of the link that both are behind, in percent.
async fn watched<T>(net: &Net, hosts: [IpAddr; 2], uploads: impl Future<Output = Result<T>>) -> Result<f64> {
    let from = net.now() + BEGIN_WITHIN + WARM_UP;
    let counted = Arc::new(Mutex::new([0_usize; 2]));
    let counts = counted.clone();
    net.set_trace(move |trace| {
        let Trace { leg: Leg::Up, fate: Fate::Offered(Verdict::Deliver { at }), .. } = *trace else { return };
        let index = hosts.iter().position(|&host| host == trace.from.ip());
        if let Some(index) = index
            && (from..from + WATCHED).contains(&at)
        {
            counts.lock().expect("nobody panics with it")[index] += trace.ip_bytes;
        }
    });
    tokio::select! {
        ended = uploads => {
            ended.context("an upload failed")?;
            bail!("an upload came to its end while it was watched");
        }
        () = sleep(BEGIN_WITHIN + WARM_UP + WATCHED) => {}
    }
    let [first, second] = *counted.lock().expect("nobody panics with it");
    ensure!(first + second > 0, "nothing came out of the link");
    Ok(first as f64 / (first + second) as f64 * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::in_virtual_time;

    #[test]
    fn two_uploads_share_one_link_and_the_same_seed_shares_it_again() {
        let link = Profile::named("gprs").unwrap();
        let share = |seed| {
            let stage = Stage { link: &link, seed, packets: false, on: On::Virtual };
            in_virtual_time(two_cubics(&stage)).unwrap()
        };
        let once = share(3);
        assert!((5.0..95.0).contains(&once), "{once} %");
        assert_eq!(once, share(3));
        assert_ne!(once, share(4));
    }

    #[test]
    fn a_link_on_which_no_object_lasts_is_refused() {
        let clean = Profile::named("clean").unwrap();
        let error = in_virtual_time(play(&clean, 0)).unwrap_err().to_string();
        assert!(error.contains("clean is too fast"), "{error}");
    }
}
