//! Codecs of others, for comparison: each as lean as its format allows, so that the difference is the model's.

use std::io::{self, Read, Write};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use brotli::enc::BrotliEncoderParams;
use brotli::enc::backward_references::BrotliEncoderMode;
use ppmd_rust::{Ppmd7Decoder, Ppmd7Encoder};

use super::way::{Coder, Held, Told};
use crate::corpus;

/// The tag byte of what is none of our codecs. Its value is of no use here, its length is.
const TAG: u8 = 0xFF;

/// Brotli (RFC 7932) with the dictionary that is part of it, at its highest level. Its stream is taken as it is:
/// it knows its own end.
#[derive(Debug)]
pub(super) struct Brotli;

impl Brotli {
    const QUALITY: i32 = 11;
    /// 64 KiB: more than any content here, and the window with the shortest header, one bit.
    const WINDOW_LOG: i32 = 16;
}

impl Coder for Brotli {
    fn encode(&self, mut content: &[u8]) -> Result<Option<Vec<u8>>> {
        let parameters = BrotliEncoderParams {
            mode: BrotliEncoderMode::BROTLI_MODE_TEXT,
            quality: Self::QUALITY,
            lgwin: Self::WINDOW_LOG,
            large_window: false,
            size_hint: content.len(),
            ..BrotliEncoderParams::default()
        };
        let mut coded = vec![TAG];
        brotli::BrotliCompress(&mut content, &mut coded, &parameters)?;
        Ok(Some(coded))
    }

    fn decode(&self, coded: &[u8], _: Told) -> Result<Vec<u8>> {
        let mut content = Vec::new();
        brotli::BrotliDecompress(&mut coded.get(1..).unwrap_or_default(), &mut content)?;
        Ok(content)
    }

    fn held(&self, _: &[&[u8]]) -> Result<Held> {
        Ok(Held::default())
    }
}

/// PPMd variant H with the range coder of 7z, with or without a text that both ends have coded before.
///
/// A stream of it says neither how long it is nor how long its content was. An end mark costs more than the length, so
/// the length goes first. Of the stream, what is the same for every content is left out, and so are bytes at
/// its end that the decoder need not know.
///
/// The crate can neither copy nor save a model. So the text is coded again before each content, which takes its time
/// but not its bytes.
#[derive(Debug)]
pub(super) struct Ppmd {
    text: Vec<u8>,
    /// The start of every stream: what was written when the text had been coded.
    prefix: Vec<u8>,
    arena_bytes: u32,
}

impl Ppmd {
    const ORDER: u32 = 5;
    /// Where a model of every held-out batch fits: with four times as much, the sizes are the same.
    const ARENA_BYTES: u32 = 1 << 18;
    /// Where a model of every training file fits: with twice as much, the sizes are the same.
    const PRIMED_ARENA_BYTES: u32 = 1 << 22;
    /// The range coder ends with the low end of a range of at least 2^24, in four bytes: some number within the range
    /// has zeros in the last three of them, which a decoder can add itself.
    const LOOSE_BYTES: usize = 3;

    pub(super) fn new() -> Self {
        // The first byte of a stream is always 0.
        Self { text: Vec::new(), prefix: vec![0], arena_bytes: Self::ARENA_BYTES }
    }

    /// A coder that has coded the messages of `path` before, by turns twelve of them alone and twelve in a batch,
    /// so that it knows both.
    pub(super) fn primed(path: &Path) -> Result<Self> {
        const TURN: usize = 12;
        let mut text = Vec::new();
        for (turn, messages) in corpus::read_lines(path)?.chunks(TURN).enumerate() {
            let messages = messages.iter().map(String::as_str);
            if turn % 2 == 0 {
                text.extend(messages.flat_map(corpus::body));
            } else {
                text.extend(corpus::batch((turn * TURN) as u64 + 1, messages));
            }
        }
        let mut coder = Self { text, prefix: Vec::new(), arena_bytes: Self::PRIMED_ARENA_BYTES };
        coder.prefix = coder.ready_encoder()?.into_inner();
        ensure!(!coder.prefix.is_empty(), "{} is too short", path.display());
        Ok(coder)
    }

    fn ready_encoder(&self) -> Result<Ppmd7Encoder<Vec<u8>>> {
        let mut encoder = Ppmd7Encoder::new(Vec::new(), Self::ORDER, self.arena_bytes)?;
        encoder.write_all(&self.text)?;
        Ok(encoder)
    }
}

