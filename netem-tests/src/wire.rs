//! Both directions of one link in real time, and what is under way on them.

use std::time::Duration;

use crate::agenda::Agenda;
use crate::link::{Link, PathCounters};
use crate::profile::Profile;

/// Which way something goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// From the host behind the link to the network.
    Up,
    /// From the network to the host.
    Down,
}

/// Something that has come out at an end of the link.
#[derive(Clone, Debug)]
pub(crate) struct Arrived<T> {
    pub(crate) direction: Direction,
    pub(crate) content: T,
    /// Bits of it are not as they were.
    pub(crate) is_damaged: bool,
}

/// A link that something of kind `T` crosses. Its time is that since the link was laid.
#[derive(Debug)]
pub(crate) struct Wire<T> {
    up: Link,
    down: Link,
    agenda: Agenda<UnderWay<T>>,
    /// To be handed over.
    arrived: Vec<Arrived<T>>,
}

#[derive(Debug)]
struct UnderWay<T> {
    arrives: Arrived<T>,
    /// The link's [`Link::cuts`] when it was offered.
    cuts: u64,
}

impl<T: Clone> Wire<T> {
    pub(crate) fn new(profile: &Profile, seed: u64) -> Self {
        let (up, down) = profile.links(seed);
        Self { up, down, agenda: Agenda::new(), arrived: Vec::new() }
    }

    fn link(&mut self, direction: Direction) -> &mut Link {
        match direction {
            Direction::Up => &mut self.up,
            Direction::Down => &mut self.down,
        }
    }

    pub(crate) fn offer(&mut self, now: Duration, direction: Direction, ip_bytes: usize, content: T) {
        // First, so that nothing that is due by now crosses behind a later packet.
        self.collect_arrived(now);
        let link = self.link(direction);
        let cuts = link.cuts();
        let verdict = link.offer(now, ip_bytes);
        for at in verdict.arrivals() {
            let is_damaged = verdict.is_damaged();
            let arrives = Arrived { direction, content: content.clone(), is_damaged };
            self.agenda.push(at, UnderWay { arrives, cuts });
        }
    }

    /// Takes what has come out by `now`, and says when the next will.
    pub(crate) fn take_arrived(&mut self, now: Duration) -> (Vec<Arrived<T>>, Option<Duration>) {
        self.collect_arrived(now);
        (std::mem::take(&mut self.arrived), self.agenda.next_at())
    }

    /// Moves what is due by `now` to `arrived`, except what an outage took.
    fn collect_arrived(&mut self, now: Duration) {
        while let Some((_, UnderWay { arrives, cuts })) = self.agenda.pop_due(now) {
            if self.link(arrives.direction).cuts() == cuts {
                self.arrived.push(arrives);
            }
        }
    }

    /// Begins or ends a total outage of both directions, see [`Link::set_outage`].
    pub(crate) fn set_outage(&mut self, now: Duration, outage: bool) {
        self.collect_arrived(now);
        self.up.set_outage(now, outage);
        self.down.set_outage(now, outage);
    }

    pub(crate) fn counters(&mut self, now: Duration) -> PathCounters {
        PathCounters { up: self.up.counters(now), down: self.down.counters(now) }
    }
}
