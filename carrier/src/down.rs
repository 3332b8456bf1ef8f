//! Why connections end.

use quinn_proto::ConnectionError;
use thinpost_wire::frame::Close;
use thinpost_wire::link::LinkError;

/// Why a channel has ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Down {
    /// The other end said why.
    #[error("closed by the other end: {0:?}")]
    Closed(Close),
    /// The other end does not know the connection any more, as after a restart.
    #[error("the other end has forgotten the connection")]
    Forgotten,
    /// Nothing came for too long.
    #[error("nothing came for too long")]
    TimedOut,
    /// This end closed it.
    #[error("closed here")]
    ClosedHere,
    /// The other end proved to hold another key than expected.
    #[error("the other end holds another key than expected")]
    WrongKey,
    /// The other end broke the protocol; the connection was closed for it.
    #[error("the other end broke the protocol: {0}")]
    Violation(LinkError),
    /// No version of the protocol is known to both. Whoever is on the way can say so in the other end's place.
    #[error("the other end speaks another version of the protocol")]
    OtherVersion,
    /// This end closed it for want of memory: it held more than any other when there was none left.
    #[error("no room is left for what it holds")]
    NoRoom,
    /// QUIC or TLS failed, or the socket did; for people, without control characters, as the other end may have written it.
    #[error("the connection failed: {0}")]
    Failed(String),
}

impl From<ConnectionError> for Down {
    fn from(error: ConnectionError) -> Self {
        /// How TLS answers a key that a verifier refuses: the alerts `bad_certificate` (42),
        /// `certificate_unknown` (46) and `access_denied` (49), plus 0x100 (RFC 9001, section 4.8).
        const REFUSED_KEY: [u64; 3] = [0x100 + 42, 0x100 + 46, 0x100 + 49];
        /// The alert `no_application_protocol` (120) in the same way.
        const NO_PROTOCOL: u64 = 0x100 + 120;
        match error {
            ConnectionError::ApplicationClosed(close) => {
                match Close::from_wire(close.error_code.into_inner(), &close.reason) {
                    Some(close) => Self::Closed(close),
                    None => failed(&close),
                }
            }
            ConnectionError::Reset => Self::Forgotten,
            ConnectionError::TimedOut => Self::TimedOut,
            ConnectionError::LocallyClosed => Self::ClosedHere,
            ConnectionError::TransportError(error) if REFUSED_KEY.contains(&u64::from(error.code)) => {
                Self::WrongKey
            }
            ConnectionError::ConnectionClosed(close) if u64::from(close.error_code) == NO_PROTOCOL => {
                Self::OtherVersion
            }
            other => failed(&other),
        }
    }
}

fn failed(why: &dyn std::fmt::Display) -> Down {
    let why = why.to_string();
    Down::Failed(why.replace(char::is_control, "\u{fffd}"))
}

#[cfg(test)]
mod tests {
    use quinn_proto::{ApplicationClose, ConnectionClose, TransportErrorCode, VarInt};

    use super::*;

    #[test]
    fn what_the_other_end_writes_steers_no_terminal() {
        let reason = &b"\x1b[2Jbusy\n"[..];
        let (code, frame_type) = (TransportErrorCode::NO_ERROR, None);
        let closed = ConnectionClose { error_code: code, frame_type, reason: reason.into() };
        let application = ApplicationClose { error_code: VarInt::from_u32(99), reason: reason.into() };
        for error in
            [ConnectionError::ConnectionClosed(closed), ConnectionError::ApplicationClosed(application)]
        {
            let Down::Failed(why) = error.into() else { panic!("no reason that is known") };
            assert!(why.contains("[2Jbusy") && !why.contains(char::is_control), "{why:?}");
        }
    }
}
