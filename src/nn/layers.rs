//! Embeddings, feed-forward, patches.

use anyhow::{Result, ensure};
use tch::Tensor;

use super::activation::Activation;
use super::dropout::dropout;
use super::linear::Linear;
use super::lookup;
use super::params::{Init, Params, ZEROS};
use super::precision;

impl Params {
    /// Key `name.weight` [rows, d].
    pub fn embedding(&self, name: &str, rows: i64, d: i64, init: Init) -> Result<Embedding> {
        Ok(Embedding::new((self / name).var("weight", &[rows, d], init)?, None))
    }
}

/// A table of vectors.
pub struct Embedding {
    pub weight: Tensor,
    /// The row of the padding token: training leaves it as it is.
    pub padding_idx: Option<i64>,
}

impl Embedding {
    /// A table [V, D] whose row `padding_idx` gets no gradient from here.
    pub fn new(weight: Tensor, padding_idx: Option<i64>) -> Self {
        Embedding { weight, padding_idx }
    }

    /// ids [..] -> [.., D]
    pub fn forward(&self, ids: &Tensor) -> Tensor {
        let padding_idx = self.padding_idx;
        lookup::rows(&self.weight, ids, padding_idx).unwrap_or_else(|| {
            Tensor::embedding(&self.weight, ids, padding_idx.unwrap_or(-1), false, false)
        })
    }
}

/// Two dense layers with an activation between them.
pub struct FeedForward {
    pub up: Linear,
    pub activation: Activation,
    /// Dropout after the activation (BART family; 0 elsewhere).
    pub activation_dropout: f64,
    pub down: Linear,
}

impl FeedForward {
    /// [.., D] -> [.., D]
    pub fn forward(&self, xs: &Tensor, train: bool) -> Tensor {
        let hidden = self.up.activated(xs, self.activation); // [.., I]
        self.down.forward(&dropout(&hidden, self.activation_dropout, train))
    }
}

/// Cuts an image into patches and projects each: a convolution whose stride is its kernel.
pub struct PatchEmbeddings {
    pub weight: Tensor,
    pub bias: Option<Tensor>,
    pub patch: (i64, i64),
}

impl PatchEmbeddings {
    /// Keys `name.weight` [D, C, ph, pw] and, if `bias`, `name.bias` [D].
    pub fn new(
        p: &Params,
        name: &str,
        channels: i64,
        d: i64,
        patch: (i64, i64),
        bias: bool,
        init: Init,
    ) -> Result<Self> {
        ensure!(patch.0 > 0 && patch.1 > 0, "patch_size {patch:?} has no area");
        let p = p / name;
        let weight = p.var("weight", &[d, channels, patch.0, patch.1], init)?;
        let bias = if bias { Some(p.var("bias", &[d], ZEROS)?) } else { None };
        Ok(PatchEmbeddings { weight, bias, patch })
    }

    /// [B, C, H, W] -> [B, P, D] with P = (H / ph)·(W / pw), row-major; a remainder is dropped.
    pub fn forward(&self, pixel_values: &Tensor) -> Tensor {
        let (ph, pw) = self.patch;
        let bias = self.bias.as_ref().map(precision::low);
        let (pixel_values, weight) = (precision::low(pixel_values), precision::low(&self.weight));
        let maps = pixel_values.conv2d(&weight, bias.as_ref(), [ph, pw], [0, 0], [1, 1], 1); // [B, D, H/ph, W/pw]
        precision::full(&maps).flatten(2, 3).transpose(1, 2)
    }
}
