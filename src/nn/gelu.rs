//! GELU (Hendrycks and Gimpel 2016) in one vectorized pass: x·Φ(x), and its tanh form 0.5·x·(1 + tanh u) =
//! x / (1 + e^-2u) with u = √(2/π)·(x + 0.044715·x³).

use std::f64::consts::{FRAC_2_SQRT_PI, SQRT_2};

use tch::Tensor;

use crate::native::{self, Lanes, Then, Vectorized, exp};

/// Of each number, in the form that `form` names. [..] -> [..]; None where libtorch has to do it: unless x is
/// contiguous f32 on the CPU and nobody asks for gradients.
pub(super) fn gelu(xs: &Tensor, form: Then) -> Option<Tensor> {
    if xs.requires_grad() || !native::is_f32_on_cpu(xs) {
        return None;
    }
    let out = xs.empty_like();
    native::with_floats([xs, &out], |[xs, out]| {
        let pieces = xs.chunks(PIECE).zip(out.chunks_mut(PIECE)).collect();
        native::parallel(pieces, |(xs, out)| native::vectorize(Piece { xs, out, form }));
    })?;
    Some(out)
}

/// The form of each of some numbers, in place; `near` where what takes them rounds them to 9 bits or fewer.
#[inline(always)]
pub(super) fn each<L: Lanes>(numbers: &mut [f32], form: Then, near: bool) {
    match form {
        Then::Nothing => {}
        // Loops, as closures are sometimes compiled for the oldest CPU.
        Then::Gelu if near => {
            for x in numbers {
                *x = exact_near::<L>(*x);
            }
        }
        Then::Gelu => {
            for x in numbers {
                *x = exact::<L>(*x);
            }
        }
        Then::GeluTanh => {
            for x in numbers {
                *x = tanh::<L>(*x);
            }
        }
    }
}

/// Numbers that are worth a thread's while.
pub(super) const PIECE: usize = 1 << 14;

struct Piece<'a> {
    xs: &'a [f32],
    out: &'a mut [f32],
    form: Then,
}

impl Vectorized for Piece<'_> {
    #[inline(always)]
    fn run<L: Lanes, const P: usize>(self) {
        self.out.copy_from_slice(self.xs);
        each::<L>(self.out, self.form, false);
    }
}

/// x·Φ(x). Of |x| the upper tail of the normal distribution is e^(-x²/2) times a polynomial in t =
/// 1 / (1 + 0.26·|x|), fitted to 2.5e-8 of it for |x| up to 14 (in the manner of Hastings, Approximations for
/// Digital Computers, 1955).
#[inline(always)]
fn exact<L: Lanes>(x: f32) -> f32 {
    const TAIL: [f32; 9] = [
        0.103_759_06,
        0.103_016_76,
        0.103_030_21,
        0.051_027_857,
        0.160_947_4,
        -0.150_948_23,
        0.251_490_56,
        -0.152_828_44,
        0.030_504_797,
    ];
    // From here on the tail is lost beside x.
    const FAR: f32 = 14.0;
    let size = x.abs();
    let t = 1.0 / L::fused(0.26, size, 1.0);
    let mut sum = TAIL[8];
    for i in (0..8).rev() {
        sum = L::fused(sum, t, TAIL[i]);
    }
    let tail = x * (sum * t * exp::<L>(-0.5 * size * size));
    let upper = if x < FAR { x - tail } else { x };
    if x < 0.0 { tail } else { upper }
}

/// x·Φ(x) within 10⁻⁴: Φ is ½ + x·p(x²), fitted so that it is 0 and 1 where it ends.
#[inline(always)]
fn exact_near<L: Lanes>(x: f32) -> f32 {
    const END: f32 = 4.25;
    const FIT: [f32; 8] = [
        0.398_419_86,
        -0.065_453_24,
        0.009_257_698,
        -9.404_194e-4,
        6.552_37e-5,
        -2.938_578e-6,
        7.570_064e-8,
        -8.459_343e-10,
    ];
    // NaN stays, as x.
    let inner = if x > -END { x } else { -END };
    let inner = if inner < END { inner } else { END };
    let square = inner * inner;
    let mut sum = FIT[7];
    for i in (0..7).rev() {
        sum = L::fused(sum, square, FIT[i]);
    }
    x * L::fused(inner, sum, 0.5)
}

