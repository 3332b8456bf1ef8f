//! The receiving half: puts items in order, frames together, and says what to acknowledge.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::{LinkError, Time};
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

    pub(super) fn handle_items(&mut self, now: Time, items: &[Item<'_>]) -> Result<(), LinkError> {
        for item in items {
            let is_new = item.number > self.taken && !self.held.contains_key(&item.number);
            if !is_new {
                // The acknowledgement was lost: say it again.
                self.ack_by(now);
            } else if item.number == self.taken + 1 {
                self.take(item.number, item.more, Bytes::copy_from_slice(item.bytes))?;
                self.take_held()?;
                self.ack_by(now + self.gather.max(ACK_DELAY));
            } else if self.held_bytes + item.bytes.len() <= HOLD_BYTES_MAX {
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

    pub(super) fn is_at_rest(&self) -> bool {
        self.ack_due.is_none() && self.taken == self.watermark && self.held.is_empty()
    }
}
