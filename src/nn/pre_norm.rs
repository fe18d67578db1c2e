//! The pre-norm layer of ViT and its descendants (Dosovitskiy et al. 2020): each half adds to its input what it
//! makes of that input's norm.

use tch::{Kind, Tensor};

use super::attention::Attention;
use super::dropout::dropout;
use super::layers::{FeedForward, Wide};
use super::linear::{Joined, rows_of};
use super::norm::{self, LayerNorm};
use crate::native::{self, Lanes, Then, Vectorized};

/// x' = x + attention(norm(x)), and x' + mlp(norm(x')).
///
/// Where weights are packed for many rows, what comes before the attention and what follows it are each one task of
/// some rows: the threads meet three times a layer, and what is between the products stays in a core's own cache.
/// Nothing is computed in another way than step by step.
pub struct PreNorm {
    pub attention_norm: LayerNorm,
    pub attention: Attention,
    pub feed_norm: LayerNorm,
    pub feed_forward: FeedForward,
    /// Dropout of what each half adds.
    pub dropout: f64,
}

impl PreNorm {
    /// [B, S, D] -> [B, S, D]
    pub fn forward(&self, xs: &Tensor, train: bool) -> Tensor {
        let qkv = self.qkv_by_rows(xs);
        let qkv = qkv
            .unwrap_or_else(|| self.attention.qkv.for_attention(&self.attention_norm.forward(xs)));
        let context = self.attention.context(qkv, None, train); // [B, S, D]
        if let Some(found) = self.rest_by_rows(xs, &context) {
            return found;
        }
        let attended = self.attention.out.forward(&context);
        let [xs, normed] = self.feed_norm.with_sum(xs, &dropout(&attended, self.dropout, train));
        xs + dropout(&self.feed_forward.forward(&normed, train), self.dropout, train)
    }

    /// Query, key and value of the norm. [B, S, D] -> [B, S, A·d] each
    fn qkv_by_rows(&self, xs: &Tensor) -> Option<[Tensor; 3]> {
        let (mut size, d) = (xs.size(), *xs.size().last()? as usize);
        let (qkv, bias) = self.attention.qkv.as_one()?.for_rows(xs.numel() / d.max(1))?;
        let norm = self.attention_norm.by_rows()?;
        *size.last_mut()? = qkv.outputs();
        let out = Tensor::empty(&size, (Kind::Float, xs.device()));
        let numbers = [xs, &out, bias, norm.weight, norm.bias];
        native::with_floats(numbers, |[xs, out, bias, weight, of_norm]| {
            qkv.divide_rows(out, qkv.outputs() as usize, d, |rows, out, normed| {
                norm::alone(rows_of(xs, &rows, d), normed, [weight, of_norm], norm.eps);
                qkv.alone(normed, bias, Then::Nothing, out);
            });
        })?;
        Some(Joined::apart(&out))
    }

    /// What follows the attention. xs, context [B, S, D] -> [B, S, D]
    fn rest_by_rows(&self, xs: &Tensor, context: &Tensor) -> Option<Tensor> {
        let d = *xs.size().last()? as usize;
        let rows = xs.numel() / d.max(1);
        if context.size() != xs.size() {
            return None;
        }
        let (last, of_last) = self.attention.out.for_rows(rows)?;
        let Wide { up: (up, of_up), down: (down, of_down), then } =
            self.feed_forward.for_rows(rows)?;
        let norm = self.feed_norm.by_rows()?;
        let (inner, result) = (up.outputs() as usize, xs.empty_like());
        let numbers = [xs, context, &result, of_last, norm.weight, norm.bias, of_up, of_down];
        native::with_floats(
            numbers,
            |[xs, context, out, of_last, weight, bias, of_up, of_down]| {
                up.divide_rows(out, d, d + inner, |rows, out, room| {
                    let (normed, hidden) = room.split_at_mut(rows.len() * d);
                    last.alone(rows_of(context, &rows, d), of_last, Then::Nothing, out);
                    native::vectorize(Add { more: rows_of(xs, &rows, d), to: out });
                    norm::alone(out, normed, [weight, bias], norm.eps);
                    up.alone(normed, of_up, then, hidden);
                    down.alone(hidden, of_down, Then::Nothing, normed);
                    native::vectorize(Add { more: normed, to: out });
                });
            },
        )?;
        Some(result)
    }
}

