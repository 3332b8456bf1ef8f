//! The receiving half: puts items in order, frames together, and says what to acknowledge.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::{BESIDE_BYTES, LinkError, NEXT_BYTES, Time};
use crate::batch::{Ack, Item};
use crate::limits::{ACK_RANGES_MAX, FRAME_BYTES_MAX, HOLD_BYTES_MAX, WINDOW_ITEMS};

/// How long an arrival waits to be acknowledged, in the hope that it is settled by then and one
/// acknowledgement says both. A group commit takes less.
const ACK_DELAY: Duration = Duration::from_millis(25);

#[derive(Debug, Default)]
pub(super) struct Inbound {
    /// Everything up to here is settled.
    watermark: u64,
    /// Everything up to here has been given to the shell, or is part of the frame being put together.
    taken: u64,
    /// Items behind a gap, by number.
    held: BTreeMap<u64, (bool, Bytes)>,
    held_bytes: usize,
    /// How long each item is that was taken and is not settled, the oldest first, and all of them.
    unsettled: std::collections::VecDeque<usize>,
    unsettled_bytes: usize,
    /// The parts so far of a frame whose last part has not come.
    partial: BytesMut,
    /// Whole frames for the shell.
    frames: std::collections::VecDeque<(u64, Bytes)>,
    ack_due: Option<Time>,
    /// How long acknowledgements that nothing calls for wait for something to ride with.
    gather: Duration,
}

