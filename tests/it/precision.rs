//! Training in 16 bits against the reference's autocast, on tiny checkpoints: how far states, logits and
//! gradients are from f32 must be what it is there (tests/golden/make_autocast.py).

use std::path::Path;

use serde_json::Value;
use tch::{Kind, Tensor};
use vedm::nn::precision::Autocast;
use vedm::train::loss;
use vedm::train::optim::{Freeze, Gradients, parameters};
use vedm::ved::{self, LoadOptions, VisionEncoderDecoder};

use crate::support::{elsewhere, tests_folder};

/// How many times the reference's distance from f32 is allowed. The roundings are as large in both, but
/// fall elsewhere.
const STATES: f64 = 1.5;
const LOGITS: f64 = 2.0;
const GRADIENTS: f64 = 3.0;

/// What a pass gives: states, logits, loss and all gradients as one vector, in f64.
struct Pass {
    states: Tensor,
    logits: Tensor,
    loss: f64,
    gradients: Tensor,
}

fn pass(
    model: &VisionEncoderDecoder,
    pixels: &Tensor,
    labels: &Tensor,
    kind: Option<Kind>,
) -> Pass {
    let _mixed = Autocast::new(kind);
    let scale = if kind == Some(Kind::Half) { 1024.0 } else { 1.0 };
    let states = tch::no_grad(|| model.encode(pixels, false));
    let ids = model.shift_tokens_right(labels).unwrap();
    let logits = tch::no_grad(|| model.logits(&model.project(&states), &ids, false));
    let trained = parameters(model.store(), Freeze::default());
    let items = loss::items(labels);
    let loss = loss::forward(model, pixels, labels, items, 0.0, false).unwrap();
    assert_eq!(loss.kind(), Kind::Float);
    let mut gradients = Gradients::new(trained.len());
    gradients.add(&(&loss * scale), &trained, &[]);
    gradients.scale(1.0 / scale);
    let flat: Vec<Tensor> = gradients
        .iter()
        .zip(&trained)
        .map(|(gradient, parameter)| match gradient {
            Some(gradient) => {
                assert_eq!(gradient.kind(), Kind::Float, "{}", parameter.name);
                gradient.to_kind(Kind::Double).flatten(0, -1)
            }
            None => {
                Tensor::zeros([parameter.tensor.numel() as i64], (Kind::Double, tch::Device::Cpu))
            }
        })
        .collect();
    let double = |xs: &Tensor| xs.to_kind(Kind::Double);
    Pass {
        states: double(&states),
        logits: double(&logits),
        loss: loss.double_value(&[]),
        gradients: Tensor::cat(&flat, 0),
    }
}

fn distance(a: &Tensor, b: &Tensor) -> f64 {
    (a - b).norm().double_value(&[]) / b.norm().double_value(&[])
}

fn check(folder: &Path, expected: &Value) -> Vec<String> {
    let (model, _) = ved::load(folder, LoadOptions::default()).unwrap();
    let tensors = Tensor::read_safetensors(folder.join("expected.safetensors")).unwrap();
    let find = |wanted: &str| {
        let found = tensors.iter().find(|(name, _)| name == wanted);
        found.unwrap().1.shallow_clone()
    };
    let (pixels, labels) = (find("pixel_values"), find("labels"));
    let plain = pass(&model, &pixels, &labels, None);
    let mut failures = Vec::new();
    for (name, kind) in [("bf16", Kind::BFloat16), ("f16", Kind::Half)] {
        let low = pass(&model, &pixels, &labels, Some(kind));
        let expected = &expected[name];
        let rows = [
            ("states", distance(&low.states, &plain.states), STATES),
            ("logits", distance(&low.logits, &plain.logits), LOGITS),
            ("gradient", distance(&low.gradients, &plain.gradients), GRADIENTS),
        ];
        for (what, found, times) in rows {
            let reference = expected[format!("{what}_distance")].as_f64().unwrap();
            if found > times * elsewhere() * reference || found == 0.0 {
                failures.push(format!("{name} {what}: {found:.2e} for {reference:.2e}"));
            }
        }
        // The loss moves by no more than the logits do, which are about one in size.
        let bound = LOGITS
            * expected["logits_distance"].as_f64().unwrap()
            * plain.logits.abs().max().double_value(&[]);
        let moved = (low.loss - expected["loss"].as_f64().unwrap()).abs();
        if moved > bound {
            failures.push(format!("{name} loss: {} for {}", low.loss, expected["loss"]));
        }
    }
    failures
}

#[test]
fn sixteen_bits_are_as_far_from_f32_as_the_reference_s() {
    tch::set_num_threads(1);
    let text = std::fs::read_to_string(tests_folder("fixtures").join("autocast.json")).unwrap();
    let cases: serde_json::Map<String, Value> = serde_json::from_str(&text).unwrap();
    assert!(cases.len() > 10);
    let mut failures = Vec::new();
    for (name, expected) in &cases {
        let found = check(&tests_folder("golden").join(name), expected);
        failures.extend(found.into_iter().map(|failure| format!("{name}: {failure}")));
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
