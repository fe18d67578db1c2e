//! A result divided among threads.

use std::ops::Range;

/// Some rows and columns of a result.
pub(super) struct Piece<'a> {
    pub rows: Range<usize>,
    pub columns: Range<usize>,
    /// The piece's columns of each of its rows.
    pub out: Vec<&'a mut [f32]>,
}

impl<'a> Piece<'a> {
    /// All of a result [M, N].
    pub(super) fn whole(out: &'a mut [f32], width: usize) -> Self {
        let out: Vec<&mut [f32]> = out.chunks_exact_mut(width).collect();
        Piece { rows: 0..out.len(), columns: 0..width, out }
    }
}

/// Cuts a result [M, N] between its rows and its columns at these numbers, the first and last of which are its own
/// edges: `down` cuts the rows and `across` the columns.
pub(super) fn pieces<'a>(out: &'a mut [f32], down: &[usize], across: &[usize]) -> Vec<Piece<'a>> {
    let width = across.last().copied().unwrap_or(0);
    debug_assert_eq!(out.len(), width * down.last().copied().unwrap_or(0));
    let mut found: Vec<Piece<'a>> = Vec::with_capacity((down.len() - 1) * (across.len() - 1));
    let mut rest = out;
    for rows in down.windows(2).map(|edges| edges[0]..edges[1]) {
        let (own, others) = std::mem::take(&mut rest).split_at_mut(rows.len() * width);
        rest = others;
        let first = found.len();
        found.extend(across.windows(2).map(|edges| Piece {
            rows: rows.clone(),
            columns: edges[0]..edges[1],
            out: Vec::with_capacity(rows.len()),
        }));
        for mut row in own.chunks_exact_mut(width.max(1)) {
            for piece in &mut found[first..] {
                let (own, rest) = row.split_at_mut(piece.columns.len());
                piece.out.push(own);
                row = rest;
            }
        }
    }
    found
}

/// Edges of so many parts of `size`, all but the last of which are whole units.
pub(in crate::nn) fn edges(size: usize, unit: usize, parts: usize) -> Vec<usize> {
    (0..=parts).map(|part| (size.div_ceil(unit) * part / parts * unit).min(size)).collect()
}

/// Part `part` of so many parts of a range, all of about one size.
pub(super) fn share(all: &Range<usize>, part: usize, parts: usize) -> Range<usize> {
    all.start + all.len() * part / parts..all.start + all.len() * (part + 1) / parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_is_in_one_piece() {
        assert_eq!(edges(100, 32, 3), [0, 32, 64, 100]);
        for (rows, columns) in [(1, 1), (70, 45), (33, 100)] {
            let mut all = vec![0.0; rows * columns];
            let (down, across) = (edges(rows, 16, 2), edges(columns, 32, 3));
            for piece in pieces(&mut all, &down, &across) {
                assert_eq!(piece.out.len(), piece.rows.len());
                for (row, place) in piece.rows.zip(piece.out) {
                    assert_eq!(place.len(), piece.columns.len());
                    for (column, place) in piece.columns.clone().zip(place) {
                        *place += (row * columns + column) as f32;
                    }
                }
            }
            assert!(all.iter().enumerate().all(|(i, x)| *x == i as f32), "{rows}x{columns}");
        }
    }
}
