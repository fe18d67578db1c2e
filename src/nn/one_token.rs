//! Attention of one new token a row over keys and values that lie where they were written: rows that share
//! a past read the same numbers, and nothing is moved when beams change places.

use std::ops::Range;

use tch::{Device, Kind, Tensor};

use super::linear::cut::fetch_line;
use crate::native::{self, Lanes, Rows, TILE_OUTPUTS, Vectorized, across, exp};

/// Query, key and value of one new token of N rows.
pub enum New<'a> {
    /// [N, A, 1, d] each
    Apart { q: &'a Tensor, key: &'a Tensor, value: &'a Tensor },
    /// As one product gives them, beside each other. [N, 1, 3·A·d]
    Joined { all: &'a Tensor, heads: i64 },
}

impl New<'_> {
    /// N, A, t and d.
    fn size(&self) -> [i64; 4] {
        match self {
            New::Apart { q, .. } => q.size4().map_or([0; 4], |(n, heads, t, d)| [n, heads, t, d]),
            New::Joined { all, heads } => {
                let (n, t, width) = all.size3().unwrap_or_default();
                [n, *heads, t, width / (3 * heads)]
            }
        }
    }

    /// Lends query, key and value, each as N rows of [A·d]; None (and no call) unless all are f32 on the CPU.
    fn with<R>(&self, f: impl FnOnce([Rows; 3]) -> R) -> Option<R> {
        match self {
            New::Apart { q, key, value } => native::with_rows([q, key, value], f),
            New::Joined { all, .. } => native::with_floats([*all], |[all]| {
                let stride = all.len() / self.size()[0].max(1) as usize;
                let part = |part: usize| Rows::new(&all[part * stride / 3..], stride);
                f([part(0), part(1), part(2)])
            }),
        }
    }
}

/// A step of one token for N rows.
pub(super) struct OneToken<'a> {
    pub(super) new: &'a New<'a>,
    pub(super) scale: f64,
    /// [N', C, A, d] each, with `past` tokens of each row that is in use.
    pub(super) keys: &'a Tensor,
    pub(super) values: &'a Tensor,
    pub(super) past: i64,
    /// Rows side by side that share most of their past.
    pub(super) rows_per_image: usize,
}

/// Numbers of keys up to which threads cost more than they save.
const ALONE: usize = 1 << 15;

/// Writes the new keys and values of each row to its own place, token `past`, and gives
/// softmax(q kᵀ · scale) v over all tokens of the row: those before lie in the rows of the block that
/// `places` names, N times `past`. -> [N, 1, A·d]
///
/// None (and nothing written) unless all is f32 on the CPU.
pub(super) fn one_token(step: &OneToken, places: &[Vec<u32>]) -> Option<Tensor> {
    let [n, heads, t, d] = step.new.size().map(|size| size as usize);
    let past = usize::try_from(step.past).ok()?;
    if t != 1 || places.len() != n || n == 0 || places.iter().any(|row| row.len() != past) {
        return None;
    }
    let (block_rows, capacity) = (step.keys.size()[0] as usize, step.keys.size()[1] as usize);
    let inside = |row: &u32| (*row as usize) < block_rows;
    if past >= capacity || block_rows < n || !places.iter().flatten().all(inside) {
        return None;
    }
    let width = heads * d;
    let rows = if n % step.rows_per_image == 0 { step.rows_per_image } else { 1 };
    let alone = n * (past + 1) * width <= ALONE;
    let parts = if alone { 1 } else { parts(n / rows, heads) };
    let out = Tensor::empty([n as i64, 1, width as i64], (Kind::Float, Device::Cpu));
    step.new.with(|[q, key, value]| {
        native::with_floats([step.keys, step.values, &out], |[keys, values, out]| {
            for row in 0..n {
                let at = (row * capacity + past) * width;
                keys[at..at + width].copy_from_slice(&key.row(row)[..width]);
                values[at..at + width].copy_from_slice(&value.row(row)[..width]);
            }
            let all =
                All { q, keys, values, places, scale: step.scale as f32, past, capacity, width, d };
            let share = heads / parts;
            let pieces = out.chunks_mut(rows * share * d).enumerate().map(|(piece, out)| {
                let (first, head) = (piece / parts * rows, piece % parts * share);
                Piece { all: &all, rows: first..first + rows, heads: head..head + share, out }
            });
            let pieces: Vec<Piece> = pieces.collect();
            match alone {
                true => pieces.into_iter().for_each(native::vectorize),
                false => native::parallel(pieces, native::vectorize),
            }
        })
    })??;
    if parts == 1 || rows == 1 {
        return Some(out);
    }
    let size = [(n / rows), parts, rows, width / parts].map(|size| size as i64);
    Some(out.view(size).transpose(1, 2).reshape([n as i64, 1, width as i64]))
}

