//! Forms without a table: folders of `name.png` + `name.txt`, and tar files in WebDataset's form.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};

use super::table::{ImageSource, Row};

/// Endings of image files.
const IMAGES: &[&str] =
    &["png", "jpg", "jpeg", "webp", "gif", "tif", "tiff", "bmp", "pnm", "pbm", "pgm", "ppm"];
/// Endings of text files; `gt.txt` is what OCR tools call a ground truth.
const TEXTS: &[&str] = &["txt", "gt.txt"];
/// A text of more bytes is none.
const MAX_TEXT: u64 = 1 << 20;

/// What a member of a WebDataset is, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Image,
    Text,
}

/// Splits a name as WebDataset does: the key goes to the first dot of the last component, the ending
/// is the rest. None for hidden files and those of other kinds.
pub(super) fn split_name(name: &str) -> Option<(&str, Part)> {
    let base = name.rfind('/').map_or(0, |slash| slash + 1);
    let dot = base + name[base..].find('.')?;
    if dot == base {
        return None;
    }
    let ending = name[dot + 1..].to_ascii_lowercase();
    let part = match ending.as_str() {
        ending if IMAGES.contains(&ending) => Part::Image,
        ending if TEXTS.contains(&ending) => Part::Text,
        _ => return None,
    };
    Some((&name[..dot], part))
}

/// A text file's content without its last line end.
pub(super) fn text_of(bytes: Vec<u8>) -> Result<String> {
    let Ok(mut text) = String::from_utf8(bytes) else { bail!("the text is not UTF-8") };
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(match text.strip_prefix('\u{feff}') {
        Some(rest) => rest.to_string(),
        None => text,
    })
}

/// A folder of tar files, or of pairs at any depth.
pub(super) fn read_folder(folder: &Path) -> Result<Vec<Row>> {
    let mut files = Vec::new();
    walk(folder, &mut files)?;
    let ends = |path: &Path, endings: &[&str]| {
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        endings.contains(&ending.to_ascii_lowercase().as_str())
    };
    let mut rows = Vec::new();
    for path in files.iter().filter(|path| ends(path, &["tar"])) {
        rows.extend(read_tar(path)?);
    }
    if !rows.is_empty() {
        return Ok(rows);
    }
    let mut with_text = 0;
    for image in files.iter().filter(|path| ends(path, IMAGES)) {
        let text = TEXTS.iter().map(|ending| image.with_extension(ending));
        let text = match text.into_iter().find(|path| path.is_file()) {
            Some(path) => {
                with_text += 1;
                let bytes = std::fs::read(&path).with_context(|| format!("can't read {path:?}"))?;
                Some(text_of(bytes).with_context(|| format!("{path:?}"))?)
            }
            None => None,
        };
        rows.push(Row { line: rows.len() + 1, image: ImageSource::File(image.clone()), text });
    }
    if with_text == 0 {
        let table = files.iter().find(|path| ends(path, &["csv", "tsv", "jsonl"]));
        let hint = table.map_or(String::new(), |path| format!("; did you mean {path:?}?"));
        bail!(
            "{folder:?} has no metadata.csv or metadata.jsonl, no tar files and no pairs of \
             name.png and name.txt{hint}"
        );
    }
    Ok(rows)
}

/// All files below a folder, sorted; hidden ones and linked folders are left out.
fn walk(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let told = || format!("can't list {folder:?}");
    let entries = std::fs::read_dir(folder).with_context(told)?;
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<std::io::Result<_>>()
        .with_context(told)?;
    paths.sort();
    for path in paths {
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        match path.is_dir() {
            _ if hidden => {}
            true if path.is_symlink() => {}
            true => walk(&path, files)?,
            false => files.push(path),
        }
    }
    Ok(())
}

