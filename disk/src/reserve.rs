//! Room on a disk that is kept for what must go on when the rest of it is taken.
//!
//! While there is room, a file holds some of it: the ballast. Once less than as much is free, the ballast is given up, and the disk
//! counts as low until 2.5 times as much is free. Whoever asks before each commit then takes no more of it, and what is read and
//! deleted has the ballast's room to happen in.

use std::fmt::Debug;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use fs4::FileExt;
use tracing::{info, warn};

use crate::files;

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

    /// Makes a ballast of so many bytes where there is none.
    ///
    /// # Errors
    /// The system's; then there is none, or an incomplete one.
    fn hold(&self, bytes: u64) -> io::Result<()>;

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
        match File::open(&self.path) {
            // One that was copied may be as long, and hold nothing.
            Ok(file) => Ok(file.metadata()?.len().min(file.allocated_size()?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error),
        }
    }

    fn hold(&self, bytes: u64) -> io::Result<()> {
        let file = files::create_private(&self.path)?;
        file.allocate(bytes)?;
        // Some systems only make it longer.
        if file.allocated_size()? < bytes {
            return Err(io::ErrorKind::Unsupported.into());
        }
        Ok(())
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
    is_low: Mutex<bool>,
}

impl Reserve {
    /// A reserve of so many bytes: a ballast as long, and as much again that is free. If there is less now, the ballast of an
    /// earlier run is given up at once.
    pub fn new(room: impl Room + 'static, bytes: u64) -> Self {
        let is_whole = room.held().is_ok_and(|held| held == bytes);
        let reserve = Self { room: Box::new(room), bytes, is_low: Mutex::new(false) };
        if !is_whole {
            // Of another length, it may be what the room is missing.
            reserve.release();
            if reserve.room.free().is_ok_and(|free| free >= bytes) {
                reserve.hold();
            }
        }
        reserve.left();
        reserve
    }

    /// What is left now. Looks at the disk, and makes the ballast or gives it up.
    pub fn left(&self) -> Left {
        let mut is_low = self.is_low.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = match self.room.free() {
            Ok(free) => free,
            Err(error) => {
                warn!(%error, "the disk does not say what is free");
                return if *is_low { Left::Little } else { Left::Plenty };
            }
        };
        if *is_low && free >= self.enough() {
            *is_low = false;
            info!(free, "the disk has room");
            self.hold();
        } else if !*is_low && free < self.bytes {
            *is_low = true;
            self.release();
            self.warn();
            free = self.room.free().unwrap_or(free);
        }
        if !*is_low {
            Left::Plenty
        } else if free > self.bytes / 2 {
            Left::Little
        } else {
            Left::Dregs
        }
    }

    /// Bytes that must be free before a disk that was low counts as well: the ballast's, the same beside, and half of it, so that
    /// it is not low again at once.
    fn enough(&self) -> u64 {
        self.bytes / 2 * 5
    }

    fn hold(&self) {
        if let Err(error) = self.room.hold(self.bytes) {
            warn!(%error, "no ballast is kept");
            self.release();
        }
    }

    fn release(&self) {
        if let Err(error) = self.room.release() {
            warn!(%error, "the ballast cannot be given up");
        }
    }

    fn warn(&self) {
        warn!("the disk is nearly full: no more of it is taken until {} bytes are free", self.enough());
    }
}

#[cfg(test)]
mod tests;
