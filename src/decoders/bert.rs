//! BERT as a decoder (Devlin et al. 2018). Keys and order of operations: the reference's
//! `modeling_bert.py`. Its post-norm trunk serves the families that copy it; ERNIE is BERT under
//! another name.

use anyhow::{Result, ensure};
use serde::Deserialize;
use serde_json::{Value, json};
use tch::Tensor;

use super::bert_embeddings::{Embeddings, Positions};
use super::block::Blocks;
use super::{Decoder, DecoderArch, Limits, bert_layer, check_cross_attention, check_padding};
use crate::nn::params::{Init, ZEROS};
use crate::nn::{Activation, Cache, LayerNorm, Linear, Params, config, precision};

pub(super) const BERT: DecoderArch = DecoderArch {
    model_type: "bert",
    prefix: "bert",
    defaults: || defaults("bert"),
    aliases: &[],
    build: |json, p| Ok(Box::new(Bert::new(p, "bert", &Config::read(defaults("bert"), json)?)?)),
    ignore: IGNORE,
};

pub(super) const ERNIE: DecoderArch = DecoderArch {
    model_type: "ernie",
    prefix: "ernie",
    defaults: ernie_defaults,
    aliases: &[],
    build: |json, p| Ok(Box::new(Bert::new(p, "ernie", &Config::read(ernie_defaults(), json)?)?)),
    ignore: IGNORE,
};

/// Buffers of old files, and the heads that pretraining checkpoints have beside the language model.
pub(super) const IGNORE: &[&str] = &[
    ".embeddings.position_ids",
    ".embeddings.token_type_ids",
    ".pooler.dense.weight",
    ".pooler.dense.bias",
    "cls.seq_relationship.",
];

/// The fields that BERT and its descendants share, under the reference's names.
#[derive(Deserialize)]
pub(super) struct Config {
    pub vocab_size: i64,
    pub hidden_size: i64,
    pub num_hidden_layers: i64,
    pub num_attention_heads: i64,
    pub intermediate_size: i64,
    pub hidden_act: String,
    pub hidden_dropout_prob: f64,
    pub attention_probs_dropout_prob: f64,
    pub max_position_embeddings: i64,
    #[serde(default)]
    pub type_vocab_size: i64,
    /// ERNIE 2.0 and later: a vector for the task, of which language modelling is the first.
    #[serde(default)]
    pub use_task_id: bool,
    #[serde(default)]
    pub task_type_vocab_size: i64,
    pub initializer_range: f64,
    pub layer_norm_eps: f64,
    pub pad_token_id: Option<i64>,
    #[serde(default)]
    pub position_embedding_type: PositionType,
    /// Size of the embeddings where it may differ from `hidden_size`.
    #[serde(default)]
    pub embedding_size: Option<i64>,
    pub tie_word_embeddings: bool,
    #[serde(default)]
    pub cross_attention_hidden_size: Option<i64>,
}

/// How self-attention learns of the tokens' order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum PositionType {
    #[default]
    Absolute,
    RelativeKey,
    RelativeKeyQuery,
}

/// Every field of BERT's config class; descendants change some.
pub(super) fn defaults(model_type: &str) -> Value {
    json!({
        "model_type": model_type, "vocab_size": 30522, "hidden_size": 768,
        "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072,
        "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1,
        "max_position_embeddings": 512, "type_vocab_size": 2, "initializer_range": 0.02,
        "layer_norm_eps": 1e-12, "pad_token_id": 0, "position_embedding_type": "absolute",
        "use_cache": true, "tie_word_embeddings": true,
    })
}

fn ernie_defaults() -> Value {
    let mut json = defaults("ernie");
    json["task_type_vocab_size"] = json!(3);
    json["use_task_id"] = json!(false);
    json
}

impl Config {
    pub(super) fn read(defaults: Value, json: &Value) -> Result<Self> {
        // A class reads its own fields: RemBERT and RoFormer have no `position_embedding_type`, only
        // ERNIE has `use_task_id`.
        let mut own = json.clone();
        if let Value::Object(fields) = &mut own {
            fields.retain(|name, _| {
                defaults.get(name).is_some() || name == "cross_attention_hidden_size"
            });
        }
        let config: Config = config::read(defaults, &own, &[])?;
        check_cross_attention(json, config.cross_attention_hidden_size, config.hidden_size)?;
        ensure!(
            json.get("is_decoder").and_then(Value::as_bool) != Some(false),
            "the decoder's config says is_decoder = false; set it to true"
        );
        ensure!(
            config.num_attention_heads > 0 && config.hidden_size % config.num_attention_heads == 0,
            "hidden_size {} is no multiple of num_attention_heads {}",
            config.hidden_size,
            config.num_attention_heads
        );
        check_padding(config.pad_token_id, config.vocab_size)?;
        Ok(config)
    }

