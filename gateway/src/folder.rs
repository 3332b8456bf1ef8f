//! The data folder: the relay's key, its store, and the lock that keeps a second relay out.
//!
//! | file | holds |
//! |---|---|
//! | `relay.key` | the key's seed as 64 hexadecimal digits, and 16 that tell a changed one, readable by its owner only |
//! | `relay.lock` | the process id of the relay that runs |
//! | `addresses` | what the last run put into its ticket, one address a line |
//! | `store.redb` | mailboxes, accounts, TLS sessions |
//! | `ballast` | nothing: room for when the disk is full |
//! | `control/socket` | where a running relay is asked for a backup (Unix) |
//! | `unfinished` | the mark of a restore that is not done: the id of the store that is to come |
//!
//! The key is the relay: who copies it can pose as it, who loses it has to hand out new tickets. One from before it had a check
//! gets it when the relay runs; decision 0023 says why.

mod filling;
mod key;

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use thinpost_disk::{Ballast, Reserve, Room, files};
use thinpost_wire::ids::StoreId;
use thinpost_wire::limits::TICKET_ADDRESSES_MAX;
use tracing::warn;

pub use self::filling::Filling;
pub use self::key::RelayKeys;
use self::key::read_key;
use crate::backup;
use crate::store::RedbStore;

const KEY_FILE: &str = "relay.key";
/// The key while it is being made; renamed once it is on disk.
const NEW_KEY_FILE: &str = "relay.key.new";
const LOCK_FILE: &str = "relay.lock";
const ADDRESSES_FILE: &str = "addresses";
const NEW_ADDRESSES_FILE: &str = "addresses.new";
const STORE_FILE: &str = "store.redb";
const BALLAST_FILE: &str = "ballast";

/// No key's file is shorter than its seed, bytes: what is, is half of one.
const KEY_BYTES_MIN: usize = 32;

/// Longest file of this folder that is read whole, bytes.
const FILE_BYTES_MAX: u64 = 1_024;

