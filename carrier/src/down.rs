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
    /// This end closed it for want of memory: it held more than any other when there was none left.
    #[error("no room is left for what it holds")]
    NoRoom,
    /// QUIC or TLS failed, or the socket did.
    #[error("the connection failed: {0}")]
    Failed(String),
}

impl From<ConnectionError> for Down {
    fn from(error: ConnectionError) -> Self {
        /// How TLS answers a key that a verifier refuses: the alerts `bad_certificate` (42),
        /// `certificate_unknown` (46) and `access_denied` (49), plus 0x100 (RFC 9001, section 4.8).
        const REFUSED_KEY: [u64; 3] = [0x100 + 42, 0x100 + 46, 0x100 + 49];
        match error {
            ConnectionError::ApplicationClosed(close) => {
                match Close::from_wire(close.error_code.into_inner(), &close.reason) {
                    Some(close) => Self::Closed(close),
                    None => Self::Failed(close.to_string()),
                }
            }
            ConnectionError::Reset => Self::Forgotten,
            ConnectionError::TimedOut => Self::TimedOut,
            ConnectionError::LocallyClosed => Self::ClosedHere,
            ConnectionError::TransportError(error) if REFUSED_KEY.contains(&u64::from(error.code)) => {
                Self::WrongKey
            }
            other => Self::Failed(other.to_string()),
        }
    }
}
