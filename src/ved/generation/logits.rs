//! Rules that change the scores of the next token, one struct a rule, in the reference's order.

use anyhow::{Result, ensure};
use tch::{Device, Kind, Tensor};

use super::config::{GenerationConfig, GenerationMode};
use super::forbid::{Mask, MinLength, NoRepeatNgram, Suppress, SuppressAtBegin};
use super::warpers;

/// A rule. All rows at once.
pub trait LogitsProcessor {
    /// `ids` [N, L] are the tokens so far, prompt included; `scores` [N, V] f32, which may be changed in
    /// place -> [N, V]
    fn apply(&self, ids: &Tensor, scores: Tensor) -> Tensor;

    /// What it does after `length` tokens.
    fn effect(&self, _length: i64) -> Effect {
        Effect::Changes
    }
}

/// What becomes of scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    Nothing,
    /// Some become -inf, the others stay.
    Forbids,
    Changes,
}

impl Effect {
    pub(super) fn forbids_if(condition: bool) -> Self {
        if condition { Effect::Forbids } else { Effect::Nothing }
    }
}

/// What the rules must know besides the settings.
pub struct Setting<'a> {
    /// Tokens of the prompt, start token included.
    pub prompt: i64,
    /// Total length at which a sequence ends.
    pub max_length: i64,
    pub vocab_size: i64,
    pub device: Device,
    /// [V] bool: the only tokens that may be written, besides eos.
    pub allowed: Option<&'a Tensor>,
}

/// The rules of a config, in order.
pub struct Processors {
    /// Applied before the beam groups are told apart.
    before: Vec<Box<dyn LogitsProcessor>>,
    after: Vec<Box<dyn LogitsProcessor>>,
}

impl Processors {
    /// Errors where a setting does not fit the vocabulary.
    pub fn new(config: &GenerationConfig, setting: &Setting) -> Result<Self> {
        let mut before: Vec<Box<dyn LogitsProcessor>> = Vec::new();
        let mut after: Vec<Box<dyn LogitsProcessor>> = Vec::new();
        let bias = &config.sequence_bias;
        if !bias.is_empty() {
            before.push(Box::new(SequenceBias::new("sequence_bias", bias, setting)?));
        }
        // Hamming diversity comes here: group beam search applies it between the two lists.
        push_rules_of_history(config, setting, &mut after)?;
        push_rules_of_place(config, setting, &mut after)?;
        if config.do_sample {
            let beams = config.mode() == GenerationMode::BeamSample;
            warpers::push(config, beams, &mut after);
        }
        if config.renormalize_logits {
            after.push(Box::new(Renormalize));
        }
        Ok(Processors { before, after })
    }

    /// What all rules together do after `length` tokens.
    pub fn effect(&self, length: i64) -> Effect {
        let effects = self.before.iter().chain(&self.after).map(|rule| rule.effect(length));
        effects.max().unwrap_or(Effect::Nothing)
    }

    /// ids [N, L], scores [N, V], which may be changed in place -> [N, V]
    pub fn apply(&self, ids: &Tensor, scores: Tensor) -> Tensor {
        self.apply_around(ids, scores, |scores| scores)
    }

    /// `between` is applied where the reference has Hamming diversity.
    pub(super) fn apply_around(
        &self,
        ids: &Tensor,
        mut scores: Tensor,
        between: impl FnOnce(Tensor) -> Tensor,
    ) -> Tensor {
        for processor in &self.before {
            scores = processor.apply(ids, scores);
        }
        scores = between(scores);
        for processor in &self.after {
            scores = processor.apply(ids, scores);
        }
        scores
    }
}

