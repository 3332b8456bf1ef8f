//! Objects beside items: how they fill a path, and what texts beside them meet.

use super::*;

const GPRS: Path = Path { rate: 2_500, jitter_ms: 160, delay_ms: 220, loss_percent: 2, burst: 3, ..CLEAN };
const GPRS_BAD: Path =
    Path { rate: 1_500, jitter_ms: 300, delay_ms: 250, loss_percent: 15, burst: 3, ..CLEAN };

/// What an upload of 200 kB makes of a path: the share of its rate that it filled, and how long a packet would have waited
/// in its queue at the median and the 95th of a hundred moments.
struct Upload {
    filled: f64,
    queue: [Duration; 2],
}

fn upload(path: Path, seed: u64) -> Upload {
    let mut pair = Pair::new(path, seed);
    pair.ends[0].push(frame(0));
    pair.run(Duration::from_secs(60));
    let (began, up_bytes) = (pair.now, pair.up_bytes);
    pair.send_object(200_000, RangeSet::new());
    let mut queues = Vec::new();
    while !pair.ends[0].is_at_rest() {
        pair.run(pair.now.since_start() + Duration::from_millis(100));
        pair.now = pair.now + Duration::from_millis(100);
        queues.push(pair.free_at.since(pair.now));
    }
    assert_eq!(pair.written, pair.object);
    queues.sort();
    let filled = (pair.up_bytes - up_bytes) as f64 / path.rate as f64 / pair.now.since(began).as_secs_f64();
    Upload { filled, queue: [50, 95].map(|percent| queues[queues.len() * percent / 100]) }
}

#[test]
fn an_object_fills_the_path_and_leaves_its_queue_short() {
    for (path, filled_min, queue_max_ms) in
        [(THIN, 0.98, [500, 1_000]), (GPRS, 0.97, [500, 1_100]), (GPRS_BAD, 0.92, [900, 2_600])]
    {
        let mut uploads: Vec<_> = (0..9).map(|seed| upload(path, 7_919 * seed)).collect();
        let mut median = |of: &dyn Fn(&Upload) -> Duration| {
            uploads.sort_by_key(of);
            of(&uploads[4])
        };
        let queue = [0, 1].map(|which| median(&move |upload| upload.queue[which]));
        assert!(queue <= queue_max_ms.map(Duration::from_millis), "{path:?}: {queue:?}");
        uploads.sort_by(|a, b| a.filled.total_cmp(&b.filled));
        assert!(uploads[4].filled > filled_min, "{path:?}: {}", uploads[4].filled);
    }
}

/// `gprs`, without loss.
const THIN: Path = Path { loss_percent: 0, ..GPRS };

#[test]
fn a_text_meets_one_chunk_at_most() {
    let mut pair = Pair::new(THIN, 2);
    pair.send_object(200_000, RangeSet::new());
    pair.run(Duration::from_secs(20));
    for n in 0..10 {
        pair.run(Duration::from_millis(20_000 + n * 3_100));
        let queue = pair.free_at.since(pair.now);
        assert!(queue < Duration::from_millis(1_000), "{queue:?}");
        pair.ends[0].push(frame(n as usize));
        pair.run(pair.now.since_start() + Duration::from_millis(1_600));
        assert_eq!(pair.arrived.len() as u64, n + 1);
    }
}

#[test]
fn an_object_holds_its_own_beside_a_flow_that_fills_the_queue_until_that_has_gone() {
    for (rate, queue) in [(2_500, 8), (10_000, 6), (16_000, 4)] {
        for seed in 0..4 {
            let mut pair = Pair::new(Path { rate, queue_packets: 30, ..GPRS }, 7_919 * seed);
            pair.send_object(4_000_000, RangeSet::new());
            pair.run(Duration::from_secs(60));
            pair.foreign_queue = Some(Duration::from_secs(queue));
            pair.run(Duration::from_secs(120));
            let before = pair.chunk_bytes;
            pair.run(Duration::from_secs(240));
            let share = (pair.chunk_bytes - before) as f64 / 120.0 / rate as f64;
            assert!(share > 0.15, "{rate} bytes a second, seed {seed}: {share}");

            pair.foreign_queue = None;
            pair.run(Duration::from_secs(540));
            for n in 0..10 {
                pair.run(Duration::from_secs(540 + n));
                let queue = pair.free_at.since(pair.now);
                assert!(
                    queue < Duration::from_millis(1_500),
                    "{rate} bytes a second, seed {seed}: {queue:?}"
                );
            }
        }
    }
}

