//! The tickets that a home has given out: the tokens in them, and how they are taken back.
//!
//! The home's own ticket, for anybody, holds an *open* token: who writes under it is a stranger, and shares a
//! small part of the mailbox with all others who do. A ticket for one person holds a *personal* one. Either
//! can be revoked; the relay then refuses what comes under it. What is revoked stays in the home, as a relay
//! that lost its store has to be told again.

use std::collections::BTreeMap;
use std::sync::{MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use thinpost_wire::ids::StoreId;
use thinpost_wire::ticket::ContactTicket;
use thinpost_wire::token::{MailboxSecret, Token, TokenId};

use crate::client::{Client, Shared};
use crate::contacts::is_good_name;
use crate::error::{ContactError, GrantError, StoreError};
use crate::random::Random;

/// What became of a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Grant {
    /// It stands in a ticket for the person of this name.
    Personal(String),
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

    /// Who was given this token, if it is a personal one of this home's that holds.
    pub(crate) fn name_under(&self, token: Token) -> Option<String> {
        let grant = self.rows.get(&token.id()).filter(|_| token.is_of(&self.secret));
        grant.and_then(Grant::name).map(str::to_owned)
    }

    fn id_for(&self, name: &str) -> Option<TokenId> {
        let is_theirs = |grant: &Grant| matches!(grant, Grant::Personal(label) if label == name);
        self.rows.iter().find(|(_, grant)| is_theirs(grant)).map(|(id, _)| *id)
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
        let mut names: Vec<_> = self.rows.values().filter_map(Grant::name).map(str::to_owned).collect();
        names.sort_unstable();
        names
    }

    /// What a relay with this store has to be told.
    pub(crate) fn untold(&self, store: StoreId) -> Vec<TokenId> {
        let is_untold = |grant: &Grant| matches!(grant, Grant::Revoked { told } if *told != Some(store));
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
    fn name(&self) -> Option<&str> {
        match self {
            Self::Personal(name) => Some(name),
            Self::Revoked { .. } => None,
        }
    }
}

impl Shared {
    /// Changes under this lock are single calls that do not panic.
    pub(crate) fn grants(&self) -> MutexGuard<'_, Grants> {
        self.grants.lock().unwrap_or_else(PoisonError::into_inner)
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

    pub(crate) fn grant(&self, name: String) -> Result<Token, StoreError> {
        let _alone = self.granting();
        let known = self.grants().id_for(&name);
        let id = match known {
            Some(id) => id,
            None => {
                let id = self.grants().fresh_id();
                self.put_grant(id, Grant::Personal(name))?;
                id
            }
        };
        Ok(self.grants().token(id))
    }

    fn revoke(&self, name: &str) -> Result<bool, StoreError> {
        let _alone = self.granting();
        let known = self.grants().id_for(name);
        let Some(id) = known else { return Ok(false) };
        self.put_grant(id, Grant::Revoked { told: None })?;
        Ok(true)
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
        self.shared().home.ticket(token)
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
        let of = name.to_owned();
        let token = self.shared().on_disk(move |shared| shared.grant(of)).await?;
        self.set_shut_out(name, false).await?;
        Ok(self.shared().home.ticket(token))
    }

    /// Whether a contact, if one has this name, is given a token when they write.
    async fn set_shut_out(&self, name: &str, shut_out: bool) -> Result<(), StoreError> {
        match self.change_access(name, move |access| access.shut_out = shut_out).await {
            Err(ContactError::Store(error)) => Err(error),
            _ => Ok(()),
        }
    }

    /// The names that tickets have been made for and not revoked, sorted.
    pub fn ticket_names(&self) -> Vec<String> {
        self.shared().grants().names()
    }

    /// Takes back the ticket made for one person. A contact of this name, who was given one when they wrote, is given
    /// no other until [`Client::ticket_for`] makes one. When this returns, that is on disk; the relay learns of it
    /// with this link or the next, and from then on refuses what comes under it.
    ///
    /// # Errors
    /// See [`GrantError`]; nothing is changed.
    pub async fn revoke_ticket(&self, name: &str) -> Result<(), GrantError> {
        let of = name.to_owned();
        if !self.shared().on_disk(move |shared| shared.revoke(&of)).await? {
            return Err(GrantError::Unknown(name.to_owned()));
        }
        self.set_shut_out(name, true).await?;
        self.tell_relay();
        Ok(())
    }

    /// Takes back the ticket for anybody, and gives the next. As durable, and as soon, as
    /// [`Client::revoke_ticket`].
    ///
    /// # Errors
    /// When the file cannot be written.
    pub async fn renew_ticket(&self) -> Result<ContactTicket, StoreError> {
        let token = self.shared().on_disk(|shared| shared.renew_open()).await?;
        self.tell_relay();
        Ok(self.shared().home.ticket(token))
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
        self.network_changed();
        Ok(self.shared().home.ticket(token))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORES: [StoreId; 2] = [StoreId([1; 8]), StoreId([2; 8])];

    fn grants(rows: Vec<(TokenId, Grant)>) -> Grants {
        Grants::new(MailboxSecret([1; 32]), rows, Random::from_seed(1, "grants", 0))
    }

    #[test]
    fn the_open_token_is_the_one_after_all_that_were_revoked() {
        let mut grants = grants(vec![]);
        assert_eq!(grants.open_token().id(), TokenId::open(1));
        grants.rows.insert(TokenId::open(1), Grant::Revoked { told: None });
        grants.rows.insert(TokenId::personal(9), Grant::Personal("bob".into()));
        assert_eq!(grants.open_token().id(), TokenId::open(2));
    }

    #[test]
    fn a_relay_is_told_once_and_another_store_again() {
        let [a, b] = [TokenId::open(1), TokenId::personal(5)];
        let mut grants = grants(vec![
            (a, Grant::Revoked { told: Some(STORES[0]) }),
            (b, Grant::Revoked { told: None }),
            (TokenId::personal(6), Grant::Personal("bob".into())),
        ]);
        assert_eq!(grants.untold(STORES[0]), [b]);
        grants.told(b, STORES[0]);
        assert_eq!(grants.untold(STORES[0]), []);
        assert_eq!(grants.untold(STORES[1]), [a, b]);
    }
}
