//! The files that packets are written to.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use thinpost_netem::Trace;
use thinpost_netem::capture::{Capture, line};

/// The first failure is kept until the end.
pub(crate) struct Files {
    trace: Option<NamedFile>,
    pcap: Option<Capture<NamedFile>>,
    failure: Option<io::Error>,
}

impl Files {
    pub(crate) fn create(trace: Option<&Path>, pcap: Option<&Path>) -> io::Result<Self> {
        let trace = trace.map(NamedFile::create).transpose()?;
        let pcap = pcap.map(|path| Capture::new(NamedFile::create(path)?)).transpose()?;
        Ok(Self { trace, pcap, failure: None })
    }

    pub(crate) fn are_wanted(&self) -> bool {
        self.trace.is_some() || self.pcap.is_some()
    }

    pub(crate) fn record(&mut self, trace: &Trace) {
        let lines = self.trace.as_mut().map_or(Ok(()), |file| writeln!(file, "{}", line(trace)));
        let packets = self.pcap.as_mut().map_or(Ok(()), |pcap| pcap.record(trace));
        if let Err(error) = lines.and(packets) {
            self.failure.get_or_insert(error);
        }
    }

    pub(crate) fn finish(&mut self) -> io::Result<()> {
        let flushed = self.trace.as_mut().map_or(Ok(()), NamedFile::flush);
        let pcap = self.pcap.take().map_or(Ok(()), Capture::finish);
        self.failure.take().map_or(Ok(()), Err).and(flushed).and(pcap)
    }
}

/// A file whose errors say which it is.
#[derive(Debug)]
struct NamedFile {
    path: PathBuf,
    file: BufWriter<File>,
}

impl NamedFile {
    fn create(path: &Path) -> io::Result<Self> {
        let file = File::create(path).map_err(|error| named(path, &error))?;
        Ok(Self { path: path.to_owned(), file: BufWriter::new(file) })
    }
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

impl Write for NamedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes).map_err(|error| named(&self.path, &error))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush().map_err(|error| named(&self.path, &error))
    }
}
