//! Products of a few rows with panels: vectors of outputs, one number of each row at a time.

use std::borrow::Cow;
use std::ops::Range;

use super::number::Number;
use super::panel::{Part, ahead, line};
use super::pieces::share;
use crate::native::{self, Lanes, Vectorized};

/// Rows of inputs, between which there may be other numbers.
#[derive(Clone, Copy)]
pub(super) struct Lines<'a> {
    pub numbers: &'a [f32],
    /// From where a row begins to the next one.
    pub apart: usize,
    pub inputs: usize,
}

impl<'a> Lines<'a> {
    fn row(&self, row: usize) -> &'a [f32] {
        &self.numbers[row * self.apart..][..self.inputs]
    }
}

/// Rows, arranged in blocks of as many as have their sums in registers.
pub(super) struct Rows<'a> {
    /// [rows of the block] of each input, block by block.
    numbers: Cow<'a, [f32]>,
    inputs: usize,
    blocks: Vec<Range<usize>>,
}

impl<'a> Rows<'a> {
    pub(super) fn new(xs: Lines<'a>, rows: usize) -> Self {
        let inputs = xs.inputs;
        // Two vectors of sums a row, with AVX-512 in 32 registers and elsewhere in 16.
        let most = native::panel_width() * 3 / 8;
        let count = rows.div_ceil(most);
        let blocks: Vec<Range<usize>> =
            (0..count).map(|block| share(&(0..rows), block, count)).collect();
        if rows == 1 {
            return Rows { numbers: Cow::Borrowed(xs.row(0)), inputs, blocks };
        }
        let mut numbers = vec![0f32; rows * inputs];
        for block in &blocks {
            let target = &mut numbers[block.start * inputs..block.end * inputs];
            for (place, row) in block.clone().enumerate() {
                let own = target[place..].iter_mut().step_by(block.len());
                for (number, x) in own.zip(xs.row(row)) {
                    *number = *x;
                }
            }
        }
        Rows { numbers: Cow::Owned(numbers), inputs, blocks }
    }

    /// The inputs of a block of M rows.
    #[inline(always)]
    fn block<const M: usize>(&self, block: &Range<usize>) -> &[[f32; M]] {
        self.numbers[block.start * self.inputs..block.end * self.inputs].as_chunks::<M>().0
    }
}

/// The share of one thread.
pub(super) struct Few<'a, T> {
    pub part: Part<'a, T>,
    pub rows: &'a Rows<'a>,
}

impl<T: Number> Vectorized for Few<'_, T> {
    #[inline(always)]
    fn run<L: Lanes, const P: usize>(mut self) {
        let (rows, panels) = (self.rows, self.part.panels::<P>());
        // Several panels at a time: additions to the sums of one need not wait for each other, and the core
        // waits for memory meanwhile. As many as have their sums and what they are made of in registers.
        let together = match rows.blocks.as_slice() {
            [one] if one.len() == 1 => 4,
            [one] if one.len() <= 3 || (one.len() == 4 && P == 32) => 2,
            _ => 1,
        };
        let mut first = 0;
        while first < panels {
            let count = if panels - first < together { 1 } else { together };
            for block in &rows.blocks {
                // What is read again for the next block lies in the cache of the core by now.
                match (block.len(), count) {
                    (1, 4) => self.block::<L, P, 1, 4>(first, block),
                    (2, 2) => self.block::<L, P, 2, 2>(first, block),
                    (3, 2) => self.block::<L, P, 3, 2>(first, block),
                    (4, 2) => self.block::<L, P, 4, 2>(first, block),
                    (1, _) => self.block::<L, P, 1, 1>(first, block),
                    (2, _) => self.block::<L, P, 2, 1>(first, block),
                    (3, _) => self.block::<L, P, 3, 1>(first, block),
                    (4, _) => self.block::<L, P, 4, 1>(first, block),
                    (5, _) => self.block::<L, P, 5, 1>(first, block),
                    (6, _) => self.block::<L, P, 6, 1>(first, block),
                    (7, _) => self.block::<L, P, 7, 1>(first, block),
                    (8, _) => self.block::<L, P, 8, 1>(first, block),
                    (9, _) => self.block::<L, P, 9, 1>(first, block),
                    (10, _) => self.block::<L, P, 10, 1>(first, block),
                    (11, _) => self.block::<L, P, 11, 1>(first, block),
                    _ => self.block::<L, P, 12, 1>(first, block),
                }
            }
            first += count;
        }
    }
}

impl<T: Number> Few<'_, T> {
    /// A block of M rows over N panels; each sum is what it is by itself.
    #[inline(always)]
    fn block<L: Lanes, const P: usize, const M: usize, const N: usize>(
        &mut self,
        first: usize,
        block: &Range<usize>,
    ) {
        let panels: [&[[T; P]]; N] = std::array::from_fn(|i| self.part.panel::<P>(first + i));
        let inputs = self.part.inputs;
        // No index is checked further on: with one the compiler keeps the sums in memory.
        assert!(panels.iter().all(|lines| lines.len() == inputs));
        // With more rows the core has too much to do to look far ahead by itself.
        let told = M > 1 || !native::reads_ahead();
        let mut sums = [[[0f32; P]; M]; N];
        for (k, xs) in self.rows.block::<M>(block).iter().take(inputs).enumerate() {
            // Behind a panel's end goes on what is read after it: not the next panel, which is at work.
            let next = ahead::<T, P>(k);
            let next = if next < inputs { next } else { next + (N - 1) * inputs };
            for (lines, sums) in panels.iter().zip(&mut sums) {
                let line =
                    if told { line::<T, L, P>(lines, k, next) } else { T::line::<L, P>(lines, k) };
                for (sums, x) in sums.iter_mut().zip(xs) {
                    L::add_product(sums, &line, *x);
                }
            }
        }
        for (panel, sums) in (first..).zip(&sums) {
            for (sums, row) in sums.iter().zip(block.clone()) {
                self.part.put(row, panel, sums);
            }
        }
    }
}
