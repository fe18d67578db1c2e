//! Products of two matrices as they lie in memory, by the matrix unit of the CPU or by its vectors.
//!
//! Blocks of both are cut into parts (`native::Parts`) on the way, so that what is read lies in the cache of
//! a core: a chunk of the inputs of the task's rows, and of that chunk a few panels of outputs at a time.

use std::cell::RefCell;
use std::ops::Range;

use super::cut::{BLOCK, cut_panels, cut_rows, fetch_line, steps};
use super::number::Number;
use super::pieces::{Piece, edges, pieces, share};
use super::rows::Share;
use crate::native::{
    self, Fetch, Lanes, Matrix, PanelTile, Parts, Product, RowsTile, Sums, TILE_INPUTS,
    TILE_OUTPUTS, Then, Tiles, Vectorized,
};
use crate::nn::gelu;

/// Steps of a chunk of the inputs, and panels of a group: 1.2 MB in three parts, 400 kB in one.
const fn chunk_and_group(parts: Parts) -> (usize, usize) {
    match parts {
        // A product takes so little time that the passes over the results, one a chunk, count.
        Parts::Single => (48, 4),
        Parts::Whole => (24, 4),
        _ => (24, 8),
    }
}

/// Rows of a task at most, so that a chunk of them is not larger than a few megabytes.
const TASK_ROWS: usize = 1024;

/// The same where vectors make the products: they wait for rows that are not in a core's own cache (measured).
const VECTOR_ROWS: usize = 288;

/// Products of numbers below which a second thread costs more than it brings.
const WORTH_A_THREAD: usize = 1 << 18;

/// How rows are divided where a thread takes them through several products, by vectors.
pub(super) const SHARE: Share = Share { unit: 8, most: VECTOR_ROWS };

/// True where `product` is faster than what libtorch does (measured): to cut the numbers of a block into parts
/// takes as long as a product of it, and is done for rows and columns, where products are of each with each.
pub(super) fn is_better(rows: usize, columns: usize) -> bool {
    const EACH: usize = 120;
    rows * columns >= EACH * (rows + columns) && native::has_tiles()
}

/// The matrix whose rows are the outputs of a product.
pub(super) trait Outputs: Copy + Send {
    fn outputs(&self) -> usize;

    /// Some outputs, if they lie in memory as products take them. -> [panel] of [step][part]
    fn lying(&self, _: Parts, _: &Group) -> Option<Vec<&[PanelTile]>> {
        None
    }

    /// Some outputs. -> [panel][step][part]
    fn cut<L: Lanes>(&self, parts: Parts, group: &Group, tiles: &mut [PanelTile]);

    /// What part `part` of so many has of what `cut` reads.
    fn fetch(&self, group: &Group, part: usize, parts: usize) -> Fetch;
}

impl<T: Number> Outputs for Matrix<'_, T> {
    fn outputs(&self) -> usize {
        self.rows
    }

    #[inline(always)]
    fn cut<L: Lanes>(&self, parts: Parts, group: &Group, tiles: &mut [PanelTile]) {
        cut_panels::<T, L>(parts, self, &group.columns, &group.inner, tiles);
    }

    #[inline(always)]
    fn fetch(&self, Group { columns, inner }: &Group, part: usize, parts: usize) -> Fetch {
        let (rows, columns) = if self.transposed { (inner, columns) } else { (columns, inner) };
        Fetch::rows(self.values, share(rows, part, parts), columns, self.apart)
    }
}

/// Some inputs of some outputs.
#[derive(Clone)]
pub(super) struct Group {
    pub columns: Range<usize>,
    pub inner: Range<usize>,
}

/// What becomes of the sums of a product.
#[derive(Clone, Copy)]
pub(super) struct Finish<'a> {
    /// They are multiplied by these. [N]
    pub scales: Option<&'a [f32]>,
    /// Then these are added. [N]
    pub bias: Option<&'a [f32]>,
    pub then: Then,
}

/// a·bᵀ, finished. a [M, K], b [N, K] -> out [M, N]
pub(super) fn product(
    a: Matrix<f32>,
    b: impl Outputs,
    parts: Parts,
    finish: Finish,
    out: &mut [f32],
) {
    let outputs = b.outputs();
    debug_assert_eq!(out.len(), a.rows * outputs);
    let threads = native::thread_count();
    let worth = (a.rows * outputs * a.inner / WORTH_A_THREAD).clamp(1, threads);
    let (down, across) = grid(a.rows, outputs, worth, threads);
    let (down, across) = (edges(a.rows, BLOCK, down), edges(outputs, TILE_OUTPUTS, across));
    let tasks = pieces(out, &down, &across).into_iter();
    let tasks = tasks.map(|piece| Task { a, b, parts, finish, piece });
    native::parallel(tasks.collect(), native::vectorize);
}

