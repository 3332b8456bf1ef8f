//! A relay's probes of a device at rest that says the end of its handshake again: it has not heard that it was understood.

use std::time::Duration;

use tokio::time::Instant;

/// No sooner is another probe worth it, as anybody can make it seem so.
const PROBE_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// QUIC's timers go on for so long after a probe that is not answered, although the link is at rest. A few probe timeouts where a round trip
/// takes seconds. A device that does not hear any of this says the end once more.
const GO_ON_FOR: Duration = Duration::from_secs(60);

#[derive(Default)]
pub(crate) struct Confirming(Option<Probe>);

struct Probe {
    at: Instant,
    /// Acknowledgements heard before.
    acks: u64,
    is_answered: bool,
}

impl Confirming {
    /// Whether a probe is to leave; it then counts as sent. `acks` are those heard so far.
    pub(crate) fn probes(&mut self, acks: u64) -> bool {
        let now = Instant::now();
        let is_due = self.0.as_ref().is_none_or(|last| last.at + PROBE_AGAIN_AFTER <= now);
        if is_due {
            self.0 = Some(Probe { at: now, acks, is_answered: false });
        }
        is_due
    }

    /// So many acknowledgements have been heard.
    pub(crate) fn heard(&mut self, acks: u64) {
        if let Some(probe) = &mut self.0 {
            probe.is_answered |= acks > probe.acks;
        }
    }

    /// Whether the last probe may have been lost, and was sent not long ago.
    pub(crate) fn goes_on(&self) -> bool {
        self.0.as_ref().is_some_and(|probe| !probe.is_answered && probe.at.elapsed() < GO_ON_FOR)
    }
}
