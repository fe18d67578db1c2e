//! What a run of training is told, under the names of the reference's `Seq2SeqTrainingArguments`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Result, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tch::Kind;

/// Everything that shapes a run, apart from the model, the data and the device.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Options {
    /// The reference's default is 5e-5.
    pub learning_rate: f64,
    /// May be a fraction; `max_steps` beats it.
    pub num_train_epochs: f64,
    pub max_steps: Option<u64>,
    pub per_device_train_batch_size: usize,
    pub per_device_eval_batch_size: usize,
    pub gradient_accumulation_steps: usize,
    pub weight_decay: f64,
    pub adam_beta1: f64,
    pub adam_beta2: f64,
    pub adam_epsilon: f64,
    /// 0 does not clip.
    pub max_grad_norm: f64,
    pub lr_scheduler_type: String,
    pub warmup_steps: u64,
    pub warmup_ratio: f64,
    pub label_smoothing_factor: f64,
    /// Share of the CTC loss on the encoder's columns; 0 is none.
    pub ctc_weight: f64,
    /// Share of the batches that are encoded without the columns that are only padding.
    pub trim_padding: f64,
    pub fp16: bool,
    pub bf16: bool,
    pub gradient_checkpointing: bool,
    pub seed: u64,
    pub eval_steps: Interval,
    pub save_steps: Interval,
    pub logging_steps: u64,
    pub save_total_limit: Option<usize>,
    pub load_best_model_at_end: bool,
    /// `loss`, or a metric of the evaluation by generating, such as `cer`.
    pub metric_for_best_model: Option<String>,
    pub early_stopping_patience: Option<u64>,
    pub max_target_length: Option<usize>,
    pub freeze_encoder: bool,
    pub freeze_decoder: bool,
    /// Names of augmentations, with commas between.
    pub augment: Option<String>,
    pub group_by_length: bool,
    pub generation_num_beams: Option<i64>,
    /// Evaluate on at most so many rows.
    pub eval_samples: Option<usize>,
    pub eval_split: Option<f64>,
    pub dataloader_num_workers: Option<usize>,
    pub skip_bad_rows: bool,
}

/// Options that may change between a checkpoint and its resumption without changing what is learnt.
const HARMLESS: &[&str] = &[
    "eval-steps",
    "save-steps",
    "logging-steps",
    "save-total-limit",
    "per-device-eval-batch-size",
    "dataloader-num-workers",
];

impl Options {
    /// One sentence on the first value that can't be meant.
    pub fn check(&self) -> Result<()> {
        let above_zero = [
            ("--learning-rate", self.learning_rate),
            ("--num-train-epochs", self.num_train_epochs),
            ("--adam-epsilon", self.adam_epsilon),
        ];
        for (flag, value) in above_zero {
            ensure!(value.is_finite() && value > 0.0, "{flag} {value}: expected a number above 0");
        }
        let not_negative =
            [("--weight-decay", self.weight_decay), ("--max-grad-norm", self.max_grad_norm)];
        for (flag, value) in not_negative {
            ensure!(value.is_finite() && value >= 0.0, "{flag} {value}: expected at least 0");
        }
        let below_one = [
            ("--adam-beta1", self.adam_beta1),
            ("--adam-beta2", self.adam_beta2),
            ("--label-smoothing-factor", self.label_smoothing_factor),
            ("--ctc-weight", self.ctc_weight),
        ];
        for (flag, value) in below_one {
            ensure!((0.0..1.0).contains(&value), "{flag} {value}: expected at least 0 and below 1");
        }
        ensure!(
            (0.0..=1.0).contains(&self.warmup_ratio),
            "--warmup-ratio {}: expected a share of the steps, 0 to 1",
            self.warmup_ratio
        );
        ensure!(
            (0.0..=1.0).contains(&self.trim_padding),
            "--trim-padding {}: expected a share of the batches, 0 to 1",
            self.trim_padding
        );
        if let Some(share) = self.eval_split {
            ensure!(
                share > 0.0 && share < 1.0,
                "--eval-split {share}: expected a share of the images between 0 and 1"
            );
        }
        let at_least_one = [
            ("--per-device-train-batch-size", Some(self.per_device_train_batch_size)),
            ("--per-device-eval-batch-size", Some(self.per_device_eval_batch_size)),
            ("--gradient-accumulation-steps", Some(self.gradient_accumulation_steps)),
            ("--logging-steps", Some(self.logging_steps as usize)),
            ("--max-steps", self.max_steps.map(|steps| steps as usize)),
            ("--save-total-limit", self.save_total_limit),
            ("--max-target-length", self.max_target_length),
            ("--eval-samples", self.eval_samples),
            ("--dataloader-num-workers", self.dataloader_num_workers),
            ("--early-stopping-patience", self.early_stopping_patience.map(|n| n as usize)),
        ];
        for (flag, value) in at_least_one {
            ensure!(value != Some(0), "{flag} 0: expected at least 1");
        }
        ensure!(!(self.fp16 && self.bf16), "--fp16 and --bf16: choose one of them");
        ensure!(
            !(self.freeze_encoder && self.freeze_decoder),
            "--freeze-encoder and --freeze-decoder: nothing would be left to train"
        );
        Ok(())
    }

