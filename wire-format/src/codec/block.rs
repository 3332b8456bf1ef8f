//! One zstd block at a time, through pooled contexts of bounded size.
//!
//! The zstd library speaks whole frames: the encoder's frame is stripped to its only block, and the
//! decoder is given that block behind a header made here, so an input can never ask for a window, a
//! second block or a second frame.

use std::sync::Mutex;
use std::sync::PoisonError;

use zstd::zstd_safe::zstd_sys::ZSTD_ErrorCode;
use zstd::zstd_safe::{
    self, CCtx, CDict, CParameter, DCtx, DDict, DictAttachPref, ParamSwitch, ResetDirective,
};

use super::{BLOCK_CONTENT_BYTES_MAX, CodecError};

/// Above level 16 nothing is gained on texts (docs/decisions/0003).
pub(crate) const LEVEL: i32 = 19;

/// Search tables where there is no dictionary, log2 of entries: 192 KiB where the level alone would take
/// 1.5 MiB for the longest content. With a dictionary, the level and the content's length decide.
const PLAIN_HASH_LOG: u32 = 14;
const PLAIN_CHAIN_LOG: u32 = 15;

/// A context that a long content has grown beyond this is dropped rather than kept.
const IDLE_CONTEXT_BYTES_MAX: usize = 512 * 1024;

/// Contexts kept for the next call, each way. More threads than this at once make their own for a while.
const IDLE_CONTEXTS_MAX: usize = 4;

/// Starts every frame (RFC 8878, section 3.1.1).
const MAGIC: [u8; 4] = 0xFD2F_B528_u32.to_le_bytes();
/// Frame header descriptor: no content size, no checksum, no dictionary id.
const FRAME_DESCRIPTOR: u8 = 0;
/// Window descriptor of 128 KiB (RFC 8878, section 3.1.1.1.2), so that a block may be as long as any.
const WINDOW_DESCRIPTOR: u8 = (17 - 10) << 3;
const WINDOW_DESCRIPTOR_AT: usize = 5;
const HEADERS_BYTES: usize = 9;
/// Block header, lowest bits: last block, type "compressed".
const LAST_COMPRESSED: u32 = 1 | 2 << 1;

static ENCODERS: Pool<CCtx<'static>> = Pool::new();
static DECODERS: Pool<DCtx<'static>> = Pool::new();

/// Appends the only block of `content` to `out`; false, and nothing appended, where zstd made none that
/// is shorter than the content.
pub(super) fn compress(
    dictionary: Option<&'static CDict<'static>>,
    content: &[u8],
    out: &mut Vec<u8>,
) -> bool {
    let Some(mut context) = ENCODERS.take().or_else(new_encoder) else { return false };
    let frame = compress_frame(&mut context, dictionary, content);
    // A failed frame stays open; only a clean context goes back.
    let clean = frame.is_ok() || context.reset(ResetDirective::SessionOnly).is_ok();
    if clean && context.sizeof() <= IDLE_CONTEXT_BYTES_MAX {
        ENCODERS.give(context);
    }
    let Ok(frame) = frame else { return false };
    let block = only_block(&frame);
    out.extend_from_slice(block.unwrap_or_default());
    block.is_some()
}

fn compress_frame(
    context: &mut CCtx<'static>,
    dictionary: Option<&'static CDict<'static>>,
    content: &[u8],
) -> Result<Vec<u8>, zstd_safe::ErrorCode> {
    match dictionary {
        Some(dictionary) => context.ref_cdict(dictionary)?,
        None => context.disable_dictionary()?,
    };
    // With so little room zstd gives up early on what it cannot shorten.
    let mut frame = Vec::with_capacity(content.len() + HEADERS_BYTES);
    context.compress2(&mut frame, content)?;
    Ok(frame)
}

/// Decodes one block of at most `decoded_max` bytes of content.
pub(super) fn decompress(
    dictionary: Option<&'static DDict<'static>>,
    block: &[u8],
    decoded_max: usize,
) -> Result<Vec<u8>, CodecError> {
    if block.len() > BLOCK_CONTENT_BYTES_MAX {
        return Err(CodecError::Corrupt);
    }
    let mut context = DECODERS.take().unwrap_or_default();
    let frame = [&headers(block.len()), block].concat();
    let mut content = Vec::with_capacity(decoded_max.min(BLOCK_CONTENT_BYTES_MAX));
    let selected = match dictionary {
        Some(dictionary) => context.ref_ddict(dictionary),
        None => context.disable_dictionary(),
    };
    let read = selected.and_then(|_| context.decompress(&mut content, &frame));
    if read.is_ok() || context.reset(ResetDirective::SessionOnly).is_ok() {
        DECODERS.give(context);
    }
    match read {
        Ok(_) => {
            content.shrink_to_fit();
            Ok(content)
        }
        Err(code) if zstd_safe::is_error_kind(code, ZSTD_ErrorCode::ZSTD_error_dstSize_tooSmall) => {
            Err(CodecError::TooLong { max: decoded_max })
        }
        Err(_) => Err(CodecError::Corrupt),
    }
}

