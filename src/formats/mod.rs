//! Formats of pages read: hOCR and ALTO, and pages that explain a text, as functions over plain data.
//!
//! A model gives the text of a line, not the places of its words. Words are what stands between
//! spaces, and their boxes share out the line's box in proportion to the counts of characters; both
//! documents say so in their metadata.

mod alto;
mod explain;
mod hocr;

use std::ops::Range;

pub use alto::alto;
pub use explain::{Explained, ExplainedToken, Map, explain};
pub use hocr::hocr;

/// What the documents tell their readers about the boxes of words.
const BOXES_OF_WORDS: &str = "Boxes of lines are found in the picture; boxes of words are not: they \
                              share out the box of their line in proportion to counts of characters.";

/// A picture of a page and the lines of text read in it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// The picture's path or name.
    pub image: String,
    /// The physical page, counted from 0; each page of a document has another.
    pub number: usize,
    /// Pixels, as the page stands upright.
    pub width: usize,
    /// Pixels, as the page stands upright.
    pub height: usize,
    /// In reading order.
    pub lines: Vec<TextLine>,
}

/// A line of text and its place.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TextLine {
    /// Left, top, right, bottom in pixels; right and bottom just outside.
    pub bbox: [u32; 4],
    pub text: String,
    /// From 0 to 1.
    pub confidence: f64,
}

/// A word of a line and its box, in proportion.
struct Word {
    bbox: [u32; 4],
    text: String,
}

/// White space that parts words; the spaces that are made to keep words together do not.
fn parts_words(c: char) -> bool {
    c.is_whitespace() && !matches!(c, '\u{a0}' | '\u{2007}' | '\u{202f}')
}

/// The words of a line: each character, spaces between words too, has the same share of the width.
/// No word's box is empty where the line's is not.
fn words(line: &TextLine) -> Vec<Word> {
    let text = line.text.trim_matches(parts_words);
    let total = text.chars().count().max(1) as u64;
    let [left, top, right, bottom] = line.bbox;
    let width = u64::from(right.saturating_sub(left));
    let at = |index: u64| left + ((width * index + total / 2) / total) as u32;
    let mut found = Vec::new();
    let mut start = 0;
    for part in text.split(parts_words) {
        let end = start + part.chars().count() as u64;
        if end > start {
            let from = at(start).min(right.saturating_sub(1).max(left));
            let to = at(end).max(from + 1).min(right.max(left));
            found.push(Word { bbox: [from, top, to, bottom], text: part.to_string() });
        }
        start = end + 1;
    }
    found
}

/// Blocks: runs of lines, one below the other and near, as indices into the lines.
fn blocks(lines: &[TextLine]) -> Vec<Range<usize>> {
    let mut found: Vec<Range<usize>> = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let goes_on = index > 0 && is_below(&lines[index - 1].bbox, &line.bbox);
        match found.last_mut() {
            Some(block) if goes_on => block.end = index + 1,
            _ => found.push(index..index + 1),
        }
    }
    found
}

/// `next` begins below the middle of `last`, at most a line's height away, and they overlap sideways.
fn is_below(last: &[u32; 4], next: &[u32; 4]) -> bool {
    let height = last[3].saturating_sub(last[1]).max(next[3].saturating_sub(next[1]));
    let middle = last[1] + last[3].saturating_sub(last[1]) / 2;
    let near = next[1] <= last[3].saturating_add(height);
    next[1] >= middle && near && next[0] < last[2] && last[0] < next[2]
}

/// The box around the boxes of all lines; of no lines, empty.
fn around(lines: &[TextLine]) -> [u32; 4] {
    let boxes = lines.iter().map(|line| line.bbox);
    boxes
        .reduce(|a, b| [a[0].min(b[0]), a[1].min(b[1]), a[2].max(b[2]), a[3].max(b[3])])
        .unwrap_or_default()
}

/// A text as the content of an XML element or of an attribute in double quotes. Characters that XML 1.0
/// forbids become U+FFFD; tabs and ends of lines become references, so that attributes keep them.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\t' => escaped.push_str("&#9;"),
            '\n' => escaped.push_str("&#10;"),
            '\r' => escaped.push_str("&#13;"),
            '\0'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

/// A confidence within 0 and 1; what is no number is no confidence.
fn confidence(value: f64) -> f64 {
    if value.is_nan() { 0.0 } else { value.clamp(0.0, 1.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(bbox: [u32; 4], text: &str) -> TextLine {
        TextLine { bbox, text: text.into(), confidence: 1.0 }
    }

    #[test]
    fn words_share_out_the_line() {
        type Case<'a> = ([u32; 4], &'a str, &'a [(u32, u32, &'a str)]);
        let cases: &[Case] = &[
            ([10, 0, 110, 9], "abcd efghi", &[(10, 50, "abcd"), (60, 110, "efghi")]),
            ([10, 0, 110, 9], "  abcd  efgh ", &[(10, 50, "abcd"), (70, 110, "efgh")]),
            ([0, 0, 30, 9], "äöü", &[(0, 30, "äöü")]),
            ([0, 0, 30, 9], "a\u{a0}b\tc", &[(0, 18, "a\u{a0}b"), (24, 30, "c")]),
            (
                [0, 0, 3, 9],
                "a b c d e",
                &[(0, 1, "a"), (1, 2, "b"), (1, 2, "c"), (2, 3, "d"), (2, 3, "e")],
            ),
            ([5, 0, 5, 9], "a b", &[(5, 5, "a"), (5, 5, "b")]),
            ([0, 0, 30, 9], " \n ", &[]),
        ];
        for (bbox, text, expected) in cases {
            let found = words(&line(*bbox, text));
            let found: Vec<_> =
                found.iter().map(|word| (word.bbox[0], word.bbox[2], word.text.as_str())).collect();
            assert_eq!(&found, expected, "{text:?} in {bbox:?}");
        }
    }

    #[test]
    fn blocks_end_at_gaps_and_columns() {
        let boxes = [[0, 0, 90, 20], [0, 25, 80, 45], [0, 100, 90, 120], [100, 0, 190, 20]];
        let lines: Vec<_> = boxes.iter().map(|bbox| line(*bbox, "x")).collect();
        assert_eq!(blocks(&lines), [0..2, 2..3, 3..4]);
        assert_eq!(around(&lines[..2]), [0, 0, 90, 45]);
        assert!(blocks(&[]).is_empty());
    }

    #[test]
    fn what_xml_forbids_is_replaced() {
        assert_eq!(escape("<a & \"b\" 'c'>"), "&lt;a &amp; &quot;b&quot; &#39;c&#39;&gt;");
        assert_eq!(escape("a\u{0}b\u{1b}[0m\u{ffff}"), "a\u{fffd}b\u{fffd}[0m\u{fffd}");
        assert_eq!(escape("a\tb\nc\rd"), "a&#9;b&#10;c&#13;d");
        assert_eq!(escape("Grüße 你好 😀"), "Grüße 你好 😀");
    }

    #[test]
    fn confidences_stay_within_bounds() {
        for (value, expected) in [(f64::NAN, 0.0), (-1.0, 0.0), (0.25, 0.25), (7.0, 1.0)] {
            assert_eq!(confidence(value), expected, "{value}");
        }
    }
}
