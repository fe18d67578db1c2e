//! `vedm train` beside the reference's `Seq2SeqTrainer`: the same checkpoint, pictures and settings have to
//! give the same losses, step by step.
//!
//! tests/fixtures/curves (written by tests/golden/make_curves.py) holds the pictures and what the
//! reference's runs logged.

use std::path::Path;

use serde_json::{Map, Value};
use tch::Tensor;
use vedm::train::schedule::{NAMES, Rate};

use crate::support::{copy_of, tests_folder};
use crate::train::{metrics, train};

/// How far a loss and a gradient's norm may be off after up to 20 steps, as a share.
const LOSS: f64 = 1e-4;
const GRAD_NORM: f64 = 1e-3;

fn read() -> Value {
    let text = std::fs::read_to_string(tests_folder("fixtures/curves/curves.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Switches every rate of dropout off in a copy of a golden case, and leaves a quarter of every matrix.
fn prepare(folder: &Path) {
    let path = folder.join("config.json");
    let mut config: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    for half in ["encoder", "decoder"] {
        let half = config[half].as_object_mut().unwrap();
        let rates = half.iter_mut().filter(|(name, _)| name.contains("drop"));
        rates.for_each(|(_, rate)| *rate = 0.0.into());
    }
    std::fs::write(&path, config.to_string()).unwrap();
    let path = folder.join("model.safetensors");
    let mut weights = Tensor::read_safetensors(&path).unwrap();
    for (_, weight) in weights.iter_mut().filter(|(_, weight)| weight.dim() > 1) {
        *weight = &*weight / 4.0;
    }
    Tensor::write_safetensors(&weights, &path).unwrap();
}

/// Settings of the reference as flags.
fn flags(settings: &Map<String, Value>) -> Vec<String> {
    let flag = |(name, value): (&String, &Value)| {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_string);
        [format!("--{}", name.replace('_', "-")), value]
    };
    settings.iter().flat_map(flag).collect()
}

#[test]
fn losses_fall_as_the_reference_s_do() {
    let data = tests_folder("fixtures/curves/data.csv").display().to_string();
    let (mut failures, mut lines) = (Vec::new(), Vec::new());
    for run in read()["runs"].as_array().unwrap() {
        let (case, settings) =
            (run["case"].as_str().unwrap(), run["settings"].as_object().unwrap());
        let name = format!("{case} {}", settings["lr_scheduler_type"]);
        let folder = copy_of(case);
        prepare(folder.path());
        let out = folder.path().join("out");
        let mut args = flags(settings);
        args.extend(["--logging-steps", "1", "--save-steps", "never"].map(str::to_string));
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        train(&folder.path().display().to_string(), &data, &out, &args).status(0);

        let found = metrics(&out);
        let mut compare = |what: &str, bound: f64| {
            let expected = run[what].as_array().unwrap();
            // Without clipping the reference does not tell norms.
            assert!(expected.len() == found.len() || expected.is_empty(), "{name}: {what}");
            let mut largest = 0f64;
            for (step, (found, expected)) in found.iter().zip(expected).enumerate() {
                let (found, expected) = (found[what].as_f64().unwrap(), expected.as_f64().unwrap());
                let error = (found - expected).abs() / expected.abs().max(1e-12);
                largest = largest.max(error);
                if error.is_nan() || error > bound {
                    let step = step + 1;
                    failures
                        .push(format!("{name}: {what} of step {step}: {found}, not {expected}"));
                }
            }
            largest
        };
        let [loss, norm, _] = [
            compare("loss", LOSS),
            compare("grad_norm", GRAD_NORM),
            compare("learning_rate", 1e-12),
        ];
        lines.push(format!("{name:42} largest errors: loss {loss:.1e}, grad_norm {norm:.1e}"));
    }
    println!("{}", lines.join("\n"));
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn every_schedule_goes_as_the_reference_s() {
    let json = &read()["rates"];
    let mut seen = Vec::new();
    for row in json["schedules"].as_array().unwrap() {
        let name = row["schedule"].as_str().unwrap();
        let rate = Rate {
            schedule: name.parse().unwrap(),
            learning_rate: json["learning_rate"].as_f64().unwrap(),
            warmup_steps: row["warmup_steps"].as_u64().unwrap(),
            max_steps: json["max_steps"].as_u64().unwrap(),
        };
        let values = row["values"].as_array().unwrap();
        assert_eq!(values.len(), 50);
        for (step, expected) in (0..).zip(values) {
            let (found, expected) = (rate.at(step), expected.as_f64().unwrap());
            assert!((found - expected).abs() <= 1e-16, "{name} {step}: {found}, not {expected}");
        }
        seen.push(name);
    }
    assert!(NAMES.iter().all(|name| seen.iter().filter(|seen| *seen == name).count() == 2));
}