    /// What products, convolutions and attention of a training step are computed in, if not in f32.
    pub fn mixed_precision(&self) -> Option<Kind> {
        match (self.bf16, self.fp16) {
            (true, _) => Some(Kind::BFloat16),
            (_, true) => Some(Kind::Half),
            _ => None,
        }
    }

    /// Threads that decode images. libtorch has one a core of its own, and images are mostly decoded
    /// once: half of the cores, at most eight, do not starve it.
    pub fn workers(&self) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        self.dataloader_num_workers.unwrap_or((cores / 2).clamp(1, 8))
    }

    /// The options by name, as trainer_state.json holds them.
    pub fn to_map(&self) -> Map<String, Value> {
        match serde_json::to_value(self) {
            Ok(Value::Object(map)) => map,
            _ => Map::new(),
        }
    }

    /// What differs from the options of a checkpoint in a way that changes what is learnt:
    /// `--seed 1 -> 2`.
    pub fn changes_since(&self, saved: &Map<String, Value>) -> Vec<String> {
        let text = |value: &Value| match value {
            Value::Null => "none".to_string(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        self.to_map()
            .iter()
            .filter(|(name, _)| !HARMLESS.contains(&name.as_str()))
            .filter_map(|(name, now)| {
                let then = saved.get(name)?;
                (then != now).then(|| format!("--{name} {} -> {}", text(then), text(now)))
            })
            .collect()
    }
}

/// How often something is done.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Interval {
    Never,
    Epoch,
    Steps(u64),
    /// A share of all steps, as the reference reads numbers below 1.
    Share(f64),
}

impl Interval {
    /// True if it is due after `step` of `total` steps; `epoch_ends` says whether an epoch ends there.
    pub fn due(self, step: u64, total: u64, epoch_ends: bool) -> bool {
        match self {
            Interval::Never => false,
            Interval::Epoch => epoch_ends,
            Interval::Steps(every) => step.is_multiple_of(every.max(1)),
            // The reference rounds the number of steps up (`TrainerState.compute_steps`).
            Interval::Share(share) => {
                step.is_multiple_of(((total as f64 * share).ceil() as u64).max(1))
            }
        }
    }
}

impl FromStr for Interval {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "expected a number of steps, a share of them below 1, epoch or never".into();
        match text {
            "never" | "no" => return Ok(Interval::Never),
            "epoch" => return Ok(Interval::Epoch),
            _ => {}
        }
        match text.parse::<f64>() {
            Ok(number) if number > 0.0 && number < 1.0 => Ok(Interval::Share(number)),
            Ok(number) if number >= 1.0 && number.fract() == 0.0 => {
                Ok(Interval::Steps(number as u64))
            }
            _ => Err(wrong()),
        }
    }
}

