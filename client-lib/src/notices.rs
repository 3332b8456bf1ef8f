//! What a person should know of. Events are told once, to who listens; this is kept until somebody says that it is
//! known.

use serde::{Deserialize, Serialize};
use thinpost_wire::ids::AccountKey;

use crate::client::{Client, Shared};
use crate::error::StoreError;
use crate::event::Event;

/// What there is to know, and of whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Matter {
    /// As [`Event::Restored`] says.
    Restored,
    /// As [`Event::AskedAgain`] says.
    AskedAgain(AccountKey),
    /// As [`Event::KeysChanged`] says.
    KeysChanged(AccountKey),
    /// As [`Event::Abandoned`] says, for each message.
    Abandoned(AccountKey),
}

impl Matter {
    /// Whom it is about.
    pub fn account(&self) -> Option<AccountKey> {
        match self {
            Self::Restored => None,
            Self::AskedAgain(account) | Self::KeysChanged(account) | Self::Abandoned(account) => {
                Some(*account)
            }
        }
    }
}

/// Something that a person should know of, until [`Client::acknowledge`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Counts up. What happens again gets another.
    pub number: u64,
    /// What it is.
    pub matter: Matter,
    /// The name of whom it is about, if they are a contact.
    pub contact: Option<String>,
    /// How often it has happened.
    pub count: u64,
    /// When it happened last: milliseconds since 1970 by this device's clock.
    pub last_unix_ms: u64,
}

/// As it is kept, under its number. There is one of each matter, so that whoever makes one happen again and again
/// fills no disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NoticeRow {
    pub(crate) matter: Matter,
    pub(crate) count: u64,
    pub(crate) last_unix_ms: u64,
}

impl Shared {
    /// All that is not acknowledged, in the order in which it happened last.
    pub(crate) fn notices(&self) -> Result<Vec<Notice>, StoreError> {
        let rows = self.store.notices()?;
        let contacts = self.contacts();
        let notice = |(number, row): (u64, NoticeRow)| {
            let NoticeRow { matter, count, last_unix_ms } = row;
            let contact = matter.account().and_then(|account| contacts.name_of(&account).map(str::to_owned));
            Notice { number, matter, contact, count, last_unix_ms }
        };
        Ok(rows.into_iter().map(notice).collect())
    }

    /// The event that a matter is told as; none for one that is told otherwise.
    pub(crate) fn event_of(&self, matter: Matter) -> Option<Event> {
        let name = |account| self.contacts().name_of(&account).map(str::to_owned);
        match matter {
            Matter::Restored => Some(Event::Restored),
            Matter::AskedAgain(account) => name(account).map(|contact| Event::AskedAgain { contact }),
            Matter::KeysChanged(account) => name(account).map(|contact| Event::KeysChanged { contact }),
            Matter::Abandoned(_) => None,
        }
    }
}

impl Client {
    /// Forgets notices up to this number: the person knows. See [`Status::notices`](crate::Status::notices).
    ///
    /// # Errors
    /// When the file cannot be written.
    pub async fn acknowledge(&self, upto: u64) -> Result<(), StoreError> {
        self.shared().on_disk(move |shared| shared.store.acknowledge(upto)).await
    }
}
