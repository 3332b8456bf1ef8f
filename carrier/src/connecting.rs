//! A connection before there is a link over it.

use std::task::Poll;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use thinpost_wire::ids::DeviceKey;
use thinpost_wire::link::LinkConfig;

use crate::connection::Owned;
use crate::{Channel, Down};

/// A connection whose handshake is under way, or has just become complete.
#[derive(Debug)]
pub struct Connecting(Owned);

impl Connecting {
    pub(crate) fn new(connection: Owned) -> Self {
        Self(connection)
    }

    /// Whether a device may send before the relay has answered (0-RTT).
    pub fn speaks_early(&mut self) -> bool {
        self.0.quic().has_0rtt()
    }

    /// The device's key on a relay's connection: known at once when the session is resumed, otherwise when the
    /// handshake is complete.
    pub fn peer_device(&mut self) -> Option<DeviceKey> {
        let identity = self.0.quic().crypto_session().peer_identity()?;
        let keys = identity.downcast::<Vec<CertificateDer<'static>>>().ok()?;
        DeviceKey::from_spki(keys.first()?)
    }

    /// Waits until the handshake is complete. What is left to say for it is not sent yet: it leaves together with the
    /// link's first datagrams. Cancelling loses nothing.
    ///
    /// # Errors
    /// When it fails.
    pub async fn connected(&mut self) -> Result<(), Down> {
        let connection = &mut self.0;
        std::future::poll_fn(|cx| {
            loop {
                connection.poll_input(cx);
                if let Some(down) = connection.down() {
                    return Poll::Ready(Err(down.clone()));
                }
                if connection.is_connected() {
                    return Poll::Ready(Ok(()));
                }
                if connection.take_stirring() {
                    connection.path_is_open();
                }
                connection.transmit();
                connection.poll_unsent(cx);
                if connection.poll_timers(cx, None).is_pending() {
                    return Poll::Pending;
                }
            }
        })
        .await
    }

    /// See [`Channel::unheard_for`].
    pub fn unheard_for(&self) -> Option<Duration> {
        self.0.unheard_for()
    }

    /// See [`Channel::path_is_open`].
    pub fn path_is_open(&mut self) {
        self.0.path_is_open();
    }

    /// The round-trip time that QUIC has measured or, before, assumed.
    pub fn rtt(&self) -> Duration {
        self.0.rtt()
    }

    /// Begins a link over it. Before the handshake is complete, what the link says travels as 0-RTT data, or as the
    /// relay's half of that.
    pub fn open(self, config: LinkConfig) -> Channel {
        Channel::new(self.0, config)
    }
}
