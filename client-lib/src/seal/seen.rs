//! Which messages of another device have arrived, to know repeats by and to state in receipts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thinpost_wire::batch::Ack;
use thinpost_wire::limits::ACK_RANGES_MAX;
use thinpost_wire::notes::{SEEN_MAX, Seen as Receipt};
use thinpost_wire::parcel::ShortIncarnation;

/// Incarnations remembered, however long ago they said something; each opening of the other's home is one.
const INCARNATIONS_MIN: usize = 256;

/// Incarnations remembered at most. The other keeps as many messages without a receipt, to send them again.
const INCARNATIONS_MAX: usize = 10_000;

/// Others are remembered for so long after they said something, seconds: for 30 days it is sent again, and then a relay keeps it
/// for 30 days, unless its operator has said otherwise.
const REMEMBERED_S: u64 = 62 * 24 * 3_600;

/// Ranges remembered of each. Beyond, what is missing before the lowest counts as arrived.
const RANGES_MAX: usize = 256;

/// What has arrived from one other device.
#[derive(Default)]
pub(super) struct Seen {
    of: BTreeMap<ShortIncarnation, Numbers>,
    /// When each was last used, which no two were at once: they are forgotten in this order.
    by_use: BTreeMap<u64, ShortIncarnation>,
    /// The last time that one was, in seconds of the home's clock, or one more than the time before.
    last_use: u64,
}

/// What has arrived of one incarnation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Numbers {
    used: u64,
    /// Everything up to here.
    upto: u64,
    /// And these above: first and last of each, ascending, with a gap before each.
    ranges: Vec<(u64, u64)>,
    /// What has arrived up to here has been read.
    read: u64,
    /// There is something that no receipt has stated.
    untold: bool,
}

/// As [`Seen`] is kept.
#[derive(Serialize, Deserialize)]
pub(super) struct Record(u64, Vec<([u8; 4], Numbers)>);

impl Seen {
    pub(super) fn to_record(&self) -> Record {
        Record(self.last_use, self.of.iter().map(|(of, numbers)| (of.0, numbers.clone())).collect())
    }

    pub(super) fn from_record(Record(last_use, of): Record) -> Self {
        let of = of.into_iter().map(|(of, numbers)| (ShortIncarnation(of), numbers));
        let of: BTreeMap<_, Numbers> = of.collect();
        let by_use = of.iter().map(|(of, numbers)| (numbers.used, *of)).collect();
        Self { of, by_use, last_use }
    }

    /// Notes that a message has arrived, at `now_s` of the home's clock; false if it had before. Either way the next receipt
    /// states it.
    pub(super) fn insert(&mut self, of: ShortIncarnation, number: u64, now_s: u64) -> bool {
        self.last_use = now_s.max(self.last_use + 1);
        if let Some(known) = self.of.get(&of) {
            self.by_use.remove(&known.used);
        }
        self.by_use.insert(self.last_use, of);
        let numbers = self.of.entry(of).or_default();
        numbers.used = self.last_use;
        numbers.untold = true;
        let is_new = numbers.insert(number);
        if is_new && number <= numbers.read {
            // It was not there when all up to a later one was read.
            numbers.read = number - 1;
        }
        while self.of.len() > INCARNATIONS_MIN
            && let Some(oldest) = self.by_use.first_entry()
            && (self.of.len() > INCARNATIONS_MAX || oldest.key() + REMEMBERED_S < self.last_use)
        {
            self.of.remove(&oldest.remove());
        }
        is_new
    }

    /// Notes that everything up to this message has been read; false if that was known.
    pub(super) fn read(&mut self, of: ShortIncarnation, number: u64) -> bool {
        let Some(numbers) = self.of.get_mut(&of).filter(|numbers| numbers.read < number) else {
            return false;
        };
        numbers.read = number;
        numbers.untold = true;
        true
    }

    /// Receipts may have been lost: the next one states what came last anew, as much as one holds that is not taken for one of
    /// several.
    pub(super) fn tell_anew(&mut self) {
        let mut stated = 0;
        for of in self.by_use.values().rev() {
            let Some(numbers) = self.of.get_mut(of) else { continue };
            stated += numbers.receipts();
            if stated >= SEEN_MAX {
                break;
            }
            numbers.untold = true;
        }
    }

    /// When something arrived last, in seconds of the home's clock, or a little more; 0 if nothing ever did.
    pub(super) fn last_use(&self) -> u64 {
        self.last_use
    }

