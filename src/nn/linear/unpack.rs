//! What packed matrices keep, as plain ones again.

use tch::{Device, Kind, Tensor};

use super::Storage;
use super::bytes::Bytes;
use super::number::Number;
use super::pieces::{Piece, edges, pieces};
use crate::native::{self, Lanes, TILE_OUTPUTS, Vectorized};

/// Panels as [out, in]: the transpose of a contiguous matrix. `scales` [out]
pub(super) fn panels<T: Number>(
    weights: &[T],
    scales: Option<&[f32]>,
    [inputs, outputs]: [usize; 2],
) -> Tensor {
    let width = native::panel_width();
    turned([inputs, outputs], width, |Piece { columns, out: lines, .. }| {
        let weights = &weights[columns.start * inputs..];
        let scales = scales.map(|scales| &scales[columns]);
        native::vectorize(Widen { weights, scales, lines });
    })
}

/// Whole numbers of 8 bits, times their scales, as [out, in]: the transpose of a contiguous matrix.
pub(super) fn bytes(bytes: &Bytes, [inputs, outputs]: [usize; 2]) -> Tensor {
    turned([inputs, outputs], TILE_OUTPUTS, |Piece { columns, out: mut lines, .. }| {
        for (place, column) in columns.enumerate() {
            let (quads, scale) = bytes.weights(column);
            for (line, weight) in lines.iter_mut().zip(quads.flatten()) {
                line[place] = f32::from(*weight) * scale;
            }
        }
    })
}

/// A matrix [in, out], whose columns `write` fills in parts of whole panels, seen as [out, in].
fn turned(
    [inputs, outputs]: [usize; 2],
    width: usize,
    write: impl Fn(Piece) + Send + Sync,
) -> Tensor {
    let lines = Tensor::empty([inputs as i64, outputs as i64], (Kind::Float, Device::Cpu));
    let parts = tch::get_num_threads().max(1) as usize;
    native::with_floats([&lines], |[lines]| {
        native::parallel(pieces(lines, &[0, inputs], &edges(outputs, width, parts)), write);
    });
    Storage::InOut.out_in(&lines)
}

/// Widens some panels.
struct Widen<'a, T> {
    weights: &'a [T],
    scales: Option<&'a [f32]>,
    /// The outputs of each input.
    lines: Vec<&'a mut [f32]>,
}

impl<T: Number> Vectorized for Widen<'_, T> {
    #[inline(always)]
    fn run<L: Lanes, const P: usize>(self) {
        let Widen { weights, scales, mut lines } = self;
        let inputs = lines.len();
        let panels = weights.as_chunks::<P>().0.chunks_exact(inputs.max(1));
        for (panel, numbers) in panels.enumerate() {
            for (k, line) in lines.iter_mut().enumerate() {
                let Some(place) = line.get_mut(panel * P..) else { return };
                let wide = T::line::<L, P>(numbers, k);
                let count = place.len().min(P);
                place[..count].copy_from_slice(&wide[..count]);
                let scales = scales.into_iter().flat_map(|scales| &scales[panel * P..]);
                for (place, scale) in place[..count].iter_mut().zip(scales) {
                    *place *= scale;
                }
            }
        }
    }
}
