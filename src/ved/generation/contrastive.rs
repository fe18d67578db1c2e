//! Contrastive search (Su et al. 2022; the reference's `_contrastive_search` of 4.46.3): of the
//! `top_k` likeliest tokens, the one that is likely and least resembles what has been said.

use anyhow::Result;
use tch::{Kind, Tensor};

use super::session::Session;
use super::step::{Rows, told};
use super::{Generated, Run};

pub(super) fn run(run: &Run, mut session: Session) -> Result<Vec<Vec<Generated>>> {
    let alpha = run.config.penalty_alpha.unwrap_or(0.0);
    let mut rows = Rows::new(1, run);
    let hidden = session.read();
    let mut logits = session.logits(&hidden); // [B, V]
    let mut context = directions(&hidden); // [B, L, D]
    loop {
        run.check_interrupt()?;
        let scores = run.processors.apply(&session.ids, logits);
        let (b, v) = scores.size2()?;
        let k = run.config.top_k.min(v);
        let (probabilities, tokens) = scores.softmax(-1, Kind::Float).topk(k, -1, true, true); // [B, k]
        session.repeat(k);
        session.append_column(&tokens.reshape([b * k, 1]));
        let hidden = session.read(); // [B·k, 1, D]
        let next_logits = session.logits(&hidden); // [B·k, V]
        let candidates = directions(&hidden).reshape([b, k, -1]); // [B, k, D]
        let likeness = candidates.matmul(&context.transpose(1, 2)); // [B, k, L]
        let likeness = likeness.amax([-1i64].as_slice(), false); // [B, k]
        // What the rules forbid stays forbidden, however new it would be (in the reference it need not).
        let forbidden = probabilities.le(0.0);
        let value = (probabilities * (1.0 - alpha) - likeness * alpha)
            .masked_fill(&forbidden, f64::NEG_INFINITY);
        let best = value.argmax(-1, true); // [B, 1]
        let chosen = told(&scores, &tokens.gather(1, &best, false))?;
        let Some(next) = rows.advance(chosen, run) else {
            return Ok(rows.into_results());
        };
        let best: Vec<i64> = Vec::try_from(best.flatten(0, -1))?;
        let chosen: Vec<i64> =
            next.images.iter().map(|image| image * k + best[*image as usize]).collect();
        session.keep(&next.images, &chosen);
        let device = scores.device();
        let chosen = Tensor::from_slice(&chosen).to_device(device);
        let images = Tensor::from_slice(&next.images).to_device(device);
        logits = next_logits.index_select(0, &chosen);
        let said = directions(&hidden.index_select(0, &chosen)); // [B', 1, D]
        context = Tensor::cat(&[context.index_select(0, &images), said], 1);
    }
}

/// Hidden states at length 1. [N, t, D] -> [N, t, D] f32
fn directions(hidden: &Tensor) -> Tensor {
    let hidden = hidden.to_kind(Kind::Float);
    let length = hidden.norm_scalaropt_dim(2, [-1i64].as_slice(), true);
    hidden / length
}