/// Why the data folder cannot be used. Each names the file; none of them changed it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FolderError {
    /// The folder is not there and cannot be made.
    #[error("cannot create the folder {}: {error}", path.display())]
    Create {
        /// The folder.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// No relay has ever run on it: it is another folder than was meant, perhaps. It was not made.
    #[error("there is no relay in {}; the first `gateway run --data {}` makes one", path.display(), path.display())]
    NoRelay {
        /// The folder.
        path: PathBuf,
    },
    /// It has no store: no relay has run on it, or the store is lost.
    #[error("there is no store in {}", path.display())]
    NoStore {
        /// The folder.
        path: PathBuf,
    },
    /// A relay has run on it, and its store is lost. No other was made.
    #[error(
        "the store in {} is gone: put it back, or restore a backup; gateway run --new-store begins an empty one, without the accounts and what waited",
        path.display()
    )]
    StoreLost {
        /// The folder.
        path: PathBuf,
    },
    /// A relay has run on it, and its key is lost. No other was made: it would be another relay.
    #[error("the key {} is gone: put it back, or restore a backup elsewhere", path.display())]
    KeyLost {
        /// The key's file.
        path: PathBuf,
    },
    /// It is a backup. Nothing changed; give another folder.
    #[error("{} is a backup; gateway restore makes a relay of it in another folder", path.display())]
    IsBackup {
        /// The folder.
        path: PathBuf,
    },
    /// A restore was begun in it and is not done. Nothing changed.
    #[error("a restore into {} did not finish; run gateway restore again", path.display())]
    Unfinished {
        /// The folder.
        path: PathBuf,
    },
    /// There is something in it already. Nothing changed; give another.
    #[error("{} is not empty", path.display())]
    NotEmpty {
        /// The folder.
        path: PathBuf,
    },
    /// It has a store already, which a restore would replace. Nothing changed; give another, or move it away.
    #[error("there is a store in {} already; move it away, or give another folder", path.display())]
    HoldsStore {
        /// The folder.
        path: PathBuf,
    },
    /// It is the folder of another relay than the backup's. Nothing changed.
    #[error("the key in {} is another relay's than the backup's", path.display())]
    HoldsKey {
        /// The folder.
        path: PathBuf,
    },
    /// Another relay runs on it. Stop that one, or give this one a folder of its own.
    #[error("the data folder {} is in use{}", path.display(), by_process(*process))]
    InUse {
        /// The folder.
        path: PathBuf,
        /// Who, if it has said so.
        process: Option<u32>,
    },
    /// Others than the owner can read the key. Nobody should have to wonder who did.
    #[error("others can read {} (mode {mode:04o}); run: chmod 600 {}", path.display(), path.display())]
    KeyExposed {
        /// The key file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The key file holds no key. Restore it from a backup: a new key needs new tickets.
    #[error("{} is damaged: it does not hold the key that was written", path.display())]
    KeyDamaged {
        /// The key file.
        path: PathBuf,
    },
    /// The medium failed, or is full.
    #[error("cannot {what} {}: {error}", path.display())]
    Io {
        /// What was tried: "read", "write", "remove".
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

fn by_process(process: Option<u32>) -> String {
    process.map(|process| format!(" by process {process}")).unwrap_or_default()
}

/// A data folder that exists.
#[derive(Clone, Debug)]
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// The name of the key's file in it.
    pub(crate) const KEY: &str = KEY_FILE;
    /// The name of the file with a run's addresses.
    pub(crate) const ADDRESSES: &str = ADDRESSES_FILE;

    /// Opens the folder, or makes it, open to its owner only.
    ///
    /// # Errors
    /// [`FolderError::Create`] when it can be neither.
    pub fn open(path: &Path) -> Result<Self, FolderError> {
        files::create_folder(path).map_err(|error| FolderError::Create { path: path.to_owned(), error })?;
        Ok(Self { path: path.to_owned() })
    }

    /// Opens the folder of a relay that has run.
    ///
    /// # Errors
    /// [`FolderError::NoRelay`], [`FolderError::IsBackup`] or [`FolderError::KeyLost`] when it holds none.
    pub fn of_relay(path: &Path) -> Result<Self, FolderError> {
        if Filling::is_marked(path)? {
            return Err(FolderError::Unfinished { path: path.to_owned() });
        }
        let folder = Self { path: path.to_owned() };
        if folder.has_key()? {
            return Ok(folder);
        }
        if backup::is_backup(path) {
            return Err(FolderError::IsBackup { path: path.to_owned() });
        }
        if folder.has_store()? {
            return Err(FolderError::KeyLost { path: folder.key_path() });
        }
        Err(FolderError::NoRelay { path: path.to_owned() })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the store's file belongs.
    pub fn store_path(&self) -> PathBuf {
        self.path.join(STORE_FILE)
    }

    /// Keeps so many bytes of the disk for when it is full; none, and no watch over it, if it is to be 0.
    pub fn reserve(&self, _lock: &FolderLock, bytes: u64) -> Option<Reserve> {
        let ballast = Ballast::new(&self.path.join(BALLAST_FILE));
        if bytes > 0 {
            return Some(Reserve::new(ballast, bytes));
        }
        if let Err(error) = ballast.release() {
            warn!(%error, "the ballast cannot be given up");
        }
        None
    }

    /// Where the key's file belongs.
    pub fn key_path(&self) -> PathBuf {
        self.path.join(KEY_FILE)
    }

    pub(crate) fn addresses_path(&self) -> PathBuf {
        self.path.join(ADDRESSES_FILE)
    }

    /// Where a running relay is asked for a backup.
    #[cfg(unix)]
    pub(crate) fn socket_path(&self) -> PathBuf {
        self.path.join("control").join("socket")
    }

    /// Whether it has the relay's key.
    ///
    /// # Errors
    /// When that cannot be seen.
    pub fn has_key(&self) -> Result<bool, FolderError> {
        let key = self.key_path();
        key.try_exists().map_err(io_error("read", &key))
    }

    /// Whether it has a store.
    ///
    /// # Errors
    /// When that cannot be seen.
    pub fn has_store(&self) -> Result<bool, FolderError> {
        let store = self.store_path();
        store.try_exists().map_err(io_error("read", &store))
    }

    /// That it has a store.
    ///
    /// # Errors
    /// [`FolderError::NoStore`] when it has none.
    pub fn require_store(&self) -> Result<(), FolderError> {
        if self.has_store()? { Ok(()) } else { Err(FolderError::NoStore { path: self.path.clone() }) }
    }

    /// Begins to restore the store `id` of a backup with this key, in a folder without a store, or where a restore was begun before.
    /// Of what is there then only what a restore has left is removed: the lost store may have been found, and put back.
    pub(crate) fn begin_restore(
        &self,
        key: &Path,
        id: StoreId,
    ) -> Result<(Filling, FolderLock), FolderError> {
        let lock = self.lock_in_any_state(true)?;
        let is_marked = Filling::is_marked(&self.path)?;
        // A link that leads nowhere is to be left alone, too.
        let is_there = |path: &Path| files::is_there(path).map_err(io_error("read", path));
        let holds_store = is_there(&self.store_path())?;
        if holds_store && !(is_marked && self.holds_copy()?) {
            return Err(FolderError::HoldsStore { path: self.path.clone() });
        }
        let is_half = |key: &Path| filling::read_short(key).is_ok_and(|key| key.len() < KEY_BYTES_MIN);
        // The same key may stand here with its check, and there without.
        let seed = |path: &Path| Some(read_key(&files::open_file(path).ok()?, path).ok()?.0.seed);
        let mine = seed(&self.key_path());
        let is_the_same = mine.is_some() && mine == seed(key);
        if is_there(&self.key_path())? && !is_the_same && !(is_marked && is_half(&self.key_path())) {
            return Err(FolderError::HoldsKey { path: self.path.clone() });
        }
        if holds_store {
            // Before the mark names another.
            files::remove(&self.store_path()).map_err(io_error("remove", &self.store_path()))?;
        }
        let files = [self.key_path(), self.addresses_path()];
        Ok((Filling::begin(self.clone(), &files, Some(id))?, lock))
    }

    /// Whether the store that is there is a restore's: the one that the mark names, or no store yet, as a copy becomes one with the
    /// last that is written to it. What cannot be told may be somebody's.
    fn holds_copy(&self) -> Result<bool, FolderError> {
        let begun = Filling::store_of_mark(&self.path)?;
        Ok(RedbStore::id_of(&self.store_path()).is_ok_and(|found| found.is_none() || found == begun))
    }

    /// Keeps every other relay out until the returned lock is dropped, or this process ends in any way.
    ///
    /// # Errors
    /// [`FolderError::InUse`] while another holds it; [`FolderError::Unfinished`] if a restore is not done.
    pub fn lock(&self) -> Result<FolderLock, FolderError> {
        self.lock_finished(true)
    }

    /// The same for who writes nothing, also where nothing can be written.
    ///
    /// # Errors
    /// As [`Folder::lock`].
    pub fn lock_to_read(&self) -> Result<FolderLock, FolderError> {
        self.lock_finished(false)
    }

    fn lock_finished(&self, writes: bool) -> Result<FolderLock, FolderError> {
        let lock = self.lock_in_any_state(writes)?;
        if Filling::is_marked(&self.path)? {
            return Err(FolderError::Unfinished { path: self.path.clone() });
        }
        Ok(lock)
    }

    fn lock_in_any_state(&self, writes: bool) -> Result<FolderLock, FolderError> {
        if backup::is_backup(&self.path) {
            return Err(FolderError::IsBackup { path: self.path.clone() });
        }
        let path = self.path.join(LOCK_FILE);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        // Who can open it can lock it.
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let (mut file, is_writable) = match options.open(&path) {
            // Who can write to it elsewhere, and runs, has the same lock.
            Err(error) if !writes && error.kind() == io::ErrorKind::ReadOnlyFilesystem => {
                match File::open(&path) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        return Ok(FolderLock { _file: None });
                    }
                    opened => (opened.map_err(io_error("open", &path))?, false),
                }
            }
            opened => (opened.map_err(io_error("open", &path))?, true),
        };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                // Whoever has it may be about to write its number.
                let process = read_text(&file).ok().and_then(|text| text.trim().parse().ok());
                return Err(FolderError::InUse { path: self.path.clone(), process });
            }
            Err(TryLockError::Error(error)) => return Err(io_error("lock", &path)(error)),
        }
        if !is_writable {
            return Ok(FolderLock { _file: Some(file) });
        }
        // Written over and then cut, it needs no more of the disk than it has. Where a disk gives none, nobody learns the number.
        let number = format!("{}\n", std::process::id());
        let written = file.write_all(number.as_bytes()).and_then(|()| file.set_len(number.len() as u64));
        if written.is_err() {
            // Nor that of the run before.
            let _ = file.set_len(0);
        }
        Ok(FolderLock { _file: Some(file) })
    }

    /// Notes the addresses of a run's ticket, so that `gateway ticket` says the same.
    ///
    /// # Errors
    /// When they cannot be written; the old ones are then still there.
    pub fn publish_addresses(&self, addresses: &[SocketAddr]) -> Result<(), FolderError> {
        if !addresses.is_empty() && self.published_addresses() == addresses {
            return Ok(());
        }
        let path = self.path.join(ADDRESSES_FILE);
        let new_path = self.path.join(NEW_ADDRESSES_FILE);
        let text: String = addresses.iter().map(|address| format!("{address}\n")).collect();
        files::replace(&path, &new_path, text.as_bytes()).map_err(io_error("write", &path))
    }

    /// What the last run published; empty if there was none, or the file is not as this program writes it.
    pub fn published_addresses(&self) -> Vec<SocketAddr> {
        let Ok(file) = files::open_file(&self.path.join(ADDRESSES_FILE)) else { return Vec::new() };
        let text = read_text(&file).unwrap_or_default();
        let addresses: Result<Vec<_>, _> = text.lines().map(str::parse).collect();
        addresses.ok().filter(|all| all.len() <= TICKET_ADDRESSES_MAX).unwrap_or_default()
    }
}

