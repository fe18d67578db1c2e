//! The exponential as a formula that vector units compute.

/// e^x for x <= 89 within two units in the last place; at least 2^-126, and infinity from 88.4 on. The
/// polynomial of Cephes' `expf` (Moshier 1989), without a branch.
#[inline(always)]
#[allow(clippy::excessive_precision)] // its own digits
pub fn exp(x: f32) -> f32 {
    const LEAST: f32 = -87.0;
    // NaN stays.
    let x = if LEAST > x { LEAST } else { x };
    // Adding 3·2²² rounds to a whole number n, which then stands in the last bits.
    let shifted = x * std::f32::consts::LOG2_E + 12_582_912.0;
    let n = shifted - 12_582_912.0;
    // x - n·ln 2, the logarithm in two parts.
    let x = x - n * 0.693_359_375 + n * 2.121_944_4e-4;
    let mut p = 1.987_569_15e-4;
    p = p * x + 1.398_199_950_7e-3;
    p = p * x + 8.333_451_907_3e-3;
    p = p * x + 4.166_579_589_4e-2;
    p = p * x + 1.666_666_545_9e-1;
    p = p * x + 5.000_000_120_1e-1;
    // 2^n; the exponent of n = 128 is that of infinity.
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(1f32.to_bits()));
    (p * x * x + x + 1.0) * power
}

#[cfg(test)]
mod tests {
    use super::exp;

    #[test]
    fn exp_is_near() {
        for i in -87_000..=88_300 {
            let x = i as f32 / 1000.0;
            let (found, exact) = (f64::from(exp(x)), f64::from(x).exp());
            assert!((found / exact - 1.0).abs() < 2.4e-7, "{x}: {found} for {exact}");
        }
        assert!(exp(f32::NAN).is_nan());
        assert!(exp(f32::NEG_INFINITY) < 2e-38);
        assert_eq!(exp(88.5), f32::INFINITY);
        assert_eq!(exp(89.0), f32::INFINITY);
    }
}
