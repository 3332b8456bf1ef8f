//! Who makes themselves known: guests whom this home has invited become contacts, strangers wait to be accepted.

use std::collections::BTreeMap;
use std::sync::{MutexGuard, PoisonError};

use thinpost_wire::ids::AccountKey;
use thinpost_wire::notes::Introduction;
use thinpost_wire::ticket::{ContactTicket, GuestTicket, InviteTicket};

use crate::client::{Client, Shared};
use crate::contacts::is_good_name;
use crate::driver::Ask;
use crate::error::{ContactError, GrantError};

/// Strangers who wait to be accepted, at most; later ones are passed over.
pub(crate) const REQUESTS_MAX: usize = 32;

/// Strangers who have made themselves known, by their accounts.
pub(crate) type Requests = BTreeMap<AccountKey, ContactTicket>;

impl Shared {
    /// Changes under this lock are single calls that do not panic.
    pub(crate) fn requests(&self) -> MutexGuard<'_, Requests> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Client {
    /// One link that brings a newcomer a relay and a first contact: this account, under the name `own_name`. The
    /// guest becomes a contact named `guest` when they make themselves known, which `thinpost init` does for them.
    ///
    /// # Errors
    /// See [`GrantError`]; nothing is changed.
    pub async fn guest_ticket(
        &self,
        guest: &str,
        invite: InviteTicket,
        own_name: &str,
    ) -> Result<GuestTicket, GrantError> {
        if !is_good_name(own_name) {
            return Err(GrantError::BadName);
        }
        // A guest who came would not be told from one who is still to come, and neither alone be turned away.
        let is_known = {
            let has_come = self.shared().grants().holders(guest).next().is_some();
            has_come || self.shared().contacts().get(guest).is_some()
        };
        if is_known {
            return Err(GrantError::NameTaken(guest.to_owned()));
        }
        let host = self.ticket_for(guest).await?;
        Ok(GuestTicket { invite, host, name: own_name.to_owned() })
    }

    /// Makes this account known to a contact, with a ticket made for them: as soon as there is a link, and with
    /// what else leaves for them. When this returns, that is on disk. It does not leave twice; call this again if
    /// they say that they do not know you.
    ///
    /// # Errors
    /// See [`ContactError`].
    pub async fn introduce(&self, contact: &str) -> Result<(), ContactError> {
        let theirs = self.shared().contacts().get(contact).cloned();
        let theirs = theirs.ok_or_else(|| ContactError::Unknown(contact.to_owned()))?;
        let own = self.ticket_to(contact, Some(theirs.account)).await?;
        let under = self.shared().contacts().token_of(&theirs.account).unwrap_or(theirs.token);
        let introduction = Introduction { under, ticket: own.to_bytes() };
        Ok(self.shared().ask(Ask::Introduce(theirs.seal.identity, introduction)).await?)
    }

    /// Strangers who have made themselves known, and how they are reached.
    pub fn requests(&self) -> Vec<ContactTicket> {
        self.shared().requests().values().cloned().collect()
    }

    /// Makes a contact of a stranger who has made themselves known.
    ///
    /// # Errors
    /// See [`ContactError`]; nothing is changed.
    pub async fn accept(&self, account: &AccountKey, name: &str) -> Result<(), ContactError> {
        let ticket = self.shared().requests().get(account).cloned();
        let ticket = ticket.ok_or(ContactError::NoRequest)?;
        self.add_contact(name, &ticket).await?;
        self.dismiss(account).await
    }

    /// Forgets that a stranger has made themselves known.
    ///
    /// # Errors
    /// See [`ContactError`]; nothing is changed.
    pub async fn dismiss(&self, account: &AccountKey) -> Result<(), ContactError> {
        let account = *account;
        if !self.shared().requests().contains_key(&account) {
            return Err(ContactError::NoRequest);
        }
        self.shared()
            .on_disk(move |shared| {
                shared.store.remove_request(&account)?;
                shared.requests().remove(&account);
                Ok(())
            })
            .await?;
        Ok(())
    }
}
