//! Everything between this device and one other: sessions, and which messages have been seen.

use serde::{Deserialize, Serialize};
use thinpost_wire::ids::OneTimeKey;
use thinpost_wire::notes::{Introduction, Notes};
use thinpost_wire::parcel::ShortIncarnation;
use thinpost_wire::text::{Favourite, ModelName, ModelSet};
use thinpost_wire::token::{TOKEN_BYTES, Token};
use vodozemac::olm::{DecryptionError, Message, OlmMessage, PreKeyMessage, Session, SessionPickle};

use super::agreed::{Agreed, Said};
use super::coding::Taste;
use super::keyring::Keyring;
use super::seen::{self, Seen};
use super::{record, unrecord};
use crate::error::StoreError;

/// Sessions kept with one other device: each opening of either home begins one, and what the other has
/// sealed and we have not seen may be of any of them.
const SESSIONS_MAX: usize = 32;

/// Sessions kept that the same side began before the one of which a message was opened last. A mailbox keeps
/// order, so the other has moved on from them, but for what was sealed and refused and is overtaken by what
/// it sends again.
const EARLIER_MAX: usize = 8;

/// What is shared with one other device.
#[derive(Default)]
pub(super) struct Pair {
    /// Those that may be sent with come first, and of them the one that answered last.
    sessions: Vec<Known>,
    /// The ratchet key of the message opened last: the next one usually has it, too.
    ratchet: Option<[u8; 32]>,
    /// A one-time key of theirs, for the session that we begin next.
    claimed: Option<OneTimeKey>,
    /// One was claimed, and is not claimed again.
    has_claimed: bool,
    seen: Seen,
    /// They are to be asked for all that they have sent and we have not confirmed.
    ask_again: bool,
    /// When what there is to say besides letters leaves alone, if nothing takes it along before.
    notes_due_ms: Option<u64>,
    /// They have been given a token of their own for this home's mailbox.
    has_token: bool,
    /// They are to be told who this is.
    introduction: Option<Introduction>,
    /// The models that they certainly know this home to have.
    told: Option<ModelSet>,
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
    /// The incarnation that stood in the first parcel of theirs that was read: it is that of parcels that name none.
    named: Option<ShortIncarnation>,
    /// What they know of what we said in it.
    agreed: Agreed,
}

#[derive(Serialize, Deserialize)]
struct Record {
    sessions: Vec<(u64, bool, SessionPickle, Option<ShortIncarnation>)>,
    ratchet: Option<[u8; 32]>,
    /// The key itself is not kept: a home may be an old copy, whose newer self has used it.
    has_claimed: bool,
    seen: seen::Record,
    ask_again: bool,
    notes_due_ms: Option<u64>,
    has_token: bool,
    introduction: Option<([u8; TOKEN_BYTES], Vec<u8>)>,
    told: Option<SetRecord>,
    models: Option<SetRecord>,
    favourite: Option<NameRecord>,
}

/// A set of models as it is said to others.
#[derive(Serialize, Deserialize)]
struct SetRecord(Vec<u8>);

impl From<&ModelSet> for SetRecord {
    fn from(set: &ModelSet) -> Self {
        let mut bytes = Vec::new();
        set.encode(&mut bytes);
        Self(bytes)
    }
}

impl SetRecord {
    fn read(&self) -> Result<ModelSet, StoreError> {
        let set = ModelSet::decode(&mut &self.0[..]);
        set.ok_or_else(|| StoreError::Damaged("pair: a set of models".to_owned()))
    }
}

#[derive(Serialize, Deserialize)]
enum NameRecord {
    Number(u8),
    Id([u8; 4]),
}

impl From<ModelName> for NameRecord {
    fn from(name: ModelName) -> Self {
        match name {
            ModelName::Number(number) => Self::Number(number),
            ModelName::Id(id) => Self::Id(id),
        }
    }
}

impl From<NameRecord> for ModelName {
    fn from(name: NameRecord) -> Self {
        match name {
            NameRecord::Number(number) => Self::Number(number),
            NameRecord::Id(id) => Self::Id(id),
        }
    }
}

/// What was in a message.
pub(super) struct Opened {
    /// Of which session it is.
    pub(super) begun: u64,
    /// The incarnation of parcels in it that name none.
    pub(super) named: Option<ShortIncarnation>,
    pub(super) content: Vec<u8>,
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
    pub(super) fn to_record(&self, taste: &Taste) -> Vec<u8> {
        record(&Record {
            sessions: self
                .sessions
                .iter()
                .map(|known| (known.begun, known.ours, known.session.pickle(), known.named))
                .collect(),
            ratchet: self.ratchet,
            has_claimed: self.has_claimed,
            seen: self.seen.to_record(),
            ask_again: self.ask_again,
            notes_due_ms: self.notes_due_ms,
            has_token: self.has_token,
            introduction: self.introduction.clone().map(|Introduction { under, ticket }| (under.0, ticket)),
            told: self.told.as_ref().map(SetRecord::from),
            models: taste.models.as_ref().map(SetRecord::from),
            favourite: taste.favourite.name().map(NameRecord::from),
        })
    }

