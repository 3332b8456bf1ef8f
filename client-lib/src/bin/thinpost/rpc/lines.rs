//! Lines of bounded length from a stream.

use std::io;

use tokio::io::{AsyncBufRead, AsyncBufReadExt};

/// A line, without the newline that ends it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// All of it.
    Whole(Vec<u8>),
    /// It was longer than allowed, and was skipped.
    TooLong,
}

/// Reads lines; what is held never exceeds the bound.
pub(super) struct Lines<R> {
    reader: R,
    bytes_max: usize,
    line: Vec<u8>,
    skipping: bool,
}

impl<R: AsyncBufRead + Unpin> Lines<R> {
    pub(super) fn new(reader: R, bytes_max: usize) -> Self {
        Self { reader, bytes_max, line: Vec::new(), skipping: false }
    }

    /// The next line; none at the end. A last line without newline counts. Cancelling loses nothing.
    pub(super) async fn next(&mut self) -> io::Result<Option<Line>> {
        loop {
            let buffer = self.reader.fill_buf().await?;
            let end = buffer.iter().position(|byte| *byte == b'\n');
            let taken = &buffer[..end.unwrap_or(buffer.len())];
            let is_over = end.is_some() || buffer.is_empty();
            if !self.skipping && self.line.len() + taken.len() <= self.bytes_max {
                self.line.extend_from_slice(taken);
            } else {
                self.skipping = true;
                self.line = Vec::new();
            }
            let consumed = taken.len() + usize::from(end.is_some());
            let is_last = buffer.is_empty();
            self.reader.consume(consumed);
            if !is_over {
                continue;
            }
            let line = std::mem::take(&mut self.line);
            return Ok(match (std::mem::take(&mut self.skipping), is_last && line.is_empty()) {
                (true, _) => Some(Line::TooLong),
                (false, true) => None,
                (false, false) => Some(Line::Whole(line)),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::BufReader;

    use super::*;

    #[tokio::test]
    async fn long_lines_are_skipped_and_short_ones_come_whole() {
        let input = format!("one\n\n{}\ntwo\nthree", "x".repeat(50));
        for buffer in [1, 3, 100] {
            let mut lines = Lines::new(BufReader::with_capacity(buffer, input.as_bytes()), 10);
            let mut found = Vec::new();
            while let Some(line) = lines.next().await.unwrap() {
                found.push(line);
            }
            let whole = |text: &str| Line::Whole(text.into());
            assert_eq!(found, [whole("one"), whole(""), Line::TooLong, whole("two"), whole("three")]);
        }
    }
}
