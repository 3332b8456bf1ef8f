//! What is learned of NATs: how long a quiet each network's lets a connection have before it forgets the device.
//!
//! `docs/decisions/0015-reachable.md` has the figures.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use thinpost_wire::frame::NetworkPrefix;

/// Believed of a network that is not known: most NATs remember for longer (RFC 9000, section 10.1.2).
const GOOD_S_INITIAL: u16 = 30;

/// No NAT is worth more than four bytes a minute and a radio that never sleeps (RFC 8085, section 3.5, bounds keep-alives
/// by the same 15 s).
const GOOD_S_MIN: u16 = 15;

/// Beyond this what keeps a mapping open costs less than to find out more.
const GOOD_S_MAX: u16 = 15 * 60;

/// After so many calls in a row that came, an hour apart, it is tried anew whether a longer quiet does it.
const CALLS_UNTIL_FORGOTTEN: u8 = 48;

/// How many networks are remembered.
const NETWORKS_MAX: usize = 8;

/// What is known of one network's NAT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Memory {
    network: NetworkPrefix,
    /// The longest quiet that a packet has come through after, seconds.
    good_s: u16,
    /// The shortest after which a call has not come, seconds; more than `good_s`.
    bad_s: Option<u16>,
    /// Calls in a row that have come since there was nothing more to learn.
    came: u8,
}

impl Memory {
    fn new(network: NetworkPrefix) -> Self {
        Self { network, good_s: GOOD_S_INITIAL, bad_s: None, came: 0 }
    }

    /// The longest quiet to allow. NATs look after their mappings now and then, and not to the second.
    pub(crate) fn interval(&self) -> Duration {
        Duration::from_secs(self.good_s.into()) * 7 / 8
    }

    /// A longer quiet that is worth a trial, seconds.
    fn trial_s(&self) -> Option<u16> {
        let good = u32::from(self.good_s);
        match self.bad_s.map(u32::from) {
            None if self.good_s >= GOOD_S_MAX => None,
            None => Some((good * 3 / 2).min(GOOD_S_MAX.into()) as u16),
            Some(bad) if bad <= good * 5 / 4 => None,
            Some(bad) => Some((good * bad).isqrt() as u16),
        }
    }

    /// Whether there is nothing more to learn.
    pub(crate) fn is_settled(&self) -> bool {
        self.trial_s().is_none()
    }

    /// After how long a quiet the next call is to come, seconds.
    pub(crate) fn call_s(&self) -> u16 {
        self.trial_s().unwrap_or(self.interval().as_secs() as u16)
    }

    /// A packet has come after so long a quiet.
    pub(crate) fn survived(&mut self, quiet: Duration) {
        let quiet_s = quiet.as_secs().min(GOOD_S_MAX.into()) as u16;
        self.good_s = self.good_s.max(quiet_s);
        self.bad_s = self.bad_s.filter(|bad| *bad > self.good_s);
    }

    /// A call has come after the quiet that was asked for.
    pub(crate) fn came(&mut self) {
        if self.is_settled() {
            self.came += 1;
            if self.came >= CALLS_UNTIL_FORGOTTEN {
                (self.came, self.bad_s) = (0, None);
            }
        }
    }

    /// A call after so long a quiet has not come, although the path was fine.
    pub(crate) fn failed(&mut self, quiet_s: u16) {
        self.bad_s = Some(quiet_s.max(GOOD_S_MIN + 1));
        self.came = 0;
        if quiet_s <= self.good_s {
            // It is another NAT than that was.
            self.good_s = (quiet_s * 2 / 3).clamp(GOOD_S_MIN, GOOD_S_INITIAL);
        }
    }
}

/// The networks that a home remembers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Networks {
    /// The one where the device was seen last at the end.
    known: Vec<Memory>,
}

impl Networks {
    /// Where the device was seen last; if nowhere, what is believed of any network.
    pub(crate) fn present(&self) -> Memory {
        self.known.last().copied().unwrap_or(Memory::new(NetworkPrefix::default()))
    }

    /// Changes what is known of where the device was seen last.
    pub(crate) fn learn(&mut self, change: impl FnOnce(&mut Memory)) {
        self.known.last_mut().map(change);
    }

