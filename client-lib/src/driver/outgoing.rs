//! Turns outbox rows into frames, and remembers what was said on the present link until it is settled.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use thinpost_wire::codec::DictionarySet;
use thinpost_wire::frame::{Hello, SubmitOptions, ToRelay};
use thinpost_wire::ids::{DeviceKey, Handle, Origin, device_certificate_message};
use thinpost_wire::link::Link;
use thinpost_wire::token::{MailboxSecret, TokenId};
use tokio::time::Instant;

use super::Driver;
use crate::client::Shared;
use crate::error::StoreError;
use crate::message::MessageId;
use crate::seal::Identity;
use crate::store::Departure;

/// Most bytes that wait in the link: what is handed over later may be ordered better, and an application
/// that stops loses less time to numbers in doubt.
pub(super) const BACKLOG_BYTES: usize = 16 * 1024;

/// Most rows that get their numbers in one commit.
const ROWS_AT_ONCE: usize = 64;

/// Most revocations that a registration is followed by at once; the rest follows the relay's welcome.
const REVOCATIONS_AT_ONCE: usize = 256;

/// Seconds of age that a recipient is not told of.
const AGE_UNTOLD_S: u32 = 2;

/// What a frame was about, for when it is settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// With this secret.
    Register(MailboxSecret),
    Bind(Handle),
    Revoke(TokenId),
    Submit(Origin),
    /// The same, with a body that is sealed.
    Sealed(Origin),
    Other,
}

/// A frame, and what it is about.
pub(super) type Frame = (Said, Vec<u8>);

/// What was said on one link.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    /// By the number under which the link settles it.
    unsettled: VecDeque<(u64, Said)>,
    /// Submits that are neither settled nor refused.
    submitted: BTreeMap<Origin, (MessageId, Handle)>,
    /// Tokens that the relay was asked to revoke.
    revoked: BTreeSet<TokenId>,
    /// Those of them that it did not.
    not_revoked: BTreeSet<TokenId>,
    /// Whose one-time keys were claimed, and by which handle; none once the relay has answered.
    claims: BTreeMap<Identity, Option<Handle>>,
    /// How the relay will number the next submit.
    numbering: Option<Origin>,
}

impl Outgoing {
    pub(super) fn push(&mut self, link: &mut Link, (said, bytes): Frame) {
        let number = match said {
            Said::Sealed(_) => link.push_noise(bytes),
            _ => link.push(bytes),
        };
        self.unsettled.push_back((number, said));
    }

    /// What is settled up to this number, in order.
    pub(super) fn settled(&mut self, upto: u64) -> impl Iterator<Item = Said> {
        let count = self.unsettled.partition_point(|(number, _)| *number <= upto);
        self.unsettled.drain(..count).map(|(_, said)| said)
    }

    /// The message that was submitted under this number, unless its fate is known.
    pub(super) fn resolve(&mut self, origin: Origin) -> Option<MessageId> {
        self.submitted.remove(&origin).map(|(id, _)| id)
    }

    /// The handle by which what is neither settled nor refused went to a mailbox.
    pub(super) fn on_its_way_by(&self, leads_there: impl Fn(Handle) -> bool) -> Option<Handle> {
        self.submitted.values().map(|(_, to)| *to).find(|to| leads_there(*to))
    }

    /// Notes that a token is to be revoked; false if the relay was asked before.
    pub(super) fn revoke(&mut self, id: TokenId) -> bool {
        self.revoked.insert(id)
    }

    /// The relay has not revoked a token.
    pub(super) fn not_revoked(&mut self, id: TokenId) {
        self.not_revoked.insert(id);
    }

    /// How many one-time keys were claimed.
    pub(super) fn claims(&self) -> usize {
        self.claims.len()
    }

    /// Whether a key of this identity was claimed.
    pub(super) fn has_claimed(&self, of: &Identity) -> bool {
        self.claims.contains_key(of)
    }

    /// Whether the relay has not answered a claim yet.
    pub(super) fn awaits_keys(&self) -> bool {
        self.claims.values().any(Option::is_some)
    }

    /// Notes a claim.
    pub(super) fn claim(&mut self, of: Identity, to: Handle) {
        self.claims.insert(of, Some(to));
    }

    /// Whose key was claimed by this handle, unless the relay has answered before.
    pub(super) fn claimed(&mut self, to: Handle) -> Option<Identity> {
        let (of, asked) = self.claims.iter_mut().find(|(_, asked)| **asked == Some(to))?;
        *asked = None;
        Some(*of)
    }

    /// The relay knows none of the handles that were bound so far on this link.
    pub(super) fn forget_binds(&mut self) {
        for (_, said) in &mut self.unsettled {
            if matches!(said, Said::Bind(_)) {
                *said = Said::Other;
            }
        }
    }

