//! What a home is kept on.

use std::fmt;
use std::fs::{File, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use thinpost_disk::files;
use thinpost_disk::medium::Medium;
use zeroize::Zeroizing;

use super::key::is_overwritten;

/// Where a home is.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Storage {
    /// In this folder, readable by its owner only.
    Folder(PathBuf),
    /// In memory: for simulations.
    Memory(MemoryStorage),
}

impl From<PathBuf> for Storage {
    fn from(folder: PathBuf) -> Self {
        Self::Folder(folder)
    }
}

impl From<&Path> for Storage {
    fn from(folder: &Path) -> Self {
        Self::Folder(folder.to_owned())
    }
}

impl From<&PathBuf> for Storage {
    fn from(folder: &PathBuf) -> Self {
        Self::Folder(folder.clone())
    }
}

impl From<&str> for Storage {
    fn from(folder: &str) -> Self {
        Self::Folder(folder.into())
    }
}

impl From<MemoryStorage> for Storage {
    fn from(memory: MemoryStorage) -> Self {
        Self::Memory(memory)
    }
}

impl From<&MemoryStorage> for Storage {
    fn from(memory: &MemoryStorage) -> Self {
        Self::Memory(memory.clone())
    }
}

/// A home in memory. Clones share it, so that it outlives the clients that open it, one after another. That
/// no two have it open at a time is for the simulation to see to.
#[derive(Clone, Default)]
pub struct MemoryStorage {
    medium: Medium,
    key_file: Arc<Mutex<Option<Vec<u8>>>>,
}

impl MemoryStorage {
    /// Nothing yet: make a home in it.
    pub fn new() -> Self {
        Self::default()
    }

    /// What its file is on: it can be told to fail.
    pub fn medium(&self) -> &Medium {
        &self.medium
    }

    /// The same home with another file.
    #[must_use]
    pub fn on(&self, medium: Medium) -> Self {
        Self { medium, key_file: self.key_file.clone() }
    }

    /// A copy of all that was written until now, as a kill of the process or a backup would leave it.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self { medium: self.medium.fork(), key_file: Arc::new(Mutex::new(self.key_file().clone())) }
    }

    /// Nothing inside can panic halfway through a change.
    pub(super) fn key_file(&self) -> MutexGuard<'_, Option<Vec<u8>>> {
        self.key_file.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.medium.size() == 0
    }
}

impl fmt::Debug for MemoryStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStorage").field("medium", &self.medium).finish_non_exhaustive()
    }
}

/// The files in a home's folder. Those with `new` in their names are not finished, and count for nothing.
pub(super) const FILE: &str = "client.redb";
pub(super) const FILE_NEW: &str = "client.redb.new";
pub(super) const KEY_FILE: &str = "client.key";
pub(super) const KEY_FILE_NEW: &str = "client.key.new";

/// No file with a key is longer, bytes.
const KEY_FILE_BYTES_MAX: u64 = 1_024;

/// The file with the key; whoever changes it holds the lock of the home.
impl Storage {
    /// `None`: there is none.
    pub(super) fn read_key_file(&self) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
        let folder = match self {
            Self::Memory(memory) => return Ok(memory.key_file().clone().map(Zeroizing::new)),
            Self::Folder(folder) => folder,
        };
        let file = match files::open_file(&folder.join(KEY_FILE)) {
            Ok(file) => file,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let mut bytes = Zeroizing::new(Vec::with_capacity(KEY_FILE_BYTES_MAX as usize));
        file.take(KEY_FILE_BYTES_MAX).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    /// Whether there is a file with a key that was not overwritten.
    pub(super) fn has_key(&self) -> io::Result<bool> {
        Ok(self.read_key_file()?.is_some_and(|file| !is_overwritten(&file)))
    }

    /// Closes the file with the key to others than its owner, as a careless copy may have opened it to them.
    pub(super) fn close_key_file(&self) {
        #[cfg(unix)]
        if let Self::Folder(folder) = self {
            use std::os::unix::fs::PermissionsExt;
            let path = folder.join(KEY_FILE);
            let mode = || std::fs::metadata(&path).map_or(0, |file| file.permissions().mode() & 0o7777);
            let before = mode();
            if before & 0o077 != 0 {
                // Not every system has permissions.
                let _ = std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600));
                let is_closed = mode() & 0o077 == 0;
                tracing::warn!(is_closed, "others could read {} (mode {before:04o})", path.display());
            }
        }
    }

    /// Puts another in its place: after a crash there is the old one, or the new one.
    pub(super) fn replace_key_file(&self, bytes: &[u8]) -> io::Result<()> {
        let folder = match self {
            Self::Memory(memory) => {
                *memory.key_file() = Some(bytes.to_vec());
                return Ok(());
            }
            Self::Folder(folder) => folder,
        };
        let path = folder.join(KEY_FILE);
        let old = files::open_private(&path, false);
        files::replace(&path, &folder.join(KEY_FILE_NEW), bytes)?;
        // It has no name any more, and should have no content either. If it keeps it, the home is no worse.
        if let Ok(mut old) = old {
            let _ = overwrite(&mut old);
        }
        Ok(())
    }

    /// Removes what a crash has left of a change, which may hold the data key in clear, and of the making of this home.
    pub(super) fn remove_unfinished(&self) -> io::Result<()> {
        match self {
            Self::Memory(_) => Ok(()),
            Self::Folder(folder) => {
                destroy(&folder.join(KEY_FILE_NEW))?;
                files::remove(&folder.join(FILE_NEW))
            }
        }
    }

    /// Overwrites and removes the file: from here on nothing in the home can be read.
    pub(super) fn destroy_key_file(&self) -> io::Result<()> {
        match self {
            Self::Memory(memory) => *memory.key_file() = None,
            Self::Folder(folder) => {
                destroy(&folder.join(KEY_FILE))?;
                destroy(&folder.join(KEY_FILE_NEW))?;
            }
        }
        Ok(())
    }
}

fn destroy(path: &Path) -> io::Result<()> {
    match files::open_private(path, false) {
        Ok(mut file) => overwrite(&mut file)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    files::remove(path)
}

/// With zeros, which no file with a key begins with.
fn overwrite(file: &mut File) -> io::Result<()> {
    let len = file.metadata()?.len().min(KEY_FILE_BYTES_MAX);
    file.write_all(&vec![0; len as usize])?;
    files::sync(file)
}

/// Keeps others from making or wiping a home in this folder for as long as the result lives. `None`: they
/// are at it.
///
/// Systems that cannot lock a folder do without: there, two that make a home in one folder at the very same
/// time may spoil it.
pub(super) fn lock_folder(path: &Path) -> io::Result<Option<FolderLock>> {
    if !cfg!(unix) {
        return Ok(Some(FolderLock(None)));
    }
    let folder = File::open(path)?;
    match folder.try_lock() {
        Ok(()) => Ok(Some(FolderLock(Some(folder)))),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {
            Ok(Some(FolderLock(None)))
        }
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// See [`lock_folder`].
pub(super) struct FolderLock(#[expect(dead_code, reason = "it is locked while it is open")] Option<File>);