    pub(super) fn from_record(bytes: &[u8]) -> Result<(Self, Taste), StoreError> {
        let Record {
            sessions,
            ratchet,
            has_claimed,
            seen,
            ask_again,
            notes_due_ms,
            has_token,
            introduction,
            told,
            models,
            favourite,
        } = unrecord("pair", bytes)?;
        let read = |set: Option<SetRecord>| set.map(|set| set.read()).transpose();
        let favourite = favourite.map_or_else(Favourite::default, |name| Favourite::new(name.into()));
        let taste = Taste { models: read(models)?, favourite };
        let pair = Self {
            sessions: sessions
                .into_iter()
                .map(|(begun, ours, pickle, named)| {
                    let session = Session::from_pickle(pickle);
                    Known { session, begun, ours, may_send: false, named, agreed: Agreed::default() }
                })
                .collect(),
            ratchet,
            claimed: None,
            has_claimed,
            seen: Seen::from_record(seen),
            ask_again,
            notes_due_ms,
            has_token,
            introduction: introduction.map(|(under, ticket)| Introduction { under: Token(under), ticket }),
            told: read(told)?,
        };
        Ok((pair, taste))
    }

    /// Whether a one-time key of theirs would serve: no session was ever made, and none is at hand.
    pub(super) fn wants_key(&self) -> bool {
        self.sessions.is_empty() && !self.has_claimed
    }

    /// Keeps a one-time key of theirs for the first session, as long as the home is open.
    pub(super) fn put_claimed(&mut self, key: OneTimeKey) {
        self.claimed = Some(key);
        self.has_claimed = true;
    }

    /// The one-time key for a session that begins now. It is used once.
    pub(super) fn take_claimed(&mut self) -> Option<OneTimeKey> {
        self.claimed.take()
    }

    /// Forgets all but what has arrived from them; false if nothing else was known.
    pub(super) fn part(&mut self) -> bool {
        let had_sessions = !self.sessions.is_empty();
        *self = Self { seen: std::mem::take(&mut self.seen), ..Self::default() };
        had_sessions
    }

    /// When something of theirs arrived last, in seconds of the home's clock; 0 if nothing ever did.
    pub(super) fn heard_s(&self) -> u64 {
        self.seen.last_use()
    }

    /// Sends with none of the sessions of until now: the other side may have lost them all.
    pub(super) fn begin_anew(&mut self) {
        self.sessions.iter_mut().for_each(|known| known.may_send = false);
    }

    /// The session to send with, if one has begun.
    pub(super) fn session(&mut self) -> Option<&mut Session> {
        self.sessions.first_mut().filter(|known| known.may_send).map(|known| &mut known.session)
    }

    /// Whether they know that what is sealed next is of this incarnation where it names none.
    pub(super) fn knows(&self, incarnation: ShortIncarnation) -> bool {
        let first = self.sessions.first().filter(|known| known.may_send);
        first.is_some_and(|known| known.agreed.knows(incarnation))
    }

    /// A parcel was sealed with the session to send with.
    pub(super) fn sealed(&mut self, said: Said) {
        if let Some(known) = self.sessions.first_mut() {
            known.agreed.sealed(said);
        }
    }

    /// Whether they are to be told which models this home has.
    pub(super) fn is_told(&self, models: &ModelSet) -> bool {
        self.told.as_ref() == Some(models)
    }

    /// The receipts of what has arrived last are not sure to be with them.
    pub(super) fn confirm_anew(&mut self) {
        self.seen.tell_anew();
    }

    /// What they were told and given once is not sure to be with them any more.
    pub(super) fn tell_anew(&mut self) {
        self.told = None;
        self.has_token = false;
        self.confirm_anew();
    }

    /// Whether the session to send with is known to both.
    pub(super) fn is_answered(&self) -> bool {
        let first = self.sessions.first();
        first.is_some_and(|known| known.may_send && known.session.has_received_message())
    }

    /// Adds a session that was begun here, and sends with it from now on.
    pub(super) fn begin(&mut self, session: Session) {
        self.add(session, true, Agreed::default());
    }

