use std::cmp::Reverse;
use std::collections::BinaryHeap;

use proptest::prelude::*;

use super::*;
use crate::batch::Chunk;

mod objects;
mod told;

/// xorshift64*: enough to lose, double and delay datagrams by seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33
    }

    fn hits(&mut self, percent: u64) -> bool {
        self.roll() % 100 < percent
    }
}

#[derive(Clone, Copy, Debug)]
struct Path {
    loss_percent: u64,
    double_percent: u64,
    delay_ms: u64,
    jitter_ms: u64,
    /// How long the receiver takes to settle a frame.
    settle_ms: u64,
    /// How many bytes a second it takes from end 0, with 53 for the headers of each datagram.
    rate: u64,
    /// How many datagrams are lost in a row, on average.
    burst: u64,
    /// How many full datagrams wait for their turn from end 0, one more is dropped.
    queue_packets: u64,
}

const CLEAN: Path = Path {
    loss_percent: 0,
    double_percent: 0,
    delay_ms: 300,
    jitter_ms: 0,
    settle_ms: 3,
    rate: u64::MAX,
    burst: 1,
    queue_packets: u64::MAX,
};

/// A datagram under way: when it arrives, what orders it among others of that moment, where, and what.
type UnderWay = Reverse<(Time, u64, usize, Vec<u8>)>;

/// Two links and what is between them. End 0 sends frames, end 1 settles them after a while.
struct Pair {
    ends: [Link; 2],
    now: Time,
    path: Path,
    dice: Dice,
    wire: BinaryHeap<UnderWay>,
    sent: u64,
    settles: std::collections::VecDeque<(Time, u64)>,
    arrived: Vec<Bytes>,
    settled: u64,
    is_cut: bool,
    /// When the path has taken all that has left end 0, and how much that was.
    free_at: Time,
    up_bytes: u64,
    /// Somebody else fills the path's queue whenever it is shorter. It takes two fifths more.
    foreign_queue: Option<Duration>,
    /// Whether a burst of losses is under way, and when the last datagram arrives: none overtakes it on a path that has a
    /// rate. For each direction.
    is_bursting: [bool; 2],
    last_arrival: [Time; 2],
    /// The object that end 0 sends, what end 1 has written of it, and how many bytes of chunks have come.
    object: Bytes,
    written: Vec<u8>,
    holds: std::collections::VecDeque<(Time, Range<u64>)>,
    chunk_bytes: u64,
    chunks: u64,
}

const OBJECT: Transfer = Transfer(1);

impl Pair {
    fn new(path: Path, seed: u64) -> Self {
        let config = LinkConfig {
            initial_rtt: Duration::from_millis(700),
            is_rtt_measured: false,
            peer_has: DictionarySet::compiled_in(),
            poll_pause_max: Duration::from_secs(45),
        };
        Self {
            ends: [Link::new(config), Link::new(config)],
            now: Time::default(),
            path,
            dice: Dice(seed | 1),
            wire: BinaryHeap::new(),
            sent: 0,
            settles: Default::default(),
            arrived: Vec::new(),
            settled: 0,
            is_cut: false,
            free_at: Time::default(),
            up_bytes: 0,
            foreign_queue: None,
            is_bursting: [false; 2],
            last_arrival: [Time::default(); 2],
            object: Bytes::new(),
            written: Vec::new(),
            holds: Default::default(),
            chunk_bytes: 0,
            chunks: 0,
        }
    }

    /// End 0 sends an object of which end 1 holds some.
    fn send_object(&mut self, size: usize, held: RangeSet<u64>) {
        self.object = (0..size).map(|at| (at * 31 % 251) as u8).collect();
        self.written = vec![0; size];
        for range in held.iter().map(|range| range.start as usize..range.end as usize) {
            self.written[range.clone()].copy_from_slice(&self.object[range]);
        }
        self.ends[0].send_object(OBJECT, size as u64, held.clone());
        self.ends[1].receive_object(OBJECT, size as u64, held).unwrap();
    }

