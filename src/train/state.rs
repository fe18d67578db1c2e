//! Where a run stands, and `checkpoint-N`: written whole or not at all, and read back.
//!
//! ```text
//! checkpoint-N/  config.json  model.safetensors  tokenizer and processor files   (opens as a model)
//!                optimizer.safetensors   the moments of AdamW, `exp_avg.NAME`, `exp_avg_sq.NAME`
//!                trainer_state.json      everything else, under the reference's names where it has one
//! ```

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tch::Tensor;

use super::data::Position;
use super::options::greater_is_better;
use super::output::checkpoint_dir;
use super::scaler::Scaler;
use crate::checkpoint::{self, Checkpoint};
use crate::metrics::Scores;
use crate::ved::config::read_json;
use crate::ved::save::{Staging, WeightOptions, save_model, write_json};
use crate::ved::{Processor, VisionEncoderDecoder};

/// The names of the two files that only a checkpoint of a run has.
pub const STATE: &str = "trainer_state.json";
pub const OPTIMIZER: &str = "optimizer.safetensors";

/// Everything a run needs to go on as if it had never stopped, apart from weights and moments.
///
/// No generator has a state to save: dropout is seeded anew before every forward pass from `seed` and
/// `micro_step`, and the order of an epoch and its augmentation are functions of seed and place.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TrainState {
    /// Steps of the optimizer that are done.
    pub global_step: u64,
    /// The same in epochs: the share of the rows that were taken (the reference counts batches).
    pub epoch: f64,
    /// Steps of the whole run.
    pub max_steps: u64,
    /// Forward and backward passes that are done: what dropout is seeded by.
    pub micro_step: u64,
    /// The row behind the last one that was taken.
    pub position: Position,
    pub best_metric: Option<f64>,
    pub best_global_step: Option<u64>,
    /// Where the best model lies.
    pub best_model_checkpoint: Option<String>,
    /// The last step after which an evaluation ended.
    pub evaluated_step: Option<u64>,
    /// Evaluations since the best one.
    pub evaluations_without_gain: u64,
    /// Sum of the losses since the last line of the log, and how many they are.
    pub loss_sum: f64,
    pub loss_count: u64,
    /// Steps in a row whose loss or gradient was no finite number.
    pub non_finite: u64,
    /// How the loss is scaled (f16).
    pub scaler: Option<Scaler>,
    /// Seconds of training so far, evaluation included.
    pub seconds: f64,
    pub log_history: Vec<Value>,
    /// Scores of the best model if that is the one to keep, else of the last that was evaluated, and
    /// its step.
    pub scores: Option<(Scores, u64)>,
    /// What training began with, as the user named it.
    pub base_model: String,
    /// The options of the run, by name.
    pub options: Map<String, Value>,
    /// What the data was.
    pub data: Fingerprint,
}

impl TrainState {
    /// Counts an evaluation by the metric of this name; true if it is the best so far.
    pub fn rank(&mut self, name: &str, metric: f64, step: u64) -> bool {
        let gain = match self.best_metric {
            Some(best) if greater_is_better(name) => metric > best,
            Some(best) => metric < best,
            None => metric.is_finite(),
        };
        if gain {
            (self.best_metric, self.best_global_step) = (Some(metric), Some(step));
            self.evaluations_without_gain = 0;
        } else {
            self.evaluations_without_gain += 1;
        }
        gain
    }

    /// Ranks all evaluations of the log by another metric.
    pub fn rank_anew(&mut self, name: &str) {
        (self.best_metric, self.best_global_step, self.evaluations_without_gain) = (None, None, 0);
        let figure = |line: &Value| Some((line["step"].as_u64()?, line.get(name)?.as_f64()?));
        let figures: Vec<(u64, f64)> = self.log_history.iter().filter_map(figure).collect();
        for (step, metric) in figures {
            self.rank(name, metric, step);
        }
    }
}

/// Tells one set of rows from another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    pub train_rows: usize,
    pub eval_rows: usize,
    /// SHA-256 of the names and labels of all rows in their order.
    pub sha256: String,
}

/// A checkpoint that was read back.
pub struct Saved {
    pub dir: PathBuf,
    pub state: TrainState,
}

impl Saved {
    /// Reads the state of `dir` and looks whether the weights and moments are whole.
    pub fn open(dir: &Path) -> Result<Saved> {
        ensure!(dir.is_dir(), "there is no checkpoint {dir:?}");
        let path = dir.join(STATE);
        ensure!(path.is_file(), "{dir:?} has no {STATE}: it is no checkpoint of a training run");
        let state = serde_json::from_value(read_json(&path)?)
            .with_context(|| format!("{path:?} is no state of a training run of this program"))?;
        Checkpoint::open(dir)?;
        Checkpoint::open_file(&dir.join(OPTIMIZER))?;
        Ok(Saved { dir: dir.to_path_buf(), state })
    }

