//! Standard input, files and signals.

use std::io::{self, BufRead, Read};
use std::path::Path;

use crate::failure::Failure;

/// More than this is no message, bytes: one more than the longest would do.
const TEXT_BYTES_MAX: u64 = 1 << 20;

/// All of standard input as text, without the newline that ends it.
pub(crate) fn text() -> Result<String, Failure> {
    let mut text = String::new();
    io::stdin()
        .lock()
        .take(TEXT_BYTES_MAX)
        .read_to_string(&mut text)
        .map_err(|error| Failure::of_file("standard input", &error))?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}

/// The lines of a file, or of standard input for `-`, that are not empty.
pub(crate) fn lines(path: &Path) -> Result<Vec<String>, Failure> {
    let of_file = |error: io::Error| Failure::of_file(path.display(), &error);
    let reader: Box<dyn BufRead> = if path.as_os_str() == "-" {
        Box::new(io::stdin().lock())
    } else {
        Box::new(io::BufReader::new(std::fs::File::open(path).map_err(of_file)?))
    };
    let lines = reader.lines().filter(|line| line.as_ref().map_or(true, |line| !line.is_empty()));
    lines.collect::<Result<_, _>>().map_err(of_file)
}

/// Completes when the process is asked to end.
pub(crate) async fn asked_to_end() -> io::Result<()> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hang_up = signal(SignalKind::hangup())?;
        tokio::select! {
            biased;
            interrupted = tokio::signal::ctrl_c() => interrupted,
            _ = terminate.recv() => Ok(()),
            _ = hang_up.recv() => Ok(()),
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await
}
