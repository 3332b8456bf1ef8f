//! A device's first flight, taken down on its way and played to relays again and again.
//!
//! Three devices that a relay knows speak early (0-RTT) into a link that lets nothing through: what they said is on record. One
//! submits, begins to hand over an object, leaves one-time keys, claims one, and revokes a token; the second wants to register; the
//! third says hello. Played once to the relay that gave them their sessions, the submits and the object's beginning count, as they
//! would have; whatever else was said has to wait for the end of the handshake, which nobody can play. Played again, nothing counts.
//! The third device is connected meanwhile, and stays so.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use quinn::{Runtime, TokioRuntime};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use thinpost_gateway::store::{Counts, Store};
use thinpost_wire::batch::Transfer;
use thinpost_wire::frame::ToRelay;
use thinpost_wire::ids::{Handle, Incarnation, ObjectId, OneTimeKey, Origin};
use thinpost_wire::token::TokenId;
use tokio::time::timeout;

use super::device::{Device, Heard, Told};
use super::initial::Openings;
use super::relay::Relay;
use super::{AMPLIFICATION_MAX, socket};
use crate::{Profile, UdpProxy};

/// Envelopes in the flight of the first device.
const SUBMITS: u64 = 2;

/// One-time keys that the recipient has left at the relay.
const KEYS: usize = 3;

/// The object of the first device, bytes.
const OBJECT_BYTES: u64 = 1_000;

/// Between two of its restarts a relay gets each flight so often. It answers the first; one that comes while that handshake is
/// open it takes for a copy that comes from the wrong place, and reads no further.
const COPIES: u64 = 2;

/// How long a relay takes at most to answer a flight.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// What has come of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// How often flights were played.
    pub played: u64,
    /// Those that were answered with the relay's part of a handshake: what was said in them was looked at.
    pub answered: u64,
    /// The most that went to one address for each byte from there.
    pub amplification: f64,
    /// Restarts of the relay in between.
    pub restarts: u64,
    /// The store before, after the first time, and after the last.
    pub counts: [Counts; 3],
    /// Envelopes that the recipient was given in the end.
    pub delivered: u64,
    /// What is wrong, if anything.
    pub broken: Vec<String>,
}

/// A flight: datagrams in their order.
type Flight = Vec<Vec<u8>>;

struct Played {
    answered: bool,
    amplification: f64,
}

/// What the store of a relay that has ended says of those who take part.
#[derive(Clone, Debug, PartialEq, Eq)]
struct State {
    counts: Counts,
    /// One-time keys of the sender and of the recipient.
    keys: [usize; 2],
    newcomer_is_known: bool,
    /// Whether the token that is to be revoked is still good.
    admits: bool,
}

