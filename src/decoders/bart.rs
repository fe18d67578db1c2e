//! BART's decoder (Lewis et al. 2019), post-norm. Keys and order of operations: the reference's
//! `modeling_bart.py`. PLBART and MVP are the same decoder with other defaults; the other
//! encoder-decoder families take their layers from here.

use anyhow::{Result, ensure};
use serde::Deserialize;
use serde_json::{Value, json};
use tch::Tensor;

use super::bart_layer::Core;
use super::block::Order;
use super::{Decoder, DecoderArch, Limits, check_cross_size, check_padding};
use crate::nn::params::Init;
use crate::nn::position::plain;
use crate::nn::{Cache, Embedding, LayerNorm, Params, config};

pub(super) const BART: DecoderArch = DecoderArch {
    model_type: "bart",
    prefix: "model",
    defaults: || defaults("bart"),
    aliases: ALIASES,
    build: |json, p| Ok(Box::new(Bart::new(p, &Config::read(defaults("bart"), json, ALIASES)?)?)),
    ignore: IGNORE,
};

pub(super) const PLBART: DecoderArch = DecoderArch {
    model_type: "plbart",
    prefix: "model",
    defaults: plbart_defaults,
    aliases: PLBART_ALIASES,
    build: |json, p| {
        Ok(Box::new(Bart::new(p, &Config::read(plbart_defaults(), json, PLBART_ALIASES)?)?))
    },
    ignore: IGNORE,
};

pub(super) const MVP: DecoderArch = DecoderArch {
    model_type: "mvp",
    prefix: "model",
    defaults: mvp_defaults,
    aliases: ALIASES,
    build: |json, p| {
        ensure!(
            json.get("use_prompt").and_then(Value::as_bool) != Some(true),
            "use_prompt = true is not supported"
        );
        Ok(Box::new(Bart::new(p, &Config::read(mvp_defaults(), json, ALIASES)?)?))
    },
    ignore: IGNORE,
};

/// What old files and files of the whole encoder-decoder have beside the decoder.
pub(super) const IGNORE: &[&str] = &["model.decoder.version", "final_logits_bias"];

pub(super) const ALIASES: &[(&str, &str)] =
    &[("num_attention_heads", "encoder_attention_heads"), ("hidden_size", "d_model")];

const PLBART_ALIASES: &[(&str, &str)] = &[
    ("num_attention_heads", "encoder_attention_heads"),
    ("hidden_size", "d_model"),
    ("initializer_range", "init_std"),
];

/// The reference's default of `nn.LayerNorm`; no config of these families says it.
pub(super) const EPS: f64 = 1e-5;

/// Rows of the position table before that of the first token: a padding hack that the reference
/// keeps (`BartLearnedPositionalEmbedding`).
pub(super) const OFFSET: i64 = 2;

/// The fields that BART and its descendants share, under the reference's names.
#[derive(Deserialize)]
pub(super) struct Config {
    pub vocab_size: i64,
    pub max_position_embeddings: i64,
    pub d_model: i64,
    pub decoder_layers: i64,
    pub decoder_attention_heads: i64,
    pub decoder_ffn_dim: i64,
    pub activation_function: String,
    pub dropout: f64,
    pub attention_dropout: f64,
    pub activation_dropout: f64,
    pub decoder_layerdrop: f64,
    pub init_std: f64,
    pub scale_embedding: bool,
    pub pad_token_id: Option<i64>,
    pub tie_word_embeddings: bool,
    #[serde(default)]
    pub cross_attention_hidden_size: Option<i64>,
    /// Rows of the tokens' table where they are not `vocab_size` (Marian).
    #[serde(default)]
    pub decoder_vocab_size: Option<i64>,
    /// Whether the projections of attention have biases (BigBird-Pegasus may not).
    #[serde(default = "yes")]
    pub use_bias: bool,
}

fn yes() -> bool {
    true
}

