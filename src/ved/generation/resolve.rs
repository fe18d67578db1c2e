//! Where the settings come from: flags, generation_config.json, config.json, defaults.

use anyhow::{Result, bail, ensure};
use serde_json::{Map, Value, json};

use super::config::{EarlyStopping, GenerationConfig, LengthRule};
use super::validate;

/// The places that settings are read from, strongest first.
pub struct Sources<'a> {
    /// Flags, keyed by their name in generation_config.json.
    pub overrides: &'a Map<String, Value>,
    /// generation_config.json, where there is one.
    pub generation_config: Option<&'a Value>,
    /// config.json of the VisionEncoderDecoder model, whole.
    pub config: &'a Value,
    /// The defaults of the decoder's config class.
    pub decoder_defaults: &'a Value,
    /// The longest sequence that the decoder can read, start token included.
    pub max_positions: Option<i64>,
    /// True: exactly the reference. False, in two points friendlier: where neither file nor flag sets
    /// a length, it is `max_positions`, at most 256 (not 20 new tokens); and a flag `max_length` or
    /// `min_length` beats `max_new_tokens` or `min_new_tokens` of a file.
    pub reference_length: bool,
}

/// The longest sequence where nothing says otherwise (and positions allow it).
const DEFAULT_LENGTH: i64 = 256;

/// Fields of the reference's class that have none here, with their defaults. The first group would
/// change the text and is refused by `validate`; the others change nothing.
fn without_field() -> Map<String, Value> {
    let defaults = json!({
        "constraints": null, "force_words_ids": null, "dola_layers": null, "guidance_scale": null,
        "watermarking_config": null, "token_healing": false,
        "encoder_repetition_penalty": 1.0, "encoder_no_repeat_ngram_size": 0,
        "cache_implementation": null, "cache_config": null, "return_legacy_cache": null,
        "prefill_chunk_size": null, "output_attentions": false, "output_hidden_states": false,
        "output_scores": false, "output_logits": null, "return_dict_in_generate": false,
        "is_assistant": false, "num_assistant_tokens": 20,
        "num_assistant_tokens_schedule": "constant", "assistant_confidence_threshold": 0.4,
        "prompt_lookup_num_tokens": null, "max_matching_ngram_size": null,
        "assistant_early_exit": null, "assistant_lookbehind": 10, "target_lookbehind": 10,
        "disable_compile": false, "low_memory": null,
    });
    object(&defaults)
}

/// The generation settings that the reference's `PretrainedConfig` still has (its
/// `_get_global_generation_defaults`).
const LEGACY: &[&str] = &[
    "max_length",
    "min_length",
    "do_sample",
    "early_stopping",
    "num_beams",
    "temperature",
    "top_k",
    "top_p",
    "typical_p",
    "repetition_penalty",
    "length_penalty",
    "no_repeat_ngram_size",
    "encoder_no_repeat_ngram_size",
    "bad_words_ids",
    "num_return_sequences",
    "output_scores",
    "return_dict_in_generate",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "remove_invalid_values",
    "exponential_decay_length_penalty",
    "suppress_tokens",
    "begin_suppress_tokens",
    "num_beam_groups",
    "diversity_penalty",
];

const METADATA: &[&str] = &["transformers_version", "_commit_hash", "_from_model_config"];

