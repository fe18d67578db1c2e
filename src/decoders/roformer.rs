//! RoFormer as a decoder (Su et al. 2021): BERT whose self-attention turns queries and keys instead of
//! adding positions to the embeddings. Reference: `modeling_roformer.py`.

use anyhow::{Result, ensure};
use serde::Deserialize;
use serde_json::{Value, json};

use super::bert::{self, Bert, Config, Head};
use super::bert_embeddings::{Embeddings, Positions, project};
use super::block::Block;
use super::{DecoderArch, bert_layer};
use crate::nn::position::{Relative, Rotary, sinusoidal_marian};
use crate::nn::{Params, config};

pub(super) const ROFORMER: DecoderArch = DecoderArch {
    model_type: "roformer",
    prefix: "roformer",
    defaults,
    aliases: &[],
    build: |json, p| {
        let own: Own = config::read(defaults(), json, &[])?;
        Ok(Box::new(new(p, &Config::read(defaults(), json)?, own.rotary_value)?))
    },
    ignore: bert::IGNORE,
};

fn defaults() -> Value {
    json!({
        "model_type": "roformer", "vocab_size": 50000, "embedding_size": null,
        "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
        "intermediate_size": 3072, "hidden_act": "gelu", "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1, "max_position_embeddings": 1536,
        "type_vocab_size": 2, "initializer_range": 0.02, "layer_norm_eps": 1e-12,
        "rotary_value": false, "use_cache": true, "pad_token_id": 0,
        "tie_word_embeddings": true,
    })
}

/// The field that BERT has not.
#[derive(Deserialize)]
struct Own {
    /// Whether values are turned too.
    rotary_value: bool,
}

fn new(p: &Params, config: &Config, rotary_value: bool) -> Result<Bert> {
    let e = config.embedding_size();
    let (word, decoder) = p.tied(
        "roformer.embeddings.word_embeddings.weight",
        "cls.predictions.decoder.weight",
        &[config.vocab_size, e],
        config.word_init(),
        config.tie_word_embeddings,
    )?;
    let base = p / "roformer";
    let embeddings = Embeddings::new(&(&base / "embeddings"), config, word, Positions::None)?;
    let project = project(&base, "embeddings_project", e, config)?;
    let rotary = rotary(&(&base / "encoder"), config, rotary_value)?;
    let turn = |block: &mut Block| {
        block.attention.relative = Some(Relative::Rotary(rotary.share()));
    };
    let layers = bert_layer::stack_with(&(&base / "encoder" / "layer"), config, turn)?;
    let head = Head::predictions(&(p / "cls" / "predictions"), config, decoder)?;
    let limits = config.limits(config.max_position_embeddings);
    Ok(Bert { embeddings, project, layers, layer_norm: None, head, limits })
}

/// The table `embed_positions.weight` [P, d] below `p`: sines, then cosines.
fn rotary(p: &Params, config: &Config, value: bool) -> Result<Rotary> {
    let (rows, d) =
        (config.max_position_embeddings, config.hidden_size / config.num_attention_heads);
    ensure!(d % 2 == 0, "rotary positions need heads of even size, hidden_size makes them {d}");
    let make = || sinusoidal_marian(rows, d);
    let table = (p / "embed_positions").table("weight", &[rows, d], make)?;
    let (sin, cos) = (table.narrow(1, 0, d / 2), table.narrow(1, d / 2, d / 2));
    Ok(Rotary { sin, cos, value })
}
