//! How fast addresses, accounts and senders may go, in messages and in bytes.
//!
//! Limits stand one behind the other. By **address** it is generous, because a mobile operator puts
//! thousands of phones behind one, and counts only those who have proven that they are there, or whoever writes an
//! address into a packet could lock out all who have it; by **account** it is what one person can use; by **sender and mailbox**
//! it keeps one sender from filling another person's mailbox at a stroke; and what **strangers** put into one
//! mailbox, all of them together, is little, also when somebody listens there. A submit passes all of them or
//! is charged to none, so what a refusal says about when to come back is true.
//!
//! Memory is bounded: each table holds at most [`LimitsConfig::keys_max`] keys. Who is new while a table is
//! full shares one bucket with all the others who are, until a place is free.
//!
//! [`LimitsConfig::keys_max`]: crate::config::LimitsConfig::keys_max

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::{Quota, RateLimiter};
use thinpost_wire::ids::AccountKey;

use crate::config::{LimitsConfig, Rate};
use crate::store::DeviceNo;

/// A full table looks for keys to forget at most this often: a pass over it takes about a millisecond.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Too much in too short a time. Nothing was charged; the same may pass after the wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too much for now; again in {seconds} s")]
pub struct RetryAfter {
    /// Seconds until it passes, if nothing else is sent meanwhile; at least 1.
    pub seconds: u32,
}

/// Time since the limits were made, on tokio's clock: it never goes back, and follows virtual time.
#[derive(Clone, Copy, Debug)]
pub struct TokioClock(tokio::time::Instant);

impl Default for TokioClock {
    fn default() -> Self {
        Self(tokio::time::Instant::now())
    }
}

impl Clock for TokioClock {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        self.0.elapsed().into()
    }
}

/// A relay's limits. Share it between sessions; each check takes a few short locks.
#[derive(Debug)]
pub struct Limits<C: Clock<Instant = Nanos> = TokioClock> {
    connections: Limiter<AddressBlock, C>,
    /// Of all addresses that are not proven, together.
    unproven: Limiter<(), C>,
    address: Pace<AddressBlock, C>,
    account: Pace<AccountKey, C>,
    mailbox: Pace<(AccountKey, AccountKey), C>,
    /// What strangers may put into a mailbox, all of them together.
    strangers: Pace<AccountKey, C>,
    claims: Claims<C>,
}

/// Who may ask for one-time keys, and how often.
#[derive(Debug)]
struct Claims<C: Clock<Instant = Nanos>> {
    device: Limiter<DeviceNo, C>,
    mailbox: Limiter<AccountKey, C>,
    /// What strangers may take from a mailbox, all of them together.
    strangers: Limiter<AccountKey, C>,
}

impl Limits {
    /// Limits on tokio's clock.
    pub fn new(config: &LimitsConfig) -> Self {
        Self::with_clock(config, TokioClock::default())
    }
}

impl<C: Clock<Instant = Nanos> + Clone> Limits<C> {
    /// Limits on a clock of the caller's.
    pub fn with_clock(config: &LimitsConfig, clock: C) -> Self {
        let keys_max = config.keys_max;
        Self {
            connections: Limiter::new(config.address.connections(), keys_max, clock.clone()),
            unproven: Limiter::new(config.address.connections(), 1, clock.clone()),
            address: Pace::new(config.address.messages(), config.address.bytes(), keys_max, &clock),
            account: Pace::new(config.account.messages(), config.account.bytes(), keys_max, &clock),
            mailbox: Pace::new(config.mailbox.messages(), config.mailbox.bytes(), keys_max, &clock),
            strangers: Pace::new(config.strangers.messages(), config.strangers.bytes(), keys_max, &clock),
            claims: Claims {
                device: Limiter::new(config.claims.device(), keys_max, clock.clone()),
                mailbox: Limiter::new(config.claims.mailbox(), keys_max, clock.clone()),
                strangers: Limiter::new(config.claims.strangers(), keys_max, clock),
            },
        }
    }

    /// Charges a connection to the address that it has proven to come from, before anything is spent on its handshake.
    ///
    /// # Errors
    /// When the address has opened too many; then nothing is charged.
    pub fn check_connection(&self, from: IpAddr) -> Result<(), RetryAfter> {
        self.connections.take(&AddressBlock::of(from), 1).map_err(retry_after)
    }

