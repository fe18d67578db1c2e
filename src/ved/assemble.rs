//! A new model from two parts: each a config (random weights) or a pretrained checkpoint (warm start).
//! Reference: `from_encoder_decoder_configs`, `from_encoder_decoder_pretrained`.

use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

use anyhow::{Result, bail};
use serde_json::{Map, Value, json};
use tch::{Device, Kind};

use super::source::{Half, Source, Weights};
use super::{VisionEncoderDecoder, VisionEncoderDecoderConfig};
use crate::nn::config as reading;
use crate::nn::store::{Missing, Store};
use crate::{decoders, encoders};

/// What became of the tensors.
#[derive(Default)]
pub struct Report {
    /// Tensors of the new model that came from a checkpoint.
    pub taken: usize,
    /// Keys of the two checkpoints that have no place in the new model.
    pub left: Vec<String>,
    /// Tensors of the new model that were drawn.
    pub made: Vec<String>,
    /// Sentences for the user that are no errors.
    pub notes: Vec<String>,
}

/// Joins two halves.
///
/// `encoder_set`, `decoder_set` and `set` are overrides of the two configs and of the top level (the
/// reference's `encoder_`, `decoder_` and plain keyword arguments). The weights are drawn from
/// libtorch's generator: seed it before.
pub fn assemble(
    encoder: &Source,
    decoder: &Source,
    encoder_set: &Map<String, Value>,
    decoder_set: &Map<String, Value>,
    set: Map<String, Value>,
    kind: Kind,
) -> Result<(VisionEncoderDecoder, Report)> {
    let encoder_config = complete(Half::Encoder, encoder, encoder_set)?;
    let decoder_config = complete(Half::Decoder, decoder, decoder_set)?;
    let mut rest = Map::new();
    rest.insert("architectures".into(), json!(["VisionEncoderDecoderModel"]));
    rest.insert("model_type".into(), json!("vision-encoder-decoder"));
    rest.insert("is_encoder_decoder".into(), json!(true));
    rest.insert("tie_word_embeddings".into(), json!(false));
    rest.extend(set);
    let config = VisionEncoderDecoderConfig::join(encoder_config, decoder_config, rest);

    let halves: Vec<(Half, &Weights)> = [(Half::Encoder, encoder), (Half::Decoder, decoder)]
        .into_iter()
        .filter_map(|(half, source)| match source {
            Source::Pretrained { weights, .. } => Some((half, weights)),
            Source::Config(_) => None,
        })
        .collect();
    let store = Rc::new(warm_store(&halves, kind));
    let model = VisionEncoderDecoder::build(config, store.clone())?;
    store.check()?;

    let mut report = Report { made: store.made(), notes: store.warnings(), ..Report::default() };
    let mut ignored = BTreeSet::new();
    for (half, weights) in &halves {
        let taken = weights.taken.borrow();
        report.taken += taken.len();
        let model_type = match half {
            Half::Encoder => encoder.model_type(),
            Half::Decoder => decoder.model_type(),
        };
        let harmless = |key: &str| encoders::ignored(half.ignore(model_type), key);
        for key in weights.checkpoint.keys().filter(|key| !taken.contains(*key)) {
            if harmless(key) {
                ignored.insert(key.to_string());
            } else {
                report.left.push(key.to_string());
            }
        }
    }
    if !ignored.is_empty() {
        report.notes.push(format!("{} buffers of old files have no meaning now", ignored.len()));
    }
    Ok((model, report))
}

/// A half's config: the class's defaults, the file, the overrides, and what makes it a decoder.
fn complete(half: Half, source: &Source, set: &Map<String, Value>) -> Result<Value> {
    let mut given = source.config().clone();
    let Value::Object(map) = &mut given else { bail!("the {} config is no object", half.name()) };
    for (key, value) in set {
        map.insert(key.clone(), value.clone());
    }
    let aliases = match half {
        Half::Encoder => &[][..],
        Half::Decoder => decoders::find(source.model_type())?.aliases,
    };
    let mut config = reading::merge(half.defaults(source.model_type())?, &given, aliases);
    for (alias, _) in aliases {
        config.shift_remove(*alias);
    }
    if half == Half::Encoder {
        prepare(&mut config);
    }
    if half == Half::Decoder {
        config.insert("is_decoder".into(), json!(true));
        config.insert("add_cross_attention".into(), json!(true));
    } else {
        for key in ["is_decoder", "add_cross_attention"] {
            if config.get(key) == Some(&json!(true)) {
                config.insert(key.into(), json!(false));
            }
        }
    }
    // These belong to the file that the half came from, not to the new one.
    for key in ["architectures", "_name_or_path", "transformers_version", "torch_dtype", "dtype"] {
        config.shift_remove(key);
    }
    Ok(Value::Object(config))
}

/// Whole images for masked autoencoders, and the size that Swin's config computes from others.
fn prepare(config: &mut Map<String, Value>) {
    let mut json = Value::Object(std::mem::take(config));
    encoders::prepare(&mut json);
    if let Value::Object(map) = json {
        *config = map;
    }
    let (width, depths) = (config.get("embed_dim"), config.get("depths").and_then(Value::as_array));
    if let (Some(width), Some(depths)) = (width.and_then(Value::as_i64), depths)
        && config.contains_key("hidden_size")
        && (1..32).contains(&depths.len())
    {
        config.insert("hidden_size".into(), json!(width << (depths.len() - 1)));
    }
}

/// A store over the tensors of the pretrained halves.
fn warm_store(halves: &[(Half, &Weights)], kind: Kind) -> Store {
    let mut places = HashMap::new();
    for (_, weights) in halves {
        for (name, key) in &weights.names {
            let place = (weights.checkpoint.clone(), key.clone(), weights.taken.clone());
            places.insert(name.clone(), place);
        }
    }
    let keys = places.keys().cloned().collect();
    let lookup = Box::new(move |name: &str| {
        let Some((checkpoint, key, taken)) = places.get(name) else { bail!("no tensor {name:?}") };
        taken.borrow_mut().insert(key.clone());
        checkpoint.tensor(key)
    });
    Store::new(keys, lookup, Missing::Initialize, Device::Cpu, kind)
}