/// Held by the one relay that runs on a folder.
#[derive(Debug)]
pub struct FolderLock {
    /// None where nothing can be written, and never was.
    _file: Option<File>,
}

fn io_error<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> FolderError + 'a {
    move |error| FolderError::Io { what, path: path.to_owned(), error }
}

fn read_text(file: &File) -> io::Result<String> {
    let mut text = String::new();
    file.take(FILE_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    pub(super) fn folder() -> (tempfile::TempDir, Folder) {
        let parent = tempfile::tempdir().unwrap();
        let folder = Folder::open(&parent.path().join("a/b")).unwrap();
        (parent, folder)
    }

    #[cfg(unix)]
    pub(super) fn mode(path: &Path) -> u32 {
        std::os::unix::fs::PermissionsExt::mode(&fs::metadata(path).unwrap().permissions()) & 0o777
    }

    #[cfg(unix)]
    #[test]
    fn folder_and_key_are_their_owners_only() {
        let (_parent, folder) = folder();
        folder.keys().unwrap();
        assert_eq!(mode(folder.path()), 0o700);
        assert_eq!(mode(&folder.path().join(KEY_FILE)), 0o600);
    }

    #[test]
    fn a_second_relay_is_kept_out_and_told_by_whom() {
        let (_parent, folder) = folder();
        let lock = folder.lock().unwrap();
        let error = folder.lock().unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "the data folder {} is in use by process {}",
                folder.path().display(),
                std::process::id()
            )
        );
        drop(lock);
        folder.lock().unwrap();
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let (parent, _) = folder();
        fs::write(parent.path().join("file"), "").unwrap();
        let error = Folder::open(&parent.path().join("file/data")).unwrap_err();
        assert!(matches!(error, FolderError::Create { .. }), "{error}");
    }

    #[test]
    fn the_addresses_of_the_last_run_are_read_back() {
        let (_parent, folder) = folder();
        assert_eq!(folder.published_addresses(), []);
        let addresses = ["192.0.2.1:4433".parse().unwrap(), "[2001:db8::1]:1".parse().unwrap()];
        folder.publish_addresses(&addresses).unwrap();
        assert_eq!(folder.published_addresses(), addresses);
        fs::write(folder.path().join(ADDRESSES_FILE), "192.0.2.1:4433\nnonsense\n").unwrap();
        assert_eq!(folder.published_addresses(), []);
    }
}