impl GenerationConfig {
    /// The settings in force, and warnings for the user. Errors name the setting.
    pub fn resolve(sources: &Sources) -> Result<(Self, Vec<String>)> {
        let defaults = defaults();
        let (mut values, from_model) = stored(sources, &defaults);
        for (key, value) in sources.overrides.iter().filter(|(_, value)| !value.is_null()) {
            ensure!(defaults.contains_key(key), "{key:?} is not a generation setting");
            values.insert(key.clone(), value.clone());
        }
        if !sources.reference_length {
            for (flag, file) in [("max_length", "max_new_tokens"), ("min_length", "min_new_tokens")]
            {
                let flagged = |key| sources.overrides.get(key).is_some_and(|v| !v.is_null());
                if flagged(flag) && !flagged(file) {
                    values.remove(file);
                }
            }
        }
        let mut warnings = Vec::new();
        let mut config = read(&values)?;
        if from_model {
            config.other.insert("_from_model_config".to_string(), json!(true));
        }
        config.length = length_rule(sources, &config);
        if config.length == LengthRule::Unset {
            config.max_length = sources.max_positions.unwrap_or(i64::MAX).min(DEFAULT_LENGTH);
        }
        validate::check(&config, &values, sources.overrides, &mut warnings)?;
        if let Some(positions) = sources.max_positions {
            validate::clamp(&mut config, positions, &mut warnings);
        }
        Ok((config, warnings))
    }
}

/// Every setting at its default.
fn defaults() -> Map<String, Value> {
    let fields = GenerationConfig::default().fields();
    let mut all: Map<String, Value> =
        fields.into_iter().map(|(key, value)| (key.to_string(), value)).collect();
    all.extend(without_field());
    all
}

/// The settings before the flags, and whether they come from config.json.
fn stored(sources: &Sources, defaults: &Map<String, Value>) -> (Map<String, Value>, bool) {
    let legacy = || from_model_config(sources.config, sources.decoder_defaults, defaults);
    let Some(file) = sources.generation_config else {
        return (legacy(), true);
    };
    // A file that was derived from the config gives way to settings that the config still has.
    let derived = file.get("_from_model_config").is_some_and(truthy);
    if derived && config_has_settings(sources.config, sources.decoder_defaults, defaults) {
        return (legacy(), true);
    }
    let mut values = defaults.clone();
    for (key, value) in object(file) {
        if METADATA.contains(&key.as_str()) || (derived && !defaults.contains_key(&key)) {
            continue;
        }
        values.insert(key, value);
    }
    (values, derived)
}

/// The reference's `GenerationConfig.from_model_config`: the top level of config.json, and where that
/// leaves a setting at its default, the decoder's part of it over its class defaults.
fn from_model_config(
    config: &Value,
    decoder_defaults: &Value,
    defaults: &Map<String, Value>,
) -> Map<String, Value> {
    let mut decoder = object(decoder_defaults);
    for key in LEGACY.iter().filter(|key| !has(decoder_defaults, key)) {
        decoder.insert(key.to_string(), defaults[*key].clone());
    }
    decoder.extend(object(&config["decoder"]));
    let mut values = defaults.clone();
    for (key, value) in values.iter_mut() {
        if let Some(given) = config.get(key).filter(|given| !given.is_null()) {
            *value = given.clone();
        }
        // "Unset" goes by value: a written default can't be told from silence.
        if same(value, &defaults[key])
            && let Some(inherited) = decoder.get(key)
        {
            *value = inherited.clone();
        }
    }
    values
}

/// The reference's `_get_non_default_generation_parameters`: a composite config has no defaults of its
/// own, its decoder's class is asked.
fn config_has_settings(
    config: &Value,
    decoder_defaults: &Value,
    defaults: &Map<String, Value>,
) -> bool {
    LEGACY.iter().any(|key| {
        let value = config.get(key).unwrap_or(&defaults[*key]);
        let default = decoder_defaults.get(key).unwrap_or(&defaults[*key]);
        !value.is_null() && !same(value, default)
    })
}

/// How the reference reads `max_length`, and whether there is one at all.
fn length_rule(sources: &Sources, config: &GenerationConfig) -> LengthRule {
    if sources.overrides.get("max_length").is_some_and(|value| !value.is_null()) {
        return LengthRule::Total;
    }
    if config.max_length != 20 {
        return LengthRule::Total;
    }
    // generation_config.json holds what somebody chose; config.json often spells defaults out.
    let chosen = config.max_new_tokens.is_some()
        || sources.generation_config.is_some_and(|file| has(file, "max_length"));
    if sources.reference_length || chosen { LengthRule::New } else { LengthRule::Unset }
}