/// Plays the flights in turn until so many were answered, and to another relay as well.
///
/// # Errors
/// When a relay fails, or a device that means no harm is not let in.
pub async fn run(program: &Path, count: u64, seed: u64) -> Result<Outcome> {
    let mut relay = Relay::start(program, "")?;
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 4);
    let [sender, recipient, newcomer, bystander] =
        [0, 1, 2, 3].map(|number| Device::new(seed, number, relay.ticket()));
    let proxy = UdpProxy::spawn(relay.address(), &Profile::named("clean")?, seed).await?;
    let own_socket = || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0));

    let mut line = recipient.enter(relay.address(), own_socket()?).await?;
    let keys = (0..KEYS).map(|n| OneTimeKey([n as u8 + 1; 32])).collect();
    let put = line.say(&ToRelay::PutKeys { replaces: true, keys });
    line.settled(put).await?;
    drop(line);
    for device in [&sender, &bystander] {
        drop(device.enter(proxy.addr(), own_socket()?).await?);
    }
    // Said hello, and has not registered: a session it has all the same.
    let socket_of = |socket: UdpSocket| {
        socket.set_nonblocking(true)?;
        TokioRuntime.wrap_udp_socket(socket)
    };
    let mut line = newcomer.begin(proxy.addr(), socket_of(own_socket()?)?).await?;
    let hello = line.say(&newcomer.hello(true));
    line.settled(hello).await?;
    drop(line);

    let take_down = async |device: &Device, frames: Vec<ToRelay<'_>>| -> Result<Flight> {
        proxy.set_outage(true);
        proxy.record(true);
        let socket = own_socket()?;
        let own = socket.local_addr()?;
        let mut line = device.begin(proxy.addr(), socket_of(socket)?).await?;
        ensure!(line.speaks_early, "the relay gave no session");
        for frame in &frames {
            line.say(frame);
        }
        line.flush()?;
        let flight = timeout(ANSWER_MAX, async {
            loop {
                let flight = proxy.recorded(own);
                if !flight.is_empty() {
                    return flight;
                }
                // A socket that takes nothing at once is asked again. Nothing can come.
                let _ = timeout(Duration::from_millis(5), line.next()).await;
            }
        })
        .await
        .context("nothing was sent")?;
        proxy.record(false);
        Ok(flight)
    };
    let to = recipient.address(TokenId::personal(1));
    let handle = Handle(1);
    let origin = Origin { incarnation: Incarnation([9; 8]), sequence: 1 };
    let object = ObjectId([8; 32]);
    let says = vec![
        sender.hello(false),
        ToRelay::Bind { handle, address: to },
        ToRelay::Numbering(origin),
        ToRelay::Submit { to: handle, body: b"said once" },
        ToRelay::Submit { to: handle, body: b"and once more" },
        ToRelay::PutObject { transfer: Transfer(1), id: object, size: OBJECT_BYTES, lifetime_s: None },
        ToRelay::PutKeys { replaces: true, keys: vec![OneTimeKey([7; 32])] },
        ToRelay::Claim { to: handle },
        ToRelay::Revoke { id: TokenId::personal(1) },
    ];
    let flights = [
        take_down(&sender, says).await?,
        take_down(&newcomer, vec![newcomer.hello(true), newcomer.register()]).await?,
        take_down(&bystander, vec![bystander.hello(false)]).await?,
    ];

    let state = |relay: &Relay| -> Result<State> {
        let store = relay.store()?;
        let keys = |device: &Device| match store.device(&device.key())? {
            Some(record) => store.keys_left(record.number),
            None => Ok(0),
        };
        Ok(State {
            counts: store.counts()?,
            keys: [keys(&sender)?, keys(&recipient)?],
            newcomer_is_known: store.device(&newcomer.key())?.is_some(),
            admits: store.admits(&sender.address(TokenId::personal(1)))?,
        })
    };
    // Sessions are kept over a restart, so the first time may be after one.
    relay.stop()?;
    let before = state(&relay)?;
    relay.run()?;
    let mut broken = Vec::new();
    let mut all = Vec::new();
    for flight in &flights {
        all.push(play(relay.address(), flight, &mut rng, true).await?);
    }
    relay.stop()?;
    let once = state(&relay)?;
    let counts = Counts {
        entries: before.counts.entries + SUBMITS,
        bytes: once.counts.bytes,
        objects: before.counts.objects + 1,
        object_bytes: before.counts.object_bytes + OBJECT_BYTES,
        ..before.counts
    };
    let expected = State { counts, ..before.clone() };
    if once != expected {
        broken.push(format!("played once, the flights made {once:?} of {before:?}"));
    }

    let mut openings = Openings::new(relay.ticket().key, [5; 32])?;
    let mut restarts = 2;
    while answered(&all) < count {
        relay.run()?;
        let mut line = bystander.begin(relay.address(), socket_of(own_socket()?)?).await?;
        let hello = line.say(&bystander.hello(false));
        line.settled(hello).await?;
        for copy in 0..COPIES {
            for flight in &flights {
                all.push(play(relay.address(), flight, &mut rng, copy == 0).await?);
            }
        }
        relay_has_looked(&relay, &mut openings, &mut rng).await?;
        let ping = line.say(&ToRelay::Ping);
        if !timeout(ANSWER_MAX, line.settled(ping)).await.is_ok_and(|settled| settled.is_ok()) {
            broken
                .push("a flight that was played has ended the session of the device that it is from".into());
        }
        drop(line);
        // In good order now and then, else by a crash.
        if restarts % 4 == 0 {
            relay.stop()?
        } else {
            relay.kill()?
        }
        restarts += 1;
    }
    let after = state(&relay)?;
    if after != once {
        broken.push(format!("played again, the flights made {after:?} of {once:?}"));
    }
    let mut other = Relay::start(program, "")?;
    for copy in 0..COPIES {
        for flight in &flights {
            all.push(play(other.address(), flight, &mut rng, copy == 0).await?);
        }
    }
    relay_has_looked(&other, &mut openings, &mut rng).await?;
    other.stop()?;
    let elsewhere = other.store()?.counts()?;
    if elsewhere.accounts + elsewhere.devices + elsewhere.entries + elsewhere.bytes + elsewhere.objects > 0 {
        broken.push(format!("another relay has {elsewhere:?}"));
    }

    relay.run()?;
    let mut line = recipient.begin(relay.address(), socket_of(own_socket()?)?).await?;
    line.say(&recipient.hello(false));
    let mut delivered = 0;
    let read = async {
        loop {
            match line.next().await? {
                Heard::Frame(Told::Delivered(_)) => delivered += 1,
                Heard::Frame(Told::CaughtUp) => return anyhow::Ok(()),
                _ => {}
            }
        }
    };
    timeout(ANSWER_MAX, read).await.context("the recipient is not served")??;
    if delivered != SUBMITS {
        broken.push(format!("the recipient was given {delivered} envelopes, not {SUBMITS}"));
    }
    let amplification = all.iter().map(|played| played.amplification).fold(0.0, f64::max);
    if amplification > AMPLIFICATION_MAX {
        broken.push(format!("an address was sent {amplification:.2} times what came from it"));
    }
    Ok(Outcome {
        played: all.len() as u64,
        answered: answered(&all),
        amplification,
        restarts,
        counts: [before.counts, once.counts, after.counts],
        delivered,
        broken,
    })
}

fn answered(all: &[Played]) -> u64 {
    all.iter().filter(|played| played.answered).count() as u64
}

/// Waits until the relay has looked at whatever was sent to it before: it answers in that order.
async fn relay_has_looked(relay: &Relay, openings: &mut Openings, rng: &mut ChaCha8Rng) -> Result<()> {
    let opening = vec![openings.next(relay.address())?];
    play(relay.address(), &opening, rng, true).await.map(drop)
}

/// Sends a flight from an address of its own, and takes what comes back at once: at least something, if it is to be answered.
async fn play(relay: SocketAddr, flight: &Flight, rng: &mut ChaCha8Rng, is_answered: bool) -> Result<Played> {
    let socket = tokio::net::UdpSocket::from_std(socket(rng)?)?;
    let mut sent_bytes = 0;
    for datagram in flight {
        sent_bytes += socket.send_to(datagram, relay).await?;
    }
    let mut buffer = [0; 2_048];
    let (mut heard_bytes, mut answered) = (0, false);
    if is_answered {
        let first = timeout(ANSWER_MAX, socket.recv(&mut buffer)).await;
        heard_bytes = first.context("a flight was not answered")??;
        answered = buffer[0] & 0b1011_0000 == 0b1000_0000;
    }
    while let Ok(len) = socket.try_recv(&mut buffer) {
        heard_bytes += len;
    }
    Ok(Played { answered, amplification: heard_bytes as f64 / sent_bytes as f64 })
}
