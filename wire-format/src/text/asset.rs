//! The file of a model. `PROTOCOL.md`, section "Text models", has the layout.

use crate::varint;

use super::alphabet::{LETTERS_MAX, Symbol};
use super::model::{CONTEXT_SYMBOLS_MAX, CONTEXTS_MAX, ENTRIES_MAX};
use super::recent::{AGREEMENTS, Hits, LIKELIHOODS};

/// First bytes of a model's file: a name, and the layout's version.
const MAGIC: [u8; 4] = *b"TPm\x01";
/// What follows, unpacked, has no more bytes than this.
const UNPACKED_BYTES_MAX: usize = 2 * CONTEXTS_MAX + 2 * ENTRIES_MAX + 4 * LETTERS_MAX + 4096;
/// zstd's level for packing; unpacking takes the same time at every level.
const PACK_LEVEL: i32 = 19;

/// A count, kept to about an eighth of its size: a byte that grows with the count's logarithm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Level(u8);

impl Level {
    /// The highest; 3,670,016.
    pub const MAX: Self = Self(83);

    /// The count that the level stands for: 0 to 7 themselves, then four to each power of two.
    pub const fn count(self) -> u64 {
        let (octave, step) = (self.0 as u32 / 4, self.0 as u64 % 4);
        if octave == 0 { step } else { (4 + step) << (octave - 1) }
    }

    /// The level that is nearest; the lower one where two are.
    pub fn nearest(count: f64) -> Self {
        let levels = 0..=Self::MAX.0;
        let far = |level: &u8| (Self(*level).count() as f64 - count).abs();
        Self(levels.min_by(|a, b| far(a).total_cmp(&far(b))).unwrap_or(0))
    }
}

/// A symbol that was seen behind a context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The symbol.
    pub symbol: Symbol,
    /// How often.
    pub level: Level,
    /// Whether context and symbol together are a context too, a symbol longer.
    pub is_context: bool,
}

/// What was seen behind a context.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContextParts {
    /// The symbols, ascending.
    pub entries: Vec<Entry>,
    /// How often others were seen, that have no entry.
    pub rest: Level,
}

/// All that a model's file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts {
    /// The alphabet, ascending; letter n has symbol n + 4.
    pub letters: Vec<char>,
    /// The discount of a count, in 64ths of its square root; not zero.
    pub discount: u8,
    /// How often guesses from what was said before come true.
    pub hits: Hits,
    /// The contexts: first the empty one, which has an entry for each symbol, then those of one symbol in the order of
    /// their entries there, then those of two, and so on.
    pub contexts: Vec<ContextParts>,
}

/// Why bytes are no model's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PartsError {
    /// Another kind of file, or another version of this one.
    #[error("this is no text model of version 1")]
    Magic,
    /// What is packed cannot be unpacked, or ends too early or too late.
    #[error("the text model is damaged")]
    Damaged,
    /// The alphabet is empty, too long, or not in order.
    #[error("the text model's alphabet is none")]
    Letters,
    /// More contexts or entries than a model may have.
    #[error("the text model is larger than {CONTEXTS_MAX} contexts and {ENTRIES_MAX} entries")]
    TooLarge,
    /// Entries out of order, without a count, or of no symbol; or contexts that do not hang together.
    #[error("the text model contradicts itself at context {0}")]
    Context(u32),
}

/// The highest bit of an entry's level says that it is a context.
const IS_CONTEXT: u8 = 0x80;

impl Parts {
    /// The file.
    ///
    /// # Errors
    /// When the parts are none that [`Self::from_bytes`] would read.
    pub fn to_bytes(&self) -> Result<Vec<u8>, PartsError> {
        self.check(self.letters.len() + usize::from(super::alphabet::LETTERS_FROM))?;
        let mut body = Vec::new();
        varint::put(&mut body, self.letters.len() as u64);
        let mut before = 0;
        for &letter in &self.letters {
            varint::put(&mut body, u64::from(u32::from(letter) - before));
            before = u32::from(letter);
        }
        body.push(self.discount);
        body.extend(self.hits.0.iter().flatten().flat_map(|hit| hit.to_le_bytes()));
        varint::put(&mut body, self.contexts.len() as u64);
        for context in &self.contexts {
            varint::put(&mut body, context.entries.len() as u64);
        }
        body.extend(self.contexts.iter().map(|context| context.rest.0));
        let entries = || self.contexts.iter().flat_map(|context| &context.entries);
        body.extend(entries().map(|entry| entry.symbol));
        body.extend(entries().map(|entry| entry.level.0 | if entry.is_context { IS_CONTEXT } else { 0 }));
        let mut file = MAGIC.to_vec();
        file.extend(zstd::bulk::compress(&body, PACK_LEVEL).map_err(|_| PartsError::Damaged)?);
        Ok(file)
    }

