//! Pages with checks: what a disk has changed by itself is an error, and never an answer.
//!
//! redb keeps checksums too, and compares them only while it repairs a file. A bit that flips in a cursor, in a key or in a page's
//! pointer would otherwise be believed; decision 0023 has the figures.
//!
//! # Layout
//!
//! The file is made of pages of 4,096 bytes. In front of each 512 pages of the database stands one with their checks, 8 bytes each: the
//! first of the BLAKE3 of the page's number and content, and zeros for a page that was never written.
//!
//! The database's first page is the only one that is written over while it counts, so its check is written with it: the database uses
//! less than 504 bytes of it, and the check stands in the 8 after those, in the same sector. In its place among the checks stands
//! what this file is.
//!
//! Every other page counts once it was synced, and with it its check: after a crash, what does not fit its check is a page that
//! nothing leads to.

use std::fmt;
use std::io;
use std::ops::{Bound, Range};
use std::sync::{Arc, OnceLock};

use redb::{BackendError, StorageBackend};

/// Bytes of a page, as redb has them.
pub(crate) const PAGE_BYTES: usize = 4_096;

/// Pages of the database behind one page of checks.
const GROUP_PAGES: u64 = (PAGE_BYTES / CHECK_BYTES) as u64;

const CHECK_BYTES: usize = 8;

/// What of the first page is written at a time, bytes: a sector, which is on disk or is not.
const HEAD_BYTES: usize = 512;

/// What stands where the first page's check would.
const MAGIC: [u8; CHECK_BYTES] = *b"TPdisk\x00\x01";

/// A page that is not what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DamagedPage {
    /// Which of the database's, from 0.
    pub page: u64,
}

impl fmt::Display for DamagedPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "page {} is not what was written", self.page)
    }
}

impl std::error::Error for DamagedPage {}

impl DamagedPage {
    /// What is behind an error, if it is this.
    pub fn of(error: &io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref().copied()
    }
}

/// The first read that failed. Whoever asked is told, and everybody else is told by redb that something had failed before.
#[derive(Clone, Debug, Default)]
pub(crate) struct FailedRead(Arc<OnceLock<Failure>>);

#[derive(Debug)]
enum Failure {
    Damaged(DamagedPage),
    Other(io::ErrorKind, String),
}

impl FailedRead {
    fn note(&self, error: &io::Error) {
        self.0.get_or_init(|| match DamagedPage::of(error) {
            Some(page) => Failure::Damaged(page),
            None => Failure::Other(error.kind(), error.to_string()),
        });
    }

    pub(crate) fn error(&self) -> Option<io::Error> {
        Some(match self.0.get()? {
            Failure::Damaged(page) => io::Error::other(*page),
            Failure::Other(kind, what) => io::Error::new(*kind, what.clone()),
        })
    }
}

/// A backend with checks.
#[derive(Debug)]
pub(crate) struct Checked<B> {
    backend: B,
    failed_read: FailedRead,
}

impl<B: StorageBackend> Checked<B> {
    /// Opens what is on a backend, or begins on an empty one.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] where something else is on it, [`DamagedPage`] where it is only the beginning that is
    /// something else, and the backend's.
    pub(crate) fn new(backend: B) -> io::Result<Self> {
        let is_empty = backend.len()? == 0;
        let checked = Self { backend, failed_read: FailedRead::default() };
        if !is_empty {
            let mut magic = [0; CHECK_BYTES];
            let is_long_enough = match checked.backend.read(0, &mut magic) {
                Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => return Err(error),
                read => read.is_ok(),
            };
            // A crash may have left a file that is longer, and nothing in it.
            if !is_long_enough || (magic != MAGIC && magic != [0; CHECK_BYTES]) {
                return Err(checked.not_ours());
            }
        }
        Ok(checked)
    }

    /// Why what does not begin like ours is refused: a head that fits its check is.
    fn not_ours(&self) -> io::Error {
        let mut head = [0; HEAD_BYTES];
        let is_ours = self.read_head(0..HEAD_BYTES, &mut head).is_ok() && head != [0; HEAD_BYTES];
        if is_ours {
            return damaged(0);
        }
        io::Error::new(io::ErrorKind::InvalidData, "it does not begin like a database of ours")
    }

    /// What becomes of reads from here on.
    pub(crate) fn failed_read(&self) -> FailedRead {
        self.failed_read.clone()
    }

    fn read_checked(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if offset + out.len() as u64 <= PAGE_BYTES as u64 {
            let at = offset as usize;
            return self.read_head(at..at + out.len(), out);
        }
        for (first, of) in Self::runs(offset, out.len())? {
            let mut out = &mut out[of];
            let mut first = first;
            if first == 0 {
                let (head, rest) = out.split_at_mut(PAGE_BYTES);
                self.read_head(0..PAGE_BYTES, head)?;
                (first, out) = (1, rest);
            }
            self.read_pages(first, out)?;
        }
        Ok(())
    }

    /// Reads part of the first page.
    fn read_head(&self, within: Range<usize>, out: &mut [u8]) -> io::Result<()> {
        let mut head = [0; HEAD_BYTES];
        self.backend.read(place(0), &mut head)?;
        let (content, check) = head.split_at(HEAD_BYTES - CHECK_BYTES);
        let is_written = head.iter().any(|byte| *byte != 0);
        if is_written && *check != check_of(0, content) {
            return Err(damaged(0));
        }
        out.fill(0);
        let known = within.start.min(content.len())..within.end.min(content.len());
        out[..known.len()].copy_from_slice(&content[known]);
        Ok(())
    }

