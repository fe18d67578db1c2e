//! Group beam search (Vijayakumar et al. 2018; the reference's `_group_beam_search` and
//! `BeamSearchScorer` of 4.46.3): groups of beams that shun the tokens of the groups before them.

use anyhow::{Result, ensure};
use tch::{Kind, Tensor};

use super::beam::FAR;
use super::candidates::{Candidate, top};
use super::session::{Session, close_gaps};
use super::{EarlyStopping, Finish, Generated, Run};

/// A sequence of a beam; its score is the sum of log-probabilities.
#[derive(Clone)]
struct Beam {
    ids: Vec<i64>,
    logprobs: Vec<f64>,
    score: f32,
}

/// The beams of one group of one image.
struct Group {
    running: Vec<Beam>,
    /// At most as many as beams, in order of arrival; scores divided by length^length_penalty.
    finished: Vec<Generated>,
    /// The worst score of the finished ones.
    worst: f64,
    done: bool,
}

/// The groups of one image.
struct Search {
    image: usize,
    groups: Vec<Group>,
}

pub(super) fn run(run: &Run, mut session: Session) -> Result<Vec<Vec<Generated>>> {
    let beams = run.config.num_beams;
    let mut searches: Vec<Search> =
        (0..run.prompts.len()).map(|image| Search::new(image, run)).collect();
    let mut results: Vec<Vec<Generated>> = run.prompts.iter().map(|_| Vec::new()).collect();
    let mut logits = session.next_logits(); // [B, V]
    session.repeat(beams);
    logits = logits.repeat_interleave_self_int(beams, 0, None); // [B·K, V]
    loop {
        run.check_interrupt()?;
        let (parents, tokens) = step(&session.ids, &logits, &mut searches, run)?;
        let time_is_up = run.stopping.time_is_up();
        let v = logits.size()[1];
        let mut going = Vec::with_capacity(searches.len());
        for (search, step) in searches.into_iter().zip(parents.into_iter().zip(tokens)) {
            if search.over(time_is_up, run) {
                let image = search.image;
                results[image] = search.best(time_is_up, run);
                going.push(None);
            } else {
                going.push(Some((search, step)));
            }
        }
        let (mut images, mut rows, mut next) = (Vec::new(), Vec::new(), Vec::new());
        searches = Vec::new();
        for (b, (search, (parents, tokens))) in close_gaps(going) {
            images.push(b as i64);
            rows.extend(parents.iter().map(|beam| b as i64 * beams + beam));
            next.extend(tokens.iter().map(|token| (*token).clamp(0, v - 1)));
            searches.push(search);
        }
        if searches.is_empty() {
            return Ok(results);
        }
        session.keep(&images, &rows);
        session.append(&next);
        logits = session.next_logits();
    }
}

/// Of each image: the beams that go on (numbered in their image), and a token for each.
type Step = (Vec<Vec<i64>>, Vec<Vec<i64>>);

/// All groups, one after the other. ids [B·K, L], logits [B·K, V]
fn step(ids: &Tensor, logits: &Tensor, searches: &mut [Search], run: &Run) -> Result<Step> {
    let (groups, b) = (run.config.num_beam_groups, searches.len() as i64);
    let size = run.config.num_beams / groups;
    let logprobs = logits.log_softmax(-1, Kind::Float).reshape([b, groups, size, -1]);
    let ids = ids.reshape([b, groups, size, -1]);
    let mut parents: Vec<Vec<i64>> = searches.iter().map(|_| Vec::new()).collect();
    let mut tokens: Vec<Vec<i64>> = searches.iter().map(|_| Vec::new()).collect();
    for g in 0..groups {
        let logprobs = logprobs.select(1, g).flatten(0, 1); // [B·k, V]
        let ids = ids.select(1, g).flatten(0, 1); // [B·k, L]
        let penalty = penalty(&tokens, run, size, &logprobs);
        let logprobs = run.processors.apply_around(&ids, logprobs, |scores| match &penalty {
            Some(penalty) => scores - penalty,
            None => scores,
        });
        let candidates = candidates(&logprobs, searches, g as usize, run)?;
        for (image, candidates) in candidates.iter().enumerate() {
            let group = &mut searches[image].groups[g as usize];
            // A group that was done before this step says padding.
            let done = group.done.then(|| run.config.pad_token().unwrap_or(0));
            let continued = group.advance(candidates, run);
            parents[image].extend(continued.iter().map(|beam| g * size + *beam as i64));
            let said = |beam: &Beam| done.or(beam.ids.last().copied());
            tokens[image].extend(group.running.iter().filter_map(said));
        }
    }
    Ok((parents, tokens))
}

