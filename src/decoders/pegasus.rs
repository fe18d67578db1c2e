//! Pegasus' decoder (Zhang et al. 2019): mBART's order of operations, Marian's positions, no norm over
//! the embeddings. Reference: `modeling_pegasus.py`.

use serde_json::{Value, json};

use super::DecoderArch;
use super::bart::{self, ALIASES, Config, IGNORE};
use super::bart_layer::Plain;
use super::marian::fixed_positions;

pub(super) const PEGASUS: DecoderArch = DecoderArch {
    model_type: "pegasus",
    prefix: "model",
    defaults,
    aliases: ALIASES,
    build: |json, p| {
        let config = Config::read(defaults(), json, ALIASES)?;
        Ok(Box::new(Plain::pre_norm(p, &config, fixed_positions, "layer_norm")?))
    },
    ignore: IGNORE,
};

fn defaults() -> Value {
    let changes = json!({
        "bos_token_id": null, "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0,
        "forced_eos_token_id": 1,
    });
    bart::changed(bart::defaults("pegasus"), changes)
}
