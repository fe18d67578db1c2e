//! Pegasus' decoder (Zhang et al. 2019): mBART's order of operations, Marian's positions, no norm over
//! the embeddings. Reference: `modeling_pegasus.py`.

use anyhow::Result;
use serde_json::{Value, json};
use tch::Tensor;

use super::bart::{self, ALIASES, Config, EPS, IGNORE};
use super::bart_layer::{Core, Layer};
use super::marian::fixed_positions;
use super::{Decoder, DecoderArch, Limits};
use crate::nn::position::plain;
use crate::nn::{Cache, Embedding, LayerNorm, Params};

pub(super) const PEGASUS: DecoderArch = DecoderArch {
    model_type: "pegasus",
    prefix: "model",
    defaults,
    aliases: ALIASES,
    build: |json, p| Ok(Box::new(Pegasus::new(p, &Config::read(defaults(), json, ALIASES)?)?)),
    ignore: IGNORE,
};

fn defaults() -> Value {
    let changes = json!({
        "bos_token_id": null, "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0,
        "forced_eos_token_id": 1,
    });
    bart::changed(bart::defaults("pegasus"), changes)
}

struct Pegasus {
    core: Core,
    /// [P, D]
    embed_positions: Embedding,
    layer_norm: LayerNorm,
}

impl Pegasus {
    fn new(p: &Params, config: &Config) -> Result<Self> {
        let core = Core::new(p, config, "model.decoder", "lm_head.weight")?;
        let p = p / "model" / "decoder";
        Ok(Pegasus {
            core,
            embed_positions: fixed_positions(&p, config)?,
            layer_norm: p.layer_norm("layer_norm", config.d_model, EPS)?,
        })
    }
}

impl Decoder for Pegasus {
    fn forward(
        &self,
        input_ids: &Tensor,
        encoder_hidden_states: &Tensor,
        cache: &mut Cache,
        train: bool,
    ) -> Tensor {
        let positions = plain(input_ids.size()[1], cache.past(), input_ids.device());
        let xs = self.core.tokens(input_ids) + self.embed_positions.forward(&positions);
        let xs = self.core.layers(&xs, encoder_hidden_states, cache, train, Layer::pre_norm);
        self.layer_norm.forward(&xs)
    }

    fn logits(&self, hidden_states: &Tensor) -> Tensor {
        self.core.logits(hidden_states)
    }

    fn limits(&self) -> Limits {
        self.core.limits(Some(self.embed_positions.weight.size()[0]))
    }
}
