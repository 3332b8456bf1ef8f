//! A look at a text's first bytes: what script it is in, whether it is JSON.

/// What a text is written in, as far as a look at bytes can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Script {
    Latin,
    Cyrillic,
    Arabic,
    Devanagari,
    Json,
    /// Anything else.
    Other,
}

/// The look ends here: what comes later is taken to be of the same kind.
const LOOK_BYTES: usize = 1024;
/// What one `":` tells: about a key of JSON of usual length and its value's punctuation.
const JSON_KEY_BYTES: usize = 12;

/// How many bytes of each script there are. Not exact, and need not be: a wrong guess costs a few bytes or
/// microseconds, never the content.
#[derive(Debug)]
pub(crate) struct Look {
    bytes: usize,
    shares: [(Script, usize); 5],
}

impl Look {
    /// Judges by the lead bytes of UTF-8.
    pub(crate) fn at(content: &[u8]) -> Self {
        let look = &content[..content.len().min(LOOK_BYTES)];
        let (mut latin, mut cyrillic, mut arabic, mut devanagari, mut json) = (0usize, 0, 0, 0, 0);
        for (index, &byte) in look.iter().enumerate() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' => latin += 1,
                0xC3..=0xC5 => latin += 2,
                0xD0..=0xD3 => cyrillic += 2,
                0xD8..=0xDB => arabic += 2,
                0xE0 if matches!(look.get(index + 1), Some(0xA4 | 0xA5)) => devanagari += 3,
                b'"' if look.get(index + 1) == Some(&b':') => json += JSON_KEY_BYTES,
                _ => {}
            }
        }
        // Keys are letters too, but no text.
        latin = latin.saturating_sub(json);
        let shares = [
            (Script::Latin, latin),
            (Script::Cyrillic, cyrillic),
            (Script::Arabic, arabic),
            (Script::Devanagari, devanagari),
            (Script::Json, json),
        ];
        Self { bytes: look.len(), shares }
    }

    /// The scripts that matter, the one with most bytes first. A script counts once it makes up an eighth of
    /// what was looked at; Latin a quarter, since a fifth of all random (sealed) bytes look like its letters.
    pub(crate) fn scripts(&self) -> Vec<Script> {
        let mut found: Vec<(Script, usize)> = self.shares.to_vec();
        found.retain(|&(script, bytes)| {
            let one_in = if script == Script::Latin { 4 } else { 8 };
            bytes > 0 && bytes * one_in >= self.bytes
        });
        // Stable: scripts of one share stay in their order.
        found.sort_by_key(|&(_, bytes)| std::cmp::Reverse(bytes));
        found.into_iter().map(|(script, _)| script).collect()
    }
}
