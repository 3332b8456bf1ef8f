use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;

use super::*;
use crate::config::{AddressLimits, PaceLimits};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const ALICE: AccountKey = AccountKey([1; 32]);
const BOB: AccountKey = AccountKey([2; 32]);
const CAROL: AccountKey = AccountKey([3; 32]);

/// A clock that goes wherever a test sets it, also back.
#[derive(Clone, Debug, Default)]
struct SetClock(Arc<AtomicU64>);

impl SetClock {
    fn advance(&self, by: Duration) {
        self.0.fetch_add(Nanos::from(by).as_u64(), Ordering::Relaxed);
    }

    fn set(&self, to: Duration) {
        self.0.store(Nanos::from(to).as_u64(), Ordering::Relaxed);
    }
}

impl Clock for SetClock {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        self.0.load(Ordering::Relaxed).into()
    }
}

fn pace(messages_per_minute: u32, messages_burst: u32) -> PaceLimits {
    PaceLimits { messages_per_minute, messages_burst, bytes_per_minute: 600_000, bytes_burst: 600_000 }
}

/// By address wide, by account 60 a minute and 20 at once, into one mailbox 30 a minute and 10 at once.
fn config() -> LimitsConfig {
    LimitsConfig {
        keys_max: 1_000,
        address: AddressLimits {
            connections_per_minute: 60,
            connections_burst: 5,
            messages_per_minute: 60_000,
            messages_burst: 60_000,
            bytes_per_minute: 60_000_000,
            bytes_burst: 60_000_000,
        },
        account: pace(60, 20),
        mailbox: pace(30, 10),
        ..LimitsConfig::default()
    }
}

fn limits() -> (Limits<SetClock>, SetClock) {
    let clock = SetClock::default();
    (Limits::with_clock(&config(), clock.clone()), clock)
}

fn account(n: u64) -> AccountKey {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&n.to_be_bytes());
    AccountKey(key)
}

#[test]
fn a_burst_passes_and_the_excess_is_told_when_it_will() {
    let (limits, clock) = limits();
    for _ in 0..10 {
        assert_eq!(limits.check_submit(HERE, ALICE, BOB, false, 100), Ok(()));
    }
    // 30 a minute: one comes back every 2 s.
    assert_eq!(limits.check_submit(HERE, ALICE, BOB, false, 100), Err(RetryAfter { seconds: 2 }));
    clock.advance(Duration::from_millis(1_999));
    assert_eq!(limits.check_submit(HERE, ALICE, BOB, false, 100), Err(RetryAfter { seconds: 1 }));
    clock.advance(Duration::from_millis(1));
    assert_eq!(limits.check_submit(HERE, ALICE, BOB, false, 100), Ok(()));
}

#[test]
fn bytes_are_limited_as_messages_are() {
    let (limits, clock) = limits();
    for _ in 0..6 {
        assert_eq!(limits.check_submit(HERE, ALICE, BOB, false, 100_000), Ok(()));
    }
    // 600,000 a minute: 60,000 come back in 6 s.
    assert_eq!(limits.check_submit(HERE, ALICE, BOB, false, 60_000), Err(RetryAfter { seconds: 6 }));
    clock.advance(Duration::from_secs(6));
    assert_eq!(limits.check_submit(HERE, ALICE, BOB, false, 60_000), Ok(()));
}

#[test]
fn what_is_larger_than_a_burst_passes_after_a_full_rest() {
    let (limits, clock) = limits();
    assert_eq!(limits.check_submit(HERE, ALICE, BOB, false, 5_000_000), Ok(()));
    assert_eq!(limits.check_submit(HERE, ALICE, BOB, false, 5_000_000), Err(RetryAfter { seconds: 60 }));
    clock.advance(Duration::from_secs(60));
    assert_eq!(limits.check_submit(HERE, ALICE, BOB, false, 5_000_000), Ok(()));
}

#[test]
fn an_account_at_its_limit_hinders_no_other_behind_the_same_address() {
    let (limits, _) = limits();
    for mailbox in [BOB, CAROL] {
        (0..10).for_each(|_| assert_eq!(limits.check_submit(HERE, ALICE, mailbox, false, 10), Ok(())));
    }
    assert!(limits.check_submit(HERE, ALICE, account(9), false, 10).is_err());
    assert_eq!(limits.check_submit(HERE, BOB, CAROL, false, 10), Ok(()));
}

