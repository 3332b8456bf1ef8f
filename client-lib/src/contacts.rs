//! Whom a person writes to, by the names that person gave them.

use std::collections::BTreeMap;

use thinpost_wire::ids::{AccountKey, RelayKey};
use thinpost_wire::text::ModelSet;
use thinpost_wire::ticket::{ContactTicket, SealKeys};
use thinpost_wire::token::Token;

use thinpost_carrier::verify;

use crate::error::ContactError;
use crate::seal::Identity;
use crate::store::records::AccessRow;

/// Longest name of a contact, bytes.
pub(crate) const NAME_BYTES_MAX: usize = 64;

/// Someone to write to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contact {
    /// Unique in the home.
    pub name: String,
    /// Their account and relays.
    pub ticket: ContactTicket,
}

/// Whether it can be shown wherever a name is, and stored.
pub(crate) fn is_good_name(name: &str) -> bool {
    let has_room = (1..=NAME_BYTES_MAX).contains(&name.len());
    has_room && name.trim() == name && !name.chars().any(char::is_control)
}

/// Whether somebody who has the keys of one of these has some of the other.
pub(crate) fn share_keys(one: &SealKeys, other: &SealKeys) -> bool {
    let SealKeys { identity, pre_key, envelope } = one;
    *identity == other.identity || *pre_key == other.pre_key || *envelope == other.envelope
}

/// All contacts of a home, by name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Contacts {
    by_name: BTreeMap<String, ContactTicket>,
    access: BTreeMap<AccountKey, AccessRow>,
}

impl Contacts {
    pub(crate) fn new(
        contacts: impl IntoIterator<Item = Contact>,
        access: impl IntoIterator<Item = (AccountKey, AccessRow)>,
    ) -> Self {
        Self {
            by_name: contacts.into_iter().map(|contact| (contact.name, contact.ticket)).collect(),
            access: access.into_iter().collect(),
        }
    }

    /// Whether the contact may be added, and if so whether that changes anything.
    pub(crate) fn check(&self, contact: &Contact, relay: RelayKey) -> Result<bool, ContactError> {
        let name = &contact.name;
        if !is_good_name(name) {
            return Err(ContactError::BadName);
        }
        self.check_ticket(&contact.ticket, relay)?;
        if let Some(owner) = self.owner_of(&contact.ticket) {
            return Err(ContactError::KeysOf(owner.to_owned()));
        }
        if let Some(known) = self.by_name.get(name) {
            return if known.account == contact.ticket.account {
                Ok(*known != contact.ticket)
            } else {
                Err(ContactError::NameTaken(name.clone()))
            };
        }
        match self.name_of(&contact.ticket.account) {
            Some(other) => Err(ContactError::KnownAs(other.to_owned())),
            None => Ok(true),
        }
    }

    /// The contact of another account that seals under some of a ticket's keys. An account can sign any: to know them is not to have
    /// them, and what is sealed names no account.
    fn owner_of(&self, ticket: &ContactTicket) -> Option<&str> {
        let mut others = self.by_name.iter().filter(|(_, other)| other.account != ticket.account);
        others.find(|(_, other)| share_keys(&ticket.seal, &other.seal)).map(|(name, _)| name.as_str())
    }

    /// Whether a ticket is its account's, and leads somewhere that can be reached.
    pub(crate) fn check_ticket(&self, ticket: &ContactTicket, relay: RelayKey) -> Result<(), ContactError> {
        let ContactTicket { account, seal, signature, .. } = ticket;
        if !verify(&account.0, &seal.signed_bytes(), signature) {
            return Err(ContactError::BadSignature);
        }
        if !ticket.relays.iter().any(|candidate| candidate.key == relay) {
            return Err(ContactError::OtherRelay);
        }
        Ok(())
    }

