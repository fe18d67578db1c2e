//! The whole table is looked at before the first step: a fault found after hours is found too late.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Result, bail};
use rayon::prelude::*;
use unicode_normalization::UnicodeNormalization;

use super::batches::{Dataset, Sample};
use super::images::Images;
use super::labels::{Label, Labeller};
use super::table::{ImageSource, Table};
use crate::image::{DecodeOptions, ImageProcessor};

/// How a table is checked and held.
#[derive(Clone, Debug)]
pub struct CheckOptions {
    /// Leave rows out that can't be used, instead of refusing the table.
    pub skip_bad_rows: bool,
    pub decode: DecodeOptions,
    /// See [`Images::new`].
    pub cache_bytes: u64,
    pub arranged: bool,
    /// Images behind this many are checked by the heads and ends of their files; [`WHOLE`].
    pub whole: usize,
}

/// Memory for images between epochs.
pub const CACHE_BYTES: u64 = 1 << 30;

/// So many images are decoded before the first step: of a larger table, it would take too long.
pub const WHOLE: usize = 50_000;
/// Faults of one kind that are told by name.
const NAMED: usize = 3;

/// A table that was checked.
pub struct Prepared {
    pub dataset: Dataset,
    /// The rows that are used.
    pub table: Table,
    pub report: Report,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Report {
    /// Rows of the table, and different images among those that can be used.
    pub rows: usize,
    pub images: usize,
    /// Rows that can't be used, each with its reason.
    pub bad: Vec<String>,
    /// Rows whose text is longer than the limit.
    pub cut: Vec<String>,
    /// Rows with characters that the vocabulary lacks, and these characters with their counts.
    pub unknown: Vec<String>,
    pub unknown_characters: Vec<(char, usize)>,
    /// Rows whose text does not come back from the tokenizer as it was.
    pub changed: Vec<String>,
    /// Rows that name the same image with the same text as an earlier one.
    pub repeated: usize,
    /// The shortest and the longest label in tokens, and the mean.
    pub tokens: (usize, usize, f64),
    /// Of the images behind this many, only the heads and ends were looked at.
    pub partly: Option<usize>,
    /// Three labels: the text, its tokens, the text that comes back.
    pub examples: Vec<(String, Vec<String>, String)>,
    max_target_length: usize,
    hashes: HashSet<u64>,
}

/// Decodes every image, encodes every text. `progress` is told how many images of all are done.
///
/// # Errors
/// Rows that can't be used, unless they are to be skipped; no row that can.
pub fn prepare(
    table: Table,
    labeller: &Labeller,
    processor: &ImageProcessor,
    options: &CheckOptions,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Prepared> {
    let mut sources: Vec<ImageSource> = Vec::new();
    let mut image_of_row = vec![0; table.rows.len()];
    for (image, (source, rows)) in table.images().into_iter().enumerate() {
        sources.push(source.clone());
        rows.iter().for_each(|row| image_of_row[*row] = image);
    }
    let (decode, bytes) = (options.decode, options.cache_bytes);
    let images = Images::new(sources, processor.clone(), decode, bytes, options.arranged);
    let labels: Vec<Result<Label>> = table
        .rows
        .par_iter()
        .map(|row| labeller.encode(row.text.as_deref().unwrap_or_default()))
        .collect();
    let done = AtomicUsize::new(0);
    let checked: Vec<Result<u64>> = (0..images.len())
        .into_par_iter()
        .map(|image| {
            let checked = images.check(image, image < options.whole);
            progress(done.fetch_add(1, Ordering::Relaxed) + 1, images.len());
            checked
        })
        .collect();

    let mut report = Report {
        rows: table.rows.len(),
        partly: Some(options.whole).filter(|whole| images.len() > *whole),
        max_target_length: labeller.max_target_length(),
        ..Report::default()
    };
    let (mut kept, mut samples) = (Vec::new(), Vec::new());
    let mut seen = HashSet::new();
    let mut unknown: HashMap<char, usize> = HashMap::new();
    for ((row, image), label) in table.rows.into_iter().zip(image_of_row).zip(labels) {
        let place = row.place();
        let text = row.text.as_deref().unwrap_or_default();
        let label = match (&checked[image], label) {
            (Err(error), _) => {
                report.bad.push(format!("{place}: {error:#}"));
                continue;
            }
            (_, _) if text.trim().is_empty() => {
                report.bad.push(format!("{place}: no text"));
                continue;
            }
            // Not the row's fault: tokenizer and decoder do not belong together.
            (_, label) => label?,
        };
        note(&mut report, &mut unknown, labeller, text, &label, place)?;
        if let Ok(hash) = checked[image] {
            report.hashes.insert(hash);
            report.repeated += usize::from(!seen.insert((hash, text.to_string())));
        }
        samples.push(Sample { image, label: label.ids });
        kept.push(row);
    }
    report.unknown_characters = unknown.into_iter().collect();
    report.unknown_characters.sort_by_key(|(c, count)| (std::cmp::Reverse(*count), *c));
    let used: HashSet<usize> = samples.iter().map(|sample| sample.image).collect();
    report.images = used.len();
    report.measure(&samples);
    let table = Table { path: table.path, rows: kept };
    report.verdict(&table, options.skip_bad_rows)?;
    Ok(Prepared { dataset: Dataset::new(Arc::new(images), samples), table, report })
}

/// What there is to say about a row that is used.
fn note(
    report: &mut Report,
    unknown: &mut HashMap<char, usize>,
    labeller: &Labeller,
    text: &str,
    label: &Label,
    place: String,
) -> Result<()> {
    let back = labeller.decode(&label.ids)?;
    if label.unknown > 0 {
        for c in labeller.unknown_characters(text)? {
            *unknown.entry(c).or_default() += 1;
        }
    }
    if report.examples.len() < 3 {
        let tokens = labeller.tokens(&label.ids);
        report.examples.push((text.to_string(), tokens, back.clone()));
    }
    if label.cut {
        report.cut.push(place);
    } else if label.unknown > 0 {
        report.unknown.push(place);
    } else if plain(text) != plain(&back) {
        report.changed.push(format!("{place}: {text:?} comes back as {back:?}"));
    }
    Ok(())
}

/// Composed, and one blank for every run of blanks: what no reader sees is no change.
fn plain(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").nfc().collect()
}

impl Report {
    fn measure(&mut self, samples: &[Sample]) {
        let lengths = || samples.iter().map(|sample| sample.label.len());
        let mean = lengths().sum::<usize>() as f64 / samples.len().max(1) as f64;
        self.tokens = (lengths().min().unwrap_or(0), lengths().max().unwrap_or(0), mean);
    }

    fn verdict(&self, table: &Table, skip_bad_rows: bool) -> Result<()> {
        let path = &table.path;
        match self.bad.first() {
            Some(first) if table.rows.is_empty() => {
                bail!("{path:?}: none of its {} rows can be used ({first})", self.rows)
            }
            Some(first) if !skip_bad_rows => bail!(
                "{path:?}: {} of {} rows can't be used ({first}); mend the table, or leave them out \
                 with --skip-bad-rows",
                self.bad.len(),
                self.rows
            ),
            _ => Ok(()),
        }
    }

    /// What to tell the user before the first step, sentence by sentence.
    pub fn sentences(&self) -> Vec<String> {
        let (least, most, mean) = self.tokens;
        let used = self.rows - self.bad.len();
        let mut told = vec![format!(
            "{used} rows, {} images, labels of {least} to {most} tokens (mean {mean:.1})",
            self.images
        )];
        let mut tell = |what: String, places: &[String]| {
            if !places.is_empty() {
                told.push(format!("{what}: {}", first_few(places)));
            }
        };
        tell(format!("{} left out", rows(self.bad.len())), &self.bad);
        let limit = self.max_target_length;
        tell(
            format!("{} with a label cut at --max-target-length {limit}", rows(self.cut.len())),
            &self.cut,
        );
        let characters: Vec<String> = self
            .unknown_characters
            .iter()
            .map(|(c, count)| format!("{c:?} {count} times"))
            .collect();
        let found =
            if characters.is_empty() { "words".to_string() } else { first_few(&characters) };
        let what = format!("{} with {found} unknown to the tokenizer", rows(self.unknown.len()));
        tell(what, &self.unknown);
        let what = format!("{} changed by the tokenizer", rows(self.changed.len()));
        tell(what, &self.changed);
        if self.repeated > 0 {
            told.push(format!("{} with image and text of an earlier row", rows(self.repeated)));
        }
        if let Some(whole) = self.partly {
            told.push(format!("images behind the first {whole} were not decoded whole"));
        }
        for (text, tokens, back) in &self.examples {
            told.push(format!("label {text:?} is {} and comes back as {back:?}", tokens.join("|")));
        }
        told
    }

    /// Images, by content, that another table has as well.
    pub fn shared_images(&self, other: &Report) -> usize {
        self.hashes.intersection(&other.hashes).count()
    }
}

fn rows(count: usize) -> String {
    if count == 1 { "1 row".to_string() } else { format!("{count} rows") }
}

fn first_few(places: &[String]) -> String {
    let named = places.iter().take(NAMED).cloned().collect::<Vec<_>>().join("; ");
    match places.len().saturating_sub(NAMED) {
        0 => named,
        more => format!("{named}; and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::text::Tokenizer;
    use crate::train::data::{BatchOptions, Position, TableOptions};

    fn case() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/vit-bert")
    }

    /// Checks a table written into a folder with `a.png`, `b.png` (another picture), `copy.png` (as a)
    /// `cut.png` (half a file) and `torn.png` (whole but for its middle).
    fn check(rows: &str, skip_bad_rows: bool) -> Result<Prepared> {
        check_some(rows, skip_bad_rows, WHOLE)
    }

    fn check_some(rows: &str, skip_bad_rows: bool, whole: usize) -> Result<Prepared> {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::copy(case().join("blobs_37x23.png"), path("a.png")).unwrap();
        std::fs::copy(case().join("blobs_37x23.png"), path("copy.png")).unwrap();
        std::fs::copy(case().join("glyphs_50x18_L.png"), path("b.png")).unwrap();
        let bytes = std::fs::read(path("a.png")).unwrap();
        std::fs::write(path("cut.png"), &bytes[..bytes.len() / 2]).unwrap();
        let mut torn = bytes.clone();
        torn[bytes.len() / 2..][..8].fill(0);
        std::fs::write(path("torn.png"), torn).unwrap();
        std::fs::write(path("t.csv"), format!("image,text\n{rows}")).unwrap();
        let tokenizer = Tokenizer::from_dir(&case(), None).unwrap();
        let labeller = Labeller::new(&tokenizer, None, 8, 1000).unwrap();
        let processor = ImageProcessor::default_for("vit").unwrap();
        let options = CheckOptions {
            skip_bad_rows,
            decode: DecodeOptions::default(),
            cache_bytes: CACHE_BYTES,
            arranged: true,
            whole,
        };
        let table = Table::read(&path("t.csv"), &TableOptions::default()).unwrap();
        prepare(table, &labeller, &processor, &options, &|_, _| {})
    }

    const BAD: &str = "a.png,the\nnone.png,the\nb.png, \ncut.png,the\nb.png,the mat\n";

    #[test]
    fn bad_rows_are_refused_or_left_out() {
        let error = check(BAD, false).err().unwrap().to_string();
        assert!(error.contains("3 of 5 rows can't be used (line 3, "), "{error}");
        assert!(error.contains("none.png: no such file); mend"), "{error}");
        let prepared = check(BAD, true).unwrap();
        assert_eq!((prepared.dataset.len(), prepared.table.rows.len()), (2, 2));
        let bad = &prepared.report.bad;
        assert!(bad[1].starts_with("line 4, ") && bad[1].ends_with("b.png: no text"), "{bad:?}");
        assert!(bad[2].contains("cut.png: truncated PNG file"), "{bad:?}");
        assert_eq!(prepared.report.sentences()[0].split(',').next(), Some("2 rows"));
        // The images that were checked are at hand, although their folder is gone.
        let options = BatchOptions { epochs: Some(1), batch_size: 2, ..BatchOptions::default() };
        let batches = prepared.dataset.batches(&options, Position::default()).unwrap();
        assert_eq!(batches.map(Result::unwrap).count(), 1);
        // As are rows that name nothing, or of which it is not clear what they name.
        let lost = "a.png,the\n,the\nb.png,the, mat\n";
        let error = check(lost, false).err().unwrap().to_string();
        let told =
            "2 of 3 rows can't be used (line 3: the column \"image\" is empty); mend the table";
        assert!(error.contains(told), "{error}");
        let prepared = check(lost, true).unwrap();
        assert_eq!(prepared.table.rows.len(), 1);
        assert!(prepared.report.bad[1].starts_with("line 4: 3 fields where the header has 2"));
        let error = check("none.png,the\n", true).err().unwrap().to_string();
        assert!(error.contains("none of its 1 rows can be used"), "{error}");
    }

    #[test]
    fn what_is_not_decoded_may_be_found_bad_at_its_step() {
        let rows = "a.png,the\ntorn.png,the\n";
        assert!(check(rows, false).is_err());
        let prepared = check_some(rows, false, 1).unwrap();
        let told = prepared.report.sentences().join("\n");
        assert!(told.contains("images behind the first 1 were not decoded whole"), "{told}");
        assert_eq!(prepared.dataset.len(), 2);
    }

    #[test]
    fn what_the_tokenizer_loses_is_told() {
        let rows = "a.png,the cat sat on the mat\na.png,the\na.png,\u{2603} the\nb.png,The\n\
                    b.png,the\nb.png,the\n";
        let report = check(rows, false).unwrap().report;
        assert_eq!((report.rows, report.images, report.repeated), (6, 2, 1));
        assert_eq!((report.cut.len(), report.unknown.len()), (1, 1));
        assert_eq!(report.unknown_characters, [('\u{2603}', 1)]);
        assert_eq!(report.tokens.1, 8);
        assert_eq!(report.examples.len(), 3);
        assert_eq!(report.examples[1].2, "the");
        let told = report.sentences().join("\n");
        assert!(
            told.contains("1 row with a label cut at --max-target-length 8: line 2, "),
            "{told}"
        );
        assert!(told.contains("'\u{2603}' 1 times unknown to the tokenizer"), "{told}");
    }

    #[test]
    fn shared_images_are_found_by_content() {
        let (first, second) = (check("a.png,the\n", false), check("copy.png,a\nb.png,a\n", false));
        assert_eq!(first.unwrap().report.shared_images(&second.unwrap().report), 1);
    }
}
