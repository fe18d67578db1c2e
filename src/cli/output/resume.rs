//! `--existing` for the file of `--output`: what an earlier run, perhaps a killed one, left in it.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{form, target};
use crate::cli::args::{Format, ReadArgs};
use crate::cli::inputs::name_bytes;
use crate::cli::sidecar::Existing;
use crate::pipeline::Input;

/// A file of results that is written on.
#[derive(Default)]
pub(in crate::cli) struct Old {
    /// Bytes that stay: whole records.
    pub(super) length: u64,
    /// Images that it tells of.
    told: HashSet<Key>,
    /// The text of one image without its name would be the whole of it.
    bare: bool,
}

/// A hash of an image's name and perhaps a page of it; names themselves would fill the memory.
type Key = [u8; 16];

/// One record of the file: which image, and where its record begins.
struct Entry {
    name: String,
    bytes: String,
    page: Option<u64>,
    /// More records of the same image may follow.
    part: bool,
    start: u64,
}

impl Old {
    /// None where the file is written anew, or not there yet.
    ///
    /// With sidecars, images whose sidecars are there are not read again, and what the file tells of them
    /// is kept. Without, the file is written anew unless `--existing` says `skip` (the images that it tells of
    /// are left out) or `append`.
    pub(in crate::cli) fn of(args: &ReadArgs) -> Result<Option<Old>> {
        let Some(path) = target(&args.output) else { return Ok(None) };
        let sidecars = args.sidecar.are_asked_for();
        let keep = match args.sidecar.existing {
            None => sidecars,
            Some(Existing::Skip | Existing::Append) => true,
            Some(Existing::Overwrite) => false,
            Some(Existing::Newer) if sidecars => true,
            Some(Existing::Prepend) if sidecars => false,
            Some(Existing::Newer | Existing::Prepend) => bail!(
                "--existing newer and prepend are for sidecars; --output goes with skip, append or \
                 overwrite"
            ),
        };
        let format = form(&args.output);
        let file = match File::open(path) {
            _ if !keep => return Ok(None),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            file => file.with_context(|| format!("can't read {path:?}"))?,
        };
        if !file.metadata()?.is_file() {
            return Ok(None);
        }
        if matches!(format, Format::Hocr | Format::Alto) {
            match args.sidecar.existing {
                None => return Ok(None),
                Some(_) => bail!(
                    "{path:?} is there, and hOCR and ALTO can't be written on; pass --existing overwrite"
                ),
            }
        }
        let skip = !sidecars && args.sidecar.existing == Some(Existing::Skip);
        Old::read(file, format, skip).map(Some).with_context(|| format!("can't read {path:?}"))
    }

    /// Goes through the file; names count where images are to be left out.
    fn read(file: File, format: Format, skip: bool) -> Result<Old> {
        let mut old = Old::default();
        let mut last: Vec<Entry> = Vec::new();
        let mut take = |entry: Entry, old: &mut Old| {
            if last.first().is_some_and(|first| first.key(None) != entry.key(None)) {
                last.clear();
            }
            old.told.extend([entry.key(None), entry.key(entry.page)]);
            last.push(entry);
        };
        old.length = match format {
            Format::Csv => table(file, b',', &mut |entry| take(entry, &mut old))?,
            Format::Tsv => table(file, b'\t', &mut |entry| take(entry, &mut old))?,
            _ => lines(file, format, &mut |entry| take(entry, &mut old))?,
        };
        if !skip {
            old.told.clear();
            return Ok(old);
        }
        old.bare = format == Format::Text && old.length > 0;
        // The last image may not have been told to its end: it is read again as a whole.
        if last.iter().any(|entry| entry.part) {
            old.length = last[0].start;
            for entry in &last {
                old.told.remove(&entry.key(None));
                old.told.remove(&entry.key(entry.page));
            }
        }
        Ok(old)
    }

    /// True if the file tells of this input; `single`: it is the only one.
    pub(in crate::cli) fn tells(&self, input: &Input, single: bool) -> bool {
        let bytes = input.origin.as_deref().and_then(name_bytes).unwrap_or_default();
        let page = input.page.map(|page| page as u64);
        (single && self.bare) || self.told.contains(&key(&input.name, &bytes, page))
    }

    /// The file, ready to be written on.
    pub(super) fn open(&self, path: &Path) -> std::io::Result<File> {
        let mut file = std::fs::OpenOptions::new().write(true).open(path)?;
        file.set_len(self.length)?;
        file.seek(SeekFrom::End(0))?;
        Ok(file)
    }
}

impl Entry {
    fn key(&self, page: Option<u64>) -> Key {
        key(&self.name, &self.bytes, page)
    }
}

fn key(name: &str, bytes: &str, page: Option<u64>) -> Key {
    let page = page.map_or(String::new(), |page| page.to_string());
    let mut first = [0; 16];
    first.copy_from_slice(&Sha256::digest(format!("{name}\0{bytes}\0{page}"))[..16]);
    first
}

/// Entries of JSON Lines and of lines of text; gives the length of the whole lines.
fn lines(file: File, format: Format, take: &mut dyn FnMut(Entry)) -> Result<u64> {
    let mut reader = BufReader::new(file);
    let (mut start, mut line) = (0, Vec::new());
    loop {
        line.clear();
        reader.read_until(b'\n', &mut line)?;
        let Some(whole) = line.strip_suffix(b"\n") else { return Ok(start) };
        let entry = match format {
            Format::Jsonl => of_json(whole, start),
            _ => of_text(whole, start),
        };
        entry.into_iter().for_each(&mut *take);
        start += line.len() as u64;
    }
}

