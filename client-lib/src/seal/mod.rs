//! End-to-end encryption between two devices, by Olm. `docs/decisions/0007-end-to-end.md` says why so, and
//! `PROTOCOL.md`, section "Seals", what it looks like in an envelope.
//!
//! What is here changes in memory only: whoever seals or opens writes [`Seals::take_changed`] in the
//! transaction that makes the result durable, or lets the whole go.

mod agreed;
mod bare;
mod coding;
mod envelope;
mod keyring;
mod pair;
mod seen;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use thinpost_wire::ids::OneTimeKey;
use thinpost_wire::letter::{SEALED, SEALED_FIRST};
use thinpost_wire::limits::BODY_BYTES_MAX;
use thinpost_wire::notes::{Introduction, Notes};
use thinpost_wire::parcel::{Parcel, ShortIncarnation, UnpackError, unpack};
use thinpost_wire::text::ModelSet;
use thinpost_wire::ticket::SealKeys;
use vodozemac::olm::OlmMessage;

pub(crate) use self::coding::{Codings, Packed};
pub(crate) use self::keyring::Keyring;
use self::pair::{NotOpened, Opened, Pair};
use crate::error::StoreError;

/// What is sealed together at most, unless it is one letter: 59 blocks less the byte of padding that there
/// always is. With 44 bytes of seal and those of a frame, an item of the link holds it.
const CONTENT_BYTES: usize = 59 * 16 - 1;

/// How many others have sessions with this device without being contacts. Anyone who has a ticket can begin one.
const STRANGERS_MAX: usize = 64;

/// Of how many others that are no contacts it is known what has arrived: nobody confirms that to them, so that they send it again
/// for days.
const STRANGERS_KNOWN_MAX: usize = 10_000;

/// What somebody who is no contact has sealed has at most so many times as many bytes when it is unpacked, and these beside: texts
/// that people write do not shrink so far, and a relay counts what strangers send as it is sent.
const STRANGER_TIMES: usize = 8;
const STRANGER_BYTES: usize = 16 * 1024;

/// What so many coded bytes of somebody who is no contact have at most.
pub(crate) fn stranger_bytes_max(coded: usize) -> usize {
    BODY_BYTES_MAX.min(STRANGER_BYTES + STRANGER_TIMES * coded)
}

/// What a seal takes more until the first answer, rounded up to blocks, with a one-time key.
const FIRST_OVERHEAD_BYTES: usize = 10 * 16;

/// Another device's identity key.
pub(crate) type Identity = [u8; 32];

/// The keys of this device, and what it shares with others.
pub(crate) struct Seals {
    keyring: Keyring,
    codings: Arc<Codings>,
    pairs: BTreeMap<Identity, Pair>,
    changed: BTreeSet<Identity>,
    /// Whose notes leave when, in milliseconds of the home's clock.
    notes_due: BTreeMap<Identity, u64>,
    /// Who is no contact, the one that was heard of last at the end. With the last [`STRANGERS_MAX`] of them there are sessions.
    strangers: VecDeque<Identity>,
    /// With whom nothing is shared any more.
    forgotten: Vec<Identity>,
    /// Whether the keyring is another than what is written.
    keyring_changed: bool,
}

/// Why nothing can be sealed for somebody, ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the contact's keys cannot be used")]
pub(crate) struct BadKeys;

/// Why a sealed body gives no parcel.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OpenSealError {
    /// It was opened before, or came so late that its key is gone: whose it is.
    #[error("it was opened before, or is too late")]
    Repeat(Identity),
    /// It is for another device or session, was changed on the way, or is none of this version.
    #[error("no key opens it")]
    Foreign,
    /// It says that it is a first message from this device, and no key opens what is in it.
    #[error("no key opens this first message")]
    NoSession(Identity),
    /// It opened, and cannot be read with what is here; coded otherwise it could: whose it is, and what was in it.
    #[error("its content is coded with what is not here")]
    Lacking(Identity, Vec<u8>),
    /// It opened, and is of somebody who is no contact: when it is unpacked it is longer than they may make it.
    #[error("its content grows more than a stranger's may")]
    TooMuch(Identity),
    /// It opened, and is no parcel of this version: whose it is, and what was in it.
    #[error("its content cannot be read")]
    Content(Identity, Vec<u8>),
}

