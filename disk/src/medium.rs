//! A disk in memory that fails when it is told to, and remembers in which order it was written to.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

/// Bytes that a disk writes or loses as one.
pub const SECTOR_BYTES: usize = 512;

/// A disk in memory. Clones are the same disk.
#[derive(Clone, Default)]
pub struct Medium {
    disk: Arc<Mutex<Disk>>,
    watch: Option<Arc<Watch>>,
}

type Watch = dyn Fn(usize) + Send + Sync;

#[derive(Clone, Default)]
struct Disk {
    content: Vec<u8>,
    /// Calls that were carried out.
    calls: usize,
    recorded: Option<Vec<Call>>,
    reads: Traffic,
    writes: Traffic,
    fails: Option<Failure>,
    /// The read that fails, counted from 0, and every one after it.
    reads_fail: Option<(u64, io::ErrorKind)>,
    /// How many more syncs were asked for since one failed; `None` if none has.
    resyncs: Option<usize>,
}

/// Which calls fail that are not for reading, counted from 0.
#[derive(Clone, Copy)]
enum Failure {
    /// This one, and every one after it.
    From(usize, io::ErrorKind),
    /// This one alone.
    Once(usize, io::ErrorKind),
}

/// What a program has asked of a disk, but for reading.
#[derive(Clone, Debug)]
pub enum Call {
    /// To put bytes somewhere.
    Write {
        /// Where, counted from the beginning.
        at: usize,
        /// What.
        bytes: Box<[u8]>,
    },
    /// To make the file so long.
    SetLen(usize),
    /// To say when all of that is on disk.
    Sync,
}

/// How much was read or written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// How often.
    pub calls: u64,
    /// How much in all.
    pub bytes: u64,
}

impl Traffic {
    fn add(&mut self, bytes: usize) {
        self.calls += 1;
        self.bytes += bytes as u64;
    }
}

impl Medium {
    /// One that holds this, as after it was mounted anew.
    pub fn holding(content: Vec<u8>) -> Self {
        Self::of(Disk { content, ..Disk::default() })
    }

    /// An empty one that remembers all calls but for reading: see [`Medium::recorded`].
    pub fn recording() -> Self {
        Self::of(Disk { recorded: Some(Vec::new()), ..Disk::default() })
    }

    fn of(disk: Disk) -> Self {
        Self { disk: Arc::new(Mutex::new(disk)), watch: None }
    }

    /// Another disk with what this one holds, and that fails as this one does.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self::of(Disk { recorded: None, ..self.disk().clone() })
    }

    /// The same disk, but that this is called with the number of calls before each call made through the result. It may panic.
    #[must_use]
    pub fn watched(&self, watch: Arc<Watch>) -> Self {
        Self { disk: self.disk.clone(), watch: Some(watch) }
    }

    /// What programs read from it: what was written, synced or not.
    pub fn content(&self) -> Vec<u8> {
        self.disk().content.clone()
    }

    /// How much that is, bytes.
    pub fn size(&self) -> usize {
        self.disk().content.len()
    }

    /// Lets go of all that it holds and has recorded, for the sake of memory: a [`Database`](crate::Database) in which something
    /// panicked is never dropped.
    pub fn abandon(&self) {
        let mut disk = self.disk();
        disk.content = Vec::new();
        disk.recorded = None;
    }

    /// Changes what it holds beside all programs, as a failing disk does.
    pub fn damage(&self, change: impl FnOnce(&mut [u8])) {
        change(&mut self.disk().content);
    }

    /// Puts this on it, synced, in place of what it holds.
    ///
    /// # Errors
    /// When it was told to fail.
    pub fn refill(&self, content: &[u8]) -> io::Result<()> {
        self.set_len(content.len() as u64)?;
        self.write(0, content)?;
        self.sync_data()
    }

    /// Forgets what it holds.
    pub fn clear(&self) {
        self.disk().content.clear();
    }

    /// What was read until now.
    pub fn reads(&self) -> Traffic {
        self.disk().reads
    }

    /// What was written until now.
    pub fn writes(&self) -> Traffic {
        self.disk().writes
    }

    /// How often it was written to, synced or given another length.
    pub fn calls(&self) -> usize {
        self.disk().calls
    }

    /// All of those, in order; none unless it is [recording](Medium::recording).
    pub fn recorded(&self) -> Vec<Call> {
        self.disk().recorded.clone().unwrap_or_default()
    }

    /// From this call on, counted from 0, all fail that are not for reading.
    pub fn fail_from(&self, call: usize, kind: io::ErrorKind) {
        self.disk().fails = Some(Failure::From(call, kind));
    }

    /// Of the calls that are not for reading this one fails, counted from 0, and those after it do not. Should it be a sync, then
    /// what was not synced is gone, and the next sync says nothing of that: as Linux has it, whose pages count as written then.
    ///
    /// # Panics
    /// Unless it is [recording](Medium::recording): what was not synced is known from that.
    pub fn fail_once(&self, call: usize, kind: io::ErrorKind) {
        let mut disk = self.disk();
        assert!(disk.recorded.is_some(), "a medium that does not record does not know what was synced");
        disk.fails = Some(Failure::Once(call, kind));
    }

    /// From this read on, counted from 0, all fail.
    pub fn fail_reads_from(&self, read: u64, kind: io::ErrorKind) {
        self.disk().reads_fail = Some((read, kind));
    }

    /// How many syncs were asked for after one that failed, since this was last asked: after what is open on it was closed. Whoever
    /// tries again may be told that all is on disk, and nothing is.
    pub fn take_syncs_after_failure(&self) -> usize {
        self.disk().resyncs.take().unwrap_or(0)
    }

    /// From the next call on all fail that are not for reading.
    pub fn fail(&self, kind: io::ErrorKind) {
        self.fail_from(0, kind);
    }

    /// It is well again. What is open on it has seen it fail.
    pub fn mend(&self) {
        let mut disk = self.disk();
        (disk.fails, disk.reads_fail) = (None, None);
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, call: Call) -> io::Result<()> {
        if let Some(watch) = &self.watch {
            watch(self.calls());
        }
        let mut disk = self.disk();
        if let (Call::Sync, Some(count)) = (&call, &mut disk.resyncs) {
            *count += 1;
        }
        if let Some(kind) = disk.failure() {
            let is_once = disk.fails.take_if(|failure| matches!(failure, Failure::Once(..))).is_some();
            if let Call::Sync = call {
                disk.resyncs.get_or_insert(0);
                if is_once {
                    disk.forget_unsynced();
                }
            }
            return Err(kind.into());
        }
        call.put(&mut disk.content);
        disk.calls += 1;
        if let Call::Write { bytes, .. } = &call {
            disk.writes.add(bytes.len());
        }
        if let Some(recorded) = &mut disk.recorded {
            recorded.push(call);
        }
        Ok(())
    }
}

