//! Settings that can't be, settings that have no effect, lengths that don't fit.

use anyhow::{Result, bail, ensure};
use serde_json::{Map, Value, json};

use super::config::{EarlyStopping, GenerationConfig, GenerationMode, LengthRule};

/// Refuses what can't be; warns of flags without effect. `values` holds all settings, read into
/// `config`; `overrides` those that came by flag.
pub(super) fn check(
    config: &GenerationConfig,
    values: &Map<String, Value>,
    overrides: &Map<String, Value>,
    warnings: &mut Vec<String>,
) -> Result<()> {
    refuse_missing(values)?;
    check_counts(config)?;
    check_sampling(config, overrides)?;
    check_modes(config, overrides)?;
    check_ids(config)?;
    warn_of_no_effect(config, overrides, warnings);
    let image_only =
        [("encoder_repetition_penalty", json!(1.0)), ("encoder_no_repeat_ngram_size", json!(0))];
    for (key, neutral) in image_only {
        let value = values.get(key).filter(|value| !value.is_null());
        if value.is_some_and(|value| value.as_f64() != neutral.as_f64()) {
            warnings.push(format!("{key} needs a text as input and is ignored for images"));
        }
    }
    Ok(())
}

/// Settings of the reference that would change the text and have no implementation here.
fn refuse_missing(values: &Map<String, Value>) -> Result<()> {
    let refused = |key: &str, value: &Value| match key {
        "guidance_scale" => value.as_f64() != Some(1.0),
        "token_healing" => value.as_bool() == Some(true),
        "constraints" | "force_words_ids" | "dola_layers" | "watermarking_config" => true,
        _ => false,
    };
    for (key, value) in values.iter().filter(|(_, value)| !value.is_null()) {
        ensure!(!refused(key, value), "{key} = {value} is not supported; take it out");
    }
    Ok(())
}

fn check_counts(config: &GenerationConfig) -> Result<()> {
    let at_least = |key: &str, value: i64, least: i64| {
        ensure!(value >= least, "{key} must be at least {least}, not {value}");
        Ok(())
    };
    at_least("max_length", config.max_length, 1)?;
    at_least("max_new_tokens", config.max_new_tokens.unwrap_or(1), 1)?;
    at_least("min_length", config.min_length, 0)?;
    at_least("min_new_tokens", config.min_new_tokens.unwrap_or(0), 0)?;
    at_least("num_beams", config.num_beams, 1)?;
    at_least("num_beam_groups", config.num_beam_groups, 1)?;
    at_least("num_return_sequences", config.num_return_sequences, 1)?;
    at_least("no_repeat_ngram_size", config.no_repeat_ngram_size, 0)?;
    at_least("top_k", config.top_k, 0)?;
    let seconds = config.max_time.unwrap_or(0.0);
    ensure!(seconds >= 0.0, "max_time must not be negative, but is {seconds}");
    let penalty = config.repetition_penalty;
    ensure!(penalty > 0.0, "repetition_penalty must be greater than 0, not {penalty}");
    ensure!(config.length_penalty.is_finite(), "length_penalty must be a finite number");
    ensure!(
        config.stop_strings.iter().all(|string| !string.is_empty()),
        "stop_strings must not hold an empty string"
    );
    Ok(())
}

/// Ranges of the sampling settings; where they have no effect, only a flag's is checked.
fn check_sampling(config: &GenerationConfig, overrides: &Map<String, Value>) -> Result<()> {
    let check = |key: &str, value: f64, holds: bool, range: &str| {
        let matters = config.do_sample || overrides.contains_key(key);
        ensure!(holds || !matters, "{key} must be {range}, not {value}");
        Ok(())
    };
    let t = config.temperature;
    let hint = "greater than 0 (for the likeliest token, leave do_sample off)";
    check("temperature", t, t > 0.0, hint)?;
    let (p, range) = (config.top_p, "between 0 and 1");
    check("top_p", p, (0.0..=1.0).contains(&p), range)?;
    let p = config.min_p.unwrap_or(0.0);
    check("min_p", p, (0.0..=1.0).contains(&p), range)?;
    let p = config.typical_p;
    check("typical_p", p, p > 0.0 && p <= 1.0, "greater than 0 and at most 1")?;
    for (key, p) in [("epsilon_cutoff", config.epsilon_cutoff), ("eta_cutoff", config.eta_cutoff)] {
        check(key, p, (0.0..1.0).contains(&p), "at least 0 and less than 1")?;
    }
    Ok(())
}

