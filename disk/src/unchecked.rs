//! Files from before pages had checks: what redb writes by itself.

use std::fs::{File, TryLockError};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use redb::backends::FileBackend;
use redb::{DatabaseError, StorageBackend, StorageError};

use crate::checked::{Checked, PAGE_BYTES};
use crate::files;

/// What such a file begins with.
const MAGIC: &[u8] = b"redb\x1a\x0a\xa9\x0d\x0a";

/// What redb uses of its first page: 64 bytes and two slots of 128 bytes.
const REDB_HEAD_BYTES: usize = 320;

/// Pages that are copied at a time.
const PAGES_AT_A_TIME: usize = 256;

/// Whether it is one.
pub(crate) fn is_unchecked(file: &File) -> io::Result<bool> {
    let mut beginning = Vec::new();
    let mut file = file;
    file.seek(SeekFrom::Start(0))?;
    file.take(MAGIC.len() as u64).read_to_end(&mut beginning)?;
    Ok(beginning == MAGIC)
}

/// Puts a copy with checks in its place; until then it stays as it is.
pub(crate) fn add_checks(file: &File, path: &Path) -> Result<(), DatabaseError> {
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(DatabaseError::DatabaseAlreadyOpen),
        Err(TryLockError::Error(error)) => return Err(StorageError::Io(error).into()),
    }
    // Another process has done so between the opening of the file and this, and works with what took its place.
    if !files::is_at(file, path).map_err(StorageError::Io)? {
        return Err(DatabaseError::DatabaseAlreadyOpen);
    }
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".checked");
    let unfinished = Path::new(&unfinished);
    files::remove(unfinished).map_err(StorageError::Io)?;
    let copy = files::create_private(unfinished).map_err(StorageError::Io)?;
    let copy = Checked::new(FileBackend::new(copy)?).map_err(StorageError::Io)?;
    copy_pages(file, &copy).map_err(StorageError::Io)?;
    copy.close().map_err(StorageError::Io)?;
    Ok(files::rename(unfinished, path).map_err(StorageError::Io)?)
}

fn copy_pages(mut file: &File, copy: &impl StorageBackend) -> io::Result<()> {
    let len = file.metadata()?.len();
    let pages = len.div_ceil(PAGE_BYTES as u64);
    copy.set_len(pages * PAGE_BYTES as u64)?;
    file.seek(SeekFrom::Start(0))?;
    let mut buffer = Vec::new();
    let mut at = 0;
    while at < len {
        buffer.clear();
        file.take((PAGES_AT_A_TIME * PAGE_BYTES) as u64).read_to_end(&mut buffer)?;
        // Cut short by a crash while it grew.
        buffer.resize(buffer.len().next_multiple_of(PAGE_BYTES), 0);
        if at == 0 {
            let (head, rest) = buffer.split_at(PAGE_BYTES);
            copy.write(0, &head[..REDB_HEAD_BYTES])?;
            copy.write(PAGE_BYTES as u64, rest)?;
        } else {
            copy.write(at, &buffer)?;
        }
        at += buffer.len() as u64;
    }
    copy.sync_data()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use redb::{ReadableDatabase, ReadableTableMetadata, TableDefinition};

    use super::*;
    use crate::Database;

    const ROWS: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("rows");

    #[test]
    fn a_file_from_before_gets_its_checks_and_keeps_what_it_holds() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let open = |recognised| Database::open_file(&path, 0, |_| recognised);
        let before = redb::Database::create(&path).unwrap();
        let write = before.begin_write().unwrap();
        for row in 0..2_000 {
            write.open_table(ROWS).unwrap().insert(row, [row as u8; 1_500].as_slice()).unwrap();
        }
        write.commit().unwrap();
        assert!(matches!(open(Ok(())), Err(DatabaseError::DatabaseAlreadyOpen)));
        assert_eq!(before.begin_read().unwrap().open_table(ROWS).unwrap().len().unwrap(), 2_000);
        drop(before);
        let content = std::fs::read(&path).unwrap();
        assert!(matches!(open(Err(DatabaseError::RepairAborted)), Err(DatabaseError::RepairAborted)));
        assert!(std::fs::read(&path).unwrap() == content, "what is not recognised stays as it is");
        for _ in 0..2 {
            let after = open(Ok(())).unwrap();
            let rows = after.begin_read().unwrap().open_table(ROWS).unwrap();
            let count = rows
                .range::<u64>(..)
                .unwrap()
                .filter(|row| row.as_ref().unwrap().1.value().len() == 1_500)
                .count();
            assert_eq!(count, 2_000);
        }
        assert!(!is_unchecked(&File::open(&path).unwrap()).unwrap());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left over");
    }
}
