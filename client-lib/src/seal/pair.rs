//! Everything between this device and one other: sessions, and which messages have been seen.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use thinpost_wire::ids::OneTimeKey;
use thinpost_wire::parcel::ShortIncarnation;
use vodozemac::olm::{DecryptionError, Message, OlmMessage, PreKeyMessage, Session, SessionPickle};

use super::keyring::Keyring;
use super::{record, unrecord};
use crate::error::StoreError;

/// Sessions kept with one other device: each opening of either home begins one, and what the other has
/// sealed and we have not seen may be of any of them.
const SESSIONS_MAX: usize = 32;

/// Sessions kept that the same side began before the one of which a message was opened last. A mailbox keeps
/// order, so the other has moved on from them.
const EARLIER_MAX: usize = 2;

/// Numbers remembered of each incarnation, and incarnations, to know repeats by.
const NUMBERS_MAX: usize = 512;
const INCARNATIONS_MAX: usize = 16;

/// What is shared with one other device.
#[derive(Default)]
pub(super) struct Pair {
    /// Those that may be sent with come first, and of them the one that answered last.
    sessions: Vec<Known>,
    /// The ratchet key of the message opened last: the next one usually has it, too.
    ratchet: Option<[u8; 32]>,
    /// A one-time key of theirs, for the session that we begin next.
    claimed: Option<OneTimeKey>,
    seen: BTreeMap<ShortIncarnation, Seen>,
    /// Counts incarnations, to forget the one longest unused.
    uses: u64,
}

struct Known {
    session: Session,
    /// Counts sessions in the order in which they began here.
    begun: u64,
    /// Which side began it.
    ours: bool,
    /// It began after the home was opened. A home may be an old copy, whose newer self has gone on with the
    /// sessions that it holds: to send with them would use a key twice, and could not be opened.
    may_send: bool,
}

/// Which numbers of one incarnation have been seen.
#[derive(Default)]
struct Seen {
    used: u64,
    /// Everything up to here counts as seen.
    floor: u64,
    numbers: BTreeSet<u64>,
}

#[derive(Serialize, Deserialize)]
struct Record {
    sessions: Vec<(u64, bool, SessionPickle)>,
    ratchet: Option<[u8; 32]>,
    claimed: Option<OneTimeKey>,
    uses: u64,
    seen: Vec<([u8; 4], u64, u64, Vec<u64>)>,
}

/// Why none of a pair's sessions opens a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotOpened {
    /// One of them did before, or has lost the key long ago.
    Repeat,
    /// It is not of this pair, or was changed on the way.
    Foreign,
}

impl Pair {
    pub(super) fn to_record(&self) -> Vec<u8> {
        let seen = self.seen.iter();
        record(&Record {
            sessions: self
                .sessions
                .iter()
                .map(|known| (known.begun, known.ours, known.session.pickle()))
                .collect(),
            ratchet: self.ratchet,
            claimed: self.claimed,
            uses: self.uses,
            seen: seen
                .map(|(of, seen)| (of.0, seen.used, seen.floor, seen.numbers.iter().copied().collect()))
                .collect(),
        })
    }

    pub(super) fn from_record(bytes: &[u8]) -> Result<Self, StoreError> {
        let Record { sessions, ratchet, claimed, uses, seen } = unrecord("pair", bytes)?;
        let seen = seen.into_iter().map(|(of, used, floor, numbers)| {
            (ShortIncarnation(of), Seen { used, floor, numbers: numbers.into_iter().collect() })
        });
        Ok(Self {
            sessions: sessions
                .into_iter()
                .map(|(begun, ours, pickle)| {
                    let session = Session::from_pickle(pickle);
                    Known { session, begun, ours, may_send: false }
                })
                .collect(),
            ratchet,
            claimed,
            seen: seen.collect(),
            uses,
        })
    }

    /// Whether a one-time key of theirs would serve: no session was ever made, and none is at hand.
    pub(super) fn wants_key(&self) -> bool {
        self.sessions.is_empty() && self.claimed.is_none()
    }

    /// Keeps a one-time key of theirs for the first session.
    pub(super) fn put_claimed(&mut self, key: OneTimeKey) {
        self.claimed = Some(key);
    }

    /// The one-time key for a session that begins now. It is used once, and forgotten with that session's
    /// first row.
    pub(super) fn take_claimed(&mut self) -> Option<OneTimeKey> {
        self.claimed.take()
    }

