//! Gradients of tables of vectors, row by row.
//!
//! libtorch's gradient of an embedding is as large as the table and zero but for the rows that were looked
//! up; where an output layer shares the table, it is added to the gradient of that. While `watch` runs, the
//! rows that are looked up are leaves of the graph instead, and their gradients are added where they belong.
//! On a GPU, where sums of many threads have no fixed order, it stays with libtorch's way.

use std::cell::RefCell;

use tch::{Device, Tensor, no_grad};

use crate::native;

thread_local! {
    static LOOKUPS: RefCell<Option<Vec<Lookup>>> = const { RefCell::new(None) };
}

/// Rows that were looked up.
pub struct Lookup {
    /// [V, D]
    table: Tensor,
    /// [..]
    ids: Tensor,
    /// The row that gets no gradient.
    padding_idx: Option<i64>,
    /// A leaf, [.., D]
    pub rows: Tensor,
}

/// What a panic interrupts must not catch what comes after it.
struct Watching;

impl Drop for Watching {
    fn drop(&mut self) {
        LOOKUPS.take();
    }
}

/// Runs a forward pass; gives the lookups whose gradients are asked for and added apart from the tables'.
pub fn watch<T>(forward: impl FnOnce() -> T) -> (T, Vec<Lookup>) {
    LOOKUPS.set(Some(Vec::new()));
    let watching = Watching;
    let result = forward();
    let lookups = LOOKUPS.take().unwrap_or_default();
    drop(watching);
    (result, lookups)
}

/// The rows by way of a leaf, in `watch` and where this is less work. table [V, D], ids [..] -> [.., D]
pub(super) fn rows(table: &Tensor, ids: &Tensor, padding_idx: Option<i64>) -> Option<Tensor> {
    LOOKUPS.with_borrow_mut(|lookups| {
        let lookups = lookups.as_mut()?;
        let larger = table.size()[0] > ids.numel() as i64;
        if !(larger && table.requires_grad() && table.is_leaf() && table.device() == Device::Cpu) {
            return None;
        }
        let rows = no_grad(|| Tensor::embedding(table, ids, -1, false, false));
        let rows = rows.set_requires_grad(true);
        let (table, ids) = (table.shallow_clone(), ids.shallow_clone());
        // Not the leaf itself: whoever gets it may change it in place.
        let copy = rows.g_mul_scalar(1.0);
        lookups.push(Lookup { table, ids, padding_idx, rows });
        Some(copy)
    })
}

impl Lookup {
    /// True if the rows are those of this table.
    pub fn is_of(&self, table: &Tensor) -> bool {
        self.table.data_ptr() == table.data_ptr()
    }

    /// Adds the gradient of the rows, [.., D], to that of the table, [V, D], in the order of the ids.
    pub fn add(&self, gradient: &Tensor, sum: &mut Tensor) {
        no_grad(|| {
            let d = sum.size()[1];
            let ids = self.ids.flatten(0, -1);
            // A padding row that is left alone is looked up like any other.
            let counted = self.padding_idx.map(|padding| ids.ne(padding).nonzero().squeeze_dim(1));
            let pick = |xs: Tensor| match &counted {
                Some(places) => xs.index_select(0, places),
                None => xs,
            };
            let gradient = pick(gradient.reshape([-1, d])).contiguous(); // [n, D]
            let ids = pick(ids); // [n]
            if !sum.is_contiguous() {
                *sum = sum.contiguous();
            }
            let numbers: Vec<i64> = Vec::try_from(&ids).unwrap_or_default();
            let added = native::with_floats([&*sum, &gradient], |[sum, gradient]| {
                let d = d as usize;
                for (id, row) in numbers.iter().zip(gradient.chunks_exact(d)) {
                    let place = &mut sum[*id as usize * d..][..d];
                    place.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
                }
            });
            if added.is_none() {
                let _ = sum.index_add_(0, &ids, &gradient);
            }
        });
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tch::Kind;

    use super::*;
    use crate::nn::Embedding;

    /// A table of 6 rows that an output layer shares, looked up at 5 places, two of them alike and two padding.
    fn gradient(kind: Kind, padding_idx: Option<i64>, apart: bool) -> Tensor {
        let table = (Tensor::arange(18, (kind, Device::Cpu)) * 0.37).sin().reshape([6, 3]);
        let table = Embedding::new(table.set_requires_grad(true), padding_idx);
        let ids = Tensor::from_slice(&[4i64, 1, 4, 0, 1]);
        let forward = || table.forward(&ids).tanh().matmul(&table.weight.tr()).square().sum(kind);
        if !apart {
            return Tensor::run_backward(&[&forward()], &[&table.weight], false, false).remove(0);
        }
        let (loss, lookups) = watch(forward);
        assert_eq!(lookups.len(), 1);
        assert!(lookups[0].is_of(&table.weight));
        let inputs = [&table.weight, &lookups[0].rows];
        let mut found = Tensor::run_backward(&[&loss], &inputs, false, false);
        let rows = found.remove(1);
        lookups[0].add(&rows, &mut found[0]);
        found.remove(0)
    }

    #[test]
    fn sums_are_those_of_the_whole_table() {
        for kind in [Kind::Float, Kind::Double] {
            for padding_idx in [None, Some(1)] {
                let expected = gradient(kind, padding_idx, false);
                let found = gradient(kind, padding_idx, true);
                let apart = (&found - &expected).abs().max().double_value(&[]);
                assert!(apart < 1e-6 * expected.abs().max().double_value(&[]), "{apart:e}");
            }
        }
        let with = gradient(Kind::Double, None, true);
        assert!(!with.allclose(&gradient(Kind::Double, Some(1), true), 1e-3, 1e-3, false));
    }

    #[test]
    fn small_tables_and_forward_passes_that_nobody_watches_stay_as_they_are() {
        let table = Tensor::ones([2, 3], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let (one, many) = (Tensor::from_slice(&[1i64]), Tensor::from_slice(&[1i64, 0]));
        assert!(rows(&table, &one, None).is_none());
        let (found, lookups) = watch(|| [&one, &many].map(|ids| rows(&table, ids, None).is_some()));
        assert_eq!((found, lookups.len()), ([true, false], 1));
        let failed = std::panic::catch_unwind(|| watch(|| panic!("no memory")));
        assert!(failed.is_err() && rows(&table, &one, None).is_none());
    }
}
