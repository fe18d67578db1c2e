//! Generation (the reference's `GenerationMixin.generate`): settings, searches, rules, ends.
//!
//! Beam search is that of transformers 4.57.6, group beam search and contrastive search those of
//! 4.46.3, the last version that has them. Scores are f32 whatever the model computes in. Images
//! leave the batch as they end, and no image's text depends on the others.

mod beam;
mod best;
mod candidates;
pub mod config;
mod contrastive;
mod drafts;
mod forbid;
mod forced;
mod group;
pub mod logits;
mod read;
mod resolve;
mod rng;
mod session;
mod step;
mod stopping;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
mod validate;
pub mod warpers;

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, bail, ensure};
use tch::{Kind, Tensor, no_grad};

pub use config::{EarlyStopping, GenerationConfig, GenerationMode, LengthRule};
pub use forced::{Step, processed_scores, replay};
pub use resolve::Sources;
pub use stopping::LoopDetector;

use crate::decoders::Decoder;
use logits::{Processors, Setting};
use session::Session;
use stopping::Stopping;

/// Token ids (special ones too) to text.
pub type Decode<'a> = &'a dyn Fn(&[i64]) -> String;

/// What the caller adds to the settings; all of it optional.
#[derive(Clone, Copy, Default)]
pub struct Hooks<'a> {
    /// `stop_strings` need it.
    pub decode: Option<Decode<'a>>,
    /// Called with every token as it is chosen. One image, one sequence, no beams.
    pub on_token: Option<&'a dyn Fn(i64)>,
    /// Ends sequences that repeat themselves.
    pub loop_detector: Option<LoopDetector>,
    /// Set to true, it ends generation with the error `Interrupted`.
    pub interrupt: Option<&'a AtomicBool>,
    /// [V] bool: only these tokens and eos may be written.
    pub allowed: Option<&'a Tensor>,
    /// Greedy search of one sequence lets weights of 8 bits write ahead (`nn::draft`): the same text from
    /// fewer readings of the weights.
    pub drafts: bool,
    /// Where sampling starts.
    pub seed: u64,
    /// Number of the batch's first image. A sampled text depends on the seed, the image's number and
    /// the sequence's, not on the batch.
    pub first_image: u64,
}

/// One generated sequence.
#[derive(Clone, Debug, PartialEq)]
pub struct Generated {
    /// New tokens, eos included, prompt and padding not.
    pub ids: Vec<i64>,
    /// Beam modes: sum of log-probabilities / length^length_penalty.
    pub sequences_score: Option<f64>,
    /// Of each id: its log-probability after the rules. (In beam modes, where rules act on
    /// log-probabilities, what they left, as the reference's `compute_transition_scores`.)
    pub token_logprobs: Vec<f64>,
    pub finish: Finish,
}

/// Why a sequence ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    Eos,
    Length,
    Stop,
    Time,
    Repetition,
    /// The picture is empty: nothing was generated.
    Blank,
}

/// The error of an interrupted generation.
#[derive(Debug)]
pub struct Interrupted;

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

/// Generates `num_return_sequences` sequences for each image, best first.
///
/// `encoder_hidden_states` [B, S, D] as the decoder reads them; `prompt` [B, P] holds the tokens that
/// sequences start with, start token included. Image-major result.
pub fn generate(
    decoder: &dyn Decoder,
    encoder_hidden_states: &Tensor,
    prompt: &Tensor,
    config: &GenerationConfig,
    hooks: &Hooks,
) -> Result<Vec<Vec<Generated>>> {
    if prompt.size()[0] == 0 {
        return Ok(Vec::new());
    }
    ensure!(
        config.stop_strings.is_empty() || hooks.decode.is_some(),
        "stop_strings need a tokenizer, and there is none"
    );
    no_grad(|| {
        let run = Run::new(decoder, prompt, config, hooks)?;
        let session = Session::new(decoder, encoder_hidden_states, prompt, config);
        match config.mode() {
            GenerationMode::Greedy | GenerationMode::Sample => step::run(&run, session),
            GenerationMode::Contrastive => contrastive::run(&run, session),
            GenerationMode::Beam | GenerationMode::BeamSample => beam::run(&run, session),
            GenerationMode::GroupBeam => group::run(&run, session),
        }
    })
}

/// Refuses settings that `generate` would refuse for this decoder, in the same words.
pub fn check(decoder: &dyn Decoder, prompt: &[i64], config: &GenerationConfig) -> Result<()> {
    Run::new(decoder, &Tensor::from_slice(prompt).unsqueeze(0), config, &Hooks::default()).map(drop)
}

/// What stays the same during one call of `generate`.
struct Run<'a> {
    config: &'a GenerationConfig,
    hooks: &'a Hooks<'a>,
    processors: Processors,
    stopping: Stopping<'a>,
    /// The prompt of each image.
    prompts: Vec<Vec<i64>>,
    max_length: i64,
}

impl<'a> Run<'a> {
    fn new(
        decoder: &dyn Decoder,
        prompt: &Tensor,
        config: &'a GenerationConfig,
        hooks: &'a Hooks<'a>,
    ) -> Result<Self> {
        let limits = decoder.limits();
        let (images, p) = prompt.size2()?;
        let mut max_length = config.total_length(p);
        if let Some(positions) = limits.max_positions {
            max_length = max_length.min(validate::longest(config, positions));
        }
        ensure!(p > 0, "the prompt is empty; it must hold the start token");
        ensure!(
            p < max_length,
            "the prompt has {p} tokens (start token included) and max_length is {max_length}, \
             which leaves nothing to generate; set max_new_tokens or a greater max_length"
        );
        let flat: Vec<i64> = Vec::try_from(&prompt.to_kind(Kind::Int64).flatten(0, -1))?;
        let v = limits.vocab_size;
        if let Some(id) = flat.iter().find(|id| !(0..v).contains(*id)) {
            bail!("the prompt has the token id {id}, the vocabulary ends at {v}");
        }
        ensure!(
            hooks.on_token.is_none()
                || (images == 1 && config.num_beams == 1 && config.num_return_sequences == 1),
            "tokens can be streamed for one image, without beams, one sequence"
        );
        let (beams, groups) = (config.num_beams, config.num_beam_groups);
        ensure!(
            beams == 1 || beams % groups.max(1) == 0,
            "num_beams is {beams}, no multiple of num_beam_groups, which is {groups}"
        );
        let setting = Setting {
            prompt: p,
            max_length,
            vocab_size: v,
            device: prompt.device(),
            allowed: hooks.allowed,
        };
        Ok(Run {
            config,
            hooks,
            processors: Processors::new(config, &setting)?,
            stopping: Stopping::new(config, hooks, max_length),
            prompts: flat.chunks(p as usize).map(<[i64]>::to_vec).collect(),
            max_length,
        })
    }

    /// Asked once a step.
    fn check_interrupt(&self) -> Result<()> {
        match self.hooks.interrupt.is_some_and(|flag| flag.load(Ordering::Relaxed)) {
            true => Err(Interrupted.into()),
            false => Ok(()),
        }
    }

    fn prompt_length(&self) -> i64 {
        self.prompts.first().map_or(0, Vec::len) as i64
    }
}
