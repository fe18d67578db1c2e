//! What a search asks of the scores of a step, in one pass over them: the sums of their softmax and the
//! few greatest. libtorch would write out all log-probabilities and read them again to find the best.

use tch::Tensor;

use crate::native::{self, Lanes, Vectorized, across, exp};

/// What is told of a row of scores [V].
pub(super) struct Row {
    /// The greatest score; log-probabilities are `score - max - log_sum` in f32, as libtorch rounds them.
    pub(super) max: f32,
    /// Logarithm of the sum of exp(score - max).
    pub(super) log_sum: f32,
    /// Tokens of the greatest scores, and these; of equals the first token first.
    pub(super) best: Vec<(i64, f32)>,
}

impl Row {
    /// The log-probability of a token with this score.
    pub(super) fn logprob(&self, score: f32) -> f32 {
        score - self.max - self.log_sum
    }

    /// The log-probabilities of the best.
    pub(super) fn logprobs(&self) -> impl Iterator<Item = (i64, f32)> {
        self.best.iter().map(|(token, score)| (*token, self.logprob(*score)))
    }
}

/// The sums of each row and its `count` >= 1 greatest scores. scores [N, V] -> N
///
/// None where libtorch has to do it: on another device than the CPU, in another number type than f32, and
/// with scores that have no softmax (a NaN, an infinity, none but minus infinities).
pub(super) fn rows(scores: &Tensor, count: usize) -> Option<Vec<Row>> {
    let v = usize::try_from(*scores.size().last()?).ok().filter(|v| *v > 0)?;
    native::with_floats([scores], |[scores]| {
        let (rows, pieces) = (scores.len() / v, v.div_ceil(PIECE));
        let threads = native::thread_count();
        // Few tasks a row: each has to find out for itself what is great.
        let tasks = (2 * threads).div_ceil(rows.max(1)).min(pieces);
        let mut parts: Vec<Part> = scores
            .chunks_exact(v)
            .flat_map(|row| {
                (0..tasks).map(move |task| {
                    let [from, to] = [task, task + 1].map(|t| (pieces * t / tasks * PIECE).min(v));
                    Part::new(&row[from..to], from, count)
                })
            })
            .collect();
        native::parallel(parts.iter_mut().collect(), |part| native::vectorize(Look(part)));
        parts.chunks(tasks).map(|parts| joined(parts, count)).collect()
    })?
}

/// True if the best of all rows have the same scores as when they were found; others may only have sunk
/// since. scores [N, V]
pub(super) fn still_hold(rows: &[Row], scores: &Tensor) -> bool {
    let v = scores.size()[1] as usize;
    let same = native::with_floats([scores], |[scores]| {
        let mut all = rows.iter().zip(scores.chunks_exact(v));
        all.all(|(row, scores)| {
            row.best.iter().all(|(token, score)| scores[*token as usize] == *score)
        })
    });
    same.unwrap_or(false)
}

/// Scores whose exponentials are summed up by themselves. A fixed number, so that no sum depends on the
/// threads.
const PIECE: usize = 1 << 13;

/// Scores that are looked at twice while they lie next to the core.
const BLOCK: usize = 512;

/// Several pieces of a row, one task.
struct Part<'a> {
    scores: &'a [f32],
    /// The token of its first score.
    first: usize,
    count: usize,
    sums: Vec<Sum>,
    /// Greatest first.
    best: Vec<(i64, f32)>,
}

/// Of exp(score - max) over a piece; NaN where there is no softmax.
struct Sum {
    max: f32,
    sum: f64,
}

impl<'a> Part<'a> {
    fn new(scores: &'a [f32], first: usize, count: usize) -> Self {
        let best = Vec::with_capacity(count + 1);
        Part { scores, first, count, sums: Vec::with_capacity(scores.len().div_ceil(PIECE)), best }
    }

    #[inline(always)]
    fn look<L: Lanes, const P: usize>(&mut self) {
        let mut token = self.first;
        for piece in self.scores.chunks(PIECE) {
            let (mut max, mut sum) = (f32::NEG_INFINITY, 0.0);
            for block in piece.chunks(BLOCK) {
                let most = greatest::<P>(block);
                if most > max {
                    sum *= f64::from(max - most).exp();
                    max = most;
                }
                sum += if max > f32::NEG_INFINITY {
                    f64::from(sum_of_exp::<L, P>(block, max))
                } else {
                    block.iter().filter(|score| score.is_nan()).map(|_| f64::NAN).sum()
                };
                if self.best.len() < self.count || most > self.best[self.count - 1].1 {
                    self.pick::<P>(block, token);
                }
                token += block.len();
            }
            self.sums.push(Sum { max, sum });
        }
    }

    /// Takes the scores of a block that belong to the best.
    #[inline(always)]
    fn pick<const P: usize>(&mut self, block: &[f32], first: usize) {
        for (number, line) in block.chunks(P).enumerate() {
            let least = match self.best.get(self.count - 1) {
                Some((_, least)) => *least,
                None => f32::NAN, // nothing is less
            };
            // Without a branch, so that it is one comparison of vectors.
            if line.iter().fold(true, |low, score| low & (*score <= least)) {
                continue;
            }
            for (token, score) in (first + number * P..).zip(line) {
                self.take(token, *score);
            }
        }
    }

    fn take(&mut self, token: usize, score: f32) {
        let full = self.best.len() == self.count;
        if score.is_nan() || (full && self.best.last().is_none_or(|last| score <= last.1)) {
            return;
        }
        let place = self.best.partition_point(|better| better.1 >= score);
        self.best.truncate(self.count - 1);
        self.best.insert(place, (token as i64, score));
    }
}

struct Look<'a, 'b>(&'b mut Part<'a>);

