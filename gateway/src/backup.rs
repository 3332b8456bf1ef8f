//! Backups of a relay, and relays that are made of them.
//!
//! A backup is a folder that is its owner's alone, like the one of the relay itself:
//!
//! | file | holds |
//! |---|---|
//! | `key` | the relay's key, as in its own folder |
//! | `addresses` | what it last put into its ticket, if it ever ran |
//! | `store` | a copy of its store that no relay runs on |
//! | `manifest` | how long each of them is, and its BLAKE3 |
//!
//! While it is being made there is a mark in it ([`Filling`]), and a backup with the mark is none.

mod manifest;

use std::path::{Path, PathBuf};
use std::{fs, io};

use thinpost_disk::files;

use self::manifest::Manifest;
#[cfg(feature = "fuzzing")]
pub(crate) use self::manifest::{rewrite_manifest, sample_manifest};
use crate::folder::{Filling, Folder, FolderError};
use crate::store::{Counts, RedbStore, Report, StoreError};

const KEY_FILE: &str = "key";
const ADDRESSES_FILE: &str = "addresses";
const STORE_FILE: &str = "store";
const MANIFEST_FILE: &str = "manifest";

/// Why there is no backup, or none can be restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// A folder or a file in it cannot be used. What was begun bears the mark; try again.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The store or its copy cannot be read or written. What was begun bears the mark; try again.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no room for the copy. What was begun bears the mark; make room, or give another folder.
    #[error("there is no room for it in {}: the disk is full, or what may be taken of it", path.display())]
    Full {
        /// Where it was to be.
        path: PathBuf,
    },
    /// Little is left of the disk that the running relay is on, and meanwhile a backup would take more of it, wherever it is
    /// made. What was begun bears the mark.
    #[error(
        "little is left of the relay's own disk, of which a backup takes more while the relay runs: make room, or stop the relay and back it up then"
    )]
    Low,
    /// There is no backup, or one that was not finished. Nothing changed.
    #[error("there is no finished backup in {}", path.display())]
    NotABackup {
        /// The folder.
        path: PathBuf,
    },
    /// A file of the backup is not as it was made. Nothing changed; take another backup.
    #[error("{} is damaged: it is not what the manifest says", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// The backup's store is as it was made, and was unsound then. Nothing changed.
    #[error("the store in {} is unsound; gateway check --backup {} says why", path.display(), path.display())]
    Unsound {
        /// The backup.
        path: PathBuf,
    },
}

/// Makes a backup of a relay that runs on `store`, while it goes on; `goes_on` is asked all the time.
///
/// # Errors
///
/// [`FolderError::NotEmpty`] if there is anything at `path` but a backup that was begun.
pub fn back_up(
    folder: &Folder,
    store: &RedbStore,
    path: &Path,
    goes_on: &dyn Fn() -> bool,
) -> Result<Counts, BackupError> {
    make(folder, path, |copy| store.back_up(copy, goes_on))
}

/// Makes a backup of a relay that does not run. The caller holds the folder's lock.
///
/// # Errors
///
/// As [`back_up`].
pub fn back_up_closed(folder: &Folder, path: &Path) -> Result<Counts, BackupError> {
    folder.require_store()?;
    make(folder, path, |copy| RedbStore::back_up_closed(&folder.store_path(), copy))
}

fn make(
    folder: &Folder,
    path: &Path,
    copy: impl FnOnce(&Path) -> Result<Counts, StoreError>,
) -> Result<Counts, BackupError> {
    // A key that others can read, or that is damaged, is no key to keep.
    folder.keys()?;
    let filling = Filling::begin_empty(path, &[KEY_FILE, ADDRESSES_FILE, STORE_FILE, MANIFEST_FILE])?;
    let mut files = vec![KEY_FILE, STORE_FILE];
    filling.copy(&folder.key_path(), KEY_FILE)?;
    if !folder.published_addresses().is_empty() {
        filling.copy(&folder.addresses_path(), ADDRESSES_FILE)?;
        files.push(ADDRESSES_FILE);
    }
    let store = path.join(STORE_FILE);
    let counts = copy(&store).map_err(|error| not_copied(error, &store, path))?;
    let manifest = Manifest::of(path, &files)?;
    filling.write(MANIFEST_FILE, manifest.to_string().as_bytes())?;
    filling.finish()?;
    Ok(counts)
}

/// What has kept a copy, begun in a folder, from being made.
fn not_copied(error: StoreError, begun: &Path, folder: &Path) -> BackupError {
    give_up(begun);
    match error {
        // The one that is read is not written to.
        StoreError::Full => BackupError::Full { path: folder.to_owned() },
        StoreError::Low => BackupError::Low,
        error => error.into(),
    }
}