    pub(super) fn is_untold(&self) -> bool {
        self.of.values().any(|numbers| numbers.untold)
    }

    /// How many parcels it takes to state all that none has.
    pub(super) fn untold_parcels(&self) -> usize {
        let (mut parcels, mut room) = (0, 0);
        for numbers in self.by_use.values().filter_map(|of| self.of.get(of)).filter(|numbers| numbers.untold)
        {
            if numbers.receipts() > room {
                (parcels, room) = (parcels + 1, SEEN_MAX);
            }
            room -= numbers.receipts();
        }
        parcels
    }

    /// What the next receipt states, as far as one holds it: first what came first. The other side takes what left before
    /// something that is stated, and is not stated itself, for lost.
    pub(super) fn take_receipts(&mut self) -> Vec<Receipt> {
        let mut receipts = Vec::new();
        for of in self.by_use.values() {
            let Some(numbers) = self.of.get_mut(of).filter(|numbers| numbers.untold) else { continue };
            if receipts.len() + numbers.receipts() > SEEN_MAX {
                // Fewer would say that no more follows.
                let last = receipts.last().cloned();
                last.into_iter().for_each(|last| receipts.resize(SEEN_MAX, last));
                break;
            }
            numbers.untold = false;
            receipts.extend((0..numbers.receipts()).map(|part| {
                let ranges = numbers.ranges.iter().skip(part * ACK_RANGES_MAX).take(ACK_RANGES_MAX);
                let arrived = Ack { watermark: numbers.upto, received: ranges.copied().collect() };
                Receipt { incarnation: *of, arrived, read: numbers.read }
            }));
        }
        receipts
    }
}

const _: () = assert!(RANGES_MAX.div_ceil(ACK_RANGES_MAX) < SEEN_MAX);

impl Numbers {
    /// How many statements it takes to state all of it.
    fn receipts(&self) -> usize {
        self.ranges.len().div_ceil(ACK_RANGES_MAX).max(1)
    }

