//! Pegasus' decoder (Zhang et al. 2019): mBART's order of operations, Marian's positions, no norm over
//! the embeddings. Reference: `modeling_pegasus.py`.

use anyhow::Result;
use serde_json::{Value, json};

use super::DecoderArch;
use super::bart::{self, ALIASES, Config, EPS, IGNORE};
use super::bart_layer::{Core, Plain};
use super::block::Order;
use super::marian::fixed_positions;
use crate::nn::Params;

pub(super) const PEGASUS: DecoderArch = DecoderArch {
    model_type: "pegasus",
    prefix: "model",
    defaults,
    aliases: ALIASES,
    build: |json, p| Ok(Box::new(new(p, &Config::read(defaults(), json, ALIASES)?)?)),
    ignore: IGNORE,
};

fn defaults() -> Value {
    let changes = json!({
        "bos_token_id": null, "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0,
        "forced_eos_token_id": 1,
    });
    bart::changed(bart::defaults("pegasus"), changes)
}

fn new(p: &Params, config: &Config) -> Result<Plain> {
    let core = Core::new(p, config, Order::PreNorm, "model.decoder", "lm_head.weight")?;
    let p = p / "model" / "decoder";
    Ok(Plain {
        core,
        embed_positions: fixed_positions(&p, config)?,
        layer_norm: Some(p.layer_norm("layer_norm", config.d_model, EPS)?),
    })
}
