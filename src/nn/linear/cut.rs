//! Blocks of matrices cut into parts (`native::Parts`), in the shapes that the matrix unit of the CPU takes.

use std::ops::Range;

use super::number::{Number, wide};
use crate::native::{
    self, Cut, Lanes, Matrix, PanelTile, Parts, RowsTile, TILE_INPUTS, TILE_OUTPUTS, TILE_ROWS,
};

/// Rows of a block: two of the unit's.
pub(in crate::nn) const BLOCK: usize = 2 * TILE_ROWS;

/// Steps of so many inputs.
pub(in crate::nn) const fn steps(inputs: usize) -> usize {
    inputs.div_ceil(TILE_INPUTS)
}

/// Calls what is compiled for each way to cut: `work[T, ..](..)`, a function over T, .., who cuts and into how many
/// parts (`Parts::of_rows` or `of_panel`).
macro_rules! in_parts {
    ($parts:expr, $count:ident, $lanes:ident, $($work:ident)::+ [$($of:ident),*] ($($given:expr),*)) => {
        match ($parts, $parts.$count()) {
            ($crate::native::Parts::Whole, _) => {
                $($work)::+::<$($of,)* $crate::native::Uncut, 2>($($given),*)
            }
            (_, 1) => $($work)::+::<$($of,)* $lanes, 1>($($given),*),
            (_, 2) => $($work)::+::<$($of,)* $lanes, 2>($($given),*),
            _ => $($work)::+::<$($of,)* $lanes, 3>($($given),*),
        }
    };
}
pub(in crate::nn) use in_parts;

/// Some rows of a matrix, filled up with zeros to pairs of blocks.
/// -> [block of 16][step][part]
#[inline(always)]
pub(in crate::nn) fn cut_rows<T: Number, L: Lanes>(
    parts: Parts,
    matrix: &Matrix<T>,
    rows: &Range<usize>,
    inner: &Range<usize>,
    tiles: &mut [RowsTile],
) {
    in_parts!(parts, of_rows, L, rows_in[T, L](matrix, rows, inner, tiles));
}

/// Some rows of a matrix, which are the outputs of panels. -> [panel][step][part]
#[inline(always)]
pub(in crate::nn) fn cut_panels<T: Number, L: Lanes>(
    parts: Parts,
    matrix: &Matrix<T>,
    columns: &Range<usize>,
    inner: &Range<usize>,
    tiles: &mut [PanelTile],
) {
    in_parts!(parts, of_panel, L, panels_in[T, L](matrix, columns, inner, tiles));
}

/// `cut_rows` in N parts.
#[inline(always)]
fn rows_in<T: Number, L: Lanes, C: Cut, const N: usize>(
    matrix: &Matrix<T>,
    rows: &Range<usize>,
    inner: &Range<usize>,
    tiles: &mut [RowsTile],
) {
    let blocks = (rows.start..rows.start + rows.len().next_multiple_of(BLOCK)).step_by(TILE_ROWS);
    let mut targets = tiles.as_chunks_mut::<N>().0.iter_mut();
    let mut squares = [[[0; 16]; 16]; N];
    for row in blocks {
        for k in inner.clone().step_by(TILE_INPUTS) {
            let Some(target) = targets.next() else { return };
            let (rows, inner) = (row..rows.end, k..inner.end);
            if matrix.transposed {
                cut::<T, L, C, N, _>(matrix, rows, inner, &mut squares, |square, i| &mut square[i]);
                for (tile, square) in target.iter_mut().zip(&squares) {
                    L::turn(square, tile.0.as_flattened_mut(), TILE_INPUTS / 2);
                }
            } else {
                cut::<T, L, C, N, _>(matrix, rows, inner, target, |tile, i| &mut tile.0[i]);
            }
        }
    }
}

/// `cut_panels` in N parts.
#[inline(always)]
fn panels_in<T: Number, L: Lanes, C: Cut, const N: usize>(
    matrix: &Matrix<T>,
    columns: &Range<usize>,
    inner: &Range<usize>,
    tiles: &mut [PanelTile],
) {
    let mut targets = tiles.as_chunks_mut::<N>().0.iter_mut();
    let mut squares = [[[0; 16]; 16]; N];
    for column in columns.clone().step_by(TILE_OUTPUTS) {
        for k in inner.clone().step_by(TILE_INPUTS) {
            let Some(target) = targets.next() else { return };
            for half in [0, 1] {
                let own = (column + half * 16).min(columns.end)..columns.end;
                let inner = k..inner.end;
                if matrix.transposed {
                    cut::<T, L, C, N, _>(matrix, own, inner, target, |tile, i| {
                        &mut tile.0[i].as_chunks_mut::<16>().0[half]
                    });
                } else {
                    cut::<T, L, C, N, _>(matrix, own, inner, &mut squares, |square, i| {
                        &mut square[i]
                    });
                    for (tile, square) in target.iter_mut().zip(&squares) {
                        let half = &mut tile.0.as_flattened_mut()[half * 16..];
                        L::turn(square, half, TILE_OUTPUTS);
                    }
                }
            }
        }
    }
}

/// The parts of 16 rows and 32 inner places, or of as many as there are, with zeros around them, line by line:
/// those of a row, or where the matrix is transposed those of a pair of inner places. `line` is the place of
/// line i of a part. What is cut next is fetched meanwhile, as the CPU by itself does not along columns.
#[inline(always)]
fn cut<T: Number, L: Lanes, C: Cut, const N: usize, S>(
    matrix: &Matrix<T>,
    rows: Range<usize>,
    inner: Range<usize>,
    targets: &mut [S; N],
    line: impl Fn(&mut S, usize) -> &mut [u32; 16],
) {
    let (height, width) = (rows.len().min(16), inner.len().min(TILE_INPUTS));
    for i in 0..16 {
        let parts = if matrix.transposed {
            let numbers = |k: usize| match k < width && height > 0 {
                true => {
                    let start = (inner.start + k) * matrix.apart + rows.start;
                    native::prefetch(matrix.values, start + 16);
                    native::prefetch(matrix.values, start + TILE_INPUTS * matrix.apart);
                    wide::<T, L, 16>(&matrix.values[start..start + height])
                }
                false => [0.0; 16],
            };
            let [first, second] = C::pair(i);
            C::interleaved::<N>(&numbers(first), &numbers(second))
        } else if i < height {
            let start = (rows.start + i) * matrix.apart + inner.start;
            fetch_line(matrix.values, start + TILE_ROWS * matrix.apart);
            C::in_pairs::<N>(&wide::<T, L, TILE_INPUTS>(&matrix.values[start..start + width]))
        } else {
            [[0; 16]; N]
        };
        for (target, parts) in targets.iter_mut().zip(parts) {
            *line(target, i) = parts;
        }
    }
}

/// Fetches the 32 numbers from `index` on.
#[inline(always)]
pub(in crate::nn) fn fetch_line<T>(numbers: &[T], index: usize) {
    native::prefetch(numbers, index);
    native::prefetch(numbers, index + TILE_OUTPUTS / 2);
}
