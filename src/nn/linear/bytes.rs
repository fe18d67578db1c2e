//! Products with weights of 8 bits where inputs are whole numbers too: of 16 bits as two digits, or of 8.
//!
//! An input is the number that its row's scale makes of a whole one. Sums of whole numbers are exact, so what is
//! lost is the rounding of the inputs alone: of 16 bits a share of 2⁻¹⁶ of the row's largest, which is that of
//! f32 beside the rounding of the weights; of 8 bits a share of 2⁻⁸ of its range, for twice the speed.

#![allow(clippy::needless_range_loop)] // plain loops over fixed sizes become vectors

use std::cell::RefCell;

use super::cut::fetch_line;
use super::digits::{Inputs, Rows};
use super::number::Aligned;
use super::panel::parts_for;
use super::pieces::{Piece, edges, pieces};
use super::rows::Share;
use super::tiled::{Finish, Line, copy_line};
use crate::native::{
    self, ByteProducts, Lanes, QUAD_INPUTS, Quad, TILE_OUTPUTS, Vectorized, WholeSums,
};

/// Digits of a row whose sums are in registers at a time.
const MOST: usize = 12;

/// Rows up to which weights are read but once: threads share the outputs, not the rows.
const FEW: usize = 48;

/// Rows of a task at most, so that their digits stay in the cache of a core.
const TASK_ROWS: usize = 192;

/// Inputs up to which no sum of products is too large for 32 bits.
pub(super) const MOST_INPUTS: usize = 1 << 16;

/// How rows are divided where so many numbers a row are kept between products: 1 MB of them, what a core's own
/// cache holds (measured).
pub(super) fn share(between: usize) -> Share {
    const BETWEEN: usize = 1 << 18;
    Share { unit: MOST, most: (BETWEEN / between).clamp(FEW, TASK_ROWS) }
}

thread_local! {
    /// What the inputs become: kept, as it is as large for the next product.
    static DIGITS: RefCell<Vec<[u8; QUAD_INPUTS]>> = const { RefCell::new(Vec::new()) };
}

/// A matrix [out, in] of whole numbers of 8 bits.
pub(super) struct Bytes {
    unit: ByteProducts,
    /// [panel][quad][output][4]
    quads: Aligned<i8>,
    /// Of the numbers of each output, to the end of the last panel.
    sums: Vec<WholeSums>,
    /// [out]
    scales: Vec<f32>,
    inputs: usize,
}

impl Bytes {
    /// Of panels of [in][32] and the scale of each output.
    pub(super) fn new(
        unit: ByteProducts,
        numbers: Aligned<i8>,
        inputs: usize,
        scales: Vec<f32>,
    ) -> Self {
        let quads = inputs.div_ceil(QUAD_INPUTS);
        let size = quads * size_of::<Quad>();
        let mut numbers = numbers;
        if !inputs.is_multiple_of(QUAD_INPUTS) {
            let panels = numbers.chunks_exact(inputs * TILE_OUTPUTS);
            let mut filled = Aligned::lasting(panels.len() * size);
            for (filled, panel) in filled.chunks_exact_mut(size).zip(panels) {
                filled[..panel.len()].copy_from_slice(panel);
            }
            numbers = filled;
        }
        let mut sums = vec![WholeSums::ZERO; numbers.len() / size];
        let panels = numbers.chunks_exact_mut(size).zip(&mut sums);
        let tasks = panels.map(|(panel, sums)| Turn { quads: panel.as_chunks_mut().0, sums });
        native::parallel(tasks.collect(), native::vectorize);
        Bytes { unit, quads: numbers, sums, scales, inputs }
    }

