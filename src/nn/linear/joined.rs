//! Dense layers over the same input.

use std::cell::OnceCell;
use std::rc::Rc;

use tch::{Kind, Tensor};

use super::{Absorbed, Linear, Storage, Weights, product};
use crate::native::{self, Parts, Then};
use crate::nn::precision::{self, low};

/// Dense layers over the same input, computed by one product where that is faster.
pub struct Joined {
    pub(super) layers: Vec<Linear>,
    /// How many results they give together.
    pub(super) parts: i64,
    /// Once somebody asked for that.
    pub(super) absorbed: OnceCell<Option<Rc<Absorbed>>>,
}

impl Joined {
    /// A layer that gives `parts` results at once, [.., parts·out].
    pub fn one(layer: Linear, parts: i64) -> Self {
        Joined::new(vec![layer], parts)
    }

    pub(super) fn new(layers: Vec<Linear>, parts: i64) -> Self {
        Joined { layers, parts, absorbed: OnceCell::new() }
    }

    /// What products of its results with each other take, on a CPU: as many bits as those of the weights do.
    pub fn parts(&self) -> Parts {
        match self.layers.as_slice() {
            [Linear { weights: Weights::Panels(panels), .. }] => panels.parts(),
            _ => Parts::F32.here(),
        }
    }

    /// The same for attention, whose products take 16 bits where those of the layers take as few.
    pub fn for_attention<const N: usize>(&self, xs: &Tensor) -> [Tensor; N] {
        if let Some(one) = self.as_one()
            && native::has_bf16()
            && let Weights::Operator { kind, matrix, .. } = &one.weights
            && (*kind == Kind::BFloat16 || matrix.is_int8())
        {
            let all = one.operator(xs, Then::Nothing).expect("an operator");
            let parts = all.to_kind(Kind::BFloat16).chunk(N as i64, -1);
            return parts.try_into().expect("as many results as layers were joined");
        }
        self.forward(xs)
    }

    /// [.., in] -> N of [.., out]
    pub fn forward<const N: usize>(&self, xs: &Tensor) -> [Tensor; N] {
        debug_assert_eq!(self.parts, N as i64);
        if let Some(all) = self.at_once(xs) {
            return Joined::apart(&all);
        }
        let each = &self.layers;
        let parts = together(each, xs).unwrap_or_else(|| {
            let xs = low(xs);
            each.iter().map(|layer| layer.forward(&xs)).collect()
        });
        parts.try_into().expect("as many results as layers were joined")
    }

    /// The results beside each other, if one product gives them. [.., in] -> [.., parts·out]
    pub fn at_once(&self, xs: &Tensor) -> Option<Tensor> {
        self.as_one().map(|one| one.forward(xs))
    }

    /// The layer that gives them all, if there is one.
    pub fn as_one(&self) -> Option<&Linear> {
        match self.layers.as_slice() {
            [one] => Some(one),
            _ => None,
        }
    }

    /// Those apart. [.., N·out] -> N of [.., out]
    pub fn apart<const N: usize>(all: &Tensor) -> [Tensor; N] {
        all.chunk(N as i64, -1).try_into().expect("as many results as layers were joined")
    }
}

/// What layers of one width make of the same input, by a single product, while they are trained in 16
/// bits: the input is cast once, and fewer kernels are compiled. (In f32 one large product takes as long as
/// the small ones.) None elsewhere, and where some have a bias and others none.
pub(super) fn together(layers: &[Linear], xs: &Tensor) -> Option<Vec<Tensor>> {
    if !precision::is_mixed() {
        return None;
    }
    let trained = |layer: &Linear| match &layer.weights {
        Weights::Plain(weight, Storage::OutIn) if weight.requires_grad() => {
            Some(weight.shallow_clone())
        }
        _ => None,
    };
    let weights: Vec<Tensor> = layers.iter().map(trained).collect::<Option<_>>()?;
    let biases: Vec<Tensor> =
        layers.iter().filter_map(|layer| layer.bias.as_ref().map(low)).collect();
    let size = weights.first()?.size();
    if weights.iter().any(|weight| weight.size() != size)
        || !(biases.is_empty() || biases.len() == layers.len())
    {
        return None;
    }
    let weights: Vec<Tensor> = weights.iter().map(low).collect();
    let bias = (!biases.is_empty()).then(|| Tensor::cat(&biases, 0)); // [N·out]
    let product = product(xs, &Tensor::cat(&weights, 0), bias.as_ref()); // weight [N·out, in]
    Some(product.chunk(layers.len() as i64, -1))
}
