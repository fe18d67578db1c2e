//! What a run finds in its output directory, and what it leaves there.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::support::{Ran, golden};
use crate::train::{eight_lines, metrics, train};

/// A folder with a table; runs of a golden model.
struct Place {
    folder: TempDir,
    data: String,
}

fn place() -> Place {
    let folder = tempfile::tempdir().unwrap();
    let data = eight_lines(folder.path());
    Place { folder, data }
}

impl Place {
    fn out(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(&self, out: &Path, more: &[&str]) -> Ran {
        self.run_with("vit-gpt2", out, more)
    }

    fn run_with(&self, model: &str, out: &Path, more: &[&str]) -> Ran {
        let model = golden(model).display().to_string();
        let usual = ["--logging-steps", "1", "--per-device-train-batch-size", "4"];
        train(&model, &self.data, out, &[&usual[..], more].concat())
    }
}

fn has(out: &Path, step: u64) -> bool {
    out.join(format!("checkpoint-{step}")).is_dir()
}

#[test]
fn a_damaged_checkpoint_costs_no_good_one() {
    let place = place();
    let out = place.out("out");
    let keep = ["--save-steps", "1", "--save-total-limit", "1"];
    place.run(&out, &[&keep[..], &["--max-steps", "3"]].concat()).status(0);
    std::fs::create_dir(out.join("checkpoint-99")).unwrap();
    let on = ["--max-steps", "6", "--resume-from-checkpoint"];
    place.run(&out, &[&keep[..], &on].concat()).status(0);
    assert!(has(&out, 6) && !has(&out, 5));
    let said = place.run(&out, &["--max-steps", "7", "--resume-from-checkpoint"]).status(0).stderr;
    assert!(said.contains("going on after step 6 of 7"), "{said}");
}

#[test]
fn a_run_goes_back_only_where_nothing_later_lies() {
    let place = place();
    let out = place.out("out");
    place.run(&out, &["--save-steps", "2", "--max-steps", "6"]).status(0);
    let second = out.join("checkpoint-2").display().to_string();
    let back = ["--max-steps", "6", "--save-steps", "2", "--resume-from-checkpoint", &second];
    let said = place.run(&out, &back).status(1).stderr;
    assert!(said.contains("holds checkpoint-6, which is later than"), "{said}");
    assert!(said.contains("move the later checkpoints away, or pass another --output"), "{said}");
    // Into another directory it may, but not over another run.
    let other = place.out("other");
    place.run(&other, &back).status(0);
    assert!(has(&other, 4) && has(&other, 6) && !has(&other, 2));
    let weights = |out: &Path| std::fs::read(out.join("model.safetensors")).unwrap();
    assert!(weights(&out) == weights(&other));
    let before = weights(&other);
    let said = place.run(&other, &back).status(1).stderr;
    assert!(said.contains("holds checkpoint-6 of an earlier run: choose another"), "{said}");
    let third = place.out("third");
    place.run_with("deit-trocr", &third, &["--max-steps", "1", "--save-steps", "never"]).status(0);
    let said = place.run(&third, &back).status(1).stderr;
    assert!(said.contains("holds a model already: choose another directory"), "{said}");
    assert!(before == weights(&other));
    for step in ["4", "6"] {
        std::fs::remove_dir_all(out.join(format!("checkpoint-{step}"))).unwrap();
    }
    place.run(&out, &back).status(0);
    // What --model names is told where it is not what the run began with.
    let on = ["--max-steps", "7", "--resume-from-checkpoint"];
    let said = place.run_with("deit-trocr", &out, &on).status(0).stderr;
    assert!(said.contains("deit-trocr is not read: the run goes on with the model of"), "{said}");
}

/// Evaluations after each step, of which none but the first is the best.
const WORSENING: &[&str] =
    &["--eval-split", "0.25", "--eval-steps", "1", "--save-steps", "1", "--save-total-limit", "1"];
const FAST: &[&str] = &["--learning-rate", "0.5", "--lr-scheduler-type", "constant"];

#[test]
fn the_best_model_may_be_gone() {
    let place = place();
    // A model that has learnt nothing writes no four words in a row right: the first evaluation is the best.
    let by = [WORSENING, FAST, &["--metric-for-best-model", "bleu"]].concat();
    let on = ["--load-best-model-at-end", "--resume-from-checkpoint", "--max-steps", "5"];
    let gone = place.out("gone");
    place.run(&gone, &[&by[..], &["--max-steps", "4"]].concat()).status(0);
    assert!(has(&gone, 4) && !has(&gone, 1));
    let said = place.run(&gone, &[&by[..], &on].concat()).status(0).stderr;
    let told =
        "the best model so far, of step 1, is not there any more: the best from here on is kept";
    assert!(said.contains(told), "{said}");
    assert!(has(&gone, 5), "{said}");
    // One that turns out not to be the model's own at the end costs no step.
    let other = place.out("other");
    let keep = ["--load-best-model-at-end", "--max-steps", "4"];
    place.run(&other, &[&by[..], &keep].concat()).status(0);
    let weights = "model.safetensors";
    let file = other.join("checkpoint-1").join(weights);
    std::fs::copy(golden("deit-trocr").join(weights), file).unwrap();
    let said = place.run(&other, &[&by[..], &on].concat()).status(0).stderr;
    assert!(
        said.contains("the best model, of step 1, can't be read, the last one is kept"),
        "{said}"
    );
    let last = other.join("checkpoint-5").join(weights);
    assert!(std::fs::read(other.join(weights)).unwrap() == std::fs::read(last).unwrap());
}

#[test]
fn the_best_model_is_found_beside_the_checkpoint_and_by_another_metric() {
    let place = place();
    let out = place.out("out");
    let options = [&WORSENING[..6], FAST].concat();
    let more = ["--load-best-model-at-end", "--max-steps", "3"];
    place.run(&out, &[&options[..], &more].concat()).status(0);
    let figures = |out: &Path, name: &str| -> Vec<f64> {
        metrics(out).iter().filter_map(|line| line[name].as_f64()).collect()
    };
    let (losses, cers) = (figures(&out, "eval_loss"), figures(&out, "eval_cer"));
    let least = |figures: &[f64]| {
        let least = figures.iter().copied().fold(f64::INFINITY, f64::min);
        1 + figures.iter().position(|figure| *figure == least).unwrap()
    };
    let third = out.join("checkpoint-3").display().to_string();
    let on = |metric: &'static str| {
        let on = ["--load-best-model-at-end", "--max-steps", "4", "--metric-for-best-model"];
        [&options[..], &on, &[metric, "--resume-from-checkpoint", &third]].concat()
    };
    for (metric, figures) in [("loss", &losses), ("cer", &cers)] {
        let other = place.out(metric);
        let said = place.run(&other, &on(metric)).status(0).stderr;
        let own = metrics(&other).last().unwrap()[format!("eval_{metric}")].as_f64().unwrap();
        let best = least(&[&figures[..], &[own]].concat());
        let told = format!("by eval_cer, the model of step {} is the best so far", least(figures));
        assert_eq!(said.contains(&told), metric == "cer", "{said}");
        let told = format!("the model of step {best} is the best and is kept");
        assert_eq!(said.contains(&told), best != 4, "{said}");
        let from = if best == 4 { &other } else { &out };
        let of = |out: &Path| std::fs::read(out.join("model.safetensors")).unwrap();
        assert!(of(&other) == of(&from.join(format!("checkpoint-{best}"))), "{metric} {best}");
    }
}

