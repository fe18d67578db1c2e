//! The stages of a golden case behind the encoder: settings, searches, processed scores.

use std::fmt::Write;

use serde_json::{Map, Value};
use tch::{Device, Tensor};
use vedm::ved::config::read_json_if_there;
use vedm::ved::generation::{self, Generated, GenerationConfig, Hooks};

use super::Case;

impl Case {
    fn config(&self, flags: &Map<String, Value>) -> anyhow::Result<GenerationConfig> {
        let generation_config = read_json_if_there(&self.dir.join("generation_config.json"))?;
        let (config, _) = self.model.generation_config(flags, generation_config.as_ref(), true)?;
        Ok(config)
    }

    /// Start token and prompt, as the command line makes them.
    fn prompt(&self, text: Option<&str>, config: &GenerationConfig) -> Vec<i64> {
        let ids = text.map(|text| self.processor.tokenizer.encode(text, false).unwrap());
        self.model.prompt(config.start_token().unwrap(), ids.unwrap_or_default())
    }

    fn generate(
        &self,
        states: &Tensor,
        prompt: &[i64],
        config: &GenerationConfig,
    ) -> anyhow::Result<Vec<Vec<Generated>>> {
        let prompt = Tensor::from_slice(prompt).unsqueeze(0).repeat([states.size()[0], 1]);
        let prompt = prompt.to_device(states.device());
        let decode = |ids: &[i64]| self.processor.tokenizer.decode(ids, false).unwrap();
        let hooks = Hooks { decode: Some(&decode), ..Hooks::default() };
        let decoder = self.model.decoder.as_ref();
        generation::generate(decoder, states, &prompt, config, &hooks)
    }

    pub(super) fn generations(&mut self, states: &Tensor) {
        let all = self.json["generations"].as_array().cloned().unwrap_or_default();
        let mut exact = 0;
        for one in &all {
            let flags = one["flags"].as_object().unwrap();
            let before = self.failures.len();
            match self.config(flags) {
                Ok(config) => self.generation(states, one, &config),
                Err(error) => self.failures.push(format!("{flags:?}: {error:#}")),
            }
            exact += usize::from(self.failures.len() == before);
        }
        write!(self.line, " generations {exact}/{}", all.len()).unwrap();
    }

    /// One call of generate: the whole batch, then every picture alone.
    fn generation(&mut self, states: &Tensor, one: &Value, config: &GenerationConfig) {
        let what = Value::Object(one["flags"].as_object().unwrap().clone()).to_string();
        let prompt = self.prompt(one["prompt"].as_str(), config);
        let batch = self.generate(states, &prompt, config);
        let alone: anyhow::Result<Vec<_>> = (0..states.size()[0])
            .map(|image| self.generate(&states.narrow(0, image, 1), &prompt, config))
            .collect();
        let alone = alone.map(|images| images.into_iter().flatten().collect());
        for (way, generated) in [("batch", batch), ("alone", alone)] {
            let generated = match generated {
                Ok(generated) => generated,
                Err(error) => {
                    self.failures.push(format!("{what} {way}: {error:#}"));
                    continue;
                }
            };
            let rows: Vec<&Generated> = generated.iter().flatten().collect();
            let ids: Vec<&Vec<i64>> = rows.iter().map(|row| &row.ids).collect();
            let expected: Vec<Vec<i64>> = numbers(&one["ids"]);
            let expected: Vec<Vec<i64>> =
                expected.into_iter().map(|row| without_padding(row, config)).collect();
            if ids.iter().map(|ids| ids.as_slice()).ne(expected.iter().map(Vec::as_slice)) {
                self.failures.push(format!("{what} {way}: ids {ids:?} for {expected:?}"));
                continue;
            }
            let texts = rows
                .iter()
                .map(|row| self.processor.tokenizer.decode(&row.ids, true).unwrap())
                .collect::<Vec<_>>();
            let expected: Vec<String> =
                serde_json::from_value(one["texts"].clone()).unwrap_or_default();
            if !expected.is_empty() && texts != expected {
                self.failures.push(format!("{what} {way}: texts {texts:?} for {expected:?}"));
            }
            if let Some(scores) = one["sequences_scores"].as_array() {
                for (row, expected) in rows.iter().zip(scores) {
                    let found = row.sequences_score.unwrap_or(f64::NAN);
                    let expected = expected.as_f64().unwrap();
                    // A negative length penalty multiplies: f32 has seven digits whatever the size.
                    let error = (found - expected).abs() / expected.abs().max(10.0) * 10.0;
                    self.quietly_within(&format!("{what} {way} score"), error, self.scores_bound());
                }
            }
            if one["token_logprobs"].is_array() {
                let expected: Vec<Vec<f64>> = numbers(&one["token_logprobs"]);
                for (row, expected) in rows.iter().zip(&expected) {
                    let error = largest(&row.token_logprobs, expected);
                    self.quietly_within(
                        &format!("{what} {way} token_logprobs"),
                        error,
                        self.scores_bound(),
                    );
                }
            }
        }
    }

    /// Scores behind all processors and warpers along a forced path.
    pub(super) fn processed(&mut self, states: &Tensor) {
        let all = self.json["processed"].as_array().cloned().unwrap_or_default();
        for one in &all {
            let flags = one["flags"].as_object().unwrap();
            let config = match self.config(flags) {
                Ok(config) => config,
                Err(error) => {
                    self.failures.push(format!("{flags:?}: {error:#}"));
                    continue;
                }
            };
            let prompt = self.prompt(one["prompt"].as_str(), &config);
            let image = one["image"].as_i64().unwrap_or(0);
            let path: Vec<Vec<i64>> = numbers(&one["path"]);
            let found = generation::processed_scores(
                self.model.decoder.as_ref(),
                &states.narrow(0, image, 1),
                &Tensor::from_slice(&prompt).unsqueeze(0).to_device(states.device()),
                &path[0],
                &config,
            )
            .unwrap();
            let expected = self.tensors[one["tensor"].as_str().unwrap()].shallow_clone();
            let found = found.to_device(Device::Cpu);
            let expected = expected.to_device(Device::Cpu);
            let excluded = (found.isneginf().ne_tensor(&expected.isneginf())).any();
            if bool::try_from(excluded).unwrap() {
                self.failures.push(format!("{flags:?}: other tokens are excluded"));
                continue;
            }
            let finite = expected.isfinite();
            let error = (found.where_self(&finite, &Tensor::from(0f32))
                - expected.where_self(&finite, &Tensor::from(0f32)))
            .abs()
            .max();
            let error = f64::try_from(error).unwrap();
            self.quietly_within(&format!("{flags:?} processed scores"), error, self.scores_bound());
        }
        if !all.is_empty() {
            write!(self.line, " processed {}", all.len()).unwrap();
        }
    }
}

/// A row up to its first end token: a batch is filled up with padding behind it.
fn without_padding(mut row: Vec<i64>, config: &GenerationConfig) -> Vec<i64> {
    if let Some(end) = row.iter().position(|id| config.eos_token_id.contains(id)) {
        row.truncate(end + 1);
    }
    row
}

fn numbers<T: serde::de::DeserializeOwned>(json: &Value) -> Vec<Vec<T>> {
    serde_json::from_value(json.clone()).unwrap()
}

fn largest(found: &[f64], expected: &[f64]) -> f64 {
    if found.len() > expected.len() {
        return f64::NAN;
    }
    found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}
