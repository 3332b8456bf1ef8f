//! What the relay writes to the standard error while it runs.

use std::io;

use tracing_subscriber::EnvFilter;

/// What is logged if RUST_LOG does not say it. At `warn` the library of the socket tells to whose address a packet could not be
/// sent: in a log that the operator has not asked for stands nobody's.
const DEFAULT: &str = "warn,quinn_udp=error";

pub(crate) fn begin() {
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_env_filter(EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT)))
        // A log that is on a full disk, or that nobody reads any more, is no reason to panic.
        .log_internal_errors(false)
        .init();
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
    use std::sync::{Arc, Mutex};

    use quinn::udp::{Transmit, UdpSocketState};

    use super::*;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is logged of a packet that cannot be sent.
    fn logged(filter: &str) -> String {
        // Whoever claims to have sent from port 0 is answered there.
        let destination = SocketAddr::new(Ipv4Addr::new(127, 9, 8, 7).into(), 0);
        let log = Log::default();
        let written = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || written.clone())
            .with_env_filter(EnvFilter::new(filter))
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
            let state = UdpSocketState::new((&socket).into()).unwrap();
            let transmit =
                Transmit { destination, ecn: None, contents: b"an answer", segment_size: None, src_ip: None };
            // What is lost here is as good as lost on the way.
            state.send((&socket).into(), &transmit).unwrap();
            tracing::warn!("and this is logged");
        });
        String::from_utf8(log.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn by_default_no_ones_address_is_in_the_log_not_even_of_who_cannot_be_answered() {
        let by_default = logged(DEFAULT);
        assert!(by_default.contains("and this is logged"), "{by_default}");
        assert!(!by_default.contains("127.9.8.7"), "{by_default}");
        assert!(logged("warn").contains("127.9.8.7:0"), "it would be found");
    }
}
