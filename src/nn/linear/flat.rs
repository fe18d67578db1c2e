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
            tiled::product(xs, weight, Parts::F32, Finish { scales: None, bias, then }, out);
        })
    })?
}

/// A product of `Dense`.
fn multiply(a: Matrix<f32>, b: Matrix<f32>, bias: Option<&[f32]>, out: &mut [f32]) -> bool {
    let is_better = tiled::is_better(a.rows, b.rows);
    if is_better {
        let finish = Finish { scales: None, bias, then: Then::Nothing };
        tiled::product(a, b, Parts::F32, finish, out);
    }
    is_better
}