#[test]
fn a_refusal_by_one_limit_is_charged_to_none() {
    let (limits, _) = limits();
    for _ in 0..10 {
        assert_eq!(limits.check_submit(HERE, ALICE, BOB, false, 10), Ok(()));
    }
    for _ in 0..1_000 {
        assert!(limits.check_submit(HERE, ALICE, BOB, false, 10).is_err());
    }
    // Half of the account's burst is left, and goes elsewhere.
    for _ in 0..10 {
        assert_eq!(limits.check_submit(HERE, ALICE, CAROL, false, 10), Ok(()));
    }
    assert!(limits.check_submit(HERE, ALICE, CAROL, false, 10).is_err());
}

#[test]
fn connections_count_by_ipv4_address_and_by_ipv6_half() {
    let (limits, _) = limits();
    let v6 = |text: &str| IpAddr::V6(text.parse::<Ipv6Addr>().unwrap());
    for host in 1..=5 {
        assert_eq!(limits.check_connection(v6(&format!("2001:db8:0:1::{host}"))), Ok(()));
    }
    assert_eq!(limits.check_connection(v6("2001:db8:0:1:ffff::1")), Err(RetryAfter { seconds: 1 }));
    assert_eq!(limits.check_connection(v6("2001:db8:0:2::1")), Ok(()));

    for mapped in ["::ffff:192.0.2.9", "::ffff:192.0.2.10"] {
        (0..5).for_each(|_| assert_eq!(limits.check_connection(v6(mapped)), Ok(())));
    }
    assert!(limits.check_connection("192.0.2.9".parse().unwrap()).is_err());
    assert_eq!(limits.check_connection("192.0.2.11".parse().unwrap()), Ok(()));
}

#[test]
fn addresses_that_are_not_proven_share_one_rate_and_are_charged_nothing() {
    let (limits, clock) = limits();
    (0..5).for_each(|_| assert_eq!(limits.check_unproven(), Ok(())));
    assert_eq!(limits.check_unproven(), Err(RetryAfter { seconds: 1 }));
    (0..5).for_each(|_| assert_eq!(limits.check_connection(HERE), Ok(())));
    clock.advance(Duration::from_secs(1));
    assert_eq!(limits.check_unproven(), Ok(()));
    clock.advance(Duration::from_secs(60));
    limits.sweep();
    assert_eq!(limits.keys(), 0);
}

#[test]
fn a_million_keys_take_no_more_memory_than_the_bound() {
    let (limits, clock) = limits();
    for n in 0..1_000_000 {
        let from = IpAddr::V6(Ipv6Addr::from_bits(u128::from(n) << 64));
        let _ = limits.check_connection(from);
        let _ = limits.check_submit(from, account(n), BOB, false, 10);
        if n % 1_000 == 0 {
            assert!(limits.keys() <= 7 * 1_000, "{} keys after {n}", limits.keys());
            clock.advance(Duration::from_millis(1));
        }
    }
    assert!(limits.keys() >= 1_000);
    clock.advance(Duration::from_secs(120));
    limits.sweep();
    assert_eq!(limits.keys(), 0);
}

#[test]
fn newcomers_to_a_full_table_share_one_bucket_until_a_place_is_free() {
    let (limits, clock) = limits();
    let from = |n: u32| IpAddr::V4(Ipv4Addr::from_bits(n));
    for n in 0..1_000 {
        (0..5).for_each(|_| assert_eq!(limits.check_connection(from(n)), Ok(())));
    }
    for n in 1_000..1_005 {
        assert_eq!(limits.check_connection(from(n)), Ok(()));
    }
    assert_eq!(limits.check_connection(from(1_005)), Err(RetryAfter { seconds: 1 }));
    // Five seconds refill all buckets of the table: the next newcomer finds its places free.
    clock.advance(Duration::from_secs(5));
    for _ in 0..5 {
        assert_eq!(limits.check_connection(from(1_006)), Ok(()));
        assert_eq!(limits.check_connection(from(1_007)), Ok(()));
    }
}

#[test]
fn strangers_share_a_small_number_of_claims_and_others_do_not_notice() {
    let (limits, clock) = limits();
    for device in 1..=5 {
        assert_eq!(limits.check_claim(DeviceNo(device), BOB, true), Ok(()));
    }
    let refused = Err(RetryAfter { seconds: 3_600 });
    assert_eq!(limits.check_claim(DeviceNo(6), BOB, true), refused);
    assert_eq!(limits.check_claim(DeviceNo(6), ALICE, true), Ok(()), "another mailbox");
    assert_eq!(limits.check_claim(DeviceNo(1), BOB, false), Ok(()), "a friend of Bob's");
    clock.advance(Duration::from_secs(3_600));
    assert_eq!(limits.check_claim(DeviceNo(6), BOB, true), Ok(()));
}

