//! Products of many rows with panels of bf16 or of whole numbers of 8 bits, which bf16 holds exactly, by
//! the matrix unit of the CPU. Inputs are sums of two bf16, so the result is that of f32 but for 2⁻¹⁷ of
//! each input.

use super::number::Number;
use super::panel::{Part, line};
use crate::native::{
    self, Lanes, PanelStep, RowsStep, Sums, TILE_INPUTS, TILE_OUTPUTS, TILE_ROWS, Vectorized,
};

/// Rows from which on the matrix unit is faster than vectors are: more than one block of `few`.
const MANY: usize = 13;

/// Steps of a panel that are widened at a time: they stay in the innermost cache.
const CHUNK: usize = 8;

/// True where this CPU serves so many rows better here than `few` does.
pub(super) fn is_better(rows: usize) -> bool {
    rows >= MANY && native::has_tiles() && native::panel_width() == TILE_OUTPUTS
}

/// Rows in blocks of 16; the last one is filled up with zeros.
pub(super) struct Rows {
    /// [block][step]
    steps: Vec<RowsStep>,
    /// Steps of a block.
    count: usize,
    rows: usize,
}

impl Rows {
    /// xs [rows, in]
    pub(super) fn new(xs: &[f32], inputs: usize) -> Self {
        let (rows, count) = (xs.len() / inputs, inputs.div_ceil(TILE_INPUTS));
        let mut steps = vec![RowsStep::ZERO; rows.div_ceil(TILE_ROWS) * count];
        native::vectorize(Split { xs, inputs, steps: &mut steps });
        Rows { steps, count, rows }
    }
}

/// Makes blocks of rows.
struct Split<'a> {
    xs: &'a [f32],
    inputs: usize,
    steps: &'a mut [RowsStep],
}

impl Vectorized for Split<'_> {
    #[inline(always)]
    fn run<L: Lanes, const P: usize>(self) {
        let count = self.inputs.div_ceil(TILE_INPUTS);
        let blocks = self.xs.chunks(TILE_ROWS * self.inputs);
        for (rows, steps) in blocks.zip(self.steps.chunks_exact_mut(count)) {
            for (row, xs) in rows.chunks_exact(self.inputs).enumerate() {
                for (xs, step) in xs.chunks(TILE_INPUTS).zip(steps.iter_mut()) {
                    step.set(row, xs);
                }
            }
        }
    }
}

/// The share of one thread.
pub(super) struct Many<'a, T> {
    pub part: Part<'a, T>,
    pub rows: &'a Rows,
}

impl<T: Number> Vectorized for Many<'_, T> {
    #[inline(always)]
    fn run<L: Lanes, const P: usize>(mut self) {
        let steps = self.rows.count;
        let blocks: Vec<&[RowsStep]> = self.rows.steps.chunks_exact(steps).collect();
        let mut sums = vec![Sums::ZERO; blocks.len()];
        let mut wide = vec![PanelStep::ZERO; CHUNK.min(steps)];
        for panel in 0..self.part.panels::<P>() {
            sums.fill(Sums::ZERO);
            let lines = self.part.panel::<P>(panel);
            for (chunk, lines) in lines.chunks(CHUNK * TILE_INPUTS).enumerate() {
                let wide = &mut wide[..lines.len().div_ceil(TILE_INPUTS)];
                widen::<T, L, P>(lines, wide);
                for (blocks, sums) in blocks.chunks(2).zip(sums.chunks_mut(2)) {
                    let of = |rows: &usize| &blocks[*rows][chunk * CHUNK..][..wide.len()];
                    match sums.len() {
                        1 => native::add_tiles(&[of(&0)], wide, sums),
                        _ => native::add_tiles(&[of(&0), of(&1)], wide, sums),
                    }
                }
            }
            for row in 0..self.rows.rows {
                self.part.put(row, panel, &sums[row / TILE_ROWS].0[row % TILE_ROWS]);
            }
        }
    }
}

/// Lines of a panel as pairs of bf16.
#[inline(always)]
fn widen<T: Number, L: Lanes, const P: usize>(lines: &[[T; P]], steps: &mut [PanelStep]) {
    for (step, target) in steps.iter_mut().enumerate() {
        for (pair, target) in target.0.iter_mut().enumerate() {
            let k = step * TILE_INPUTS + pair * 2;
            let number = |k| match k < lines.len() {
                true => line::<T, L, P>(lines, k),
                false => [0.0; P],
            };
            let (first, second) = (number(k), number(k + 1));
            for ((place, first), second) in target.iter_mut().zip(first).zip(second) {
                *place = (first.to_bits() >> 16) | (second.to_bits() & 0xffff_0000);
            }
        }
    }
}
