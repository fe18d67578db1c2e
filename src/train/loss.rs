//! The loss of a batch: cross-entropy of the labels, smoothed where asked for.
//!
//! The logits that a decoder gives for `[start, y1, y2, ..]` are compared with `[y1, y2, ..]`, position
//! by position, as the reference did up to 4.49 and does with label smoothing. (4.50 and later shift the
//! labels once more inside `loss_function`, so that a token is trained to name the one after the next:
//! issue 42740 of transformers. That mistake is not followed.)

use anyhow::Result;
use tch::{Kind, Reduction, Tensor};

use crate::nn::precision;
use crate::ved::VisionEncoderDecoder;

/// In 16 bits, places come in multiples of this.
const ROWS: i64 = 64;

/// A label that does not count.
pub const IGNORED: i64 = -100;

/// The number of labels that count, `num_items_in_batch` of the reference's Trainer. labels [B, T]
pub fn items(labels: &Tensor) -> i64 {
    labels.ne(IGNORED).sum(Kind::Int64).int64_value(&[])
}

/// The loss of one micro-batch: the sum over its labels, divided by `items`, the number of labels of all
/// micro-batches of the step. Its gradients add up to those of the whole batch, however it is cut. -> []
///
/// `smoothing` is `--label-smoothing-factor`: ε of that goes to all words alike (`LabelSmoother`; the
/// reference averages over each micro-batch then, and adds the averages up).
/// pixel_values [B, C, H, W], labels [B, T], -100 where they do not count.
pub fn forward(
    model: &VisionEncoderDecoder,
    pixel_values: &Tensor,
    labels: &Tensor,
    items: i64,
    smoothing: f64,
    train: bool,
) -> Result<Tensor> {
    decode(model, &model.encode(pixel_values, train), labels, items, smoothing, train)
}

/// `forward` from the states of the encoder on. states [B, S, De], labels [B, T] -> []
pub fn decode(
    model: &VisionEncoderDecoder,
    states: &Tensor,
    labels: &Tensor,
    items: i64,
    smoothing: f64,
    train: bool,
) -> Result<Tensor> {
    let input_ids = model.shift_tokens_right(labels)?;
    let states = model.project(states);
    let hidden = model.hidden(&states, &input_ids, train); // [B, T, D]
    let labels = labels.reshape([-1]);
    let places = labels.ne(IGNORED).nonzero().squeeze_dim(1); // [n]
    let labels = labels.index_select(0, &places); // [n]
    let spare = precision::in_steps(labels.size()[0], ROWS) - labels.size()[0];
    // Only the places that count meet the output layer, often the largest matrix of all, and as many
    // that don't as make the number round.
    let places = places.pad([0, spare], "constant", 0.0);
    let labels = labels.pad([0, spare], "constant", IGNORED as f64);
    let hidden = hidden.flatten(0, 1).index_select(0, &places).unsqueeze(0); // [1, n, D]
    let logits = model.decoder.logits(&hidden).squeeze_dim(0); // [n, V]
    Ok(cross_entropy(&logits, &labels, items, smoothing))
}

/// Sum over the labels that count of (1-ε)·(-ln p(label)) + ε·mean over v of (-ln p(v)), in f32, divided by `items`.
/// logits [n, V], labels [n] -> []
pub fn cross_entropy(logits: &Tensor, labels: &Tensor, items: i64, smoothing: f64) -> Tensor {
    let sum = logits.to_kind(Kind::Float).cross_entropy_loss(
        labels,
        None::<&Tensor>,
        Reduction::Sum,
        IGNORED,
        smoothing,
    );
    sum / items.max(1) as f64
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// `LabelSmoother(epsilon)` on four places, one of them ignored.
    #[test]
    fn smoothing_is_that_of_the_reference() {
        let logits = Tensor::from_slice(&[1f32, 2., 3., 0.5, -1., 2., 0., 0., 1.]).reshape([3, 3]);
        let labels = Tensor::from_slice(&[2i64, 0, 1]);
        for (smoothing, expected) in [(0.0, 1.2334539890289307), (0.1, 1.25567626953125)] {
            let found = cross_entropy(&logits, &labels, 3, smoothing).double_value(&[]);
            assert!((found - expected).abs() < 2e-7, "{found} for {expected}");
        }
    }

    #[test]
    fn labels_that_count_are_counted() {
        assert_eq!(items(&Tensor::from_slice(&[[5i64, 2, -100], [7, -100, -100]].concat())), 3);
    }
}
