//! What a client tells its application.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use thinpost_wire::frame::{Denial, Refusal};
use thinpost_wire::ids::{AccountKey, AppId, ObjectId};
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;
use tokio_stream::Stream;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;
use tokio_stream::wrappers::{BroadcastStream, WatchStream};

use crate::client::Shared;
use crate::error::StoreError;
use crate::message::{Abandonment, Failure, InboxNumber, MessageId, Received};
use crate::objects::ObjectFailure;

/// How many events a subscriber may be behind before it misses some; see [`Event::Missed`].
pub(crate) const EVENTS_KEPT: usize = 1_024;

/// Messages read from the inbox at a time.
const READ_AT_ONCE: usize = 64;

/// Something that happened. Everything durable can be asked for again after a crash: the inbox by its
/// numbers, a message by [`Client::message_state`](crate::Client::message_state), what a person should know of by
/// [`Client::status`](crate::Client::status).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The link's state has changed.
    Link(LinkState),
    /// The relay has this message on disk and answers for it.
    Custody {
        /// Which.
        message: MessageId,
        /// What the application calls it.
        app_id: Option<AppId>,
    },
    /// The recipient's device has this message.
    Delivered {
        /// Which.
        message: MessageId,
        /// What the application calls it.
        app_id: Option<AppId>,
    },
    /// The recipient has read this message.
    Read {
        /// Which.
        message: MessageId,
        /// What the application calls it.
        app_id: Option<AppId>,
    },
    /// The relay does not take this message for now. It stays in the outbox and is tried again, and those
    /// behind it for the same contact wait with it.
    Delayed {
        /// Which.
        message: MessageId,
        /// What the application calls it.
        app_id: Option<AppId>,
        /// Whose it is to be.
        to: AccountKey,
        /// Why.
        reason: Refusal,
    },
    /// This message will not be delivered.
    Failed {
        /// Which.
        message: MessageId,
        /// What the application calls it.
        app_id: Option<AppId>,
        /// Why.
        reason: Failure,
    },
    /// The relay had this message in custody, no receipt has come, and it is sent no more: whether it has arrived is
    /// not known.
    Abandoned {
        /// Which.
        message: MessageId,
        /// What the application calls it.
        app_id: Option<AppId>,
        /// The recipient's name, if they are a contact.
        contact: Option<String>,
        /// Why.
        reason: Abandonment,
    },
    /// What there was to say to a contact besides messages, as who this is, or what has arrived, was not handed over.
    NotesFailed {
        /// Their name, if they are a contact still.
        contact: Option<String>,
        /// Why.
        reason: Failure,
    },
    /// A contact's messages are sealed for other keys from now on. Show it: either they have another device,
    /// or somebody stands between the two; [`Client::safety_number`](crate::Client::safety_number) tells.
    KeysChanged {
        /// Their name.
        contact: String,
    },
    /// An envelope that no key opens was dropped. Its sender keeps what was in it until a receipt, and sends it again
    /// if it was a contact; it may have been made by anyone who has the ticket.
    Unopened,
    /// A guest whom this home has invited has made themselves known, and is a contact now.
    ContactAdded {
        /// The name that the guest was invited by.
        contact: String,
    },
    /// A stranger has made themselves known; see [`Client::requests`](crate::Client::requests).
    Introduced {
        /// Whose account it is.
        account: AccountKey,
    },
    /// This home was restored from an old copy: its newer self has received messages that are not in it. What
    /// contacts still have comes again.
    Restored,
    /// A contact has lost keys or messages, as when a home is restored from an old copy. What they have not
    /// confirmed is sent to them again.
    AskedAgain {
        /// Their name.
        contact: String,
    },
    /// An object is at the relay, all of it.
    ObjectStored {
        /// Which.
        id: ObjectId,
    },
    /// An object was fetched; [`Client::object`](crate::Client::object) has it.
    ObjectArrived {
        /// Which.
        id: ObjectId,
    },
    /// More of an object is at the relay, or here.
    ObjectProgress {
        /// Which.
        id: ObjectId,
        /// How many of its bytes.
        held_bytes: u64,
        /// How many it has.
        size: u64,
    },
    /// An object is neither handed over nor fetched any more, and forgotten here.
    ObjectFailed {
        /// Which.
        id: ObjectId,
        /// Why.
        reason: ObjectFailure,
    },
    /// The relay remembers no more revoked tickets of this account, and still takes what comes under one that
    /// was to be revoked. [`Client::void_tickets`](crate::Client::void_tickets) helps.
    RevocationsFull,
    /// A message has arrived, and is in the inbox. None is ever missed or told twice by one subscription.
    Received(Received),
    /// The subscriber was too slow for so many of the other events.
    Missed(u64),
}

/// How the client stands with its relay.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LinkState {
    /// Not wanted: nothing is sent or received until [`Client::connect`](crate::Client::connect).
    Offline,
    /// Trying.
    Connecting,
    /// The relay has answered.
    Online,
    /// The link ended or did not come about; the next attempt follows after the pause.
    Waiting {
        /// How long until the next attempt, unless the network changes before.
        retry_in: Duration,
        /// Why, for people.
        reason: String,
    },
    /// What answers at the relay's address does not hold the key in its ticket. Tried again, rarely.
    WrongKey,
    /// The relay broke the protocol. Tried again, rarely.
    Violation(String),
    /// The relay does not admit this device. Not tried again until `connect` is called.
    Denied(Denial),
    /// Another process uses this device's key. Not tried again until `connect` is called.
    Superseded,
    /// The home's file failed. Close the client.
    StoreFailed(StoreError),
}

