//! What can go wrong, by what was asked for.

use std::io;
use std::path::PathBuf;

use redb::{CommitError, DatabaseError, StorageError, TableError, TransactionError};
use thinpost_disk::DamagedPage;
use thinpost_wire::letter::TooLong;

/// Why the home's file failed. The device is at fault, or its disk is full.
///
/// Whether the last change was made shows when the home is opened again; what was confirmed before is
/// there. The client that saw it does not go on: close it and open the home anew.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// No room is left on the disk. Free some, then open the home again.
    #[error("the disk is full")]
    Full,
    /// The system failed to read or write.
    #[error("the home's file cannot be used: {message}")]
    Io {
        /// The system's kind of error.
        kind: io::ErrorKind,
        /// What it says.
        message: String,
    },
    /// The file holds what no version writes.
    #[error("the home's file is damaged: {0}")]
    Damaged(String),
    /// A row of the table of this name is not what was written there: it was changed, cut or moved, or the
    /// key file is another home's.
    #[error("the home's file is damaged: a row of table {0:?} does not open")]
    DamagedRow(&'static str),
    /// An earlier failure ended the use of this file by this client.
    #[error("the home's file failed before; open the home again")]
    Failed,
}

/// Why an object was not taken. Nothing was kept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ObjectError {
    /// It is empty, or longer than [`OBJECT_BYTES_MAX`](crate::OBJECT_BYTES_MAX).
    #[error("an object of {0} bytes: 1 to {max} may be sent", max = crate::OBJECT_BYTES_MAX)]
    Size(u64),
    /// It was not written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a home was not made. Nothing was left behind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CreateError {
    /// There is one already; it was not touched.
    #[error("there is a home at {} already", .0.display())]
    Exists(PathBuf),
    /// There is the key of a home, and not its file. It was not touched: should the file be found, nothing else opens it.
    #[error("{} holds the key of a home whose file is gone; put that back, or wipe the home", .0.display())]
    KeyKept(PathBuf),
    /// A contact's ticket leads to a person, not to a relay.
    #[error("this is a contact's ticket; a home needs a relay's ticket or an invite")]
    NotARelay,
    /// The system gives no random numbers to make keys from.
    #[error("the system gives no random numbers")]
    NoRandomness,
    /// The folder or the file could not be made.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a home was not given another way to its relay. It was not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RenewError {
    /// It has this ticket.
    #[error("it has this ticket already")]
    Unchanged,
    /// The ticket leads to another relay.
    #[error("the ticket leads to another relay than the home's")]
    OtherRelay,
    /// A contact's ticket leads to a person, not to a relay.
    #[error("this is a contact's ticket; a relay's ticket or an invite is needed")]
    NotARelay,
    /// It cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It could not be made durable.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a home was not opened. It was not changed, but for a repair of a file that was not closed in good order.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// There is none. Make it with [`Home::create`](crate::Home::create).
    #[error("there is no home at {}", .0.display())]
    NoHome(PathBuf),
    /// There is its key, and not its file: put that back.
    #[error("the home's file is gone: there is only a key at {}", .0.display())]
    FileGone(PathBuf),
    /// Another process, or another client of this one, has it open. Try again when it has ended.
    #[error("the home is in use by another process")]
    InUse,
    /// Another version made it.
    #[error("the home has format {found}; this program knows format {known}")]
    UnknownFormat {
        /// The home's.
        found: u32,
        /// This program's.
        known: u32,
    },
    /// It is encrypted under a key of the application, and none was handed over: see
    /// [`Builder::key`](crate::Builder::key).
    #[error("the home is encrypted under a key; none was given")]
    KeyNeeded,
    /// It is encrypted under another key than the one handed over.
    #[error("the home is encrypted under another key than the one given")]
    WrongKey,
    /// A key was handed over, and the home is encrypted under none. If that is no surprise, open it without,
    /// or set the key with [`Home::set_key`](crate::Home::set_key).
    #[error("a key was given, but the home is encrypted under none")]
    HasNoKey,
    /// The file with the key is missing or overwritten: nothing in the home can be read any more.
    #[error("the home's key file is gone: the home was wiped, or this is an incomplete copy of it")]
    KeyGone,
    /// The system gives no random numbers.
    #[error("the system gives no random numbers")]
    NoRandomness,
    /// The file could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why the key of a home was not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SetKeyError {
    /// It cannot be opened with the old key. Nothing was changed.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The change could not be made durable: the home opens with the old key or with the new one, and with no
    /// other.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a home was not wiped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WipeError {
    /// There is none.
    #[error("there is no home at {}", .0.display())]
    NoHome(PathBuf),
    /// Another process, or a client of this one, has it open. It was not touched: try again when it has ended.
    #[error("the home is in use by another process")]
    InUse,
    /// A file could not be overwritten or removed. Some of it is gone perhaps: wipe it again.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a message was not taken. It is not in the outbox.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// No contact has this name.
    #[error("there is no contact named {0:?}")]
    UnknownContact(String),
    /// A text of no characters says nothing.
    #[error("an empty text is no message")]
    Empty,
    /// The content is longer than a message may be.
    #[error(transparent)]
    TooLong(#[from] TooLong),
    /// It could not be made durable. Whether it was shows when the home is opened again.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why the contacts were not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ContactError {
    /// Empty, longer than 64 bytes, with control characters, or with space at an end.
    #[error("a contact's name has 1 to 64 bytes, no control characters and no space at its ends")]
    BadName,
    /// Another account has this name.
    #[error("another contact is named {0:?} already")]
    NameTaken(String),
    /// The account has another name.
    #[error("this account is known as {0:?} already")]
    KnownAs(String),
    /// The ticket's keys are not signed by its account: somebody has changed them.
    #[error("the ticket's keys are not those of its account")]
    BadSignature,
    /// Another contact seals under some of the ticket's keys: its account has signed what is not its own, and would pass for them.
    #[error("the ticket has keys of {0:?}: whoever made it wants to pass for them")]
    KeysOf(String),
    /// So does this home.
    #[error(
        "the ticket has keys of this home: whoever made it wants your words to come back to you as theirs"
    )]
    OwnKeys,
    /// None of the contact's relays is this home's, and relays do not forward yet.
    #[error("the contact's mailbox is at another relay than this home's")]
    OtherRelay,
    /// It is this home's own.
    #[error("this is your own ticket: give it to others, and add theirs")]
    OwnTicket,
    /// No stranger of this account has made themselves known.
    #[error("nobody of this account waits to be accepted")]
    NoRequest,
    /// No contact has this name.
    #[error("there is no contact named {0:?}")]
    Unknown(String),
    /// It could not be made durable.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a ticket was not made or not revoked. Nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GrantError {
    /// Empty, longer than 64 bytes, with control characters, or with space at an end.
    #[error("a name has 1 to 64 bytes, no control characters and no space at its ends")]
    BadName,
    /// No ticket for this name was made, or it was revoked; and no contact has the name.
    #[error("there is no ticket for {0:?}, and no contact of this name")]
    Unknown(String),
    /// A contact has this name, or has come under a ticket for it: a guest needs another.
    #[error("{0:?} is a contact, or has come under a ticket of this name: give the guest another")]
    NameTaken(String),
    /// It could not be made durable. Whether it was shows when the home is opened again.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<io::Error> for StoreError {
    fn from(error: io::Error) -> Self {
        if let Some(damaged) = DamagedPage::of(&error) {
            return Self::Damaged(damaged.to_string());
        }
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                Self::Full
            }
            kind => Self::Io { kind, message: error.to_string() },
        }
    }
}

