//! How much of objects may be on its way while the path's queue is another's.
//!
//! Whoever keeps queues short gets nothing beside a flow that fills them. So while one does, the link takes what such a flow would: a
//! window that grows with the time since the last loss and not with round trips, which last seconds by then, as Cubic's
//! does (RFC 9438, sections 4.2 and 4.6). Now and then it tries whether the other has gone: half of what is on its way makes half a
//! queue for whoever is alone.

use std::time::Duration;

use super::{PACKET, Time};

/// Cubic's factor, packets a cubed second.
const GROWTH: f64 = 0.4;

/// By how much it grows in a round trip at most.
const GROWTH_MAX: f64 = 1.5;

/// What a loss leaves of the window, once a round trip.
const CUT: f64 = 0.7;

const WINDOW_MIN: f64 = 2.0 * PACKET;

/// Chunks leave at so many windows a round trip: evenly, and not slower than the window has it.
const SPREAD: f64 = 1.25;

/// Whether the other has gone is tried after so long, and after so many round trips.
const TRIED_EVERY: Duration = Duration::from_secs(60);
const TRIED_EVERY_ROUND_TRIPS: f64 = 8.0;

/// Half a window shows in round trips that end so many round trips after it began; what they queue for is then less than this
/// share of what it was if the other has gone.
const SHOWS_AFTER_ROUND_TRIPS: f64 = 1.25;
const ALONE: f64 = 0.58;

/// The window beside a flow that fills the queue.
#[derive(Debug)]
pub(super) struct Contest {
    /// Bytes: as it grew last, before the last cut, and after it.
    window: f64,
    before_cut: f64,
    after_cut: f64,
    cut_at: Time,
    grown_at: Time,
    /// When it is tried next whether the other has gone.
    try_at: Time,
    trial: Option<Trial>,
}

/// Half of what was on its way. The longest round trip since it began is one that began before.
#[derive(Clone, Copy, Debug)]
struct Trial {
    began: Time,
    window: f64,
    /// Seconds, and how many of them it queued.
    longest_rtt: f64,
    queued: f64,
}

impl Contest {
    /// Begins with a window of so many bytes. `rtt`: seconds.
    pub(super) fn new(now: Time, rtt: f64, window: f64) -> Self {
        let window = window.max(WINDOW_MIN);
        Self {
            window,
            before_cut: window,
            after_cut: window,
            cut_at: now,
            grown_at: now,
            try_at: next_trial(now, rtt),
            trial: None,
        }
    }

    /// How many bytes may be on their way.
    pub(super) fn window(&self) -> f64 {
        self.trial.map_or(self.window, |trial| trial.window)
    }

    /// `rtt`: seconds. What is not used does not grow.
    fn grow(&mut self, now: Time, rtt: f64, flying_bytes: u64) {
        let back_after = ((self.before_cut - self.after_cut) / PACKET / GROWTH).cbrt();
        let seconds = now.since(self.cut_at).as_secs_f64() - back_after;
        let cubic = self.before_cut + GROWTH * seconds.powi(3) * PACKET;
        let round_trips = now.since(self.grown_at).as_secs_f64() / rtt;
        self.grown_at = now;
        if self.trial.is_none() && flying_bytes as f64 * 2.0 > self.window {
            self.window = cubic.min(self.window * GROWTH_MAX.powf(round_trips)).max(WINDOW_MIN);
        }
    }

    /// Nothing was on its way until now. What was not tried is not known, so that time does not count (RFC 9438, section 5.8).
    pub(super) fn rested(&mut self, now: Time) {
        self.cut_at = self.cut_at + now.since(self.grown_at);
        self.grown_at = now;
    }

    /// At which pace chunks leave, bytes a second. `rtt`: seconds, smoothed.
    pub(super) fn pace(&self, rtt: f64) -> f64 {
        SPREAD * self.window() / rtt
    }

    /// Something was lost.
    pub(super) fn lost(&mut self, now: Time, rtt: f64, flying_bytes: u64) {
        if self.trial.is_some() || now.since(self.cut_at).as_secs_f64() < rtt {
            return;
        }
        // What is not used has not been tried.
        self.before_cut = self.window.min(flying_bytes as f64 + PACKET).max(WINDOW_MIN);
        self.after_cut = (self.before_cut * CUT).max(WINDOW_MIN);
        (self.window, self.cut_at) = (self.after_cut, now);
    }

    /// A chunk is held, and its round trip, of so many seconds, queued for so many. If the other has gone, returns how long one
    /// takes on the path itself: half of the queue is gone, and without the other half it would be as much shorter again.
    pub(super) fn held(&mut self, now: Time, rtt: f64, queued: f64, flying_bytes: u64) -> Option<f64> {
        self.grow(now, rtt, flying_bytes);
        let Some(trial) = &mut self.trial else {
            let window = self.window.min(flying_bytes as f64) / 2.0;
            if now >= self.try_at && window >= WINDOW_MIN {
                self.trial = Some(Trial { began: now, window, longest_rtt: rtt, queued });
            }
            return None;
        };
        if rtt > trial.longest_rtt {
            (trial.longest_rtt, trial.queued) = (rtt, queued);
        }
        let Trial { began, longest_rtt, queued: queued_before, .. } = *trial;
        if now.since(began).as_secs_f64() < SHOWS_AFTER_ROUND_TRIPS * longest_rtt {
            return None;
        }
        self.trial = None;
        self.try_at = next_trial(now, rtt);
        (queued < queued_before * ALONE).then_some(2.0 * rtt - longest_rtt)
    }
}

/// Counted from now on: whoever is alone by then may have a queue that grows with the window.
fn next_trial(now: Time, rtt: f64) -> Time {
    now + TRIED_EVERY.max(Duration::from_secs_f64(TRIED_EVERY_ROUND_TRIPS * rtt))
}