/// Hamming diversity: what a group's scores lose by the tokens of the groups before it.
/// `tokens` of each image -> [B·k, V], None for the first group
fn penalty(tokens: &[Vec<i64>], run: &Run, size: i64, like: &Tensor) -> Option<Tensor> {
    let (device, v) = (like.device(), like.size()[1]);
    if tokens.iter().all(Vec::is_empty) {
        return None;
    }
    let flat: Vec<i64> = tokens.concat();
    let tokens_of = Tensor::from_slice(&flat).reshape([tokens.len() as i64, -1]).to_device(device);
    let outside = tokens_of.lt(0).logical_or(&tokens_of.ge(v));
    let tokens_of = tokens_of.masked_fill(&outside, v); // a column of its own
    let ones = Tensor::ones(tokens_of.size(), (Kind::Float, device));
    let mut counts = Tensor::zeros([tokens.len() as i64, v + 1], (Kind::Float, device));
    let counts = counts.scatter_add_(1, &tokens_of, &ones).narrow(1, 0, v); // [B, V]
    Some(counts.repeat_interleave_self_int(size, 0, None) * run.config.diversity_penalty)
}

/// The best continuations of a group, of each image. logprobs [B·k, V]
fn candidates(
    logprobs: &Tensor,
    searches: &[Search],
    g: usize,
    run: &Run,
) -> Result<Vec<Vec<Candidate>>> {
    let (rows, v) = logprobs.size2()?;
    let size = rows / searches.len() as i64;
    let m = 2.max(1 + run.config.eos_token_id.len() as i64) * size;
    ensure!(
        m <= size * v,
        "{size} beams need {m} continuations, the vocabulary of {v} has too few"
    );
    let running: Vec<f32> = searches
        .iter()
        .flat_map(|search| search.groups[g].running.iter().map(|beam| beam.score))
        .collect();
    top(logprobs, &running, size, m)
}

impl Group {
    fn new(size: usize) -> Self {
        // The beams start equal: only the first may be continued.
        let beam = |beam| Beam {
            ids: Vec::new(),
            logprobs: Vec::new(),
            score: if beam == 0 { 0.0 } else { FAR },
        };
        Group {
            running: (0..size).map(beam).collect(),
            finished: Vec::new(),
            worst: 1e9,
            done: false,
        }
    }

    /// One step (`BeamSearchScorer.process`). -> the beams that the new running ones continue
    fn advance(&mut self, candidates: &[Candidate], run: &Run) -> Vec<usize> {
        let size = self.running.len();
        if self.done {
            return (0..size).collect();
        }
        let mut running = Vec::with_capacity(size);
        let mut parents = Vec::with_capacity(size);
        for (rank, candidate) in candidates.iter().enumerate() {
            let eos = run.stopping.is_eos(candidate.token);
            if eos && rank >= size {
                continue;
            }
            let mut beam = self.running[candidate.beam].clone();
            beam.logprobs.push(candidate.logprob);
            beam.score = candidate.score;
            if eos {
                // Whichever eos it was, the reference writes the first.
                beam.ids.push(run.config.eos_token_id[0]);
                self.add(beam, Finish::Eos, run);
            } else {
                beam.ids.push(candidate.token);
                running.push(beam);
                parents.push(candidate.beam);
            }
            if running.len() == size {
                break;
            }
        }
        self.running = running;
        let best = candidates.first().map_or(f32::NEG_INFINITY, |candidate| candidate.score);
        let length = self.running.first().map_or(0, |beam| beam.ids.len());
        self.done = self.is_done(f64::from(best), length, run);
        parents
    }

