//! Bringing matrices into panels.

use super::number::{Aligned, Number, wide};
use super::scales::{Largest, scale};
use crate::native::{self, Lanes, Matrix, Vectorized};

/// Bytes of a matrix that are read at a time while it is packed.
pub(super) const PIECE: usize = 32 << 20;

/// Panels that one thread packs at a time: of a matrix stored as [in, out] so much lies together.
const GROUP: usize = 4;

/// W [out, in] -> panels of [in][P], the last of which is filled up with zeros. `scales` [out]: found, and the
/// numbers divided by them. `between` is called between two pieces of W.
pub(super) fn pack<T: Number>(
    matrix: Matrix<f32>,
    mut scales: Option<&mut [f32]>,
    between: impl Fn(),
) -> Aligned<T> {
    let width = native::panel_width();
    let size = width * matrix.inner;
    let mut packed = Aligned::lasting(size_of_matrix(matrix.rows, matrix.inner));
    let mut groups = Vec::new();
    for (group, target) in packed.chunks_mut(GROUP * size).enumerate() {
        let first = group * GROUP * width;
        let count = (GROUP * width).min(matrix.rows - first);
        let scales = scales.as_mut().and_then(|scales| scales.split_off_mut(..count));
        groups.push(Pack { matrix, first, target, scales });
    }
    let piece = (PIECE / (GROUP * size * size_of::<f32>())).max(1);
    while !groups.is_empty() {
        let rest = groups.split_off(piece.min(groups.len()));
        native::parallel(std::mem::replace(&mut groups, rest), native::vectorize);
        if !groups.is_empty() {
            between();
        }
    }
    packed
}

/// Numbers of a matrix [out, in] in panels.
pub(super) fn size_of_matrix(outputs: usize, inputs: usize) -> usize {
    outputs.next_multiple_of(native::panel_width()) * inputs
}

/// Writes all panels of W [out, in] into `target`, in this thread.
pub(super) fn write<T: Number>(matrix: Matrix<f32>, target: &mut [T]) {
    native::vectorize(Pack { matrix, first: 0, target, scales: None });
}

/// Writes some panels, whose first output is `first`.
struct Pack<'a, T> {
    /// W [out, in]
    matrix: Matrix<'a, f32>,
    first: usize,
    target: &'a mut [T],
    /// Of their outputs.
    scales: Option<&'a mut [f32]>,
}

impl<T: Number> Vectorized for Pack<'_, T> {
    #[inline(always)]
    fn run<L: Lanes, const P: usize>(mut self) {
        if let Some(scales) = self.scales.take() {
            for (panel, scales) in scales.chunks_mut(P).enumerate() {
                let first = self.first + panel * P;
                Largest { matrix: self.matrix, first, found: scales }.run::<L, P>();
                for place in scales {
                    *place = scale(*place);
                }
            }
            self.scales = Some(scales);
        }
        if self.matrix.transposed { self.lines::<L, P>() } else { self.squares::<L, P>() }
    }
}

impl<T: Number> Pack<'_, T> {
    /// The scales of panel `panel`: 1 where there are none.
    #[inline(always)]
    fn scales<const P: usize>(&self, panel: usize) -> [f32; P] {
        let mut own = [1f32; P];
        if let Some(all) = self.scales.as_deref() {
            let all = &all[panel * P..];
            let count = all.len().min(P);
            own[..count].copy_from_slice(&all[..count]);
        }
        own
    }

    /// Lines of outputs as they lie.
    #[inline(always)]
    fn lines<L: Lanes, const P: usize>(self) {
        let Matrix { values, rows: outputs, inner: inputs, apart, .. } = self.matrix;
        let panels = self.target.len() / (P * inputs);
        for panel in 0..panels {
            // One line of all panels is fetched with the first of them.
            let (scales, divide) = (self.scales::<P>(panel), self.scales.is_some());
            let first = self.first + panel * P;
            let count = P.min(outputs - first);
            let target = &mut self.target[panel * P * inputs..][..P * inputs];
            for (input, target) in target.as_chunks_mut::<P>().0.iter_mut().enumerate() {
                let start = input * apart + first;
                if panel == 0 {
                    (0..GROUP).for_each(|next| fetch::<P>(values, start + 16 * apart + next * P));
                }
                let line = wide::<f32, L, P>(&values[start..start + count]);
                *target = narrow::<T, L, P>(line, &scales, divide);
            }
            T::arrange(target.as_chunks_mut::<P>().0);
        }
    }

    /// Squares of 16 outputs and 16 inputs are turned over.
    #[inline(always)]
    fn squares<L: Lanes, const P: usize>(self) {
        let Matrix { values, rows: outputs, inner: inputs, apart, .. } = self.matrix;
        for panel in 0..self.target.len() / (P * inputs) {
            let (scales, divide) = (self.scales::<P>(panel), self.scales.is_some());
            let first = self.first + panel * P;
            let target = &mut self.target[panel * P * inputs..][..P * inputs];
            for (square, target) in target.chunks_mut(16 * P).enumerate() {
                let input = square * 16;
                let count = 16.min(inputs - input);
                let mut lines = [[0u32; P]; 16];
                for half in 0..P / 16 {
                    let mut square = [[0u32; 16]; 16];
                    let own = first + half * 16;
                    let height = 16.min(outputs.saturating_sub(own));
                    for (i, place) in square.iter_mut().take(height).enumerate() {
                        let start = (own + i) * apart + input;
                        native::prefetch(values, start + P * apart);
                        let row = wide::<f32, L, 16>(&values[start..start + count]);
                        for (bits, x) in place.iter_mut().zip(&row) {
                            *bits = x.to_bits();
                        }
                    }
                    L::turn(&square, &mut lines.as_flattened_mut()[half * 16..], P);
                }
                for (line, target) in lines.iter().zip(target.as_chunks_mut::<P>().0) {
                    let mut numbers = [0f32; P];
                    for (number, bits) in numbers.iter_mut().zip(line) {
                        *number = f32::from_bits(*bits);
                    }
                    *target = narrow::<T, L, P>(numbers, &scales, divide);
                }
            }
            T::arrange(target.as_chunks_mut::<P>().0);
        }
    }
}

/// A line divided by its scales, if it has any.
#[inline(always)]
pub(super) fn narrow<T: Number, L: Lanes, const P: usize>(
    mut line: [f32; P],
    scales: &[f32; P],
    divide: bool,
) -> [T; P] {
    if divide {
        for j in 0..P {
            line[j] /= scales[j];
        }
    }
    T::narrow::<L, P>(line)
}

/// Fetches the P numbers from `index` on.
#[inline(always)]
fn fetch<const P: usize>(numbers: &[f32], index: usize) {
    (0..P).step_by(16).for_each(|i| native::prefetch(numbers, index + i));
}
