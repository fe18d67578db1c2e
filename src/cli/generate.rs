//! The generation flags: optional as typed, then one map under the names of generation_config.json.

use anyhow::{Context, Result, ensure};
use clap::Args;
use clap::builder::BoolishValueParser;
use serde_json::{Map, Value, json};

use super::typed::{beams, finite};
use crate::text::Tokenizer;
use crate::ved::generation::LoopDetector;

#[derive(Args)]
#[command(next_help_heading = "Generation (defaults come from the checkpoint)")]
pub(super) struct GenerateArgs {
    /// Beams of beam search; 1 is greedy
    #[arg(long, env = "VEDM_NUM_BEAMS", hide_env = true, value_name = "N")]
    #[arg(value_parser = beams)]
    pub num_beams: Option<i64>,

    /// At most so many tokens after the prompt
    #[arg(long, env = "VEDM_MAX_NEW_TOKENS", hide_env = true, value_name = "N")]
    pub max_new_tokens: Option<i64>,

    /// At most so many tokens, start token and prompt included
    #[arg(long, env = "VEDM_MAX_LENGTH", hide_env = true, value_name = "N")]
    pub max_length: Option<i64>,

    /// At least so many tokens after the prompt
    #[arg(
        long,
        env = "VEDM_MIN_NEW_TOKENS",
        hide_env = true,
        value_name = "N",
        hide_short_help = true
    )]
    pub min_new_tokens: Option<i64>,

    /// At least so many tokens, start token and prompt included
    #[arg(
        long,
        env = "VEDM_MIN_LENGTH",
        hide_env = true,
        value_name = "N",
        hide_short_help = true
    )]
    pub min_length: Option<i64>,

    /// Beam scores are divided by length to this power
    #[arg(
        long,
        env = "VEDM_LENGTH_PENALTY",
        hide_env = true,
        value_name = "X",
        hide_short_help = true
    )]
    #[arg(value_parser = finite)]
    pub length_penalty: Option<f64>,

    /// When beam search ends: true, false or never
    #[arg(long, env = "VEDM_EARLY_STOPPING", hide_env = true, value_name = "WHEN", value_parser = ["true", "false", "never"], hide_short_help = true)]
    pub early_stopping: Option<String>,

    /// No sequence of so many tokens occurs twice
    #[arg(
        long,
        env = "VEDM_NO_REPEAT_NGRAM_SIZE",
        hide_env = true,
        value_name = "N",
        hide_short_help = true
    )]
    pub no_repeat_ngram_size: Option<i64>,

    /// Above 1: tokens that occurred become less likely
    #[arg(
        long,
        env = "VEDM_REPETITION_PENALTY",
        hide_env = true,
        value_name = "X",
        hide_short_help = true
    )]
    #[arg(value_parser = finite)]
    pub repetition_penalty: Option<f64>,

    /// Draw tokens at random instead of taking the best
    #[arg(long, env = "VEDM_DO_SAMPLE", hide_env = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    #[arg(value_parser = BoolishValueParser::new())]
    pub do_sample: Option<bool>,

    /// Sampling: divide logits by this
    #[arg(
        long,
        env = "VEDM_TEMPERATURE",
        hide_env = true,
        value_name = "X",
        hide_short_help = true
    )]
    #[arg(value_parser = finite)]
    pub temperature: Option<f64>,

    /// Sampling: only the K best tokens (also the candidates of contrastive search)
    #[arg(long, env = "VEDM_TOP_K", hide_env = true, value_name = "K", hide_short_help = true)]
    pub top_k: Option<i64>,

    /// Sampling: only the best tokens that together have this probability
    #[arg(long, env = "VEDM_TOP_P", hide_env = true, value_name = "P", hide_short_help = true)]
    #[arg(value_parser = finite)]
    pub top_p: Option<f64>,

    /// Sampling: only tokens with this share of the best one's probability
    #[arg(long, env = "VEDM_MIN_P", hide_env = true, value_name = "P", hide_short_help = true)]
    #[arg(value_parser = finite)]
    pub min_p: Option<f64>,

    /// Sampling: locally typical sampling with this mass
    #[arg(long, env = "VEDM_TYPICAL_P", hide_env = true, value_name = "P", hide_short_help = true)]
    #[arg(value_parser = finite)]
    pub typical_p: Option<f64>,

    /// Sampling: only tokens at least this probable
    #[arg(
        long,
        env = "VEDM_EPSILON_CUTOFF",
        hide_env = true,
        value_name = "P",
        hide_short_help = true
    )]
    #[arg(value_parser = finite)]
    pub epsilon_cutoff: Option<f64>,

    /// Sampling: eta sampling with this cutoff
    #[arg(
        long,
        env = "VEDM_ETA_CUTOFF",
        hide_env = true,
        value_name = "P",
        hide_short_help = true
    )]
    #[arg(value_parser = finite)]
    pub eta_cutoff: Option<f64>,

    /// Group beam search: number of groups
    #[arg(
        long,
        env = "VEDM_NUM_BEAM_GROUPS",
        hide_env = true,
        value_name = "N",
        hide_short_help = true
    )]
    pub num_beam_groups: Option<i64>,

    /// Group beam search: what a token costs that another group chose
    #[arg(
        long,
        env = "VEDM_DIVERSITY_PENALTY",
        hide_env = true,
        value_name = "X",
        hide_short_help = true
    )]
    #[arg(value_parser = finite)]
    pub diversity_penalty: Option<f64>,

    /// Contrastive search: weight of the degeneration penalty
    #[arg(
        long,
        env = "VEDM_PENALTY_ALPHA",
        hide_env = true,
        value_name = "X",
        hide_short_help = true
    )]
    #[arg(value_parser = finite)]
    pub penalty_alpha: Option<f64>,

    /// Texts an image
    #[arg(
        long,
        env = "VEDM_NUM_RETURN_SEQUENCES",
        hide_env = true,
        hide_short_help = true,
        value_name = "N"
    )]
    #[arg(value_parser = beams)]
    pub num_return_sequences: Option<i64>,

    /// Words that must not occur; may be given several times
    #[arg(
        long,
        env = "VEDM_BAD_WORDS",
        hide_env = true,
        value_name = "WORD",
        value_delimiter = ',',
        hide_short_help = true
    )]
    pub bad_words: Vec<String>,

    /// Id of the first token after the start token
    #[arg(
        long,
        env = "VEDM_FORCED_BOS_TOKEN_ID",
        hide_env = true,
        value_name = "ID",
        hide_short_help = true
    )]
    pub forced_bos_token_id: Option<i64>,

    /// Ids of the last token when the length is used up
    #[arg(
        long,
        env = "VEDM_FORCED_EOS_TOKEN_ID",
        hide_env = true,
        value_name = "ID",
        value_delimiter = ',',
        hide_short_help = true
    )]
    pub forced_eos_token_id: Vec<i64>,

    /// Ids that never occur
    #[arg(
        long,
        env = "VEDM_SUPPRESS_TOKENS",
        hide_env = true,
        value_name = "ID",
        value_delimiter = ',',
        hide_short_help = true
    )]
    pub suppress_tokens: Vec<i64>,

    /// Ids that never occur first
    #[arg(
        long,
        env = "VEDM_BEGIN_SUPPRESS_TOKENS",
        hide_env = true,
        value_name = "ID",
        value_delimiter = ',',
        hide_short_help = true
    )]
    pub begin_suppress_tokens: Vec<i64>,

    /// From token START on, the end becomes likelier by FACTOR a token
    #[arg(
        long,
        env = "VEDM_EXPONENTIAL_DECAY_LENGTH_PENALTY",
        hide_env = true,
        value_name = "START,FACTOR",
        hide_short_help = true
    )]
    pub exponential_decay_length_penalty: Option<String>,

    /// Renormalise the log-probabilities after all rules
    #[arg(long, env = "VEDM_RENORMALIZE_LOGITS", hide_env = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", hide_short_help = true)]
    #[arg(value_parser = BoolishValueParser::new())]
    pub renormalize_logits: Option<bool>,

    /// Generation ends where this string occurs; may be given several times
    #[arg(
        long,
        env = "VEDM_STOP_STRINGS",
        hide_env = true,
        value_name = "TEXT",
        hide_short_help = true
    )]
    pub stop_strings: Vec<String>,

    /// Seconds a batch may take
    #[arg(
        long,
        env = "VEDM_MAX_TIME",
        hide_env = true,
        value_name = "SECONDS",
        hide_short_help = true
    )]
    #[arg(value_parser = finite)]
    pub max_time: Option<f64>,

    /// Let texts that repeat themselves go on to their limit
    ///
    /// Else a text ends, with the finish reason "repetition", when the same up to 24 tokens have come 8
    /// times in a row, in at least 64 tokens.
    #[arg(long, env = "VEDM_NO_REPETITION_CHECK", hide_env = true, hide_short_help = true)]
    pub no_repetition_check: bool,

    /// Seed of sampling
    #[arg(long, env = "VEDM_SEED", hide_env = true, value_name = "N", default_value_t = 0)]
    pub seed: u64,

    /// The text begins with this
    #[arg(long, env = "VEDM_PROMPT", hide_env = true, value_name = "TEXT")]
    pub prompt: Option<String>,
}

