//! What narrower number types change of greedy texts: the measurement that `--dtype auto` rests on.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tch::{Tensor, no_grad};
use vedm::metrics::{Item, score};
use vedm::pipeline::{Input, Reader, stack};
use vedm::train::data::table::{ImageSource, Table, TableOptions};

use crate::measure::same;
use crate::sides::Program;
use crate::worker::pixels;

/// Pictures, and what is read in them.
pub(crate) struct Material {
    pub(crate) name: String,
    /// A model, and what `vedm ocr` is told beside it.
    pub(crate) model: PathBuf,
    pub(crate) words: Vec<String>,
    images: Vec<PathBuf>,
    /// What stands in the pictures, where that is known.
    labels: Option<Vec<String>>,
}

/// Images in one pass through the model.
const BATCH: usize = 8;

/// What one type makes of a material.
struct Reading {
    texts: Vec<String>,
    ids: Vec<Vec<i64>>,
    /// What the model takes for the next token at each place of the texts that f32 gave.
    choices: Vec<Vec<i64>>,
    seconds: f64,
}

/// One type beside f32.
pub(crate) struct Row {
    material: String,
    dtype: String,
    tokens: usize,
    /// Percent of the tokens, at the same place of the same text.
    same_tokens: f64,
    /// Percent of the tokens that follow upon the same history.
    same_choices: f64,
    changed_texts: usize,
    texts: usize,
    /// Percent, ignoring case; NaN without labels.
    cer: f64,
    /// Seconds of f32 over those of this type, texts alone.
    faster: f64,
}

impl Material {
    /// A model with random weights, which reads noise.
    pub(crate) fn random(name: &str, model: PathBuf, images: Vec<PathBuf>, tokens: i64) -> Self {
        let tokens = tokens.to_string();
        let words = ["--min-new-tokens", &tokens, "--max-new-tokens", &tokens];
        let words = words.map(str::to_string).to_vec();
        Material { name: format!("{name}, random weights"), model, words, images, labels: None }
    }

    /// Real lines for the model that vedm ships: a folder with a labels.csv.
    pub(crate) fn lines(folder: &Path) -> Result<Self> {
        let table = Table::read(&folder.join("labels.csv"), &TableOptions::default())?;
        let (mut images, mut labels) = (Vec::new(), Vec::new());
        for row in table.rows {
            if let (ImageSource::File(path), Some(text)) = (row.image, row.text) {
                images.push(path);
                labels.push(text);
            }
        }
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/vedm-ocr-printed");
        let name = folder.file_name().unwrap_or(folder.as_os_str()).to_string_lossy();
        let name = format!("vedm-ocr-printed, {name}");
        Ok(Material { name, model, words: Vec::new(), images, labels: Some(labels) })
    }

    /// Every type beside f32, which is measured first.
    pub(crate) fn compare(&self, dtypes: &[String], program: &Program) -> Result<Vec<Row>> {
        let base = self.read("f32", program, None)?;
        let mut rows = vec![self.row("f32", &base, &base)];
        for dtype in dtypes.iter().filter(|dtype| *dtype != "f32") {
            let read = self.read(dtype, program, Some(&base.ids));
            rows.push(self.row(dtype, &base, &read.with_context(|| dtype.clone())?));
        }
        Ok(rows)
    }

    /// `ids` is what f32 gave; None while f32 itself is read.
    fn read(&self, dtype: &str, program: &Program, ids: Option<&[Vec<i64>]>) -> Result<Reading> {
        let mut words: Vec<OsString> = ["vedm", "ocr", "--num-beams", "1", "--no-repetition-check"]
            .map(OsString::from)
            .to_vec();
        words.extend(self.words.iter().map(OsString::from));
        let (threads, batch) = (program.threads.to_string(), BATCH.to_string());
        let device = program.device.to_string();
        let pairs = [
            ("--device", device.as_str()),
            ("--dtype", dtype),
            ("--threads", &threads),
            ("--batch-size", &batch),
        ];
        words.extend(pairs.iter().flat_map(|(flag, value)| [flag.into(), value.into()]));
        words.extend(["--model".into(), self.model.clone().into(), self.images[0].clone().into()]);
        let reader = vedm::cli::reader(words)?;
        let start = Instant::now();
        let (mut texts, mut found) = (Vec::new(), Vec::new());
        let inputs: Vec<Input> = self.images.iter().cloned().map(Input::file).collect();
        reader.run(inputs.into_iter(), |record| {
            let best = record.outcome?.sequences.into_iter().next();
            // A blank picture has no text.
            let (text, ids) = best.map(|best| (best.text, best.token_ids)).unwrap_or_default();
            texts.push(text);
            found.push(ids);
            Ok(())
        })?;
        let seconds = start.elapsed().as_secs_f64();
        let choices = self.choices(&reader, ids.unwrap_or(&found))?;
        Ok(Reading { texts, ids: found, choices, seconds })
    }

