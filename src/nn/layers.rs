//! Embeddings, feed-forward, patches.

use anyhow::{Result, ensure};
use tch::Tensor;

use super::activation::Activation;
use super::dropout::dropout;
use super::linear::{Linear, Panels, rows_of};
use super::lookup;
use super::params::{Init, Params, ZEROS};
use super::precision;
use crate::native::{self, Then};

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

/// Both layers of a feed-forward, for many rows: matrices and biases.
pub(super) struct Wide<'a> {
    pub up: (&'a Panels, &'a Tensor),
    pub down: (&'a Panels, &'a Tensor),
    /// The activation.
    pub then: Then,
}

impl FeedForward {
    /// [.., D] -> [.., D]
    pub fn forward(&self, xs: &Tensor, train: bool) -> Tensor {
        if let Some(found) = self.by_rows(xs) {
            return found;
        }
        let hidden = self.up.activated(xs, self.activation); // [.., I]
        self.down.forward(&dropout(&hidden, self.activation_dropout, train))
    }

    /// The same where a thread takes some rows through both layers; None elsewhere. (Layers that are trained have no
    /// panels, so there is no dropout here.)
    fn by_rows(&self, xs: &Tensor) -> Option<Tensor> {
        let rows = xs.numel() / (*xs.size().last()?).max(1) as usize;
        let Wide { up: (up, of_up), down: (down, of_down), then } = self.for_rows(rows)?;
        let (d, inner, out) = (down.outputs() as usize, up.outputs() as usize, xs.empty_like());
        native::with_floats([xs, &out, of_up, of_down], |[xs, out, of_up, of_down]| {
            up.divide_rows(out, d, inner, |rows, out, hidden| {
                up.alone(rows_of(xs, &rows, d), of_up, then, hidden);
                down.alone(hidden, of_down, Then::Nothing, out);
            });
        })?;
        Some(out)
    }

    /// What a thread that takes some of so many rows through both layers computes with.
    pub(super) fn for_rows(&self, rows: usize) -> Option<Wide<'_>> {
        let then = self.activation.form();
        let (up, down) = (self.up.for_rows(rows)?, self.down.for_rows(rows)?);
        (then != Then::Nothing).then_some(Wide { up, down, then })
    }
}

/// Cuts an image into patches and projects each.
pub struct PatchEmbeddings {
    projection: Projection,
    /// Height and width of a patch, in pixels.
    pub patch: (i64, i64),
}

enum Projection {
    /// A convolution whose stride is its kernel: weight [D, C, ph, pw], bias [D].
    Convolution(Tensor, Option<Tensor>),
    /// The same as a product of whole patches, where weights are rounded: libtorch's convolution knows f32 alone.
    /// In f32 it would gain nothing (measured), and add up in another order than the reference.
    Product(Linear),
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
        let projection = match p.rounds() {
            false => Projection::Convolution(weight, bias),
            true => Projection::Product(p.head("weight", weight.flatten(1, 3), bias)?),
        };
        Ok(PatchEmbeddings { projection, patch })
    }

    /// [B, C, H, W] -> [B, P, D] with P = (H / ph)·(W / pw), row-major; a remainder is dropped.
    pub fn forward(&self, pixel_values: &Tensor) -> Tensor {
        let (ph, pw) = self.patch;
        match &self.projection {
            Projection::Convolution(weight, bias) => {
                let bias = bias.as_ref().map(precision::low);
                let (pixels, weight) = (precision::low(pixel_values), precision::low(weight));
                let maps = pixels.conv2d(&weight, bias.as_ref(), [ph, pw], [0, 0], [1, 1], 1); // [B, D, H/ph, W/pw]
                precision::full(&maps).flatten(2, 3).transpose(1, 2)
            }
            Projection::Product(linear) => {
                let pixels = pixel_values.unfold(2, ph, ph).unfold(3, pw, pw); // [B, C, H/ph, W/pw, ph, pw]
                let patches = pixels.permute([0, 2, 3, 1, 4, 5]).flatten(3, 5).flatten(1, 2); // [B, P, C·ph·pw]
                linear.forward(&patches)
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::rc::Rc;

    use tch::{Device, Kind};

    use super::*;
    use crate::nn::linear::Packing;
    use crate::nn::linear::tests::{again, largest, waves};
    use crate::nn::store::Store;

    /// With rounded weights the product of whole patches is the convolution; what remains beside them is dropped.
    #[test]
    fn patches_are_projected_alike_in_every_type() {
        let _guard = tch::no_grad_guard();
        let patches = |store: &Rc<Store>| {
            let p = Params::root(store.clone()).for_many_rows();
            PatchEmbeddings::new(&p, "p", 3, 40, (4, 5), true, ZEROS).unwrap()
        };
        let plain = Rc::new(Store::fresh(Device::Cpu, Kind::Float));
        let convolution = patches(&plain);
        for mut variable in plain.variables() {
            variable.tensor.copy_(&waves(&variable.tensor.size(), 0.37));
        }
        for (height, width) in [(40, 60), (11, 18)] {
            let pixels = waves(&[2, 3, height, width], 0.11);
            let expected = convolution.forward(&pixels);
            assert_eq!(expected.size(), [2, height / 4 * (width / 5), 40]);
            for (packing, bound) in [
                (Packing::F32, 1e-6),
                (Packing::Bf16, 2e-2),
                (Packing::F16, 4e-3),
                (Packing::Int8, 4e-2),
            ] {
                if packing.check().is_err() {
                    continue; // a CPU that would be refused with a sentence
                }
                let store = again(&plain, packing);
                let found = patches(&store).forward(&pixels);
                assert!(store.check().is_ok() && store.left_over().is_empty());
                assert_eq!(found.size(), expected.size());
                let error = largest(&(found - &expected)) / largest(&expected);
                assert!(error < bound, "{packing:?} {height}x{width}: {error}");
            }
        }
    }
}