    /// The session to send with, if one has begun.
    pub(super) fn session(&mut self) -> Option<&mut Session> {
        self.sessions.first_mut().filter(|known| known.may_send).map(|known| &mut known.session)
    }

    /// Whether the session to send with is known to both.
    pub(super) fn is_answered(&self) -> bool {
        let first = self.sessions.first();
        first.is_some_and(|known| known.may_send && known.session.has_received_message())
    }

    /// Adds a session that has just begun, and sends with it from now on.
    pub(super) fn add(&mut self, session: Session, ours: bool) {
        let last = self.sessions.iter().map(|known| known.begun).max();
        let begun = last.map_or(1, |last| last + 1);
        self.sessions.insert(0, Known { session, begun, ours, may_send: true });
        if self.sessions.len() > SESSIONS_MAX {
            let oldest = self.sessions.iter().map(|known| known.begun).min();
            self.sessions.retain(|known| Some(known.begun) != oldest);
        }
    }

    /// Whether a message with this ratchet key is probably of this pair.
    pub(super) fn expects(&self, message: &Message) -> bool {
        self.ratchet == Some(message.ratchet_key().to_bytes())
    }

    /// Opens a message by a session that both know. Nothing changes if none fits.
    pub(super) fn open(&mut self, message: &Message) -> Result<Vec<u8>, NotOpened> {
        let sealed = OlmMessage::Normal(message.clone());
        let mut outcome = NotOpened::Foreign;
        for place in 0..self.sessions.len() {
            match self.sessions[place].session.decrypt(&sealed) {
                Ok(content) => {
                    self.answered(place, message);
                    return Ok(content);
                }
                Err(DecryptionError::MissingMessageKey(_)) => outcome = NotOpened::Repeat,
                Err(_) => {}
            }
        }
        Err(outcome)
    }

    /// Opens a message that may have opened its session.
    pub(super) fn open_first(
        &mut self,
        keyring: &mut Keyring,
        message: &PreKeyMessage,
    ) -> Result<Vec<u8>, NotOpened> {
        let id = message.session_id();
        if let Some(place) = self.sessions.iter().position(|known| known.session.session_id() == id) {
            let sealed = OlmMessage::PreKey(message.clone());
            let opened = self.sessions[place].session.decrypt(&sealed).map_err(|error| match error {
                DecryptionError::MissingMessageKey(_) => NotOpened::Repeat,
                _ => NotOpened::Foreign,
            })?;
            self.answered(place, message.message());
            return Ok(opened);
        }
        let (session, content) = keyring.accept(message).ok_or(NotOpened::Foreign)?;
        self.add(session, false);
        self.ratchet = Some(message.message().ratchet_key().to_bytes());
        Ok(content)
    }

    fn answered(&mut self, place: usize, message: &Message) {
        let known = self.sessions.remove(place);
        let is_earlier = |other: &Known| other.ours == known.ours && other.begun < known.begun;
        let mut earlier: Vec<_> =
            self.sessions.iter().filter(|other| is_earlier(other)).map(|other| other.begun).collect();
        earlier.sort_unstable();
        if let Some(&oldest) = earlier.iter().rev().nth(EARLIER_MAX - 1) {
            self.sessions.retain(|other| !is_earlier(other) || other.begun >= oldest);
        }
        let place = if known.may_send { 0 } else { self.sessions.partition_point(|known| known.may_send) };
        self.sessions.insert(place, known);
        self.ratchet = Some(message.ratchet_key().to_bytes());
    }

    /// Notes a message; false if it has been seen.
    pub(super) fn is_new(&mut self, of: ShortIncarnation, number: u64) -> bool {
        self.uses += 1;
        let seen = self.seen.entry(of).or_default();
        seen.used = self.uses;
        if number <= seen.floor || !seen.numbers.insert(number) {
            return false;
        }
        if seen.numbers.len() > NUMBERS_MAX
            && let Some(smallest) = seen.numbers.pop_first()
        {
            seen.floor = smallest;
        }
        if self.seen.len() > INCARNATIONS_MAX {
            let oldest = self.seen.iter().min_by_key(|(_, seen)| seen.used).map(|(of, _)| *of);
            oldest.map(|of| self.seen.remove(&of));
        }
        true
    }
}
