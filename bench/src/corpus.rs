//! Texts to train on and to measure with: files of one message a line, and how they are split.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use thinpost_wire::notes::Notes;
use thinpost_wire::parcel::{Item, Parcel, ShortIncarnation};

use crate::report::{Report, Row};
use crate::{train, words};

/// Where this crate's own texts are. Found at build time, so the commands work from any folder of a clone.
pub(crate) fn own_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpora")
}

/// Reads a file of one message a line. A line may end in CR LF; empty lines are no messages.
///
/// # Errors
/// When the file cannot be read, holds no message, or a line is not UTF-8 (the error names the line).
pub(crate) fn read_lines(path: &Path) -> Result<Vec<String>> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut lines = Vec::new();
    for (index, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let line = std::str::from_utf8(line)
            .with_context(|| format!("{}, line {}: not UTF-8", path.display(), index + 1))?;
        if !line.is_empty() {
            lines.push(line.to_owned());
        }
    }
    if lines.is_empty() {
        bail!("{} holds no message", path.display());
    }
    Ok(lines)
}

/// A text alone, as it is the body of an envelope: the kind of letter (0, a text), then the text.
pub(crate) fn body(text: &str) -> Vec<u8> {
    let mut body = Vec::with_capacity(text.len() + 1);
    push_body(text, &mut body);
    body
}

/// Texts as one parcel holds them, which a seal goes around: whose numbers they have, the first number, then one
/// letter a text behind its length.
pub(crate) fn parcel(first_number: u64, texts: &[String]) -> Vec<u8> {
    let letters: Vec<Vec<u8>> = texts.iter().map(|text| body(text)).collect();
    let items = (first_number..).zip(&letters).map(|(number, letter)| Item { number, letter });
    // Any four bytes: each home has drawn its own.
    let incarnation = ShortIncarnation([0x3C, 0xA1, 0x5E, 0x97]);
    Parcel { incarnation, notes: Notes::default(), items: items.collect() }.encode()
}

/// Texts as one batch holds them: kind of content, first number, then one frame a text, each with its length.
pub(crate) fn batch<'a>(first_number: u64, texts: impl IntoIterator<Item = &'a str>) -> Vec<u8> {
    const KIND_FRAMES: u8 = 0x02;
    const FRAME_SUBMIT: u8 = 0x06;
    const HANDLE: u8 = 0x01;
    let mut batch = vec![KIND_FRAMES];
    push_varint(first_number, &mut batch);
    let mut frame = Vec::new();
    for text in texts {
        frame.clear();
        frame.extend([FRAME_SUBMIT, HANDLE]);
        push_varint(text.len() as u64 + 1, &mut frame);
        push_body(text, &mut frame);
        // The low bits of the length are flags, none set.
        push_varint((frame.len() as u64) << 2, &mut batch);
        batch.extend_from_slice(&frame);
    }
    batch
}

fn push_body(text: &str, out: &mut Vec<u8>) {
    const LETTER_TEXT: u8 = 0x00;
    out.push(LETTER_TEXT);
    out.extend_from_slice(text.as_bytes());
}

/// Appends a number, seven bits a byte, the lowest first.
pub(crate) fn push_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Puts items into an order that looks random and is the same everywhere: by a keyed hash of what `key`
/// gives. Items with equal keys stay together.
pub(crate) fn shuffle<T>(items: &mut [T], seed: u64, key: impl Fn(&T) -> Vec<u8>) {
    let mut hash_key = [0; blake3::KEY_LEN];
    hash_key[..8].copy_from_slice(&seed.to_le_bytes());
    items.sort_by_cached_key(|item| *blake3::keyed_hash(&hash_key, &key(item)).as_bytes());
}

/// What makes two messages the same for a split: their letters, whatever the case, marks and digits.
fn sameness(line: &str) -> Vec<u8> {
    let letters: String = line.chars().filter(|c| c.is_alphabetic()).flat_map(char::to_lowercase).collect();
    if letters.is_empty() { line.as_bytes().to_vec() } else { letters.into_bytes() }
}

