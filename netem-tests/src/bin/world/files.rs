//! The files that packets are written to.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use thinpost_netem::Trace;
use thinpost_netem::capture::{Capture, line};

/// The first failure is kept until the end.
pub(crate) struct Files {
    trace: Option<BufWriter<File>>,
    pcap: Option<Capture<BufWriter<File>>>,
    failure: Option<io::Error>,
}

impl Files {
    pub(crate) fn create(trace: Option<&Path>, pcap: Option<&Path>) -> io::Result<Self> {
        let create = |path: &Path| match File::create(path) {
            Ok(file) => Ok(BufWriter::new(file)),
            Err(error) => Err(io::Error::other(format!("{}: {error}", path.display()))),
        };
        let trace = trace.map(create).transpose()?;
        let pcap = pcap.map(|path| Capture::new(create(path)?)).transpose()?;
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
        let flushed = self.trace.as_mut().map_or(Ok(()), BufWriter::flush);
        let pcap = self.pcap.take().map_or(Ok(()), Capture::finish);
        self.failure.take().map_or(Ok(()), Err).and(flushed).and(pcap)
    }
}
