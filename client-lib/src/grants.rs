//! The tickets that a home has given out: the tokens in them, and how they are taken back.
//!
//! The home's own ticket, for anybody, holds an *open* token: who writes under it is a stranger, and shares a
//! small part of the mailbox with all others who do. A ticket for one person holds a *personal* one. Either
//! can be revoked; the relay then refuses what comes under it. What is revoked stays in the home, as a relay
//! that lost its store has to be told again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use thinpost_wire::ids::{AccountKey, StoreId};
use thinpost_wire::ticket::ContactTicket;
use thinpost_wire::token::{MailboxSecret, Token, TokenId};

use crate::client::{Client, Shared};
use crate::contacts::is_good_name;
use crate::error::{ContactError, GrantError, StoreError};
use crate::random::Random;

/// What became of a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Grant {
    /// One person has it.
    Personal {
        /// Whom it was made for, or the name of the contact that it was given to.
        name: String,
        /// Who has it, as far as is known: it was given to them inside the encryption, or they have made themselves
        /// known under it. A ticket goes from hand to hand unseen, and an envelope does not say what it came under.
        holder: Option<AccountKey>,
    },
    /// It is to hold no more.
    Revoked {
        /// The relay's store that knows.
        told: Option<StoreId>,
    },
}

/// All tokens of a home that are worth remembering. Of the open ones only the latest holds: the one after
/// all that were revoked.
pub(crate) struct Grants {
    secret: MailboxSecret,
    rows: BTreeMap<TokenId, Grant>,
    random: Random,
}

impl Grants {
    pub(crate) fn new(secret: MailboxSecret, rows: Vec<(TokenId, Grant)>, random: Random) -> Self {
        Self { secret, rows: rows.into_iter().collect(), random }
    }

    /// The open token of a home that has revoked none.
    pub(crate) fn first_token(secret: &MailboxSecret) -> Token {
        Token::mint(secret, TokenId::open(1))
    }

    pub(crate) fn secret(&self) -> MailboxSecret {
        self.secret
    }

    fn token(&self, id: TokenId) -> Token {
        Token::mint(&self.secret, id)
    }

    fn open_id(&self) -> TokenId {
        let last_revoked = self.rows.keys().rev().find(|id| id.is_open()).map_or(0, |id| id.0);
        TokenId::open(last_revoked + 1)
    }

    /// The one in the home's own ticket.
    pub(crate) fn open_token(&self) -> Token {
        self.token(self.open_id())
    }

    fn personal(&self) -> impl Iterator<Item = (TokenId, &str, Option<AccountKey>)> {
        self.rows.iter().filter_map(|(id, grant)| match grant {
            Grant::Personal { name, holder } => Some((*id, name.as_str(), *holder)),
            Grant::Revoked { .. } => None,
        })
    }

    /// Whom this token was made for, if it is a personal one of this home's that holds and is nobody else's.
    pub(crate) fn name_under(&self, token: Token, account: &AccountKey) -> Option<String> {
        let is_theirs = |holder: Option<AccountKey>| holder.is_none_or(|holder| holder == *account);
        let mut grants = self.personal().filter(|(id, _, holder)| *id == token.id() && is_theirs(*holder));
        grants.next().filter(|_| token.is_of(&self.secret)).map(|(_, name, _)| name.to_owned())
    }

    /// The token made under this name; for somebody who is known, the one that they have, or that nobody has yet.
    fn id_for(&self, name: &str, holder: Option<AccountKey>) -> Option<TokenId> {
        let Some(account) = holder else {
            return self.personal().find(|(_, label, _)| *label == name).map(|(id, ..)| id);
        };
        let theirs = self.personal().find(|(.., holder)| *holder == Some(account));
        let free = || self.personal().find(|(_, label, holder)| *label == name && holder.is_none());
        theirs.or_else(free).map(|(id, ..)| id)
    }

    /// Who is known to have a ticket that was made under this name.
    pub(crate) fn holders(&self, name: &str) -> impl Iterator<Item = AccountKey> {
        self.personal().filter(move |(_, label, _)| *label == name).filter_map(|(.., holder)| holder)
    }

    /// Somebody has made themselves known under this token, and that is on disk.
    pub(crate) fn claimed(&mut self, id: TokenId, account: AccountKey) {
        if let Some(grant) = self.rows.get_mut(&id) {
            grant.claim(account);
        }
    }

