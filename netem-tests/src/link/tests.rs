use proptest::prelude::*;

use super::*;
use crate::loss::Burst;

fn params(rate_bit_s: u64, delay_ms: u64, jitter_ms: u64, loss: Loss, queue_packets: usize) -> LinkParams {
    LinkParams {
        rate_bit_s: NonZeroU64::new(rate_bit_s).unwrap(),
        delay: Duration::from_millis(delay_ms),
        jitter: Duration::from_millis(jitter_ms),
        loss,
        queue_packets: NonZeroUsize::new(queue_packets).unwrap(),
        ..LinkParams::DIRECT
    }
}

fn any_loss() -> impl Strategy<Value = Loss> {
    let burst = prop_oneof![
        Just(Burst::None),
        (1.0..8.0).prop_map(Burst::Packets),
        (1u64..2_000).prop_map(|ms| Burst::Time(Duration::from_millis(ms))),
    ];
    (0.0..0.5, burst).prop_map(|(fraction, burst)| Loss::new(fraction, burst).unwrap())
}

fn any_params() -> impl Strategy<Value = LinkParams> {
    (1_000u64..2_000_000, 0u64..700, 0u64..200, any_loss(), 1usize..60)
        .prop_map(|(rate, delay, jitter, loss, queue)| params(rate, delay, jitter.min(delay), loss, queue))
}

/// Packets as (pause before in ms, IP bytes).
fn any_traffic() -> impl Strategy<Value = Vec<(u64, usize)>> {
    prop::collection::vec((prop_oneof![3 => Just(0u64), 1 => 0u64..3_000], 29usize..1_500), 1..120)
}

fn run(link: &mut Link, traffic: &[(u64, usize)]) -> Vec<Verdict> {
    let mut now = Duration::ZERO;
    traffic
        .iter()
        .map(|&(pause_ms, ip_bytes)| {
            now += Duration::from_millis(pause_ms);
            link.offer(now, ip_bytes)
        })
        .collect()
}

