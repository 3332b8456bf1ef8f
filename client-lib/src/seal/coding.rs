//! How what is said to others is coded: with the text models that this home has and that they have said to have.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use thinpost_wire::letter::{Letter, TooLong, Way};
use thinpost_wire::notes::Notes;
use thinpost_wire::parcel::{Parcel, Reader, pack_within};
use thinpost_wire::text::{Favourite, ModelSet, Models};

use super::Identity;
use super::agreed::Said;

/// What codings for one other device go by.
#[derive(Clone, Debug, Default)]
pub(super) struct Taste {
    /// The models that they have said to have; none: nothing but what their ticket says is known.
    pub(super) models: Option<ModelSet>,
    /// The model that served best.
    pub(super) favourite: Favourite,
}

/// The models at hand, and who can read what.
///
/// Seals keep it, and write what is known of others with all else that is shared with them. Letters for the relay to
/// see are coded where they are written, so that a repeat from a copy of the home has the same bytes.
#[derive(Debug, Default)]
pub(crate) struct Codings {
    models: Models,
    /// What is said of them.
    ours: ModelSet,
    tastes: Mutex<BTreeMap<Identity, Taste>>,
}

/// What is to be sealed, and what is known once it is.
#[derive(Clone, Debug)]
pub(crate) struct Packed {
    /// How many letters of the parcel are in it.
    pub(crate) letters: usize,
    pub(super) content: Vec<u8>,
    pub(super) parcel: Said,
    pub(super) favourite: Favourite,
}

impl Packed {
    /// What is no parcel, perhaps.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn of_bytes(content: &[u8]) -> Self {
        let incarnation = thinpost_wire::parcel::ShortIncarnation([0; 4]);
        let parcel = Said { incarnation, models: None };
        Self { letters: 0, content: content.to_vec(), parcel, favourite: Favourite::default() }
    }

    /// How many blocks of the cipher it takes: the last one has at least a byte of padding.
    pub(crate) fn blocks(&self) -> usize {
        self.content.len() / 16 + 1
    }
}

impl Codings {
    pub(crate) fn new(models: Models) -> Self {
        Self { ours: models.set(), models, tastes: Mutex::default() }
    }

    /// The models at hand.
    pub(crate) fn models(&self) -> &Models {
        &self.models
    }

    /// What is said of them.
    pub(crate) fn ours(&self) -> &ModelSet {
        &self.ours
    }

    /// Changes under this lock are single calls that do not panic.
    fn tastes(&self) -> MutexGuard<'_, BTreeMap<Identity, Taste>> {
        self.tastes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn taste(&self, of: &Identity) -> Taste {
        self.tastes().get(of).cloned().unwrap_or_default()
    }

    pub(super) fn put_taste(&self, of: Identity, taste: Taste) {
        self.tastes().insert(of, taste);
    }

    pub(super) fn forget(&self, of: &Identity) {
        self.tastes().remove(of);
    }

    pub(super) fn learn(&self, of: Identity, favourite: Favourite) {
        self.tastes().entry(of).or_default().favourite = favourite;
    }

    /// Notes which models somebody has. Returns whether they lack the one that served them best.
    pub(super) fn said(&self, of: Identity, models: ModelSet) -> bool {
        let mut tastes = self.tastes();
        let taste = tastes.entry(of).or_default();
        let lacks = taste.favourite.name().is_some_and(|name| !models.contains(name));
        taste.models = Some(models);
        lacks
    }

    /// A parcel in the shortest coding that they can read, with as many of its letters as fit, one at least; `by_ticket` are
    /// the models that their ticket names. What nobody could ask for again is for all to read: a stranger's introduction,
    /// and a question for what is missing.
    pub(super) fn pack(
        &self,
        to: &Identity,
        by_ticket: &ModelSet,
        parcel: &Parcel<'_>,
        knows_incarnation: bool,
        bytes_max: usize,
    ) -> Packed {
        let Taste { models, mut favourite } = self.taste(to);
        let Notes { introduction, again, .. } = &parcel.notes;
        let is_for_all = introduction.is_some() || *again;
        let theirs = models.as_ref().unwrap_or(by_ticket);
        let models = if is_for_all { &ModelSet::EMPTY } else { theirs };
        let reader = Reader { models, knows_incarnation };
        let (letters, content) = pack_within(bytes_max, parcel, &self.models, reader, &mut favourite);
        let said = Said { incarnation: parcel.incarnation, models: parcel.notes.models.clone() };
        Packed { letters, content, parcel: said, favourite }
    }

    /// The body that carries a letter for the relay to see.
    pub(crate) fn encode_open(
        &self,
        to: &Identity,
        by_ticket: &ModelSet,
        letter: &Letter<'_>,
    ) -> Result<Vec<u8>, TooLong> {
        let Taste { models, mut favourite } = self.taste(to);
        let recipient_has = models.as_ref().unwrap_or(by_ticket);
        let way = Way::Open { models: &self.models, recipient_has, favourite: &mut favourite };
        let body = letter.encode(way)?;
        self.learn(*to, favourite);
        Ok(body)
    }
}