    /// Drawn, not counted: a copy of the home that was restored must not give one person's to another.
    fn fresh_id(&mut self) -> TokenId {
        loop {
            let id = TokenId::personal(u32::from_be_bytes(self.random.bytes()));
            if !self.rows.contains_key(&id) {
                return id;
            }
        }
    }

    fn names(&self) -> Vec<String> {
        sorted(self.personal().map(|(_, name, _)| name))
    }

    /// The names of tickets that anybody may have.
    fn unclaimed(&self) -> Vec<String> {
        sorted(self.personal().filter(|(.., holder)| holder.is_none()).map(|(_, name, _)| name))
    }

    /// What a relay with this store has to be told.
    pub(crate) fn untold(&self, store: Option<StoreId>) -> Vec<TokenId> {
        let is_untold =
            |grant: &Grant| matches!(grant, Grant::Revoked { told } if store.is_none() || *told != store);
        self.rows.iter().filter(|(_, grant)| is_untold(grant)).map(|(id, _)| *id).collect()
    }

    /// The relay was told, and that is on disk.
    pub(crate) fn told(&mut self, id: TokenId, store: StoreId) {
        if let Some(Grant::Revoked { told }) = self.rows.get_mut(&id) {
            *told = Some(store);
        }
    }
}

impl Grant {
    /// Notes who has it, if that is not known.
    pub(crate) fn claim(&mut self, account: AccountKey) {
        if let Self::Personal { holder, .. } = self {
            holder.get_or_insert(account);
        }
    }
}

fn sorted<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    names.map(str::to_owned).collect::<BTreeSet<_>>().into_iter().collect()
}

/// What [`Client::revoke_ticket`] has taken back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// How many tokens. 0: the contact had none of their own.
    pub tokens: usize,
    /// Contacts who are given none from now on when they write, sorted. None: nobody is known to have had the ticket.
    pub shut_out: Vec<String>,
    /// The names of tickets that still hold and that anybody may have, sorted: perhaps the same person.
    pub unclaimed: Vec<String>,
}

impl Shared {
    /// Changes under this lock are single calls that do not panic.
    pub(crate) fn grants(&self) -> MutexGuard<'_, Grants> {
        self.grants.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ticket(&self, token: Token) -> ContactTicket {
        self.home.ticket(token, self.codings.ours().clone())
    }

    /// Makes a token what it is from now on, on disk and then here. Callers hold [`Shared::granting`].
    fn put_grant(&self, id: TokenId, grant: Grant) -> Result<(), StoreError> {
        self.store.put_grant(id, &grant)?;
        self.grants().rows.insert(id, grant);
        Ok(())
    }

    /// One change at a time, so that each is decided by what the one before has left.
    fn granting(&self) -> MutexGuard<'_, ()> {
        self.granting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The token for a name, and for who is known to get it.
    pub(crate) fn grant(&self, name: String, holder: Option<AccountKey>) -> Result<Token, StoreError> {
        let _alone = self.granting();
        self.grant_alone(name, holder)
    }

    fn grant_alone(&self, name: String, holder: Option<AccountKey>) -> Result<Token, StoreError> {
        let known = self.grants().id_for(&name, holder);
        let id = known.unwrap_or_else(|| self.grants().fresh_id());
        let before = self.grants().rows.get(&id).cloned();
        let mut grant = before.clone().unwrap_or(Grant::Personal { name, holder });
        holder.into_iter().for_each(|account| grant.claim(account));
        if before.as_ref() != Some(&grant) {
            self.put_grant(id, grant)?;
        }
        Ok(self.grants().token(id))
    }

    /// The token for a contact who has written; none for one who is to have none.
    pub(crate) fn grant_to_contact(&self, account: AccountKey) -> Result<Option<Token>, StoreError> {
        let _alone = self.granting();
        let name = self.contacts().name_of(&account).map(str::to_owned);
        let is_shut_out = self.contacts().access(&account).shut_out;
        let name = name.filter(|_| !is_shut_out);
        name.map(|name| self.grant_alone(name, Some(account))).transpose()
    }

