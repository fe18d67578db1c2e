//! The exponential as a formula that vector units compute.

use super::vectors::Lanes;

/// e^x for x <= 89 within two units in the last place; at least 2^-126, and infinity from 88.4 on. The
/// polynomial of Cephes' `expf` (Moshier 1989), without a branch.
#[inline(always)]
#[allow(clippy::excessive_precision)] // its own digits
pub fn exp<L: Lanes>(x: f32) -> f32 {
    const LEAST: f32 = -87.0;
    // NaN stays.
    let x = if LEAST > x { LEAST } else { x };
    // Adding 3·2²² rounds to a whole number n, which then stands in the last bits.
    let shifted = L::fused(x, std::f32::consts::LOG2_E, 12_582_912.0);
    let n = shifted - 12_582_912.0;
    // x - n·ln 2, the logarithm in two parts.
    let x = L::fused(n, 2.121_944_4e-4, L::fused(n, -0.693_359_375, x));
    let mut p = 1.987_569_15e-4;
    p = L::fused(p, x, 1.398_199_950_7e-3);
    p = L::fused(p, x, 8.333_451_907_3e-3);
    p = L::fused(p, x, 4.166_579_589_4e-2);
    p = L::fused(p, x, 1.666_666_545_9e-1);
    p = L::fused(p, x, 5.000_000_120_1e-1);
    // 2^n; the exponent of n = 128 is that of infinity.
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(1f32.to_bits()));
    (L::fused(p, x * x, x) + 1.0) * power
}

/// e^x for x <= 88 within a share of 2⁻¹³, for what is rounded to 9 bits or fewer then. The polynomial is fitted to
/// e^x on ±½·ln 2.
#[inline(always)]
pub fn exp_near<L: Lanes>(x: f32) -> f32 {
    const LEAST: f32 = -87.0;
    // NaN stays.
    let x = if LEAST > x { LEAST } else { x };
    let shifted = L::fused(x, std::f32::consts::LOG2_E, 12_582_912.0);
    let x = L::fused(shifted - 12_582_912.0, -std::f32::consts::LN_2, x);
    let mut p = 0.165_176_75;
    p = L::fused(p, x, 0.504_138_7);
    p = L::fused(p, x, 1.000_196_6);
    p = L::fused(p, x, 1.0);
    p * f32::from_bits((shifted.to_bits() << 23).wrapping_add(1f32.to_bits()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::native::{Vectorized, vectorize};

    struct Each<'a>(&'a mut [f32], bool);

    impl Vectorized for Each<'_> {
        #[inline(always)]
        fn run<L: Lanes, const P: usize>(self) {
            for x in self.0 {
                *x = if self.1 { exp_near::<L>(*x) } else { exp::<L>(*x) };
            }
        }
    }

    fn exps(mut xs: Vec<f32>, near: bool) -> Vec<f32> {
        vectorize(Each(&mut xs, near));
        xs
    }

    #[test]
    fn exp_is_near() {
        let xs: Vec<f32> = (-87_000..=88_300).map(|i| i as f32 / 1000.0).collect();
        for (x, found) in xs.iter().zip(exps(xs.clone(), false)) {
            let (found, exact) = (f64::from(found), f64::from(*x).exp());
            assert!((found / exact - 1.0).abs() < 2.4e-7, "{x}: {found} for {exact}");
        }
        let found = exps(vec![f32::NAN, f32::NEG_INFINITY, 88.5, 89.0], false);
        assert!(found[0].is_nan());
        assert!(found[1] < 2e-38);
        assert_eq!(found[2..], [f32::INFINITY; 2]);
    }

    #[test]
    fn exp_near_is_near_enough() {
        let xs: Vec<f32> = (-87_000..=88_000).map(|i| i as f32 / 1000.0).collect();
        for (x, found) in xs.iter().zip(exps(xs.clone(), true)) {
            let (found, exact) = (f64::from(found), f64::from(*x).exp());
            assert!((found / exact - 1.0).abs() < 2f64.powi(-13), "{x}: {found} for {exact}");
        }
        let found = exps(vec![f32::NAN, f32::NEG_INFINITY, 0.0], true);
        assert!(found[0].is_nan());
        assert!(found[1] < 2e-38);
        assert_eq!(found[2], 1.0);
    }
}