    /// How it stands with this contact beyond its ticket: as before, unless the ticket brings another token.
    pub(crate) fn access_with(&self, contact: &Contact) -> AccessRow {
        let before = self.by_name.get(&contact.name);
        let mut access = self.access(&contact.ticket.account);
        if before.is_none_or(|before| before.token != contact.ticket.token) {
            access.token = None;
        }
        access
    }

    pub(crate) fn insert(&mut self, contact: Contact, access: AccessRow) {
        self.put_access(contact.ticket.account, access);
        self.by_name.insert(contact.name, contact.ticket);
    }

    pub(crate) fn remove(&mut self, contact: &Contact) {
        self.access.remove(&contact.ticket.account);
        self.by_name.remove(&contact.name);
    }

    /// How it stands with an account beyond what its ticket says.
    pub(crate) fn access(&self, account: &AccountKey) -> AccessRow {
        self.access.get(account).cloned().unwrap_or_default()
    }

    fn put_access(&mut self, account: AccountKey, access: AccessRow) {
        self.access.insert(account, access);
    }

    pub(crate) fn change_access(&mut self, account: AccountKey, change: impl FnOnce(&mut AccessRow)) {
        change(self.access.entry(account).or_default());
    }

    /// The token that messages to a contact leave under.
    pub(crate) fn token_of(&self, account: &AccountKey) -> Option<Token> {
        let ticket = self.by_name.values().find(|ticket| ticket.account == *account)?;
        let given_later = self.access.get(account).and_then(|access| access.token);
        Some(given_later.unwrap_or(ticket.token))
    }

    pub(crate) fn get(&self, name: &str) -> Option<&ContactTicket> {
        self.by_name.get(name)
    }

    pub(crate) fn name_of(&self, account: &AccountKey) -> Option<&str> {
        self.by_name.iter().find(|(_, ticket)| ticket.account == *account).map(|(name, _)| name.as_str())
    }

    /// The ticket of who seals under this key.
    pub(crate) fn ticket_of(&self, identity: &Identity) -> Option<&ContactTicket> {
        self.by_name.values().find(|ticket| ticket.seal.identity == *identity)
    }

    /// The text models that are named in the ticket of who seals under this key.
    pub(crate) fn models_of(&self, identity: &Identity) -> ModelSet {
        self.ticket_of(identity).map_or(ModelSet::EMPTY, |ticket| ticket.models.clone())
    }

    /// The keys that an account's messages are sealed for.
    pub(crate) fn keys_of(&self, account: &AccountKey) -> Option<SealKeys> {
        self.by_name.values().find(|ticket| ticket.account == *account).map(|ticket| ticket.seal)
    }

    /// All accounts, in order, and the keys that they seal under.
    pub(crate) fn identities(&self) -> Vec<(AccountKey, Identity)> {
        let all = self.by_name.values().map(|ticket| (ticket.account, ticket.seal.identity));
        let mut all: Vec<_> = all.collect();
        all.sort_unstable();
        all
    }

    /// Who seals under this key.
    pub(crate) fn account_of(&self, identity: &Identity) -> Option<AccountKey> {
        self.ticket_of(identity).map(|ticket| ticket.account)
    }

    pub(crate) fn list(&self) -> Vec<Contact> {
        let contact = |(name, ticket): (&String, &ContactTicket)| Contact {
            name: name.clone(),
            ticket: ticket.clone(),
        };
        self.by_name.iter().map(contact).collect()
    }
}

#[cfg(test)]
mod tests {
    use thinpost_carrier::Identity;
    use thinpost_wire::ticket::{RelayTicket, SealKeys};

    use super::{
        AccessRow, AccountKey, Contact, ContactError, ContactTicket, Contacts, ModelSet, RelayKey, Token,
    };

    const RELAY: RelayKey = RelayKey([9; 32]);