/// The images of a tar file: the texts beside them are read, of the images only the place is noted.
pub(super) fn read_tar(path: &Path) -> Result<Vec<Row>> {
    let archive: Arc<Path> = path.into();
    let told = || format!("can't read the tar file {path:?}");
    let file = File::open(path).with_context(told)?;
    let mut rows: Vec<Row> = Vec::new();
    let mut pairs = Pairs::default();
    let mut tar = tar::Archive::new(BufReader::new(file));
    for entry in tar.entries_with_seek().with_context(told)? {
        let mut entry = entry.with_context(told)?;
        let Some((key, part, name)) = member(&entry) else { continue };
        let (offset, size) = (entry.raw_file_position(), entry.size());
        let pair = match part {
            Part::Image => {
                let archive = archive.clone();
                let image = ImageSource::Member { archive, name, offset, size };
                rows.push(Row { line: rows.len() + 1, image, text: None });
                pairs.image(key, rows.len() - 1)
            }
            Part::Text => {
                let text =
                    read_text(&mut entry, size).with_context(|| format!("{path:?}/{name}"))?;
                pairs.text(key, text)
            }
        };
        if let Some((image, text)) = pair {
            rows[image].text = Some(text);
        }
    }
    let with_text = rows.iter().any(|row| row.text.is_some());
    ensure!(with_text, "{path:?} has no pairs of name.png and name.txt");
    Ok(rows)
}

/// Key, kind and full name of a tar's member; none for what is no file of a pair.
pub(super) fn member<R: Read>(entry: &tar::Entry<'_, R>) -> Option<(String, Part, String)> {
    if !entry.header().entry_type().is_file() {
        return None;
    }
    let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
    let (key, part) = split_name(&name)?;
    Some((key.to_string(), part, name))
}

/// The text of a member of `size` bytes.
pub(super) fn read_text(from: &mut impl Read, size: u64) -> Result<String> {
    ensure!(size <= MAX_TEXT, "a text of {size} bytes is too long to be a label");
    let mut bytes = Vec::new();
    from.read_to_end(&mut bytes)?;
    text_of(bytes)
}

/// Puts neighbours with the same key together. Holds one unfinished pair at a time.
pub(super) struct Pairs<I> {
    key: String,
    image: Option<I>,
    text: Option<String>,
    /// Images and texts that stayed alone.
    pub(super) single: usize,
}

impl<I> Default for Pairs<I> {
    fn default() -> Self {
        Pairs { key: String::new(), image: None, text: None, single: 0 }
    }
}

impl<I> Pairs<I> {
    pub(super) fn image(&mut self, key: String, image: I) -> Option<(I, String)> {
        self.turn_to(key);
        self.image = Some(image);
        self.take()
    }

    pub(super) fn text(&mut self, key: String, text: String) -> Option<(I, String)> {
        self.turn_to(key);
        self.text = Some(text);
        self.take()
    }

    fn turn_to(&mut self, key: String) {
        if key != self.key {
            self.single += usize::from(self.image.is_some() || self.text.is_some());
            (self.image, self.text, self.key) = (None, None, key);
        }
    }

    fn take(&mut self) -> Option<(I, String)> {
        match (self.image.take(), self.text.take()) {
            (Some(image), Some(text)) => Some((image, text)),
            (image, text) => {
                (self.image, self.text) = (image, text);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_split_at_the_first_dot_of_the_last_component() {
        let table = [
            ("a.png", Some(("a", Part::Image))),
            ("dir.v2/a.JPEG", Some(("dir.v2/a", Part::Image))),
            ("a.gt.txt", Some(("a", Part::Text))),
            ("x/0001.txt", Some(("x/0001", Part::Text))),
            ("a.seg.png", None),
            ("x/.hidden.png", None),
            ("README", None),
            ("a.json", None),
        ];
        for (name, expected) in table {
            assert_eq!(split_name(name), expected, "{name}");
        }
    }

    #[test]
    fn neighbours_make_pairs() {
        let mut pairs = Pairs::default();
        assert_eq!(pairs.text("a".into(), "A".into()), None);
        assert_eq!(pairs.image("a".into(), 1), Some((1, "A".to_string())));
        assert_eq!(pairs.image("b".into(), 2), None);
        assert_eq!(pairs.image("c".into(), 3), None);
        assert_eq!(pairs.text("c".into(), "C".into()), Some((3, "C".to_string())));
        assert_eq!(pairs.single, 1);
    }
}
