//! Room on a disk that is kept for what must go on when the rest of it is taken.
//!
//! While there is room, a file holds some of it: the ballast. Once less than as much is free, the ballast is given up, and the disk
//! counts as low until 2.5 times as much is free. Whoever asks before each commit then takes no more of it, and what is read and
//! deleted has the ballast's room to happen in.
//!
//! What is free is not always to be had: a quota may let its user take less of the disk, and no call says how much. So a commit
//! that found the disk full is told to the reserve ([`Reserve::was_full`]), and the disk counts as well again only once it has
//! given all that should be free.

use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fs4::FileExt;
use tracing::{info, warn};

use crate::files;

/// A disk that gave less than it says is free is asked again after this: to ask takes, for a moment, all that there is.
const ASK_AGAIN: Duration = Duration::from_secs(60);

/// What a disk has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Left {
    /// No more than half of what is kept: only for what cannot wait.
    Dregs,
    /// The disk was nearly full, and is not much better since: files that have room within may use that.
    Little,
    /// Enough.
    Plenty,
}

/// A disk, as far as its room goes; simulations bring their own.
pub trait Room: Debug + Send + Sync {
    /// Bytes that are free, those of the ballast not counted.
    ///
    /// # Errors
    /// The system's.
    fn free(&self) -> io::Result<u64>;

    /// Bytes of the disk that the ballast holds; 0 if there is none.
    ///
    /// # Errors
    /// The system's.
    fn held(&self) -> io::Result<u64>;

    /// Makes a ballast of so many bytes where there is none, if there are `beside` more to be had, which are not kept.
    ///
    /// # Errors
    /// The system's; then there is none, or an incomplete one.
    fn hold(&self, bytes: u64, beside: u64) -> io::Result<()>;

    /// Gives up the ballast, if there is one.
    ///
    /// # Errors
    /// The system's.
    fn release(&self) -> io::Result<()>;
}

/// A ballast in a file, which takes its room from the disk that it is on.
#[derive(Debug)]
pub struct Ballast {
    path: PathBuf,
}

impl Ballast {
    /// A ballast in this file, in a folder that exists.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }
}

impl Room for Ballast {
    fn free(&self) -> io::Result<u64> {
        fs4::available_space(files::folder_of(&self.path))
    }

    fn held(&self) -> io::Result<u64> {
        match files::open_file(&self.path) {
            // One that was copied may be as long, and hold nothing.
            Ok(file) => Ok(file.metadata()?.len().min(file.allocated_size()?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error),
        }
    }

    fn hold(&self, bytes: u64, beside: u64) -> io::Result<()> {
        let file = files::create_private(&self.path)?;
        file.allocate(bytes + beside)?;
        // Some systems only make it longer.
        if file.allocated_size()? < bytes + beside {
            return Err(io::ErrorKind::Unsupported.into());
        }
        file.set_len(bytes)
    }

    fn release(&self) -> io::Result<()> {
        files::remove(&self.path)
    }
}

/// Whether a disk has room for more, and a ballast for when it has not.
#[derive(Debug)]
pub struct Reserve {
    room: Box<dyn Room>,
    bytes: u64,
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    is_low: bool,
    /// When the disk last gave less than was asked of it, while it is low.
    refused_at: Option<Instant>,
    /// Whether it did not even give half of the ballast then.
    is_drained: bool,
}

impl State {
    fn left(self, has_dregs_only: bool) -> Left {
        match self {
            Self { is_low: false, .. } => Left::Plenty,
            Self { is_drained: false, .. } if !has_dregs_only => Left::Little,
            _ => Left::Dregs,
        }
    }

    fn may_ask(self, now: Instant) -> bool {
        self.refused_at.is_none_or(|at| now.saturating_duration_since(at) >= ASK_AGAIN)
    }
}

impl Reserve {
    /// A reserve of so many bytes: a ballast as long, and as much again that is free. If there is less now, the ballast of an
    /// earlier run is given up at once.
    pub fn new(room: impl Room + 'static, bytes: u64) -> Self {
        let is_whole = room.held().is_ok_and(|held| held == bytes);
        let reserve = Self { room: Box::new(room), bytes, state: Mutex::default() };
        if !is_whole {
            // Of another length, it may be what the room is missing.
            reserve.release();
            if reserve.room.free().is_ok_and(|free| free >= bytes) && !reserve.gives(bytes, bytes) {
                reserve.is_refused(&mut reserve.state(), Instant::now());
            }
        }
        reserve.left();
        reserve
    }

    /// What is left now. Looks at the disk, and makes the ballast or gives it up.
    pub fn left(&self) -> Left {
        self.left_at(Instant::now())
    }

    fn left_at(&self, now: Instant) -> Left {
        let mut state = self.state();
        let mut free = match self.room.free() {
            Ok(free) => free,
            Err(error) => {
                warn!(%error, "the disk does not say what is free");
                return state.left(false);
            }
        };
        if state.is_low && free >= self.enough() && state.may_ask(now) {
            if self.gives(self.bytes, self.enough() - self.bytes) {
                *state = State::default();
                info!(free, "the disk has room");
            } else {
                self.is_refused(&mut state, now);
            }
        } else if !state.is_low && free < self.bytes {
            state.is_low = true;
            self.release();
            self.warn();
            free = self.room.free().unwrap_or(free);
        }
        state.left(free <= self.bytes / 2)
    }

    /// A commit found the disk full, whatever it says is free. Gives up the ballast, of which the next ones may have need.
    pub fn was_full(&self) {
        let mut state = self.state();
        self.release();
        self.is_refused(&mut state, Instant::now());
    }

    /// The disk has given less than was asked of it. There is no ballast.
    fn is_refused(&self, state: &mut State, now: Instant) {
        if !state.is_low {
            self.warn();
        }
        let is_drained = !self.gives(self.bytes / 2, 0);
        self.release();
        *state = State { is_low: true, refused_at: Some(now), is_drained };
    }

    /// Bytes that must be free before a disk that was low counts as well: the ballast's, the same beside, and half of it, so that
    /// it is not low again at once.
    fn enough(&self) -> u64 {
        self.bytes / 2 * 5
    }

    /// Makes a ballast. Whether the disk gave that and so much beside; where it can hold none, only [`Room::free`] says.
    fn gives(&self, bytes: u64, beside: u64) -> bool {
        let Err(error) = self.room.hold(bytes, beside) else { return true };
        self.release();
        let is_full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        if !is_full {
            warn!(%error, "no ballast is kept");
        }
        !is_full
    }

    fn release(&self) {
        if let Err(error) = self.room.release() {
            warn!(%error, "the ballast cannot be given up");
        }
    }

    fn warn(&self) {
        warn!("the disk is nearly full: no more of it is taken until {} bytes are free", self.enough());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