    /// None: there is neither ticket nor contact of this name.
    fn revoke(&self, name: &str) -> Result<Option<Revocation>, StoreError> {
        let _alone = self.granting();
        let named = self.contacts().get(name).map(|ticket| ticket.account);
        let (people, ids) = {
            let grants = self.grants();
            let people: BTreeSet<_> = grants.holders(name).chain(named).collect();
            let is_theirs =
                |holder: Option<AccountKey>| holder.is_some_and(|holder| people.contains(&holder));
            let theirs = grants.personal().filter(|(_, label, holder)| *label == name || is_theirs(*holder));
            let ids: Vec<_> = theirs.map(|(id, ..)| id).collect();
            (people, ids)
        };
        if people.is_empty() && ids.is_empty() {
            return Ok(None);
        }
        let contacts: Vec<_> = {
            let contacts = self.contacts();
            let contact = |account: &AccountKey| Some((*account, contacts.name_of(account)?.to_owned()));
            people.iter().filter_map(contact).collect()
        };
        let accounts: Vec<_> = contacts.iter().map(|(account, _)| *account).collect();
        self.store.revoke(&ids, &accounts)?;
        for account in accounts {
            self.contacts().change_access(account, |access| access.shut_out = true);
        }
        let mut grants = self.grants();
        for id in &ids {
            grants.rows.insert(*id, Grant::Revoked { told: None });
        }
        let shut_out = sorted(contacts.iter().map(|(_, name)| name.as_str()));
        Ok(Some(Revocation { tokens: ids.len(), shut_out, unclaimed: grants.unclaimed() }))
    }

    fn renew_open(&self) -> Result<Token, StoreError> {
        let _alone = self.granting();
        let present = self.grants().open_id();
        self.put_grant(present, Grant::Revoked { told: None })?;
        Ok(self.grants().open_token())
    }

    fn void_all(&self) -> Result<Token, StoreError> {
        let _alone = self.granting();
        let secret = MailboxSecret(self.grants().random.bytes());
        self.store.put_secret(&self.home.to_record(secret))?;
        let mut grants = self.grants();
        grants.secret = secret;
        grants.rows.clear();
        Ok(grants.open_token())
    }
}

impl Client {
    /// How anybody reaches this account: for a website or a wall. Whoever writes under it is a stranger, and
    /// shares a small part of the mailbox with all others who do.
    pub fn ticket(&self) -> ContactTicket {
        let token = self.shared().grants().open_token();
        self.shared().ticket(token)
    }

    /// How one person reaches this account: what they send is theirs alone to crowd, and can be refused without
    /// refusing others. The same name gets the same ticket again, until it is revoked. When this returns, the
    /// ticket is on disk; the relay need not be told.
    ///
    /// # Errors
    /// See [`GrantError`]; nothing is changed.
    pub async fn ticket_for(&self, name: &str) -> Result<ContactTicket, GrantError> {
        if !is_good_name(name) {
            return Err(GrantError::BadName);
        }
        Ok(self.ticket_to(name, None).await?)
    }

    /// A ticket made under this name, which this account gets, if it is known.
    pub(crate) async fn ticket_to(
        &self,
        name: &str,
        holder: Option<AccountKey>,
    ) -> Result<ContactTicket, StoreError> {
        let of = name.to_owned();
        let token = self.shared().on_disk(move |shared| shared.grant(of, holder)).await?;
        // If they are a contact, they may be given a token again.
        match self.change_access(name, |access| access.shut_out = false).await {
            Err(ContactError::Store(error)) => Err(error),
            _ => Ok(self.shared().ticket(token)),
        }
    }

    /// The names that tickets have been made for and not revoked, sorted.
    pub fn ticket_names(&self) -> Vec<String> {
        self.shared().grants().names()
    }

    /// Takes back what one person was given: tickets made under this name, and, of the contact of this name and of
    /// who is known to have such a ticket, all that they are known to have, under whatever name. Such contacts are
    /// given no other when they write, until [`Client::ticket_for`] makes one. When this returns, that is on disk; the
    /// relay learns of it with this link or the next, and from then on refuses what comes under it.
    ///
    /// What anybody may have it does not touch: see [`Revocation::unclaimed`], and [`Client::renew_ticket`] for the
    /// ticket for anybody.
    ///
    /// # Errors
    /// See [`GrantError`]; nothing is changed.
    pub async fn revoke_ticket(&self, name: &str) -> Result<Revocation, GrantError> {
        let of = name.to_owned();
        let revoked = self.shared().on_disk(move |shared| shared.revoke(&of)).await?;
        let revoked = revoked.ok_or_else(|| GrantError::Unknown(name.to_owned()))?;
        self.tell_relay();
        Ok(revoked)
    }

