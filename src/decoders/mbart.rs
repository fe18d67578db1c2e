//! mBART's decoder (Liu et al. 2020): BART with the norms before the branches, and one at the end.
//! Reference: `modeling_mbart.py`. Donut and Nougat decode with it.

use anyhow::Result;
use serde_json::{Value, json};
use tch::Tensor;

use super::bart::{self, ALIASES, Config, EPS, IGNORE, OFFSET};
use super::bart_layer::Core;
use super::block::Order;
use super::{Decoder, DecoderArch, Limits};
use crate::nn::position::plain;
use crate::nn::{Cache, Embedding, LayerNorm, Params};

pub(super) const MBART: DecoderArch = DecoderArch {
    model_type: "mbart",
    prefix: "model",
    defaults,
    aliases: ALIASES,
    build: |json, p| Ok(Box::new(MBart::new(p, &Config::read(defaults(), json, ALIASES)?)?)),
    ignore: IGNORE,
};

fn defaults() -> Value {
    bart::changed(bart::defaults("mbart"), json!({ "decoder_start_token_id": null }))
}

struct MBart {
    core: Core,
    /// [P + 2, D]
    embed_positions: Embedding,
    layernorm_embedding: LayerNorm,
    layer_norm: LayerNorm,
}

impl MBart {
    fn new(p: &Params, config: &Config) -> Result<Self> {
        let (d, rows) = (config.d_model, config.max_position_embeddings + OFFSET);
        let core = Core::new(p, config, Order::PreNorm, "model.decoder", "lm_head.weight")?;
        let p = p / "model" / "decoder";
        Ok(MBart {
            core,
            embed_positions: p.embedding("embed_positions", rows, d, config.init())?,
            layernorm_embedding: p.layer_norm("layernorm_embedding", d, EPS)?,
            layer_norm: p.layer_norm("layer_norm", d, EPS)?,
        })
    }
}

impl Decoder for MBart {
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
        let xs = self.core.layers(&xs, encoder_hidden_states, cache, train);
        self.layer_norm.forward(&xs)
    }

    fn logits(&self, hidden_states: &Tensor) -> Tensor {
        self.core.logits(hidden_states)
    }

    fn limits(&self) -> Limits {
        self.core.limits(Some(self.embed_positions.weight.size()[0] - OFFSET))
    }
}
