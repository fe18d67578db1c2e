//! BigBird-Pegasus' decoder (Zaheer et al. 2020): mBART's order of operations with learned positions,
//! projections without biases, and `layernorm_embedding` as the norm at the end. Its decoder attends
//! in full; `attention_type` is the encoder's. Reference: `modeling_bigbird_pegasus.py`.

use serde_json::{Value, json};

use super::DecoderArch;
use super::bart::{self, Config, IGNORE};
use super::bart_layer::{Plain, learned_positions};

pub(super) const BIGBIRD_PEGASUS: DecoderArch = DecoderArch {
    model_type: "bigbird_pegasus",
    prefix: "model",
    defaults,
    aliases: ALIASES,
    build: |json, p| {
        let config = Config::read(defaults(), json, ALIASES)?;
        Ok(Box::new(Plain::pre_norm(p, &config, learned_positions, "layernorm_embedding")?))
    },
    ignore: IGNORE,
};

const ALIASES: &[(&str, &str)] = &[
    ("num_attention_heads", "encoder_attention_heads"),
    ("hidden_size", "d_model"),
    ("attention_probs_dropout_prob", "attention_dropout"),
];

fn defaults() -> Value {
    let changes = json!({
        "vocab_size": 96103, "max_position_embeddings": 4096, "encoder_layers": 16,
        "decoder_layers": 16, "activation_function": "gelu_new", "scale_embedding": true,
        "attention_type": "block_sparse", "block_size": 64, "num_random_blocks": 3,
        "use_bias": false, "bos_token_id": 2, "pad_token_id": 0, "eos_token_id": 1,
        "decoder_start_token_id": 2, "forced_eos_token_id": null,
    });
    bart::changed(bart::defaults("bigbird_pegasus"), changes)
}
