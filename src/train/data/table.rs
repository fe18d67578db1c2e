//! A table of images and texts, in whichever form it is stored.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::Value;

use super::forms;
use super::order;

/// The names of the two columns; none takes the first of the usual names that is there.
#[derive(Clone, Debug, Default)]
pub struct TableOptions {
    pub image_column: Option<String>,
    pub text_column: Option<String>,
}

/// Names that are taken for the column of images, in this order.
pub const IMAGE_COLUMNS: &[&str] = &["image", "file_name", "image_path"];
/// Names that are taken for the column of texts, in this order.
pub const TEXT_COLUMNS: &[&str] = &["text", "caption"];

/// Images with their texts.
#[derive(Clone, Debug)]
pub struct Table {
    /// What was read, as the user named it.
    pub path: PathBuf,
    pub rows: Vec<Row>,
}

/// One image with one text. Several rows may name one image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Line of the file, counted from 1; in folders and archives the number of the image.
    pub line: usize,
    pub image: ImageSource,
    /// None for an image that has no text: nothing lies beside it, or its table says null.
    pub text: Option<String>,
}

impl Row {
    /// A row that names no image or no text. It fails where its image would be read, as a missing file does:
    /// one row is no reason to refuse a table.
    fn lost(table: &Path, line: usize, reason: String) -> Row {
        let image = ImageSource::Lost { table: table.into(), line, reason };
        Row { line, image, text: Some(String::new()) }
    }

    /// Where it stands and what it names.
    pub fn place(&self) -> String {
        match &self.image {
            ImageSource::Lost { line, .. } => format!("line {line}"),
            image => format!("line {}, {}", self.line, image.name()),
        }
    }
}

/// Where the bytes of an image lie.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ImageSource {
    File(PathBuf),
    /// A member of a tar file.
    Member {
        archive: Arc<Path>,
        name: String,
        offset: u64,
        size: u64,
    },
    /// What a row of a table names is no image; the line and the reason.
    Lost {
        table: Arc<Path>,
        line: usize,
        reason: String,
    },
}

impl ImageSource {
    /// A path, `archive.tar/member.png`, or the line of a table.
    pub fn name(&self) -> String {
        match self {
            ImageSource::File(path) => path.display().to_string(),
            ImageSource::Member { archive, name, .. } => format!("{}/{name}", archive.display()),
            ImageSource::Lost { table, line, .. } => format!("{}, line {line}", table.display()),
        }
    }

    /// The bytes of the file. The sentence of an error has no name in it: who reports it puts it before.
    pub fn bytes(&self) -> Result<Vec<u8>> {
        let told = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::NotFound => anyhow!("no such file"),
            std::io::ErrorKind::UnexpectedEof => anyhow!("the archive ends too early"),
            _ => anyhow!("can't be read: {error}"),
        };
        match self {
            ImageSource::Lost { reason, .. } => bail!("{reason}"),
            ImageSource::File(path) if path.is_dir() => bail!("is a directory"),
            ImageSource::File(path) => std::fs::read(path).map_err(told),
            ImageSource::Member { archive, offset, size, .. } => {
                let mut file = File::open(archive).map_err(told)?;
                file.seek(SeekFrom::Start(*offset)).map_err(told)?;
                let mut bytes = Vec::new();
                file.take(*size).read_to_end(&mut bytes).map_err(told)?;
                ensure!(bytes.len() as u64 == *size, "the archive ends too early");
                Ok(bytes)
            }
        }
    }
}

impl Table {
    /// Reads a CSV, TSV or JSONL file, a WebDataset tar, or a folder: with a metadata.csv or
    /// metadata.jsonl, with tar files, or of `name.png` + `name.txt` pairs.
    ///
    /// Relative paths start at the file's own folder. Images are not opened here.
    ///
    /// # Errors
    /// What is not there, not readable, of no known form, without the columns, or empty.
    pub fn read(path: &Path, options: &TableOptions) -> Result<Table> {
        let rows = if path.is_dir() {
            read_folder(path, options)?
        } else {
            ensure!(path.exists(), "no such file or directory: {path:?}");
            read_file(path, options)?
        };
        ensure!(!rows.is_empty(), "{path:?} has no rows");
        Ok(Table { path: path.to_path_buf(), rows })
    }

