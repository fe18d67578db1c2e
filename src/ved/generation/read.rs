//! JSON values to settings; what has the wrong type is refused by name.

use anyhow::{Result, bail};
use serde_json::{Map, Value};

use super::config::{EarlyStopping, GenerationConfig};
use super::resolve::{same, without_field};

/// The typed settings. A null counts as absent; unknown keys are kept.
pub(super) fn read(values: &Map<String, Value>) -> Result<GenerationConfig> {
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
        // Some files write 6.0.
        let whole = |value: &Value| {
            let exact = |number: &f64| number.fract() == 0.0 && number.abs() < 9e15;
            value.as_i64().or_else(|| value.as_f64().filter(exact).map(|number| number as i64))
        };
        self.get(key, "an integer", whole)
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
                // To Python they are equal.
                Value::Number(number) if number.as_f64() == Some(1.0) => Some(EarlyStopping::True),
                Value::Number(number) if number.as_f64() == Some(0.0) => Some(EarlyStopping::False),
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
