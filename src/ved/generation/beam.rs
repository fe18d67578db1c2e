//! Beam search and beam sampling (the reference's vectorised `_beam_search` of 4.57.6).
//!
//! The device finds the best continuations of each image (`candidates`); the bookkeeping of their few
//! numbers is done here, in f32 as there. An image is on its own, so it leaves when its search is over.

use anyhow::{Result, ensure};
use tch::{Kind, Tensor};

use super::candidates::{Candidate, draw, fetch, likeliest, scores};
use super::rng::Stream;
use super::session::{Session, close_gaps};
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
        let candidates = candidates(run, &session.ids, logits, &mut searches, m)?;
        let time_is_up = run.stopping.time_is_up();
        let mut next = Vec::with_capacity(searches.len());
        for (mut search, candidates) in searches.into_iter().zip(candidates) {
            let parents = search.advance(&candidates, time_is_up, run);
            if search.over {
                let image = search.image;
                results[image] = search.best(config.num_return_sequences as usize);
                next.push(None);
            } else {
                next.push(Some((search, parents)));
            }
        }
        let (mut images, mut rows, mut tokens) = (Vec::new(), Vec::new(), Vec::new());
        searches = Vec::new();
        for (b, (search, parents)) in close_gaps(next) {
            images.push(b as i64);
            rows.extend(parents.iter().map(|beam| b as i64 * k + *beam as i64));
            tokens.extend(search.running.iter().filter_map(|beam| beam.ids.last()));
            searches.push(search);
        }
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
/// ids [B·K, L], logits [B·K, V]
fn candidates(
    run: &Run,
    ids: &Tensor,
    logits: Tensor,
    searches: &mut [Search],
    m: i64,
) -> Result<Vec<Vec<Candidate>>> {
    let (b, k, v) = (searches.len() as i64, run.config.num_beams, logits.size()[1]);
    ensure!(m <= k * v, "{k} beams need {m} continuations, the vocabulary of {v} has too few");
    let running: Vec<f32> =
        searches.iter().flat_map(|search| search.running.iter().map(|beam| beam.score)).collect();
    if !run.config.do_sample {
        return likeliest(&run.processors, ids, logits, &running, k, m);
    }
    let logprobs = run.processors.apply(ids, logits.log_softmax(-1, Kind::Float)); // [B·K, V]
    let scores = scores(&logprobs, &running, b);
    let mut streams: Vec<&mut Stream> = searches.iter_mut().map(|s| &mut s.random).collect();
    let drawn = draw(&scores, m, &mut streams)?;
    fetch(&scores, &logprobs, &drawn, v)
}
