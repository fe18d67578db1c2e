//! How a text came about: the same tokens once more, with somebody who takes notes.

use anyhow::Result;
use tch::Tensor;

use super::Reader;
use super::prepare::Prepared;
use crate::encoders::Grid;
use crate::image::Rgb8;
use crate::image::filter::Filter;
use crate::image::resample::resize;
use crate::ved::generation::{self, Generated, Hooks, Step};

/// Tokens told beside each token of the text.
const BEST: usize = 5;

/// The longer side of the picture as given; larger ones are reduced, a page is no place for them.
const LARGEST: usize = 1024;

/// What there is to see of the way from a picture to its best text.
pub struct Explanation {
    /// The picture as given, upright, perhaps reduced.
    pub given: Rgb8,
    /// What the image processor made of it, as a picture again.
    pub seen: Rgb8,
    /// Where the encoder's states lie in `seen`.
    pub grid: Grid,
    /// One a token of the best text; empty where no model was asked.
    pub steps: Vec<ExplainedStep>,
}

/// One token of a text.
pub struct ExplainedStep {
    /// The likeliest tokens in its place, best first: token, id, log-probability.
    pub best: Vec<(String, i64, f64)>,
    /// [S]: cross-attention of the last decoder layer, the mean over heads.
    pub last: Vec<f32>,
    /// [S]: the mean over all layers.
    pub mean: Vec<f32>,
}

/// The picture as it is kept for an explanation.
pub(super) fn kept(image: &Rgb8) -> Result<Rgb8> {
    let longer = image.width.max(image.height);
    if longer <= LARGEST {
        return Ok(image.clone());
    }
    let side = |side: usize| (side * LARGEST / longer).max(1);
    resize(image, side(image.width), side(image.height), Filter::Bilinear)
}

impl Reader {
    /// The steps of each image's best sequence; none where nobody asked. states [B, S, D], prompt [B, P]
    pub(super) fn replay(
        &self,
        states: &Tensor,
        prompt: &Tensor,
        generated: &[Vec<Generated>],
        hooks: &Hooks,
    ) -> Result<Vec<Vec<Step>>> {
        if !self.explain {
            return Ok(generated.iter().map(|_| Vec::new()).collect());
        }
        let paths = generated.iter();
        let paths: Vec<&[i64]> =
            paths.map(|all| all.first().map_or(&[][..], |best| &best.ids)).collect();
        let decoder = self.model.decoder.as_ref();
        generation::replay(decoder, states, prompt, &paths, &self.generation, hooks, BEST)
    }

    /// None where nobody asked.
    pub(super) fn explanation(&self, image: Prepared, steps: Vec<Step>) -> Option<Explanation> {
        let given = image.given?;
        let processor = &self.processor.image_processor;
        let (height, width) = (image.pixels.height as i64, image.pixels.width as i64);
        let token = |id: i64| self.processor.tokenizer.id_to_token(id).unwrap_or_default();
        let told = |step: Step| ExplainedStep {
            best: step.best.into_iter().map(|(id, logprob)| (token(id), id, logprob)).collect(),
            last: step.last,
            mean: step.mean,
        };
        Some(Explanation {
            given,
            seen: processor.to_picture(&image.pixels),
            grid: self.model.encoder.grid(height, width),
            steps: steps.into_iter().map(told).collect(),
        })
    }
}