/// Make the texts that this crate carries: the training, held-out and demo parts of source texts, and lists
/// of frequent words.
#[derive(Args, Debug)]
pub(crate) struct CorporaArgs {
    /// Folder with the source files, NAME.train.txt, one message a line
    #[arg(long, value_name = "DIR", required_unless_present = "words_from")]
    from: Option<PathBuf>,
    /// Folder `wordfreq/data` of the Python package wordfreq 3.1.1, for the lists of words
    #[arg(long, value_name = "DIR")]
    words_from: Option<PathBuf>,
    /// Where they are written [default: this crate's corpora]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// One source of texts and how many of its lines go where.
struct Source {
    /// The file in the folder of sources, without `.train.txt`.
    file: &'static str,
    /// How many lines may be trained on. The first of them, as many as a plan of `bench train` says, are what
    /// the dictionaries are made of.
    training_lines: usize,
    held_out: &'static str,
    held_out_lines: usize,
    /// Lines with this in them are the held-out part: another station, later days. Without it, lines are
    /// chosen by their hash.
    held_out_when: Option<&'static str>,
    demo_lines: usize,
    /// Shortest and longest line for the demo, characters.
    demo_chars: (usize, usize),
}

impl Source {
    const fn new(file: &'static str, training_lines: usize, held_out: &'static str) -> Self {
        Self {
            file,
            training_lines,
            held_out,
            held_out_lines: 400,
            held_out_when: None,
            demo_lines: 0,
            demo_chars: (0, 0),
        }
    }

    const fn held_out_lines(mut self, lines: usize) -> Self {
        self.held_out_lines = lines;
        self
    }

    const fn held_out_when(mut self, contains: &'static str) -> Self {
        self.held_out_when = Some(contains);
        self
    }

    const fn demo(mut self, lines: usize, chars_min: usize, chars_max: usize) -> Self {
        self.demo_lines = lines;
        self.demo_chars = (chars_min, chars_max);
        self
    }
}

/// All lines that are left after the held-out and demo parts.
const ALL: usize = usize::MAX;

/// Sources whose licences allow a copy here. Each puts its lines into the parts before the next does, so a new
/// source goes to the end, and takes nothing from the parts of older ones.
const SOURCES: [Source; 17] = [
    Source::new("en-chitchat", ALL, "en-chat").demo(500, 22, 160),
    Source::new("en-irc", ALL, "en-irc"),
    Source::new("ru-tatoeba", ALL, "ru-everyday"),
    Source::new("ru-social", ALL, "ru-social").demo(500, 12, 68),
    Source::new("es-tatoeba", ALL, "es-everyday"),
    Source::new("fr-tatoeba", ALL, "fr-everyday"),
    Source::new("pt-tatoeba", ALL, "pt-everyday"),
    Source::new("id-tatoeba", ALL, "id-everyday"),
    Source::new("ar-tatoeba", ALL, "ar-everyday"),
    Source::new("hi-tatoeba", ALL, "hi-everyday"),
    Source::new("json-weather", ALL, "json-weather").held_out_when("\"origin\":\"JFK\""),
    Source::new("json-quakes", 1_500, "json-quakes").held_out_when("{\"time\":\"2021-07-0"),
    Source::new("en-sms", ALL, "en-sms"),
    Source::new("id-tweets", ALL, "id-tweets"),
    Source::new("ar-darija-tweets", ALL, "ar-darija-tweets"),
    Source::new("hi-hinglish", ALL, "hi-hinglish"),
    Source::new("sw-tweets", ALL, "sw-tweets").held_out_lines(200),
];

/// Whose home is left out of paths in the texts, beside what came masked.
const SUPERUSER: &str = "root";

/// The seed of the split and of the training order.
pub(crate) const SEED: u64 = 1;

/// Makes what is asked for.
///
/// # Errors
/// When a source is missing or bad, or a file cannot be written.
pub(crate) fn run(args: &CorporaArgs, report: &mut Report) -> Result<()> {
    let out = args.out.clone().unwrap_or_else(own_dir);
    if let Some(from) = &args.from {
        make_parts(from, &out, report)?;
    }
    if let Some(from) = &args.words_from {
        words::run(from, &out, report)?;
    }
    Ok(())
}

/// Splits the sources into `train`, `held-out` and `demo`. The same input gives the same files, and no line
/// of one part equals a line of another in its letters, be they of one source or of two.
fn make_parts(from: &Path, out: &Path, report: &mut Report) -> Result<()> {
    let mut texts = Vec::with_capacity(SOURCES.len());
    for source in &SOURCES {
        let mut lines = read_lines(&from.join(format!("{}.train.txt", source.file)))?;
        shuffle(&mut lines, SEED, |line| sameness(line));
        let home = format!("/{SUPERUSER}/");
        lines.iter_mut().for_each(|line| *line = line.replace(&home, ""));
        texts.push(lines);
    }
    for (source, parts) in SOURCES.iter().zip(split(&SOURCES, &texts)) {
        for (part, lines) in PARTS.into_iter().zip(parts) {
            if lines.is_empty() {
                continue;
            }
            let name = if part == TRAIN { source.file } else { source.held_out };
            write_lines(&out.join(part).join(format!("{name}.txt")), &lines)?;
            let bytes: usize = lines.iter().map(|line| line.len()).sum();
            let row =
                |metric, value, unit| Row::new("corpora", metric, value, unit).scenario(name).mode(part);
            report.row(row("lines", lines.len() as f64, ""))?;
            report.row(row("mean", bytes as f64 / lines.len() as f64, "B/line"))?;
        }
    }
    Ok(())
}

/// The parts, by folder, in the order in which a line is offered to them.
const PARTS: [&str; 3] = [HELD_OUT, DEMO, TRAIN];
const TRAIN: &str = "train";
const HELD_OUT: &str = "held-out";
const DEMO: &str = "demo";

impl Source {
    /// Whether a line can be shown to anyone who runs the demo: of usual length, no names (no capital inside,
    /// but for the English "I"), addresses, figures or leftovers of a list, nothing coarse.
    fn is_for_demo(&self, line: &str) -> bool {
        const UNFIT: [&str; 22] = [
            "*",
            "хер",
            "хрен",
            "еба",
            "пи..",
            "рож",
            "сдох",
            "ментам",
            "наркот",
            "свин",
            "секс",
            "убий",
            "убит",
            "террор",
            "войн",
            "крым",
            "кремл",
            "жиринов",
            "парти",
            "либерал",
            "депутат",
            "умира",
        ];
        let (chars_min, chars_max) = self.demo_chars;
        let is_name = |word: &str| {
            let word = word.trim_start_matches(|c: char| !c.is_alphanumeric());
            word.starts_with(char::is_uppercase) && word != "I" && !word.starts_with("I'")
        };
        (chars_min..=chars_max).contains(&line.chars().count())
            && line.starts_with(char::is_alphabetic)
            && !line.contains(|c: char| c.is_numeric() || c == '@' || c == '/')
            && !line.split_whitespace().skip(1).any(is_name)
            && !UNFIT.iter().any(|stem| line.to_lowercase().contains(stem))
    }

