//! Stays reachable on one link: when to keep the way open, when to ask for a call, and what it means that none comes.
//!
//! No I/O and no clock: the session tells what has happened and does what is due.

use std::time::Duration;

use thinpost_wire::frame::NetworkPrefix;
use tokio::time::Instant;

use crate::reach::Networks;

/// How often it is verified that calls still come, when there is nothing more to learn. A mapping that is lost, and that the
/// relay does not tell of because the NAT has given the same port again, is noticed so late at most.
const VERIFY_EVERY: Duration = Duration::from_secs(3_600);

/// When the relay has lost sight of the device, a touch was lost, most likely. So many touches leave twice from then on, so long
/// apart that one fade does not take both.
const TOUCHES_TWICE: u8 = 100;
const TWICE_AFTER: Duration = Duration::from_secs(5);

/// When it has lost sight after so many touches in a row, that is no accident: a call is to tell whether the interval is too long.
const LOST_IN_A_ROW: u8 = 2;

/// A call is in doubt when it is so late: a relay's link repeats it five times by then.
const LATE_MIN: Duration = Duration::from_secs(8);
const LATE_ROUND_TRIPS: u32 = 12;

/// A call after a quiet that is shorter by no more than this, and a round trip, has tested it: timers are not exact.
const SLACK: Duration = Duration::from_secs(2);

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// Keep the way open.
    Touch,
    /// Ask to be called after a quiet of so many seconds.
    AskForCall(u16),
}

/// How it stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Nothing was asked on this link, or since the relay has lost sight of the device.
    #[default]
    New,
    /// The relay was asked where it sees the device.
    Placing,
    /// The way is kept open until it is time for a call.
    Keeping { call_at: Instant },
    /// A call is to come after a quiet of so many seconds: until then nothing must go.
    Quiet { quiet_s: u16 },
    /// It has not come. The relay was asked for one at once, to know whether the path was dead.
    Doubting { quiet_s: u16, since: Instant },
}

/// The state of one link.
#[derive(Debug, Default)]
pub(super) struct Reaching {
    state: State,
    /// How many more touches leave twice.
    twice: u8,
    /// Whether the last touch is to leave again.
    again: bool,
    /// After how many touches in a row, up to the last, the relay has lost sight of the device, and whether after the last.
    lost: u8,
    lost_last: bool,
}

/// What the machine is told of the link.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) now: Instant,
    /// When the last packet left: all NATs count from there, unless what has come in since puts them off.
    pub(super) sent_at: Instant,
    /// When the last packet went, either way: some NATs count from what comes in as well, so that no longer quiet than from then
    /// on was tested.
    pub(super) quiet_since: Instant,
    pub(super) rtt: Duration,
}

impl Seen {
    fn late(&self) -> Duration {
        LATE_MIN.max(self.rtt * LATE_ROUND_TRIPS)
    }
}

impl Reaching {
    /// When something is due, if nothing is said before. Asked while the link is at rest.
    pub(super) fn due_at(&self, seen: Seen, networks: &Networks) -> Instant {
        let touch_after = if self.again { TWICE_AFTER } else { networks.present().interval() };
        let touch_at = seen.sent_at + touch_after;
        match self.state {
            State::New => seen.now,
            State::Placing | State::Doubting { .. } => touch_at,
            State::Keeping { call_at } => touch_at.min(call_at),
            State::Quiet { quiet_s } => seen.quiet_since + Duration::from_secs(quiet_s.into()) + seen.late(),
        }
    }

    /// What is to be done now, while the link is at rest.
    pub(super) fn act(&mut self, seen: Seen, networks: &Networks) -> Option<Act> {
        if self.due_at(seen, networks) > seen.now {
            return None;
        }
        let (state, act) = match self.state {
            State::New => (State::Placing, Act::AskForCall(0)),
            State::Keeping { call_at } if call_at <= seen.now => {
                let quiet_s = networks.present().call_s();
                (State::Quiet { quiet_s }, Act::AskForCall(quiet_s))
            }
            State::Quiet { quiet_s } => (State::Doubting { quiet_s, since: seen.now }, Act::AskForCall(0)),
            state => (state, Act::Touch),
        };
        self.state = state;
        let is_first = act == Act::Touch && !self.again;
        self.again = is_first && self.twice > 0;
        if is_first {
            self.twice = self.twice.saturating_sub(1);
            self.lost = if self.lost_last { self.lost } else { 0 };
            self.lost_last = false;
        }
        Some(act)
    }

