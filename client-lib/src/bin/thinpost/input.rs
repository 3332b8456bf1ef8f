//! Standard input, files and signals.

use std::io::{self, Read};
use std::path::Path;

use crate::failure::{Failure, exit};

/// More than this is no message, bytes: one more than the longest would do.
const TEXT_BYTES_MAX: u64 = 1 << 20;

/// More is no list of messages, bytes.
const LINES_BYTES_MAX: u64 = 64 << 20;

pub(crate) const STDIN: &str = "standard input";

/// All of standard input as text, without the newline that ends it.
pub(crate) fn text() -> Result<String, Failure> {
    let mut bytes = Vec::new();
    io::stdin()
        .lock()
        .take(TEXT_BYTES_MAX)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::of_file(STDIN, &error))?;
    let mut text = match String::from_utf8(bytes) {
        Ok(text) => text,
        // Cut in the middle of a character: it is no message for its length.
        Err(error)
            if error.as_bytes().len() as u64 == TEXT_BYTES_MAX
                && error.utf8_error().error_len().is_none() =>
        {
            String::from_utf8_lossy(error.as_bytes()).into_owned()
        }
        Err(error) => return Err(Failure::not_text(STDIN, error.utf8_error())),
    };
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
    let is_stdin = path.as_os_str() == "-";
    let name = if is_stdin { STDIN.into() } else { path.to_string_lossy() };
    let mut bytes = Vec::new();
    let bound = LINES_BYTES_MAX + 1;
    let read = if is_stdin {
        io::stdin().lock().take(bound).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(bound).read_to_end(&mut bytes))
    };
    read.map_err(|error| Failure::of_file(&name, &error))?;
    if bytes.len() as u64 == bound {
        return Err(Failure::new(exit::DATA, format!("{name}: more than {LINES_BYTES_MAX} bytes of lines")));
    }
    let text = utf8(&name, bytes)?;
    Ok(text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect())
}

fn utf8(name: &str, bytes: Vec<u8>) -> Result<String, Failure> {
    String::from_utf8(bytes).map_err(|error| Failure::not_text(name, error.utf8_error()))
}

/// Completes when the process is asked to end.
pub(crate) async fn asked_to_end() -> Result<(), Failure> {
    let of_signals = |error: io::Error| Failure::of_file("signals", &error);
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate()).map_err(of_signals)?;
        let mut hang_up = signal(SignalKind::hangup()).map_err(of_signals)?;
        tokio::select! {
            biased;
            interrupted = tokio::signal::ctrl_c() => interrupted.map_err(of_signals),
            _ = terminate.recv() => Ok(()),
            _ = hang_up.recv() => Ok(()),
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await.map_err(of_signals)
}
