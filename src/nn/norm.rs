//! Layer normalisation, also of a sum: a layer adds what it made to what it was given and norms that.

#![allow(clippy::needless_range_loop)] // plain loops over fixed sizes become vectors

use anyhow::Result;
use tch::Tensor;

use super::gelu::PIECE;
use super::params::{ONES, Params, ZEROS};
use super::precision;
use crate::native::{self, Lanes, Vectorized, across};

/// Layer normalisation over the last axis (Ba et al. 2016), biased variance.
pub struct LayerNorm {
    pub weight: Tensor,
    pub bias: Tensor,
    pub eps: f64,
    /// Sum and norm take one pass, whose roundings are other ones than libtorch's: where weights are rounded anyway.
    in_one_pass: bool,
}

impl Params {
    /// Keys `name.weight` and `name.bias`, both [d].
    pub fn layer_norm(&self, name: &str, d: i64, eps: f64) -> Result<LayerNorm> {
        let p = self / name;
        let (weight, bias) = (p.var("weight", &[d], ONES)?, p.var("bias", &[d], ZEROS)?);
        p.mark_norm(&["weight", "bias"]);
        Ok(LayerNorm { weight, bias, eps, in_one_pass: self.rounds() })
    }
}

impl LayerNorm {
    /// [.., D] -> [.., D]
    pub fn forward(&self, xs: &Tensor) -> Tensor {
        if let Some(normed) = self.in_one(xs, None, None) {
            return normed;
        }
        let size = [self.weight.size()[0]];
        let xs = precision::full(xs);
        xs.layer_norm(size, Some(&self.weight), Some(&self.bias), self.eps, true)
    }

    /// Of xs + update. [.., D] each -> [.., D]
    pub fn of_sum(&self, xs: &Tensor, update: &Tensor) -> Tensor {
        self.in_one(xs, Some(update), None).unwrap_or_else(|| self.forward(&(xs + update)))
    }

    /// xs + update, and that normed. [.., D] each -> two of [.., D]
    pub fn with_sum(&self, xs: &Tensor, update: &Tensor) -> [Tensor; 2] {
        if self.in_one_pass {
            let sum = xs.empty_like();
            if let Some(normed) = self.in_one(xs, Some(update), Some(&sum)) {
                return [sum, normed];
            }
        }
        let sum = xs + update;
        let normed = self.forward(&sum);
        [sum, normed]
    }

    /// None where libtorch has to do it.
    pub(super) fn by_rows(&self) -> Option<ByRows<'_>> {
        let LayerNorm { weight, bias, eps, .. } = self;
        self.in_one_pass.then_some(ByRows { weight, bias, eps: *eps as f32 })
    }

    /// The norm of xs, or of xs + update, which is written to `sum` too if there is one, in one pass; None where
    /// libtorch has to do it: in f32, and unless all is contiguous f32 on the CPU, of one size, and nobody asks for
    /// gradients.
    fn in_one(&self, xs: &Tensor, update: Option<&Tensor>, sum: Option<&Tensor>) -> Option<Tensor> {
        let LayerNorm { weight, bias, .. } = self;
        let asks = |xs: &Tensor| xs.requires_grad();
        if !self.in_one_pass || asks(xs) || asks(weight) || asks(bias) || update.is_some_and(asks) {
            return None;
        }
        let (size, d) = (xs.size(), weight.numel());
        let fits = update.is_none_or(|update| update.size() == size);
        if precision::is_mixed() || !fits || size.last() != Some(&(d as i64)) {
            return None;
        }
        let normed = xs.empty_like();
        let eps = self.eps as f32;
        match (update, sum) {
            (None, _) => {
                native::with_floats([xs, &normed, weight, bias], |[xs, out, weight, bias]| {
                    Rows { xs, update: None, sum: None, out, weight, bias, eps }.spread();
                })
            }
            (Some(update), Some(sum)) => native::with_floats(
                [xs, update, sum, &normed, weight, bias],
                |[xs, update, sum, out, weight, bias]| {
                    let (update, sum) = (Some(&*update), Some(sum));
                    Rows { xs, update, sum, out, weight, bias, eps }.spread();
                },
            ),
            (Some(update), None) => native::with_floats(
                [xs, update, &normed, weight, bias],
                |[xs, update, out, weight, bias]| {
                    Rows { xs, update: Some(update), sum: None, out, weight, bias, eps }.spread();
                },
            ),
        }?;
        Some(normed)
    }
}

/// What a thread norms some rows with.
pub(super) struct ByRows<'a> {
    /// [d] each
    pub weight: &'a Tensor,
    pub bias: &'a Tensor,
    pub eps: f32,
}

/// The norm of some rows, by this thread alone. xs [M, d], weight and bias [d] -> out [M, d]
pub(super) fn alone(xs: &[f32], out: &mut [f32], [weight, bias]: [&[f32]; 2], eps: f32) {
    native::vectorize(Rows { xs, update: None, sum: None, out, weight, bias, eps });
}

/// Some rows of [d] each.
struct Rows<'a> {
    xs: &'a [f32],
    /// Is added to them; without one the sum is the rows themselves, and not wanted.
    update: Option<&'a [f32]>,
    /// Where that is wanted, too.
    sum: Option<&'a mut [f32]>,
    out: &'a mut [f32],
    /// [d] each
    weight: &'a [f32],
    bias: &'a [f32],
    eps: f32,
}

