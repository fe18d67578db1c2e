//! A second loss for readers of lines: connectionist temporal classification (Graves et al. 2006) on the
//! encoder's columns, mixed into the loss of the decoder as in hybrid CTC/attention (Watanabe et al. 2017).
//!
//! Letters stand in a line from left to right, and so do the encoder's columns. A decoder that starts from
//! nothing has to discover that; this loss says so from the first step. Its head is a helper of training:
//! it is kept in checkpoints of the run and is no part of the model.

use anyhow::{Context, Result, ensure};
use tch::{Device, Kind, Reduction, Tensor};

use super::optim::Parameter;
use crate::nn::linear::product;
use crate::ved::VisionEncoderDecoder;

const WEIGHT: &str = "ctc_head.weight";
const BIAS: &str = "ctc_head.bias";

/// One dense layer from the encoder's width to the words of the decoder.
pub struct CtcHead {
    /// [V, D]
    weight: Tensor,
    /// [V]
    bias: Tensor,
    /// The padding token, which no text holds, stands for "no letter here".
    blank: i64,
    /// Share of this loss in the sum.
    share: f64,
}

impl CtcHead {
    /// A head drawn by `seed`.
    ///
    /// # Errors
    /// An encoder without columns.
    pub fn new(model: &VisionEncoderDecoder, share: f64, seed: u64) -> Result<CtcHead> {
        ensure!(
            model.encoder.by_columns().is_some(),
            "--ctc-weight: the encoder keeps no columns of patches in order; it works with vit"
        );
        let blank = model.config.id("pad_token_id").context("config.json needs pad_token_id")?;
        let (width, words) = (model.encoder.hidden_size(), model.decoder.limits().vocab_size);
        let device = model.store().device();
        tch::manual_seed(seed as i64);
        let weight = Tensor::randn([words, width], (Kind::Float, Device::Cpu)) * 0.02;
        let bias = Tensor::zeros([words], (Kind::Float, device));
        Ok(CtcHead { weight: weight.to_device(device), bias, blank, share })
    }

    /// What the optimizer trains with the model.
    pub fn parameters(&self) -> Vec<Parameter> {
        let parameter = |name: &str, tensor: &Tensor, decays| Parameter {
            name: name.to_string(),
            tensor: tensor.set_requires_grad(true),
            decays,
        };
        vec![parameter(WEIGHT, &self.weight, true), parameter(BIAS, &self.bias, false)]
    }

    /// The head for saving beside the moments.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        vec![(WEIGHT.to_string(), self.weight.detach()), (BIAS.to_string(), self.bias.detach())]
    }

    /// Takes a saved head back.
    pub fn restore(&mut self, state: &[(String, Tensor)]) -> Result<()> {
        for (name, own) in [(WEIGHT, &mut self.weight), (BIAS, &mut self.bias)] {
            let saved = state.iter().find(|(key, _)| key == name).map(|(_, tensor)| tensor);
            let saved = saved.with_context(|| {
                format!("the checkpoint was made without --ctc-weight: it has no tensor {name:?}")
            })?;
            ensure!(
                saved.size() == own.size(),
                "the checkpoint's {name:?} is {:?}, this model's {:?}",
                saved.size(),
                own.size()
            );
            tch::no_grad(|| own.copy_(saved));
        }
        Ok(())
    }

    /// (1 - share)·loss + share·CTC, the latter a sum over the batch divided by `items`, as the loss is.
    ///
    /// columns [B, W, D] from left to right; texts: B rows of ids without special tokens. A text that has
    /// no room in its columns does not count.
    pub fn mix(&self, loss: &Tensor, columns: &Tensor, texts: &[Vec<i64>], items: i64) -> Tensor {
        let size = columns.size();
        let scores = product(columns, &self.weight, Some(&self.bias)).to_kind(Kind::Float);
        let log_probs = scores.log_softmax(-1, Kind::Float).transpose(0, 1); // [W, B, V]
        let lengths: Vec<i64> = texts.iter().map(|text| text.len() as i64).collect();
        let targets = Tensor::from_slice(&texts.concat()).to_device(columns.device());
        let widths = vec![size[1]; texts.len()];
        let (blank, sum) = (self.blank, Reduction::Sum);
        let ctc = Tensor::ctc_loss(&log_probs, &targets, widths, lengths, blank, sum, true);
        loss * (1.0 - self.share) + ctc * (self.share / items.max(1) as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three words, every one as likely as the others at every column.
    fn indifferent(share: f64) -> CtcHead {
        let zeros = |size: &[i64]| Tensor::zeros(size, (Kind::Float, Device::Cpu));
        CtcHead { weight: zeros(&[3, 4]), bias: zeros(&[3]), blank: 0, share }
    }

    /// Of the nine ways through two columns, three spell "1": 11, 1-, -1.
    #[test]
    fn all_ways_to_spell_a_text_are_counted() {
        let columns = Tensor::ones([1, 2, 4], (Kind::Float, Device::Cpu));
        let found = |texts: &[Vec<i64>], share, items| {
            indifferent(share).mix(&Tensor::from(2f32), &columns, texts, items).double_value(&[])
        };
        let one = 3f64.ln();
        assert!((found(&[vec![1]], 0.5, 1) - (1.0 + 0.5 * one)).abs() < 1e-6);
        assert!((found(&[vec![1]], 0.5, 4) - (1.0 + 0.125 * one)).abs() < 1e-6);
        // "11" needs a blank between and has no room in two columns: it does not count.
        assert!((found(&[vec![1, 1]], 0.5, 1) - 1.0).abs() < 1e-6);
        assert!((found(&[vec![1, 2]], 0.25, 1) - (1.5 + 0.25 * 9f64.ln())).abs() < 1e-6);
    }

    #[test]
    fn a_head_comes_back_from_a_checkpoint() -> Result<()> {
        let mut head = indifferent(0.5);
        let saved = CtcHead { weight: head.weight.ones_like(), ..indifferent(0.5) }.state();
        head.restore(&saved)?;
        assert_eq!(head.weight.mean(Kind::Float).double_value(&[]), 1.0);
        let error = head.restore(&[]).err().map(|error| error.to_string());
        assert!(error.is_some_and(|error| error.contains("without --ctc-weight")));
        Ok(())
    }
}