    fn flush(&mut self) {
        for from in 0..2 {
            while let Some(event) = self.ends[from].poll_event() {
                match event {
                    Event::Frame { number, bytes } => {
                        assert_eq!(from, 1);
                        self.arrived.push(bytes);
                        let at = self.now + Duration::from_millis(self.path.settle_ms);
                        self.settles.push_back((at, number));
                    }
                    Event::Settled { upto } => {
                        assert_eq!(from, 0);
                        assert!(upto > self.settled, "the watermark only rises");
                        self.settled = upto;
                    }
                    Event::Chunk { transfer, offset, bytes } => {
                        assert_eq!((from, transfer), (1, OBJECT));
                        self.chunk_bytes += bytes.len() as u64;
                        self.chunks += 1;
                        self.written[offset as usize..][..bytes.len()].copy_from_slice(&bytes);
                        let at = self.now + Duration::from_millis(self.path.settle_ms);
                        self.holds.push_back((at, offset..offset + bytes.len() as u64));
                    }
                    Event::Progress { transfer, held_bytes } => {
                        assert_eq!((from, transfer), (0, OBJECT));
                        assert!(held_bytes <= self.object.len() as u64);
                    }
                }
            }
            while let Some(Want { transfer, bytes }) = self.ends[from].want() {
                let supply = self.object.slice(bytes.start as usize..bytes.end as usize);
                self.ends[from].supply(transfer, bytes.start, supply);
            }
            while let Some(datagram) = self.ends[from].poll_transmit(self.now, 1_160) {
                assert!(datagram.len() <= 1_160);
                self.sent += 1;
                if from == 0 {
                    self.up_bytes += datagram.len() as u64 + 53;
                    let full = self.foreign_queue.map(|queue| self.now + queue);
                    let free_at = self.free_at.max(full.unwrap_or(self.now));
                    let queue_max = match self.foreign_queue {
                        Some(queue) => queue * 7 / 5,
                        None => Duration::from_millis(
                            self.path.queue_packets.saturating_mul(1_228_000) / self.path.rate,
                        ),
                    };
                    if free_at.since(self.now) > queue_max {
                        continue;
                    }
                    let micros = (datagram.len() as u64 + 53) * 1_000_000 / self.path.rate;
                    self.free_at = free_at + Duration::from_micros(micros);
                }
                if self.is_cut || self.is_lost(from) {
                    continue;
                }
                for _ in 0..1 + u32::from(self.dice.hits(self.path.double_percent)) {
                    let jitter = self.dice.roll() % (self.path.jitter_ms + 1);
                    let left = if from == 0 { self.free_at } else { self.now };
                    let mut at = left + Duration::from_millis(self.path.delay_ms + jitter);
                    if self.path.rate < u64::MAX {
                        at = at.max(self.last_arrival[from]);
                        self.last_arrival[from] = at;
                    }
                    self.wire.push(Reverse((at, self.dice.roll(), 1 - from, datagram.clone())));
                }
            }
        }
    }

    /// Losses come in bursts whose lengths are drawn without memory.
    fn is_lost(&mut self, from: usize) -> bool {
        let Path { loss_percent, burst, .. } = self.path;
        let dice = self.dice.roll() % 1_000_000;
        self.is_bursting[from] = if self.is_bursting[from] {
            dice >= 1_000_000 / burst
        } else {
            dice < 1_000_000 * loss_percent / (burst * (100 - loss_percent))
        };
        self.is_bursting[from]
    }

    /// Runs until both ends are at rest, or the time is up.
    fn run(&mut self, until: Duration) {
        let end = Time::after_start(until);
        loop {
            self.flush();
            let next = [
                self.ends[0].poll_timeout(),
                self.ends[1].poll_timeout(),
                self.wire.peek().map(|Reverse((at, ..))| *at),
                self.settles.front().map(|&(at, _)| at),
                self.holds.front().map(|(at, _)| *at),
            ]
            .into_iter()
            .flatten()
            .min();
            let Some(next) = next.filter(|&next| next <= end) else { return };
            self.now = self.now.max(next);
            while self.wire.peek().is_some_and(|Reverse((at, ..))| *at <= self.now) {
                let Reverse((_, _, to, datagram)) = self.wire.pop().unwrap();
                self.ends[to].handle_datagram(self.now, &datagram).unwrap();
            }
            while let Some((_, number)) = self.settles.pop_front_if(|&mut (at, _)| at <= self.now) {
                self.ends[1].settle(self.now, number);
            }
            while let Some((_, range)) = self.holds.pop_front_if(|(at, _)| *at <= self.now) {
                self.ends[1].hold(self.now, OBJECT, range);
            }
            for end in &mut self.ends {
                end.handle_timeout(self.now);
            }
        }
    }
}

