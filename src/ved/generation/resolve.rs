//! Where the settings come from: flags, generation_config.json, config.json, defaults.

use anyhow::{Result, ensure};
use serde_json::{Map, Value, json};

use super::config::{GenerationConfig, LengthRule};
use super::read::read;
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
pub(super) fn without_field() -> Map<String, Value> {
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

pub(super) fn object(value: &Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap_or_default()
}

/// Python's `==` on JSON values: numbers by value, true is 1.
pub(super) fn same(a: &Value, b: &Value) -> bool {
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::ved::generation::GenerationMode;

    const EMPTY: Value = Value::Null;

    fn resolve(
        file: Option<&Value>,
        flags: &Value,
        positions: Option<i64>,
    ) -> Result<(GenerationConfig, Vec<String>)> {
        GenerationConfig::resolve(&Sources {
            overrides: &object(flags),
            generation_config: file,
            config: &EMPTY,
            decoder_defaults: &EMPTY,
            max_positions: positions,
            reference_length: false,
        })
    }

    fn mode(name: &str) -> GenerationMode {
        match name {
            "greedy_search" => GenerationMode::Greedy,
            "sample" => GenerationMode::Sample,
            "contrastive_search" => GenerationMode::Contrastive,
            "beam_search" => GenerationMode::Beam,
            "group_beam_search" => GenerationMode::GroupBeam,
            _ => GenerationMode::BeamSample,
        }
    }

    #[test]
    fn settings_come_from_where_the_reference_takes_them() {
        let text = include_str!("../../../tests/fixtures/generation/resolve.jsonl");
        for (line, text) in text.lines().enumerate() {
            let case: Value = serde_json::from_str(text).unwrap();
            let file = Some(&case["file"]).filter(|file| !file.is_null());
            let resolve = |flags: &Value| {
                GenerationConfig::resolve(&Sources {
                    overrides: &object(flags),
                    generation_config: file,
                    config: &case["config"],
                    decoder_defaults: &case["defaults"],
                    max_positions: None,
                    reference_length: true,
                })
            };
            let expected = &case["expected"];
            let at = format!("line {}: {text}", line + 1);
            let (config, _) = match resolve(&case["flags"]) {
                Ok(resolved) => resolved,
                // Since 4.47 the reference no longer checks the settings of beam groups.
                Err(error) => {
                    assert_eq!(expected["mode"], "group_beam_search", "{error} {at}");
                    continue;
                }
            };
            assert_eq!(config.mode(), mode(expected["mode"].as_str().unwrap()), "{at}");
            let found = json!({
                "total_length": [config.total_length(1), config.total_length(3)],
                "total_min_length": [config.total_min_length(1), config.total_min_length(3)],
                "pad": config.pad_token(), "start": config.start_token().unwrap(),
                "eos": config.eos_token_id, "no_repeat_ngram_size": config.no_repeat_ngram_size,
                "num_beams": config.num_beams, "use_cache": config.use_cache,
            });
            for (key, found) in found.as_object().unwrap() {
                assert_eq!(found, &expected[key], "{key} in {at}");
            }
            assert_eq!(config.length_penalty, expected["length_penalty"].as_f64().unwrap(), "{at}");
            let fields = config.fields();
            for key in ["forced_eos_token_id", "early_stopping"] {
                let (_, found) = fields.iter().find(|(name, _)| *name == key).unwrap();
                let one = match expected[key].as_array().map(Vec::as_slice) {
                    Some([one]) => one,
                    _ => &expected[key],
                };
                assert_eq!(found, one, "{key} in {at}");
            }
            let mut written = resolve(&json!({})).unwrap().0.to_json();
            if let Some([one]) =
                case["written"]["forced_eos_token_id"].as_array().map(Vec::as_slice)
            {
                // The reference keeps a list of one.
                assert_eq!(&written["forced_eos_token_id"], one);
                written["forced_eos_token_id"] = json!([one]);
            }
            assert_eq!(written, case["written"], "{at}");
        }
    }

    #[test]
    fn without_any_length_positions_decide() {
        let twenty = json!({"max_length": 20});
        let new = json!({"max_new_tokens": 30});
        let table = [
            (None, json!({}), Some(1024), 256),
            (None, json!({}), Some(128), 128),
            (None, json!({}), None, 256),
            (Some(&twenty), json!({}), Some(1024), 21),
            (None, twenty.clone(), Some(1024), 20),
            (Some(&new), json!({}), Some(1024), 31),
            // A flag beats the file.
            (Some(&new), json!({"max_length": 8}), Some(1024), 8),
            // One token more than positions: the last one is not read.
            (None, json!({"max_length": 500}), Some(128), 129),
            (None, json!({"max_new_tokens": 500}), Some(128), 129),
            (None, json!({"max_new_tokens": 500, "penalty_alpha": 0.5}), Some(128), 128),
        ];
        for (file, flags, positions, expected) in table {
            let (config, _) = resolve(file, &flags, positions).unwrap();
            assert_eq!(config.total_length(1), expected, "{file:?} {flags}");
        }
    }
}