    /// The images in the order of their first rows, each with the numbers of its rows.
    pub fn images(&self) -> Vec<(&ImageSource, Vec<usize>)> {
        let mut places: HashMap<&ImageSource, usize> = HashMap::new();
        let mut images: Vec<(&ImageSource, Vec<usize>)> = Vec::new();
        for (index, row) in self.rows.iter().enumerate() {
            let place = *places.entry(&row.image).or_insert_with(|| {
                images.push((&row.image, Vec::new()));
                images.len() - 1
            });
            images[place].1.push(index);
        }
        images
    }

    /// Moves a part of the images, with all their rows, into a second table: drawn by `seed`, the
    /// order of the rows kept.
    ///
    /// # Errors
    /// A part outside of 0 to 1, or one that leaves either table empty.
    pub fn split(self, part: f64, seed: u64) -> Result<(Table, Table)> {
        ensure!(
            part > 0.0 && part < 1.0,
            "--eval-split {part}: expected a number between 0 and 1, as in 0.1"
        );
        let images = self.images();
        let count = (images.len() as f64 * part).round().max(1.0) as usize;
        ensure!(
            count < images.len(),
            "--eval-split {part} leaves no image to train on: {:?} has {} images",
            self.path,
            images.len()
        );
        let mut is_eval = vec![false; self.rows.len()];
        for &image in &order::permutation(images.len(), seed)[..count] {
            images[image].1.iter().for_each(|row| is_eval[*row] = true);
        }
        drop(images);
        let (eval, train): (Vec<_>, Vec<_>) =
            self.rows.into_iter().zip(is_eval).partition(|(_, is_eval)| *is_eval);
        let table = |rows: Vec<(Row, bool)>| Table {
            path: self.path.clone(),
            rows: rows.into_iter().map(|(row, _)| row).collect(),
        };
        Ok((table(train), table(eval)))
    }
}

/// By the ending of the name.
fn read_file(path: &Path, options: &TableOptions) -> Result<Vec<Row>> {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    match extension.to_ascii_lowercase().as_str() {
        "csv" => read_csv(path, b',', options),
        "tsv" => read_csv(path, b'\t', options),
        "jsonl" | "ndjson" => read_jsonl(path, options),
        "tar" => forms::read_tar(path),
        "gz" | "tgz" | "zst" | "xz" | "zip" => {
            bail!("{path:?} is compressed; unpack it, or give pipe:\"gzip -dc FILE.tar.gz\"")
        }
        _ => bail!(
            "{path:?}: the name does not end in .csv, .tsv, .jsonl or .tar, so its form is not known"
        ),
    }
}

fn read_folder(folder: &Path, options: &TableOptions) -> Result<Vec<Row>> {
    for name in ["metadata.csv", "metadata.jsonl", "metadata.tsv"] {
        let path = folder.join(name);
        if path.is_file() {
            return read_file(&path, options);
        }
    }
    forms::read_folder(folder)
}

/// The text of a table: UTF-8, with or without byte order mark.
fn read_text(path: &Path) -> Result<String> {
    let bytes = std::fs::read(path).with_context(|| format!("can't read {path:?}"))?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
        anyhow!("{path:?}, line {line}: not UTF-8; save the table in this encoding")
    })?;
    Ok(match text.strip_prefix('\u{feff}') {
        Some(rest) => rest.to_string(),
        None => text,
    })
}

fn read_csv(path: &Path, delimiter: u8, options: &TableOptions) -> Result<Vec<Row>> {
    let content = read_text(path)?;
    let text_bytes = content.as_bytes();
    let mut reader =
        csv::ReaderBuilder::new().delimiter(delimiter).flexible(true).from_reader(text_bytes);
    let told = |error: csv::Error| anyhow!("{path:?}: {error}");
    let header = reader.headers().map_err(told)?.clone();
    let names: Vec<&str> = header.iter().map(str::trim).collect();
    let image = column(&names, options.image_column.as_deref(), IMAGE_COLUMNS);
    if let (None, [one], b',') = (image, names.as_slice(), delimiter)
        && one.contains(';')
    {
        return read_csv(path, b';', options);
    }
    let missing = |flag: &str, wanted: Option<&str>, usual: &[&str]| {
        let wanted = wanted.map_or_else(|| usual.join(" or "), |name| format!("{name:?}"));
        anyhow!(
            "{path:?} has no column {wanted}; its header is {names:?} ({flag} names the column)"
        )
    };
    let image = image
        .ok_or_else(|| missing("--image-column", options.image_column.as_deref(), IMAGE_COLUMNS))?;
    let text = column(&names, options.text_column.as_deref(), TEXT_COLUMNS)
        .ok_or_else(|| missing("--text-column", options.text_column.as_deref(), TEXT_COLUMNS))?;
    let (mut line, mut counted) = (1, 0);
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record.map_err(told)?;
        // Counted here: with CRLF the reader's own count lags behind by one.
        let at = record.position().map_or(0, |position| position.byte() as usize);
        let blank =
            text_bytes[at..].iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        line += text_bytes[counted..at + blank].iter().filter(|byte| **byte == b'\n').count();
        counted = at + blank;
        rows.push(csv_row(path, line, &record, &names, (image, text)));
    }
    ensure!(
        !ends_in_quotes(&text_bytes[counted..], delimiter),
        "{path:?}, line {line}: a quote is opened and never closed, so all behind it would be one text"
    );
    Ok(rows)
}