fn check_modes(config: &GenerationConfig, overrides: &Map<String, Value>) -> Result<()> {
    let (beams, groups) = (config.num_beams, config.num_beam_groups);
    let sequences = config.num_return_sequences;
    if beams == 1 {
        ensure!(
            config.do_sample || sequences == 1,
            "num_return_sequences is {sequences}, but without beams or sampling there is one \
             sequence; set num_beams to at least {sequences}, or do_sample"
        );
    } else {
        ensure!(
            sequences <= beams,
            "num_return_sequences is {sequences}, more than num_beams, which is {beams}"
        );
    }
    // In a file it has no effect then, as in the reference.
    ensure!(
        beams == 1
            || groups > 1
            || !overrides.contains_key("diversity_penalty")
            || config.diversity_penalty == 0.0,
        "diversity_penalty is {}, but there is one beam group; set num_beam_groups",
        config.diversity_penalty
    );
    if beams > 1 && groups > 1 {
        ensure!(!config.do_sample, "beam groups can't sample; leave do_sample off");
        ensure!(
            beams % groups == 0,
            "num_beams is {beams}, no multiple of num_beam_groups, which is {groups}"
        );
        ensure!(
            config.diversity_penalty > 0.0,
            "num_beam_groups is {groups}, but diversity_penalty is {}, so the groups would be \
             identical; set it greater than 0",
            config.diversity_penalty
        );
    }
    if let Some(alpha) = config.penalty_alpha {
        ensure!((0.0..=1.0).contains(&alpha), "penalty_alpha must be between 0 and 1, not {alpha}");
    }
    Ok(())
}

fn check_ids(config: &GenerationConfig) -> Result<()> {
    let wrong = |ids: &[i64]| ids.is_empty() || ids.iter().any(|id| *id < 0);
    if config.bad_words_ids.iter().any(|ids| wrong(ids)) {
        bail!("bad_words_ids must hold non-empty lists of token ids that are not negative");
    }
    if config.sequence_bias.iter().any(|(ids, _)| wrong(ids)) {
        bail!("sequence_bias must hold non-empty lists of token ids that are not negative");
    }
    let forced = config.forced_eos_token_id.iter().chain(&config.forced_bos_token_id);
    for id in forced.chain(&config.decoder_start_token_id) {
        ensure!(*id >= 0, "a forced or start token id is {id}; it must not be negative");
    }
    if config.exponential_decay_length_penalty.is_some() && config.eos_token_id.is_empty() {
        bail!("exponential_decay_length_penalty needs eos_token_id, and none is set");
    }
    Ok(())
}

