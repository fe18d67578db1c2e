//! What packed matrices keep, as plain ones again.

use tch::{Device, Kind, Tensor};

use super::Storage;
use super::bytes::Bytes;
use super::number::Number;
use super::pieces::{Piece, edges, pieces};
use crate::native::{self, Lanes, QUAD_INPUTS, Vectorized};

/// Panels as [out, in]: the transpose of a contiguous matrix.
pub(super) fn panels<T: Number>(weights: &[T], [inputs, outputs]: [usize; 2]) -> Tensor {
    let lines = Tensor::empty([inputs as i64, outputs as i64], (Kind::Float, Device::Cpu));
    let parts = native::thread_count();
    let across = edges(outputs, native::panel_width(), parts);
    native::with_floats([&lines], |[lines]| {
        let tasks = pieces(lines, &[0, inputs], &across).into_iter();
        let tasks = tasks.map(|Piece { columns, out: lines, .. }| Widen {
            weights: &weights[columns.start * inputs..],
            lines,
        });
        native::parallel(tasks.collect(), native::vectorize);
    });
    Storage::InOut.out_in(&lines)
}

/// Whole numbers of 8 bits, as they are kept.
#[derive(Clone, Copy)]
pub(super) enum Whole<'a> {
    /// Panels of so many inputs, and the scale of each output.
    Panels(&'a [i8], &'a [f32], usize),
    Bytes(&'a Bytes),
}

impl Whole<'_> {
    /// Writes the numbers of an output, [in]. -> what the number 1 stands for
    pub(super) fn row(&self, output: usize, row: &mut [i8]) -> f32 {
        match *self {
            Whole::Panels(numbers, scales, inputs) => {
                let width = native::panel_width();
                let own = &numbers[output / width * inputs * width + output % width..];
                for (place, number) in row.iter_mut().zip(own.iter().step_by(width)) {
                    *place = *number;
                }
                scales[output]
            }
            Whole::Bytes(bytes) => {
                let (quads, scale) = bytes.weights(output);
                for (places, quad) in row.chunks_mut(QUAD_INPUTS).zip(quads) {
                    places.copy_from_slice(&quad[..places.len()]);
                }
                scale
            }
        }
    }
}

/// Widens some panels.
struct Widen<'a, T> {
    weights: &'a [T],
    /// The outputs of each input.
    lines: Vec<&'a mut [f32]>,
}

impl<T: Number> Vectorized for Widen<'_, T> {
    #[inline(always)]
    fn run<L: Lanes, const P: usize>(self) {
        let Widen { weights, mut lines } = self;
        let inputs = lines.len();
        let panels = weights.as_chunks::<P>().0.chunks_exact(inputs.max(1));
        for (panel, numbers) in panels.enumerate() {
            for (k, line) in lines.iter_mut().enumerate() {
                let Some(place) = line.get_mut(panel * P..) else { return };
                let wide = T::line::<L, P>(numbers, k);
                let count = place.len().min(P);
                place[..count].copy_from_slice(&wide[..count]);
            }
        }
    }
}
