//! Records become lines: text, JSON, CSV or TSV, written and flushed as each image ends.
//!
//! A line is written in one piece behind the last one, so that a run that is killed leaves whole lines.

mod entries;
mod numbers;
mod record;
mod resume;

use std::fs::File;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Map, Value};

use self::numbers::Numbers;
use self::record::Fields;
pub(super) use self::record::finish_reason;
use self::resume::Held;
pub(super) use self::resume::Old;
use super::args::{Format, OutputArgs};
use super::inputs;
use crate::formats::{self, Page, TextLine};
use crate::image;
use crate::pipeline::{Reading, Record};
use crate::stderr;

/// Where the results go, and in which form.
pub(super) struct Writer {
    form: Form,
    fields: Fields,
    /// True if a person looks on: control characters would act on the terminal.
    terminal: bool,
    to: Box<dyn Write>,
    /// None is standard output.
    path: Option<PathBuf>,
    /// The header of a table is yet to be written.
    header: bool,
    /// What the file tells already of an image that is read again.
    held: Option<Held>,
    /// Of hOCR and ALTO.
    pages: Vec<Page>,
    numbers: Numbers,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// A single image: nothing but its text.
    Bare,
    /// path TAB text
    Lines,
    Jsonl,
    Table {
        delimiter: u8,
    },
    /// Pages with their lines, written when all are known
    Pages(Format),
}

/// What a run's records have in common.
pub(super) struct Run<'a> {
    /// One image was named, and no directory, list or archive.
    pub(super) single: bool,
    pub(super) model: &'a str,
    pub(super) revision: Option<&'a str>,
    /// More than one text an image.
    pub(super) several: bool,
}

impl Writer {
    /// `old` is what stays of a file that is written on.
    pub(super) fn new(args: &OutputArgs, run: &Run, old: Option<&Old>) -> Result<Self> {
        let file = target(args);
        let form = match form(args) {
            Format::Jsonl => Form::Jsonl,
            Format::Csv => Form::Table { delimiter: b',' },
            Format::Tsv => Form::Table { delimiter: b'\t' },
            format @ (Format::Hocr | Format::Alto) => Form::Pages(format),
            Format::Text if run.single && !run.several => Form::Bare,
            Format::Text => Form::Lines,
        };
        let fields = Fields {
            details: args.details,
            model: run.model.to_string(),
            revision: run.revision.map(str::to_string),
            several: run.several,
        };
        // Before anything is read or written.
        let header = match (form, old) {
            (Form::Table { delimiter }, Some(old)) => {
                old.lacks_header(&fields.columns(), delimiter)?
            }
            _ => true,
        };
        let to: Box<dyn Write> = match file {
            Some(path) => {
                let anew = header && matches!(form, Form::Table { .. });
                let opened = old.map_or_else(|| File::create(path), |old| old.open(anew));
                Box::new(opened.with_context(|| format!("can't write {path:?}"))?)
            }
            None => Box::new(std::io::stdout()),
        };
        let terminal = file.is_none() && std::io::stdout().is_terminal();
        let held = old.and_then(Old::held);
        let path = file.map(Path::to_path_buf);
        let (pages, numbers) = (Vec::new(), Numbers::default());
        Ok(Writer { form, fields, terminal, to, path, header, held, pages, numbers })
    }

    /// One record. A failed input is no line of text: standard error tells it. `rejected` is the text
    /// that a placeholder stands for.
    pub(super) fn write(&mut self, record: &Record, rejected: Option<&str>) -> Result<()> {
        let mut lines = Vec::new();
        let by_name = matches!(self.form, Form::Jsonl | Form::Table { .. });
        if by_name && self.is_there(record, &part_of(record)) {
            return Ok(());
        }
        match (self.form, &record.outcome) {
            (Form::Jsonl, _) => {
                let map = self.fields.of(record, rejected);
                lines.extend(serde_json::to_vec(&map)?);
                lines.push(b'\n');
            }
            (Form::Table { delimiter }, _) => {
                let mut table = csv::WriterBuilder::new().delimiter(delimiter).from_writer(lines);
                if self.header {
                    table.write_record(self.fields.columns())?;
                }
                let map = self.fields.of(record, rejected);
                let cells = self.fields.columns().into_iter().map(|name| cell(&map, name));
                table.write_record(cells)?;
                lines = table.into_inner().map_err(|error| error.into_error())?;
            }
            (Form::Pages(_), outcome) => {
                // A page that can't be read has its number all the same.
                let number = self.numbers.of(record);
                outcome.iter().for_each(|reading| self.keep(number, record, reading));
                return Ok(());
            }
            (_, Err(_)) => return Ok(()),
            (Form::Bare, Ok(reading)) => {
                for sequence in &reading.sequences {
                    lines.extend(format!("{}\n", sequence.text).into_bytes());
                }
            }
            (Form::Lines, Ok(reading)) => {
                for sequence in &reading.sequences {
                    let (image, text) = (escape(&record.image), escape(&sequence.text));
                    let line = format!("{image}\t{text}");
                    if !self.is_there(record, &line) {
                        lines.extend((line + "\n").into_bytes());
                    }
                }
            }
        }
        self.header = false;
        if self.terminal {
            lines =
                stderr::visible(&String::from_utf8_lossy(&lines), true).into_owned().into_bytes();
        }
        self.put(&lines)
    }
}

