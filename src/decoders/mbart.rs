//! mBART's decoder (Liu et al. 2020): BART with the norms before the branches, and one at the end.
//! Reference: `modeling_mbart.py`. Donut and Nougat decode with it.

use anyhow::Result;
use serde_json::{Value, json};
use tch::Tensor;

use super::bart::{self, ALIASES, Config, EPS, IGNORE, OFFSET};
use super::bart_layer::{Core, Layer};
use super::{Decoder, DecoderArch, Limits};
use crate::nn::position::plain;
use crate::nn::{Cache, Embedding, LayerCache, LayerNorm, Params, dropout};

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
        let core = Core::new(p, config, "model.decoder", "lm_head.weight")?;
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
        let xs = self.core.layers(&xs, encoder_hidden_states, cache, train, Layer::pre_norm);
        self.layer_norm.forward(&xs)
    }

    fn logits(&self, hidden_states: &Tensor) -> Tensor {
        self.core.logits(hidden_states)
    }

    fn limits(&self) -> Limits {
        self.core.limits(Some(self.embed_positions.weight.size()[0] - OFFSET))
    }
}

impl Layer {
    /// mBART's order: a norm before each branch.
    pub(super) fn pre_norm(
        &self,
        xs: &Tensor,
        states: &Tensor,
        cache: &mut LayerCache,
        past: i64,
        train: bool,
    ) -> Tensor {
        let p = self.dropout;
        let own = self.self_attn.decode(&self.self_attn_layer_norm.forward(xs), cache, past, train);
        let [xs, normed] = self.encoder_attn_layer_norm.with_sum(xs, &dropout(&own, p, train));
        let cross = self.encoder_attn.forward(&normed, states, cache, train);
        let [xs, normed] = self.final_layer_norm.with_sum(&xs, &dropout(&cross, p, train));
        let fed = self.feed_forward.forward(&normed, train);
        xs + dropout(&fed, p, train)
    }
}
