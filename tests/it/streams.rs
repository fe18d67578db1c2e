//! `vedm train` on a stream: `--data pipe:COMMAND`.
#![cfg(unix)]

use std::path::Path;

use crate::support::append;
use crate::train::{eight_lines, fresh_model, metrics, train};

/// Samples of a window of sixteen batches of four.
const SAMPLES: usize = 64;

/// A tar file of the eight lines, again and again, and the command that writes it.
fn command(folder: &Path) -> String {
    command_with(folder, &[])
}

/// The same with some samples that are no pictures.
fn command_with(folder: &Path, bad: &[usize]) -> String {
    let table = std::fs::read_to_string(eight_lines(folder)).unwrap();
    let mut reader = csv::Reader::from_reader(table.as_bytes());
    let rows: Vec<(String, String)> = reader.deserialize().map(Result::unwrap).collect();
    let path = folder.join("lines.tar");
    let mut tar = tar::Builder::new(std::fs::File::create(&path).unwrap());
    for (index, (name, text)) in rows.iter().cycle().take(SAMPLES).enumerate() {
        let picture = std::fs::read(folder.join(name)).unwrap();
        let picture = if bad.contains(&index) { b"no picture" } else { picture.as_slice() };
        append(&mut tar, &format!("{index:04}.png"), picture);
        append(&mut tar, &format!("{index:04}.txt"), text.as_bytes());
    }
    tar.into_inner().unwrap();
    format!("pipe:cat {}", path.display())
}

/// Every helper of training on; a rate that does not look at the end of the run.
const OPTIONS: &[&str] = &[
    "--per-device-train-batch-size",
    "4",
    "--learning-rate",
    "2e-3",
    "--lr-scheduler-type",
    "constant",
    "--group-by-length",
    "--trim-padding",
    "0.6",
    "--ctc-weight",
    "0.4",
    "--logging-steps",
    "1",
    "--save-steps",
    "3",
];

#[test]
fn a_stream_is_learnt_from_and_resumed_in_the_middle_of_a_window() {
    let folder = tempfile::tempdir().unwrap();
    let (model, data) = (fresh_model(folder.path(), &[]), command(folder.path()));
    let straight = folder.path().join("straight");
    let long = [OPTIONS, &["--max-steps", "14"]].concat();
    let said = train(&model, &data, &straight, &long).status(0).stderr;
    assert!(said.contains("0001.png: \"Monday, 14 October 2019\" is 25 tokens"), "{said}");
    assert!(said.contains("14 steps, 4 samples each"), "{said}");
    let losses: Vec<f64> = metrics(&straight).iter().filter_map(|l| l["loss"].as_f64()).collect();
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    assert_eq!(losses.len(), 14);
    assert!(mean(&losses[9..]) < 0.9 * mean(&losses[..5]), "{losses:?}");
    let card = std::fs::read_to_string(straight.join("README.md")).unwrap();
    assert!(card.contains("| stream | stream |"), "{card}");

    let resumed = folder.path().join("resumed");
    train(&model, &data, &resumed, &[OPTIONS, &["--max-steps", "6"]].concat()).status(0);
    let more = [&long[..], &["--resume-from-checkpoint"]].concat();
    train(&model, &data, &resumed, &more).status(0);
    let weights = |out: &Path| std::fs::read(out.join("model.safetensors")).unwrap();
    assert!(weights(&straight) == weights(&resumed), "the weights differ");
    // The head of the second loss is a helper: no model has it.
    let bytes = weights(&straight);
    assert!(!bytes.windows(8).any(|name| name == b"ctc_head"));
}

#[test]
fn samples_are_left_out_and_counted_when_they_are_taken() {
    let folder = tempfile::tempdir().unwrap();
    let model = fresh_model(folder.path(), &[]);
    let data = command_with(folder.path(), &[1, 4, 5, 6, 7, 20, 21, 30]);
    let run = |name: &str, steps: &str| {
        let more = ["--per-device-train-batch-size", "4", "--max-steps", steps, "--skip-bad-rows"];
        train(&model, &data, &folder.path().join(name), &more).status(0).stderr
    };
    let said = run("one", "1");
    assert!(said.contains("0001.png: ") && said.contains("; it is left out"), "{said}");
    assert!(said.contains("that could not be used and were left out: 1\n"), "{said}");
    // Of the second batch nothing is left: the step is made of the third.
    let said = run("two", "2");
    assert!(said.contains("that could not be used and were left out: 5\n"), "{said}");
}

#[test]
fn what_makes_no_sense_with_a_stream_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (model, data) = (fresh_model(folder.path(), &[]), command(folder.path()));
    let table_of_eval = folder.path().join("train.csv").display().to_string();
    let table: &[(&str, &[&str], &str)] = &[
        (&data, &[], "say with --max-steps how long to train"),
        (&data, &["--max-steps", "2", "--eval-split", "0.1"], "a stream can't be split"),
        ("pipe:exit 3", &["--max-steps", "2"], "exit status: 3"),
        ("pipe:", &["--max-steps", "2"], "a command is missing behind pipe:"),
        (&data, &["--max-steps", "99"], "ended after 64 samples"),
        (
            &data,
            &["--max-steps", "2", "--early-stopping-patience", "1", "--eval-data", &table_of_eval],
            "nothing is evaluated before the end; pass --eval-steps N",
        ),
        (&data, &["--ctc-weight", "1"], "expected at least 0 and below 1"),
        (&data, &["--trim-padding", "1.5"], "expected a share of the batches, 0 to 1"),
    ];
    for (data, more, expected) in table {
        let out = folder.path().join("out");
        let ran = train(&model, data, &out, &[more, &["--overwrite-output-dir"][..]].concat());
        let said = ran.status(1).stderr;
        assert!(said.contains(expected), "{more:?}: {said}");
    }
}
