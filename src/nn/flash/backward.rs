//! The gradients of attention. With P the weights of the values and O the result, for dO:
//! dV = Pᵀ dO, dP = dO Vᵀ, dS = P ∘ (dP - rowsum(dO ∘ O)) · scale, dQ = dS K, dK = dSᵀ Q.

use std::cell::RefCell;
use std::ops::Range;

use super::{BLOCK, Line, by_head, line, panels, product, put, rows, tiles};
use crate::native::{
    self, AttendBack, Lanes, Matrix, PanelTile, Parts, RowsTile, Sums, TILE_OUTPUTS, Tiles,
    Vectorized, exp,
};
use crate::nn::linear::cut::{cut_panels, cut_rows};
use crate::nn::one_token::dot;

/// Queries whose weights are kept until keys and values have learnt from them.
const CHUNK: usize = 2 * BLOCK;

/// As `Passes::backward` has it. -> gradients of query, key and value, [N, t or S, A, d] each
pub(super) fn backward(given: &AttendBack, [query, key, value]: [&mut [f32]; 3]) {
    let AttendBack { given: lent, out, gradient, logs } = given;
    let [_, heads, tokens, _] = lent.query.size();
    let of_query = by_head(query, lent.query.size()).into_iter();
    let of_both = by_head(key, lent.key.size()).into_iter().zip(by_head(value, lent.key.size()));
    let all = of_query.zip(of_both).zip(logs.chunks(tokens));
    let tasks = all.enumerate().map(|(number, ((of_query, (of_key, of_value)), logs))| {
        let (row, head) = (number / heads, number % heads);
        Head {
            parts: Parts::F32.here(),
            q: lent.query.head(row, head),
            k: lent.key.head(row, head),
            v: lent.value.head(row, head),
            out: out.head(row, head),
            gradient: gradient.head(row, head),
            scale: lent.scale as f32,
            logs,
            of_query,
            of_key,
            of_value,
        }
    });
    native::parallel(tasks.collect(), native::vectorize);
}

/// A head. Matrices [t or S, d]
struct Head<'a> {
    parts: Parts,
    q: Matrix<'a, f32>,
    k: Matrix<'a, f32>,
    v: Matrix<'a, f32>,
    out: Matrix<'a, f32>,
    gradient: Matrix<'a, f32>,
    scale: f32,
    /// [t]
    logs: &'a [f32],
    /// [d] each
    of_query: Vec<&'a mut [f32]>,
    of_key: Vec<&'a mut [f32]>,
    of_value: Vec<&'a mut [f32]>,
}

/// What a thread needs, kept for the next head.
#[derive(Default)]
struct Room {
    /// Keys and values as columns, and keys as rows.
    keys: Vec<PanelTile>,
    values: Vec<PanelTile>,
    turned: Vec<PanelTile>,
    /// Of a block: queries or gradients, and dS.
    rows: Vec<RowsTile>,
    slopes_of_rows: Vec<RowsTile>,
    /// Of a chunk: P and dS [chunk, S], filled up.
    weights: Vec<Line>,
    slopes: Vec<Line>,
    /// Of a chunk: queries or gradients, and a block of columns of P or dS.
    chunk: [Vec<PanelTile>; 2],
    columns: Vec<RowsTile>,
    /// Sums of dV and dK: [block of keys][panel].
    sums: [Vec<[Sums; 2]>; 2],
}

thread_local! {
    static ROOM: RefCell<Room> = RefCell::default();
}

impl Room {
    fn prepare(&mut self, parts: Parts, keys: usize, d: usize) {
        let (of_rows, of_panel) = (parts.of_rows(), parts.of_panel());
        self.keys.resize(panels(keys, d, of_panel), PanelTile::ZERO);
        self.values.resize(panels(keys, d, of_panel), PanelTile::ZERO);
        self.turned.resize(panels(d, keys, of_panel), PanelTile::ZERO);
        self.rows.resize(2 * tiles(d, of_rows), RowsTile::ZERO);
        self.slopes_of_rows.resize(2 * tiles(keys, of_rows), RowsTile::ZERO);
        for lines in [&mut self.weights, &mut self.slopes] {
            lines.resize(CHUNK * keys.div_ceil(TILE_OUTPUTS), [0.0; TILE_OUTPUTS]);
        }
        for sums in &mut self.sums {
            let count = keys.div_ceil(BLOCK) * d.div_ceil(TILE_OUTPUTS);
            sums.resize(count, [Sums::ZERO, Sums::ZERO]);
        }
    }
}

impl Vectorized for Head<'_> {
    #[inline(always)]
    fn run<L: Lanes, const P: usize>(mut self) {
        // Taken out, not lent: what runs inside a call of `with` is compiled for the oldest CPU.
        let mut room = ROOM.take();
        let (keys, d, tokens) = (self.k.rows, self.k.inner, self.q.rows);
        room.prepare(self.parts, keys, d);
        cut_panels::<f32, L>(self.parts, &self.k, &(0..keys), &(0..d), &mut room.keys);
        cut_panels::<f32, L>(self.parts, &self.v, &(0..keys), &(0..d), &mut room.values);
        cut_panels::<f32, L>(self.parts, &self.k.turned(), &(0..d), &(0..keys), &mut room.turned);
        let unit = Tiles::open();
        for start in (0..tokens).step_by(CHUNK) {
            let chunk = start..(start + CHUNK).min(tokens);
            for block in chunk.clone().step_by(BLOCK) {
                let rows = block..(block + BLOCK).min(chunk.end);
                self.block::<L, P>(&unit, &mut room, &rows, block - start);
            }
            self.keys_and_values::<L>(&unit, &mut room, &chunk);
        }
        for (sums, places) in room.sums.iter().zip([&mut self.of_value, &mut self.of_key]) {
            let blocks = sums.chunks_exact(d.div_ceil(TILE_OUTPUTS));
            for (sums, places) in blocks.zip(places.chunks_mut(BLOCK)) {
                for (number, sums) in sums.iter().enumerate() {
                    for row in 0..places.len() {
                        put(line(sums, row), number, 1.0, places[row]);
                    }
                }
            }
        }
        ROOM.set(room);
    }
}

