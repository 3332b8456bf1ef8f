//! A relay's probes of a device at rest that says the end of its handshake again: it has not heard that it was understood.

use std::time::Duration;

use tokio::time::Instant;

/// No sooner is another probe worth it, as anybody can make it seem so.
const PROBE_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// QUIC's timers go on for so long after the answer to a probe, although the link is at rest: what the answer makes leave again may
/// be lost as well. A few probe timeouts where a round trip takes seconds.
const GO_ON_FOR: Duration = Duration::from_secs(60);

#[derive(Default)]
pub(crate) struct Confirming(Option<Probe>);

struct Probe {
    at: Instant,
    /// Acknowledgements heard before.
    acks: u64,
    answered_at: Option<Instant>,
}

impl Confirming {
    /// Whether a probe is to leave; it then counts as sent. `acks` are those heard so far.
    pub(crate) fn probes(&mut self, acks: u64) -> bool {
        let now = Instant::now();
        let is_due = self.0.as_ref().is_none_or(|last| last.at + PROBE_AGAIN_AFTER <= now);
        if is_due {
            self.0 = Some(Probe { at: now, acks, answered_at: None });
        }
        is_due
    }

    /// So many acknowledgements have been heard.
    pub(crate) fn heard(&mut self, acks: u64) {
        if let Some(probe) = self.0.as_mut().filter(|probe| acks > probe.acks) {
            probe.answered_at.get_or_insert_with(Instant::now);
        }
    }

    /// Whether the last probe is not answered, or what its answer makes leave may have been lost.
    pub(crate) fn goes_on(&self) -> bool {
        let answered_at = self.0.as_ref().map(|probe| probe.answered_at);
        answered_at.is_some_and(|at| at.is_none_or(|at| at.elapsed() < GO_ON_FOR))
    }
}
