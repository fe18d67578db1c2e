//! The continuations of beams: the best ones, or a sample, found on the device.

use anyhow::Result;
use tch::{Kind, Tensor};

use super::best;
use super::logits::{Effect, Processors};
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

/// The M best of each image after the rules, by scores from which log-probabilities are still to be made.
/// ids [B·K, L], logits [B·K, V], running B·K
pub(super) fn likeliest(
    rules: &Processors,
    ids: &Tensor,
    mut logits: Tensor,
    running: &[f32],
    k: i64,
    m: i64,
) -> Result<Vec<Vec<Candidate>>> {
    let v = logits.size()[1];
    let more = looked_at(m, v);
    let effect = rules.effect(ids.size()[1]);
    let told = if effect == Effect::Changes { None } else { best::rows(&logits, more) };
    let Some(mut rows) = told else {
        let logprobs = rules.apply(ids, logits.log_softmax(-1, Kind::Float));
        return top(&logprobs, running, k, m);
    };
    if effect == Effect::Forbids {
        // What is forbidden keeps its share of the sum: rules come after the softmax.
        logits = rules.apply(ids, logits);
        if !best::still_hold(&rows, &logits) {
            let Some(others) = best::rows(&logits, more) else {
                let logprobs = written_out(&rows, &logits, 0);
                return top(&logprobs, running, k, m);
            };
            rows.iter_mut().zip(others).for_each(|(row, other)| row.best = other.best);
        }
    }
    let pairs: Vec<Pair> = rows.iter().flat_map(best::Row::logprobs).collect();
    of_pairs(&pairs, running, k, m, v, |image| {
        written_out(&rows[image * k as usize..][..k as usize], &logits, image as i64 * k)
    })
}

/// Log-probabilities of the `rows` of logits [N, V] from row `first` on. -> [rows, V]
fn written_out(rows: &[best::Row], logits: &Tensor, first: i64) -> Tensor {
    let column = |number: fn(&best::Row) -> f32| {
        Tensor::from_slice(&rows.iter().map(number).collect::<Vec<_>>()).unsqueeze(1)
    };
    let logits = logits.narrow(0, first, rows.len() as i64);
    logits - column(|row| row.max) - column(|row| row.log_sum)
}

/// A token and its log-probability.
type Pair = (i64, f32);

/// How many of the best tokens of each beam are looked at: they hold the best of all, and one more than
/// needed bounds what was not looked at.
fn looked_at(m: i64, v: i64) -> usize {
    (m + 1).min(v) as usize
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
    let more = looked_at(m, v);
    let pairs: Vec<Pair> = match best::rows(logprobs, more) {
        Some(rows) => rows.into_iter().flat_map(|row| row.best).collect(),
        None => {
            let (values, tokens) = logprobs.topk(more as i64, -1, true, true); // [B·K, M + 1]
            let parts = [tokens.to_kind(Kind::Double), values.to_kind(Kind::Double)];
            let pairs: Vec<f64> = Vec::try_from(Tensor::stack(&parts, 2).flatten(0, -1))?;
            pairs.chunks(2).map(|pair| (pair[0] as i64, pair[1] as f32)).collect()
        }
    };
    of_pairs(&pairs, running, k, m, v, |image| logprobs.narrow(0, image as i64 * k, k))
}

/// The M best of each image among the best of each beam; `whole` gives all log-probabilities of an image,
/// [K, V].
fn of_pairs(
    pairs: &[Pair],
    running: &[f32],
    k: i64,
    m: i64,
    v: i64,
    whole: impl Fn(usize) -> Tensor,
) -> Result<Vec<Vec<Candidate>>> {
    let more = looked_at(m, v);
    let images = pairs.chunks(more * k as usize).zip(running.chunks(k as usize));
    let mut found = Vec::new();
    for (image, (pairs, running)) in images.enumerate() {
        let candidate = |(number, (token, logprob)): (usize, &Pair)| {
            let beam = number / more;
            let score = logprob + running[beam];
            Candidate { beam, token: *token, score, logprob: f64::from(*logprob) }
        };
        let mut best: Vec<Candidate> = pairs.iter().enumerate().map(candidate).collect();
        let last_ones = best.iter().skip(more - 1).step_by(more);
        let unseen =
            last_ones.filter(|_| more < v as usize).map(|last| last.score).reduce(f32::max);
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
            let logprobs = whole(image);
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

    /// From logits at once, what log-probabilities that are written out give.
    #[test]
    fn the_likeliest_are_those_of_the_log_probabilities() {
        use super::super::GenerationConfig;
        use super::super::logits::Setting;
        let (b, k, v, m) = (2i64, 3i64, 900i64, 6i64);
        let device = tch::Device::Cpu;
        // Steps of a half, so that scores of a row are often equal.
        let places = Tensor::arange(b * k * v, (Kind::Double, device)) * 0.7137;
        let logits: Tensor = (places.sin() * 19.0).round() / 2.0 + places * 1e-9;
        let logits = logits.to_kind(Kind::Float).reshape([b * k, v]);
        let running: Vec<f32> = (0..b * k).map(|row| -0.013 * (row * row) as f32).collect();
        let ids = Tensor::from_slice(&[5i64, 8, 5, 8, 5]).repeat([b * k, 1]);
        let first: Vec<i64> = Vec::try_from(logits.argmax(-1, false)).unwrap();
        let setting = Setting { prompt: 1, max_length: 9, vocab_size: v, device, allowed: None };
        let plain = GenerationConfig { num_beams: k, ..Default::default() };
        let ends = GenerationConfig { eos_token_id: first.clone(), ..plain.clone() };
        let configs = [
            (Effect::Nothing, plain.clone()),
            (Effect::Nothing, GenerationConfig { min_length: 5, ..ends.clone() }),
            (Effect::Forbids, GenerationConfig { min_length: 6, ..ends }),
            (Effect::Forbids, GenerationConfig { no_repeat_ngram_size: 2, ..plain.clone() }),
            (Effect::Forbids, GenerationConfig { suppress_tokens: first.clone(), ..plain.clone() }),
            (
                Effect::Forbids,
                GenerationConfig { suppress_tokens: (0..v - 4).collect(), ..plain.clone() },
            ),
            (Effect::Changes, GenerationConfig { repetition_penalty: 1.5, ..plain.clone() }),
        ];
        for (effect, config) in configs {
            let rules = Processors::new(&config, &setting).unwrap();
            assert_eq!(rules.effect(5), effect);
            let logprobs = rules.apply(&ids, logits.log_softmax(-1, Kind::Float));
            let scores = scores(&logprobs, &running, b);
            let (_, order) = scores.sort_stable(true, -1, true);
            let expected = fetch(&scores, &logprobs, &order.narrow(1, 0, m), v).unwrap();
            let found = likeliest(&rules, &ids, logits.copy(), &running, k, m).unwrap();
            for (found, expected) in found.iter().flatten().zip(expected.iter().flatten()) {
                assert_eq!((found.beam, found.token), (expected.beam, expected.token));
                assert!(
                    (found.score - expected.score).abs() < 4e-6 || found.score == expected.score
                );
                assert!(
                    (found.logprob - expected.logprob).abs() < 4e-6
                        || found.logprob == expected.logprob
                );
            }
            assert_eq!((found.len(), found[1].len()), (b as usize, m as usize));
        }
    }
}
