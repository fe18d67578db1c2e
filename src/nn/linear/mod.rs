//! Dense layers, and the one place that chooses how a matrix product is computed.
//!
//! While a model is trained, a layer is its variables. A store that packs (`Store::packing`) gives layers
//! for inference alone: each matrix is packed as soon as it is read, and its variable is let go.

mod absorbed;
mod bytes;
pub(super) mod cut;
mod digits;
mod few;
mod flat;
mod joined;
mod many;
mod number;
mod pack;
mod packing;
mod panel;
mod paneled;
pub(super) mod pieces;
mod rounded;
mod rows;
mod scales;
mod stack;
mod tiled;
mod unpack;

use anyhow::Result;
use tch::{Kind, Tensor};

use super::activation::Activation;
use super::params::{Init, Params, ZEROS};
use super::precision::low;
use crate::native::{self, Layout, PackedMatrix, Then};
pub use absorbed::Absorbed;
pub use flat::product;
pub use joined::Joined;
pub use packing::Packing;
pub use panel::Panels;
pub use rows::rows_of;
pub use scales::{int8_scales, whole_numbers};
pub use stack::{Stack, attend as attend_packed};
use unpack::Whole;

/// y = x·Wᵀ + b.
pub struct Linear {
    weights: Weights,
    bias: Option<Tensor>,
}

enum Weights {
    /// The variable itself, whose gradient is asked for after it was read: no view of it is kept.
    Plain(Tensor, Storage),
    Panels(Panels),
    /// For many rows, in bf16, and in other types narrower than f32 where the CPU has no matrix unit.
    Operator {
        matrix: PackedMatrix,
        kind: Kind,
        inputs: i64,
        outputs: i64,
    },
}

/// How a checkpoint stores a matrix.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Storage {
    /// [out, in]: `nn.Linear`
    OutIn,
    /// [in, out]: the reference's `Conv1D` (GPT-2)
    InOut,
}

/// A dense layer in a checkpoint.
#[derive(Clone, Copy)]
struct Key<'a> {
    name: &'a str,
    inputs: i64,
    outputs: i64,
    /// How the bias is drawn; None where there is none.
    bias: Option<Init>,
    storage: Storage,
}

impl Params {
    /// A dense layer with bias: keys `name.weight` [out, in] and `name.bias` [out].
    pub fn linear(&self, name: &str, inputs: i64, outputs: i64, init: Init) -> Result<Linear> {
        self.linear_if(name, inputs, outputs, true, init)
    }

    /// A dense layer whose bias is there if `bias` says so.
    pub fn linear_if(
        &self,
        name: &str,
        inputs: i64,
        outputs: i64,
        bias: bool,
        init: Init,
    ) -> Result<Linear> {
        let bias = bias.then_some(ZEROS);
        self.dense(Key { name, inputs, outputs, bias, storage: Storage::OutIn }, init)
    }

    /// A dense layer whose bias is not drawn as zeros.
    pub fn linear_drawn(
        &self,
        name: &str,
        inputs: i64,
        outputs: i64,
        weight: Init,
        bias: Init,
    ) -> Result<Linear> {
        let bias = Some(bias);
        self.dense(Key { name, inputs, outputs, bias, storage: Storage::OutIn }, weight)
    }

    /// GPT-2's transposed dense layer: keys `name.weight` [in, out] and `name.bias` [out].
    pub fn conv1d(&self, name: &str, inputs: i64, outputs: i64, init: Init) -> Result<Linear> {
        let bias = Some(ZEROS);
        self.dense(Key { name, inputs, outputs, bias, storage: Storage::InOut }, init)
    }

    /// Dense layers [inputs] -> [outputs] each, over the same input; each name with whether it has a bias.
    ///
    /// One product where weights are packed anyway; with many rows in f32 it gains nothing (measured), and
    /// would cost a copy of the weights.
    pub fn joined(
        &self,
        layers: &[(&str, bool)],
        inputs: i64,
        outputs: i64,
        init: Init,
    ) -> Result<Joined> {
        let parts = layers.len() as i64;
        let read = |&(name, bias): &(&str, bool)| {
            let bias = bias.then_some(ZEROS);
            self.matrix(Key { name, inputs, outputs, bias, storage: Storage::OutIn }, init)
        };
        let read: Vec<_> = layers.iter().map(read).collect::<Result<_>>()?;
        if self.packing().is_none() || (self.packing() == Some(Packing::F32) && self.many_rows()) {
            let layers =
                read.into_iter().map(|(weight, bias)| self.packed(weight, Storage::OutIn, bias));
            return Ok(Joined::new(layers.collect::<Result<_>>()?, parts));
        }
        let weights: Vec<&Tensor> = read.iter().map(|(weight, _)| weight).collect();
        let weight = Tensor::cat(&weights, 0);
        let bias = layers.iter().any(|(_, bias)| *bias).then(|| {
            let none = || Tensor::zeros([outputs], (self.kind(), self.device()));
            let given =
                read.iter().map(|(_, bias)| bias.as_ref().map_or_else(none, Tensor::shallow_clone));
            Tensor::cat(&given.collect::<Vec<_>>(), 0)
        });
        drop(read);
        Ok(Joined::one(self.packed(weight, Storage::OutIn, bias)?, parts))
    }

