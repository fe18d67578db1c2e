//! BertGeneration (Rothe et al. 2020): BERT without token types, the output layer right on the states.
//! Reference: `modeling_bert_generation.py`.

use anyhow::Result;
use serde_json::{Value, json};

use super::bert::{self, Bert, Config, Head};
use super::bert_embeddings::{Embeddings, Positions};
use super::{DecoderArch, bert_layer};
use crate::nn::{Embedding, Params};

pub(super) const BERT_GENERATION: DecoderArch = DecoderArch {
    model_type: "bert-generation",
    prefix: "bert",
    defaults,
    aliases: &[],
    build: |json, p| Ok(Box::new(new(p, &Config::read(defaults(), json)?)?)),
    ignore: bert::IGNORE,
};

fn defaults() -> Value {
    json!({
        "model_type": "bert-generation", "vocab_size": 50358, "hidden_size": 1024,
        "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096,
        "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1,
        "max_position_embeddings": 512, "initializer_range": 0.02, "layer_norm_eps": 1e-12,
        "position_embedding_type": "absolute", "use_cache": true, "bos_token_id": 2,
        "pad_token_id": 0, "eos_token_id": 1, "tie_word_embeddings": true,
    })
}

fn new(p: &Params, config: &Config) -> Result<Bert> {
    let d = config.hidden_size;
    let (word, decoder) = p.tied(
        "bert.embeddings.word_embeddings.weight",
        "lm_head.decoder.weight",
        &[config.vocab_size, d],
        config.word_init(),
        config.tie_word_embeddings,
    )?;
    let (embeddings, layers) = (p / "bert" / "embeddings", p / "bert" / "encoder" / "layer");
    Ok(Bert {
        embeddings: Embeddings {
            word: Embedding::new(word, config.pad_token_id),
            positions: Positions::absolute(&embeddings, config, d)?,
            token_type: None,
            task_type: None,
            layer_norm: Some(embeddings.layer_norm("LayerNorm", d, config.layer_norm_eps)?),
            dropout: config.hidden_dropout_prob,
        },
        project: None,
        layers: bert_layer::stack(&layers, config)?,
        layer_norm: None,
        head: Head {
            transform: None,
            decoder: p.head(
                "lm_head.decoder.weight",
                decoder,
                Some(Head::bias(&(p / "lm_head"), config.vocab_size)?),
            )?,
        },
        limits: config.limits(config.max_position_embeddings),
    })
}