/// An object that ends while the queue is another's.
fn ended_in_a_contest() -> Pair {
    let mut pair = Pair::new(Path { rate: 10_000, queue_packets: 30, ..THIN }, 7_919);
    pair.send_object(600_000, RangeSet::new());
    pair.run(Duration::from_secs(30));
    pair.foreign_queue = Some(Duration::from_secs(6));
    while !pair.ends[0].is_at_rest() {
        pair.run(pair.now.since_start() + Duration::from_secs(5));
    }
    pair
}

/// Nothing happens for so long, and then another object is sent, for so long.
fn another_object(pair: &mut Pair, after: Duration, size: usize, lasting: Duration) {
    pair.now = pair.now + after;
    pair.ends.iter_mut().for_each(|end| end.stop_object(OBJECT));
    pair.send_object(size, RangeSet::new());
    pair.run(pair.now.since_start() + lasting);
}

#[test]
fn a_small_object_long_after_a_contest_stops_neither_texts_nor_other_objects() {
    let minute = Duration::from_secs(60);
    let mut pair = ended_in_a_contest();
    another_object(&mut pair, minute * 2, 500, minute);
    assert_eq!(pair.written, pair.object);
    pair.ends[0].push(frame(0));
    pair.run(pair.now.since_start() + minute);
    assert_eq!(pair.arrived.len(), 1);
    another_object(&mut pair, Duration::ZERO, 5_000, minute * 2);
    assert_eq!(pair.written, pair.object);
}

#[test]
fn a_rest_does_not_widen_the_window_of_a_contest() {
    let [short, long] = [2, 3_600].map(|rest| {
        let mut pair = ended_in_a_contest();
        pair.foreign_queue = None;
        pair.path.queue_packets = u64::MAX;
        another_object(&mut pair, Duration::from_secs(rest), 2_000_000, Duration::from_secs(25));
        pair.free_at.since(pair.now)
    });
    assert!(long < short * 5 / 4, "after two seconds {short:?}, after an hour {long:?}");
}

#[test]
fn the_rate_is_measured_anew_after_a_silence_whatever_ends_it() {
    for unasked in [false, true] {
        let mut pair = Pair::new(Path { rate: 50_000, jitter_ms: 0, queue_packets: 200, ..CLEAN }, 7_919);
        pair.send_object(20_000_000, RangeSet::new());
        pair.run(Duration::from_secs(200));
        pair.is_cut = true;
        pair.run(Duration::from_secs(260));
        pair.now = Time::after_start(Duration::from_secs(260));
        pair.is_cut = false;
        if unasked {
            pair.ends[1].poke(pair.now);
        } else {
            pair.ends[0].ride(1_160);
        }
        pair.run(Duration::from_secs(330));
        let before = pair.chunk_bytes;
        pair.run(Duration::from_secs(400));
        let rate = (pair.chunk_bytes - before) / 70;
        assert!(rate > 40_000, "{rate} bytes a second");
    }
}

#[test]
fn chunks_are_smaller_while_texts_come_and_go() {
    let mut pair = Pair::new(THIN, 2);
    pair.send_object(400_000, RangeSet::new());
    pair.run(Duration::from_secs(20));
    // How long the chunks of so many seconds are.
    let mean_bytes = |pair: &mut Pair, from: u64, upto: u64| {
        pair.run(Duration::from_secs(from));
        let before = (pair.chunk_bytes, pair.chunks);
        pair.run(Duration::from_secs(upto));
        (pair.chunk_bytes - before.0) / (pair.chunks - before.1)
    };
    assert!(mean_bytes(&mut pair, 20, 30) > 1_100);
    for n in 0..3 {
        pair.ends[0].push(frame(n));
        let began = 30 + n as u64 * 25;
        let mean = mean_bytes(&mut pair, began + 2, began + 25);
        assert!((500..700).contains(&mean), "250 ms of 2,500 bytes a second: {mean}");
    }
    assert!(mean_bytes(&mut pair, 115, 125) > 1_100);
}

