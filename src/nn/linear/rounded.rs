//! Panels rounded to 8 bits, panel by panel.

use super::number::{Aligned, Number};
use super::pack::narrow;
use super::scales::{raise, scale};
use crate::native::{self, Lanes, Vectorized};

/// Panels that one thread rounds at a time.
const GROUP: usize = 4;

/// Whole numbers of 8 bits in the same panels, and the scale of each output. weights [panel][in][P]
pub(super) fn rounded<T: Number>(
    weights: &[T],
    inputs: usize,
    outputs: usize,
) -> (Aligned<i8>, Vec<f32>) {
    let width = native::panel_width();
    let mut numbers = Aligned::lasting(weights.len());
    let mut scales = vec![1.0; weights.len() / inputs];
    let group = GROUP * width;
    let pieces = weights.chunks(group * inputs).zip(numbers.chunks_mut(group * inputs));
    let pieces = pieces.zip(scales.chunks_mut(group));
    let tasks =
        pieces.map(|((weights, numbers), scales)| Round { weights, inputs, numbers, scales });
    native::parallel(tasks.collect(), native::vectorize);
    scales.truncate(outputs);
    (numbers, scales)
}

/// Some panels.
struct Round<'a, T> {
    weights: &'a [T],
    inputs: usize,
    numbers: &'a mut [i8],
    scales: &'a mut [f32],
}

impl<T: Number> Vectorized for Round<'_, T> {
    #[inline(always)]
    fn run<L: Lanes, const P: usize>(self) {
        let lines = self.weights.as_chunks::<P>().0.chunks_exact(self.inputs);
        let targets = self.numbers.as_chunks_mut::<P>().0.chunks_exact_mut(self.inputs);
        let scales = self.scales.as_chunks_mut::<P>().0;
        for ((lines, targets), scales) in lines.zip(targets).zip(scales) {
            let mut largest = [0f32; P];
            for k in 0..lines.len() {
                raise(&mut largest, &T::line::<L, P>(lines, k));
            }
            for j in 0..P {
                scales[j] = scale(largest[j]);
            }
            // What was read lies in the cache of the core by now.
            for (k, target) in targets.iter_mut().enumerate() {
                *target = narrow::<i8, L, P>(T::line::<L, P>(lines, k), scales, true);
            }
        }
    }
}