impl Head<'_> {
    /// P and dS of some queries, the first of which is the chunk's number `at`, and dQ.
    #[inline(always)]
    fn block<L: Lanes, const P: usize>(
        &mut self,
        unit: &Tiles,
        room: &mut Room,
        range: &Range<usize>,
        at: usize,
    ) {
        let (keys, d, scale, height) = (self.k.rows, self.k.inner, self.scale, range.len());
        let lines = keys.div_ceil(TILE_OUTPUTS);
        let panel = tiles(d, self.parts.of_panel());
        let of_block = at * lines..(at + height) * lines;
        let weights = &mut room.weights[of_block.clone()];
        let slopes = &mut room.slopes[of_block];
        let logs = &self.logs[range.clone()];
        let mut sums = [[Sums::ZERO, Sums::ZERO], [Sums::ZERO, Sums::ZERO]];
        cut_rows::<f32, L>(self.parts, &self.q, range, &(0..d), &mut room.rows);
        // While the unit works on a panel, the sums of the one before are taken.
        for number in 0..=lines {
            if number < lines {
                let product = product(&room.rows, height, &room.keys[number * panel..][..panel]);
                unit.add(self.parts, product, sums[number % 2].each_mut(), true);
            }
            let Some(before) = number.checked_sub(1) else { continue };
            for row in 0..height {
                let (line, log) = (line(&sums[before % 2], row), logs[row]);
                let weights = &mut weights[row * lines + before];
                for i in 0..TILE_OUTPUTS {
                    weights[i] = exp::<L>(line[i] * scale - log);
                }
            }
        }
        let mut shares = [0f32; BLOCK];
        for row in 0..height {
            weights[row * lines..][..lines].as_flattened_mut()[keys..].fill(0.0);
            let token = range.start + row;
            shares[row] = dot::<P>(numbers(&self.gradient, token), numbers(&self.out, token));
        }
        cut_rows::<f32, L>(self.parts, &self.gradient, range, &(0..d), &mut room.rows);
        for number in 0..=lines {
            if number < lines {
                let product = product(&room.rows, height, &room.values[number * panel..][..panel]);
                unit.add(self.parts, product, sums[number % 2].each_mut(), true);
            }
            let Some(before) = number.checked_sub(1) else { continue };
            for row in 0..height {
                let (line, share) = (line(&sums[before % 2], row), shares[row]);
                let weights = &weights[row * lines + before];
                let slopes = &mut slopes[row * lines + before];
                for i in 0..TILE_OUTPUTS {
                    slopes[i] = weights[i] * (line[i] - share) * scale;
                }
            }
        }
        let matrix = rows(slopes, height, keys);
        cut_rows::<f32, L>(self.parts, &matrix, &(0..height), &(0..keys), &mut room.slopes_of_rows);
        let turned = room.turned.chunks_exact(tiles(keys, self.parts.of_panel()));
        for (number, panel) in turned.enumerate() {
            let product = product(&room.slopes_of_rows, height, panel);
            unit.add(self.parts, product, sums[0].each_mut(), true);
            for row in 0..height {
                put(line(&sums[0], row), number, 1.0, self.of_query[range.start + row]);
            }
        }
    }

    /// What a chunk of the queries adds to dV and dK.
    #[inline(always)]
    fn keys_and_values<L: Lanes>(&self, unit: &Tiles, room: &mut Room, chunk: &Range<usize>) {
        let (keys, d) = (self.k.rows, self.k.inner);
        let (count, steps) = (d.div_ceil(TILE_OUTPUTS), tiles(chunk.len(), self.parts.of_rows()));
        for (panels, matrix) in room.chunk.iter_mut().zip([&self.gradient, &self.q]) {
            panels.resize(count * steps, PanelTile::ZERO);
            cut_panels::<f32, L>(self.parts, &matrix.turned(), &(0..d), chunk, panels);
        }
        room.columns.resize(2 * steps, RowsTile::ZERO);
        let columns = &mut room.columns;
        for (block, first) in (0..keys).step_by(BLOCK).enumerate() {
            let own = first..(first + BLOCK).min(keys);
            let each = [&room.weights, &room.slopes].into_iter().zip(&room.chunk);
            for ((values, panels), sums) in each.zip(&mut room.sums) {
                let matrix = rows(values, chunk.len(), keys).turned();
                cut_rows::<f32, L>(self.parts, &matrix, &own, &(0..chunk.len()), columns);
                let sums = sums[block * count..].iter_mut();
                for (panel, sums) in panels.chunks_exact(steps).zip(sums) {
                    let product = product(columns, own.len(), panel);
                    unit.add(self.parts, product, sums.each_mut(), chunk.start == 0);
                }
            }
        }
    }
}

/// Row `row` of a matrix stored so.
#[inline(always)]
fn numbers<'a>(matrix: &Matrix<'a, f32>, row: usize) -> &'a [f32] {
    &matrix.values[row * matrix.apart..][..matrix.inner]
}
