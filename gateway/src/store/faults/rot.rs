//! Bits that flip in a store's file.

use std::panic::{AssertUnwindSafe, catch_unwind};

use thinpost_disk::medium::{Medium, Replay};

use super::{Outcome, Rng, Story, open};
use crate::store::StoreError;
use crate::store::model::Look;
use crate::store::redb::Rows;

impl Story {
    /// Flips a bit of the closed store's file in so many places, one at a time. What is in it is then what was written, to the
    /// last row of each table, whether anybody can ask for it or not; or the store says that it is damaged.
    pub fn rot(&self, places: u64) -> Outcome {
        self.with_record(|record| self.rot_recorded(&Replay::of(&record.calls).killed(), places))
    }

    fn rot_recorded(&self, content: &[u8], places: u64) -> Outcome {
        let mut outcome = Outcome::default();
        let whole = match contents(content.to_owned()) {
            Ok(whole) => whole,
            Err(error) => {
                outcome.note(&self.name("on a sound medium"), Err(error.to_string()));
                return outcome;
            }
        };
        // Most of the file is empty pages.
        let written: Vec<_> = (0..content.len()).filter(|at| content[*at] != 0).collect();
        let mut rng = Rng(self.seed);
        for place in 0..places {
            let at =
                if place % 4 == 0 { rng.below(content.len()) } else { written[rng.below(written.len())] };
            let bit = rng.below(8);
            let mut rotten = content.to_owned();
            rotten[at] ^= 1 << bit;
            let found = match catch_unwind(AssertUnwindSafe(|| contents(rotten))) {
                Ok(Ok((look, rows))) => self.unchanged(&whole.1, &look, &rows),
                Ok(Err(_)) => {
                    outcome.noticed += 1;
                    Ok(())
                }
                Err(_) => Err("a panic".into()),
            };
            outcome.note(&self.name(&format!("bit {bit} of byte {at} flipped")), found);
        }
        outcome
    }

    fn unchanged(&self, whole: &Rows, look: &Look, rows: &Rows) -> Result<(), String> {
        let differ: Vec<_> = whole.differ(rows).collect();
        if !differ.is_empty() {
            return Err(format!("not noticed in {}", differ.join(", ")));
        }
        if self.looks.last() == Some(look) { Ok(()) } else { Err("not noticed".into()) }
    }
}

/// All that can be asked of a store, and all that it keeps.
pub(super) fn contents(file: Vec<u8>) -> Result<(Look, Rows), StoreError> {
    let store = open(&Medium::holding(file))?;
    Ok((Look::at(&store)?, store.rows()?))
}
