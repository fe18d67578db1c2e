//! Where the halves of a new model come from, and what their tensors are called there.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};

use super::config::{read_json, refuse_quantized};
use super::{VisionEncoderDecoderConfig, distilbert};
use crate::checkpoint::Checkpoint;
use crate::{decoders, encoders};

/// Where one half of the new model comes from.
pub enum Source {
    /// A config alone: its weights are drawn.
    Config(Value),
    /// A pretrained checkpoint: its weights are taken.
    Pretrained {
        dir: PathBuf,
        config: Value,
        weights: Weights,
        /// The special ids that the file's top level names.
        ids: Map<String, Value>,
    },
}

/// The tensors of a pretrained half, under the names they have in the new model.
pub struct Weights {
    pub(super) checkpoint: Rc<Checkpoint>,
    /// name in the new model -> key in the file
    pub(super) names: HashMap<String, String>,
    /// Keys that a constructor asked for.
    pub(super) taken: Rc<RefCell<HashSet<String>>>,
    /// What the keys of this half begin with, where the file holds both.
    within: String,
}

/// The two halves of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    Encoder,
    Decoder,
}

impl Half {
    pub fn name(self) -> &'static str {
        match self {
            Half::Encoder => "encoder",
            Half::Decoder => "decoder",
        }
    }

    fn knows(self, model_type: &str) -> bool {
        match self {
            Half::Encoder => encoders::find(model_type).is_ok(),
            Half::Decoder => decoders::find(model_type).is_ok(),
        }
    }

    /// The error for an unknown type.
    pub fn refuse(self, model_type: &str) -> Result<()> {
        match self {
            Half::Encoder => encoders::find(model_type).map(|_| ()),
            Half::Decoder => decoders::find(model_type).map(|_| ()),
        }
    }

    /// What checkpoints put before the keys of the base model.
    fn prefix(self, model_type: &str) -> &'static str {
        match self {
            Half::Encoder => encoders::find(model_type).map_or("", |arch| arch.prefix),
            Half::Decoder => decoders::find(model_type).map_or("", |arch| arch.prefix),
        }
    }

    /// The class's defaults.
    pub fn defaults(self, model_type: &str) -> Result<Value> {
        match self {
            Half::Encoder => encoders::find(model_type).map(|arch| (arch.defaults)()),
            Half::Decoder => decoders::find(model_type).map(|arch| (arch.defaults)()),
        }
    }
}

impl Source {
    /// A type's own defaults ("vit", "gpt2"), or None if no such type is known.
    pub fn from_type(half: Half, model_type: &str) -> Option<Self> {
        half.knows(model_type).then(|| half.defaults(model_type).ok().map(Source::Config)).flatten()
    }

    /// A config.json of one half, or of a whole VisionEncoderDecoder (its half is taken).
    pub fn from_config_file(half: Half, path: &Path) -> Result<Self> {
        let (config, _) = half_of(half, read_json(path)?).with_context(|| format!("{path:?}"))?;
        Ok(Source::Config(config))
    }

    /// A checkpoint directory: of the half itself, of a model with a head, or of a larger model.
    pub fn from_dir(half: Half, dir: &Path) -> Result<Self> {
        let path = dir.join("config.json");
        let json = read_json(&path)?;
        let ids = SPECIAL_IDS
            .iter()
            .filter_map(|name| Some((name.to_string(), json.get(*name)?.clone())))
            .filter(|(_, id)| !id.is_null())
            .collect();
        let (config, origin) = half_of(half, json).with_context(|| format!("{path:?}"))?;
        let weights = Weights::open(half, dir, &config, origin)?;
        Ok(Source::Pretrained { dir: dir.to_path_buf(), config, weights, ids })
    }

    /// The directory that the tokenizer and the image processor come from, if there is one.
    pub fn dir(&self) -> Option<&Path> {
        match self {
            Source::Config(_) => None,
            Source::Pretrained { dir, .. } => Some(dir),
        }
    }

    /// A special id that the checkpoint's own config.json names at its top level.
    pub fn id(&self, name: &str) -> Option<i64> {
        match self {
            Source::Config(_) => None,
            Source::Pretrained { ids, .. } => ids.get(name).and_then(Value::as_i64),
        }
    }

    pub fn config(&self) -> &Value {
        match self {
            Source::Config(config) | Source::Pretrained { config, .. } => config,
        }
    }

    pub(super) fn checkpoint(&self) -> Option<&Checkpoint> {
        match self {
            Source::Config(_) => None,
            Source::Pretrained { weights, .. } => Some(&weights.checkpoint),
        }
    }

    pub fn model_type(&self) -> &str {
        self.config().get("model_type").and_then(Value::as_str).unwrap_or_default()
    }
}

/// Special ids of a config.json.
const SPECIAL_IDS: &[&str] =
    &["decoder_start_token_id", "bos_token_id", "eos_token_id", "pad_token_id"];

/// Models of images and text whose vision tower is an encoder.
const TOWERS: &[(&str, &str)] = &[
    ("clip", "clip_vision_model"),
    ("chinese_clip", "chinese_clip_vision_model"),
    ("siglip", "siglip_vision_model"),
    ("aimv2", "aimv2_vision_model"),
];

/// Which larger model a half was found in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    Itself,
    /// A model of images and text, whose tower is the half.
    Tower,
    VisionEncoderDecoder,
    /// DistilBERT, whose weights go into a BERT decoder.
    DistilBert,
}

