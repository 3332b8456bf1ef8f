//! What is due when: a queue in order of time, and of insertion where times are equal.

use std::{cmp::Ordering, collections::BinaryHeap, time::Duration};

/// A time-ordered queue. Entries of the same time leave in the order in which they came, so that a
/// world never depends on how a heap breaks ties.
#[derive(Debug)]
pub(crate) struct Agenda<T> {
    heap: BinaryHeap<Entry<T>>,
    next_sequence: u64,
}

#[derive(Debug)]
struct Entry<T> {
    at: Duration,
    sequence: u64,
    item: T,
}

impl<T> Agenda<T> {
    pub(crate) fn new() -> Self {
        Self { heap: BinaryHeap::new(), next_sequence: 0 }
    }

    pub(crate) fn push(&mut self, at: Duration, item: T) {
        self.heap.push(Entry { at, sequence: self.next_sequence, item });
        self.next_sequence += 1;
    }

    /// The time of the first entry.
    pub(crate) fn next_at(&self) -> Option<Duration> {
        self.heap.peek().map(|entry| entry.at)
    }

    /// Takes the first entry if its time is `now` or earlier.
    pub(crate) fn pop_due(&mut self, now: Duration) -> Option<(Duration, T)> {
        if self.next_at()? > now {
            return None;
        }
        self.heap.pop().map(|entry| (entry.at, entry.item))
    }
}

impl<T> Ord for Entry<T> {
    /// Reversed, because [`BinaryHeap`] yields its greatest entry first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.sequence).cmp(&(self.at, self.sequence))
    }
}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<T> Eq for Entry<T> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_leave_in_order_of_time_and_then_of_arrival() {
        let mut agenda = Agenda::new();
        for (ms, item) in [(5, 'c'), (1, 'a'), (5, 'd'), (1, 'b'), (9, 'e')] {
            agenda.push(Duration::from_millis(ms), item);
        }
        let now = Duration::from_millis(5);
        let left: String = std::iter::from_fn(|| agenda.pop_due(now)).map(|(_, item)| item).collect();
        assert_eq!(left, "abcd");
        assert_eq!(agenda.next_at(), Some(Duration::from_millis(9)));
    }
}
