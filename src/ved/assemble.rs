//! A new model from two parts: each a config (random weights) or a pretrained checkpoint (warm start).
//! Reference: `from_encoder_decoder_configs`, `from_encoder_decoder_pretrained`.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use anyhow::{Result, bail, ensure};
use serde_json::{Map, Value, json};
use tch::{Device, Kind};

use super::generation::GenerationConfig;
use super::report::Report;
use super::source::{Half, Source, Weights};
use super::{VisionEncoderDecoder, VisionEncoderDecoderConfig};
use crate::nn::config as reading;
use crate::nn::store::{Missing, Store};
use crate::{decoders, encoders};

/// Fields that every config has, beside those of its family.
pub const COMMON: &[&str] = &[
    "add_cross_attention",
    "attn_implementation",
    "bos_token_id",
    "chunk_size_feed_forward",
    "cross_attention_hidden_size",
    "decoder_start_token_id",
    "eos_token_id",
    "gradient_checkpointing",
    "id2label",
    "is_decoder",
    "is_encoder_decoder",
    "label2id",
    "pad_token_id",
    "prefix",
    "sep_token_id",
    "tie_word_embeddings",
    "use_cache",
];

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
    let mut notes = Vec::new();
    let encoder_config = complete(Half::Encoder, encoder, encoder_set, &mut notes)?;
    let decoder_config = complete(Half::Decoder, decoder, decoder_set, &mut notes)?;
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

    notes.extend(store.warnings());
    Ok((model, report(&store, &halves, notes)))
}

/// Which tensors were taken, made and left.
fn report(store: &Store, halves: &[(Half, &Weights)], mut notes: Vec<String>) -> Report {
    let made = store.made();
    let drawn: HashSet<&String> = made.iter().collect();
    let names = store.variables().into_iter().map(|variable| variable.name);
    let taken = names.filter(|name| !drawn.contains(name)).collect();
    let mut left = Vec::new();
    for (half, weights) in halves {
        let taken = weights.taken.borrow();
        let keys = weights.candidates().filter(|key| !taken.contains(*key));
        left.extend(keys.map(|key| (*half, key.to_string())));
        if weights.others() > 0 {
            notes.push(format!(
                "the {} comes from a whole model, whose other {} tensors were not asked for",
                half.name(),
                weights.others()
            ));
        }
    }
    Report { taken, left, made, notes }
}

/// A half's config: the class's defaults, the file, the overrides, and what makes it a decoder.
fn complete(
    half: Half,
    source: &Source,
    set: &Map<String, Value>,
    notes: &mut Vec<String>,
) -> Result<Value> {
    let mut given = source.config().clone();
    let Value::Object(map) = &mut given else { bail!("the {} config is no object", half.name()) };
    for (key, value) in set {
        let must =
            half == Half::Decoder && matches!(key.as_str(), "is_decoder" | "add_cross_attention");
        ensure!(
            !must || *value == json!(true),
            "--set decoder.{key}={value}: the decoder of such a model has {key} = true"
        );
        map.insert(key.clone(), value.clone());
    }
    let aliases = match half {
        Half::Encoder => &[][..],
        Half::Decoder => decoders::find(source.model_type())?.aliases,
    };
    let defaults = half.defaults(source.model_type())?;
    for key in set.keys() {
        let known = COMMON.contains(&key.as_str())
            || defaults.get(key).is_some()
            || source.config().get(key).is_some()
            || aliases.iter().any(|(alias, _)| alias == key);
        if !known {
            notes.push(format!(
                "{} configs of type {:?} have no {key:?}; it is written, and has no effect",
                half.name(),
                source.model_type()
            ));
        }
    }
    let mut config = reading::merge(defaults, &given, aliases);
    for (alias, _) in aliases {
        config.shift_remove(*alias);
    }
    if let (Half::Decoder, Value::Object(given)) = (half, &given) {
        keep_nothing(&mut config, given);
    }
    if half == Half::Encoder {
        prepare(&mut config);
    }
    if half == Half::Decoder {
        room_in_cache(&mut config, notes);
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

/// Where a decoder's file says null, generation forces nothing and knows no such token, whatever its class does.
fn keep_nothing(config: &mut Map<String, Value>, given: &Map<String, Value>) {
    let settings = GenerationConfig::names();
    for (key, value) in given.iter().filter(|(_, value)| value.is_null()) {
        if settings.contains(&key.as_str()) && config.contains_key(key) {
            config.insert(key.clone(), value.clone());
        }
    }
}

/// The reference's cache has `encoder_layers` slots for BART-like decoders, and its `generate` fails if
/// the decoder has more layers.
fn room_in_cache(config: &mut Map<String, Value>, notes: &mut Vec<String>) {
    let layers = |name: &str| config.get(name).and_then(Value::as_i64);
    if let (Some(slots), Some(needed)) = (layers("encoder_layers"), layers("decoder_layers"))
        && slots < needed
    {
        config.insert("encoder_layers".into(), json!(needed));
        notes.push(format!(
            "decoder.encoder_layers is raised from {slots} to {needed}, the number of decoder layers: \
             transformers counts its cache by it"
        ));
    }
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
