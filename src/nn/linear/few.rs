//! Products of a few rows with panels: vectors of outputs, one number of each row at a time.

use std::borrow::Cow;
use std::ops::Range;

use super::number::Number;
use super::panel::{Part, line};
use crate::native::{self, Lanes, Vectorized};

/// Rows, arranged in blocks of as many as have their sums in registers.
pub(super) struct Rows<'a> {
    /// [rows of the block] of each input, block by block.
    numbers: Cow<'a, [f32]>,
    inputs: usize,
    blocks: Vec<Range<usize>>,
}

impl<'a> Rows<'a> {
    /// xs [rows, in]
    pub(super) fn new(xs: &'a [f32], inputs: usize) -> Self {
        let rows = xs.len() / inputs;
        // Two vectors of sums a row, with AVX-512 in 32 registers and elsewhere in 16.
        let most = native::panel_width() * 3 / 8;
        let count = rows.div_ceil(most);
        let blocks: Vec<Range<usize>> =
            (0..count).map(|block| rows * block / count..rows * (block + 1) / count).collect();
        if rows == 1 {
            return Rows { numbers: Cow::Borrowed(xs), inputs, blocks };
        }
        let mut numbers = vec![0f32; xs.len()];
        for block in &blocks {
            let target = &mut numbers[block.start * inputs..block.end * inputs];
            for (place, row) in block.clone().enumerate() {
                let own = target[place..].iter_mut().step_by(block.len());
                for (number, x) in own.zip(&xs[row * inputs..][..inputs]) {
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
        for panel in self.beside::<L, P>()..self.part.panels::<P>() {
            for block in &self.rows.blocks {
                // What is read again for the next block lies in the cache of the core by now.
                match block.len() {
                    1 => self.block::<L, P, 1>(panel, block),
                    2 => self.block::<L, P, 2>(panel, block),
                    3 => self.block::<L, P, 3>(panel, block),
                    4 => self.block::<L, P, 4>(panel, block),
                    5 => self.block::<L, P, 5>(panel, block),
                    6 => self.block::<L, P, 6>(panel, block),
                    7 => self.block::<L, P, 7>(panel, block),
                    8 => self.block::<L, P, 8>(panel, block),
                    9 => self.block::<L, P, 9>(panel, block),
                    10 => self.block::<L, P, 10>(panel, block),
                    11 => self.block::<L, P, 11>(panel, block),
                    _ => self.block::<L, P, 12>(panel, block),
                }
            }
        }
    }
}

impl<T: Number> Few<'_, T> {
    /// Up to four rows over several panels at a time: additions to the sums of one need not wait for each
    /// other, and the core waits for memory meanwhile. Each sum is what it is by itself. -> the panels that are
    /// done
    #[inline(always)]
    fn beside<L: Lanes, const P: usize>(&mut self) -> usize {
        let [block] = self.rows.blocks.as_slice() else { return 0 };
        let (panels, rows) = (self.part.panels::<P>(), block.len());
        let together = match rows {
            1 => 4,
            2 | 3 => 2,
            // Where their sums and what they are made of have registers.
            4 if P == 32 => 2,
            _ => return 0,
        };
        let done = panels / together * together;
        for first in (0..done).step_by(together) {
            match rows {
                1 => self.several::<L, P, 1, 4>(first, block),
                2 => self.several::<L, P, 2, 2>(first, block),
                3 => self.several::<L, P, 3, 2>(first, block),
                _ => self.several::<L, P, 4, 2>(first, block),
            }
        }
        done
    }

    /// A block of M rows over N panels.
    #[inline(always)]
    fn several<L: Lanes, const P: usize, const M: usize, const N: usize>(
        &mut self,
        first: usize,
        block: &Range<usize>,
    ) {
        let panels: [&[[T; P]]; N] = std::array::from_fn(|i| self.part.panel::<P>(first + i));
        let inputs = self.part.inputs;
        assert!(panels.iter().all(|lines| lines.len() == inputs));
        let mut sums = [[[0f32; P]; M]; N];
        for (k, xs) in self.rows.block::<M>(block).iter().take(inputs).enumerate() {
            for (lines, sums) in panels.iter().zip(&mut sums) {
                let line = line::<T, L, P>(lines, k);
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

    /// A block of M rows over one panel.
    #[inline(always)]
    fn block<L: Lanes, const P: usize, const M: usize>(
        &mut self,
        panel: usize,
        block: &Range<usize>,
    ) {
        let lines = self.part.panel::<P>(panel);
        let mut sums = [[0f32; P]; M];
        // No index is checked in here: with one the compiler keeps the sums in memory.
        for (k, xs) in self.rows.block::<M>(block).iter().take(lines.len()).enumerate() {
            let line = line::<T, L, P>(lines, k);
            for (sums, x) in sums.iter_mut().zip(xs) {
                L::add_product(sums, &line, *x);
            }
        }
        for (sums, row) in sums.iter().zip(block.clone()) {
            self.part.put(row, panel, sums);
        }
    }
}
