//! Who owns a connection.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use quinn::AsyncUdpSocket;
use quinn_proto::ConnectionHandle;
use thinpost_wire::frame::Close;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::{CRYPTO_FRAMES_MAX, Connection, Early, Heard};
use crate::clock::{Clock, from_quic};
use crate::confirming::Confirming;
use crate::endpoint::Command;
use crate::packets::Packets;
use crate::quiet::Quiet;
use crate::repeats::{Opening, Repeats};
use crate::spoken::Spoken;

/// A connection in somebody's hands. Dropped, it is closed, and its endpoint sees it through to its end.
pub(crate) struct Owned(Option<Box<Connection>>);

impl Owned {
    /// A new connection.
    pub(crate) fn new(
        handle: ConnectionHandle,
        mut quic: quinn_proto::Connection,
        events: mpsc::Receiver<Heard>,
        endpoint: mpsc::UnboundedSender<Command>,
        socket: Arc<dyn AsyncUdpSocket>,
        clock: Clock,
        idle_timeout: Option<Duration>,
    ) -> Self {
        let began = Instant::now();
        let rtt = from_quic(quic.rtt());
        let crypto_frames = quic.stats().frame_rx.crypto;
        let remote = quic.remote_address();
        let packets = Packets::of(&quic);
        let room = quic.datagrams().send_buffer_space();
        Self(Some(Box::new(Connection {
            quic: Box::new(quic),
            handle,
            events,
            endpoint,
            socket,
            unsent: None,
            clock,
            timer: Box::pin(sleep_until(began)),
            connected_at: None,
            opening: Opening::default(),
            copied_bytes: 0,
            repeats: Repeats::new(rtt),
            repeated_rtt: None,
            repeats_end: false,
            retry: super::Retry::None,
            confirming: Confirming::default(),
            is_confirmed: false,
            end_answered: None,
            stirs: false,
            down: None,
            early: Early { began, heard: None, crypto_frames },
            crypto_frames_max: CRYPTO_FRAMES_MAX,
            spoken: Spoken::new(remote, room),
            packets,
            quiet: Quiet::new(),
            rests: false,
            idle_timeout,
        })))
    }
}

impl Deref for Owned {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.0.as_ref().expect("only dropping takes it")
    }
}

impl DerefMut for Owned {
    fn deref_mut(&mut self) -> &mut Connection {
        self.0.as_mut().expect("only dropping takes it")
    }
}

impl std::fmt::Debug for Owned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("handle", &self.handle).finish_non_exhaustive()
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        let Some(mut connection) = self.0.take() else { return };
        connection.close(Close::Done);
        let endpoint = connection.endpoint.clone();
        let _ = endpoint.send(Command::Finish(connection));
    }
}
