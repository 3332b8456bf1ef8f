//! When to try again after a link has ended.

use std::time::Duration;

use thinpost_carrier::Down;
use thinpost_wire::frame::{Close, Denial};

use crate::error::StoreError;
use crate::event::LinkState;
use crate::random::Random;

/// The first and the longest pause between attempts that fail.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// The pause after a relay proved to be another, or another version: neither changes soon.
const PAUSE_MISFIT: Duration = Duration::from_secs(300);

/// A relay that restarts is asked after at most this: spread, so that not all its devices come at once.
const PAUSE_RESTART: Duration = Duration::from_millis(500);

/// A busy relay is given the pause that follows so many failures.
const PAUSES_BUSY: u32 = 3;

/// The longest that one attempt to connect may take.
const ATTEMPT_MAX: Duration = Duration::from_secs(60);

/// Why there is no link any more, or none came about.
#[derive(Clone, Debug)]
pub(super) enum End {
    /// The application does not want one, or is gone.
    Unwanted,
    /// The network has changed: connect anew.
    Renew,
    /// The channel has ended.
    Lost(Down),
    /// No answer came to the handshake in time.
    NoAnswer,
    /// The relay went silent.
    Silent,
    /// No socket, or no way to the address.
    NoSocket(String),
    /// The relay sent what a relay may not send.
    Misbehaved(&'static str),
    /// The home's file failed.
    Store(StoreError),
}

/// What to do after a link has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Show this state, and try again after the pause.
    Wait(LinkState, Duration),
    /// Show this state until the application asks for a link.
    Stop(LinkState),
}

/// How often in a row it has failed.
#[derive(Debug, Default)]
pub(super) struct Retry {
    failures: u32,
    /// How many links in a row have ended because the relay had forgotten that it had registered this device.
    forgotten: u32,
}

impl Retry {
    /// The relay has answered.
    pub(super) fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// How long an attempt may take, given what a round trip is believed to take. Another attempt at the same address is no better
    /// than this one, which repeats itself and knocks, and costs a new handshake.
    pub(super) fn attempt_timeout(&self, rtt: Duration, is_only_address: bool) -> Duration {
        let patience = if is_only_address { 4 } else { 1 };
        let first = (Duration::from_secs(1) + rtt * 10) * patience;
        first.mul_f64(1.5f64.powi(self.failures.min(16) as i32)).min(ATTEMPT_MAX)
    }

    /// What to do, and for how long. `registered` says whether the relay had confirmed the registration.
    pub(super) fn after(&mut self, end: &End, registered: bool, random: &mut Random) -> Next {
        let forgotten = std::mem::take(&mut self.forgotten);
        let down = match end {
            End::Unwanted => return Next::Stop(LinkState::Offline),
            End::Renew => return Next::Wait(LinkState::Connecting, Duration::ZERO),
            End::Store(error) => return Next::Stop(LinkState::StoreFailed(error.clone())),
            End::NoAnswer => return self.again("the relay does not answer", random),
            End::NoSocket(what) => return self.again(what, random),
            End::Silent => return self.soon("the relay went silent", PAUSE_MIN, random),
            End::Misbehaved(what) => return violation((*what).to_owned()),
            End::Lost(down) => down,
        };
        match down {
            Down::Closed(Close::Restarting) => self.soon("the relay restarts", PAUSE_RESTART, random),
            Down::Forgotten => self.soon("the relay was restarted", PAUSE_RESTART, random),
            // The relay's store was lost or replaced: the next link registers again.
            Down::Closed(Close::Denied(Denial::NotRegistered)) if registered => {
                self.forgotten = forgotten.saturating_add(1);
                if forgotten == 0 {
                    return Next::Wait(LinkState::Connecting, Duration::ZERO);
                }
                // It has welcomed this device in between, so that nothing has failed otherwise.
                self.failures = self.failures.max(forgotten);
                self.again("the relay registers this device, and forgets it", random)
            }
            Down::Closed(Close::Denied(denial)) => Next::Stop(LinkState::Denied(*denial)),
            Down::Closed(Close::Superseded) => Next::Stop(LinkState::Superseded),
            Down::Closed(Close::Busy) => {
                self.failures = self.failures.max(PAUSES_BUSY);
                self.again("the relay is busy", random)
            }
            Down::Closed(Close::Violation) => violation("the relay found this device at fault".to_owned()),
            Down::Violation(error) => violation(error.to_string()),
            Down::WrongKey => Next::Wait(LinkState::WrongKey, PAUSE_MISFIT),
            other => self.again(&other.to_string(), random),
        }
    }

