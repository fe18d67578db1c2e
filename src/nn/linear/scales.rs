//! Weights as whole numbers of 8 bits with a scale for each output.

use tch::{Kind, Tensor};

use super::Storage;
use super::number::{narrow_all, wide};
use crate::native::{self, Lanes, Matrix, Vectorized};

/// Numbers that one thread reads at a time.
const PIECE: usize = 1 << 18;

/// The scale of each output: its largest weight becomes 127. W [out, in] -> [out], f64
pub fn int8_scales(weight: &Tensor) -> Tensor {
    let largest = largest(weight).to_kind(Kind::Double) / LARGEST;
    largest.where_self(&largest.gt(0.0), &largest.ones_like())
}

/// Of 8 bits, with either sign.
const LARGEST: f64 = 127.0;

/// The scale of an output by its largest |w|.
pub(super) fn scale(largest: f32) -> f32 {
    if largest > 0.0 { (f64::from(largest) / LARGEST) as f32 } else { 1.0 }
}

/// The largest |w| of each output. W [out, in] -> [out]
fn largest(weight: &Tensor) -> Tensor {
    let (stored, storage) = Storage::of(weight);
    let transposed = storage == Storage::InOut;
    let found = native::with_floats([&stored], |[values]| {
        let (outputs, inputs) = (weight.size()[0] as usize, weight.size()[1] as usize);
        let matrix = Matrix::dense(values, outputs, inputs, transposed);
        let mut found = vec![0f32; outputs];
        let share = if transposed { LINE } else { PIECE.div_ceil(inputs.max(1)) };
        let pieces = found.chunks_mut(share).enumerate();
        native::parallel(pieces.collect(), |(piece, found)| {
            let first = piece * share;
            native::vectorize(Largest { matrix, first, found });
        });
        Tensor::from_slice(&found)
    });
    // Not the largest of |W|, which would be a second matrix.
    found.unwrap_or_else(|| weight.amin([1], false).neg().maximum(&weight.amax([1], false)))
}

/// Outputs of a matrix stored as [in, out] that one thread reads at a time.
const LINE: usize = 512;

/// The largest |w| of some outputs, from `first` on; `found` holds zeros.
pub(super) struct Largest<'a> {
    /// W [out, in]
    pub matrix: Matrix<'a, f32>,
    pub first: usize,
    pub found: &'a mut [f32],
}

impl Vectorized for Largest<'_> {
    #[inline(always)]
    fn run<L: Lanes, const P: usize>(self) {
        let Largest { matrix, first, found } = self;
        let Matrix { values, inner: inputs, transposed, apart, .. } = matrix;
        if transposed {
            for line in values.chunks(apart).take(inputs) {
                raise(found, &line[first..first + found.len()]);
            }
            return;
        }
        for (row, found) in values[first * apart..].chunks(apart).zip(found) {
            let mut largest = [0f32; P];
            for xs in row[..inputs].chunks(P) {
                raise(&mut largest, &wide::<f32, L, P>(xs));
            }
            *found = native::across(largest, f32::max);
        }
    }
}

/// Each becomes |x| where that is larger.
#[inline(always)]
pub(super) fn raise(largest: &mut [f32], xs: &[f32]) {
    for (largest, x) in largest.iter_mut().zip(xs) {
        *largest = if x.abs() > *largest { x.abs() } else { *largest };
    }
}

/// W divided by its scales and rounded. W [out, in] (f32, CPU, any strides), scales [out] -> [out, in], 8 bits
pub fn whole_numbers(weight: &Tensor, scales: &Tensor) -> Tensor {
    let (weight, scales) = (weight.contiguous(), scales.to_kind(Kind::Float));
    let numbers = native::with_floats([&weight, &scales], |[values, scales]| {
        let inputs = weight.size()[1] as usize;
        let mut numbers = vec![0i8; values.len()];
        let rows = PIECE.div_ceil(inputs.max(1));
        let pieces = values.chunks(rows * inputs).zip(numbers.chunks_mut(rows * inputs));
        native::parallel(
            pieces.zip(scales.chunks(rows)).collect(),
            |((values, numbers), scales)| {
                native::vectorize(Round { values, inputs, scales, numbers });
            },
        );
        Tensor::from_slice(&numbers).reshape(weight.size())
    });
    numbers.expect("contiguous f32 on the CPU")
}

struct Round<'a> {
    values: &'a [f32],
    inputs: usize,
    scales: &'a [f32],
    numbers: &'a mut [i8],
}

impl Vectorized for Round<'_> {
    #[inline(always)]
    fn run<L: Lanes, const P: usize>(self) {
        let rows =
            self.values.chunks_exact(self.inputs).zip(self.numbers.chunks_exact_mut(self.inputs));
        for ((row, numbers), scale) in rows.zip(self.scales) {
            narrow_all::<i8, L, P>(row, numbers, |x| x / scale);
        }
    }
}