    /// The optimizer's tensors by name.
    pub fn moments(&self) -> Result<Vec<(String, Tensor)>> {
        let file = Checkpoint::open_file(&self.dir.join(OPTIMIZER))?;
        let keys: Vec<String> = file.keys().map(str::to_string).collect();
        keys.into_iter().map(|key| Ok((key.clone(), file.tensor(&key)?))).collect()
    }
}

/// What is written beside the weights, so that a directory opens as a model.
pub struct Companions {
    /// Name and content of each file.
    files: Vec<(String, Vec<u8>)>,
}

impl Companions {
    /// Reads them from the model that training starts from: they do not change.
    pub fn read(
        source: &Path,
        model: &VisionEncoderDecoder,
        processor: &Processor,
    ) -> Result<Companions> {
        let scratch = tempfile::tempdir().context("can't make a temporary directory")?;
        processor.tokenizer.save(scratch.path())?;
        let preprocessor = source.join("preprocessor_config.json");
        if !preprocessor.is_file() {
            let json = processor.image_processor.to_json();
            write_json(&scratch.path().join("preprocessor_config.json"), &json)?;
        }
        let generation = source.join("generation_config.json");
        if !generation.is_file() {
            let (config, _) = model.generation_config(&Map::new(), None, true)?;
            write_json(&scratch.path().join("generation_config.json"), &config.to_json())?;
        }
        let mut files = Vec::new();
        let mut take = |path: &Path| -> Result<()> {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let content = fs::read(path).with_context(|| format!("can't read {path:?}"))?;
            files.push((name, content));
            Ok(())
        };
        for entry in fs::read_dir(scratch.path())? {
            take(&entry?.path())?;
        }
        for path in [preprocessor, generation, source.join("processor_config.json")] {
            if path.is_file() {
                take(&path)?;
            }
        }
        files.sort();
        Ok(Companions { files })
    }

    fn write(&self, dir: &Path) -> Result<()> {
        for (name, content) in &self.files {
            checkpoint::write_file(&dir.join(name), content)?;
        }
        Ok(())
    }
}

/// Writes the model and what belongs to it into `dir`: a directory that opens as a checkpoint.
pub fn write_model(dir: &Path, model: &VisionEncoderDecoder, with: &Companions) -> Result<()> {
    with.write(dir)?;
    save_model(dir, model, WeightOptions::default())
}

/// Writes `checkpoint-N` of `out`: into a temporary directory, onto the disk, then under its name.
///
/// A failure (a full disk) leaves every earlier checkpoint as it was.
pub fn save(
    out: &Path,
    state: &TrainState,
    model: &VisionEncoderDecoder,
    with: &Companions,
    moments: &[(String, Tensor)],
) -> Result<PathBuf> {
    let dir = checkpoint_dir(out, state.global_step);
    let write = || -> Result<()> {
        let staging = Staging::new(&dir, true)?;
        write_model(staging.path(), model, with)?;
        checkpoint::write_safetensors(&staging.path().join(OPTIMIZER), moments, &[])?;
        write_json(&staging.path().join(STATE), &serde_json::to_value(state)?)?;
        sync(staging.path());
        staging.finish()?;
        sync(out);
        Ok(())
    };
    write().with_context(|| format!("the checkpoint {dir:?} could not be saved"))?;
    Ok(dir)
}

/// Brings the names in a directory onto the disk; not every file system can.
fn sync(dir: &Path) {
    if let Ok(folder) = File::open(dir) {
        let _ = folder.sync_all();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn states_come_back_bit_for_bit() {
        let state = TrainState {
            loss_sum: 0.1 + 0.2,
            best_metric: Some(1.0 / 3.0),
            epoch: 2.0 / 7.0,
            position: Position { epoch: 3, index: 8 },
            log_history: vec![serde_json::json!({"loss": 1e-17 / 3.0})],
            ..TrainState::default()
        };
        let text = serde_json::to_string(&state).unwrap();
        assert_eq!(serde_json::from_str::<TrainState>(&text).unwrap(), state);
    }

    #[test]
    fn evaluations_are_ranked_by_another_metric() {
        let line = |step: u64, loss: f64, cer: f64| serde_json::json!({"step": step, "eval_loss": loss, "eval_cer": cer});
        let log = [line(1, 3.0, 0.5), line(2, 2.0, 0.25), line(3, 1.0, 0.25), line(4, 4.0, 0.75)];
        let mut state = TrainState { log_history: log.to_vec(), ..TrainState::default() };
        state.log_history.insert(1, serde_json::json!({"step": 2, "loss": 0.1}));
        let mut by = |name: &str| {
            state.rank_anew(name);
            (state.best_global_step, state.best_metric, state.evaluations_without_gain)
        };
        assert_eq!(by("eval_loss"), (Some(3), Some(1.0), 1));
        assert_eq!(by("eval_cer"), (Some(2), Some(0.25), 2));
        assert_eq!(by("eval_bleu-4"), (None, None, 0));
    }
}
