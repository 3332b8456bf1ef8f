//! A folder on its way to be whole: until then it bears a mark, which is written first and taken away last. That of a restore says
//! which store is to come there, as no other is to be removed when the restore is begun again.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use thinpost_disk::files;
use thinpost_wire::ids::StoreId;
use zeroize::Zeroizing;

use super::{FILE_BYTES_MAX, Folder, FolderError, io_error};

/// The mark. Whoever finds it knows that something was begun here and not finished.
const MARK_FILE: &str = "unfinished";

/// A folder that bears the mark.
#[derive(Debug)]
pub struct Filling {
    folder: Folder,
}

impl Filling {
    /// Whether a folder bears the mark.
    ///
    /// # Errors
    /// When that cannot be seen.
    pub fn is_marked(path: &Path) -> Result<bool, FolderError> {
        let mark = path.join(MARK_FILE);
        files::is_there(&mark).map_err(io_error("read", &mark))
    }

    /// Which store is to come into a folder that bears the mark; `None` if it does not say.
    ///
    /// # Errors
    /// When the mark cannot be read.
    pub(super) fn store_of_mark(path: &Path) -> Result<Option<StoreId>, FolderError> {
        let mark = path.join(MARK_FILE);
        let text = read_short(&mark).map_err(io_error("read", &mark))?;
        let id = HEXLOWER.decode(text.trim_ascii()).ok().and_then(|id| id.try_into().ok());
        Ok(id.map(StoreId))
    }

    /// Begins in an empty folder, which is made if need be, or in one where the same was begun before: then the files
    /// of these names go.
    ///
    /// # Errors
    /// [`FolderError::NotEmpty`] if anything else is there.
    pub fn begin_empty(path: &Path, names: &[&str]) -> Result<Self, FolderError> {
        let folder = Folder::open(path)?;
        let was_begun = Self::is_marked(path)?;
        for entry in fs::read_dir(path).map_err(io_error("read", path))? {
            let name = entry.map_err(io_error("read", path))?.file_name();
            let is_known = name == MARK_FILE || names.iter().any(|known| name == *known);
            if !was_begun || !is_known {
                return Err(FolderError::NotEmpty { path: path.to_owned() });
            }
        }
        let files: Vec<_> = names.iter().map(|name| path.join(name)).collect();
        Self::begin(folder, &files, None)
    }

    /// Begins, with what is to come as the mark says it, and removes these files.
    pub(super) fn begin(
        folder: Folder,
        files: &[PathBuf],
        store: Option<StoreId>,
    ) -> Result<Self, FolderError> {
        let mark = folder.path().join(MARK_FILE);
        put(&mark, store).and_then(|()| files::sync_folder_of(&mark)).map_err(io_error("write", &mark))?;
        files.iter().try_for_each(|file| files::remove(file).map_err(io_error("remove", file)))?;
        Ok(Self { folder })
    }

    /// Writes a new file, readable by its owner only.
    ///
    /// # Errors
    /// When it is there already, or cannot be written.
    pub fn write(&self, name: &str, content: &[u8]) -> Result<(), FolderError> {
        let path = self.folder.path().join(name);
        let written = files::create_private(&path).and_then(|mut file| {
            file.write_all(content)?;
            files::sync(&file)
        });
        written.map_err(io_error("write", &path))
    }

    /// Copies a short file under a new name.
    ///
    /// # Errors
    /// As [`Filling::write`], or when it cannot be read.
    pub fn copy(&self, from: &Path, name: &str) -> Result<(), FolderError> {
        let content = read_short(from).map_err(io_error("read", from))?;
        self.write(name, &content)
    }

    /// All is there: takes the mark away.
    ///
    /// # Errors
    /// When that cannot be made durable; whether the mark is there then is unknown.
    pub fn finish(self) -> Result<(), FolderError> {
        let mark = self.folder.path().join(MARK_FILE);
        let finished = files::sync_folder_of(&mark)
            .and_then(|()| fs::remove_file(&mark))
            .and_then(|()| files::sync_folder_of(&mark));
        finished.map_err(io_error("remove", &mark))
    }
}

/// A file that is short, whole. It may hold a key.
pub(super) fn read_short(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    // As long as it may get: what outgrows its place leaves a copy there.
    let mut content = Zeroizing::new(Vec::with_capacity(FILE_BYTES_MAX as usize + 1));
    let read = files::open_file(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut content)?;
    if read as u64 > FILE_BYTES_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("it has more than {FILE_BYTES_MAX} bytes"),
        ));
    }
    Ok(content)
}

/// Puts a mark where there is none, and writes into it which store is to come. Nothing else in its place is one, least of all a link to
/// a file that is somebody's.
fn put(mark: &Path, store: Option<StoreId>) -> io::Result<()> {
    let mut file = match fs::symlink_metadata(mark) {
        Ok(found) if found.is_file() => files::open_private(mark, false)?,
        Ok(_) => {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "something else has this name"));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => files::create_private(mark)?,
        Err(error) => return Err(error),
    };
    let Some(id) = store else { return Ok(()) };
    let text = format!("{}\n", HEXLOWER.encode(&id.0));
    file.write_all(text.as_bytes())?;
    file.set_len(text.len() as u64)?;
    files::sync(&file)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: &[&str] = &["one", "two"];

    #[test]
    fn what_was_begun_bears_the_mark_until_it_is_finished() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/b");
        let filling = Filling::begin_empty(&path, NAMES).unwrap();
        filling.write("one", b"1").unwrap();
        assert!(filling.write("one", b"1").is_err());
        assert!(Filling::is_marked(&path).unwrap());
        filling.finish().unwrap();
        assert!(!Filling::is_marked(&path).unwrap());
        assert_eq!(fs::read(path.join("one")).unwrap(), b"1");
        let again = Filling::begin_empty(&path, NAMES);
        assert!(matches!(again, Err(FolderError::NotEmpty { .. })), "it is whole");
        assert_eq!(fs::read(path.join("one")).unwrap(), b"1");
    }

    #[test]
    fn what_was_begun_before_is_begun_again_and_nothing_else_is_touched() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a");
        let filling = Filling::begin_empty(&path, NAMES).unwrap();
        filling.write("one", b"half").unwrap();
        drop(filling);
        let filling = Filling::begin_empty(&path, NAMES).unwrap();
        assert!(!path.join("one").exists());
        drop(filling);
        fs::write(path.join("somebody's"), "x").unwrap();
        assert!(matches!(Filling::begin_empty(&path, NAMES), Err(FolderError::NotEmpty { .. })));
        assert!(path.join("somebody's").exists());
    }

    #[cfg(unix)]
    #[test]
    fn a_link_in_place_of_the_mark_is_not_followed() {
        let parent = tempfile::tempdir().unwrap();
        let [path, theirs] = ["a", "somebody's"].map(|name| parent.path().join(name));
        fs::create_dir(&path).unwrap();
        for (to, content) in [(&theirs, Some("x")), (&parent.path().join("nobody's"), None)] {
            if let Some(content) = content {
                fs::write(to, content).unwrap();
            }
            std::os::unix::fs::symlink(to, path.join(MARK_FILE)).unwrap();
            assert!(Filling::is_marked(&path).unwrap());
            assert!(matches!(Filling::begin_empty(&path, NAMES), Err(FolderError::Io { .. })));
            assert_eq!(fs::read_to_string(to).ok().as_deref(), content, "{}", to.display());
            fs::remove_file(path.join(MARK_FILE)).unwrap();
        }
        drop(Filling::begin_empty(&path, NAMES).unwrap());
    }
}
