//! One-time keys for those who write to somebody for the first time.

use thinpost_wire::frame::ToDevice;
use thinpost_wire::ids::{Handle, OneTimeKey};

use super::end::End;
use super::{Session, What, is_void};
use crate::store::{Done, Op, Verdict};

impl Session {
    /// Asks the store for a key, unless that is asked for too often. What is not given is no error: there is
    /// the pre-key of the ticket.
    pub(super) fn claim(&mut self, to: Handle) -> Result<(Option<Op>, What), End> {
        let device = self.number()?;
        let may = self.mailboxes.entry(to).filter(|address| {
            let is_stranger = address.token.id().is_open();
            self.shared.limits.check_claim(device, address.mailbox, is_stranger).is_ok()
        });
        match may {
            Some(address) => Ok((Some(Op::Claim { device, address }), What::Claim { to })),
            None => {
                self.say_claimed(to, None);
                Ok((None, What::Housekeeping))
            }
        }
    }

    /// The store has answered a claim.
    pub(super) fn claimed(&mut self, to: Handle, verdict: Verdict) {
        if verdict.is_err_and(is_void)
            && let Some((mailbox, is_stranger)) = self.named(to)
        {
            self.shared.limits.claim_was_void(mailbox, is_stranger);
        }
        let key = match verdict {
            Ok(Done::Claimed { key }) => key,
            // No mailbox, or no right to it: a submit will say so.
            _ => None,
        };
        self.say_claimed(to, key);
    }

    fn say_claimed(&mut self, to: Handle, key: Option<OneTimeKey>) {
        self.channel.link().push(ToDevice::Claimed { to, key }.encode());
    }
}