#[test]
fn where_losses_are_no_exception_a_text_leaves_again_between_chunks() {
    let resent = |path| {
        let mut pair = Pair::new(path, 5);
        pair.send_object(400_000, RangeSet::new());
        pair.run(Duration::from_secs(60));
        for n in 0..10 {
            pair.run(Duration::from_secs(60 + 10 * n));
            pair.ends[0].push(frame(n as usize));
        }
        pair.run(Duration::from_secs(170));
        assert_eq!(pair.arrived.len(), 10);
        pair.ends[0].resent_items()
    };
    assert_eq!(resent(THIN), 0);
    // Up to three times each, while losses are no exception; one or two would be lost and sent again anyhow.
    let resent = resent(GPRS_BAD);
    assert!((8..=50).contains(&resent), "{resent}");
}

#[test]
fn what_is_held_from_before_is_not_sent_again() {
    let mut pair = Pair::new(CLEAN, 3);
    let held = [0..70_000, 80_000..100_000, 199_000..200_000];
    pair.send_object(200_000, held.into_iter().collect());
    pair.run(Duration::from_secs(600));
    assert_eq!(pair.written, pair.object);
    assert_eq!(pair.chunk_bytes, 109_000);
    assert_eq!(pair.ends[1].repeated_chunk_bytes(), 0);
}

#[test]
fn bytes_that_come_twice_are_counted() {
    let mut pair = Pair::new(Path { double_percent: 100, ..CLEAN }, 3);
    pair.send_object(20_000, std::iter::once(0..5_000).collect());
    pair.run(Duration::from_secs(60));
    assert_eq!(pair.written, pair.object);
    assert_eq!(pair.ends[1].repeated_chunk_bytes(), 15_000);
}

#[test]
fn chunks_that_come_before_their_transfer_is_known_are_kept_as_far_as_there_is_room() {
    let config = LinkConfig {
        initial_rtt: Duration::from_millis(700),
        is_rtt_measured: false,
        peer_has: DictionarySet::default(),
        poll_pause_max: Duration::from_secs(45),
    };
    let (mut from, mut to) = (Link::new(config), Link::new(config));
    from.send_object(OBJECT, 60_000, RangeSet::new());
    from.supply(OBJECT, 0, Bytes::from(vec![7; 60_000]));
    let mut now = Time::default();
    while let Some(at) = from.poll_timeout().filter(|at| *at < Time::after_start(Duration::from_secs(2))) {
        now = now.max(at);
        while let Some(datagram) = from.poll_transmit(now, 1_160) {
            to.handle_datagram(now, &datagram).unwrap();
        }
        from.handle_timeout(now);
    }
    assert_eq!(to.poll_event(), None);
    assert_eq!(to.receive_object(OBJECT, 10, RangeSet::new()), Err(LinkError::ChunkBeyondEnd(OBJECT)));
    let mut other = to;
    assert_eq!(other.receive_object(OBJECT, 60_000, RangeSet::new()), Ok(()));
}

#[test]
fn an_object_does_not_wait_for_what_a_fast_path_has_taken_long_ago() {
    let mut pair = Pair::new(CLEAN, 6);
    for n in 0..400 {
        pair.ends[0].push_noise(vec![n as u8; 900]);
    }
    pair.run(Duration::from_secs(60));
    assert_eq!(pair.settled, 400);
    let began = pair.now;
    pair.send_object(2_000, RangeSet::new());
    pair.run(Duration::from_secs(600));
    assert_eq!(pair.written, pair.object);
    assert!(pair.now.since(began) < Duration::from_secs(5), "{:?}", pair.now.since(began));
}