/// The reference's warnings, for flags only: what a file says was somebody else's choice.
fn warn_of_no_effect(
    config: &GenerationConfig,
    overrides: &Map<String, Value>,
    warnings: &mut Vec<String>,
) {
    let mode = config.mode();
    let default = GenerationConfig::default();
    let sampling: [(&str, bool); 7] = [
        ("temperature", config.temperature != default.temperature),
        ("top_k", config.top_k != default.top_k && mode != GenerationMode::Contrastive),
        ("top_p", config.top_p != default.top_p),
        ("min_p", config.min_p.is_some()),
        ("typical_p", config.typical_p != default.typical_p),
        ("epsilon_cutoff", config.epsilon_cutoff != 0.0),
        ("eta_cutoff", config.eta_cutoff != 0.0),
    ];
    let beams: [(&str, bool); 4] = [
        ("early_stopping", config.early_stopping != EarlyStopping::False),
        ("length_penalty", config.length_penalty != default.length_penalty),
        ("num_beam_groups", config.num_beam_groups != 1),
        ("diversity_penalty", config.diversity_penalty != 0.0),
    ];
    let mut warn = |settings: &[(&str, bool)], without: &str| {
        for (key, _) in settings.iter().filter(|(key, set)| *set && overrides.contains_key(*key)) {
            warnings.push(format!("{key} has no effect without {without}"));
        }
    };
    if !config.do_sample {
        warn(&sampling, "do_sample");
    }
    if config.num_beams == 1 {
        warn(&beams, "num_beams greater than 1");
    }
    let alpha = config.penalty_alpha.is_some() && mode != GenerationMode::Contrastive;
    warn(&[("penalty_alpha", alpha)], "top_k greater than 1, or together with beams or sampling");
    for (new, total) in [("max_new_tokens", "max_length"), ("min_new_tokens", "min_length")] {
        if overrides.contains_key(new) && overrides.contains_key(total) {
            warnings.push(format!("{new} and {total} are both set; {new} is taken"));
        }
    }
    if config.total_min_length(1) > config.total_length(1) {
        let (least, most) = (config.total_min_length(1), config.total_length(1));
        let flagged = |key: &&str| overrides.contains_key(*key);
        let keys = ["min_length", "min_new_tokens", "max_length", "max_new_tokens"];
        if keys.iter().any(flagged) {
            warnings.push(format!(
                "at least {least} tokens are asked for and at most {most} allowed; \
                 sequences will have {most}"
            ));
        }
    }
}

/// Cuts the lengths down to what `positions` allow, and says so. The last token is written without
/// being read, so it needs no position; contrastive search reads it.
pub(super) fn clamp(config: &mut GenerationConfig, positions: i64, warnings: &mut Vec<String>) {
    let most = longest(config, positions);
    let asked = config.total_length(1);
    if asked <= most {
        return;
    }
    let most_new = (most - 1).max(1);
    if let Some(new) = config.max_new_tokens {
        config.max_new_tokens = Some(most_new);
        warnings.push(format!(
            "max_new_tokens is {new}, but the decoder has {positions} positions; taking {most_new}"
        ));
    } else {
        let counted = config.max_length;
        config.max_length = if config.length == LengthRule::New { most_new } else { most };
        warnings.push(format!(
            "max_length is {counted}, but the decoder has {positions} positions; taking {}",
            config.max_length
        ));
    }
}