impl Rows<'_> {
    /// Divides them among the threads.
    fn spread(self) {
        let Rows { xs, update, sum, out, weight, bias, eps } = self;
        let share = (PIECE / weight.len()).max(1) * weight.len();
        let mut updates = update.map(|all| all.chunks(share));
        let mut sums = sum.map(|all| all.chunks_mut(share));
        let tasks = xs.chunks(share).zip(out.chunks_mut(share)).map(|(xs, out)| {
            let update = updates.as_mut().and_then(Iterator::next);
            let sum = sums.as_mut().and_then(Iterator::next);
            Rows { xs, update, sum, out, weight, bias, eps }
        });
        native::parallel(tasks.collect(), native::vectorize);
    }
}

impl Vectorized for Rows<'_> {
    #[inline(always)]
    fn run<L: Lanes, const P: usize>(self) {
        let Rows { xs, update, mut sum, out, weight, bias, eps } = self;
        let d = weight.len();
        // Loops over single numbers, of which the compiler makes vectors: of lines it would make them across lines.
        for (row, out) in out.chunks_exact_mut(d).enumerate() {
            let own = row * d..(row + 1) * d;
            let Some(update) = update else {
                let xs = &xs[own];
                let (mean, scale) = moments::<P>(xs, eps);
                for (((out, x), weight), bias) in out.iter_mut().zip(xs).zip(weight).zip(bias) {
                    *out = L::fused((x - mean) * scale, *weight, *bias);
                }
                continue;
            };
            for (out, (x, y)) in
                out.iter_mut().zip(xs[own.clone()].iter().zip(&update[own.clone()]))
            {
                *out = x + y;
            }
            if let Some(sum) = &mut sum {
                sum[own].copy_from_slice(out);
            }
            let (mean, scale) = moments::<P>(out, eps);
            for ((x, weight), bias) in out.iter_mut().zip(weight).zip(bias) {
                *x = L::fused((*x - mean) * scale, *weight, *bias);
            }
        }
    }
}

/// The mean, and the reciprocal of the standard deviation.
#[inline(always)]
fn moments<const P: usize>(xs: &[f32], eps: f32) -> (f32, f32) {
    let mean = total::<P>(xs, |x| x) / xs.len() as f32;
    let variance = total::<P>(xs, |x| (x - mean) * (x - mean)) / xs.len() as f32;
    (mean, 1.0 / (variance + eps).sqrt())
}

/// The sum of what `of` makes of each.
#[inline(always)]
fn total<const P: usize>(xs: &[f32], of: impl Fn(f32) -> f32) -> f32 {
    let (lines, rest) = xs.as_chunks::<P>();
    let mut sums = [0f32; P];
    for line in lines {
        for i in 0..P {
            sums[i] += of(line[i]);
        }
    }
    rest.iter().fold(across(sums, |a, b| a + b), |sum, x| sum + of(*x))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    fn waves(size: &[i64], step: f64) -> Tensor {
        let count = size.iter().product::<i64>();
        ((Tensor::arange(count, (Kind::Double, Device::Cpu)) * step).sin() * 3.0 + 0.5)
            .reshape(size)
            .to_kind(Kind::Float)
    }

    fn norm(d: i64) -> LayerNorm {
        LayerNorm { weight: waves(&[d], 0.7), bias: waves(&[d], 0.3), eps: 1e-5, in_one_pass: true }
    }

    fn far(found: &Tensor, expected: &Tensor) -> f64 {
        f64::try_from((found - expected).abs().max()).unwrap()
    }

    /// Against libtorch in f64: whole lines or not, rows for one thread and for several, each in one pass.
    #[test]
    fn norms_and_sums_are_those_of_libtorch() {
        for (rows, d) in [(1, 1), (3, 7), (1, 256), (5, 100), (600, 384)] {
            let (xs, update, norm) =
                (waves(&[1, rows, d], 0.37), waves(&[1, rows, d], 0.11), norm(d));
            let exact = |xs: &Tensor| {
                let [xs, weight, bias] =
                    [xs, &norm.weight, &norm.bias].map(|xs| xs.to_kind(Kind::Double));
                xs.layer_norm([d], Some(&weight), Some(&bias), norm.eps, true)
            };
            assert!(norm.in_one(&xs, None, None).is_some());
            let sum = &xs + &update;
            assert!(far(&norm.forward(&xs), &exact(&xs)) < 4e-6, "{rows}x{d}");
            assert!(far(&norm.of_sum(&xs, &update), &exact(&sum)) < 4e-6, "{rows}x{d}");
            let found = norm.with_sum(&xs, &update);
            assert_eq!(found[0], sum);
            assert!(far(&found[1], &exact(&sum)) < 4e-6, "{rows}x{d}");
        }
    }

    /// Whoever asks for gradients gets libtorch's, and so do other types, sizes and orders in memory.
    #[test]
    fn others_are_left_to_libtorch() {
        let (xs, norm) = (waves(&[4, 6], 0.37), norm(6));
        let in_f32 = LayerNorm { in_one_pass: false, ..self::norm(6) };
        assert!(in_f32.in_one(&xs, None, None).is_none());
        let own = |xs: &Tensor| norm.in_one(xs, None, None);
        assert!(own(&xs.to_kind(Kind::Double)).is_none());
        assert!(own(&waves(&[6, 4], 0.37).tr()).is_none());
        assert!(norm.in_one(&xs, Some(&xs.narrow(0, 0, 1)), None).is_none());
        let [sum, normed] = norm.with_sum(&xs, &xs.narrow(0, 0, 1));
        assert_eq!(sum, &xs + &xs.narrow(0, 0, 1));
        assert_eq!(normed, norm.forward(&sum));
        let xs = xs.set_requires_grad(true);
        assert!(own(&xs).is_none());
        norm.of_sum(&xs, &xs).sum(Kind::Float).backward();
        assert!(xs.grad().defined());
    }
}