    fn submit(&mut self, to: Handle, departure: &Departure, age_ms: u64) -> Vec<Frame> {
        let Departure { id, row, sealed } = departure;
        let origin = row.number.expect("rows are numbered when they are handed over");
        tracing::trace!(id = id.0, ?origin, to = to.0, "submit");
        let mut frames = Vec::new();
        if self.numbering != Some(origin) {
            frames.push((Said::Other, ToRelay::Numbering(origin).encode()));
        }
        self.numbering = Some(Origin { sequence: origin.sequence + 1, ..origin });
        self.submitted.insert(origin, (*id, to));
        let age_s = u32::try_from(age_ms / 1_000).unwrap_or(u32::MAX);
        let body = sealed.as_ref().map_or(&row.letter, |sealed| &sealed.body);
        let unattributed = sealed.is_some();
        let frame = match (age_s < AGE_UNTOLD_S, unattributed) {
            (true, false) => ToRelay::Submit { to, body },
            (true, true) => ToRelay::SubmitUnattributed { to, body },
            (false, _) => {
                let options = SubmitOptions { unattributed, age_s, ..SubmitOptions::default() };
                ToRelay::SubmitWith { to, options, body }
            }
        };
        let said = if sealed.is_some() { Said::Sealed(origin) } else { Said::Submit(origin) };
        frames.push((said, frame.encode()));
        frames
    }
}

impl Driver {
    /// The first frames of a link, up to the first messages: made before there is a connection, so that
    /// they ride in its first datagram if it can be resumed.
    pub(super) async fn opening(&mut self, outgoing: &mut Outgoing) -> Result<Vec<Frame>, StoreError> {
        let secret = self.shared.grants().secret();
        let registers = self.has_to_register();
        let hello = Hello {
            registers,
            dictionaries: DictionarySet::compiled_in().bits(),
            deliver: true,
            mailboxes: self.mailboxes.state(),
            senders: self.senders.state(),
            have: self.relay.have,
        };
        let mut frames = vec![(Said::Other, ToRelay::Hello(hello).encode())];
        if registers {
            let home = &self.shared.home;
            let device = DeviceKey(home.device.public());
            let register = ToRelay::Register {
                account: home.account_key(),
                certificate: home.account.sign(&device_certificate_message(&device)),
                invite: home.access.invite,
                secret,
            };
            frames.push((Said::Register(secret), register.encode()));
            frames.extend(self.all_revocations(outgoing, REVOCATIONS_AT_ONCE));
        }
        if !self.may_be_forgotten() {
            frames.extend(self.next_frames(outgoing, BACKLOG_BYTES).await?);
        }
        Ok(frames)
    }

    fn has_to_register(&self) -> bool {
        !self.relay.registered || self.relay.secret != self.shared.grants().secret()
    }

    /// Whether the relay has answered this device before, and may not know it now: only its welcome will say whether its store is
    /// another one, as who registers is not turned away. What was lost with the one before has to leave ahead of what was written since.
    pub(super) fn may_be_forgotten(&self) -> bool {
        self.has_to_register() && self.relay.have.is_some()
    }

    /// Frames for the next messages that may go out; about so many bytes, and one message beyond.
    pub(super) async fn next_frames(
        &mut self,
        outgoing: &mut Outgoing,
        bytes_max: usize,
    ) -> Result<Vec<Frame>, StoreError> {
        self.enqueue_notes().await?;
        let ids = self.outbox.take_next(Instant::now(), ROWS_AT_ONCE, bytes_max);
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        // What has lost its number leaves under another.
        if !self.changes.unnumbered.is_empty() {
            self.commit().await?;
        }
        // A ratchet that opened something must not be written without what it opened.
        debug_assert!(self.changes.received.is_empty(), "what has arrived is committed first");
        let rows = self.shared.on_disk(move |shared| shared.store.departures(&ids)).await?;
        let rows = self.readdress(rows).await?;
        let mut rows = self.seal(rows);
        let pairs = self.seals.take_changed();
        let hand_over = move |shared: &Shared| {
            shared.store.hand_over(&mut rows, &pairs, &shared.numbers)?;
            Ok(rows)
        };
        let rows = self.shared.on_disk(hand_over).await?;
        // The relay will say which it has heard of last: whoever does not know it is an old copy.
        for number in rows.iter().filter_map(|departure| departure.row.number) {
            self.relay.add_incarnation(number.incarnation.blinded().into());
        }
        self.commit().await?;
        let mut frames = Vec::with_capacity(rows.len());
        for departure in rows {
            let Departure { id, row, .. } = &departure;
            let Some((to, bind)) = self.way_to(row.mailbox, Some(row.token), outgoing) else {
                // What is handed over and has not left is in doubt when the link has ended.
                self.needs_new_handles = true;
                break;
            };
            frames.extend(bind);
            if self.outbox.is_probe(*id) {
                frames.push((Said::Other, ToRelay::Resume { to }.encode()));
            }
            let age_ms = self.shared.clock.age_ms(departure.row.enqueued_ms);
            frames.extend(outgoing.submit(to, &departure, age_ms));
        }
        Ok(frames)
    }