impl Seals {
    pub(crate) fn new(
        keyring: Keyring,
        codings: Arc<Codings>,
        records: &[(Identity, Vec<u8>)],
    ) -> Result<Self, StoreError> {
        let mut pairs = BTreeMap::new();
        for (with, bytes) in records {
            let (pair, taste) = Pair::from_record(bytes)?;
            codings.put_taste(*with, taste);
            pairs.insert(*with, pair);
        }
        let notes_due = pairs.iter().filter_map(|(with, pair)| Some((*with, pair.notes_due()?)));
        Ok(Self {
            notes_due: notes_due.collect(),
            keyring,
            codings,
            pairs,
            changed: BTreeSet::new(),
            strangers: VecDeque::new(),
            forgotten: Vec::new(),
            keyring_changed: false,
        })
    }

    /// A parcel as it is sealed for them, with as many of its letters as fit a datagram, one at least; `by_ticket` are the models that
    /// their ticket names.
    pub(crate) fn pack(&self, them: &SealKeys, by_ticket: &ModelSet, parcel: &Parcel<'_>) -> Packed {
        let pair = self.pairs.get(&them.identity);
        let knows_incarnation = pair.is_some_and(|pair| pair.knows(parcel.incarnation));
        let bytes_max = self.content_bytes_max(them);
        self.codings.pack(&them.identity, by_ticket, parcel, knows_incarnation, bytes_max)
    }

    /// How much content fits a seal that fits a datagram: filled up to a block of the cipher.
    fn content_bytes_max(&self, them: &SealKeys) -> usize {
        if self.is_answered(&them.identity) { CONTENT_BYTES } else { CONTENT_BYTES - FIRST_OVERHEAD_BYTES }
    }

    /// Whether the next message to them is of a session that both know.
    pub(crate) fn is_answered(&self, with: &Identity) -> bool {
        self.pairs.get(with).is_some_and(Pair::is_answered)
    }

    /// Whether they have written and were given no token of their own yet.
    pub(crate) fn wants_token(&self, with: &Identity) -> bool {
        self.pairs.get(with).is_some_and(|pair| !pair.has_token())
    }

    /// The next seal gives them a token of their own.
    pub(crate) fn token_given(&mut self, with: &Identity) {
        if let Some(pair) = self.pairs.get_mut(with) {
            pair.token_given();
            self.changed.insert(*with);
        }
    }

    /// The body of an envelope with this content, [packed](Seals::pack) for them, that only they can open.
    pub(crate) fn seal(&mut self, them: &SealKeys, packed: Packed) -> Result<Vec<u8>, BadKeys> {
        let Packed { content, parcel, favourite, .. } = packed;
        let pair = self.pairs.entry(them.identity).or_default();
        if pair.session().is_none() {
            let claimed = pair.take_claimed().map_or(them.pre_key, |key| key.0);
            let session = self.keyring.session_with(&them.identity, &claimed);
            // A relay may have given what is no key.
            let session = session.or_else(|| self.keyring.session_with(&them.identity, &them.pre_key));
            pair.begin(session.ok_or(BadKeys)?);
        }
        let session = pair.session().ok_or(BadKeys)?;
        let message = session.encrypt(content).map_err(|_| BadKeys)?;
        pair.sealed(parcel);
        self.codings.learn(them.identity, favourite);
        self.changed.insert(them.identity);
        match message {
            OlmMessage::Normal(message) => Ok([&[SEALED][..], &bare::bare(&message)].concat()),
            OlmMessage::PreKey(message) => {
                let first = bare::encode(&message, &them.pre_key);
                let sealed = envelope::seal(&them.envelope, &first).ok_or(BadKeys)?;
                Ok([&[SEALED_FIRST][..], &sealed].concat())
            }
        }
    }

