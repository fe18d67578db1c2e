//! Where the tokens of rows lie in the block of a cache.

use tch::Tensor;

/// A token is written at the place of its own row, and stays there when other rows go on from it.
#[derive(Default)]
pub(super) struct Places {
    /// For each row and token, the row of the block that holds it.
    rows: Vec<Vec<u32>>,
    /// True if all tokens lie at the places of their own rows.
    own: bool,
}

impl Places {
    /// `rows` rows of `tokens` tokens, each at its own place.
    pub(super) fn own(rows: usize, tokens: usize) -> Self {
        Places { rows: (0..rows).map(|row| vec![row as u32; tokens]).collect(), own: true }
    }

    /// For each row in use and each token, the row of the block that holds it.
    pub(super) fn rows(&self) -> &[Vec<u32>] {
        &self.rows
    }

    pub(super) fn are_own(&self) -> bool {
        self.own
    }

    /// `rows` rows write `t` tokens.
    pub(super) fn write(&mut self, rows: usize, t: usize) {
        for (row, places) in self.rows.iter_mut().take(rows).enumerate() {
            places.resize(places.len() + t, row as u32);
        }
    }

    /// The first `tokens` of each row remain.
    pub(super) fn truncate(&mut self, tokens: usize) {
        self.rows.iter_mut().for_each(|places| places.truncate(tokens));
    }

    /// Rows go on from the pasts of the rows that `rows` names.
    pub(super) fn select(&mut self, rows: &[i64]) {
        self.rows = rows.iter().map(|row| self.rows[*row as usize].clone()).collect();
        let at_own = |(row, places): (usize, &Vec<u32>)| places.iter().all(|p| *p == row as u32);
        self.own = self.rows.iter().enumerate().all(at_own);
    }

    /// Rows [N, T] and tokens [T] of the block, which bring together what belongs together.
    pub(super) fn index(&self) -> (Tensor, Tensor) {
        let tokens = self.rows.first().map_or(0, Vec::len) as i64;
        let rows: Vec<i64> = self.rows.iter().flatten().map(|row| i64::from(*row)).collect();
        let rows = Tensor::from_slice(&rows).reshape([self.rows.len() as i64, tokens]);
        (rows, Tensor::from_slice(&(0..tokens).collect::<Vec<_>>()))
    }
}