    /// `BeamHypotheses.add`
    fn add(&mut self, beam: Beam, finish: Finish, run: &Run) {
        let score = f64::from(beam.score) / (beam.ids.len() as f64).powf(run.config.length_penalty);
        let size = run.config.num_beams / run.config.num_beam_groups;
        if self.finished.len() as i64 >= size && score <= self.worst {
            return;
        }
        self.finished.push(Generated {
            ids: beam.ids,
            sequences_score: Some(score),
            token_logprobs: beam.logprobs,
            finish,
        });
        if self.finished.len() as i64 <= size {
            self.worst = self.worst.min(score);
            return;
        }
        let scores = self.finished.iter().map(value).enumerate();
        if let Some((least, _)) = scores.min_by(|a, b| a.1.total_cmp(&b.1)) {
            self.finished.remove(least);
        }
        self.worst = self.finished.iter().map(value).fold(f64::INFINITY, f64::min);
    }

    /// `BeamHypotheses.is_done`; `best` of all continuations of the step, `length` in new tokens.
    fn is_done(&self, best: f64, length: usize, run: &Run) -> bool {
        let penalty = run.config.length_penalty;
        let reach = match run.config.early_stopping {
            _ if self.finished.len() < self.running.len() => return false,
            EarlyStopping::True => return true,
            EarlyStopping::Never if penalty > 0.0 => (run.max_length - run.prompt_length()) as f64,
            _ => length as f64,
        };
        self.worst >= best / reach.powf(penalty)
    }
}

impl Search {
    fn new(image: usize, run: &Run) -> Self {
        let size = run.config.num_beams / run.config.num_beam_groups;
        let groups = (0..run.config.num_beam_groups).map(|_| Group::new(size as usize));
        Search { image, groups: groups.collect() }
    }

    /// All groups are done, or every row meets a condition.
    fn over(&self, time_is_up: bool, run: &Run) -> bool {
        let longest =
            self.groups.iter().flat_map(|group| &group.running).map(|beam| beam.ids.len());
        let full = longest.max().unwrap_or(0) as i64 + run.prompt_length() >= run.max_length;
        // Rows of groups that are done say nothing but padding.
        let padding = full
            || time_is_up
            || run.config.pad_token().is_some_and(|pad| run.stopping.is_eos(pad));
        let prompt = &run.prompts[self.image];
        let ends = |beam: &Beam| run.stopping.check(prompt, &beam.ids, time_is_up).is_some();
        self.groups.iter().all(|group| group.done)
            || self
                .groups
                .iter()
                .all(|group| if group.done { padding } else { group.running.iter().all(ends) })
    }

    /// `BeamSearchScorer.finalize`: the best of all groups; of equals the later.
    fn best(mut self, time_is_up: bool, run: &Run) -> Vec<Generated> {
        let prompt = &run.prompts[self.image];
        for group in self.groups.iter_mut().filter(|group| !group.done) {
            for beam in std::mem::take(&mut group.running) {
                let finish = run.stopping.check(prompt, &beam.ids, time_is_up);
                group.add(beam, finish.unwrap_or(Finish::Length), run);
            }
        }
        let mut all: Vec<Generated> =
            self.groups.into_iter().flat_map(|group| group.finished).collect();
        all.sort_by(|a, b| value(a).total_cmp(&value(b)));
        all.reverse();
        all.truncate(run.config.num_return_sequences as usize);
        all
    }
}

fn value(generated: &Generated) -> f64 {
    generated.sequences_score.unwrap_or(f64::NEG_INFINITY)
}