impl Vectorized for Look<'_, '_> {
    #[inline(always)]
    fn run<L: Lanes, const P: usize>(self) {
        self.0.look::<L, P>();
    }
}

/// The parts of one row as a whole.
fn joined(parts: &[Part], count: usize) -> Option<Row> {
    let sums = || parts.iter().flat_map(|part| &part.sums);
    let max = sums().map(|piece| piece.max).fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = sums().map(|piece| piece.sum * f64::from(piece.max - max).exp()).sum();
    if !max.is_finite() || !sum.is_finite() {
        return None;
    }
    let mut best: Vec<(i64, f32)> = parts.iter().flat_map(|part| &part.best).copied().collect();
    best.sort_by(|a, b| b.1.total_cmp(&a.1)); // stable: the parts come in order
    best.truncate(count);
    Some(Row { max, log_sum: sum.ln() as f32, best })
}

/// The greatest number of a block, NaN aside.
#[inline(always)]
fn greatest<const P: usize>(block: &[f32]) -> f32 {
    let (lines, rest) = block.as_chunks::<P>();
    let greater = |most: f32, x: f32| if x > most { x } else { most };
    let mut found = [f32::NEG_INFINITY; P];
    for line in lines {
        for (found, x) in found.iter_mut().zip(line) {
            *found = greater(*found, *x);
        }
    }
    rest.iter().fold(across(found, greater), |most, x| greater(most, *x))
}

/// Sum of exp(x - max) over a block with x <= max; NaN if one is.
#[inline(always)]
fn sum_of_exp<L: Lanes, const P: usize>(block: &[f32], max: f32) -> f32 {
    let (lines, rest) = block.as_chunks::<P>();
    let mut sums = [0f32; P];
    for line in lines {
        for (sum, x) in sums.iter_mut().zip(line) {
            *sum += exp::<L>(*x - max);
        }
    }
    across(sums, |a, b| a + b) + rest.iter().map(|x| exp::<L>(*x - max)).sum::<f32>()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    /// Rows of every length around the sizes of vectors, blocks and parts.
    fn scores(rows: i64, v: i64) -> Tensor {
        let count = (rows * v) as f64;
        let places = Tensor::arange(rows * v, (Kind::Double, Device::Cpu));
        let waves = (&places * 1.37).sin() * 9.0 + (places * (40.0 / count));
        waves.to_kind(Kind::Float).reshape([rows, v])
    }

    #[test]
    fn sums_and_best_are_those_of_libtorch() {
        for (n, v) in [(1, 1), (3, 5), (2, 33), (5, 256), (4, 1000), (1, 16_384), (3, 50_257)] {
            let scores = scores(n, v);
            let logprobs: Vec<Vec<f32>> =
                Vec::try_from(scores.log_softmax(-1, Kind::Float)).unwrap();
            let (_, order) = scores.sort_stable(true, -1, true);
            let order: Vec<Vec<i64>> = Vec::try_from(order).unwrap();
            for count in [1, 9] {
                let found = rows(&scores, count).unwrap();
                assert_eq!(found.len(), n as usize);
                for (row, (logprobs, order)) in found.iter().zip(logprobs.iter().zip(&order)) {
                    let tokens: Vec<i64> = row.best.iter().map(|best| best.0).collect();
                    assert_eq!(tokens, order[..count.min(v as usize)]);
                    for (token, logprob) in row.logprobs() {
                        let apart = (logprob - logprobs[token as usize]).abs();
                        assert!(apart <= 2e-6, "{n}x{v}: {apart}");
                    }
                }
            }
        }
    }

    /// A row by itself is divided among several tasks, one of many is not.
    #[test]
    fn a_row_is_the_same_in_every_batch() {
        let many = scores(16, 50_257);
        let together = rows(&many, 9).unwrap();
        for (place, row) in together.iter().enumerate() {
            let alone = rows(&many.narrow(0, place as i64, 1), 9).unwrap().remove(0);
            assert_eq!((alone.max, alone.log_sum), (row.max, row.log_sum));
            assert_eq!(alone.best, row.best);
        }
    }

    #[test]
    fn of_equals_the_first_come_first() {
        let mut numbers = vec![1f32; 40_000];
        numbers[30_000] = 2.0;
        numbers[7] = f32::NEG_INFINITY;
        let found = rows(&Tensor::from_slice(&numbers).unsqueeze(0), 9).unwrap().remove(0);
        let tokens: Vec<i64> = found.best.iter().map(|best| best.0).collect();
        assert_eq!(tokens, [30_000, 0, 1, 2, 3, 4, 5, 6, 8]);
        // All that there is, the impossible last.
        let few = Tensor::from_slice(&[f32::NEG_INFINITY, 0.5, f32::NEG_INFINITY]).unsqueeze(0);
        let found = rows(&few, 9).unwrap().remove(0);
        let tokens: Vec<i64> = found.best.iter().map(|best| best.0).collect();
        assert_eq!(tokens, [1, 0, 2]);
        assert_eq!((found.max, found.log_sum), (0.5, 0.0));
    }

    #[test]
    fn scores_without_a_softmax_are_left_to_libtorch() {
        let inf = f32::INFINITY;
        for odd in [f32::NAN, inf] {
            for place in [0, 300, 17_000] {
                let mut numbers = vec![-inf; 17_001];
                numbers[4] = 1.0;
                numbers[place] = odd;
                assert!(rows(&Tensor::from_slice(&numbers).unsqueeze(0), 2).is_none());
            }
        }
        assert!(rows(&Tensor::from_slice(&[-inf; 20]).unsqueeze(0), 2).is_none());
        let wide = Tensor::zeros([2, 5], (Kind::Double, Device::Cpu));
        assert!(rows(&wide, 2).is_none());
        assert!(rows(&scores(4, 6).tr(), 2).is_none());
    }
}
