//! The measuring itself, on a checkpoint that takes a second.

use std::ffi::OsString;
use std::io::Cursor;

use serde_json::{Value, json};

use crate::measure::{ask, same};
use crate::protocol::{Answer, Ready, Request};
use crate::report::{Column, Row, Table};
use crate::side::Side;
use crate::sides::{Other, Program};
use crate::spread::Spread;
use crate::{material, worker};

/// `vedm` inside this process.
fn vedm(words: Vec<OsString>) -> anyhow::Result<i32> {
    Ok(vedm::cli::status(std::iter::once(OsString::from("vedm")).chain(words)))
}

#[test]
fn a_worker_answers_with_as_many_tokens_as_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let model = material::find("tiny").unwrap();
    let checkpoint = model.checkpoint(dir.path(), vedm).unwrap();
    let pictures = model.pictures(dir.path(), material::PICTURES).unwrap();
    assert_ne!(std::fs::read(&pictures[0]).unwrap(), std::fs::read(&pictures[1]).unwrap());
    let request = |images, beams, parts| {
        let images = material::batch(&pictures, images);
        serde_json::to_string(&Request { images, beams, tokens: model.tokens, parts }).unwrap()
    };
    let requests = [request(3, 1, true), request(9, 4, false), request(1, 1, false)].join("\n");
    let words: Vec<OsString> = [
        "vedm".into(),
        "caption".into(),
        "--model".into(),
        checkpoint.into(),
        "--device".into(),
        "cpu".into(),
        pictures[0].clone().into(),
    ]
    .to_vec();
    let mut answers = Vec::new();
    worker::serve(words, Cursor::new(requests), &mut answers).unwrap();

    let answers = String::from_utf8(answers).unwrap();
    let mut lines = answers.lines();
    let ready: Ready = serde_json::from_str(lines.next().unwrap()).unwrap();
    assert!(ready.version.starts_with("vedm "));
    let answers: Vec<Answer> = lines.map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(answers.len(), 3);
    for (answer, images) in answers.iter().zip([3, 9, 1]) {
        assert_eq!(answer.error, None);
        assert!(answer.whole_ms > 0.0);
        let lengths: Vec<usize> = answer.ids.iter().map(Vec::len).collect();
        assert_eq!(lengths, vec![model.tokens as usize; images]);
    }
    assert!(answers[0].encoder_ms > 0.0 && answers[1].encoder_ms == 0.0);
    // Neither the batch nor a request before changes a text.
    assert_eq!(answers[0].ids[0], answers[2].ids[0]);
}

#[test]
fn failures_are_answers() {
    let dir = tempfile::tempdir().unwrap();
    let model = material::find("tiny").unwrap();
    let checkpoint = model.checkpoint(dir.path(), vedm).unwrap();
    let missing = dir.path().join("missing.png");
    let request = Request { images: vec![missing.clone()], beams: 1, tokens: 2, parts: false };
    let words = ["vedm", "caption", "--model"].map(OsString::from).into_iter();
    let words = words.chain([checkpoint.into(), missing.into()]).collect();
    let mut answers = Vec::new();
    let requests = Cursor::new(serde_json::to_string(&request).unwrap());
    worker::serve(words, requests, &mut answers).unwrap();
    let answers = String::from_utf8(answers).unwrap();
    let answer: Answer = serde_json::from_str(answers.lines().nth(1).unwrap()).unwrap();
    assert!(answer.error.unwrap().contains("no such file"));
}

#[test]
fn ratios_are_taken_within_rounds() {
    let mut times = Row::new("decode step".to_string(), "ms", 2);
    times.samples = vec![vec![10.0, 40.0, 30.0], vec![5.0, 10.0, 10.0]];
    let expected = Spread { median: 3.0, least: 2.0, greatest: 4.0 };
    assert_eq!(times.ratio(1), Some(expected));
    let mut rates = Row::rate("images a second".to_string(), 2);
    rates.samples = vec![vec![1.0, 2.0], vec![3.0, 2.0]];
    assert_eq!(rates.ratio(1), Some(Spread { median: 2.0, least: 1.0, greatest: 3.0 }));
    assert_eq!(rates.ratio(0), None);

    let mut table = Table::new("vit-gpt2", 1_000_000, 16);
    table.columns = vec![Column::new("reference"), Column::new("vedm f32")];
    table.columns[1].fails(&anyhow::anyhow!("no such type"));
    table.rows = vec![times, rates, Row::new("encoder".to_string(), "ms", 2)];
    let text = table.text();
    assert!(text.contains("30.0") && text.contains("3.00 (2.00-4.00)"), "{text}");
    assert!(text.contains("vedm f32 failed: no such type"), "{text}");
    // What nobody measured is not shown.
    assert!(!text.contains("encoder"), "{text}");
    let row = "| decode step | 30.0 ms | 10.0 ms, 3.00x (2.00-4.00) |";
    assert!(table.markdown().contains(row), "{}", table.markdown());
    let json = table.to_json();
    assert_eq!(json["rows"][0]["sides"][1]["times_better"]["median"], json!(3.0));
    assert_eq!(json["rows"][2]["sides"][1]["median"], Value::Null);
}

#[test]
fn equal_tokens_are_counted() {
    assert_eq!(same(&[vec![1, 2], vec![3, 4]], &[vec![1, 2], vec![3, 5]]), 75.0);
    assert_eq!(same(&[], &[]), 0.0);
}

#[test]
fn candle_is_measured_where_it_has_the_model() {
    let program = |candle: Option<&str>| Program {
        bench: "bench".into(),
        python: Some("python".into()),
        onnx: None,
        candle: candle.map(Into::into),
        reference_dtype: "f32".to_string(),
        device: vedm::device::DeviceChoice::Cpu,
        threads: 2,
    };
    let names = |program: &Program, model: &str| -> Vec<&str> {
        let others = program.others(material::find(model).unwrap());
        others.into_iter().map(Other::name).collect()
    };
    let with = program(Some("bench-candle"));
    for model in ["vit-gpt2", "trocr-small", "donut-base", "tiny"] {
        assert_eq!(names(&with, model), ["reference"], "{model}");
    }
    assert_eq!(names(&with, "trocr-base"), ["reference", "candle"]);
    assert_eq!(names(&program(None), "trocr-base"), ["reference"]);
}

#[test]
fn what_a_side_cannot_do_it_is_not_asked() {
    let script = r#"
        echo '{"version": "candle 1"}'
        while read -r request; do echo '{"whole_ms": 2.5, "ids": [[7]]}'; done"#;
    let side = || {
        let mut command = std::process::Command::new("sh");
        command.args(["-c", script]);
        Side::start(command).unwrap()
    };
    let mut greedy = side();
    greedy.greedy_only = true;
    assert_eq!(greedy.version, "candle 1");
    let mut sides = [Some(greedy), Some(side())];
    let mut table = Table::new("trocr-base", 1_000_000, 1);
    table.columns = vec![Column::new("candle"), Column::new("vedm f32")];
    let mut asked = |beams| {
        let request = Request { images: Vec::new(), beams, tokens: 1, parts: false };
        let answers = ask(&mut sides, &request, &mut table);
        answers.iter().map(|answer| answer.as_ref().map(|answer| answer.whole_ms)).collect()
    };
    let (four, one): (Vec<_>, Vec<_>) = (asked(4), asked(1));
    // It has an empty cell, not a failure, and goes on.
    assert_eq!(four, [None, Some(2.5)]);
    assert_eq!(one, [Some(2.5), Some(2.5)]);
    assert!(table.columns.iter().all(|column| !column.failed()));
}
