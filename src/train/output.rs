//! The output directory: the checkpoints in it, and what an earlier run left there.
//!
//! The checkpoint with the highest number of those that can be read is the newest. That holds because a run
//! never goes back beside later ones ([`ensure_none_later`]); resuming, rotating and what an interrupt tells
//! rely on it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::card::{self, CARD};
use super::log::METRICS;
use super::plot::PLOT;
use super::state::Saved;
use crate::checkpoint::{aside, is_weights};
use crate::text::TOKENIZER_FILES;

const PREFIX: &str = "checkpoint-";
/// What the names of temporary files and directories of this program begin with.
const LEFTOVER: &str = ".vedm-";
/// What else a trained model consists of, apart from weights and tokenizer.
const OTHERS: [&str; 6] = [
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    METRICS,
    PLOT,
];

/// All `checkpoint-N` directories of `out` by their step; none if `out` is not there.
pub fn checkpoints(out: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for path in entries(out)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let step = name.strip_prefix(PREFIX).and_then(|step| step.parse().ok());
        if let Some(step) = step.filter(|_| path.is_dir()) {
            found.push((step, path));
        }
    }
    found.sort();
    Ok(found)
}

/// What lies in a directory; nothing if it is not there.
fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    if !dir.is_dir() {
        return Ok(Vec::new());
    }
    let list = || fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>();
    list().with_context(|| format!("can't list {dir:?}"))
}