    /// Moves lines into those of `parts` that have fewer than `lines_max`: each into the first that wants it.
    /// What is the same by its letters is in the same part or is dropped. The lines that no part took are left
    /// in `lines`.
    fn fill<'a>(
        &self,
        lines: &mut Vec<&'a str>,
        lines_max: [usize; 3],
        parts: &mut [Vec<&'a str>; 3],
        part_of: &mut BTreeMap<Vec<u8>, usize>,
    ) {
        lines.retain(|&line| {
            let marked = self.held_out_when.is_some_and(|mark| line.contains(mark));
            let wants = [
                self.held_out_when.is_none() || marked,
                self.demo_lines > 0 && self.is_for_demo(line),
                !marked,
            ];
            let open = |&part: &usize| wants[part] && parts[part].len() < lines_max[part];
            let Some(part) = (0..parts.len()).find(open) else { return true };
            if *part_of.entry(sameness(line)).or_insert(part) == part {
                parts[part].push(line);
            }
            false
        });
    }
}

/// The parts of each source's shuffled lines, in the order of `PARTS`.
fn split<'a>(sources: &[Source], texts: &'a [Vec<String>]) -> Vec<[Vec<&'a str>; 3]> {
    let mut left: Vec<Vec<&str>> =
        texts.iter().map(|lines| lines.iter().map(String::as_str).collect()).collect();
    let mut splits = vec![<[Vec<&str>; 3]>::default(); sources.len()];
    let mut part_of = BTreeMap::new();
    // In two rounds. What dictionaries are made of is fixed for ever, and so are the texts that they are measured
    // with: they go first, and only then what else can be trained on.
    let training_lines: [fn(&Source) -> usize; 2] =
        [|source| train::dictionary_lines(source.file), |source| source.training_lines];
    for training_lines in training_lines {
        for ((source, lines), parts) in sources.iter().zip(&mut left).zip(&mut splits) {
            let lines_max = [source.held_out_lines, source.demo_lines, training_lines(source)];
            source.fill(lines, lines_max, parts, &mut part_of);
        }
    }
    splits
}

