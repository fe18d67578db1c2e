//! How the states of an encoder lie on the picture that it saw.

use tch::{Kind, Tensor};

/// States of an image in their order: `leading` ones without a place (class, distillation and register
/// tokens), then `rows` x `columns` row by row; what comes behind has no place either.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    pub leading: i64,
    pub rows: i64,
    pub columns: i64,
    /// Height and width of what a state stands for, in pixels; the first state begins at the corner.
    pub cell: (i64, i64),
}

impl Grid {
    /// Whole patches side by side; the rest of the picture was not seen.
    pub(super) fn of_patches(leading: i64, patch: (i64, i64), height: i64, width: i64) -> Self {
        Grid { leading, rows: height / patch.0, columns: width / patch.1, cell: patch }
    }

    /// The states by columns, from left to right; the rows of a column are averaged.
    /// states [B, S, D] -> [B, columns, D]
    pub fn columns(&self, states: &Tensor) -> Tensor {
        let size = states.size();
        let placed = states.narrow(1, self.leading, self.rows * self.columns);
        placed.reshape([size[0], self.rows, self.columns, size[2]]).mean_dim(1, false, Kind::Float)
    }

    /// The last map of a Swin encoder: patches of a picture padded to whole ones, then two by two joined
    /// into one between stages, odd maps padded.
    pub(super) fn of_merged(patch: (i64, i64), stages: usize, height: i64, width: i64) -> Self {
        let merged = 1 << (stages - 1);
        let cell = (patch.0 * merged, patch.1 * merged);
        let count = |length: i64, cell: i64| (length + cell - 1) / cell;
        Grid { leading: 0, rows: count(height, cell.0), columns: count(width, cell.1), cell }
    }
}
