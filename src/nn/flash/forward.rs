//! The result of attention.

use std::cell::RefCell;

use super::states::Piece;
use super::{BLOCK, Line, by_head, line, panels, product, put, tiles};
use crate::native::{
    self, Attend, Cut, Lanes, Matrix, PanelTile, Parts, RowsTile, Sums, TILE_OUTPUTS, TILE_ROWS,
    Tiles, Vectorized, across, exp, exp_near,
};
use crate::nn::linear::cut::{cut_panels, cut_rows, in_parts};

/// As `Passes::forward` has it. -> out [N, t, A, d], logs [N, A, t]
pub(super) fn forward(parts: Parts, given: &Attend, out: &mut [f32], logs: &mut [f32]) {
    let Attend { query, key, value, scale } = given;
    let [n, heads, tokens, _] = query.size();
    let share = share(n * heads, tokens);
    let mut tasks = Vec::new();
    let all = by_head(out, query.size()).into_iter().zip(logs.chunks_mut(tokens));
    for (number, (out, logs)) in all.enumerate() {
        let (row, head) = (number / heads, number % heads);
        let mut out = out.into_iter();
        for (part, logs) in logs.chunks_mut(share).enumerate() {
            tasks.push(Queries {
                parts,
                q: query.head(row, head),
                seen: Seen::Plain { k: key.head(row, head), v: value.head(row, head) },
                scale: *scale as f32,
                first: part * share,
                out: out.by_ref().take(logs.len()).collect(),
                logs,
            });
        }
    }
    native::parallel(tasks, native::vectorize);
}

/// How many queries of a head one task has, so that no thread waits long for the others: each task cuts all
/// keys and values for itself.
fn share(heads: usize, tokens: usize) -> usize {
    const TASKS_OF_A_THREAD: usize = 3;
    const FEWEST_BLOCKS: usize = 4;
    let threads = native::thread_count();
    let blocks = tokens.div_ceil(BLOCK);
    let most = (blocks / FEWEST_BLOCKS).max(1);
    let parts =
        if threads == 1 { 1 } else { (TASKS_OF_A_THREAD * threads).div_ceil(heads).min(most) };
    blocks.div_ceil(parts) * BLOCK
}

/// Some queries of a head.
pub(super) struct Queries<'a> {
    pub parts: Parts,
    /// [t, d]
    pub q: Matrix<'a, f32>,
    pub seen: Seen<'a>,
    pub scale: f32,
    /// The first of them.
    pub first: usize,
    /// [d] each
    pub out: Vec<&'a mut [f32]>,
    pub logs: &'a mut [f32],
}

/// Keys and values, [S, d] each.
pub(super) enum Seen<'a> {
    /// Cut by whoever attends to them.
    Plain { k: Matrix<'a, f32>, v: Matrix<'a, f32> },
    /// Of one image, which are the same.
    Cut(&'a Piece),
}

/// What a thread needs, kept for the next head.
#[derive(Default)]
struct Room {
    keys: Vec<PanelTile>,
    values: Vec<PanelTile>,
    queries: Vec<RowsTile>,
    weights: Vec<RowsTile>,
    scores: Vec<Line>,
}

thread_local! {
    static ROOM: RefCell<Room> = RefCell::default();
}

impl Vectorized for Queries<'_> {
    #[inline(always)]
    fn run<L: Lanes, const P: usize>(self) {
        // Taken out, not lent: what runs inside a call of `with` is compiled for the oldest CPU.
        let mut room = ROOM.take();
        in_parts!(self.parts, of_rows, L, Self::attend[L](self, &mut room));
        ROOM.set(room);
    }
}