impl Coder for Ppmd {
    fn encode(&self, content: &[u8]) -> Result<Option<Vec<u8>>> {
        let mut encoder = self.ready_encoder()?;
        encoder.write_all(content)?;
        let stream = encoder.finish(false)?;
        let mut own =
            stream.strip_prefix(self.prefix.as_slice()).context("another start of the stream")?.to_vec();
        let loose = own.split_off(own.len().saturating_sub(Self::LOOSE_BYTES));
        if loose.iter().any(|&byte| byte != 0) {
            // Up to the next number that ends in zeros. It stays below the range's high end, so no carry leaves
            // these bytes.
            for byte in own.iter_mut().rev() {
                *byte = byte.wrapping_add(1);
                if *byte != 0 {
                    break;
                }
            }
        }
        while own.last() == Some(&0) {
            own.pop();
        }
        let mut coded = vec![TAG];
        corpus::push_varint(content.len() as u64, &mut coded);
        coded.extend_from_slice(&own);
        Ok(Some(coded))
    }

    fn decode(&self, coded: &[u8], _: Told) -> Result<Vec<u8>> {
        let mut rest = coded.get(1..).unwrap_or_default();
        let content_bytes = read_varint(&mut rest).context("no length")?;
        let stream = self.prefix.as_slice().chain(rest).chain(io::repeat(0));
        let mut decoder = Ppmd7Decoder::new(stream, Self::ORDER, self.arena_bytes)?;
        io::copy(&mut decoder.by_ref().take(self.text.len() as u64), &mut io::sink())?;
        let mut content = vec![0; content_bytes];
        decoder.read_exact(&mut content)?;
        Ok(content)
    }

    fn held(&self, _: &[&[u8]]) -> Result<Held> {
        Ok(Held { encode_bytes: self.text.len(), decode_bytes: self.prefix.len() })
    }
}

fn read_varint(bytes: &mut &[u8]) -> Option<usize> {
    let mut value = 0;
    for shift in (0..usize::BITS).step_by(7) {
        let byte = *bytes.split_off_first()?;
        value |= usize::from(byte & 0x7F) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_model_that_has_coded_the_same_kind_of_text_saves_half_of_the_message() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("before.txt");
        let lines: Vec<String> =
            (0..200).map(|n| format!("see you at eight, number {n}, by the bridge")).collect();
        fs::write(&path, lines.join("\n")).unwrap();
        let primed = Ppmd::primed(&path).unwrap();
        let content = corpus::body("see you at nine, by the other bridge");
        let coded = primed.encode(&content).unwrap().unwrap();
        assert_eq!(primed.decode(&coded, Told::of(&content)).unwrap(), content);
        let alone = Ppmd::new().encode(&content).unwrap().unwrap();
        assert!(coded.len() * 2 < alone.len(), "{} and {} bytes", coded.len(), alone.len());
    }

    #[test]
    fn what_is_left_out_at_the_end_of_a_stream_is_not_missed() {
        // Enough contents that some end in zeros, and some carry.
        let coder = Ppmd::new();
        let mut whole_bytes = 0;
        let mut own_bytes = 0;
        for number in 0..2_000_u32 {
            let content = blake3::hash(&number.to_le_bytes()).as_bytes()[..1 + number as usize % 9].to_vec();
            let coded = coder.encode(&content).unwrap().unwrap();
            assert_eq!(coder.decode(&coded, Told::of(&content)).unwrap(), content);
            let mut encoder = coder.ready_encoder().unwrap();
            encoder.write_all(&content).unwrap();
            whole_bytes += encoder.finish(false).unwrap().len();
            const TAG_AND_LENGTH: usize = 2;
            own_bytes += coded.len() - TAG_AND_LENGTH;
        }
        const LEFT_OUT: usize = 4;
        assert!(own_bytes <= whole_bytes - 2_000 * LEFT_OUT);
    }

    #[test]
    fn brotli_uses_the_dictionary_that_is_part_of_it() {
        let content = b"information about the development of the company";
        let coded = Brotli.encode(content).unwrap().unwrap();
        assert!(coded.len() < content.len() * 2 / 3, "{} bytes", coded.len());
        assert_eq!(Brotli.decode(&coded, Told::of(content)).unwrap(), content);
    }

    #[test]
    fn a_length_is_read_as_it_is_written() {
        for value in [0, 1, 127, 128, 16_383, 16_384, 200_000] {
            let mut bytes = Vec::new();
            corpus::push_varint(value, &mut bytes);
            assert_eq!(read_varint(&mut bytes.as_slice()), Some(value as usize));
            bytes.pop();
            assert_eq!(read_varint(&mut bytes.as_slice()), None);
        }
    }
}
