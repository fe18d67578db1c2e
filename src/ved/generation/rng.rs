//! Random numbers whose streams belong to an image, so that a batch's make-up never changes a text.

use crate::splitmix::{GOLDEN, mix, unit};

/// SplitMix64 from a start of its own.
pub(super) struct Stream(u64);

impl Stream {
    /// The stream of one returned sequence of one image.
    pub(super) fn new(seed: u64, image: u64, sequence: u64) -> Self {
        let start = mix(seed.wrapping_add(GOLDEN));
        let start = mix(start ^ image.wrapping_add(1).wrapping_mul(GOLDEN));
        Stream(mix(start ^ sequence.wrapping_add(1).wrapping_mul(0xd1b5_4a32_d192_ed03)))
    }

    /// Uniform in [0, 1), 53 bits.
    pub(super) fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        unit(mix(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splitmix_is_the_published_generator() {
        // The first outputs of the reference C code for the seed 1234567.
        let mut state = 1234567u64;
        let expected = [6457827717110365317u64, 3203168211198807973, 9817491932198370423];
        for expected in expected {
            state = state.wrapping_add(GOLDEN);
            assert_eq!(mix(state), expected);
        }
    }

    #[test]
    fn streams_are_uniform_and_their_own() {
        let mut means = Vec::new();
        for (image, sequence) in [(0, 0), (0, 1), (1, 0)] {
            let mut stream = Stream::new(7, image, sequence);
            let mean = (0..4096).map(|_| stream.uniform()).sum::<f64>() / 4096.0;
            // Four standard deviations of the mean, 4 / sqrt(12 · 4096).
            assert!((mean - 0.5).abs() < 0.018, "{mean}");
            means.push(mean);
        }
        assert!(means[0] != means[1] && means[0] != means[2] && means[1] != means[2]);
    }
}
