//! Calls to the medium that fail: to write, to sync and to read.
//!
//! A sync that fails alone takes with it what was not synced, and the next one succeeds: the store must not believe that one.

use std::io;

use thinpost_disk::medium::{Medium, Replay};

use super::{Chapter, Outcome, Rng, Story, open, put_session};
use crate::store::model::Look;
use crate::store::{RedbStore, RelayTime, Store, StoreError};

/// Which calls fail.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// One.
    Once,
    /// One and all after it.
    FromThere,
}

/// How far a store came.
struct Told {
    /// Chapters that it has answered as it should.
    claimed: usize,
    /// The store, unless it did not open again.
    store: Option<RedbStore>,
    /// Why it came no further.
    error: Option<StoreError>,
}

/// How a call fails: the disk is full, or what may be taken of it, or it is broken.
const KINDS: [io::ErrorKind; 3] =
    [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded, io::ErrorKind::Other];

impl Story {
    /// Has each `step`-th call to the medium fail that is not for reading, as on a disk that is full or broken: it alone, and with
    /// all after it.
    pub fn fail(&self, step: usize) -> Outcome {
        self.with_record(|record| {
            let mut outcome = Outcome::default();
            for call in (record.marks[0]..record.calls.len()).step_by(step) {
                let kind = KINDS[call / step % KINDS.len()];
                for way in [Way::Once, Way::FromThere] {
                    let what = self.name(&format!("{kind:?} at call {call}, {way:?}"));
                    outcome.note(&what, self.fail_at(call, kind, way));
                }
            }
            outcome
        })
    }

    /// Has the medium read no more, from so many reads on, one of them at a time.
    pub fn fail_reads(&self, places: u64) -> Outcome {
        let mut outcome = Outcome::default();
        let mut rng = Rng(self.seed);
        match self.read_until(None) {
            Ok(reads) => {
                for _ in 0..places {
                    let read = rng.below(reads as usize) as u64;
                    let what = self.name(&format!("nothing can be read from read {read} on"));
                    outcome.note(&what, self.read_until(Some(read)).map(drop));
                }
            }
            Err(why) => outcome.note(&self.name("on a sound medium"), Err(why)),
        }
        outcome
    }

    fn fail_at(&self, call: usize, kind: io::ErrorKind, way: Way) -> Result<(), String> {
        let medium = Medium::recording();
        let store = open(&medium).map_err(|error| error.to_string())?;
        match way {
            Way::Once => medium.fail_once(call, kind),
            Way::FromThere => medium.fail_from(call, kind),
        }
        let told = self.tell(store, &medium)?;
        let is_full = kind != io::ErrorKind::Other;
        if let Some(error) = told.error.as_ref().filter(|error| matches!(error, StoreError::Full) != is_full)
        {
            return Err(format!("it is said that {error}"));
        }
        self.end(told, &medium, call as u64)
    }

    /// Tells it all, opens the store once more and looks at it, on a medium that reads so often; how often that was.
    fn read_until(&self, read: Option<u64>) -> Result<u64, String> {
        let medium = Medium::recording();
        let store = open(&medium).map_err(|error| error.to_string())?;
        let reads = medium.reads().calls;
        if let Some(read) = read {
            medium.fail_reads_from(reads + read, io::ErrorKind::Other);
        }
        let mut told = self.tell(store, &medium)?;
        if told.error.is_none() {
            self.close(told.store.take(), &medium)?;
            match open(&medium) {
                Ok(store) => told.store = Some(store),
                Err(error) => told.error = Some(error),
            }
        }
        if let Some(error) = told.error.as_ref().filter(|error| !matches!(error, StoreError::Io(_))) {
            return Err(format!("it is said that {error}"));
        }
        match told.store.as_ref().map(|store| Look::at(store)) {
            Some(Ok(seen)) if told.error.is_some() || self.looks.last() != Some(&seen) => {
                return Err(format!("it is said to hold {seen:?}"));
            }
            Some(Err(error)) if !matches!(error, StoreError::Io(_) | StoreError::Failed) => {
                return Err(format!("it is said that {error}"));
            }
            _ => {}
        }
        let reads = medium.reads().calls - reads;
        self.end(told, &medium, reads)?;
        Ok(reads)
    }

    /// Tells it all to a store, as far as it goes.
    fn tell(&self, mut store: RedbStore, medium: &Medium) -> Result<Told, String> {
        for (claimed, chapter) in self.chapters.iter().enumerate() {
            match chapter {
                Chapter::Apply { ops, now, verdicts } => {
                    put_session(&store);
                    match store.apply(ops, *now) {
                        Ok(found) if &found == verdicts => {}
                        Ok(found) => return Err(format!("{ops:?} is answered by {found:?}")),
                        Err(error) => return Ok(Told { claimed, store: Some(store), error: Some(error) }),
                    }
                }
                Chapter::Reopen => {
                    self.close(Some(store), medium)?;
                    match open(medium) {
                        Ok(opened) => store = opened,
                        Err(error) => return Ok(Told { claimed, store: None, error: Some(error) }),
                    }
                }
            }
        }
        Ok(Told { claimed: self.chapters.len(), store: Some(store), error: None })
    }

    /// The medium is well again, and a store that has failed stays spent. What is then found is what was claimed, whether the
    /// relay was killed or the power lost.
    fn end(&self, told: Told, medium: &Medium, drawn: u64) -> Result<(), String> {
        let Told { claimed, store, error } = told;
        medium.mend();
        if let (Some(store), Some(_)) = (&store, error)
            && !matches!(store.apply(&[], RelayTime(0)), Err(StoreError::Failed))
        {
            return Err("the handle is used on".into());
        }
        self.close(store, medium)?;
        let replay = Replay::of(&medium.recorded());
        let mut rng = Rng(self.seed << 32 | drawn);
        for (what, found) in [
            ("killed", replay.killed()),
            ("with nothing that was not synced", replay.lose_power(|bound| bound - 1)),
            ("with some that was not synced", replay.lose_power(|bound| rng.below(bound))),
        ] {
            let found = self.check(found, claimed, drawn.is_multiple_of(4));
            found.map_err(|why| format!("{what}: {why}"))?;
        }
        Ok(())
    }

    /// Closing fails in silence: all was on disk before.
    fn close(&self, store: Option<RedbStore>, medium: &Medium) -> Result<(), String> {
        drop(store);
        match medium.take_syncs_after_failure() {
            0 => Ok(()),
            count => Err(format!("after a sync had failed {count} more were asked of the same handle")),
        }
    }
}