    /// Opens a body: whose it is, and the parcel, which [`Parcel::decode`] can read.
    pub(crate) fn open(
        &mut self,
        body: &[u8],
        is_contact: impl FnOnce(&Identity) -> bool,
    ) -> Result<(Identity, Vec<u8>), OpenSealError> {
        let (from, opened) = match body.split_first() {
            Some((&SEALED, message)) => self.open_normal(message)?,
            Some((&SEALED_FIRST, sealed)) => self.open_first(sealed)?,
            _ => return Err(OpenSealError::Foreign),
        };
        self.changed.insert(from);
        let Opened { begun, named, content } = opened;
        let bytes_max = match is_contact(&from) {
            true => BODY_BYTES_MAX,
            false => stranger_bytes_max(content.len()),
        };
        let parcel = unpack(&content, self.codings.models(), named, bytes_max);
        let incarnation = match &parcel {
            Ok(parcel) => Parcel::decode(parcel).ok().map(|parcel| parcel.incarnation),
            Err(_) => None,
        };
        if let Some(pair) = self.pairs.get_mut(&from) {
            pair.read_as(begun, incarnation);
        }
        match parcel {
            Ok(parcel) if incarnation.is_some() => Ok((from, parcel)),
            Ok(parcel) => Err(OpenSealError::Content(from, parcel)),
            Err(UnpackError::UnknownModel(_) | UnpackError::Unnamed) => {
                Err(OpenSealError::Lacking(from, content))
            }
            Err(error) if bytes_max < BODY_BYTES_MAX && error.is_too_long() => {
                Err(OpenSealError::TooMuch(from))
            }
            Err(_) => Err(OpenSealError::Content(from, content)),
        }
    }

    fn open_normal(&mut self, message: &[u8]) -> Result<(Identity, Opened), OpenSealError> {
        let message = bare::unbare(message).ok_or(OpenSealError::Foreign)?;
        let (likely, others): (Vec<_>, Vec<_>) =
            self.pairs.iter_mut().partition(|(_, pair)| pair.expects(&message));
        for (with, pair) in likely.into_iter().chain(others) {
            match pair.open(&message) {
                Ok(opened) => return Ok((*with, opened)),
                Err(NotOpened::Repeat) => return Err(OpenSealError::Repeat(*with)),
                Err(NotOpened::Foreign) => {}
            }
        }
        Err(OpenSealError::Foreign)
    }

    fn open_first(&mut self, sealed: &[u8]) -> Result<(Identity, Opened), OpenSealError> {
        let message = self.keyring.first_message(sealed).ok_or(OpenSealError::Foreign)?;
        let from = message.identity_key().to_bytes();
        let unused = self.keyring.one_time_keys_unused();
        let mut fresh = None;
        let pair = match self.pairs.get_mut(&from) {
            Some(pair) => pair,
            None => fresh.insert(Pair::default()),
        };
        let opened = pair.open_first(&mut self.keyring, &message).map_err(|error| match error {
            NotOpened::Repeat => OpenSealError::Repeat(from),
            NotOpened::Foreign => OpenSealError::NoSession(from),
        })?;
        if let Some(pair) = fresh {
            self.pairs.insert(from, pair);
        }
        self.keyring_changed |= self.keyring.one_time_keys_unused() != unused;
        Ok((from, opened))
    }

    /// Notes who is a contact and who is not. Of those who are not, the sessions with the ones not heard of for longest go, and, far
    /// later, what has arrived from them.
    pub(crate) fn heard_of(&mut self, with: &Identity, is_contact: impl Fn(&Identity) -> bool) {
        self.strangers.retain(|stranger| stranger != with);
        if !is_contact(with) {
            self.strangers.push_back(*with);
        }
        let place = loop {
            let Some(place) = self.strangers.len().checked_sub(STRANGERS_MAX + 1) else { return };
            // Some may have become contacts since they were heard of.
            if !is_contact(&self.strangers[place]) {
                break place;
            }
            self.strangers.remove(place);
        };
        let parted = self.strangers[place];
        if self.pairs.get_mut(&parted).is_some_and(Pair::part) {
            self.codings.forget(&parted);
            self.notes_due.remove(&parted);
            self.changed.insert(parted);
        }
        if self.strangers.len() > STRANGERS_KNOWN_MAX
            && let Some(oldest) = self.strangers.pop_front()
            && !is_contact(&oldest)
        {
            self.pairs.remove(&oldest);
            self.forgotten.push(oldest);
        }
    }

