//! Making, opening, locking up and wiping a home.
//!
//! Whoever changes a home holds the lock that redb takes when it opens the file.

use std::fs;
use std::io;
use std::path::Path;

use redb::{StorageBackend, TableError};
use thinpost_disk::{Database, files};

use super::key::{DataKey, HomeKey};
use super::records::{
    COUNTERS, Counters, FORMAT, HOME, HomeRecord, KEYRING, META_FORMAT, RELAY, RelayRecord,
};
use super::storage::{self, Storage};
use super::table::{META, Tables};
use super::vault::Vault;
use super::{Loaded, Store};
use crate::error::{CreateError, OpenError, SetKeyError, StoreError, WipeError};
use crate::points::Points;
use crate::random::Random;

/// Memory for pages, bytes: a phone's share.
const CACHE_BYTES: usize = 2 << 20;

impl Store {
    /// Makes the files of a new home. That with the key comes before the other, which appears under its name only when it is
    /// complete. Meanwhile there is an unfinished one: a key without either is of a home whose file is elsewhere.
    pub(crate) fn create(
        storage: &Storage,
        key: Option<&HomeKey>,
        home: &HomeRecord,
        keyring: &[u8],
        mut random: Random,
    ) -> Result<(), CreateError> {
        let data_key = DataKey::new(&mut random);
        let key_file = data_key.to_file(key, &mut random).map_err(into_store_error)?;
        let vault = Vault::new(&data_key, random);
        let folder = match storage {
            Storage::Memory(memory) if !memory.is_empty() => {
                return Err(CreateError::Exists("memory".into()));
            }
            Storage::Memory(memory) => {
                storage.replace_key_file(&key_file).map_err(StoreError::from)?;
                let db = open_backend(memory.medium().clone()).map_err(into_store_error)?;
                return Ok(initialise(&db, &vault, home, keyring)?);
            }
            Storage::Folder(folder) => folder,
        };
        let exists = || CreateError::Exists(folder.clone());
        let path = folder.join(storage::FILE);
        if files::is_there(&path).map_err(StoreError::from)? {
            return Err(exists());
        }
        files::create_folder(folder).map_err(StoreError::from)?;
        let Some(_lock) = storage::lock_folder(folder).map_err(StoreError::from)? else {
            return Err(exists());
        };
        // Another may have been quicker.
        if files::is_there(&path).map_err(StoreError::from)? {
            return Err(exists());
        }
        let unfinished = folder.join(storage::FILE_NEW);
        if storage.has_key().map_err(StoreError::from)?
            && !files::is_there(&unfinished).map_err(StoreError::from)?
        {
            return Err(CreateError::KeyKept(folder.clone()));
        }
        let make = || -> Result<(), StoreError> {
            files::remove(&unfinished)?;
            let db = Database::create_file(&unfinished, CACHE_BYTES)
                .map_err(|error| into_store_error(error.into()))?;
            files::sync_folder_of(&unfinished)?;
            storage.replace_key_file(&key_file)?;
            initialise(&db, &vault, home, keyring)?;
            // A hard link, unlike a renaming, never replaces a home that another process made meanwhile.
            fs::hard_link(&unfinished, &path).or_else(|error| match error.kind() {
                io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied => {
                    fs::rename(&unfinished, &path)
                }
                _ => Err(error),
            })?;
            let _ = files::remove(&unfinished);
            files::sync_folder_of(&path)?;
            Ok(())
        };
        make().map_err(|error| {
            if files::is_there(&path).unwrap_or(true) {
                return match error {
                    StoreError::Io { kind: io::ErrorKind::AlreadyExists, .. } => exists(),
                    error => error.into(),
                };
            }
            let _ = storage.destroy_key_file();
            let _ = files::remove(&unfinished);
            error.into()
        })
    }

    /// Opens a home's file, for this client alone. Nonces are drawn from `nonces`.
    pub(crate) fn open(
        storage: &Storage,
        key: Option<&HomeKey>,
        nonces: Random,
    ) -> Result<(Self, Loaded), OpenError> {
        let db = lock(storage)?;
        let vault = Vault::new(&unlock(storage, key)?, nonces);
        let store = Self { db, vault, points: Points::default(), clock: None };
        let loaded = store.load()?;
        Ok((store, loaded))
    }

    /// Puts a home's data key under another key of the application's.
    pub(crate) fn set_key(
        storage: &Storage,
        old: Option<&HomeKey>,
        new: Option<&HomeKey>,
        mut random: Random,
    ) -> Result<(), SetKeyError> {
        let _db = lock(storage)?;
        let key_file = unlock(storage, old)?.to_file(new, &mut random)?;
        Ok(storage.replace_key_file(&key_file).map_err(StoreError::from)?)
    }