/// A text that says the same 8 times in a row, in at least 64 tokens, has no end: a table's dots and
/// long numbers are shorter.
const LOOPS: LoopDetector = LoopDetector { max_period: 24, repeats: 8, min_tokens: 64 };

impl GenerateArgs {
    /// What ends texts that repeat themselves, unless the user wants them whole.
    pub(super) fn loop_detector(&self) -> Option<LoopDetector> {
        (!self.no_repetition_check).then_some(LOOPS)
    }

    /// Only what was typed, under the names of generation_config.json.
    pub(super) fn overrides(&self, tokenizer: &Tokenizer) -> Result<Map<String, Value>> {
        let mut map = Map::new();
        let mut put = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                map.insert(name.to_string(), value);
            }
        };
        let integers = [
            ("num_beams", self.num_beams),
            ("max_new_tokens", self.max_new_tokens),
            ("max_length", self.max_length),
            ("min_new_tokens", self.min_new_tokens),
            ("min_length", self.min_length),
            ("no_repeat_ngram_size", self.no_repeat_ngram_size),
            ("top_k", self.top_k),
            ("num_beam_groups", self.num_beam_groups),
            ("num_return_sequences", self.num_return_sequences),
            ("forced_bos_token_id", self.forced_bos_token_id),
        ];
        let reals = [
            ("length_penalty", self.length_penalty),
            ("repetition_penalty", self.repetition_penalty),
            ("temperature", self.temperature),
            ("top_p", self.top_p),
            ("min_p", self.min_p),
            ("typical_p", self.typical_p),
            ("epsilon_cutoff", self.epsilon_cutoff),
            ("eta_cutoff", self.eta_cutoff),
            ("diversity_penalty", self.diversity_penalty),
            ("penalty_alpha", self.penalty_alpha),
            ("max_time", self.max_time),
        ];
        let ids = [
            ("forced_eos_token_id", &self.forced_eos_token_id),
            ("suppress_tokens", &self.suppress_tokens),
            ("begin_suppress_tokens", &self.begin_suppress_tokens),
        ];
        for (name, value) in integers {
            put(name, value.map(Value::from));
        }
        for (name, value) in reals {
            put(name, value.map(Value::from));
        }
        for (name, list) in ids {
            put(name, (!list.is_empty()).then(|| json!(list)));
        }
        put("do_sample", self.do_sample.map(Value::from));
        put("renormalize_logits", self.renormalize_logits.map(Value::from));
        put(
            "early_stopping",
            self.early_stopping.as_deref().map(|when| match when {
                "true" => json!(true),
                "false" => json!(false),
                other => json!(other),
            }),
        );
        let strings = &self.stop_strings;
        put("stop_strings", (!strings.is_empty()).then(|| json!(strings)));
        put("exponential_decay_length_penalty", self.decay()?);
        put("bad_words_ids", self.bad_words_ids(tokenizer)?);
        Ok(map)
    }

    fn decay(&self) -> Result<Option<Value>> {
        let Some(text) = &self.exponential_decay_length_penalty else { return Ok(None) };
        let pair = text.split_once(',').and_then(|(start, factor)| {
            Some((start.trim().parse::<i64>().ok()?, finite(factor.trim()).ok()?))
        });
        let (start, factor) = pair.with_context(|| {
            format!(
                "--exponential-decay-length-penalty {text:?}: expected START,FACTOR, as in 10,1.2"
            )
        })?;
        Ok(Some(json!([start, factor])))
    }

    /// Each word as it stands at the beginning of a text, and behind a blank.
    fn bad_words_ids(&self, tokenizer: &Tokenizer) -> Result<Option<Value>> {
        let mut all: Vec<Vec<i64>> = Vec::new();
        for word in &self.bad_words {
            for text in [word.clone(), format!(" {word}")] {
                let ids = tokenizer.encode(&text, false)?;
                ensure!(!ids.is_empty(), "--bad-words {word:?} has no tokens");
                if !all.contains(&ids) {
                    all.push(ids);
                }
            }
        }
        Ok((!all.is_empty()).then(|| json!(all)))
    }
}