/// The directory of the checkpoint after `step`.
pub fn checkpoint_dir(out: &Path, step: u64) -> PathBuf {
    out.join(format!("{PREFIX}{step}"))
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

/// True if `dir` lies right in `out`.
pub fn holds(out: &Path, dir: &Path) -> bool {
    let (out, dir) = (out.canonicalize().ok(), dir.canonicalize().ok());
    out.is_some() && dir.as_deref().and_then(Path::parent) == out.as_deref()
}

/// Refuses to go back to a checkpoint of `out` while later ones are there: they would be taken for the newest,
/// and those of the run that went back would be the first to be removed.
pub fn ensure_none_later(out: &Path, saved: &Saved) -> Result<()> {
    let own = saved.state.global_step;
    let mut later = checkpoints(out)?.into_iter().rev().filter(|(step, _)| *step > own);
    if let Some((step, _)) = later.find(|(_, dir)| Saved::open(dir).is_ok()) {
        bail!(
            "{out:?} holds checkpoint-{step}, which is later than {:?}: to go back, move the later \
             checkpoints away, or pass another --output",
            saved.dir
        );
    }
    Ok(())
}

/// Removes the oldest checkpoints beyond `limit`; never the one of step `newest`, which was written just now,
/// and never the best. What can't be read is no checkpoint: it is neither counted nor touched.
pub fn rotate(out: &Path, limit: Option<usize>, newest: u64, best: Option<u64>) -> Result<()> {
    let Some(limit) = limit else { return Ok(()) };
    let mut all = checkpoints(out)?;
    if all.len() > limit {
        all.retain(|(step, dir)| *step == newest || Saved::open(dir).is_ok());
    }
    let surplus = all.len().saturating_sub(limit.max(1));
    let old = all.iter().filter(|(step, _)| *step != newest && Some(*step) != best);
    old.take(surplus).try_for_each(|(_, dir)| discard(dir))
}

/// Removes a directory that takes another name first: half a checkpoint never has a checkpoint's.
fn discard(dir: &Path) -> Result<()> {
    let hidden = aside(dir);
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

/// Removes all checkpoints, the log and the model of an earlier run: a file that the new model does not have
/// would be read with it.
pub fn clear(out: &Path) -> Result<()> {
    checkpoints(out)?.iter().try_for_each(|(_, dir)| discard(dir))?;
    for path in entries(out)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let of_a_model = TOKENIZER_FILES.contains(&name.as_str())
            || OTHERS.contains(&name.as_str())
            || is_weights(&name)
            || (name == CARD && !card::is_foreign(&path));
        if of_a_model && path.is_file() {
            fs::remove_file(&path).with_context(|| format!("can't remove {path:?}"))?;
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tch::Tensor;

    use super::*;
    use crate::checkpoint::write_safetensors;
    use crate::train::state::{OPTIMIZER, STATE, TrainState};

    /// Checkpoints of these steps, and what has only the names of some.
    fn folder(steps: &[u64], damaged: &[u64]) -> tempfile::TempDir {
        let out = tempfile::tempdir().unwrap();
        for step in steps.iter().chain(damaged) {
            fs::create_dir(checkpoint_dir(out.path(), *step)).unwrap();
        }
        for step in steps {
            let dir = checkpoint_dir(out.path(), *step);
            let state = TrainState { global_step: *step, ..TrainState::default() };
            fs::write(dir.join(STATE), serde_json::to_string(&state).unwrap()).unwrap();
            let tensors = [("a".to_string(), Tensor::from_slice(&[1f32]))];
            for name in ["model.safetensors", OPTIMIZER] {
                write_safetensors(&dir.join(name), &tensors, &[]).unwrap();
            }
        }
        fs::create_dir(out.path().join("checkpoint-x")).unwrap();
        fs::write(out.path().join("checkpoint-3"), "a file").unwrap();
        out
    }

    fn left(out: &Path) -> Vec<u64> {
        checkpoints(out).unwrap().into_iter().map(|(step, _)| step).collect()
    }

    #[allow(clippy::type_complexity)]
    #[test]
    fn rotation_spares_the_newest_and_the_best() {
        // Checkpoints, damaged ones, limit, the one just written, best, what stays.
        let table: [(&[u64], &[u64], Option<usize>, u64, Option<u64>, &[u64]); 9] = [
            (&[2, 10, 9], &[], None, 10, None, &[2, 9, 10]),
            (&[2, 10, 9], &[], Some(2), 10, None, &[9, 10]),
            (&[2, 10, 9], &[], Some(2), 10, Some(2), &[2, 10]),
            (&[2, 10, 9], &[], Some(1), 10, Some(2), &[2, 10]),
            (&[2, 10, 9], &[], Some(1), 10, Some(10), &[10]),
            (&[2, 10, 9], &[], Some(5), 10, Some(7), &[2, 9, 10]),
            // A damaged one is not taken for the newest, and takes nobody's place.
            (&[2, 4], &[99], Some(1), 4, None, &[4, 99]),
            (&[2, 4, 6], &[1, 99], Some(2), 6, None, &[1, 4, 6, 99]),
            (&[4, 6], &[], Some(1), 4, None, &[4]),
        ];
        for (steps, damaged, limit, newest, best, expected) in table {
            let out = folder(steps, damaged);
            rotate(out.path(), limit, newest, best).unwrap();
            assert_eq!(left(out.path()), expected, "{steps:?} {damaged:?} {limit:?} {best:?}");
        }
    }

    #[test]
    fn what_is_no_checkpoint_is_told() {
        let out = folder(&[], &[5]);
        let error = newest(out.path()).err().unwrap().to_string();
        assert!(error.contains("checkpoint-5") && error.contains(STATE), "{error}");
        let empty = folder(&[], &[]);
        let error = newest(empty.path()).err().unwrap().to_string();
        assert!(error.ends_with("has no checkpoint to go on from"), "{error}");
    }

    #[test]
    fn nobody_goes_back_beside_later_checkpoints() {
        let out = folder(&[2, 4, 6], &[8]);
        let saved = |step| Saved::open(&checkpoint_dir(out.path(), step)).unwrap();
        ensure_none_later(out.path(), &saved(6)).unwrap();
        let error = ensure_none_later(out.path(), &saved(2)).unwrap_err().to_string();
        assert!(error.contains("holds checkpoint-6, which is later than"), "{error}");
        assert!(holds(out.path(), &checkpoint_dir(out.path(), 2)));
        assert!(!holds(out.path(), out.path()) && !holds(Path::new("none"), Path::new("none/a")));
    }

    #[test]
    fn an_earlier_model_goes_and_what_is_of_others_stays() {
        let out = folder(&[2], &[]);
        let gone = ["vocab.txt", "config.json", "model-00001-of-00002.safetensors", METRICS];
        let kept = ["notes.txt", CARD];
        gone.iter().chain(&kept).for_each(|name| fs::write(out.path().join(name), "x").unwrap());
        clear(out.path()).unwrap();
        assert_eq!(left(out.path()), [0; 0]);
        assert!(gone.iter().all(|name| !out.path().join(name).exists()));
        assert!(kept.iter().all(|name| out.path().join(name).exists()));
    }
}