/// Into how many parts `heads` are divided, so that `groups` of rows make enough tasks for all threads.
fn parts(groups: usize, heads: usize) -> usize {
    let tasks = 2 * native::thread_count();
    let fits = |parts: &usize| heads.is_multiple_of(*parts) && groups * parts >= tasks;
    (1..=heads).find(fits).unwrap_or(heads)
}

/// What all pieces read.
struct All<'a> {
    q: Rows<'a>,
    keys: &'a [f32],
    values: &'a [f32],
    places: &'a [Vec<u32>],
    scale: f32,
    past: usize,
    capacity: usize,
    /// A·d
    width: usize,
    d: usize,
}

/// Some rows and heads.
struct Piece<'a> {
    all: &'a All<'a>,
    rows: Range<usize>,
    heads: Range<usize>,
    /// [rows, heads, d]
    out: &'a mut [f32],
}

impl Vectorized for Piece<'_> {
    #[inline(always)]
    fn run<L: Lanes, const P: usize>(self) {
        let Piece { all, rows, heads, out } = self;
        let d = all.d;
        let mut weights = vec![0f32; all.past + 1];
        // A head's keys and values of all rows stay near the core.
        for (number, head) in heads.clone().enumerate() {
            for (at, row) in rows.clone().enumerate() {
                if number + 1 < heads.len() {
                    all.fetch(row, (head + 1) * d);
                }
                let start = (at * heads.len() + number) * d;
                all.attend::<L, P>(row, head * d, &mut weights, &mut out[start..start + d]);
            }
        }
    }
}

impl All<'_> {
    /// Where a token of a row begins.
    #[inline(always)]
    fn place(&self, row: usize, token: usize) -> usize {
        let place = self.places[row].get(token).map_or(row, |place| *place as usize);
        (place * self.capacity + token) * self.width
    }

    /// Has a row's keys and values of a head fetched, which lie apart, so that nobody waits for one after the other.
    #[inline(always)]
    fn fetch(&self, row: usize, head: usize) {
        for token in 0..self.past {
            let at = self.place(row, token) + head;
            for line in (at..at + self.d).step_by(TILE_OUTPUTS) {
                fetch_line(self.keys, line);
                fetch_line(self.values, line);
            }
        }
    }

    /// One row, the head whose numbers begin at `head`. -> out [d]
    #[inline(always)]
    fn attend<L: Lanes, const P: usize>(
        &self,
        row: usize,
        head: usize,
        weights: &mut [f32],
        out: &mut [f32],
    ) {
        let q = &self.q.row(row)[head..head + self.d];
        let mut most = f32::NEG_INFINITY;
        for (token, weight) in weights.iter_mut().enumerate() {
            let at = self.place(row, token) + head;
            *weight = dot::<P>(q, &self.keys[at..at + self.d]) * self.scale;
            // NaN stays.
            most = if most >= *weight { most } else { *weight };
        }
        let mut sum = 0f32;
        for weight in weights.iter_mut() {
            *weight = exp::<L>(*weight - most);
            sum += *weight;
        }
        out.fill(0.0);
        for (token, weight) in weights.iter().enumerate() {
            let (at, share) = (self.place(row, token) + head, weight / sum);
            for (out, x) in out.iter_mut().zip(&self.values[at..at + self.d]) {
                *out += share * x;
            }
        }
    }
}

