//! Whole searches on a scripted decoder, the one of tests/golden/make_generation.py.

mod behaviour;
mod reference;

use std::cell::Cell;

use serde_json::{Map, Value};
use tch::{Kind, Tensor};

use super::*;
use crate::decoders::Limits;
use crate::nn::draft::is_draft;
use crate::nn::{Cache, KeyValue, Memory};

const WORDS: [&str; 16] =
    ["", "<s>", "</s>", "a", "b", "c", "d", "e", "f", "ab", "bc", "ca", "abc", "de", "x", "ef"];

/// A decoder whose state is mixed from the image's number and the ids so far. It keeps the ids in the
/// cache as keys, and the image's number as key of the cross-attention, so that whoever forgets to
/// reorder is found out.
struct Scripted {
    size: i64,
    boost: Vec<(usize, f32)>,
    use_cache: bool,
    /// Most are, or none.
    drafts_are_right: bool,
}

thread_local! {
    /// Calls of the decoder, and those of drafts.
    static CALLS: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
}

fn mix(mut x: u32) -> u32 {
    x ^= x >> 16;
    x = x.wrapping_mul(0x7feb_352d);
    x ^= x >> 15;
    x = x.wrapping_mul(0x846c_a68b);
    x ^ (x >> 16)
}

fn read(state: u32, id: i64) -> u32 {
    mix(state.wrapping_mul(31).wrapping_add(id as u32 + 1))
}

fn logits_of(state: u32, boost: &[(usize, f32)], size: i64) -> Vec<f32> {
    let logit = |v: u32| {
        let x = mix(state.wrapping_add((v + 1).wrapping_mul(0x9e37_79b9))) >> 8;
        let boost = boost.iter().filter(|(token, _)| *token == v as usize);
        (x as f32 - 8_388_608.0) / 2_097_152.0 + boost.map(|(_, by)| by).sum::<f32>()
    };
    (0..size as u32).map(logit).collect()
}

fn rows(tensor: &Tensor) -> Vec<Vec<i64>> {
    let width = tensor.size()[1] as usize;
    let flat: Vec<i64> = Vec::try_from(tensor.to_kind(Kind::Int64).flatten(0, -1)).unwrap();
    flat.chunks(width).map(<[i64]>::to_vec).collect()
}

impl Decoder for Scripted {
    fn forward(&self, ids: &Tensor, states: &Tensor, cache: &mut Cache, _: bool) -> Tensor {
        assert_eq!(cache.counts_padding, self.use_cache);
        let (calls, drafts) = CALLS.get();
        CALLS.set(if is_draft() { (calls, drafts + 1) } else { (calls + 1, drafts) });
        let (n, t) = ids.size2().unwrap();
        assert!(states.size()[0] > 0 && n % states.size()[0] == 0);
        let (layer, _) = cache.layer(0);
        let numbers = layer.cross.get_or_insert_with(|| {
            // The cache changes its own in place.
            Memory::Plain(KeyValue { key: states.copy(), value: states.copy() })
        });
        let Memory::Plain(numbers) = numbers else { unreachable!("made above") };
        let images = rows(&numbers.key.flatten(1, -1));
        assert_eq!(images, rows(&states.flatten(1, -1)));
        let keys = ids.to_kind(Kind::Float).reshape([n, 1, t, 1]);
        let all = layer.append(keys.shallow_clone(), keys);
        let all = rows(&all.key.reshape([n, -1]));
        let per_image = n as usize / images.len();
        let mut hidden = Vec::new();
        for (row, ids) in all.iter().enumerate() {
            let mut state = mix(images[row / per_image][0] as u32);
            for (at, id) in ids.iter().enumerate() {
                state = read(state, *id);
                if at >= ids.len() - t as usize {
                    let part = |i: u32| ((state >> (8 * i)) & 255) as f32 / 128.0 - 1.0;
                    hidden.extend((0..4).map(part));
                }
            }
        }
        cache.advance(t);
        Tensor::from_slice(&hidden).reshape([n, t, 4])
    }

