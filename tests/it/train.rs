//! `vedm train` as a user runs it.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{Ran, Vedm};

/// Sizes of a model that learns a handful of lines in seconds.
const TINY: &[&str] = &[
    "encoder.hidden_size=64",
    "encoder.num_hidden_layers=2",
    "encoder.num_attention_heads=4",
    "encoder.intermediate_size=128",
    "encoder.image_size=[32,256]",
    "encoder.patch_size=[32,8]",
    "decoder.d_model=64",
    "decoder.decoder_layers=2",
    "decoder.decoder_attention_heads=4",
    "decoder.decoder_ffn_dim=128",
    "decoder.max_position_embeddings=64",
];

/// A folder of the repository.
fn asset(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("assets").join(name)
}

/// A fresh model that knows nothing, in `folder`/model.
pub fn fresh_model(folder: &Path, more: &[&str]) -> String {
    let out = folder.join("model").display().to_string();
    let tokenizer = asset("vedm-ocr-printed").display().to_string();
    let mut args = vec!["init", &out, "--encoder", "vit", "--decoder", "trocr"];
    args.extend(["--tokenizer", &tokenizer]);
    TINY.iter().chain(more).for_each(|set| args.extend(["--set", set]));
    Vedm::new(&args).run().status(0);
    out
}

/// Eight images of lines and their table: the samples of the repository, and two of them turned over.
pub fn eight_lines(folder: &Path) -> String {
    let samples = asset("samples");
    let table = std::fs::read_to_string(samples.join("labels.csv")).unwrap();
    let mut rows = table.clone();
    for line in table.lines().skip(1) {
        let name = line.split(',').next().unwrap();
        std::fs::copy(samples.join(name), folder.join(name)).unwrap();
    }
    for (name, text) in [("heading.png", "upside down"), ("date.png", "the other way round")] {
        let turned = image::open(folder.join(name)).unwrap().rotate180();
        turned.save(folder.join(format!("turned-{name}"))).unwrap();
        rows.push_str(&format!("turned-{name},{text}\n"));
    }
    let path = folder.join("train.csv");
    std::fs::write(&path, rows).unwrap();
    path.display().to_string()
}

/// `vedm train` with a model, a table, an output directory and more.
pub fn train(model: &str, data: &str, out: &Path, more: &[&str]) -> Ran {
    let out = out.display().to_string();
    let mut args = vec!["train", "--model", model, "--data", data, "--output", &out];
    args.extend(["--device", "cpu", "--threads", "1"]);
    args.extend(more);
    Vedm::new(&args).run()
}

/// The lines of metrics.jsonl.
pub fn metrics(out: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A folder with a fresh model and eight lines.
fn place() -> (TempDir, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let (model, data) = (fresh_model(folder.path(), &[]), eight_lines(folder.path()));
    (folder, model, data)
}

#[test]
fn eight_lines_are_learnt_by_heart() {
    let (folder, model, data) = place();
    let out = folder.path().join("out");
    let more = ["--max-steps", "260", "--learning-rate", "3e-3", "--warmup-ratio", "0.1"];
    let rest = ["--save-steps", "never", "--logging-steps", "20", "--lr-scheduler-type", "cosine"];
    train(&model, &data, &out, &[&more[..], &rest].concat()).status(0);
    let losses: Vec<f64> = metrics(&out).iter().filter_map(|line| line["loss"].as_f64()).collect();
    assert_eq!(losses.len(), 13);
    assert!(losses[0] > 3.0 && losses[12] < 0.05, "{losses:?}");

    let trained = out.display().to_string();
    let table = std::fs::read_to_string(&data).unwrap();
    let mut reader = csv::Reader::from_reader(table.as_bytes());
    let rows: Vec<(String, String)> = reader.deserialize().map(Result::unwrap).collect();
    assert_eq!(rows.len(), 8);
    let names: Vec<String> =
        rows.iter().map(|(name, _)| folder.path().join(name).display().to_string()).collect();
    let mut args = vec!["ocr", "--model", &trained, "--format", "jsonl"];
    args.extend(names.iter().map(String::as_str));
    let read = Vedm::new(&args).run().status(0).stdout;
    let texts: Vec<String> = read
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["text"].as_str().unwrap().into())
        .collect();
    let expected: Vec<&String> = rows.iter().map(|(_, text)| text).collect();
    assert_eq!(texts.iter().collect::<Vec<_>>(), expected);
}

#[test]
fn values_that_cannot_be_meant_are_refused_in_one_sentence() {
    let (folder, model, data) = place();
    let out = folder.path().join("out");
    let table: &[(&[&str], &str)] = &[
        (&["--learning-rate", "0"], "--learning-rate 0: expected a number above 0"),
        (&["--learning-rate", "nan"], "--learning-rate NaN: expected a number above 0"),
        (&["--adam-beta2", "1"], "--adam-beta2 1: expected at least 0 and below 1"),
        (&["--warmup-ratio", "2"], "--warmup-ratio 2: expected a share of the steps, 0 to 1"),
        (&["--lr-scheduler-type", "linaer"], "--lr-scheduler-type linaer: expected one of linear"),
        (&["--freeze-encoder", "--freeze-decoder"], "nothing would be left to train"),
        (&["--load-best-model-at-end"], "--load-best-model-at-end needs an evaluation"),
        (&["--per-device-train-batch-size", "0"], "expected at least 1"),
        (&["--max-target-length", "1000"], "the decoder has"),
        (&["--eval-split", "1.5"], "--eval-split 1.5"),
        (&["--resume-from-checkpoint"], "has no checkpoint to go on from"),
        (&["--save-steps", "often"], "a number of steps, a share of them below 1, epoch or never"),
    ];
    for (more, expected) in table {
        let ran = train(&model, &data, &out, more).status(1);
        assert!(ran.stderr.contains(expected), "{more:?}: {}", ran.stderr);
        assert!(!out.exists(), "{more:?} has made the output directory");
    }
}