/// From repetition to the allowed tokens.
fn push_rules_of_history(
    config: &GenerationConfig,
    setting: &Setting,
    list: &mut Vec<Box<dyn LogitsProcessor>>,
) -> Result<()> {
    let (v, device) = (setting.vocab_size, setting.device);
    let eos = config.eos_token_id.as_slice();
    if config.repetition_penalty != 1.0 {
        list.push(Box::new(RepetitionPenalty { penalty: config.repetition_penalty }));
    }
    if config.no_repeat_ngram_size > 0 {
        list.push(Box::new(NoRepeatNgram { size: config.no_repeat_ngram_size }));
    }
    if !config.bad_words_ids.is_empty() {
        // An eos alone can't be a bad word.
        let words = config.bad_words_ids.iter();
        let words = words.filter(|word| !matches!(word.as_slice(), [id] if eos.contains(id)));
        let bias: Vec<_> = words.map(|word| (word.clone(), f64::NEG_INFINITY)).collect();
        list.push(Box::new(SequenceBias::new("bad_words_ids", &bias, setting)?));
    }
    let min_length = config.total_min_length(setting.prompt);
    if min_length > 0 && !eos.is_empty() {
        list.push(Box::new(MinLength { min_length, eos: Mask::of(eos, v, device) }));
    }
    if let Some(allowed) = setting.allowed {
        let found = allowed.size();
        ensure!(found == [v], "the allowed tokens are {found:?}, the vocabulary is {v}");
        let allowed = allowed.to_device(device).to_kind(Kind::Bool);
        let allowed = allowed.logical_or(&Mask::of(eos, v, device).members);
        list.push(Box::new(Suppress { tokens: Mask::new(allowed.logical_not()) }));
    }
    Ok(())
}

/// From the forced tokens to the suppressed ones.
fn push_rules_of_place(
    config: &GenerationConfig,
    setting: &Setting,
    list: &mut Vec<Box<dyn LogitsProcessor>>,
) -> Result<()> {
    let (v, device) = (setting.vocab_size, setting.device);
    if let Some(id) = config.forced_bos_token_id {
        list.push(Box::new(Forced::new("forced_bos_token_id", &[id], 1, setting)?));
    }
    if !config.forced_eos_token_id.is_empty() {
        let (ids, at) = (&config.forced_eos_token_id, setting.max_length - 1);
        list.push(Box::new(Forced::new("forced_eos_token_id", ids, at, setting)?));
    }
    if config.remove_invalid_values {
        list.push(Box::new(RemoveInvalid));
    }
    if let Some((start, factor)) = config.exponential_decay_length_penalty {
        let eos = Mask::of(&config.eos_token_id, v, device);
        list.push(Box::new(ExponentialDecay { start: start + setting.prompt, factor, eos }));
    }
    if !config.suppress_tokens.is_empty() {
        list.push(Box::new(Suppress { tokens: Mask::of(&config.suppress_tokens, v, device) }));
    }
    if !config.begin_suppress_tokens.is_empty() {
        // A forced first token moves the beginning on.
        let forced = setting.prompt == 1 && config.forced_bos_token_id.is_some();
        let begin = setting.prompt + i64::from(forced);
        let tokens = Mask::of(&config.begin_suppress_tokens, v, device);
        list.push(Box::new(SuppressAtBegin { tokens, begin }));
    }
    Ok(())
}

/// `sequence_bias` and `bad_words_ids`: a bias on the token that would complete a sequence.
pub struct SequenceBias {
    /// [V], of the sequences of one token.
    single: Tensor,
    /// What stands in it.
    singles: Vec<f64>,
    longer: Vec<(Vec<i64>, f64)>,
}

impl SequenceBias {
    fn new(key: &str, biases: &[(Vec<i64>, f64)], setting: &Setting) -> Result<Self> {
        let vocab_size = setting.vocab_size;
        let mut single = vec![0f32; vocab_size as usize];
        let mut longer: Vec<(Vec<i64>, f64)> = Vec::new();
        for (ids, bias) in biases {
            if let Some(id) = ids.iter().find(|id| **id >= vocab_size) {
                anyhow::bail!("{key} has the token id {id}, the vocabulary ends at {vocab_size}");
            }
            match ids.as_slice() {
                [id] => single[*id as usize] = *bias as f32,
                // A sequence named twice keeps its last bias.
                _ => match longer.iter_mut().find(|(known, _)| known == ids) {
                    Some(known) => known.1 = *bias,
                    None => longer.push((ids.clone(), *bias)),
                },
            }
        }
        let singles = single.iter().filter(|by| **by != 0.0).map(|by| f64::from(*by)).collect();
        let single = Tensor::from_slice(&single).to_device(setting.device);
        Ok(SequenceBias { single, singles, longer })
    }
}