    fn insert(&mut self, number: u64) -> bool {
        if number <= self.upto {
            return false;
        }
        // The first range that ends at or after the number before this one: it may hold it or grow by it.
        let place = self.ranges.partition_point(|(_, last)| last.saturating_add(1) < number);
        match self.ranges.get_mut(place) {
            Some((first, last)) if (*first..=*last).contains(&number) => return false,
            Some((_, last)) if last.checked_add(1) == Some(number) => *last = number,
            _ => self.ranges.insert(place, (number, number)),
        }
        if let [(_, last), (first, end)] = self.ranges[place..(place + 2).min(self.ranges.len())]
            && last + 1 == first
        {
            self.ranges[place].1 = end;
            self.ranges.remove(place + 1);
        }
        let lowest = self.ranges[0];
        if lowest.0 == self.upto + 1 || self.ranges.len() > RANGES_MAX {
            self.upto = lowest.1;
            self.ranges.remove(0);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const OF: ShortIncarnation = ShortIncarnation([1; 4]);
    const NOW: u64 = 1_790_000_000;

    proptest! {
        #[test]
        fn every_number_is_new_once_and_receipts_state_just_those(
            numbers in prop::collection::vec(1..60u64, 1..200),
        ) {
            let (mut seen, mut model) = (Seen::default(), BTreeSet::new());
            for number in numbers {
                prop_assert_eq!(seen.insert(OF, number, NOW), model.insert(number));
                let receipts = seen.take_receipts();
                for n in 1..=61 {
                    prop_assert_eq!(receipts[0].has_arrived(n), model.contains(&n), "{}", n);
                }
                let ranges = &seen.of[&OF].ranges;
                prop_assert!(ranges.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0), "{ranges:?}");
            }
        }
    }

    #[test]
    fn a_receipt_is_due_for_what_is_new_comes_again_or_was_read() {
        let mut seen = Seen::default();
        assert!(!seen.is_untold());
        for change in [
            (|seen: &mut Seen| seen.insert(OF, 1, NOW)) as fn(&mut Seen) -> bool,
            |seen| !seen.insert(OF, 1, NOW),
            |seen| seen.read(OF, 1),
        ] {
            assert!(change(&mut seen));
            assert!(seen.is_untold());
            assert_eq!(seen.take_receipts().len(), 1);
            assert!(!seen.is_untold() && seen.take_receipts().is_empty());
        }
        assert!(!seen.read(OF, 1), "it was read before");
        assert!(!seen.read(ShortIncarnation([2; 4]), 1), "nothing came from there");
    }

    #[test]
    fn what_comes_after_a_later_one_was_read_has_not_been_read() {
        let mut seen = Seen::default();
        for number in [1, 2, 5] {
            seen.insert(OF, number, NOW);
        }
        seen.read(OF, 5);
        assert!(!seen.insert(OF, 2, NOW));
        assert_eq!(seen.take_receipts()[0].read, 5, "one that comes again was read");
        assert!(seen.insert(OF, 3, NOW));
        assert_eq!(seen.take_receipts()[0].read, 2);
        assert!(seen.read(OF, 5));
        assert_eq!(seen.take_receipts()[0].read, 5);
    }

    #[test]
    fn what_came_last_is_told_anew_as_far_as_one_receipt_holds_it() {
        let mut seen = Seen::default();
        seen.tell_anew();
        assert!(!seen.is_untold(), "nothing came");
        let of = |n: usize| ShortIncarnation([n as u8; 4]);
        assert!((0..2 * SEEN_MAX).all(|n| seen.insert(of(n), 1, NOW)));
        seen.insert(of(0), 2, NOW);
        while seen.is_untold() {
            seen.take_receipts();
        }
        seen.tell_anew();
        let told: Vec<_> = seen.take_receipts().into_iter().map(|receipt| receipt.incarnation).collect();
        let last: Vec<_> = (SEEN_MAX + 2..2 * SEEN_MAX).chain([0]).map(of).collect();
        assert_eq!(told, last);
        assert!(!seen.is_untold());
    }

    #[test]
    fn the_last_number_of_all_takes_nothing_from_the_others() {
        let mut seen = Seen::default();
        let numbers = [u64::MAX, 5, u64::MAX - 1, 4];
        assert_eq!(numbers.map(|number| seen.insert(OF, number, NOW)), [true; 4]);
        assert_eq!(numbers.map(|number| seen.insert(OF, number, NOW)), [false; 4]);
    }

    #[test]
    fn what_has_more_gaps_than_one_statement_holds_is_stated_in_several() {
        let mut seen = Seen::default();
        let arrived: Vec<_> = (1..=100).map(|n| 2 * n).collect();
        assert!(arrived.iter().all(|n| seen.insert(OF, *n, NOW)));
        assert_eq!(seen.untold_parcels(), 1);
        let receipts = seen.take_receipts();
        assert_eq!(receipts.len(), 4);
        for n in 1..=201 {
            let is_stated = receipts.iter().any(|receipt| receipt.has_arrived(n));
            assert_eq!(is_stated, arrived.contains(&n), "{n}");
        }
        // Six statements each: two in a parcel.
        let mut many = Seen::default();
        for of in 0..5 {
            assert!((1..=190).all(|n| many.insert(ShortIncarnation([of; 4]), 2 * n, NOW)));
        }
        assert_eq!(many.untold_parcels(), 3);
        assert_eq!([(); 3].map(|()| many.take_receipts().len()), [SEEN_MAX, SEEN_MAX, 6]);
        assert!(!many.is_untold());
        // Where not all of one fits, what is there still says that more follows.
        let of = |n: usize| ShortIncarnation([n as u8 + 10; 4]);
        assert!((0..SEEN_MAX - 2).all(|n| seen.insert(of(n), 1, NOW)));
        assert!(seen.insert(OF, 1_000, NOW));
        let first = seen.take_receipts();
        assert_eq!(
            (first.len(), first[0].incarnation, first[SEEN_MAX - 3].incarnation),
            (SEEN_MAX, of(0), of(SEEN_MAX - 3))
        );
        assert!(seen.take_receipts().iter().any(|receipt| receipt.has_arrived(1_000)));
        assert!(!seen.is_untold());
    }

    #[test]
    fn what_came_without_a_gap_is_stated_as_one_number() {
        let mut seen = Seen::default();
        for number in [1, 2, 5, 4, 7, 3] {
            seen.insert(OF, number, NOW);
        }
        let arrived = seen.take_receipts().remove(0).arrived;
        assert_eq!(arrived, Ack { watermark: 5, received: vec![(7, 7)] });
    }

    #[test]
    fn what_is_missing_counts_as_arrived_only_behind_more_gaps_than_are_remembered() {
        let with_gaps = |gaps: u64| {
            let mut seen = Seen::default();
            assert!((1..=gaps).all(|n| seen.insert(OF, n * 2, NOW)));
            seen
        };
        assert!(with_gaps(RANGES_MAX as u64).insert(OF, 1, NOW));
        let mut seen = with_gaps(RANGES_MAX as u64 + 1);
        assert!(!seen.insert(OF, 1, NOW));
        assert!(seen.insert(OF, 3, NOW), "just the lowest gap is given up");
    }

    #[test]
    fn the_opening_that_was_silent_longest_is_forgotten_first() {
        let of = |n: usize| ShortIncarnation((n as u32).to_le_bytes());
        let mut seen = Seen::default();
        assert!((0..INCARNATIONS_MAX).all(|n| seen.insert(of(n), 1, NOW)));
        assert!(!seen.insert(of(0), 1, NOW), "as many are remembered, and this is used");
        assert!(seen.insert(of(INCARNATIONS_MAX), 1, NOW), "one too many");
        assert!((2..=INCARNATIONS_MAX).chain([0]).all(|n| !seen.insert(of(n), 1, NOW)));
        assert!(seen.insert(of(1), 1, NOW));
    }

    #[test]
    fn what_can_come_again_no_more_is_forgotten_but_for_the_last_openings() {
        let of = |n: usize| ShortIncarnation((n as u32).to_le_bytes());
        let mut seen = Seen::default();
        for n in 0..600 {
            seen.insert(of(n), 1, NOW);
        }
        seen.insert(of(600), 1, NOW + REMEMBERED_S);
        assert_eq!(seen.of.len(), 601, "all of them may come again");
        seen.insert(of(601), 1, NOW + REMEMBERED_S + 1_000);
        assert_eq!(seen.of.len(), INCARNATIONS_MIN);
        assert!((346..=601).all(|n| !seen.insert(of(n), 1, NOW + REMEMBERED_S + 1_000)));
    }

    #[test]
    fn an_opening_that_said_one_thing_takes_thirteen_bytes() {
        let bytes = |openings: u32| {
            let mut seen = Seen::default();
            for n in 0..openings {
                seen.insert(ShortIncarnation(n.to_le_bytes()), 1, NOW);
            }
            seen.take_receipts();
            postcard::to_stdvec(&seen.to_record()).unwrap().len()
        };
        assert_eq!(bytes(600) - bytes(200), 400 * 13);
    }

    #[test]
    fn what_an_earlier_version_counted_is_forgotten_as_it_was_then() {
        let of = (0..200u32).map(|n| {
            let numbers = Numbers { used: n.into(), upto: 1, ..Numbers::default() };
            (n.to_le_bytes(), numbers)
        });
        let mut seen = Seen::from_record(Record(199, of.collect()));
        let of = |n: u32| ShortIncarnation(n.to_le_bytes());
        assert!((200..257).all(|n| seen.insert(of(n), 1, NOW)));
        assert!((1..257).all(|n| !seen.insert(of(n), 1, NOW)), "the last 256");
        assert!(seen.insert(of(0), 1, NOW));
    }

    #[test]
    fn all_is_known_after_a_restart() {
        let mut seen = Seen::default();
        for (of, number) in [(OF, 1), (OF, 3), (ShortIncarnation([2; 4]), 9)] {
            seen.insert(of, number, NOW);
        }
        seen.take_receipts();
        seen.read(OF, 1);
        let Record(last_use, of) = seen.to_record();
        assert_eq!(last_use, NOW + 2);
        let mut again = Seen::from_record(Record(last_use, of));
        assert_eq!(again.of, seen.of);
        assert!(again.is_untold());
        assert!(!again.insert(OF, 3, NOW) && again.insert(OF, 2, NOW));
        assert!(again.of[&OF].used > again.of[&ShortIncarnation([2; 4])].used);
    }

    #[test]
    fn memory_is_bounded_whatever_comes() {
        let mut seen = Seen::default();
        for number in 1..=2_000 {
            assert!(seen.insert(OF, number * 2, NOW));
        }
        assert_eq!(seen.of[&OF].ranges.len(), RANGES_MAX);
        assert!(!seen.insert(OF, 1, NOW), "what is missing before too many gaps counts as arrived");
        for n in 0..INCARNATIONS_MAX as u32 + 500 {
            seen.insert(ShortIncarnation(n.to_le_bytes()), 1, NOW);
        }
        assert_eq!((seen.of.len(), seen.by_use.len()), (INCARNATIONS_MAX, INCARNATIONS_MAX));
        let mut stated = 0;
        while seen.is_untold() {
            stated += seen.take_receipts().len();
        }
        assert_eq!(stated, INCARNATIONS_MAX);
    }
}