impl Writer {
    /// True if the file that is written on has this record already.
    fn is_there(&mut self, record: &Record, part: &str) -> bool {
        self.held.as_mut().is_some_and(|held| held.takes(record, part))
    }

    /// A line of the page of this number.
    fn keep(&mut self, number: usize, record: &Record, reading: &Reading) {
        if self.pages.last().is_none_or(|page| page.number != number) {
            let image = match record.page {
                Some(page) => format!("{}#page={page}", record.image),
                None => record.image.clone(),
            };
            let (width, height) = (reading.width, reading.height);
            self.pages.push(Page { image, number, width, height, lines: Vec::new() });
        }
        let best = reading.sequences.first();
        if let (Some(page), Some(region), Some(best)) = (self.pages.last_mut(), record.region, best)
        {
            let (bbox, text) = (region.bbox, best.text.clone());
            page.lines.push(TextLine { bbox, text, confidence: best.confidence });
        }
    }

    /// What could not be written before the last record was known.
    pub(super) fn finish(&mut self) -> Result<()> {
        let document = match (self.form, self.pages.as_slice()) {
            (Form::Pages(_), []) => return Ok(()),
            (Form::Pages(Format::Alto), pages) => formats::alto(pages),
            (Form::Pages(_), pages) => formats::hocr(pages),
            _ => return Ok(()),
        };
        self.put(document.as_bytes())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        let written = self.to.write_all(bytes).and_then(|()| self.to.flush());
        match &self.path {
            Some(path) => written.with_context(|| format!("can't write {path:?}")),
            None => Ok(written?),
        }
    }
}

/// What sets a record apart from the others of its image.
fn part_of(record: &Record) -> String {
    let line = record.region.map(|region| region.line as u64);
    entries::part(record.page.map(|page| page as u64), line)
}

/// A value in a table: text as it is, nothing for nothing, JSON for the rest.
fn cell(map: &Map<String, Value>, name: &str) -> String {
    match map.get(name) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// True if the file is there and begins as a picture does. What is no plain file is not looked into: a pipe
/// would wait for its writer.
pub(super) fn is_picture(file: &Path) -> bool {
    let head = if file.is_file() { inputs::head(file, 64) } else { None };
    head.is_some_and(|head| image::is_picture(&head))
}

/// The file of `--output`; none for standard output.
pub(super) fn target(args: &OutputArgs) -> Option<&Path> {
    args.output.as_deref().filter(|path| path.as_os_str() != "-")
}

fn form(args: &OutputArgs) -> Format {
    args.format.unwrap_or_else(|| by_name(target(args)))
}

/// True of the forms that are made of the lines of pages.
pub(super) fn tells_lines(args: &OutputArgs) -> bool {
    matches!(form(args), Format::Hocr | Format::Alto)
}

fn by_name(file: Option<&Path>) -> Format {
    match file.and_then(Path::extension).and_then(|extension| extension.to_str()) {
        Some("jsonl" | "json" | "ndjson") => Format::Jsonl,
        Some("csv") => Format::Csv,
        Some("tsv") => Format::Tsv,
        Some("hocr") => Format::Hocr,
        _ => Format::Text,
    }
}

/// Backslash, newline, carriage return and tab would break the line's form.
fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\n', "\\n").replace('\r', "\\r").replace('\t', "\\t")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_keep_their_form() {
        let table = [("plain", "plain"), ("a\tb\nc\\d\r", "a\\tb\\nc\\\\d\\r")];
        for (text, expected) in table {
            assert_eq!(escape(text), expected);
        }
    }

    #[test]
    fn the_format_follows_the_name() {
        let table = [
            ("a.jsonl", Format::Jsonl),
            ("a.csv", Format::Csv),
            ("a.tsv", Format::Tsv),
            ("a.txt", Format::Text),
            ("a", Format::Text),
        ];
        for (name, expected) in table {
            assert_eq!(by_name(Some(Path::new(name))), expected, "{name}");
        }
    }

    #[test]
    fn cells_are_text_or_json() {
        let map = serde_json::json!({"text": "a,b", "bbox": [1, 2], "confidence": null, "ms": 1.5});
        let Value::Object(map) = map else { return };
        let cells: Vec<String> =
            ["text", "bbox", "confidence", "ms", "none"].map(|name| cell(&map, name)).into();
        assert_eq!(cells, ["a,b", "[1,2]", "", "1.5", ""]);
    }
}
