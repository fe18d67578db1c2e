//! Dense layers over matrices as they lie in memory: in f32 as they were read, and in f16.

use tch::{Kind, Tensor};

use super::number::{Aligned, F16, Number, narrow_all};
use super::tiled;
use super::{Storage, over_rows};
use crate::native::{self, Dense, Lanes, Matrix, Vectorized};
use crate::nn::precision::{self, low};

/// A matrix [out, in] in f16, stored as it was or turned over.
pub(super) struct Flat {
    values: Aligned<F16>,
    inputs: usize,
    outputs: usize,
    storage: Storage,
}

impl Flat {
    /// W [out, in] (f32, CPU, any strides). For CPUs that `many::is_served` names.
    pub(super) fn pack(weight: &Tensor) -> Self {
        let (outputs, inputs) = weight.size2().expect("a matrix");
        let (stored, storage) = Storage::of(weight);
        let stored = stored.to_kind(Kind::Float).contiguous();
        let mut values = Aligned::zeros(stored.numel());
        native::with_floats([&stored], |[numbers]| {
            let pieces = numbers.chunks(PIECE).zip(values.chunks_mut(PIECE)).collect();
            native::parallel(pieces, |(numbers, target)| {
                native::vectorize(Narrow { numbers, target });
            });
        })
        .expect("contiguous f32 on the CPU");
        Flat { values, inputs: inputs as usize, outputs: outputs as usize, storage }
    }

    pub(super) fn inputs(&self) -> i64 {
        self.inputs as i64
    }

    pub(super) fn outputs(&self) -> i64 {
        self.outputs as i64
    }

    /// x·Wᵀ + b. xs [.., in], b [out] -> [.., out], f32
    pub(super) fn forward(&self, xs: &Tensor, bias: Option<&Tensor>) -> Tensor {
        let Flat { values, inputs, outputs, storage } = self;
        let transposed = *storage == Storage::InOut;
        let matrix = Matrix::dense(values, *outputs, *inputs, transposed);
        let bias = bias.map(|bias| bias.to_kind(Kind::Float));
        let found = with_rows(&xs.to_kind(Kind::Float), matrix, bias.as_ref());
        found.expect("f32 on the CPU")
    }
}

/// Numbers that one thread narrows at a time.
const PIECE: usize = 1 << 18;

struct Narrow<'a> {
    numbers: &'a [f32],
    target: &'a mut [F16],
}

impl Vectorized for Narrow<'_> {
    #[inline(always)]
    fn run<L: Lanes, const P: usize>(self) {
        narrow_all::<F16, L, P>(self.numbers, self.target, |x| x);
    }
}

/// Rows up to which the weights times the transposed input beats `linear` on a CPU (f32).
const FEW_ROWS: i64 = 8;

/// x·Wᵀ + b. x [.., in], W [out, in] (any strides), b [out] -> [.., out]
pub fn product(xs: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
    if precision::is_mixed() {
        let bias = bias.map(low);
        return low(xs).linear(&low(weight), bias.as_ref());
    }
    if let Some(found) = by_tiles(xs, weight, bias) {
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
pub(super) fn by_tiles(xs: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Option<Tensor> {
    let rows = xs.numel() / (*xs.size().last()?).max(1) as usize;
    let is_better = tiled::is_better(rows, weight.size()[0] as usize);
    let is_served = native::is_f32_on_cpu(xs) && !precision::is_mixed();
    if is_better && is_served { linear(xs, weight, bias) } else { None }
}

/// x·Wᵀ + b, with gradients where they are asked for; None where this is not for f32 on a CPU.
/// xs [.., in], W [out, in] (stored so or as [in, out]), b [out] -> [.., out]
pub(super) fn linear(xs: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Option<Tensor> {
    let (outputs, inputs) = weight.size2().ok()?;
    let (stored, storage) = Storage::of(weight);
    let transposed = storage == Storage::InOut;
    let asked = |xs: &Tensor| xs.requires_grad();
    if asked(xs) || asked(weight) || bias.is_some_and(asked) {
        let mut size = xs.size();
        *size.last_mut()? = outputs;
        let xs = xs.reshape([-1, inputs]).contiguous();
        let layer = Dense { xs: &xs, weight: &stored, bias, transposed };
        return Some(layer.forward(multiply)?.reshape(size));
    }
    native::with_floats([&stored], |[values]| {
        let (rows, inner) = (outputs as usize, inputs as usize);
        with_rows(xs, Matrix::dense(values, rows, inner, transposed), bias)
    })?
}

/// A product of `Dense`.
fn multiply(a: Matrix<f32>, b: Matrix<f32>, bias: Option<&[f32]>, out: &mut [f32]) -> bool {
    let is_better = tiled::is_better(a.rows, b.rows);
    if is_better {
        tiled::product(a, b, bias, out);
    }
    is_better
}

/// The product with the rows of a tensor. xs [.., in], W [out, in], b [out] -> [.., out]
fn with_rows<T: Number>(xs: &Tensor, weight: Matrix<T>, bias: Option<&Tensor>) -> Option<Tensor> {
    over_rows(xs, weight.rows, bias, |values, out, bias| {
        let (rows, inner) = (values.len() / weight.inner, weight.inner);
        tiled::product(Matrix::dense(values, rows, inner, false), weight, bias, out);
    })
}
