//! One-time keys: this device's at the relay, for others, and those of contacts, for the first message to them.
//!
//! Both are said when there is nothing better to say: the mailbox has been read and no message is on its way; or where
//! a new device's keys fill what would be padding. A message never waits for a key; without one it is sealed with the
//! pre-key of the ticket.

use thinpost_wire::frame::ToRelay;
use thinpost_wire::ids::{AccountKey, Handle, OneTimeKey};

use super::Driver;
use super::incoming::Incoming;
use super::outgoing::{Frame, Outgoing, Said};
use crate::error::StoreError;
use crate::seal::Identity;

/// How many keys a relay holds after an upload. 10: a few people a day can write for the first time, and it
/// takes 320 bytes once.
pub(super) const KEYS_KEPT: usize = 10;

/// A device without keys says its first beside so many bytes at most, before the relay has answered: they fit into the same
/// datagram, which is padded during a handshake.
const BESIDE_BYTES: usize = 420;

/// Most contacts that keys are claimed of on one link; the next link goes on with the others.
pub(super) const CLAIMS_MAX: usize = 8;

/// How many new keys there should be, if the relay said that so many are `left` and this device has not used
/// so many of those it ever made. What is at the relay is not used, so it is no more than that.
fn missing(left: usize, unused: usize) -> Option<usize> {
    let left = left.min(unused);
    (left <= KEYS_KEPT / 2).then(|| KEYS_KEPT - left)
}

impl Driver {
    /// Whether keys may go before the relay has said how many it holds. If none is unused, whatever it holds is of no use.
    pub(super) fn may_put_early(&self, backlog_bytes: usize) -> bool {
        self.seals.one_time_keys_unused() == 0 && backlog_bytes <= BESIDE_BYTES
    }

    /// New keys for the relay once half of them are gone, or when it has some that nobody can use. Their secret halves are on disk when this returns:
    /// a key is put on one link only, whatever becomes of it.
    pub(super) async fn refill(&mut self, incoming: &mut Incoming) -> Result<Option<Frame>, StoreError> {
        let unused = self.seals.one_time_keys_unused();
        let replaces = std::mem::take(&mut incoming.keys_are_foreign) || unused == 0;
        let left = if replaces { 0 } else { incoming.keys_left };
        let Some(missing) = missing(left, unused) else { return Ok(None) };
        incoming.keys_left = KEYS_KEPT;
        let keys = self.seals.one_time_keys(missing);
        self.commit().await?;
        tracing::debug!(count = keys.len(), "one-time keys");
        Ok(Some((Said::Other, ToRelay::PutKeys { replaces, keys }.encode())))
    }

    /// Claims a key of each contact with whom there never was a session, a few on each link.
    pub(super) fn claims(&mut self, outgoing: &mut Outgoing) -> Vec<Frame> {
        let mut frames = Vec::new();
        while outgoing.claims() < CLAIMS_MAX
            && let Some((account, identity)) = self.next_to_claim(outgoing)
        {
            self.claimed_upto = Some(account);
            let Some((to, bind)) = self.way_to(account, None, outgoing) else { break };
            outgoing.claim(identity, to);
            frames.extend(bind);
            frames.push((Said::Other, ToRelay::Claim { to }.encode()));
        }
        frames
    }

    /// A contact that a key would serve, and who was not asked for on this link. Links take turns, so that those
    /// whose keys have run out do not keep the others from being asked for.
    fn next_to_claim(&self, outgoing: &Outgoing) -> Option<(AccountKey, Identity)> {
        let mut all = self.shared.contacts().identities();
        all.retain(|(_, identity)| self.seals.wants_key(identity) && !outgoing.has_claimed(identity));
        let later = all.iter().find(|(account, _)| Some(*account) > self.claimed_upto);
        later.or(all.first()).copied()
    }

    /// The relay has answered a claim.
    pub(super) fn claimed(&mut self, outgoing: &mut Outgoing, to: Handle, key: Option<OneTimeKey>) {
        let identity = outgoing.claimed(to);
        if let (Some(identity), Some(key)) = (identity, key) {
            self.seals.put_claimed(identity, key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_made_anew_when_half_are_gone() {
        assert_eq!(missing(0, 0), Some(10), "a new device");
        assert_eq!(missing(6, 10), None);
        assert_eq!(missing(5, 10), Some(5), "others were claimed, and not used yet");
        assert_eq!(missing(10, 5), Some(5), "five were used since");
        assert_eq!(missing(10, 6), None);
        assert_eq!(missing(50, 60), None);
    }
}