/// The same by this thread alone.
pub(super) fn alone(
    a: Matrix<f32>,
    b: impl Outputs,
    parts: Parts,
    finish: Finish,
    out: &mut [f32],
) {
    let piece = Piece::whole(out, b.outputs());
    native::vectorize(Task { a, b, parts, finish, piece });
}

/// Into how many parts the rows and the columns are divided where so many of the threads are worth it.
fn grid(rows: usize, columns: usize, worth: usize, threads: usize) -> (usize, usize) {
    let (blocks, panels) = (rows.div_ceil(BLOCK), columns.div_ceil(TILE_OUTPUTS));
    let cost = |&(down, across): &(usize, usize)| {
        let (blocks, panels) = (blocks.div_ceil(down), panels.div_ceil(across));
        // To cut a block or a panel takes about as long as a product of them.
        blocks * panels + blocks + panels
    };
    let ways = (1..=worth.min(panels)).map(|across| (worth.div_ceil(across).min(blocks), across));
    let (down, across) = ways.min_by_key(cost).unwrap_or((1, 1));
    let most = if native::has_matrix_unit() { TASK_ROWS } else { VECTOR_ROWS };
    let parts = rows.div_ceil(most);
    if parts <= down {
        return (down, across);
    }
    // No thread waits for the others.
    (parts.next_multiple_of(threads.div_ceil(across)).min(blocks), across)
}

/// Some rows and columns of the result.
struct Task<'a, B> {
    a: Matrix<'a, f32>,
    b: B,
    parts: Parts,
    finish: Finish<'a>,
    piece: Piece<'a>,
}

thread_local! {
    /// What the blocks of a chunk become: kept, as it is as large for the next product.
    static ROOM: RefCell<(Vec<RowsTile>, Vec<PanelTile>)> = const { RefCell::new((Vec::new(), Vec::new())) };
}

impl<B: Outputs> Vectorized for Task<'_, B> {
    #[inline(always)]
    fn run<L: Lanes, const P: usize>(mut self) {
        // Taken out, not lent: what runs inside a call of `with` is compiled for the oldest CPU.
        let (mut rows, mut panels) = ROOM.take();
        let (most, group) = chunk_and_group(self.parts);
        let blocks = self.piece.rows.len().div_ceil(BLOCK) * 2;
        rows.resize(rows.len().max(blocks * most * self.parts.of_rows()), RowsTile::ZERO);
        panels.resize(panels.len().max(group * most * self.parts.of_panel()), PanelTile::ZERO);
        // Chunks of about one size: each costs a pass over the results.
        let all = steps(self.a.inner);
        let chunk = all.div_ceil(all.div_ceil(most)) * TILE_INPUTS;
        let unit = Tiles::open();
        for first in (0..self.a.inner).step_by(chunk) {
            let inner = first..(first + chunk).min(self.a.inner);
            cut_rows::<f32, L>(self.parts, &self.a, &self.piece.rows, &inner, &mut rows);
            for column in self.piece.columns.clone().step_by(group * TILE_OUTPUTS) {
                let columns = |column: usize| {
                    column..(column + group * TILE_OUTPUTS).min(self.piece.columns.end)
                };
                let own = Group { columns: columns(column), inner: inner.clone() };
                let next = if own.columns.end < self.piece.columns.end {
                    Group { columns: columns(own.columns.end), ..own.clone() }
                } else {
                    let inner = inner.end..(inner.end + chunk).min(self.a.inner);
                    Group { columns: columns(self.piece.columns.start), inner }
                };
                let b = self.b;
                let panels = match b.lying(self.parts, &own) {
                    Some(panels) => panels,
                    None => {
                        b.cut::<L>(self.parts, &own, &mut panels);
                        let of_panel = steps(own.inner.len()) * self.parts.of_panel();
                        panels.chunks_exact(of_panel).collect()
                    }
                };
                self.add::<L>(&unit, &own, &next, (&rows, &panels));
            }
        }
        ROOM.set((rows, panels));
    }
}

