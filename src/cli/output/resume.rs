//! `--existing` for the file of `--output`: what an earlier run, perhaps a killed one, left in it.

use std::collections::{HashSet, VecDeque};
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};

use super::entries::{self, Entry};
use super::{form, target};
use crate::cli::args::{Format, ReadArgs};
use crate::cli::inputs::name_bytes;
use crate::cli::sidecar::Existing;
use crate::pipeline::{Input, Record};

/// A file of results that is written on.
#[derive(Default)]
pub(in crate::cli) struct Old {
    path: PathBuf,
    /// Bytes that stay.
    length: u64,
    /// Bytes behind them, of a record that was cut short.
    torn: u64,
    /// What makes the last line that stays a whole one.
    missing: Vec<u8>,
    /// Of a table.
    header: Option<Vec<String>>,
    /// Images that it tells of.
    told: HashSet<Key>,
    /// What it tells of an image that is read again.
    held: Option<Held>,
    /// The text of one image without its name would be the whole of it.
    bare: bool,
}

/// A hash of an image's name and perhaps a page of it; names themselves would fill the memory.
type Key = [u8; 16];

/// Records of the file's last image, which may not have been told to its end. It is read again as a
/// whole, and these are not written twice.
#[derive(Clone)]
pub(super) struct Held {
    key: Key,
    parts: VecDeque<String>,
}

impl Held {
    /// True once for each record that the file has; `part` sets it apart from others of its image.
    pub(super) fn takes(&mut self, record: &Record, part: &str) -> bool {
        let bytes = record.origin.as_deref().and_then(name_bytes).unwrap_or_default();
        if self.parts.is_empty() || self.key != key(&record.image, &bytes, None) {
            return false;
        }
        // They come in the same order.
        let found = self.parts.iter().position(|held| held == part);
        found.and_then(|at| self.parts.remove(at)).is_some()
    }
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
        // A pipe has nothing to keep, and would wait for its writer.
        if !keep || !path.is_file() {
            return Ok(None);
        }
        let file = File::open(path).with_context(|| format!("can't read {path:?}"))?;
        if matches!(format, Format::Hocr | Format::Alto) {
            match args.sidecar.existing {
                None => return Ok(None),
                Some(_) => bail!(
                    "{path:?} is there, and hOCR and ALTO can't be written on; pass --existing overwrite"
                ),
            }
        }
        let skip = !sidecars && args.sidecar.existing == Some(Existing::Skip);
        let append = args.sidecar.existing == Some(Existing::Append);
        let old = Old::read(file, format, skip, append);
        let old = old.with_context(|| format!("can't read {path:?}"))?;
        Ok(Some(Old { path: path.to_path_buf(), ..old }))
    }

    /// Goes through the file; with `skip` names count, images are to be left out. `append`: nothing is
    /// taken away.
    fn read(file: File, format: Format, skip: bool, append: bool) -> Result<Old> {
        let mut told: HashSet<Key> = HashSet::new();
        let mut last: Vec<Entry> = Vec::new();
        let found = entries::walk(file, format, &mut |entry| {
            if last.first().is_some_and(|first| key_of(first, None) != key_of(&entry, None)) {
                last.clear();
            }
            if skip {
                told.extend([key_of(&entry, None), key_of(&entry, entry.page)]);
                last.push(entry);
            }
        })?;
        let (length, header, missing) = (found.length, found.header, found.missing);
        let mut old = match found.torn {
            0 => Old { length, header, missing, ..Old::default() },
            torn if append => Old { length: length + torn, header, missing, ..Old::default() },
            torn => Old { length, header, torn, ..Old::default() },
        };
        if !skip {
            return Ok(old);
        }
        old.bare = format == Format::Text && old.length > 0;
        if last.iter().any(|entry| entry.is_part) {
            for entry in &last {
                told.remove(&key_of(entry, None));
                told.remove(&key_of(entry, entry.page));
            }
            let key = key_of(&last[0], None);
            old.held =
                Some(Held { key, parts: last.into_iter().map(|entry| entry.part).collect() });
        }
        old.told = told;
        Ok(old)
    }

    /// True if the file tells of this input; `single`: it is the only one.
    pub(in crate::cli) fn tells(&self, input: &Input, single: bool) -> bool {
        let bytes = input.origin.as_deref().and_then(name_bytes).unwrap_or_default();
        let page = input.page.map(|page| page as u64);
        (single && self.bare) || self.told.contains(&key(&input.name, &bytes, page))
    }

    /// What the file tells of an image that is read again.
    pub(super) fn held(&self) -> Option<Held> {
        self.held.clone()
    }

    /// True if the table has yet to get its header.
    ///
    /// # Errors
    /// It has another one than `columns`: rows of two widths would be no table.
    pub(super) fn lacks_header(&self, columns: &[&str], delimiter: u8) -> Result<bool> {
        let Some(header) = &self.header else { return Ok(true) };
        let delimiter = char::from(delimiter).to_string();
        let (found, ours) = (header.join(&delimiter), columns.join(&delimiter));
        if self.is_begun(&found, &ours) {
            return Ok(true);
        }
        ensure!(
            found == ours,
            "{:?} has other columns than this run would write; pass the flags that it was written with \
             (such as --details), name another file, or pass --existing overwrite",
            self.path
        );
        Ok(false)
    }

    /// All there is is the beginning of our own header.
    fn is_begun(&self, found: &str, ours: &str) -> bool {
        self.length == found.len() as u64 && ours.starts_with(found)
    }

    /// The file, ready to be written on; `anew`: nothing in it is worth keeping.
    pub(super) fn open(&self, anew: bool) -> std::io::Result<File> {
        let mut file = std::fs::OpenOptions::new().write(true).open(&self.path)?;
        if anew {
            file.set_len(0)?;
            return Ok(file);
        }
        if self.torn > 0 {
            file.set_len(self.length)?;
        }
        file.seek(SeekFrom::End(0))?;
        file.write_all(&self.missing)?;
        Ok(file)
    }

    /// What is left out of the file, if something is.
    pub(in crate::cli) fn loss(&self) -> Option<String> {
        let (path, bytes) = (&self.path, self.torn);
        (bytes > 0).then(|| {
            format!("{path:?} ended in a record that was cut short; its {bytes} bytes are removed")
        })
    }
}

