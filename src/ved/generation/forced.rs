//! A search whose tokens are given: what it would have chosen from, step by step.

use anyhow::Result;
use tch::{Kind, Tensor, no_grad};

use super::session::Session;
use super::{GenerationConfig, Hooks, Run};
use crate::decoders::Decoder;

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
            let mut scores = session.next_logits();
            if config.num_beams > 1 {
                // Rules act on log-probabilities there.
                scores = scores.log_softmax(-1, Kind::Float);
            }
            steps.push(run.processors.apply(&session.ids, scores));
            session.append(&[*token]);
        }
        Ok(Tensor::cat(&steps, 0))
    })
}
