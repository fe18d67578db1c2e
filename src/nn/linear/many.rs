//! Products of many rows with panels, by the matrix unit of the CPU, to which numbers that bf16 does not hold are
//! sums of several (`native::Parts`), or by its vectors.

use super::cut::in_parts;
use super::number::{Number, wide};
use super::panel::{Part, ahead, line};
use crate::native::{
    self, Cut, Fetch, Lanes, PanelTile, Parts, Product, RowsTile, Sums, TILE_INPUTS, TILE_ROWS,
    Tiles, Vectorized,
};

/// Rows from which on it is faster than `few` is (measured): the more parts a number has, the more products it
/// takes.
const fn many(parts: Parts) -> usize {
    match parts {
        Parts::Single | Parts::Bf16 => 13,
        Parts::F16 => 25,
        Parts::F32 => 49,
        Parts::Whole => 25,
    }
}

/// Steps of a panel that are widened at a time: they stay in the innermost cache.
const CHUNK: usize = 8;

/// True where this CPU serves so many rows better here than `few` does.
pub(super) fn is_better(parts: Parts, rows: usize) -> bool {
    rows >= many(parts) && native::has_tiles()
}

/// Rows in pairs of blocks, the last of which are filled up with zeros.
pub(super) struct Rows {
    /// [block][step][part]
    tiles: Vec<RowsTile>,
    /// Tiles of a block.
    count: usize,
    rows: usize,
    parts: Parts,
}

impl Rows {
    /// xs [rows, in]
    pub(super) fn new(parts: Parts, xs: &[f32], inputs: usize) -> Self {
        let (rows, count) = (xs.len() / inputs, inputs.div_ceil(TILE_INPUTS) * parts.of_rows());
        let blocks = rows.div_ceil(2 * TILE_ROWS) * 2;
        let mut tiles = vec![RowsTile::ZERO; blocks * count];
        native::vectorize(Split { parts, xs, inputs, tiles: &mut tiles, count });
        Rows { tiles, count, rows, parts }
    }
}

/// Makes blocks of rows.
struct Split<'a> {
    parts: Parts,
    xs: &'a [f32],
    inputs: usize,
    tiles: &'a mut [RowsTile],
    count: usize,
}

impl Vectorized for Split<'_> {
    #[inline(always)]
    fn run<L: Lanes, const P: usize>(self) {
        let blocks = self.xs.chunks(TILE_ROWS * self.inputs);
        for (rows, tiles) in blocks.zip(self.tiles.chunks_exact_mut(self.count)) {
            for (row, xs) in rows.chunks_exact(self.inputs).enumerate() {
                let steps = tiles.chunks_exact_mut(self.parts.of_rows());
                for (xs, step) in xs.chunks(TILE_INPUTS).zip(steps) {
                    in_parts!(self.parts, of_rows, L, put[L](xs, row, step));
                }
            }
        }
    }
}

/// Puts 32 inputs, or the last of them, into row `row` of a step.
#[inline(always)]
fn put<L: Lanes, C: Cut, const N: usize>(xs: &[f32], row: usize, step: &mut [RowsTile]) {
    let inputs = wide::<f32, L, TILE_INPUTS>(xs);
    for (tile, pairs) in step.iter_mut().zip(C::in_pairs::<N>(&inputs)) {
        tile.0[row] = pairs;
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
        let blocks: Vec<&[RowsTile]> = self.rows.tiles.chunks_exact(self.rows.count).collect();
        let mut sums = vec![Sums::ZERO; blocks.len()];
        let parts = self.rows.parts;
        let (of_rows, of_panel) = (parts.of_rows(), parts.of_panel());
        let mut wide = vec![PanelTile::ZERO; CHUNK * of_panel];
        let unit = Tiles::open();
        let chunks = self.part.inputs.div_ceil(CHUNK * TILE_INPUTS);
        for panel in 0..self.part.panels::<P>() {
            for chunk in 0..chunks {
                let lines = self.chunk::<P>(panel, chunk);
                let next = match chunk + 1 < chunks {
                    true => self.chunk::<P>(panel, chunk + 1),
                    false => self.chunk::<P>(panel + 1, 0),
                };
                let mut next = Fetch::of(next);
                let steps = lines.len().div_ceil(TILE_INPUTS);
                let wide = match T::as_tiles::<P>(parts, lines) {
                    Some(tiles) => tiles,
                    None => {
                        let wide = &mut wide[..steps * of_panel];
                        widen::<T, L, P>(parts, lines, wide);
                        wide
                    }
                };
                let pairs = blocks.chunks_exact(2).zip(sums.as_chunks_mut::<2>().0);
                for (pair, (blocks, sums)) in pairs.enumerate() {
                    let of =
                        |rows: usize| &blocks[rows][chunk * CHUNK * of_rows..][..steps * of_rows];
                    let height = (self.rows.rows - pair * 2 * TILE_ROWS).min(2 * TILE_ROWS);
                    let product = Product { rows: [of(0), of(1)], height, panel: wide, next };
                    unit.add(parts, product, sums.each_mut(), chunk == 0);
                    next = Fetch::NOTHING;
                }
            }
            for row in 0..self.rows.rows {
                self.part.put(row, panel, &sums[row / TILE_ROWS].0[row % TILE_ROWS]);
            }
        }
    }
}

impl<T> Many<'_, T> {
    /// The lines of a chunk of a panel; none behind the last panel.
    #[inline(always)]
    fn chunk<const P: usize>(&self, panel: usize, chunk: usize) -> &[[T; P]] {
        if panel >= self.part.panels::<P>() {
            return &[];
        }
        self.part.panel::<P>(panel).chunks(CHUNK * TILE_INPUTS).nth(chunk).unwrap_or_default()
    }
}

/// Lines of a panel as tiles. -> [step][part]
#[inline(always)]
pub(super) fn widen<T: Number, L: Lanes, const P: usize>(
    parts: Parts,
    lines: &[[T; P]],
    tiles: &mut [PanelTile],
) {
    in_parts!(parts, of_panel, L, widen_in[T, L, P](lines, tiles));
}

/// `widen` in N parts.
#[inline(always)]
fn widen_in<T: Number, L: Lanes, const P: usize, C: Cut, const N: usize>(
    lines: &[[T; P]],
    tiles: &mut [PanelTile],
) {
    for (step, target) in tiles.as_chunks_mut::<N>().0.iter_mut().enumerate() {
        for pair in 0..TILE_INPUTS / 2 {
            let number = |input| {
                let k = step * TILE_INPUTS + input;
                match k < lines.len() {
                    true => line::<T, L, P>(lines, k, ahead::<T, P>(k)),
                    false => [0.0; P],
                }
            };
            let [first, second] = C::pair(pair);
            let (first, second) = (number(first), number(second));
            let lines = first.as_chunks::<16>().0.iter().zip(second.as_chunks::<16>().0);
            for (half, (first, second)) in lines.enumerate() {
                let parts = C::interleaved::<N>(first, second);
                for (tile, parts) in target.iter_mut().zip(&parts) {
                    tile.0[pair][half * 16..half * 16 + 16].copy_from_slice(parts);
                }
            }
        }
    }
}
