//! What the other side of a session certainly knows of what was said in it.
//!
//! Nothing has to be confirmed for this: a ratchet turns by itself. A device sends under a new ratchet key only
//! after it has opened something that was sealed under the key that its peer uses now, and it sends in a session no
//! more once it could not read what it had opened there. So a new key of theirs proves that they have read a
//! parcel that left under the present key of ours; which one, it does not say, and what is to be certain must
//! have been said by all of them. Whoever opens what is sealed from then on holds that new key's secret, written together
//! with what was read: an older copy of their home does not.
//!
//! It holds as long as the home is open, as sessions are sent with no longer than that.

use thinpost_wire::parcel::ShortIncarnation;
use thinpost_wire::text::ModelSet;

/// Ratchet keys remembered: Olm opens by the last five, so that what has another is new.
const RATCHET_KEYS_MAX: usize = 8;

/// What a parcel says that need not be said for ever.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    pub(super) incarnation: ShortIncarnation,
    /// The models of the sender, if it said them.
    pub(super) models: Option<ModelSet>,
}

/// What all parcels said, of those that count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum All<T> {
    #[default]
    None,
    Same(T),
    Different,
}

impl<T: PartialEq> All<T> {
    fn add(&mut self, said: T) {
        *self = match std::mem::take(self) {
            Self::None => Self::Same(said),
            Self::Same(before) if before == said => Self::Same(said),
            Self::Same(_) | Self::Different => Self::Different,
        };
    }

    fn take(&mut self) -> Option<T> {
        match std::mem::take(self) {
            Self::Same(said) => Some(said),
            Self::None | Self::Different => None,
        }
    }
}

/// One session's.
#[derive(Debug, Default)]
pub(super) struct Agreed {
    /// Of the other side, the latest at the end.
    ratchet_keys: Vec<[u8; 32]>,
    /// What was named in the session until the other had certainly read one of its parcels.
    naming: All<ShortIncarnation>,
    /// What parcels mean that name none, once that has come about.
    named: Option<Option<ShortIncarnation>>,
    /// What was said of models since the other's ratchet turned last.
    models: All<Option<ModelSet>>,
}

impl Agreed {
    /// Of a session that the other began, with this ratchet key: no proof of anything.
    pub(super) fn begun_by(ratchet_key: [u8; 32]) -> Self {
        Self { ratchet_keys: vec![ratchet_key], ..Self::default() }
    }

    /// A parcel is sealed.
    pub(super) fn sealed(&mut self, said: Said) {
        self.naming.add(said.incarnation);
        self.models.add(said.models);
    }

    /// The other has sent under this ratchet key. Returns the models that they certainly know of from now on.
    pub(super) fn opened(&mut self, ratchet_key: [u8; 32]) -> Option<ModelSet> {
        if self.ratchet_keys.contains(&ratchet_key) {
            return None;
        }
        self.ratchet_keys.push(ratchet_key);
        if self.ratchet_keys.len() > RATCHET_KEYS_MAX {
            self.ratchet_keys.remove(0);
        }
        if self.named.is_none() {
            self.named = Some(self.naming.take());
        }
        self.models.take().flatten()
    }

    /// Whether the other knows that a parcel that names no incarnation is of this one.
    pub(super) fn knows(&self, incarnation: ShortIncarnation) -> bool {
        self.named == Some(Some(incarnation))
    }
}

#[cfg(test)]
mod tests {
    use thinpost_wire::text::ModelName;

    use super::*;

    const NOW: ShortIncarnation = ShortIncarnation([1; 4]);
    const BEFORE: ShortIncarnation = ShortIncarnation([2; 4]);

    fn said(incarnation: ShortIncarnation) -> Said {
        Said { incarnation, models: None }
    }

    fn models(number: u8) -> ModelSet {
        let mut set = ModelSet::default();
        set.insert(ModelName::Number(number));
        set
    }

    fn saying(models: Option<ModelSet>) -> Said {
        Said { incarnation: NOW, models }
    }

    #[test]
    fn an_incarnation_is_known_once_the_other_has_turned_its_ratchet() {
        let mut ours = Agreed::default();
        ours.sealed(said(NOW));
        assert!(!ours.knows(NOW), "it may never have arrived");
        ours.opened([1; 32]);
        assert!(ours.knows(NOW) && !ours.knows(BEFORE));
        let mut theirs = Agreed::begun_by([1; 32]);
        theirs.sealed(said(NOW));
        theirs.opened([1; 32]);
        assert!(!theirs.knows(NOW), "it was on its way before");
        theirs.opened([2; 32]);
        assert!(theirs.knows(NOW));
    }

    #[test]
    fn where_several_were_named_before_the_proof_none_is_known_for_good() {
        let mut agreed = Agreed::default();
        agreed.sealed(said(NOW));
        agreed.sealed(said(BEFORE));
        agreed.sealed(said(NOW));
        for key in 1..5 {
            agreed.opened([key; 32]);
            assert!(!agreed.knows(NOW) && !agreed.knows(BEFORE));
            agreed.sealed(said(NOW));
        }
    }

    #[test]
    fn another_that_is_named_later_changes_nothing() {
        let mut agreed = Agreed::default();
        agreed.sealed(said(NOW));
        agreed.opened([1; 32]);
        agreed.sealed(said(BEFORE));
        agreed.opened([2; 32]);
        assert!(agreed.knows(NOW) && !agreed.knows(BEFORE));
    }

    #[test]
    fn models_are_known_when_all_that_left_under_one_key_said_them() {
        let mut agreed = Agreed::default();
        agreed.sealed(saying(Some(models(1))));
        agreed.sealed(saying(None));
        assert_eq!(agreed.opened([1; 32]), None, "it may have read the other one");
        agreed.sealed(saying(Some(models(1))));
        agreed.sealed(saying(Some(models(2))));
        assert_eq!(agreed.opened([2; 32]), None);
        agreed.sealed(saying(Some(models(2))));
        agreed.sealed(saying(Some(models(2))));
        assert_eq!(agreed.opened([2; 32]), None, "what was on its way before");
        assert_eq!(agreed.opened([1; 32]), None, "and longer");
        assert_eq!(agreed.opened([3; 32]), Some(models(2)));
        assert_eq!(agreed.opened([4; 32]), None, "nothing was said since");
    }
}