fn frame(n: usize) -> Bytes {
    Bytes::from(format!("frame {n}: {}", "text ".repeat(n % 13)))
}

#[test]
fn a_lone_frame_costs_one_datagram_each_way_and_one_round_trip() {
    let mut pair = Pair::new(CLEAN, 1);
    assert_eq!(pair.ends[0].push(frame(0)), 1);
    pair.run(Duration::from_secs(60));
    assert_eq!(pair.settled, 1);
    assert_eq!(pair.sent, 2);
    assert_eq!(pair.now.since_start(), Duration::from_millis(603));
    assert!(pair.ends.iter().all(Link::is_at_rest));
}

#[test]
fn a_frame_larger_than_a_datagram_arrives_whole() {
    let mut pair = Pair::new(CLEAN, 1);
    let large: Bytes = (0..50_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let number = pair.ends[0].push(large.clone());
    assert_eq!(number, 50);
    pair.run(Duration::from_secs(600));
    assert_eq!(pair.arrived, [large]);
    assert_eq!(pair.settled, 50);
}

#[test]
fn nothing_is_acknowledged_as_settled_before_it_is() {
    let mut pair = Pair::new(Path { settle_ms: 5_000, ..CLEAN }, 1);
    pair.ends[0].push(frame(1));
    pair.run(Duration::from_millis(5_200));
    assert_eq!((pair.arrived.len(), pair.settled), (1, 0));
    pair.run(Duration::from_secs(60));
    assert_eq!(pair.settled, 1);
}

#[test]
fn what_arrived_but_stays_unsettled_is_asked_after() {
    let mut pair = Pair::new(Path { settle_ms: 1_000_000, ..CLEAN }, 1);
    pair.ends[0].push(frame(1));
    pair.run(Duration::from_secs(2));
    pair.is_cut = true;
    let sent = pair.sent;
    pair.run(Duration::from_secs(60));
    assert!(pair.ends[0].silent_for(pair.now).unwrap() > Duration::from_secs(50));
    assert!((10..60).contains(&(pair.sent - sent)), "{} polls", pair.sent - sent);
}

#[test]
fn an_acknowledgement_that_was_lost_rides_with_what_is_sent_again() {
    let mut pair = Pair::new(CLEAN, 9);
    let at = |ms| Time::after_start(Duration::from_millis(ms));
    let [one, other] = &mut pair.ends;
    one.push(frame(1));
    let datagram = one.poll_transmit(at(0), 1_160).unwrap();
    other.handle_datagram(at(300), &datagram).unwrap();
    assert!(matches!(other.poll_event(), Some(Event::Frame { number: 1, .. })));
    other.settle(at(300), 1);
    other.push(frame(2));
    assert!(other.poll_transmit(at(300), 1_160).is_some(), "the frame, and custody of the other with it");
    assert_eq!(other.poll_transmit(at(300), 1_160), None);
    let resend_at = other.poll_timeout().unwrap();
    other.handle_timeout(resend_at);
    let again = other.poll_transmit(resend_at, 1_160).unwrap();
    one.handle_datagram(resend_at, &again).unwrap();
    assert_eq!(one.poll_event(), Some(Event::Settled { upto: 1 }));
}

#[test]
fn after_an_outage_everything_arrives_soon() {
    let mut pair = Pair::new(CLEAN, 1);
    let numbers: Vec<_> = (0..40).map(|n| pair.ends[0].push(frame(n))).collect();
    pair.is_cut = true;
    pair.run(Duration::from_secs(20));
    assert_eq!(pair.settled, 0);
    pair.is_cut = false;
    pair.run(Duration::from_secs(60));
    assert_eq!(pair.settled, numbers[39]);
    assert!(pair.now.since_start() < Duration::from_secs(30), "{:?}", pair.now);
}

#[test]
fn an_unreadable_dictionary_is_reported_and_avoided() {
    let mut pair = Pair::new(CLEAN, 1);
    // A build of later says that it has one that it has not.
    pair.ends[0].set_peer_dictionaries(DictionarySet::from_bits(u32::MAX));
    let unknown = [0x1f + 16];
    pair.ends[1].handle_datagram(pair.now, &[&unknown[..], b"whatever"].concat()).unwrap();
    let report = pair.ends[1].poll_transmit(pair.now, 1_160).unwrap();
    pair.ends[0].push(frame(1));
    assert!(pair.ends[0].poll_transmit(pair.now, 1_160).is_some());
    pair.ends[0].handle_datagram(pair.now, &report).unwrap();
    assert!(pair.ends[0].poll_transmit(pair.now, 1_160).is_some(), "it is sent again at once");
    assert!(!pair.ends[0].peer_has.contains(0x1f));
}

#[test]
fn a_peer_that_breaks_the_rules_is_told_from_one_that_does_not() {
    let datagram = |batch: Batch<'_>| {
        let mut content = vec![0];
        batch.encode(&mut content);
        content
    };
    let ack = |watermark| {
        datagram(Batch { ack: Some(batch::Ack { watermark, received: vec![] }), ..Batch::default() })
    };
    let items = |number, more, bytes| {
        datagram(Batch { items: vec![batch::Item { number, more, bytes }], ..Batch::default() })
    };
    let mut link = Pair::new(CLEAN, 1).ends.into_iter().next().unwrap();
    link.push(frame(1));
    assert_eq!(link.handle_datagram(Time::default(), &ack(1)), Err(LinkError::AckOfUnsent(1)));
    let beyond = link.handle_datagram(Time::default(), &items(WINDOW_ITEMS + 1, false, b"x"));
    assert_eq!(beyond, Err(LinkError::BeyondWindow(WINDOW_ITEMS + 1)));
    link.handle_datagram(Time::default(), &items(3, false, b"x")).unwrap();
    assert_eq!(link.handle_datagram(Time::default(), &items(3, false, b"y")), Err(LinkError::ItemChanged(3)));
    assert!(matches!(link.handle_datagram(Time::default(), &[0, 0]), Err(LinkError::Batch(_))));
    assert!(matches!(link.handle_datagram(Time::default(), &[]), Err(LinkError::Codec(_))));
    for number in 1..=100 {
        let long = link.handle_datagram(Time::default(), &items(number + 3, true, &[0; 1_000]));
        let first = link.handle_datagram(Time::default(), &items(number, true, &[0; 1_000]));
        if long.and(first) == Err(LinkError::FrameTooLong) {
            return;
        }
        if number == 3 {
            // The held "x" ended the frame.
            while link.poll_event().is_some() {}
        }
    }
    panic!("a frame without end was taken");
}

