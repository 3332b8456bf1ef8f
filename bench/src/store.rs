//! `bench store`: what a durable commit costs at a file's size, and how soon the file is open again after a kill, for the ways in
//! which a commit can be made; and how soon a relay's own store is, which has a bar.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use redb::backends::FileBackend;
use redb::{
    Builder, ReadableDatabase, ReadableTableMetadata, StorageBackend, TableDefinition, WriteTransaction,
};
use thinpost_disk::Database;

use self::reopening::reopen;
use crate::report::{Report, Row};

mod reopening;

const ROWS: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("rows");

/// Bytes of a row that the file is filled with.
const FILLING_BYTES: usize = 60_000;

/// Bytes of a row whose commit is measured: an envelope.
const ENVELOPE_BYTES: usize = 1_000;

/// Commits with so many envelopes each: what is measured, and how often.
const GROUPS: [(u64, u32); 2] = [(1, 100), (64, 50)];

/// Measures durable commits into a large file, and its reopening after a kill
#[derive(Args, Debug)]
pub(crate) struct StoreArgs {
    /// Sizes of the file, MiB
    #[arg(long, value_name = "MIB", num_args = 1.., default_values_t = [16, 1_024], value_parser = clap::value_parser!(u64).range(1..=65_536))]
    sizes: Vec<u64>,
    /// Folder on the disk to measure; by default the system's for temporary files
    #[arg(long, value_name = "DIR")]
    folder: Option<std::path::PathBuf>,
}

/// How a commit is made.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// In two phases; a repair walks through the file.
    TwoPhases,
    /// The map of free pages is written with it ("quick repair").
    Quick,
    /// The same with checks of pages: what Thinpost does.
    Checked,
}

const WAYS: [Way; 3] = [Way::TwoPhases, Way::Quick, Way::Checked];

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::TwoPhases => "two phases, repair when opened",
            Self::Quick => "quick repair",
            Self::Checked => "quick repair, checks (ours)",
        }
    }
}

/// A database either way.
enum Db {
    Bare(redb::Database, Way),
    Checked(Database),
}

impl Db {
    fn open(path: &Path, way: Way, count: &Arc<Count>) -> Result<Self> {
        let mut options = File::options();
        let file = options.read(true).write(true).create(true).truncate(false).open(path)?;
        let backend = Counted { backend: FileBackend::new(file)?, count: count.clone() };
        Ok(match way {
            Way::Checked => Self::Checked(Database::open(backend, CACHE_BYTES)?),
            way => Self::Bare(Builder::new().set_cache_size(CACHE_BYTES).create_with_backend(backend)?, way),
        })
    }

    fn begin_write(&self) -> Result<WriteTransaction> {
        Ok(match self {
            Self::Checked(db) => db.begin_write()?,
            Self::Bare(db, way) => {
                let mut write = db.begin_write()?;
                write.set_two_phase_commit(true);
                write.set_quick_repair(matches!(way, Way::Quick));
                write
            }
        })
    }

    fn rows(&self) -> Result<u64> {
        let read = match self {
            Self::Checked(db) => db.begin_read()?,
            Self::Bare(db, _) => db.begin_read()?,
        };
        Ok(read.open_table(ROWS)?.len()?)
    }
}

/// As the relay's.
const CACHE_BYTES: usize = 16 << 20;

#[derive(Debug, Default)]
struct Count {
    read: AtomicU64,
    written: AtomicU64,
}

/// A backend that counts bytes.
#[derive(Debug)]
struct Counted {
    backend: FileBackend,
    count: Arc<Count>,
}

impl StorageBackend for Counted {
    fn len(&self) -> io::Result<u64> {
        self.backend.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.count.read.fetch_add(out.len() as u64, Ordering::Relaxed);
        self.backend.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.backend.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.backend.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.count.written.fetch_add(data.len() as u64, Ordering::Relaxed);
        self.backend.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.backend.close()
    }
}

pub(crate) fn run(args: &StoreArgs, report: &mut Report) -> Result<()> {
    let folder = match &args.folder {
        Some(folder) => tempfile::tempdir_in(folder).with_context(|| folder.display().to_string())?,
        None => tempfile::tempdir()?,
    };
    let mut slow = Vec::new();
    for size in &args.sizes {
        for way in WAYS {
            let path = folder.path().join("store");
            measure(&path, way, *size, report)?;
            fs::remove_file(&path)?;
        }
        slow.extend(reopen(folder.path(), *size, report)?);
    }
    ensure!(slow.is_empty(), "{}", slow.join("; "));
    Ok(())
}

fn measure(path: &Path, way: Way, size_mib: u64, report: &mut Report) -> Result<()> {
    let count = Arc::new(Count::default());
    let db = Db::open(path, way, &count)?;
    let mut next = 0;
    while fs::metadata(path)?.len() < size_mib << 20 {
        put(&db, next..next + 256, FILLING_BYTES)?;
        next += 256;
    }
    let row = |metric: &str, value, unit| {
        Row::new("store", metric, value, unit).scenario(format!("{size_mib} MiB")).mode(way.name())
    };
    for (envelopes, times) in GROUPS {
        let before = count.written.load(Ordering::Relaxed);
        let mut took = Vec::new();
        for _ in 0..times {
            let began = Instant::now();
            put(&db, next..next + envelopes, ENVELOPE_BYTES)?;
            took.push(began.elapsed());
            next += envelopes;
        }
        let written = (count.written.load(Ordering::Relaxed) - before) as f64 / f64::from(times);
        let what = format!("commit of {envelopes}");
        report.row(row(&format!("{what}, median"), milliseconds(median(took)), "ms"))?;
        report.row(row(&format!("{what}, written"), written, "B"))?;
    }
    // Another process would find the file like this.
    let killed = path.with_extension("killed");
    fs::copy(path, &killed)?;
    let count = Arc::new(Count::default());
    let began = Instant::now();
    let reopened = Db::open(&killed, way, &count)?;
    let took = began.elapsed();
    let rows = reopened.rows()?;
    ensure!(rows == next, "{rows} rows of {next} are there");
    report.row(row("reopened after a kill", milliseconds(took), "ms"))?;
    report.row(row("read for it", count.read.load(Ordering::Relaxed) as f64, "B"))?;
    drop(reopened);
    Ok(fs::remove_file(&killed)?)
}

fn put(db: &Db, rows: std::ops::Range<u64>, bytes: usize) -> Result<()> {
    let write = db.begin_write()?;
    {
        let mut table = write.open_table(ROWS)?;
        let mut body = vec![0; bytes];
        for row in rows {
            body.fill(row as u8 | 1);
            table.insert(row, body.as_slice())?;
        }
    }
    Ok(write.commit()?)
}

fn median(mut took: Vec<Duration>) -> Duration {
    took.sort_unstable();
    took[took.len() / 2]
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}
