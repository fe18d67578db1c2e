//! Every golden case, stage by stage, against what the reference made of it (tests/golden/README.md).

use std::collections::HashMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use tch::{Kind, Tensor};
use vedm::image::{self, DecodeOptions, Pixels};
use vedm::ved::config::read_json_if_there;
use vedm::ved::generation::{self, Generated, GenerationConfig, Hooks, Sources};
use vedm::ved::{self, LoadOptions, Processor, VisionEncoderDecoder};
use vedm::{decoders, pipeline};

use crate::support::tests_folder;

/// Largest absolute errors, f32.
const PIXELS: f64 = 1e-6;
const STATES: f64 = 1e-4;
const LOGITS: f64 = 1e-4;
const LOSS: f64 = 1e-5;
const SCORES: f64 = 1e-4;
/// How many times the reference's own rounding error is allowed where that is larger.
const NOISE: f64 = 4.0;
/// Relative.
const GRAD_NORM: f64 = 1e-4;

/// One case under test, and the line that tells how it went.
struct Case {
    dir: PathBuf,
    model: VisionEncoderDecoder,
    processor: Processor,
    tensors: HashMap<String, Tensor>,
    json: Value,
    line: String,
    failures: Vec<String>,
}

#[test]
fn golden_cases() {
    // Tiny matrices: threads would wait for each other most of the time.
    tch::set_num_threads(1);
    let mut folders = cases(&tests_folder("golden"));
    assert!(!folders.is_empty(), "no golden cases");
    if let Some(more) = std::env::var_os("VEDM_GOLDEN") {
        let more = cases(Path::new(&more));
        assert!(!more.is_empty(), "VEDM_GOLDEN names a directory without cases");
        folders.extend(more);
    }
    let mut failures = Vec::new();
    for folder in folders {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let (line, failed) = match Case::open(&folder) {
            Ok(case) => case.run(),
            Err(error) => ("does not load".to_string(), vec![format!("{error:#}")]),
        };
        println!("{name:<32} {line}");
        failures.extend(failed.into_iter().map(|failure| format!("{name}: {failure}")));
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

/// The folders that hold an expected.json, sorted.
fn cases(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut found: Vec<PathBuf> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("expected.json").is_file())
        .collect();
    found.sort();
    found
}

impl Case {
    fn open(dir: &Path) -> anyhow::Result<Case> {
        let (model, _) = ved::load(dir, LoadOptions::default())?;
        let processor = Processor::from_dir(dir, &model.config)?;
        let tensors = Tensor::read_safetensors(dir.join("expected.safetensors"))?;
        let json = serde_json::from_str(&std::fs::read_to_string(dir.join("expected.json"))?)?;
        Ok(Case {
            dir: dir.to_path_buf(),
            model,
            processor,
            tensors: tensors.into_iter().collect(),
            json,
            line: String::new(),
            failures: Vec::new(),
        })
    }

    fn run(mut self) -> (String, Vec<String>) {
        let pixel_values = self.pixels();
        let states = {
            let _guard = tch::no_grad_guard();
            self.model.encode(&pixel_values, false)
        };
        let expected = self.tensors["encoder_hidden_states"].shallow_clone();
        self.compare("states", &states, &expected, STATES);
        self.teacher_forced(&pixel_values);
        let _guard = tch::no_grad_guard();
        let states = self.model.project(&states);
        self.generations(&states);
        self.processed(&states);
        self.names();
        (self.line, self.failures)
    }

    /// Decoding and preprocessing of the pictures; -> the reference's own [B, 3, H, W].
    fn pixels(&mut self) -> Tensor {
        let names = self.json["images"].as_array().unwrap().clone();
        let pixels: Vec<Pixels> = names
            .iter()
            .map(|name| {
                let bytes = std::fs::read(self.dir.join(name.as_str().unwrap())).unwrap();
                let decoded = image::decode(&bytes, &DecodeOptions::default()).unwrap();
                self.processor.image_processor.process(&decoded.image).unwrap()
            })
            .collect();
        let found = pipeline::stack(&pixels.iter().collect::<Vec<_>>());
        let expected = self.tensors["pixel_values"].shallow_clone();
        self.compare("pixels", &found, &expected, PIXELS);
        expected
    }

    /// Logits, loss and gradient norm for the labels; the logits token by token as well.
    fn teacher_forced(&mut self, pixel_values: &Tensor) {
        let labels = self.tensors["labels"].to_kind(Kind::Int64);
        let ids = match self.model.shift_tokens_right(&labels) {
            Ok(ids) => ids,
            // Files like TrOCR's hold the ids in the decoder's part only; the reference needed help too.
            Err(_) => {
                let decoder = self.model.config.full_decoder().unwrap();
                let id = |name: &str| {
                    let own = self.model.config.get(name).and_then(Value::as_i64);
                    own.or_else(|| decoder.get(name).and_then(Value::as_i64))
                };
                let start = id("decoder_start_token_id").or_else(|| id("bos_token_id")).unwrap();
                let pad = id("pad_token_id").or_else(|| id("eos_token_id")).unwrap();
                ved::shift_tokens_right(&labels, pad, start)
            }
        };
        let variables = self.model.store().variables();
        let trained = variables.iter().filter(|variable| variable.trainable);
        let trained: Vec<Tensor> = trained.map(|v| v.tensor.set_requires_grad(true)).collect();
        let states = self.model.project(&self.model.encode(pixel_values, false));
        let logits = self.model.logits(&states, &ids, false);
        let expected = self.tensors["logits"].shallow_clone();
        self.compare("logits", &logits, &expected, self.logits_bound());
        let loss = self.loss(&logits, &labels);

        if let Some(expected) = self.tensors.get("grad_norm") {
            let expected = f64::try_from(expected).unwrap();
            loss.backward();
            let norms: f64 = trained
                .iter()
                .map(|variable| variable.grad())
                .filter(Tensor::defined)
                .map(|grad| f64::try_from(grad.to_kind(Kind::Double).square().sum(None)).unwrap())
                .sum();
            let bound = GRAD_NORM.max(NOISE * self.number("grad_norm_noise"));
            self.within("grad_norm", (norms.sqrt() - expected).abs() / expected, bound);
        }
        for variable in &trained {
            let _ = variable.set_requires_grad(false);
        }
        self.token_by_token(&states.detach(), &ids);
    }

    /// The loss for aligned labels; or, if that is not what the case holds, the one of transformers
    /// 4.57.6, which by mistake shifts the labels of this model once more (its issue 42740).
    fn loss(&mut self, logits: &Tensor, labels: &Tensor) -> Tensor {
        let expected = self.tensors["loss"].shallow_clone();
        let error = |loss: &Tensor| f64::try_from((loss.detach() - &expected).abs()).unwrap();
        let aligned = ved::loss(logits, labels);
        if error(&aligned) <= LOSS {
            self.within("loss", error(&aligned), LOSS);
            return aligned;
        }
        let t = labels.size()[1] - 1;
        let shifted = ved::loss(&logits.narrow(1, 0, t), &labels.narrow(1, 1, t));
        self.within("loss(shifted)", error(&shifted), LOSS);
        shifted
    }

    fn token_by_token(&mut self, states: &Tensor, ids: &Tensor) {
        let _guard = tch::no_grad_guard();
        let mut cache = self.model.decoder.limits().cache();
        // Padding inside the sequence counts as in the reference's pass over the whole sequence.
        cache.counts_padding = false;
        let steps: Vec<Tensor> = (0..ids.size()[1])
            .map(|t| {
                let hidden =
                    self.model.decoder.forward(&ids.narrow(1, t, 1), states, &mut cache, false);
                self.model.decoder.logits(&hidden)
            })
            .collect();
        let expected = self.tensors["logits"].shallow_clone();
        self.compare("cached", &Tensor::cat(&steps, 1), &expected, self.logits_bound());
    }

    fn config(&self, flags: &Map<String, Value>) -> anyhow::Result<GenerationConfig> {
        let generation_config = read_json_if_there(&self.dir.join("generation_config.json"))?;
        let arch = decoders::find(self.model.config.decoder_type())?;
        let (config, _) = GenerationConfig::resolve(&Sources {
            overrides: flags,
            generation_config: generation_config.as_ref(),
            config: &self.model.config.to_json(),
            decoder_defaults: &(arch.defaults)(),
            max_positions: self.model.decoder.limits().max_positions,
            reference_length: true,
        })?;
        Ok(config)
    }

    /// Start token and prompt, as the command line makes them.
    fn prompt(&self, text: Option<&str>, config: &GenerationConfig) -> Vec<i64> {
        let start = config.decoder_start_token_id.unwrap();
        let ids = text.map(|text| self.processor.tokenizer.encode(text, false).unwrap());
        let ids = ids.unwrap_or_default();
        let donut = self.model.config.encoder_type().contains("donut") && !ids.is_empty();
        if donut || ids.first() == Some(&start) {
            return ids;
        }
        std::iter::once(start).chain(ids).collect()
    }

    fn generate(
        &self,
        states: &Tensor,
        prompt: &[i64],
        config: &GenerationConfig,
    ) -> anyhow::Result<Vec<Vec<Generated>>> {
        let prompt = Tensor::from_slice(prompt).unsqueeze(0).repeat([states.size()[0], 1]);
        let decode = |ids: &[i64]| self.processor.tokenizer.decode(ids, false).unwrap();
        let hooks = Hooks { decode: Some(&decode), ..Hooks::default() };
        let decoder = self.model.decoder.as_ref();
        generation::generate(decoder, states, &prompt, config, &hooks)
    }

    fn generations(&mut self, states: &Tensor) {
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
    fn processed(&mut self, states: &Tensor) {
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
                &Tensor::from_slice(&prompt).unsqueeze(0),
                &path[0],
                &config,
            )
            .unwrap();
            let expected = self.tensors[one["tensor"].as_str().unwrap()].shallow_clone();
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

    /// What would be saved has the names of the file.
    fn names(&mut self) {
        let store = self.model.store();
        let left = store.left_over();
        let mut known: Vec<String> = store.variables().into_iter().map(|v| v.name).collect();
        known.extend(store.aliases().into_iter().map(|(alias, _)| alias));
        let checkpoint = vedm::checkpoint::Checkpoint::open(&self.dir).unwrap();
        let unknown: Vec<&str> = checkpoint
            .keys()
            .filter(|key| !known.iter().any(|name| name == key) && !left.iter().any(|l| l == key))
            .collect();
        if !unknown.is_empty() {
            self.failures.push(format!("keys without a variable: {unknown:?}"));
        }
    }

    /// Random weights can amplify rounding: where the reference's own f32 is far from its f64, so is ours.
    fn logits_bound(&self) -> f64 {
        LOGITS.max(NOISE * self.number("logits_noise"))
    }

    /// Log-probabilities are as far off as the logits they come from.
    fn scores_bound(&self) -> f64 {
        SCORES.max(NOISE * self.number("logits_noise"))
    }

    /// A scalar of the case, 0 if it has none of that name.
    fn number(&self, name: &str) -> f64 {
        self.tensors.get(name).map_or(0.0, |tensor| f64::try_from(tensor).unwrap())
    }

    fn compare(&mut self, stage: &str, found: &Tensor, expected: &Tensor, bound: f64) {
        if found.size() != expected.size() {
            let (found, expected) = (found.size(), expected.size());
            self.failures.push(format!("{stage}: shape {found:?} for {expected:?}"));
            return;
        }
        let error = (found.detach() - expected).abs().max();
        self.within(stage, f64::try_from(error).unwrap(), bound);
    }

    fn within(&mut self, stage: &str, error: f64, bound: f64) {
        write!(self.line, " {stage} {error:.1e}").unwrap();
        self.quietly_within(stage, error, bound);
    }

    /// NaN fails too.
    fn quietly_within(&mut self, what: &str, error: f64, bound: f64) {
        if error.is_nan() || error > bound {
            self.failures.push(format!("{what}: error {error:.2e}, bound {bound:.0e}"));
        }
    }
}

fn numbers<T: serde::de::DeserializeOwned>(json: &Value) -> Vec<Vec<T>> {
    serde_json::from_value(json.clone()).unwrap()
}

fn largest(found: &[f64], expected: &[f64]) -> f64 {
    if found.len() != expected.len() {
        return f64::NAN;
    }
    found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}
