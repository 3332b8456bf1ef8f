//! How far into the inbox something has been printed, over restarts.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use thinpost_client::InboxNumber;

use crate::failure::{Failure, exit};

/// The files in the home's folder: of `listen`, and of `rpc`.
pub(crate) const LISTEN: &str = "listen.position";
pub(crate) const RPC: &str = "rpc.position";

/// A number and its check, in a file of their own, written in place after each message that was printed.
///
/// A kill between the two prints one message twice; whoever cannot have that keeps the number itself.
pub(crate) struct Position {
    file: File,
    at: InboxNumber,
}

const NUMBER_BYTES: usize = 8;
const BYTES: usize = 16;

/// Removes both.
pub(crate) fn forget(home: &Path) {
    for name in [LISTEN, RPC] {
        let _ = std::fs::remove_file(home.join(name));
    }
}

impl Position {
    /// Reads the position of that name; a new one is 0. `head` is the inbox's last number: a position
    /// beyond it is of another copy of this home.
    pub(crate) fn open(home: &Path, name: &str, head: InboxNumber) -> Result<Self, Failure> {
        let path = home.join(name);
        let of_file = |error: io::Error| Failure::of_file(path.display(), &error);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&path).map_err(of_file)?;
        let mut bytes = Vec::with_capacity(BYTES);
        (&mut file).take(BYTES as u64 + 1).read_to_end(&mut bytes).map_err(of_file)?;
        let Some(at) = read(&bytes) else {
            let what =
                format!("{} is damaged; without it all that is in the inbox is told again", path.display());
            return Err(Failure::new(exit::DATA, what));
        };
        let mut position = Self { file, at: at.min(head) };
        // From here on it has its place on the disk: what was printed can be noted though the disk is full.
        position.set(position.at)?;
        Ok(position)
    }

    pub(crate) fn get(&self) -> InboxNumber {
        self.at
    }

    pub(crate) fn set(&mut self, at: InboxNumber) -> Result<(), Failure> {
        let set = self.file.seek(SeekFrom::Start(0)).and_then(|_| self.file.write_all(&written(at)));
        set.map_err(|error| Failure::of_file("the position in the inbox", &error))?;
        self.at = at;
        Ok(())
    }
}

fn written(at: InboxNumber) -> [u8; BYTES] {
    let number = at.0.to_le_bytes();
    let mut bytes = [0; BYTES];
    bytes[..NUMBER_BYTES].copy_from_slice(&number);
    bytes[NUMBER_BYTES..].copy_from_slice(&blake3::hash(&number).as_bytes()[..BYTES - NUMBER_BYTES]);
    bytes
}

/// Earlier versions wrote no check.
fn read(bytes: &[u8]) -> Option<InboxNumber> {
    if bytes.is_empty() {
        return Some(InboxNumber(0));
    }
    let at = InboxNumber(u64::from_le_bytes(*bytes.first_chunk()?));
    (bytes.len() == NUMBER_BYTES || *bytes == written(at)).then_some(at)
}

/// A loss of power may take the last seconds back, but not an orderly end.
impl Drop for Position {
    fn drop(&mut self) {
        let _ = self.file.sync_data();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_survives_and_never_lies_beyond_the_inbox() {
        let home = tempfile::tempdir().unwrap();
        let open = |head| Position::open(home.path(), "p", InboxNumber(head)).unwrap();
        assert_eq!(open(9).get(), InboxNumber(0));
        open(9).set(InboxNumber(7)).unwrap();
        assert_eq!(open(9).get(), InboxNumber(7));
        assert_eq!(open(3).get(), InboxNumber(3));
    }

    #[test]
    fn a_damaged_position_is_an_error_and_one_without_a_check_is_read() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("p");
        let open = || Position::open(home.path(), "p", InboxNumber(9)).map(|position| position.get());
        std::fs::write(&path, 5u64.to_le_bytes()).unwrap();
        assert_eq!(open().ok(), Some(InboxNumber(5)));
        let whole = std::fs::read(&path).unwrap();
        for bit in 0..BYTES * 8 {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, &damaged).unwrap();
            assert!(open().is_err(), "bit {bit}");
        }
        for damaged in [&whole[..3], &[&whole[..], b"x"].concat()] {
            std::fs::write(&path, damaged).unwrap();
            assert!(open().is_err(), "{damaged:?}");
        }
    }
}