    /// Something has come, `quiet` being the longest quiet that it ended; with a call, where the device is seen.
    pub(super) fn heard(
        &mut self,
        seen: Seen,
        quiet: Duration,
        called: Option<NetworkPrefix>,
        networks: &mut Networks,
    ) {
        if self.state == State::New {
            return;
        }
        let has_moved = called.is_some_and(|network| networks.enter(network));
        if has_moved {
            // What was asked and what was quiet was so elsewhere, in part at least.
            self.keep(seen.now, networks);
            return;
        }
        // On its way to the NAT, and from there, a packet says nothing yet, or nothing more.
        let quiet = quiet.saturating_sub(seen.rtt);
        networks.learn(|memory| memory.survived(quiet));
        match self.state {
            State::Quiet { quiet_s } if quiet + SLACK >= Duration::from_secs(quiet_s.into()) => {
                networks.learn(|memory| memory.came());
                self.keep(seen.now, networks);
            }
            // It is too early, as when the relay has missed what the device said last: once more.
            State::Quiet { .. } if called.is_some() => self.state = State::Keeping { call_at: seen.now },
            State::Doubting { quiet_s, since } if called.is_some() => {
                if seen.now <= since + seen.late() {
                    networks.learn(|memory| memory.failed(quiet_s));
                    // What is left of what was believed is to be shown.
                    self.state = State::Keeping { call_at: seen.now };
                } else {
                    self.keep(seen.now, networks);
                }
            }
            State::Placing if called.is_some() => self.keep(seen.now, networks),
            _ => {}
        }
    }

    /// The relay does not know where the device is, as when a packet that was to keep the way open was lost: it has to
    /// be said.
    pub(super) fn lost_track(&mut self) {
        if let State::Keeping { .. } = self.state {
            self.state = State::New;
            self.twice = TOUCHES_TWICE;
            self.lost += u8::from(!self.lost_last);
            self.lost_last = true;
        }
    }

