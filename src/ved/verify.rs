//! Two models that should be one: every tensor compared, and one image run through both.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use tch::{Kind, Tensor};

use super::VisionEncoderDecoder;

/// Compares the variables of `found` with those of `expected` (cast to `kind`, if given) bit by bit,
/// then the logits of the first tokens for one image, each model in its own number type.
/// Gives the largest difference of the logits; an error where only the second model's are no numbers.
pub fn compare(
    expected: &VisionEncoderDecoder,
    found: &VisionEncoderDecoder,
    kind: Option<Kind>,
) -> Result<f64> {
    let _guard = tch::no_grad_guard();
    let mut others: HashMap<String, Tensor> = found
        .store()
        .variables()
        .into_iter()
        .map(|variable| (variable.name, variable.tensor))
        .collect();
    for variable in expected.store().variables() {
        let other = others
            .remove(&variable.name)
            .with_context(|| format!("tensor {:?} was not written", variable.name))?;
        let floats = variable.tensor.is_floating_point();
        let wanted = match kind {
            Some(kind) if floats => variable.tensor.to_kind(kind),
            _ => variable.tensor,
        };
        let same = wanted.size() == other.size()
            && wanted.kind() == other.kind()
            && same_bits(&wanted, &other);
        ensure!(same, "tensor {:?} differs from what was read", variable.name);
    }
    ensure!(others.is_empty(), "{} tensors were written that were not read", others.len());
    logits_difference(expected, found)
}

/// Equal values; NaN equals NaN.
fn same_bits(a: &Tensor, b: &Tensor) -> bool {
    let equal = a.eq_tensor(b);
    let equal = if a.is_floating_point() {
        equal.logical_or(&a.isnan().logical_and(&b.isnan()))
    } else {
        equal
    };
    bool::try_from(equal.all()).unwrap_or(false)
}

/// One synthetic image through both. 0 where the encoder does not tell the size of its images.
fn logits_difference(a: &VisionEncoderDecoder, b: &VisionEncoderDecoder) -> Result<f64> {
    let Some((channels, height, width)) = image_shape(a) else { return Ok(0.0) };
    let count = channels * height * width;
    let ramp = Tensor::arange(count, (Kind::Float, a.device())) * (2.0 / count as f64) - 1.0;
    let pixels = ramp.sin().reshape([1, channels, height, width]);
    let logits = |model: &VisionEncoderDecoder| {
        let states = model.project(&model.encode(&pixels.to_kind(model.kind()), false));
        let ids = Tensor::zeros([1, 1], (Kind::Int64, model.device()));
        model.logits(&states, &ids, false).to_kind(Kind::Float)
    };
    let (expected, found) = (logits(a), logits(b));
    let finite = |logits: &Tensor| bool::try_from(logits.isfinite().all()).unwrap_or(false);
    ensure!(
        finite(&found) || !finite(&expected),
        "the logits of one image are no numbers, and were before"
    );
    f64::try_from((expected - found).abs().max()).context("the logits can't be compared")
}

fn image_shape(model: &VisionEncoderDecoder) -> Option<(i64, i64, i64)> {
    let config = &model.config.encoder;
    let size = config.get("image_size")?;
    let (height, width) = match size.as_array() {
        Some(pair) => (pair.first()?.as_i64()?, pair.get(1)?.as_i64()?),
        None => (size.as_i64()?, size.as_i64()?),
    };
    let channels = config.get("num_channels").and_then(serde_json::Value::as_i64).unwrap_or(3);
    model.encoder.check_size(height, width, false).ok()?;
    Some((channels, height, width))
}