/// The half's config inside `json`, and what kind of model it was found in.
fn half_of(half: Half, json: Value) -> Result<(Value, Origin)> {
    refuse_quantized(&json)?;
    let model_type = json.get("model_type").and_then(Value::as_str).unwrap_or_default().to_string();
    if model_type == "vision-encoder-decoder" {
        let config = VisionEncoderDecoderConfig::from_json(json)?;
        return Ok(match half {
            Half::Encoder => (config.encoder, Origin::VisionEncoderDecoder),
            Half::Decoder => (config.decoder, Origin::VisionEncoderDecoder),
        });
    }
    if half == Half::Encoder
        && let Some((_, tower_type)) = TOWERS.iter().find(|(whole, _)| *whole == model_type)
    {
        let mut tower = json.get("vision_config").cloned().unwrap_or_else(|| json!({}));
        tower["model_type"] = json!(tower_type);
        return Ok((tower, Origin::Tower));
    }
    if half == Half::Decoder && model_type == "distilbert" {
        return Ok((distilbert::as_bert(&json), Origin::DistilBert));
    }
    if model_type.is_empty() {
        bail!("it has no model_type");
    }
    half.refuse(&model_type)?;
    Ok((json, Origin::Itself))
}

impl Weights {
    fn open(half: Half, dir: &Path, config: &Value, origin: Origin) -> Result<Self> {
        let checkpoint = Rc::new(Checkpoint::open(dir)?);
        let model_type = config.get("model_type").and_then(Value::as_str).unwrap_or_default();
        let prefix = half.prefix(model_type);
        let keys: Vec<&str> = checkpoint.keys().collect();
        let mut names = HashMap::new();
        for key in &keys {
            for name in new_names(half, origin, prefix, key) {
                names.entry(format!("{}.{name}", half.name())).or_insert(key.to_string());
            }
        }
        if half == Half::Decoder {
            shared_embedding(prefix, &keys, &mut names);
        }
        let within = match origin {
            Origin::VisionEncoderDecoder => format!("{}.", half.name()),
            Origin::Itself | Origin::Tower | Origin::DistilBert => String::new(),
        };
        Ok(Weights { checkpoint, names, taken: Rc::default(), within })
    }

    /// Keys of the file that belong to this half.
    pub(super) fn candidates(&self) -> impl Iterator<Item = &str> {
        self.checkpoint.keys().filter(|key| key.starts_with(&self.within))
    }

    /// How many tensors of the file belong to another half.
    pub(super) fn others(&self) -> usize {
        self.checkpoint.len() - self.candidates().count()
    }
}

/// The names that a key of the file may have inside the new model's half.
fn new_names(half: Half, origin: Origin, prefix: &str, key: &str) -> Vec<String> {
    match origin {
        Origin::VisionEncoderDecoder => key
            .strip_prefix(half.name())
            .and_then(|rest| rest.strip_prefix('.'))
            .map(str::to_string)
            .into_iter()
            .collect(),
        Origin::DistilBert => distilbert::new_name(key).into_iter().collect(),
        // CLIP's towers keep their name, AIMv2's does not: each constructor takes what its class has.
        Origin::Tower => {
            let inside = key.strip_prefix("vision_model.").map(str::to_string);
            inside.into_iter().chain([key.to_string()]).collect()
        }
        Origin::Itself => {
            let dotted = format!("{prefix}.");
            let stripped = key.strip_prefix(&dotted);
            match (half, stripped) {
                // An encoder's keys carry no prefix in the new model.
                (Half::Encoder, Some(rest)) => vec![rest.to_string(), key.to_string()],
                (Half::Encoder, None) => vec![key.to_string()],
                // A decoder's do; files of base models lack it, heads never have it.
                (Half::Decoder, Some(_)) => vec![key.to_string()],
                (Half::Decoder, None) => vec![key.to_string(), format!("{dotted}{key}")],
            }
        }
    }
}

/// BART-like files keep the tied embedding as `shared.weight` alone. The reference overlooks it there
/// and draws a new one; here it is taken.
fn shared_embedding(prefix: &str, keys: &[&str], names: &mut HashMap<String, String>) {
    let target = "decoder.model.decoder.embed_tokens.weight";
    if prefix != "model" || names.contains_key(target) {
        return;
    }
    let shared = keys.iter().find(|key| matches!(**key, "shared.weight" | "model.shared.weight"));
    if let Some(shared) = shared {
        names.insert(target.to_string(), shared.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_find_their_place() {
        let table: &[(Half, &str, &str, &[&str])] = &[
            (
                Half::Encoder,
                "vit",
                "vit.layernorm.weight",
                &["layernorm.weight", "vit.layernorm.weight"],
            ),
            (Half::Encoder, "vit", "layernorm.weight", &["layernorm.weight"]),
            (
                Half::Decoder,
                "transformer",
                "h.0.ln_1.bias",
                &["h.0.ln_1.bias", "transformer.h.0.ln_1.bias"],
            ),
            (
                Half::Decoder,
                "bert",
                "bert.embeddings.LayerNorm.bias",
                &["bert.embeddings.LayerNorm.bias"],
            ),
        ];
        for (half, prefix, key, expected) in table {
            assert_eq!(new_names(*half, Origin::Itself, prefix, key), *expected, "{key}");
        }
        let tower = new_names(Half::Encoder, Origin::Tower, "aimv2", "vision_model.embeddings.x");
        assert_eq!(tower, ["embeddings.x", "vision_model.embeddings.x"]);
        let joined =
            new_names(Half::Encoder, Origin::VisionEncoderDecoder, "vit", "encoder.layernorm.bias");
        assert_eq!(joined, ["layernorm.bias"]);
    }

    #[test]
    fn shared_embeddings_are_taken() {
        let mut names = HashMap::new();
        shared_embedding("model", &["model.shared.weight"], &mut names);
        assert_eq!(names["decoder.model.decoder.embed_tokens.weight"], "model.shared.weight");
    }
}
