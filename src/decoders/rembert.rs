//! RemBERT as a decoder (Chung et al. 2020): BERT whose embeddings and output layer have sizes of
//! their own. Reference: `modeling_rembert.py`.

use anyhow::Result;
use serde::Deserialize;
use serde_json::{Value, json};

use super::bert::{self, Bert, Config, Head, Transform};
use super::bert_embeddings::{Embeddings, Positions};
use super::{DecoderArch, bert_layer};
use crate::nn::params::ZEROS;
use crate::nn::{Activation, Params, config};

pub(super) const REMBERT: DecoderArch = DecoderArch {
    model_type: "rembert",
    prefix: "rembert",
    defaults,
    aliases: &[],
    build: |json, p| {
        let own = config::read(defaults(), json, &[])?;
        Ok(Box::new(new(p, &Config::read(defaults(), json)?, &own)?))
    },
    ignore: bert::IGNORE,
};

fn defaults() -> Value {
    json!({
        "model_type": "rembert", "vocab_size": 250300, "hidden_size": 1152,
        "num_hidden_layers": 32, "num_attention_heads": 18, "input_embedding_size": 256,
        "output_embedding_size": 1664, "intermediate_size": 4608, "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
        "classifier_dropout_prob": 0.1, "max_position_embeddings": 512, "type_vocab_size": 2,
        "initializer_range": 0.02, "layer_norm_eps": 1e-12, "use_cache": true,
        "bos_token_id": 312, "pad_token_id": 0, "eos_token_id": 313,
        "tie_word_embeddings": false,
    })
}

/// The fields that BERT has not.
#[derive(Deserialize)]
struct Own {
    input_embedding_size: i64,
    output_embedding_size: i64,
}

fn new(p: &Params, config: &Config, own: &Own) -> Result<Bert> {
    let (v, d, init) = (config.vocab_size, config.hidden_size, config.init());
    let (input, output) = (own.input_embedding_size, own.output_embedding_size);
    // The reference's config class sets tie_word_embeddings to false whatever the file says.
    let word =
        p.var("rembert.embeddings.word_embeddings.weight", &[v, input], config.word_init())?;
    let decoder = p.var("cls.predictions.decoder.weight", &[v, output], init)?;
    let (embeddings, encoder) = (p / "rembert" / "embeddings", p / "rembert" / "encoder");
    let positions = Positions::plain(&embeddings, config, input)?;
    let head = p / "cls" / "predictions";
    Ok(Bert {
        embeddings: Embeddings::new(&embeddings, config, word, positions)?,
        project: Some(encoder.linear("embedding_hidden_mapping_in", input, d, init)?),
        layers: bert_layer::stack(&(&encoder / "layer"), config)?,
        layer_norm: None,
        head: Head {
            transform: Some(Transform {
                dense: head.linear("dense", d, output, init)?,
                activation: Activation::from_name(&config.hidden_act)?,
                layer_norm: head.layer_norm("LayerNorm", output, config.layer_norm_eps)?,
            }),
            decoder: head.head(
                "decoder.weight",
                decoder,
                Some(head.var("decoder.bias", &[v], ZEROS)?),
            )?,
        },
        limits: config.limits(config.max_position_embeddings),
    })
}
