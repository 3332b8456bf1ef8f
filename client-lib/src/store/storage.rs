//! What a home is kept on.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

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

/// A home in memory. Clones share it, so that it outlives the clients that open it, one after another.
#[derive(Clone, Default)]
pub struct MemoryStorage(Arc<Mutex<Vec<u8>>>);

impl MemoryStorage {
    /// Nothing yet: make a home in it.
    pub fn new() -> Self {
        Self::default()
    }

    /// A copy of all that was written until now, as a kill of the process or a backup would leave it.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self(Arc::new(Mutex::new(self.bytes().clone())))
    }

    /// Nothing inside can panic halfway through a change.
    fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes().is_empty()
    }
}

impl fmt::Debug for MemoryStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStorage").field("bytes", &self.bytes().len()).finish()
    }
}

impl StorageBackend for MemoryStorage {
    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let from = offset as usize;
        let bytes = self.bytes();
        let content = bytes.get(from..from + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(content);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.bytes().resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let from = offset as usize;
        let mut bytes = self.bytes();
        let place = bytes.get_mut(from..from + data.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        place.copy_from_slice(data);
        Ok(())
    }
}

/// The file in a home's folder.
pub(super) const FILE: &str = "client.redb";

/// Opens a file to read and write that only its owner can read.
pub(super) fn open_private(path: &Path, create: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(create).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Makes a folder, and those above it, that only its owner can look into.
pub(super) fn create_folder(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// Makes names in the folder durable.
pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    // Other systems cannot open a folder as a file, and order names by themselves.
    if cfg!(unix) { File::open(path)?.sync_all() } else { Ok(()) }
}
