//! The relay's key: how it is made, kept and read.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use ring::rand::{SecureRandom, SystemRandom};
use thinpost_carrier::Identity;
use thinpost_disk::files;
use tracing::warn;
use zeroize::Zeroizing;

use super::{Folder, FolderError, FolderLock, KEY_FILE, NEW_KEY_FILE, io_error, read_text};
use crate::invite::Invites;

/// Bytes that stand behind the key's seed, of what BLAKE3 makes of it.
const KEY_CHECK_BYTES: usize = 8;

impl Folder {
    /// The relay's keys; the first call ever makes them. Needs no lock, so that tickets and invites can
    /// be made while the relay runs.
    ///
    /// # Errors
    /// When the key file is exposed, damaged, or cannot be read or written.
    pub fn keys(&self) -> Result<RelayKeys, FolderError> {
        let path = self.path.join(KEY_FILE);
        match files::open_file(&path) {
            Ok(file) => Ok(read_key(&file, &path)?.0),
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.make_keys(&path),
            Err(error) => Err(io_error("read", &path)(error)),
        }
    }

    /// Gives a key from before it had a check one. A link to a key that lies elsewhere stays a link, and where nothing can be
    /// written, the key stays as it is.
    pub fn add_key_check(&self, _lock: &FolderLock) {
        let path = self.key_path();
        if !fs::symlink_metadata(&path).is_ok_and(|found| found.is_file()) {
            return;
        }
        let Ok(Ok((keys, false))) = files::open_file(&path).map(|file| read_key(&file, &path)) else {
            return;
        };
        let unfinished = self.path.join(NEW_KEY_FILE);
        if let Err(error) = files::replace(&path, &unfinished, keys.to_text().as_bytes()) {
            let _ = files::remove(&unfinished);
            warn!(%error, "the relay's key gets no check");
        }
    }

    /// Several processes may come here at once; one makes the key, and the others take it.
    fn make_keys(&self, path: &Path) -> Result<RelayKeys, FolderError> {
        let new_path = self.path.join(NEW_KEY_FILE);
        let mut new = files::open_private(&new_path, true).map_err(io_error("write", &new_path))?;
        new.lock().map_err(io_error("lock", &new_path))?;
        // Whoever held the lock before has renamed the file: the key is there, and may be `new` itself.
        if let Ok(file) = files::open_file(path) {
            return Ok(read_key(&file, path)?.0);
        }
        let mut seed = Zeroizing::new([0; 32]);
        SystemRandom::new()
            .fill(&mut *seed)
            .map_err(|_| io_error("write", path)(io::Error::other("the system gives no random numbers")))?;
        let keys = RelayKeys { seed };
        // A crash may have left half a key in it.
        new.set_len(0)
            .and_then(|()| new.write_all(keys.to_text().as_bytes()))
            .and_then(|()| files::sync(&new))
            .and_then(|()| files::rename(&new_path, path))
            .map_err(io_error("write", path))?;
        Ok(keys)
    }
}

/// A relay's seed, and the keys that are derived from it for one purpose each.
#[derive(Clone)]
pub struct RelayKeys {
    pub(super) seed: Zeroizing<[u8; 32]>,
}

/// The keys are secrets.
impl std::fmt::Debug for RelayKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RelayKeys")
    }
}

impl RelayKeys {
    /// What the key's file holds.
    fn to_text(&self) -> Zeroizing<String> {
        let check = Zeroizing::new(HEXLOWER.encode(&self.check()) + "\n");
        let mut text = Zeroizing::new(String::with_capacity(2 * self.seed.len() + check.len()));
        HEXLOWER.encode_append(&*self.seed, &mut text);
        text.push_str(&check);
        text
    }

    fn check(&self) -> [u8; KEY_CHECK_BYTES] {
        let mut check = [0; KEY_CHECK_BYTES];
        let mut hasher = blake3::Hasher::new_derive_key("thinpost/1 relay 2026 key file");
        hasher.update(&*self.seed).finalize_xof().fill(&mut check);
        check
    }

    /// The TLS identity, whose public half is in every ticket.
    pub fn identity(&self) -> Identity {
        Identity::from_seed(*self.seed)
    }

    /// What QUIC's stateless resets are made with: the same after a restart, so that devices learn at once
    /// that their connections are gone.
    pub fn reset_key(&self) -> [u8; 32] {
        blake3::derive_key("thinpost/1 relay 2026 stateless reset", &*self.seed)
    }

    /// The relay's invites.
    pub fn invites(&self) -> Invites {
        Invites::new(blake3::derive_key("thinpost/1 relay 2026 invite", &*self.seed))
    }
}

