//! What is said waits until somebody reads it, and holds nothing else up meanwhile: a program that writes a request for each line that it
//! reads would otherwise wait for this one, and this one for it.

use std::collections::VecDeque;
use std::future::pending;
use std::io;

use thinpost_client::InboxNumber;
use tokio::io::{AsyncWrite, AsyncWriteExt};

/// While more bytes wait, no further request is to be read: some 10,000 answers.
const WAITING_BYTES_MAX: usize = 4 << 20;

struct Line {
    bytes: Vec<u8>,
    /// Of the message that it tells.
    number: Option<InboxNumber>,
}

/// Lines on their way to whoever reads them.
pub(super) struct Output<W> {
    writer: W,
    lines: VecDeque<Line>,
    waiting_bytes: usize,
    /// How much of the first line was written.
    written: usize,
}

impl<W: AsyncWrite + Unpin> Output<W> {
    pub(super) fn new(writer: W) -> Self {
        Self { writer, lines: VecDeque::new(), waiting_bytes: 0, written: 0 }
    }

    /// Adds a line; `number` is that of the message that it tells.
    pub(super) fn say(&mut self, line: &str, number: Option<InboxNumber>) {
        let bytes = [line.as_bytes(), b"\n"].concat();
        self.waiting_bytes += bytes.len();
        self.lines.push_back(Line { bytes, number });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    pub(super) fn has_room(&self) -> bool {
        self.waiting_bytes <= WAITING_BYTES_MAX
    }

    /// Writes the first line; the number of the message that it tells. Cancelling loses nothing. With no line it never ends.
    pub(super) async fn write(&mut self) -> io::Result<Option<InboxNumber>> {
        loop {
            let Some(line) = self.lines.front() else { return pending().await };
            let rest = &line.bytes[self.written..];
            if rest.is_empty() {
                break;
            }
            self.written += match self.writer.write(rest).await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                written => written,
            };
        }
        self.writer.flush().await?;
        self.waiting_bytes -= std::mem::take(&mut self.written);
        Ok(self.lines.pop_front().and_then(|line| line.number))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use tokio::io::AsyncReadExt;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_was_interrupted_goes_on_where_it_was() {
        let (writer, mut reader) = tokio::io::duplex(3);
        let mut output = Output::new(writer);
        output.say("first", None);
        output.say("second", Some(InboxNumber(7)));
        let mut read = Vec::new();
        let mut told = Vec::new();
        while !output.is_empty() {
            match timeout(Duration::from_millis(1), output.write()).await {
                Ok(written) => told.push(written.unwrap()),
                Err(_) => read.push(reader.read_u8().await.unwrap()),
            }
        }
        drop(output);
        reader.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, b"first\nsecond\n");
        assert_eq!(told, [None, Some(InboxNumber(7))]);
    }

    #[test]
    fn there_is_room_until_much_waits() {
        let mut output = Output::new(tokio::io::sink());
        output.say(&"x".repeat(WAITING_BYTES_MAX - 1), None);
        assert!(output.has_room());
        output.say("", None);
        assert!(!output.has_room());
    }
}