#[inline(always)]
fn tanh<L: Lanes>(x: f32) -> f32 {
    // Of -2u, the factors of x and x³.
    const FIRST: f64 = -SQRT_2 * FRAC_2_SQRT_PI;
    const THIRD: f64 = 0.044_715 * FIRST;
    // From here on e^x is infinite.
    const MOST: f32 = 89.0;
    let inner = x * (FIRST as f32 + THIRD as f32 * (x * x));
    // NaN stays.
    let inner = if MOST < inner { MOST } else { inner };
    x / (1.0 + exp::<L>(inner))
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
        let found = numbers(&gelu(&xs, Then::GeluTanh).unwrap());
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

    /// Nearer than libtorch's own in f32, whose 1 + erf loses digits too: by x, 2 units in the last place.
    #[test]
    fn the_exact_form_is_near_over_the_whole_range() {
        let xs = Tensor::arange_start_step(-20.0, 20.0, 1.0 / 4096.0, (Kind::Float, Device::Cpu));
        let found = numbers(&gelu(&xs, Then::Gelu).unwrap());
        let double = xs.to_kind(Kind::Double);
        let expected = numbers(&(&double * (&double * -(0.5f64.sqrt())).erfc() * 0.5));
        for ((x, found), expected) in numbers(&xs).iter().zip(found).zip(expected) {
            let bound = 2.0 * f64::from(f32::EPSILON) * x.abs();
            assert!((found - expected).abs() <= bound, "{x}: {found} for {expected}");
        }
        let extremes = Tensor::from_slice(&[0f32, 1e30, f32::MAX, f32::INFINITY, f32::NAN, -1e30]);
        let found: Vec<f32> = gelu(&extremes, Then::Gelu).unwrap().try_into().unwrap();
        assert_eq!(found[..4], [0.0, 1e30, f32::MAX, f32::INFINITY]);
        assert!(found[4].is_nan() && found[5].abs() < 1e-6);
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
        let (found, expected) = (bits(gelu(&xs, Then::GeluTanh).unwrap()), bits(xs.gelu("tanh")));
        for ((x, found), expected) in all.iter().zip(found).zip(expected) {
            assert_eq!(found, expected, "{x}");
        }
    }

    /// Several pieces with a rest, and each number wherever it stands.
    #[test]
    fn a_number_is_the_same_in_every_tensor() {
        let xs = Tensor::arange(51 * 1009, (Kind::Float, Device::Cpu)).sin() * 5.0;
        let xs = xs.reshape([51, 1009]);
        for form in [Then::Gelu, Then::GeluTanh] {
            let all = gelu(&xs, form).unwrap();
            assert_eq!(all.size(), xs.size());
            for row in 0..51 {
                let alone = gelu(&xs.get(row), form).unwrap();
                assert_eq!(alone, all.get(row), "row {row}");
            }
        }
    }

    #[test]
    fn others_are_left_to_libtorch() {
        let own = |xs: &Tensor| gelu(xs, Then::GeluTanh);
        let xs = Tensor::ones([4, 6], (Kind::Float, Device::Cpu));
        assert!(own(&xs.tr()).is_none());
        assert!(own(&xs.to_kind(Kind::Double)).is_none());
        assert!(own(&xs.narrow(0, 0, 0)).is_none());
        let xs = xs.set_requires_grad(true);
        assert!(own(&xs).is_none() && own(&(&xs * 2.0)).is_none());
        assert!(tch::no_grad(|| own(&(&xs * 2.0))).is_some());
    }
}