proptest! {
    #[test]
    fn packets_arrive_in_the_order_in_which_they_were_sent(
        params in any_params(), traffic in any_traffic(), seed: u64,
    ) {
        let mut last = Duration::ZERO;
        for verdict in run(&mut Link::new(params, seed), &traffic) {
            if let Verdict::Deliver { at } = verdict {
                prop_assert!(at >= last);
                last = at;
            }
        }
    }

    /// Between any two arrivals no more comes out than the rate allows; jitter may squeeze a window by its own width.
    #[test]
    fn throughput_never_exceeds_the_rate(params in any_params(), traffic in any_traffic(), seed: u64) {
        let verdicts = run(&mut Link::new(params.clone(), seed), &traffic);
        let arrivals: Vec<(Duration, usize)> = verdicts
            .iter()
            .zip(&traffic)
            .filter_map(|(verdict, &(_, bytes))| match verdict {
                Verdict::Deliver { at } => Some((*at, bytes)),
                _ => None,
            })
            .collect();
        for (index, &(first, _)) in arrivals.iter().enumerate() {
            let mut on_air = Duration::ZERO;
            for &(at, bytes) in &arrivals[index + 1..] {
                on_air += Duration::from_nanos(nanos_for(bit_nanos(bytes), params.rate_bit_s));
                prop_assert!(at - first + params.jitter * 2 >= on_air);
            }
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_verdicts(params in any_params(), traffic in any_traffic(), seed: u64) {
        let first = run(&mut Link::new(params.clone(), seed), &traffic);
        let second = run(&mut Link::new(params, seed), &traffic);
        prop_assert_eq!(first, second);
    }

    #[test]
    fn every_packet_is_booked_exactly_once(params in any_params(), traffic in any_traffic(), seed: u64) {
        let mut link = Link::new(params, seed);
        let verdicts = run(&mut link, &traffic);
        let half_way: Duration = traffic.iter().map(|&(ms, _)| Duration::from_millis(ms)).sum();
        let counters = link.counters(half_way);
        prop_assert_eq!(counters.offered.packets, traffic.len() as u64);
        let bytes: u64 = traffic.iter().map(|&(_, bytes)| bytes as u64).sum();
        prop_assert_eq!(counters.offered.ip_bytes, bytes);
        let arrived = |until: Duration| {
            verdicts.iter().filter(|v| matches!(v, Verdict::Deliver { at } if *at <= until)).count() as u64
        };
        prop_assert_eq!(counters.delivered.packets, arrived(half_way));
        let due_later = verdicts.iter().filter(|v| matches!(v, Verdict::Deliver { .. })).count() as u64;
        prop_assert_eq!(counters.under_way().packets, due_later - arrived(half_way));

        let settled = link.counters(Duration::MAX);
        prop_assert_eq!(settled.under_way(), Tally::default());
        for (cause, tally) in [
            (LossCause::Loss, settled.lost_loss),
            (LossCause::Queue, settled.lost_queue),
            (LossCause::Outage, settled.lost_outage),
        ] {
            let lost = verdicts.iter().filter(|&&v| v == Verdict::Lost { cause }).count() as u64;
            prop_assert_eq!(tally.packets, lost);
        }
    }

    #[test]
    fn delay_stays_within_its_jitter_while_the_link_is_idle(seed: u64, jitter_ms in 0u64..300) {
        let params = params(20_000, 300, jitter_ms, Loss::NONE, 30);
        let mut link = Link::new(params, seed);
        for index in 0..50u32 {
            let now = Duration::from_secs(10) * index; // far apart: no packet waits for another
            let Verdict::Deliver { at } = link.offer(now, 125) else { panic!("lost on a lossless link") };
            let travelled = at - now - Duration::from_millis(50); // 1,000 bit at 20 kbit/s
            prop_assert!(travelled >= Duration::from_millis(300 - jitter_ms));
            prop_assert!(travelled <= Duration::from_millis(300 + jitter_ms));
        }
    }
}

#[test]
fn a_packet_takes_its_serialisation_and_then_the_delay() {
    let mut link = Link::new(params(8_000, 100, 0, Loss::NONE, 30), 0);
    // 1,000 bytes at 8 kbit/s are a second; the second packet waits for the first.
    assert_eq!(link.offer(Duration::ZERO, 1_000), Verdict::Deliver { at: Duration::from_millis(1_100) });
    assert_eq!(link.offer(Duration::ZERO, 500), Verdict::Deliver { at: Duration::from_millis(1_600) });
    assert_eq!(
        link.offer(Duration::from_secs(9), 500),
        Verdict::Deliver { at: Duration::from_millis(9_600) }
    );
}

#[test]
fn a_full_queue_drops_the_newest_and_takes_again_when_one_has_left() {
    let mut link = Link::new(params(8_000, 0, 0, Loss::NONE, 2), 0);
    let dropped = Verdict::Lost { cause: LossCause::Queue };
    assert_ne!(link.offer(Duration::ZERO, 1_000), dropped);
    assert_ne!(link.offer(Duration::ZERO, 1_000), dropped);
    assert_eq!(link.offer(Duration::from_millis(999), 1_000), dropped);
    let third = link.offer(Duration::from_millis(1_000), 1_000);
    assert_eq!(third, Verdict::Deliver { at: Duration::from_secs(3) });
    assert_eq!(link.counters(Duration::from_secs(1)).lost_queue, Tally { packets: 1, ip_bytes: 1_000 });
}

#[test]
fn packets_lost_on_the_air_still_take_their_time_at_the_rate() {
    let all_lost = Loss::new(1.0, Burst::None).unwrap();
    let mut link = Link::new(params(8_000, 0, 0, all_lost, 2), 0);
    let on_air = Verdict::Lost { cause: LossCause::Loss };
    assert_eq!(link.offer(Duration::ZERO, 1_000), on_air);
    assert_eq!(link.offer(Duration::ZERO, 1_000), on_air);
    assert_eq!(link.offer(Duration::ZERO, 1_000), Verdict::Lost { cause: LossCause::Queue });
}

#[test]
fn an_outage_takes_what_is_under_way_and_what_is_offered_meanwhile() {
    let second = Duration::from_secs(1);
    let mut link = Link::new(params(8_000, 1_000, 0, Loss::NONE, 30), 0);
    assert_eq!(link.offer(Duration::ZERO, 1_000), Verdict::Deliver { at: second * 2 });
    assert_eq!(link.offer(Duration::ZERO, 1_000), Verdict::Deliver { at: second * 3 });
    let cuts = link.cuts();
    link.set_outage(second * 2, true); // the first has just arrived, the second is on the air
    assert_eq!(link.cuts(), cuts + 1);
    assert_eq!(link.offer(second * 4, 1_000), Verdict::Lost { cause: LossCause::Outage });
    link.set_outage(second * 5, true); // says nothing new
    assert_eq!(link.cuts(), cuts + 1);
    link.set_outage(second * 6, false);
    // Nothing of what waited before is left in the transmitter.
    assert_eq!(link.offer(second * 6, 1_000), Verdict::Deliver { at: second * 8 });

    let counters = link.counters(second * 10);
    assert_eq!(counters.delivered.packets, 2);
    assert_eq!(counters.lost_outage.packets, 2);
    assert_eq!(counters.under_way().packets, 0);
}

#[test]
fn a_clock_that_runs_backwards_is_taken_as_standing_still() {
    let mut link = Link::new(params(8_000, 0, 0, Loss::NONE, 30), 0);
    let minute = Duration::from_secs(60);
    assert_eq!(link.offer(minute, 1_000), Verdict::Deliver { at: minute + Duration::from_secs(1) });
    assert_eq!(link.offer(Duration::ZERO, 1_000), Verdict::Deliver { at: minute + Duration::from_secs(2) });
}

#[test]
fn long_run_loss_over_the_whole_link_is_what_its_profile_says() {
    let loss = Loss::new(0.15, Burst::Packets(3.0)).unwrap();
    for seed in 0..4 {
        let mut link = Link::new(params(12_000, 400, 150, loss, 30), seed);
        for index in 0..50_000u32 {
            link.offer(Duration::from_secs(1) * index, 100);
        }
        let counters = link.counters(Duration::MAX);
        let share = counters.lost_loss.packets as f64 / counters.offered.packets as f64;
        assert!((share / 0.15 - 1.0).abs() < 0.1, "{share} with seed {seed}");
        assert_eq!(counters.lost_queue.packets, 0);
    }
}

/// Takes a second for 125 bytes, and 0.1 s more.
fn slow() -> LinkParams {
    params(1_000, 100, 0, Loss::NONE, 30)
}

fn at(ms: u64) -> Verdict {
    Verdict::Deliver { at: Duration::from_millis(ms) }
}

fn rate(bit_s: u64) -> NonZeroU64 {
    NonZeroU64::new(bit_s).unwrap()
}

#[test]
fn a_rate_step_counts_for_what_is_still_to_go_out() {
    let steps = vec![
        RateStep { at: Duration::from_millis(500), rate_bit_s: rate(2_000) },
        RateStep { at: Duration::from_secs(10), rate_bit_s: rate(500) },
    ];
    let mut link = Link::new(LinkParams { steps, ..slow() }, 1);
    assert_eq!(link.offer(Duration::ZERO, 125), at(500 + 250 + 100));
    assert_eq!(link.offer(Duration::from_secs(20), 125), at(20_000 + 2_000 + 100));
}

#[test]
fn a_radio_that_sleeps_makes_the_first_packet_wait() {
    let sleep = Sleep { after: Duration::from_secs(5), wakes_in: Duration::from_millis(700) };
    let mut link = Link::new(LinkParams { sleep: Some(sleep), ..slow() }, 1);
    assert_eq!(link.offer(Duration::ZERO, 125), at(1_100));
    assert_eq!(link.offer(Duration::from_millis(5_900), 125), at(7_000));
    assert_eq!(link.offer(Duration::from_millis(11_900), 125), at(11_900 + 700 + 1_100));
    assert_eq!(link.offer(Duration::from_millis(11_950), 125), at(11_900 + 700 + 2_100));
}

#[test]
fn in_a_gap_the_queue_waits_and_nothing_is_lost() {
    let gaps = Gaps { every: Duration::from_secs(20), lasting: Duration::from_secs(3) };
    let mut link = Link::new(LinkParams { gaps: Some(gaps), ..slow() }, 4);
    let mut delays: Vec<u64> = Vec::new();
    for n in 0..300 {
        let now = Duration::from_millis(1_500 * n);
        let Verdict::Deliver { at } = link.offer(now, 125) else { panic!("lost on a lossless link") };
        delays.push((at - now).as_millis() as u64);
    }
    let longest = *delays.iter().max().unwrap();
    assert!((3_000..=4_100).contains(&longest), "a gap, at most: {longest}");
    // 450 s hold some 20 gaps of 3 s, each of which delays two packets and those that wait behind them.
    let late = delays.iter().filter(|&&delay| delay > 1_100).count();
    assert!((40..160).contains(&late), "{late}");
    assert_eq!(link.counters(Duration::from_secs(1_000)).delivered.packets, 300);
}

#[test]
fn what_is_too_large_vanishes_and_takes_no_time() {
    let mut link = Link::new(LinkParams { mtu_bytes: Some(1_000), ..slow() }, 1);
    assert_eq!(link.offer(Duration::ZERO, 1_001), Verdict::Lost { cause: LossCause::Size });
    assert_eq!(link.offer(Duration::ZERO, 1_000), at(8_100));
    assert_eq!(link.counters(Duration::from_secs(9)).lost().ip_bytes, 1_001);
}

#[test]
fn packets_overtake_only_where_they_may() {
    let overtakes = |reorders| {
        let path = LinkParams { reorders, ..params(1_000_000, 200, 150, Loss::NONE, 1_000) };
        let mut link = Link::new(path, 1);
        let arrivals: Vec<Duration> = (0..500)
            .flat_map(|n| link.offer(Duration::from_millis(20 * n), 125).arrivals().collect::<Vec<_>>())
            .collect();
        let overtaken = arrivals.windows(2).filter(|pair| pair[1] < pair[0]).count();
        let counters = link.counters(Duration::from_secs(60));
        assert_eq!((counters.delivered.packets, counters.under_way()), (500, Tally::default()));
        overtaken
    };
    assert_eq!(overtakes(false), 0);
    assert!(overtakes(true) > 100);
}

proptest! {
    /// Whatever befalls packets, none is unaccounted for, and the shares are what was asked for.
    #[test]
    fn mishaps_are_counted(seed: u64, doubled in 0.0..0.5, damaged in 0.0..0.5) {
        let path = LinkParams { doubled, damaged, reorders: true, ..params(1_000_000, 50, 40, Loss::NONE, 4_000) };
        let mut link = Link::new(path, seed);
        let verdicts = run(&mut link, &vec![(3, 200); 4_000]);
        let share = |is: fn(&Verdict) -> bool| {
            verdicts.iter().filter(|verdict| is(verdict)).count() as f64 / verdicts.len() as f64
        };
        prop_assert!((share(Verdict::is_damaged) - damaged).abs() < 0.04);
        let expected = doubled * (1.0 - damaged);
        let twice = share(|verdict| verdict.arrivals().count() == 2);
        prop_assert!((twice - expected).abs() < 0.04);
        let counters = link.counters(Duration::from_secs(100));
        prop_assert_eq!(counters.under_way(), Tally::default());
        prop_assert_eq!(counters.delivered.packets, verdicts.iter().map(|v| v.arrivals().count() as u64).sum::<u64>());
    }
}