    /// The relay sees the device there. Whether that is another network than before.
    pub(crate) fn enter(&mut self, network: NetworkPrefix) -> bool {
        if self.known.last().is_some_and(|last| last.network == network) {
            return false;
        }
        let place = self.known.iter().position(|known| known.network == network);
        let memory = place.map_or(Memory::new(network), |place| self.known.remove(place));
        self.known.push(memory);
        if self.known.len() > NETWORKS_MAX {
            self.known.remove(0);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> Memory {
        Memory::new(NetworkPrefix(1))
    }

    /// Calls until nothing more is to be learned, behind a NAT that remembers for so long; how many of them failed.
    fn learn(memory: &mut Memory, nat_s: u16) -> (u32, u32) {
        let (mut calls, mut failures) = (0, 0);
        while !memory.is_settled() {
            let quiet_s = memory.call_s();
            calls += 1;
            if quiet_s < nat_s {
                memory.survived(Duration::from_secs(quiet_s.into()));
                memory.came();
            } else {
                failures += 1;
                memory.failed(quiet_s);
            }
            assert!(calls < 100, "{memory:?}");
        }
        (calls, failures)
    }

    #[test]
    fn any_nat_s_memory_is_found_with_few_calls_that_fail() {
        for nat_s in GOOD_S_INITIAL + 1..2_000 {
            let mut memory = memory();
            let (calls, failures) = learn(&mut memory, nat_s);
            let interval_s = memory.interval().as_secs() as u16;
            assert!(interval_s < nat_s, "{nat_s}: {memory:?}");
            assert!(interval_s >= (nat_s * 2 / 3).min(GOOD_S_MAX * 7 / 8), "{nat_s}: {memory:?}");
            assert!(calls <= 12 && failures <= 3, "{nat_s}: {calls} calls, {failures} failed");
        }
    }

    #[test]
    fn the_interval_grows_only_by_what_has_come_through() {
        let mut memory = memory();
        assert_eq!(memory.call_s(), 45);
        assert_eq!(memory.interval(), Duration::from_millis(26_250));
        memory.survived(Duration::from_secs(44));
        assert_eq!(memory.interval(), Duration::from_millis(38_500));
        memory.survived(Duration::from_secs(20));
        assert_eq!(memory.interval(), Duration::from_millis(38_500));
    }

    #[test]
    fn an_interval_that_has_become_too_long_is_given_up_and_the_nat_measured_anew() {
        let mut memory = memory();
        learn(&mut memory, 600);
        let quiet_s = memory.call_s();
        memory.failed(quiet_s);
        assert!(memory.interval().as_secs() < u64::from(quiet_s) * 2 / 3);
        assert!(!memory.is_settled());
        learn(&mut memory, 90);
        assert!((60..90).contains(&memory.interval().as_secs()), "{memory:?}");
    }

    #[test]
    fn calls_that_come_for_two_days_let_a_failure_be_forgotten() {
        let mut memory = memory();
        learn(&mut memory, 100);
        let before = memory;
        for _ in memory.came + 1..CALLS_UNTIL_FORGOTTEN {
            memory.came();
            assert!(memory.is_settled());
        }
        memory.came();
        assert!(!memory.is_settled());
        learn(&mut memory, 400);
        assert!(memory.interval() > before.interval() * 2);
    }

    #[test]
    fn no_failure_makes_it_shorter_than_the_shortest() {
        let mut memory = memory();
        for _ in 0..20 {
            let quiet_s = memory.call_s();
            memory.failed(quiet_s);
        }
        assert_eq!(memory.good_s, GOOD_S_MIN);
        assert!(memory.is_settled());
    }

    #[test]
    fn a_network_is_known_again_and_the_longest_unused_is_forgotten() {
        let mut networks = Networks::default();
        assert!(networks.enter(NetworkPrefix(0)));
        assert!(!networks.enter(NetworkPrefix(0)));
        networks.learn(|memory| memory.survived(Duration::from_secs(100)));
        for other in 1..NETWORKS_MAX as u32 {
            assert!(networks.enter(NetworkPrefix(other)));
        }
        assert_eq!(networks.present().good_s, GOOD_S_INITIAL);
        assert!(networks.enter(NetworkPrefix(0)));
        assert_eq!(networks.present().good_s, 100);
        for other in 1..=NETWORKS_MAX as u32 {
            networks.enter(NetworkPrefix(other));
        }
        networks.enter(NetworkPrefix(0));
        assert_eq!(networks.present().good_s, GOOD_S_INITIAL);
    }
}
