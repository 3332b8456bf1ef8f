//! The two ends, the channel between them, and time.

use std::collections::VecDeque;
use std::time::Duration;

use thinpost_wire::codec::DictionarySet;
use thinpost_wire::limits::FRAME_BYTES_MAX;
use thinpost_wire::link::{Link, LinkConfig, Time};

use super::shell::{Objects, Shell};
use super::{End, Hint, Operation};

/// What the carrier takes in one datagram at least, bytes, once the first has left.
const ROOM: usize = 1_131;

/// And how much more it may be.
const MORE_ROOM: u16 = 300;

/// Datagrams under way in one direction; one more pushes out the oldest.
const UNDER_WAY_MAX: usize = 64;

/// Bytes that are pushed at one end, so that the end comes soon.
const PUSHED_BYTES_MAX: usize = 70_000;

/// Frames that are pushed at one end: more than a window of items.
const FRAMES_MAX: usize = 600;

/// How long the clean channel takes.
const DELAY: Duration = Duration::from_millis(120);

/// More steps than the slowest end takes.
const STEPS_MAX: usize = 100_000;

pub(crate) struct Pair {
    links: [Link; 2],
    shells: [Shell; 2],
    objects: Objects,
    /// What goes to each end.
    under_way: [VecDeque<Vec<u8>>; 2],
    now: Time,
    /// A datagram was changed: nothing that is delivered has to be right.
    is_changed: bool,
    /// An end has refused a changed datagram.
    is_over: bool,
}