/// Every field of BART's config class; descendants change some.
pub(super) fn defaults(model_type: &str) -> Value {
    json!({
        "model_type": model_type, "vocab_size": 50265, "max_position_embeddings": 1024,
        "d_model": 1024, "encoder_layers": 12, "encoder_ffn_dim": 4096,
        "encoder_attention_heads": 16, "decoder_layers": 12, "decoder_ffn_dim": 4096,
        "decoder_attention_heads": 16, "activation_function": "gelu", "dropout": 0.1,
        "attention_dropout": 0.0, "activation_dropout": 0.0, "encoder_layerdrop": 0.0,
        "decoder_layerdrop": 0.0, "init_std": 0.02, "scale_embedding": false, "use_cache": true,
        "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2,
        "forced_eos_token_id": 2, "tie_word_embeddings": true,
    })
}

/// `base` with some fields changed; a null takes the field away.
pub(super) fn changed(mut base: Value, changes: Value) -> Value {
    if let (Value::Object(base), Value::Object(changes)) = (&mut base, changes) {
        for (name, value) in changes {
            if value.is_null() {
                base.remove(&name);
            } else {
                base.insert(name, value);
            }
        }
    }
    base
}

fn plbart_defaults() -> Value {
    let changes = json!({
        "vocab_size": 50005, "d_model": 768, "encoder_layers": 6, "encoder_ffn_dim": 3072,
        "encoder_attention_heads": 12, "decoder_layers": 6, "decoder_ffn_dim": 3072,
        "decoder_attention_heads": 12, "attention_dropout": 0.1, "scale_embedding": true,
        "decoder_start_token_id": null,
    });
    changed(defaults("plbart"), changes)
}

fn mvp_defaults() -> Value {
    changed(defaults("mvp"), json!({ "vocab_size": 50267, "use_prompt": false }))
}

impl Config {
    /// The config of a family whose cross-attention reads states of its own size.
    pub(super) fn read(defaults: Value, json: &Value, aliases: &[(&str, &str)]) -> Result<Self> {
        let config: Config = config::read(defaults, json, aliases)?;
        config.check()?;
        check_cross_size(config.cross_attention_hidden_size, config.d_model)?;
        Ok(config)
    }

    pub(super) fn check(&self) -> Result<()> {
        ensure!(
            self.decoder_attention_heads > 0 && self.d_model % self.decoder_attention_heads == 0,
            "d_model {} is no multiple of decoder_attention_heads {}",
            self.d_model,
            self.decoder_attention_heads
        );
        check_padding(self.pad_token_id, self.rows())
    }

    /// Rows of the tokens' table.
    pub(super) fn rows(&self) -> i64 {
        self.decoder_vocab_size.unwrap_or(self.vocab_size)
    }

    pub(super) fn init(&self) -> Init {
        Init::Normal(self.init_std)
    }
}

struct Bart {
    core: Core,
    /// [P + 2, D]
    embed_positions: Embedding,
    layernorm_embedding: LayerNorm,
}

impl Bart {
    fn new(p: &Params, config: &Config) -> Result<Self> {
        let (d, rows) = (config.d_model, config.max_position_embeddings + OFFSET);
        let core = Core::new(p, config, Order::PostNorm, "model.decoder", "lm_head.weight")?;
        let p = p / "model" / "decoder";
        Ok(Bart {
            core,
            embed_positions: p.embedding("embed_positions", rows, d, config.init())?,
            layernorm_embedding: p.layer_norm("layernorm_embedding", d, EPS)?,
        })
    }
}

impl Decoder for Bart {
    fn forward(
        &self,
        input_ids: &Tensor,
        encoder_hidden_states: &Tensor,
        cache: &mut Cache,
        train: bool,
    ) -> Tensor {
        let positions = plain(input_ids.size()[1], cache.past() + OFFSET, input_ids.device());
        let xs = self.core.tokens(input_ids) + self.embed_positions.forward(&positions);
        let xs = self.layernorm_embedding.forward(&xs);
        self.core.layers(&xs, encoder_hidden_states, cache, train)
    }

    fn logits(&self, hidden_states: &Tensor) -> Tensor {
        self.core.logits(hidden_states)
    }

    fn limits(&self) -> Limits {
        self.core.limits(Some(self.embed_positions.weight.size()[0] - OFFSET))
    }
}