fn key_of(entry: &Entry, page: Option<u64>) -> Key {
    key(&entry.name, &entry.bytes, page)
}

fn key(name: &str, bytes: &str, page: Option<u64>) -> Key {
    let page = page.map_or(String::new(), |page| page.to_string());
    let mut first = [0; 16];
    first.copy_from_slice(&Sha256::digest(format!("{name}\0{bytes}\0{page}"))[..16]);
    first
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn old(text: &str, format: Format, skip: bool) -> Old {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Old::read(File::open(file.path()).unwrap(), format, skip, !skip).unwrap()
    }

    fn tells(old: &Old, name: &str) -> bool {
        old.tells(&Input::file(PathBuf::from(name)), false)
    }

    /// What the file is when it has been opened to be written on.
    fn opened(text: &str, format: Format, skip: bool) -> String {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let old = Old::read(File::open(file.path()).unwrap(), format, skip, !skip).unwrap();
        Old { path: file.path().to_path_buf(), ..old }.open(false).unwrap();
        std::fs::read_to_string(file.path()).unwrap()
    }

    #[test]
    fn whole_records_stay_and_their_images_are_told() {
        let json = "{\"image\":\"a.png\",\"text\":\"x\"}\n{\"image\":\"b.png\",\"error\":\"y\"}\n";
        let csv = "image,page,line,text,error\na.png,,,\"x\ny\",\nb.png,,,,y\n";
        for (text, format, torn) in [
            (json, Format::Jsonl, ""),
            (json, Format::Jsonl, "{\"image\":\"c.p"),
            (csv, Format::Csv, ""),
            (csv, Format::Csv, "c.png"),
            (csv, Format::Csv, "c.png,,,\"x\n"),
        ] {
            let whole = format!("{text}{torn}");
            let old = old(&whole, format, true);
            assert_eq!(old.loss().is_some(), !torn.is_empty(), "{torn:?}");
            assert_eq!(opened(&whole, format, true), text, "{torn:?} {format:?}");
            let found = ["a.png", "b.png", "c.png"].map(|name| tells(&old, name));
            assert_eq!(found, [true, true, false], "{torn:?} {format:?}");
        }
    }

    #[test]
    fn what_is_no_torn_record_is_completed() {
        let table = [
            (Format::Text, false, "a note", "a note\n"),
            (Format::Text, true, "a note", "a note\n"),
            (Format::Text, false, "a.png\tx", "a.png\tx\n"),
            (Format::Jsonl, true, "a note", "a note\n"),
            (Format::Jsonl, false, "{\"image\":\"c.p", "{\"image\":\"c.p\n"),
            (Format::Jsonl, true, "{\"image\":\"c.png\"}", "{\"image\":\"c.png\"}\n"),
            (Format::Csv, true, "a,b\n1,2", "a,b\n1,2\n"),
            (Format::Csv, false, "a,b,c\n1,\"2", "a,b,c\n1,\"2\",\n"),
            (Format::Csv, false, "a,b\n1", "a,b\n1,\n"),
            (Format::Csv, false, "a,b\n1\n2,3,4\n", "a,b\n1\n2,3,4\n"),
            (Format::Tsv, true, "a\tb\n1\n", "a\tb\n1\n"),
            (Format::Csv, true, "a,b", "a,b\n"),
            (Format::Csv, true, "", ""),
        ];
        for (format, skip, text, expected) in table {
            assert_eq!(opened(text, format, skip), expected, "{text:?} {format:?} {skip}");
        }
    }

    #[test]
    fn tables_are_written_on_under_their_own_header() {
        let lacks =
            |text: &str| old(text, Format::Csv, false).lacks_header(&["image", "text"], b',');
        assert!(!lacks("image,text\na.png,x\n").unwrap());
        assert!(
            !lacks("image,text\n").unwrap() && lacks("").unwrap() && lacks("image,te").unwrap()
        );
        for text in ["name,x\n1,2\n", "image,text,error\n", "image\n", "image,te\n"] {
            let told = lacks(text).unwrap_err().to_string();
            assert!(told.contains("other columns than this run would write"), "{text:?}: {told}");
        }
    }

    #[test]
    fn names_that_are_no_unicode_are_told_by_a_table() {
        let table = "image,text,image_bytes\n\u{fffd}.png,x,ff2e706e67\nb.png,y,\n";
        let found = old(table, Format::Csv, true);
        assert!(found.told.contains(&key("\u{fffd}.png", "ff2e706e67", None)));
        assert!(tells(&found, "b.png"));
    }

    #[test]
    fn an_image_of_parts_is_read_again_if_it_is_the_last() {
        let first = "{\"image\":\"a.tif\",\"page\":1}\n{\"image\":\"a.tif\",\"page\":2}\n";
        let second = "{\"image\":\"b.tif\",\"page\":1}\n";
        let whole = format!("{first}{second}");
        let found = old(&whole, Format::Jsonl, true);
        assert_eq!(opened(&whole, Format::Jsonl, true), whole);
        assert!(tells(&found, "a.tif") && !tells(&found, "b.tif"));
        let page = |page| Input { page: Some(page), ..Input::file(PathBuf::from("a.tif")) };
        assert!(found.tells(&page(2), false) && !found.tells(&page(3), false));
        // What is there is not written twice.
        let record = |image: &str| Record {
            image: image.to_string(),
            origin: None,
            page: None,
            region: None,
            end: crate::pipeline::End::Input,
            outcome: Err(anyhow::anyhow!("not read")),
        };
        let mut held = found.held().unwrap();
        let page = |page| entries::part(Some(page), None);
        assert!(!held.takes(&record("a.tif"), &page(1)) && !held.takes(&record("b.tif"), &page(2)));
        assert!(held.takes(&record("b.tif"), &page(1)) && !held.takes(&record("b.tif"), &page(1)));
        // Text does not tell.
        let text = "a\\tb.png\tx\nc.png\ty\n";
        let found = old(text, Format::Text, true);
        assert!(tells(&found, "a\tb.png") && !tells(&found, "c.png"));
        assert!(found.held().unwrap().takes(&record("c.png"), "c.png\ty"));
        assert!(!tells(&old(text, Format::Text, false), "a\tb.png"));
    }

    #[test]
    fn the_text_of_one_image_is_the_whole_file() {
        let input = Input::file(PathBuf::from("a.png"));
        assert!(old("some text\n", Format::Text, true).tells(&input, true));
        assert!(!old("some text\n", Format::Text, true).tells(&input, false));
        assert!(!old("", Format::Text, true).tells(&input, true));
    }
}