impl Disk {
    /// Whether the next call that is not for reading fails.
    fn failure(&self) -> Option<io::ErrorKind> {
        match self.fails? {
            Failure::From(call, kind) | Failure::Once(call, kind) => (self.calls >= call).then_some(kind),
        }
    }

    fn forget_unsynced(&mut self) {
        let Some(recorded) = &mut self.recorded else { return };
        let synced = recorded.iter().rposition(|call| matches!(call, Call::Sync)).map_or(0, |last| last + 1);
        recorded.truncate(synced);
        self.content = Replay::of(recorded).synced;
    }
}

impl fmt::Debug for Medium {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let disk = self.disk();
        f.debug_struct("Medium")
            .field("bytes", &disk.content.len())
            .field("calls", &disk.calls)
            .finish_non_exhaustive()
    }
}

impl StorageBackend for Medium {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk().content.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut disk = self.disk();
        if let Some((_, kind)) = disk.reads_fail.filter(|(first, _)| disk.reads.calls >= *first) {
            return Err(kind.into());
        }
        disk.reads.add(out.len());
        let from = offset as usize;
        out.copy_from_slice(disk.content.get(from..from + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(Call::SetLen(len as usize))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.change(Call::Sync)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(Call::Write { at: offset as usize, bytes: data.into() })
    }
}

impl Call {
    fn put(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write { at, bytes } => put(content, *at, bytes),
            Self::SetLen(len) => content.resize(*len, 0),
            Self::Sync => {}
        }
    }
}

/// Writes, as far as the file reaches.
fn put(content: &mut [u8], at: usize, bytes: &[u8]) {
    let end = content.len().min(at + bytes.len());
    if let Some(place) = content.get_mut(at..end) {
        place.copy_from_slice(&bytes[..place.len()]);
    }
}

/// The same disk once more, call by call, with what the loss of power would leave of it.
#[derive(Default)]
pub struct Replay {
    /// What is on the disk for good.
    synced: Vec<u8>,
    /// Since the last sync.
    unsynced: Vec<Call>,
}

impl Replay {
    /// After these calls, from an empty disk on.
    pub fn of(calls: &[Call]) -> Self {
        let mut replay = Self::default();
        calls.iter().for_each(|call| replay.call(call));
        replay
    }

    /// Goes on by a call.
    pub fn call(&mut self, call: &Call) {
        match call {
            Call::Sync => self.unsynced.drain(..).for_each(|call| call.put(&mut self.synced)),
            call => self.unsynced.push(call.clone()),
        }
    }

    /// What is found if the program is killed now: the system writes on.
    pub fn killed(&self) -> Vec<u8> {
        let mut found = self.synced.clone();
        self.unsynced.iter().for_each(|call| call.put(&mut found));
        found
    }

    /// What is found if the power fails now: of the sectors that were not synced some, in any order, and of the changes of length
    /// the first few. `below` draws a number below its argument.
    pub fn lose_power(&self, mut below: impl FnMut(usize) -> usize) -> Vec<u8> {
        let mut found = self.synced.clone();
        let mut sectors = Vec::new();
        let mut lengths = Vec::new();
        for call in &self.unsynced {
            match call {
                Call::Write { at, bytes } => {
                    let (head, rest) =
                        bytes.split_at(bytes.len().min(at.next_multiple_of(SECTOR_BYTES) - at));
                    let offsets = (at + head.len()..).step_by(SECTOR_BYTES);
                    sectors.extend([(*at, head)].into_iter().filter(|_| !head.is_empty()));
                    sectors.extend(offsets.zip(rest.chunks(SECTOR_BYTES)));
                }
                Call::SetLen(len) => lengths.push(*len),
                Call::Sync => unreachable!("a sync leaves nothing unsynced"),
            }
        }
        let grown = below(lengths.len() + 1);
        lengths[..grown].iter().for_each(|len| found.resize(*len, 0));
        for last in (1..sectors.len()).rev() {
            sectors.swap(last, below(last + 1));
        }
        for (at, sector) in sectors {
            if below(2) == 0 {
                put(&mut found, at, sector);
            }
        }
        found
    }
}

#[cfg(test)]
mod tests;
