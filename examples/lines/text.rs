//! What the lines say: pieces of running text, words of dictionaries, and what `phrases` makes up.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use fastrand::Rng;

use crate::phrases;

/// Every character that a label may have: what a keyboard of Western Europe types.
pub(crate) const CHARSET: &str = " !\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ\
    [\\]^_`abcdefghijklmnopqrstuvwxyz{|}~¡¢£¥§©«®°±²³µ·»¼½¿ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÐÑÒÓÔÕÖ×ØÙÚÛÜÝÞßàáâãäåæçèéêë\
    ìíîïðñòóôõö÷øùúûüýþÿŒœŠšŽžŸ€™•";

/// The texts that lines are taken from.
pub(crate) struct Corpus {
    /// Words of running text, file after file.
    prose: Vec<Vec<String>>,
    /// Dictionaries; the first is English if the files are in the order of their names.
    words: Vec<Vec<String>>,
}

impl fmt::Display for Corpus {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let prose: usize = self.prose.iter().map(Vec::len).sum();
        let words: usize = self.words.iter().map(Vec::len).sum();
        write!(f, "{prose} words of prose, {words} words of {} dictionaries", self.words.len())
    }
}

/// Typographic characters as a keyboard types them; none for what labels can't have.
fn plain(c: char) -> Option<&'static str> {
    Some(match c {
        '\u{2018}' | '\u{2019}' | '\u{201A}' => "'",
        '\u{201C}' | '\u{201D}' | '\u{201E}' => "\"",
        '\u{2010}'..='\u{2015}' | '\u{2212}' => "-",
        '\u{2026}' => "...",
        _ => return None,
    })
}

/// The text with plain punctuation; none if it has characters outside of the set.
fn clean(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match plain(c) {
            Some(typed) => out.push_str(typed),
            None if CHARSET.contains(c) => out.push(c),
            None => return None,
        }
    }
    Some(out)
}

impl Corpus {
    /// Reads all files named, or below directories named.
    pub(crate) fn read(prose: &[PathBuf], words: &[PathBuf]) -> Result<Corpus> {
        let mut corpus = Corpus { prose: Vec::new(), words: Vec::new() };
        for file in files(prose)? {
            // A lone % parts the sayings of fortune files.
            let words = read(&file)?;
            let words = words.split_whitespace().filter(|word| *word != "%");
            let text: Vec<String> = words.filter_map(clean).collect();
            // Tables and indices are not running text.
            if text.len() > 100 {
                corpus.prose.push(text);
            }
        }
        for file in files(words)? {
            let text: Vec<String> = read(&file)?
                .lines()
                .map(str::trim)
                .filter(|w| !w.is_empty())
                .filter_map(clean)
                .collect();
            if !text.is_empty() {
                corpus.words.push(text);
            }
        }
        ensure!(!corpus.prose.is_empty(), "no running text: name files or directories by --prose");
        ensure!(!corpus.words.is_empty(), "no words: name files or directories by --words");
        Ok(corpus)
    }

    /// A word of a dictionary: English half of the time.
    pub(crate) fn word<'a>(&'a self, rng: &mut Rng) -> &'a str {
        let dictionary = if rng.bool() { 0 } else { rng.usize(..self.words.len()) };
        let words = &self.words[dictionary];
        &words[rng.usize(..words.len())]
    }

    /// Running text of at most `longest` characters.
    pub(crate) fn prose(&self, rng: &mut Rng, longest: usize) -> String {
        let words = &self.prose[rng.usize(..self.prose.len())];
        let start = rng.usize(..words.len());
        let mut text = String::new();
        let mut length = 0;
        for word in &words[start..] {
            let more = word.chars().count() + usize::from(length > 0);
            if length > 0 && length + more > longest {
                break;
            }
            if length > 0 {
                text.push(' ');
            }
            text.push_str(word);
            length += more;
        }
        text.chars().take(longest).collect()
    }

    /// The text of one line, 1 to `longest` characters of the set.
    pub(crate) fn line(&self, rng: &mut Rng, long: bool, longest: usize) -> String {
        loop {
            let text = if long { self.long(rng, longest) } else { self.short(rng, longest) };
            let text = cased(text, long, rng);
            let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
            let length = text.chars().count();
            // Drawings made of signs are no text; a few signs alone may be.
            let letters = text.chars().filter(|c| c.is_alphanumeric()).count();
            let wordy = length < 8 || letters * 5 > length * 2;
            if (1..=longest).contains(&length) && wordy && text.chars().all(|c| CHARSET.contains(c))
            {
                return text;
            }
        }
    }

    /// A line of a book, or of a dense table.
    fn long(&self, rng: &mut Rng, longest: usize) -> String {
        let wanted = rng.usize(longest / 3..=longest).max(4);
        if rng.f32() < 0.75 {
            return self.prose(rng, wanted);
        }
        let mut text = String::new();
        while text.chars().count() < wanted {
            let part = match rng.u8(..9) {
                0..3 => self.word(rng).to_string(),
                3 => phrases::price(rng),
                4 => phrases::date(rng),
                5 => phrases::code(self, rng),
                6 => phrases::digits(rng, 1..5),
                7 => format!("({})", self.word(rng)),
                _ => format!("{}{}", self.word(rng), phrases::any(rng, &[",", ".", ";", ":"])),
            };
            text = if text.is_empty() { part } else { format!("{text} {part}") };
        }
        text.chars().take(wanted).collect()
    }

    /// What receipts, forms, labels and signs say.
    fn short(&self, rng: &mut Rng, longest: usize) -> String {
        match rng.u8(..100) {
            0..24 => {
                let longest = rng.usize(3..=longest.clamp(4, 40));
                self.prose(rng, longest)
            }
            24..36 => {
                let count = rng.usize(1..=3);
                (0..count).map(|_| self.word(rng)).collect::<Vec<_>>().join(" ")
            }
            36..50 => phrases::business(self, rng),
            50..60 => phrases::price(rng),
            60..66 => phrases::date_and_time(rng),
            66..68 => phrases::time(rng),
            68..77 => phrases::code(self, rng),
            77..81 => noise(rng),
            81..84 => phrases::quantity(rng),
            84..88 => phrases::address(self, rng),
            88..91 => phrases::company(self, rng),
            91..94 => phrases::name(self, rng),
            94..97 => phrases::product(self, rng),
            97 => phrases::pick(CHARSET, rng).to_string(),
            _ => phrases::bracketed(self, rng),
        }
    }
}

