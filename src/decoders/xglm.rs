//! XGLM (Lin et al. 2021): mBART's order of operations, sinusoidal positions that no file stores.
//! Reference: `modeling_xglm.py`.

use anyhow::Result;
use serde_json::{Map, Value, json};
use tch::Tensor;

use super::bart::{Config, EPS, OFFSET};
use super::bart_layer::Core;
use super::block::Order;
use super::{Decoder, DecoderArch, Limits, check_cross_attention};
use crate::nn::position::sinusoidal_fairseq;
use crate::nn::{Cache, LayerNorm, Params, config};

pub(super) const XGLM: DecoderArch = DecoderArch {
    model_type: "xglm",
    prefix: "model",
    defaults,
    aliases: ALIASES,
    build: |json, p| Ok(Box::new(Xglm::new(p, &read(json)?)?)),
    ignore: &["model.embed_positions.weights"],
};

const ALIASES: &[(&str, &str)] = &[
    ("num_attention_heads", "attention_heads"),
    ("hidden_size", "d_model"),
    ("num_hidden_layers", "num_layers"),
];

/// XGLM's names of fields that BART's config has too.
const NAMES: &[(&str, &str)] = &[
    ("num_layers", "decoder_layers"),
    ("attention_heads", "decoder_attention_heads"),
    ("ffn_dim", "decoder_ffn_dim"),
    ("layerdrop", "decoder_layerdrop"),
];

fn defaults() -> Value {
    json!({
        "model_type": "xglm", "vocab_size": 256008, "max_position_embeddings": 2048,
        "d_model": 1024, "ffn_dim": 4096, "num_layers": 24, "attention_heads": 16,
        "activation_function": "gelu", "dropout": 0.1, "attention_dropout": 0.1,
        "activation_dropout": 0.0, "layerdrop": 0.0, "init_std": 0.02, "scale_embedding": true,
        "use_cache": true, "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2,
        "decoder_start_token_id": 2, "tie_word_embeddings": true,
    })
}

fn read(json: &Value) -> Result<Config> {
    let mut fields: Map<String, Value> = config::merge(defaults(), json, ALIASES);
    for (own, shared) in NAMES {
        if let Some(value) = fields.remove(*own) {
            fields.insert(shared.to_string(), value);
        }
    }
    let config: Config = config::parse(fields)?;
    config.check()?;
    check_cross_attention(json, config.cross_attention_hidden_size, config.d_model)?;
    Ok(config)
}

struct Xglm {
    core: Core,
    /// [P + 2, D]; longer texts get a longer table.
    positions: Tensor,
    /// The table's row that is zero.
    padding_idx: Option<i64>,
    layer_norm: LayerNorm,
}

impl Xglm {
    fn new(p: &Params, config: &Config) -> Result<Self> {
        let core = Core::new(p, config, Order::PreNorm, "model", "lm_head.weight")?;
        let rows = config.max_position_embeddings + OFFSET;
        let table = sinusoidal_fairseq(rows, config.d_model, config.pad_token_id);
        Ok(Xglm {
            core,
            positions: table.to_device(p.device()).to_kind(p.kind()),
            padding_idx: config.pad_token_id,
            layer_norm: (p / "model").layer_norm("layer_norm", config.d_model, EPS)?,
        })
    }

    /// Vectors of t tokens after `past` earlier ones. -> [t, D]
    fn positions(&self, past: i64, t: i64) -> Tensor {
        let first = past + OFFSET;
        let size = self.positions.size();
        if first + t <= size[0] {
            return self.positions.narrow(0, first, t);
        }
        sinusoidal_fairseq(first + t, size[1], self.padding_idx)
            .narrow(0, first, t)
            .to_device(self.positions.device())
            .to_kind(self.positions.kind())
    }
}

impl Decoder for Xglm {
    fn forward(
        &self,
        input_ids: &Tensor,
        encoder_hidden_states: &Tensor,
        cache: &mut Cache,
        train: bool,
    ) -> Tensor {
        let positions = self.positions(cache.past(), input_ids.size()[1]);
        let xs = self.core.tokens(input_ids) + positions;
        let xs = self.core.layers(&xs, encoder_hidden_states, cache, train);
        self.layer_norm.forward(&xs)
    }

    fn logits(&self, hidden_states: &Tensor) -> Tensor {
        self.core.logits(hidden_states)
    }

    fn limits(&self) -> Limits {
        self.core.limits(None)
    }
}