impl Inbound {
    /// Whether the items keep the rules, before anything changes.
    pub(super) fn check(&self, items: &[Item<'_>]) -> Result<(), LinkError> {
        for item in items {
            if item.number > self.watermark.saturating_add(WINDOW_ITEMS) {
                return Err(LinkError::BeyondWindow(item.number));
            }
            if let Some((more, bytes)) = self.held.get(&item.number)
                && (*more, &bytes[..]) != (item.more, item.bytes)
            {
                return Err(LinkError::ItemChanged(item.number));
            }
        }
        Ok(())
    }

    /// How much room it takes to take in all of these that are new, and the next in order after what is behind a gap, bytes.
    pub(super) fn needs_bytes(&self, items: &[Item<'_>]) -> usize {
        let (mut bytes, mut next, mut kept_free) = (0, self.taken + 1, 0);
        for item in items.iter().filter(|item| self.is_new(item.number)) {
            bytes += item.bytes.len() + BESIDE_BYTES;
            while self.held.contains_key(&next) {
                next += 1;
            }
            if item.number == next {
                next += 1;
            } else {
                kept_free = NEXT_BYTES;
            }
        }
        bytes + kept_free
    }

    fn is_new(&self, number: u64) -> bool {
        number > self.taken && !self.held.contains_key(&number)
    }

    /// Takes in items, as many as there is `room` for; what is behind a gap leaves some for what fills it. Of the others nothing is said, and they come again.
    pub(super) fn handle_items(
        &mut self,
        now: Time,
        items: &[Item<'_>],
        mut room: usize,
    ) -> Result<(), LinkError> {
        for item in items {
            if !self.is_new(item.number) {
                // The acknowledgement was lost: say it again.
                self.ack_by(now);
                continue;
            }
            let is_next = item.number == self.taken + 1;
            let kept_free = if is_next { 0 } else { NEXT_BYTES };
            let left = room.checked_sub(item.bytes.len() + BESIDE_BYTES);
            let Some(left) = left.filter(|left| *left >= kept_free) else { continue };
            if is_next {
                room = left;
                self.take(item.number, item.more, Bytes::copy_from_slice(item.bytes))?;
                self.take_held()?;
                self.ack_by(now + self.gather.max(ACK_DELAY));
            } else if self.held_bytes + item.bytes.len() <= HOLD_BYTES_MAX {
                room = left;
                self.held_bytes += item.bytes.len();
                self.held.insert(item.number, (item.more, Bytes::copy_from_slice(item.bytes)));
                self.ack_by(now);
            }
        }
        Ok(())
    }

    fn take_held(&mut self) -> Result<(), LinkError> {
        while let Some(entry) = self.held.first_entry()
            && *entry.key() == self.taken + 1
        {
            let (number, (more, bytes)) = entry.remove_entry();
            self.held_bytes -= bytes.len();
            self.take(number, more, bytes)?;
        }
        Ok(())
    }

    fn take(&mut self, number: u64, more: bool, bytes: Bytes) -> Result<(), LinkError> {
        self.taken = number;
        self.unsettled.push_back(bytes.len());
        self.unsettled_bytes += bytes.len();
        if self.partial.len() + bytes.len() > FRAME_BYTES_MAX {
            return Err(LinkError::FrameTooLong);
        }
        if more {
            self.partial.extend_from_slice(&bytes);
        } else if self.partial.is_empty() {
            self.frames.push_back((number, bytes));
        } else {
            self.partial.extend_from_slice(&bytes);
            let frame = std::mem::take(&mut self.partial).freeze();
            self.frames.push_back((number, frame));
        }
        Ok(())
    }

    pub(super) fn poll_frame(&mut self) -> Option<(u64, Bytes)> {
        self.frames.pop_front()
    }

    /// Nothing above what the shell has been given can be settled.
    pub(super) fn settle(&mut self, now: Time, upto: u64) {
        let given = self.frames.front().map_or(self.taken, |(first, _)| first - 1);
        let upto = upto.min(given);
        if upto > self.watermark {
            let settled = self.unsettled.drain(..(upto - self.watermark) as usize);
            self.unsettled_bytes -= settled.sum::<usize>();
            self.watermark = upto;
            self.ack_by(now + self.gather);
        }
    }

    /// From now on. What waits already waits no longer than before.
    pub(super) fn gather(&mut self, now: Time, at_most: Duration) {
        self.gather = at_most;
        self.ack_due = self.ack_due.map(|due| due.min(now + at_most));
    }

    /// The peer wants to know, whether there is anything new or not.
    pub(super) fn asked(&mut self, now: Time) {
        self.ack_by(now);
    }

    fn ack_by(&mut self, time: Time) {
        self.ack_due = Some(self.ack_due.map_or(time, |due| due.min(time)));
    }

    /// When an acknowledgement must have left.
    pub(super) fn ack_due(&self) -> Option<Time> {
        self.ack_due
    }

    pub(super) fn ack_sent(&mut self) {
        self.ack_due = None;
    }

    /// What to acknowledge with whatever leaves next; none when it would say nothing new, unless it is to be said again.
    pub(super) fn ack(&self, again: bool) -> Option<Ack> {
        if self.ack_due.is_none() && !(again && self.taken > 0) {
            return None;
        }
        let mut received: Vec<(u64, u64)> = Vec::new();
        if self.taken > self.watermark {
            received.push((self.watermark + 1, self.taken));
        }
        for &number in self.held.keys() {
            let runs = received.len();
            match received.last_mut() {
                Some((_, last)) if *last + 1 == number => *last = number,
                _ if runs == ACK_RANGES_MAX => break,
                _ => received.push((number, number)),
            }
        }
        Some(Ack { watermark: self.watermark, received })
    }

    /// What it holds of the peer's items, with what belongs to them until they are settled, bytes.
    pub(super) fn holds_bytes(&self) -> usize {
        let items = self.unsettled.len() + self.held.len();
        self.unsettled_bytes + self.held_bytes + items * BESIDE_BYTES
    }

    pub(super) fn is_at_rest(&self) -> bool {
        self.ack_due.is_none() && self.taken == self.watermark && self.held.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(seconds: u32) -> Time {
        Time::after_start(SECOND * seconds)
    }

    /// Takes in an item at no particular time.
    fn hear(inbound: &mut Inbound, number: u64, more: bool, bytes: &[u8]) -> Result<(), LinkError> {
        let items = [Item { number, more, bytes }];
        inbound.check(&items)?;
        inbound.handle_items(at(0), &items, usize::MAX)
    }

    /// What would be acknowledged beyond the watermark.
    fn received(inbound: &Inbound) -> Vec<(u64, u64)> {
        inbound.ack(true).map(|ack| ack.received).unwrap_or_default()
    }

    #[test]
    fn the_window_counts_from_what_is_settled_its_last_item_included() {
        let mut inbound = Inbound::default();
        hear(&mut inbound, 1, false, b"x").unwrap();
        assert_eq!(hear(&mut inbound, WINDOW_ITEMS, false, b"x"), Ok(()));
        let beyond = WINDOW_ITEMS + 1;
        assert_eq!(hear(&mut inbound, beyond, false, b"x"), Err(LinkError::BeyondWindow(beyond)));
        inbound.poll_frame();
        inbound.settle(at(0), 1);
        assert_eq!(hear(&mut inbound, beyond, false, b"x"), Ok(()));
    }

    #[test]
    fn so_many_bytes_are_held_behind_a_gap_and_again_once_it_is_filled() {
        let mut inbound = Inbound::default();
        let count = (HOLD_BYTES_MAX / 1_000) as u64;
        for gap in [1, count + 3] {
            for number in gap + 1..=gap + count + 1 {
                hear(&mut inbound, number, false, &[7; 1_000]).unwrap();
            }
            assert_eq!(received(&inbound).last(), Some(&(gap + 1, gap + count)), "one more than is held");
            hear(&mut inbound, gap, false, b"x").unwrap();
            hear(&mut inbound, gap + count + 1, false, b"x").unwrap();
            while inbound.poll_frame().is_some() {}
            inbound.settle(at(0), gap + count + 1);
            assert_eq!(inbound.held_bytes, 0);
        }
    }

    #[test]
    fn what_there_is_no_room_for_is_not_taken_and_comes_again_when_there_is() {
        let mut inbound = Inbound::default();
        let items = [1, 2, 4].map(|number| Item { number, more: false, bytes: &[7; 100] });
        let each = 100 + BESIDE_BYTES;
        assert_eq!(inbound.needs_bytes(&items), 3 * each + NEXT_BYTES);
        inbound.handle_items(at(0), &items, 2 * each - 1).unwrap();
        assert_eq!((received(&inbound), inbound.holds_bytes()), (vec![(1, 1)], each));
        inbound.handle_items(at(0), &items, 2 * each + NEXT_BYTES - 1).unwrap();
        assert_eq!((received(&inbound), inbound.holds_bytes()), (vec![(1, 2)], 2 * each));
        assert_eq!(inbound.needs_bytes(&items), each + NEXT_BYTES);
        inbound.handle_items(at(0), &items, each + NEXT_BYTES).unwrap();
        assert_eq!((received(&inbound), inbound.holds_bytes()), (vec![(1, 2), (4, 4)], 3 * each));
        while inbound.poll_frame().is_some() {}
        inbound.settle(at(0), 2);
        assert_eq!(inbound.holds_bytes(), each, "what is behind the gap");
        hear(&mut inbound, 3, true, &[7; 50]).unwrap();
        assert_eq!(inbound.holds_bytes(), 2 * each - 50, "both until they are settled");
    }

    #[test]
    fn what_is_behind_a_gap_leaves_room_for_what_fills_it() {
        let mut inbound = Inbound::default();
        let each = NEXT_BYTES;
        for number in [2, 3, 4, 1] {
            let items = [Item { number, more: false, bytes: &[7; NEXT_BYTES - BESIDE_BYTES] }];
            assert_eq!(inbound.needs_bytes(&items), if number == 1 { each } else { 2 * each });
            let room = 3 * each - inbound.holds_bytes();
            inbound.handle_items(at(0), &items, room).unwrap();
        }
        assert_eq!(received(&inbound), [(1, 3)]);
    }

    #[test]
    fn what_is_released_from_behind_a_gap_makes_room_for_as_much() {
        let mut inbound = Inbound::default();
        let last = (HOLD_BYTES_MAX / 1_000) as u64 + 2;
        for number in (2..=last).filter(|number| *number != 3) {
            hear(&mut inbound, number, false, &[7; 1_000]).unwrap();
        }
        hear(&mut inbound, 1, false, b"x").unwrap();
        for number in [last + 1, last + 2] {
            hear(&mut inbound, number, false, &[7; 1_000]).unwrap();
        }
        assert_eq!(received(&inbound), [(1, 2), (4, last + 1)]);
    }

    #[test]
    fn a_frame_has_so_many_bytes_and_no_more() {
        for (last, outcome) in [(FRAME_BYTES_MAX % 1_000, Ok(())), (1_000, Err(LinkError::FrameTooLong))] {
            let mut inbound = Inbound::default();
            let parts = (FRAME_BYTES_MAX / 1_000) as u64;
            for number in 1..=parts {
                hear(&mut inbound, number, true, &[7; 1_000]).unwrap();
            }
            assert_eq!(hear(&mut inbound, parts + 1, false, &vec![7; last]), outcome);
        }
    }

    #[test]
    fn only_what_was_given_to_the_shell_can_be_settled() {
        let mut inbound = Inbound::default();
        for number in 1..=3 {
            hear(&mut inbound, number, false, b"x").unwrap();
        }
        inbound.settle(at(0), 3);
        assert_eq!(inbound.ack(true).unwrap().watermark, 0);
        inbound.poll_frame();
        inbound.settle(at(0), 3);
        assert_eq!(inbound.ack(true).unwrap().watermark, 1);
        inbound.settle(at(0), 0);
        assert_eq!(inbound.ack(true).unwrap().watermark, 1, "nothing is taken back");
    }

    #[test]
    fn an_acknowledgement_leaves_soon_after_news_at_once_after_a_gap_or_a_repeat_and_gathered_later() {
        let mut inbound = Inbound::default();
        assert_eq!((inbound.ack_due(), inbound.ack(false), inbound.ack(true)), (None, None, None));
        hear(&mut inbound, 1, false, b"x").unwrap();
        assert_eq!(inbound.ack_due(), Some(at(0) + ACK_DELAY));
        assert!(inbound.ack(false).is_some());
        inbound.ack_sent();
        assert!(inbound.ack(false).is_none() && inbound.ack(true).is_some(), "nothing new, but again");
        for again in [3, 3, 1] {
            hear(&mut inbound, again, false, b"x").unwrap();
            assert_eq!(inbound.ack_due(), Some(at(0)), "{again}");
            inbound.ack_sent();
        }
        inbound.gather(at(0), SECOND * 10);
        hear(&mut inbound, 2, false, b"x").unwrap();
        assert_eq!(inbound.ack_due(), Some(at(10)));
        inbound.gather(at(4), SECOND * 3);
        assert_eq!(inbound.ack_due(), Some(at(7)));
        inbound.poll_frame();
        inbound.settle(at(6), 1);
        assert_eq!(inbound.ack_due(), Some(at(7)), "no later than it was");
        inbound.asked(at(5));
        assert_eq!(inbound.ack_due(), Some(at(5)));
    }

    #[test]
    fn runs_of_what_has_arrived_are_told_the_first_of_them_up_to_a_bound() {
        let mut inbound = Inbound::default();
        for number in [1, 2, 4, 5, 7] {
            hear(&mut inbound, number, false, b"x").unwrap();
        }
        assert_eq!(received(&inbound), [(1, 2), (4, 5), (7, 7)]);
        let many = ACK_RANGES_MAX as u64 * 2;
        for number in (9..9 + many).step_by(2) {
            hear(&mut inbound, number, false, b"x").unwrap();
        }
        let received = received(&inbound);
        assert_eq!((received.len(), received[ACK_RANGES_MAX - 1].0), (ACK_RANGES_MAX, many + 1));
    }

    #[test]
    fn rest_is_when_all_is_settled_and_acknowledged_and_nothing_is_held() {
        let mut inbound = Inbound::default();
        assert!(inbound.is_at_rest());
        hear(&mut inbound, 1, false, b"x").unwrap();
        inbound.ack_sent();
        assert!(!inbound.is_at_rest(), "not settled");
        inbound.poll_frame();
        inbound.settle(at(0), 1);
        assert!(!inbound.is_at_rest(), "not acknowledged");
        inbound.ack_sent();
        inbound.settle(at(0), 1);
        assert!(inbound.is_at_rest(), "settled twice is nothing new");
        hear(&mut inbound, 3, false, b"x").unwrap();
        inbound.ack_sent();
        assert!(!inbound.is_at_rest(), "held");
    }
}