    fn add(&mut self, session: Session, ours: bool, agreed: Agreed) {
        let last = self.sessions.iter().map(|known| known.begun).max();
        let begun = last.map_or(1, |last| last + 1);
        self.sessions.insert(0, Known { session, begun, ours, may_send: true, named: None, agreed });
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
    pub(super) fn open(&mut self, message: &Message) -> Result<Opened, NotOpened> {
        let sealed = OlmMessage::Normal(message.clone());
        let mut outcome = NotOpened::Foreign;
        for place in 0..self.sessions.len() {
            match self.sessions[place].session.decrypt(&sealed) {
                Ok(content) => return Ok(self.answered(place, message, content)),
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
    ) -> Result<Opened, NotOpened> {
        let id = message.session_id();
        if let Some(place) = self.sessions.iter().position(|known| known.session.session_id() == id) {
            let sealed = OlmMessage::PreKey(message.clone());
            let opened = self.sessions[place].session.decrypt(&sealed).map_err(|error| match error {
                DecryptionError::MissingMessageKey(_) => NotOpened::Repeat,
                _ => NotOpened::Foreign,
            })?;
            return Ok(self.answered(place, message.message(), opened));
        }
        let (session, content) = keyring.accept(message).ok_or(NotOpened::Foreign)?;
        let ratchet = message.message().ratchet_key().to_bytes();
        self.add(session, false, Agreed::begun_by(ratchet));
        self.ratchet = Some(ratchet);
        Ok(Opened { begun: self.sessions[0].begun, named: None, content })
    }

    fn answered(&mut self, place: usize, message: &Message, content: Vec<u8>) -> Opened {
        let mut known = self.sessions.remove(place);
        let ratchet = message.ratchet_key().to_bytes();
        self.told = known.agreed.opened(ratchet).or(self.told.take());
        let opened = Opened { begun: known.begun, named: known.named, content };
        let is_earlier = |other: &Known| other.ours == known.ours && other.begun < known.begun;
        let mut earlier: Vec<_> =
            self.sessions.iter().filter(|other| is_earlier(other)).map(|other| other.begun).collect();
        earlier.sort_unstable();
        if let Some(&oldest) = earlier.iter().rev().nth(EARLIER_MAX - 1) {
            self.sessions.retain(|other| !is_earlier(other) || other.begun >= oldest);
        }
        self.put_in_place(known);
        self.ratchet = Some(ratchet);
        opened
    }

    /// Puts a session before all others that may be sent with as it may, or as it may not.
    fn put_in_place(&mut self, known: Known) {
        let place = if known.may_send { 0 } else { self.sessions.partition_point(|known| known.may_send) };
        self.sessions.insert(place, known);
    }

    /// What was opened of a session was read as a parcel of this incarnation, or could not be read. Whoever sends in a
    /// session has read all that they opened in it, so then we do no more.
    pub(super) fn read_as(&mut self, begun: u64, incarnation: Option<ShortIncarnation>) {
        let Some(place) = self.sessions.iter().position(|known| known.begun == begun) else { return };
        match incarnation {
            Some(incarnation) => drop(self.sessions[place].named.get_or_insert(incarnation)),
            None => {
                let known = self.sessions.remove(place);
                self.put_in_place(Known { may_send: false, ..known });
            }
        }
    }

    /// Notes a message, at `now_s` of the home's clock; false if it has been seen.
    pub(super) fn is_new(&mut self, of: ShortIncarnation, number: u64, now_s: u64) -> bool {
        self.seen.insert(of, number, now_s)
    }

    /// Notes that messages have been read; false if that was known.
    pub(super) fn read(&mut self, of: ShortIncarnation, number: u64) -> bool {
        self.seen.read(of, number)
    }

    /// They are to be asked for what we have not confirmed, and told what we can read.
    pub(super) fn ask_again(&mut self) {
        self.ask_again = true;
        self.told = None;
    }

    pub(super) fn has_token(&self) -> bool {
        self.has_token
    }

    pub(super) fn token_given(&mut self) {
        self.has_token = true;
    }

    pub(super) fn notes_due(&self) -> Option<u64> {
        self.notes_due_ms
    }

    /// The next notes say who this is.
    pub(super) fn introduce(&mut self, introduction: Introduction) {
        self.introduction = Some(introduction);
    }

    /// Lets notes leave alone at this time, if they were not to before.
    pub(super) fn hasten_notes(&mut self, due_ms: u64) {
        self.notes_due_ms = Some(self.notes_due_ms.map_or(due_ms, |due| due.min(due_ms)));
    }

    /// Notes are on their way.
    pub(super) fn notes_left(&mut self) {
        self.notes_due_ms = None;
    }

    /// How many parcels it takes to say what there is to say besides letters.
    pub(super) fn notes_parcels(&self) -> usize {
        self.seen.untold_parcels().max(1)
    }

    /// Lets notes leave alone at this time, unless they do before.
    pub(super) fn schedule_notes(&mut self, due_ms: u64) {
        self.notes_due_ms.get_or_insert(due_ms);
    }

    /// What there is to say besides letters. What is left for another time stays due.
    pub(super) fn take_notes(&mut self, with_receipts: bool) -> Notes {
        let seen = if with_receipts { self.seen.take_receipts() } else { Vec::new() };
        let again = std::mem::take(&mut self.ask_again);
        let introduction = self.introduction.take();
        let notes = Notes { seen, again, introduction, ..Notes::default() };
        if !with_receipts || !self.seen.is_untold() {
            self.notes_due_ms = None;
        }
        notes
    }
}