    /// x·Wᵀ, finished. xs [M, in] -> out [M, out]
    pub(super) fn product(&self, inputs: Inputs, xs: &[f32], out: &mut [f32], finish: Finish) {
        let mut digits = DIGITS.take();
        let rows = Rows::new(inputs, xs, self.inputs, &mut digits, false);
        let (count, outputs) = (rows.scales.len(), self.scales.len());
        let threads = native::thread_count();
        let (down, across) = if count <= FEW {
            let parts = parts_for(self.quads.len()).min(outputs.div_ceil(TILE_OUTPUTS));
            (vec![0, count], edges(outputs, TILE_OUTPUTS, parts))
        } else {
            let parts = if threads == 1 { 1 } else { 2 * threads };
            (edges(count, MOST, parts.max(count.div_ceil(TASK_ROWS))), vec![0, outputs])
        };
        let tasks = pieces(out, &down, &across).into_iter();
        let tasks = tasks.map(|piece| self.task(&rows, finish, piece));
        native::parallel(tasks.collect(), native::vectorize);
        DIGITS.set(digits);
    }

    /// The same by this thread alone.
    pub(super) fn alone(&self, inputs: Inputs, xs: &[f32], out: &mut [f32], finish: Finish) {
        let mut digits = DIGITS.take();
        let rows = Rows::new(inputs, xs, self.inputs, &mut digits, true);
        let piece = Piece::whole(out, self.scales.len());
        native::vectorize(self.task(&rows, finish, piece));
        DIGITS.set(digits);
    }

    fn task<'a>(&'a self, rows: &'a Rows<'a>, finish: Finish<'a>, piece: Piece<'a>) -> Task<'a> {
        let finish = Finish { scales: Some(&self.scales), ..finish };
        Task { bytes: self, rows, finish, piece }
    }

    /// The numbers of an output, four inputs at a time (the last followed by zeros), and their scale.
    pub(super) fn weights(&self, output: usize) -> (impl Iterator<Item = &[i8]>, f32) {
        let place = output % TILE_OUTPUTS * QUAD_INPUTS;
        let quads = self.panel(output / TILE_OUTPUTS).iter();
        (quads.map(move |quad| &quad[place..place + QUAD_INPUTS]), self.scales[output])
    }

    fn panel(&self, panel: usize) -> &[Quad] {
        let quads = self.inputs.div_ceil(QUAD_INPUTS);
        &self.quads.as_chunks().0[panel * quads..][..quads]
    }
}

/// Turns the lines of a panel into quads, in place, and adds its numbers up.
struct Turn<'a> {
    quads: &'a mut [Quad],
    sums: &'a mut WholeSums,
}

impl Vectorized for Turn<'_> {
    #[inline(always)]
    fn run<L: Lanes, const P: usize>(self) {
        for quad in self.quads {
            let mut lines = [[0i8; TILE_OUTPUTS]; QUAD_INPUTS];
            lines.as_flattened_mut().copy_from_slice(quad);
            for i in 0..TILE_OUTPUTS {
                for input in 0..QUAD_INPUTS {
                    quad[i * QUAD_INPUTS + input] = lines[input][i];
                    self.sums.0[i] += i32::from(lines[input][i]);
                }
            }
        }
    }
}

/// Some rows and columns of the result.
struct Task<'a> {
    bytes: &'a Bytes,
    rows: &'a Rows<'a>,
    finish: Finish<'a>,
    piece: Piece<'a>,
}

