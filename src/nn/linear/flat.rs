//! Dense layers over matrices as they lie in memory, in f32.

use tch::Tensor;

use super::tiled::{self, Finish};
use super::{Storage, over_rows};
use crate::native::{self, Dense, Matrix, Parts, Then};
use crate::nn::precision::{self, low};

/// Rows up to which the weights times the transposed input beats `linear` on a CPU (f32).
const FEW_ROWS: i64 = 8;

/// x·Wᵀ + b. x [.., in], W [out, in] (any strides), b [out] -> [.., out]
pub fn product(xs: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
    if precision::is_mixed() {
        let bias = bias.map(low);
        return low(xs).linear(&low(weight), bias.as_ref());
    }
    if let Some(found) = by_tiles(xs, weight, bias, Then::Nothing) {
        return found;
    }
    let size = xs.size();
    let inputs = size[size.len() - 1];
    let rows = xs.numel() as i64 / inputs.max(1);
    let is_plain = !native::is_f32_on_cpu(xs)
        || rows == 1
        || rows > FEW_ROWS
        // GPT-2's storage is the other way round, where `linear` has nothing to gain.
        || !weight.is_contiguous()
        || xs.requires_grad()
        || weight.requires_grad();
    if is_plain {
        return xs.linear(weight, bias);
    }
    // At decode sizes `linear` leaves half of the memory bandwidth unused; W·xᵀ does not.
    let product = weight.matmul(&xs.reshape([rows, inputs]).tr()).tr(); // [rows, out]
    let product = match bias {
        Some(bias) => product + bias,
        None => product,
    };
    let mut size = size;
    if let Some(last) = size.last_mut() {
        *last = weight.size()[0];
    }
    product.reshape(size)
}

/// `product` in f32 on a CPU whose matrix unit is faster; None elsewhere.
pub(super) fn by_tiles(
    xs: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    then: Then,
) -> Option<Tensor> {
    let rows = xs.numel() / (*xs.size().last()?).max(1) as usize;
    let is_better = tiled::is_better(rows, weight.size()[0] as usize);
    let is_served = native::is_f32_on_cpu(xs) && !precision::is_mixed();
    if is_better && is_served { linear(xs, weight, bias, then) } else { None }
}

/// x·Wᵀ + b and `then`, or without it with gradients, where they are asked for; None where this is not for f32
/// on a CPU.
/// xs [.., in], W [out, in] (stored so or as [in, out]), b [out] -> [.., out]
pub(super) fn linear(
    xs: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    then: Then,
) -> Option<Tensor> {
    let (outputs, inputs) = weight.size2().ok()?;
    let (stored, storage) = Storage::of(weight);
    let transposed = storage == Storage::InOut;
    let asked = |xs: &Tensor| xs.requires_grad();
    if asked(xs) || asked(weight) || bias.is_some_and(asked) {
        if then != Then::Nothing {
            return None;
        }
        let mut size = xs.size();
        *size.last_mut()? = outputs;
        let xs = xs.reshape([-1, inputs]).contiguous();
        let layer = Dense { xs: &xs, weight: &stored, bias, transposed };
        return Some(layer.forward(multiply)?.reshape(size));
    }
    native::with_floats([&stored], |[values]| {
        let (outputs, inputs) = (outputs as usize, inputs as usize);
        over_rows(xs, outputs, bias, |xs, out, bias| {
            let xs = Matrix::dense(xs, xs.len() / inputs, inputs, false);
            let weight = Matrix::dense(values, outputs, inputs, transposed);
            tiled::product(xs, weight, Parts::F32.here(), Finish { scales: None, bias, then }, out);
        })
    })?
}

/// A product of `Dense`.
fn multiply(a: Matrix<f32>, b: Matrix<f32>, bias: Option<&[f32]>, out: &mut [f32]) -> bool {
    let is_better = tiled::is_better(a.rows, b.rows);
    if is_better {
        let finish = Finish { scales: None, bias, then: Then::Nothing };
        tiled::product(a, b, Parts::F32.here(), finish, out);
    }
    is_better
}

#[cfg(test)]
mod tests {
    use tch::Kind;

    use super::*;
    use crate::nn::linear::tests::{largest, waves};

    /// Gradients of products of our own against those of libtorch, for both ways a weight is stored, with and
    /// without a bias, where some of them are not asked for, and where one of three products is left to libtorch.
    #[test]
    fn products_of_our_own_learn_like_those_of_libtorch() {
        if !native::has_tiles() || !native::has_operators() {
            return;
        }
        for (rows, inputs, outputs) in [(29, 70, 45), (301, 250, 270), (301, 70, 270)] {
            for storage in [Storage::OutIn, Storage::InOut] {
                for (of_xs, of_weight, bias) in [
                    (true, true, true),
                    (true, true, false),
                    (false, true, true),
                    (true, false, false),
                ] {
                    let draw = |size: &[i64], step, asked: bool| {
                        waves(size, step).set_requires_grad(asked)
                    };
                    let xs = draw(&[3, rows, inputs], 0.11, of_xs);
                    let size = match storage {
                        Storage::OutIn => [outputs, inputs],
                        Storage::InOut => [inputs, outputs],
                    };
                    let weight = draw(&size, 0.37, of_weight);
                    let bias = bias.then(|| draw(&[outputs], 1.3, true));
                    let asked: Vec<&Tensor> = [Some(&xs), Some(&weight), bias.as_ref()]
                        .into_iter()
                        .flatten()
                        .filter(|xs| xs.requires_grad())
                        .collect();
                    // Of the loss Σ w·y, as near as f32 comes to it: in f64 the same graph is exact.
                    let gradients = |found: &Tensor| {
                        let loss = (found * waves(&found.size(), 0.05)).sum(Kind::Double);
                        Tensor::run_backward(&[&loss], &asked, false, false)
                    };
                    let matrix = storage.out_in(&weight);
                    let double = |xs: &Tensor| xs.to_kind(Kind::Double);
                    let exact = double(&xs).linear(&double(&matrix), bias.as_ref().map(double));
                    let own =
                        linear(&xs, &matrix, bias.as_ref(), Then::Nothing).expect("f32 on a CPU");
                    let plain = xs.linear(&matrix, bias.as_ref());
                    assert_eq!(own.size(), [3, rows, outputs]);
                    let [own, plain, exact] =
                        [own, plain, exact].map(|y| (gradients(&y), y.detach()));
                    let all = |(of, y): (Vec<Tensor>, Tensor)| of.into_iter().chain([y]);
                    for ((own, plain), exact) in all(own).zip(all(plain)).zip(all(exact)) {
                        assert_eq!(own.size(), exact.size());
                        let (own, other) = (largest(&(own - &exact)), largest(&(plain - &exact)));
                        // Of as many products as there are rows: one rounding of all that is added up.
                        let of_weight = exact.size() == size;
                        let added =
                            if of_weight { 3.0 * rows as f64 * 2f64.powi(-24) } else { 0.0 };
                        let bound = 2.0 * other + 1e-6 * largest(&exact).max(1.0) + added;
                        assert!(own <= bound, "{storage:?} {rows}: {own:e} for {other:e}");
                    }
                }
            }
        }
    }
}
