//! Evaluation by generating: what the model writes under the images of a table, and how good it is.
//! `train` and `eval` both come here.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::data::{ImageSource, Table};
use crate::metrics::{self, Confusions, Item, Nearest, Scores};
use crate::pipeline::{Input, Reader, Source};
use crate::ved::generation::Finish;

/// What an evaluation gave.
pub struct Evaluation {
    pub scores: Scores,
    /// In the order of the table's images; those that failed are left out.
    pub predictions: Vec<Prediction>,
    /// Images that could not be read or have no text, as `path: reason`.
    pub failed: Vec<String>,
    /// Wall time of reading all images.
    pub seconds: f64,
    pub ignore_case: bool,
}

/// The text of one image beside its labels.
#[derive(Clone, Debug)]
pub struct Prediction {
    pub image: String,
    pub item: Item,
    /// Against the nearest label.
    pub nearest: Nearest,
    pub confidence: f64,
    /// The text did not end by itself.
    pub unfinished: bool,
}

/// Reads every image of the table and compares the best text with the labels of all its rows.
/// `progress` is told how many images are done, and its error ends the evaluation. A bad image is counted, and no reason to stop.
pub fn evaluate(
    reader: &Reader,
    table: &Table,
    ignore_case: bool,
    mut progress: impl FnMut(usize) -> Result<()>,
) -> Result<Evaluation> {
    // An image without a text is a fault of the data; it is not one with an empty text.
    let (images, alone): (Vec<_>, Vec<_>) = table
        .images()
        .into_iter()
        .partition(|(_, rows)| rows.iter().any(|row| table.rows[*row].text.is_some()));
    let inputs: Vec<Input> = images.iter().map(|(source, _)| input(source)).collect();
    let mut failed: Vec<String> = alone
        .iter()
        .map(|(source, _)| format!("{}: no text lies beside it; it is left out", source.name()))
        .collect();
    let mut predictions = Vec::new();
    let mut next = images.iter();
    let start = Instant::now();
    reader.run(inputs.into_iter(), |record| {
        let (source, rows) = next.next().context("more records than images")?;
        match record.outcome {
            Err(error) => failed.push(format!("{}: {error:#}", source.name())),
            Ok(reading) => {
                let best = reading.sequences.into_iter().next().context("an image without text")?;
                let references =
                    rows.iter().filter_map(|row| table.rows[*row].text.clone()).collect();
                let item = Item { references, hypothesis: best.text };
                predictions.push(Prediction {
                    image: source.name(),
                    nearest: metrics::nearest(&item, ignore_case),
                    item,
                    confidence: best.confidence,
                    unfinished: best.finish == Finish::Length,
                });
            }
        }
        progress(predictions.len() + failed.len())
    })?;
    let seconds = start.elapsed().as_secs_f64();
    let items: Vec<Item> = predictions.iter().map(|prediction| prediction.item.clone()).collect();
    let scores = metrics::score(&items, ignore_case);
    Ok(Evaluation { scores, predictions, failed, seconds, ignore_case })
}

/// A member of an archive is read where it lies, when its turn comes.
fn input(source: &ImageSource) -> Input {
    match source {
        ImageSource::File(path) => Input::file(path.clone()),
        member => {
            let (name, member) = (member.name(), member.clone());
            let source = Source::Other(Arc::new(move || member.bytes()));
            Input { name, source, origin: None, page: None }
        }
    }
}

impl Evaluation {
    /// Figures by the names that `metric_for_best_model` knows, as they go into metrics.jsonl.
    ///
    /// # Errors
    /// A name that is none of them.
    pub fn metric(&self, name: &str) -> Result<f64> {
        let json = json!(self.scores);
        let name = name.trim_start_matches("eval_").replace('_', "-");
        let found = match name.as_str() {
            "exact-match" | "exact" => json["exact_match"].as_f64(),
            "bleu" => json["bleu-4"].as_f64(),
            "cider" => json["cider-d"].as_f64(),
            name => json[name].as_f64().filter(|_| name != "items"),
        };
        found.with_context(|| {
            format!("no metric is named {name:?}; there are cer, wer, exact-match, bleu-1 to bleu-4, rouge-l and cider-d")
        })
    }

