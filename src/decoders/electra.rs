//! ELECTRA's generator as a decoder (Clark et al. 2020): BERT with embeddings of their own size.
//! Reference: `modeling_electra.py`.

use anyhow::Result;
use serde_json::{Value, json};

use super::bert::{self, Bert, Config, Head, Transform};
use super::bert_embeddings::{Embeddings, Positions, project};
use super::{DecoderArch, bert_layer};
use crate::nn::params::ZEROS;
use crate::nn::{Activation, Params};

pub(super) const ELECTRA: DecoderArch = DecoderArch {
    model_type: "electra",
    prefix: "electra",
    defaults,
    aliases: &[],
    build: |json, p| Ok(Box::new(new(p, &Config::read(defaults(), json)?)?)),
    ignore: bert::IGNORE,
};

fn defaults() -> Value {
    let mut json = bert::defaults("electra");
    json["embedding_size"] = json!(128);
    json["hidden_size"] = json!(256);
    json["num_attention_heads"] = json!(4);
    json["intermediate_size"] = json!(1024);
    json
}

fn new(p: &Params, config: &Config) -> Result<Bert> {
    let (d, e, init) = (config.hidden_size, config.embedding_size(), config.init());
    let (word, decoder) = p.tied(
        "electra.embeddings.word_embeddings.weight",
        "generator_lm_head.weight",
        &[config.vocab_size, e],
        config.word_init(),
        config.tie_word_embeddings,
    )?;
    let base = p / "electra";
    let positions = Positions::plain(&(&base / "embeddings"), config, e)?;
    let predictions = p / "generator_predictions";
    Ok(Bert {
        embeddings: Embeddings::new(&(&base / "embeddings"), config, word, positions)?,
        project: project(&base, "embeddings_project", e, config)?,
        layers: bert_layer::stack(&(&base / "encoder" / "layer"), config)?,
        layer_norm: None,
        head: Head {
            transform: Some(Transform {
                dense: predictions.linear("dense", d, e, init)?,
                // Whatever `hidden_act` says.
                activation: Activation::Gelu,
                layer_norm: predictions.layer_norm("LayerNorm", e, config.layer_norm_eps)?,
            }),
            decoder: p.head(
                "generator_lm_head.weight",
                decoder,
                Some((p / "generator_lm_head").var("bias", &[config.vocab_size], ZEROS)?),
            )?,
        },
        limits: config.limits(config.max_position_embeddings),
    })
}