#[test]
fn objects_are_wanted_one_after_the_other() {
    let mut pair = Pair::new(CLEAN, 5);
    let link = &mut pair.ends[0];
    for transfer in [Transfer(1), Transfer(2)] {
        link.send_object(transfer, 40_000, RangeSet::new());
    }
    assert_eq!(link.want(), Some(Want { transfer: Transfer(1), bytes: 0..32_768 }));
    link.supply(Transfer(1), 0, Bytes::from(vec![1; 32_768]));
    assert_eq!(link.want(), None, "enough of the first is here");
    link.stop_object(Transfer(1));
    assert_eq!(link.want(), Some(Want { transfer: Transfer(2), bytes: 0..32_768 }));
}

#[test]
fn what_is_beyond_an_objects_end_is_refused() {
    let mut pair = Pair::new(CLEAN, 4);
    pair.send_object(1_000, RangeSet::new());
    let coded = |batch: Batch<'_>| {
        let (mut content, mut datagram) = (Vec::new(), Vec::new());
        batch.encode(&mut content);
        codec::encode_as(codec::Codec::Raw, &content, &mut datagram);
        datagram
    };
    let chunk = Chunk { transfer: OBJECT, offset: 999, bytes: b"ab" };
    let beyond = coded(Batch { chunk: Some(chunk), ..Batch::default() });
    assert_eq!(pair.ends[1].handle_datagram(pair.now, &beyond), Err(LinkError::ChunkBeyondEnd(OBJECT)));
    let bytes = batch::Ack { watermark: 1_001, received: Vec::new() };
    let beyond = coded(Batch { held: vec![batch::Held { transfer: OBJECT, bytes }], ..Batch::default() });
    assert_eq!(pair.ends[0].handle_datagram(pair.now, &beyond), Err(LinkError::HeldBeyondEnd(OBJECT)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn an_object_arrives_whole_on_any_path_with_texts_between(
        seed: u64,
        loss_percent in 0u64..35,
        double_percent in 0u64..20,
        jitter_ms in 0u64..200,
        rate in prop::sample::select(vec![1_000u64, 2_500, 16_000, u64::MAX]),
        size in 1usize..30_000,
        texts in 0usize..5,
    ) {
        let path = Path { loss_percent, double_percent, jitter_ms, rate, ..CLEAN };
        let mut pair = Pair::new(path, seed);
        pair.send_object(size, RangeSet::new());
        for n in 0..texts {
            pair.run(pair.now.since_start() + Duration::from_secs(2));
            pair.ends[0].push(frame(n));
        }
        pair.run(Duration::from_secs(24 * 3_600));
        prop_assert_eq!(&pair.written, &pair.object);
        prop_assert_eq!(pair.settled, texts as u64);
        prop_assert!(pair.ends.iter().all(Link::is_at_rest));
    }
}

#[test]
fn what_is_held_of_many_objects_with_many_gaps_fits_a_datagram() {
    let mut pair = Pair::new(CLEAN, 1);
    for number in 1..=TRANSFERS_MAX as u32 {
        let mut dice = Dice(number.into());
        let mut part = |n: u64| {
            let start = 70_000 + n * 60_000 + dice.roll() % 10_000;
            start..start + 20_000 + dice.roll() % 10_000
        };
        let held: RangeSet<u64> = (0..40).map(&mut part).collect();
        pair.ends[0].send_object(Transfer(number), 4_000_000, RangeSet::new());
        pair.ends[1].receive_object(Transfer(number), 4_000_000, held).unwrap();
    }
    pair.ends[0].push(frame(0));
    let opening = pair.ends[0].poll_transmit(pair.now, 1_131).unwrap();
    pair.ends[1].handle_datagram(pair.now, &opening).unwrap();
    let due = pair.ends[1].poll_timeout().unwrap();
    let answer = pair.ends[1].poll_transmit(due, 1_131).unwrap();
    assert!(answer.len() <= 1_131, "{} bytes", answer.len());
    pair.ends[0].handle_datagram(due, &answer).unwrap();
    let told = pair.ends[0].poll_event();
    let first_32 = |bytes| (20_000 * 32..30_000 * 32).contains(&bytes);
    let is_of_first = |told| matches!(told, Some(Event::Progress { transfer: Transfer(1), held_bytes }) if first_32(held_bytes));
    assert!(is_of_first(told), "the first object's ranges come first");
}