    /// After a pause that grows with every failure in a row, drawn from its upper half and a bit above.
    fn again(&mut self, reason: &str, random: &mut Random) -> Next {
        let pause = (PAUSE_MIN * 2u32.pow(self.failures.min(6))).min(PAUSE_MAX);
        self.failures = self.failures.saturating_add(1);
        wait(reason, pause.mul_f64(0.75) + random.up_to(pause / 2))
    }

    /// After any part of a short pause, unless that has not helped before.
    fn soon(&mut self, reason: &str, most: Duration, random: &mut Random) -> Next {
        if self.failures >= 2 {
            return self.again(reason, random);
        }
        self.failures += 1;
        wait(reason, random.up_to(most))
    }
}

fn wait(reason: &str, retry_in: Duration) -> Next {
    Next::Wait(LinkState::Waiting { retry_in, reason: reason.to_owned() }, retry_in)
}

fn violation(what: String) -> Next {
    Next::Wait(LinkState::Violation(what), PAUSE_MISFIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pause(retry: &mut Retry, end: &End) -> Duration {
        match retry.after(end, true, &mut Random::from_seed(1, "retry", 0)) {
            Next::Wait(_, pause) => pause,
            Next::Stop(state) => panic!("stopped: {state:?}"),
        }
    }

    #[test]
    fn pauses_grow_to_a_minute_and_start_anew_after_success() {
        let mut retry = Retry::default();
        let pauses: Vec<_> = (0..9).map(|_| pause(&mut retry, &End::NoAnswer)).collect();
        assert!(pauses[0] <= PAUSE_MIN * 5 / 4, "{pauses:?}");
        assert!(pauses[3] > pauses[0] * 3 && pauses[8] >= PAUSE_MAX * 3 / 4, "{pauses:?}");
        assert!(pauses.iter().all(|pause| *pause <= PAUSE_MAX * 5 / 4), "{pauses:?}");
        retry.succeeded();
        assert!(pause(&mut retry, &End::NoAnswer) <= PAUSE_MIN * 5 / 4);
    }

    #[test]
    fn attempts_get_as_much_time_as_the_network_is_slow() {
        let mut retry = Retry::default();
        assert_eq!(retry.attempt_timeout(Duration::from_millis(700), false), Duration::from_secs(8));
        assert!(retry.attempt_timeout(Duration::from_secs(3), false) > Duration::from_secs(30));
        for _ in 0..20 {
            pause(&mut retry, &End::NoAnswer);
        }
        assert_eq!(retry.attempt_timeout(Duration::from_millis(700), false), ATTEMPT_MAX);
    }

    #[test]
    fn a_restarting_relay_is_asked_after_soon_unless_it_keeps_restarting() {
        let mut retry = Retry::default();
        let restarting = End::Lost(Down::Closed(Close::Restarting));
        assert!(pause(&mut retry, &restarting) <= PAUSE_RESTART);
        for _ in 0..8 {
            pause(&mut retry, &restarting);
        }
        assert!(pause(&mut retry, &restarting) >= PAUSE_MAX / 2);
    }

    #[test]
    fn a_lost_registration_is_renewed_and_a_refused_one_is_final() {
        let denied = End::Lost(Down::Closed(Close::Denied(Denial::NotRegistered)));
        let mut random = Random::from_seed(1, "retry", 0);
        let next = Retry::default().after(&denied, true, &mut random);
        assert_eq!(next, Next::Wait(LinkState::Connecting, Duration::ZERO));
        let next = Retry::default().after(&denied, false, &mut random);
        assert_eq!(next, Next::Stop(LinkState::Denied(Denial::NotRegistered)));
    }

    #[test]
    fn a_relay_that_forgets_again_and_again_is_asked_ever_more_rarely() {
        let mut retry = Retry::default();
        let denied = End::Lost(Down::Closed(Close::Denied(Denial::NotRegistered)));
        let mut pauses = Vec::new();
        for _ in 0..9 {
            pauses.push(pause(&mut retry, &denied));
            retry.succeeded();
        }
        assert!(pauses[0].is_zero() && pauses[1] > PAUSE_MIN, "{pauses:?}");
        assert!(pauses[8] >= PAUSE_MAX * 3 / 4, "{pauses:?}");
        pause(&mut retry, &End::Silent);
        assert!(pause(&mut retry, &denied).is_zero());
    }
}
