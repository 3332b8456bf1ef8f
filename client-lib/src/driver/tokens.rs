//! Under which token a message leaves, and what the relay is told of this home's own.

use thinpost_wire::frame::ToRelay;
use thinpost_wire::ids::{AccountKey, Handle};
use thinpost_wire::token::{MailboxAddress, Token};

use super::Driver;
use super::outgoing::{Frame, Outgoing, Said};

impl Driver {
    /// The handle by which to reach a mailbox, and the frame that binds it if it is new. `token` is for an account
    /// that is no contact any more. None: the table is full, or there is no token.
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

    /// What is revoked and this relay does not know, each once a link. Only after the relay's welcome: before
    /// the handshake is complete it would hold up whatever follows. At most `max` at a time.
    pub(super) fn revocations(&self, outgoing: &mut Outgoing, max: usize) -> Vec<Frame> {
        let Some((store, _)) = self.relay.have else { return Vec::new() };
        let untold = self.shared.grants().untold(store);
        let new = untold.into_iter().filter(|id| outgoing.revoke(*id)).take(max);
        new.map(|id| (Said::Revoke(id), ToRelay::Revoke { id }.encode())).collect()
    }
}