    /// The likeliest next token at each place of `ids`.
    fn choices(&self, reader: &Reader, ids: &[Vec<i64>]) -> Result<Vec<Vec<i64>>> {
        let model = &reader.model;
        let mut choices = Vec::new();
        for (path, ids) in self.images.iter().zip(ids).filter(|(_, ids)| !ids.is_empty()) {
            let pixel_values = stack(&[&pixels(reader, path)?]); // [1, C, H, W]
            let pixel_values = pixel_values.to_device(model.device()).to_kind(model.kind());
            let history: Vec<i64> =
                reader.prompt.iter().chain(&ids[..ids.len() - 1]).copied().collect();
            let history = Tensor::from_slice(&history).unsqueeze(0).to_device(model.device());
            let logits = no_grad(|| {
                let states = model.project(&model.encode(&pixel_values, false));
                model.logits(&states, &history, false) // [1, t, V]
            });
            let chosen = Vec::<i64>::try_from(logits.argmax(-1, false).squeeze_dim(0))?;
            choices.push(chosen[reader.prompt.len() - 1..].to_vec());
        }
        Ok(choices)
    }

    fn row(&self, dtype: &str, base: &Reading, own: &Reading) -> Row {
        let cer = self.labels.as_ref().map(|labels| {
            let pairs = labels.iter().zip(&own.texts);
            let items: Vec<Item> = pairs
                .map(|(label, text)| Item {
                    references: vec![label.clone()],
                    hypothesis: text.clone(),
                })
                .collect();
            score(&items, true).cer * 100.0
        });
        let changed = base.texts.iter().zip(&own.texts).filter(|(base, own)| base != own);
        Row {
            material: self.name.clone(),
            dtype: dtype.to_string(),
            tokens: base.ids.iter().map(Vec::len).sum(),
            same_tokens: same(&base.ids, &own.ids),
            same_choices: same(&base.choices, &own.choices),
            changed_texts: changed.count(),
            texts: base.texts.len(),
            cer: cer.unwrap_or(f64::NAN),
            faster: base.seconds / own.seconds,
        }
    }
}

/// A table of Markdown.
pub(crate) fn markdown(rows: &[Row]) -> String {
    let mut lines = vec![
        "| model, pictures | type | tokens | same tokens | same choices | changed texts | CER | speed |"
            .to_string(),
        "|---|---|---|---|---|---|---|---|".to_string(),
    ];
    for row in rows {
        let cer = if row.cer.is_nan() { "-".to_string() } else { format!("{:.2} %", row.cer) };
        lines.push(format!(
            "| {} | {} | {} | {:.2} % | {:.2} % | {} of {} | {cer} | {:.2}x |",
            row.material,
            row.dtype,
            row.tokens,
            row.same_tokens,
            row.same_choices,
            row.changed_texts,
            row.texts,
            row.faster
        ));
    }
    lines.join("\n")
}

pub(crate) fn to_json(rows: &[Row]) -> Value {
    let row = |row: &Row| {
        json!({
            "material": row.material, "dtype": row.dtype, "tokens": row.tokens,
            "same_tokens_percent": row.same_tokens, "same_choices_percent": row.same_choices,
            "changed_texts": row.changed_texts, "texts": row.texts,
            "cer_percent": (!row.cer.is_nan()).then_some(row.cer), "times_faster": row.faster,
        })
    };
    rows.iter().map(row).collect()
}
