//! Evaluation in the course of a run: loss, texts, and whether they are the best so far.

use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};

use super::data::{BatchOptions, Position};
use super::evaluate::{self, Evaluation};
use super::memory::{self, guarded};
use super::options::eval_name;
use super::output::checkpoint_dir;
use super::setup::Setup;
use super::{Run, loss, rounded};
use crate::signals;
use crate::ved::generation::Interrupted;

/// Texts that each evaluation shows beside their labels.
const SHOWN: usize = 3;

/// The figures that go into metrics.jsonl.
const METRICS: &[&str] =
    &["cer", "wer", "exact-match", "bleu-1", "bleu-2", "bleu-3", "bleu-4", "rouge-l", "cider-d"];

impl Run<'_> {
    /// Loss and texts on the evaluation data. True if a checkpoint should keep what was found.
    ///
    /// An interrupt ends it without a trace: the resumed run begins with the same evaluation.
    pub(super) fn evaluate(&mut self) -> Result<bool> {
        if self.setup.eval.is_none() {
            return Ok(false);
        }
        let start = Instant::now();
        self.setup.talk.doing("evaluating");
        let (Some(loss), Some(evaluation)) = (self.eval_loss()?, self.read_all()?) else {
            return Ok(false);
        };
        let seconds = start.elapsed().as_secs_f64();
        self.setup.state.seconds += seconds;
        let mut figures = Map::new();
        figures.insert("eval_loss".into(), json!(loss));
        for name in METRICS {
            figures.insert(format!("eval_{name}"), json!(evaluation.metric(name)?));
        }
        figures.insert("eval_seconds".into(), json!(rounded(seconds, 3)));
        self.show(&evaluation);
        self.advice = evaluation.advice(&self.setup.reader);
        self.judge(figures, evaluation)
    }

    /// Mean loss of a label, without smoothing. None if interrupted.
    fn eval_loss(&self) -> Result<Option<f64>> {
        let Some((dataset, _)) = &self.setup.eval else { return Ok(None) };
        let options = BatchOptions {
            batch_size: self.options.per_device_eval_batch_size,
            shuffle: false,
            workers: Some(self.options.workers()),
            epochs: Some(1),
            skip_bad_rows: self.options.skip_bad_rows,
            ..BatchOptions::default()
        };
        let (mut sum, mut items) = (0.0, 0);
        for batch in dataset.batches(&options, Position::default())? {
            if signals::asked() {
                return Ok(None);
            }
            // What is left out is told where texts are read.
            let batch = batch?;
            if batch.labels.is_empty() {
                continue;
            }
            let labels = batch.label_ids().to_device(self.request.device);
            let pixel_values = batch.pixel_values().to_device(self.request.device);
            let model = &self.setup.reader.model;
            let advice = || memory::for_an_evaluation(self.options);
            let loss = guarded(advice, || {
                tch::no_grad(|| loss::forward(model, &pixel_values, &labels, 1, 0.0, false))
            })?;
            sum += loss.double_value(&[]);
            items += loss::items(&labels);
        }
        Ok(Some(sum / items.max(1) as f64))
    }

    /// What the model writes under every image. None if interrupted.
    fn read_all(&self) -> Result<Option<Evaluation>> {
        let Some((_, table)) = &self.setup.eval else { return Ok(None) };
        let images = self.setup.images.1.unwrap_or_default();
        let read = guarded(
            || memory::for_an_evaluation(self.options),
            || {
                evaluate::evaluate(&self.setup.reader, table, false, |done| {
                    self.setup.talk.doing(&format!("evaluating: {done} of {images} images"));
                    if signals::asked() { Err(Interrupted.into()) } else { Ok(()) }
                })
            },
        );
        match read {
            Ok(evaluation) => {
                let failed = evaluation.failed.iter();
                failed.for_each(|failed| self.setup.talk.warn(failed));
                evaluation.ensure_some().context("the evaluation")?;
                Ok(Some(evaluation))
            }
            Err(error) if error.is::<Interrupted>() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A few texts beside their labels: figures do not show what goes wrong.
    fn show(&self, evaluation: &Evaluation) {
        for prediction in evaluation.predictions.iter().take(SHOWN) {
            let label = &prediction.nearest.reference;
            self.setup.talk.say(&format!("  label {label:?}"));
            self.setup.talk.say(&format!("  text  {:?}", prediction.nearest.hypothesis));
        }
    }

    /// Writes the figures down and compares them with the best so far.
    fn judge(&mut self, figures: Map<String, Value>, evaluation: Evaluation) -> Result<bool> {
        let Setup { state, talk, .. } = &mut self.setup;
        let name = eval_name(self.options.metric_for_best_model.as_deref().unwrap_or("loss"));
        let Some(metric) = figures.get(&name).and_then(Value::as_f64) else {
            bail!(
                "{name} after step {} is NaN, so the model is none any more: lower --learning-rate or raise \
                 --warmup-ratio, and go on from an earlier checkpoint or begin anew",
                state.global_step
            );
        };
        let step = state.global_step;
        let gain = state.rank(&name, metric, step);
        let percent = |key: &str| figures[key].as_f64().unwrap_or(f64::NAN) * 100.0;
        talk.say(&format!(
            "evaluation after step {}: loss {:.4}  CER {:.2} %  WER {:.2} %  exact {:.1} %  BLEU-4 {:.2}  \
             CIDEr-D {:.3}{}",
            state.global_step,
            figures["eval_loss"].as_f64().unwrap_or(f64::NAN),
            percent("eval_cer"),
            percent("eval_wer"),
            percent("eval_exact-match"),
            evaluation.scores.bleu_4,
            evaluation.scores.cider_d,
            if gain { "  (the best so far)" } else { "" }
        ));
        let mut line = Map::new();
        line.insert("step".into(), json!(state.global_step));
        line.insert("epoch".into(), json!(rounded(state.epoch, 4)));
        line.extend(figures);
        let line = Value::Object(line);
        talk.metrics(&line)?;
        state.log_history.push(line);
        state.evaluated_step = Some(state.global_step);
        if gain {
            let dir = std::path::absolute(checkpoint_dir(&self.request.output, step));
            state.best_model_checkpoint = dir.ok().and_then(|dir| Some(dir.to_str()?.to_string()));
        }
        if gain || !self.options.load_best_model_at_end {
            state.scores = Some((evaluation.scores, state.global_step));
        }
        Ok(gain && self.options.load_best_model_at_end)
    }
}

/// Refuses a name that no evaluation measures, before the first step.
pub(super) fn check_metric(metric: &str) -> Result<()> {
    let name = eval_name(metric);
    let name = &name["eval_".len()..];
    if name != "loss" && !METRICS.contains(&name) {
        bail!("--metric-for-best-model {metric}: expected loss, {}", METRICS.join(", "));
    }
    Ok(())
}
