//! `GenerationConfig`: how text is generated, under the reference's names and with its defaults.

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

/// The version of the reference whose behaviour and file format this module follows.
pub const TRANSFORMERS_VERSION: &str = "4.57.6";

/// When beam search is content with its K finished hypotheses (`early_stopping`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EarlyStopping {
    /// `false`: when no running beam, at its present length, is better than the worst of them.
    False,
    /// `true`: as soon as there are K.
    True,
    /// `"never"`: when no running beam can become better than the worst of them.
    Never,
}

/// What `max_length` counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LengthRule {
    /// All tokens, start token and prompt included.
    Total,
    /// New tokens. The reference reads a length of 20 that no flag asked for in this way.
    New,
    /// All tokens, and neither file nor flag chose the number.
    Unset,
}

/// How the next token is found; what the settings amount to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GenerationMode {
    Greedy,
    Sample,
    Contrastive,
    Beam,
    BeamSample,
    GroupBeam,
}

/// The settings of generation. Lists that are empty and options that are None have no effect.
#[derive(Clone, Debug, PartialEq)]
pub struct GenerationConfig {
    /// See `length`; `total_length` has the number that counts.
    pub max_length: i64,
    pub length: LengthRule,
    /// Beats `max_length`.
    pub max_new_tokens: Option<i64>,
    /// Start token and prompt included.
    pub min_length: i64,
    /// Beats `min_length`.
    pub min_new_tokens: Option<i64>,
    pub early_stopping: EarlyStopping,
    /// Seconds.
    pub max_time: Option<f64>,
    pub stop_strings: Vec<String>,
    pub do_sample: bool,
    pub num_beams: i64,
    pub num_beam_groups: i64,
    pub diversity_penalty: f64,
    pub penalty_alpha: Option<f64>,
    /// False: positions of padding are counted as without a cache; the cache itself stays.
    pub use_cache: bool,
    pub temperature: f64,
    pub top_k: i64,
    pub top_p: f64,
    pub min_p: Option<f64>,
    pub typical_p: f64,
    pub epsilon_cutoff: f64,
    pub eta_cutoff: f64,
    pub repetition_penalty: f64,
    pub length_penalty: f64,
    pub no_repeat_ngram_size: i64,
    pub bad_words_ids: Vec<Vec<i64>>,
    pub renormalize_logits: bool,
    pub forced_bos_token_id: Option<i64>,
    pub forced_eos_token_id: Vec<i64>,
    pub remove_invalid_values: bool,
    /// (first new token it applies to, factor a token)
    pub exponential_decay_length_penalty: Option<(i64, f64)>,
    pub suppress_tokens: Vec<i64>,
    pub begin_suppress_tokens: Vec<i64>,
    pub sequence_bias: Vec<(Vec<i64>, f64)>,
    pub num_return_sequences: i64,
    pub pad_token_id: Option<i64>,
    pub bos_token_id: Option<i64>,
    /// Each of them ends a sequence.
    pub eos_token_id: Vec<i64>,
    pub decoder_start_token_id: Option<i64>,
    /// Keys of the file that this struct has no field for, kept for writing back.
    pub other: Map<String, Value>,
}

impl Default for GenerationConfig {
    /// The reference's defaults.
    fn default() -> Self {
        GenerationConfig {
            max_length: 20,
            length: LengthRule::New,
            max_new_tokens: None,
            min_length: 0,
            min_new_tokens: None,
            early_stopping: EarlyStopping::False,
            max_time: None,
            stop_strings: Vec::new(),
            do_sample: false,
            num_beams: 1,
            num_beam_groups: 1,
            diversity_penalty: 0.0,
            penalty_alpha: None,
            use_cache: true,
            temperature: 1.0,
            top_k: 50,
            top_p: 1.0,
            min_p: None,
            typical_p: 1.0,
            epsilon_cutoff: 0.0,
            eta_cutoff: 0.0,
            repetition_penalty: 1.0,
            length_penalty: 1.0,
            no_repeat_ngram_size: 0,
            bad_words_ids: Vec::new(),
            renormalize_logits: false,
            forced_bos_token_id: None,
            forced_eos_token_id: Vec::new(),
            remove_invalid_values: false,
            exponential_decay_length_penalty: None,
            suppress_tokens: Vec::new(),
            begin_suppress_tokens: Vec::new(),
            sequence_bias: Vec::new(),
            num_return_sequences: 1,
            pad_token_id: None,
            bos_token_id: None,
            eos_token_id: Vec::new(),
            decoder_start_token_id: None,
            other: Map::new(),
        }
    }
}

impl GenerationConfig {
    /// The search that the settings amount to (the reference's `get_generation_mode`).
    pub fn mode(&self) -> GenerationMode {
        let contrastive = self.top_k > 1 && self.penalty_alpha.is_some_and(|alpha| alpha > 0.0);
        match (self.num_beams > 1, self.do_sample) {
            (false, false) if contrastive => GenerationMode::Contrastive,
            (false, false) => GenerationMode::Greedy,
            (false, true) => GenerationMode::Sample,
            (true, _) if self.num_beam_groups > 1 => GenerationMode::GroupBeam,
            (true, true) => GenerationMode::BeamSample,
            (true, false) => GenerationMode::Beam,
        }
    }

