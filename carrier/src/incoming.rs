//! Those who want a connection with a relay.

use std::net::SocketAddr;

use tokio::sync::{mpsc, oneshot};

use crate::Down;
use crate::connecting::Connecting;
use crate::endpoint::Command;

/// Those who want one, in the order in which they came.
#[derive(Debug)]
pub struct Accepting(pub(crate) mpsc::UnboundedReceiver<Incoming>);

impl Accepting {
    /// The next; none when there will be no more. Cancelling loses nothing.
    pub async fn next(&mut self) -> Option<Incoming> {
        self.0.recv().await
    }
}

/// Somebody who wants a connection, and for whom next to nothing has been spent. Dropped, it is refused.
#[derive(Debug)]
pub struct Incoming {
    quic: Option<Box<quinn_proto::Incoming>>,
    remote: SocketAddr,
    is_validated: bool,
    may_retry: bool,
    commands: mpsc::UnboundedSender<Command>,
}

/// How somebody gets no connection.
#[derive(Clone, Copy, Debug)]
pub(crate) enum TurnedAway {
    Refused,
    Retried,
    Ignored,
}

impl Incoming {
    pub(crate) fn new(quic: quinn_proto::Incoming, commands: mpsc::UnboundedSender<Command>) -> Self {
        Self {
            remote: quic.remote_address(),
            is_validated: quic.remote_address_validated(),
            may_retry: quic.may_retry(),
            quic: Some(Box::new(quic)),
            commands,
        }
    }

    /// Where they say they are.
    pub fn remote_address(&self) -> SocketAddr {
        self.remote
    }

    /// Whether they have proven it.
    pub fn remote_address_validated(&self) -> bool {
        self.is_validated
    }

    /// Whether they may be asked to prove it.
    pub fn may_retry(&self) -> bool {
        self.may_retry
    }

    /// Begins the handshake.
    ///
    /// # Errors
    /// When they cannot be understood, or have waited too long.
    pub async fn accept(mut self) -> Result<Connecting, Down> {
        let gone = || Down::Failed("the socket failed".to_owned());
        let (answer, answered) = oneshot::channel();
        let quic = self.quic.take().ok_or_else(gone)?;
        self.commands.send(Command::Accept(quic, answer)).map_err(|_| gone())?;
        Ok(Connecting::new(answered.await.map_err(|_| gone())??))
    }

    /// Tells them that there is no connection for them.
    pub fn refuse(self) {
        drop(self);
    }

    /// Asks them to prove where they are (QUIC's Retry), and forgets them. Who has proven it is ignored.
    pub fn retry(mut self) {
        self.turn_away(TurnedAway::Retried);
    }

    /// Forgets them.
    pub fn ignore(mut self) {
        self.turn_away(TurnedAway::Ignored);
    }

    fn turn_away(&mut self, how: TurnedAway) {
        if let Some(quic) = self.quic.take() {
            let _ = self.commands.send(Command::TurnAway(quic, how));
        }
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.turn_away(TurnedAway::Refused);
    }
}