    /// Charges a connection from an address that anybody may have written there: to all of them together, as much as one address may,
    /// and to none of them.
    ///
    /// # Errors
    /// When these are too many; then nothing is charged, and whoever comes can still prove where they are.
    pub fn check_unproven(&self) -> Result<(), RetryAfter> {
        self.unproven.take(&(), 1).map_err(retry_after)
    }

    /// Charges a message of `bytes` from `account` at `from` into `mailbox`, in which strangers have a share of their
    /// own.
    ///
    /// # Errors
    /// When any of the limits is reached; then none is charged.
    pub fn check_submit(
        &self,
        from: IpAddr,
        account: AccountKey,
        mailbox: AccountKey,
        is_stranger: bool,
        bytes: usize,
    ) -> Result<(), RetryAfter> {
        let block = AddressBlock::of(from);
        let pair = (account, mailbox);
        let outcomes = [
            self.address.take(&block, bytes),
            self.account.take(&account, bytes),
            self.mailbox.take(&pair, bytes),
            if is_stranger { self.strangers.take(&mailbox, bytes) } else { Ok(()) },
        ];
        let Some(wait) = outcomes.iter().filter_map(|outcome| outcome.err()).max() else { return Ok(()) };
        if outcomes[0].is_ok() {
            self.address.give_back(&block, bytes);
        }
        if outcomes[1].is_ok() {
            self.account.give_back(&account, bytes);
        }
        if outcomes[2].is_ok() {
            self.mailbox.give_back(&pair, bytes);
        }
        if is_stranger && outcomes[3].is_ok() {
            self.strangers.give_back(&mailbox, bytes);
        }
        Err(retry_after(wait))
    }

    /// Charges a claim of a one-time key by `device` to it and to the `mailbox`, in which strangers have a share
    /// of their own.
    ///
    /// # Errors
    /// When either limit is reached; then neither is charged.
    pub fn check_claim(
        &self,
        device: DeviceNo,
        mailbox: AccountKey,
        is_stranger: bool,
    ) -> Result<(), RetryAfter> {
        let Claims { device: by_device, mailbox: by_mailbox, strangers } = &self.claims;
        by_device.take(&device, 1).map_err(retry_after)?;
        let of_mailbox = if is_stranger { strangers } else { by_mailbox };
        of_mailbox.take(&mailbox, 1).map_err(|wait| {
            by_device.give_back(&device, 1);
            retry_after(wait)
        })
    }

    /// Forgets all who have been quiet long enough to have their whole burst again. Call it every minute
    /// or so, to give memory back; the bound holds without.
    pub fn sweep(&self) {
        self.connections.ledger.sweep();
        self.unproven.ledger.sweep();
        self.address.sweep();
        self.account.sweep();
        self.mailbox.sweep();
        self.strangers.sweep();
        self.claims.device.ledger.sweep();
        self.claims.mailbox.ledger.sweep();
        self.claims.strangers.ledger.sweep();
    }

    /// How many keys are remembered, over all tables.
    pub fn keys(&self) -> usize {
        let paces = self.address.keys() + self.account.keys() + self.mailbox.keys() + self.strangers.keys();
        let Claims { device, mailbox, strangers } = &self.claims;
        let claims = device.ledger.keys() + mailbox.ledger.keys() + strangers.ledger.keys();
        self.connections.ledger.keys() + self.unproven.ledger.keys() + paces + claims
    }
}

/// The most memory that the tables of [`Limits`] take with so many keys each, bytes.
pub fn memory_bytes_max(keys_max: usize) -> usize {
    // One table by address counts connections; four pairs count messages and bytes; three count claims.
    let entry = 3 * size_of::<(AddressBlock, Nanos)>()
        + 6 * size_of::<(AccountKey, Nanos)>()
        + 2 * size_of::<((AccountKey, AccountKey), Nanos)>()
        + size_of::<(DeviceNo, Nanos)>();
    // std's hash table fills seven eighths of a power of two of slots, each with a byte of control.
    let slots = (keys_max.saturating_mul(8) / 7 + 1).next_power_of_two();
    slots.saturating_mul(entry + 10)
}

