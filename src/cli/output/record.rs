//! A record as JSON: one object an image, the same fields in every form.

use serde_json::{Map, Value, json};

use crate::cli::inputs::name_bytes;
use crate::pipeline::{Reading, Record, Sequence};
use crate::ved::generation::Finish;

/// What every record of a run has in common, and which fields are wanted.
pub(super) struct Fields {
    /// `--details`
    pub(super) details: bool,
    pub(super) model: String,
    pub(super) revision: Option<String>,
    /// With several sequences an image, all of them are told.
    pub(super) several: bool,
}

impl Fields {
    /// The record; a failed input has its error in the place of a text.
    pub(super) fn of(&self, record: &Record, rejected: Option<&str>) -> Map<String, Value> {
        let mut map = Map::new();
        map.insert("image".into(), json!(record.image));
        if let Some(bytes) = record.origin.as_deref().and_then(name_bytes) {
            map.insert("image_bytes".into(), json!(bytes));
        }
        if let Some(page) = record.page {
            map.insert("page".into(), json!(page));
        }
        if let Some(region) = record.region {
            map.insert("line".into(), json!(region.line));
            map.insert("bbox".into(), json!(region.bbox));
        }
        match &record.outcome {
            Ok(reading) => self.reading(reading, rejected, &mut map),
            Err(error) => {
                map.insert("error".into(), json!(format!("{error:#}")));
            }
        }
        map
    }

    fn reading(&self, reading: &Reading, rejected: Option<&str>, map: &mut Map<String, Value>) {
        if let Some(best) = reading.sequences.first() {
            self.sequence(best, map);
        }
        if let Some(text) = rejected {
            map.insert("rejected_text".into(), json!(text));
        }
        map.insert("ms".into(), json!((reading.ms * 10.0).round() / 10.0));
        if self.several {
            let all = reading.sequences.iter().map(|sequence| {
                let mut map = Map::new();
                self.sequence(sequence, &mut map);
                Value::Object(map)
            });
            map.insert("sequences".into(), all.collect());
        }
        if reading.orientation != 1 {
            map.insert("orientation".into(), json!(reading.orientation));
        }
        if let Some(rows) = reading.rows {
            let warning = format!("about {rows} lines of text were read as one; pass --lines");
            map.insert("warning".into(), json!(warning));
        }
        if self.details {
            map.insert("model".into(), json!(self.model));
            if let Some(revision) = &self.revision {
                map.insert("revision".into(), json!(revision));
            }
            map.insert("width".into(), json!(reading.width));
            map.insert("height".into(), json!(reading.height));
        }
    }

    fn sequence(&self, sequence: &Sequence, map: &mut Map<String, Value>) {
        map.insert("text".into(), json!(sequence.text));
        map.insert("confidence".into(), rounded(sequence.confidence));
        map.insert("finish_reason".into(), json!(finish_reason(sequence.finish)));
        map.insert("new_tokens".into(), json!(sequence.token_ids.len()));
        if self.details {
            map.insert("token_ids".into(), json!(sequence.token_ids));
            map.insert("tokens".into(), json!(sequence.tokens));
            let logprobs = sequence.token_logprobs.iter().map(|logprob| rounded(*logprob));
            map.insert("token_logprobs".into(), logprobs.collect());
            if let Some(score) = sequence.sequences_score {
                map.insert("sequences_score".into(), json!(score));
            }
        }
    }

    /// The columns of a table of such records, in their order.
    pub(super) fn columns(&self) -> Vec<&'static str> {
        let mut columns = vec!["image", "page", "line", "bbox", "text", "confidence"];
        columns.extend(["finish_reason", "new_tokens", "ms", "orientation", "rejected_text"]);
        if self.several {
            columns.push("sequences");
        }
        if self.details {
            columns.extend(["token_ids", "tokens", "token_logprobs", "sequences_score"]);
            columns.extend(["model", "revision", "width", "height"]);
        }
        // Of few names, and so behind what everybody reads.
        columns.extend(["warning", "error", "image_bytes"]);
        columns
    }
}

/// As records tell it.
pub(in crate::cli) fn finish_reason(finish: Finish) -> &'static str {
    match finish {
        Finish::Eos => "eos",
        Finish::Length => "length",
        Finish::Stop => "stop",
        Finish::Time => "time",
        Finish::Repetition => "repetition",
        Finish::Blank => "blank",
    }
}

/// Six digits say all that an f32 knows, and keep the lines readable.
fn rounded(number: f64) -> Value {
    let rounded = (number * 1e6).round() / 1e6;
    if rounded.is_finite() { json!(rounded) } else { Value::Null }
}