/// The most tokens that a decoder with so many positions can hold in one sequence.
pub(super) fn longest(config: &GenerationConfig, positions: i64) -> i64 {
    positions + i64::from(config.mode() != GenerationMode::Contrastive)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::ved::generation::Sources;

    fn resolve(
        file: Option<&Value>,
        flags: &Value,
        positions: Option<i64>,
    ) -> Result<(GenerationConfig, Vec<String>)> {
        GenerationConfig::resolve(&Sources {
            overrides: flags.as_object().unwrap(),
            generation_config: file,
            config: &Value::Null,
            decoder_defaults: &Value::Null,
            max_positions: positions,
            reference_length: false,
        })
    }

    #[test]
    fn what_can_not_be_is_refused_by_name() {
        let table = [
            (json!({"num_beam": 2}), "\"num_beam\" is not a generation setting"),
            (json!({"num_beams": 0}), "num_beams must be at least 1, not 0"),
            (json!({"num_beams": "4"}), "num_beams must be an integer, not \"4\""),
            (json!({"num_beams": 2.5}), "num_beams must be an integer, not 2.5"),
            (json!({"max_new_tokens": 0}), "max_new_tokens must be at least 1, not 0"),
            (json!({"top_p": 1.5}), "top_p must be between 0 and 1, not 1.5"),
            (json!({"do_sample": true, "temperature": 0}), "temperature must be greater than 0"),
            (
                json!({"early_stopping": "sometimes"}),
                "early_stopping must be true, false or \"never\", not \"sometimes\"",
            ),
            (json!({"num_return_sequences": 2}), "num_return_sequences is 2, but without beams"),
            (
                json!({"num_return_sequences": 3, "num_beams": 2}),
                "num_return_sequences is 3, more than num_beams, which is 2",
            ),
            (
                json!({"num_beams": 4, "num_beam_groups": 3, "diversity_penalty": 1.0}),
                "num_beams is 4, no multiple of num_beam_groups, which is 3",
            ),
            (
                json!({"num_beams": 4, "num_beam_groups": 2}),
                "num_beam_groups is 2, but diversity_penalty is 0, so the groups would be \
                 identical; set it greater than 0",
            ),
            (
                json!({"num_beams": 4, "diversity_penalty": 0.5}),
                "diversity_penalty is 0.5, but there is one beam group",
            ),
            (
                json!({"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 1.0,
                       "do_sample": true}),
                "beam groups can't sample",
            ),
            (json!({"penalty_alpha": 1.5}), "penalty_alpha must be between 0 and 1"),
            (json!({"bad_words_ids": [3]}), "bad_words_ids must be a list of lists of token ids"),
            (json!({"bad_words_ids": [[]]}), "bad_words_ids must hold non-empty lists"),
            (json!({"eos_token_id": [2, "x"]}), "eos_token_id must be a token id or a list"),
            (json!({"pad_token_id": [1, 2]}), "pad_token_id must be one token id, not [1,2]"),
            (json!({"stop_strings": [""]}), "stop_strings must not hold an empty string"),
            (
                json!({"exponential_decay_length_penalty": [3]}),
                "exponential_decay_length_penalty must be [first token, factor], not [3]",
            ),
            (json!({"guidance_scale": 1.5}), "guidance_scale = 1.5 is not supported"),
            (json!({"force_words_ids": [[1]]}), "force_words_ids = [[1]] is not supported"),
        ];
        for (flags, sentence) in table {
            let error = resolve(None, &flags, None).unwrap_err().to_string();
            assert!(error.starts_with(sentence), "{flags}: {error}");
        }
    }

    #[test]
    fn flags_without_effect_are_told() {
        let table = [
            (json!({"temperature": 0.5}), "temperature has no effect without do_sample"),
            (json!({"top_k": 5}), "top_k has no effect without do_sample"),
            (json!({"length_penalty": 2.0}), "length_penalty has no effect without num_beams"),
            (json!({"early_stopping": true}), "early_stopping has no effect without num_beams"),
            (json!({"encoder_no_repeat_ngram_size": 3}), "encoder_no_repeat_ngram_size needs"),
            (json!({"max_length": 9, "max_new_tokens": 5}), "max_new_tokens and max_length are"),
            (json!({"min_length": 9, "max_length": 5}), "at least 9 tokens are asked for"),
            (
                json!({"max_length": 600}),
                "max_length is 600, but the decoder has 512 positions; taking 513",
            ),
        ];
        for (flags, sentence) in table {
            let (_, warnings) = resolve(None, &flags, Some(512)).unwrap();
            assert_eq!(warnings.len(), 1, "{flags}: {warnings:?}");
            assert!(warnings[0].starts_with(sentence), "{flags}: {warnings:?}");
        }
        // What a file says is its author's affair.
        let file = json!({"temperature": 0.5, "length_penalty": 2.0, "top_p": 7});
        let (config, warnings) = resolve(Some(&file), &json!({"top_k": 50}), Some(512)).unwrap();
        assert_eq!((config.temperature, warnings.len()), (0.5, 0));
    }
}