fn retry_after(wait: Duration) -> RetryAfter {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    RetryAfter { seconds: u32::try_from(seconds).unwrap_or(u32::MAX).max(1) }
}

/// What one customer of a network is usually given: an IPv4 address, or an IPv6 /64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum AddressBlock {
    V4(u32),
    V6(u64),
}

impl AddressBlock {
    pub(crate) fn of(address: IpAddr) -> Self {
        // A socket that serves both families sees IPv4 as ::ffff:a.b.c.d, all of which share a /64.
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.to_bits()),
            IpAddr::V6(address) => Self::V6((address.to_bits() >> 64) as u64),
        }
    }
}

/// A limit in messages and one in bytes, taken together.
#[derive(Debug)]
struct Pace<K: Key, C: Clock<Instant = Nanos>> {
    messages: Limiter<K, C>,
    bytes: Limiter<K, C>,
}

impl<K: Key, C: Clock<Instant = Nanos> + Clone> Pace<K, C> {
    fn new(messages: Rate, bytes: Rate, keys_max: usize, clock: &C) -> Self {
        Self {
            messages: Limiter::new(messages, keys_max, clock.clone()),
            bytes: Limiter::new(bytes, keys_max, clock.clone()),
        }
    }

    fn take(&self, key: &K, bytes: usize) -> Result<(), Duration> {
        match (self.messages.take(key, 1), self.bytes.take(key, bytes)) {
            (Ok(()), Ok(())) => Ok(()),
            (Err(wait), Ok(())) => {
                self.bytes.give_back(key, bytes);
                Err(wait)
            }
            (Ok(()), Err(wait)) => {
                self.messages.give_back(key, 1);
                Err(wait)
            }
            (Err(messages), Err(bytes)) => Err(messages.max(bytes)),
        }
    }

    fn give_back(&self, key: &K, bytes: usize) {
        self.messages.give_back(key, 1);
        self.bytes.give_back(key, bytes);
    }

    fn sweep(&self) {
        self.messages.ledger.sweep();
        self.bytes.ledger.sweep();
    }

    fn keys(&self) -> usize {
        self.messages.ledger.keys() + self.bytes.ledger.keys()
    }
}

trait Key: Clone + Eq + Hash + std::fmt::Debug {}

impl<K: Clone + Eq + Hash + std::fmt::Debug> Key for K {}

/// One keyed limit: governor decides, the ledger remembers.
#[derive(Debug)]
struct Limiter<K: Key, C: Clock<Instant = Nanos>> {
    gate: RateLimiter<K, Ledger<K, C>, C, NoOpMiddleware<Nanos>>,
    ledger: Ledger<K, C>,
    burst: NonZeroU32,
    /// Time in which one unit comes back.
    unit: Nanos,
}

impl<K: Key, C: Clock<Instant = Nanos> + Clone> Limiter<K, C> {
    fn new(rate: Rate, keys_max: usize, clock: C) -> Self {
        let unit = (rate.period / rate.units.get()).max(Duration::from_nanos(1));
        let quota = Quota::with_period(unit).expect("the unit is above zero").allow_burst(rate.burst);
        let unit = Nanos::from(unit);
        let ledger = Ledger(Arc::new(Book {
            start: clock.now(),
            clock: clock.clone(),
            refill: unit * rate.burst.get().into(),
            keys_max,
            pages: Mutex::new(Pages { known: HashMap::new(), newcomers: Nanos::default(), swept: None }),
        }));
        Self { gate: RateLimiter::new(quota, ledger.clone(), clock), ledger, burst: rate.burst, unit }
    }

    /// What is larger than a burst is charged as a whole burst: it passes, after a full rest.
    fn units(&self, amount: usize) -> NonZeroU32 {
        let amount = u32::try_from(amount).unwrap_or(u32::MAX);
        NonZeroU32::new(amount).unwrap_or(NonZeroU32::MIN).min(self.burst)
    }

