//! `--explain`: for each image a page of its own that shows how its text came about.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use super::inputs::hex;
use super::output::finish_reason;
use crate::checkpoint::write_file;
use crate::encoders::Grid;
use crate::formats::{self, Explained, ExplainedToken, Map};
use crate::image::{png, png_of_opacity};
use crate::pipeline::{ExplainedStep, Explanation, Reading, Record, Sequence};
use crate::stderr::visible;

/// Attention over the picture: print stays legible below it.
const COLOR: [u8; 3] = [255, 64, 0];
const MOST_OPAQUE: f32 = 190.0;

/// Longer names of files are cut; file systems end at 255 bytes.
const LONGEST_NAME: usize = 180;

/// The folder of the pages.
pub(super) struct Explain {
    dir: PathBuf,
    model: String,
    /// Whose page a file is, both as hashes: an image of the same file name gets another.
    owners: HashMap<[u8; 8], [u8; 8]>,
}

impl Explain {
    pub(super) fn new(dir: &Path, model: &str) -> Explain {
        Explain { dir: dir.to_path_buf(), model: model.to_string(), owners: HashMap::new() }
    }

    /// Writes the record's page, whole or not at all; a failed image has none. `rejected` is the text that
    /// a placeholder stands for.
    pub(super) fn take(&mut self, record: &Record, rejected: Option<&str>) -> Result<()> {
        let Ok(reading) = &record.outcome else { return Ok(()) };
        let (Some(explanation), Some(best)) = (&reading.explanation, reading.sequences.first())
        else {
            return Ok(());
        };
        let page = self.page(record, reading, explanation, best, rejected)?;
        let path = self.path(record);
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).with_context(|| format!("can't make the directory {dir:?}"))?;
        }
        write_file(&path, formats::explain(&page).as_bytes())
    }

    fn page(
        &self,
        record: &Record,
        reading: &Reading,
        explanation: &Explanation,
        best: &Sequence,
        rejected: Option<&str>,
    ) -> Result<Explained> {
        let (seen, grid) = (&explanation.seen, explanation.grid);
        let part = |cells: i64, cell: i64, side: usize| (cells * cell) as f64 / side.max(1) as f64;
        let tokens = best.tokens.iter().zip(&best.token_ids).zip(&best.token_logprobs);
        let tokens = tokens
            .zip(&explanation.steps)
            .map(|(((token, id), logprob), step)| explained(token, *id, *logprob, step, grid));
        Ok(Explained {
            name: name(record),
            text: best.text.clone(),
            rejected: rejected.map(str::to_string),
            confidence: best.confidence,
            finish: finish_reason(best.finish).to_string(),
            model: self.model.clone(),
            size: (reading.width, reading.height),
            given: png(&explanation.given)?,
            seen: png(seen)?,
            seen_size: (seen.width, seen.height),
            covered: (
                part(grid.columns, grid.cell.1, seen.width),
                part(grid.rows, grid.cell.0, seen.height),
            ),
            tokens: tokens.collect::<Result<_>>()?,
        })
    }

    /// The page's file: the image's own path below the folder. Where that is the page of another image
    /// of this run, a hash of the name keeps them apart.
    fn path(&mut self, record: &Record) -> PathBuf {
        let (folders, file) = place(record);
        let number = |word: &str, number: Option<usize>| {
            number.map_or(String::new(), |number| format!(".{word}{number}"))
        };
        let line = record.region.map(|region| region.line);
        let ending = format!("{}{}.html", number("page", record.page), number("line", line));
        let owner = hash(record.image.as_bytes());
        let with = |middle: &str| {
            let mut name = file.clone();
            name.push(format!("{middle}{ending}"));
            self.dir.join(&folders).join(name)
        };
        let path = with("");
        let key = hash(path.as_os_str().as_encoded_bytes());
        if *self.owners.entry(key).or_insert(owner) == owner {
            return path;
        }
        with(&format!("-{}", hex(&owner)))
    }
}

fn explained(
    token: &str,
    id: i64,
    logprob: f64,
    step: &ExplainedStep,
    grid: Grid,
) -> Result<ExplainedToken> {
    let shown = |token: &str| visible(token, false).into_owned();
    let best = step.best.iter().map(|(token, id, logprob)| (shown(token), *id, *logprob));
    Ok(ExplainedToken {
        token: shown(token),
        id,
        logprob,
        best: best.collect(),
        last: map(&step.last, grid)?,
        mean: map(&step.mean, grid)?,
    })
}

/// The states that have a place, as a picture of their shares. attention [S]
fn map(attention: &[f32], grid: Grid) -> Result<Map> {
    let (rows, columns) = (grid.rows as usize, grid.columns as usize);
    let leading = grid.leading as usize;
    let placed = attention.get(leading..leading + rows * columns).unwrap_or_default();
    let peak = placed.iter().copied().fold(0.0, f32::max);
    let opacity = |share: &f32| (share / peak.max(f32::MIN_POSITIVE) * MOST_OPAQUE).round() as u8;
    let opacity: Vec<u8> = placed.iter().map(opacity).collect();
    let sum = |shares: &[f32]| shares.iter().map(|share| f64::from(*share)).sum::<f64>();
    Ok(Map {
        picture: png_of_opacity(COLOR, &opacity, columns, rows)?,
        peak: f64::from(peak),
        elsewhere: sum(attention) - sum(placed),
    })
}