#[test]
fn an_earlier_run_is_never_overwritten_by_accident() {
    let (folder, model, data) = place();
    let out = folder.path().join("out");
    let short = ["--max-steps", "2", "--save-steps", "1", "--logging-steps", "1"];
    train(&model, &data, &out, &short).status(0);
    let before = std::fs::read(out.join("model.safetensors")).unwrap();
    let ran = train(&model, &data, &out, &short).status(1);
    for expected in ["checkpoint-2", "--resume-from-checkpoint", "--overwrite-output-dir"] {
        assert!(ran.stderr.contains(expected), "{}", ran.stderr);
    }
    let ran = train(&out.display().to_string(), &data, &out, &short).status(1);
    assert!(ran.stderr.contains("is the model itself"), "{}", ran.stderr);
    assert_eq!(std::fs::read(out.join("model.safetensors")).unwrap(), before);

    let anew = ["--max-steps", "1", "--overwrite-output-dir", "--save-steps", "never"];
    train(&model, &data, &out, &anew).status(0);
    assert!(!out.join("checkpoint-2").exists());
    assert_eq!(metrics(&out).len(), 1);
    assert_ne!(std::fs::read(out.join("model.safetensors")).unwrap(), before);
}

#[test]
fn help_fits_a_screen() {
    let short = Vedm::new(&["train", "-h"]).run().status(0).stdout;
    assert!(short.lines().count() <= 45, "{} lines\n{short}", short.lines().count());
    let long = Vedm::new(&["train", "--help"]).run().status(0).stdout;
    assert!(long.contains("--adam-epsilon") && long.contains("--generation-num-beams"));
}

#[test]
fn a_frozen_encoder_that_draws_nothing_is_run_once() {
    let (folder, model, data) = place();
    let run = |name: &str, steps: &str| {
        let out = folder.path().join(name);
        let more = ["--freeze-encoder", "--lr-scheduler-type", "constant", "--logging-steps", "1"];
        let sizes = ["--per-device-train-batch-size", "2", "--max-steps", steps];
        let said = train(&model, &data, &out, &[&more[..], &sizes].concat()).status(0).stderr;
        let losses = metrics(&out).iter().filter_map(|line| line["loss"].as_f64()).collect();
        (said, losses)
    };
    let kept = "the encoder is frozen: what it says of each image is kept";
    // Four steps see each of the eight images once: nothing would be saved.
    let (said, each): (String, Vec<f64>) = run("each", "4");
    assert!(!said.contains(kept), "{said}");
    let (said, once): (String, Vec<f64>) = run("once", "9");
    assert!(said.contains(kept), "{said}");
    assert_eq!((each.len(), once.len()), (4, 9));
    for (once, each) in once.iter().zip(&each) {
        assert!((once / each - 1.0).abs() < 1e-5, "{once} for {each}");
    }
    let drawing = tempfile::tempdir().unwrap();
    let model = fresh_model(drawing.path(), &["encoder.hidden_dropout_prob=0.1"]);
    let more = ["--freeze-encoder", "--max-steps", "9", "--per-device-train-batch-size", "2"];
    let said = train(&model, &data, &folder.path().join("drawing"), &more).status(0).stderr;
    let told = "the frozen encoder is run for every batch: the encoder's config has \
                hidden_dropout_prob 0.1";
    assert!(said.contains(told), "{said}");
}

#[test]
fn sixteen_bits_and_layers_computed_twice_learn_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let data = eight_lines(folder.path());
    // Draws of dropout would not be the same.
    let model = fresh_model(folder.path(), &["decoder.dropout=0"]);
    let run = |name: &str, more: &[&str]| {
        let out = folder.path().join(name);
        let options = ["--max-steps", "12", "--learning-rate", "1e-3", "--logging-steps", "1"];
        let said = train(&model, &data, &out, &[&options[..], more].concat()).status(0).stderr;
        (said, metrics(&out))
    };
    let loss = |lines: &[Value]| -> Vec<f64> {
        lines.iter().map(|line| line["loss"].as_f64().unwrap()).collect()
    };
    let plain = loss(&run("plain", &[]).1);
    assert!(plain[11] < 0.95 * plain[0], "{plain:?}");
    // How far from f32 the losses of twelve steps may be, relatively.
    let table: [(&str, &[&str], f64); 3] = [
        ("twice", &["--gradient-checkpointing"], 1e-4),
        ("bf16", &["--bf16"], 2e-2),
        ("both", &["--bf16", "--gradient-checkpointing"], 2e-2),
    ];
    for (name, more, bound) in table {
        let found = loss(&run(name, more).1);
        for (found, plain) in found.iter().zip(&plain) {
            assert!((found / plain - 1.0).abs() < bound, "{name}: {found} for {plain}");
        }
    }
    // A scale that is too large costs steps, is told and comes down; the learning rate waits.
    let (said, lines) = run("fp16", &["--fp16"]);
    let last = lines.last().unwrap();
    let skipped = last["skipped_steps"].as_u64().unwrap();
    assert_eq!(last["loss_scale"].as_f64().unwrap(), 65536.0 / 2f64.powi(skipped as i32));
    assert_eq!(said.matches("too large for f16").count() as u64, skipped);
    let learnt = loss(&lines);
    assert!(learnt[11] < 0.97 * learnt[0], "{learnt:?}");
    assert!((learnt[0] / plain[0] - 1.0).abs() < 5e-3, "{learnt:?}");
}