    pub(super) fn init(&self) -> Init {
        Init::Normal(self.initializer_range)
    }

    /// Size of the embeddings.
    pub(super) fn embedding_size(&self) -> i64 {
        self.embedding_size.unwrap_or(self.hidden_size)
    }

    /// How the table of words is drawn.
    pub(super) fn word_init(&self) -> Init {
        Init::normal_padded(self.initializer_range, self.pad_token_id)
    }

    pub(super) fn limits(&self, max_positions: i64) -> Limits {
        Limits {
            hidden_size: self.hidden_size,
            vocab_size: self.vocab_size,
            layers: self.num_hidden_layers.max(0) as usize,
            max_positions: Some(max_positions),
            cross_attention_size: self.cross_attention_hidden_size,
        }
    }
}

/// Embeddings, layers, head: the whole of BERT and of the families that copy it.
pub(super) struct Bert {
    pub embeddings: Embeddings,
    /// From the size of the embeddings to that of the layers, where they differ.
    pub project: Option<Linear>,
    pub layers: Blocks,
    /// Behind layers that have their norms before their parts.
    pub layer_norm: Option<LayerNorm>,
    pub head: Head,
    pub limits: Limits,
}

/// The output layer, behind a dense layer with a norm where the family has one.
pub(super) struct Head {
    pub transform: Option<Transform>,
    pub decoder: Linear,
}

/// Dense, activation, norm.
pub(super) struct Transform {
    pub dense: Linear,
    pub activation: Activation,
    pub layer_norm: LayerNorm,
}

impl Bert {
    /// The base model's tensors lie under `base`, the head's under `cls`.
    fn new(p: &Params, base: &str, config: &Config) -> Result<Self> {
        let d = config.hidden_size;
        let (word, decoder) = p.tied(
            &format!("{base}.embeddings.word_embeddings.weight"),
            "cls.predictions.decoder.weight",
            &[config.vocab_size, d],
            config.word_init(),
            config.tie_word_embeddings,
        )?;
        let base = p / base;
        let positions = Positions::plain(&(&base / "embeddings"), config, d)?;
        let embeddings = Embeddings::new(&(&base / "embeddings"), config, word, positions)?;
        let layers = bert_layer::stack(&(&base / "encoder" / "layer"), config)?;
        let head = Head::predictions(&(p / "cls" / "predictions"), config, decoder)?;
        let limits = config.limits(config.max_position_embeddings);
        Ok(Bert { embeddings, project: None, layers, layer_norm: None, head, limits })
    }
}

impl Decoder for Bert {
    fn forward(
        &self,
        input_ids: &Tensor,
        encoder_hidden_states: &Tensor,
        cache: &mut Cache,
        train: bool,
    ) -> Tensor {
        let mut xs = self.embeddings.forward(input_ids, cache, train); // [N, t, E]
        if let Some(project) = &self.project {
            xs = precision::full(&project.forward(&xs)); // [N, t, D]
        }
        let xs = self.layers.forward(xs, encoder_hidden_states, cache, train);
        match &self.layer_norm {
            Some(norm) => norm.forward(&xs),
            None => xs,
        }
    }

    fn logits(&self, hidden_states: &Tensor) -> Tensor {
        self.head.forward(hidden_states)
    }

    fn limits(&self) -> Limits {
        self.limits
    }
}

impl Head {
    /// Keys `transform.dense`, `transform.LayerNorm`, `decoder` and `bias` below `p`. decoder [V, E]
    pub(super) fn predictions(p: &Params, config: &Config, decoder: Tensor) -> Result<Self> {
        let (d, e, transform) = (config.hidden_size, config.embedding_size(), p / "transform");
        Ok(Head {
            transform: Some(Transform {
                dense: transform.linear("dense", d, e, config.init())?,
                activation: Activation::from_name(&config.hidden_act)?,
                layer_norm: transform.layer_norm("LayerNorm", e, config.layer_norm_eps)?,
            }),
            decoder: p.head("decoder.weight", decoder, Some(Head::bias(p, config.vocab_size)?))?,
        })
    }

    /// `bias` below `p`, which is `decoder.bias` too. -> [V]
    pub(super) fn bias(p: &Params, vocab_size: i64) -> Result<Tensor> {
        p.shared(&["bias", "decoder.bias"], &[vocab_size], ZEROS)
    }

    /// [N, t, D] -> [N, t, V]
    pub(super) fn forward(&self, xs: &Tensor) -> Tensor {
        match &self.transform {
            Some(transform) => self.decoder.forward(&transform.forward(xs)),
            None => self.decoder.forward(xs),
        }
    }
}

impl Transform {
    /// [N, t, D] -> [N, t, E]
    fn forward(&self, xs: &Tensor) -> Tensor {
        self.layer_norm.forward(&self.activation.forward(&self.dense.forward(xs)))
    }
}
