//! Who may submit to a mailbox: its secret, and the tokens that are void.

use redb::ReadableTable;
use thinpost_wire::token::{MailboxSecret, Token, TokenId};

use super::{Result, Transaction};
use crate::store::{DeviceNo, Done, Refusal, Verdict};

impl Transaction<'_> {
    /// From here on the mailbox is open, and only tokens of this secret hold. What was revoked under another is void
    /// anyway.
    pub(super) fn put_secret(&mut self, mailbox: u32, secret: &MailboxSecret) -> Result<()> {
        if self.closed.remove(mailbox)?.is_some() {
            self.changed = true;
        }
        let is_known = self.secrets.get(mailbox)?.is_some_and(|known| *known.value() == secret.0);
        if is_known {
            return Ok(());
        }
        self.changed = true;
        self.secrets.insert(mailbox, &secret.0)?;
        self.revoked.retain_in((mailbox, 0)..=(mailbox, u32::MAX), |_, ()| false)?;
        self.revocations.insert(mailbox, 0);
        Ok(())
    }

    /// Whether a token holds for a mailbox.
    pub(super) fn is_wanted(&self, mailbox: u32, token: Token) -> Result<bool> {
        let Some(secret) = self.secrets.get(mailbox)?.map(|secret| MailboxSecret(*secret.value())) else {
            return Ok(false);
        };
        Ok(token.is_of(&secret) && self.revoked.get((mailbox, token.id().0))?.is_none())
    }

    pub(super) fn revoke(&mut self, number: DeviceNo, id: TokenId) -> Result<Verdict> {
        let Some(device) = self.device(number.0)? else { return Ok(Err(Refusal::UnknownDevice)) };
        let row = (device.mailbox, id.0);
        if self.revoked.get(row)?.is_some() {
            return Ok(Ok(Done::Revoked));
        }
        let revocations = self.revocations(device.mailbox)?;
        if revocations >= self.config.revocations_max as usize {
            return Ok(Err(Refusal::RevocationsFull));
        }
        self.changed = true;
        self.revoked.insert(row, ())?;
        self.revocations.insert(device.mailbox, revocations + 1);
        Ok(Ok(Done::Revoked))
    }

    /// How many tokens of a mailbox are void: counted once in a transaction.
    fn revocations(&mut self, mailbox: u32) -> Result<usize> {
        if let Some(&count) = self.revocations.get(&mailbox) {
            return Ok(count);
        }
        let count = self.revoked.range((mailbox, 0)..=(mailbox, u32::MAX))?.count();
        self.revocations.insert(mailbox, count);
        Ok(count)
    }
}