impl Vectorized for Task<'_> {
    #[inline(always)]
    fn run<L: Lanes, const P: usize>(mut self) {
        let panels =
            self.piece.columns.start / TILE_OUTPUTS..self.piece.columns.end.div_ceil(TILE_OUTPUTS);
        let count = self.rows.count;
        // Several panels at a time: additions to the sums of one need not wait for each other.
        let together = match self.piece.rows.len() * count {
            1..=3 => 4,
            4..=6 => 2,
            _ => 1,
        };
        let mut sums = [WholeSums::ZERO; MOST];
        let mut panel = panels.start;
        while panel < panels.end {
            let wide = if panels.end - panel < together { 1 } else { together };
            for first in self.piece.rows.clone().step_by(MOST / count) {
                let height = (self.piece.rows.end - first).min(MOST / count) * count;
                match (height, wide) {
                    (1, 4) => self.block::<L, 1, 4>(first, panel, &mut sums),
                    (2, 4) => self.block::<L, 2, 4>(first, panel, &mut sums),
                    (3, 4) => self.block::<L, 3, 4>(first, panel, &mut sums),
                    (4, 2) => self.block::<L, 4, 2>(first, panel, &mut sums),
                    (5, 2) => self.block::<L, 5, 2>(first, panel, &mut sums),
                    (6, 2) => self.block::<L, 6, 2>(first, panel, &mut sums),
                    (1, _) => self.block::<L, 1, 1>(first, panel, &mut sums),
                    (2, _) => self.block::<L, 2, 1>(first, panel, &mut sums),
                    (3, _) => self.block::<L, 3, 1>(first, panel, &mut sums),
                    (4, _) => self.block::<L, 4, 1>(first, panel, &mut sums),
                    (5, _) => self.block::<L, 5, 1>(first, panel, &mut sums),
                    (6, _) => self.block::<L, 6, 1>(first, panel, &mut sums),
                    (7, _) => self.block::<L, 7, 1>(first, panel, &mut sums),
                    (8, _) => self.block::<L, 8, 1>(first, panel, &mut sums),
                    (9, _) => self.block::<L, 9, 1>(first, panel, &mut sums),
                    (10, _) => self.block::<L, 10, 1>(first, panel, &mut sums),
                    (11, _) => self.block::<L, 11, 1>(first, panel, &mut sums),
                    _ => self.block::<L, MOST, 1>(first, panel, &mut sums),
                }
            }
            panel += wide;
        }
    }
}

