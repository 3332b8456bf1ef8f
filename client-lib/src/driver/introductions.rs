//! What is done about those who make themselves known.

use thinpost_wire::ids::AccountKey;
use thinpost_wire::notes::Introduction;
use thinpost_wire::ticket::ContactTicket;

use super::Driver;
use crate::client::Shared;
use crate::contacts::Contact;
use crate::event::Event;
use crate::requests::REQUESTS_MAX;
use crate::seal::Identity;
use crate::store::Changes;

/// See [`Driver::account_of`].
pub(super) fn account_of(shared: &Shared, changes: &Changes, identity: &Identity) -> Option<AccountKey> {
    let new = changes.contacts.iter().find(|contact| contact.ticket.seal.identity == *identity);
    new.map(|contact| contact.ticket.account).or_else(|| shared.contacts().account_of(identity))
}

impl Driver {
    /// Whose device this is, if it is a contact's, or one's who has just become a contact.
    pub(super) fn account_of(&self, identity: &Identity) -> Option<AccountKey> {
        account_of(&self.shared, &self.changes, identity)
    }

    /// Somebody makes themselves known: a guest becomes a contact, a stranger waits to be accepted.
    pub(super) fn introduced(&mut self, from: &Identity, introduction: &Introduction) {
        let ticket = match ContactTicket::from_bytes(&introduction.ticket) {
            Ok(ticket) if ticket.seal.identity == *from => ticket,
            _ => return tracing::warn!("an introduction that is not its sender's is passed over"),
        };
        let relay = self.shared.home.access.relay.key;
        if self.shared.contacts().check_ticket(&ticket, relay).is_err() {
            return;
        }
        let guest = self.shared.grants().name_under(introduction.under, &ticket.account);
        if guest.is_some() {
            self.changes.claims.push((introduction.under.id(), ticket.account));
        }
        if self.account_of(from).is_some() {
            return;
        }
        let contact = guest.map(|name| Contact { name, ticket: ticket.clone() });
        let is_new = |contact: &Contact| {
            let is_taken = self.changes.contacts.iter().any(|other| other.name == contact.name);
            // Other keys of an account that is known are for a person to accept, who is told what that means.
            let is_known = self.shared.contacts().name_of(&ticket.account).is_some();
            !is_taken && !is_known && self.shared.contacts().check(contact, relay) == Ok(true)
        };
        match contact.filter(is_new) {
            Some(contact) => self.changes.contacts.push(contact),
            None => {
                let waiting = self.shared.requests().len() + self.changes.requests.len();
                if waiting < REQUESTS_MAX || self.shared.requests().contains_key(&ticket.account) {
                    self.changes.requests.push(ticket);
                }
            }
        }
    }

    /// What was introduced is on disk.
    pub(super) fn tell_introductions(&self, contacts: Vec<Contact>, requests: Vec<ContactTicket>) {
        for contact in contacts {
            let name = contact.name.clone();
            let access = self.shared.contacts().access(&contact.ticket.account);
            self.shared.contacts().insert(contact, access);
            self.tell(Event::ContactAdded { contact: name });
        }
        for ticket in requests {
            let account = ticket.account;
            if self.shared.requests().insert(account, ticket).is_none() {
                self.tell(Event::Introduced { account });
            }
        }
    }
}
