//! Messages, as an application sends and receives them.

use std::fmt;

use serde::{Deserialize, Serialize};
use thinpost_wire::frame::Refusal;
use thinpost_wire::ids::{AccountKey, AppId};

/// Names a message that was sent, among all of one home. Later messages have larger ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MessageId(pub u64);

impl MessageId {
    /// From here on the outbox holds no messages but parcels of notes only, behind all messages.
    pub(crate) const FIRST_NOTES: Self = Self(1 << 63);

    pub(crate) fn is_notes(self) -> bool {
        self >= Self::FIRST_NOTES
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A place in the inbox. Counts from 1 without gaps; 0 is before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct InboxNumber(pub u64);

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Text for a person.
    Text(String),
    /// Bytes for an application.
    Data(Vec<u8>),
}

/// A message to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// What it says; at most [`CONTENT_BYTES_MAX`](crate::CONTENT_BYTES_MAX) bytes.
    pub content: Content,
    /// What the application calls it: comes back in every event, and reaches the recipient.
    pub app_id: Option<AppId>,
    /// The relay may read it: for what is no secret. It saves about 65 bytes on a short message that
    /// is sent alone. It has no receipt: custody is the last that is known of it, and a relay that loses its disk
    /// loses it, or takes it a second time if it had not answered yet.
    pub relay_visible: bool,
}

impl Message {
    fn new(content: Content) -> Self {
        Self { content, app_id: None, relay_visible: false }
    }

    /// Bytes for an application.
    pub fn data(data: impl Into<Vec<u8>>) -> Self {
        Self::new(Content::Data(data.into()))
    }

    /// The same, readable by the relay: not encrypted end to end, and under the sender's name.
    #[must_use]
    pub fn relay_visible(self) -> Self {
        Self { relay_visible: true, ..self }
    }

    /// The same under the application's own id.
    #[must_use]
    pub fn with_app_id(self, app_id: AppId) -> Self {
        Self { app_id: Some(app_id), ..self }
    }
}

impl From<&str> for Message {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl From<String> for Message {
    fn from(text: String) -> Self {
        Self::new(Content::Text(text))
    }
}

/// What a received message says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ReceivedContent {
    /// Text for a person.
    Text(String),
    /// Bytes for an application.
    Data(Vec<u8>),
    /// What this version cannot read, as it came: its sender is newer, or faulty.
    Unreadable(Vec<u8>),
}

/// A message from the inbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Its place in the inbox.
    pub number: InboxNumber,
    /// Who sent it: proven by their key if it was sealed, otherwise as the relay says. None: nobody known.
    pub from: Option<AccountKey>,
    /// Nobody on the way could read it.
    pub sealed: bool,
    /// The key of who sealed it: tells two senders apart of whom nothing else is known. None if it was not sealed, or
    /// cannot be read.
    pub sealed_by: Option<[u8; 32]>,
    /// The sender's name among the contacts, if it is one.
    pub contact: Option<String>,
    /// What the sending application calls it.
    pub app_id: Option<AppId>,
    /// What it says.
    pub content: ReceivedContent,
    /// Seconds from writing to arrival, as far as is known; 0 for less than two.
    pub age_s: u32,
    /// When it arrived: milliseconds since 1970 by this device's clock.
    pub received_unix_ms: u64,
}

/// Why a message will not be delivered, for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// The relay refused it in a way that trying again does not change.
    #[error("{0}")]
    Refused(Refusal),
    /// It waited for longer than its lifetime. If it had been on its way when a link broke, the relay may
    /// have taken it even so.
    #[error("it could not be delivered within its lifetime")]
    Expired,
    /// The recipient's keys in its contact's ticket are none.
    #[error("the contact's keys cannot be used")]
    BadKeys,
    /// No handle was left for another recipient. Earlier versions said so; now a new table of handles is begun.
    #[error("this device has written to as many accounts as a relay keeps apart")]
    TooManyRecipients,
}

/// Why a message that the relay had in custody is sent no more, though no receipt has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum Abandonment {
    /// It was to be sent again, and that failed for good.
    #[error("when it was sent again: {0}")]
    Failed(Failure),
    /// It got lost again and again.
    #[error("it was sent six times and never confirmed")]
    TooOften,
    /// More later messages than a home keeps have no receipt either.
    #[error("too many later messages are not confirmed either")]
    TooMany,
    /// No receipt came within its lifetime.
    #[error("it was not confirmed within its lifetime")]
    Expired,
}

/// How far a sent message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum MessageState {
    /// In the outbox.
    Waiting,
    /// The relay has it on disk and answers for it.
    Custody,
    /// The recipient's device has it.
    Delivered,
    /// The recipient has read it.
    Read,
    /// It will not be delivered.
    Failed(Failure),
    /// The relay had it in custody, no receipt has come, and it is sent no more: nobody here knows whether it has
    /// arrived. A receipt that comes after all makes it [`MessageState::Delivered`].
    Abandoned(Abandonment),
}