#[test]
fn strangers_share_one_pace_into_a_mailbox_and_others_do_not_notice() {
    let (limits, clock) = limits();
    for n in 0..32 {
        assert_eq!(limits.check_submit(HERE, account(n), BOB, true, 100), Ok(()));
    }
    let refused = Err(RetryAfter { seconds: 60 });
    assert_eq!(limits.check_submit(HERE, account(32), BOB, true, 100), refused);
    assert_eq!(limits.check_submit(HERE, account(32), ALICE, true, 100), Ok(()), "another mailbox");
    assert_eq!(limits.check_submit(HERE, account(32), BOB, false, 100), Ok(()), "a friend of Bob's");
    clock.advance(Duration::from_secs(60));
    // Who is refused by another limit has taken nothing of it.
    (0..10).for_each(|_| assert_eq!(limits.check_submit(HERE, ALICE, BOB, false, 10), Ok(())));
    assert_eq!(limits.check_submit(HERE, ALICE, BOB, true, 10), Err(RetryAfter { seconds: 2 }));
    assert_eq!(limits.check_submit(HERE, account(33), BOB, true, 100), Ok(()));
}

#[test]
fn one_device_claims_so_often_and_is_charged_for_what_it_gets_only() {
    let (limits, _) = limits();
    for n in 0..50 {
        assert_eq!(limits.check_claim(DeviceNo(1), account(n), false), Ok(()));
    }
    assert_eq!(limits.check_claim(DeviceNo(1), account(50), false), Err(RetryAfter { seconds: 60 }));
    (0..49).for_each(|n| assert_eq!(limits.check_claim(DeviceNo(10 + n), account(50), false), Ok(())));
    assert_eq!(limits.check_claim(DeviceNo(2), account(50), false), Ok(()), "nobody paid for the refused");
}

#[test]
fn a_clock_that_goes_back_delays_by_no_more_than_a_full_rest() {
    let (limits, clock) = limits();
    clock.set(Duration::from_secs(1_000_000));
    (0..10).for_each(|_| assert_eq!(limits.check_submit(HERE, ALICE, BOB, false, 10), Ok(())));
    clock.set(Duration::from_secs(10));
    let Err(RetryAfter { seconds }) = limits.check_submit(HERE, ALICE, BOB, false, 10) else {
        panic!("the bucket was empty")
    };
    assert!(seconds <= 2, "{seconds}");
    clock.advance(Duration::from_secs(seconds.into()));
    assert_eq!(limits.check_submit(HERE, ALICE, BOB, false, 10), Ok(()));
}

#[test]
fn a_clock_that_stood_still_or_leapt_ahead_locks_nobody_out() {
    let (limits, clock) = limits();
    while limits.check_submit(HERE, ALICE, BOB, false, 10).is_ok() {}
    for _ in 0..100 {
        assert_eq!(limits.check_submit(HERE, ALICE, BOB, false, 10), Err(RetryAfter { seconds: 2 }));
    }
    clock.set(Duration::from_secs(100 * 365 * 86_400));
    (0..10).for_each(|_| assert_eq!(limits.check_submit(HERE, ALICE, BOB, false, 10), Ok(())));
}

#[test]
fn the_stated_memory_bound_is_what_the_tables_allocate() {
    let keys_max = 50_000;
    let mut table = HashMap::<(AccountKey, AccountKey), Nanos>::new();
    for n in 0..keys_max as u64 {
        table.insert((account(n), BOB), Nanos::default());
    }
    // `capacity` is seven eighths of the slots.
    let slots = table.capacity() * 8 / 7;
    let entries = 3 * size_of::<(AddressBlock, Nanos)>() + 2 * (40 + 72) + 4 * 40 + 16;
    assert_eq!(memory_bytes_max(keys_max), slots * (entries + 10));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Over any schedule of sends: what passes never exceeds burst + rate × time, and after the stated
    /// wait the same message always passes.
    #[test]
    fn the_rate_holds_and_the_wait_is_true(
        steps in prop::collection::vec((0u64..5_000, 1usize..200_000), 1..200),
    ) {
        let (limits, clock) = limits();
        let (mut passed, mut bytes_passed) = (0u64, 0u64);
        for (pause_ms, bytes) in steps {
            clock.advance(Duration::from_millis(pause_ms));
            if let Err(RetryAfter { seconds }) = limits.check_submit(HERE, ALICE, BOB, false, bytes) {
                clock.advance(Duration::from_secs(seconds.into()));
                prop_assert_eq!(limits.check_submit(HERE, ALICE, BOB, false, bytes), Ok(()));
            }
            passed += 1;
            bytes_passed += bytes as u64;
            let now_ms = clock.now().as_u64() / 1_000_000;
            prop_assert!(passed <= 10 + now_ms * 30 / 60_000);
            prop_assert!(bytes_passed <= 600_000 + now_ms * 600_000 / 60_000);
        }
    }
}
