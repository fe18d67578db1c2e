//! Which row wrote what a row of the cache holds: tells what rows have in common, without looking.

/// For each row and token, the row that wrote it. A token is written by each row once, so rows with the
/// same writer of a token hold the same.
#[derive(Clone, Default)]
pub(super) struct Origins {
    /// Rows in use first; behind them what rows hold that are no longer in use.
    writers: Vec<Vec<u32>>,
    /// Rows in use.
    rows: usize,
}

impl Origins {
    /// `rows` rows write `t` tokens after `past`.
    pub(super) fn write(&mut self, rows: usize, past: usize, t: usize) {
        self.rows = rows;
        if self.writers.len() < rows {
            self.writers.resize(rows, Vec::new());
        }
        for (row, writers) in self.writers.iter_mut().take(rows).enumerate() {
            writers.truncate(past);
            writers.resize(past + t, row as u32);
        }
    }

    /// For each of the new rows that `rows` names, how many of its first tokens, of `past`, lie already
    /// where it goes.
    pub(super) fn differences(&self, rows: &[i64], past: usize) -> Vec<usize> {
        let start = |(to, from): (usize, &i64)| match self.writers.get(to) {
            Some(old) => common(old, &self.writers[*from as usize]).min(past),
            None => 0,
        };
        rows.iter().enumerate().map(start).collect()
    }

    /// Rows become copies of `rows`. What rows beyond them hold stays known if `keep`.
    pub(super) fn select(&mut self, rows: &[i64], past: usize, keep: bool) {
        let selected: Vec<Vec<u32>> = rows
            .iter()
            .map(|row| {
                let writers = &self.writers[*row as usize];
                writers[..past.min(writers.len())].to_vec()
            })
            .collect();
        self.rows = rows.len();
        if !keep || self.writers.len() <= rows.len() {
            self.writers = selected;
        } else {
            self.writers.splice(..rows.len(), selected);
        }
    }

    /// What rows from `rows` on held is gone.
    pub(super) fn forget_beyond(&mut self, rows: usize) {
        self.writers.truncate(rows);
    }
}

/// Length of the common beginning.
fn common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}
