//! How sessions end.

use thinpost_carrier::Down;
use thinpost_wire::batch::Transfer;
use thinpost_wire::frame::{Close, Denial, FrameError};
use thinpost_wire::ids::Handle;
use thinpost_wire::link::LinkError;

use crate::store::{CommitError, StoreError};

/// Why a session ends, if not because the channel does.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    #[error(transparent)]
    Down(#[from] Down),
    #[error("the device broke the protocol: {0}")]
    Misbehaved(Misbehaviour),
    #[error("turned away: {0}")]
    Denied(#[from] Denial),
    #[error("ended by the relay: {0:?}")]
    Told(Close),
    #[error("the store: {0}")]
    Store(#[from] StoreError),
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// How a device can break the rules of frames.
#[derive(Debug, thiserror::Error)]
pub(super) enum Misbehaviour {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("the first frame is no hello, or a later one is")]
    Hello,
    #[error("handle {} is not the next", .0.0)]
    Handle(Handle),
    #[error("a submit without a number")]
    Numbering,
    #[error("more handles than a table holds")]
    TableFull,
    #[error("transfer {} is not the next", .0.0)]
    Transfer(Transfer),
    #[error(transparent)]
    Link(#[from] LinkError),
}

impl<E: Into<Misbehaviour>> From<E> for End {
    fn from(error: E) -> Self {
        Self::Misbehaved(error.into())
    }
}

impl End {
    /// What the device is told, unless the channel has ended already.
    pub(super) fn close(&self) -> Option<Close> {
        match self {
            Self::Down(_) => None,
            Self::Misbehaved(_) => Some(Close::Violation),
            Self::Denied(denial) => Some(Close::Denied(*denial)),
            Self::Told(close) => Some(*close),
            Self::Store(_) | Self::Commit(_) => Some(Close::Restarting),
        }
    }
}
