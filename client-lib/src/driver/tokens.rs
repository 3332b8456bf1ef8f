//! Under which token a message leaves, and what the relay is told of this home's own.

use thinpost_wire::frame::ToRelay;
use thinpost_wire::ids::{AccountKey, Handle, StoreId};
use thinpost_wire::token::{MailboxAddress, Token};

use super::Driver;
use super::outgoing::{Frame, Outgoing, Said};
use crate::error::StoreError;
use crate::seal::Identity;

impl Driver {
    /// The handle by which to reach a mailbox, and the frame that binds it if it is new. `token` is for an account
    /// that is no contact any more. None: the table is full, and there has to be a new one; or there is no token.
    ///
    /// A contact's token may change while messages are on the link. What goes by another handle could overtake
    /// them, so the old one serves until they are settled or refused.
    pub(super) fn way_to(
        &mut self,
        mailbox: AccountKey,
        token: Option<Token>,
        outgoing: &Outgoing,
    ) -> Option<(Handle, Option<Frame>)> {
        let leads_there = |handle| self.mailboxes.entry(handle).is_some_and(|to| to.mailbox == mailbox);
        if let Some(handle) = outgoing.on_its_way_by(leads_there) {
            return Some((handle, None));
        }
        let token = self.shared.contacts().token_of(&mailbox).or(token)?;
        let address = MailboxAddress { mailbox, token };
        if let Some(handle) = self.mailboxes.handle(&address) {
            return Some((handle, None));
        }
        let handle = self.mailboxes.push(address)?;
        Some((handle, Some((Said::Bind(handle), ToRelay::Bind { handle, address }.encode()))))
    }

    /// A contact has written. Those who come under the ticket for anybody are to have a token of their own, so that
    /// they need not share with strangers, and can be refused alone.
    pub(super) fn welcome_contact(&mut self, with: &Identity, account: &AccountKey) {
        let is_shut_out = self.shared.contacts().access(account).shut_out;
        if !is_shut_out && self.seals.wants_token(with) {
            self.tokens.entry(*with).or_default();
        }
    }

    /// Makes the tokens that are to be given, on disk before they are.
    pub(super) async fn make_tokens(&mut self) -> Result<(), StoreError> {
        let wanted = self.tokens.iter().filter(|(_, token)| token.is_none());
        let mut wanted: Vec<_> =
            wanted.map(|(with, _)| (self.shared.contacts().account_of(with), *with)).collect();
        // Identities are drawn from the system. Tokens are numbered, which a simulated world is to repeat.
        wanted.sort_unstable();
        for (account, with) in wanted {
            let token = match account {
                Some(account) => self.shared.on_disk(move |shared| shared.grant_to_contact(account)).await?,
                None => None,
            };
            match token {
                Some(token) => drop(self.tokens.insert(with, Some(token))),
                None => drop(self.tokens.remove(&with)),
            }
        }
        Ok(())
    }

    /// The token to give to a contact with what is sealed next. Not with a first message, which is large already,
    /// unless there is no letter in it.
    pub(super) fn token_to_give(&mut self, with: &Identity, no_letters: bool) -> Option<Token> {
        if !no_letters && !self.seals.is_answered(with) {
            return None;
        }
        let token = self.tokens.get(with).copied().flatten()?;
        self.tokens.remove(with);
        self.seals.token_given(with);
        Some(token)
    }

    /// A contact has given this home a token.
    pub(super) fn take_token(&mut self, from: &Identity, token: Token) {
        let account = self.shared.contacts().account_of(from);
        if let Some(account) =
            account.filter(|account| self.shared.contacts().token_of(account) != Some(token))
        {
            self.changes.tokens.push((account, token));
        }
    }

    /// What is revoked and this relay does not know, each once a link. Only after the relay's welcome: before
    /// the handshake is complete it would hold up whatever follows. At most `max` at a time.
    pub(super) fn revocations(&self, outgoing: &mut Outgoing, max: usize) -> Vec<Frame> {
        let Some((store, _)) = self.relay.have else { return Vec::new() };
        self.revocations_untold(Some(store), outgoing, max)
    }

    /// What is revoked, for a relay at which this device registers: it has lost what it knew, and the mailbox must not be open
    /// before it knows again. It acts on these before anybody who waited for the mailbox has heard that there is one.
    pub(super) fn all_revocations(&self, outgoing: &mut Outgoing, max: usize) -> Vec<Frame> {
        self.revocations_untold(None, outgoing, max)
    }

    fn revocations_untold(&self, store: Option<StoreId>, outgoing: &mut Outgoing, max: usize) -> Vec<Frame> {
        let untold = self.shared.grants().untold(store);
        let new = untold.into_iter().filter(|id| outgoing.revoke(*id)).take(max);
        new.map(|id| (Said::Revoke(id), ToRelay::Revoke { id }.encode())).collect()
    }
}
