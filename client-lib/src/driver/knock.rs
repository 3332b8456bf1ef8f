//! Asks for a few bytes whether a relay can be reached at all.
//!
//! A packet of a connection that nobody knows is answered with a stateless reset (RFC 9000, section 10.3). So a packet of
//! random bytes from a fresh socket, 43 instead of the 1,200 of a handshake, tells whether the path is open while the
//! present connection is silent.

use std::future::poll_fn;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Poll, ready};

use quinn::AsyncUdpSocket;
use quinn::udp::{RecvMeta, Transmit};

use crate::network::{Meter, Metered, Network};
use crate::random::Random;

/// Bytes of a knock: the answer is one shorter, and must be at least 21 (RFC 9000, section 10.3).
const KNOCK_BYTES: usize = 43;

/// The first two bits of a packet that belongs to a connection (RFC 9000, section 17.3.1).
const SHORT_HEADER: u8 = 0b0100_0000;

#[derive(Debug)]
pub(super) struct Knock {
    socket: Metered,
    remote: SocketAddr,
}

impl Knock {
    /// Knocks once.
    pub(super) fn at(
        remote: SocketAddr,
        network: &dyn Network,
        meter: Arc<Meter>,
        random: &mut Random,
    ) -> io::Result<Self> {
        let (socket, _) = network.bind(remote)?;
        let knock = Self { socket: Metered { socket, meter }, remote };
        let mut contents: Vec<u8> = random.bytes::<KNOCK_BYTES>().into();
        contents[0] = SHORT_HEADER | contents[0] & 0b0011_1111;
        let transmit = Transmit {
            destination: remote,
            ecn: None,
            contents: &contents,
            segment_size: None,
            src_ip: None,
        };
        knock.socket.try_send(&transmit)?;
        Ok(knock)
    }

    /// Waits until something comes from there.
    pub(super) async fn answered(&self) -> io::Result<()> {
        poll_fn(|cx| {
            loop {
                let mut bytes = [0; 64];
                let mut meta = [RecvMeta::default()];
                let received =
                    ready!(self.socket.poll_recv(cx, &mut [IoSliceMut::new(&mut bytes)], &mut meta))?;
                if received > 0 && meta[0].addr == self.remote {
                    return Poll::Ready(Ok(()));
                }
            }
        })
        .await
    }
}
