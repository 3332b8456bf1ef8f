//! One-time keys for those who write to somebody for the first time.

use thinpost_wire::frame::ToDevice;
use thinpost_wire::ids::{Handle, OneTimeKey};

use super::end::End;
use super::{Session, What};
use crate::store::{Done, Op, Verdict};

impl Session {
    /// Asks the store for a key, unless that is asked for too often, or without a right to: then it is charged to nobody. What is
    /// not given is no error: there is the pre-key of the ticket.
    pub(super) async fn claim(&mut self, to: Handle) -> Result<(Option<Op>, What), End> {
        let device = self.number()?;
        if let Some(address) = self.mailboxes.entry(to)
            && self.admits(address).await?
            && self.shared.limits.check_claim(device, address.mailbox, address.token.id().is_open()).is_ok()
        {
            return Ok((Some(Op::Claim { device, address }), What::Claim { to }));
        }
        self.say_claimed(to, None);
        Ok((None, What::Housekeeping))
    }

    /// The store has answered a claim.
    pub(super) fn claimed(&mut self, to: Handle, verdict: Verdict) {
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