/// Adds numbers to others.
struct Add<'a> {
    more: &'a [f32],
    to: &'a mut [f32],
}

impl Vectorized for Add<'_> {
    #[inline(always)]
    fn run<L: Lanes, const P: usize>(self) {
        for (to, more) in self.to.iter_mut().zip(self.more) {
            *to += more;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::rc::Rc;

    use tch::Device;

    use super::*;
    use crate::nn::activation::Activation;
    use crate::nn::linear::Packing;
    use crate::nn::linear::tests::{again, waves};
    use crate::nn::params::{Init, Params};
    use crate::nn::store::Store;

    fn layer(store: &Rc<Store>) -> PreNorm {
        const D: i64 = 64;
        let (p, init) = (Params::root(store.clone()).for_many_rows(), Init::Normal(0.3));
        let dense = |name, inputs, outputs| p.linear(name, inputs, outputs, init).unwrap();
        PreNorm {
            attention_norm: p.layer_norm("n1", D, 1e-6).unwrap(),
            attention: Attention {
                qkv: p.joined(&["q", "k", "v"].map(|name| (name, true)), D, D, init).unwrap(),
                out: dense("o", D, D),
                heads: 2,
                scale: 0.2,
                dropout: 0.0,
                relative: None,
            },
            feed_norm: p.layer_norm("n2", D, 1e-6).unwrap(),
            feed_forward: FeedForward {
                up: dense("u", D, 160),
                activation: Activation::from_name("gelu").unwrap(),
                activation_dropout: 0.0,
                down: dense("d", 160, D),
            },
            dropout: 0.0,
        }
    }

    /// By rows there are the same numbers, to the last bit, as step by step.
    #[test]
    fn a_thread_that_keeps_its_rows_computes_the_same() {
        let _guard = tch::no_grad_guard();
        let plain = Rc::new(Store::fresh(Device::Cpu, Kind::Float));
        let _ = layer(&plain);
        for mut variable in plain.variables() {
            let scale = if variable.tensor.dim() == 1 { 1.0 } else { 0.3 };
            variable.tensor.copy_(&(waves(&variable.tensor.size(), 0.37) * scale));
        }
        for packing in [Packing::F32, Packing::Bf16, Packing::F16, Packing::Int8] {
            if packing.check().is_err() {
                continue; // a CPU that would be refused with a sentence
            }
            let layer = layer(&again(&plain, packing));
            for tokens in [1, 96, 100, 301] {
                let xs = waves(&[2, tokens, 64], 0.11);
                let found = layer.forward(&xs, false);
                let own = layer.attention.encode(&layer.attention_norm.forward(&xs), None, false);
                let [sum, normed] = layer.feed_norm.with_sum(&xs, &own);
                let FeedForward { up, activation, down, .. } = &layer.feed_forward;
                let hidden = up.activated(&normed, *activation);
                assert_eq!(found, &sum + down.forward(&hidden), "{packing:?}, {tokens} tokens");
                let fed = layer.feed_forward.forward(&normed, false);
                assert_eq!(fed, down.forward(&hidden), "{packing:?}, {tokens} tokens");
                let by_rows = native::has_tiles()
                    && !native::has_matrix_unit()
                    && packing != Packing::F32
                    && tokens > 48;
                assert_eq!(layer.qkv_by_rows(&xs).is_some(), by_rows, "{packing:?}");
                assert_eq!(layer.rest_by_rows(&xs, &own).is_some(), by_rows, "{packing:?}");
            }
        }
    }
}