    /// The worst items first, by edits a character, then by the number of edits.
    pub fn worst(&self, count: usize) -> Vec<&Prediction> {
        let mut order: Vec<&Prediction> = self.predictions.iter().collect();
        order.sort_by(|a, b| {
            let edits = b.nearest.character_edits.cmp(&a.nearest.character_edits);
            b.nearest.cer().total_cmp(&a.nearest.cer()).then(edits)
        });
        order.retain(|prediction| prediction.nearest.character_edits > 0);
        order.truncate(count);
        order
    }

    /// Which characters were taken for which.
    pub fn confusions(&self) -> Confusions {
        let nearest = self.predictions.iter().map(|prediction| &prediction.nearest);
        Confusions::count(nearest.map(|n| (n.reference.as_str(), n.hypothesis.as_str())))
    }

    /// Every image has one label: the task is reading, not describing.
    pub fn is_reading(&self) -> bool {
        self.predictions.iter().all(|prediction| prediction.item.references.len() == 1)
    }

    /// What usually causes a CER of 1 and more, read from the texts and the settings.
    pub fn advice(&self, reader: &Reader) -> Option<String> {
        if self.scores.cer < 1.0 || self.predictions.is_empty() || !self.is_reading() {
            return None;
        }
        let share = |is: &dyn Fn(&Prediction) -> bool| {
            let count = self.predictions.iter().filter(|prediction| is(prediction)).count();
            count as f64 / self.predictions.len() as f64
        };
        let first = &self.predictions[0].nearest.hypothesis;
        let one_text = self.predictions.len() > 1
            && share(&|prediction| prediction.nearest.hypothesis == *first) == 1.0;
        let mut causes = Vec::new();
        let unfinished = share(&|prediction| prediction.unfinished);
        if unfinished > 0.5 {
            causes.push(format!(
                "{:.0} % of the texts go on to the limit of length: the end token was not learned, or \
                 eos_token_id ({:?}) is not the labels' end; --max-new-tokens bounds the length",
                unfinished * 100.0,
                reader.generation.eos_token_id
            ));
        }
        if one_text {
            causes.push(
                "all images give the same text: the decoder does not look at them".to_string(),
            );
        }
        causes.push(format!(
            "the start token ({}) is not the one that training began with",
            reader.prompt.first().map_or("none".to_string(), i64::to_string)
        ));
        causes.push("the tokenizer is not the decoder's".to_string());
        Some(format!(
            "the CER is {:.2}: more edits than characters; usual causes: {}",
            self.scores.cer,
            causes.join("; ")
        ))
    }

    /// One JSON line an image, or CSV if the name ends so.
    pub fn write_predictions(&self, path: &Path) -> Result<()> {
        let told = || format!("can't write {path:?}");
        let is_csv = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("csv"));
        let mut out = Vec::new();
        if is_csv {
            let mut csv = csv::Writer::from_writer(&mut out);
            csv.write_record(["image", "text", "label", "cer", "confidence"])?;
            for p in &self.predictions {
                let (cer, confidence) = (p.nearest.cer().to_string(), p.confidence.to_string());
                let label = p.item.references.join("\n");
                csv.write_record([&p.image, &p.item.hypothesis, &label, &cer, &confidence])?;
            }
            csv.flush()?;
            drop(csv);
        } else {
            for prediction in &self.predictions {
                serde_json::to_writer(&mut out, &prediction.to_json())?;
                out.push(b'\n');
            }
        }
        std::fs::write(path, out).with_context(told)
    }

    /// Images a second, reading the files included.
    pub fn rate(&self) -> f64 {
        (self.predictions.len() + self.failed.len()) as f64 / self.seconds.max(1e-9)
    }

    /// There is something to score.
    ///
    /// # Errors
    /// Every image failed.
    pub fn ensure_some(&self) -> Result<()> {
        ensure!(
            !self.predictions.is_empty(),
            "none of the {} images could be read",
            self.failed.len()
        );
        Ok(())
    }
}

impl Prediction {
    /// Image, text, labels, edits a character, confidence.
    pub fn to_json(&self) -> Value {
        json!({
            "image": self.image,
            "text": self.item.hypothesis,
            "labels": self.item.references,
            "cer": self.nearest.cer(),
            "confidence": (self.confidence * 1e6).round() / 1e6,
        })
    }
}
