//! TrOCR's decoder (Li et al. 2021). Keys and order of operations: the reference's
//! `modeling_trocr.py`. BART's layers; positions learned or sinusoidal; cross-attention may read
//! states of another size.

use anyhow::Result;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tch::Tensor;

use super::bart::{Config, EPS, OFFSET};
use super::bart_layer::Core;
use super::block::Order;
use super::{Decoder, DecoderArch, Limits};
use crate::nn::params::ZEROS;
use crate::nn::position::{plain, sinusoidal_fairseq, skipping_padding};
use crate::nn::{Cache, Embedding, LayerNorm, Params, config};

pub(super) const TROCR: DecoderArch = DecoderArch {
    model_type: "trocr",
    prefix: "model",
    defaults,
    aliases: ALIASES,
    build: |json, p| Ok(Box::new(Trocr::new(p, config::merge(defaults(), json, ALIASES))?)),
    ignore: &["model.decoder.version"],
};

const ALIASES: &[(&str, &str)] = &[
    ("num_attention_heads", "decoder_attention_heads"),
    ("hidden_size", "d_model"),
    ("num_hidden_layers", "decoder_layers"),
    // The name in the very first published configs.
    ("encoder_hidden_size", "cross_attention_hidden_size"),
];

fn defaults() -> Value {
    json!({
        "model_type": "trocr", "vocab_size": 50265, "d_model": 1024, "decoder_layers": 12,
        "decoder_attention_heads": 16, "decoder_ffn_dim": 4096, "activation_function": "gelu",
        "max_position_embeddings": 512, "dropout": 0.1, "attention_dropout": 0.0,
        "activation_dropout": 0.0, "decoder_layerdrop": 0.0, "init_std": 0.02,
        "scale_embedding": false, "use_learned_position_embeddings": true,
        "layernorm_embedding": true, "use_cache": true, "bos_token_id": 0, "pad_token_id": 1,
        "eos_token_id": 2, "decoder_start_token_id": 2, "tie_word_embeddings": true,
    })
}

/// The fields that BART has not.
#[derive(Deserialize)]
struct Own {
    use_learned_position_embeddings: bool,
    layernorm_embedding: bool,
}

struct Trocr {
    core: Core,
    positions: Positions,
    layernorm_embedding: Option<LayerNorm>,
    max_positions: i64,
}

enum Positions {
    /// [P + 2, D]
    Learned(Embedding),
    /// fairseq's table [P + padding + 1, D]; padding keeps its own row, which is zero.
    Sinusoidal { table: Embedding, padding_idx: i64 },
}

impl Trocr {
    fn new(p: &Params, merged: Map<String, Value>) -> Result<Self> {
        let own: Own = config::parse(merged.clone())?;
        let config: Config = config::parse(merged)?;
        config.check()?;
        let d = config.d_model;
        let core =
            Core::new(p, &config, Order::PostNorm, "model.decoder", "output_projection.weight")?;
        let p = p / "model" / "decoder";
        let positions = if own.use_learned_position_embeddings {
            let rows = config.max_position_embeddings + OFFSET;
            Positions::Learned(p.embedding("embed_positions", rows, d, config.init())?)
        } else {
            Positions::sinusoidal(&p, &config)?
        };
        let layernorm_embedding = match own.layernorm_embedding {
            true => Some(p.layer_norm("layernorm_embedding", d, EPS)?),
            false => None,
        };
        let max_positions = config.max_position_embeddings;
        Ok(Trocr { core, positions, layernorm_embedding, max_positions })
    }
}

impl Positions {
    /// The table is computed; the file holds a dummy that tells its device.
    fn sinusoidal(p: &Params, config: &Config) -> Result<Self> {
        (p / "embed_positions").spare("_float_tensor", &[1], ZEROS)?;
        let padding_idx = config.pad_token_id.unwrap_or(1);
        let rows = config.max_position_embeddings + padding_idx + 1;
        let table = sinusoidal_fairseq(rows, config.d_model, Some(padding_idx));
        let table = table.to_device(p.device()).to_kind(p.kind());
        Ok(Positions::Sinusoidal { table: Embedding::new(table, None), padding_idx })
    }

    /// ids [N, t] -> [t, D] or [N, t, D]
    fn forward(&self, ids: &Tensor, cache: &mut Cache) -> Tensor {
        match self {
            Positions::Learned(table) => {
                table.forward(&plain(ids.size()[1], cache.past() + OFFSET, ids.device()))
            }
            Positions::Sinusoidal { table, padding_idx } => {
                table.forward(&skipping_padding(ids, *padding_idx, cache))
            }
        }
    }
}

impl Decoder for Trocr {
    fn forward(
        &self,
        input_ids: &Tensor,
        encoder_hidden_states: &Tensor,
        cache: &mut Cache,
        train: bool,
    ) -> Tensor {
        let xs = self.core.tokens(input_ids) + self.positions.forward(input_ids, cache);
        let xs = match &self.layernorm_embedding {
            Some(norm) => norm.forward(&xs),
            None => xs,
        };
        self.core.layers(&xs, encoder_hidden_states, cache, train)
    }

    fn logits(&self, hidden_states: &Tensor) -> Tensor {
        self.core.logits(hidden_states)
    }

    fn limits(&self) -> Limits {
        self.core.limits(Some(self.max_positions))
    }
}