/// Writes one line after another, making the folder if need be.
fn write_lines(path: &Path, lines: &[&str]) -> Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
    }
    let mut text = lines.join("\n");
    text.push('\n');
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use thinpost_wire::frame::ToRelay;
    use thinpost_wire::letter::{Content, Letter};

    use super::*;

    fn keys(part: &str) -> BTreeSet<Vec<u8>> {
        let files = fs::read_dir(own_dir().join(part)).unwrap();
        let lines = files.flat_map(|file| read_lines(&file.unwrap().path()).unwrap());
        lines.map(|line| sameness(&line)).collect()
    }

    #[test]
    fn no_text_to_measure_with_was_trained_on() {
        let train = keys(TRAIN);
        assert!(train.len() > 95_000, "{}", train.len());
        for part in [HELD_OUT, DEMO] {
            let measured = keys(part);
            assert!(measured.len() > 900);
            let shared: Vec<_> = measured.intersection(&train).collect();
            assert!(shared.is_empty(), "{shared:?}");
        }
    }

    #[test]
    fn every_source_is_here_with_the_lines_that_are_promised() {
        let lines = |part: &str, name: &str| {
            read_lines(&own_dir().join(part).join(format!("{name}.txt"))).unwrap().len()
        };
        for source in &SOURCES {
            assert_eq!(lines(HELD_OUT, source.held_out), source.held_out_lines, "{}", source.held_out);
            let train = lines(TRAIN, source.file);
            assert!(train >= train::dictionary_lines(source.file).max(1_500), "{}: {train}", source.file);
            assert!(train <= source.training_lines, "{}: {train}", source.file);
            if source.demo_lines > 0 {
                assert_eq!(lines(DEMO, source.held_out), source.demo_lines);
            }
        }
    }

    #[test]
    fn a_batch_is_what_a_link_sends() {
        let texts = ["hello", "Увидимся в восемь?", &"long ".repeat(50)];
        let content = batch(300, texts);
        let read = thinpost_wire::batch::decode(&content).unwrap();
        assert_eq!(read.items.iter().map(|item| item.number).collect::<Vec<_>>(), [300, 301, 302]);
        for (item, text) in read.items.iter().zip(texts) {
            let Ok(ToRelay::Submit { body, .. }) = ToRelay::decode(item.bytes) else { panic!("{item:?}") };
            assert_eq!(body, super::body(text));
            let Ok(Letter { content: Content::Text(found), .. }) =
                Letter::decode(body, &thinpost_wire::text::Models::compiled_in())
            else {
                panic!()
            };
            assert_eq!(found, text);
        }
    }

    #[test]
    fn a_bad_file_is_named_with_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("messages.txt");
        let error = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            read_lines(&path).unwrap_err().to_string()
        };
        assert!(error(b"fine\nbroken \xff\n").ends_with("messages.txt, line 2: not UTF-8"));
        assert!(error(b"").ends_with("messages.txt holds no message"));
        assert!(error(b"\n\r\n").ends_with("messages.txt holds no message"));
        let missing = read_lines(&dir.path().join("absent.txt")).unwrap_err();
        assert!(missing.to_string().contains("cannot read") && missing.to_string().contains("absent.txt"));
    }

    #[test]
    fn lines_come_without_their_endings() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("messages.txt");
        fs::write(&path, "one\r\n\n two \nthree").unwrap();
        assert_eq!(read_lines(&path).unwrap(), ["one", " two ", "three"]);
    }

    fn shuffled(lines: impl IntoIterator<Item = impl ToString>) -> Vec<String> {
        let mut lines: Vec<String> = lines.into_iter().map(|line| line.to_string()).collect();
        shuffle(&mut lines, SEED, |line| sameness(line));
        lines
    }

    #[test]
    fn a_split_puts_each_text_into_one_part_whatever_its_case_and_marks() {
        let source = |file| Source {
            held_out_lines: 2,
            demo_lines: 2,
            demo_chars: (1, 40),
            ..Source::new(file, ALL, "held-out")
        };
        let texts = [
            shuffled(["see you", "See you!", "on my way", "call me", "later", "soon", "Soon?"]),
            shuffled(["See you...", "ON MY WAY", "call me!", "Later", "soon", "good night", "bye", "why"]),
        ];
        let splits = split(&[source("one"), source("two")], &texts);
        let keys: Vec<BTreeSet<_>> = (0..PARTS.len())
            .map(|part| splits.iter().flat_map(|parts| &parts[part]).map(|line| sameness(line)).collect())
            .collect();
        assert!(
            keys[0].is_disjoint(&keys[1]) && keys[1].is_disjoint(&keys[2]) && keys[0].is_disjoint(&keys[2])
        );
        assert_eq!(keys.iter().map(BTreeSet::len).sum::<usize>(), 8);
    }

    #[test]
    fn a_new_source_changes_no_text_of_a_dictionary_and_none_that_is_measured() {
        let (old, pinned) = ("en-chitchat", train::dictionary_lines("en-chitchat"));
        let texts = [shuffled(0..pinned + 900), shuffled(0..pinned + 1_800)];
        let before = split(&[Source::new(old, pinned, "old")], &texts[..1]);
        let after = split(&[Source::new(old, ALL, "old"), Source::new("new", ALL, "new")], &texts);
        let [held_out, _, train] = &after[0];
        assert!(before[0][0] == *held_out && before[0][2] == train[..pinned]);
        let [new_held_out, _, new_train] = &after[1];
        assert_eq!(new_held_out.len(), 400);
        let trained: BTreeSet<_> = train.iter().chain(new_train).collect();
        let measured: BTreeSet<_> = held_out.iter().chain(new_held_out).collect();
        assert!(trained.is_disjoint(&measured));
        assert_eq!(trained.len() + measured.len(), pinned + 1_800);
    }
}
