//! A file that is only read: what redb writes, to repair it or to note that it is open, stays in memory.

use std::cmp::min;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use redb::backends::FileBackend;
use redb::{BackendError, DatabaseError, StorageBackend, StorageError};

use crate::checked::PAGE_BYTES;

/// A file under what was written since it was opened. A repair writes some pages; a check writes next to none.
#[derive(Debug)]
pub(crate) struct Overlay {
    file: FileBackend,
    changes: Mutex<Changes>,
}

#[derive(Debug)]
struct Changes {
    len: u64,
    /// How much of the file still counts: what was cut off once reads as zeros.
    file_len: u64,
    pages: BTreeMap<u64, Box<[u8; PAGE_BYTES]>>,
}

impl Overlay {
    /// Over a file that can be read.
    pub(crate) fn new(file: File) -> Result<Self, DatabaseError> {
        let file = FileBackend::new(file)?;
        let len = file.len().map_err(StorageError::Io)?;
        Ok(Self { file, changes: Mutex::new(Changes { len, file_len: len, pages: BTreeMap::new() }) })
    }

    fn changes(&self) -> MutexGuard<'_, Changes> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A page as it is in the file, zeros behind its end.
    fn of_file(&self, changes: &Changes, index: u64) -> io::Result<Box<[u8; PAGE_BYTES]>> {
        let mut page = Box::new([0; PAGE_BYTES]);
        let start = index * PAGE_BYTES as u64;
        let len = min(changes.file_len.saturating_sub(start), PAGE_BYTES as u64) as usize;
        if len > 0 {
            self.file.read(start, &mut page[..len])?;
        }
        Ok(page)
    }
}

/// The pages that a piece of the file lies in: index, where in the page the piece begins, and how much of it is there.
fn pages_of(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, usize)> {
    let end = offset + len as u64;
    let mut at = offset;
    std::iter::from_fn(move || {
        let (index, within) = (at / PAGE_BYTES as u64, (at % PAGE_BYTES as u64) as usize);
        let len = min(end - at, (PAGE_BYTES - within) as u64) as usize;
        at += len as u64;
        (len > 0).then_some((index, within, len))
    })
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.changes().len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let changes = self.changes();
        let end = offset.checked_add(out.len() as u64);
        if end.is_none_or(|end| end > changes.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if changes.pages.is_empty() && changes.len == changes.file_len {
            return self.file.read(offset, out);
        }
        let mut rest = out;
        for (index, within, len) in pages_of(offset, rest.len()) {
            let (piece, others) = rest.split_at_mut(len);
            match changes.pages.get(&index) {
                Some(page) => piece.copy_from_slice(&page[within..within + len]),
                None => piece.copy_from_slice(&self.of_file(&changes, index)?[within..within + len]),
            }
            rest = others;
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut changes = self.changes();
        if len < changes.len {
            let index = len / PAGE_BYTES as u64;
            changes.pages.split_off(&len.div_ceil(PAGE_BYTES as u64));
            if let Some(page) = changes.pages.get_mut(&index) {
                page[(len % PAGE_BYTES as u64) as usize..].fill(0);
            }
            changes.file_len = min(changes.file_len, len);
        }
        changes.len = len;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut changes = self.changes();
        let mut rest = data;
        for (index, within, len) in pages_of(offset, data.len()) {
            if !changes.pages.contains_key(&index) {
                let page = self.of_file(&changes, index)?;
                changes.pages.insert(index, page);
            }
            let (piece, others) = rest.split_at(len);
            if let Some(page) = changes.pages.get_mut(&index) {
                page[within..within + len].copy_from_slice(piece);
            }
            rest = others;
        }
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }

    // The file itself is read, so whatever redb wants to have to itself is shared with others who read.

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_shared_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.query_lock_range(start, end)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs;

    use super::*;

    #[test]
    fn what_is_written_is_read_back_and_the_file_stays_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let content: Vec<u8> = (0..10_000u32).map(|n| n as u8).collect();
        fs::write(&path, &content).unwrap();
        let overlay = Overlay::new(File::open(&path).unwrap()).unwrap();
        let mut expected = content.clone();
        let piece = [0xee; 5_000];
        overlay.write(3_000, &piece).unwrap();
        expected[3_000..8_000].copy_from_slice(&piece);
        let read = |offset: u64, len: usize| {
            let mut out = vec![0; len];
            overlay.read(offset, &mut out).map(|()| out)
        };
        assert_eq!(read(0, 10_000).unwrap(), expected);
        assert_eq!(read(4_090, 20).unwrap(), expected[4_090..4_110]);
        assert!(read(9_999, 2).is_err());

        // What was cut off does not come back, neither from the file nor from what was written.
        overlay.set_len(3_500).unwrap();
        overlay.set_len(12_000).unwrap();
        expected.truncate(3_500);
        expected.resize(12_000, 0);
        assert_eq!(read(0, 12_000).unwrap(), expected);
        overlay.write(11_999, &[7]).unwrap();
        assert_eq!(read(11_998, 2).unwrap(), [0, 7]);
        assert_eq!(fs::read(&path).unwrap(), content);
    }
}
