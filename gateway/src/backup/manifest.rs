//! What a backup says of its files.

use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::path::Path;

use thinpost_disk::files;

use crate::folder::FolderError;

const TITLE: &str = "thinpost relay backup 1";

/// Longest manifest that is read, bytes.
const BYTES_MAX: u64 = 1_024;

/// The files of a backup, by length and BLAKE3. Written as text, a line for each, between a title and a BLAKE3 of all that
/// stands above it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Manifest {
    files: Vec<Listed>,
}

#[derive(Debug, PartialEq, Eq)]
struct Listed {
    name: String,
    bytes: u64,
    hash: blake3::Hash,
}

impl Manifest {
    /// Of these files of a folder, as they are.
    pub(super) fn of(folder: &Path, names: &[&str]) -> Result<Self, FolderError> {
        let listed = |name: &&str| {
            let (bytes, hash) = measure(&folder.join(name))?;
            Ok(Listed { name: (*name).to_owned(), bytes, hash })
        };
        Ok(Self { files: names.iter().map(listed).collect::<Result<_, _>>()? })
    }

    /// As it was written; `None` if it is not.
    pub(super) fn read(path: &Path) -> Result<Option<Self>, FolderError> {
        let mut text = Vec::new();
        let read = files::open_file(path).and_then(|file| file.take(BYTES_MAX).read_to_end(&mut text));
        read.map_err(failed(path))?;
        Ok(std::str::from_utf8(&text).ok().and_then(parse))
    }

    pub(super) fn names(&self, name: &str) -> bool {
        self.files.iter().any(|file| file.name == name)
    }

    /// Whether each file is as long as it is listed.
    pub(super) fn has_lengths_of(&self, folder: &Path) -> bool {
        let length = |name: &str| fs::metadata(folder.join(name)).map(|found| found.len()).ok();
        self.files.iter().all(|file| length(&file.name) == Some(file.bytes))
    }

    /// The first file that is not as it is listed.
    pub(super) fn differs(&self, folder: &Path) -> Result<Option<String>, FolderError> {
        for Listed { name, bytes, hash } in &self.files {
            // What is of another length need not be read.
            let found = fs::metadata(folder.join(name));
            let has_other_length = found.is_ok_and(|found| found.is_file() && found.len() != *bytes);
            if has_other_length || measure(&folder.join(name))? != (*bytes, *hash) {
                return Ok(Some(name.clone()));
            }
        }
        Ok(None)
    }

    fn lines(&self) -> String {
        let line = |Listed { name, bytes, hash }: &Listed| format!("{name} {bytes} {hash}\n");
        let files: String = self.files.iter().map(line).collect();
        format!("{TITLE}\n{files}")
    }
}

impl fmt::Display for Manifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self.lines();
        writeln!(f, "{lines}{}", blake3::hash(lines.as_bytes()))
    }
}

fn parse(text: &str) -> Option<Manifest> {
    let (head, end) = text.strip_suffix('\n')?.rsplit_once('\n')?;
    let files = head.strip_prefix(TITLE)?.lines().skip(1).map(|line| {
        let mut words = line.split(' ');
        let (name, bytes, hash) = (words.next()?, words.next()?, words.next()?);
        let hash = blake3::Hash::from_hex(hash).ok()?;
        Some(Listed { name: name.to_owned(), bytes: bytes.parse().ok()?, hash })
    });
    let manifest = Manifest { files: files.collect::<Option<_>>()? };
    let is_whole =
        end == blake3::hash(manifest.lines().as_bytes()).to_string() && manifest.to_string() == text;
    is_whole.then_some(manifest)
}

/// For the fuzzer: reads bytes as a list of files, and as one that lacks its last line, which no search would find.
///
/// # Panics
/// When what was read is not written as it was.
#[cfg(feature = "fuzzing")]
pub(crate) fn rewrite_manifest(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for text in [text.to_owned(), format!("{text}{}\n", blake3::hash(bytes))] {
        if let Some(manifest) = parse(&text) {
            assert_eq!(manifest.to_string(), text);
        }
    }
}

/// A list of two files without its last line.
#[cfg(feature = "fuzzing")]
pub(crate) fn sample_manifest() -> Vec<u8> {
    let listed =
        |name: &str, bytes| Listed { name: name.to_owned(), bytes, hash: blake3::hash(name.as_bytes()) };
    Manifest { files: vec![listed("key", 64), listed("store", 8_192)] }.lines().into_bytes()
}

/// A file's length and BLAKE3, read piece by piece. A file that is not there has no byte.
fn measure(path: &Path) -> Result<(u64, blake3::Hash), FolderError> {
    let mut hasher = blake3::Hasher::new();
    match files::open_file(path) {
        Ok(mut file) => drop(io::copy(&mut file, &mut hasher).map_err(failed(path))?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(path)(error)),
    }
    Ok((hasher.count(), hasher.finalize()))
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> FolderError + '_ {
    move |error| FolderError::Io { what: "read", path: path.to_owned(), error }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs;

    use super::*;

    #[test]
    fn a_manifest_reads_back_and_no_changed_one_does() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("key"), "secret").unwrap();
        let manifest = Manifest::of(folder.path(), &["key", "absent"]).unwrap();
        let text = manifest.to_string();
        assert_eq!(parse(&text), Some(manifest));
        for bit in 0..text.len() * 8 {
            let mut flipped = text.clone().into_bytes();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(std::str::from_utf8(&flipped).ok().and_then(parse), None, "bit {bit}");
        }
        for len in 0..text.len() {
            assert_eq!(parse(&text[..len]), None, "length {len}");
        }
    }

    #[test]
    fn a_file_that_changed_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, content: &str| fs::write(folder.path().join(name), content).unwrap();
        write("key", "secret");
        write("store", "rows");
        let manifest = Manifest::of(folder.path(), &["key", "store"]).unwrap();
        assert_eq!(manifest.differs(folder.path()).unwrap(), None);
        write("store", "Rows");
        assert_eq!(manifest.differs(folder.path()).unwrap().as_deref(), Some("store"));
        fs::remove_file(folder.path().join("key")).unwrap();
        assert_eq!(manifest.differs(folder.path()).unwrap().as_deref(), Some("key"));
    }
}
