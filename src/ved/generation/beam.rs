//! Beam search and beam sampling (the reference's vectorised `_beam_search` of 4.57.6).
//!
//! The device finds the best continuations of each image; the bookkeeping of their few numbers is
//! done here, in f32 as there. An image is on its own, so it leaves when its search is over.

use anyhow::{Result, ensure};
use tch::{Kind, Tensor};

use super::rng::Stream;
use super::session::Session;
use super::step::invert;
use super::{EarlyStopping, Finish, Generated, Run};

/// What the reference takes for minus infinity.
pub(super) const FAR: f32 = -1e9;

/// A sequence of a beam.
#[derive(Clone)]
struct Beam {
    ids: Vec<i64>,
    logprobs: Vec<f64>,
    /// Running: sum of log-probabilities. Finished: divided by length^length_penalty.
    score: f32,
    finish: Option<Finish>,
}

/// The search of one image.
struct Search {
    image: usize,
    /// K, best first.
    running: Vec<Beam>,
    /// K places, best first; a place without `finish` is empty.
    finished: Vec<Beam>,
    /// A running beam may still become better than the worst finished one.
    hopeful: bool,
    over: bool,
    random: Stream,
}

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

pub(super) fn run(run: &Run, mut session: Session) -> Result<Vec<Vec<Generated>>> {
    let config = run.config;
    let k = config.num_beams;
    let m = 2.max(1 + config.eos_token_id.len() as i64) * k;
    let mut searches: Vec<Search> =
        (0..run.prompts.len()).map(|image| Search::new(image, run)).collect();
    let mut results: Vec<Vec<Generated>> = run.prompts.iter().map(|_| Vec::new()).collect();
    let mut logits = session.next_logits(); // [B, V]
    session.repeat(k);
    logits = logits.repeat_interleave_self_int(k, 0, None); // [B·K, V]
    loop {
        run.check_interrupt()?;
        let logprobs = run.processors.apply(&session.ids, logits.log_softmax(-1, Kind::Float)); // [B·K, V]
        let candidates = candidates(&logprobs, &mut searches, k, m, config.do_sample)?;
        let time_is_up = run.stopping.time_is_up();
        let mut images = Vec::new();
        let mut rows = Vec::new();
        let mut tokens = Vec::new();
        let mut going = Vec::new();
        for (b, (mut search, candidates)) in searches.into_iter().zip(candidates).enumerate() {
            let parents = search.advance(&candidates, time_is_up, run);
            if search.over {
                let image = search.image;
                results[image] = search.best(config.num_return_sequences as usize);
                continue;
            }
            images.push(b as i64);
            rows.extend(parents.iter().map(|beam| b as i64 * k + *beam as i64));
            tokens.extend(search.running.iter().filter_map(|beam| beam.ids.last()));
            going.push(search);
        }
        searches = going;
        if searches.is_empty() {
            return Ok(results);
        }
        session.keep(&images, &rows);
        session.append(&tokens);
        logits = session.next_logits();
    }
}

impl Search {
    fn new(image: usize, run: &Run) -> Self {
        let k = run.config.num_beams as usize;
        let empty = |score| Beam { ids: Vec::new(), logprobs: Vec::new(), score, finish: None };
        // The beams start equal: only the first may be continued.
        let running = (0..k).map(|beam| empty(if beam == 0 { 0.0 } else { FAR })).collect();
        let number = run.hooks.first_image.wrapping_add(image as u64);
        Search {
            image,
            running,
            finished: (0..k).map(|_| empty(FAR)).collect(),
            hopeful: true,
            over: false,
            random: Stream::new(run.hooks.seed, number, 0),
        }
    }

    /// One step. -> the beams that the new running ones continue
    fn advance(&mut self, candidates: &[Candidate], time_is_up: bool, run: &Run) -> Vec<usize> {
        let config = run.config;
        let k = self.running.len();
        let prompt = &run.prompts[self.image];
        let continued: Vec<Beam> = candidates
            .iter()
            .map(|candidate| {
                let mut beam = self.running[candidate.beam].clone();
                beam.ids.push(candidate.token);
                beam.logprobs.push(candidate.logprob);
                beam.score = candidate.score;
                beam.finish = run.stopping.check(prompt, &beam.ids, time_is_up);
                beam
            })
            .collect();
        let running_score =
            |beam: &Beam| beam.score + if beam.finish.is_some() { FAR } else { 0.0 };
        let order = best(continued.iter().map(|beam| (running_score(beam), false)), k);

        // Only finished ones among the first K count, and only while they can matter.
        let length = continued.first().map_or(0, |beam| beam.ids.len());
        let full = self.finished.iter().all(|beam| beam.finish.is_some());
        let closed = (full && config.early_stopping == EarlyStopping::True) || !self.hopeful;
        let mut merged = std::mem::take(&mut self.finished);
        merged.extend(continued.iter().enumerate().map(|(rank, beam)| {
            let mut beam = beam.clone();
            beam.score /= power(length, config.length_penalty);
            if closed {
                beam.score += FAR;
            }
            if beam.finish.is_none() || rank >= k {
                beam.finish = None;
                beam.score += FAR;
            }
            beam
        }));
        let places = best(merged.iter().map(|beam| (beam.score, beam.finish.is_some())), k);
        self.finished = places.iter().map(|place| merged[*place].clone()).collect();

        self.over = continued.iter().all(|beam| beam.finish.is_some());
        let parents = order.iter().map(|rank| candidates[*rank].beam).collect();
        self.running = order
            .iter()
            .map(|rank| Beam {
                score: running_score(&continued[*rank]),
                ..continued[*rank].clone()
            })
            .collect();
        self.look_ahead(length, run);
        parents
    }

