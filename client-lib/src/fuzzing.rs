//! What the fuzzer drives, which no application should: the inside of seals, and the rows of a home's file.

use thinpost_wire::ids::AccountKey;
use thinpost_wire::letter::Letter;
use thinpost_wire::notes::Notes;
use thinpost_wire::parcel::{Item, Parcel, ShortIncarnation};
use thinpost_wire::text::{ModelSet, Models};
use thinpost_wire::ticket::{ContactTicket, SealKeys};

use crate::kept::{Kept, Name};
use crate::message::MessageId;
use crate::seal::{Codings, Keyring, Packed, Seals};
use crate::store::Queued;
pub use crate::store::fuzzing::{HOME_RECORDS, HomeRows, home_samples};

/// Seals a letter.
fn seal(from: &mut Seals, to: &SealKeys) -> Vec<u8> {
    let items = vec![Item { number: 1, letter: b"\x00are you there?" }];
    let parcel = Parcel { incarnation: ShortIncarnation([7; 4]), notes: Notes::default(), items };
    let packed = from.pack(to, &ModelSet::EMPTY, &parcel);
    from.seal(to, packed).expect("the keys are good")
}

/// Two people who have written to each other.
pub struct Pair {
    ann: Seals,
    bob: Seals,
    ann_keys: SealKeys,
    bob_keys: SealKeys,
    /// What Bob has sent to Ann, and of which she sends receipts.
    kept: Kept,
}

impl Default for Pair {
    fn default() -> Self {
        Self::new()
    }
}

impl Pair {
    /// A session that both know.
    ///
    /// # Panics
    /// When what Ann seals does not open, or what Bob answers.
    pub fn new() -> Self {
        let [ann, bob] = [1, 2].map(|n| Keyring::new([n; 32]));
        let (ann_keys, bob_keys) = (ann.public(), bob.public());
        let [mut ann, mut bob] = [ann, bob].map(|keys| {
            let codings = Codings::new(Models::compiled_in());
            Seals::new(keys, codings.into(), &[]).expect("nothing is read")
        });
        let first = seal(&mut ann, &bob_keys);
        bob.open(&first, |_| true).expect("the first message opens");
        let answer = seal(&mut bob, &ann_keys);
        ann.open(&answer, |_| true).expect("the answer opens");
        let mut kept = Kept::default();
        for number in 1..100 {
            let name = Name::new(ann_keys.identity, ShortIncarnation([0; 4]), number);
            let queued = Queued::new(AccountKey(ann_keys.identity), Some(name));
            kept.keep(MessageId(number), queued, number);
        }
        Self { ann, bob, ann_keys, bob_keys, kept }
    }

    /// What Ann has sealed, for Bob to open: one letter.
    ///
    /// # Panics
    /// When Ann cannot seal.
    pub fn sealed(&mut self) -> Vec<u8> {
        seal(&mut self.ann, &self.bob_keys)
    }

    /// What each would write down of the other.
    ///
    /// # Panics
    /// When nothing is shared.
    pub fn records(&mut self) -> [Vec<u8>; 2] {
        self.sealed();
        let answer = seal(&mut self.bob, &self.ann_keys);
        self.ann.open(&answer, |_| true).expect("the answer opens");
        [&mut self.ann, &mut self.bob].map(|seals| {
            let (_, record) = seals.take_changed().pop().expect("a pair has changed");
            record
        })
    }

    /// Bob opens whatever comes.
    pub fn open(&mut self, body: &[u8]) {
        let _ = self.bob.open(body, |_| false);
    }

    /// Bob opens what Ann sealed, with some of its bytes changed: each pair of bytes names a place and a
    /// change. That nothing changed opens is for the tests to show: under the fuzzer vodozemac checks no
    /// authentication code, so that what lies behind it is reached.
    ///
    /// # Panics
    /// When Ann cannot seal.
    pub fn open_changed(&mut self, changes: &[u8]) {
        let mut body = seal(&mut self.ann, &self.bob_keys);
        for change in changes.chunks_exact(2) {
            let place = usize::from(change[0]) % body.len();
            body[place] ^= change[1];
        }
        let _ = self.bob.open(&body, |_| true);
    }

    /// Bob opens what Ann sealed, whose content is this.
    ///
    /// # Panics
    /// When it can be decoded and is not read without panic.
    pub fn open_content(&mut self, content: &[u8]) {
        let body = self.ann.seal(&self.bob_keys, Packed::of_bytes(content)).expect("the keys are good");
        let Ok((from, parcel)) = self.bob.open(&body, |_| true) else { return };
        let Parcel { incarnation, notes, items } = Parcel::decode(&parcel).expect("it was read before");
        for item in items {
            self.bob.is_new(&from, incarnation, item.number, 0);
            let _ = Letter::decode_sealed(item.letter);
        }
        if let Some(models) = notes.models.clone() {
            self.bob.models_told(&from, models);
            self.bob.take_changed();
        }
        self.kept.heed(&from, None, &notes);
        self.bob.take_notes(&from, true);
        let _ = notes.introduction.map(|introduction| ContactTicket::from_bytes(&introduction.ticket));
    }
}