    fn contact(name: &str, account: u8, port: u16) -> Contact {
        let relay = RelayTicket { key: RELAY, addresses: vec![([192, 0, 2, 1], port).into()] };
        let owner = Identity::from_seed([account; 32]);
        let [identity, pre_key, envelope] = [0, 100, 200].map(|key| [key + account; 32]);
        let seal = SealKeys { identity, pre_key, envelope };
        let ticket = ContactTicket {
            account: AccountKey(owner.public()),
            seal,
            signature: owner.sign(&seal.signed_bytes()),
            token: Token([4; 16]),
            relays: vec![relay],
            models: ModelSet::EMPTY,
        };
        Contact { name: name.to_owned(), ticket }
    }

    #[test]
    fn keys_that_the_account_has_not_signed_are_refused() {
        let mut changed = contact("bob", 1, 1);
        changed.ticket.seal.pre_key[0] ^= 1;
        assert_eq!(Contacts::default().check(&changed, RELAY), Err(ContactError::BadSignature));
    }

    #[test]
    fn nobody_becomes_a_contact_under_keys_of_another() {
        let contacts = Contacts::new([contact("bob", 1, 1)], []);
        for change in [
            |seal: &mut SealKeys, bob: &SealKeys| seal.identity = bob.identity,
            |seal: &mut SealKeys, bob: &SealKeys| seal.pre_key = bob.pre_key,
            |seal: &mut SealKeys, bob: &SealKeys| seal.envelope = bob.envelope,
        ] {
            let mut mallory = contact("mallory", 2, 1);
            change(&mut mallory.ticket.seal, &contact("bob", 1, 1).ticket.seal);
            mallory.ticket.signature = Identity::from_seed([2; 32]).sign(&mallory.ticket.seal.signed_bytes());
            assert_eq!(contacts.check(&mallory, RELAY), Err(ContactError::KeysOf("bob".into())));
        }
    }

    #[test]
    fn a_name_and_an_account_belong_to_each_other() {
        let contacts = Contacts::new([contact("bob", 1, 1)], []);
        assert_eq!(contacts.check(&contact("bob", 1, 1), RELAY), Ok(false));
        assert_eq!(contacts.check(&contact("bob", 1, 2), RELAY), Ok(true));
        assert_eq!(contacts.check(&contact("bob", 2, 1), RELAY), Err(ContactError::NameTaken("bob".into())));
        assert_eq!(contacts.check(&contact("rob", 1, 1), RELAY), Err(ContactError::KnownAs("bob".into())));
        assert_eq!(contacts.check(&contact("rob", 2, 1), RELAY), Ok(true));
    }

    #[test]
    fn a_token_that_came_later_holds_until_a_ticket_brings_another() {
        let bob = contact("bob", 1, 1);
        let account = bob.ticket.account;
        let mut contacts = Contacts::new([bob.clone()], []);
        assert_eq!(contacts.token_of(&account), Some(Token([4; 16])));
        contacts.put_access(account, AccessRow { token: Some(Token([5; 16])), ..AccessRow::default() });
        let moved = contact("bob", 1, 2);
        contacts.insert(moved.clone(), contacts.access_with(&moved));
        assert_eq!(contacts.token_of(&account), Some(Token([5; 16])), "the ticket's is as before");
        let mut renewed = bob;
        renewed.ticket.token = Token([6; 16]);
        contacts.insert(renewed.clone(), contacts.access_with(&renewed));
        assert_eq!(contacts.token_of(&account), Some(Token([6; 16])));
        contacts.remove(&renewed);
        assert_eq!(contacts.token_of(&account), None);
    }

    #[test]
    fn a_contact_of_another_relay_cannot_be_reached_and_is_refused() {
        assert_eq!(
            Contacts::default().check(&contact("bob", 1, 1), RelayKey([8; 32])),
            Err(ContactError::OtherRelay)
        );
    }

    #[test]
    fn names_that_would_garble_a_terminal_are_refused() {
        for name in ["", " bob", "bo\nb", "b\u{1b}[2J", &"x".repeat(65)] {
            assert_eq!(Contacts::default().check(&contact(name, 1, 1), RELAY), Err(ContactError::BadName));
        }
    }
}