    /// The reference's `_check_early_stop_heuristic` and `_beam_search_has_unfinished_sequences`.
    fn look_ahead(&mut self, length: usize, run: &Run) {
        let config = run.config;
        let far_ahead =
            config.early_stopping == EarlyStopping::Never && config.length_penalty > 0.0;
        let reach =
            if far_ahead { (run.max_length - run.prompt_length()) as usize } else { length };
        let attainable = self.running[0].score / power(reach, config.length_penalty);
        let worst = self.finished.iter().map(|beam| beam.score).fold(f32::INFINITY, f32::min);
        let beatable = |beam: &Beam| attainable > if beam.finish.is_some() { worst } else { FAR };
        self.hopeful = self.hopeful && self.finished.iter().any(beatable);
        let full = self.finished.iter().all(|beam| beam.finish.is_some());
        let enough = full && config.early_stopping == EarlyStopping::True;
        self.over = self.over || !self.hopeful || enough;
    }

    fn best(self, count: usize) -> Vec<Generated> {
        let generated = |beam: Beam| Generated {
            ids: beam.ids,
            sequences_score: Some(f64::from(beam.score)),
            token_logprobs: beam.logprobs,
            finish: beam.finish.unwrap_or(Finish::Length),
        };
        self.finished.into_iter().take(count).map(generated).collect()
    }
}

/// length^penalty as f32 arithmetic meets it.
pub(super) fn power(length: usize, penalty: f64) -> f32 {
    (length as f64).powf(penalty) as f32
}

/// The places of the k greatest scores; of equal ones the marked first, then the first.
fn best(scores: impl Iterator<Item = (f32, bool)>, k: usize) -> Vec<usize> {
    let scores: Vec<(f32, bool)> = scores.collect();
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|a, b| {
        let (a, b) = (scores[*a], scores[*b]);
        b.0.total_cmp(&a.0).then(b.1.cmp(&a.1))
    });
    order.truncate(k);
    order
}

/// The M continuations of each image: the best, or a sample without replacement.
/// logprobs [B·K, V]
fn candidates(
    logprobs: &Tensor,
    searches: &mut [Search],
    k: i64,
    m: i64,
    do_sample: bool,
) -> Result<Vec<Vec<Candidate>>> {
    let (b, v) = (searches.len() as i64, logprobs.size()[1]);
    ensure!(m <= k * v, "{k} beams need {m} continuations, the vocabulary of {v} has too few");
    let running: Vec<f32> =
        searches.iter().flat_map(|search| search.running.iter().map(|beam| beam.score)).collect();
    let running = Tensor::from_slice(&running).to_device(logprobs.device()).unsqueeze(1);
    let scores = (logprobs + running).reshape([b, k * v]);
    let found = if do_sample {
        let mut streams: Vec<&mut Stream> = searches.iter_mut().map(|s| &mut s.random).collect();
        let drawn = draw(&scores, m, &mut streams)?;
        fetch(&scores, logprobs, &drawn, v)?
    } else {
        top(&scores, logprobs, m)?
    };
    Ok(found)
}

/// The M best of each image, equal scores in the order of (beam, token).
/// scores [B, K·V], logprobs [B·K, V]
pub(super) fn top(scores: &Tensor, logprobs: &Tensor, m: i64) -> Result<Vec<Vec<Candidate>>> {
    let v = logprobs.size()[1];
    // One more than needed, to see whether the last one had an equal.
    let more = (m + 1).min(scores.size()[1]);
    let (_, order) = scores.topk(more, -1, true, true);
    let mut found = fetch(scores, logprobs, &order, v)?;
    for (row, candidates) in found.iter_mut().enumerate() {
        // Topk leaves the order of equals open; a stable sort does not, and is seldom needed.
        if candidates.windows(2).any(|pair| pair[0].score == pair[1].score) {
            let scores = scores.narrow(0, row as i64, 1);
            let (_, order) = scores.sort_stable(true, -1, true);
            let k = scores.size()[1] / v;
            let logprobs = logprobs.narrow(0, row as i64 * k, k);
            *candidates = fetch(&scores, &logprobs, &order.narrow(1, 0, m), v)?.remove(0);
        }
        candidates.truncate(m as usize);
    }
    Ok(found)
}

/// The continuations at `places` [B, M] of scores [B, K·V], in one transfer. logprobs [B·K, V]
fn fetch(
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
fn draw(scores: &Tensor, m: i64, streams: &mut [&mut Stream]) -> Result<Tensor> {
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
        let found = top(&logprobs.reshape([1, 8]), &logprobs, 5).unwrap().remove(0);
        let found: Vec<(usize, i64)> = found.iter().map(|c| (c.beam, c.token)).collect();
        assert_eq!(found, [(0, 1), (0, 2), (1, 0), (0, 3), (1, 1)]);
    }
}