    /// Destroys what opens a home's rows, then the rows.
    pub(crate) fn wipe(storage: &Storage) -> Result<(), WipeError> {
        match storage {
            Storage::Memory(memory) if memory.is_empty() => Err(WipeError::NoHome("memory".into())),
            Storage::Memory(memory) => {
                storage.destroy_key_file().map_err(StoreError::from)?;
                memory.medium().clear();
                Ok(())
            }
            Storage::Folder(folder) => wipe_folder(storage, folder),
        }
    }
}

fn wipe_folder(storage: &Storage, folder: &Path) -> Result<(), WipeError> {
    let no_home = || WipeError::NoHome(folder.to_owned());
    let path = folder.join(storage::FILE);
    let has_file = files::is_there(&path).map_err(StoreError::from)?;
    if !has_file && !storage.has_key().map_err(StoreError::from)? {
        return Err(no_home());
    }
    let Some(_lock) = storage::lock_folder(folder).map_err(StoreError::from)? else {
        return Err(WipeError::InUse);
    };
    // What cannot be opened is wiped as well: nobody else can have it open.
    let db = match open_database(storage) {
        Err(OpenError::InUse) => return Err(WipeError::InUse),
        opened => opened,
    };
    let wipe = || -> io::Result<()> {
        storage.destroy_key_file()?;
        // Some systems remove no file that is open.
        drop(db);
        files::remove(&folder.join(storage::FILE_NEW))?;
        files::remove(&path)?;
        files::sync_folder_of(&path)
    };
    Ok(wipe().map_err(StoreError::from)?)
}

/// Opens the file of a home that this version knows, for us alone.
fn lock(storage: &Storage) -> Result<Database, OpenError> {
    let db = open_database(storage)?;
    db.intact(|| check_format(&db))?;
    Ok(db)
}

/// The data key, for who has the application's. The home is locked.
fn unlock(storage: &Storage, key: Option<&HomeKey>) -> Result<DataKey, OpenError> {
    let file = storage.read_key_file().map_err(StoreError::from)?;
    let data_key = DataKey::from_file(file.as_ref().map(|file| file.as_slice()), key)?;
    storage.close_key_file();
    storage.remove_unfinished().map_err(StoreError::from)?;
    Ok(data_key)
}

fn open_database(storage: &Storage) -> Result<Database, OpenError> {
    match storage {
        Storage::Memory(memory) if memory.is_empty() => Err(OpenError::NoHome("memory".into())),
        Storage::Memory(memory) => open_backend(memory.medium().clone()),
        Storage::Folder(folder) => {
            let path = folder.join(storage::FILE);
            match path.try_exists() {
                Ok(true) => Database::open_file(&path, CACHE_BYTES, |db| db.intact(|| check_format(db))),
                Err(error) if error.kind() != io::ErrorKind::NotADirectory => {
                    Err(StoreError::from(error).into())
                }
                _ if storage.has_key().unwrap_or(false) => Err(OpenError::FileGone(folder.clone())),
                _ => Err(OpenError::NoHome(folder.clone())),
            }
        }
    }
}

fn open_backend(backend: impl StorageBackend) -> Result<Database, OpenError> {
    Ok(Database::open(backend, CACHE_BYTES)?)
}

fn into_store_error(error: OpenError) -> StoreError {
    match error {
        OpenError::Store(error) => error,
        other => StoreError::Damaged(other.to_string()),
    }
}

pub(super) fn initialise(
    db: &Database,
    vault: &Vault,
    home: &HomeRecord,
    keyring: &[u8],
) -> Result<(), StoreError> {
    let write = Tables::write(db, vault)?;
    {
        let mut meta = write.meta()?;
        meta.put_clear(META_FORMAT, &FORMAT.to_le_bytes())?;
        meta.put(HOME, home)?;
        meta.put(KEYRING, &keyring.to_vec())?;
        meta.put(RELAY, &RelayRecord::default())?;
        meta.put(COUNTERS, &Counters::default())?;
    }
    write.make_all()?;
    write.commit()
}

fn check_format(db: &Database) -> Result<(), OpenError> {
    let not_a_home = || StoreError::Damaged("it is no home of Thinpost".into());
    let read = db.begin_read().map_err(StoreError::from)?;
    let meta = read.open_table(META).map_err(|error| match error {
        TableError::Storage(error) => error.into(),
        _ => not_a_home(),
    })?;
    let format = meta.get(META_FORMAT).map_err(StoreError::from)?.ok_or_else(not_a_home)?;
    match u32::from_le_bytes(format.value().try_into().map_err(|_| not_a_home())?) {
        FORMAT => Ok(()),
        found => Err(OpenError::UnknownFormat { found, known: FORMAT }),
    }
}
