//! Ordinary devices that come while others are there: known ones that come again, and some that come for the first time.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use quinn::{Runtime, TokioRuntime};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use thinpost_wire::ticket::RelayTicket;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};

use super::device::{Device, Line};
use super::service::Shared;

/// Who has not come in after so long is kept out: longer than any attack here, and than the two minutes after which its last
/// places are free.
const KEPT_OUT: Duration = Duration::from_secs(400);

/// Who is turned away comes again after so long.
const AGAIN: Duration = Duration::from_secs(1);

/// Where newcomers count from: far from the numbers of clients.
const FIRST: u64 = 1 << 32;

/// One that comes and goes, now as somebody who is known and now as somebody new.
pub(super) struct Newcomer {
    pub(super) number: u64,
    pub(super) seed: u64,
    pub(super) relay: RelayTicket,
    /// The relay, or the link to it.
    pub(super) via: SocketAddr,
    pub(super) rng: ChaCha8Rng,
    pub(super) shared: Arc<Shared>,
}

impl Newcomer {
    fn device(&self, visit: u64) -> Device {
        Device::new(self.seed, FIRST + (self.number << 20) + visit, &self.relay)
    }

    /// Comes once in `pace` until it is told to stop. What has begun by then counts as long as it takes.
    pub(super) async fn run(mut self, pace: Duration, stopped: watch::Receiver<bool>) {
        let known = self.device(0);
        let mut is_known = false;
        let first = Instant::now() + pace.mul_f64(self.rng.random());
        let mut tick = interval_at(first, pace);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for visit in 1.. {
            tick.tick().await;
            if *stopped.borrow() {
                return;
            }
            let is_new = visit % 2 == 0;
            // Nobody is measured who was to be known and is not.
            let phase = if is_new || is_known { self.shared.phase() } else { 0 };
            let newcomer;
            let device = if is_new {
                newcomer = self.device(visit);
                &newcomer
            } else {
                &known
            };
            let began = Instant::now();
            let registers = is_new || !is_known;
            let line = timeout(KEPT_OUT, self.come(device, registers)).await;
            let took_us = began.elapsed().as_micros() as u64;
            self.count(phase, is_new, line.is_ok().then_some(took_us));
            let Ok(line) = line else { continue };
            is_known |= !is_new;
            // What a session needs to be resumed comes behind the handshake, a round trip later.
            linger(line, pace / 2).await;
        }
    }

    /// It has come, and was in after so many microseconds, if at all.
    fn count(&self, phase: u8, is_new: bool, took_us: Option<u64>) {
        let mut served = self.shared.served();
        served.came += 1;
        let Some(took_us) = took_us else {
            served.kept_out += 1;
            return;
        };
        if let Some(waits) = served.waits(phase) {
            let of_kind = if is_new { &mut waits.anew } else { &mut waits.again };
            of_kind.saturating_record(took_us);
        }
    }

    /// Comes in, however often that has to be tried.
    async fn come(&mut self, device: &Device, registers: bool) -> Line {
        loop {
            match self.try_to_come(device, registers).await {
                Ok(line) => return line,
                Err(error) => {
                    *self.shared.served().turned_away.entry(error.to_string()).or_default() += 1;
                    sleep(AGAIN.mul_f64(0.5 + self.rng.random::<f64>())).await;
                }
            }
        }
    }

    async fn try_to_come(&self, device: &Device, registers: bool) -> Result<Line> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.set_nonblocking(true)?;
        let mut line = device.begin(self.via, TokioRuntime.wrap_udp_socket(socket)?).await?;
        line.say(&device.hello(registers));
        if registers {
            line.say(&device.register());
        }
        line.caught_up().await?;
        Ok(line)
    }
}

/// Listens for so long, and goes.
async fn linger(mut line: Line, time: Duration) {
    let _ = timeout(time, async { while line.next().await.is_ok() {} }).await;
}