    /// The output layer over a matrix [V, D] that has been read under `key`, or that embeddings share.
    pub fn head(&self, key: &str, weight: Tensor, bias: Option<Tensor>) -> Result<Linear> {
        if self.packing().is_some() {
            self.let_go(key);
        }
        self.packed(weight, Storage::OutIn, bias)
    }

    fn dense(&self, key: Key, init: Init) -> Result<Linear> {
        let (weight, bias) = self.matrix(key, init)?;
        self.packed(weight, key.storage, bias)
    }

    /// Weight as it is stored and bias [out]; the store keeps the weight only if it does not pack.
    fn matrix(&self, key: Key, init: Init) -> Result<(Tensor, Option<Tensor>)> {
        let p = self / key.name;
        let weight = match key.storage {
            Storage::OutIn => p.var("weight", &[key.outputs, key.inputs], init)?,
            Storage::InOut => p.var("weight", &[key.inputs, key.outputs], init)?,
        };
        if self.packing().is_some() {
            p.let_go("weight");
        }
        let bias = key.bias.map(|init| p.var("bias", &[key.outputs], init)).transpose()?;
        Ok((weight, bias))
    }

    fn packed(&self, weight: Tensor, storage: Storage, bias: Option<Tensor>) -> Result<Linear> {
        let weights = match self.packing() {
            None => Weights::Plain(weight, storage),
            // In f32 libtorch's own product is as good as any for many rows, and needs no copy.
            Some(Packing::F32) if self.many_rows() => Weights::Plain(weight, storage),
            Some(packing) => {
                let weight = storage.out_in(&weight);
                // With a matrix unit oneDNN, which keeps bf16 between its products too, is faster (measured).
                let by_engine =
                    !native::has_tiles() || (packing == Packing::Bf16 && native::has_matrix_unit());
                if self.many_rows() && by_engine {
                    for_many(&weight, bias.as_ref(), packing)?
                } else {
                    let between = || self.give_back();
                    Weights::Panels(match self.many_rows() {
                        true => Panels::pack_for_many(&weight, packing, between),
                        false => Panels::pack_in_pieces(&weight, packing, between),
                    })
                }
            }
        };
        Ok(Linear { weights, bias })
    }
}

impl Storage {
    /// A matrix so stored as [out, in].
    fn out_in(self, weight: &Tensor) -> Tensor {
        match self {
            Storage::OutIn => weight.shallow_clone(),
            Storage::InOut => weight.tr(),
        }
    }

    /// A matrix [out, in] as it lies in memory: contiguous, unless its strides are others than these two.
    fn of(matrix: &Tensor) -> (Tensor, Storage) {
        match !matrix.is_contiguous() && matrix.tr().is_contiguous() {
            true => (matrix.tr(), Storage::InOut),
            false => (matrix.shallow_clone(), Storage::OutIn),
        }
    }
}

/// Lends `product` the rows of x, the places of the results and the bias; None (and no call) unless all are
/// f32 on the CPU. xs [.., in], bias [out] -> [.., out]
fn over_rows(
    xs: &Tensor,
    outputs: usize,
    bias: Option<&Tensor>,
    product: impl FnOnce(&[f32], &mut [f32], Option<&[f32]>),
) -> Option<Tensor> {
    let mut size = xs.size();
    *size.last_mut()? = outputs as i64;
    let out = Tensor::empty(&size, (Kind::Float, xs.device()));
    if out.numel() == 0 {
        return Some(out);
    }
    let contiguous = |xs: &Tensor| (!xs.is_contiguous()).then(|| xs.contiguous());
    let (others, of_bias) = (contiguous(xs), bias.and_then(contiguous));
    let xs = others.as_ref().unwrap_or(xs);
    match of_bias.as_ref().or(bias) {
        None => native::with_floats([xs, &out], |[xs, out]| product(xs, out, None)),
        Some(bias) => native::with_floats([xs, &out, bias], |[xs, out, bias]| {
            product(xs, out, Some(bias));
        }),
    }?;
    Some(out)
}

/// The numbers as f32 where they are not: most often they are, and a step asks many times.
fn other_kind(xs: &Tensor) -> Option<Tensor> {
    (xs.kind() != Kind::Float).then(|| xs.to_kind(Kind::Float))
}

