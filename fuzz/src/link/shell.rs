//! What is around a link: what was pushed and what has come of it, and what must hold of both.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::LazyLock;

use bytes::Bytes;
use rangemap::RangeSet;
use thinpost_wire::batch::Transfer;
use thinpost_wire::limits::{FRAME_BYTES_MAX, TRANSFERS_MAX};
use thinpost_wire::link::{Event, Link, LinkError, Time};

/// Frames and objects are parts of this, each from a place of its own on.
static NOISE: LazyLock<Bytes> = LazyLock::new(|| {
    let mut state = 1u64;
    let byte = |_| {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (state >> 56) as u8
    };
    (0..STARTS + FRAME_BYTES_MAX.max(SIZE_MAX as usize)).map(byte).collect()
});

/// How many places there are.
const STARTS: usize = 8_192;

/// One end's frames.
pub(crate) struct Shell {
    end: usize,
    /// Of each frame that was pushed: its number, its length, and whether it is noise.
    pushed: Vec<(u64, usize, bool)>,
    pushed_bytes: usize,
    /// How far the link has said that the other end has settled them.
    told: u64,
    /// How many of the other end's frames have come.
    arrived: usize,
    /// The numbers of those that are not settled.
    unsettled: VecDeque<u64>,
    /// How far the other end's frames are settled.
    settled: u64,
}

impl Shell {
    pub(crate) fn new(end: usize) -> Self {
        Self {
            end,
            pushed: Vec::new(),
            pushed_bytes: 0,
            told: 0,
            arrived: 0,
            unsettled: VecDeque::new(),
            settled: 0,
        }
    }

    pub(crate) fn pushed_bytes(&self) -> usize {
        self.pushed_bytes
    }

    pub(crate) fn frames(&self) -> usize {
        self.pushed.len()
    }

    pub(crate) fn push(&mut self, link: &mut Link, bytes: usize, is_noise: bool) {
        let frame = self.frame(self.pushed.len(), bytes, is_noise);
        let number = if is_noise { link.push_noise(frame) } else { link.push(frame) };
        assert!(self.pushed.last().is_none_or(|(before, ..)| number > *before));
        self.pushed.push((number, bytes, is_noise));
        self.pushed_bytes += bytes;
    }

    /// The frame of this place: no other is like it, if it has more than some bytes.
    fn frame(&self, place: usize, bytes: usize, is_noise: bool) -> Bytes {
        if is_noise {
            let start = (place * 61 + self.end * 31) % STARTS;
            return NOISE.slice(start..start + bytes);
        }
        let text = format!("frame {place} of end {}: all is well, ", self.end);
        text.bytes().cycle().take(bytes).collect()
    }

    /// Takes an event of frames; gives one of objects back.
    pub(crate) fn look(&mut self, event: Event, other: &Self, is_changed: bool) -> Option<Event> {
        match event {
            Event::Frame { number, bytes } => {
                let expected = other.pushed.get(self.arrived).copied();
                if !is_changed {
                    let (pushed, length, is_noise) = expected.expect("no more comes than was pushed");
                    assert_eq!((number, bytes.len()), (pushed, length), "in order, and once");
                    assert!(bytes == other.frame(self.arrived, length, is_noise), "as it was pushed");
                }
                self.arrived += 1;
                self.unsettled.push_back(number);
                None
            }
            Event::Settled { upto } => {
                assert!(is_changed || upto > self.told, "the watermark only rises");
                assert!(is_changed || upto <= other.settled, "custody of what is not settled");
                self.told = upto;
                None
            }
            of_object => Some(of_object),
        }
    }

    pub(crate) fn settle(&mut self, link: &mut Link, now: Time, frames: usize) {
        let last = self.unsettled.drain(..frames.min(self.unsettled.len())).next_back();
        self.settled = last.unwrap_or(self.settled);
        link.settle(now, self.settled);
    }

    pub(crate) fn assert_all_arrived(&self, other: &Self) {
        assert_eq!(other.arrived, self.pushed.len());
        assert_eq!(self.told, self.pushed.last().map_or(0, |(number, ..)| *number));
    }
}

/// Longest object, bytes: more than a link asks for at a time.
const SIZE_MAX: u32 = 50_000;

/// Bytes of all objects, so that the end comes soon.
const SIZES_MAX: u64 = 60_000;

/// The objects of both directions.
#[derive(Default)]
pub(crate) struct Objects {
    all: Vec<Object>,
    sizes: u64,
}

struct Object {
    from: usize,
    size: u64,
    /// What the other end holds.
    held: RangeSet<u64>,
    /// What it was given and does not hold yet.
    given: VecDeque<Range<u64>>,
    is_accepted: bool,
    /// Whether the transfer is ended, by end.
    is_stopped: [bool; 2],
}

impl Object {
    fn is_open(&self) -> bool {
        self.is_stopped != [true; 2]
    }
}

/// These bytes of an object.
fn content(of: Transfer, range: Range<u64>) -> Bytes {
    let start = of.0 as usize * 97 % STARTS;
    NOISE.slice(start + range.start as usize..start + range.end as usize)
}

fn bytes_of(held: &RangeSet<u64>) -> u64 {
    held.iter().map(|range| range.end - range.start).sum()
}

fn transfer(place: usize) -> Transfer {
    Transfer(place as u32 + 1)
}