/// Characters in no order, mostly those of ASCII.
fn noise(rng: &mut Rng) -> String {
    let count = rng.usize(1..15);
    let ascii = &CHARSET[..95];
    (0..count)
        .map(
            |_| {
                if rng.f32() < 0.85 {
                    phrases::pick(ascii, rng)
                } else {
                    phrases::pick(CHARSET, rng)
                }
            },
        )
        .collect()
}

fn cased(text: String, long: bool, rng: &mut Rng) -> String {
    let (upper, title) = if long { (0.08, 0.0) } else { (0.30, 0.06) };
    let roll = rng.f32();
    if roll < upper {
        // One letter's capital can be two: the label must say what is drawn.
        return text.to_uppercase();
    }
    if roll < upper + title { phrases::title(&text) } else { text }
}

fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            let entries =
                std::fs::read_dir(path).with_context(|| format!("can't list {path:?}"))?;
            files.extend(entries.flatten().map(|entry| entry.path()).filter(|p| is_text(p)));
        } else {
            files.push(path.clone());
        }
    }
    files.sort();
    Ok(files)
}

/// Indices of fortune files, links to them and packed files are passed over.
fn is_text(path: &Path) -> bool {
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    path.is_file() && !path.is_symlink() && !["dat", "u8", "gz", "txt~"].contains(&&*extension)
}

fn read(path: &Path) -> Result<String> {
    let bytes = std::fs::read(path).with_context(|| format!("can't read {path:?}"))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn corpus() -> Corpus {
        let list = |text: &str| text.split(' ').map(str::to_string).collect::<Vec<_>>();
        Corpus {
            prose: vec![list("It was the best of times, it was the worst of times.")],
            words: vec![list("apple don't Zebra"), list("Straße")],
        }
    }

    #[test]
    fn punctuation_becomes_what_a_keyboard_has() {
        assert_eq!(
            clean("\u{201C}don\u{2019}t\u{201D} \u{2014}\u{2026}").as_deref(),
            Some("\"don't\" -...")
        );
        assert_eq!(clean("\u{4F60}"), None);
    }

    #[test]
    fn lines_keep_to_the_set_and_the_length() {
        let corpus = corpus();
        let mut rng = Rng::with_seed(1);
        for number in 0..2000 {
            let longest = 4 + number % 90;
            let line = corpus.line(&mut rng, number % 3 == 0, longest);
            let length = line.chars().count();
            assert!((1..=longest).contains(&length), "{line:?}");
            assert!(line.chars().all(|c| CHARSET.contains(c)), "{line:?}");
            assert_eq!(line.trim(), line);
        }
    }

    #[test]
    fn the_seed_settles_the_line() {
        let corpus = corpus();
        let lines = |seed| {
            let mut rng = Rng::with_seed(seed);
            (0..50).map(|_| corpus.line(&mut rng, false, 40)).collect::<Vec<_>>()
        };
        assert_eq!(lines(7), lines(7));
        assert_ne!(lines(7), lines(8));
    }
}