impl TryFrom<String> for Interval {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Interval> for String {
    fn from(interval: Interval) -> String {
        interval.to_string()
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Interval::Never => f.write_str("never"),
            Interval::Epoch => f.write_str("epoch"),
            Interval::Steps(steps) => write!(f, "{steps}"),
            Interval::Share(share) => write!(f, "{share}"),
        }
    }
}

/// Where a run continues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resume {
    /// The newest whole checkpoint of the output directory.
    Newest,
    From(PathBuf),
}

/// What happens to an output directory that holds something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// Refuse it.
    Fresh,
    /// Remove what an earlier run left there.
    Overwrite,
    Resume(Resume),
}

/// True if more of the metric is better.
///
/// Errors and losses want to be small (the reference deduces it for names that end in `loss`; error
/// rates have to be named there).
pub fn greater_is_better(metric: &str) -> bool {
    let name = metric.strip_prefix("eval_").unwrap_or(metric);
    !(name.ends_with("loss") || name.starts_with("cer") || name.starts_with("wer"))
}

/// The name of a metric in the logs: `exact_match` and `eval_exact-match` are the same.
pub fn eval_name(metric: &str) -> String {
    let name = metric.strip_prefix("eval_").unwrap_or(metric).replace('_', "-");
    let name = match name.as_str() {
        "bleu" => "bleu-4",
        "rouge" => "rouge-l",
        "cider" => "cider-d",
        "exact" => "exact-match",
        name => name,
    };
    format!("eval_{name}")
}

/// Refuses what needs an evaluation where there is none.
pub fn check_evaluation(options: &Options, has_data: bool) -> Result<()> {
    if let Some(metric) = &options.metric_for_best_model {
        super::watch::check_metric(metric)?;
    }
    let wishes = [
        ("--load-best-model-at-end", options.load_best_model_at_end),
        ("--early-stopping-patience", options.early_stopping_patience.is_some()),
        ("--metric-for-best-model", options.metric_for_best_model.is_some()),
    ];
    let Some((flag, _)) = wishes.iter().find(|(_, wished)| *wished) else { return Ok(()) };
    if !has_data {
        bail!("{flag} needs an evaluation: pass --eval-data FILE or --eval-split 0.1");
    }
    ensure!(options.eval_steps != Interval::Never, "{flag} and --eval-steps never: choose one");
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_read_and_told_when_due() {
        let table = [
            ("epoch", Some(Interval::Epoch)),
            ("never", Some(Interval::Never)),
            ("500", Some(Interval::Steps(500))),
            ("0.25", Some(Interval::Share(0.25))),
            ("0", None),
            ("1.5", None),
            ("-3", None),
            ("often", None),
        ];
        for (text, expected) in table {
            assert_eq!(text.parse::<Interval>().ok(), expected, "{text}");
            if let Some(interval) = expected {
                assert_eq!(interval.to_string(), text);
            }
        }
        // Interval, step, all steps, whether the epoch ends, due.
        let table = [
            (Interval::Never, 4, 10, true, false),
            (Interval::Epoch, 3, 10, true, true),
            (Interval::Epoch, 3, 10, false, false),
            (Interval::Steps(2), 4, 10, false, true),
            (Interval::Steps(3), 4, 10, true, false),
            (Interval::Share(0.25), 3, 10, false, true),
            (Interval::Share(0.25), 4, 10, false, false),
        ];
        for (interval, step, total, ends, due) in table {
            assert_eq!(interval.due(step, total, ends), due, "{interval} at {step}");
        }
    }

    #[test]
    fn metrics_know_their_direction() {
        let table = [
            ("loss", false),
            ("eval_loss", false),
            ("cer", false),
            ("eval_wer", false),
            ("exact_match", true),
            ("bleu", true),
            ("rouge_l", true),
            ("cider_d", true),
        ];
        for (metric, greater) in table {
            assert_eq!(greater_is_better(metric), greater, "{metric}");
        }
        assert_eq!(eval_name("cer"), "eval_cer");
        assert_eq!(eval_name("eval_exact_match"), "eval_exact-match");
        assert_eq!(eval_name("bleu"), "eval_bleu-4");
    }
}