/// The typed settings. A null counts as absent; unknown keys are kept.
fn read(values: &Map<String, Value>) -> Result<GenerationConfig> {
    let r = Reader { values };
    let d = GenerationConfig::default();
    let known = d.fields();
    let ignored = without_field();
    let other = values
        .iter()
        .filter(|(key, _)| known.iter().all(|(name, _)| name != key))
        .filter(|(key, value)| ignored.get(*key).is_none_or(|default| !same(value, default)))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    Ok(GenerationConfig {
        max_length: r.int("max_length")?.unwrap_or(d.max_length),
        length: d.length,
        max_new_tokens: r.int("max_new_tokens")?,
        min_length: r.int("min_length")?.unwrap_or(d.min_length),
        min_new_tokens: r.int("min_new_tokens")?,
        early_stopping: r.early_stopping()?,
        max_time: r.float("max_time")?,
        stop_strings: r.strings("stop_strings")?,
        do_sample: r.boolean("do_sample")?.unwrap_or(d.do_sample),
        num_beams: r.int("num_beams")?.unwrap_or(d.num_beams),
        num_beam_groups: r.int("num_beam_groups")?.unwrap_or(d.num_beam_groups),
        diversity_penalty: r.float("diversity_penalty")?.unwrap_or(d.diversity_penalty),
        penalty_alpha: r.float("penalty_alpha")?,
        use_cache: r.boolean("use_cache")?.unwrap_or(d.use_cache),
        temperature: r.float("temperature")?.unwrap_or(d.temperature),
        // The reference switches top-k off by 0 and by null.
        top_k: if r.values.get("top_k").is_some_and(Value::is_null) {
            0
        } else {
            r.int("top_k")?.unwrap_or(d.top_k)
        },
        top_p: r.float("top_p")?.unwrap_or(d.top_p),
        min_p: r.float("min_p")?,
        typical_p: r.float("typical_p")?.unwrap_or(d.typical_p),
        epsilon_cutoff: r.float("epsilon_cutoff")?.unwrap_or(d.epsilon_cutoff),
        eta_cutoff: r.float("eta_cutoff")?.unwrap_or(d.eta_cutoff),
        repetition_penalty: r.float("repetition_penalty")?.unwrap_or(d.repetition_penalty),
        length_penalty: r.float("length_penalty")?.unwrap_or(d.length_penalty),
        no_repeat_ngram_size: r.int("no_repeat_ngram_size")?.unwrap_or(d.no_repeat_ngram_size),
        bad_words_ids: r.id_lists("bad_words_ids")?,
        renormalize_logits: r.boolean("renormalize_logits")?.unwrap_or(d.renormalize_logits),
        forced_bos_token_id: r.id("forced_bos_token_id")?,
        forced_eos_token_id: r.ids("forced_eos_token_id")?,
        remove_invalid_values: r
            .boolean("remove_invalid_values")?
            .unwrap_or(d.remove_invalid_values),
        exponential_decay_length_penalty: r.decay()?,
        suppress_tokens: r.ids("suppress_tokens")?,
        begin_suppress_tokens: r.ids("begin_suppress_tokens")?,
        sequence_bias: r.sequence_bias()?,
        num_return_sequences: r.int("num_return_sequences")?.unwrap_or(d.num_return_sequences),
        pad_token_id: r.id("pad_token_id")?,
        bos_token_id: r.id("bos_token_id")?,
        eos_token_id: r.ids("eos_token_id")?,
        decoder_start_token_id: r.id("decoder_start_token_id")?,
        other,
    })
}

/// Typed access; an error names the setting and shows the value.
struct Reader<'a> {
    values: &'a Map<String, Value>,
}

