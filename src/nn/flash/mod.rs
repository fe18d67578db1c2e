//! Attention of many tokens by products of tiles: scores are made for a few queries at a time, so that they stay
//! in the cache, and once more where gradients are asked for (Dao et al. 2022, FlashAttention).

#![allow(clippy::needless_range_loop)]

mod backward;
mod forward;
mod states;
#[cfg(test)]
mod tests;

use tch::{Device, Kind, Tensor};

pub(super) use states::States;

use super::linear::cut::{BLOCK, steps};
use super::precision;
use crate::native::{
    self, Attend, Fetch, Matrix, PanelTile, Parts, Passes, Product, RowsTile, Sums, TILE_OUTPUTS,
    TILE_ROWS,
};

/// Queries, and keys, times the width of a head, from which on it is faster than libtorch's (measured).
const WORTH: i64 = 6 << 10;

/// Where gradients are asked for: in f32.
static LEARNING: Passes = Passes {
    forward: |given, out, logs| forward::forward(Parts::F32.here(), given, out, logs),
    backward: backward::backward,
};

/// softmax(q kᵀ · scale) v, of numbers in so many parts; None where libtorch has to do it: but for many tokens in
/// f32 on a CPU that makes products of tiles. q [N, A, t, d], k and v [N, A, S, d] -> [N, A, t, d], lying as [N, t, A, d]
pub(super) fn flash(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    scale: f64,
    parts: Parts,
) -> Option<Tensor> {
    let is_many = |xs: &Tensor| xs.size()[2] * xs.size()[3] >= WORTH;
    if !is_many(q) || !is_many(k) || !native::has_tiles() || precision::is_mixed() {
        return None;
    }
    let given = [q, k, v];
    if given.iter().any(|xs| xs.requires_grad()) {
        return native::attention(given, scale, &LEARNING);
    }
    let given = Attend::of(given, scale)?;
    let [n, heads, tokens, d] = given.query.size();
    let size = [n, tokens, heads, d].map(|size| size as i64);
    let out = Tensor::empty(size, (Kind::Float, Device::Cpu));
    let mut logs = vec![0f32; n * heads * tokens];
    native::with_floats([&out], |[out]| {
        forward::forward(parts, &given, out, &mut logs);
    })?;
    Some(out.transpose(1, 2))
}

/// What is written of each head: places of its tokens, [d] each. all [N, t, A, d] -> [N·A][t]
fn by_head(all: &mut [f32], [n, heads, tokens, d]: [usize; 4]) -> Vec<Vec<&mut [f32]>> {
    let mut found: Vec<Vec<_>> = (0..n * heads).map(|_| Vec::with_capacity(tokens)).collect();
    for (number, place) in all.chunks_exact_mut(d).enumerate() {
        let (row, head) = (number / (tokens * heads), number % heads);
        found[row * heads + head].push(place);
    }
    found
}

/// Numbers of a row in one panel.
type Line = [f32; TILE_OUTPUTS];

// From here on there are plain loops over known sizes: they become vectors, and closures are sometimes compiled
// for the oldest CPU.

/// That of two blocks of rows, one after the other, with a panel; so many of the rows are there.
#[inline(always)]
fn product<'a>(rows: &'a [RowsTile], height: usize, panel: &'a [PanelTile]) -> Product<'a> {
    let (first, second) = rows.split_at(rows.len() / 2);
    Product { rows: [first, second], height, panel, next: Fetch::NOTHING }
}

/// Row `row` of two blocks.
#[inline(always)]
fn line(sums: &[Sums; 2], row: usize) -> &Line {
    &sums[row / TILE_ROWS].0[row % TILE_ROWS]
}

/// Writes the columns of a panel that are there, times `factor`, to a token's place.
#[inline(always)]
fn put(sums: &Line, panel: usize, factor: f32, place: &mut [f32]) {
    let place = &mut place[panel * TILE_OUTPUTS..];
    if let Some(place) = place.first_chunk_mut::<TILE_OUTPUTS>() {
        for i in 0..TILE_OUTPUTS {
            place[i] = sums[i] * factor;
        }
    } else {
        for i in 0..place.len() {
            place[i] = sums[i] * factor;
        }
    }
}

/// Rows of so many keys in lines.
#[inline(always)]
fn rows(lines: &[Line], rows: usize, keys: usize) -> Matrix<'_, f32> {
    let apart = keys.next_multiple_of(TILE_OUTPUTS);
    Matrix { values: lines.as_flattened(), rows, inner: keys, transposed: false, apart }
}

/// Tiles of a block of rows, or of a panel, with so many inputs in N parts.
const fn tiles(inputs: usize, parts: usize) -> usize {
    steps(inputs) * parts
}

/// Tiles of so many columns in panels.
const fn panels(columns: usize, inputs: usize, parts: usize) -> usize {
    columns.div_ceil(TILE_OUTPUTS) * tiles(inputs, parts)
}
