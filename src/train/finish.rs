//! The end of a run: the model, its card, the plot, and a table of what was measured.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tch::{Device, Tensor};

use super::card::{self, CARD, Card, DataSet};
use super::log::{self, METRICS};
use super::output::checkpoint_dir;
use super::plot::PLOT;
use super::setup::Setup;
use super::{Run, plot, state};
use crate::checkpoint::{self, Checkpoint};
use crate::nn::Variable;
use crate::ved::VisionEncoderDecoder;

/// Rows of the last table: the first ones of a long run are left out.
const ROWS: usize = 20;

impl Run<'_> {
    /// The final or the best model into the output directory, and everything about it.
    pub(super) fn finish(&mut self) -> Result<()> {
        let out = &self.request.output;
        let Setup { state, reader, companions, talk, .. } = &mut self.setup;
        talk.stop();
        let best = state.best_global_step.filter(|_| self.options.load_best_model_at_end);
        if let Some(best) = best.filter(|best| *best != state.global_step) {
            let named = state.best_model_checkpoint.as_ref().map(PathBuf::from);
            match take_weights(&reader.model, &named.unwrap_or_else(|| checkpoint_dir(out, best))) {
                Ok(()) => talk.say(&format!("the model of step {best} is the best and is kept")),
                Err(error) => {
                    talk.warn(&format!(
                        "the best model, of step {best}, can't be read, the last one is kept: {error:#}"
                    ));
                    state.scores = None;
                }
            }
        }
        state::write_model(out, &reader.model, companions)
            .context("the trained model could not be written")?;
        plot::draw(&out.join(METRICS), &out.join(PLOT))?;
        let card = out.join(CARD);
        if card::is_foreign(&card) {
            talk.say(&format!("{card:?} is not of this program and stays as it is"));
        } else {
            checkpoint::write_file(&card, self.card().markdown().as_bytes())?;
        }

        let Setup { state, talk, .. } = &self.setup;
        let table = table(&state.log_history);
        if !table.is_empty() {
            talk.say(table.trim_end());
        }
        if let Some(advice) = &self.advice {
            talk.warn(advice);
        }
        talk.say(&format!(
            "{} holds the model after {} steps, {}",
            out.display(),
            state.global_step,
            log::duration(state.seconds)
        ));
        Ok(())
    }

    fn card(&self) -> Card {
        let (request, Setup { state, .. }) = (self.request, &self.setup);
        let name = |path: &Path| path.display().to_string();
        let out = std::path::absolute(&request.output).unwrap_or(request.output.clone());
        let (train_images, eval_images) = self.setup.images;
        let eval_name = match (&request.eval_data, self.options.eval_split) {
            (Some(path), _) => name(path),
            (None, part) => {
                format!("{} of the images of {}", part.unwrap_or_default(), name(&request.data))
            }
        };
        let settings = state.options.iter().filter(|(_, value)| !value.is_null());
        let text = |value: &Value| value.as_str().map_or(value.to_string(), str::to_string);
        Card {
            name: out.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            base_model: state.base_model.clone(),
            train: DataSet {
                name: name(&request.data),
                rows: Some(state.data.train_rows).filter(|rows| *rows > 0),
                images: train_images,
            },
            eval: eval_images.map(|images| DataSet {
                name: eval_name,
                rows: Some(state.data.eval_rows),
                images: Some(images),
            }),
            settings: settings.map(|(name, value)| (name.clone(), text(value))).collect(),
            steps: state.global_step,
            epochs: state.epoch,
            seconds: state.seconds,
            device: match request.device {
                Device::Cpu => format!("a CPU with {} threads", tch::get_num_threads()),
                _ => "a GPU".to_string(),
            },
            scores: state.scores.clone(),
            plot: Some(PLOT.to_string()),
        }
    }
}

/// The weights of a checkpoint into the variables of a model: all of them, or none.
fn take_weights(model: &VisionEncoderDecoder, dir: &Path) -> Result<()> {
    let file = Checkpoint::open(dir)?;
    let variables = model.store().variables();
    let value = |variable: &Variable| -> Result<Tensor> {
        let value = file.tensor(&variable.name)?;
        ensure!(value.size() == variable.tensor.size(), "{:?} is of another model", variable.name);
        Ok(value)
    };
    let values: Vec<Tensor> = variables.iter().map(value).collect::<Result<_>>()?;
    for (mut variable, value) in variables.into_iter().zip(values) {
        tch::no_grad(|| variable.tensor.copy_(&value));
    }
    Ok(())
}

/// One row an evaluation, with the last loss of training before it. Empty if there was none.
fn table(history: &[Value]) -> String {
    let mut rows = Vec::new();
    let mut loss = None;
    for line in history {
        loss = line["loss"].as_f64().or(loss);
        if line.get("eval_loss").is_some() {
            rows.push((line, loss));
        }
    }
    if rows.is_empty() {
        return String::new();
    }
    let mut out = format!(
        "{:>8} {:>7} {:>9} {:>9} {:>8} {:>8} {:>7} {:>7} {:>7}\n",
        "step", "epoch", "loss", "eval", "CER %", "WER %", "exact %", "BLEU-4", "CIDEr-D"
    );
    for (line, loss) in &rows[rows.len().saturating_sub(ROWS)..] {
        let number = |key: &str| line[key].as_f64().unwrap_or(f64::NAN);
        let _ = writeln!(
            out,
            "{:>8} {:>7.2} {:>9.4} {:>9.4} {:>8.2} {:>8.2} {:>7.1} {:>7.2} {:>7.3}",
            line["step"],
            number("epoch"),
            loss.unwrap_or(f64::NAN),
            number("eval_loss"),
            number("eval_cer") * 100.0,
            number("eval_wer") * 100.0,
            number("eval_exact-match") * 100.0,
            number("eval_bleu-4"),
            number("eval_cider-d")
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn evaluations_become_rows() {
        assert_eq!(table(&[json!({"step": 1, "loss": 2.0})]), "");
        let history = [
            json!({"step": 2, "epoch": 0.5, "loss": 1.5}),
            json!({"step": 4, "epoch": 1.0, "eval_loss": 1.25, "eval_cer": 0.5, "eval_wer": 1.0,
                "eval_exact-match": 0.0, "eval_bleu-4": 12.345, "eval_cider-d": 0.25}),
        ];
        let told = table(&history);
        let row = told.lines().nth(1).unwrap_or_default();
        let words: Vec<&str> = row.split_whitespace().collect();
        let expected =
            ["4", "1.00", "1.5000", "1.2500", "50.00", "100.00", "0.0", "12.35", "0.250"];
        assert_eq!(words, expected);
    }
}