impl Queries<'_> {
    #[inline(always)]
    fn attend<L: Lanes, C: Cut, const N: usize>(self, room: &mut Room) {
        let Queries { parts, q, seen, scale, first, mut out, logs } = self;
        let Room { keys: of_keys, values: of_values, queries, weights, scores } = room;
        let (keys, d) = match seen {
            Seen::Plain { k, .. } => (k.rows, k.inner),
            Seen::Cut(piece) => piece.size(),
        };
        let [of_keys, of_values] = match seen {
            Seen::Plain { k, v } => {
                of_keys.resize(panels(keys, d, N), PanelTile::ZERO);
                cut_panels::<f32, L>(parts, &k, &(0..keys), &(0..d), of_keys);
                of_values.resize(panels(d, keys, N), PanelTile::ZERO);
                cut_panels::<f32, L>(parts, &v.turned(), &(0..d), &(0..keys), of_values);
                [of_keys.as_slice(), of_values.as_slice()]
            }
            Seen::Cut(piece) => piece.tiles(),
        };
        queries.resize(2 * tiles(d, N), RowsTile::ZERO);
        weights.resize(2 * tiles(keys, N), RowsTile::ZERO);
        let lines = keys.div_ceil(TILE_OUTPUTS);
        scores.resize(BLOCK * lines, [0.0; TILE_OUTPUTS]);
        let unit = Tiles::open();
        let mut sums = [[Sums::ZERO, Sums::ZERO], [Sums::ZERO, Sums::ZERO]];
        let mut sums_of_rows = [0f32; BLOCK];
        let blocks = out.chunks_mut(BLOCK).zip(logs.chunks_mut(BLOCK));
        for (block, (out, logs)) in blocks.enumerate() {
            let start = first + block * BLOCK;
            cut_rows::<f32, L>(parts, &q, &(start..start + out.len()), &(0..d), queries);
            // While the unit works on a panel, the sums of the one before are taken.
            for number in 0..=lines {
                if number < lines {
                    let panel = &of_keys[number * tiles(d, N)..][..tiles(d, N)];
                    let product = product(queries, out.len(), panel);
                    unit.add(parts, product, sums[number % 2].each_mut(), true);
                }
                let Some(before) = number.checked_sub(1) else { continue };
                for row in 0..out.len() {
                    // In place the compiler would do it one by one, for the two might overlap.
                    let mut line = *line(&sums[before % 2], row);
                    for i in 0..TILE_OUTPUTS {
                        line[i] *= scale;
                    }
                    scores[row * lines + before] = line;
                }
            }
            for row in 0..out.len() {
                let own = &mut scores[row * lines..][..lines];
                own.as_flattened_mut()[keys..].fill(f32::NEG_INFINITY);
                let block = &mut weights[row / TILE_ROWS * tiles(keys, N)..][..tiles(keys, N)];
                (sums_of_rows[row], logs[row]) = weigh::<L, C, N>(own, block, row % TILE_ROWS);
            }
            let height = out.len();
            for (number, panel) in of_values.chunks_exact(tiles(keys, N)).enumerate() {
                let product = product(weights, height, panel);
                unit.add(parts, product, sums[0].each_mut(), true);
                for row in 0..height {
                    put(line(&sums[0], row), number, 1.0 / sums_of_rows[row], out[row]);
                }
            }
        }
    }
}

/// Exponentials of the scores, divided by the greatest of them, cut by C in N parts as row `row` of `weights`
/// [step][part] -> the sum of these, and the logarithm of the sum of the exponentials.
#[inline(always)]
fn weigh<L: Lanes, C: Cut, const N: usize>(
    scores: &[Line],
    weights: &mut [RowsTile],
    row: usize,
) -> (f32, f32) {
    let mut most = [f32::NEG_INFINITY; TILE_OUTPUTS];
    for line in scores.iter() {
        for i in 0..TILE_OUTPUTS {
            most[i] = if most[i] > line[i] { most[i] } else { line[i] };
        }
    }
    let most = across(most, f32::max);
    let mut sums = [0f32; TILE_OUTPUTS];
    for (scores, step) in scores.iter().zip(weights.as_chunks_mut::<N>().0) {
        let mut line = [0f32; TILE_OUTPUTS];
        for i in 0..TILE_OUTPUTS {
            line[i] = if N == 1 { exp_near::<L> } else { exp::<L> }(scores[i] - most);
            sums[i] += line[i];
        }
        let pairs = C::in_pairs::<N>(&line);
        for part in 0..N {
            step[part].0[row] = pairs[part];
        }
    }
    let sum = across(sums, |a, b| a + b);
    (sum, most + sum.ln())
}