    fn write_head(&self, at: usize, bytes: &[u8]) -> io::Result<()> {
        let mut head = [0; HEAD_BYTES];
        let content = &mut head[..HEAD_BYTES - CHECK_BYTES];
        self.read_head(0..content.len(), content)?;
        let place_in_head = content.get_mut(at..at + bytes.len());
        // redb's header is shorter; the rest of its page stays empty.
        place_in_head.ok_or(io::ErrorKind::InvalidInput)?.copy_from_slice(bytes);
        let check = check_of(0, content);
        head[HEAD_BYTES - CHECK_BYTES..].copy_from_slice(&check);
        self.backend.write(place(0), &head)
    }

    /// Reads whole pages of one group, none of them the first.
    fn read_pages(&self, first: u64, out: &mut [u8]) -> io::Result<()> {
        let mut checks = vec![0; out.len() / PAGE_BYTES * CHECK_BYTES];
        self.backend.read(place(first), out)?;
        self.backend.read(place_of_check(first), &mut checks)?;
        let pages = out.chunks(PAGE_BYTES).zip(checks.chunks(CHECK_BYTES));
        for (page, (content, check)) in (first..).zip(pages) {
            let fits = match check {
                [0, 0, 0, 0, 0, 0, 0, 0] => content.iter().all(|byte| *byte == 0),
                check => *check == check_of(page, content),
            };
            if !fits {
                return Err(damaged(page));
            }
        }
        Ok(())
    }

    fn write_pages(&self, first: u64, content: &[u8]) -> io::Result<()> {
        let pages = (first..).zip(content.chunks(PAGE_BYTES));
        let checks: Vec<u8> = pages.flat_map(|(page, content)| check_of(page, content)).collect();
        self.backend.write(place(first), content)?;
        self.backend.write(place_of_check(first), &checks)
    }

    /// Each run of pages that lie together in the file, and which of `bytes` bytes from `offset` on those are.
    fn runs(offset: u64, bytes: usize) -> io::Result<impl Iterator<Item = (u64, Range<usize>)>> {
        let page = PAGE_BYTES as u64;
        let is_whole = offset.is_multiple_of(page) && bytes.is_multiple_of(PAGE_BYTES);
        if !is_whole {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "pages are read and written whole"));
        }
        let (mut next, end) = (offset / page, offset / page + (bytes / PAGE_BYTES) as u64);
        let first = next;
        Ok(std::iter::from_fn(move || {
            let run_end = end.min((next / GROUP_PAGES + 1) * GROUP_PAGES);
            let run = (next < end).then(|| {
                let of = |page| (page - first) as usize * PAGE_BYTES;
                (next, of(next)..of(run_end))
            });
            next = run_end;
            run
        }))
    }
}

impl<B: StorageBackend> StorageBackend for Checked<B> {
    fn len(&self) -> io::Result<u64> {
        let pages = self.backend.len()? / PAGE_BYTES as u64;
        Ok((pages - pages.div_ceil(GROUP_PAGES + 1)) * PAGE_BYTES as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        // Noted before redb is told: who is told of it by redb finds it here.
        self.read_checked(offset, out).inspect_err(|error| self.failed_read.note(error))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        if !len.is_multiple_of(PAGE_BYTES as u64) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a file is of whole pages"));
        }
        let (before, pages) = (self.len()? / PAGE_BYTES as u64, len / PAGE_BYTES as u64);
        self.backend.set_len((pages + pages.div_ceil(GROUP_PAGES)) * PAGE_BYTES as u64)?;
        if before == 0 && pages > 0 {
            self.backend.write(0, &MAGIC)?;
        }
        // Of those that went and may come again.
        let stale = pages..before.min(pages.next_multiple_of(GROUP_PAGES));
        if !stale.is_empty() {
            let checks = vec![0; (stale.end - stale.start) as usize * CHECK_BYTES];
            self.backend.write(place_of_check(stale.start), &checks)?;
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.backend.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if offset < PAGE_BYTES as u64 {
            return self.write_head(offset as usize, data);
        }
        for (first, of) in Self::runs(offset, data.len())? {
            self.write_pages(first, &data[of])?;
        }
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.backend.close()
    }

    // Locks are on places that no file reaches, and mean the same to every backend.

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.backend.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.backend.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.backend.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.backend.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.backend.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.backend.query_lock_range(start, end)
    }
}

/// Where a page of the database is.
fn place(page: u64) -> u64 {
    (page + page / GROUP_PAGES + 1) * PAGE_BYTES as u64
}

/// Where its check is.
fn place_of_check(page: u64) -> u64 {
    let group = page / GROUP_PAGES * (GROUP_PAGES + 1) * PAGE_BYTES as u64;
    group + page % GROUP_PAGES * CHECK_BYTES as u64
}

fn check_of(page: u64, content: &[u8]) -> [u8; CHECK_BYTES] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&page.to_le_bytes()).update(content);
    let mut check = [0; CHECK_BYTES];
    hasher.finalize_xof().fill(&mut check);
    // Zeros say that there is nothing.
    if check == [0; CHECK_BYTES] { [0xff; CHECK_BYTES] } else { check }
}

fn damaged(page: u64) -> io::Error {
    io::Error::other(DamagedPage { page })
}

#[cfg(test)]
mod tests;
