//! GELU's tanh form in one vectorized pass: 0.5·x·(1 + tanh u) = x / (1 + e^-2u) with
//! u = √(2/π)·(x + 0.044715·x³) (Hendrycks and Gimpel 2016).

use std::f64::consts::{FRAC_2_SQRT_PI, SQRT_2};

use tch::Tensor;

use crate::native::{self, Lanes, Vectorized, exp};

/// [..] -> [..]; None where libtorch has to do it: unless x is contiguous f32 on the CPU and nobody asks
/// for gradients.
pub(super) fn tanh(xs: &Tensor) -> Option<Tensor> {
    if xs.requires_grad() || !native::is_f32_on_cpu(xs) {
        return None;
    }
    let out = xs.empty_like();
    native::with_floats([xs, &out], |[xs, out]| {
        let pieces = xs.chunks(PIECE).zip(out.chunks_mut(PIECE)).collect();
        native::parallel(pieces, |(xs, out)| native::vectorize(Piece { xs, out }));
    })?;
    Some(out)
}

/// Numbers that are worth a thread's while.
const PIECE: usize = 1 << 14;

struct Piece<'a> {
    xs: &'a [f32],
    out: &'a mut [f32],
}

impl Vectorized for Piece<'_> {
    #[inline(always)]
    fn run<L: Lanes, const P: usize>(self) {
        for (out, x) in self.out.iter_mut().zip(self.xs) {
            *out = number(*x);
        }
    }
}

#[inline(always)]
fn number(x: f32) -> f32 {
    // Of -2u, the factors of x and x³.
    const FIRST: f64 = -SQRT_2 * FRAC_2_SQRT_PI;
    const THIRD: f64 = 0.044_715 * FIRST;
    // From here on e^x is infinite.
    const MOST: f32 = 89.0;
    let inner = x * (FIRST as f32 + THIRD as f32 * (x * x));
    // NaN stays.
    let inner = if MOST < inner { MOST } else { inner };
    x / (1.0 + exp(inner))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    fn numbers(xs: &Tensor) -> Vec<f64> {
        Vec::try_from(xs.to_kind(Kind::Double).reshape([-1])).unwrap()
    }

    /// Two units in the last place. Where e^-2u outweighs the 1 beside it, 2u adds its own rounding by its
    /// size, and what is less than 1e-37 may vanish.
    #[test]
    fn values_are_near_over_the_whole_range() {
        let xs = Tensor::arange_start_step(-20.0, 20.0, 1.0 / 4096.0, (Kind::Float, Device::Cpu));
        let found = numbers(&tanh(&xs).unwrap());
        let libtorch = numbers(&xs.to_kind(Kind::Double).gelu("tanh"));
        for ((x, found), libtorch) in numbers(&xs).iter().zip(found).zip(libtorch) {
            let twice = (8.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
            let exact = x / (1.0 + (-twice).exp());
            // 1 + tanh u loses the digits that 1 is greater.
            assert!((exact - libtorch).abs() <= 4e-16 * x.abs(), "{x}: {libtorch} for {exact}");
            let bound = 2.0 * f64::from(f32::EPSILON) * exact.abs() * (1.0 + (-twice).max(0.0));
            assert!((found - exact).abs() <= bound + 1e-37, "{x}: {found} for {exact}");
        }
    }

    #[test]
    fn extremes_are_those_of_libtorch() {
        let sizes = [0.0, 1e-45, 1e-40, f32::MIN_POSITIVE, 25.0, 1e13, 1e19, 1e20, 1e30, f32::MAX];
        let all: Vec<f32> = sizes.iter().chain(&[f32::INFINITY]).flat_map(|x| [*x, -x]).collect();
        let all = [all, vec![f32::NAN]].concat();
        let xs = Tensor::from_slice(&all);
        let bits = |xs: Tensor| -> Vec<Option<u32>> {
            let numbers = Vec::<f32>::try_from(xs).unwrap();
            numbers.iter().map(|x| (!x.is_nan()).then_some(x.to_bits())).collect()
        };
        let (found, expected) = (bits(tanh(&xs).unwrap()), bits(xs.gelu("tanh")));
        for ((x, found), expected) in all.iter().zip(found).zip(expected) {
            assert_eq!(found, expected, "{x}");
        }
    }

    /// Several pieces with a rest, and each number wherever it stands.
    #[test]
    fn a_number_is_the_same_in_every_tensor() {
        let xs = Tensor::arange(51 * 1009, (Kind::Float, Device::Cpu)).sin() * 5.0;
        let xs = xs.reshape([51, 1009]);
        let all = tanh(&xs).unwrap();
        assert_eq!(all.size(), xs.size());
        for row in 0..51 {
            let alone = tanh(&xs.get(row)).unwrap();
            assert_eq!(alone, all.get(row), "row {row}");
        }
    }

    #[test]
    fn others_are_left_to_libtorch() {
        let xs = Tensor::ones([4, 6], (Kind::Float, Device::Cpu));
        assert!(tanh(&xs.tr()).is_none());
        assert!(tanh(&xs.to_kind(Kind::Double)).is_none());
        assert!(tanh(&xs.narrow(0, 0, 0)).is_none());
        let xs = xs.set_requires_grad(true);
        assert!(tanh(&xs).is_none() && tanh(&(&xs * 2.0)).is_none());
        assert!(tch::no_grad(|| tanh(&(&xs * 2.0))).is_some());
    }
}
