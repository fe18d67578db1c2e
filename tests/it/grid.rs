//! Every encoder with every decoder: names, shapes and logits against the reference's.
//!
//! tests/fixtures/grid.json (written by tests/golden/make_grid.py) holds no weights: both sides fill
//! theirs by one formula from the names, `values`.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};
use vedm::nn::Store;
use vedm::ved::{VisionEncoderDecoder, VisionEncoderDecoderConfig};
use vedm::{decoders, encoders};

use crate::support::tests_folder;

/// How far numbers may be off: single logits and, as a share of the mean magnitude, mean logits.
const BOUND: f64 = 3e-5;

/// The file, parsed.
pub struct Grid {
    pub ids: Tensor,
    pub encoders: Vec<Row>,
    pub decoders: Vec<Row>,
    /// encoder -> decoder -> six numbers, or the sentence with which the reference refuses the pair
    pub pairs: Value,
}

/// An encoder or a decoder.
#[derive(Clone)]
pub struct Row {
    pub name: String,
    pub config: Value,
    /// Height and width of an encoder's image.
    pub size: Vec<i64>,
    shapes: BTreeMap<String, Vec<i64>>,
    /// Names of one tensor.
    tied: BTreeSet<BTreeSet<String>>,
}

impl Grid {
    pub fn read() -> Grid {
        let text = std::fs::read_to_string(tests_folder("fixtures").join("grid.json")).unwrap();
        let json: Value = serde_json::from_str(&text).unwrap();
        let ids: Vec<Vec<i64>> = serde_json::from_value(json["ids"].clone()).unwrap();
        let rows = |half| json[half].as_array().unwrap().iter().map(Row::read).collect();
        Grid {
            ids: Tensor::from_slice2(&ids),
            encoders: rows("encoders"),
            decoders: rows("decoders"),
            pairs: json["pairs"].clone(),
        }
    }
}

impl Row {
    pub fn read(json: &Value) -> Row {
        let lines: Vec<String> = serde_json::from_value(json["keys"].clone()).unwrap();
        Row {
            name: json["name"].as_str().unwrap().to_string(),
            config: json["config"].clone(),
            size: serde_json::from_value(json["size"].clone()).unwrap_or_default(),
            shapes: lines.iter().flat_map(|line| expand(line)).collect(),
            tied: serde_json::from_value(json["tied"].clone()).unwrap(),
        }
    }
}

/// `a.{0,1}.b weight 4x3 bias 4` is four names with their shapes; the module `-` is the root.
fn expand(line: &str) -> Vec<(String, Vec<i64>)> {
    let mut words = line.split(' ');
    let module = words.next().unwrap();
    let modules: Vec<String> = match module.split_once('{') {
        Some((head, rest)) => {
            let (indices, tail) = rest.split_once('}').unwrap();
            indices.split(',').map(|index| format!("{head}{index}{tail}.")).collect()
        }
        None if module == "-" => vec![String::new()],
        None => vec![format!("{module}.")],
    };
    let mut found = Vec::new();
    while let (Some(name), Some(shape)) = (words.next(), words.next()) {
        let shape: Vec<i64> = match shape {
            "scalar" => Vec::new(),
            sizes => sizes.split('x').map(|size| size.parse().unwrap()).collect(),
        };
        found.extend(modules.iter().map(|module| (format!("{module}{name}"), shape.clone())));
    }
    found
}

