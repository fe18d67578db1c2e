//! Every golden case, stage by stage, against what the reference made of it (tests/golden/README.md).

mod generation;

use std::collections::HashMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tch::{Device, Kind, Tensor};
use vedm::image::{self, DecodeOptions, Pixels};
use vedm::nn::Packing;
use vedm::pipeline;
use vedm::ved::{self, LoadOptions, Processor, VisionEncoderDecoder};

use crate::support::{device, elsewhere, tests_folder};

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
        let (model, _) =
            ved::load(dir, LoadOptions { device: device(), ..LoadOptions::default() })?;
        let processor = Processor::from_dir(dir, &model.config)?;
        let tensors = Tensor::read_safetensors(dir.join("expected.safetensors"))?;
        let tensors = tensors.into_iter().map(|(name, tensor)| (name, tensor.to_device(device())));
        let json = serde_json::from_str(&std::fs::read_to_string(dir.join("expected.json"))?)?;
        Ok(Case {
            dir: dir.to_path_buf(),
            model,
            processor,
            tensors: tensors.collect(),
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
        self.names();
        let _guard = tch::no_grad_guard();
        // What users run: matrices packed for inference, in f32 too; on a CPU, that is.
        if device() == Device::Cpu {
            let packing = Some(Packing::F32);
            let options = LoadOptions { packing, ..LoadOptions::default() };
            self.model = ved::load(&self.dir, options).unwrap().0;
        }
        let states = self.model.encode(&pixel_values, false);
        self.compare("packed states", &states, &expected, STATES);
        let states = self.model.project(&states);
        self.generations(&states);
        self.processed(&states);
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
        if error(&aligned) <= LOSS * elsewhere() {
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
        let error = (found.detach().to_device(expected.device()) - expected).abs().max();
        self.within(stage, f64::try_from(error).unwrap(), bound);
    }

    fn within(&mut self, stage: &str, error: f64, bound: f64) {
        write!(self.line, " {stage} {error:.1e}").unwrap();
        self.quietly_within(stage, error, bound);
    }

    /// NaN fails too.
    fn quietly_within(&mut self, what: &str, error: f64, bound: f64) {
        let bound = bound * elsewhere();
        if error.is_nan() || error > bound {
            self.failures.push(format!("{what}: error {error:.2e}, bound {bound:.0e}"));
        }
    }
}
