//! How long nothing has gone either way.

use std::time::Duration;

use tokio::time::Instant;

/// How long nothing goes either way: what NATs on the way forget a connection after.
pub(crate) struct Quiet {
    pub(crate) since: Instant,
    /// When the last packet left: not every NAT counts what comes in.
    pub(crate) sent_at: Instant,
    /// The longest that ended with something that came.
    pub(crate) ended: Duration,
    /// Whether the last that left was a touch, and whether it was answered.
    pub(crate) touch: Touch,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Touch {
    None,
    Left,
    Answered,
}

impl Quiet {
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        Self { since: now, sent_at: now, ended: Duration::ZERO, touch: Touch::None }
    }

    pub(crate) fn sent(&mut self, touch: Touch) {
        self.sent_at = Instant::now();
        (self.since, self.touch) = (self.sent_at, touch);
    }

    pub(crate) fn heard(&mut self) {
        self.ended = self.ended.max(self.since.elapsed());
        self.since = Instant::now();
    }
}