impl LogitsProcessor for SequenceBias {
    fn apply(&self, ids: &Tensor, scores: Tensor) -> Tensor {
        let length = ids.size()[1];
        let bias = scores.zeros_like() + &self.single; // [N, V]
        for (sequence, by) in &self.longer {
            let n = sequence.len() as i64;
            if n > length {
                continue;
            }
            let prefix =
                Tensor::from_slice(&sequence[..sequence.len() - 1]).to_device(ids.device());
            let matches =
                ids.narrow(1, length - (n - 1), n - 1).eq_tensor(&prefix).all_dim(1, false);
            let added = bias.zeros_like().select(1, 0).masked_fill(&matches, *by); // [N]
            let mut column = bias.select(1, sequence[sequence.len() - 1]);
            let _ = column.g_add_(&added);
        }
        scores + bias
    }

    fn effect(&self, length: i64) -> Effect {
        let applies = |ids: &[i64]| ids.len() as i64 <= length;
        let longer = self.longer.iter().filter(|(ids, _)| applies(ids)).map(|(_, by)| *by);
        let all = longer.chain(self.singles.iter().copied());
        let effect = |by| match by {
            f64::NEG_INFINITY => Effect::Forbids,
            _ => Effect::Changes,
        };
        all.map(effect).max().unwrap_or(Effect::Nothing)
    }
}

/// `repetition_penalty`: tokens that occurred, prompt included, once each.
pub struct RepetitionPenalty {
    pub penalty: f64,
}

impl LogitsProcessor for RepetitionPenalty {
    fn apply(&self, ids: &Tensor, scores: Tensor) -> Tensor {
        let score = scores.gather(1, ids, false); // [N, L]
        let penalized =
            (&score * self.penalty).where_self(&score.lt(0.0), &(&score / self.penalty));
        scores.scatter(1, ids, &penalized)
    }
}

/// `forced_bos_token_id` and `forced_eos_token_id`: at one length, only these tokens.
pub struct Forced {
    at: i64,
    /// [V]: 0 for the tokens, -inf for the others.
    scores: Tensor,
}

impl Forced {
    fn new(key: &str, ids: &[i64], at: i64, setting: &Setting) -> Result<Self> {
        let (vocab_size, device) = (setting.vocab_size, setting.device);
        for id in ids {
            let inside = (0..vocab_size).contains(id);
            ensure!(inside, "{key} has the token id {id}, the vocabulary ends at {vocab_size}");
        }
        let forced = Mask::of(ids, vocab_size, device);
        let scores = Tensor::zeros([vocab_size], (Kind::Float, device));
        let others = forced.members.logical_not();
        Ok(Forced { at, scores: scores.masked_fill(&others, f64::NEG_INFINITY) })
    }
}

impl LogitsProcessor for Forced {
    fn apply(&self, ids: &Tensor, scores: Tensor) -> Tensor {
        if ids.size()[1] == self.at { self.scores.expand_as(&scores).contiguous() } else { scores }
    }

    fn effect(&self, length: i64) -> Effect {
        if length == self.at { Effect::Changes } else { Effect::Nothing }
    }
}

/// `remove_invalid_values`: NaN is 0, infinities the outermost numbers.
pub struct RemoveInvalid;

impl LogitsProcessor for RemoveInvalid {
    fn apply(&self, _: &Tensor, scores: Tensor) -> Tensor {
        scores.nan_to_num(0.0, f64::from(f32::MAX), f64::from(f32::MIN))
    }
}

/// `exponential_decay_length_penalty`: from a length on, eos grows likelier. A score that is not
/// finite stays (the reference makes NaN of a forbidden eos).
pub struct ExponentialDecay {
    start: i64,
    factor: f64,
    eos: Mask,
}

impl LogitsProcessor for ExponentialDecay {
    fn apply(&self, ids: &Tensor, scores: Tensor) -> Tensor {
        let over = ids.size()[1] - self.start;
        if over <= 0 {
            return scores;
        }
        let penalty = scores.abs() * (self.factor.powf(over as f64) - 1.0);
        let penalized = &scores + penalty;
        penalized.where_self(&self.eos.members.logical_and(&scores.isfinite()), &scores)
    }

    fn effect(&self, length: i64) -> Effect {
        if length > self.start { Effect::Changes } else { Effect::Nothing }
    }
}

/// `renormalize_logits`, always last.
pub struct Renormalize;

impl LogitsProcessor for Renormalize {
    fn apply(&self, _: &Tensor, scores: Tensor) -> Tensor {
        scores.log_softmax(-1, Kind::Float)
    }
}
