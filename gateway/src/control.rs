//! How a running relay is asked for a backup, and how it stands: over a Unix-domain socket in its folder, which is its owner's
//! alone.
//!
//! A request is one line, `backup` and an absolute path; the answer is one line, `done` and what was copied, or
//! `failed`, an exit code and why. Whoever hangs up before the answer wants no backup any more. To `status` the answer is
//! `stands` and the numbers of a [`Standing`], after whatever was asked for before.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, fs, thread};

use tracing::{debug, info, warn};

use crate::backup::{self, BackupError};
use crate::folder::Folder;
use crate::standing::Standing;
use crate::store::{Counts, RedbStore};

/// Longest line either way, bytes.
const LINE_BYTES_MAX: u64 = 8_192;

/// Whoever connects says within this what is wanted.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why the relay that was asked made no backup.
#[derive(Debug)]
pub struct Refused {
    /// An exit code for it.
    pub code: u8,
    /// A line for a person.
    pub message: String,
}

/// The socket of a running relay.
#[derive(Debug)]
pub struct Control {
    listener: UnixListener,
    folder: Folder,
}

impl Control {
    /// Listens in the folder. The caller holds its lock: a socket that is there is of a relay that is gone.
    ///
    /// # Errors
    /// When the system gives no such socket, as where its path is longer than some 100 bytes.
    pub fn listen(folder: &Folder) -> io::Result<Self> {
        let path = folder.socket_path();
        // A socket is anybody's from its making until its permissions are set. In a folder of its owner it never is.
        if let Some(room) = path.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(room)?;
            fs::set_permissions(room, fs::Permissions::from_mode(0o700))?;
        }
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        Ok(Self { listener: UnixListener::bind(&path)?, folder: folder.clone() })
    }

    /// Answers one after another, on a thread that ends with the process; `look` says how the relay stands, and `code_of` what a
    /// failure is as an exit code.
    pub fn serve(
        self,
        store: Arc<RedbStore>,
        look: impl Fn() -> Option<Standing> + Send + 'static,
        code_of: fn(&BackupError) -> u8,
    ) {
        let answer_all = move || {
            for stream in self.listener.incoming() {
                let answered = stream.and_then(|stream| self.answer(&stream, &store, &look, code_of));
                if let Err(error) = answered {
                    debug!(%error, "whoever asked for a backup has no answer");
                    // Where no more files can be opened this would go round and round.
                    thread::sleep(Duration::from_millis(100));
                }
            }
        };
        thread::spawn(answer_all);
    }

    fn answer(
        &self,
        mut stream: &UnixStream,
        store: &RedbStore,
        look: &impl Fn() -> Option<Standing>,
        code_of: fn(&BackupError) -> u8,
    ) -> io::Result<()> {
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut line = String::new();
        BufReader::new(stream.take(LINE_BYTES_MAX)).read_line(&mut line)?;
        if line == "status\n" {
            let answer =
                look().map_or("failed 69 the relay is gone".to_owned(), |standing| standing.to_string());
            return stream.write_all(format!("{answer}\n").as_bytes());
        }
        let path = line.strip_suffix('\n').and_then(|line| line.strip_prefix("backup "));
        let Some(path) = path.map(PathBuf::from).filter(|path| path.is_absolute()) else {
            return stream.write_all(b"failed 64 the relay does not understand\n");
        };
        stream.set_nonblocking(true)?;
        // Nothing more is said, so that whatever can be read is the end.
        let is_wanted =
            || matches!((&*stream).read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock);
        let made = backup::back_up(&self.folder, store, &path, &is_wanted);
        stream.set_nonblocking(false)?;
        let answer = match made {
            Ok(counts) => {
                info!(path = %path.display(), "a backup was made");
                Answer(&counts).to_string()
            }
            Err(error) => {
                warn!(%error, "no backup was made");
                format!("failed {} {}", code_of(&error), error.to_string().replace(['\n', '\r'], " "))
            }
        };
        stream.write_all(format!("{answer}\n").as_bytes())
    }
}

/// What was copied, as a line.
struct Answer<'c>(&'c Counts);

impl fmt::Display for Answer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { accounts, devices, entries, bytes, objects, object_bytes } = self.0;
        write!(f, "done {accounts} {devices} {entries} {bytes} {objects} {object_bytes}")
    }
}

fn read_answer(line: &str) -> Option<Result<Counts, Refused>> {
    if let Some(counts) = line.strip_prefix("done ") {
        let numbers: Vec<u64> = counts.split(' ').map(str::parse).collect::<Result<_, _>>().ok()?;
        let [accounts, devices, entries, bytes, objects, object_bytes] = numbers[..] else { return None };
        return Some(Ok(Counts { accounts, devices, entries, bytes, objects, object_bytes }));
    }
    let (code, message) = line.strip_prefix("failed ")?.split_once(' ')?;
    Some(Err(Refused { code: code.parse().ok()?, message: message.to_owned() }))
}

/// Asks the relay that runs on a folder for a backup at an absolute path, and waits until it is made or is not. `None` if
/// no relay of this version can be asked.
///
/// # Errors
/// When the relay stops answering.
pub fn ask(folder: &Folder, path: &Path) -> io::Result<Option<Result<Counts, Refused>>> {
    let name = path.to_str().filter(|name| !name.contains('\n')).ok_or(io::ErrorKind::InvalidFilename)?;
    let Some(line) = ask_line(folder, &format!("backup {name}\n"))? else { return Ok(None) };
    let answer = line.strip_suffix('\n').and_then(read_answer);
    answer.map(Some).ok_or_else(|| io::Error::other("the relay has stopped before the backup was made"))
}

/// Asks the relay that runs on a folder how it stands. `None` if no relay of this version can be asked.
///
/// # Errors
/// When the relay stops answering.
pub fn status(folder: &Folder) -> io::Result<Option<Standing>> {
    let Some(line) = ask_line(folder, "status\n")? else { return Ok(None) };
    Ok(line.strip_suffix('\n').and_then(Standing::read))
}

/// What is answered to a line, if anybody listens.
fn ask_line(folder: &Folder, line: &str) -> io::Result<Option<String>> {
    let Ok(mut stream) = UnixStream::connect(folder.socket_path()) else { return Ok(None) };
    stream.write_all(line.as_bytes())?;
    let mut answer = String::new();
    BufReader::new(stream.take(LINE_BYTES_MAX)).read_line(&mut answer)?;
    Ok(Some(answer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_reads_back() {
        let counts =
            Counts { accounts: 1, devices: 2, entries: 3, bytes: 4, objects: 5, object_bytes: u64::MAX };
        let read = read_answer(&Answer(&counts).to_string()).and_then(Result::ok);
        assert_eq!(read, Some(counts));
        let Some(Err(refused)) = read_answer("failed 73 it is not empty") else { panic!("not read") };
        assert_eq!((refused.code, refused.message.as_str()), (73, "it is not empty"));
        for line in ["", "done", "done 1 2", "failed", "failed 73", "failed x y"] {
            assert!(read_answer(line).is_none(), "{line:?}");
        }
    }
}