    /// Takes `amount` from the key's bucket, or says how long until it is there.
    fn take(&self, key: &K, amount: usize) -> Result<(), Duration> {
        match self.gate.check_key_n(key, self.units(amount)).expect("no more than a burst is asked for") {
            Ok(()) => Ok(()),
            Err(not_until) => Err(not_until.wait_time_from(self.gate.clock().now())),
        }
    }

    /// Undoes a [`Limiter::take`] that passed.
    fn give_back(&self, key: &K, amount: usize) {
        self.ledger.move_back(key, self.unit * self.units(amount).get().into());
    }
}

/// For each key the time at which its bucket is full again, as governor's algorithm (GCRA) counts.
///
/// governor's own tables grow with the number of keys ever seen, and hold a time that lies ahead of a
/// clock which went back for as long as the clock needs to catch up. This one does neither.
#[derive(Debug)]
struct Ledger<K, C>(Arc<Book<K, C>>);

impl<K, C> Clone for Ledger<K, C> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

#[derive(Debug)]
struct Book<K, C> {
    clock: C,
    /// Times are counted from here.
    start: Nanos,
    /// In this time an empty bucket is full again: no honest entry lies further ahead.
    refill: Nanos,
    keys_max: usize,
    pages: Mutex<Pages<K>>,
}

/// The order of the map is never seen, and its keys are hashed under a random key: peers choose them.
#[derive(Debug)]
struct Pages<K> {
    known: HashMap<K, Nanos>,
    /// The one bucket of all who found no place.
    newcomers: Nanos,
    swept: Option<Nanos>,
}

impl<K: Key, C: Clock<Instant = Nanos>> Ledger<K, C> {
    fn pages(&self) -> MutexGuard<'_, Pages<K>> {
        // Nothing that holds the lock can leave a page half written.
        self.0.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Nanos {
        self.0.clock.now().saturating_sub(self.0.start)
    }

    fn keys(&self) -> usize {
        self.pages().known.len()
    }

    fn sweep(&self) {
        let now = self.now();
        self.pages().sweep(now, self.0.refill);
    }

    fn move_back(&self, key: &K, by: Nanos) {
        let mut pages = self.pages();
        let Pages { known, newcomers, .. } = &mut *pages;
        let full_at = known.get_mut(key).unwrap_or(newcomers);
        *full_at = full_at.saturating_sub(by);
    }
}

impl<K: Key, C: Clock<Instant = Nanos>> StateStore for Ledger<K, C> {
    type Key = K;

    fn measure_and_replace<T, F, E>(&self, key: &K, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let now = self.now();
        let ahead_max = now + self.0.refill;
        let mut pages = self.pages();
        if !pages.known.contains_key(key) {
            if pages.known.len() >= self.0.keys_max && pages.sweep_is_due(now) {
                pages.sweep(now, self.0.refill);
            }
            if pages.known.len() < self.0.keys_max {
                let (outcome, full_at) = decide(None)?;
                pages.known.insert(key.clone(), full_at);
                return Ok(outcome);
            }
        }
        let Pages { known, newcomers, .. } = &mut *pages;
        let full_at = known.get_mut(key).unwrap_or(newcomers);
        // Kept also if refused: what a clock that went back left behind then shrinks as time goes on.
        *full_at = (*full_at).min(ahead_max);
        let (outcome, next) = decide(Some(*full_at))?;
        *full_at = next;
        Ok(outcome)
    }
}

impl<K: Key> Pages<K> {
    fn sweep_is_due(&self, now: Nanos) -> bool {
        // The difference either way: a clock that went back must not put the next sweep off.
        self.swept.is_none_or(|at| now.as_u64().abs_diff(at.as_u64()) >= Nanos::from(SWEEP_INTERVAL).as_u64())
    }

    /// A full bucket is what an unknown key has, so that nobody gains or loses by being forgotten. What
    /// lies ahead of every honest time comes from before the clock went back, and counts as `refill` ahead.
    fn sweep(&mut self, now: Nanos, refill: Nanos) {
        let ahead_max = now + refill;
        self.known.retain(|_, full_at| {
            *full_at = (*full_at).min(ahead_max);
            *full_at > now
        });
        if self.known.capacity() / 4 > self.known.len() {
            self.known.shrink_to_fit();
        }
        self.swept = Some(now);
    }
}

#[cfg(test)]
mod tests;