#[test]
fn room_is_asked_for_what_is_new_only() {
    let items = |numbers: Range<u64>| {
        let items = numbers.map(|number| batch::Item { number, more: false, bytes: b"x" }).collect();
        let mut content = vec![0];
        Batch { items, ..Batch::default() }.encode(&mut content);
        content
    };
    let chunk = |offset| {
        let chunk = Some(Chunk { transfer: OBJECT, offset, bytes: &[7; 100] });
        let mut content = vec![0];
        Batch { chunk, ..Batch::default() }.encode(&mut content);
        content
    };
    let mut link = Pair::new(CLEAN, 1).ends.into_iter().next().unwrap();
    link.receive_object(OBJECT, 1_000, std::iter::once(500..1_000).collect()).unwrap();
    let mut asked = |datagram: Vec<u8>| {
        let (before, mut asked) = (link.holds_bytes(), 0);
        let answer = |bytes: usize| {
            asked = bytes - before;
            usize::MAX
        };
        link.handle_datagram_within(Time::default(), &datagram, answer).unwrap();
        asked
    };
    assert_eq!(asked(items(1..301)), 300 * (1 + BESIDE_BYTES));
    assert_eq!(asked(items(1..302)), 1 + BESIDE_BYTES);
    assert_eq!(asked(items(1..302)), 0);
    let beside_chunks = BESIDE_BYTES + NEXT_BYTES;
    assert_eq!(asked(chunk(0)), 100 + beside_chunks);
    assert_eq!(asked(chunk(0)), 0, "the shell has it");
    assert_eq!(asked(chunk(600)), 0, "it is held");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn over_any_path_all_frames_arrive_in_order_once_and_are_settled(
        seed: u64,
        loss_percent in 0u64..45,
        double_percent in 0u64..20,
        delay_ms in 1u64..1_500,
        jitter_ms in 0u64..400,
        settle_ms in 0u64..100,
        count in 1usize..400,
    ) {
        let path = Path { loss_percent, double_percent, delay_ms, jitter_ms, settle_ms, ..CLEAN };
        let mut pair = Pair::new(path, seed);
        let mut pushed = Vec::new();
        let mut last = 0;
        for n in 0..count {
            if n % 50 == 49 {
                pair.run(Duration::from_secs(n as u64));
            }
            pushed.push(frame(n));
            last = pair.ends[0].push(frame(n));
        }
        pair.run(Duration::from_secs(7_200));
        prop_assert_eq!(&pair.arrived, &pushed);
        prop_assert_eq!(pair.settled, last);
        prop_assert!(pair.ends.iter().all(Link::is_at_rest));
    }

    #[test]
    fn no_datagram_makes_a_link_panic(datagrams in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..20)) {
        let mut pair = Pair::new(CLEAN, 1);
        pair.ends[0].push(frame(3));
        pair.ends[0].poll_transmit(Time::default(), 1_160);
        for mut datagram in datagrams {
            if let Some(tag) = datagram.first_mut() {
                *tag = 0;
            }
            if pair.ends[0].handle_datagram(Time::default(), &datagram).is_err() {
                break;
            }
        }
    }
}