impl Objects {
    pub(crate) fn offer(
        &mut self,
        link: &mut Link,
        from: usize,
        size: u32,
        held: Option<(u16, u16)>,
        knows: bool,
    ) {
        let size = u64::from(size % SIZE_MAX + 1);
        let is_much = self.sizes + size > SIZES_MAX;
        if is_much || self.all.iter().filter(|object| object.is_open()).count() == TRANSFERS_MAX {
            return self.begin_anew(link, from, knows);
        }
        let first = held.map(|(start, length)| u64::from(start)..u64::from(start) + u64::from(length));
        let first = first.map(|range| range.start.min(size)..range.end.min(size));
        let held: RangeSet<u64> = first.into_iter().filter(|range| !range.is_empty()).collect();
        if knows && bytes_of(&held) == size {
            // Nobody sends what the other end is known to have.
            return;
        }
        self.sizes += size;
        link.send_object(transfer(self.all.len()), size, if knows { held.clone() } else { RangeSet::new() });
        self.all.push(Object {
            from,
            size,
            held,
            given: VecDeque::new(),
            is_accepted: false,
            is_stopped: [false; 2],
        });
    }

    /// The newest object that is sent from this end is begun anew there, with what the other end holds by now or with what it
    /// held when nothing was known of it.
    fn begin_anew(&self, link: &mut Link, from: usize, knows: bool) {
        let place = self.all.iter().rposition(|object| object.from == from && !object.is_stopped[from]);
        if let Some(place) = place {
            let Object { size, held, .. } = &self.all[place];
            link.send_object(transfer(place), *size, if knows { held.clone() } else { RangeSet::new() });
        }
    }

    /// Whether an object that is sent to this end is not known there yet.
    pub(crate) fn waits(&self, at: usize) -> bool {
        self.all.iter().any(|object| object.from != at && !object.is_accepted)
    }

    pub(crate) fn accept(&mut self, link: &mut Link, at: usize) -> Result<(), LinkError> {
        let next = self.all.iter().position(|object| object.from != at && !object.is_accepted);
        let Some(place) = next else { return Ok(()) };
        let object = &mut self.all[place];
        object.is_accepted = true;
        link.receive_object(transfer(place), object.size, object.held.clone())
    }

    pub(crate) fn supply(&mut self, link: &mut Link, pieces: usize, in_part: bool) {
        for _ in 0..pieces {
            let Some(want) = link.want() else { return };
            let object = &self.all[want.transfer.0 as usize - 1];
            let Range { start, end } = want.bytes;
            assert!(start < end && end <= object.size, "{start} to {end} of {}", object.size);
            let end = if in_part { start.midpoint(end).max(start + 1) } else { end };
            link.supply(want.transfer, start, content(want.transfer, start..end));
        }
    }

    /// Takes an event of objects.
    pub(crate) fn look(&mut self, event: Event, at: usize, is_changed: bool) {
        let (Event::Chunk { transfer, .. } | Event::Progress { transfer, .. }) = event else {
            unreachable!("frames are the shell's")
        };
        let Some(object) = self.all.get_mut((transfer.0 as usize).wrapping_sub(1)) else {
            assert!(is_changed, "{transfer:?} was never offered");
            return;
        };
        match event {
            Event::Chunk { offset, bytes, .. } => {
                let range = offset..offset + bytes.len() as u64;
                if !is_changed {
                    assert!(object.from != at && object.is_accepted && !object.is_stopped[at]);
                    assert!(!bytes.is_empty() && range.end <= object.size);
                    assert!(bytes == content(transfer, range.clone()), "an object's bytes are its own");
                }
                object.given.push_back(range);
            }
            Event::Progress { held_bytes, .. } => {
                let held = bytes_of(&object.held);
                assert!(is_changed || object.from == at && held_bytes <= held, "{held_bytes} of {held}");
            }
            _ => {}
        }
    }

    pub(crate) fn hold(&mut self, link: &mut Link, at: usize, now: Time, chunks: usize) {
        let mut left = chunks;
        for (place, object) in self.all.iter_mut().enumerate().filter(|(_, object)| object.from != at) {
            while left > 0
                && let Some(range) = object.given.pop_front()
            {
                left -= 1;
                object.held.insert(range.clone());
                link.hold(now, transfer(place), range);
            }
        }
    }

    pub(crate) fn stop(&mut self, link: &mut Link, at: usize, which: u8) {
        let Some(place) = usize::from(which).checked_rem(self.all.len()) else { return };
        let object = &mut self.all[place];
        if object.is_stopped[at] || object.from != at && !object.is_accepted {
            return;
        }
        object.is_stopped[at] = true;
        if object.from != at {
            object.given.clear();
        }
        link.stop_object(transfer(place));
    }

    /// What one end has ended, the other ends too.
    pub(crate) fn close(&mut self, links: &mut [Link; 2]) {
        for (place, object) in self.all.iter_mut().enumerate() {
            if object.is_stopped != [false; 2] {
                object.is_stopped = [true; 2];
                object.given.clear();
                links.iter_mut().for_each(|link| link.stop_object(transfer(place)));
            }
        }
    }

    pub(crate) fn assert_all_arrived(&self) {
        for (place, object) in self.all.iter().enumerate().filter(|(_, object)| object.is_open()) {
            assert_eq!(bytes_of(&object.held), object.size, "{:?}", transfer(place));
        }
    }
}