impl From<StorageError> for StoreError {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Io(error) => error.into(),
            StorageError::Corrupted(what) => Self::Damaged(what),
            StorageError::PreviousIo | StorageError::DatabaseClosed | StorageError::LockPoisoned(_) => {
                Self::Failed
            }
            other => io::Error::other(other).into(),
        }
    }
}

impl From<StorageError> for OpenError {
    fn from(error: StorageError) -> Self {
        StoreError::from(error).into()
    }
}

impl From<DatabaseError> for OpenError {
    fn from(error: DatabaseError) -> Self {
        match error {
            DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => Self::InUse,
            // How redb says that the file does not begin like one of its own.
            DatabaseError::Storage(StorageError::Io(error)) if error.kind() == io::ErrorKind::InvalidData => {
                StoreError::Damaged(error.to_string()).into()
            }
            DatabaseError::Storage(error) => StoreError::from(error).into(),
            other => StoreError::Damaged(other.to_string()).into(),
        }
    }
}

impl From<TransactionError> for StoreError {
    fn from(error: TransactionError) -> Self {
        match error {
            TransactionError::Storage(error) => error.into(),
            other => io::Error::other(other).into(),
        }
    }
}

impl From<TableError> for StoreError {
    fn from(error: TableError) -> Self {
        match error {
            TableError::Storage(error) => error.into(),
            // A table that is missing or of another type, in a file whose format says otherwise.
            other => Self::Damaged(other.to_string()),
        }
    }
}

impl From<CommitError> for StoreError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Storage(error) => error.into(),
            other => io::Error::other(other).into(),
        }
    }
}

/// A record that cannot be read back.
impl From<postcard::Error> for StoreError {
    fn from(error: postcard::Error) -> Self {
        Self::Damaged(error.to_string())
    }
}