    /// Reads a file; takes at most a megabyte beside what it returns, whatever the bytes say.
    ///
    /// # Errors
    /// When the bytes are no model's.
    pub fn from_bytes(file: &[u8]) -> Result<Self, PartsError> {
        let packed = file.strip_prefix(&MAGIC).ok_or(PartsError::Magic)?;
        let body = zstd::bulk::decompress(packed, UNPACKED_BYTES_MAX).map_err(|_| PartsError::Damaged)?;
        let mut rest = &body[..];
        let letters = letters(&mut rest)?;
        let [discount] = array(&mut rest)?;
        let mut hits = Hits([[0; LIKELIHOODS]; AGREEMENTS]);
        for hit in hits.0.iter_mut().flatten() {
            *hit = u16::from_le_bytes(array(&mut rest)?);
        }
        let contexts = contexts(&mut rest)?;
        if !rest.is_empty() {
            return Err(PartsError::Damaged);
        }
        Ok(Self { letters, discount, hits, contexts })
    }

    /// Whether these parts are a model's; every number that a model is indexed by is checked here.
    pub(super) fn check(&self, symbols: usize) -> Result<(), PartsError> {
        if self.letters.is_empty() {
            return Err(PartsError::Letters);
        }
        let entries = self.contexts.iter().map(|context| context.entries.len()).sum::<usize>();
        if self.contexts.len() > CONTEXTS_MAX || entries > ENTRIES_MAX {
            return Err(PartsError::TooLarge);
        }
        let root = self.contexts.first().ok_or(PartsError::Context(0))?;
        if root.entries.len() != symbols || self.discount == 0 {
            return Err(PartsError::Context(0));
        }
        // The contexts of one length stand together; `ends` is where those of this length end.
        let (mut length, mut ends, mut found) = (0, 1, 1);
        for (number, context) in (0..).zip(&self.contexts) {
            if number == ends {
                (length, ends) = (length + 1, found);
            }
            let in_order = context.entries.is_sorted_by(|a, b| a.symbol < b.symbol);
            let known = |entry: &Entry| usize::from(entry.symbol) < symbols && entry.level.count() > 0;
            let levels = context.entries.iter().map(|entry| entry.level).chain([context.rest]);
            let deeper = context.entries.iter().filter(|entry| entry.is_context).count() as u32;
            let hangs = number < found && (deeper == 0 || length < CONTEXT_SYMBOLS_MAX);
            let fits = levels.max() <= Some(Level::MAX);
            if !in_order
                || !context.entries.iter().all(known)
                || context.entries.is_empty()
                || !hangs
                || !fits
            {
                return Err(PartsError::Context(number));
            }
            found += deeper;
        }
        if found as usize == self.contexts.len() { Ok(()) } else { Err(PartsError::Context(found)) }
    }
}

fn letters(rest: &mut &[u8]) -> Result<Vec<char>, PartsError> {
    let count = varint::take(rest).map_err(|_| PartsError::Damaged)?;
    if count > LETTERS_MAX as u64 {
        return Err(PartsError::Letters);
    }
    let mut before = 0u32;
    let mut letter = || {
        let step = varint::take(rest).map_err(|_| PartsError::Damaged)?;
        let code = u32::try_from(step).ok().and_then(|step| before.checked_add(step));
        before = code.ok_or(PartsError::Letters)?;
        char::from_u32(before).ok_or(PartsError::Letters)
    };
    (0..count).map(|_| letter()).collect()
}

fn contexts(rest: &mut &[u8]) -> Result<Vec<ContextParts>, PartsError> {
    let count = varint::take(rest).map_err(|_| PartsError::Damaged)?;
    if count > CONTEXTS_MAX as u64 {
        return Err(PartsError::TooLarge);
    }
    let mut counts = Vec::with_capacity(count as usize);
    for _ in 0..count {
        counts.push(varint::take(rest).map_err(|_| PartsError::Damaged)?);
    }
    let entries = counts.iter().try_fold(0u64, |sum, &count| sum.checked_add(count));
    let entries = entries.filter(|&sum| sum <= ENTRIES_MAX as u64).ok_or(PartsError::TooLarge)?;
    let rests = column(rest, counts.len())?;
    let mut symbols = column(rest, entries as usize)?.iter();
    let mut levels = column(rest, entries as usize)?.iter();
    let context = |(&count, &rest): (&u64, &u8)| {
        let entry = |(&symbol, &level): (&u8, &u8)| Entry {
            symbol,
            level: Level(level & !IS_CONTEXT),
            is_context: level & IS_CONTEXT != 0,
        };
        let entries = symbols.by_ref().zip(levels.by_ref()).take(count as usize).map(entry).collect();
        ContextParts { entries, rest: Level(rest) }
    };
    Ok(counts.iter().zip(rests).map(context).collect())
}

fn column<'a>(rest: &mut &'a [u8], bytes: usize) -> Result<&'a [u8], PartsError> {
    let (column, after) = rest.split_at_checked(bytes).ok_or(PartsError::Damaged)?;
    *rest = after;
    Ok(column)
}

fn array<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], PartsError> {
    let (array, after) = rest.split_first_chunk().ok_or(PartsError::Damaged)?;
    *rest = after;
    Ok(*array)
}
