//! The records of a file that an earlier run left, and what lies behind the last whole one.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};

use anyhow::Result;
use serde_json::Value;

use crate::cli::args::Format;

/// One record of the file: which image, and which part of it.
pub(super) struct Entry {
    pub(super) name: String,
    /// Of a name that is no Unicode.
    pub(super) bytes: String,
    pub(super) page: Option<u64>,
    /// What sets it apart from the other records of its image.
    pub(super) part: String,
    /// More records of the same image may follow.
    pub(super) is_part: bool,
}

/// A file as far as it goes.
#[derive(Default)]
pub(super) struct Found {
    /// Of a table.
    pub(super) header: Option<Vec<String>>,
    /// Bytes of whole records and lines.
    pub(super) length: u64,
    /// Bytes behind them: a record that was cut short.
    pub(super) torn: u64,
    /// What makes the last line a whole one, the torn record included.
    pub(super) missing: Vec<u8>,
}

/// What sets a record apart from others of its image.
pub(super) fn part(page: Option<u64>, line: Option<u64>) -> String {
    format!("{page:?} {line:?}")
}

/// Goes through the file.
pub(super) fn walk(file: File, format: Format, take: &mut dyn FnMut(Entry)) -> Result<Found> {
    match format {
        Format::Csv => table(file, b',', take),
        Format::Tsv => table(file, b'\t', take),
        _ => lines(file, format, take),
    }
}

/// Entries of JSON Lines and of lines of text.
fn lines(file: File, format: Format, take: &mut dyn FnMut(Entry)) -> Result<Found> {
    let mut reader = BufReader::new(file);
    let (mut found, mut line) = (Found::default(), Vec::new());
    loop {
        line.clear();
        if reader.read_until(b'\n', &mut line)? == 0 {
            return Ok(found);
        }
        let whole = line.strip_suffix(b"\n");
        let text = whole.unwrap_or(&line);
        let entry = if format == Format::Jsonl { of_json(text) } else { of_text(text) };
        if whole.is_none() {
            found.missing = b"\n".to_vec();
            // A line of another kind is the user's own, and JSON that can be read is whole.
            let ours = match format {
                Format::Jsonl => text.starts_with(b"{") && entry.is_none(),
                _ => entry.is_some(),
            };
            if ours {
                found.torn = line.len() as u64;
                return Ok(found);
            }
        }
        entry.into_iter().for_each(&mut *take);
        found.length += line.len() as u64;
    }
}

fn of_json(line: &[u8]) -> Option<Entry> {
    let json: Value = serde_json::from_slice(line).ok()?;
    let text = |name: &str| json.get(name).and_then(Value::as_str).map(str::to_string);
    let number = |name: &str| json.get(name).and_then(Value::as_u64);
    let (page, line) = (number("page"), number("line"));
    let bytes = text("image_bytes").unwrap_or_default();
    let is_part = page.is_some() || line.is_some();
    Some(Entry { name: text("image")?, bytes, page, part: part(page, line), is_part })
}

/// `path TAB text` does not tell whether it is a part of an image.
fn of_text(line: &[u8]) -> Option<Entry> {
    let line = std::str::from_utf8(line).ok()?;
    let name = unescape(line.split_once('\t')?.0);
    Some(Entry { name, bytes: String::new(), page: None, part: line.to_string(), is_part: true })
}

/// The way back from `escape`.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        out.push(match c {
            '\\' => match rest.next() {
                Some('n') => '\n',
                Some('r') => '\r',
                Some('t') => '\t',
                Some(other) => other,
                None => '\\',
            },
            c => c,
        });
    }
    out
}

/// Entries of a table.
fn table(file: File, delimiter: u8, take: &mut dyn FnMut(Entry)) -> Result<Found> {
    let mut rows = csv::ReaderBuilder::new().delimiter(delimiter).flexible(true).from_reader(file);
    let text = |cell: &[u8]| String::from_utf8_lossy(cell).into_owned();
    let columns: Vec<String> = rows.byte_headers()?.iter().map(text).collect();
    let place = |name: &str| columns.iter().position(|column| column == name);
    let places = ["image", "image_bytes", "page", "line"].map(place);
    let entry = |row: &csv::ByteRecord| {
        let cell = |place: Option<usize>| place.and_then(|place| row.get(place)).map(text);
        let [name, bytes, page, line] = places.map(cell);
        let [page, line] = [page, line].map(|cell| cell.and_then(|cell| cell.parse().ok()));
        let is_part = page.is_some() || line.is_some();
        let bytes = bytes.unwrap_or_default();
        Some(Entry { name: name?, bytes, page, part: part(page, line), is_part })
    };
    // The last row is looked at once it is known to be the last. It may be the header.
    let (mut start, mut width) = (0, columns.len());
    let mut last: Option<Entry> = None;
    let mut row = csv::ByteRecord::new();
    loop {
        let next = rows.position().byte();
        if !rows.read_byte_record(&mut row)? {
            break;
        }
        last.take().into_iter().for_each(&mut *take);
        (start, width, last) = (next, row.len(), entry(&row));
    }
    let tail = behind(rows.into_inner(), start)?;
    let missing = missing(&tail, columns.len().saturating_sub(width), delimiter);
    let header = Some(columns).filter(|columns| !columns.is_empty());
    let length = start + tail.len() as u64;
    // Less than a line end is missing: it was cut short.
    if missing.len() > 1 && start > 0 {
        return Ok(Found { header, length: start, torn: tail.len() as u64, missing });
    }
    last.into_iter().for_each(take);
    Ok(Found { header, length, torn: 0, missing })
}

/// The bytes of the last row, and of empty lines behind it.
fn behind(mut file: File, start: u64) -> Result<Vec<u8>> {
    let mut tail = Vec::new();
    file.seek(SeekFrom::Start(start))?;
    file.read_to_end(&mut tail)?;
    Ok(tail)
}

/// What makes a whole row of one that lacks so many cells; nothing if it is one.
fn missing(row: &[u8], cells: usize, delimiter: u8) -> Vec<u8> {
    let in_quotes = row.iter().filter(|byte| **byte == b'"').count() % 2 == 1;
    if row.is_empty() || (!in_quotes && row.ends_with(b"\n")) {
        return Vec::new();
    }
    let mut missing = if in_quotes { b"\"".to_vec() } else { Vec::new() };
    missing.extend(std::iter::repeat_n(delimiter, cells));
    missing.push(b'\n');
    missing
}