impl LinkState {
    /// Whether the client has given up until it is told to connect.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Denied(_) | Self::Superseded | Self::StoreFailed(_))
    }

    /// One word for it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Offline => "offline",
            Self::Connecting => "connecting",
            Self::Online => "online",
            Self::Waiting { .. } => "waiting",
            Self::WrongKey => "wrong-key",
            Self::Violation(_) => "violation",
            Self::Denied(_) => "denied",
            Self::Superseded => "superseded",
            Self::StoreFailed(_) => "store-failed",
        }
    }

    /// What there is to say beyond the word.
    pub fn detail(&self) -> Option<String> {
        match self {
            Self::Offline | Self::Connecting | Self::Online => None,
            Self::Waiting { reason, .. } => Some(reason.clone()),
            Self::WrongKey => Some("the relay does not hold the key in its ticket".to_owned()),
            Self::Violation(what) => Some(what.clone()),
            Self::Denied(denial) => Some(denial.to_string()),
            Self::Superseded => Some("another process uses this device's key".to_owned()),
            Self::StoreFailed(error) => Some(error.to_string()),
        }
    }
}

/// The link, in figures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkStatus {
    /// See there.
    pub state: LinkState,
    /// The link's smoothed round-trip time, or the last one's; none before the first.
    pub rtt: Option<Duration>,
    /// Bytes sent since the home was opened, with 28 bytes of IP and UDP header for each packet.
    pub sent_bytes: u64,
    /// Bytes received since the home was opened, counted likewise.
    pub received_bytes: u64,
    /// Messages that are on the link or could go there now.
    pub pending: usize,
    /// Since when everything that was said both ways is settled; none while something is not.
    pub at_rest_since: Option<Instant>,
    /// Whether all that waited at the relay when the link came about has arrived.
    pub caught_up: bool,
    /// The driver knows of all that was enqueued before this many urges.
    pub(crate) urges_seen: u64,
}

/// A stream of events that never ends before the client does; see [`Client::subscribe`](crate::Client::subscribe).
pub struct Subscription {
    shared: Arc<Shared>,
    after: InboxNumber,
    /// Whether the inbox could not be read, which is told once.
    has_failed: bool,
    read: VecDeque<Received>,
    events: BroadcastStream<Event>,
    heads: WatchStream<InboxNumber>,
}

impl Subscription {
    pub(crate) fn new(shared: Arc<Shared>, after: InboxNumber) -> Self {
        let events: broadcast::Receiver<Event> = shared.events.subscribe();
        let heads: watch::Receiver<InboxNumber> = shared.inbox_head.clone();
        let mut subscription = Self {
            shared,
            after,
            has_failed: false,
            read: VecDeque::new(),
            events: BroadcastStream::new(events),
            heads: WatchStream::new(heads),
        };
        subscription.seek(after);
        subscription
    }

    /// The next event; none when the client is closed, or when its home failed, which is told before. Cancelling loses nothing.
    pub async fn next(&mut self) -> Option<Event> {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    /// Goes on with the first message after this place in the inbox. A place beyond the last message is one of a newer self of this home,
    /// which was put back from a copy: what comes next is told all the same. After `InboxNumber(u64::MAX)` none is told.
    pub fn seek(&mut self, after: InboxNumber) {
        self.read.clear();
        let head = *self.shared.inbox_head.borrow();
        self.after = if after == InboxNumber(u64::MAX) { after } else { after.min(head) };
    }

    /// Reads on from the inbox. Done here and not on another thread, as it comes from memory mostly.
    fn read_inbox(&mut self) -> Result<(), StoreError> {
        self.read.extend(self.shared.inbox(self.after, READ_AT_ONCE)?);
        if let Some(last) = self.read.back() {
            self.after = last.number;
        }
        Ok(())
    }
}

impl Stream for Subscription {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        loop {
            match Pin::new(&mut self.events).poll_next(cx) {
                Poll::Ready(Some(Ok(event))) => return Poll::Ready(Some(event)),
                Poll::Ready(Some(Err(BroadcastStreamRecvError::Lagged(count)))) => {
                    return Poll::Ready(Some(Event::Missed(count)));
                }
                // The sender lives as long as what this subscription itself holds.
                Poll::Ready(None) | Poll::Pending => {}
            }
            if let Some(received) = self.read.pop_front() {
                return Poll::Ready(Some(Event::Received(received)));
            }
            let head = *self.shared.inbox_head.borrow();
            if head <= self.after {
                match Pin::new(&mut self.heads).poll_next(cx) {
                    Poll::Ready(Some(_)) => continue,
                    Poll::Ready(None) => return Poll::Ready(None),
                    Poll::Pending => return Poll::Pending,
                }
            }
            if self.has_failed {
                return Poll::Ready(None);
            }
            if let Err(error) = self.read_inbox() {
                tracing::error!(%error, "the inbox cannot be read");
                self.has_failed = true;
                return Poll::Ready(Some(Event::Link(LinkState::StoreFailed(error))));
            }
            if self.read.is_empty() {
                // What was there has been released: nothing more is to come before the head.
                self.after = head;
            }
        }
    }
}