    /// The relay answers for it.
    pub(super) fn take_custody(&mut self, id: MessageId) {
        let left = self.kept.leave(self.shared.clock.now_ms());
        self.changes.custody.push((id, left));
    }

    /// What was said up to this number is durable at the relay. A refusal would have come before.
    pub(super) fn settled(&mut self, outgoing: &mut Outgoing, upto: u64) {
        let settled: Vec<_> = outgoing.settled(upto).collect();
        for said in settled {
            match said {
                Said::Register(secret) => {
                    self.relay.registered = true;
                    self.relay.secret = secret;
                }
                Said::Revoke(id) if !outgoing.not_revoked.contains(&id) => {
                    let store = self.relay.have.map(|(store, _)| store);
                    self.changes.told.extend(store.map(|store| (id, store)));
                }
                Said::Bind(handle) => self.mailboxes.settle(handle.0),
                Said::Submit(origin) | Said::Sealed(origin) => {
                    if let Some(id) = outgoing.resolve(origin) {
                        self.take_custody(id);
                    }
                }
                Said::Revoke(_) | Said::Other => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use thinpost_wire::ids::{AccountKey, Incarnation};
    use thinpost_wire::link::LinkConfig;
    use thinpost_wire::token::Token;

    use super::*;
    use crate::store::records::OutboxRow;

    fn departure(incarnation: u8, sequence: u64) -> Departure {
        let written = Origin { incarnation: Incarnation([incarnation; 8]), sequence };
        let row = OutboxRow {
            mailbox: AccountKey([1; 32]),
            token: Token([2; 16]),
            enqueued_ms: 10_000,
            app_id: None,
            written,
            number: Some(written),
            seal: None,
            rides_with: None,
            again: 0,
            letter: b"\x00hi".to_vec(),
        };
        Departure { id: MessageId(sequence), row, sealed: None }
    }

    fn tags(frames: &[Frame]) -> Vec<&'static str> {
        let tag = |(_, bytes): &Frame| match ToRelay::decode(bytes).unwrap() {
            ToRelay::Numbering(_) => "numbering",
            ToRelay::Submit { .. } => "submit",
            ToRelay::SubmitWith { options, .. } if options.age_s == 2 => "aged 2 s",
            other => panic!("{other:?}"),
        };
        frames.iter().map(tag).collect()
    }

    #[test]
    fn numbers_are_told_only_where_they_do_not_count_up() {
        let mut outgoing = Outgoing::default();
        let mut submit = |incarnation, sequence| {
            tags(&outgoing.submit(Handle(1), &departure(incarnation, sequence), 1_999))
        };
        assert_eq!(submit(1, 5), ["numbering", "submit"]);
        assert_eq!(submit(1, 6), ["submit"]);
        assert_eq!(submit(1, 8), ["numbering", "submit"]);
        assert_eq!(submit(2, 9), ["numbering", "submit"]);
    }

    #[test]
    fn two_seconds_are_old_enough_to_tell() {
        let frames = Outgoing::default().submit(Handle(1), &departure(1, 1), 2_000);
        assert_eq!(tags(&frames), ["numbering", "aged 2 s"]);
    }

    #[test]
    fn what_was_refused_is_not_custody_when_it_is_settled() {
        let mut link = Link::new(LinkConfig {
            initial_rtt: Duration::from_secs(1),
            is_rtt_measured: false,
            peer_has: DictionarySet::EMPTY,
            poll_pause_max: Duration::from_secs(45),
        });
        let mut outgoing = Outgoing::default();
        for sequence in 1..=2 {
            for frame in outgoing.submit(Handle(1), &departure(1, sequence), 0) {
                outgoing.push(&mut link, frame);
            }
        }
        let origin = |sequence| departure(1, sequence).row.written;
        assert_eq!(outgoing.resolve(origin(1)), Some(MessageId(1)));
        let settled: Vec<_> = outgoing.settled(3).collect();
        assert_eq!(settled, [Said::Other, Said::Submit(origin(1)), Said::Submit(origin(2))]);
        assert_eq!(outgoing.resolve(origin(1)), None);
        assert_eq!(outgoing.resolve(origin(2)), Some(MessageId(2)));
    }
}
