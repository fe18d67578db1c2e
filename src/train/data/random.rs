//! Random numbers for augmentation, from SplitMix64.

use crate::splitmix::{GOLDEN, mix, unit};

/// A generator whose start is a function of a few numbers.
pub(super) struct Random {
    state: u64,
}

impl Random {
    pub(super) fn new(numbers: &[u64]) -> Self {
        let start = |state: u64, number: &u64| mix(state.wrapping_add(GOLDEN) ^ mix(*number));
        Random { state: numbers.iter().fold(0, start) }
    }

    /// Another generator: a function of this one's state and a number.
    pub(super) fn branch(&self, number: u64) -> Random {
        Random::new(&[self.state, number])
    }

    pub(super) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GOLDEN);
        mix(self.state)
    }

    /// From 0 to below 1.
    pub(super) fn unit(&mut self) -> f64 {
        unit(self.next())
    }

    pub(super) fn range(&mut self, from: f64, to: f64) -> f64 {
        from + (to - from) * self.unit()
    }

    /// From 0 to below `n`; 0 for n = 0.
    pub(super) fn below(&mut self, n: usize) -> usize {
        (self.unit() * n as f64) as usize
    }

    /// Of mean 0 and variance 1 (Box and Muller 1958).
    pub(super) fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splitmix_is_the_published_generator() {
        // The first outputs of the reference C code for the seed 1234567.
        let mut random = Random { state: 1_234_567 };
        let expected = [6_457_827_717_110_365_317, 3_203_168_211_198_807_973];
        assert_eq!([random.next(), random.next()], expected);
    }

    #[test]
    fn numbers_are_spread_as_told() {
        let mut random = Random::new(&[42, 0, 7]);
        let n = 20_000;
        let values: Vec<f64> = (0..n).map(|_| random.normal()).collect();
        let mean = values.iter().sum::<f64>() / f64::from(n);
        let variance = values.iter().map(|v| v * v).sum::<f64>() / f64::from(n);
        assert!(mean.abs() < 0.03 && (variance - 1.0).abs() < 0.05, "{mean} {variance}");
        assert!((0..1000).all(|_| random.below(3) < 3));
    }
}