    /// The most tokens of a sequence, start token and prompt of `prompt` tokens included.
    pub fn total_length(&self, prompt: i64) -> i64 {
        match (self.max_new_tokens, self.length) {
            (Some(new), _) => prompt.saturating_add(new),
            (None, LengthRule::New) => prompt.saturating_add(self.max_length),
            (None, _) => self.max_length,
        }
    }

    /// No eos before this many tokens, start token and prompt of `prompt` tokens included.
    pub fn total_min_length(&self, prompt: i64) -> i64 {
        self.min_new_tokens.map_or(self.min_length, |new| prompt.saturating_add(new))
    }

    /// The token that a sequence starts with: `decoder_start_token_id`, else `bos_token_id`.
    pub fn start_token(&self) -> Result<i64> {
        self.decoder_start_token_id.or(self.bos_token_id).context(
            "neither decoder_start_token_id nor bos_token_id is known; \
             set decoder_start_token_id in generation_config.json",
        )
    }

    /// What fills rows that have ended: `pad_token_id`, else the first eos.
    pub fn pad_token(&self) -> Option<i64> {
        self.pad_token_id.or(self.eos_token_id.first().copied())
    }

    /// generation_config.json as the reference writes it: what differs from the defaults, sorted,
    /// and the keys that are not ours.
    pub fn to_json(&self) -> Value {
        let defaults = GenerationConfig::default().fields();
        let mut written: Vec<(String, Value)> =
            self.other.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        for ((key, value), (_, default)) in self.fields().into_iter().zip(defaults) {
            let unset = key == "max_length" && self.length == LengthRule::Unset;
            if value != default && !unset {
                written.push((key.to_string(), value));
            }
        }
        written.retain(|(key, _)| key != "transformers_version");
        written.push(("transformers_version".to_string(), json!(TRANSFORMERS_VERSION)));
        written.sort_by(|a, b| a.0.cmp(&b.0));
        Value::Object(written.into_iter().collect())
    }

    /// The names of every field.
    pub fn names() -> Vec<&'static str> {
        GenerationConfig::default().fields().into_iter().map(|(name, _)| name).collect()
    }

    /// (name, JSON value) of every field.
    pub(super) fn fields(&self) -> Vec<(&'static str, Value)> {
        let bias: Vec<Value> = self.sequence_bias.iter().map(|(ids, b)| json!([ids, b])).collect();
        vec![
            ("max_length", json!(self.max_length)),
            ("max_new_tokens", json!(self.max_new_tokens)),
            ("min_length", json!(self.min_length)),
            ("min_new_tokens", json!(self.min_new_tokens)),
            ("early_stopping", self.early_stopping.to_json()),
            ("max_time", json!(self.max_time)),
            ("stop_strings", list(&self.stop_strings)),
            ("do_sample", json!(self.do_sample)),
            ("num_beams", json!(self.num_beams)),
            ("num_beam_groups", json!(self.num_beam_groups)),
            ("diversity_penalty", json!(self.diversity_penalty)),
            ("penalty_alpha", json!(self.penalty_alpha)),
            ("use_cache", json!(self.use_cache)),
            ("temperature", json!(self.temperature)),
            ("top_k", json!(self.top_k)),
            ("top_p", json!(self.top_p)),
            ("min_p", json!(self.min_p)),
            ("typical_p", json!(self.typical_p)),
            ("epsilon_cutoff", json!(self.epsilon_cutoff)),
            ("eta_cutoff", json!(self.eta_cutoff)),
            ("repetition_penalty", json!(self.repetition_penalty)),
            ("length_penalty", json!(self.length_penalty)),
            ("no_repeat_ngram_size", json!(self.no_repeat_ngram_size)),
            ("bad_words_ids", list(&self.bad_words_ids)),
            ("renormalize_logits", json!(self.renormalize_logits)),
            ("forced_bos_token_id", json!(self.forced_bos_token_id)),
            ("forced_eos_token_id", one_or_more(&self.forced_eos_token_id)),
            ("remove_invalid_values", json!(self.remove_invalid_values)),
            (
                "exponential_decay_length_penalty",
                json!(self.exponential_decay_length_penalty.map(|(start, by)| json!([start, by]))),
            ),
            ("suppress_tokens", list(&self.suppress_tokens)),
            ("begin_suppress_tokens", list(&self.begin_suppress_tokens)),
            ("sequence_bias", list(&bias)),
            ("num_return_sequences", json!(self.num_return_sequences)),
            ("pad_token_id", json!(self.pad_token_id)),
            ("bos_token_id", json!(self.bos_token_id)),
            ("eos_token_id", one_or_more(&self.eos_token_id)),
            ("decoder_start_token_id", json!(self.decoder_start_token_id)),
        ]
    }
}

impl EarlyStopping {
    fn to_json(self) -> Value {
        match self {
            EarlyStopping::False => json!(false),
            EarlyStopping::True => json!(true),
            EarlyStopping::Never => json!("never"),
        }
    }
}

/// An empty list is what the reference writes as null.
fn list<T: serde::Serialize>(items: &[T]) -> Value {
    if items.is_empty() { Value::Null } else { json!(items) }
}

fn one_or_more(ids: &[i64]) -> Value {
    match ids {
        [id] => json!(id),
        _ => list(ids),
    }
}