    fn logits(&self, hidden: &Tensor) -> Tensor {
        let (n, t, _) = hidden.size3().unwrap();
        let parts: Vec<f32> = Vec::try_from(hidden.flatten(0, -1)).unwrap();
        let mut logits = Vec::new();
        for parts in parts.chunks(4) {
            let byte = |i: usize| ((parts[i] + 1.0) * 128.0) as u32;
            let mut state = (0..4).map(|i| byte(i) << (8 * i)).sum::<u32>();
            if is_draft() && (state % 5 == 0 || !self.drafts_are_right) {
                state = mix(state); // a draft is not always right
            }
            logits.extend(logits_of(state, &self.boost, self.size));
        }
        Tensor::from_slice(&logits).reshape([n, t, self.size])
    }

    fn limits(&self) -> Limits {
        Limits {
            hidden_size: 4,
            vocab_size: self.size,
            layers: 1,
            max_positions: None,
            cross_attention_size: None,
        }
    }
}

/// A line of a fixture.
struct Case {
    decoder: Scripted,
    images: Vec<i64>,
    prompt: Vec<Vec<i64>>,
    config: GenerationConfig,
    expected: Value,
    line: usize,
}

fn settings(overrides: &Value) -> GenerationConfig {
    let overrides = overrides.as_object().cloned().unwrap();
    let sources = Sources {
        overrides: &overrides,
        generation_config: Some(&Value::Object(Map::new())),
        config: &Value::Null,
        decoder_defaults: &Value::Null,
        max_positions: None,
        reference_length: true,
    };
    GenerationConfig::resolve(&sources).unwrap().0
}

fn cases(text: &str) -> Vec<Case> {
    tch::set_num_threads(1); // The tensors are tiny.
    let list = |value: &Value| -> Vec<i64> {
        value.as_array().unwrap().iter().map(|id| id.as_i64().unwrap()).collect()
    };
    let case = |(line, text): (usize, &str)| {
        let json: Value = serde_json::from_str(text).unwrap();
        let boost = json["boost"].as_array().unwrap().iter();
        let boost = boost.map(|b| (b[0].as_u64().unwrap() as usize, b[1].as_f64().unwrap() as f32));
        Case {
            decoder: Scripted {
                size: json["size"].as_i64().unwrap(),
                boost: boost.collect(),
                use_cache: true,
                drafts_are_right: true,
            },
            images: list(&json["images"]),
            prompt: json["prompt"].as_array().unwrap().iter().map(list).collect(),
            config: settings(&json["config"]),
            expected: json["expected"].clone(),
            line: line + 1,
        }
    };
    text.lines().enumerate().map(case).collect()
}

impl Case {
    /// `which` of the images in one batch.
    fn run(&self, which: &[usize], hooks: &Hooks) -> Vec<Vec<Generated>> {
        let images: Vec<f32> = which.iter().map(|image| self.images[*image] as f32).collect();
        let states = Tensor::from_slice(&images).reshape([-1, 1, 1]);
        let prompt: Vec<i64> = which.iter().flat_map(|image| self.prompt[*image].clone()).collect();
        let prompt = Tensor::from_slice(&prompt).reshape([which.len() as i64, -1]);
        let decode = |ids: &[i64]| ids.iter().map(|id| WORDS[*id as usize]).collect::<String>();
        let hooks = Hooks { decode: Some(&decode), ..*hooks };
        generate(&self.decoder, &states, &prompt, &self.config, &hooks).unwrap()
    }

    fn run_all(&self) -> Vec<Vec<Generated>> {
        let all: Vec<usize> = (0..self.images.len()).collect();
        self.run(&all, &Hooks::default())
    }
}

fn close(found: f64, expected: f64) -> bool {
    (found - expected).abs() <= 1e-4 * expected.abs().max(1.0)
}
