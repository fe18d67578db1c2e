//! The continuations of beams: the best ones, or a sample, found on the device.

use anyhow::Result;
use tch::{Kind, Tensor};

use super::rng::Stream;
use super::step::invert;

/// A continuation of one running beam by one token.
pub(super) struct Candidate {
    /// Number of the beam within its image.
    pub(super) beam: usize,
    pub(super) token: i64,
    /// With the beam's own score.
    pub(super) score: f32,
    /// The token's alone.
    pub(super) logprob: f64,
}

/// Each continuation's score with its beam's own. logprobs [B·K, V], running B·K -> [B, K·V]
pub(super) fn scores(logprobs: &Tensor, running: &[f32], images: i64) -> Tensor {
    let running = Tensor::from_slice(running).to_device(logprobs.device()).unsqueeze(1);
    (logprobs + running).reshape([images, -1])
}

/// The M best of each image, equal scores in the order of (beam, token).
/// logprobs [B·K, V], running B·K
pub(super) fn top(
    logprobs: &Tensor,
    running: &[f32],
    k: i64,
    m: i64,
) -> Result<Vec<Vec<Candidate>>> {
    let v = logprobs.size()[1];
    // The best of each beam hold the best of all. One more than needed bounds what was not looked at.
    let more = (m + 1).min(v);
    let (values, tokens) = logprobs.topk(more, -1, true, true); // [B·K, M + 1]
    let pairs = Tensor::stack(&[tokens.to_kind(Kind::Double), values.to_kind(Kind::Double)], 2);
    let pairs: Vec<f64> = Vec::try_from(pairs.flatten(0, -1))?;
    let images = pairs.chunks((2 * more * k) as usize).zip(running.chunks(k as usize));
    let mut found = Vec::new();
    for (image, (pairs, running)) in images.enumerate() {
        let candidate = |(number, pair): (usize, &[f64])| {
            let beam = number / more as usize;
            let score = pair[1] as f32 + running[beam];
            Candidate { beam, token: pair[0] as i64, score, logprob: pair[1] }
        };
        let mut best: Vec<Candidate> = pairs.chunks(2).enumerate().map(candidate).collect();
        let last_ones = best.iter().skip(more as usize - 1).step_by(more as usize);
        let unseen = last_ones.filter(|_| more < v).map(|last| last.score).reduce(f32::max);
        best.sort_by(|a, b| {
            let scores = b.score.partial_cmp(&a.score);
            let scores = scores.unwrap_or_else(|| b.score.total_cmp(&a.score));
            scores.then((a.beam, a.token).cmp(&(b.beam, b.token)))
        });
        best.truncate(m as usize);
        if let (Some(unseen), Some(last)) = (unseen, best.last())
            && last.score <= unseen
        {
            // Equals of the last one may come before it.
            let logprobs = logprobs.narrow(0, image as i64 * k, k);
            let scores = scores(&logprobs, running, 1);
            let (_, order) = scores.sort_stable(true, -1, true);
            best = fetch(&scores, &logprobs, &order.narrow(1, 0, m), v)?.remove(0);
        }
        found.push(best);
    }
    Ok(found)
}

/// The continuations at `places` [B, M] of scores [B, K·V], in one transfer. logprobs [B·K, V]
pub(super) fn fetch(
    scores: &Tensor,
    logprobs: &Tensor,
    places: &Tensor,
    v: i64,
) -> Result<Vec<Vec<Candidate>>> {
    let logprobs = logprobs.reshape_as(scores).gather(1, places, false);
    let scores = scores.gather(1, places, false);
    let parts = [places, &scores, &logprobs].map(|part| part.to_kind(Kind::Double));
    let all: Vec<f64> = Vec::try_from(Tensor::stack(&parts, 2).flatten(0, -1))?; // [B, M, 3]
    let candidate = |numbers: &[f64]| {
        let place = numbers[0] as i64;
        Candidate {
            beam: (place / v) as usize,
            token: place % v,
            score: numbers[1] as f32,
            logprob: numbers[2],
        }
    };
    let m = places.size()[1] as usize;
    Ok(all.chunks(3 * m).map(|image| image.chunks(3).map(candidate).collect()).collect())
}

