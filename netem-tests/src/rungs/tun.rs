//! The thin link as a pair of TUN devices and this crate's own model between them.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use tun_rs::{AsyncDevice, DeviceBuilder};

use super::namespace::Namespace;
use super::{PHONE, RELAY};
use crate::wire::{Arrived, Direction, Wire};
use crate::{PathCounters, Profile};

/// The device's name at either end.
const DEVICE: &str = "thin";

/// The largest IP packet, bytes, as on Ethernet; a profile may let less pass.
const MTU: u16 = 1_500;

/// What crosses the link: an IP packet.
type Packet = Vec<u8>;

/// The emulator. Stops when dropped.
///
/// Its timers are tokio's, so that a packet leaves up to about a millisecond after it is due.
#[derive(Debug)]
pub(super) struct TunPath {
    started: Instant,
    wire: Arc<Mutex<Wire<Packet>>>,
    task: JoinHandle<()>,
}

impl TunPath {
    pub(super) fn lay(
        phone: &Namespace,
        relay: &Namespace,
        profile: &Profile,
        seed: u64,
    ) -> io::Result<Self> {
        let device = |namespace: &Namespace, address, other| {
            let device = namespace.within(|| DeviceBuilder::new().name(DEVICE).mtu(MTU).build_sync())?;
            namespace.set_up(DEVICE, address, &[other])?;
            AsyncDevice::new(device)
        };
        let (up, down) = (device(phone, PHONE, RELAY)?, device(relay, RELAY, PHONE)?);
        let (started, wire) = (Instant::now(), Arc::new(Mutex::new(Wire::new(profile, seed))));
        let emulator = Emulator { phone: up, relay: down, started, wire: wire.clone() };
        let task = tokio::spawn(async move {
            let error = emulator.run().await;
            tracing::error!(%error, "an emulated link ends");
        });
        Ok(Self { started, wire, task })
    }

    pub(super) fn counters(&self) -> io::Result<PathCounters> {
        if self.task.is_finished() {
            return Err(io::Error::other("the emulated link has ended: a device failed"));
        }
        Ok(lock(&self.wire).counters(self.started.elapsed()))
    }
}

impl Drop for TunPath {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Emulator {
    phone: AsyncDevice,
    relay: AsyncDevice,
    started: Instant,
    wire: Arc<Mutex<Wire<Packet>>>,
}

impl Emulator {
    /// Goes on until a device fails.
    async fn run(self) -> io::Error {
        let [mut from_phone, mut from_relay] = [(); 2].map(|()| vec![0; usize::from(MTU)]);
        loop {
            let next = match self.hand_over().await {
                Ok(next) => next.and_then(|at| self.started.checked_add(at)),
                Err(error) => return error,
            };
            let due = async {
                match next {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let (direction, packet) = tokio::select! {
                biased;
                () = due => continue,
                read = self.phone.recv(&mut from_phone) => match read {
                    Ok(len) => (Direction::Up, from_phone[..len].to_vec()),
                    Err(error) => return error,
                },
                read = self.relay.recv(&mut from_relay) => match read {
                    Ok(len) => (Direction::Down, from_relay[..len].to_vec()),
                    Err(error) => return error,
                },
            };
            lock(&self.wire).offer(self.started.elapsed(), direction, packet.len(), packet);
        }
    }

    /// Hands over what has arrived, and says when the next packet will.
    async fn hand_over(&self) -> io::Result<Option<Duration>> {
        let (arrived, next) = lock(&self.wire).take_arrived(self.started.elapsed());
        for Arrived { direction, content: mut packet, is_damaged } in arrived {
            if let (true, Some(last)) = (is_damaged, packet.last_mut()) {
                *last ^= 0x10;
            }
            let device = match direction {
                Direction::Up => &self.relay,
                Direction::Down => &self.phone,
            };
            device.send(&packet).await?;
        }
        Ok(next)
    }
}

fn lock(wire: &Mutex<Wire<Packet>>) -> MutexGuard<'_, Wire<Packet>> {
    wire.lock().unwrap_or_else(PoisonError::into_inner)
}
