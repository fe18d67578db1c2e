//! The decoders of Blenderbot (mBART's order) and Blenderbot-small (BART's order), both with learned
//! positions from row 0 (Roller et al. 2020). References: `modeling_blenderbot.py`,
//! `modeling_blenderbot_small.py`.

use anyhow::Result;
use serde_json::{Value, json};
use tch::Tensor;

use super::bart::{self, ALIASES, Config, EPS, IGNORE};
use super::bart_layer::{Core, Plain, learned_positions};
use super::block::Order;
use super::{Decoder, DecoderArch, Limits};
use crate::nn::position::plain;
use crate::nn::{Cache, Embedding, LayerNorm, Params};

pub(super) const BLENDERBOT: DecoderArch = DecoderArch {
    model_type: "blenderbot",
    prefix: "model",
    defaults,
    aliases: ALIASES,
    build: |json, p| {
        let config = Config::read(defaults(), json, ALIASES)?;
        Ok(Box::new(Plain::pre_norm(p, &config, learned_positions, "layer_norm")?))
    },
    ignore: IGNORE,
};

pub(super) const BLENDERBOT_SMALL: DecoderArch = DecoderArch {
    model_type: "blenderbot-small",
    prefix: "model",
    defaults: small_defaults,
    aliases: ALIASES,
    build: |json, p| {
        Ok(Box::new(BlenderbotSmall::new(p, &Config::read(small_defaults(), json, ALIASES)?)?))
    },
    ignore: IGNORE,
};

fn defaults() -> Value {
    let changes = json!({
        "vocab_size": 8008, "max_position_embeddings": 128, "d_model": 2560, "encoder_layers": 2,
        "encoder_ffn_dim": 10240, "encoder_attention_heads": 32, "decoder_layers": 24,
        "decoder_ffn_dim": 10240, "decoder_attention_heads": 32, "bos_token_id": 1,
        "pad_token_id": 0, "decoder_start_token_id": 1, "encoder_no_repeat_ngram_size": 3,
    });
    bart::changed(bart::defaults("blenderbot"), changes)
}

fn small_defaults() -> Value {
    let changes = json!({
        "max_position_embeddings": 512, "d_model": 512, "encoder_layers": 8,
        "encoder_ffn_dim": 2048, "decoder_layers": 8, "decoder_ffn_dim": 2048, "bos_token_id": 1,
        "pad_token_id": 0, "decoder_start_token_id": 1,
    });
    bart::changed(bart::defaults("blenderbot-small"), changes)
}

struct BlenderbotSmall {
    core: Core,
    /// [P, D]
    embed_positions: Embedding,
    layernorm_embedding: LayerNorm,
}

impl BlenderbotSmall {
    fn new(p: &Params, config: &Config) -> Result<Self> {
        let core = Core::new(p, config, Order::PostNorm, "model.decoder", "lm_head.weight")?;
        let p = p / "model" / "decoder";
        Ok(BlenderbotSmall {
            core,
            embed_positions: learned_positions(&p, config)?,
            layernorm_embedding: p.layer_norm("layernorm_embedding", config.d_model, EPS)?,
        })
    }
}

impl Decoder for BlenderbotSmall {
    fn forward(
        &self,
        input_ids: &Tensor,
        encoder_hidden_states: &Tensor,
        cache: &mut Cache,
        train: bool,
    ) -> Tensor {
        let positions = plain(input_ids.size()[1], cache.past(), input_ids.device());
        // The norm is over the tokens alone, before the positions come in; it would undo
        // `scale_embedding`, which the reference's decoder leaves out.
        let xs = self.layernorm_embedding.forward(&self.core.embed_tokens.forward(input_ids))
            + self.embed_positions.forward(&positions);
        self.core.layers(&xs, encoder_hidden_states, cache, train)
    }

    fn logits(&self, hidden_states: &Tensor) -> Tensor {
        self.core.logits(hidden_states)
    }

    fn limits(&self) -> Limits {
        self.core.limits(Some(self.embed_positions.weight.size()[0]))
    }
}