/// The keys of a file, and whether it has their check: one from before has none.
pub(super) fn read_key(file: &File, path: &Path) -> Result<(RelayKeys, bool), FolderError> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = file.metadata().map_err(io_error("read", path))?.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(FolderError::KeyExposed { path: path.to_owned(), mode });
        }
    }
    let damaged = || FolderError::KeyDamaged { path: path.to_owned() };
    let text = match read_text(file) {
        Ok(text) => Zeroizing::new(text),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(damaged()),
        Err(error) => return Err(io_error("read", path)(error)),
    };
    let bytes = HEXLOWER_PERMISSIVE.decode(text.trim().as_bytes()).map(Zeroizing::new);
    let bytes = bytes.map_err(|_| damaged())?;
    let (seed, check) = bytes.split_first_chunk().ok_or_else(damaged)?;
    let keys = RelayKeys { seed: Zeroizing::new(*seed) };
    match check {
        [] => Ok((keys, false)),
        check if *check == keys.check() => Ok((keys, true)),
        _ => Err(damaged()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;

    use super::super::tests::folder;
    #[cfg(unix)]
    use super::super::tests::mode;
    use super::*;

    #[test]
    fn the_key_is_made_once_and_read_ever_after() {
        let (_parent, folder) = folder();
        let first = folder.keys().unwrap();
        let again = Folder::open(folder.path()).unwrap().keys().unwrap();
        assert_eq!(first.identity().public(), again.identity().public());
        assert_eq!(first.reset_key(), again.reset_key());
        assert_ne!(first.reset_key(), *first.seed);
        assert!(!folder.path().join(NEW_KEY_FILE).exists());
    }

    #[cfg(unix)]
    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let (_parent, folder) = folder();
        folder.keys().unwrap();
        let path = folder.path().join(KEY_FILE);
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o640)).unwrap();
        assert!(matches!(folder.keys(), Err(FolderError::KeyExposed { mode: 0o640, .. })));
    }

    #[test]
    fn a_damaged_key_is_refused_and_left_as_it_is() {
        let (_parent, folder) = folder();
        folder.keys().unwrap();
        let path = folder.path().join(KEY_FILE);
        for content in [b"".as_slice(), b"12", &[0xff; 64], "g".repeat(64).as_bytes(), &[b'1'; 2_000]] {
            fs::write(&path, content).unwrap();
            assert!(matches!(folder.keys(), Err(FolderError::KeyDamaged { .. })), "{content:?}");
            assert_eq!(fs::read(&path).unwrap(), content);
        }
    }

    #[test]
    fn a_key_is_damaged_whichever_of_its_bits_is_flipped_or_still_the_same() {
        let (_parent, folder) = folder();
        let key = folder.keys().unwrap().seed;
        let path = folder.path().join(KEY_FILE);
        let whole = fs::read(&path).unwrap();
        let mut noticed = 0;
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, &flipped).unwrap();
            match folder.keys() {
                Ok(found) => assert_eq!(found.seed, key, "bit {bit}"),
                Err(FolderError::KeyDamaged { .. }) => noticed += 1,
                Err(error) => panic!("bit {bit}: {error}"),
            }
        }
        // But for letters that are written large, and the end of the line.
        assert!(noticed > whole.len() * 7, "{noticed}");
    }

    #[test]
    fn a_key_from_before_it_had_a_check_is_read_and_gets_one() {
        let (_parent, folder) = folder();
        let lock = folder.lock().unwrap();
        let key = folder.keys().unwrap().seed;
        let path = folder.path().join(KEY_FILE);
        let whole = fs::read(&path).unwrap();
        fs::write(&path, [&whole[..64], b"\n"].concat()).unwrap();
        assert_eq!(folder.keys().unwrap().seed, key);
        folder.add_key_check(&lock);
        assert_eq!(fs::read(&path).unwrap(), whole);
        #[cfg(unix)]
        {
            assert_eq!(mode(&path), 0o600);
            // One that lies elsewhere is left alone.
            let elsewhere = folder.path().join("elsewhere");
            fs::write(&path, &whole[..64]).unwrap();
            fs::rename(&path, &elsewhere).unwrap();
            std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
            folder.add_key_check(&lock);
            assert_eq!(fs::read(&elsewhere).unwrap(), &whole[..64]);
            assert_eq!(folder.keys().unwrap().seed, key);
        }
    }

    #[test]
    fn half_a_key_from_a_crash_is_never_taken_for_one() {
        let (_parent, folder) = folder();
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut half = options.open(folder.path().join(NEW_KEY_FILE)).unwrap();
        half.write_all("12".repeat(60).as_bytes()).unwrap();
        folder.keys().unwrap();
        assert_eq!(fs::read(folder.path().join(KEY_FILE)).unwrap().len(), 81);
        folder.keys().unwrap();
    }

    #[test]
    fn all_who_make_the_key_at_once_get_the_same() {
        let (_parent, folder) = folder();
        let public = |folder: &Folder| folder.keys().unwrap().identity().public();
        let keys: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| public(&folder))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(keys.iter().all(|key| *key == public(&folder)), "{keys:?}");
    }
}