#[test]
fn what_others_wrote_stays_and_what_an_earlier_model_had_goes() {
    let place = place();
    let out = place.out("out");
    std::fs::create_dir(&out).unwrap();
    std::fs::write(out.join("README.md"), "mine\n").unwrap();
    let short = ["--max-steps", "1", "--save-steps", "never"];
    let said = place.run_with("vit-bert", &out, &short).status(0).stderr;
    assert!(said.contains("is not of this program and stays as it is"), "{said}");
    assert_eq!(std::fs::read_to_string(out.join("README.md")).unwrap(), "mine\n");
    std::fs::write(out.join("vocab.txt"), "[CLS]\n").unwrap();
    std::fs::write(out.join("notes.txt"), "mine").unwrap();
    std::fs::remove_file(out.join("README.md")).unwrap();
    place.run(&out, &[&short[..], &["--overwrite-output-dir"]].concat()).status(0);
    let names = |dir: &Path| {
        let mut names: Vec<String> = std::fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    };
    let fresh = place.out("fresh");
    place.run(&fresh, &short).status(0);
    let mut expected = names(&fresh);
    expected.push("notes.txt".to_string());
    expected.sort();
    assert_eq!(names(&out), expected);
    // A card of this program is written anew.
    place.run_with("vit-bert", &out, &[&short[..], &["--overwrite-output-dir"]].concat()).status(0);
    assert!(std::fs::read_to_string(out.join("README.md")).unwrap().contains("vit-bert"));
}

#[test]
fn losses_that_are_no_numbers_are_not_told_as_zero() {
    let place = place();
    let wild = ["--learning-rate", "1e30", "--max-grad-norm", "0", "--max-steps", "3"];
    let said = place.run(&place.out("out"), &wild).status(0).stderr;
    assert!(said.contains("the loss is no finite number"), "{said}");
    assert!(said.contains("loss NaN") && !said.contains("loss 0.0000"), "{said}");
    let more = [&wild[..], &["--eval-split", "0.25", "--eval-steps", "1"]].concat();
    let said = place.run(&place.out("evaluated"), &more).status(1).stderr;
    assert!(said.contains("eval_loss after step 1 is NaN") && said.contains("lower"), "{said}");
}