#[test]
fn gathered_acknowledgements_leave_together_or_with_whatever_leaves_or_when_something_is_missing() {
    let gathering = |path| {
        let mut pair = Pair::new(path, 11);
        pair.ends[0].push(frame(0));
        pair.run(Duration::from_secs(60));
        for end in &mut pair.ends {
            end.gather_acks(pair.now, Duration::from_secs(10));
        }
        pair
    };
    let mut pair = gathering(CLEAN);
    let sent = pair.sent;
    for n in 0..6 {
        pair.ends[0].push(frame(n));
        pair.run(pair.now.since_start() + Duration::from_secs(1));
        pair.now = pair.now + Duration::from_secs(1);
    }
    pair.run(Duration::from_secs(120));
    assert_eq!((pair.settled, pair.sent - sent), (7, 7), "one datagram each, and one answer");
    assert!(pair.ends.iter().all(Link::is_at_rest));

    let mut pair = gathering(CLEAN);
    pair.is_cut = true;
    pair.ends[0].push(frame(1));
    pair.run(pair.now.since_start() + Duration::from_millis(10));
    pair.is_cut = false;
    pair.ends[0].push(frame(2));
    let began = pair.now;
    pair.run(pair.now.since_start() + Duration::from_secs(5));
    assert_eq!(pair.arrived.len(), 3, "the gap was told at once");
    assert!(pair.settled < 3, "and the rest is gathered");
    assert!(pair.now.since(began) < Duration::from_secs(5));

    let mut pair = gathering(CLEAN);
    pair.ends[0].push(frame(1));
    pair.run(pair.now.since_start() + Duration::from_secs(2));
    let now = pair.now;
    pair.ends[1].gather_acks(now, Duration::ZERO);
    pair.run(pair.now.since_start() + Duration::from_secs(2));
    assert_eq!(pair.settled, 2, "what was gathered leaves when that ends");
}