    /// Keeps the way open until it is time for the next call: at once, as long as there is something to learn.
    fn keep(&mut self, now: Instant, networks: &Networks) {
        let is_in_doubt = self.lost >= LOST_IN_A_ROW;
        let may_wait = networks.present().is_settled() && !is_in_doubt;
        if is_in_doubt {
            self.lost = 0;
        }
        let wait = if may_wait { VERIFY_EVERY } else { Duration::ZERO };
        self.state = State::Keeping { call_at: now + wait };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTT: Duration = Duration::from_millis(700);
    const HERE: NetworkPrefix = NetworkPrefix(1);
    const THERE: NetworkPrefix = NetworkPrefix(2);

    /// A device, its relay, and a NAT between them that answer at once.
    struct Scene {
        reaching: Reaching,
        networks: Networks,
        now: Instant,
        sent_at: Instant,
        quiet_since: Instant,
        nat: Duration,
        touches: u32,
    }

    impl Scene {
        fn new(nat_s: u64) -> Self {
            let now = Instant::now();
            let nat = Duration::from_secs(nat_s);
            let (reaching, networks) = (Reaching::default(), Networks::default());
            Self { reaching, networks, now, sent_at: now, quiet_since: now, nat, touches: 0 }
        }

        fn seen(&self) -> Seen {
            Seen { now: self.now, sent_at: self.sent_at, quiet_since: self.quiet_since, rtt: RTT }
        }

        /// Time passes until something is due.
        fn act(&mut self) -> Act {
            self.now = self.now.max(self.reaching.due_at(self.seen(), &self.networks));
            let act = self.reaching.act(self.seen(), &self.networks).expect("it is due");
            (self.sent_at, self.quiet_since) = (self.now, self.now);
            act
        }

        /// The relay calls when so much time has passed.
        fn called(&mut self, after: Duration, network: NetworkPrefix) {
            self.now += after;
            let quiet = self.now - self.quiet_since;
            self.reaching.heard(self.seen(), quiet, Some(network), &mut self.networks);
            // It is acknowledged.
            (self.sent_at, self.quiet_since) = (self.now, self.now);
        }

        /// Plays until then.
        fn play(&mut self, until: Instant) {
            while self.now < until {
                match self.act() {
                    Act::Touch => self.touches += 1,
                    Act::AskForCall(quiet_s) if Duration::from_secs(quiet_s.into()) < self.nat => {
                        self.called(Duration::from_secs(quiet_s.into()) + RTT, HERE);
                    }
                    Act::AskForCall(_) => {}
                }
            }
        }
    }

    #[test]
    fn it_asks_where_it_is_seen_and_then_how_long_a_quiet_may_be() {
        let mut scene = Scene::new(300);
        assert_eq!(scene.act(), Act::AskForCall(0));
        scene.called(RTT, HERE);
        assert_eq!(scene.act(), Act::AskForCall(45));
        scene.called(Duration::from_secs(45) + RTT, HERE);
        assert_eq!(scene.act(), Act::AskForCall(67));
    }

    #[test]
    fn within_an_hour_it_knows_the_nat_and_afterwards_touches_are_as_rare_as_can_be() {
        for (nat_s, at_most) in [(20, 280), (60, 90), (300, 18), (1_800, 5)] {
            let mut scene = Scene::new(nat_s);
            let hour = Duration::from_secs(3_600);
            scene.play(scene.now + hour);
            assert!(scene.networks.present().is_settled(), "{nat_s}");
            assert!(scene.networks.present().interval() < scene.nat);
            scene.touches = 0;
            scene.play(scene.now + hour);
            assert!((1..=at_most).contains(&scene.touches), "{nat_s}: {}", scene.touches);
        }
    }

    #[test]
    fn a_call_that_does_not_come_shortens_the_interval_if_the_path_was_fine() {
        let mut scene = Scene::new(600);
        scene.play(scene.now + Duration::from_secs(3_600));
        let before = scene.networks.present();
        scene.nat = Duration::from_secs(100);
        scene.play(scene.now + Duration::from_secs(2 * 3_600));
        let after = scene.networks.present().interval();
        assert!(after < before.interval() && after < scene.nat, "{after:?}");
        assert!(after > scene.nat * 2 / 3, "{after:?}");
    }

    #[test]
    fn a_dead_path_says_nothing_of_the_nat() {
        let mut scene = Scene::new(600);
        scene.play(scene.now + Duration::from_secs(3_600));
        let before = scene.networks.present().interval();
        while !matches!(scene.act(), Act::AskForCall(_)) {}
        assert_eq!(scene.act(), Act::AskForCall(0), "it has not come");
        scene.called(Duration::from_secs(60), HERE);
        assert_eq!(scene.networks.present().interval(), before);
    }

    #[test]
    fn a_call_that_was_missed_by_a_change_of_network_says_nothing_of_either_nat() {
        let mut scene = Scene::new(600);
        scene.play(scene.now + Duration::from_secs(3_600));
        let before = scene.networks.present();
        while !matches!(scene.act(), Act::AskForCall(_)) {}
        assert_eq!(scene.act(), Act::AskForCall(0), "it has not come");
        scene.called(RTT, THERE);
        assert_eq!(scene.act(), Act::AskForCall(45), "there it begins anew");
        scene.networks.enter(HERE);
        assert_eq!(scene.networks.present(), before);
    }

    #[test]
    fn a_device_that_the_relay_has_lost_sight_of_speaks_at_once() {
        let mut scene = Scene::new(600);
        scene.play(scene.now + Duration::from_secs(3_600));
        let before = scene.networks.present();
        while scene.act() != Act::Touch {}
        scene.reaching.lost_track();
        let now = scene.now;
        assert_eq!(scene.act(), Act::AskForCall(0));
        assert_eq!(scene.now, now);
        scene.called(RTT, HERE);
        assert_eq!(scene.act(), Act::Touch);
        assert_eq!(scene.networks.present(), before, "the NAT is not to blame");
        let first = scene.now;
        assert_eq!(scene.act(), Act::Touch);
        assert_eq!(scene.now, first + TWICE_AFTER, "a touch was lost before");
        assert_eq!(scene.act(), Act::Touch);
        assert_eq!(scene.now, first + TWICE_AFTER + before.interval());
    }

    #[test]
    fn whom_the_relay_loses_sight_of_again_and_again_asks_for_a_call() {
        let mut scene = Scene::new(600);
        scene.play(scene.now + Duration::from_secs(3_600));
        for _ in 0..LOST_IN_A_ROW {
            while scene.act() != Act::Touch {}
            scene.reaching.lost_track();
            assert_eq!(scene.act(), Act::AskForCall(0));
            scene.called(RTT, HERE);
        }
        assert_eq!(scene.act(), Act::AskForCall(scene.networks.present().call_s()));
    }

    #[test]
    fn a_call_that_comes_too_early_is_asked_for_again() {
        let mut scene = Scene::new(600);
        scene.act();
        scene.called(RTT, HERE);
        assert_eq!(scene.act(), Act::AskForCall(45));
        scene.called(Duration::from_secs(35), HERE);
        assert_eq!(scene.act(), Act::AskForCall(51), "35 s are known by now");
    }

    #[test]
    fn what_has_come_in_since_puts_no_touch_off() {
        let mut scene = Scene::new(600);
        scene.play(scene.now + Duration::from_secs(3_600));
        while scene.act() != Act::Touch {}
        let sent_at = scene.now;
        scene.quiet_since = sent_at + Duration::from_secs(10);
        assert_eq!(scene.act(), Act::Touch);
        assert_eq!(scene.now, sent_at + scene.networks.present().interval());
    }

    #[test]
    fn what_comes_by_itself_teaches_as_well() {
        let mut scene = Scene::new(600);
        scene.act();
        scene.called(RTT, HERE);
        scene.act();
        let quiet = Duration::from_secs(44);
        scene.now += quiet;
        scene.reaching.heard(scene.seen(), quiet, None, &mut scene.networks);
        assert!(scene.networks.present().interval() > Duration::from_secs(37));
    }
}
