//! Where a run stands, and `checkpoint-N`: written whole or not at all, found again on resumption.
//!
//! ```text
//! checkpoint-N/  config.json  model.safetensors  tokenizer and processor files   (opens as a model)
//!                optimizer.safetensors   the moments of AdamW, `exp_avg.NAME`, `exp_avg_sq.NAME`
//!                trainer_state.json      everything else, under the reference's names where it has one
//! ```

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tch::Tensor;

use super::data::Position;
use super::scaler::Scaler;
use crate::checkpoint::{self, Checkpoint};
use crate::metrics::Scores;
use crate::ved::config::read_json;
use crate::ved::save::{Staging, WeightOptions, save_model, write_json};
use crate::ved::{Processor, VisionEncoderDecoder};

/// The names of the two files that only a checkpoint of a run has.
pub const STATE: &str = "trainer_state.json";
pub const OPTIMIZER: &str = "optimizer.safetensors";
const PREFIX: &str = "checkpoint-";
/// What the names of temporary files and directories of this program begin with.
const LEFTOVER: &str = ".vedm-";

/// Everything a run needs to go on as if it had never stopped, apart from weights and moments.
///
/// No generator has a state to save: dropout is seeded anew before every forward pass from `seed` and
/// `micro_step`, and the order of an epoch and its augmentation are functions of seed and place.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TrainState {
    /// Steps of the optimizer that are done.
    pub global_step: u64,
    /// The same in epochs, as the reference logs it.
    pub epoch: f64,
    /// Steps of the whole run.
    pub max_steps: u64,
    /// Forward and backward passes that are done: what dropout is seeded by.
    pub micro_step: u64,
    /// The row behind the last one that was taken.
    pub position: Position,
    pub best_metric: Option<f64>,
    pub best_global_step: Option<u64>,
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

    /// The newest checkpoint of `out` that can be read, and sentences about newer ones that can't.
    pub fn newest(out: &Path) -> Result<(Saved, Vec<String>)> {
        let mut notes = Vec::new();
        for (_, dir) in checkpoints(out)?.into_iter().rev() {
            match Saved::open(&dir) {
                Ok(saved) => return Ok((saved, notes)),
                Err(error) => notes.push(format!("a damaged checkpoint is passed over: {error:#}")),
            }
        }
        match notes.first() {
            Some(note) => bail!("{out:?} has no checkpoint to go on from; {note}"),
            None => bail!("{out:?} has no checkpoint to go on from"),
        }
    }

    /// The optimizer's tensors by name.
    pub fn moments(&self) -> Result<Vec<(String, Tensor)>> {
        let file = Checkpoint::open_file(&self.dir.join(OPTIMIZER))?;
        let keys: Vec<String> = file.keys().map(str::to_string).collect();
        keys.into_iter().map(|key| Ok((key.clone(), file.tensor(&key)?))).collect()
    }
}

/// All `checkpoint-N` directories of `out` by their step; none if `out` is not there.
pub fn checkpoints(out: &Path) -> Result<Vec<(u64, PathBuf)>> {
    if !out.is_dir() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(out).with_context(|| format!("can't list {out:?}"))? {
        let path = entry.with_context(|| format!("can't list {out:?}"))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let step = name.strip_prefix(PREFIX).and_then(|step| step.parse().ok());
        if let Some(step) = step.filter(|_| path.is_dir()) {
            found.push((step, path));
        }
    }
    found.sort();
    Ok(found)
}

/// The directory of the checkpoint after `step`.
pub fn checkpoint_dir(out: &Path, step: u64) -> PathBuf {
    out.join(format!("{PREFIX}{step}"))
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

/// Removes the oldest checkpoints beyond `limit`; never the newest, and never the best.
pub fn rotate(out: &Path, limit: Option<usize>, best: Option<u64>) -> Result<()> {
    let Some(limit) = limit else { return Ok(()) };
    let all = checkpoints(out)?;
    let mut surplus = all.len().saturating_sub(limit.max(1));
    let newest = all.last().map(|(step, _)| *step);
    for (step, dir) in &all {
        if surplus == 0 {
            break;
        }
        if Some(*step) == newest || Some(*step) == best {
            continue;
        }
        discard(dir)?;
        surplus -= 1;
    }
    Ok(())
}

/// Removes a directory that takes another name first: half a checkpoint never has a checkpoint's.
fn discard(dir: &Path) -> Result<()> {
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    let hidden = dir.with_file_name(format!("{LEFTOVER}replaced-{name}"));
    fs::rename(dir, &hidden).with_context(|| format!("can't remove {dir:?}"))?;
    fs::remove_dir_all(&hidden).with_context(|| format!("can't remove {hidden:?}"))
}

/// Removes what a killed run left half written or half removed.
pub fn sweep(out: &Path) -> Result<()> {
    let Ok(entries) = fs::read_dir(out) else { return Ok(()) };
    for entry in entries.flatten() {
        if !entry.file_name().to_string_lossy().starts_with(LEFTOVER) {
            continue;
        }
        let path = entry.path();
        let removed =
            if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.with_context(|| format!("can't remove {path:?}"))?;
    }
    Ok(())
}

/// Removes all checkpoints and the logs of an earlier run.
pub fn clear(out: &Path) -> Result<()> {
    for (_, dir) in checkpoints(out)? {
        discard(&dir)?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn folder(steps: &[u64]) -> tempfile::TempDir {
        let out = tempfile::tempdir().unwrap();
        for step in steps {
            fs::create_dir(checkpoint_dir(out.path(), *step)).unwrap();
        }
        fs::create_dir(out.path().join("checkpoint-x")).unwrap();
        fs::write(out.path().join("checkpoint-3"), "a file").unwrap();
        out
    }

    #[allow(clippy::type_complexity)]
    #[test]
    fn rotation_spares_the_newest_and_the_best() {
        // Checkpoints, limit, best, what stays.
        let table: [(&[u64], Option<usize>, Option<u64>, &[u64]); 6] = [
            (&[2, 10, 9], None, None, &[2, 9, 10]),
            (&[2, 10, 9], Some(2), None, &[9, 10]),
            (&[2, 10, 9], Some(2), Some(2), &[2, 10]),
            (&[2, 10, 9], Some(1), Some(2), &[2, 10]),
            (&[2, 10, 9], Some(1), Some(10), &[10]),
            (&[2, 10, 9], Some(5), Some(7), &[2, 9, 10]),
        ];
        for (steps, limit, best, expected) in table {
            let out = folder(steps);
            rotate(out.path(), limit, best).unwrap();
            let left: Vec<u64> =
                checkpoints(out.path()).unwrap().into_iter().map(|(step, _)| step).collect();
            assert_eq!(left, expected, "{limit:?} {best:?}");
        }
    }

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
    fn what_is_no_checkpoint_is_told() {
        let out = folder(&[5]);
        let error = Saved::newest(out.path()).err().unwrap().to_string();
        assert!(error.contains("checkpoint-5") && error.contains(STATE), "{error}");
        let empty = folder(&[]);
        let error = Saved::newest(empty.path()).err().unwrap().to_string();
        assert!(error.ends_with("has no checkpoint to go on from"), "{error}");
    }
}