impl Reader<'_> {
    fn get<T>(
        &self,
        key: &str,
        what: &str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<T>> {
        match self.values.get(key).filter(|value| !value.is_null()) {
            None => Ok(None),
            Some(value) => match read(value) {
                Some(read) => Ok(Some(read)),
                None => bail!("{key} must be {what}, not {value}"),
            },
        }
    }

    fn int(&self, key: &str) -> Result<Option<i64>> {
        self.get(key, "an integer", Value::as_i64)
    }

    fn float(&self, key: &str) -> Result<Option<f64>> {
        self.get(key, "a number", Value::as_f64)
    }

    fn boolean(&self, key: &str) -> Result<Option<bool>> {
        self.get(key, "true or false", Value::as_bool)
    }

    /// One id; some files write it as a list of one.
    fn id(&self, key: &str) -> Result<Option<i64>> {
        self.get(key, "one token id", |value| match value.as_array().map(Vec::as_slice) {
            Some([only]) => only.as_i64(),
            Some(_) => None,
            None => value.as_i64(),
        })
    }

    /// One id or a list of them.
    fn ids(&self, key: &str) -> Result<Vec<i64>> {
        let found = self.get(key, "a token id or a list of token ids", |value| {
            value.as_i64().map(|id| vec![id]).or_else(|| ids(value))
        })?;
        Ok(found.unwrap_or_default())
    }

    fn id_lists(&self, key: &str) -> Result<Vec<Vec<i64>>> {
        let found = self.get(key, "a list of lists of token ids", |value| {
            value.as_array()?.iter().map(ids).collect()
        })?;
        Ok(found.unwrap_or_default())
    }

    fn strings(&self, key: &str) -> Result<Vec<String>> {
        let found = self.get(key, "a string or a list of strings", |value| match value {
            Value::String(one) => Some(vec![one.clone()]),
            _ => value.as_array()?.iter().map(|s| s.as_str().map(str::to_string)).collect(),
        })?;
        Ok(found.unwrap_or_default())
    }

    fn early_stopping(&self) -> Result<EarlyStopping> {
        let found =
            self.get("early_stopping", "true, false or \"never\"", |value| match value {
                Value::Bool(true) => Some(EarlyStopping::True),
                Value::Bool(false) => Some(EarlyStopping::False),
                _ => (value.as_str()? == "never").then_some(EarlyStopping::Never),
            })?;
        Ok(found.unwrap_or(EarlyStopping::False))
    }

    fn decay(&self) -> Result<Option<(i64, f64)>> {
        self.get("exponential_decay_length_penalty", "[first token, factor]", |value| {
            match value.as_array()?.as_slice() {
                [start, factor] => Some((start.as_i64()?, factor.as_f64()?)),
                _ => None,
            }
        })
    }

    fn sequence_bias(&self) -> Result<Vec<(Vec<i64>, f64)>> {
        let found = self.get("sequence_bias", "a list of [[token ids], bias]", |value| {
            let pairs = value.as_array()?.iter().map(|pair| match pair.as_array()?.as_slice() {
                [sequence, bias] => Some((ids(sequence)?, bias.as_f64()?)),
                _ => None,
            });
            pairs.collect()
        })?;
        Ok(found.unwrap_or_default())
    }
}

fn ids(value: &Value) -> Option<Vec<i64>> {
    value.as_array()?.iter().map(Value::as_i64).collect()
}

fn object(value: &Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap_or_default()
}

/// Python's `==` on JSON values: numbers by value, true is 1.
fn same(a: &Value, b: &Value) -> bool {
    let number = |value: &Value| value.as_f64().or(value.as_bool().map(f64::from));
    match (number(a), number(b)) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

fn truthy(value: &Value) -> bool {
    value.as_bool().unwrap_or(false)
}

fn has(value: &Value, key: &str) -> bool {
    value.get(key).is_some_and(|value| !value.is_null())
}