/// W [out, in] for many rows in a narrower type.
fn for_many(weight: &Tensor, bias: Option<&Tensor>, packing: Packing) -> Result<Weights> {
    let (layout, kind) = match packing {
        Packing::F32 => (Layout::OneDnn, Kind::Float),
        Packing::Bf16 => (Layout::OneDnn, Kind::BFloat16),
        Packing::F16 => (Layout::F16, Kind::Float),
        Packing::Int8 => (Layout::int8(), Kind::Float),
    };
    let (outputs, inputs) = weight.size2()?;
    let bias = bias.map(|bias| bias.to_kind(kind));
    let matrix = if packing == Packing::Int8 {
        let scales = int8_scales(weight);
        let numbers = whole_numbers(weight, &scales);
        PackedMatrix::pack(layout, &numbers, Some(&scales), bias.as_ref())?
    } else {
        PackedMatrix::pack(layout, &weight.to_kind(kind).contiguous(), None, bias.as_ref())?
    };
    Ok(Weights::Operator { matrix, kind, inputs, outputs })
}

impl Linear {
    /// Width of what it gives.
    pub fn outputs(&self) -> i64 {
        match &self.weights {
            Weights::Plain(weight, storage) => storage.out_in(weight).size()[0],
            Weights::Panels(panels) => panels.outputs(),
            Weights::Operator { outputs, .. } => *outputs,
        }
    }

    /// Width of what it takes.
    pub fn inputs(&self) -> i64 {
        match &self.weights {
            Weights::Plain(weight, storage) => storage.out_in(weight).size()[1],
            Weights::Panels(panels) => panels.inputs(),
            Weights::Operator { inputs, .. } => *inputs,
        }
    }

    /// The weights as they are kept, [out, in] in f32; None where those are whole numbers, or libtorch keeps them
    /// in a form of its own.
    fn matrix(&self) -> Option<Tensor> {
        match &self.weights {
            Weights::Plain(weight, storage) => Some(storage.out_in(weight)),
            Weights::Panels(panels) => panels.matrix(),
            Weights::Operator { .. } => None,
        }
    }

    /// The whole numbers that the weights are kept as.
    fn whole(&self) -> Option<Whole<'_>> {
        match &self.weights {
            Weights::Panels(panels) => panels.whole(),
            _ => None,
        }
    }

    /// [.., in] -> [.., out]
    pub fn forward(&self, xs: &Tensor) -> Tensor {
        match &self.weights {
            Weights::Plain(weight, Storage::InOut) if weight.requires_grad() => {
                let bias = self.bias.as_ref();
                if let Some(found) = flat::by_tiles(xs, &weight.tr(), bias, Then::Nothing) {
                    return found;
                }
                // So the weight's gradient comes as the weight is stored; `linear` gives it turned over.
                let mut size = xs.size();
                let inputs = size.pop().unwrap_or_default();
                size.push(weight.size()[1]);
                let rows = low(xs).reshape([-1, inputs]);
                match &self.bias {
                    Some(bias) => low(bias).addmm(&rows, &low(weight)),
                    None => rows.matmul(&low(weight)),
                }
                .reshape(size)
            }
            Weights::Plain(weight, storage) => {
                product(xs, &storage.out_in(weight), self.bias.as_ref())
            }
            Weights::Panels(panels) => panels.forward(xs, self.bias.as_ref()),
            Weights::Operator { .. } => {
                self.operator(xs, Then::Nothing).expect("an operator").to_kind(Kind::Float)
            }
        }
    }

    /// `activation` of the product. Where another dense layer takes it, it need not be f32: on the way
    /// between products of 16 bits it stays so. [.., in] -> [.., out]
    pub fn activated(&self, xs: &Tensor, activation: Activation) -> Tensor {
        let then = activation.form();
        let in_one = match &self.weights {
            _ if then == Then::Nothing => None,
            Weights::Operator { kind: Kind::BFloat16, .. } => self.operator(xs, then),
            Weights::Operator { .. } => None,
            Weights::Panels(panels) => Some(panels.then(xs, self.bias.as_ref(), then)),
            Weights::Plain(weight, storage) => {
                flat::by_tiles(xs, &storage.out_in(weight), self.bias.as_ref(), then)
            }
        };
        in_one.unwrap_or_else(|| activation.forward(&self.forward(xs)))
    }

    /// What a thread that takes some of so many rows through this layer and others computes with: matrix and bias
    /// [out]. None where threads share a product in another way, and where there is no bias.
    pub fn for_rows(&self, rows: usize) -> Option<(&Panels, &Tensor)> {
        match (&self.weights, &self.bias) {
            (Weights::Panels(panels), Some(bias)) if panels.divides_rows(rows) => {
                Some((panels, bias))
            }
            _ => None,
        }
    }

    /// The product in the number type of the operator, if there is one.
    fn operator(&self, xs: &Tensor, then: Then) -> Option<Tensor> {
        let Weights::Operator { matrix, kind, .. } = &self.weights else { return None };
        let product = matrix.product(&xs.to_kind(*kind), then);
        Some(product.expect("the operator took this matrix when it was packed"))
    }
}

#[cfg(test)]
pub(super) mod tests;