    /// With whom nothing is shared any more: to be taken from the disk.
    pub(crate) fn take_forgotten(&mut self) -> Vec<Identity> {
        std::mem::take(&mut self.forgotten)
    }

    /// Notes a message that was opened, at `now_s` of the home's clock; false if it has been seen.
    pub(crate) fn is_new(&mut self, from: &Identity, of: ShortIncarnation, number: u64, now_s: u64) -> bool {
        self.changed.insert(*from);
        self.pairs.get_mut(from).is_none_or(|pair| pair.is_new(of, number, now_s))
    }

    /// Notes that messages have been read, which the next receipt tells; false if that was known.
    pub(crate) fn read(&mut self, with: &Identity, of: ShortIncarnation, number: u64) -> bool {
        let is_news = self.pairs.get_mut(with).is_some_and(|pair| pair.read(of, number));
        if is_news {
            self.changed.insert(*with);
        }
        is_news
    }

    /// Everyone with whom something is shared, the one that was heard of last at the end.
    pub(crate) fn everyone(&self) -> Vec<Identity> {
        let mut everyone: Vec<_> = self.pairs.keys().copied().collect();
        everyone.sort_by_key(|with| self.pairs[with].heard_s());
        everyone
    }

    /// They are to be asked for all that they have sent and we have not confirmed, in a session of its own: they may
    /// have lost all others.
    pub(crate) fn ask_again(&mut self, with: &Identity) {
        self.changed.insert(*with);
        let pair = self.pairs.entry(*with).or_default();
        pair.begin_anew();
        pair.ask_again();
    }

    /// What of theirs has arrived last is stated in the next receipt anew.
    pub(crate) fn confirm_anew(&mut self, to: &Identity) {
        if let Some(pair) = self.pairs.get_mut(to) {
            pair.confirm_anew();
            self.changed.insert(*to);
        }
    }

    /// What they were told and given once, they are told and given again: they may have lost it.
    pub(crate) fn tell_anew(&mut self, with: &Identity) {
        if let Some(pair) = self.pairs.get_mut(with) {
            pair.tell_anew();
            self.changed.insert(*with);
        }
    }

    /// The models of this home, if they are not sure to know of them.
    pub(crate) fn models_to_tell(&self, with: &Identity) -> Option<ModelSet> {
        let ours = self.codings.ours();
        let is_told = self.pairs.get(with).is_some_and(|pair| pair.is_told(ours));
        (!is_told).then(|| ours.clone())
    }

    /// They say which models they have. Returns whether they lack the one that served them best: what was sealed with
    /// it, they cannot read.
    pub(crate) fn models_told(&mut self, from: &Identity, models: ModelSet) -> bool {
        self.changed.insert(*from);
        self.codings.said(*from, models)
    }

    /// Lets what there is to say besides letters leave alone at this time, unless it is to before.
    pub(crate) fn schedule_notes(&mut self, with: &Identity, due_ms: u64) {
        if let Some(pair) = self.pairs.get_mut(with) {
            pair.schedule_notes(due_ms);
            self.changed.insert(*with);
            self.notes_due.extend(pair.notes_due().map(|due| (*with, due)));
        }
    }

    /// They are to be told who this is, with the next notes.
    pub(crate) fn introduce(&mut self, to: &Identity, introduction: Introduction) {
        self.pairs.entry(*to).or_default().introduce(introduction);
        self.changed.insert(*to);
    }

    /// Lets what there is to say besides letters leave alone at this time, if it was not to before.
    pub(crate) fn hasten_notes(&mut self, with: &Identity, due_ms: u64) {
        if let Some(pair) = self.pairs.get_mut(with) {
            pair.hasten_notes(due_ms);
            self.changed.insert(*with);
            self.notes_due.extend(pair.notes_due().map(|due| (*with, due)));
        }
    }

    /// When the next notes leave alone.
    pub(crate) fn next_notes(&self) -> Option<u64> {
        self.notes_due.values().min().copied()
    }

