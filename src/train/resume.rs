//! Where a run begins: afresh, or where a checkpoint stands; what is refused, and what differs.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};
use serde_json::Value;

use super::log::{METRICS, Talk};
use super::options::{Options, Resume, Start, eval_name};
use super::output::{self, checkpoint_dir, checkpoints};
use super::setup::Request;
use super::state::{Fingerprint, Saved, TrainState};
use crate::checkpoint::Checkpoint;

/// The checkpoint to go on from, after a look at what lies in the output directory.
pub(super) fn saved(request: &Request, talk: &Talk) -> Result<Option<Saved>> {
    let out = &request.output;
    ensure!(!out.is_file(), "--output {out:?} is a file, the output is a directory");
    if let Some(model) = &request.model
        && model.canonicalize().ok() == out.canonicalize().ok()
    {
        bail!("--output {out:?} is the model itself; train into another directory");
    }
    match &request.start {
        Start::Resume(Resume::From(dir)) => {
            let saved = Saved::open(dir)?;
            if output::holds(out, dir) {
                output::ensure_none_later(out, &saved)?;
            } else {
                let go_on = "choose another directory, or pass --resume-from-checkpoint without a \
                             directory to go on with it";
                ensure_unused(out, go_on, "choose another directory")?;
            }
            Ok(Some(saved))
        }
        Start::Resume(Resume::Newest) => {
            let (saved, notes) = output::newest(out)?;
            notes.iter().for_each(|note| talk.warn(note));
            Ok(Some(saved))
        }
        Start::Overwrite => {
            if let Some(model) = &request.model {
                let inside = model
                    .canonicalize()
                    .is_ok_and(|model| out.canonicalize().is_ok_and(|out| model.starts_with(out)));
                ensure!(!inside, "the model {model:?} lies in {out:?}, which is to be overwritten");
            }
            Ok(None)
        }
        Start::Fresh => {
            let go_on = "pass --resume-from-checkpoint to go on with it, or --overwrite-output-dir to \
                         start anew";
            ensure_unused(out, go_on, "choose another directory, or pass --overwrite-output-dir")?;
            Ok(None)
        }
    }
}

/// Refuses a directory with checkpoints of another run, saying how to `go_on`, or with a model, saying what to
/// do `instead`.
fn ensure_unused(out: &Path, go_on: &str, instead: &str) -> Result<()> {
    if let Some((step, _)) = checkpoints(out)?.last() {
        bail!("{out:?} holds checkpoint-{step} of an earlier run: {go_on}");
    }
    let has_model = ["config.json", METRICS].iter().any(|name| out.join(name).exists());
    ensure!(!has_model, "{out:?} holds a model already: {instead}");
    Ok(())
}

/// The state to go on with, and how this run differs from the one that wrote it.
pub(super) fn state(
    saved: &Saved,
    request: &Request,
    options: &Options,
    data: &Fingerprint,
    max_steps: u64,
    talk: &Talk,
) -> TrainState {
    let mut state = TrainState { max_steps, ..saved.state.clone() };
    talk.say(&format!("going on after step {} of {max_steps}", state.global_step));
    if let Some(name) = request.name.as_ref().filter(|name| is_other(name, &state.base_model)) {
        talk.warn(&format!(
            "--model {name} is not read: the run goes on with the model of {:?}, which began with {}",
            saved.dir, state.base_model
        ));
    }
    let changes = options.changes_since(&state.options);
    if !changes.is_empty() {
        talk.warn(&format!("options differ from the checkpoint's: {}", changes.join(", ")));
    }
    if state.data != *data {
        talk.warn(&format!(
            "the data is not the checkpoint's ({} then, {} now): the run goes on at the same place of it",
            rows(state.data.train_rows),
            rows(data.train_rows)
        ));
    }
    state.data = data.clone();
    recall_best(&mut state, &saved.dir, options, talk);
    state
}

/// True if the two do not name the same model.
fn is_other(name: &str, base_model: &str) -> bool {
    let place = |name: &str| Path::new(name).canonicalize().ok();
    name != base_model && (place(name).is_none() || place(name) != place(base_model))
}

/// A number of rows to train on, as people say it.
fn rows(count: usize) -> String {
    if count == 0 { "a stream".to_string() } else { format!("{count} rows to train on") }
}

/// Ranks what was evaluated by the metric of this run, and finds the best model again, if it is to be kept:
/// its checkpoint may lie beside the one of `dir`, or where the state says; it may be gone.
fn recall_best(state: &mut TrainState, dir: &Path, options: &Options, talk: &Talk) {
    let metric = |name: Option<&str>| eval_name(name.unwrap_or("loss"));
    let now = metric(options.metric_for_best_model.as_deref());
    let then = state.options.get("metric-for-best-model").and_then(Value::as_str);
    if now != metric(then) {
        state.rank_anew(&now);
        if let Some(best) = state.best_global_step {
            talk.say(&format!("by {now}, the model of step {best} is the best so far"));
        }
    }
    let Some(best) = state.best_global_step.filter(|_| options.load_best_model_at_end) else {
        return;
    };
    let own = (best == state.global_step).then(|| dir.to_path_buf());
    let beside = dir.parent().map(|out| checkpoint_dir(out, best));
    let named = state.best_model_checkpoint.take().map(PathBuf::from);
    let mut places = own.into_iter().chain(beside).chain(named);
    let found = places.find(|place| Checkpoint::open(place).is_ok());
    if found.is_none() {
        talk.warn(&format!(
            "the best model so far, of step {best}, is not there any more: the best from here on is kept"
        ));
        (state.best_metric, state.best_global_step) = (None, None);
    }
    state.best_model_checkpoint =
        found.and_then(|found| std::path::absolute(found).ok()?.to_str().map(str::to_string));
    // The figures of another model are not those of the best.
    state.scores = state.scores.take().filter(|(_, step)| Some(*step) == state.best_global_step);
}
