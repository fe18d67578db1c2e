//! Marian's decoder (Junczys-Dowmunt et al. 2018): BART's layers, positions from a sinusoidal table
//! that the checkpoint stores, no norm over the embeddings. Reference: `modeling_marian.py`.

use anyhow::Result;
use serde_json::{Value, json};
use tch::Tensor;

use super::bart::{self, ALIASES, Config, IGNORE};
use super::bart_layer::{Core, Layer};
use super::{Decoder, DecoderArch, Limits};
use crate::nn::position::{plain, sinusoidal_marian};
use crate::nn::{Cache, Embedding, Params};

pub(super) const MARIAN: DecoderArch = DecoderArch {
    model_type: "marian",
    prefix: "model",
    defaults,
    aliases: ALIASES,
    build: |json, p| Ok(Box::new(Marian::new(p, &Config::read(defaults(), json, ALIASES)?)?)),
    ignore: IGNORE,
};

fn defaults() -> Value {
    let changes = json!({
        "vocab_size": 58101, "pad_token_id": 58100, "bos_token_id": null, "eos_token_id": 0,
        "decoder_start_token_id": 58100, "forced_eos_token_id": 0,
        "share_encoder_decoder_embeddings": true,
    });
    bart::changed(bart::defaults("marian"), changes)
}

struct Marian {
    core: Core,
    /// [P, D]
    embed_positions: Embedding,
}

/// Key `embed_positions.weight` [P, D] below `p`: a fixed table, computed where there is no file.
pub(super) fn fixed_positions(p: &Params, config: &Config) -> Result<Embedding> {
    let (rows, d) = (config.max_position_embeddings, config.d_model);
    let make = || sinusoidal_marian(rows, d);
    let table = (p / "embed_positions").table("weight", &[rows, d], make)?;
    Ok(Embedding::new(table, None))
}

impl Marian {
    fn new(p: &Params, config: &Config) -> Result<Self> {
        let core = Core::new(p, config, "model.decoder", "lm_head.weight")?;
        let embed_positions = fixed_positions(&(p / "model" / "decoder"), config)?;
        Ok(Marian { core, embed_positions })
    }
}

impl Decoder for Marian {
    fn forward(
        &self,
        input_ids: &Tensor,
        encoder_hidden_states: &Tensor,
        cache: &mut Cache,
        train: bool,
    ) -> Tensor {
        let positions = plain(input_ids.size()[1], cache.past(), input_ids.device());
        let xs = self.core.tokens(input_ids) + self.embed_positions.forward(&positions);
        self.core.layers(&xs, encoder_hidden_states, cache, train, Layer::post_norm)
    }

    fn logits(&self, hidden_states: &Tensor) -> Tensor {
        self.core.logits(hidden_states)
    }

    fn limits(&self) -> Limits {
        self.core.limits(Some(self.embed_positions.weight.size()[0]))
    }
}