fn of_json(line: &[u8], start: u64) -> Option<Entry> {
    let json: Value = serde_json::from_slice(line).ok()?;
    let text = |name: &str| json.get(name).and_then(Value::as_str).map(str::to_string);
    let page = json.get("page").and_then(Value::as_u64);
    let part = page.is_some() || json.get("line").is_some();
    let bytes = text("image_bytes").unwrap_or_default();
    Some(Entry { name: text("image")?, bytes, page, part, start })
}

/// `path TAB text` does not tell whether it is a part of an image.
fn of_text(line: &[u8], start: u64) -> Option<Entry> {
    let (path, _) = std::str::from_utf8(line).ok()?.split_once('\t')?;
    Some(Entry { name: unescape(path), bytes: String::new(), page: None, part: true, start })
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

/// Entries of a table; gives the length of the whole rows.
fn table(mut file: File, delimiter: u8, take: &mut dyn FnMut(Entry)) -> Result<u64> {
    let length = file.metadata()?.len();
    let mut last = [0];
    if length > 0 {
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        file.rewind()?;
    }
    let mut rows = csv::ReaderBuilder::new().delimiter(delimiter).flexible(true).from_reader(file);
    let columns = rows.headers()?.clone();
    let place = |name: &str| columns.iter().position(|column| column == name);
    let (image, page, line) = (place("image"), place("page"), place("line"));
    let mut record = csv::StringRecord::new();
    loop {
        let start = rows.position().byte();
        if !rows.read_record(&mut record)? {
            return Ok(if last == [b'\n'] { length } else { 0 });
        }
        // A row that was cut short, and nothing can follow it.
        let is_last = rows.position().byte() >= length;
        if record.len() != columns.len() || (is_last && last != [b'\n']) {
            return Ok(start);
        }
        let cell = |place: Option<usize>| place.and_then(|place| record.get(place));
        let Some(name) = cell(image) else { continue };
        let number = |place| cell(place).and_then(|cell| cell.parse::<u64>().ok());
        let part = number(page).is_some() || number(line).is_some();
        let (name, bytes) = (name.to_string(), String::new());
        take(Entry { name, bytes, page: number(page), part, start });
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn old(text: &str, format: Format, skip: bool) -> Old {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Old::read(File::open(file.path()).unwrap(), format, skip).unwrap()
    }

    fn tells(old: &Old, name: &str) -> bool {
        old.tells(&Input::file(PathBuf::from(name)), false)
    }

    #[test]
    fn whole_records_stay_and_their_images_are_told() {
        let json = "{\"image\":\"a.png\",\"text\":\"x\"}\n{\"image\":\"b.png\",\"error\":\"y\"}\n";
        let csv = "image,page,line,text,error\na.png,,,\"x\ny\",\nb.png,,,,y\n";
        for (text, format) in [(json, Format::Jsonl), (csv, Format::Csv)] {
            for torn in ["", "{\"image\":\"c.p", "c.png", "c.png,,,\"x\n"] {
                let old = old(&format!("{text}{torn}"), format, true);
                let expected = if torn.ends_with('\n') && format == Format::Jsonl {
                    text.len() + torn.len()
                } else {
                    text.len()
                };
                assert_eq!(old.length, expected as u64, "{torn:?} {format:?}");
                let found = ["a.png", "b.png", "c.png"].map(|name| tells(&old, name));
                assert_eq!(found, [true, true, false], "{torn:?} {format:?}");
            }
        }
    }

    #[test]
    fn an_image_of_parts_is_read_again_if_it_is_the_last() {
        let first = "{\"image\":\"a.tif\",\"page\":1}\n{\"image\":\"a.tif\",\"page\":2}\n";
        let second = "{\"image\":\"b.tif\",\"page\":1}\n";
        let found = old(&format!("{first}{second}"), Format::Jsonl, true);
        assert_eq!(found.length, first.len() as u64);
        assert!(tells(&found, "a.tif") && !tells(&found, "b.tif"));
        let page = |page| Input { page: Some(page), ..Input::file(PathBuf::from("a.tif")) };
        assert!(found.tells(&page(2), false) && !found.tells(&page(3), false));
        // Text does not tell.
        let text = "a\\tb.png\tx\nc.png\ty\n";
        let found = old(text, Format::Text, true);
        assert_eq!(found.length, 11);
        assert!(tells(&found, "a\tb.png") && !tells(&found, "c.png"));
        // Appending leaves all that is whole.
        let found = old(&format!("{text}d.p"), Format::Text, false);
        assert_eq!(found.length, text.len() as u64);
        assert!(!tells(&found, "a\tb.png"));
    }

    #[test]
    fn the_text_of_one_image_is_the_whole_file() {
        let input = Input::file(PathBuf::from("a.png"));
        assert!(old("some text\n", Format::Text, true).tells(&input, true));
        assert!(!old("some text\n", Format::Text, true).tells(&input, false));
        assert!(!old("", Format::Text, true).tells(&input, true));
    }
}