#[inline(always)]
pub(super) fn dot<const P: usize>(a: &[f32], b: &[f32]) -> f32 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<P>(), b.as_chunks::<P>());
    let mut sums = [0f32; P];
    for (a, b) in a.iter().zip(b) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    across(sums, |a, b| a + b) + rest
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::nn::attention::attend;
    use crate::nn::attention::tests::waves;

    /// Against attention over keys and values that were brought together.
    #[test]
    fn tokens_are_read_where_they_lie() {
        for (n, per_image, heads, d, past, capacity) in [
            (1, 1, 1, 1, 0, 1),
            (2, 2, 3, 5, 4, 9),
            (8, 4, 12, 64, 33, 64),
            (6, 4, 2, 24, 150, 151),
            (1, 1, 16, 64, 700, 704),
        ] {
            let [rows, room, wide] = [n, capacity, heads].map(|size| size as i64);
            // More rows than are in use, and every third token at another's place.
            let block = |step| waves([rows + 1, room, wide, d], step);
            let (keys, values) = (block(0.37), block(0.23));
            let places: Vec<Vec<u32>> = (0..n)
                .map(|row| (0..past).map(|t| ((row + t * t % 3) % (n + 1)) as u32).collect())
                .collect();
            // As they come out of one product: beside each other.
            let joined = waves([rows, 1, 3 * wide, d], 0.11);
            let part = |which: i64| joined.narrow(2, which * wide, wide).transpose(1, 2);
            let (q, key, value) = (part(0), part(1), part(2));
            let gathered = |all: &Tensor, new: &Tensor| {
                let row = |row: usize| {
                    let mut tokens: Vec<Tensor> = (0..past)
                        .map(|t| all.get(i64::from(places[row][t])).get(t as i64))
                        .collect();
                    tokens.push(new.get(row as i64).squeeze_dim(1));
                    Tensor::stack(&tokens, 1)
                };
                Tensor::stack(&(0..n).map(row).collect::<Vec<_>>(), 0)
            };
            let expected =
                attend(&q, &gathered(&keys, &key), &gathered(&values, &value), None, 0.3, 0.0);
            let expected = expected.transpose(1, 2).flatten(2, 3);
            let apart = New::Apart { q: &q, key: &key, value: &value };
            let all = &joined.flatten(2, 3);
            for new in [&apart, &New::Joined { all, heads: wide }] {
                let (keys, values) = (&keys.copy(), &values.copy());
                let (past, rows_per_image) = (past as i64, per_image);
                let step = OneToken { new, scale: 0.3, keys, values, past, rows_per_image };
                let found = one_token(&step, &places).unwrap();
                let error = f64::try_from((found - &expected).abs().max()).unwrap();
                assert!(error < 2e-6, "{n} x {past}: {error}");
                let written = |all: &Tensor| all.narrow(0, 0, rows).select(1, past);
                assert_eq!(written(keys), key.squeeze_dim(2));
                assert_eq!(written(values), value.squeeze_dim(2));
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_left_alone() {
        let block = waves([2, 3, 1, 4], 0.3);
        let new = waves([2, 1, 1, 4], 0.7);
        let asked = |past: i64, places: &[Vec<u32>], new: &Tensor| {
            let new = &New::Apart { q: new, key: new, value: new };
            let (keys, values) = (&block.copy(), &block.copy());
            let step = OneToken { new, scale: 1.0, keys, values, past, rows_per_image: 1 };
            one_token(&step, places).is_some()
        };
        assert!(asked(2, &[vec![0, 1], vec![1, 0]], &new));
        assert!(!asked(3, &[vec![0; 3], vec![1; 3]], &new), "no room");
        assert!(!asked(2, &[vec![0, 2], vec![1, 1]], &new), "a row that is not there");
        assert!(!asked(2, &[vec![0], vec![1]], &new), "another number of tokens");
        assert!(!asked(2, &[vec![0, 0], vec![1, 1]], &new.to_kind(Kind::Double)), "f64");
    }

    #[test]
    fn what_is_no_number_stays_one() {
        let (block, mut new) = (waves([1, 3, 1, 4], 0.3), waves([1, 1, 1, 4], 0.7));
        let (q, value) = (new.copy(), new.copy());
        let _ = new.fill_(f64::NAN);
        let (keys, values) = (&block.copy(), &block);
        let new = &New::Apart { q: &q, key: &new, value: &value };
        let step = OneToken { new, scale: 1.0, keys, values, past: 1, rows_per_image: 1 };
        let found = one_token(&step, &[vec![0]]).unwrap();
        assert!(bool::try_from(found.isnan().all()).unwrap());
    }
}