/// The body of the frame's only block, or `None` if zstd wrote several blocks or left it uncompressed.
fn only_block(frame: &[u8]) -> Option<&[u8]> {
    let (found, block) = frame.split_at_checked(HEADERS_BYTES)?;
    let mut wanted = headers(block.len());
    // The window is the encoder's to choose: a block's content never reaches beyond ours.
    wanted[WINDOW_DESCRIPTOR_AT] = found[WINDOW_DESCRIPTOR_AT];
    (found == wanted).then_some(block)
}

/// Frame header and block header of a frame whose only block is `block_bytes` long (at most 128 KiB).
fn headers(block_bytes: usize) -> [u8; HEADERS_BYTES] {
    let size = u32::try_from(block_bytes).unwrap_or(u32::MAX);
    let [low, middle, high, _] = (size << 3 | LAST_COMPRESSED).to_le_bytes();
    let [magic0, magic1, magic2, magic3] = MAGIC;
    [magic0, magic1, magic2, magic3, FRAME_DESCRIPTOR, WINDOW_DESCRIPTOR, low, middle, high]
}

fn new_encoder() -> Option<CCtx<'static>> {
    let mut context = CCtx::try_create()?;
    let parameters = [
        CParameter::ContentSizeFlag(false),
        CParameter::ChecksumFlag(false),
        CParameter::DictIdFlag(false),
        // Otherwise content above 8 KiB would get its own copy of the dictionary's tables.
        CParameter::ForceAttachDict(DictAttachPref::ForceAttach),
        CParameter::UseBlockSplitter(ParamSwitch::Disable),
        CParameter::CompressionLevel(LEVEL),
        CParameter::HashLog(PLAIN_HASH_LOG),
        CParameter::ChainLog(PLAIN_CHAIN_LOG),
    ];
    for parameter in parameters {
        context.set_parameter(parameter).ok()?;
    }
    Some(context)
}

/// A few idle contexts, so that neither each call nor each thread makes its own.
struct Pool<T> {
    idle: Mutex<Vec<T>>,
}

impl<T> Pool<T> {
    const fn new() -> Self {
        Self { idle: Mutex::new(Vec::new()) }
    }

    fn take(&self) -> Option<T> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn give(&self, context: T) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_CONTEXTS_MAX {
            idle.push(context);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::DICTIONARY_CONTENT_BYTES_MAX;
    use crate::dictionary;

    /// `bytes` bytes of words, never twice the same sentence.
    fn text(bytes: usize) -> Vec<u8> {
        const WORDS: [&str; 8] = ["see", "you", "at", "eight", "bring", "the", "other", "keys"];
        let mut state = 7_u32;
        let mut text = Vec::new();
        while text.len() < bytes {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            text.extend_from_slice(WORDS[(state >> 29) as usize].as_bytes());
            text.push(b' ');
        }
        text.truncate(bytes);
        text
    }

    #[test]
    fn the_pool_drops_what_a_long_content_has_grown() {
        let mut block = Vec::new();
        assert!(compress(None, &text(BLOCK_CONTENT_BYTES_MAX), &mut block));
        let idle = ENCODERS.idle.lock().unwrap();
        assert!(idle.len() <= IDLE_CONTEXTS_MAX);
        assert!(idle.iter().all(|context| context.sizeof() <= IDLE_CONTEXT_BYTES_MAX));
    }

    #[test]
    fn a_context_for_packets_stays_small() {
        for dictionary in [None, dictionary::encoder(0)] {
            let mut context = new_encoder().unwrap();
            for bytes in [60, 1200, 4096] {
                compress_frame(&mut context, dictionary, &text(bytes)).unwrap();
            }
            assert!(context.sizeof() <= 300 * 1024, "{} bytes", context.sizeof());
        }
    }

    #[test]
    fn a_context_for_the_longest_content_stays_below_its_bound() {
        let longest =
            [(None, BLOCK_CONTENT_BYTES_MAX), (dictionary::encoder(0), DICTIONARY_CONTENT_BYTES_MAX)];
        for (dictionary, bytes) in longest {
            let mut context = new_encoder().unwrap();
            compress_frame(&mut context, dictionary, &text(bytes)).unwrap();
            assert!(context.sizeof() <= 1600 * 1024, "{} bytes", context.sizeof());
        }
    }
}