    /// Takes back the ticket for anybody, and gives the next. As durable, and as soon, as
    /// [`Client::revoke_ticket`].
    ///
    /// # Errors
    /// When the file cannot be written.
    pub async fn renew_ticket(&self) -> Result<ContactTicket, StoreError> {
        let token = self.shared().on_disk(|shared| shared.renew_open()).await?;
        self.tell_relay();
        Ok(self.shared().ticket(token))
    }

    /// Takes back every ticket that was ever given out, by another secret for the mailbox. Nobody can write
    /// before they have a new one, and new ones hold once the relay has the secret: connect before you give
    /// any away.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub async fn void_tickets(&self) -> Result<ContactTicket, StoreError> {
        let token = self.shared().on_disk(|shared| shared.void_all()).await?;
        // The relay is told at the beginning of a link.
        self.renew_link();
        Ok(self.shared().ticket(token))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORES: [StoreId; 2] = [StoreId([1; 8]), StoreId([2; 8])];

    fn grants(rows: Vec<(TokenId, Grant)>) -> Grants {
        Grants::new(MailboxSecret([1; 32]), rows, Random::from_seed(1, "grants", 0))
    }

    fn personal(name: &str, holder: Option<AccountKey>) -> Grant {
        Grant::Personal { name: name.to_owned(), holder }
    }

    #[test]
    fn who_is_known_gets_what_they_have_or_what_nobody_has() {
        let [ann, bob] = [1, 2].map(|n| AccountKey([n; 32]));
        let [a, b, c] = [1, 2, 3].map(TokenId::personal);
        let mut grants = grants(vec![
            (a, personal("ann", None)),
            (b, personal("robert", Some(bob))),
            (c, personal("bob", Some(ann))),
        ]);
        assert_eq!(grants.id_for("ann", None), Some(a));
        assert_eq!(grants.id_for("bob", None), Some(c), "the name alone decides");
        assert_eq!(grants.id_for("bob", Some(bob)), Some(b), "not the one that somebody else has");
        assert_eq!(grants.id_for("ann", Some(AccountKey([3; 32]))), Some(a));
        assert_eq!(grants.id_for("carol", Some(AccountKey([3; 32]))), None);
        let under = |grants: &Grants, id, account| grants.name_under(grants.token(id), &account);
        assert_eq!(under(&grants, a, bob), Some("ann".to_owned()), "whoever has the ticket");
        assert_eq!(under(&grants, c, bob), None, "it is Ann's");
        grants.claimed(a, ann);
        assert_eq!((under(&grants, a, bob), under(&grants, a, ann)), (None, Some("ann".to_owned())));
        grants.claimed(a, bob);
        assert_eq!(under(&grants, a, bob), None, "who comes first has it");
        let mut forged = grants.token(a);
        forged.0[15] ^= 1;
        assert_eq!(grants.name_under(forged, &ann), None);
    }

    #[test]
    fn the_open_token_is_the_one_after_all_that_were_revoked() {
        let mut grants = grants(vec![]);
        assert_eq!(grants.open_token().id(), TokenId::open(1));
        grants.rows.insert(TokenId::open(1), Grant::Revoked { told: None });
        grants.rows.insert(TokenId::personal(9), personal("bob", None));
        assert_eq!(grants.open_token().id(), TokenId::open(2));
    }

    #[test]
    fn a_relay_is_told_once_and_another_store_again() {
        let [a, b] = [TokenId::open(1), TokenId::personal(5)];
        let mut grants = grants(vec![
            (a, Grant::Revoked { told: Some(STORES[0]) }),
            (b, Grant::Revoked { told: None }),
            (TokenId::personal(6), personal("bob", None)),
        ]);
        assert_eq!(grants.untold(Some(STORES[0])), [b]);
        grants.told(b, STORES[0]);
        assert_eq!(grants.untold(Some(STORES[0])), []);
        assert_eq!(grants.untold(Some(STORES[1])), [a, b]);
    }
}
