//! Marian's decoder (Junczys-Dowmunt et al. 2018): BART's layers, positions from a sinusoidal table
//! that the checkpoint stores, no norm over the embeddings. Reference: `modeling_marian.py`.

use anyhow::Result;
use serde_json::{Value, json};

use super::DecoderArch;
use super::bart::{self, ALIASES, Config, IGNORE};
use super::bart_layer::{Core, Plain};
use super::block::Order;
use crate::nn::position::sinusoidal_marian;
use crate::nn::{Embedding, Params};

pub(super) const MARIAN: DecoderArch = DecoderArch {
    model_type: "marian",
    prefix: "model",
    defaults,
    aliases: ALIASES,
    build: |json, p| Ok(Box::new(new(p, &Config::read(defaults(), json, ALIASES)?)?)),
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

fn new(p: &Params, config: &Config) -> Result<Plain> {
    let core = Core::new(p, config, Order::PostNorm, "model.decoder", "lm_head.weight")?;
    let embed_positions = fixed_positions(&(p / "model" / "decoder"), config)?;
    Ok(Plain { core, embed_positions, layer_norm: None })
}

/// Key `embed_positions.weight` [P, D] below `p`: a fixed table, computed where there is no file.
pub(super) fn fixed_positions(p: &Params, config: &Config) -> Result<Embedding> {
    let (rows, d) = (config.max_position_embeddings, config.d_model);
    let make = || sinusoidal_marian(rows, d);
    let table = (p / "embed_positions").table("weight", &[rows, d], make)?;
    Ok(Embedding::new(table, None))
}