/// Makes room again: what is begun may be what has filled the disk, and bears the mark in any case.
fn give_up(begun: &Path) {
    if let Err(error) = files::remove(begun) {
        tracing::warn!(%error, path = %begun.display(), "what was begun stays");
    }
}

/// Whether there is a finished backup, with files of the lengths that its manifest says; what is in them is not read.
///
/// # Errors
///
/// When the folder cannot be read.
pub fn is_there(path: &Path) -> Result<bool, BackupError> {
    match manifest_of(path) {
        Ok(manifest) => Ok(manifest.has_lengths_of(path)),
        Err(BackupError::NotABackup { .. } | BackupError::Damaged { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether a folder is a backup, damaged or not: it has the files that each has.
pub(crate) fn is_backup(path: &Path) -> bool {
    [KEY_FILE, STORE_FILE, MANIFEST_FILE].iter().all(|file| path.join(file).exists())
}

/// Checks that a backup is as it was made, and then its store as [`RedbStore::check`] does.
///
/// # Errors
///
/// When it is not as it was made, or cannot be read. Nothing is changed.
pub fn check(path: &Path) -> Result<Report, BackupError> {
    verified(path).map(|(report, _)| report)
}

/// What a check finds in a backup that is as it was made, and the files that it was made of.
fn verified(path: &Path) -> Result<(Report, Manifest), BackupError> {
    let manifest = verify(path)?;
    Ok((RedbStore::check(&path.join(STORE_FILE))?, manifest))
}

/// What a finished backup says of its files.
fn manifest_of(path: &Path) -> Result<Manifest, BackupError> {
    let not_a_backup = || BackupError::NotABackup { path: path.to_owned() };
    if Filling::is_marked(path)? {
        return Err(not_a_backup());
    }
    let manifest = match Manifest::read(&path.join(MANIFEST_FILE)) {
        Err(FolderError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => {
            return Err(not_a_backup());
        }
        read => read?,
    };
    manifest.ok_or_else(|| BackupError::Damaged { path: path.join(MANIFEST_FILE) })
}

/// That there is a finished backup, with the files of its manifest.
fn verify(path: &Path) -> Result<Manifest, BackupError> {
    let manifest = manifest_of(path)?;
    let damaged = |file: &str| BackupError::Damaged { path: path.join(file) };
    for file in [KEY_FILE, STORE_FILE] {
        if !manifest.names(file) {
            return Err(damaged(MANIFEST_FILE));
        }
    }
    if let Some(file) = manifest.differs(path)? {
        return Err(damaged(&file));
    }
    Ok(manifest)
}

/// Makes a relay of a backup in a data folder that holds none, or one that a restore has begun in. Until it is done, the
/// folder bears the mark, and no relay runs on it.
///
/// # Errors
///
/// [`FolderError::HoldsStore`] and [`FolderError::HoldsKey`] if a relay has run there, or somebody has put a store or a key there
/// since a restore was begun. Whatever fails after the backup
/// was verified leaves the mark.
pub fn restore(path: &Path, data: &Path) -> Result<Counts, BackupError> {
    let (report, manifest) = verified(path)?;
    if !report.is_sound() {
        return Err(BackupError::Unsound { path: path.to_owned() });
    }
    let folder = Folder::open(data)?;
    let id = RedbStore::draw_id()?;
    let (filling, _lock) = folder.begin_restore(&path.join(KEY_FILE), id)?;
    filling.copy(&path.join(KEY_FILE), Folder::KEY)?;
    if manifest.names(ADDRESSES_FILE) {
        filling.copy(&path.join(ADDRESSES_FILE), Folder::ADDRESSES)?;
    }
    let store = folder.store_path();
    let restored = RedbStore::restore_as(id, &path.join(STORE_FILE), &store);
    let counts = restored.map_err(|error| not_copied(error, &store, data))?;
    filling.finish()?;
    Ok(counts)
}

/// Bytes of all the files of a backup.
///
/// # Errors
///
/// When it cannot be read.
pub fn bytes(path: &Path) -> io::Result<u64> {
    let files = [KEY_FILE, ADDRESSES_FILE, STORE_FILE, MANIFEST_FILE].map(|file| path.join(file));
    files.iter().filter(|file| file.exists()).map(|file| Ok(fs::metadata(file)?.len())).sum()
}

#[cfg(test)]
mod tests;