/// M continuations of each image without replacement, by probability, in the order drawn.
///
/// Numbers of the image's stream are looked up in the cumulative distribution; one that falls on a
/// continuation already drawn is drawn again. What has been drawn leaves the distribution between
/// rounds. Where fewer than M have a probability, the best of the others follow.
/// scores [B, K·V] -> [B, M]
pub(super) fn draw(scores: &Tensor, m: i64, streams: &mut [&mut Stream]) -> Result<Tensor> {
    let tries = 2 * m;
    let weights = scores.softmax(-1, Kind::Double); // [B, K·V]
    let mut drawn: Vec<Vec<i64>> = streams.iter().map(|_| Vec::new()).collect();
    let full = |drawn: &[i64]| drawn.len() as i64 >= m;
    while drawn.iter().any(|drawn| !full(drawn)) {
        let uniform: Vec<f64> = streams
            .iter_mut()
            .zip(&drawn)
            .flat_map(|(stream, drawn)| {
                let wanted = !full(drawn);
                (0..tries).map(|_| if wanted { stream.uniform() } else { 0.0 }).collect::<Vec<_>>()
            })
            .collect();
        let uniform = Tensor::from_slice(&uniform).reshape([-1, tries]).to_device(scores.device());
        let found = invert(&weights, &uniform); // [B, tries]
        let weight = weights.gather(1, &found, false);
        let pairs = Tensor::stack(&[found.to_kind(Kind::Double), weight], 2);
        let pairs: Vec<f64> = Vec::try_from(pairs.flatten(0, -1))?;
        for (image, pairs) in pairs.chunks(2 * tries as usize).enumerate() {
            let drawn = &mut drawn[image];
            let before = drawn.len();
            for pair in pairs.chunks(2) {
                let place = pair[0] as i64;
                if !full(drawn) && pair[1] > 0.0 && !drawn.contains(&place) {
                    drawn.push(place);
                }
            }
            if drawn.len() == before && !full(drawn) {
                // Nothing left with a probability.
                let (_, order) = scores.get(image as i64).sort_stable(true, -1, true);
                let order: Vec<i64> =
                    Vec::try_from(order.narrow(0, 0, (2 * m).min(order.size()[0])))?;
                let missing = order.into_iter().filter(|place| !drawn.contains(place));
                let missing: Vec<i64> = missing.take(m as usize - before).collect();
                drawn.extend(missing);
            }
        }
        for (image, drawn) in drawn.iter().enumerate() {
            let drawn = Tensor::from_slice(drawn).to_device(scores.device());
            let _ = weights.get(image as i64).index_fill_(0, &drawn, 0.0);
        }
    }
    Ok(Tensor::from_slice(&drawn.concat()).reshape([-1, m]).to_device(scores.device()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::beam::FAR;
    use super::*;

    fn rows(places: &Tensor) -> Vec<Vec<i64>> {
        let width = places.size()[1] as usize;
        let flat: Vec<i64> = Vec::try_from(places.flatten(0, -1)).unwrap();
        flat.chunks(width).map(<[i64]>::to_vec).collect()
    }

    #[test]
    fn draws_without_replacement_follow_the_probabilities() {
        let p = [0.5f64, 0.25, 0.15, 0.08, 0.02];
        let n = 20_000;
        let scores: Vec<f32> = p.iter().map(|p| p.ln() as f32).collect();
        let scores = Tensor::from_slice(&scores).repeat([n, 1]);
        let mut streams: Vec<Stream> = (0..n as u64).map(|i| Stream::new(3, i, 0)).collect();
        let mut streams: Vec<&mut Stream> = streams.iter_mut().collect();
        let drawn = rows(&draw(&scores, 2, &mut streams).unwrap());
        let mut chi_square = 0.0;
        for i in 0..5usize {
            for j in (0..5usize).filter(|j| *j != i) {
                let pair = [i as i64, j as i64];
                let found = drawn.iter().filter(|drawn| **drawn == pair).count() as f64;
                let expected = n as f64 * p[i] * p[j] / (1.0 - p[i]);
                chi_square += (found - expected).powi(2) / expected;
            }
        }
        // 19 degrees of freedom, probability 0.9999.
        assert!(chi_square < 50.8, "{chi_square}");
    }

    #[test]
    fn where_probabilities_end_the_best_of_the_others_follow() {
        let inf = f32::NEG_INFINITY;
        let scores = Tensor::from_slice(&[inf, -1e9, 0.0, inf, -1e9 - 64.0, -2.0]).unsqueeze(0);
        let mut stream = Stream::new(1, 0, 0);
        let mut drawn = rows(&draw(&scores, 5, &mut [&mut stream]).unwrap()).remove(0);
        drawn[..2].sort();
        assert_eq!(drawn, [2, 5, 1, 4, 0]);
    }

    #[test]
    fn equal_scores_come_in_the_order_of_their_places() {
        let logprobs = Tensor::from_slice(&[1f32, 3.0, 3.0, 2.0, 3.0, 2.0, 2.0, 1.0]);
        let logprobs = logprobs.reshape([2, 4]);
        let places = |m| -> Vec<(usize, i64)> {
            let found = top(&logprobs, &[0.0; 2], 2, m).unwrap().remove(0);
            found.iter().map(|c| (c.beam, c.token)).collect()
        };
        assert_eq!(places(5), [(0, 1), (0, 2), (1, 0), (0, 3), (1, 1)]);
        assert_eq!(places(1), [(0, 1)]);
        // Scores that only rounding makes equal: the first places win, not the greatest numbers.
        let far = top(&logprobs, &[0.0, FAR], 2, 6).unwrap().remove(0);
        let far: Vec<(usize, i64)> = far.iter().map(|c| (c.beam, c.token)).collect();
        assert_eq!(far, [(0, 1), (0, 2), (0, 3), (0, 0), (1, 0), (1, 1)]);
        let flat = Tensor::zeros([2, 50], (Kind::Float, logprobs.device()));
        let flat = top(&flat, &[-1.0, 0.0], 2, 3).unwrap().remove(0);
        let flat: Vec<(usize, i64)> = flat.iter().map(|c| (c.beam, c.token)).collect();
        assert_eq!(flat, [(1, 0), (1, 1), (1, 2)]);
    }
}