/// As a person would name it.
fn name(record: &Record) -> String {
    let page = record.page.map_or(String::new(), |page| format!(", page {page}"));
    let line = record.region.map_or(String::new(), |region| format!(", line {}", region.line));
    format!("{}{page}{line}", record.image)
}

/// The folders and the name of an image's page, its ending aside; nothing that leads out of the folder.
fn place(record: &Record) -> (PathBuf, OsString) {
    let mut parts: Vec<OsString> = match &record.origin {
        Some(origin) => origin.components().filter_map(plain).collect(),
        // A URL, a member with an odd name, or standard input.
        None => record.image.split('/').filter_map(tame).collect(),
    };
    let file = parts.pop().unwrap_or_else(|| "stdin".into());
    (parts.iter().map(|part| shortened(part)).collect(), shortened(&file))
}

fn plain(part: Component) -> Option<OsString> {
    match part {
        Component::Normal(part) => Some(part.to_os_string()),
        Component::ParentDir => Some("__".into()),
        _ => None,
    }
}

fn tame(part: &str) -> Option<OsString> {
    let kept = |c: char| if c.is_alphanumeric() || "._-".contains(c) { c } else { '_' };
    let part: String = part.chars().map(kept).collect();
    (!matches!(part.as_str(), "" | "." | ".." | "-")).then(|| part.into())
}

fn shortened(part: &OsStr) -> OsString {
    if part.len() <= LONGEST_NAME {
        return part.to_os_string();
    }
    let text = part.to_string_lossy();
    let mut end = LONGEST_NAME / 2;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}-{}", &text[..end], hex(&hash(part.as_encoded_bytes()))).into()
}

/// The beginning of the SHA-256.
fn hash(bytes: &[u8]) -> [u8; 8] {
    let mut first = [0; 8];
    first.copy_from_slice(&Sha256::digest(bytes)[..8]);
    first
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::pipeline::{End, Input, Region};

    fn record(image: &str, origin: Option<&str>) -> Record {
        Record {
            image: image.to_string(),
            origin: origin.map(PathBuf::from),
            page: None,
            region: None,
            end: End::Input,
            outcome: Err(anyhow::anyhow!("not read")),
        }
    }

    #[test]
    fn pages_lie_where_their_images_do() {
        let mut explain = Explain::new(Path::new("out"), "m");
        let mut path = |image: &str, origin: Option<&str>| {
            let path = explain.path(&record(image, origin));
            path.to_str().unwrap().replace('\\', "/")
        };
        assert_eq!(path("a/b.jpg", Some("a/b.jpg")), "out/a/b.jpg.html");
        assert_eq!(path("a/b.png", Some("a/b.png")), "out/a/b.png.html");
        assert_eq!(path("x.tar/m/1.png", Some("x.tar/m/1.png")), "out/x.tar/m/1.png.html");
        assert_eq!(path("../b.jpg", Some("../b.jpg")), "out/__/b.jpg.html");
        assert_eq!(path("-", None), "out/stdin.html");
        assert_eq!(path("https://x.y/a.png?b=/c", None), "out/https_/x.y/a.png_b_/c.html");
        assert_eq!(path("x.zip/../../e.png", None), "out/x.zip/e.png.html");
        // The same file name again: of the same image, and of another one.
        assert_eq!(path("a/b.jpg", Some("a/b.jpg")), "out/a/b.jpg.html");
        let other = path("/a/b.jpg", Some("/a/b.jpg"));
        assert!(other.starts_with("out/a/b.jpg-") && other.ends_with(".html"), "{other}");
        let long = path(&"ä".repeat(120), None);
        assert!(long.len() < 130 && long.ends_with(".html"), "{long}");
    }

    #[test]
    fn pages_and_lines_have_files_of_their_own() {
        let mut explain = Explain::new(Path::new("out"), "m");
        let region = Some(Region { line: 3, bbox: [0; 4] });
        let input = Input::file(PathBuf::from("a.tif"));
        let record = Record { page: Some(2), region, ..record(&input.name, Some("a.tif")) };
        assert_eq!(explain.path(&record), Path::new("out/a.tif.page2.line3.html"));
        assert_eq!(name(&record), "a.tif, page 2, line 3");
    }

    #[test]
    fn maps_leave_out_what_has_no_place() {
        let grid = Grid { leading: 1, rows: 1, columns: 2, cell: (8, 8) };
        let map = map(&[0.25, 0.5, 0.125, 0.125], grid).unwrap();
        assert_eq!((map.peak, map.elsewhere), (0.5, 0.375));
        let decoded = crate::image::decode(&map.picture, &Default::default()).unwrap();
        assert_eq!((decoded.image.width, decoded.image.height), (2, 1));
        // Red stays full over white, green falls with the share.
        assert_eq!((decoded.image.data[0], decoded.image.data[3]), (255, 255));
        assert!(decoded.image.data[1] < decoded.image.data[4]);
    }
}