impl Task<'_> {
    /// Rows of H digits from `first` on, over N panels. `sums`: room for those of all.
    #[inline(always)]
    fn block<L: Lanes, const H: usize, const N: usize>(
        &mut self,
        first: usize,
        panel: usize,
        sums: &mut [WholeSums; MOST],
    ) {
        let Task { bytes, rows, finish, piece } = self;
        let own = first - piece.rows.start..first - piece.rows.start + H / rows.count;
        let from = (panel * TILE_OUTPUTS) - piece.columns.start;
        for place in &piece.out[own.clone()] {
            (0..N).for_each(|i| fetch_line(place, from + i * TILE_OUTPUTS));
        }
        let panels = std::array::from_fn(|i| bytes.panel(panel + i));
        let digits = &rows.digits[first * rows.count * rows.quads..][..H * rows.quads];
        bytes.unit.sums::<H, N>(digits, panels, sums);
        for (panel, sums) in (panel..).zip(sums.chunks_exact(H).take(N)) {
            let start = panel * TILE_OUTPUTS;
            let columns = start..(start + TILE_OUTPUTS).min(piece.columns.end);
            let lines = finish.lines(columns.clone(), rows.count == 1);
            let of_weights = bytes.sums[panel].0;
            // Of one digit the zero goes into what is added: with two that would cost digits.
            let mut scaled = [0.0; TILE_OUTPUTS];
            if rows.count == 1 {
                for i in 0..TILE_OUTPUTS {
                    scaled[i] = of_weights[i] as f32 * lines.scales.0[i];
                }
            }
            for (row, place) in (first..).zip(&mut piece.out[own.clone()]) {
                let digit = (row - first) * rows.count;
                let (scale, zero) = (rows.scales[row], rows.zeros[row]);
                // Copies: of others the compiler makes no vectors.
                let upper = sums[digit].0;
                let mut line = Line([0.0; TILE_OUTPUTS]);
                if rows.count == 1 {
                    let zero = -(zero as f32) * scale;
                    for i in 0..TILE_OUTPUTS {
                        let from_zero = L::fused(scaled[i], zero, lines.bias.0[i]);
                        line.0[i] = L::fused(upper[i] as f32 * scale, lines.scales.0[i], from_zero);
                    }
                    lines.last::<L>(&mut line.0);
                } else {
                    let lower = sums[digit + 1].0;
                    for i in 0..TILE_OUTPUTS {
                        let upper = (upper[i] - zero * of_weights[i]) as f32;
                        line.0[i] = L::fused(upper, 256.0, lower[i] as f32) * scale;
                    }
                    lines.finish::<L>(&mut line.0);
                }
                let from = columns.start - piece.columns.start;
                copy_line(&line.0[..columns.len()], &mut place[from..][..columns.len()]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tch::{Kind, Tensor};

    use super::*;
    use crate::native::Then;
    use crate::nn::linear::tests::waves;
    use crate::nn::linear::{Packing, Panels};

    /// Of what is kept of the weights, in f64, and what a rounded input may be off.
    fn exact(xs: &Tensor, weight: &Tensor) -> (Tensor, f64) {
        let kept = crate::nn::linear::tests::kept(weight, Packing::Int8).to_kind(Kind::Double);
        let reach = kept.abs().sum_dim_intlist([1i64].as_slice(), false, Kind::Double).max();
        (xs.to_kind(Kind::Double).matmul(&kept.tr()), f64::try_from(reach).expect("a number"))
    }

    #[test]
    fn inputs_keep_16_bits_or_8() {
        if ByteProducts::here().is_none() || native::has_matrix_unit() {
            return; // panels of other numbers do it
        }
        for (inputs, outputs) in [(1, 1), (7, 33), (64, 32), (301, 200)] {
            let weight = waves(&[outputs, inputs], 0.37) * 0.5;
            for rows in [1, 2, 3, 6, 7, 13, 48, 49, 200] {
                let xs = waves(&[rows, inputs], 0.11);
                let (expected, reach) = exact(&xs, &weight);
                for (many, bits) in [(false, 16), (true, 8)] {
                    let panels = Panels::pack(&weight, Packing::Int8);
                    let panels = if many { panels.for_many() } else { panels };
                    let found = panels.forward(&xs, None);
                    let error = f64::try_from((&found - &expected).abs().max()).expect("a number");
                    // Half of a step each, of a range of at most 2.
                    let bound = reach * 2f64.powi(-bits) * 1.01 + 1e-5;
                    assert!(error < bound, "{bits} bits, {rows}x{inputs}x{outputs}: {error:e}");
                    let alone = panels.forward(&xs.narrow(0, rows - 1, 1), None);
                    assert_eq!(found.narrow(0, rows - 1, 1), alone, "{bits} bits, {rows} rows");
                }
            }
        }
    }

    /// Rows whose numbers have one sign, are all 0, or are none.
    #[test]
    fn a_row_is_rounded_by_its_own_range() {
        let Some(unit) = ByteProducts::here() else { return };
        let mut numbers = Aligned::zeros(2 * TILE_OUTPUTS);
        numbers.fill(1);
        let bytes = Bytes::new(unit, numbers, 2, vec![0.5; 3]);
        let xs = [3.0, 5.0, -3.0, -5.0, 0.0, 0.0, f32::NAN, 1.0, 1.0, f32::INFINITY, 1e-30, 1e30];
        let finish = Finish { scales: None, bias: None, then: Then::Nothing };
        for inputs in [Inputs::Bits16, Inputs::Bits8] {
            let mut out = vec![9.0; 18];
            bytes.product(inputs, &xs, &mut out, finish);
            let near = |row: usize, expected: f32| {
                out[row * 3..][..3].iter().all(|x| (x - expected).abs() <= expected.abs() * 0.01)
            };
            assert!(near(0, 4.0) && near(1, -4.0) && near(2, 0.0) && near(5, 5e29), "{out:?}");
            assert!(out[9..15].iter().all(|x| x.is_nan()), "{out:?}");
        }
    }
}
