//! A bounded visit to the relay: for phones that wake an application for a few seconds now and then.

use std::time::Duration;

use thinpost_wire::frame::Refusal;
use tokio::sync::broadcast::error::TryRecvError;
use tokio::time::{Instant, sleep_until};

use crate::client::Client;
use crate::error::StoreError;
use crate::event::{Event, LinkState, LinkStatus};

/// What a [`Client::sync`] may use up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// How long it may take.
    pub time: Duration,
    /// Bytes on the air, both ways, IP and UDP headers included. What is on its way when they are used
    /// up still counts: up to the link's window more. Below [`SYNC_BYTES_MIN`] nothing comes of it.
    pub bytes: u64,
}

/// What a connection takes before the first message, rounded up, bytes: less is no budget.
pub const SYNC_BYTES_MIN: u64 = 5_000;

/// Why a sync has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SyncEnd {
    /// All that could be sent is in custody, and all that waited has arrived.
    Complete,
    /// The time is used up.
    OutOfTime,
    /// The bytes are used up.
    OutOfBytes,
    /// The link cannot be had; the state says why.
    NoLink(LinkState),
}

/// What a sync has done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncReport {
    /// Why it ended.
    pub end: SyncEnd,
    /// Messages taken into custody.
    pub custody: u64,
    /// Messages that failed.
    pub failed: u64,
    /// Messages that arrived.
    pub received: u64,
    /// Messages left in the outbox.
    pub waiting: u64,
    /// Why the last of them that the relay was asked to take was not taken.
    pub delayed: Option<Refusal>,
    /// Bytes on the air, both ways, IP and UDP headers included.
    pub bytes: u64,
}

impl Client {
    /// Connects, sends and receives all there is within the budget, and leaves the link as it is wanted by
    /// then. Several may run at a time.
    ///
    /// # Errors
    /// When the home's file failed. A relay that cannot be reached is no error; see [`SyncEnd`].
    pub async fn sync(&self, budget: Budget) -> Result<SyncReport, StoreError> {
        let before = self.status().await?;
        let bytes = |link: &LinkStatus| link.sent_bytes + link.received_bytes;
        let bytes_before = bytes(&before.link);
        let mut events = self.events();
        let visit = self.visit();
        let end = self.stay(budget, visit.urges, |link| bytes(link) - bytes_before).await;
        drop(visit);
        self.link_released().await;
        // A file that has failed tells no more than that.
        if let LinkState::StoreFailed(error) = &self.link_status().borrow().state {
            return Err(error.clone());
        }
        let after = self.status().await?;
        let mut delayed = None;
        loop {
            match events.try_recv() {
                Ok(Event::Delayed { reason, .. }) => delayed = Some(reason),
                Ok(_) | Err(TryRecvError::Lagged(_)) => {}
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        Ok(SyncReport {
            end,
            custody: after.custody - before.custody,
            failed: after.failed - before.failed,
            received: after.received.0 - before.received.0,
            waiting: after.waiting,
            delayed: delayed.filter(|_| after.waiting > 0),
            bytes: bytes(&after.link) - bytes_before,
        })
    }

    /// Until the driver, which knows of this urge, has nothing more to do.
    async fn stay(&self, budget: Budget, urges: u64, used: impl Fn(&LinkStatus) -> u64) -> SyncEnd {
        let deadline = Instant::now() + budget.time;
        let mut link = self.link_status();
        loop {
            let now = Instant::now();
            let status = link.borrow_and_update().clone();
            let has_tried = status.urges_seen >= urges;
            if used(&status) >= budget.bytes {
                return SyncEnd::OutOfBytes;
            }
            let is_hopeless = matches!(status.state, LinkState::WrongKey | LinkState::Violation(_));
            let has_failed = matches!(status.state, LinkState::StoreFailed(_));
            if has_failed || has_tried && (status.state.is_final() || is_hopeless) {
                return SyncEnd::NoLink(status.state);
            }
            if now >= deadline {
                return match status.state {
                    LinkState::Waiting { .. } => SyncEnd::NoLink(status.state),
                    _ => SyncEnd::OutOfTime,
                };
            }
            let is_done = status.caught_up && status.pending == 0 && status.at_rest_since.is_some();
            if has_tried && is_done && status.state == LinkState::Online {
                return SyncEnd::Complete;
            }
            tokio::select! {
                biased;
                changed = link.changed() => if changed.is_err() {
                    return SyncEnd::NoLink(LinkState::Offline);
                },
                () = sleep_until(deadline) => {}
            }
        }
    }
}