/// The SplitMix64 stream seeded by the 64-bit FNV-1a hash of a name, in [0, 1).
pub fn uniform(name: &str) -> impl Iterator<Item = f64> {
    let seed = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |state, byte| {
        (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (1u64..).map(move |i| {
        let x = seed.wrapping_add(i.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ (x >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    })
}

/// The tensor of that name: vectors called weight or lambda stand around 1, other vectors around 0; a
/// value of anything else is drawn from plus and minus 2 / sqrt(n / shape[0]).
pub fn values(name: &str, shape: &[i64]) -> Tensor {
    let count = shape.iter().product::<i64>();
    let (middle, scale) = if shape.len() > 1 {
        (0.0, 4.0 / ((count / shape[0].max(1)) as f64).sqrt())
    } else if name.ends_with("weight") || name.contains("lambda") {
        (1.0, 0.4)
    } else {
        (0.0, 0.2)
    };
    let xs: Vec<f32> =
        uniform(name).take(count as usize).map(|u| (middle + (u - 0.5) * scale) as f32).collect();
    Tensor::from_slice(&xs).reshape(shape)
}

/// The names of each tensor.
pub fn groups(store: &Store) -> BTreeMap<String, BTreeSet<String>> {
    let mut groups: BTreeMap<String, BTreeSet<String>> =
        store.variables().into_iter().map(|v| (v.name.clone(), [v.name].into())).collect();
    for (alias, name) in store.aliases() {
        groups.get_mut(&name).unwrap().insert(alias);
    }
    groups
}

/// Gives every variable its values; a tied one has those of the first of its names by alphabet. Fixed
/// tables stay as they are, and so does what reaches no output.
pub fn fill(store: &Store) {
    let groups = groups(store);
    for mut variable in store.variables().into_iter().filter(|variable| variable.trainable) {
        let name = groups[&variable.name].first().unwrap();
        let values = values(name, &variable.tensor.size());
        tch::no_grad(|| variable.tensor.copy_(&values));
    }
}

pub fn build(encoder: &Row, decoder: &Row) -> anyhow::Result<VisionEncoderDecoder> {
    let pad = &decoder.config["pad_token_id"];
    let config = VisionEncoderDecoderConfig::from_json(json!({
        "model_type": "vision-encoder-decoder", "encoder": encoder.config, "decoder": decoder.config,
        "pad_token_id": pad, "decoder_start_token_id": pad,
    }))?;
    let store = Rc::new(Store::fresh(Device::Cpu, Kind::Float));
    let model = VisionEncoderDecoder::build(config, store)?;
    model.store().check()?;
    model.encoder.check_size(encoder.size[0], encoder.size[1], false)?;
    fill(model.store());
    Ok(model)
}

/// pixel_values [B, C, H, W] between -2 and 2.
pub fn image(encoder: &Row, batch: i64) -> Tensor {
    let channels = encoder.config.get("num_channels").and_then(Value::as_i64).unwrap_or(3);
    let shape = [batch, channels, encoder.size[0], encoder.size[1]];
    let count = shape.iter().product::<i64>() as usize;
    let xs: Vec<f32> =
        uniform("pixel_values").take(count).map(|u| ((u - 0.5) * 4.0) as f32).collect();
    Tensor::from_slice(&xs).reshape(shape)
}

/// What differs between the names, shapes and ties of a model and those of the reference's.
fn names(model: &VisionEncoderDecoder, encoder: &Row, decoder: &Row) -> Vec<String> {
    let (from, to) = (model.encoder.hidden_size(), model.decoder.limits().hidden_size);
    let mut expected = BTreeMap::new();
    let mut tied = BTreeSet::new();
    for (half, row) in [("encoder", encoder), ("decoder", decoder)] {
        let full = |name: &String| format!("{half}.{name}");
        expected.extend(row.shapes.iter().map(|(name, shape)| (full(name), shape.clone())));
        tied.extend(row.tied.iter().map(|group| group.iter().map(full).collect::<BTreeSet<_>>()));
    }
    if from != to && model.config.cross_attention_hidden_size().is_none() {
        expected.insert("enc_to_dec_proj.weight".into(), vec![to, from]);
        expected.insert("enc_to_dec_proj.bias".into(), vec![to]);
    }
    let groups = groups(model.store());
    let mut found = BTreeMap::new();
    for variable in model.store().variables() {
        for name in &groups[&variable.name] {
            found.insert(name.clone(), variable.tensor.size());
        }
    }
    let mut wrong = Vec::new();
    for name in found.keys().chain(expected.keys()).collect::<BTreeSet<_>>() {
        if found.get(name) != expected.get(name) {
            wrong.push(format!("{name}: {:?}, not {:?}", found.get(name), expected.get(name)));
        }
    }
    let ours: BTreeSet<_> = groups.into_values().filter(|names| names.len() > 1).collect();
    if ours != tied {
        wrong.push(format!("tied are {ours:?}, not {tied:?}"));
    }
    wrong
}

/// Teacher-forced logits [B, T, V], in one call, and token by token with a cache.
fn logits(model: &VisionEncoderDecoder, pixel_values: &Tensor, ids: &Tensor) -> (Tensor, Tensor) {
    let _guard = tch::no_grad_guard();
    let states = model.project(&model.encode(pixel_values, false));
    let whole = model.logits(&states, ids, false);
    let mut cache = model.decoder.limits().cache();
    cache.counts_padding = false;
    let step = |t| {
        let hidden = model.decoder.forward(&ids.narrow(1, t, 1), &states, &mut cache, false);
        model.decoder.logits(&hidden)
    };
    let steps: Vec<Tensor> = (0..ids.size()[1]).map(step).collect();
    (whole, Tensor::cat(&steps, 1))
}

/// Largest errors: of the two sums (see `BOUND`), of the samples, of the cached logits.
fn errors(whole: &Tensor, cached: &Tensor, expected: &[f64]) -> [f64; 3] {
    let flat = whole.to_kind(Kind::Double).flatten(0, -1);
    let count = flat.numel() as i64;
    let sum = |xs: &Tensor| f64::try_from(xs.sum(Kind::Double)).unwrap();
    let sums = (sum(&flat) - expected[0]).abs().max((sum(&flat.abs()) - expected[1]).abs());
    let places = [0, count / 3, 2 * count / 3, count - 1];
    let samples = places.iter().zip(&expected[2..]);
    let samples = samples.map(|(place, expected)| (flat.double_value(&[*place]) - expected).abs());
    let cached = f64::try_from((whole - cached).abs().max()).unwrap();
    [sums / expected[1], samples.fold(0.0, f64::max), cached]
}

#[test]
fn every_pair_computes_what_the_reference_does() {
    tch::set_num_threads(1);
    let grid = Grid::read();
    let mut failures = Vec::new();
    for encoder in &grid.encoders {
        let pixel_values = image(encoder, grid.ids.size()[0]);
        let mut largest = [0.0f64; 3];
        for decoder in &grid.decoders {
            let pair = format!("{} with {}", encoder.name, decoder.name);
            let expected = &grid.pairs[&encoder.name][&decoder.name];
            if expected.is_null() {
                continue; // see `every_row_is_in_the_grid`
            }
            let model = match (build(encoder, decoder), expected.as_str()) {
                (Ok(model), None) => model,
                (Err(_), Some(_)) => continue,
                (Ok(_), Some(reason)) => {
                    failures.push(format!("{pair} works; the reference says {reason:?}"));
                    continue;
                }
                (Err(error), None) => {
                    failures.push(format!("{pair}: {error:#}"));
                    continue;
                }
            };
            for wrong in names(&model, encoder, decoder) {
                failures.push(format!("{pair}: {wrong}"));
            }
            let expected: Vec<f64> = serde_json::from_value(expected.clone()).unwrap();
            let (whole, cached) = logits(&model, &pixel_values, &grid.ids);
            let found = errors(&whole, &cached, &expected);
            if !found.iter().all(|error| *error < BOUND) {
                failures.push(format!("{pair}: errors (sums, samples, cache) {found:?}"));
            }
            for (all, one) in largest.iter_mut().zip(found) {
                *all = all.max(one);
            }
        }
        let [sums, samples, cached] = largest;
        println!(
            "{:28} largest errors: sums {sums:.1e}, samples {samples:.1e}, cache {cached:.1e}",
            encoder.name
        );
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn every_row_is_in_the_grid() {
    let grid = Grid::read();
    let types = |rows: &[Row]| -> BTreeSet<String> {
        rows.iter().map(|row| row.config["model_type"].as_str().unwrap().to_string()).collect()
    };
    let encoders: BTreeSet<String> =
        encoders::ENCODERS.iter().map(|arch| arch.model_type.to_string()).collect();
    let decoders: BTreeSet<String> =
        decoders::DECODERS.iter().map(|arch| arch.model_type.to_string()).collect();
    assert_eq!(types(&grid.encoders), encoders);
    assert_eq!(types(&grid.decoders), decoders);
    for encoder in &encoders {
        for decoder in &decoders {
            assert!(!grid.pairs[encoder][decoder].is_null(), "{encoder} with {decoder}");
        }
    }
    // A second row of a type meets someone.
    let met = |encoder: &Row, decoder: &Row| !grid.pairs[&encoder.name][&decoder.name].is_null();
    for encoder in &grid.encoders {
        assert!(grid.decoders.iter().any(|decoder| met(encoder, decoder)), "{}", encoder.name);
    }
    for decoder in &grid.decoders {
        assert!(grid.encoders.iter().any(|encoder| met(encoder, decoder)), "{}", decoder.name);
    }
}
