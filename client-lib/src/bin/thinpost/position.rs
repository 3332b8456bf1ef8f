//! How far into the inbox something has been printed, over restarts.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::Path;

use thinpost_client::InboxNumber;

use crate::failure::Failure;

/// The files in the home's folder: of `listen`, and of `rpc`.
pub(crate) const LISTEN: &str = "listen.position";
pub(crate) const RPC: &str = "rpc.position";

/// Eight bytes in a file of their own, written in place after each message that was printed.
///
/// A kill between the two prints one message twice; whoever cannot have that keeps the number itself.
pub(crate) struct Position {
    file: File,
    at: InboxNumber,
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
        let mut bytes = [0; 8];
        let at = match file.read_exact(&mut bytes) {
            Ok(()) => u64::from_le_bytes(bytes),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => 0,
            Err(error) => return Err(of_file(error)),
        };
        Ok(Self { file, at: InboxNumber(at).min(head) })
    }

    pub(crate) fn get(&self) -> InboxNumber {
        self.at
    }

    pub(crate) fn set(&mut self, at: InboxNumber) -> Result<(), Failure> {
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(&at.0.to_le_bytes())?;
        self.at = at;
        Ok(())
    }
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
}
