//! Greedy search and sampling: one loop, the choice differs.

use anyhow::Result;
use tch::{Kind, Tensor};

use super::best;
use super::drafts::Drafts;
use super::rng::Stream;
use super::session::{Session, close_gaps};
use super::{Finish, Generated, Run};

/// The rows of the images that are still at work, `per_image` each.
pub(super) struct Rows {
    rows: Vec<Row>,
    per_image: usize,
    results: Vec<Vec<Generated>>,
}

/// A sequence in the making.
struct Row {
    image: usize,
    ids: Vec<i64>,
    logprobs: Vec<f64>,
    finish: Option<Finish>,
    random: Stream,
}

/// What the decoder reads next.
pub(super) struct Next {
    /// The images that go on, numbered as before the step.
    pub(super) images: Vec<i64>,
    /// Their rows, numbered so too, and a token for each.
    pub(super) rows: Vec<i64>,
    pub(super) tokens: Vec<i64>,
}

pub(super) fn run(run: &Run, mut session: Session) -> Result<Vec<Vec<Generated>>> {
    let per_image = run.config.num_return_sequences;
    let mut rows = Rows::new(per_image as usize, run);
    if per_image == 1 {
        session.expect_one_row_per_image();
    }
    let mut logits = session.next_logits(); // [B, V]
    session.repeat(per_image);
    logits = logits.repeat_interleave_self_int(per_image, 0, None);
    let mut drafts = Drafts::new(run);
    let mut chosen = rows.choose(&session.ids, logits, run)?;
    loop {
        run.check_interrupt()?;
        let Some(next) = rows.advance(chosen, run) else {
            return Ok(rows.into_results());
        };
        session.keep(&next.images, &next.rows);
        session.append(&next.tokens);
        chosen = match drafts.length(&session, run) {
            0 => {
                let logits = session.next_logits();
                rows.choose(&session.ids, logits, run)?
            }
            length => match drafts.check(length, &mut session, &mut rows, run)? {
                Some(chosen) => chosen,
                None => return Ok(rows.into_results()),
            },
        };
    }
}

impl Rows {
    pub(super) fn new(per_image: usize, run: &Run) -> Self {
        let row = |row: usize| {
            let (image, sequence) = (row / per_image, row % per_image);
            let number = run.hooks.first_image.wrapping_add(image as u64);
            Row {
                image,
                ids: Vec::new(),
                logprobs: Vec::new(),
                finish: None,
                random: Stream::new(run.hooks.seed, number, sequence as u64),
            }
        };
        Rows {
            rows: (0..run.prompts.len() * per_image).map(row).collect(),
            per_image,
            results: run.prompts.iter().map(|_| Vec::new()).collect(),
        }
    }

    pub(super) fn into_results(self) -> Vec<Vec<Generated>> {
        self.results
    }

    /// A token for each row, after the rules. ids [N, L], logits [N, V]
    pub(super) fn choose(&mut self, ids: &Tensor, logits: Tensor, run: &Run) -> Result<Chosen> {
        let scores = run.processors.apply(ids, logits); // [N, V]
        match run.config.do_sample {
            true => told(&scores, &sample(&scores, &mut self.rows)),
            false => likeliest(&scores),
        }
    }

    /// Takes the chosen tokens in; images of which all sequences have ended leave. None when no image
    /// is left.
    pub(super) fn advance(&mut self, (tokens, logprobs): Chosen, run: &Run) -> Option<Next> {
        let time_is_up = run.stopping.time_is_up();
        for (row, (token, logprob)) in self.rows.iter_mut().zip(tokens.iter().zip(logprobs)) {
            if row.finish.is_none() {
                row.push(*token, logprob, time_is_up, run);
            }
        }
        let mut rows = std::mem::take(&mut self.rows).into_iter().zip(tokens).enumerate();
        let mut images = Vec::new();
        loop {
            let image: Vec<_> = rows.by_ref().take(self.per_image).collect();
            if image.is_empty() {
                break;
            }
            if image.iter().any(|(_, (row, _))| row.finish.is_none()) {
                images.push(Some(image));
                continue;
            }
            images.push(None);
            for (_, (row, _)) in image {
                self.results[row.image].push(row.finished());
            }
        }
        let mut next = Next { images: Vec::new(), rows: Vec::new(), tokens: Vec::new() };
        for (number, image) in close_gaps(images) {
            next.images.push(number as i64);
            for (index, (row, token)) in image {
                // What ended rows read is of no consequence; the reference gives them padding.
                next.rows.push(index as i64);
                next.tokens.push(token);
                self.rows.push(row);
            }
        }
        (!self.rows.is_empty()).then_some(next)
    }
}

impl Row {
    fn push(&mut self, token: i64, logprob: f64, time_is_up: bool, run: &Run) {
        self.ids.push(token);
        self.logprobs.push(logprob);
        if let Some(on_token) = run.hooks.on_token {
            on_token(token);
        }
        self.finish = run.stopping.check(&run.prompts[self.image], &self.ids, time_is_up);
    }

    fn finished(self) -> Generated {
        Generated {
            ids: self.ids,
            sequences_score: None,
            token_logprobs: self.logprobs,
            finish: self.finish.unwrap_or(Finish::Length),
        }
    }
}

/// One token a row by inverting the cumulative distribution at a number of the row's own stream.
/// scores [N, V] -> [N, 1]
fn sample(scores: &Tensor, rows: &mut [Row]) -> Tensor {
    let uniform: Vec<f64> = rows.iter_mut().map(|row| row.random.uniform()).collect();
    let uniform = Tensor::from_slice(&uniform).unsqueeze(1).to_device(scores.device()); // [N, 1]
    invert(&scores.softmax(-1, Kind::Double), &uniform)
}

/// Where the cumulative sums of `weights` [N, V] f64 pass the shares `uniform` [N, M] of their totals.
/// -> [N, M]
pub(super) fn invert(weights: &Tensor, uniform: &Tensor) -> Tensor {
    let v = weights.size()[1];
    let cumulative = weights.cumsum(-1, Kind::Double);
    let wanted = uniform * cumulative.narrow(1, v - 1, 1);
    wanted.searchsorted(&cumulative, false, true, "right", None::<Tensor>).clamp_max(v - 1)
}

/// A token for each row, and its log-probability.
pub(super) type Chosen = (Vec<i64>, Vec<f64>);

/// The greatest score of each row, the first of equals. scores [N, V]
fn likeliest(scores: &Tensor) -> Result<Chosen> {
    match best::rows(scores, 1) {
        Some(rows) => {
            let pairs = rows.iter().flat_map(best::Row::logprobs);
            Ok(pairs.map(|(token, logprob)| (token, f64::from(logprob))).unzip())
        }
        None => told(scores, &scores.max_dim(-1, true).1),
    }
}

/// The chosen tokens with their log-probabilities, in one transfer. scores [N, V], chosen [N, 1]
pub(super) fn told(scores: &Tensor, chosen: &Tensor) -> Result<Chosen> {
    let logprobs = scores.log_softmax(-1, Kind::Float).gather(1, chosen, false);
    let both = Tensor::cat(&[chosen.to_kind(Kind::Double), logprobs.to_kind(Kind::Double)], 1);
    let both: Vec<f64> = Vec::try_from(both.flatten(0, -1))?;
    Ok(both.chunks(2).map(|pair| (pair[0] as i64, pair[1])).unzip())
}
