//! One clear line and an exit code for everything that can fail.

use std::fmt;
use std::io;
use std::str::Utf8Error;

use thinpost_client::ticket::TicketError;
use thinpost_client::{
    ContactError, CreateError, Denial, Failure as MessageFailure, GrantError, LinkState, OpenError,
    SendError, SetKeyError, StoreError, WipeError,
};

/// Exit codes, after BSD's sysexits.
pub(crate) mod exit {
    pub(crate) const USAGE: u8 = 64;
    pub(crate) const DATA: u8 = 65;
    pub(crate) const NO_INPUT: u8 = 66;
    pub(crate) const CANNOT_CREATE: u8 = 73;
    pub(crate) const IO: u8 = 74;
    pub(crate) const TEMPORARY: u8 = 75;
    pub(crate) const PROTOCOL: u8 = 76;
    pub(crate) const DENIED: u8 = 77;
}

/// Why a command ends early.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) code: u8,
    what: String,
}

impl Failure {
    pub(crate) fn new(code: u8, what: impl Into<String>) -> Self {
        Self { code, what: what.into() }
    }

    /// Whoever reads standard output has had enough: an end like any other.
    fn quiet() -> Self {
        Self::new(0, "")
    }

    /// This has been done before it failed.
    pub(crate) fn after(self, done: impl fmt::Display) -> Self {
        if self.is_quiet() { self } else { Self { what: format!("{done}; {}", self.what), ..self } }
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.code == 0
    }

    /// A file, or whatever else of the system has a name for a person.
    pub(crate) fn of_file(name: impl fmt::Display, error: &io::Error) -> Self {
        let code = if error.kind() == io::ErrorKind::NotFound { exit::NO_INPUT } else { exit::IO };
        Self::new(code, format!("{name}: {error}"))
    }

    /// A file that a person named holds something else than text. What it holds may be a secret.
    pub(crate) fn not_text(name: impl fmt::Display, error: Utf8Error) -> Self {
        Self::new(exit::DATA, format!("{name}: no UTF-8 at byte {}", error.valid_up_to()))
    }

    /// A link that will not come about. `None`: it may.
    pub(crate) fn of_link(state: &LinkState) -> Option<Self> {
        let code = match state {
            LinkState::Denied(_) => exit::DENIED,
            LinkState::WrongKey | LinkState::Violation(_) => exit::PROTOCOL,
            LinkState::Superseded => exit::TEMPORARY,
            LinkState::StoreFailed(_) => exit::IO,
            _ => return None,
        };
        let what = state.detail().unwrap_or_else(|| state.name().to_owned());
        let remedy = match state {
            LinkState::Denied(
                Denial::NotRegistered
                | Denial::InviteNeeded
                | Denial::InviteForged
                | Denial::InviteSpent
                | Denial::InviteExpired,
            ) => "; its operator gives invites: `thinpost init INVITE`",
            _ => "",
        };
        Some(Self::new(code, what + remedy))
    }

    /// A message that will not be delivered.
    pub(crate) fn of_message(reason: MessageFailure) -> Self {
        let code = match reason {
            MessageFailure::Expired => exit::TEMPORARY,
            _ => exit::DATA,
        };
        Self::new(code, format!("the message was not delivered: {reason}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What others wrote may have lines; ours is one.
        f.write_str(&self.what.replace(['\n', '\r'], " "))
    }
}

/// Standard output, which is all that is written without a name.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::quiet(),
            _ => Self::of_file("standard output", &error),
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::new(exit::IO, error.to_string())
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::NoHome(_) => {
                Self::new(exit::NO_INPUT, format!("{error}; make one with `thinpost init INVITE`"))
            }
            OpenError::InUse => Self::new(exit::TEMPORARY, error.to_string()),
            OpenError::KeyNeeded => Self::new(
                exit::DENIED,
                "the home is encrypted under a passphrase; pass --passphrase-file FILE",
            ),
            OpenError::WrongKey => Self::new(exit::DENIED, "this is not the home's passphrase"),
            OpenError::HasNoKey => Self::new(
                exit::USAGE,
                "the home has no passphrase; leave it out, or set it with `thinpost key set`",
            ),
            OpenError::KeyGone | OpenError::FileGone(_) => Self::new(exit::NO_INPUT, error.to_string()),
            OpenError::UnknownFormat { .. } => Self::new(exit::DATA, error.to_string()),
            _ => Self::new(exit::IO, error.to_string()),
        }
    }
}

impl From<CreateError> for Failure {
    fn from(error: CreateError) -> Self {
        let code = match error {
            CreateError::NotARelay => exit::DATA,
            CreateError::Store(StoreError::Full) => exit::IO,
            _ => exit::CANNOT_CREATE,
        };
        Self::new(code, error.to_string())
    }
}

impl From<SetKeyError> for Failure {
    fn from(error: SetKeyError) -> Self {
        match error {
            SetKeyError::Open(error) => error.into(),
            error => Self::new(exit::IO, error.to_string()),
        }
    }
}

impl From<WipeError> for Failure {
    fn from(error: WipeError) -> Self {
        let code = match error {
            WipeError::NoHome(_) => exit::NO_INPUT,
            WipeError::InUse => exit::TEMPORARY,
            _ => exit::IO,
        };
        Self::new(code, error.to_string())
    }
}

impl From<TicketError> for Failure {
    fn from(error: TicketError) -> Self {
        Self::new(exit::DATA, error.to_string())
    }
}

impl From<SendError> for Failure {
    fn from(error: SendError) -> Self {
        let code = match error {
            SendError::UnknownContact(_) => exit::NO_INPUT,
            SendError::TooLong(_) => exit::DATA,
            SendError::Empty => exit::USAGE,
            _ => exit::IO,
        };
        Self::new(code, error.to_string())
    }
}

impl From<GrantError> for Failure {
    fn from(error: GrantError) -> Self {
        let code = match error {
            GrantError::BadName => exit::USAGE,
            GrantError::Unknown(_) => exit::NO_INPUT,
            GrantError::NameTaken(_) => exit::CANNOT_CREATE,
            _ => exit::IO,
        };
        Self::new(code, error.to_string())
    }
}

impl From<ContactError> for Failure {
    fn from(error: ContactError) -> Self {
        let code = match error {
            ContactError::BadName => exit::USAGE,
            ContactError::Unknown(_) | ContactError::NoRequest => exit::NO_INPUT,
            ContactError::NameTaken(_) | ContactError::KnownAs(_) => exit::CANNOT_CREATE,
            ContactError::Store(_) => exit::IO,
            _ => exit::DATA,
        };
        Self::new(code, error.to_string())
    }
}