/// A record as a row; its columns of the image and of the text are known.
fn csv_row(
    path: &Path,
    line: usize,
    record: &csv::StringRecord,
    names: &[&str],
    (image, text): (usize, usize),
) -> Row {
    let (found, expected) = (record.len(), names.len());
    let name = record.get(image).unwrap_or_default().trim();
    if found != expected {
        let reason = format!(
            "{found} fields where the header has {expected}; a text with the separator in it needs quotes"
        );
        return Row::lost(path, line, reason);
    }
    if name.is_empty() {
        return Row::lost(path, line, format!("the column {:?} is empty", names[image]));
    }
    Row {
        line,
        image: ImageSource::File(folder_of(path).join(name)),
        text: Some(record.get(text).unwrap_or_default().to_string()),
    }
}

/// True if the last field of a record is opened by a quote that nothing closes.
fn ends_in_quotes(record: &[u8], delimiter: u8) -> bool {
    let (mut begins, mut quoted) = (true, false);
    let mut bytes = record.iter().peekable();
    while let Some(&byte) = bytes.next() {
        if quoted {
            // A doubled quote is one of the text.
            quoted = byte != b'"' || bytes.next_if_eq(&&b'"').is_some();
        } else {
            quoted = begins && byte == b'"';
            begins = byte == delimiter || matches!(byte, b'\r' | b'\n');
        }
    }
    quoted
}

/// The place of the named column, else of the first usual name that is there.
fn column(names: &[&str], wanted: Option<&str>, usual: &[&str]) -> Option<usize> {
    let place = |name: &str| names.iter().position(|found| *found == name);
    match wanted {
        Some(name) => place(name),
        None => usual.iter().find_map(|name| place(name)),
    }
}

/// One object a line; the text may be a list of texts of the same image.
fn read_jsonl(path: &Path, options: &TableOptions) -> Result<Vec<Row>> {
    let folder = folder_of(path);
    let mut rows = Vec::new();
    for (index, text) in read_text(path)?.lines().enumerate() {
        let line = index + 1;
        if text.trim().is_empty() {
            continue;
        }
        let place = || format!("{path:?}, line {line}");
        let object: Value = serde_json::from_str(text).with_context(place)?;
        let keys: Vec<&str> = object
            .as_object()
            .map(|map| map.keys().map(String::as_str).collect())
            .unwrap_or_default();
        let value = |flag: &str, wanted: &Option<String>, usual: &[&str]| {
            let key = column(&keys, wanted.as_deref(), usual).with_context(|| {
                let wanted = wanted.clone().unwrap_or_else(|| usual.join(" or "));
                format!("{}: no key {wanted}; there are {keys:?} ({flag} names the key)", place())
            })?;
            Ok::<_, anyhow::Error>(&object[keys[key]])
        };
        let image = value("--image-column", &options.image_column, IMAGE_COLUMNS)?;
        let text = value("--text-column", &options.text_column, TEXT_COLUMNS)?;
        let Some(image) = image.as_str().filter(|name| !name.is_empty()) else {
            rows.push(Row::lost(path, line, "the image is not a path".to_string()));
            continue;
        };
        let image = ImageSource::File(folder.join(image));
        let texts: &[Value] = match text {
            // An empty list is one text that is not there: the image is not lost without a word.
            Value::Array(texts) if texts.is_empty() => &[Value::Null],
            Value::Array(texts) => texts,
            text => std::slice::from_ref(text),
        };
        rows.extend(texts.iter().map(|text| match text {
            Value::String(text) => Row { line, image: image.clone(), text: Some(text.clone()) },
            Value::Null => Row { line, image: image.clone(), text: None },
            _ => Row::lost(path, line, "the text is not a string".to_string()),
        }));
    }
    Ok(rows)
}

/// The folder that relative paths start at.
fn folder_of(path: &Path) -> PathBuf {
    path.parent().map(Path::to_path_buf).unwrap_or_default()
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