impl<B: Outputs> Task<'_, B> {
    /// Adds the products of a group to the results, while the next one is fetched.
    #[inline(always)]
    fn add<L: Lanes>(
        &mut self,
        unit: &Tiles,
        Group { columns, inner }: &Group,
        next: &Group,
        (rows, panels): (&[RowsTile], &[&[PanelTile]]),
    ) {
        let (is_first, is_last) = (inner.start == 0, inner.end == self.a.inner);
        let rows = rows.chunks_exact(steps(inner.len()) * self.parts.of_rows());
        let blocks: Vec<&[RowsTile]> =
            rows.take(self.piece.rows.len().div_ceil(BLOCK) * 2).collect();
        let mut sums = [Sums::ZERO, Sums::ZERO];
        let products = blocks.len() / 2 * columns.len().div_ceil(TILE_OUTPUTS);
        let mut number = 0;
        for (block, out) in blocks.as_chunks::<2>().0.iter().zip(self.piece.out.chunks_mut(BLOCK)) {
            for (column, panel) in columns.clone().step_by(TILE_OUTPUTS).zip(panels) {
                let width = TILE_OUTPUTS.min(columns.end - column);
                let lines = self.finish.lines(column..column + width, self.parts == Parts::Single);
                let own = column - self.piece.columns.start;
                if !is_first {
                    for (sums, row) in sums_of(&mut sums).zip(out.iter()) {
                        copy_line(&row[own..][..width], &mut sums[..width]);
                    }
                }
                out.iter().for_each(|row| fetch_line(row, own));
                let next = self.b.fetch(next, number, products);
                let product = Product { rows: *block, height: out.len(), panel, next };
                number += 1;
                unit.add(self.parts, product, sums.each_mut(), is_first);
                for (sums, row) in sums_of(&mut sums).zip(out.iter_mut()) {
                    if is_last {
                        lines.finish::<L>(sums);
                    }
                    copy_line(&sums[..width], &mut row[own..][..width]);
                }
            }
        }
    }
}

/// Numbers of the outputs of a panel.
#[repr(C, align(64))]
pub(super) struct Line(pub [f32; TILE_OUTPUTS]);

/// What finishes a line of sums.
pub(super) struct Lines {
    pub(super) scales: Line,
    pub(super) bias: Line,
    then: Then,
    near: bool,
}

impl Finish<'_> {
    /// Of some columns; `near` where the product takes 9 bits or fewer of the inputs, as that of the results will.
    #[inline(always)]
    pub(super) fn lines(&self, columns: Range<usize>, near: bool) -> Lines {
        let mut lines = Lines {
            scales: Line([1.0; TILE_OUTPUTS]),
            bias: Line([0.0; TILE_OUTPUTS]),
            then: self.then,
            near,
        };
        if let Some(scales) = self.scales {
            copy_line(&scales[columns.clone()], &mut lines.scales.0[..columns.len()]);
        }
        if let Some(bias) = self.bias {
            copy_line(&bias[columns.clone()], &mut lines.bias.0[..columns.len()]);
        }
        lines
    }
}

impl Lines {
    #[inline(always)]
    pub(super) fn finish<L: Lanes>(&self, sums: &mut [f32; TILE_OUTPUTS]) {
        for ((sum, scale), bias) in sums.iter_mut().zip(&self.scales.0).zip(&self.bias.0) {
            *sum = L::fused(*sum, *scale, *bias);
        }
        self.last::<L>(sums);
    }

    /// What follows scales and bias.
    #[inline(always)]
    pub(super) fn last<L: Lanes>(&self, sums: &mut [f32; TILE_OUTPUTS]) {
        gelu::each::<L>(sums, self.then, self.near);
    }
}

/// The rows of two blocks.
#[inline(always)]
fn sums_of(sums: &mut [Sums; 2]) -> impl Iterator<Item = &mut [f32; TILE_OUTPUTS]> {
    sums.iter_mut().flat_map(|sums| sums.0.iter_mut())
}

/// Copies a line, most often a whole one, which takes two instructions.
#[inline(always)]
pub(super) fn copy_line(from: &[f32], to: &mut [f32]) {
    match (<&[f32; TILE_OUTPUTS]>::try_from(from), <&mut [f32; TILE_OUTPUTS]>::try_from(&mut *to)) {
        (Ok(from), Ok(to)) => *to = *from,
        _ => to.copy_from_slice(from),
    }
}
