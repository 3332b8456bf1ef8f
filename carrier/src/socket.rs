//! Hands datagrams of QUIC to sockets.

use std::io;

use quinn::{AsyncUdpSocket, udp};
use quinn_proto::{EcnCodepoint, Transmit};

/// Whether a socket took a datagram. One that it refuses for another reason than being full is lost, as on the way.
pub(crate) fn send(socket: &dyn AsyncUdpSocket, transmit: &Transmit, bytes: &[u8]) -> bool {
    let sent = socket.try_send(&for_socket(transmit, bytes));
    !sent.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

/// How a socket wants it.
pub(crate) fn for_socket<'a>(transmit: &Transmit, bytes: &'a [u8]) -> udp::Transmit<'a> {
    udp::Transmit {
        destination: transmit.destination,
        ecn: transmit.ecn.map(|ecn| match ecn {
            EcnCodepoint::Ect0 => udp::EcnCodepoint::Ect0,
            EcnCodepoint::Ect1 => udp::EcnCodepoint::Ect1,
            EcnCodepoint::Ce => udp::EcnCodepoint::Ce,
        }),
        contents: &bytes[..transmit.size],
        segment_size: transmit.segment_size,
        src_ip: transmit.src_ip,
    }
}
