//! Rows that a thread takes through several products, one after the other: what is between them stays in its own
//! cache, and the threads meet once.

use std::cell::RefCell;
use std::ops::Range;

use super::number::Aligned;
use super::panel::Panels;
use super::pieces::edges;
use crate::native;

thread_local! {
    /// What is between the products: kept, as it is as large for the next ones. Lines of a cache, for a vector that
    /// lies in two of them is written several times as slowly.
    static ROOM: RefCell<Option<Aligned<f32>>> = const { RefCell::new(None) };
}

/// How rows are divided among the threads.
#[derive(Clone, Copy)]
pub(super) struct Share {
    /// So many are computed together.
    pub unit: usize,
    /// A task has no more.
    pub most: usize,
}

impl Panels {
    /// Divides the rows of `out`, `width` numbers each, among the threads, as this product and others like it have
    /// it. `work` is told some of the rows, the places of their results, and room for `between` numbers a row.
    pub fn divide_rows(
        &self,
        out: &mut [f32],
        width: usize,
        between: usize,
        work: impl Fn(Range<usize>, &mut [f32], &mut [f32]) + Send + Sync,
    ) {
        divide(self.share(between), out, width, between, work);
    }
}

/// Some rows of `width` numbers.
pub fn rows_of<'a>(xs: &'a [f32], rows: &Range<usize>, width: usize) -> &'a [f32] {
    &xs[rows.start * width..rows.end * width]
}

fn divide(
    Share { unit, most }: Share,
    out: &mut [f32],
    width: usize,
    between: usize,
    work: impl Fn(Range<usize>, &mut [f32], &mut [f32]) + Send + Sync,
) {
    let rows = out.len() / width.max(1);
    let threads = native::thread_count();
    // No thread waits for the others.
    let parts = rows.div_ceil(most).max(1).next_multiple_of(threads);
    let (mut tasks, mut rest) = (Vec::with_capacity(parts), out);
    for rows in edges(rows, unit, parts).windows(2).map(|edges| edges[0]..edges[1]) {
        let (own, others) = std::mem::take(&mut rest).split_at_mut(rows.len() * width);
        rest = others;
        if !rows.is_empty() {
            tasks.push((rows, own));
        }
    }
    native::parallel(tasks, |(rows, out)| {
        // Taken out, not lent: what a product keeps for itself is another room.
        let size = rows.len() * between;
        let room = ROOM.take().filter(|room| room.len() >= size);
        let mut room = room.unwrap_or_else(|| Aligned::zeros(size));
        work(rows, out, &mut room[..size]);
        ROOM.set(Some(room));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_is_done_once() {
        for rows in [0, 1, 23, 97, 578, 5000] {
            let mut out = vec![0.0; rows * 3];
            let share = Share { unit: 12, most: 100 };
            divide(share, &mut out, 3, 700, |rows, out, room| {
                assert!(rows.len() <= 100 + 12 && rows.start.is_multiple_of(12));
                assert_eq!((room.len(), out.len()), (rows.len() * 700, rows.len() * 3));
                for (row, place) in rows.zip(out.chunks_exact_mut(3)) {
                    place.iter_mut().for_each(|place| *place += row as f32 + 1.0);
                }
            });
            assert!(out.iter().enumerate().all(|(i, x)| *x == (i / 3) as f32 + 1.0), "{rows}");
        }
    }
}
