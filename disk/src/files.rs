//! Files and folders that only their owner can read, and whose names outlast the loss of power.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

/// Opens a file to read it, and nothing else in its place: whoever opens a pipe waits until somebody writes to it. A folder is left
/// to whoever reads it, who is told what it is.
///
/// # Errors
/// [`io::ErrorKind::InvalidInput`] if it is another thing, and the system's.
pub fn open_file(path: &Path) -> io::Result<File> {
    let found = fs::metadata(path)?;
    if !found.is_file() && !found.is_dir() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file"));
    }
    File::open(path)
}

/// Opens a file to read and write that only its owner can read; makes it where `create` says so.
///
/// # Errors
/// The system's.
pub fn open_private(path: &Path, create: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(create).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Makes a file, to read and write, that only its owner can read.
///
/// # Errors
/// [`io::ErrorKind::AlreadyExists`] if there is one, and the system's.
pub fn create_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Makes a folder that only its owner can look into, and those above it that are missing. Their names are on disk when this
/// returns.
///
/// # Errors
/// The system's.
pub fn create_folder(path: &Path) -> io::Result<()> {
    let missing: Vec<_> = path.ancestors().filter(is_named).take_while(|folder| !folder.exists()).collect();
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)?;
    missing.into_iter().try_for_each(sync_folder_of)
}

fn is_named(path: &&Path) -> bool {
    !path.as_os_str().is_empty()
}

/// Gives a file this content, which is on disk when this returns: after a crash there is the old one, or the new one, whole.
/// Meanwhile the new one is called `unfinished`, where a crash may leave it.
///
/// # Errors
/// The system's; the old content is then still there, or the new one is.
pub fn replace(path: &Path, unfinished: &Path, content: &[u8]) -> io::Result<()> {
    remove(unfinished)?;
    let mut file = open_private(unfinished, true)?;
    file.write_all(content)?;
    sync(&file)?;
    rename(unfinished, path)
}

/// Gives a file, whose content is on disk, another name in the same folder, in place of whatever had it. The name is on disk when
/// this returns.
///
/// # Errors
/// The system's.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    sync_folder_of(to)
}

/// Removes a file, if there is one.
///
/// # Errors
/// The system's.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Whether something has this name, be it a link that leads nowhere.
///
/// # Errors
/// The system's.
pub fn is_there(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Whether a file is the one of this name, and not one that it stood for before.
///
/// # Errors
/// The system's.
pub fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let (ours, found) = (file.metadata()?, fs::metadata(path)?);
        Ok((ours.dev(), ours.ino()) == (found.dev(), found.ino()))
    }
    #[cfg(not(unix))]
    {
        // Other systems replace no file that is open.
        let _ = (file, path);
        Ok(true)
    }
}

/// Waits until the content of a file is on disk.
///
/// # Errors
/// The system's. What was written is then lost, perhaps, and a second try would not notice.
pub fn sync(file: &File) -> io::Result<()> {
    file.sync_all()
}

/// Waits until the name of a file or folder is on disk, given or taken away.
///
/// # Errors
/// The system's.
pub fn sync_folder_of(path: &Path) -> io::Result<()> {
    // Other systems cannot open a folder as a file, and order names by themselves.
    if cfg!(unix) { sync(&File::open(folder_of(path))?) } else { Ok(()) }
}

/// The folder that a file is in.
pub(crate) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(is_named).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[cfg(unix)]
    #[test]
    fn a_file_that_was_replaced_is_not_the_one_of_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let [path, unfinished] = ["a", "a.new"].map(|name| folder.path().join(name));
        let file = create_private(&path).unwrap();
        assert!(is_at(&file, &path).unwrap());
        replace(&path, &unfinished, b"another").unwrap();
        assert!(!is_at(&file, &path).unwrap());
    }

    #[test]
    fn a_file_is_replaced_whole_and_a_leftover_does_not_matter() {
        let folder = tempfile::tempdir().unwrap();
        let [path, unfinished] = ["a", "a.new"].map(|name| folder.path().join(name));
        fs::write(&unfinished, "left over, and longer").unwrap();
        replace(&path, &unfinished, b"one").unwrap();
        replace(&path, &unfinished, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert!(!unfinished.exists());
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert!(!path.exists());
    }

    #[cfg(unix)]
    #[test]
    fn what_is_no_file_is_not_opened_and_a_link_to_one_is() {
        let folder = tempfile::tempdir().unwrap();
        let [file, link, pipe] = ["file", "link", "pipe"].map(|name| folder.path().join(name));
        fs::write(&file, "").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        assert!(open_file(&file).is_ok() && open_file(&link).is_ok());
        assert_eq!(open_file(&pipe).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(open_file(&folder.path().join("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
        let read = |mut file: File| io::Read::read(&mut file, &mut [0]).map_err(|error| error.kind());
        assert_eq!(open_file(folder.path()).map(read).unwrap(), Err(io::ErrorKind::IsADirectory));
    }

    #[cfg(unix)]
    #[test]
    fn a_link_that_leads_nowhere_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        assert!(!is_there(&link).unwrap());
        std::os::unix::fs::symlink("nowhere", &link).unwrap();
        assert!(is_there(&link).unwrap() && !link.exists());
        fs::remove_file(&link).unwrap();
        fs::write(&link, "").unwrap();
        assert!(is_there(&link).unwrap());
        assert!(!is_there(&link.join("deep")).unwrap());
    }

    #[cfg(unix)]
    #[test]
    fn what_is_made_is_its_owners_only() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("a/b/c");
        create_folder(&deep).unwrap();
        create_folder(&deep).unwrap();
        replace(&deep.join("file"), &deep.join("file.new"), b"secret").unwrap();
        let mode = |path: &str| fs::metadata(folder.path().join(path)).unwrap().permissions().mode() & 0o777;
        assert_eq!(["a", "a/b", "a/b/c", "a/b/c/file"].map(mode), [0o700, 0o700, 0o700, 0o600]);
    }

    #[test]
    fn what_is_no_folder_is_not_made_one() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), "").unwrap();
        assert!(remove(&folder.path().join("file/deep")).is_err(), "it is not known that there is none");
        assert!(create_folder(&folder.path().join("file/deep")).is_err());
        assert_eq!(
            open_private(&folder.path().join("none"), false).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
    }
}