    /// Whose notes are to leave by now, or by a time so far ahead that the clock must have been set back, the one that
    /// waited longest first. Asked once, they count as on their way, until they are scheduled anew.
    pub(crate) fn take_due(&mut self, now_ms: u64, ahead_ms_max: u64) -> Vec<Identity> {
        let still_to_wait = now_ms + 1..=now_ms.saturating_add(ahead_ms_max);
        let is_due = |(with, due): (&Identity, &u64)| (!still_to_wait.contains(due)).then_some((*due, *with));
        let mut due: Vec<_> = self.notes_due.iter().filter_map(is_due).collect();
        due.sort_unstable();
        let due: Vec<_> = due.into_iter().map(|(_, with)| with).collect();
        for with in &due {
            self.notes_due.remove(with);
            if let Some(pair) = self.pairs.get_mut(with) {
                pair.notes_left();
            }
        }
        due
    }

    /// How many parcels it takes to say to them what there is to say besides letters.
    pub(crate) fn notes_parcels(&self, with: &Identity) -> usize {
        self.pairs.get(with).map_or(1, |pair| pair.notes_parcels())
    }

    /// What there is to say to them besides letters: for the next seal.
    pub(crate) fn take_notes(&mut self, with: &Identity, with_receipts: bool) -> Notes {
        let Some(pair) = self.pairs.get_mut(with) else { return Notes::default() };
        let notes = pair.take_notes(with_receipts);
        self.changed.insert(*with);
        match pair.notes_due() {
            Some(due) => self.notes_due.insert(*with, due),
            None => self.notes_due.remove(with),
        };
        notes
    }

    /// Whether a one-time key of theirs would serve the first message to them.
    pub(crate) fn wants_key(&self, them: &Identity) -> bool {
        self.pairs.get(them).is_none_or(Pair::wants_key)
    }

    /// Keeps a one-time key of theirs until a session begins.
    pub(crate) fn put_claimed(&mut self, them: Identity, key: OneTimeKey) {
        self.changed.insert(them);
        self.pairs.entry(them).or_default().put_claimed(key);
    }

    /// New one-time keys for the relay. [`Seals::take_keyring`] must be written before it is told.
    pub(crate) fn one_time_keys(&mut self, count: usize) -> Vec<OneTimeKey> {
        self.keyring_changed = true;
        self.keyring.one_time_keys(count)
    }

    /// How many of this device's one-time keys have not been used.
    pub(crate) fn one_time_keys_unused(&self) -> usize {
        self.keyring.one_time_keys_unused()
    }

    /// The keyring, if it must be written: with what was opened, or a used key would be there still.
    pub(crate) fn take_keyring(&mut self) -> Option<Vec<u8>> {
        std::mem::take(&mut self.keyring_changed).then(|| self.keyring.to_record())
    }

    /// What must be written with the result of sealing and opening.
    pub(crate) fn take_changed(&mut self) -> Vec<(Identity, Vec<u8>)> {
        let changed = std::mem::take(&mut self.changed);
        let record = |with| Some((with, self.pairs.get(&with)?.to_record(&self.codings.taste(&with))));
        changed.into_iter().filter_map(record).collect()
    }
}

/// Olm's state has no form that postcard could read back; MessagePack has.
fn record(record: &impl Serialize) -> Vec<u8> {
    rmp_serde::to_vec(record).expect("keys hold nothing that MessagePack cannot write")
}

fn unrecord<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, StoreError> {
    rmp_serde::from_slice(bytes).map_err(|error| StoreError::Damaged(format!("{what}: {error}")))
}

/// What is kept of a pair, read and written again; none if it cannot be read.
#[cfg(feature = "fuzzing")]
pub(crate) fn rewrite_pair(bytes: &[u8]) -> Option<Vec<u8>> {
    let (pair, taste) = Pair::from_record(bytes).ok()?;
    Some(pair.to_record(&taste))
}

#[cfg(test)]
mod tests;
// What is coded with a model needs one.
#[cfg(test)]
#[cfg(feature = "models-en")]
mod tests_coded;