impl Pair {
    pub(crate) fn new(peer_has: DictionarySet) -> Self {
        let config = LinkConfig {
            initial_rtt: Duration::from_millis(700),
            is_rtt_measured: false,
            // And one that neither has.
            peer_has: DictionarySet::from_bits(peer_has.bits() | 1 << 31),
            poll_pause_max: Duration::from_secs(45),
        };
        Self {
            links: [Link::new(config), Link::new(config)],
            shells: [Shell::new(0), Shell::new(1)],
            objects: Objects::default(),
            under_way: Default::default(),
            now: Time::after_start(Duration::from_secs(100)),
            is_changed: false,
            is_over: false,
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.is_over
    }

    pub(crate) fn do_it(&mut self, operation: &Operation) {
        match *operation {
            Operation::Push { from, bytes, texture } => {
                self.push(from, usize::from(bytes) % 4_000, texture >= 32)
            }
            Operation::PushMany { from, frames } => (0..frames).for_each(|_| self.push(from, 1, true)),
            Operation::PushLargest { from } => self.push(from, FRAME_BYTES_MAX, true),
            Operation::Transmit { from, datagrams, room } => {
                self.transmit(from as usize, datagrams.into(), ROOM + usize::from(room % MORE_ROOM));
            }
            Operation::Deliver { to, which } => {
                if let Some(datagram) = self.pick(to, which) {
                    self.deliver(to as usize, &datagram);
                }
            }
            Operation::DeliverAll { to, is_backwards } => {
                let mut all = std::mem::take(&mut self.under_way[to as usize]);
                while let Some(datagram) = if is_backwards { all.pop_back() } else { all.pop_front() } {
                    self.deliver(to as usize, &datagram);
                }
            }
            Operation::Double { to, which } => {
                if let Some(datagram) = self.pick(to, which) {
                    self.deliver(to as usize, &datagram);
                    self.under_way[to as usize].push_back(datagram);
                }
            }
            Operation::Lose { to, which } => {
                self.pick(to, which);
            }
            Operation::DeliverUnreadable { to, which, coding } => self.deliver_unreadable(to, which, coding),
            Operation::DeliverChanged { to, which, place, change } => {
                if let Some(mut datagram) = self.pick(to, which)
                    && change != 0
                {
                    let place = usize::from(place) % datagram.len();
                    datagram[place] ^= change;
                    self.is_changed = true;
                    self.deliver(to as usize, &datagram);
                }
            }
            Operation::Wait { ms } => self.now = self.now + Duration::from_millis(ms.into()),
            Operation::Ring { end } => {
                if let Some(at) = self.links[end as usize].poll_timeout() {
                    self.now = self.now.max(at);
                }
                self.wake(end as usize);
            }
            Operation::Wake { end } => self.wake(end as usize),
            Operation::Settle { at, frames } => {
                self.shells[at as usize].settle(&mut self.links[at as usize], self.now, frames.into());
            }
            Operation::Offer { from, size, held, knows } => {
                self.objects.offer(&mut self.links[from as usize], from as usize, size, held, knows);
            }
            Operation::Accept { at } => self.accept(at as usize),
            Operation::Supply { from, pieces, in_part } => {
                self.objects.supply(&mut self.links[from as usize], pieces.into(), in_part);
            }
            Operation::Hold { at, chunks } => {
                self.objects.hold(&mut self.links[at as usize], at as usize, self.now, chunks.into());
            }
            Operation::Stop { at, which } => {
                self.objects.stop(&mut self.links[at as usize], at as usize, which)
            }
            Operation::Gather { at, seconds } => {
                self.links[at as usize].gather_acks(self.now, Duration::from_secs(u64::from(seconds) % 30));
            }
            Operation::Hint { to, ref hint } => self.hint(to as usize, hint),
        }
    }

    fn push(&mut self, from: End, bytes: usize, is_noise: bool) {
        let shell = &mut self.shells[from as usize];
        if shell.pushed_bytes() + bytes <= PUSHED_BYTES_MAX && shell.frames() < FRAMES_MAX {
            shell.push(&mut self.links[from as usize], bytes.max(1), is_noise);
        }
    }

    fn hint(&mut self, to: usize, hint: &Hint) {
        let link = &mut self.links[to];
        match *hint {
            Hint::ResendAll => link.resend_all(),
            Hint::LoseUntil { ms_ago } => {
                let since_start = self.now.since_start();
                let at = since_start.saturating_sub(Duration::from_millis(ms_ago.into()));
                link.lose_until(Time::after_start(at));
            }
            Hint::Poke => link.poke(self.now),
            Hint::Ask => link.ask(),
            Hint::Ride { bytes } => {
                link.ride(usize::from(bytes) % ROOM);
                self.transmit(to, 1, ROOM);
            }
            Hint::PathIsOpen => link.path_is_open(self.now),
        }
    }

    fn pick(&mut self, to: End, which: u8) -> Option<Vec<u8>> {
        let under_way = &mut self.under_way[to as usize];
        let place = usize::from(which).checked_rem(under_way.len())?;
        under_way.remove(place)
    }

    /// The other end says so, and this one then sends it again in another coding.
    fn deliver_unreadable(&mut self, to: End, which: u8, coding: u8) {
        const UNKNOWN: [u8; 6] = [3, 15, 47, 48, 64, 255];
        if let Some(mut datagram) = self.pick(to, which) {
            datagram[0] = UNKNOWN[usize::from(coding) % UNKNOWN.len()];
            self.deliver(to as usize, &datagram);
        }
    }

    fn transmit(&mut self, from: usize, datagrams: usize, room: usize) {
        for _ in 0..datagrams {
            if !self.transmit_one(from, room) {
                return self.assert_sleeps(from, room);
            }
        }
    }

    fn transmit_one(&mut self, from: usize, room: usize) -> bool {
        let Some(datagram) = self.links[from].poll_transmit(self.now, room) else { return false };
        assert!(datagram.len() <= room, "{} bytes where there is room for {room}", datagram.len());
        let under_way = &mut self.under_way[1 - from];
        if under_way.len() == UNDER_WAY_MAX {
            under_way.pop_front();
        }
        under_way.push_back(datagram);
        true
    }

    /// When all that is due was done and nothing more is to leave, no timer rings before time has passed: a shell would do nothing else.
    fn assert_sleeps(&mut self, at: usize, room: usize) {
        self.links[at].handle_timeout(self.now);
        while self.transmit_one(at, room) {}
        let timeout = self.links[at].poll_timeout();
        assert!(timeout.is_none_or(|timeout| timeout > self.now), "{timeout:?} at {:?}", self.now);
    }

    fn deliver(&mut self, to: usize, datagram: &[u8]) {
        let taken = self.links[to].handle_datagram(self.now, datagram);
        if let Err(error) = taken {
            assert!(self.is_changed, "{error}");
            self.is_over = true;
        }
        self.look(to);
    }

    fn wake(&mut self, end: usize) {
        self.links[end].handle_timeout(self.now);
        self.look(end);
    }

    fn accept(&mut self, at: usize) {
        if let Err(error) = self.objects.accept(&mut self.links[at], at) {
            assert!(self.is_changed, "{error}");
            self.is_over = true;
        }
        self.look(at);
    }

    /// Takes what has happened.
    fn look(&mut self, at: usize) {
        while let Some(event) = self.links[at].poll_event() {
            let [device, relay] = &mut self.shells;
            let (shell, other) = if at == 0 { (device, &*relay) } else { (relay, &*device) };
            if let Some(event) = shell.look(event, other, self.is_changed) {
                self.objects.look(event, at, self.is_changed);
            }
        }
    }

    /// From now on the channel is clean, and the shells do what they should at once. All arrives.
    pub(crate) fn finish(mut self) {
        if self.is_changed {
            return;
        }
        while self.objects.waits(0) || self.objects.waits(1) {
            (0..2).for_each(|at| self.accept(at));
        }
        self.objects.close(&mut self.links);
        let mut arrivals: [VecDeque<(Time, Vec<u8>)>; 2] = Default::default();
        for _ in 0..STEPS_MAX {
            for at in 0..2 {
                self.look(at);
                let link = &mut self.links[at];
                self.shells[at].settle(link, self.now, usize::MAX);
                self.objects.hold(link, at, self.now, usize::MAX);
                self.objects.supply(link, usize::MAX, false);
                self.transmit(at, usize::MAX, ROOM);
                let sent = self.under_way[1 - at].drain(..);
                arrivals[1 - at].extend(sent.map(|datagram| (self.now + DELAY, datagram)));
            }
            let timeouts = self.links.iter().filter_map(Link::poll_timeout);
            let arriving = arrivals.iter().filter_map(|to| to.front().map(|(at, _)| *at));
            let Some(next) = timeouts.chain(arriving).min() else { break };
            self.now = self.now.max(next);
            for (at, arriving) in arrivals.iter_mut().enumerate() {
                while let Some((_, datagram)) = arriving.pop_front_if(|(due, _)| *due <= self.now) {
                    self.deliver(at, &datagram);
                }
                self.wake(at);
            }
        }
        // With a shell that has done its part, a link that is not at rest has a timer.
        assert!(self.links.iter().all(Link::is_at_rest), "not at rest after {:?}", self.now);
        let [device, relay] = &self.shells;
        device.assert_all_arrived(relay);
        relay.assert_all_arrived(device);
        self.objects.assert_all_arrived();
    }
}
