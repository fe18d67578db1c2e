//! A search whose tokens are given: what it saw and would have chosen from, step by step.

use anyhow::Result;
use tch::{Kind, Tensor, no_grad};

use super::session::Session;
use super::{GenerationConfig, Hooks, Run};
use crate::decoders::Decoder;

/// How one token of a given path came about.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Its log-probability, as `Generated::token_logprobs`.
    pub logprob: f64,
    /// The likeliest tokens in its place and their log-probabilities, best first; none that a rule excludes.
    pub best: Vec<(i64, f64)>,
    /// [S]: cross-attention of the last decoder layer, the mean over its heads; sums to 1.
    pub last: Vec<f32>,
    /// [S]: the same, the mean over all layers.
    pub mean: Vec<f32>,
}

/// Goes along `paths`, the new tokens of each image, and tells of each token how it came about.
///
/// Takes the same steps as the search did, one token at a time, so that it reads the same numbers.
/// `count` tokens are told beside each; of `hooks` only `allowed` is heard. Rules that look at other
/// beams (diversity between groups, contrast) have no part in it.
/// encoder_hidden_states [B, S, D], prompt [B, P]
pub fn replay(
    decoder: &dyn Decoder,
    encoder_hidden_states: &Tensor,
    prompt: &Tensor,
    paths: &[&[i64]],
    config: &GenerationConfig,
    hooks: &Hooks,
    count: usize,
) -> Result<Vec<Vec<Step>>> {
    let hooks = Hooks { allowed: hooks.allowed, ..Hooks::default() };
    let mut told: Vec<Vec<Step>> = paths.iter().map(|_| Vec::new()).collect();
    if told.is_empty() {
        return Ok(told);
    }
    no_grad(|| {
        let run = Run::new(decoder, prompt, config, &hooks)?;
        let mut session = Session::new(decoder, encoder_hidden_states, prompt, config);
        session.watch();
        let longest = paths.iter().map(|path| path.len()).max().unwrap_or(0);
        for place in 0..longest {
            let scores = next_scores(&run, &mut session); // [B, V]
            // What ended paths read is of no consequence.
            let tokens: Vec<i64> =
                paths.iter().map(|path| path.get(place).copied().unwrap_or(0)).collect();
            let steps = steps(&logprobs(scores, config), &tokens, &session.attentions(), count)?;
            for ((told, path), step) in told.iter_mut().zip(paths).zip(steps) {
                if place < path.len() {
                    told.push(step);
                }
            }
            session.append(&tokens);
        }
        Ok(told)
    })
}

/// Scores after all rules and (with `do_sample`) warpers, before each token of `path`.
///
/// encoder_hidden_states [1, S, D], prompt [1, P] -> [steps, V] f32, -inf where a token is excluded.
/// Drawn ids can't be compared with the reference's; these scores can.
pub fn processed_scores(
    decoder: &dyn Decoder,
    encoder_hidden_states: &Tensor,
    prompt: &Tensor,
    path: &[i64],
    config: &GenerationConfig,
) -> Result<Tensor> {
    no_grad(|| {
        let hooks = Hooks::default();
        let run = Run::new(decoder, prompt, config, &hooks)?;
        let mut session = Session::new(decoder, encoder_hidden_states, prompt, config);
        let mut steps = Vec::with_capacity(path.len());
        for token in path {
            steps.push(next_scores(&run, &mut session));
            session.append(&[*token]);
        }
        Ok(Tensor::cat(&steps, 0))
    })
}

/// -> [N, V] f32
fn next_scores(run: &Run, session: &mut Session) -> Tensor {
    let mut scores = session.next_logits();
    if run.config.num_beams > 1 {
        // Rules act on log-probabilities there.
        scores = scores.log_softmax(-1, Kind::Float);
    }
    run.processors.apply(&session.ids, scores)
}

/// As `Generated::token_logprobs` counts: beams take what the rules left. [N, V] -> [N, V]
fn logprobs(scores: Tensor, config: &GenerationConfig) -> Tensor {
    if config.num_beams > 1 { scores } else { scores.log_softmax(-1, Kind::Float) }
}

/// One step of each row. logprobs [N, V], attentions [N, A, t, S] a layer
fn steps(
    logprobs: &Tensor,
    tokens: &[i64],
    attentions: &[&Tensor],
    count: usize,
) -> Result<Vec<Step>> {
    let chosen = Tensor::from_slice(tokens).to_device(logprobs.device()).unsqueeze(1);
    let chosen: Vec<f64> = floats(&logprobs.gather(1, &chosen, false))?;
    let count = (count as i64).min(logprobs.size()[1]);
    let (values, ids) = logprobs.topk(count, -1, true, true); // [N, count]
    let ids: Vec<i64> = Vec::try_from(ids.flatten(0, -1))?;
    let values = floats(&values)?;
    let last_query = |layer: &&Tensor| layer.select(2, -1).mean_dim(1, false, Kind::Float); // [N, S]
    let layers: Vec<Tensor> = attentions.iter().map(last_query).collect();
    let all = Tensor::stack(&layers, 0); // [L, N, S]
    let mean: Vec<Vec<f32>> = Vec::try_from(all.mean_dim(0, false, Kind::Float))?;
    let last: Vec<Vec<f32>> = Vec::try_from(all.select(0, -1))?;
    let rows = chosen.into_iter().zip(last.into_iter().zip(mean)).enumerate();
    Ok(rows
        .map(|(row, (logprob, (last, mean)))| {
            let own = row * count as usize..(row + 1) * count as usize;
            let best = ids[own.clone()].iter().copied().zip(values[own].iter().copied());
            let best = best.filter(|(_, value)| value.is_finite()).collect();
            Step { logprob, best, last, mean }
        })
        .collect())
}

fn floats(values: &Tensor) -> Result<Vec<f64>> {
    Ok(Vec::try_from(values.to_kind(Kind::Double).flatten(0, -1))?)
}
